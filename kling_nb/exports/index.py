"""The file beside exported clips that says what is what, in the form its reader asks for.

Invariants: one line or entry a clip, in the order of the export; what nobody knows is null or left out; money
is a decimal string; nothing of this machine or its user is in it.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kling_nb.errors import StoreError
from kling_nb.exports.disk import half
from kling_nb.files import open_new, open_plain
from kling_nb.records.provenance import source_type
from kling_nb.records.receipt import to_receipt
from kling_nb.records.run import RunRecord
from kling_nb.views.tables import csv_text

if TYPE_CHECKING:
    from kling_nb.exports.naming import Placed

__all__ = ["facts", "index_files", "write_tar"]


def facts(record: RunRecord) -> dict[str, Any]:
    """Give what a dataset wants to know of a clip, as flat JSON.

    Args:
        record: The run.

    Returns:
        Names and plain values.
    """
    receipt = to_receipt(record)
    media = record.media
    return {
        "run_id": record.id,
        "model": record.model,
        "provider": record.provider,
        "provider_model": record.provider_model,
        "take": record.take,
        "attempt": record.attempt,
        "aspect_ratio": record.request.aspect_ratio,
        "asked_seconds": record.request.duration,
        "audio": record.request.audio,
        "created": receipt["times"]["created"],
        "cost": receipt["price"]["settled"],
        "currency": record.currency,
        "sha256": media.sha256 if media else None,
        "width": media.width if media else None,
        "height": media.height if media else None,
        "fps": media.fps if media else None,
        "frames": media.frames if media else None,
        "seconds": media.duration_s if media else None,
        # As text, so that a column has one kind whatever its clips bear.
        "digital_source_type": source_type(play=record.play) if media else None,
        "marks": ", ".join(sorted({mark.kind for mark in (media.marks if media else None) or ()})) or None,
        "request_key": record.request_key,
    }


def index_files(kind: str, placed: Sequence["Placed"]) -> dict[str, bytes]:
    """Write the index of an export.

    Args:
        kind: `metadata.jsonl`, `prompts.json` or `captions.csv`; any other has no such file.
        placed: The clips.

    Returns:
        The content of each file by its path in the exported folder.

    Example:
        >>> index_files("", [])
        {}
    """
    if not placed:
        return {}
    if kind == "prompts.json":
        named = {one.file: one.prompt for one in placed}
        return {kind: json.dumps(named, ensure_ascii=False, indent=1).encode("utf-8", "replace")}
    if kind == "captions.csv":
        table = csv_text([["videopath", "caption"], *([one.file, one.prompt] for one in placed)])
        return {kind: table.encode("utf-8", "replace")}
    if kind != "metadata.jsonl":
        return {}
    lines: dict[str, list[str]] = {}
    for one in placed:
        # One a folder: a reader takes the nearest, and names in it are relative to it.
        folder, _, name = one.file.rpartition("/")
        said = {"file_name": name, "prompt": one.prompt, **facts(one.sample.record)}
        lines.setdefault(folder, []).append(json.dumps(said, ensure_ascii=False) + "\n")
    return {
        f"{folder}/{kind}".lstrip("/"): "".join(found).encode("utf-8", "replace")
        for folder, found in lines.items()
    }


def write_tar(folder: Path, name: str, placed: Sequence["Placed"]) -> None:
    """Write pairs of `key.mp4` and `key.json`, next to each other, as readers of the stream expect.

    Args:
        folder: Of the export.
        name: Of the file; it is there only when it is whole.
        placed: The clips. Nothing of this machine or its user is told of them.

    Raises:
        OSError: The disk refused; what was there before still stands.
        StoreError: A clip is no longer the recorded one.
    """
    with half(folder) as part:
        with open_new(part) as file, tarfile.open(fileobj=file, mode="w") as tar:
            for one in placed:
                _add_pair(tar, one)
            tar.close()
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / name)


def _add_pair(tar: tarfile.TarFile, one: "Placed") -> None:
    source, media = one.sample.path, one.sample.record.media
    if source is None or media is None:
        return
    with open_plain(source) as clip:
        if hashlib.file_digest(clip, "sha256").hexdigest() != media.sha256:
            raise StoreError(f"The clip of {one.sample.record.id} has changed.", cure="Export again.")
        clip.seek(0)
        tar.addfile(_entry(one.file, media.size), clip)
    said = json.dumps({"prompt": one.prompt, **facts(one.sample.record)}, ensure_ascii=False)
    data = said.encode("utf-8", "replace")
    tar.addfile(_entry(f"{one.file.removesuffix('.mp4')}.json", len(data)), io.BytesIO(data))


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry
