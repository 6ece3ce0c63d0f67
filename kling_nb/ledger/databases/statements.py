"""The databases that may keep a ledger, behind one set of functions, and how statements get to their drivers.

Statements are written as SQLite takes them, in words that PostgreSQL speaks too wherever there are any.
"""

import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from kling_nb.errors import LedgerError
from kling_nb.records.base import utc_now

__all__ = ["ERRORS", "Dialect", "dialect_of", "is_postgresql", "ledger_now", "run_statement"]

#: What goes wrong in a database, by either way to it.
ERRORS = (SQLAlchemyError, sqlite3.Error)


class Dialect(Protocol):
    """What a kind of database does in its own way; the modules `sqlite` and `postgresql`."""

    @property
    def listen(self) -> Callable[[sa.Engine], AsyncGenerator[str, None]] | None:
        """What tells of changes, see `Changes`; None where nobody does."""

    def make_engine(self, url: sa.URL) -> sa.Engine:
        """Make what connects to it; an address that can keep no ledger is refused."""

    def check_hosts(self, connection: sa.Connection) -> None:
        """Refuse a ledger that only one machine at a time may use, and another one does."""

    def begin(self, connection: sa.Connection, *, writing: bool, synced: bool) -> str | None:
        """Begin a transaction; gives what its commit can be looked up by, where an answer may get lost."""

    def is_committed(self, connection: sa.Connection, mark: str) -> bool:
        """Say whether a transaction whose answer got lost was committed; it has ended by now."""

    def is_gone(self, error: BaseException) -> bool:
        """Say whether the connection is gone, so that the transaction has happened whole or not at all."""

    def cure_of(self, cause: BaseException) -> str:
        """Say what to do about a ledger that cannot be used."""


def dialect_of(url: sa.URL) -> Dialect:
    """Give the functions of the database at an address.

    Raises:
        LedgerError: What talks to it is not installed.
        ValueError: It is of another kind.
    """
    from kling_nb.ledger.databases import sqlite

    kind = url.get_backend_name()
    if kind == "sqlite":
        return sqlite
    if kind != "postgresql":
        raise ValueError(f"a ledger is kept by SQLite or PostgreSQL, not {kind}")
    try:
        from kling_nb.ledger.databases import postgresql
    except ImportError:
        raise LedgerError(
            "A ledger in PostgreSQL needs psycopg, which is not installed.",
            cure="Nothing was sent. `pip install 'kling-nb[team]'`, and restart the kernel.",
        ) from None
    return postgresql


def is_postgresql(connection: sa.Connection) -> bool:
    """Say whether the ledger is in PostgreSQL."""
    return connection.dialect.name == "postgresql"


def ledger_now(connection: sa.Connection) -> datetime:
    """Give the time by the clock that all kernels on the ledger share: the server's, where there is one."""
    ahead: timedelta = connection.info.get("ahead", timedelta())
    return utc_now() + ahead


def run_statement(connection: sa.Connection, text: str, values: Sequence[Any] = ()) -> Any:
    """Run a statement of a run's life by the driver itself; what it gives must be read to its end.

    SQLAlchemy's way takes ten times as long, and a run has fifty of them.

    Args:
        connection: In a transaction.
        text: The statement, with `?` for each value.
        values: The values.

    Returns:
        The driver's cursor.

    Raises:
        sqlite3.Error: SQLite refuses it.
        SQLAlchemyError: PostgreSQL refuses it.
    """
    driver: Any = connection.connection.driver_connection
    if is_postgresql(connection):
        from kling_nb.ledger.databases import postgresql

        return postgresql.run(driver, text, values)
    return driver.execute(text, values)
