"""The card of one run as safe HTML, and its plain-text twins.

Invariants: the card of a run is a function of its record and the clock, nothing else; the word for the
state stands beside its colour; money is on every card; whoever reads a card of a run that has not ended
sees when it was true; nothing that opens on a click is on a card that is still redrawn, because each
redraw would shut it.
"""

from dataclasses import replace
from datetime import datetime

from kling_nb.errors import one_line
from kling_nb.records.money import Totals
from kling_nb.records.privacy import redacted
from kling_nb.records.run import RunRecord, RunStatus
from kling_nb.views import card_parts, html, receipt, words
from kling_nb.views.card_parts import (
    CardState,
    all_words,
    clip_words,
    mark,
    marked,
    picture,
    prompt_words,
    story,
)
from kling_nb.views.html import DOT, Html, join, prose, tag
from kling_nb.views.outcome import ending
from kling_nb.views.waits import Turn, wait_words, waited_s

__all__ = ["card", "line", "status_line"]

_FILL = "rgba(128,128,128,0.12)"
_COLUMNS = "display:flex;flex-wrap:wrap;align-items:flex-start;gap:10px 16px"
_BAND = "rgba(128,128,128,0.42)"
_WRAP = "overflow-wrap:break-word"


def card(state: CardState, *, totals: Totals | None, now: datetime) -> Html:
    """Draw the card of one run.

    Args:
        state: The run, and what is shown of it.
        totals: What the session has spent and may spend, or None to leave that out.
        now: The time of this look.

    Returns:
        One element, complete without scripts, style sheets or trust.

    Example:
        >>> card.__name__  # see `docs/` for pictures
        'card'
    """
    record = redacted(state.record)
    state = replace(state, record=record)
    live = record.status.pending and not state.detached
    shown = live or record.status is RunStatus.SUCCEEDED
    attached = state.reused and not record.status.ended
    below = f"{html.FAINT};margin-top:6px"
    seen = [
        _head(state),
        prompt_words(record, live=live),
        tag("div", join(words.ask_words(record), DOT), style=html.FAINT),
        "" if record.status.ended else _wait(state, now),
        story(state),
        clip_words(state),
        tag("div", prose(words.money_words(record, reused=state.reused)), style="margin-top:6px"),
        tag("div", prose(words.session_words(totals)), style=html.FAINT) if totals is not None else "",
        tag("div", "This run was under way already: nothing new was sent.", style=below) if attached else "",
        tag("div", prose(state.aside), style=below) if state.aside else "",
        tag("div", prose(state.note), style=below, dir="auto") if state.note else "",
        receipt.receipt(record) if record.status.ended else "",
    ]
    right = tag("div", *seen, style="flex:1 1 300px;min-width:0")
    return tag(
        "div",
        picture(state) if shown else "",
        right,
        style=f"{_COLUMNS};{html.FRAME};{html.FONT};{_WRAP}",
    )


def line(state: CardState, *, totals: Totals | None, now: datetime) -> str:
    """Write a run for a terminal or a page without HTML: one line, and a second where something needs doing.

    Args:
        state: The run, and what is shown of it; its `src` is where the clip is.
        totals: What the session has spent and may spend, or None to leave that out.
        now: The time of this look.

    Returns:
        One or two lines.
    """
    record = redacted(state.record)
    name = f" ({one_line(state.name)})" if state.name else ""
    first = [
        f"{record.id}{name} {state.word}{mark(record, ' [{}]')}",
        ", ".join(one_line(word) for word in words.ask_words(record)),
        words.money_words(record, reused=state.reused),
    ]
    if record.status.pending:
        waits = wait_words(record, now=now, typical_s=state.typical_s, turn=state.turn) if state.turn else []
        first += [*waits, f"as of {words.clock(now)}"]
    elif record.status is RunStatus.SUCCEEDED:
        first.append(one_line(state.src) if state.src else "the clip is not here")
    if outcome := ending(record, detached=state.detached):
        parts = [outcome.what, _sentence(record.message), outcome.charged, outcome.cure, outcome.site]
        second = [one_line(" ".join(part for part in parts if part))]
    else:
        said = words.short(one_line(all_words(record)), 72)
        second = [said if record.private else f'"{said}"']
    second += [one_line(phrases) for phrases in (state.aside.replace("`", ""), state.note) if phrases]
    second += [words.session_words(totals)] if totals is not None else []
    return words.plain(first) + ("\n  " + words.plain(second) if second else "")


def _sentence(foreign: str) -> str:
    """Give a provider's words a beginning and an end of their own."""
    words = one_line(foreign)
    return (
        f"{words[0].upper()}{words[1:]}{'' if words.endswith(('.', '!', '?', '…')) else '.'}" if words else ""
    )


def status_line(
    record: RunRecord,
    *,
    now: datetime,
    typical_s: tuple[float, float] | None = None,
    turn: Turn | None = None,
) -> str:
    """Write where a run is, for a strip of controls.

    Args:
        record: The run.
        now: The time of this look.
        typical_s: The usual span from sent to done, shortest and longest in seconds.
        turn: Its turn, where it waits for a place.

    Returns:
        e.g. `Running - 1:44 so far - usually 1:30-3:20`.
    """
    waits = wait_words(record, now=now, typical_s=typical_s, turn=turn)
    return words.plain([words.state_word(record, waiting=turn is not None), *waits])


def _head(state: CardState) -> Html:
    record, pill = state.record, card_parts.pill(state)
    left = tag("span", pill, " ", marked(record)) if mark(record) else pill
    ids = [tag("bdi", part) for part in (state.name, record.id) if part]
    right = tag("span", join(ids, DOT), style=f"opacity:0.65;{html.MONO}")
    row = "display:flex;flex-wrap:wrap;justify-content:space-between;align-items:baseline;gap:4px 12px"
    return tag("div", left, right, style=row)


def _wait(state: CardState, now: datetime) -> Html:
    record, span, bar = state.record, state.typical_s, not state.detached
    phrases = [
        *wait_words(record, now=now, typical_s=span, turn=state.turn),
        f"as of {words.clock(now)}",
    ]
    drawn = ""
    if bar and span is not None and record.status not in {RunStatus.CREATED, RunStatus.SAVING}:
        drawn = _bar(waited_s(record, now), *span)
    said = tag("div", "Latest word: ", tag("bdi", one_line(record.message))) if record.message and bar else ""
    return join([drawn, tag("div", tag("div", join(phrases, DOT)), said, style=html.FAINT)])


def _bar(waited_s: float, low_s: float, high_s: float) -> Html:
    """Draw the time so far against the usual span; never a share of the work, which nobody knows."""
    whole = max(high_s * 1.2, waited_s * 1.04, 1.0)
    left, width, sofar = (f"{100 * part / whole:.1f}%" for part in (low_s, high_s - low_s, waited_s))
    each = "position:absolute;border-radius:4px"
    return tag(
        "div",
        tag("div", style=f"{each};top:0;height:8px;left:{left};width:{width};background:{_BAND}"),
        tag("div", style=f"{each};top:2px;height:4px;left:0;width:{sofar};background:{html.BLUE}"),
        style=f"position:relative;height:8px;border-radius:4px;background:{_FILL};margin:9px 0 5px",
        title="time so far, and the usual span in grey",
    )
