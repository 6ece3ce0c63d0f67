"""Places in flight of this process: which of its runs is next, and when it looks whether there is a place.

The truth is in the ledger, see `ledger.places`. As long as no other kernel has runs of the account or waits
for it, what was started here tells how many more may go, and nothing is read. Once the ledger refuses a run,
the account is looked at before more are sent: when a run of ours ends, and now and then.

Invariants: single runs come before those of sweeps, which take turns; in each, the order is that of asking; a
run that waits is a row of a table, with no task or timer of its own.
"""

import asyncio
import contextlib
import math
import time
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from kling_nb.addresses import is_loopback
from kling_nb.engine.detach import halted
from kling_nb.errors import LedgerError
from kling_nb.ledger.places import LAPSED_S, Flow, NoPlaceError, Seeker, fits, look, place_key, take
from kling_nb.records.run import RunStatus
from kling_nb.views.waits import Turn

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from kling_nb.engine.leases import Leases
    from kling_nb.engine.limits import Clock
    from kling_nb.engine.run import Run
    from kling_nb.ledger.database import Ledger
    from kling_nb.ledger.transaction import Transaction

__all__ = ["Places"]

#: Seconds between two looks at an account that others use too: of real ones, and of one on this machine.
_LOOK_S, _LOOK_HERE_S = 1.0, 0.2
#: While the ledger tells of changes; who waits must not fall out of its line.
_LOOK_WATCHED_S = 2.5


class _Engine(Protocol):
    """What carries who has a place."""

    ledger: "Ledger"
    clock: "Clock"
    owner: str
    max_in_flight: int

    def drives(self, run_id: str) -> bool: ...
    def drive(
        self,
        run: "Run",
        *,
        may_send: bool,
        detach: bool = False,
        leave_place: Callable[[], None] | None = None,
    ) -> "Awaitable[None]": ...


class _Line:
    """What waits for places of one account, and what of this process has one."""

    def __init__(self, look_s: float) -> None:
        #: Of each place that was taken here, the sweep and the time.
        self.taken: dict[object, tuple[str, float]] = {}
        #: How many of those are of sweeps.
        self.of_sweeps = 0
        #: By sweep (empty for single runs), then by a number that rises with each that comes.
        self.waiting: dict[str, dict[float, Run]] = {}
        #: The same numbers, in order.
        self.numbers: defaultdict[str, list[float]] = defaultdict(list)
        #: How the ledger has the account; None where what is taken here says it all.
        self.flow: Flow | None = None
        #: What it waits for by the ledger.
        self.shown: tuple[str, ...] = ()
        self.look_s = look_s
        self.looking: asyncio.Task[None] | None = None
        self.resting = False
        #: Until when the ledger's changes are of interest, and whether one came since the last look.
        self.watch: contextlib.ExitStack | None = None
        self.stale = False

    def unwatch(self) -> None:
        """Have no interest in what others change any more."""
        if self.watch is not None:
            self.watch.close()
            self.watch = None

    def add(self, run: "Run", number: float) -> None:
        """Let a run wait."""
        self.waiting.setdefault(run.sweep, {})[number] = run
        insort(self.numbers[run.sweep], number)

    def remove(self, sweep: str, number: float) -> "Run":
        """Let a run wait no more."""
        numbers = self.numbers[sweep]
        del numbers[bisect_left(numbers, number)]
        run = self.waiting[sweep].pop(number)
        if not numbers:
            del self.waiting[sweep], self.numbers[sweep]
        return run

    def take(self, sweep: str) -> object:
        """Take a place; gives what leaves it."""
        place = object()
        self.taken[place] = sweep, time.monotonic()
        self.of_sweeps += bool(sweep)
        return place

    def leave(self, place: object) -> None:
        """Give a place back."""
        sweep, _ = self.taken.pop(place)
        self.of_sweeps -= bool(sweep)

    def fits(self, sweep: str, most: int) -> bool:
        """Say whether one more run may be sent from here."""
        others = self.flow.others if self.flow else ()
        by_sweeps = self.of_sweeps + sum(bool(its) for its, _ in others)
        ahead = self.flow.ahead.get(sweep, (0, 0)) if self.flow else (0, 0)
        return fits(sweep, most, len(self.taken) + len(others), by_sweeps, ahead)

    def next(self, most: int) -> tuple[str, float] | None:
        """Name the run that is to be sent now, or None."""
        for sweep in sorted(self.waiting, key=bool):
            if self.fits(sweep, most):
                # Of the sweeps it is the turn of the one that had none the longest.
                return sweep, self.numbers[sweep][0]
        return None

    def turned(self, sweep: str) -> None:
        """Have other sweeps come before one that had its turn."""
        if sweep in self.waiting:
            self.waiting[sweep] = self.waiting.pop(sweep)

    def place_of(self, sweep: str, number: float) -> int:
        """Give the place in line of a waiting run, 1 for the one that is next."""
        rank = bisect_left(self.numbers.get(sweep, []), number)
        if not sweep:
            return rank + 1
        order = [name for name in self.waiting if name]
        mine = order.index(sweep)
        others = (
            min(len(self.numbers[name]), rank + (at < mine)) for at, name in enumerate(order) if at != mine
        )
        return len(self.numbers.get("", ())) + sum(others) + rank + 1


class Places:
    """Belongs to the background loop.

    Args:
        engine: Carries the runs.
        leases: Keeps those of waiting runs.
    """

    def __init__(self, engine: _Engine, leases: "Leases") -> None:
        self._engine, self._leases = engine, leases
        self._lines: dict[str, _Line] = {}
        #: By our id, where each waiting run is: account, sweep and number.
        self._where: dict[str, tuple[str, str, float]] = {}
        self._given = 0
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    def __contains__(self, run_id: str) -> bool:
        """Whether a run waits for a place."""
        return run_id in self._where

    def begin(self, run: "Run") -> None:
        """Carry a run: at once where there is a place or it needs none, else in its turn."""
        if run.id in self:
            return
        if run.sent_here and run.status is RunStatus.CREATED and not self._engine.drives(run.id):
            # It was claimed for this process when it was written down.
            self.park(run)
        else:
            self._start(run)

    def park(self, run: "Run", *, elsewhere: bool = False) -> None:
        """Have a run that is claimed wait for a place.

        Args:
            run: The run.
            elsewhere: Whether the ledger refused it one: it comes first again, after a look at the account.
        """
        account = place_key(run.record)
        line = self._line(run)
        self._given += 1
        # Below zero, and rising: in front of all others, in the order in which they were refused.
        number = -1 / self._given if elsewhere else self._given
        self._where[run.id] = account, run.sweep, number
        line.add(run, number)
        if elsewhere:
            self._contend(account, self._pause(line))
        else:
            self._fill(account)
        if run.id in self:
            self._leases.wait(run)

    def call_up(self, run: "Run", *, detach: bool = False) -> None:
        """Carry a waiting run without a place, because it is to be canceled or let go."""
        if run.id in self:
            self._remove(run.id)
            self._start(run, detach=detach)

    def turn(self, run_id: str) -> Turn | None:
        """Give when a waiting run comes to be sent; None where it does not wait. Any thread may ask."""
        if (found := self._where.get(run_id)) is None:
            return None
        account, sweep, number = found
        line = self._lines[account]
        flow, now = line.flow, time.monotonic()
        ages = [now - since for _, since in list(line.taken.values())]
        most = self._most(line)
        with contextlib.suppress(KeyError, ValueError, RuntimeError):
            # It may be sent at this very moment.
            ages += [age for _, age in flow.others] if flow else []
            return Turn(
                line.place_of(sweep, number), most, tuple(ages), lowered=flow is not None and flow.lowered
            )
        return None

    def take(self, run: "Run") -> Callable[[], None]:
        """Take a place here; what is at its provider already has one in any case.

        Returns:
            What gives it back.

        Raises:
            NoPlaceError: There is none, or others wait for it.
        """
        line = self._line(run)
        if run.status is RunStatus.CREATED and (line.waiting or not line.fits(run.sweep, self._most(line))):
            raise NoPlaceError
        return self._give(place_key(run.record), run.sweep)

    def commit(self, run: "Run", transaction: "Transaction") -> None:
        """Take a place in the ledger, with the commit that sends a run; on the writer's thread.

        Raises:
            NoPlaceError: There is none.
        """
        take(transaction, run.id, self._seeker(place_key(run.record)), run.sweep)

    def slowed(self, run: "Run") -> None:
        """Look how many may go, now that the provider refused a run for its rate."""
        self._line(run)
        self._contend(place_key(run.record), 0)

    async def close(self) -> None:
        """Let every waiting run go; it stays on record."""
        self._closed = True
        runs = [self._remove(run_id) for run_id in list(self._where)]
        for line in self._lines.values():
            line.unwatch()
            if line.looking is not None:
                line.looking.cancel()
        for run in runs:
            run.stop(halted(run.record, asyncio.CancelledError()))

        def release(transaction: "Transaction") -> None:
            for run in runs:
                transaction.release(run.id, self._engine.owner)
            for account, line in self._lines.items():
                if line.shown:
                    look(transaction, self._seeker(account), ())

        with contextlib.suppress(LedgerError):
            await self._engine.ledger.writer.ask(release, synced=False)

    def _line(self, run: "Run") -> _Line:
        account = place_key(run.record)
        if account not in self._lines:
            here = is_loopback(run.record.origin)
            self._lines[account] = _Line(_LOOK_HERE_S if here else _LOOK_S)
        return self._lines[account]

    def _seeker(self, account: str) -> Seeker:
        return Seeker(account, self._engine.owner, self._engine.max_in_flight)

    def _most(self, line: _Line) -> int:
        most = self._engine.max_in_flight
        return min(most, line.flow.most) if line.flow and line.flow.lowered else most

    def _give(self, account: str, sweep: str) -> Callable[[], None]:
        line = self._lines[account]
        place = line.take(sweep)

        def give_back() -> None:
            line.leave(place)
            self._fill(account)

        return give_back

    def _fill(self, account: str) -> None:
        """Send what may be sent; where others use the account too, after a look."""
        line = self._lines[account]
        if line.flow is None:
            self._send(account)
        elif line.waiting:
            self._look_in(account, 0.0)

    def _send(self, account: str) -> None:
        line = self._lines[account]
        while (found := line.next(self._most(line))) is not None:
            sweep, number = found
            run = self._remove(line.waiting[sweep][number].id)
            line.turned(sweep)
            self._start(run, leave_place=self._give(account, sweep))

    def _remove(self, run_id: str) -> "Run":
        account, sweep, number = self._where.pop(run_id)
        self._leases.wait_no_more(run_id)
        return self._lines[account].remove(sweep, number)

    def _start(
        self, run: "Run", *, detach: bool = False, leave_place: Callable[[], None] | None = None
    ) -> None:
        driving = self._engine.drive(run, may_send=True, detach=detach, leave_place=leave_place)
        task = asyncio.ensure_future(driving)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- looking -------------------------------------------------------------
    def _contend(self, account: str, wait_s: float) -> None:
        line = self._lines[account]
        line.flow = line.flow or Flow(self._engine.max_in_flight)
        self._look_in(account, wait_s)

    def _pause(self, line: _Line) -> float:
        look_s = self._engine.ledger.changes.look_s(line.look_s, _LOOK_WATCHED_S)
        lapse_s = line.flow.lapse_s if line.flow else math.inf
        return min(look_s * (0.5 + self._engine.clock.random.random()), lapse_s + LAPSED_S)

    def _look_in(self, account: str, wait_s: float) -> None:
        """Look at an account after so many seconds, or earlier where that is planned."""
        line = self._lines[account]
        if line.watch is None and not self._closed:
            line.watch = contextlib.ExitStack()
            changed = partial(self._changed, account)
            line.watch.enter_context(self._engine.ledger.changes.watched(account, changed))
        if self._closed or (line.looking is not None and (wait_s or not line.resting)):
            return
        if line.looking is not None:
            line.looking.cancel()
        line.resting = wait_s > 0
        line.looking = asyncio.get_running_loop().create_task(self._look(account, line, wait_s))

    def _changed(self, account: str) -> None:
        self._lines[account].stale = True
        self._look_in(account, 0.0)

    async def _look(self, account: str, line: _Line, wait_s: float) -> None:
        if wait_s:
            await self._engine.clock.sleep(wait_s)
        line.resting = line.stale = False
        waiting = tuple(line.waiting)
        looking = partial(look, seeker=self._seeker(account), waiting=waiting)
        # A look that fails says nothing of leases.
        line.flow = replace(line.flow, lapse_s=math.inf) if line.flow else None
        with contextlib.suppress(LedgerError):
            line.flow = await self._engine.ledger.writer.ask(looking, synced=False)
            line.shown = waiting
        line.looking = None
        if line.flow is not None and not line.flow.shared:
            line.flow = None
        self._send(account)
        if line.flow is not None and (line.waiting or line.shown):
            self._look_in(account, 0.0 if line.stale else self._pause(line))
        else:
            line.unwatch()
