"""Runflow's `input`: a request in its words, and its words read back into ours.

Invariants: sound and duration are always written; what is read back keeps what it does not understand, so
that whoever builds a request of it is told.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from kling_nb.providers.base import optional_input
from kling_nb.providers.parsing import say
from kling_nb.records.request import TextToVideo

__all__ = ["read_input", "write_input"]


def write_input(request: TextToVideo) -> dict[str, Any]:
    """Write a request as an `input`."""
    body: dict[str, Any] = {}
    if request.shots:
        # Runflow documents the list and not its rows. This is our own reading of it: the names it uses
        # for a whole clip, and the duration as a string as there.
        body["multi_prompt"] = [{"prompt": s.prompt, "duration": str(s.duration)} for s in request.shots]
    else:
        body["prompt"] = request.prompt
    body |= {
        "aspect_ratio": request.aspect_ratio,
        "generate_audio": request.audio,
        "duration": str(request.duration),
    }
    return body | optional_input(request)


def read_input(given: object) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Read an `input` back into our names, and name what has no place there."""
    if not isinstance(given, Mapping):
        return {}, ()
    unread = {name: value for name, value in given.items() if value is not None}
    known: dict[str, Any] = {
        name: unread.pop(name)
        for name in ("prompt", "aspect_ratio", "negative_prompt", "shot_type")
        if name in unread
    }
    if "generate_audio" in unread:
        known["audio"] = unread.pop("generate_audio")
    if "duration" in unread:
        known["duration"] = _seconds(unread.pop("duration"))
    if "cfg_scale" in unread:
        scale = unread.pop("cfg_scale")
        known["cfg_scale"] = float(scale) if isinstance(scale, Decimal | int) else scale
    shots = unread.pop("multi_prompt", None)
    if isinstance(shots, list) and shots:
        known["shots"] = [
            {"prompt": shot.get("prompt"), "duration": _seconds(shot.get("duration"))}
            if isinstance(shot, Mapping)
            else shot
            for shot in shots
        ]
        if not known.get("prompt"):
            known.pop("prompt", None)
    return known, tuple(sorted(say(name, limit=40) for name in unread))


def _seconds(value: object) -> object:
    """Give seconds as a number; Runflow writes them as text."""
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 4 else value
