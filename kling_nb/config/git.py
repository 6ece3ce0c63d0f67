"""Which commit is checked out around a notebook, and whether files that git tracks differ from it.

Invariants: git itself is asked, with a time limit, with no key in its environment, and without any program
that the repository's own settings name, for its folder may be a stranger's; whatever cannot be found out is
None; no path leaves this file.
"""

import os
import re
import subprocess
import time
from functools import lru_cache
from pathlib import Path

from kling_nb.records.provenance import Commit

__all__ = ["commit_of"]

_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_LIMIT_S = 1.0

#: Asks where a filter is set; one of the user's own settings runs, one of the repository is refused.
_FILTERS = ("config", "--show-scope", "--includes", "-z", "--name-only", "--get-regexp", r"^filter\.")
_STATUS = ("status", "--porcelain", "--no-renames", "--untracked-files=no", "--ignore-submodules=all")

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
    # Most notebooks are in no repository, and starting git takes longer than all else of a call.
    if folder is None or not any(map(os.path.lexists, _repositories(folder))):
        return None
    end = time.monotonic() + _LIMIT_S
    sha = _git(folder, end, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if sha is None or not _SHA.fullmatch(sha.strip()):
        return None
    return Commit(sha=sha.strip(), dirty=_dirty(folder, end))


@lru_cache(maxsize=8)
def _repositories(folder: Path) -> list[str]:
    """Name what would make a folder, or one above it, a repository."""
    return [str(above / ".git") for above in (folder, *folder.parents)]


def _dirty(folder: Path, end: float) -> bool | None:
    scopes = _git(folder, end, *_FILTERS, done=(0, 1))
    if scopes is None or {"local", "worktree", "command"} & set(scopes.split("\0")[::2]):
        return None
    changed = _git(folder, end, *_STATUS)
    return None if changed is None else bool(changed)


def _git(folder: Path, end: float, *words: str, done: tuple[int, ...] = (0,)) -> str | None:
    """Return what git answers until a moment, or None where it cannot."""
    if folder in _slow:
        return None
    # A repository's own settings may name programs, also for what it has to fetch first.
    settings = ("core.fsmonitor=false", "core.hooksPath=/dev/null")
    switches = [word for setting in settings for word in ("-c", setting)]
    kept = ("PATH", "HOME", "SYSTEMROOT", "LANG", "XDG_CONFIG_HOME")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {"GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1"}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        asked = subprocess.run(  # noqa: S603 - our own words, no shell
            ["git", *switches, *words],  # noqa: S607 - the user's own git, wherever it is
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=max(0.0, end - time.monotonic()),
            check=False,
        )
    except subprocess.TimeoutExpired:
        _slow.add(folder)
        return None
    except (OSError, ValueError):
        return None
    return os.fsdecode(asked.stdout) if asked.returncode in done else None
