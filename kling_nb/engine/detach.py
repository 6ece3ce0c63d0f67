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
from kling_nb.pricing.catalog import provider_label, provider_site
from kling_nb.records.privacy import redacted
from kling_nb.records.run import RunRecord, RunStatus, charged, ids_of
from kling_nb.views.words import SEND_IT, never_sent

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
    error = _error_of(redacted(record))
    if error is not None and record.private:
        # A traceback would repeat the call, words and all.
        error.plain = True
    return error


def _error_of(record: RunRecord) -> KlingError | None:
    label = provider_label(record.provider)
    ids: dict[str, Any] = {
        "run_id": record.id,
        "provider": record.provider,
        "provider_run_id": record.provider_run_id,
    }
    # It ends our sentence; only one that was cut off keeps its points.
    reported = record.message if record.message.endswith("...") else record.message.removesuffix(".")
    said = f": {reported}" if reported else ""
    if record.status == RunStatus.LOST:
        site = f" ({provider_site(record.provider)})" if provider_site(record.provider) else ""
        return RunLostError(
            f"The answer to the submit of run {record.id} never came, so {label} may have made it.",
            charged="unknown",
            cure=f"Nothing was sent again. Look for it in your request history at {label}{site}, then "
            f"`%kling resolve {record.id} --attach PROVIDER_ID` or `--abandon`.",
            **ids,
        )
    if record.status == RunStatus.CANCELED:
        unsent = never_sent(record)
        return RunCanceledError(
            f"{unsent.removesuffix('.') or f'Run {record.id} was canceled'}{said}.",
            reason="canceled",
            charged=record.charged,
            cure=SEND_IT if unsent else retry_cure(record),
            **ids,
        )
    if record.status == RunStatus.FAILED:
        kind = ModeratedError if record.reason == "moderated" else RunFailedError
        return kind(
            f"Run {record.id} failed at {label} ({record.reason}){said}.",
            reason=record.reason or "provider",
            charged=record.charged,
            cure=retry_cure(record),
            **ids,
        )
    return None


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
            cure=f"Nothing is sent again. Mend the disk or the permissions; then {on_record}",
            run_id=record.id,
            provider=record.provider,
            provider_run_id=reported or record.provider_run_id,
        )
    if isinstance(failure, asyncio.CancelledError):
        what = f"kling_nb was closed while run {record.id} was {record.status.value}."
        return detached(record, what, f"It is on record: {on_record}", known)
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


def retry_cure(record: RunRecord) -> str:
    """Say what is safe to do about a run that ended without a clip."""
    if record.reason == "moderated":
        return "Change the prompt: the same request would be refused again (`--no-cache` sends it anyway)."
    if record.reason == "invalid":
        return "Correct the request and run the cell again."
    if record.reason == "credit":
        return "Add credit at the provider, then run the cell again."
    if record.reason == "auth":
        return "Correct the key (`%kling keys`), then run the cell again."
    if record.charged == "no" or record.abandoned_at is not None:
        return "Running the cell again makes a new attempt."
    return "It was, or may have been, charged: `--retry` buys a new attempt all the same."
