"""Which runs this process cares for: claimed, kept by one heartbeat for all of them, and given back.

Invariants: a lease is kept as long as its run is driven or waits for a place, and no longer; a heartbeat
takes none but runs that wait, and so were asked for here. A run's lease is that of its place in flight too.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial

from kling_nb.engine.detach import detached
from kling_nb.engine.job import Job
from kling_nb.engine.limits import Limits
from kling_nb.engine.run import Run
from kling_nb.errors import LedgerError, StoreError, UsageError
from kling_nb.ledger.database import Ledger
from kling_nb.ledger.transaction import Transaction
from kling_nb.media.folder import Store
from kling_nb.records.run import RunRecord

__all__ = ["Leases"]

#: Seconds between two looks at a run that another process drives.
_LOOK_S = 1.0


class Leases:
    """The leases of one engine.

    Args:
        ledger: Where they are written down.
        owner: The name under which runs are claimed.
        limits: How long a lease lasts.
        store: Gives the store of a folder.
    """

    def __init__(self, ledger: Ledger, owner: str, limits: Limits, store: Callable[[str], Store]) -> None:
        self._ledger, self._owner, self._limits, self._store = ledger, owner, limits, store
        #: By our id, what shows in the folder that a run is cared for.
        self._held: dict[str, Callable[[], None]] = {}
        self._waiting: set[str] = set()
        self._beating: asyncio.Future[None] | None = None

    async def take(self, run_id: str, *, unmoved: str | None = None) -> tuple[str | None, RunRecord | None]:
        """Claim a run; see `Transaction.claim`.

        Returns:
            None, or the lease of whoever has it (empty where nobody does), and the run as it is then.
        """

        def claim(transaction: Transaction) -> tuple[str | None, RunRecord | None]:
            mine = transaction.claim(run_id, self._owner, self._limits.lease_s, unmoved=unmoved)
            return None if mine else transaction.lease(run_id) or "", transaction.get(run_id)

        return await self._ledger.writer.ask(claim, synced=False)

    async def _look(self, run_id: str, unmoved: str | None = None) -> tuple[str | None, RunRecord | None]:
        """Claim a run if it is free by now: while it is not, nothing is written."""

        def look(transaction: Transaction) -> tuple[bool, str, RunRecord | None]:
            free = transaction.claimable(run_id, self._owner, unmoved=unmoved)
            return free, transaction.lease(run_id) or "", transaction.get(run_id)

        free, lease, record = await self._ledger.reader.ask(look)
        return await self.take(run_id, unmoved=unmoved) if free else (lease, record)

    async def claim(self, job: Job, write_sidecar: Callable[[RunRecord], None]) -> bool:
        """Wait until a run is ours to drive; its handle tells what another process commits meanwhile.

        Args:
            job: The run.
            write_sidecar: Writes the end that another process came to into the folder.

        Returns:
            False where it ended before.

        Raises:
            UsageError: The ledger does not know the run.
            DetachedError: Somebody stopped the waiting.
        """
        run, lease, since = job.run, None, 0.0
        with contextlib.ExitStack() as waiting:
            while True:
                mine, before = False, lease
                lease, record = await (self.take(run.id) if lease is None else self._look(run.id))
                if lease is None:
                    mine = True
                else:
                    since = since if lease == before else job.clock.monotonic()
                    if job.clock.monotonic() - since > job.limits.lease_s:
                        # Nobody renews it, whatever the clock on the wall says.
                        lease, record = await self._look(run.id, lease)
                        mine = lease is None
                if record is None:
                    raise UsageError(
                        f"Run {run.id} is known from the media folder only.",
                        charged=run.record.charged,
                        cure="Run its cell again: that takes it into the ledger and sends nothing.",
                        run_id=run.id,
                    )
                if record != run.record:
                    if record.status.ended:
                        # First the folder, where an older state may stand: who is told may be gone at once.
                        await asyncio.to_thread(write_sidecar, record)
                    run.publish(record)
                if mine or run.status.ended:
                    return mine
                if job.detach_wanted:
                    what = f"We stopped watching run {run.id}, which another process carries."
                    raise detached(run.record, what, f"`%kling resume {run.id}` watches it again.")
                # Another process drives it: follow what it commits, and take over when its lease runs out.
                if before is None:
                    waiting.enter_context(self._ledger.changes.watched(run.id, job.wake))
                await job.pause(self._ledger.changes.look_s(_LOOK_S, job.limits.lease_s / 6))

    def keep(self, job: Job) -> None:
        """Keep the lease of a run that was claimed, until it is given back."""
        self._held[job.record.id] = job.keep_claim
        self._begin(self._rest_s)

    def wait(self, run: Run) -> None:
        """Keep the lease of a run that waits for a place, until it waits no more."""
        self._held[run.id] = partial(self._keep_claim, run)
        self._waiting.add(run.id)
        # One that was given back before its run came here is taken soon.
        self._begin(0)

    def wait_no_more(self, run_id: str) -> None:
        """Leave the lease of a run that waited to whoever carries it from now on."""
        if run_id in self._waiting:
            self._waiting.discard(run_id)
            self._drop(run_id)

    async def give_back(self, run_id: str, *, released: bool = True) -> None:
        """Let others drive a run; not `released`, somebody else here keeps its lease from now on."""
        self._drop(run_id)
        if not released:
            return
        with contextlib.suppress(LedgerError):
            await self._ledger.writer.ask(
                lambda transaction: transaction.release(run_id, self._owner), synced=False
            )

    @property
    def _rest_s(self) -> float:
        return min(self._limits.lease_s / 3, 10)

    def _begin(self, wait_s: float) -> None:
        if self._beating is None or self._beating.done():
            self._beating = asyncio.ensure_future(self._beat(wait_s))

    def _drop(self, run_id: str) -> None:
        del self._held[run_id]
        if self._beating and not self._held:
            self._beating.cancel()
            self._beating = None

    async def _beat(self, wait_s: float) -> None:
        """Show again and again that the runs are cared for, all in one commit."""
        while True:
            await asyncio.sleep(wait_s)
            wait_s = self._rest_s
            work = partial(self._renew, list(self._held), list(self._waiting))
            with contextlib.suppress(LedgerError):
                await self._ledger.writer.ask(work, synced=False)
            # Of runs that are not sent yet, it is shown in their folders too.
            await asyncio.to_thread(_call_all, list(self._held.values()))

    def _renew(self, held: Sequence[str], waiting: Sequence[str], transaction: Transaction) -> None:
        if transaction.renew(held, self._owner, self._limits.lease_s) < len(held):
            for run_id in waiting:
                transaction.claim(run_id, self._owner, self._limits.lease_s)

    def _keep_claim(self, run: Run) -> None:
        with contextlib.suppress(StoreError):
            self._store(run.record.folder).claims.keep(run.record.request_key, run.id)


def _call_all(calls: Sequence[Callable[[], None]]) -> None:
    for call in calls:
        call()
