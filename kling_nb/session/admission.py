"""What one call does against ledger and folder: decide, reserve and insert, then hand over; see `opening.py`.

Invariants: nothing is inserted unless every take of the call may be; a record that only a folder knows never
brings money with it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from pathlib import Path
from typing import Any

from kling_nb.addresses import is_loopback
from kling_nb.engine.engine import Engine
from kling_nb.engine.polling.lookup import Access
from kling_nb.engine.reuse import ReusePolicy
from kling_nb.engine.run import Run
from kling_nb.errors import KlingError, StoreError
from kling_nb.ledger.database import Ledger
from kling_nb.ledger.transaction import Transaction
from kling_nb.ledger.work.detached import detach
from kling_nb.ledger.work.uploads import note_upload
from kling_nb.media.folder import Store
from kling_nb.media.names import file_stem
from kling_nb.media.sidecars import Sidecars
from kling_nb.pricing.catalog import Model
from kling_nb.pricing.estimate import doubt_of, require_priced
from kling_nb.records.base import utc_now
from kling_nb.records.money import Estimate
from kling_nb.records.privacy import NOW_PRIVATE, STILL_PUBLIC, is_redacted, restore_prompt
from kling_nb.records.provenance import Commit
from kling_nb.records.run import RunRecord, RunStatus, unsent_end
from kling_nb.session.budget import Budget
from kling_nb.session.folder_runs import FROM_FOLDER, blocked_by_damage, from_folder, healed, unpaid
from kling_nb.session.plan import Ask, Take, new_id, new_record, plan_takes

__all__ = ["Admission"]

_EARLIER = (
    "It was asked for when IPython still took `>>> `, `... ` or `In [1]: ` out of a prompt; "
    "`--no-cache` buys it as it is written."
)
_LIVE = frozenset({*(status for status in RunStatus if status.pending), RunStatus.LOST})


@dataclass(frozen=True, kw_only=True)
class Admission:
    """What one call needs to be opened.

    Args:
        ask: The call.
        model: The model.
        provider: Where new runs go.
        price: Of one new run.
        policy: What the call allows.
        budget: What may be spent.
        ledger: The ledger.
        engine: What carries the runs.
        store: The media folder.
        shared: Fields that every new record gets.
        introduce: Says what a card should say of a provider's key.
        access: Gives what is needed to ask about a run, with the keys of this call, or raises.
        checkout: Says which version of the code is around the notebook; asked once, before new runs.
        output_runs: Reads what the saved notebook's own outputs tell of runs of some requests; reads it once.
        claimed: By request key, the ids of runs that this call has claimed in the folder.
        looking: Whether the team's store may be asked, which may take long.
        in_store: Whether it has the clip of a run, as it said, or why it did not say.
    """

    ask: Ask
    model: Model
    provider: str
    price: Estimate
    policy: ReusePolicy
    budget: Budget
    ledger: Ledger
    engine: Engine
    store: Store
    shared: Mapping[str, Any]
    introduce: Callable[[str], str]
    access: Callable[[RunRecord], Access]
    checkout: Callable[[], Commit | None] = lambda: None
    output_runs: Callable[[tuple[str, ...]], Sequence[RunRecord]] = lambda _keys: ()
    claimed: Mapping[str, str] = field(default_factory=dict)
    looking: bool = True
    in_store: dict[str, bool | StoreError] = field(default_factory=dict)

    @property
    def who(self) -> dict[str, str]:
        """Whom new runs are counted under."""
        return {name: self.shared[name] for name in ("session_id", "project", "user")}

    def request_keys(self) -> tuple[str, ...]:
        """Give every key whose runs may answer this call."""
        return tuple(key for take in self.ask.takes for key in self.ask.keys(self.model.id, take))

    def decide(self, known: Sequence[RunRecord], beside: Sidecars, *, keep: bool = False) -> tuple[Take, ...]:
        """Decide about every take.

        Args:
            known: The ledger's runs of these requests, oldest first.
            beside: The folder's.
            keep: Whether to write down beside the notebook what only its outputs tell.
        """
        known = [healed(record, beside, self._located, self.ledger) for record in known]
        takes = self._planned(known, beside)
        if all(take.word != "new" for take in takes):
            return takes
        # Folder and ledger may be elsewhere. Nothing is bought, or drawn, in place of what is on the page.
        ids = {record.id for record in (*known, *beside)}
        output_runs = [record for record in self.output_runs(self.request_keys()) if record.id not in ids]
        for record in output_runs if keep else ():
            # The cell's new output takes the place of the one that tells of it.
            with suppress(StoreError):
                self.store.write_sidecar(record)
        takes = self._planned(known, [*beside, *output_runs]) if output_runs else takes
        if self.policy.keyless or self.ask.no_cache:
            return takes
        return blocked_by_damage(takes, beside.damaged, ids | {record.id for record in output_runs})

    def _planned(self, known: Sequence[RunRecord], others: Sequence[RunRecord]) -> tuple[Take, ...]:
        ids = {record.id for record in known}
        # What the ledger itself has on its way comes before a stranger's run of the same key.
        live = {record.run_key for record in known if record.status in _LIVE}
        foreign_files = [
            from_folder(record)
            for record in self._worded(others)
            # A private one that is still redacted has the key of this request and the hash of another.
            if record.id not in ids
            and not (record.status in _LIVE and record.run_key in live)
            and not is_redacted(record)
        ]
        return plan_takes(
            self.ask,
            self.model.id,
            self.policy,
            [*self._worded(known), *foreign_files],
            loopback=is_loopback,
            verified=lambda record: self._located(record) is not None,
            fetchable=self._fetchable,
        )

    def _worded(self, records: Sequence[RunRecord]) -> list[RunRecord]:
        """Give private runs that were read from a receipt their words back: the call has them."""
        requests = (self.ask.request, *self.ask.earlier)
        return [reduce(restore_prompt, requests, record) for record in records]

    def _fetchable(self, record: RunRecord) -> bool:
        """Whether its provider can be asked for it, with the key that made it, or the team's store has it."""
        try:
            account = self.access(record).account
        except KlingError:
            account = None
        if account is not None and record.provider_run_id is not None and record.account in {"", account}:
            return True
        if self.looking and (team := self.engine.uploads.team) is not None:
            try:
                self.in_store[record.id] = team.has(record)
            except StoreError as error:
                self.in_store[record.id] = error
        there = self.in_store.get(record.id, False)
        if isinstance(there, StoreError):
            raise there
        return there

    def reachable(self, record: RunRecord) -> bool:
        """Whether its provider can be asked about it now, be it with another key."""
        try:
            self.access(record)
        except KlingError:
            return False
        return True

    def afford(
        self, transaction: Transaction, amounts: Sequence[int], now: datetime, *, ahead_micros: int = 0
    ) -> None:
        """Refuse new runs whose money is not there, if `ahead_micros` are reserved before them."""
        allowed = self.ask.allow_unpriced or self.ask.price is not None
        require_priced(self.price, allow_unpriced=allowed)
        self.budget.reserve(
            transaction,
            amounts,
            max_cost=self.ask.max_cost,
            no_cache=self.ask.no_cache,
            now=now,
            doubt=doubt_of(self.price),
            ahead_micros=ahead_micros,
        )

    def admit(
        self,
        transaction: Transaction,
        known: Sequence[RunRecord],
        beside: Sidecars,
        *,
        now: datetime | None = None,
    ) -> list[tuple[RunRecord, bool]]:
        """Decide, reserve and insert.

        Args:
            transaction: A write transaction.
            known: What it found of these requests.
            beside: What the folder has of them now.
            now: When it is asked for, on whose day (UTC) it counts; the present unless given.

        Returns:
            The record of each take, and whether it was there before.

        Raises:
            KlingError: The call is refused, and nothing of it was inserted.
        """
        # One instant for the check and for the records, or a run of midnight would escape both days' caps.
        now = now or utc_now()
        takes = self.decide(known, beside)
        for take in takes:
            if take.error is not None:
                raise take.error
            if (earlier := take.decision and take.decision.record) and _another(earlier, transaction):
                raise _same_id(earlier)
        # An intent that another kernel left unsent is sent by us, and counts as ours.
        left = {take.take: record for take in takes if (record := self._take_over(transaction, take, now))}
        new = sum(take.word == "new" for take in takes)
        if new or left:
            amounts = [self.price.reserve_micros] * new + [r.reserved_micros for r in left.values()]
            self.afford(transaction, amounts, now)
        asked_before = bool(known)
        return [
            self._open_take(transaction, take, left.get(take.take), now, asked_before=asked_before)
            for take in takes
        ]

    def left_unsent(self, transaction: Transaction, take: Take) -> RunRecord | None:
        """Give the intent of a take whose process is gone, if this call would send it, and pay for it."""
        record = take.decision.record if take.decision else None
        if (
            record is None
            or record.status != RunStatus.CREATED
            or record.play != self.budget.play
            # This kernel sends it, perhaps from before its session was named: there it goes on to count.
            # Of a session with a name it may be another kernel's: then it needs our consent and our caps.
            or transaction.owner(record.id) == self.engine.owner
            or not transaction.claimable(record.id, self.engine.owner)
        ):
            return None
        return record

    def _take_over(self, transaction: Transaction, take: Take, now: datetime) -> RunRecord | None:
        """Claim an unsent intent, and let go of its money, so that it is not counted twice."""
        record = self.left_unsent(transaction, take)
        if record is None or not transaction.claim(record.id, self.engine.owner, self.engine.limits.lease_s):
            return None
        transaction.write(record.model_copy(update={"reserved_micros": 0}), "left behind")
        return record.model_copy(update={**self.who, "created_at": now})

    @property
    def _first_lease(self) -> tuple[str, float] | None:
        """A lease from the beginning: nobody who looks after what is left behind takes a new run for that."""
        return None if self.ask.detached else (self.engine.owner, self.engine.limits.lease_s)

    def _leave_to_workers(self, transaction: Transaction, record: RunRecord) -> None:
        """Have workers send a run, if the call says so."""
        if self.ask.detached:
            transaction.release(record.id, self.engine.owner)
            detach(transaction, record, self.ask.of_sweep)

    def _open_take(
        self,
        transaction: Transaction,
        take: Take,
        left: RunRecord | None,
        now: datetime,
        *,
        asked_before: bool,
    ) -> tuple[RunRecord, bool]:
        decision = take.decision
        if decision is None or decision.record is None:
            record = new_record(
                self.ask,
                take,
                run_id=self.claimed.get(take.request_key) or new_id(),
                model=self.model.id,
                provider=self.provider,
                estimate=self.price,
                now=now,
                **self.shared,
            )
            if asked_before:
                record = record.model_copy(update={"earlier": transaction.earlier(record)})
            if self.ask.detached:
                record = record.model_copy(update={"message": "it waits for a worker (kling-nb worker)"})
            transaction.insert(record, lease=self._first_lease)
            self._leave_to_workers(transaction, record)
            return record, False
        record = left or decision.record
        if self.ask.private:
            record = record.model_copy(update={"private": True})
        held = transaction.get(record.id)
        if left is not None:
            transaction.write(record, "taken over", session_id=record.session_id)
            self._leave_to_workers(transaction, record)
        elif held is not None and (held.private, held.request) != (record.private, record.request):
            transaction.write(record, "private")
        if held is not None and held.status is not record.status is RunStatus.SUCCEEDED:
            # The clip is here after all; no figure of money changes.
            facts = {
                name: getattr(record, name) for name in ("status", "reason", "message", "media", "folder")
            }
            transaction.write(record, "healed", **facts)
            if address := self.engine.uploads.address:
                note_upload(transaction, record.id, address)
        if held is None and record.status.pending and self.reachable(record):
            # It keeps the session and the user it names: what it costs is theirs, and in no sum of ours.
            transaction.insert(unpaid(record), FROM_FOLDER)
        return record, True

    def write_first_sidecars(self, records: Sequence[RunRecord]) -> None:
        """Write the receipts of new runs, or end all of them unsent.

        Raises:
            StoreError: One cannot be written.
        """
        try:
            for record in records:
                # Not synced: the ledger has the intent, and the folder's claim is synced before the POST.
                self.store.write_sidecar(record, sync=False)
        except StoreError:
            if self.ask.detached:
                # A worker may have sent one by now, and writes its own.
                return
            # All or nothing: none of them may be sent, and each gives its money back.
            for record in records:
                self.store.claims.drop(record.request_key, record.id)
                self.ledger.change(
                    record.id,
                    "no sidecar",
                    **unsent_end(RunStatus.FAILED, "the media folder could not be written"),
                )
            raise

    def _located(self, record: RunRecord) -> RunRecord | None:
        """Find a whole copy of a clip: in this notebook's folder, else where its record says."""
        for folder in dict.fromkeys((str(self.store.folder), record.folder)):
            here = record.model_copy(update={"folder": folder})
            if folder and self.engine.store(folder).verify(here):
                return here
        return None

    def show(self, record: RunRecord, *, reused: bool) -> Run:
        """Give the handle of a run, its clip in this notebook's folder; a new one is sent from now on."""
        there, record = record, self.brought(record)
        run = self._handle(record, reused=reused)
        if record.request_key != self.ask.keys(self.model.id, record.take)[0]:
            run.note = _EARLIER
        elif not reused:
            run.note = self.introduce(record.provider)
        if reused and self.ask.private:
            if not run.record.private:
                run.conceal()
            run.note = self._redact(there) or self._redact(record) or run.note
        return run

    def _redact(self, record: RunRecord) -> str:
        """Replace a receipt from before the run was private; give what its card says about it."""
        store = self.engine.store(record.folder or self.store.folder)
        public = file_stem(record.model_copy(update={"private": False}))
        if not (store.folder / f"{public}.json").exists():
            return ""
        try:
            store.write_sidecar(record)
        except StoreError:
            return STILL_PUBLIC
        return NOW_PRIVATE

    def _handle(self, record: RunRecord, *, reused: bool) -> Run:
        if self.ask.detached and record.status is RunStatus.CREATED:
            run = self.engine.peek(record)
            run.reused = reused
            # The ledger tells of those of a sweep, all together.
            return run if self.ask.of_sweep else self.engine.resume(run)
        unsent = record.status in {RunStatus.CREATED, RunStatus.SUBMITTING}
        if reused and unsent and not self.budget.consents(self.ask.max_cost):
            # Another kernel is sending it. Should that one die first, it takes consent to send it from here.
            return self.engine.resume(self.engine.peek(record))
        if record.status is RunStatus.SUCCEEDED and not self.store.verify(record):
            return self.engine.fetch(record)
        return self.engine.handle(record, reused=reused, sweep=self.ask.of_sweep)

    def brought(self, record: RunRecord) -> RunRecord:
        """Bring the clip of a finished run into this notebook's folder, if it is elsewhere."""
        if record.status != RunStatus.SUCCEEDED:
            return record
        located = self._located(record)
        if located is None:
            # Its clip is neither here nor where it was: it is fetched into this folder.
            return record.model_copy(update={"folder": str(self.store.folder)})
        record = located
        if record.folder and Path(record.folder) != self.store.folder:
            record = self.store.bring(record, Path(record.folder))
        return record


def _another(record: RunRecord, transaction: Transaction) -> bool:
    """Whether the ledger has another run under the id that a folder gives this one."""
    held = transaction.get(record.id)
    return held is not None and held.run_key != record.run_key


def _same_id(record: RunRecord) -> StoreError:
    return StoreError(
        f"The receipt of run {record.id} in the folder bears the id of another run in your ledger.",
        charged="no",
        cure="Nothing was sent. Move that receipt, and its clip, to another folder.",
        run_id=record.id,
        provider=record.provider,
    )
