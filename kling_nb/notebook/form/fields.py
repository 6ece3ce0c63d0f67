"""What a form has inputs for, read off the request model and the flags; and what was put into them, read.

Invariants: every field of the request model has an input, also one that is added tomorrow; what is there is
kept as it is, right or wrong, and words say what is wrong with it; no widget is known here.
"""

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from kling_nb.commands.syntax.cell import parse_request
from kling_nb.commands.syntax.flags import FLAGS
from kling_nb.commands.syntax.values import check_text
from kling_nb.errors import KlingError, UsageError
from kling_nb.records.request import TextToVideo, make_request, problems_of
from kling_nb.session.plan import Ask

__all__ = ["OPTIONS", "Field", "Reading", "blank", "fields_of", "inputs_of", "read", "shown_as"]

Kind = Literal["text", "whole", "number", "choice", "switch", "rows", "line", "pairs"]
_LIMITS = ("ge", "le", "max_length")

#: Names that say more than the field's own, and two that people know under another one.
_LABELS = {"aspect_ratio": "Aspect ratio", "cfg_scale": "Prompt strength", "audio": "Sound", "takes": "Takes"}


@dataclass(frozen=True, kw_only=True)
class Field:
    """One input of a form.

    Args:
        name: Of the field it fills.
        kind: What is put in: a text, a whole number, a number, one of `choices`, yes or no, rows of further
            fields, one line, or a line for each KEY=VALUE.
        label: For people.
        help: One line.
        default: What it holds at first.
        optional: Whether it may be left empty.
        low: The least, for numbers.
        high: The most, for numbers.
        chars: Characters at most, for texts.
        choices: What there is to choose from.
        rows: Rows at most.
        columns: The fields of a row.
    """

    name: str
    kind: Kind
    label: str
    help: str = ""
    default: Any = None
    optional: bool = False
    low: float | None = None
    high: float | None = None
    chars: int | None = None
    choices: tuple[str, ...] = ()
    rows: int | None = None
    columns: tuple["Field", ...] = ()


def fields_of(model: type[BaseModel]) -> tuple[Field, ...]:
    """Read the inputs that a request model needs.

    Args:
        model: The model; each field's type and limits say what its input is.

    Returns:
        One entry a field, in order; a type that nobody thought of becomes a line of text.

    Example:
        >>> [(found.name, found.kind) for found in fields_of(TextToVideo)][:3]
        [('prompt', 'text'), ('shots', 'rows'), ('duration', 'whole')]
    """
    return tuple(_field(name, info) for name, info in model.model_fields.items())


def _field(name: str, info: Any) -> Field:
    annotation, optional = _unwrapped(info.annotation)
    limits = {name: getattr(m, name) for m in info.metadata for name in _LIMITS if hasattr(m, name)}
    kinds: dict[type, Kind] = {bool: "switch", int: "whole", float: "number", str: "text"}
    kind: Kind = kinds.get(annotation, "line")
    made = Field(
        name=name,
        kind=kind,
        label=_LABELS.get(name, name.replace("_", " ").capitalize()),
        help=info.description or "",
        default=None if info.is_required() else info.default,
        optional=optional,
        low=limits.get("ge"),
        high=limits.get("le"),
    )
    most = limits.get("max_length")
    if get_origin(annotation) is Literal:
        return replace(made, kind="choice", choices=tuple(map(str, get_args(annotation))))
    row = next((part for part in get_args(annotation) if _is_model(part)), None)
    if row is not None:
        return replace(made, kind="rows", rows=most, columns=fields_of(row))
    return replace(made, chars=most)


def _unwrapped(annotation: Any) -> tuple[Any, bool]:
    """Take `| None` off a type."""
    if get_origin(annotation) not in {Union, types.UnionType}:
        return annotation, False
    parts = [part for part in get_args(annotation) if part is not type(None)]
    return (parts[0] if len(parts) == 1 else annotation), len(parts) < len(get_args(annotation))


def _is_model(part: object) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)


def _option(name: str, kind: Kind, label: str, default: Any = None, words: str = "") -> Field:
    # An input has room for a few words only; a box to tick says in full what it means.
    words = words or next(flag.help for flag in FLAGS if flag.name == name)
    label = label or words.capitalize()
    return Field(name=name, kind=kind, label=label, help=words, default=default, optional=True)


#: What a call has beside its request, with the words of the flags.
OPTIONS: tuple[Field, ...] = (
    _option("takes", "whole", "Takes", 1),
    _option("take", "line", "Only take", "", "one take alone, counted from 0"),
    _option("tags", "pairs", "Tags", ""),
    _option("max_cost", "line", "Max cost", "", "dollars, for all takes together"),
    _option("price", "line", "Price per second", "", "dollars, where none is known"),
    _option("metadata", "line", "Metadata", "", "JSON, sent along to Runflow"),
    _option("callback_url", "line", "Callback", "", "address that Runflow calls at the end"),
    _option("allow_unpriced", "switch", "", default=False),
    _option("no_cache", "switch", "", default=False),
    _option("retry", "switch", "", default=False),
    _option("private", "switch", "Private: only the provider gets the words", default=False),
)

_SPELLING = {"tags": "--tag", "max_cost": "--max-cost", "price": "--price", "metadata": "--metadata"} | {
    "callback_url": "--callback-url"
}


def inputs_of(model: type[BaseModel] = TextToVideo) -> tuple[Field, ...]:
    """Give every input of a form: of the request, then of the call."""
    return fields_of(model) + OPTIONS


def blank(model: type[BaseModel] = TextToVideo) -> dict[str, Any]:
    """Give what an untouched form holds: what its inputs show, by name.

    Example:
        >>> blank()["duration"], blank()["prompt"]
        (5, '')
    """
    values = {found.name: shown_as(found, found.default) for found in inputs_of(model)}
    return {"provider": "", "model": "", "storyboard": False, "beside": "", **values}


def shown_as(of: Field, value: Any) -> Any:
    """Write a value as its input shows it; an empty text stands for one that is not set.

    Args:
        of: The input.
        value: The value, None for not set.
    """
    if of.kind == "rows":
        return [dict(row) if isinstance(row, Mapping) else row.model_dump() for row in value or ()]
    if of.kind == "switch":
        return bool(value)
    if of.kind == "whole" and value is not None:
        return value
    return "" if value is None else value if isinstance(value, str) else str(value)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a form holds, read.

    Args:
        ask: The call, where nothing is wrong.
        problems: What is wrong, in words, by the name of the input; `shots.2.prompt` for a row's.
        fields: Of the request, as far as they could be read.
    """

    ask: Ask | None = None
    problems: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)


def read(values: Mapping[str, Any], model: type[BaseModel] = TextToVideo) -> Reading:
    """Read what a form holds.

    Args:
        values: By the name of the input, as `blank` gives them.
        model: The request model.

    Returns:
        The call, or what is wrong with it.

    Example:
        >>> read(blank() | {"prompt": "A red fox"}).ask.request.prompt
        'A red fox'
        >>> read(blank()).problems
        {'prompt': 'is missing; write a prompt or shots'}
    """
    given, problems = _request(values, model)
    for name, words in problems_of(given, model).items():
        problems.setdefault(name, words)
    for name, text in _texts(given):
        try:
            check_text(text, f"the {name.partition('.')[0]}")
        except UsageError as error:
            problems[name] = f"{error.what} {error.cure}"
    options = _options(values, problems)
    if problems:
        return Reading(problems=problems, fields=given)
    try:
        return Reading(ask=Ask(request=make_request(**given), **options), fields=given)
    except UsageError as error:
        return Reading(problems={"": error.what}, fields=given)


def _request(values: Mapping[str, Any], model: type[BaseModel]) -> tuple[dict[str, Any], dict[str, str]]:
    given: dict[str, Any] = {}
    problems: dict[str, str] = {}
    board = bool(values.get("storyboard"))
    for of in fields_of(model):
        value = values.get(of.name)
        if of.name == "prompt" and board:
            value = values.get("beside")
        if (of.kind == "rows" and not board) or (board and of.name == "duration"):
            continue
        try:
            given[of.name] = _value(of, value)
        except ValueError:
            problems[of.name] = "must be a whole number" if of.kind == "whole" else "must be a number"
    if board:
        # Without any the message would ask for a prompt.
        given["shots"] = given.get("shots") or ()
    return {name: value for name, value in given.items() if value is not None}, problems


def _value(of: Field, value: Any) -> Any:
    if of.kind == "rows":
        return [{c.name: _value(c, row.get(c.name)) for c in of.columns} for row in value or ()] or None
    if isinstance(value, str) and of.kind != "text":
        value = value.strip()
    if value in ("", None):
        return "" if of.kind == "text" and not of.optional else None
    if isinstance(value, str) and of.kind in {"whole", "number"}:
        return int(value) if of.kind == "whole" else float(value)
    return value


def _texts(given: Mapping[str, Any], where: str = "") -> Sequence[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in given.items():
        if isinstance(value, str):
            found.append((where + name, value))
        elif isinstance(value, list | tuple):
            for number, row in enumerate(value, 1):
                found += _texts(row, f"{name}.{number}.")
    return found


def _options(values: Mapping[str, Any], problems: dict[str, str]) -> dict[str, Any]:
    """Read what a call has beside its request, exactly as the flags are read."""
    options: dict[str, Any] = {name: values.get(name) or None for name in ("provider", "model")}
    options |= {o.name: bool(values.get(o.name)) for o in OPTIONS if o.kind == "switch"}
    for name, flag in _SPELLING.items():
        words = [line.strip() for line in str(values.get(name) or "").split("\n") if line.strip()]
        found = _flag(name, [part for word in words for part in (flag, word)], problems)
        if name in found:
            options[name] = found[name]
    only = str(values.get("take") or "").strip()
    count = _flag("takes", ["-n", str(values.get("takes"))], problems).get("takes", 1)
    take = _flag("take", ["--take", only] if only else [], problems).get("take")
    if take is not None and count != 1:
        problems["take"] = "write a number of takes or one take, not both"
    return {**options, "takes": (take,) if take is not None else tuple(range(count))}


def _flag(name: str, words: list[str], problems: dict[str, str]) -> dict[str, Any]:
    try:
        return parse_request(words, "", {}, folder=Path())[1]
    except KlingError as error:
        problems[name] = error.what
        return {}
