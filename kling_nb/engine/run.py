"""The handle of a run: what a notebook holds while the background loop carries it.

Invariants: a handle always tells the last committed state; waiting never owns a run (Ctrl-C, a time-out or
a dead kernel only stop the waiting); callbacks are called on the background loop, never on the caller's.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from kling_nb.engine.detach import error_of
from kling_nb.errors import DetachedError, KlingError, RunFailedError, WaitTimeoutError
from kling_nb.interrupts import stopped_in_words
from kling_nb.ledger.database import Ledger
from kling_nb.records.base import utc_now
from kling_nb.records.money import Totals
from kling_nb.records.privacy import redact_error, redacted, restore_prompt
from kling_nb.records.receipt import to_receipt
from kling_nb.records.receipt_model import RECEIPT_MIME
from kling_nb.records.run import FrontEnd, MediaFacts, Mode, RunRecord, RunStatus, charged, ids_of, may_revive
from kling_nb.views.card import card, line, status_line
from kling_nb.views.card_parts import CardState
from kling_nb.views.embed import Inset, Kept, inset
from kling_nb.views.html import DOT, join, tag
from kling_nb.views.waits import Turn, can_rewrite, rewrite
from kling_nb.views.words import file_words, status_word

__all__ = ["Run", "Video", "card_state"]


def _tick(words: Callable[[], str]) -> None:
    """Keep one line of a terminal up to date; elsewhere say nothing."""
    if can_rewrite():
        rewrite(words())


@dataclass(frozen=True, kw_only=True)
class Video:
    """A finished clip on disk.

    Args:
        path: Where it is.
        facts: What was measured in it.
        record: The run that made it.
    """

    path: Path
    facts: MediaFacts
    record: RunRecord

    def __fspath__(self) -> str:
        return str(self.path)

    __str__ = __fspath__

    def __repr__(self) -> str:
        return f"Video({str(self.path)!r}, {self.facts.duration_s:g} s)"

    def _repr_html_(self) -> str:
        return tag("div", join([tag("bdi", str(self.path)), *file_words(self.facts)], DOT))

    @property
    def sha256(self) -> str:
        """The SHA-256 of its bytes."""
        return self.facts.sha256

    @property
    def duration_s(self) -> float:
        """Its measured length in seconds."""
        return self.facts.duration_s


class _Engine(Protocol):
    """What a handle needs of the engine that carries its run."""

    ledger: Ledger

    def attend(self, run: "Run") -> None: ...
    def resume(self, run: "Run") -> "Run": ...
    def detach(self, run: "Run") -> None: ...
    def cancel(self, run: "Run") -> Future[str]: ...
    def can_cancel(self, record: RunRecord) -> bool: ...
    def totals(self, *, play: bool) -> Totals | None: ...
    def shown_clip(self, record: RunRecord) -> tuple[str | None, str | None]: ...
    def turn(self, run_id: str) -> Turn | None: ...


class Run:
    """One run, live.

    Args:
        record: Its state when the handle was made.
        engine: What carries it.
        reused: Whether it was there before and nothing was sent for this call.
        name: The variable it is bound to, if any.

    Example:
        >>> import kling_nb as kling
        >>> run = kling.submit("A red fox in snow")   # doctest: +SKIP
        >>> run.wait(timeout_s=600).status            # doctest: +SKIP
        <RunStatus.SUCCEEDED: 'succeeded'>
    """

    def __init__(self, record: RunRecord, engine: _Engine, *, reused: bool = False) -> None:
        self.record = record
        #: Whether it is done and its clip is not here, so that it is waited for.
        self.fetching = False
        self.reused = reused
        self.name: str | None = None
        self.note = ""
        self.cancel_wanted = False
        self.sent_here, self.sweep = False, ""
        self._engine = engine
        self._stopped: KlingError | None = None
        self._settled = record.status.ended
        #: Made by who waits first: most of many runs are never waited for.
        self._ends: threading.Condition | None = None
        self._listeners: list[Callable[[Run], None]] = []
        # Of this kind no thread can open what another one holds, wherever an interrupt comes.
        self._lock = threading.RLock()

    @property
    def id(self) -> str:
        """Our id: short, readable, stable."""
        return self.record.id

    @property
    def status(self) -> RunStatus:
        """Where it is; compares equal to its word."""
        return self.record.status

    @property
    def provider(self) -> str:
        """Who makes it."""
        return self.record.provider

    @property
    def provider_run_id(self) -> str | None:
        """The provider's id of it, once known."""
        return self.record.provider_run_id

    @property
    def prompt(self) -> str:
        """What was asked, shots joined by line ends; of a private run its hash, as everywhere it is shown.

        The words themselves are in `record.request`, for code of the owner's own.
        """
        return redacted(self.record).request.words

    @property
    def cost(self) -> Decimal | None:
        """Dollars on the books; None while nobody knows."""
        return self.record.cost

    @property
    def estimate(self) -> Decimal | None:
        """Dollars it should cost; None where nobody knows."""
        return self.record.estimate.usd

    @property
    def video(self) -> Video | None:
        """The clip, once it is on disk and verified."""
        record = self.record
        if record.status != RunStatus.SUCCEEDED or record.media is None or self.fetching:
            return None
        return Video(path=Path(record.folder) / record.media.file, facts=record.media, record=record)

    @property
    def path(self) -> Path | None:
        """Where the clip is, once it is there."""
        return self.video.path if self.video else None

    @property
    def done(self) -> bool:
        """Whether it has ended, or we stopped watching it."""
        return self._settled

    @property
    def detached(self) -> bool:
        """Whether we stopped watching while the run itself goes on."""
        return self._stopped is not None and self.record.status.pending

    @property
    def turn(self) -> Turn | None:
        """When it comes to be sent, while it waits for a place at its provider; else None."""
        return self._engine.turn(self.id)

    @property
    def error(self) -> KlingError | None:
        """Why there is no clip, as an error that was not raised; None while it is on its way or done."""
        if self.record.status.ended and not self.fetching:
            return error_of(self.record)
        return None if self._stopped is None else redact_error(self.record, self._stopped)

    @property
    def totals(self) -> Totals | None:
        """What the session has spent, as far as the ledger can be read."""
        return self._engine.totals(play=self.record.play)

    # -- waiting ---------------------------------------------------------
    def wait(self, timeout_s: float | None = None) -> "Run":
        """Wait until it has ended; Ctrl-C stops the waiting, not the run.

        A run that was only looked up is watched from here on; nothing new is ever sent for it.

        Args:
            timeout_s: Seconds to wait at most; None waits without end.

        Returns:
            The run itself, whatever became of it: look at `status`, `video` and `error`.

        Raises:
            WaitTimeoutError: The time was over first; the run goes on.
        """
        with self._stopped_in_words(), contextlib.ExitStack() as last:
            self._engine.attend(self)
            # Short steps: one long wait reacts late to Ctrl-C.
            end = time.monotonic() + (float("inf") if timeout_s is None else timeout_s)
            last.callback(_tick, str)
            while not self._settled:
                _tick(lambda: f"Run {self.id}: {status_line(self.record, now=utc_now(), turn=self.turn)}")
                if (left := min(0.2, end - time.monotonic())) <= 0:
                    raise WaitTimeoutError(
                        f"Run {self.id} is still {status_word(self.status)} after {timeout_s:g} s.",
                        charged=charged(self.record),
                        cure=f"It goes on: `%kling wait {self.id}` or run the cell again; "
                        "nothing is sent twice.",
                        **ids_of(self.record),
                    )
                with self._lock:
                    self._ends = self._ends or threading.Condition(self._lock)
                    self._ends.wait_for(lambda: self._settled, left)
        return self

    def __await__(self) -> Generator[Any, None, "Run"]:
        # Wakes by itself ten times a second: an interrupt during a plain `await` is only seen at its end.
        with self._stopped_in_words():
            self._engine.attend(self)
            while not self._settled:
                yield from asyncio.sleep(0.1).__await__()
        return self

    def _stopped_in_words(self) -> contextlib.AbstractContextManager[None]:
        return stopped_in_words(f"Run {self.id} goes on: `%kling wait {self.id}`.")

    def result(self, timeout_s: float | None = None) -> Video:
        """Wait for the clip.

        Args:
            timeout_s: Seconds to wait at most; None waits without end.

        Returns:
            The clip.

        Raises:
            RunFailedError: The run ended without one (`ModeratedError`, `RunCanceledError`).
            RunLostError: Nobody knows whether there is a run.
            DetachedError: We stopped watching.
            WaitTimeoutError: The time was over first.
        """
        self.wait(timeout_s)
        if self.error is not None:
            raise self.error
        video = self.video
        if video is None:
            raise RunFailedError(f"Run {self.id} has no clip.", charged=self.record.charged, run_id=self.id)
        return video

    # -- steering --------------------------------------------------------
    def cancel(self, timeout_s: float = 30) -> str:
        """Cancel it, where the provider can; else say so.

        Args:
            timeout_s: Seconds to wait for the provider's answer.

        Returns:
            `canceled`, `not_cancellable` or `unknown`. A run that cannot be canceled goes on and may be
            charged; `detach()` only stops the watching.
        """
        asked = self.request_cancel()
        end = time.monotonic() + timeout_s
        while not asked.done() and time.monotonic() < end:
            with contextlib.suppress(FutureTimeoutError):
                asked.result(0.2)
        return asked.result() if asked.done() else "unknown"

    def request_cancel(self) -> "Future[str]":
        """Ask for a cancel without waiting: safe in a click handler on any thread."""
        return self._engine.cancel(self)

    @property
    def can_cancel(self) -> bool:
        """Whether a cancel can still have an effect."""
        return self._engine.can_cancel(self.record)

    def detach(self) -> None:
        """Stop watching; the provider's run goes on and `resume()` takes it up again."""
        self._engine.detach(self)

    def resume(self) -> "Run":
        """Watch it again, or look again for the clip of one that failed; never sends a new run."""
        return self._engine.resume(self)

    def on_change(self, callback: "Callable[[Run], None]") -> None:
        """Call back on every change, on the background loop; the callback must be quick."""
        with self._lock:
            self._listeners.append(callback)

    # -- the engine's side -------------------------------------------------
    def publish(self, record: RunRecord) -> None:
        """Take over a newly committed state."""
        with self._lock:
            self.record = restore_prompt(record, self.record.request)  # a shared ledger has hashes
        if record.status.ended:
            self._settle()
        self._call_back()

    def conceal(self) -> None:
        """Show it as private from here on, in whatever state it is at this moment."""
        with self._lock:
            self.record = self.record.model_copy(update={"private": True})
        self._call_back()

    def stop(self, why: KlingError | None) -> None:
        """End the watching with words; None opens it again."""
        self._stopped = why
        if why is None:
            if self._settled and (self.record.status.pending or self.fetching or may_revive(self.record)):
                self._settled = False
        else:
            if self.fetching:
                self.note = str(redact_error(self.record, why))
            self._settle()
        self._call_back()

    def _settle(self) -> None:
        with self._lock:
            self._settled = True
            if self._ends is not None:
                self._ends.notify_all()

    def _call_back(self) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            # A faulty listener is its owner's matter: it must not end the carrying of a paid run.
            with contextlib.suppress(Exception):
                listener(self)

    def __repr__(self) -> str:
        file = self.record.media.file if self.record.media else None
        return line(card_state(self, Inset(src=file)), totals=None, now=utc_now())

    @property
    def shown_note(self) -> str:
        """What the card should say beyond the record."""
        if self.note or not self.detached or isinstance(self._stopped, DetachedError):
            return self.note
        return str(self.error)

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return self.bundle()

    def shown_clip(self) -> tuple[str | None, str | None]:
        """Give the clip's address as the notebook reaches it, and a still; None for what is not here."""
        return self._engine.shown_clip(self.record)

    def kept(self) -> Kept:
        """Give the clip as far as it is here, for the output that shows it."""
        src, poster = self.shown_clip()
        return Kept(record=self.record, path=self.path if src else None, src=src, poster=poster)

    def bundle(
        self,
        *,
        typical_s: tuple[float, float] | None = None,
        embed: Mode = "auto",
        front: FrontEnd = "",
    ) -> dict[str, Any]:
        """Give the card, its text line and the receipt, as one MIME bundle.

        Args:
            typical_s: The usual span from asked to done, shortest and longest in seconds.
            embed: What of the clip goes into it.
            front: The page it is for.
        """
        now, totals = utc_now(), self.totals
        [clip] = inset([self.kept()], embed, front=front, final=self.done)
        state = card_state(self, clip, typical_s)
        html, text = (draw(state, totals=totals, now=now) for draw in (card, line))
        return {"text/html": html, "text/plain": text, RECEIPT_MIME: to_receipt(self.record)}


def card_state(run: Run, clip: Inset, typical_s: tuple[float, float] | None = None) -> CardState:
    """Return what a card of a run shows, with its clip as `clip` says."""
    return CardState(
        record=run.record,
        name=run.name,
        src=clip.src,
        poster=clip.poster,
        typical_s=typical_s,
        turn=run.turn,
        reused=run.reused,
        note=run.shown_note,
        detached=run.detached,
        embed=clip.embed,
        player=clip.player,
        aside=clip.words,
    )
