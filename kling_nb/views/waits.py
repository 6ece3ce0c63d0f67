"""The words for a run on its way: whom it waits for, how long it has taken so far, how long is usual.

And the one line of a terminal that they are kept on.

Invariants: time counts from the sending, so before that no span is told; an expected start is told only
where earlier runs say how long one takes.
"""

import os
import shutil
import sys
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

from kling_nb.records.run import RunRecord, RunStatus
from kling_nb.views.tables import cut
from kling_nb.views.words import minutes

__all__ = ["Turn", "can_rewrite", "rewrite", "wait_words", "waited_s"]


class Turn(NamedTuple):
    """When a run comes to be sent that waits for a place at its provider.

    Args:
        number: 1 for the one that is next.
        places: How many runs of the account are at the provider at a time.
        ages_s: How long each of those has been there.
        lowered: Whether so few are there because the provider asked for fewer.

    Example:
        >>> Turn(2, 1, (30.0,)).starts_in_s((60, 80))
        110.0
    """

    number: int
    places: int
    ages_s: tuple[float, ...]
    lowered: bool = False

    def starts_in_s(self, typical_s: tuple[float, float]) -> float:
        """Give the seconds until its turn, if every run takes as long as such runs usually do."""
        each = sum(typical_s) / 2
        left = sorted(max(0.0, each - age) for age in self.ages_s)
        # Where there are more than there may be, the first of them leave no place.
        left = ([0.0] * (self.places - len(left)) + left)[-self.places :]
        rounds, which = divmod(self.number - 1, self.places)
        return left[which] + rounds * each


def wait_words(
    record: RunRecord, *, now: datetime, typical_s: tuple[float, float] | None, turn: Turn | None = None
) -> list[str]:
    """List whom a run waits for, or how long it has been on its way and how long is usual.

    Args:
        record: The run.
        now: The time of this look.
        typical_s: The usual span from sent to done, shortest and longest in seconds.
        turn: Its turn, where it waits for a place.

    Returns:
        e.g. `["1:44 so far", "usually 1:30-3:20"]`; empty for a run that has ended, or is about to be sent.
    """
    if turn is not None:
        words = [
            f"waiting for a free place ({turn.places} at a time"
            + (" for now: the provider asked for fewer)" if turn.lowered else ")"),
            "next in line" if turn.number == 1 else f"number {turn.number} in line",
        ]
        if typical_s is not None:
            left = turn.starts_in_s(typical_s)
            words.append(f"starts in about {minutes(left)}" if left >= 5 else "starts soon")
        return words
    if record.status.ended or record.status is RunStatus.CREATED:
        return []
    waited = waited_s(record, now)
    words = [f"{minutes(waited)} so far"]
    if record.status is RunStatus.QUEUED and record.queue_position is not None:
        words.insert(0, f"queue position {record.queue_position}")
    if record.status is RunStatus.SAVING:
        words.append("the clip is made and on its way here")
    elif typical_s is not None:
        low, high = typical_s
        words.append(f"usually {minutes(low)}-{minutes(high)}")
        if waited > high:
            words.append("longer than usual")
    return words


def waited_s(record: RunRecord, now: datetime) -> float:
    """Give the seconds since a run was sent."""
    return max(0.0, (now - (record.submitted_at or now)).total_seconds())


def can_rewrite() -> bool:
    """Whether standard error is a terminal that can write a line again."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def rewrite(line: str) -> None:
    """Write a line in the place of the last one on standard error, cut at the width of its terminal."""
    columns = 0
    # The other one looks at standard output.
    with suppress(OSError):
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    room = columns or shutil.get_terminal_size().columns
    sys.stderr.write(f"\r\x1b[K{cut(line, room - 1, middle=False)}")
    sys.stderr.flush()
