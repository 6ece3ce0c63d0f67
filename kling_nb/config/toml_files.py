"""The two files that may hold settings: the user's own `config.toml` and a project's `pyproject.toml`.

Invariants: a file that is there but cannot be read is an error, never the same as no file; a file with
keys that others can read is refused; no message and no repr holds a value of a file, because a key may
stand on the wrong line; numbers with a point are `Decimal`, because they are money.
"""

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import platformdirs

from kling_nb.errors import SettingsError
from kling_nb.files import read_plain

__all__ = ["APP", "ProjectTable", "UserFile", "default_user_file", "find_project", "read_user_file"]

APP = "kling_nb"
_MOST_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class UserFile:
    """What stands in the user's own file.

    Args:
        path: Where it is, or would be.
        settings: Settings by name.
        keys: Keys by provider name; never shown.
    """

    path: Path
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class ProjectTable:
    """The `[tool.kling_nb]` of the nearest `pyproject.toml` that has one.

    Args:
        path: The file.
        settings: Settings by name.
    """

    path: Path
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)


def default_user_file() -> Path:
    """Give the place of the user's own file, e.g. `~/.config/kling_nb/config.toml` on Linux."""
    return _user_file(*map(os.environ.get, _HOMES))


#: What the place of the user's own file depends on, by system.
_HOMES = ("XDG_CONFIG_HOME", "HOME", "LOCALAPPDATA", "USERPROFILE")


@lru_cache(maxsize=4)
def _user_file(*_homes: str | None) -> Path:
    return platformdirs.user_config_path(APP, appauthor=False) / "config.toml"


def read_user_file(path: Path | None = None) -> UserFile:
    """Read the user's own file.

    Args:
        path: The file; by default `default_user_file()`.

    Returns:
        Its content; empty where there is no such file.

    Raises:
        SettingsError: It cannot be read, is no TOML, or holds keys and others may read it.

    Example:
        >>> dict(read_user_file(Path("no-such-file.toml")).settings)
        {}
    """
    path = path or default_user_file()
    raw, mode = _read(path)
    table = _parse(raw, path) if raw else {}
    keys = table.pop("keys", {})
    keys = _HiddenTable(keys) if isinstance(keys, dict) else None
    if keys is None or not all(isinstance(value, str) for value in keys.values()):
        raise SettingsError(
            f"[keys] in {path} is not a table of texts.", cure='Write one line a provider: runflow = "...".'
        )
    if keys and os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError(
            f"{path} holds keys, and other users of this machine can open it.",
            cure=f"Run `chmod 600 {path}`, and renew the keys if the machine is shared.",
        )
    return UserFile(path=path, settings=table, keys=keys)


def find_project(start: Path) -> ProjectTable | None:
    """Find the nearest `pyproject.toml` with a `[tool.kling_nb]`, from a folder upwards.

    Args:
        start: The folder of the notebook, or the working folder.

    Returns:
        The table, or None where there is none.

    Raises:
        SettingsError: A file on the way cannot be read, or names this package and is no TOML.
    """
    for folder in (start, *start.parents):
        path = folder / "pyproject.toml"
        raw, _ = _read(path)
        # A broken file of somebody else's business must not stop anybody here.
        if APP.encode() not in raw:
            continue
        tool = _parse(raw, path).get("tool", {})
        if isinstance(tool, dict) and APP in tool:
            if not isinstance(tool[APP], dict):
                raise SettingsError(f"tool.{APP} in {path} is not a table.", cure="Correct the file.")
            return ProjectTable(path=path, settings=tool[APP])
    return None


class _HiddenText(bytes):
    """The content of a file that may hold keys: a traceback that draws variables does not show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<hidden>"


class _HiddenTable(dict[str, Any]):
    """Keys by provider, hidden in the same way."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<hidden>"


def _read(path: Path) -> tuple[bytes, int]:
    try:
        # Most files that are looked for are not there.
        mode = path.stat().st_mode
        raw = read_plain(path, _MOST_BYTES)
        if raw is not None:
            return _HiddenText(raw), mode
        reason = f"it is larger than {_MOST_BYTES >> 20} MB"
    except (FileNotFoundError, NotADirectoryError):
        return b"", 0
    except OSError as error:
        reason = error.strerror or type(error).__name__
    raise SettingsError(
        f"{path} cannot be read ({reason}).", cure="Correct its access rights, or move it away."
    )


def _parse(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(raw.decode("utf-8-sig"), parse_float=Decimal)
    except UnicodeDecodeError:
        where = "it is not UTF-8"
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        # The parser's own words can repeat a piece of the line.
        line = re.search(r"at line (\d+)", str(error))
        where = f"line {line[1]}" if line else "its end"
    raise SettingsError(f"{path} is not valid TOML: see {where}.", cure="Correct it, or move it away.")
