"""The handles of one cell, or of a search, as one sequence: waited for, canceled and shown together.

Invariants: waiting and showing change nothing; several runs share one card, and what it says of each is what
the run's own card says.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, overload

from kling_nb.engine.run import Run, Video, card_state
from kling_nb.records.base import utc_now
from kling_nb.records.receipt import to_receipts
from kling_nb.records.receipt_model import RECEIPT_MIME
from kling_nb.records.run import FrontEnd, Mode, RunRecord
from kling_nb.views.embed import inset
from kling_nb.views.grid import grid, grid_text
from kling_nb.views.html import join, prose, tag

__all__ = ["Handles", "Runs"]


class Handles(Sequence[Run]):
    """The handles of the runs of a listing, each made when it is looked at.

    Args:
        records: The listing.
        handle: Gives the handle of a run.

    Example:
        >>> len(Handles([], lambda record: None))
        0
    """

    def __init__(self, records: Sequence[RunRecord], handle: Callable[[RunRecord], Run]) -> None:
        self._records, self._handle = records, handle

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Run, ...]: ...
    def __getitem__(self, index: int | slice) -> Run | tuple[Run, ...]:
        if isinstance(index, slice):
            return tuple(map(self._handle, self._records[index]))
        return self._handle(self._records[index])

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Run]:
        return map(self._handle, self._records)


class Runs(Sequence[Run]):
    """Several runs as one: one card, one wait, one cancel. A cell with `-n` gives one, in order of take.

    Make one of any runs, also of different prompts, to see and wait for them together.

    Args:
        runs: Handles, as `kling.submit`, `kling.find` and a cell give them.
        note: What a listing says beside them, e.g. that a row of the ledger could not be read.

    Example:
        >>> import kling_nb as kling
        >>> prompts = ["A red fox in snow", "A hare in snow"]
        >>> both = kling.Runs([kling.submit(prompt) for prompt in prompts])   # doctest: +SKIP
        >>> both.wait().videos                                                # doctest: +SKIP
        >>> kling.Runs([])
        no runs
    """

    def __init__(self, runs: Sequence[Run], *, note: str = "") -> None:
        self._runs = runs if isinstance(runs, Handles) else tuple(runs)
        self.note = note

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> "Runs": ...
    def __getitem__(self, index: int | slice) -> "Run | Runs":
        return Runs(self._runs[index]) if isinstance(index, slice) else self._runs[index]

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def __repr__(self) -> str:
        lines = [repr(run) for run in self._runs] or ["no runs"]
        return "\n".join([*lines, self.note] if self.note else lines)

    @property
    def videos(self) -> list[Video]:
        """The clips that are there."""
        return [run.video for run in self._runs if run.video]

    def wait(self, timeout_s: float | None = None) -> "Runs":
        """Wait for all of them.

        Args:
            timeout_s: Seconds for all together; None waits without end.

        Returns:
            The runs.

        Raises:
            WaitTimeoutError: The time was over first; the runs go on.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        for run in self._runs:
            run.wait(None if end is None else max(0.0, end - time.monotonic()))
        return self

    def __await__(self) -> Generator[Any, None, "Runs"]:
        for run in self._runs:
            yield from run.__await__()
        return self

    def cancel(self) -> list[str]:
        """Cancel all of them; see `Run.cancel`."""
        return [run.cancel() for run in self._runs]

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        bundle = self.bundle()
        if self.note:
            bundle["text/html"] = join([bundle["text/html"], tag("div", prose(self.note))])
            bundle["text/plain"] += f"\n{self.note}"
        return bundle

    def bundle(
        self,
        typical_s: Sequence[tuple[float, float] | None] | None = None,
        *,
        embed: Mode = "auto",
        front: FrontEnd = "",
    ) -> dict[str, Any]:
        """Give one card for all of them, its text lines and the receipts, as one MIME bundle.

        Args:
            typical_s: The usual span of each, shortest and longest in seconds.
            embed: What of the clips goes into it; what they add is counted together.
            front: The page it is for.

        Returns:
            By MIME type.
        """
        if len(self) == 1:
            return self[0].bundle(typical_s=typical_s[0] if typical_s else None, embed=embed, front=front)
        spans = typical_s or [None] * len(self)
        final = all(run.done for run in self)
        clips = inset([run.kept() for run in self], embed, front=front, final=final)
        tiles = [card_state(run, clip, span) for run, span, clip in zip(self, spans, clips, strict=True)]
        totals = self[0].totals if tiles else None
        return {
            "text/html": grid(tiles, totals=totals, now=utc_now()),
            "text/plain": grid_text(tiles, totals=totals, now=utc_now()),
            RECEIPT_MIME: to_receipts([run.record for run in self]),
        }
