"""`%kling export page`: a notebook as one HTML page.

Invariants: nothing is bought, and the notebook and its clips stay as they are; what is not in the page is
told first.
"""

from pathlib import Path
from typing import Any

from kling_nb.errors import KlingError, one_line
from kling_nb.exports.page import Page, write_page
from kling_nb.notebook.order import Order
from kling_nb.notebook.shown import Shown, answer
from kling_nb.notebook.values import read_number, shown, wrong
from kling_nb.records.privacy import is_veiled
from kling_nb.records.saved_notebook import read_receipts
from kling_nb.views.words import size_words, there_are

__all__ = ["PAGE_FLAGS", "page_line"]

#: Flags of `%kling export page`, and of no other layout.
PAGE_FLAGS = ("--embed", "-o", "--out", "--max-mb")
_MB = 1_000_000


def page_line(order: Order) -> Shown:
    """Write a notebook as one page: the one that is named, else this one as it was saved."""
    names = order.words[1:]
    foreign = [flag for flag in order.flags if flag not in PAGE_FLAGS]
    if foreign:
        raise wrong(
            f"`%kling export page` has no flag {shown(foreign[0])}.", f"It has {', '.join(PAGE_FLAGS)}."
        )
    if len(names) > 1:
        raise wrong("`%kling export page` takes one notebook.", "Put a name with spaces in quotes.")
    where = order.session.surroundings()
    folder = where.folder or Path.cwd()
    notebook = folder / Path(names[0]).expanduser() if names else where.notebook
    if notebook is None:
        raise wrong(
            "Nobody says which notebook this is.", "Name it: `%kling export page NOTEBOOK.ipynb --embed`."
        )
    out = order.flags.get("-o") or order.flags.get("--out")
    if out is None and not {"-o", "--out"}.isdisjoint(order.flags):
        raise wrong("-o needs the name of the page.", "`-o page.html`")
    page = write_page(
        notebook,
        folder / Path(out).expanduser() if out else None,
        embed="--embed" in order.flags,
        refuse=order.session.keys.refuse,
        private=_private(order, notebook),
        **({"most": _most(order.flags["--max-mb"])} if "--max-mb" in order.flags else {}),
    )
    return _shown(page)


def _most(value: str) -> int:
    return max(1, int(read_number("--max-mb", value, high=2000) * _MB))


def _private(order: Order, notebook: Path) -> list[str]:
    """Give the words of the notebook's private runs, as far as the ledger here knows them."""
    found = []
    for record in read_receipts(notebook)[0]:
        if record.private:
            try:
                known = order.session.ledger().get(record.id)
            except KlingError:
                known = None
            if known is not None and not is_veiled(known):
                request = known.request
                found += [request.prompt or "", *(shot.prompt for shot in request.shots or ())]
    return [words.strip() for words in found if words]


def _shown(page: Page) -> Shown:
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
    return answer([*lines, *([(heads, rows, "")] if rows else [])], value=_data(page))


def _data(page: Page) -> dict[str, Any]:
    return {
        "layout": "page",
        "page": str(page.path),
        "bytes": page.size,
        "clips": {clip.file: clip.state for clip in page.clips},
        "missing": {clip.file: clip.why for clip in page.clips if not clip.good},
        "notes": list(page.notes),
    }
