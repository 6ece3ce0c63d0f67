"""kling_nb as a client, in a process of its own: `python tests/benchmarks/ours.py ACT JSON`.

The ledger is on, clips are downloaded, verified and kept, as for every user; the ledger, the folder, the
keys and the addresses come by the environment that `bench.py` sets.
"""

import dataclasses
import itertools
import json
import sqlite3
import sys
import time
from importlib import import_module
from pathlib import Path

import measure

import kling_nb as kling
from kling_nb.session.api import ask_for, current

_PROMPT = "A red fox crosses fresh snow at dawn, number {}"


def _asked(given: dict, name: str, takes: int):
    ask = ask_for(name, duration=3, provider=given["wire"])
    return current().open(dataclasses.replace(ask, takes=tuple(range(takes))))


def _warm(given: dict) -> None:
    """One run to its end: whatever is loaded and opened once is there."""
    _asked(given, "A grey hare", 1)[0].wait(120)


def _timed(runs: list) -> dict[int, float]:
    """Note when each run is done, by its own callback."""
    result: dict[int, float] = {}
    for number, run in enumerate(runs):

        def noted(run, number=number) -> None:
            if run.done and number not in result:
                result[number] = time.time()

        run.on_change(noted)
        noted(run)
    return result


def follow(given: dict) -> dict:
    """Many runs from one call, to their clips.

    Memory over the import is over that of everything a run uses: kling_nb loads most of it when it is needed.
    """
    for module in ("kling_nb.network.client", "kling_nb.media.probe", "av"):
        import_module(module)
    before = measure.peak_mb()
    disk = measure.Disk() if given.get("count") else None
    _warm(given)
    begun = disk.counts() if disk else {}
    meter = measure.Meter()
    runs = _asked(given, "A red fox", given["runs"])
    opened = time.time() - meter.begun
    result = _timed(runs)
    end = time.monotonic() + given.get("limit_s", 900)
    for run in runs:
        run.wait(max(1.0, end - time.monotonic()))
    used = meter.end()
    numbers = {run.provider_run_id: number for number, run in enumerate(runs)}
    got = {numbers[run.provider_run_id]: result[n] for n, run in enumerate(runs) if run.video and n in result}
    counts = disk.counts() if disk else {}
    return {
        **used,
        "opened_s": opened,
        "import_mb": before,
        "over_import_mb": measure.peak_mb() - before,
        "got": got,
        "ids": {run.provider_run_id: number for number, run in enumerate(runs)},
        "disk": {name: counts[name] - begun[name] for name in counts},
    }


def leave(given: dict) -> dict:
    """Leave many runs to workers."""
    begun = time.time()
    ask = ask_for("A red fox", duration=3, provider=given["wire"], detached=True)
    current().open(dataclasses.replace(ask, takes=tuple(range(given["runs"]))))
    return {"left_s": time.time() - begun}


def faults(given: dict) -> dict:
    """Runs of different prompts under faults; says which were delivered, and what became of the others."""
    runs = []
    refused = 0
    meter = measure.Meter()
    for number in range(given["runs"]):
        try:
            runs.append(kling.submit(_PROMPT.format(number), duration=3, provider=given["wire"]))
        except kling.KlingError:
            refused += 1
    end = time.monotonic() + given.get("limit_s", 600)
    waited = 0
    for run in runs:
        try:
            run.wait(max(0.5, end - time.monotonic()))
        except kling.WaitTimeoutError:
            waited += 1
    ends = [str(run.status.value) for run in runs]
    delivered = [run.prompt for run in runs if run.video is not None and run.video.path.exists()]
    return {
        **meter.end(),
        "delivered": delivered,
        "ends": {word: ends.count(word) for word in set(ends)},
        "lost": [run.prompt for run in runs if run.status.value == "lost"],
        "refused": refused,
        "late": waited,
    }


def _durable(path: str, runs: int, limit_s: float = 300) -> None:
    """Wait until the ids of so many runs can be read from the ledger's file by somebody else."""
    end = time.monotonic() + limit_s
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30) as ledger:
        while time.monotonic() < end:
            [[found]] = ledger.execute("SELECT count(*) FROM runs WHERE provider_run_id IS NOT NULL")
            if found >= runs:
                return
            time.sleep(0.05)
    raise TimeoutError(f"{found} of {runs} ids are in the ledger")


def submit(given: dict) -> dict:
    """One submit of a warm kernel, then a burst by one call, then a burst by a call for each."""
    _warm(given)
    kling.submit("A warm submit", duration=3, provider=given["wire"])
    numbers = itertools.count()

    def single() -> None:
        kling.submit(f"A single run, number {next(numbers)}", duration=3, provider=given["wire"])

    singles = {pause: measure.after_idling(single, pause) for pause in measure.PAUSES_S}
    usual = {pause: measure.after_idling(measure.usual_work, pause) for pause in measure.PAUSES_S}
    ledger = current().settings().ledger
    before = next(numbers) + 2
    _durable(ledger, before)
    meter = measure.Meter()
    _asked(given, "A burst", given["runs"])
    opened = time.time() - meter.begun
    _durable(ledger, before + given["runs"])
    burst = meter.end()
    meter = measure.Meter()
    for number in range(given["runs"]):
        kling.submit(_PROMPT.format(number), duration=3, provider=given["wire"])
    called = time.time() - meter.begun
    _durable(ledger, before + 2 * given["runs"])
    calls = meter.end()
    return {
        "singles": [*singles.values()],
        "usual": [*usual.values()],
        "burst": burst,
        "opened_s": opened,
        "calls": calls,
        "called_s": called,
    }


def download(given: dict) -> dict:
    """One run whose clip is large; the server says when it was asked for it.

    The last change of the file is that its first name is taken away, when it is whole and has its own.
    """
    _warm(given)
    [run] = _asked(given, f"A large clip {given.get('round', 0)}", 1)
    result = _timed([run])
    run.wait(120)
    facts = Path(run.video.path).stat()
    return {"got": result[0], "kept": facts.st_ctime, "size": facts.st_size}


if __name__ == "__main__":
    acts = {"follow": follow, "leave": leave, "faults": faults, "submit": submit, "download": download}
    measure.reply(acts[sys.argv[1]](json.loads(sys.argv[2])))
