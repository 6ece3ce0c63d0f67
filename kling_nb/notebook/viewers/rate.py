"""Blind votes on pairs of clips, and the scores that they come to.

Invariants: before a vote, neither the page nor what is saved of it tells which run is which (no id, model,
provider, take, cost, file or address; no refusal names one); what is saved says how many votes there are.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kling_nb.commands.answer import Answer, answer
from kling_nb.commands.order import CommandCall, named, only_runs
from kling_nb.commands.syntax.values import wrong
from kling_nb.engine.run import Run
from kling_nb.errors import KlingError, UsageError
from kling_nb.notebook.widgets import ClipSource, LiveView, make_widget, watched
from kling_nb.ratings.ballot import Ballot, Showing
from kling_nb.ratings.pairing import By, grouping
from kling_nb.ratings.ratings import Agreement, Ratings
from kling_nb.ratings.scoring import Scores
from kling_nb.ratings.votes import AXES, Axis, Vote, standing, votes
from kling_nb.records.privacy import in_place_of
from kling_nb.records.run import RunStatus
from kling_nb.views.html import join, prose, tag
from kling_nb.views.words import plain, there_are

if TYPE_CHECKING:
    from kling_nb.engine.runs import Runs
    from kling_nb.session.session import Session

__all__ = ["Rating", "rate", "rate_line"]

_SCRIPTS = ("shared/page.js", "shared/clips.js", "rate.js")
_STYLES = ("shared/live.css", "rate.css")
_QUESTIONS: Mapping[Axis, str] = {"visual": "Visual quality", "motion": "Motion", "text": "Fits the text"}


def rate(
    runs: "Run | Runs | Sequence[Run] | None" = None,
    *,
    by: By = "model",
    axes: Sequence[Axis] = (),
    rater: str | None = None,
    seed: int | None = None,
) -> "Rating":
    """Vote on pairs of clips without knowing which is which; show it by naming it last in a cell.

    Args:
        runs: Which; every finished run of the ledger when left out.
        by: What is compared: `model`, `provider`, `tag:KEY`, or a function of a run's record.
        axes: Asked for beside the vote on the whole: any of `visual`, `motion`, `text`.
        rater: Who votes; the user of this session when left out.
        seed: Draws the order and the sides; for tests.

    Returns:
        The rating: `table()` gives its scores, at any time.

    Raises:
        UsageError: These are no runs, or there is nothing of the kind to compare.
        LedgerError: The ledger cannot be read.

    Example:
        >>> ratings = rate(kling.runs(), axes=["motion"])   # doctest: +SKIP
        >>> ratings.table()                                 # doctest: +SKIP
    """
    from kling_nb.session.api import current

    session = current()
    done = [RunStatus.SUCCEEDED]
    found = list(session.runs(statuses=done)) if runs is None else only_runs(runs, "A rating")
    return Rating(found, session, by=by, axes=axes, rater=rater, seed=seed)


def rate_line(call: CommandCall) -> Answer:
    """Answer `%kling rate`."""
    session = call.session
    found = named(call) if call.words else list(session.runs(statuses=[RunStatus.SUCCEEDED]))
    rating = Rating(
        found,
        session,
        by=call.flags.get("--by", "model"),
        axes=AXES if "--axes" in call.flags else (),
        rater=call.flags.get("--rater"),
    )
    if "--csv" in call.flags:
        if not call.flags["--csv"]:
            raise wrong("--csv needs a file.", "E.g. `%kling rate --csv votes.csv`.")
        path = call.file(call.flags["--csv"])
        rating.to_csv(path, allow_sandbox="--allow-sandbox" in call.flags)
        words = f"{there_are(len(rating.votes), 'vote')} in {path.name}."
        return answer([words], value=path)
    if "--table" in call.flags:
        scores = rating.table()
        words = _agreed(rating.agreement())
        page = tag("div", scores.html, tag("div", words))
        return Answer(html=page, text=f"{scores!r}\n{words}", value=scores)
    return Answer(view=rating, value=rating)


def _agreed(found: Agreement) -> str:
    if found.share is None:
        return "No pair was judged by more than one rater, so there is no agreement to measure."
    alpha = "not defined" if found.alpha is None else f"{found.alpha:.2f}"
    return (
        f"On the {found.pairs} pairs that more than one rater has judged, {found.share:.0%} of votes agree; "
        f"Krippendorff's alpha is {alpha}."
    )


class Rating:
    """A ballot of one rater, and the votes of all.

    Args:
        runs: Handles.
        session: Whose ledger keeps the votes.
        by: See `rate`.
        axes: See `rate`.
        rater: See `rate`.
        seed: See `rate`.

    Raises:
        UsageError: See `rate`.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        session: "Session",
        *,
        by: By = "model",
        axes: Sequence[Axis] = (),
        rater: str | None = None,
        seed: int | None = None,
    ) -> None:
        asked = (axes,) if isinstance(axes, str) else tuple(axes)
        if not set(asked) <= set(AXES):
            raise UsageError(f"axes: should be some of {', '.join(AXES)}.")
        settings = session.settings()
        self.axes: tuple[Axis, ...] = tuple(axis for axis in AXES if axis in asked)
        self.by = by
        self._ledger = session.ledger()
        self._records = [run.record for run in runs if run.record.status is RunStatus.SUCCEEDED]
        self._source = ClipSource(self._records, store=session.engine().store)
        self._handle: Any = None
        self._why = ""
        grouping(by)
        self.ballot = Ballot(
            self._records,
            self._ledger,
            rater=settings.user if rater is None else rater,
            by=by,
            showable=lambda record: self._source.why_not(record.id) is None,
            seed=seed,
            session_id=session.id,
            project=settings.project,
        )

    # -- what it comes to ------------------------------------------------------------
    @property
    def ratings(self) -> Ratings:
        """Every vote that counts on these runs, of all raters."""
        ids = {record.id for record in self._records}
        return Ratings(standing(votes(self._ledger, runs=ids)), self._records, self.by)

    @property
    def votes(self) -> tuple[Vote, ...]:
        """The votes that count, of all raters, oldest first."""
        return self.ratings.votes

    @property
    def left_share(self) -> float | None:
        """How often the clip on the left won; see `Ratings.left_share`."""
        return self.ratings.left_share

    def table(self, axis: Axis | None = None) -> Scores:
        """Give the scores; see `Ratings.table`."""
        return self.ratings.table(axis)

    def agreement(self, axis: Axis | None = None) -> Agreement:
        """Say how far raters agree; see `Ratings.agreement`."""
        return self.ratings.agreement(axis)

    def to_csv(self, path: "str | Path", *, allow_sandbox: bool = False) -> Path:
        """Write the votes as VideoAlign reads them; see `Ratings.to_csv`."""
        return self.ratings.to_csv(path, allow_sandbox=allow_sandbox)

    # -- what is seen ----------------------------------------------------------------
    def __repr__(self) -> str:
        return plain(self._line()).replace("`", "")

    def _line(self) -> str:
        ballot = self.ballot
        whole = ballot.whole - ballot.hidden
        if not whole:
            left_out = " A clip of each is missing or damaged." if ballot.hidden else ""
            return (
                "There is no pair to rate: a pair is two clips with the same prompt, length, aspect ratio "
                f"and sound that differ in {ballot.by}.{left_out}"
            )
        left_out = (
            f" {ballot.hidden} more are left out: a clip is missing or damaged." if ballot.hidden else ""
        )
        return (
            f"Blind rating by {ballot.rater}: {ballot.done} of {whole} pairs rated.{left_out} "
            "`%kling rate --table` shows the scores."
        )

    def _bundle(self) -> dict[str, Any]:
        line = tag("div", prose(self._line()))
        if not self.ballot.whole or self.ballot.showing() is not None or not self.ballot.done:
            return {"text/html": line, "text/plain": repr(self)}
        # The last pair is voted: what it came to is no longer to be kept from whoever votes.
        scores = self.table()
        return {"text/html": join([line, scores.html]), "text/plain": f"{self!r}\n{scores!r}"}

    def _ipython_display_(self) -> None:
        from IPython.display import DisplayHandle

        # Looked for now, so that the sentence counts what can be shown.
        self.ballot.showing()
        self._handle = DisplayHandle()
        self._handle.display(self._bundle(), raw=True)
        if watched() and self.ballot.whole:
            with contextlib.suppress(ImportError):
                widget = make_widget("rate", _SCRIPTS, _STYLES, self._state())
                widget.on_msg(self._on_message)
                LiveView(widget).show()

    def _state(self) -> dict[str, Any]:
        return {"axes": [{"axis": axis, "words": _QUESTIONS[axis]} for axis in self.axes]}

    # -- what the page says ------------------------------------------------------------
    def _on_message(self, widget: Any, content: Any, _buffers: object) -> None:
        if not isinstance(content, Mapping):
            return
        kind = content.get("kind")
        if kind == "clip":
            widget.send(*self._clip(content))
        elif kind in {"hello", "vote", "skip", "undo"}:
            widget.send(self._next(content))
            self._handle.update(self._bundle(), raw=True)

    def _next(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Do what the page asks for, and say what is up now."""
        kind, mark = content.get("kind"), str(content.get("mark", ""))
        why = ""
        try:
            if kind == "vote":
                axes = content.get("axes")
                given = {str(k): str(v) for k, v in axes.items()} if isinstance(axes, Mapping) else {}
                note = str(content.get("note", ""))
                self.ballot.vote(mark, str(content.get("choice", "")), given, note)
            elif kind == "skip":
                self.ballot.skip(mark)
            elif kind == "undo":
                self.ballot.undo()
        except KlingError as error:
            why = f"The vote was not kept. {error.what}"
        showing = self.ballot.showing()
        return {
            "kind": "showing",
            "why": why,
            "done": self.ballot.done,
            "whole": self.ballot.whole - self.ballot.hidden,
            "undo": self.ballot.can_undo,
            "pair": None if showing is None else _shown(showing),
        }

    def _clip(self, content: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        """Answer for a clip by its made-up mark; what would name the file is said without it."""
        showing, mark = self.ballot.showing(), content.get("id")
        record = showing.clips.get(mark) if showing is not None and isinstance(mark, str) else None
        if record is None:
            return {"kind": "clip", "id": str(mark), "why": "This clip is not one of the pair on show."}, []
        message, buffers = self._source.answer({**content, "id": record.id})
        if "why" in message:
            message["why"] = "This clip cannot be shown. Skip the pair."
        return {**message, "id": mark}, buffers


def _shown(showing: Showing) -> dict[str, Any]:
    """Say of a pair what both clips share, and nothing else."""
    left, right = showing.clips
    # Of two runs of one prompt it takes only one to be private.
    both = (showing.left, showing.right)
    request = next((record for record in both if record.private), showing.left).request
    return {
        "mark": showing.mark,
        "left": left,
        "right": right,
        "prompt": in_place_of(request) if any(record.private for record in both) else request.words,
        "shape": request.aspect_ratio,
        "sound": request.audio,
    }
