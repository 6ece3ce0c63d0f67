"""The contact sheet as it is saved: a still, the state and the cost of each run, with a link to its clip.

Invariants: one piece of HTML, complete without scripts, style sheets or trust; below half a megabyte, however
many runs there are; a run without a clip has its state in words where the still would be.
"""

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from kling_nb.views.html import DOT, FONT, Html, join, link, prose, safe_url, tag
from kling_nb.views.tables import text_table
from kling_nb.views.words import counted, plain, short

__all__ = ["MOST", "NOT_SENT", "STILLS_BYTES", "Tile", "framed", "sheet", "sheet_text", "smaller"]

#: So many tiles a saved sheet has at most; the live one and `%kling list` have the rest.
MOST = 200
STILLS_BYTES = 240_000
_PROMPT = 90
_WIDE = 168
_BOX = (
    "display:flex;align-items:center;justify-content:center;text-align:center;overflow:hidden;"
    "border-radius:6px;background:#14171b;color:#fff"
)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One run of the sheet, in words.

    Args:
        id: Ours.
        name: The variable that holds it, if any.
        state: e.g. `Done` or `Failed: moderated`.
        cost: e.g. `$0.56` or `unknown`.
        seconds: Ordered.
        asked: What was asked for beside the prompt, as `ask_words` gives it.
        prompt: One line.
        src: The clip's address as the notebook reaches it, or None.
        poster: A small JPEG as a data address, or None.
        file: Its name, for the plain text.
    """

    id: str
    name: str | None = None
    state: str
    cost: str
    seconds: int
    asked: tuple[str, ...] = ()
    prompt: str
    src: str | None = None
    poster: str | None = None
    file: str = ""


#: Stands where there is no run yet.
NOT_SENT = Tile(id="", state="Not sent", cost="", seconds=0, prompt="")


def sheet(tiles: Sequence[Tile], *, note: str = "") -> Html:
    """Draw the sheet.

    Args:
        tiles: In order; those beyond `MOST` are counted and left out.
        note: What stands beside the count, e.g. when it was looked at.

    Returns:
        One element.

    Example:
        >>> "no runs" in sheet([])
        True
    """
    if not tiles:
        return tag("div", "no runs", style=FONT)
    shown = tiles[:MOST]
    each = min(6_200, STILLS_BYTES // len(shown))
    head = [tag("b", counted(len(tiles), "run")), ", ".join(_counts(tiles)), *([note] if note else [])]
    parts = [tag("div", join(head, DOT), style="margin-bottom:8px")]
    alike, same_prompt = _alike(tiles)
    if common := [*([short(tiles[0].prompt, _PROMPT)] if same_prompt else []), *alike]:
        parts.append(tag("div", tag("b", join(common, DOT)), dir="auto", style="margin-bottom:8px"))
    look = "display:flex;flex-wrap:wrap;align-items:flex-start;gap:12px"
    if len({tile.state for tile in tiles}) == 1 < len(tiles):
        alike.append(tiles[0].state)  # which the head says
    drawn = [_tile(tile, each, frozenset(alike), same_prompt=same_prompt) for tile in shown]
    parts.append(tag("div", *drawn, style=look))
    if len(tiles) > MOST:
        parts.append(tag("div", prose(_left_out(tiles)), style="margin-top:8px"))
    return tag("div", *parts, style=f"{FONT};overflow-wrap:break-word")


def sheet_text(tiles: Sequence[Tile]) -> str:
    """Write the same as plain text, a line a run."""
    if not tiles:
        return "no runs"
    rows = [
        [
            tile.id,
            tile.name or "",
            tile.state,
            tile.cost,
            f"{tile.seconds} s",
            short(tile.prompt, 48),
            tile.file,
        ]
        for tile in tiles[:MOST]
    ]
    heads = ["run", "name", "state", "cost", "length", "prompt", "file"]
    text = f"{counted(len(tiles), 'run')}: {', '.join(_counts(tiles))}\n"
    text += text_table(heads, rows, align="lllrrll")
    return f"{text}\n{plain(_left_out(tiles)).replace('`', '')}" if len(tiles) > MOST else text


def _left_out(tiles: Sequence[Tile]) -> str:
    return f"{len(tiles) - MOST} more are not on this sheet: `%kling list --all` has them."


def _counts(tiles: Sequence[Tile]) -> list[str]:
    return [f"{count} {word.lower()}" for word, count in Counter(tile.state for tile in tiles).items()]


def _alike(tiles: Sequence[Tile]) -> tuple[list[str], bool]:
    """Give what was asked for all of several runs alike, and whether the prompt was."""
    first, others = tiles[0], tiles[1:]
    alike = [word for word in first.asked if all(word in other.asked for other in others)]
    return (alike, all(other.prompt == first.prompt for other in others)) if others else ([], False)


def framed(tile: Tile, each: int, wide: int = _WIDE) -> Html:
    """Draw the still of a run, which leads to its clip.

    Args:
        tile: The run.
        each: Letters that the still may take.
        wide: Pixels across.
    """
    still = safe_url(smaller(tile.poster, each), data="image") if tile.poster else None
    # What there is to say stands where the still would be, so that a failure is not an empty place.
    held: object = tile.state if tile.src is None else "no still"
    if still is not None:
        fit = "max-width:100%;height:100%;margin:0"
        held = tag("img", src=still, alt=f"Still of run {tile.id}", style=fit)
    # One frame for every shape, so that the rows stay rows; the sanitizer drops `aspect-ratio`. As few styles
    # as may be: a page of JupyterLab reads each of them whenever it looks for headings.
    return link(tag("div", held, style=f"width:{wide}px;height:{wide * 9 // 16}px;{_BOX}"), tile.src)


def _tile(tile: Tile, each: int, alike: frozenset[str], *, same_prompt: bool) -> Html:
    own = [word for word in tile.asked if word not in alike]
    names = [tile.name, tile.id] if tile.name else [tile.id]
    title = ", ".join(own) or names[0] if same_prompt else short(tile.prompt, _PROMPT)
    state = [] if tile.state in alike else [tile.state]
    caption = [*([] if same_prompt else own), *state, tile.cost, *names]
    return tag(
        "div",
        framed(tile, each),
        tag("div", tag("b", title), dir="auto", style="margin-top:4px"),
        tag("div", join(caption, DOT), style="opacity:0.75;font-size:12px"),
        style=f"width:{_WIDE}px",
    )


@lru_cache(maxsize=2 * MOST)
def smaller(poster: str, most: int) -> str | None:
    """Shrink a still until its address has so many letters at most.

    Args:
        poster: A `data:image/jpeg` address of ours.
        most: Letters.

    Returns:
        The address of a smaller picture, the same where it is small enough, or None where none is.

    Example:
        >>> smaller("data:image/jpeg;base64,AAAA", 100)
        'data:image/jpeg;base64,AAAA'
    """
    if len(poster) <= most:
        return poster
    from PIL import Image

    head, _, data = poster.partition(",")
    try:
        with Image.open(io.BytesIO(base64.b64decode(data)), formats=["JPEG"]) as picture:
            for side, quality in ((200, 60), (168, 50), (140, 40), (112, 30), (88, 25)):
                small = picture.convert("RGB")
                small.thumbnail((side, side))
                buffer = io.BytesIO()
                small.save(buffer, "JPEG", quality=quality, optimize=True)
                shrunk = f"{head},{base64.b64encode(buffer.getvalue()).decode()}"
                if len(shrunk) <= most:
                    return shrunk
    except (OSError, ValueError):
        return None
    return None
