"""What the end of a run means, as an error that need not be raised.

Invariants: pure; every answer says what happened, whether it was charged, and what is safe to do now.
"""

import asyncio
from typing import Any

from kling_nb.errors import (
    Charged,
    DetachedError,
    KlingError,
    LedgerError,
    ModeratedError,
    RunCanceledError,
    RunFailedError,
    RunLostError,
)
from kling_nb.ledger.places import NoPlaceError
from kling_nb.pricing.catalog import provider_label
from kling_nb.records.privacy import redacted
from kling_nb.records.run import RunRecord, RunStatus, charged, ids_of
from kling_nb.views.outcome import ending
from kling_nb.views.words import status_word

__all__ = ["detached", "error_of", "halted"]


def error_of(record: RunRecord) -> KlingError | None:
    """Say why an ended run has no clip.

    Args:
        record: An ended run.

    Returns:
        The error, or None for a success.

    Example:
        >>> error_of.__name__
        'error_of'
    """
    outcome = ending(record := redacted(record))
    if outcome is None:
        return None
    kind: Any = {
        RunStatus.LOST: RunLostError,
        RunStatus.CANCELED: RunCanceledError,
    }.get(record.status, ModeratedError if record.reason == "moderated" else RunFailedError)
    more = {} if kind is RunLostError else {"reason": record.reason or "provider"}
    # It ends our sentence; only one that was cut off keeps its points.
    reported = record.message if record.message.endswith("...") else record.message.removesuffix(".")
    said = f": {reported}." if reported and kind is not RunLostError else "."
    cure, _, ways = outcome.cure.partition("\n")
    if outcome.site:
        cure = f"{cure.removesuffix('.')} ({outcome.site})."
    error: KlingError = kind(
        f"Run {record.id}: {outcome.what.removesuffix('.')}{said}",
        charged=charged(record),
        cure=f"{cure}\n{ways}".strip(),
        **ids_of(record),
        **more,
    )
    return error


def halted(record: RunRecord, failure: BaseException) -> KlingError:
    """Say why a run is not carried any further; the run itself has not ended.

    Args:
        record: Its last committed state.
        failure: What ended the carrying.

    Returns:
        The error.

    Example:
        >>> halted.__name__
        'halted'
    """
    unsent = record.status is RunStatus.CREATED
    if isinstance(failure, KlingError) and (unsent or not isinstance(failure, LedgerError)):
        return failure
    known, on_record = charged(record), f"`%kling resume {record.id}` goes on."
    if isinstance(failure, LedgerError):
        # Its own words are those of a call that sent nothing.
        reported = failure.provider_run_id
        made = f" {provider_label(record.provider)} made it as {reported}." if reported else ""
        return LedgerError(
            f"What became of run {record.id} could not be written down.{made} {failure.what}",
            charged=known,
            cure=f"Nothing is sent again. Repair the disk or its permissions; then {on_record}",
            run_id=record.id,
            provider=record.provider,
            provider_run_id=reported or record.provider_run_id,
        )
    if isinstance(failure, asyncio.CancelledError):
        what = f"kling_nb was closed while run {record.id} was {status_word(record.status)}."
        return detached(record, what, f"It is on record: {on_record}", known)
    if isinstance(failure, NoPlaceError):
        return detached(
            record, f"The sweep of run {record.id} is paused.", "`start()` goes on with it.", "no"
        )
    what = f"kling_nb failed while it carried run {record.id}: {type(failure).__name__}."
    return KlingError(what, charged=known, cure=f"The run is on record: {on_record}", run_id=record.id)


def detached(record: RunRecord, what: str, cure: str, charged: Charged = "unknown") -> DetachedError:
    """Say that only our watching of a run is over.

    Args:
        record: The run.
        what: What happened, as one sentence.
        cure: What is safe to do now, as one sentence.
        charged: Whether it was charged, as far as anybody knows.

    Returns:
        The error.
    """
    return DetachedError(
        what,
        charged=charged,
        cure=cure,
        **ids_of(record),
    )
