"""The disk of a media folder: whether there is room, found out by really writing, and copies of clips.

A copy is a link where the system has such, so that it takes no room.
"""

import os
import shutil
from pathlib import Path

from kling_nb.errors import StoreError
from kling_nb.files import copy_and_hash, open_new, part_name
from kling_nb.media.index import FolderIndex
from kling_nb.records.run import RunRecord

__all__ = ["link_or_copy", "refuse_full", "try_room"]


def try_room(folder: Path, index: FolderIndex) -> int:
    """Write a file and take it away again; the first time it shows how fine the times of the folder are.

    Args:
        folder: The media folder.
        index: Of that folder.

    Returns:
        Bytes that are free.

    Raises:
        OSError: It cannot be written.

    Example:
        >>> try_room(Path("/dev/null"), FolderIndex(Path("/dev/null")))
        Traceback (most recent call last):
        NotADirectoryError: [Errno 20] Not a directory: ...
    """
    trial = folder / part_name("room")
    with index.changing():
        file = open_new(trial)
    try:
        with file:
            file.write(bytes(4096))
        index.learn(trial)
    finally:
        with index.changing():
            trial.unlink(missing_ok=True)
    return shutil.disk_usage(folder).free


def refuse_full(free: int, need_bytes: int) -> None:
    """Refuse a disk with fewer bytes free than a clip may need.

    Args:
        free: Bytes that are free.
        need_bytes: Bytes that must be.

    Raises:
        StoreError: It is too full.

    Example:
        >>> refuse_full(2, 1)
    """
    if free < need_bytes:
        raise StoreError(
            f"The disk of the media folder has {free / 1e6:,.0f} MB free, a clip may need "
            f"{need_bytes / 1e6:,.0f} MB.",
            cure="Nothing was sent; make room or set KLING_NB_MEDIA to another folder.",
        )


def link_or_copy(source: Path, part: Path, record: RunRecord) -> None:
    """Link or copy a clip into another folder.

    Args:
        source: The clip.
        part: A name that is free.
        record: The run whose clip it is.

    Raises:
        StoreError: It was copied, and is not the recorded one.
    """
    try:
        os.link(source, part)
    except (OSError, NotImplementedError):
        if record.media is None or copy_and_hash(source, part) != record.media.sha256:
            raise StoreError(
                "The clip changed while it was copied.", charged=record.charged, run_id=record.id
            ) from None
