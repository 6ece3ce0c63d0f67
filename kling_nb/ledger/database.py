"""What is asked of the ledger, and how a run is changed in it.

Invariants: an ended run's money changes only through `change`; only who drives a run changes it, but for an
id that was paid for; whatever goes wrong is a `LedgerError`.
"""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa

from kling_nb.ledger.bills import read_bills, read_waits
from kling_nb.ledger.connection import LedgerFile
from kling_nb.ledger.databases.changes import CALLED
from kling_nb.ledger.figures import differences, rebuild
from kling_nb.ledger.listing import Listing
from kling_nb.ledger.rows import Records, read_rows
from kling_nb.ledger.schema import EVENTS, MIGRATIONS, RUNS
from kling_nb.ledger.tallies import Chosen, Days, count_unreadable, read_open, read_tallies
from kling_nb.ledger.transaction import LeaseLostError, Transaction
from kling_nb.pricing.estimate import Bill
from kling_nb.records.money import Totals
from kling_nb.records.run import RunRecord, RunStatus
from kling_nb.records.tally import Tally

__all__ = ["LeaseLostError", "Ledger"]


class Ledger(LedgerFile):
    """The ledger at a path or a database address.

    Args:
        where: A file path, or an SQLAlchemy URL.

    Raises:
        LedgerError: It cannot be opened, or a newer program wrote it.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> Ledger(Path(tempfile.mkdtemp()) / "ledger.db").runs()
        []
    """

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
            return transaction.change(transaction.known(run_id), kind, changes)

    def change_as(
        self,
        owner: str,
        run_id: str,
        kind: str,
        /,
        *,
        at: RunStatus | None = None,
        answered: bool = False,
        **changes: Any,
    ) -> RunRecord:
        """Do the same as the process that drives the run, and only while it still does.

        A laptop that slept wakes up in the middle of its work; meanwhile another process may have taken the
        run over, and even sent it.

        Args:
            owner: The name under which the run was claimed.
            run_id: Our id.
            kind: The name of the event.
            at: The state it must be in.
            answered: Whether the provider's own answer to the submit says it: that corrects a verdict that
                the run is lost, whoever came to it meanwhile.
            **changes: Fields of `RunRecord`.

        Returns:
            The new record.

        Raises:
            LeaseLostError: Another process drives the run, or it is in another state by now.
            LedgerError: As for `change`.
        """
        with self.writing() as transaction:
            return transaction.change_as(owner, run_id, kind, changes, at=at, answered=answered)

    def accept(
        self, owner: str, run_id: str, kind: str, /, *, provider_run_id: str, **changes: Any
    ) -> RunRecord:
        """Write down the provider's id, also when another process drives the run by now: it was paid for.

        Only where that process has an id of its own is nothing changed; should it be another one, the history
        tells of both.

        Args:
            owner: The name under which the run was claimed.
            run_id: Our id.
            kind: The name of the event.
            provider_run_id: The provider's id.
            **changes: Fields of `RunRecord`.

        Returns:
            The new record.

        Raises:
            LeaseLostError: Another process drives the run, and has its id.
            LedgerError: As for `change`.
        """
        with self.writing() as transaction:
            record = transaction.accept(owner, run_id, kind, changes, provider_run_id=provider_run_id)
        if record is None:
            raise LeaseLostError(f"Another process carries run {run_id} by now.", run_id=run_id)
        return record

    def lease(self, run_id: str) -> str | None:
        """Give what changes with every renewal of a run's lease, or None where nobody holds one."""
        return self.read(lambda transaction: transaction.lease(run_id))

    def release(self, run_id: str, owner: str) -> None:
        """Give the right to drive a run back."""
        with self.writing() as transaction:
            transaction.release(run_id, owner)

    def get(self, run_id: str) -> RunRecord | None:
        """Give one run by our id, or None."""
        return self.read(lambda transaction: transaction.get(run_id))

    def runs(
        self,
        *,
        statuses: Sequence[RunStatus] | None = None,
        session_id: str | None = None,
        provider_run_id: str | None = None,
        limit: int | None = None,
    ) -> Records:
        """List runs, newest first; rows that cannot be read are counted, and left out.

        Args:
            statuses: Only these.
            session_id: Only of this session.
            provider_run_id: Only with this id at the provider.
            limit: At most this many.

        Returns:
            Records.
        """
        query = sa.select(RUNS.c.id, RUNS.c.record).order_by(RUNS.c.created_at.desc(), RUNS.c.id)
        if statuses is not None:
            query = query.where(RUNS.c.status.in_([status.value for status in statuses]))
        if session_id is not None:
            query = query.where(RUNS.c.session_id == session_id)
        if provider_run_id is not None:
            query = query.where(RUNS.c.provider_run_id == provider_run_id)
        rows = self.read(lambda transaction: transaction.connection.execute(query.limit(limit)).all())
        return read_rows((run_id, text) for run_id, text in rows)

    def listing(self) -> Listing:
        """Give all runs, newest first, as a sequence that is read as far as it is looked at."""
        return Listing(self)

    def unreadable(self, session_id: str | None = None) -> int:
        """Count the runs that cannot be read, so that no listing has them; of one session or of all."""
        return self.read(lambda transaction: count_unreadable(transaction.connection, session_id))

    def tallies(
        self, chosen: Chosen | None = None, *, fine: bool = True, days: int = 0
    ) -> tuple[list[Tally], Days]:
        """Give the running totals of readable runs, each run in one of them, and those of the newest days.

        Args:
            chosen: Which runs; all of them unless given.
            fine: Whether each day and session has totals of its own; as many as there are days, then.
            days: So many days of real money and of play money, at the most.
        """
        return self.read(
            lambda transaction: read_tallies(
                transaction.connection, chosen=chosen or Chosen(), fine=fine, days=days
            )
        )

    def open_charges(self) -> Records:
        """List the ended runs of real money whose charge is not their provider's own word in dollars."""
        return self.read(lambda transaction: read_open(transaction.connection))

    def totals(self, session_id: str, *, play: bool) -> Totals:
        """Add up a session's money."""
        return self.read(lambda transaction: transaction.totals(session_id, play=play))

    def events(self, run_id: str) -> list[tuple[str, str, dict[str, Any]]]:
        """Give a run's history: time, kind and data of each event, oldest first."""
        query = sa.select(EVENTS.c.at, EVENTS.c.kind, EVENTS.c.data).where(EVENTS.c.run_id == run_id)
        ordered = query.order_by(EVENTS.c.number)
        rows = self.read(lambda transaction: transaction.connection.execute(ordered).all())
        return [(at, kind, json.loads(data)) for at, kind, data in rows]

    def callbacks(self, after: int | None) -> tuple[int, list[str]]:
        """Give the runs whose end their providers have told of since a moment, and that of now.

        Args:
            after: The moment that was given last; None for none of the runs.
        """
        return self.read(partial(_callbacks, after))

    def note_callback(self, run_id: str, event: str) -> bool:
        """Note that a run's provider has told of its end; False where it has told so before.

        Args:
            run_id: Our id.
            event: The provider's word for it.
        """
        if any(kind == CALLED and data.get("event") == event for _, kind, data in self.events(run_id)):
            return False
        with self.writing() as transaction:
            transaction.write(transaction.known(run_id), CALLED, event=event)
        return True

    def waits(
        self,
        provider: str,
        model: str,
        duration: int,
        *,
        audio: bool | None = None,
        origin: str | None = None,
        limit: int = 50,
    ) -> list[float]:
        """Give the seconds that this user's own finished runs of this kind took, newest first.

        Args:
            provider: Who made them.
            model: Our id of the model.
            duration: Seconds of video.
            audio: With or without sound; None for both.
            origin: The address that made them, because a stand-in is quicker; None for any.
            limit: At most this many.
        """
        return self.read(
            lambda transaction: read_waits(
                transaction, provider, model, duration, audio=audio, origin=origin, limit=limit
            )
        )

    def bills(self, provider: str, model: str, *, origin: str, audio: bool, limit: int = 3) -> list[Bill]:
        """Give what the provider itself reported for this user's own runs of this kind, newest first.

        A bill of nothing (a trial, a refund) is none, and what an adopted run was asked for a person's word.

        Args:
            provider: Whose bills.
            model: Our id of the model.
            origin: The address that billed: a stand-in's bills say nothing of the provider's.
            audio: With or without sound.
            limit: At most so many; however many finished runs without a bill stand between them.

        Returns:
            Bills.
        """
        return self.read(
            lambda transaction: read_bills(
                transaction, provider, model, origin=origin, audio=audio, limit=limit
            )
        )

    def missing_tables(self) -> list[str]:
        """Name the tables that should be there and are not; empty for a sound ledger."""
        there = self.read(lambda transaction: sa.inspect(transaction.connection).get_table_names())
        made_by_steps = {"figures", "sums", "places", "place_lines", "place_limits", "uploads", "detached"}
        return sorted(({*MIGRATIONS.metadata.tables} | made_by_steps) - set(there))

    def count(self) -> int:
        """Count all runs, by the running totals."""
        query = "SELECT coalesce(sum(runs), 0) FROM sums WHERE scope = 'user'"
        return self.read(lambda transaction: int(transaction.connection.exec_driver_sql(query).scalar_one()))

    def mend_sums(self) -> int:
        """Compare the running totals with the runs, and make them anew where they differ; reads everything.

        Returns:
            How many rows of them were wrong.
        """
        wrong = self.read(lambda transaction: differences(transaction.connection))
        if wrong:
            with self._transaction() as connection:
                rebuild(connection)
        return wrong


def _callbacks(after: int | None, transaction: Transaction) -> tuple[int, list[str]]:
    connection = transaction.connection
    last = int(connection.exec_driver_sql("SELECT coalesce(max(number), 0) FROM events").scalar_one())
    if after is None or last == after:
        return last, []
    called = sa.select(EVENTS.c.run_id).where(
        EVENTS.c.number > after, EVENTS.c.number <= last, EVENTS.c.kind == CALLED
    )
    return last, list(connection.scalars(called))
