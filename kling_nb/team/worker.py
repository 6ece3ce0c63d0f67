"""A worker: sends the runs that are left to workers, and takes over what a dead one left; `kling-nb worker`.

The ledger says what there is to do. It is looked at when a run of the worker has ended, when the queue wakes
it or the ledger tells of a change, and in any case now and then, so that a job of the queue that is lost
costs no more than that time.

Invariants: a run is claimed before anything is done for it, and sent only where its account is of one of the
worker's own keys and has a place; when a worker stops, it keeps no run.
"""

import asyncio
import contextlib
import math
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kling_nb.addresses import is_loopback
from kling_nb.config.keys import KEY_VARIABLES, fingerprint
from kling_nb.config.settings import provider_origin
from kling_nb.engine.run import Run
from kling_nb.errors import DetachedError, KlingError, LedgerError
from kling_nb.ledger.databases.changes import DETACHED, WORK
from kling_nb.ledger.places import LAPSED_S, account_key
from kling_nb.ledger.work.detached import (
    PLAY,
    Lane,
    Work,
    find_work,
    left_behind,
    pending_runs,
    take_work,
    unwanted,
)
from kling_nb.ledger.work.queue import has_queue, work
from kling_nb.ledger.writer import AWAY_S
from kling_nb.records.run import RunRecord, RunStatus
from kling_nb.views.words import counted

if TYPE_CHECKING:
    from kling_nb.engine.engine import Engine
    from kling_nb.ledger.transaction import Transaction
    from kling_nb.session.session import Session

__all__ = ["Worker"]

#: Seconds between two looks of one that has nothing to do, and until a run that could not be carried is tried
#: again.
_REST_S = 30.0
#: Seconds between two looks while work waits for a place, or where nobody wakes, and at least between two
#: that changes lead to: at real providers, and where one is on this machine.
_STEP_S, _STEP_HERE_S = 1.0, 0.2
#: Runs in one look; seconds until a queue that does not end is canceled once more.
_CHUNK, _CANCEL_S = 100, 5.0


class Worker:
    """One worker on the ledger of a session.

    Args:
        session: Whose ledger, keys and folder.
        concurrency: Runs in hand at once; by default as many as its accounts have places.
        until_empty: Whether it ends when no run of the ledger is on its way, here or elsewhere.
        max_time_s: Seconds after which it ends in any case.
        say: Tells a person what happens, a line at a time.

    Example:
        >>> Worker.__name__
        'Worker'
    """

    def __init__(
        self,
        session: "Session",
        *,
        concurrency: int | None = None,
        until_empty: bool = False,
        max_time_s: float | None = None,
        say: Callable[[str], object],
    ) -> None:
        self._session, self._until_empty, self._say = session, until_empty, say
        self._most = concurrency or _CHUNK
        self._end = None if max_time_s is None else time.monotonic() + max_time_s
        self._mine: dict[str, Run] = {}
        #: Those that tell of their changes, also while they are left alone.
        self._handles: dict[str, Run] = {}
        self._ended: Counter[str] = Counter()
        #: By id, until when a run is left alone that could not be carried.
        self._put_off: dict[str, float] = {}
        self._named: set[str] = set()
        #: Runs whose rows cannot be read, which were named.
        self._unreadable: set[str] = set()
        self._rested_at = self._looked_at = 0.0
        #: Until when a place may come free by a lease that nobody renews.
        self._lapse_at = math.inf
        self._watching = contextlib.ExitStack()
        self._timer: asyncio.TimerHandle | None = None
        self._stopping = False
        #: Whether work waits for a place, or may.
        self._waits = True
        self._waking: asyncio.Task[None] | None = None
        #: Jobs of the queue that are over after the next look.
        self._asked: list[asyncio.Future[None]] = []

    def run(self) -> None:
        """Work until it is stopped, or over.

        Raises:
            KlingError: It cannot begin, e.g. there is no ledger.
        """
        try:
            asyncio.run(self._run())
        finally:
            self._session.close()

    async def _run(self) -> None:
        self._loop, self._woken = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop)
        self._lanes = self._find_lanes()
        queue = await self._begin()
        loop = self._session.loop
        loop.call(self._watch)
        try:
            while not self._over():
                asked = len(self._asked)
                self._woken.clear()
                self._looked_at = time.monotonic()
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                self._waits = True
                self._waits = await asyncio.to_thread(self._look)
                self._answer(asked)
                if (
                    self._until_empty
                    and not self._mine
                    and not self._waits
                    and await asyncio.to_thread(self._empty)
                ):
                    break
                # One that has no room leaves jobs to those that have.
                await self._listen(wanted=queue and not self._waits)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), self._pause(queue=queue))
        finally:
            loop.call(self._watching.close)
            await self._listen(wanted=False)
        await asyncio.to_thread(self._part)

    async def _begin(self) -> bool:
        """Open the ledger, whose server may be coming up; whether it wakes workers."""
        until = time.monotonic() + AWAY_S
        while True:
            try:
                ledger = self._session.ledger()
                with ledger.writing() as transaction:
                    queue = has_queue(transaction.connection)
            except LedgerError as error:
                if self._over() or time.monotonic() > until:
                    raise
                self._say(str(error))
                await asyncio.sleep(5)
            else:
                self._say(f"Working on {ledger.where}: {self._keys()}.")
                return queue

    def _stop(self) -> None:
        self._stopping = True
        self._woken.set()

    def _over(self) -> bool:
        return self._stopping or (self._end is not None and time.monotonic() >= self._end)

    def _watch(self) -> None:
        """Be told of places and of what is left to workers; on the loop of the session."""
        changes = self._session.ledger().changes
        for name in {WORK, DETACHED, *(lane.places for lane in self._lanes)}:
            self._watching.enter_context(changes.watched(name, partial(self._notified, name)))

    def _notified(self, name: str) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._look_soon, name)

    def _look_soon(self, name: str) -> None:
        """Look no more often than where nobody tells, and only for what it waits for: others change much."""
        unsent = self._unsent()
        concerned = name == WORK or self._waits or self._until_empty or unsent
        if concerned and self._timer is None and (unsent or len(self._mine) < self._most):
            at = self._looked_at + self._step() - time.monotonic()
            self._timer = self._loop.call_later(max(0.0, at), self._woken.set)

    def _step(self) -> float:
        here = all(is_loopback(lane.places.split(" ")[1]) for lane in self._lanes)
        return _STEP_HERE_S if here else _STEP_S

    def _unsent(self) -> list[str]:
        """Name those of its runs that wait for a place, and that somebody may want no more."""
        return [run.id for run in list(self._mine.values()) if run.status is RunStatus.CREATED]

    def _pause(self, *, queue: bool) -> float:
        now = time.monotonic()
        idle = not self._waits and queue and not self._until_empty
        full = len(self._mine) >= self._most
        if not self._unsent() and (idle or full):
            rest = _REST_S
        else:
            rest = min(self._session.ledger().changes.look_s(self._step()), self._lapse_at - now)
        return max(0.0, rest if self._end is None else min(rest, self._end - now))

    async def _listen(self, *, wanted: bool) -> None:
        """Have the queue wake it, or no more."""
        if wanted and (self._waking is None or self._waking.done()):
            self._waking = asyncio.ensure_future(work(self._session.settings().ledger, self._job))
            # It ends with its server; a later look listens again.
            self._waking.add_done_callback(lambda task: task.cancelled() or task.exception())
        elif not wanted and (task := self._waking) is not None:
            self._waking = None
            # It waits for the job that it has.
            self._answer(len(self._asked))
            # A cancel that comes as a connection answers is lost on Python 3.11.
            while not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=_CANCEL_S)

    async def _job(self) -> None:
        """End a job of the queue once the ledger was looked at."""
        if self._waking is not None:
            looked = self._loop.create_future()
            self._asked.append(looked)
            self._woken.set()
            await looked

    def _answer(self, count: int) -> None:
        for one in self._asked[:count]:
            one.set_result(None)
        del self._asked[:count]

    # -- what there is to do ---------------------------------------------------
    def _find_lanes(self) -> list[Lane]:
        settings = self._session.settings()
        lanes = [
            Lane(
                PLAY,
                account_key("sandbox", self._session.sandbox_url(settings), PLAY),
                settings.max_in_flight,
            )
        ]
        for provider in KEY_VARIABLES:
            if (key := self._session.key(provider)) is not None:
                account = account_key(provider, provider_origin(settings, provider), fingerprint(key))
                lanes.append(Lane(account, account, settings.max_in_flight))
        return lanes

    def _look(self) -> bool:
        """Take what there is to do, and let go of what nobody wants any more; whether more waits."""
        room, unsent = self._most - len(self._mine), self._unsent()
        if room <= 0 and not unsent:
            return True
        now = time.monotonic()
        self._put_off = {run_id: until for run_id, until in self._put_off.copy().items() if until > now}
        # A look that fails says nothing of places.
        self._lapse_at = math.inf
        try:
            halted, found = self._find(max(0, room), unsent)
            taken = self._take(max(0, room)) if found.runs else []
            if found.more:
                self._lapse_at = now + found.lapse_s + LAPSED_S
            self._name(found.unreadable)
            engine = self._session.engine()
            for run_id in halted:
                if run := self._mine.get(run_id):
                    engine.detach(run)
            for record, sweep in taken:
                self._carry(engine.handle(record, reused=True, sweep=sweep))
            if now - self._rested_at >= engine.limits.lease_s:
                self._rested_at = now
                self._take_over(engine, {lane.account for lane in self._lanes})
        except LedgerError as error:
            # It is there again in a moment, or a person sees to it.
            self._say(str(error))
            return True
        return found.more

    def _find(self, room: int, unsent: list[str]) -> tuple[set[str], Work]:
        """Read what nobody wants any more, and what there is to do: whoever finds nothing writes nothing."""
        but = self._left_alone()
        return self._session.ledger().read(
            lambda look: (unwanted(look, unsent), find_work(look, self._lanes, most=room, but=but))
        )

    def _take(self, room: int) -> list[tuple[RunRecord, str]]:
        engine, but = self._session.engine(), self._left_alone()
        with self._session.ledger().writing() as transaction:
            found = take_work(
                transaction, engine.owner, engine.limits.lease_s, self._lanes, most=room, but=but
            )
            return [(self._moved(transaction, record), sweep) for record, sweep in found.runs]

    def _left_alone(self) -> set[str]:
        return self._unreadable | self._put_off.keys()

    def _name(self, unreadable: "list[LedgerError]") -> None:
        """Leave runs alone whose rows cannot be read, and look at once what comes after them."""
        for error in unreadable:
            self._unreadable.add(error.run_id or "")
            self._say(str(error))
        if unreadable:
            self._loop.call_soon_threadsafe(self._woken.set)

    def _moved(self, transaction: "Transaction", record: RunRecord) -> RunRecord:
        """Have the clip of a claimed run end up here where the place it was asked for from is not."""
        changes = {}
        if not os.access(record.folder, os.W_OK):
            changes["folder"] = str(self._session.media_folder())
        if record.play and record.status is RunStatus.CREATED:
            changes["origin"] = self._session.sandbox_url(self._session.settings())
        moved = record.model_copy(update=changes)
        if moved != record:
            transaction.write(moved, "taken by a worker", **changes)
        return moved

    def _take_over(self, engine: "Engine", accounts: set[str]) -> None:
        """Take what nobody drives any more, and clips that are not in the team's store yet."""
        ledger, but = self._session.ledger(), self._left_alone()
        (left, unreadable), (_, _, foreign) = ledger.read(
            lambda look: (
                left_behind(look, accounts, most=_CHUNK, but=but),
                pending_runs(look, accounts),
            )
        )
        found = self._take_left(engine, accounts) if left else []
        self._name(unreadable)
        if unreadable:
            self._rested_at = -math.inf
        for record, sweep in found:
            # What a dead worker came to submit may still be sent; what was a kernel's own may not.
            kept = sweep is not None
            run = engine.handle(record, reused=True, sweep=sweep or "") if kept else engine.peek(record)
            self._carry(run if kept else engine.resume(run))
        for account in set(foreign) - self._named:
            self._named.add(account)
            provider, origin, key = account.split(" ")
            self._say(f"Runs at {provider} ({origin}) wait for a worker with the key {key}.")
        self._session.loop.start(engine.uploads.rest())

    def _take_left(self, engine: "Engine", accounts: set[str]) -> list[tuple[RunRecord, str | None]]:
        but = self._left_alone()
        with self._session.ledger().writing() as transaction:
            left, _ = left_behind(transaction, accounts, most=_CHUNK, but=but)
            found = []
            for record, sweep in left:
                if record.status is RunStatus.SUBMITTING:
                    # The engine finds out by itself whether it is anybody's.
                    found.append((record, sweep))
                elif transaction.claim(record.id, engine.owner, engine.limits.lease_s):
                    found.append((self._moved(transaction, record), sweep))
            return found

    def _carry(self, run: Run) -> None:
        if self._handles.get(run.id) is not run:
            self._handles[run.id] = run
            run.on_change(self._changed)
        self._mine[run.id] = run
        self._changed(run)

    def _changed(self, run: Run) -> None:
        if run.done:
            # When the worker has ended there is no loop, and nobody asks.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._let_go, run.id)

    def _let_go(self, run_id: str) -> None:
        if (run := self._mine.pop(run_id, None)) is None:
            return
        unwanted_now = run.status is RunStatus.CREATED and isinstance(run.error, DetachedError)
        if run.status.ended or unwanted_now:
            # One that was only let go may be had again as soon as the ledger says so.
            self._ended.update([run.status.value] if run.status.ended else ())
            self._handles.pop(run_id, None)
            self._session.engine().forget(run_id)
        elif not self._stopping:
            self._put_off[run_id] = time.monotonic() + _REST_S
            self._say(f"{run.error}")
        self._woken.set()

    # -- the end -----------------------------------------------------------------
    def _pending(self) -> tuple[int, int]:
        pending, waiting, _ = self._session.ledger().read(lambda transaction: pending_runs(transaction, ()))
        return pending, waiting

    def _empty(self) -> bool:
        with contextlib.suppress(LedgerError):
            return self._pending()[0] == 0
        return False

    def _part(self) -> None:
        carried = (
            ", ".join(f"{count} {word}" for word, count in sorted(self._ended.items())) or "none ended here"
        )
        words = f"Stopped: {carried}."
        with contextlib.suppress(KlingError):
            pending, waiting = self._pending()
            if pending:
                left = counted(pending, "run")
                words += (
                    f" {left} of the ledger not ended: {waiting} not sent, {pending - waiting} on their way."
                )
            for run_id, why in self._session.upload().items() if not self._over() else ():
                words += f" The clip of run {run_id} is not in the team's store: {why}."
        self._say(words)

    def _keys(self) -> str:
        names = [lane.account.split(" ")[0] for lane in self._lanes]
        return f"keys for {', '.join(names[1:])}" if names[1:] else "no key, play runs only"
