"""The engine's steps and handles: verdicts, waiting, canceling, leases, a disk in trouble."""

import asyncio
import shutil
import signal
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import replace

import psutil
import pytest

from kling_nb.engine.detach import error_of
from kling_nb.engine.run import Run
from kling_nb.engine.runs import Runs
from kling_nb.errors import (
    DetachedError,
    KeyMissingError,
    LedgerError,
    ModeratedError,
    RunCanceledError,
    RunFailedError,
    RunLostError,
    StoreError,
    WaitTimeoutError,
)
from kling_nb.records.request import run_key
from kling_nb.records.run import RunStatus
from support.clips import make_record
from support.leases import claim
from support.paths import TESTS
from support.sessions import ask
from support.stage import QUICK, WIRES, Stage, kinds
from support.workbench import until


# -- verdicts -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("status", "reason", "charged", "kind", "cure"),
    [
        ("lost", None, "unknown", RunLostError, "resolve kl7m2q"),
        ("canceled", "canceled", "no", RunCanceledError, "again"),
        ("canceled", "canceled", "unknown", RunCanceledError, "--retry"),
        ("failed", "moderated", "no", ModeratedError, "Change the prompt"),
        ("failed", "moderated", "unknown", ModeratedError, "Change the prompt"),
        ("failed", "invalid", "no", RunFailedError, "Correct the request"),
        ("failed", "credit", "no", RunFailedError, "Add credit"),
        ("failed", "auth", "no", RunFailedError, "key"),
        ("failed", "provider", "no", RunFailedError, "again"),
        ("failed", "provider", "yes", RunFailedError, "--retry"),
        ("failed", "provider", "unknown", RunFailedError, "--retry"),
        ("failed", "expired", "unknown", RunFailedError, "--retry"),
        ("failed", "expired", "yes", RunFailedError, "--retry"),
    ],
)
def test_every_end_without_a_clip_answers_three_questions(status, reason, charged, kind, cure):
    """What happened, was it charged, what is safe to do now; on one line, with ids as attributes."""
    record = make_record(
        status=RunStatus(status),
        reason=reason,
        charged=charged,
        provider_run_id="p-1",
        message="two\nlines of the provider",
    )
    error = error_of(record)
    assert type(error) is kind
    assert str(error).count("\n") == 0
    assert ".." not in str(error_of(record.model_copy(update={"message": "It ended."})))
    assert f"Charged: {charged}." in str(error)
    assert cure in str(error)
    assert (error.run_id, error.provider, error.provider_run_id) == ("kl7m2q", "runflow", "p-1")
    assert error.charged == charged
    assert getattr(error, "reason", reason) == reason


def test_a_success_and_a_run_on_its_way_have_no_error():
    """Nothing is wrong with them."""
    for status in RunStatus:
        if status.pending or status == RunStatus.SUCCEEDED:
            assert error_of(make_record(status=status)) is None


# -- waiting --------------------------------------------------------------------------
def test_a_wait_that_is_over_leaves_the_run_going(build, wire):
    """WaitTimeoutError is a TimeoutError, says so in words, and the next wait gets the clip."""
    house = build(held=True)
    session = house.session()
    [run] = session.open(ask(provider=wire))
    with pytest.raises(WaitTimeoutError, match=run.id) as caught:
        run.wait(0.3)
    assert isinstance(caught.value, TimeoutError)
    assert "goes on" in str(caught.value)
    assert (run.done, run.error, run.video) == (False, None, None)
    with pytest.raises(WaitTimeoutError):
        run.result(0)
    house.let_go()
    assert run.result(90).path.exists()
    assert house.submissions == 1


def test_await_wakes_and_lets_others_work(build):
    """`await run` and `await runs` in a notebook's loop: other tasks go on, and the end is noticed."""
    house = build(held=True)
    session = house.session()
    runs = Runs(session.open(ask(takes=(0, 1))))
    ticks = []

    async def tick():
        while True:
            ticks.append(1)
            if len(ticks) == 20:
                house.let_go()
            await asyncio.sleep(0.02)

    async def main():
        ticking = asyncio.create_task(tick())
        first = await runs[0]
        every = await runs
        ticking.cancel()
        return first, every

    first, every = asyncio.run(main())
    assert first is runs[0]
    assert every is runs
    assert [run.status for run in every] == ["succeeded"] * 2
    assert len(ticks) >= 20


def test_awaiting_may_be_given_up(build):
    """`asyncio.wait_for` ends the waiting, not the run."""
    house = build(held=True)
    [run] = house.session().open(ask())

    async def main():
        async def waiting():
            await run

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(waiting(), 0.2)

    asyncio.run(main())
    house.let_go()
    assert run.wait(90).status == "succeeded"


@pytest.mark.parametrize("wait", [Run.wait, lambda run: next(run.__await__())], ids=["wait", "await"])
def test_an_interrupt_as_a_wait_begins_is_told_in_words(build, monkeypatch, wait):
    """It may come before the waiting itself, while the run is seen to."""
    session = build(held=True).session()
    [run] = session.open(ask())

    def stop(_run):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(session.engine(), "attend", stop)
        with pytest.raises(KeyboardInterrupt, match=f"Run {run.id} goes on"):
            wait(run)
    assert not run.done


def test_runs_wait_together(build):
    """One limit for all of them."""
    house = build(held=True)
    runs = Runs(house.session().open(ask(takes=(0, 1, 2))))
    with pytest.raises(WaitTimeoutError):
        runs.wait(0.2)
    house.let_go()
    assert len(runs.wait(90).videos) == 3
    assert len(runs[:2]) == 2
    assert isinstance(runs[:2], Runs)


@pytest.mark.parametrize(
    ("faults", "kind"),
    [
        ({"submit_moderated": 1.0}, ModeratedError),
        ({"submit_402": 1.0}, RunFailedError),
        ({"run_canceled": 1.0}, RunCanceledError),
        ({"submit_drop_after": 1.0}, RunLostError),
    ],
)
def test_result_raises_what_became_of_it(build, faults, kind):
    """`result()` gives the clip or raises the end, while `wait()` never raises it."""
    house = build(faults=faults)
    [run] = house.session().open(ask(provider="runcomfy"))
    assert run.wait(90) is run
    with pytest.raises(kind) as caught:
        run.result()
    assert type(caught.value) is type(run.error)
    assert (caught.value.run_id, caught.value.provider) == (run.id, "runcomfy")


def test_a_run_that_was_only_looked_up_is_watched_when_somebody_waits(build):
    """`kling.find(id).wait()` after a restart ends; looking alone asks nobody."""
    house = build(held=True)
    first = house.session()
    [run] = first.open(ask(provider="runflow"))
    until(lambda: run.provider_run_id)
    # Its watcher ends between two reads, so that none is on its way when they are counted.
    run.detach()
    run.wait(90)
    first.close()
    polls = house.stats()["polls"]
    second = house.session()
    found = second.find(run.id)
    assert second.find(run.provider_run_id) is found
    assert [r.id for r in second.runs()] == [run.id]
    time.sleep(0.3)
    assert house.stats()["polls"] == polls
    house.let_go()
    assert found.wait(90).status == "succeeded"
    assert asyncio.run(_awaited(second.find(run.id))).status == "succeeded"
    assert house.submissions == 1


async def _awaited(run):
    return await run


def test_listeners_hear_every_change_and_a_bad_one_harms_nobody(build):
    """The card hangs on these; it is told on the background loop."""
    house = build(held=True)
    [run] = house.session().open(ask())
    heard, threads = [], set()

    def listen(changed):
        heard.append(changed.status)
        threads.add(threading.current_thread().name)

    run.on_change(listen)
    house.let_go()
    assert run.wait(90).status == "succeeded"
    until(lambda: "succeeded" in heard)
    assert threads == {"kling_nb"}


def test_a_listener_that_raises_harms_no_run(build):
    """A fault of a card is not a fault of the run it shows."""
    house = build(held=True)
    [run] = house.session().open(ask())

    def broken(_run):
        raise ZeroDivisionError

    run.on_change(broken)
    house.let_go()
    assert run.wait(90).status == "succeeded"
    assert run.error is None


def test_one_handle_a_run(build):
    """Whoever looks a run up while it is on its way holds the same thing."""
    house = build(held=True)
    session = house.session()
    [run] = session.open(ask())
    assert session.find(run.id) is run
    assert session.runs()[0] is run
    assert session.open(ask())[0] is run
    house.let_go()
    run.wait(90)


def in_order(session, call):
    """Open a call of which one run at a time is in flight; gives the one that was sent first."""
    runs = session.open(call)
    until(lambda: any(run.provider_run_id for run in runs))
    return sorted(runs, key=lambda run: run.provider_run_id is None)


# -- canceling and letting go ------------------------------------------------------------
def test_a_run_that_waits_for_its_turn_is_canceled_for_free(build, wire):
    """Not yet sent, it is never sent: at once, uncharged, its money given back."""
    house = build(held=True)
    session = house.session(max_in_flight=1)
    first, second, third = in_order(session, ask(takes=(0, 1, 2), provider=wire))
    assert second.can_cancel
    assert second.cancel() == "canceled"
    assert not first.done
    assert isinstance(second.error, RunCanceledError)
    assert (second.record.charged, second.record.reserved_micros, second.cost) == ("no", 0, 0)
    house.let_go()
    assert [first.wait(90).status, third.wait(90).status] == ["succeeded"] * 2
    assert house.submissions == 2


def test_a_run_that_waits_for_its_turn_can_be_let_go(build):
    """Stopped before it was sent, it stays on record; running the cell again sends it."""
    house = build(held=True)
    session = house.session(max_in_flight=1)
    first, second = in_order(session, ask(takes=(0, 1)))
    second.detach()
    second.wait(90)
    assert isinstance(second.error, DetachedError)
    assert second.error.charged == "no"
    assert second.status == "created"
    house.let_go()
    first.wait(90)
    assert house.submissions == 1
    [again] = session.open(ask(takes=(second.record.take,)))
    assert again is second
    assert again.wait(90).status == "succeeded"
    assert house.submissions == 2


def test_resuming_never_sends_what_was_not_sent(build, wire):
    """Whoever looks after what others left behind ends it, uncharged, and buys nothing."""
    house = build(held=True)
    session = house.session(max_in_flight=1)
    first, second = in_order(session, ask(takes=(0, 1), provider=wire))
    session.close()
    later = house.session()
    assert later.find(second.id).status == "created"
    house.let_go()
    runs = Runs(later.resume()).wait(90)
    assert {run.id: run.status.value for run in runs} == {first.id: "succeeded", second.id: "canceled"}
    assert later.find(second.id).record.reserved_micros == 0
    assert house.submissions == 1
    again = house.run(later, ask(takes=(second.record.take,), provider=wire))
    assert (again.status, again.record.attempt) == ("succeeded", 2)
    assert house.submissions == 2


def test_resuming_does_not_resend_what_never_arrived(build):
    """Looked up twice and absent: it ends uncharged; only a call of the user's own would send again."""
    house = build(faults={"submit_hang": {"next": 1}, "hang_s": 60})
    session = house.session()
    [run] = session.open(ask(provider="runflow"))
    until(lambda: house.submissions == 1)
    session.engine().close(0)
    session.close()
    later = house.session()
    assert later.find(run.id).status == "submitting"
    [ended] = later.resume()
    assert ended.wait(90).status == "canceled"
    assert "never reached" in ended.record.message
    assert (ended.record.charged, ended.record.reserved_micros) == ("no", 0)
    assert house.stats()["lists"] >= 2
    assert house.submissions == 1


def test_letting_go_and_running_the_cell_again(build, wire):
    """A detached run is watched again by its own cell, as its words promise."""
    house = build(held=True)
    session = house.session()
    [run] = session.open(ask(provider=wire))
    until(lambda: run.provider_run_id)
    run.detach()
    run.wait(90)
    assert run.detached
    assert "run the cell again" in str(run.error)
    [again] = session.open(ask(provider=wire))
    assert again is run
    assert not again.detached
    house.let_go()
    assert again.wait(90).status == "succeeded"
    assert house.submissions == 1


def test_letting_go_and_taking_up_in_one_breath(build):
    """The last wish counts."""
    house = build(held=True)
    [run] = house.session().open(ask(provider="runflow"))
    until(lambda: run.provider_run_id)
    for _ in range(5):
        run.detach()
        run.resume()
    house.let_go()
    assert run.wait(90).status == "succeeded"
    assert run.error is None


def test_a_run_that_is_let_go_can_be_taken_up_before_its_lease_is_back(build):
    """Where the ledger is busy it is let go at once, and a wish to watch it that comes meanwhile counts."""
    house = build(held=True)
    session = house.session(limits=replace(QUICK, lease_s=60))
    [run] = session.open(ask(provider="runflow"))
    # From here on no reading changes anything, so that none has to wait for the ledger.
    until(lambda: run.record.started_at)
    with closing(sqlite3.connect(house.folder / "ledger.db", isolation_level=None)) as book:
        book.execute("BEGIN IMMEDIATE")
        run.detach()
        run.wait(90)
        assert run.detached
        assert session.engine().drives(run.id)
        run.resume()
        book.execute("ROLLBACK")
    assert not run.done
    house.let_go()
    assert run.wait(90).status == "succeeded"
    assert run.error is None
    assert house.submissions == 1


# -- two processes ------------------------------------------------------------------------
SLEEPER = """
import asyncio, signal, sys
from dataclasses import replace
sys.path.insert(0, sys.argv[1])
from support.crash import stop
from support.workbench import QUICK
from kling_nb.engine.limits import Clock
from kling_nb.session.session import Session
from support.sessions import ask
async def sleep(seconds):
    if seconds > 1.2:
        # The provider's wish: nothing else waits for that long.
        stop(signal.SIGSTOP)
    await asyncio.sleep(seconds)
session = Session(engine_options={"limits": replace(QUICK, lease_s=1), "clock": Clock(sleep=sleep)})
[run] = session.open(ask(provider=sys.argv[2]))
print("open", flush=True)
print(run.wait(60).status, flush=True)
"""


def test_a_laptop_that_slept_does_not_send_what_another_process_sent(build, wire):
    """Stopped between two tries and overtaken, it follows the other one when it wakes."""
    house = build(faults={"submit_429_wait": {"next": 1}, "retry_after_s": 1.5})
    house.set(BUDGET=5)
    sleeper = house.start("-c", SLEEPER, str(TESTS), wire)
    until(lambda: psutil.Process(sleeper.pid).status() == psutil.STATUS_STOPPED)
    assert house.submissions == 1
    try:
        other = house.run(house.session(limits=replace(QUICK, lease_s=1)), ask(provider=wire))
        assert other.status == "succeeded"
    finally:
        sleeper.send_signal(signal.SIGCONT)
    code, out, err = house.end(sleeper)
    assert (code, out.split(), err) == (0, ["open", "succeeded"], "")
    assert (house.submissions, house.accepted) == (2, 1)


def test_another_process_follows_a_run_and_sees_its_end(build):
    """While one drives, the other reads the ledger and asks nobody; both see the clip."""
    house = build(held=True)
    first, second = house.session(), house.session()
    [driven] = first.open(ask())
    until(lambda: driven.provider_run_id)
    [followed] = second.open(ask())
    assert followed.reused
    assert followed.id == driven.id
    assert followed is not driven
    house.let_go()
    assert followed.wait(90).status == "succeeded"
    assert followed.path == driven.wait(90).path
    assert house.submissions == 1


def test_closing_gives_the_lease_back(build):
    """After a restart nobody waits for a lease of the kernel that is gone."""
    house = build(held=True)
    first = house.session(limits=replace(QUICK, lease_s=300))
    [run] = first.open(ask())
    until(lambda: run.provider_run_id)
    first.close()
    assert run.detached
    assert "closed" in str(run.error)
    house.let_go()
    assert house.run(house.session(), ask()).status == "succeeded"
    assert house.submissions == 1


def test_closing_does_not_cut_short_how_a_lease_is_given_back(build):
    """Closed in the very moment of a run's end, with the ledger busy: its lease is back all the same."""
    house = build(held=True)
    session = house.session()
    [run] = session.open(ask())
    closed = threading.Event()
    where = house.folder / "ledger.db"
    with closing(sqlite3.connect(where, isolation_level=None, check_same_thread=False)) as other:
        # On the loop, when the end is committed: nothing can be written until this is rolled back.
        run.on_change(lambda run: run.status == "succeeded" and other.execute("BEGIN IMMEDIATE"))

        def close():
            session.close()
            closed.set()

        house.let_go()
        assert run.wait(60).status == "succeeded"
        thread = threading.Thread(target=close)
        thread.start()
        assert not closed.wait(0.3)
        other.execute("ROLLBACK")
        thread.join(60)
    assert closed.is_set()
    with closing(sqlite3.connect(where)) as book:
        assert book.execute("SELECT status, owner FROM runs").fetchall() == [("succeeded", None)]


def test_closing_waits_for_the_answer_to_a_submit(build, wire):
    """An id that is on its way reaches the disk; a kernel that ends in that second loses no run."""
    house = build(held=True, faults={"submit_slow": 1.0, "slow_s": 0.5})
    session = house.session()
    [run] = session.open(ask(provider=wire))
    session.close()
    assert run.provider_run_id
    assert run.record.provider_run_id in next(house.media.glob("*.json")).read_text()
    house.faults(submit_slow=0)
    house.let_go()
    assert house.run(house.session(), ask(provider=wire)).status == "succeeded"
    assert (house.submissions, house.accepted) == (1, 1)


# -- disk and ledger in trouble ---------------------------------------------------------------
def test_a_disk_in_trouble_never_says_that_nothing_was_charged(build, wire):
    """The folder is gone when the clip is ready: paid, not fetched, and fetched for free later."""
    house = build(held=True)
    session = house.session()
    [run] = session.open(ask(provider=wire))
    until(lambda: run.provider_run_id)
    aside = house.media.rename(house.folder / "aside")
    house.media.write_text("a file in its place")
    house.let_go()
    run.wait(90)
    assert run.status == "saving"
    assert isinstance(run.error, StoreError)
    assert run.error.charged == "yes"
    assert "Nothing was sent" not in str(run.error)
    assert f"resume {run.id}" in run.error.cure
    house.media.unlink()
    aside.rename(house.media)
    assert run.resume().wait(90).status == "succeeded"
    assert run.error is None
    assert house.submissions == 1


def test_a_full_disk_at_the_end_is_told_as_paid(build, monkeypatch):
    """Room that ran out while the clip was made is no reason to say that nothing was sent."""
    house = build(held=True)
    session = house.session()
    [run] = session.open(ask())
    until(lambda: run.provider_run_id)
    disk = type(shutil.disk_usage("/"))
    with monkeypatch.context() as full:
        full.setattr("kling_nb.media.disk.shutil.disk_usage", lambda _: disk(1, 1, 1000))
        house.let_go()
        run.wait(90)
    assert (run.status, run.error.charged) == ("saving", "yes")
    assert "MB free" in str(run.error)
    assert "Nothing was sent" not in str(run.error)
    assert run.resume().wait(90).status == "succeeded"


@pytest.fixture
def stage(tmp_path, wire):
    made = Stage(tmp_path, wire, limits=replace(QUICK, lease_s=30))
    yield made
    made.close()


def sql(stage, command):
    with closing(sqlite3.connect(stage.folder / "ledger.db")) as book, book:
        book.execute(command)


def test_nothing_is_sent_that_is_not_on_disk(stage):
    """The ledger breaks just before the submit: no POST leaves, and the handle says why."""
    stage.engine.limits = replace(stage.limits, ledger_tries=3)
    record = stage.record()
    sql(stage, "ALTER TABLE events RENAME TO hidden")
    run = stage.engine.handle(record).wait(90)
    assert isinstance(run.error, LedgerError)
    assert run.error.charged == "no"
    assert stage.stats()["submissions"] == 0
    sql(stage, "ALTER TABLE hidden RENAME TO events")
    assert stage.engine.handle(record).wait(90).status == "succeeded"
    assert stage.stats()["submissions"] == 1


def test_a_run_that_is_asked_for_while_its_last_driver_leaves_is_sent(stage):
    """Whoever only looks after it may get there first; it is sent all the same."""
    stage.engine.limits = replace(stage.limits, ledger_tries=3)
    record = stage.record()
    busy = sqlite3.connect(stage.folder / "ledger.db", check_same_thread=False, isolation_level=None)

    # A connection is for one thread at a time: it is the loop's until then, and this one's afterwards.
    kept = threading.Event()

    def keep_it_from_leaving(run):
        if run.error and not kept.is_set():
            busy.execute("BEGIN IMMEDIATE")
            kept.set()

    with closing(busy):
        sql(stage, "ALTER TABLE events RENAME TO hidden")
        run = stage.engine.handle(record)
        run.on_change(keep_it_from_leaving)
        assert isinstance(run.wait(90).error, LedgerError)
        assert kept.wait(90)
        busy.execute("ALTER TABLE hidden RENAME TO events")
        stage.engine.resume(run)
        stage.engine.handle(record)
        busy.execute("COMMIT")
        assert run.wait(90).status == "succeeded"
    assert stage.stats()["submissions"] == 1


def test_a_run_that_is_waited_for_in_the_moment_it_gets_its_place_is_sent(stage):
    """The wait comes first, and does not end it as one that nobody sends."""
    run = stage.engine.peek(stage.record())
    run.sent_here = True

    async def at_once():
        waiting = asyncio.ensure_future(stage.engine.drive(run, may_send=False))
        stage.engine._places.begin(run)
        await waiting

    stage.loop.start(at_once()).result(90)
    assert run.wait(90).status == "succeeded"
    assert stage.stats()["submissions"] == 1


def test_an_id_that_the_ledger_cannot_take_is_in_the_folder(stage):
    """The ledger breaks while the answer is on its way: the sidecar has the id, the ledger gets it later."""

    def break_it(step):
        if step == "submitting in the ledger":
            sql(stage, "ALTER TABLE events RENAME TO hidden")

    stage.engine.checkpoint = break_it
    run = stage.engine.handle(stage.record())
    [row] = until(lambda: stage.stats()["runs"])
    media = stage.folder / "kling_media"
    until(lambda: any(row["id"] in path.read_text() for path in media.glob("*.json")))
    assert run.provider_run_id is None, "what is not committed is not told"
    sql(stage, "ALTER TABLE hidden RENAME TO events")
    assert run.wait(90).status == "succeeded"
    assert run.provider_run_id == row["id"]
    assert stage.stats()["submissions"] == 1


def test_a_fault_of_ours_ends_as_words_on_the_run(tmp_path):
    """Not as a hung wait, and not in a thread that nobody reads."""

    def broken(_record):
        raise ZeroDivisionError

    stage = Stage(tmp_path, "runflow")
    try:
        engine = stage.new_engine()
        engine._accesses.find = broken
        run = engine.handle(stage.record()).wait(90)
        assert "kling_nb failed" in str(run.error)
        assert "ZeroDivisionError" in str(run.error)
        assert stage.stats()["submissions"] == 0
        engine.close()
    finally:
        stage.close()


def test_a_receipt_tells_of_an_attempt_at_another_provider_that_ended_meanwhile(tmp_path):
    """It is this provider's first one, and yet not the first of its take."""
    stage = Stage(tmp_path, "runcomfy", held=True)
    other = stage.record()
    elsewhere = {
        "provider": "runflow",
        "run_key": run_key(other.request, other.model, "runflow"),
        "status": RunStatus.RUNNING,
    }
    try:
        with stage.ledger.writing() as transaction:
            transaction.write(other.model_copy(update=elsewhere), "sent")
        run = stage.engine.handle(stage.record())
        until(lambda: run.provider_run_id)
        stage.ledger.change(other.id, "failed", status=RunStatus.FAILED, reason="provider", charged="no")
        stage.let_go()
        assert run.wait(60).record.attempt == 1
        assert [attempt.id for attempt in run.record.earlier] == [other.id]
    finally:
        stage.close()


def test_without_its_key_a_run_is_told_and_kept(build):
    """The key is taken away in the middle: the run stays pending, and goes on when the key is back."""
    house = build(held=True)
    session = house.session()
    [run] = session.open(ask(provider="runflow"))
    until(lambda: run.provider_run_id)
    run.detach()
    run.wait(90)
    house.keys()
    run.resume().wait(90)
    assert isinstance(run.error, KeyMissingError)
    assert run.error.run_id == run.id
    assert run.status.pending
    assert run.cancel() == "unknown"
    assert "no key" in run.note
    house.keys("runflow")
    house.let_go()
    assert run.resume().wait(90).status == "succeeded"
    assert house.submissions == 1


@pytest.mark.parametrize("wire", WIRES)
def test_what_is_asked_while_a_run_is_being_put_away_is_done(build, wire):
    """Its clip is gone and asked for again in the very moment of its end: it is fetched, nothing hangs."""
    house = build()
    session = house.session()
    [first] = session.open(ask(provider=wire))
    opened = threading.Event()
    # On the loop, at the end: until the next call is made, the driver cannot put its things away.
    first.on_change(lambda run: run.status == "succeeded" and opened.wait(90))
    first.wait(90).path.unlink()
    [second] = session.open(ask(provider=wire))
    opened.set()
    assert second.wait(90).status == "succeeded"
    assert (second.id, house.submissions) == (first.id, 1)
    until(lambda: not session.engine().drives(first.id))
    assert session.ledger().lease(first.id) is None


def test_whatever_a_run_asks_of_the_ledger_is_a_step_of_its_life(stage, monkeypatch):
    """No claim of what was claimed when it was written down, and no release beside its end."""
    here, asked = stage, []
    record, ask_writer = here.record(), here.ledger.writer.ask
    claim(here.ledger, record.id, here.engine.owner, 600)

    def noted(work, **options):
        asked.append(getattr(work, "func", work).__name__)
        return ask_writer(work, **options)

    monkeypatch.setattr(here.ledger.writer, "ask", noted)
    run = here.engine.handle(record)
    run.wait(60)
    until(lambda: not here.engine.drives(run.id))
    assert run.status is RunStatus.SUCCEEDED
    steps = [name for name in asked if name != "_renew"]
    assert len(steps) == len(kinds(here, run)) - len(["created"])
    with here.ledger.reading() as transaction:
        assert transaction.owner(run.id) is None
