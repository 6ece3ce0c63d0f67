"""The clip of an ended run, looked for once more, for free.

Invariants: looking sends nothing; a success stays the success that it was, in the ledger and in its receipt,
and only the recorded bytes are taken for its clip; a run goes from `failed` to `succeeded` in one transaction
once its file is whole and in its place, and through no other state; its cost is booked, also above a cap.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kling_nb.engine.clips.fetch import fetch_again
from kling_nb.engine.clips.save import cost_note, settled_money
from kling_nb.engine.clips.uploads import Uploads
from kling_nb.engine.job import Job
from kling_nb.engine.polling.lookup import Access
from kling_nb.engine.polling.schedule import back_off
from kling_nb.engine.run import Run
from kling_nb.engine.watch import Denials, reported
from kling_nb.errors import KlingError, ProviderError, StoreError, TransportError
from kling_nb.ledger.work.uploads import note_upload
from kling_nb.media.folder import Store
from kling_nb.network.download_error import DownloadError
from kling_nb.pricing.catalog import provider_label
from kling_nb.providers.base import Snapshot
from kling_nb.records.base import utc_now
from kling_nb.records.privacy import hidden, redact_changes
from kling_nb.records.run import MediaFacts, RunRecord, RunStatus, ids_of

if TYPE_CHECKING:
    from kling_nb.network.client import Transport

__all__ = ["look_again", "refetch"]


async def refetch(job: Job) -> None:
    """Find the clip of a finished run where it was, else fetch it into the job's folder.

    Args:
        job: A run that succeeded; its handle waits for the clip.

    Raises:
        StoreError: It is neither here nor there now; nothing about the run has changed.
    """
    held = await asyncio.to_thread(job.ledger.get, job.record.id)
    was = held or job.record
    for folder in dict.fromkeys((job.record.folder, was.folder)):
        here = was.model_copy(update={"folder": folder})
        if await asyncio.to_thread(_is_whole, here):
            return _publish(job, here)
    media = await _fetched(job, was)
    facts = {"media": media.model_dump(), "folder": str(job.store.folder)}
    here = was.model_copy(update={"media": media, "folder": str(job.store.folder)})
    if held is not None:
        here = await asyncio.to_thread(lambda: job.ledger.change(held.id, "fetched again", **facts))
    await asyncio.to_thread(job.store.write_sidecar, here)
    return _publish(job, here)


def _publish(job: Job, here: RunRecord) -> None:
    job.run.fetching, job.run.note = False, ""
    job.run.publish(here)


def _is_whole(record: RunRecord) -> bool:
    return bool(record.folder) and Store(Path(record.folder)).verify(record)


async def _fetched(job: Job, was: RunRecord) -> MediaFacts:
    access = Access(provider=job.provider, key=job.key, account=job.account)
    tries, denials = 0, Denials(job)
    while True:
        try:
            media, _ = await fetch_again(job.transport, access, job.record, job.store)
        except KlingError as error:
            denied = not isinstance(error, DownloadError | ProviderError | TransportError)
            tries += not denied
            if tries >= job.limits.save_tries or (denied and denials.add()):
                raise _not_here(was, error.what) from None
        else:
            return media
        first_s = 0.2 if job.loopback else 1.5
        await job.pause(
            back_off(max(tries, denials.count), random=job.clock.random, first_s=first_s, most_s=30)
        )


def _not_here(was: RunRecord, why: str) -> StoreError:
    file = was.media.file if was.media else "its file"
    return StoreError(
        f"The clip of run {was.id} was kept as {Path(was.folder) / file}, is not there now, and could not be "
        f"fetched again: {why}",
        charged=was.charged,
        cure="Nothing was sent, and the run stays done. Bring its folder back (its branch, its drive, or "
        "KLING_NB_MEDIA as it was) and run the cell again; `--no-cache` buys a new clip.",
        **ids_of(was),
    )


async def look_again(
    run: Run,
    transport: "Transport",
    access: Callable[[RunRecord], Access],
    store: Store,
    uploads: Uploads,
) -> None:
    """Look for the clip of a run that failed; nothing else about it changes.

    Args:
        run: Its handle, reopened; it settles when the look is over, and its `note` says what came of it.
        transport: The network.
        access: Gives the adapter and the key, or raises.
        store: Where the clip belongs.
        uploads: Takes the clip to the team's store, if there is one; knows the ledger.
    """
    record, note = run.record, ""
    try:
        reached = await asyncio.to_thread(access, record)
        media, snapshot = await fetch_again(transport, reached, record, store)
        record = await asyncio.to_thread(_revive, record, media, snapshot, store, uploads)
        uploads.begin(record)
    except KlingError as error:
        note = f"We looked again: {hidden(record, error.what)}"
    finally:
        run.note = note
        run.publish(record)


def _revive(
    record: RunRecord,
    media: MediaFacts,
    snapshot: Snapshot,
    store: Store,
    uploads: Uploads,
) -> RunRecord:
    changes = redact_changes(record, _found(record, media, store.folder, snapshot))
    # As at every end the folder first: who sees it in the ledger also finds it there.
    store.write_sidecar(RunRecord.model_validate({**record.model_dump(), **changes}))
    with uploads.ledger.writing() as transaction:
        now = transaction.get(record.id)
        if now is None or now.status is not RunStatus.FAILED:
            return now or record
        if uploads.address:
            note_upload(transaction, record.id, uploads.address)
        return transaction.change(now, "clip found later", changes)


def _found(record: RunRecord, media: MediaFacts, folder: Path, snapshot: Snapshot) -> dict[str, Any]:
    figure = reported(snapshot)
    changes = {
        "status": RunStatus.SUCCEEDED,
        "reason": None,
        "charged": "no" if record.play else "yes",
        "message": cost_note(provider_label(record.provider), snapshot),
        "media": media.model_dump(),
        "folder": str(folder),
        "saved_at": utc_now(),
        "finished_at": record.finished_at or utc_now(),
        **figure,
    }
    return changes | settled_money(record.model_copy(update=figure))
