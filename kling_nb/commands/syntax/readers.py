"""What stands after each flag of `%%kling`, read into its value.

Invariants: a flag has exactly one reader; what is wrong is a `UsageError` that names the flag; a dict of the
notebook's is taken only if it is exactly a dict, because another mapping may be the environment.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from kling_nb.addresses import check_callback
from kling_nb.commands.syntax.flags import Flag, find_flag
from kling_nb.commands.syntax.values import (
    check_text,
    identifier,
    read_count,
    read_json,
    read_money,
    read_number,
    read_seconds,
    shown,
    wrong,
)
from kling_nb.errors import did_you_mean
from kling_nb.records.request import OTHER_NAMES, TextToVideo, no_such_field
from kling_nb.sweeps.prompts import typed

__all__ = ["READERS"]

MAX_TAKES = 100
_TAG = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]{0,63})=(.{0,500})", re.DOTALL)
_CURE = "See `%kling help`."

Reader = Callable[[str, str, Mapping[str, Any]], Any]


def _text(flag: str, value: str, _names: Mapping[str, Any]) -> str:
    if not value.strip():
        raise wrong(f"{flag} is empty.", "Write something after it, or leave it out.")
    return value


def _choice(flag: str, value: str, _names: Mapping[str, Any]) -> str:
    row = cast("Flag", find_flag(flag))
    if value in row.choices:
        return value
    raise wrong(
        f"{flag} is one of {', '.join(row.choices)}, not {shown(value)}.",
        did_you_mean(value, row.choices, _CURE),
    )


def _takes(flag: str, value: str, _names: Mapping[str, Any]) -> int:
    return read_count(flag, value, low=1, high=MAX_TAKES)


def _take(flag: str, value: str, _names: Mapping[str, Any]) -> int:
    return read_count(flag, value, low=0, high=9999)


def _tag(flag: str, value: str, _names: Mapping[str, Any]) -> dict[str, str]:
    found = _TAG.fullmatch(value)
    if not found or not found[2].isprintable():
        raise wrong(f"{flag} is written KEY=VALUE, not {shown(value)}.", f"For example {flag} series=foxes.")
    return {found[1]: found[2]}


def _sweep(flag: str, value: str, _names: Mapping[str, Any]) -> dict[str, list[Any]]:
    name, sign, values = value.partition("=")
    cells = [cell.strip() for cell in values.split(",")]
    if not sign or identifier(name) is None or not all(cells):
        raise wrong(f"{flag} is written KEY=A,B, not {shown(value)}.", f"For example {flag} duration=5,10.")
    return {OTHER_NAMES.get(name, name): [typed(OTHER_NAMES.get(name, name), cell) for cell in cells]}


def _params(flag: str, value: str, names: Mapping[str, Any]) -> dict[str, Any]:
    params = _mapping(flag, value, names)
    unknown = [key for key in params if key not in TextToVideo.model_fields]
    if unknown:
        raise wrong(
            f"{flag} has unknown fields: {', '.join(map(shown, unknown))}.",
            f"{'; '.join(f'{shown(key)}: {no_such_field(key)}' for key in unknown[:5])}. "
            f"A request has {', '.join(TextToVideo.model_fields)}.",
        )
    return params


def _metadata(flag: str, value: str, names: Mapping[str, Any]) -> dict[str, Any]:
    data = _mapping(flag, value, names)
    try:
        # Through JSON and back: a copy that no later cell can change, of what can be written down at all.
        text = json.dumps(data, allow_nan=False, ensure_ascii=False)
        copy: dict[str, Any] = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        raise wrong(f"{flag} holds something that cannot be written as JSON.") from None
    check_text(text, flag)
    return copy


def _callback(flag: str, value: str, _names: Mapping[str, Any]) -> str:
    try:
        check_callback(value)
    except ValueError as error:
        raise wrong(f"{flag}: {error}.", _CURE) from None
    return value


def _mapping(flag: str, value: str, names: Mapping[str, Any]) -> dict[str, Any]:
    if not value.startswith("$"):
        return read_json(flag, value)
    name = identifier(value[1:])
    if name is None:
        raise wrong(f"{flag} takes JSON or $ and the name of a variable, not {shown(value)}.")
    if name not in names:
        raise wrong(
            f"{flag} names ${shown(name, quote=False)}, and there is no such variable.", "Define it first."
        )
    found = names[name]
    # Exactly a dict: another mapping may be the environment, with every key in it.
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise wrong(f"{flag} takes a dict with text as keys, and {name} is a {type(found).__name__}.", _CURE)
    return dict(found)


READERS: dict[str, Reader] = {
    "dest": lambda _flag, value, _names: value,
    "provider": _choice,
    "model": _text,
    "prompt_file": _text,
    "duration": lambda flag, value, _names: read_count(
        flag, value.removesuffix("s"), low=1, high=9999, unit="seconds"
    ),
    "aspect_ratio": _choice,
    "negative_prompt": _text,
    "cfg_scale": lambda flag, value, _names: float(read_number(flag, value, high=1)),
    "shot_type": _choice,
    "params": _params,
    "sweep": _sweep,
    "takes": _takes,
    "take": _take,
    "max_cost": lambda flag, value, _names: read_money(flag, value),
    "price": lambda flag, value, _names: read_money(flag, value, zero=False),
    "dry_run_as": _choice,
    "embed": _choice,
    "timeout_s": lambda flag, value, _names: read_seconds(flag, value),
    "tags": _tag,
    "metadata": _metadata,
    "callback_url": _callback,
}
