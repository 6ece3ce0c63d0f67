"""Runs whose provider calls when they have ended: whoever took the call wrote it into the ledger.

Invariants: a call decides nothing, it only has its run read at once; nothing is looked for while no run that
is watched has an address to be called at.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from kling_nb.errors import LedgerError
from kling_nb.ledger.database import Ledger
from kling_nb.ledger.databases.changes import CALLED

if TYPE_CHECKING:
    from kling_nb.engine.job import Job
    from kling_nb.engine.limits import Clock

__all__ = ["Callbacks"]

#: Seconds between two looks at a real provider's.
_LOOK_S = 0.5


class Callbacks:
    """Looks for calls; belongs to the background loop.

    Args:
        on_call: Called with our id of each run whose provider has called.
    """

    def __init__(self, on_call: Callable[[str], None]) -> None:
        self._on_call = on_call
        self._expected: dict[str, Job] = {}
        #: Those of them whose own events were read.
        self._known: set[str] = set()
        self._looking: asyncio.Task[None] | None = None
        #: There may be something new: a run, or a call where the ledger tells of it.
        self._new = asyncio.Event()

    def expect(self, job: "Job") -> None:
        """Have a run read when its provider calls, or has called before its id was known."""
        self._expected[job.record.id] = job
        self._new.set()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look(job.ledger, job.clock))

    def forget(self, run_id: str) -> None:
        """Wait for no call of a run any more."""
        self._expected.pop(run_id, None)
        self._known.discard(run_id)

    def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self, ledger: Ledger, clock: "Clock") -> None:
        with ledger.changes.watched(CALLED, self._new.set):
            await self._look_again(ledger, clock)

    async def _look_again(self, ledger: Ledger, clock: "Clock") -> None:
        after: int | None = None
        while self._expected:
            self._new.clear()
            with contextlib.suppress(LedgerError):
                last, called = await asyncio.to_thread(ledger.callbacks, after)
                # One that came before this began to look stands among the run's own events.
                added = self._expected.keys() - self._known
                own: list[str] = []
                for run_id in added:
                    events = await asyncio.to_thread(ledger.events, run_id)
                    own += [run_id for _, kind, _ in events if kind == CALLED]
                if own:
                    # It may have come since, and is not to be found once more.
                    last, more = await asyncio.to_thread(ledger.callbacks, last)
                    called += own + more
                after = last
                self._known |= added & self._expected.keys()
                for run_id in self._expected.keys() & set(called):
                    self._on_call(run_id)
            pause_s = min((job.wait_s(_LOOK_S) for job in self._expected.values()), default=0)
            new = asyncio.ensure_future(self._new.wait())
            pause = asyncio.ensure_future(clock.sleep(ledger.changes.look_s(pause_s)))
            try:
                await asyncio.wait([new, pause], return_when=asyncio.FIRST_COMPLETED)
            finally:
                new.cancel()
                pause.cancel()
