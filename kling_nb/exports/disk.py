"""Putting clips under their exported names: hard links where possible, else copies.

Invariants: a file that is there is kept if it is the same and else stops the export before anything is
written; a copy has its name only when it is whole, synced and has the recorded SHA-256; halves lie outside
the exported folder, and those of an export that was killed are swept by the next one.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kling_nb.errors import StoreError, UsageError
from kling_nb.files import copy_and_hash, has_bytes, part_name

if TYPE_CHECKING:
    from kling_nb.exports.naming import Placed
import tempfile
import unicodedata
from collections.abc import Callable

from kling_nb.views.words import short

__all__ = [
    "check_case",
    "check_names",
    "check_place",
    "check_way",
    "foreign_files",
    "half",
    "put_clips",
    "sweep",
    "wrap_os_errors",
]

_HALF = "kling-nb-export"

#: So long nobody writes to a half that somebody is still at work on.
_IDLE_S = 60.0


@contextlib.contextmanager
def wrap_os_errors(folder: Path) -> Iterator[None]:
    """Turn a failure of the disk into words.

    Args:
        folder: Of the export.

    Raises:
        StoreError: The disk is full, or refused for another reason.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"The export stopped: {error.strerror or type(error).__name__} ({folder}).",
            cure="The clips are safe where they were. Repair the disk and export again; what is there stays.",
        ) from None


def check_place(folder: Path, clips: Iterable[Path | None]) -> None:
    """Look whether an export may go to a folder.

    Args:
        folder: Of the export; it need not be there.
        clips: Where they are kept.

    Raises:
        StoreError: A file has its name.
        UsageError: It has none, or is one that clips are kept in.
    """
    where = folder.resolve()
    if not where.name:
        raise UsageError("An export needs a folder of its own.", cure="Nothing was written. Name one.")
    if os.path.lexists(folder) and not folder.is_dir():
        raise _in_the_way(folder)
    if where in {kept.resolve() for kept in {clip.parent for clip in clips if clip}}:
        raise UsageError(
            f"{folder.name} is where clips are kept, and an export would mix its names with theirs.",
            cure="Nothing was written. Name another folder.",
        )


def check_way(folder: Path, placed: Sequence["Placed"], index: Mapping[str, bytes | None]) -> list["Placed"]:
    """Look whether anything is in the way.

    Args:
        folder: Of the export.
        placed: Its clips.
        index: Its other files by name, with what they would hold; None where that is not compared.

    Returns:
        The clips that are not there yet.

    Raises:
        StoreError: Another file has a name of the export.
    """
    new = []
    for one in placed:
        target = folder / one.file
        if not os.path.lexists(target):
            new.append(one)
        elif not _is_it(one, target):
            raise _in_the_way(target)
    for name, data in index.items():
        target = folder / name
        if os.path.lexists(target) and (data is None or not target.is_file() or target.read_bytes() != data):
            raise _in_the_way(target)
    return new


def put_clips(folder: Path, new: Sequence["Placed"]) -> None:
    """Put clips under their names.

    Args:
        folder: Where to; made if it is not there.
        new: Clips whose names are free.

    Raises:
        OSError: The disk refused. What is there is whole.
        StoreError: A clip is no longer the recorded one, or another file took its name meanwhile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for one in new:
        target = folder / one.file
        target.parent.mkdir(parents=True, exist_ok=True)
        if one.sample.path is None:
            continue
        try:
            os.link(one.sample.path.resolve(), target)
        except FileExistsError:
            # Another export of the same clips is under way here, too.
            if not _is_it(one, target):
                raise _in_the_way(target) from None
        except (OSError, NotImplementedError):
            _copy(one, target, folder)


def _copy(one: "Placed", target: Path, folder: Path) -> None:
    """Copy to another disk, or on one that has no hard links."""
    media, source = one.sample.record.media, one.sample.path
    with half(folder) as part:
        if source is None or media is None or copy_and_hash(source, part) != media.sha256:
            raise StoreError(
                f"The clip of {one.sample.record.id} changed while it was copied.", cure="Export again."
            )
        part.replace(target)


@contextlib.contextmanager
def half(folder: Path) -> Iterator[Path]:
    """Give a name for a file that is not whole yet; what still has it at the end goes.

    Args:
        folder: Of the export.
    """
    part = _nursery(folder) / part_name(_HALF)
    try:
        yield part
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what an export that was killed has left of a copy.

    Args:
        folder: Of the export.
    """
    for place in {folder, folder.parent}:
        for part in place.glob(f".{_HALF}.*.part") if place.is_dir() else ():
            with contextlib.suppress(OSError):
                if time.time() - part.stat().st_mtime > _IDLE_S:
                    shutil.rmtree(part) if part.is_dir() else part.unlink()


def foreign_files(folder: Path, known: Sequence[str]) -> tuple[str, ...]:
    """List the files in an exported folder that are not of this export: a tool would read them, too.

    Args:
        folder: Of the export.
        known: The paths of its own files, with slashes.
    """
    own = {folder / name for name in known}
    return tuple(
        str(path.relative_to(folder).as_posix())
        for path in sorted(folder.rglob("*"))
        if path not in own and not path.is_dir()
    )


def _nursery(folder: Path) -> Path:
    # Beside the folder, so that a tool that lists it sees whole clips only; unless that is another disk.
    beside = folder.parent
    same = not folder.exists() or beside.stat().st_dev == folder.stat().st_dev
    return beside if same and os.access(beside, os.W_OK) else folder


def _is_it(one: "Placed", target: Path) -> bool:
    media = one.sample.record.media
    return media is not None and has_bytes(target, media.size, media.sha256)


def _in_the_way(target: Path) -> StoreError:
    return StoreError(
        f"{target} is there already and is another file.",
        cure="Nothing was written. Export into an empty folder.",
    )


_NAME_BYTES = 255

#: What Windows, and disks made for it, forbid in names.
_FORBIDDEN = frozenset('<>:"\\|?*') | {chr(code) for code in range(32)}

_DEVICES = frozenset(
    {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in "123456789"}
)


def check_names(folder: Path, files: Sequence[str], holds: Callable[[Path, str], bool] | None = None) -> None:
    """Refuse names that the folder cannot hold.

    Args:
        folder: Of the export; nothing stays in it.
        files: Paths in it, with slashes.
        holds: Tries a doubtful name out; by default in the folder itself.

    Raises:
        UsageError: One of them is not possible.
    """
    tried: dict[str, bool] = {}
    for file in files:
        for part in file.split("/"):
            possible = part not in {"", ".", ".."} and "\0" not in part and _fits(part)
            if possible and _doubtful(part):
                if part not in tried:
                    tried[part] = (holds or _holds)(folder, part)
                possible = tried[part]
            if not possible:
                raise UsageError(
                    f"The name {short(part, 60)!r} is not possible here{_why(part)}.",
                    cure="Nothing was written. A layout with an index file (videofolder) takes any prompt.",
                )


def check_case(
    folder: Path, files: Sequence[str], takes_for_same: Callable[[Path, str, str], bool] | None = None
) -> None:
    """Refuse names that this disk takes for the same: by letter case, or by Unicode normal form.

    Args:
        folder: Of the export; nothing stays in it.
        files: Paths in it, with slashes.
        takes_for_same: Tries two names out; by default in the folder itself.

    Raises:
        UsageError: Two of them are the same here.
    """
    folded: dict[str, str] = {}
    for file in files:
        same = folded.setdefault(unicodedata.normalize("NFC", file).casefold(), file)
        if same != file and (takes_for_same or _takes_for_same)(folder, same, file):
            raise UsageError(
                f"This disk takes {short(same, 40)!r} and {short(file, 40)!r} for the same name.",
                cure="Nothing was written. Export to a disk that tells upper from lower case.",
            )


def _why(part: str) -> str:
    size = len(part.encode("utf-8", "replace"))
    return f": it has {size} bytes, and {_NAME_BYTES} is the most" if size > _NAME_BYTES else ""


def _fits(part: str) -> bool:
    try:
        return len(os.fsencode(part)) <= _NAME_BYTES and part.encode().decode() == part
    except UnicodeEncodeError:
        return False


def _doubtful(part: str) -> bool:
    """Whether there are disks that refuse it, or cut it short without a word."""
    device = part.partition(".")[0].rstrip(" ").lower() in _DEVICES
    return bool(_FORBIDDEN & set(part)) or part.endswith((" ", ".")) or device


def _holds(folder: Path, part: str) -> bool:
    with _trial(folder) as trial:
        try:
            (trial / part).touch()
        except OSError:
            return False
        return os.listdir(trial) == [part]  # noqa: PTH208 - the names as the disk has them


def _takes_for_same(folder: Path, one: str, other: str) -> bool:
    with _trial(folder) as trial:
        for file in (one, other):
            (trial / file).parent.mkdir(parents=True, exist_ok=True)
        (trial / one).touch()
        return (trial / other).exists()


@contextlib.contextmanager
def _trial(folder: Path) -> Iterator[Path]:
    """Make a folder for a moment, on the disk where the export is to be."""
    near = folder
    while not near.is_dir() and near != near.parent:
        near = near.parent
    with tempfile.TemporaryDirectory(dir=near, prefix=".kling-nb-") as trial:
        yield Path(trial)
