"""A row of the ledger that cannot be read: left out of listings, counted, never taken for none."""

import sqlite3
from contextlib import closing

import pytest

from kling_nb.errors import BudgetError, KlingError, LedgerError
from kling_nb.ledger.rows import read_row
from kling_nb.notebook.line import run_command
from support.clips import make_record
from support.sessions import ask

NEWER = '{"id": "kl7m2q", "status": "paused", "words": "of a newer program"}'


def spoil(house, run_id, text=NEWER):
    """Put another record into a run's row, as a newer program or a bad disk would."""
    with closing(sqlite3.connect(house.folder / "ledger.db")) as ledger, ledger:
        changed = ledger.execute("UPDATE runs SET record = CAST(? AS TEXT) WHERE id = ?", (text, run_id))
        assert changed.rowcount == 1


@pytest.mark.parametrize(
    "text", [NEWER, "", "null", "[" * 5000, '{"reserved_micros": 1e400}', b'{"id": "\xff\xfe'], ids=repr
)
def test_listings_skip_it_and_say_so(build, text):
    """Every look works without it, with the number of rows that could not be read."""
    house = build()
    session = house.session()
    kept, bad = (
        house.run(session, ask("a fox", provider="runcomfy")),
        house.run(session, ask("a hare", provider="runcomfy")),
    )
    spoil(house, bad.id, text)
    later = house.session()
    assert [run.id for run in later.runs()] == [kept.id]
    assert "1 run of the ledger cannot be read" in repr(later.runs())
    assert "1 run of the ledger cannot be read" in later.runs()._repr_mimebundle_()["text/html"]
    for line in ("list", "list -n 1", "cost --all"):
        shown = run_command(later, line, {})
        assert "1 run of the ledger cannot be read" in shown.text, line
        assert "1 run of the ledger cannot be read" in shown.html, line
    assert [row["id"] for row in run_command(later, "list", {}).value] == [kept.id]
    assert len(later.resume()) == 0
    run_command(later, "doctor", {})
    again = house.run(later, ask("a fox", provider="runcomfy"))
    assert (again.id, again.reused) == (kept.id, True)


def test_what_it_holds_back_still_counts(build):
    """Its reservation is in the totals and in the cap."""
    house = build(faults={"run_s": 60}, wait_scale=1)
    session = house.session(budget="0.60")
    [run] = session.open(ask("a fox", provider="runcomfy"))
    held = session.totals().reserved_micros
    assert held > 300_000
    spoil(house, run.id)
    assert session.totals().reserved_micros == held
    with pytest.raises(BudgetError):
        session.open(ask("a hare", provider="runcomfy"))
    shown = run_command(house.session(), "status", {})
    assert "1 run of the ledger cannot be read" in shown.text
    run.detach()


def test_asked_for_by_name_it_says_what_is_wrong(build):
    """Its own id, its provider's id and its own cell are answered in words, and nothing is sent for it."""
    house = build()
    session = house.session()
    run = house.run(session, ask("a fox", provider="runcomfy"))
    sent = house.submissions
    spoil(house, run.id)
    later = house.session()
    asked = (
        lambda: later.find(run.id),
        lambda: later.find(run.provider_run_id),
        lambda: later.open(ask("a fox", provider="runcomfy")),
        lambda: later.plan(ask("a fox", provider="runcomfy")),
        lambda: run_command(later, f"show {run.id}", {}),
        lambda: run_command(later, f"resume {run.id}", {}),
    )
    for ask_for_it in asked:
        with pytest.raises(LedgerError, match=f"row of run {run.id} cannot be read") as caught:
            ask_for_it()
        assert isinstance(caught.value, KlingError)
        assert caught.value.run_id == run.id
    assert house.submissions == sent
    other = house.run(later, ask("a fox", takes=(1,), provider="runcomfy"))
    assert other.status == "succeeded"


def test_a_row_is_parsed_once_and_anew_when_its_text_is_another():
    """What is in the ledger decides: the record that is known stands for its very text alone."""
    record = make_record(id="kzzzzzz2")
    text = record.model_dump_json()
    first = read_row(record.id, text)
    assert first == record
    assert read_row(record.id, text) is first
    changed = record.model_copy(update={"message": "another process wrote this"})
    assert read_row(record.id, changed.model_dump_json()) == changed
