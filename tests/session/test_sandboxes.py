"""Which sandbox runs another kernel goes on with, and which it leaves alone."""

import socket
import threading
from urllib.parse import urlsplit

from kling_nb.records.request import make_request
from kling_nb.session.plan import Ask
from support.workbench import until

FOX = Ask(request=make_request(prompt="A red fox in snow", duration=3))


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


def test_play_takes_the_shots_that_its_adapter_lets_through(make_session):
    """A storyboard of one second and two is none that only the sandbox itself would refuse."""
    shots = [{"prompt": "A fox wakes", "duration": 1}, {"prompt": "It runs", "duration": 2}]
    (run,) = make_session().open(Ask(request=make_request(shots=shots, duration=3)))
    assert run.wait(60).status == "succeeded"


def test_a_sandbox_starts_while_the_loop_wants_the_ledger(make_session):
    """It starts on that loop: a lock that both wanted stopped everything in the kernel for ever."""
    session, go = make_session(), threading.Event()

    async def look():
        go.wait(60)
        return session.ledger()

    looking = session.loop.start(look())
    thread = threading.Thread(target=session.sandbox_url, args=(session.settings(),), daemon=True)
    thread.start()
    until(session.sandboxes._lock.locked)
    go.set()
    assert looking.result(60) is session.ledger()
    thread.join(60)
    assert len(session.sandboxes.running) == 1
