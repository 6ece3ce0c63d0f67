"""Runflow's list of runs: its filter in both documented spellings, its order, its pages.

Invariants:
    * A filter means what it says or is refused: nothing is guessed.
    * Rows go in and come out; nothing here knows a run or HTTP.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Row = dict[str, Any]
T = TypeVar("T")
_EQ: Final = re.compile(r"(\w+)\.EQ:'((?:[^'\\]|\\.)*)'")
_COLON: Final = re.compile(r"""(\w+)(:|>=|<=|>|<)\s*(?:'([^']*)'|"([^"]*)"|([^\s'"]+))""")

_FIELDS: Final = frozenset(
    {"id", "status_code", "client_ref", "created_at", "started_at", "completed_at", "model_id", "batch_id"}
)


"""What can be filtered by: the sandbox's own choice, only `client_ref` is documented to work."""


class BadListError(ValueError):
    """A query that the list does not understand."""


@dataclass(frozen=True)
class _Clause:
    name: str
    sign: str
    value: str

    def holds(self, row: Mapping[str, Any]) -> bool:
        have = row.get(self.name)
        if have is None:
            return False
        if self.name.endswith("_at"):
            try:
                left, right = datetime.fromisoformat(have), datetime.fromisoformat(self.value)
                order = (left > right) - (left < right)
            except (ValueError, TypeError) as wrong:
                raise BadListError(f"{self.value!r} is no date with a time zone") from wrong
        else:
            order = (have > self.value) - (have < self.value)
        return {":": order == 0, ">": order > 0, "<": order < 0, ">=": order >= 0, "<=": order <= 0}[
            self.sign
        ]


def matching(rows: Sequence[Row], text: str, mode: str) -> list[Row]:
    """The rows that a filter lets through.

    Args:
        rows: Runs as the API shows them.
        text: The `q` parameter; empty lets all through.
        mode: The switch `list_filter`.

    Returns:
        In the same order.

    Raises:
        BadListError: The filter is not understood, or refused by the switch.

    Example:
        >>> matching([{"client_ref": "a"}, {"client_ref": "b"}], "client_ref.EQ:'b'", "both")
        [{'client_ref': 'b'}]
    """
    if not text or mode == "ignored":
        return list(rows)
    if mode == "empty":
        return []
    if mode == "refused":
        raise BadListError(f"the filter {text!r} is not understood")
    clauses = [_read(part.strip(), mode) for part in text.split(" AND ")]
    return [row for row in rows if all(clause.holds(row) for clause in clauses)]


def ordered(rows: Sequence[T], text: str) -> list[T]:
    """Rows, or runs, by age.

    Args:
        rows: Oldest first.
        text: The `sort_by` parameter.

    Returns:
        In the order asked for.

    Raises:
        BadListError: An order that the list does not know.
    """
    if text not in {"created_at:desc", "created_at:asc"}:
        raise BadListError(f"sort_by {text!r} is not understood")
    return list(rows) if text.endswith("asc") else list(reversed(rows))


def number_in(text: str, what: str, least: int, most: int) -> int:
    """A whole number of a query string.

    Args:
        text: As it came.
        what: Its name, for the complaint.
        least: Smallest allowed.
        most: Largest allowed.

    Returns:
        The number.

    Raises:
        BadListError: It is none, or out of range.
    """
    if text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most:
        return int(text)
    raise BadListError(f"{what} must be a whole number from {least} to {most}")


def _read(text: str, mode: str) -> _Clause:
    exact = _EQ.fullmatch(text) if mode in {"both", "eq"} else None
    loose = _COLON.fullmatch(text) if mode in {"both", "colon"} and exact is None else None
    if exact:
        clause = _Clause(exact[1], ":", re.sub(r"\\(.)", r"\1", exact[2]))
    elif loose:
        clause = _Clause(loose[1], loose[2], loose[3] or loose[4] or loose[5] or "")
    else:
        raise BadListError(f"the filter {text!r} is not understood")
    if clause.name not in _FIELDS:
        raise BadListError(f"runs cannot be filtered by {clause.name!r}")
    return clause
