"""RunComfy's wire: flat inputs, two vocabularies of state, public files, no list and no idempotency.

Invariants:
    * `/status` says `completed` where `/result` says `succeeded` or `failed`.
    * An input without `sound` has sound, and is billed for it.
    * Cancel works in the queue only and says so in `outcome`.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from starlette.routing import Route

from kling_nb.sandbox.downloads import link, origin, played, replay
from kling_nb.sandbox.faults.recording import refuses
from kling_nb.sandbox.replies import RefusedError, json_reply
from kling_nb.sandbox.state import account_of
from kling_nb.sandbox.validation import SECONDS, SHOT_TYPES, Problem, Reader, read_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from kling_nb.sandbox.render.clip import ClipPlan
    from kling_nb.sandbox.runs import Run, State
    from kling_nb.sandbox.state import ProviderState

WIRE: Final = "runcomfy"

PRICES: Final = {
    "kling/kling-3.0/standard/text-to-video": (Decimal("0.084"), Decimal("0.126")),
    "kling/kling-3.0/pro/text-to-video": (Decimal("0.112"), Decimal("0.168")),
    "kling/kling-3.0/4k/text-to-video": (Decimal("0.42"), Decimal("0.42")),
}
"""USD a second, silent and with sound: RunComfy's model page and public skill table, 2026."""

_CODES: Final = {
    400: (400001, "invalid request"),
    401: (400004, "invalid token"),
    402: (400002, "insufficient balance"),
    403: (403001, "this request belongs to someone else"),
    404: (404001, "request not found"),
    422: (422001, "the input is not valid"),
    429: (429001, "too many requests"),
}
"""The documented codes; those of 422 and 429 are the sandbox's own words for a silence."""


_STATUS: Final[Mapping[State, str]] = {
    "queued": "in_queue",
    "dispatching": "in_progress",
    "running": "in_progress",
    "succeeded": "completed",
    "failed": "completed",
    "canceled": "cancelled",
}
"""What `/status` says; of a failed run it says `completed`, which means: read the result."""

_ODD_ROWS: Final[dict[str, dict[str, Any]]] = {
    "dearer": {"base_price_usd": 0.15},
    "clip": {"base_price_usd": 0.56, "price_unit": "video", "pricing_note": "5 s, 720p"},
    "junk": {"base_price_usd": ["0.1"], "price_unit": {"per": 1}, "pricing_note": 7},
    "markup": {
        "price_unit": "<img src=x onerror=alert(1)>",
        "pricing_note": "$$\\href{javascript:alert(1)}{x}$$ <script>alert(1)</script>\u202e https://a.example/?sig=1",
    },
}
"""Catalog rows as they might also come."""


class RunComfy:
    """The routes of one wire."""

    def __init__(self, provider: ProviderState) -> None:
        self.provider = provider

    def routes(self) -> list[Route]:
        """Everything below the base URL."""
        return [
            Route("/prod/v2/balance", self.balance),
            Route("/v1/requests/{run}/status", self.status),
            Route("/v1/requests/{run}/result", self.result),
            Route("/v1/requests/{run}/cancel", self.cancel, methods=["POST"]),
            Route("/v1/models/{model:path}", self.model),
            Route("/v1/models/{model:path}", self.submit, methods=["POST"]),
            Route("/{rest:path}", self.nowhere, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
        ]

    async def nowhere(self, _request: Request) -> Response:
        """Any other path."""
        return self.refuse(404, message="no such route")

    async def balance(self, request: Request) -> Response:
        """What is left; in truth on another host, and a play figure that no run changes."""
        account = self._account(request)
        usd = 0.0 if account == "poor" else self.provider.faults.number(WIRE, "balance_usd")
        return json_reply(
            {"balance_usd": usd, "balance_microdollars": round(usd * 1_000_000), "currency": "USD"}
        )

    async def model(self, request: Request) -> Response:
        """A row of the catalog: also the free way to check a token."""
        self._account(request)
        name = request.path_params["model"]
        prices = self._prices(name)
        if prices is None:
            return self._wrong_model()
        silent, sounding = prices
        facts: dict[str, Any] = {
            "base_price_usd": float(silent),
            "price_unit": "second",
            "pricing_note": f"{sounding} USD per second with sound",
        }
        word = self._word("price_row")
        if word == "none":
            facts = {}
        return json_reply(
            {"model_id": name, **facts, **_ODD_ROWS.get(word, {}), "input_schema": _schema(name)}
        )

    async def submit(self, request: Request) -> Response:
        """The paid POST."""
        provider = self.provider
        provider.count(WIRE, "submissions")
        raw = await request.body()
        await provider.gate(WIRE, "submit", self._fault)
        account = self._account(request)
        if account == "poor":
            return self.refuse(int(self._word("credit_status")), code=400002, message="insufficient balance")
        name = request.path_params["model"]
        prices = self._prices(name)
        if prices is None:
            return self._wrong_model()
        sent, plan = self._read(raw, name)
        if request.headers.get("x-sandbox-draw") == "hash":
            plan = plan.without_words()
        price = prices[1 if plan.audio else 0]
        recorded = provider.faults.take(WIRE, "submit")
        if recorded is not None and refuses(recorded):
            return await replay(provider, request, recorded, None)
        run = provider.accept(WIRE, account=account, model=name, sent=sent, plan=plan, price=price)
        await provider.created(WIRE, self._fault)
        if recorded is not None:
            return await replay(provider, request, recorded, run)
        links = self._links(request, run)
        body = {
            "request_id": run.id,
            **links,
            "cancel_url": links["status_url"].replace("/status", "/cancel"),
        }
        return provider.spoil(WIRE, "submit", json_reply(body))

    def take_up(self, run_id: str, model: str, raw: bytes, age_s: float) -> None:
        """Know a run that an earlier sandbox accepted: what it makes follows from its request.

        Args:
            run_id: Its id.
            model: The model's id.
            raw: The body it was asked for with.
            age_s: How long ago.
        """
        if self.provider.runs.find(WIRE, run_id) is not None:
            return
        sent, plan = self._read(raw, model)
        silent, sounding = PRICES[model]
        self.provider.accept(
            WIRE,
            account="main",
            model=model,
            sent=sent,
            plan=plan,
            price=sounding if plan.audio else silent,
            run_id=run_id,
            age_s=age_s,
        )

    def _read(self, raw: bytes, name: str) -> tuple[dict[str, Any], ClipPlan]:
        """The input of a submit and what it asks for."""
        sent = read_object(raw)
        if sent is None:
            raise RefusedError(self.refuse(422, errors=[Problem((), "the body is not a JSON object")]))
        reader = Reader(WIRE, self.provider.faults, sent, _shot_types(name))
        plan = reader.plan()
        if reader.problems:
            raise RefusedError(self.refuse(422, errors=reader.problems))
        if self.provider.faults.fires(WIRE, "submit_moderated"):
            words = "the prompt violates the content policy"
            raise RefusedError(self.refuse(422, code=422002, message=words))
        return sent, plan

    async def status(self, request: Request) -> Response:
        """Where a request stands."""
        self.provider.count(WIRE, "polls")
        run, state = await self._find(request, "poll")
        if (reply := await played(self.provider, request, run, "status")) is not None:
            return reply
        body: dict[str, Any] = {"request_id": run.id, "status": _STATUS[state]}
        if state == "queued":
            waited = self.provider.clock() - run.born_s
            body["queue_position"] = max(1, math.ceil(3 * (1 - waited / run.fate.queue_s)))
        return self.provider.spoil(WIRE, "poll", json_reply({**body, **self._links(request, run)}))

    async def result(self, request: Request) -> Response:
        """What became of a request."""
        provider = self.provider
        provider.count(WIRE, "polls")
        run, state = await self._find(request, "poll")
        unfinished = state in {"queued", "dispatching", "running"}
        if (reply := await played(provider, request, run, "result")) is not None:
            return reply
        body: dict[str, Any] = {
            "request_id": run.id,
            "status": state if state in {"succeeded", "failed"} else _STATUS[state],
            "created_at": provider.date(run.born_s).isoformat(),
        }
        strange = self.provider.strange(WIRE)
        if strange:
            body["message"] = strange
        if not unfinished:
            body["finished_at"] = provider.date(run.ended_s()).isoformat()
        if state == "succeeded":
            body["output"] = {"video": link(provider, request, run)}
        if state == "failed":
            body["error"] = self._error(run)
        if request.query_params.get("include_cost") == "true":
            cost = provider.cost(run)
            # A failed or cancelled request tells a cost only if it is set to be billed: nothing says that
            # the real one would answer 0.
            if cost is not None and (state == "succeeded" or cost):
                body["cost"] = float(cost)
                if (currency := self._word("cost_currency")) != "unsaid":
                    body["currency"] = currency
        return provider.spoil(WIRE, "poll", json_reply(body))

    async def cancel(self, request: Request) -> Response:
        """Cancel, which works in the queue only."""
        self.provider.count(WIRE, "cancels")
        run, state = await self._find(request, "cancel")
        outcome = "not_cancellable"
        if state == "queued":
            run.canceled_s = self.provider.clock()
            outcome = "cancelled"
        word = _STATUS[run.state(self.provider.clock())]
        body = {"request_id": run.id, "status": word, "outcome": outcome}
        return self.provider.spoil(WIRE, "cancel", json_reply(body, 202))

    def refuse(
        self,
        status: int,
        *,
        code: int | None = None,
        message: str = "",
        errors: list[Problem] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """An error as the contract describes it."""
        usual = _CODES.get(status, (status * 1000 + 1, "internal error"))
        words = self.provider.words(WIRE, message or usual[1])
        body: dict[str, Any] = {"error_code": code or usual[0], "error_message": words}
        if errors:
            body["detail"] = [
                {"loc": ["body", *bad.where], "msg": bad.what, "type": "value_error"} for bad in errors
            ]
        return json_reply(body, status, dict(headers or {}))

    def _fault(self, status: int, headers: Mapping[str, str]) -> Response:
        if status == 200:
            return self.refuse(200, code=500001, message="internal error", headers=headers)
        return self.refuse(status, headers=headers)

    def _account(self, request: Request) -> str:
        self.provider.note_key(request)
        account = account_of(request)
        if account is not None:
            return account
        raise RefusedError(self.refuse(int(self._word("auth_status")), code=400004, message="invalid token"))

    def _prices(self, name: str) -> tuple[Decimal, Decimal] | None:
        also = self._word("also_model")
        return PRICES.get(name) or ((Decimal("0.2"), Decimal("0.3")) if name == also else None)

    def _wrong_model(self) -> Response:
        return self.refuse(400, code=400001, message="unknown model")

    def _word(self, name: str) -> str:
        return self.provider.faults.word(WIRE, name)

    async def _find(self, request: Request, moment: str) -> tuple[Run, State]:
        """The run that a path names and where it stands."""
        provider = self.provider
        await self.provider.gate(WIRE, moment, self._fault)
        account = self._account(request)
        run = provider.runs.find(
            WIRE, request.path_params["run"], provider.faults.number(WIRE, "retention_s")
        )
        if run is None:
            raise RefusedError(self.refuse(404))
        if run.account != account:
            raise RefusedError(self.refuse(int(self._word("foreign_run"))))
        await provider.settle(run)
        return run, run.state(provider.clock())

    def _links(self, request: Request, run: Run) -> dict[str, str]:
        base = f"{origin(request)}/{WIRE}"
        return {f"{what}_url": f"{base}/v1/requests/{run.id}/{what}" for what in ("status", "result")}

    def _error(self, run: Run) -> str:
        text = "the video could not be generated"
        if run.fate.ending == "moderated":
            text = "the generated video was blocked by the content policy"
        return self.provider.words(WIRE, text)


def _schema(model: str) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["prompt"],
        "properties": {
            "prompt": {"type": "string"},
            "negative_prompt": {"type": "string"},
            "duration": {"type": "integer", "minimum": SECONDS[0], "maximum": SECONDS[-1], "default": 5},
            "aspect_ratio": {"type": "string", "enum": ["16:9", "9:16", "1:1"], "default": "16:9"},
            "cfg_scale": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.5},
            "sound": {"type": "boolean", "default": True},
            "multi_prompt": {"type": "array", "maxItems": 20},
            "shot_type": {"type": "string", "enum": list(_shot_types(model))},
        },
    }


def _shot_types(model: str) -> tuple[str, ...]:
    """As the page of each model says: pro is cut as given only."""
    return SHOT_TYPES[:1] if "/pro/" in model else SHOT_TYPES
