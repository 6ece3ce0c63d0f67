"""The receipt: a run as plain JSON, for the sidecar beside the clip and for the saved notebook.

Invariants: a receipt read back is the same record (only the media folder is left out, because a folder
moves); money is a decimal string and null is unknown, so nothing passes through float; it holds no
absolute path, key or query string. A receipt comes from anybody: reading one checks every field, derives
both keys again from the request (a private one's words are hashes only), and says no with a `StoreError`.
"""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from kling_nb.errors import StoreError
from kling_nb.interrupts import interrupts_held
from kling_nb.records.base import faults
from kling_nb.records.privacy import is_redacted, redacted
from kling_nb.records.receipt_model import MAX_DEPTH, MAX_RECEIPT_BYTES, SCHEMA, Receipt
from kling_nb.records.request import request_key, run_key
from kling_nb.records.run import RunRecord

__all__ = ["LIST_SCHEMA", "from_receipt", "receipt_json", "receipts_in", "to_receipt", "to_receipts"]


def to_receipt(record: RunRecord) -> dict[str, Any]:
    """Write a run as plain JSON.

    Args:
        record: The run.

    Returns:
        Objects, lists, strings, numbers, booleans and nulls only.

    Example:
        >>> from kling_nb.records.request import TextToVideo, request_key, run_key
        >>> from kling_nb.records.base import utc_now
        >>> from kling_nb.records.money import Estimate
        >>> from kling_nb.records.run import RunRecord
        >>> request = TextToVideo(prompt="A red fox")
        >>> record = RunRecord(
        ...     id="kl7m2q", request=request, request_key=request_key(request, "kling-3.0-pro"),
        ...     run_key=run_key(request, "kling-3.0-pro", "runflow"), model="kling-3.0-pro",
        ...     provider="runflow", provider_model="kling/v3", origin="https://api.runflow.io",
        ...     created_at=utc_now(), estimate=Estimate(micros=560000, reserve_micros=560000))
        >>> to_receipt(record)["price"]["estimate"]
        '0.56'
    """
    with interrupts_held():
        return Receipt.of(redacted(record)).model_dump(mode="json", by_alias=True, warnings=False)


def receipt_json(record: RunRecord) -> bytes:
    """Write a run as the text of the same plain JSON."""
    with interrupts_held():
        text = Receipt.of(redacted(record)).model_dump_json(by_alias=True, indent=1, warnings=False)
    return text.encode()


def from_receipt(data: object) -> RunRecord:
    """Read a receipt that anybody may have written.

    Args:
        data: Parsed JSON. Fields this version does not know are ignored.

    Returns:
        The run, with an empty `folder`.

    Raises:
        StoreError: It is not a receipt, a field is out of range, or a key is not that of the request.

    Example:
        >>> from_receipt({"schema": "something else"})
        Traceback (most recent call last):
        kling_nb.errors.StoreError: Not a receipt of ours. Charged: no.
    """
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise StoreError("Not a receipt of ours.")
    try:
        if _too_deep(data):
            raise StoreError("A receipt is nested too deeply.")
        text = json.dumps(data, allow_nan=False)
        if len(text) > MAX_RECEIPT_BYTES:
            raise StoreError(f"A receipt is larger than {MAX_RECEIPT_BYTES:,} bytes.")
        record = Receipt.model_validate_json(text).record()
    except ValidationError as error:
        fault = faults(error)[0]
        where = ".".join(map(str, fault.place))[:80]
        raise StoreError(f"A receipt has a bad value in {where}: {fault.words}."[:300]) from None
    except (TypeError, ValueError, ArithmeticError):
        raise StoreError("A receipt is not plain JSON.") from None
    if record.private:
        # Its words are hashes, which both keys are not made of: whoever asks for it again compares them.
        if not is_redacted(record):
            raise StoreError("A private receipt holds words of its request.")
        return record
    if record.request_key != request_key(record.request, record.model, record.take):
        raise StoreError("The request key of a receipt does not belong to its request.")
    if record.run_key != run_key(record.request, record.model, record.provider, record.take):
        raise StoreError("The run key of a receipt does not belong to its request.")
    return record


def _too_deep(value: object, left: int = MAX_DEPTH) -> bool:
    if not isinstance(value, dict | list | tuple):
        return False
    items = value.values() if isinstance(value, dict) else value
    return left == 0 or any(_too_deep(item, left - 1) for item in items)


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
