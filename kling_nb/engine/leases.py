"""Which runs this process drives: claimed, kept by one heartbeat for all of them, and given back.

Invariants: a lease is kept as long as its run is driven, and no longer; a heartbeat never takes a run.
"""

import asyncio
import contextlib
from collections.abc import Sequence

from kling_nb.engine.job import Job, Limits
from kling_nb.errors import LedgerError
from kling_nb.ledger.database import Ledger
from kling_nb.ledger.transaction import Transaction
from kling_nb.records.run import RunRecord

__all__ = ["Leases"]


class Leases:
    """The leases of one engine.

    Args:
        ledger: Where they are written down.
        owner: The name under which runs are claimed.
        limits: How long a lease lasts.
    """

    def __init__(self, ledger: Ledger, owner: str, limits: Limits) -> None:
        self._ledger, self._owner, self._limits = ledger, owner, limits
        self._held: dict[str, Job] = {}
        self._beating: asyncio.Future[None] | None = None

    async def take(self, run_id: str, *, unmoved: str | None = None) -> tuple[str | None, RunRecord | None]:
        """Claim a run; see `Ledger.claim`.

        Returns:
            None, or the lease of whoever has it (empty where nobody does), and the run as it is then.
        """

        def claim(transaction: Transaction) -> tuple[str | None, RunRecord | None]:
            mine = transaction.claim(run_id, self._owner, self._limits.lease_s, unmoved=unmoved)
            return None if mine else transaction.lease(run_id) or "", transaction.get(run_id)

        return await self._ledger.writer.ask(claim, synced=False)

    def keep(self, job: Job) -> None:
        """Keep the lease of a run that was claimed, until it is given back."""
        self._held[job.record.id] = job
        if self._beating is None or self._beating.done():
            self._beating = asyncio.ensure_future(self._beat())

    async def give_back(self, run_id: str) -> None:
        """Let others drive a run."""
        del self._held[run_id]
        if self._beating and not self._held:
            self._beating.cancel()
        with contextlib.suppress(LedgerError):
            await self._ledger.writer.ask(
                lambda transaction: transaction.release(run_id, self._owner), synced=False
            )

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._limits.lease_s / 3)
            with contextlib.suppress(LedgerError):
                await self._ledger.writer.ask(self._renew, synced=False)
            # Of runs that are not sent yet, it is shown in their folders too.
            await asyncio.to_thread(_keep_claims, list(self._held.values()))

    def _renew(self, transaction: Transaction) -> None:
        transaction.renew(list(self._held), self._owner, self._limits.lease_s)


def _keep_claims(jobs: Sequence[Job]) -> None:
    for job in jobs:
        job.keep_claim()
