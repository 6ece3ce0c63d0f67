"""What reports read of the ledger: running totals, and the few runs that they point out.

Invariants: what is read is as much as is shown, so that a ledger of years is added up by the database.
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import sqlalchemy as sa

from kling_nb.ledger.databases.statements import is_postgresql
from kling_nb.ledger.figures import MEASURES
from kling_nb.ledger.rows import Records, read_rows
from kling_nb.records.tally import Tally, shown_tags

__all__ = ["Chosen", "Days", "count_unreadable", "read_open", "read_tallies"]

#: By whether it is play money: totals of days, newest first, and how many days there are in all.
Days = dict[bool, tuple[list[Tally], int]]

_SUMS = ", ".join(f"CAST(sum({name}) AS BIGINT) AS {name}" for name in MEASURES)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Which runs a report is of.

    Args:
        session_id: Only of this session.
        since: Only of this day (UTC) and later.
        until: Only of this day and earlier.
        project: Only of this project.
    """

    session_id: str | None = None
    since: date | None = None
    until: date | None = None
    project: str | None = None

    def rows(self, connection: sa.Connection) -> tuple[str, list[str]]:
        """Say which rows of `sums` these are: a condition, and the values in it."""
        # Each session has a scope of its own, and all of them lie side by side.
        scopes = ["report:", "report;"] if self.session_id is None else [f"report:{self.session_id}"] * 2
        where = "scope >= ? AND scope <= ? AND day >= ? AND day <= ? AND runs <> 0"
        values = [*scopes, str(self.since or ""), str(self.until or "9")]
        if self.project is not None:
            named = "name::jsonb ->> 2" if is_postgresql(connection) else "json_extract(name, '$[2]')"
            where, values = f"{where} AND {named} = ?", [*values, self.project]
        return where, values


def read_tallies(
    connection: sa.Connection, chosen: Chosen, *, fine: bool, days: int
) -> tuple[list[Tally], Days]:
    """Read the running totals of reports; see `Ledger.tallies`."""
    where, values = chosen.rows(connection)
    read = f"scope, name, play, day, {', '.join(MEASURES)} FROM sums WHERE {where}"
    if not fine:
        read = f"'', name, play, '', {_SUMS} FROM sums WHERE {where} GROUP BY name, play"
    rows = connection.exec_driver_sql(f"SELECT {read}", tuple(values))
    # The same few names stand on every day.
    labels = functools.cache(_labels_and_tags)
    tallies = [_tally(labels(name), scope, play, day, figures) for scope, name, play, day, *figures in rows]
    kinds = (False, True) if days else ()
    return tallies, {play: _newest_days(connection, chosen, play=play, most=days) for play in kinds}


def _newest_days(
    connection: sa.Connection, chosen: Chosen, *, play: bool, most: int
) -> tuple[list[Tally], int]:
    where, values = chosen.rows(connection)
    rows = connection.exec_driver_sql(
        f"SELECT count(*) OVER (), day, {_SUMS} FROM sums WHERE {where} AND play = ? "
        "GROUP BY day ORDER BY day DESC LIMIT ?",
        (*values, int(play), most),
    ).all()
    days = [_tally(({}, {}), "", int(play), day, figures) for _, day, *figures in rows]
    return days, rows[0][0] if rows else 0


def _labels_and_tags(name: str) -> tuple[dict[str, Any], dict[str, str]]:
    provider, model, project, user, notebook, private, tags = json.loads(name)
    labels = {"provider": provider, "model": model, "user": user, "project": project, "notebook": notebook}
    return labels, shown_tags(tags, private=bool(private))


def _tally(
    known: tuple[dict[str, Any], dict[str, str]], scope: str, play: int, day: str, figures: Sequence[int]
) -> Tally:
    labels, tags = known
    labels = {**labels, "day": day, "session": scope.removeprefix("report:")}
    counted: dict[str, Any] = dict(zip(MEASURES, figures, strict=True))
    return Tally(play=bool(play), labels=labels, tags=tags, **counted)


def read_open(connection: sa.Connection) -> Records:
    """Read the ended runs of real money whose charge is not their provider's own word, newest first."""
    query = (
        "SELECT runs.id, runs.record FROM figures JOIN runs ON runs.id = figures.run_id "
        "WHERE figures.open = 1 AND figures.play = 0 ORDER BY figures.created_at DESC, runs.id"
    )
    return read_rows((run_id, text) for run_id, text in connection.exec_driver_sql(query))


def count_unreadable(connection: sa.Connection, session_id: str | None = None) -> int:
    """Count the runs whose records cannot be read; see `Ledger.unreadable`."""
    query = "SELECT count(*) FROM figures WHERE readable = 0"
    if session_id is None:
        return int(connection.exec_driver_sql(query).scalar_one())
    return int(connection.exec_driver_sql(f"{query} AND session_id = ?", (session_id,)).scalar_one())
