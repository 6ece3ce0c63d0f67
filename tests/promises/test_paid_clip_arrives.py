"""Whatever a provider's answer looks like, a clip that was paid for reaches the user, and is paid once."""

import gzip
import json
from dataclasses import replace

import pytest

from kling_nb.records.receipt import from_receipt
from support.stage import QUICK, Stage, kinds
from support.workbench import until

PATIENT = replace(QUICK, save_tries=6)


@pytest.fixture
def stage(tmp_path):
    made = []

    def make(wire, **options):
        made.append(Stage(tmp_path, wire, **{"limits": PATIENT, **options}))
        return made[-1]

    yield make
    for one in made:
        one.close()


def succeeded(s, run):
    """The clip is here, whole, and one run was bought."""
    assert (run.status, run.record.charged) == ("succeeded", "yes"), run.error
    assert run.path.stat().st_size == run.record.media.size > 1000
    assert s.stats()["accepted"] == s.stats()["submissions"] == 1
    return True


#: What RunComfy's /result may look like; its page's own schema names no status and no id.
RESULTS = {
    "the page's own": {"output": {"video": "$clip"}},
    "a list": {"output": {"videos": ["$clip"]}},
    "with its id": {"request_id": "$id", "output": {"video": "$clip"}},
    "plain text": {"output": "$clip"},
    "a bare list": {"output": ["$clip"]},
    "objects": {"output": {"videos": [{"url": "$clip", "content_type": "video/mp4"}]}},
    "beside a picture": {"output": {"image": "$still", "video": "$clip"}},
    "pictures first": {"output": {"images": ["$still"], "videos": ["$clip"]}},
    "a picture called video": {"output": {"videos": ["$still", "$clip"]}},
    "untyped, picture first": {"output": [{"url": "$still"}, {"url": "$clip"}]},
    "relative": {"request_id": "$id", "status": "succeeded", "output": {"video": "$path"}},
    "in an envelope": {"data": {"request_id": "$id", "status": "succeeded", "output": {"video": "$clip"}}},
}


@pytest.mark.parametrize("name", RESULTS)
def test_every_shape_of_a_result_gives_its_clip(stage, name):
    """RunComfy: after a status `completed`, the clip of the result is fetched, wherever it stands in it."""
    s = stage("runcomfy", faults={"result_body": json.dumps(RESULTS[name])})
    assert succeeded(s, s.go())


@pytest.mark.parametrize("wire", ["runflow", "runcomfy"])
def test_further_videos_are_kept_beside_the_clip(stage, wire):
    """Two videos of one run: the second is a numbered file, with its own line on card and receipt."""
    s = stage(wire, faults={"run_many_outputs": 1})
    run = s.go()
    assert succeeded(s, run)
    [other] = run.record.further
    assert other.file == f"{run.path.stem}-2.mp4"
    assert (run.path.parent / other.file).stat().st_size == other.size == run.record.media.size + 8
    assert other.file in run.bundle()["text/html"]
    kept = json.loads(run.path.with_suffix(".json").read_text())
    assert [one["name"] for one in kept["further_files"]] == [other.file]
    assert from_receipt(kept).further == run.record.further


#: What Runflow's run may look like once it is over.
RUNS = {
    "untyped, picture first": {
        "status_code": "succeeded",
        "output": {"outputs": [{"url": "$still"}, {"url": "$clip"}]},
    },
    "typed by content": {
        "status_code": "succeeded",
        "output": {
            "outputs": [
                {"url": "$still", "content_type": "image/jpeg"},
                {"url": "$clip", "content_type": "video/mp4"},
            ]
        },
    },
    "wrongly typed": {"status_code": "succeeded", "output": {"outputs": [{"url": "$clip", "type": "image"}]}},
    "relative": {"status_code": "succeeded", "output": {"outputs": [{"url": "$path", "type": "video"}]}},
    "status": {"status": "succeeded", "output": {"outputs": [{"url": "$clip"}]}},
    "done": {"status": "done", "output": {"video": "$clip"}},
    "success": {"status_code": "SUCCESS", "output": "$clip"},
    "outputs": {"status_code": "completed", "outputs": ["$clip"]},
}


@pytest.mark.parametrize("name", RUNS)
def test_every_shape_of_a_run_gives_its_clip(stage, name):
    """Runflow: every address is tried in the order of likelihood, in every spelling of the end."""
    s = stage("runflow", faults={"ended_body": json.dumps({"id": "$id", **RUNS[name]})})
    assert succeeded(s, s.go())


@pytest.mark.parametrize("under", ["data", "run"])
def test_a_run_in_an_envelope_is_read(stage, under):
    """The object with this run's id counts, and what it says outranks the envelope."""
    run = {"id": "$id", "status_code": "succeeded", "output": {"outputs": [{"url": "$clip"}]}}
    s = stage("runflow", faults={"ended_body": json.dumps({"status": "running", under: run})})
    assert succeeded(s, s.go())


def test_an_end_of_another_run_is_no_end(stage):
    """A word that clearly means an end counts only beside this run's own id."""
    s = stage("runflow", limits=replace(PATIENT, watch_s=1.5))
    s.faults(ended_body=json.dumps({"status_code": "errored", "id": None}))
    run = s.go()
    assert run.status.pending
    s.faults(ended_body="own")
    s.engine.limits = PATIENT
    assert succeeded(s, run.resume().wait(60))


ENDS = {
    ("runflow", "errored"): ("failed", "provider"),
    ("runflow", "ERROR"): ("failed", "provider"),
    ("runflow", "timeout"): ("failed", "provider"),
    ("runflow", "rejected"): ("failed", "provider"),
    ("runflow", "expired"): ("failed", "provider"),
    ("runcomfy", "error"): ("failed", "provider"),
    ("runcomfy", "timed-out"): ("failed", "provider"),
    ("runcomfy", "Failed"): ("failed", "provider"),
    ("runcomfy", "cancelled"): ("canceled", "canceled"),
}


@pytest.mark.parametrize(("wire", "word"), ENDS)
def test_words_that_mean_an_end_are_one(stage, wire, word):
    """In any case and on the second reading; the charge of an undocumented end is unknown, its money held."""
    name = "id" if wire == "runflow" else "request_id"
    key = "status_code" if wire == "runflow" else "state"
    s = stage(wire, faults={"ended_body": json.dumps({name: "$id", key: word}), "result_404": 1})
    run = s.go()
    assert (run.status, run.record.reason) == ENDS[wire, word]
    assert (run.record.charged, run.record.reserved_micros) == ("unknown", 336_000)
    assert s.stats()["polls"] >= 2
    assert s.stats()["accepted"] == 1


@pytest.mark.parametrize("refusal", ["result_404", "result_400"])
def test_a_definite_status_outranks_a_failing_result(stage, refusal):
    """RunComfy: `failed` stays failed, `cancelled` stays canceled, though their results cannot be read."""
    s = stage("runcomfy", faults={"run_failed": 1, "failed_status": "failed", refusal: 1})
    run = s.go()
    assert (run.status, run.record.reason, run.record.charged) == ("failed", "provider", "unknown")
    assert s.stats()["fired"][f"runcomfy.{refusal}"] >= 1


def test_a_result_that_is_missing_for_a_moment_is_read_again(stage):
    """`completed` and a result of 404: asked for again, for as long as a provider may be late."""
    s = stage("runcomfy")
    s.faults(result_404={"next": 4})
    assert succeeded(s, s.go())
    assert s.stats()["fired"]["runcomfy.result_404"] == 4


@pytest.mark.parametrize("wire", ["runflow", "runcomfy"])
def test_a_run_that_cannot_be_read_at_first_is_not_given_up(stage, wire):
    """Three seconds of "no such run" right after the submit end nothing."""
    s = stage(wire, faults={"hidden_s": 3})
    run = s.go()
    assert succeeded(s, run)
    assert s.stats()["polls"] >= 4


@pytest.mark.parametrize("fault", ["download_html", "download_empty"])
@pytest.mark.parametrize("wire", ["runflow", "runcomfy"])
def test_a_page_in_place_of_the_file_means_not_yet(stage, wire, fault):
    """Three pages, then the clip: the run says meanwhile who sent what."""
    s = stage(wire)
    s.faults(**{fault: {"next": 3}})
    run = s.engine.handle(s.record())
    words = set()
    run.on_change(lambda run: words.add(run.record.message))
    assert succeeded(s, run.wait(60))
    assert any("127.0.0.1 sent" in text for text in words), words
    assert s.stats()["downloads"] == 4


@pytest.mark.parametrize("wire", ["runflow", "runcomfy"])
def test_pages_without_end_never_end_a_success(stage, wire):
    """The run stays in saving and says what came; resume asks again and brings the clip."""
    s = stage(wire, faults={"download_html": 1}, limits=replace(QUICK, save_tries=3))
    run = s.go()
    assert run.status == "saving"
    assert "video/mp4" in str(run.error)
    assert "resume" in str(run.error)
    s.faults(download_html=0)
    assert succeeded(s, run.resume().wait(60))


@pytest.mark.parametrize("fault", ["download_gzip", "download_partial"])
@pytest.mark.parametrize("wire", ["runflow", "runcomfy"])
def test_answers_that_browsers_take_are_taken(stage, wire, fault):
    """A compressed file is unpacked, and a range that is the whole file is the file."""
    s = stage(wire, faults={fault: 1})
    run = s.go()
    assert succeeded(s, run)
    assert s.stats()["fired"][f"{wire}.{fault}"] == 1
    assert run.path.read_bytes()[:2] != gzip.compress(b"")[:2]


@pytest.mark.parametrize("wire", ["runflow", "runcomfy"])
def test_a_file_on_the_providers_own_origin_may_ask_for_the_key(stage, wire):
    """Where the configured origin itself answers 401, the key goes along once, and nowhere else."""
    s = stage(wire, faults={"file_key": "on"})
    assert succeeded(s, s.go())
    assert s.stats()["downloads"] == 2
    assert s.stats()["token_leaks"] == 0


@pytest.mark.parametrize("body", [{"outputs": []}, None])
def test_a_success_without_a_clip_is_read_again_then_failed_then_revived(stage, body):
    """Runflow: after re-reads it failed, charged as reported; a later look that finds a clip brings it."""
    s = stage(
        "runflow",
        faults={"ended_body": json.dumps({"id": "$id", "status_code": "succeeded", "output": body})},
    )
    run = s.go()
    assert (run.status, run.record.reason, run.record.charged) == ("failed", "provider", "unknown")
    assert "no clip" in run.record.message
    assert s.stats()["polls"] >= 4
    assert run.record.reserved_micros == 336_000
    run.resume().wait(60)
    assert run.status == "failed"
    assert "looked again" in run.note
    s.faults(ended_body="own")
    until(lambda: run.resume().wait(60).status == "succeeded")
    assert succeeded(s, run)
    assert (run.record.settled_micros, run.record.reserved_micros) == (336_000, 0)
    assert "clip found later" in kinds(s, run)
    assert json.loads(run.path.with_suffix(".json").read_text())["status"] == "succeeded"


def test_runcomfys_empty_success_is_the_same(stage):
    """`completed` and `output: {}` is a success without a clip."""
    s = stage("runcomfy", faults={"result_body": json.dumps({"output": {}, "cost": 0.336})})
    run = s.go()
    assert (run.status, run.record.reason, run.record.charged) == ("failed", "provider", "yes")
    assert (run.record.settled_micros, run.record.reserved_micros) == (336_000, 0)


def test_a_flagged_success_without_a_clip_is_moderated(stage):
    """`nsfw_detected` and nothing to fetch: the content was refused; running again must not send it again."""
    body = {
        "id": "$id",
        "status_code": "succeeded",
        "output": {"outputs": [], "nsfw_detected": True},
        "cost": "0.00",
    }
    s = stage("runflow", faults={"ended_body": json.dumps(body)})
    run = s.go()
    assert (run.status, run.record.reason, run.record.charged) == ("failed", "moderated", "no")


@pytest.mark.parametrize("wire", ["runflow", "runcomfy"])
def test_a_forgotten_run_that_comes_back_is_brought(stage, wire):
    """Denied for as long as we ask it is expired; later looks bring the clip, and nothing is bought again."""
    s = stage(wire, faults={"hidden_s": 3600}, limits=replace(PATIENT, denied_s=0.5))
    run = s.go()
    assert (run.status, run.record.reason, run.record.charged) == ("failed", "expired", "unknown")
    s.faults(hidden_s=0)
    # Its file may still be in the making.
    until(lambda: run.resume().wait(60).status == "succeeded")
    assert succeeded(s, run)


FAILURES = {
    "error object": {"error": {"code": "CONTENT_POLICY_VIOLATION", "message": "not allowed"}},
    "error text": {"error": "blocked by the content policy"},
    "in the output": {"output": {"error": {"message": "flagged by moderation"}}},
}


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("wire", ["runflow", "runcomfy"])
def test_words_of_a_failure_are_found_wherever_they_stand(stage, wire, name):
    """The provider's words are shown, and moderation is recognised: running again must not send it again."""
    ids = {
        "runflow": {"id": "$id", "status_code": "failed"},
        "runcomfy": {"request_id": "$id", "status": "failed"},
    }
    body = json.dumps({**ids[wire], **FAILURES[name]})
    s = stage(wire, faults={"ended_body": body, "result_body": body})
    run = s.go()
    assert (run.status, run.record.reason) == ("failed", "moderated")
    assert run.record.message


COSTS = {'"$0.61"': 610_000, '{"amount": "0.61", "currency": "USD"}': 610_000, '"0.61 USD"': 610_000}


@pytest.mark.parametrize("cost", [*COSTS, "cents", '"1,234"'])
def test_a_cost_is_read_where_it_can_be_read_in_one_way(stage, cost):
    """Else it is unknown, booked at the list price, and its words are kept."""
    spelled = '"cost_cents": 61' if cost == "cents" else f'"cost": {cost}'
    body = f'{{"id": "$id", "status_code": "succeeded", "output": "$clip", {spelled}}}'
    s = stage("runflow", faults={"ended_body": body})
    run = s.go()
    assert succeeded(s, run)
    if cost == '"1,234"':
        assert run.record.reported_micros is None
        assert "1,234" in run.record.message
    else:
        assert run.record.reported_micros == run.record.settled_micros == 610_000


def test_an_unknown_word_gives_its_place_away_in_time(tmp_path):
    """A run in a state that nobody knows goes on, and no longer holds up the runs behind it."""
    s = Stage(tmp_path, "runflow", held=True, limits=replace(PATIENT, unknown_s=0.2), faults={"run_odd": 1})
    s.engine.max_in_flight = 1
    try:
        first = s.engine.handle(s.record())
        second = s.engine.handle(s.record("A blue whale"))
        while not second.provider_run_id:
            assert not first.done
        assert "post_processing" in first.record.message
        s.let_go()
        assert {first.wait(60).status, second.wait(60).status} == {"succeeded"}
    finally:
        s.close()
