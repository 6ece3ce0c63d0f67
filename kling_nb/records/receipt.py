"""The receipt: a run as plain JSON, for the sidecar beside the clip and for the saved notebook.

Invariants: a receipt read back is the same record (only the media folder is left out, because a folder
moves); money is a decimal string and null is unknown, so nothing passes through float; it holds no
absolute path, key or query string. A receipt comes from anybody: reading one checks every field, derives
both keys again from the request (a private one's words are hashes only), and says no with a `StoreError`.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from pydantic import ValidationError

from kling_nb.errors import StoreError, one_line
from kling_nb.records.money import dollars
from kling_nb.records.privacy import is_hash, is_redacted, redacted
from kling_nb.records.provenance import Sent, sample_of, source_type
from kling_nb.records.receipt_model import MAX_RECEIPT_BYTES, SCHEMA, SCHEMA_VERSION, Receipt
from kling_nb.records.request import request_key, run_key
from kling_nb.records.run import Earlier, MediaFacts, RunRecord

__all__ = ["LIST_SCHEMA", "from_receipt", "receipts_in", "to_receipt", "to_receipts", "without_queries"]

_MAX_DEPTH = 24
_QUERY = re.compile(r"(https?://)(?:[^\s/@]*@)?([^\s?#\"'<>]+)(?:\?[^\s\"'<>]*)?")


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
    record = redacted(record)
    estimate = record.estimate
    tags = {one_line(name): one_line(value) for name, value in record.tags.items()}
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "id": record.id,
        "status": record.status.value,
        "reason": record.reason,
        "charged": record.charged,
        "message": one_line(without_queries(record.message)),
        "request": record.request.model_dump(mode="json", exclude_none=True),
        "private": record.private,
        "request_key": record.request_key,
        "run_key": record.run_key,
        "prompt_sha256": _prompt_sha256(record),
        "sent": None if record.sent is None else _sent(record.sent),
        "model": record.model,
        "take": record.take,
        "sample": sample_of(tags, record.take).model_dump(),
        "attempt": record.attempt,
        "earlier": [_earlier(one) for one in record.earlier],
        "provider": record.provider,
        "provider_model": record.provider_model,
        "provider_run_id": record.provider_run_id,
        "origin": without_queries(record.origin),
        "account": one_line(record.account),
        "client_ref": one_line(record.client_ref),
        "queue_position": record.queue_position,
        "times": {
            "created": _rfc3339(record.created_at),
            "submitted": _rfc3339(record.submitted_at),
            "accepted": _rfc3339(record.accepted_at),
            "started": _rfc3339(record.started_at),
            "finished": _rfc3339(record.finished_at),
            "saved": _rfc3339(record.saved_at),
            "abandoned": _rfc3339(record.abandoned_at),
        },
        "price": {
            "currency": record.currency,
            "estimate": _money(estimate.micros),
            "reported": _money(record.reported_micros),
            "settled": _money(record.settled_micros),
            "reserve": _money(estimate.reserve_micros),
            "reserved": _money(record.reserved_micros),
            "play": record.play,
            "per_second": estimate.usd_per_s,
            "basis": one_line(estimate.basis),
            "source": one_line(without_queries(estimate.source)),
            "as_of": estimate.as_of,
            "list_currency": estimate.currency,
        },
        "file": None if record.media is None else _file(record.media, play=record.play),
        "terms": None if record.terms is None else record.terms.model_dump(),
        "safety": {"nsfw_detected": record.nsfw_detected, "moderated": record.reason == "moderated"},
        "who": {
            "user": one_line(record.user),
            "project": one_line(record.project),
            "notebook": _relative(record.notebook),
            "session": one_line(record.session_id),
            "cell": None if record.cell is None else record.cell.model_dump(),
            "commit": None if record.commit is None else record.commit.model_dump(),
        },
        "tags": tags,
        "metadata": _plain(record.metadata),
        "extras": {
            "nsfw_detected": record.nsfw_detected,
            "seed": one_line(record.seed) if isinstance(record.seed, str) else record.seed,
            "timing": _plain(record.timing, redact=True),
        },
        "client": {"name": "kling-nb", "version": one_line(record.version)},
    }


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
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])[:80]
        raise StoreError(f"A receipt has a bad value in {where}: {problem['msg']}."[:300]) from None
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


def without_queries(text: str) -> str:
    """Take queries and user names out of the addresses in a text: they may be signatures and keys.

    Example:
        >>> without_queries("see https://ann@host/a.mp4?sig=1 there")
        'see https://host/a.mp4 there'
    """
    return _QUERY.sub(r"\1\2", text)


# --- writing ---------------------------------------------------------------------------------------------
def _money(amount: int | None) -> str | None:
    exact = dollars(amount)
    return None if exact is None else f"{exact:f}"


def _rfc3339(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _prompt_sha256(record: RunRecord) -> str:
    request = record.request
    if record.private and is_hash(request.words):
        return request.words.removeprefix("sha256:")
    return hashlib.sha256(request.words.encode("utf-8", "replace")).hexdigest()


def _relative(notebook: str | None) -> str | None:
    if notebook is None:
        return None
    absolute = PurePosixPath(notebook).is_absolute() or PureWindowsPath(notebook).anchor
    return one_line(PureWindowsPath(notebook).name if absolute else notebook)


def _file(media: MediaFacts, *, play: bool) -> dict[str, Any]:
    mark = source_type(play=play)
    return {
        "name": media.file,
        **media.model_dump(mode="json", exclude={"file"}),
        "source_type": mark.rpartition("/")[2],
        "digital_source_type": mark,
    }


def _sent(sent: Sent) -> dict[str, Any]:
    # Cut short it would be another body than the one of the hash: then rather none.
    body = _plain(sent.body, depth=4)
    return {"url": sent.url, "sha256": sent.sha256, "body": body if body == sent.body else None}


def _earlier(one: Earlier) -> dict[str, Any]:
    return {
        "id": one.id,
        "provider": one.provider,
        "attempt": one.attempt,
        "status": one.status.value,
        "reason": one.reason,
        "charged": one.charged,
        "created": _rfc3339(one.created_at),
        "submitted": _rfc3339(one.submitted_at),
        "finished": _rfc3339(one.finished_at),
        "reported": _money(one.reported_micros),
        "settled": _money(one.settled_micros),
        "currency": one.currency,
    }


def _plain(value: Any, *, redact: bool = False, depth: int = 3) -> Any:
    """Give foreign data as JSON that every reader takes: no NaN, no lone surrogate, no bottomless nest."""
    if depth > _MAX_DEPTH:
        return "..."
    if isinstance(value, Mapping):
        return {str(_plain(str(k))): _plain(v, redact=redact, depth=depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, redact=redact, depth=depth + 1) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    text = str(value).encode("utf-8", "replace").decode()
    return without_queries(text) if redact else text


# --- reading ---------------------------------------------------------------------------------------------
def _too_deep(value: object, left: int = _MAX_DEPTH) -> bool:
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
