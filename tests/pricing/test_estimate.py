"""Prices: exact, dated, rounded up where money is held back, and unknown where nobody knows."""

from dataclasses import replace
from datetime import date
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_nb.errors import UnpricedError, UnsupportedError, UsageError
from kling_nb.pricing.catalog import find_model, models
from kling_nb.pricing.estimate import LearnedPrice, doubt_of, estimate, learn_price, require_priced, total
from kling_nb.records.money import Estimate
from kling_nb.records.request import TextToVideo
from support.bills import bill

PRO = find_model("pro")


def clip(seconds=5, *, audio=False):
    """A request of this length."""
    return TextToVideo(prompt="fox", duration=seconds, audio=audio)


# Worked by hand from 0.112 and 0.168 dollars a second: provider, sound, seconds, one, two and four takes.
GOLDEN = [
    ("runflow", False, 3, "$0.336 | $0.672 | $1.344"),
    ("runflow", False, 5, "$0.56 | $1.12 | $2.24"),
    ("runflow", False, 8, "$0.896 | $1.792 | $3.584"),
    ("runflow", False, 15, "$1.68 | $3.36 | $6.72"),
    ("runflow", True, 3, "1 unknown | 2 unknown | 4 unknown"),
    ("runflow", True, 5, "1 unknown | 2 unknown | 4 unknown"),
    ("runflow", True, 8, "1 unknown | 2 unknown | 4 unknown"),
    ("runflow", True, 15, "1 unknown | 2 unknown | 4 unknown"),
    ("runcomfy", False, 3, "$0.336 | $0.672 | $1.344"),
    ("runcomfy", False, 5, "$0.56 | $1.12 | $2.24"),
    ("runcomfy", False, 8, "$0.896 | $1.792 | $3.584"),
    ("runcomfy", False, 15, "$1.68 | $3.36 | $6.72"),
    ("runcomfy", True, 3, "$0.504 | $1.008 | $2.016"),
    ("runcomfy", True, 5, "$0.84 | $1.68 | $3.36"),
    ("runcomfy", True, 8, "$1.344 | $2.688 | $5.376"),
    ("runcomfy", True, 15, "$2.52 | $5.04 | $10.08"),
]


@pytest.mark.parametrize(("provider", "audio", "seconds", "sums"), GOLDEN)
def test_prices_worked_by_hand(provider, audio, seconds, sums):
    """Both providers, silent and with sound, at four lengths and three numbers of takes."""
    price = estimate(clip(seconds, audio=audio), PRO, provider)
    assert [str(total([price] * takes)) for takes in (1, 2, 4)] == sums.split(" | ")


@pytest.mark.parametrize(("seconds", "held"), [(3, 504_000), (5, 840_000), (8, 1_344_000), (15, 2_520_000)])
def test_an_unknown_price_holds_back_the_dearest(seconds, held):
    """Runflow states no price with sound, so RunComfy's 0.168 is held back, and nothing is claimed."""
    price = estimate(clip(seconds, audio=True), PRO, "runflow")
    assert (price.micros, price.usd, price.usd_per_s) == (None, None, None)
    assert price.reserve_micros == held
    assert "unknown" in price.basis
    assert "$0.168/s" in price.basis


def test_the_basis_names_price_source_and_day():
    """Each figure can be traced to a page and a date."""
    assert estimate(clip(), PRO, "runflow").basis == "$0.112/s silent, Runflow's model page, 2026-04-06"
    with_sound = estimate(clip(audio=True), PRO, "runcomfy")
    assert with_sound.basis == "$0.168/s with sound, RunComfy's public price table, 2026-05-01"
    assert (with_sound.as_of, with_sound.usd_per_s, with_sound.currency) == ("2026-05-01", "0.168", "USD")
    assert "play money" in estimate(clip(), PRO, "sandbox").basis


def test_a_storyboard_costs_its_sum():
    """Shots are billed by the length of the whole clip."""
    board = TextToVideo(shots=[{"prompt": "a", "duration": 5}, {"prompt": "b", "duration": 3}])
    assert estimate(board, PRO, "runcomfy").micros == 896_000


def test_a_model_that_is_not_offered_has_no_price():
    """No price is made up for what cannot be bought."""
    with pytest.raises(UnsupportedError):
        estimate(clip(), find_model("4k"), "runflow")


# -- the user's own price ------------------------------------------------------------
def test_the_users_price_is_held_back_where_none_is_known():
    """`--price` sets what is held back; the charge itself stays unknown."""
    price = estimate(clip(audio=True), PRO, "runflow", price_usd_per_s=Decimal("0.2"))
    assert (price.micros, price.reserve_micros) == (None, 1_000_000)
    assert "given with the call" in price.basis


@pytest.mark.parametrize(("given", "held"), [("0.2", 1_000_000), ("0.05", 560_000)])
def test_the_users_price_never_lowers_a_known_one(given, held):
    """Beside a known price, `--price` can only make a cap hold earlier."""
    price = estimate(clip(), PRO, "runflow", price_usd_per_s=Decimal(given))
    assert (price.micros, price.reserve_micros) == (560_000, held)


@pytest.mark.parametrize(
    "bad", [Decimal(0), Decimal(-1), Decimal("NaN"), Decimal("Infinity"), Decimal(1001), 0.2, 1]
)
def test_a_senseless_price_is_refused(bad):
    """Nought would make every cap hold for ever, and a float is no money."""
    with pytest.raises(UsageError, match="price"):
        estimate(clip(audio=True), PRO, "runflow", price_usd_per_s=bad)


def test_what_is_held_back_is_rounded_up():
    """A part of a micro-dollar is held back as a whole one."""
    price = estimate(clip(3, audio=True), PRO, "runflow", price_usd_per_s=Decimal("0.0000001"))
    assert price.reserve_micros == 1


def test_an_unpriced_run_needs_leave():
    """Without a price or leave, nothing is sent, and both ways out are named."""
    unknown = estimate(clip(audio=True), PRO, "runflow")
    with pytest.raises(UnpricedError, match=r"--allow-unpriced.*--price") as caught:
        require_priced(unknown)
    assert caught.value.charged == "no"
    require_priced(unknown, allow_unpriced=True)
    require_priced(estimate(clip(), PRO, "runflow"))


def test_a_learned_price_outranks_the_list_and_says_so():
    """What a provider really charged is the better estimate, with its own basis."""
    learned = learn_price([bill(700_000), bill(560_000, day=1)])
    assert learned == LearnedPrice(usd_per_s=Decimal("0.14"), as_of=date(2026, 11, 20), bills=2)
    price = estimate(clip(8), PRO, "runflow", learned=learned)
    assert (price.micros, price.reserve_micros) == (1_120_000, 1_120_000)
    assert price.basis == "$0.14/s silent, from your last 2 runs, 2026-11-20"
    assert price.source == "your last 2 runs"


@pytest.mark.parametrize(
    ("micros", "audio", "words"),
    [
        (560_000 * 3, False, ""),
        (
            168_000_000,
            False,
            "run kbcdfghj was billed $168.00 for 5 s, 300 times the stated price of $0.112/s",
        ),
        (
            168_000_000,
            True,
            "run kbcdfghj was billed $168.00 for 5 s, 200 times the highest known price of $0.168/s",
        ),
    ],
)
def test_a_price_that_jumps_is_called_suspicious(micros, audio, words):
    """More than three times what is stated: the basis names the bill, its run and the usual price."""
    learned = learn_price([replace(bill(micros), run_id="kbcdfghj"), bill(560_000)])
    price = estimate(clip(audio=audio), PRO, "runflow", learned=learned)
    assert doubt_of(price) == words
    assert ("suspicious" in price.basis) == bool(words)


def test_a_learned_price_makes_an_unknown_one_known():
    """After a first paid clip with sound, Runflow's price is no longer unknown."""
    price = estimate(clip(audio=True), PRO, "runflow", learned=learn_price([bill(840_000)]))
    assert price.micros == 840_000
    require_priced(price)


@pytest.mark.parametrize(
    ("bills", "usd_per_s"),
    [
        ([], None),
        ([bill(0)], None),
        ([bill(0), bill(560_000)], "0.112"),
        ([bill(560_000), bill(700_000), bill(560_000), bill(5_000_000)], "0.14"),
        ([bill(1_000_000, 3)], "0.333334"),
    ],
)
def test_the_dearest_of_the_last_three_bills_counts(bills, usd_per_s):
    """A free trial teaches nothing, an old price is forgotten, a part of a micro-dollar counts whole."""
    learned = learn_price(bills)
    assert (learned and str(learned.usd_per_s)) == usd_per_s


# -- sums ---------------------------------------------------------------------------
def test_a_sum_keeps_count_of_the_unknown():
    """Unknown is a word in a sum, never nought."""
    known, unknown = estimate(clip(), PRO, "runcomfy"), estimate(clip(audio=True), PRO, "runflow")
    quote = total([known, unknown, known, unknown])
    assert str(quote) == "$1.12 + 2 unknown"
    assert (quote.micros, quote.known_micros, quote.reserve_micros) == (None, 1_120_000, 2_800_000)
    assert str(total([])) == "$0.00"


def test_different_money_is_never_added():
    """A sum of two currencies would be a number of nothing."""
    with pytest.raises(ValueError, match="currencies"):
        total([Estimate(micros=1, reserve_micros=1), Estimate(micros=1, reserve_micros=1, currency="EUR")])


@st.composite
def estimates(draw):
    """Any estimate the catalogue allows, with or without a price of the user's."""
    model = draw(st.sampled_from(list(models().values())))
    request = clip(draw(st.integers(3, 15)), audio=draw(st.booleans()))
    price = draw(st.none() | st.decimals("0.0000001", "1000", places=7))
    provider = draw(st.sampled_from(sorted(model.providers)))
    return request, model, provider, price, estimate(request, model, provider, price_usd_per_s=price)


@given(estimates())
def test_an_estimate_is_exact(drawn):
    """The charge is seconds times price to the micro-dollar, nothing is a float, the hold covers it."""
    request, model, provider, price, made = drawn
    listed = model.providers[provider].usd_per_s(audio=request.audio)
    assert type(made.reserve_micros) is int
    assert made.reserve_micros > 0
    if listed is None:
        held = Fraction(price or model.highest_usd_per_s())
        assert made.micros is None
    else:
        held = max(Fraction(listed), Fraction(price or 0))
        assert type(made.micros) is int
        assert made.micros == Fraction(listed) * request.duration * 1_000_000
        assert 0 < made.micros <= made.reserve_micros
    exact = held * request.duration * 1_000_000
    assert exact <= made.reserve_micros < exact + 1


@given(st.lists(estimates().map(lambda drawn: drawn[-1]), max_size=40))
def test_sums_are_exact(made):
    """Nothing is lost or made up in a sum, in whatever order it is added."""
    quote = total(made)
    assert quote == total(reversed(made))
    assert quote.unknown == sum(one.micros is None for one in made)
    assert quote.reserve_micros == sum(one.reserve_micros for one in made)
    assert quote.known_micros == sum(one.micros or 0 for one in made)
    assert (quote.micros is None) == (quote.unknown > 0)
    assert ("unknown" in str(quote)) == (quote.unknown > 0)
    assert all(type(value) is int for value in (quote.known_micros, quote.unknown, quote.reserve_micros))
