"""The tables of a cost report: words, numbers and bars for the sums of some runs.

Invariants: pure; only what a page shows without script and trust; a bar says nothing that is not a number
beside it; a page stays small, whatever the number of rows.
"""

from collections.abc import Iterator, Sequence

from kling_nb.errors import one_line
from kling_nb.pricing.catalog import provider_label
from kling_nb.records.money import usd
from kling_nb.spending.sums import Group, Sums, difference
from kling_nb.views.html import BLUE, Html, join, tag
from kling_nb.views.tables import Part

__all__ = ["LEGEND", "MOST_ROWS", "drawn", "sums_table", "sums_words"]

LEGEND = "Bars: outlined is estimated; below it, solid is settled and grey is reserved."
#: How many rows of a table are shown.
MOST_ROWS = 40

#: A label without a space, as a long tag is, must not push the numbers out of sight.
_FIRST = "min-width:110px;max-width:320px;overflow-wrap:break-word"
_OUTLINE = "1px solid rgba(128,128,128,0.9)"
_HELD = "rgba(128,128,128,0.45)"


def sums_words(sums: Sums) -> str:
    """Say in one sentence what some runs came to, amounts bold."""
    runs = f"{sums.runs} run{'' if sums.runs == 1 else 's'}"
    pending = f", {sums.pending} on the way" if sums.pending else ""
    estimated, reported, settled, held = _figures(sums)
    prefix = "reported " if sums.reported.counted or not sums.reported.unknown else ""
    return (
        f"{runs}{pending}; estimated **{estimated}**, {prefix}**{reported}**, settled **{settled}**, "
        f"**{held}** reserved"
    )


def _figures(sums: Sums) -> tuple[str, str, str, str]:
    return (
        sums.estimated.words(),
        sums.reported.words("not reported"),
        sums.settled.words(),
        usd(sums.reserved_micros),
    )


def sums_table(by: Sequence[str], groups: Sequence[Group], number: int, whole: Sums) -> Iterator[Part]:
    """Draw a table of runs of one kind of money, with bars to its own scale.

    Args:
        by: What its rows are.
        groups: The rows, all of play money or none; those that are not shown may be left out.
        number: How many there are.
        whole: Their sums.

    Returns:
        The table, and what a reader must know about it.
    """
    shown = groups[:MOST_ROWS]
    most = max((max(_lengths(each.sums)) for each in shown), default=0)
    rows: list[list[object]] = [
        [
            tag("div", _label(by, each), style=_FIRST),
            each.sums.runs,
            *_figures(each.sums),
            difference(each.sums.difference_micros),
            _bars(each.sums, most),
        ]
        for each in shown
    ]
    heads = [", ".join(by), "runs", "estimated", "reported", "settled", "reserved", "difference", ""]
    yield (heads, rows, "lrrrrrrg")
    if number > len(shown):
        yield f"There are {number - len(shown)} more rows: `.df`, `.rows` and `.to_csv()` have them all."
    if "tag" in by and sum(each.sums.runs for each in groups) > whole.runs:
        yield "A run with several tags is in each of their rows, so these add up to more."


def _label(by: Sequence[str], each: Group) -> Html:
    words = [
        f"no {name.removeprefix('tag:')}"
        if value is None
        else provider_label(value)
        if name == "provider"
        else one_line(value)
        for name, value in zip(by, each.labels, strict=True)
    ]
    return join([tag("bdi", word) for word in words], ", ")


def drawn(sums: Sums) -> bool:
    """Whether there is an amount to draw a bar of."""
    return any(_lengths(sums))


def _lengths(sums: Sums) -> tuple[int, int]:
    return max(sums.estimated.known, 0), max(sums.settled.known, 0) + sums.reserved_micros


def _bars(sums: Sums, most: int) -> Html:
    """Draw estimated over settled and reserved, to the scale of the table."""
    if not most:
        return Html()
    estimated, gone = _lengths(sums)
    box = "box-sizing:border-box;height:6px;border-radius:2px"
    first = tag("div", style=f"{box};width:{_share(estimated, most)};border:{_OUTLINE}") if estimated else ""
    settled = max(sums.settled.known, 0)
    parts = [
        tag("div", style=f"{box};width:{_share(length, most)};background:{colour}")
        for length, colour in ((settled, BLUE), (gone - settled, _HELD))
        if length
    ]
    second = tag("div", *parts, style="display:flex;gap:1px;margin-top:2px") if parts else ""
    return tag("div", first, second, style="width:140px;margin-top:3px")


def _share(part: int, whole: int) -> str:
    return f"{max(part * 1000 // whole, 8) / 10:.1f}%"
