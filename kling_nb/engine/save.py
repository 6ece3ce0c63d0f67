"""From the provider's end to a verified file, and the bill.

Invariants: fetching a clip is free and may be repeated; a run is `succeeded` only once its file is whole,
measured and under its final name; a charge the provider reports wins over the list; bytes that were
paid for are never deleted, also when they are no video.
"""

import asyncio
from pathlib import Path
from typing import Any

from kling_nb.engine.job import Job
from kling_nb.engine.pace import back_off
from kling_nb.engine.watch import reported_micros
from kling_nb.errors import StoreError, TransportError
from kling_nb.providers.base import Snapshot
from kling_nb.records import MediaFacts, RunRecord, RunStatus, utc_now
from kling_nb.store import NotVideoError
from kling_nb.transport import DownloadError

__all__ = ["save"]

#: Whole downloads that are no video, before we believe it.
STRANGE_TRIES = 3


async def save(job: Job, snapshot: Snapshot | None = None) -> None:
    """Fetch, check and keep the clip of a run that is done at the provider.

    Args:
        job: A run in `saving`.
        snapshot: The reading that ended the watching, if it is at hand; its links may have expired.

    Raises:
        StoreError: The clip cannot be had now; the run stays `saving` and may be resumed.
    """
    strange, last = 0, "the provider gave no link to the clip"
    for tries in range(job.limits.save_tries):
        if tries:
            first_s = 0.2 if job.loopback else 1.5
            await job.pause(back_off(tries, random=job.clock.random, first_s=first_s, most_s=30))
        part = job.store.part(job.record)
        try:
            # A new reading signs the links anew, which is the cure for an expired one.
            snapshot = snapshot if snapshot is not None and snapshot.video_urls else await _read_again(job)
            if snapshot is None or not snapshot.video_urls:
                continue
            media = await _fetch(job, snapshot.video_urls[0], part)
        except NotVideoError as error:
            last, snapshot, strange = error.what, None, strange + 1
            if strange >= STRANGE_TRIES:
                await _strange(job, part, last)
                return
        except (DownloadError, TransportError) as error:
            last, snapshot = error.what, None
            if isinstance(error, DownloadError) and error.host_unknown:
                break
        else:
            await _settle(job, media, snapshot)
            return
        finally:
            part.unlink(missing_ok=True)
    raise not_fetched(job.record, last)


def not_fetched(record: RunRecord, why: str) -> StoreError:
    """Say that the clip is made and paid for, and not here yet."""
    return StoreError(
        f"The clip of run {record.id} is made but not fetched: {why}",
        charged=record.charged,
        cure=f"`%kling resume {record.id}` fetches it again for free.",
        run_id=record.id,
        provider=record.provider,
        provider_run_id=record.provider_run_id,
    )


async def _read_again(job: Job) -> Snapshot | None:
    if job.record.provider_run_id is None:
        return None
    snapshot = await job.read()
    return snapshot if snapshot.state == "succeeded" else None


async def _fetch(job: Job, url: str, part: Path) -> MediaFacts:
    await asyncio.to_thread(job.store.check_room)
    with part.open("xb") as sink:
        got = await job.transport.download(
            url, sink, allowed_hosts=job.provider.media_hosts, allow_loopback=job.loopback
        )
    return await asyncio.to_thread(job.store.keep, job.record, part, got.sha256)


async def _strange(job: Job, part: Path, why: str) -> None:
    kept = await asyncio.to_thread(job.store.set_aside, job.record, part)
    await job.settle(
        "not a video",
        status=RunStatus.FAILED,
        reason="provider",
        message=f"{why} What came is kept as {kept.name}.",
        **_money(job),
    )


async def _settle(job: Job, media: MediaFacts, snapshot: Snapshot) -> None:
    if job.record.reported_micros is None and not job.record.play:
        # The figure may come later than the clip: ask once more, now that the download took its time.
        try:
            again = await _read_again(job)
        except TransportError:
            again = None
        reported = reported_micros(again or snapshot)
        if reported is not None:
            await job.change("reported", reported_micros=reported)
    await job.settle(
        "saved",
        status=RunStatus.SUCCEEDED,
        media=media.model_dump(),
        folder=str(job.store.folder),
        saved_at=utc_now(),
        message="",
        **_money(job),
    )


def _money(job: Job) -> dict[str, Any]:
    record = job.record
    settled = record.reported_micros if record.reported_micros is not None else record.estimate.micros
    # Neither a figure nor a price: the charge is unknown, and what was held back stays held back.
    return {} if settled is None else {"settled_micros": settled, "reserved_micros": 0}
