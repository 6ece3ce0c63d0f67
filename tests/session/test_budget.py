"""Budgets at every level, sessions that have a name, and who spent it: real sessions and processes."""

import json
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_nb.commands.order import CommandCall, here
from kling_nb.errors import BudgetError, ConsentError, UsageError
from kling_nb.ledger.database import Ledger
from kling_nb.media.sidecars import Sidecars
from kling_nb.notebook.line import run_command
from kling_nb.records.base import utc_now
from kling_nb.records.money import Totals, micros
from kling_nb.records.run import RunStatus
from kling_nb.session.budget import LEVELS, Budget, named_session
from kling_nb.views.words import plain, session_words
from support.clips import make_record
from support.kernels import kernel_in, notebook, sandbox_beside
from support.leases import renew
from support.sessions import ask
from support.sums import committed
from support.warm import run_process
from support.workbench import KEY, houses, on_one_day, until

EACH = 336_000  # three seconds, silent
SETTING = {"session": "BUDGET", "project_daily": "PROJECT_DAILY", "user_daily": "USER_DAILY"}
SETTING |= {"user_total": "USER_TOTAL", "team_daily": "TEAM_DAILY", "team_total": "TEAM_TOTAL"}
WHICH = {"session": "", "project_daily": " today (project)", "user_daily": " today (user)"}
WHICH |= {"user_total": " in total (user)"}
WHICH |= {"team_daily": " today (team)", "team_total": " in total (team)"}
KIND = {
    "session": "session budget",
    "project_daily": "daily budget of project vineyard",
    "user_daily": "daily budget of user ada",
    "user_total": "total budget of user ada",
    "team_daily": "daily budget of the team",
    "team_total": "total budget of the team",
}


@pytest.fixture
def build(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_USER", "ada")
    monkeypatch.setenv("KLING_NB_PROJECT", "vineyard")
    yield from houses(tmp_path, monkeypatch)


def budget(session, line=""):
    return run_command(session, f"budget {line}", {})


# -- the tightest wins ----------------------------------------------------------------
@pytest.mark.parametrize("tight", SETTING)
def test_the_tightest_cap_wins_and_is_named(build, tight):
    """Of all caps the one that leaves least refuses, with its name, its sums and what was asked."""
    on_one_day()
    house = build()
    house.set(**{variable: "0.70" if level == tight else "2.00" for level, variable in SETTING.items()})
    session = house.session()
    house.run(session, ask("one"))
    totals = session.totals()
    assert (totals.tightest.level, totals.left_micros) == (tight, 700_000 - EACH)
    assert plain(session_words(totals)).endswith(f", $0.364 left{WHICH[tight]}")
    with pytest.raises(BudgetError) as caught:
        session.open(ask("two", takes=(0, 1)))
    error = caught.value
    assert (error.level, error.cap_micros, error.spent_micros) == (tight, 700_000, EACH)
    assert (error.reserved_micros, error.asked_micros, error.charged) == (0, 2 * EACH, "no")
    shown = f"2 x $0.336 = $0.672 does not fit: $0.336 spent + $0.00 reserved of a {KIND[tight]} of $0.70"
    assert shown in str(error)
    assert "so $0.364 is left" in str(error)
    assert house.submissions == 1
    value = budget(session).value
    assert [level["level"] for level in value["levels"] if level["tightest"]] == [tight]


def test_a_cells_own_cap_is_named_too(build):
    """`--max-cost` is the fourth level, and carries its figures as well."""
    session = build().session()
    with pytest.raises(BudgetError) as caught:
        session.open(ask(takes=(0, 1, 2), max_cost=Decimal("1.00")))
    error = caught.value
    assert (error.level, error.cap_micros, error.asked_micros) == ("cell", 1_000_000, 3 * EACH)


class _Sums:
    """Stands where a ledger's transaction does: only the sums are looked at."""

    def __init__(self, gone):
        self.gone = gone

    def sums(self, *, play, since=None, **equal):
        level = "session" if "session_id" in equal else "project_daily" if "project" in equal else None
        level = level or f"{'user' if equal else 'team'}_{'daily' if since else 'total'}"
        settled, reserved = self.gone[level]
        return Totals(settled_micros=settled, reserved_micros=reserved, play=play)


amounts = st.integers(0, 20_000_000)


@given(
    caps=st.tuples(amounts, *[st.none() | amounts] * 5),
    gone=st.tuples(*[st.tuples(amounts, amounts)] * 6),
    asked=st.lists(st.integers(1, 5_000_000), min_size=1, max_size=4),
    play=st.booleans(),
)
def test_a_cell_is_refused_exactly_where_some_cap_does_not_hold_it(caps, gone, asked, play):
    """Whatever was spent wherever: it fits under every cap or is refused by the one that leaves least."""
    wallet = Budget(
        session_id="s",
        cap_micros=caps[0],
        declared=True,
        yes=False,
        headless=False,
        play=play,
        project="p",
        user="u",
        project_daily_micros=caps[1],
        user_daily_micros=caps[2],
        user_total_micros=caps[3],
        team_daily_micros=caps[4],
        team_total_micros=caps[5],
    )
    left = {
        level: cap - sum(spent)
        for level, cap, spent in zip(LEVELS, caps, gone, strict=True)
        if cap is not None
    }
    books = _Sums(dict(zip(LEVELS, gone, strict=True)))
    if sum(asked) <= min(left.values()):
        wallet.reserve(books, asked)
        return
    with pytest.raises(BudgetError) as caught:
        wallet.reserve(books, asked)
    error = caught.value
    assert left[error.level] == min(left.values())
    assert error.cap_micros - error.spent_micros - error.reserved_micros == left[error.level]
    assert error.asked_micros == sum(asked)


def test_a_day_is_a_day_of_utc(tmp_path):
    """What was asked for before midnight UTC counts against yesterday, and in all."""
    ledger = Ledger(tmp_path / "ledger.db")
    midnight = utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    for number, moment in enumerate((midnight - timedelta(milliseconds=1), midnight)):
        record = make_record(
            id=f"k{number:07d}",
            prompt=f"{number}",
            created_at=moment,
            user="u",
            settled_micros=EACH,
            reserved_micros=0,
            status=RunStatus.SUCCEEDED,
        )
        with ledger.writing() as transaction:
            transaction.insert(record)
    with ledger.reading() as transaction:
        assert committed(transaction, play=False, user="u", since=midnight) == EACH
        assert committed(transaction, play=False, user="u") == 2 * EACH
    ledger.close()


def test_a_run_of_midnight_counts_on_the_day_it_was_checked_against(build):
    """In the last instant of a day that day's cap holds, and nothing is taken from the next one's."""
    house = build()
    house.set(USER_DAILY="0.40")
    session = house.session()
    midnight = datetime(2026, 11, 22, tzinfo=UTC)
    before = midnight - timedelta(milliseconds=1)

    def admit(prompt, now):
        opening = session.context().admission(ask(prompt))
        with opening.ledger.writing() as transaction:
            known = transaction.find(opening.request_keys())
            [(record, _)] = opening.admit(transaction, known, Sidecars(), now=now)
            [_, today, *_] = opening.budget.caps(transaction, now=now)
        return record.created_at, today.reserved_micros

    assert admit("late", before) == (before, EACH)
    with pytest.raises(BudgetError):
        admit("too late", before)
    assert admit("early", midnight) == (midnight, EACH)
    with pytest.raises(BudgetError):
        admit("again", midnight)


def left_unsent(house, session, **changes):
    """A run as it is after its process was killed between the intent and the submit."""
    [run] = session.open(ask())
    run.wait(90)
    session.ledger().change(
        run.id,
        "test",
        status=RunStatus.CREATED,
        provider_run_id=None,
        submitted_at=None,
        settled_micros=None,
        reported_micros=None,
        reserved_micros=EACH,
        media=None,
        charged="no",
        **changes,
    )
    for file in house.media.iterdir():
        file.unlink()
    session.close()
    return run


def test_an_intent_that_is_taken_over_is_counted_once(build):
    """A kernel died before it sent: whoever runs the cell sends it with the money that was held already."""
    house = build()
    house.set(USER_DAILY="0.50", PROJECT_DAILY="0.50")
    run = left_unsent(house, house.session())
    second = house.session()
    again = house.run(second, ask())
    assert (again.id, again.status) == (run.id, "succeeded")
    assert again.record.session_id == second.id
    kinds = [kind for _, kind, _ in second.ledger().events(run.id)]
    assert "left behind" in kinds
    assert "taken over" in kinds
    assert second.totals().settled_micros == EACH
    assert house.submissions == 2


def test_an_intent_of_yesterday_that_is_taken_over_counts_today(build):
    """It is sent today, so it takes its money from the cap of today."""
    on_one_day()
    house = build()
    left_unsent(house, house.session(), created_at=utc_now() - timedelta(days=1))
    house.set(USER_DAILY="0.40")
    second = house.session()
    house.run(second, ask())
    with pytest.raises(BudgetError) as caught:
        second.open(ask("Another"))
    assert (caught.value.level, caught.value.spent_micros) == ("user_daily", EACH)


def test_what_another_kernel_was_sending_is_sent_again_only_with_consent(build):
    """It never arrived: with nobody watching and no budget it ends without a charge, and is not bought."""
    house = build()
    run = left_unsent(house, house.session(), client_ref="kling-nb-gone-0")
    house.session().ledger().change(run.id, "test", status=RunStatus.SUBMITTING)
    sent = house.submissions
    [ended] = house.session(headless=True).open(ask())
    assert ended.wait(90).status == RunStatus.CANCELED
    assert (ended.record.settled_micros, ended.record.reserved_micros) == (0, 0)
    assert house.submissions == sent
    with pytest.raises(ConsentError):
        house.session(headless=True).open(ask())


# -- a session that has a name ----------------------------------------------------------
def test_what_another_kernel_of_the_session_left_unsent_needs_this_ones_consent(build):
    """A shared name is no leave to send: consent, the cell's cap and the session's are asked for again."""
    house = build()
    run = left_unsent(house, house.session(name="Pilot"))
    sent = house.submissions
    with pytest.raises(ConsentError):
        house.session(name="Pilot", headless=True).open(ask())
    here = house.session(name="Pilot")
    with pytest.raises(BudgetError) as caught:
        here.open(ask(max_cost=Decimal("0.01")))
    assert caught.value.level == "cell"
    assert house.submissions == sent
    assert here.totals().reserved_micros == EACH, "what was held is held as before"
    assert house.run(here, ask()).id == run.id
    assert (here.totals().settled_micros, here.totals().reserved_micros) == (EACH, 0)
    assert house.submissions == sent + 1


def test_a_named_session_goes_on_in_another_kernel(build):
    """Whoever names it joins its sums and its cap; nobody else does."""
    house = build()
    house.set(BUDGET="0.70")
    first = house.session(name="Pilot study")
    house.run(first, ask("one"))
    first.close()
    second = house.session(name=" pilot STUDY ")
    assert second.id == first.id
    assert second.totals().settled_micros == EACH
    house.run(second, ask("two"))
    with pytest.raises(BudgetError) as caught:
        second.open(ask("three"))
    assert caught.value.level == "session"
    assert house.session().totals().settled_micros == 0
    assert house.session(name="another").totals().settled_micros == 0
    assert house.submissions == 2


def test_a_script_may_name_its_session(build):
    """`connect(session=)` joins it, and `spend()` counts all of it."""
    code = (
        "import sys, kling_nb as kling\n"
        "kling.connect(session='pilot', budget='5')\n"
        "kling.generate(sys.argv[1], duration=3, provider='runflow')\n"
        "print(kling.spend().spent, kling.spend().left)"
    )
    house = build()
    said = [house.script(code, prompt) for prompt in ("one", "two")]
    assert said == [(0, "0.336 4.664\n", ""), (0, "0.672 4.328\n", "")]
    assert house.submissions == 2


def test_a_name_is_one_users_and_one_projects():
    """Its id is made of all three, and repeats nothing that is no plain letter or digit."""
    ids = {
        named_session("Pilot", user=user, project=project)
        for user in ("ada", "bob")
        for project in ("vineyard", "harbour")
    }
    assert len(ids) == 4
    assert named_session("a/b <c>", user="u", project="p").startswith("n-a-b-c-")
    assert named_session("日本", user="u", project="p") != named_session("中国", user="u", project="p")


@pytest.mark.parametrize("name", ["", "  ", "x" * 61, "two\nlines"])
def test_what_is_no_name_is_refused(build, name):
    """Nothing changes, and the session goes on as it was."""
    session = build().session()
    before = session.id
    with pytest.raises(UsageError):
        session.join(name)
    assert (session.id, session.name) == (before, None)


def test_a_key_is_no_name(build):
    """It would stay in the ledger and in every sidecar."""
    session = build().session()
    with pytest.raises(UsageError) as caught:
        session.join(KEY)
    assert KEY not in str(caught.value)


def test_runs_on_their_way_stay_where_they_were_counted(build):
    """Naming the session in the middle loses nothing and counts nothing twice."""
    house = build(held=True)
    session = house.session(max_in_flight=1)
    before = session.id
    runs = session.open(ask(takes=(0, 1)))

    def gone():
        with session.ledger().reading() as transaction:
            return committed(transaction, play=False, user="ada")

    assert gone() == 2 * EACH
    shown = budget(session, "--session pilot")
    assert (
        f"2 runs are still on the way and counted under {before}, where $0.672 stays reserved" in shown.text
    )
    assert session.totals().reserved_micros == 0
    # The same cells again attach to the same runs, also to the one that was not sent yet.
    again = session.open(ask(takes=(0, 1)))
    assert [run.id for run in again] == [run.id for run in runs]
    assert gone() == 2 * EACH
    assert {run.id for run in here(CommandCall(session=session, names={}))} == {run.id for run in runs}
    house.let_go()
    run_command(session, "wait", {})
    assert {run.record.session_id for run in runs} == {before}
    assert [run.status for run in runs] == ["succeeded"] * 2
    assert gone() == 2 * EACH
    assert session.totals().settled_micros == 0
    new = house.run(session, ask("after"))
    assert new.record.session_id == session.id != before
    assert session.totals().settled_micros == EACH
    assert house.submissions == 3


def test_a_named_session_survives_the_kernel(tmp_path, monkeypatch):
    """Two real kernels, one after the other: the second sees what the first spent, and its cap holds."""
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "0")
    monkeypatch.setenv("KLING_NB_BUDGET", "0.60")
    texts = []
    for number in range(2):
        with kernel_in(tmp_path) as kernel:
            kernel.run("%load_ext kling_nb")
            kernel.run("%kling budget --session pilot")
            made = kernel.run(f"%%kling a{number} -d 3 --wait\nA red fox, number {number}")
            assert made.status == ("ok" if number == 0 else "error"), made.text
            texts.append(kernel.run("%kling budget").text + " ".join(" ".join(made.error).split()))
    assert "Session “pilot”" in texts[0]
    assert "Session “pilot”" in texts[1]
    assert "$0.336 spent + $0.00 reserved of a session play budget of $0.60" in texts[1]


# -- what %kling budget shows -----------------------------------------------------------
def test_every_level_says_where_it_comes_from(build):
    """Cap, spent, reserved, left, source; days in UTC; and looking makes no run."""
    on_one_day()
    house = build()
    (house.folder / "pyproject.toml").write_text('[tool.kling_nb]\nproject_daily = "3.00"\n')
    house.set(USER_DAILY="5.00")
    session = house.session(budget="4.00")
    house.run(session, ask("one"))
    house.run(session, ask("play", provider="sandbox"))
    shown = budget(session)
    real = [level for level in shown.value["levels"] if not level["play"]]
    assert [(x["level"], x["cap_usd"], x["spent_usd"], x["left_usd"], x["source"]) for x in real] == [
        ("session", "4.00", "0.336", "3.664", "argument"),
        ("project_daily", "3.00", "0.336", "2.664", "project"),
        ("user_daily", "5.00", "0.336", "4.664", "environment"),
        ("user_total", None, "0.336", None, "default"),
    ]
    assert [x["whose"] for x in real[1:]] == ["vineyard", "ada", "ada"]
    assert [x["spent_usd"] for x in shown.value["levels"] if x["play"]] == ["0.336"] * 4
    assert shown.value["day_ends"].endswith("T00:00:00+00:00")
    for words in ("project file, project_daily", "KLING_NB_USER_DAILY", "Days are UTC", "Play money"):
        assert words in shown.text
    assert house.submissions == 1


def test_an_overrun_is_never_hidden(build):
    """A provider that bills over the list: shown, counted at every level, and nothing new is sent."""
    house = build(faults={"cost_factor": 2.5})
    house.set(BUDGET="0.70", PROJECT_DAILY="0.80")
    session = house.session()
    run = house.run(session, ask())
    assert (run.record.estimate.micros, run.record.settled_micros) == (EACH, 840_000)
    card = plain(session_words(session.totals()))
    assert card == "session $0.84 of $0.70, over by $0.14"
    assert "$0.504 above the estimate of $0.336" in _text(run)
    shown = budget(session)
    assert "The session's cap is exceeded by $0.14: nothing new is sent." in shown.text
    with pytest.raises(BudgetError, match=r"it is over by \$0\.14"):
        session.open(ask("new"))
    # And what it billed is what the next one is held to.
    assert house.session(budget="2").price(ask("new")).reserve_micros == 840_000
    assert house.submissions == 1


def _text(run):
    return run._repr_mimebundle_()["text/plain"]


# -- who spent it -----------------------------------------------------------------------
def test_a_runflow_run_carries_who_spends(build):
    """User, project and session under one name of ours, beside the user's own metadata; no prompt."""
    house = build()
    session = house.session()
    call = ask("A secret fox", provider="runflow", metadata={"scene": 3})
    planned = session.plan(call).payloads["runflow"]
    run = house.run(session, call)
    (made,) = house.stats()["runs"]
    who = {"user": "ada", "project": "vineyard", "session": session.id}
    assert made["metadata"] == {"scene": 3, "kling_nb": who} == planned["metadata"]
    assert "fox" not in json.dumps(made["metadata"])
    record = run.record
    assert (record.user, record.project, record.session_id) == ("ada", "vineyard", session.id)
    assert record.metadata == {"scene": 3}
    with pytest.raises(UsageError, match="kling_nb is ours"):
        ask(metadata={"kling_nb": 1})


def test_without_a_hub_the_user_is_the_systems(build, monkeypatch):
    """`JUPYTERHUB_USER` first, else who the process runs as."""
    import getpass

    house = build()
    assert house.session().settings().user == "ada"
    monkeypatch.delenv("JUPYTERHUB_USER")
    assert house.session().settings().user == getpass.getuser() != ""


# -- nobody watching --------------------------------------------------------------------
def papermill(folder, name):
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", f"{name}.ipynb", f"{name}-out.ipynb"]
    return run_process(command, cwd=folder, timeout=120)


def test_papermill_pays_only_with_a_declared_budget(tmp_path, monkeypatch):
    """A real papermill at a real provider's stand-in: refused with an exit code, and paid once declared."""
    import nbformat

    made = notebook("%load_ext kling_nb", "%%kling fox -d 3\nA fox")
    nbformat.write(made, tmp_path / "a.ipynb")
    with sandbox_beside() as provider:
        for name, value in provider.environment("runcomfy").items():
            monkeypatch.setenv(name, value)
        refused = papermill(tmp_path, "a")
        assert refused.returncode != 0
        assert "ConsentError" in refused.stderr
        assert provider.counts() == (0, 0)
        monkeypatch.setenv("KLING_NB_BUDGET", "0.50")
        assert papermill(tmp_path, "a").returncode == 0
        assert provider.counts() == (1, 1)


def test_the_command_line_says_refused_for_money(build):
    """Exit code 3 is for money alone."""
    import nbformat

    house = build()
    nbformat.write(notebook("%load_ext kling_nb", "%%kling fox -d 3\nA fox"), house.folder / "a.ipynb")
    codes = [house.tool("estimate", "a.ipynb", KLING_NB_BUDGET=cap)[0] for cap in ("0.30", "0.40")]
    assert codes == [3, 0]
    assert house.tool("estimate", "a.ipynb", KLING_NB_BUDGET="much")[0] == 2
    assert house.submissions == 0


SUBMIT = """
import kling_nb as kling
run = kling.submit("A red fox", duration=3, provider="runflow", max_cost="1")
print(run.id, flush=True)
run.wait(60)
"""


def test_the_reservation_of_a_killed_process_is_settled_by_what_really_happened(build):
    """It is never just dropped: it stays held until somebody collects, and then it is the provider's bill."""
    house = build(held=True)
    process = house.start("-c", SUBMIT)
    name = process.stdout.readline().strip()
    session = house.session()
    until(lambda: session.find(name).record.provider_run_id)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with session.ledger().reading() as transaction:
        assert committed(transaction, play=False, user="ada") == EACH
        owner = transaction.owner(name)
    # Its lease has run out, as it would in half a minute.
    assert renew(session.ledger(), name, owner, -60)
    house.faults(cost_factor=2)
    house.let_go()
    code, _, err = house.tool("collect")
    assert (code, err) == (0, "")
    record = session.ledger().get(name)
    assert (record.settled_micros, record.reserved_micros) == (2 * EACH, 0)
    assert micros(Decimal(house.stats()["billed"])) == 2 * EACH
    assert house.submissions == 1
