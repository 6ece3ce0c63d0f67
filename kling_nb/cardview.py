"""The card of one run as safe HTML, and its plain-text twins.

Invariants: the card of a run is a function of its record and the clock, nothing else; the word for the
state stands beside its colour; money is on every card; whoever reads a card of a run that has not ended
sees when it was true; nothing that opens on a click is on a card that is still redrawn, because each
redraw would shut it.
"""

from datetime import datetime

from kling_nb import html, receiptview, wording
from kling_nb.cardparts import all_words, clip_words, colour, mark, marked, picture, story, words
from kling_nb.endings import ending
from kling_nb.errors import one_line
from kling_nb.html import DOT, Html, join, prose, tag
from kling_nb.records import RunRecord, RunStatus, Totals
from kling_nb.veil import veiled

__all__ = ["card", "line", "status_line"]

_FILL = "rgba(128,128,128,0.12)"
_COLUMNS = "display:flex;flex-wrap:wrap;align-items:flex-start;gap:10px 16px"
_BAND = "rgba(128,128,128,0.42)"
_WRAP = "overflow-wrap:break-word"
_FAINT = "opacity:0.72"


def card(
    record: RunRecord,
    *,
    totals: Totals | None,
    now: datetime,
    name: str | None = None,
    src: str | None = None,
    poster: str | None = None,
    typical_s: tuple[float, float] | None = None,
    reused: bool = False,
    note: str = "",
    detached: bool = False,
    embed: str | None = None,
    player: bool = True,
    aside: str = "",
) -> Html:
    """Draw the card of one run.

    Args:
        record: The run.
        totals: What the session has spent and may spend, or None to leave that out.
        now: The time of this look.
        name: The variable that holds the run, if any.
        src: The clip's address as the notebook reaches it, percent-encoded; None where the file is not here.
        poster: A small JPEG as a data address.
        typical_s: The usual span from asked to done, shortest and longest in seconds.
        reused: Whether nothing was sent for this cell, because the run was there already.
        note: A further sentence of ours.
        detached: Whether we stopped watching.
        embed: The clip itself as a data address, played instead of `src`.
        player: Whether a finished clip is played here, or only shown by its still and linked.
        aside: What is to be known of the clip in this output; ours, and no word of the request.

    Returns:
        One element, complete without scripts, style sheets or trust.

    Example:
        >>> card.__name__  # see `docs/` for pictures
        'card'
    """
    record = veiled(record)
    live = record.status.pending and not detached
    shown = live or record.status is RunStatus.SUCCEEDED
    seen = [
        _head(record, name, reused=reused, detached=detached),
        words(record, live=live),
        tag("div", join(wording.ask_words(record), DOT), style=_FAINT),
        "" if record.status.ended else _wait(record, now, typical_s, bar=live),
        story(record, detached=detached),
        clip_words(record, src, embed),
        _money(record, totals, reused=reused),
        _attached(record, reused=reused),
        tag("div", prose(aside), style=f"{_FAINT};margin-top:6px") if aside else "",
        tag("div", prose(note), style=f"{_FAINT};margin-top:6px", dir="auto") if note else "",
        receiptview.receipt(record) if record.status.ended else "",
    ]
    right = tag("div", *seen, style="flex:1 1 300px;min-width:0")
    return tag(
        "div",
        picture(record, src=src, poster=poster, embed=embed, player=player) if shown else "",
        right,
        style=f"{_COLUMNS};{html.FRAME};{html.FONT};{_WRAP}",
    )


def line(
    record: RunRecord,
    *,
    totals: Totals | None,
    now: datetime,
    name: str | None = None,
    file: str | None = None,
    reused: bool = False,
    detached: bool = False,
    note: str = "",
    aside: str = "",
) -> str:
    """Write a run for a terminal or a page without HTML: one line, and a second where something needs doing.

    Args:
        record: The run.
        totals: What the session has spent and may spend, or None to leave that out.
        now: The time of this look.
        name: The variable that holds the run, if any.
        file: Where the clip is, if it is here.
        reused: Whether nothing was sent for this cell.
        detached: Whether we stopped watching.
        note: A further sentence of ours.
        aside: What is to be known of the clip in this output.

    Returns:
        One or two lines.
    """
    record = veiled(record)
    state = wording.state_word(record, reused=reused, detached=detached)
    first = [
        f"{record.id}{f' ({one_line(name)})' if name else ''} {state}{mark(record, ' [{}]')}",
        ", ".join(one_line(word) for word in wording.ask_words(record)),
        wording.money_words(record, reused=reused),
    ]
    if record.status.pending:
        first.append(f"as of {wording.clock(now)}")
    elif record.status is RunStatus.SUCCEEDED:
        first.append(one_line(file) if file else "the clip is not here")
    told = ending(record, detached=detached)
    second = (
        [
            one_line(
                " ".join([told.what, one_line(record.message), told.charged, told.cure, told.site]).strip()
            )
        ]
        if told
        else []
    )
    if not told:
        said = wording.short(one_line(all_words(record)), 72)
        second.append(said if record.private else f'"{said}"')
    second += [one_line(words) for words in (aside.replace("`", ""), note) if words]
    second += [wording.session_words(totals)] if totals is not None else []
    return wording.plain(first) + ("\n  " + wording.plain(second) if second else "")


def status_line(record: RunRecord, *, now: datetime, typical_s: tuple[float, float] | None = None) -> str:
    """Write where a run is, for a strip of controls.

    Args:
        record: The run.
        now: The time of this look.
        typical_s: The usual span from asked to done, shortest and longest in seconds.

    Returns:
        e.g. `Running - 1:44 so far - usually 1:30-3:20`.
    """
    return wording.plain(
        [wording.state_word(record), *wording.wait_words(record, now=now, typical_s=typical_s)]
    )


def _head(record: RunRecord, name: str | None, *, reused: bool, detached: bool) -> Html:
    word = wording.state_word(record, reused=reused, detached=detached)
    pill = html.pill(word, colour(record, detached=detached))
    left = tag("span", pill, " ", marked(record)) if mark(record) else pill
    ids = [tag("bdi", part) for part in (name, record.id) if part]
    right = tag("span", join(ids, DOT), style=f"opacity:0.65;{html.MONO}")
    row = "display:flex;flex-wrap:wrap;justify-content:space-between;align-items:baseline;gap:4px 12px"
    return tag("div", left, right, style=row)


def _wait(record: RunRecord, now: datetime, typical_s: tuple[float, float] | None, *, bar: bool) -> Html:
    words = [*wording.wait_words(record, now=now, typical_s=typical_s), f"as of {wording.clock(now)}"]
    drawn = ""
    if bar and typical_s is not None and record.status is not RunStatus.SAVING:
        drawn = _bar(wording.waited_s(record, now), *typical_s)
    said = tag("div", "Latest word: ", tag("bdi", one_line(record.message))) if record.message and bar else ""
    return join([drawn, tag("div", tag("div", join(words, DOT)), said, style=_FAINT)])


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


def _money(record: RunRecord, totals: Totals | None, *, reused: bool) -> Html:
    words = tag("div", prose(wording.money_words(record, reused=reused)), style="margin-top:6px")
    if totals is None:
        return words
    return join([words, tag("div", prose(wording.session_words(totals)), style=_FAINT)])


def _attached(record: RunRecord, *, reused: bool) -> Html:
    if not reused or record.status.ended:
        return Html()
    return tag(
        "div", "This run was under way already: nothing new was sent.", style=f"{_FAINT};margin-top:6px"
    )
