"""Many calls at once: one look, one transaction, one decision each, and no refusal touches another's."""

import itertools
import os
import sys
from collections import Counter

import pytest

from kling_nb.config.environment import Surroundings
from kling_nb.engine.engine import Engine
from kling_nb.engine.limits import Clock
from kling_nb.engine.run import Run
from kling_nb.errors import BlockedError, BudgetError, NotCachedError, UsageError
from kling_nb.ledger.database import Ledger
from kling_nb.session.session import Session
from support.sessions import ask

EACH = 336_000  # three seconds, silent
_listings: list[Counter[str]] = []


def _count(event, _arguments):
    if event in {"os.scandir", "os.listdir"}:
        for count in _listings:
            count["listings"] += 1


sys.addaudithook(_count)


@pytest.fixture
def unsent(tmp_path, monkeypatch):
    """A factory of sessions with a key, whose runs are written down and never driven."""
    monkeypatch.setattr(
        Engine, "handle", lambda engine, record, *, reused=False, sweep="": Run(record, engine, reused=reused)
    )
    monkeypatch.setenv("RUNCOMFY_API_TOKEN", "made-up-key-of-a-test-7Qm2")
    for name, value in {
        "PROVIDER": "runcomfy",
        "RUNCOMFY_URL": "http://127.0.0.1:9",
        "LEDGER": tmp_path / "ledger.db",
        "MEDIA": tmp_path / "kling_media",
        "BUDGET": 1000,
    }.items():
        monkeypatch.setenv(f"KLING_NB_{name}", str(value))
    monkeypatch.chdir(tmp_path)
    made = []

    def start(**options):
        where = Surroundings(notebook=tmp_path / "a.ipynb", folder=tmp_path, headless=False)
        made.append(Session(surroundings=lambda: where, **options))
        return made[-1]

    yield start
    for session in made:
        session.close()


@pytest.fixture
def counts(monkeypatch):
    """Count write transactions, fsyncs and listings of folders."""
    count = Counter()
    writing, fsync = Ledger.writing, os.fsync

    def counted(ledger):
        count["transactions"] += 1
        return writing(ledger)

    monkeypatch.setattr(Ledger, "writing", counted)
    monkeypatch.setattr(os, "fsync", lambda handle: count.update(fsyncs=1) or fsync(handle))
    _listings.append(count)
    yield count
    _listings.remove(count)


def words(opened):
    return ["refused" if one.error else "reused" if one.runs[0].reused else "new" for one in opened]


def left_over(folder):
    return [path.name for path in folder.glob("kling_media/*")]


def test_a_thousand_calls_are_one_transaction(unsent, counts, tmp_path):
    """Each is bought once; asked for again, each is that run; neither cost grows with the calls."""
    session = unsent()
    asks = [ask(f"Fox number {number}") for number in range(1000)]
    opened = session.open_many(asks)
    assert words(opened) == ["new"] * 1000
    assert counts["transactions"] == 1
    # The folder itself is synced once, when it is made.
    assert counts["fsyncs"] <= 1
    assert counts["listings"] <= 4
    assert session.totals().reserved_micros == 1000 * EACH
    assert len(list(tmp_path.glob("kling_media/*.json"))) == 1000
    counts.clear()
    again = session.open_many(asks[:50])
    assert words(again) == ["reused"] * 50
    assert [one.runs[0].id for one in again] == [one.runs[0].id for one in opened[:50]]
    assert (counts["transactions"], counts["fsyncs"]) == (1, 0)
    assert session.totals().reserved_micros == 1000 * EACH


def test_one_call_of_many_takes_is_one_transaction(unsent, counts):
    """`-n 8` is decided about, reserved and inserted at once."""
    assert len(unsent().open(ask(takes=range(8)))) == 8
    assert counts["transactions"] == 1


def test_a_refusal_touches_no_other_call(unsent, tmp_path):
    """What the cap holds is bought, in order; what it does not, and what cannot be served, is refused."""
    session = unsent(budget="1.10")
    asks = [ask("one"), ask("two", provider="nowhere"), ask("three", cached_only=True), ask("four")]
    opened = session.open_many([*asks, ask("five"), ask("six"), ask("one")])
    assert words(opened) == ["new", "refused", "refused", "new", "new", "refused", "reused"]
    errors = [type(one.error) for one in opened if one.error]
    assert errors == [UsageError, NotCachedError, BudgetError]
    assert opened[0].runs[0].id == opened[6].runs[0].id
    assert session.totals().reserved_micros == 3 * EACH
    assert len(session.ledger().runs()) == 3
    # Three receipts, each with its claim, and nothing of those that were refused.
    assert len(left_over(tmp_path)) == 6


def test_calls_that_stand_or_fall_together(unsent, tmp_path):
    """Where one is refused none is bought, and nothing is left of any."""
    session = unsent(budget="1.10")
    with pytest.raises(BudgetError):
        session.open_many([ask(f"Fox number {number}") for number in range(4)], whole=True)
    assert session.ledger().runs() == []
    assert session.totals().reserved_micros == 0
    assert left_over(tmp_path) == []


def test_a_damaged_receipt_stops_its_own_call_alone(unsent, tmp_path):
    """Others of the same call are bought."""
    unsent().open(ask("fox"))
    [receipt] = tmp_path.glob("kling_media/*.json")
    receipt.write_text(receipt.read_text()[:300])
    (tmp_path / "ledger.db").unlink()
    session = unsent()
    opened = session.open_many([ask("owl"), ask("fox"), ask("hen")])
    assert words(opened) == ["new", "refused", "new"]
    assert isinstance(opened[1].error, BlockedError)


def test_a_claim_of_a_dead_sender_stops_its_own_call_alone(unsent, tmp_path):
    """Whoever was sending it is gone and may have sent it; the others do not wait for that."""
    [run] = unsent().open(ask("fox"))
    session = unsent(engine_options={"clock": Clock(monotonic=itertools.count(0, 1000).__next__)})
    claims = session.engine().store(tmp_path / "kling_media").claims
    assert claims.keep(run.record.request_key, run.id, sending=True)
    for left in (*tmp_path.glob("kling_media/*.json"), *tmp_path.glob("ledger.db*")):
        left.unlink()
    other = unsent(engine_options={"clock": Clock(monotonic=itertools.count(0, 1000).__next__)})
    opened = other.open_many([ask("owl"), ask("fox"), ask("hen")])
    assert words(opened) == ["new", "refused", "new"]
    assert run.id in str(opened[1].error)
