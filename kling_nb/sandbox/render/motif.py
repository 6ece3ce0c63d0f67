"""Motifs: what a shot shows, from a number that its words and its take decide.

Invariants:
    * The same seed, shot and take give the same picture.
    * Neighbouring shots differ in motif, hue and light, so that a cut is seen at a glance; takes of one
      prompt share their motif and differ in hue and arrangement.
    * Nothing here knows a provider or a model.
"""

from __future__ import annotations

import math
from colorsys import hsv_to_rgb
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageDraw, ImageFilter

if TYPE_CHECKING:
    from collections.abc import Callable

Colour = tuple[int, int, int]

#: Saturation and value at the top and at the bottom of the sky: day, dusk, night.
_LIGHTS: Final = (((0.42, 0.92), (0.22, 0.98)), ((0.62, 0.55), (0.55, 0.86)), ((0.68, 0.20), (0.62, 0.42)))
#: Drawn so much larger first: the way down smooths the edges.
_FINE: Final = 2


@dataclass(frozen=True)
class Scene:
    """What stands still in a shot, and where its light may be seen."""

    picture: Image.Image
    sky: Image.Image
    """White where nothing stands before the light."""
    light: Colour
    """The colour of what moves."""
    way: tuple[float, float]
    """Where it comes up and where it goes down, as shares of the width."""


class _Brush:
    """Draws on picture and sky mask at once."""

    def __init__(self, size: tuple[int, int], hue: float, light: int, dice: Random) -> None:
        self.width, self.height = size[0] * _FINE, size[1] * _FINE
        self.dice = dice
        self.dark = light == 2
        self._hue = hue
        column = Image.new("RGB", (1, 2))
        for row, (saturation, value) in enumerate(_LIGHTS[light]):
            column.putpixel((0, row), _rgb(hue + 0.06 * row, saturation, value))
        column = column.resize((1, self.height), Image.Resampling.BILINEAR)
        self.picture = column.resize((self.width, self.height), Image.Resampling.NEAREST)
        self.sky = Image.new("L", (self.width, self.height), 255)
        self._pens = ImageDraw.Draw(self.picture), ImageDraw.Draw(self.sky)

    def tone(self, depth: float, *, turn: float = 0.0) -> Colour:
        """A colour of this shot: 0 is far and pale, 1 is near and deep."""
        far, near = (0.45, 0.16) if self.dark else (0.78, 0.26)
        return _rgb(self._hue + 0.5 + turn, 0.35 + 0.35 * depth, far + (near - far) * depth)

    def area(self, points: list[tuple[float, float]], colour: Colour, *, before: bool = True) -> None:
        """Fill a polygon of shares of width and height; what moves passes behind it, or over it."""
        # What stands before the sky leaves room above itself for the words.
        scaled = [(x * self.width, (y + 0.2 * (1 - y) * before) * self.height) for x, y in points]
        self._pens[0].polygon(scaled, fill=colour)
        if before:
            self._pens[1].polygon(scaled, fill=0)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Fill a circle; its radius is a share of the shorter side."""
        unit = min(self.width, self.height)
        left, top, reach = x * self.width, y * self.height, radius * unit
        self._pens[0].ellipse((left - reach, top - reach, left + reach, top + reach), fill=colour)


def _hills(brush: _Brush) -> None:
    for layer in range(4):
        depth, base = (layer + 1) / 4, 0.36 + 0.14 * layer
        waves = [(brush.dice.uniform(0.6, 1.6), brush.dice.uniform(0, 6.3), 0.07), (3.1, layer * 2.0, 0.02)]
        edge = [
            (x / 60, base + sum(high * math.sin(x / 60 * 6.3 * pace + at) for pace, at, high in waves))
            for x in range(61)
        ]
        brush.area([*edge, (1, 1), (0, 1)], brush.tone(depth))


def _mountains(brush: _Brush) -> None:
    for layer in range(3):
        colour, base = brush.tone((layer + 1) / 3), 0.30 + 0.18 * layer
        for place in range(5):
            x = place / 4 + brush.dice.uniform(-0.1, 0.1)
            top, wide = base + brush.dice.uniform(-0.1, 0.1), brush.dice.uniform(0.2, 0.34)
            brush.area([(x - wide, 1), (x, top), (x + wide, 1)], colour)
            if layer == 0:
                cut = 0.16
                left, right, low = x - wide * cut, x + wide * cut, top + (1 - top) * cut
                brush.area([(left, low), (x, top), (right, low), (x, low - 0.02)], (240, 244, 248))
        brush.area([(0, base + 0.32), (1, base + 0.32), (1, 1), (0, 1)], colour)


def _city(brush: _Brush) -> None:
    for layer in range(2):
        x = -0.02
        while x < 1:
            wide, top = brush.dice.uniform(0.06, 0.13), brush.dice.uniform(0.2, 0.5) + 0.14 * layer
            brush.area([(x, top), (x + wide, top), (x + wide, 1), (x, 1)], brush.tone(0.5 + 0.5 * layer))
            for row in range(int((1 - top) / 0.07) if layer else 0):
                for column in range(3):
                    if brush.dice.random() < 0.55:
                        left, high = x + wide * (0.14 + 0.28 * column), top + 0.03 + 0.07 * row
                        right, low = left + wide * 0.16, high + 0.03
                        brush.area([(left, high), (right, high), (right, low), (left, low)], (255, 214, 130))
            x += wide + 0.008


def _forest(brush: _Brush) -> None:
    for layer in range(3):
        colour, base = brush.tone((layer + 1) / 3), 0.62 + 0.13 * layer
        for place in range(11):
            x, high = place / 10 + brush.dice.uniform(-0.05, 0.05), brush.dice.uniform(0.22, 0.36)
            for step in range(3):
                wide = 0.025 + 0.014 * step
                top = base - high + high * 0.24 * step
                brush.area([(x - wide, top + high * 0.5), (x, top), (x + wide, top + high * 0.5)], colour)
        brush.area([(0, base - 0.02), (1, base - 0.02), (1, 1), (0, 1)], colour)


def _sea(brush: _Brush) -> None:
    for layer in range(6):
        base, pace, at = 0.44 + 0.08 * layer, 2 + layer * 0.7, brush.dice.uniform(0, 6.3)
        edge = [(x / 90, base + 0.018 * abs(math.sin(x / 90 * 6.3 * pace + at))) for x in range(91)]
        brush.area([*edge, (1, 1), (0, 1)], brush.tone((layer + 1) / 6, turn=-0.04 * (layer % 2)))


def _dunes(brush: _Brush) -> None:
    for layer in range(4):
        base, tip = 0.42 + 0.13 * layer, brush.dice.uniform(0.15, 0.85)
        shade, sun = brush.tone(0.35 + 0.2 * layer), brush.tone(0.15 + 0.2 * layer)
        brush.area([(0, base + 0.12), (tip, base), (1, base + 0.16), (1, 1), (0, 1)], sun)
        brush.area([(tip, base), (1, base + 0.16), (1, 1), (tip - 0.2, 1), (tip + 0.06, base + 0.2)], shade)


def _bubbles(brush: _Brush) -> None:
    for _ in range(26):
        x, y = brush.dice.random(), brush.dice.random()
        radius, turn = brush.dice.uniform(0.03, 0.16), brush.dice.uniform(-0.12, 0.12)
        brush.disc(x, y, radius, brush.tone(brush.dice.random() * 0.6, turn=turn))
        brush.disc(x - radius * 0.15, y - radius * 0.25, radius * 0.5, brush.tone(0, turn=turn))


def _rays(brush: _Brush) -> None:
    x, y, count = brush.dice.uniform(0.25, 0.75), brush.dice.uniform(0.3, 0.6), brush.dice.choice((9, 12, 15))
    for ray in range(count):
        ends = [6.2832 * (ray + side) / count for side in (0, 0.5)]
        far = [(x + 2 * math.cos(end), y + 2 * math.sin(end)) for end in ends]
        brush.area([(x, y), *far], brush.tone(0.2 + 0.3 * (ray % 2)), before=False)


def _rings(brush: _Brush) -> None:
    x, y = brush.dice.uniform(0.2, 0.8), brush.dice.uniform(0.25, 0.6)
    for ring in range(8, 0, -1):
        brush.disc(x, y, 0.14 * ring, brush.tone(0.75 - 0.08 * ring, turn=0.03 * (ring % 2)))


def _mosaic(brush: _Brush) -> None:
    across, down = (10, 6) if brush.width > brush.height else (6, 10)
    for row in range(down):
        for column in range(across):
            x, y, wide, high = column / across, row / down, 1 / across, 1 / down
            corners = [(x, y), (x + wide, y), (x + wide, y + high), (x, y + high)]
            skip = brush.dice.randrange(4)
            for missing in (skip, (skip + 2) % 4):
                half = [corner for number, corner in enumerate(corners) if number != missing]
                if brush.dice.random() < 0.7:
                    tone = brush.tone(brush.dice.random() * 0.7, turn=brush.dice.uniform(-0.07, 0.07))
                    brush.area(half, tone, before=False)


_MOTIFS: Final[tuple[Callable[[_Brush], None], ...]] = (
    *(_hills, _rings, _city, _mosaic, _mountains),
    *(_bubbles, _forest, _sea, _rays, _dunes),
)


def scene(size: tuple[int, int], *, seed: int, shot: int, take: int) -> Scene:
    """Draw what stands still in a shot.

    Args:
        size: Pixels.
        seed: From the words of the whole clip.
        shot: 0 for the first.
        take: 0 for the first.

    Returns:
        A picture of that size, and what its moving light needs.
    """
    dice = Random(f"{seed} {shot} {take}")  # noqa: S311 - a picture is no secret
    hue = (seed % 360) / 360 + 0.382 * shot + 0.27 * take
    lit = (seed // 360 + shot) % len(_LIGHTS)
    brush = _Brush(size, hue, lit, dice)
    # A step that has no divisor in common with their number passes all of them.
    _MOTIFS[(seed // 1080 + 3 * shot) % len(_MOTIFS)](brush)
    ends = (0.08, 0.92) if dice.random() < 0.5 else (0.92, 0.08)
    warm = (255, 246, 214) if brush.dark else _rgb(hue + dice.choice((0.5, 0.12)), 0.30, 1.0)
    picture, sky = (image.reduce(_FINE) for image in (brush.picture, brush.sky))
    return Scene(picture, sky, warm, ends)


@cache
def orb(size: int) -> Image.Image:
    """A round light with a halo, as a mask of that many pixels each way."""
    middle, halo = Image.new("L", (size, size), 0), Image.new("L", (size, size), 0)
    for image, inset, level in ((halo, size // 5, 120), (middle, size * 3 // 10, 255)):
        ImageDraw.Draw(image).ellipse((inset, inset, size - inset, size - inset), fill=level)
    mask = halo.filter(ImageFilter.GaussianBlur(size / 12))
    mask.paste(255, (0, 0), middle.filter(ImageFilter.GaussianBlur(1)))
    return mask


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)
