"""One clip in a live player: frame steps, a loop, speed, and the shots of a storyboard on its timeline.

Invariants: the card stands above it in an output of its own and is all that a saved notebook needs; the
player is made only where somebody watches; a mark stands where its shot begins in the measured file, not
in the order.
"""

import contextlib
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from kling_nb.engine.run import Run, Video
from kling_nb.errors import one_line
from kling_nb.notebook.widgets import ClipSource, LiveView, make_widget, watched
from kling_nb.records.run import RunRecord, RunStatus
from kling_nb.views.card_parts import mark
from kling_nb.views.words import ask_words, money_words, plain, short

if TYPE_CHECKING:
    from collections.abc import Callable

    from kling_nb.media.folder import Store

__all__ = ["Player", "clip_state", "play", "shot_marks"]

_SCRIPTS = ("shared/page.js", "shared/clips.js", "shared/lockstep.js", "shared/controls.js", "player.js")
_STYLES = ("shared/live.css", "player.css")


def play(run: "Run | Video | str") -> "Player":
    """Play a clip with frame steps, loop, speed and keyboard; nothing is sent.

    Args:
        run: A run, a clip, or an id of ours or the provider's.

    Returns:
        What the notebook shows: the card, and in a live kernel the player below it.

    Raises:
        UsageError: There is no such run.

    Example:
        >>> play("kl7m2q")  # doctest: +SKIP
    """
    from kling_nb.session.api import current

    session = current()
    if isinstance(run, Video):
        run = session.engine().handle(run.record)
    handle = session.find(run) if isinstance(run, str) else run
    return Player(handle, store=session.engine().store)


class Player:
    """A run's card with a live player below it.

    Args:
        run: A handle.
        store: Gives the store of a media folder.

    Example:
        >>> Player(run, store=session.engine().store)  # doctest: +SKIP
    """

    def __init__(self, run: Run, *, store: "Callable[[str], Store]") -> None:
        self.run = run
        self._store = store

    def __repr__(self) -> str:
        return repr(self.run)

    def state(self) -> dict[str, Any]:
        """Give what the page is told, as plain JSON."""
        record = self.run.record
        source = ClipSource([record], store=self._store)
        clip = clip_state(record, self.run.name, source.why_not(record.id))
        return {"clip": clip, "marks": shot_marks(record)}

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.run.bundle(), raw=True)
        self.show_live()

    def show_live(self) -> None:
        """Put the player alone below the cell, where somebody watches and the run has ended well."""
        if watched() and self.run.status is RunStatus.SUCCEEDED:
            with contextlib.suppress(ImportError):
                widget = make_widget("player", _SCRIPTS, _STYLES, self.state())
                ClipSource([self.run.record], store=self._store).serve(widget)
                LiveView(widget).show()


def clip_state(
    record: RunRecord, name: str | None, why: str | None, *, takes: bool = False
) -> dict[str, Any]:
    """Say of a clip what a live view shows, without any path or address.

    Args:
        record: The run.
        name: The variable that holds it, if any.
        why: Why it cannot be played, or None.
        takes: Whether it stands beside another take.

    Returns:
        Plain JSON; words are meant to be shown as text, never as markup.
    """
    media = record.media
    fps = media.fps if media is not None and media.fps else 24.0
    seconds = media.duration_s if media is not None else float(record.request.duration)
    counted = media.frames if media is not None else None
    asked = [one_line(word) for word in ask_words(record, takes=takes)]
    marked = [mark(record)] if mark(record) and mark(record) not in asked else []
    return {
        "id": record.id,
        "name": one_line(name) if name else None,
        "facts": [*marked, *asked, plain(money_words(record))],
        "fps": fps,
        "frames": max(1, counted or round(seconds * fps)),
        "width": media.width if media is not None else 0,
        "height": media.height if media is not None else 0,
        "codec": media.codec if media is not None else "",
        "sound": media.audio if media is not None else False,
        "why": why,
    }


def shot_marks(record: RunRecord) -> list[dict[str, Any]]:
    """Find where the shots of a storyboard begin in its clip.

    Args:
        record: The run.

    Returns:
        For each shot its number from 1, the share of the clip before it from 0 to 1, and its words; empty
        for a run without shots. Providers keep the proportions of the order but not always its seconds, so
        shares are given and not seconds.

    Example:
        >>> shot_marks.__name__
        'shot_marks'
    """
    shots = record.request.shots or ()
    whole = sum(shot.duration for shot in shots)
    starts = accumulate((shot.duration for shot in shots), initial=0)
    return [
        {
            "number": number,
            "share": start / whole,
            "words": "private" if record.private else short(one_line(shot.prompt), 200),
        }
        for number, (shot, start) in enumerate(zip(shots, starts, strict=False), 1)
    ]
