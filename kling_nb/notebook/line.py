"""`%kling` in a notebook: the subcommands that every face has, and those that need a page.

Invariants: nothing here ever makes a run at a provider.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kling_nb.commands.answer import Answer
from kling_nb.commands.run_line import Handler, run_line
from kling_nb.notebook.form.form import form_line
from kling_nb.notebook.viewers.compare import compare_line
from kling_nb.notebook.viewers.gallery import gallery_line
from kling_nb.notebook.viewers.rate import rate_line

if TYPE_CHECKING:
    from kling_nb.session.session import Session

__all__ = ["run_command"]

_VIEWS: dict[str, Handler] = {
    "compare": compare_line,
    "form": form_line,
    "gallery": gallery_line,
    "rate": rate_line,
}


def run_command(session: "Session", line: str, names: Mapping[str, Any]) -> Answer:
    r"""Carry out one `%kling` line.

    Args:
        session: Of this kernel.
        line: What follows `%kling`.
        names: The notebook's variables: an argument may name one that holds a run.

    Returns:
        What is shown, see `commands.run_line`.

    Raises:
        UsageError: There is no such subcommand, flag or run.
        KlingError: The subcommand failed.

    Example:
        >>> run_command(None, "help config", {}).text
        '%kling config\n  the settings as they are now, and where each comes from'
    """
    return run_line(session, line, names, _VIEWS)
