"""A sweep from a cell, a line and a terminal: the same object, quote and name."""

import json
import os
import pty
import sys
import termios
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

import kling_nb as kling
from kling_nb.commands.syntax.cell import parse_cell
from kling_nb.errors import UsageError
from kling_nb.ledger.sweeps import SweepState, newest
from kling_nb.notebook.line import run_command
from kling_nb.notebook.sweeps import sweep_cell
from kling_nb.session import api
from kling_nb.sweeps.progress import Failure, Progress
from kling_nb.sweeps.results import Ticker
from kling_nb.views.sweep import progress_html, progress_text
from support.kernels import kernel_in, short_words
from support.markup import judge
from support.workbench import until

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def progress(state: SweepState = "started", *, sending=True, members=5_000):
    return Progress(
        name="owls",
        members=members,
        done=members // 2,
        going=4 if sending else 0,
        failed=3,
        waiting=members - members // 2 - 7,
        spent_micros=30_240_000,
        reserved_micros=2_240_000,
        unknown=1,
        left_micros=8_800_000,
        play=False,
        state=state,
        sending=sending,
        per_hour=120.0,
        ends_at=MOMENT,
        failures=(Failure(count=3, word="failed: moderated", what="<b>", charged="no", cure="Ask `else`."),),
        stopped="",
        created_at=MOMENT,
        now=MOMENT,
    )


@pytest.mark.parametrize("sending", [True, False])
def test_the_card_is_small_and_safe_whatever_the_size(sending):
    """States, money and failures in words; what opens on a click only when it is redrawn no more."""
    page = progress_html(progress(sending=sending))
    seen, text = judge(page)
    assert len(page) < 6_000
    for words in (
        "2,500 done",
        "3 failed",
        "$30.24 + 1 unknown",
        "$2.24",
        "$8.80",
        "moderated (charged: no)",
    ):
        assert words in text
    assert any(tag == "details" for tag, _ in seen) is not sending
    assert abs(len(page) - len(progress_html(progress(sending=sending, members=50)))) < 200


def test_a_sweep_of_another_kernel_is_followed_between_two_of_its_runs():
    """For a minute after anything moved; not where it is stopped, paused or at its end."""
    idle = replace(progress(sending=False), moved_at=MOMENT - timedelta(seconds=50))
    assert not idle.over
    assert "Another kernel is sending it" in progress_text(idle)
    for ended in (
        {"state": "paused"},
        {"stopped": "a cap"},
        {"waiting": 0},
        {"now": MOMENT + timedelta(minutes=1)},
    ):
        assert replace(idle, **ended).over


def test_a_card_says_when_it_was_true_until_all_have_ended():
    """A sweep that was paused may have gone on since."""
    paused = progress("paused", sending=False)
    assert "as of 00:00:00 UTC" in judge(progress_html(paused))[1]
    assert "as of" not in judge(progress_html(replace(paused, waiting=0)))[1]


def test_a_rate_reads_as_other_counts_do():
    """In thousands."""
    assert "5,117 an hour" in progress_text(replace(progress(), per_hour=5117.2))


def test_what_may_be_tried_again_is_said_on_the_card():
    """With the call that does it, and the ids of the runs that made no clip."""
    failure = Failure(count=30, word="failed: provider", what="", charged="no", cure="", ids=("kl7m2q",))
    over = replace(progress(sending=False), free=30, failures=(failure,))
    _, text = judge(progress_html(over))
    assert "30 failed runs were not charged and can be tried again: kling.sweep('owls').retry()" in text
    assert "kl7m2q and 29 more" in text


def test_a_card_is_drawn_anew_on_change_and_once_a_second_at_most(tmp_path, monkeypatch):
    """No update comes sooner than a period after the one before, or says the same again."""
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    # Runs change oftener than once a period, and each is on its way for several.
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "0.2")
    with kernel_in(tmp_path) as kernel:
        kernel.run("import kling_nb as kling\nfrom kling_nb.notebook import sweep_card")
        assert kernel.value("sweep_card._PERIOD_S") >= 1
        kernel.run("sweep_card._PERIOD_S = 0.25")
        kernel.start("owls = kling.sweep([f'Owl {n}' for n in range(9)], duration=3, name='owls')")
        updates = kernel.updates("9/9")
        # How many depends on the machine; a stall makes a gap longer, never shorter.
        assert len(updates) > 1
        for (sent, shown), (later, other) in pairwise(updates):
            assert (later - sent).total_seconds() >= 0.24
            assert other != shown


def test_no_output_of_an_earlier_kernel_is_named_again(tmp_path, monkeypatch):
    """A page whose kernel died and was started again still has the outputs of the first, of other runs."""
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "60")
    named = []
    for _ in range(2):
        with kernel_in(tmp_path) as kernel:
            kernel.run("import kling_nb as kling\nkling.sweep(['An owl'], duration=3, name='owls')")
            kernel.run("kling.submit('A fox', duration=3)")
            kernel.run("kling.form()")
            named.append(set(kernel.displays))
    # A card and its buttons, of a sweep and of a run; the head of a form.
    assert min(map(len, named)) >= 5
    assert not named[0] & named[1]


def test_a_card_follows_its_own_ledger_after_another_session_began(tmp_path, monkeypatch):
    """The ledger of the newer session is not even opened for it."""
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "0.1")
    with kernel_in(tmp_path) as kernel:
        kernel.run("import kling_nb as kling")
        kernel.run(
            "owls = kling.sweep(['An owl', 'A fox'], duration=3, name='owls', start=False)\n"
            "kling.connect(ledger='other.db')\nowls.start()"
        )
        kernel.updates("2/2 [########################] 2 done")
        assert not (tmp_path / "other.db").exists()


def test_a_terminal_has_it_on_one_line():
    """Bar, states and money."""
    first = progress_text(progress()).splitlines()[0]
    assert first.startswith(
        "owls: 2,503/5,000 [############............] 2,500 done, 4 on their way, 3 failed"
    )


def test_the_command_line_quotes_sends_goes_on_and_cancels(build):
    """Exit codes say how it ended; the same file and the name go on with one sweep."""
    house = build()
    (house.folder / "owls.csv").write_text("prompt,duration\nAn owl,3\nA hare,3\n")
    (house.folder / "study.toml").write_text(
        'file = "owls.csv"\ntakes = 2\nprovider = "runflow"\nname = "owls"\nmax_cost = "5"\n'
    )
    code, out, err = house.tool("sweep", "study.toml", "--dry-run")
    assert code == 0, err
    assert "4 new runs may cost $1.344" in out
    assert house.submissions == 0
    code, _, err = house.tool("sweep", "study.toml", "--wait", "--max-cost", "1")
    assert code == 3
    assert "2 of them fit" in err
    code, out, err = house.tool("sweep", "study.toml", "--wait", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["done"], len(told["runs"]), house.submissions) == (4, 4, 4)
    (house.folder / "owls.csv").write_text("prompt,duration\nAn owl,3\nA hare,3\nA stoat,3\n")
    code, _, err = house.tool("sweep", "study.toml")
    assert (code, house.submissions) == (2, 4)
    assert "would add 2 runs" in err
    assert house.tool("sweep", "study.toml", "--wait", "--confirm")[0] == 0
    assert house.submissions == 6
    code, out, _ = house.tool("sweep", "owls", "--wait")
    assert (code, house.submissions) == (0, 6)
    assert "6/6" in out
    assert house.tool("sweep", "cancel", "owls")[0] == 0
    code, _, err = house.tool("sweep", "cancel", "owsl")
    assert code == 2
    assert "Did you mean owls" in err


@pytest.mark.parametrize(
    ("line", "prompt", "words"),
    [
        ("--sweep duration=5,99", "An owl", "Row 1: duration must be at most 15"),
        ("--sweep weather=snow,fog", "An owl", "There is no axis weather"),
        ("--sweep weather=snow,fog", "An owl in {{wether}}", "wether"),
        ("--sweep weather=snow,,fog", "An owl in {{weather}}", "sweep"),
        ("--sweep takes=1,2", "An owl", "--sweep takes: this is no axis"),
        ("--sweep provider=sandbox,nobody", "An owl", "nobody"),
        ("--sweep weather=snow,fog", "{{weather}}" + "x" * 2500, "Row 1: prompt"),
        ("--sweep weather=snow,fog", "", "The prompt is empty"),
    ],
)
def test_a_wrong_cell_is_refused_in_one_line_and_nothing_is_sent(session, monkeypatch, line, prompt, words):
    """Whatever is wrong in it: nothing is kept of it either."""
    monkeypatch.setattr(api, "_session", session)
    with pytest.raises(UsageError) as refused:
        sweep_cell(parse_cell(f"owls {line}", prompt, {}, folder=Path()))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "Nothing was sent." in str(refused.value)
    with session.ledger().reading() as transaction:
        assert (len(session.runs()), newest(transaction, 9)) == (0, [])


def test_a_value_that_is_there_twice_counts_once(session, monkeypatch):
    """In a cell, too."""
    monkeypatch.setattr(api, "_session", session)
    order = parse_cell("--sweep weather=snow,fog,snow --dry-run", "An owl in {{weather}}", {}, folder=Path())
    assert len(sweep_cell(order)) == 2
    assert len(session.runs()) == 0


def test_a_cell_is_a_sweep_and_a_large_one_waits_for_its_button(tmp_path, monkeypatch):
    """Values fill the prompt; the card keeps up by itself; above twenty runs the quote waits for a press."""
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "0")
    with kernel_in(tmp_path) as kernel:
        kernel.run("%load_ext kling_nb")
        cell = "%%kling owls -d 3 --sweep weather=snow,fog\nAn owl in {{weather}}"
        assert kernel.run(cell).status == "ok"
        kernel.wait_display("2/2 [########################] 2 done")
        assert kernel.value("sorted(owls.df.prompt)") == ["An owl in fog", "An owl in snow"]
        assert "started" in kernel.run("%kling sweeps").text
        refused = kernel.run("%%kling --sweep duration=5,99\nAn owl")
        assert (refused.status, "Row 1: duration must be at most 15" in short_words(refused.reply)) == (
            "error",
            True,
        )
        kernel.run(
            "import kling_nb as kling; many = kling.sweep([f'Owl {n}' for n in range(21)], duration=3)"
        )
        kernel.wait_display("21 new runs may cost $7.056")
        assert kernel.value("[many.state, len(many.runs)]") == ["ready", 0]
        kernel.run("import ipywidgets; buttons = ipywidgets.Widget.widgets.values()")
        button = "next(one for one in buttons if 'Send' in getattr(one, 'description', ''))"
        assert kernel.value(f"{button}.description") == "Send 21 runs, $7.056"
        kernel.run(f"{button}.click()")
        kernel.wait_display("21/21 [########################] 21 done")


def test_a_sweep_that_is_canceled_by_its_variable_buys_no_more(build, monkeypatch):
    """Places of runs that are canceled would else go to others of it."""
    house = build(held=True, faults={"queue_s": 10})
    house.set(BUDGET=100, MAX_IN_FLIGHT=3)
    house.keys("runcomfy")
    monkeypatch.setattr(api, "_session", house.session())
    words = [f"An owl, number {number}" for number in range(12)]
    owls = kling.sweep(words, duration=3, provider="runcomfy", name="owls", max_cost=90)
    until(lambda: house.submissions >= 2)
    answer = run_command(api.current(), "cancel owls", {"owls": owls}).text
    sent = house.submissions
    assert sent == 2
    assert "nothing more of it is sent" in answer
    assert owls.wait(60).progress.over
    assert house.submissions == sent


@pytest.mark.parametrize(("name", "kept"), [("owls", 39), ("梟の夜" * 10, 20)])
def test_a_line_that_is_rewritten_is_no_wider_than_the_terminal(monkeypatch, name, kept):
    """One that breaks is never wiped; standard output may be elsewhere, and some letters take two columns."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 40))
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        Ticker(carded=False).end(lambda: progress_text(replace(progress(), name=name)))
        shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert shown.startswith(f"\r\x1b[K{name}"[:20])
    assert len(shown.strip()) == len("\x1b[K") + kept
