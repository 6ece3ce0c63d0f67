"""What every step of one run's life shares: the run, its provider, and the doors.

Invariants: a state is published only after it is committed; a provider is only asked with the key of the
account the run belongs to; nothing here decides what a reply means.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from kling_nb.addresses import is_loopback
from kling_nb.engine.limits import Clock, Limits
from kling_nb.engine.polling.lookup import MOST_FOLLOWED
from kling_nb.engine.polling.poller import Poller
from kling_nb.engine.polling.schedule import LOOPBACK_SCALE, back_off
from kling_nb.engine.run import Run
from kling_nb.errors import LedgerError, StoreError
from kling_nb.files import Checkpoint, no_checkpoint
from kling_nb.ledger.database import LeaseLostError, Ledger
from kling_nb.ledger.places import leave
from kling_nb.ledger.transaction import Transaction
from kling_nb.ledger.work.uploads import note_upload
from kling_nb.media.folder import Store
from kling_nb.providers.base import Provider, Snapshot
from kling_nb.providers.messages import Call, Reply
from kling_nb.records.base import utc_now
from kling_nb.records.privacy import redact_changes, restore_prompt
from kling_nb.records.run import RunRecord, RunStatus, changed, is_reading

if TYPE_CHECKING:
    from kling_nb.network.client import Transport

__all__ = ["STEPS", "HeldIdError", "Job"]

#: What `checkpoint` is called with, in the order of a run's life: each is between two durable facts, and a
#: process may be killed there. `keep: ...` are the steps of `Store.keep`. Ends other than `saved` have the
#: same two steps, the folder first.
STEPS = (
    "intent in the ledger",
    "intent in the folder",
    "submitting in the ledger",
    "answer read",
    "accepted in the ledger",
    "accepted in the folder",
    "end read",
    "end in the ledger",
    "part made",
    "part whole",
    "keep: measured",
    "keep: synced",
    "keep: named",
    "keep: folder synced",
    "keep: done",
    "clip kept",
    "saved in the folder",
    "saved in the ledger",
    "resent in the ledger",
)


def _nothing(_transaction: Transaction) -> None:
    """Do nothing more in a transaction."""


class HeldIdError(Exception):
    """Another run has the id that a provider gave this one; nothing was written down.

    Args:
        run_id: Our id of that run.
    """

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id


@dataclass(kw_only=True)
class Job:
    """One run being driven.

    Args:
        run: Its handle.
        provider: The adapter, at its configured address.
        key: The key, or None for a provider that needs none.
        account: The key's fingerprint.
        owner: The name under which this process drives it.
        ledger: Where its state is committed.
        store: Where its clip goes.
        transport: The network.
        clock: Time and chance.
        limits: How long each step may take.
        may_send: Whether the run may be sent if it was not yet; looking after what is there may not.
        checkpoint: Called after each of `STEPS`.
        poller: When what waits goes on, and which run is read when.
        sandbox_wait: The multiplier of the sandbox's waits.
        team: The address of the team's store, if there is one.
        turn: What it waits for at this moment, if it may be woken.
        woken: Whether somebody has a wish that it has not looked at yet.
        detach_wanted: Whether somebody wants the watching to end.
        resting: Whether nothing is on its way to the provider just now.
        follows: Whether a kernel with another ledger is to send it: then its claim is not kept alive here.
        lease_left: Whether its lease is not given back: it went with its end, or is kept for a place.
        going: The last answer that called it on its way, and what it was read as.
        take_place: Takes a place in flight, in the transaction that commits the sending.
        leave_place: Gives up its place among the runs in flight; may be called again.
        slowed: Called when the provider refused it for its rate.
    """

    run: Run
    provider: Provider
    key: SecretStr | None
    account: str
    owner: str
    ledger: Ledger
    store: Store
    transport: "Transport"
    clock: Clock
    limits: Limits
    checkpoint: Checkpoint = no_checkpoint
    poller: Poller
    sandbox_wait: float = 0.0
    team: str = ""
    turn: asyncio.Future[Any] | None = None
    woken: bool = False
    may_send: bool = True
    detach_wanted: bool = False
    resting: bool = False
    follows: bool = False
    lease_left: bool = False
    going: tuple[bytes, Snapshot] | None = None
    take_place: Callable[[Transaction], None] = _nothing
    leave_place: Callable[[], None] = field(default=lambda: None)
    slowed: Callable[[], None] = field(default=lambda: None)

    @property
    def record(self) -> RunRecord:
        """The last committed state."""
        return self.run.record

    def at(self, *statuses: RunStatus) -> bool:
        """Whether the run is in one of these states now."""
        return self.record.status in statuses

    @cached_property
    def loopback(self) -> bool:
        """Whether the provider is a server on this machine."""
        return is_loopback(self.provider.base_url)

    def wait_s(self, seconds: float) -> float:
        """Give how long we wait here where it is so many seconds at a real provider."""
        return max(seconds * LOOPBACK_SCALE * self.sandbox_wait, 0.05) if self.loopback else seconds

    @property
    def same_account(self) -> bool:
        """Whether we ask with the key that made the run, as far as the record can tell."""
        return not self.record.account or self.account == self.record.account

    @property
    def look_again_s(self) -> float:
        """Seconds between two reads that prove an absence; a server on this machine forgets nothing."""
        return min(self.limits.look_again_s, 1.0) if self.loopback else self.limits.look_again_s

    @property
    def denied_s(self) -> float:
        """Seconds of denials until they are believed."""
        return min(self.limits.denied_s, 4.0) if self.loopback else self.limits.denied_s

    async def send(self, call: Call) -> Reply:
        """Send one call with this run's key."""
        return await self.transport.send(call, key=self.key, origin=self.provider.base_url)

    async def change(
        self,
        kind: str,
        /,
        *,
        at: RunStatus | None = None,
        first: Callable[[Transaction], None] = _nothing,
        **changes: Any,
    ) -> RunRecord:
        """Commit a change and tell the handle; unchanged states are not written again.

        Args:
            kind: The name of the event.
            at: The state the ledger must have it in; it is given before anything is sent.
            first: What is done before it, in the same transaction.
            **changes: Fields of the record.

        Raises:
            LeaseLostError: Another process drives the run by now.
        """
        before = self.record
        changes = redact_changes(before, changes)
        if at is None and all(getattr(before, name) == value for name, value in changes.items()):
            return before

        tried = False

        def commit(transaction: Transaction) -> RunRecord:
            nonlocal tried
            # A server that went away may have done it before its answer was lost.
            if tried and (done := transaction.changed_so(self.owner, before.id, changes)):
                return done
            tried = True
            first(transaction)
            return transaction.change_as(self.owner, before.id, kind, changes, at=at)

        record = await self._insist(commit, synced=at is not None or not is_reading(before, changes))
        self.run.publish(record)
        return record

    async def settle(self, kind: str, /, *, answered: bool = False, **changes: Any) -> RunRecord:
        """Commit a change that must not get lost, in the ledger and in the folder, then tell the handle.

        An end is written to the folder first, so that whoever sees it also finds it there; anything else
        first to the ledger, which decides. A folder that cannot be written never holds up the ledger.
        With `answered` it is what the provider answered to the submit, which corrects a verdict of `lost`.

        Raises:
            HeldIdError: Another run has the id that this one was given.
        """
        changes = redact_changes(self.record, changes)
        copy = changed(self.record, changes)
        ended = copy.status.ended
        # Somebody who slept may have written down the provider's id since: then it is no end.
        at = self.record.status if ended else None
        if ended:
            copy = await asyncio.to_thread(self._write_end, copy)
            changes["earlier"] = copy.earlier
            self.checkpoint(f"{kind} in the folder")
        try:
            # The folder may still be writable where the ledger is not, and is enough to find the run again.
            record = await self._insist(
                lambda transaction: self._commit(transaction, kind, at, changes, answered=answered),
                None if ended else copy,
            )
        except LedgerError as error:
            error.provider_run_id = copy.provider_run_id
            raise
        self.lease_left = ended
        self.checkpoint(f"{kind} in the ledger")
        if not ended:
            await self._write_sidecar(record)
            self.checkpoint(f"{kind} in the folder")
        elif record.private and not copy.private:
            # Made private meanwhile by another process.
            await self._write_sidecar(record)
        self.run.publish(record)
        return record

    async def lose(self, why: str) -> None:
        """End a run of which nobody can find out whether it was made."""
        await self.settle(
            "lost", status=RunStatus.LOST, charged="unknown", message=why, finished_at=utc_now()
        )

    def _write_end(self, copy: RunRecord) -> RunRecord:
        """Write an end to the folder, with what became of the attempts before, as far as that can be read."""
        with contextlib.suppress(LedgerError):
            earlier = self.ledger.read(lambda transaction: transaction.earlier(copy))
            copy = copy.model_copy(update={"earlier": earlier})
        with contextlib.suppress(StoreError):
            self.store.write_sidecar(copy)
        return copy

    def _commit(
        self,
        transaction: Transaction,
        kind: str,
        at: RunStatus | None,
        changes: dict[str, Any],
        *,
        answered: bool,
    ) -> RunRecord | None:
        run_id = self.record.id
        if self.team and changes.get("status") is RunStatus.SUCCEEDED:
            note_upload(transaction, run_id, self.team)
        if "provider_run_id" in changes:
            others = {name: value for name, value in changes.items() if name != "provider_run_id"}
            found = changes["provider_run_id"]
            # That run's clip would be shown for this one.
            if self.at(RunStatus.SUBMITTING) and (other := transaction.other_with(found, self.record)):
                raise HeldIdError(other)
            return transaction.accept(self.owner, run_id, kind, others, provider_run_id=found)
        record = transaction.change_as(self.owner, run_id, kind, changes, at=at, answered=answered)
        if record.status.ended:
            transaction.release(run_id, self.owner)
        return record

    async def _insist(
        self,
        commit: Callable[[Transaction], RunRecord | None],
        copy: RunRecord | None = None,
        *,
        synced: bool = True,
    ) -> RunRecord:
        """Commit, and try again for a while where the ledger cannot be written; `copy` goes to the folder."""
        tries = 0
        while True:
            try:
                record = await self.ledger.writer.ask(commit, synced=synced)
            except LeaseLostError:
                raise
            except LedgerError:
                tries += 1
                if tries == 1 and copy is not None:
                    await self._write_sidecar(copy)
                if tries >= self.limits.ledger_tries:
                    raise
                await self.clock.sleep(back_off(tries, random=self.clock.random, first_s=0.2, most_s=30))
            else:
                if record is None:
                    raise LeaseLostError(
                        f"Another process carries run {self.record.id} by now.", run_id=self.record.id
                    )
                return restore_prompt(record, self.record.request)

    async def _write_sidecar(self, record: RunRecord) -> None:
        with contextlib.suppress(StoreError):
            await asyncio.to_thread(self.store.write_sidecar, record)

    async def commit_to_send(self, kind: str, /, *, at: RunStatus, **changes: Any) -> bool:
        """Commit that the run is being sent, so that the POST may leave on return.

        False where a kernel with another ledger has the run's place in the folder; then nothing is committed.

        Should the process be stopped or the machine sleep in between, the lease may have run out, and another
        process may have sent it: so what took long is committed again, which only the holder can.

        Raises:
            NoPlaceError: The account has no place in flight; nothing was committed.
        """
        while True:
            since = self.clock.monotonic(), self.clock.wall()
            if not self.record.play and not await asyncio.to_thread(self._claimed):
                return False
            first = self.take_place if at is RunStatus.CREATED else _nothing
            await self.change(kind, at=at, first=first, **changes)
            self.checkpoint(f"{kind} in the ledger")
            passed = max(self.clock.monotonic() - since[0], abs(self.clock.wall() - since[1]))
            if passed <= self.limits.lease_s / 3:
                return True
            at = self.record.status

    def _claimed(self) -> bool:
        """Write down in the folder that the run is being sent, if its place there is ours."""
        claims, key, run_id = self.store.claims, self.record.request_key, self.record.id
        if claims.keep(key, run_id, sending=True):
            return True
        if not claims.take(key, run_id, self.owner):
            claim = claims.seen(key)
            # Of two runs of this ledger it is the ledger that decides.
            return claim is not None and self.ledger.get(claim.run_id) is not None
        # It never had one, or was taken for dead: what another ledger sent meanwhile has its receipt here.
        over = {RunStatus.FAILED, RunStatus.CANCELED}
        for kept in self.store.sidecars(request_keys=[key]):
            if (
                kept.run_key == self.record.run_key
                and kept.status not in over
                and not self.ledger.get(kept.id)
            ):
                claims.drop(key, run_id)
                return False
        return claims.keep(key, run_id, sending=True)

    async def give_place(self) -> None:
        """Let others have its place in flight, though it goes on."""
        self.leave_place()
        with contextlib.suppress(LedgerError):
            await self.ledger.writer.ask(lambda transaction: leave(transaction, self.record.id), synced=False)

    def keep_claim(self) -> None:
        """Show in the folder that the run is about to be sent, until it is."""
        if self.at(RunStatus.CREATED, RunStatus.SUBMITTING) and not self.follows:
            with contextlib.suppress(StoreError):
                self.store.claims.keep(self.record.request_key, self.record.id)

    async def read(self) -> Snapshot:
        """Read the run at the provider, following to the reply that decides."""
        run_id = self.record.provider_run_id or ""
        reply = await self.send(self.provider.poll_call(run_id))
        if self.going is not None and reply.ok and reply.body == self.going[0]:
            # Most answers say what the one before said.
            return self.going[1]
        snapshot = self.provider.read_poll(reply, run_id)
        going = reply.ok and snapshot.follow is None and snapshot.going
        self.going = (reply.body, snapshot) if going else None
        for _ in range(MOST_FOLLOWED):
            if snapshot.follow is None:
                break
            snapshot = self.provider.read_poll(await self.send(snapshot.follow), run_id, snapshot)
        return snapshot

    async def sleep(self, seconds: float) -> None:
        """Wait; nothing is on its way meanwhile."""
        self.resting = True
        try:
            await self.clock.sleep(seconds)
        finally:
            self.resting = False

    async def pause(self, seconds: float) -> None:
        """Wait, but wake at once when somebody has a wish."""
        await self.poller.rest(self, seconds)

    def wake(self) -> None:
        """Tell it of a wish; on the loop."""
        self.woken = True
        if self.turn is not None and not self.turn.done():
            self.turn.set_result(None)
