"""The figures of each run and their running totals: kept by the database itself, whoever writes a row.

Invariants: `figures` has one row a run, made of its row in `runs` alone; `sums` adds those up by day (UTC),
for each session, project and user, and for reports; triggers keep both in the transaction that writes the
run. A row whose record cannot be read counts under every cap and in no report.
"""

import sqlalchemy as sa

from kling_nb.ledger.databases.statements import is_postgresql
from kling_nb.ledger.databases.triggers import add_trigger, drop_trigger, run_ddl

__all__ = ["MEASURES", "add_figures", "differences", "rebuild"]


def _flag(condition: str) -> str:
    """Write 1 where a condition is true, and 0 elsewhere: not every database takes the one for the other."""
    return f"CASE WHEN {condition} THEN 1 ELSE 0 END"


#: What is added up, and what one row of `figures` adds; the names are those of `records.tally.Tally`.
MEASURES = {
    "runs": "1",
    "pending": "{r}.pending",
    "estimated": "coalesce({r}.estimated, 0)",
    "estimated_known": _flag("{r}.estimated IS NOT NULL"),
    "reported": "coalesce({r}.billed * {r}.reports, 0)",
    "reported_known": _flag("{r}.reports = 1 AND {r}.billed IS NOT NULL"),
    "reports": "{r}.reports",
    "settled": "coalesce({r}.settled, 0)",
    "settled_known": _flag("{r}.settled IS NOT NULL"),
    "unknown": _flag("{r}.pending = 0 AND {r}.settled IS NULL"),
    "reserved": "{r}.reserved",
    "difference": "coalesce({r}.settled - {r}.estimated, 0)",
    "compared": _flag("{r}.settled IS NOT NULL AND {r}.estimated IS NOT NULL"),
    "open": "{r}.open",
}

_TABLES = f"""
CREATE TABLE figures (
    run_id VARCHAR PRIMARY KEY NOT NULL,
    readable INTEGER NOT NULL,
    play INTEGER NOT NULL,
    day VARCHAR NOT NULL,
    created_at VARCHAR NOT NULL,
    session_id VARCHAR NOT NULL,
    project VARCHAR NOT NULL,
    "user" VARCHAR NOT NULL,
    report VARCHAR NOT NULL,
    provider VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    origin VARCHAR NOT NULL,
    duration INTEGER NOT NULL,
    audio INTEGER NOT NULL,
    waited FLOAT,
    bill BIGINT,
    pending INTEGER NOT NULL,
    estimated BIGINT,
    billed BIGINT,
    reports INTEGER NOT NULL,
    settled BIGINT,
    reserved BIGINT NOT NULL,
    open INTEGER NOT NULL
);
CREATE INDEX figures_unreadable ON figures (run_id) WHERE readable = 0;
CREATE INDEX figures_open ON figures (created_at) WHERE open = 1;
CREATE INDEX figures_waits ON figures (provider, model, duration, audio, created_at, waited)
    WHERE waited IS NOT NULL;
CREATE INDEX figures_bills ON figures (provider, model, audio, origin, created_at) WHERE bill IS NOT NULL;
CREATE TABLE sums (
    scope VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    play INTEGER NOT NULL,
    day VARCHAR NOT NULL,
    {" BIGINT NOT NULL, ".join(MEASURES)} BIGINT NOT NULL,
    PRIMARY KEY (scope, name, play, day)
) WITHOUT ROWID;
CREATE INDEX runs_newest ON runs (created_at DESC, id);
CREATE INDEX runs_by_status ON runs (status, created_at DESC, id);
CREATE INDEX runs_by_session ON runs (session_id, created_at DESC, id);
CREATE INDEX runs_by_provider_run_id ON runs (provider_run_id, provider);
CREATE INDEX runs_by_run_key ON runs (run_key)
"""

#: What each run is counted under.
_SCOPES = (
    ("'session'", "{r}.session_id", "1 = 1"),
    ("'project'", "{r}.project", "1 = 1"),
    ("'user'", "{r}.user", "1 = 1"),
    ("'report:' || {r}.session_id", "{r}.report", "{r}.readable = 1"),
)
_KNOWN = "('created', 'submitting', 'queued', 'running', 'saving', 'succeeded', 'failed', 'canceled', 'lost')"
_ENDED = "('succeeded', 'failed', 'canceled', 'lost')"
#: What is taken out of a record, in this order: one pass over its text.
_WITHIN = (
    *("request.duration", "request.audio", "estimate.reserve_micros", "estimate.micros", "estimate.currency"),
    *("reported_micros", "currency", "origin", "notebook", "private", "tags"),
)
_PATHS = ", ".join(f"'$.{name}'" for name in _WITHIN)


class _Sqlite:
    """What of the figures SQLite words in its own way."""

    #: What stands inside is worked out once, not at each mention.
    once = "LIMIT -1"
    report = "json_array(provider, model, project, user, notebook, private, json(tags))"

    def sound(self, row: str) -> str:
        return (
            f"CASE WHEN json_valid({row}.record) THEN json_extract({row}.record, '$.status') IN {_KNOWN} END"
        )

    def parts(self, row: str) -> str:
        return f"CASE WHEN {self.sound(row)} THEN json_extract({row}.record, {_PATHS}) ELSE '[]' END"

    def part(self, name: str) -> str:
        return f"json_extract(parts, '$[{_WITHIN.index(name)}]')"

    number = flag = part

    def tags(self) -> str:
        return f"coalesce({self.part('tags')}, '{{}}')"

    def changed(self) -> str:
        """Say when a changed row of `runs` has other figures: most steps of a run's life change none."""
        plain = (
            *("id", "play", "created_at", "session_id", "project", "user", "provider", "model", "duration"),
            *("seconds", "charged", "settled_micros", "reserved_micros"),
        )
        within = f"json_extract(OLD.record, {_PATHS}) IS NOT json_extract(NEW.record, {_PATHS})"
        return f"""
            {" OR ".join(f"OLD.{name} IS NOT NEW.{name}" for name in plain)}
            OR ((OLD.status IN {_ENDED} OR NEW.status IN {_ENDED}) AND OLD.status IS NOT NEW.status)
            OR CASE WHEN OLD.record IS NEW.record THEN 0
                WHEN ({self.sound("OLD")}) AND ({self.sound("NEW")}) THEN {within} ELSE 1 END"""


class _Postgresql:
    """What of the figures PostgreSQL words in its own way."""

    once = "OFFSET 0"
    report = 'jsonb_build_array(provider, model, project, "user", notebook, private, tags)::text'

    def parts(self, row: str) -> str:
        record = f"read_json({row}.record)"
        return f"CASE WHEN {record} ->> 'status' IN {_KNOWN} THEN {record} END"

    def part(self, name: str) -> str:
        return f"parts #>> '{{{name.replace('.', ',')}}}'"

    def number(self, name: str) -> str:
        text = self.part(name)
        return f"CASE jsonb_typeof({text.replace('#>>', '#>')}) WHEN 'number' THEN ({text})::bigint END"

    def flag(self, name: str) -> str:
        return f"CASE {self.part(name)} WHEN 'true' THEN 1 WHEN 'false' THEN 0 END"

    def tags(self) -> str:
        return "coalesce(nullif(parts -> 'tags', 'null'), '{}')"

    def changed(self) -> str:
        of = "(SELECT f::text FROM ({}) AS f)"
        new, old = (of.format(_figures_of(row, self)) for row in ("NEW", "OLD"))
        return f"{new} <> {old}"


_Words = _Sqlite | _Postgresql


def _words(connection: sa.Connection) -> _Words:
    return _Postgresql() if is_postgresql(connection) else _Sqlite()


def _figures_of(row: str, sql: _Words) -> str:
    """Write the query that makes a row of `figures` of a row of `runs`."""
    number, part = sql.number, sql.part
    is_open = """pending = 0 AND billed IS NULL AND CASE WHEN coalesce(settled, 0) <> 0 THEN 1 = 1
                WHEN status = 'lost' AND reserved <> 0 THEN 1 = 1 ELSE charged <> 'no' END"""
    readable = f"{part('request.duration')} IS NOT NULL AND {part('estimate.reserve_micros')} IS NOT NULL"
    # A condition around what is worked out once: a row of its own is not looked up in a table.
    return f"""
        SELECT id, readable, play, substr(created_at, 1, 10), created_at, session_id, project, "user",
            {sql.report}, provider, model, origin, duration, audio,
            CASE WHEN status = 'succeeded' THEN seconds END,
            CASE WHEN status = 'succeeded' AND session_id <> '' AND billed > 0 THEN billed END,
            pending, estimated, billed, {_flag("reported = 1 OR open = 1")}, settled, reserved, open
        FROM (SELECT *, {_flag(is_open)} AS open
            FROM (SELECT *, {_flag(f"status NOT IN {_ENDED}")} AS pending,
                    {_flag(readable)} AS readable,
                    CASE WHEN {part("estimate.currency")} = 'USD' THEN {number("estimate.micros")} END
                        AS estimated,
                    {_flag(f"{part('reported_micros')} IS NOT NULL")} AS reported,
                    CASE WHEN {part("currency")} = 'USD' OR {number("reported_micros")} = 0
                        THEN {number("reported_micros")} END AS billed,
                    coalesce({sql.flag("request.audio")}, 0) AS audio,
                    coalesce({part("origin")}, '') AS origin, {part("notebook")} AS notebook,
                    coalesce({sql.flag("private")}, 0) AS private, {sql.tags()} AS tags
                FROM (SELECT {row}.id AS id, {row}.status AS status, {_flag(f"{row}.play")} AS play,
                    {row}.created_at AS created_at, {row}.session_id AS session_id, {row}.project AS project,
                    {row}.user AS "user", {row}.provider AS provider, {row}.model AS model,
                    {row}.duration AS duration, {row}.seconds AS seconds, {row}.charged AS charged,
                    {row}.settled_micros AS settled, {row}.reserved_micros AS reserved,
                    {sql.parts(row)} AS parts
                    {"FROM runs" if row == "runs" else ""} {sql.once}) AS taken
                WHERE id IS NOT NULL {sql.once}) AS read
            WHERE id IS NOT NULL {sql.once}) AS judged
        WHERE id IS NOT NULL"""


def _add(row: str, sign: str) -> str:
    """Write the statement by which a row of `figures` is added to its sums, or taken off."""
    scopes = " UNION ALL ".join(
        f"SELECT {scope.format(r=row)} AS scope, {name.format(r=row)} AS name WHERE {counted.format(r=row)}"
        for scope, name, counted in _SCOPES
    )
    amounts = ", ".join(f"{sign}({amount.format(r=row)})" for amount in MEASURES.values())
    return f"""
        INSERT INTO sums (scope, name, play, day, {", ".join(MEASURES)})
        SELECT scope, name, {row}.play, {row}.day, {amounts} FROM ({scopes}) AS counted
        WHERE 1 = 1 ON CONFLICT (scope, name, play, day)
        DO UPDATE SET {", ".join(f"{name} = sums.{name} + excluded.{name}" for name in MEASURES)};"""


def _triggers(sql: _Words) -> dict[str, tuple[str, str, str, str]]:
    """Write the triggers, by name: the table, the event, when and what."""
    put, drop = (
        f"INSERT INTO figures {_figures_of('NEW', sql)};",
        "DELETE FROM figures WHERE run_id = OLD.id;",
    )
    return {
        "runs_added": ("runs", "INSERT", "1 = 1", put),
        "runs_changed": ("runs", "UPDATE", sql.changed(), f"{drop} {put}"),
        "runs_removed": ("runs", "DELETE", "1 = 1", drop),
        "figures_added": ("figures", "INSERT", "1 = 1", _add("NEW", "")),
        "figures_removed": ("figures", "DELETE", "1 = 1", _add("OLD", "-")),
    }


def _all_sums() -> str:
    """Write the query that adds every row of `figures` up."""
    amounts = ", ".join(f"sum({amount.format(r='f')})" for amount in MEASURES.values())
    return " UNION ALL ".join(
        f"SELECT {scope.format(r='f')}, {name.format(r='f')}, f.play, f.day, {amounts} "
        f"FROM figures AS f WHERE {counted.format(r='f')} GROUP BY 1, 2, 3, 4"
        for scope, name, counted in _SCOPES
    )


def add_figures(connection: sa.Connection) -> None:
    """Make the tables, fill them from the runs that are there, and have them kept from now on."""
    for statement in _TABLES.split(";"):
        run_ddl(connection, statement)
    rebuild(connection)


def rebuild(connection: sa.Connection) -> None:
    """Make every row of both tables anew from the runs; in a write transaction."""
    sql = _words(connection)
    triggers = _triggers(sql)
    for name, (table, *_) in triggers.items():
        drop_trigger(connection, name, table)
    connection.exec_driver_sql("DELETE FROM figures")
    connection.exec_driver_sql("DELETE FROM sums")
    connection.exec_driver_sql(f"INSERT INTO figures {_figures_of('runs', sql)}")
    connection.exec_driver_sql(f"INSERT INTO sums {_all_sums()}")
    for name, (table, event, when, body) in triggers.items():
        add_trigger(connection, name, f"AFTER {event} ON {table}", when, body)


def differences(connection: sa.Connection) -> int:
    """Count the rows of `figures` and `sums` that are not what the runs make of them; reads everything."""
    figures = _figures_of("runs", _words(connection))
    queries = (
        f"SELECT * FROM ({figures}) AS made EXCEPT SELECT * FROM figures",
        "SELECT run_id FROM figures EXCEPT SELECT id FROM runs",
        f"SELECT * FROM ({_all_sums()}) AS made EXCEPT SELECT * FROM sums",
        f"SELECT * FROM sums WHERE runs <> 0 EXCEPT SELECT * FROM ({_all_sums()}) AS made",
    )
    return sum(
        connection.exec_driver_sql(f"SELECT count(*) FROM ({query}) AS wrong").scalar_one()
        for query in queries
    )
