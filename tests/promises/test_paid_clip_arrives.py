"""A clip that was paid for reaches the user and is paid once; what a provider may say is in the variants."""

import json
from dataclasses import replace

import pytest

from kling_nb.records.receipt import from_receipt
from support.played import EMPTY, PAGE, done
from support.stage import QUICK, kinds
from support.workbench import until

PATIENT = replace(QUICK, save_tries=6)


def succeeded(s, run):
    """The clip is here, whole, and one run was bought."""
    assert (run.status, run.record.charged) == ("succeeded", "yes"), run.error
    assert run.path.stat().st_size == run.record.media.size > 1000
    assert s.stats()["accepted"] == s.stats()["submissions"] == 1
    return True


def test_further_videos_are_kept_beside_the_clip(stage, wire):
    """Two videos of one run: the second is a numbered file, with its own line on card and receipt."""
    s = stage(limits=PATIENT, faults={"play": done({"videos": ["$clip", "$second"]})[wire]})
    run = s.go()
    assert succeeded(s, run)
    [other] = run.record.further
    assert other.file == f"{run.path.stem}-2.mp4"
    assert (run.path.parent / other.file).stat().st_size == other.size == run.record.media.size + 8
    assert other.file in run.bundle()["text/html"]
    kept = json.loads(run.path.with_suffix(".json").read_text())
    assert [one["name"] for one in kept["further_files"]] == [other.file]
    assert from_receipt(kept).further == run.record.further


def test_a_page_in_place_of_the_file_means_not_yet(stage):
    """Three pages, then the clip: the run says meanwhile who sent what."""
    s = stage(limits=PATIENT, faults={"play": {"download": [{**PAGE, "times": 3}, "own"]}})
    run = s.engine.handle(s.record())
    words = set()
    run.on_change(lambda run: words.add(run.record.message))
    assert succeeded(s, run.wait(60))
    assert any("127.0.0.1 sent" in text for text in words), words
    assert s.stats()["downloads"] == 4


@pytest.mark.parametrize("wire", ["runflow"])
def test_a_success_without_a_clip_is_read_again_then_failed_then_revived(stage):
    """Re-read, then failed, charged as reported; a later look that finds a clip brings it in one step."""
    s = stage(limits=replace(PATIENT, denied_s=0.1), faults={"play": EMPTY})
    run = s.go()
    assert (run.status, run.record.reason, run.record.charged) == ("failed", "provider", "unknown")
    assert "no clip" in run.record.message
    assert s.stats()["polls"] >= 4
    assert run.record.reserved_micros == 336_000
    run.resume().wait(60)
    assert run.status == "failed"
    assert "looked again" in run.note
    s.faults(play="own")
    until(lambda: run.resume().wait(60).status == "succeeded")
    assert succeeded(s, run)
    assert (run.record.settled_micros, run.record.reserved_micros) == (336_000, 0)
    assert "clip found later" in kinds(s, run)
    assert json.loads(run.path.with_suffix(".json").read_text())["status"] == "succeeded"


@pytest.mark.parametrize("wire", ["runflow"])
def test_an_unknown_word_gives_its_place_away_in_time(stage):
    """A run in a state that nobody knows goes on, and no longer holds up the runs behind it."""
    odd = {"status": {"body": {"id": "$id", "status_code": "post_processing"}}}
    s = stage(limits=replace(PATIENT, unknown_s=0.2), faults={"play": odd})
    s.engine.max_in_flight = 1
    first = s.engine.handle(s.record())
    second = s.engine.handle(s.record("A blue whale"))
    while not second.provider_run_id:
        assert not first.done
    assert "post_processing" in first.record.message
    s.faults(play="own")
    assert {first.wait(60).status, second.wait(60).status} == {"succeeded"}
