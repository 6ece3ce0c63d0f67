"""Notebooks run where nobody is watching: what is stored in them at the end, and what was sent for it."""

import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from kling_nb.records.saved_notebook import read_receipts
from support.kernels import (
    KEY,
    WATCHFUL,
    check_saved,
    errors,
    execute,
    forked_kernels,
    let_go,
    notebook,
    records,
    sandbox_beside,
    short_words,
    texts,
)
from support.matrix import ONE_WIRE
from support.paths import ROOT
from support.workbench import on_one_day

TOUR = ROOT / "notebooks" / "01_first_video.ipynb"


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    """A ledger of the test's own, and a sandbox that keeps nobody waiting."""
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "0")


@pytest.fixture
def use(monkeypatch):
    """Put variables into the environment of the kernels to come."""

    def put(variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


# -- the tour ---------------------------------------------------------------------------
def test_the_tour_runs_from_top_to_bottom(tmp_path):
    """The first notebook a user opens works with no key, ends with final cards and plays its clips."""
    made = execute(nbformat.read(TOUR, as_version=4), tmp_path)
    assert errors(made) == []
    # The run that is canceled may have been quicker.
    assert check_saved(made, tmp_path) >= 5
    assert len(records(made)) == 7
    assert {record.provider for record in records(made)} == {"sandbox"}
    nbformat.write(made, tmp_path / TOUR.name)
    assert (tmp_path / TOUR.name).stat().st_size < 200_000
    by_id = {cell.id: texts(cell) for cell in made.cells if cell.cell_type == "code"}
    assert "(True, True)" in by_id["again-proof"]
    assert "nothing was sent" in by_id["dry"]
    assert "would cost 0.336 dollars" in by_id["python"]


def test_the_tour_stays_in_the_sandbox_with_a_key(tmp_path, use):
    """Who runs the tour with a key in the environment does not pay for it."""
    with sandbox_beside() as provider:
        use(provider.environment("runcomfy", KLING_NB_BUDGET="10"))
        made = execute(nbformat.read(TOUR, as_version=4), tmp_path)
        assert len(records(made)) == 7
        assert {record.provider for record in records(made)} == {"sandbox"}
        assert provider.counts() == (0, 0)


def test_the_tour_is_kept_without_outputs():
    """A receipt names its user, session and port, so the notebook in the repository holds none."""
    cells = json.loads(TOUR.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 10
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


# -- the tutorial on money, which is kept with its outputs ------------------------------------
MONEY = TOUR.with_name("02_cost_and_budgets.ipynb")
SHARE = TOUR.with_name("05_share_and_export.ipynb")
SWEEP = TOUR.with_name("06_sweep.ipynb")
TEAM = TOUR.with_name("07_team.ipynb")
#: What may differ from one day and process to the next.
CHANGING = re.compile(
    r"s-\d{8}-\d{6}-[\da-z]+-[\da-z]+|\d{4}-\d\d-\d\d( \d\d:\d\d:\d\d UTC)?|, \d+ (months|years) old"
    r"|\d+ h \d+ min|\d+ (h|min)\b"
)


def _builder():
    spec = importlib.util.spec_from_file_location(
        "notebooks", TOUR.parent.parent / "docs" / "tools" / "notebooks.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _shown(made):
    """What each cell shows, but for times and ids; pandas may draw its own tables anew."""
    forms = ("text/plain", "text/html")
    return {
        cell.id: [
            CHANGING.sub("...", output.get("evalue") or output.get("text") or output.data.get(form, ""))
            for output in cell.outputs
            for form in (forms if output.output_type == "display_data" else forms[:1])
        ]
        for cell in made.cells
        if cell.cell_type == "code"
    }


@pytest.mark.matrix
def test_the_tutorial_on_money_shows_what_it_would_show_now(tmp_path):
    """Run anew from top to bottom, every cell shows the same figures and bars: else `make notebooks`."""
    kept = nbformat.read(MONEY, as_version=4)
    was = _shown(kept)
    on_one_day(120)
    with forked_kernels():
        now = _shown(_builder().execute(nbformat.read(MONEY, as_version=4), tmp_path))
    assert len(was) > 15
    assert now == was
    # By hand: 2 x 5 s at 0.112, 7 s at 0.084, 3 s at 0.42 and 8 s with sound at 0.168.
    assert "estimated $4.312, reported $4.312, settled $4.312, $0.00 reserved" in was["cost"][0]
    assert [len(was[name]) > 0 for name in ("max", "over", "frame", "csv")] == [True] * 4
    assert "height:6px" in was["cost"][1], "the chart is in the saved output"


def test_the_tutorial_on_sweeps_runs_from_top_to_bottom(tmp_path):
    """Quote, table, grid, comparison, votes and export: twelve clips of two providers, and no error."""
    source = nbformat.read(SWEEP, as_version=4)
    assert all(cell.outputs == [] for cell in source.cells if cell.cell_type == "code")
    with forked_kernels():
        made = _builder().execute(source, tmp_path)
    assert errors(made) == []
    shown = {cell.id: "".join(map(str, cell.get("outputs", []))) for cell in made.cells}
    assert "12 new runs may cost" in shown["sweep-05"]
    assert "(12, 0)" in shown["sweep-07"]
    assert shown["sweep-12"].count("<img") == 12
    assert "6 clips as vbench" in shown["sweep-18"]
    assert len(nbformat.writes(made)) < 400_000
    assert len(list((tmp_path / "notebooks" / "kling_media").glob("*.mp4"))) == 12


def test_the_tutorial_on_sharing_shows_what_it_would_show_now(tmp_path):
    """From giving away to the page: every cell says the same as the kept one, and is no error."""
    kept = nbformat.read(SHARE, as_version=4)
    with forked_kernels():
        made = _builder().execute(nbformat.read(SHARE, as_version=4), tmp_path)
    assert (errors(made), _said(made)) == ([], _said(kept))
    said = _said(kept)
    assert "2 runs: 2 done, reused" in said["colleague"]
    assert "1 of 2 is not in order." in said["lose"]
    assert all("All 2 are in order." in said[name] for name in ("restore", "mend"))
    assert any("'changed'" in line for line in said["flip"])
    assert "An owl turns its head-1.mp4: no run" in said["missing"]
    assert any("is private" in line for line in said["private-export"])
    work = tmp_path / "notebooks"
    first = json.loads((work / "out" / "set" / "train" / "metadata.jsonl").read_text().splitlines()[0])
    assert (work / "out" / "set" / "train" / first["file_name"]).is_file()
    assert "of 3 attempts every one is on record" in (work / "out" / "set.METHODS.md").read_text()
    assert b"data:video/mp4" in (work / "out" / "heron.html").read_bytes()
    assert "nobody has announced" not in (work / "out" / "secret.export.json").read_text()


def _said(made):
    """What each cell says in lines, but for ids, versions and the order that ids give to files."""
    ids = re.compile(r"\bk[23456789b-df-hj-np-tv-z]{7}\b|kling_nb [0-9.]+\w*|[0-9.]+ kB|\d{4}-\d\d-\d\d")
    return {
        cell.id: sorted(line.strip() for line in ids.sub("...", texts(cell)).splitlines() if line.strip())
        for cell in made.cells
        if cell.cell_type == "code"
    }


@pytest.mark.parametrize("path", [MONEY, SHARE, TEAM], ids=lambda path: path.name[:2])
def test_a_kept_tutorial_tells_nothing_of_the_machine_that_ran_it(path):
    """No folder, user, host, port, key or time of a process is in the file, and no script either."""
    text = path.read_text(encoding="utf-8")
    assert _builder().leaks(text) == []
    assert path.name in _builder().KEPT
    assert "execution" not in json.loads(text)["cells"][1]["metadata"]
    assert "<script" not in text
    assert "<svg" not in text
    assert len(text.encode()) < (80_000 if path == MONEY else 150_000)
    assert _builder().leaks('"http://127.0.0.1:1234/x" "/home/ada/x"') == ["127.0.0.1:1234/x", "/home/ada/x"]


@pytest.mark.parametrize("path", [MONEY, SHARE, TEAM], ids=lambda path: path.name[:2])
def test_a_kept_tutorial_can_be_run_again(path):
    """None of its outputs tells of a clip that a provider was paid for: who runs it has no such file."""
    records, bad = read_receipts(path)
    assert bad == 0
    assert [record.id for record in records if not record.play] == []


# -- every way to run one headless --------------------------------------------------------
RUNNERS = {
    "papermill": ["papermill", "--log-level", "ERROR", "--no-progress-bar", "in.ipynb", "out.ipynb"],
    "papermill with parameters": [
        *["papermill", "--log-level", "ERROR", "--no-progress-bar", "in.ipynb", "out.ipynb"],
        *["-p", "animal", "heron"],
    ],
    "jupyter execute": ["jupyter", "execute", "in.ipynb", "--output=out.ipynb"],
    "nbconvert": ["jupyter", "nbconvert", "--execute", "--to", "notebook", "in.ipynb", "--output=out.ipynb"],
}
#: The others are run by the matrix.
AT_ONCE = {"papermill"}


@pytest.mark.parametrize(
    "name", [name if name in AT_ONCE else pytest.param(name, marks=pytest.mark.matrix) for name in RUNNERS]
)
def test_a_headless_notebook_ends_final(tmp_path, monkeypatch, name):
    """Cell and API call alike end with final cards and playing clips, and leave no widget in the file."""
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "0.2")
    source = notebook(
        "%load_ext kling_nb",
        '# parameters\nanimal = "fox"',
        "%%kling clip -d 3\nA {{animal}} in snow",
        "import kling_nb as kling\nrun = kling.submit(f'A {animal} in rain', duration=3)\nrun",
    )
    nbformat.write(source, tmp_path / "in.ipynb")
    program, *arguments = RUNNERS[name]
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert check_saved(made, tmp_path) == 2
    animal = "heron" if "parameters" in name else "fox"
    prompts = [record.request.prompt for record in records(made)]
    assert prompts == [f"A {animal} in snow", f"A {animal} in rain"]
    assert all(record.status == "succeeded" for record in records(made))


def test_cells_that_do_not_wait_run_side_by_side(tmp_path, monkeypatch):
    """With `--no-wait` and one `%kling wait`, all runs are under way before the first one ends."""
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "60")
    cells = [f"%%kling fox{n} -d 3 --no-wait\nFox number {n}" for n in range(4)]
    made = execute(notebook(WATCHFUL, *cells, let_go(4), "%kling wait"), tmp_path)
    found = records(made)
    assert len(found) == 4
    assert check_saved(made, tmp_path) == 4
    assert max(r.submitted_at for r in found) < min(r.finished_at for r in found)


def test_a_card_that_ends_between_two_cells_is_stored_final(tmp_path):
    """nbclient drops an update that comes while no cell runs; the next cell of any kind makes up for it."""

    def between(cell, cell_index, **_):
        if cell_index == 1:
            _until_saved(tmp_path)

    source = notebook("%load_ext kling_nb", "%%kling fox -d 3 --no-wait\nA red fox", "1 + 1")
    made = execute(source, tmp_path, on_cell_executed=between)
    assert [record.status for record in records(made)] == ["succeeded"]
    assert check_saved(made, tmp_path) == 1


def _until_saved(folder):
    """Wait until a run's end is in its folder, and its card has had time to say so."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        files = list((folder / "kling_media").glob("*.json"))
        if files and all(json.loads(file.read_text())["status"] == "succeeded" for file in files):
            time.sleep(2)
            return
        time.sleep(0.1)
    raise AssertionError("the run did not end")


# -- Run All never pays twice --------------------------------------------------------------
@pytest.mark.parametrize("wire", ONE_WIRE)
def test_run_all_again_sends_nothing(tmp_path, use, wire):
    """A second pass in a fresh kernel, and one without the ledger, reuse every clip: no submission at all."""
    cells = (
        "%load_ext kling_nb",
        "%%kling fox -d 5 --ar 16:9\nA red fox crosses fresh snow",
        "%%kling pair -n 2 -d 3\nTwo takes of a heron",
        "%%kling trailer\n[3s] Wide view of a vineyard\n[3s] Two hands meet",
        "import kling_nb as kling\nkling.generate('A paper boat', duration=3).path.name",
        "%%kling fox2 -d 5 --ar 16:9\nA red fox crosses fresh snow",
    )
    with sandbox_beside() as provider:
        use(provider.environment(wire, KLING_NB_BUDGET="10"))
        first = execute(notebook(*cells), tmp_path)
        assert provider.counts() == (5, 5)
        assert check_saved(first, tmp_path) == 4
        ids = [record.id for record in records(first)]
        assert len(set(ids)) == 4
        assert {record.provider for record in records(first)} == {wire}
        for _ in ("with the ledger", "without it"):
            again = execute(notebook(*cells), tmp_path)
            assert provider.counts() == (5, 5)
            assert errors(again) == []
            assert [record.id for record in records(again)] == ids
            assert all("Done, reused" in texts(cell) for cell in again.cells[1:4])
            assert check_saved(again, tmp_path) == 4
            for file in tmp_path.glob("ledger.db*"):
                file.unlink()
        assert KEY not in json.dumps(first) + json.dumps(again)


# -- what ends a cell ----------------------------------------------------------------------
@pytest.mark.parametrize(
    "cells",
    [
        ["%%kling fox -d 3\nA red fox"],
        ["%%kling fox -d 3 --no-wait\nA red fox", "%kling wait"],
        ["%%kling fox -d 3 --no-wait\nA red fox", "%kling wait fox"],
    ],
)
def test_a_failed_run_fails_the_notebook(tmp_path, use, cells):
    """Nobody is watching, so a run without a clip ends its cell: one line, no traceback, no later cell."""
    source = notebook("%load_ext kling_nb", *cells, "print('never')")
    with sandbox_beside(faults=["run_failed=1"]) as provider:
        use(provider.environment("runcomfy", KLING_NB_BUDGET="10"))
        with pytest.raises(CellExecutionError):
            execute(source, tmp_path)
        assert provider.counts() == (1, 1)
    (error,) = errors(source)
    assert error.ename == "RunFailedError"
    assert "Charged:" in short_words(error)
    assert "Charged:" in error.evalue
    assert source.cells[-1].outputs == []
    (record,) = records(source)
    assert record.status == "failed"


def _long(letters):
    return "A fox " + "x" * (letters - 6)


REFUSALS = [
    # line, body, words of the refusal
    ("--sepia", "A fox", "no flag"),
    ("--seed 7", "A fox", "takes no seed"),
    ("--image fox.png", "A fox", "video from text only"),
    ("-d 99", "A fox", "at most 15"),
    ("-d 2.5", "A fox", "whole number"),
    ("--ar 4:3", "A fox", "4:3"),
    ("-p veo", "A fox", "veo"),
    ("-m kling-9", "A fox", "kling-9"),
    ("-p runflow", "A fox", "RUNFLOW_API_KEY"),
    ("", "", "The prompt is empty"),
    ("", "A {{nothing}}", "{{nothing}}"),
    ("", "A {{thing}}", "must be a str, int or float"),
    ("", _long(2501), "2,500"),
    ("", f"[5s] {_long(513)}", "512"),
    ("", "[9s] A fox\n[9s] A hare", "15"),
    ("", "[2s] A fox\n[3s] A hare", "3"),
    ("", "[5 sec] A fox", "whole seconds first"),
    ("", "rf_live_0123456789abcdef", "looks like a key"),
    ("--api-key rf_live_0123456789abcdef", "A fox", "key"),
    ("--max-cost 0.10", "A fox", "--max-cost of $0.10"),
    ("-n 40", "A fox", "does not fit"),
    ("--cached-only", "A fox", "no kept clip"),
    ("-f nowhere.txt", "", "no file"),
    ('--negative "no end', "A fox", "left open"),
]


def test_a_refused_cell_says_why_and_sends_nothing(tmp_path, use):
    """Each refusal is one line without a traceback, its variable explains itself, and nothing is sent."""
    probe = "print(dest.status, dest.done, dest.video); print(repr(dest)); del dest"
    cells = ["%load_ext kling_nb", "thing = object()"]
    for line, body, _ in REFUSALS:
        cells += [f"%%kling dest {line}\n{body}", probe]
    cells += ["import os; os.environ['RUNCOMFY_API_TOKEN'] = 'not a key'", "%%kling dest\nA fox", probe]
    cells += [f"os.environ['RUNCOMFY_API_TOKEN'] = '{KEY}'", "%%kling dest -d 3\nA fox", "dest.status.value"]
    with sandbox_beside() as provider:
        use(provider.environment("runcomfy", KLING_NB_BUDGET="10"))
        made = execute(notebook(*cells), tmp_path, allow_errors=True)
        assert provider.counts() == (1, 1)
    asked = [(cell, words) for cell, (_, _, words) in zip(made.cells[2::2], REFUSALS, strict=False)]
    asked.append((made.cells[-5], "RUNCOMFY_API_TOKEN"))
    assert len(asked) == len(errors(made)) == len(REFUSALS) + 1
    for cell, words in asked:
        (error,) = cell.outputs
        assert "Nothing was sent." in short_words(error), cell.source[:60]
        assert words in error.evalue, cell.source[:60]
        assert "\n" not in error.evalue
        assert "Charged: no." in error.evalue
        said = texts(made.cells[made.cells.index(cell) + 1])
        assert said.startswith("refused True None\nrefused, nothing was sent: "), cell.source[:60]
        assert error.evalue in said
    assert "succeeded" in texts(made.cells[-1])
    shown = json.dumps([cell.outputs for cell in made.cells])
    assert "0123456789abcdef" not in shown
    assert KEY not in shown


@pytest.mark.parametrize("wire", ONE_WIRE)
def test_no_money_is_spent_headless_without_a_budget(tmp_path, use, wire):
    """The default cap is no consent: only a declared budget lets an unwatched cell pay."""
    source = notebook("%load_ext kling_nb", "%%kling fox -d 3\nA fox", "%%kling fox -d 3 --max-cost 1\nA fox")
    with sandbox_beside() as provider:
        use(provider.environment(wire))
        made = execute(source, tmp_path, allow_errors=True)
        assert provider.counts() == (1, 1)
    (error,) = errors(made)
    assert error.ename == "ConsentError"
    assert "KLING_NB_BUDGET" in error.evalue
    assert [record.status for record in records(made)] == ["succeeded"]
