"""The thread that writes what others ask for, and the one that reads: whatever waits shares a transaction.

Invariants: who asked is answered only once the transaction is committed; each piece of work has a savepoint
of its own, so that one that fails rolls back itself alone; a forked child has a thread of its own, and
nothing of what its parent was asked for.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa

from kling_nb.errors import LedgerError
from kling_nb.files import Checkpoint, no_checkpoint
from kling_nb.ledger.databases.statements import ERRORS, run_statement
from kling_nb.ledger.transaction import Transaction

__all__ = ["AWAY_S", "Writer"]

T = TypeVar("T")

#: Seconds for which a server that was there before may be away.
AWAY_S = 30
#: Seconds for which others are waited for, where some came together a moment ago.
_WINDOW_S = 0.003
#: Seconds for which work that needs no sync of its own waits for some that does.
_RIDE_S = 0.004
#: Seconds without work after which the thread ends.
_IDLE_S = 5


@dataclass(frozen=True, slots=True)
class _Ask:
    """Work to be done in a transaction, and who waits for it."""

    work: Callable[[Transaction], Any]
    synced: bool
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"


#: Who asked, the result, and the error in its place.
_Answer = tuple[_Ask, Any, BaseException | None]


class Writer:
    """A thread that is there while there is something to write, or to read.

    Args:
        transaction: Opens a transaction; told whether its commit must be on the disk when it ends.
        broken: Makes the ledger's error of one of the database.
        gone: Whether an error says that the server went away, and nothing was written.
        name: Of its thread.
    """

    def __init__(
        self,
        transaction: Callable[[bool], AbstractContextManager[sa.Connection]],
        broken: Callable[[Exception], LedgerError],
        gone: Callable[[BaseException], bool],
        name: str = "kling_nb writer",
    ) -> None:
        self._transaction, self._broken, self._gone, self._name = transaction, broken, gone, name
        #: Called within a batch after each piece of work, and after its commit; a crash test ends there.
        self.checkpoint: Checkpoint = no_checkpoint
        self.renew()

    def renew(self) -> None:
        """Begin anew, as in a forked child."""
        self._changed = threading.Condition()
        self._waiting: list[_Ask] = []
        self._thread: threading.Thread | None = None

    def ask(self, work: Callable[[Transaction], T], *, synced: bool = True) -> "asyncio.Future[T]":
        """Have work done in the next transaction; to be called and awaited on a loop.

        Args:
            work: Gets the transaction, on the writer's thread.
            synced: Whether it must outlast a power cut once it is answered.

        Returns:
            What the work gave, or the error that it ended with.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._changed:
            self._waiting.append(_Ask(work, synced, loop, future))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:
                    # The interpreter is ending and starts no thread; the id of a paid run must be kept.
                    self._thread = None
            else:
                self._changed.notify_all()
            if self._thread is None:
                self._write(self._taken())
        return future

    def emptied(self, limit_s: float) -> bool:
        """Wait until everything asked for is written; False after `limit_s` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, limit_s)

    def _taken(self) -> list[_Ask]:
        taken, self._waiting = self._waiting, []
        return taken

    def _run(self) -> None:
        many = False
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._waiting, _IDLE_S):
                    self._thread = None
                    return
                self._changed.wait_for(lambda: any(ask.synced for ask in self._waiting), _RIDE_S)
            if many:
                time.sleep(_WINDOW_S)
            with self._changed:
                batch = self._taken()
                self._changed.notify_all()
            self._write(batch)
            many = len(batch) > 1

    def _write(self, batch: Sequence[_Ask]) -> None:
        # Who was canceled before his turn wants nothing any more.
        asks = [ask for ask in batch if not ask.future.cancelled()]
        try:
            answers = self._committed(asks)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            answers = [(ask, None, self._broken(error)) for ask in asks]
        for loop in {ask.loop for ask in asks}:
            own = [answer for answer in answers if answer[0].loop is loop]
            with suppress(RuntimeError):  # a loop that is closed waits for nothing
                loop.call_soon_threadsafe(_tell, own)

    def _committed(self, asks: Sequence[_Ask]) -> list[_Answer]:
        until = time.monotonic() + AWAY_S
        while True:
            try:
                return self._commit(asks)
            except ERRORS as error:
                # A server that went away has written nothing of it, and may go a second time.
                if not self._gone(error) or time.monotonic() > until:
                    raise

    def _commit(self, asks: Sequence[_Ask]) -> list[_Answer]:
        answers: list[_Answer] = []
        with self._transaction(any(ask.synced for ask in asks)) as connection:
            for ask in asks:
                answers.append(self._answer(ask, connection))
                self.checkpoint("batch half written")
        self.checkpoint("batch in the ledger")
        return answers

    def _answer(self, ask: _Ask, connection: sa.Connection) -> _Answer:
        run_statement(connection, "SAVEPOINT ask")
        try:
            answer: _Answer = ask, ask.work(Transaction(connection)), None
        except Exception as error:  # noqa: BLE001 - it belongs to who asked
            run_statement(connection, "ROLLBACK TO ask")
            answer = ask, None, self._broken(error) if isinstance(error, ERRORS) else error
        run_statement(connection, "RELEASE ask")
        return answer


def _tell(answers: Sequence[_Answer]) -> None:
    """Answer all who asked from one loop; on that loop."""
    for ask, result, error in answers:
        if ask.future.done():
            continue
        if error is None:
            ask.future.set_result(result)
        else:
            ask.future.set_exception(error)
