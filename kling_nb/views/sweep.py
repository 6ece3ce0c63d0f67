"""A sweep as it is shown: its quote and its one card, each as HTML and as text.

Invariants: of the same size however many members there are; nothing that opens on a click is on a card that
is still redrawn; no prompt is on quote or card; real money is said in words beside its figure.
"""

from typing import TYPE_CHECKING

from kling_nb.pricing.catalog import provider_label
from kling_nb.records.money import usd
from kling_nb.views import html, words
from kling_nb.views.html import DOT, Html, join, prose, tag
from kling_nb.views.tables import filled, table, text_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kling_nb.sweeps.progress import Failure, Progress
    from kling_nb.sweeps.quote import Quote, Refusal

__all__ = ["progress_html", "progress_text", "quote_html", "quote_text"]

_ROWS_SHOWN = 12
_REFUSALS_SHOWN = 6
_HEADS = ["", "runs", "here already", "on their way", "refused", "new", "may cost"]
_ALIGN = "lrrrrrr"
_BAR = 24


# -- the quote -----------------------------------------------------------------------------------------
def quote_html(name: str, shape: str, quote: "Quote", *, note: str = "") -> Html:
    """Draw what a sweep would do and cost.

    Args:
        name: Of the sweep.
        shape: Its runs in words, e.g. `40 prompts x 2 takes`.
        quote: The quote.
        note: What came of trying to send it.
    """
    heads, rows, align = _table(quote)
    kind = html.pill("play money", html.GREY) if quote.play else html.pill("real money", html.AMBER)
    parts: list[object] = [
        tag("div", tag("b", f"{name}: {shape}"), " ", kind),
        table(heads, rows, align=align),
    ]
    refusals = [tag("div", line) for line in _refused(quote.refusals)]
    parts += [html.callout(html.RED, *refusals)] if refusals else []
    parts += [tag("div", prose(line), style=html.FAINT) for line in _facts(quote)]
    parts += [tag("div", prose(line), style="margin-top:8px") for line in _next(name, quote)]
    parts += [html.callout(html.RED, tag("div", prose(note)))] if note else []
    return tag("div", *parts, style=f"{html.FRAME};{html.FONT};overflow-wrap:break-word")


def quote_text(name: str, shape: str, quote: "Quote", *, note: str = "") -> str:
    """Write the same for a terminal."""
    heads, rows, align = _table(quote)
    lines = [
        f"{name}: {shape}, {'play' if quote.play else 'real'} money",
        text_table(heads, rows, align=align),
        *_refused(quote.refusals),
        *(words.plain(line) for line in (*_facts(quote), *_next(name, quote), *([note] if note else []))),
    ]
    return "\n".join(lines)


def _table(quote: "Quote") -> tuple[list[str], list[list[object]], str]:
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
    # A column of zeros would only push the price out of a narrow window.
    return filled(_HEADS, rows, _ALIGN, "here already", "on their way", "refused")


def _refused(refusals: "Sequence[Refusal]") -> list[str]:
    lines = []
    for one in refusals[:_REFUSALS_SHOWN]:
        shown = ", ".join(map(str, one.rows[:_ROWS_SHOWN]))
        more = f" and {len(one.rows) - _ROWS_SHOWN} more" if len(one.rows) > _ROWS_SHOWN else ""
        rows = f"row{'s' if len(one.rows) > 1 else ''} {shown}{more}"
        at = provider_label(one.provider)
        lines.append(f"Refused: {words.counted(one.members, 'run')} at {at}, {rows}: {one.words}")
    if left := refusals[_REFUSALS_SHOWN:]:
        count = sum(one.members for one in left)
        lines.append(f"Refused: {words.counted(count, 'more run')} for other reasons.")
    return lines


def _facts(quote: "Quote") -> list[str]:
    facts = []
    if quote.replaced:
        facts.append(f"Quoted anew, in place of an earlier quote of {words.counted(quote.replaced, 'run')}.")
    if quote.duplicates:
        repeats = words.counted(quote.duplicates, "row repeats", "rows repeat")
        facts.append(
            f"{repeats} an earlier row and {'is' if quote.duplicates == 1 else 'are'} not counted again."
        )
    if quote.seconds is not None and quote.new:
        took = "judging by earlier runs"
        facts.append(f"About {_span(quote.seconds)} at {quote.at_once} in flight per account, {took}.")
    if quote.left_micros is not None:
        after = quote.left_micros - quote.micros
        rest = f"; {usd(after)} after this" if after >= 0 else f"; {quote.fits} of the new runs fit"
        facts.append(f"The caps leave {usd(quote.left_micros)}{rest if quote.new else ''}.")
    return facts


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    hours = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
    return hours if minutes else f"{max(1, round(seconds))} s"


def _next(name: str, quote: "Quote") -> list[str]:
    if not quote.new:
        return ["There is nothing new to send."]
    cost = f"**{words.counted(quote.new, 'new run')} may cost {usd(quote.micros)}.**"
    if (why := quote.obstacle(agreed=True)) is not None:
        return [f"{cost} {why.cure}"]
    return [f"{cost} `kling.sweep({name!r}).start(confirm=True)` sends {'it' if quote.new == 1 else 'them'}."]


# -- on its way ---------------------------------------------------------------------------------------
def progress_html(progress: "Progress") -> Html:
    """Draw the card of a sweep.

    Args:
        progress: What became of it so far.
    """
    head = [words.counted(progress.members, "run"), f"started {words.clock(progress.created_at, date=True)}"]
    ended = progress.over and not progress.waiting
    head += [] if ended else [f"as of {words.clock(progress.now)}"]
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
    parts += [tag("div", prose(line), style=html.FAINT) for line in _notes(progress)]
    if progress.failures:
        short = _short(progress.failures)
        if progress.over:
            parts.append(html.details(short, *(_answers(one) for one in progress.failures)))
        else:
            parts.append(tag("div", short, style=html.FAINT))
    gaps = (tag("div", part, style="margin-top:8px") if n else part for n, part in enumerate(parts))
    return tag("div", *gaps, style=f"{html.FRAME};{html.FONT};overflow-wrap:break-word")


def progress_text(progress: "Progress") -> str:
    """Write the same for a terminal; the first line is whole by itself."""
    ended = progress.done + progress.failed
    filled = _BAR * ended // progress.members if progress.members else _BAR
    states = ", ".join(f"{count:,} {word}" for word, count, _ in _states(progress))
    amounts = ", ".join(f"{what} {amount}" for what, amount in _money(progress) if what != "left")
    bar = f"[{'#' * filled}{'.' * (_BAR - filled)}]"
    lines = [f"{progress.name}: {ended:,}/{progress.members:,} {bar} {states}; {amounts}"]
    lines += [words.plain(line) for line in _notes(progress)]
    if progress.over:
        lines += [
            words.plain(
                f"{one.count} {one.word} (charged: {one.charged}): {one.what} {one.cure} {_ids(one)}".rstrip()
            )
            for one in progress.failures
        ]
    return "\n".join(lines)


def _states(progress: "Progress") -> list[tuple[str, int, str]]:
    every = [
        ("done", progress.done, html.GREEN),
        ("on their way", progress.going, html.BLUE),
        ("waiting for a worker", progress.queued, html.AMBER),
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
    return tag("span", tag("span", style=dot), f"{count:,} {word}")


def _money(progress: "Progress") -> list[tuple[str, str]]:
    spent = usd(progress.spent_micros) + (f" + {progress.unknown} unknown" if progress.unknown else "")
    facts = [("spent" if not progress.play else "play money spent", spent)]
    if progress.reserved_micros:
        facts.append(("reserved", usd(progress.reserved_micros)))
    if progress.left_micros is not None:
        facts.append(("left", usd(progress.left_micros)))
    if progress.per_hour is not None and not progress.over:
        facts.append(("rate", f"{progress.per_hour:,.0f} an hour"))
    if progress.ends_at is not None:
        facts.append(("done about", words.clock(progress.ends_at)))
    return facts


def _fact(what: str, amount: str) -> Html:
    return tag("div", tag("div", what, style=f"font-size:12px;{html.FAINT}"), tag("b", amount))


def _notes(progress: "Progress") -> list[str]:
    notes = [f"Stopped: {progress.stopped}"] if progress.stopped else []
    again = f"`kling.sweep({progress.name!r})"
    rest = f"{again}.start()` sends the remaining {progress.waiting}."
    if progress.waiting and progress.state in {"paused", "canceled"}:
        notes.append(f"{'Paused' if progress.state == 'paused' else 'Canceled'}: {rest}")
    elif progress.queued and progress.state == "paused":
        notes.append(f"Paused: {again}.start()` lets workers go on.")
    elif progress.queued and not progress.going:
        notes.append("A worker sends them: `kling-nb worker`, on any machine with this ledger and its keys.")
    elif progress.waiting and progress.elsewhere:
        notes.append(f"Another kernel is sending it. If it is gone: {rest}")
    elif progress.waiting and not progress.sending:
        notes.append(rest)
    if progress.free and progress.over:
        runs = words.counted(progress.free, "failed run was", "failed runs were")
        notes.append(f"{runs} not charged and can be tried again: {again}.retry()`.")
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
        tag("div", _ids(failure), style=f"{html.FAINT};{html.MONO}") if failure.ids else "",
    )


def _ids(failure: "Failure") -> str:
    more = f" and {failure.count - len(failure.ids)} more" if failure.count > len(failure.ids) else ""
    return ", ".join(failure.ids) + more
