"""Letters: which font of this machine has one, how words break into lines, and how a line is drawn.

Invariants:
    * Latin text needs no font of the machine: its picture is the same everywhere.
    * A letter that no font here has, or that nobody here can shape, is left out; a box is never drawn.
    * Any Unicode text is drawn without an exception.
"""

from __future__ import annotations

import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unicodedata import bidirectional, category, east_asian_width

from PIL import ImageFont, features

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import ImageDraw

#: Fonts that are looked for, the more pleasant first, and at last the one that has nearly everything.
_WANTED: Final = (
    r"DejaVuSans\.ttf",
    r"NotoSans-Regular\.\w+",
    r"NotoSansCJK\w*-Regular\.\w+",
    r"NotoSans\w+-Regular\.\w+",
    r"(FreeSans|Lohit-\w+|DroidSansFallback\w*|wqy-\w+)\.\w+",
    r"(Symbola\w*|NotoEmoji-Regular)\.\w+",
    r"unifont(_upper)?\.\w+",
)
#: No font has a glyph for it, so it is drawn as what a font draws for the glyphs that it lacks.
_NOBODYS: Final = "\U0010fffe"
#: What joins letters, or keeps them apart, and is seen only in their shapes.
_JOINERS: Final = "\u200c\u200d"
#: Whether letters can be shaped that join, or change their order.
_SHAPES: Final = features.check("raqm")
#: Typographic marks that people paste and the built-in font lacks, and what to draw for them.
_PLAIN: Final = str.maketrans(
    {0x2014: " - ", 0x2013: "-", 0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0x2026: "..."}
)


def clean(text: str) -> str:
    r"""Text that a font can be asked to draw: one line, no control characters, no lone surrogates.

    Args:
        text: Anything a prompt can hold, of any length.

    Returns:
        The words parted by single blanks.

    Example:
        >>> clean("a\nfox\ud800")
        'a fox?'
    """
    whole = text.translate(_PLAIN).encode("utf-8", "replace").decode("utf-8")
    seen = (c if c.isprintable() or c in _JOINERS else " " for c in whole if not "\ufe00" <= c <= "\ufe0f")
    return " ".join("".join(seen).split())


class Letters:
    """The letters of one size.

    Args:
        points: The size.

    Example:
        >>> Letters(20).wrap("one two", 1000)
        ['one two']
    """

    def __init__(self, points: int) -> None:
        self._points = points

    def length(self, text: str) -> float:
        """Pixels that a text takes."""
        return sum(_font(face, self._points).getlength(part) for face, part in _spans(text))

    def wrap(self, text: str, width: int, limit: int = 9) -> list[str]:
        """Break text into lines that fit, cutting words that are wider than a line.

        Args:
            text: Cleaned text; what nobody here can draw is left out.
            width: Pixels a line may take.
            limit: Most lines; text beyond them ends in an ellipsis.

        Returns:
            At least one line.
        """
        lines, line = [], ""
        for word in "".join(part for _, part in _spans(text)).split():
            longer = f"{line} {word}" if line else word
            if self.length(longer) <= width:
                line = longer
                continue
            if line:
                lines.append(line)
            line = word
            while len(lines) <= limit and self.length(line) > width and len(line) > 1:
                cut = self._fitting(line, width)
                lines.append(line[:cut])
                line = line[cut:]
            if len(lines) > limit:
                break
        lines.append(line)
        if len(lines) > limit:
            last = lines[limit - 1]
            while last and self.length(last + "...") > width:
                last = last[:-1]
            lines = [*lines[: limit - 1], last.rstrip() + "..."]
        return lines

    def _fitting(self, text: str, width: int) -> int:
        """How many leading characters fit, at least 1; by halving, since measuring is what costs."""
        fits, over = 1, len(text) + 1
        while over - fits > 1:
            middle = (fits + over) // 2
            if self.length(text[:middle]) <= width:
                fits = middle
            else:
                over = middle
        return fits

    def draw(self, pen: ImageDraw.ImageDraw, at: tuple[float, int], text: str, fill: Any) -> None:
        """Draw one line.

        Args:
            pen: Draws.
            at: Where it begins on the left, and the line that the letters stand on.
            text: A line as `wrap` made it.
            fill: Its colour.
        """
        left, base = at
        spans = list(_spans(text))
        for face, part in reversed(spans) if goes_left(text) else spans:
            font = _font(face, self._points)
            pen.text((left, base), part, font=font, fill=fill, anchor="ls")
            left += font.getlength(part)


def goes_left(text: str) -> bool:
    """Whether a text is of a script that begins on the right."""
    return next((kind for kind in map(bidirectional, text) if kind in {"L", "R", "AL"}), "L") != "L"


def _spans(text: str) -> Iterator[tuple[Path | None, str]]:
    """Part a text into stretches of one font each, without what no font has."""
    stretch, current = "", None
    for char in text:
        if char in _JOINERS and category(stretch[-1:] or " ")[0] not in "LM":
            continue  # between pictures, which are drawn one by one
        face: Path | str | None = _face(char)
        # Marks, blanks and digits stay with the letters before them, whose font shapes them.
        if not char.isalpha() and stretch and _has(current, char):
            face = current
        if isinstance(face, str):
            continue
        if face != current and stretch:
            yield current, stretch
            stretch = ""
        stretch, current = stretch + char, face
    if stretch:
        yield current, stretch


@cache
def _face(char: str) -> Path | str | None:
    """Find the font of a character: None for the built-in one, "" where there is none."""
    if _has(None, char):
        return None
    # Without the library that shapes them, letters that join or change their order would be drawn wrong.
    if category(char)[0] in "LM" and not (
        _SHAPES or category(char) in {"Lu", "Ll"} or east_asian_width(char) == "W"
    ):
        return ""
    return next((face for face in _faces() if _has(face, char)), "")


@cache
def _has(face: Path | None, char: str) -> bool:
    """Whether a font has a glyph, which it tells only by what it draws."""
    if char == " ":
        return True
    try:
        drawn, lacking = (bytes(_font(face, 16, plain=True).getmask(c)) for c in (char, _NOBODYS))
    except OSError:  # a font of pictures in one size only
        return False
    return drawn != lacking


@cache
def _font(face: Path | None, points: int, *, plain: bool = False) -> ImageFont.FreeTypeFont:
    engine = ImageFont.Layout.BASIC if plain else None
    if face is not None:
        return ImageFont.truetype(face, points, layout_engine=engine)
    font = ImageFont.load_default(points)
    if not isinstance(font, ImageFont.FreeTypeFont):  # Pillow without FreeType gives a bitmap font
        msg = "Pillow was built without FreeType: the sandbox cannot draw its text"
        raise RuntimeError(msg)  # noqa: TRY004 - the installation is at fault, not an argument's type
    return font


@cache
def _faces() -> list[Path]:
    """List the fonts of this machine that are of use, in the order of wish."""
    data = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    folders = [*(Path(folder) / "fonts" for folder in (home, *data.split(":"))), Path(sys.prefix) / "fonts"]
    found: dict[str, Path] = {}
    for folder in folders:
        for where, _, names in os.walk(folder):
            for name in names:
                found.setdefault(name, Path(where) / name)
    ranked = [
        (rank, name)
        for name in found
        for rank, wanted in enumerate(_WANTED)
        if re.fullmatch(wanted, name, re.IGNORECASE)
    ]
    return [found[name] for name in dict.fromkeys(name for _, name in sorted(ranked))]
