"""The receipts that a saved notebook carries in its outputs.

Invariants: a notebook may be a stranger's: it is read as JSON, within limits, and nothing of it is run; every
receipt is checked before it is believed.
"""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from kling_nb.errors import StoreError, UsageError
from kling_nb.files import read_plain
from kling_nb.records.receipt import from_receipt, receipts_in
from kling_nb.records.receipt_model import RECEIPT_MIME
from kling_nb.records.run import RunRecord

__all__ = ["read_receipts", "runs_in_outputs"]

_MAX_BYTES = 256 * 1024 * 1024


def read_receipts(path: Path) -> tuple[list[RunRecord], int]:
    """Read the runs that a notebook's outputs tell of.

    Args:
        path: An `.ipynb` file.

    Returns:
        The runs, in the order of the page, each once and as its last output tells of it; and how many
        receipts could not be believed.

    Raises:
        UsageError: It cannot be read, or is not a notebook.
    """
    try:
        data = read_plain(path, _MAX_BYTES)
        if data is None:
            raise UsageError(f"{path.name} is larger than 256 MB.", cure="Clear some of its outputs.")
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror or type(error).__name__}.", cure="Name a saved notebook."
        ) from None
    return _believed(path, data)


def _believed(path: Path, data: bytes) -> tuple[list[RunRecord], int]:
    try:
        notebook = json.loads(data)
    except (ValueError, RecursionError):
        raise UsageError(f"{path.name} is not a notebook.", cure="Name an .ipynb file.") from None
    found: dict[str, RunRecord] = {}
    bad = 0
    for receipt in _receipts(notebook):
        try:
            record = from_receipt(receipt)
        except StoreError:
            bad += 1
        else:
            found[record.id] = record
    return list(found.values()), bad


def runs_in_outputs(path: Path | None, request_keys: Collection[str]) -> tuple[RunRecord, ...]:
    """Read what a saved notebook tells of some requests: the runs of real providers alone.

    Args:
        path: The notebook's file, if it is known.
        request_keys: Only runs with one of these; a file that names none of them is not even parsed.

    Returns:
        The runs, oldest first; none where the file cannot be read, or is not a notebook.

    Example:
        >>> runs_in_outputs(Path("nowhere.ipynb"), ["k1:0"])
        ()
    """
    try:
        data = None if path is None else read_plain(path, _MAX_BYTES)
        if path is None or data is None or not any(key.encode() in data for key in request_keys):
            return ()
        found, _ = _believed(path, data)
    except (OSError, UsageError):
        return ()
    matching = (record for record in found if not record.play and record.request_key in request_keys)
    return tuple(sorted(matching, key=lambda record: (record.created_at, record.id)))


def _receipts(notebook: Any) -> Iterator[Any]:
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    for cell in cells if isinstance(cells, list) else ():
        outputs = cell.get("outputs") if isinstance(cell, dict) else None
        for output in outputs if isinstance(outputs, list) else ():
            data = output.get("data") if isinstance(output, dict) else None
            if isinstance(data, dict) and RECEIPT_MIME in data:
                yield from receipts_in(data[RECEIPT_MIME])
