"""Places in flight: how many runs of an account are at the provider at once, and who comes next.

Invariants: places are given in the order in which the runs were asked for; a run that waits for one is a row
of a table, with no task, connection or heartbeat of its own; its lease and its claim are kept alive with
those of all the others.
"""

import asyncio
import contextlib
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from kling_nb.engine.detach import halted
from kling_nb.errors import LedgerError, StoreError
from kling_nb.records.run import RunStatus
from kling_nb.views.waits import Turn

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

    from kling_nb.engine.job import Limits
    from kling_nb.engine.run import Run
    from kling_nb.ledger.database import Ledger
    from kling_nb.ledger.transaction import Transaction
    from kling_nb.media.folder import Store

__all__ = ["NoPlaceError", "Places"]


class NoPlaceError(Exception):
    """Every place of the account is taken: the run waits, and goes on keeping its lease."""


class _Engine(Protocol):
    """What gives the places, and carries who has one."""

    ledger: "Ledger"
    limits: "Limits"
    owner: str
    max_in_flight: int

    def drives(self, run_id: str) -> bool: ...
    def store(self, folder: "str | Path") -> "Store": ...
    def drive(
        self,
        run: "Run",
        *,
        may_send: bool,
        detach: bool = False,
        leave_place: Callable[[], None] | None = None,
    ) -> "Awaitable[None]": ...


class Places:
    """Belongs to the background loop.

    Args:
        engine: Carries the runs.
    """

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        #: By account, when each place was taken.
        self._taken: defaultdict[str, dict[object, float]] = defaultdict(dict)
        #: By account, then by our id, in order.
        self._waiting: defaultdict[str, dict[str, Run]] = defaultdict(dict)
        #: By our id, the account and a number that rises with each that comes; by account, those numbers.
        self._accounts: dict[str, tuple[str, int]] = {}
        self._numbers: defaultdict[str, list[int]] = defaultdict(list)
        self._given = 0
        self._beating: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def __contains__(self, run_id: str) -> bool:
        """Whether a run waits for a place."""
        return run_id in self._accounts

    def begin(self, run: "Run") -> None:
        """Carry a run: at once where there is a place or it needs none, else in its turn."""
        if run.id in self:
            return
        if run.sent_here and run.status is RunStatus.CREATED and not self._engine.drives(run.id):
            # It was claimed for this process when it was written down.
            self.park(run)
        else:
            self._start(run)

    def park(self, run: "Run") -> None:
        """Have a run that is claimed wait for a place."""
        account = run.record.account
        self._given += 1
        self._accounts[run.id] = account, self._given
        self._numbers[account].append(self._given)
        self._waiting[account][run.id] = run
        self._fill(account)
        if self._accounts and self._beating is None:
            self._beating = asyncio.get_running_loop().create_task(self._beat())

    def call_up(self, run: "Run", *, detach: bool = False) -> None:
        """Carry a waiting run without a place, because it is to be canceled or let go."""
        if run.id in self:
            self._remove(run)
            self._start(run, detach=detach)

    def turn(self, run_id: str) -> Turn | None:
        """Give when a waiting run comes to be sent; None where it does not wait. Any thread may ask."""
        if (found := self._accounts.get(run_id)) is None:
            return None
        account, number = found
        now = time.monotonic()
        ages = tuple(now - since for since in list(self._taken[account].values()))
        return Turn(bisect_left(self._numbers[account], number) + 1, self._engine.max_in_flight, ages)

    def take(self, account: str) -> Callable[[], None]:
        """Take a place.

        Returns:
            What gives it back.

        Raises:
            NoPlaceError: There is none, or others wait for it.
        """
        if self._waiting[account] or len(self._taken[account]) >= self._engine.max_in_flight:
            raise NoPlaceError
        return self._give(account)

    async def close(self) -> None:
        """Let every waiting run go; it stays on record."""
        runs = [run for waiting in self._waiting.values() for run in waiting.values()]
        self._waiting.clear()
        self._accounts.clear()
        self._numbers.clear()
        if self._beating is not None:
            self._beating.cancel()
        for run in runs:
            run.stop(halted(run.record, asyncio.CancelledError()))

        def release(transaction: "Transaction") -> None:
            for run in runs:
                transaction.release(run.id, self._engine.owner)

        with contextlib.suppress(LedgerError):
            await self._engine.ledger.writer.ask(release, synced=False)

    def _give(self, account: str) -> Callable[[], None]:
        place = object()
        self._taken[account][place] = time.monotonic()

        def give_back() -> None:
            del self._taken[account][place]
            self._fill(account)

        return give_back

    def _fill(self, account: str) -> None:
        waiting = self._waiting[account]
        while waiting and len(self._taken[account]) < self._engine.max_in_flight:
            run = next(iter(waiting.values()))
            self._remove(run)
            self._start(run, leave_place=self._give(account))

    def _remove(self, run: "Run") -> None:
        account, number = self._accounts.pop(run.id)
        del self._waiting[account][run.id]
        numbers = self._numbers[account]
        del numbers[bisect_left(numbers, number)]

    def _start(
        self, run: "Run", *, detach: bool = False, leave_place: Callable[[], None] | None = None
    ) -> None:
        driving = self._engine.drive(run, may_send=True, detach=detach, leave_place=leave_place)
        task = asyncio.ensure_future(driving)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _beat(self) -> None:
        """Show again and again that the waiting runs are cared for, all in one commit."""
        while self._accounts:
            runs = [run for waiting in self._waiting.values() for run in waiting.values()]
            with contextlib.suppress(LedgerError):
                await self._engine.ledger.writer.ask(partial(self._renew, runs), synced=False)
            await asyncio.to_thread(self._keep_claims, runs)
            # However long a lease is: one that was given back before its run came here is taken soon.
            await asyncio.sleep(min(self._engine.limits.lease_s / 3, 10))
        self._beating = None

    def _renew(self, runs: "list[Run]", transaction: "Transaction") -> None:
        owner, ttl_s = self._engine.owner, self._engine.limits.lease_s
        if transaction.renew([run.id for run in runs], owner, ttl_s) < len(runs):
            for run in runs:
                transaction.claim(run.id, owner, ttl_s)

    def _keep_claims(self, runs: "list[Run]") -> None:
        for run in runs:
            with contextlib.suppress(StoreError):
                self._engine.store(run.record.folder).claims.keep(run.record.request_key, run.id)
