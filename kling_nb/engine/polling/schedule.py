"""When to ask again: pure functions from elapsed time to seconds of waiting.

Invariants: nothing here sleeps; every wait is positive and bounded; jitter keeps many runs from asking
in one instant.
"""

import math
from bisect import bisect_right, insort
from collections.abc import Sequence
from random import Random

__all__ = ["LOOPBACK_SCALE", "MOST_S", "Pace", "back_off", "typical"]

#: A clip of the sandbox takes 3 to 12 s, a real one 60 to 240.
LOOPBACK_SCALE = 0.05
#: Seconds that a clip may come later if that saves one read.
_READ_WORTH_S = 0.11
#: No run is left unread for longer, however long it is expected to take.
MOST_S = 30.0
#: How narrow the waits without any history are taken to be: their logarithms have a deviation of 1.8 / this.
_PRIOR_SHAPE = 4.0
#: What the expectation without history weighs, in runs at risk.
_PRIOR_RUNS = 0.7
#: The same for what a run that still goes on says of the ages after its last reading.
_GOING_SHAPE = 14.0
_MOST_SHAPE = 60.0
#: Waits that are kept of one kind, and runs by which many are represented.
_KEPT, _STAND_INS = 400, 16


def typical(waits: Sequence[float]) -> tuple[float, float] | None:
    """Give the range in which most of the user's own runs ended.

    Args:
        waits: Seconds that earlier runs of this kind took.

    Returns:
        The 10th and the 90th percentile in seconds, or None below three runs.

    Example:
        >>> typical([100.0, 120.0, 140.0])
        (100.0, 140.0)
    """
    if len(waits) < 3:
        return None
    ordered = sorted(waits)
    last = len(ordered) - 1
    return ordered[round(last * 0.1)], ordered[round(last * 0.9)]


class Pace:
    """How long the runs of one kind take, and when one that is on its way is best read.

    A read costs one request; reading late costs seconds. Their sum is least where the rate of reading is
    proportional to the square root of the hazard, which is the chance a second that a run ends now, having
    lasted so long. The hazard is that of a smoothed life table: runs that ended, over runs known to be on
    their way at that age, joined with the hazard that is expected without any history. That one goes on
    falling slowly past the last known end, so that what takes longer than ever is still read.

    Args:
        prior_s: Seconds that a run takes where nothing is known yet; half of them take longer.
        waits: Seconds that earlier runs of this kind took.

    Example:
        >>> pace = Pace(134.0, [118.0, 120.0, 121.0, 125.0])
        >>> first = pace.next_read(0.0, 1.0)
        >>> 0 < first < 125, pace.next_read(120.0, 1.0) < 124
        (True, True)
    """

    def __init__(self, prior_s: float, waits: Sequence[float] = ()) -> None:
        self._prior_s = max(prior_s, 0.05)
        self._ended = sorted(max(wait, 0.05) for wait in waits)
        self._going: dict[str, float] = {}
        #: What was learned since the table was made.
        self._news = 0
        self._ages: list[float] = []
        self._reads: list[float] = []

    def going(self, run_id: str, age_s: float) -> None:
        """Take down that a run was still on its way at this age."""
        self._going[run_id] = age_s
        self._news += 1

    def ended(self, run_id: str, age_s: float) -> None:
        """Take down that a run was read as done at this age: it ended at some time since its last reading."""
        before = self._going.pop(run_id, age_s)
        insort(self._ended, max((before + age_s) / 2, 0.05))
        if len(self._ended) > _KEPT:
            del self._ended[::2]
        self._news += 1

    def left(self, run_id: str) -> None:
        """Forget a run that nobody watches any more."""
        self._going.pop(run_id, None)

    def next_read(self, age_s: float, reads: float) -> float:
        """Give the age at which so many more reads of a run should have been made.

        Args:
            age_s: Its age at the reading before, in seconds since it was accepted.
            reads: 1 with some jitter; for the first reading anything up to 1, which spreads many runs.
        """
        return _between(self.reads(age_s) + reads, self._reads, self._ages)

    def reads(self, age_s: float) -> float:
        """Give how many reads of one run are worth their while up to this age."""
        if not self._ages or self._news > (len(self._ended) + len(self._going)) / 5:
            self._make_table()
        return _between(age_s, self._ages, self._reads)

    def _make_table(self) -> None:
        """Integrate the rate of reading over the ages, densely where runs end."""
        shape, ended = self._shape(), _stand_ins(self._ended)
        going = _stand_ins(sorted(age for age in self._going.values() if age > 0))
        marks = [age for age, _ in ended] + [self._prior_s]
        low, high = min(marks) * 0.6, max(marks) * 1.8
        fine = min((high / low) ** (1 / 48), 1.15)
        self._ages, self._reads, self._news = [0.0], [0.0], 0
        age, rate = min(marks) / 20, 0.0
        while age < 1e5:
            prior = (age / self._prior_s) ** _PRIOR_SHAPE
            risk, ends = _PRIOR_RUNS, _PRIOR_RUNS * _PRIOR_SHAPE * prior / (1 + prior)
            for wait, runs in ended:
                left = _survival(age / wait, shape)
                risk += runs * left
                ends += runs * left * (1 - left) * shape
            for known, runs in going:
                risk += runs * _survival(age / known, max(shape, _GOING_SHAPE))
            before, rate = rate, math.sqrt(ends / age / risk / (2 * _READ_WORTH_S))
            self._reads.append(self._reads[-1] + (before + rate) / 2 * (age - self._ages[-1]))
            self._ages.append(age)
            age *= fine if low < age < high else 1.15

    def _shape(self) -> float:
        """Say how narrowly one wait speaks for others: the more of them and the more alike, the narrower."""
        count = len(self._ended)
        if count < 2:
            return _PRIOR_SHAPE
        logs = [math.log(wait) for wait in self._ended]
        middle = math.fsum(logs) / count
        variance = math.fsum((log - middle) ** 2 for log in logs) + (0.14 / _PRIOR_SHAPE**2)
        width = 0.33 * math.sqrt(variance / count) * math.pow(20 / count, 0.2)
        return min(max(1.81 / width, _PRIOR_SHAPE), _MOST_SHAPE)


def _survival(ratio: float, shape: float) -> float:
    """Return the share of a log-logistic distribution that lasts longer than `ratio` of its median."""
    return 1.0 / (1.0 + math.pow(ratio, shape)) if ratio < 100 else 0.0


def _stand_ins(ordered: Sequence[float]) -> list[tuple[float, float]]:
    """Return a few values that stand for many in order, and for how many each."""
    count = len(ordered)
    few = min(count, _STAND_INS)
    return [(ordered[(2 * n + 1) * count // (2 * few)], count / few) for n in range(few)]


def _between(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """Interpolate; beyond the last value go on as between the last two."""
    at = min(max(bisect_right(xs, x), 1), len(xs) - 1)
    step = xs[at] - xs[at - 1]
    return ys[at - 1] + (x - xs[at - 1]) * (ys[at] - ys[at - 1]) / step if step else ys[at]


def back_off(tries: int, *, random: Random, first_s: float = 1.0, most_s: float = 60.0) -> float:
    """Say how long to wait after a failure: doubling, with jitter.

    Args:
        tries: Failures so far, 1 or more.
        random: Source of the jitter.
        first_s: Seconds after the first failure.
        most_s: The longest wait in seconds.

    Returns:
        Seconds.

    Example:
        >>> back_off(3, random=Random(1)) <= 4.8
        True
    """
    return min(first_s * 2.0 ** min(tries - 1, 20), most_s) * (0.8 + 0.4 * random.random())
