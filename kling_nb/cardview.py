"""The card of one run as safe HTML, and its plain-text twins.

Invariants: the card of a run is a function of its record and the clock, nothing else; the word for the
state stands beside its colour; money is on every card; whoever reads a card of a run that has not ended
sees when it was true; nothing that opens on a click is on a card that is still redrawn, because each
redraw would shut it.
"""

from collections.abc import Sequence
from datetime import datetime
from ipaddress import ip_address

from kling_nb import html, receiptview, wording
from kling_nb.endings import ending
from kling_nb.errors import one_line
from kling_nb.html import DOT, Html, join, prose, safe_url, tag
from kling_nb.models import Shot
from kling_nb.records import RunRecord, RunStatus, Totals

__all__ = ["card", "line", "status_line"]

#: The picture's box by aspect ratio: width in pixels, and height in per cent of the width.
_BOXES = {"16:9": (340, "56.25%"), "9:16": (158, "177.78%"), "1:1": (220, "100%")}
_COLOURS = {
    RunStatus.CREATED: html.GREY,
    RunStatus.SUBMITTING: html.GREY,
    RunStatus.QUEUED: html.GREY,
    RunStatus.RUNNING: html.BLUE,
    RunStatus.SAVING: html.BLUE,
    RunStatus.SUCCEEDED: html.GREEN,
    RunStatus.FAILED: html.RED,
    RunStatus.CANCELED: html.GREY,
    RunStatus.LOST: html.AMBER,
}
#: What the empty box says until there is a clip.
_PLACES = {
    RunStatus.CREATED: "not sent yet",
    RunStatus.SUBMITTING: "being sent",
    RunStatus.QUEUED: "in the queue",
    RunStatus.RUNNING: "being made",
    RunStatus.SAVING: "being saved",
}
_FILL = "rgba(128,128,128,0.12)"
_COLUMNS = "display:flex;flex-wrap:wrap;align-items:flex-start;gap:10px 16px"
_BAND = "rgba(128,128,128,0.42)"
_WRAP = "overflow-wrap:break-word"
_FAINT = "opacity:0.72"
_HEAD_CHARS, _HEAD_LINES, _SHOT_CHARS = 220, 4, 56


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
    private: bool = False,
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
        private: Whether the words of the request must not be shown.

    Returns:
        One element, complete without scripts, style sheets or trust.

    Example:
        >>> card.__name__  # see `docs/` for pictures
        'card'
    """
    live = record.status.pending and not detached
    shown = live or record.status is RunStatus.SUCCEEDED
    seen = [
        _head(record, name, reused=reused, detached=detached),
        _private(record) if private else _words(record, live=live),
        tag("div", join(wording.ask_words(record), DOT), style=_FAINT),
        "" if record.status.ended else _wait(record, now, typical_s, bar=live),
        _story(record, detached=detached),
        _file(record, src, embed),
        _money(record, totals, reused=reused),
        _attached(record, reused=reused),
        tag("div", prose(note), style=f"{_FAINT};margin-top:6px", dir="auto") if note else "",
        receiptview.receipt(record, private=private) if record.status.ended else "",
    ]
    right = tag("div", *seen, style="flex:1 1 300px;min-width:0")
    return tag(
        "div",
        _picture(record, src=src, poster=poster, embed=embed) if shown else "",
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
    private: bool = False,
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
        private: Whether the words of the request must not be shown.

    Returns:
        One or two lines.
    """
    state = wording.state_word(record, reused=reused, detached=detached)
    first = [
        f"{record.id}{f' ({one_line(name)})' if name else ''} {state}{_mark(record, ' [{}]')}",
        ", ".join(one_line(word) for word in wording.ask_words(record)),
        wording.money_words(record, reused=reused),
    ]
    if record.status.pending:
        first.append(f"as of {wording.clock(now)}")
    elif record.status is RunStatus.SUCCEEDED:
        first.append(one_line(file) if file else "the clip is not here")
    told = ending(record, detached=detached)
    second = (
        [one_line(" ".join([told.what, one_line(record.message), told.charged, told.cure]))] if told else []
    )
    if not told and not private:
        second.append(f'"{wording.short(one_line(_all_words(record)), 72)}"')
    second += [one_line(note)] if note else []
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
    colour = html.GREY if detached and record.status.pending else _COLOURS[record.status]
    frame = f"display:inline-block;border:{html.LINE};border-radius:10px;padding:0 9px;font-size:12px"
    mark = _mark(record, "{}")
    left = tag("span", html.pill(word, colour), *([" ", tag("span", mark, style=frame)] if mark else []))
    ids = [tag("bdi", part) for part in (name, record.id) if part]
    right = tag("span", join(ids, DOT), style=f"opacity:0.65;{html.MONO}")
    row = "display:flex;flex-wrap:wrap;justify-content:space-between;align-items:baseline;gap:4px 12px"
    return tag("div", left, right, style=row)


def _mark(record: RunRecord, form: str) -> str:
    """Name what is not a real run: the sandbox, or a provider's wire spoken by something on loopback."""
    if record.play or record.provider == "sandbox":
        return form.format("Sandbox")
    return form.format("Stand-in, not the provider") if _loopback(record.origin) else ""


def _loopback(origin: str) -> bool:
    host = wording.host(origin)
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _all_words(record: RunRecord) -> str:
    shots = [f"[{shot.duration}s] {shot.prompt}" for shot in record.request.shots or ()]
    return " ".join([record.request.prompt or "", *shots]).strip()


def _private(record: RunRecord) -> Html:
    words = ["private prompt", tag("span", f"{record.request_key[:15]}…", style=html.MONO)]
    return tag("div", join(words, DOT), style=f"margin:8px 0 6px;{_FAINT}")


def _words(record: RunRecord, *, live: bool) -> Html:
    prompt, shots = record.request.prompt, record.request.shots or ()
    parts = [_prompt(prompt, live=live)] if prompt else []
    if shots:
        parts.append(_shots(shots, live=live))
    return tag("div", *parts, style="margin:8px 0 6px")


def _prompt(text: str, *, live: bool) -> Html:
    look = f"font-size:14px;white-space:pre-wrap;{_WRAP}"
    head = "\n".join(text.strip().splitlines()[:_HEAD_LINES])
    if head == text.strip() and len(head) <= _HEAD_CHARS * 1.25:
        return tag("div", text.strip(), style=look, dir="auto")
    first = tag("div", wording.short(head, _HEAD_CHARS).removesuffix("…") + "…", style=look, dir="auto")
    if live:
        return join([first, tag("div", f"{len(text):,} characters in all", style=_FAINT)])
    whole = tag("div", text.strip(), style=f"{look};margin-top:4px", dir="auto")
    return join([first, html.details(f"whole prompt, {len(text):,} characters", whole)])


def _shots(shots: Sequence[Shot], *, live: bool) -> Html:
    cut = "flex:1 1 auto;min-width:0;overflow:hidden;text-overflow:ellipsis;white-space:nowrap"
    brief = [_shot(shot, cut) for shot in shots]
    if live or all(len(shot.prompt) <= _SHOT_CHARS and "\n" not in shot.prompt for shot in shots):
        return tag("div", *brief)
    full = [_shot(shot, f"flex:1 1 auto;min-width:0;white-space:pre-wrap;{_WRAP}") for shot in shots]
    return tag("div", *brief, html.details(f"whole storyboard, {len(shots)} shots", *full))


def _shot(shot: Shot, look: str) -> Html:
    seconds = tag("span", f"{shot.duration} s", style="flex:0 0 34px;text-align:right;opacity:0.65")
    words = tag("span", shot.prompt.strip(), style=look, dir="auto")
    return tag("div", seconds, words, style="display:flex;gap:8px;padding:1px 0")


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


def _story(record: RunRecord, *, detached: bool) -> Html:
    told = ending(record, detached=detached)
    if told is None:
        return Html()
    said = tag("div", tag("bdi", one_line(record.message)), style=_FAINT) if record.message else ""
    colour = html.GREY if record.status.pending else _COLOURS[record.status]
    return html.callout(
        colour, tag("div", told.what), said, tag("div", tag("b", told.charged), " ", prose(told.cure))
    )


def _file(record: RunRecord, src: str | None, embed: str | None) -> Html:
    if record.status is not RunStatus.SUCCEEDED:
        return Html()
    took = [f"took {wording.minutes(record.seconds)}"] if record.seconds is not None else []
    named = tag("bdi", record.media.file) if record.media else Html("the clip")
    facts = wording.file_words(record.media)[:2] if record.media else []
    if safe_url(src):
        row = [*took, html.link(named, src), *facts]
        return tag("div", join(row, DOT), style=_FAINT)
    if safe_url(embed, data="video"):
        return tag("div", join([*took, named, "kept inside this notebook", *facts], DOT), style=_FAINT)
    cure = (
        "Put the file back, or run the cell again: what the provider still has is fetched again, and nothing "
        "is bought. Its SHA-256 is in the receipt."
    )
    told = html.callout(html.AMBER, tag("div", tag("b", named, " is not here.")), tag("div", prose(cure)))
    return join([tag("div", join([*took, *facts], DOT), style=_FAINT), told])


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


def _picture(record: RunRecord, *, src: str | None, poster: str | None, embed: str | None) -> Html:
    width, height = _BOXES[record.request.aspect_ratio]
    inside = "position:absolute;left:0;top:0;width:100%;height:100%"
    played = safe_url(embed, data="video") or safe_url(src)
    still = safe_url(poster, data="image")
    done = record.status is RunStatus.SUCCEEDED
    if done and played:
        look = f"{inside};background:#000"
        held = tag(
            "video",
            controls=True,
            loop=True,
            preload="none",
            width=width,
            style=look,
            poster=still,
            src=played,
        )
    elif done and still:
        # A clip that is not here still shows what it was.
        held = tag("img", src=still, alt="first frame", style=f"{inside};opacity:0.6")
    else:
        centre = "display:flex;align-items:center;justify-content:center;opacity:0.6;font-size:12px"
        held = tag("div", _PLACES.get(record.status, "clip not here"), style=f"{inside};{centre}")
    # The sanitizer drops `aspect-ratio`; padding in per cent of the width keeps the box in shape as well.
    frame = f"position:relative;padding-bottom:{height};border-radius:6px;overflow:hidden;background:{_FILL}"
    return tag("div", tag("div", held, style=frame), style=f"flex:0 1 {width}px;min-width:140px")
