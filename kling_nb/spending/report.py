"""What was spent, as one object with one set of numbers: page, text, data frame, CSV file and JSON document.

Invariants: every view is made from the same rows; real money and play money stand apart in all of them;
nothing that opens in a spreadsheet can be a formula there; the page needs no script and no trust, and its
bars say nothing that is not also a number beside them.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kling_nb.errors import installed, one_line
from kling_nb.pricing.catalog import provider_label
from kling_nb.records.money import Totals, plain_usd, usd, usd_of
from kling_nb.records.run import RunRecord
from kling_nb.records.tally import Tally, tally_of
from kling_nb.spending.counted import Counted
from kling_nb.spending.sums import (
    OVERVIEW,
    Group,
    add_up,
    columns,
    difference,
    group,
    read_dimensions,
    row_of,
)
from kling_nb.spending.tables import LEGEND, MOST_ROWS, drawn, sums_table, sums_words
from kling_nb.views.html import FONT, tag
from kling_nb.views.tables import Part, csv_text, page_of, text_of
from kling_nb.views.words import session_words, there_are, unread_words

if TYPE_CHECKING:
    from pandas import DataFrame

    from kling_nb.ledger.tallies import Days

__all__ = ["BalanceLine", "Check", "CostReport", "totals_data"]

_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True, kw_only=True)
class Check:
    """What asking a provider again about one run's charge came to.

    Args:
        run_id: Our id.
        provider: Who was asked.
        provider_run_id: The provider's id, if there is one.
        outcome: `settled` (the charge was unknown), `corrected`, `confirmed`, `open` (asked, and no figure
            was told) or `not asked`.
        words: Why, where that needs words.
        was_micros: What was on the books, in micro-dollars; None for unknown.
        is_micros: What is on them now.

    Example:
        >>> Check(run_id="kl7m2q", provider="runcomfy", outcome="open", was_micros=560000).difference_micros
    """

    run_id: str
    provider: str
    provider_run_id: str | None = None
    outcome: Literal["settled", "corrected", "confirmed", "open", "not asked"]
    words: str = ""
    was_micros: int | None = None
    is_micros: int | None = None

    @property
    def difference_micros(self) -> int | None:
        """By how much the books changed, in micro-dollars; None where one side is unknown."""
        known = self.was_micros is not None and self.is_micros is not None
        return (self.is_micros or 0) - (self.was_micros or 0) if known else None

    def data(self) -> dict[str, Any]:
        """Give it as plain data."""
        figures = {"was": self.was_micros, "is": self.is_micros, "difference": self.difference_micros}
        row: dict[str, Any] = {"run": self.run_id, "provider": self.provider}
        row |= {"provider_run_id": self.provider_run_id, "outcome": self.outcome, "words": self.words}
        for name, micros in figures.items():
            row |= {f"{name}_micros": micros, name: plain_usd(micros)}
        return row | {"currency": "USD"}


@dataclass(frozen=True, kw_only=True)
class BalanceLine:
    """What a provider says is left on an account.

    Args:
        provider: Whose.
        usd: Decimal dollars as text; None where it does not tell.
        words: Why not.
    """

    provider: str
    usd: str | None
    words: str = ""

    def __str__(self) -> str:
        amount = f"not stated ({self.words})"
        if self.usd is not None:
            amount = f"**{usd_of(self.usd)}**"
        return f"Balance at {provider_label(self.provider)}: {amount}."


class CostReport:
    """What some runs were estimated at, reported to cost and settled at.

    Args:
        records: The runs, one by one, or in a ledger that counts them together.
        by: What the rows are arranged by; see `spending.DIMENSIONS`.
        scope: Which runs these are, in words.
        money: What the session has spent and may spend, real money first.
        checks: What asking the providers again came to, run by run.
        balances: What the providers say is left.
        unread: How many rows of the ledger could not be read, so that they are in no figure.

    Example:
        >>> report = CostReport([])
        >>> report.rows, report.totals
        ([], [])
        >>> print(report)
        This session: no runs.
    """

    def __init__(
        self,
        records: Iterable[RunRecord | Tally] | Counted,
        *,
        by: str | Sequence[str] | None = None,
        scope: str = "this session",
        money: Sequence[Totals] = (),
        checks: Sequence[Check] | None = None,
        balances: Sequence[BalanceLine] = (),
        unread: int = 0,
    ) -> None:
        self.dimensions = read_dimensions(by)
        self.scope = scope
        self.money = tuple(money)
        self.checks = None if checks is None else tuple(checks)
        self.balances = tuple(balances)
        self.unread = unread
        self._arranged = by is not None
        #: What was spent before, in a sentence.
        self.earlier = ""
        self._counted = records if isinstance(records, Counted) else None
        #: The newest days of each kind of money, and how many there are, read at the same moment.
        self._days: Days = {}
        if isinstance(records, Counted):
            self._tallies, self._days = records.tallies(self.dimensions, most=MOST_ROWS)
        else:
            self._tallies = [each if isinstance(each, Tally) else tally_of(each) for each in records]
        self._groups = group(self._tallies, self.dimensions)

    def by(self, dimensions: str | Sequence[str]) -> "CostReport":
        """Arrange the same runs anew, as they are now.

        Args:
            dimensions: e.g. `day`, `tag:scene`, `provider,day` or `run`.

        Raises:
            UsageError: There is no such dimension.

        Example:
            >>> CostReport([]).by("day").dimensions
            ('day',)
        """
        return CostReport(
            self._counted or self._tallies,
            by=dimensions,
            scope=self.scope,
            money=self.money,
            checks=self.checks,
            balances=self.balances,
            unread=self.unread,
        )

    # -- data ------------------------------------------------------------------------
    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows as plain data: whole micro-dollars, exact decimal text, and None for unknown."""
        return [row_of(self.dimensions, each) for each in self._groups]

    @property
    def totals(self) -> list[dict[str, Any]]:
        """The sums of all runs, each counted once: real money, then play money."""
        return [row_of((), each) for each in group(self._tallies, ())]

    @property
    def df(self) -> "DataFrame":
        """The rows as a pandas data frame.

        Raises:
            UsageError: pandas is not installed.
        """
        cure = "`pip install pandas`, or take `.rows` or `.to_csv()`: the same numbers."
        frame: DataFrame = installed("pandas", cure).DataFrame(self.rows, columns=columns(self.dimensions))
        whole = [name for name in frame.columns if name.endswith(("_micros", "_unknown"))]
        return frame.astype(dict.fromkeys([*whole, "runs", "pending"], "Int64"))

    def to_csv(self, path: str | Path | None = None) -> str | None:
        """Write the rows as CSV.

        Args:
            path: The file, in UTF-8; without one the text is given back.

        Returns:
            The text, or None where a file was written. An unknown amount is an empty cell beside its count; a
            text that a spreadsheet would take for a formula stands behind an apostrophe.

        Example:
            >>> CostReport([]).to_csv().splitlines()[0][:28]
            'play,currency,provider,model'
        """
        names = columns(self.dimensions)
        text = csv_text([names, *([_cell(row.get(name, "")) for name in names] for row in self.rows)])
        if path is None:
            return text
        Path(path).write_text(text, encoding="utf-8", newline="")
        return None

    def data(self) -> dict[str, Any]:
        """Give everything as one JSON document."""
        document: dict[str, Any] = {
            "scope": self.scope,
            "by": list(self.dimensions),
            "rows": self.rows,
            "totals": self.totals,
            "session": [totals_data(totals) for totals in self.money],
            "unread": self.unread,
        }
        if self.checks is not None:
            document["reconciled"] = [check.data() for check in self.checks]
            document["balances"] = [
                {"provider": line.provider, "balance": line.usd, "words": line.words}
                for line in self.balances
            ]
        return document

    # -- pages -----------------------------------------------------------------------
    def __repr__(self) -> str:
        return self.fitted(None)

    def fitted(self, width: int | None) -> str:
        """Give the text for a terminal of so many columns; None leaves lines as long as they are."""
        return text_of((part for part in self._page if part != LEGEND), width)

    def _repr_html_(self) -> str:
        return tag("div", page_of(self._page), style=FONT)

    @cached_property
    def _page(self) -> list[Part]:
        return list(self._parts())

    def _parts(self) -> Iterator[Part]:
        scope = self.scope[0].upper() + self.scope[1:]
        everything = add_up(self._tallies)
        if not everything:
            yield f"{scope}: no runs."
        if self.earlier:
            yield self.earlier
        for sums in everything:
            kind = "play money" if sums.play else "real money"
            yield f"{scope}, {kind}: {sums_words(sums)}."
            for by in self._sections(play=sums.play):
                groups, number = self._table(by, play=sums.play)
                # One day's figures are those of the sentence above.
                if self._arranged or by != ("day",) or number > 1:
                    yield from sums_table(by, groups, number, sums)
        if any(drawn(sums) for sums in everything):
            yield LEGEND
        if self.unread:
            yield unread_words(self.unread)
        yield from (f"{session_words(totals).capitalize()}." for totals in self.money)
        yield from self._checked()

    def _sections(self, *, play: bool) -> list[tuple[str, ...]]:
        if self._arranged:
            return [self.dimensions]
        tagged = any(tally.tags for tally in self._tallies if tally.play is play)
        return [OVERVIEW, ("day",), *([("tag",)] if tagged else [])]

    def _table(self, by: tuple[str, ...], *, play: bool) -> tuple[list[Group], int]:
        """Give the rows of a table, as far as they are shown, and how many there are."""
        if by == ("day",) and play in self._days:
            days, number = self._days[play]
            return group(days, by), number
        groups = group([tally for tally in self._tallies if tally.play is play], by)
        return groups, len(groups)

    def _checked(self) -> Iterator[Part]:
        if self.checks is None:
            unsure = sum(tally.open for tally in self._tallies if not tally.play)
            if unsure:
                what = there_are(unsure, "charge")
                asks = "`%kling cost --reconcile` asks, for free."
                yield f"{what} not confirmed in dollars by the provider: {asks}"
            return
        if not self.checks:
            yield "Every charge is confirmed by its provider: there was nothing to ask."
        else:
            yield "Asked again:"
            rows: list[list[object]] = [
                [
                    check.run_id,
                    provider_label(check.provider),
                    usd(check.was_micros),
                    usd(check.is_micros),
                    difference(check.difference_micros),
                    ": ".join(part for part in (check.outcome, one_line(check.words)) if part),
                ]
                for check in self.checks
            ]
            yield (["run", "provider", "was", "is", "difference", "outcome"], rows, "llrrrw")
        yield from (str(line) for line in self.balances)


def totals_data(totals: Totals) -> dict[str, Any]:
    """Give a session's money as plain data."""
    figures = {
        "spent": totals.settled_micros,
        "reserved": totals.reserved_micros,
        "cap": totals.cap_micros,
        "left": totals.left_micros,
    }
    row: dict[str, Any] = {"play": totals.play, "unknown": totals.unknown}
    for name, micros in figures.items():
        row |= {f"{name}_micros": micros, f"{name}_usd": plain_usd(micros)}
    return row | {"tightest": totals.tightest.level if totals.tightest else None}


def _cell(value: object) -> object:
    """Keep a spreadsheet from running a text: see OWASP, CSV Injection."""
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value
