"""The code cells of a saved notebook, from its file.

Invariants: nothing of a notebook is executed or imported; a file that is no notebook is a `UsageError`; cells
are counted as the notebook shows them, text cells too.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kling_nb.commands.syntax.values import wrong
from kling_nb.errors import installed

__all__ = ["FORMATS", "SKIP", "Cell", "read_cells"]

FORMATS = (".ipynb", ".py", ".md")

#: The tag that keeps a cell from being run.
SKIP = "skip-execution"
_MARKER = re.compile(r"#\s*%%(?:\s+(.*))?")
_MAGIC = re.compile(r"#\s?(%{1,2}[A-Za-z_].*|!.*)")
_TAGS = re.compile(r"tags=(\[[^\]]*\])")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One code cell.

    Args:
        number: Its place among all cells, counted from 1.
        source: Its text.
        skipped: Whether a tag keeps it from being run.
    """

    number: int
    source: str
    skipped: bool = False


def read_cells(path: Path) -> list[Cell]:
    """Read the code cells of a notebook file.

    Args:
        path: A `.ipynb`, a `.py` in the percent format, or, where jupytext is installed, a `.md`.

    Returns:
        Its code cells, in order.

    Raises:
        UsageError: There is no such file, or it is not a notebook.
    """
    if path.suffix.lower() not in FORMATS:
        raise wrong("This is not a notebook.", f"A notebook ends in {', '.join(FORMATS)}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise wrong(f"{path.name} is not UTF-8 text.", "Save it as UTF-8.") from None
    except OSError as error:
        words = error.strerror or type(error).__name__
        raise wrong(f"{path} cannot be read: {words}.", "Name a notebook file.") from None
    if path.suffix.lower() == ".ipynb":
        return _json_cells(text, path.name)
    if path.suffix.lower() == ".py":
        return list(_percent_cells(text))
    jupytext = installed("jupytext", "Nothing was sent. Run `pip install jupytext`.")
    try:
        made = jupytext.reads(text, fmt={"extension": path.suffix.lower()})
    except Exception as error:  # noqa: BLE001 - a header of any kind is parsed there, and fails in its own ways
        raise wrong(
            f"{path.name} cannot be read as a notebook: {type(error).__name__}.", "Correct its header."
        ) from None
    return list(_made(made.cells))


def _json_cells(text: str, name: str) -> list[Cell]:
    try:
        data = json.loads(text)
        return list(_made(data["cells"] if data["nbformat"] == 4 else None))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise wrong(
            f"{name} is not a notebook in format 4.",
            "Open it in Jupyter and save it again, or name another one.",
        ) from None


def _made(cells: Any) -> Iterator[Cell]:
    for number, cell in enumerate(cells, start=1):
        if cell["cell_type"] != "code":
            continue
        source = cell["source"]
        tags = cell.get("metadata", {}).get("tags", ())
        text = source if isinstance(source, str) else "".join(source)
        yield Cell(number=number, source=text, skipped=SKIP in tags)


def _percent_cells(text: str) -> Iterator[Cell]:
    """Split a script in the percent format; what stands above the first mark is a cell too, if it is code."""
    number, head, lines = 0, "", list[str]()
    for line in [*text.splitlines(), "# %%"]:
        found = _MARKER.fullmatch(line)
        if found is None:
            lines.append(line)
            continue
        body = "\n".join(lines).strip("\n")
        code = number or any(row.strip() and not row.startswith("#") for row in lines)
        if number or (body and code):
            number = max(number, 1)
        if code and not re.search(r"\[(markdown|md|raw)\]|language=", head):
            tags = _TAGS.search(head)
            source = "\n".join(
                _MAGIC.sub(r"\1", row) if _MAGIC.fullmatch(row) else row for row in body.split("\n")
            )
            yield Cell(number=number, source=source, skipped=bool(tags and SKIP in tags[1]))
        number, head, lines = number + 1, found[1] or "", []
