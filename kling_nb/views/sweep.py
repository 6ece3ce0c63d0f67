"""A sweep as it is shown: its quote, its one card, its grid of stills; each as HTML and as text.

Invariants: of the same size however many members there are; nothing that opens on a click is on a card that
is still redrawn; no prompt is on quote or card; real money is said in words beside its figure.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kling_nb.pricing.catalog import provider_label
from kling_nb.records.money import usd
from kling_nb.views import html, words
from kling_nb.views.contact_sheet import MOST, Tile, smaller
from kling_nb.views.html import DOT, Html, join, link, prose, safe_url, tag
from kling_nb.views.tables import table, text_table

if TYPE_CHECKING:
    from kling_nb.sweeps.progress import Failure, Progress
    from kling_nb.sweeps.quote import Quote, Refusal

__all__ = ["progress_html", "progress_text", "quote_html", "quote_text", "stills", "stills_text"]

_FAINT = "opacity:0.72"
_ROWS_SHOWN = 12
_REFUSALS_SHOWN = 6
_STILLS_BYTES = 240_000
_HEADS = ["", "runs", "here already", "on their way", "refused", "new", "may cost"]
_ALIGN = "lrrrrrr"
_BAR = 24


# -- the quote -----------------------------------------------------------------------------------------
def quote_html(name: str, members: int, quote: "Quote") -> Html:
    """Draw what a sweep would do and cost.

    Args:
        name: Of the sweep.
        members: How many it has.
        quote: The quote.
    """
    kind = html.pill("play money", html.GREY) if quote.play else html.pill("real money", html.AMBER)
    parts: list[object] = [
        tag("div", tag("b", _title(name, members)), " ", kind),
        table(_HEADS, _rows(quote), align=_ALIGN),
    ]
    refusals = [tag("div", line) for line in _refused(quote.refusals)]
    parts += [html.callout(html.RED, *refusals)] if refusals else []
    parts += [tag("div", prose(line), style=_FAINT) for line in _facts(quote)]
    parts += [tag("div", prose(line), style="margin-top:8px") for line in _next(name, quote)]
    return tag("div", *parts, style=f"{html.FRAME};{html.FONT};overflow-wrap:break-word")


def quote_text(name: str, members: int, quote: "Quote") -> str:
    """Write the same for a terminal."""
    lines = [
        f"{_title(name, members)}, {'play' if quote.play else 'real'} money",
        text_table(_HEADS, _rows(quote), align=_ALIGN),
        *_refused(quote.refusals),
        *(words.plain(line) for line in (*_facts(quote), *_next(name, quote))),
    ]
    return "\n".join(lines)


def _title(name: str, members: int) -> str:
    return f"{name}: {words.counted(members, 'run')}"


def _rows(quote: "Quote") -> list[list[object]]:
    rows: list[list[object]] = [
        [
            provider_label(line.provider),
            line.runs,
            line.reused,
            line.pending,
            line.refused,
            line.new,
            usd(line.micros),
        ]
        for line in quote.lines
    ]
    if len(rows) > 1:
        sums = [sum(int(str(row[n])) for row in rows) for n in range(1, 6)]
        rows.append(["together", *sums, usd(quote.micros)])
    return rows


def _refused(refusals: "Sequence[Refusal]") -> list[str]:
    lines = []
    for one in refusals[:_REFUSALS_SHOWN]:
        shown = ", ".join(map(str, one.rows[:_ROWS_SHOWN]))
        more = f" and {len(one.rows) - _ROWS_SHOWN} more" if len(one.rows) > _ROWS_SHOWN else ""
        many = "s" if len(one.rows) > 1 else ""
        lines.append(f"{one.members} left out, row{many} {shown}{more} at {one.provider}: {one.words}")
    if len(refusals) > _REFUSALS_SHOWN:
        lines.append(f"And {len(refusals) - _REFUSALS_SHOWN} more kinds of refusals.")
    return lines


def _facts(quote: "Quote") -> list[str]:
    facts = []
    if quote.duplicates:
        many = "rows ask" if quote.duplicates > 1 else "row asks"
        facts.append(f"{quote.duplicates} {many} for what an earlier row asks for; each is counted once.")
    if quote.seconds is not None and quote.new:
        facts.append(f"About {words.minutes(quote.seconds)}, by the runs of its kind before.")
    if quote.left_micros is not None:
        after = quote.left_micros - quote.micros
        rest = f"after this {usd(after)}" if after >= 0 else f"so that {quote.fits} of them fit"
        facts.append(f"The caps leave {usd(quote.left_micros)}; {rest}.")
    return facts


def _next(name: str, quote: "Quote") -> list[str]:
    if not quote.new:
        return ["Nothing new would be sent."]
    cost = f"**{words.counted(quote.new, 'new run')} may cost {usd(quote.micros)}.**"
    return [f"{cost} `kling.sweep({name!r}).start(confirm=True)` sends them."]


# -- on its way ---------------------------------------------------------------------------------------
def progress_html(progress: "Progress") -> Html:
    """Draw the card of a sweep.

    Args:
        progress: What became of it so far.
    """
    head = [words.counted(progress.members, "run"), f"since {words.clock(progress.created_at, date=True)}"]
    head += [] if progress.over else [f"as of {words.clock(progress.now)}"]
    parts: list[object] = [
        tag("div", join([tag("b", progress.name), *head], DOT)),
        _bar(progress),
        tag(
            "div",
            *(_legend(*one) for one in _states(progress)),
            style="display:flex;flex-wrap:wrap;gap:4px 16px",
        ),
        tag(
            "div",
            *(_fact(*one) for one in _money(progress)),
            style="display:flex;flex-wrap:wrap;gap:8px 28px",
        ),
    ]
    parts += [tag("div", prose(line), style=_FAINT) for line in _notes(progress)]
    if progress.failures:
        short = _short(progress.failures)
        if progress.over:
            parts.append(html.details(short, *(_answers(one) for one in progress.failures)))
        else:
            parts.append(tag("div", short, style=_FAINT))
    gaps = (tag("div", part, style="margin-top:8px") if n else part for n, part in enumerate(parts))
    return tag("div", *gaps, style=f"{html.FRAME};{html.FONT};overflow-wrap:break-word")


def progress_text(progress: "Progress") -> str:
    """Write the same for a terminal; the first line is whole by itself."""
    ended = progress.done + progress.failed
    filled = _BAR * ended // progress.members if progress.members else _BAR
    states = ", ".join(f"{count} {word}" for word, count, _ in _states(progress))
    amounts = ", ".join(f"{amount} {what}" for what, amount in _money(progress) if what != "left")
    bar = f"[{'#' * filled}{'.' * (_BAR - filled)}]"
    lines = [f"{progress.name}: {ended}/{progress.members} {bar} {states}; {amounts}"]
    lines += [words.plain(line) for line in _notes(progress)]
    if progress.over:
        lines += [
            f"{one.count} {one.word} (charged: {one.charged}): {one.what} {one.cure}".rstrip()
            for one in progress.failures
        ]
    return "\n".join(lines)


def _states(progress: "Progress") -> list[tuple[str, int, str]]:
    every = [
        ("done", progress.done, html.GREEN),
        ("on their way", progress.going, html.BLUE),
        ("failed", progress.failed, html.RED),
        ("not sent", progress.waiting, "rgba(128,128,128,0.35)"),
    ]
    return [one for one in every if one[1]]


def _bar(progress: "Progress") -> Html:
    whole = max(1, progress.members)
    pieces = [
        tag("div", style=f"width:{100 * count / whole:.2f}%;height:12px;background:{colour}")
        for _, count, colour in _states(progress)
    ]
    return tag("div", *pieces, style="display:flex;overflow:hidden;border-radius:6px", title="progress")


def _legend(word: str, count: int, colour: str) -> Html:
    dot = f"display:inline-block;width:9px;height:9px;border-radius:2px;margin:0 5px 0 0;background:{colour}"
    return tag("span", tag("span", style=dot), f"{count} {word}")


def _money(progress: "Progress") -> list[tuple[str, str]]:
    spent = usd(progress.spent_micros) + (f" + {progress.unknown} unknown" if progress.unknown else "")
    facts = [("spent" if not progress.play else "play money spent", spent)]
    if progress.reserved_micros:
        facts.append(("reserved", usd(progress.reserved_micros)))
    if progress.left_micros is not None:
        facts.append(("left", usd(progress.left_micros)))
    if progress.per_hour is not None and not progress.over:
        facts.append(("an hour", f"{progress.per_hour:.0f} clips"))
    if progress.ends_at is not None:
        facts.append(("done about", words.clock(progress.ends_at)))
    return facts


def _fact(what: str, amount: str) -> Html:
    return tag("div", tag("div", what, style=f"font-size:12px;{_FAINT}"), tag("b", amount))


def _notes(progress: "Progress") -> list[str]:
    notes = [f"Stopped: {progress.stopped}"] if progress.stopped else []
    again = f"`kling.sweep({progress.name!r}).start()`"
    if progress.waiting and progress.over and progress.state in {"paused", "canceled"}:
        word = "Paused" if progress.state == "paused" else "Canceled"
        notes.append(f"{word}: what is not sent stays so; {again} sends it.")
    elif progress.waiting and not progress.sending and not progress.stopped:
        notes.append(f"This kernel sends none of it: {again} sends the rest.")
    return notes


def _short(failures: "Sequence[Failure]") -> str:
    kinds = ", ".join(f"{one.count} {one.word} (charged: {one.charged})" for one in failures)
    return f"Without a clip: {kinds}"


def _answers(failure: "Failure") -> Html:
    return html.callout(
        html.RED,
        tag("div", tag("b", f"{failure.count} {failure.word}")),
        tag("div", f"{failure.what} Charged: {failure.charged}."),
        tag("div", prose(failure.cure)),
    )


# -- the grid ------------------------------------------------------------------------------------------
def stills(heads: Sequence[str], cells: Mapping[str, Mapping[str, Tile]]) -> Html:
    """Draw a grid of stills: a row a prompt.

    Args:
        heads: Of its columns, in order.
        cells: By prompt, then by head; those of the prompts that do not fit are counted and left out.
    """
    shown = _fitting(heads, cells)
    each = min(6_200, _STILLS_BYTES // max(1, sum(len(row) for row in shown.values())))
    rows = [
        [tag("div", words.short(prompt, 90), dir="auto", style="max-width:190px;white-space:pre-wrap")]
        + [_still(row.get(head), each) for head in heads]
        for prompt, row in shown.items()
    ]
    left = len(cells) - len(shown)
    more = [tag("div", f"{left} more prompts are not on this grid.", style=_FAINT)] if left else []
    return tag("div", table(["", *heads], rows), *more, style=html.FONT)


def stills_text(heads: Sequence[str], cells: Mapping[str, Mapping[str, Tile]]) -> str:
    """Write the same for a terminal: the state of each in words."""
    rows = [
        [words.short(prompt, 48), *(row[head].state if head in row else "" for head in heads)]
        for prompt, row in _fitting(heads, cells).items()
    ]
    return text_table(["prompt", *heads], rows)


def _fitting(heads: Sequence[str], cells: Mapping[str, Mapping[str, Tile]]) -> dict[str, Mapping[str, Tile]]:
    most = max(1, MOST // max(1, len(heads)))
    return dict(list(cells.items())[:most])


def _still(tile: Tile | None, each: int) -> Html:
    if tile is None:
        return Html()
    still = safe_url(smaller(tile.poster, each), data="image") if tile.poster else None
    held: object = tile.state
    if still is not None:
        held = tag("img", src=still, alt=f"Still of run {tile.id}", style="max-width:100%;margin:0")
    shown = link(held, tile.src) if tile.src else held
    return tag("div", shown, style="width:150px")
