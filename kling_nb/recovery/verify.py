"""Whether a receipt agrees with itself and with its file, beyond what its schema and the file's hash can say.

Invariants: pure but for the measuring of a file; what a receipt does not say is no fault of it, so that
receipts of earlier editions pass; each fault is one sentence, and repeats no stranger's text.
"""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import isclose
from pathlib import Path
from typing import Any, Literal

from kling_nb.errors import StoreError, UsageError
from kling_nb.files import open_plain
from kling_nb.media.folder import Store
from kling_nb.media.probe import Measured, probe
from kling_nb.media.team_store import TeamStore
from kling_nb.records.receipt import from_receipt, to_receipt
from kling_nb.records.receipt_model import CLIP_SUFFIXES, MAX_RECEIPT_BYTES
from kling_nb.records.run import MediaFacts, RunRecord

__all__ = ["Found", "Word", "faults_in", "faults_of_file", "verify_folder", "verify_store"]

#: Fields that follow from others: they are written for whoever reads JSON, and read by nobody here.
_DERIVED = (
    ("prompt_sha256",),
    ("sample",),
    ("safety",),
    ("file", "source_type"),
    ("file", "digital_source_type"),
)

_EXACT = ("container", "codec", "pixel_format", "width", "height", "frames", "audio_codec")


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


Word = Literal[
    "here",
    "linked",
    "fetched",
    "gone",
    "changed",
    "wrong",
    "missing",
    "no clip",
    "no receipt",
    "unreadable",
]

_BAD = frozenset({"gone", "changed", "wrong", "missing", "no receipt", "unreadable"})


@dataclass(frozen=True, kw_only=True)
class Found:
    """What became of one clip.

    Args:
        word: `here`, `linked` (from another place of this machine), `fetched` (from an address or the
            provider), `gone`, `changed` (other bytes), `wrong` (the receipt contradicts the clip or
            itself), `missing`, `no clip` (the run made none), `no receipt` or `unreadable`.
        file: Its name.
        run_id: Of the run, where one is known.
        why: In words, where it is not well.
        marks: Kinds of marks that the checked file says of itself, such as `c2pa` and `aigc`.

    Example:
        >>> Found(word="gone", file="fox.mp4", why="the provider no longer has it").good
        False
    """

    word: Word
    file: str
    run_id: str = ""
    why: str = ""
    marks: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return self.word not in _BAD


def verify_folder(folder: str | Path) -> list[Found]:
    """Check every receipt of a folder, and every clip against its receipt; asks nobody.

    A receipt must fit its schema, its keys must be those of its request, and what it says twice must agree; a
    clip must have the recorded bytes, and be what the receipt says of it: picture, length, sound and marks.

    Args:
        folder: A media folder, or one that holds a `kling_media`.

    Returns:
        A finding for each receipt, each clip without one, and each file that only looks like a receipt.

    Raises:
        UsageError: There is no such folder.

    Example:
        >>> verify_folder("kling_media")   # doctest: +SKIP
    """
    path = existing_folder(folder)
    store = Store(path if not (path / "kling_media").is_dir() else path / "kling_media")
    found, named, written = [], set(), _written(store.folder)
    for record in store.sidecars():
        named |= {record.media.file} if record.media else set()
        finding = _check(record, store)
        if finding.good:
            faults = [fault for data in written.get(record.id, ()) for fault in faults_in(data, record)]
            clip = store.path(record)
            faults += faults_of_file(record, clip) if clip is not None else []
            finding = replace(finding, word="wrong", why="; ".join(faults)) if faults else finding
            kinds = {mark.kind for mark in (record.media.marks if record.media else None) or ()}
            finding = replace(finding, marks=tuple(sorted(kinds - {"tag"})))
        found.append(finding)
    found += [Found(word="unreadable", file=name, why=why) for name, why in store.skipped]
    found += [
        Found(word="no receipt", file=one.name, why="no receipt beside it names this clip")
        for one in sorted(store.folder.iterdir())
        if one.suffix.lower() in CLIP_SUFFIXES and one.name not in named and not one.name.startswith(".")
    ]
    return found


def verify_store(address: str) -> list[Found]:
    """Check every receipt of a team's store, and that its clip is there with the recorded bytes.

    Args:
        address: The store, e.g. `s3://team/kling`.

    Returns:
        A finding for each receipt.

    Raises:
        UsageError: It is no such address.
        StoreError: It cannot be read.
    """
    team, found = TeamStore(address), []
    for name, data in team.receipts():
        try:
            record = from_receipt(json.loads(data))
        except (StoreError, ValueError, RecursionError) as error:
            why = error.what if isinstance(error, StoreError) else "it is no JSON"
            found.append(Found(word="unreadable", file=name, why=why))
            continue
        media = record.media
        whole = media is not None and team.fetch(media, io.BytesIO())
        word: Word = "here" if whole else "changed" if team.has(record) else "missing"
        why = "" if whole else team.why()
        found.append(Found(word=word, file=media.file if media else "", run_id=record.id, why=why))
    return found


def _written(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Read the receipts of a folder as they stand, by the id of their run."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            with open_plain(path) as file:
                data = json.loads(file.read(MAX_RECEIPT_BYTES))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(data, dict) and isinstance(data.get("id"), str):
            found.setdefault(data["id"], []).append(data)
    return found


def existing_folder(folder: str | Path) -> Path:
    path = Path(folder)
    if not path.is_dir():
        raise UsageError(f"There is no folder {path}.", cure="Name a folder of clips and receipts.")
    return path


def _check(record: RunRecord, store: Store) -> Found:
    if record.media is None:
        return Found(word="no clip", file="", run_id=record.id, why=record.reason or record.status.value)
    if store.verify(record):
        return Found(word="here", file=record.media.file, run_id=record.id)
    if store.path(record) is None:
        return missing_clip(record)
    why = "its bytes are not those of the receipt"
    return Found(word="changed", file=record.media.file, run_id=record.id, why=why)


def missing_clip(record: RunRecord) -> Found:
    name = record.media.file if record.media else ""
    return Found(word="missing", file=name, run_id=record.id, why="no file here has its bytes")
