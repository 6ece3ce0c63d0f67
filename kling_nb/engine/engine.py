"""The engine: it carries runs from intent to clip, and hands out their handles.

Invariants: one handle and at most one driver per run in this process; a run is driven only under its
lease, and followed through the ledger otherwise; the end of a driver never ends a run; only `handle`, that
is a call of the user's own, sends what was not sent yet; closing waits for an answer that is on its way.
"""

import asyncio
import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from kling_nb.engine.clips.fetch import fetch_again
from kling_nb.engine.clips.refetch import look_again, refetch
from kling_nb.engine.clips.uploads import Uploads
from kling_nb.engine.detach import halted
from kling_nb.engine.driver import Driver
from kling_nb.engine.job import Job
from kling_nb.engine.leases import Leases
from kling_nb.engine.limits import Clock, Limits
from kling_nb.engine.places import Places
from kling_nb.engine.polling.lookup import Access, Accesses, Seen, ask_cancel, can_cancel, look
from kling_nb.engine.polling.poller import Poller
from kling_nb.engine.run import Run
from kling_nb.errors import KlingError, LedgerError, StoreError
from kling_nb.files import Checkpoint, no_checkpoint
from kling_nb.ledger.database import LeaseLostError, Ledger
from kling_nb.ledger.places import NoPlaceError
from kling_nb.ledger.work.detached import withdraw
from kling_nb.loop import Loop
from kling_nb.media.folder import Store
from kling_nb.media.names import relative_src
from kling_nb.records.money import Totals
from kling_nb.records.privacy import hidden
from kling_nb.records.run import MediaFacts, RunRecord, RunStatus, may_revive
from kling_nb.views.waits import Turn

if TYPE_CHECKING:
    from kling_nb.network.client import Transport

__all__ = ["Engine"]

_Leave = Callable[[], None] | None


class Engine:
    """What carries every run of this process.

    Args:
        loop: The background loop.
        ledger: Where runs and money are kept.
        access: Gives the adapter and the key for a run, or raises a `KlingError` that says why not.
        totals: Adds up the session's money.
        clock: Time and chance.
        limits: How long each step may take.
        max_in_flight: Runs at the provider at once, per account.
        sandbox_wait: The multiplier of the sandbox's waits, which those of ours on this machine follow.
        checkpoint: Called after each of `STEPS`; a crash test ends the process there.
    """

    def __init__(
        self,
        *,
        loop: Loop,
        ledger: Ledger,
        access: Callable[[RunRecord], Access],
        totals: Callable[[bool], Totals | None],
        clock: Clock | None = None,
        limits: Limits | None = None,
        max_in_flight: int = 4,
        sandbox_wait: float = 0.0,
        checkpoint: Checkpoint = no_checkpoint,
    ) -> None:
        self.loop, self.ledger, self._find, self._totals = loop, ledger, access, totals
        self.clock, self.limits = clock or Clock(), limits or Limits()
        self.max_in_flight, self.sandbox_wait, self.checkpoint = max_in_flight, sandbox_wait, checkpoint
        self.page_folder: Path | None = None
        self._runs: dict[str, Run] = {}
        self._closed = False
        self.uploads = Uploads(ledger, self.store, self.clock)
        self.renew()

    def renew(self) -> None:
        """Begin again, to claim runs under a name that no other engine has: a forked child is another one."""
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._leases = Leases(self.ledger, self.owner, self.limits, self.store)
        self._drivers: dict[str, Driver] = {}
        self._to_send: set[str] = set()  # what somebody wants sent, from then on until one carries it
        self._stores: dict[str, Store] = {}
        self._poller: Poller | None = None
        self._places = Places(self, self._leases)
        self._accesses = Accesses(self._find)
        self._lock = threading.Lock()
        vars(self).pop("_transport", None)

    @cached_property
    def _transport(self) -> "Transport":
        """The network, loaded at its first use: who only looks into the ledger needs none."""
        from kling_nb.network.client import Transport

        return Transport()

    # -- handles -----------------------------------------------------------
    def handle(self, record: RunRecord, *, reused: bool = False, sweep: str = "") -> Run:
        """Give the handle of a run; a pending one is driven from now on.

        Args:
            record: Its committed state.
            reused: Whether nothing was sent for this call.
            sweep: The sweep that it is sent for, if it is.
        """
        if record.status.ended:
            # Each call has its own handle of what is over: one may be new and another reused.
            return Run(record, self, reused=reused)
        run = self.peek(record)
        # The handle is shared with the cell that sent it, which must not read "reused" afterwards.
        run.reused = reused and not (run.name or run.sent_here)
        run.sent_here = run.sent_here or not reused
        run.sweep = run.sweep or sweep
        run.stop(None)
        _ = self._transport
        self.loop.call(self._places.begin, run)
        return run

    def fetch(self, record: RunRecord) -> Run:
        """Give the handle of a finished run whose file is not here; it is fetched into its folder."""
        run = Run(record, self, reused=True)
        run.fetching, run.note = True, "Its file is not here: it is fetched again, for free."
        run.stop(None)
        self.attend(run)
        return run

    def peek(self, record: RunRecord) -> Run:
        """Give the handle of a run without driving it."""
        with self._lock:
            run = self._runs.get(record.id)
            if run is None or (run.record.status.ended and run.record != record):
                run = self._runs[record.id] = Run(record, self)
        if record.id not in self._drivers and run.record != record:
            # Another process drives it: what the caller has just read is newer than what we were told.
            run.publish(record)
        return run

    def forget(self, run_id: str) -> None:
        """Drop the handle of an ended run that nobody here asks for again."""
        self._runs.pop(run_id, None)

    def known(self) -> list[Run]:
        """Give every handle of this process, oldest first."""
        return list(self._runs.values())

    def resume(self, run: Run) -> Run:
        """Watch a run again, or look for the clip of one that failed; nothing new is ever sent for it."""
        run.stop(None)
        if may_revive(run.record):
            store = self.store(run.record.folder)
            self.loop.start(look_again(run, self._transport, self._accesses.find, store, self.uploads))
            return run
        if (job := self._job(run.id)) is not None:
            job.detach_wanted = False
        self.attend(run)
        return run

    def attend(self, run: Run) -> None:
        """See to it that a run somebody waits for is watched; nothing new is ever sent for it."""
        if not run.done:
            # Loaded on the caller's thread: a process that forks meanwhile would have one half.
            _ = self._transport
            self.loop.start(self.drive(run, may_send=False))

    def detach(self, run: Run) -> None:
        """Stop watching a run."""
        if (job := self._job(run.id)) is not None:
            job.detach_wanted = True
            self.loop.call(job.wake)
        else:
            self.loop.call(partial(self._places.call_up, run, detach=True))

    def drives(self, run_id: str) -> bool:
        """Whether this process is carrying a run at this moment."""
        return run_id in self._drivers or run_id in self._places

    def _job(self, run_id: str) -> Job | None:
        return driver.job if (driver := self._drivers.get(run_id)) else None

    def look(self, access: Access, provider_run_id: str) -> Seen:
        """Look at a run at its provider, for free; see `lookup.look`."""
        return self.loop.start(look(self._transport, access, provider_run_id)).result()

    def fetch_again(self, access: Access, record: RunRecord) -> MediaFacts:
        """Fetch the clip of an ended run once more, for free; see `fetch.fetch_again`."""
        fetching = fetch_again(self._transport, access, record, self.store(record.folder))
        return self.loop.start(fetching).result()[0]

    def settled(self, record: RunRecord, handle: Run | None = None) -> Run:
        """Tell of a run whose fate a person settled, also by an old handle; watch it if it is on its way."""
        self._write_sidecar(record)
        with self._lock:
            known = self._runs.get(record.id)
            run = self._runs[record.id] = handle or known or Run(record, self)
        for each in {run, known or run}:
            each.publish(record)
        return self.resume(run) if record.status.pending else run

    # -- driving -----------------------------------------------------------
    def drive(
        self, run: Run, *, may_send: bool, detach: bool = False, leave_place: _Leave = None
    ) -> Coroutine[None, None, None]:
        """Carry a run until it ends, or until somebody wants it to be let go.

        Args:
            run: Its handle.
            may_send: Whether it may be sent if it was not yet.
            detach: Whether somebody wants it to be let go.
            leave_place: Gives up the place in flight that it was started with, if it was.
        """
        if may_send:
            # At once: any may come first, also one that only looks after the run.
            self._to_send.add(run.id)
        return self._drive(run, detach, leave_place)

    async def _drive(self, run: Run, detach: bool, leave_place: _Leave) -> None:  # noqa: FBT001 - passed on
        with contextlib.ExitStack() as place:
            if leave_place is not None:
                place.callback(leave_place)
            while (driver := self._drivers.get(run.id)) and (driver.ending or driver.run is not run):
                # Both claim under the same owner: what the old one gives back would be the new one's lease.
                await asyncio.wait([driver.task], timeout=0.1)
            may_send = run.id in self._to_send
            self._to_send.discard(run.id)
            if driver or run.id in self._places or (run.status.ended and not run.fetching):
                return
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - a coroutine of the loop always runs in a task
            driver = self._drivers[run.id] = Driver(run, task, place=place, has_place=leave_place is not None)
            try:
                if self._closed:
                    raise asyncio.CancelledError  # noqa: TRY301 - as if it had been closed a moment later
                await self._drive_once(driver, may_send=may_send, detach=detach)
            except NoPlaceError as error:
                if error.halted and not run.sent_here:
                    run.stop(halted(run.record, error))
                else:
                    self._places.park(run, elsewhere=error.elsewhere)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - any fault must end as words on the run, not vanish in a thread
                run.stop(halted(run.record, error))
            finally:
                del self._drivers[run.id]
                self.uploads.begin(run.record)

    async def _drive_once(self, driver: Driver, *, may_send: bool, detach: bool) -> None:
        run = driver.run
        if run.fetching and await self.uploads.bring(run):
            return
        access = await self._accesses.of(run.record)
        self._poller = self._poller or Poller(self.clock)
        job = driver.job = Job(
            run=run,
            provider=access.provider,
            key=access.key,
            account=access.account,
            owner=self.owner,
            ledger=self.ledger,
            store=self.store(run.record.folder),
            transport=self._transport,
            clock=self.clock,
            limits=self.limits,
            poller=self._poller,
            sandbox_wait=self.sandbox_wait,
            team=self.uploads.address,
            checkpoint=self.checkpoint,
            may_send=may_send,
            detach_wanted=detach,
            take_place=partial(self._places.commit, run),
            leave_place=driver.place.close,
            slowed=partial(self._places.slowed, run),
        )
        if run.fetching:
            await refetch(job)
            return
        # Claimed when it was written down: the commit that sends it looks whether it still is.
        claimed = may_send and run.sent_here and run.status is RunStatus.CREATED and not run.cancel_wanted
        while claimed or await self._leases.claim(job, self._write_sidecar):
            claimed = False
            self._leases.keep(job)
            try:
                await driver.carry(job, self._places.take)
            except NoPlaceError as error:
                job.lease_left = not error.halted or run.sent_here
                raise
            except LeaseLostError:
                continue  # This machine slept, and another process took the run over: follow it.
            except KlingError as error:
                # Told before the lease is given back: a wish that comes meanwhile is the newer one.
                driver.ending = True
                run.stop(halted(run.record, error))
            finally:
                # Also when canceled: a lease that is kept makes other processes wait until it runs out.
                driver.ending = driver.ending or run.status.ended
                await self._leases.give_back(run.id, released=not job.lease_left)
            break

    def _write_sidecar(self, record: RunRecord) -> None:
        with contextlib.suppress(StoreError):
            self.store(record.folder).write_sidecar(record)

    can_cancel = staticmethod(can_cancel)

    def cancel(self, run: Run) -> Future[str]:
        """Ask for a cancel; see `Run.cancel`."""
        _ = self._transport
        return self.loop.start(self._cancel(run))

    async def _cancel(self, run: Run) -> str:
        run.cancel_wanted = True
        try:
            if run.record.provider_run_id is None and await asyncio.to_thread(self._withdraw, run):
                return "canceled"
            await self._await_id(run)
            if run.status.ended:
                return "canceled" if run.status == RunStatus.CANCELED else "not_cancellable"
            if run.record.provider_run_id is None:
                run.note = "It was not accepted yet, so nobody can cancel it; try again."
                return "unknown"
            return await self._ask_cancel(run)
        except KlingError as error:
            run.note = f"The cancel could not be sent: {hidden(run.record, error.what)}"
            return "unknown"
        finally:
            run.cancel_wanted = False
            run.publish(run.record)

    def _withdraw(self, run: Run) -> bool:
        with self.ledger.writing() as transaction:
            ended = withdraw(transaction, run.id)
        return any(self.settled(record, run).done for record in ended)

    async def _await_id(self, run: Run) -> None:
        """Wait a while for the provider's id, or for the end of a run that was not sent."""
        for _ in range(600):
            if run.status.ended or run.record.provider_run_id is not None:
                break
            if job := self._job(run.id):
                job.wake()
            elif run.id in self._places:
                self._places.call_up(run)
            elif run.status == RunStatus.CREATED and not run.done:
                # Nobody here drives it; being looked after, it ends without being sent.
                self.attend(run)
            await asyncio.sleep(0.05)

    async def _ask_cancel(self, run: Run) -> str:
        outcome = await ask_cancel(self._transport, await self._accesses.of(run.record), run)
        if (driver := self._drivers.get(run.id)) and driver.job and not driver.ending:
            driver.job.wake()
        else:
            self.resume(run)
        return outcome

    def close(self, grace_s: float = 10) -> None:
        """Stop driving and close the connections; runs on their way stay on record and can be resumed.

        Args:
            grace_s: Seconds for answers to submits that are on their way: an id that comes then is kept.

        Raises:
            TimeoutError: The loop does not answer.
        """
        if self.loop.running:
            self.loop.start(self._close(grace_s)).result(2 * grace_s + 10)

    async def _close(self, grace_s: float) -> None:
        for _ in range(round(grace_s / 0.02)):
            if not any(driver.submitting for driver in self._drivers.values()):
                break
            await asyncio.sleep(0.02)
        self._closed = True
        # A driver that is ending only gives its lease back: cut short, it might keep it.
        if ending := [driver.task for driver in self._drivers.values() if driver.ending]:
            await asyncio.wait(ending, timeout=5)
        await self._places.close()
        tasks = [driver.task for driver in self._drivers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.uploads.close(grace_s)
        if self._poller is not None:
            self._poller.close()
        if "_transport" in vars(self):
            await self._transport.aclose()

    # -- what the handles show -------------------------------------------------
    def turn(self, run_id: str) -> Turn | None:
        """Give when a run that waits for a place comes to be sent; None where it does not wait."""
        return self._places.turn(run_id)

    def totals(self, *, play: bool) -> Totals | None:
        """Give the session's money, or None while the ledger cannot be read."""
        with contextlib.suppress(LedgerError):
            return self._totals(play)
        return None

    def store(self, folder: str | Path) -> Store:
        """Give the store of a media folder."""
        with self._lock:
            return self._stores.get(n := str(folder)) or self._stores.setdefault(n, Store(Path(folder)))

    def shown_clip(self, record: RunRecord) -> tuple[str | None, str | None]:
        """Give a clip's address relative to the notebook, and its poster as a data URI."""
        store = self.store(record.folder)
        if record.media is None or not record.folder or (path := store.path(record)) is None:
            return None, None
        return relative_src(path, self.page_folder or path.parent.parent), store.poster(record)
