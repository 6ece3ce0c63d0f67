"""From the provider's id to the provider's end.

Invariants: an unreadable answer, an unknown word or a dead network never ends a run; only the provider's own
definite word does: a word of no contract twice in a row, "no such run" for minutes on end. The deadline ends
our watching, not the run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from kling_nb.engine.detach import detached
from kling_nb.engine.folder_state import kept_clip
from kling_nb.engine.job import Job
from kling_nb.engine.polling.follow import Follow
from kling_nb.engine.polling.schedule import back_off
from kling_nb.errors import KlingError, TransportError
from kling_nb.providers.base import Snapshot
from kling_nb.records.base import utc_now
from kling_nb.records.money import micros
from kling_nb.records.run import RunStatus, ids_of

__all__ = ["Denials", "check_account", "ended_money", "reported", "sandbox_gone", "watch", "wrong_account"]

#: Readings that deny a run, at the least, before it is believed to be gone.
_DENIALS = 3
#: What becomes of runs of an in-process sandbox when its kernel ends.
SANDBOX_GONE = "the sandbox that ran it is gone"


async def watch(job: Job, *, new: bool = False) -> Snapshot | None:
    """Read a run until it ends.

    Args:
        job: A run in `queued` or `running`.
        new: Whether it was accepted just now, so that it need not be read at once.

    Returns:
        The last reading of a run that made a clip (now `saving`), else None.

    Raises:
        DetachedError: The deadline passed, or somebody stopped the watching.
        KlingError: The account is not allowed to read the run.
    """
    # The pace follows the run's own age; the deadline counts from when we began to watch.
    began = job.clock.monotonic()
    started = began - max(0.0, (utc_now() - (job.record.accepted_at or utc_now())).total_seconds())
    follow = await job.poller.follow(job, started, began + job.limits.watch_s)
    try:
        return await _watch(job, follow, follow.wait_s(first=True) if new else 0.0)
    finally:
        job.poller.leave(follow)


async def _watch(job: Job, follow: Follow, wait: float) -> Snapshot | None:
    record, state = job.record, ReadState(Denials(job))
    while True:
        _check_deadline(job, follow.until)
        snapshot = await _read(job, state, follow, wait)
        wait = 0.0
        if snapshot is None:
            continue
        if snapshot.state == "succeeded":
            job.checkpoint("end read")
            await job.change(
                "done at the provider",
                **_facts(snapshot),
                status=RunStatus.SAVING,
                charged="no" if record.play or reported_micros(snapshot) == 0 else "yes",
                finished_at=utc_now(),
                queue_position=None,
                message="",
                **_known_bill(job, snapshot),
            )
            job.checkpoint("end in the ledger")
            return snapshot
        if snapshot.state in {"failed", "canceled"}:
            if state.denials.count and await kept_clip(job) is not None:
                # An older copy of the ledger: the clip was fetched while the provider still knew it.
                paid = "no" if record.play else "yes"
                await job.change(
                    "clip found", status=RunStatus.SAVING, charged=paid, queue_position=None, message=""
                )
            else:
                await finish(job, snapshot)
            return None
        await _going(job, snapshot)
        if state.unknown_since is not None and (
            job.clock.monotonic() - state.unknown_since > job.limits.unknown_s
        ):
            # Nobody knows what it does: others need not wait for it.
            await job.give_place()
        wait = snapshot.retry_after_s or follow.wait_s()


def _check_deadline(job: Job, until: float) -> None:
    if job.detach_wanted:
        raise detached(job.record, f"We stopped watching run {job.record.id}.", _goes_on(job))
    if job.clock.monotonic() >= until:
        what = f"Run {job.record.id} has not ended in {job.limits.watch_s / 60:.0f} minutes"
        raise detached(job.record, f"{what}, so we stopped watching.", _goes_on(job))


def _goes_on(job: Job) -> str:
    return f"It goes on at {job.provider.label}: `%kling resume {job.record.id}`, or run the cell again."


@dataclass
class Denials:
    """Readings in a row that say the same nothing: no such run, or a success without a clip.

    Args:
        job: Whose clock and limits count.
        count: How many there were.
        since: When the first one came.
    """

    job: Job
    count: int = 0
    since: float = 0.0

    def add(self) -> bool:
        """Count one; whether they are to be believed by now."""
        now = self.job.clock.monotonic()
        self.since = self.since if self.count else now
        self.count += 1
        return self.count >= _DENIALS and now - self.since >= self.job.denied_s

    def clear(self) -> None:
        """Forget them: the provider said something else."""
        self.count = 0


@dataclass
class ReadState:
    """What the readings before say of the next one.

    Args:
        denials: How long the provider has denied the run.
        failures: How often in a row it could not be read.
        odd_end: The end that the reading before said in a word of no contract.
        unknown_since: Since when its word says nothing.
    """

    denials: Denials
    failures: int = 0
    odd_end: str = ""
    unknown_since: float | None = None


async def _read(job: Job, state: ReadState, follow: Follow, wait: float) -> Snapshot | None:
    """Read once, after a wait; None where the reading decides nothing, or somebody had a wish."""
    random, first_s, most_s = job.clock.random, job.wait_s(2.0), max(job.wait_s(30.0), 0.5)
    try:
        snapshot = await job.poller.read(follow, wait)
    except TransportError as error:
        state.failures += 1
        if job.record.play and not error.sent and state.failures >= 2:
            return Snapshot(state="failed", reason="expired", charged="no", message=SANDBOX_GONE)
        await job.pause(back_off(state.failures, random=random, first_s=first_s, most_s=most_s))
        return None
    if snapshot is None or snapshot.state == "unreadable":
        if snapshot is not None:
            await _unreadable(job, state, snapshot, first_s)
        return None
    state.failures = 0
    check_account(job, snapshot)
    if snapshot.state == "not_found":
        return await _denied(job, state.denials, snapshot)
    state.denials.clear()
    if snapshot.state != "unknown":
        state.unknown_since = None
    elif state.unknown_since is None:
        state.unknown_since = job.clock.monotonic()
    before, state.odd_end = state.odd_end, "" if snapshot.certain else f"{snapshot.state} {snapshot.word}"
    if state.odd_end and state.odd_end != before:
        # One such reading may be a slip of something in between; two in a row are not.
        await job.pause(back_off(1, random=random, first_s=first_s))
        return None
    return snapshot


async def _unreadable(job: Job, state: ReadState, snapshot: Snapshot, first_s: float) -> None:
    """Wait as the provider asks, or longer each time."""
    state.failures += 1
    await job.change("unreadable", message=snapshot.message)
    asked, most_s = snapshot.retry_after_s, max(job.wait_s(60.0), 1.0)
    wait = back_off(state.failures, random=job.clock.random, first_s=first_s, most_s=most_s)
    await job.pause(wait if asked is None else asked)


async def _denied(job: Job, denials: Denials, snapshot: Snapshot) -> Snapshot | None:
    if denials.add():
        words = snapshot.message or "the provider no longer knows the run"
        return Snapshot(state="failed", reason="expired", message=words)
    first_s, most_s = job.wait_s(5.0), max(job.wait_s(30.0), 0.5)
    await job.pause(back_off(denials.count, random=job.clock.random, first_s=first_s, most_s=most_s))
    return None


async def sandbox_gone(job: Job) -> None:
    """End a play run whose sandbox died with its kernel: no money is at stake."""
    await finish(job, Snapshot(state="failed", reason="expired", charged="no", message=SANDBOX_GONE))


def check_account(job: Job, snapshot: Snapshot) -> None:
    """Refuse a reading that says, or may only mean, that the run is there but not for this key."""
    if snapshot.state == "wrong_account" or (snapshot.state == "not_found" and not job.same_account):
        raise wrong_account(job)


def wrong_account(job: Job) -> KlingError:
    """Give the error of a run that was asked for with another account's key."""
    return KlingError(
        f"Run {job.record.id} belongs to another {job.provider.label} account.",
        charged="unknown",
        cure="It is not lost: use the key that made it, then run the cell again.",
        **ids_of(job.record),
    )


async def _going(job: Job, snapshot: Snapshot) -> None:
    record = job.record
    changes: dict[str, Any] = {"queue_position": snapshot.queue_position}
    if snapshot.state == "running" or (snapshot.state == "unknown" and record.status == RunStatus.RUNNING):
        changes["status"] = RunStatus.RUNNING
        changes["queue_position"] = None
        if record.started_at is None and snapshot.state == "running":
            changes["started_at"] = utc_now()
    changes["message"] = snapshot.message
    await job.change("read", **changes)


async def finish(job: Job, snapshot: Snapshot) -> None:
    """End a run that made no clip."""
    canceled = snapshot.state == "canceled"
    charged = "no" if job.record.play else snapshot.charged
    figure = reported(snapshot)
    await job.settle(
        "canceled" if canceled else "failed",
        **_facts(snapshot),
        status=RunStatus.CANCELED if canceled else RunStatus.FAILED,
        reason="canceled" if canceled else (snapshot.reason or "provider"),
        charged=charged,
        message=snapshot.message,
        finished_at=utc_now(),
        queue_position=None,
        **figure,
        **ended_money(job, charged, figure),
    )


def ended_money(job: Job, charged: str, figure: Mapping[str, Any]) -> dict[str, Any]:
    """Say what an ended run does to the books; an unknown charge keeps its reservation.

    Args:
        job: The run.
        charged: Whether it was charged.
        figure: What `reported` gave.
    """
    if figure:
        dollars = figure["currency"] == "USD" or not figure["reported_micros"]
        return {"settled_micros": figure["reported_micros"], "reserved_micros": 0} if dollars else {}
    if charged == "no":
        return {"settled_micros": 0, "reserved_micros": 0}
    if charged == "yes" and job.record.estimate.micros is not None:
        return {"settled_micros": job.record.estimate.micros, "reserved_micros": 0}
    return {}


def reported(snapshot: Snapshot) -> dict[str, Any]:
    """Give what a reading does to a record's reported figure; empty where it gives none."""
    figure = reported_micros(snapshot)
    return {} if figure is None else {"reported_micros": figure, "currency": snapshot.currency}


def _known_bill(job: Job, snapshot: Snapshot) -> dict[str, Any]:
    """Take the bill down; one above what is held back counts from now on, not only once the clip is here."""
    figure = reported(snapshot)
    if figure and figure["currency"] == "USD" and job.record.reserved_micros:
        figure["reserved_micros"] = max(figure["reported_micros"], job.record.reserved_micros)
    return figure


def reported_micros(snapshot: Snapshot) -> int | None:
    """Turn the provider's own figure into millionths of its currency; None where it gives none."""
    if snapshot.cost is None:
        return None
    try:
        amount = Decimal(snapshot.cost)
    except InvalidOperation:
        return None
    return micros(amount) if amount.is_finite() and amount >= 0 else None


def _facts(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "nsfw_detected": snapshot.nsfw_detected,
        "seed": snapshot.seed,
        "timing": dict(snapshot.timing) if snapshot.timing is not None else None,
    }
