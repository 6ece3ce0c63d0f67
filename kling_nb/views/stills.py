"""A grid of stills as it is saved: prompts are its rows, settings, providers and takes its columns.

Invariants: as for a contact sheet, whose tiles it is made of: one piece of HTML of a bounded size, complete
without scripts, style sheets or trust; what has no room is counted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kling_nb.views.contact_sheet import STILLS_BYTES, Tile, framed
from kling_nb.views.html import FAINT, FONT, Html, prose, tag
from kling_nb.views.tables import text_table
from kling_nb.views.words import counted, plain, short

__all__ = ["Grid", "stills", "stills_text"]

#: More than these have no room for stills that show anything, and take a page long to draw.
_MOST = 100
_PROMPT = 90
_WIDE, _HEAD, _GAP = 150, 170, 14
_CELL = f"width:{_WIDE}px"
_ROW = f"display:flex;flex-wrap:wrap;align-items:flex-start;gap:8px {_GAP}px"


@dataclass(frozen=True)
class Grid:
    """What stands where.

    Args:
        heads: Of the columns.
        rows: The prompt of each, and what else is the same along it.
        cells: By row and column, a number that the caller knows the run by.

    Example:
        >>> Grid(("take 0",), (("A fox", ""),), {(0, 0): 7}).cells[0, 0]
        7
    """

    heads: tuple[str, ...]
    rows: tuple[tuple[str, str], ...]
    cells: Mapping[tuple[int, int], int]

    @property
    def shown(self) -> int:
        """How many rows are drawn; the others are counted."""
        return min(len(self.rows), max(1, _MOST // len(self.heads)))


def stills(grid: Grid, tile: Callable[[int], Tile], *, rest: str) -> Html:
    """Draw a grid of stills.

    Args:
        grid: What stands where.
        tile: Gives what is drawn for a number.
        rest: Where the rows are that do not fit.
    """
    each = min(6_200, STILLS_BYTES // (grid.shown * len(grid.heads)))
    rows = _sheet(grid, tile, each) if len(grid.heads) == 1 else _rows(grid, tile, each)
    left = [tag("div", prose(_left(grid, rest)), style=FAINT)] if grid.shown < len(grid.rows) else []
    return tag("div", *rows, *left, style=f"{FONT};overflow-wrap:break-word")


def _rows(grid: Grid, tile: Callable[[int], Tile], each: int) -> list[Html]:
    """Draw a row of stills for each prompt: all break at the same column, and below the prompt if need be."""
    rows, wide = [], len(grid.heads) * (_WIDE + _GAP) - _GAP
    for at in range(grid.shown):
        stills = [
            tag("div", tag("div", head, style=FAINT), _still(grid, at, column, tile, each), style=_CELL)
            for column, head in enumerate(grid.heads)
        ]
        prompt = tag("div", *_head(grid, at), style=f"flex:1 1 {_HEAD}px;max-width:{2 * _HEAD}px", dir="auto")
        beside = tag("div", *stills, style=f"{_ROW};flex:1 1 {wide}px")
        rows.append(tag("div", prompt, beside, style=f"{_ROW};margin:12px 0"))
    return rows


def _sheet(grid: Grid, tile: Callable[[int], Tile], each: int) -> list[Html]:
    """Draw a still above each prompt, where there is one a prompt."""
    cells = [
        tag("div", _still(grid, at, 0, tile, each), *_head(grid, at), style=_CELL, dir="auto")
        for at in range(grid.shown)
    ]
    return [tag("div", *cells, style=f"{_ROW};margin:12px 0")]


def _still(grid: Grid, at: int, column: int, tile: Callable[[int], Tile], each: int) -> Html:
    number = grid.cells.get((at, column))
    return Html() if number is None else framed(tile(number), each, _WIDE)


def stills_text(grid: Grid, tile: Callable[[int], Tile], *, rest: str) -> str:
    """Write the same for a terminal: the state of each in words."""
    rows = []
    for at, (prompt, words) in enumerate(grid.rows[: grid.shown]):
        numbers = [grid.cells.get((at, column)) for column in range(len(grid.heads))]
        states = ["" if number is None else tile(number).state for number in numbers]
        rows.append([short(prompt, 48), words, *states])
    heads = ["prompt", "", *grid.heads]
    if not any(words for _, words in grid.rows):
        heads, rows = [heads[0], *heads[2:]], [[row[0], *row[2:]] for row in rows]
    text = text_table(heads, rows)
    return f"{text}\n{plain(_left(grid, rest))}" if grid.shown < len(grid.rows) else text


def _head(grid: Grid, at: int) -> list[object]:
    prompt, words = grid.rows[at]
    same = at > 0 and grid.rows[at - 1][0] == prompt
    parts: list[object] = (
        [] if same else [tag("div", short(prompt, _PROMPT))] if words else [short(prompt, _PROMPT)]
    )
    return [*parts, tag("div", words, style=FAINT)] if words else parts


def _left(grid: Grid, rest: str) -> str:
    return f"{counted(len(grid.rows) - grid.shown, 'more row is', 'more rows are')} not shown: {rest}"
