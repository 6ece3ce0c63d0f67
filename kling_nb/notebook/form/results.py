"""What the cards of a form's runs have buttons for: another take, the same as a cell, a comparison.

Invariants: nothing is sent here; the price of another take is that of the very call its button makes; of a
run whose words are not here there is nothing to make again.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kling_nb.engine.run import Run
from kling_nb.errors import KlingError
from kling_nb.notebook.form.cell_text import as_cell
from kling_nb.notebook.form.draft import Draft
from kling_nb.notebook.form.verdict import Press, assess
from kling_nb.records.run import RunRecord, RunStatus

if TYPE_CHECKING:
    from kling_nb.session.session import Session

__all__ = ["another_of", "compared_with", "result_rows"]


def result_rows(session: "Session", runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Say what each card has buttons for.

    Args:
        session: Of this kernel.
        runs: The newest first.

    Returns:
        A row a run, as plain JSON: `id`, `another` (its price, or empty), `cell` (its text, or empty) and
        whether there is another clip to `compare` it with.

    Example:
        >>> result_rows(None, [])
        []
    """
    return [
        {
            "id": run.id,
            "another": press.price if (press := another_of(session, run)) is not None else "",
            "cell": _cell(run.record),
            "compare": compared_with(run, runs) is not None,
        }
        for run in runs
    ]


def another_of(session: "Session", run: Run) -> Press | None:
    """Say what a further take of a finished run would be, if one can be made now."""
    draft = _draft(run.record)
    if draft is None or not run.done:
        return None
    press = assess(session, draft.fields).another
    return press if press is not None and press.ask is not None else None


def compared_with(run: Run, runs: Sequence[Run]) -> Run | None:
    """Give the clip that a clip is compared with: the one made before it, else the one after."""
    made = [one for one in runs if one.record.status is RunStatus.SUCCEEDED]
    if run not in made or len(made) < 2:
        return None
    at = made.index(run)
    return made[at + 1] if at + 1 < len(made) else made[at - 1]


def _draft(record: RunRecord) -> Draft | None:
    draft = Draft()
    try:
        draft.fill(record)
    except KlingError:
        return None
    return draft


def _cell(record: RunRecord) -> str:
    draft = None if record.private else _draft(record)
    try:
        return "" if draft is None else as_cell(replace(draft.ask, takes=(record.take,)))
    except KlingError:
        return ""
