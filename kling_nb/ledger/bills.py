"""What the providers billed, as it stands in the rows of finished runs."""

import json
from itertools import islice

import sqlalchemy as sa

from kling_nb.ledger.rows import read_rows
from kling_nb.ledger.schema import RUNS
from kling_nb.pricing.estimate import Bill
from kling_nb.records.run import RunStatus

__all__ = ["read_bills"]


def read_bills(
    connection: sa.Connection, provider: str, model: str, *, origin: str, audio: bool, limit: int
) -> list[Bill]:
    """Read the newest bills of a kind of run; see `Ledger.bills`."""
    query = (
        sa.select(RUNS.c.id, RUNS.c.record)
        .where(
            RUNS.c.provider == provider,
            RUNS.c.model == model,
            RUNS.c.status == RunStatus.SUCCEEDED.value,
            RUNS.c.session_id != "",
            # As a record is written. Only to be quick: what comes through is read and looked at again.
            RUNS.c.record.contains(f'"origin":{json.dumps(origin, ensure_ascii=False)}', autoescape=True),
            RUNS.c.record.not_like('%"reported_micros":null,"settled_micros":%'),
        )
        .order_by(RUNS.c.created_at.desc())
    )
    rows = ((run_id, text) for run_id, text in connection.execute(query))
    own = (record for row in rows for record in read_rows([row]))
    found = (r for r in own if r.billed_micros and r.request.audio == audio and r.origin == origin)
    return [
        Bill(micros=r.billed_micros or 0, seconds=r.request.duration, day=r.created_at.date(), run_id=r.id)
        for r in islice(found, limit)
    ]
