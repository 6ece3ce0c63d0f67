"""The request that is being answered, for answers that repeat a part of it.

Invariants:
    * It is known only while it is answered, and only to the task that answers it; nothing of it is kept.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from kling_nb.sandbox.replies import TRANSPORT

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

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
            await app(scope, receive, send)
        finally:
            _scope.reset(token)

    return noted


def asked_path() -> str:
    """Path and query of the request, as a redirect to itself needs it."""
    scope = _scope.get() or {"path": "/", "query_string": b""}
    query = scope["query_string"].decode("latin-1")
    return f"{scope['path']}?{query}" if query else str(scope["path"])


def asked_transport() -> object:
    """The connection that the request came by, if it came by one."""
    scope = _scope.get()
    return None if scope is None else scope.get(TRANSPORT)


def told(words: str) -> str:
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
