"""Triggers and tables, written once for both databases."""

import sqlalchemy as sa

from kling_nb.ledger.databases.statements import is_postgresql

__all__ = ["add_trigger", "drop_trigger", "now_text", "run_ddl"]


def run_ddl(connection: sa.Connection, text: str) -> None:
    """Make a table or an index as it is written for SQLite."""
    if is_postgresql(connection):
        # In SQLite texts are in the order of their bytes.
        text = text.replace("WITHOUT ROWID", "").replace("VARCHAR", 'VARCHAR COLLATE "C"')
    connection.exec_driver_sql(text)


def add_trigger(connection: sa.Connection, name: str, event: str, when: str, body: str) -> None:
    """Make a trigger.

    Args:
        connection: In a write transaction.
        name: Its name.
        event: When it is looked at, e.g. `AFTER INSERT ON runs`.
        when: What must be true of the rows `OLD` and `NEW`.
        body: Statements, each with its semicolon.
    """
    if not is_postgresql(connection):
        connection.exec_driver_sql(f"CREATE TRIGGER {name} {event} WHEN {when} BEGIN {body} END")
        return
    connection.exec_driver_sql(
        f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF {when} THEN {body} END IF; RETURN NULL; END $$"
    )
    connection.exec_driver_sql(f"CREATE TRIGGER {name} {event} FOR EACH ROW EXECUTE FUNCTION {name}()")


def drop_trigger(connection: sa.Connection, name: str, table: str) -> None:
    """Remove a trigger, if it is there."""
    on = f" ON {table}" if is_postgresql(connection) else ""
    connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}{on}")


def now_text(connection: sa.Connection) -> str:
    """Write the present time in UTC, as records have it."""
    if is_postgresql(connection):
        return """to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')"""
    return "strftime('%Y-%m-%dT%H:%M:%f000+00:00', 'now')"
