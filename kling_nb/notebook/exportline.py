"""`%kling export`: clips under the names another tool asks for.

Invariants: nothing is bought and nothing in the store changes; what is missing is told first.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kling_nb.errors import one_line
from kling_nb.exports.export import METHODS, describe_methods, export
from kling_nb.exports.layouts import LAYOUTS
from kling_nb.exports.writer import Export, beside
from kling_nb.notebook.order import Order, named
from kling_nb.notebook.shown import Shown, answer, verbatim
from kling_nb.notebook.values import read_count, read_tag, shown, wrong
from kling_nb.views.words import there_are

__all__ = ["export_line"]

_MAX_PLAN_BYTES = 64 * 1024 * 1024
_LISTED = 10
_NAMED = 3


def export_line(order: Order) -> Shown:
    """Lay clips out: of the runs that are named, else of the whole ledger."""
    if not order.words:
        raise wrong("`%kling export` needs a layout.", f"There are {', '.join(LAYOUTS)}, crate and methods.")
    layout, *rest = order.words
    runs = named(Order(session=order.session, names=order.names, words=rest)) if rest else None
    if layout == "methods":
        text = describe_methods(runs, session=order.session)
        return verbatim(text, text)
    flags = order.flags
    base = order.session.surroundings().folder or Path.cwd()
    folder = base / Path(flags.get("--to") or f"export-{layout}").expanduser()
    count = read_count("--samples", flags["--samples"], low=1, high=1000) if "--samples" in flags else None
    made = export(
        runs,
        folder,
        layout=layout,
        plan=_read_plan(order, flags["--plan"]) if "--plan" in flags else None,
        samples=count,
        split=flags.get("--split"),
        by=flags.get("--by", "model"),
        methods="--methods" in flags,
        allow_sandbox="--allow-sandbox" in flags,
        provider=flags.get("--provider"),
        model=flags.get("--model"),
        tags=read_tag(flags["--tag"]) if "--tag" in flags else None,
        licence=flags.get("--licence", "not stated"),
        session=order.session,
    )
    lines = _words(made, base)
    if "--methods" in flags:
        lines.append(f"What a paper needs of them is in `{_near(beside(folder, METHODS), base)}`.")
    return answer(lines, value=_data(made))


def _near(path: Path, base: Path) -> str:
    """Give a path as it is said from where the notebook is."""
    return one_line((path.relative_to(base) if path.is_relative_to(base) else path).as_posix())


def _words(made: Export, base: Path) -> list[str]:
    voted = "" if made.votes is None else f"{_count(made.votes, 'vote')} on "
    where = f"`{_near(made.folder, base)}`; the store is as it was."
    lines = [f"{voted}{_count(len(made.placed), 'clip')} as {made.layout} in {where}"]
    if made.left_out:
        lines.append(f"{len(made.left_out)} runs were left out: the layout asks for none of them.")
    if made.drawn:
        word = "was" if len(made.drawn) == 1 else "were"
        lines.append(
            f"{_count(len(made.drawn), 'run')} of the sandbox {word} left out: no model made a clip there. "
            "`--allow-sandbox` takes them along."
        )
    if made.strangers:
        lines.append(
            f"{there_are(len(made.strangers), 'file in it', 'files in it')} not of this export, and a tool "
            "may read them: "
            f"{', '.join(f'`{one_line(name)}`' for name in made.strangers[:_NAMED])}"
            + (" ..." if len(made.strangers) > _NAMED else ".")
        )
    if made.missing:
        count, what = len(made.missing), "clip" if made.votes is None else "vote"
        asked = "that the layout asks for"
        gone = [f"{there_are(count, f'{what} {asked}', f'{what}s {asked}')} missing:"]
        gone += [f"{one_line(one.file)}: {one.why}" for one in made.missing[:_LISTED]]
        gone += (
            [f"and {count - _LISTED} more: see `{_near(beside(made.folder, 'export.json'), base)}`."]
            if count > _LISTED
            else []
        )
        return gone + lines
    return lines


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"


def _data(made: Export) -> dict[str, Any]:
    return {
        "layout": made.layout,
        "folder": str(made.folder),
        "clips": {one.file: one.sample.record.id for one in made.placed},
        "missing": {gone.file: gone.why for gone in made.missing},
        "left_out": list(made.left_out),
        "strangers": list(made.strangers),
        "drawn": list(made.drawn),
    }


def _read_plan(order: Order, name: str) -> list[Mapping[str, Any] | str]:
    """Read a suite's list: JSON, JSON lines, or a prompt a line."""
    path = (order.session.surroundings().folder or Path.cwd()) / Path(name).expanduser()
    try:
        if path.stat().st_size > _MAX_PLAN_BYTES:
            raise wrong(f"The plan {shown(name)} is larger than 64 MB.", "Give the suite's own list.")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise wrong(
            f"The plan {shown(name)} cannot be read: {why}.", "Name a file beside the notebook."
        ) from None
    # Not `splitlines`: a prompt may hold one of Unicode's other line ends.
    lines = [line for line in text.split("\n") if line.strip()]
    try:
        if path.suffix == ".json":
            listed = json.loads(text)
        else:
            listed = [json.loads(line) for line in lines] if path.suffix == ".jsonl" else lines
    except ValueError:
        raise wrong(f"The plan {shown(name)} is no readable JSON.", "Nothing was written.") from None
    if not isinstance(listed, list) or not all(isinstance(row, dict | str) for row in listed):
        raise wrong(f"The plan {shown(name)} is no list of prompts or rows.", "Nothing was written.")
    return listed
