"""Ctrl-C at any instant: no interrupt leaves the write lock held, and none is swallowed."""

import gc
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from contextlib import closing, suppress

import pytest

from kling_nb import interrupts
from kling_nb.errors import LedgerError
from kling_nb.ledger.database import Ledger
from kling_nb.media.claims import Claims
from kling_nb.records.receipt import to_receipt
from kling_nb.session.claiming import claiming
from support.clips import make_record
from support.warm import run_process
from support.workbench import until


@pytest.fixture
def stepped():
    """A factory of functions called so often as Python takes a step; the steps are counted."""
    old = sys.gettrace()
    # What other tests left behind ends now, and not within a step.
    gc.collect()
    gc.disable()

    def run(work, at=None):
        count = 0

        def step(_frame, _event, _arg):
            nonlocal count
            count += 1
            if count == at:
                signal.raise_signal(signal.SIGINT)
            return step

        def apart():
            sys.settrace(step)
            try:
                work()
            finally:
                sys.settrace(old)
            yield

        # What was being handled as a step raised would stay so in this thread, but ends with a generator.
        next(apart())
        return count

    yield run
    gc.enable()
    sys.settrace(old)


def is_free(where):
    with closing(sqlite3.connect(where, timeout=0, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")


@pytest.mark.parametrize("mode", ["writing", "reading"])
def test_an_interrupt_at_any_step_of_a_transaction_leaves_nothing_held(ledger, where, stepped, mode):
    """Wherever it comes between the `with` and its end, the lock is free at once, and Ctrl-C is delivered."""
    record = make_record(id="kaaaaaaa")
    with ledger.writing() as transaction:
        transaction.insert(record)

    def work():
        with getattr(ledger, mode)() as transaction:
            transaction.get(record.id)
            if mode == "writing":
                transaction.write(record, "again")

    work()
    steps, kept = stepped(work), []
    assert steps > 300
    for at in range(1, steps, 97):
        try:
            stepped(work, at)
        except KeyboardInterrupt as interrupt:
            # A notebook keeps the last traceback, and whatever its frames hold.
            kept.append(interrupt)
        is_free(where)
    assert len(kept) > steps / 97 - 3


def test_an_interrupt_at_any_step_leaves_no_claim(ledger, stepped, tmp_path):
    """One that was left, say without a word in it, would keep its cell waiting for a minute."""
    claims, keys, kept = Claims(tmp_path), ["k1:a", "k1:b"], 0

    def work():
        with claiming(keys, claims, ledger, "host:1"):
            pass

    work()
    steps = stepped(work)
    for at in range(1, steps, 3):
        try:
            # It takes some steps more or fewer each time; one that came is never swallowed.
            assert stepped(work, at) < at
        except KeyboardInterrupt:
            kept += 1
        assert not any(tmp_path.glob(".*"))
    assert kept > steps / 4


def test_an_interrupt_at_any_step_of_a_receipt_arrives_as_one(stepped):
    """pydantic would swallow it, or give an error of its own that no `except KeyboardInterrupt` catches."""
    record, kept = make_record(id="kaaaaaaa"), []
    to_receipt(record)
    steps = stepped(lambda: to_receipt(record))
    assert steps > 300
    for at in range(1, steps, 7):
        try:
            stepped(lambda: to_receipt(record), at)
        except KeyboardInterrupt as interrupt:
            kept.append(interrupt)
    assert len(kept) > steps / 7 - 3


def test_a_fork_is_not_kept_waiting_by_who_comes_later():
    """Two that never leave before the other is there: only who is kept out lets it be empty for once."""
    closed, stop, came = [], threading.Event(), [threading.Event(), threading.Event()]
    gate = interrupts.ForkGate(close=lambda: closed.append(gate.inside))

    def come_and_go(mine, others):
        while not stop.is_set():
            with gate:
                others.clear()
                mine.set()
                others.wait(1)

    threads = [threading.Thread(target=come_and_go, args=order) for order in (came, came[::-1])]
    for thread in threads:
        thread.start()
    assert all(event.wait(20) for event in came)
    interrupts._before()
    interrupts._in_parent()
    stop.set()
    for thread in threads:
        thread.join()
    assert closed == [0]


def test_a_fork_waits_for_who_holds_what_one_inside_needs():
    """Whoever holds a lock of a cache must not wait for the fork, which waits for one that needs the lock."""
    closed, lock, held, inside = [], threading.Lock(), threading.Event(), threading.Event()
    gate = interrupts.ForkGate(close=lambda: closed.append(gate.inside))
    cache = interrupts.ForkGate(close=lambda: None, yields=False)

    def need():
        with gate:
            inside.set()
            with lock:
                pass

    def hold():
        with lock:
            held.set()
            until(lambda: interrupts._forking)
            with cache:
                pass

    threads = [threading.Thread(target=hold), threading.Thread(target=need)]
    for thread, ready in zip(threads, (held, inside), strict=True):
        thread.start()
        assert ready.wait(20)
    interrupts._before()
    interrupts._in_parent()
    for thread in threads:
        thread.join()
    assert closed == [0]


# The steps go on in what is thrown away, whose errors nobody gets.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_at_any_step_of_a_fork_shuts_no_gate_for_ever(stepped, monkeypatch):
    """Python forks all the same when what comes before it, or after it, raises."""
    # Each ledger that another test has left would be closed at each step.
    monkeypatch.setattr(interrupts, "_gates", weakref.WeakSet())
    closed, late = [], 0
    gate = interrupts.ForkGate(close=lambda: closed.append(gate.inside))

    def fork():
        for hook in (interrupts._before, interrupts._in_parent):
            # Of one that comes before the first line holds it, nothing was begun, and nothing can be ended.
            with suppress(KeyboardInterrupt, RuntimeError, AttributeError):
                hook()

    fork()
    steps = stepped(fork)
    for at in range(1, steps):
        closed.clear()
        with suppress(KeyboardInterrupt):
            stepped(fork, at)
        assert not interrupts._changed._is_owned()
        assert not interrupts._forking
        late += closed == [0]
    assert late > steps / 2


ENDED = """
import signal, sys
from kling_nb.interrupts import interrupts_held

signal.signal(signal.SIGINT, getattr(signal, sys.argv[1]))
with interrupts_held():
    signal.raise_signal(signal.SIGINT)
    print("whole", flush=True)
print("went on", flush=True)
"""


@pytest.mark.parametrize(
    ("handler", "words", "code"),
    [("SIG_DFL", "whole\n", -signal.SIGINT), ("SIG_IGN", "whole\nwent on\n", 0)],
)
def test_a_process_that_has_no_handler_ends_after_the_piece_or_not_at_all(handler, words, code):
    """As the system would have it: Python's own handler is no condition."""
    ended = run_process([sys.executable, "-c", ENDED, handler], timeout=20)
    assert (ended.stdout, ended.returncode) == (words, code)


SUBMITS = """
import itertools, sys, time
from pathlib import Path
import kling_nb as kling

kept, names, stop = [], itertools.count(), Path("stop")
done = False
while not done:
    # Two layers: the second catches what comes while the first turns back to its loop.
    try:
        while not done:
            try:
                while not stop.exists():
                    if len(kept) > 5:
                        Path("enough").touch()
                    kling.submit(f"A red fox, number {next(names)}", duration=3, provider="sandbox")
                done = True
            except KeyboardInterrupt as interrupt:
                # A notebook keeps the last traceback, and whatever its frames hold.
                kept.append(interrupt)
    except KeyboardInterrupt as interrupt:
        kept.append(interrupt)
print("interrupted", len(kept) > 5, flush=True)
time.sleep(60)
"""


def test_ctrl_c_held_while_a_cell_submits_locks_nobody_out(where, tmp_path, monkeypatch):
    """Interrupts 33 ms apart to a real process that submits: then every other process can write at once."""
    monkeypatch.setenv("KLING_NB_LEDGER", str(where))
    monkeypatch.setenv("KLING_NB_MEDIA", str(tmp_path / "kling_media"))
    monkeypatch.setenv("KLING_NB_BUDGET", "1000")
    # Its clips never come: nothing but the submits writes.
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "100")
    process = subprocess.Popen(
        [sys.executable, "-c", SUBMITS], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    try:
        while process.poll() is None and not any(tmp_path.glob("kling_media/*number-1*")):
            time.sleep(0.01)
        # Several may come as one, where a step that holds them takes long.
        for number in range(2000):
            if number >= 30 and (tmp_path / "enough").exists():
                break
            process.send_signal(signal.SIGINT)
            time.sleep(0.033)
        (tmp_path / "stop").touch()
        assert process.stdout.readline() == "interrupted True\n"
        until_free(where)
    finally:
        process.kill()
        process.communicate()


def until_free(where):
    """What is held for ever is not free in half a minute either; a driver may be in the middle of a write."""
    with closing(sqlite3.connect(where, timeout=30, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")


def test_a_ledger_that_is_up_to_date_opens_while_another_process_writes(ledger, where):
    """Opening takes no write lock, and reading works: nobody is locked out by who was stopped in a write."""
    with ledger.writing() as transaction:
        transaction.insert(make_record(id="kaaaaaaa"))
    with ledger.writing():
        command = [sys.executable, "-c", OPENS, str(where)]
        started = run_process(command, timeout=20, cwd=where.parent)
    assert (started.stdout, started.returncode) == ("1\n", 0), started.stderr


OPENS = """
import sys
from kling_nb.ledger.database import Ledger
print(len(Ledger(sys.argv[1]).runs()))
"""


def test_a_locked_ledger_says_what_to_do_and_suggests_no_other_one(ledger, where, monkeypatch):
    """A new ledger would forget every cap and every run on its way; nothing is said of what was sent."""
    monkeypatch.setattr("kling_nb.ledger.databases.sqlite._LIMIT_S", 0)
    impatient = Ledger(where)
    with ledger.writing(), pytest.raises(LedgerError, match="locked") as caught:
        impatient.change("kaaaaaaa", "test", message="x")
    impatient.close()
    assert "KLING_NB_LEDGER" not in str(caught.value)
    assert "Nothing was sent" not in str(caught.value)
    assert "end or restart the kernel" in caught.value.cure
