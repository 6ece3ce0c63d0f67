"""Every variant of what a provider may answer, over real HTTP: its end, its money, and never sent twice."""

import json

import pytest

from support.variants import Theatre, cases


@pytest.fixture(scope="module")
def theatres(tmp_path_factory):
    """An engine on each wire, made when its first variant is played."""
    made = {}

    def of(wire):
        if wire not in made:
            made[wire] = Theatre(tmp_path_factory.mktemp(wire), wire)
        return made[wire]

    yield of
    for theatre in made.values():
        theatre.close()


@pytest.mark.parametrize(("wire", "variant"), [*cases()])
def test_a_variant_ends_as_it_says(theatres, tmp_path, wire, variant):
    """Status, charge, files and words; what was sent, once; and no clip is given up that is still there."""
    s, expect = theatres(wire), variant["expect"]
    run = s.play(variant, tmp_path)
    record = run.record
    assert (run.status, record.charged) == (expect["status"], expect["charged"]), (run.error, record.message)
    assert record.reason == expect.get("reason", record.reason)
    stats = s.stats()
    assert (stats["submissions"], stats["accepted"]) == (expect["posts"], expect.get("accepted", 1))
    assert stats["token_leaks"] == 0
    played = {part for part in variant["play"] if stats["fired"].get(f"{wire}.play_{part}")}
    assert played, "nothing of the variant was played"
    assert len(s.clips()) == expect["files"]
    # Money is held exactly where nobody knows, or where the clip is still to come.
    assert bool(record.reserved_micros) == (record.charged == "unknown" or run.status.pending)
    if "cost" in expect:
        assert record.reported_micros == expect["cost"]
    words = f"{record.message} {run.error or ''}"
    assert [text for text in expect.get("says", []) if text not in words] == [], words
    assert "kling_sig" not in words + json.dumps(run.bundle(), default=str)
    # A wait is counted from when it was wanted; until its timer began some of it had passed.
    waits = s.skipped.waits
    asked = expect.get("waits", [])
    assert [wait for wait in asked if not any(0 <= wait - slept <= wait / 4 for slept in waits)] == [], waits
    if between := expect.get("waits_between"):
        assert any(between[0] <= seconds <= between[1] for seconds in waits), waits
    sidecar = json.loads(run.path.with_suffix(".json").read_text()) if run.path else None
    if sidecar is not None:
        assert (sidecar["status"], sidecar["charged"]) == (expect["status"], expect["charged"])
    if not expect["files"]:
        s.faults(play="own")
        run.resume().wait(60)
        assert run.status == expect["later"], (run.note, run.error)
        assert len(s.clips()) == (expect["later"] == "succeeded")
        assert s.stats()["submissions"] == expect["posts"]
