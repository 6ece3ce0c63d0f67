"""Prices beside the list: the user's own, a project's, learned ones, old ones, and what RunComfy says now."""

import json
from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_nb.config.loading import load_settings
from kling_nb.errors import KeyMissingError, SettingsError, UnpricedError, UnsupportedError, UsageError
from kling_nb.notebook.line import run_command
from kling_nb.pricing.catalog import add_own, find_model
from kling_nb.pricing.estimate import age_words, estimate, learn_price
from kling_nb.pricing.price_file import in_force, read_prices
from kling_nb.records.request import TextToVideo, make_request
from kling_nb.records.run import RunStatus
from kling_nb.session.plan import Ask
from support.bills import bill
from support.markup import judge
from support.sessions import ask
from support.workbench import houses

DAY = date(2026, 11, 21)
PRO = 'runflow."kling-3.0-pro"'
OWN = f'[prices.{PRO}]\nsilent = "0.10"\naudio = "0.2"\nas_of = 2026-11-01\nsource = "contract"\n'
PROJECT = '[tool.kling_nb.prices.runcomfy.pro]\n{}\nas_of = 2026-11-02\nsource = "the lab"\n'


@pytest.fixture
def load(tmp_path):
    """Settings from a user file and a project that the test writes."""
    (tmp_path / "work").mkdir()

    def load(*, user="", project=""):
        (tmp_path / "config.toml").write_text(user)
        (tmp_path / "config.toml").chmod(0o600)
        (tmp_path / "work" / "pyproject.toml").write_text(project)
        return load_settings(environ={}, start=tmp_path / "work", user_file=tmp_path / "config.toml")

    return load


@pytest.fixture
def build(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    yield from houses(tmp_path, monkeypatch)


@pytest.fixture(autouse=True)
def only_the_list():
    """Whatever a test adds to the catalog leaves with it."""
    yield
    add_own(())


def price_of(settings, provider, *, audio=False, learned=None, seconds=5, **options):
    request = TextToVideo(prompt="fox", duration=seconds, audio=audio)
    model = in_force(find_model("pro"), settings.prices)
    return estimate(request, model, provider, learned=learned, today=DAY, **options)


# -- the user's own ----------------------------------------------------------------------
def test_the_users_own_price_replaces_the_list_and_says_so(load):
    """A contract in config.toml is what is estimated and held, above or below the list, exact to the cent."""
    settings = load(user=OWN)
    silent, sounding = (price_of(settings, "runflow", audio=audio) for audio in (False, True))
    assert (silent.micros, silent.reserve_micros) == (500_000, 500_000)
    assert silent.basis == "$0.10/s silent, your own price (contract), 2026-11-01"
    assert (sounding.micros, sounding.as_of) == (1_000_000, "2026-11-01")
    assert price_of(settings, "runcomfy").basis.startswith("$0.112/s silent, RunComfy's public price table")


def test_bills_outrank_the_list_and_the_dearer_of_both_is_held(load):
    """What a provider billed is the estimate; a dearer listed price is held back all the same."""
    learned = learn_price([bill(450_000), bill(450_000), bill(400_000)])
    listed = price_of(load(), "runflow", learned=learned)
    assert (listed.micros, listed.reserve_micros) == (450_000, 560_000), "a cap is not passed by cheap bills"
    assert listed.basis.startswith("$0.09/s silent, from your last 3 runs, 2026-11-20; reserved at $0.112/s")
    dearer = price_of(load(), "runflow", learned=learn_price([bill(840_000)]))
    assert (dearer.micros, dearer.reserve_micros) == (840_000, 840_000)
    assert dearer.basis == "$0.168/s silent, from your last run, 2026-11-20"
    typed = price_of(load(), "runflow", price_usd_per_s=Decimal("0.3"))
    assert typed.basis.endswith("; reserved at $0.30/s, the price given with the call")


def test_a_price_of_the_users_own_outranks_bills(load):
    """One absurd bill closes no provider: what the user says, in a file or a call, is what counts."""
    absurd = learn_price([bill(168_000_000)])
    filed = price_of(load(user=OWN), "runflow", learned=absurd)
    assert (filed.micros, filed.reserve_micros) == (500_000, 500_000)
    assert filed.basis == "$0.10/s silent, your own price (contract), 2026-11-01"
    typed = price_of(load(), "runflow", learned=absurd, price_usd_per_s=Decimal("0.2"))
    assert (typed.micros, typed.reserve_micros) == (560_000, 1_000_000)
    sound = price_of(load(), "runflow", audio=True, learned=absurd, price_usd_per_s=Decimal("0.2"))
    assert (sound.micros, sound.reserve_micros) == (None, 1_000_000)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prices = 3", "prices in"),
        ("[prices]\nrunflow = 3", "prices.runflow in"),
        ('[prices.sandbox.pro]\nsilent = "1"\nas_of = 2026-11-01', "not a provider with prices of its own"),
        ('[prices.made-up-key.pro]\nsilent = "1"', "not a provider with prices of its own"),
        ('[prices.runflow.made-up-key]\nsilent = "1"', "not a model that runflow offers"),
        ('[prices.runflow.4k]\nsilent = "1"\nas_of = 2026-11-01', "not a model that runflow offers"),
        ("[prices.runflow]\npro = 0.1", "must be a table with silent"),
        ("[prices.runflow.pro]\nas_of = 2026-11-01", "has neither silent nor audio"),
        ('[prices.runflow.pro]\nsilent = "0.1"', "as_of in"),
        ('[prices.runflow.pro]\nsilent = "0.1"\nas_of = "made-up-key"', "must be a day such as"),
        ('[prices.runflow.pro]\nsilent = "0.1"\nas_of = 20261101', "must be a day such as"),
        ('[prices.runflow.pro]\nsilent = "made-up-key"\nas_of = 2026-11-01', "decimal dollars per second"),
        ('[prices.runflow.pro]\nsilent = "1e-9"\nas_of = 2026-11-01', "decimal dollars per second"),
        ("[prices.runflow.pro]\nsilent = true\nas_of = 2026-11-01", "decimal dollars per second"),
        ("[prices.runflow.pro]\nsilent = inf\nas_of = 2026-11-01", "decimal dollars per second"),
        ('[prices.runflow.pro]\nsilent = "0"\nas_of = 2026-11-01', "above 0 and at most 1000"),
        ('[prices.runflow.pro]\naudio = "1001"\nas_of = 2026-11-01', "above 0 and at most 1000"),
        (
            '[prices.runflow.pro]\nsilent = "1"\nas_of = 2026-11-01\nmade-up-key = "x"',
            "is none of silent, audio, as_of, source",
        ),
        ('[prices.runflow.pro]\nsilent = "1"\nas_of = 2026-11-01\nsource = 5', "must be a text"),
        ('[prices.runflow.pro]\nsilent = "1"\nas_of = 2026-11-01\nsource = "a\\nb"', "one line of text"),
        (OWN + '[prices.runflow.pro]\nsilent = "1"\nas_of = 2026-11-01', "stands twice"),
    ],
)
def test_a_wrong_price_is_refused_without_its_value(load, text, words):
    """An error names the place and the rule; a key on the wrong line is not repeated."""
    with pytest.raises(SettingsError) as caught:
        load(user=text)
    said = str(caught.value)
    assert words in said
    assert "config.toml" in said
    assert "made-up-key" not in said
    assert "\n" not in said


@given(st.decimals("0.000000001", "1000", places=9))
def test_a_price_from_a_file_is_exact(amount):
    """However it is written, as text or as a number of TOML, no digit is lost."""
    for written in (f"{amount:f}", amount):
        table = {"runcomfy": {"pro": {"audio": written, "as_of": DAY}}}
        [found] = read_prices(table, "a file", "own")
        assert found.price.usd_per_s == amount
        assert found.audio


# -- a project's ---------------------------------------------------------------------------
def test_a_project_raises_a_price(load):
    """What a project states above the known price is estimated and held, and says whose it is."""
    price = price_of(load(project=PROJECT.format('silent = "0.15"')), "runcomfy")
    assert (price.micros, price.reserve_micros) == (750_000, 750_000)
    assert price.basis == "$0.15/s silent, the price of this project (the lab), 2026-11-02"


def test_a_project_lowers_no_price(load):
    """A cheaper price of a project has no effect and is told; the user's own stands above it."""
    settings = load(project=PROJECT.format('silent = "0.01"\naudio = "0.168"'))
    assert price_of(settings, "runcomfy").micros == 560_000
    why = "a project only raises a price, and $0.112/s is known."
    assert settings.notes == (
        f"The project's price of kling-3.0-pro silent at runcomfy has no effect: {why}",
    )
    own = '[prices.runcomfy.pro]\nsilent = "0.2"\nas_of = 2026-11-01\n'
    settings = load(user=own, project=PROJECT.format('silent = "0.15"'))
    assert price_of(settings, "runcomfy").basis == "$0.20/s silent, your own price, 2026-11-01"
    assert len(settings.notes) == 1


def test_a_project_makes_no_unknown_price_a_known_one(load):
    """A stranger's file cannot stand for `--allow-unpriced`; it may only have more held back."""
    low, same, high = (
        load(project=PROJECT.replace("runcomfy", "runflow").format(f'audio = "{usd}"'))
        for usd in ("0.01", "0.168", "0.2")
    )
    unknown = price_of(low, "runflow", audio=True)
    assert (unknown.micros, unknown.reserve_micros) == (None, 840_000)
    assert "none is known, and $0.168/s is reserved" in low.notes[0]
    for settings, held in ((same, 840_000), (high, 1_000_000)):
        price = price_of(settings, "runflow", audio=True)
        assert (price.micros, price.reserve_micros) == (None, held)
        assert settings.notes == ()


def test_a_project_lets_no_unpriced_run_be_sent(build, tmp_path):
    """With a declared budget and nobody watching too: consent to an unknown price is the user's own."""
    text = PROJECT.replace("runcomfy", "runflow").format('audio = "0.2"')
    (tmp_path / "pyproject.toml").write_text(text)
    house = build()
    house.keys("runflow")
    house.set(BUDGET="5")
    call = Ask(request=make_request(prompt="Sea", duration=3, audio=True))
    session = house.session(headless=True)
    with pytest.raises(UnpricedError):
        session.open(call)
    assert house.submissions == 0
    house.run(session, replace(call, allow_unpriced=True))
    assert (house.submissions, session.ledger().runs()[0].estimate.reserve_micros) == (1, 600_000)


@given(
    listed=st.sampled_from([("runflow", False), ("runflow", True), ("runcomfy", False), ("runcomfy", True)]),
    own=st.none() | st.decimals("0.001", "3", places=3),
    project=st.decimals("0.001", "3", places=3),
)
def test_no_project_price_ever_lowers_what_is_held(listed, own, project):
    """With or without the user's own price, a project's file leaves a hold as it was, or raises it."""
    provider, audio = listed

    def row(amount, kind):
        table = {provider: {"pro": {"audio" if audio else "silent": f"{amount:f}", "as_of": DAY}}}
        return read_prices(table, "a file", kind)

    mine = row(own, "own") if own is not None else ()
    request = TextToVideo(prompt="fox", duration=7, audio=audio)
    before, after = (
        estimate(request, in_force(find_model("pro"), prices), provider)
        for prices in (mine, mine + row(project, "project"))
    )
    assert after.reserve_micros >= before.reserve_micros
    assert before.micros is None or after.micros >= before.micros


# -- old prices ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("as_of", "words"),
    [
        (date(2026, 11, 21), ""),
        (date(2027, 1, 1), ""),
        (date(2026, 8, 24), ""),
        (date(2026, 8, 23), "2 months old"),
        (date(2026, 4, 21), "7 months old"),
        (date(2026, 4, 22), "6 months old"),
        (date(2024, 11, 22), "23 months old"),
        (date(2024, 11, 21), "2 years old"),
    ],
)
def test_an_old_price_says_its_age(as_of, words):
    """From 90 days on a price tells how old it is, in whole months, then years."""
    assert age_words(as_of, DAY) == words
    assert age_words(as_of, None) == ""


# -- everything together, over a real session ------------------------------------------------
def test_a_price_is_learned_from_ones_own_runs_and_shown(build):
    """After three settled runs the estimate rests on them, and `%kling models` shows the list beside."""
    house = build()
    house.keys("runcomfy")
    session = house.session(today=lambda: DAY)
    assert session.price(ask()).basis.endswith("RunComfy's public price table, 2026-05-01, 6 months old")
    runs = session.open(ask(takes=(0, 1, 2)))
    assert [run.wait(90).status for run in runs] == [RunStatus.SUCCEEDED] * 3
    price = session.price(ask())
    assert price.basis.startswith("$0.112/s silent, from your last 3 runs, 20")
    assert price.micros == 336_000
    shown = run_command(session, "models", {})
    row = next(r for r in shown.value["prices"] if (r["provider"], r["audio"]) == ("runcomfy", False))
    assert (row["kind"], row["usd_per_s"], row["runs"]) == ("learned", "0.112", 3)
    assert row["outranked"][0]["kind"] == "list"
    assert "from your last 3 runs" in shown.text
    other = next(r for r in shown.value["prices"] if (r["provider"], r["audio"]) == ("runcomfy", True))
    assert other["kind"] == "list", "silent runs say nothing of sound"


def test_own_and_project_prices_reach_estimate_reservation_and_table(build, tmp_path):
    """What the files say is what a session holds back, and `%kling models` shows each with its source."""
    house = build()
    (tmp_path / "config" / "kling_nb").mkdir(parents=True)
    (tmp_path / "config" / "kling_nb" / "config.toml").write_text(OWN)
    (tmp_path / "pyproject.toml").write_text(PROJECT.format('silent = "0.5"'))
    session = house.session(today=lambda: DAY)
    run = house.run(session, ask(provider="runflow"))
    assert run.record.estimate.reserve_micros == 300_000
    assert run.record.estimate.basis == "$0.10/s silent, your own price (contract), 2026-11-01"
    request = ask("Dunes", provider="runcomfy")
    assert session.plan(request).estimate.reserve_micros == 1_500_000
    assert session.price(ask("Sea", provider="runflow")).reserve_micros == 300_000, "whatever was billed"
    shown = run_command(session, "models", {})
    for words in (
        "the price of this project (the lab), 2026-11-02",
        "$0.112/s RunComfy's public price table, 2026-05-01, 6 months old",
        "your own price (contract), 2026-11-01",
    ):
        assert words in shown.text, words
    judge(shown.html)


def test_with_ones_own_price_a_clip_with_sound_needs_no_leave(build, tmp_path):
    """Where the user states what nobody else does, the price is known, also to the choice of a provider."""
    house = build()
    house.keys("runflow")
    session = house.session()
    audio = ask("Waves")
    audio = type(audio)(request=audio.request.model_copy(update={"audio": True}))
    with pytest.raises(UnpricedError):
        session.price(audio)
    (tmp_path / "config" / "kling_nb").mkdir(parents=True)
    (tmp_path / "config" / "kling_nb" / "config.toml").write_text(OWN)
    assert session.price(audio).micros == 600_000


# -- what RunComfy says now --------------------------------------------------------------------
def live(house, **row):
    house.faults(**row)
    shown = run_command(house.session(today=lambda: DAY), "models --live", {})
    judge(shown.html)
    pro = next(one for one in shown.value["live"] if one["model"] == "kling-3.0-pro")
    return shown, pro


def test_runcomfys_own_row_is_read_on_request_only_and_compared(build):
    """`--live` asks once a model, for free; a difference stands out; no estimate counts with it."""
    house = build()
    house.keys("runcomfy")
    before = house.session().price(ask())
    shown, pro = live(house)
    assert pro == {
        "model": "kling-3.0-pro",
        "base_price_usd": "0.112",
        "unit": "second",
        "note": "0.168 USD per second with sound",
        "beside": "the same as the price here, silent",
    }
    assert len(shown.value["live"]) == 3
    shown, pro = live(house, price_row="dearer")
    assert (pro["base_price_usd"], pro["beside"]) == (
        "0.15",
        "differs: here it is $0.112 silent and $0.168 with sound",
    )
    assert "<b>differs</b>" in shown.html
    assert house.session().price(ask()).micros == before.micros
    assert house.submissions == 0
    assert "live" not in run_command(house.session(), "models", {}).value


@pytest.mark.parametrize(
    ("row", "price", "beside"),
    [
        ("clip", "0.56", "not a price per second: cannot be compared"),
        ("none", None, "states no price"),
        ("junk", None, "states no price"),
        ("markup", "0.112", "not a price per second: cannot be compared"),
    ],
)
def test_odd_rows_are_shown_and_harm_nothing(build, row, price, beside):
    """Another unit is not taken for seconds, and whatever stands in a row is text."""
    house = build()
    house.keys("runcomfy")
    shown, pro = live(house, price_row=row)
    assert (pro["base_price_usd"], pro["beside"]) == (price, beside)
    assert "<script" not in shown.html
    assert "<img" not in shown.html
    assert "\u202e" not in json.dumps(shown.value, ensure_ascii=False)
    assert "sig=1" not in shown.text


def test_live_needs_a_key_and_says_what_a_refusal_was(build, monkeypatch):
    """Without a key nothing is asked; with a bad one each model says so, and the list is still shown."""
    house = build()
    house.keys()
    with pytest.raises(KeyMissingError, match="RUNCOMFY_API_TOKEN"):
        run_command(house.session(), "models --live", {})
    house.keys("runcomfy", key="bad-key-of-a-test-7Qm2")
    shown, pro = live(house)
    assert pro["base_price_usd"] is None
    assert "invalid token" in pro["beside"]
    assert "bad-key" not in shown.text + shown.html


# -- models of one's own ---------------------------------------------------------------------
MODEL = """
[models."kling-4.0-pro"]
label = "Kling 4.0 Pro"
aliases = ["k4"]
[models."kling-4.0-pro".runcomfy]
id = "kling/kling-4.0/pro/text-to-video"
silent = "0.2"
as_of = 2026-11-20
source = "model page"
"""


def test_a_model_from_the_users_own_file_can_be_priced_bought_and_reused(build, tmp_path):
    """A new model needs two tables in config.toml and no new release; taken out, it is unknown again."""
    house = build(faults={"also_model": "kling/kling-4.0/pro/text-to-video"})
    (tmp_path / "config" / "kling_nb").mkdir(parents=True)
    own = tmp_path / "config" / "kling_nb" / "config.toml"
    own.write_text(f'model = "k4"\n{MODEL}')
    session = house.session(today=lambda: DAY)
    price = session.price(ask())
    assert (price.micros, price.basis) == (600_000, "$0.20/s silent, your own price (model page), 2026-11-20")
    run = house.run(session, ask())
    assert (run.status, run.record.model, run.record.provider) == (
        RunStatus.SUCCEEDED,
        "kling-4.0-pro",
        "runcomfy",
    )
    assert run.record.settled_micros == 600_000
    assert house.run(house.session(), ask()).id == run.id
    assert house.accepted == 1
    with pytest.raises(UnpricedError):
        session.price(type(ask())(request=ask().request.model_copy(update={"audio": True})))
    shown = run_command(session, "models --live", {})
    assert "kling/kling-4.0/pro/text-to-video" in shown.text
    assert "kling-4.0-pro" in [row["model"] for row in shown.value["live"]]
    own.write_text("")
    with pytest.raises(UsageError, match=r"no model 'k4'"):
        session.price(ask(model="k4"))
    assert house.run(house.session(model="pro"), ask("Dunes")).record.model == "kling-3.0-pro"


def test_without_a_key_ones_own_model_is_not_played(build, tmp_path):
    """The sandbox plays what it knows; it does not pretend to be a model that it never heard of."""
    house = build()
    house.keys()
    (tmp_path / "config" / "kling_nb").mkdir(parents=True)
    (tmp_path / "config" / "kling_nb" / "config.toml").write_text(MODEL)
    with pytest.raises(UnsupportedError, match=r"sandbox does not offer kling-4\.0-pro"):
        house.session().price(ask(model="k4"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('label = "Kling 4.0 Pro"', "", "label in"),
        ('label = "Kling 4.0 Pro"', 'label = ""', "one line of text"),
        ('"k4"', '"pro"', "a name that another model has: pro"),
        ('"k4"', '"made-up key"', "small letters, digits"),
        ("kling/kling-4.0/pro/", "kling/kling-3.0/pro/", "a name that another model has"),
        ('id = "kling/kling-4.0', 'id = "../made-up-key', "must be the provider's id"),
        ('id = "kling/kling-4.0', 'id = "made-up-key?', "must be the provider's id"),
        ('silent = "0.2"', "", "has neither silent nor audio"),
        ('silent = "0.2"', "silent = false", "decimal dollars per second"),
        ("as_of = 2026-11-20", "", "as_of in"),
        ('".runcomfy]', '".sandbox]', "is none of label, aliases, runflow, runcomfy"),
        ('[models."kling-4.0-pro".runcomfy]', '[models."other"]', "names no provider"),
        ('[models."kling-4.0-pro"]', '[models."made-up key"]', "small letters, digits"),
        (MODEL, "models = 3", "models in"),
    ],
)
def test_a_wrong_model_is_refused_without_its_value(load, old, new, words):
    """A name that is taken, an id that could lead elsewhere, a model without a price."""
    text = MODEL.replace(old, new)
    assert text != MODEL
    with pytest.raises(SettingsError) as caught:
        load(user=text)
    assert words in str(caught.value)
    assert "made-up" not in str(caught.value)


def test_a_project_adds_no_model(load):
    """An id decides what a paid call buys, so a stranger's file has no say in it."""
    with pytest.raises(SettingsError, match="may not set models"):
        load(project=MODEL.replace("[models.", "[tool.kling_nb.models."))
