"""What reports read of the ledger: running totals, and the few runs that they point out."""

import functools
import json
from datetime import date
from typing import Any

import sqlalchemy as sa

from kling_nb.ledger.figures import MEASURES
from kling_nb.ledger.rows import Records, read_rows
from kling_nb.records.tally import Tally, shown_tags

__all__ = ["count_unreadable", "read_open", "read_tallies"]


def read_tallies(
    connection: sa.Connection, *, session_id: str | None, since: date | None, until: date | None
) -> list[Tally]:
    """Read the running totals of reports; see `Ledger.tallies`."""
    # Each session has a scope of its own, and all of them lie side by side.
    first, last = ("report:", "report;") if session_id is None else (f"report:{session_id}",) * 2
    rows = connection.exec_driver_sql(
        f"SELECT scope, name, play, day, {', '.join(MEASURES)} FROM sums WHERE scope >= ? AND scope <= ? "
        "AND day >= ? AND day <= ? AND runs <> 0",
        (first, last, str(since or ""), str(until or "9")),
    )
    # The same few names stand on every day.
    read = functools.cache(_labels_and_tags)
    return [_tally(*read(row[1]), *row) for row in rows]


def _labels_and_tags(name: str) -> tuple[dict[str, Any], dict[str, str]]:
    provider, model, project, user, notebook, private, tags = json.loads(name)
    labels = {"provider": provider, "model": model, "user": user, "project": project, "notebook": notebook}
    return labels, shown_tags(tags, private=bool(private))


def _tally(
    labels: dict[str, Any],
    tags: dict[str, str],
    scope: str,
    _name: str,
    play: int,
    day: str,
    *figures: int,
) -> Tally:
    counted: dict[str, Any] = dict(zip(MEASURES, figures, strict=True))
    labels = {**labels, "day": day, "session": scope.removeprefix("report:")}
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
