"""The engine: it carries runs from intent to clip, and hands out their handles.

Invariants: one handle and at most one driver per run in this process; a run is driven only under its
lease, and followed through the ledger otherwise; the end of a driver never ends a run.
"""

import asyncio
import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from kling_nb.engine.job import Clock, Job, Limits
from kling_nb.engine.run import Run
from kling_nb.engine.save import save
from kling_nb.engine.submit import recover, submit
from kling_nb.engine.watch import watch
from kling_nb.errors import KlingError, LedgerError, TransportError
from kling_nb.ledger import Ledger
from kling_nb.loop import Loop
from kling_nb.providers.base import Provider
from kling_nb.records import RunRecord, RunStatus, Totals
from kling_nb.store import Store, relative_src
from kling_nb.transport import Transport

__all__ = ["Engine", "Reach"]


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What it takes to ask about a run.

    Args:
        provider: The adapter, at its configured address.
        key: The key, or None for a provider that needs none.
        account: The key's fingerprint, as in `RunRecord.account`.
    """

    provider: Provider
    key: SecretStr | None = None
    account: str = ""


class Engine:
    """What carries every run of this process.

    Args:
        loop: The background loop.
        ledger: Where runs and money are kept.
        reach: Gives the adapter and the key for a run, or raises a `KlingError` that says why not.
        totals: Adds up the session's money.
        clock: Time and chance.
        limits: How long each step may take.
        max_in_flight: Runs at the provider at once, per account.

    Example:
        >>> Engine.__name__
        'Engine'
    """

    def __init__(
        self,
        *,
        loop: Loop,
        ledger: Ledger,
        reach: Callable[[RunRecord], Reach],
        totals: Callable[[bool], Totals | None],
        clock: Clock | None = None,
        limits: Limits | None = None,
        max_in_flight: int = 4,
    ) -> None:
        self.loop = loop
        self.ledger = ledger
        self.clock = clock or Clock()
        self.limits = limits or Limits()
        self.max_in_flight = max_in_flight
        self.page_folder: Path | None = None
        self._reach = reach
        self._totals = totals
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._transport = Transport()
        self._runs: dict[str, Run] = {}
        self._jobs: dict[str, Job] = {}
        self._driven: set[str] = set()
        self._stores: dict[str, Store] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._posters: dict[str, str | None] = {}
        self._lock = threading.Lock()

    # -- handles -----------------------------------------------------------
    def handle(self, record: RunRecord, *, reused: bool = False) -> Run:
        """Give the handle of a run; a pending one is driven from now on.

        Args:
            record: Its committed state.
            reused: Whether nothing was sent for this call.

        Returns:
            The handle.
        """
        if record.status.ended:
            # Each call has its own handle of what is over: one may be new and another reused.
            return Run(record, self, reused=reused)
        run = self.peek(record)
        run.reused = reused
        if not run.detached:
            self.loop.hand(self._drive(run))
        return run

    def peek(self, record: RunRecord) -> Run:
        """Give the handle of a run without driving it."""
        with self._lock:
            run = self._runs.get(record.id)
            if run is None or (run.record.status.ended and run.record != record):
                run = self._runs[record.id] = Run(record, self)
        if record.id not in self._driven and run.record != record:
            # Another process drives it: what the caller has just read is newer than what we were told.
            run.publish(record)
        return run

    def known(self) -> list[Run]:
        """Give every handle of this process, oldest first."""
        with self._lock:
            return list(self._runs.values())

    def resume(self, run: Run) -> Run:
        """Take up the watching of a run again; nothing new is ever sent for it."""
        run.stop(None)
        if run.status.pending:
            self.loop.hand(self._drive(run))
        return run

    def detach(self, run: Run) -> None:
        """Stop watching a run."""
        job = self._jobs.get(run.id)
        if job is not None:
            job.detach_wanted = True
            self.loop.hand(_wake(job))

    # -- driving -----------------------------------------------------------
    async def _drive(self, run: Run) -> None:
        if run.id in self._driven:
            return
        self._driven.add(run.id)
        try:
            await self._drive_once(run)
        finally:
            self._driven.discard(run.id)

    async def _drive_once(self, run: Run) -> None:
        try:
            reach = await asyncio.to_thread(self._reach, run.record)
        except KlingError as error:
            run.stop(error)
            return
        job = self._jobs[run.id] = Job(
            run=run,
            provider=reach.provider,
            key=reach.key,
            account=reach.account,
            ledger=self.ledger,
            store=self.store(run.record.folder),
            transport=self._transport,
            clock=self.clock,
            limits=self.limits,
        )
        try:
            while not await asyncio.to_thread(self.ledger.claim, run.id, self._owner, self.limits.lease_s):
                # Another process drives it: follow what it commits, and take over when its lease runs out.
                await job.pause(1.0)
                record = await asyncio.to_thread(self.ledger.get, run.id)
                if record is not None and record != run.record:
                    run.publish(record)
                if run.status.ended or job.detach_wanted:
                    return
            fresh = await asyncio.to_thread(self.ledger.get, run.id)
            if fresh is not None and fresh != run.record:
                run.publish(fresh)
            beating = asyncio.ensure_future(self._beat(run.id))
            try:
                await self._carry(job)
            finally:
                beating.cancel()
                with contextlib.suppress(LedgerError):
                    await asyncio.to_thread(self.ledger.release, run.id, self._owner)
        except KlingError as error:
            run.stop(error)
        except Exception as error:  # noqa: BLE001 - a fault of ours must end as words on the run, not vanish in a thread
            run.stop(
                KlingError(
                    f"kling_nb failed while it carried run {run.id}: {type(error).__name__}.",
                    charged=run.record.charged,
                    cure=f"The run is on record: `%kling resume {run.id}` goes on.",
                    run_id=run.id,
                )
            )
        finally:
            self._jobs.pop(run.id, None)

    async def _beat(self, run_id: str) -> None:
        while True:
            await asyncio.sleep(self.limits.lease_s / 3)
            with contextlib.suppress(LedgerError):
                await asyncio.to_thread(self.ledger.claim, run_id, self._owner, self.limits.lease_s)

    async def _carry(self, job: Job) -> None:
        snapshot = None
        if job.at(RunStatus.CREATED, RunStatus.SUBMITTING):
            async with self._slot(job.record.account):
                if job.at(RunStatus.SUBMITTING):
                    # Another process was killed between the intent and the answer.
                    await recover(job, "the process that sent it ended before the answer came")
                else:
                    await submit(job)
                if job.at(RunStatus.QUEUED, RunStatus.RUNNING):
                    snapshot = await watch(job)
        elif job.at(RunStatus.QUEUED, RunStatus.RUNNING):
            snapshot = await watch(job)
        if job.at(RunStatus.SAVING):
            await save(job, snapshot)

    def _slot(self, account: str) -> asyncio.Semaphore:
        return self._slots.setdefault(account, asyncio.Semaphore(self.max_in_flight))

    # -- cancel --------------------------------------------------------------
    def can_cancel(self, record: RunRecord) -> bool:
        """Whether a cancel can still have an effect."""
        if record.status == RunStatus.CREATED:
            return True
        if record.status.ended:
            return False
        try:
            provider = self._reach(record).provider
        except KlingError:
            return False
        if record.status == RunStatus.SUBMITTING:
            return provider.can_cancel(RunStatus.QUEUED.value)
        return provider.can_cancel(record.status.value)

    def cancel(self, run: Run) -> Future[str]:
        """Ask for a cancel; see `Run.cancel`."""
        return self.loop.hand(self._cancel(run))

    async def _cancel(self, run: Run) -> str:
        run.cancel_wanted = True
        try:
            for _ in range(600):
                if run.status.ended or run.record.provider_run_id is not None:
                    break
                if job := self._jobs.get(run.id):
                    job.wake.set()
                await asyncio.sleep(0.05)
            if run.status.ended:
                return "canceled" if run.status == RunStatus.CANCELED else "not_cancellable"
            reach = await asyncio.to_thread(self._reach, run.record)
            provider = reach.provider
            call = provider.cancel_call(run.record.provider_run_id or "")
            if call is None or not provider.can_cancel(run.status.value):
                run.note = f"{provider.label} cannot cancel it now; it goes on and may be charged."
                run.publish(run.record)
                return "not_cancellable"
            outcome = provider.read_cancel(
                await self._transport.send(call, key=reach.key, origin=provider.base_url)
            )
            if outcome == "not_cancellable":
                run.note = f"{provider.label} says it is too late to cancel; it goes on and may be charged."
            elif outcome == "unknown":
                run.note = f"{provider.label} did not say whether the cancel took effect."
            run.publish(run.record)
            if job := self._jobs.get(run.id):
                job.wake.set()
            else:
                self.resume(run)
            return str(outcome)
        except TransportError as error:
            run.note = f"The cancel could not be sent: {error.what}"
            run.publish(run.record)
            return "unknown"
        finally:
            run.cancel_wanted = False

    def close(self) -> None:
        """Close the connections; runs on their way stay on record and can be resumed."""
        if self.loop.running:
            self.loop.hand(self._transport.aclose()).result(5)

    # -- what the handles show -------------------------------------------------
    def totals(self, *, play: bool) -> Totals | None:
        """Give the session's money, or None while the ledger cannot be read."""
        try:
            return self._totals(play)
        except LedgerError:
            return None

    def store(self, folder: str | Path) -> Store:
        """Give the store of a media folder."""
        with self._lock:
            return self._stores.setdefault(str(folder), Store(Path(folder)))

    def shown_clip(self, record: RunRecord) -> tuple[str | None, str | None]:
        """Give a clip's address relative to the notebook, and its poster as a data URI."""
        if record.media is None or not record.folder:
            return None, None
        store = self.store(record.folder)
        path = store.path(record)
        if path is None:
            return None, None
        if record.media.sha256 not in self._posters:
            self._posters[record.media.sha256] = store.poster(record)
        return relative_src(path, self.page_folder or path.parent.parent), self._posters[record.media.sha256]


async def _wake(job: Job) -> None:
    job.wake.set()
