"""How the members of a sweep stand, brought up to date by what has changed.

Invariants: the first look reads every run of the sweep, and each later one only those that changed since; of
the runs of a member a clip counts before all, then the newest; only runs that were asked for since the sweep
began are its money.
"""

import threading
from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from kling_nb.ledger.sweeps import MemberRun, Stored, changed_runs, last_event, members_of, runs_of
from kling_nb.ledger.transaction import Transaction
from kling_nb.records.run import RunStatus

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["BadEnd", "Standing"]


class BadEnd(NamedTuple):
    """How a member came to have no clip.

    Args:
        status: Of its run.
        reason: Why it failed, if it did.
        charged: Whether it was charged.
        again: Whether it may be tried again for free.
    """

    status: RunStatus
    reason: str | None
    charged: str
    again: bool


class Standing:
    """The runs of a sweep.

    Args:
        stored: The sweep.

    Example:
        >>> Standing.__name__
        'Standing'
    """

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        #: Held while what stands here is read: several threads look.
        self.lock = threading.RLock()
        self._seen: int | None = None
        self._numbers: defaultdict[str, list[tuple[int, str | None]]] = defaultdict(list)
        self._known: dict[str, MemberRun] = {}
        self._of_member: defaultdict[int, dict[str, MemberRun]] = defaultdict(dict)
        #: By the number of the member, the run that stands for it.
        self.stands: dict[int, MemberRun] = {}
        #: The ids of such runs, in the order in which they were seen to have ended.
        self.ended: list[str] = []
        self.pending: set[int] = set()
        #: Those of them that are not sent.
        self.unsent: set[int] = set()
        #: Members that were canceled before anything was charged: they count as not sent.
        self.not_sent: set[int] = set()
        self.bad: defaultdict[BadEnd, dict[int, str]] = defaultdict(dict)
        self.done = 0
        #: Micro-dollars on the books and held back; ended runs whose charge nobody knows.
        self.money: Counter[str] = Counter()
        #: When runs were finished, oldest first.
        self.ends: list[datetime] = []
        self.moved_at: datetime | None = None

    @property
    def spent_micros(self) -> int:
        """What is on the books and held back, in micro-dollars."""
        return self.money["settled"] + self.money["held"]

    @property
    def failed(self) -> set[int]:
        """The members whose run failed."""
        kinds = [numbers for kind, numbers in self.bad.items() if kind.status is RunStatus.FAILED]
        return {number for numbers in kinds for number in numbers}

    def look(self, transaction: Transaction) -> "Standing":
        """Read what has changed since the last look."""
        with self.lock:
            seen = last_event(transaction)
            if self._seen is None:
                members, runs = members_of(transaction, self._stored.name), runs_of(transaction, self._stored)
                for number, key, provider in members:
                    self._numbers[key].append((number, provider))
                self._take(runs)
            elif seen > self._seen:
                self._take(changed_runs(transaction, self._stored, self._seen))
            self._seen = max(seen, self._seen or 0)
        return self

    def _take(self, runs: Iterable[MemberRun]) -> None:
        for run in runs:
            numbers = [
                number
                for number, provider in self._numbers.get(run.request_key, ())
                if provider in {None, run.provider}
            ]
            if not numbers:
                continue
            before = self._known.get(run.id)
            self._known[run.id] = run
            self._count(run, before)
            for number in numbers:
                self._place(number, run)

    def _count(self, run: MemberRun, before: MemberRun | None) -> None:
        for one, sign in ((run, 1), *([(before, -1)] if before else [])):
            if one.created_at >= self._stored.created_at:
                self.money["settled" if one.settled else "held"] += sign * (one.micros or 0)
                self.money["unknown"] += sign * (one.status.ended and not one.settled and one.charged != "no")
        if before and before.finished_at:
            del self.ends[bisect_left(self.ends, before.finished_at)]
        if run.finished_at:
            insort(self.ends, run.finished_at)
        moved = run.finished_at or run.created_at
        self.moved_at = moved if self.moved_at is None else max(self.moved_at, moved)

    def _place(self, number: int, run: MemberRun) -> None:
        """Say anew what stands for a member, and how."""
        runs = self._of_member[number]
        before = self.stands.get(number)
        if before is not None:
            self._sort(number, there=False)
        runs[run.id] = run
        clips = [one for one in runs.values() if one.status is RunStatus.SUCCEEDED]
        self.stands[number] = stands = (clips or [*runs.values()])[-1]
        self._sort(number, there=True)
        if stands.status.ended and not (before and before.id == stands.id and before.status.ended):
            self.ended.append(stands.id)

    def _sort(self, number: int, *, there: bool) -> None:
        stands = self.stands[number]
        if stands.status is RunStatus.SUCCEEDED:
            self.done += 1 if there else -1
        elif stands.status.pending or (stands.status is RunStatus.CANCELED and stands.charged == "no"):
            among = self.pending if stands.status.pending else self.not_sent
            (among.add if there else among.discard)(number)
            if stands.status is RunStatus.CREATED:
                (self.unsent.add if there else self.unsent.discard)(number)
        else:
            kind = self._bad_end(number)
            if there:
                self.bad[kind][number] = stands.id
            else:
                del self.bad[kind][number]

    def _bad_end(self, number: int) -> BadEnd:
        stands = self.stands[number]
        failed = [one for one in self._of_member[number].values() if one.status is RunStatus.FAILED]
        again = (
            stands.status is RunStatus.FAILED
            and stands.reason != "moderated"
            and all(one.charged == "no" for one in failed)
        )
        return BadEnd(stands.status, stands.reason, stands.charged, again)
