"""Models and prices, read from `catalog.toml`, and the models that the user's own file adds.

Invariants: a price is a decimal with a source and a date, or it is unknown; what a file of the user's says
stands beside the list and never replaces it; an alias names one model, and the list's come first.
"""

import tomllib
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Literal

from kling_nb.errors import UnsupportedError, UsageError
from kling_nb.records.base import Given
from kling_nb.records.provenance import Terms
from kling_nb.records.request import TextToVideo

__all__ = [
    "DEFAULT_MODEL",
    "Model",
    "Offer",
    "Price",
    "PriceKind",
    "add_own",
    "find_model",
    "models",
    "provider_label",
    "provider_site",
    "shipped",
]

DEFAULT_MODEL = "kling-3.0-pro"


PriceKind = Literal["list", "own", "project"]


class Price(Given):
    """One price that somebody states.

    Args:
        usd_per_s: Dollars per second of video.
        source: Where it stands; empty where its author does not say.
        as_of: Its date.
        kind: `list` for the catalog, `own` for the user's file, `project` for a project's.

    Example:
        >>> find_model("pro").offer("runcomfy").price(audio=True).usd_per_s
        Decimal('0.168')
    """

    usd_per_s: Decimal
    source: str
    as_of: date
    kind: PriceKind = "list"


class Offer(Given):
    """What one provider offers a model for.

    Args:
        id: The provider's id of the model.
        shot_types: The kinds of `shot_type` it takes; empty where its page names none, and none is refused.
        usd_per_s_silent: Dollars per second without sound, or None for unknown.
        usd_per_s_audio: Dollars per second with sound, or None for unknown.
        source: Where the price stands.
        as_of: The date of the price.
        stated: What outranks the listed price, silent and with sound; None where nothing does.
        held: Dollars per second that a project wants held back where no price is known, at least.
        terms: What the provider's page says a clip may be used for; None where nobody wrote it down.

    Example:
        >>> find_model("pro").providers["runflow"].usd_per_s(audio=True) is None
        True
    """

    id: str
    shot_types: tuple[str, ...] = ()
    usd_per_s_silent: Decimal | None = None
    usd_per_s_audio: Decimal | None = None
    source: str
    as_of: date
    stated: tuple[Price | None, Price | None] = (None, None)
    held: Decimal | None = None
    terms: Terms | None = None

    def listed(self, *, audio: bool) -> Price | None:
        """Give the price of the list, or None for unknown."""
        amount = self.usd_per_s_audio if audio else self.usd_per_s_silent
        return None if amount is None else Price(usd_per_s=amount, source=self.source, as_of=self.as_of)

    def price(self, *, audio: bool) -> Price | None:
        """Give the price that is in force, or None for unknown."""
        return self.stated[audio] or self.listed(audio=audio)

    def usd_per_s(self, *, audio: bool) -> Decimal | None:
        """Give the price per second of video in dollars, or None for unknown."""
        price = self.price(audio=audio)
        return None if price is None else price.usd_per_s


class Model(Given):
    """One model and who offers it.

    Args:
        id: Our id.
        label: For people.
        aliases: Short names.
        max_shots: Shots in a storyboard, at most.
        prompt_chars: Characters in a prompt, at most.
        shot_chars: Characters in one shot, at most.
        durations_s: Shortest and longest clip in whole seconds.
        aspect_ratios: Width to height.
        providers: Offers by provider name.
        typical_s: Seconds that most clips take to be made, where nothing else is known.

    Example:
        >>> find_model("4k").label
        'Kling 3.0 4K'
    """

    id: str
    label: str
    aliases: tuple[str, ...] = ()
    max_shots: int
    prompt_chars: int
    shot_chars: int
    durations_s: tuple[int, int]
    aspect_ratios: tuple[str, ...]
    providers: dict[str, Offer]
    #: What third parties report for Kling 3.0 Pro (APIMart's blog, read 2026-11-21).
    typical_s: tuple[float, float] = (90.0, 200.0)

    def offer(self, provider: str) -> Offer:
        """Give this provider's offer.

        Raises:
            UnsupportedError: The provider does not have the model.
        """
        try:
            return self.providers[provider]
        except KeyError:
            raise UnsupportedError(
                f"{provider} does not offer {self.id}.",
                cure=f"It is offered by {', '.join(sorted(self.providers))}; see `%kling models`.",
                provider=provider,
            ) from None

    def check(self, request: TextToVideo, provider: str) -> None:
        """Refuse what this provider's own page says that the model does not take.

        Raises:
            UnsupportedError: The provider does not have the model, or not with this `shot_type`.
        """
        taken = self.offer(provider).shot_types
        if taken and request.shot_type not in {None, *taken}:
            raise UnsupportedError(
                f"{provider_label(provider)} takes {self.label} with shot_type {' or '.join(taken)} only, "
                f"not {request.shot_type}.",
                cure="Nothing was sent. Leave shot_type out, or name another provider or model.",
                provider=provider,
            )

    def highest_usd_per_s(self) -> Decimal:
        """Give the highest price anybody is known to ask for this model, in dollars per second."""
        offers = self.providers.values()
        prices = [
            price for o in offers for price in (o.usd_per_s(audio=False), o.usd_per_s(audio=True), o.held)
        ]
        return max(price for price in prices if price is not None)


@cache
def shipped() -> dict[str, Model]:
    """Give every model of the list by our id."""
    table = tomllib.loads(files("kling_nb.pricing").joinpath("catalog.toml").read_text(encoding="utf-8"))
    return {model_id: Model.model_validate({"id": model_id, **entry}) for model_id, entry in table.items()}


_own: dict[str, Model] = {}


def add_own(own: Iterable[Model]) -> None:
    """Let the catalog of this process hold what the user's own file adds, and no longer what it added."""
    global _own  # noqa: PLW0603 - there is one user's own file, and one catalog, in a process
    _own = {model.id: model for model in own}


def models() -> dict[str, Model]:
    """Give every model by our id: the list's, then the user's own."""
    return {**shipped(), **_own}


def find_model(name: str) -> Model:
    """Find a model by our id, an alias or a provider's id.

    Args:
        name: e.g. `pro`, `kling-3.0-pro` or `kling/kling-3.0/pro/text-to-video`.

    Returns:
        The model.

    Raises:
        UsageError: Nobody knows the name.

    Example:
        >>> find_model("pro").id
        'kling-3.0-pro'
    """
    for model in models().values():
        if name in {model.id, *model.aliases, *(offer.id for offer in model.providers.values())}:
            return model
    known = ", ".join(f"{m.id} ({', '.join(m.aliases)})" for m in models().values())
    raise UsageError(f"There is no model {name!r}.", cure=f"Choose one of {known}.")


_LABELS = {"runcomfy": "RunComfy"}

#: The providers' own public sites, by their documentation; neither documents a page of past runs.
_SITES = {"runflow": "https://runflow.io", "runcomfy": "https://www.runcomfy.com"}


def provider_label(name: str) -> str:
    """Give a provider's name as people write it.

    Example:
        >>> provider_label("runcomfy")
        'RunComfy'
    """
    return _LABELS.get(name, name.capitalize())


def provider_site(name: str) -> str:
    """Give the address of a provider's own public site, where its runs can be looked for; '' for none.

    Example:
        >>> provider_site("runcomfy")
        'https://www.runcomfy.com'
    """
    return _SITES.get(name, "")
