"""TAB in a `%%kling` or `%kling` line offers what may stand there, and nothing else."""

import atexit
import contextlib
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from kling_nb.commands.syntax import subcommands
from kling_nb.commands.syntax.flags import FLAGS
from kling_nb.commands.syntax.subcommands import COMMANDS
from kling_nb.ledger.database import Ledger
from kling_nb.notebook import completion
from kling_nb.pricing.catalog import models
from kling_nb.providers import PROVIDERS
from kling_nb.spending import sums
from support.clips import make_record


class Run:
    """Stands for a run: completion knows them by their kind's name, without importing it."""


@pytest.fixture
def shell():
    """A real shell with the matcher in it."""
    InteractiveShell.clear_instance()
    # A history would keep a database and its thread open after the test.
    ip = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    ip.user_ns.update(foxtrot=Run(), settings_of_mine={"a": 1}, number=1, scene_words="dawn")
    completion.install(ip)
    yield ip
    ip.atexit_operations()
    atexit.unregister(ip.atexit_operations)
    InteractiveShell.clear_instance()


def offers(ip, text):
    """Give the whole texts that a front end would put in place."""
    with provisionalcompleter():
        found = list(ip.Completer.completions(text, len(text)))
    return [text[: one.start] + one.text + text[one.end :] for one in found]


def test_an_empty_place_offers_exactly_the_flags(shell):
    """After `%%kling ` the long flags stand alone: no Python names, no files."""
    flags = [s for flag in FLAGS for s in flag.spellings if s.startswith("--")]
    assert offers(shell, "%%kling ") == [f"%%kling {flag}" for flag in flags]
    assert len(flags) > 25


FITS = [
    ("%%kling --du", ["%%kling --duration"]),
    ("\n\n%%kling fox --no-", ["--no-audio", "--no-cache", "--no-wait"]),
    ("# the better take\n%%kling fox --no-", ["--no-audio", "--no-cache", "--no-wait"]),
    ("%%kling fox --max_c", ["%%kling fox --max_cost"]),
    ("%%kling --ar ", ["--ar 16:9", "--ar 9:16", "--ar 1:1"]),
    ("%%kling --ar 16:", ["%%kling --ar 16:9"]),
    ("%%kling --aspect_ratio=9", ["%%kling --aspect_ratio=9:16"]),
    ("%%kling -p run", ["-p runflow", "-p runcomfy"]),
    ("%%kling --shot-type ", ["--shot-type customize", "--shot-type intelligent"]),
    ("%%kling --as c", ["%%kling --as curl"]),
    ("%%kling -m kling-3.0-p", ["%%kling -m kling-3.0-pro"]),
    ("%%kling --params $se", ["%%kling --params $settings_of_mine"]),
    ("%%kling -d 3 --du", []),
    ("%%kling --tag a=1 --ta", ["--take", "--takes", "--tag"]),
    ("%kling can", ["%kling cancel"]),
    ("x = 1\n%kling mod", ["%kling models"]),
    ("%kling help resu", ["%kling help resume"]),
    ("%kling show fox", ["%kling show foxtrot"]),
    ("%kling resolve fox", ["%kling resolve foxtrot"]),
    ("%kling resolve x --a", ["%kling resolve x --attach", "%kling resolve x --abandon"]),
    ("%kling adopt run", ["%kling adopt runflow", "%kling adopt runcomfy"]),
    ("%kling adopt runcomfy x --no", ["%kling adopt runcomfy x --no-audio"]),
    ("%kling wait ", ["%kling wait foxtrot", "%kling wait --timeout"]),
    ("%kling wait --t", ["%kling wait --timeout"]),
    ("%kling doctor ", ["%kling doctor --online"]),
    ("%kling cost --by d", ["%kling cost --by day"]),
    ("%kling cost --by=provider,ta", ["--by=provider,tag", "--by=provider,tag:"]),
    ("%kling rate --by t", ["%kling rate --by tag:"]),
    ("%kling show fox --embed a", ["--embed auto", "--embed always"]),
    ("%kling adopt runcomfy x --ar 1:", ["--ar 1:1"]),
    ("%kling export vbench --provider r", ["--provider runflow", "--provider runcomfy"]),
    ("%kling show $fo", ["%kling show $foxtrot"]),
    ("%%kling\nA {{numb", ["{{number}}"]),
    ("%%kling -d 3\n[5s] {{ scene", ["{{ scene_words}}"]),
]


def test_what_fits_is_offered_and_replaces_the_whole_word(shell):
    """A value with a colon, a hyphen or an underscore is completed as one word."""
    for text, wanted in FITS:
        found = offers(shell, text)
        assert len(found) == len(wanted), text
        for one, whole in zip(sorted(found), sorted(wanted, key=lambda end: end.split()[-1]), strict=True):
            assert one.endswith(whole), text
            assert one.startswith(text[: text.rfind(" ") + 1].rstrip("$")), text


def test_models_and_providers_are_those_that_exist(shell):
    """Names come from the shipped catalog and the adapters, not from a list that may lag behind."""
    found = {one.split()[-1] for one in offers(shell, "%%kling -m ")}
    assert found == {name for model in models().values() for name in (model.id, *model.aliases)}
    assert {one.split()[-1] for one in offers(shell, "%%kling -p ")} == {"auto", *PROVIDERS}
    assert {one.split()[-1] for one in offers(shell, "%kling ")} == {command.name for command in COMMANDS}


@pytest.mark.parametrize(
    "text", ["numb", "%%klingon numb", "%%time\n%%kling --du", "x --du", "%%kling\nnumb"]
)
def test_other_lines_are_left_alone(shell, text):
    """Bodies, other magics and code keep the completion they had."""
    before = offers(shell, text)
    completion.remove(shell)
    assert offers(shell, text) == before
    if text in {"numb", "%%kling\nnumb"}:
        assert any(one.endswith("number") for one in before)


def test_it_is_put_in_once_and_taken_out_whole(shell):
    """Loading twice makes no double offers, and unloading leaves nothing behind."""
    completion.install(shell)
    completion.install(shell)
    assert offers(shell, "%%kling --du") == ["%%kling --duration"]
    completion.remove(shell)
    completion.remove(shell)
    assert shell.Completer.custom_matchers == []
    assert "%%kling --duration" not in offers(shell, "%%kling --du")


def test_braces_that_a_page_has_closed_are_not_closed_again(shell):
    """Front ends write `{{}}` at once: the name goes between."""
    text = "%%kling\nA {{numb}} fox"
    with provisionalcompleter():
        found = list(shell.Completer.completions(text, text.index("}}")))
    assert [text[: one.start] + one.text + text[one.end :] for one in found] == ["%%kling\nA {{number}} fox"]


def test_runs_are_offered_newest_first_and_no_ledger_is_made(shell, tmp_path, monkeypatch):
    """Fifty at most, by the index of the ledger: a hundred thousand runs cost a key press no more."""
    place = tmp_path / "ledger.db"
    monkeypatch.setenv("KLING_NB_LEDGER", str(place))
    assert "%kling cancel k00059" not in offers(shell, "%kling cancel k")
    assert not place.exists()
    born = datetime(2026, 11, 21, tzinfo=UTC)
    ids = [f"k{number:05}" for number in range(60)]
    with Ledger(place).writing() as transaction:
        for number, run_id in enumerate(ids):
            transaction.insert(
                make_record(id=run_id, take=number, created_at=born + timedelta(minutes=number))
            )
    newest = ids[:-51:-1]
    for line in ("%kling show ", "%kling resolve ", "%kling export vbench "):
        assert [one for one in offers(shell, f"{line}k") if "--" not in one] == [f"{line}{i}" for i in newest]
    assert "%kling adopt runcomfy k00059" not in offers(shell, "%kling adopt runcomfy k")
    plan = "EXPLAIN QUERY PLAN SELECT id, record FROM runs ORDER BY created_at DESC, id LIMIT 50"
    with contextlib.closing(sqlite3.connect(place)) as connection:
        assert [row[-1] for row in connection.execute(plan)] == ["SCAN runs USING INDEX runs_newest"]


def test_every_dimension_of_costs_is_offered():
    """The table that completion reads keeps up with what a cost can be arranged by."""
    assert (*sums.DIMENSIONS, "tag:") == subcommands.DIMENSIONS


def test_it_imports_nothing_heavy():
    """A key press must not wait for pydantic, httpx or a database."""
    code = (
        "import sys; from IPython.core.completer import CompletionContext as C\n"
        "from kling_nb.notebook.completion import matcher\n"
        "names = [o.text for o in matcher(C(token='', full_text='%%kling -m ', cursor_line=0,\n"
        "    cursor_position=11, limit=None))['completions']]\n"
        "assert 'pro' in names\n"
        "print([m for m in ('pydantic', 'httpx', 'sqlalchemy', 'av', 'ipywidgets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
