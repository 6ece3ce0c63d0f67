"""A recorded sequence is played as it stands, to each run from its beginning."""

import json

import pytest

from kling_nb.sandbox.faults.board import Faults, parse_faults


def test_each_run_is_answered_from_the_beginning_and_the_last_answer_stays(bench):
    """Twice "no such run", then as documented: for every run anew."""
    bench.faults(play={"status": [{"status": 404, "body": {"code": "RUN_NOT_FOUND"}, "times": 2}, "own"]})
    ids = [bench.flow().json()["id"] for _ in range(2)]
    bench.advance(100)
    told = [[bench.flow_run(run_id).status_code for _ in range(4)] for run_id in ids]
    assert told == [[404, 404, 200, 200]] * 2
    assert bench.stats()["fired"] == {"runflow.play_status": 4}
    bench.faults(play={"status": [{"status": 500, "text": "first"}, {"status": 404, "text": "last"}]})
    assert [bench.flow_run(ids[0]).text for _ in range(3)] == ["first", "last", "last"]
    bench.faults(play="own")
    assert bench.flow_run(ids[0]).status_code == 200


def test_addresses_ids_and_sizes_are_filled_in(bench):
    """The clip, another video, a picture: each where the run has it, and a range that is the whole file."""
    run_id, url = bench.finished("runcomfy")
    whole = bench.bare.get(url).content
    body = {"id": "$id", "clip": "$clip", "path": "$path", "second": "$second", "still": "$still"}
    bench.faults(
        play={
            "result": {"body": body},
            "download": [
                {"status": 206, "headers": {"Content-Range": "bytes 0-$last/$size"}, "clip": True},
                {"headers": {"Content-Encoding": "gzip"}, "clip": True},
                {"status": 302, "headers": {"Location": "$still"}},
                "own",
            ],
        }
    )
    told = bench.comfy_result(run_id)
    assert told == {
        "id": run_id,
        "clip": url,
        "path": url.removeprefix(bench.sandbox.url),
        "second": url.replace("0.mp4", "1.mp4"),
        "still": url.replace("0.mp4", "still.jpg"),
    }
    answers = [bench.bare.get(url) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [206, 200, 302, 200]
    assert [answer.content == whole for answer in answers] == [True, True, False, True]
    assert answers[0].headers["content-range"] == f"bytes 0-{len(whole) - 1}/{len(whole)}"
    assert len(answers[1].content) == len(whole)
    assert answers[2].headers["location"] == told["still"]
    assert bench.bare.get(told["second"]).content == whole + b"\0\0\0\x08free"


@pytest.mark.parametrize("wire", ["runflow", "runcomfy"])
def test_a_refused_submit_creates_nothing_and_an_accepted_one_a_run(bench, wire):
    """What a recorded answer to a submit says is true of the sandbox's runs, too."""
    bench.faults(
        play={"submit": [{"status": 503, "text": "later"}, {"status": 202, "body": {"run": "$id"}}, "own"]}
    )
    submit = bench.flow if wire == "runflow" else bench.comfy
    assert submit().status_code == 503
    assert bench.stats()["accepted"] == 0
    made = submit()
    assert (made.status_code, made.json()) == (202, {"run": bench.stats()["runs"][0]["id"]})
    assert submit().is_success
    assert bench.stats()["accepted"] == 2


def test_answers_have_the_sandboxs_own_date_or_the_one_that_is_recorded(bench):
    """One date only: the simulated one, which stands still where the clock does."""
    first = bench.flow_list().headers
    bench.advance(3600)
    then = bench.flow_list().headers
    assert first["date"] != then["date"]
    assert len(then.get_list("date")) == 1
    bench.faults(play={"status": {"headers": {"Date": "Sun, 29 Nov 2026 08:00:00 GMT"}, "body": {}}})
    told = bench.flow_run(bench.flow().json()["id"]).headers
    assert told.get_list("date") == ["Sun, 29 Nov 2026 08:00:00 GMT"]


def test_a_key_is_no_leak_where_a_recorded_answer_asked_for_it(bench):
    """Only after a 401 or 403 of the file's own."""
    _, url = bench.finished("runflow")
    bench.faults(play={"download": [{"status": 401, "text": "who"}, "own"]})
    bench.bare.get(url)
    assert bench.http.get(url).status_code == 200
    assert bench.stats()["token_leaks"] == 0


def test_a_command_line_names_the_file_of_a_recording(tmp_path):
    """Alone, or under `play` as in a variant of the tests."""
    answers = {"status": {"status": 404}}
    for held in (answers, {"note": "x", "play": answers}):
        (tmp_path / "a.json").write_text(json.dumps(held))
        assert parse_faults([f"runflow.play={tmp_path}/a.json"]) == {"runflow.play": answers}
    assert parse_faults(["play=own"]) == {"play": "own"}


@pytest.mark.parametrize(
    ("play", "words"),
    [
        ("another", "'own' or an object"),
        ({"poll": "own"}, "submit, status, result, download"),
        ({"status": "theirs"}, "'own' or an object"),
        ({"status": {"code": 404}}, "'own' or an object"),
        ({"status": {"body": {}, "text": ""}}, "'own' or an object"),
        ({"status": [{"times": 0}]}, "whole numbers"),
        ({"status": [{"status": "404"}]}, "whole numbers"),
    ],
)
def test_what_is_no_recording_is_refused(play, words):
    """With what would do."""
    with pytest.raises(ValueError, match=words):
        Faults({"play": play})
