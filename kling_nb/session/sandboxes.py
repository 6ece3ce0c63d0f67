"""The sandboxes of one process: one for new runs, and one in the place of each that ended with its kernel.

Invariants: a sandbox that is still there, in whatever process, is left alone; what a sandbox makes follows
from the request, so another one at its address goes on with its runs; no real provider is ever stood in for.
"""

import json
import threading
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kling_nb.addresses import is_loopback
from kling_nb.loop import Loop
from kling_nb.providers import make_provider
from kling_nb.records.base import utc_now
from kling_nb.records.run import RunRecord

if TYPE_CHECKING:
    from kling_nb.sandbox.serve import Sandbox

__all__ = ["Sandboxes"]


class Sandboxes:
    """The sandboxes of one process.

    Args:
        loop: Where they run.

    Example:
        >>> Sandboxes(Loop()).running
        []
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._by_address: dict[str, Sandbox] = {}

    @property
    def running(self) -> "list[Sandbox]":
        """Those that are running, the one for new runs first."""
        return list(self._by_address.values())

    def address(self, wait_scale: float) -> str:
        """Give the address for a new run; the first call starts the sandbox.

        Args:
            wait_scale: Multiplies its waits, if it is started now.
        """
        with self._lock:
            return next(iter(self._by_address), None) or self._start(wait_scale)

    def take_up(self, record: RunRecord, wait_scale: float) -> bool:
        """Go on with a run whose own sandbox has ended; nothing happens where it is still there.

        Args:
            record: A run of a sandbox.
            wait_scale: Multiplies the waits of a sandbox that is started now.

        Returns:
            Whether a sandbox of this process knows it now.
        """
        if record.provider_run_id is None or not record.status.pending or not is_loopback(record.origin):
            return False
        with self._lock:
            if record.origin not in self._by_address:
                try:
                    self._start(wait_scale, urlsplit(record.origin).port or 0)
                except OSError:
                    # Its port is taken: it is there, in another kernel.
                    return False
            sandbox = self._by_address.get(record.origin)
        if sandbox is None:
            return False
        call = make_provider("sandbox", record.origin).submit_call(
            record.request, record.provider_model, client_ref="", metadata={}
        )
        taking = sandbox.take_up(
            record.provider_run_id,
            model=record.provider_model,
            body=json.dumps(call.json).encode(),
            age_s=(utc_now() - (record.accepted_at or record.created_at)).total_seconds(),
        )
        self._loop.start(taking).result()
        return True

    def close(self) -> None:
        """Stop them all."""
        with self._lock:
            ending, self._by_address = self.running, {}
        for sandbox in ending:
            with suppress(TimeoutError):
                self._loop.start(sandbox.stop()).result(5)

    def _start(self, wait_scale: float, port: int = 0) -> str:
        from kling_nb.sandbox.serve import Sandbox

        # RunComfy's own shortest shot is 3 s; play is for every storyboard that any provider takes.
        shots = {"runcomfy.min_shot_s": make_provider("sandbox").min_shot_s}
        made = self._loop.start(Sandbox.start(port, wait_scale=wait_scale, faults=shots)).result()
        self._by_address[made.runcomfy] = made
        return made.runcomfy
