"""The sidecars of a folder, read as what they are: files that anybody may have put there.

Invariants: no file can stop the others from being read, block the reader or fill its memory; what is not
ours is named with the reason, never an error; only whole, self-consistent receipts become records.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from kling_nb.errors import StoreError
from kling_nb.files import Signature, open_plain, signature
from kling_nb.records.receipt import from_receipt
from kling_nb.records.receipt_model import MAX_RECEIPT_BYTES
from kling_nb.records.run import RunRecord

__all__ = ["MAX_SIDECARS", "SidecarReader"]

MAX_SIDECARS = 20_000
_KEYS = re.compile(rb"k1:[0-9a-f]{64}")
Skipped = list[tuple[str, str]]


class SidecarReader:
    """Reads the sidecars of one folder, and remembers which keys each file holds.

    Args:
        folder: The media folder; it may be absent.

    Example:
        >>> SidecarReader(Path("nowhere")).read(None)
        ([], [])
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._keys: dict[tuple[str, Signature], frozenset[str]] = {}

    def read(self, wanted: frozenset[str] | None) -> tuple[list[RunRecord], Skipped]:
        """Read what is there now.

        Args:
            wanted: Request keys, or None for every run. A file that holds none of them is not parsed, and
                one that has not changed since it was last read is not even opened.

        Returns:
            The runs, oldest first, with `folder` set; and the names of other files with the reason.

        Example:
            >>> SidecarReader(Path("nowhere")).read(frozenset())
            ([], [])
        """
        found: list[RunRecord] = []
        skipped: Skipped = []
        for name in self._names(skipped):
            try:
                record = self._one(name, wanted)
            except StoreError as error:
                skipped.append((name, error.what))
            except OSError as error:
                skipped.append((name, error.strerror or type(error).__name__))
            else:
                if record is not None and (wanted is None or record.request_key in wanted):
                    found.append(record.model_copy(update={"folder": str(self._folder)}))
        return sorted(found, key=lambda record: (record.created_at, record.id)), skipped

    def one(self, name: str) -> RunRecord | None:
        """Read one file; None where it is not there, or is no receipt."""
        try:
            record = self._one(name, None)
        except (OSError, StoreError):
            return None
        return None if record is None else record.model_copy(update={"folder": str(self._folder)})

    def _names(self, skipped: Skipped) -> Iterator[str]:
        try:
            with os.scandir(self._folder) as entries:
                listed = [e.name for e in entries if e.name.endswith(".json") and e.name[0] != "."]
        except OSError:
            return
        # The list of an export into a folder beside the clips is meant for this place.
        names = sorted(name for name in listed if not name.endswith(".export.json"))
        yield from names[:MAX_SIDECARS]
        if len(names) > MAX_SIDECARS:
            skipped.append((names[MAX_SIDECARS], f"this and later ones: more than {MAX_SIDECARS:,} files"))

    def _one(self, name: str, wanted: frozenset[str] | None) -> RunRecord | None:
        path = self._folder / name
        key = (name, signature(path))
        keys = self._keys.get(key)
        if wanted is not None and keys is not None and not keys & wanted:
            return None
        if key[1][0] > MAX_RECEIPT_BYTES:
            raise StoreError("Too large for a sidecar.")
        with open_plain(path) as file:
            data = file.read(MAX_RECEIPT_BYTES + 1)
        if len(self._keys) >= MAX_SIDECARS:
            self._keys.clear()
        keys = self._keys[key] = frozenset(match.decode() for match in _KEYS.findall(data))
        if wanted is not None and not keys & wanted:
            return None
        try:
            parsed = json.loads(data)
        except (ValueError, RecursionError):
            raise StoreError("Not JSON.") from None
        return from_receipt(parsed)
