"""Runflow's callbacks: one signed POST when a run has ended, and again where it was not taken.

Invariants:
    * An address that is not on this machine is never called.
    * What is signed is the raw body; without a secret nothing is.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import uuid
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx

from kling_nb.sandbox.runs import TERMINAL, Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from kling_nb.sandbox.faults.switches import Wire
    from kling_nb.sandbox.state import ProviderState

_WIRE: Final[Wire] = "runflow"
_WAITS_S: Final = (1.0, 2.0)
"""Seconds before the second and the third attempt: Runflow's model page, 2026-04-06."""
_EVENTS: Final = {"succeeded": "run.completed", "failed": "run.failed", "canceled": "run.cancelled"}


class Callbacks:
    """Calls the addresses that runs were sent with."""

    def __init__(self, provider: ProviderState) -> None:
        self._provider = provider
        self._tasks: set[asyncio.Task[None]] = set()

    def expect(self, run: Run, show: Callable[[], dict[str, Any]]) -> None:
        """Call a run's address once it has ended.

        Args:
            run: The run.
            show: Gives it as the API shows it.
        """
        task = asyncio.create_task(self._when_ended(run, show))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def call(self, run: Run, show: Callable[[], dict[str, Any]]) -> None:
        """Call a run's address now."""
        url, faults = str(run.extra["callback_url"]), self._provider.faults
        if urlsplit(url).hostname not in {"127.0.0.1", "localhost", "::1"}:
            self._provider.count(_WIRE, "callbacks_kept")
            return
        if faults.fires(_WIRE, "callback_lost"):
            return
        body = json.dumps(_body(show())).encode()
        for _ in range(2 if faults.fires(_WIRE, "callback_twice") else 1):
            await self._post(url, body)

    async def _when_ended(self, run: Run, show: Callable[[], dict[str, Any]]) -> None:
        provider = self._provider
        while run.state(provider.clock()) not in TERMINAL:
            if provider.stopping.is_set():
                return
            await provider.settle(run)
            await provider.pause(min(max(run.due_s() - provider.clock(), 0.02), 1.0))
        await self.call(run, show)

    async def _post(self, url: str, body: bytes) -> None:
        faults = self._provider.faults
        headers = {"Content-Type": "application/json", "Runflow-Request-Id": str(uuid.uuid4())}
        word = faults.word(_WIRE, "callback_secret")
        if word == "environment":
            word = os.environ.get("KLING_NB_CALLBACK_SECRETS", "")
        if key := word.split(",")[0].strip():
            headers["Runflow-Signature"] = hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
        if faults.fires(_WIRE, "callback_tampered"):
            body = body.replace(b'"run_id"', b'"run_ID"')
        # A proxy of this machine's has no business between two of its servers.
        async with httpx.AsyncClient(trust_env=False) as client:
            for wait_s in (*_WAITS_S, None):
                self._provider.count(_WIRE, "callbacks")
                try:
                    if (await client.post(url, content=body, headers=headers)).status_code < 500:
                        return
                except httpx.HTTPError:
                    pass
                if wait_s is None or self._provider.stopping.is_set():
                    return
                await self._provider.pause(wait_s * min(self._provider.wait_scale, 1.0))


def _body(shown: dict[str, Any]) -> dict[str, Any]:
    names = ("output", "duration_ms", "created_at", "completed_at", "metadata")
    state = shown["status_code"]
    return {
        "event": _EVENTS[state],
        "run_id": shown["id"],
        "status": "cancelled" if state == "canceled" else state,
        **{name: shown[name] for name in names},
    }
