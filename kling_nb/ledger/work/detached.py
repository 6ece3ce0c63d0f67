"""Runs that are left to workers: a row each, from the commit that reserves their money until they end.

Invariants: none but a worker claims one that is not sent, see `Transaction.claim`; a trigger takes the row
away with the end of its run; what is paused or canceled is given to no worker.
"""

import json
import math
from collections.abc import Collection, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from kling_nb.errors import LedgerError, UsageError
from kling_nb.ledger.databases.statements import is_postgresql, ledger_now, run_statement
from kling_nb.ledger.databases.triggers import add_trigger, run_ddl
from kling_nb.ledger.places import account_sql, count_live, fits, place_key
from kling_nb.ledger.work.queue import enqueue, forget
from kling_nb.records.run import RunStatus, unsent_end

if TYPE_CHECKING:
    from kling_nb.ledger.transaction import Transaction
    from kling_nb.records.run import RunRecord

__all__ = [
    "Lane",
    "Work",
    "add_detached",
    "detach",
    "find_work",
    "is_left_to_workers",
    "left_behind",
    "left_to_workers",
    "pending_runs",
    "take_work",
    "unsent_runs",
    "unwanted",
    "withdraw",
    "withdraw_sweep",
]

#: The account of every play run: each worker has a sandbox of its own.
PLAY = "sandbox"

_TABLES = (
    """CREATE TABLE detached (
        number INTEGER PRIMARY KEY NOT NULL,
        run_id VARCHAR NOT NULL UNIQUE,
        account VARCHAR NOT NULL,
        sweep VARCHAR NOT NULL
    )""",
    "CREATE INDEX detached_by_account ON detached (account, number)",
    "CREATE INDEX detached_by_sweep ON detached (sweep)",
)
_PENDING = ", ".join(f"'{status.value}'" for status in RunStatus if status.pending)
_NEXT = """
    SELECT runs.id, detached.sweep FROM detached
    JOIN runs ON runs.id = detached.run_id LEFT JOIN sweeps ON sweeps.name = detached.sweep
    WHERE detached.account = ? AND runs.status = 'created'
        AND (runs.owner IS NULL OR runs.owned_until < ?)
        AND (sweeps.state IS NULL OR sweeps.state = 'started')
        AND runs.id NOT IN (SELECT value FROM json_each(?))
    ORDER BY detached.number LIMIT ?"""
_UNSENT = "SELECT runs.id FROM detached JOIN runs ON runs.id = detached.run_id WHERE runs.status = 'created'"
#: Of a run that is not detached and not sent, nobody but its own kernel knows whether it is still wanted.
_LEFT = f"""
    SELECT runs.id, detached.sweep FROM runs LEFT JOIN detached ON detached.run_id = runs.id
    WHERE runs.status IN ({_PENDING}) AND (runs.owner IS NULL OR runs.owned_until < ?)
        AND (runs.status <> 'created' OR detached.run_id IS NULL)
        AND runs.id NOT IN (SELECT value FROM json_each(?))
        AND (runs.play OR CASE WHEN json_valid(runs.record) THEN {account_sql("runs")} END
            IN (SELECT value FROM json_each(?)))
    ORDER BY runs.created_at LIMIT ?"""


class Lane(NamedTuple):
    """An account that a worker has the key of.

    Args:
        account: As `place_key` gives it, or `PLAY`.
        places: The account whose places in flight its runs take.
        most: How many of its runs the worker wants at the provider at once, with those of others.
    """

    account: str
    places: str
    most: int


class Work(NamedTuple):
    """What there is for a worker at a look.

    Args:
        runs: Those that have a place, each with its sweep.
        more: Whether others wait.
        lapse_s: Seconds until a place may come free by a lease that nobody renews.
        unreadable: Why it leaves others alone for good.
    """

    runs: "list[tuple[RunRecord, str]]"
    more: bool
    lapse_s: float
    unreadable: list[LedgerError]


def add_detached(connection: sa.Connection) -> None:
    """Make the table and its trigger."""
    for statement in _TABLES:
        run_ddl(connection, statement)
    ended = f"OLD.status IN ({_PENDING}) AND NEW.status NOT IN ({_PENDING})"
    event = "AFTER UPDATE OF status ON runs"
    add_trigger(connection, "detached_ended", event, ended, "DELETE FROM detached WHERE run_id = OLD.id;")


def detach(transaction: "Transaction", record: "RunRecord", sweep: str) -> None:
    """Leave a run that is not sent to workers, and wake one.

    Raises:
        UsageError: No worker can know its words, or its sweep was canceled meanwhile.
    """
    connection = transaction.connection
    canceled = "SELECT name FROM sweeps WHERE name = ? AND state = 'canceled'"
    if run_statement(connection, canceled, (sweep,)).fetchone():
        raise UsageError(f"The sweep {sweep} was canceled meanwhile.", cure="`start()` goes on with it.")
    if record.private and is_postgresql(connection):
        raise UsageError(
            "A private run cannot be detached: a shared ledger keeps no private words.",
            cure="Nothing was sent. Submit it without `detached`.",
        )
    run_statement(
        connection,
        "INSERT INTO detached (number, run_id, account, sweep) "
        "VALUES ((SELECT coalesce(max(number), 0) + 1 FROM detached), ?, ?, ?)",
        (record.id, PLAY if record.play else place_key(record), sweep),
    )
    enqueue(record.id, connection)


def find_work(
    transaction: "Transaction", lanes: Iterable[Lane], *, most: int, but: Collection[str] = ()
) -> Work:
    """Find runs that are not sent, as many as there are places for, in the order in which they came.

    Args:
        transaction: A transaction.
        lanes: Where the worker can send.
        most: How many at most.
        but: Ids of runs that it leaves to others.

    Returns:
        What there is.
    """
    connection = transaction.connection
    now = ledger_now(connection)
    runs: list[tuple[RunRecord, str]] = []
    unreadable: list[LedgerError] = []
    more, lapse_s = False, math.inf
    for account, places, at_once in lanes:
        there, by_sweeps, first_s = count_live(connection, places, now)
        lapse_s = min(lapse_s, first_s)
        values = (account, now.isoformat(), json.dumps([*but]), at_once + 1)
        for run_id, sweep in run_statement(connection, _NEXT, values).fetchall():
            if len(runs) == most or not fits(sweep, at_once, there, by_sweeps):
                more = True
            elif (record := _readable(transaction, run_id, unreadable)) is not None:
                there, by_sweeps = there + 1, by_sweeps + bool(sweep)
                runs.append((record, sweep))
    return Work(runs, more, lapse_s, unreadable)


def take_work(
    transaction: "Transaction",
    owner: str,
    ttl_s: float,
    lanes: Iterable[Lane],
    *,
    most: int,
    but: Collection[str] = (),
) -> Work:
    """Claim what `find_work` finds.

    Args:
        transaction: A write transaction.
        owner: The name of the worker's engine.
        ttl_s: Seconds until others may take over.
        lanes: As for `find_work`.
        most: As there.
        but: As there.

    Returns:
        What it has, and what is left.
    """
    connection = transaction.connection
    found = find_work(transaction, lanes, most=most, but=but)
    until = (ledger_now(connection) + timedelta(seconds=ttl_s)).isoformat()
    ids = [record.id for record, _ in found.runs]
    for run_id in ids:
        mine = "UPDATE runs SET owner = ?, owned_until = ? WHERE id = ?"
        run_statement(connection, mine, (owner, until, run_id))
    forget(ids, connection)
    return found


def unwanted(transaction: "Transaction", run_ids: Collection[str]) -> set[str]:
    """Name those of a worker's unsent runs that were canceled, or whose sweep is paused or canceled."""
    query = f"""
        SELECT runs.id FROM runs LEFT JOIN detached ON detached.run_id = runs.id
        LEFT JOIN sweeps ON sweeps.name = detached.sweep
        WHERE runs.id IN (SELECT value FROM json_each(?))
            AND (runs.status NOT IN ({_PENDING})
                OR (runs.status = 'created' AND sweeps.state IN ('paused', 'canceled')))"""
    rows = run_statement(transaction.connection, query, (json.dumps([*run_ids]),)) if run_ids else ()
    return {run_id for (run_id,) in rows}


def left_behind(
    transaction: "Transaction", accounts: Iterable[str], *, most: int, but: Collection[str] = ()
) -> tuple[list[tuple["RunRecord", str | None]], list[LedgerError]]:
    """Give runs on their way that nobody drives: what a dead worker or kernel left.

    Args:
        transaction: A transaction.
        accounts: Whose; play runs are everybody's.
        most: How many at most, the oldest.
        but: Ids of runs that are left out.

    Returns:
        Each with its sweep, or nothing, None where it was not left to workers; and which cannot be read.
    """
    connection = transaction.connection
    values = (ledger_now(connection).isoformat(), json.dumps([*but]), json.dumps([*accounts]), most)
    rows = run_statement(connection, _LEFT, values).fetchall()
    unreadable: list[LedgerError] = []
    found = [(_readable(transaction, run_id, unreadable), sweep) for run_id, sweep in rows]
    return [(record, sweep) for record, sweep in found if record is not None], unreadable


def _readable(transaction: "Transaction", run_id: str, unreadable: list[LedgerError]) -> "RunRecord | None":
    """Give a run, or None for one that a newer program wrote: it is that one's."""
    try:
        return transaction.get(run_id)
    except LedgerError as error:
        unreadable.append(error)
    return None


def left_to_workers(transaction: "Transaction", sweep: str) -> dict[str, bool]:
    """Give the runs of a sweep that are left to workers and have not ended, and whether each goes on."""
    query = (
        "SELECT runs.id, runs.status <> 'created' OR sweeps.state = 'started' FROM detached "
        "JOIN runs ON runs.id = detached.run_id JOIN sweeps ON sweeps.name = detached.sweep "
        "WHERE detached.sweep = ?"
    )
    rows = run_statement(transaction.connection, query, (sweep,)).fetchall()
    return {run_id: bool(goes_on) for run_id, goes_on in rows}


def unsent_runs(transaction: "Transaction") -> set[str]:
    """Name the runs that wait for a worker."""
    return {run_id for (run_id,) in run_statement(transaction.connection, _UNSENT).fetchall()}


def is_left_to_workers(transaction: "Transaction", sweep: str) -> bool:
    """Say whether a run of a sweep is left to workers and has not ended."""
    query = "SELECT number FROM detached WHERE sweep = ? LIMIT 1"
    return run_statement(transaction.connection, query, (sweep,)).fetchone() is not None


def withdraw(transaction: "Transaction", run_id: str) -> list["RunRecord"]:
    """End a detached run that is not sent; gives it if it ended so.

    Raises:
        LedgerError: It cannot be read.
    """
    rows = run_statement(transaction.connection, f"{_UNSENT} AND runs.id = ?", (run_id,)).fetchall()
    return _withdrawn(transaction, [transaction.known(one) for (one,) in rows])


def withdraw_sweep(
    transaction: "Transaction", sweep: str, *, most: int, but: Collection[str]
) -> tuple[list["RunRecord"], list[LedgerError]]:
    """End detached runs of a sweep that are not sent.

    Args:
        transaction: A write transaction.
        sweep: Its name.
        most: How many at most.
        but: Ids of runs that are left out.

    Returns:
        Those that ended so, and which cannot be read.
    """
    query = (
        f"{_UNSENT} AND detached.sweep = ? AND runs.id NOT IN (SELECT value FROM json_each(?)) "
        "ORDER BY detached.number LIMIT ?"
    )
    rows = run_statement(transaction.connection, query, (sweep, json.dumps([*but]), most)).fetchall()
    unreadable: list[LedgerError] = []
    found = [_readable(transaction, run_id, unreadable) for (run_id,) in rows]
    return _withdrawn(transaction, [record for record in found if record is not None]), unreadable


def _withdrawn(transaction: "Transaction", records: list["RunRecord"]) -> list["RunRecord"]:
    end = unsent_end(RunStatus.CANCELED, "canceled before a worker sent it", reason="canceled")
    ended = [transaction.change(record, "canceled", end) for record in records]
    forget([record.id for record in ended], transaction.connection)
    return ended


def pending_runs(transaction: "Transaction", accounts: Iterable[str]) -> tuple[int, int, list[str]]:
    """Count what has not ended: all, those that wait for a worker, and name foreign accounts of these."""
    connection = transaction.connection
    [(all_,)] = run_statement(
        connection, f"SELECT count(*) FROM runs WHERE status IN ({_PENDING})"
    ).fetchall()
    waiting = run_statement(
        connection,
        "SELECT detached.account, count(*) FROM detached JOIN runs ON runs.id = detached.run_id "
        "WHERE runs.status = 'created' GROUP BY detached.account",
    ).fetchall()
    known = set(accounts)
    return all_, sum(n for _, n in waiting), sorted(account for account, _ in waiting if account not in known)
