"""Running the sandbox: inside a loop that is already running, or as a process of its own.

Invariants:
    * It listens on 127.0.0.1 and nowhere else.
    * Inside a loop it installs no signal handler and changes no logger, so that a notebook keeps its own.
    * Stopping is prompt: hangs end, connections are closed, the folder of clips is removed.
    * As a process it prints exactly one line on stdout, and only once it answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from kling_nb.sandbox.app import build_app
from kling_nb.sandbox.faults.board import Faults, Setting, parse_faults
from kling_nb.sandbox.render.cache import Clips
from kling_nb.sandbox.replies import TRANSPORT, asked_transport, asking
from kling_nb.sandbox.runcomfy import RunComfy
from kling_nb.sandbox.state import ProviderState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from starlette.types import Receive, Scope, Send

__all__ = ["Sandbox", "parse_faults", "serve"]


class _Protocol(H11Protocol):
    """uvicorn's own protocol, letting the app see the socket: ASGI has no word for hanging up."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        inner: Any = self.app

        async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
            scope[TRANSPORT] = self.transport
            await inner(scope, receive, send)

        self.app: Any = with_transport


class _Server(uvicorn.Server):
    """uvicorn without its hold on signals: they belong to whoever owns the process."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self.leaving = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then tell who waits for it."""
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        """Wait for the end: uvicorn wakes ten times a second to look for an exit and to write its Date."""
        await self.leaving.wait()

    def hang_up_all(self) -> None:
        """Close every connection but the one that asks for it."""
        asking = asked_transport()
        for connection in list(self.server_state.connections):
            if connection.transport is not asking:
                connection.transport.abort()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, then close every connection at once: nobody is owed an answer by a sandbox."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        tasks = set(self.server_state.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=1)
        for server in self.servers:
            await server.wait_closed()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


class Sandbox:
    """A running sandbox.

    Example:
        >>> async def main() -> None:
        ...     async with await Sandbox.start(wait_scale=0) as sandbox:
        ...         print(sandbox.runflow)
    """

    def __init__(self, provider: ProviderState, server: _Server, task: asyncio.Task[None], port: int) -> None:
        """Not for callers: use `start`."""
        self.provider = provider
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.runflow = f"{self.url}/runflow"
        self.runcomfy = f"{self.url}/runcomfy"
        self._server = server
        self._task = task

    @classmethod
    async def start(
        cls,
        port: int = 0,
        wait_scale: float = 1.0,
        faults: Mapping[str, Setting] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        seed: int | None = None,
        clips: int = 64,
    ) -> Self:
        """Start one as a task of the running loop.

        Args:
            port: TCP port on 127.0.0.1; 0 picks a free one.
            wait_scale: Multiplies every simulated wait: 1 = about four seconds a clip, 0 = none.
            faults: Switches to set, by name.
            clock: Simulated seconds; they must never go back.
            seed: Makes ids and dice repeatable. Leave it out where ids must not repeat between sandboxes.
            clips: Most rendered files kept.

        Returns:
            The sandbox, answering already.

        Raises:
            ValueError: An unknown switch or a bad value; a negative `wait_scale`.
            OSError: The port is taken.
        """
        if not 0 <= wait_scale < float("inf"):
            msg = f"wait_scale must be 0 or more, not {wait_scale!r}"
            raise ValueError(msg)
        board = Faults(faults, seed)
        listener = socket.socket()
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
        except OSError:
            listener.close()
            raise
        provider = ProviderState(clock=clock, wait_scale=wait_scale, faults=board, clips=Clips(clips))
        config = uvicorn.Config(
            asking(build_app(provider)),
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            date_header=False,
            # A connection closed for idleness under a client's next POST would look like a lost answer;
            # that is a fault to be asked for (submit_drop), never one that happens by itself.
            timeout_keep_alive=3600,
        )
        server = _Server(config)
        provider.hang_up_all = server.hang_up_all
        task = asyncio.create_task(server.serve(sockets=[listener]), name="kling-nb-sandbox")
        ready = asyncio.create_task(server.ready.wait())
        await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if task.done():
            provider.clips.close()
            task.result()
        return cls(provider, server, task, listener.getsockname()[1])

    async def stop(self) -> None:
        """Stop answering, close every connection and remove the files. Doing it twice is harmless."""
        self.provider.stopping.set()
        self._server.leaving.set()
        await asyncio.wait([self._task])
        try:
            await asyncio.to_thread(self.provider.clips.close)
        except RuntimeError:  # at the interpreter's exit there are no more threads to be had
            self.provider.clips.close()

    async def take_up(self, run_id: str, *, model: str, body: bytes, age_s: float) -> None:
        """Go on with a run that an earlier sandbox at this address accepted; one that is known is left alone.

        Args:
            run_id: Its id, of RunComfy's wire.
            model: The model's id on that wire.
            body: The request as it was sent.
            age_s: How long ago it was.
        """
        RunComfy(self.provider).take_up(run_id, model, body, age_s)

    async def restart(self, *, memory: bool = True) -> None:
        """Do as a provider that was started anew: every connection is closed, in the middle of an answer too.

        Args:
            memory: Whether it still knows its runs, which go on; else they are known to nobody.
        """
        self.provider.restart(memory=memory)

    async def settled(self) -> None:
        """Wait until nothing is being rendered: for tests with a clock of their own."""
        await self.provider.clips.settled()
        await asyncio.sleep(0)

    def stats(self) -> dict[str, Any]:
        """What `GET /_sandbox/stats` answers."""
        return self.provider.stats()

    def set_faults(self, settings: Mapping[str, Setting]) -> None:
        """Change switches while it runs.

        Args:
            settings: By name, as for `start`.

        Raises:
            ValueError: An unknown switch or a bad value.
        """
        self.provider.faults.set(settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def serve(
    port: int = 0,
    wait_scale: float = 1.0,
    faults: Mapping[str, Setting] | None = None,
    seed: int | None = None,
) -> None:
    """Run a sandbox until SIGINT or SIGTERM. It blocks; it must be called in the main thread.

    Args:
        port: TCP port on 127.0.0.1; 0 picks a free one.
        wait_scale: Multiplies every simulated wait.
        faults: Switches to set, by name.
        seed: Makes ids and dice repeatable.

    Raises:
        ValueError: As `Sandbox.start`.
        OSError: The port is taken.
    """
    asyncio.run(_serve(port, wait_scale, faults, seed))


async def _serve(
    port: int, wait_scale: float, faults: Mapping[str, Setting] | None, seed: int | None
) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stopping.set)
        except NotImplementedError:  # Windows loops have none; its own handler wakes the loop instead
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stopping.set))
    async with await Sandbox.start(port, wait_scale, faults, seed=seed) as sandbox:
        line = json.dumps({"runflow": sandbox.runflow, "runcomfy": sandbox.runcomfy})
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
        await stopping.wait()
