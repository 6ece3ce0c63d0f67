"""From the provider's end to a verified file, and the bill.

Invariants: fetching a clip is free and may be repeated; a run is `succeeded` only once its file is whole,
measured and under its final name; a charge the provider reports wins over the list; bytes that were
paid for are never deleted, also when they are no video.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kling_nb.engine.detach import detached
from kling_nb.engine.folder_state import kept_clip
from kling_nb.engine.job import Job
from kling_nb.engine.schedule import back_off
from kling_nb.engine.watch import FORGOTTEN_READS, check_account, reported, sandbox_gone
from kling_nb.errors import KlingError, StoreError, TransportError
from kling_nb.media.probe import NotVideoError
from kling_nb.network.download import DownloadError
from kling_nb.providers.base import Snapshot
from kling_nb.records.base import utc_now
from kling_nb.records.run import MediaFacts, RunRecord, RunStatus, ids_of

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
        DetachedError: Somebody stopped it.
        KlingError: The account is not allowed to read the run.
    """
    strange, forgotten, last = 0, 0, "the provider gave no link to the clip."
    for tries in range(job.limits.save_tries):
        await _pause(job, tries)
        with _part(job) as part:
            try:
                # A new reading signs the links anew, which is the cure for an expired one.
                if snapshot is None or not snapshot.video_urls:
                    snapshot = await _read_again(job)
                forgotten += snapshot.state == "not_found"
                if forgotten >= FORGOTTEN_READS:
                    return await _expired(job, snapshot.message)
                if snapshot.video_urls:
                    media = await _fetch(job, snapshot.video_urls[0], part)
                    return await _settle(job, media, snapshot)
            except NotVideoError as error:
                last, snapshot, strange = error.what, None, strange + 1
                if strange >= STRANGE_TRIES:
                    return await _strange(job, part, last)
            except (DownloadError, TransportError) as error:
                last, snapshot = error.what, None
                if job.record.play and isinstance(error, TransportError) and not error.sent and tries:
                    return await sandbox_gone(job)
                if isinstance(error, DownloadError) and error.host_unknown:
                    break
    raise not_fetched(job.record, last)


async def _pause(job: Job, tries: int) -> None:
    if tries:
        first_s = 0.2 if job.loopback else 1.5
        await job.pause(back_off(tries, random=job.clock.random, first_s=first_s, most_s=30))
    if job.detach_wanted:
        what = f"We stopped fetching the clip of run {job.record.id}."
        raise detached(job.record, what, _cure(job.record), job.record.charged)


@contextlib.contextmanager
def _part(job: Job) -> Iterator[Path]:
    """Give a file to download into, gone afterwards; trouble with the disk ends the fetching."""
    # A full disk is not mended by fetching again, and what its error says of money it says of a submit.
    part = None
    try:
        part = job.store.part(job.record)
        yield part
    except (NotVideoError, DownloadError):
        raise
    except StoreError as error:
        raise not_fetched(job.record, error.what) from None
    except OSError as error:
        raise not_fetched(job.record, f"{error.strerror or type(error).__name__}.") from None
    finally:
        if part is not None:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def not_fetched(record: RunRecord, why: str) -> StoreError:
    """Say that the clip is made and paid for, and not here yet."""
    return StoreError(
        f"The clip of run {record.id} is made but not fetched: {why}",
        charged=record.charged,
        cure=_cure(record),
        **ids_of(record),
    )


def _cure(record: RunRecord) -> str:
    return f"`%kling resume {record.id}` fetches it again for free."


async def _read_again(job: Job) -> Snapshot:
    if job.record.provider_run_id is None:
        return Snapshot(state="unreadable")
    snapshot = await job.read()
    check_account(job, snapshot)
    # Done is done: what the provider says of it later, other than where the clip is, changes nothing.
    gone = snapshot.state in {"succeeded", "not_found"}
    return snapshot if gone else Snapshot(state="unreadable")


async def _expired(job: Job, words: str) -> None:
    if (media := await kept_clip(job)) is not None:
        # Whoever fetched it was killed before that was written down.
        return await _settle(job, media, Snapshot(state="not_found"))
    await job.settle(
        "expired",
        status=RunStatus.FAILED,
        reason="expired",
        message=words or "the provider no longer knows the run",
        **_money(job),
    )
    return None


async def _fetch(job: Job, url: str, part: Path) -> MediaFacts:
    await asyncio.to_thread(job.store.check_room)
    with part.open("xb") as sink:
        job.checkpoint("part made")
        got = await job.transport.download(
            url, sink, allowed_hosts=job.provider.media_hosts, allow_loopback=job.loopback
        )
    job.checkpoint("part whole")
    media = await asyncio.to_thread(
        lambda: job.store.keep(
            job.record, part, got.sha256, checkpoint=lambda step: job.checkpoint(f"keep: {step}")
        )
    )
    job.checkpoint("clip kept")
    return media


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
        readings = [snapshot]
        with contextlib.suppress(KlingError):
            readings.insert(0, await _read_again(job))
        figures = [figure for reading in readings if (figure := reported(reading))]
        if figures:
            await job.change("reported", **figures[0])
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
    settled = record.estimate.micros if record.reported_micros is None else record.billed_micros
    # Neither a figure nor a price, or a figure in other money: the charge is unknown in dollars, and what was
    # held back stays held back.
    money = {} if settled is None else {"settled_micros": settled, "reserved_micros": 0}
    # Nothing to pay, as the provider itself says, is no charge.
    return money | ({"charged": "no"} if record.reported_micros == 0 else {})
