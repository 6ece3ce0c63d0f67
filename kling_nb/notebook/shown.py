"""What a command shows, and how it is put under the cell.

Invariants: the same content goes out as HTML and as plain text; a command itself knows no IPython.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kling_nb.views.html import tag
from kling_nb.views.tables import Part, page_of, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kling_nb.engine.run import Run
    from kling_nb.records.run import Mode

__all__ = ["Shown", "answer", "put", "verbatim"]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The answer of a command.

    Args:
        html: For notebooks.
        text: For terminals and diffs.
        value: What the command gives back to Python.
        runs: Runs whose cards are drawn below it.
        embed: What of their clips goes into the cards; None leaves it to the settings.
        player: Whether its one run is drawn with a live player instead.
        view: What IPython displays below that, e.g. a comparison; it has a text of its own.
    """

    html: str = ""
    text: str = ""
    value: Any = None
    runs: "Sequence[Run]" = ()
    embed: "Mode | None" = None
    player: bool = False
    view: Any = None


def answer(parts: "Sequence[Part]", runs: "Sequence[Run]" = (), value: Any = None) -> Shown:
    """Answer with sentences and tables, and with the cards of runs below them.

    Args:
        parts: Sentences and tables.
        runs: Runs whose cards are drawn below.
        value: The same as plain data.

    Example:
        >>> answer(["Nothing is **pending**."]).text
        'Nothing is pending.'
    """
    return Shown(html=page_of(parts), text=text_of(parts), runs=runs, value=value)


def verbatim(text: str, value: Any = None) -> Shown:
    """Answer with a text whose lines stay as they are.

    Args:
        text: The text.
        value: What the command gives back.

    Example:
        >>> verbatim("one").text
        'one'
    """
    return Shown(html=tag("pre", text, style="white-space:pre-wrap;font-size:12px"), text=text, value=value)


class Answer:
    """What a `%kling` command gives back: its value, quiet until it is asked for.

    The view was already put under the cell, also where the command is not its last line; IPython shows the
    value of a last line once more, and this keeps still then.

    Args:
        shown: The answer.

    Example:
        >>> Answer(Shown(text="nothing", value=[])).value
        []
    """

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._fresh = True

    @property
    def value(self) -> Any:
        """The answer as plain Python data."""
        return self._shown.value

    def __getattr__(self, name: str) -> Any:
        # What the value can do, the answer can: `(%kling cost).df`. Pages ask for names that begin with `_`.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._shown.value, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self._shown.value)})

    def __repr__(self) -> str:
        return self._shown.text

    def _ipython_display_(self) -> None:
        if self._fresh:
            self._fresh = False
        else:
            put(self._shown)


def put(shown: Shown) -> Answer | None:
    """Show an answer under the cell.

    Args:
        shown: The answer.

    Returns:
        Its value for Python, or None where it has none.
    """
    if shown.html or shown.text:
        from IPython.display import display

        display({"text/html": shown.html, "text/plain": shown.text}, raw=True)
    if shown.player:
        from IPython.display import display

        from kling_nb.notebook.player import play

        display(play(shown.runs[0]))
    elif shown.runs:
        from kling_nb.notebook.card import show_runs

        show_runs(shown.runs, embed=shown.embed)
    if shown.view is not None:
        from IPython.display import display

        display(shown.view)
    return None if shown.value is None else Answer(shown)
