"""Many runs at a glance: a contact sheet that is saved, and a live one that plays, filters and selects.

Invariants: nothing is sent to a page before somebody looks at it (a still when its tile comes into view, a
clip under the pointer or the focus); what is selected is told in the order of the sheet; headless there is no
widget, and a page that was shut is no error.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kling_nb.commands.answer import Answer
from kling_nb.commands.order import CommandCall, named, only_runs
from kling_nb.commands.overview import cost_word
from kling_nb.commands.syntax.values import read_tag, wrong
from kling_nb.engine.run import Run
from kling_nb.engine.runs import Runs
from kling_nb.errors import one_line
from kling_nb.notebook.widgets import ClipSource, LiveView, make_widget, watched
from kling_nb.pricing.catalog import provider_label
from kling_nb.records.base import utc_now
from kling_nb.records.privacy import redacted, words_of
from kling_nb.records.run import RunRecord, RunStatus
from kling_nb.views.contact_sheet import MOST, NOT_SENT, Tile, sheet, sheet_text
from kling_nb.views.stills import Grid, stills
from kling_nb.views.words import ask_words, clock, short, state_word

if TYPE_CHECKING:
    from kling_nb.session.session import Session

__all__ = ["Gallery", "gallery", "gallery_line", "grid_gallery"]

#: Without a word of which runs, the newest so many.
_NEWEST = 100

#: A live sheet has no more tiles: a page holds each of them.
_MOST_LIVE = 1000
_PROMPT = 300
_SCRIPTS = ("shared/page.js", "shared/clips.js", "gallery.js")
_STYLES = ("shared/live.css", "gallery.css")


def gallery(runs: "Run | Runs | Sequence[Run] | None" = None) -> "Gallery":
    """Make a contact sheet of runs; show it by naming it last in a cell.

    Args:
        runs: Which; the newest hundred of the ledger when left out.

    Returns:
        The gallery: `selected` gives what was picked in it.

    Raises:
        UsageError: These are no runs.
        LedgerError: The ledger cannot be read.

    Example:
        >>> sheet = gallery(kling.runs())   # doctest: +SKIP
        >>> sheet.selected                  # doctest: +SKIP
        no runs
    """
    from kling_nb.session.api import current

    session = current()
    if runs is None:
        return Gallery(_in_order(session.runs(limit=_NEWEST)), session)
    return Gallery(Runs(only_runs(runs, "A gallery")), session)


def _in_order(runs: Runs) -> Runs:
    """Put takes that were asked for together, and have one time, beside each other."""
    newest = sorted(runs, key=lambda run: (run.record.created_at, run.record.take), reverse=True)
    return Runs(newest, note=runs.note)


def grid_gallery(grid: Grid, runs: Mapping[int, Run]) -> "Gallery":
    """Make a contact sheet in rows and columns.

    Args:
        grid: What stands where.
        runs: By the number that the grid knows each by; a place without one is shown as not sent.

    Returns:
        The gallery, whose runs are in the order of the grid.
    """
    from kling_nb.session.api import current

    return Gallery(Runs([runs[n] for _, n in sorted(grid.cells.items()) if n in runs]), current(), grid, runs)


def gallery_line(call: CommandCall) -> Answer:
    """Answer `%kling gallery`."""
    session = call.session
    if call.words and call.flags:
        raise wrong("`%kling gallery` takes runs, or --all, or --tag.", "See `%kling help gallery`.")
    if call.words:
        found = Runs(named(call))
    elif "--tag" in call.flags:
        [(key, value)] = read_tag(call.flags["--tag"]).items()
        found = Runs([run for run in session.runs() if run.record.tags.get(key) == value])
    else:
        found = _in_order(session.runs(limit=None if "--all" in call.flags else _NEWEST))
    view = Gallery(found, session)
    return Answer(view=view, value=view)


class Gallery:
    """A contact sheet of runs.

    Args:
        runs: In the order in which they stand.
        session: Whose clips are shown.
        grid: Its rows and columns, where it has some.
        numbered: The runs by the numbers of the grid.
    """

    def __init__(
        self,
        runs: Runs,
        session: "Session",
        grid: Grid | None = None,
        numbered: Mapping[int, Run] | None = None,
    ) -> None:
        self._grid, self._numbered = grid, numbered or {}
        self.runs = Runs(list({run.id: run for run in runs}.values()))
        self._session = session
        self._chosen: frozenset[str] = frozenset()
        self._widget: Any = None
        self._takes = any(run.record.take for run in self.runs)
        self._handle: Any = None
        self._live = {run.id: run for run in self.runs[:_MOST_LIVE]}
        #: What a page begins with, by run.
        self._sent: dict[str, dict[str, Any]] = {}

    def __repr__(self) -> str:
        return sheet_text([self._tile(run, still=False) for run in self.runs])

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def selected(self) -> Runs:
        """The runs that are selected now, in the order of the sheet."""
        return Runs([run for run in self.runs if run.id in self._chosen])

    @property
    def value(self) -> list[dict[str, Any]]:
        """Every run as plain data, with whether it is selected."""
        return [{**self._words(run), "selected": run.id in self._chosen} for run in self.runs]

    @property
    def html(self) -> str:
        """The sheet as it is saved."""
        if self._grid is not None and self.runs:
            rest = f"the live gallery has the first {_MOST_LIVE} clips while its kernel runs."
            return stills(self._grid, self._place, rest=rest)
        going = any(run.status.pending for run in self.runs)
        note = f"as of {clock(utc_now(), date=True)}" if going else ""
        return sheet([self._tile(run, still=n < MOST) for n, run in enumerate(self.runs)], note=note)

    def _ipython_display_(self) -> None:
        from IPython.display import DisplayHandle

        # Before the sheet is drawn: what changes from here on is told.
        self._sent = {run.id: self._words(run) for run in self._live.values()}
        self._handle = DisplayHandle()
        self._handle.display(self._bundle(), raw=True)
        if self.runs and watched():
            with contextlib.suppress(ImportError):
                self._show_live()

    def _bundle(self) -> dict[str, Any]:
        return {"text/html": self.html, "text/plain": repr(self)}

    def _show_live(self) -> None:
        left = len(self.runs) - len(self._live)
        note = f"The first {len(self._live)} of {len(self.runs)} runs." if left > 0 else ""
        state = {"tiles": list(self._sent.values()), "note": note, "grid": self._places()}
        self._widget = make_widget("gallery", _SCRIPTS, _STYLES, state)
        self._source = self._clips()
        self._widget.on_msg(self._on_message)
        LiveView(self._widget).show()
        self._listen()

    def _listen(self) -> None:
        for run in self._live.values():
            if self._sent[run.id]["pending"]:
                run.on_change(self._changed)
                # It may have moved before anybody listened, and then it tells nothing more.
                if self._words(run) != self._sent[run.id]:
                    self._changed(run)

    def _clips(self) -> ClipSource:
        records = [run.record for run in self._live.values()]
        return ClipSource(records, store=self._session.engine().store)

    # -- what the page says ------------------------------------------------------
    def _on_message(self, widget: Any, content: Any, _buffers: object) -> None:
        if not isinstance(content, Mapping):
            return
        kind = content.get("kind")
        if kind == "clip":
            message, buffers = self._source.answer(content)
            widget.send(message, buffers)
        elif kind == "stills":
            for run in self._of(content):
                _, still = run.shown_clip()
                widget.send({"kind": "still", "id": run.id, "uri": still})
        elif kind == "select":
            self._chosen = frozenset(run.id for run in self._of(content))
            self._tell_chosen(widget, content.get("by"))
        elif kind == "hello":
            self._tell_chosen(widget)
            self._tell_moved(widget)

    def _of(self, content: Mapping[str, Any]) -> list[Run]:
        """Give the runs that a page names; whatever else it names is passed over."""
        ids = content.get("ids")
        asked = ids if isinstance(ids, list) else []
        return [self._live[i] for i in asked if isinstance(i, str) and i in self._live]

    def _tell_chosen(self, widget: Any, by: object = None) -> None:
        # To every page that shows it, so that two windows on one notebook agree. The page that said so is
        # named: it may be ahead of this answer already.
        said_by = by[:40] if isinstance(by, str) else ""
        widget.send({"kind": "selected", "ids": [run.id for run in self.selected], "by": said_by})

    def _tell_moved(self, widget: Any) -> None:
        # A page that has just come, or was loaded anew, begins with what was so when the cell ran.
        for run_id, sent in self._sent.items():
            words = self._words(self._live[run_id])
            if words != sent:
                widget.send({"kind": "tile", "tile": words})

    # -- what the runs say -------------------------------------------------------
    def _changed(self, run: Run) -> None:
        """Bring a tile up to date; called on the background loop, so it only sends words."""
        self._source = self._clips()
        self._widget.send({"kind": "tile", "tile": self._words(run)})
        if run.done and all(other.done for other in self._live.values()):
            self._session.loop.start(self._redraw())

    async def _redraw(self) -> None:
        bundle = await asyncio.to_thread(self._bundle)
        self._handle.update(bundle, raw=True)

    # -- rows and columns ----------------------------------------------------------
    def _place(self, number: int) -> Tile:
        run = self._numbered.get(number)
        return NOT_SENT if run is None else self._tile(run, still=True)

    def _places(self) -> dict[str, Any] | None:
        """Say where the runs of a page stand in its grid."""
        if self._grid is None:
            return None
        at = {self._numbered[n].id: place for place, n in self._grid.cells.items() if n in self._numbered}
        rows = self._grid.rows
        return {
            "heads": list(self._grid.heads),
            "rows": {row: [short(one_line(text), _PROMPT) for text in rows[row]] for row, _ in at.values()},
            "at": {run_id: list(at[run_id]) for run_id in self._live},
        }

    # -- what is said of a run -----------------------------------------------------
    def _asked(self, record: RunRecord) -> list[str]:
        return ask_words(redacted(record), takes=self._takes)

    def _tile(self, run: Run, *, still: bool) -> Tile:
        record = run.record
        src, poster = run.shown_clip() if still else (None, None)
        return Tile(
            id=run.id,
            name=run.name,
            state=state_word(record, detached=run.detached),
            cost=cost_word(record),
            seconds=record.request.duration,
            asked=tuple(self._asked(record)),
            prompt=_prompt(run),
            src=src,
            poster=poster,
            file=record.media.file if record.media else "",
        )

    def _words(self, run: Run) -> dict[str, Any]:
        """Say of a run what a page shows of it, as plain data."""
        record = redacted(run.record)
        asked = self._asked(record)
        return {
            "id": run.id,
            "name": run.name or "",
            "state": state_word(record, detached=run.detached),
            "plays": record.status is RunStatus.SUCCEEDED and record.media is not None,
            "pending": record.status.pending,
            "prompt": short(_prompt(run), _PROMPT),
            "asked": asked,
            "model": asked[0],
            "provider": provider_label(record.provider),
            "tags": [short(f"{key}={value}", 80) for key, value in sorted(record.tags.items())],
            "cost": cost_word(record),
            "micros": record.settled_micros,
            "seconds": record.request.duration,
            "shape": record.request.aspect_ratio,
            "created": record.created_at.isoformat(),
        }


def _prompt(run: Run) -> str:
    return one_line(words_of(run.record))
