"""What is exported is found by the rules of those who read it, written down here a second time."""

import json
import re
import subprocess
import sys
import tarfile
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import pandas as pd
import pytest

from kling_nb.exports.index import facts
from kling_nb.exports.layouts import LAYOUTS, SPLITS, read_rows
from kling_nb.exports.videoalign import lay_out_votes
from kling_nb.exports.writer import lay_out
from kling_nb.ratings.votes import Vote
from kling_nb.records.run import RunStatus
from support.stand_ins import VBENCH, VBENCH2, names

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
ASKED = {"visual": "A", "motion": "same", "text": "B"}


def every(sample, rows, takes):
    """One run of each prompt and take; `takes` says how many of a row."""
    most = {}
    for row in rows:
        most[row["prompt_en"]] = max(takes(row), most.get(row["prompt_en"], 0))
    order = ((prompt, take) for prompt, count in most.items() for take in range(count))
    return [sample(prompt, take, number) for number, (prompt, take) in enumerate(order)]


# -- VBench ------------------------------------------------------------------------------
def vbench_loader(folder, rows, name, count):
    """Find the clips of each row as VBench's `build_full_info_json` does; give them and the warnings."""
    here = [path.name for path in folder.iterdir()]
    ending = Path(here[0]).suffix
    wanted = [[f"{name(row)}-{number}{ending}" for number in range(count(row))] for row in rows]
    there = set(here)
    return [[one for one in asked if one in there] for asked in wanted], [
        one for one in chain(*wanted) if one not in there
    ]


def test_vbench_finds_every_clip_by_name(tmp_path, sample):
    """Of each of its 946 entries VBench finds five clips, 4,730 in all, and nothing else lies there."""
    folder = tmp_path / "vbench"
    runs = every(sample, VBENCH, lambda _: 5)
    made = lay_out(runs, folder, LAYOUTS["vbench"], rows=read_rows(VBENCH))
    found, warnings = vbench_loader(folder, VBENCH, lambda row: row["prompt_en"], lambda _: 5)
    assert (len(found), sum(map(len, found)), warnings) == (946, 4730, [])
    assert {name for clips in found for name in clips} == names(folder)
    # Two prompts are listed twice; the others have names of their own.
    assert (len(made.placed), made.complete, made.left_out, made.foreign_files) == (944 * 5, True, (), ())


def test_vbench2_finds_every_clip_in_its_dimension(tmp_path, sample):
    """VBench-2.0 stops where it misses a clip: of its 1,230 entries it finds three each, of Diversity 20."""

    def count(row):
        return 20 if row["dimension"][0] == "Diversity" else 3

    folder = tmp_path / "vbench2"
    runs = every(sample, VBENCH2, count)
    made = lay_out(runs, folder, LAYOUTS["vbench2"], rows=read_rows(VBENCH2))
    dimensions = sorted({dimension for row in VBENCH2 for dimension in row["dimension"]})
    total, used = 0, set()
    for dimension in dimensions:
        rows = [row for row in VBENCH2 if dimension in row["dimension"]]
        found, warnings = vbench_loader(folder / dimension, rows, lambda row: row["prompt_en"][:180], count)
        assert (len(found), warnings) == (len(rows), [])
        total += sum(map(len, found))
        used |= {f"{dimension}/{name}" for clips in found for name in clips}
    assert (len(VBENCH2), len(dimensions), total) == (1230, 18, 3860)
    assert (used, made.complete) == (names(folder), True)
    # The rule cuts without stripping: twenty of the official names end in a space.
    assert len({row["prompt_en"][:180] for row in VBENCH2 if row["prompt_en"][:180].endswith(" ")}) == 20


def test_a_list_of_prompts_is_what_vbench_reads_of_custom_clips(tmp_path, sample):
    """With `--prompt_file` every clip there is in the list; without it, a name's number is cut off."""
    prompts = ["a fox, 2 hares-7", "a hare / a heron"]
    runs = [sample(prompt, take, n * 2 + take) for n, prompt in enumerate(prompts) for take in (0, 1)]
    runs = [
        sample(run.record.request.prompt, run.record.take, n, data=bytes([n])) for n, run in enumerate(runs)
    ]
    lay_out(runs, tmp_path / "out", LAYOUTS["vbench-custom"])
    listed = json.loads((tmp_path / "out" / "prompts.json").read_text())
    clips = {path.name for path in (tmp_path / "out").iterdir() if path.suffix == ".mp4"}
    assert (set(listed), sorted(set(listed.values())), len(clips)) == (clips, prompts, 4)
    lay_out(runs[:2], tmp_path / "named", LAYOUTS["vbench"])
    read = {re.sub(r"-\d+$", "", path.stem) for path in (tmp_path / "named").iterdir()}
    assert read == {"a fox, 2 hares-7"}


def test_a_letter_outside_ascii_keeps_its_bytes(tmp_path, sample):
    """Names are not normalised: the one prompt of VBench beyond ASCII keeps the code points of the list."""
    beyond = [row for row in VBENCH if not row["prompt_en"].isascii()]
    assert len(beyond) == 1
    folder = tmp_path / "out"
    lay_out(every(sample, beyond, lambda _: 1), folder, LAYOUTS["vbench"], rows=read_rows(beyond), count=1)
    assert names(folder) == {f"{beyond[0]['prompt_en']}-0.mp4"}


# -- suites that count --------------------------------------------------------------------
def test_t2v_compbench_counts_in_each_category(tmp_path, sample):
    """Seven categories of a hundred: each folder holds 0001 to 0100, in the order of its own list."""
    plan = [
        {"prompt": f"{category} {number}", "category": category}
        for number in range(100)
        for category in ("action", "color", "motion", "number", "object", "space", "state")
    ]
    runs = [sample(row["prompt"], 0, number) for number, row in enumerate(reversed(plan))]
    made = lay_out(runs, tmp_path / "out", LAYOUTS["t2v-compbench"], rows=read_rows(plan))
    assert (len(made.placed), made.complete) == (700, True)
    by_file = {one.file: one.prompt for one in made.placed}
    for category in {row["category"] for row in plan}:
        clips = sorted(path.name for path in (tmp_path / "out" / category).iterdir())
        assert clips == [f"{number:04}.mp4" for number in range(1, 101)]
        assert [by_file[f"{category}/{name}"] for name in clips] == [f"{category} {n}" for n in range(100)]


def test_a_hole_in_a_numbered_suite_stays_a_hole(tmp_path, sample):
    """EvalCrafter knows clips by number alone: what is missing is reported, and nothing moves up."""
    plan = [f"prompt {number}" for number in range(700)]
    runs = [sample(prompt, 0, number) for number, prompt in enumerate(plan) if number not in {3, 500}]
    runs.append(sample("prompt 500", 0, 500, status=RunStatus.FAILED, reason="moderated", media=None))
    made = lay_out(runs, tmp_path / "out", LAYOUTS["evalcrafter"], rows=read_rows(plan))
    here = {f"{number:04}.mp4" for number in range(700)} - {"0003.mp4", "0500.mp4"}
    assert names(tmp_path / "out") == here
    assert {gone.file: gone.why for gone in made.missing} == {
        "0003.mp4": "no run",
        "0500.mp4": "k000500 moderated",
    }


# -- data sets ------------------------------------------------------------------------------
LOAD = """
import json, sys
from datasets import Video, load_dataset
found = load_dataset("videofolder", data_dir=sys.argv[1], cache_dir=sys.argv[2])
told = {}
for split, rows in found.items():
    rows = rows.cast_column("video", Video(decode=False))
    told[split] = [{**row, "video": row["video"]["path"]} for row in rows]
print(json.dumps(told, default=lambda moment: moment.isoformat()))
"""


def load(folder, cache):
    """Read a folder as `datasets.load_dataset` does, in a process of its own and without a network."""
    command = [sys.executable, "-c", LOAD, str(folder), str(cache)]
    environment = {"HOME": str(cache), "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_datasets_reads_its_own_folder(tmp_path, sample):
    """`load_dataset("videofolder")` gives every clip with its prompt, model, cost and hash, by split."""
    prompt = 'He said "go", then\nleft / \N{SNOWMAN}'
    runs = [
        sample(prompt, 0, 1, data=b"one"),
        sample("a hare", 0, 2, data=b"two", model="kling-3.0-4k"),
        sample("a heron", 0, 3, data=b"three", tags={"split": "test"}),
        sample("a heron", 1, 4, status=RunStatus.FAILED, reason="moderated", media=None),
    ]
    made = lay_out(runs, tmp_path / "out", LAYOUTS["videofolder"], split="train")
    assert [gone.why for gone in made.missing] == ["k000004 moderated"]
    told = load(tmp_path / "out", tmp_path / "cache")
    assert {split: len(rows) for split, rows in told.items()} == {"train": 2, "test": 1}
    known = {run.record.id: run.record for run in runs}
    for row in chain(*told.values()):
        record = known[row["run_id"]]
        assert Path(row.pop("video")).read_bytes() in {b"one", b"two", b"three"}
        said = {"prompt": record.request.prompt, **facts(record)}
        # Taken for a time by itself.
        assert said.pop("created").removesuffix("Z") == row.pop("created").removesuffix("+00:00")
        assert row == said
    assert told["train"][0]["prompt"] == prompt


@pytest.mark.parametrize("split", [None, *SPLITS])
def test_every_clip_is_in_one_split_or_none_is(tmp_path, sample, split):
    """Each folder has its own list of names; a clip that a reader would pass over stops the export."""
    runs = [sample("a fox", 0, 1, data=b"1"), sample("a hare", 0, 2, data=b"2")]
    lay_out(runs, tmp_path / "out", LAYOUTS["videofolder"], split=split)
    place = tmp_path / "out" / (split or ".")
    lines = [json.loads(line) for line in (place / "metadata.jsonl").read_text().splitlines()]
    assert [line["file_name"] for line in lines] == ["clip-1.mp4", "clip-2.mp4"]
    assert all((place / line["file_name"]).is_file() for line in lines)


def test_a_tar_tells_nothing_of_this_machine(tmp_path, sample):
    """WebDataset: pairs with one key next to each other; no user, no time, the same bytes every time."""
    runs = [sample("a fox", 0, 1, data=b"1"), sample("a hare", 0, 2, data=b"22")]
    lay_out(runs, tmp_path / "one", LAYOUTS["webdataset"])
    lay_out(runs, tmp_path / "two", LAYOUTS["webdataset"])
    lay_out(runs, tmp_path / "two", LAYOUTS["webdataset"])
    path = tmp_path / "one" / "clips.tar"
    assert path.read_bytes() == (tmp_path / "two" / "clips.tar").read_bytes()
    with tarfile.open(path) as tar:
        keys = [Path(entry.name).stem for entry in tar]
        assert keys == ["clip-1", "clip-1", "clip-2", "clip-2"]
        assert {(entry.uname, entry.uid, entry.mtime, entry.mode) for entry in tar} == {("", 0, 0, 0o644)}
        assert json.load(tar.extractfile("clip-2.json"))["prompt"] == "a hare"
        assert tar.extractfile("clip-2.mp4").read() == b"22"


# -- votes ------------------------------------------------------------------------------------
def vote(one, other, *, rater="ada", axes=None, choice="A>B"):
    return Vote(
        run_a=one,
        run_b=other,
        left="A",
        choice=choice,
        rater=rater,
        at=NOON,
        axes=ASKED if axes is None else axes,
    )


@pytest.fixture
def pair(sample):
    """Two models, three prompts."""
    prompts = ["a fox", 'a "hare", and\na heron', "an owl"]
    return [
        sample(prompt, 0, n * 2 + m, data=bytes([n, m]), model=("kling-3.0-4k", "kling-3.0-pro")[m])
        for n, prompt in enumerate(prompts)
        for m in (0, 1)
    ]


def test_videoalign_reads_the_votes(tmp_path, pair):
    """Each column by its name, each label one of three, each path a clip below the table's folder."""
    cast = [
        vote("k000000", "k000001"),
        vote("k000000", "k000001", rater="bob", choice="A=B=Bad"),
        vote("k000002", "k000003", choice="B>A"),
    ]
    made = lay_out_votes(pair, tmp_path / "out", cast)
    table = pd.read_csv(tmp_path / "out" / "data.csv")
    assert (made.votes, len(table), len(made.placed)) == (3, 3, 4)
    # What training asks for, and what VideoGen-RewardBench takes apart and maps.
    sides = {
        side: table[[f"path_{side}", f"{side}_model", "prompt", f"fps_{side}", f"num_frames_{side}"]]
        for side in "AB"
    }
    for frame in sides.values():
        frame.columns = ["path", "model", "prompt", "fps", "num_frames"]
    single = pd.concat(list(sides.values())).drop_duplicates(subset=["path"])
    assert sorted(set(single.model)) == ["kling-3.0-4k", "kling-3.0-pro"]
    assert {(row.fps, row.num_frames) for row in single.itertuples()} == {(24.0, 121)}
    known = {(tmp_path / "out" / path).read_bytes() for path in single.path}
    assert known == {b"\0\0", b"\0\1", b"\1\0", b"\1\1"}
    labels = {axis: list(table[axis].map({"A": 1, "B": -1, "same": 0})) for axis in ("VQ", "MQ", "TA")}
    assert labels == {"VQ": [1, 1, 1], "MQ": [0, 0, 0], "TA": [-1, -1, -1]}
    assert list(table.prompt) == ["a fox", "a fox", 'a "hare", and\na heron']
    assert all(re.fullmatch(r"videos/clip-\d\.mp4", path) for path in single.path)


def test_a_vote_that_cannot_go_out_is_told(tmp_path, pair, sample):
    """No vote, an axis that was not asked, a clip that is gone, a private prompt: each with its words."""
    private = [
        sample(
            "secret", 0, 6 + m, data=bytes([9, m]), model=("kling-3.0-4k", "kling-3.0-pro")[m], private=True
        )
        for m in (0, 1)
    ]
    gone = [type(one)(record=one.record, path=None) if one.record.id == "k000003" else one for one in pair]
    cast = [
        vote("k000000", "k000001", axes={"visual": "A"}),
        vote("k000002", "k000003"),
        vote("k000006", "k000007"),
        vote("k000000", "k999999"),
    ]
    made = lay_out_votes([*gone, *private], tmp_path / "out", cast)
    assert (made.votes, made.placed) == (0, ())
    assert {one.file: one.why for one in made.missing} == {
        "k000000 and k000001": "ada was not asked about motion, the text",
        "k000002 and k000003": "the clip of k000003 is not here, or is damaged",
        "k000006 and k000007": "k000006 is private, and the layout tells the prompt",
        "k000004 and k000005": "nobody has voted on this pair",
    }
    assert "0 votes on 0 clips" in repr(made)
    assert not (tmp_path / "out" / "data.csv").exists()
