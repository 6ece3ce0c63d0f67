"""How a sweep is sent: a few members at a time, as many as there are places in flight.

Invariants: no more members are asked for than an account has places, which go to sweeps in turns, and to
single runs first; every one goes through `Session.open_many`, which never pays twice; one that fails or is
refused stops no other; the budget, what was agreed to, a pause and the end of the session do.
"""

import asyncio
import contextlib
import os
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from kling_nb.engine.run import Run
from kling_nb.errors import BudgetError, KlingError
from kling_nb.ledger.databases.changes import DETACHED
from kling_nb.ledger.sweeps import state_of
from kling_nb.records.money import dollars, usd
from kling_nb.records.run import RunStatus

if TYPE_CHECKING:
    from concurrent.futures import Future

    from kling_nb.ledger.databases.changes import Changes
    from kling_nb.session.opening import Opened
    from kling_nb.session.session import Session
    from kling_nb.sweeps.grid import Member

__all__ = ["Feed"]

#: Calls in one transaction of the ledger.
_CHUNK = 100
_LOOK_S = 1.0
#: Seconds until a run that is not sent is canceled.
_CANCEL_S = 60
_AT_PROVIDER = frozenset({RunStatus.CREATED, RunStatus.SUBMITTING, RunStatus.QUEUED, RunStatus.RUNNING})

_feeds: "weakref.WeakSet[Feed]" = weakref.WeakSet()


class Feed:
    """One sending of a sweep, on the background loop.

    Args:
        session: Through which every member is asked for.
        name: Of the sweep.
        members: What is to be opened, in order, each with its provider; without one it needs no place.
        prices: By number, what a new one was quoted at, in micro-dollars; it may cost no more.
        left_micros: What is left of the money that was agreed to.
        most_micros: What somebody declared that the sweep may cost, which is consent for each of its runs.
        detached: Whether all is left to workers, which need no kernel.

    Example:
        >>> Feed.__name__
        'Feed'
    """

    def __init__(
        self,
        session: "Session",
        name: str,
        members: "Sequence[tuple[Member, str]]",
        *,
        prices: Mapping[int, int],
        left_micros: int,
        most_micros: int | None,
        detached: bool = False,
    ) -> None:
        self.runs: dict[int, Run] = {}
        self.errors: dict[int, KlingError] = {}
        self.stopped: KlingError | None = None
        self._session, self._name, self._prices = session, name, prices
        self._left_micros, self._most_micros, self.detached = left_micros, most_micros, detached
        self._queues: dict[str, deque[Member]] = {}
        for member, provider in members:
            self._queues.setdefault(provider, deque()).append(member)
        #: By provider, those that have not ended.
        self._going: dict[str, list[Run]] = {provider: [] for provider in self._queues}
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._future: Future[None] | None = None
        _feeds.add(self)

    def forget(self) -> None:
        """In a forked child: it is its parent that sends, and its runs are followed as any other's."""
        self._future = self._loop = None
        self.runs, self._going = {}, {}

    def start(self) -> None:
        """Begin to send."""
        self._session.before_close(self.close)
        self._future = self._session.loop.start(self._run())

    def hand_over(self) -> None:
        """Send nothing more, and end what is not sent, so that others may send it."""
        self.close()
        for asked in [run.request_cancel() for run in self._unsent()]:
            asked.result(_CANCEL_S)

    def close(self) -> None:
        """Send nothing more; what was sent goes on."""
        self._closed = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._changed.set)
        self.wait(10)

    @property
    def over(self) -> bool:
        """Whether everything is sent, and nothing of it is on its way."""
        return not self.sending and not any(map(self._undone, self._going))

    def _undone(self, provider: str) -> list[Run]:
        self._going[provider] = [run for run in self._going[provider] if not run.done]
        return self._going[provider]

    @property
    def sending(self) -> bool:
        """Whether there is, or may be, more to send."""
        return self._future is not None and not self._future.done()

    def wait(self, timeout_s: float) -> bool:
        """Wait until everything is sent; whether it is."""
        if self._future is not None:
            with contextlib.suppress(TimeoutError):
                self._future.result(timeout_s)
        return not self.sending

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            changes = (await asyncio.to_thread(self._session.ledger)).changes
            with changes.watched(DETACHED, self._changed.set):
                await self._send(changes)
        except Exception as error:  # noqa: BLE001 - any fault must end as words on the card, not vanish in a thread
            self.stopped = error if isinstance(error, KlingError) else _fault(self._name, error)

    async def _send(self, changes: "Changes") -> None:
        while (any(self._queues.values()) or self._unsent()) and not self._closed:
            self._changed.clear()
            if await asyncio.to_thread(self._state) != "started":
                await asyncio.to_thread(self._cancel_unsent)
                return
            chunk = self._chunk()
            for provider, members in chunk.items():
                # A provider at a time: one request at two of them has one claim in the folder.
                opened = await asyncio.to_thread(self._open, members)
                for member, one in zip(members, opened, strict=True):
                    self._note(member, provider, one)
            if self.stopped is not None:
                # What waits for a place is still looked after.
                self._queues.clear()
            if not chunk:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), changes.look_s(_LOOK_S))

    def _state(self) -> str:
        return self._session.ledger().read(lambda look: state_of(look, self._name)) or "canceled"

    def _chunk(self) -> "dict[str, list[Member]]":
        """Take as many members as there are places, by provider."""
        chunk: dict[str, list[Member]] = {}
        at_once = self._session.settings().max_in_flight
        for provider, queue in self._queues.items():
            there = sum(run.status in _AT_PROVIDER for run in self._undone(provider))
            places = at_once - there if provider and not self.detached else _CHUNK
            for _ in range(min(places, len(queue), _CHUNK)):
                price = self._prices.get(queue[0].number, 0)
                if price > self._left_micros:
                    self.stopped = self._spent(price)
                    return chunk
                self._left_micros -= price
                chunk.setdefault(provider, []).append(queue.popleft())
        return chunk

    def _open(self, members: "Sequence[Member]") -> "Sequence[Opened]":
        asks = [
            replace(member.ask(self._most(member)), of_sweep=self._name, detached=self.detached)
            for member in members
        ]
        return self._session.open_many(asks)

    def _most(self, member: "Member") -> Decimal | None:
        most = self._most_micros
        return None if most is None else dollars(self._prices.get(member.number, most))

    def _note(self, member: "Member", provider: str, opened: "Opened") -> None:
        if isinstance(opened.error, BudgetError):
            # It waits, as those do that come after it.
            self.stopped = self.stopped or opened.error
            return
        if opened.error is not None:
            self.errors[member.number] = opened.error
            return
        [run] = opened.runs
        if self.detached:
            # Whoever looks, looks into the ledger.
            return
        self.runs[member.number] = run
        self._going[provider].append(run)
        run.on_change(self._on_change)

    def _on_change(self, _run: Run) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._changed.set)

    def _cancel_unsent(self) -> None:
        for run in self._unsent():
            run.request_cancel()

    def _unsent(self) -> list[Run]:
        """Give what was asked for and waits for a place; of those that go on, which are few."""
        going = [run for provider in self._going for run in self._undone(provider)]
        return [run for run in going if run.status is RunStatus.CREATED]

    def _spent(self, price: int) -> BudgetError:
        return BudgetError(
            f"The next run costs {usd(price)}, and {usd(self._left_micros)} is left of what was agreed to.",
            cure="It was not sent, and no later one. `start(confirm=True)` agrees to the rest.",
            asked_micros=price,
        )


def _fault(name: str, error: Exception) -> KlingError:
    return KlingError(
        f"kling_nb failed while it sent the sweep {name}: {type(error).__name__}.",
        charged="unknown",
        cure=f"What was sent is on record: `kling.sweep({name!r}).start()` goes on.",
    )


def _forget_all() -> None:
    for feed in list(_feeds):
        feed.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
