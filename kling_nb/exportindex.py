"""The file beside exported clips that says what is what, in the form its reader asks for.

Invariants: one line or entry a clip, in the order of the export; what nobody knows is null or left out; money
is a decimal string.
"""

import csv
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kling_nb.placing import write_whole
from kling_nb.receipt import to_receipt
from kling_nb.records import RunRecord

if TYPE_CHECKING:
    from kling_nb.exports import Placed

__all__ = ["facts", "write_index"]


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
        "request_key": record.request_key,
    }


def write_index(folder: Path, kind: str, placed: Sequence["Placed"]) -> None:
    """Write the index of an export.

    Args:
        folder: Where the clips are.
        kind: `metadata.jsonl`, `prompts.json`, `captions.csv`, `tar`, or empty for none.
        placed: The clips.
    """
    if not kind or not placed:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "tar":
        _write_tar(folder / "clips.tar", placed)
        return
    if kind == "prompts.json":
        text = json.dumps({one.file: one.prompt for one in placed}, ensure_ascii=False, indent=1)
    elif kind == "metadata.jsonl":
        lines = [
            json.dumps(
                {"file_name": one.file, "prompt": one.prompt, **facts(one.sample.record)}, ensure_ascii=False
            )
            for one in placed
        ]
        text = "\n".join(lines) + "\n"
    else:
        table = io.StringIO()
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["videopath", "caption"])
        rows.writerows([one.file, one.prompt] for one in placed)
        text = table.getvalue()
    write_whole(folder / kind, text.encode())


def _write_tar(path: Path, placed: Sequence["Placed"]) -> None:
    """Write pairs of `key.mp4` and `key.json`, next to each other, as readers of the stream expect."""
    with tarfile.open(path, "w") as tar:
        for one in placed:
            if one.sample.path is None:
                continue
            tar.add(one.sample.path, arcname=one.file)
            said = {"prompt": one.prompt, **facts(one.sample.record)}
            data = json.dumps(said, ensure_ascii=False).encode()
            entry = tarfile.TarInfo(str(Path(one.file).with_suffix(".json")))
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
