"""Three figures that never mix: what was estimated, what was reported, what is settled; and never a float."""

import ast
import json
import tempfile
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kling_nb
from kling_nb.errors import BudgetError, KlingError
from kling_nb.ledger.database import Ledger
from kling_nb.providers import make_provider
from kling_nb.records.money import Estimate, currency, dollars, in_currency, micros, usd
from kling_nb.records.receipt import from_receipt, to_receipt
from kling_nb.records.run import RunStatus
from kling_nb.spending.sums import is_open
from support.clips import make_record
from support.sessions import ask
from support.workbench import until

EACH = 336_000  # three seconds, silent
PACKAGE = Path(kling_nb.__file__).parent


def text(run):
    return run._repr_mimebundle_()["text/plain"]


# -- sums -----------------------------------------------------------------------------
amounts = st.integers(0, 10**12)
figures = st.none() | amounts


@settings(max_examples=25)
@given(rows=st.lists(st.tuples(figures, figures, figures, amounts, st.booleans()), max_size=12))
def test_sums_are_exact_and_figures_never_mix(rows):
    """Whatever the three figures are: each comes back as it was, and a sum is the sum of what is settled."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        ledger = Ledger(Path(folder) / "ledger.db")
        for number, (estimated, reported, settled, reserved, play) in enumerate(rows):
            record = make_record(
                id=f"k{number:07d}",
                prompt=f"{number}",
                session_id="s",
                status=RunStatus.SUCCEEDED,
                play=play,
                estimate=Estimate(micros=estimated, reserve_micros=reserved),
                reported_micros=reported,
                settled_micros=settled,
                reserved_micros=reserved,
            )
            with ledger.writing() as transaction:
                transaction.insert(record)
            for copy in (ledger.get(record.id), from_receipt(json.loads(json.dumps(to_receipt(record))))):
                assert (copy.estimate.micros, copy.reported_micros) == (estimated, reported)
                assert (copy.settled_micros, copy.reserved_micros) == (settled, reserved)
        for play in (False, True):
            mine = [row for row in rows if row[4] is play]
            sums = ledger.totals("s", play=play)
            assert sums.settled_micros == sum(row[2] or 0 for row in mine)
            assert sums.reserved_micros == sum(row[3] for row in mine)
            assert sums.unknown == sum(row[2] is None for row in mine)
        ledger.close()


@given(amount=st.integers(-(10**18), 10**18))
def test_micro_dollars_are_dollars_and_back(amount):
    """No amount loses a digit on its way out and in again."""
    out = dollars(amount)
    assert isinstance(out, Decimal)
    assert micros(out) == amount
    assert Decimal(usd(amount).replace("$", "")) == out


@settings(max_examples=25)
@given(first=amounts, again=st.lists(amounts, max_size=3))
def test_an_ended_run_is_settled_once(first, again):
    """Who comes late with another bill changes nothing: only the holder, in that state, settles."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        ledger = Ledger(Path(folder) / "ledger.db")
        record = make_record(status=RunStatus.SAVING, session_id="s", reserved_micros=EACH)
        with ledger.writing() as transaction:
            transaction.insert(record)
            transaction.claim(record.id, "me", 30)
        done = {"status": RunStatus.SUCCEEDED, "reserved_micros": 0}
        ledger.change_as("me", record.id, "saved", at=RunStatus.SAVING, settled_micros=first, **done)
        for other in again:
            with pytest.raises(KlingError):
                ledger.change_as("me", record.id, "saved", at=RunStatus.SAVING, settled_micros=other, **done)
        sums = ledger.totals("s", play=False)
        assert (sums.settled_micros, sums.reserved_micros) == (first, 0)
        assert len(ledger.events(record.id)) == 2
        ledger.close()


# -- the provider's own figure -----------------------------------------------------------
def test_a_figure_that_comes_late_is_read_once_more(build, wire):
    """The clip is there before the bill: after the download it is asked for again, and it counts."""
    house = build(held=True, faults={"run_s": 0, "cost_factor": 2, "cost_lag_s": 1})
    session = house.session()
    # The figure is late until the end has been read, and is there before the clip is.
    session.engine().checkpoint = lambda step: step == "end in the ledger" and house.let_go()
    run = house.run(session, ask(provider=wire))
    record = run.record
    assert (record.estimate.micros, record.reported_micros, record.settled_micros) == (
        EACH,
        2 * EACH,
        2 * EACH,
    )
    kinds = [kind for _, kind, _ in session.ledger().events(run.id)]
    assert kinds.count("reported") == 1
    assert house.submissions == 1


def test_a_bill_above_the_list_counts_before_the_clip_is_here(build, wire):
    """What the provider has billed is held at once, also while its file cannot be fetched."""
    house = build(faults={"cost_factor": 2, "download_404": 1})
    session = house.session(budget="0.70")
    [run] = session.open(ask(provider=wire))
    until(lambda: session.ledger().get(run.id).status == RunStatus.SAVING)
    record = session.ledger().get(run.id)
    assert (record.reported_micros, record.reserved_micros, record.settled_micros) == (
        2 * EACH,
        2 * EACH,
        None,
    )
    with pytest.raises(BudgetError, match=r"\$0\.672 reserved"):
        session.open(ask("another", provider=wire))
    house.faults(download_404=0)
    run.resume().wait(90)
    totals = session.totals()
    assert (totals.settled_micros, totals.reserved_micros) == (2 * EACH, 0)
    assert house.submissions == 1


@pytest.mark.parametrize(
    ("says", "shown"), [("eur", "0.336 EUR"), ("credits", "0.336 of an unknown currency")]
)
def test_other_money_is_in_no_dollar_sum(build, wire, says, shown):
    """It is shown in its own currency; in dollars the charge is unknown, and keeps its reservation."""
    house = build(faults={"cost_currency": says})
    session = house.session()
    run = house.run(session, ask(provider=wire))
    record = run.record
    assert record.status == "succeeded"
    assert record.currency == ("EUR" if says == "eur" else "XXX")
    assert (record.reported_micros, record.settled_micros, run.cost) == (EACH, None, None)
    totals = session.totals()
    assert (totals.settled_micros, totals.reserved_micros, totals.unknown) == (0, EACH, 1)
    assert (
        f"charged, amount unknown, up to $0.336 reserved; {make_provider(wire).label} reports {shown}"
        in text(run)
    )
    page = run._repr_mimebundle_()["text/html"]
    assert shown in page
    assert session.ledger().bills(wire, record.model, origin=record.origin, audio=False) == []
    assert from_receipt(to_receipt(record)).currency == record.currency
    assert house.submissions == 1


@pytest.mark.parametrize(
    ("wire", "told"), [("runflow", {"cost_currency": "EUR"}), ("runcomfy", {"cost_lag_s": 1, "run_s": 0})]
)
def test_a_clip_that_the_provider_gives_away_was_not_charged(build, wire, told):
    """Nothing to pay is nothing in every currency, and also when it is told late."""
    house = build(held="cost_lag_s" in told, faults={"cost_factor": 0, **told})
    session = house.session()
    session.engine().checkpoint = lambda step: step == "end in the ledger" and house.let_go()
    record = house.run(session, ask(provider=wire)).record
    assert (record.status, record.charged, record.estimate.micros) == ("succeeded", "no", EACH)
    assert (record.reported_micros, record.settled_micros, record.reserved_micros) == (0, 0, 0)
    assert not is_open(record), "its provider has said so"
    assert session.ledger().bills(wire, record.model, origin=record.origin, audio=False) == []


def test_a_failed_run_billed_in_other_money_stays_unknown(build, wire):
    """Also without a clip: no sum takes it for dollars."""
    house = build(faults={"cost_currency": "EUR", "run_failed": 1, "bill_failed": "on"})
    session = house.session()
    run = house.run(session, ask(provider=wire))
    assert (run.record.status, run.record.charged) == ("failed", "yes")
    assert run.record.settled_micros is None
    totals = session.totals()
    assert (totals.settled_micros, totals.reserved_micros, totals.unknown) == (0, EACH, 1)
    assert "0.336 EUR" in text(run)


@pytest.mark.parametrize(
    ("said", "known"),
    [(None, "USD"), (" usd ", "USD"), ("JPY", "JPY"), (5, "XXX"), ("$", "XXX"), ("", "XXX")],
)
def test_a_currency_is_taken_as_it_is_said(said, known):
    """No word means dollars, as both contracts do; what cannot be read is never taken for them."""
    assert currency(said) == known
    assert in_currency(520_000, known).startswith("$" if known == "USD" else "0.52 ")


# -- no float --------------------------------------------------------------------------
WORDS = ("micros", "usd", "cost", "price", "budget", "dollars", "amount", "settled", "reserved", "billed")


def money_like(node):
    words = ast.unparse(node).lower()
    return any(word in words for word in WORDS)


def floats(tree):
    """Give the lines where money meets a float."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign | ast.arg) and node.annotation is not None:
            name = node.target if isinstance(node, ast.AnnAssign) else ast.Name(node.arg)
            kinds = {part.id for part in ast.walk(node.annotation) if isinstance(part, ast.Name)}
            if "float" in kinds and money_like(name):
                yield node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            kind = node.returns and ast.unparse(node.returns)
            if kind in {"float", "float | None"} and money_like(ast.Name(node.name)):
                yield node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float":
            if any(money_like(argument) for argument in node.args):
                yield node.lineno
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            sides = [side for side in (node.left, node.right) if isinstance(side, ast.Name | ast.Attribute)]
            if any(ast.unparse(side).endswith("micros") for side in sides):
                yield node.lineno


def test_no_float_touches_money():
    """No annotation, conversion or division of the package makes one; the sandbox writes JSON numbers."""
    checked, found = 0, []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.is_relative_to(PACKAGE / "sandbox"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [f"{path.relative_to(PACKAGE)}:{line}" for line in floats(tree)]
        checked += 1
    assert found == []
    assert checked > 100
    bad = "def f(price: float): pass\nx = float(cost)\ny = settled_micros / 2\nusd: float = 1.0\n"
    assert sorted(set(floats(ast.parse(bad)))) == [1, 2, 3, 4]
