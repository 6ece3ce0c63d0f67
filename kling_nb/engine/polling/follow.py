"""What the poller keeps of each run that is watched, and of each account that lists its runs.

Invariants: a run is woken at most once for each time that its watcher waits.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from kling_nb.engine.polling.schedule import MOST_S, Pace
from kling_nb.providers.base import Row, Snapshot

if TYPE_CHECKING:
    import asyncio

    from kling_nb.engine.job import Job

__all__ = ["Account", "Follow"]


@dataclass(eq=False)
class Follow:
    """One run that is being watched.

    Args:
        job: The run.
        pace: What is known of its kind.
        account: The runs that one list of its provider shows; None where there is no list.
        started: When it was accepted, on the job's clock.
        until: When its watcher wants to be woken at the latest.
    """

    job: "Job"
    pace: Pace
    account: "Account | None"
    started: float
    until: float
    due: float = 0.0
    turn: "asyncio.Future[Snapshot | bool | None] | None" = None
    #: Whether its own reading is on its way, or wanted whatever lists say.
    reading: bool = False
    own: bool = False
    #: Whether its provider has called since its own reading last began.
    called: bool = False
    #: What was read last, what the list said last, and its age at the last reading of its own.
    last: Snapshot | None = None
    row: Row | None = None
    own_age: float = 0.0
    #: False once a list has left it out.
    listed: bool = True

    @property
    def provider_run_id(self) -> str:
        """The provider's id."""
        return self.job.record.provider_run_id or ""

    @property
    def id(self) -> str:
        """Our id."""
        return self.job.record.id

    def age(self) -> float:
        """Seconds since it was accepted."""
        return self.job.clock.monotonic() - self.started

    def wait_s(self, *, first: bool = False) -> float:
        """Give the seconds until it is best read again."""
        random, age = self.job.clock.random, self.age()
        portion = random.random() if first else 0.9 + 0.2 * random.random()
        wait = self.pace.next_read(age, portion) - age
        return min(max(wait, self.job.wait_s(0.5)), MOST_S)

    def take_down(self, snapshot: Snapshot) -> None:
        """Learn from a reading."""
        self.last = snapshot
        if snapshot.state == "succeeded":
            self.pace.ended(self.id, self.age())
        elif snapshot.going:
            self.pace.going(self.id, self.age())

    def is_known(self, snapshot: Snapshot) -> bool:
        """Whether a reading of a run on its way says what the one before, or without one its record, says."""
        if self.last is not None:
            return snapshot is self.last or snapshot == self.last
        record = self.job.record
        said = snapshot.state, snapshot.queue_position, snapshot.message
        began = record.started_at is not None or snapshot.state == "queued"
        return began and said == (record.status, record.queue_position, record.message)

    def give(self, turn: Snapshot | bool | None) -> None:  # noqa: FBT001 - True: read it yourself
        """Wake its watcher: with a reading, with leave to read it, or with None because it was called."""
        if self.turn is not None and not self.turn.done():
            self.turn.set_result(turn)


@dataclass(eq=False)
class Account:
    """The runs of one account that are watched, and how far its list is trusted."""

    waiting: dict[str, Follow] = field(default_factory=dict)
    listing: "asyncio.Task[None] | None" = None
    due: float = 0.0
    #: No list is asked for before.
    off_until: float = -math.inf
    asked_s: float = 0.0
    failures: int = 0
    lists: int = 0
    #: What the list before said, in its order.
    rows: Mapping[str, Row] = field(default_factory=dict)
    #: Ends that were read from a run itself, and when: a list that begins later must show them.
    ended: dict[str, float] = field(default_factory=dict)

    def usable(self, now: float) -> bool:
        """Whether a list may be asked for, and answers for several."""
        several = islice((True for follow in self.waiting.values() if follow.listed), 2)
        return now >= self.off_until and len(list(several)) == 2
