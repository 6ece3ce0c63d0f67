"""Which commit is checked out around a notebook, and whether files that git tracks differ from it.

Invariants: the commit is read from git's own files, so it costs no process; git itself is asked for the rest,
with a time limit, with no key in its environment, and without any program that the repository's own settings
name, for its folder may be a stranger's; whatever cannot be found out is None; no path leaves this file.
"""

import os
import re
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from kling_nb.provenance import Commit

__all__ = ["commit_of"]

_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF = re.compile(r"ref: (refs/[^\x00-\x20\x7f]{1,400})")
_MOST_BYTES = 8 << 20  # of packed-refs: some 100,000 references
_LIMIT_S = 1.0
#: Asks for filters, and for whose settings name them; reads those of the repository from the answer.
_LIST = ("config", "--show-scope", "--includes", "-z", "--name-only", "--get-regexp", r"^filter\.")
_DRIVER = re.compile(r"(?:^|\0)(?:local|worktree|command)\0filter\.([^\0]*)\.[^.\0]*(?=\0)")
_PLAIN = re.compile(r"[A-Za-z0-9._-]+")
#: Folders where git took too long: there it is not asked again in this process.
_slow: set[Path] = set()


def commit_of(folder: Path | None) -> Commit | None:
    """Say which version of the code a folder is in.

    Args:
        folder: Of the notebook.

    Returns:
        The commit, or None outside git, before the first commit, and where it cannot be read.

    Example:
        >>> commit_of(Path("/")) is None
        True
    """
    try:
        found = _git_folder(folder) if folder is not None else None
        sha = None if found is None else _head(found[1])
    except (OSError, ValueError):
        return None
    if found is None or sha is None:
        return None
    return Commit(sha=sha, dirty=_dirty(found[0]))


def _git_folder(folder: Path) -> tuple[Path, Path] | None:
    """Find the top of the working tree, and where git keeps what is checked out there."""
    folder = folder.resolve()
    for top in (folder, *folder.parents):
        git = top / ".git"
        if git.is_dir():
            return top, git
        if git.is_file():
            # A worktree or a submodule: a file names the place.
            said = _text(git).strip()
            if not said.startswith("gitdir: "):
                return None
            return top, (top / said.removeprefix("gitdir: ")).resolve()
    return None


def _head(git: Path) -> str | None:
    said = _text(git / "HEAD").strip()
    if _SHA.fullmatch(said):
        return said
    named = _REF.fullmatch(said)
    if named is None or ".." in named[1]:
        return None
    homes = [git]
    with suppress(OSError):
        # The branches of a worktree are kept with those of the first one.
        homes.append((git / _text(git / "commondir").strip()).resolve())
    for home in homes:
        with suppress(OSError):
            sha = _text(home / named[1]).strip()
            if _SHA.fullmatch(sha):
                return sha
    for home in homes:
        with suppress(OSError):
            for line in _text(home / "packed-refs").splitlines():
                sha, _, name = line.partition(" ")
                if name == named[1] and _SHA.fullmatch(sha):
                    return sha
    return None


def _text(path: Path) -> str:
    if not path.is_file():
        # A pipe would hold up the cell.
        raise FileNotFoundError(path)
    with path.open("rb") as file:
        return file.read(_MOST_BYTES).decode("utf-8", "replace")


def _dirty(top: Path) -> bool | None:
    if top in _slow:
        return None
    end = time.monotonic() + _LIMIT_S
    # The user's own filters run, or a notebook whose outputs are stripped would always differ.
    listed = _git(top, end, *_LIST, done=(0, 1))
    drivers = sorted(set(_DRIVER.findall(listed or "")))
    if listed is None or not all(_PLAIN.fullmatch(name) for name in drivers):
        return None
    off = [f"filter.{name}.{word}" for name in drivers for word in ("clean=", "process=", "required=false")]
    status = ("status", "-z", "--no-renames", "--untracked-files=no", "--ignore-submodules=all")
    said = _git(top, end, *(part for word in off for part in ("-c", word)), *status)
    changed = None if said is None else [entry[3:] for entry in said.split("\0") if entry]
    if not changed or not drivers:
        return None if changed is None else bool(changed)
    # What a filter that was left out would have made of these, nobody knows.
    told = _git(top, end, "check-attr", "-z", "--stdin", "filter", given="\0".join(changed))
    filtered = None if told is None else told.split("\0")[2::3]
    return True if filtered is not None and set(filtered) - set(drivers) else None


def _git(top: Path, end: float, *words: str, given: str = "", done: tuple[int, ...] = (0,)) -> str | None:
    """Ask git, until a moment; what it says, or None where it could not."""
    if top in _slow:
        return None
    # A repository's own settings may name programs, also for what it has to fetch first.
    settings = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "core.pager=cat")
    switches = [word for setting in settings for word in ("-c", setting)]
    kept = ("PATH", "HOME", "SYSTEMROOT", "LANG", "XDG_CONFIG_HOME")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {"GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1"}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        asked = subprocess.run(  # noqa: S603 - our own words, no shell
            ["git", *switches, *words],  # noqa: S607 - the user's own git, wherever it is
            cwd=top,
            env=environment,
            input=os.fsencode(given),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=max(0.0, end - time.monotonic()),
            check=False,
        )
    except subprocess.TimeoutExpired:
        _slow.add(top)
        return None
    except (OSError, ValueError):
        return None
    return os.fsdecode(asked.stdout) if asked.returncode in done else None
