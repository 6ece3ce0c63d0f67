"""What a command shows: sentences and tables, as HTML, as plain text, or JSON for programs.

Invariants: the same content goes out as HTML and as plain text; a command itself knows no IPython.
"""

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kling_nb.views.html import tag
from kling_nb.views.tables import Part, page_of, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kling_nb.engine.run import Run
    from kling_nb.records.run import Mode

__all__ = ["Answer", "answer", "json_text", "verbatim"]


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


def json_text(value: Any, encoding: str) -> str:
    r"""Write a value as JSON that no terminal can misread.

    What turns a terminal's colours or its reading direction, or what it has no letter for, is escaped.

    Args:
        value: Plain data; what is none is written as text.
        encoding: Of the stream that it goes to.

    Example:
        >>> json_text("a\x1b[1m\u72d0", "ascii")
        '"a\\u001b[1m\\u72d0"'
    """

    def written(sign: re.Match[str]) -> str:
        letter = sign[0]
        shown = letter.isprintable() and letter.encode(encoding, "ignore")
        return letter if shown else json.dumps(letter)[1:-1]

    return re.sub(r"[^\n -~]", written, json.dumps(value, indent=2, default=str, ensure_ascii=False))
