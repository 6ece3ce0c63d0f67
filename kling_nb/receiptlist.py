"""Several receipts as one value, for an output that shows several runs.

Invariants: one run's output carries its bare receipt; whoever reads an output finds receipts of both kinds
in the same way, each of them still to be checked by `from_receipt`.
"""

from collections.abc import Sequence
from typing import Any

from kling_nb.receipt import to_receipt
from kling_nb.records import RunRecord

__all__ = ["LIST_SCHEMA", "receipts_in", "to_receipts"]

LIST_SCHEMA = "kling-nb-receipts/1"
_MOST = 10_000


def to_receipts(records: Sequence[RunRecord]) -> dict[str, Any]:
    """Write several runs as plain JSON.

    Args:
        records: In the order they are shown.

    Returns:
        An object with the schema's name and the receipts.

    Example:
        >>> to_receipts([])
        {'schema': 'kling-nb-receipts/1', 'receipts': []}
    """
    return {"schema": LIST_SCHEMA, "receipts": [to_receipt(record) for record in records]}


def receipts_in(data: object) -> list[Any]:
    """Find the receipts in what an output carries under the receipt's MIME type.

    Args:
        data: Parsed JSON that anybody may have written: one receipt, or several.

    Returns:
        Each to be read by `from_receipt`; empty where there is none.

    Example:
        >>> receipts_in({"schema": "kling-nb-receipt/1"}), receipts_in(7)
        ([{'schema': 'kling-nb-receipt/1'}], [])
    """
    if not isinstance(data, dict):
        return []
    if data.get("schema") != LIST_SCHEMA:
        return [data]
    listed = data.get("receipts")
    return listed[:_MOST] if isinstance(listed, list) else []
