"""RunComfy's wire: a flat body, two status vocabularies, codes inside good answers, no way to look back.

Invariants: sound and duration are always sent, because sound is on by default and dearer; addresses in
replies are ignored and built anew, because the token goes to one origin; what a failed or canceled
request costs is documented nowhere, so it stays unknown unless RunComfy reports a cost.
"""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, ClassVar, Literal
from urllib.parse import quote

from kling_nb.addresses import is_loopback
from kling_nb.errors import UnsupportedError
from kling_nb.providers.answers import END_WORDS, Reading, read_cost, read_run, video_urls
from kling_nb.providers.base import (
    Accepted,
    Account,
    Ambiguous,
    Asked,
    CancelOutcome,
    Listing,
    Provider,
    Refused,
    Snapshot,
    SubmitAnswer,
    optional_input,
)
from kling_nb.providers.messages import Call, Reply
from kling_nb.providers.parsing import (
    ErrorBody,
    charged_by,
    code_text,
    error_body,
    fields,
    is_moderated,
    moment,
    money,
    read_refusal,
    safe_id,
    same_id,
    say,
    unreadable,
    usable_id,
    whole,
    word,
)
from kling_nb.records.money import usd_of
from kling_nb.records.request import MAX_PROMPT_CHARS, TextToVideo
from kling_nb.records.run import FailReason

__all__ = ["RunComfy"]

_STATES: Mapping[str, Literal["queued", "running", "succeeded", "failed", "canceled"]] = {
    "in_queue": "queued",
    "in_progress": "running",
    "completed": "succeeded",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "canceled",
    "canceled": "canceled",
}
_BAD_TOKEN, _NO_BALANCE, _WRONG_MODEL = "400004", "400002", "400001"
#: Of its account API; the only other host that may be given the token (RunComfy's API documentation, 2026).
_BALANCE_URL = "https://api.runcomfy.net"
_NOT_READY, _NOT_YOURS, _NO_REQUEST = "400005", "403001", "404001"
_REASONS: Mapping[str, FailReason] = {
    _BAD_TOKEN: "auth",
    _NO_BALANCE: "credit",
    _WRONG_MODEL: "invalid",
    _NO_REQUEST: "invalid",
    _NOT_YOURS: "auth",
}


class RunComfy(Provider):
    """RunComfy's wire, after its public Model API documentation.

    Example:
        >>> RunComfy().poll_call("abc").url
        'https://model-api.runcomfy.net/v1/requests/abc/status'
    """

    name = "runcomfy"
    label = "RunComfy"
    default_url: ClassVar[str] = "https://model-api.runcomfy.net"
    media_hosts: ClassVar[tuple[str, ...] | None] = ("runcomfy.net", "runcomfy.com")
    #: Seconds of the shortest shot, as its input table says.
    min_shot_s: ClassVar[int] = 3

    def check(self, request: TextToVideo) -> None:
        """Refuse shots that are too short, or too long to stand in for the prompt that is required.

        Raises:
            UnsupportedError: One of these.
        """
        shots = request.shots or ()
        short = [n for n, shot in enumerate(shots, 1) if shot.duration < self.min_shot_s]
        if short:
            raise UnsupportedError(
                f"{self.label} takes shots of {self.min_shot_s} s or more; shot {short[0]} has "
                f"{shots[short[0] - 1].duration} s.",
                cure="Make it longer, or send it to runflow.",
                provider=self.name,
            )
        if len(request.words) > MAX_PROMPT_CHARS:
            raise UnsupportedError(
                f"{self.label} needs a prompt beside the shots, and the shots together have more than "
                f"{MAX_PROMPT_CHARS:,} characters.",
                cure="Write a prompt for the whole clip, or shorten the shots.",
                provider=self.name,
            )

    def submit_call(
        self,
        request: TextToVideo,
        provider_model: str,
        *,
        client_ref: str,  # noqa: ARG002 - this wire has no place for it
        metadata: Mapping[str, Any] | None = None,  # noqa: ARG002 - nor for this
        callback_url: str | None = None,  # noqa: ARG002 - nor for this
    ) -> Call:
        """Build the one call that costs money.

        Args:
            request: A request that passed `check`.
            provider_model: RunComfy's id of the model; its slashes stay.
            client_ref: Not sent.
            metadata: Not sent.
            callback_url: Not sent.

        Returns:
            The call; its body is the input itself.
        """
        return Call(
            method="POST",
            url=f"{self.base_url}/v1/models/{quote(provider_model, safe='/')}",
            json=_input(request),
            paid=True,
        )

    def read_submit(self, reply: Reply) -> SubmitAnswer:
        """Say what the answer to the submit means for money.

        Args:
            reply: Any answer; the documented one is 200 with `request_id`.

        Returns:
            `Accepted` for any 2xx with a usable `request_id`, even beside an error code: a run that may
            exist is never dropped. `Refused` for a documented refusal in a readable body or a good status
            with an error code; else `Ambiguous`.
        """
        if not reply.ok:
            return read_refusal(reply, self.label, _REASONS)
        data = fields(reply)
        run = read_run(data, "request_id") if data is not None else None
        # The documented place first: what stands deeper may be about something else.
        ids = (data.get("request_id"), run.run_id) if data is not None and run is not None else ()
        request_id = next(filter(None, map(usable_id, ids)), None)
        found = error_body(data)
        if run is not None and request_id is not None:
            return Accepted(
                provider_run_id=request_id,
                snapshot=Snapshot(
                    state="queued",
                    word=run.word,
                    queue_position=whole(run.run.get("queue_position")),
                    message=found.text if found else "",
                ),
            )
        code = code_text(run.run.get("error_code")) if run is not None and run.run_id is None else ""
        # Codes that begin with 5 are the server's own failures: a request may have been made before one.
        if found is not None and code and not code.startswith("5"):
            reason = _REASONS.get(code) or ("moderated" if is_moderated(found.words) else "provider")
            return Refused(reason=reason, message=say(f"{self.label} refused it", found.text))
        return Ambiguous(message=f"{self.label} answered HTTP {reply.status} without a usable request id")

    def poll_call(self, provider_run_id: str) -> Call:
        """Build the call that reads a request's status.

        Raises:
            UsageError: This is no request id.
        """
        return Call(method="GET", url=self._request_url(provider_run_id, "status"))

    def read_poll(self, reply: Reply, provider_run_id: str, after: Snapshot | None = None) -> Snapshot:
        """Read a status or a result, whichever it is.

        Args:
            reply: The answer to `poll_call` or to its `follow`.
            provider_run_id: The request that was asked for.
            after: The status that led to this result.

        Returns:
            The reading. An end that comes without output, error or cost is followed by the result once;
            `completed` alone is no success, because it may also be a failure. What a status said for certain
            stands where the result cannot be read.
        """
        data = fields(reply)
        found = error_body(data)
        run = read_run(data, "request_id", "id") if data is not None else None
        if reply.ok and run is not None and data is not None:
            done = after is not None and END_WORDS.get(after.word) == "succeeded"
            if done and not run.word and not code_text(data.get("error_code")) and "output" in run.run:
                # The result page's own schema: an output, and no status.
                run = run._replace(word=after.word if after else "", run_id=run.run_id or provider_run_id)
            if run.word in _STATES or (run.word and not code_text(data.get("error_code"))):
                if not same_id(run.run_id, provider_run_id):
                    return Snapshot(
                        state="unreadable", message=f"{self.label} answered about another request"
                    )
                return self._reading(run, found, provider_run_id, after)
        if after is not None and after.state in {"failed", "canceled"}:
            # That it was canceled or failed was said; the result would only have told more of it. One that
            # may yet come, with the bill, is asked for once more.
            gone = 400 <= reply.status < 500 and reply.status != 429
            return replace(after, follow=None, certain=after.certain and gone)
        return self._no_reading(reply, found)

    def _reading(
        self, reading: Reading, found: ErrorBody | None, provider_run_id: str, after: Snapshot | None
    ) -> Snapshot:
        data, said = reading.run, reading.word
        state = reading.state(_STATES, provider_run_id)
        output_error = error_body(data["output"]) if isinstance(data.get("output"), Mapping) else None
        found = found or output_error
        message = found.text if found else ""
        if state is None:
            return Snapshot(
                state="unknown", word=said, message=message or f"{self.label} says {said!r}: still going."
            )
        if state in {"queued", "running"}:
            position = whole(data.get("queue_position"))
            return Snapshot(state=state, word=said, queue_position=position, message=message)
        clips, cost = video_urls(data.get("output"), base=self.base_url), read_cost(data)
        result = Call(
            method="GET",
            url=self._request_url(provider_run_id, "result"),
            params={"include_cost": "true"},
        )
        # Only a result has these; a status has addresses instead.
        is_result = any(data.get(key) is not None for key in ("output", "cost", "created_at", "finished_at"))
        is_result = is_result or after is not None
        certain = said in _STATES and (after is None or after.certain)
        if state == "succeeded" and said != "succeeded" and not clips.urls:
            # `completed`, or a word like it: of a status, the result decides what that means.
            if after is None:
                return Snapshot(state="running", word=said, certain=certain, follow=result)
            if found is not None:
                state, certain = "failed", False
        end = Snapshot(
            state=state,
            word=said,
            certain=certain,
            follow=None if is_result or (found is not None and "result_url" not in data) else result,
            cost=cost.amount,
            currency=cost.currency,
            cost_words=cost.words,
            message=message,
        )
        if state != "succeeded":
            moderated = found is not None and is_moderated(found.code, found.words)
            return replace(
                end,
                reason="canceled" if state == "canceled" else "moderated" if moderated else "provider",
                charged=charged_by(cost.amount, "unknown"),
            )
        return replace(
            end,
            video_urls=clips.urls,
            videos=clips.videos,
            unusable=clips.unusable,
            charged="yes",
            message=message if clips.urls else f"{self.label} says it is done, but names no video yet.",
        )

    def _no_reading(self, reply: Reply, found: ErrorBody | None) -> Snapshot:
        no_answer = unreadable(reply, self.label)
        if found is None or reply.status == 429 or reply.status >= 500:
            return no_answer
        if found.code == _NOT_READY:
            return replace(no_answer, state="running", word="not_ready")
        if found.code == _NOT_YOURS or (reply.status == 403 and not found.code):
            return replace(no_answer, state="wrong_account")
        if found.code == _BAD_TOKEN or reply.status in {401, 403}:
            return replace(no_answer, reason="auth")
        # Without a code, a bare "not found" is also what a wrong path or a gateway says.
        if found.code == _NO_REQUEST or (
            reply.status == 404 and not found.code and found.words.lower().strip(". ") != "not found"
        ):
            return replace(no_answer, state="not_found")
        return no_answer

    def read_asked(self, reply: Reply) -> Asked:
        """Say when a request was made, which its result tells; neither answer repeats the input."""
        data = fields(reply) if reply.ok else None
        return Asked() if data is None else Asked(created_at=moment(data.get("created_at")))

    def can_cancel(self, status: str) -> bool:
        """Whether a cancel has any effect: only while the request is in the queue."""
        return status == "queued"

    def cancel_call(self, provider_run_id: str) -> Call | None:
        """Build the cancel.

        Raises:
            UsageError: This is no request id.
        """
        return Call(method="POST", url=self._request_url(provider_run_id, "cancel"))

    def read_cancel(self, reply: Reply) -> CancelOutcome:
        """Say whether the cancel took effect.

        Args:
            reply: The answer to `cancel_call`.

        Returns:
            What `outcome` says; `status` beside it is the state before and proves nothing.
        """
        data = fields(reply)
        outcome = word(data.get("outcome")) if data is not None else ""
        if outcome == "not_cancellable":
            return "not_cancellable"
        return "canceled" if reply.ok and outcome in {"cancelled", "canceled"} else "unknown"

    def account_call(self, provider_model: str) -> Call:
        """Build a call that checks the token and costs nothing: the model's catalog row."""
        return Call(method="GET", url=f"{self.base_url}/v1/models/{quote(provider_model, safe='/')}")

    def read_account(self, reply: Reply) -> Account:
        """Read the answer to `account_call`.

        Args:
            reply: The answer.

        Returns:
            Whether the token works, with the listed price; None where the answer does not tell.
        """
        data = fields(reply)
        if reply.ok and data and not code_text(data.get("error_code")):
            price = money(data.get("base_price_usd"))
            listed = (
                f" Listed price: {usd_of(price)} per {say(data.get('price_unit')) or 'unit'}."
                if price
                else ""
            )
            return Account(ok=True, message=say(f"The token works.{listed}"))
        found = error_body(data)
        refused = found is not None and (found.code == _BAD_TOKEN or reply.status in {401, 403})
        return Account(ok=False if refused else None, message=unreadable(reply, self.label).message)

    def read_listing(self, reply: Reply) -> Listing | None:
        """Read the price off a catalog row; None where the answer is none."""
        data = fields(reply)
        if not reply.ok or data is None or code_text(data.get("error_code")):
            return None
        return Listing(
            base_usd=money(data.get("base_price_usd")),
            unit=say(data.get("price_unit"), limit=40),
            note=say(data.get("pricing_note"), limit=200),
        )

    @property
    def balance_url(self) -> str | None:
        """The host that RunComfy documents for it, where the base address is RunComfy's own.

        A stand-in on loopback tells it itself. Any other base address (a proxy, say) has none: its key is not
        known to be RunComfy's, and goes nowhere else.
        """
        if self.base_url == RunComfy.default_url:
            return _BALANCE_URL
        return self.base_url if is_loopback(self.base_url) else None

    def balance_call(self) -> Call | None:
        """Build the free call that reads the account's balance, or None where none is offered."""
        base = self.balance_url
        return None if base is None else Call(method="GET", url=f"{base}/prod/v2/balance")

    def read_balance(self, reply: Reply) -> str | None:
        """Read the balance.

        Args:
            reply: The answer to `balance_call`.

        Returns:
            Decimal dollars as text; None where it is in another currency.
        """
        data = fields(reply) if reply.ok else None
        if data is None or data.get("currency", "USD") != "USD":
            return None
        micros = whole(data.get("balance_microdollars"))
        exact = None if micros is None else f"{Decimal(micros) / 1_000_000:f}"
        return money(exact) or money(data.get("balance_usd"))

    def _request_url(self, provider_run_id: str, leaf: str) -> str:
        return f"{self.base_url}/v1/requests/{safe_id(provider_run_id, self.label)}/{leaf}"


def _input(request: TextToVideo) -> dict[str, Any]:
    body: dict[str, Any] = {
        "prompt": request.words,
        "duration": request.duration,
        "aspect_ratio": request.aspect_ratio,
        "sound": request.audio,
    }
    if request.shots:
        body["multi_prompt"] = [{"prompt": s.prompt, "duration": s.duration} for s in request.shots]
    return body | optional_input(request)
