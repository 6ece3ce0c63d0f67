"""What comes out of a sweep: a table of data, money by axis, a grid of stills, and lines for a terminal.

Invariants: nothing is sent; pandas loads on first use; an amount nobody knows is None, and never counted as
nothing; the owner's own table has his words, and what is kept in a notebook has the hashes of private ones.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

from kling_nb.engine.run import Run
from kling_nb.engine.runs import Runs
from kling_nb.errors import UsageError, did_you_mean, installed
from kling_nb.records.run import RunStatus
from kling_nb.session.api import dollars_of
from kling_nb.sweeps.grid import Member
from kling_nb.sweeps.layout import axes_of, lay_out
from kling_nb.sweeps.progress import Progress
from kling_nb.views.contact_sheet import NOT_SENT, Tile
from kling_nb.views.stills import stills, stills_text
from kling_nb.views.waits import can_rewrite, rewrite
from kling_nb.views.words import state_word

__all__ = ["Table", "Ticker", "clips_of", "costs", "data", "frame", "money", "rows", "table"]

_FIRST = ("prompt", "take", "provider", "model", "duration", "status", "cost", "file", "run")
#: A log that nobody watches gets a line so often, a terminal each time.
_LOG_S, _TERMINAL_S = 30.0, 0.5


def money(amount: Decimal | str | int | None) -> Decimal | None:
    """Read what a sweep may cost, in dollars.

    Raises:
        UsageError: It is no amount.

    Example:
        >>> money("85")
        Decimal('85')
    """
    return dollars_of("max_cost", amount)


def rows(members: Sequence[Member], runs: Mapping[int, Run]) -> list[dict[str, Any]]:
    """Give a row a member, as plain data with the owner's own words.

    Args:
        members: In order.
        runs: The run of each that has one, by number.

    Example:
        >>> rows([], {})
        []
    """
    return [_row(member, runs.get(member.number)) for member in members]


def _row(member: Member, run: Run | None) -> dict[str, Any]:
    record, request = None if run is None else run.record, member.request
    path = None if run is None else run.path
    row = {
        "prompt": member.label,
        "take": member.take,
        "provider": record.provider if record else member.provider,
        "model": record.model if record else member.model,
        "duration": request.duration,
        "status": record.status.value if record else "waiting",
        "cost": record.cost if record else None,
        "file": str(path) if path else None,
        "run": record.id if record else None,
        "aspect_ratio": request.aspect_ratio,
        "audio": request.audio,
        "seconds": record.seconds if record else None,
        "reason": record.reason if record else None,
        "charged": record.charged if record else "no",
        "row": member.row,
        "sent": request.words,
    }
    named = {**member.axes, **member.tags}
    return {**row, **{name: value for name, value in named.items() if name not in row}}


def frame(members: Sequence[Member], runs: Mapping[int, Run]) -> Any:
    """Give the same as a `pandas.DataFrame`.

    Raises:
        UsageError: pandas is not installed.
    """
    pd = installed("pandas", "`%pip install pandas`; or use `runs`, which needs none.")
    return pd.DataFrame(rows(members, runs), columns=None if members else list(_FIRST))


def data(progress: Progress, members: Sequence[Member], runs: Mapping[int, Run]) -> dict[str, Any]:
    """Give a sweep as plain data for programs: how far it is, and a row a member.

    Args:
        progress: How far it is.
        members: In order.
        runs: The run of each that has one, by number.

    Returns:
        Plain data; a private member has no words in it.
    """
    kept = (
        "name",
        "state",
        "members",
        "done",
        "going",
        "failed",
        "waiting",
        "spent_micros",
        "reserved_micros",
    )
    public = (*_FIRST[1:], "row", "seconds", "reason", "charged")
    found = [
        row if not member.private else {name: row[name] for name in public}
        for row, member in zip(rows(members, runs), members, strict=True)
    ]
    return {**{name: getattr(progress, name) for name in kept}, "play": progress.play, "runs": found}


def costs(members: Sequence[Member], runs: Mapping[int, Run]) -> dict[str, dict[Any, Decimal | None]]:
    """Add up what the runs of a sweep cost by each axis of several values.

    Args:
        members: In order.
        runs: The run of each that has one, by number.

    Returns:
        By axis, then by value: dollars on the books; None where a charge is unknown. `all` is the sum.
    """
    made: dict[str, dict[Any, Decimal | None]] = {}
    names = ("all", *axes_of(members))
    for row, member in zip(rows(members, runs), members, strict=True):
        run = runs.get(member.number)
        if run is None or (run.status.pending and run.cost is None):
            continue
        known = run.cost if run.cost is not None or run.record.charged != "no" else Decimal(0)
        for name in names:
            value = "all" if name == "all" else row.get(name)
            before = made.setdefault(name, {}).get(value, Decimal(0))
            made[name][value] = None if known is None or before is None else before + known
    return made


def clips_of(prompt: str | int, members: Sequence[Member], runs: Mapping[int, Run]) -> Runs:
    """Give the clips of one prompt, in the order of the grid: of each prompt the same one is at the left.

    Args:
        prompt: Its words, or the number of its row.
        members: In order.
        runs: The run of each that has one, by number.

    Raises:
        UsageError: There is no such prompt, or it has no clip yet.
    """
    place = {number: at for at, number in lay_out(members, runs).cells.items()}
    ordered = sorted(members, key=lambda member: place[member.number])
    wanted = [m for m in ordered if prompt in (m.label, m.row, m.request.words)]
    if not wanted:
        known = list(dict.fromkeys(member.label for member in members if not member.private))
        cure = did_you_mean(
            str(prompt), known, f"Its rows are numbered from 1 to {max(m.row for m in members)}."
        )
        raise UsageError("The sweep has no such prompt.", cure=cure)
    clips = [runs[m.number] for m in wanted if m.number in runs and runs[m.number].video is not None]
    if not clips:
        raise UsageError("This prompt has no clip yet.", cure="`wait()` for it.")
    return Runs(clips)


# -- the grid of stills ------------------------------------------------------------------------------
@dataclass(frozen=True)
class Table:
    """A grid of stills, static: it is in the saved notebook as it is.

    Args:
        html: For notebooks.
        text: For terminals.

    Example:
        >>> Table("<div>no runs</div>", "no runs")
        no runs
    """

    html: str
    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.html


def table(members: Sequence[Member], runs: Mapping[int, Run]) -> Table:
    """Make a grid of stills: a row a prompt, a column a combination of what else differs.

    Args:
        members: In order.
        runs: The run of each that has one, by number.
    """
    grid = lay_out(members, runs)

    @cache
    def tile(number: int) -> Tile:
        return _tile(runs.get(number))

    rest = "`.df` has a row for every run, `.gallery()` shows up to 1,000 clips."
    return Table(stills(grid, tile, rest=rest), stills_text(grid, tile, rest=rest))


def _tile(run: Run | None) -> Tile:
    if run is None:
        return NOT_SENT
    record = run.record
    src, poster = run.shown_clip() if record.status is RunStatus.SUCCEEDED else (None, None)
    return Tile(
        id=run.id,
        state=state_word(record, detached=run.detached),
        cost="",
        seconds=record.request.duration,
        prompt="",
        src=src,
        poster=poster,
        file=record.media.file if record.media else "",
    )


# -- a terminal ------------------------------------------------------------------------------------
class Ticker:
    """Lines on standard error while a sweep is waited for: one that is rewritten, or a few in a log.

    Args:
        carded: Whether a page shows its card, which says the same.
    """

    def __init__(self, *, carded: bool) -> None:
        self._terminal, self._carded = can_rewrite(), carded
        self._every = _TERMINAL_S if self._terminal else _LOG_S
        self._next = time.monotonic() + self._every

    def tick(self, text: Callable[[], str]) -> None:
        """Say where it is, if it is time to."""
        if not self._carded and time.monotonic() >= self._next:
            self._next = time.monotonic() + self._every
            self._put(text())

    def end(self, text: Callable[[], str]) -> None:
        """Say where it ended, on a terminal."""
        if self._terminal:
            self._put(text())
            sys.stderr.write("\n")

    def _put(self, text: str) -> None:
        line = text.partition("\n")[0]
        if self._terminal:
            rewrite(line)
        else:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
