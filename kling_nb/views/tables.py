"""Safe HTML, built by pure functions: escaping, small building blocks, tables and notices.

Invariants: whatever is not already `Html` is escaped; an address is http(s), relative or a picture or
clip as data, or it is left out; only tags, attributes and inline styles are used that JupyterLab's
sanitizer keeps in a notebook it does not trust; no text colour of our own except white on a pill, so
that light and dark themes both read well; no ids, classes, scripts or style sheets; no text that
MathJax would take for TeX.
"""

import csv
import html as stdlib_html
import io
import itertools
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence

from kling_nb import errors
from kling_nb.views.html import FONT, PILL, Html, join, prose, tag

__all__ = ["Part", "csv_text", "cut", "filled", "page_of", "table", "text_of", "text_table"]

_TAGS = re.compile(r"<[^>]*>")
_SIDES = {"l": "left", "r": "right", "c": "center", "w": "left", "e": "left", "m": "left", "g": "left"}
#: A column is not made narrower than this where a terminal is.
_LEAST = 8
#: Letters of an elastic column: as many where there is room for all, and no fewer as long as columns can go.
_ELASTIC, _ELASTIC_LEAST = 40, 16
#: Letters of a file's name on a page.
_NAME = 24
#: Pixels of a column: of a letter of a wide font, of a drawing, and the least of prompts and of sentences.
_PX, _DRAWN, _LEAST_PX = 8, 140, {"e": 120, "g": 160, "w": 160}
#: Letters that need more than the others do, and by how many pixels.
_WIDE, _WIDER_PX = re.compile("[mMW@%…]"), 5
#: Of both rims of a mark.
_PILL_PX = 20
#: Columns for which there is no room go into a second line of their row, which is not seen where it may go.
_LINE = "background:#0000;padding:0;display:flex;flex-wrap:wrap;gap:0 14px;overflow:hidden"
_GONE = ";height:26px"


def table(
    headers: Sequence[str], rows: Sequence[Sequence[object]], *, align: str = "", caption: str = ""
) -> Html:
    """Draw a quiet table.

    Args:
        headers: Column heads.
        rows: Cells; what is not `Html` is escaped.
        align: One letter a column, `l`, `r`, `c`, `w`, `e`, `m` or `g`; left where it is too short. Only a
            `w` column, which holds sentences, breaks its lines. An `e` or `g` column takes the room that
            others leave, and is cut at its end; an `m` column holds names of files, cut in the middle.
        caption: A line above it.

    Returns:
        The table. Where the page is narrow, its last columns stand below the others; in a table with an `e`
        or a `g` column they go, so that its rows stay one line high.

    Example:
        >>> table(["run", "cost"], [["kl7m2q", "$0.56"]], align="lr").count("<td")
        2
    """
    letters = align.ljust(len(headers), "l")
    cells = _looks(headers, rows, letters)
    line = f"{_LINE}{_GONE if {'e', 'g'} & set(letters) else ''}"
    head = [
        tag("th", text, style=f"{look};font-weight:600;opacity:0.7")
        for text, look in zip(headers, cells, strict=True)
    ]
    body = [
        tag(
            "tr",
            *(
                tag("td", _whole(text, letter), style=look, dir="auto" if letter in "eg" else None)
                for text, look, letter in zip(row, cells, letters, strict=True)
            ),
            style=f"{line};border-top:1px solid rgba(128,128,128,0.18)",
        )
        for row in rows
    ]
    whole = tag(
        "table",
        tag("thead", tag("tr", *head, style=line), style="border:0"),
        tag("tbody", *body),
        style=f"border-collapse:collapse;margin:0;border:0;table-layout:fixed;width:100%;{FONT}",
    )
    above = tag("div", caption, style=f"margin-bottom:4px;{FONT};font-weight:600") if caption else ""
    return tag("div", above, whole, style="margin:6px 0")


def _looks(headers: Sequence[str], rows: Sequence[Sequence[object]], letters: str) -> list[str]:
    """Give each column a width, so that all rows break at the same one."""
    looks = []
    for at, (letter, *cells) in enumerate(zip(letters, headers, *rows, strict=True), 1):
        texts = [cut(text, _NAME) if letter == "m" else text for text in map(_plain, cells)]
        # Where there are no words, a drawing.
        width = max(map(_pixels, texts)) or _DRAWN
        width += max(_PILL_PX * str(cell).startswith(PILL) for cell in cells)
        flex, space = f"0 0 {width}px;min-width:0", "pre-wrap" if letter == "w" else "nowrap"
        if letter in _LEAST_PX:
            # Wide letters need more than this; behind the last column there is nothing to keep near.
            most_px = f";max-width:{width}px" if at < len(letters) else ""
            flex = f"1 0 {min(width, _LEAST_PX[letter])}px{most_px}"
        if letter in "eg":
            flex += ";overflow:hidden;text-overflow:ellipsis"
        looks.append(f"text-align:{_SIDES[letter]};padding:3px 0;white-space:{space};flex:{flex}")
    return looks


def _whole(text: object, letter: str) -> object:
    """Keep what may be cut where it can be read."""
    if letter == "g" and len(words := _plain(text)) > _ELASTIC:
        return tag("span", text, title=words)
    return _named(text) if letter == "m" else text


def _named(name: object) -> Html:
    short = cut(str(name), _NAME)
    return tag("span", tag("bdi", short), title=str(name)) if short != name else tag("bdi", short)


def text_table(
    headers: Sequence[str], rows: Sequence[Sequence[object]], *, align: str = "", width: int | None = None
) -> str:
    """Write the same table as plain text in aligned columns.

    Args:
        headers: Column heads.
        rows: Cells; of `Html` only the text is kept.
        align: As for `table`; a `g` column is broken as a `w` column is.
        width: Columns of the terminal: sentences are broken, and other cells cut, until the table fits; where
            that is not enough, the last columns go. Those behind an elastic column go first.

    Returns:
        Lines without white space at their ends.

    Example:
        >>> print(text_table(["run", "cost"], [["kl7m2q", "$0.56"]], align="lr"))
        run      cost
        kl7m2q  $0.56
    """
    table = [[_plain(cell) for cell in row] for row in [headers, *rows]]
    sides = align.ljust(len(headers), "l").replace("g", "w")
    widths = [max(map(_columns, column)) for column in zip(*table, strict=True)]
    if (elastic := sides.find("e")) >= 0:
        most, least = min(widths[elastic], _ELASTIC), min(widths[elastic], _ELASTIC_LEAST)
        widths[elastic] = most
        while width is not None and elastic + 1 < len(widths) and _across(widths) - most + least > width:
            widths.pop()
    if width is not None:
        shrunk = [
            most if side == "r" else min(most, _LEAST) for most, side in zip(widths, sides, strict=False)
        ]
        while len(widths) > 1 and _across(shrunk[: len(widths)]) > width:
            widths.pop()
    table, sides = [row[: len(widths)] for row in table], sides[: len(widths)]
    if width is not None:
        _shrink(widths, sides, width - _across(widths) + sum(widths))
    if width is not None or elastic >= 0:
        table = [line for row in table for line in _fitted(row, widths, sides)]
    return "\n".join(
        "  ".join(
            " " * (room - _columns(cell)) + cell if side == "r" else cell + " " * (room - _columns(cell))
            for cell, room, side in zip(line, widths, sides, strict=True)
        ).rstrip()
        for line in table
    )


def _across(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def _shrink(widths: list[int], sides: str, room: int) -> None:
    """Take from the widest column, from sentences first, until all fit or are as narrow as may be."""
    while sum(widths) > room:
        may = [n for n, width in enumerate(widths) if sides[n] != "r" and width > _LEAST]
        if not may:
            return
        wordy = [
            n
            for n in may
            if (sides[n] == "w" and widths[n] > 3 * _LEAST)
            or (sides[n] == "e" and widths[n] > _ELASTIC_LEAST)
        ]
        widths[max(wordy or may, key=widths.__getitem__)] -= 1


def _fitted(row: Sequence[str], widths: Sequence[int], sides: str) -> list[list[str]]:
    cells = [
        # A drawing has no words, and no width.
        (textwrap.wrap(cell, max(width, 1)) or [""])
        if side == "w"
        else [cut(cell, width, middle=side != "e")]
        for cell, width, side in zip(row, widths, sides, strict=True)
    ]
    return [list(line) for line in itertools.zip_longest(*cells, fillvalue="")]


def cut(cell: str, width: int, *, middle: bool = True) -> str:
    """Cut a cell that is too wide for a terminal.

    Args:
        cell: Its text, of one line.
        width: Columns that it may take; wide letters take two.
        middle: Whether in the middle, as both ends of a file's name tell it from others; else at its end.

    Example:
        >>> cut("a-long-name.mp4", 8)
        'a-lo…mp4'
    """
    if _columns(cell) <= width:
        return cell
    kept = len(cell) - 1
    while True:
        tail = kept // 2 if middle else 0
        short = f"{cell[: kept - tail]}…{cell[len(cell) - tail :]}"
        if _columns(short) <= width:
            return short
        kept -= 1


Part = str | tuple[Sequence[str], Sequence[Sequence[object]], str]


def filled(
    headers: Sequence[str], rows: Sequence[Sequence[object]], align: str, *may_go: str
) -> tuple[list[str], list[list[object]], str]:
    """Leave out columns that say nothing, which only take room.

    Args:
        headers: Column heads.
        rows: Cells.
        align: One letter a column.
        *may_go: The heads of columns that are left out where they are empty.

    Example:
        >>> filled(["run", "name"], [["kl7m2q", ""]], "ll", "name")
        (['run'], [['kl7m2q']], 'l')
    """
    at = [n for n, head in enumerate(headers) if head not in may_go or any(row[n] for row in rows)]
    return [headers[n] for n in at], [[row[n] for n in at] for row in rows], "".join(align[n] for n in at)


def page_of(parts: Iterable[Part]) -> Html:
    """Render sentences and tables as HTML.

    Example:
        >>> page_of(["It is **free**."])
        '<div>It is <b>free</b>.</div>'
    """
    return join(
        [tag("div", prose(p)) if isinstance(p, str) else table(p[0], p[1], align=p[2]) for p in parts if p]
    )


def text_of(parts: Iterable[Part], width: int | None = None) -> str:
    """Render the same as plain text, without marks.

    Args:
        parts: Sentences and tables.
        width: Columns of the terminal; None where lines may be of any length.

    Example:
        >>> text_of(["It is **free**."])
        'It is free.'
    """
    return "\n".join(
        _prose(p, width) if isinstance(p, str) else text_table(p[0], p[1], align=p[2], width=width)
        for p in parts
    )


def _prose(text: str, width: int | None) -> str:
    text = text.replace("**", "").replace("`", "")
    return text if width is None else textwrap.fill(text, width)


def _plain(cell: object) -> str:
    text = stdlib_html.unescape(_TAGS.sub("", cell)) if isinstance(cell, Html) else str(cell)
    return errors.one_line(text)


def _columns(text: str) -> int:
    """Count terminal columns: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def _pixels(text: str) -> int:
    return _PX * _columns(text) + _WIDER_PX * len(_WIDE.findall(text))


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    r"""Write a table as CSV, a row a line.

    Args:
        rows: The first one has the names of the columns.

    Returns:
        The text, exact: formulas of a spreadsheet are texts like others.

    Example:
        >>> csv_text([["file", "prompt"], ["a.mp4", "A fox, \r at dawn"]])
        'file,prompt\na.mp4,"A fox, \r at dawn"\n'
    """
    page = io.StringIO()
    # With this end a lone CR is quoted, too, which Python 3.12 and older would leave bare.
    writer = csv.writer(page, lineterminator="\r\n")
    lines = []
    for row in rows:
        page.seek(0)
        page.truncate()
        writer.writerow(row)
        lines.append(page.getvalue().removesuffix("\r\n"))
    return "".join(f"{line}\n" for line in lines)
