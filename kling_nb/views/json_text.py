"""A JSON document for a terminal or a pipe."""

import json
import re
from typing import Any

__all__ = ["json_text"]


def json_text(value: Any, encoding: str) -> str:
    r"""Write a value as JSON that no terminal can misread.

    What turns a terminal's colours or its reading direction, or what it has no letter for, is escaped.

    Args:
        value: Plain data; what is none is written as text.
        encoding: Of the stream that it goes to.

    Example:
        >>> json_text("a\x1b[1m\u72d0", "ascii")
        '"a\\u001b[1m\\u72d0"'
    """

    def written(sign: re.Match[str]) -> str:
        letter = sign[0]
        shown = letter.isprintable() and letter.encode(encoding, "ignore")
        return letter if shown else json.dumps(letter)[1:-1]

    return re.sub(r"[^\n -~]", written, json.dumps(value, indent=2, default=str, ensure_ascii=False))
