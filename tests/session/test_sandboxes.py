"""A sandbox run outlives its kernel: another sandbox goes on with it, since it follows from its request."""

import socket
import threading
from urllib.parse import urlsplit

from kling_nb.records.request import make_request
from kling_nb.records.run import RunStatus
from kling_nb.session.plan import Ask

FOX = Ask(request=make_request(prompt="A red fox in snow", duration=3))


def test_a_run_goes_on_in_the_next_kernel(make_session):
    """The kernel ends in the middle of a run; the same call in the next one gets the clip of that run."""
    before = make_session(sandbox_wait=60)
    run = before.open(FOX)[0]
    accepted = threading.Event()
    run.on_change(lambda run: run.record.provider_run_id and accepted.set())
    assert run.record.provider_run_id or accepted.wait(60)
    before.close()
    after = make_session(sandbox_wait=0)
    (again,) = after.open(FOX)
    assert again.id == run.id
    assert again.wait(60).status is RunStatus.SUCCEEDED
    assert again.record.provider_run_id == run.record.provider_run_id
    assert again.path.is_file()
    assert len(after.ledger().runs()) == 1


def test_a_sandbox_that_is_still_there_is_left_alone(make_session):
    """While its own kernel lives, a run is nobody else's to go on with, and no foreign port is taken."""
    owner, other = make_session(sandbox_wait=60), make_session()
    record = owner.open(FOX)[0].record.model_copy(update={"provider_run_id": "x" * 8})
    assert not other.sandboxes.take_up(record, 0)
    assert other.sandboxes.running == []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = f"http://127.0.0.1:{listener.getsockname()[1]}/runcomfy"
        assert not other.sandboxes.take_up(record.model_copy(update={"origin": taken}), 0)
    away = record.model_copy(update={"origin": "https://sandbox.example/runcomfy"})
    assert not other.sandboxes.take_up(away, 0)
    assert urlsplit(record.origin).hostname == "127.0.0.1"
