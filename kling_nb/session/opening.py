"""Any number of calls at once against ledger and folder: one look, one transaction, one decision about each.

Invariants: look and insert are one write transaction; the refusal of one call undoes nothing of another's,
unless the calls stand or fall together; files are hashed and keys looked for before the ledger is locked, so
that nobody's write has to wait for either.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from operator import attrgetter

from kling_nb.engine.run import Run
from kling_nb.errors import BlockedError, KlingError, LedgerError, StoreError
from kling_nb.ledger.transaction import Transaction
from kling_nb.media.claims import Stillness
from kling_nb.media.names import stems_of
from kling_nb.media.sidecars import Sidecars
from kling_nb.records.provenance import Commit
from kling_nb.records.run import RunRecord
from kling_nb.session.admission import Admission
from kling_nb.session.claiming import ClaimedError, claiming, unsent, wait_for_claim
from kling_nb.session.plan import Take

__all__ = ["Opened", "look_many", "open_many"]

#: Request keys in one query.
_CHUNK = 10_000
_Records = list[tuple[RunRecord, bool]]


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What became of one call.

    Args:
        runs: A handle a take; empty where it was refused.
        error: What refused it; nothing of it was sent.
    """

    runs: tuple[Run, ...] = ()
    error: KlingError | None = None


class _Known:
    """What ledger and folder have of the requests of some calls, read once for all of them."""

    def __init__(self, transaction: Transaction, calls: Sequence[Admission]) -> None:
        keys = tuple(dict.fromkeys(key for call in calls for key in call.request_keys()))
        self._rows: dict[str, list[RunRecord]] = defaultdict(list)
        self._beside: dict[str, list[RunRecord]] = defaultdict(list)
        self._damaged = Sidecars().damaged
        for start in range(0, len(keys), _CHUNK):
            self.add(transaction.find(keys[start : start + _CHUNK]))

    def add(self, records: Iterable[RunRecord]) -> None:
        """Add rows of the ledger."""
        for record in records:
            self._rows[record.request_key].append(record)

    def look_beside(self, calls: Sequence[Admission]) -> None:
        """Read the folder's receipts of these requests."""
        if calls:
            stems = {stem for call in calls for stem in stems_of(call.ask.request)}
            keys = {key for call in calls for key in call.request_keys()}
            found = calls[0].store.sidecars(request_keys=keys, stems=sorted(stems))
            self._damaged = found.damaged
            for record in found:
                self._beside[record.request_key].append(record)

    def answer(self, call: Admission) -> tuple[Take, ...] | None:
        """Decide by the ledger alone, where that has the clip of every take; else None."""
        if not all(self._rows.get(key) for key in call.request_keys()):
            return None
        takes = call.decide(self.of(call)[0], Sidecars())
        return takes if all(take.word == "reused" for take in takes) else None

    def of(self, call: Admission) -> tuple[list[RunRecord], Sidecars]:
        """Give the rows and receipts of one call, oldest first."""
        keys = set(call.request_keys())
        stems = stems_of(call.ask.request) if self._damaged else ()
        rows = [record for key in keys for record in self._rows[key]]
        beside = [record for key in keys for record in self._beside[key]]
        damaged = [
            one
            for one in self._damaged
            if one.keys & keys or one.name.removesuffix(".json").rpartition("-")[0] in stems
        ]
        oldest_first = attrgetter("created_at", "id")
        return sorted(rows, key=oldest_first), Sidecars(sorted(beside, key=oldest_first), damaged)


def look_many(calls: Sequence[Admission], *, keep: bool = False) -> list[tuple[Take, ...]]:
    """Decide about every take of some calls, as things stand now; the ledger is read and let go first.

    Args:
        calls: Of one session, ledger and folder.
        keep: Whether to write down beside the notebook what only its outputs tell.

    Returns:
        For each call, its takes; in the words of `Take.word`: reused, pending, new or blocked.
    """
    if not calls:
        return []
    known = calls[0].ledger.read(lambda transaction: _Known(transaction, calls))
    # A clip that the ledger knows, and that is here, answers whatever the folder's receipts say.
    answered = {} if keep else {n: takes for n, call in enumerate(calls) if (takes := known.answer(call))}
    known.look_beside([call for n, call in enumerate(calls) if n not in answered])
    return [answered.get(n) or call.decide(*known.of(call), keep=keep) for n, call in enumerate(calls)]


def open_many(calls: Sequence[Admission], *, whole: bool) -> list[Opened]:
    """Reuse, reattach or send for each of some calls.

    Args:
        calls: Of one session, ledger and folder, with the same keys.
        whole: Whether they stand or fall together: then the first refusal is raised.

    Returns:
        What became of each, in order.

    Raises:
        KlingError: All of them are refused; nothing was sent.
    """
    return _Batch(calls, whole=whole).open() if calls else []


class _Batch:
    """Some calls being opened, and what has refused which of them so far."""

    def __init__(self, calls: Sequence[Admission], *, whole: bool) -> None:
        self._calls, self._whole = calls, whole
        self._first = calls[0]
        self._blocked: dict[int, KlingError] = {}
        self._errors: dict[int, KlingError] = {}
        self._still: dict[str, Stillness] = {}

    def open(self) -> list[Opened]:
        made, first = None, self._first
        while made is None:
            try:
                made = first.ledger.insist(self._admit)
            except ClaimedError as claimed:
                # Another kernel decides about it just now; then its receipt is found in the folder.
                self._wait(claimed.request_key)
            except LedgerError as error:
                raise unsent(error) from None
        first.engine.checkpoint("intent in the ledger")
        self._write_first_sidecars(made)
        first.engine.checkpoint("intent in the folder")
        return [
            Opened(error=self._errors[n])
            if n in self._errors
            else Opened(runs=tuple(call.show(record, reused=reused) for record, reused in made[n]))
            for n, call in enumerate(self._calls)
        ]

    def _refused(self, number: int, error: KlingError) -> None:
        if self._whole:
            raise error
        self._errors[number] = error

    def _left(self) -> dict[int, Admission]:
        return {n: call for n, call in enumerate(self._calls) if n not in self._errors}

    def _wait(self, key: str) -> None:
        engine = self._first.engine
        still = Stillness(engine.clock.monotonic, 2 * engine.limits.lease_s)
        try:
            wait_for_claim(self._first.store.claims, key, self._still.setdefault(key, still))
        except BlockedError as error:
            if self._whole:
                raise
            self._blocked |= {n: error for n, call in enumerate(self._calls) if key in call.request_keys()}

    def _admit(self) -> dict[int, _Records]:
        """Decide, reserve and insert."""
        self._errors = dict(self._blocked)
        new = self._look()
        first, commit = self._first, {}
        if new:
            # Found out before the ledger is locked, and only for what may be sent.
            first.store.check_room()
            commit = {"commit": first.checkout()}
        wanted = [key for key, play in new.items() if not play]
        with claiming(wanted, first.store.claims, first.ledger, first.engine.owner) as claimed:
            for key in _detached_keys(self._left().values()) & claimed.keys():
                # A worker elsewhere gives no sign of life in this folder: nobody may take it for dead.
                first.store.claims.keep(key, claimed[key], sending=True)
            with first.ledger.writing() as transaction:
                made = self._insert(transaction, commit, claimed)
                for record in _new_of(made):
                    if not record.play and claimed.get(record.request_key) != record.id:
                        # What answered it a moment ago does so no longer.
                        raise ClaimedError(record.request_key)
            # Those of the new runs stand until they are sent.
            for record in _new_of(made):
                claimed.pop(record.request_key, None)
        return made

    def _look(self) -> dict[str, bool]:
        """Give the requests that may be sent, and whether with play money."""
        new: dict[str, bool] = {}
        calls = self._left()
        # Hashes clips now, so that nobody else's write has to wait for it.
        looks = look_many([*calls.values()], keep=True)
        for (number, call), takes in zip(calls.items(), looks, strict=True):
            new |= {take.request_key: call.budget.play for take in takes if take.word == "new"}
            found = [(take.decision.record, take.word) for take in takes if take.decision]
            try:
                for record, word in found:
                    # Brings clips here now: should that fail, the call fails before anything of it is sent.
                    if record is not None and word == "reused":
                        call.brought(record)
                    elif record is not None and record.status.pending:
                        # Its key is looked for now: a keyring may take long, while the ledger is locked.
                        call.reachable(record)
            except KlingError as error:
                self._refused(number, error)
        return new

    def _insert(
        self, transaction: Transaction, commit: Mapping[str, Commit | None], claimed: dict[str, str]
    ) -> dict[int, _Records]:
        made: dict[int, _Records] = {}
        calls = self._left()
        known = _Known(transaction, [*calls.values()])
        known.look_beside([*calls.values()])
        for number, call in calls.items():
            here = replace(call, shared={**call.shared, **commit}, claimed=claimed, looking=False)
            try:
                with nullcontext() if self._whole else transaction.savepoint():
                    made[number] = here.admit(transaction, *known.of(here))
            except KlingError as error:
                self._refused(number, error)
            else:
                known.add(record for record, reused in made[number] if not reused)
        return made

    def _write_first_sidecars(self, made: Mapping[int, _Records]) -> None:
        if self._whole:
            self._first.write_first_sidecars(_new_of(made))
            return
        for number, records in made.items():
            try:
                self._first.write_first_sidecars(_new_of({number: records}))
            except StoreError as error:
                self._errors[number] = error


def _detached_keys(calls: Iterable[Admission]) -> set[str]:
    return {key for call in calls if call.ask.detached for key in call.request_keys()}


def _new_of(made: Mapping[int, _Records]) -> list[RunRecord]:
    return [record for records in made.values() for record, reused in records if not reused]
