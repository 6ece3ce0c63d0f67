"""What was read in a media folder, so that a look at it costs the same however many clips it holds.

Invariants: a look that lists nothing rests on the folder's own times, and only where a change of ours has
shown that they move at once and by this machine's clock; a change that could bear the same times as the one
before is looked for by a listing; what is no whole receipt is looked at each time; everything in here can be
read again from the folder, and is kept in the user's cache folder alone.
"""

import json
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from kling_nb.files import Signature, file_sha256, open_plain, signature, signature_of
from kling_nb.media.index_cache import Entry, IndexCache
from kling_nb.records.receipt_model import MAX_RECEIPT_BYTES

__all__ = ["MAX_SIDECARS", "OURS", "FolderIndex"]

MAX_SIDECARS = 20_000
OURS = "kling-nb-receipt/"
_KEYS = re.compile(rb"k1:[0-9a-f]{64}")
_HASHES = 20_000

#: A listing is believed for so long: some servers tell of a change in a folder late. After changes of our own
#: for less: another's that fell into the same moment as one of ours is found then.
_BELIEVED_S, _UNPROVED_S = 600.0, 10.0
#: Within this time nobody else gets from a claim by way of a paid run to its end.
_INSTANT_NS = 10_000_000
#: Times are fine where each change after a look bears another one. That is believed after so many of our own
#: that each bore the moment it was made in, and none that left the time as it was: of coarse times, of 4 ms,
#: every second one does.
_PROOFS, _PROOF_NS = 8, 1_000_000
#: How coarse the times of files may be, where they do not show whole seconds.
_TICK_NS = 20_000_000

#: Device, inode and both times of a folder: any change of its names moves a time.
_State = tuple[int, int, int, int]


class FolderIndex:
    """The receipts of one folder by the requests they name, and the hashes of its clips.

    Args:
        folder: The media folder; it may be absent.
        clock: The wall's, in nanoseconds, by which files get their times.

    Example:
        >>> FolderIndex(Path("nowhere")).names(None)
        []
    """

    def __init__(self, folder: Path, clock: Callable[[], int] = time.time_ns) -> None:
        self._folder = folder
        self._clock = clock
        self._opened: IndexCache | None = None
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._saved: dict[str, Entry] | None = None
        self._by_key: dict[str, set[str]] = {}
        #: Files that may change without a trace in the folder: no receipts, half ones, and very new ones.
        self._loose: set[str] = set()
        self._hashes: dict[Path, tuple[Signature, str, bool]] = {}
        self._state: _State | None = None
        self._sure = self._prompt = self._fine_saved = False
        self._proofs, self._learned = 0, False
        self._listed_s = self._cost_s = 0.0
        #: When the first change of ours since the listing was.
        self._changed_s: float | None = None
        #: The first name beyond `MAX_SIDECARS`, if there are so many.
        self.beyond: str | None = None

    @property
    def most(self) -> int:
        """How many files are looked at."""
        return MAX_SIDECARS

    # -- receipts ----------------------------------------------------------
    def names(self, wanted: Collection[str] | None) -> list[str]:
        """Name the files that may be receipts of some requests, or of any.

        Args:
            wanted: Request keys, or None for every file.
        """
        with self._lock:
            if not self._in_step():
                self._list()
            if wanted is None:
                return sorted(self._entries.keys() | self._loose)
            return sorted(self._loose.union(*(self._by_key.get(key, ()) for key in wanted)))

    def keys_of(self, name: str, now: Signature | None = None) -> frozenset[str] | None:
        """Give the request keys in a file when it was read; None where it may have changed by `now`."""
        entry = self._entries.get(name)
        if entry is None or (now is not None and (entry.racy or entry.signature != now)):
            return None
        return frozenset(entry.keys)

    def read(self, name: str) -> tuple[bytes, frozenset[str]]:
        """Read a file, and remember the keys in it.

        Raises:
            OSError: It cannot be read.
        """
        with open_plain(self._folder / name) as file:
            at, facts = self._clock(), os.fstat(file.fileno())
            data = file.read(MAX_RECEIPT_BYTES + 1)
        racy = not _aged(facts.st_mtime_ns, facts.st_ctime_ns, at)
        return data, self.note(name, signature_of(facts), data, racy=racy)

    def note(
        self, name: str, now: Signature, data: bytes, *, racy: bool = False, whole: bool | None = None
    ) -> frozenset[str]:
        """Remember which keys a file holds; `racy` where a later change could bear the same times.

        `whole` where it is known to be a whole receipt, because it was written just now.
        """
        whole = _is_whole(data) if whole is None else whole
        # An editor may have saved it in two bytes a letter, which is JSON all the same.
        keys = frozenset(match.decode() for match in _KEYS.findall(data.replace(b"\0", b"")))
        with self._lock:
            self._drop(name)
            self._entries[name] = Entry(now, tuple(keys), whole, racy)
            for key in keys:
                self._by_key.setdefault(key, set()).add(name)
            if racy or not whole:
                self._loose.add(name)
        return keys

    def _drop(self, name: str) -> None:
        self._loose.discard(name)
        old = self._entries.pop(name, None)
        for key in old.keys if old else ():
            self._by_key[key].discard(name)

    # -- clips -------------------------------------------------------------
    def sha256(self, file: Path) -> str:
        """Give the hash of a clip; one that has not changed since it was hashed is not read again.

        Raises:
            OSError: It cannot be read.
        """
        at, now = self._clock(), signature(file)
        before, known, racy = self._hashes.get(file, (None, "", False))
        if before == now and not racy:
            return known
        if before is None and (kept := self._cache.sha256(file, now)) is not None:
            known, racy = kept, False
        else:
            known, racy = file_sha256(file), not _aged(now[1], now[2], at)
            if signature(file) != now:
                return known
            if not racy:
                self._cache.remember(file, now, known)
        self._remember(file, now, known, racy=racy)
        return known

    def remember(self, file: Path, sha256: str) -> None:
        """Remember the hash of a clip that was made under this name just now."""
        now = signature(file)
        self._cache.remember(file, now, sha256)
        self._remember(file, now, sha256, racy=False)

    def _remember(self, file: Path, now: Signature, sha256: str, *, racy: bool) -> None:
        if len(self._hashes) >= _HASHES:
            self._hashes.clear()
        self._hashes[file] = now, sha256, racy

    # -- the folder --------------------------------------------------------
    @contextmanager
    def changing(self, *, claiming: bool = False) -> Iterator[None]:
        """Make one short change of names that is ours, so that nobody has to look for it.

        What others do in the very same moment is found by `prove`; before a claim counts, it must be known.
        """
        with self._lock:
            start, before = self._clock(), self._look()
            done = False
            try:
                yield
                done = True
            finally:
                after, end = self._look(), self._clock()
                own = after is not None and start <= after[2] <= end
                self._proofs += own and end - start < _PROOF_NS
                if done and after == before:
                    self._sure, self._proofs = False, 0
                elif after is not None and before == self._state and after != before:
                    fine = own or self._proofs >= _PROOFS
                    self._sure = self._sure and fine and not (claiming and end - start > _INSTANT_NS)
                    self._prompt = self._prompt or start - _TICK_NS <= after[2] <= end
                    self._state = after
                    self._changed_s = self._changed_s or time.monotonic()

    def learn(self, trial: Path) -> None:
        """See, once for a folder, whether each change in it bears its own time: rename a file of ours."""
        with self._lock:
            if self._learned:
                return
            self._learned = True
            self._load()
            for _ in range(_PROOFS + 2 if self._proofs < _PROOFS else 0):
                for old, new in ((trial, aside := trial.with_name(f"{trial.name}.part")), (aside, trial)):
                    with self.changing():
                        old.rename(new)
            self._prompt = self._prompt or self._proofs >= _PROOFS

    def prove(self) -> None:
        """List the folder again after changes of our own, in at most a hundredth of the time."""
        with self._lock:
            if self._changed_s and time.monotonic() - self._listed_s > max(0.1, 100 * self._cost_s):
                self._list()

    def _in_step(self) -> bool:
        """Whether nothing can have changed in the folder that this index does not know."""
        now = time.monotonic()
        return (
            self._sure
            and self._prompt
            and now - self._listed_s < _BELIEVED_S
            and (self._changed_s is None or now - self._changed_s < _UNPROVED_S)
            and self._look() == self._state
        )

    def _look(self) -> _State | None:
        try:
            facts = os.stat(self._folder)  # noqa: PTH116 - asked for at each step
        except OSError:
            return None
        return facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns

    def _list(self) -> None:
        """Read what has changed since the last listing."""
        start, at, before = time.monotonic(), self._clock(), self._look()
        if before is not None:
            self._load()
        saved = self._saved or {}
        present = self._scan() if before is not None else {}
        names = sorted(present)
        self.beyond = names[MAX_SIDECARS] if len(names) > MAX_SIDECARS else None
        del names[MAX_SIDECARS:]
        for name in (self._entries.keys() | self._loose).difference(names):
            self._drop(name)
        for name in names:
            now, entry = present[name], self._entries.get(name)
            if entry is None or entry.signature != now or entry.racy:
                self._drop(name)
                self._loose.add(name)
                if now is not None and now[0] <= MAX_RECEIPT_BYTES:
                    try:
                        self.read(name)
                    except OSError:
                        continue
        kept = {name: one for name, one in self._entries.items() if one.whole and not one.racy}
        changed = {name: one for name, one in kept.items() if saved.get(name) is not one}
        gone = saved.keys() - kept.keys()
        fine = self._proofs >= _PROOFS
        if before is not None and (changed or gone or fine is not self._fine_saved):
            self._cache.save(self._folder, changed, gone, fine=fine)
            self._saved, self._fine_saved = kept, fine
        self._state, self._changed_s = before, None
        certain = fine or (before is not None and _aged(before[2], before[3], at))
        self._sure = certain and before is not None and before == self._look()
        self._listed_s = time.monotonic()
        self._cost_s = self._listed_s - start

    def _load(self) -> None:
        if self._saved is not None:
            return
        self._saved = self._cache.receipts(self._folder)
        if self._cache.is_fine(self._folder):
            self._fine_saved = self._prompt = True
            self._proofs = _PROOFS
        for name, entry in self._saved.items():
            self._entries.setdefault(name, entry)
            for key in entry.keys:
                self._by_key.setdefault(key, set()).add(name)

    def _scan(self) -> dict[str, Signature | None]:
        """Give each file that may be a receipt; None for what is no regular file."""
        found: dict[str, Signature | None] = {}
        try:
            with os.scandir(self._folder) as entries:
                for one in entries:
                    name = one.name
                    # The list of an export into a folder beside the clips is meant for this place.
                    if name.endswith(".json") and name[0] != "." and not name.endswith(".export.json"):
                        facts = one.stat(follow_symlinks=False)
                        found[name] = signature_of(facts) if stat.S_ISREG(facts.st_mode) else None
        except OSError:
            return found
        return found

    @property
    def _cache(self) -> IndexCache:
        if self._opened is None:
            self._opened = IndexCache.of_user()
        return self._opened


def _aged(modified_ns: int, changed_ns: int, now_ns: int) -> bool:
    """Whether a file or folder is so old that a change from now on is sure to bear another time."""
    last = max(modified_ns, changed_ns)
    coarse = 2_000_000_000 if modified_ns % 1_000_000_000 == 0 else _TICK_NS
    return now_ns - last > coarse


def _is_whole(data: bytes) -> bool:
    """Whether it is a whole receipt, whatever it says: the request of one never changes."""
    if OURS.encode() not in data:
        return False
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(parsed, dict) and str(parsed.get("schema")).startswith(OURS) and "request_key" in parsed
