"""A sweep as the ledger has it: what was said of it, and the runs of its members.

Invariants: what is written is decided by what the ledger has at that moment; what was said last is read
without the grid, so that to ask costs the same whatever the size.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from kling_nb.ledger.databases.changes import DETACHED
from kling_nb.ledger.sweeps import Stored, SweepState, find, put, put_members, set_state, state_of
from kling_nb.ledger.work.detached import left_to_workers, withdraw_sweep
from kling_nb.sweeps.prompts import refused
from kling_nb.sweeps.standing import Standing

if TYPE_CHECKING:
    from kling_nb.engine.run import Run
    from kling_nb.errors import LedgerError
    from kling_nb.ledger.transaction import Transaction
    from kling_nb.records.run import RunRecord
    from kling_nb.session.session import Session

__all__ = ["Entry"]

#: Runs that are ended in one transaction.
_CHUNK = 200
#: Seconds between two looks while a sweep is waited for.
_STEP_S = 0.2


class Entry:
    """One sweep in the ledger of a session.

    Args:
        session: Whose ledger.
        stored: As it was read, or is to be written.

    Example:
        >>> Entry.__name__
        'Entry'
    """

    def __init__(self, session: "Session", stored: Stored) -> None:
        self._session, self.stored = session, stored
        self.standing = Standing(stored)

    def read(self) -> Stored:
        """Read all of it anew."""
        name = self.stored.name
        self.stored = self._session.ledger().read(lambda look: find(look, name)) or self.stored
        return self.stored

    def state(self) -> SweepState:
        """Read what was said last."""
        name = self.stored.name
        state = self._session.ledger().read(lambda look: state_of(look, name)) or self.stored.state
        self.stored = replace(self.stored, state=state)
        return state

    def put(
        self, stored: Stored, members: Sequence[tuple[int, str, str | None]], *, before: Stored | None
    ) -> bool:
        """Write it, with members: number, request key, and the provider where one is named.

        Returns:
            Whether it was written; else another kernel wrote the same meanwhile.

        Raises:
            UsageError: It is no more what it was before.
        """
        with self._session.ledger().writing() as transaction:
            found = find(transaction, stored.name)
            written = found is None or found.grid != stored.grid
            if found is not None and not written:
                stored = found
            elif found != before:
                started = found and found.state == "started" and not (before and before.state == "started")
                raise refused(
                    f"The sweep {stored.name} was {'started' if started else 'changed'} meanwhile.",
                    cure="Ask for it anew.",
                )
            else:
                put(transaction, stored)
                put_members(transaction, stored, members)
        self.stored, self.standing = stored, Standing(stored)
        return written

    @contextmanager
    def changing(self) -> Iterator[tuple[Stored, Standing, Callable[[Stored], None]]]:
        """Give it and its runs as they are now, and what writes it; nobody else writes meanwhile."""
        with self.standing.lock, self._session.ledger().writing() as transaction:

            def write(stored: Stored) -> None:
                put(transaction, stored)
                self.stored = stored

            found = find(transaction, self.stored.name) or self.stored
            yield found, self.standing.look(transaction), write

    def say(self, state: SweepState) -> None:
        """Say what becomes of it, in every kernel."""
        with self._session.ledger().writing() as transaction:
            set_state(transaction, self.stored.name, state)
        self.read()

    @contextmanager
    def looked(self) -> Iterator[Standing]:
        """Give its runs as they are now; nobody else looks meanwhile."""
        with self.standing.lock:
            yield self._session.ledger().read(self.standing.look)

    @contextmanager
    def rests(self) -> Iterator[Callable[[float], None]]:
        """Give what rests between two looks: longer by so many seconds, or until a worker moves a run."""
        session, moved = self._session, threading.Event()
        changes, watching = session.ledger().changes, ExitStack()
        session.loop.call(watching.enter_context, changes.watched(DETACHED, moved.set))

        def rest(more_s: float) -> None:
            time.sleep(_STEP_S)
            moved.wait(max(0.0, min(changes.look_s(_STEP_S) - _STEP_S, more_s)))
            moved.clear()

        try:
            yield rest
        finally:
            session.loop.call(watching.close)

    def ended(self, after: int) -> list[str]:
        """Name the runs that have ended, in that order, without the first so many."""
        with self.looked() as standing:
            return standing.ended[after:]

    def left_to_workers(self) -> dict[str, bool]:
        """Give its runs that workers send and follow, and whether each goes on."""
        name = self.stored.name
        return self._session.ledger().read(lambda look: left_to_workers(look, name))

    def withdraw(self) -> None:
        """End what is left to workers and not sent; what they are about to send is decided by the ledger.

        Raises:
            LedgerError: A run cannot be read, and keeps its money; all others have ended.
        """
        kept: list[LedgerError] = []
        while True:
            but = [error.run_id or "" for error in kept]
            with self._session.ledger().writing() as transaction:
                ended, unreadable = withdraw_sweep(transaction, self.stored.name, most=_CHUNK, but=but)
            kept += unreadable
            if not ended and not unreadable:
                break
            for record in ended:
                self._session.engine().settled(record)
                self._session.engine().store(record.folder).claims.drop(record.request_key, record.id)
        if kept:
            raise kept[0]

    def handles(
        self, *, pending: bool = False, but: Collection[str] = (), mine: "Mapping[int, Run]"
    ) -> "dict[int, Run]":
        """Give the run that stands for each member, by its number.

        Args:
            pending: Only those on their way.
            but: Ids of runs that are left out.
            mine: Handles of this kernel, which are told of changes; of others the ledger's state is taken.
        """

        def records(transaction: "Transaction") -> "list[tuple[int, RunRecord | None]]":
            standing = self.standing.look(transaction)
            stands = standing.stands
            numbers = sorted(n for n in (standing.pending if pending else stands) if stands[n].id not in but)
            return [(number, transaction.get(stands[number].id)) for number in numbers]

        peek = self._session.engine().peek
        with self.standing.lock:
            found = self._session.ledger().read(records)
        return {
            number: own if (own := mine.get(number)) and own.id == record.id else peek(record)
            for number, record in found
            if record is not None
        }
