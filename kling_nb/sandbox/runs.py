"""A run and the store of them: what the providers would remember.

Invariants:
    * A run's fate (its waits and how it ends) is drawn when it is created. Its state is then a function of
      the clock and of whether its file is ready: reading never changes it, and it never goes back.
    * A run belongs to one account and is invisible to another.
    * No key is ever stored; an account is the name of a kind of key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator
    from decimal import Decimal
    from pathlib import Path

    from kling_nb.sandbox.faults.switches import Wire
    from kling_nb.sandbox.render.clip import ClipPlan

Ending = Literal["succeeded", "failed", "moderated", "canceled", "stuck"]
State = Literal["queued", "dispatching", "running", "succeeded", "failed", "canceled"]

TERMINAL = frozenset({"succeeded", "failed", "canceled"})


@dataclass
class Fate:
    """What was decided about a run at its birth."""

    queue_s: float = 0.0
    dispatch_s: float = 0.0
    run_s: float = 0.0
    ending: Ending = "succeeded"
    forgotten: bool = False

    @property
    def total_s(self) -> float:
        """Seconds from birth to end."""
        return self.queue_s + self.dispatch_s + self.run_s


@dataclass
class Run:
    """One accepted request."""

    id: str
    wire: Wire
    account: str
    model: str
    input: dict[str, Any]
    """As it was sent."""
    plan: ClipPlan
    """As it was understood."""
    price: Decimal
    """USD a second."""
    fate: Fate
    born_s: float
    """The clock when it was accepted."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What Runflow's envelope adds: client_ref, callback_url, metadata, idempotency_key."""
    clip: asyncio.Future[Path] | None = None
    ready_s: float | None = None
    """The clock when its file was there."""
    canceled_s: float | None = None

    def due_s(self) -> float:
        """The clock when it ends, if its file is ready by then."""
        return self.born_s + self.fate.total_s

    def broken(self) -> bool:
        """Whether its file could not be made."""
        clip = self.clip
        return clip is not None and clip.done() and (clip.cancelled() or clip.exception() is not None)

    def state(self, now_s: float) -> State:
        """Where it stands.

        Args:
            now_s: The sandbox's clock.

        Returns:
            One of Runflow's words; RunComfy's are derived from them.
        """
        if self.canceled_s is not None:
            return "canceled"
        age, fate = now_s - self.born_s, self.fate
        if age < fate.queue_s:
            return "queued"
        if age < fate.queue_s + fate.dispatch_s:
            return "dispatching"
        if age < fate.total_s or fate.ending == "stuck":
            return "running"
        return self._end()

    def _end(self) -> State:
        """Where it stands once its time is over."""
        if self.fate.ending == "canceled":
            return "canceled"
        if self.fate.ending in {"failed", "moderated"} or self.broken():
            return "failed"
        return "running" if self.ready_s is None else "succeeded"

    def ended_s(self) -> float:
        """The clock at its end; only of meaning once it has ended."""
        if self.canceled_s is not None:
            return self.canceled_s
        return max(self.due_s(), self.ready_s or 0.0)

    def started_s(self) -> float:
        """The clock when it began to run."""
        return self.born_s + self.fate.queue_s + self.fate.dispatch_s


class Runs:
    """All runs of one sandbox, oldest first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._runs: dict[str, Run] = {}

    def __iter__(self) -> Iterator[Run]:
        """Oldest first."""
        return iter(list(self._runs.values()))

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, run: Run) -> None:
        """Remember a new run."""
        self._runs[run.id] = run

    def find(self, wire: Wire, run_id: str, retention_s: float = 0.0) -> Run | None:
        """A run that the provider still knows.

        Args:
            wire: Which provider is asked.
            run_id: Its id.
            retention_s: Age at which a run is forgotten; 0 keeps it for ever.

        Returns:
            The run, of whatever account, or None.
        """
        run = self._runs.get(run_id)
        if run is None or run.wire != wire or run.fate.forgotten:
            return None
        if retention_s and self._clock() - run.born_s >= retention_s:
            return None
        return run

    def clear(self) -> None:
        """Forget all."""
        self._runs.clear()
