"""The models that a person adds in the user's own file: a new one needs no new release.

Invariants: a name belongs to one model, and the list's names are taken; an error names the place and never
repeats a value; only the user's own file adds models, because an id decides what a paid call buys.

    [models."kling-4.0-pro"]
    label = "Kling 4.0 Pro"
    aliases = ["k4"]

    [models."kling-4.0-pro".runcomfy]
    id = "kling/kling-4.0/pro/text-to-video"
    silent = "0.20"
    audio = "0.30"
    as_of = 2026-11-20
    source = "RunComfy's model page"

What it can do is taken to be what Kling 3.0 can: so many shots, such lengths.
"""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from kling_nb.errors import SettingsError
from kling_nb.pricing.catalog import DEFAULT_MODEL, Model, Offer, Price, shipped
from kling_nb.pricing.price_file import PriceRow, check_row
from kling_nb.records.base import Given, Line

__all__ = ["read_models"]

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_PROVIDER_ID = re.compile(rf"(?=.{{1,200}}$){_PART}(/{_PART})*")
_CURE = 'See "Models of your own" in the documentation.'


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("must be small letters, digits, points and hyphens")
    return value


def _provider_id(value: str) -> str:
    if not _PROVIDER_ID.fullmatch(value):
        raise ValueError("must be the provider's id, such as kling/kling-4.0/pro/text-to-video")
    return value


class _OfferRow(PriceRow):
    id: Annotated[str, AfterValidator(_provider_id)]


class _ModelRow(Given):
    label: Annotated[Line, Field(max_length=80)]
    aliases: tuple[Annotated[str, AfterValidator(_name)], ...] = ()
    runflow: dict[str, object] | None = None
    runcomfy: dict[str, object] | None = None


def read_models(table: object, place: str) -> tuple[Model, ...]:
    """Read the `models` of the user's own file.

    Args:
        table: What stands there; None for nothing.
        place: The file, for messages.

    Returns:
        The models, in the order of the file.

    Raises:
        SettingsError: Something is wrong; the first fault is told, without its value.

    Example:
        >>> row = {"id": "kling/four", "silent": "0.20", "as_of": "2026-11-20"}
        >>> [own] = read_models({"kling-4.0": {"label": "Kling 4.0", "runcomfy": row}}, "config.toml")
        >>> str(own.offer("runcomfy").usd_per_s(audio=False))
        '0.20'
    """
    if table is None:
        return ()
    if not isinstance(table, Mapping):
        raise SettingsError(f"models in {place} must be a table.", cure=_CURE)
    taken = {name for model in shipped().values() for name in _names(model)}
    own = []
    for name, content in table.items():
        if not _NAME.fullmatch(name):
            raise SettingsError(
                f"A name below models in {place} must be small letters, digits, points and hyphens.",
                cure=_CURE,
            )
        model = _model(name, check_row(_ModelRow, content, f"models.{name}", place), place)
        if clash := taken.intersection(_names(model)):
            raise SettingsError(
                f"models.{name} in {place} has a name that another model has: {min(clash)}.",
                cure="Give it another; prices of known models go below [prices].",
            )
        taken |= _names(model)
        own.append(model)
    return tuple(own)


def _names(model: Model) -> set[str]:
    return {model.id, *model.aliases, *(offer.id for offer in model.providers.values())}


def _model(name: str, row: _ModelRow, place: str) -> Model:
    offers = {
        provider: _offer(check_row(_OfferRow, content, f"models.{name}.{provider}", place))
        for provider, content in (("runflow", row.runflow), ("runcomfy", row.runcomfy))
        if content is not None
    }
    if not offers:
        raise SettingsError(
            f"models.{name} in {place} names no provider.",
            cure=f'Say where it is to be had: [models."{name}".runcomfy] with id, a price and as_of.',
        )
    like = shipped()[DEFAULT_MODEL]
    return like.model_copy(
        update={"id": name, "label": row.label, "aliases": row.aliases, "providers": offers}
    )


def _offer(row: _OfferRow) -> Offer:
    silent, audio = (
        None if amount is None else Price(usd_per_s=amount, source=row.source, as_of=row.as_of, kind="own")
        for amount in (row.silent, row.audio)
    )
    return Offer(id=row.id, source=row.source or "your own price", as_of=row.as_of, stated=(silent, audio))
