"""The prompts of a sweep, read: a list, a column or a table, or a file of them.

Invariants: what is wrong is one line that names the row, and refuses all; every cell has a value; a table
is known by its shape, so that pandas is never imported here; a file is read whole or not at all.
"""

import csv
import io
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kling_nb.errors import UsageError
from kling_nb.records.request import TextToVideo

__all__ = ["SUITES", "Row", "plain", "read_options", "read_rows", "refused", "typed"]

#: Prompt suites whose own files are read: rows with `prompt_en` and `dimension`.
SUITES = ("vbench", "vbench2")

#: Endings of files that hold a prompt a line; of any other file each line would be bought as a prompt.
_TEXT_FILES = frozenset({"", ".txt", ".text", ".md"})

#: Columns whose texts in a CSV file stand for something else.
_NOT_TEXT = frozenset({"audio", "cfg_scale", "duration", "shots"})


@dataclass(frozen=True)
class Row:
    """One row.

    Args:
        number: Its place, from 1; of a file without its header.
        columns: Its values by name; `prompt` is what is sent.

    Example:
        >>> Row(1, {"prompt": "A red fox"}).number
        1
    """

    number: int
    columns: dict[str, Any]


def refused(what: str, row: int | None = None, cure: str = "") -> UsageError:
    """Make the error of a sweep that is not to be sent."""
    where = "" if row is None else f"Row {row}: "
    return UsageError(f"{where}{what}", cure=f"Nothing was sent. {cure}".strip())


def read_rows(prompts: Any = None, *, file: str | Path | None = None, suite: str | None = None) -> list[Row]:
    r"""Read the prompts of a sweep.

    Args:
        prompts: Texts, pairs of a short and a long text, objects with columns, requests, or a column or
            table of pandas or polars; a `Path` is a file.
        file: CSV with a header, JSON (lines, or one array), or else a text file with a prompt a line.
        suite: `vbench` or `vbench2`, whose own list `file` is.

    Returns:
        Rows.

    Raises:
        UsageError: A row is none, or the file cannot be read.

    Example:
        >>> read_rows(["A red fox", ("A hare", "A hare, soft rim light")])[1].columns
        {'prompt_original': 'A hare', 'prompt': 'A hare, soft rim light'}
    """
    if isinstance(prompts, Path):
        prompts, file = (None, prompts) if file is None else (prompts, file)
    if (prompts is None) == (file is None):
        raise refused("Give the prompts as a list or as file=, and not both.")
    if suite is not None and (suite not in SUITES or file is None):
        raise refused(
            f"suite: is {' or '.join(SUITES)}, with file= the suite's own list.",
            cure="Its repository has the list, e.g. VBench_full_info.json; nothing is downloaded.",
        )
    found = _numbered(prompts) if file is None else _read_file(Path(file).expanduser(), suite)
    rows = [Row(number, _columns(item, number, suite)) for number, item in found]
    rows = [row for row in rows if row.columns.pop("suite", suite) == suite] if suite else rows
    if not rows:
        raise refused("There are no prompts.", cure="Give at least one.")
    return rows


def _a(value: Any) -> str:
    """Name what kind of value this is, with its article."""
    name = type(value).__name__
    return name if value is None else f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def plain(value: Any) -> Any:
    """Give a value of Python's own for one of numpy or pandas; None for what is missing, also NaN."""
    if type(value).__name__ in {"NAType", "NaTType"}:
        return None
    value = value.item() if hasattr(value, "item") and not getattr(value, "shape", ()) else value
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124 - NaN alone differs


def _numbered(given: Any) -> list[tuple[int, Any]]:
    if hasattr(given, "columns"):
        given = given.to_dict("records") if hasattr(given, "iloc") else given.to_dicts()
    elif hasattr(given, "tolist"):
        given = given.tolist()
    elif hasattr(given, "to_list"):
        given = given.to_list()
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise refused(
            f"prompts: should be a list, a column or a table, not {_a(given)}.",
            cure="Give a file as file=.",
        )
    return list(enumerate(given, 1))


def _columns(item: Any, number: int, suite: str | None) -> dict[str, Any]:
    if isinstance(item, TextToVideo):
        item = item.model_dump(mode="json", exclude_unset=True)
    if isinstance(item, tuple | list) and len(item) == 2:
        item = {"prompt_original": item[0], "prompt": item[1]}
    if not isinstance(item, Mapping):
        item = {"prompt": item}
    if suite is not None:
        named = item.get("dimension") or ()
        tags = ",".join(named) if isinstance(named, list) else named
        item = {"prompt": item.get("prompt_en"), "suite": item.get("suite", suite), "dimension": tags or "-"}
    columns = {str(name): plain(value) for name, value in item.items()}
    for name, value in columns.items():
        if value is None or (isinstance(value, str) and not value.strip()):
            raise refused(f"{name} is empty.", number, "Fill it in, or drop the row.")
    if "prompt" not in columns and "shots" not in columns:
        raise refused(
            f"there is no column `prompt`, only {', '.join(columns)}.",
            number,
            "Rename the column that has the prompts.",
        )
    for name in ("prompt", "prompt_original"):
        if not isinstance(columns.get(name, ""), str):
            raise refused(f"{name} should be text, not {_a(columns[name])}.", number)
    return columns


def read_options(path: Path) -> dict[str, Any]:
    """Read the options of a sweep from a file: a TOML file has them by name, any other has its prompts.

    Args:
        path: The file. A `file` that a TOML file names is looked for beside it.

    Returns:
        Options of `kling.sweep`.

    Raises:
        UsageError: It cannot be read.
    """
    if path.suffix.lower() != ".toml":
        return {"file": path}
    try:
        options = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise refused(f"{path.name} cannot be read: {error}.", cure="Correct it.") from None
    return options | ({"file": path.parent / str(options["file"])} if "file" in options else {})


# -- files -----------------------------------------------------------------------------------------
def _read_file(path: Path, suite: str | None) -> list[tuple[int, Any]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        why = f"The file {path.name or path} cannot be read: {error.strerror}."
        raise refused(why, cure="Correct the path.") from None
    kind = "json" if suite else path.suffix.lower()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + (0 if kind == ".csv" else 1)
        raise refused(
            f"{path.name} is not UTF-8 text (byte 0x{content[error.start]:02x}).",
            row or None,
            "Save it as UTF-8.",
        ) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if kind == ".csv":
        return _read_csv(text)
    if kind in {"json", ".json", ".jsonl", ".ndjson"}:
        if text.lstrip().startswith("["):
            return list(enumerate(_json(text, None), 1))
        return [(n, _json(line, n)) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if kind not in _TEXT_FILES:
        raise refused(
            f"{path.name}: a file of prompts ends in .csv, .jsonl, .json or .txt.",
            cure="`kling-nb sweep` takes a TOML file." if kind == ".toml" else "Save it as one of these.",
        )
    return [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]


def _json(text: str, number: int | None) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise refused("this is not JSON.", number, "Write one text or object a line, or one array.") from None


def _read_csv(text: str) -> list[tuple[int, Any]]:
    found, number = [], 0
    try:
        for cells in (lines := csv.DictReader(io.StringIO(text, newline=""), strict=True)):
            number += 1
            if None in cells or None in cells.values():
                cells_there = len(lines.fieldnames or ())
                raise refused(f"it should have {cells_there} cells, as the header has.", number)
            found.append((number, {name: typed(name, cell) for name, cell in cells.items()}))
    except csv.Error as error:
        raise refused(f"this is not CSV: {error}.", number + 1) from None
    return found


def typed(name: str, cell: str) -> Any:
    """Read what is no text in a request, e.g. a duration; what cannot be read is refused with the request.

    Example:
        >>> typed("duration", "5"), typed("audio", "True"), typed("aspect_ratio", "16:9")
        (5, True, '16:9')
    """
    if name not in _NOT_TEXT:
        return cell
    try:
        return json.loads(cell.lower() if name != "shots" else cell)
    except ValueError:
        return cell
