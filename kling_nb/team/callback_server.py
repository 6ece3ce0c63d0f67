"""The receiver of callbacks as a server of its own: `kling-nb callbacks serve`."""

import json
import socket
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from kling_nb.config.keys import callback_secrets
from kling_nb.config.settings import CALLBACK_SECRETS
from kling_nb.errors import SettingsError
from kling_nb.team.answers import MAX_BYTES, PATH, SIGNATURE, TOO_LARGE
from kling_nb.team.callbacks import Receiver, own_ledger

__all__ = ["callback_app", "serve_callbacks"]


def callback_app(receiver: Receiver) -> Starlette:
    """Give the app that hands each call to a receiver.

    Args:
        receiver: Takes the calls.
    """

    async def take(request: Request) -> Response:
        length = request.headers.get("content-length", "")
        answer = receiver.refuses(int(length) if length.isdecimal() else None)
        raw = b""
        if answer is None:
            async for part in request.stream():
                raw += part
                if len(raw) > MAX_BYTES:
                    answer = TOO_LARGE
                    break
        if answer is None:
            answer = await run_in_threadpool(receiver.take, raw, request.headers.get(SIGNATURE, ""))
        again = {} if answer.retry_after_s is None else {"Retry-After": str(answer.retry_after_s)}
        return PlainTextResponse(f"{answer.words}\n", answer.status, again)

    return Starlette(routes=[Route(f"/{PATH}", take, methods=["POST"])])


class _Server(uvicorn.Server):
    """uvicorn that says where it listens, once it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        sys.stdout.write(json.dumps({"url": f"http://{shown}:{port}/{PATH}"}) + "\n")
        sys.stdout.flush()


def serve_callbacks(host: str, port: int) -> None:
    """Take callbacks until interrupted; prints one JSON line when ready.

    Args:
        host: The address to listen on.
        port: 0 picks a free one.

    Raises:
        SettingsError: There is no secret, so that nothing could be taken.
    """
    if not callback_secrets():
        raise SettingsError(
            "There is no secret to check callbacks with.",
            cure=f"Put the one that is set at Runflow into {CALLBACK_SECRETS}.",
        )
    app = callback_app(Receiver(own_ledger))
    _Server(uvicorn.Config(app, host=host, port=port, log_level="warning")).run()
