"""Variables in a `%kling` line: `$name` and `{name}`, as IPython puts them into the line of other magics.

Invariants: only plain names are looked up, and nothing is run for them; what names no variable stays.
"""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

__all__ = ["fill_word"]

# A doubled sign is none of ours: `{{name}}` is filled in where a prompt is read.
_NAME = re.compile(r"(?<!\$)\$([^\W\d]\w*)|(?<!\{)\{([^\W\d]\w*)\}(?!\})")


def fill_word(word: str, names: Mapping[str, Any]) -> str:
    """Put variables into one word of a line.

    Args:
        word: As typed.
        names: The notebook's variables.

    Returns:
        The word with text, numbers and paths filled in. A word that is a variable of another kind becomes its
        bare name, by which runs are found.

    Example:
        >>> fill_word("$scene-{n}", {"scene": "dawn", "n": 3}), fill_word("$fox", {"fox": []})
        ('dawn-3', 'fox')
    """
    if (whole := _NAME.fullmatch(word)) and (name := whole[1] or whole[2]) in names:
        return _text(names[name]) or name

    def put(found: re.Match[str]) -> str:
        value = names.get(found[1] or found[2])
        return found[0] if _text(value) is None else str(_text(value))

    return _NAME.sub(put, word)


def _text(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float | PurePath):
        return None
    return str(value)
