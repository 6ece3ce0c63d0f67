"""Whether a receipt agrees with itself and with its file, beyond what its schema and the file's hash can say.

Invariants: pure but for the measuring of a file; what a receipt does not say is no fault of it, so that
receipts of earlier editions pass; each fault is one sentence, and repeats no stranger's text.
"""

from collections.abc import Iterator, Mapping
from math import isclose
from pathlib import Path
from typing import Any

from kling_nb.errors import StoreError
from kling_nb.media.probe import Measured, probe
from kling_nb.records.receipt import to_receipt
from kling_nb.records.run import MediaFacts, RunRecord

__all__ = ["faults_in", "faults_of_file"]

#: Fields that follow from others: they are written for whoever reads JSON, and read by nobody here.
_DERIVED = (
    ("prompt_sha256",),
    ("sample",),
    ("safety",),
    ("file", "source_type"),
    ("file", "digital_source_type"),
)
_EXACT = ("container", "codec", "width", "height", "frames", "audio_codec")


def faults_in(data: Mapping[str, Any], record: RunRecord) -> list[str]:
    """Say where a receipt contradicts itself.

    Args:
        data: The receipt as it stands in its file.
        record: What `from_receipt` read from it.

    Returns:
        A sentence for each fault; empty where there is none.

    Example:
        >>> faults_in.__name__
        'faults_in'
    """
    written = to_receipt(record)
    found = [
        f"its {'.'.join(path)} is not what the rest of it says"
        for path in _DERIVED
        if (said := _at(data, path)) is not None and said != _at(written, path)
    ]
    if record.sent is not None and not record.sent.whole:
        found.append("its sent.body is not the body of sent.sha256")
    return found


def faults_of_file(record: RunRecord, clip: Path) -> list[str]:
    """Say where a receipt tells of a clip what measuring it does not find.

    Args:
        record: A run with a clip.
        clip: Its file, with the recorded bytes.

    Returns:
        A sentence for each fault; empty where there is none.
    """
    if record.media is None or not record.media.codec:
        return []
    try:
        measured = probe(clip)
    except StoreError as error:
        return [error.what]
    return list(_unlike(record.media, measured, private=record.private))


def _at(data: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        if not isinstance(data, Mapping):
            return None
        data = data.get(step)
    return data


def _unlike(media: MediaFacts, measured: Measured, *, private: bool) -> Iterator[str]:
    for name in _EXACT:
        said, is_ = getattr(media, name), getattr(measured, name)
        # Unknown is no fault, except that silence is a statement.
        if said != is_ and (said or name == "audio_codec"):
            yield f"its file.{name} is not that of the clip, which is {is_ or 'none'}"
    # Another version of the decoder may round otherwise.
    if media.fps and not isclose(media.fps, measured.fps, rel_tol=0.005):
        yield f"its file.fps is not that of the clip, which is {measured.fps:g}"
    if media.duration_s and not isclose(media.duration_s, measured.duration_s, rel_tol=0.01, abs_tol=0.05):
        yield f"its file.duration_s is not that of the clip, which is {measured.duration_s:g}"
    # What a private run's file repeats of the prompt is not in its receipt.
    there = {(mark.kind, mark.where, "" if private else mark.text) for mark in measured.marks}
    for mark in media.marks or ():
        if (mark.kind, mark.where, "" if private else mark.text) not in there:
            yield f"the clip does not have the mark ({mark.kind}) that the receipt tells of"
