"""The queue that wakes workers: procrastinate, in the ledger's own PostgreSQL, behind three calls.

A job says no more than that somebody should look at a run; what is to be done, and whether it may be, stands
in the ledger, so that a job that is lost, late or done twice does no harm. A ledger in a file has no queue:
its workers look every second.

Invariants: a job comes and goes in the transaction that leaves its run to a worker, or claims it.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from kling_nb.errors import LedgerError
from kling_nb.ledger.databases.statements import is_postgresql, run_statement

__all__ = ["enqueue", "forget", "has_queue", "work"]

_TASK = "kling_nb.look"


def has_queue(connection: sa.Connection) -> bool:
    """Say whether the ledger wakes workers; makes the tables of the queue where they are missing."""
    if not is_postgresql(connection):
        return False
    if run_statement(connection, "SELECT to_regclass('procrastinate_jobs')").fetchone()[0] is None:
        run_statement(connection, _procrastinate().schema.SchemaManager.get_schema())
    return True


def enqueue(run_id: str, connection: sa.Connection) -> None:
    """Have a worker woken for a run, once this transaction is committed."""
    if not has_queue(connection):
        return
    job = _procrastinate().jobs.Job(
        id=None,
        queue="kling_nb",
        lock=None,
        queueing_lock=run_id,
        task_name=_TASK,
        task_kwargs={"run_id": run_id},
    )
    try:
        _deferring().job_manager.defer_job(job, connection=connection.connection.driver_connection)
    except _procrastinate().exceptions.ConnectorException as error:
        raise DBAPIError("enqueue", None, error.__cause__ or error, hide_parameters=True) from None


def forget(run_ids: Sequence[str], connection: sa.Connection) -> None:
    """Wake nobody for these runs any more, nor for those whose jobs a worker had that is gone."""
    if run_ids and is_postgresql(connection):
        # By its own table: procrastinate cancels by its ids only, one by one, and not in our transaction.
        query = (
            "DELETE FROM procrastinate_jobs WHERE queue_name = 'kling_nb' "
            "AND (status = 'todo' AND queueing_lock IN (SELECT value FROM json_each(?)) "
            "OR status = 'doing' AND worker_id IS NULL)"
        )
        run_statement(connection, query, (json.dumps([*run_ids]),))


async def work(address: str, look: Callable[[], Awaitable[None]]) -> None:
    """Call back for each job, one at a time, until canceled; a job is over once that returns.

    Args:
        address: Of the ledger.
        look: Looks for work in the ledger.
    """
    procrastinate = _procrastinate()
    conninfo = sa.make_url(address).set(drivername="postgresql").render_as_string(hide_password=False)
    app = procrastinate.App(
        connector=procrastinate.PsycopgConnector(conninfo=conninfo, min_size=1, max_size=2)
    )

    @app.task(name=_TASK, retry=False)  # type: ignore[untyped-decorator]
    async def looked(run_id: str) -> None:  # noqa: ARG001 - whatever run it names, all of the ledger is looked at
        await look()

    async with app.open_async():
        await app.run_worker_async(
            queues=["kling_nb"],
            concurrency=1,
            delete_jobs="always",
            install_signal_handlers=False,
            fetch_job_polling_interval=30.0,
        )


def _procrastinate() -> Any:
    try:
        import procrastinate
        import procrastinate.schema
    except ImportError:
        raise LedgerError(
            "Workers on a ledger in PostgreSQL need procrastinate, which is not installed.",
            cure="Nothing was sent. `pip install 'kling-nb[team]'`, and restart the kernel.",
        ) from None
    return procrastinate


@cache
def _deferring() -> Any:
    procrastinate = _procrastinate()
    # Never opened: it works on the connections of the ledger.
    return procrastinate.App(connector=procrastinate.SyncPsycopgConnector())
