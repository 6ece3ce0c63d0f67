"""A second look at charges: only the provider's own word changes the books, once, and leaves an event."""

import json
import threading

import pytest

from kling_nb.notebook.line import run_command
from kling_nb.providers import make_provider
from kling_nb.providers.messages import Reply
from kling_nb.providers.runcomfy import RunComfy
from kling_nb.providers.runflow import Runflow
from kling_nb.providers.sandbox import Sandbox
from kling_nb.records.run import RunStatus
from kling_nb.spending.reconcile import costs
from support.sessions import ask
from support.workbench import KEY

EACH = 336_000  # three seconds, silent


def reconcile(session, line="cost --reconcile"):
    """Reconcile, and give the report with each run's outcome."""
    report = run_command(session, line, {}).value
    return report, {check.run_id: check for check in report.checks}


def events(session, run_id):
    return [(kind, data) for _, kind, data in session.ledger().events(run_id) if kind == "reconciled"]


def test_a_charge_by_the_list_is_corrected_once_the_provider_tells_it(build, wire):
    """Was, is and difference run by run; ledger, sidecar, handle and price list of one's own follow; once."""
    house = build(faults={"cost_told": "never", "cost_factor": 1.25})
    session = house.session()
    run = house.run(session, ask(provider=wire))
    assert (run.record.reported_micros, run.record.settled_micros) == (None, EACH)
    report, checks = reconcile(session)
    assert (checks[run.id].outcome, checks[run.id].words) == ("open", "the provider states no figure")
    assert events(session, run.id) == []

    house.faults(cost_told="on", cost_factor=1.25)
    report, checks = reconcile(session)
    check = checks[run.id]
    assert (check.outcome, check.was_micros, check.is_micros) == ("corrected", EACH, 420_000)
    assert check.difference_micros == 84_000
    row = next(line for line in repr(report).splitlines() if run.id in line).split()
    assert row[2:] == ["$0.336", "$0.42", "+$0.084", "corrected"]
    kept = session.ledger().get(run.id)
    assert (kept.reported_micros, kept.settled_micros, kept.reserved_micros) == (420_000, 420_000, 0)
    assert kept.estimate == run.record.estimate, "an estimate is history"
    [(_, data)] = events(session, run.id)
    assert (data["was_settled_micros"], data["settled_micros"], data["reported_micros"]) == (
        EACH,
        420_000,
        420_000,
    )
    side = json.loads(next(house.media.glob("*.json")).read_text(encoding="utf-8"))
    assert side["price"]["settled"] == "0.42"
    assert session.find(run.id).record.settled_micros == 420_000
    assert session.totals().settled_micros == 420_000
    assert str(session.price(ask("Another", provider=wire)).usd) == "0.42", "the bill teaches the price"

    report, checks = reconcile(session)
    assert checks == {}
    assert "there was nothing to ask" in repr(report)
    assert len(events(session, run.id)) == 1
    assert house.submissions == 1


def test_a_charge_that_is_as_listed_is_confirmed(build, wire):
    """The same figure in the provider's own word is written down as such."""
    house = build(faults={"cost_told": "never"})
    session = house.session()
    run = house.run(session, ask(provider=wire))
    house.faults(cost_told="on")
    _, checks = reconcile(session)
    assert (checks[run.id].outcome, checks[run.id].difference_micros) == ("confirmed", 0)
    assert session.ledger().get(run.id).reported_micros == EACH
    assert len(events(session, run.id)) == 1


def test_a_figure_in_other_money_changes_no_dollar(build, wire):
    """It is written down as the provider's word, and what is on the books stays, and stays a guess."""
    house = build(faults={"cost_told": "never"})
    session = house.session()
    run = house.run(session, ask(provider=wire))
    house.faults(cost_told="on", cost_currency="EUR")
    report, checks = reconcile(session)
    check, kept = checks[run.id], session.ledger().get(run.id)
    assert (check.outcome, check.is_micros) == ("open", EACH)
    assert "it reports 0.336 EUR, which no dollar sum can count" in repr(report)
    assert (kept.reported_micros, kept.currency, kept.settled_micros) == (EACH, "EUR", EACH)
    assert report.totals[0]["reported_unknown"] == 1
    assert len(events(session, run.id)) == 1
    report, checks = reconcile(session)
    assert (checks[run.id].outcome, session.ledger().get(run.id)) == ("open", kept)
    assert "it reports 0.336 EUR" in repr(report)
    assert len(events(session, run.id)) == 1, "the same again is not written down again"
    house.faults(cost_told="on", cost_currency="USD", cost_factor=1.25)
    assert reconcile(session)[1][run.id].outcome == "corrected"
    kept = session.ledger().get(run.id)
    assert (kept.reported_micros, kept.currency, kept.settled_micros) == (420_000, "USD", 420_000)
    assert reconcile(session)[1] == {}


def test_what_a_bill_in_other_money_holds_is_released_by_one_in_dollars(build, wire):
    """Nobody knows such a charge in dollars, so its money is held until the provider says it in dollars."""
    house = build(faults={"cost_currency": "EUR"})
    session = house.session()
    run = house.run(session, ask(provider=wire))
    before = run.record
    assert (before.settled_micros, before.reserved_micros, before.currency) == (None, EACH, "EUR")
    report = costs(session=session)
    assert "1 charge is not confirmed in dollars by the provider: %kling cost --reconcile" in repr(report)
    _, checks = reconcile(session)
    assert (checks[run.id].outcome, session.ledger().get(run.id)) == ("open", before)
    assert events(session, run.id) == []
    house.faults(cost_currency="USD")
    _, checks = reconcile(session)
    assert (checks[run.id].outcome, checks[run.id].is_micros) == ("settled", EACH)
    kept = session.ledger().get(run.id)
    assert (kept.settled_micros, kept.reserved_micros, kept.currency) == (EACH, 0, "USD")
    assert (session.totals().reserved_micros, house.submissions) == (0, 1)
    # A kernel that was restarted begins a new session, and says what there was before.
    earlier = "Earlier in this ledger: $0.336 of real money; %kling cost --all has it."
    assert earlier in repr(costs(session=house.session()))
    assert earlier not in repr(report)


@pytest.mark.parametrize("bill", ["off", "on"])
def test_an_unknown_charge_of_a_failed_run_is_settled_by_the_providers_figure(build, bill):
    """RunComfy says nowhere whether failed runs are charged: its figure settles them, and nothing else."""
    house = build(faults={"run_failed": 1, "cost_told": "never"})
    session = house.session()
    run = house.run(session, ask(provider="runcomfy"))
    assert (run.record.charged, run.record.settled_micros, run.record.reserved_micros) == (
        "unknown",
        None,
        EACH,
    )
    _, checks = reconcile(session)
    assert (checks[run.id].outcome, checks[run.id].is_micros) == ("open", None)
    assert session.ledger().get(run.id) == run.record
    house.faults(run_failed=0, cost_told="on", bill_failed=bill)
    report, checks = reconcile(session)
    check, kept = checks[run.id], session.ledger().get(run.id)
    if bill == "on":
        assert (check.outcome, check.was_micros, check.is_micros) == ("settled", None, EACH)
        assert (kept.charged, kept.settled_micros, kept.reserved_micros) == ("yes", EACH, 0)
        assert report.totals[0]["settled_unknown"] == 0
    else:
        # The wire leaves the figure out where it is 0, and silence is no figure.
        assert (check.outcome, kept) == ("open", run.record)
    assert (kept.status, house.submissions) == (RunStatus.FAILED, 1)


def test_what_the_contract_says_settles_an_unknown_charge(build):
    """Runflow does not charge failed runs: one that we knew too little of and that failed there is free."""
    house = build(faults={"run_failed": 1, "cost_told": "never"})
    session = house.session()
    run = house.run(session, ask(provider="runflow"))
    unsure = session.ledger().change(
        run.id, "test", charged="unknown", settled_micros=None, reserved_micros=EACH, reason="expired"
    )
    _, checks = reconcile(session)
    kept = session.ledger().get(run.id)
    assert (checks[run.id].outcome, checks[run.id].is_micros) == ("settled", 0)
    assert "does not charge" in checks[run.id].words
    assert (kept.charged, kept.settled_micros, kept.reserved_micros) == ("no", 0, 0)
    assert kept.reported_micros is None, "no figure was told"
    assert unsure.settled_micros is None


def test_what_cannot_be_asked_is_said_run_by_run(build):
    """No key, another address, another account, no id: each leaves the books alone and says why."""
    house = build(faults={"cost_told": "never"})
    session = house.session()
    runs = {name: house.run(session, ask(f"Fox {name}", provider="runcomfy")) for name in "abc"}
    ledger = session.ledger()
    ledger.change(runs["b"].id, "test", origin="https://elsewhere.example")
    house.faults(cost_told="on", submit_drop="next:1")
    house.set(RUNCOMFY_URL=house.sandbox.runcomfy)
    lost = house.run(session, ask("Fox lost", provider="runcomfy"))
    assert lost.status == RunStatus.LOST
    ledger.change(runs["c"].id, "test", provider_run_id="00000000-0000-4000-8000-000000000000")
    before = {record.id: record for record in ledger.runs()}

    house.keys()
    _, checks = reconcile(session)
    assert {check.outcome for check in checks.values()} == {"not asked"}
    assert "no key" in checks[runs["a"].id].words
    house.keys("runcomfy", key="other-key-of-a-test-7Qm2")
    _, checks = reconcile(session)
    assert "another account" in checks[runs["a"].id].words
    house.keys("runcomfy")
    _, checks = reconcile(session)
    assert checks[runs["a"].id].outcome == "confirmed"
    assert "another address" in checks[runs["b"].id].words
    assert "has no run" in checks[runs["c"].id].words
    assert f"%kling resolve {lost.id}" in checks[lost.id].words
    after = {record.id: record for record in ledger.runs()}
    assert [run_id for run_id in before if before[run_id] != after[run_id]] == [runs["a"].id]


def test_two_who_ask_at_once_settle_it_once(build):
    """Whoever comes second finds the books changed, and leaves them so: one event, one sum."""
    house = build(faults={"cost_told": "never"})
    first, second = house.session(), house.session()
    run = house.run(first, ask(provider="runcomfy"))
    house.faults(cost_told="on", cost_factor=2)
    outcomes, start = [], threading.Barrier(2)

    def work(session):
        start.wait()
        _, checks = reconcile(session, "cost --all --reconcile")
        outcomes.extend(check.outcome for check in checks.values())

    threads = [threading.Thread(target=work, args=(session,)) for session in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outcomes.count("corrected") == 1
    assert len(events(first, run.id)) == 1
    assert first.ledger().get(run.id).settled_micros == 2 * EACH
    assert house.submissions == 1


def test_play_money_is_never_asked_about(build):
    """Without a key everything is the sandbox's: there is nothing to reconcile and nobody to ask."""
    house = build()
    house.keys()
    session = house.session()
    house.run(session, ask())
    report, checks = reconcile(session)
    assert (checks, report.balances) == ({}, ())


def test_the_command_line_reconciles_the_whole_ledger(build):
    """`kling-nb spend --reconcile --json` is one document with outcomes and balances, and holds no key."""
    house = build(faults={"cost_told": "never"})
    session = house.session()
    run = house.run(session, ask(provider="runcomfy"))
    house.faults(cost_told="on", balance_usd=12.5)
    code, out, err = house.tool("spend", "--reconcile", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    [check] = told["reconciled"]
    assert (check["run"], check["outcome"], check["was"], check["is_micros"]) == (
        run.id,
        "confirmed",
        "0.336",
        EACH,
    )
    assert told["balances"] == [
        {"provider": "runflow", "balance": "12.50", "words": ""},
        {"provider": "runcomfy", "balance": "12.5", "words": ""},
    ]
    assert KEY not in out
    assert session.ledger().get(run.id).reported_micros == EACH


# -- balances ----------------------------------------------------------------------------
def test_a_balance_is_asked_of_no_host_but_the_providers_own():
    """RunComfy documents another host for it: exactly that one, and only beside its own base address."""
    assert Runflow().balance_call().url == "https://api.runflow.io/v1/billing/balance"
    own = RunComfy()
    assert (own.balance_call().url, own.balance_url) == (
        "https://api.runcomfy.net/prod/v2/balance",
        "https://api.runcomfy.net",
    )
    near = RunComfy("http://127.0.0.1:9/runcomfy")
    assert near.balance_call().url == "http://127.0.0.1:9/runcomfy/prod/v2/balance"
    for base in (
        "https://proxy.example",
        "https://model-api.runcomfy.net.evil.example",
        "https://model-api.runcomfy.net:8443",
        "https://api.runcomfy.net",
        "http://model-api.runcomfy.net",
    ):
        assert (RunComfy(base).balance_call(), RunComfy(base).balance_url) == (None, None), base
    assert Sandbox().balance_url == "http://127.0.0.1"


@pytest.mark.parametrize(
    ("wire", "body", "told"),
    [
        ("runflow", {"balance": "98.765432"}, "98.765432"),
        ("runflow", {"balance_cents": 1234}, "12.34"),
        ("runflow", {"balance": 0.1}, "0.1"),
        ("runflow", {"balance": "much"}, None),
        ("runflow", {}, None),
        ("runcomfy", {"balance_microdollars": 12500001, "balance_usd": 12.5}, "12.500001"),
        ("runcomfy", {"balance_usd": 12.5, "currency": "USD"}, "12.5"),
        ("runcomfy", {"balance_usd": 12.5, "currency": "EUR"}, None),
        ("runcomfy", {"balance_microdollars": True}, None),
        ("runcomfy", [], None),
    ],
)
def test_a_balance_is_exact_or_untold(wire, body, told):
    """Cents and micro-dollars are exact; words, another currency and no answer are no balance."""
    reply = Reply(status=200, headers={}, body=json.dumps(body).encode())
    assert make_provider(wire).read_balance(reply) == told
    assert make_provider(wire).read_balance(Reply(status=500, headers={}, body=reply.body)) is None


def test_balances_are_told_by_doctor_and_report(build):
    """With --online, and only then, the doctor tells what is left; a refusal is words and no key."""
    house = build(faults={"balance_usd": 12.5, "balance_form": "balance_cents"})
    session = house.session()

    def found(line):
        rows = {row["check"]: row for row in run_command(session, line, {}).value}
        return [rows[f"key for {name}"]["found"] for name in ("Runflow", "RunComfy")]

    assert not any("Balance" in words for words in found("doctor"))
    assert [
        "Balance at Runflow: $12.50." in w or "Balance at RunComfy: $12.50." in w
        for w in found("doctor --online")
    ] == [True, True]
    report, _ = reconcile(session)
    assert "Balance at Runflow: $12.50." in repr(report)
    house.keys("runflow", key="bad-key-of-a-test")
    report, _ = reconcile(session)
    assert "Balance at Runflow: not stated (Runflow answered HTTP 401 with no balance)." in repr(report)
    assert "bad-key" not in repr(report) + report._repr_html_()
    house.set(RUNFLOW_URL="http://127.0.0.1:1")
    report, _ = reconcile(session)
    assert "not stated (Could not reach 127.0.0.1" in repr(report)
