"""A sweep: a whole experiment as one object.

Invariants: giving a sweep back never sends; each member is paid for once, whoever starts it and however
often; nothing is sent beyond the money and the accounts that somebody agreed to; a grid that somebody agreed
to only grows, and only after it was shown what that adds.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kling_nb.engine.run import Run
from kling_nb.engine.runs import Runs
from kling_nb.errors import NOTHING_SENT, KlingError, WaitTimeoutError, said
from kling_nb.interrupts import stopped_in_words
from kling_nb.ledger.sweeps import Stored, SweepState
from kling_nb.session.session import Session
from kling_nb.sweeps import results
from kling_nb.sweeps.entry import Entry
from kling_nb.sweeps.feed import Feed
from kling_nb.sweeps.grid import Expanded, Member, expand
from kling_nb.sweeps.layout import lay_out, shape_of
from kling_nb.sweeps.progress import Progress, look
from kling_nb.sweeps.prompts import refused
from kling_nb.sweeps.quote import Quote, check_consent, make_quote
from kling_nb.sweeps.showing import Views
from kling_nb.views.sweep import progress_text, quote_text

if TYPE_CHECKING:
    from kling_nb.exports.writer import Export

__all__ = ["Sweep"]

_STEP_S = 0.2


class Sweep:
    """A grid of prompts, settings, providers and takes, and what became of it.

    Args:
        session: Whose ledger, money and keys.
        stored: As the ledger has it.
        views: What shows it.
        max_cost: Dollars that all of it may cost, where this call says so.

    Example:
        >>> import kling_nb as kling
        >>> owls = kling.sweep(["An owl in snow", "An owl in fog"], takes=2, name="owls")  # doctest: +SKIP
        >>> owls.wait().df                                                                 # doctest: +SKIP
    """

    def __init__(
        self, session: Session, stored: Stored, views: Views, *, max_cost: Decimal | None = None
    ) -> None:
        self.session, self._views, self._entry = session, views, Entry(session, stored)
        self._max_cost, self._grid = max_cost, stored.grid
        self._expanded: Expanded = expand(stored.grid)
        self._quote: Quote | None = None
        self._quoting = False
        self._feed: Feed | None = None
        #: Ids of runs that nobody here sent, and that are watched from here.
        self._followed: set[str] = set()
        #: Whether at the last look none but workers had anything to do.
        self._only_workers = False

    # -- what it is ------------------------------------------------------
    @property
    def name(self) -> str:
        """Its name, under which every kernel on the ledger finds it."""
        return self._entry.stored.name

    @property
    def state(self) -> SweepState:
        """What was said of it last: `ready` (only quoted), `started`, `paused` or `canceled`."""
        return self._entry.stored.state

    @property
    def stopped(self) -> KlingError | None:
        """Why this kernel sends no more of it, e.g. a cap that was reached; None where nothing stopped it."""
        return self._feed.stopped if self._feed else None

    @property
    def left_to_workers(self) -> bool:
        """Whether this kernel has left it to workers (`start(detached=True)`), and sends nothing of it."""
        return self._feed is not None and self._feed.detached

    @property
    def quoted(self) -> Quote | None:
        """The quote that was made last, if one was."""
        return self._quote

    @property
    def quoting(self) -> bool:
        """Whether its quote is newer than what was sent last."""
        return self._quoting

    @property
    def members(self) -> tuple[Member, ...]:
        """Its distinct requests, in the order in which they are sent."""
        return self._expanded.members

    def __len__(self) -> int:
        return len(self.members)

    @property
    def runs(self) -> Runs:
        """The run of each member that has one: its clip, else its newest; in the order of the sweep."""
        return Runs([*self._by_member().values()])

    def _by_member(self, *, pending: bool = False, but: Collection[str] = ()) -> dict[int, Run]:
        mine = {} if self._feed is None else self._feed.runs
        return self._entry.handles(pending=pending, but=but, mine=mine)

    @property
    def progress(self) -> Progress:
        """What became of it so far, by the ledger."""
        feed = self._feed
        self._entry.state()
        return look(
            self.session,
            self._entry.stored,
            self._entry.standing,
            len(self.members),
            refused=[
                *((number, error.what) for number, error in (feed.errors.items() if feed else ())),
                *(self._quote.refused.items() if self._quote else ()),
            ],
            sending=feed is not None and feed.sending,
            # Of the runs before it some were sent, and charged.
            stopped=" ".join(line for line in said(self.stopped) if line != NOTHING_SENT)
            if self.stopped
            else "",
        )

    def keep(self, stored: Stored, *, before: Stored | None, replaced: int = 0) -> None:
        """Write it as quoted, unless it changed since `before`; in place of a quote of so many runs."""
        members = [
            (m.number, m.request_key, None if m.provider == "auto" else m.provider) for m in self.members
        ]
        if not self._entry.put(stored, members, before=before):
            self.quote()
        elif self._quote is not None:
            self._quote = replace(self._quote, replaced=replaced)

    # -- before ------------------------------------------------------------
    def quote(self) -> Quote:
        """Say what starting it now would do and cost; sends nothing.

        Returns:
            The quote; `print` shows it.

        Raises:
            KlingError: What refuses the whole of it.
        """
        return self._quoted(again=False)

    def _quoted(self, *, again: bool) -> Quote:
        with self._entry.looked() as standing:
            failed = set() if again else standing.failed
            spent, ended = standing.spent_micros, {(n, standing.stands[n].request_key) for n in failed}
        self._quote = make_quote(
            self.session, self._expanded, max_cost=self._max_cost, spent_micros=spent, ended=ended
        )
        self._quoting = True
        return self._quote

    def start(
        self,
        detached: bool = False,  # noqa: FBT001, FBT002 - a name that is fixed
        *,
        confirm: bool = False,
        max_cost: Decimal | str | int | None = None,
    ) -> "Sweep":
        """Send what is not sent yet; costs money. It goes on under the first consent.

        Args:
            detached: Whether to leave it to workers (`kling-nb worker`) on this ledger, so that this kernel
                may end; returns once all of it is left to them.
            confirm: Agrees to the quote as it is now, also above what was agreed to before.
            max_cost: Dollars that what is not sent may cost; the same, with a limit.

        Returns:
            The sweep, at once.

        Raises:
            BudgetError: It does not fit; the message says how many do. Nothing was sent.
            KlingError: What stopped it before all of it was left to workers.
        """
        if self._feed is not None and self._feed.sending:
            if detached and not self._feed.detached:
                self._feed.hand_over()
            elif self._entry.state() == "started":
                return self
            self._feed.wait(10)
        if max_cost is not None:
            self._max_cost = results.money(max_cost)
        return self._shown(self.quote(), agreed=confirm, detached=detached)

    def begin(self, *, confirm: bool = False) -> "Sweep":
        """Send what is not sent yet under the quote that was just made; as `start`, without a new one."""
        return self._shown(self._quote or self.quote(), agreed=confirm)

    def _shown(self, quote: Quote, *, agreed: bool, detached: bool = False) -> "Sweep":
        follow = self._views.show(self)
        self._go_on(quote, agreed=agreed, detached=detached)
        follow()
        if detached:
            self.wait_sent()
            if (why := self.stopped) is not None:
                raise why
        return self

    def _go_on(self, quote: Quote, *, agreed: bool, detached: bool = False) -> "Sweep":
        newly = agreed or self._max_cost is not None
        with self._entry.changing() as (stored, standing, write):
            if any(grid not in stored.grid for grid in self._grid):
                raise refused(f"The sweep {self.name} has another grid by now.", cure="Ask for it anew.")
            spent = standing.spent_micros
            needed = spent + quote.micros
            consented = stored.consent_micros is not None and not newly
            if (why := quote.obstacle(agreed=agreed or consented)) is not None:
                raise why
            if consented and quote.new:
                check_consent(stored, quote, needed)
            accounts = {**stored.accounts, **({} if consented else quote.accounts)}
            consent = stored.consent_micros if consented else needed
            write(replace(stored, state="started", consent_micros=consent, accounts=accounts))
        members = {member.number: member for member in self.members}
        self._feed = Feed(
            self.session,
            self.name,
            [(members[number], provider) for number, provider in quote.todo],
            prices=quote.prices,
            left_micros=(self._entry.stored.consent_micros or 0) - spent,
            most_micros=None if self._max_cost is None else self._entry.stored.consent_micros,
            detached=detached,
        )
        self._feed.start()
        self._quoting = False
        return self

    def retry(self) -> "Sweep":
        """Send again the failed runs that were not charged; moderated and lost ones stay as they are.

        `progress.free` says how many these are.

        Returns:
            The sweep, at once.

        Raises:
            BudgetError: It does not fit. Nothing was sent.
        """
        if self._feed is not None and self._feed.sending:
            raise refused("It is still being sent.", cure="`wait()` for it, then retry.")
        return self._shown(self._quoted(again=True), agreed=False)

    # -- steering ------------------------------------------------------------
    def pause(self) -> "Sweep":
        """Send no more, here and in every other kernel; `start()` goes on."""
        self._entry.say("paused")
        return self

    def cancel(self) -> "Sweep":
        """Give up what is not sent, here and in every other kernel; what was sent goes on and is kept."""
        self._entry.say("canceled")
        self._entry.withdraw()
        return self

    def wait(self, timeout_s: float | None = None) -> "Sweep":
        """Wait until all of it that was started has ended; Ctrl-C stops only the waiting.

        Args:
            timeout_s: Seconds to wait at most; None waits without end.

        Returns:
            The sweep itself, whatever became of it: look at `df` and `progress`.

        Raises:
            WaitTimeoutError: The time was over first; it goes on.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        ticker = results.Ticker(carded=self._views.carded)
        with stopped_in_words(f"The sweep {self.name} goes on."), self._entry.rests() as rest:
            while not self._over():
                if end is not None and time.monotonic() >= end:
                    raise WaitTimeoutError(
                        f"The sweep {self.name} is still on its way after {timeout_s:g} s.",
                        charged="unknown",
                        cure="It goes on: `wait()` again; nothing is sent twice.",
                    )
                most_s = math.inf if end is None else end - time.monotonic()
                rest(most_s if self._only_workers else 0)
                ticker.tick(lambda: progress_text(self.progress))
        ticker.end(lambda: progress_text(self.progress))
        return self

    def wait_sent(self) -> "Sweep":
        """Wait until all of it is sent; what is on its way goes on."""
        ticker = results.Ticker(carded=self._views.carded)
        while self._feed is not None and not self._feed.wait(_STEP_S):
            ticker.tick(lambda: progress_text(self.progress))
        ticker.end(lambda: progress_text(self.progress))
        return self

    def _over(self) -> bool:
        """Whether nothing is on its way; what another kernel or nobody carries is followed from here."""
        self._only_workers = False
        if self._feed is not None and not self._feed.over:
            return False
        workers = self._entry.left_to_workers()
        runs = self._by_member(pending=True, but=workers).values()
        for run in runs:
            if run.id not in self._followed:
                self._followed.add(run.id)
                run.resume()
        self._only_workers = all(run.done for run in runs)
        return self._only_workers and not any(workers.values())

    async def __aiter__(self) -> AsyncIterator[Run]:
        """Give each run as it ends."""
        given, at = set[str](), 0
        with self._entry.rests() as rest:
            while True:
                with stopped_in_words(f"The sweep {self.name} goes on."):
                    over = await asyncio.to_thread(self._over)
                    ended = await asyncio.to_thread(self._entry.ended, at)
                at += len(ended)
                for run_id in ended:
                    if run_id not in given:
                        given.add(run_id)
                        yield await asyncio.to_thread(self.session.find, run_id)
                if over:
                    return
                with stopped_in_words(f"The sweep {self.name} goes on."):
                    await asyncio.to_thread(rest, math.inf if self._only_workers else 0)

    # -- results ---------------------------------------------------------------
    @property
    def df(self) -> Any:
        """A `pandas.DataFrame` with a row a member: axes, tags, status, cost, seconds, file, run.

        A private sweep shows its owner the prompts and tags; what leaves has their hashes.

        Raises:
            UsageError: pandas is not installed.
        """
        return results.frame(self.members, self._by_member())

    @property
    def cost(self) -> dict[str, dict[Any, Decimal | None]]:
        """Dollars on the books by axis and value; None where the charge of one of its runs is unknown."""
        return results.costs(self.members, self._by_member())

    def table(self) -> results.Table:
        """Make a static grid of stills for the saved notebook: a row a prompt, a column what else differs."""
        return results.table(self.members, self._by_member())

    def gallery(self) -> Any:
        """Make a live grid of its clips: prompts are rows, what else differs columns; see `kling.gallery`."""
        runs = self._by_member()
        return self._views.gallery(lay_out(self.members, runs), runs)

    def compare(self, prompt: str | int) -> Any:
        """Put the clips of one prompt side by side, see `kling.compare`.

        Args:
            prompt: The words of its prompt (the original one where there are two), or the number of its row.

        Raises:
            UsageError: There is no such prompt, or it has no clip yet.
        """
        return self._views.compare(results.clips_of(prompt, self.members, self._by_member()))

    def rate(self, **options: Any) -> Any:
        """Vote on pairs of its clips, blind, see `kling.rate`; by provider where it has several."""
        providers = {member.provider for member in self.members}
        return self._views.rate(self.runs, **{"by": "provider" if len(providers) > 1 else "model", **options})

    def export(
        self,
        layout: str = "videofolder",
        folder: str | Path = "export",
        *,
        provider: str | None = None,
        **options: Any,
    ) -> "Export":
        """Lay its clips out for another tool, see `kling.export`; costs nothing.

        Args:
            layout: As for `kling.export`.
            folder: Where to.
            provider: Only the runs of this one: a suite measures one maker.
            **options: As for `kling.export`, e.g. `plan=` or `allow_sandbox=True`.

        Returns:
            What was written, and what is missing and why.
        """
        from kling_nb.exports.export import export

        runs = [run for run in self.runs if provider in {None, run.provider}]
        return export(runs, folder, layout=layout, session=self.session, **options)

    def data(self) -> dict[str, Any]:
        """Give the sweep as plain data for programs, without the words of a private one."""
        return results.data(self.progress, self.members, self._by_member())

    # -- showing ---------------------------------------------------------------
    def __repr__(self) -> str:
        if self._quoting and self._quote is not None:
            return quote_text(self.name, shape_of(self.members), self._quote)
        return progress_text(self.progress)

    def _ipython_display_(self) -> None:
        self._views.show(self)()
