"""Bytes on disk: open, hash, write and place files so that no instant of a crash leaves a half file.

Invariants: a name is given to a file only once its bytes are on disk, and a name that is taken is never
replaced by `place`; a link is never followed out of a folder; nothing blocks on a pipe or a device.
"""

import contextlib
import errno
import hashlib
import itertools
import os
import secrets
import stat
import threading
from collections.abc import Callable
from io import BufferedRandom, BufferedReader, FileIO, TextIOWrapper
from pathlib import Path
from typing import TextIO

__all__ = [
    "Changing",
    "Checkpoint",
    "Signature",
    "copy_and_hash",
    "escape_unwritable",
    "file_sha256",
    "has_bytes",
    "no_checkpoint",
    "open_new",
    "open_plain",
    "part_name",
    "place",
    "read_plain",
    "signature",
    "signature_of",
    "sync_file",
    "sync_folder",
    "write_whole",
]

#: Called with the name of the step just done; tests stop the process there.
Checkpoint = Callable[[str], None]
#: Called around each change of a folder's names, so that an index of it knows it for our own.
Changing = Callable[[], contextlib.AbstractContextManager[None]]
Signature = tuple[int, int, int, int, int]
_CHUNK = 1024 * 1024

# Absent on Windows: there, following a link is up to the caller's own check of the path.
_READ_FLAGS = (
    os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
)

_NEW_FLAGS = os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def no_checkpoint(_step: str) -> None:
    """Do nothing: what every run but a crash test passes."""


def escape_unwritable(*streams: TextIO) -> None:
    """Let streams write what their encoding has no letter for as an escape, as Python's own stderr does.

    Args:
        *streams: Of this process; what is no stream of a console is left as it is.
    """
    for stream in streams:
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def part_name(stem: str) -> str:
    """Name a temporary file that no other process and no other run uses.

    Args:
        stem: Of the final name.

    Returns:
        A hidden name that ends in `.part`.

    Example:
        >>> part_name("fox-kl7m2q").startswith(".fox-kl7m2q.")
        True
    """
    return f".{stem}.{os.getpid()}-{secrets.token_hex(4)}.part"


def open_plain(path: Path, flags: int = 0) -> BufferedReader:
    """Open a regular file to read: not a link, not a pipe.

    Args:
        path: The file.
        flags: Further ones of `os.open`, e.g. `os.O_RDWR` where it is also written.

    Returns:
        The open file.

    Raises:
        OSError: It is not there, cannot be read or is not a regular file.

    Example:
        >>> open_plain(Path("/dev/null"))
        Traceback (most recent call last):
        OSError: [Errno 22] not a regular file: '/dev/null'
    """
    handle = os.open(path, _READ_FLAGS | flags)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    # Unlike `open`, this does not ask the system whether it is a terminal.
    return BufferedReader(FileIO(handle, "r+" if flags & os.O_RDWR else "r"))


def read_plain(path: Path, most_bytes: int) -> bytes | None:
    """Read a whole file that may be a link to one, and may have been put there by anybody.

    Args:
        path: The file, or a link to it.
        most_bytes: The most that is read.

    Returns:
        Its content; None where it is larger.

    Raises:
        OSError: It is not there, cannot be read or is no regular file, such as a pipe or a device.

    Example:
        >>> read_plain(Path(__file__), 3) is None
        True
    """
    try:
        real = path.resolve()
    except RuntimeError:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path)) from None
    with open_plain(real) as file:
        if os.fstat(file.fileno()).st_size > most_bytes:
            return None
        data = file.read(most_bytes + 1)
    return data if len(data) <= most_bytes else None


def open_new(path: Path) -> BufferedRandom:
    """Open a file to write that was not there before.

    Args:
        path: The file to make.

    Returns:
        The open file.

    Raises:
        OSError: The name is taken (`FileExistsError`) or cannot be made.

    Example:
        >>> open_new(Path("/dev/null"))
        Traceback (most recent call last):
        FileExistsError: [Errno 17] File exists: '/dev/null'
    """
    return BufferedRandom(FileIO(os.open(path, os.O_RDWR | _NEW_FLAGS, 0o666), "r+"))


def signature(path: Path) -> Signature:
    """Give what changes when a file does: size, times, inode.

    Args:
        path: The file; a link is looked at, not followed.

    Returns:
        A value to compare.

    Raises:
        OSError: It is not there or not a regular file.

    Example:
        >>> signature(Path(__file__)) == signature(Path(__file__))
        True
    """
    facts = os.lstat(path)
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return signature_of(facts)


def signature_of(facts: os.stat_result) -> Signature:
    """Give the same of what the system says about a regular file."""
    return (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino, facts.st_dev)


def file_sha256(path: Path) -> str:
    """Hash a regular file.

    Args:
        path: The file.

    Returns:
        64 hexadecimal digits.

    Raises:
        OSError: It cannot be read.

    Example:
        >>> len(file_sha256(Path(__file__)))
        64
    """
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def has_bytes(path: Path, size: int, sha256: str) -> bool:
    """Whether a regular file is there with exactly these bytes.

    Args:
        path: The file; a link is none.
        size: In bytes.
        sha256: Of the bytes, 64 hexadecimal digits.

    Example:
        >>> has_bytes(Path("nowhere.mp4"), 1, "0" * 64)
        False
    """
    try:
        return signature(path)[0] == size and file_sha256(path) == sha256
    except OSError:
        return False


def copy_and_hash(source: Path, target: Path) -> str:
    """Copy a file to a new name and hash what was copied.

    Args:
        source: A regular file.
        target: A name that is free.

    Returns:
        The SHA-256 of the bytes written and synced, 64 hexadecimal digits.

    Raises:
        OSError: Reading or writing failed; a half copy may be left.

    Example:
        >>> copy_and_hash(Path("a.mp4"), Path("b.mp4"))  # doctest: +SKIP
    """
    digest = hashlib.sha256()
    with open_plain(source) as old, open_new(target) as new:
        while chunk := old.read(_CHUNK):
            digest.update(chunk)
            new.write(chunk)
        new.flush()
        os.fsync(new.fileno())
    return digest.hexdigest()


def sync_file(path: Path) -> None:
    """Put the bytes of a file on disk."""
    # Windows syncs only what may be written; elsewhere a linked file of a colleague's may not be.
    handle = os.open(path, (os.O_RDWR if os.name == "nt" else os.O_RDONLY) | getattr(os, "O_NOFOLLOW", 0))
    _sync_and_close(handle)


class _Turn:
    """Whose turn it is to sync a folder: one sync serves all numbers that were drawn before its own."""

    def __init__(self) -> None:
        self.lock, self.numbers, self.done = threading.Lock(), itertools.count(), -1


#: By process, which a fork makes another one, and folder.
_turns: dict[tuple[int, str], _Turn] = {}


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on disk, where the system has such an act."""
    if os.name == "nt":
        return
    turn = _turns.setdefault((os.getpid(), os.fspath(folder)), _Turn())
    mine = next(turn.numbers)
    with turn.lock:
        if turn.done > mine:
            return
        serves, handle = next(turn.numbers), os.open(folder, os.O_RDONLY)
        # Some network file systems refuse it; the name is then as safe as they make it.
        with contextlib.suppress(OSError):
            _sync_and_close(handle)
        turn.done = serves


def _sync_and_close(handle: int) -> None:
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(
    path: Path,
    data: bytes,
    checkpoint: Checkpoint = no_checkpoint,
    *,
    changing: Changing = contextlib.nullcontext,
    sync: bool = True,
) -> None:
    """Replace a file by new content; a reader sees the old or the new, never a mixture.

    Args:
        path: The file; a link of that name is replaced, not followed.
        data: The whole content.
        checkpoint: Called after each step.
        changing: Called around each change of names.
        sync: Whether it must survive a power cut.

    Raises:
        OSError: The disk is full or the folder cannot be written; the old content still stands.

    Example:
        >>> write_whole(Path("a.json"), b"{}")  # doctest: +SKIP
    """
    part = path.with_name(part_name(path.name))
    try:
        with changing():
            file = open_new(part)
        with file:
            file.write(data)
            checkpoint("written")
            file.flush()
            if sync:
                os.fsync(file.fileno())
        checkpoint("synced")
        with changing():
            part.replace(path)
    except OSError:
        with contextlib.suppress(OSError), changing():
            part.unlink()
        raise
    checkpoint("replaced")
    if sync:
        sync_folder(path.parent)


def place(
    part: Path,
    stem: str,
    suffix: str,
    *,
    sha256: str,
    checkpoint: Checkpoint = no_checkpoint,
    changing: Changing = contextlib.nullcontext,
) -> Path:
    """Give a finished file its final name without ever replacing another file.

    Args:
        part: A regular file in the folder where it will stay; its bytes are synced here.
        stem: Of the name; `-2`, `-3` ... follow where it is taken by other bytes.
        suffix: Of the name, with its dot.
        sha256: Of the part; a file that has the name and these bytes already is used as it is.
        checkpoint: Called after each step.
        changing: Called around each change of names.

    Returns:
        The file under its final name. The part is gone.

    Raises:
        OSError: The file system refused; the part is still there.

    Example:
        >>> place(Path(".a.part"), "a", ".mp4", sha256="0" * 64)  # doctest: +SKIP
    """
    folder = part.parent
    sync_file(part)
    checkpoint("synced")
    for number in range(1, 1000):
        final = folder / (f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}")
        if _named(part, final, checkpoint, changing):
            break
        if has_bytes(final, signature(part)[0], sha256):
            # Another process was here first, or a crash came between the name and the tidying up.
            checkpoint("found")
            break
    else:
        raise FileExistsError(errno.EEXIST, "every name is taken", os.fspath(folder / stem))
    sync_folder(folder)
    checkpoint("folder synced")
    # A scanner or player that holds the part open must not turn success into failure.
    with contextlib.suppress(OSError), changing():
        part.unlink()
    checkpoint("done")
    return final


def _named(part: Path, final: Path, checkpoint: Checkpoint, changing: Changing) -> bool:
    """Name the file, or say that the name is taken."""
    try:
        with changing():
            os.link(part, final, follow_symlinks=False)
    except FileExistsError:
        return False
    except (OSError, NotImplementedError):
        # No hard links here (FAT, some network and FUSE mounts).
        return _claimed_and_renamed(part, final, checkpoint)
    checkpoint("named")
    return True


def _claimed_and_renamed(part: Path, final: Path, checkpoint: Checkpoint) -> bool:
    """Rename under a claim that only one process can hold, since a plain rename would replace."""
    # A claim that a crash left behind only costs its name: the next one is taken.
    claim = final.with_name(f".{final.name}.claim")
    try:
        open_new(claim).close()
    except FileExistsError:
        return False
    checkpoint("claimed")
    try:
        if os.path.lexists(final):
            return False
        part.rename(final)
    finally:
        with contextlib.suppress(OSError):
            claim.unlink()
    checkpoint("named")
    return True
