"""The app: both wires, the files and the control routes under one port.

Invariants:
    * `/runflow` and `/runcomfy` are base URLs without `/v1`; neither answers for the other.
    * The control routes under `/_sandbox` need no key: the server listens on loopback only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.routing import Mount, Route

from kling_nb.sandbox import downloads
from kling_nb.sandbox.replies import RefusedError, dated, json_reply
from kling_nb.sandbox.runcomfy import RunComfy
from kling_nb.sandbox.runflow import Runflow
from kling_nb.sandbox.validation import read_object

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

    from kling_nb.sandbox.state import ProviderState


def build_app(provider: ProviderState) -> ASGIApp:
    """The ASGI app of one sandbox.

    Args:
        provider: Its state; the caller closes its clips.

    Returns:
        An app. Faults that close connections need the server of `serve`, all else runs under any.
    """

    async def stats(_request: Request) -> Response:
        return json_reply(provider.stats())

    async def faults(request: Request) -> Response:
        settings: dict[str, Any] | None = read_object(await request.body())
        if settings is None:
            return json_reply({"error": "send a JSON object of switches"}, 400)
        try:
            provider.faults.set(settings)
        except ValueError as wrong:
            return json_reply({"error": str(wrong)}, 400)
        return json_reply({"ok": True})

    async def reset(_request: Request) -> Response:
        provider.reset()
        return json_reply({"ok": True})

    async def restart(request: Request) -> Response:
        wanted = read_object(await request.body())
        if wanted is None or not isinstance(wanted.get("memory", True), bool):
            return json_reply({"error": 'send a JSON object such as {"memory": true}'}, 400)
        provider.restart(memory=wanted.get("memory", True))
        return json_reply({"ok": True})

    async def refused(_request: Request, wrong: Exception) -> Response:
        if isinstance(wrong, RefusedError):
            return wrong.reply
        raise wrong

    app = Starlette(
        exception_handlers={RefusedError: refused},
        routes=[
            Route("/_sandbox/stats", stats),
            Route("/_sandbox/faults", faults, methods=["POST"]),
            Route("/_sandbox/reset", reset, methods=["POST"]),
            Route("/_sandbox/restart", restart, methods=["POST"]),
            *downloads.routes(provider),
            Mount("/runflow", routes=Runflow(provider).routes()),
            Mount("/runcomfy", routes=RunComfy(provider).routes()),
        ],
    )
    return dated(app, provider.date)
