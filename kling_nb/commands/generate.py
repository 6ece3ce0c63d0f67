"""One clip from the command line, with the flags of a cell."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kling_nb.commands.answer import Answer
from kling_nb.commands.dry_run import show_plan
from kling_nb.commands.syntax.cell import parse_cell
from kling_nb.engine.runs import Runs
from kling_nb.errors import KlingError

if TYPE_CHECKING:
    from kling_nb.session.session import Session

__all__ = ["generate"]


def generate(session: "Session", prompt: str, flags: Sequence[str]) -> tuple[Runs, float | None] | Answer:
    """Ask for a clip as a cell does; costs money unless the clip is already here.

    Args:
        session: Of this process.
        prompt: The text of the cell.
        flags: What a cell has in its line, a word each.

    Returns:
        The runs, and for how many seconds they are waited for at most; for `--dry-run` the plan.

    Raises:
        KlingError: The call is refused; nothing was sent.
    """
    try:
        session.keys.refuse({"the line": " ".join(flags), "the prompt": prompt}, shapes=False)
        order = parse_cell(shlex.join(flags), f"{prompt}\n", {}, folder=Path.cwd())
        if order.dry_run:
            return show_plan(session.plan(order.ask), order, session)
        return Runs(session.open(order.ask)), order.timeout_s
    except KlingError as error:
        error.may_spend = True
        raise
