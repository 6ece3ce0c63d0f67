"""The text of a cell: where it comes from, and the variables in it.

Invariants: everything is literal but `{{name}}`; only str, int and float are filled in, so that no object
and no expression can put its insides into a prompt; a file is read whole or not at all.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kling_nb.commands.syntax.values import check_text, identifier, shown, wrong
from kling_nb.errors import UsageError

__all__ = ["fill_in", "read_text"]

MAX_FILE_BYTES = 64 * 1024
_NAME = re.compile(r"\{\{([^{}]*)\}\}")


def read_text(body: str, file: str | None, folder: Path) -> str:
    """Give the text of a cell, from below its line or from a file.

    Args:
        body: What stands below the line.
        file: What `--file` names, if it does.
        folder: What a relative name is relative to.

    Returns:
        The text with line ends as LF.

    Raises:
        UsageError: There are two texts, or the file cannot be read.

    Example:
        >>> read_text("A red fox", None, Path())
        'A red fox'
    """
    if file is None:
        return body.replace("\r\n", "\n")
    if body.strip():
        raise wrong("There is a prompt below the line and one in --file.", "Leave one out.")
    try:
        path = folder / Path(file).expanduser()
        if not path.is_file():
            raise wrong(f"--file: there is no file {shown(file)}.", f"It is looked for in {folder}.")
        with path.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise wrong(
                f"--file: {shown(file)} is larger than {MAX_FILE_BYTES // 1024} KiB.", "A prompt is shorter."
            )
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UsageError:
        raise
    except UnicodeDecodeError:
        raise wrong(f"--file: {shown(file)} is not UTF-8 text.", "Save it as UTF-8.") from None
    except (OSError, ValueError, RuntimeError) as error:
        words = getattr(error, "strerror", None) or type(error).__name__
        raise wrong(f"--file: {shown(file)} cannot be read: {words}.", "Correct the path.") from None


def fill_in(text: str, names: Mapping[str, Any]) -> str:
    """Put variables in for `{{name}}`; what they hold is not looked at again.

    Args:
        text: The text of a cell.
        names: The notebook's variables.

    Returns:
        The text as it will be sent.

    Raises:
        UsageError: A name is unknown, or holds no str, int or float.

    Example:
        >>> fill_in("A {{colour}} fox {here}", {"colour": "red"})
        'A red fox {here}'
    """

    def put(found: re.Match[str]) -> str:
        name = identifier(found[1].strip())
        if name is None:
            raise wrong(
                f"{{{{{shown(found[1], quote=False)}}}}} in the prompt is not the name of a variable.",
                "Only plain names are filled in; a variable may hold double braces of your own.",
            )
        if name not in names:
            raise wrong(
                f"{{{{{shown(name, quote=False)}}}}} in the prompt: there is no such variable.",
                "Define it first.",
            )
        value = names[name]
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise wrong(
                f"{{{{{name}}}}} in the prompt is a {type(value).__name__}.",
                "It must be a str, int or float.",
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise wrong(f"{{{{{name}}}}} in the prompt is not a finite number.")
        try:
            # The plain content, also of an Enum or another subclass that writes itself differently.
            kind = next(kind for kind in (str, int, float) if isinstance(value, kind))
            return kind.__str__(value) if kind is str else kind.__repr__(value)
        except ValueError:
            raise wrong(f"{{{{{name}}}}} in the prompt is too long a number.") from None

    rendered = _NAME.sub(put, text)
    check_text(rendered, "the prompt")
    return rendered
