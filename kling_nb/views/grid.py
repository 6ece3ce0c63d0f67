"""One card for the runs of one cell: what they share is said once, each has a tile of its own.

Invariants: a tile says of its run what its own card says, in fewer words: state, money, end, clip, receipt;
play money and real money are never in one sum, and an amount nobody knows is counted, never added; nothing
that opens on a click is in a tile that is still redrawn.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from kling_nb.errors import one_line
from kling_nb.records.money import Totals, usd
from kling_nb.records.privacy import redacted
from kling_nb.records.run import RunRecord, RunStatus, charged
from kling_nb.views import card, card_parts, html, receipt, words
from kling_nb.views.card_parts import CardState
from kling_nb.views.html import DOT, Html, join, prose, tag
from kling_nb.views.waits import wait_words

__all__ = ["grid", "grid_text"]

_WIDTHS = {"16:9": 240, "9:16": 158, "1:1": 190}


def grid(tiles: Sequence[CardState], *, totals: Totals | None, now: datetime) -> Html:
    """Draw the runs of one cell as one card.

    Args:
        tiles: The runs, in the order of the page.
        totals: What the session has spent and may spend, or None to leave that out.
        now: The time of this look.

    Returns:
        One element, complete without scripts, style sheets or trust.

    Example:
        >>> "no runs" in grid([], totals=None, now=datetime.now())
        True
    """
    if not tiles:
        return tag("div", "no runs", style=f"{html.FONT};{html.FAINT}")
    tiles = [replace(tile, record=redacted(tile.record)) for tile in tiles]
    shared = _shared(tiles)
    going = any(tile.record.status.pending for tile in tiles)
    head = [tag("b", words.counted(len(tiles), "run")), ", ".join(_counts(tiles))]
    head += [f"as of {words.clock(now)}"] if going else []
    parts: list[object] = [tag("div", join(head, DOT))]
    if shared is not None:
        parts += [
            card_parts.prompt_words(shared, live=going),
            tag("div", join(_alike(tiles), DOT), style=html.FAINT),
        ]
    look = "display:flex;flex-wrap:wrap;align-items:flex-start;gap:14px 14px;margin:10px 0 4px"
    drawn = [_tile(tile, now, alone=shared is None, going=going) for tile in tiles]
    parts.append(tag("div", *drawn, style=look))
    parts += [tag("div", prose(line)) for line in _sums(tiles)]
    if totals is not None:
        parts.append(tag("div", prose(words.session_words(totals)), style=html.FAINT))
    return tag("div", *parts, style=f"{html.FRAME};{html.FONT};overflow-wrap:break-word")


def grid_text(tiles: Sequence[CardState], *, totals: Totals | None, now: datetime) -> str:
    """Write the same for a terminal: a head, a line a run, and the sums.

    Args:
        tiles: The runs.
        totals: What the session has spent and may spend, or None to leave that out.
        now: The time of this look.

    Returns:
        Lines.
    """
    if not tiles:
        return "no runs"
    lines = [f"{words.counted(len(tiles), 'run')}: {', '.join(_counts(tiles))}"]
    lines += [card.line(tile, totals=None, now=now) for tile in tiles]
    ends = [*_sums(tiles), *([words.session_words(totals)] if totals is not None else [])]
    return "\n".join([*lines, *(words.plain(end) for end in ends)])


def _shared(tiles: Sequence[CardState]) -> RunRecord | None:
    """Give a run that speaks for all of them, where all were asked for the same."""
    asked = {(tile.record.request.model_dump_json(), tile.record.model) for tile in tiles}
    return tiles[0].record if len(asked) == 1 else None


def _alike(tiles: Sequence[CardState]) -> list[str]:
    """List what all of them have in common; the rest stands in the tiles."""
    every = [words.ask_words(tile.record) for tile in tiles]
    return [word for word in every[0] if all(word in phrases for phrases in every)]


def _counts(tiles: Sequence[CardState]) -> list[str]:
    phrases = Counter(tile.word.lower() for tile in tiles)
    return [f"{count} {word}" for word, count in phrases.items()]


def _tile(tile: CardState, now: datetime, *, alone: bool, going: bool) -> Html:
    record = tile.record
    ids = [part for part in (tile.name, record.id) if part]
    phrases = words.ask_words(record) if alone else [f"take {record.take}"]
    phrases += [f"try {record.attempt}"] if record.attempt > 1 and not alone else []
    width = _WIDTHS[record.request.aspect_ratio]
    parts: list[object] = [
        card_parts.picture(tile),
        tag("div", card_parts.pill(tile), " ", card_parts.marked(record), style="margin-top:6px"),
        tag("div", join([tag("bdi", part) for part in ids], DOT), style=f"opacity:0.65;{html.MONO}"),
    ]
    if alone:
        text = words.short(one_line(card_parts.all_words(record)), 90)
        parts.append(tag("div", text, dir="auto"))
    parts.append(tag("div", join(phrases, DOT), style=html.FAINT))
    if record.status.pending:
        waits = wait_words(record, now=now, typical_s=tile.typical_s, turn=tile.turn)
        parts.append(tag("div", join(waits, DOT), style=html.FAINT))
    parts.append(card_parts.story(tile))
    parts.append(card_parts.clip_words(tile))
    parts.append(tag("div", prose(words.money_words(record, reused=tile.reused)), style="margin-top:4px"))
    if tile.aside:
        parts.append(tag("div", prose(tile.aside), style=html.FAINT))
    if tile.note:
        parts.append(tag("div", prose(tile.note), style=html.FAINT, dir="auto"))
    if not going:
        parts.append(receipt.receipt(record))
    return tag("div", *parts, style=f"flex:1 1 {width}px;min-width:140px;max-width:{width + 30}px")


def _sums(tiles: Sequence[CardState]) -> list[str]:
    """Say what these runs cost together: real and play money in a sentence of their own."""
    lines = []
    for play in (False, True):
        records = [tile.record for tile in tiles if tile.record.play is play]
        if not records:
            continue
        again = {
            tile.record.id for tile in tiles if tile.reused and tile.record.status is RunStatus.SUCCEEDED
        }
        new = [record for record in records if record.id not in again]
        phrases = [_sum(new, play=play)] if new else []
        phrases += (
            [f"{len(records) - len(new)} reused, **$0.00** this time"] if len(new) < len(records) else []
        )
        lines.append(f"these runs{' (play money)' if play else ''}: {'; '.join(phrases)}")
    return lines


def _sum(records: Sequence[RunRecord], *, play: bool) -> str:
    settled = [record.settled_micros for record in records if record.settled_micros is not None]
    held = sum(record.reserved_micros for record in records)
    unknown = sum(
        record.status.ended and record.settled_micros is None and charged(record) != "no"
        for record in records
    )
    # Beside what is held or unknown, a sum of no amounts is not $0.00.
    word = "" if play else " charged"
    phrases = [f"**{usd(sum(settled))}**{word}"] if settled or not (held or unknown) else []
    phrases += [f"**{usd(held)}** reserved"] if held else []
    phrases += [f"{unknown} unknown" if phrases else f"charge of {unknown} unknown"] if unknown else []
    return " + ".join(phrases)
