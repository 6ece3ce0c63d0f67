"""Golden wire files: what a provider says, and what its adapter must make of it.

A file holds `source` (which public document, and its date where it has one), `confidence` (H, M or L),
`note`, `call` (which step), `ask` (what was asked), then `reply` (`status`, `headers`, and `body` as JSON or
`text` as it stands) or `request` (the exact call), and `expect`.
"""

import json
from dataclasses import asdict, is_dataclass

import pytest

from kling_nb.errors import KlingError
from kling_nb.providers.messages import Reply
from kling_nb.records.request import make_request
from support.paths import TESTS

RUN_ID = "0192f0c1-7c1e-7abc-8def-001122334455"
HERE = TESTS / "wire"
KEYS = {"source", "confidence", "note", "call", "ask", "request", "reply", "expect"}
EXPECT_KEYS = {"type", "fields", "says", "hides", "value", "urls", "more", "follow"}


def files(provider):
    """Every golden file of a provider; beside them are the variants of whole runs."""
    return sorted(path for path in (HERE / provider).iterdir() if path.name != "variants")


def cases(provider):
    """Every golden file of a provider as a test case, checked for its shape."""
    return [pytest.param(load(path), id=path.stem) for path in files(provider)]


def load(path):
    golden = json.loads(path.read_text(encoding="utf-8"))
    assert golden.keys() <= KEYS, path
    assert {"source", "confidence", "note", "call", "expect"} <= golden.keys(), path
    assert golden["confidence"] in {"H", "M", "L"}, path
    assert golden["source"], path
    assert "request" in golden or golden["expect"], path
    assert golden["expect"].keys() <= EXPECT_KEYS, path
    return golden


def reply_of(golden):
    made = golden["reply"]
    text = made["text"] if "text" in made else json.dumps(made["body"])
    return Reply(status=made["status"], headers=made.get("headers", {}), body=text.encode())


def outcome(provider, golden):
    """Play a golden file: build the call it asks for, or read the reply it holds."""
    ask, call = golden.get("ask", {}), golden["call"]
    try:
        if "reply" in golden:
            return _read(provider, call, ask, reply_of(golden))
        return _build(provider, call, ask)
    except KlingError as error:
        return error


def _build(provider, call, ask):
    if call == "submit":
        request = make_request(**ask["request"])
        provider.check(request)
        return provider.submit_call(
            request, ask["model"], client_ref=ask["client_ref"], metadata=ask.get("metadata")
        )
    if call == "lookup":
        return provider.lookup_calls(ask["client_ref"])
    if call == "account":
        return provider.account_call(ask["model"])
    return {"poll": provider.poll_call, "cancel": provider.cancel_call}[call](ask.get("run_id", RUN_ID))


def _read(provider, call, ask, reply):
    if call == "poll":
        return provider.read_poll(reply, ask.get("run_id", RUN_ID))
    if call == "lookup":
        return provider.read_lookup(reply, ask["client_ref"], since=ask["since"])
    return {
        "submit": provider.read_submit,
        "cancel": provider.read_cancel,
        "account": provider.read_account,
    }[call](reply)


def check(golden, got):
    """Assert that what the adapter made of a golden file is what the file expects."""
    expect = golden["expect"]
    if "request" in golden:
        calls = got if isinstance(got, tuple) else (got,)
        wanted = golden["request"] if isinstance(golden["request"], list) else [golden["request"]]
        assert [_plain(call) for call in calls] == [
            {"json": None, "headers": {}, "params": {}, "paid": False, **want} for want in wanted
        ]
    if "type" in expect:
        assert type(got).__name__ == expect["type"]
    if "value" in expect:
        assert got == expect["value"]
    plain = _plain(got)
    _subset(expect.get("fields", {}), plain)
    snapshot = plain.get("snapshot", plain) if isinstance(plain, dict) else {}
    for name in ("follow", "more"):
        if name in expect:
            assert (snapshot[name] and {k: snapshot[name][k] for k in ("url", "params")}) == expect[name]
    if "urls" in expect:
        assert list(snapshot["video_urls"]) == expect["urls"]
    words = str(got) if isinstance(got, KlingError) else str(getattr(got, "message", ""))
    assert "\n" not in words
    assert len(words) <= 500
    for text in expect.get("says", []):
        assert text in words
    for text in expect.get("hides", []):
        assert text not in repr(got)


def _plain(got):
    return asdict(got) if is_dataclass(got) else got


def _subset(want, got):
    for name, value in want.items():
        if isinstance(value, dict):
            _subset(value, got[name])
        else:
            actual = got[name]
            assert (list(actual) if isinstance(actual, tuple) else actual) == value, name
