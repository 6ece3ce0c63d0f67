"""Runs that only a media folder knows, as a session takes them.

Invariants: folder and ledger are only read; no figure of money is taken from a file.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from kling_nb.errors import BlockedError
from kling_nb.ledger.database import Ledger
from kling_nb.media.folder import Store
from kling_nb.media.sidecars import Damaged
from kling_nb.records.run import RunRecord, RunStatus, may_revive
from kling_nb.session.plan import Take

__all__ = ["FROM_FOLDER", "blocked_by_damage", "from_folder", "healed", "in_folder", "unpaid"]

#: The first event of a run that the ledger learned of from a folder.
FROM_FOLDER = "attached from the folder"


def blocked_by_damage(
    takes: Sequence[Take], damaged: Sequence[Damaged], known: Collection[str]
) -> tuple[Take, ...]:
    """Let damaged receipts stand in the way of what would be bought: any of them may be of a paid clip.

    Args:
        takes: What would be done.
        damaged: Receipts that name one of the requests and cannot be read.
        known: Our ids of runs that ledger or notebook know: their receipts are not needed.

    Returns:
        The same takes, blocked where one stands in the way.
    """
    unknown = [one for one in damaged if one.name.removesuffix(".json").rpartition("-")[2] not in known]

    def judged(take: Take) -> Take:
        names = (one for one in unknown if take.request_key in one.keys or not one.keys)
        first = next(names, None) if take.word == "new" else None
        return take if first is None else replace(take, decision=None, error=_unreadable(first))

    return tuple(map(judged, takes))


def _unreadable(damaged: Damaged) -> BlockedError:
    return BlockedError(
        f"The receipt {damaged.name} in the folder names this request and cannot be read: {damaged.why}.",
        charged="unknown",
        cure="Nothing was sent now: it may be of a paid clip. Repair the file, or fetch it again from where "
        "it came (with git: `git checkout --theirs` or `--ours`), then run the cell again. To buy all the "
        "same, move it away or use `--no-cache`.",
    )


def healed(
    record: RunRecord,
    beside: Sequence[RunRecord],
    located: Callable[[RunRecord], RunRecord | None],
    ledger: Ledger,
) -> RunRecord:
    """Take a run for the success that it was, where only its file was away when somebody looked.

    Args:
        record: A row of the ledger.
        beside: What the folder has of the same request.
        located: Finds the whole clip of a record, or None.
        ledger: Whose row it is; its own history must show the success.

    Returns:
        The same record, or the success with its file.
    """
    if not may_revive(record):
        return record
    same = ("id", "run_key", "provider_run_id", "account")
    kept = [one.media for one in beside if all(getattr(one, n) == getattr(record, n) for n in same)]
    for media in dict.fromkeys((record.media, *kept)):
        here = None if media is None else located(record.model_copy(update={"media": media}))
        if here is not None and any(
            said.get("status") == RunStatus.SUCCEEDED for _, _, said in ledger.events(record.id)
        ):
            return here.model_copy(update={"status": RunStatus.SUCCEEDED, "reason": None, "message": ""})
    return record


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
