"""Runflow's wire: nested `input`, string durations, one run object, look-up by our own reference.

Invariants: sound and duration are always sent, because the listed price is for silence and defaults are
not documented; every submit carries our reference, because an answer may be lost; a look-up never takes
a run whose reference differs, whatever the filter claims to have done.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, ClassVar, Literal
from urllib.parse import quote

from kling_nb.errors import UnsupportedError, UsageError
from kling_nb.providers.answers import Reading, read_cost, read_run, video_urls
from kling_nb.providers.base import (
    Accepted,
    Account,
    Ambiguous,
    Asked,
    Found,
    Provider,
    Row,
    RunList,
    Snapshot,
    SubmitAnswer,
)
from kling_nb.providers.messages import Call, Reply
from kling_nb.providers.parsing import (
    DECODER,
    ERROR_NAMES,
    ErrorBody,
    charged_by,
    error_body,
    fields,
    is_moderated,
    moment,
    money,
    plain,
    read_refusal,
    safe_id,
    same_id,
    say,
    unreadable,
    usable_id,
    whole,
)
from kling_nb.providers.runflow_input import read_input, write_input
from kling_nb.providers.runflow_list import MANY, NEWEST_FIRST, next_page, reaches, read_page
from kling_nb.records.request import TextToVideo
from kling_nb.records.run import FailReason

__all__ = ["Runflow"]

_REFERENCE = re.compile(r"[A-Za-z0-9._:-]{1,255}")
_STATES: Mapping[str, Literal["queued", "running", "succeeded", "failed", "canceled"]] = {
    "queued": "queued",
    "dispatching": "queued",
    "running": "running",
    "succeeded": "succeeded",
    "partial_succeeded": "succeeded",
    "failed": "failed",
    "canceled": "canceled",
    "cancelled": "canceled",
}
_REASONS: Mapping[str, FailReason] = {
    "UNAUTHORIZED": "auth",
    "PERMISSION_DENIED": "auth",
    "EMAIL_NOT_VERIFIED": "auth",
    "INSUFFICIENT_CREDIT": "credit",
    "INSUFFICIENT_CREDITS": "credit",
}
_PARTLY = "Runflow finished a part of the run, and no video."
_WITHHELD = "Runflow found the video indecent and gave none."


class Runflow(Provider):
    """Runflow's wire, after its public API reference.

    Example:
        >>> Runflow().poll_call("0192f0c1").url
        'https://api.runflow.io/v1/runs/0192f0c1'
    """

    name = "runflow"
    label = "Runflow"
    default_url: ClassVar[str] = "https://api.runflow.io"
    can_look_up = can_call_back = True

    def check(self, request: TextToVideo) -> None:
        """Refuse a prompt beside shots: Runflow documents one or the other.

        Raises:
            UnsupportedError: Both are there.
        """
        if request.prompt is not None and request.shots:
            raise UnsupportedError(
                "Runflow takes a prompt or shots, not both.",
                cure="Drop the prompt, or send it to runcomfy.",
                provider=self.name,
            )

    def submit_call(
        self,
        request: TextToVideo,
        provider_model: str,
        *,
        client_ref: str,
        metadata: Mapping[str, Any] | None = None,
        callback_url: str | None = None,
    ) -> Call:
        """Build the one call that costs money.

        Args:
            request: A request that passed `check`.
            provider_model: Runflow's id of the model; its slashes stay.
            client_ref: Our reference, 1 to 255 characters of `A-Z a-z 0-9 . _ : -`.
            metadata: Kept by Runflow with the run.
            callback_url: What it calls when the run has ended, at most 2,048 characters.

        Returns:
            The call, with the reference in the body and as `Idempotency-Key`. That header is documented for
            batches only; it can help and does no harm.

        Raises:
            UsageError: The reference cannot be looked up safely.
        """
        body: dict[str, Any] = {"input": write_input(request), "client_ref": _reference(client_ref)}
        if metadata:
            body["metadata"] = dict(metadata)
        if callback_url:
            body["callback_url"] = callback_url
        return Call(
            method="POST",
            url=f"{self.base_url}/v1/models/{quote(provider_model, safe='/')}/runs",
            json=body,
            headers={"Idempotency-Key": client_ref},
            paid=True,
        )

    def read_submit(self, reply: Reply) -> SubmitAnswer:
        """Say what the answer to the submit means for money.

        Args:
            reply: Any answer; the documented one is 201 and the run object.

        Returns:
            `Accepted` for any 2xx with a usable `id`; `Refused` for a documented refusal in a readable
            body; else `Ambiguous`.
        """
        if not reply.ok:
            return read_refusal(reply, self.label, _REASONS)
        data = fields(reply)
        run = read_run(data, "id") if data is not None else None
        run_id = usable_id(run.run_id) if run is not None else None
        if run is None or run_id is None:
            return Ambiguous(message=f"{self.label} answered HTTP {reply.status} without a usable run id")
        return Accepted(provider_run_id=run_id, snapshot=self._snapshot(run, run_id))

    def poll_call(self, provider_run_id: str) -> Call:
        """Build the call that reads a run; it also signs the clip's address afresh.

        Raises:
            UsageError: This is no run id.
        """
        return Call(method="GET", url=f"{self.base_url}/v1/runs/{safe_id(provider_run_id, self.label)}")

    def read_poll(
        self,
        reply: Reply,
        provider_run_id: str,
        after: Snapshot | None = None,  # noqa: ARG002 - one reply decides on this wire
    ) -> Snapshot:
        """Read a run object, or say what kind of no answer this is.

        Args:
            reply: The answer to `poll_call`.
            provider_run_id: The run that was asked for.
            after: Not used.

        Returns:
            The reading. A 404 counts as "no such run" only where Runflow itself says so, not a gateway.
        """
        data = fields(reply)
        run = read_run(data, "id") if data is not None else None
        if reply.ok and run is not None and (run.run_id is not None or "status_code" in run.run):
            if same_id(run.run_id, provider_run_id):
                return self._snapshot(run, provider_run_id)
            return Snapshot(state="unreadable", message=f"{self.label} answered about another run")
        found = error_body(data)
        no_answer = unreadable(reply, self.label)
        if found is None or reply.status not in {403, 404}:
            return no_answer
        if found.code in {"PERMISSION_DENIED", "FORBIDDEN"} or (reply.status == 403 and not found.code):
            return replace(no_answer, state="wrong_account")
        if reply.status == 403:
            return replace(no_answer, reason="auth")
        # Without a code, a bare "not found" is also what a wrong path or a gateway says.
        known = found.code or found.words.lower().strip(". ") != "not found"
        return replace(no_answer, state="not_found") if known else no_answer

    def _snapshot(self, reading: Reading, run_id: str) -> Snapshot:
        run, said = reading.run, reading.word
        state = reading.state(_STATES, run_id)
        if state is None:
            return Snapshot(
                state="unknown", word=said, message=f"Runflow says {said or 'nothing'!r}: still going."
            )
        if state in {"queued", "running"}:
            return Snapshot(state=state, word=said)
        cost, failure = read_cost(run), _failure(run)
        base = Snapshot(
            state=state,
            word=said,
            certain=said in _STATES,
            cost=cost.amount,
            currency=cost.currency,
            cost_words=cost.words,
        )
        if state == "canceled":
            charged = charged_by(cost.amount, "unknown")
            return replace(base, reason="canceled", charged=charged, message=failure.text)
        if state == "failed":
            # Runflow's price page: failed runs are not charged. A cost it reports all the same outranks
            # that, and a word that it does not document says nothing of the charge.
            charged = charged_by(cost.amount, "no" if base.certain else "unknown")
            return replace(base, reason=_reason(failure), charged=charged, message=failure.text)
        return self._finished(run, base, failure.text)

    def _finished(self, run: Mapping[str, Any], base: Snapshot, complaint: str) -> Snapshot:
        output = run.get("output")
        facts = output if isinstance(output, Mapping) else {}
        clips = video_urls(output if output is not None else run.get("outputs"), base=self.base_url)
        nsfw = facts.get("nsfw_detected")
        base = replace(base, nsfw_detected=nsfw if isinstance(nsfw, bool) else None)
        withheld = nsfw is True and not clips.unusable
        if not clips.urls and (withheld or base.word == "partial_succeeded"):
            return replace(
                base,
                state="failed",
                reason="moderated" if nsfw is True else "provider",
                charged=charged_by(base.cost, "unknown"),
                message=complaint or (_WITHHELD if nsfw is True else _PARTLY),
            )
        seed, timing = plain(facts.get("seed"), 0), plain(facts.get("timing"))
        return replace(
            base,
            video_urls=clips.urls,
            videos=clips.videos,
            unusable=clips.unusable,
            charged="yes",
            message=complaint if clips.urls else "Runflow says it is done, but names no video yet.",
            seed=seed if isinstance(seed, int | str) and not isinstance(seed, bool) else None,
            timing=timing if isinstance(timing, Mapping) else None,
        )

    def list_call(self) -> Call | None:
        """Build the call that lists the newest runs of the account."""
        return Call(method="GET", url=f"{self.base_url}/v1/runs", params=MANY)

    def read_list(self, reply: Reply, *, since: str, before: Mapping[str, Row]) -> RunList | None:
        """Read a page of the list.

        Args:
            reply: The answer to `list_call` or to a `more`.
            since: How far back to read, RFC 3339.
            before: The rows of the list before, in their order.

        Returns:
            Its rows; one without a usable id is left out, and its run is read by itself.
        """
        return read_page(reply, self.base_url, since, before)

    def read_row(self, row: Row, provider_run_id: str) -> Snapshot:
        """Read a row of the list: it is a run object like the answer to `poll_call`."""
        return self._snapshot(read_run(DECODER.decode(row.text), "id"), provider_run_id)

    def read_asked(self, reply: Reply) -> Asked:
        """Say what a run was asked for: the run object repeats its `input` and our reference.

        Args:
            reply: The answer to `poll_call`.

        Returns:
            What is there; every field may be missing. `model_id` is documented without saying which id it
            is, so that only one that looks like the model's address counts.
        """
        run = fields(reply) if reply.ok else None
        if run is None:
            return Asked()
        known, strange = read_input(run.get("input"))
        ref, model = run.get("client_ref"), run.get("model_id")
        return Asked(
            client_ref=say(ref, limit=255) if isinstance(ref, str) and ref else None,
            model=say(model, limit=200) if isinstance(model, str) and "/" in model else None,
            fields=known,
            strange=strange,
            created_at=moment(run.get("created_at")),
        )

    def lookup_calls(self, client_ref: str) -> tuple[Call, ...]:
        """Build the look-ups of a lost submit: both documented filter forms, then the plain list.

        Args:
            client_ref: Our reference.

        Returns:
            Three calls. The filter is documented in two ways and may be ignored, so an empty answer to one
            form is "not there" for that form only: read all of them, with their further pages.

        Raises:
            UsageError: The reference cannot be looked up safely.
        """
        ref = _reference(client_ref)
        return tuple(
            Call(method="GET", url=f"{self.base_url}/v1/runs", params={**query, **NEWEST_FIRST})
            for query in ({"q": f"client_ref.EQ:'{ref}'"}, {"q": f"client_ref:{ref}"}, {})
        )

    def read_lookup(self, reply: Reply, client_ref: str, *, since: str) -> Found:
        """Find runs with exactly our reference in one page of a list.

        Args:
            reply: The answer to one of `lookup_calls` or to a `more`.
            client_ref: Our reference.
            since: How far back to read, RFC 3339. It ends the paging and nothing else: a run that carries
                our reference is ours, even where our clock or theirs is wrong.

        Returns:
            What the page proves. Rows without any reference, rows that are no objects and links that lead
            nowhere prove nothing: `readable` is False then.
        """
        page = fields(reply) if reply.ok else None
        rows = page.get("items") if page is not None else None
        if page is None or not isinstance(rows, list):
            return Found(readable=False)
        runs = [row for row in rows if isinstance(row, Mapping)]
        ours = [run for run in runs if run.get("client_ref") == client_ref]
        ids = tuple(dict.fromkeys(i for run in ours if (i := usable_id(run.get("id")))))
        has_refs = not rows or any("client_ref" in run for run in runs)
        readable = bool(ids) or (len(runs) == len(rows) and has_refs and not ours)
        link = page.get("next")
        if link in (None, "", False) or reaches([moment(run.get("created_at")) for run in runs], since):
            return Found(provider_run_ids=ids, readable=readable)
        more = next_page(self.base_url, link, NEWEST_FIRST)
        return Found(provider_run_ids=ids, readable=readable and (more is not None or bool(ids)), more=more)

    def account_call(self, provider_model: str) -> Call:  # noqa: ARG002 - this check needs no model
        """Build a call that checks the key and costs nothing."""
        return Call(method="GET", url=f"{self.base_url}/v1/auth/me")

    def read_account(self, reply: Reply) -> Account:
        """Read the answer to `account_call`.

        Args:
            reply: The answer.

        Returns:
            Whether the key works; None where the answer does not tell.
        """
        if reply.ok and fields(reply):
            return Account(ok=True, message="The key works.")
        message = unreadable(reply, self.label).message
        return Account(ok=False if reply.status in {401, 403} else None, message=message)

    @property
    def balance_url(self) -> str | None:
        """The base address itself."""
        return self.base_url

    def balance_call(self) -> Call | None:
        """Build the free call that reads the account's balance."""
        return Call(method="GET", url=f"{self.base_url}/v1/billing/balance")

    def read_balance(self, reply: Reply) -> str | None:
        """Read the balance.

        Args:
            reply: The answer to `balance_call`.

        Returns:
            Decimal dollars as text: `balance`, or `balance_cents`, as another of its pages writes it.
        """
        data = fields(reply) if reply.ok else None
        if data is None:
            return None
        cents = whole(data.get("balance_cents"))
        in_cents = None if cents is None else f"{Decimal(cents) / 100:.2f}"
        return money(data.get("balance")) or money(in_cents)


def _reference(client_ref: str) -> str:
    if not _REFERENCE.fullmatch(client_ref):
        raise UsageError("The reference of a run may hold letters, digits, '.', '_', ':' and '-' only.")
    return client_ref


def _failure(run: Mapping[str, Any]) -> ErrorBody:
    """Read why a run made no clip: the documented fields, else an error as any answer has it."""
    stage = run.get("failure_stage_code") or run.get("failure_stage")
    complaint = say(run.get("failure_code"), run.get("failure_message"), stage)
    if complaint:
        return ErrorBody(code=say(run.get("failure_code")), words=say(run.get("failure_message"), stage))
    output = run.get("output")
    levels = [run, output] if isinstance(output, Mapping) else [run]
    found = (error_body({name: level.get(name) for name in ERROR_NAMES}) for level in levels)
    return next((body for body in found if body is not None), ErrorBody(code="", words=""))


def _reason(failure: ErrorBody) -> FailReason:
    if is_moderated(failure.text):
        return "moderated"
    name = failure.code.upper()
    if "CREDIT" in name:
        return "credit"
    return "invalid" if "INVALID" in name or "VALIDATION" in name else "provider"
