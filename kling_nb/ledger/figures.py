"""The figures of each run and their running totals: kept by the database itself, whoever writes a row.

Invariants: `figures` has one row a run, made of its row in `runs` alone; `sums` adds those up by day (UTC),
for each session, project and user, and for reports; triggers keep both in the transaction that writes the
run. A row whose record cannot be read counts under every cap and in no report.
"""

import sqlalchemy as sa

__all__ = ["MEASURES", "add_figures", "differences", "rebuild"]

#: What is added up, and what one row of `figures` adds; the names are those of `records.tally.Tally`.
MEASURES = {
    "runs": "1",
    "pending": "{r}.pending",
    "estimated": "coalesce({r}.estimated, 0)",
    "estimated_known": "{r}.estimated IS NOT NULL",
    "reported": "coalesce({r}.billed * {r}.reports, 0)",
    "reported_known": "{r}.reports AND {r}.billed IS NOT NULL",
    "reports": "{r}.reports",
    "settled": "coalesce({r}.settled, 0)",
    "settled_known": "{r}.settled IS NOT NULL",
    "unknown": "{r}.pending = 0 AND {r}.settled IS NULL",
    "reserved": "{r}.reserved",
    "difference": "coalesce({r}.settled - {r}.estimated, 0)",
    "compared": "{r}.settled IS NOT NULL AND {r}.estimated IS NOT NULL",
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
    user VARCHAR NOT NULL,
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
    ("'session'", "{r}.session_id", "1"),
    ("'project'", "{r}.project", "1"),
    ("'user'", "{r}.user", "1"),
    ("'report:' || {r}.session_id", "{r}.report", "{r}.readable"),
)
_KNOWN = "('created', 'submitting', 'queued', 'running', 'saving', 'succeeded', 'failed', 'canceled', 'lost')"
_ENDED = "('succeeded', 'failed', 'canceled', 'lost')"
#: What is taken out of a record, in this order: one pass over its text.
_WITHIN = (
    *("request.duration", "request.audio", "estimate.reserve_micros", "estimate.micros", "estimate.currency"),
    *("reported_micros", "currency", "origin", "notebook", "private", "tags"),
)
_PATHS = ", ".join(f"'$.{name}'" for name in _WITHIN)


def _part(name: str) -> str:
    return f"json_extract(parts, '$[{_WITHIN.index(name)}]')"


def _sound(row: str) -> str:
    return f"CASE WHEN json_valid({row}.record) THEN json_extract({row}.record, '$.status') IN {_KNOWN} END"


def _figures_of(row: str) -> str:
    """Write the query that makes a row of `figures` of a row of `runs`."""
    # `LIMIT -1` and a condition around it: what stands inside is worked out once, not at each mention.
    return f"""
        SELECT id, readable, play, substr(created_at, 1, 10), created_at, session_id, project, user,
            json_array(provider, model, project, user, notebook, private, json(tags)), provider, model,
            origin, duration, audio, CASE WHEN status = 'succeeded' THEN seconds END,
            CASE WHEN status = 'succeeded' AND session_id <> '' AND billed > 0 THEN billed END,
            pending, estimated, billed, told OR open, settled, reserved, open
        FROM (SELECT *, NOT pending AND billed IS NULL AND CASE WHEN coalesce(settled, 0) <> 0 THEN 1
                WHEN status = 'lost' AND reserved <> 0 THEN 1 ELSE charged <> 'no' END AS open
            FROM (SELECT *, status NOT IN {_ENDED} AS pending,
                    {_part("request.duration")} IS NOT NULL AND {_part("estimate.reserve_micros")} IS NOT NULL
                        AS readable,
                    CASE WHEN {_part("estimate.currency")} = 'USD' THEN {_part("estimate.micros")} END
                        AS estimated,
                    {_part("reported_micros")} IS NOT NULL AS told,
                    CASE WHEN {_part("currency")} = 'USD' OR {_part("reported_micros")} = 0
                        THEN {_part("reported_micros")} END AS billed,
                    coalesce({_part("request.audio")}, 0) AS audio,
                    coalesce({_part("origin")}, '') AS origin, {_part("notebook")} AS notebook,
                    coalesce({_part("private")}, 0) AS private, coalesce({_part("tags")}, '{{}}') AS tags
                FROM (SELECT {row}.id AS id, {row}.status AS status, {row}.play AS play,
                    {row}.created_at AS created_at, {row}.session_id AS session_id, {row}.project AS project,
                    {row}.user AS user, {row}.provider AS provider, {row}.model AS model,
                    {row}.duration AS duration, {row}.seconds AS seconds, {row}.charged AS charged,
                    {row}.settled_micros AS settled, {row}.reserved_micros AS reserved,
                    CASE WHEN {_sound(row)} THEN json_extract({row}.record, {_PATHS}) ELSE '[]' END AS parts
                    {"FROM runs" if row == "runs" else ""} LIMIT -1)
                WHERE id IS NOT NULL LIMIT -1)
            WHERE id IS NOT NULL LIMIT -1)
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
        SELECT scope, name, {row}.play, {row}.day, {amounts} FROM ({scopes}) WHERE true
        ON CONFLICT DO UPDATE SET {", ".join(f"{name} = {name} + excluded.{name}" for name in MEASURES)};"""


def _changed() -> str:
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
            WHEN ({_sound("OLD")}) AND ({_sound("NEW")}) THEN {within} ELSE 1 END"""


def _triggers() -> dict[str, str]:
    """Write the triggers, by name."""
    put, drop = f"INSERT INTO figures {_figures_of('NEW')};", "DELETE FROM figures WHERE run_id = OLD.id;"
    bodies = {
        "runs_added": f"AFTER INSERT ON runs BEGIN {put} END",
        "runs_changed": f"AFTER UPDATE ON runs WHEN {_changed()} BEGIN {drop} {put} END",
        "runs_removed": f"AFTER DELETE ON runs BEGIN {drop} END",
        "figures_added": f"AFTER INSERT ON figures BEGIN {_add('NEW', '')} END",
        "figures_removed": f"AFTER DELETE ON figures BEGIN {_add('OLD', '-')} END",
    }
    return {name: f"CREATE TRIGGER {name} {body}" for name, body in bodies.items()}


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
        connection.exec_driver_sql(statement)
    rebuild(connection)


def rebuild(connection: sa.Connection) -> None:
    """Make every row of both tables anew from the runs; in a write transaction."""
    triggers = _triggers()
    for name in triggers:
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}")
    connection.exec_driver_sql("DELETE FROM figures")
    connection.exec_driver_sql("DELETE FROM sums")
    connection.exec_driver_sql(f"INSERT INTO figures {_figures_of('runs')}")
    connection.exec_driver_sql(f"INSERT INTO sums {_all_sums()}")
    for statement in triggers.values():
        connection.exec_driver_sql(statement)


def differences(connection: sa.Connection) -> int:
    """Count the rows of `figures` and `sums` that are not what the runs make of them; reads everything."""
    queries = (
        f"SELECT * FROM ({_figures_of('runs')}) EXCEPT SELECT * FROM figures",
        "SELECT run_id FROM figures EXCEPT SELECT id FROM runs",
        f"SELECT * FROM ({_all_sums()}) EXCEPT SELECT * FROM sums",
        f"SELECT * FROM sums WHERE runs <> 0 EXCEPT SELECT * FROM ({_all_sums()})",
    )
    return sum(
        connection.exec_driver_sql(f"SELECT count(*) FROM ({query})").scalar_one() for query in queries
    )
