"""Places in flight: how many runs of an account are at the provider at once, and who comes next.

Invariants: places are given in the order in which the runs were asked for; a run that waits for one is a row
of a table, with no task, connection or heartbeat of its own; its lease and its claim are kept alive with
those of all the others.
"""

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from kling_nb.engine.detach import halted
from kling_nb.errors import LedgerError, StoreError
from kling_nb.records.run import RunStatus

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
        self._taken: Counter[str] = Counter()
        #: By account, then by our id, in order.
        self._waiting: defaultdict[str, dict[str, Run]] = defaultdict(dict)
        self._accounts: dict[str, str] = {}
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
        self._accounts[run.id] = account
        self._waiting[account][run.id] = run
        self._fill(account)
        if self._accounts and self._beating is None:
            self._beating = asyncio.get_running_loop().create_task(self._beat())

    def call_up(self, run: "Run", *, detach: bool = False) -> None:
        """Carry a waiting run without a place, because it is to be canceled or let go."""
        account = self._accounts.pop(run.id, None)
        if account is not None:
            del self._waiting[account][run.id]
            self._start(run, detach=detach)

    def take(self, account: str) -> Callable[[], None]:
        """Take a place.

        Returns:
            What gives it back.

        Raises:
            NoPlaceError: There is none, or others wait for it.
        """
        if self._waiting[account] or self._taken[account] >= self._engine.max_in_flight:
            raise NoPlaceError
        self._taken[account] += 1
        return lambda: self._give_back(account)

    async def close(self) -> None:
        """Let every waiting run go; it stays on record."""
        runs = [run for waiting in self._waiting.values() for run in waiting.values()]
        self._waiting.clear()
        self._accounts.clear()
        if self._beating is not None:
            self._beating.cancel()
        for run in runs:
            run.stop(halted(run.record, asyncio.CancelledError()))

        def release(transaction: "Transaction") -> None:
            for run in runs:
                transaction.release(run.id, self._engine.owner)

        with contextlib.suppress(LedgerError):
            await self._engine.ledger.writer.ask(release, synced=False)

    def _give_back(self, account: str) -> None:
        self._taken[account] -= 1
        self._fill(account)

    def _fill(self, account: str) -> None:
        waiting = self._waiting[account]
        while waiting and self._taken[account] < self._engine.max_in_flight:
            run = waiting.pop(next(iter(waiting)))
            del self._accounts[run.id]
            self._taken[account] += 1
            self._start(run, leave_place=lambda: self._give_back(account))

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
            await asyncio.sleep(self._engine.limits.lease_s / 3)
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
