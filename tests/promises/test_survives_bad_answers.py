"""Every way in which the sandbox can spoil an answer, against the engine: never paid twice, never lost."""

import time
from dataclasses import replace

import pytest

from kling_nb.records.run import RunStatus
from support.stage import QUICK, Stage, kinds

#: Answers that say nothing of the run that was made, beside those that the contract suite has.
UNREADABLE = ("cut", "types", "nulls", "deep", "oversized")
LENGTHS = ("stall", "overstated", "understated")


def fired(stage, fault):
    return stage.stats()["fired"].get(f"{stage.wire}.{fault}", 0)


def once(stage, submissions=1):
    stats = stage.stats()
    assert (stats["submissions"], stats["accepted"], stats["token_leaks"]) == (submissions, 1, 0)


@pytest.mark.parametrize("way", [*UNREADABLE, *LENGTHS])
def test_a_spoilt_answer_to_the_submit_never_pays_twice(stage, way):
    """Runflow's run is found by our reference; RunComfy's is lost, its money held; neither is sent again."""
    s = stage(faults={"hang_s": 0.3})
    s.faults(**{f"submit_{way}": {"next": 1}})
    run = s.go()
    assert fired(s, f"submit_{way}") == 1
    once(s)
    if s.wire == "runflow":
        assert run.status == "succeeded"
    elif run.status != "succeeded":
        assert run.status == "lost"
        assert (run.record.charged, run.record.reserved_micros) == ("unknown", 336_000)


@pytest.mark.parametrize("way", ["mislabeled", "doubled", "huge"])
def test_a_readable_answer_in_an_odd_dress_is_an_answer(stage, way):
    """A wrong label, names that stand twice, or numbers beyond any type, lose no run."""
    s = stage(faults={f"submit_{way}": 1, f"poll_{way}": 1})
    assert s.go().status == "succeeded"
    once(s)
    assert fired(s, f"submit_{way}") == 1
    assert fired(s, f"poll_{way}") >= 1


@pytest.mark.parametrize("way", ["redirect", "redirect_here"])
def test_a_redirected_submit_is_not_followed(stage, way):
    """The key goes nowhere else, and the POST is not repeated by a redirect; the run never was."""
    s = stage()
    s.faults(**{f"submit_{way}": {"next": 1}})
    run = s.go()
    assert fired(s, f"submit_{way}") == 1
    if s.wire == "runflow":
        assert run.status == "succeeded"
        once(s, submissions=2)
        assert "resent" in kinds(s, run)
    else:
        assert run.status == "lost"
        assert (s.stats()["submissions"], s.stats()["accepted"]) == (1, 0)


@pytest.mark.parametrize("way", [*UNREADABLE, *LENGTHS, "redirect", "redirect_here"])
def test_spoilt_readings_never_end_a_run(stage, way):
    """What cannot be read decides nothing: the run goes on to its clip."""
    s = stage(faults={"hang_s": 0.3})
    s.faults(**{f"poll_{way}": {"next": 1}})
    run = s.go()
    assert (run.status, run.record.charged) == ("succeeded", "yes")
    assert run.record.settled_micros == 336_000
    assert fired(s, f"poll_{way}") == 1
    once(s)


@pytest.mark.parametrize("way", [*LENGTHS, "redirect_here", "oversized"])
def test_a_spoilt_download_is_fetched_again(stage, way):
    """Fetching is free: only a whole file becomes the clip, and nobody is sent elsewhere for it."""
    s = stage(faults={"hang_s": 0.3})
    s.faults(**{f"download_{way}": {"next": 1}})
    run = s.go()
    assert run.status == "succeeded"
    assert fired(s, f"download_{way}") == 1
    assert s.stats()["downloads"] == 2
    names = sorted(path.name for path in run.path.parent.iterdir())
    assert names == sorted([run.path.name, run.path.with_suffix(".json").name])
    once(s)


@pytest.mark.parametrize("way", [*UNREADABLE, "stall", "redirect"])
def test_a_spoilt_list_proves_no_absence(tmp_path, way):
    """A run that was made is found although the first looks at the list are spoilt, and is not sent again."""
    s = Stage(tmp_path, "runflow", faults={"hang_s": 0.2})
    try:
        s.faults(submit_drop_after={"next": 1}, **{f"list_{way}": {"next": 2}})
        run = s.go()
        assert run.status == "succeeded"
        assert fired(s, f"list_{way}") == 2
        once(s)
    finally:
        s.close()


def test_a_list_that_stays_spoilt_leaves_the_run_unclear(tmp_path):
    """Without a readable list nothing is proved: not sent again, not called lost, found by a later look."""
    s = Stage(tmp_path, "runflow", faults={"submit_drop_after": 1, "list_nulls": 1})
    try:
        run = s.go()
        assert run.status == RunStatus.SUBMITTING
        assert run.error.charged == "unknown"
        once(s)
        s.faults(list_nulls=0)
        assert run.resume().wait(90).status == "succeeded"
        once(s)
    finally:
        s.close()


@pytest.mark.parametrize("way", ["cut", "types", "nulls", "deep", "stall", "redirect"])
def test_a_spoilt_answer_to_a_cancel_claims_nothing(tmp_path, way):
    """Only the provider's own word cancels a run; after a spoilt one it is watched to its end."""
    s = Stage(tmp_path, "runcomfy", held=True, faults={"hang_s": 0.2, "queue_s": 10, f"cancel_{way}": 1})
    try:
        run = s.engine.handle(s.record())
        _until(lambda: run.provider_run_id)
        assert run.cancel() != "canceled"
        s.let_go()
        run.wait(90)
        # The sandbox did cancel it where only the answer was spoilt: that is found by reading.
        assert run.status == ("succeeded" if way == "redirect" else "canceled")
        once(s)
    finally:
        s.close()


def _until(condition, limit_s=60):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("memory", [True, False])
def test_a_restarted_provider(stage, memory):
    """With its memory the run ends as a clip; without, as expired, charge unknown; never sent again."""
    s = stage(held=True)
    run = s.engine.handle(s.record())
    _until(lambda: run.provider_run_id and s.stats()["polls"])
    s.loop.start(s.sandbox.restart(memory=memory)).result(60)
    s.let_go()
    run.wait(90)
    stats = s.stats()
    assert (stats["submissions"], stats["accepted"]) == (1, 1)
    if memory:
        assert run.status == "succeeded"
    else:
        assert (run.status, run.record.reason, run.record.charged) == ("failed", "expired", "unknown")
        assert run.record.reserved_micros == 336_000


@pytest.mark.parametrize("memory", [True, False])
def test_a_provider_that_restarts_in_the_middle_of_a_submit(stage, memory):
    """What it still knows is found; what it forgot is sent once more where that is proved, or lost."""
    s = stage(faults={"submit_hang_after": {"next": 1}, "hang_s": 30})
    run = s.engine.handle(s.record())
    _until(lambda: s.stats()["accepted"] == 1)
    s.loop.start(s.sandbox.restart(memory=memory)).result(60)
    run.wait(90)
    stats = s.stats()
    if s.wire == "runcomfy":
        assert run.status == "lost"
        assert stats["submissions"] == 1
    else:
        assert run.status == "succeeded"
        assert stats["submissions"] == (1 if memory else 2)
        assert len(stats["runs"]) == 1


def test_a_submit_that_outlasts_our_patience_is_ambiguous(stage):
    """A hang longer than the read time-out: found on Runflow, lost on RunComfy, sent once on both."""
    s = stage(faults={"submit_hang_after": 1, "hang_s": 30}, limits=replace(QUICK, watch_s=20))
    from kling_nb.network.client import Transport

    s.engine._transport = Transport(read_timeout_s=0.5)
    run = s.go()
    assert run.status == ("succeeded" if s.wire == "runflow" else "lost")
    once(s)
