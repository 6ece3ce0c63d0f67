"""Who waits on a shared ledger is woken by it: what is counted is looks, and none of them is by the clock."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import procrastinate
import pytest

import kling_nb as kling
from kling_nb.engine import leases
from kling_nb.engine.polling.callbacks import Callbacks
from kling_nb.errors import LedgerError
from kling_nb.ledger.database import Ledger
from kling_nb.ledger.databases import changes
from kling_nb.ledger.databases.changes import CALLED
from kling_nb.ledger.databases.statements import run_statement
from kling_nb.ledger.places import Seeker, place_key, take
from kling_nb.ledger.work.queue import forget
from kling_nb.records.base import utc_now
from kling_nb.records.run import RunStatus, unsent_end
from kling_nb.session import api
from kling_nb.team import worker as workers
from support.clips import make_record
from support.databases import in_postgresql, is_postgresql, look, new_place, opened, spoil
from support.workbench import until

LIMITED = {"runflow.submit_429_wait": "next:1", "retry_after_s": 3600}


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request, tmp_path):
    """The place of a ledger."""
    with new_place(request, tmp_path / "ledger") as found:
        yield found


@pytest.fixture
def house(build, where):
    made = build()
    made.set(BUDGET=1000, LEDGER=where)
    return made


@pytest.fixture
def kernel(house, monkeypatch):
    """The session of the calls."""
    session = house.session()
    monkeypatch.setattr(api, "_session", session)
    return session


@pytest.fixture
def no_clock(monkeypatch):
    """Once the ledger tells of changes nothing is looked at by the clock, and nothing put off comes back."""
    monkeypatch.setattr(changes, "_LOOK_S", 600)
    monkeypatch.setattr(workers, "_REST_S", 600)


class Looking(workers.Worker):
    """A worker that counts its looks."""

    def __init__(self, session, *, until_empty=True):
        self.looks, self.said = 0, []
        super().__init__(session, until_empty=until_empty, max_time_s=120, say=self.said.append)

    def stop_after(self, ledger, run):
        """Stop it from another thread once a run has its clip."""
        until(lambda: ledger.get(run.id).status is RunStatus.SUCCEEDED)
        self._loop.call_soon_threadsafe(self._stop)

    def _look(self):
        self.looks += 1
        return super()._look()


@contextmanager
def meanwhile(work):
    """Do something on a thread while this one is busy; it must have come to its end."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        yield
        done.result(60)


def submit(take_number, wire="runflow"):
    return kling.submit("A hare", take=take_number, duration=3, provider=wire, detached=True)


def hold(ledger, run):
    """Have another kernel send a run that is left to workers, and never end it."""
    with ledger.writing() as transaction:
        owned = "UPDATE runs SET owner = 'other', owned_until = '2999-01-01T00:00:00+00:00' WHERE id = ?"
        run_statement(transaction.connection, owned, (run.id,))
        take(transaction, run.id, Seeker(place_key(run.record), "other", 1), "")
        forget([run.id], transaction.connection)
        transaction.change_as("other", run.id, "sent", {"status": RunStatus.QUEUED, "provider_run_id": "x"})


@contextmanager
def writings(where):
    """What changes with every transaction of others that writes."""
    with opened(where) as connection:
        query = "SELECT sum(number) FROM writings" if is_postgresql(where) else "PRAGMA data_version"
        yield lambda: connection.execute(query).fetchone()


@in_postgresql
def test_a_worker_that_waits_for_a_place_is_woken_when_it_comes_free(house, kernel, no_clock):
    """And at the end of what others do; looks are no more than there were changes."""
    house.set(MAX_IN_FLIGHT=1)
    first, _ = submit(0), submit(1)
    hold(kernel.ledger(), first)
    session = house.session()
    worker, before = Looking(session), []

    def leave():
        until(lambda: worker.looks and session.ledger().changes._listening)
        before.append(worker.looks)
        with kernel.ledger().writing() as transaction:
            transaction.change(transaction.known(first.id), "over", unsent_end(RunStatus.CANCELED, "by hand"))

    with meanwhile(leave):
        worker.run()
    assert not worker._over(), worker.said
    assert house.submissions == 1
    # Six states, two rows that went, two places, and twice its own.
    assert worker.looks - before[0] <= 12


def test_a_worker_that_finds_nothing_to_send_writes_nothing(house, kernel, where, monkeypatch):
    """However often it looks whether a place came free: all who write to a ledger wait for each other."""
    house.set(MAX_IN_FLIGHT=1)
    first, _ = submit(0), submit(1)
    hold(kernel.ledger(), first)
    kernel.close()  # it writes while it follows its runs
    monkeypatch.setattr(changes, "_LOOK_S", 0)
    worker, wrote = Looking(house.session()), []

    def look_on():
        with writings(where) as seen:
            until(lambda: worker.looks)
            wrote.append(seen())
            until(lambda: worker.looks >= 5)
            wrote.append(seen())
        worker._loop.call_soon_threadsafe(worker._stop)

    with meanwhile(look_on):
        worker.run()
    assert wrote[0] == wrote[1]
    assert worker.said[-1].endswith("2 runs of the ledger not ended: 1 not sent, 1 on their way.")


@in_postgresql
@pytest.mark.parametrize("held", [True, False])
def test_a_kernel_that_follows_a_run_of_others_writes_nothing(house, kernel, where, monkeypatch, held):
    """However often it looks whether it may drive it now, also where nobody has had it for a whole lease."""
    monkeypatch.setattr(leases, "_LOOK_S", 0.01)
    monkeypatch.setattr(changes, "_LOOK_S", 0)
    reader, looks = kernel.ledger().reader, []
    monkeypatch.setattr(reader, "ask", lambda work, ask=reader.ask: looks.append(work) or ask(work))
    if held:
        hold(kernel.ledger(), submit(0))
    else:
        monkeypatch.setattr(kernel.engine(), "limits", replace(kernel.engine().limits, lease_s=0.001))
        submit(0)
    until(lambda: len(looks) > 5)
    with writings(where) as seen:
        wrote, before = seen(), len(looks)
        until(lambda: len(looks) >= before + 5)
        assert seen() == wrote


@in_postgresql
def test_a_worker_that_waits_for_nothing_is_woken_by_new_work_alone(house, kernel, where, no_clock):
    """Twenty of them look at nothing while another one's runs move."""
    first = submit(0)
    hold(kernel.ledger(), first)
    session = house.session()
    worker, told = Looking(session, until_empty=False), []

    def looks():
        """How many there were, once none follows from what it was told so far."""

        async def count():
            return None if worker._timer or worker._waits else worker.looks

        passed = threading.Event()
        session.loop.call(passed.set)
        assert passed.wait(60)
        return until(lambda: asyncio.run_coroutine_threadsafe(count(), worker._loop).result(60))

    def move():
        listening = session.ledger().changes
        until(lambda: worker.looks and listening._listening)
        before = looks()
        watched = listening.watched("said last", lambda: told.append(1))
        watching = ExitStack()
        session.loop.call(watching.enter_context, watched)
        until(lambda: told)
        for status in ("running", "queued") * 3:
            spoil(where, "UPDATE runs SET status = ? WHERE id = ?", status, first.id)
        spoil(where, "SELECT pg_notify('kling_nb ' || hashtext(current_schema()), 'said last')")
        until(lambda: len(told) == 2)
        assert looks() == before
        second = submit(1)
        worker.stop_after(kernel.ledger(), second)

    with meanwhile(move):
        worker.run()
    assert house.submissions == 1


@in_postgresql
def test_work_for_an_account_with_places_does_not_wait_for_that_of_a_full_one(house, kernel, no_clock):
    """A worker that waits for a place leaves the queue to others, and is told of new work all the same."""
    house.set(MAX_IN_FLIGHT=1)
    first, _ = submit(0), submit(1)
    hold(kernel.ledger(), first)
    session = house.session()
    worker = Looking(session)

    def add():
        until(lambda: worker.looks and session.ledger().changes._listening and not worker._timer)
        other = submit(2, "runcomfy")
        worker.stop_after(kernel.ledger(), other)

    with meanwhile(add):
        worker.run()
    assert house.submissions == 1


@in_postgresql
def test_what_a_worker_gave_back_is_had_by_one_that_waits_for_nothing(house, kernel, where, no_clock):
    """At once: it is not left to the next look by the clock."""
    run = submit(0)
    spoil(where, "UPDATE runs SET owner = 'stopping', owned_until = '2999-01-01T00:00:00+00:00'")
    session = house.session()
    worker = Looking(session, until_empty=False)

    def give_back():
        until(lambda: worker.looks and session.ledger().changes._listening and not worker._timer)
        kernel.ledger().release(run.id, "stopping")
        worker.stop_after(kernel.ledger(), run)

    with meanwhile(give_back):
        worker.run()
    assert house.submissions == 1


@in_postgresql
@pytest.mark.timeout(60)
def test_a_worker_stops_where_its_queue_does_not_hear_the_first_cancel(house, kernel, monkeypatch):
    """As on Python 3.11, where one that comes as a connection answers is lost."""
    kernel.ledger()
    monkeypatch.setattr(workers, "_CANCEL_S", 0.1)
    listen, begun = procrastinate.App.run_worker_async, threading.Event()

    async def deaf(app, **options):
        with suppress(asyncio.CancelledError):
            begun.set()
            await asyncio.Event().wait()
        await listen(app, **options)

    monkeypatch.setattr(procrastinate.App, "run_worker_async", deaf)
    worker = Looking(house.session(), until_empty=False)

    def stop():
        assert begun.wait(30)
        worker._loop.call_soon_threadsafe(worker._stop)

    with meanwhile(stop):
        worker.run()
    assert worker.said[-1] == "Stopped: none ended here."


def test_a_worker_whose_look_failed_rests(house, kernel, where):
    """What it knew of leases that end holds no more."""
    kernel.ledger()
    worker = Looking(house.session())
    worker._lanes, worker._lapse_at = worker._find_lanes(), 0.0
    spoil(where, "DROP TABLE places")
    assert worker._look()
    assert "cannot be used" in worker.said[-1]
    assert worker._pause(queue=False) == workers._STEP_HERE_S


@in_postgresql
def test_a_place_of_a_killed_kernel_is_had_when_its_lease_ends(house, kernel, no_clock):
    """Of which nobody tells; and no look is by the clock."""
    house.set(MAX_IN_FLIGHT=1)
    first, second = submit(0), submit(1)
    with kernel.ledger().writing() as transaction:
        until_then = (utc_now() + timedelta(seconds=2)).isoformat()
        killed = "UPDATE runs SET owner = 'killed', owned_until = ? WHERE id = ?"
        transaction.connection.exec_driver_sql(killed, (until_then, first.id))
        take(transaction, first.id, Seeker(place_key(first.record), "killed", 1), "")
        transaction.change_as("killed", first.id, "sent", {"status": RunStatus.SUBMITTING})
    worker = Looking(house.session())

    with meanwhile(lambda: worker.stop_after(kernel.ledger(), second)):
        worker.run()
    assert house.submissions == 1


@in_postgresql
def test_who_follows_a_sweep_of_workers_looks_when_it_moves(house, kernel, no_clock):
    """Not five times a second."""
    words = ["An owl", "A hare"]
    made = kling.sweep(words, duration=3, provider="runflow", name="owls", start=False, max_cost="9")
    made.start(detached=True)
    looks, ask = [], made._entry.left_to_workers

    def counted():
        looks.append(1)
        return ask()

    made._entry.left_to_workers = counted
    worker = Looking(house.session())

    with meanwhile(lambda: made.wait(100)):
        until(lambda: kernel.ledger().changes._listening)
        del looks[:]
        worker.run()
    assert made.progress.done == 2
    assert len(looks) <= 2 * 7


@in_postgresql
def test_who_waits_for_calls_looks_when_one_came(where):
    """A run that goes on otherwise is no reason to look, and time is none."""
    other = Ledger(where)
    with other.writing() as transaction:
        transaction.insert(make_record(id="k0000001"))

    async def main():
        ledger, told, looks = Ledger(where), asyncio.Event(), []
        ask = ledger.callbacks

        def counted(after):
            found = ask(after)
            # Not before it has read: a call that is noted next is not in it.
            looks.append(after)
            return found

        ledger.callbacks = counted
        never = SimpleNamespace(sleep=lambda _seconds: asyncio.Event().wait())
        record = make_record(id="k0000001")
        job = SimpleNamespace(record=record, ledger=ledger, clock=never, wait_s=lambda seconds: seconds)
        callbacks = Callbacks(lambda _run_id: told.set())
        async with asyncio.timeout(60):
            callbacks.expect(job)
            await asyncio.to_thread(until, lambda: ledger.changes._listening and len(looks) >= 2)
            before = len(looks)
            other.change("k0000001", "read", status=RunStatus.QUEUED)
            other.note_callback("k0000001", "run.succeeded")
            await told.wait()
        assert len(looks) == before + 1
        callbacks.close()
        ledger.close()

    asyncio.run(main())
    assert [kind for _, kind, _ in other.events("k0000001")].count(CALLED) == 1
    other.close()


def limited(where):
    return look(where, "SELECT count(*) FROM events WHERE kind = 'limited'") == [(1,)]


def test_a_run_that_a_worker_holds_is_let_go_when_it_is_canceled(house, kernel, where, no_clock):
    """While the worker has an hour to wait until it would try again."""
    house.faults(**LIMITED)
    run = submit(0)
    worker = Looking(house.session())

    def cancel():
        until(lambda: limited(where))
        assert run.cancel() == "canceled"

    with meanwhile(cancel):
        worker.run()
    assert not worker._over(), worker.said
    assert look(where, "SELECT status, owner FROM runs") == [("canceled", None)]


def test_a_run_that_a_worker_holds_is_let_go_when_its_sweep_is_paused(house, kernel, where, no_clock):
    """And is had again as soon as the sweep goes on."""
    house.faults(**LIMITED)
    made = kling.sweep(["An owl"], duration=3, provider="runflow", name="owls", start=False, max_cost="9")
    made.start(detached=True)
    worker = Looking(house.session())

    def pause():
        until(lambda: limited(where))
        made.pause()
        until(lambda: look(where, "SELECT status, owner FROM runs") == [("created", None)])
        made.start(detached=True)

    with meanwhile(pause):
        worker.run()
    assert not worker._over(), worker.said
    assert worker._ended == {"succeeded": 1}


def test_rows_that_cannot_be_read_hide_no_others_from_a_worker(house, kernel, where):
    """However many come first: each is named once, and stays as it is."""
    house.set(MAX_IN_FLIGHT=1)
    runs = [submit(number) for number in range(6)]
    for run in runs[:5]:
        spoil(where, "UPDATE runs SET record = '{}' WHERE id = ?", run.id)
    worker = Looking(house.session())

    def stop():
        until(lambda: runs[5].id in dict(look(where, "SELECT id, 1 FROM runs WHERE status = 'succeeded'")))
        worker._loop.call_soon_threadsafe(worker._stop)

    with meanwhile(stop):
        worker.run()
    for run in runs[:5]:
        assert sum(f"row of run {run.id} cannot be read" in line for line in worker.said) == 1
    assert look(where, "SELECT count(*) FROM runs WHERE status = 'created' AND owner IS NULL") == [(5,)]


def test_a_sweep_is_canceled_but_for_a_row_that_cannot_be_read(house, kernel, where):
    """That one is named, and no worker sends it."""
    words = [f"Owl {number}" for number in range(5)]
    made = kling.sweep(words, duration=3, provider="runflow", name="owls", start=False, max_cost="90")
    made.start(detached=True)
    [(spoiled,)] = look(where, "SELECT run_id FROM detached ORDER BY number LIMIT 1")
    spoil(where, "UPDATE runs SET record = '{}' WHERE id = ?", spoiled)
    with pytest.raises(LedgerError, match=f"run {spoiled} cannot be read"):
        made.cancel()
    assert dict(look(where, "SELECT status, count(*) FROM runs GROUP BY status")) == {
        "created": 1,
        "canceled": 4,
    }
    with pytest.raises(LedgerError, match="cannot be read"):
        made.cancel()
