"""The sandbox's bad answers are bad on the bare socket in the way they are named, and a restart is one."""

import contextlib
import json
import socket
import time

import pytest

from kling_nb.sandbox.faults.switches import BODIES
from support.sandbox import RUNCOMFY_MODEL, RUNFLOW_MODEL, WAIT_S

WIRES = ("runflow", "runcomfy")
ID = {"runflow": "id", "runcomfy": "request_id"}


def submit(bench, wire):
    return bench.flow() if wire == "runflow" else bench.comfy()


def poll(bench, wire, run_id):
    return bench.flow_run(run_id) if wire == "runflow" else bench.comfy_get(run_id, "status")


def post_of(wire):
    if wire == "runflow":
        return f"/runflow/v1/models/{RUNFLOW_MODEL}/runs", {"input": {"prompt": "x", "duration": "3"}}
    return f"/runcomfy/v1/models/{RUNCOMFY_MODEL}", {"prompt": "x", "duration": 3}


def written(method, path, body):
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


def raw(bench, method, path, body=b"", timeout_s=WAIT_S):
    """Ask over a bare socket; give head, body and the seconds until the end of the stream."""
    came, begun = b"", time.monotonic()
    with socket.create_connection(("127.0.0.1", bench.sandbox.port), timeout=timeout_s) as line:
        line.sendall(written(method, path, body))
        with contextlib.suppress(ConnectionResetError):
            while part := line.recv(1 << 16):
                came += part
    head, _, body = came.partition(b"\r\n\r\n")
    return head.lower().decode(), body, time.monotonic() - begun


def length_in(head):
    return int(next(line for line in head.split("\r\n") if line.startswith("content-length")).split()[1])


def raw_submit(bench, wire):
    path, body = post_of(wire)
    return raw(bench, "POST", path, json.dumps(body).encode())


def check_body(way, answer, wire):
    """Judge the bytes of one spoilt answer."""
    text = answer.text
    if way == "oversized":
        assert len(answer.content) > 8 << 20
        assert answer.json()[ID[wire]]
    elif way == "deep":
        with pytest.raises(RecursionError):
            json.loads(text)
    elif way == "huge":
        assert "9" * 5000 in text
        assert "1e999" in text
        assert ID[wire] in text
    elif way == "cut":
        assert text.startswith("{")
        with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
            json.loads(text)
    else:
        value = json.loads(text)[ID[wire]]
        assert {"types": isinstance(value, list), "nulls": value is None, "doubled": bool(value)}[way]
        assert way != "doubled" or (ID[wire], None) in json.loads(text, object_pairs_hook=list)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("way", BODIES)
def test_bodies_are_spoilt_as_named(bench, wire, way):
    """Each time with the right status and a true Content-Length; the run was made all the same."""
    ok = 201 if wire == "runflow" else 200
    bench.faults(**{f"submit_{way}": "next:1"})
    answer = submit(bench, wire)
    assert answer.status_code == ok
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.content)
    check_body(way, answer, wire)
    assert bench.stats()["accepted"] == 1
    run_id = submit(bench, wire).json()[ID[wire]]
    bench.faults(**{f"poll_{way}": "next:1"})
    check_body(way, poll(bench, wire, run_id), wire)
    assert poll(bench, wire, run_id).json()[ID[wire]] == run_id
    fired = bench.stats()["fired"]
    assert fired == {f"{wire}.submit_{way}": 1, f"{wire}.poll_{way}": 1}


@pytest.mark.parametrize("wire", WIRES)
def test_a_body_may_be_called_what_it_is_not(bench, wire):
    """Good JSON under the name of a web page."""
    bench.faults(submit_mislabeled=1)
    answer = submit(bench, wire)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.json()[ID[wire]]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(("way", "off_by"), [("overstated", 7), ("understated", -7)])
def test_lengths_may_lie(bench, wire, way, off_by):
    """The whole body comes, whatever its head says, and then the end; for a file too."""
    bench.faults(**{f"submit_{way}": 1})
    head, body, _ = raw_submit(bench, wire)
    assert json.loads(body)[ID[wire]]
    assert length_in(head) == len(body) + off_by
    bench.faults(**{f"submit_{way}": 0})
    _, link = bench.finished(wire)
    size = len(bench.bare.get(link).content)
    bench.faults(**{f"download_{way}": 1})
    head, body, _ = raw(bench, "GET", link.removeprefix(bench.sandbox.url))
    assert (len(body), length_in(head)) == (size, size + off_by)
    bench.faults(**{f"download_{way}": 0, "download_oversized": 1})
    head, body, _ = raw(bench, "GET", link.removeprefix(bench.sandbox.url))
    assert (len(body), length_in(head)) == (size, 3 << 30)


@pytest.mark.parametrize("wire", WIRES)
def test_answers_may_stall_in_the_middle(bench, wire):
    """Half of it comes, the rest never, and the end only after hang_s: submit, poll and file alike."""
    _, link = bench.finished(wire)
    bench.faults(submit_stall="next:1", poll_stall="next:1", download_stall="next:1", hang_s=0.3)
    run = bench.stats()["runs"][0]["id"]
    path = f"/runflow/v1/runs/{run}" if wire == "runflow" else f"/runcomfy/v1/requests/{run}/status"
    answers = [
        raw_submit(bench, wire),
        raw(bench, "GET", path),
        raw(bench, "GET", link.removeprefix(bench.sandbox.url)),
    ]
    for head, body, took_s in answers:
        assert 0 < len(body) < length_in(head)
        assert took_s > 0.25
    assert bench.stats()["accepted"] == 2


@pytest.mark.parametrize("wire", WIRES)
def test_redirects_do_nothing_but_point(bench, wire):
    """To another host or to the same address; nothing is made, and a client that follows would be counted."""
    bench.faults(submit_redirect="next:1", redirect_to="http://127.0.0.1:9/there")
    answer = submit(bench, wire)
    assert (answer.status_code, answer.headers["location"]) == (307, "http://127.0.0.1:9/there")
    bench.faults(submit_redirect_here="next:1")
    answer = submit(bench, wire)
    path, _ = post_of(wire)
    assert (answer.status_code, answer.headers["location"]) == (307, path)
    assert (bench.stats()["submissions"], bench.stats()["accepted"]) == (2, 0)
    _, link = bench.finished(wire)
    bench.faults(download_redirect_here="next:1")
    answer = bench.bare.get(link)
    assert (answer.status_code, answer.headers["location"]) == (307, link.removeprefix(bench.sandbox.url))
    assert bench.bare.get(link, follow_redirects=True).status_code == 200


@pytest.mark.parametrize("wire", WIRES)
def test_words_can_be_put_into_errors_and_results(bench, wire):
    """A message of our choice, with the caller's own secret in it if that is asked for."""
    bench.faults(message="<b>hostile</b>", submit_422="next:1")
    said = submit(bench, wire).text
    assert "<b>hostile</b>" in said
    assert "good-key" not in said
    bench.faults(echo="on")
    run_id, _ = bench.finished(wire)
    bench.faults(poll_500="next:1")
    for answer in (
        poll(bench, wire, run_id),
        bench.flow_run(run_id) if wire == "runflow" else bench.comfy_get(run_id, "result"),
    ):
        assert "<b>hostile</b>" in answer.text
        assert "Authorization: Bearer good-key" in answer.text
        assert "kling_sig=" in answer.text
    bench.faults(echo="off", message="own")
    assert "good-key" not in poll(bench, wire, run_id).text


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("memory", [True, False])
def test_a_restart_closes_connections_and_keeps_runs_or_forgets_them(bench, wire, memory):
    """An answer on its way is lost, the run behind it is known or not, and what is asked next is answered."""
    run_id = submit(bench, wire).json()[ID[wire]]
    bench.faults(submit_hang_after=1, hang_s=2 * WAIT_S)
    path, body = post_of(wire)
    text = json.dumps(body).encode()
    with socket.create_connection(("127.0.0.1", bench.sandbox.port), timeout=WAIT_S) as line:
        line.sendall(written("POST", path, text))
        while bench.stats()["accepted"] < 2:
            time.sleep(0.01)
        answer = bench.bare.post(f"{bench.sandbox.url}/_sandbox/restart", json={"memory": memory})
        assert answer.json() == {"ok": True}
        with contextlib.suppress(ConnectionResetError):
            assert line.recv(1) == b""
    url = f"{bench.sandbox.runflow}/v1/runs/{run_id}"
    if wire == "runcomfy":
        url = f"{bench.sandbox.runcomfy}/v1/requests/{run_id}/status"
    bench.advance(100)
    assert bench.client("good-key").get(url).status_code == (200 if memory else 404)
    stats = bench.stats()
    assert (stats["submissions"], stats["accepted"], len(stats["runs"])) == (2, 2, 2 if memory else 0)


def test_a_restart_must_be_asked_for_rightly(bench):
    """A typing mistake does not forget runs."""
    bench.flow()
    for wrong in ([], {"memory": "no"}, {"memory": 0}):
        assert bench.bare.post(f"{bench.sandbox.url}/_sandbox/restart", json=wrong).status_code == 400
    assert len(bench.stats()["runs"]) == 1
