"""The picture: one `Stage` per shot draws every frame of it.

Invariants:
    * The word SANDBOX stands in every frame, so a stand-in clip can never pass for a bought one.
    * Text is laid out once per shot; a frame only moves a small light, a film strip and a clock, which is
      what keeps a clip far cheaper to make than to watch.
    * Any Unicode text is drawn without an exception; a glyph that the built-in font lacks becomes a box.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIZES: Final = {"16:9": (640, 360), "9:16": (360, 640), "1:1": (480, 480)}


"""Pixels of a clip by aspect ratio: small, even (4:2:0 chroma needs that) and exactly in proportion."""


_PALETTE: Final = (
    ((24, 44, 74), (66, 102, 138)),
    ((70, 36, 52), (150, 88, 84)),
    ((22, 60, 58), (78, 128, 108)),
    ((58, 44, 84), (118, 96, 150)),
    ((84, 58, 26), (168, 130, 74)),
    ((40, 46, 52), (104, 114, 122)),
)


"""Top and bottom colour of a shot. Neighbours differ in hue, so that a cut is seen at a glance."""


_INK: Final = (246, 243, 236)
_FADED: Final = (214, 214, 210)
_AMBER: Final = (255, 190, 70)
_NIGHT: Final = (14, 16, 20)
_MARGIN: Final = 24
_STRIP: Final = 16
_LINES_MAX: Final = 9
_TEXT_MAX: Final = 1200


"""Characters of a prompt that are looked at: more would not fit, and measuring them costs time."""


_PLAIN: Final = str.maketrans(
    {0x2014: " - ", 0x2013: "-", 0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0x2026: "..."}
)


"""Typographic marks that people paste and the built-in font lacks, and what to draw for them."""


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
    return " ".join("".join(c if c.isprintable() else " " for c in whole).split())


def wrap(text: str, font: ImageFont.FreeTypeFont, width: int, limit: int = _LINES_MAX) -> list[str]:
    """Break text into lines that fit, cutting words that are wider than a line.

    Args:
        text: Cleaned text.
        font: The font it will be drawn with.
        width: Pixels a line may take.
        limit: Most lines; text beyond them ends in an ellipsis.

    Returns:
        At least one line.

    Example:
        >>> wrap("one two", ImageFont.load_default(20), 1000)
        ['one two']
    """
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if font.getlength(longer) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        line = word
        while font.getlength(line) > width and len(line) > 1:
            cut = _fitting(line, font, width)
            lines.append(line[:cut])
            line = line[cut:]
            if len(lines) > limit:
                break
        if len(lines) > limit:
            break
    lines.append(line)
    if len(lines) > limit:
        last = lines[limit - 1]
        while last and font.getlength(last + "...") > width:
            last = last[:-1]
        lines = [*lines[: limit - 1], last.rstrip() + "..."]
    return lines


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: int) -> int:
    """How many leading characters fit, at least 1; by halving, since measuring is what costs."""
    fits, over = 1, len(text) + 1
    while over - fits > 1:
        middle = (fits + over) // 2
        if font.getlength(text[:middle]) <= width:
            fits = middle
        else:
            over = middle
    return fits


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):  # Pillow without FreeType gives a bitmap font
        msg = "Pillow was built without FreeType: the sandbox cannot draw its text"
        raise RuntimeError(msg)  # noqa: TRY004 - the installation is at fault, not an argument's type
    return font


@cache
def _light(size: int) -> Image.Image:
    """A soft round light as an alpha mask."""
    mask = Image.new("L", (size, size), 0)
    inset = size // 4
    ImageDraw.Draw(mask).ellipse((inset, inset, size - inset, size - inset), fill=96)
    return mask.filter(ImageFilter.GaussianBlur(size / 9))


def _gradient(
    size: tuple[int, int], colours: tuple[tuple[int, int, int], tuple[int, int, int]]
) -> Image.Image:
    column = Image.new("RGB", (1, 2))
    column.putpixel((0, 0), colours[0])
    column.putpixel((0, 1), colours[1])
    return column.resize(size, Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class Caption:
    """What is written on one shot."""

    text: str
    """The prompt of the shot."""
    number: int
    """1 for the first shot."""
    of: int
    """How many shots the clip has; 1 hides the label."""
    footer: str
    """A small line about the request, such as `3.0 pro  5 s  16:9`."""
    look: int = 0
    """Shifts the colours, so that takes of one request can be told apart."""


class Stage:
    """Draws the frames of one shot."""

    def __init__(self, size: tuple[int, int], caption: Caption) -> None:
        self.size = size
        width, height = size
        self._ground = _gradient(size, _PALETTE[(caption.number - 1 + caption.look) % len(_PALETTE)])
        self._words = Image.new("L", size, 0)
        self._letter(caption)
        self._base = self._ground.copy()
        self._base.paste(_INK, (0, 0, width, height), self._words)
        self._badge(caption)
        self._sprockets = self._strip(width + 2 * _STRIP)

    def frame(self, *, at_s: float, through: float) -> Image.Image:
        """One frame.

        Args:
            at_s: Seconds since the start of the clip, for the clock.
            through: 0..1, how much of the whole clip has passed, for the bar and the light.

        Returns:
            A new RGB image of the stage's size.
        """
        picture = self._base.copy()
        width, height = self.size
        self._shine(picture, through)
        shift = int(at_s * 2 * _STRIP) % (2 * _STRIP)
        window = self._sprockets.crop((shift, 0, shift + width, _STRIP))
        picture.paste(window, (0, 0))
        picture.paste(window, (0, height - _STRIP))
        pen = ImageDraw.Draw(picture)
        bar = height - _STRIP - 12
        left, right = _MARGIN, width - _MARGIN
        pen.rectangle((left, bar, right, bar + 3), fill=_NIGHT)
        pen.rectangle((left, bar, left + round((right - left) * through), bar + 3), fill=_AMBER)
        pen.text((right, bar - 8), f"{at_s:05.2f} s", font=_font(14), fill=_INK, anchor="rs")
        return picture

    def _shine(self, picture: Image.Image, through: float) -> None:
        """Move the light: drawn over the ground and under the words, in its own small box only."""
        width, height = self.size
        size = min(width, height) // 2
        left = round((width + size) * through) - size
        top = round(height * (0.45 - 0.25 * through)) - size // 3
        box = (max(left, 0), max(top, _STRIP), min(left + size, width), min(top + size, height - 3 * _STRIP))
        if box[2] <= box[0] or box[3] <= box[1]:
            return
        mask = _light(size).crop((box[0] - left, box[1] - top, box[2] - left, box[3] - top))
        patch = self._ground.crop(box)
        patch.paste(_AMBER, (0, 0, *patch.size), mask)
        patch.paste(_INK, (0, 0, *patch.size), self._words.crop(box))
        badge_bottom = _STRIP + 46
        if box[1] < badge_bottom:  # the badge is not part of the words: let the light pass below it
            patch = patch.crop((0, badge_bottom - box[1], *patch.size))
            box = (box[0], badge_bottom, box[2], box[3])
        if patch.height > 0:
            picture.paste(patch, box[:2])

    def _letter(self, caption: Caption) -> None:
        width, height = self.size
        text = clean(caption.text[:_TEXT_MAX]) or "(no prompt)"
        room = height - 2 * _STRIP - 118
        for points in (30, 26, 22, 19, 16, 14):
            font = _font(points)
            lines = wrap(text, font, width - 2 * _MARGIN)
            step = round(points * 1.3)
            if len(lines) * step <= room and (len(lines) < _LINES_MAX or points == 14):
                break
        lines = lines[: max(1, room // step)]
        top = _STRIP + 58 + (room - len(lines) * step) // 2
        pen = ImageDraw.Draw(self._words)
        for row, line in enumerate(lines):
            pen.text((_MARGIN, top + row * step), line, font=font, fill=255)

    def _badge(self, caption: Caption) -> None:
        width, height = self.size
        pen = ImageDraw.Draw(self._base)
        top = _STRIP + 12
        pen.rounded_rectangle((_MARGIN, top, _MARGIN + 112, top + 28), radius=6, fill=_AMBER)
        pen.text((_MARGIN + 56, top + 14), "SANDBOX", font=_font(19), fill=_NIGHT, anchor="mm")
        if caption.of > 1:
            label = f"shot {caption.number}/{caption.of}"
            pen.text((width - _MARGIN, top + 14), label, font=_font(17), fill=_INK, anchor="rm")
        small = wrap(clean(caption.footer[:_TEXT_MAX]), _font(13), width - 2 * _MARGIN - 80, 1)[0]
        pen.text((_MARGIN, height - _STRIP - 20), small, font=_font(13), fill=_FADED, anchor="ls")

    @staticmethod
    def _strip(width: int) -> Image.Image:
        """The edge of a film: holes at a steady pitch, wide enough to be slid along."""
        strip = Image.new("RGB", (width, _STRIP), _NIGHT)
        pen = ImageDraw.Draw(strip)
        for left in range(_STRIP // 2, width, 2 * _STRIP):
            pen.rounded_rectangle((left, 4, left + _STRIP - 2, _STRIP - 5), radius=2, fill=(74, 78, 84))
        return strip
