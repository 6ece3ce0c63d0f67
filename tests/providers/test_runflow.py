"""The Runflow adapter against golden wire files, and against any reply at all."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_nb.providers.base import Accepted, Ambiguous, Found, Refused, Snapshot
from kling_nb.providers.parsing import say
from kling_nb.providers.runflow import Runflow
from kling_nb.records.request import make_request
from support.wire_golden import RUN_ID, cases, check, files, outcome
from support.wire_junk import replies

MODEL = "kuaishou/kling-video/v3/pro/text-to-video"
GOLDEN = cases("runflow")


@pytest.mark.parametrize("golden", GOLDEN)
def test_golden(golden):
    """Every documented and every feared answer is read as its file says."""
    check(golden, outcome(Runflow(), golden))


def test_every_golden_file_is_played_and_every_trap_has_one():
    """No file lies unused, and no trap of the contract is without a test."""
    names = {path.stem for path in files("runflow")}
    assert {case.id for case in GOLDEN} == names
    assert all(path.suffix == ".json" for path in files("runflow"))
    assert {m[1] for name in names if (m := re.match(r"trap-(\d)", name))} == set("123456")
    assert len(names) >= 100


def test_calls_stand_on_the_configured_base():
    """A base with a slash at its end gives the same addresses, all below it."""
    provider = Runflow("http://127.0.0.1:9/rf/")
    submit = provider.submit_call(make_request(prompt="fox"), MODEL, client_ref="kn-1")
    calls = (submit, provider.poll_call("a"), *provider.lookup_calls("kn-1"), provider.account_call(MODEL))
    assert len(calls) == 6
    assert all(call.url.startswith("http://127.0.0.1:9/rf/v1/") for call in calls)
    assert [call.paid for call in calls] == [True, False, False, False, False, False]


def test_nothing_can_be_canceled():
    """No status offers a cancel that Runflow does not have."""
    assert not any(Runflow().can_cancel(s) for s in ("created", "queued", "running", "saving"))
    assert Runflow().can_look_up


NAMES = (
    "id output outputs url type cost code message error errors detail loc msg items next client_ref "
    "created_at seed timing nsfw_detected failure_code failure_message"
)
WORDS = "succeeded failed canceled partial_succeeded running odd"


@given(replies(NAMES, "status_code", WORDS))
def test_any_reply_is_read_without_an_exception(reply):
    """Junk never raises, never names another run, and never looks like a proof."""
    provider = Runflow()
    answer = provider.read_submit(reply)
    assert isinstance(answer, Accepted | Refused | Ambiguous)
    if reply.status >= 500:
        assert isinstance(answer, Ambiguous)
    snapshot = provider.read_poll(reply, RUN_ID)
    assert isinstance(snapshot, Snapshot)
    if not reply.ok:
        assert snapshot.state in {"unreadable", "not_found", "wrong_account"}
    found = provider.read_lookup(reply, "kn-1", since="2026-06-01T10:00:00Z")
    assert isinstance(found, Found)
    assert found.more is None or found.more.url == "https://api.runflow.io/v1/runs"
    account = provider.read_account(reply)
    for message in (snapshot.message, account.message, getattr(answer, "message", "")):
        assert len(message) <= 300
        assert message.isprintable()


@given(st.text(max_size=400))
def test_foreign_words_come_out_short_and_clean(text):
    """A message is one printable line of at most 300 characters, whatever the provider writes."""
    line = say(text, 5, None)
    assert line.isprintable()
    assert len(line) <= 300


@pytest.mark.parametrize(
    "text",
    [
        "see https://h.example/a.mp4?X-Amz-Signature=feed",
        "see HTTPS://h.example/a.mp4#token=feed",
        "see //h.example/a.mp4?a=1&sig=feed",
        "see https%3A%2F%2Fh.example%2Fa%3Fsig%3Dfeed",
        '{"u": "https:\\/\\/h.example\\/a?sig=feed"}',
        "Authorization: Bearer feed",
        "invalid key rf_live_feed12345678",
    ],
)
def test_secrets_in_foreign_words_are_left_out(text):
    """A signed query or a key that a provider repeats to us goes no further."""
    assert "feed" not in say(text)
