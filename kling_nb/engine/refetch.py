"""The clip of a run that succeeded and whose file is not here: fetched once more, for free.

Invariants: whatever comes of it, the run stays the success that it was, in the ledger and in its receipt;
only the recorded bytes are taken for its clip.
"""

import asyncio
from pathlib import Path

from kling_nb.engine.job import Job
from kling_nb.engine.lookup import Access, fetch_again
from kling_nb.engine.schedule import back_off
from kling_nb.errors import KlingError, ProviderError, StoreError, TransportError
from kling_nb.media.folder import Store
from kling_nb.network.download import DownloadError
from kling_nb.records.run import MediaFacts, RunRecord

__all__ = ["refetch"]

#: How often a provider must say that it has nothing.
DENIALS = 3


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
    tries = denials = 0
    while True:
        try:
            media, _ = await fetch_again(job.transport, access, job.record, job.store)
        except KlingError as error:
            tries += 1
            denials += not isinstance(error, DownloadError | ProviderError | TransportError)
            if tries >= job.limits.save_tries or denials >= DENIALS:
                raise _not_here(was, error.what) from None
        else:
            return media
        first_s = 0.2 if job.loopback else 1.5
        await job.pause(back_off(tries, random=job.clock.random, first_s=first_s, most_s=30))


def _not_here(was: RunRecord, why: str) -> StoreError:
    file = was.media.file if was.media else "its file"
    return StoreError(
        f"The clip of run {was.id} was kept as {Path(was.folder) / file}, is not there now, and could not be "
        f"fetched again: {why}",
        charged=was.charged,
        cure="Nothing was sent, and the run stays done. Bring its folder back (its branch, its drive, or "
        "KLING_NB_MEDIA as it was) and run the cell again; `--no-cache` buys a new clip.",
        run_id=was.id,
        provider=was.provider,
        provider_run_id=was.provider_run_id,
    )
