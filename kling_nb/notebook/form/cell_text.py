r"""A call written as the text of a `%%kling` cell.

Invariants: what is given back was read again and means the same call, take for take; what a cell cannot say
is an error in words and never a cell that says something else.
"""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kling_nb.commands.syntax.cell import parse_cell
from kling_nb.commands.syntax.cell_source import shield
from kling_nb.commands.syntax.flags import find_flag
from kling_nb.errors import KlingError, UsageError
from kling_nb.records.request import TextToVideo
from kling_nb.session.plan import Ask

__all__ = ["as_cell"]

_LINE_FLAGS = {
    "aspect_ratio": "--ar",
    "negative_prompt": "--negative",
    "cfg_scale": "--cfg",
    "shot_type": "--shot-type",
}

_SWITCHES = {
    "allow_unpriced": "--allow-unpriced",
    "no_cache": "--no-cache",
    "cached_only": "--cached-only",
    "retry": "--retry",
    "private": "--private",
}


def as_cell(ask: Ask, dest: str | None = None) -> str:
    """Write a call as a cell.

    Args:
        ask: The call.
        dest: The variable that the cell binds.

    Returns:
        The whole cell. Words that its body or its line cannot hold as they are stand in `--params` as JSON.

    Raises:
        UsageError: No cell means exactly this call.

    Example:
        >>> print(as_cell(Ask(request=TextToVideo(prompt="A red fox", duration=3)), "fox"))
        %%kling fox -d 3
        A red fox
    """
    why = "it would be read differently"
    for sure in (False, True):
        line, body = _write(ask, dest, sure=sure)
        try:
            if _means(line, body, ask):
                return f"{_head(line)}\n{body}"
        except KlingError as error:
            why = error.what
    raise UsageError(f"This cannot be written as a cell: {why.rstrip('.')}.", cure="Use `form.submit()`.")


def _means(line: str, body: str, ask: Ask) -> bool:
    """Whether the cell is read as this call."""
    read = shield(f"{_head(line)}\n{body}\n".splitlines(keepends=True))
    if read != [f"get_ipython().run_cell_magic('kling', {line!r}, {body + chr(10)!r})\n"]:
        return False
    return replace(parse_cell(line, body + "\n", {}, folder=Path()).ask, earlier=()) == ask


def _head(line: str) -> str:
    return f"%%kling {line}".rstrip()


def _write(ask: Ask, dest: str | None, *, sure: bool) -> tuple[str, str]:
    """Write line and body; `sure` puts every text where nothing is read into it."""
    request = ask.request
    params: dict[str, Any] = {}
    words = [dest] if dest else []
    words += _where(ask)
    if not request.shots and request.duration != TextToVideo.model_fields["duration"].default:
        words += ["-d", str(request.duration)]
    for name, flag in _LINE_FLAGS.items():
        value = getattr(request, name)
        if value == TextToVideo.model_fields[name].default:
            continue
        if sure or not _plain(value):
            params[name] = value
        else:
            words += [flag, shlex.quote(str(value))]
    if request.audio:
        words.append("--audio")
    body = _body(request)
    if sure:
        body = ""
        params |= request.model_dump(mode="json", include={"prompt", "shots"}, exclude_none=True)
    if params:
        words += ["--params", _json(params)]
    words += _options(ask)
    return " ".join(words), body


def _where(ask: Ask) -> Iterator[str]:
    if ask.provider is not None:
        yield from ("-p", shlex.quote(ask.provider))
    if ask.model is not None:
        yield from ("-m", shlex.quote(ask.model))


def _options(ask: Ask) -> Iterator[str]:
    if ask.takes != (0,):
        counted = ask.takes == tuple(range(len(ask.takes)))
        # Another set of takes is written as the nearest one, and then found to mean something else.
        yield from ("-n", str(len(ask.takes))) if counted else ("--take", str(ask.takes[0]))
    for name, flag in (("max_cost", "--max-cost"), ("price", "--price")):
        if (amount := getattr(ask, name)) is not None:
            yield from (flag, f"{amount:f}")
    yield from (flag for name, flag in _SWITCHES.items() if getattr(ask, name))
    for key, value in ask.tags.items():
        yield from ("--tag", shlex.quote(f"{key}={value}"))
    if ask.metadata:
        yield from ("--metadata", _json(ask.metadata))
    if ask.callback_url:
        yield from ("--callback-url", shlex.quote(ask.callback_url))


def _plain(value: object) -> bool:
    """Whether a value can stand on the line as it is: no number that is cut, no second line, no flag."""
    text = str(value)
    return text.isprintable() and "<<" not in text and not text.startswith("-") and find_flag(text) is None


def _json(data: Mapping[str, Any]) -> str:
    # Every sign beyond ASCII is an escape, so that the line stays one line wherever it is pasted.
    return shlex.quote(json.dumps(dict(data), default=str))


def _body(request: TextToVideo) -> str:
    shots = [f"[{shot.duration}s] {shot.prompt}" for shot in request.shots or ()]
    return "\n".join([*([request.prompt] if request.prompt is not None else []), *shots])
