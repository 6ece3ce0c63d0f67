"""The tables of the ledger, and the numbered steps that lead to them.

Invariants: events are only ever appended; at most one run per run key is live; a step that was released is
never edited.
"""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from kling_nb.ledger.databases.statements import is_postgresql
from kling_nb.ledger.figures import add_figures
from kling_nb.ledger.places import add_places
from kling_nb.ledger.work.detached import add_detached
from kling_nb.ledger.work.uploads import add_uploads
from kling_nb.records.run import RunRecord

__all__ = [
    "COLUMNS",
    "EVENTS",
    "LIVE",
    "MIGRATIONS",
    "RUNS",
    "STEPS",
    "SWEEPS",
    "SWEEP_MEMBERS",
    "VOTES",
    "row_of",
]

_schema = sa.MetaData()

#: In the order of bytes in both databases: times, and names of sums, are compared.
_String = sa.String().with_variant(sa.String(collation="C"), "postgresql")

RUNS = sa.Table(
    "runs",
    _schema,
    sa.Column("id", _String, primary_key=True),
    sa.Column("request_key", _String, nullable=False, index=True),
    sa.Column("run_key", _String, nullable=False),
    sa.Column("provider", _String, nullable=False),
    sa.Column("model", _String, nullable=False),
    sa.Column("provider_run_id", _String),
    sa.Column("status", _String, nullable=False),
    sa.Column("charged", _String, nullable=False),
    sa.Column("play", sa.Boolean, nullable=False),
    sa.Column("session_id", _String, nullable=False, index=True),
    sa.Column("project", _String, nullable=False),
    sa.Column("user", _String, nullable=False),
    sa.Column("created_at", _String, nullable=False, index=True),
    sa.Column("seconds", sa.Float),
    sa.Column("duration", sa.Integer, nullable=False),
    sa.Column("reserved_micros", sa.BigInteger, nullable=False),
    sa.Column("settled_micros", sa.BigInteger),
    sa.Column("owner", _String),
    sa.Column("owned_until", _String),
    sa.Column("record", sa.Text, nullable=False),
)
LIVE = ("created", "submitting", "queued", "running", "saving", "lost")
#: By hand: `postgresql_where` would load what speaks to PostgreSQL with every ledger in a file.
_ONE_LIVE = f"CREATE UNIQUE INDEX one_live_run_per_key ON runs (run_key) WHERE status IN {LIVE}"
EVENTS = sa.Table(
    "events",
    _schema,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("run_id", _String, nullable=False, index=True),
    sa.Column("at", _String, nullable=False),
    sa.Column("kind", _String, nullable=False),
    sa.Column("data", sa.Text, nullable=False),
)
VOTES = sa.Table(
    "votes",
    _schema,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("run_a", _String, nullable=False, index=True),
    sa.Column("run_b", _String, nullable=False, index=True),
    sa.Column("left", _String, nullable=False),
    sa.Column("vote", _String, nullable=False),
    sa.Column("axes", sa.Text, nullable=False),
    sa.Column("rater", _String, nullable=False, index=True),
    sa.Column("at", _String, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("session_id", _String, nullable=False),
    sa.Column("project", _String, nullable=False),
)
SWEEPS = sa.Table(
    "sweeps",
    _schema,
    sa.Column("name", _String, primary_key=True),
    sa.Column("grid", sa.Text, nullable=False),
    sa.Column("state", _String, nullable=False),
    sa.Column("play", sa.Boolean, nullable=False),
    sa.Column("consent_micros", sa.BigInteger),
    sa.Column("accounts", sa.Text, nullable=False),
    sa.Column("created_at", _String, nullable=False),
    sa.Column("project", _String, nullable=False),
    sa.Column("user", _String, nullable=False),
)
SWEEP_MEMBERS = sa.Table(
    "sweep_members",
    _schema,
    sa.Column("sweep", _String, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("request_key", _String, nullable=False),
    sa.Column("provider", _String),
    sqlite_with_rowid=False,
)
MIGRATIONS = sa.Table(
    "migrations",
    _schema,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("name", _String, nullable=False),
    sa.Column("applied_at", _String, nullable=False),
)


def _create_tables(connection: sa.Connection) -> None:
    RUNS.create(connection)
    connection.exec_driver_sql(_ONE_LIVE)
    if is_postgresql(connection):
        from kling_nb.ledger.databases import postgresql

        postgresql.add_functions(connection)
    EVENTS.create(connection)


def _create_votes(connection: sa.Connection) -> None:
    VOTES.create(connection)


def _create_sweeps(connection: sa.Connection) -> None:
    SWEEPS.create(connection)
    SWEEP_MEMBERS.create(connection)


def _add_notices(connection: sa.Connection) -> None:
    if is_postgresql(connection):
        from kling_nb.ledger.databases import postgresql

        postgresql.add_notices(connection)


def _add_notices_to_many(connection: sa.Connection) -> None:
    if is_postgresql(connection):
        from kling_nb.ledger.databases import postgresql

        postgresql.add_notices_to_many(connection)


# Numbered from 1 in this order, each applied and recorded in one transaction. Never edit one that was
# released: append.
STEPS: tuple[tuple[str, Callable[[sa.Connection], None]], ...] = (
    ("create runs and events", _create_tables),
    ("create votes", _create_votes),
    ("keep figures and running totals", add_figures),
    ("create sweeps", _create_sweeps),
    ("share places in flight", add_places),
    ("note clips that belong into a team's store", add_uploads),
    ("leave runs to workers", add_detached),
    ("tell of changes", _add_notices),
    ("tell of work for workers, and of calls", _add_notices_to_many),
)


#: The columns that `row_of` gives, in its order.
COLUMNS = tuple(column.name for column in RUNS.columns if column.name not in {"owner", "owned_until"})


def row_of(record: RunRecord) -> dict[str, Any]:
    """Give a record as a row of `RUNS`: the whole of it, and beside it what is searched by."""
    return {
        "id": record.id,
        "request_key": record.request_key,
        "run_key": record.run_key,
        "provider": record.provider,
        "model": record.model,
        "provider_run_id": record.provider_run_id,
        "status": record.status.value,
        "charged": record.charged,
        "play": record.play,
        "session_id": record.session_id,
        "project": record.project,
        "user": record.user,
        "created_at": record.created_at.isoformat(),
        "seconds": record.seconds,
        "duration": record.request.duration,
        "reserved_micros": record.reserved_micros,
        "settled_micros": record.settled_micros,
        "record": record.model_dump_json(),
    }
