"""The background loop: off the notebook's thread, in an empty context, at work to the very end."""

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
from collections import Counter
from functools import partial

import pytest

from kling_nb.loop import Loop, _DaemonExecutor, run_sync
from support.workbench import until

CELL = contextvars.ContextVar("CELL", default="none")


def run_script(code, timeout_s=30):
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout_s,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_it_starts_on_first_use_and_never_on_the_callers_thread():
    """One daemon thread carries everything; a script that never needs it has none."""
    loop = Loop()
    assert not loop.running

    async def where():
        return threading.current_thread()

    threads = {loop.start(where()).result(90) for _ in range(5)}
    assert loop.running
    assert len(threads) == 1
    [thread] = threads
    assert thread.daemon
    assert thread is not threading.current_thread()


def test_work_is_handed_over_in_an_empty_context():
    """Its output belongs to no cell."""

    async def cell():
        return CELL.get()

    CELL.set("cell 7")
    assert Loop().start(cell()).result(90) == "none"
    assert CELL.get() == "cell 7"


def test_a_blocked_caller_does_not_stop_it():
    """A cell that blocks freezes no run."""
    ticked = threading.Event()

    async def tick():
        for _ in range(20):
            await asyncio.sleep(0.01)
        ticked.set()

    Loop().start(tick())
    assert ticked.wait(90)


def test_it_knows_whether_it_is_asked_on_itself():
    """Blocking there would be a deadlock, so callers can find out."""
    loop = Loop()

    async def here():
        return loop.here

    assert loop.start(here()).result(90) is True
    assert loop.here is False

    async def elsewhere():
        return loop.here

    assert asyncio.run(elsewhere()) is False


def test_a_failure_comes_back_to_who_asked():
    """Whatever it is."""

    async def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Loop().start(fail()).result(90)


def test_blocking_doors_wait_in_threads_of_their_own():
    """Sixteen at a time, however small the machine; more wait their turn, and failures come back."""
    loop = Loop()
    threads = set()
    # Opens only for sixteen of them at once.
    gate = threading.Barrier(16)

    def block():
        gate.wait(90)
        threads.add(threading.current_thread())
        return threading.current_thread().daemon

    async def all_of_them():
        return await asyncio.gather(*(asyncio.to_thread(block) for _ in range(48)))

    assert loop.start(all_of_them()).result(60) == [True] * 48
    assert len(threads) == 16

    async def fail():
        await asyncio.to_thread(lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        loop.start(fail()).result(90)


def test_a_failure_that_no_future_takes_holds_up_nobody():
    """Of many Pythons that is a StopIteration: it comes back as another one, beside what else was done."""

    async def all_of_them():
        acts = [partial(next, iter(())), int] * 20
        done, waiting = await asyncio.wait(
            [asyncio.ensure_future(asyncio.to_thread(act)) for act in acts], timeout=30
        )
        return len(waiting), Counter(type(task.exception()) for task in done)

    waiting, ends = Loop().start(all_of_them()).result(90)
    assert waiting == 0
    assert ends[type(None)] == ends[TypeError] + ends[RuntimeError] == 20


def test_threads_are_made_when_they_are_needed():
    """Forty calls one after the other are made by a few threads, which wait for more."""
    names = set()

    async def one_by_one():
        for _ in range(40):
            names.add(await asyncio.to_thread(lambda: threading.current_thread().ident))

    Loop().start(one_by_one()).result(90)
    assert 1 <= len(names) < 16


def test_there_are_more_threads_only_where_some_are_stuck():
    """Each keeps the memory of what it did: many short acts are done by four; a hung one holds up nobody."""
    now, gate, done = [0.0], threading.Event(), []
    hands = _DaemonExecutor(6, lambda: now[0])

    def threads():
        return len(hands._working)

    def all_begun():
        until(lambda: len(hands._begun) == threads())

    def append(number):
        hands.submit(done.append, number).result(90)
        # The result is told before its thread is free.
        until(lambda: hands._wanted == len(blocked))

    blocked = [hands.submit(gate.wait, 90) for _ in range(3)]
    for number in range(9):
        append(number)
    assert threads() == 4
    until(lambda: len(hands._begun) == len(blocked))
    now[0] = 1.0
    # Three are stuck; the fourth does what it is given until it is stuck too.
    append(9)
    assert (done, threads()) == ([*range(10)], 4)
    blocked += [hands.submit(gate.wait, 90) for _ in range(2)]
    assert threads() == 5
    all_begun()
    append(10)
    assert threads() == 6
    blocked += [hands.submit(gate.wait, 90) for _ in range(9)]
    now[0] = 2.0
    blocked.append(hands.submit(gate.wait, 90))
    assert threads() == 6
    gate.set()
    assert all(one.result(90) is not False for one in blocked)


LATE = """
import asyncio, atexit, sys
from kling_nb.loop import Loop
loop = Loop()
async def late():
    await asyncio.sleep(0.2)
    return await asyncio.to_thread(lambda: "on disk")
begun = loop.start(late())
@atexit.register
def end():
    print(begun.result(90), loop.start(late()).result(90))
"""


def test_work_for_the_disk_is_done_while_the_interpreter_ends():
    """The library's own pool refuses by then, and an id that was paid for would be lost."""
    assert run_script(LATE) == (0, "on disk on disk\n", "")


NESTED = """
import asyncio
from kling_nb.loop import Loop, run_sync
loop = Loop()
async def inner():
    await asyncio.sleep(0.01)
    return 20
async def cell():
    # What a notebook does: its loop already runs, and the cell calls a plain function.
    return run_sync(inner()) + run_sync(inner())
async def other():
    await asyncio.sleep(0.01)
    return await asyncio.to_thread(lambda: 2)
before = loop.start(other()).result(90)
print(asyncio.run(cell()) + before, loop.start(other()).result(90), asyncio.run(inner()))
"""


def test_run_sync_works_where_a_loop_already_runs_and_harms_no_other():
    """nest_asyncio is applied on that call only, and the background loop does not mind."""
    assert run_script(NESTED) == (0, "42 2 20\n", "")


def test_run_sync_is_plain_where_no_loop_runs():
    """No patch is applied, and failures come out as they are."""

    async def answer():
        return 42

    async def fail():
        raise ZeroDivisionError

    assert run_sync(answer()) == 42
    with pytest.raises(ZeroDivisionError):
        run_sync(fail())
    assert "nest_asyncio" not in sys.modules


class ForeignLoop(asyncio.AbstractEventLoop):
    """A loop that is not asyncio's own, as uvloop's is not: `nest_asyncio` cannot patch it."""


def test_run_sync_works_inside_a_loop_that_cannot_be_patched():
    """The coroutine runs on a loop of its own, in its caller's context; failures come out as they are."""

    async def answer():
        await asyncio.sleep(0)
        return CELL.get()

    async def fail():
        raise ZeroDivisionError

    CELL.set("cell 8")
    # What `asyncio` does around each step of a loop; a real uvloop is tried in the matrix.
    asyncio._set_running_loop(ForeignLoop())
    try:
        assert run_sync(answer()) == "cell 8"
        with pytest.raises(ZeroDivisionError):
            run_sync(fail())
    finally:
        asyncio._set_running_loop(None)


UVLOOP = """
import asyncio, uvloop, kling_nb as kling
async def inner():
    await asyncio.sleep(0.01)
    return 42
async def main():
    return kling.run_sync(inner())
print(uvloop.run(main()))
"""


@pytest.mark.matrix
def test_run_sync_works_under_uvloop(tmp_path, monkeypatch):
    """With the real package, and no word of a coroutine that was never awaited."""
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--target", str(tmp_path)]
    subprocess.run([*pip, "uvloop==0.23.0"], check=True, timeout=300)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    assert run_script(UVLOOP) == (0, "42\n", "")


def test_importing_applies_no_patch():
    """A user's asyncio stays as it is until he asks for `run_sync`."""
    code = (
        "import asyncio, sys; run = asyncio.run\nimport kling_nb as kling\nkling.TextToVideo(prompt='x')\n"
        "kling.run_sync\nprint(asyncio.run is run, 'nest_asyncio' in sys.modules)"
    )
    assert run_script(code) == (0, "True False\n", "")
