"""Answers whose body or length lies: JSON that no client should trust, and lengths that are not kept.

Invariants:
    * A spoilt body is made from the right one, so that only the named thing is wrong with it.
    * What lies about its length is written to the socket as it is: no HTTP library would send it.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from kling_nb.sandbox.replies import TRANSPORT, Cut, Pause, hang_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Message, Receive, Scope, Send

DEPTH: Final = 100_000
"""Levels of a deep body: more than any parser recurses."""

DIGITS: Final = 5_000
"""Digits of a huge integer: more than Python turns into an int by itself (4300, see `sys.int_info`)."""

PADDING: Final = 9 << 20
"""Bytes added to an oversized body."""

FILE_LENGTH: Final = 3 << 30
"""What an oversized file says that it has."""


def _cut(body: Any) -> str:
    return json.dumps(body)[:-2]


def _types(body: Any) -> str:
    return json.dumps(_other(body))


def _other(value: Any) -> Any:
    """The same shape with another type in every leaf."""
    if isinstance(value, dict):
        return {name: _other(part) for name, part in value.items()}
    if isinstance(value, list):
        return {str(number): _other(part) for number, part in enumerate(value)}
    if isinstance(value, str):
        return [len(value)]
    return {"value": value} if value is None or isinstance(value, bool) else [str(value)]


def _nulls(body: Any) -> str:
    return json.dumps(dict.fromkeys(body))


def _deep(body: Any) -> str:
    return f'{json.dumps(body)[:-1]}, "deep": {"[" * DEPTH}{"]" * DEPTH}}}'


def _huge(body: Any) -> str:
    marks = {"9" * DIGITS: '"huge-int"', "1e999": '"huge-float"'}
    text = json.dumps({**_numbers(body), "more": "huge-int", "less": "huge-float"})
    for number, mark in marks.items():
        text = text.replace(mark, number)
    return text


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _numbers(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_numbers(part) for part in value]
    if isinstance(value, float):
        return "huge-float"
    return "huge-int" if type(value) is int else value


def _doubled(body: Any) -> str:
    return f"{json.dumps(dict.fromkeys(body))[:-1]}, {json.dumps(body)[1:]}"


def _oversized(body: Any) -> str:
    return json.dumps({**body, "padding": " " * PADDING})


_WAYS: Final[dict[str, Callable[[Any], str]]] = {
    "cut": _cut,
    "types": _types,
    "nulls": _nulls,
    "deep": _deep,
    "huge": _huge,
    "doubled": _doubled,
    "oversized": _oversized,
}


def spoilt(reply: Response, way: str) -> Response:
    """An answer with its JSON spoilt.

    Args:
        reply: Whole JSON, an object.
        way: A key of `switches.BODIES`.

    Returns:
        The same status with another body.

    Example:
        >>> spoilt(Response('{"id": "a"}'), "nulls").body
        b'{"id": null}'
    """
    text = _WAYS[way](json.loads(bytes(reply.body)))
    return Response(text, reply.status_code, media_type="application/json")


class Lying(Response):
    """Another answer whose Content-Length is not its length."""

    def __init__(self, inner: Response, length: Callable[[int], int]) -> None:
        """Prepare it.

        Args:
            inner: The answer.
            length: What to say for a body of so many bytes.
        """
        super().__init__()
        self.inner = inner
        self.length = length

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's form
        """Write the answer around the server, whole, then close."""
        status, headers, body = 200, [], bytearray()

        async def collect(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], list(message["headers"])
            body.extend(message.get("body", b""))

        await self.inner(scope, receive, collect)
        kept = [pair for pair in headers if pair[0].lower() != b"content-length"]
        lines = [b"HTTP/1.1 %d Spoilt" % status, b"content-length: %d" % self.length(len(body))]
        lines += [b": ".join(pair) for pair in kept]
        transport = scope.get(TRANSPORT)
        if isinstance(transport, asyncio.Transport) and not transport.is_closing():
            transport.write(b"\r\n".join([*lines, b"", bytes(body)]))
        await hang_up(scope, receive, "close")


class Stall(Cut):
    """Another answer that stops in the middle of its body for a while, and then ends."""

    def __init__(self, inner: Response, seconds: float, pause: Pause) -> None:
        """Prepare it.

        Args:
            inner: The answer.
            seconds: Real seconds of silence.
            pause: Sleeps so many seconds, or less when the sandbox stops.
        """
        super().__init__(inner)
        self.seconds = seconds
        self.pause = pause

    async def between(self) -> None:
        """Say nothing."""
        await self.pause(self.seconds)
