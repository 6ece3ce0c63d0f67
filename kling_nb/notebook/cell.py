"""One `%%kling` cell, from its text to its cards.

Invariants: the destination is bound whatever happens, before an error is raised, and to something that
explains itself; a refused cell ends with one line and no traceback; waiting never owns a run.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from kling_nb.commands.answer import Answer
from kling_nb.commands.dry_run import show_plan
from kling_nb.commands.syntax.cell import CellOrder, HelpWantedError, parse_cell
from kling_nb.commands.syntax.help_text import cell_sections, help_text
from kling_nb.commands.syntax.values import repeating
from kling_nb.engine.run import Run
from kling_nb.engine.runs import Runs
from kling_nb.errors import DetachedError, KlingError, WaitTimeoutError
from kling_nb.notebook.card import show_runs, show_to_the_end
from kling_nb.notebook.display import put
from kling_nb.notebook.sweeps import sweep_cell
from kling_nb.session.session import Session

__all__ = ["Refused", "run_cell"]


class Refused:
    """What a destination is bound to when its cell was refused: it says why.

    Args:
        error: Why.

    Example:
        >>> Refused(KlingError("No.")).status
        'refused'
    """

    status = "refused"
    video = None
    path = None
    done = True
    cost = Decimal(0)

    def __init__(self, error: KlingError) -> None:
        self.error = error

    def __repr__(self) -> str:
        return f"refused, nothing was sent: {type(self.error).__name__}: {self.error}"

    def wait(self, timeout_s: float | None = None) -> "Refused":  # noqa: ARG002 - the shape of Run.wait
        """There is nothing to wait for."""
        return self

    def result(self, timeout_s: float | None = None) -> Any:  # noqa: ARG002 - the shape of Run.result
        """Raise why there is no clip."""
        raise self.error


def run_cell(session: Session, names: dict[str, Any], line: str, body: str) -> None:
    """Run one cell.

    Args:
        session: Of this kernel.
        names: The notebook's variables; the destination is bound here.
        line: What follows `%%kling`.
        body: The cell's text.

    Raises:
        KlingError: The cell is refused, or, where it waits, its run ended without a clip.
    """
    order: CellOrder | None = None
    try:
        # First of all: whatever is wrong with the line is repeated in messages.
        session.keys.refuse({"the line": line, "the cell": body}, shapes=False)
        with repeating(line):
            order = parse_cell(line, body, names, folder=session.surroundings().folder or Path.cwd())
        if _carried_out(session, names, order):
            return
        ask = order.ask
        runs = session.open(ask)
    except HelpWantedError:
        put(Answer(text=help_text(cell_sections())))
        return
    except KlingError as error:
        bound = _blocking(session, error) or Refused(error)
        bind(session, names, order.dest if order is not None else dest_of(line), bound)
        raise
    except Exception as error:
        # A fault of ours: the destination must not go on holding an older run.
        words = KlingError(
            f"kling_nb failed: {type(error).__name__}.", charged="unknown", cure="See `%kling list`."
        )
        bind(session, names, order.dest if order is not None else dest_of(line), Refused(words))
        raise
    many = len(runs) > 1 or len(ask.takes) > 1
    for number, run in enumerate(runs):
        # A run that an earlier cell already shows keeps the name it has there.
        run.name = run.name or (f"{order.dest}[{number}]" if many and order.dest else order.dest)
    bind(session, names, order.dest, Runs(runs) if many else runs[0])
    here = session.surroundings()
    waits = order.wait if order.wait is not None else here.headless or not here.live
    follow = None
    if here.live or not waits:
        if not order.quiet:
            show_runs(runs, embed=order.embed)
    elif not order.quiet:
        follow = partial(show_to_the_end, runs, embed=order.embed)
    if waits:
        wait_for(runs, order.timeout_s, headless=here.headless, follow=follow)


def _carried_out(session: Session, names: dict[str, Any], order: CellOrder) -> bool:
    """Carry out a cell that asks for a sweep, or only for its plan; False for any other."""
    if order.sweep:
        bind(session, names, order.dest, sweep_cell(order))
    elif order.dry_run:
        put(show_plan(session.plan(order.ask), order, session))
    return bool(order.sweep) or order.dry_run


def dest_of(line: str) -> str | None:
    """Find the destination in a line that could not be parsed, so that it can be told why."""
    words = line.replace("<<", " ").split()
    for number, word in enumerate(words):
        if word in {"-o", "--out"} and number + 1 < len(words) and words[number + 1].isidentifier():
            return words[number + 1]
    return words[0] if words and words[0].isidentifier() else None


def bind(session: Session, names: dict[str, Any], dest: str | None, thing: Any) -> None:
    """Bind the destination and `kling.last`."""
    session.last = thing
    if dest is not None:
        names[dest] = thing


def _blocking(session: Session, error: KlingError) -> Run | None:
    """Give the earlier run that stands in the way, if that is why."""
    if error.run_id is None:
        return None
    try:
        return session.find(error.run_id)
    except KlingError:
        return None


def wait_for(
    runs: list[Run],
    timeout_s: float | None,
    *,
    headless: bool,
    follow: Callable[..., None] | None = None,
) -> None:
    """Wait in the cell, and let a failure fail it.

    Args:
        runs: Handles.
        timeout_s: Seconds to wait at most.
        headless: Whether a wait that was too short fails the cell too.
        follow: Draws the runs for as long as the wait it is given says.

    Raises:
        KlingError: A run ended without a clip, or the wait ended first.
    """
    end = None if timeout_s is None else time.monotonic() + timeout_s

    def step(most_s: float) -> bool:
        left = most_s if end is None else min(most_s, end - time.monotonic())
        with suppress(WaitTimeoutError):
            Runs(runs).wait(max(0.0, left))
            return True
        return end is not None and time.monotonic() >= end

    try:
        if follow is not None:
            follow(wait=step)
            timeout_s = None if end is None else max(0.0, end - time.monotonic())
        Runs(runs).wait(timeout_s)
    except KeyboardInterrupt:
        going = [run.id for run in runs if not run.done] or [runs[-1].id]
        raise DetachedError(
            f"Interrupted: no longer waiting for {', '.join(going)}.",
            charged="unknown",
            cure=f"It goes on. `%kling wait {going[0]}` waits again, `%kling cancel {going[0]}` cancels.",
            run_id=going[0],
        ) from None
    except WaitTimeoutError:
        if headless:
            raise
        return
    failed = [run.error for run in runs if run.error is not None]
    if failed:
        raise failed[0]
