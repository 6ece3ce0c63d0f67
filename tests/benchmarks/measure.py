"""What a client process says of itself: time of its processors, memory, commits and syncs."""

import argparse
import json
import os
import resource
import sqlite3
import statistics
import sys
import threading
import time
from collections.abc import Callable


def cpu_s() -> float:
    """Seconds of processor of this process and of the ones it started."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def peak_mb() -> float:
    """The most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def p95(values: list[float]) -> float | None:
    """The value that 95 of 100 do not exceed."""
    return sorted(values)[int(len(values) * 0.95) - 1] if len(values) > 1 else None


#: Of a process that is awake, and of one that the machine may have put aside.
PAUSES_S = (0.02, 0.2)


def after_idling(act: Callable[[], object], pause_s: float, times: int = 9) -> float:
    """Give the median milliseconds of a call, each after a pause."""
    taken = []
    for _ in range(times):
        time.sleep(pause_s)
        begun = time.perf_counter()
        act()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1000


def usual_work() -> None:
    """Do some of what any Python does: a yardstick for what a pause costs on this machine."""
    parser = argparse.ArgumentParser()
    for number in range(25):
        parser.add_argument(f"--option-{number}", type=int, help="a number")
    parser.parse_args(["--option-3", "4"])
    parser.format_help()


class Meter:
    """Measures from its making to `end`."""

    def __init__(self) -> None:
        self.memory_mb = peak_mb()
        self.cpu = cpu_s()
        self.begun = time.time()

    def end(self) -> dict[str, float]:
        """What was used since."""
        return {
            "wall_s": time.time() - self.begun,
            "cpu_s": cpu_s() - self.cpu,
            "memory_mb": peak_mb() - self.memory_mb,
            "begun": self.begun,
        }


class Disk:
    """Counts what reaches the disk: commits of writing transactions, and calls of `os.fsync`."""

    def __init__(self) -> None:
        self.commits = self.synced = self.syncs = 0
        self._lock = threading.Lock()
        self._real = {name: getattr(os, name) for name in ("fsync", "fdatasync")}
        for name in self._real:
            setattr(os, name, self._counting(name))
        connect = sqlite3.connect

        def opened(*args: object, **options: object) -> sqlite3.Connection:
            connection = connect(*args, **options)
            state = {"full": True, "inside": False, "writes": False}
            connection.set_trace_callback(lambda text: self._traced(state, text))
            return connection

        sqlite3.connect = sqlite3.dbapi2.connect = opened

    def _counting(self, name: str):
        def sync(fd: int) -> None:
            with self._lock:
                self.syncs += 1
            self._real[name](fd)

        return sync

    def _traced(self, state: dict[str, bool], text: str) -> None:
        word = text.lstrip().partition(" ")[0].rstrip(";").upper()
        if word == "PRAGMA" and "synchronous" in text.lower() and "=" in text:
            state["full"] = text.partition("=")[2].strip().upper() not in {"NORMAL", "OFF", "0", "1"}
        elif word == "BEGIN":
            state["inside"], state["writes"] = True, False
        elif word in {"INSERT", "UPDATE", "DELETE", "REPLACE"} and state["inside"]:
            state["writes"] = True
        elif word in {"INSERT", "UPDATE", "DELETE", "REPLACE"}:
            self._committed(state)
        elif word in {"COMMIT", "END", "ROLLBACK"} and "TO" not in text.upper().split():
            if word != "ROLLBACK" and state["writes"]:
                self._committed(state)
            state["inside"] = state["writes"] = False

    def _committed(self, state: dict[str, bool]) -> None:
        with self._lock:
            self.commits += 1
            self.synced += state["full"]

    def counts(self) -> dict[str, int]:
        """The sums since it was made."""
        return {"commits": self.commits, "synced": self.synced, "syncs": self.syncs}


def reply(result: dict) -> None:
    """Hand a result to the process that asked, and end at once: what runs on is not measured."""
    sys.stdout.write("\n" + json.dumps(result) + "\n")
    sys.stdout.flush()
    os._exit(0)
