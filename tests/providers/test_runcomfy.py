"""The RunComfy and sandbox adapters against golden wire files, and against any reply at all."""

import re

import pytest
from hypothesis import given

from kling_nb.errors import UnsupportedError, UsageError
from kling_nb.providers import PROVIDERS, make_provider
from kling_nb.providers.base import Accepted, Ambiguous, Refused, Snapshot
from kling_nb.providers.messages import Reply
from kling_nb.providers.runcomfy import RunComfy
from kling_nb.providers.sandbox import Sandbox
from kling_nb.records.request import make_request
from support.wire_golden import RUN_ID, cases, check, files, outcome
from support.wire_junk import replies

MODEL = "kling/kling-3.0/pro/text-to-video"
GOLDEN = cases("runcomfy")


@pytest.mark.parametrize("golden", GOLDEN)
def test_golden(golden):
    """Every documented and every feared answer is read as its file says."""
    check(golden, outcome(RunComfy(), golden))


def test_every_golden_file_is_played_and_every_trap_has_one():
    """No file lies unused, and no trap of the contract is without a test."""
    names = {path.stem for path in files("runcomfy")}
    assert {case.id for case in GOLDEN} == names
    assert all(path.suffix == ".json" for path in files("runcomfy"))
    assert {m[1] for name in names if (m := re.match(r"trap-(\d)", name))} == set("1234567")
    assert len(names) >= 100


def test_calls_stand_on_the_configured_base():
    """A base with a slash at its end gives the same addresses, all below it; only the submit is paid."""
    provider = RunComfy("http://127.0.0.1:9/rc/")
    submit = provider.submit_call(make_request(prompt="fox"), MODEL, client_ref="kn-1")
    done = Reply(status=200, headers={}, body=b'{"status": "completed"}')
    follow = provider.read_poll(done, "a").follow
    calls = (submit, provider.poll_call("a"), provider.cancel_call("a"), provider.account_call(MODEL), follow)
    assert [call.paid for call in calls] == [True, False, False, False, False]
    assert all(call.url.startswith("http://127.0.0.1:9/rc/v1/") for call in calls)


def test_cancel_only_in_the_queue():
    """A cancel is offered only where RunComfy documents an effect."""
    states = ("created", "submitting", "queued", "running", "saving", "succeeded")
    assert [s for s in states if RunComfy().can_cancel(s)] == ["queued"]
    assert not RunComfy().can_look_up


def test_sandbox_speaks_the_same_wire_under_its_own_name():
    """A play clip cannot pass for a bought one, and short shots can be rehearsed."""
    request = make_request(shots=[{"prompt": "a", "duration": 1}, {"prompt": "b", "duration": 2}])
    sandbox = Sandbox("http://127.0.0.1:8123")
    sandbox.check(request)
    with pytest.raises(UnsupportedError):
        RunComfy().check(request)
    ours = sandbox.submit_call(request, MODEL, client_ref="kn-1")
    theirs = RunComfy("http://127.0.0.1:8123").submit_call(request, MODEL, client_ref="kn-1")
    assert ours == theirs
    assert (sandbox.name, sandbox.media_hosts) == ("sandbox", None)
    assert RunComfy.media_hosts == ("runcomfy.net", "runcomfy.com")


def test_providers_are_made_by_name():
    """Every name makes its adapter at the given base; an unknown one is told the others."""
    assert list(PROVIDERS) == ["runflow", "runcomfy", "sandbox"]
    for name in PROVIDERS:
        assert make_provider(name, "http://127.0.0.1:9").base_url == "http://127.0.0.1:9"
        assert make_provider(name).name == name
    assert make_provider("runcomfy").base_url == "https://model-api.runcomfy.net"
    with pytest.raises(UsageError, match="runflow, runcomfy, sandbox"):
        make_provider("fal")


NAMES = (
    "request_id output video videos url type cost queue_position error error_code error_message code message "
    "detail loc msg created_at outcome base_price_usd price_unit"
)
WORDS = "completed succeeded failed cancelled in_queue in_progress odd"


@given(replies(NAMES, "status", WORDS))
def test_any_reply_is_read_without_an_exception(reply):
    """Junk never raises, never sends us elsewhere, and a bad status never ends a request."""
    provider = RunComfy()
    answer = provider.read_submit(reply)
    assert isinstance(answer, Accepted | Refused | Ambiguous)
    if reply.status >= 500:
        assert isinstance(answer, Ambiguous)
    snapshot = provider.read_poll(reply, RUN_ID)
    assert isinstance(snapshot, Snapshot)
    if not reply.ok:
        assert snapshot.state in {"unreadable", "not_found", "wrong_account", "running"}
    if snapshot.follow is not None:
        assert snapshot.follow.url == f"https://model-api.runcomfy.net/v1/requests/{RUN_ID}/result"
    assert provider.read_cancel(reply) in {"canceled", "not_cancellable", "unknown"}
    for message in (snapshot.message, provider.read_account(reply).message, getattr(answer, "message", "")):
        assert len(message) <= 300
        assert message.isprintable()
