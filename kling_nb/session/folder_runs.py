"""Runs that only a media folder knows, as a session takes them.

Invariants: pure but for reading the folder; no figure of money is taken from a file.
"""

from typing import Any

from kling_nb.media.folder import Store
from kling_nb.records.run import RunRecord, RunStatus

__all__ = ["FROM_FOLDER", "from_folder", "in_folder", "unpaid"]

#: The first event of a run that the ledger learned of from a folder.
FROM_FOLDER = "attached from the folder"


def in_folder(store: Store, name: str) -> RunRecord | None:
    """Find a run that only a media folder knows.

    Args:
        store: The folder.
        name: Our id or the provider's.

    Returns:
        What its sidecar says, without the money; None where there is none.
    """
    found = (record for record in store.sidecars() if name in {record.id, record.provider_run_id})
    return next((unpaid(from_folder(record)) for record in found), None)


def from_folder(record: RunRecord) -> RunRecord:
    """Take a record that only the folder knows: its money is no money of ours."""
    if record.status.ended:
        # What it cost is shown, and in no sum: an ended run of a folder stays out of the ledger.
        return record.model_copy(update={"reserved_micros": 0})
    changes: dict[str, Any] = {}
    if record.provider == "sandbox":
        # Its sandbox was another process, most likely gone; play runs may simply be made again.
        changes = {"status": RunStatus.FAILED, "reason": "expired", "charged": "no"}
    elif record.provider_run_id is None:
        # The folder is written before and after the submit, not during: it may have been sent.
        changes = {"status": RunStatus.SUBMITTING}
    return unpaid(record).model_copy(update=changes)


def unpaid(record: RunRecord) -> RunRecord:
    """Leave out the figures that a file tells: money is the ledger's alone."""
    return record.model_copy(update={"reserved_micros": 0, "settled_micros": None, "reported_micros": None})
