"""What a command shows, and how it is put under the cell.

Invariants: the same content goes out as HTML and as plain text; a command itself knows no IPython.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kling_nb.engine import Run

__all__ = ["Shown", "put"]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The answer of a command.

    Args:
        html: For notebooks.
        text: For terminals and diffs.
        value: What the command gives back to Python.
        runs: Runs whose cards are drawn below it.
    """

    html: str = ""
    text: str = ""
    value: Any = None
    runs: "Sequence[Run]" = ()


def put(shown: Shown) -> Any:
    """Show an answer under the cell.

    Args:
        shown: The answer.

    Returns:
        Its value.
    """
    if shown.html or shown.text:
        from IPython.display import display

        display({"text/html": shown.html, "text/plain": shown.text}, raw=True)
    if shown.runs:
        from kling_nb.notebook.card import show_runs

        show_runs(shown.runs)
    return shown.value
