"""The ledger's file or database: opened, brought up to date, and read and written in transactions.

Invariants: every write is one transaction that has the ledger to itself from its beginning, so that a look
and the insert that rests on it cannot be split by another process; a program older than the schema refuses to
write; a transaction whose server went away has happened whole or not at all, and it is known which; whatever
goes wrong is a `LedgerError`.
"""

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from kling_nb.errors import LedgerError
from kling_nb.interrupts import ForkGate, interrupts_held
from kling_nb.ledger.databases.changes import Changes
from kling_nb.ledger.databases.statements import ERRORS, dialect_of
from kling_nb.ledger.schema import MIGRATIONS, STEPS
from kling_nb.ledger.transaction import Transaction
from kling_nb.ledger.writer import AWAY_S, Writer
from kling_nb.records.base import utc_now

__all__ = ["LedgerFile"]

T = TypeVar("T")


def _look_at_address(_cause: BaseException) -> str:
    return "Look at KLING_NB_LEDGER: a path, or `postgresql://user:password@host/database`."


class LedgerFile:
    """A file or a database address, and its transactions."""

    def __init__(self, where: str | Path) -> None:
        text = str(where)
        # Until the address is read it may hold a password anywhere.
        self.where = "address" if "://" in text else text
        self._opened = self._closed = False
        self._cure_of: Callable[[BaseException], str] = _look_at_address
        try:
            url = sa.make_url(text) if "://" in text else sa.URL.create("sqlite", database=text)
            # One that is written as it is would end the address in the middle, and be shown from there on.
            if url.host and text.partition("?")[0].count("@") > 1:
                raise ValueError("its password must be percent-encoded, `@` as `%40`")  # noqa: TRY301 - said once
            self.where = url.set(query={}).render_as_string(hide_password=True) if "://" in text else text
            self._dialect = dialect_of(url)
            self._cure_of = self._dialect.cure_of
            self._engine = self._dialect.make_engine(url)
            # A ledger that nobody closed closes its connections when its last user is gone.
            weakref.finalize(self, self._engine.dispose).atexit = False
            self._turn = threading.Lock()
            self.writer = Writer(self._begun, self._broken, self._dialect.is_gone)
            self.reader = Writer(self._looking, self._broken, self._dialect.is_gone, name="kling_nb reader")
            self.changes = self._changes()
            self._forks = ForkGate(close=self._engine.dispose, renewed=self._renew)
            try:
                self._migrate()
            except BaseException:
                self._engine.dispose()
                raise
            self._opened = True
        except (*ERRORS, ImportError, OSError, ValueError) as error:
            raise self._broken(error) from None

    def _broken(self, error: Exception) -> LedgerError:
        cause = getattr(error, "orig", None) or error
        # The parser of an address repeats it, and it may hold a password.
        unread = isinstance(error, ArgumentError)
        why = "its address cannot be understood" if unread else str(cause).rstrip(".?")
        cure = self._cure_of(cause)
        if not self._opened:
            cure = f"Nothing was sent. {cure}"
        return LedgerError(f"The ledger {self.where} cannot be used: {why}.", cure=cure)

    def _migrate(self) -> None:
        # Whoever only opens a ledger that is up to date waits for nobody who writes to it.
        with self._transaction(writing=False) as connection:
            if self._steps_done(connection) == len(STEPS):
                self._dialect.check_hosts(connection)
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
            self._dialect.check_hosts(connection)

    @staticmethod
    def _steps_done(connection: sa.Connection) -> int:
        if not sa.inspect(connection).has_table(MIGRATIONS.name):
            return 0
        return connection.scalar(sa.select(sa.func.coalesce(sa.func.max(MIGRATIONS.c.number), 0))) or 0

    def _renew(self) -> None:
        self._turn = threading.Lock()
        self.writer.renew()
        self.reader.renew()
        self.changes = self._changes()

    def _changes(self) -> Changes:
        listen = self._dialect.listen
        return Changes(listen and partial(listen, self._engine))

    @contextmanager
    def _transaction(self, *, writing: bool = True) -> Iterator[sa.Connection]:
        try:
            with interrupts_held(), self._begun(True) if writing else self._open(writing=False) as connection:
                yield connection
        except ERRORS as error:
            raise self._broken(error) from None

    @contextmanager
    def _begun(self, synced: bool) -> Iterator[sa.Connection]:  # noqa: FBT001 - the writer's callback
        """Open a write transaction in this process's turn: SQLite's own waiting is slower, and not fair."""
        with self._forks, self._turn, self._open(writing=True, synced=synced) as connection:
            yield connection

    def _looking(self, _synced: bool) -> AbstractContextManager[sa.Connection]:  # noqa: FBT001 - as above
        return self._open(writing=False)

    @contextmanager
    def _open(self, *, writing: bool, synced: bool = True) -> Iterator[sa.Connection]:
        pool = self._engine.pool
        try:
            with self._forks:
                connection, mark = self._connected(writing=writing, synced=synced)
                done = False
                try:
                    try:
                        yield connection
                        done = True
                    finally:
                        # One that was not read to its end would hold this state of the file, and whoever
                        # gets the connection next could not begin to write: not even after waiting.
                        # With a connection that is gone they are gone too.
                        for result in () if connection.invalidated else connection.info.pop("results", ()):
                            result.close()
                    connection.commit()
                except ERRORS as error:
                    if not self._dialect.is_gone(error):
                        raise
                    connection.invalidate()
                    if not (done and mark and self._is_committed(mark)):
                        raise
                finally:
                    connection.close()
        finally:
            if self._closed:
                # Closed meanwhile: nobody else would close what has just gone back into the pool.
                pool.dispose()

    def _connected(self, *, writing: bool, synced: bool = True) -> tuple[sa.Connection, str | None]:
        """Begin a transaction; a server that was there before is waited for, as nothing has been done yet."""
        until = time.monotonic() + AWAY_S
        while True:
            connection = None
            try:
                connection = self._engine.connect()
                connection.begin()
                return connection, self._dialect.begin(connection, writing=writing, synced=synced)
            except BaseException as error:
                again = self._opened and self._dialect.is_gone(error) and time.monotonic() < until
                if connection is not None:
                    if again:
                        connection.invalidate()
                    connection.close()
                if not again:
                    raise
            # All others in the pool are as dead.
            self._engine.dispose()
            time.sleep(0.1)

    def _is_committed(self, mark: str) -> bool:
        """Look whether a transaction was committed, of which only the answer got lost."""
        until = time.monotonic() + AWAY_S
        while True:
            try:
                connection, _ = self._connected(writing=True)
                with connection:
                    return self._dialect.is_committed(connection, mark)
            except ERRORS as error:
                # Nobody may take it for not written, and write it a second time.
                if not self._dialect.is_gone(error) or time.monotonic() > until:
                    raise self._broken(error) from None

    def read(self, look: Callable[[Transaction], T]) -> T:
        """Look in a read transaction, and once more from the beginning where the server went away meanwhile.

        Args:
            look: Gets the transaction, a consistent view that holds up nobody; changes nothing outside it.

        Returns:
            What it gave.

        Raises:
            LedgerError: The ledger cannot be read.
        """

        def looked() -> T:
            with self.reading() as transaction:
                return look(transaction)

        return self.insist(looked)

    def insist(self, work: Callable[[], T]) -> T:
        """Do something again in whose middle the server went away; it must see for itself how things stand.

        Args:
            work: Reads and writes in transactions.

        Returns:
            What it gave.
        """
        until = time.monotonic() + AWAY_S
        while True:
            try:
                return work()
            except LedgerError as error:
                gone = error.__context__ is not None and self._dialect.is_gone(error.__context__)
                if not gone or time.monotonic() > until:
                    raise

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
        """Open one read transaction for what cannot be done again as a whole; all else uses `read`."""
        with self._transaction(writing=False) as connection:
            yield Transaction(connection)

    def close(self) -> None:
        """Close every connection; what is being written ends first, for which five seconds are given."""
        self.changes.close()
        self.writer.emptied(5)
        self._closed = True
        self._forks.emptied(5)
        self._engine.dispose()

    def forget(self) -> None:
        """Drop the connections without closing them: what a forked child must do with its parent's."""
        self._engine.dispose(close=False)
