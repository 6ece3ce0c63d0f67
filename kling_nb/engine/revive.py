"""A second look at a run that failed: its clip may be there after all.

Invariants: looking is free and sends nothing; a run goes from `failed` to `succeeded` in one transaction,
once its file is whole and in its place, and through no other state; what it cost is booked, also above a cap.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kling_nb.engine.lookup import Access, fetch_again
from kling_nb.engine.run import Run
from kling_nb.engine.save import cost_note, settled_money
from kling_nb.engine.watch import reported
from kling_nb.errors import KlingError
from kling_nb.ledger.database import Ledger
from kling_nb.media.folder import Store
from kling_nb.network.client import Transport
from kling_nb.pricing.catalog import provider_label
from kling_nb.providers.base import Snapshot
from kling_nb.records.base import utc_now
from kling_nb.records.privacy import hidden, redact_changes
from kling_nb.records.run import MediaFacts, RunRecord, RunStatus

__all__ = ["look_again"]


async def look_again(
    run: Run, transport: Transport, access: Callable[[RunRecord], Access], store: Store, ledger: Ledger
) -> None:
    """Look for the clip of a run that failed; nothing else about it changes.

    Args:
        run: Its handle, reopened; it settles when the look is over, and its `note` says what came of it.
        transport: The network.
        access: Gives the adapter and the key, or raises.
        store: Where the clip belongs.
        ledger: Where the run is.
    """
    record, note = run.record, ""
    try:
        reached = await asyncio.to_thread(access, record)
        media, snapshot = await fetch_again(transport, reached, record, store)
        record = await asyncio.to_thread(_revive, record, media, snapshot, store, ledger)
    except KlingError as error:
        note = f"We looked again: {hidden(record, error.what)}"
    finally:
        run.note = note
        run.publish(record)


def _revive(
    record: RunRecord, media: MediaFacts, snapshot: Snapshot, store: Store, ledger: Ledger
) -> RunRecord:
    changes = redact_changes(record, _found(record, media, store.folder, snapshot))
    # As at every end the folder first: who sees it in the ledger also finds it there.
    store.write_sidecar(RunRecord.model_validate({**record.model_dump(), **changes}))
    with ledger.writing() as transaction:
        now = transaction.get(record.id)
        if now is None or now.status is not RunStatus.FAILED:
            return now or record
        return transaction.change(now, "clip found later", changes)


def _found(record: RunRecord, media: MediaFacts, folder: Path, snapshot: Snapshot) -> dict[str, Any]:
    figure = reported(snapshot)
    changes = {
        "status": RunStatus.SUCCEEDED,
        "reason": None,
        "charged": "no" if record.play else "yes",
        "message": cost_note(provider_label(record.provider), snapshot),
        "media": media.model_dump(),
        "folder": str(folder),
        "saved_at": utc_now(),
        "finished_at": record.finished_at or utc_now(),
        **figure,
    }
    return changes | settled_money(record.model_copy(update=figure))
