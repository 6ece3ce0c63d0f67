"""Places in flight: how many runs of an account are at its provider, in all kernels on the ledger together.

A place is a row, there as long as its run is on its way and somebody drives it: the lease of the run is that
of its place, kept alive by the same heartbeat, and triggers take it away with the run's own state. Kernels
that wait stand in line by a row each for their single runs, and for each of their sweeps.

Invariants: a place is taken in the transaction that commits the run to be sent; single runs come before those
of sweeps, and sweeps leave one place free for them; among equals the next free place is for who had none the
longest; a rate limit that one kernel ran into holds for all.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from kling_nb.ledger.databases.statements import ledger_now, run_statement
from kling_nb.ledger.databases.triggers import add_trigger, now_text, run_ddl

if TYPE_CHECKING:
    from kling_nb.ledger.transaction import Transaction
    from kling_nb.records.run import RunRecord

__all__ = [
    "LAPSED_S",
    "Flow",
    "NoPlaceError",
    "Seeker",
    "account_key",
    "account_sql",
    "add_places",
    "count_live",
    "fits",
    "leave",
    "look",
    "lower",
    "place_key",
    "take",
]

#: Seconds for which a kernel that waits stays in line without a sign of life.
_IN_LINE_S = 5

#: Seconds after the end of a lease at which it is seen that it has run out.
LAPSED_S = 0.02

_SENT = "('submitting', 'queued', 'running')"
_BEFORE_END = "('created', 'submitting', 'queued', 'running')"


def account_sql(row: str) -> str:
    """Write `place_key` in SQL, for a row of `runs`; its record must be JSON."""
    fields = (f"json_extract({row}.record, '$.{name}')" for name in ("origin", "account"))
    return " || ' ' || ".join((f"{row}.provider", *fields))


_TABLES = (
    """CREATE TABLE places (
        run_id VARCHAR PRIMARY KEY NOT NULL,
        account VARCHAR NOT NULL,
        sweep VARCHAR NOT NULL,
        since VARCHAR NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX places_by_account ON places (account, sweep)",
    """CREATE TABLE place_lines (
        account VARCHAR NOT NULL,
        owner VARCHAR NOT NULL,
        sweep VARCHAR NOT NULL,
        since VARCHAR NOT NULL,
        until VARCHAR NOT NULL,
        PRIMARY KEY (account, owner, sweep)
    ) WITHOUT ROWID""",
    """CREATE TABLE place_limits (
        account VARCHAR PRIMARY KEY NOT NULL,
        most INTEGER NOT NULL,
        at VARCHAR NOT NULL,
        step_s FLOAT NOT NULL
    ) WITHOUT ROWID""",
)
#: When a place is taken, and what happens then: also where a run is taken over, or taken up again, that is
#: at its provider already.
_TAKEN = f"""NEW.owner IS NOT NULL AND NEW.status IN {_SENT}
    AND (OLD.owner IS NULL OR OLD.owner <> NEW.owner OR OLD.status NOT IN {_SENT})
    AND NOT EXISTS (SELECT 1 FROM places WHERE run_id = NEW.id)"""
_TAKE = (
    f"INSERT INTO places (run_id, account, sweep, since) VALUES (NEW.id, {account_sql('NEW')}, '', {{now}});"
)
_LEFT = f"""OLD.owner IS NOT NULL AND OLD.status IN {_BEFORE_END}
    AND (NEW.owner IS NULL OR NEW.status NOT IN {_BEFORE_END})"""
_LEAVE = "DELETE FROM places WHERE run_id = OLD.id;"


class NoPlaceError(Exception):
    """Every place of the account is taken, or others come first.

    Args:
        elsewhere: Whether it is the ledger that says so, and not this process alone.
        halted: Whether the run is of a sweep that is paused or canceled.
    """

    def __init__(self, *, elsewhere: bool = False, halted: bool = False) -> None:
        super().__init__()
        self.elsewhere, self.halted = elsewhere, halted


class Seeker(NamedTuple):
    """Who asks for places of an account.

    Args:
        account: As `place_key` gives it.
        owner: The name of the kernel.
        most: How many runs of the account it wants at the provider at once.
    """

    account: str
    owner: str
    most: int


@dataclass(frozen=True)
class Flow:
    """An account as one kernel sees it.

    Args:
        most: How many runs may be at the provider at once.
        lowered: Whether that is less than the kernel wants, because the provider asked for less.
        others: Of each run that another kernel has there, its sweep (empty for a single run) and its age in
            seconds.
        ahead: By sweep that waits here, how many single runs and how many sweeps of others come first.
        lined: Whether others are in line.
        lapse_s: Seconds until the first lease of another's run there ends, should nobody renew it.
    """

    most: int
    lowered: bool = False
    others: tuple[tuple[str, float], ...] = ()
    ahead: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    lined: bool = False
    lapse_s: float = math.inf

    @property
    def shared(self) -> bool:
        """Whether what this kernel itself has there does not tell how many more there may be."""
        return self.lowered or self.lined or bool(self.others)


def add_places(connection: sa.Connection) -> None:
    """Make the tables and the triggers."""
    for statement in _TABLES:
        run_ddl(connection, statement)
    event = "AFTER UPDATE OF status, owner ON runs"
    taken = f"{_TAKEN} AND json_valid(NEW.record)"
    add_trigger(connection, "place_taken", event, taken, _TAKE.format(now=now_text(connection)))
    add_trigger(connection, "place_left", event, _LEFT, _LEAVE)


def place_key(record: "RunRecord") -> str:
    """Name the account whose places a run needs: what one key has at one address.

    A sandbox in a kernel has an address of its own, so that two kernels do not slow each other there.
    """
    return account_key(record.provider, record.origin, record.account)


def account_key(provider: str, origin: str, account: str) -> str:
    """Name an account by a provider, its address and the fingerprint of a key."""
    return f"{provider} {origin} {account}"


def fits(sweep: str, most: int, taken: int, by_sweeps: int, ahead: tuple[int, int] = (0, 0)) -> bool:
    """Say whether one more run may be sent.

    Args:
        sweep: Its sweep; empty for a single run.
        most: How many may be at the provider at once.
        taken: How many are.
        by_sweeps: How many of those are of sweeps.
        ahead: How many single runs and how many sweeps come first.

    Example:
        >>> fits("owls", 4, 3, 3), fits("", 4, 3, 3)
        (False, True)
    """
    singles, sweeps = ahead
    if sweep and most > 1 and most - 1 - by_sweeps <= sweeps:
        return False
    return most - taken > singles + sweeps


def take(transaction: "Transaction", run_id: str, seeker: Seeker, sweep: str) -> None:
    """Take a place for a run that is sent with this transaction; one that it kept is taken again.

    Raises:
        NoPlaceError: There is none; nothing is changed.
    """
    connection, account = transaction.connection, seeker.account
    now = ledger_now(connection)
    halted = "SELECT name FROM sweeps WHERE name = ? AND state IN ('paused', 'canceled')"
    if sweep and run_statement(connection, halted, (sweep,)).fetchone():
        raise NoPlaceError(elsewhere=True, halted=True)
    most = _limit(connection, seeker, now)
    lines = _lines(connection, account, now)
    counted = "SELECT count(*), count(nullif(sweep, '')) FROM places WHERE account = ? AND run_id <> ?"
    [(taken, by_sweeps)] = run_statement(connection, counted, (account, run_id)).fetchall()
    room = fits(sweep, most, taken, by_sweeps, ahead := _ahead(lines, seeker.owner, sweep))
    if not room and not _has_room(_live(connection, account, now), run_id, sweep, most, ahead):
        raise NoPlaceError(elsewhere=True)
    run_statement(
        connection,
        "INSERT INTO places (run_id, account, sweep, since) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (run_id, account, sweep, now.isoformat()),
    )
    if (seeker.owner, sweep) in lines:
        moved = "UPDATE place_lines SET since = ? WHERE account = ? AND owner = ? AND sweep = ?"
        run_statement(connection, moved, (now.isoformat(), account, seeker.owner, sweep))


def _has_room(live: list[Any], run_id: str, sweep: str, most: int, ahead: tuple[int, int]) -> bool:
    """Count only places whose leases have not run out; a run that kept its own stands in no line."""
    mine = next((since for name, _, since, *_ in live if name == run_id), None)
    if mine is None:
        return fits(sweep, most, len(live), sum(bool(its) for _, its, *_ in live), ahead)
    # Of those that kept theirs and are not sent, the oldest comes first: they must not wait for each other.
    before = sum(
        name != run_id and (status != "created" or (since, name) < (mine, run_id))
        for name, _, since, _, status, _ in live
    )
    return bool(before < most)


def leave(transaction: "Transaction", run_id: str) -> None:
    """Give the place of a run back that goes on, and that no others need wait for."""
    run_statement(transaction.connection, "DELETE FROM places WHERE run_id = ?", (run_id,))


def look(transaction: "Transaction", seeker: Seeker, waiting: Collection[str]) -> Flow:
    """Stand in line, or leave it, and see how the account stands.

    Args:
        transaction: Writes the line down; it need not be synced.
        seeker: Who asks.
        waiting: The sweeps whose runs wait there; the empty one for single runs.

    Returns:
        How the account stands.
    """
    connection, (account, owner, _) = transaction.connection, seeker
    now = ledger_now(connection)
    until = (now + timedelta(seconds=_IN_LINE_S)).isoformat()
    for sweep in waiting:
        run_statement(
            connection,
            "INSERT INTO place_lines (account, owner, sweep, since, until) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (account, owner, sweep) DO UPDATE SET until = excluded.until",
            (account, owner, sweep, now.isoformat(), until),
        )
    known = run_statement(
        connection, "SELECT owner, sweep, until FROM place_lines WHERE account = ?", (account,)
    )
    for who, sweep, end in known.fetchall():
        if (who == owner and sweep not in waiting) or end < now.isoformat():
            gone = "DELETE FROM place_lines WHERE account = ? AND owner = ? AND sweep = ?"
            run_statement(connection, gone, (account, who, sweep))
    lines = _lines(connection, account, now)
    most = _limit(connection, seeker, now)
    theirs = [row for row in _live(connection, account, now) if row[3] != owner]
    others = tuple(
        (sweep, (now - datetime.fromisoformat(since)).total_seconds()) for _, sweep, since, *_ in theirs
    )
    return Flow(
        most,
        most < seeker.most,
        others,
        {sweep: _ahead(lines, owner, sweep) for sweep in waiting},
        lined=any(who != owner for who, _ in lines),
        lapse_s=_lapse_s(theirs, now),
    )


def lower(transaction: "Transaction", account: str, sent_at: datetime | None, step_s: float) -> None:
    """Halve what may be at the provider at once, because it refused a run for its rate.

    Args:
        transaction: That of the refusal.
        account: As `place_key` gives it.
        sent_at: When the run was sent: one from before the last time says nothing of what holds since.
        step_s: Seconds after which one place comes back, and then another.
    """
    connection = transaction.connection
    now = ledger_now(connection)
    most = len(_live(connection, account, now))
    for row in _lowered(connection, account):
        if sent_at is not None and sent_at.isoformat() <= row[1]:
            return
        most = min(most, _recovered(row, now))
    run_statement(
        connection,
        "INSERT INTO place_limits (account, most, at, step_s) VALUES (?, ?, ?, ?) ON CONFLICT (account) "
        "DO UPDATE SET most = excluded.most, at = excluded.at, step_s = excluded.step_s",
        (account, max(1, most // 2), now.isoformat(), step_s),
    )


def _lowered(connection: sa.Connection, account: str) -> list[Any]:
    query = "SELECT most, at, step_s FROM place_limits WHERE account = ?"
    return [*run_statement(connection, query, (account,))]


def _recovered(row: tuple[int, str, float], now: datetime) -> int:
    most, at, step_s = row
    passed = (now - datetime.fromisoformat(at)).total_seconds()
    return max(1, most + math.floor(passed / step_s))


def _limit(connection: sa.Connection, seeker: Seeker, now: datetime) -> int:
    return min([seeker.most, *(_recovered(row, now) for row in _lowered(connection, seeker.account))])


def _live(connection: sa.Connection, account: str, now: datetime) -> list[Any]:
    """Read the places whose leases have not run out; as many as may be at the provider at once."""
    query = (
        "SELECT places.run_id, places.sweep, places.since, runs.owner, runs.status, runs.owned_until "
        "FROM places JOIN runs ON runs.id = places.run_id WHERE places.account = ? AND runs.owned_until >= ?"
    )
    return [*run_statement(connection, query, (account, now.isoformat()))]


def _lapse_s(live: list[Any], now: datetime) -> float:
    """Give the seconds until the first of these leases ends: nobody tells of that."""
    if not live:
        return math.inf
    return (datetime.fromisoformat(min(until for *_, until in live)) - now).total_seconds()


def count_live(connection: sa.Connection, account: str, now: datetime) -> tuple[int, int, float]:
    """Count the places of an account that are taken, and those that sweeps have; gives `Flow.lapse_s` too."""
    live = _live(connection, account, now)
    return len(live), sum(bool(sweep) for _, sweep, *_ in live), _lapse_s(live, now)


def _lines(connection: sa.Connection, account: str, now: datetime) -> dict[tuple[str, str], str]:
    """Read who is in line, and since when; not who says so by a clock that is wrong."""
    query = "SELECT owner, sweep, since FROM place_lines WHERE account = ? AND until BETWEEN ? AND ?"
    last = now + timedelta(seconds=_IN_LINE_S)
    rows = run_statement(connection, query, (account, now.isoformat(), last.isoformat()))
    return {(owner, sweep): since for owner, sweep, since in rows.fetchall()}


def _ahead(lines: Mapping[tuple[str, str], str], owner: str, sweep: str) -> tuple[int, int]:
    """Count the single runs and the sweeps of other kernels that come before a run of ours."""
    mine = lines.get((owner, sweep))
    singles = sweeps = 0
    for (who, its), since in lines.items():
        earlier = who != owner and (mine is None or since < mine)
        if its:
            sweeps += earlier and bool(sweep)
        else:
            singles += who != owner if sweep else earlier
    return singles, sweeps
