"""How late the end of a run is noticed, with callbacks and without, where runs take as long as real ones.

A scenario of `bench.py`. Runs take 60 to 300 s, four at a time in each of ten kernels that know twenty
earlier ones. Everything is real, engines, ledgers, HTTP and signed calls; only the time of both sides runs
faster (`--times`), and what is printed is in the runs' own seconds.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

from measure import p95

from kling_nb.engine.limits import Limits
from kling_nb.engine.polling.schedule import LOOPBACK_SCALE
from kling_nb.records.base import utc_now
from kling_nb.records.run import RunStatus
from support.callbacks import SECRET, receiving
from support.stage import Stage
from support.workbench import until

KERNELS, AT_ONCE, EARLIER = 10, 4, 20
SHORTEST_S, LONGEST_S = 60.0, 300.0
_GOING = {RunStatus.CREATED, RunStatus.SUBMITTING, RunStatus.QUEUED, RunStatus.RUNNING}


class Kernel:
    """One kernel and its provider.

    Args:
        folder: An empty one.
        random: Draws how long runs take.
        times: How much faster time runs.
    """

    def __init__(self, folder: Path, random: Random, times: float) -> None:
        self.random, self.times = random, times
        self.stage = Stage(
            folder,
            "runflow",
            wait_scale=1 / times,
            faults={"runflow.callback_secret": SECRET, "queue_s": 0, "dispatch_s": 0},
            limits=Limits(),
        )
        # Waits here are the real ones, this much faster.
        self.stage.engine.sandbox_wait = 1 / times / LOOPBACK_SCALE
        self.noticed: dict[str, float] = {}
        for _ in range(EARLIER):
            self._remember()

    def _wait_s(self) -> float:
        return self.random.uniform(SHORTEST_S, LONGEST_S)

    def _remember(self) -> None:
        """Write down a run that ended before."""
        record, now = self.stage.record(), utc_now()
        ended = {
            "status": RunStatus.SUCCEEDED,
            "submitted_at": now - timedelta(seconds=self._wait_s() / self.times),
            "finished_at": now,
        }
        with self.stage.ledger.writing() as transaction:
            transaction.write(record.model_copy(update=ended), "remembered")

    def send(self, url: str | None) -> None:
        """Send its runs, to be called at an address or to be polled."""
        for number in range(AT_ONCE):
            self.stage.faults(run_s=self._wait_s())
            record = self.stage.record(f"Boat {number}").model_copy(update={"callback_url": url})
            with self.stage.ledger.writing() as transaction:
                transaction.write(record, "addressed")
            run = self.stage.engine.handle(record)
            run.on_change(self._look)
            until(lambda run=run: run.provider_run_id)

    def _look(self, run) -> None:
        if run.status not in _GOING:
            self.noticed.setdefault(run.provider_run_id, time.monotonic())

    def late(self) -> list[float]:
        """Wait for its runs; give how late the end of each was noticed."""
        until(lambda: len(self.noticed) == AT_ONCE, 2 * LONGEST_S)
        ended = {run.id: run.ended_s() for run in self.stage.sandbox.provider.runs}
        return [(seen - ended[name]) * self.times for name, seen in self.noticed.items()]

    def reads(self) -> float:
        """Give how many requests asked about a run."""
        stats = self.stage.stats()
        return (stats["polls"] + stats["lists"]) / AT_ONCE


def measure(called: bool, times: float) -> dict[str, float]:  # noqa: FBT001 - one of two
    """Give how late each end was noticed, in the runs' own seconds, and the requests a run."""
    random = Random(15)
    with tempfile.TemporaryDirectory(prefix="kling-nb-callbacks-") as folder:
        kernels = []
        for number in range(KERNELS):
            place = Path(folder) / str(number)
            place.mkdir()
            kernels.append(Kernel(place, random, times))
        try:
            late = _late(kernels, called=called)
            return {
                "right": len(late),
                "mean_s": statistics.mean(late),
                "p50_s": statistics.median(late),
                "p95_s": p95(late),
                "requests": statistics.mean(kernel.reads() for kernel in kernels),
            }
        finally:
            for kernel in kernels:
                kernel.stage.close()


def _late(kernels: list[Kernel], *, called: bool) -> list[float]:
    with ExitStack() as stack:
        for kernel in kernels:
            kernel.send(stack.enter_context(receiving(kernel.stage.ledger)) if called else None)
        return [seconds for kernel in kernels for seconds in kernel.late()]


def main() -> None:
    """Measure both ways, and print them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=float, default=2.0, help="how much faster time runs")
    times = parser.parse_args().times
    ways = {"polled": measure(called=False, times=times), "called": measure(called=True, times=times)}
    print(json.dumps({"runs": KERNELS * AT_ONCE, "times": times, "ways": ways}))


if __name__ == "__main__":
    main()
