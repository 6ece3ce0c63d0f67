"""The run ledger: what was asked, what became of it and what it cost, on disk before anything is sent.

Invariants: every write is one transaction that begins with BEGIN IMMEDIATE, so that a look and the
insert that rests on it cannot be split by another process; events are only ever appended; at most one
run per run key is live; an ended run's money changes only through `change`; a program older than
the schema refuses to write.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from kling_nb.errors import LedgerError
from kling_nb.records import RunRecord, RunStatus, Totals, utc_now

__all__ = ["Ledger", "Transaction"]

_schema = sa.MetaData()

_runs = sa.Table(
    "runs",
    _schema,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("request_key", sa.String, nullable=False, index=True),
    sa.Column("run_key", sa.String, nullable=False),
    sa.Column("provider", sa.String, nullable=False),
    sa.Column("model", sa.String, nullable=False),
    sa.Column("provider_run_id", sa.String),
    sa.Column("status", sa.String, nullable=False),
    sa.Column("charged", sa.String, nullable=False),
    sa.Column("play", sa.Boolean, nullable=False),
    sa.Column("session_id", sa.String, nullable=False, index=True),
    sa.Column("project", sa.String, nullable=False),
    sa.Column("user", sa.String, nullable=False),
    sa.Column("created_at", sa.String, nullable=False, index=True),
    sa.Column("seconds", sa.Float),
    sa.Column("duration", sa.Integer, nullable=False),
    sa.Column("reserved_micros", sa.BigInteger, nullable=False),
    sa.Column("settled_micros", sa.BigInteger),
    sa.Column("owner", sa.String),
    sa.Column("owned_until", sa.String),
    sa.Column("record", sa.Text, nullable=False),
)
_LIVE = ("created", "submitting", "queued", "running", "saving", "lost")
sa.Index(
    "one_live_run_per_key",
    _runs.c.run_key,
    unique=True,
    sqlite_where=_runs.c.status.in_(_LIVE),
    postgresql_where=_runs.c.status.in_(_LIVE),
)
_events = sa.Table(
    "events",
    _schema,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("run_id", sa.String, nullable=False, index=True),
    sa.Column("at", sa.String, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("data", sa.Text, nullable=False),
)
_migrations = sa.Table(
    "migrations",
    _schema,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("applied_at", sa.String, nullable=False),
)


def _create_tables(connection: sa.Connection) -> None:
    _runs.create(connection)
    _events.create(connection)


# Numbered from 1 in this order, each applied and recorded in one transaction. Never edit one that was
# released: append.
_STEPS: tuple[tuple[str, Callable[[sa.Connection], None]], ...] = (
    ("create runs and events", _create_tables),
)


def _row(record: RunRecord) -> dict[str, Any]:
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


class Transaction:
    """One write transaction: everything in it happens, or nothing does."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def find(self, request_keys: Collection[str]) -> list[RunRecord]:
        """Give every run of these requests, oldest first."""
        query = (
            sa.select(_runs.c.record)
            .where(_runs.c.request_key.in_(request_keys))
            .order_by(_runs.c.created_at)
        )
        return [RunRecord.model_validate_json(text) for text in self._connection.scalars(query)]

    def get(self, run_id: str) -> RunRecord | None:
        """Give one run by our id."""
        text = self._connection.scalar(sa.select(_runs.c.record).where(_runs.c.id == run_id))
        return None if text is None else RunRecord.model_validate_json(text)

    def totals(self, session_id: str, *, play: bool) -> Totals:
        """Add up a session's money; runs whose charge is unknown are counted beside the sums."""
        ended = _runs.c.status.in_([s.value for s in RunStatus if s.ended])
        settled, reserved, unknown = self._connection.execute(
            sa.select(
                sa.func.coalesce(sa.func.sum(_runs.c.settled_micros), 0),
                sa.func.coalesce(sa.func.sum(_runs.c.reserved_micros), 0),
                sa.func.coalesce(
                    sa.func.sum(sa.case((ended & _runs.c.settled_micros.is_(None), 1), else_=0)), 0
                ),
            ).where(_runs.c.session_id == session_id, _runs.c.play == play)
        ).one()
        return Totals(
            settled_micros=int(settled), reserved_micros=int(reserved), unknown=int(unknown), play=play
        )

    def committed(self, *, play: bool, since: datetime | None = None, **equal: str) -> int:
        """Add up what is spent or held back, in micro-dollars.

        Args:
            play: Play money or real money.
            since: Only runs made at or after it.
            **equal: Only runs whose `project`, `user` or `session_id` is this.

        Returns:
            Settled and reserved micro-dollars together.
        """
        query = sa.select(
            sa.func.coalesce(
                sa.func.sum(sa.func.coalesce(_runs.c.settled_micros, 0) + _runs.c.reserved_micros), 0
            )
        ).where(_runs.c.play == play, *(_runs.c[name] == value for name, value in equal.items()))
        if since is not None:
            query = query.where(_runs.c.created_at >= since.isoformat())
        return int(self._connection.scalar(query) or 0)

    def insert(self, record: RunRecord, kind: str = "created", **data: Any) -> None:
        """Add a run and its first event."""
        self._connection.execute(sa.insert(_runs).values(**_row(record)))
        self._append(record.id, kind, {"status": record.status.value, **data})

    def write(self, record: RunRecord, kind: str, **data: Any) -> None:
        """Replace a run's current state and append the event that explains it."""
        self._connection.execute(sa.update(_runs).where(_runs.c.id == record.id).values(**_row(record)))
        self._append(record.id, kind, {"status": record.status.value, **data})

    def _append(self, run_id: str, kind: str, data: dict[str, Any]) -> None:
        text = json.dumps(data, default=str, sort_keys=True)
        self._connection.execute(
            sa.insert(_events).values(run_id=run_id, at=utc_now().isoformat(), kind=kind, data=text)
        )


class Ledger:
    """The ledger at a path or a database address.

    Args:
        where: A file path, or an SQLAlchemy URL.

    Raises:
        LedgerError: It cannot be opened, or a newer program wrote it.

    Example:
        >>> import tempfile
        >>> Ledger(Path(tempfile.mkdtemp()) / "ledger.db").runs()
        []
    """

    def __init__(self, where: str | Path) -> None:
        text = str(where)
        url = sa.make_url(text) if "://" in text else sa.URL.create("sqlite", database=text)
        self.where = url.render_as_string(hide_password=True) if "://" in text else text
        if url.get_backend_name() == "sqlite" and url.database not in {None, "", ":memory:"}:
            try:
                Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise self._broken(error) from None
        self._engine = sa.create_engine(url)
        if url.get_backend_name() == "sqlite":
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)
        self._migrate()

    def _broken(self, error: Exception) -> LedgerError:
        cause = getattr(error, "orig", None) or error
        return LedgerError(
            f"The ledger {self.where} cannot be used: {cause}.",
            cure="Nothing was sent. Mend the disk or the permissions, or point KLING_NB_LEDGER elsewhere.",
        )

    def _migrate(self) -> None:
        with self._transaction() as connection:
            _migrations.create(connection, checkfirst=True)
            done = connection.scalar(sa.select(sa.func.coalesce(sa.func.max(_migrations.c.number), 0))) or 0
            if done > len(_STEPS):
                raise LedgerError(
                    f"A newer kling_nb wrote the ledger {self.where}: schema {done}, not {len(_STEPS)}.",
                    cure="Upgrade kling_nb, or point KLING_NB_LEDGER elsewhere.",
                )
            for number, (name, step) in enumerate(_STEPS[done:], start=done + 1):
                step(connection)
                connection.execute(
                    sa.insert(_migrations).values(number=number, name=name, applied_at=utc_now().isoformat())
                )

    @contextmanager
    def _transaction(self, *, writing: bool = True) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                connection = connection.execution_options(writing=writing)  # noqa: PLW2901 - the same connection, marked
                with connection.begin():
                    yield connection
        except DBAPIError as error:
            raise self._broken(error) from None

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        """Open one write transaction; nobody else writes until it ends.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        with self._transaction() as connection:
            yield Transaction(connection)

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """Open one read transaction: a consistent view, holding up nobody."""
        with self._transaction(writing=False) as connection:
            yield Transaction(connection)

    def change(self, run_id: str, kind: str, /, **changes: Any) -> RunRecord:
        """Change fields of a run and append the event that explains it.

        Args:
            run_id: Our id.
            kind: The name of the event.
            **changes: Fields of `RunRecord`.

        Returns:
            The new record.

        Raises:
            LedgerError: There is no such run, or the ledger cannot be written.
        """
        with self.writing() as transaction:
            record = transaction.get(run_id)
            if record is None:
                raise LedgerError(f"There is no run {run_id} in {self.where}.", cure="See `%kling list`.")
            new = RunRecord.model_validate({**record.model_dump(), **changes})
            transaction.write(
                new, kind, **{k: v for k, v in changes.items() if k not in {"request", "status"}}
            )
        return new

    def claim(self, run_id: str, owner: str, ttl_s: float) -> bool:
        """Take or renew the right to drive a run.

        Args:
            run_id: Our id.
            owner: A name of this process that no other shares.
            ttl_s: Seconds until others may take over.

        Returns:
            Whether the run is ours now.
        """
        now = utc_now()
        with self._transaction() as connection:
            free = (
                _runs.c.owner.is_(None) | (_runs.c.owner == owner) | (_runs.c.owned_until < now.isoformat())
            )
            until = (now + timedelta(seconds=ttl_s)).isoformat()
            query = sa.update(_runs).where(_runs.c.id == run_id, free).values(owner=owner, owned_until=until)
            return connection.execute(query).rowcount == 1

    def release(self, run_id: str, owner: str) -> None:
        """Give the right to drive a run back."""
        with self._transaction() as connection:
            connection.execute(
                sa.update(_runs)
                .where(_runs.c.id == run_id, _runs.c.owner == owner)
                .values(owner=None, owned_until=None)
            )

    def get(self, run_id: str) -> RunRecord | None:
        """Give one run by our id, or None."""
        with self._transaction(writing=False) as connection:
            return Transaction(connection).get(run_id)

    def runs(
        self,
        *,
        statuses: Sequence[RunStatus] | None = None,
        session_id: str | None = None,
        provider_run_id: str | None = None,
        limit: int | None = None,
    ) -> list[RunRecord]:
        """List runs, newest first.

        Args:
            statuses: Only these.
            session_id: Only of this session.
            provider_run_id: Only with this id at the provider.
            limit: At most so many.

        Returns:
            Records.
        """
        query = sa.select(_runs.c.record).order_by(_runs.c.created_at.desc(), _runs.c.id)
        if statuses is not None:
            query = query.where(_runs.c.status.in_([status.value for status in statuses]))
        if session_id is not None:
            query = query.where(_runs.c.session_id == session_id)
        if provider_run_id is not None:
            query = query.where(_runs.c.provider_run_id == provider_run_id)
        with self._transaction(writing=False) as connection:
            return [RunRecord.model_validate_json(text) for text in connection.scalars(query.limit(limit))]

    def totals(self, session_id: str, *, play: bool) -> Totals:
        """Add up a session's money."""
        with self._transaction(writing=False) as connection:
            return Transaction(connection).totals(session_id, play=play)

    def events(self, run_id: str) -> list[tuple[str, str, dict[str, Any]]]:
        """Give a run's history: time, kind and data of each event, oldest first."""
        query = sa.select(_events.c.at, _events.c.kind, _events.c.data).where(_events.c.run_id == run_id)
        with self._transaction(writing=False) as connection:
            return [
                (at, kind, json.loads(data))
                for at, kind, data in connection.execute(query.order_by(_events.c.number))
            ]

    def waits(self, provider: str, model: str, duration: int, *, limit: int = 50) -> list[float]:
        """Give the seconds that this user's own finished runs of this kind took, newest first."""
        query = (
            sa.select(_runs.c.seconds)
            .where(
                _runs.c.provider == provider,
                _runs.c.model == model,
                _runs.c.duration == duration,
                _runs.c.status == RunStatus.SUCCEEDED.value,
                _runs.c.seconds.is_not(None),
            )
            .order_by(_runs.c.created_at.desc())
            .limit(limit)
        )
        with self._transaction(writing=False) as connection:
            return list(connection.scalars(query))

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def forget(self) -> None:
        """Drop the connections without closing them: what a forked child must do with its parent's."""
        self._engine.dispose(close=False)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # SQLAlchemy's begin event must be the one that begins: the driver's own habit would begin too late.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout = 30000")
    cursor.execute("PRAGMA journal_mode = WAL")
    # FULL: the intent must survive a power cut before the POST leaves, which NORMAL does not promise in WAL.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    writing = connection.get_execution_options().get("writing", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
