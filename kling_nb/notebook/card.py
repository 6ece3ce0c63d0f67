"""The live card: an output that follows its run, and the strip of controls below it.

Invariants: outputs are made in the cell and only updated from the background loop, at most twice a second
and only on change; the card is plain HTML and never a widget, so that the saved notebook reads true; the
strip exists only while a run is on its way and somebody watches; a click only signals.
"""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from IPython.display import DisplayHandle, display

from kling_nb.cardview import status_line
from kling_nb.engine import Run, pace
from kling_nb.errors import LedgerError
from kling_nb.html import escape
from kling_nb.records import utc_now

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["flush", "show_runs"]

_PERIOD_S = 1.0
_CANCEL = "Cancel"
_EMPTY = {"text/html": "", "text/plain": ""}
_open: set["LiveCards"] = set()
#: By display id, what went out from the background since the last `flush` of a headless notebook.
_sent: dict[str, tuple[DisplayHandle, dict[str, Any]]] = {}
_sending = threading.Lock()
_numbers = itertools.count(1)


def show_runs(runs: Sequence[Run]) -> None:
    """Show a card for each run; cards of runs on their way stay live.

    Args:
        runs: Handles.
    """
    from kling_nb.api import current, surroundings_of_process

    where = surroundings_of_process()
    live = getattr(where, "kernel", False)
    watched = live and not current().surroundings().headless
    cards = LiveCards(runs, repeat=live and not watched)
    cards.draw(controls=watched)
    if live and any(not run.done for run in runs):
        cards.follow(current().loop.hand)


def flush(timeout_s: float = 10) -> None:
    """Let the stored outputs catch up with the cards: to be called at the end of each headless cell.

    What was sent while no cell ran is sent again, because nbclient drops an update that comes between two
    cells (measured: cards that said `running` for ever).

    Args:
        timeout_s: Seconds to wait at most for cards of ended runs to show their end.
    """
    for cards in list(_open):
        cards.finish(timeout_s)
    with _sending:
        for handle, bundle in _sent.values():
            handle.update(bundle, raw=True)
        _sent.clear()


class LiveCards:
    """The cards of one output.

    Args:
        runs: Handles, in order.
        repeat: Whether `flush` must send again what was sent from the background.
    """

    def __init__(self, runs: Sequence[Run], *, repeat: bool = False) -> None:
        self.runs = list(runs)
        self._repeat = repeat
        self._handles: list[DisplayHandle] = []
        self._shown: list[dict[str, Any]] = []
        self._strip: _Strip | None = None
        self._typical = [_typical(run) for run in self.runs]
        self._changed: asyncio.Event | None = None
        self._ended = threading.Event()

    def draw(self, *, controls: bool) -> None:
        """Make the outputs, in the cell that asked for them."""
        for run, typical in zip(self.runs, self._typical, strict=True):
            bundle = run.bundle(typical_s=typical)
            handle = DisplayHandle(f"kling-{run.id}-{next(_numbers)}")
            handle.display(bundle, raw=True)
            self._handles.append(handle)
            self._shown.append(bundle)
        waiting = [run for run in self.runs if not run.done]
        if controls and waiting:
            with contextlib.suppress(ImportError):
                self._strip = _Strip(waiting)

    def follow(self, hand: Any) -> "Future[None]":
        """Keep the outputs true from the background loop."""
        _open.add(self)
        following: Future[None] = hand(self._follow())
        return following

    def finish(self, timeout_s: float) -> None:
        """Wait until the outputs show the end."""
        if all(run.done for run in self.runs):
            self._ended.wait(timeout_s)

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        changed = self._changed = asyncio.Event()

        def told(_run: Run) -> None:
            loop.call_soon_threadsafe(changed.set)

        for run in self.runs:
            run.on_change(told)
        try:
            while True:
                over = all(run.done for run in self.runs)
                await asyncio.to_thread(self._update)
                if over:
                    break
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), _PERIOD_S)
                changed.clear()
                await asyncio.sleep(0 if all(run.done for run in self.runs) else _PERIOD_S / 2)
            if self._strip is not None:
                self._strip.close()
        finally:
            _open.discard(self)
            self._ended.set()

    def _update(self) -> None:
        for number, run in enumerate(self.runs):
            bundle = run.bundle(typical_s=self._typical[number])
            if bundle != self._shown[number]:
                handle = self._handles[number]
                with _sending:
                    handle.update(bundle, raw=True)
                    if self._repeat:
                        _sent[handle.display_id] = handle, bundle
                self._shown[number] = bundle
        if self._strip is not None:
            self._strip.update()

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


class _Strip:
    """One line and one button for each run on its way."""

    def __init__(self, runs: Sequence[Run]) -> None:
        import ipywidgets

        self._rows: list[tuple[Run, Any, Any]] = []
        boxes = []
        for run in runs:
            label = ipywidgets.HTML()
            button = ipywidgets.Button(layout=ipywidgets.Layout(width="auto"))
            _answer_at_once(button)
            button.on_click(self._clicked(run, button))
            self._rows.append((run, label, button))
            boxes.append(
                ipywidgets.HBox(
                    [button, label], layout=ipywidgets.Layout(align_items="center", grid_gap="8px")
                )
            )
        self._box = ipywidgets.VBox(boxes)
        self.update()
        self._handle = DisplayHandle(f"kling-strip-{next(_numbers)}")
        display(self._box, display_id=self._handle.display_id)

    @staticmethod
    def _clicked(run: Run, button: Any) -> Any:
        def clicked(_button: object) -> None:
            # May run on the kernel's thread or on a subshell's: it only signals.
            button.disabled = True
            # What the button said counts, also where the run has just left the queue.
            if button.description == _CANCEL:
                run.request_cancel()
            else:
                run.detach()

        return clicked

    def update(self) -> None:
        """Bring words and buttons up to date."""
        for run, label, button in self._rows:
            words = status_line(run.record, now=utc_now())
            text = f"<code>{escape(run.name or run.id)}</code> {escape(words)}"
            if run.done:
                text += f" <span>— redraw with <code>%kling show {escape(run.id)}</code></span>"
            elif run.note:
                text += f" — {escape(run.note)}"
            _set(label, "value", text)
            if run.done:
                _set(button.layout, "display", "none")
                continue
            if button.disabled and not run.cancel_wanted:
                # The cancel was answered, and the run still goes on: it may be asked for again.
                button.disabled = False
            cancel = run.can_cancel
            if button.description != (word := _CANCEL if cancel else "Stop waiting"):
                button.description = word
                stop = f"Stop watching run {run.id}; it goes on and may be charged"
                button.tooltip = f"Cancel run {run.id}" if cancel else stop

    def close(self) -> None:
        """Empty the output; the widget itself stays, for a page that was reloaded and still shows it."""
        self._handle.update(_EMPTY, raw=True)


def _set(widget: Any, name: str, value: str) -> None:
    if getattr(widget, name) != value:
        setattr(widget, name, value)


def _answer_at_once(widget: Any) -> None:
    """Let clicks through while a cell blocks.

    ipykernel 7.4 sends a browser's message to the subshell that published last on its comm, which for a
    widget made in a cell is the blocked main one, although JupyterLab asked for another (measured). The
    attribute is private, hence the guard; older and later kernels do without.
    """
    if hasattr(widget.comm, "_reply_subshell_for"):
        widget.comm._reply_subshell_for = lambda _data, default: default  # noqa: SLF001 - see above


def _typical(run: Run) -> tuple[float, float] | None:
    from kling_nb.api import current

    record = run.record
    try:
        return pace.typical(current().ledger().waits(record.provider, record.model, record.request.duration))
    except LedgerError:
        return None
