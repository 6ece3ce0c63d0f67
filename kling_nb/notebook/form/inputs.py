"""The inputs of a form: one labelled widget for each field, with what it counts and what is wrong below it.

Invariants: core widgets only, made on use; every input has a description, which becomes its label; words and
signs say what is wrong, never a colour alone, in a row that is always there, so that nothing moves when they
come; whatever takes clicks or keys is heard while a cell blocks.
"""

from collections.abc import Callable, Sequence
from typing import Any

from kling_nb.notebook.form.fields import Field
from kling_nb.notebook.form.verdict import NOT_YET
from kling_nb.notebook.widgets import answer_at_once, set_trait
from kling_nb.views.html import GREY, RED, Html, escape, tag

__all__ = ["Input", "choose", "icon", "note", "page", "press", "shape"]

#: Told the name of an input and what it holds now.
OnChange = Callable[[str, Any], None]
_MOST_ROWS, _COLUMNS, _MOST_STEPS = 12, 80, 20


def shape(ratio: str) -> str:
    """Write an aspect ratio with its shape before it.

    Args:
        ratio: e.g. `16:9`; anything else is given back unchanged.

    Example:
        >>> shape("9:16")
        '▯ 9:16'
    """
    width, colon, height = ratio.partition(":")
    if not (colon and width.isdecimal() and height.isdecimal()):
        return ratio
    wide, high = int(width), int(height)
    return f"{'▭' if wide > high else '▯' if wide < high else '□'} {ratio}"


def page() -> Any:
    """Make a place for HTML; what is put there must be `Html`."""
    import ipywidgets

    return ipywidgets.HTML(layout=ipywidgets.Layout(width="auto"))


def press(words: str, tooltip: str, act: Callable[[], None]) -> Any:
    """Make a button.

    Args:
        words: What it says.
        tooltip: One line.
        act: Called on a click, on any thread.
    """
    import ipywidgets

    button = ipywidgets.Button(description=words, tooltip=tooltip, layout=ipywidgets.Layout(width="auto"))
    answer_at_once(button)
    button.on_click(lambda _button: act())
    return button


def icon(kind: str, words: str, act: Callable[[], None]) -> Any:
    """Make a button that shows a sign, and is read aloud by its words.

    Args:
        kind: Of the style sheet: less, more-one, up, down, remove.
        words: What it does.
        act: Called on a click, on any thread.
    """
    button = press(words, words, act)
    button.add_class("kling-icon")
    button.add_class(f"kling-{kind}")
    return button


def choose(label: str, options: Sequence[tuple[str, str]], value: str) -> Any:
    """Make a list to choose from.

    Args:
        label: Its label.
        options: What is shown and what it stands for.
        value: What is chosen at first.
    """
    import ipywidgets

    made = ipywidgets.Dropdown(
        options=list(options), value=value, description=label, layout=ipywidgets.Layout(width="auto")
    )
    answer_at_once(made)
    return made


def note(problem: str, count: str = "") -> Html:
    """Draw what is wrong with an input, and at its other end what is used of it.

    Args:
        problem: In words; what is only not there yet is no fault.
        count: e.g. `67 of 2,500`.
    """
    # A sign and words, and no colour of ours for the text: it has to be read on light and dark.
    waits = problem.startswith(NOT_YET)
    rule = f"border-left:3px solid {GREY if waits else RED};padding-left:8px"
    said = tag("span", tag("b", "○ " if waits else "✗ "), escape(problem), style=rule) if problem else ""
    used = tag("span", count, style="margin-left:auto;white-space:nowrap;opacity:0.8") if count else ""
    return tag("div", said, used, style="display:flex;gap:12px;font-size:12px;line-height:18px")


class Input:
    """One input.

    Args:
        of: What it is for.
        on_change: Called on every change that a person makes.
        label: Its label, where the field's own would not do.
        name: By which it is told.
        stepper: Whether a whole number has buttons for one more and one less.
    """

    def __init__(
        self, of: Field, on_change: OnChange, *, label: str = "", name: str = "", stepper: bool = True
    ) -> None:
        import ipywidgets

        self.of = of
        self.name = name or of.name
        self.widget = _widget(of, label or of.label)
        answer_at_once(self.widget)
        self._below = page()
        self._below.add_class("kling-note")
        self.box = ipywidgets.VBox(self._parts(stepper=stepper), layout=ipywidgets.Layout(width="auto"))
        self.box.add_class("kling-input")
        self.box.add_class(f"kling-{of.kind}")
        self._on_change = on_change
        self.widget.observe(self._changed, "value")

    def _parts(self, *, stepper: bool) -> list[Any]:
        import ipywidgets

        # What is ticked or not has nothing to be wrong.
        below = [] if self.of.kind == "switch" else [self._below]
        if not stepper or type(self.widget).__name__ != "IntText":
            return [self.widget, *below]
        less = icon("less", f"{self.of.label}: one less", lambda: self._step(-1))
        more = icon("more-one", f"{self.of.label}: one more", lambda: self._step(1))
        row = ipywidgets.HBox([less, self.widget, more])
        row.add_class("kling-step")
        return [row, *below]

    def _step(self, by: int) -> None:
        low = self.of.low if self.of.low is not None else 1
        self.widget.value = max(int(low), self.widget.value + by)

    def _changed(self, change: Any) -> None:
        self._on_change(self.name, change["new"])

    def put(self, value: Any) -> None:
        """Show a value; what the widget cannot hold is left to the words below it."""
        kind = type(self.widget).__name__
        if kind in {"IntText", "IntSlider"} and not (isinstance(value, int) and not isinstance(value, bool)):
            return
        if kind == "IntSlider" and not self.widget.min <= value <= self.widget.max:
            return
        if kind == "SelectionSlider" and value not in dict(self.widget.options).values():
            if not _within(self.of, value):
                return
            self.widget.options = _scale(self.of, str(value))
        if kind in {"RadioButtons", "Dropdown"} and value not in dict(self.widget.options).values():
            return
        plain = kind in {"IntText", "IntSlider", "Checkbox"}
        set_trait(self.widget, "value", value if plain else str(value))

    def say(self, count: str, problem: str) -> None:
        """Show below it what is used and what is wrong; empty for neither."""
        text = getattr(self.widget, "value", "")
        if self.of.kind == "text":
            set_trait(self.widget, "rows", _rows(self.of, text))
        # What may be left empty need not be counted while it is; that there is no prompt, the button says.
        used = count if text or not _left_empty(self.of) else ""
        if self.of.name == "prompt" and problem.startswith(NOT_YET) and self.of.optional:
            problem = ""
        set_trait(self._below, "value", str(note(problem, used)) if problem or used else "")


def _widget(of: Field, label: str) -> Any:  # noqa: PLR0911 - one return a kind reads best
    import ipywidgets

    wide = ipywidgets.Layout(width="auto")
    # A narrow page cuts placeholders; the tooltip has all of it.
    hint = {"placeholder": _hint(of), "tooltip": _hint(of)}
    if of.kind == "text":
        return ipywidgets.Textarea(description=label, rows=_rows(of, ""), layout=wide, **hint)
    if of.kind == "pairs":
        return ipywidgets.Textarea(
            description=label, placeholder="KEY=VALUE, one a line", rows=2, layout=wide
        )
    if of.kind == "switch":
        made = ipywidgets.Checkbox(description=label, tooltip=of.help, indent=False, layout=wide)
        made.value = bool(of.default)
        return made
    if of.kind == "choice" and not of.optional:
        options = [(shape(word), word) for word in of.choices]
        return ipywidgets.RadioButtons(
            options=options, value=of.default, description=label, orientation="horizontal", layout=wide
        )
    if of.kind == "choice":
        options = [("not set", ""), *((word, word) for word in of.choices)]
        return ipywidgets.Dropdown(options=options, value="", description=label, layout=wide)
    if of.kind == "number" and of.low is not None and of.high is not None and of.high - of.low <= 1:
        return ipywidgets.SelectionSlider(
            options=_scale(of), value="", description=label, tooltip=_hint(of), layout=wide
        )
    if of.kind == "whole" and (of.default is not None or not of.optional):
        first = of.default if of.default is not None else int(of.low or 0)
        look = {"value": first, "description": label, "tooltip": _hint(of), "layout": wide}
        limits = (
            None if of.default is None or of.low is None or of.high is None else (int(of.low), int(of.high))
        )
        if limits is not None and limits[1] - limits[0] <= _MOST_STEPS:
            return ipywidgets.IntSlider(min=limits[0], max=limits[1], **look)
        return ipywidgets.IntText(continuous_update=True, **look)
    return ipywidgets.Text(description=label, layout=wide, **hint)


def _scale(of: Field, also: str = "") -> list[tuple[str, str]]:
    """Give what a number between two others may be put to, unset first, and a value between the steps."""
    low, high = of.low or 0.0, of.high or 1.0
    steps = [f"{low + (high - low) * step / 20:g}" for step in range(21)]
    return [("not set", ""), *((word, word) for word in sorted({*steps, also} - {""}, key=float))]


def _within(of: Field, value: Any) -> bool:
    try:
        return (of.low or 0.0) <= float(value) <= (of.high or 1.0)
    except (TypeError, ValueError):
        return False


def _left_empty(of: Field) -> bool:
    return of.optional and of.name != "prompt"


def _rows(of: Field, text: str) -> int:
    """Give a text the room it takes, within bounds, so that a long prompt is seen whole."""
    # A prompt of its own, and not the words of a shot.
    least = 5 if of.name == "prompt" and of.optional else 2
    return min(_MOST_ROWS, max(least, sum(1 + len(line) // _COLUMNS for line in text.split("\n"))))


def _hint(of: Field) -> str:
    span = f"{of.low:g} to {of.high:g}" if of.low is not None and of.high is not None else ""
    return ", ".join(part for part in (of.help, span) if part)
