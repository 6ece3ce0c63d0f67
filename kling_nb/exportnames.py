"""Whether a folder can hold the names of an export, found out before anything is written.

Invariants: a name is never changed to fit; what this disk cannot hold, or takes for another name, is an
error; only names that look doubtful are tried out, in a folder that goes again at once.
"""

import contextlib
import os
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kling_nb.errors import UsageError
from kling_nb.views.words import short

__all__ = ["check_case", "check_names"]

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
                cure="Nothing was written. Export to a disk that tells letters apart.",
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
