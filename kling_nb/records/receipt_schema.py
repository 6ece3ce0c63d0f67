"""The receipt's JSON Schema, made from its model, for programs that are not in Python."""

import json
from typing import Any

from kling_nb.records.receipt_model import SCHEMA_VERSION, Receipt

__all__ = ["SCHEMA_FILE", "SCHEMA_ID", "receipt_schema", "schema_text"]

#: Names the schema; it is no address.
SCHEMA_ID = f"urn:kling-nb:receipt:{SCHEMA_VERSION}"

#: In the package, for programs that are not in Python.
SCHEMA_FILE = "receipt.schema.json"


def receipt_schema() -> dict[str, Any]:
    """Give the JSON Schema (2020-12) of a receipt: of a sidecar, and of what an output carries for a run.

    Returns:
        Plain JSON. Fields that it does not name are allowed: a later edition may have them.

    Example:
        >>> receipt_schema()["$id"]
        'urn:kling-nb:receipt:1.1'
    """
    made = _plain(Receipt.model_json_schema(by_alias=True, mode="validation"))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "Receipt of kling_nb",
        "description": "One run of a video model: what was asked, of whom, what came of it, what it cost.",
        **made,
    }


def schema_text() -> str:
    """Give the schema as the file in the package holds it."""
    return json.dumps(receipt_schema(), indent=1, ensure_ascii=False) + "\n"


def _plain(value: Any, *, names: bool = False) -> Any:
    """Leave out what tells of Python: titles, docstrings, private names, values that stand in for nothing."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value.replace("#/$defs/_", "#/$defs/") if isinstance(value, str) else value
    if names:
        return {key.removeprefix("_"): _plain(item) for key, item in value.items()}
    docstring = "properties" in value or "\n" in str(value.get("description"))
    drop = {"title", "default"} | ({"description"} if docstring else set())
    return {
        key: _plain(item, names=key in {"properties", "$defs"})
        for key, item in value.items()
        if key not in drop
    }
