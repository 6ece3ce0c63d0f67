"""The body of a cell as a prompt, as a storyboard, or as a prompt above a storyboard.

Invariants: a line is a shot if and only if it begins with whole seconds in brackets; no line is ever dropped
or joined to another shot; what only looks like a shot is an error, because a wrong guess costs money.
"""

import re
from typing import Any

from kling_nb.commands.syntax.values import shown, wrong

__all__ = ["read_storyboard"]

_SHOT = re.compile(r"\[\s*(\d{1,3})\s*s\s*\](.*)", re.ASCII | re.DOTALL)

# Seconds in brackets that are not written as a shot is: [2.5s], [5 sec], [05S], [-1s].
_NEARLY = re.compile(r"\[\s*[+-]?\d[\d.,]*\s*(?:s|secs?|seconds?)\.?\s*\]", re.ASCII | re.IGNORECASE)
_CURE = "Write one shot a line, whole seconds first: `[5s] Wide view of a vineyard`."


def read_storyboard(text: str) -> dict[str, Any]:
    r"""Read a body.

    Args:
        text: The body, with its line ends as LF.

    Returns:
        `prompt`, `shots`, or both where there is text above the first shot; empty for an empty body.

    Raises:
        UsageError: A line nearly is a shot, has no seconds though shots stand above it, or has no words.

    Example:
        >>> read_storyboard("[5s] A vineyard\n[3s] Two hands")["shots"][1]
        {'prompt': 'Two hands', 'duration': 3}
    """
    above: list[str] = []
    shots: list[dict[str, Any]] = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        found = _SHOT.fullmatch(line)
        if found is None and (nearly := _NEARLY.match(line)):
            raise wrong(f"Line {number} of the prompt begins with {shown(nearly[0])}.", _CURE)
        if found is not None:
            words = found[2].strip()
            if not words:
                raise wrong(f"Line {number} of the prompt has seconds but no words.", _CURE)
            shots.append({"prompt": words, "duration": int(found[1])})
        elif not shots:
            above.append(raw)
        elif line:
            raise wrong(
                f"Line {number} of the prompt has no [seconds], although shots stand above it.", _CURE
            )
    prompt = "\n".join(above).strip()
    return ({"prompt": prompt} if prompt else {}) | ({"shots": shots} if shots else {})
