"""From the provider's end to a verified file, and the bill.

Invariants: fetching a clip is free and may be repeated; a run is `succeeded` only once its file is whole,
measured and under its final name; a charge the provider reports wins over the list; bytes that were
paid for are never deleted, also when they are no video.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kling_nb.engine.detach import detached
from kling_nb.engine.folder_state import kept_clip
from kling_nb.engine.job import Job
from kling_nb.engine.schedule import back_off
from kling_nb.engine.watch import Denials, check_account, ended_money, reported, sandbox_gone
from kling_nb.errors import KlingError, StoreError, TransportError
from kling_nb.media.probe import NotVideoError
from kling_nb.network.download import DownloadError
from kling_nb.providers.base import Snapshot
from kling_nb.providers.parsing import charged_by, say
from kling_nb.records.base import utc_now
from kling_nb.records.run import MediaFacts, RunRecord, RunStatus, ids_of

__all__ = ["cost_note", "save", "settled_money"]


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
    state = _State(snapshot, denials=Denials(job), empty=Denials(job))
    while state.tries < job.limits.save_tries:
        await _pause(job, max(state.denials.count, state.empty.count, state.tries))
        try:
            if await _step(job, state):
                return None
        except _NotTheClipError as error:
            state.fail(error.what, error.cure)
            await job.change("not the clip", message=error.what)
            if error.final:
                break
        except TransportError as error:
            if job.record.play and not error.sent and state.tries:
                return await sandbox_gone(job)
            state.fail(error.what)
    raise not_fetched(job.record, state.last, state.cure)


@dataclass
class _State:
    """What the readings and downloads so far say.

    Args:
        snapshot: The last reading, while its links are good.
        denials: Readings that deny the run.
        empty: Readings of a success that name no clip.
        tries: Downloads and readings that failed.
        last: Why there is no clip yet.
        cure: What else there is to do about it.
    """

    snapshot: Snapshot | None
    denials: Denials
    empty: Denials
    tries: int = 0
    last: str = "the provider gave no link to the clip."
    cure: str = ""

    def fail(self, why: str, cure: str = "") -> None:
        self.snapshot, self.last, self.cure, self.tries = None, why, cure, self.tries + 1


async def _step(job: Job, state: _State) -> bool:
    """Read and fetch once; whether the run has ended by it."""
    # A new reading signs the links anew, which is the cure for an expired one.
    if state.snapshot is None or not state.snapshot.video_urls:
        state.snapshot = await _read_again(job)
    snapshot = state.snapshot
    if snapshot.video_urls:
        await _fetch_first(job, snapshot, last_try=state.tries + 1 == job.limits.save_tries)
        return True
    state.last = snapshot.message or state.last
    if snapshot.state == "not_found":
        if state.denials.add():
            await _expired(job, snapshot.message)
    elif snapshot.state == "succeeded" and not snapshot.unusable:
        if state.empty.add():
            await _no_clip(job, snapshot)
    else:
        state.tries += 1
    return job.record.status.ended


class _NotTheClipError(Exception):
    """None of a reading's addresses gave the clip; `final` where asking again would not help."""

    def __init__(self, errors: list[KlingError]) -> None:
        super().__init__()
        self.what = errors[0].what
        self.cure = errors[0].cure if isinstance(errors[0], DownloadError) else ""
        self.final = all(isinstance(error, DownloadError) and error.host_unknown for error in errors)


async def _fetch_first(job: Job, snapshot: Snapshot, *, last_try: bool) -> None:
    """Fetch from the first address that gives a video, and end the run with it."""
    errors: list[KlingError] = []
    for url in snapshot.video_urls:
        with _part(job) as part:
            try:
                media = await _fetch(job, url, part)
            except NotVideoError as error:
                errors.append(await _odd_file(job, part, error, keep=last_try))
            except DownloadError as error:
                errors.append(error)
            else:
                others = [other for other in snapshot.video_urls[: snapshot.videos] if other != url]
                return await _settle(job, media, await _further(job, media, others), snapshot)
    raise _NotTheClipError(errors)


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


def not_fetched(record: RunRecord, why: str, cure: str = "") -> StoreError:
    """Say that the clip is made and paid for, and not here yet."""
    return StoreError(
        f"The clip of run {record.id} is made but not fetched: {why}",
        charged=record.charged,
        cure=f"{cure} {_cure(record)}".strip(),
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
        return await _settle(job, media, [], Snapshot(state="not_found"))
    await job.settle(
        "expired",
        status=RunStatus.FAILED,
        reason="expired",
        message=words or "the provider no longer knows the run",
        **settled_money(job.record),
    )
    return None


async def _fetch(job: Job, url: str, part: Path) -> MediaFacts:
    await asyncio.to_thread(job.store.check_room)
    with part.open("xb") as sink:
        job.checkpoint("part made")
        got = await job.transport.download(
            url,
            sink,
            allowed_hosts=job.provider.media_hosts,
            allow_loopback=job.loopback,
            key=job.key,
            origin=job.provider.base_url,
        )
    job.checkpoint("part whole")
    try:
        media = await asyncio.to_thread(
            lambda: job.store.keep(
                job.record, part, got.sha256, checkpoint=lambda step: job.checkpoint(f"keep: {step}")
            )
        )
    except NotVideoError as error:
        kind = say(got.content_type, limit=60) or "no content type"
        what = f"{urlsplit(url).hostname} sent {got.size:,} bytes of {kind}. {error.what}"
        raise NotVideoError(what, charged=error.charged) from None
    job.checkpoint("clip kept")
    return media


async def _further(job: Job, media: MediaFacts, urls: list[str]) -> list[MediaFacts]:
    """Keep the other videos of a run beside its clip; one that cannot be had now holds up nothing."""
    found = [media]
    for url in urls:
        with _part(job) as part, contextlib.suppress(NotVideoError, DownloadError):
            other = await _fetch(job, url, part)
            found += [other] if other.sha256 not in {one.sha256 for one in found} else []
    return found[1:]


async def _odd_file(job: Job, part: Path, error: NotVideoError, *, keep: bool) -> NotVideoError:
    """Say what came in place of a clip; of the last try, its bytes stay: they may have been paid for."""
    if keep and not await asyncio.to_thread(_is_text, part):
        kept = await asyncio.to_thread(job.store.set_aside, job.record, part)
        return NotVideoError(f"{error.what} What came is kept as {kept.name}.", charged=error.charged)
    return error


def _is_text(part: Path) -> bool:
    # Every video has zeros near its start; a page or an error for people has none.
    with part.open("rb") as file:
        return b"\0" not in file.read(4096)


async def _no_clip(job: Job, snapshot: Snapshot) -> None:
    """End a run that its provider calls done and that goes on having no clip; charged as it reports."""
    figure = reported(snapshot)
    charged = "no" if job.record.play else charged_by(snapshot.cost, "unknown")
    await job.settle(
        "no clip",
        status=RunStatus.FAILED,
        reason="provider",
        charged=charged,
        message=f"{job.provider.label} says it is done, and gave no clip.",
        **figure,
        **ended_money(job, charged, figure),
    )


async def _settle(job: Job, media: MediaFacts, further: list[MediaFacts], snapshot: Snapshot) -> None:
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
        further=[one.model_dump() for one in further],
        folder=str(job.store.folder),
        saved_at=utc_now(),
        message=cost_note(job.provider.label, snapshot),
        **settled_money(job.record),
    )


def cost_note(label: str, snapshot: Snapshot) -> str:
    """Return a sentence on a cost that cannot be read, or ''."""
    words = snapshot.cost_words
    return f"{label} writes the cost as {words!r}, which cannot be read." if words else ""


def settled_money(record: RunRecord) -> dict[str, Any]:
    """Return what the end with a clip does to the books.

    Args:
        record: The run, with what its provider reported.
    """
    settled = record.estimate.micros if record.reported_micros is None else record.billed_micros
    # Neither a figure nor a price, or a figure in other money: the charge is unknown in dollars, and what was
    # held back stays held back.
    money = {} if settled is None else {"settled_micros": settled, "reserved_micros": 0}
    # Nothing to pay, as the provider itself says, is no charge.
    return money | ({"charged": "no"} if record.reported_micros == 0 else {})
