"""The storyboard of a form: a bar of its seconds, and a row a shot, which can be added, removed and moved.

Invariants: the rows hold what the form holds, in its order; moving a shot moves its words and seconds and
the keyboard's focus with them; there are never more rows than the model takes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from kling_nb.notebook.form.fields import Field
from kling_nb.notebook.form.inputs import Input, OnChange, icon, note, page, press
from kling_nb.notebook.widgets import set_trait
from kling_nb.views.html import Html, join, tag

__all__ = ["Board", "timeline"]

Shots = list[dict[str, Any]]
_FIRST_S = 5


class Board:
    """The rows of a storyboard.

    Args:
        of: The field of the request model that holds rows.
        on_change: Called with all rows on every change that a person makes.
    """

    def __init__(self, of: Field, on_change: OnChange) -> None:
        import ipywidgets

        self.of = of
        self.name = of.name
        self._on_change = on_change
        self._shots: Shots = []
        # Rows that were made once are kept: a row that comes back needs no new widgets.
        self._made: list[_Row] = []
        self._bar = page()
        self._rows = ipywidgets.VBox(layout=ipywidgets.Layout(width="auto"))
        self._add = press("Add a shot", "Add a shot at the end", self._added)
        self._words = page()
        foot = ipywidgets.HBox([self._add, self._words])
        foot.add_class("kling-foot")
        self.box = ipywidgets.VBox([self._bar, self._rows, foot], layout=ipywidgets.Layout(width="auto"))
        self.box.add_class("kling-board")

    # -- what the form tells it -----------------------------------------------------
    def put(self, shots: Sequence[Mapping[str, Any]]) -> None:
        """Show these rows."""
        self._shots = [dict(shot) for shot in shots]
        most = len(self._shots)
        while len(self._made) < most:
            self._made.append(_Row(self, len(self._made)))
        for row, shot in zip(self._made, self._shots, strict=False):
            row.put(shot, last=row.number == most - 1)
        boxes = tuple(row.box for row in self._made[:most])
        if self._rows.children != boxes:
            self._rows.children = boxes
        set_trait(self._add, "disabled", self.of.rows is not None and most >= self.of.rows)
        self._draw_bar()

    def _draw_bar(self) -> None:
        set_trait(self._bar, "value", str(timeline(self._shots)))

    def say(self, counts: Mapping[str, str], problems: Mapping[str, str]) -> None:
        """Show totals, limits and what is wrong."""
        used = tag("div", counts.get(self.name, ""), style="font-size:12px;line-height:18px")
        words = problems.get(self.name, "")
        # Where there is no shot at all, the button says so.
        set_trait(self._words, "value", str(join([used, note(words if self._shots else "")])))
        for row in self._made[: len(self._shots)]:
            row.say(counts, problems)

    # -- what a person does -----------------------------------------------------------
    def changed(self, number: int, name: str, value: Any) -> None:
        """Take over what was typed into a row."""
        if number < len(self._shots) and self._shots[number].get(name) != value:
            self._shots[number] = {**self._shots[number], name: value}
            self._draw_bar()
            self._tell()

    def moved(self, number: int, by: int) -> None:
        """Move a shot up or down, and the focus with it."""
        other = number + by
        if 0 <= number < len(self._shots) and 0 <= other < len(self._shots):
            shots = list(self._shots)
            shots[number], shots[other] = shots[other], shots[number]
            self._replace(shots)
            self._made[other].focus(by)

    def removed(self, number: int) -> None:
        """Take a shot away."""
        if number < len(self._shots):
            self._replace([shot for at, shot in enumerate(self._shots) if at != number])
            if self._shots:
                self._made[min(number, len(self._shots) - 1)].focus(0)
            else:
                self._add.focus()

    def _added(self) -> None:
        if self.of.rows is None or len(self._shots) < self.of.rows:
            new = {column.name: _FIRST_S if column.kind == "whole" else "" for column in self.of.columns}
            self._replace([*self._shots, new])
            self._made[len(self._shots) - 1].focus(0)

    def _replace(self, shots: Shots) -> None:
        self.put(shots)
        self._tell()

    def _tell(self) -> None:
        self._on_change(self.name, [dict(shot) for shot in self._shots])


def timeline(shots: Sequence[Mapping[str, Any]]) -> Html:
    """Draw the shots one after the other, each as wide as it is long.

    Args:
        shots: Rows of the form, right or wrong.

    Example:
        >>> "flex:5 1 0" in timeline([{"prompt": "Wide view", "duration": 5}])
        True
    """
    parts = []
    for number, shot in enumerate(shots, 1):
        seconds = shot.get("duration")
        wide = max(1, min(60, seconds)) if isinstance(seconds, int) else 1
        head = tag("b", f"{number} · {seconds} s")
        text = tag("div", str(shot.get("prompt") or "").strip(), dir="auto")
        parts.append(tag("div", head, text, style=f"flex:{wide} 1 0"))
    return tag("div", *parts, **{"class": "kling-timeline"}) if parts else Html()


class _Row:
    """The inputs of one shot, and its buttons."""

    def __init__(self, board: Board, number: int) -> None:
        import ipywidgets

        self.number = number
        shot = number + 1
        self._inputs: dict[str, Input] = {}
        for column in board.of.columns:
            label = f"Shot {shot}" if column.kind == "text" else f"{column.label} {shot}"
            label = f"Seconds {shot}" if column.name == "duration" else label
            self._inputs[column.name] = Input(
                column,
                lambda name, value: board.changed(number, name, value),
                label=label,
                stepper=False,
            )
        self._up = icon("up", f"Move shot {shot} up", lambda: board.moved(number, -1))
        self._down = icon("down", f"Move shot {shot} down", lambda: board.moved(number, 1))
        remove = icon("remove", f"Remove shot {shot}", lambda: board.removed(number))
        self._up.disabled = number == 0
        rest = [made.box for name, made in self._inputs.items() if name != "prompt"]
        words = [made.box for name, made in self._inputs.items() if name == "prompt"]
        acts = ipywidgets.HBox([self._up, self._down, remove])
        acts.add_class("kling-icons")
        self.box = ipywidgets.HBox([*words, *rest, acts], layout=ipywidgets.Layout(width="auto"))
        self.box.add_class("kling-shot")

    def put(self, shot: Mapping[str, Any], *, last: bool) -> None:
        for name, made in self._inputs.items():
            made.put(shot.get(name, ""))
        set_trait(self._down, "disabled", last)

    def say(self, counts: Mapping[str, str], problems: Mapping[str, str]) -> None:
        for name, made in self._inputs.items():
            place = f"shots.{self.number + 1}.{name}"
            made.say(counts.get(place, ""), problems.get(place, ""))

    def focus(self, by: int) -> None:
        """Put the keyboard where work goes on: on the button that moved it, or into its text."""
        button = {-1: self._up, 1: self._down}.get(by)
        if button is not None and not button.disabled:
            button.focus()
        else:
            next(iter(self._inputs.values())).widget.focus()
