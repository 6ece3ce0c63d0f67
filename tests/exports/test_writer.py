"""Clips go out under exactly the names that other tools look for, and whatever is missing is said."""

import csv
import json
import tarfile
from contextlib import contextmanager

import pytest

from kling_nb.errors import UsageError
from kling_nb.exports import layouts
from kling_nb.exports.export import export
from kling_nb.exports.layouts import LAYOUTS, find_layout, read_rows
from kling_nb.exports.naming import Sample
from kling_nb.exports.writer import lay_out
from kling_nb.notebook.line import run_command
from kling_nb.records.run import RunStatus
from support.sessions import ask, sessions_in
from support.stand_ins import names


# -- what is missing, and what must not go out ----------------------------------------------
def test_a_missing_sample_is_reported_with_its_reason(tmp_path, sample):
    """No run, a moderated run, a clip that is gone: three words in the report, and no file in their place."""
    runs = [
        sample("a fox", 0, 1),
        sample("a fox", 1, 2, status=RunStatus.FAILED, reason="moderated", media=None),
        Sample(record=sample("a fox", 2, 3).record, path=None),
    ]
    made = lay_out(runs, tmp_path / "out", LAYOUTS["vbench"], rows=read_rows(["a fox"]))
    assert [gone.why for gone in made.missing] == [
        "k000002 moderated",
        "the clip of k000003 is not here, or is damaged",
        "no run",
        "no run",
    ]
    assert names(tmp_path / "out") == {"a fox-0.mp4"}
    assert "4 are missing" in repr(made)
    manifest = json.loads((tmp_path / "out.export.json").read_text())
    assert manifest["clips"] == {"a fox-0.mp4": "k000001"}
    assert len(manifest["missing"]) == 4


def test_only_a_plain_number_is_the_place_in_a_suite(tmp_path, sample):
    """A tag `index` numbers a clip where the receipt takes it for a number, too; any other is no number."""
    for number, (text, name) in enumerate(
        [("7", "0007.mp4"), ("9" * 5000, "0000.mp4"), ("\u0663", "0000.mp4"), ("-1", "0000.mp4")]
    ):
        made = lay_out(
            [sample(f"fox {number}", tags={"index": text})], tmp_path / str(number), LAYOUTS["evalcrafter"]
        )
        assert [one.file for one in made.placed] == [name]


def test_what_a_plan_does_not_ask_for_is_no_reason_to_refuse_it(tmp_path, sample):
    """Another maker's clip and two settings of another prompt are left out, and told."""
    others = [sample("a hare", 0, 2, provider="runcomfy"), sample("a cow", 0, 3)]
    others.append(sample("a cow", 0, 4, duration=9))
    runs = [sample("a fox", 0, 1), *others]
    made = lay_out(runs, tmp_path / "out", LAYOUTS["vbench"], rows=read_rows(["a fox"]), count=1)
    assert (names(tmp_path / "out"), made.complete) == ({"a fox-0.mp4"}, True)
    assert made.left_out == ("k000002", "k000003", "k000004")
    with pytest.raises(UsageError, match="several makers"):
        lay_out(runs, tmp_path / "all", LAYOUTS["vbench"])


def test_a_plan_is_a_list_of_rows():
    """A text alone is one prompt; what says none is refused by its number, whatever it is."""
    assert [row.prompt for row in read_rows("a fox")] == ["a fox"]
    for bad in ([3], [None], {"a": 1}, [{"prompt": "a fox", "dimension": 3}]):
        with pytest.raises(UsageError, match="Row 0 of the plan"):
            read_rows(bad)


def test_a_take_that_was_bought_again_goes_out_once(tmp_path, sample):
    """Of two successes of a take the newest goes out; a later failure does not hide an earlier clip."""
    old, new = sample("a fox", 0, 1), sample("a fox", 0, 2)
    later = new.record.created_at.replace(year=2027)
    new = Sample(record=new.record.model_copy(update={"created_at": later}), path=new.path)
    failed = sample("a fox", 0, 3, status=RunStatus.FAILED, media=None, created_at=later.replace(year=2028))
    made = lay_out([new, failed, old], tmp_path / "out", LAYOUTS["vbench"])
    assert [one.sample.record.id for one in made.placed] == ["k000002"]


def test_sandbox_clips_stay_in(tmp_path, sample):
    """What the sandbox drew is no sample of a model: it goes out only when somebody says so."""
    played = [sample("a fox", provider="sandbox", play=True)]
    with pytest.raises(UsageError, match=r"drawn by the sandbox.*allow_sandbox=True"):
        lay_out(played, tmp_path / "out", LAYOUTS["vbench"])
    assert not (tmp_path / "out").exists()
    assert lay_out(played, tmp_path / "out", LAYOUTS["vbench"], allow_sandbox=True).complete


def test_clips_of_two_models_are_not_mixed(tmp_path, sample):
    """A suite measures one model: a mixture is refused, and names both."""
    mixed = [sample("a fox"), sample("a hare", 0, 2, model="kling-3.0-4k")]
    with pytest.raises(UsageError, match=r"kling-3\.0-4k at runflow, kling-3\.0-pro at runflow"):
        lay_out(mixed, tmp_path / "out", LAYOUTS["vbench"])


# -- the other tools -----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("layout", "files"),
    [
        ("video-bench", ["color/kling-3.0-pro/a fox_0.mp4", "color/kling-3.0-pro/a hare_0.mp4"]),
        ("t2v-compbench", ["color/0001.mp4", "color/0002.mp4"]),
        ("evalcrafter", ["0000.mp4", "0001.mp4"]),
        ("phygenbench", ["output_video_1.mp4", "output_video_2.mp4"]),
        ("physics-iq", ["kling-3.0-pro/0001_clip.mp4", "kling-3.0-pro/0002_clip.mp4"]),
        ("videogen-eval", ["kling-3.0-pro0.mp4", "kling-3.0-pro1.mp4"]),
    ],
)
def test_numbers_and_folders_follow_the_plan(tmp_path, sample, layout, files):
    """The place in the suite's own list names the clip, whatever order the runs were made in."""
    plan = [{"prompt": "a fox", "category": "color"}, {"prompt": "a hare", "category": "color"}]
    runs = [sample("a hare", 0, 2), sample("a fox", 0, 1)]
    made = lay_out(runs, tmp_path / "out", LAYOUTS[layout], rows=read_rows(plan))
    assert [one.file for one in made.placed] == files
    assert [one.sample.record.id for one in made.placed] == ["k000001", "k000002"]


def test_a_layout_with_dimensions_asks_for_them(tmp_path, sample):
    """A dimension is never guessed; a tag may say it, and so may the tag of a longer prompt's short name."""
    with pytest.raises(UsageError, match="needs the dimension"):
        lay_out([sample("a fox")], tmp_path / "out", LAYOUTS["vbench2"])
    tagged = sample("a red fox, seen from afar", tags={"dimension": "Motion", "prompt": "a fox"})
    made = lay_out([tagged], tmp_path / "out", LAYOUTS["vbench2"])
    assert [one.file for one in made.placed] == ["Motion/a fox-0.mp4"]


def test_index_files_say_what_is_what(tmp_path, sample):
    """Where names alone do not tell the prompt, a file beside the clips does, for any prompt."""
    prompt = 'He said "go", then\nleft / \N{SNOWMAN}, and\rback'
    runs = [sample(prompt)]
    lay_out(runs, tmp_path / "a", LAYOUTS["vbench-custom"])
    assert json.loads((tmp_path / "a" / "prompts.json").read_text()) == {"clip-0.mp4": prompt}
    lay_out(runs, tmp_path / "b", LAYOUTS["videophy"])
    with (tmp_path / "b" / "captions.csv").open(newline="") as file:
        assert file.readline() == "videopath,caption\n"
        file.seek(0)
        assert list(csv.reader(file)) == [["videopath", "caption"], ["clip.mp4", prompt]]
    lay_out(runs, tmp_path / "c", LAYOUTS["videofolder"])
    line = json.loads((tmp_path / "c" / "metadata.jsonl").read_text())
    assert (line["file_name"], line["prompt"], line["cost"]) == ("clip.mp4", prompt, "0.56")
    lay_out(runs, tmp_path / "d", LAYOUTS["webdataset"])
    with tarfile.open(tmp_path / "d" / "clips.tar") as tar:
        assert tar.getnames() == ["clip.mp4", "clip.json"]
        assert json.load(tar.extractfile("clip.json"))["prompt"] == prompt
        assert tar.extractfile("clip.mp4").read() == b"stand-in"


def test_every_layout_is_a_row_with_a_source():
    """No rule without the place it was read; an unknown name lists those there are."""
    assert len(LAYOUTS) == 13
    assert all(layout.source and layout.fields for layout in LAYOUTS.values())
    assert find_layout("VBench_Custom") is LAYOUTS["vbench-custom"]
    with pytest.raises(UsageError, match="videofolder"):
        find_layout("coco")
    assert set(layouts.__all__) >= {"LAYOUTS"}


# -- through a session -----------------------------------------------------------------------
def test_only_verified_clips_go_out(tmp_path):
    """One flipped byte keeps a clip in, and says so; nothing is sent for an export."""
    with contextmanager(sessions_in)(tmp_path) as make:
        session = make(provider="sandbox")
        runs = [session.open(ask(takes=(take,)))[0].wait(60) for take in (0, 1)]
        made = export(runs, tmp_path / "one", layout="vbench", allow_sandbox=True, session=session)
        assert (len(made.placed), made.complete) == (2, True)
        path = runs[0].path
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.unlink()
        path.write_bytes(data)
        made = export(runs, tmp_path / "two", layout="vbench", allow_sandbox=True, session=session)
        assert [gone.why for gone in made.missing] == [f"the clip of {runs[0].id} is not here, or is damaged"]
        assert len(session.ledger().runs()) == 2


def test_the_command_exports_what_it_is_told(tmp_path):
    """`%kling export` with a list of prompts from a file: the clips, what is missing, and no new run."""
    with contextmanager(sessions_in)(tmp_path) as make:
        session = make(provider="sandbox")
        fox = session.open(ask())[0].wait(60)
        # With a mark of byte order, and with a line end that is none in JSON.
        listed = '\ufeff{"prompt_en": "A red fox in snow"}\n{"prompt_en": "A hare", "note": "a\u2028b"}\n'
        (tmp_path / "list.jsonl").write_text(listed, encoding="utf-8")
        line = "export vbench fox --plan list.jsonl --samples 1 --to clips"
        with pytest.raises(UsageError, match="drawn by the sandbox"):
            run_command(session, line, {"fox": fox})
        shown = run_command(session, f"{line} --allow-sandbox", {"fox": fox})
        assert names(tmp_path / "clips") == {"A red fox in snow-0.mp4"}
        assert shown.value["missing"] == {"A hare-0.mp4": "no run"}
        assert shown.text.splitlines()[:2] == [
            "1 clip that the layout asks for is missing:",
            "A hare-0.mp4: no run",
        ]
        for bad, words in (
            ("export", "needs a layout"),
            ("export coco", "There is no layout"),
            ("export vbench --plan nothing.json", "cannot be read"),
            ("export vbench --samples 0", "from 1 to"),
        ):
            with pytest.raises(UsageError, match=words):
                run_command(session, bad, {})
        assert len(session.ledger().runs()) == 1


def test_a_crate_and_the_methods_by_a_line(tmp_path):
    """`%kling export crate` packs every attempt; `export methods` writes what a paper needs."""
    with contextmanager(sessions_in)(tmp_path) as make:
        session = make(provider="sandbox")
        fox = session.open(ask())[0].wait(60)
        with pytest.raises(UsageError, match="drawn by the sandbox"):
            run_command(session, "export crate --to crate", {})
        made = run_command(
            session, "export crate fox --to crate --licence CC0-1.0 --allow-sandbox", {"fox": fox}
        )
        assert made.value["clips"] == {f"clips/{fox.path.name}": fox.id}
        graph = json.loads((tmp_path / "crate" / "ro-crate-metadata.json").read_text())["@graph"]
        assert [entity["name"] for entity in graph if entity["@id"] == "#licence"] == ["CC0-1.0"]
        assert (
            "of 1 attempts every one is on record: 1 gave a clip"
            in run_command(session, "export methods", {}).text
        )
