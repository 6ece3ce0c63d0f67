"""The one card of a sweep in a notebook, and the buttons below it.

Invariants: one output, updated on change and at most once a second; buttons exist only while somebody watches
and there is something to stop or to send; a page that was loaded anew, which no update of the card reaches,
has its words and its finished card from below the buttons.
"""

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kling_nb.errors import KlingError
from kling_nb.ledger.databases.changes import DETACHED
from kling_nb.notebook.card import follow_to_the_end
from kling_nb.notebook.controls import LatePage
from kling_nb.notebook.widgets import EMPTY, answer_at_once, display_widget, set_trait, watched
from kling_nb.records.money import usd
from kling_nb.session.api import await_at_end
from kling_nb.sweeps.layout import shape_of
from kling_nb.views.html import escape
from kling_nb.views.sweep import progress_html, progress_text, quote_html, quote_text
from kling_nb.views.words import counted

if TYPE_CHECKING:
    from kling_nb.loop import Loop
    from kling_nb.sweeps.progress import Progress
    from kling_nb.sweeps.sweep import Sweep

__all__ = ["Card", "cards", "cell_number", "draw_waiting", "shell", "show_at_end"]

_PERIOD_S = 1.0
_ESTIMATE_S = 10
_EPOCH = datetime.fromtimestamp(0, UTC)

#: By sweep, the card that was drawn last.
cards: dict[str, "Card"] = {}
#: By name, what a cell showed where a page takes no updates: drawn at the end of the cell.
_waiting: dict[str, "Sweep"] = {}


def show_at_end(sweep: "Sweep") -> Callable[[], None]:
    """Have the cell wait for it, and draw it once, as it is then; for a page that takes no updates."""
    _waiting[sweep.name] = sweep
    return lambda: None if sweep.left_to_workers else _wait_at_end(sweep)


def draw_waiting() -> None:
    """Draw what the cell showed."""
    while _waiting:
        Card(_waiting.pop(next(iter(_waiting))))


def _wait_at_end(sweep: "Sweep") -> None:
    await_at_end([sweep])  # type: ignore[list-item]  # it is waited for as a run is


def shell() -> Any:
    """Give the shell of this kernel, or None."""
    module = sys.modules.get("IPython.core.interactiveshell")
    if module is None or not module.InteractiveShell.initialized():
        return None
    return module.InteractiveShell.instance()


def cell_number() -> int:
    """Give the number of the cell that runs."""
    return getattr(shell(), "execution_count", -1)


class Card:
    """The output of one cell that shows a sweep: first its quote, then how it goes."""

    def __init__(self, sweep: "Sweep") -> None:
        from IPython.display import DisplayHandle

        self.cell = cell_number()
        self._sweep = sweep
        self._note = ""
        self._buttons: _Buttons | None = None
        self._following = self._asked = False
        self._lock = threading.Lock()
        self._shown = self._bundle()
        self._handle = DisplayHandle()
        self._handle.display(self._shown, raw=True)

    def _bundle(self, progress: "Progress | None" = None) -> dict[str, str]:
        sweep, quote = self._sweep, self._sweep.quoted
        if sweep.quoting and quote is not None:
            how = sweep.name, shape_of(sweep.members), quote
            return {
                "text/html": quote_html(*how, note=self._note),
                "text/plain": quote_text(*how, note=self._note),
            }
        progress = progress or sweep.progress
        return {"text/html": progress_html(progress), "text/plain": progress_text(progress)}

    def redraw(self, sweep: "Sweep") -> None:
        """Bring the output up to date."""
        self._sweep = sweep
        self._put(self._bundle())

    def _put(self, bundle: dict[str, str]) -> None:
        if bundle != self._shown:
            self._shown = bundle
            self._handle.update(bundle, raw=True)

    def ask(self) -> bool:
        """Put the button that sends it below the quote; False where nobody could press it."""
        quote = self._sweep.quoted
        if quote is None or not watched():
            return False
        self._asked = True
        return self._offer((f"Send {counted(quote.new, 'run')}, {usd(quote.micros)}", self._send))

    def follow(self) -> None:
        """Keep the output true until it is over."""
        if self._following or self._asked or self._sweep.quoting:
            return
        if not self._sweep.left_to_workers:
            _wait_at_end(self._sweep)
        if watched() and not self._is_over():
            self._offer(*self._stops(self._sweep.state))
        self._begin_to_follow()

    def _begin_to_follow(self) -> None:
        self._following = True
        follow_to_the_end(self._handle, self._follow, self._is_over, self._sweep.session.loop)

    def _is_over(self) -> bool:
        return self._sweep.progress.over

    async def _follow(self, put: Callable[[dict[str, str]], None]) -> None:
        drawn: object = None
        changes, moved = (await asyncio.to_thread(self._sweep.session.ledger)).changes, asyncio.Event()
        with changes.watched(DETACHED, moved.set):
            while True:
                moved.clear()
                progress = await asyncio.to_thread(lambda: self._sweep.progress)
                # The time alone is no change, but estimates are brought up to date now and then.
                look = (
                    replace(progress, now=_EPOCH, ends_at=None, per_hour=None),
                    progress.now.timestamp() // _ESTIMATE_S,
                )
                if drawn != look:
                    drawn = look
                    bundle = self._bundle(progress)
                    if bundle != self._shown:
                        self._shown = bundle
                        put(bundle)
                        if (buttons := self._buttons) is not None:
                            buttons.say(progress_text(progress).partition("\n")[0])
                            buttons.offer(self._stops(progress.state), primary=False)
                if progress.over:
                    break
                await asyncio.sleep(_PERIOD_S)
                if self._sweep.left_to_workers:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(moved.wait(), changes.look_s(_PERIOD_S) - _PERIOD_S)
        self._following = False
        self._hide_buttons()

    # -- buttons -------------------------------------------------------------------------------------
    def _offer(self, *buttons: tuple[str, Callable[[], Any]]) -> bool:
        """Put buttons below it; False where there can be none."""
        try:
            self._buttons = self._buttons or _Buttons(
                lambda: str(progress_html(self._sweep.progress)), self._sweep.session.loop
            )
        except ImportError:
            return False
        self._buttons.offer(buttons, primary=self._asked)
        return True

    def _send(self) -> None:
        # Its card is this output, whichever cell has been run since.
        self.cell, cards[self._sweep.name] = cell_number(), self
        try:
            self._sweep.start(confirm=True)
        except KlingError as error:
            self._note = str(error)
            self.redraw(self._sweep)
        self._asked = False
        if self._sweep.quoting:
            self._hide_buttons()
        else:
            self._offer(*self._stops(self._sweep.state))
            self._begin_to_follow()

    def _stops(self, state: str) -> tuple[tuple[str, Callable[[], Any]], ...]:
        stop = ("Stop sending", self._sweep.pause), ("Cancel what is not sent", self._sweep.cancel)
        return {"started": stop, "paused": stop[1:]}.get(state, ())

    def _hide_buttons(self) -> None:
        with self._lock:
            buttons, self._buttons = self._buttons, None
        if buttons is not None:
            buttons.close()


class _Buttons:
    """A row of buttons, and what a page that was loaded anew has instead of the card.

    Args:
        card: Draws the card as it is now.
        loop: Where a click is carried out.
    """

    def __init__(self, card: Callable[[], str], loop: "Loop") -> None:
        import ipywidgets

        self._loop = loop
        self._row, self._label = ipywidgets.HBox(layout={"grid_gap": "8px"}), ipywidgets.HTML()
        self._page = LatePage(lambda: [("", card())])
        self._offered: list[str] = []
        box = ipywidgets.VBox([self._row, self._label, self._page.widget])
        box.add_class("kling-strip")
        self._handle = display_widget(box)

    def offer(self, buttons: tuple[tuple[str, Callable[[], Any]], ...], *, primary: bool) -> None:
        """Show these, and no others."""
        import ipywidgets

        if (words := [word for word, _ in buttons]) == self._offered:
            return
        self._offered = words
        look = {"layout": {"width": "auto"}, "button_style": "primary" if primary else ""}
        made = [ipywidgets.Button(description=word, **look) for word, _ in buttons]
        for button, (_, act) in zip(made, buttons, strict=True):
            answer_at_once(button)
            button.on_click(self._clicked(act))
        self._row.children = made

    def _clicked(self, act: Callable[[], Any]) -> Callable[[Any], None]:
        def clicked(button: Any) -> None:
            # May come in on any thread, and the ledger may be busy: it only signals.
            button.disabled = True
            self._loop.start(asyncio.to_thread(act))

        return clicked

    def say(self, words: str) -> None:
        """Say on a page that was loaded anew how it goes."""
        set_trait(self._label, "value", f'<span class="kling-line">{escape(words)}</span>')

    def close(self) -> None:
        """Empty the output; a page that was loaded anew has the finished card."""
        self._row.children = ()
        set_trait(self._label, "value", "")
        self._page.end()
        self._handle.update(EMPTY, raw=True)
