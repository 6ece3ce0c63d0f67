"""A folder with a notebook and its clips is enough for somebody else: the same cards, and nothing is sent."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from kling_nb.records.receipt import to_receipt
from support.kernels import check_saved, errors, execute, notebook, records, sandbox_beside, texts
from support.lab import Lab, write_notebook

CELLS = (
    "%load_ext kling_nb",
    "%%kling fox -d 3\nA red fox crosses fresh snow",
    "%%kling pair -n 2 -d 3\nTwo takes of a heron",
    "%%kling trailer\n[3s] Wide view of a vineyard\n[3s] Two hands meet",
    "fox.id, [run.id for run in pair], trailer.id",
)


@pytest.fixture
def author(tmp_path, monkeypatch):
    """Let ann run a notebook at a stand-in of a provider; give her folder, her notebook and the provider."""
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "0")
    with sandbox_beside() as provider:
        with monkeypatch.context() as hers:
            for name, value in provider.environment("runcomfy", KLING_NB_BUDGET="10").items():
                hers.setenv(name, value)
            hers.setenv("KLING_NB_LEDGER", str(tmp_path / "ann.db"))
            hers.setenv("JUPYTERHUB_USER", "ann")
            (tmp_path / "ann").mkdir()
            made = execute(notebook(*CELLS), tmp_path / "ann")
            nbformat.write(made, tmp_path / "ann" / "a.ipynb")
        assert provider.counts() == (4, 4)
        # What the colleague has: another user, another ledger, and no key.
        monkeypatch.setenv("JUPYTERHUB_USER", "bob")
        monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "bob.db"))
        shutil.copytree(tmp_path / "ann", tmp_path / "bob")
        shutil.rmtree(tmp_path / "ann")
        yield tmp_path / "bob", made, provider


def _told(made):
    """Give what the cards and the last cell tell, without what only a first run says."""
    receipts = [to_receipt(record) for record in records(made)]
    return receipts, texts(made.cells[-1])


@pytest.mark.parametrize("runner", ["nbclient", pytest.param("papermill", marks=pytest.mark.matrix)])
def test_a_colleague_runs_all_and_nothing_is_sent(author, runner):
    """No key, no ledger, another name: the same runs, receipts and clips, and no sandbox clip among them."""
    folder, first, provider = author
    if runner == "nbclient":
        again = execute(notebook(*CELLS), folder)
    else:
        command = [str(Path(sys.executable).with_name("papermill")), "a.ipynb", "out.ipynb"]
        subprocess.run([*command, "--no-progress-bar"], cwd=folder, check=True, capture_output=True)
        again = nbformat.read(folder / "out.ipynb", as_version=4)
    assert errors(again) == []
    assert _told(again) == _told(first)
    assert [record.user for record in records(again)] == ["ann"] * 4
    assert {record.provider for record in records(again)} == {"runcomfy"}
    assert check_saved(again, folder) == check_saved(first, folder) == 4
    assert texts(again.cells[1]).count("Done, reused") == 1
    assert provider.counts() == (4, 4)
    assert len(list((folder / "kling_media").glob("*.mp4"))) == 4


@pytest.mark.browser
@pytest.mark.matrix
def test_a_colleague_runs_all_in_jupyterlab(author, browser, tmp_path):
    """In a page, too: every clip plays, no control appears, and nothing is sent."""
    folder, first, provider = author
    write_notebook(folder / "b.ipynb", *CELLS)
    with Lab(folder, browser, env={"KLING_NB_LEDGER": str(tmp_path / "bob.db")}) as jupyter:
        tab = jupyter.open("b.ipynb")
        tab.run_all()
        assert [text.count("Done, reused") for text in (tab.outputs(1)[0], tab.outputs(3)[0])] == [1, 1]
        assert tab.outputs(4) == [texts(first.cells[-1]).strip()]
        videos = tab.videos()
        assert [video["error"] for video in videos] == [None] * 4
        assert all(video["played"] > 0 for video in videos)
        assert tab.page.locator(".jp-OutputArea button").count() == 0
        assert jupyter.errors == []
    assert provider.counts() == (4, 4)


def test_only_kept_clips_names_the_one_that_is_missing(author, monkeypatch):
    """`KLING_NB_CACHED_ONLY=1` turns a miss into an error that names the clip, before anything is drawn."""
    folder, first, provider = author
    monkeypatch.setenv("KLING_NB_CACHED_ONLY", "1")
    more = "%%kling -n 3 -d 3\nTwo takes of a heron", "%%kling -d 3\nTwo takes of a heron"
    made = notebook(*CELLS[:2], "%%kling -d 3\nA clip nobody made", *more)
    for cell in made.cells[2:]:
        cell.metadata["tags"] = ["raises-exception"]
    gone = records(first)[1]
    (folder / "kling_media" / gone.media.file).unlink()
    again = execute(made, folder)
    assert "Done, reused" in texts(again.cells[1])
    assert "NotCachedError: There is no kept clip of “A clip nobody made”, and" in texts(again.cells[2])
    heron = f"“Two takes of a heron”; the file of run {gone.id} is not here"
    assert f"NotCachedError: There is no kept clip of take 0 of {heron}" in texts(again.cells[3])
    assert f"NotCachedError: There is no kept clip of {heron}" in texts(again.cells[4])
    assert provider.counts() == (4, 4)


@pytest.mark.matrix
def test_twenty_clips_stay_under_half_a_megabyte(tmp_path, monkeypatch):
    """A notebook with twenty finished clips is kilobytes: stills and receipts, and no clip inside."""
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "0")
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    cells = [f"%%kling fox{n} -d 3 --no-wait\nA red fox crosses fresh snow, number {n}" for n in range(10)]
    takes = "%%kling heron -n 10 -d 3 --no-wait\nTen takes of a heron at a lake, slow dolly-in"
    made = execute(notebook("%load_ext kling_nb", *cells, takes, "%kling wait"), tmp_path)
    assert check_saved_many(made, tmp_path) == 20
    nbformat.write(made, tmp_path / "a.ipynb")
    assert 50_000 < (tmp_path / "a.ipynb").stat().st_size < 500_000


def check_saved_many(made, folder):
    """Count the clips that play from the outputs."""
    found = {record.media.file for record in records(made) if record.media is not None}
    page = "".join(o.data.get("text/html", "") for cell in made.cells for o in cell.outputs if "data" in o)
    assert all(
        f'src="kling_media/{file}"' in page and (folder / "kling_media" / file).is_file() for file in found
    )
    return len(found)
