"""Every setting that one place may give: its name, its type, its limits.

Invariants: what one place says is checked as a whole, before places are weighed against each other; no
message repeats a value, because a password or key may have been put under the wrong name; money is
`Decimal` from its text on.
"""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from yarl import URL

from kling_nb.addresses import Origin, is_loopback, origin_of
from kling_nb.errors import SettingsError, UsageError
from kling_nb.pricing.catalog import find_model
from kling_nb.records.run import Mode

__all__ = ["Options", "ProviderName", "check_options"]

ProviderName = Literal["auto", "runflow", "runcomfy", "sandbox"]
_MAX_USD = 1_000_000_000
_DOLLARS = re.compile(r"[0-9]+(\.[0-9]+)?")

_WORDS = {
    "bool_parsing": "must be 1 or 0",
    "bool_type": "must be true or false",
    "extra_forbidden": "is no setting of kling_nb",
    "float_parsing": "must be a number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "string_type": "must be a text",
    "tuple_type": "must be a list of origins, or one text with commas",
}


def _dollars(value: object) -> Decimal:
    if isinstance(value, float):
        # The shortest text of a float is what its author typed; nothing is computed with the float itself.
        value = repr(value)
    if isinstance(value, str) and _DOLLARS.fullmatch(value.strip()):
        value = Decimal(value.strip())
    elif isinstance(value, int) and not isinstance(value, bool):
        value = Decimal(value)
    if not isinstance(value, Decimal) or not value.is_finite() or not 0 <= value <= _MAX_USD:
        raise ValueError("must be dollars such as 2.50, from 0 to 1,000,000,000")
    return value


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic reports only ValueError
    return value


def _line(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("must be one line of text")
    return value.strip()


def _model(value: str) -> str:
    try:
        return find_model(value).id
    except UsageError as error:
        known = error.cure.removeprefix("Choose ").rstrip(".")
    raise ValueError(f"must be {known}")


def _folder(value: str) -> str:
    if "://" in value:
        raise ValueError("must be a folder of this machine")
    return value


def _address(value: str) -> str:
    origin = origin_of(value)
    url = URL(value)
    if "?" in value or "#" in value:
        raise ValueError("must be an address without a query or a fragment")
    if origin.scheme != "https" and not is_loopback(value):
        raise ValueError("must begin with https; plain http is for this machine only")
    path = url.raw_path.rstrip("/")
    if path.endswith("/v1"):
        raise ValueError("must be the address without /v1")
    return _spell(origin) + path


def _origin(value: str) -> str:
    text = _address(value)
    if text != _spell(origin_of(text)):
        raise ValueError("must be origins such as https://proxy.example.org, without a path")
    return text


def _spell(origin: Origin) -> str:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    usual = origin.port == {"https": 443, "http": 80}[origin.scheme]
    return f"{origin.scheme}://{host}" + ("" if usual else f":{origin.port}")


def _split(value: object) -> object:
    return tuple(p for part in value.split(",") if (p := part.strip())) if isinstance(value, str) else value


_Dollars = Annotated[Decimal, BeforeValidator(_dollars)]
_Line = Annotated[str, AfterValidator(_line)]
_Address = Annotated[_Line, AfterValidator(_address)]


class Options(BaseModel):
    """What one place says; None where it says nothing.

    Args:
        provider: Where runs go unless a call says otherwise.
        model: Our id of the model; an alias or a provider's id is turned into it.
        budget: Dollars for one session.
        project_daily: Dollars for one project and UTC day.
        user_daily: Dollars for one user and UTC day.
        user_total: Dollars for one user for ever.
        yes: Consent to headless spending under the caps.
        cached_only: Never send.
        ledger: A path or a database address.
        media: A folder.
        runflow_url: Base address without `/v1`.
        runcomfy_url: Base address without `/v1`.
        max_in_flight: Runs in flight for one account, 1 to 100.
        sandbox_wait: A multiplier of every simulated wait, 0 to 100.
        project: The name that `project_daily` counts under, at most 100 characters.
        notify: Whether the page tells when a run has ended.
        embed: What of a clip goes into its card: auto, always, never or poster.
        allow_origin: Further origins that a key may go to; a text may hold several, with commas.

    Example:
        >>> Options(budget="2.50", model="pro").model
        'kling-3.0-pro'
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    provider: ProviderName | None = None
    model: Annotated[str, AfterValidator(_model)] | None = None
    budget: _Dollars | None = None
    project_daily: _Dollars | None = None
    user_daily: _Dollars | None = None
    user_total: _Dollars | None = None
    yes: bool | None = None
    cached_only: bool | None = None
    ledger: _Line | None = Field(default=None, repr=False)
    media: Annotated[_Line, AfterValidator(_folder)] | None = None
    runflow_url: _Address | None = None
    runcomfy_url: _Address | None = None
    max_in_flight: Annotated[int, BeforeValidator(_number), Field(ge=1, le=100)] | None = None
    sandbox_wait: Annotated[float, BeforeValidator(_number), Field(ge=0, le=100)] | None = None
    project: Annotated[_Line, Field(max_length=100)] | None = None
    notify: bool | None = None
    embed: Mode | None = None
    allow_origin: (
        Annotated[tuple[Annotated[_Line, AfterValidator(_origin)], ...], BeforeValidator(_split)] | None
    ) = None


def check_options(values: Mapping[str, Any], called: Callable[[str], str]) -> Options:
    """Check what one place says.

    Args:
        values: Settings by name.
        called: Gives a setting's name as its user wrote it there, e.g. `KLING_NB_BUDGET`.

    Returns:
        The checked options.

    Raises:
        SettingsError: Something is wrong; the first fault is told, without its value.

    Example:
        >>> check_options({"budget": 5}, str).budget
        Decimal('5')
    """
    try:
        return Options.model_validate(dict(values))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        words = _WORDS.get(fault["type"], fault["msg"]).removeprefix("Value error, ")
    name = str(fault["loc"][0]) if fault["loc"] else ""
    # Below: not inside the handler, so that no chained traceback carries the value.
    raise SettingsError(
        f"{called(name)} {words.replace('Input should', 'must')}.", cure="Correct it or remove it."
    )
