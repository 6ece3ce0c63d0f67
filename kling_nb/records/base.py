"""What every record stands on: frozen models, moments in UTC, and plain words for what a model refuses."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

__all__ = ["Fact", "Fault", "Given", "Line", "Record", "bare", "faults", "holding", "utc_now"]

T = TypeVar("T", bound="Record")


def _to_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def _line(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("must be one line of text")
    return value.strip()


Moment = Annotated[AwareDatetime, AfterValidator(_to_utc)]
Line = Annotated[str, AfterValidator(_line)]


def utc_now() -> datetime:
    """Give the time now, in UTC, to the millisecond."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


class Record(BaseModel):
    """A value: never changed, only replaced; fields that it does not know are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        # What is as it is by default is not worth a reader's time.
        for name, value in super().__repr_args__():
            field = type(self).model_fields.get(name or "")
            if field is None or value != field.get_default(call_default_factory=True):
                yield name, value

    def __str__(self) -> str:
        return repr(self)


@cache
def _fields(kind: type[Record]) -> set[str]:
    return set(kind.model_fields)


def bare(kind: type[T], values: dict[str, Any]) -> T:
    """Make a record of values for all of its fields, which are not checked.

    Args:
        kind: Of the record.
        values: By field.

    Example:
        >>> class Point(Record):
        ...     x: int
        >>> bare(Point, {"x": 2})
        Point(x=2)
    """
    new = kind.__new__(kind)
    # What `model_construct` does, in a fifth of the time; a set of its own would be as large as the values.
    object.__setattr__(new, "__dict__", values)
    object.__setattr__(new, "__pydantic_fields_set__", _fields(kind))
    for name in ("extra", "private"):
        object.__setattr__(new, f"__pydantic_{name}__", None)
    return new


def holding(record: T, values: Mapping[str, Any]) -> T:
    """Give a copy of a record with other values in some fields, which are not checked.

    Args:
        record: As it is.
        values: By field.

    Example:
        >>> class Point(Record):
        ...     x: int
        >>> holding(Point(x=1), {"x": 2})
        Point(x=2)
    """
    return bare(type(record), {**record.__dict__, **values})


class Fact(Record):
    """A value that anybody may have written down: every type is exact, and an error repeats no input."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)


class Given(Record):
    """A value that a person writes by hand: an unknown field is an error, and an error repeats no input."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


_WORDS = {
    "missing": "is missing",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be 1 or 0",
    "string_type": "must be text",
    "string_unicode": "holds half a character (a lone surrogate), which no provider can read",
    "string_too_long": "must have at most {max_length:,} characters",
    "too_long": "must be at most {max_length} items, not {actual_length}",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
}


class Fault(NamedTuple):
    """One thing that a model refuses: its place, pydantic's name of the kind, and words without the value."""

    place: tuple[int | str, ...]
    kind: str
    words: str


def faults(
    error: ValidationError, own: Mapping[str, str] | None = None, *, given: bool = False
) -> list[Fault]:
    """Say in plain words what a model refuses.

    Args:
        error: What pydantic says.
        own: Words that this model has for some kinds.
        given: Whether the value is repeated where it is short; for a value that is no secret.

    Example:
        >>> class Take(Given):
        ...     number: int
        >>> try:
        ...     Take(number=1.5)
        ... except ValidationError as error:
        ...     faults(error)
        [Fault(place=('number',), kind='int_from_float', words='must be a whole number')]
    """
    words = _WORDS | dict(own or {})
    return [
        Fault(one["loc"], one["type"], _say(one, words) + (_given(one) if given else ""))
        for one in error.errors(include_url=False, include_input=given)
    ]


def _say(fault: ErrorDetails, words: Mapping[str, str]) -> str:
    if fault["type"] in words:
        return words[fault["type"]].format_map(fault.get("ctx", {}))
    return fault["msg"].removeprefix("Value error, ").replace("Input should", "must")


def _given(fault: ErrorDetails) -> str:
    value, kind = fault["input"], fault["type"]
    if kind == "string_too_long":
        return f", not {len(value):,}"
    if kind not in _WORDS or kind in {"missing", "string_unicode", "too_long"}:
        return ""
    plain = isinstance(value, str | int | float) and len(str(value)) <= 40
    return f", not {value!r}" if plain else f", not {type(value).__name__}"
