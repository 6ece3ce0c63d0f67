"""One poller for every run of the process: when each is read, in which order, and how many at once.

A run that waits costs a place in a heap and a future; one timer wakes whatever is due. Runs of one account
are read together where the provider lists runs: a list answers for those that are on their way as before and
for those that have a clip; whatever else it says of a run is found out by reading that run itself.

Invariants: a read that waits for its turn was not begun, so that no time-out runs; nothing is ended on the
word of a list; a list that is refused, slow, or denies an end that a run's own reading told is not asked for
a while, and the runs are read one by one.
"""

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from kling_nb.engine.polling.callbacks import Callbacks
from kling_nb.engine.polling.follow import Account, Follow
from kling_nb.engine.polling.schedule import MOST_S, Pace, back_off
from kling_nb.errors import LedgerError
from kling_nb.pricing.catalog import models
from kling_nb.providers.base import Row, Snapshot
from kling_nb.records.base import utc_now

if TYPE_CHECKING:
    from kling_nb.engine.job import Job
    from kling_nb.engine.limits import Clock

__all__ = ["Poller"]

#: Reads at the same time.
MOST_READS = 60
#: Pages of one list; each holds up to 500 runs.
MOST_PAGES = 20
#: Seconds that a list may take, and after a bad one until the next: doubling.
_LIST_S, _LIST_AGAIN_S = 20.0, 30.0
#: Rows of a list that cost as much as one read.
_ROWS_A_READ = 60
#: After so many lists, the run that was read longest ago is read by itself; and each run after so many
#: readings' worth of lists.
_LISTS_A_CHECK, _READS_A_CHECK = 4, 6.0


class Poller:
    """Wakes what is due; belongs to the background loop.

    Args:
        clock: Time and chance.
        most: Reads at the same time.
    """

    def __init__(self, clock: "Clock", most: int = MOST_READS) -> None:
        self._clock = clock
        self._most = most
        self._reading = 0
        self._heap: list[tuple[float, int, Any]] = []
        self._number = 0
        self._ready: deque[Follow] = deque()
        self._timer: asyncio.Task[None] | None = None
        self._timed = math.inf
        self._closed = False
        self._accounts: dict[object, Account] = {}
        self._paces: dict[object, asyncio.Future[Pace]] = {}
        self._callbacks = Callbacks(self._called)
        self._follows: dict[str, Follow] = {}

    # -- resting -------------------------------------------------------------
    async def rest(self, job: "Job", seconds: float) -> None:
        """Wait, with nothing of the job on its way, until the time is over or somebody wakes it."""
        if not job.woken:
            job.resting, job.turn = True, asyncio.get_running_loop().create_future()
            self._push(self._clock.monotonic() + seconds, job.turn)
            try:
                await job.turn
            finally:
                job.resting, job.turn = False, None
        job.woken = False

    # -- reading -------------------------------------------------------------
    async def follow(self, job: "Job", started: float, until: float) -> Follow:
        """Begin to watch a run, which was accepted at `started`; `leave` ends it."""
        record, account = job.record, None
        kind = record.provider, record.origin, record.model, record.request.duration, record.request.audio
        if kind not in self._paces:
            self._paces[kind] = asyncio.ensure_future(_learn(job))
        # Shared by all of its kind: one that is canceled meanwhile must not take it from the others.
        pace = await asyncio.shield(self._paces[kind])
        if job.provider.list_call() is not None and job.same_account:
            key = (job.provider.name, job.provider.base_url, job.key)
            account = self._accounts.setdefault(key, Account())
        follow = Follow(job, pace, account, started, until)
        if record.callback_url:
            self._follows[record.id] = follow
            self._callbacks.expect(job)
        return follow

    def leave(self, follow: Follow) -> None:
        """Forget a run."""
        follow.pace.left(follow.id)
        if self._follows.pop(follow.id, None):
            self._callbacks.forget(follow.id)

    def _called(self, run_id: str) -> None:
        """Have a run read at once: its provider says that it has ended."""
        follow = self._follows[run_id]
        follow.called = True
        if not follow.reading:
            self._read_itself(follow)
            self._give_turns()

    async def read(self, follow: Follow, wait_s: float) -> Snapshot | None:
        """Read a run once it is due and has its turn; None where its watcher was woken before that.

        Raises:
            TransportError: It could not be read.
        """
        job, account = follow.job, follow.account
        if job.woken:
            job.woken = False
            return None
        follow.turn = job.turn = asyncio.get_running_loop().create_future()
        if account is not None:
            account.waiting[follow.provider_run_id] = follow
        follow.due = min(self._clock.monotonic() + wait_s, follow.until)
        self._push(follow.due, follow)
        if follow.called:
            # While nobody waited here, or while it was read: the answer may be of before.
            self._read_itself(follow)
            self._give_turns()
        try:
            turn = await follow.turn
            job.turn = None
            if turn is None:
                job.woken = False
            if not isinstance(turn, bool):
                return turn
            follow.called = False
            snapshot = await job.read()
            follow.own_age = follow.age()
            follow.take_down(snapshot)
            ended = snapshot.state in {"succeeded", "failed", "canceled"}
            if ended and account is not None and len(account.waiting) > 1:
                account.ended[follow.provider_run_id] = self._clock.monotonic()
            return snapshot
        finally:
            job.turn, follow.own = None, False
            if account is not None:
                account.waiting.pop(follow.provider_run_id, None)
            if follow.reading:
                follow.reading = False
                self._reading -= 1
                self._give_turns()

    def close(self) -> None:
        """Wake nobody any more."""
        self._closed = True
        self._callbacks.close()
        listings = [account.listing for account in self._accounts.values()]
        for task in (self._timer, *listings):
            if task is not None:
                task.cancel()

    # -- what is due -----------------------------------------------------------
    def _push(self, due: float, what: object) -> None:
        self._number += 1
        heapq.heappush(self._heap, (due, self._number, what))
        if due < self._timed:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timed = None, math.inf
        if self._heap and not self._closed:
            self._timed = self._heap[0][0]
            self._timer = asyncio.get_running_loop().create_task(self._wait_until(self._timed))

    async def _wait_until(self, due: float) -> None:
        await self._clock.sleep(max(0.0, due - self._clock.monotonic()))
        self._timer, self._timed = None, math.inf
        # What is due in a moment is woken along: one timer for many.
        now = max(due, self._clock.monotonic()) + 0.002
        while self._heap and self._heap[0][0] <= now:
            at, _, what = heapq.heappop(self._heap)
            if isinstance(what, Follow):
                if at == what.due and what.turn is not None and not what.turn.done():
                    self._ready.append(what)
            elif isinstance(what, Account):
                if at == what.due:
                    self._list_or_single(what, now)
            elif not what.done():
                what.set_result(None)
        self._give_turns()
        self._set_timer()

    def _give_turns(self) -> None:
        """Let as many runs be read as may be; one is taken from the queue before anybody is woken."""
        while self._ready and self._reading < self._most:
            follow = self._ready.popleft()
            if follow.turn is None or follow.turn.done():
                continue
            now = self._clock.monotonic()
            if now >= follow.until:
                follow.give(None)
            elif follow.account is None or follow.own or not follow.listed or not follow.account.usable(now):
                follow.reading = True
                self._reading += 1
                follow.give(True)
            else:
                self._ask_list(follow.account, now)

    def _read_itself(self, follow: Follow) -> None:
        follow.own = True
        self._ready.append(follow)

    # -- lists ---------------------------------------------------------------
    def _ask_list(self, account: Account, now: float) -> None:
        """Ask for a list now, or as soon as the next one may be; one at a time."""
        if account.listing is None and now >= account.due:
            first = next(iter(account.waiting.values()))
            account.listing = asyncio.get_running_loop().create_task(self._list(account, first.job))

    def _list_or_single(self, account: Account, now: float) -> None:
        if account.usable(now):
            self._ask_list(account, now)
        elif account.listing is None:
            self._one_by_one(account)

    def _one_by_one(self, account: Account) -> None:
        """Read every run by itself, each when its own time comes."""
        now, account.rows = self._clock.monotonic(), {}
        for follow in account.waiting.values():
            if not follow.reading:
                self._again(follow, min(follow.due, now + follow.wait_s()))

    def _again(self, follow: Follow, due: float) -> None:
        follow.due = min(due, follow.until)
        self._push(follow.due, follow)

    async def _list(self, account: Account, job: "Job") -> None:
        began, asked = self._clock.monotonic(), set(account.waiting)
        self._reading += 1
        gap = None
        try:
            async with asyncio.timeout(max(job.wait_s(_LIST_S), 5.0)):
                rows = await self._pages(account, job)
            if rows is not None and not self._is_stale(account, job, rows, began):
                gap = await self._tell(account, job, rows, asked)
        except Exception:  # noqa: BLE001 - a list decides nothing: whatever is wrong with it, runs are read one by one
            gap = None
        finally:
            account.listing = None
            self._reading -= 1
            now = self._clock.monotonic()
            if gap is None:
                account.failures += 1
                first_s = job.wait_s(_LIST_AGAIN_S)
                pause = back_off(account.failures, random=self._clock.random, first_s=first_s, most_s=3600)
                account.off_until = now + max(pause, account.asked_s)
                self._one_by_one(account)
            else:
                account.failures, account.due = 0, now + gap
                self._push(account.due, account)
            self._give_turns()

    async def _pages(self, account: Account, job: "Job") -> dict[str, Row] | None:
        """Read the newest runs, back to the oldest that is waited for; None where a page cannot be read."""
        wanted = {run_id: follow for run_id, follow in account.waiting.items() if follow.listed}
        oldest = max((follow.age() for follow in wanted.values()), default=0.0)
        since = (utc_now() - timedelta(seconds=oldest + 300)).isoformat()
        rows: dict[str, Row] = {}
        call = job.provider.list_call()
        for _ in range(MOST_PAGES):
            if call is None or wanted.keys() <= rows.keys():
                break
            reply = await job.send(call)
            page = job.provider.read_list(reply, since=since, before=account.rows)
            if page is None:
                account.asked_s = reply.retry_after_s or 0.0
                return None
            rows |= page.rows
            call = page.more
        account.rows = rows
        return rows

    @staticmethod
    def _is_stale(account: Account, job: "Job", rows: Mapping[str, Row], began: float) -> bool:
        """Whether the list still calls a run going that its own reading, before, called ended."""
        stale = False
        for run_id in [run_id for run_id, at in account.ended.items() if at < began]:
            if (row := rows.get(run_id)) is not None:
                stale |= job.provider.read_row(row, run_id).going
            del account.ended[run_id]
        return stale

    async def _tell(self, account: Account, job: "Job", rows: Mapping[str, Row], asked: set[str]) -> float:
        """Take from the list what it may decide, have the rest read one by one; when to list next."""
        account.lists += 1
        now, going = self._clock.monotonic(), []
        for number, (run_id, follow) in enumerate(list(account.waiting.items())):
            if number % 25 == 0:
                await asyncio.sleep(0)
            row = rows.get(run_id)
            if follow.turn is None or follow.turn.done() or (row is None and run_id not in asked):
                continue
            follow.listed = row is not None
            if row is None:
                self._again(follow, min(follow.due, now + follow.wait_s()))
                continue
            if self._take_row(follow, row, now):
                going.append(follow)
        hurry = self._plan(account, going, now)
        # As for one run, with the hazards of all, at the cost of its rows.
        cost, least = max(1.0, len(rows) / _ROWS_A_READ), job.wait_s(1.0)
        return min(max(math.sqrt(cost / hurry), least), MOST_S) if hurry else least

    def _plan(self, account: Account, going: list[Follow], now: float) -> float:
        """Say when runs that go on are due, and have some read by themselves; how urgent all are together."""
        hurry = 0.0
        longest: tuple[float, Follow | None] = (0.0, None)
        for follow in going:
            wait = follow.wait_s()
            follow.due, hurry = now + wait, hurry + wait**-2
            reads = follow.pace.reads(now - follow.started) - follow.pace.reads(follow.own_age)
            if reads > _READS_A_CHECK:
                self._read_itself(follow)
            elif reads > longest[0]:
                longest = reads, follow
        if longest[1] is not None and account.lists % _LISTS_A_CHECK == 0:
            # What a list says is checked now and then.
            self._read_itself(longest[1])
        return hurry

    def _take_row(self, follow: Follow, row: Row, now: float) -> bool:
        """Take what a list says of a run; whether it goes on as before, so that nobody is woken."""
        snapshot = follow.last
        # Most rows say what they said before, and need not be read; what contradicts the last reading must.
        if row is not follow.row or snapshot is None or not snapshot.going:
            snapshot = follow.job.provider.read_row(row, follow.provider_run_id)
        going, follow.row = snapshot.going, row
        if now >= follow.until:
            follow.give(None)
        elif going and follow.is_known(snapshot):
            follow.take_down(snapshot)
            return True
        elif going or (snapshot.state == "succeeded" and snapshot.certain and snapshot.video_urls):
            follow.take_down(snapshot)
            follow.give(snapshot)
        else:
            self._read_itself(follow)
        return False


async def _learn(job: "Job") -> Pace:
    """Make the pace of a run's kind, from the ledger and the catalog."""
    record = job.record
    model = models().get(record.model)
    early, late = model.typical_s if model else (90.0, 200.0)
    try:
        waits = await asyncio.to_thread(
            lambda: job.ledger.waits(
                record.provider,
                record.model,
                record.request.duration,
                audio=record.request.audio,
                origin=record.origin,
            )
        )
    except LedgerError:
        # Only the pace hangs on it; a paid run is watched all the same.
        waits = []
    return Pace(job.wait_s(math.sqrt(early * late)), waits)
