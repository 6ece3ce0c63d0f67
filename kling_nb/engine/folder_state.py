"""What the media folder knows of a run and the ledger does not.

The two differ where a process was killed between them, and where the ledger is an older copy of itself.

Invariants: an intent that the folder knows to have been sent is not sent again, nor called unsent; a clip
that is whole in its folder is never called gone; no figure of money is taken from a file.
"""

import asyncio
from pathlib import Path
from typing import get_args

from kling_nb.engine.detach import detached
from kling_nb.engine.job import Job
from kling_nb.errors import StoreError
from kling_nb.files import file_sha256, signature
from kling_nb.media.claims import Stillness
from kling_nb.media.folder import Store
from kling_nb.media.names import file_stem
from kling_nb.media.probe import Kind, probe
from kling_nb.records.base import utc_now
from kling_nb.records.run import MediaFacts, RunRecord, RunStatus

__all__ = ["SENDER_GONE", "catch_up", "follow_sender", "kept_clip", "kept_id"]

SENDER_GONE = "the process that asked for it has ended"

#: As `Store.keep` names clips.
_SUFFIXES = tuple(f".{kind}" for kind in get_args(Kind))


async def catch_up(job: Job) -> None:
    """Take over what became of an intent that the folder knows to have been sent.

    Args:
        job: A run in `created` that this process did not ask for.
    """
    kept = await asyncio.to_thread(_sidecar_of, job)
    if kept is not None and kept.provider_run_id:
        await job.settle(
            "accepted",
            status=RunStatus.QUEUED,
            provider_run_id=kept.provider_run_id,
            submitted_at=kept.submitted_at,
            accepted_at=kept.accepted_at or utc_now(),
            account=kept.account or job.record.account,
            charged="unknown",
            message="",
        )
    elif kept is not None and kept.status is RunStatus.LOST:
        why = kept.message or "the process that sent it ended before the answer came"
        await job.lose(why)


async def follow_sender(job: Job) -> RunRecord | None:
    """Wait while another ledger's kernel is about to send a run that this one knows from the folder only.

    Args:
        job: A run in `submitting`.

    Returns:
        Its end, where it ended unsent or its sender died before; None where it was sent, or may have been.

    Raises:
        DetachedError: Somebody stopped the waiting.
    """
    claims, record = job.store.claims, job.record
    still = Stillness(job.clock.monotonic, 2 * job.limits.lease_s)
    job.follows = True
    while True:
        claim = await asyncio.to_thread(claims.seen, record.request_key)
        # Read after the claim, which is given back only once the receipt is written.
        kept = await asyncio.to_thread(job.store.sidecar, record)
        if (
            kept is not None
            and kept.status in {RunStatus.FAILED, RunStatus.CANCELED}
            and kept.charged == "no"
        ):
            return kept
        sent = kept is not None and (kept.provider_run_id is not None or kept.status.ended)
        if sent or claim is None or claim.run_id != record.id:
            return None
        if still.reached(claim):
            break
        await job.pause(0.1 if job.loopback else 1.0)
        if job.detach_wanted:
            what = f"We stopped waiting for the process that sends run {record.id}."
            raise detached(record, what, f"`%kling resume {record.id}` waits again.")
    if claim.sending:
        return None
    await asyncio.to_thread(claims.void, record.request_key, claim)
    changes = {"status": RunStatus.CANCELED, "reason": "canceled", "message": SENDER_GONE}
    return record.model_copy(update=changes)


def kept_id(job: Job) -> str | None:
    """Give the provider's id from the folder: it is written there too when the ledger cannot be."""
    kept = _sidecar_of(job)
    return kept.provider_run_id if kept is not None else None


async def kept_clip(job: Job) -> MediaFacts | None:
    """Find a run's clip in its folder, where the ledger knows of none.

    Args:
        job: A run that made a clip, or may have.

    Returns:
        What is measured in it, or None where it is not there whole.
    """
    return await asyncio.to_thread(_kept, job.store, job.record)


def _sidecar_of(job: Job) -> RunRecord | None:
    known = job.store.sidecars(request_keys=[job.record.request_key])
    same = [kept for kept in known if kept.id == job.record.id and kept.run_key == job.record.run_key]
    # A run that became private may have two: the one with an id counts.
    return max(same, key=lambda kept: kept.provider_run_id is not None, default=None)


def _kept(store: Store, record: RunRecord) -> MediaFacts | None:
    for kept in store.sidecars(request_keys=[record.request_key]):
        if kept.id == record.id and kept.media is not None and store.verify(kept):
            return kept.media
    for suffix in _SUFFIXES:
        # The name is given only to bytes that were measured, hashed and synced, and is never given again.
        path = store.folder / f"{file_stem(record)}{suffix}"
        if (media := _measured(path)) is not None:
            return media
    return None


def _measured(path: Path) -> MediaFacts | None:
    try:
        before, measured = signature(path), probe(path)
        facts = MediaFacts(file=path.name, sha256=file_sha256(path), size=before[0], **vars(measured))
        return facts if signature(path) == before and path.suffix == f".{measured.container}" else None
    except (OSError, StoreError):
        return None
