"""The prices that a person writes into a file: the user's own, and a project's.

Invariants: an amount is decimal text or digits, never a float; an error names the place and never repeats a
value; a project's price only ever raises what is known or reserved, and makes no unknown price a known one,
because its file may be a stranger's.

In the user's own file:

    [prices.runflow."kling-3.0-pro"]
    silent = "0.112"
    audio = "0.20"
    as_of = 2026-11-01
    source = "contract"

In a project, the same below `[tool.kling_nb.prices...]`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from kling_nb.errors import SettingsError, UsageError
from kling_nb.pricing.catalog import Model, Price, PriceKind, find_model
from kling_nb.records.base import Given, faults
from kling_nb.records.money import per_second

__all__ = ["GivenPrice", "PriceRow", "check_row", "in_force", "project_notes", "read_prices"]

_AMOUNT = re.compile(r"[0-9]{1,4}(\.[0-9]{1,9})?")
_MAX_USD_PER_S = 1000
_PROVIDERS = ("runflow", "runcomfy")
_SOUNDS: tuple[tuple[Literal["silent", "audio"], bool], ...] = (("silent", False), ("audio", True))

_CURE = 'Write it as in [prices.runflow."kling-3.0-pro"] with silent = "0.112" and as_of = 2026-11-01.'


@dataclass(frozen=True, kw_only=True)
class GivenPrice:
    """One price from a file.

    Args:
        provider: `runflow` or `runcomfy`.
        model: Our id of the model.
        audio: With or without sound.
        price: The price.
    """

    provider: str
    model: str
    audio: bool
    price: Price


def _amount(value: object) -> Decimal:
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        value = f"{value:f}" if isinstance(value, Decimal) else str(value)
    if not isinstance(value, str) or not _AMOUNT.fullmatch(value.strip()):
        raise ValueError('must be decimal dollars per second, such as "0.112"')
    amount = Decimal(value.strip())
    if not 0 < amount <= _MAX_USD_PER_S:
        raise ValueError("must be dollars per second, above 0 and at most 1000")
    return amount


def _day(value: object) -> date:
    # Not pydantic's own reading, which takes a number for seconds since 1970.
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value.strip())
        except ValueError:
            value = None
    if type(value) is not date:
        raise ValueError("must be a day such as 2026-11-01")
    return value


def _line(value: object) -> object:
    if isinstance(value, str) and not value.isprintable():
        raise ValueError("must be one line of text")
    return value.strip() if isinstance(value, str) else value


_Amount = Annotated[Decimal, BeforeValidator(_amount)]


class PriceRow(Given):
    """Prices as a person writes them down.

    Args:
        silent: Dollars per second without sound.
        audio: Dollars per second with sound.
        as_of: The day of the prices.
        source: Where they stand.
    """

    silent: _Amount | None = None
    audio: _Amount | None = None
    as_of: Annotated[date, BeforeValidator(_day)]
    source: Annotated[str, BeforeValidator(_line), Field(max_length=80)] = ""


def read_prices(table: object, place: str, kind: PriceKind) -> tuple[GivenPrice, ...]:
    """Read one file's `prices`.

    Args:
        table: What stands there; None for nothing.
        place: The file, for messages.
        kind: `own` or `project`.

    Returns:
        The prices, in the order of the file.

    Raises:
        SettingsError: Something is wrong; the first fault is told, without its value.

    Example:
        >>> row = {"silent": "0.10", "as_of": "2026-11-01"}
        >>> [found] = read_prices({"runflow": {"pro": row}}, "config.toml", "own")
        >>> found.model, str(found.price.usd_per_s)
        ('kling-3.0-pro', '0.10')
    """
    found: dict[tuple[str, str, bool], GivenPrice] = {}
    for provider, rows in _tables(table, "prices", place):
        if provider not in _PROVIDERS:
            raise SettingsError(
                f"A name below prices in {place} is not a provider with prices of its own.",
                cure=f"Name {' or '.join(_PROVIDERS)}; the sandbox is play money.",
            )
        for name, content in _tables(rows, f"prices.{provider}", place):
            model = _model(name, provider, place)
            row = check_row(PriceRow, content, f"prices.{provider}.{model.id}", place)
            for sound, audio in _SOUNDS:
                amount = getattr(row, sound)
                if amount is None:
                    continue
                if (provider, model.id, audio) in found:
                    raise SettingsError(
                        f"prices.{provider}.{model.id}.{sound} stands twice in {place}.",
                        cure="An alias is the same model: leave one out.",
                    )
                price = Price(usd_per_s=amount, source=row.source, as_of=row.as_of, kind=kind)
                found[provider, model.id, audio] = GivenPrice(
                    provider=provider, model=model.id, audio=audio, price=price
                )
    return tuple(found.values())


def _tables(table: object, name: str, place: str) -> Iterable[tuple[str, Any]]:
    if table is None:
        return ()
    if not isinstance(table, Mapping):
        raise SettingsError(f"{name} in {place} must be a table.", cure=_CURE)
    return table.items()


def _model(name: str, provider: str, place: str) -> Model:
    try:
        model = find_model(name)
        model.offer(provider)
    except UsageError as error:
        cure = error.cure
    else:
        return model
    # Out here, so that no chained traceback carries the name: a key may stand on the wrong line.
    raise SettingsError(
        f"A name below prices.{provider} in {place} is not a model that {provider} offers.", cure=cure
    )


Row = TypeVar("Row", bound=BaseModel)


def check_row(kind: type[Row], content: object, name: str, place: str) -> Row:
    """Check one table of a file.

    Args:
        kind: What it should be.
        content: What stands there.
        name: How its place is called, e.g. `prices.runflow.kling-3.0-pro`.
        place: The file.

    Returns:
        The checked table.

    Raises:
        SettingsError: Something is wrong; the first fault is told, without its value.
    """
    try:
        row = kind.model_validate(content)
    except ValidationError as error:
        fields = ", ".join(kind.model_fields)
        own = {"extra_forbidden": f"is none of {fields}", "model_type": f"must be a table with {fields}"}
        own["string_type"] = "must be a text"
        at, _, words = faults(error, own)[0]
        known = bool(at) and at[0] in kind.model_fields
        field = f".{at[0]}" if known else ""
        what = "A name below" if at and not known else ""
    else:
        if not isinstance(row, PriceRow) or row.silent is not None or row.audio is not None:
            return row
        field, words, what = "", "has neither silent nor audio", ""
    raise SettingsError(f"{what} {name}{field} in {place} {words}.".lstrip(), cure=_CURE)


def in_force(model: Model, given: Iterable[GivenPrice]) -> Model:
    """Give a model with the prices that are in force: the user's own before the list, a project's if higher.

    Where nobody states a price, a project's leaves it unknown, so that it still needs `--allow-unpriced`;
    only what is then held back may rise by it.

    Args:
        model: From the catalog.
        given: Prices of files.

    Returns:
        The model; the same one where no file says anything of it.

    Example:
        >>> in_force(find_model("pro"), ()) is find_model("pro")
        True
    """
    mine = [one for one in given if one.model == model.id]
    for kind in ("own", "project"):
        for one in mine:
            if one.price.kind == kind:
                model = _with(model, one)
    return model


def _with(model: Model, one: GivenPrice) -> Model:
    offer = model.offer(one.provider)
    known, given = offer.usd_per_s(audio=one.audio), one.price.usd_per_s
    silent, audio = offer.stated
    changed: dict[str, Any] = {"stated": (silent, one.price) if one.audio else (one.price, audio)}
    if one.price.kind == "project":
        if known is None:
            changed = {"held": max(given, offer.held or given)}
        elif given <= known:
            return model
    offers = model.providers | {one.provider: offer.model_copy(update=changed)}
    return model.model_copy(update={"providers": offers})


def project_notes(given: Iterable[GivenPrice]) -> list[str]:
    """Say which prices of a project have no effect, one line each.

    Args:
        given: Prices of all files.

    Example:
        >>> project_notes(())
        []
    """
    every = list(given)
    notes = []
    for one in every:
        model = in_force(find_model(one.model), every)
        price = model.offer(one.provider).price(audio=one.audio)
        if one.price.kind != "project" or price == one.price:
            continue
        sound = "with sound" if one.audio else "silent"
        if price is None:
            if one.price.usd_per_s >= model.highest_usd_per_s():
                continue
            why = f"none is known, and {per_second(model.highest_usd_per_s())} is reserved"
        elif price.usd_per_s == one.price.usd_per_s:
            continue
        else:
            why = f"a project only raises a price, and {per_second(price.usd_per_s)} is known"
        notes.append(f"The project's price of {one.model} {sound} at {one.provider} has no effect: {why}.")
    return notes
