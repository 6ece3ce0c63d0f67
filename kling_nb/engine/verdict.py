"""What the end of a run means, as an error that need not be raised.

Invariants: pure; every answer says what happened, whether it was charged, and what is safe to do now.
"""

from typing import Any

from kling_nb.errors import (
    Charged,
    DetachedError,
    KlingError,
    ModeratedError,
    RunCanceledError,
    RunFailedError,
    RunLostError,
)
from kling_nb.records import RunRecord, RunStatus
from kling_nb.veil import veiled
from kling_nb.wording import SEND_IT, never_sent, provider_label, provider_site

__all__ = ["detached", "error_of"]


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
    error = _error_of(veiled(record))
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
    said = f": {record.message}" if record.message else ""
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
        run_id=record.id,
        provider=record.provider,
        provider_run_id=record.provider_run_id,
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
