"""Several clips compared: a contact sheet that stays in the notebook, and a live view in lock step.

Invariants: nothing is sent and nothing is paid; the sheet stands alone (stills inside it, no script, no
trust) and the live view is made only where somebody watches; a clip that is not here or not the recorded
one is said in words in its place, and its stills are not shown.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from kling_nb.commands.answer import Answer
from kling_nb.commands.order import CommandCall, named
from kling_nb.commands.syntax.values import shown, wrong
from kling_nb.engine.run import Run, Video
from kling_nb.errors import UsageError, one_line
from kling_nb.media.probe import stills
from kling_nb.notebook.viewers.player import clip_state
from kling_nb.notebook.widgets import CLIP_BYTES, ClipSource, LiveView, make_widget, watched
from kling_nb.records.base import utc_now
from kling_nb.records.privacy import redacted, words_of
from kling_nb.records.run import RunRecord
from kling_nb.views import card_parts, html
from kling_nb.views.card import line
from kling_nb.views.card_parts import CardState
from kling_nb.views.html import DOT, Html, join, link, tag
from kling_nb.views.words import ask_words

if TYPE_CHECKING:
    from kling_nb.media.folder import Store

__all__ = ["Comparison", "End", "compare", "compare_line"]

End = Literal["longest", "shortest"]


"""When the comparison is over; with the longest, shorter clips hold their last frame."""


MOST = 16

#: Of all the stills of a sheet, before they become text a third longer: the whole stays below 200 KB.
_SHEET_BYTES = 120_000
_STILL_BYTES = 4_600

#: Width of a still in pixels by aspect ratio.
_WIDTHS = {"16:9": 200, "9:16": 112, "1:1": 150}

#: A page holds every clip of a comparison in memory at once.
_PAGE_BYTES = 3 * CLIP_BYTES
_MOMENTS = ("first frame", "middle", "last frame")
_SCRIPTS = ("shared/page.js", "shared/clips.js", "shared/lockstep.js", "shared/controls.js", "compare.js")
_STYLES = ("shared/live.css", "compare.css")
_AGAIN = "To play them in lock step, run this cell again in a live kernel."
_kept: OrderedDict[tuple[str, int], list[str | None]] = OrderedDict()


def compare(runs: "Iterable[Run | Video | str] | Run | Video | str", *, end: End = "longest") -> "Comparison":
    """Put clips side by side in lock step, with a contact sheet for the saved notebook; nothing is sent.

    Args:
        runs: Runs, clips or ids, 1 to 16 of them; also what `kling.runs()` or `-n 4` gives.
        end: `longest`: shorter clips hold their last frame until the longest is over; or `shortest`.

    Returns:
        What the notebook shows as the last line of a cell, or by `display`.

    Raises:
        UsageError: There is no such run, or too many.

    Example:
        >>> compare([])
        Traceback (most recent call last):
        kling_nb.errors.UsageError: There is nothing to compare. Charged: no. Name runs, clips or ids.
    """
    from kling_nb.session.api import current

    session = current()
    asked = [runs] if isinstance(runs, Run | Video | str) else list(runs)
    if not asked:
        raise UsageError("There is nothing to compare.", cure="Name runs, clips or ids.")
    engine = session.engine()
    handles = []
    for thing in asked:
        if isinstance(thing, Video):
            handles.append(engine.handle(thing.record))
        elif isinstance(thing, Run):
            handles.append(thing)
        elif isinstance(thing, str):
            handles.append(session.find(thing))
        else:
            raise UsageError(f"A {type(thing).__name__} cannot be compared.", cure="Name runs, clips or ids.")
    return Comparison(handles, store=engine.store, end=end)


def compare_line(call: CommandCall) -> Answer:
    """Carry out `%kling compare ID ID ...`."""
    runs = named(call)
    if not runs:
        raise wrong("`%kling compare` needs runs.", "Name variables or ids: see `%kling list`.")
    end = call.flags.get("--end", "longest")
    if end not in {"longest", "shortest"}:
        raise wrong(f"--end takes longest or shortest, not {shown(end)}.")
    view = Comparison(runs, store=call.session.engine().store, end=cast("End", end))
    return Answer(view=view)


class Comparison:
    """Clips to be compared, as the notebook shows them.

    Args:
        runs: Handles; a run named twice counts once.
        store: Gives the store of a media folder.
        end: See `compare`.

    Raises:
        UsageError: There are too many, or `end` is no such word.

    Example:
        >>> Comparison([], store=Store)  # doctest: +SKIP
    """

    def __init__(self, runs: Sequence[Run], *, store: "Callable[[str], Store]", end: End = "longest") -> None:
        self.runs = list({run.id: run for run in runs}.values())
        if len(self.runs) > MOST:
            raise UsageError(
                f"{len(self.runs)} clips are too many to compare at once, at most {MOST}.",
                cure="Compare them in groups, or look at all of them with `%kling gallery`.",
            )
        if end not in {"longest", "shortest"}:
            raise UsageError("end is longest or shortest.")
        self.end = end
        self._takes = any(run.record.take for run in self.runs)
        self._store = store
        self._source = ClipSource(
            [run.record for run in self.runs],
            store=store,
            limit_bytes=min(CLIP_BYTES, _PAGE_BYTES // max(1, len(self.runs))),
        )

    def __repr__(self) -> str:
        return self._text()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.bundle(), raw=True)
        if watched():
            with contextlib.suppress(ImportError):
                widget = make_widget("compare", _SCRIPTS, _STYLES, self.state())
                self._source.serve(widget)
                LiveView(widget).show()

    def state(self) -> dict[str, Any]:
        """Give what the page is told, as plain JSON: no path, no address, no key."""
        alike, shared = self._prompt(), self._shared()
        clips = []
        for run in self.runs:
            clip = self._clip(run, self._source.why_not(run.id))
            title, clip["facts"] = self._title_and_facts(run, clip["facts"], shared)
            prompt = words_of(run.record) if alike is None else None
            clips.append({**clip, "title": title, "prompt": prompt})
        return {"clips": clips, "prompt": alike, "facts": shared, "end": self.end}

    def bundle(self) -> dict[str, str]:
        """Give the contact sheet and its text twin, as one MIME bundle."""
        alike = self._prompt()
        parts: list[object] = [tag("b", self._head())]
        if alike is not None:
            parts.append(card_parts.prompt_words(redacted(self.runs[0].record), live=False))
        if shared := self._shared():
            parts.append(tag("div", join(shared, DOT), style=html.FAINT))
        parts += [self._row(number, run, alone=alike is None) for number, run in enumerate(self.runs, 1)]
        # In a notebook that was saved with its live view open, this stands above the page's error line.
        parts.append(tag("div", _AGAIN, style=f"{html.FAINT};margin-top:8px"))
        page = tag("div", *parts, style=f"{html.FRAME};{html.FONT};overflow-wrap:break-word")
        return {"text/html": page, "text/plain": self._text()}

    # -- inside ------------------------------------------------------------------------------------
    def _head(self) -> str:
        return f"Comparison of {len(self.runs)} clips" if len(self.runs) != 1 else "1 clip"

    def _text(self) -> str:
        alike = self._prompt()
        lines = [self._head(), *([f'"{one_line(alike)}"'] if alike is not None else [])]
        for run in self.runs:
            src, _ = run.shown_clip()
            why = self._source.why_not(run.id)
            text = line(
                CardState(record=run.record, name=run.name, src=src), totals=None, now=utc_now()
            ).splitlines()
            lines += [text[0], *(f"  {why}" for why in [why] if why)]
        return "\n".join(lines)

    def _prompt(self) -> str | None:
        """Give the words that all of them share, or None."""
        words = {words_of(run.record) for run in self.runs}
        return words.pop() if len(words) == 1 else None

    def _clip(self, run: Run, why: str | None) -> dict[str, Any]:
        return clip_state(redacted(run.record), run.name, why, takes=self._takes)

    def _shared(self) -> list[str]:
        """Give the facts that all clips have in common, which are said once."""
        every = [self._clip(run, None)["facts"] for run in self.runs]
        return [fact for fact in every[0] if all(fact in facts for facts in every)] if len(every) > 1 else []

    def _title_and_facts(
        self, run: Run, facts: Sequence[str], shared: Sequence[str]
    ) -> tuple[str, list[str]]:
        """Say what was asked for a clip alone, and what else is true of it alone."""
        asked = [one_line(word) for word in ask_words(redacted(run.record), takes=self._takes)]
        own = [word for word in asked if word not in shared]
        return ", ".join(own), [f for f in facts if f not in {*shared, *own}]

    def _row(self, number: int, run: Run, *, alone: bool) -> Html:
        record, why = redacted(run.record), self._source.why_not(run.id)
        ids = [tag("bdi", part) for part in (run.name, run.id) if part]
        src, _ = run.shown_clip()
        media = record.media
        named_file = [link(tag("bdi", media.file), src)] if media is not None and src else []
        shared = self._shared()
        named, facts = self._title_and_facts(run, self._clip(run, why)["facts"], shared)
        title = tag("b", f"{number}. ", tag("bdi", named))
        words = [
            tag("div", title, DOT if named else "", join(ids, DOT)),
            card_parts.prompt_words(record, live=False) if alone else "",
            tag("div", join([*facts, *named_file], DOT), style=html.FAINT),
        ]
        shown_here = html.callout(html.AMBER, why) if why is not None else self._stills(record, number)
        return tag(
            "div", *words, shown_here, style=f"border-top:{html.LINE};margin-top:8px;padding:6px 0 0 0"
        )

    def _stills(self, record: RunRecord, number: int) -> Html:
        pictures = self._look(record)
        seconds = _moments(record)
        width = _WIDTHS[record.request.aspect_ratio]
        tiles = [
            tag(
                "div",
                _still(uri, f"clip {number}, {word}"),
                _caption(word, at),
                style=f"flex:0 1 {width}px;min-width:0",
            )
            for uri, word, at in zip(pictures, _MOMENTS, seconds, strict=True)
        ]
        return tag("div", *tiles, style="display:flex;gap:6px;margin-top:4px")

    def _look(self, record: RunRecord) -> list[str | None]:
        """Take the stills of a clip, or those taken before."""
        most = min(_STILL_BYTES, _SHEET_BYTES // (len(_MOMENTS) * len(self.runs)))
        path = self._store(record.folder).path(record)
        if path is None or record.media is None:
            return [None] * len(_MOMENTS)
        key = (record.media.sha256, most)
        if key not in _kept:
            _kept[key] = stills(
                path.resolve(),
                _moments(record),
                width=_WIDTHS[record.request.aspect_ratio],
                most_bytes=most,
            )
            while len(_kept) > 64:
                _kept.popitem(last=False)
        return _kept[key]


def _moments(record: RunRecord) -> list[float]:
    media = record.media
    if media is None:
        return [0.0, 0.0, 0.0]
    last = max(0.0, media.duration_s - 1 / (media.fps or 24))
    return [0.0, last / 2, last]


def _still(uri: str | None, words: str) -> Html:
    if uri is None:
        return tag("div", f"no picture of {words}", style=html.FAINT)
    return tag("img", src=uri, alt=words, style="width:100%;border-radius:4px")


def _caption(word: str, seconds: float) -> Html:
    return tag("div", f"{word}, {seconds:.2f} s", style=f"font-size:11px;{html.FAINT}")
