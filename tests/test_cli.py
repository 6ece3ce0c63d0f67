"""The command line as a terminal or a pipe sees it."""

import contextlib
import io
import json
import os
import pty
import subprocess
import sys
import termios
from importlib.metadata import version

import pytest

from kling_nb import cli
from kling_nb.commands.demo import Demo
from kling_nb.ledger.database import Ledger
from support.clips import make_record
from support.warm import run_process, tool

WORDS = "Ein Fuchs \u72d0 \u2014 \u00e9 \U0001f98a"


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    """A ledger that holds one run, whose prompt few consoles can write."""
    place = tmp_path / "ledger.db"
    monkeypatch.setenv("KLING_NB_LEDGER", str(place))
    monkeypatch.chdir(tmp_path)
    with Ledger(place).writing() as transaction:
        transaction.insert(make_record(prompt=WORDS))


def run(monkeypatch, encoding, *words):
    """Run one command on streams of an encoding; give what it wrote and its exit code."""
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding) for name in ("stdout", "stderr")}
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["kling-nb", *words])
        for name, stream in streams.items():
            patch.setattr(sys, name, stream)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        written = []
        for stream in streams.values():
            stream.flush()
            written.append(stream.buffer.getvalue().decode(encoding))
    return *written, ended.value.code


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "cp1252", "utf-8"])
def test_letters_that_a_console_cannot_write_are_escaped(ledger, monkeypatch, encoding):
    """A list, JSON and an error come out whole, with the exit codes they have everywhere."""
    out, _, code = run(monkeypatch, encoding, "runs")
    assert code == 0
    assert WORDS.encode(encoding, "backslashreplace").decode(encoding) in out
    out, _, code = run(monkeypatch, encoding, "runs", "--json")
    assert code == 0
    assert json.loads(out)[0]["request"]["prompt"] == WORDS
    _, err, code = run(monkeypatch, encoding, "resolve", "\u72d0")
    assert code == 2
    assert "\u72d0".encode(encoding, "backslashreplace").decode(encoding) in err
    assert "Traceback" not in err


#: Packages that take long to load.
HEAVY = {
    "aiohttp",
    "httpx",
    "IPython",
    "PIL",
    "anywidget",
    "av",
    "ipywidgets",
    "lazy_loader",
    "pydantic",
    "rich",
    "sqlalchemy",
}


def loaded_by(*words):
    """Run one command in a process of its own; give what it printed and which packages it loaded."""
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr))\n"
        "from kling_nb.cli import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return done.stdout, set(done.stderr.split())


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--version"], f"kling-nb {version('kling-nb')}"),
        (["--help"], "List runs of the ledger, newest first."),
    ],
)
def test_version_and_help_load_nothing_heavy(words, shown):
    """They answer quickly, because they load no package that takes long."""
    out, packages = loaded_by(*words)
    assert shown in out
    assert packages & HEAVY == set()
    assert "typer" in packages


def test_a_listing_of_runs_opens_no_database_by_sqlalchemy(ledger):
    """It would wait for that longer than for all else; a ledger that is a file is read as it is."""
    out, packages = loaded_by("runs")
    assert "Ein Fuchs" in out
    assert packages & (HEAVY - {"pydantic"}) == set()


def test_a_clip_is_made_from_the_command_line(tmp_path):
    """With the flags of a cell: it waits, a second call reuses the clip, and each end has its exit code."""
    settings = {
        "KLING_NB_LEDGER": str(tmp_path / "ledger.db"),
        "KLING_NB_MEDIA": str(tmp_path / "media"),
        "KLING_NB_SANDBOX_WAIT": "0",
    }

    def generate(*words):
        return tool("generate", *words, cwd=tmp_path, env=os.environ | settings)

    made = subprocess.run(
        [sys.executable, "-m", "kling_nb", "generate", "A fox", "-d", "3", "-n", "2", "--json"],
        cwd=tmp_path,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (made.returncode, made.stderr) == (0, "")
    receipts = json.loads(made.stdout)
    assert [receipt["status"] for receipt in receipts] == ["succeeded"] * 2
    assert len(list((tmp_path / "media").glob("*.mp4"))) == 2
    again = generate("A fox", "-d", "3").stdout
    assert "reused" in again
    assert (tmp_path / again.splitlines()[-1]).is_file()
    assert "Dry run, nothing was sent" in generate("A hen", "--dry-run").stdout
    wrong = generate("A fox", "-d", "99")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "at most 15, not 99" in wrong.stderr
    assert generate("A hen", "--max-cost", "0.01").returncode == 3
    assert len(Ledger(tmp_path / "ledger.db").runs()) == 2


def test_a_script_that_does_not_wait_is_told(tmp_path):
    """One line on stderr names the run; one that waited says nothing; on a terminal the wait ticks."""
    script = "import kling_nb as k; run = k.submit('A fox', duration=3, provider='sandbox')"
    settings = {"KLING_NB_LEDGER": str(tmp_path / "ledger.db"), "KLING_NB_SANDBOX_WAIT": "0.1"}

    def ended(code, **options):
        done = run_process([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | settings, **options)
        assert done.returncode == 0
        return done

    left = ended(script, stderr=subprocess.PIPE).stderr
    (record,) = Ledger(tmp_path / "ledger.db").runs()
    assert f"without waiting for {record.id}" in left
    assert left.count("\n") == 1
    assert ended(f"{script}; run.wait()", stderr=subprocess.PIPE).stderr == ""
    ours, theirs = pty.openpty()
    ended(f"{script.replace('A fox', 'A hen')}; run.wait()", stderr=theirs)
    ticked = whole(ours, theirs)
    assert "so far" in ticked
    assert ticked.endswith("\r\x1b[K")
    ours, theirs = pty.openpty()
    settings["TERM"] = "dumb"
    ended(f"{script.replace('A fox', 'A hare')}; run.wait()", stderr=theirs)
    assert "\x1b" not in whole(ours, theirs)


def whole(ours, theirs):
    """Read all that was written to a terminal: on a busy machine it comes through in pieces."""
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # its end
        while piece := os.read(ours, 65536):
            shown += piece
    os.close(ours)
    return shown.decode()


def test_the_table_of_the_demonstration_fits_the_terminal(tmp_path):
    """Its last columns go where there is no room."""
    prompt = "A lighthouse keeper climbs a spiral stair, lantern in hand, at night"
    done = Demo(
        notebook=tmp_path / "demo.ipynb",
        page=tmp_path / "demo.html",
        records=(make_record(prompt=prompt),),
        second_pass_new=0,
    )
    assert max(map(len, done.table(80).splitlines())) <= 80
    assert "file" in done.table(200)


def test_what_is_wrong_is_broken_at_words_on_a_terminal(tmp_path):
    """And `spend` fits it; without a notebook the doctor has nothing to note of one."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 60))
    # Who runs tests in parallel says how wide their own terminal is.
    settings = {"COLUMNS": "", "KLING_NB_LEDGER": str(tmp_path / "ledger.db"), "KLING_NB_SANDBOX_WAIT": "0"}
    clip = ["generate", "A fox", "-d", "3", "-p", "sandbox"]
    assert run_process(["kling-nb", *clip], cwd=tmp_path, env=os.environ | settings).returncode == 0
    ends = [
        run_process(
            ["kling-nb", *words],
            cwd=tmp_path,
            env=os.environ | settings,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        ).returncode
        for words in (["generate", "A fox", "-d", "99"], ["resolve", "nosuch"], ["spend"], ["doctor"])
    ]
    shown = whole(ours, theirs)
    assert ends == [2, 2, 0, 0]
    assert "See `kling-nb runs`." in " ".join(shown.split())
    assert "settled" in shown
    assert "at most 15, not 99" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 60
    assert "All fine." in shown
