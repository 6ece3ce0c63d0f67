"""What became of a sweep so far: its members by state, its money, its failures.

Invariants: asks no provider and writes nothing; a look costs what changed since the one before, and not the
size of the sweep; unknown is never zero.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

from kling_nb.engine.detach import error_of
from kling_nb.ledger.sweeps import Stored, SweepState
from kling_nb.ledger.work.detached import is_left_to_workers
from kling_nb.records.base import utc_now
from kling_nb.sweeps.standing import Standing
from kling_nb.views.sweep import progress_text

if TYPE_CHECKING:
    from kling_nb.ledger.transaction import Transaction
    from kling_nb.session.session import Session

__all__ = ["Failure", "Progress", "look"]

#: So many ends, at most, tell how fast it goes.
_RECENT = 50
_MOST_FAILURES = 8
_MOST_IDS = 20
#: A sweep that another kernel sends moves at least so often.
_ELSEWHERE = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Members that came to the same bad end.

    Args:
        count: How many.
        word: In short, e.g. `failed: moderated`.
        what: What happened to one of them.
        charged: Whether it was charged: `no`, `yes` or `unknown`.
        cure: What is safe to do now.
        ids: Our ids of the first of these runs.
    """

    count: int
    word: str
    what: str
    charged: str
    cure: str
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A sweep at one moment.

    Args:
        name: Its name.
        members: How many it has.
        done: Clips that are here.
        going: Runs on their way.
        failed: Runs that ended without a clip, and members that were refused.
        waiting: Members that are not asked for yet.
        queued: Runs that are left to workers and not sent yet; not among `going`.
        spent_micros: On the books, for runs since it began.
        reserved_micros: Held back for them.
        unknown: Ended runs whose charge nobody knows.
        left_micros: What the caps leave; None where there is none.
        play: Whether it is play money.
        state: What was said last.
        sending: Whether this kernel is sending it.
        per_hour: Ends in an hour, by the newest; None before there are any.
        ends_at: When it would be over at that rate; None where it is paused or canceled.
        failures: By kind.
        stopped: Why it sends no more, where something stopped it.
        created_at: When it began.
        now: The moment.
        free: Failed runs that were not charged and may be tried again.
        moved_at: When a run of it was asked for or ended last.

    Example:
        >>> Progress.__name__
        'Progress'
    """

    name: str
    members: int
    done: int
    going: int
    failed: int
    waiting: int
    spent_micros: int
    reserved_micros: int
    unknown: int
    left_micros: int | None
    play: bool
    state: SweepState
    sending: bool
    per_hour: float | None
    ends_at: datetime | None
    failures: tuple[Failure, ...]
    stopped: str
    created_at: datetime
    now: datetime
    free: int = 0
    queued: int = 0
    moved_at: datetime | None = None

    def __repr__(self) -> str:
        return progress_text(self)

    @property
    def over(self) -> bool:
        """Whether nothing more will happen unless somebody asks for it."""
        return not (self.sending or self.going or self.queued or self.elsewhere)

    @property
    def elsewhere(self) -> bool:
        """Whether another kernel seems to send it: it is started, not at its end, and moved a moment ago."""
        moved = self.moved_at is not None and self.now - self.moved_at < _ELSEWHERE
        here = self.sending or self.stopped != ""
        return moved and not here and self.state == "started" and self.waiting > 0


def look(
    session: "Session",
    stored: Stored,
    standing: Standing,
    members: int,
    *,
    refused: Iterable[tuple[int, str]] = (),
    sending: bool = False,
    stopped: str = "",
) -> Progress:
    """Look at a sweep in the ledger.

    Args:
        session: Whose ledger and caps.
        stored: The sweep.
        standing: Its runs; brought up to date.
        members: How many members it has.
        refused: Members that this kernel could not ask for: their numbers, and why.
        sending: Whether this kernel is sending it.
        stopped: Why it sends no more.

    Returns:
        What became of it.
    """
    ledger, now = session.ledger(), utc_now()
    left_micros = session.totals(play=stored.play).left_micros

    def looked(transaction: "Transaction") -> Progress:
        standing.look(transaction)
        failures = _failures(transaction, standing, f"`kling.sweep({stored.name!r}).retry()`")
        barred = [
            (number, why)
            for number, why in refused
            if number not in standing.stands or number in standing.not_sent
        ]
        queued = len(standing.unsent) if is_left_to_workers(transaction, stored.name) else 0
        going = len(standing.pending) - queued
        failed = sum(map(len, standing.bad.values())) + len(barred)
        waiting = members - standing.done - going - queued - failed
        per_hour, ends_at = _pace(standing.ends[-_RECENT:], now, waiting + going + queued)
        return Progress(
            name=stored.name,
            members=members,
            done=standing.done,
            going=going,
            failed=failed,
            waiting=waiting,
            spent_micros=standing.money["settled"],
            reserved_micros=standing.money["held"],
            unknown=standing.money["unknown"],
            left_micros=left_micros,
            play=stored.play,
            state=stored.state,
            sending=sending,
            per_hour=per_hour,
            ends_at=ends_at if stored.state == "started" and (sending or going or queued) else None,
            failures=(*failures, *_barred(barred))[:_MOST_FAILURES],
            stopped=stopped,
            created_at=stored.created_at,
            now=now,
            queued=queued,
            free=sum(len(numbers) for kind, numbers in standing.bad.items() if kind.again),
            moved_at=standing.moved_at,
        )

    with standing.lock:
        return ledger.read(looked)


def _pace(ends: Sequence[datetime], now: datetime, left: int) -> tuple[float | None, datetime | None]:
    span = (now - ends[0]).total_seconds() if ends else 0.0
    if len(ends) < 2 or span <= 0:
        return None, None
    per_s = (len(ends) - 1) / span
    return per_s * 3600, now + timedelta(seconds=left / per_s) if left else None


def _failures(transaction: "Transaction", standing: Standing, retry: str) -> list[Failure]:
    made = []
    kinds = [(kind, numbers) for kind, numbers in standing.bad.items() if numbers]
    for (status, reason, charged, again), numbers in kinds[:_MOST_FAILURES]:
        ids = tuple(islice(numbers.values(), _MOST_IDS))
        record = transaction.get(ids[0])
        error = None if record is None else error_of(record)
        made.append(
            Failure(
                count=len(numbers),
                word=f"{status.value}: {reason}" if reason else status.value,
                what=error.what if error else "",
                charged=error.charged if error else charged,
                # The advice for a single run is to run its cell again, which sends no failed run of a sweep.
                cure=f"{retry} sends it again." if again else error.cure if error else "",
                ids=ids,
            )
        )
    return made


def _barred(refused: Sequence[tuple[int, str]]) -> list[Failure]:
    return [
        Failure(count=count, word="not sent", what=why, charged="no", cure="")
        for why, count in Counter(why for _, why in refused).items()
    ]
