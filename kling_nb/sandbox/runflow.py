"""Runflow's wire: runs with a `status_code`, signed links, a list to find lost runs in, no public cancel.

Invariants:
    * Answers have the documented fields and no others; error bodies are flat `{code, message, errors}`.
    * A refusal creates nothing.
    * Reading a run signs its links afresh.
"""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from starlette.routing import Route

from kling_nb.sandbox.callbacks import Callbacks
from kling_nb.sandbox.downloads import link, origin, played, replay
from kling_nb.sandbox.faults.recording import refuses
from kling_nb.sandbox.replies import RefusedError, json_reply
from kling_nb.sandbox.runflow_listing import BadListError, matching, number_in, ordered
from kling_nb.sandbox.runs import TERMINAL, Run
from kling_nb.sandbox.state import account_of
from kling_nb.sandbox.validation import Problem, Reader, read_object

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from starlette.requests import Request
    from starlette.responses import Response

    from kling_nb.sandbox.render.clip import ClipPlan
    from kling_nb.sandbox.state import ProviderState

WIRE: Final = "runflow"
MODEL: Final = "kuaishou/kling-video/v3/pro/text-to-video"
PRICE: Final = Decimal("0.112")
"""USD a second without audio: Runflow's model page, 2026-04-06."""

_CODES: Final = {
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    403: "PERMISSION_DENIED",
    404: "RUN_NOT_FOUND",
    409: "CONFLICT",
    422: "VALIDATION_ERROR",
    429: "RATE_LIMITED",
    503: "MODEL_UNAVAILABLE",
}
"""Documented codes, but for 400, 422 and 503: those are the sandbox's own words for a silence."""


class Runflow:
    """The routes of one wire."""

    def __init__(self, provider: ProviderState) -> None:
        self.provider = provider
        self.callbacks = Callbacks(provider)

    def routes(self) -> list[Route]:
        """Everything below the base URL."""
        return [
            Route("/v1/health", self.health),
            Route("/v1/auth/me", self.me),
            Route("/v1/billing/balance", self.balance),
            Route("/v1/runs", self.list_runs),
            Route("/v1/runs/{run}", self.get),
            Route("/v1/admin/runs/{run}/cancellation", self.cancel, methods=["POST"]),
            Route("/v1/models/{model:path}/runs", self.submit, methods=["POST"]),
            Route("/{rest:path}", self.nowhere, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
        ]

    async def health(self, _request: Request) -> Response:
        """Alive, without a key."""
        return json_reply({"status": "ok"})

    async def me(self, request: Request) -> Response:
        """Who the key belongs to."""
        account = self._account(request)
        return json_reply({"id": account, "org_id": f"org-{account}"})

    async def balance(self, request: Request) -> Response:
        """What is left; a play figure that no run changes."""
        account = self._account(request)
        usd = 0.0 if account == "poor" else self.provider.faults.number(WIRE, "balance_usd")
        if self._word("balance_form") == "balance_cents":
            return json_reply({"balance_cents": round(usd * 100)})
        return json_reply({"balance": f"{usd:.2f}"})

    async def nowhere(self, _request: Request) -> Response:
        """Any other path."""
        return self.refuse(404, code="NOT_FOUND", message="no such route")

    async def cancel(self, request: Request) -> Response:
        """The admin's cancel, which is not for customers."""
        self.provider.count(WIRE, "cancels")
        await self.provider.gate(WIRE, "cancel", self._fault)
        self._account(request)
        return self.refuse(403)

    async def submit(self, request: Request) -> Response:
        """The paid POST."""
        provider = self.provider
        provider.count(WIRE, "submissions")
        raw = await request.body()
        await provider.gate(WIRE, "submit", self._fault)
        account = self._account(request)
        if account == "poor":
            return self.refuse(int(self._word("credit_status")), code="INSUFFICIENT_CREDIT")
        body, plan = self._read(request, raw)
        key = request.headers.get("idempotency-key")
        digest = hashlib.sha256(request.url.path.encode() + b"\n" + raw).hexdigest()
        known = provider.replays.get((account, key)) if key else None
        if known is None or self._word("idempotency") == "off":
            recorded = provider.faults.take(WIRE, "submit")
            if recorded is not None and refuses(recorded):
                return await replay(provider, request, recorded, None)
            run = self._create(request, account, body, plan)
            shown = self.show(request, run)
            if run.extra["callback_url"]:
                await self._call_back(request, run)
            if key:
                provider.replays[account, key] = (digest, shown)
            await provider.created(WIRE, self._fault)
            if recorded is not None:
                return await replay(provider, request, recorded, run)
        elif known[0] == digest:
            shown = known[1]
        else:
            return self.refuse(409, message="this Idempotency-Key came with another body")
        return provider.spoil(WIRE, "submit", json_reply(shown, 201))

    def _read(self, request: Request, raw: bytes) -> tuple[dict[str, Any], ClipPlan]:
        """The body of a submit and what it asks for."""
        if request.path_params["model"] != MODEL:
            raise RefusedError(self.refuse(404, code="MODEL_NOT_FOUND", message="unknown model"))
        body = read_object(raw)
        wrong = "the body is not a JSON object" if body is None else _envelope(body)
        if body is None or wrong:
            raise RefusedError(self.refuse(400, message=wrong))
        reader = Reader(WIRE, self.provider.faults, body["input"])
        plan = reader.plan()
        if reader.problems:
            raise RefusedError(self.refuse(422, message="the input is not valid", errors=reader.problems))
        if self.provider.faults.fires(WIRE, "submit_moderated"):
            words = "the prompt violates the content policy"
            raise RefusedError(self.refuse(422, code="CONTENT_POLICY", message=words))
        return body, plan

    def _create(self, request: Request, account: str, body: dict[str, Any], plan: ClipPlan) -> Run:
        price = Decimal(str(self.provider.faults.number(WIRE, "audio_price"))) if plan.audio else PRICE
        run = self.provider.accept(
            WIRE, account=account, model=MODEL, sent=body["input"], plan=plan, price=price
        )
        run.extra = {key: body.get(key) for key in ("client_ref", "callback_url", "metadata")}
        run.extra["idempotency_key"] = request.headers.get("idempotency-key")
        return run

    async def _call_back(self, request: Request, run: Run) -> None:
        if self.provider.faults.fires(WIRE, "callback_early"):
            await self.provider.settle(run)
            await self.callbacks.call(run, lambda: self.show(request, run))
        else:
            self.callbacks.expect(run, lambda: self.show(request, run))

    async def get(self, request: Request) -> Response:
        """One run."""
        provider = self.provider
        provider.count(WIRE, "polls")
        await self.provider.gate(WIRE, "poll", self._fault)
        account = self._account(request)
        run = provider.runs.find(
            WIRE, request.path_params["run"], provider.faults.number(WIRE, "retention_s")
        )
        if run is None:
            return self.refuse(404)
        if run.account != account:
            return self.refuse(int(self._word("foreign_run")))
        await provider.settle(run)
        if (reply := await played(provider, request, run, "status")) is not None:
            return reply
        return provider.spoil(WIRE, "poll", json_reply(self.show(request, run)))

    async def list_runs(self, request: Request) -> Response:
        """The runs of an account, filtered and in pages."""
        provider = self.provider
        provider.count(WIRE, "lists")
        await provider.gate(WIRE, "list", self._fault)
        runs, old = self._runs(self._account(request)), provider.faults.number(WIRE, "list_stale_s")
        query = request.query_params
        try:
            size = number_in(query.get("limit", "50"), "limit", 1, 500)
            at = number_in(query.get("pq", "0"), "pq", 0, 10**8)
            found = ordered(runs, query.get("sort_by", "created_at:desc"))
            if text := query.get("q", ""):
                rows = matching(
                    [self.show(request, run, old) for run in found], text, self._word("list_filter")
                )
                items, count = rows[at : at + size], len(rows)
            else:
                # Only those of the page: a list is read all the time, and may be of thousands.
                items, count = [self.show(request, run, old) for run in found[at : at + size]], len(found)
        except BadListError as wrong:
            return self.refuse(400, message=str(wrong))
        fields = [name for name in query.get("fields", "").split(",") if name]
        if fields:
            items = [{name: row[name] for name in fields if name in row} for row in items]
        body = {
            "items": items,
            "first": self._page(request, 0),
            "next": self._page(request, at + size) if at + size < count else None,
            "previous": self._page(request, max(0, at - size)) if at else None,
        }
        return provider.spoil(WIRE, "list", json_reply(body))

    def show(self, request: Request, run: Run, ago_s: float = 0.0) -> dict[str, Any]:
        """A run as the API shows it.

        Args:
            request: Its host is where links point.
            run: The run.
            ago_s: As it was so many seconds ago.

        Returns:
            Every documented field, null where there is nothing to say.
        """
        provider = self.provider
        state = run.state(provider.clock() - ago_s)
        ended = state in TERMINAL
        cost = provider.cost(run)
        currency = provider.faults.word(WIRE, "cost_currency")
        begun = state == "running" or (ended and run.started_s() <= run.ended_s())
        nothing = ("flow_id", "target_version", "context", "cost_breakdown", "batch_id", "request_id", "flow")
        body: dict[str, Any] = {
            **dict.fromkeys(nothing),
            "id": run.id,
            "model_id": MODEL,
            "target_type": "model",
            "org_id": f"org-{run.account}",
            "status_code": state,
            "source_code": "api",
            "input": run.input,
            "output": self._output(request, run) if state == "succeeded" else None,
            "duration_ms": round((run.ended_s() - run.born_s) * 1000) if ended else None,
            "cost": None if cost is None else f"{cost:f}",
            **({} if cost is None or currency == "unsaid" else {"currency": currency}),
            "nodes_total": 1,
            "nodes_completed": 1 if state == "succeeded" else 0,
            "client_ref": run.extra.get("client_ref"),
            "created_by": run.account,
            "created_at": _iso(provider.date(run.born_s)),
            "started_at": _iso(provider.date(run.started_s())) if begun else None,
            "completed_at": _iso(provider.date(run.ended_s())) if ended else None,
            "callback_url": run.extra.get("callback_url"),
            "metadata": run.extra.get("metadata"),
            "has_logs": False,
            "has_node_runs": False,
            "links": {"self": f"{origin(request)}/{WIRE}/v1/runs/{run.id}"},
            "failure_code": None,
            "failure_message": None,
            "failure_stage_code": None,
            "node_runs": [],
            "logs": [],
        }
        if state == "failed":
            moderated = run.fate.ending == "moderated"
            body["failure_code"] = "CONTENT_POLICY" if moderated else "PROVIDER_ERROR"
            words = (
                "The generated video was blocked by the content policy."
                if moderated
                else "The provider could not finish the video."
            )
            body["failure_message"] = provider.words(WIRE, words)
            body["failure_stage_code"] = "moderation" if moderated else "inference"
        return body

    def refuse(
        self,
        status: int,
        *,
        code: str | None = None,
        message: str = "",
        errors: list[Problem] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """An error in the shape that is set."""
        code = code or _CODES.get(status, "INTERNAL_ERROR")
        message = self.provider.words(WIRE, message or code.replace("_", " ").lower())
        details = [
            {"field": ".".join(map(str, bad.where)), "message": bad.what} for bad in errors or []
        ] or None
        return json_reply({"code": code, "message": message, "errors": details}, status, dict(headers or {}))

    def _fault(self, status: int, headers: Mapping[str, str]) -> Response:
        if status == 402:
            return self.refuse(402, code="INSUFFICIENT_CREDIT", headers=headers)
        return self.refuse(status, headers=headers)

    def _account(self, request: Request) -> str:
        self.provider.note_key(request)
        account = account_of(request)
        if account is not None:
            return account
        raise RefusedError(
            self.refuse(int(self._word("auth_status")), code="UNAUTHORIZED", message="invalid API key")
        )

    def _word(self, name: str) -> str:
        return self.provider.faults.word(WIRE, name)

    def _output(self, request: Request, run: Run) -> dict[str, Any]:
        strange = self.provider.strange(WIRE)
        return {
            "outputs": [
                {"url": link(self.provider, request, run), "type": "video", "duration": run.plan.seconds}
            ],
            "nsfw_detected": False,
            "seed": strange,
            "timing": {"inference": run.fate.run_s, **({strange: strange} if strange else {})},
        }

    def _runs(self, account: str) -> list[Run]:
        """The runs of an account that the list knows by now, oldest first."""
        provider = self.provider
        lag, kept = (provider.faults.number(WIRE, name) for name in ("list_lag_s", "retention_s"))
        latest = provider.clock() - lag
        runs = [run for run in provider.runs if run.account == account and run.born_s <= latest]
        known = [run for run in runs if provider.runs.find(WIRE, run.id, kept)]
        return [run for run in known if not provider.faults.fires(WIRE, "list_missing")]

    def _page(self, request: Request, at: int) -> str:
        if self._word("page_link") == "token":
            return str(at)
        return str(request.url.include_query_params(pq=at))


def _envelope(body: dict[str, Any]) -> str:
    """What is wrong with the parts around the input; empty when nothing is."""
    if not isinstance(body.get("input"), dict):
        return "input must be an object"
    url, ref, metadata = (body.get(key) for key in ("callback_url", "client_ref", "metadata"))
    if url is not None and not (isinstance(url, str) and len(url) <= 2048):
        return "callback_url must be a string of at most 2048 characters"
    if ref is not None and not (isinstance(ref, str) and len(ref) <= 255):
        return "client_ref must be a string of at most 255 characters"
    if metadata is not None and not isinstance(metadata, dict):
        return "metadata must be an object"
    return ""


def _iso(date: datetime) -> str:
    return date.isoformat()
