"""One page of a notebook: it plays offline with nothing beside it, and says what is not in it."""

import html
import json
import re
import shutil
from base64 import b64encode

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from PIL import Image

from kling_nb.errors import UsageError
from kling_nb.exports.page import _without_private, write_page
from kling_nb.exports.page_sanitizer import Cleaner
from kling_nb.notebook.line import run_command
from support.hostile_text import CORPUS, JUDGE, mark_of
from support.kernels import KEY, execute, notebook, records
from support.paths import ROOT
from support.sessions import sessions_in
from support.warm import tool
from support.watch import Watch

SHOTS = ROOT / "build" / "screenshots"
CELLS = (
    "%load_ext kling_nb",
    "%%kling fox -d 3\nA red fox crosses fresh snow",
    "%%kling band -d 3 --audio\nA brass band marches through rain",
    "%kling show fox",
    "%kling cost",
    "%%kling hidden -d 3 --private\nAn unannounced telescope opens",
)
TEXT = (
    "# A study\n\nWith $x^2$, ![near](dot.png), ![far](https://example.org/far.png) and "
    "![odd](notes.png)\n\n| a | b |\n|---|---|\n| 1 | 2 |"
)
PLAY = """async () => {
  const seen = [];
  for (const video of document.querySelectorAll('video')) {
    video.muted = true;
    await video.play();
    const end = performance.now() + 60000;
    while (video.currentTime === 0 && performance.now() < end) await new Promise((r) => setTimeout(r, 20));
    seen.push([video.currentTime > 0, video.videoWidth, video.readyState >= 2, video.error]);
    video.pause();
  }
  return seen;
}"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Run a notebook with three clips in a real kernel, once; give its folder."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KLING_NB_SANDBOX_WAIT", "0")
        patch.setenv("KLING_NB_PROVIDER", "sandbox")
        patch.setenv("KLING_NB_LEDGER", str(folder / "ledger.db"))
        done = execute(notebook(*CELLS), folder)
    done.cells.insert(0, nbformat.v4.new_markdown_cell(TEXT))
    nbformat.write(done, folder / "a.ipynb")
    Image.new("RGB", (40, 20), "red").save(folder / "dot.png")
    (folder / "notes.png").write_text("no picture, and not to be shared")
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """Give a copy of it that may be spoilt."""
    return shutil.copytree(made, tmp_path / "study")


def _clip(folder, word):
    return next((folder / "kling_media").glob(f"*{word}*.mp4"))


@pytest.mark.browser
def test_a_page_plays_offline_with_nothing_beside_it(folder, browser, tmp_path):
    """Moved to an empty folder, without a network: each clip plays, nothing is asked for or complains."""
    page = write_page(folder / "a.ipynb", embed=True)
    assert [(clip.file.split("-")[1], clip.state) for clip in page.clips[:2]] == [
        ("red", "inside"),
        ("brass", "inside"),
    ]
    assert page.complete
    assert page.path == folder / "a.html"
    (tmp_path / "empty").mkdir()
    alone = page.path.rename(tmp_path / "empty" / "a.html")
    shutil.rmtree(folder)
    SHOTS.mkdir(parents=True, exist_ok=True)
    for name, width, scheme in (("wide", 1200, "light"), ("narrow", 400, "dark")):
        window = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        window.set_offline(True)
        tab = window.new_page()
        watch, said, failed = Watch(tab), [], []
        tab.on("console", lambda message, said=said: said.append(message.text))
        tab.on("requestfailed", lambda request, failed=failed: failed.append(request.url))
        tab.goto(alone.as_uri())
        # The second look at the fox leads to the first instead of being there twice.
        assert tab.evaluate(PLAY) == [[True, 640, True, None]] * 3
        assert tab.locator("a.kling-out").inner_text() == "Played further up in this page."
        assert tab.locator("footer").inner_text().startswith("Made by kling_nb from a.ipynb. 3 clips are in")
        assert watch.foreign_files(alone.as_uri()) == failed == said == []
        assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        tab.screenshot(path=SHOTS / f"page-{name}.png", full_page=True)
        window.close()


@pytest.mark.browser
def test_a_page_links_its_clips_from_where_it_is(folder, browser, tmp_path):
    """Without --embed the clips play from beside the notebook, also where the page is elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    page = write_page(folder / "a.ipynb", tmp_path / "elsewhere" / "b.html")
    assert page.size < 500_000
    assert {clip.state for clip in page.clips} == {"linked"}
    tab = browser.new_page()
    tab.goto(page.path.as_uri())
    assert tab.evaluate(PLAY) == [[True, 640, True, None]] * 4
    link = tab.locator("a", has_text="a-red-fox").first.get_attribute("href")
    assert link == f"../study/kling_media/{_clip(folder, 'fox').name}"


@pytest.mark.browser
def test_nbconverts_own_page_plays_beside_the_clips(folder, browser):
    """`nbconvert --to html`: still and player as they were saved, and each clip plays from its place."""
    (folder / "c.html").write_text(HTMLExporter().from_filename(str(folder / "a.ipynb"))[0])
    tab = browser.new_page()
    tab.goto((folder / "c.html").as_uri(), wait_until="domcontentloaded")
    assert tab.evaluate(PLAY) == [[True, 640, True, None]] * 4
    tab.wait_for_function(
        "() => [...document.querySelectorAll('video')]"
        ".every((video) => video.parentElement.querySelector('img').naturalWidth > 0)"
    )


def test_a_page_says_what_is_not_in_it(folder):
    """A changed clip, one that is gone, and pictures from elsewhere: told in the page and in the answer."""
    _clip(folder, "fox").write_bytes(b"other bytes")
    _clip(folder, "band").unlink()
    page = write_page(folder / "a.ipynb", embed=True)
    assert [(clip.state, clip.good) for clip in page.clips] == [
        ("changed", False),
        ("missing", False),
        ("inside", True),
    ]
    assert not page.complete
    text = page.path.read_text()
    assert text.count("<video") == text.count("data:video/mp4;base64,") == 1
    for told in [f"{clip.file}: {clip.why}." for clip in page.clips if clip.why] + list(page.notes):
        assert told in text
    assert page.notes == (
        "1 picture is not in the page: not found beside the notebook, too large, or no picture.",
        "1 picture or clip from other hosts is not in the page.",
    )
    assert "example.org/far" not in text
    assert "not to be shared" not in text
    assert b64encode((folder / "dot.png").read_bytes()).decode() in text


def test_a_page_stays_below_its_limit(folder):
    """What would not fit is left out with its size and the limit; what comes after it may still fit."""
    sizes = {word: _clip(folder, word).stat().st_size * 4 // 3 for word in ("fox", "band", "private")}
    assert sizes["band"] > max(sizes["fox"], sizes["private"])
    most = sizes["fox"] + sizes["private"] + 500
    page = write_page(folder / "a.ipynb", embed=True, most=most)
    assert [clip.state for clip in page.clips] == ["inside", "left out", "inside"]
    assert "it would add" in page.clips[1].why
    assert page.size < write_page(folder / "a.ipynb").size + most
    # Made again, it is the same, and it takes the place of its like only.
    (folder / "other.html").write_text("a page of somebody else")
    with pytest.raises(UsageError, match="not a page of kling_nb"):
        write_page(folder / "a.ipynb", folder / "other.html")


@pytest.mark.parametrize("above", ["", "\n", "# of the telescope\n", "%%time\n", "# a\n  %%capture out\n\n"])
def test_a_private_cell_is_left_out_whatever_stands_above_its_magic(above):
    """A comment or another magic above it neither hides that it is private nor is shown itself."""
    shown = _without_private(f"{above}%%kling hidden -d 3 --private\nAn unannounced telescope opens")
    assert shown == "%%kling hidden --private\n(a private prompt: left out of this page)"
    assert _without_private("%%kling fox\nA fox") == "%%kling fox\nA fox"


def test_a_page_holds_no_private_words_and_no_key(folder):
    """The body of a private cell is left out; with the words elsewhere, or a key, nothing is written."""
    private = "An unannounced telescope opens"
    path = folder / "a.ipynb"
    page = write_page(path, private=[private])
    text = page.path.read_text()
    assert "telescope" not in text
    shown = html.unescape(re.sub("<[^>]*>", "", text))
    assert "%%kling hidden --private\n(a private prompt: left out of this page)" in shown
    assert "private prompt, sha256:" in shown
    page.path.unlink()
    content = nbformat.read(path, as_version=4)
    content.cells.append(nbformat.v4.new_markdown_cell(f"We asked for: {private}."))
    content.cells.append(nbformat.v4.new_code_cell(f"key = {KEY!r}"))
    nbformat.write(content, path)
    with pytest.raises(UsageError, match="Cell 8 holds the words of a private run") as caught:
        write_page(path, private=[private])
    assert private not in str(caught.value)

    def refuse(texts):
        found = [what for what, words in texts.items() if KEY in words]
        if found:
            raise UsageError(f"There is a key in {found[0]}.")

    with pytest.raises(UsageError, match="a key in cell 9"):
        write_page(path, refuse=refuse)
    assert not page.path.exists()


@pytest.fixture
def session(folder):
    """Give a session beside the notebook."""
    yield from sessions_in(folder)


def test_the_line_makes_the_page_and_says_its_sums(folder, session):
    """`%kling export page`: of this notebook, in words; a flag of another layout is refused."""
    done = run_command(session(), "export page --embed -o b.html", {})
    assert done.text.startswith("b.html was written: ")
    assert "3 clips are inside, " in done.text
    assert "It plays with nothing beside it." in done.text
    assert (folder / "b.html").is_file()
    assert "3 clips are linked" in run_command(session(), "export page a.ipynb", {}).text
    for line in ("export page --to x", "export page a b", "export page -o", "export vbench --max-mb 3"):
        with pytest.raises(UsageError):
            run_command(session(), line, {})


def test_the_command_ends_badly_where_a_clip_is_not_in_the_page(folder, monkeypatch):
    """`kling-nb export page --json`: what is inside and what is not, and exit code 1."""
    monkeypatch.setenv("KLING_NB_LEDGER", str(folder / "ledger.db"))
    # Room for any one of the clips, and for no two.
    small, next_small, large = sorted(path.stat().st_size for path in folder.glob("*/*.mp4"))
    most = 0.9 * (small + next_small)
    assert large < most
    words = ["export", "page", "a.ipynb", "--embed", "--max-mb", f"{most / 1e6:f}", "--json"]
    done = tool(*words, cwd=folder)
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert sorted(told["clips"].values()) == ["inside", "left out", "left out"]
    assert len(told["missing"]) == 2


@pytest.mark.browser
@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.matrix)])
def test_nothing_of_a_strangers_notebook_runs_in_a_page(browser, tmp_path, step):
    """Hostile texts in every kind of output, in text cells and in metadata: nothing runs or is fetched."""
    made = nbformat.v4.new_notebook(metadata={"title": CORPUS[0], "widgets": {"x": CORPUS[1]}})
    kinds = ("text/html", "text/markdown", "text/latex", "image/svg+xml", "application/javascript")
    # Every kind meets every fifth text, in the matrix all of them.
    for number, text in list(enumerate(CORPUS))[::step]:
        cell = nbformat.v4.new_code_cell(text)
        cell.metadata["tags"] = [text]
        kind = kinds[(number // step) % len(kinds)]
        data = {kind: text, "text/plain": text}
        cell.outputs = [
            nbformat.v4.new_output("display_data", data=data, metadata={kind: {"width": text}}),
            nbformat.v4.new_output("display_data", data={"text/html": text, "text/vnd.mermaid": text}),
            nbformat.v4.new_output("stream", name="stdout", text=text),
        ]
        made.cells += [cell, nbformat.v4.new_markdown_cell(text)]
    nbformat.write(made, tmp_path / "a.ipynb")
    page = write_page(tmp_path / "a.ipynb")
    # Without the page's own policy: what is clean must not need it.
    text = page.path.read_text()
    assert text.count("Content-Security-Policy") == 1
    page.path.write_text(text.replace("Content-Security-Policy", "x-none"))
    tab = browser.new_page()
    watch = Watch(tab)
    tab.goto(page.path.as_uri())
    seen = tab.evaluate(JUDGE)
    tab.wait_for_timeout(300)
    assert tab.evaluate("typeof window.pwned") == seen["pwned"] == "undefined"
    assert seen["foreign"] == []
    assert watch.dialogs == 0
    assert watch.foreign_files("file:") == []
    assert {mark_of(number) for number in range(0, len(CORPUS), step)} <= set(seen["marks"])
    assert tab.locator("script").count() == 0


# As markup inside an address: both kinds of quotes, and letters that make whole groups of four.
REFRESH = "&quot;></video><meta http-equiv=refresh content='0;url=https://evil.example/'>"
SPOOFS = (
    """<img title=" src=" alt=" onerror=alert(1) x" src="dot.png">""",
    """<a title=' href=' class=' onclick=alert(1) x' href='a.mp4'>a clip</a>""",
    """<video title=" src=" class=" onerror=alert(1) x" src="a.mp4"></video>""",
    *(f'<video src="data:video/mp4;base64,{REFRESH}{"A" * more}"></video>' for more in range(4)),
    "<video src='data:video/mp4;base64,AAA'></video><video src='data:video/mp4,\u00e9'></video>",
    "<video src='a\ud800.mp4'></video><a href='b\ud800.mp4'>b</a><img src='c\ud800.png'>",
)


@pytest.mark.parametrize("embed", [True, False])
def test_no_address_of_a_stranger_breaks_out_of_its_quotes(tmp_path, embed):
    """What looks like an address inside a title, or like markup inside an address, stays what it is."""
    Image.new("RGB", (4, 4), "red").save(tmp_path / "dot.png")
    Image.new("RGB", (4, 4), "red").save(tmp_path / " alt=", format="PNG")
    cells = notebook(*map(str, range(len(SPOOFS)))).cells
    for cell, text in zip(cells, SPOOFS, strict=True):
        cell.outputs = [nbformat.v4.new_output("display_data", data={"text/html": text})]
    (tmp_path / "a.ipynb").write_text(json.dumps(nbformat.v4.new_notebook(cells=cells)))
    page = write_page(tmp_path / "a.ipynb", embed=embed)
    main = BeautifulSoup(page.path.read_text(), "html.parser").main
    titles = [" src="] if embed else [" src=", " href="]
    assert [tag["title"] for tag in main.select("[title]")] == titles
    assert main.select("meta, script") == []
    assert not [tag for tag in main.find_all(True) for name in tag.attrs if name.startswith("on")]


@pytest.mark.parametrize(
    "markup",
    [
        '<img src="https&#58;//evil.example/a.png">',
        '<img src="/&#9;/evil.example/a.png">',
        '<img src="\n//evil.example/a.png">',
        '<img src="/\\evil.example/a.png">',
        '<video src="https&#58;//evil.example/a.mp4" poster="//evil.example/a"></video>',
        '<b style="background:u\\72l(https://evil.example/a)">x</b>',
        """<b style="background:image-set('https://evil.example/a' 1x)">x</b>""",
        '<b style="background:URL(//evil.example/a)">x</b>',
        '<a href="data&#58;text/html,evil.example">x</a>',
        '<a href="java&#9;script&#58;evil.example">x</a>',
    ],
)
def test_no_spelling_of_an_address_asks_another_host(markup):
    """The sanitizer itself lets none through, whatever the page's policy would say of it."""
    assert "evil" not in Cleaner(str)(markup)


def test_plain_colours_sizes_and_addresses_stay():
    """What asks nobody is kept as it is."""
    for markup in (
        '<b style="color:rgba(1,2,3,.4);width:calc(1px + 2%);background:linear-gradient(#eee,#fff);">x</b>',
        '<img src="kling_media/a b.png">',
        '<a href="https://example.org/a?b=1">x</a>',
    ):
        assert Cleaner(str)(markup) == markup


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("source", None),
        ("execution_count", "<b>1</b>"),
        ("outputs", [{"output_type": "display_data", "metadata": {}, "data": {"text/html": 5}}]),
        ("outputs", [{"output_type": "strange", "data": {"text/plain": "x"}}]),
    ],
)
def test_a_malformed_notebook_is_told_in_a_line(tmp_path, place, value):
    """It parses, and is none: no traceback, and no page."""
    made = json.loads(json.dumps(notebook("1")))
    made["cells"][0][place] = value
    (tmp_path / "a.ipynb").write_text(json.dumps(made))
    with pytest.raises(UsageError, match=r"a\.ipynb is not a notebook"):
        write_page(tmp_path / "a.ipynb")
    assert not (tmp_path / "a.html").exists()


@pytest.mark.parametrize(
    "markup", ["<ul><li>" * 20_000, "<style>" * 20_000, "<b></i>" * 20_000, "<td>1</td>" * 200_000]
)
def test_markup_without_end_is_left_out_and_told(markup):
    """It would take the parser minutes, or more; a large table of data does not."""
    cleaner = Cleaner(str)
    assert cleaner(markup) == ""
    [told] = cleaner.notes()
    assert told == "1 output or text is left out: too much markup, or markup that does not end."
    rows = "<tr><td>1</td><td>2</td></tr>" * 2_000
    assert cleaner(f"<table>{rows}</table>").count("<td>") == 4_000
    assert cleaner.notes() == [told]


def test_what_is_no_notebook_is_told_in_a_line(folder):
    """A file that is none, a missing one and a strange name are one line each."""
    (folder / "bad.ipynb").write_text("{")
    for name, out, said in (
        ("bad.ipynb", None, "is not a notebook"),
        ("none.ipynb", None, "cannot be read"),
        ("a.ipynb", folder / "a.txt", "ends with .html"),
        ("a.ipynb", folder / "nowhere" / "a.html", "no folder"),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            write_page(folder / name, out)
        assert "\n" not in str(caught.value)
    assert len(records(nbformat.read(folder / "a.ipynb", as_version=4))) == 4
