"""The sandbox speaks both wires as their contracts say: states, fields, refusals, money, files."""

import ast
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

import kling_nb.sandbox
from support.sandbox import RUNCOMFY_MODEL, RUNFLOW_MODEL, Bench

STEPS = [(0, "queued"), (1.25, "dispatching"), (0.3, "running"), (3, "succeeded")]


# Runflow


def test_runflow_submit_answers_201_with_the_documented_run_object(bench):
    """A submit answers with every documented field and echoes what was sent."""
    envelope = {"client_ref": "r-1", "callback_url": "http://127.0.0.1:9/cb", "metadata": {"a": 1}}
    answer = bench.flow(envelope=envelope)
    body = answer.json()
    assert answer.status_code == 201
    documented = """id flow_id model_id target_type target_version org_id status_code source_code input output
        context duration_ms cost cost_breakdown nodes_total nodes_completed batch_id client_ref request_id
        created_by created_at started_at completed_at callback_url metadata has_logs has_node_runs links
        failure_code failure_message failure_stage_code node_runs logs flow"""
    assert set(body) == set(documented.split())
    assert {key: body[key] for key in envelope} == envelope
    assert body["input"] == {"prompt": "a red fox", "duration": "3", "generate_audio": False}
    assert body["id"][14] == "7"  # UUIDv7
    assert (body["status_code"], body["output"], body["cost"]) == ("queued", None, None)


def test_runflow_run_moves_through_its_states_by_the_clock(bench):
    """States, dates and cost come in the documented order, and only the clock moves them."""
    run_id = bench.flow().json()["id"]
    seen = []
    for wait, _ in STEPS:
        bench.advance(wait)
        seen.append(bench.flow_run(run_id).json())
    assert [run["status_code"] for run in seen] == [word for _, word in STEPS]
    assert [run["started_at"] is None for run in seen] == [True, True, False, False]
    assert [run["completed_at"] is None for run in seen] == [True, True, True, False]
    assert [run["cost"] for run in seen] == [None, None, None, "0.336000"]
    assert seen[-1]["output"]["outputs"][0]["type"] == "video"
    assert seen[-1]["output"]["nsfw_detected"] is False


def test_wait_scale_multiplies_every_wait():
    """With wait_scale 2 the queue lasts twice as long; with 0 a run is over at once."""
    with Bench(wait_scale=2.0) as slow, Bench(wait_scale=0.0) as quick:
        run_id = slow.flow().json()["id"]
        slow.advance(2.3)
        assert slow.flow_run(run_id).json()["status_code"] == "queued"
        slow.advance(0.2)
        assert slow.flow_run(run_id).json()["status_code"] == "dispatching"
        run_id = quick.flow().json()["id"]
        quick.advance(0)
        assert quick.flow_run(run_id).json()["status_code"] == "succeeded"


@pytest.mark.parametrize("key", [None, "", "bad-key"])
def test_runflow_refuses_bad_keys_everywhere(bench, key):
    """A missing, empty or bad key gets 401 UNAUTHORIZED from every route but health."""
    http = bench.client(key)
    base = bench.sandbox.runflow
    answers = [bench.flow(http=http), bench.flow_run("x", http=http)]
    answers += [http.get(f"{base}/v1/{path}") for path in ("runs", "auth/me", "billing/balance")]
    assert {(a.status_code, a.json()["code"]) for a in answers} == {(401, "UNAUTHORIZED")}
    assert set(answers[0].json()) == {"code", "message", "errors"}
    assert http.get(f"{base}/v1/health").json() == {"status": "ok"}
    assert bench.stats()["accepted"] == 0


def test_runflow_refuses_an_empty_account(bench):
    """A key without balance gets 402 and nothing is created."""
    answer = bench.flow(http=bench.client("poor-key"))
    assert (answer.status_code, answer.json()["code"]) == (402, "INSUFFICIENT_CREDIT")
    assert bench.stats()["accepted"] == 0


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"duration": 5}, "duration"),
        ({"duration": "2"}, "duration"),
        ({"duration": "16"}, "duration"),
        ({"duration": "05"}, "duration"),
        ({"duration": "9" * 5000}, "duration"),
        ({"prompt": None}, "prompt"),
        ({"prompt": "  "}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"multi_prompt": [{"prompt": "x", "duration": "3"}]}, "prompt"),
        ({"prompt": None, "multi_prompt": "x"}, "multi_prompt"),
        ({"prompt": None, "multi_prompt": [{"duration": "3"}]}, "multi_prompt.0.prompt"),
        ({"aspect_ratio": "4:3"}, "aspect_ratio"),
        ({"generate_audio": "true"}, "generate_audio"),
        ({"shot_type": "random"}, "shot_type"),
        ({"cfg_scale": "0.5"}, "cfg_scale"),
        ({"cfg_scale": True}, "cfg_scale"),
        ({"negative_prompt": ["x"]}, "negative_prompt"),
    ],
)
def test_runflow_refuses_wrong_input(bench, given, field):
    """Input outside the contract gets 422 naming the field, and nothing is created."""
    answer = bench.flow(**given)
    assert answer.status_code == 422
    assert field in [error["field"] for error in answer.json()["errors"]]
    assert (bench.stats()["submissions"], bench.stats()["accepted"]) == (1, 0)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"\xff", b'{"input": 1}', b"[" * 100_000, b'{"input": {}, "client_ref": 5}'],
)
def test_runflow_refuses_bad_bodies(bench, body):
    """A body that is no submit at all gets 400."""
    url = f"{bench.sandbox.runflow}/v1/models/{RUNFLOW_MODEL}/runs"
    assert bench.http.post(url, content=body).status_code == 400


def test_runflow_envelope_limits(bench):
    """client_ref and callback_url have the documented longest lengths."""
    assert bench.flow(envelope={"client_ref": "x" * 255}).status_code == 201
    assert bench.flow(envelope={"client_ref": "x" * 256}).status_code == 400
    assert bench.flow(envelope={"callback_url": "x" * 2049}).status_code == 400
    assert bench.flow(envelope={"client_ref": None, "callback_url": None}).status_code == 201


def test_runflow_unknown_things(bench):
    """An unknown model, run or path is 404 in the flat error shape."""
    base = bench.sandbox.runflow
    assert bench.flow_run("nope").json()["code"] == "RUN_NOT_FOUND"
    assert bench.http.post(f"{base}/v1/models/a/b/runs", json={"input": {}}).status_code == 404
    assert bench.http.get(f"{base}/v1/nothing").json()["code"] == "NOT_FOUND"


def test_runflow_has_no_cancel_for_customers(bench):
    """The admin's cancel is refused and changes nothing."""
    run_id = bench.flow().json()["id"]
    answer = bench.http.post(f"{bench.sandbox.runflow}/v1/admin/runs/{run_id}/cancellation")
    assert (answer.status_code, answer.json()["code"]) == (403, "PERMISSION_DENIED")
    assert bench.flow_run(run_id).json()["status_code"] == "queued"


def test_accounts_cannot_see_each_other(bench):
    """A run of another account is 404 on Runflow and 403001 on RunComfy, and in no list."""
    other = bench.client("other-key")
    flow, comfy = bench.flow().json()["id"], bench.comfy().json()["request_id"]
    assert bench.flow_run(flow, http=other).status_code == 404
    answer = bench.comfy_get(comfy, "status", http=other)
    assert (answer.status_code, answer.json()["error_code"]) == (403, 403001)
    assert other.get(f"{bench.sandbox.runflow}/v1/runs").json()["items"] == []
    bench.faults(foreign_run="403")
    assert bench.flow_run(flow, http=other).status_code == 403


@pytest.mark.parametrize("query", ["client_ref.EQ:'b 2'", "client_ref:'b 2'", 'client_ref:"b 2"'])
def test_runflow_list_finds_by_client_ref(bench, query):
    """Both documented filter spellings find exactly the run with that client_ref."""
    ids = [bench.flow(envelope={"client_ref": ref}).json()["id"] for ref in ("b 1", "b 2", "b 22")]
    assert [row["id"] for row in bench.flow_list(q=query).json()["items"]] == [ids[1]]


def test_runflow_list_filters_by_state_and_date(bench):
    """The second spelling joins clauses with AND and compares dates."""
    first = bench.flow().json()
    bench.advance(100)
    second = bench.flow().json()
    done = bench.flow_list(q=f"status_code:succeeded AND created_at<{second['created_at']}").json()["items"]
    assert [row["id"] for row in done] == [first["id"]]
    assert bench.flow_list(q=f"created_at>{second['created_at']}").json()["items"] == []
    for wrong in ("client_ref = 'x'", "nonsense", "cost:1", "created_at>yesterday"):
        assert bench.flow_list(q=wrong).status_code == 400


def test_runflow_list_sorts_pages_and_selects(bench):
    """Newest first by default; pages join without a gap; fields are cut down."""
    ids = []
    for _ in range(5):
        ids.append(bench.flow().json()["id"])
        bench.advance(1)
    assert [row["id"] for row in bench.flow_list().json()["items"]] == ids[::-1]
    page, seen = bench.flow_list(limit=2, sort_by="created_at:asc", fields="id").json(), []
    assert page["previous"] is None
    while True:
        seen += [row["id"] for row in page["items"]]
        assert all(set(row) == {"id"} for row in page["items"])
        if page["next"] is None:
            break
        page = bench.flow_list(limit=2, sort_by="created_at:asc", fields="id", pq=page["next"]).json()
    assert seen == ids
    bench.faults(page_link="url")
    url = bench.flow_list(limit=2).json()["next"]
    assert [row["id"] for row in bench.http.get(url).json()["items"]] == ids[::-1][2:4]
    for wrong in ({"limit": 0}, {"limit": 501}, {"limit": "x"}, {"pq": "x"}, {"sort_by": "cost:asc"}):
        assert bench.flow_list(**wrong).status_code == 400


def test_runflow_list_switches(bench):
    """The filter can be ignored, refused, blind or one-sided, and a new run can show up late."""
    bench.flow(envelope={"client_ref": "one"})
    bench.flow(envelope={"client_ref": "two"})
    found = {}
    for mode in ("ignored", "empty", "eq", "both"):
        bench.faults(list_filter=mode)
        found[mode] = len(bench.flow_list(q="client_ref.EQ:'one'").json()["items"])
    assert found == {"ignored": 2, "empty": 0, "eq": 1, "both": 1}
    for mode in ("refused", "colon"):
        bench.faults(list_filter=mode)
        assert bench.flow_list(q="client_ref.EQ:'one'").status_code == 400
    bench.faults(list_lag_s=5, list_filter="both")
    assert bench.flow_list().json()["items"] == []
    bench.advance(5)
    assert len(bench.flow_list().json()["items"]) == 2


def test_runflow_links_are_signed_expire_and_are_signed_again(bench):
    """A link works until its date; reading the run gives a fresh one; a changed one is refused."""
    bench.faults(link_lifetime_s=60)
    run_id, url = bench.finished("runflow")
    assert "kling_sig=" in url
    assert bench.bare.get(url).status_code == 200
    for wrong in (url[:-1] + "~", url.replace("expires=", "expires=9"), url.split("?", maxsplit=1)[0]):
        assert bench.bare.get(wrong).status_code == 403
    bench.advance(61)
    assert bench.bare.get(url).status_code == 403
    fresh = bench.flow_run(run_id).json()["output"]["outputs"][0]["url"]
    assert fresh != url
    assert bench.bare.get(fresh).status_code == 200


def test_runflow_idempotency_is_a_switch(bench):
    """Off by default: the same key buys twice. On: it replays the answer, or refuses another body."""
    key = {"Idempotency-Key": "k"}
    first = bench.flow(headers=key)
    assert bench.flow(headers=key).json()["id"] != first.json()["id"]
    bench.faults(idempotency="replay")
    fresh = {"Idempotency-Key": "fresh"}
    bought = bench.flow(headers=fresh)
    again = bench.flow(headers=fresh)
    assert (again.status_code, again.json()) == (201, bought.json())
    assert bench.flow(headers=fresh, duration="4").status_code == 409
    stats = bench.stats()
    assert (stats["submissions"], stats["accepted"]) == (5, 3)
    assert stats["runs"][-1]["idempotency_key"] == "fresh"


def test_runflow_money(bench):
    """Audio costs the sandbox's own price; the default of audio and the balance's field are switches."""

    def cost(**given):
        run_id = bench.flow(duration="5", **given).json()["id"]
        bench.advance(100)
        return bench.flow_run(run_id).json()["cost"]

    assert cost(generate_audio=False) == "0.560000"
    assert cost(generate_audio=True) == "0.840000"
    assert cost(generate_audio=None) == "0.560000"
    bench.faults(audio_default="on", cost_factor=2, bill_minimum_s=10)
    assert cost(generate_audio=None) == "3.360000"
    url = f"{bench.sandbox.runflow}/v1/billing/balance"
    assert bench.http.get(url).json() == {"balance": "100.00"}
    bench.faults(balance_form="balance_cents", balance_usd=1.5)
    assert bench.http.get(url).json() == {"balance_cents": 150}


# RunComfy


def test_runcomfy_speaks_two_vocabularies(bench):
    """/status ends in completed where /result ends in succeeded; queue_position is there while queued."""
    answer = bench.comfy()
    body = answer.json()
    run_id = body["request_id"]
    assert answer.status_code == 200
    assert set(body) == {"request_id", "status_url", "result_url", "cancel_url"}
    assert body["status_url"] == f"{bench.sandbox.runcomfy}/v1/requests/{run_id}/status"
    seen = []
    for wait, _ in STEPS:
        bench.advance(wait)
        status = bench.comfy_get(run_id, "status").json()
        result = bench.comfy_result(run_id)
        seen.append((status["status"], result["status"], "queue_position" in status, "output" in result))
    assert seen == [
        ("in_queue", "in_queue", True, False),
        ("in_progress", "in_progress", False, False),
        ("in_progress", "in_progress", False, False),
        ("completed", "succeeded", False, True),
    ]


def test_runcomfy_queue_position_counts_down(bench):
    """The place in the queue only ever gets smaller, and is at least 1."""
    run_id = bench.comfy().json()["request_id"]
    seen = []
    for _ in range(4):
        seen.append(bench.comfy_get(run_id, "status").json()["queue_position"])
        bench.advance(0.3)
    assert seen == sorted(seen, reverse=True)
    assert (seen[0], seen[-1]) == (3, 1)


@pytest.mark.parametrize(
    ("model", "sound", "cost"),
    [
        ("standard", False, 0.252),
        ("standard", True, 0.378),
        ("pro", False, 0.336),
        ("pro", True, 0.504),
        ("pro", None, 0.504),
        ("4k", False, 1.26),
        ("4k", True, 1.26),
    ],
)
def test_runcomfy_bills_by_model_and_sound(bench, model, sound, cost):
    """Each model has its price; a request that does not say has sound and pays for it."""
    run_id = bench.comfy(model=f"kling/kling-3.0/{model}/text-to-video", sound=sound).json()["request_id"]
    bench.advance(100)
    assert "cost" not in bench.comfy_result(run_id)
    assert bench.comfy_result(run_id, include_cost="true")["cost"] == cost
    assert bench.stats()["runs"][0]["audio"] is (sound is not False)


def test_runcomfy_cost_may_come_late_or_never(bench):
    """The cost is told after its lag, or not at all."""
    bench.faults(cost_lag_s=200)
    run_id = bench.comfy().json()["request_id"]
    bench.advance(100)
    assert "cost" not in bench.comfy_result(run_id, include_cost="true")
    bench.advance(200)
    assert bench.comfy_result(run_id, include_cost="true")["cost"] == 0.336
    bench.faults(cost_told="never")
    assert "cost" not in bench.comfy_result(run_id, include_cost="true")


def test_runcomfy_cancels_in_the_queue_only(bench):
    """In the queue the outcome is cancelled, later not_cancellable; both answer 202."""
    early, late = (bench.comfy().json()["request_id"] for _ in range(2))
    url = f"{bench.sandbox.runcomfy}/v1/requests/{{}}/cancel"
    answer = bench.http.post(url.format(early))
    assert answer.status_code == 202
    assert answer.json() == {"request_id": early, "status": "cancelled", "outcome": "cancelled"}
    bench.advance(1.3)
    answer = bench.http.post(url.format(late))
    assert (answer.status_code, answer.json()["outcome"]) == (202, "not_cancellable")
    bench.advance(100)
    states = [bench.comfy_get(run_id, "status").json()["status"] for run_id in (early, late)]
    assert states == ["cancelled", "completed"]
    assert bench.comfy_result(early, include_cost="true").keys().isdisjoint({"output", "cost"})


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"duration": "5"}, ["duration"]),
        ({"duration": 2}, ["duration"]),
        ({"duration": 16}, ["duration"]),
        ({"duration": 5.0}, ["duration"]),
        ({"duration": True}, ["duration"]),
        ({"prompt": None}, ["prompt"]),
        ({"prompt": None, "multi_prompt": [{"prompt": "x", "duration": 3}]}, ["prompt"]),
        ({"cfg_scale": 1.1}, ["cfg_scale"]),
        ({"sound": 1}, ["sound"]),
        ({"aspect_ratio": "16x9"}, ["aspect_ratio"]),
        ({"duration": 5, "multi_prompt": [{"prompt": "x", "duration": 2}]}, ["multi_prompt", 0, "duration"]),
        ({"duration": 5, "multi_prompt": [{"prompt": "x", "duration": 4}]}, ["multi_prompt"]),
        ({"duration": 3, "multi_prompt": [{"prompt": "x", "duration": 3}] * 21}, ["multi_prompt"]),
        ({"multi_prompt": [5]}, ["multi_prompt", 0]),
    ],
)
def test_runcomfy_refuses_wrong_input(bench, given, where):
    """Input outside the contract gets 422 with a detail list naming the place; nothing is created."""
    answer = bench.comfy(**given)
    assert answer.status_code == 422
    assert ["body", *where] in [row["loc"] for row in answer.json()["detail"]]
    assert bench.stats()["accepted"] == 0


def test_silences_are_switches(bench):
    """What the contracts leave open can be set either way."""
    assert bench.comfy(mystery=1).status_code == 200
    assert bench.comfy(negative_prompt="").status_code == 200
    bench.faults(unknown_keys="refuse", duration_type="any", min_shot_s=1, max_prompt=20)
    assert bench.comfy(mystery=1).status_code == 422
    assert bench.comfy(duration="5").status_code == 200
    assert bench.flow(duration=5).status_code == 201
    assert bench.comfy(
        multi_prompt=[{"prompt": "x", "duration": 1}, {"prompt": "y", "duration": 2}]
    ).is_success
    assert bench.comfy(prompt="x" * 21).status_code == 422
    url = f"{bench.sandbox.runcomfy}/v1/models/{RUNCOMFY_MODEL}"
    assert bench.http.post(url, json={"prompt": "x", "aspect_ratio": None}).status_code == 200
    bench.faults(nulls="refuse", empty_prompt="accept")
    assert bench.http.post(url, json={"prompt": "x", "aspect_ratio": None}).status_code == 422
    assert bench.comfy(prompt="").status_code == 200


def test_runcomfy_refusals_have_the_documented_codes(bench):
    """Token 400004, balance 400002, model 400001, unknown request 404001; the status is a switch."""
    poor, bad = bench.client("poor"), bench.client("bad")

    def told(answer):
        return answer.status_code, answer.json()["error_code"]

    assert told(bench.comfy(http=bad)) == (400, 400004)
    assert told(bench.comfy(http=poor)) == (400, 400002)
    assert told(bench.comfy(model="kling/nothing")) == (400, 400001)
    assert told(bench.comfy_get("nope", "status")) == (404, 404001)
    bench.faults(**{"runcomfy.auth_status": "401", "credit_status": "402"})
    assert told(bench.comfy(http=bad)) == (401, 400004)
    assert told(bench.comfy(http=poor)) == (402, 400002)
    bench.faults(credit_status="200")
    assert told(bench.comfy(http=poor)) == (200, 400002)
    assert bench.stats()["accepted"] == 0


def test_runcomfy_catalog_and_balance(bench):
    """The catalog row tells the price and the schema; the balance is in dollars and microdollars."""
    base = bench.sandbox.runcomfy
    row = bench.http.get(f"{base}/v1/models/{RUNCOMFY_MODEL}").json()
    assert (row["base_price_usd"], row["price_unit"]) == (0.112, "second")
    assert row["input_schema"]["required"] == ["prompt"]
    told = bench.http.get(f"{base}/prod/v2/balance").json()
    assert told == {"balance_usd": 100.0, "balance_microdollars": 100_000_000, "currency": "USD"}


# Files, control, process


@pytest.mark.parametrize("wire", ["runflow", "runcomfy"])
def test_files_answer_ranges(bench, wire):
    """A file has a length and an ETag, gives parts, and refuses parts beyond its end."""
    _, url = bench.finished(wire)
    whole = bench.bare.get(url)
    size = len(whole.content)
    assert whole.content[4:8] == b"ftyp"
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["accept-ranges"] == "bytes"
    assert (int(whole.headers["content-length"]), bool(whole.headers["etag"])) == (size, True)
    part = bench.bare.get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{size}"
    rest = bench.bare.get(url, headers={"Range": f"bytes={size - 5}-", "If-Range": whole.headers["etag"]})
    assert rest.content == whole.content[-5:]
    assert bench.bare.get(url, headers={"Range": f"bytes={size}-"}).status_code == 416
    assert bench.bare.head(url).headers["content-length"] == str(size)
    bench.faults(ranges="off")
    plain = bench.bare.get(url, headers={"Range": "bytes=10-19"})
    assert (plain.status_code, len(plain.content)) == (200, size)
    assert "accept-ranges" not in plain.headers


def test_a_token_sent_to_a_file_host_is_counted(bench):
    """Only a download that carries the key counts as a leak."""
    _, url = bench.finished("runcomfy")
    bench.bare.get(url)
    assert bench.stats()["token_leaks"] == 0
    bench.http.get(url)
    stats = bench.stats()
    assert (stats["token_leaks"], stats["downloads"]) == (1, 2)


def test_no_file_before_the_end(bench):
    """A link cannot be guessed before its run has succeeded, nor on the other wire."""
    run_id = bench.comfy().json()["request_id"]
    url = f"{bench.sandbox.url}/media/runcomfy/{run_id}/0.mp4"
    assert bench.bare.get(url).status_code == 404
    bench.advance(100)
    assert bench.bare.get(url).status_code == 200
    assert bench.bare.get(url.replace("/runcomfy/", "/runflow/")).status_code == 404
    assert bench.bare.get(url.replace("/runcomfy/", "/nowhere/")).status_code == 404


def test_stats_tell_what_happened_and_no_key(bench):
    """Counts by wire, every run, and not one key."""
    bench.flow(envelope={"client_ref": "ref-1"})
    bench.comfy(http=bench.client("bad-secret"))
    bench.comfy(http=bench.client("other-secret"))
    stats = bench.stats()
    assert (stats["submissions"], stats["accepted"]) == (3, 2)
    assert stats["wires"]["runcomfy"]["submissions"] == 2
    assert [run["client_ref"] for run in stats["runs"]] == ["ref-1", None]
    assert [run["state"] for run in stats["runs"]] == ["queued", "queued"]
    text = json.dumps(stats)
    assert not any(secret in text for secret in ("good-key", "bad-secret", "other-secret"))


def test_control_routes_change_and_reset(bench):
    """Faults are set live, wrong ones are refused as a whole, reset forgets all."""
    url = f"{bench.sandbox.url}/_sandbox"
    answer = bench.bare.post(f"{url}/faults", json={"submit_500": 1, "submit_50": 1})
    assert answer.status_code == 400
    assert "submit_50'" in answer.json()["error"]
    assert bench.bare.post(f"{url}/faults", content=b"[]").status_code == 400
    assert bench.flow().status_code == 201
    bench.faults(submit_500=1)
    assert bench.flow().status_code == 500
    assert bench.bare.post(f"{url}/reset").status_code == 200
    assert (bench.stats()["submissions"], bench.stats()["runs"]) == (0, [])
    assert bench.flow().status_code == 201


def test_a_prompt_of_any_text_comes_back_as_sent(bench):
    """Lone surrogates, nulls and emoji pass through JSON and the renderer."""
    text = "fox \ud83e\udd8a \x00 \U0001f98a 日本語 \u202e"
    url = f"{bench.sandbox.runflow}/v1/models/{RUNFLOW_MODEL}/runs"
    raw = json.dumps({"input": {"prompt": text, "duration": "3"}}).encode()
    run_id = bench.http.post(url, content=raw).json()["id"]
    bench.advance(100)
    run = bench.flow_run(run_id).json()
    assert run["status_code"] == "succeeded"
    assert run["input"]["prompt"] == json.loads(raw)["input"]["prompt"]


def test_stop_is_prompt_and_leaves_nothing():
    """An idle connection and a hanging request do not hold it up; the folder goes."""
    with Bench(faults={"poll_hang": 1, "hang_s": 60}) as bench:
        bench.http.get(f"{bench.sandbox.runflow}/v1/health")
        folder = bench.sandbox.provider.clips.folder
        assert folder.is_dir()
        with pytest.raises(httpx.ReadTimeout):
            bench.http.get(f"{bench.sandbox.runflow}/v1/runs/x", timeout=httpx.Timeout(10, read=0.2))
        begun = time.monotonic()
        bench.run(bench.sandbox.stop())
        assert time.monotonic() - begun < 30, "the hang is twice as long"
        assert not folder.exists()


def test_a_taken_port_and_a_bad_scale_are_told(bench):
    """Starting on a taken port raises OSError, with a negative scale ValueError."""
    with pytest.raises(OSError, match="in use"):
        Bench(port=bench.sandbox.port).__enter__()
    with pytest.raises(ValueError, match="wait_scale"):
        Bench(wait_scale=-1).__enter__()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_process_prints_one_line_and_stops_on_a_signal(number, tmp_path):
    """One JSON line on stdout when it answers; exit code 0; no folder left behind."""
    command = [sys.executable, "-m", "kling_nb.sandbox", "--wait-scale", "0", "--fault", "submit_500=next:1"]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    ) as process:
        told = json.loads(process.stdout.readline())
        assert set(told) == {"runflow", "runcomfy"}
        assert httpx.get(told["runflow"] + "/v1/health", trust_env=False).json() == {"status": "ok"}
        assert list(tmp_path.glob("kling-nb-sandbox-*"))
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    assert not list(tmp_path.glob("kling-nb-sandbox-*"))


def test_the_judge_shares_no_code_with_the_judged():
    """No file of the sandbox imports kling_nb outside kling_nb.sandbox."""
    found = []
    for path in Path(kling_nb.sandbox.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names = [node.module]
            found += [name for name in names if name.split(".")[0] == "kling_nb"]
    assert found
    assert all(f"{name}.".startswith("kling_nb.sandbox.") for name in found)


def test_runcomfys_pro_takes_one_shot_type(bench):
    """The page of pro names `customize` only, in its schema too; the standard one names both."""
    models = {tier: f"kling/kling-3.0/{tier}/text-to-video" for tier in ("pro", "standard")}
    answers = {tier: bench.comfy(model=name, shot_type="intelligent") for tier, name in models.items()}
    assert {tier: answer.status_code for tier, answer in answers.items()} == {"pro": 422, "standard": 200}
    assert "shot_type" in answers["pro"].text
    assert bench.comfy(model=models["pro"], shot_type="customize").status_code == 200
    assert bench.stats()["accepted"] == 2
