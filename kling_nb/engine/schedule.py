"""When to ask again: pure functions from elapsed time to seconds of waiting.

Invariants: nothing here sleeps; every wait is positive and bounded; jitter keeps many runs from asking
in one instant.
"""

from collections.abc import Sequence
from random import Random

__all__ = ["back_off", "poll_delay", "typical"]


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


def poll_delay(
    elapsed_s: float, expected: tuple[float, float] | None, *, loopback: bool, random: Random
) -> float:
    """Say how long to wait before reading a run again: sparse early, dense around the expected end.

    Args:
        elapsed_s: Seconds since the run was accepted.
        expected: The usual range in seconds. Without one: 90 to 200, what third parties report for this
            model (APIMart's blog, read 2026-11-21).
        loopback: Whether the provider is a server on this machine, which may be asked often.
        random: Source of the jitter.

    Returns:
        Seconds, 0.1 to 30.

    Example:
        >>> 0.1 <= poll_delay(0, None, loopback=True, random=Random(1)) <= 1
        True
    """
    jitter = 0.8 + 0.4 * random.random()
    if loopback:
        return min(0.2 + elapsed_s * 0.05, 0.8) * jitter
    early, late = expected or (90.0, 200.0)
    if elapsed_s < early:
        # A third of what is left, so that the reads draw closer towards the expected end.
        wait = min(max((early - elapsed_s) / 3, 2.0), 20.0)
    elif elapsed_s <= late * 1.5:
        wait = 3.0
    else:
        wait = min(5.0 + (elapsed_s - late * 1.5) / 60, 20.0)
    return wait * jitter


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
