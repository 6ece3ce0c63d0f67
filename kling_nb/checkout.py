"""Which commit is checked out around a notebook, and whether files that git tracks differ from it.

Invariants: the commit is read from git's own files, so it costs no process; git itself is asked for the rest,
with a time limit, with no key in its environment, and without the repository's hooks and file watcher (its
filters do run, or a notebook whose outputs are stripped would always differ); whatever cannot be found out is
None; no path leaves this file.
"""

import os
import re
import subprocess
from contextlib import suppress
from pathlib import Path

from kling_nb.provenance import Commit

__all__ = ["commit_of"]

_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF = re.compile(r"ref: (refs/[^\x00-\x20\x7f]{1,400})")
_MOST_BYTES = 8 << 20  # of packed-refs: some 100,000 references
_LIMIT_S = 1.0
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
    with path.open("rb") as file:
        return file.read(_MOST_BYTES).decode("utf-8", "replace")


def _dirty(top: Path) -> bool | None:
    if top in _slow:
        return None
    # A repository's own settings may name programs.
    settings = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "core.pager=cat")
    switches = [word for setting in settings for word in ("-c", setting)]
    kept = ("PATH", "HOME", "SYSTEMROOT", "LANG", "XDG_CONFIG_HOME")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    look = ["status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all"]
    try:
        done = subprocess.run(  # noqa: S603 - fixed words, no shell
            ["git", *switches, *look],  # noqa: S607 - the user's own git, wherever it is
            cwd=top,
            env={**environment, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        _slow.add(top)
        return None
    except (OSError, ValueError):
        return None
    return bool(done.stdout.strip()) if done.returncode == 0 else None
