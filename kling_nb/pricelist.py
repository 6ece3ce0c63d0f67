"""Everything that anybody says a model costs: the list, files of the user's, his own bills, a provider now.

Invariants: looking changes no price; what a provider's catalog row says is shown and never counted with,
because a base price does not say for which settings it holds; unknown stays unknown.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from kling_nb.config.settings import Settings
from kling_nb.pricing.catalog import Model, Offer, Price, models
from kling_nb.pricing.estimate import LearnedPrice
from kling_nb.pricing.price_file import in_force
from kling_nb.providers.base import Listing

__all__ = ["PriceRow", "compared", "price_rows"]

#: Gives what was learned for a provider, a model of ours and with or without sound.
Learn = Callable[[str, str, bool], LearnedPrice | None]


@dataclass(frozen=True, kw_only=True)
class PriceRow:
    """What is known of one model at one provider, silent or with sound.

    Args:
        model: Our id.
        provider: Its name.
        audio: With or without sound.
        best: What an estimate counts with, or None where nobody knows.
        others: What else is stated, and outranked.
        held_usd_per_s: What is held back for a second of video, in dollars.
    """

    model: str
    provider: str
    audio: bool
    best: Price | LearnedPrice | None
    others: tuple[Price, ...]
    held_usd_per_s: Decimal


def price_rows(settings: Settings, learn: Learn) -> list[PriceRow]:
    """Gather every known price.

    Args:
        settings: Whose files count.
        learn: Reads the user's own bills.

    Returns:
        A row for each model, provider and sound, in the order of the catalog.

    Example:
        >>> rows = price_rows(Settings(), lambda provider, model, audio: None)
        >>> rows[1].provider, rows[1].audio, rows[1].best, str(rows[1].held_usd_per_s)
        ('runflow', True, None, '0.168')
    """
    return [
        _row(in_force(model, settings.prices), settings, name, learn, audio=audio)
        for model in models().values()
        for name in model.providers
        for audio in (False, True)
    ]


def _row(model: Model, settings: Settings, provider: str, learn: Learn, *, audio: bool) -> PriceRow:
    offer = model.offer(provider)
    stated = offer.price(audio=audio)
    learned = None if provider == "sandbox" else learn(provider, model.id, audio)
    best: Price | LearnedPrice | None = learned or stated
    where = (model.id, provider, audio)
    given = [one.price for one in settings.prices if (one.model, one.provider, one.audio) == where]
    every = [*given, offer.listed(audio=audio)]
    known = [price.usd_per_s for price in (best, stated) if price is not None]
    return PriceRow(
        model=model.id,
        provider=provider,
        audio=audio,
        best=best,
        others=tuple(price for price in every if price is not None and price != best),
        held_usd_per_s=max(known, default=model.dearest_usd_per_s()),
    )


def compared(listing: Listing, offer: Offer) -> str:
    """Say how a provider's catalog row stands beside our list.

    Args:
        listing: What the provider says now.
        offer: What our list and files say.

    Returns:
        A few words.

    Example:
        >>> from kling_nb.pricing.catalog import find_model
        >>> compared(Listing(base_usd="0.112", unit="second"), find_model("pro").offer("runcomfy"))
        'the same as the price here, silent'
    """
    if listing.base_usd is None:
        return "states no price"
    if not listing.per_second:
        return "not a price per second: cannot be compared"
    base = Decimal(listing.base_usd)
    known = {name: offer.usd_per_s(audio=audio) for name, audio in (("silent", False), ("with sound", True))}
    same = [name for name, price in known.items() if price == base]
    if same:
        return f"the same as the price here, {' and '.join(same)}"
    told = [f"${price:f} {name}" for name, price in known.items() if price is not None]
    return f"**differs**: here it is {' and '.join(told) or 'unknown'}"
