"""Answers, good and bad: JSON, an error page, a connection closed, an answer cut short, a slow one.

Invariants:
    * A dropped connection is really closed on the socket: the client sees a reset or an end of file, never
      an HTTP answer that some framework put in its place.
    * After a drop the coroutine waits for the server to notice, so that nothing is logged as a mistake.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, Response

if TYPE_CHECKING:
    from datetime import datetime

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

TRANSPORT: Final = "kling_nb.transport"
"""Key of the scope under which `serve` puts the socket's asyncio transport."""


class RefusedError(Exception):
    """Ends the handling of a request with an answer; the app turns it into that answer."""

    def __init__(self, reply: Response) -> None:
        """Carry the answer.

        Args:
            reply: What the client gets.
        """
        super().__init__()
        self.reply = reply


Pause = Callable[[float], Awaitable[None]]


def json_reply(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON in ASCII: a prompt with a lone surrogate could not be encoded as UTF-8.

    Args:
        body: Anything `json` can write.
        status: HTTP status.
        headers: More headers.

    Returns:
        The response.
    """
    return Response(json.dumps(body), status, headers, media_type="application/json")


def page(status: int) -> Response:
    """The kind of HTML page that a gateway in front of an API answers with."""
    return HTMLResponse(
        f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>", status
    )


class Hangup(Response):
    """No answer: the connection is closed."""

    def __init__(self, style: str = "reset") -> None:
        """Prepare it.

        Args:
            style: `reset` sends a TCP RST, `close` an orderly end.
        """
        super().__init__()
        self.style = style

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's form
        """Close the socket and wait until the server has seen it."""
        await hang_up(scope, receive, self.style)


class Cut(Response):
    """Another answer, cut off in the middle of its body."""

    def __init__(self, inner: Response) -> None:
        super().__init__()
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head and half of the body, then close."""
        room = 0

        async def halved(message: Message) -> None:
            nonlocal room
            if message["type"] == "http.response.start":
                length = dict(message["headers"]).get(b"content-length", b"0")
                room = int(length) // 2
                await send(message)
                return
            part = message.get("body", b"")[:room]
            room -= len(part)
            if part:
                await send({"type": "http.response.body", "body": part, "more_body": True})

        await self.inner(scope, receive, halved)
        await self.between()
        await hang_up(scope, receive, "close")

    async def between(self) -> None:
        """What happens between the half and the end: nothing."""


class Trickle(Response):
    """Another answer, its body sent a little at a time."""

    def __init__(self, inner: Response, bytes_s: float, pause: Pause) -> None:
        """Prepare it.

        Args:
            inner: The answer.
            bytes_s: Speed, above 0.
            pause: Sleeps so many seconds, or less when the sandbox stops.
        """
        super().__init__()
        self.inner = inner
        self.step = max(1, int(bytes_s / 10))
        self.pause = pause

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send ten slices a second."""

        async def sliced(message: Message) -> None:
            body = message.get("body", b"")
            while message["type"] == "http.response.body" and len(body) > self.step:
                await send({"type": "http.response.body", "body": body[: self.step], "more_body": True})
                body = body[self.step :]
                await self.pause(0.1)
            await send({**message, "body": body} if "body" in message else message)

        await self.inner(scope, receive, sliced)


async def hang_up(scope: Scope, receive: Receive, style: str) -> None:
    """Close the socket of a request and wait until the server has seen it.

    Args:
        scope: Of the request; holds the socket's transport.
        receive: Of the request.
        style: `reset` sends a TCP RST, `close` an orderly end.
    """
    transport: Any = scope.get(TRANSPORT)
    if not isinstance(transport, asyncio.Transport):
        msg = "a connection can only be dropped under kling_nb.sandbox.serve"
        raise RuntimeError(msg)  # noqa: TRY004 - the server is at fault, not an argument's type
    if transport.is_closing():
        return  # the client was quicker
    if style == "reset":
        # Lingering for 0 seconds is how a socket is told to answer with RST (socket(7), SO_LINGER).
        bare = transport.get_extra_info("socket")
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()
    while (await receive())["type"] != "http.disconnect":
        pass


_scope: ContextVar[Scope | None] = ContextVar("kling_nb_sandbox_scope", default=None)


def asking(app: ASGIApp) -> ASGIApp:
    """Let an app know whom it answers.

    Args:
        app: Any ASGI app.

    Returns:
        The same app behind a note of the request.
    """

    async def noted(scope: Scope, receive: Receive, send: Send) -> None:
        token = _scope.set(scope)
        try:
            # Who leaves within his own request, as a kernel that ends does, is owed no answer.
            with suppress(ClientDisconnect):
                await app(scope, receive, send)
        finally:
            _scope.reset(token)

    return noted


def dated(app: ASGIApp, date: Callable[[], datetime]) -> ASGIApp:
    """Let every answer say the provider's own date, unless it says another one.

    Args:
        app: Any ASGI app.
        date: The simulated date, with its zone.

    Returns:
        The same app.
    """

    async def asked(scope: Scope, receive: Receive, send: Send) -> None:
        async def with_date(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message["headers"])
                if all(name.lower() != b"date" for name, _ in headers):
                    headers.append((b"date", format_datetime(date(), usegmt=True).encode()))
                message = {**message, "headers": headers}
            await send(message)

        await app(scope, receive, with_date)

    return asked


def asked_path() -> str:
    """Path and query of the request, as a redirect to itself needs it."""
    scope = _scope.get() or {"path": "/", "query_string": b""}
    query = scope["query_string"].decode("latin-1")
    return f"{scope['path']}?{query}" if query else str(scope["path"])


def asked_transport() -> object:
    """The connection that the request came by, if it came by one."""
    scope = _scope.get()
    return None if scope is None else scope.get(TRANSPORT)


def echo_text(words: str) -> str:
    """Words that repeat the request's secret and a signed link, as careless servers do.

    Args:
        words: What else is said.

    Returns:
        One text.
    """
    scope = _scope.get()
    headers = dict(scope["headers"]) if scope is not None else {}
    key = headers.get(b"authorization", b"").decode("latin-1")
    bare = key.partition(" ")[2]
    link = "https://files.example.net/clip.mp4?expires=9&kling_sig=0123456789abcdef"
    return f"{words} (Authorization: {key}; token={bare}; {bare}; see {link})"
