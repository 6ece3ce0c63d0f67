"""`%kling` looks, waits, cancels and resumes; it never makes a run and never shows a key."""

import json
from types import SimpleNamespace

import pytest

from kling_nb import cli
from kling_nb.commands import overview
from kling_nb.commands.dry_run import show_plan
from kling_nb.commands.overview import cost_word
from kling_nb.commands.syntax.cell import CellOrder
from kling_nb.commands.syntax.subcommands import COMMANDS
from kling_nb.errors import KlingError, StoreError, UsageError, WaitTimeoutError
from kling_nb.ledger.rows import Records
from kling_nb.notebook.line import run_command
from kling_nb.records.run import RunStatus
from kling_nb.session.session import Session
from support.cards import record
from support.sessions import KEY, ask


@pytest.fixture
def slow(make_session):
    """One session at a sandbox whose clips take minutes."""
    return make_session(sandbox_wait=100)


def test_no_command_ever_makes_a_run(session, monkeypatch):
    """Every subcommand works with the one door to a paid run nailed shut, and the ledger stays as it was."""
    run = session.open(ask())[0].wait(60)
    session.last = run
    before = [record.id for record in session.ledger().runs()]
    monkeypatch.setattr(Session, "open", lambda *_: pytest.fail("a line magic opened the paid door"))
    refused = {
        "resolve": "resolve fox --abandon",
        "adopt": "adopt runcomfy no-such-run",
        "export": "export vbench fox",
        "estimate": "estimate no-such.ipynb",
        "restore": "restore no-such.ipynb",
    }
    for command in COMMANDS:
        line = f"{command.name} {'fox' if command.loose and 'ID' in command.usage else ''}"
        if command.name in refused:
            with pytest.raises(KlingError):
                run_command(session, refused[command.name], {"fox": run})
            continue
        shown = run_command(session, line, {"fox": run})
        assert shown.text or shown.runs or shown.view is not None
    assert [record.id for record in session.ledger().runs()] == before
    assert len(before) == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lst", "Did you mean list?"),
        ("A red fox in snow", "with two percent signs"),
        ("bill", "There are status, list"),
        ("list --al", "Did you mean --all?"),
        ("list -n 0", "from 1 to"),
        ("list -n", "from 1 to"),
        ("list fox", "takes nothing after it"),
        ("show nothing", "There is no run 'nothing'"),
        ("show number", "holds no run but a int"),
        ("show refused", "holds no run but a refusal: The prompt is empty."),
        ("show", "needs a run"),
        ("cancel", "needs a run"),
        ("wait --timeout never", "takes seconds"),
        ("show 'open", "left open"),
        ("show rf_live_0123456789", "looks like a key"),
        ("help nothing", "There is no `%kling nothing`"),
        ("wait --retry", "has no flag"),
    ],
)
def test_a_wrong_line_is_one_line_with_a_cure(session, line, words):
    """A typo says what was meant, what there is, and repeats no key."""
    names = {"number": 1, "refused": SimpleNamespace(error=KlingError("The prompt is empty."))}
    with pytest.raises(UsageError) as caught:
        run_command(session, line, names)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "0123456789" not in str(caught.value)


def test_help_is_the_table(session):
    """Every subcommand stands in the help, and in its own with its usage; spelling does not matter."""
    text = run_command(session, "help", {}).text
    words = " ".join(text.split())
    for command in COMMANDS:
        assert f"%kling {command.name} {command.help}" in words
        own = " ".join(run_command(session, f"help {command.name}", {}).text.split())
        assert own == " ".join(f"%kling {command.name} {command.usage} {command.help}".split())
        assert run_command(session, f"{command.name} --help", {}) == run_command(
            session, f"help {command.name}", {}
        )
    assert {run_command(session, line, {}).text for line in ("", "help ;", "-h", "--help")} == {text}


def test_a_run_is_listed_with_its_name_state_cost_and_file(session):
    """`list` and `status` show variables, state, play money and the file, newest first."""
    runs = [session.open(ask(f"Fox {number}"))[0].wait(60) for number in range(3)]
    session.last = runs[-1]
    names = {"fox": runs[0], "_hidden": runs[1]}
    shown = run_command(session, "list -n 2", names)
    assert [row["id"] for row in shown.value] == [runs[2].id, runs[1].id]
    assert "There are older ones" in shown.text
    row = run_command(session, "list --all", names).value[-1]
    assert row["name"] == "fox"
    assert (row["status"], row["play"], row["cost_usd"]) == ("succeeded", True, "0.336")
    text = run_command(session, "list", names).text
    assert text.splitlines()[0].split() == [
        "run",
        "state",
        "prompt",
        "name",
        "cost",
        "age",
        "s",
        "model",
        "provider",
        "file",
    ]
    assert f"{runs[0].id}  Done   Fox 0   fox " in text
    assert "$0.336 play" in text
    assert runs[0].record.media.file in text
    status = run_command(session, "status", names).text
    assert "Nothing is on its way." in status
    assert runs[-1].id in status
    assert "Session $1.008 of $10.00, $8.992 left (play money)." in status
    assert run_command(session, "list", {}).value[0]["name"] is None


def test_a_run_that_waits_for_a_place_says_its_number_in_line():
    """A list says what the card says: it waits, and where in line it stands."""
    held = overview.Held(names={}, turns={"kl7m2q": 3})
    text = overview.listing(Records([record(status="created")]), held).text
    assert "Waiting, number 3" in text
    assert "Starting" not in text


def test_text_of_strangers_is_escaped(session):
    """A prompt cannot put markup into a table or a dry run."""
    evil = "<img src=x onerror=alert(1)> `code` **bold**"
    session.open(ask(evil))[0].wait(60)
    dry = show_plan(session.plan(ask(evil)), CellOrder(fields={}, dry_run=True), session)
    pages = [run_command(session, "list", {}).html, dry.html]
    assert all("<img" not in page and "&lt;img src=x" in page for page in pages)


def test_show_finds_a_run_by_name_id_or_provider_id(session):
    """A variable, our id, the provider's id, a sequence, or nothing for the last one: the same run."""
    run = session.open(ask())[0].wait(60)
    session.last = run
    for line in ("show fox", f"show {run.id}", f"show {run.provider_run_id}", "show both fox", "show"):
        assert [one.id for one in run_command(session, line, {"fox": run, "both": [run, run]}).runs] == [
            run.id
        ]


def test_variables_go_into_a_line_as_they_do_in_ipython(session, tmp_path, monkeypatch):
    """`$name` and `{name}`: runs, text and numbers; what is no variable, and every prompt, stays."""
    run = session.open(ask())[0].wait(60)
    names = {"fox": run, "few": [run], "which": run.id, "n": 1, "key": "scene", "price": 5}
    for line in ("show $fox", "show {fox}", "show $few", "show $which", "show {which}"):
        assert [one.id for one in run_command(session, line, names).runs] == [run.id], line
    assert len(run_command(session, "list -n $n", names).value) == 1
    assert run_command(session, "cost --all --by tag:{key}", names).value.dimensions == ("tag:scene",)
    with pytest.raises(UsageError, match=r"There is no run '\$nosuch'"):
        run_command(session, "show $nosuch", names)
    with pytest.raises(UsageError, match="what looks like a key"):
        run_command(session, "show $which", {"which": "Bearer abcdefghijklmnop0123456789"})
    seen = []
    monkeypatch.setattr(
        "kling_nb.commands.runs.parse_request", lambda *given, **_: seen.append(given) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        run_command(session, "adopt runcomfy $which --prompt '$price for {fox}'", names)
    assert seen[0][1] == "$price for {fox}"


def test_wait_waits_for_what_belongs_here(make_session):
    """Without names it waits for this session's runs and those in variables, not for other notebooks'."""
    other, mine = make_session(), make_session(sandbox_wait=0.5)
    other.id = "s-other"
    foreign = other.open(ask("Wolf"))[0].wait(60)
    record = foreign.record.model_copy(update={"status": RunStatus.RUNNING, "id": "kforeign"})
    with mine.ledger().writing() as transaction:
        transaction.insert(record.model_copy(update={"run_key": "k1:other"}))
    runs = mine.open(ask(takes=(0, 1)))
    text = run_command(mine, "wait --timeout 60", {}).text
    assert sorted(line.split()[0] for line in text.splitlines()) == sorted(run.id for run in runs)
    assert all(run.status == "succeeded" for run in runs)
    assert "No run of this kernel is on its way" in run_command(mine, "wait", {}).text


def test_a_wait_that_is_over_too_soon_is_an_error_and_the_run_goes_on(slow):
    """`--timeout` ends the waiting, never the run."""
    run = slow.open(ask())[0]
    with pytest.raises(WaitTimeoutError):
        run_command(slow, "wait --timeout 0.05", {})
    assert run.status.pending


def test_a_headless_wait_fails_with_its_run(make_session, monkeypatch):
    """Nobody reads a table in a pipeline: there, a run that failed fails the cell; elsewhere it is told."""
    monkeypatch.setenv("KLING_NB_YES", "1")
    session = make_session(headless=True)
    run = session.open(ask())[0].wait(60)
    failed = run.record.model_copy(
        update={"status": RunStatus.FAILED, "reason": "moderated", "charged": "no"}
    )
    with session.ledger().writing() as transaction:
        transaction.write(failed, "test")
    with pytest.raises(KlingError, match="Sandbox refused this request"):
        run_command(session, f"wait {run.id}", {})
    watched = make_session()
    assert "moderated" in run_command(watched, f"wait {run.id}", {}).text


def test_cancel_says_honestly_what_became_of_it(slow, make_session):
    """Canceled, too late, and ended already are three different answers, each with the charge."""
    run = slow.open(ask())[0]
    text = run_command(slow, "cancel fox", {"fox": run}).text
    assert text.startswith(f"{run.id}: canceled. Charged: ")
    assert "play money" in text
    run.wait(60)
    again = run_command(slow, f"cancel {run.id}", {}).text
    assert "it has ended already (Canceled)" in again


def test_a_provider_without_cancel_is_named(wires, make_session, monkeypatch):
    """Runflow has no cancel: the answer says that it goes on and may be charged, and how to stop waiting."""
    monkeypatch.setenv("RUNFLOW_API_KEY", KEY)
    monkeypatch.setenv("KLING_NB_RUNFLOW_URL", wires.runflow)
    session = make_session(yes=True)
    run = session.open(ask(provider="runflow"))[0].wait(60)
    pending = run.record.model_copy(update={"status": RunStatus.RUNNING, "id": "kpending", "run_key": "k1:x"})
    with session.ledger().writing() as transaction:
        transaction.insert(pending)
    text = run_command(session, "cancel kpending", {}).text
    assert "Runflow has no cancel: the run goes on and may be charged." in text
    assert ".detach()" in text


def test_resume_takes_up_what_is_pending_and_nothing_else(make_session):
    """Without names every pending run is taken up; an ended one is named as such; nothing new is made."""
    first = make_session(sandbox_wait=100)
    run = first.open(ask())[0]
    assert [one.id for one in run_command(first, "resume", {}).runs] == [run.id]
    assert [one.id for one in run_command(first, f"resume {run.id}", {}).runs] == [run.id]
    run_command(first, f"cancel {run.id}", {})
    run.wait(60)
    shown = run_command(first, "resume fox", {"fox": run})
    assert "has ended (Canceled)" in shown.text
    assert list(shown.runs) == []
    assert run_command(first, "resume", {}).text == "Nothing is pending."
    assert len(first.ledger().runs()) == 1


def test_cost_keeps_play_money_and_unknown_charges_apart(session):
    """Real and play sums never mix; what nobody knows is counted beside them, with what it holds back."""
    run = session.open(ask())[0].wait(60)
    unknown = {"settled_micros": None, "status": RunStatus.FAILED, "charged": "unknown"}
    books = {
        "kreal": {"settled_micros": 560_000},
        "kunknown": {**unknown, "reserved_micros": 840_000},
        "kothers": {"settled_micros": 560_000, "session_id": "s-other"},
    }
    with session.ledger().writing() as transaction:
        for run_id, changes in books.items():
            real = {"id": run_id, "run_key": f"k1:{run_id}", "play": False, "provider": "runcomfy"}
            transaction.insert(run.record.model_copy(update={**real, **changes}))
    shown = run_command(session, "cost", {})
    real_row, play_row = shown.value.rows
    assert (real_row["settled"], real_row["reserved"], real_row["settled_unknown"], real_row["runs"]) == (
        "0.56",
        "0.84",
        1,
        2,
    )
    assert (play_row["provider"], play_row["settled"], play_row["play"]) == ("sandbox", "0.336", True)
    assert "Session $0.56 + $0.84 reserved + 1 unknown of $10.00, $8.60 left." in shown.text
    assert "Session $0.336 of $10.00" in shown.text
    assert run_command(session, "cost --all", {}).value.rows[0]["runs"] == 3
    assert cost_word(session.ledger().get("kunknown")) == "unknown, $0.84 reserved"


def test_models_have_prices_with_source_and_date_or_say_unknown(session):
    """A price that nobody states is a word, never a figure."""
    text = run_command(session, "models", {}).text
    line = next(line for line in text.splitlines() if "Runflow" in line)
    assert "$0.112/s     unknown" in line
    assert "silent: Runflow's model page, 2026-04-06" in line
    assert "with sound: $0.168/s is reserved" in line


def test_no_price_goes_from_a_narrow_page(session):
    """A column without room stands below; neither a price nor where it is from is cut."""
    prices = run_command(session, "models", {}).html.split("</table>")[0]
    assert "with sound" in prices
    assert "height:26px" not in prices
    assert "ellipsis" not in prices


def test_keys_are_never_shown(session, monkeypatch):
    """`keys`, `config` and `doctor` say where a key is and show no part of it."""
    monkeypatch.setenv("RUNFLOW_API_KEY", KEY)
    monkeypatch.setenv("RUNCOMFY_API_KEY", f"{KEY} with spaces")
    monkeypatch.setenv("KLING_NB_BUDGT", "3")
    texts = [run_command(session, name, {}) for name in ("keys", "config", "doctor")]
    told = "".join(shown.text + shown.html + json.dumps(shown.value) for shown in texts)
    assert "RUNFLOW_API_KEY in the environment" in texts[0].text
    assert "unusable" in texts[0].text
    assert "KLING_NB_BUDGT" in texts[1].text
    for part in (KEY, KEY[:8], KEY[-6:]):
        assert part not in told


def test_config_shows_where_a_setting_comes_from(make_session, monkeypatch):
    """Value, source and variable of every setting; a database address loses password and query."""
    monkeypatch.setenv("KLING_NB_BUDGET", "2.50")
    rows = {row["setting"]: row for row in run_command(make_session(provider="sandbox"), "config", {}).value}
    assert (rows["budget"]["value"], rows["budget"]["source"]) == ("$2.50", "environment")
    assert (rows["provider"]["value"], rows["provider"]["source"]) == ("sandbox", "argument")
    assert rows["max_in_flight"]["source"] == "default"
    address = "postgresql://me:hush@db.example.org/kling?sslpassword=hush2"
    rows = {row["setting"]: row for row in run_command(make_session(ledger=address), "config", {}).value}
    assert "hush" not in rows["ledger"]["value"]
    assert "db.example.org/kling" in rows["ledger"]["value"]


def test_a_folder_that_cannot_be_written_is_one_line(session, tmp_path, monkeypatch, capsys):
    """In a cell and on the command line: no traceback, and an exit code."""
    (tmp_path / "file").write_text("no folder")
    session.open(ask())[0].wait(60)
    line = f"export videofolder --to {tmp_path / 'file' / 'x'} --allow-sandbox"
    with pytest.raises(StoreError, match=r"The export stopped: (Not a directory|File exists)"):
        run_command(session, line, {})
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    monkeypatch.setattr("sys.argv", ["kling-nb", "verify", str(tmp_path / "file")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    monkeypatch.setattr("sys.argv", ["kling-nb", "demo", "--out", str(tmp_path / "file" / "x")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert told[-1].startswith("kling-nb: Not a directory")
