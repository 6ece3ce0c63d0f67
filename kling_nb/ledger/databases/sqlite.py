"""How a ledger in a file is opened: what SQLite must be told, and what it does not wait for by itself.

Invariants: a transaction that writes holds the lock from its first statement; what is committed is on
the disk, unless who writes it said that it need not be; any number of processes may open the same new file at
the same moment.
"""

import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from kling_nb.errors import LedgerError
from kling_nb.ledger.databases.file_systems import file_system, is_network
from kling_nb.ledger.databases.statements import run_statement
from kling_nb.ledger.rows import read_text
from kling_nb.records.base import utc_now

__all__ = ["begin", "check_hosts", "cure_of", "is_committed", "is_gone", "listen", "make_engine"]

_LIMIT_S = 30

#: A file tells nobody what others change in it.
listen = None


def make_engine(url: sa.URL) -> sa.Engine:
    """Make what opens the file, and its folder; a ledger that is no file is refused."""
    if url.database in {None, "", ":memory:"} or url.query.get("mode") == "memory":
        raise ValueError("it would be gone with this process, and every thread would have its own")
    Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
    # As many connections as threads that may ask: a reader must not wait behind waiting writers.
    # A row holds prompts: they belong into no log and no error.
    engine = sa.create_engine(url, pool_size=8, max_overflow=56, hide_parameters=True)
    # Of the pool, and none of the engine: one of those makes each connection ten times as dear.
    sa.event.listen(engine, "connect", _prepare)
    return engine


def _prepare(connection: Any, _record: object) -> None:
    """Set up a new connection."""
    # `begin` must be the one that begins: the driver's own habit would begin too late.
    connection.isolation_level = None
    connection.text_factory = read_text
    try:
        connection.execute(f"PRAGMA busy_timeout = {_LIMIT_S * 1000}")
        _write_ahead(connection)
        # FULL: the intent must survive a power cut before the POST leaves; NORMAL promises no such thing.
        connection.execute("PRAGMA synchronous = FULL")
    except Exception:
        # It is in no pool yet, so nobody else would close it.
        connection.close()
        raise


def _write_ahead(connection: Any) -> None:
    # Who turns a new file into this mode locks it, and SQLite tells others at once that it is locked,
    # whatever time they give it (measured: 14 of 560 new files that eight processes opened at one moment).
    until = time.monotonic() + _LIMIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return


def check_hosts(connection: sa.Connection) -> None:
    """Refuse a file that another machine uses over a network just now.

    Raises:
        LedgerError: Kernels of several machines would write to one file.
    """
    path = connection.engine.url.database or ""
    kind = file_system(Path(path))
    if not is_network(kind):
        return
    query = "SELECT DISTINCT owner FROM runs WHERE owner IS NOT NULL AND owned_until > ?"
    owners = run_statement(connection, query, (utc_now().isoformat(),)).fetchall()
    others = {owner.partition(":")[0] for (owner,) in owners} - {socket.gethostname()}
    if others:
        raise LedgerError(
            f"The ledger {path} is a file on a network file system ({kind}), and {', '.join(sorted(others))} "
            "uses it just now.",
            cure="Nothing was sent. For several machines keep it in PostgreSQL "
            "(KLING_NB_LEDGER=postgresql://...; `kling-nb ledger copy` takes it along), or wait until the "
            "other one is done.",
        )


def begin(connection: sa.Connection, *, writing: bool, synced: bool) -> None:
    """Begin a transaction: one that writes takes the lock at once; its commit is on disk if it is synced."""
    if writing and synced != connection.info.get("synced", True):
        run_statement(connection, f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
        connection.info["synced"] = synced
    run_statement(connection, "BEGIN IMMEDIATE" if writing else "BEGIN")


def is_committed(_connection: sa.Connection, _mark: str) -> bool:
    """Say whether a transaction was committed; a file's answer never gets lost."""
    return False


def is_gone(_error: BaseException) -> bool:
    """Say whether the connection is gone; a file's never is."""
    return False


def cure_of(cause: BaseException) -> str:
    """Say what to do about a ledger that cannot be used."""
    if getattr(cause, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return (
            "Put a good copy in its place, or name another in KLING_NB_LEDGER: clips and receipts in "
            "the media folders are enough to go on, but a new ledger forgets what was spent under every cap."
        )
    if "locked" in str(cause):
        return (
            "Another process is writing to it: try again in a moment. If it stays so, end or restart the "
            "kernel that was stopped while it wrote; what is in the ledger is whole."
        )
    return "Repair the disk or its permissions, or point KLING_NB_LEDGER elsewhere."
