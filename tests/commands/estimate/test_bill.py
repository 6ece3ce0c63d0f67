"""The bill of a notebook before it is run: the same figures as the act, nothing run, sent or kept."""

import contextlib
import gc
import json
import sqlite3
from datetime import date
from pathlib import Path

import jupytext
import nbformat
import pytest

from kling_nb.commands.estimate.bill import estimate_notebook
from kling_nb.commands.estimate.view import show_bill
from kling_nb.errors import UsageError
from kling_nb.loop import Loop
from kling_nb.notebook.line import run_command
from kling_nb.records.run import RunStatus
from kling_nb.session.session import Session
from support.kernels import errors, execute, notebook, records
from support.markup import judge
from support.sessions import ask
from support.workbench import KEY, houses, until

DAY = date(2026, 11, 21)
THREE_S = 336_000
#: Runs several commands in one process, and tells the exit code and the words of each.
EVERY_COMMAND = """
import contextlib, io, json, sys
from kling_nb.cli import main
told = []
for words in json.loads(sys.argv[1]):
    sys.argv, said, code = ["kling-nb", *words], io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    told.append((code, said.getvalue()))
print(json.dumps(told))
"""


@pytest.fixture
def build(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    yield from houses(tmp_path, monkeypatch)


def saved(house, *sources, name="a.ipynb"):
    nbformat.write(notebook(*sources), house.folder / name)
    return house.folder / name


def bill_of(house, *sources, session=None, **options):
    session = session or house.session(today=lambda: DAY)
    return estimate_notebook(session, saved(house, *sources), **options)


def rows(bill):
    """Cell, state, new, reused, and what is held, of each line."""
    return [(c.cell, c.state, c.new, c.reused, c.quote.reserve_micros) for c in bill.cells]


# -- the figures ------------------------------------------------------------------------------
def test_the_states_of_cells_and_the_golden_total(build):
    """Reused, partly here, new, twice the same, a storyboard, a dry run: each counted once."""
    house = build()
    session = house.session(today=lambda: DAY)
    house.run(session, ask("A red fox", provider="runcomfy"))
    bill = bill_of(
        house,
        "%load_ext kling_nb",
        "%%kling fox -d 3\nA red fox",
        "%%kling foxes -d 3 -n 4 -p runcomfy\nA red fox",
        "%%kling dunes -d 3 --audio -p runcomfy\nDunes",
        "%%kling again -d 3 --audio -p runcomfy\nDunes",
        "%%kling elsewhere -d 3 -p runflow\nDunes",
        "%%kling trailer -p runcomfy\n[5s] A vineyard\n[3s] Two hands",
        "%%kling -d 3 --dry-run\nNever",
        "%%kling -d 3 --no-cache -p runcomfy\nDunes --audio is another",
        "%%kling -d 3 --no-cache --audio -p runcomfy\nDunes",
        session=session,
    )
    assert rows(bill) == [
        (2, "reused", 0, 1, 0),
        (3, "new", 3, 1, 3 * THREE_S),
        (4, "new", 1, 0, 504_000),
        (5, "reused", 0, 1, 0),
        (6, "new", 1, 0, THREE_S),
        (7, "new", 1, 0, 896_000),
        (8, "dry run", 0, 0, 0),
        (9, "new", 1, 0, THREE_S),
        (10, "new", 1, 0, 504_000),
    ]
    assert bill.cells[3].why == "the same as cell 4"
    assert str(bill.quote()) == "$3.584"
    assert bill.quote().reserve_micros == 3 * THREE_S + 504_000 + THREE_S + 896_000 + THREE_S + 504_000
    assert (bill.refused, bill.stops_at, bill.totals[0].settled_micros) == (False, None, THREE_S)
    shown = show_bill(bill)
    judge(shown.html)
    for words in (
        "Running all of it would cost $3.584 (8 new, 3 reused).",
        "$0.168/s with sound, RunComfy's public price table, 2026-05-01, 6 months old",
        "It fits every cap.",
        "$6.08 left after it",
        "nothing was run, nothing was sent",
    ):
        assert words in shown.text, words


def test_what_is_unknown_is_counted_and_never_nought(build):
    """An unpriced clip that is allowed and code that must run: a known sum, and so many unknown."""
    house = build()
    bill = bill_of(
        house,
        "%%kling -d 3\nA red fox",
        "%%kling -d 5 --audio -p runflow --allow-unpriced\nWaves",
        "%%kling -d 5 --audio -p runflow\nMore waves",
        "%%kling\nA {{colour}} fox",
        "import kling_nb as kling\nfor p in range(3):\n    kling.submit(str(p))",
    )
    assert [cell.state for cell in bill.cells] == ["new", "new", "unpriced", "unknown", "unknown"]
    assert str(bill.quote()) == "$0.336 + 4 unknown"
    assert bill.quote().reserve_micros == THREE_S + 2 * 840_000
    assert bill.refused
    assert bill.stops_at.cell == 3
    shown = show_bill(bill)
    assert "would cost at least $0.336 + 4 unknown, $2.016 reserved" in shown.text
    # One of the two unpriced cells is refused; its run has no known price either.
    assert "4 cells unknown)" in shown.text
    assert shown.value["complete"] is False
    assert "Run All would stop at cell 3: " in shown.text
    assert "--allow-unpriced" in shown.text
    assert shown.value["would_cost_usd"] == {"known": "0.336", "unknown": 4, "held": "2.016"}


def test_a_call_with_literal_values_costs_what_its_cell_does(build):
    """`submit` and `generate` at the top level: priced, reused, refused and paid in the same account."""
    house = build()
    bill = bill_of(
        house,
        "import kling_nb as kling\nkling.connect(budget='0.90')",
        "%%kling -d 3\nA red fox",
        "fox = kling.submit('A red fox', duration=3)\nother = kling.generate('Another fox', duration=3)",
        "kling.submit('A red fox', duration=3, take=1, provider='sandbox')",
        "kling.submit('Too much', duration=5)",
    )
    assert [(c.cell, c.line, c.state, c.name, c.play) for c in bill.cells] == [
        (2, 1, "new", None, False),
        (3, 1, "reused", "fox", False),
        (3, 2, "new", "other", False),
        (4, 1, "new", None, True),
        (5, 1, "refused", None, False),
    ]
    assert bill.cells[1].why == "the same as cell 2"
    assert bill.cells[4].why.startswith("$0.56 does not fit: $0.00 spent + $0.672 reserved")
    assert bill.complete


def test_play_money_clips_answer_no_call_that_is_paid_for(build):
    """What a cell above makes counts as made only for a call that would take it when it runs."""
    house = build()
    bill = bill_of(
        house,
        "%%kling -d 3 -p sandbox\nA red fox",
        "%%kling -d 3\nA red fox",
        "%%kling -d 3 -p sandbox\nA red fox",
        "%%kling -d 3 -p runcomfy --take 1\nA red fox",
        "%%kling -d 3 -p runflow --take 1\nA red fox",
        "%%kling -d 3 --take 1\nA red fox",
    )
    assert [(cell.state, cell.play) for cell in bill.cells] == [
        ("new", True),
        ("new", False),
        ("reused", True),
        ("new", False),
        ("new", False),
        ("reused", False),
    ]


@pytest.mark.parametrize("cap", ["BUDGET", "PROJECT_DAILY", "USER_DAILY", "USER_TOTAL"])
def test_every_cap_is_judged_over_the_whole_notebook(build, cap):
    """Cells that fit alone do not fit together; the first that does not is named, with its cap."""
    house = build()
    house.set(**{cap: "0.70"})
    bill = bill_of(house, *(f"%%kling -d 3\nFox {n}" for n in range(3)))
    assert [cell.state for cell in bill.cells] == ["new", "new", "refused"]
    assert bill.stops_at.cell == 3
    assert "$0.70" in bill.stops_at.why
    assert str(bill.quote()) == "$1.008", "the total is what it asks for, also where that is refused"


def test_a_cells_own_cap_and_settings_on_the_way_count_from_their_cell(build):
    """`--max-cost`, and a budget that the notebook itself sets."""
    house = build()
    bill = bill_of(
        house,
        "%%kling -d 3 -n 2 --max-cost 0.50\nFox",
        "%%kling -d 3\nOne",
        "%config KlingMagics.budget = 0.50",
        "%%kling -d 3\nTwo",
        "%config KlingMagics.provider = 'sandbox'",
        "%%kling -d 3\nThree",
    )
    assert [cell.state for cell in bill.cells] == ["refused", "new", "refused", "new"]
    assert "--max-cost of $0.50" in bill.cells[0].why
    assert "session budget of $0.50" in bill.cells[2].why
    assert bill.cells[3].play
    assert (str(bill.quote()), str(bill.quote(play=True))) == ("$1.344", "$0.336")
    text = show_bill(bill).text
    assert "Running all of it would cost $1.344 (4 new)." in text
    assert "In play money it would cost $0.336 (1 new)." in text
    play = "%%kling -p sandbox -d 3\nPlay"
    assert "None of it would cost real money." in show_bill(bill_of(house, play)).text
    refused = "%%kling -p sandbox --nosuch\nA fox"
    assert "$0.00 (no runs)" not in show_bill(bill_of(house, play, refused)).text
    unsure = bill_of(house, "%config KlingMagics.provider = 'sandbox'", play, "kling.submit(p)")
    assert "Nothing that is known of it would cost real money." in show_bill(unsure).text


def test_consent_is_told_and_judged_where_nobody_is_watching(build):
    """The default cap is no consent: with somebody there it is a remark, headless it is a refusal."""
    house = build()
    cell = "%%kling -d 3\nA red fox"
    bill = bill_of(house, cell)
    assert (bill.refused, bill.cells[0].state) == (False, "new")
    assert "no budget was declared" in bill.consent
    bill = bill_of(house, cell, headless=True)
    assert (bill.refused, bill.cells[0].state) == (True, "refused")
    house.set(BUDGET="5")
    bill = bill_of(house, cell, headless=True)
    assert (bill.refused, bill.consent) == (False, None)


def test_what_blocks_a_cell_costs_nothing_and_says_why(build):
    """No key for a named provider, only kept clips and none here, a shot that is too short."""
    house = build()
    house.keys("runcomfy")
    bill = bill_of(
        house,
        "%%kling -p runflow\nA red fox",
        "%%kling --cached-only\nA red fox",
        "%%kling\n[2s] Too short\n[3s] b",
        "%%kling -d 3\nA red fox",
        "%%kling -d 3 --cached-only\nA red fox",
    )
    assert [cell.state for cell in bill.cells] == ["blocked", "blocked", "blocked", "new", "reused"]
    assert str(bill.quote()) == "$0.336"
    assert not bill.refused, "for money it would not be"


def test_a_run_on_its_way_is_pending_and_free(build):
    """What is being made already is not bought again."""
    house = build(wait_scale=1, faults={"run_s": 600})
    session = house.session()
    session.open(ask("A red fox"))
    bill = bill_of(house, "%%kling -d 3 -n 2\nA red fox", session=session)
    [cell] = bill.cells
    assert (cell.state, cell.new, cell.pending) == ("new", 1, 1)
    assert bill.totals[0].reserved_micros == THREE_S


def test_an_intent_that_was_left_unsent_is_paid_by_whoever_runs_its_cell(build):
    """A session died before it sent: its run counts as new, once, also after a cell that was refused."""
    house = build()
    gone = house.session()
    run = house.run(gone, ask("A red fox", provider="runcomfy"))
    for file in house.media.iterdir():
        file.unlink()
    changes = {"status": RunStatus.CREATED, "media": None, "provider_run_id": None, "settled_micros": None}
    changes |= {"reported_micros": None, "reserved_micros": THREE_S, "charged": "no"}
    with gone.ledger().writing() as transaction:
        transaction.write(run.record.model_copy(update=changes), "test")
    gone.close()
    bill = bill_of(house, "%%kling -d 3 --max-cost 0.1\nA red fox", "%%kling -d 3\nA red fox")
    assert [(cell.state, cell.new, cell.pending) for cell in bill.cells] == [("refused", 1, 0), ("new", 1, 0)]
    assert [cell.quote.micros for cell in bill.cells] == [THREE_S, THREE_S]
    assert house.session().plan(ask("A red fox")).new == 1
    sent, session = house.accepted, house.session()
    assert house.run(session, ask("A red fox")).id == run.id
    assert (house.accepted - sent, session.totals().settled_micros) == (1, THREE_S)


# -- nothing is done --------------------------------------------------------------------------------
def dump_of(house):
    with contextlib.closing(sqlite3.connect(house.folder / "ledger.db")) as book:
        return list(book.iterdump())


def test_no_code_runs_and_nothing_is_written_or_sent(build):
    """A canary in every place where code could be run stays silent; all else is as before."""
    house = build()
    session = house.session()
    done = house.run(session, ask("Once"))
    # Whoever carried the run gives its lease back a moment after its end.
    until(lambda: session.ledger().lease(done.id) is None)
    code = f"open({str(house.folder / 'canary')!r}, 'w')"
    path = saved(
        house,
        code,
        f"%%time\n{code}",
        f"%config KlingMagics.budget = {code}",
        f"import kling_nb as kling\nkling.connect(budget={code})",
        f"%%kling -d 3 --tag a={{{code}}}\nA {{{{{code}}}}} fox",
        f"!touch {house.folder / 'canary'}",
        "%%bash\ntouch canary",
        "%run canary.py",
        "%%kling -d 3\nA red fox",
    )
    (house.folder / "canary.py").write_text(code)
    jupytext.write(nbformat.read(path, 4), house.folder / "a.py", fmt="py:percent")
    jupytext.write(nbformat.read(path, 4), house.folder / "a.md")
    before = {p: p.stat().st_mtime_ns for p in house.folder.rglob("*") if "ledger.db-" not in p.name}
    dump, sent = dump_of(house), house.stats()
    for name in ("a.ipynb", "a.py", "a.md"):
        bill = estimate_notebook(session, house.folder / name)
        assert (bill.count("new"), len(bill.cells)) == (1, 2), name
    assert {p: p.stat().st_mtime_ns for p in house.folder.rglob("*") if "ledger.db-" not in p.name} == before
    assert not (house.folder / "canary").exists()
    assert dump_of(house) == dump
    assert house.stats() == sent
    assert session.totals().settled_micros == THREE_S


def test_a_bill_holds_up_no_run(build):
    """It is made while somebody else is writing, and nobody's write waits for it: it only reads."""
    house = build()
    session = house.session()
    house.run(session, ask("A red fox"))
    with session.ledger().writing():
        bill = bill_of(house, "%%kling -d 3 -n 2\nA red fox", session=session)
    assert rows(bill) == [(1, "new", 1, 1, THREE_S)]
    assert (bill.totals[0].settled_micros, session.totals().reserved_micros) == (THREE_S, 0)


def test_looking_makes_no_ledger(build):
    """On a machine that has never bought anything, an estimate leaves it so."""
    house = build()
    bill = bill_of(house, "%%kling -d 3\nA red fox")
    assert str(bill.quote()) == "$0.336"
    assert sorted(path.name for path in house.folder.iterdir()) == ["a.ipynb"]


def test_a_notebook_opens_no_file_or_host_that_it_names_as_its_ledger(build):
    """A stranger's notebook may name any: none is made, changed or asked, and the bill says so."""
    house = build()
    theirs, new = house.folder / "theirs.db", house.folder / "new.db"
    with contextlib.closing(sqlite3.connect(theirs)) as book:
        book.execute("create table mine (a)")
    before = theirs.read_bytes()
    bill = bill_of(
        house,
        f"%config KlingMagics.ledger = '{theirs}'",
        "%%kling -d 3\nA red fox",
        f"import kling_nb as kling\nkling.connect(ledger='sqlite:///{new}')",
        "%%kling -d 3\nA fox",
        "%config KlingMagics.ledger = 'postgresql://ann@127.0.0.1:9/x'",
        "%%kling -d 3\nA grey fox",
    )
    assert (theirs.read_bytes(), new.exists(), bill.count("new")) == (before, False, 3)
    assert [note.split()[1] for note in bill.notes if "not looked into" in note] == ["1", "3", "5"]


def test_a_session_that_is_joined_by_name_is_told(build):
    """What it has spent already is in no figure of the bill, which must not look surer than it is."""
    house = build()
    bill = bill_of(
        house,
        "%kling budget --session pilot",
        "import kling_nb as kling\nkling.connect(budget=5, session='pilot')",
        "%kling budget",
        "%%kling -d 3\nA red fox",
    )
    assert [note.split()[1] for note in bill.notes if "joins a session" in note] == ["1", "2"]


def test_what_cannot_be_read_is_words_and_no_traceback(build):
    """A setting that is no Python, an expression too long to walk, a header that is no YAML."""
    house = build()
    bill = bill_of(
        house,
        "%config KlingMagics.budget = $cap",
        "%config KlingMagics.budget = 2 USD",
        "kling = " + " + ".join(["'a'"] * 900),
        "%%kling -d 3\nA red fox",
    )
    assert len(bill.notes) == 2
    assert [cell.state for cell in bill.cells] == ["new"]
    (house.folder / "b.md").write_text("---\njupyter: [\n---\n")
    with pytest.raises(UsageError, match="cannot be read as a notebook"):
        estimate_notebook(house.session(), house.folder / "b.md")


def test_a_key_in_a_cell_is_not_repeated(build):
    """A bill goes into logs: what it names cells by, and why, holds no key, whatever the cell did with it."""
    house = build()
    bill = bill_of(
        house,
        f"%%kling -d 3\nA fox {KEY}",
        f"%%kling -d 3 --tag a={KEY}\nA fox",
        f"%%kling -d 3 --bogus {KEY}\nA fox {KEY}",
        f"import kling_nb as kling\nkling.submit('{KEY}')",
        f"%config KlingMagics.budget = {KEY}",
        f"%%kling {KEY}\nHello",
        f"%%kling -d 3 --file {KEY}",
    )
    shown = show_bill(bill)
    assert KEY not in f"{bill}{shown.text}{shown.html}{json.dumps(shown.value, default=str)}"
    assert "(it holds a key)" in shown.text
    assert [cell.cell for cell in bill.cells] == [1, 2, 3, 4, 6, 7]


# -- and then it is run ------------------------------------------------------------------------------
def test_the_bill_is_what_the_run_then_reserves(build):
    """The same file, estimated and then executed headless at a provider: equal to the micro-dollar."""
    house = build()
    house.keys("runcomfy")
    house.set(BUDGET="5")
    house.run(house.session(), ask("A red fox"))
    sources = (
        "%load_ext kling_nb",
        "%%kling fox -d 3\nA red fox",
        "%%kling foxes -d 3 -n 3\nA red fox",
        "%%kling dunes -d 4 --audio\nDunes",
        "%%kling again -d 4 --audio\nDunes",
        "%%kling\n[5s] A vineyard\n[3s] Two hands",
        "%%kling -d 3 --no-cache\nDunes",
    )
    house.set(YES="1")
    bill = bill_of(house, *sources, headless=True)
    sent = house.accepted
    done = execute(nbformat.read(house.folder / "a.ipynb", 4), house.folder)
    assert errors(done) == []
    made = {
        record.id: record
        for record in records(done)
        if record.take or "red fox" not in str(record.request.prompt)
    }
    assert sum(record.estimate.reserve_micros for record in made.values()) == bill.quote().reserve_micros
    assert sum(record.settled_micros for record in made.values()) == bill.quote().micros
    assert house.accepted - sent == bill.count("new") == len(made) == 5
    assert bill_of(house, *sources[:-1], headless=True).quote().micros == 0, "and now all of it is here"


def test_many_estimates_leave_nothing_behind(build):
    """What an estimate looks through is gone after it, also where forks and the end of the process look."""
    house = build()
    session = house.session(today=lambda: DAY)

    def held():
        gc.collect()
        return [sum(isinstance(one, kind) for one in gc.get_objects()) for kind in (Session, Loop)]

    before = held()
    bills = [bill_of(house, "%%kling -d 3\nA red fox", session=session) for _ in range(4)]
    assert [bill.count("new") for bill in bills] == [1] * 4
    del bills
    # Fewer is what earlier tests have let go of meanwhile.
    assert all(now <= then for now, then in zip(held(), before, strict=True))


# -- the faces ---------------------------------------------------------------------------------------
def test_the_open_notebook_is_found_and_its_saving_time_told(build):
    """`%kling estimate` takes the saved file of the notebook it stands in; elsewhere it says how."""
    house = build()
    path = saved(house, "%%kling <b>fox</b>\nx", "%%kling -d 3\n<script>alert(1)</script> $x$ | a\tb")
    shown = run_command(house.session(), "estimate", {})
    judge(shown.html)
    assert "<script" not in shown.html
    assert "a.ipynb as saved at 20" in shown.text
    assert shown.value["notebook"] == str(path)
    assert shown.value["runs"] == {"new": 1, "pending": 0, "reused": 0}
    json.dumps(shown.value)
    path.unlink()
    for line, words in (
        ("estimate", "Save the notebook"),
        ("estimate b.ipynb", "no file"),
        ("estimate a b", "one notebook"),
    ):
        with pytest.raises(UsageError, match=words):
            run_command(house.session(), line, {})
    lost = house.session()
    lost.surroundings = lambda: type(house.session().surroundings())(folder=Path.cwd())
    with pytest.raises(UsageError, match="estimate NOTEBOOK"):
        run_command(lost, "estimate", {})


def test_the_command_line_has_exit_codes(build):
    """0 where it fits, 3 where it would be refused, 4 where not all is known, 2 for wrong use; `--json`."""
    house = build()
    saved(house, "%%kling -d 3\nA red fox", name="fits.ipynb")
    saved(house, "%%kling -d 3 -n 40\nA red fox", name="dear.ipynb")
    saved(house, "%%kling -d 3\nA red fox", "for p in ps:\n    kling.submit(p)", name="loop.ipynb")
    saved(house, "%%kling -d 3\nA red fox", "%run more.ipynb", name="other.ipynb")
    commands = [
        ["estimate", "fits.ipynb", "--json"],
        ["estimate", "dear.ipynb"],
        ["estimate", "fits.ipynb", "--headless"],
        ["estimate", "none.ipynb"],
        ["models", "--json"],
        ["estimate", "loop.ipynb", "--json"],
        ["estimate", "other.ipynb"],
    ]
    code, out, _ = house.script(EVERY_COMMAND, json.dumps(commands))
    assert code == 0
    told = [(exit_code, said) for exit_code, said in json.loads(out)]
    assert [exit_code for exit_code, _ in told] == [0, 3, 3, 2, 0, 4, 4]
    assert json.loads(told[0][1])["would_cost_usd"]["known"] == "0.336"
    assert "$13.44" in told[1][1]
    assert "no file" in told[3][1]
    assert json.loads(told[0][1])["complete"] is True
    assert json.loads(told[5][1])["complete"] is False
    assert "would cost at least $0.336 (1 new)" in told[6][1]
    assert len(json.loads(told[4][1])["prices"]) == 14
    assert house.submissions == 0
