"""The strip of controls below a live card: a button for each run on its way.

Invariants: a click only signals, as it may come in on any thread; what the button said counts; the strip is
for a watched kernel and is emptied at the end, because a widget in a saved notebook is an error line; a page
that was loaded anew, which no update of the card reaches, has its words and its finished card from here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kling_nb.engine.run import Run
from kling_nb.notebook.widgets import (
    EMPTY,
    ClipSource,
    answer_at_once,
    display_widget,
    make_widget,
    set_trait,
)
from kling_nb.records.base import utc_now
from kling_nb.records.run import RunRecord
from kling_nb.session.api import current
from kling_nb.views.card import status_line
from kling_nb.views.html import escape
from kling_nb.views.words import money_words, plain, state_word

__all__ = ["LatePage", "Strip"]

_CANCEL = "Cancel"


class LatePage:
    """What a page that was loaded anew is told, which no update of a card reaches.

    Args:
        cards: Gives the finished cards, each with the id of its run.
        records: Gives the runs whose clips they play.
    """

    def __init__(
        self,
        cards: Callable[[], Sequence[tuple[str, str]]],
        records: Callable[[], Sequence[RunRecord]] = tuple,
    ) -> None:
        self._cards, self._records = cards, records
        scripts = ["shared/page.js", "shared/clips.js", "strip.js"]
        self.widget = make_widget("strip", scripts, ["strip.css"], {})
        self.widget.on_msg(self._on_message)

    def _on_message(self, _widget: object, content: Any, _buffers: object) -> None:
        """Tell a page from the one that the card was drawn on, and give it what it misses."""
        kind = content.get("kind") if isinstance(content, Mapping) else None
        if kind == "page" and "first" not in self.widget.state:
            self.widget.state = {**self.widget.state, "first": str(content.get("page"))}
        elif kind == "card":
            ClipSource(self._records(), store=current().engine().store).serve(self.widget)
            cards = [{"id": run_id, "html": html} for run_id, html in self._cards()]
            self.widget.send({"kind": "cards", "cards": cards})

    def end(self) -> None:
        """Let it ask for the finished cards."""
        set_trait(self.widget, "state", {**self.widget.state, "done": True})


class Strip:
    """One line and one button for each run on its way.

    Args:
        runs: Handles, each with the usual span from asked to done, shortest and longest in seconds.
        notify: Whether the page tells when a run has ended.
    """

    def __init__(
        self, runs: Sequence[tuple[Run, tuple[float, float] | None]], *, notify: bool = False
    ) -> None:
        import ipywidgets

        self._rows: list[tuple[Run, tuple[float, float] | None, Any, Any]] = []
        self._bell = make_widget("bell", ["shared/bell.js"], [], {}) if notify else None
        handles = [run for run, _ in runs]
        self._page = LatePage(
            lambda: [(run.id, run.bundle(embed="auto")["text/html"]) for run in handles],
            lambda: [run.record for run in handles],
        )
        self._announced: set[str] = set()
        boxes = []
        for run, typical in runs:
            label = ipywidgets.HTML()
            # On a narrow page the words give way, and never the button that stops the spending.
            button = ipywidgets.Button(layout=ipywidgets.Layout(width="auto", flex="none"))
            answer_at_once(button)
            button.on_click(self._clicked(run, button))
            self._rows.append((run, typical, label, button))
            boxes.append(
                ipywidgets.HBox(
                    [button, label], layout=ipywidgets.Layout(align_items="center", grid_gap="8px")
                )
            )
        # The buttons of many runs stand beside each other.
        row = ipywidgets.HBox(boxes, layout=ipywidgets.Layout(flex_flow="row wrap", grid_gap="4px 16px"))
        self._box = ipywidgets.VBox([*([] if self._bell is None else [self._bell]), row, self._page.widget])
        self._box.add_class("kling-strip")
        if len(self._rows) == 1:
            self._box.add_class("kling-single")
        self.update()
        self._handle: Any = None

    def show(self) -> None:
        """Put it under the cell."""
        self._handle = display_widget(self._box)

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
        for run, typical, label, button in self._rows:
            words = plain(
                [
                    status_line(run.record, now=utc_now(), typical_s=typical, turn=run.turn),
                    money_words(run.record),
                ]
            )
            text = (
                f'<code>{escape(run.name or run.id)}</code> <span class="kling-line">{escape(words)}</span>'
            )
            if run.done:
                self._tell(run)
                text = f'<span class="kling-ended">{text}</span>'
            elif run.note:
                text += f" {escape(run.note)}"
            set_trait(label, "value", text)
            if run.done:
                set_trait(button.layout, "display", "none")
                continue
            if button.disabled and not run.cancel_wanted:
                # The cancel was answered, and the run still goes on: it may be asked for again.
                button.disabled = False
            cancel = run.can_cancel
            if button.description != (word := _CANCEL if cancel else "Stop waiting"):
                button.description = word
                stop = f"Stop watching run {run.id}; it goes on and may be charged"
                button.tooltip = f"Cancel run {run.id}" if cancel else stop

        if all(run.done for run, *_ in self._rows):
            self._page.end()

    def _tell(self, run: Run) -> None:
        if self._bell is None or run.id in self._announced:
            return
        self._announced.add(run.id)
        title = f"{run.name or run.id}: {state_word(run.record, detached=run.detached)}"
        self._bell.send({"title": title, "body": plain(money_words(run.record))})

    def close(self) -> None:
        """Empty the output; the widget itself stays, for a page that was reloaded and still shows it."""
        if self._handle is not None:
            self._handle.update(EMPTY, raw=True)
