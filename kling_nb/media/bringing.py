"""Clips from elsewhere, brought into a media folder.

Invariants: a file counts only with the recorded bytes, hashed where it now is; another file of its name is
never replaced; the receipt is written once the clip is there.
"""

from collections.abc import Callable
from pathlib import Path

from kling_nb.errors import StoreError
from kling_nb.files import file_sha256, open_new, place
from kling_nb.media.folder import Store
from kling_nb.media.remote import Depot
from kling_nb.records.run import RunRecord, ids_of

__all__ = ["bring_from", "take_in"]


def bring_from(depot: Depot, record: RunRecord, store: Store) -> RunRecord | None:
    """Fetch the clip of a run from a place into a media folder.

    Args:
        depot: The place.
        record: A run with a clip.
        store: The media folder.

    Returns:
        The record with its place here; None where the clip is not there.

    Raises:
        StoreError: It cannot be kept here.
    """

    def fetch(part: Path) -> bool:
        with open_new(part) as sink:
            return record.media is not None and depot.fetch(record.media, sink)

    try:
        return take_in(record, store, fetch)
    except OSError as error:
        what = f"It cannot be written here: {error.strerror or type(error).__name__}."
        raise StoreError(what, charged=record.charged, **ids_of(record)) from None


def take_in(record: RunRecord, store: Store, fill: Callable[[Path], bool]) -> RunRecord | None:
    """Give a file from elsewhere the recorded name.

    Args:
        record: A run with a clip.
        store: The media folder.
        fill: Makes the file; False where there is none.

    Returns:
        The record with its place here; None where there is no file.

    Raises:
        StoreError: It is not the recorded clip.
        OSError: It cannot be written.
    """
    named = Path(record.media.file if record.media else record.id)
    part = store.part(record)
    try:
        if not fill(part):
            return None
        final = place(part, named.stem, named.suffix, sha256=file_sha256(part), changing=store.changing)
    finally:
        part.unlink(missing_ok=True)
    media = record.media.model_copy(update={"file": final.name}) if record.media else None
    here = record.model_copy(update={"folder": str(store.folder), "media": media})
    if not store.verify(here):
        raise StoreError("The file changed while it was brought here.", charged=record.charged)
    store.write_sidecar(here)
    return here
