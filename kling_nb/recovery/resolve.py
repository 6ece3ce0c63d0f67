"""The way out for a run that nobody can find out about: a person says what became of it.

Invariants: nothing here ever sends a submit; an id is taken over only where its provider shows that run to
this account, and no other run has it; a run is never settled while something carries it; money that nobody
knows stays unknown, also where nothing is held back for it any more.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from kling_nb.engine.engine import Engine
from kling_nb.engine.polling.lookup import Access, Seen
from kling_nb.engine.run import Run
from kling_nb.errors import KlingError, UsageError, WaitTimeoutError
from kling_nb.ledger.database import Ledger
from kling_nb.ledger.transaction import Transaction, revived
from kling_nb.records.base import utc_now
from kling_nb.records.privacy import redact_error, redacted_request
from kling_nb.records.request import TextToVideo
from kling_nb.records.run import RunRecord, RunStatus, charged, ids_of, may_revive
from kling_nb.session.api import current
from kling_nb.session.folder_runs import FROM_FOLDER
from kling_nb.session.session import Session
from kling_nb.views.words import clock, state_word, status_word

__all__ = ["look_again", "resolve", "take_up"]

#: By how much our clock and the provider's may differ.
_CLOCKS = timedelta(minutes=5)
_TAIL_S = 5.0
#: How long a person waits for one look, the fetching of the clip included.
_LOOK_S = 120.0

#: A lease that ran out so long ago: its process is gone, or may not go on without a new one.
_GONE = timedelta(minutes=10)


def resolve(
    run: Run | str, *, attach: str | None = None, abandon: bool = False, session: Session | None = None
) -> Run:
    """Say what became of a run that nobody can find out about; never sends one.

    Args:
        run: A lost run, one that is stuck in being sent, or an ended one whose charge is unknown: a handle
            or an id.
        attach: It is this run at its provider: looked up for free, then watched, fetched and settled.
        abandon: There is no such run, or it is given up: its reservation is released, its charge stays
            unknown, and its cell may make a new attempt.
        session: Whose ledger it is in; the process's own unless given.

    Returns:
        The handle.

    Raises:
        UsageError: There is nothing to resolve, or this id cannot be that run.
        KlingError: There is no key, or the provider could not be asked.

    Example:
        >>> resolve("kl7m2q", attach="0192f0c1")   # doctest: +SKIP
    """
    if (attach is None) is not abandon:
        raise UsageError(
            "A run is resolved in one of two ways.",
            charged="unknown",
            cure="Say `--attach PROVIDER_ID` where its provider has it, else `--abandon` to give it up.",
        )
    session = session or current()
    session.keys.refuse({"the id": attach or ""})
    handle = session.find(run) if isinstance(run, str) else run
    if attach is not None and attach == handle.provider_run_id and may_revive(handle.record):
        return look_again(handle)
    ledger, engine = session.ledger(), session.engine()
    if ledger.get(handle.id) is None and not _is_open(handle.record):
        raise _nothing_to_resolve(handle.record)
    _bring_in(ledger, handle.record)
    if attach is None:
        record = _abandon(handle.id, ledger=ledger, engine=engine)
    else:
        record = _attach(handle.id, attach, ledger=ledger, engine=engine, access=session.access)
    return engine.settled(record, handle)


def take_up(run: Run, session: Session) -> Run:
    """Watch a run again; one that only the media folder knows is taken into the ledger first. Sends nothing.

    Args:
        run: A run on its way.
        session: Whose ledger and keys.

    Returns:
        The same handle.

    Raises:
        UsageError: The ledger has another run of the same request on its way.
        LedgerError: The ledger cannot be written.
    """
    try:
        session.access(run.record)
    except KlingError:
        # Nobody could watch it: then the handle says why.
        return run.resume()
    _bring_in(session.ledger(), run.record)
    return run.resume()


def look_again(run: Run) -> Run:
    """Ask once more for the clip of a run that failed; free. Its `note` says what came of it.

    Args:
        run: A run with an id at its provider.

    Returns:
        The same handle, a success now if its clip is there.
    """
    with suppress(WaitTimeoutError):
        run.resume().wait(_LOOK_S)
    return run


def _bring_in(ledger: Ledger, record: RunRecord) -> None:
    """Take a run that only the media folder knows into the ledger: there it can be watched and settled."""
    with ledger.writing() as transaction:
        if transaction.get(record.id) is not None:
            return
        live = transaction.live(record.run_key)
        if live is not None:
            raise UsageError(
                f"Run {live.id} of the same request is still {status_word(live.status)} in the ledger; run "
                f"{record.id} is known from the media folder only.",
                charged=charged(record),
                cure=f"Nothing changed. Settle that one first: `%kling show {live.id}`.",
                run_id=record.id,
            )
        transaction.insert(record, FROM_FOLDER)


def _is_open(record: RunRecord) -> bool:
    """Whether nobody knows what became of a run, or what it cost."""
    if record.status.ended and record.status is not RunStatus.LOST:
        return record.settled_micros is None and charged(record) == "unknown"
    return record.status in {RunStatus.LOST, RunStatus.SUBMITTING}


def _attach(
    run_id: str,
    provider_run_id: str,
    *,
    ledger: Ledger,
    engine: Engine,
    access: Callable[[RunRecord], Access],
) -> RunRecord:
    """Commit the provider's id; the reservation is settled by the run's end, as always."""
    _let_go(ledger, engine, run_id)
    record = ledger.read(lambda transaction: _attachable(transaction, engine, run_id, provider_run_id))
    reached = access(record)
    try:
        seen = engine.look(reached, provider_run_id)
    except KlingError as error:
        raise redact_error(record, error) from None
    _check(record, reached.provider.label, provider_run_id, seen)
    with ledger.writing() as transaction:
        record = _attachable(transaction, engine, run_id, provider_run_id)
        _claim(transaction, engine, record, ledger.lease(run_id))
        changes: dict[str, Any] = {
            **revived(record),
            "status": RunStatus.QUEUED,
            "provider_run_id": provider_run_id,
            # This key can read it, so this is the account that has it.
            "account": reached.account or record.account,
            "accepted_at": min(seen.asked.created_at or record.submitted_at or utc_now(), utc_now()),
            "charged": "unknown",
            "message": "",
        }
        return transaction.change(record, "attached by hand", changes)


def _abandon(run_id: str, *, ledger: Ledger, engine: Engine) -> RunRecord:
    """End it and hold back nothing for it; its charge is as unknown as before, and nobody is asked."""
    _let_go(ledger, engine, run_id)
    with ledger.writing() as transaction:
        record = _known(transaction, run_id)
        open_end = record.status.ended and record.settled_micros is None and charged(record) != "no"
        if record.status is not RunStatus.SUBMITTING and (not open_end or record.abandoned_at is not None):
            raise _nothing_to_resolve(record)
        _check_idle(engine, record)
        changes: dict[str, Any] = {"reserved_micros": 0, "abandoned_at": utc_now()}
        if record.status in {RunStatus.LOST, RunStatus.SUBMITTING}:
            _claim(transaction, engine, record, ledger.lease(run_id))
            changes |= {
                "status": RunStatus.FAILED,
                "reason": "provider",
                "charged": "no" if record.play else "unknown",
                "settled_micros": 0 if record.play else None,
                "message": "abandoned by the user",
                "finished_at": record.finished_at or utc_now(),
            }
        record = transaction.change(record, "abandoned", changes)
    ledger.release(run_id, engine.owner)
    return record


def _let_go(ledger: Ledger, engine: Engine, run_id: str) -> None:
    """Wait a moment for what has just carried a run to its end, and is still putting its things away."""
    record, end = ledger.get(run_id), time.monotonic() + _TAIL_S
    while record is not None and record.status.ended and engine.drives(run_id) and time.monotonic() < end:
        time.sleep(0.01)


def _known(transaction: Transaction, run_id: str) -> RunRecord:
    record = transaction.get(run_id)
    if record is None:
        raise UsageError(
            f"Run {run_id} is known from the media folder only.",
            charged="unknown",
            cure="Nothing changed. Run its cell again: that takes it into the ledger and sends nothing.",
            run_id=run_id,
        )
    return record


def _attachable(transaction: Transaction, engine: Engine, run_id: str, provider_run_id: str) -> RunRecord:
    record = _known(transaction, run_id)
    given_up = record.abandoned_at is not None and record.status is RunStatus.FAILED
    if record.provider_run_id is not None or not (
        given_up or record.status in {RunStatus.LOST, RunStatus.SUBMITTING}
    ):
        raise _nothing_to_resolve(record)
    _check_idle(engine, record)
    holder = transaction.holder(record.provider, provider_run_id)
    if holder is not None:
        raise UsageError(
            f"{provider_run_id} is run {holder.id} of this ledger already ({state_word(holder)}).",
            charged=charged(record),
            cure=f"Nothing changed. `%kling show {holder.id}` shows it.",
            run_id=record.id,
        )
    live = transaction.live(record.run_key)
    if live is not None and live.id != record.id:
        raise UsageError(
            f"Run {live.id}, made after run {record.id} was given up, is still {status_word(live.status)}.",
            charged=charged(record),
            cure=f"Nothing changed. Wait for it (`%kling wait {live.id}`), then try again.",
            run_id=record.id,
        )
    return record


def _check_idle(engine: Engine, record: RunRecord) -> None:
    if engine.drives(record.id):
        raise _carried(record)


def _claim(transaction: Transaction, engine: Engine, record: RunRecord, lease: str | None) -> None:
    """Take the run, so that nothing else begins to look for it meanwhile."""
    gone = lease is not None and lease < (utc_now() - _GONE).isoformat()
    unmoved = lease if gone else None
    mine = transaction.claim(record.id, engine.owner, engine.limits.lease_s, unmoved=unmoved)
    # Whoever still has the lease of an ended run does nothing with it any more.
    if not mine and record.status.pending:
        raise _carried(record)


def _carried(record: RunRecord) -> UsageError:
    return UsageError(
        f"Run {record.id} is just being sent or looked for, here or in another process.",
        charged=charged(record),
        cure=f"Nothing changed. Wait a minute (`%kling wait {record.id}`), then try again.",
        **ids_of(record),
    )


def _nothing_to_resolve(record: RunRecord) -> UsageError:
    cures = {
        RunStatus.CREATED: f"It was never sent: `%kling cancel {record.id}` ends it.",
        RunStatus.SUCCEEDED: f"`%kling show {record.id}` shows it.",
    }
    on_its_way = f"`%kling resume {record.id}` watches it; it buys nothing."
    ended = f"`%kling show {record.id}` says what is safe now."
    return UsageError(
        f"Run {record.id} does not need resolving: {state_word(record)}, charged: {charged(record)}.",
        charged=charged(record),
        cure="Nothing changed. " + cures.get(record.status, on_its_way if record.status.pending else ended),
        **ids_of(record),
    )


def _check(record: RunRecord, label: str, provider_run_id: str, seen: Seen) -> None:
    """Refuse a run that is certainly another one, by what its provider's record says."""
    asked = seen.asked
    if asked.client_ref == record.client_ref:
        return
    other = ""
    if asked.client_ref is not None:
        other = f"it carries another reference, {asked.client_ref}"
    elif record.request.prompt and not _same(record.request.prompt, asked.fields.get("prompt")):
        other = "it was asked for another prompt"
    elif asked.created_at is not None and asked.created_at < _sent(record) - _CLOCKS:
        other = f"it was made at {clock(asked.created_at, date=True)}, before this one was sent"
    if other:
        raise UsageError(
            f"{provider_run_id} at {label} is not run {record.id}: {other}.",
            charged=charged(record),
            cure="Nothing changed. Look for another id; `%kling adopt` brings in runs made elsewhere.",
            **ids_of(record),
        )


def _same(words: str, known: str | None) -> bool:
    # Of a private run that was read from a receipt there is only the hash.
    return known is None or known == words or redacted_request(TextToVideo(prompt=known)).prompt == words


def _sent(record: RunRecord) -> datetime:
    return record.submitted_at or record.created_at
