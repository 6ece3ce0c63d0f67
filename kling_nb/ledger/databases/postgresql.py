"""How a ledger in PostgreSQL is opened, written and found again after its server was away.

Invariants: a transaction that writes has the ledger to itself from its first statement, as in SQLite, so that
no look is split from the write that rests on it; what is committed is on the server's disk, unless who writes
it said that it need not be; a commit whose answer got lost is looked up.
"""

import functools
import itertools
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from kling_nb.ledger.databases.changes import CALLED, DETACHED, WORK
from kling_nb.ledger.databases.triggers import add_trigger, drop_trigger
from kling_nb.records.base import utc_now

__all__ = [
    "add_functions",
    "add_notices",
    "add_notices_to_many",
    "begin",
    "check_hosts",
    "cure_of",
    "is_committed",
    "is_gone",
    "listen",
    "make_engine",
    "run",
]

_LIMIT_S = 30
#: What a connection sets by itself; a kernel that was stopped in a transaction does not stop its team.
_SETTINGS = (
    f"SET jit = off; SET lock_timeout = '{_LIMIT_S + 15}s'; "
    f"SET idle_in_transaction_session_timeout = '{_LIMIT_S}s'"
)
#: What libpq is told unless the address says otherwise: a server that is unplugged is noticed.
_DEFAULTS = {
    "application_name": "kling_nb",
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "tcp_user_timeout": f"{_LIMIT_S}000",
}
#: Whoever writes waits here; one for each schema of a database.
_KEY = "1802268263, hashtext(current_schema())"
#: By connection, the transaction that it committed last.
_MARKS = (
    "CREATE TABLE IF NOT EXISTS writings (connection VARCHAR PRIMARY KEY, number BIGINT NOT NULL, "
    "at TIMESTAMPTZ NOT NULL DEFAULT now())"
)
_NOW = "extract(epoch FROM clock_timestamp())::float8"
_MARK = (
    "INSERT INTO writings (connection, number) VALUES ('{}', {}) "
    f"ON CONFLICT (connection) DO UPDATE SET number = excluded.number, at = excluded.at RETURNING {_NOW}"
)
#: On which it is told what changes; one for each schema of a database.
_CHANNEL = "'kling_nb ' || hashtext(current_schema())"
#: The server is gone, or goes: admin shutdown, crash, not yet up, idle for too long.
_GONE = {None, "57P01", "57P02", "57P03", "25P03"}


def make_engine(url: sa.URL) -> sa.Engine:
    """Make what connects to the database of an address."""
    missing = {name: value for name, value in _DEFAULTS.items() if name not in url.query}
    url = url.set(drivername="postgresql+psycopg").update_query_dict(missing)
    # A server has a hundred connections for everybody. `begin` begins, in one message with what follows.
    engine = sa.create_engine(
        url, pool_size=4, max_overflow=12, hide_parameters=True, isolation_level="AUTOCOMMIT"
    )
    sa.event.listen(engine, "connect", _prepare)
    sa.event.listen(engine, "before_cursor_execute", _translate, retval=True)
    return engine


def _prepare(driver: Any, record: Any) -> None:
    driver.autocommit = True
    driver.execute(_SETTINGS)
    there, now = driver.execute(f"SELECT to_regclass('writings'), {_NOW}").fetchone()
    if there is None:
        driver.execute(f"BEGIN; SELECT pg_advisory_xact_lock({_KEY}); {_MARKS}; COMMIT")
    record.info["marks"] = uuid.uuid4().hex, itertools.count(1)
    _set_clock(record, now)


def _set_clock(connection: Any, now: float) -> None:
    """Note by how much the server's clock is ahead of ours."""
    connection.info["ahead"] = datetime.fromtimestamp(now, UTC) - utc_now()


def _translate(
    _connection: Any, _cursor: Any, text: str, values: Any, context: Any, _many: object
) -> tuple[str, Any]:
    return (text if context.compiled else _in_its_words(text)), values


@functools.cache
def _in_its_words(text: str) -> str:
    """Write a statement as PostgreSQL takes it."""
    listed = "SELECT json_array_elements_text(CAST(? AS json))"
    return text.replace("SELECT value FROM json_each(?)", listed).replace("?", "%s")


def add_functions(connection: sa.Connection) -> None:
    """Make what SQLite has by itself: a look into a record, and a number for each row."""
    # A record that is no JSON is as unreadable as one of a newer program, and stops nobody from writing.
    # PostgreSQL takes no NUL, not even an escaped one.
    for statement in (
        r"""CREATE OR REPLACE FUNCTION read_json(text) RETURNS jsonb IMMUTABLE LANGUAGE plpgsql AS $$
            BEGIN
                RETURN replace($1, '\u0000', '\ufffd')::jsonb;
            EXCEPTION WHEN data_exception THEN
                RETURN NULL;
            END $$""",
        """CREATE OR REPLACE FUNCTION json_extract(text, text) RETURNS text IMMUTABLE LANGUAGE sql AS
            $$ SELECT read_json($1) #>> string_to_array(substr($2, 3), '.') $$""",
        """CREATE OR REPLACE FUNCTION json_valid(text) RETURNS boolean IMMUTABLE LANGUAGE sql AS
            $$ SELECT read_json($1) IS NOT NULL $$""",
        "ALTER TABLE runs ADD COLUMN rowid BIGINT GENERATED ALWAYS AS IDENTITY UNIQUE",
    ):
        connection.exec_driver_sql(statement)


def add_notices(connection: sa.Connection) -> None:
    """Have it told what changes: runs and their leases by our id, places and lines by their account."""
    for name, event, what in (
        ("run_changed", "AFTER UPDATE OF record, owner ON runs", "NEW.id"),
        ("place_left_free", "AFTER DELETE ON places", "OLD.account"),
        ("line_left", "AFTER DELETE ON place_lines", "OLD.account"),
    ):
        add_trigger(connection, name, event, "TRUE", _tell(what))


def add_notices_to_many(connection: sa.Connection) -> None:
    """Have it told by one name each what concerns many: work that is left to workers, and calls of providers.

    Ledgers that were made before this was a step of its own may have some of it.
    """
    is_left = "EXISTS (SELECT 1 FROM detached WHERE run_id = NEW.id)"
    moved = f"OLD.status <> NEW.status AND {is_left}"
    given_back = f"NEW.status = 'created' AND NEW.owner IS NULL AND OLD.owner IS NOT NULL AND {is_left}"
    moves, more = _tell(f"'{DETACHED}'"), _tell(f"'{WORK}'")
    for name, what, table, when, notices in (
        ("detached_moved", "UPDATE OF status", "runs", moved, moves),
        ("detached_left", "DELETE", "detached", "TRUE", moves),
        ("detached_added", "INSERT", "detached", "TRUE", more),
        ("detached_given_back", "UPDATE OF owner", "runs", given_back, more),
        ("sweep_said", "UPDATE OF state", "sweeps", "TRUE", f"{moves} {more}"),
        ("called_back", "INSERT", "events", f"NEW.kind = '{CALLED}'", _tell(f"'{CALLED}'")),
    ):
        drop_trigger(connection, name, table)
        add_trigger(connection, name, f"AFTER {what} ON {table}", when, notices)


def _tell(what: str) -> str:
    return f"PERFORM pg_notify({_CHANNEL}, {what});"


async def listen(engine: sa.Engine) -> AsyncGenerator[str, None]:
    """Tell what is changed in the ledger, by a connection of its own; see `Changes`."""
    _, options = engine.dialect.create_connect_args(engine.url)
    with suppress(psycopg.Error):
        connection = await psycopg.AsyncConnection.connect(**options, autocommit=True)
        try:
            await connection.execute(f"DO $$ BEGIN EXECUTE format('LISTEN %I', {_CHANNEL}); END $$")
            yield ""
            async for notice in connection.notifies():
                yield notice.payload
        finally:
            await connection.close()


def check_hosts(_connection: sa.Connection) -> None:
    """Refuse nobody: any number of machines may use it."""


def begin(connection: sa.Connection, *, writing: bool, synced: bool) -> str | None:
    """Begin a transaction: one that writes waits for its turn, and leaves its mark."""
    driver = connection.connection.driver_connection
    if not writing:
        run(driver, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return None
    name, numbers = connection.info["marks"]
    number = next(numbers)
    old = "DELETE FROM writings WHERE at < now() - interval '1 day'; " if number == 1 else ""
    answers = run(
        driver,
        f"BEGIN; SET LOCAL synchronous_commit = {'on' if synced else 'off'}; "
        f"SELECT pg_advisory_xact_lock({_KEY}); {old}{_MARK.format(name, number)}",
    )
    while answers.nextset():
        pass
    _set_clock(connection, answers.fetchone()[0])
    return f"{name} {number}"


def is_committed(connection: sa.Connection, mark: str) -> bool:
    """Say whether a transaction was committed; whoever asks writes, so that it has ended."""
    name, number = mark.split()
    query = "SELECT 1 FROM writings WHERE connection = ? AND number = ?"
    return run(connection.connection.driver_connection, query, (name, int(number))).fetchone() is not None


def run(driver: Any, text: str, values: Sequence[Any] = ()) -> Any:
    """Run a statement by the driver."""
    try:
        return driver.execute(_in_its_words(text), values) if values else driver.execute(text)
    except psycopg.Error as error:
        raise DBAPIError(text, None, error, hide_parameters=True) from None


def is_gone(error: BaseException) -> bool:
    """Say whether the server is gone, and with it the connection."""
    cause = getattr(error, "orig", None) or error
    if not isinstance(cause, (psycopg.OperationalError, psycopg.errors.IdleInTransactionSessionTimeout)):
        return False
    return cause.sqlstate in _GONE or str(cause.sqlstate).startswith("08")


def cure_of(cause: BaseException) -> str:
    """Say what to do about a ledger that cannot be used."""
    if getattr(cause, "sqlstate", None) == "55P03":
        return (
            "Another kernel is writing to it: try again in a moment. One that was stopped while it wrote "
            f"is cut off after {_LIMIT_S} seconds; what is in the ledger is whole."
        )
    return "Look whether the server runs and lets you in, or point KLING_NB_LEDGER elsewhere."
