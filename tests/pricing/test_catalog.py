"""The catalogue: prices and ids as their sources state them, decimals throughout."""

import tomllib
from datetime import date
from decimal import Decimal
from importlib.resources import files

import pytest

from kling_nb.errors import UnsupportedError, UsageError
from kling_nb.pricing.catalog import DEFAULT_MODEL, find_model, models
from kling_nb.providers import PROVIDERS
from kling_nb.records.request import TextToVideo

# Typed from the providers' pages, apart from the catalogue: (model, provider): id, silent, with sound.
STATED = {
    ("kling-3.0-pro", "runflow"): ("kuaishou/kling-video/v3/pro/text-to-video", "0.112", None),
    ("kling-3.0-pro", "runcomfy"): ("kling/kling-3.0/pro/text-to-video", "0.112", "0.168"),
    ("kling-3.0-standard", "runcomfy"): ("kling/kling-3.0/standard/text-to-video", "0.084", "0.126"),
    ("kling-3.0-4k", "runcomfy"): ("kling/kling-3.0/4k/text-to-video", "0.42", "0.42"),
}
OFFERS = [(model, name, offer) for model in models().values() for name, offer in model.providers.items()]


def test_offers_are_as_their_sources_state():
    """Ids and prices are those of the providers, and a price nobody states is unknown."""
    listed = {
        (model.id, name): (
            offer.id,
            *(
                None if price is None else str(price)
                for price in (offer.usd_per_s_silent, offer.usd_per_s_audio)
            ),
        )
        for model, name, offer in OFFERS
        if name != "sandbox"
    }
    assert listed == STATED


@pytest.mark.parametrize(
    ("model", "provider", "taken"),
    [
        ("pro", "runcomfy", {"customize"}),
        ("pro", "sandbox", {"customize"}),
        ("pro", "runflow", {"customize", "intelligent"}),
        ("standard", "runcomfy", {"customize", "intelligent"}),
        ("4k", "runcomfy", {"customize", "intelligent"}),
    ],
)
def test_a_shot_type_that_a_page_does_not_name_is_refused(model, provider, taken):
    """RunComfy's page of pro names `customize` only; where a page names none, none is refused."""
    for kind in (None, "customize", "intelligent"):
        request = TextToVideo(prompt="fox", shot_type=kind)
        if kind in {None, *taken}:
            find_model(model).check(request, provider)
            continue
        with pytest.raises(UnsupportedError, match=f"shot_type customize only, not {kind}"):
            find_model(model).check(request, provider)


def test_prices_are_decimals_with_a_source_and_a_day():
    """No float ever holds a price, and each can be looked up where it stands."""
    seen = 0
    for _, _, offer in OFFERS:
        for price in (offer.usd_per_s_silent, offer.usd_per_s_audio):
            if price is not None:
                assert type(price) is Decimal
                # Whole micro-dollars a second, so that every estimate is exact.
                assert 0 < price < 10
                assert price == price.quantize(Decimal("0.000001"))
                seen += 1
        assert offer.source.strip()
        assert date(2026, 1, 1) <= offer.as_of
    assert seen >= 10


def test_prices_are_written_as_text():
    """A bare number in the file would be a float on its way to money."""
    table = tomllib.loads(files("kling_nb.pricing").joinpath("catalog.toml").read_text("utf-8"))
    values = [
        value
        for model in table.values()
        for offer in model["providers"].values()
        for name, value in offer.items()
        if name.startswith("usd")
    ]
    assert len(values) >= 10
    assert all(isinstance(value, str) for value in values)


def test_the_sandbox_plays_every_model():
    """Whatever can be bought can be tried without a key, at RunComfy's prices."""
    for model in models().values():
        play, real = model.offer("sandbox"), model.offer("runcomfy")
        assert (play.usd_per_s_silent, play.usd_per_s_audio) == (real.usd_per_s_silent, real.usd_per_s_audio)
        assert "play money" in play.source
    assert len(models()) == 3


def test_every_offer_has_an_adapter():
    """The catalogue names no provider that cannot be spoken to."""
    assert {name for _, name, _ in OFFERS} == set(PROVIDERS)


def test_names_are_unambiguous():
    """An id, an alias or a provider's id leads to one model."""
    owners = {}
    for model in models().values():
        for name in {model.id, *model.aliases, *(offer.id for offer in model.providers.values())}:
            assert owners.setdefault(name, model.id) == model.id
            assert find_model(name) is model
    assert len(owners) >= 11
    assert find_model(DEFAULT_MODEL).id == "kling-3.0-pro"


@pytest.mark.parametrize(("name", "highest"), [("pro", "0.168"), ("standard", "0.126"), ("4k", "0.42")])
def test_the_dearest_price_is_known(name, highest):
    """What is held back for an unknown price exists for every model."""
    assert find_model(name).highest_usd_per_s() == Decimal(highest)


def test_unknown_names_are_refused_with_the_known_ones():
    """A wrong model or provider is told what there is."""
    with pytest.raises(UsageError, match=r"kling-3\.0-standard"):
        find_model("kling-9")
    with pytest.raises(UnsupportedError, match="runcomfy"):
        find_model("4k").offer("runflow")
