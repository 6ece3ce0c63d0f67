"""The store of a team: every clip once, under the hash of its bytes, and the receipt of each run beside them.

Invariants: what is there is never changed to other bytes; a clip is taken there only after its bytes were
verified here; a receipt holds what a sidecar holds, so no key and no signed link; no access of anybody's is
set on anything; whatever is written again is the same again.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from kling_nb.addresses import is_address
from kling_nb.errors import StoreError
from kling_nb.loop import lasting_executor
from kling_nb.media.folder import Store
from kling_nb.media.remote import Depot, by_content
from kling_nb.media.sidecars import receipt_bytes
from kling_nb.records.receipt_model import MAX_RECEIPT_BYTES
from kling_nb.records.run import MediaFacts, RunRecord, ids_of

__all__ = ["TeamStore", "team_store"]


class TeamStore(Depot):
    """A store at an address, e.g. `s3://team/kling`.

    Args:
        address: For fsspec; as for `Depot`.

    Raises:
        UsageError: It is no such address, or needs a package that is not installed.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        #: As the ledger notes it.
        self.address = address
        if self._files.async_impl:
            # At the end of a process, fsspec's own threads would look up no host any more.
            loop = self._files.loop
            loop.call_soon_threadsafe(loop.set_default_executor, lasting_executor())

    def _check(self) -> None:
        """Nothing need be there yet."""

    def _places(self, media: MediaFacts) -> Iterator[str]:
        yield self._place(by_content(media))

    def answers(self) -> bool:
        """Whether it can be reached; else `trouble` says why not."""
        self.trouble = ""
        self._size(self._place("receipts"))
        return not self.trouble

    def receipts(self) -> Iterator[tuple[str, bytes]]:
        """Give name and bytes of every receipt there.

        Raises:
            StoreError: They cannot be read.
        """
        self.trouble, names = "", list[str]()
        with self._noting():
            names = self._files.ls(self._place("receipts"), detail=False)
        for place in sorted(names):
            data = b""
            with self._noting():
                data = self._files.cat_file(place, end=MAX_RECEIPT_BYTES)
            yield place.rpartition("/")[2], data
        if self.trouble:
            raise StoreError(f"{self.name} cannot be read: {self.trouble}.", charged="no")

    def has(self, record: RunRecord) -> bool:
        """Whether the clip of a run seems to be there."""
        if record.media is None:
            return False
        return self._size(self._place(by_content(record.media))) == record.media.size

    def keep(self, record: RunRecord, store: Store) -> None:
        """Take the clips and the receipt of a run there.

        Args:
            record: A run with a clip.
            store: The media folder that has it.

        Raises:
            StoreError: They are not here, or could not be written there.
        """
        for media in filter(None, (record.media, *record.further)):
            one = record.model_copy(update={"media": media})
            path = store.path(one)
            if path is None or not store.verify(one):
                raise StoreError(f"{media.file} is not in {store.folder}.", **ids_of(record))
            there = self._place(by_content(media))
            if self._size(there) != media.size:
                self._write(there, record, path)
        self._write(self._place(f"receipts/{record.id}.json"), record, receipt_bytes(record))

    def _write(self, there: str, record: RunRecord, what: Path | bytes) -> None:
        self.trouble, done = "", False
        with self._noting():
            self._files.makedirs(there.rpartition("/")[0], exist_ok=True)
            if isinstance(what, bytes):
                self._files.pipe_file(there, what)
            else:
                self._files.put_file(str(what), there)
            done = True
        if not done:
            raise StoreError(f"{self.name} cannot be written: {self.trouble}.", **ids_of(record))


@cache
def team_store(media: str | None) -> TeamStore | None:
    """Give the store that a setting names; None where it names a folder, or nothing.

    Raises:
        UsageError: It needs a package that is not installed.
    """
    return TeamStore(media) if media is not None and is_address(media) else None
