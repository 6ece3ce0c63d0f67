"""The picture: one `Stage` per shot draws every frame of it.

Invariants:
    * The word SANDBOX stands in every frame, so a stand-in clip can never pass for a bought one.
    * What stands still is drawn once per shot; a frame only moves a light, a bar and a clock, which is what
      keeps a clip far cheaper to make than to watch.
    * Nothing in it tells the provider or the model, so that clips can be judged blind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

from PIL import Image, ImageChops, ImageDraw

from kling_nb.sandbox.render.letters import Letters, clean, goes_left
from kling_nb.sandbox.render.motif import orb, scene

SIZES: Final = {"16:9": (640, 360), "9:16": (360, 640), "1:1": (480, 480)}


"""Pixels of a clip by aspect ratio: small, even (4:2:0 chroma needs that) and exactly in proportion."""


_INK: Final = (250, 248, 242)
_FADED: Final = (206, 206, 202)
_AMBER: Final = (255, 190, 70)
_NIGHT: Final = (14, 16, 20)
_MARGIN: Final = 22
_TEXT_MAX: Final = 500


"""Characters of a prompt that are looked at: more would not fit, and measuring them costs time."""


#: From the full range of a picture to that of a film, whose black is 16: luma, then chroma.
_LUMA: Final = [16 + round(level * 219 / 255) for level in range(256)]
_CHROMA: Final = [128 + round((level - 128) * 224 / 255) for level in range(256)]


class Planes(NamedTuple):
    """A frame as an encoder takes it: luma, and two of chroma at half the size each way."""

    luma: Image.Image
    blue: Image.Image
    red: Image.Image


@dataclass(frozen=True)
class Caption:
    """What is written on one shot."""

    text: str
    """The prompt of the shot."""
    number: int
    """1 for the first shot."""
    of: int
    """How many shots the clip has; 1 hides the label."""
    foot: str = ""
    """A small line about the request, such as `5 s, 16:9, silent`."""
    seed: int = 0
    """From the words of the whole clip: decides motif and colours."""
    take: int = 0
    """Shifts the colours, so that takes of one request can be told apart."""
    cuts: tuple[float, ...] = ()
    """Where a shot ends and the next begins, as shares of the clip."""


class Stage:
    """Draws the frames of one shot."""

    def __init__(self, size: tuple[int, int], caption: Caption) -> None:
        self.size = size
        drawn = scene(size, seed=caption.seed, shot=caption.number - 1, take=caption.take)
        self._sky, self._way = drawn.sky, drawn.way
        self._bar = Image.new("L", (size[0] - 2 * _MARGIN, 4), 255)
        self._letter(drawn.picture, caption)
        self._base = _planes(drawn.picture)
        self._frame = Planes(*(plane.copy() for plane in self._base))
        self._drawn: list[tuple[int, int, int, int]] = []
        self._light = [plane.getextrema()[0] for plane in _planes(Image.new("RGB", (2, 2), drawn.light))]
        self._orb = orb(min(size) // 3 // 2 * 2)
        self._white = _LUMA[250]

    def frame(self, *, at_s: float, through: float, within: float) -> Planes:
        """One frame.

        Args:
            at_s: Seconds since the start of the clip, for the clock.
            through: 0..1, how much of the whole clip has passed, for the bar.
            within: 0..1, how much of this shot has passed, for the light.

        Returns:
            Planes of the stage's size, the same ones each time: they hold until the next call.
        """
        frame, (width, height) = self._frame, self.size
        while self._drawn:
            box = self._drawn.pop()
            for plane, base, scale in zip(frame, self._base, (1, 2, 2), strict=True):
                part = tuple(edge // scale for edge in box)
                plane.paste(base.crop(part), part)  # type: ignore[arg-type] # four of them
        self._shine(frame, within)
        top, done = height - 16, round(self._bar.width * through)
        if done:
            bar = self._bar.crop((0, 0, done, self._bar.height))
            frame.luma.paste(self._white, (_MARGIN, top, _MARGIN + done, top + self._bar.height), bar)
        clock, left = f"{at_s:05.2f} s", width - _MARGIN - 52
        Letters(14).draw(ImageDraw.Draw(frame.luma), (left, top - 8), clock, self._white)
        self._drawn += [(0, top, width, top + self._bar.height), (left - 2, top - 22, width, top - 4)]
        return frame

    def _shine(self, frame: Planes, within: float) -> None:
        """Move the light along its arc: behind what stands before the sky, and under the words."""
        width, height = self.size
        size = self._orb.width
        rise, fall = self._way
        across = rise + (fall - rise) * within
        down = self._low - 0.2 * math.sin(math.pi * (0.12 + 0.76 * within))
        # Chroma is half as fine: even places keep it in step with luma.
        x, y = (round(place - size / 2) // 2 * 2 for place in (across * width, down * height))
        box = (max(x, 0), max(y, 0), min(x + size, width), min(y + size, height))
        self._drawn.append(box)
        mask = self._orb.crop((box[0] - x, box[1] - y, box[2] - x, box[3] - y))
        mask = ImageChops.multiply(mask, self._sky.crop(box))
        half = mask.reduce(2)
        for plane, level, alpha in zip(frame, self._light, (mask, half, half), strict=True):
            at = (box[0], box[1]) if alpha is mask else (box[0] // 2, box[1] // 2)
            plane.paste(level, (*at, at[0] + alpha.width, at[1] + alpha.height), alpha)

    def _letter(self, picture: Image.Image, caption: Caption) -> None:
        """Write on the picture, and take what is written on out of the sky."""
        width, height = self.size
        lines, points = self._lines(caption.text)
        step, small = round(points * 1.32), Letters(13)
        # At the top, where the controls of a player leave it to be read.
        top = 54
        shade = Image.new("L", (1, height), 0)
        for row in range(height):
            above, below = top + step * len(lines) + 40 - row, row - height + 70
            shade.putpixel((0, row), max(0, min(150, 3 * above), min(150, 3 * below)))
        shade = shade.resize(self.size, Image.Resampling.NEAREST)
        picture.paste(_NIGHT, (0, 0), shade)
        covered = shade.point([min(255, 2 * level) for level in range(256)])
        pen, cover = ImageDraw.Draw(picture), ImageDraw.Draw(covered)
        right_to_left = goes_left(" ".join(lines))
        for row, line in enumerate(lines):
            left = width - _MARGIN - Letters(points).length(line) if right_to_left else _MARGIN
            for each, ink in ((pen, _INK), (cover, 255)):
                Letters(points).draw(each, (left, top + step * row + points), line, ink)
        small.draw(pen, (_MARGIN, height - 24), caption.foot, _FADED)
        plates = [(_MARGIN, "SANDBOX", _AMBER, _NIGHT)]
        if caption.of > 1:
            label = f"shot {caption.number}/{caption.of}"
            plates.append((width - _MARGIN - self._plate_width(label), label, _NIGHT, _INK))
        for left, word, ground, ink in plates:
            box = (left, 20, left + self._plate_width(word), 46)
            pen.rounded_rectangle(box, radius=6, fill=ground)
            cover.rectangle(box, fill=255)
            Letters(17).draw(pen, (left + 10, 39), word, ink)
        self._sky = ImageChops.multiply(self._sky, ImageChops.invert(covered))
        # The light passes below the words, however many there are.
        self._low = 0.2 + min(0.55, (top + step * len(lines)) / height + 0.1)
        pen.rectangle((_MARGIN, height - 16, width - _MARGIN - 1, height - 13), fill=(70, 72, 76))
        for cut in caption.cuts:
            at = round(self._bar.width * cut)
            self._bar.paste(0, (at - 1, 0, at + 2, self._bar.height))
            pen.rectangle((_MARGIN + at - 1, height - 16, _MARGIN + at + 1, height - 13), fill=_NIGHT)

    @staticmethod
    def _plate_width(word: str) -> int:
        return round(Letters(17).length(word)) + 20

    def _lines(self, text: str) -> tuple[list[str], int]:
        """Break the prompt into few lines, in the largest letters that allow it."""
        width, height = self.size
        most = 4 if height <= width else 7
        text = clean(text[:_TEXT_MAX]) or "(no prompt)"
        for points in (28, 24, 20, 17):
            lines = Letters(points).wrap(text, width - 2 * _MARGIN, most)
            if len(lines) < most:
                break
        return [line for line in lines if line], points


def _planes(picture: Image.Image) -> Planes:
    luma, blue, red = picture.convert("YCbCr").split()
    return Planes(luma.point(_LUMA), *(plane.reduce(2).point(_CHROMA) for plane in (blue, red)))
