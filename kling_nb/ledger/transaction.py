"""One transaction of the ledger: the looks and the writes that belong together.

Invariants: whatever is done in one happens whole or not at all; a run's state and the event that explains it
are written together; every event says what the run holds and what is settled after it; a shared ledger never
holds the words of a private run.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from kling_nb.errors import LedgerError
from kling_nb.ledger.databases.statements import is_postgresql, ledger_now, run_statement
from kling_nb.ledger.rows import read_row, read_rows, remember
from kling_nb.ledger.schema import COLUMNS, LIVE, row_of
from kling_nb.records.base import utc_now
from kling_nb.records.money import Totals
from kling_nb.records.privacy import redacted
from kling_nb.records.run import Earlier, RunRecord, RunStatus, changed

__all__ = ["LeaseLostError", "Transaction", "revived"]

_MOST_EARLIER = 50
#: What an event does not repeat: it stands in the record, and may hold private words or be long.
_NOT_LOGGED = frozenset({"request", "status", "sent", "earlier"})


# One of them is a word of SQL.
_QUOTED = tuple(f'"{name}"' for name in COLUMNS)
# The statements of every step of a run's life, as the driver takes them.
_INSERT = (
    f"INSERT INTO runs ({', '.join(_QUOTED)}, owner, owned_until) "
    f"VALUES ({', '.join('?' * (len(COLUMNS) + 2))})"
)
#: Columns that are worked out of fields of other names; `record` holds every field.
_WORKED_OUT = {"seconds": {"submitted_at", "finished_at"}, "duration": {"request"}}
_SELECT = "SELECT id, record FROM runs WHERE"
_LIVE = ", ".join(f"'{status}'" for status in LIVE)
_SUMS = ", ".join(f"CAST(coalesce(sum({name}), 0) AS BIGINT)" for name in ("settled", "reserved", "unknown"))
#: Runs that a kernel may drive: its own, and what nobody else drives and is not left to workers.
_FREE = (
    "owner = ? OR ((owner IS NULL OR (owned_until < ? AND status <> 'submitting') OR owned_until = ?) "
    "AND NOT (status = 'created' AND EXISTS (SELECT 1 FROM detached WHERE run_id = runs.id)))"
)


def _note_result(connection: sa.Connection, *more: Any) -> None:
    """Note a result of other tables, so that it is closed with the transaction."""
    connection.info["results"].append(more[-1])


class LeaseLostError(LedgerError):
    """Another process drives the run by now, so this one may not change it."""


class Transaction:
    """One write transaction: everything in it happens, or nothing does."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    @property
    def connection(self) -> sa.Connection:
        """What the other tables of this package are read and written through."""
        if "results" not in self._connection.info:
            self._connection.info["results"] = []
            sa.event.listen(self._connection, "after_execute", _note_result)
        return self._connection

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Do something that an error undoes alone, without the rest of this transaction."""
        with self._connection.begin_nested():
            yield

    def find(self, request_keys: Collection[str]) -> list[RunRecord]:
        """Give every run of these requests, oldest first; one that cannot be read blocks: it may be paid for.

        Raises:
            LedgerError: One of their rows cannot be read.
        """
        among = "request_key IN (SELECT value FROM json_each(?)) ORDER BY created_at"
        rows = self.rows(f"{_SELECT} {among}", json.dumps([*request_keys]))
        return [read_row(run_id, text) for run_id, text in rows]

    def earlier(self, record: RunRecord) -> tuple[Earlier, ...]:
        """Give the attempts of the same take that were asked for before and have ended, oldest first.

        Raises:
            LedgerError: One of their rows cannot be read.
        """
        before = [
            one.as_earlier()
            for one in self.find([record.request_key])
            if one.id != record.id
            and one.play == record.play
            and one.status.ended
            and (one.created_at, one.attempt) < (record.created_at, record.attempt)
        ]
        return tuple(before[-_MOST_EARLIER:])

    def get(self, run_id: str) -> RunRecord | None:
        """Give one run by our id."""
        return self._one(f"{_SELECT} id = ?", run_id)

    def holder(self, provider: str, provider_run_id: str) -> RunRecord | None:
        """Give the run that has this id at its provider."""
        has = "provider = ? AND provider_run_id = ? ORDER BY created_at LIMIT 1"
        return self._one(f"{_SELECT} {has}", provider, provider_run_id)

    def other_with(self, provider_run_id: str, record: RunRecord) -> str | None:
        """Name another run of the same address that has this id at its provider."""
        rows = self.rows(f"{_SELECT} provider_run_id = ? AND id <> ?", provider_run_id, record.id)
        others = read_rows((run_id, text) for run_id, text in rows)
        return next((one.id for one in others if one.origin == record.origin), None)

    def live(self, run_key: str) -> RunRecord | None:
        """Give the run of this run key that is on its way or lost; there is one at most."""
        return self._one(f"{_SELECT} run_key = ? AND status IN ({_LIVE})", run_key)

    def _one(self, query: str, *values: str) -> RunRecord | None:
        for run_id, text in self.rows(query, *values):
            return read_row(run_id, text)
        return None

    def rows(self, query: str, *values: object) -> list[Any]:
        """Give what a query finds, by the driver itself; see `run_statement`."""
        return [*run_statement(self._connection, query, values)]

    def sums(self, *, play: bool, since: datetime | None = None, **equal: str) -> Totals:
        """Read running totals of money; runs whose charge is unknown are counted beside the sums.

        Args:
            play: Play money or real money.
            since: Only runs made on its day (UTC) or after it.
            **equal: Only runs whose `project`, `user` or `session_id` is this; one of them, or none.

        Returns:
            The sums, without any cap.
        """
        [(field, name)] = equal.items() or [("user", None)]
        query, values = (
            f"SELECT {_SUMS} FROM sums WHERE scope = ? AND play = ?",
            [field.removesuffix("_id"), int(play)],
        )
        if name is not None:
            query, values = f"{query} AND name = ?", [*values, name]
        if since is not None:
            query, values = f"{query} AND day >= ?", [*values, since.date().isoformat()]
        [(settled, reserved, unknown)] = self.rows(query, *values)
        return Totals(settled_micros=settled, reserved_micros=reserved, unknown=unknown, play=play)

    def totals(self, session_id: str, *, play: bool) -> Totals:
        """Add up a session's money."""
        return self.sums(play=play, session_id=session_id)

    def began(self, session_id: str) -> datetime | None:
        """Say when the first run of a session was made, or None where it has none."""
        [(text,)] = self.rows("SELECT min(created_at) FROM runs WHERE session_id = ?", session_id)
        return None if text is None else datetime.fromisoformat(text)

    def insert(
        self, record: RunRecord, kind: str = "created", *, lease: tuple[str, float] | None = None, **data: Any
    ) -> None:
        """Add a run and its first event.

        Args:
            record: The run.
            kind: The name of the event.
            lease: Who has the right to drive it from the beginning, and for how many seconds; see `claim`.
            **data: What the event says beside the money.
        """
        row = row_of(self._kept(record))
        owner, until = (lease[0], self._until(lease[1])) if lease else (None, None)
        run_statement(self._connection, _INSERT, (*row.values(), owner, until))
        remember(record, row["record"])
        self._append(record, kind, data)

    def change(self, record: RunRecord, kind: str, changes: Mapping[str, Any], **data: Any) -> RunRecord:
        """Change fields of a run, checked, and append the event that tells of them; gives the new record."""
        new = changed(record, changes)
        kept = self._kept(new)
        known = changes if kept is new else {name: getattr(kept, name) for name in changes}
        stored = {name: value for name, value in known.items() if name not in _NOT_LOGGED}
        self._update(new, changes)
        self._append(new, kind, {**stored, **data})
        return new

    def write(self, record: RunRecord, kind: str, **data: Any) -> None:
        """Replace a run's current state and append the event that explains it."""
        self._update(record)
        self._append(record, kind, data)

    def _update(self, record: RunRecord, changes: Mapping[str, Any] | None = None) -> None:
        """Write a row, or the columns of some changed fields: each one that is named moves its indexes."""
        row = row_of(self._kept(record))
        fields = {*COLUMNS} if changes is None else {"record", *changes}
        columns = [name for name in COLUMNS if name in fields or fields & _WORKED_OUT.get(name, set())]
        named = ", ".join(f'"{name}" = ?' for name in columns)
        update = f"UPDATE runs SET {named} WHERE id = ?"
        run_statement(self._connection, update, (*(row[name] for name in columns), record.id))
        remember(record, row["record"])

    def _kept(self, record: RunRecord) -> RunRecord:
        """Give a run as it is written: where others read the ledger, a private one without its words."""
        return redacted(record) if is_postgresql(self._connection) else record

    def known(self, run_id: str) -> RunRecord:
        """Give one run by our id.

        Raises:
            LedgerError: There is none, or it cannot be read.
        """
        return self._driven(run_id)[0]

    def _driven(self, run_id: str) -> tuple[RunRecord, str | None]:
        """Give one run, and who drives it."""
        for _, text, owner in self.rows("SELECT id, record, owner FROM runs WHERE id = ?", run_id):
            return read_row(run_id, text), owner
        raise LedgerError(f"There is no run {run_id} in the ledger.", cure="See `%kling list`.")

    def change_as(
        self,
        owner: str,
        run_id: str,
        kind: str,
        changes: Mapping[str, Any],
        *,
        at: RunStatus | None = None,
        answered: bool = False,
    ) -> RunRecord:
        """Change a run as the process that drives it; see `Ledger.change_as`."""
        record, holder = self._driven(run_id)
        corrected = answered and record.status is RunStatus.LOST and record.provider_run_id is None
        if not corrected and (holder != owner or (at is not None and record.status != at)):
            raise LeaseLostError(
                f"Another process carries run {run_id} by now.", charged=record.charged, run_id=run_id
            )
        return self.change(record, kind, changes)

    def changed_so(self, owner: str, run_id: str, changes: Mapping[str, Any]) -> RunRecord | None:
        """Give a run that its owner has changed so already, or None."""
        record = self.get(run_id) if self.owner(run_id) == owner else None
        same = record and all(getattr(record, name) == value for name, value in changes.items())
        return record if same else None

    def accept(
        self, owner: str, run_id: str, kind: str, changes: Mapping[str, Any], *, provider_run_id: str
    ) -> RunRecord | None:
        """Write down the provider's id; None where another process has its own: see `Ledger.accept`."""
        record, holder = self._driven(run_id)
        known = None if holder == owner else record.provider_run_id
        live = self.live(record.run_key)
        new = {"provider_run_id": provider_run_id}
        if known is None and live is not None and live.id != run_id:
            # Given up by a person, and asked for anew: the newer one stays, and the id is not lost.
            self.change(record, kind, new)
        elif known is None:
            return self.change(record, kind, {**revived(record), **changes, **new})
        elif known != provider_run_id:
            self.write(record, "accepted a second time", provider_run_id=provider_run_id)
        return None

    def renew(self, run_ids: Sequence[str], owner: str, ttl_s: float) -> int:
        """Keep the right to drive runs, but never take it; gives how many are still this owner's."""
        until = self._until(ttl_s)
        renewed = run_statement(
            self._connection,
            "UPDATE runs SET owned_until = ? WHERE owner = ? AND id IN (SELECT value FROM json_each(?))",
            (until, owner, json.dumps(list(run_ids))),
        )
        return int(renewed.rowcount)

    def _until(self, ttl_s: float) -> str:
        return (ledger_now(self._connection) + timedelta(seconds=ttl_s)).isoformat()

    def lease(self, run_id: str) -> str | None:
        """Give what changes with every renewal of a run's lease; see `Ledger.lease`."""
        return self._value("SELECT owned_until FROM runs WHERE id = ?", run_id)

    def _value(self, query: str, *values: str | None) -> str | None:
        return next((value for (value,) in self.rows(query, *values)), None)

    def release(self, run_id: str, owner: str) -> None:
        """Give the right to drive a run back."""
        free = "UPDATE runs SET owner = NULL, owned_until = NULL WHERE id = ? AND owner = ?"
        run_statement(self._connection, free, (run_id, owner))

    def claim(self, run_id: str, owner: str, ttl_s: float, *, unmoved: str | None = None) -> bool:
        """Take or renew the right to drive a run.

        A lease runs out by the wall clock, which may be wrong or set back. That does no harm where the run is
        only read. While it is being submitted it would: then, and where the clock was set back, a lease is
        taken over only by who has seen for its whole length, by a clock that is never set, that nobody
        renews it.

        Args:
            run_id: Our id.
            owner: A name of this process that no other shares.
            ttl_s: Seconds until others may take over.
            unmoved: What `lease` has given all that time.

        Returns:
            Whether the run is ours now.
        """
        now = ledger_now(self._connection)
        until = (now + timedelta(seconds=ttl_s)).isoformat()
        # Nothing is equal to NULL, so that a run without a lease never counts as unmoved.
        take = f"UPDATE runs SET owner = ?, owned_until = ? WHERE id = ? AND ({_FREE})"
        values = (owner, until, run_id, owner, now.isoformat(), unmoved)
        return bool(run_statement(self._connection, take, values).rowcount == 1)

    def claimable(self, run_id: str, owner: str, *, unmoved: str | None = None) -> bool:
        """Say whether `claim` would be granted now."""
        query, now = f"SELECT id FROM runs WHERE id = ? AND ({_FREE})", ledger_now(self._connection)
        return self._value(query, run_id, owner, now.isoformat(), unmoved) is not None

    def owner(self, run_id: str) -> str | None:
        """Say who drives a run."""
        return self._value("SELECT owner FROM runs WHERE id = ?", run_id)

    def _append(self, record: RunRecord, kind: str, data: dict[str, Any]) -> None:
        # The money after each event, so that what was held at any moment can be proved from the events alone.
        money = {"reserved_micros": record.reserved_micros, "settled_micros": record.settled_micros}
        text = json.dumps({"status": record.status.value, **money, **data}, default=str, sort_keys=True)
        run_statement(
            self._connection,
            "INSERT INTO events (run_id, at, kind, data) VALUES (?, ?, ?, ?)",
            (record.id, utc_now().isoformat(), kind, text),
        )


def revived(record: RunRecord) -> dict[str, Any]:
    """Give the changes by which an ended run whose provider's id came after all is on its way again."""
    if not record.status.ended:
        return {}
    held = record.reserved_micros or record.estimate.reserve_micros
    return {
        "finished_at": None,
        "abandoned_at": None,
        "reason": None,
        "reserved_micros": held,
        "settled_micros": None,
    }
