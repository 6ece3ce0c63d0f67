"""The ledger's file: opened, brought up to date, and read and written in transactions.

Invariants: every write is one transaction that begins with BEGIN IMMEDIATE, so that a look and the insert
that rests on it cannot be split by another process; a program older than the schema refuses to write;
whatever goes wrong is a `LedgerError`.
"""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from kling_nb.errors import LedgerError
from kling_nb.interrupts import interrupts_held
from kling_nb.ledger import sqlite
from kling_nb.ledger.fork_guard import ForkGate
from kling_nb.ledger.schema import MIGRATIONS, STEPS
from kling_nb.ledger.transaction import Transaction
from kling_nb.ledger.writer import Writer
from kling_nb.records.base import utc_now

__all__ = ["LedgerFile"]


class LedgerFile:
    """A file or a database address, and its transactions."""

    def __init__(self, where: str | Path) -> None:
        text = str(where)
        # Until the address is read it may hold a password anywhere.
        self.where = "address" if "://" in text else text
        self._opened = self._closed = False
        try:
            url = sa.make_url(text) if "://" in text else sa.URL.create("sqlite", database=text)
            self.where = url.set(query={}).render_as_string(hide_password=True) if "://" in text else text
            self._is_sqlite = url.get_backend_name() == "sqlite"
            if self._is_sqlite:
                sqlite.make_room(url)
            # As many connections as threads that may ask: a reader must not wait behind waiting writers.
            # A row holds prompts: they belong into no log and no error.
            self._engine = sa.create_engine(url, pool_size=8, max_overflow=56, hide_parameters=True)
            # A ledger that nobody closed closes its connections when its last user is gone.
            weakref.finalize(self, self._engine.dispose).atexit = False
            self._turn = threading.Lock()
            self.writer = Writer(self._begun, self._broken)
            self._forks = ForkGate(close=self._engine.dispose, renewed=self._renew)
            if self._is_sqlite:
                # Of the pool, and none of the engine: one of those makes each connection ten times as dear.
                sa.event.listen(self._engine, "connect", sqlite.prepare)
            try:
                self._migrate()
            except BaseException:
                self._engine.dispose()
                raise
            self._opened = True
        except (*sqlite.ERRORS, ImportError, OSError, ValueError) as error:
            raise self._broken(error) from None

    def _broken(self, error: Exception) -> LedgerError:
        cause = getattr(error, "orig", None) or error
        # The parser of an address repeats it, and it may hold a password.
        unread = isinstance(error, ArgumentError)
        why = "its address cannot be understood" if unread else str(cause).rstrip(".")
        cure = sqlite.cure_of(cause)
        if not self._opened:
            cure = f"Nothing was sent. {cure}"
        return LedgerError(f"The ledger {self.where} cannot be used: {why}.", cure=cure)

    def _migrate(self) -> None:
        # Whoever only opens a ledger that is up to date waits for nobody who writes to it.
        with self._transaction(writing=False) as connection:
            if self._steps_done(connection) == len(STEPS):
                return
        with self._transaction() as connection:
            MIGRATIONS.create(connection, checkfirst=True)
            done = self._steps_done(connection)
            if done > len(STEPS):
                raise LedgerError(
                    f"A newer kling_nb wrote the ledger {self.where}: schema {done}, not {len(STEPS)}.",
                    cure="Upgrade kling_nb, or point KLING_NB_LEDGER elsewhere.",
                )
            for number, (name, step) in enumerate(STEPS[done:], start=done + 1):
                step(connection)
                connection.execute(
                    sa.insert(MIGRATIONS).values(number=number, name=name, applied_at=utc_now().isoformat())
                )

    @staticmethod
    def _steps_done(connection: sa.Connection) -> int:
        if not sa.inspect(connection).has_table(MIGRATIONS.name):
            return 0
        return connection.scalar(sa.select(sa.func.coalesce(sa.func.max(MIGRATIONS.c.number), 0))) or 0

    def _renew(self) -> None:
        self._turn = threading.Lock()
        self.writer.renew()

    @contextmanager
    def _transaction(self, *, writing: bool = True) -> Iterator[sa.Connection]:
        try:
            with interrupts_held(), self._begun(True) if writing else self._open(writing=False) as connection:
                yield connection
        except sqlite.ERRORS as error:
            raise self._broken(error) from None

    @contextmanager
    def _begun(self, synced: bool) -> Iterator[sa.Connection]:  # noqa: FBT001 - the writer's callback
        """Open a write transaction in this process's turn: SQLite's own waiting is slower, and not fair."""
        with self._forks, self._turn, self._open(writing=True, synced=synced) as connection:
            yield connection

    @contextmanager
    def _open(self, *, writing: bool, synced: bool = True) -> Iterator[sa.Connection]:
        pool = self._engine.pool
        try:
            with self._forks, self._engine.connect() as connection, connection.begin():
                if self._is_sqlite:
                    sqlite.begin(connection, writing=writing, synced=synced)
                try:
                    yield connection
                finally:
                    # One that was not read to its end would hold this state of the file, and whoever gets
                    # the connection next could not begin to write: not even after waiting.
                    for result in connection.info.pop("results", ()):
                        result.close()
        finally:
            if self._closed:
                # Closed meanwhile: nobody else would close what has just gone back into the pool.
                pool.dispose()

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        """Open one write transaction; nobody else writes until it ends.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        with self._transaction() as connection:
            yield Transaction(connection)

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """Open one read transaction: a consistent view, holding up nobody."""
        with self._transaction(writing=False) as connection:
            yield Transaction(connection)

    def close(self) -> None:
        """Close every connection; what is being written ends first, for which five seconds are given."""
        self.writer.emptied(5)
        self._closed = True
        self._forks.emptied(5)
        self._engine.dispose()

    def forget(self) -> None:
        """Drop the connections without closing them: what a forked child must do with its parent's."""
        self._engine.dispose(close=False)
