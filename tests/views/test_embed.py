"""What of a clip goes into a saved notebook: as asked, as the page needs it, and as it was told."""

import json
import re
import shutil

import nbformat
import pytest

from kling_nb.config.environment import front_end
from kling_nb.errors import UsageError
from kling_nb.files import file_sha256
from kling_nb.records.base import utc_now
from kling_nb.records.run import MediaFacts, RunStatus
from kling_nb.views.card import card, line
from kling_nb.views.card_parts import CardState
from kling_nb.views.embed import ASKED_MOST, Kept, data_address, growth, inset, refuse_too_much
from kling_nb.views.grid import grid
from kling_nb.views.words import size_words
from support.clips import make_clip, make_record
from support.kernels import WATCHFUL, errors, execute, kernel_in, let_go, notebook, texts
from support.lab import Lab
from support.markup import judge

POSTER = "data:image/jpeg;base64,AAAA"


def _kept(path, *, size=None, run_id="kl7m2q", **changes):
    """Give a finished run whose clip is this file; with `size` its record says that it is as large."""
    media = MediaFacts(
        file=path.name, sha256=file_sha256(path), size=size or path.stat().st_size, container="mp4", **changes
    )
    record = make_record(id=run_id, status=RunStatus.SUCCEEDED, media=media)
    return Kept(record=record, path=path, src=f"kling_media/{path.name}", poster=POSTER)


@pytest.fixture
def clip(tmp_path):
    """Give a small clip."""
    return make_clip(tmp_path / "fox.mp4", seconds=0.2)


@pytest.mark.parametrize("mode", ["auto", "always", "poster", "never"])
@pytest.mark.parametrize(
    ("codec", "pixels", "words"),
    [
        ("hevc", "yuv420p", "H.265"),
        ("hevc", "", "H.265"),
        ("h264", "yuv420p10le", "H.264, yuv420p10le"),
        ("h264", "yuv444p", "H.264, yuv444p"),
        ("mpeg4", "yuv420p", "MPEG-4 part 2"),
        ("av1", "yuv444p", "AV1, yuv444p"),
    ],
)
def test_a_whole_clip_that_not_every_browser_plays_is_offered_as_a_file(clip, mode, codec, pixels, words):
    """The card and its line say so, whatever is embedded; there is no dead player, and the still stays."""
    kept = _kept(clip, codec=codec, pixel_format=pixels)
    [shown] = inset([kept], mode)
    state = CardState(
        record=kept.record, src=shown.src, poster=shown.poster, player=shown.player, aside=shown.words
    )
    for written in (card(state, totals=None, now=utc_now()), line(state, totals=None, now=utc_now())):
        assert "not every browser plays it (" + words in written
    page = card(state, totals=None, now=utc_now())
    assert "<video" not in page
    assert ("<img" in page) is (mode != "never")
    assert 'href="kling_media/fox.mp4"' in page


@pytest.mark.parametrize(
    ("codec", "pixels"),
    [
        ("h264", "yuv420p"),
        ("h264", "yuvj420p"),
        ("h264", ""),
        ("", ""),
        ("av1", "yuv420p10le"),
        ("vp9", "yuv420p"),
    ],
)
def test_what_browsers_play_is_played(clip, codec, pixels):
    """Also where an earlier version did not look at the pixels."""
    [shown] = inset([_kept(clip, codec=codec, pixel_format=pixels)], "auto")
    assert (shown.player, shown.words) == (True, "")


@pytest.mark.parametrize(
    ("mode", "front", "inside", "still", "player"),
    [
        ("auto", "", False, True, True),
        ("auto", "vscode", True, True, True),
        ("auto", "colab", True, True, True),
        ("always", "", True, True, True),
        ("always", "colab", True, True, True),
        ("poster", "vscode", False, True, False),
        ("never", "", False, False, False),
    ],
)
def test_each_mode_puts_in_what_it_says(clip, mode, front, *, inside, still, player):
    """The clip itself, its still, or neither; the link to the file always."""
    [shown] = inset([_kept(clip)], mode, front=front)
    assert shown.embed == (data_address(clip.read_bytes()) if inside else None)
    assert (shown.poster is not None, shown.player) == (still, player)
    assert shown.src == "kling_media/fox.mp4"
    assert ("adds" in shown.words) is inside
    state = CardState(
        record=_kept(clip).record,
        src=shown.src,
        poster=shown.poster,
        embed=shown.embed,
        player=shown.player,
        aside=shown.words,
    )
    markup = card(state, totals=None, now=utc_now())
    seen, words = judge(markup)
    names = [name for name, _ in seen]
    assert names.count("video") == player
    assert [attrs["src"] for name, attrs in seen if name == "img"] == [POSTER] * still
    # Where there is no player, the still leads to the file as well.
    links = [attrs.get("href") for name, attrs in seen if name == "a"]
    assert links == ["kling_media/fox.mp4"] * (2 if still and not player else 1)
    assert shown.words in words
    assert markup.count("base64,") == inside + still + (player and still)


@pytest.mark.parametrize("mode", ["auto", "poster", "never"])
@pytest.mark.parametrize("final", [True, False])
def test_a_clip_of_any_size_is_shown_from_beside_the_notebook(clip, mode, final):
    """What does not go into the notebook is never too large for it: the card of a paid clip is drawn."""
    [small] = inset([_kept(clip)], mode, final=final)
    assert small.src == "kling_media/fox.mp4"
    for size in (4_000_000, 20_000_000, 500_000_000):
        assert inset([_kept(clip, size=size)] * 4, mode, final=final) == [small] * 4


def test_nothing_goes_in_before_the_output_is_final(clip):
    """While a run of the output is on its way no clip is inside; that one will be, and its price, is said."""
    live = Kept(record=make_record(id="kl7m2r", status=RunStatus.RUNNING))
    done, going = inset([_kept(clip), live], "always", final=False)
    assert (done.embed, done.player, done.words) == (None, True, "")
    assert going.embed is None
    assert "grows by its size and a third more, 40.0 MB at most" in going.words
    done, _ = inset([_kept(clip), live], "auto", front="vscode", final=False)
    assert (done.embed, done.player) == (None, False)


def test_what_would_be_too_much_stays_outside_with_a_cure(clip):
    """The limit counts all clips of an output; a cell shows stills and says why, `%kling show` refuses."""
    half = ASKED_MOST * 3 // 8
    two = [_kept(clip, size=half + 1000, run_id=name) for name in ("kl7m2q", "kl7m2r")]
    assert growth(half) < ASKED_MOST < growth(half + 1000) * 2
    for shown in inset(two, "always"):
        assert (shown.embed, shown.player, shown.poster) == (None, True, POSTER)
        assert "these clips together would add 40.0 MB to it, and 40.0 MB is the most" in shown.words
        assert "kling-nb export page NOTEBOOK --embed" in shown.words
    with pytest.raises(UsageError, match=r"Not put into the notebook.*Charged: no.*export page"):
        refuse_too_much(two)
    refuse_too_much([_kept(clip)])
    # Nobody asked: less is too much, and the words say how to ask.
    [shown] = inset([_kept(clip, size=6_000_000)], "auto", front="vscode")
    assert (shown.embed, shown.player) == (None, False)
    assert "VS Code plays no file from beside the notebook" in shown.words
    assert "unless asked for: `%kling show kl7m2q --embed always`" in shown.words
    # Colab shows no more than 10 MB, whoever asks.
    [shown] = inset([_kept(clip, size=9_000_000)], "always", front="colab")
    assert "10.0 MB is the most" in shown.words
    [shown] = inset([_kept(clip, size=9_000_000)], "auto", front="colab")
    assert "--embed always" not in shown.words


def test_a_file_that_is_not_the_one_of_the_receipt_is_not_put_in(clip):
    """Other bytes under its name are linked as ever, and never said to be the clip."""
    kept = _kept(clip)
    clip.write_bytes(b"other")
    [shown] = inset([kept], "always")
    assert shown.embed is None
    assert "not the one of the receipt" in shown.words
    [gone] = inset([Kept(record=kept.record)], "always")
    assert (gone.embed, gone.src, gone.words) == (None, None, "")


def test_sound_that_vs_code_cannot_play_is_said(clip):
    """VS Code plays H.264 without AAC, so a silent player there is no riddle."""
    [shown] = inset([_kept(clip, audio_codec="aac")], "auto", front="vscode")
    assert "VS Code plays no AAC sound; the file has it." in shown.words
    [shown] = inset([_kept(clip, audio_codec="aac")], "always")
    assert "AAC" not in shown.words


@pytest.mark.parametrize(
    ("environ", "names", "modules", "front"),
    [
        ({}, {}, (), ""),
        ({"JPY_SESSION_NAME": "/home/ada/a.ipynb"}, {}, (), ""),
        ({"VSCODE_PID": "7", "JPY_SESSION_NAME": "/home/ada/a.ipynb"}, {}, (), ""),
        ({"VSCODE_PID": "7"}, {}, (), "vscode"),
        ({"VSCODE_CWD": "/home/ada"}, {}, (), "vscode"),
        ({"JPY_SESSION_NAME": "a.ipynb"}, {"__vsc_ipynb_file__": "/home/ada/a.ipynb"}, (), "vscode"),
        ({"JPY_SESSION_NAME": "a-jvsc-0f-9.ipynb"}, {}, (), "vscode"),
        ({}, {}, ("google.colab",), "colab"),
        ({}, {"__vsc_ipynb_file__": "/content/a.ipynb"}, ("google.colab",), "vscode"),
    ],
)
def test_the_page_is_known_by_what_it_documents(environ, names, modules, front):
    """VS Code and Colab by their own marks; a JupyterLab started from VS Code's terminal is a JupyterLab."""
    assert front_end(environ, names, modules) == front


def test_a_grid_obeys_too(clip):
    """Tiles hold what a card of one run would."""
    kept = [_kept(clip, run_id=name) for name in ("kl7m2q", "kl7m2r")]
    for mode, videos, stills in (("always", 2, 2), ("poster", 0, 2), ("never", 0, 0)):
        tiles = [
            CardState(
                record=one.record,
                src=shown.src,
                poster=shown.poster,
                embed=shown.embed,
                player=shown.player,
                aside=shown.words,
            )
            for one, shown in zip(kept, inset(kept, mode), strict=True)
        ]
        seen, words = judge(grid(tiles, totals=None, now=utc_now()))
        names = [name for name, _ in seen]
        assert (names.count("video"), names.count("img")) == (videos, stills)
        assert words.count("is inside this notebook: adds") == (2 if mode == "always" else 0)


CELLS = (
    "%load_ext kling_nb",
    "%%kling fox -d 3 --embed always\nA red fox crosses fresh snow",
    "%kling show fox",
    "%kling show fox --embed poster",
    "%kling show fox --embed never",
    "%%kling pair -n 2 -d 3 --embed always\nTwo takes of a heron",
    "%config KlingMagics.embed = 'poster'",
    "%%kling fox -d 3\nA red fox crosses fresh snow",
    "fox",
    "%kling show fox --embed sometimes",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Run these cells in a real kernel, once; give the folder and the notebook."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KLING_NB_SANDBOX_WAIT", "0")
        patch.setenv("KLING_NB_PROVIDER", "sandbox")
        patch.setenv("KLING_NB_LEDGER", str(folder / "ledger.db"))
        cells = notebook(*CELLS)
        cells.cells[-1].metadata["tags"] = ["raises-exception"]
        done = execute(cells, folder)
    nbformat.write(done, folder / "a.ipynb")
    return folder, done


def _page(cell):
    return "".join(output.data["text/html"] for output in cell.outputs if "data" in output)


def test_the_notebook_grows_by_what_was_said(made):
    """`--embed always` says what it adds, and the saved file is larger by that; shown otherwise it is not."""
    folder, done = made
    inside, auto, poster, never = done.cells[1:5]
    assert len(errors(done)) == 1
    assert "--embed is one of auto, always, poster, never, not 'sometimes'" in texts(done.cells[-1])
    size = next((folder / "kling_media").glob("*fox*.mp4")).stat().st_size
    said = re.search(r"adds (.*?) to it", texts(inside))[1]
    assert said == size_words(growth(size))
    assert said in _page(inside)

    def saved(cell):
        kept = nbformat.from_dict(json.loads(json.dumps(done)))
        kept.cells = [cell]
        return len(nbformat.writes(kept))

    assert abs(saved(inside) - saved(auto) - growth(size)) < 600
    assert saved(auto) > saved(poster) > saved(never) > 1000
    assert _page(auto).count("<video") == 1
    assert "data:image" not in _page(never)
    assert "<video" not in _page(poster) + _page(never)
    for cell in (inside, auto, poster, never):
        assert f'href="kling_media/{next((folder / "kling_media").glob("*fox*.mp4")).name}"' in _page(cell)
    pair = done.cells[5]
    assert _page(pair).count('src="data:video/mp4;base64,') == 2
    assert texts(pair).count("is inside this notebook: adds") == 2


def test_the_setting_holds_where_a_cell_says_nothing(made):
    """`%config KlingMagics.embed` decides for cells and handles; running a cell again changes what it has."""
    _, done = made
    for cell in (done.cells[7], done.cells[8]):
        assert "<video" not in _page(cell)
        assert _page(cell).count("<img") == 1


def test_a_page_that_plays_no_file_gets_the_clip(tmp_path, monkeypatch):
    """In a kernel that says it is VS Code's, or Colab's, the clip is in the final card and in no live one."""
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "60")
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    with kernel_in(tmp_path) as kernel:
        kernel.run(f"__vsc_ipynb_file__ = 'elsewhere.ipynb'\n{WATCHFUL}")
        live = kernel.run("%%kling fox -d 3\nA red fox in snow")
        assert "data:video" not in json.dumps(live.outputs)
        kernel.run(let_go(1))
        shown = kernel.wait_display("inside this notebook: adds")
        assert sum('src="data:video/mp4;base64,' in data.get("text/html", "") for data in shown) == 1
        kernel.run(
            "import sys, types; del __vsc_ipynb_file__; sys.modules['google.colab'] = types.ModuleType('c')"
        )
        assert "inside this notebook" in kernel.run("%kling show fox").text
        kernel.run("del sys.modules['google.colab']")
        assert "inside this notebook" not in kernel.run("%kling show fox").text


@pytest.mark.browser
def test_an_embedded_clip_plays_for_a_stranger_without_its_folder(made, browser, tmp_path):
    """JupyterLab's sanitizer keeps the clip of a notebook that it does not trust, and plays it."""
    folder, done = made
    (tmp_path / "shown").mkdir()
    alone = nbformat.from_dict(json.loads(json.dumps(done)))
    alone.cells = [done.cells[1], done.cells[3]]
    nbformat.write(alone, tmp_path / "shown" / "a.ipynb")
    assert not (tmp_path / "shown" / "kling_media").exists()
    shutil.copy(folder / "a.ipynb", tmp_path / "b.ipynb")
    with Lab(tmp_path / "shown", browser) as jupyter:
        tab = jupyter.open("a.ipynb")
        assert not jupyter.trusted("a.ipynb")
        [video] = tab.videos()
        assert video["src"].startswith("data:video/mp4;base64,")
        assert (video["error"], video["width"], video["played"] > 0) == (None, 640, True)
        assert video["still"].startswith("data:image/jpeg;base64,")
        # The still of the card without a player is there, and leads to the file.
        assert tab.cell(1).locator("a img").count() == 1
        assert jupyter.errors == []
