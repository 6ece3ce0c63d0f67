"""A comparison as it is kept in a notebook, and the bytes that its page may have."""

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from kling_nb.errors import UsageError
from kling_nb.media.folder import Store
from kling_nb.media.probe import stills
from kling_nb.notebook.line import run_command
from kling_nb.notebook.viewers.compare import Comparison, compare
from kling_nb.notebook.viewers.player import shot_marks
from kling_nb.notebook.widgets import CHUNK_BYTES, ClipSource
from kling_nb.records.run import RunStatus
from support.clips import make_clip, make_record
from support.live_page import keep_clip
from support.markup import judge
from support.sessions import ask, sessions_in

WORDS = "A <b>red</b> fox & $5 `code` \\frac"


@pytest.fixture
def engine(tmp_path):
    """A real engine that makes handles of records."""
    sessions = sessions_in(tmp_path)
    yield next(sessions)().engine()
    next(sessions, None)


@pytest.fixture
def clips(tmp_path, engine):
    """A factory of comparisons of finished clips, each with a colour of its own."""

    def make(count=2, prompts=("A red fox",), **shape):
        records = [
            keep_clip(
                tmp_path / "kling_media",
                run_id=f"kl7m2q{number}",
                prompt=prompts[number % len(prompts)],
                take=number // len(prompts),
                colour=(20 * number, 90, 40),
                **shape,
            )
            for number in range(count)
        ]
        return Comparison([engine.handle(record) for record in records], store=engine.store)

    return make


# -- the sheet --------------------------------------------------------------------------
def test_the_sheet_shows_first_middle_and_last_frame_of_each(clips):
    """With no kernel, script or trust there are three stills a clip, its labels, and the prompt once."""
    shown = clips(3).bundle()
    elements, text = judge(shown["text/html"])
    pictures = [attributes for name, attributes in elements if name == "img"]
    assert len(pictures) == 9
    assert len({picture["src"] for picture in pictures}) == 9
    assert pictures[2]["alt"] == "clip 1, last frame"
    assert text.count("A red fox") == 1
    for word in ("kl7m2q0", "Kling 3.0 Pro", "Runflow", "take 2", "$0.56 charged", "last frame, 0.96 s"):
        assert word in text
    assert shown["text/plain"].count("A red fox") == 1
    assert "kl7m2q2" in shown["text/plain"]


def test_a_title_says_what_differs_and_what_is_equal_is_said_once(clips):
    """Of clips that differ in their take alone, the take is the title; the model stands once above them."""
    comparison = clips(3)
    told = comparison.state()
    assert [clip["title"] for clip in told["clips"]] == ["take 0", "take 1", "take 2"]
    assert "Kling 3.0 Pro" in told["facts"]
    assert not any(fact in clip["facts"] for clip in told["clips"] for fact in told["facts"])
    _, text = judge(comparison.bundle()["text/html"])
    assert (text.count("Kling 3.0 Pro"), text.count("take 1")) == (1, 1)
    # Alone, a clip has nothing to differ from.
    assert clips(1).state()["facts"] == []


def test_different_prompts_stand_beside_their_clips(clips):
    """Each clip has its own words where they differ, and no words become markup."""
    shown = clips(2, prompts=(WORDS, "A hare")).bundle()
    _, text = judge(shown["text/html"])
    assert WORDS in text
    assert "A hare" in text


def test_clips_that_differ_in_their_words_alone_have_no_other_title(clips):
    """An id is no title; it stands beside the number, once."""
    comparison = clips(2, prompts=(WORDS, "A hare"))
    first = comparison.runs[0].id
    assert [clip["title"] for clip in comparison.state()["clips"]] == ["", ""]
    _, text = judge(comparison.bundle()["text/html"])
    assert text.count(first) - text.count(f"{first}.mp4") == 1


def test_eight_clips_stay_small(clips):
    """Eight clips of noise, the worst case for a still, make an output of less than 200 KB."""
    size = len(clips(8, size=(640, 360), seconds=0.25, noise=True).bundle()["text/html"])
    assert 100_000 < size < 200_000


def test_a_still_fits_its_budget(tmp_path):
    """A picture that compresses badly is made smaller until it fits; beyond the end is the last frame."""
    clip = make_clip(tmp_path / "noise.mp4", size=(640, 360), noise=True, seconds=0.5)
    found = stills(clip, [0.0, 0.25, 99.0], width=200, most_bytes=4_600)
    assert all(still and 500 < len(still) < 6_300 for still in found)
    assert len(set(found)) == 3
    assert stills(clip, [0.49], width=200, most_bytes=4_600) == found[2:]


def test_a_missing_and_a_damaged_clip_are_said_in_words(clips, tmp_path):
    """What is not here or not the recorded bytes says so in its place, and no picture of it is shown."""
    comparison = clips(3)
    first, second, _ = (run.path for run in comparison.runs)
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1] + b"x")
    elements, text = judge(comparison.bundle()["text/html"])
    assert len([name for name, _ in elements if name == "img"]) == 3
    assert "is missing from the media folder" in text
    assert "is damaged or was replaced" in text
    told = comparison.state()["clips"]
    assert ["missing" in (clip["why"] or "") for clip in told] == [True, False, False]
    assert told[2]["why"] is None
    assert "is missing" in comparison.bundle()["text/plain"]


def test_the_page_learns_no_path_and_no_key(clips, tmp_path):
    """The state of the widget is labels and figures: nothing of the disk, no address, no key."""
    told = str(clips(2).state())
    assert "kl7m2q1" in told
    for secret in (str(tmp_path), "kling_media", ".mp4", "https:", "api.runflow.io"):
        assert secret not in told


def test_too_many_none_and_nonsense_are_refused(engine, clips):
    """Sixteen is the most; a refusal is one line that says what to do."""
    many = [engine.handle(make_record(id=f"kl7m{number:02}")) for number in range(17)]
    with pytest.raises(UsageError, match="at most 16"):
        Comparison(many, store=engine.store)
    with pytest.raises(UsageError, match="nothing to compare"):
        compare([])
    with pytest.raises(UsageError, match="A int cannot be compared"):
        compare([3])
    with pytest.raises(UsageError, match="longest or shortest"):
        Comparison([], store=engine.store, end="never")


def test_the_magic_compares_variables_and_ids(tmp_path):
    """`%kling compare` takes what `%kling show` takes, and sends nothing."""
    sessions = sessions_in(tmp_path)
    session = next(sessions)()
    runs = [run.wait(60) for run in session.open(ask(takes=(0, 1)))]
    shown = run_command(session, f"compare {runs[0].id} fox --end shortest", {"fox": runs[1]})
    assert [run.id for run in shown.view.runs] == [run.id for run in runs]
    assert shown.view.state()["end"] == "shortest"
    for line, words in (
        ("compare", "needs runs"),
        ("compare fox --end never", "takes longest or shortest"),
        ("show fox both --player", "--player takes one run"),
    ):
        with pytest.raises(UsageError, match=words):
            run_command(session, line, {"fox": runs[1], "both": runs})
    shown = run_command(session, "show fox --player", {"fox": runs[1]})
    assert shown.player
    assert [run.id for run in shown.runs] == [runs[1].id]
    assert len(session.ledger().runs()) == 2
    next(sessions, None)


# -- the bytes -----------------------------------------------------------------------------
def test_a_page_gets_the_whole_clip_piece_by_piece(tmp_path):
    """Asked piece by piece, a clip of several pieces arrives whole and in order."""
    record = keep_clip(tmp_path / "kling_media", run_id="kl7m2q", seconds=1.0)
    path = Store(tmp_path / "kling_media").path(record)
    padding = b"\x00\x24\x00\x00free" + bytes(0x240000 - 8)
    path.write_bytes(path.read_bytes() + padding)
    record = _measured_again(record, path)
    source = ClipSource([record], store=Store)
    found, at = b"", 0
    while at < record.media.size:
        reply, [piece] = source.answer({"kind": "clip", "id": "kl7m2q", "at": at})
        assert reply == {
            "kind": "clip",
            "id": "kl7m2q",
            "at": at,
            "size": record.media.size,
            "type": "video/mp4",
        }
        assert len(piece) <= CHUNK_BYTES
        found, at = found + piece, at + len(piece)
    assert found == path.read_bytes()
    assert at > 2 * CHUNK_BYTES


def _measured_again(record, path):
    import hashlib

    data = path.read_bytes()
    changes = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return record.model_copy(update={"media": record.media.model_copy(update=changes)})


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"id": "klother"}, "no such clip"),
        ({"id": None}, "no such clip"),
        ({"id": "../../etc/passwd"}, "no such clip"),
        ({"at": -1}, "does not have"),
        ({"at": 10**9}, "does not have"),
        ({"at": True}, "does not have"),
        ({"at": "0"}, "does not have"),
        ({"at": None}, "does not have"),
    ],
)
def test_a_page_gets_nothing_else(tmp_path, asked, words):
    """A page may ask for anything; it gets pieces of its own clips, or words."""
    record = keep_clip(tmp_path / "kling_media", run_id="kl7m2q", seconds=0.2)
    reply, pieces = ClipSource([record], store=Store).answer(
        {"kind": "clip", "id": "kl7m2q", "at": 0, **asked}
    )
    assert words in reply["why"]
    assert pieces == []


def test_a_clip_that_is_too_large_changed_or_unfinished_says_so(tmp_path):
    """The three have words of their own, and a clip that changes between two pieces is not sent on."""
    folder = tmp_path / "kling_media"
    record = keep_clip(folder, run_id="kl7m2q", seconds=0.2)
    small = ClipSource([record], store=Store, limit_bytes=100)
    assert "too large for a live view" in small.why_not("kl7m2q")
    pending = record.model_copy(update={"status": RunStatus.RUNNING})
    assert (
        ClipSource([pending], store=Store)
        .why_not("kl7m2q")
        .startswith("There is no clip: the run is running. Run")
    )
    store = Store(folder)
    source = ClipSource([record], store=lambda _folder: store)
    asked = {"kind": "clip", "id": "kl7m2q", "at": 0}
    assert len(source.answer(asked)[1]) == 1
    path = store.path(record)
    path.write_bytes(bytes(len(path.read_bytes())))
    reply, pieces = source.answer(asked)
    assert "is damaged or was replaced" in reply["why"]
    assert pieces == []


def test_a_widget_is_answered(tmp_path):
    """A message of the page reaches the source, and the answer goes back with its bytes; noise does not."""
    record = keep_clip(tmp_path / "kling_media", run_id="kl7m2q", seconds=0.2)
    heard, sent = [], []
    widget = SimpleNamespace(on_msg=heard.append, send=lambda *words: sent.append(words))
    ClipSource([record], store=Store).serve(widget)
    for content in ({"kind": "clip", "id": "kl7m2q", "at": 0}, {"kind": "close"}, "noise", None):
        heard[0](widget, content, [])
    [(message, buffers)] = sent
    assert message["size"] == record.media.size == len(buffers[0])


# -- the player's marks ----------------------------------------------------------------------
def test_shots_begin_where_their_share_of_the_clip_does():
    """Marks are shares of the measured clip; a run without shots has none."""
    board = make_record(request=_board((3, "A <i>vineyard</i>"), (5, "Two hands"), (4, "Hills")))
    marks = shot_marks(board)
    assert [mark["share"] for mark in marks] == [0, 3 / 12, 8 / 12]
    assert [mark["number"] for mark in marks] == [1, 2, 3]
    assert marks[0]["words"] == "A <i>vineyard</i>"
    assert shot_marks(make_record()) == []


def _board(*shots):
    from kling_nb.records.request import make_request

    return make_request(shots=[{"prompt": words, "duration": seconds} for seconds, words in shots])


# -- weight -----------------------------------------------------------------------------------
def test_nothing_heavy_is_imported_before_a_view_is_made():
    """Importing the comparison and the player imports no widget library and no decoder."""
    code = (
        "import sys, kling_nb.notebook.viewers.compare, kling_nb.notebook.viewers.player;"
        "heavy = {'anywidget', 'ipywidgets', 'av', 'PIL'} & set(sys.modules);"
        "print(sorted(heavy), 'kling_nb.media.probe' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


def test_scripts_keep_to_the_house():
    """Scripts stay short, say their invariants, put no markup into the page and ask no network."""
    from pathlib import Path

    from kling_nb.notebook import widgets

    folder = Path(widgets.__file__).parent / "viewers"
    names = ("page", "clips", "lockstep", "controls", "compare", "player")
    ours = [next(folder.rglob(f"{name}.js")) for name in names]
    for file in ours:
        text = file.read_text(encoding="utf-8")
        assert len(text.splitlines()) < 400
        assert "Invariants: " in text[:600]
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(", text)
        assert not re.search(r"fetch\(|XMLHttpRequest|WebSocket|https?:|import\(|localStorage", text)
