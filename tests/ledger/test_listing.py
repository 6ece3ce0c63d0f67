"""The newest runs, read from the file alone: the same as the ledger gives, and the same refusals."""

import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest

from kling_nb.errors import LedgerError
from kling_nb.ledger.database import Ledger
from kling_nb.ledger.databases import file_systems
from kling_nb.ledger.listing import SCHEMA, newest_runs
from kling_nb.ledger.schema import STEPS
from support.clips import make_record


@pytest.fixture
def ledger(tmp_path):
    """A ledger with three runs, one of which cannot be read."""
    made = Ledger(tmp_path / "ledger.db")
    first = make_record(prompt="a fox")
    with made.writing() as transaction:
        for number in range(3):
            moment = first.created_at + timedelta(seconds=number)
            transaction.insert(
                make_record(id=f"kl7m2{number}", prompt=f"a fox, number {number}", created_at=moment)
            )
    change(made, "UPDATE runs SET record = CAST(X'7BFF' AS TEXT) WHERE id = 'kl7m21'")
    yield made
    made.close()


def change(ledger, statement):
    """Do something to the file that no program of ours does."""
    with closing(sqlite3.connect(ledger.where)) as file, file:
        file.execute(statement)


def test_the_newest_runs_are_those_of_the_ledger(ledger, tmp_path):
    """In their order, with what cannot be read, and while somebody else writes; nothing is left beside it."""
    with ledger.writing() as transaction:
        transaction.insert(make_record(id="kl7m23", prompt="a hare"))
        for most in (1, 2, 5):
            found, known = newest_runs(ledger.where, most), ledger.runs(limit=most)
            assert (found, found.unreadable) == (known, known.unreadable)
    ledger.close()
    assert "kl7m23" in [record.id for record in newest_runs(ledger.where, 5)]
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.db"]


def test_a_file_of_an_earlier_version_is_brought_up_to_date(ledger):
    """As by whoever opens the ledger."""
    change(ledger, f"DELETE FROM migrations WHERE number = {SCHEMA}")
    assert newest_runs(ledger.where, 5) == ledger.runs()
    with closing(sqlite3.connect(ledger.where)) as file:
        assert [*file.execute("SELECT max(number) FROM migrations")] == [(SCHEMA,)]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO migrations VALUES (99, 'from the future', '2030-01-01T00:00:00+00:00')",
        "DROP TABLE migrations",
        "DROP TABLE runs",
    ],
)
def test_a_file_that_is_wrong_is_refused_in_words(ledger, statement):
    """A newer one, and one that lacks a table."""
    change(ledger, statement)
    with pytest.raises(LedgerError):
        newest_runs(ledger.where, 5)


def test_a_file_that_is_no_ledger_is_refused_in_words(tmp_path):
    """And one that is not there is an empty ledger."""
    (tmp_path / "words.db").write_text("no ledger " * 1000)
    with pytest.raises(LedgerError, match="file is not a database"):
        newest_runs(str(tmp_path / "words.db"), 5)
    assert newest_runs(str(tmp_path / "none.db"), 5) == []


def test_a_file_that_another_machine_uses_is_refused(ledger, tmp_path, monkeypatch):
    """On a network file system, as by whoever opens the ledger."""
    table = tmp_path / "mountinfo"
    table.write_text(f"36 35 98:0 / {tmp_path} rw - nfs4 server:/export rw\n")
    monkeypatch.setattr(file_systems, "MOUNTS", table)
    with ledger.writing() as transaction:
        assert transaction.claim("kl7m20", "elsewhere:123:abcd", 30)
    with pytest.raises(LedgerError, match="elsewhere uses it"):
        newest_runs(ledger.where, 5)


def test_the_version_is_that_of_the_schema():
    """A new step makes this file's number one more."""
    assert len(STEPS) == SCHEMA
