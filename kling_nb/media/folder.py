"""The media folder: clips under names that are never given twice, and a sidecar for each run.

Invariants: a final name is never replaced and original bytes are never rewritten or deleted; a clip has
its final name only when it was measured, hashed and synced; a kill at any instant leaves the whole clip
or none, and the old sidecar or the new; nothing named by a record or sidecar leads out of the folder.
"""

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import FileIO
from pathlib import Path
from typing import NoReturn

from kling_nb.errors import Charged, StoreError
from kling_nb.files import (
    Checkpoint,
    Signature,
    file_sha256,
    no_checkpoint,
    part_name,
    place,
    signature,
    sync_file,
    sync_folder,
    write_whole,
)
from kling_nb.media import probe as probing
from kling_nb.media.claims import Claims
from kling_nb.media.disk import link_or_copy, refuse_full, try_room
from kling_nb.media.index import FolderIndex
from kling_nb.media.names import file_stem
from kling_nb.media.sidecars import SidecarReader, Sidecars, receipt_bytes
from kling_nb.records.privacy import is_redacted
from kling_nb.records.receipt_model import is_bare_name
from kling_nb.records.run import MediaFacts, RunRecord

__all__ = ["ROOM_BYTES", "Store"]

ROOM_BYTES = 64 * 1024 * 1024

_POSTERS = 512
#: From here on the disk needs about as long for a file as the decoder does.
_LARGE_BYTES = 4 << 20


class Store:
    """The clips and sidecars of one media folder. Every method blocks: call it off the event loop.

    Args:
        folder: e.g. `kling_media` beside the notebook; made at the first write.
        clock: The wall's, in nanoseconds.

    Example:
        >>> Store(Path("kling_media")).sidecars()
        []
    """

    def __init__(self, folder: Path, clock: Callable[[], int] = time.time_ns) -> None:
        # Frozen here, because a notebook may change its working folder; links in it are kept as they are.
        self.folder = Path(os.path.abspath(folder))  # noqa: PTH100 - resolve() would follow links
        #: Files of the last `sidecars()` that are none of ours, and why.
        self.skipped: list[tuple[str, str]] = []
        self._index = FolderIndex(self.folder, clock)
        #: Around each change of names in this folder that is made elsewhere; see `FolderIndex.changing`.
        self.changing = self._index.changing
        self.claims = Claims(self.folder, self.changing, partial(self.changing, claiming=True))
        self._reader = SidecarReader(self.folder, self._index)
        self._posters: dict[tuple[Path, Signature], str | None] = {}

    def check_room(self, need_bytes: int = ROOM_BYTES) -> None:
        """Make sure, before any money moves, that a clip could be kept here, by really writing.

        Args:
            need_bytes: Bytes that must be free.

        Raises:
            StoreError: The folder cannot be made or written, or the disk is too full.

        Example:
            >>> Store(Path("/dev/null/media")).check_room()  # doctest: +ELLIPSIS
            Traceback (most recent call last):
            kling_nb.errors.StoreError: The media folder cannot be written: ...
        """
        try:
            self._make_folder()
            free = try_room(self.folder, self._index)
        except OSError as error:
            _refuse(error, "The media folder cannot be written", charged="no", cure="Nothing was sent.")
        refuse_full(free, need_bytes)

    def part(self, record: RunRecord) -> Path:
        """Name the file to download into, of this call alone; the folder is made, the file is not.

        Raises:
            StoreError: The folder cannot be made.
        """
        try:
            self._make_folder()
        except OSError as error:
            _refuse(error, "The media folder cannot be written", record)
        return self.folder / part_name(file_stem(record))

    def open_part(self, record: RunRecord) -> tuple[Path, FileIO]:
        """Make the file to download into, if the disk has room for a clip.

        Raises:
            StoreError: The folder cannot be made, or the disk is too full.
            OSError: The file cannot be made.
        """
        part = self.part(record)
        refuse_full(shutil.disk_usage(self.folder).free, ROOM_BYTES)
        with self.changing():
            return part, part.open("xb", buffering=0)

    def keep(
        self,
        record: RunRecord,
        part: Path,
        sha256: str,
        *,
        written: Signature | None = None,
        checkpoint: Checkpoint = no_checkpoint,
    ) -> MediaFacts:
        """Measure a finished download and give it its final name.

        Args:
            record: The run.
            part: The download, as named by `part`.
            sha256: Of the bytes that came over the wire, 64 hexadecimal digits.
            written: The file's signature when just these bytes had been written; while it is the same, they
                are not read again.
            checkpoint: Called after each step.

        Returns:
            What was measured, with the final name.

        Raises:
            NotVideoError: It is no playable video; the part is still there.
            StoreError: It is not what came over the wire, or cannot be named; the part is still there.
        """
        try:
            measured = _measure(part)
            now = signature(part)
            if written != now and file_sha256(part) != sha256:
                raise StoreError(
                    "The clip on disk is not what was downloaded.",
                    charged=record.charged,
                    cure="`%kling resume` fetches it again.",
                    run_id=record.id,
                )
            checkpoint("measured")
            final = place(
                part,
                file_stem(record),
                f".{measured.container}",
                sha256=sha256,
                checkpoint=checkpoint,
                changing=self.changing,
            )
            self._index.remember(final, sha256)
        except OSError as error:
            _refuse(error, "The clip cannot be kept", record)
        return MediaFacts(file=final.name, sha256=sha256, size=now[0], **vars(measured))

    def set_aside(self, record: RunRecord, part: Path) -> Path:
        """Keep a download that is no video, because it may have been paid for.

        Args:
            record: The run.
            part: The download.

        Returns:
            The file, now `<stem>.rejected`, or `<stem>-2.rejected` where that is taken.

        Raises:
            StoreError: It cannot be renamed; the part is still there.
        """
        try:
            sha256 = file_sha256(part)
            return place(part, file_stem(record), ".rejected", sha256=sha256, changing=self.changing)
        except OSError as error:
            _refuse(error, "The download cannot be set aside", record)

    def path(self, record: RunRecord) -> Path | None:
        """Find the clip of a run.

        Args:
            record: The run; its own `folder` is not looked at.

        Returns:
            The file, or None where it is not here, or is a link that leads out of the folder.
        """
        if record.media is None or not is_bare_name(record.media.file):
            return None
        path = self.folder / record.media.file
        return None if self._real(path) is None else path

    def verify(self, record: RunRecord) -> bool:
        """Whether the clip is here with exactly the recorded bytes.

        A file that has not changed since it was hashed is not hashed again.

        Args:
            record: The run.

        Returns:
            True only if name, size and SHA-256 agree.

        Example:
            >>> store.verify(record)  # doctest: +SKIP
            True
        """
        path = self.path(record)
        real = None if path is None else self._real(path)
        if real is None or record.media is None:
            return False
        try:
            return signature(real)[0] == record.media.size and self._index.sha256(real) == record.media.sha256
        except OSError:
            return False

    def write_sidecar(
        self, record: RunRecord, *, checkpoint: Checkpoint = no_checkpoint, sync: bool = True
    ) -> Path:
        """Write the receipt beside the clip, whole or not at all.

        Args:
            record: The run.
            checkpoint: Called after each step.
            sync: Whether it must survive a power cut.

        Returns:
            `<stem>.json`.

        Raises:
            StoreError: It cannot be written; an earlier one still stands.

        Example:
            >>> store.write_sidecar(record).name  # doctest: +SKIP
            'a-red-fox-kl7m2q.json'
        """
        data = receipt_bytes(record)
        path = self.folder / f"{file_stem(record)}.json"
        try:
            self._make_folder()
            write_whole(path, data + b"\n", checkpoint, changing=self.changing, sync=sync)
            self._index.note(path.name, signature(path), data, whole=True)
        except OSError as error:
            _refuse(error, "The sidecar cannot be written", record)
        if record.provider_run_id is not None or record.status.ended:
            self.claims.drop(record.request_key, record.id)
        if record.private and not is_redacted(record):
            # From before it was private, under a name that is made of its words.
            public = record.model_copy(update={"private": False})
            with contextlib.suppress(OSError), self.changing():
                (self.folder / f"{file_stem(public)}.json").unlink()
        if record.provider_run_id is not None:
            # Here nobody waits for it.
            self._index.prove()
        return path

    def sidecars(
        self, *, request_keys: Collection[str] | None = None, stems: Collection[str] = ()
    ) -> Sidecars:
        """Read the runs of this folder, whoever put them there.

        Args:
            request_keys: Only runs with one of these; files that name none of them are not even parsed.
            stems: What the names of their receipts begin with, so that a damaged one is known by its name.

        Returns:
            Oldest first, each with `folder` set to this folder. Files that are none of ours are left out
            and listed in `skipped`. An absent or unreadable folder holds nothing.

        Example:
            >>> Store(Path("nowhere")).sidecars()
            []
        """
        wanted = None if request_keys is None else frozenset(request_keys)
        found, self.skipped = self._reader.read(wanted, stems)
        return found

    def sidecar(self, record: RunRecord) -> RunRecord | None:
        """Read the receipt of one run anew; None where it is not here, or cannot be read."""
        return self._reader.one(f"{file_stem(record)}.json")

    def bring(self, record: RunRecord, other: Path) -> RunRecord:
        """Bring a clip and its sidecar from another media folder into this one.

        Args:
            record: A run whose clip is there.
            other: The other media folder. Its files are linked or copied, never moved.

        Returns:
            The record, with this folder and the name the clip has here.

        Raises:
            StoreError: The clip is not there, is not the recorded one, or cannot be kept here.

        Example:
            >>> store.bring(record, Path("../other/kling_media")).folder  # doctest: +SKIP
            '/home/ann/kling_media'
        """
        there = Store(other)
        source = there.path(record)
        real = None if source is None else there._real(source)
        if real is None or record.media is None or not there.verify(record):
            raise StoreError(
                "The clip to reuse is gone or is not the recorded one.",
                charged=record.charged,
                cure="Run the cell again: it is fetched again while the provider still has it.",
                run_id=record.id,
            )
        name = Path(record.media.file)
        if not self._holds(there) and not self.verify(record):
            part = self.folder / part_name(name.stem)
            try:
                self._make_folder()
                with self.changing():
                    link_or_copy(real, part, record)
                sha256 = record.media.sha256
                name = place(part, name.stem, name.suffix, sha256=sha256, changing=self.changing)
            except OSError as error:
                _refuse(error, "The clip cannot be brought here", record)
            finally:
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
        media = record.media.model_copy(update={"file": name.name})
        here = record.model_copy(update={"folder": str(self.folder), "media": media})
        self.write_sidecar(here)
        return here

    def poster(self, record: RunRecord) -> str | None:
        """Give a small still of the clip.

        Args:
            record: The run.

        Returns:
            A `data:image/jpeg` address of about 6 KB at most, or None.

        Example:
            >>> store.poster(record)[:22]  # doctest: +SKIP
            'data:image/jpeg;base64'
        """
        path = self.path(record)
        real = None if path is None else self._real(path)
        if real is None:
            return None
        try:
            key = (real, signature(real))
        except OSError:
            return None
        if key not in self._posters:
            if len(self._posters) >= _POSTERS:
                self._posters.clear()
            self._posters[key] = probing.poster(real)
        return self._posters[key]

    # --- inside ------------------------------------------------------------------------------------------

    def _make_folder(self) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            sync_folder(self.folder.parent)

    def _real(self, path: Path) -> Path | None:
        """Follow links, but only to a regular file inside the folder."""
        try:
            if stat.S_ISREG(os.lstat(path).st_mode):
                return path
            real = path.resolve(strict=True)
            signature(real)
            return real if real.is_relative_to(self.folder.resolve()) else None
        except (OSError, RuntimeError, ValueError):
            return None

    def _holds(self, other: "Store") -> bool:
        try:
            return self.folder.samefile(other.folder)
        except OSError:
            return False


def _measure(part: Path) -> probing.Measured:
    if signature(part)[0] < _LARGE_BYTES:
        return probing.probe(part)
    with ThreadPoolExecutor(1) as disk:
        synced = disk.submit(sync_file, part)
        measured = probing.probe(part)
    # An error of the disk is told once, to whoever asks first.
    synced.result()
    return measured


def _refuse(
    error: OSError,
    what: str,
    record: RunRecord | None = None,
    *,
    charged: Charged = "unknown",
    cure: str = "Free or repair the disk, then `%kling resume`: the provider still has the clip for a while.",
) -> NoReturn:
    raise StoreError(
        f"{what}: {error.strerror or type(error).__name__}.",
        charged=record.charged if record else charged,
        cure=cure,
        run_id=record.id if record else None,
    ) from None
