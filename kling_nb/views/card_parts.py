"""The parts that the card of one run and the card of several share: words, picture, end, clip.

Invariants: each is a function of a record; the word for the state stands beside its colour; a box says what
is on its way until there is a clip; nothing that opens on a click is on a part that is still redrawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kling_nb.addresses import is_loopback
from kling_nb.errors import one_line
from kling_nb.records.privacy import redacted, words_of
from kling_nb.records.request import Shot
from kling_nb.records.run import RunRecord, RunStatus
from kling_nb.views import html, words
from kling_nb.views.html import DOT, Html, join, prose, safe_url, tag
from kling_nb.views.outcome import ending
from kling_nb.views.waits import Turn
from kling_nb.views.words import file_words

__all__ = [
    "CardState",
    "all_words",
    "clip_words",
    "mark",
    "marked",
    "picture",
    "pill",
    "prompt_words",
    "story",
]

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

#: A dot nobody sees: without a still of its own Chromium paints the player grey (measured), and hides ours.
_CLEAR = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
_FILL = "rgba(128,128,128,0.12)"
_WRAP = "overflow-wrap:break-word"
_HEAD_CHARS, _HEAD_LINES, _SHOT_CHARS = 220, 4, 56


@dataclass(frozen=True, kw_only=True)
class CardState:
    """One run as a card, a tile of a grid, or a line of text shows it.

    Args:
        record: The run.
        name: The variable that holds it, if any.
        src: The clip's address as the notebook reaches it, percent-encoded; None where the file is not here.
        poster: A small JPEG as a data address.
        typical_s: The usual span from sent to done, shortest and longest in seconds.
        turn: Its turn, where it waits for a place at its provider.
        reused: Whether nothing was sent for this cell, because the run was there already.
        note: A further sentence of ours.
        detached: Whether we stopped watching.
        embed: The clip itself as a data address, played instead of `src`.
        player: Whether a finished clip is played here, or only shown by its still and linked.
        aside: What is to be known of the clip in this output; ours, and no word of the request.

    Example:
        >>> CardState.__name__
        'CardState'
    """

    record: RunRecord
    name: str | None = None
    src: str | None = None
    poster: str | None = None
    typical_s: tuple[float, float] | None = None
    turn: Turn | None = None
    reused: bool = False
    note: str = ""
    detached: bool = False
    embed: str | None = None
    player: bool = True
    aside: str = ""

    @property
    def word(self) -> str:
        """The word for where the run is."""
        waiting = self.turn is not None
        return words.state_word(self.record, reused=self.reused, detached=self.detached, waiting=waiting)


def pill(state: CardState) -> Html:
    """Draw the word for where the run is, on the colour of its state."""
    grey = state.detached and state.record.status.pending
    return html.pill(state.word, html.GREY if grey else _COLOURS[state.record.status])


def mark(record: RunRecord, form: str = "{}") -> str:
    """Name what is not a real run: the sandbox, or a provider's wire spoken by something on loopback."""
    if record.play or record.provider == "sandbox":
        return form.format("Sandbox")
    return form.format("Stand-in, not the provider") if is_loopback(record.origin) else ""


def marked(record: RunRecord) -> Html:
    """Draw that word in a frame; nothing for a real run."""
    frame = f"display:inline-block;border:{html.LINE};border-radius:10px;padding:0 9px;font-size:12px"
    return tag("span", mark(record), style=frame) if mark(record) else Html()


def all_words(record: RunRecord) -> str:
    """Give the prompt and the shots as one text; of a private run its hash."""
    if record.private:
        return words_of(record)
    shots = [f"[{shot.duration}s] {shot.prompt}" for shot in record.request.shots or ()]
    return " ".join([record.request.prompt or "", *shots]).strip()


def prompt_words(record: RunRecord, *, live: bool) -> Html:
    """Draw the prompt and the shots; long ones open on a click, unless the card is still redrawn."""
    if record.private:
        return tag("div", words_of(record), style=f"margin:8px 0 6px;{html.FAINT}")
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
    first = tag("div", words.short(head, _HEAD_CHARS).removesuffix("…") + "…", style=look, dir="auto")
    if live:
        return join([first, tag("div", f"{len(text):,} characters in all", style=html.FAINT)])
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
    phrases = tag("span", shot.prompt.strip(), style=look, dir="auto")
    return tag("div", seconds, phrases, style="display:flex;gap:8px;padding:1px 0")


def story(state: CardState) -> Html:
    """Draw what the end of a run without a clip means for its owner; nothing where nothing needs telling."""
    outcome = ending(state.record, detached=state.detached)
    if outcome is None:
        return Html()
    record = redacted(state.record)
    said = tag("div", tag("bdi", one_line(record.message)), style=html.FAINT) if record.message else ""
    return html.callout(
        html.GREY if record.status.pending else _COLOURS[record.status],
        tag("div", outcome.what),
        said,
        tag("div", tag("b", outcome.charged), " ", prose(outcome.cure)),
        tag("div", "Look at ", html.link(words.host(outcome.site), outcome.site)) if outcome.site else "",
    )


def clip_words(state: CardState) -> Html:
    """Draw the line of a finished clip: how long it took, its file, or that the file is not here."""
    record = state.record
    if record.status is not RunStatus.SUCCEEDED:
        return Html()
    took = [f"took {words.minutes(record.seconds)}"] if record.seconds is not None else []
    named = tag("bdi", record.media.file) if record.media else Html("the clip")
    facts = file_words(record.media)[:2] if record.media else []
    if safe_url(state.src):
        lines = [join([*took, html.link(named, state.src), *facts], DOT)]
        lines += [
            join(["further video", tag("bdi", media.file), *file_words(media)[:2]], DOT)
            for media in record.further
        ]
        lines += [tag("bdi", one_line(record.message))] if record.message else []
        return tag("div", join([tag("div", line) for line in lines]), style=html.FAINT)
    if safe_url(state.embed, data="video"):
        return tag("div", join([*took, named, "kept inside this notebook", *facts], DOT), style=html.FAINT)
    cure = (
        "Put the file back, or run the cell again: the sandbox draws it anew, for play money."
        if record.play
        else "Put the file back, or run the cell again: what the provider still has is fetched again, and "
        "nothing is bought. Its SHA-256 is in the receipt."
    )
    outcome = html.callout(html.AMBER, tag("div", tag("b", named, " is not here.")), tag("div", prose(cure)))
    return join([tag("div", join([*took, *facts], DOT), style=html.FAINT), outcome])


def picture(state: CardState) -> Html:
    """Draw the box with the clip, its still, or what is on its way.

    The still is an image below the player, and not the player's own: so a reader who is shown no video
    (GitHub, a feed, a printer) has it, and it is in the notebook once.
    """
    width, height = _BOXES[state.record.request.aspect_ratio]
    inside = "position:absolute;left:0;top:0;width:100%;height:100%"
    file = safe_url(state.src)
    played = safe_url(state.embed, data="video") or file
    still = safe_url(state.poster, data="image")
    done = state.record.status is RunStatus.SUCCEEDED
    # A line of its own, so that a line-wise diff of two states does not repeat it.
    shown = join(["\n", tag("img", src=still, alt="first frame", style=inside), "\n"]) if still else Html()
    if done and not state.player:
        if not still:
            return Html()
        held = tag("a", shown, href=file) if file else shown
    elif done and played:
        video = tag(
            "video",
            controls=True,
            loop=True,
            preload="none",
            width=width,
            style=inside if still else f"{inside};background:#000",
            poster=_CLEAR if still else None,
            src=played,
        )
        held = join([shown, video])
    elif done and still:
        # A clip that is not here still shows what it was.
        held = tag("img", src=still, alt="first frame", style=f"{inside};opacity:0.6")
    else:
        centre = "display:flex;align-items:center;justify-content:center;opacity:0.65;font-size:12px"
        held = tag(
            "div",
            "waiting for a place"
            if state.turn
            else _PLACES.get(state.record.status, "clip not here" if done else "no clip"),
            style=f"{inside};{centre}",
        )
    # The sanitizer drops `aspect-ratio`; padding in per cent of the width keeps the box in shape as well.
    frame = f"position:relative;padding-bottom:{height};border-radius:6px;overflow:hidden;background:{_FILL}"
    return tag("div", tag("div", held, style=frame), style=f"flex:0 1 {width}px;min-width:140px")
