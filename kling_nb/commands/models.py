"""Everything that anybody says a model costs: the list, files of the user's, his own bills, a provider now.

Invariants: looking changes no price; what a provider's catalog row says is shown and never counted with,
because a base price does not say for which settings it holds; unknown stays unknown.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from kling_nb.commands.answer import Answer, answer
from kling_nb.commands.order import CommandCall
from kling_nb.config.keys import KEY_VARIABLES
from kling_nb.config.settings import Settings, provider_origin
from kling_nb.errors import KeyMissingError, KlingError, one_line
from kling_nb.pricing.catalog import Model, Offer, Price, find_model, models, provider_label
from kling_nb.pricing.estimate import LearnedPrice, best_price, learn_price, price_words
from kling_nb.providers import make_provider
from kling_nb.providers.base import Listing
from kling_nb.records.money import per_second, usd_of
from kling_nb.views.html import Html, join, prose, tag
from kling_nb.views.tables import filled

if TYPE_CHECKING:
    from datetime import date

    from kling_nb.network.client import Transport
    from kling_nb.session.session import Session
    from kling_nb.views.tables import Part

__all__ = ["PriceRow", "compared", "model_list", "price_rows", "whole_days"]

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
        held_usd_per_s: What is reserved for a second of video, in dollars.
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
        _row(settings.priced_model(model.id), settings, name, learn, audio=audio)
        for model in models().values()
        for name in model.providers
        for audio in (False, True)
    ]


def _row(model: Model, settings: Settings, provider: str, learn: Learn, *, audio: bool) -> PriceRow:
    offer = model.offer(provider)
    stated = offer.price(audio=audio)
    learned = None if provider == "sandbox" else learn(provider, model.id, audio)
    best = best_price(learned, stated)
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
        held_usd_per_s=max(known, default=model.highest_usd_per_s()),
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
    note = [f"{usd_of(price)} {name}" for name, price in known.items() if price is not None]
    return f"**differs**: here it is {' and '.join(note) or 'unknown'}"


_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_HEADS = ["model", "provider", "silent", "with sound", "from", "outranked"]
_ALIGN = "llrrww"

_WHAT = (
    "Dollars per second of video. What a provider billed outranks what is stated, and the highest of them is "
    "reserved. The sandbox uses RunComfy's list prices."
)

_NAMES = ["model", "also", "provider", "its id there"]
_LIVE = ["model", "base price", "unit", "note", "compared with the price here"]


def model_list(call: CommandCall) -> Answer:
    """Show models, who offers them, and every price that anybody states."""
    session = call.session
    settings, today = session.settings(), session.today()

    def learn(provider: str, model: str, audio: bool) -> LearnedPrice | None:  # noqa: FBT001 - the shape of Learn
        origin = provider_origin(settings, provider)
        return learn_price(session.ledger().bills(provider, model, origin=origin, audio=audio))

    rows = price_rows(settings, learn)
    pairs = [pair for pair in zip(rows[::2], rows[1::2], strict=True) if pair[0].provider != "sandbox"]
    cells = [list(map(whole_days, _cells(*pair, today))) for pair in pairs]
    prices = filled(_HEADS, cells, _ALIGN, "outranked")
    names = [
        [model.id, ", ".join(model.aliases), provider_label(name), offer.id]
        for model in models().values()
        for name, offer in model.providers.items()
        if name != "sandbox"
    ]
    parts: list[Part] = [prices, _WHAT, *settings.notes, "", (_NAMES, names, "lllg")]
    value: dict[str, Any] = {
        "prices": [_data(row) for row in rows],
        "ids": [dict(zip(("model", "aliases", "provider", "id"), name, strict=True)) for name in names],
    }
    if "--live" in call.flags:
        live = _live(session, settings)
        rows_now = [[m.id, *_said(listing), prose(words)] for m, listing, words in live]
        note = "RunComfy's own catalog, read now. A base price does not say for which settings it holds, so "
        note += "no estimate counts with it."
        parts += ["", note, (_LIVE, rows_now, "lllww")]
        value["live"] = [
            {
                "model": m.id,
                "base_price_usd": listing.base_usd if listing else None,
                "unit": listing.unit if listing else None,
                "note": listing.note if listing else None,
                "beside": words.replace("**", ""),
            }
            for m, listing, words in live
        ]
    return answer(parts, value=value)


def _cells(silent: PriceRow, sounding: PriceRow, today: "date") -> list[str]:
    pair = (silent, sounding)
    prices = ["unknown" if row.best is None else per_second(row.best.usd_per_s) for row in pair]
    sources = [
        f"{per_second(row.held_usd_per_s)} is reserved" if row.best is None else price_words(row.best, today)
        for row in pair
    ]
    others = [
        "; ".join(f"{per_second(one.usd_per_s)} {price_words(one, today)}" for one in row.others)
        for row in pair
    ]
    return [silent.model, provider_label(silent.provider), *prices, _both(sources), _both(others)]


def _both(words: list[str]) -> str:
    """Say once what holds for both, and else which is which."""
    if words[0] == words[1]:
        return words[0]
    named = zip(("silent", "with sound"), words, strict=True)
    return "; ".join(f"{name}: {said}" for name, said in named if said)


def whole_days(text: str) -> Html:
    """Write a text so that no line of a narrow table ends within a date.

    Example:
        >>> whole_days("of 2026-11-21")
        'of <span style="white-space:nowrap">2026-11-21</span>'
    """
    parts: list[object] = []
    at = 0
    for found in _DAY.finditer(text):
        parts += [text[at : found.start()], tag("span", found[0], style="white-space:nowrap")]
        at = found.end()
    return join([*parts, text[at:]])


def _data(row: PriceRow) -> dict[str, Any]:
    best = row.best
    return {
        "model": row.model,
        "provider": row.provider,
        "audio": row.audio,
        "usd_per_s": None if best is None else f"{best.usd_per_s:f}",
        "kind": None if best is None else _kind(best),
        "source": None if best is None else getattr(best, "source", None),
        "as_of": None if best is None else best.as_of.isoformat(),
        "runs": best.bills if isinstance(best, LearnedPrice) else None,
        "held_usd_per_s": f"{row.held_usd_per_s:f}",
        "outranked": [
            {
                "usd_per_s": f"{one.usd_per_s:f}",
                "kind": one.kind,
                "source": one.source,
                "as_of": one.as_of.isoformat(),
            }
            for one in row.others
        ],
    }


def _kind(price: Price | LearnedPrice) -> str:
    return "learned" if isinstance(price, LearnedPrice) else price.kind


# -- what RunComfy says now ----------------------------------------------------------
def _said(listing: Listing | None) -> list[str]:
    if listing is None:
        return ["", "", ""]
    return [usd_of(listing.base_usd) if listing.base_usd else "none", listing.unit, listing.note]


def _live(session: "Session", settings: "Settings") -> list[tuple[Model, Listing | None, str]]:
    """Read RunComfy's catalog rows, with the user's key; free of charge."""
    from kling_nb.network.client import with_transport

    name = "runcomfy"
    key = session.key(name)
    if key is None:
        raise KeyMissingError(
            "RunComfy's catalog is read with a key, and there is none.",
            cure=f"Set {KEY_VARIABLES[name][0]}, or leave --live out.",
            provider=name,
        )
    adapter = make_provider(name, provider_origin(settings, name))
    offered = [find_model(model_id) for model_id, model in models().items() if name in model.providers]

    async def read(transport: "Transport", model: Model) -> tuple[Model, Listing | None, str]:
        try:
            call = adapter.account_call(model.offer(name).id)
            reply = await transport.send(call, key=key.secret, origin=adapter.base_url)
        except KlingError as error:
            return model, None, one_line(error.what)
        listing = adapter.read_listing(reply)
        if listing is None:
            return model, None, adapter.read_account(reply).message
        return model, listing, compared(listing, settings.priced_model(model.id).offer(name))

    async def every(transport: "Transport") -> list[tuple[Model, Listing | None, str]]:
        return [await read(transport, model) for model in offered]

    return with_transport(session.loop, every, 90)
