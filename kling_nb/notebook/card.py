"""The live card: an output that follows its runs.

Invariants: outputs are made in the cell and only updated from the background loop, at most twice a second
and only on change; the card is plain HTML and never a widget, so that the saved notebook reads true; the
strip of controls below it exists only while a run is on its way and somebody watches.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from IPython.display import DisplayHandle, clear_output, display

from kling_nb.engine.polling.schedule import typical
from kling_nb.engine.run import Run
from kling_nb.engine.runs import Runs
from kling_nb.errors import LedgerError
from kling_nb.notebook.controls import Strip
from kling_nb.records.run import FrontEnd, Mode
from kling_nb.views.html import prose, tag

if TYPE_CHECKING:
    from concurrent.futures import Future

    from kling_nb.loop import Loop

__all__ = ["flush", "follow_to_the_end", "show_runs", "show_to_the_end"]

_PERIOD_S = 1.0
_open: set["_Followed"] = set()
#: By display id, what went out from the background since the last `flush` of a headless notebook.
_sent: dict[str, tuple[DisplayHandle, dict[str, Any]]] = {}
_sending = threading.Lock()


def show_runs(runs: Sequence[Run], *, embed: Mode | None = None) -> None:
    """Show one card for one run or several; it stays live while any of them is on its way.

    Where the page takes no updates it is drawn once, as it is now.

    Args:
        runs: Handles; without any, nothing is shown.
        embed: What of the clips goes into the final card; None leaves it to the settings.
    """
    from kling_nb.session.api import current, surroundings_of_process

    where = surroundings_of_process()
    if not runs:
        return
    here = current().surroundings()
    live = getattr(where, "kernel", False) and here.live
    watched = live and not here.headless
    mode = embed or current().settings().embed
    cards = LiveCards(runs, repeat=live and not watched, embed=mode, front=here.front)
    # Asked before the card is drawn: a run that ends meanwhile would leave it at what it says first.
    going = any(not run.done for run in runs)
    cards.draw(controls=watched, notify=watched and current().settings().notify)
    if live and going:
        cards.follow(current().loop.start)
    elif going and not here.live:
        words = (
            f"This page takes no updates: `%kling show {' '.join(run.id for run in runs)}` draws it again."
        )
        display({"text/html": tag("div", prose(words)), "text/plain": words}, raw=True)


def show_to_the_end(runs: Sequence[Run], *, embed: Mode | None, wait: Callable[[float], bool]) -> None:
    """Draw the card of a cell anew at each change, for a page that takes no updates, until a wait is over.

    Args:
        runs: Handles.
        embed: As for `show_runs`.
        wait: Waits so many seconds, and says whether that was enough.
    """
    from kling_nb.session.api import current

    drawn: list[Any] = []
    while True:
        over = wait(_PERIOD_S if drawn else 0)
        if over or drawn != (drawn := [_look(run) for run in runs]):
            clear_output(wait=True)
            LiveCards(runs, embed=embed or current().settings().embed).draw(controls=False)
        if over:
            return


def follow_to_the_end(
    handle: DisplayHandle,
    follow: Callable[[Callable[[dict[str, Any]], None]], Coroutine[Any, Any, None]],
    over: Callable[[], bool],
    loop: "Loop",
) -> None:
    """Keep an output that is no card of runs true from a background loop, where the page takes updates.

    Args:
        handle: Of the output.
        follow: Given what updates it; returns when it is at its end.
        over: Whether there is an end to wait for, where a headless cell ends.
        loop: Of the session that it follows, which need not be the newest.
    """
    from kling_nb.session.api import current, in_kernel

    here = current().surroundings()
    if in_kernel() and here.live:
        loop.start(_Followed(handle, over, repeat=here.headless).run(follow))


class _Followed:
    """An output that is kept true from the background loop."""

    def __init__(self, handle: DisplayHandle, over: Callable[[], bool], *, repeat: bool) -> None:
        self._handle, self._over, self._repeat = handle, over, repeat
        self._ended = threading.Event()
        _open.add(self)

    async def run(
        self, follow: Callable[[Callable[[dict[str, Any]], None]], Coroutine[Any, Any, None]]
    ) -> None:
        try:
            await follow(self._put)
        finally:
            _open.discard(self)
            self._ended.set()

    def _put(self, bundle: dict[str, Any]) -> None:
        with _sending:
            self._handle.update(bundle, raw=True)
            if self._repeat:
                _sent[self._handle.display_id] = self._handle, bundle

    def finish(self, timeout_s: float) -> None:
        """Wait until the output shows the end."""
        if self._over():
            self._ended.wait(timeout_s)


def flush() -> None:
    """Let the stored outputs catch up with the cards: to be called at the end of each headless cell.

    What was sent while no cell ran is sent again, because nbclient drops an update that comes between two
    cells (measured: cards that said `running` for ever).
    """
    for output in list(_open):
        output.finish(10)
    with _sending:
        for handle, bundle in _sent.values():
            handle.update(bundle, raw=True)
        _sent.clear()


class LiveCards:
    """The card of one output: of one run, or of all that its cell asked for.

    Args:
        runs: Handles, in order.
        repeat: Whether `flush` must send again what was sent from the background.
        embed: What of the clips goes into the final card.
        front: The page it is for.
    """

    def __init__(
        self, runs: Sequence[Run], *, repeat: bool = False, embed: Mode = "auto", front: FrontEnd = ""
    ) -> None:
        self.runs = Runs(runs)
        self._embed: Mode = embed
        self._front: FrontEnd = front
        self._repeat = repeat
        self._typical = [_typical(run) for run in self.runs]
        # Several cells may show the same run, each in an output of its own.
        self._handle = DisplayHandle()
        self._shown: dict[str, Any] = {}
        self._drawn: list[Any] = []
        self._strip: Strip | None = None

    def draw(self, *, controls: bool, notify: bool = False) -> None:
        """Make the outputs, in the cell that asked for them."""
        self._shown = self._bundle()
        self._handle.display(self._shown, raw=True)
        waiting = [(run, span) for run, span in zip(self.runs, self._typical, strict=True) if not run.done]
        if controls and waiting:
            with contextlib.suppress(ImportError):
                self._strip = Strip(waiting, notify=notify)
                self._strip.show()

    def follow(self, start: Any) -> "Future[None]":
        """Keep the outputs true from the background loop."""
        following: Future[None] = start(
            _Followed(self._handle, self._over, repeat=self._repeat).run(self._follow)
        )
        return following

    def _over(self) -> bool:
        return all(run.done for run in self.runs)

    async def _follow(self, put: Callable[[dict[str, Any]], None]) -> None:
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def on_change(_run: Run) -> None:
            loop.call_soon_threadsafe(changed.set)

        for run in self.runs:
            run.on_change(on_change)
        while True:
            over = self._over()
            await asyncio.to_thread(self._update, put)
            if over:
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), _PERIOD_S)
            changed.clear()
            await asyncio.sleep(0 if self._over() else _PERIOD_S / 2)
        if self._strip is not None:
            self._strip.close()

    def _update(self, put: Callable[[dict[str, Any]], None]) -> None:
        if self._worth_drawing() and (bundle := self._bundle()) != self._shown:
            put(bundle)
            self._shown = bundle
        if self._strip is not None:
            self._strip.update()

    def _bundle(self) -> dict[str, Any]:
        return self.runs.bundle(self._typical, embed=self._embed, front=self._front)

    def _worth_drawing(self) -> bool:
        """Whether more has changed than the time; drawing anew would stop a clip that plays beside others."""
        drawn = self._drawn
        self._drawn = [_look(run) for run in self.runs]
        return len(self.runs) == 1 or drawn != self._drawn


def _look(run: Run) -> tuple[Any, ...]:
    """Give what a card is drawn anew for."""
    return run.record, run.detached, run.shown_note, run.turn and run.turn.number


def _typical(run: Run) -> tuple[float, float] | None:
    from kling_nb.session.api import current

    record = run.record
    try:
        return typical(current().ledger().waits(record.provider, record.model, record.request.duration))
    except LedgerError:
        return None
