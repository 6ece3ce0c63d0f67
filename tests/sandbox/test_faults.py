"""Every fault happens as it is named: to the wire it names, as often as it says, and really on the socket."""

import json
import socket
import time

import httpx
import pytest

from kling_nb.sandbox.faults.board import Faults, parse_faults
from kling_nb.sandbox.faults.switches import SWITCHES
from support.sandbox import RUNCOMFY_MODEL, RUNFLOW_MODEL, WAIT_S

WIRES = ("runflow", "runcomfy")


def submit(bench, wire):
    return bench.flow() if wire == "runflow" else bench.comfy()


def poll(bench, wire, run_id):
    return bench.flow_run(run_id) if wire == "runflow" else bench.comfy_get(run_id, "status")


def raw_submit(bench, wire):
    """Post over a bare socket; return the bytes that came and whether the end was a reset."""
    if wire == "runflow":
        path, body = f"/runflow/v1/models/{RUNFLOW_MODEL}/runs", {"input": {"prompt": "x", "duration": "3"}}
    else:
        path, body = f"/runcomfy/v1/models/{RUNCOMFY_MODEL}", {"prompt": "x", "duration": 3}
    raw = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\nContent-Length: {len(raw)}\r\n\r\n"
    came = b""
    with socket.create_connection(("127.0.0.1", bench.sandbox.port), timeout=WAIT_S) as line:
        line.sendall(head.encode() + raw)
        while True:
            try:
                part = line.recv(65536)
            except ConnectionResetError:
                return came, True
            if not part:
                return came, False
            came += part


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("style", ["reset", "close"])
@pytest.mark.parametrize("fault_created", [("submit_drop", 0), ("submit_drop_after", 1)])
def test_a_dropped_submit_is_seen_on_the_bare_socket(bench, caplog, wire, style, fault_created):
    """The client gets not one byte, by reset or by end of file, and the run exists or does not, as named."""
    fault, created = fault_created
    bench.faults(**{fault: 1, "drop_style": style})
    assert raw_submit(bench, wire) == (b"", style == "reset")
    stats = bench.stats()
    assert (stats["submissions"], stats["accepted"]) == (1, created)
    assert stats["fired"] == {f"{wire}.{fault}": 1}
    assert caplog.records == []


@pytest.mark.parametrize("wire", WIRES)
def test_a_truncated_answer_ends_before_its_length(bench, wire):
    """Content-Length promises more than comes; the run was created."""
    bench.faults(submit_truncated=1)
    came, reset = raw_submit(bench, wire)
    head, _, body = came.partition(b"\r\n\r\n")
    promised = int(next(line for line in head.lower().split(b"\r\n") if b"content-length" in line).split()[1])
    assert (0 < len(body) < promised, reset) == (True, False)
    assert bench.stats()["accepted"] == 1


@pytest.mark.parametrize("wire", WIRES)
def test_answers_that_cannot_be_read(bench, wire):
    """Junk and a 500 after the fact: each time a run was created."""
    ok = 201 if wire == "runflow" else 200
    bench.faults(submit_junk="next:1")
    answer = submit(bench, wire)
    assert answer.status_code == ok
    with pytest.raises(ValueError, match="Expecting value"):
        answer.json()
    bench.faults(submit_500_after="next:1")
    assert submit(bench, wire).status_code == 500
    assert bench.stats()["accepted"] == 2
    assert submit(bench, wire).status_code == ok


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 422, 429, 500, 502, 503])
def test_every_status_can_be_caused(bench, wire, status):
    """On submit nothing is created; on poll the run lives on; 502 and 503 come as HTML."""
    bench.faults(**{f"submit_{status}": "next:1"})
    answer = submit(bench, wire)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith(
        "text/html" if status in {502, 503} else "application/json"
    )
    assert "retry-after" not in answer.headers
    assert bench.stats()["accepted"] == 0
    made = submit(bench, wire).json()
    run_id = made.get("id") or made["request_id"]
    bench.faults(**{f"poll_{status}": "next:1"})
    assert [poll(bench, wire, run_id).status_code for _ in range(2)] == [status, 200]


@pytest.mark.parametrize("wire", WIRES)
def test_a_429_may_say_how_long_to_wait(bench, wire):
    """Retry-After is there when that is asked for."""
    bench.faults(submit_429_wait=1, retry_after_s=2.5)
    answer = submit(bench, wire)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2.5")


def test_a_200_can_carry_an_error(bench):
    """RunComfy's 200 with error_code creates nothing on submit and breaks one poll."""
    bench.faults(submit_200_error="next:1")
    answer = bench.comfy()
    assert (answer.status_code, answer.json()["error_code"]) == (200, 500001)
    assert bench.stats()["accepted"] == 0
    run_id = bench.comfy().json()["request_id"]
    bench.faults(poll_200_error="next:1")
    assert "error_code" in bench.comfy_get(run_id, "status").json()
    assert "error_code" not in bench.comfy_get(run_id, "status").json()


@pytest.mark.parametrize("fault", ["submit_hang", "submit_hang_after"])
def test_a_hang_ends_in_a_closed_connection(bench, fault):
    """Nothing comes for hang_s, then the connection is closed."""
    bench.faults(**{fault: 1, "hang_s": 0.3})
    begun = time.monotonic()
    assert raw_submit(bench, "runflow") == (b"", True)
    assert time.monotonic() - begun > 0.25
    assert bench.stats()["accepted"] == (fault == "submit_hang_after")


def test_a_client_that_leaves_during_a_hang_does_no_harm(bench, caplog):
    """The server goes on and logs nothing."""
    bench.faults(poll_hang="next:1", hang_s=0.3)
    with pytest.raises(httpx.ReadTimeout):
        bench.http.get(f"{bench.sandbox.runflow}/v1/runs/x", timeout=httpx.Timeout(10, read=0.05))
    time.sleep(0.4)
    assert bench.flow_run("x").status_code == 404
    assert caplog.records == []


@pytest.mark.parametrize("wire", WIRES)
def test_a_client_that_leaves_within_its_request_does_no_harm(bench, caplog, wire):
    """Half of a submit makes no run, and the server logs nothing."""
    path = (
        f"/{wire}/v1/models/{RUNFLOW_MODEL}/runs"
        if wire == "runflow"
        else f"/{wire}/v1/models/{RUNCOMFY_MODEL}"
    )
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\nContent-Length: 99\r\n\r\n"
    with socket.create_connection(("127.0.0.1", bench.sandbox.port), timeout=WAIT_S) as line:
        line.sendall(head.encode() + b"{")
        line.shutdown(socket.SHUT_WR)
        assert line.recv(65536) == b""
    assert submit(bench, wire).is_success
    assert bench.stats()["accepted"] == 1
    assert caplog.records == []


def test_slow_answers_are_still_right(bench):
    """A slow answer comes after slow_s and is whole."""
    bench.faults(submit_slow="next:1", slow_s=0.2)
    begun = time.monotonic()
    assert bench.flow().status_code == 201
    assert time.monotonic() - begun > 0.15


@pytest.mark.parametrize("wire", WIRES)
def test_moderation_at_submit(bench, wire):
    """The prompt is refused with the policy in words; nothing is created."""
    bench.faults(submit_moderated=1)
    answer = submit(bench, wire)
    assert answer.status_code == 422
    assert "content policy" in answer.text
    assert bench.stats()["accepted"] == 0


@pytest.mark.parametrize(
    ("fault", "state", "code"),
    [
        ("run_failed", "failed", "PROVIDER_ERROR"),
        ("run_moderated", "failed", "CONTENT_POLICY"),
        ("run_canceled", "canceled", None),
    ],
)
def test_runflow_runs_that_end_badly(bench, fault, state, code):
    """They end only when their time is over, without output; what they cost is told as 0."""
    bench.faults(**{fault: 1})
    run_id = bench.flow().json()["id"]
    bench.advance(3)
    assert bench.flow_run(run_id).json()["status_code"] == "running"
    bench.advance(100)
    run = bench.flow_run(run_id).json()
    assert (run["status_code"], run["failure_code"], run["output"], float(run["cost"])) == (
        state,
        code,
        None,
        0,
    )
    bench.faults(bill_failed="on")
    assert bench.flow_run(run_id).json()["cost"] == "0.336000"


@pytest.mark.parametrize(
    ("fault", "status", "result"),
    [
        ("run_failed", "completed", "failed"),
        ("run_moderated", "completed", "failed"),
        ("run_canceled", "cancelled", "cancelled"),
    ],
)
def test_runcomfy_runs_that_end_badly(bench, fault, status, result):
    """/status says completed although /result says failed; a reason is told; no cost by default."""
    bench.faults(**{fault: 1})
    run_id = bench.comfy().json()["request_id"]
    bench.advance(100)
    told = bench.comfy_result(run_id, include_cost="true")
    assert (bench.comfy_get(run_id, "status").json()["status"], told["status"]) == (status, result)
    assert {"output", "cost"}.isdisjoint(told)
    assert isinstance(told.get("error"), str) == (result == "failed")
    bench.faults(bill_failed="on")
    assert bench.comfy_result(run_id, include_cost="true")["cost"] == 0.336


@pytest.mark.parametrize("wire", WIRES)
def test_runs_that_behave_oddly(bench, wire):
    """Stuck never ends, slow takes longer, forgotten is 404."""
    word = "status_code" if wire == "runflow" else "status"
    done = "succeeded" if wire == "runflow" else "completed"

    def start(fault):
        bench.faults(**{fault: "next:1"})
        made = submit(bench, wire).json()
        return made.get("id") or made["request_id"]

    stuck, slow, gone = (start(f"run_{kind}") for kind in ("stuck", "slow", "forgotten"))
    assert poll(bench, wire, gone).status_code == 404
    bench.advance(22)
    going = {"running", "in_progress"}
    assert poll(bench, wire, stuck).json()[word] in going
    assert poll(bench, wire, slow).json()[word] in going
    bench.advance(10_000)
    assert poll(bench, wire, stuck).json()[word] in going
    assert poll(bench, wire, slow).json()[word] == done
    if wire == "runflow":
        assert gone not in [row["id"] for row in bench.flow_list().json()["items"]]


@pytest.mark.parametrize("wire", WIRES)
def test_runs_are_unknown_after_their_retention(bench, wire):
    """A provider that keeps runs for a minute answers 404 afterwards."""
    run_id, _ = bench.finished(wire)
    assert poll(bench, wire, run_id).status_code == 200
    bench.faults(retention_s=60)
    assert poll(bench, wire, run_id).status_code == 404


@pytest.mark.parametrize("wire", WIRES)
def test_downloads_that_go_wrong(bench, wire):
    """A cut, an error, a drop: once each, and then the film is there."""
    _, url = bench.finished(wire)
    whole = bench.bare.get(url).content
    bench.faults(download_truncated="next:1")
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
        bench.bare.get(url)
    bench.faults(download_drop="next:1")
    with pytest.raises(httpx.ReadError):
        bench.bare.get(url)
    for status in (403, 404, 500):
        bench.faults(**{f"download_{status}": "next:1"})
        assert bench.bare.get(url).status_code == status
    assert bench.bare.get(url).content == whole


def test_a_trickled_download_is_slow_and_whole(bench):
    """The bytes are the same, only late; a stop does not wait for them."""
    _, url = bench.finished("runcomfy")
    whole = bench.bare.get(url).content
    bench.faults(download_trickle=1, trickle_bytes_s=len(whole) * 2)
    begun = time.monotonic()
    assert bench.bare.get(url).content == whole
    assert time.monotonic() - begun > 0.25
    bench.faults(trickle_bytes_s=100)
    with bench.bare.stream("GET", url) as answer:
        next(answer.iter_raw())
        begun = time.monotonic()
        bench.run(bench.sandbox.stop())
        # The rest of the file would take minutes.
        assert time.monotonic() - begun < 30


@pytest.mark.parametrize("moment", ["list", "cancel"])
def test_lists_and_cancels_have_faults_too(bench, moment):
    """Their faults strike them and leave submit alone."""
    run_id = bench.comfy().json()["request_id"]
    bench.faults(**{f"{moment}_500": 1})
    urls = {"cancel": f"{bench.sandbox.runcomfy}/v1/requests/{run_id}/cancel"}
    answer = bench.flow_list() if moment == "list" else bench.http.post(urls["cancel"])
    assert answer.status_code == 500
    assert bench.comfy_get(run_id, "status").json()["status"] == "in_queue"
    assert bench.flow().status_code == 201


def test_faults_can_be_for_one_wire(bench):
    """A prefix keeps the other wire whole; without one, both share a count."""
    bench.faults(**{"runflow.submit_500": 1})
    assert (bench.flow().status_code, bench.comfy().status_code) == (500, 200)
    bench.faults(submit_500="next:1")
    assert (bench.comfy().status_code, bench.flow().status_code) == (500, 201)


# The switchboard alone


def test_rates_counts_and_skips():
    """0 never, 1 always, a count N times, a skip lets some pass first."""
    faults = Faults({"poll_500": 1, "poll_404": {"next": 2, "skip": 1}})
    assert [faults.fires("runflow", "poll_400") for _ in range(3)] == [False] * 3
    assert [faults.fires("runflow", "poll_500") for _ in range(3)] == [True] * 3
    assert [faults.fires("runflow", "poll_404") for _ in range(5)] == [False, True, True, False, False]
    assert faults.fired == {"runflow.poll_500": 3, "runflow.poll_404": 2}


def test_dice_repeat_with_a_seed_and_keep_the_rate():
    """Equal seeds give equal answers; about a fifth of them fire at 0.2."""

    def throw(seed):
        faults = Faults({"poll_500": 0.2}, seed)
        return [faults.fires("runflow", "poll_500") for _ in range(2000)]

    assert throw(1) == throw(1) != throw(2)
    assert 300 < sum(throw(1)) < 500


def test_command_line_settings():
    """NAME=VALUE is read by the kind of its switch; a bare rate means always."""
    pairs = ["submit_500=0.2", "poll_429=next:3", "runcomfy.drop_style=close", "hang_s=5", "run_failed"]
    assert parse_faults(pairs) == {
        "submit_500": 0.2,
        "poll_429": "next:3",
        "runcomfy.drop_style": "close",
        "hang_s": 5.0,
        "run_failed": 1.0,
    }
    assert parse_faults([]) == {}


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("submit_50=1", "Did you mean"),
        ("nonsense=1", "submit_drop_after"),
        ("both.submit_500=1", "unknown fault"),
        ("=1", "unknown fault"),
        ("submit_500=1.5", "rate from 0 to 1"),
        ("submit_500=-1", "rate from 0 to 1"),
        ("submit_500=nan", "rate from 0 to 1"),
        ("submit_500=often", "rate from 0 to 1"),
        ("submit_500=next:x", "rate from 0 to 1"),
        ("hang_s=-1", "number from 0 up"),
        ("hang_s=inf", "number from 0 up"),
        ("drop_style=circle", "reset, close"),
        ("redirect_to=", "a word"),
        ("play=nowhere.json", "cannot be read"),
    ],
)
def test_wrong_settings_are_told_clearly(pair, words):
    """An unknown name lists the known ones; a bad value says what would do."""
    with pytest.raises(ValueError, match=words):
        parse_faults([pair])


def test_a_wrong_setting_changes_nothing():
    """Either all settings hold or none."""
    faults = Faults()
    with pytest.raises(ValueError, match="unknown fault"):
        faults.set({"poll_500": 1, "no_such": 1})
    assert not faults.fires("runflow", "poll_500")


def test_every_switch_explains_itself_and_every_default_is_allowed():
    """Each row of the list has words, and its default is a value it would accept."""
    assert len(SWITCHES) > 100
    for switch in SWITCHES.values():
        assert len(switch.about) > 10
        for wire in WIRES:
            Faults({f"{wire}.{switch.name}": switch.start(wire)})
