"""Disks that are full, shared, or take other names than ours: an export is whole, or says what it is not."""

import json
import os
import shutil
import sys
import tempfile
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from kling_nb.errors import StoreError, UsageError
from kling_nb.exports.disk import check_case, check_names
from kling_nb.exports.layouts import LAYOUTS, read_rows
from kling_nb.exports.writer import lay_out
from kling_nb.recovery.verify import verify_folder
from support.paths import TESTS
from support.stand_ins import VBENCH, names
from support.warm import run_process


@pytest.fixture
def other(other_disk):
    """Where to export to on another disk, where no hard link to the clips is possible."""
    return other_disk / "out"


# -- files ---------------------------------------------------------------------------------
def test_clips_are_linked_and_never_renamed(tmp_path, sample, clip):
    """An export takes no room and leaves the store as it was; doing it twice changes nothing."""
    before = clip.stat()
    for _ in range(2):
        lay_out([sample("a fox")], tmp_path / "out", LAYOUTS["vbench"])
    made = tmp_path / "out" / "a fox-0.mp4"
    assert made.samefile(clip)
    assert (clip.stat().st_mtime_ns, clip.stat().st_ino, clip.read_bytes()) == (
        before.st_mtime_ns,
        before.st_ino,
        b"stand-in",
    )


def test_another_disk_gets_a_copy(sample, clip, other):
    """Where a hard link is impossible the bytes are copied, and checked against the recorded hash."""
    lay_out([sample("a fox")], other, LAYOUTS["vbench"])
    copy, hare = other / "a fox-0.mp4", sample("a hare", 0, 2)
    assert (copy.read_bytes(), copy.stat().st_dev == clip.stat().st_dev) == (b"stand-in", False)
    clip.write_bytes(b"changed!")
    with pytest.raises(StoreError, match="changed while it was copied"):
        lay_out([hare], other, LAYOUTS["vbench"])
    assert names(other) == {"a fox-0.mp4"}


def test_a_file_in_the_way_is_kept(tmp_path, sample):
    """Nothing is overwritten, and nothing else is written either."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a fox-0.mp4").write_bytes(b"another")
    with pytest.raises(StoreError, match="is another file"):
        lay_out([sample("a fox"), sample("a hare", 0, 2)], tmp_path / "out", LAYOUTS["vbench"])
    assert names(tmp_path / "out") == {"a fox-0.mp4"}


@pytest.mark.parametrize("prompt", ["x" * 300, "\N{SNOWMAN}" * 90, "a\0b", "/tmp/a fox", "../a fox"])
def test_an_impossible_name_is_refused_before_anything_is_written(tmp_path, sample, prompt):
    """A name too long for the disk, in bytes and not in letters, stops the export at once."""
    runs = [sample("a fox"), sample(prompt, 0, 2)]
    why = "bytes, and 255 is the most" if len(prompt) > 80 else "not possible here"
    with pytest.raises(UsageError, match=why):
        lay_out(runs, tmp_path / "out", LAYOUTS["vbench"])
    assert not (tmp_path / "out").exists()


def test_names_that_a_disk_folds_are_told(tmp_path):
    """Two prompts of VBench differ only in case; on a disk that folds it, one would replace the other."""
    pair = [row["prompt_en"] for row in VBENCH if row["prompt_en"].casefold() == "a fantasy landscape"]
    assert len(pair) == 2
    asked = []
    with pytest.raises(UsageError, match="for the same name"):
        check_case(tmp_path, [*pair, "a fox"], lambda *names: asked.append(names) or True)
    assert asked == [(tmp_path, *pair)]
    check_case(tmp_path, pair)


def test_a_disk_that_tells_letters_apart_takes_both(tmp_path, sample):
    """Here both forms of a letter, and both cases, are names of their own."""
    prompts = [
        "caf\N{LATIN SMALL LETTER E WITH ACUTE}",
        unicodedata.normalize("NFD", "caf\u00e9"),
        "Fox",
        "fox",
    ]
    runs = [sample(prompt, 0, number) for number, prompt in enumerate(prompts)]
    made = lay_out(runs, tmp_path / "out", LAYOUTS["vbench"])
    assert (len(names(tmp_path / "out")), made.complete) == (4, True)


# -- disks that fail -----------------------------------------------------------------------------
#: Lay out three clips in a process that may write files of so many bytes, or dies at its n-th sync to disk;
#: the first two are those of the list.
CHILD = """
import os, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from kling_nb.errors import StoreError
from kling_nb.exports.writer import lay_out
from kling_nb.exports.layouts import LAYOUTS
from support.stand_ins import StandIns
store, out, layout = Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
limit, last = int(sys.argv[5]), int(sys.argv[6])
sample = StandIns(store)
runs = [sample("a fox", n, n, data=bytes([n]) * size) for n, size in enumerate((500, 3000, 500))]
left, sync = [last], os.fsync
def fsync(handle):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), 9)
    sync(handle)
os.fsync = fsync
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    print(repr(lay_out(runs, out, LAYOUTS[layout])))
except StoreError as error:
    print("StoreError:", error)
"""


def child(tmp_path, out, layout="vbench", *, limit=0, last=0):
    """Run it; give its exit code and its words."""
    store = tmp_path / "child"
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir()
    words = [str(TESTS), str(store), str(out), layout, str(limit), str(last)]
    done = run_process([sys.executable, "-c", CHILD, *words])
    assert not done.stderr
    return done.returncode, done.stdout.strip()


def done(out):
    """Read whether the list beside an export says that it came to its end."""
    return json.loads(out.with_name(f"{out.name}.export.json").read_text())["done"]


def halves(out):
    return [path for path in out.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("layout", ["vbench", "webdataset"])
def test_a_disk_that_is_full_in_the_middle_leaves_no_half(tmp_path, other, layout):
    """What is there is whole, nothing else is, no list says it is done; and the next time completes it."""
    code, said = child(tmp_path, other, layout, limit=2000)
    assert (code, said.startswith("StoreError: The export stopped: File too large")) == (0, True)
    assert "what is there stays" in said
    assert names(other) == ({"a fox-0.mp4"} if layout == "vbench" else set())
    assert (halves(other), done(other)) == ([], False)
    code, said = child(tmp_path, other, layout)
    assert (said.endswith("nothing is missing"), done(other)) == (True, True)
    assert names(other) == ({f"a fox-{n}.mp4" for n in range(3)} if layout == "vbench" else {"clips.tar"})


def test_an_export_that_is_killed_is_taken_up_again(tmp_path, other):
    """The half lies outside the folder and under no name; the next export sweeps it and is whole."""
    code, _ = child(tmp_path, other, last=4)
    assert code == -9
    assert names(other) == {"a fox-0.mp4"}
    (left,) = halves(other)
    assert (left.stat().st_size, done(other)) == (3000, False)
    code, said = child(tmp_path, other)
    assert said.endswith("nothing is missing")
    # Somebody might still be at work on it; after a minute nobody is.
    assert halves(other) == [left]
    os.utime(left, (time.time() - 61,) * 2)
    child(tmp_path, other)
    assert halves(other) == []
    assert {path.stat().st_size for path in other.iterdir()} == {500, 3000}


def test_a_second_export_that_stops_does_not_look_done(tmp_path, other):
    """The list of the first one does not vouch for it; a third one may replace the first one's index."""
    child(tmp_path, other, "videofolder")
    assert done(other)
    shutil.rmtree(other)
    other.mkdir()
    (other / "metadata.jsonl").write_text("of the first one")
    code, said = child(tmp_path, other, "videofolder", limit=2000)
    assert (said.startswith("StoreError"), done(other)) == (True, False)
    code, said = child(tmp_path, other, "videofolder")
    assert (code, said.endswith("nothing is missing"), done(other)) == (0, True, True)
    assert len((other / "metadata.jsonl").read_text().splitlines()) == 3


def test_two_exports_into_one_folder_do_not_disturb_each_other(tmp_path, other, sample):
    """Of the same clips at the same time: both are whole, linked or copied."""
    runs = [sample("a fox", n, n, data=bytes([n])) for n in range(60)]
    for folder in (other, tmp_path / "out"):
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda to: lay_out(runs, to, LAYOUTS["vbench"]), [folder] * 4))
        assert [(len(one.placed), one.complete) for one in made] == [(60, True)] * 4
        assert names(folder) == {f"a fox-{n}.mp4" for n in range(60)}
        assert all((folder / f"a fox-{n}.mp4").read_bytes() == bytes([n]) for n in range(60))


def test_another_export_s_list_is_not_replaced(tmp_path, sample):
    """A list that somebody wrote stops the export; our own is written anew, with what came since."""
    out, runs = tmp_path / "out", [sample("a fox", 0, 1, data=b"1")]
    out.mkdir()
    (out / "metadata.jsonl").write_text("mine")
    with pytest.raises(StoreError, match=r"metadata\.jsonl is there already"):
        lay_out(runs, out, LAYOUTS["videofolder"])
    assert (names(out), (out / "metadata.jsonl").read_text()) == ({"metadata.jsonl"}, "mine")
    (out / "metadata.jsonl").unlink()
    lay_out(runs, out, LAYOUTS["videofolder"])
    runs.append(sample("a hare", 0, 2, data=b"2"))
    assert lay_out(runs, out, LAYOUTS["videofolder"]).complete
    assert len((out / "metadata.jsonl").read_text().splitlines()) == 2
    # Of another layout it is a stranger's again, and so is what that layout does not know.
    made = lay_out(runs[:1], out, LAYOUTS["vbench"])
    assert made.foreign_files == ("clip-1.mp4", "clip-2.mp4", "metadata.jsonl")
    assert "3 files are there that are not of this export" in repr(made)
    assert json.loads((tmp_path / "out.export.json").read_text())["strangers"] == list(made.foreign_files)


def test_the_folder_of_clips_takes_no_export(sample):
    """Names of a tool are not mixed with those of the store."""
    for layout in ("vbench", "webdataset"):
        with pytest.raises(UsageError, match="where clips are kept"):
            lay_out([sample("a fox")], sample.folder, LAYOUTS[layout])
    assert names(sample.folder) == {"clip.mp4"}


def test_the_list_of_an_export_is_not_taken_for_a_receipt(sample):
    """Below the folder of clips there may be an export; beside them its list is no receipt that fails."""
    lay_out([sample("a fox")], sample.folder / "out", LAYOUTS["vbench"])
    assert names(sample.folder) == {"clip.mp4", "out/a fox-0.mp4", "out.export.json"}
    assert [one.word for one in verify_folder(sample.folder)] == ["no receipt"]


def test_where_an_export_may_go(tmp_path, monkeypatch, sample):
    """The working folder has a name of its own; the root has none, and a file is in the way."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for folder in (Path(), Path("x/..")):
        lay_out([sample("a fox")], folder, LAYOUTS["vbench"])
    assert names(tmp_path / "here") == {"a fox-0.mp4"}
    assert json.loads((tmp_path / "here.export.json").read_text())["done"]
    with pytest.raises(UsageError, match="a folder of its own"):
        lay_out([sample("a fox")], Path("/"), LAYOUTS["vbench"])
    Path("file").write_text("")
    with pytest.raises(StoreError, match="is another file"):
        lay_out([sample("a fox")], Path("file"), LAYOUTS["vbench"])
    assert not Path("file.export.json").exists()


def test_a_link_in_the_way_is_not_followed(tmp_path, sample, clip):
    """What lies behind it may be anybody's, even if it is the same clip."""
    (tmp_path / "out").mkdir()
    for target in (clip, tmp_path / "nothing"):
        link = tmp_path / "out" / "a fox-0.mp4"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        with pytest.raises(StoreError, match="is another file"):
            lay_out([sample("a fox")], tmp_path / "out", LAYOUTS["vbench"])
        assert link.is_symlink()


# -- names ---------------------------------------------------------------------------------------
def test_a_cut_in_letters_can_be_too_long_in_bytes(tmp_path, sample):
    """VBench-2.0 cuts at 180 letters; of three bytes each they are 540, and no disk here holds that."""
    row = {"prompt_en": "\u72d0" * 200, "dimension": ["Diversity"]}
    with pytest.raises(UsageError, match="not possible here"):
        lay_out([sample(row["prompt_en"])], tmp_path / "out", LAYOUTS["vbench2"], rows=read_rows([row]))
    assert not (tmp_path / "out").exists()
    short = {"prompt_en": "\u72d0" * 80, "dimension": ["Diversity"]}
    made = lay_out(
        [sample(short["prompt_en"])], tmp_path / "out", LAYOUTS["vbench2"], rows=read_rows([short])
    )
    assert names(tmp_path / "out") == {f"Diversity/{short['prompt_en']}-0.mp4"}
    assert len(made.missing) == 19


@pytest.mark.parametrize("prompt", ["half 1/2", "/", "a/../fox"])
def test_what_is_no_one_name_is_refused(tmp_path, sample, prompt):
    """A slash would make a folder that no tool looks into."""
    with pytest.raises(UsageError, match="not possible here"):
        lay_out([sample(prompt)], tmp_path / "out", LAYOUTS["vbench"])
    assert not (tmp_path / "out").exists()
    lay_out([sample(prompt)], tmp_path / "out", LAYOUTS["videofolder"])


@pytest.mark.parametrize(
    "name",
    ["CON.mp4", "com1", "nul .x", "what?.mp4", "a:b.mp4", 'say "go"-0.mp4', "ends in a dot.", "blank "],
)
def test_names_that_some_disks_refuse_are_tried_out(tmp_path, name):
    """On this disk they are names like others; on one made for Windows they stop the export."""
    check_names(tmp_path, [f"Motion/{name}", "a fox-0.mp4"])
    asked = []
    with pytest.raises(UsageError, match="not possible here"):
        check_names(tmp_path, [f"Motion/{name}", "fox"], lambda *two: bool(asked.append(two)))
    assert asked == [(tmp_path, name)]
    assert list(tmp_path.iterdir()) == [] or names(tmp_path) == set()


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=90))
def test_whatever_is_accepted_can_be_made_here(name):
    """Any text: the names that pass are made, and read back letter by letter; the others are refused."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            check_names(Path(folder), [name])
        except UsageError:
            event("refused")
            return
        assert names(Path(folder)) == set()
        (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
        (Path(folder) / name).touch()
        event("accepted")
        assert names(Path(folder)) == {name}


def test_folders_that_differ_by_case_are_looked_at_too(tmp_path):
    """`Color/a fox` and `color/a fox` are two here, and one on a disk that folds."""
    pair = ["Color/a fox-0.mp4", "color/a fox-0.mp4"]
    check_case(tmp_path, pair)
    with pytest.raises(UsageError, match="for the same name"):
        check_case(tmp_path, pair, lambda *_: True)
    assert names(tmp_path) == set()


def test_two_requests_under_one_name_are_not_chosen_between(tmp_path, sample):
    """Three and five seconds of one prompt: which one is the sample is for the user to say."""
    runs = [sample("a fox", 0, 1, duration=3), sample("a fox", 0, 2, duration=5)]
    with pytest.raises(UsageError, match="k000001 and k000002 are both sample 0"):
        lay_out(runs, tmp_path / "out", LAYOUTS["vbench"])
    assert not (tmp_path / "out").exists()
    assert lay_out(runs[:1], tmp_path / "out", LAYOUTS["vbench"]).complete
