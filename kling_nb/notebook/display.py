"""How the answer of a command is put under the cell.

Invariants: what was shown once is shown again only when it is asked for.
"""

from typing import Any

from kling_nb.commands.answer import Answer

__all__ = ["put"]


class CommandValue:
    """What a `%kling` command gives back: its value, quiet until it is asked for.

    The view was already put under the cell, also where the command is not its last line; IPython shows the
    value of a last line once more, and this keeps still then.

    Args:
        shown: The answer.

    Example:
        >>> CommandValue(Answer(text="nothing", value=[])).value
        []
    """

    def __init__(self, shown: Answer) -> None:
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


def put(shown: Answer) -> CommandValue | None:
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

        from kling_nb.notebook.viewers.player import play

        display(play(shown.runs[0]))
    elif shown.runs:
        from kling_nb.notebook.card import show_runs

        show_runs(shown.runs, embed=shown.embed)
    if shown.view is not None:
        from IPython.display import display

        display(shown.view)
    return None if shown.value is None else CommandValue(shown)
