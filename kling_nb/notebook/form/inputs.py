"""The inputs of a form: one labelled widget for each field, with what it counts and what is wrong below it.

Invariants: core widgets only, made on use; every input has a description, which becomes its label; words and
signs say what is wrong, never a colour alone; whatever takes clicks or keys is heard while a cell blocks.
"""

from collections.abc import Callable, Sequence
from typing import Any

from kling_nb.notebook.form.fields import Field
from kling_nb.notebook.widgets import answer_at_once
from kling_nb.views.html import GREY, RED, Html, callout, escape, tag

__all__ = ["Input", "choose", "page", "press", "set_trait", "shape", "trouble"]

#: Told the name of an input and what it holds now.
OnChange = Callable[[str, Any], None]
_MOST_ROWS, _COLUMNS = 12, 80
_WAITING = ("is missing", "must not be empty")


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


def set_trait(widget: Any, name: str, value: Any) -> None:
    """Set a trait only where it changes, so that nothing is sent for nothing."""
    if getattr(widget, name) != value:
        setattr(widget, name, value)


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

    button = ipywidgets.Button(
        description=words, tooltip=tooltip, layout=ipywidgets.Layout(width="auto", min_width="3em")
    )
    answer_at_once(button)
    button.on_click(lambda _button: act())
    return button


def choose(label: str, options: Sequence[tuple[str, str]], value: str) -> Any:
    """Make a list to choose from.

    Args:
        label: Its label.
        options: What is shown and what it stands for.
        value: What is chosen at first.
    """
    import ipywidgets

    made = ipywidgets.Dropdown(options=list(options), value=value, description=label)
    answer_at_once(made)
    return made


def trouble(problem: str) -> Html:
    """Draw what is wrong with an input; what is only not there yet is no fault.

    Args:
        problem: In words.
    """
    # A sign and words, and no colour of ours for the text: it has to be read on light and dark.
    waits = problem.startswith(_WAITING)
    return callout(GREY if waits else RED, tag("b", "○ " if waits else "✗ "), escape(problem))


class Input:
    """One input.

    Args:
        of: What it is for.
        told: Called on every change that a person makes.
        label: Its label, where the field's own would not do.
        name: By which it is told.
    """

    def __init__(self, of: Field, on_change: OnChange, *, label: str = "", name: str = "") -> None:
        import ipywidgets

        self.of = of
        self.name = name or of.name
        self.widget = _widget(of, label or of.label)
        answer_at_once(self.widget)
        self._below = page()
        set_trait(self._below.layout, "display", "none")
        self._below.add_class("kling-below")
        self.box = ipywidgets.VBox([self.widget, self._below], layout=ipywidgets.Layout(width="auto"))
        self.box.add_class(f"kling-{of.kind}")
        self._on_change = on_change
        self.widget.observe(self._changed, "value")

    def _changed(self, change: Any) -> None:
        self._on_change(self.name, change["new"])

    def put(self, value: Any) -> None:
        """Show a value; what the widget cannot hold is left to the words below it."""
        kind = type(self.widget).__name__
        if kind == "IntText" and not (isinstance(value, int) and not isinstance(value, bool)):
            return
        if kind in {"RadioButtons", "Dropdown"} and value not in dict(self.widget.options).values():
            return
        set_trait(self.widget, "value", value if kind in {"IntText", "Checkbox"} else str(value))

    def say(self, count: str, problem: str) -> None:
        """Show below it what is used and what is wrong; empty for neither."""
        text = getattr(self.widget, "value", "")
        if self.of.kind == "text":
            set_trait(self.widget, "rows", _rows(self.of, text))
        # What may be left empty need not be counted while it is.
        used = count and (text or not _left_empty(self.of))
        parts = [tag("div", count, style="opacity:0.8")] if used else []
        if problem:
            parts.append(trouble(problem))
        set_trait(self._below.layout, "display", "" if parts else "none")
        words = tag("div", *parts, style="font-size:12px;line-height:1.4") if parts else Html("")
        set_trait(self._below, "value", str(words))


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
        return ipywidgets.Dropdown(options=options, value="", description=label)
    if of.kind == "whole" and (of.default is not None or not of.optional):
        first = of.default if of.default is not None else int(of.low or 0)
        return ipywidgets.IntText(
            value=first,
            description=label,
            tooltip=_hint(of),
            continuous_update=True,
            layout=ipywidgets.Layout(width="170px"),
        )
    return ipywidgets.Text(description=label, layout=wide, **hint)


def _left_empty(of: Field) -> bool:
    return of.optional and of.name != "prompt"


def _rows(of: Field, text: str) -> int:
    """Give a text the room it takes, within bounds, so that a long prompt is seen whole."""
    least = 2 if _left_empty(of) else 3
    return min(_MOST_ROWS, max(least, sum(1 + len(line) // _COLUMNS for line in text.split("\n"))))


def _hint(of: Field) -> str:
    span = f"{of.low:g} to {of.high:g}" if of.low is not None and of.high is not None else ""
    hint = ", ".join(part for part in (of.help, span) if part)
    return f"{hint} (may be left empty)" if of.optional and of.kind in {"number", "line"} else hint
