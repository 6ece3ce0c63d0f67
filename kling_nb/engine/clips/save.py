"""From the provider's end to a verified file, and the bill.

Invariants: fetching a clip is free and may be repeated; a run is `succeeded` only once its file is whole,
measured and under its final name; a charge the provider reports wins over the list; bytes that were
paid for are never deleted, also when they are no video.
"""

import contextlib
from dataclasses import dataclass
from typing import Any

from kling_nb.engine.clips.fetch import Fetcher, NoClipError
from kling_nb.engine.detach import detached
from kling_nb.engine.folder_state import kept_clip
from kling_nb.engine.job import Job
from kling_nb.engine.polling.lookup import Access
from kling_nb.engine.polling.schedule import back_off
from kling_nb.engine.watch import Denials, check_account, ended_money, reported, sandbox_gone
from kling_nb.errors import KlingError, StoreError, TransportError
from kling_nb.network.download_error import DownloadError
from kling_nb.providers.base import Snapshot
from kling_nb.providers.parsing import charged_by
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
        except NoClipError as none:
            first = none.errors[0]
            state.fail(first.what, first.cure if isinstance(first, DownloadError) else "")
            await job.change("not the clip", message=first.what)
            if all(isinstance(error, DownloadError) and error.host_unknown for error in none.errors):
                break  # Asking again would not help.
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
        await _fetch(job, snapshot, last_try=state.tries + 1 == job.limits.save_tries)
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


async def _fetch(job: Job, snapshot: Snapshot, *, last_try: bool) -> None:
    """Fetch the clip and what else the run made, and end the run with it."""
    fetcher = Fetcher(
        transport=job.transport,
        access=Access(provider=job.provider, key=job.key, account=job.account),
        record=job.record,
        store=job.store,
        checkpoint=job.checkpoint,
    )
    try:
        url, media = await fetcher.first(snapshot.video_urls, set_aside=last_try)
        found = {media.sha256: media}
        for other in snapshot.video_urls[: snapshot.videos]:
            # Another video that cannot be had now holds up nothing.
            with contextlib.suppress(NoClipError):
                if other != url:
                    _, one = await fetcher.first([other])
                    found.setdefault(one.sha256, one)
    # A full disk is not mended by fetching again, and what its error says of money it says of a submit.
    except StoreError as error:
        raise not_fetched(job.record, error.what) from None
    except OSError as error:
        raise not_fetched(job.record, f"{error.strerror or type(error).__name__}.") from None
    await _settle(job, media, [*found.values()][1:], snapshot)


async def _pause(job: Job, tries: int) -> None:
    if tries:
        first_s = 0.2 if job.loopback else 1.5
        await job.pause(back_off(tries, random=job.clock.random, first_s=first_s, most_s=30))
    if job.detach_wanted:
        what = f"We stopped fetching the clip of run {job.record.id}."
        raise detached(job.record, what, _cure(job.record), job.record.charged)


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
