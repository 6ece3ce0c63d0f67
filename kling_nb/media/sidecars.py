"""The sidecars of a folder, read as what they are: files that anybody may have put there.

Invariants: no file can stop the others from being read, block the reader or fill its memory; what is not
ours is named with the reason, never an error; only whole, self-consistent receipts become records.
"""

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from kling_nb.errors import StoreError
from kling_nb.files import signature
from kling_nb.media.index import OURS, FolderIndex
from kling_nb.records.receipt import from_receipt, receipt_json, to_receipt
from kling_nb.records.receipt_model import MAX_RECEIPT_BYTES
from kling_nb.records.run import RunRecord

__all__ = ["Damaged", "SidecarReader", "Sidecars", "receipt_bytes"]

#: Bytes that a receipt may grow by until its run ends: the posted body, facts of the file, its marks.
_GROWTH = 320 * 1024

_REST = re.compile(r"[a-z0-9]{4,20}\.json")

Skipped = list[tuple[str, str]]


@dataclass(frozen=True)
class Damaged:
    """A receipt that names a request and cannot be read.

    Args:
        name: The file.
        why: What is wrong with it, without a full stop.
        keys: The request keys in it; empty where only its name speaks for a request.

    Example:
        >>> Damaged("fox-kl7m2q.json", "it is cut off", frozenset()).name
        'fox-kl7m2q.json'
    """

    name: str
    why: str
    keys: frozenset[str]


class Sidecars(list[RunRecord]):
    """The runs of a folder, oldest first, and the damaged receipts between them.

    Args:
        runs: What could be read.
        damaged: What could not, and names a request that was asked for.

    Example:
        >>> Sidecars().damaged
        ()
    """

    def __init__(self, runs: Iterable[RunRecord] = (), damaged: Iterable[Damaged] = ()) -> None:
        super().__init__(runs)
        self.damaged = tuple(damaged)


class _DamagedError(StoreError):
    """A receipt of ours that cannot be read."""


class SidecarReader:
    """Reads the sidecars of one folder.

    Args:
        folder: The media folder; it may be absent.
        index: Of that folder.

    Example:
        >>> SidecarReader(Path("nowhere"), FolderIndex(Path("nowhere"))).read(None)
        ([], [])
    """

    def __init__(self, folder: Path, index: FolderIndex) -> None:
        self._folder = folder
        self._index = index

    def read(self, wanted: frozenset[str] | None, stems: Collection[str] = ()) -> tuple[Sidecars, Skipped]:
        """Read what is there now.

        Args:
            wanted: Request keys, or None for every run. A file that holds none of them is not looked at.
            stems: What the names of their receipts begin with, up to our id of the run.

        Returns:
            The runs, oldest first, with `folder` set; and the names of other files with the reason.

        Example:
            >>> SidecarReader(Path("nowhere"), FolderIndex(Path("nowhere"))).read(frozenset())
            ([], [])
        """
        found: list[RunRecord] = []
        skipped: Skipped = []
        damaged: list[Damaged] = []
        for name in self._index.names(wanted):
            try:
                stem, _, rest = name.rpartition("-")
                named = stem in stems and _REST.fullmatch(rest) is not None
                record = self._one(name, wanted, named=named)
            except _DamagedError as error:
                keys = (self._index.keys_of(name) or frozenset()) & (wanted or frozenset())
                damaged.append(Damaged(name, error.what.removesuffix("."), keys))
                skipped.append((name, error.what))
            except StoreError as error:
                skipped.append((name, error.what))
            except OSError as error:
                skipped.append((name, error.strerror or type(error).__name__))
            else:
                if record is not None and (wanted is None or record.request_key in wanted):
                    found.append(record.model_copy(update={"folder": str(self._folder)}))
        if self._index.beyond is not None:
            skipped.append((self._index.beyond, f"this and later ones: more than {self._index.most:,} files"))
        found.sort(key=lambda record: (record.created_at, record.id))
        return Sidecars(found, damaged), skipped

    def one(self, name: str) -> RunRecord | None:
        """Read one file; None where it is not there, or is no receipt."""
        try:
            record = self._one(name, None)
        except (OSError, StoreError):
            return None
        return None if record is None else record.model_copy(update={"folder": str(self._folder)})

    def _one(self, name: str, wanted: frozenset[str] | None, *, named: bool = False) -> RunRecord | None:
        now = signature(self._folder / name)
        keys = self._index.keys_of(name, now)
        # One that is cut off before its key speaks by its name alone.
        if wanted is not None and keys is not None and not keys & wanted and (keys or not named):
            return None
        if now[0] > MAX_RECEIPT_BYTES:
            raise StoreError("Too large for a sidecar.")
        data, keys = self._index.read(name)
        if wanted is not None and not keys & wanted and (keys or not named):
            return None
        try:
            parsed = json.loads(data)
        except (ValueError, RecursionError) as error:
            kind = _DamagedError if named or OURS.encode() in data.replace(b"\0", b"") else StoreError
            raise kind(_not_json(data, error)) from None
        try:
            return from_receipt(parsed)
        except StoreError as error:
            if isinstance(parsed, dict) and str(parsed.get("schema")).startswith(OURS):
                raise _DamagedError(error.what) from None
            raise


def receipt_bytes(record: RunRecord) -> bytes:
    """Give what the sidecar of a run holds.

    Raises:
        StoreError: It is, or may become, larger than a sidecar that is read again.
    """
    data = receipt_json(record)
    room = MAX_RECEIPT_BYTES - (0 if record.status.ended else _GROWTH)
    # Escaped, a letter that is no ASCII takes at most three times the room.
    if 3 * len(data) >= room and max(len(data), len(json.dumps(to_receipt(record)))) >= room:
        raise StoreError(
            "The record is too large for a sidecar.",
            charged=record.charged,
            cure="Give less metadata.",
            run_id=record.id,
        )
    return data


def _not_json(data: bytes, error: Exception) -> str:
    if re.search(rb"^(<{7}|={7}|>{7})", data, re.MULTILINE):
        return "Not JSON: it holds the conflict markers of git."
    where = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else "not text"
    return f"Not JSON, {where}."
