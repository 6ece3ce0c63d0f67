"""`%kling export`: clips under the names another tool asks for.

Invariants: nothing is bought and nothing in the store changes; what is missing is told first.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kling_nb.commands.answer import Answer, answer, verbatim
from kling_nb.commands.order import CommandCall, named
from kling_nb.commands.syntax.values import read_count, read_number, read_tag, shown, wrong
from kling_nb.errors import KlingError, one_line
from kling_nb.exports.export import METHODS, describe_methods, export
from kling_nb.exports.layouts import LAYOUTS
from kling_nb.exports.page import Page, write_page
from kling_nb.exports.writer import Export, beside
from kling_nb.records.privacy import is_redacted
from kling_nb.records.saved_notebook import read_receipts
from kling_nb.views.words import counted, size_words, there_are

__all__ = ["PAGE_FLAGS", "export_line", "page_line"]

_MAX_PLAN_BYTES = 64 * 1024 * 1024
_LISTED = 10
_NAMED = 3


def export_line(call: CommandCall) -> Answer:
    """Lay clips out: of the runs that are named, else of the whole ledger."""
    if not call.words:
        raise wrong("`%kling export` needs a layout.", f"There are {', '.join(LAYOUTS)}, crate and methods.")
    layout, *rest = call.words
    runs = named(CommandCall(session=call.session, names=call.names, words=rest)) if rest else None
    if layout == "methods":
        text = describe_methods(runs, session=call.session)
        return verbatim(text, text)
    flags = call.flags
    base, folder = call.folder, call.file(flags.get("--to") or f"export-{layout}")
    count = read_count("--samples", flags["--samples"], low=1, high=1000) if "--samples" in flags else None
    made = export(
        runs,
        folder,
        layout=layout,
        plan=_read_plan(call, flags["--plan"]) if "--plan" in flags else None,
        samples=count,
        split=flags.get("--split"),
        by=flags.get("--by", "model"),
        methods="--methods" in flags,
        allow_sandbox="--allow-sandbox" in flags,
        provider=flags.get("--provider"),
        model=flags.get("--model"),
        tags=read_tag(flags["--tag"]) if "--tag" in flags else None,
        licence=flags.get("--licence", "not stated"),
        session=call.session,
    )
    lines = _words(made, base)
    if "--methods" in flags:
        lines.append(f"What a paper needs of them is in `{_near(beside(folder, METHODS), base)}`.")
    return answer(lines, value=_data(made))


def _near(path: Path, base: Path) -> str:
    """Give a path as it is said from where the notebook is."""
    return one_line((path.relative_to(base) if path.is_relative_to(base) else path).as_posix())


def _words(made: Export, base: Path) -> list[str]:
    voted = "" if made.votes is None else f"{counted(made.votes, 'vote')} on "
    where = f"`{_near(made.folder, base)}`; the media folder is unchanged."
    lines = [f"{voted}{counted(len(made.placed), 'clip')} as {made.layout} in {where}"]
    if made.left_out:
        lines.append(f"{counted(len(made.left_out), 'run')} left out: the layout does not ask for them.")
    if made.drawn:
        word = "was" if len(made.drawn) == 1 else "were"
        lines.append(
            f"{counted(len(made.drawn), 'run')} of the sandbox {word} left out: no model made a clip there. "
            "`--allow-sandbox` takes them along."
        )
    if made.foreign_files:
        lines.append(
            f"{there_are(len(made.foreign_files), 'file in it', 'files in it')} not of this export, "
            "and a tool may read them: "
            f"{', '.join(f'`{one_line(name)}`' for name in made.foreign_files[:_NAMED])}"
            + (" ..." if len(made.foreign_files) > _NAMED else ".")
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


def _data(made: Export) -> dict[str, Any]:
    return {
        "layout": made.layout,
        "folder": str(made.folder),
        **made.listed,
        "drawn": list(made.drawn),
    }


def _read_plan(call: CommandCall, name: str) -> list[Mapping[str, Any] | str]:
    """Read a suite's list: JSON, JSON lines, or a prompt a line."""
    path = call.file(name)
    try:
        if path.stat().st_size > _MAX_PLAN_BYTES:
            raise wrong(f"The plan {shown(name)} is larger than 64 MB.", "Give the suite's own list.")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
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
        raise wrong(f"The plan {shown(name)} is not readable JSON.", "Nothing was written.") from None
    if not isinstance(listed, list) or not all(isinstance(row, dict | str) for row in listed):
        raise wrong(f"The plan {shown(name)} is not a list of prompts or rows.", "Nothing was written.")
    return listed


#: Flags of `%kling export page`, and of no other layout.
PAGE_FLAGS = ("--embed", "-o", "--out", "--max-mb")
_MB = 1_000_000


def page_line(call: CommandCall) -> Answer:
    """Write a notebook as one page: the one that is named, else this one as it was saved."""
    foreign = [flag for flag in call.flags if flag not in PAGE_FLAGS]
    if foreign:
        raise wrong(
            f"`%kling export page` has no flag {shown(foreign[0])}.", f"It has {', '.join(PAGE_FLAGS)}."
        )
    notebook = replace(call, words=call.words[1:]).notebook("%kling export page")
    out = call.flags.get("-o") or call.flags.get("--out")
    if out is None and not {"-o", "--out"}.isdisjoint(call.flags):
        raise wrong("-o needs the name of the page.", "`-o page.html`")
    page = write_page(
        notebook,
        call.file(out) if out else None,
        embed="--embed" in call.flags,
        refuse=call.session.keys.refuse,
        private=_private(call, notebook),
        **({"most": _most(call.flags["--max-mb"])} if "--max-mb" in call.flags else {}),
    )
    return _page_answer(page)


def _most(value: str) -> int:
    return max(1, int(read_number("--max-mb", value, high=2000) * _MB))


def _private(call: CommandCall, notebook: Path) -> list[str]:
    """Give the words of the notebook's private runs, as far as the ledger here knows them."""
    found = []
    for record in read_receipts(notebook)[0]:
        if record.private:
            try:
                known = call.session.ledger().get(record.id)
            except KlingError:
                known = None
            if known is not None and not is_redacted(known):
                request = known.request
                found += [request.prompt or "", *(shot.prompt for shot in request.shots or ())]
    return [words.strip() for words in found if words]


def _page_answer(page: Page) -> Answer:
    bad = [clip for clip in page.clips if not clip.good]
    inside = [clip for clip in page.clips if clip.state == "inside"]
    name = one_line(page.path.name)
    lines = [f"**{len(bad)}** of {len(page.clips)} clips are not in it."] if bad else []
    lines.append(f"`{name}` was written: {size_words(page.size)}.")
    linked = len(page.clips) - len(inside) - len(bad)
    if inside:
        held = size_words(sum(clip.size for clip in inside))
        lines.append(f"{there_are(len(inside), 'clip')} inside, {held}.")
    if linked:
        lines.append(
            f"{there_are(linked, 'clip')} linked: keep the page where it is, or make it with `--embed`."
        )
    elif inside and not bad:
        lines.append("It plays with nothing beside it.")
    lines += page.notes
    heads = ["clip", "size", "state", ""]
    rows = [
        [clip.file, size_words(clip.size) if clip.size else "", clip.state, clip.why]
        for clip in sorted(page.clips, key=lambda clip: clip.good)
    ]
    return answer([*lines, *([(heads, rows, "")] if rows else [])], value=_page_data(page))


def _page_data(page: Page) -> dict[str, Any]:
    return {
        "layout": "page",
        "page": str(page.path),
        "bytes": page.size,
        "clips": {clip.file: clip.state for clip in page.clips},
        "missing": {clip.file: clip.why for clip in page.clips if not clip.good},
        "notes": list(page.notes),
    }
