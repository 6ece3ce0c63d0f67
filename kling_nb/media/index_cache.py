"""The file in the user's cache folder that keeps what was read in media folders, from one kernel to the next.

Invariants: it holds nothing that cannot be read again; whatever is wrong with it costs time and no answer;
every host has its own, so that none is written over a network by two.
"""

import contextlib
import os
import platform
import re
import sqlite3
import threading
import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kling_nb.files import Signature
from kling_nb.interrupts import ForkGate, interrupts_held

__all__ = ["Entry", "IndexCache"]

_VERSION = 1
_TABLES = f"""
BEGIN IMMEDIATE;
DROP TABLE IF EXISTS folders;
DROP TABLE IF EXISTS receipts;
DROP TABLE IF EXISTS hashes;
CREATE TABLE folders (folder TEXT PRIMARY KEY, fine INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE receipts (folder TEXT, name TEXT, signature TEXT NOT NULL, keys TEXT NOT NULL,
    PRIMARY KEY (folder, name)) WITHOUT ROWID;
CREATE TABLE hashes (file TEXT PRIMARY KEY, signature TEXT NOT NULL, sha256 TEXT NOT NULL) WITHOUT ROWID;
PRAGMA user_version = {_VERSION};
COMMIT;
"""

#: So many hashes are written together.
_TOGETHER = 64
_Act = tuple[str, Sequence[tuple[object, ...]]]

_open: "weakref.WeakValueDictionary[Path, IndexCache]" = weakref.WeakValueDictionary()
_opening = threading.Lock()


@dataclass(frozen=True, slots=True)
class Entry:
    """What was read in one file.

    Args:
        signature: Of the file then.
        keys: The request keys in it.
        whole: Whether it was a whole receipt; the request of one never changes.
        racy: Whether a later change may bear the same times.
    """

    signature: Signature
    keys: tuple[str, ...]
    whole: bool = True
    racy: bool = False


class IndexCache:
    """The cache at a path; where it cannot be used it keeps nothing, and says nothing.

    Args:
        path: The file.

    Example:
        >>> IndexCache(Path("/dev/null/folders.db")).receipts(Path("kling_media"))
        {}
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._usable = True
        #: Rows that go to the file with the next ones, by the file that is hashed.
        self._hashes: dict[str, tuple[str, str]] = {}
        close, renewed = partial(_close, self.__dict__), partial(_renew, self.__dict__)
        self._forks = ForkGate(close, renewed, yields=False)
        weakref.finalize(self, _close, self.__dict__)

    @staticmethod
    def of_user() -> "IndexCache":
        """Give the cache of this user on this host."""
        import platformdirs

        host = re.sub(r"[^A-Za-z0-9.-]", "_", platform.node())[:60] or "host"
        path = platformdirs.user_cache_path("kling_nb", appauthor=False) / f"folders-{host}.db"
        with _opening:
            return _open.get(path) or _open.setdefault(path, IndexCache(path))

    def receipts(self, folder: Path) -> dict[str, Entry]:
        """Give what was read in the receipts of a folder, by name."""
        query = "SELECT name, signature, keys FROM receipts WHERE folder = ?"
        return {
            name: Entry(_signature(times), tuple(keys.split()))
            for name, times, keys in self._rows(query, _text(folder))
        }

    def is_fine(self, folder: Path) -> bool:
        """Whether each change in a folder was seen to bear its own time."""
        return self._rows("SELECT fine FROM folders WHERE folder = ?", _text(folder)) == [(1,)]

    def save(self, folder: Path, changed: Mapping[str, Entry], gone: Collection[str], *, fine: bool) -> None:
        """Keep what was read in a folder since the last time."""
        where = _text(folder)
        # Names that are no Unicode are none of ours.
        rows = [
            (where, name, _joined(one.signature), " ".join(one.keys))
            for name, one in changed.items()
            if name.isprintable()
        ]
        names = [(where, name) for name in gone if name.isprintable()]
        self._write(
            ("INSERT OR REPLACE INTO folders VALUES (?, ?)", [(where, fine)]),
            ("INSERT OR REPLACE INTO receipts VALUES (?, ?, ?, ?)", rows),
            ("DELETE FROM receipts WHERE folder = ? AND name = ?", names),
        )

    def sha256(self, file: Path, now: Signature) -> str | None:
        """Give the hash of a file that has not changed since it was hashed."""
        name, signed = _text(file), _joined(now)
        if (new := self._hashes.get(name)) is not None:
            return new[1] if new[0] == signed else None
        query = "SELECT sha256 FROM hashes WHERE file = ? AND signature = ?"
        return next((str(sha256) for (sha256,) in self._rows(query, name, signed)), None)

    def remember(self, file: Path, now: Signature, sha256: str) -> None:
        """Keep the hash of a file."""
        with interrupts_held(), self._forks, self._lock:
            self._hashes[_text(file)] = _joined(now), sha256
        if len(self._hashes) >= _TOGETHER:
            self._write()

    # -- inside ------------------------------------------------------------
    def _rows(self, query: str, *values: str) -> list[Any]:
        with interrupts_held(), self._forks, self._lock, contextlib.suppress(sqlite3.Error):
            if (db := self._connect()) is not None:
                return db.execute(query, values).fetchall()
        return []

    def _write(self, *acts: _Act) -> None:
        with interrupts_held(), self._forks, self._lock, contextlib.suppress(sqlite3.Error):
            if (db := self._connect()) is not None:
                _write(db, self._hashes, *acts)

    def _connect(self) -> sqlite3.Connection | None:
        for fresh in (False, True):
            if self._connection is not None or not self._usable:
                break
            try:
                self._connection = self._opened(fresh=fresh)
            except (sqlite3.Error, OSError):
                self._usable = not fresh
        return self._connection

    def _opened(self, *, fresh: bool) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for suffix in ("", "-wal", "-shm") if fresh else ():
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        db = sqlite3.connect(self._path, timeout=1, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            # After a power cut the last transactions may be missing, but none before them.
            db.execute("PRAGMA synchronous = NORMAL")
            if db.execute("PRAGMA user_version").fetchone() != (_VERSION,):
                db.executescript(_TABLES)
        except BaseException:
            db.close()
            raise
        return db


def _write(db: sqlite3.Connection, hashes: dict[str, tuple[str, str]], *acts: _Act) -> None:
    new = [(file, *said) for file, said in list(hashes.items())]
    with db:
        for statement, rows in (("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?)", new), *acts):
            db.executemany(statement, rows)
    hashes.clear()


def _close(of: dict[str, Any]) -> None:
    if (db := of.pop("_connection", None)) is not None:
        with contextlib.suppress(sqlite3.Error):
            _write(db, of["_hashes"])
        db.close()
    of["_connection"] = None


def _renew(of: dict[str, Any]) -> None:
    of["_lock"] = threading.Lock()


def _text(path: Path) -> str:
    # A path need not be Unicode.
    return os.fsencode(path).decode("latin-1")


def _joined(now: Signature) -> str:
    return " ".join(map(str, now))


def _signature(text: str) -> Signature:
    size, modified, changed, inode, device = map(int, text.split())
    return size, modified, changed, inode, device
