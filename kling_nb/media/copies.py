"""One more copy of a clip, in another folder: a link where the system has such, so that it takes no room."""

import os
from pathlib import Path

from kling_nb.errors import StoreError
from kling_nb.files import copy_and_hash
from kling_nb.records.run import RunRecord

__all__ = ["link_or_copy"]


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
