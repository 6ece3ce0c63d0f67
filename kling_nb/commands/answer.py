"""What a command shows: sentences and tables, as HTML and as plain text.

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

__all__ = ["Answer", "answer", "verbatim"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer of a command.

    Args:
        html: For notebooks.
        text: For terminals and diffs.
        parts: What both are made of, where it can be laid out anew.
        value: What the command gives back to Python.
        runs: Runs whose cards are drawn below it.
        embed: What of their clips goes into the cards; None leaves it to the settings.
        player: Whether its one run is drawn with a live player instead.
        view: What IPython displays below that, e.g. a comparison; it has a text of its own.
    """

    html: str = ""
    text: str = ""
    parts: "Sequence[Part]" = ()
    value: Any = None
    runs: "Sequence[Run]" = ()
    embed: "Mode | None" = None
    player: bool = False
    view: Any = None

    def fitted(self, width: int | None) -> str:
        """Give the text for a terminal of so many columns."""
        return text_of(self.parts, width) if self.parts else self.text


def answer(parts: "Sequence[Part]", runs: "Sequence[Run]" = (), value: Any = None) -> Answer:
    """Answer with sentences and tables, and with the cards of runs below them.

    Args:
        parts: Sentences and tables.
        runs: Runs whose cards are drawn below.
        value: The same as plain data.

    Example:
        >>> answer(["Nothing is **pending**."]).text
        'Nothing is pending.'
    """
    return Answer(html=page_of(parts), text=text_of(parts), parts=parts, runs=runs, value=value)


def verbatim(text: str, value: Any = None) -> Answer:
    """Answer with a text whose lines stay as they are.

    Args:
        text: The text.
        value: What the command gives back.

    Example:
        >>> verbatim("one").text
        'one'
    """
    return Answer(html=tag("pre", text, style="white-space:pre-wrap;font-size:12px"), text=text, value=value)
