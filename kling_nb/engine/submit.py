"""From the intent on disk to the provider's id on disk: the one step that costs money.

Invariants: `submitting` is committed before the POST leaves; a POST is sent again only where the request
provably never left, where the provider refused it for its rate, or where two reads proved that it made no
run, at most three times over; everything else is `lost`, and stays so until a person resolves it.
"""

import asyncio
import contextlib
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from kling_nb.engine.detach import detached
from kling_nb.engine.folder_state import follow_sender, kept_id
from kling_nb.engine.job import HeldIdError, Job
from kling_nb.engine.polling.schedule import back_off
from kling_nb.engine.watch import sandbox_gone, wrong_account
from kling_nb.errors import (
    DetachedError,
    KeyMissingError,
    KlingError,
    SettingsError,
    TransportError,
    UsageError,
)
from kling_nb.ledger.places import NoPlaceError, lower, place_key
from kling_nb.ledger.transaction import Transaction
from kling_nb.providers.base import Accepted, Found, Refused, Snapshot, SubmitAnswer
from kling_nb.providers.messages import Call
from kling_nb.records.base import utc_now
from kling_nb.records.privacy import is_redacted, redacted
from kling_nb.records.provenance import Sent
from kling_nb.records.run import RunStatus, ids_of, unsent_end, with_who

__all__ = ["cancel_unsent", "not_sent", "recover", "submit"]

ELSEWHERE = "another kernel sends the same request from this folder"
#: Proofs that a POST made no run, each by two reads of its own and each good for one more POST.
MOST_PROOFS = 3
#: Seconds after which a place comes back that a refusal for the rate took, and then the next.
PLACE_BACK_S = 60
#: Pages of one list that are read before it is called unclear, and reads that may fail meanwhile.
MOST_PAGES, MOST_FAILURES = 50, 8


async def submit(job: Job) -> None:
    """Send a run whose intent is committed.

    Args:
        job: A run in `created`.
    """
    retries, why = RetryState(job.clock.monotonic()), "canceled before"
    while not job.run.cancel_wanted:
        sending = await _commit(job, retries)
        if sending is None:
            continue
        if not sending:
            why = ELSEWHERE
            break
        try:
            answer = await _answer(job)
        except TransportError as error:
            if error.sent:
                return await recover(job, error.what)
            if await _unsent(job, retries, error):
                continue
            return None
        except (SettingsError, UsageError) as error:
            # The transport would not write it: a malformed key, an address outside the origin.
            sound = "provider" if isinstance(error, SettingsError) else "invalid"
            reason = "auth" if isinstance(error, KeyMissingError) else sound
            words = " ".join(filter(None, (error.what, error.cure)))
            return await end(job, "unsendable", RunStatus.FAILED, words, reason=reason)
        job.checkpoint("answer read")
        if not isinstance(answer, Refused):
            unclear = await accept(job, answer) if isinstance(answer, Accepted) else answer.message
            return await recover(job, unclear) if unclear else None
        if not await _limited(job, retries, answer):
            return await refuse(job, answer)
    return await cancel_unsent(job, why)


async def _commit(job: Job, retries: "RetryState") -> bool | None:
    """Commit that the run is being sent; None where it kept a place that there is no more, and has waited."""
    if job.detach_wanted:
        raise not_sent(job)
    try:
        return await job.commit_to_send(
            "submitting",
            at=RunStatus.CREATED,
            sent=_noted(job),
            status=RunStatus.SUBMITTING,
            submitted_at=utc_now(),
            # The key may have changed since the intent was written: this is the account that answers for it.
            account=job.account or job.record.account,
            origin=job.provider.base_url,
            message="",
        )
    except NoPlaceError:
        if not retries.limited + retries.unsent:
            raise
        # It goes on when enough of the others have ended.
        await job.pause((0.2 if job.loopback else 1.0) * (0.5 + job.clock.random.random()))
        return None


async def _answer(job: Job) -> SubmitAnswer:
    """Send the POST."""
    return job.provider.read_submit(await job.send(submit_call(job)))


async def cancel_unsent(job: Job, why: str) -> None:
    """End a run that was certainly never sent."""
    await end(job, "canceled", RunStatus.CANCELED, why, reason="canceled")


def not_sent(job: Job) -> DetachedError:
    """Say that we stopped before the run was sent."""
    return detached(
        job.record,
        f"We stopped before run {job.record.id} was sent.",
        "Run the cell again to send it.",
        charged="no",
    )


@dataclass
class RetryState:
    """How hard it was tried so far.

    Args:
        started: On the job's clock.
        unsent: Tries that did not reach the provider.
        limited: Tries that the provider refused for their rate.
    """

    started: float
    unsent: int = 0
    limited: int = 0


async def _unsent(job: Job, retries: RetryState, error: TransportError) -> bool:
    """Wait after a try that provably did not leave; False, and the run ended, after too many."""
    retries.unsent += 1
    if job.record.play and retries.unsent >= 2:
        await sandbox_gone(job)
        return False
    if retries.unsent >= job.limits.unsent_tries:
        words = f"{error.what} Nothing was sent in {retries.unsent} tries."
        await end(job, "unreachable", RunStatus.FAILED, words)
        return False
    # Back to `created` first: should we be killed while waiting, it was certainly not sent.
    await job.change("unsent", status=RunStatus.CREATED, message=error.what)
    first_s = 0.2 if job.loopback else 1.0
    await job.pause(back_off(retries.unsent, random=job.clock.random, first_s=first_s, most_s=20))
    return True


async def _limited(job: Job, retries: RetryState, answer: Refused) -> bool:
    """Wait as the provider asks; False where the refusal is final or the time is over."""
    retries.limited += 1
    if not answer.resend or job.clock.monotonic() - retries.started > job.limits.submit_s:
        return False
    key, sent_at = place_key(job.record), job.record.submitted_at
    # Now and then one is refused for its rate; twice in a row it is the number of runs that is too high.
    often = retries.limited > 1

    def first(transaction: Transaction) -> None:
        if often:
            lower(transaction, key, sent_at, job.wait_s(PLACE_BACK_S))

    await job.change(
        "limited",
        first=first,
        status=RunStatus.CREATED,
        message=f"the provider asks to wait: {answer.message}",
    )
    if often:
        job.slowed()
    first_s = 0.2 if job.loopback else 2.0
    wait = answer.retry_after_s
    await job.pause(
        back_off(retries.limited, random=job.clock.random, first_s=first_s) if wait is None else wait
    )
    return True


def submit_call(job: Job) -> Call:
    """Build the POST; the same record always gives the same POST."""
    record = job.record
    if is_redacted(record):
        raise UsageError(
            f"Run {record.id} is private, and only the hash of its words is here.",
            cure="Nothing was sent. Run its own cell, which has the words.",
            run_id=record.id,
        )
    who = {"user": record.user, "project": record.project, "session_id": record.session_id}
    called = record.callback_url
    call = job.provider.submit_call(
        record.request,
        record.provider_model,
        client_ref=record.client_ref,
        # A callback carries it to wherever it was asked for.
        metadata=with_who(redacted(record).metadata, **who, run_id=record.id if called else ""),
        callback_url=called,
    )
    return replace(call, headers={**call.headers, **job.provider.private_headers}) if record.private else call


def _noted(job: Job) -> Sent | None:
    """Give what the POST will say, for the record; None where it cannot be built, and so is never sent."""
    try:
        call = submit_call(job)
        # A receipt is shared, and the address tells whose machine is called.
        body = {name: value for name, value in (call.json or {}).items() if name != "callback_url"}
        return Sent.of(call.url, body, private=job.record.private)
    except (KlingError, ValueError, TypeError, RecursionError):
        return None


async def accept(job: Job, answer: Accepted) -> str:
    """Commit the provider's id, first thing after it is known; give why it cannot be this run's, or ''."""
    now, running = utc_now(), answer.snapshot.state == "running"
    try:
        await job.settle(
            "accepted",
            status=RunStatus.RUNNING if running else RunStatus.QUEUED,
            provider_run_id=answer.provider_run_id,
            accepted_at=now,
            started_at=now if running else None,
            queue_position=answer.snapshot.queue_position,
            charged="unknown",
            message="",
        )
    except HeldIdError as held:
        return f"{job.provider.label} answered with the id of run {held.run_id}"
    return ""


async def refuse(job: Job, answer: Refused) -> None:
    """End a run the provider never made."""
    await end(job, "refused", RunStatus.FAILED, answer.message, answered=True, reason=answer.reason)


async def end(job: Job, kind: str, status: RunStatus, message: str, **changes: Any) -> None:
    """End a run that certainly cost nothing, and give its reservation back."""
    await job.settle(kind, **unsent_end(status, message, **changes))


async def recover(job: Job, why: str) -> None:
    """Find out what became of a POST whose answer never came.

    Args:
        job: A run in `submitting`, also one that another process left behind.
        why: What is known of the failure.

    Raises:
        KlingError: It cannot be found out now, or not with this key, or not by us; the run stays as it is.
    """
    if job.record.play:
        await sandbox_gone(job)
        return
    if not job.same_account:
        # Another account's silence proves nothing.
        raise wrong_account(job)
    ours = await asyncio.to_thread(_is_ours, job)
    if not ours and (kept := await follow_sender(job)) is not None:
        await end(job, "ended elsewhere", kept.status, kept.message, reason=kept.reason)
        return
    found: str | bool | None = await asyncio.to_thread(kept_id, job)
    if found is None and job.provider.can_look_up:
        found = await _look_twice(job)
        if found is None:
            raise _unclear(job, why)
        if found is True:
            if not ours:
                raise _not_ours(job)
            if not job.may_send:
                await cancel_unsent(job, "it never reached the provider")
                return
            found, why = await _send_again(job)
            if job.record.status != RunStatus.SUBMITTING:
                return
    await _conclude(job, found, why)


async def _conclude(job: Job, found: object, why: str) -> None:
    """Take the run that was found; where none was, nobody can find out."""
    if isinstance(found, str):
        why = await accept(job, Accepted(provider_run_id=found, snapshot=Snapshot(state="queued")))
    if not isinstance(found, str) or why:
        await job.lose(why)


def _is_ours(job: Job) -> bool:
    """Whether this ledger made the run, and did not only learn of it from a folder."""
    return job.ledger.events(job.record.id)[0][1] == "created"


def _unclear(job: Job, why: str) -> KlingError:
    return KlingError(
        f"Whether {job.provider.label} made run {job.record.id} could not be found out: {why}",
        charged="unknown",
        cure=f"Nothing was sent again. `%kling resume {job.record.id}` looks once more; if you know better: "
        f"`%kling resolve {job.record.id} --attach PROVIDER_ID` or `--abandon`.",
        **ids_of(job.record),
    )


def _not_ours(job: Job) -> KlingError:
    return KlingError(
        f"Run {job.record.id} is known from the folder only, and {job.provider.label} has no such run yet.",
        charged="unknown",
        cure="Whoever made it may still send it, so nothing was sent here. Ask them, or change the prompt.",
        **ids_of(job.record),
    )


async def _send_again(job: Job) -> tuple[str | bool | None, str]:
    """Send a run that two full reads have proved absent, and again after each new proof."""
    found: str | bool | None = True
    why = ""
    for _ in range(MOST_PROOFS):
        answer = await _resend(job)
        why = answer.message if isinstance(answer, Refused) else answer
        if job.record.status != RunStatus.SUBMITTING:
            break
        found = await _look_twice(job)
        if found is not True or isinstance(answer, Refused):
            break
    return found, why


async def _resend(job: Job) -> str | Refused:
    """Send the same POST once more; give what is unclear about it, or '' where it was accepted."""
    # A refusal other than for the rate (say, of a duplicate) does not speak for the POSTs before it.
    why, wait = "", None
    for tries in range(1, 6):
        if tries > 1:
            await job.sleep(back_off(tries - 1, random=job.clock.random) if wait is None else wait)
        noted = _noted(job)
        if not await job.commit_to_send(
            "resent", at=RunStatus.SUBMITTING, sent=noted, submitted_at=utc_now()
        ):
            return ELSEWHERE
        try:
            answer = await _answer(job)
        except TransportError as error:
            if error.sent:
                return error.what
            why, wait = error.what, None
        else:
            if isinstance(answer, Accepted):
                return await accept(job, answer)
            if not isinstance(answer, Refused):
                return answer.message
            if not answer.resend:
                return answer
            why, wait = answer.message, answer.retry_after_s
    return why


async def _look_twice(job: Job) -> str | bool | None:
    """Give the id of the run that carries our reference, True for a proven absence, None for unclear."""
    for number in range(2):
        if number:
            await job.sleep(job.look_again_s)
        found = await _look(job)
        if found is not True:
            return found
    return True


async def _look(job: Job) -> str | bool | None:
    record, failed = job.record, 0
    since = ((record.submitted_at or record.created_at) - timedelta(minutes=5)).isoformat()

    async def page(call: Call) -> Found | None:
        """Read a page, and again where that fails for a moment; None once it failed too often."""
        nonlocal failed
        in_a_row = 0
        while True:
            with contextlib.suppress(TransportError):
                reply = await job.send(call)
                found = job.provider.read_lookup(reply, record.client_ref, since=since)
                # A filter that is not understood is refused for good.
                refused = 400 <= reply.status < 500 and reply.status != 429
                if found.readable or found.provider_run_ids or refused:
                    return found
            failed, in_a_row = failed + 1, in_a_row + 1
            if failed == MOST_FAILURES:
                return None
            first_s, most_s = (0.2, 1.0) if job.loopback else (2.0, 30.0)
            await job.sleep(back_off(in_a_row, random=job.clock.random, first_s=first_s, most_s=most_s))

    complete = False
    for call in job.provider.lookup_calls(record.client_ref):
        following: Call | None = call
        complete = False
        for _ in range(MOST_PAGES):
            if following is None:
                break
            if (found := await page(following)) is None:
                return None
            if found.provider_run_ids:
                return found.provider_run_ids[0]
            following, complete = found.more if found.readable else None, found.readable
        # Only the last call, the unfiltered list read to its end, can prove an absence.
        complete = complete and following is None
    return True if complete else None
