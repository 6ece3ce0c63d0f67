"""The store of a team: every clip once, under the hash of its bytes, and the receipt of each run beside them.

Invariants: what is there is never changed to other bytes; a clip is taken there only after its bytes were
verified here; a receipt holds what a sidecar holds, so no key and no signed link; no access of anybody's is
set on anything; whatever is written again is the same again.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from kling_nb.addresses import is_address
from kling_nb.errors import RunIds, StoreError
from kling_nb.loop import lasting_executor
from kling_nb.media.folder import Store
from kling_nb.media.remote import Depot, by_content, trouble_of
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

    @contextmanager
    def _asking(self, doing: str, record: RunRecord | None = None) -> Iterator[None]:
        """Say why the backend could not do something; that nothing is there goes on as it is.

        Not by `trouble`, which is of the whole place: several threads ask at once.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a backend raises what it likes
            why = trouble_of(error)
        else:
            return
        if not why:
            raise FileNotFoundError
        ids: RunIds | dict[str, str] = ids_of(record) if record else {}
        raise StoreError(f"{self.name} cannot be {doing}: {why}.", charged="no", **ids)

    def reach(self) -> str:
        """Say why it cannot be reached; empty where it can."""
        try:
            with suppress(FileNotFoundError), self._asking("reached"):
                self._files.info(self._place("receipts"))
        except StoreError as error:
            return error.what
        return ""

    def receipts(self) -> Iterator[tuple[str, bytes]]:
        """Give name and bytes of every receipt there.

        Raises:
            StoreError: They cannot be read.
        """
        names: list[str] = []
        with suppress(FileNotFoundError), self._asking("read"):
            names = self._files.ls(self._place("receipts"), detail=False)
        for place in sorted(names):
            data = b""
            with suppress(FileNotFoundError), self._asking("read"):
                data = self._files.cat_file(place, end=MAX_RECEIPT_BYTES)
            yield place.rpartition("/")[2], data

    def has(self, record: RunRecord) -> bool:
        """Whether the clip of a run seems to be there.

        Raises:
            StoreError: It cannot be reached, so nobody knows.
        """
        with suppress(FileNotFoundError), self._asking("reached", record):
            if record.media is not None:
                there = self._files.info(self._place(by_content(record.media)))
                return bool(there.get("size") == record.media.size)
        return False

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
            if not self.has(one):
                self._write(by_content(media), record, path)
        self._write(f"receipts/{record.id}.json", record, receipt_bytes(record))

    def _write(self, name: str, record: RunRecord, what: Path | bytes) -> None:
        there = self._place(name)
        try:
            with self._asking("written", record):
                self._files.makedirs(there.rpartition("/")[0], exist_ok=True)
                if isinstance(what, bytes):
                    self._files.pipe_file(there, what)
                else:
                    self._files.put_file(str(what), there)
        except FileNotFoundError:
            what_happened = f"{self.name} cannot be written: there is no such bucket or folder."
            raise StoreError(what_happened, charged="no", **ids_of(record)) from None


@cache
def team_store(media: str | None) -> TeamStore | None:
    """Give the store that a setting names; None where it names a folder, or nothing.

    Raises:
        UsageError: It needs a package that is not installed.
    """
    return TeamStore(media) if media is not None and is_address(media) else None
