"""Money is known before, capped, and settled after: real sessions, a real ledger, real processes."""

import json
import sqlite3
import time
from decimal import Decimal

import pytest

from kling_nb.errors import BudgetError, ConsentError, UnpricedError, UsageError
from kling_nb.pricing.estimate import estimate
from support.sessions import ask
from support.workbench import on_one_day, until

EACH = 336_000  # three seconds, silent


def refused(house, session, error, match, **options):
    """The call is refused before anything is sent or kept, and says so."""
    sent, rows = house.submissions, len(session.ledger().runs())
    with pytest.raises(error, match=match) as caught:
        session.open(ask(**options))
    assert "\n" not in str(caught.value)
    assert caught.value.charged == "no"
    assert (house.submissions, len(session.ledger().runs())) == (sent, rows)
    return caught.value


# -- caps -----------------------------------------------------------------------------
def test_the_default_cap_of_a_session_is_ten_dollars(build):
    """Without any setting 29 clips of $0.336 fit, and a thirtieth does not."""
    house = build()
    session = house.session()
    error = refused(house, session, BudgetError, r"\$10\.00", takes=range(30))
    assert "30 x $0.336 = $10.08" in str(error)
    runs = session.open(ask(takes=range(29)))
    assert [run.wait(60).status for run in runs] == ["succeeded"] * 29
    refused(house, session, BudgetError, r"\$9\.744 spent", prompt="Another")
    assert house.submissions == 29


@pytest.mark.parametrize("by", ["environment", "argument"])
def test_a_declared_budget_holds(build, by):
    """`KLING_NB_BUDGET` and `connect(budget=)` are the cap of the session; a new session starts at nought."""
    house = build()
    options = {}
    if by == "environment":
        house.set(BUDGET="0.50")
    else:
        options["budget"] = "0.50"
    session = house.session(**options)
    house.run(session, ask())
    refused(house, session, BudgetError, r"session budget of \$0\.50", prompt="Another")
    assert session.totals().left_micros == 500_000 - EACH
    assert house.run(house.session(**options), ask("Another")).status == "succeeded"


def test_two_sessions_of_one_second_share_no_budget(build):
    """A session's id is its own, also where clock and process are the same."""
    house = build()
    sessions = [house.session(budget="0.40") for _ in range(20)]
    assert len({session.id for session in sessions}) == 20


@pytest.mark.parametrize("setting", ["PROJECT_DAILY", "USER_DAILY", "USER_TOTAL", "TEAM_TOTAL"])
def test_the_longer_caps_hold_across_sessions(build, setting):
    """The tightest cap wins, whoever spent the money."""
    on_one_day()
    house = build()
    house.set(**{setting: "0.70"})
    house.run(house.session(), ask("one"))
    house.run(house.session(), ask("two"))
    refused(house, house.session(), BudgetError, r"of \$0\.70", prompt="three")
    assert house.submissions == 2


def test_max_cost_covers_the_whole_cell(build):
    """All takes or none, and the message has the sum."""
    house = build()
    session = house.session()
    error = refused(house, session, BudgetError, "max-cost", takes=(0, 1, 2), max_cost=Decimal("1.00"))
    assert "3 x $0.336 = $1.008" in str(error)
    runs = session.open(ask(takes=(0, 1, 2), max_cost=Decimal("1.008")))
    assert [run.wait(90).status for run in runs] == ["succeeded"] * 3
    assert len(session.open(ask(takes=(0, 1, 2), max_cost=Decimal(0)))) == 3, "what is here costs nothing"
    assert house.submissions == 3


def test_money_on_its_way_counts(build):
    """A reservation takes its place under the cap until the run is settled."""
    house = build(held=True)
    session = house.session(budget="0.60")
    [run] = session.open(ask())
    assert session.totals().reserved_micros == EACH
    until(lambda: house.submissions == 1)
    refused(house, session, BudgetError, r"\$0\.336 reserved", prompt="Another")
    house.let_go()
    run.wait(90)
    totals = session.totals()
    assert (totals.settled_micros, totals.reserved_micros) == (EACH, 0)


RACE = """
import sys, threading
import kling_nb as kling
out = []
def work(number):
    for take in range(6):
        try:
            out.append(kling.submit(f"{sys.argv[1]}-{number}-{take}", duration=5, provider="runcomfy"))
        except kling.BudgetError:
            pass
threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
for run in out:
    run.wait(60)
print(len(out), sum(run.status == "succeeded" for run in out))
"""


def test_a_cap_holds_in_a_race_of_processes(build):
    """Twelve threads in three processes and one cap of $5: eight runs of $0.56, and never a cent over."""
    house = build(wait_scale=0.1)
    house.set(USER_TOTAL="5.00")
    house.session().ledger()
    processes = [house.start("-c", RACE, name) for name in "abc"]
    most, looks = 0, 0
    book = sqlite3.connect(house.folder / "ledger.db")
    query = "SELECT COALESCE(SUM(COALESCE(settled_micros, 0) + reserved_micros), 0) FROM runs"
    while any(process.poll() is None for process in processes):
        most = max(most, book.execute(query).fetchone()[0])
        looks += 1
        time.sleep(0.01)
    ends = [house.end(process) for process in processes]
    most = max(most, book.execute(query).fetchone()[0])
    book.close()
    assert [(code, err) for code, _, err in ends] == [(0, "")] * 3
    opened = sum(int(out.split()[0]) for _, out, _ in ends)
    assert opened == sum(int(out.split()[1]) for _, out, _ in ends) == 8
    assert (house.submissions, house.accepted) == (8, 8)
    assert most == 8 * 560_000
    assert looks > 20


# -- consent --------------------------------------------------------------------------
def test_a_headless_run_needs_a_budget_or_consent(build):
    """The default cap is a cap, not consent; each of these is."""
    house = build()
    session = house.session(headless=True)
    refused(house, session, ConsentError, "KLING_NB_BUDGET")
    assert house.run(session, ask("by --max-cost", max_cost=Decimal("0.40"))).status == "succeeded"
    refused(house, session, ConsentError, "nobody|anybody")
    house.set(BUDGET="5.00")
    assert house.run(session, ask("by environment")).status == "succeeded"
    house.unset("BUDGET")
    house.set(YES=1)
    assert house.run(session, ask("by consent")).status == "succeeded"
    house.unset("YES")
    declared = house.session(headless=True, budget="5.00")
    assert house.run(declared, ask("by connect")).status == "succeeded"
    assert house.submissions == 4


def test_what_is_kept_needs_no_consent(build):
    """A headless pass over finished cells spends nothing and asks for nothing."""
    house = build()
    house.run(house.session(), ask())
    assert house.run(house.session(headless=True), ask()).reused
    house.keys()
    assert house.run(house.session(headless=True), ask("Play needs none")).record.play


def test_consent_raises_no_cap_and_prices_nothing(build):
    """`KLING_NB_YES=1` says yes to spending under the caps, and to nothing else."""
    house = build()
    house.set(YES=1, BUDGET="0.30")
    session = house.session(headless=True)
    refused(house, session, BudgetError, r"\$0\.30")
    house.set(BUDGET="10")
    with pytest.raises(UnpricedError, match="--allow-unpriced"):
        session.open(loud(provider="runflow"))
    assert house.submissions == 0


# -- prices nobody knows -----------------------------------------------------------------
def loud(**options):
    from kling_nb.records.request import make_request
    from kling_nb.session.plan import Ask

    return Ask(request=make_request(prompt="A drum solo", duration=5, audio=True), **options)


def test_an_unknown_price_is_refused_unless_allowed(build):
    """Runflow names no price with sound: allowed, the dearest known price of the model is held back."""
    house = build(faults={"cost_told": "never"})
    session = house.session()
    with pytest.raises(UnpricedError, match="--price"):
        session.open(loud(provider="runflow"))
    assert house.submissions == 0
    assert session.plan(loud(provider="runflow", allow_unpriced=True)).micros is None
    run = house.run(session, loud(provider="runflow", allow_unpriced=True))
    assert run.status == "succeeded"
    assert run.estimate is None
    assert run.cost is None, "unknown is not nought"
    totals = session.totals()
    assert (totals.settled_micros, totals.reserved_micros, totals.unknown) == (0, 840_000, 1)


def test_a_price_of_the_users_own_is_what_is_held_back(build):
    """`--price` stands in for a price nobody names; what is reported settles it."""
    house = build(held=True)
    session = house.session()
    [run] = session.open(loud(provider="runflow", price=Decimal("0.20")))
    assert session.totals().reserved_micros == 1_000_000
    house.let_go()
    run.wait(90)
    totals = session.totals()
    assert (totals.settled_micros, totals.reserved_micros, totals.unknown) == (840_000, 0, 0)


@pytest.mark.parametrize("given", ["call", "file"])
def test_one_absurd_bill_does_not_close_a_provider(build, tmp_path, given):
    """The refusal names the bill, its run and the list price; a price of the user's own goes on."""
    house = build(faults={"cost_factor": 100})
    session = house.session()
    dear = house.run(session, ask(provider="runflow"))
    assert dear.cost == Decimal("33.6")
    error = refused(house, house.session(), BudgetError, "suspicious", prompt="Dunes", provider="runflow")
    for words in (
        dear.id,
        "billed $33.60 for 3 s",
        "100 times the stated price of $0.112/s",
        "`--price USD_PER_S`",
    ):
        assert words in str(error)
    refused(
        house,
        house.session(),
        BudgetError,
        "--max-cost of .*suspicious",
        prompt="Dunes",
        provider="runflow",
        max_cost=Decimal(2),
    )
    house.faults(cost_factor=1)
    if given == "file":
        (tmp_path / "config" / "kling_nb").mkdir(parents=True, exist_ok=True)
        house.patch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        row = '[prices.runflow."kling-3.0-pro"]\nsilent = "0.112"\nas_of = 2026-11-01\n'
        (tmp_path / "config" / "kling_nb" / "config.toml").write_text(row)
    price = Decimal("0.112") if given == "call" else None
    run = house.run(house.session(), ask("Dunes", provider="runflow", price=price))
    assert (run.status, run.cost) == ("succeeded", Decimal("0.336"))


# -- what it came to -----------------------------------------------------------------------
def test_play_money_stands_apart(build):
    """The sandbox's sums never enter the real ones, and a real budget is not spent on play."""
    house = build()
    house.set(BUDGET="0.40")
    session = house.session()
    house.run(session, ask(provider="sandbox"))
    assert session.totals().settled_micros == 0
    assert session.totals(play=True).settled_micros == EACH
    refused(house, session, BudgetError, "play budget", prompt="Another", provider="sandbox")
    assert house.run(session, ask()).status == "succeeded"
    assert session.totals().settled_micros == session.totals(play=True).settled_micros == EACH


def test_a_charge_nobody_knows_keeps_its_reservation(build):
    """A failed run at RunComfy may have been charged: its money stays held and is counted apart."""
    house = build(faults={"run_failed": 1.0, "cost_told": "never"})
    session = house.session(budget="0.60")
    run = house.run(session, ask(provider="runcomfy"))
    assert run.cost is None
    totals = session.totals()
    assert (totals.settled_micros, totals.reserved_micros, totals.unknown) == (0, EACH, 1)
    refused(house, session, BudgetError, r"\$0\.336 reserved", prompt="Another")


def test_a_charge_that_is_told_later_still_settles(build, wire):
    """The figure may come after the clip: it is asked for once more."""
    house = build(faults={"cost_factor": 2, "cost_lag_s": 0.05})
    session = house.session()
    run = house.run(session, ask(provider=wire))
    assert run.status == "succeeded"
    totals = session.totals()
    assert totals.reserved_micros == 0
    assert totals.settled_micros in {EACH, 2 * EACH}
    assert totals.settled_micros == (run.record.reported_micros or EACH)


def test_billing_above_the_list_is_recorded_and_counts(build, wire):
    """It is shown as it is, counts against the cap, and stops what no longer fits."""
    house = build(faults={"cost_factor": 2})
    session = house.session(budget="0.70")
    run = house.run(session, ask(provider=wire))
    assert run.record.estimate.micros == EACH
    assert run.record.reported_micros == run.record.settled_micros == 2 * EACH
    assert run.cost == Decimal("0.672")
    assert session.totals().left_micros == 28_000
    refused(house, session, BudgetError, r"\$0\.672 spent", prompt="Another", provider=wire)
    assert house.submissions == 1


def test_settling_twice_changes_nothing(build, wire):
    """A clip that is fetched again, or a run taken up again, is not paid for again in the books."""
    house = build()
    session = house.session()
    run = house.run(session, ask(provider=wire))
    before = session.totals()
    run.path.unlink()
    again = house.run(session, ask(provider=wire))
    assert again.status == "succeeded"
    assert session.totals() == before
    session.find(run.id).resume().wait(10)
    session.resume()
    assert session.totals() == before
    assert before.settled_micros == EACH
    assert house.submissions == 1


def test_a_refused_submit_gives_its_money_back(build, wire):
    """Nothing was made, nothing is held."""
    house = build(faults={"submit_402": 1.0})
    session = house.session()
    run = house.run(session, ask(provider=wire))
    assert (run.record.reason, run.cost) == ("credit", 0)
    totals = session.totals()
    assert (totals.settled_micros, totals.reserved_micros, totals.unknown) == (0, 0, 0)
    assert house.submissions == 1


# -- who is asked, for how much ---------------------------------------------------------------
def test_auto_takes_the_first_with_a_key_and_a_price(build):
    """Runflow, then RunComfy, then, with no key at all, the sandbox."""
    house = build()
    session = house.session()
    assert house.run(session, ask("one")).provider == "runflow"
    house.keys("runcomfy")
    assert house.run(session, ask("two")).provider == "runcomfy"
    house.keys()
    assert house.run(session, ask("three")).provider == "sandbox"
    house.keys("runflow", "runcomfy")
    assert house.run(session, loud()).provider == "runcomfy", "Runflow names no price with sound"
    wires = house.stats()["wires"]
    assert (wires["runflow"]["accepted"], wires["runcomfy"]["accepted"]) == (1, 2)


def test_auto_without_any_known_price_is_refused(build):
    """With a Runflow key only, a clip with sound has no known price: not the sandbox, but an error."""
    house = build()
    house.keys("runflow")
    with pytest.raises(UnpricedError):
        house.session().open(loud())
    assert house.submissions == 0


def test_the_choice_is_frozen_in_the_record(build):
    """Provider, model, address and account are those of the sending, whatever is set later."""
    house = build()
    session = house.session()
    run = house.run(session, ask())
    house.keys("runcomfy")
    record = session.find(run.id).record
    assert (record.provider, record.origin) == ("runflow", house.sandbox.runflow)
    assert record.provider_model == "kuaishou/kling-video/v3/pro/text-to-video"
    assert record.model == "kling-3.0-pro"
    assert len(record.account) == 12
    assert house.run(session, ask()).id == run.id, "auto would now go elsewhere, and does not need to"
    assert house.submissions == 1


def test_an_estimate_asks_nobody_and_sends_nothing(build):
    """The price is known before there is a run, and is the one that is reserved."""
    house = build()
    session = house.session()
    price = session.price(ask())
    assert (price.micros, price.reserve_micros) == (EACH, EACH)
    assert "0.112" in price.basis
    plan = session.plan(ask(takes=(0, 1)))
    assert (plan.new, plan.micros) == (2, 2 * EACH)
    assert session.ledger().runs() == []
    assert house.submissions == 0
    with pytest.raises(UsageError):
        estimate(ask().request, plan_model(), "runflow", price_usd_per_s=0.1)


def plan_model():
    from kling_nb.pricing.catalog import find_model

    return find_model("pro")


def test_the_bill_in_the_sidecar_is_decimal_text(build):
    """No float touches money on its way to disk."""
    house = build()
    run = house.run(house.session(), ask())
    price = json.loads(run.path.with_suffix(".json").read_text())["price"]
    assert (price["estimate"], price["reported"], price["settled"]) == ("0.336", "0.336", "0.336")
    assert price["reserved"] == "0.00"


def test_a_full_queue_holds_its_money_and_keeps_its_place(build):
    """More runs than may be in flight: all are reserved at once, and a few are sent at a time."""
    house = build(held=True)
    session = house.session(max_in_flight=2)
    runs = session.open(ask(takes=range(5)))
    assert session.totals().reserved_micros == 5 * EACH
    until(lambda: house.accepted == 2)
    assert house.submissions == 2
    house.let_go()
    assert [run.wait(60).status for run in runs] == ["succeeded"] * 5
    assert house.submissions == 5
