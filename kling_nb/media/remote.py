"""Clips that a team keeps at an address, any that fsspec can open, e.g. `s3://team/clips`.

Invariants: nothing is written there, but by `team_store.py`; a clip counts only with its recorded size and
SHA-256, and no more than that size is read of it; no redirect is followed; no key stands in an address, and
no message holds more of a foreign error than its kind.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import quote

from kling_nb.addresses import check_store
from kling_nb.errors import StoreError, UsageError, installed, one_line
from kling_nb.records.run import MediaFacts

__all__ = ["Depot", "by_content", "trouble_of"]

_CURE = (
    "Name the folder alone, e.g. s3://team/clips; keep keys in the environment, or in fsspec's own "
    "configuration file."
)
_MOST_FILES = 100_000
_BLOCK = 1 << 20

_REFUSED = frozenset({401, 403, 407})
_NOT_THERE = frozenset({404, 410})

_LIKELY = {
    FileNotFoundError: "it is not there",
    PermissionError: "access is refused",
    TimeoutError: "it did not answer in time",
    OSError: "it cannot be reached",
}


def by_content(media: MediaFacts) -> str:
    """Give the name under which a team's store has a clip, whoever made it.

    Example:
        >>> by_content(MediaFacts(file="fox.mp4", sha256="ab" * 32, size=1))[:9]
        'clips/ab/'
    """
    return f"clips/{media.sha256[:2]}/{media.sha256}{PurePosixPath(media.file).suffix}"


class Depot:
    """A place with clips, under any names.

    Args:
        address: For fsspec. Who may read it is for its own settings to say: the environment, or
            fsspec's configuration file.

    Raises:
        UsageError: It is no such address, holds a password, or needs a package that is not installed.
        StoreError: It cannot be read, or nothing is there.

    Example:
        >>> Depot("https://ann:secret@host/clips")
        Traceback (most recent call last):
        kling_nb.errors.UsageError: The address holds a password or a key. ...
    """

    def __init__(self, address: str) -> None:
        try:
            check_store(address)
        except ValueError as error:
            raise UsageError(f"The address {error}.", cure=_CURE) from None
        #: As it may be shown.
        self.name = one_line(address)[:120]
        self._files, self._root = _open(address, self.name)
        self._listed: dict[int, list[str]] | None = None
        #: Why it could not be listed, if so.
        self.trouble = ""
        self._check()

    def _check(self) -> None:
        # A web server has files without having folders.
        if self._root.startswith(("http://", "https://")):
            return
        there = None
        with self._noting():
            there = self._files.exists(self._root)
        if there is None:
            why = self.trouble or _LIKELY[FileNotFoundError]
            raise StoreError(f"{self.name} cannot be read: {why}.", charged="no")
        if not there:
            raise StoreError(f"There is nothing at {self.name}.", charged="no", cure="Mind its spelling.")

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Note why the backend could not answer, and go on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a backend raises what it likes
            self.trouble = trouble_of(error) or self.trouble

    def fetch(self, media: MediaFacts, sink: BinaryIO) -> bool:
        """Look for a clip by its name and size, and fetch it.

        Args:
            media: What is recorded of it.
            sink: Takes the bytes; what is in it is of no use unless True comes back.

        Returns:
            Whether it was there, with the recorded bytes.

        Raises:
            OSError: The sink could not be written.
        """
        seen: set[str] = set()
        for place in self._places(media):
            if place not in seen:
                seen.add(place)
                sink.seek(0)
                sink.truncate()
                if self._fetch(place, media, sink):
                    return True
        return False

    def why(self) -> str:
        """Say why a clip was not found, as the end of a sentence."""
        return (
            f"{self.name} {f'could not be searched ({self.trouble})' if self.trouble else 'does not have it'}"
        )

    def _places(self, media: MediaFacts) -> Iterator[str]:
        """Name the files that may be it: those with its name, or its content's; then all of its size."""
        web = self._root.startswith(("http://", "https://"))
        for name in (media.file, by_content(media)):
            place = self._place(quote(name) if web else name)
            size = self._size(place)
            if size is None or size == media.size:
                yield place
        yield from self._list().get(media.size, ())

    def _place(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _size(self, place: str) -> int | None:
        """Give the size of a file: -1 for one that is not there, None where nobody says."""
        found: dict[str, int | None] = {"size": -1}
        with self._noting():
            found = self._files.info(place)
        return found.get("size")

    def _list(self) -> dict[int, list[str]]:
        if self._listed is None:
            self._listed, count = {}, 0
            # fsspec's own `find` has no end where a web server links to ever deeper folders.
            with self._noting():
                for _, folders, files in self._files.walk(self._root, detail=True):
                    for info in files.values():
                        if isinstance(info.get("size"), int):
                            self._listed.setdefault(info["size"], []).append(info["name"])
                    count += len(files) + len(folders)
                    if count > _MOST_FILES:
                        self.trouble = f"it has more than {_MOST_FILES:,} files and folders"
                        break
        return self._listed

    def _fetch(self, place: str, media: MediaFacts, sink: BinaryIO) -> bool:
        digest, left = hashlib.sha256(), media.size
        for block in self._blocks(place, media.size):
            left -= len(block)
            digest.update(block)
            if left >= 0:
                sink.write(block)
        return left == 0 and digest.hexdigest() == media.sha256

    def _blocks(self, place: str, size: int) -> Iterator[bytes]:
        """Read at most one byte more than a size."""
        left = size
        with self._noting(), self._files.open(place, "rb") as source:
            while left >= 0 and (block := source.read(min(_BLOCK, left + 1))):
                left -= len(block)
                yield block


def _open(address: str, name: str) -> tuple[Any, str]:
    fsspec = installed("fsspec.core", "For clips at an address: `pip install 'kling-nb[s3]'`.")
    protocols = {part.partition("://")[0] for part in address.split("::")}
    # The server that was named, and no other, gives the clip.
    still = {protocol: {"allow_redirects": False} for protocol in protocols & {"http", "https"}}
    try:
        files, root = fsspec.url_to_fs(address, use_listings_cache=False, **still)
    except ImportError as error:
        package = error.name or getattr(error.__cause__, "name", None) or "of its backend"
        raise UsageError(
            f"{name} needs the package {package}, which is not installed.",
            cure="For s3:// it is in `pip install 'kling-nb[s3]'`.",
        ) from None
    except Exception as error:  # noqa: BLE001 - a backend raises what it likes
        raise UsageError(
            f"{name} cannot be opened: {_kind(error)}.", cure="Name a folder, e.g. s3://team/clips."
        ) from None
    return files, root


def trouble_of(error: Exception) -> str:
    """Say why a place cannot be looked at; empty where nothing is there, which is no trouble."""
    if not isinstance(error, FileNotFoundError):
        return _kind(error)
    # Over http everything is called "not found"; what it was is behind it.
    cause = error.__cause__
    status = getattr(cause, "status", None)
    if status in _REFUSED:
        return _LIKELY[PermissionError]
    if isinstance(status, int):
        return "" if status in _NOT_THERE else f"it answers {status}"
    return "" if cause is None or isinstance(cause, FileNotFoundError) else _kind(cause)


def _kind(error: BaseException) -> str:
    """Name a foreign error without its words, which may hold addresses and keys."""
    return next((words for kind, words in _LIKELY.items() if isinstance(error, kind)), type(error).__name__)
