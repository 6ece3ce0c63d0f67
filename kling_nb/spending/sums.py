"""What runs were estimated at, reported to cost and settled at, added up by whatever is asked.

Invariants: pure, and asks nobody; every sum is whole micro-dollars and is the ledger's own; play money and
real money are never in one sum, nor is what is no dollars; an amount nobody knows is counted beside a sum, is
never in it, and is never 0; a run is counted once in each group that it belongs to.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from functools import cached_property
from itertools import product
from operator import attrgetter
from typing import Any

from kling_nb.errors import UsageError, did_you_mean, one_line
from kling_nb.records.money import in_currency, plain_usd, usd
from kling_nb.records.run import RunRecord, charged
from kling_nb.records.tally import Tally, is_open

__all__ = [
    "DIMENSIONS",
    "OVERVIEW",
    "Figure",
    "Group",
    "Sums",
    "add_up",
    "columns",
    "difference",
    "group",
    "is_open",
    "read_day",
    "read_dimensions",
    "row_of",
    "select",
]

#: What a report may be arranged by.
DIMENSIONS = ("provider", "model", "day", "tag", "session", "user", "project", "notebook", "run")

#: What it is arranged by unless asked otherwise.
OVERVIEW = ("provider", "model")

_FACTS = (
    *("status", "charged", "asked_at", "seconds", "audio", "take", "attempt", "provider_run_id"),
    *("price_per_second", "price_basis", "price_source", "price_as_of", "reported_as"),
)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One sum, and how many amounts are missing from it.

    Args:
        known: The sum of what is known, in micro-dollars.
        counted: How many amounts that is.
        unknown: How many nobody knows.

    Example:
        >>> str(Figure(known=1120000, counted=2, unknown=2)), str(Figure(unknown=1)), str(Figure())
        ('$1.12 + 2 unknown', '1 unknown', 'none')
    """

    known: int = 0
    counted: int = 0
    unknown: int = 0

    @property
    def micros(self) -> int | None:
        """The sum of what is known in micro-dollars; None where nothing is."""
        return self.known if self.counted else None

    def words(self, missing: str = "unknown") -> str:
        """Write it for people."""
        left = [usd(self.micros)] if self.micros is not None else []
        return " + ".join([*left, *([f"{self.unknown} {missing}"] if self.unknown else [])]) or "none"

    def __str__(self) -> str:
        return self.words()


@dataclass(frozen=True, kw_only=True)
class Sums:
    """The figures of some runs, in dollars.

    Args:
        play: Whether it is the sandbox's play money.
        runs: How many runs.
        pending: How many of them are on their way.
        estimated: What they should cost.
        reported: What their providers say they cost; unknown where a run may be billed and no dollars were
            told.
        settled: What is on the books; unknown where a run has ended and nobody knows its charge.
        reserved_micros: What is held back for runs that are not settled.
        difference_micros: Settled less estimated, over the runs that have both; None where none has.
    """

    play: bool
    runs: int
    pending: int
    estimated: Figure
    reported: Figure
    settled: Figure
    reserved_micros: int
    difference_micros: int | None


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that have something in common.

    Args:
        labels: Each dimension's value; None where the run has none.
        play: Whether their money is the sandbox's.
        tallies: The runs, counted one by one or together.
    """

    labels: tuple[str | None, ...]
    play: bool
    tallies: Sequence[Tally]

    @cached_property
    def sums(self) -> Sums:
        """Their figures; a page adds up only the rows that it shows."""
        return _sums(self.tallies, play=self.play)

    @property
    def record(self) -> RunRecord | None:
        """The run, where it is one."""
        return self.tallies[0].record


def difference(micros: int | None) -> str:
    """Write a difference with its sign; empty where there is none to tell.

    Example:
        >>> difference(20000), difference(-560000), difference(0), difference(None)
        ('+$0.02', '-$0.56', '$0.00', '')
    """
    if micros is None:
        return ""
    return f"+{usd(micros)}" if micros > 0 else usd(micros)


# -- which runs --------------------------------------------------------------------
def read_day(day: date | str, name: str = "the day") -> date:
    """Read a day.

    Args:
        day: `YYYY-MM-DD`, a date, or a time, which counts on its day of UTC; without a zone it is UTC.
        name: How messages call it.

    Raises:
        UsageError: It is none.

    Example:
        >>> read_day("2026-11-21").isoformat()
        '2026-11-21'
    """
    if isinstance(day, datetime):
        return (day if day.tzinfo is None else day.astimezone(UTC)).date()
    if isinstance(day, date):
        return day
    try:
        return date.fromisoformat(day)
    except (TypeError, ValueError):
        raise UsageError(
            f"{name} takes a day, not {str(day)[:40]!r}.", cure="Write it as 2026-11-21; days are UTC."
        ) from None


def select(
    records: Iterable[RunRecord],
    *,
    since: date | None = None,
    until: date | None = None,
    project: str | None = None,
) -> list[RunRecord]:
    """Give the runs of some days and one project.

    Args:
        records: Any runs.
        since: The first day (UTC) on which a run was asked for.
        until: The last day.
        project: Only this project.

    Returns:
        Those runs, in the same order.

    Example:
        >>> select([], since=date(2026, 11, 21))
        []
    """
    return [
        record
        for record in records
        if (since is None or record.created_at.date() >= since)
        and (until is None or record.created_at.date() <= until)
        and (project is None or record.project == project)
    ]


# -- sums --------------------------------------------------------------------------
def read_dimensions(by: str | Sequence[str] | None) -> tuple[str, ...]:
    """Read what a report is arranged by.

    Args:
        by: Some of `DIMENSIONS`, as a sequence or with commas between; `tag:KEY` for one tag's values; None
            for provider and model.

    Raises:
        UsageError: There is no such dimension, or one stands there twice.

    Example:
        >>> read_dimensions("provider,tag:scene")
        ('provider', 'tag:scene')
    """
    if by is None:
        return OVERVIEW
    words = by.split(",") if isinstance(by, str) else [str(word) for word in by]
    names = tuple(word if word.startswith("tag:") else word.strip().lower() for word in words)
    wrong = [name for name in names if not (name in DIMENSIONS or re.fullmatch(r"(?s)tag:.+", name))]
    if wrong or not names or len(set(names)) < len(names):
        what = f"Costs cannot be arranged by {one_line(', '.join(wrong or names))[:60]!r}."
        known = f"There are {', '.join(DIMENSIONS)} and tag:KEY, each once."
        raise UsageError(what, cure=did_you_mean(wrong[0], DIMENSIONS, known) if wrong else known)
    return names


def group(tallies: Iterable[Tally], by: Sequence[str] = OVERVIEW) -> list[Group]:
    """Put runs into groups and add each up.

    Args:
        tallies: Any runs, counted one by one or together; one by one for `run`.
        by: Dimensions, from `read_dimensions`. A run with several tags is in each of their groups, so
            that groups by `tag` may add up to more than there is.

    Returns:
        Real money first; then by label, but the newest day or run first.

    Example:
        >>> group([])
        []
    """
    found: dict[tuple[bool, tuple[str | None, ...]], list[Tally]] = {}
    for tally in tallies:
        for labels in _labels(tally, by):
            found.setdefault((tally.play, labels), []).append(tally)
    keys = sorted(found, key=lambda key: tuple(label or "" for label in key[1]))
    for place in reversed([n for n, name in enumerate(by) if name == "day"]):
        keys.sort(key=lambda key: key[1][place] or "", reverse=True)
    if "run" in by:
        keys.sort(key=lambda key: _asked_at(found[key][0]), reverse=True)
    keys.sort(key=lambda key: key[0])
    return [Group(labels=labels, play=play, tallies=found[play, labels]) for play, labels in keys]


def _asked_at(tally: Tally) -> str:
    return tally.record.created_at.isoformat() if tally.record else ""


def add_up(tallies: Iterable[Tally]) -> list[Sums]:
    """Add all runs up: real money, then play money, where there is any.

    Example:
        >>> add_up([])
        []
    """
    return [each.sums for each in group(tallies, ())]


_FIGURES = tuple(each.name for each in fields(Tally) if each.type is int)
_figures = attrgetter(*_FIGURES)


def _labels(tally: Tally, by: Sequence[str]) -> Iterable[tuple[str | None, ...]]:
    return product(*[_values(tally, name) for name in by])


def _values(tally: Tally, name: str) -> list[str | None]:
    if name in tally.labels:
        return [tally.labels[name] or None]
    if name == "tag":
        return [f"{key}={value}" for key, value in sorted(tally.tags.items())] or [None]
    if name.startswith("tag:"):
        return [tally.tags.get(name[4:])]
    return [tally.record.id if tally.record else None]


def _sums(tallies: Sequence[Tally], *, play: bool) -> Sums:
    whole = dict(zip(_FIGURES, map(sum, zip(*map(_figures, tallies), strict=True)), strict=True))
    runs, estimated = whole["runs"], whole["estimated_known"]
    reported, settled = whole["reported_known"], whole["settled_known"]
    return Sums(
        play=play,
        runs=runs,
        pending=whole["pending"],
        estimated=Figure(known=whole["estimated"], counted=estimated, unknown=runs - estimated),
        reported=Figure(known=whole["reported"], counted=reported, unknown=whole["reports"] - reported),
        settled=Figure(known=whole["settled"], counted=settled, unknown=whole["unknown"]),
        reserved_micros=whole["reserved"],
        difference_micros=whole["difference"] if whole["compared"] else None,
    )


# -- as plain data -------------------------------------------------------------------
def row_of(by: Sequence[str], each: Group) -> dict[str, Any]:
    """Give a group as plain data: one row of the data frame, the CSV file and the JSON document.

    Args:
        by: Its dimensions.
        each: The group.

    Returns:
        Micro-dollars as whole numbers, the same as exact decimal text, unknown as None beside a count.
    """
    sums = each.sums
    row: dict[str, Any] = {"play": sums.play, "currency": "USD"}
    row |= dict(zip(by, each.labels, strict=True))
    if each.record is not None and "run" in by:
        row |= _facts(each.record)
    row |= {"runs": sums.runs, "pending": sums.pending}
    figures: Mapping[str, Figure] = {
        "estimated": sums.estimated,
        "reported": sums.reported,
        "settled": sums.settled,
    }
    for name, figure in figures.items():
        row |= _money(name, figure.micros) | {f"{name}_unknown": figure.unknown}
    return row | _money("reserved", sums.reserved_micros) | _money("difference", sums.difference_micros)


def columns(by: Sequence[str]) -> list[str]:
    """Name the columns of the rows, also where there is no row.

    Example:
        >>> columns(("day",))[:5]
        ['play', 'currency', 'day', 'runs', 'pending']
    """
    facts = _FACTS if "run" in by else ()
    figures = ("estimated", "reported", "settled")
    money = [column for name in figures for column in (f"{name}_micros", name, f"{name}_unknown")]
    rest = [column for name in ("reserved", "difference") for column in (f"{name}_micros", name)]
    return ["play", "currency", *by, *facts, "runs", "pending", *money, *rest]


def _money(name: str, micros: int | None) -> dict[str, Any]:
    return {f"{name}_micros": micros, name: plain_usd(micros)}


def _facts(record: RunRecord) -> dict[str, Any]:
    """Give what one run's figures rest on; its prompt is nobody's business here."""
    facts = (
        record.status.value,
        charged(record),
        record.created_at.isoformat().replace("+00:00", "Z"),
        record.request.duration,
        record.request.audio,
        record.take,
        record.attempt,
        record.provider_run_id,
        record.estimate.usd_per_s,
        one_line(record.estimate.basis),
        one_line(record.estimate.source),
        record.estimate.as_of,
        None if record.currency == "USD" else in_currency(record.reported_micros, record.currency),
    )
    return dict(zip(_FACTS, facts, strict=True))
