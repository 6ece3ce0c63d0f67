"""The receiver of callbacks as a route of Jupyter Server, also below a hub's proxy.

Invariants: the route needs no login, since its caller has none; what it takes is signed, see `callbacks.py`;
nothing of the body is read where callbacks are off.
"""

import asyncio
import os
from functools import cache
from typing import TYPE_CHECKING, Any

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_path_join
from tornado.web import stream_request_body

from kling_nb.config.settings import CALLBACK_SECRETS
from kling_nb.team.answers import MAX_BYTES, OFF, PATH, SIGNATURE, Answer

if TYPE_CHECKING:
    from kling_nb.team.callbacks import Receiver

__all__ = ["add_route"]


@cache
def _receiver() -> "Receiver":
    from kling_nb.team.callbacks import Receiver, own_ledger

    return Receiver(own_ledger)


@stream_request_body
class CallbackHandler(JupyterHandler):
    """Takes one call."""

    def initialize(self) -> None:
        """Begin with nothing."""
        self._raw = bytearray()

    def check_xsrf_cookie(self) -> None:
        """Ask for none: the caller is no browser, and its signature is checked."""

    async def prepare(self) -> None:  # type: ignore[override]
        """Refuse what need not be read."""
        length = self.request.headers.get("Content-Length", "")
        off = OFF if not os.environ.get(CALLBACK_SECRETS) else None
        if refused := off or _receiver().refuses(int(length) if length.isdecimal() else None):
            self._say(refused)
            return
        connection: Any = self.request.connection
        connection.set_max_body_size(MAX_BYTES)
        await super().prepare()

    def data_received(self, chunk: bytes) -> None:
        """Take a part of the body."""
        self._raw += chunk

    @allow_unauthenticated
    async def post(self) -> None:
        """Take the call."""
        signature = self.request.headers.get(SIGNATURE, "")
        self._say(await asyncio.to_thread(_receiver().take, bytes(self._raw), signature))

    def _say(self, answer: Answer) -> None:
        self.set_status(answer.status)
        if answer.retry_after_s is not None:
            self.set_header("Retry-After", str(answer.retry_after_s))
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{answer.words}\n")


def add_route(app: Any) -> None:
    """Add the route to a running Jupyter Server.

    Args:
        app: Its `ServerApp`.
    """
    route = url_path_join(app.web_app.settings["base_url"], PATH)
    app.web_app.add_handlers(".*$", [(route, CallbackHandler)])
