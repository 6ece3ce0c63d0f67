"""Rows of the ledger read back, one of which a newer program may have written, or a bad disk.

Invariants: a row that cannot be read is never taken for one that is not there: a listing counts it, and
whoever asks for that very run is told.
"""

from collections.abc import Iterable

from pydantic import ValidationError

from kling_nb.errors import LedgerError
from kling_nb.records.run import RunRecord

__all__ = ["Records", "read_row", "read_rows", "read_text", "remember"]


class Records(list[RunRecord]):
    """Records, in order, and what stood between them.

    Args:
        records: What could be read.
        unreadable: Our ids of the runs whose rows could not be read.

    Example:
        >>> Records([], unreadable=["kl7m2q"]).unreadable
        ('kl7m2q',)
    """

    def __init__(self, records: Iterable[RunRecord] = (), *, unreadable: Iterable[str] = ()) -> None:
        super().__init__(records)
        self.unreadable = tuple(unreadable)


def read_text(raw: bytes) -> str:
    r"""Give a text of a row: bytes that are none make one row unreadable, and not the ledger.

    Example:
        >>> read_text(b"fox\xff")
        'fox\udcff'
    """
    return raw.decode("utf-8", "surrogateescape")


#: By run, the hash of what was last written or read here, and its record: the same text is not read again.
_recent: dict[str, tuple[int, RunRecord]] = {}
_MOST_RECENT = 2_000


def remember(record: RunRecord, text: str) -> None:
    """Keep the record that is written as this text; what is in the ledger by then decides."""
    if len(_recent) >= _MOST_RECENT:
        _recent.clear()
    _recent[record.id] = hash(text), record


def read_row(run_id: str, text: str) -> RunRecord:
    """Read the record of one run.

    Args:
        run_id: Our id.
        text: The record as it was written.

    Returns:
        The record.

    Raises:
        LedgerError: It cannot be read.

    Example:
        >>> read_row("kl7m2q", "{}")
        Traceback (most recent call last):
        kling_nb.errors.LedgerError: The ledger's row of run kl7m2q cannot be read: ...
    """
    known = _recent.get(run_id)
    if known is not None and known[0] == hash(text):
        return known[1]
    try:
        record = RunRecord.model_validate_json(text)
    except ValidationError:
        raise LedgerError(
            f"The ledger's row of run {run_id} cannot be read: a newer kling_nb wrote it, or it is damaged.",
            charged="unknown",
            cure="What the run has reserved still counts. Upgrade kling_nb; to buy "
            "all the same, ask for another take, e.g. `--take 1`.",
            run_id=run_id,
        ) from None
    remember(record, text)
    return record


def read_rows(rows: Iterable[tuple[str, str]]) -> Records:
    """Read the records of a listing, and note which cannot be read.

    Args:
        rows: Our ids and the records as they were written.

    Returns:
        What could be read, in order.

    Example:
        >>> read_rows([("kl7m2q", "{}")]).unreadable
        ('kl7m2q',)
    """
    records, unreadable = [], []
    for run_id, text in rows:
        try:
            records.append(read_row(run_id, text))
        except LedgerError:
            unreadable.append(run_id)
    return Records(records, unreadable=unreadable)
