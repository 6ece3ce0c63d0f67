"""A saved notebook where it is only read: on GitHub, in a diff, as text, with its outputs stripped."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import bleach
import jupytext
import nbformat
import pytest

from kling_nb.records.receipt_model import RECEIPT_MIME
from kling_nb.recovery.restore import restore
from support.kernels import errors, execute, notebook, records, sandbox_beside, texts
from support.markup import judge
from support.sessions import sessions_in

CELLS = (
    "%load_ext kling_nb",
    "%%kling fox -d 3\nA red fox crosses fresh snow",
    "%%kling pair -n 2 -d 3\nTwo takes of a heron",
    "%%kling trailer --tag study=a\n[3s] Wide view of a vineyard\n[3s] Two hands meet",
)
#: What GitHub is reported to leave of an HTML output: no style, no script, no video; pictures as data stay
#: (karolzak/ipyplot issue 3, jupyter/nbviewer issues 450 and 603, google-gemini/cookbook pull request 1372).
NOTEBOOK_TAGS = {"a", "b", "bdi", "br", "code", "details", "div", "img", "span", "summary"}
NOTEBOOK_TAGS |= {"table", "tbody", "td", "th", "thead", "tr"}
#: html-pipeline's own list leaves no pictures as data either; its README says that GitHub no longer uses it.
STRICT = {"a": ["href"], "img": ["alt"]}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Run a notebook at a stand-in of a provider in a real kernel, once; give its folder and the provider."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch, sandbox_beside() as provider:
        for name, value in environment(folder, provider).items():
            patch.setenv(name, value)
        patch.setenv("TESTS_DRAW_WORDS", "1")
        done = execute(notebook(*CELLS), folder)
        assert errors(done) == []
        nbformat.write(done, folder / "a.ipynb")
        patch.undo()
        yield folder, provider, done


@pytest.fixture(scope="module")
def again(made):
    """Run it once more as text and back; give what came of it, and how many runs were made meanwhile."""
    folder, provider, done = made
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(folder, provider).items():
            patch.setenv(name, value)
        _, before = provider.counts()
        back = _through(done, "py:percent")
        assert errors(execute(back, folder)) == []
    return back, provider.counts()[1] - before


def _through(done, form):
    text = jupytext.writes(done, fmt=form)
    assert "A red fox crosses fresh snow" in text
    assert "base64" not in text
    back = jupytext.reads(text, fmt=form)
    back.metadata["kernelspec"] = done.metadata["kernelspec"]
    return back


def environment(folder, provider):
    more = {"KLING_NB_LEDGER": str(folder / "ledger.db"), "KLING_NB_BUDGET": "10", "KLING_NB_PROJECT": "p"}
    return provider.environment("runcomfy", **more)


def _tool(name, *words, cwd):
    command = [str(Path(sys.executable).with_name(name)), *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False).stdout


class Reader(HTMLParser):
    """What is left of markup: its words, links, pictures and players."""

    def __init__(self, markup):
        super().__init__()
        self.words, self.links, self.pictures, self.players = "", [], [], 0
        self.feed(markup)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag == "a":
            self.links.append(found.get("href"))
        if tag == "img":
            self.pictures.append(found)
        self.players += tag == "video"

    def handle_data(self, data):
        self.words += data


def _pages(done):
    return [
        o.data["text/html"] for cell in done.cells for o in cell.outputs if RECEIPT_MIME in o.get("data", {})
    ]


@pytest.mark.parametrize("strict", [False, True])
def test_a_sanitizer_without_video_and_style_leaves_picture_link_and_words(made, strict):
    """As on GitHub: no word is lost, each clip is linked, and its picture is there, where data may be."""
    folder, _, done = made
    pages = _pages(done)
    clips = {f"kling_media/{path.name}" for path in (folder / "kling_media").glob("*.mp4")}
    assert len(clips) == 4
    left = "".join(
        bleach.clean(
            page,
            tags=NOTEBOOK_TAGS,
            attributes=STRICT if strict else {"a": ["href"], "img": ["src", "alt"]},
            protocols={"http", "https", *([] if strict else ["data"])},
            strip=True,
        )
        for page in pages
    )
    seen, whole = Reader(left), Reader("".join(pages))
    assert (whole.players, seen.players) == (4, 0)
    assert seen.words == whole.words
    assert {link for link in seen.links if link and link.startswith("kling_media/")} == clips
    assert [picture["alt"] for picture in seen.pictures] == ["first frame"] * 4
    assert sum("src" in picture for picture in seen.pictures) == (0 if strict else 4)
    for page in pages:
        judge(page)


def test_a_diff_is_readable(made, tmp_path, again):
    """`git diff` and `nbdiff`: state, price and file in words; a still is one line, or none when it stays."""
    folder, _, done = made
    before = notebook(*CELLS)
    second, _ = again
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    for name, content in (("0", before), ("1", done), ("2", second)):
        nbformat.write(content, tmp_path / f"{name}.ipynb")

    def differ(old, new):
        git = ["git", "--no-pager", "diff", "--no-index", "--no-color", f"{old}.ipynb", f"{new}.ipynb"]
        told = subprocess.run(git, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
        return {
            "git": told,
            "nbdiff": _tool("nbdiff", "--no-color", f"{old}.ipynb", f"{new}.ipynb", cwd=tmp_path),
        }

    file = next((folder / "kling_media").glob("*fox*.mp4")).name
    for told in differ("0", "1").values():
        [line] = [line for line in told.splitlines() if "(fox) Done" in line]
        assert "$0.336 charged" in line
        assert f"kling_media/{file}" in line
        assert len(line) < 300
        # One line a clip, and nothing of it in the lines of text.
        assert sum("data:image/jpeg;base64," in line for line in told.splitlines()) == 4
        assert len([line for line in told.splitlines() if len(line) > 10_000]) == 0
    for name, told in differ("1", "2").items():
        added = [line for line in told.splitlines() if line.startswith("+")]
        assert [line for line in added if "(fox) Done, reused" in line]
        # nbdime may take an output for another one, and then it shows the whole of it.
        assert not [line for line in added if "data:image/jpeg" in line and name == "git"]


def test_a_text_notebook_keeps_its_cells_and_runs_again_for_free(made, again):
    """Through jupytext and back: every `%%kling` cell as it was, to the letter, and nothing is bought."""
    _, _, done = made
    back, bought = again
    for notebook_of_text in (back, _through(done, "md")):
        code = [cell for cell in notebook_of_text.cells if cell.cell_type == "code"]
        assert [cell.source for cell in code] == list(CELLS)
    assert bought == 0
    assert "".join(texts(cell) for cell in back.cells).count("Done, reused") == 4
    assert [record.id for record in records(back)] == [record.id for record in records(done)]


def test_a_kept_output_brings_its_clip_back(made, tmp_path, request):
    """nbstripout keeps a cell tagged `keep_output`, receipt and all, which is enough to restore its clip."""
    folder, _, done = made
    kept = nbformat.from_dict(done)
    kept = nbformat.reads(nbformat.writes(kept), as_version=4)
    kept.cells[1].metadata["tags"] = ["keep_output"]
    nbformat.write(kept, tmp_path / "a.ipynb")
    _tool("nbstripout", "a.ipynb", cwd=tmp_path)
    stripped = nbformat.read(tmp_path / "a.ipynb", as_version=4)
    assert stripped.cells[1].outputs == done.cells[1].outputs
    assert [len(cell.outputs) for cell in stripped.cells] == [0, 1, 0, 0]
    [record] = records(stripped)
    # The one receipt that is left brings its clip back, from the folder where the others lie.
    factory = sessions_in(tmp_path)
    session = next(factory)()
    request.addfinalizer(lambda: next(factory, None))
    [found] = restore(tmp_path / "a.ipynb", look_in=folder / "kling_media", session=session)
    assert (found.run_id, found.word) == (record.id, "linked")
    assert (tmp_path / "kling_media" / record.media.file).is_file()
    # Without the tag the cell is as it was, and running it again is free: see above.
    assert [cell.source for cell in stripped.cells] == list(CELLS)


def test_twenty_stills_are_small_and_there_once(made):
    """A clip adds its still once and some kilobytes of words: twenty stay below half a megabyte."""
    _, _, done = made
    stills = re.findall(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", nbformat.writes(done))
    assert len(stills) == len(set(stills)) == 4
    # 4 runs with two grids and a storyboard; a card of its own for each is the dearest way.
    card = next(len(nbformat.writes(nbformat.v4.new_notebook(cells=[cell]))) for cell in done.cells[1:2])
    assert 5_000 < card < 25_000
