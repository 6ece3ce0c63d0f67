"""Sweeps in the ledger: a grid by its name, the consent it has, and which runs answer its members.

Invariants: a member is a request and a provider, never a run: whoever made the run, and however often, the
sweep has it; looking writes nothing.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from kling_nb.errors import UsageError
from kling_nb.ledger.databases.statements import is_postgresql
from kling_nb.ledger.schema import SWEEPS
from kling_nb.ledger.transaction import Transaction
from kling_nb.records.run import RunStatus

__all__ = [
    "MemberRun",
    "Stored",
    "Sums",
    "SweepState",
    "changed_runs",
    "find",
    "last_event",
    "members_of",
    "names",
    "newest",
    "put",
    "put_members",
    "runs_of",
    "set_state",
    "state_of",
]

#: `ready`: quoted, and nobody said yes; `started`, `paused` and `canceled` are what was said last.
SweepState = Literal["ready", "started", "paused", "canceled"]


_ENDED = ", ".join(f"'{status}'" for status in RunStatus if status.ended)
_COUNTED = (
    "members",
    "done",
    "going",
    "queued",
    "failed",
    "free",
    "spent_micros",
    "reserved_micros",
    "unknown",
)
#: `place` is 1 for the run that stands for a member, `seen` for a run that answers several only once.
_SUMS = f"""
    WITH listed AS (
        SELECT name, state, created_at, play,
            EXISTS (SELECT number FROM detached WHERE sweep = sweeps.name) AS to_workers
        FROM sweeps ORDER BY created_at DESC LIMIT ?),
    found AS (
        SELECT listed.*, number, runs.id AS run_id, status, charged, settled_micros AS settled,
            reserved_micros AS reserved, runs.created_at >= listed.created_at AS since,
            row_number() OVER (PARTITION BY name, number ORDER BY
                CASE status WHEN 'succeeded' THEN 0 ELSE 1 END, runs.created_at DESC, runs.id DESC) AS place,
            row_number() OVER (PARTITION BY name, runs.id ORDER BY number) AS seen,
            max(CASE WHEN status = 'failed' AND charged <> 'no' THEN 1 ELSE 0 END)
                OVER (PARTITION BY name, number) AS paid,
            CASE WHEN status = 'failed' AND json_valid(record)
                THEN json_extract(record, '$.reason') END AS reason
        FROM listed JOIN sweep_members AS members ON members.sweep = name
        LEFT JOIN runs ON runs.request_key = members.request_key AND runs.play = listed.play
            AND (members.provider IS NULL OR members.provider = runs.provider))
    SELECT name, state, created_at, play,
        count(*) FILTER (WHERE place = 1),
        count(*) FILTER (WHERE place = 1 AND status = 'succeeded'),
        count(*) FILTER (WHERE place = 1 AND status NOT IN ({_ENDED})
            AND NOT (to_workers AND status = 'created')),
        count(*) FILTER (WHERE place = 1 AND to_workers AND status = 'created'),
        count(*) FILTER (WHERE place = 1 AND (status IN ('failed', 'lost')
            OR (status = 'canceled' AND charged <> 'no'))),
        count(*) FILTER (WHERE place = 1 AND status = 'failed' AND paid = 0
            AND coalesce(reason, '') <> 'moderated'),
        coalesce(sum(settled) FILTER (WHERE seen = 1 AND since), 0),
        coalesce(sum(reserved) FILTER (WHERE seen = 1 AND since AND settled IS NULL), 0),
        count(*) FILTER (WHERE seen = 1 AND since AND settled IS NULL AND charged <> 'no'
            AND status IN ({_ENDED}))
    FROM found GROUP BY name, state, created_at, play ORDER BY created_at DESC
"""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A sweep as the ledger has it.

    Args:
        name: Its name, of which a ledger has one.
        grid: Plain JSON of which its members are made.
        created_at: When it was first quoted.
        state: What was said last.
        play: Whether it is play money.
        consent_micros: Micro-dollars that somebody agreed to; None before that.
        accounts: By provider, the account that was agreed to.
        project: What it is for.
        user: Who made it.
    """

    name: str
    grid: list[dict[str, Any]]
    created_at: datetime
    state: SweepState = "ready"
    play: bool = False
    consent_micros: int | None = None
    accounts: dict[str, str] = field(default_factory=dict)
    project: str = ""
    user: str = ""


@dataclass(frozen=True, kw_only=True)
class MemberRun:
    """A run that answers a member of a sweep, without its words.

    Args:
        request_key: What it was asked for.
        id: Ours, of the run.
        status: Where it is.
        charged: Whether the provider charged for it.
        reason: Why it failed, if it did.
        provider: Who made it.
        micros: On the books, or held back; None where neither is known.
        settled: Whether that is on the books.
        created_at: When it was asked for.
        finished_at: When the provider was done.
    """

    request_key: str
    id: str
    status: RunStatus
    charged: str
    reason: str | None
    provider: str
    micros: int | None
    settled: bool
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Sums:
    """How far a sweep is, and what it cost, without its grid.

    Args:
        name: Its name.
        state: What was said last.
        created_at: When it began.
        play: Whether it is play money.
        members: How many it has.
        done: Clips that are here.
        going: Runs on their way.
        queued: Runs that are left to workers and not sent yet; not among `going`.
        failed: Runs that ended without a clip; one that was canceled for free counts as not sent.
        free: Failed runs that were not charged and may be tried again.
        spent_micros: On the books, for runs since it began.
        reserved_micros: Held back for them.
        unknown: Ended runs whose charge nobody knows.
    """

    name: str
    state: SweepState
    created_at: datetime
    play: bool
    members: int
    done: int
    going: int
    queued: int
    failed: int
    free: int
    spent_micros: int
    reserved_micros: int
    unknown: int

    @property
    def waiting(self) -> int:
        """Members that are not asked for yet."""
        return self.members - self.done - self.going - self.queued - self.failed


def find(transaction: Transaction, name: str) -> Stored | None:
    """Give the sweep of a name, or None."""
    row = transaction.connection.execute(sa.select(SWEEPS).where(SWEEPS.c.name == name)).mappings().first()
    if row is None:
        return None
    return Stored(
        **{
            **row,
            "grid": json.loads(row["grid"]),
            "accounts": json.loads(row["accounts"]),
            "created_at": datetime.fromisoformat(row["created_at"]),
        }
    )


def state_of(transaction: Transaction, name: str) -> SweepState | None:
    """Say what was said last of the sweep of a name, without its grid; None where there is none."""
    state: SweepState | None = transaction.connection.scalar(
        sa.select(SWEEPS.c.state).where(SWEEPS.c.name == name)
    )
    return state


def names(transaction: Transaction) -> list[str]:
    """Name every sweep, newest first."""
    return list(transaction.connection.scalars(sa.select(SWEEPS.c.name).order_by(SWEEPS.c.created_at.desc())))


def newest(transaction: Transaction, limit: int) -> list[Sums]:
    """Add up the newest sweeps, in the database; of the runs of a member a clip stands before the newest."""
    rows = transaction.connection.exec_driver_sql(_SUMS, (limit,))
    return [
        Sums(
            name=name,
            state=state,
            created_at=datetime.fromisoformat(created_at),
            play=bool(play),
            **dict(zip(_COUNTED, map(int, counts), strict=True)),
        )
        for name, state, created_at, play, *counts in rows
    ]


def put(transaction: Transaction, stored: Stored) -> None:
    """Write a sweep, new or changed.

    Raises:
        UsageError: It is private, and others read the ledger.
    """
    if is_postgresql(transaction.connection) and any(one.get("private") for one in stored.grid):
        raise UsageError(
            f"The sweep {stored.name} is private, and a shared ledger keeps no private words.",
            cure="Nothing was sent. Submit its runs one by one, or name a file in KLING_NB_LEDGER.",
        )
    values = {
        **vars(stored),
        "grid": json.dumps(stored.grid, ensure_ascii=False),
        "accounts": json.dumps(stored.accounts),
        "created_at": stored.created_at.isoformat(),
    }
    changed = sa.update(SWEEPS).where(SWEEPS.c.name == stored.name).values(**values)
    if transaction.connection.execute(changed).rowcount == 0:
        transaction.connection.execute(sa.insert(SWEEPS).values(**values))


def put_members(
    transaction: Transaction, stored: Stored, members: Sequence[tuple[int, str, str | None]]
) -> None:
    """Write members: number, request key, and the provider where one is named.

    Of a sweep that nobody agreed to they take the place of those before.
    """
    if members and stored.state == "ready":
        transaction.connection.exec_driver_sql("DELETE FROM sweep_members WHERE sweep = ?", (stored.name,))
    if members:
        transaction.connection.exec_driver_sql(
            "INSERT INTO sweep_members (sweep, number, request_key, provider) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING",
            [(stored.name, *member) for member in members],
        )


def members_of(transaction: Transaction, name: str) -> list[tuple[int, str, str | None]]:
    """Give the members of a sweep: number, request key, and the provider where one is named."""
    query = "SELECT number, request_key, provider FROM sweep_members WHERE sweep = ?"
    return [tuple(row) for row in transaction.connection.exec_driver_sql(query, (name,))]


def set_state(transaction: Transaction, name: str, state: SweepState) -> bool:
    """Say what becomes of a sweep; False where there is none of the name."""
    change = sa.update(SWEEPS).where(SWEEPS.c.name == name).values(state=state)
    return transaction.connection.execute(change).rowcount == 1


def runs_of(transaction: Transaction, stored: Stored) -> list[MemberRun]:
    """Give every run that may answer a member of a sweep, oldest first."""
    among = "request_key IN (SELECT request_key FROM sweep_members WHERE sweep = ?)"
    return _runs(transaction, among, stored.name, stored.play)


def changed_runs(transaction: Transaction, stored: Stored, since: int) -> list[MemberRun]:
    """Give every run of the ledger, of play money or of real, that an event after this one tells of."""
    among = "runs.id IN (SELECT run_id FROM events WHERE number > ?)"
    return _runs(transaction, among, since, stored.play)


def last_event(transaction: Transaction) -> int:
    """Give the number of the newest event; each change of a run has one."""
    query = "SELECT coalesce(max(number), 0) FROM events"
    return int(transaction.connection.exec_driver_sql(query).scalar_one())


def _runs(transaction: Transaction, among: str, value: str | int, play: bool) -> list[MemberRun]:  # noqa: FBT001 - a column
    rows = transaction.connection.exec_driver_sql(
        "SELECT request_key, id, status, charged, "
        "CASE status WHEN 'failed' THEN json_extract(record, '$.reason') END, provider, "
        "coalesce(settled_micros, nullif(reserved_micros, 0)), settled_micros IS NOT NULL, "
        "created_at, CASE WHEN seconds IS NOT NULL THEN json_extract(record, '$.finished_at') END "
        f"FROM runs WHERE {among} AND play = ? ORDER BY created_at, id",
        (value, play),
    )
    return [
        MemberRun(
            request_key=request_key,
            id=run_id,
            status=RunStatus(status),
            charged=charged,
            reason=reason,
            provider=provider,
            micros=micros,
            settled=bool(settled),
            created_at=datetime.fromisoformat(created_at),
            finished_at=datetime.fromisoformat(finished_at) if finished_at else None,
        )
        for (
            request_key,
            run_id,
            status,
            charged,
            reason,
            provider,
            micros,
            settled,
            created_at,
            finished_at,
        ) in rows
    ]
