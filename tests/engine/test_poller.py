"""One poller for all runs: what is read when, Runflow's list for many at once, places in order."""

import asyncio
import gc
import io
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest

from kling_nb.engine.polling.follow import Account, Follow
from kling_nb.engine.polling.poller import MOST_READS, Poller
from kling_nb.engine.polling.schedule import Pace
from kling_nb.engine.runs import Runs
from kling_nb.errors import WaitTimeoutError
from kling_nb.providers import make_provider
from kling_nb.providers.base import Row, Snapshot
from kling_nb.providers.messages import Reply
from kling_nb.providers.runcomfy import RunComfy
from kling_nb.records.base import utc_now
from kling_nb.views.html import DOT
from support.clips import make_record
from support.stage import QUICK, Stage
from support.warm import Popen
from support.workbench import until

PATIENT = replace(QUICK, lease_s=30, watch_s=300)
#: Seconds that a run takes here.
SHORT = {"queue_s": 0.3, "dispatch_s": 0.1, "run_s": 0.6}


@pytest.fixture
def stage(tmp_path):
    made = []

    def build(wire="runflow", **options):
        made.append(Stage(tmp_path, wire, **{"limits": PATIENT, **options}))
        made[-1].engine.max_in_flight = 100
        return made[-1]

    yield build
    for each in made:
        each.close()


def send(stage, count):
    """Ask for runs that differ, and give their handles."""
    records = [stage.record("A red fox in snow", negative_prompt=f"number {n}") for n in range(count)]
    return [stage.engine.handle(record) for record in records]


def statuses(runs):
    return Counter(run.wait(90).status.value for run in runs)


# -- lists ----------------------------------------------------------------------------
def test_one_list_answers_for_many_runs(stage):
    """Thirty runs on Runflow cost far fewer reads than runs, and every clip arrives."""
    s = stage(wait_scale=1, faults=SHORT)
    runs = send(s, 30)
    assert statuses(runs) == {"succeeded": 30}
    stats = s.stats()
    assert stats["lists"] >= 1
    assert stats["lists"] + stats["polls"] < 30 * 2
    assert stats["token_leaks"] == 0


@pytest.mark.parametrize(
    "trouble",
    [
        {"list_500": 1},
        {"list_429_wait": 1, "retry_after_s": 0.5},
        {"list_403": 1},
        {"list_junk": 1},
        {"list_nulls": 1},
        {"list_types": 1},
        {"list_cut": 1},
        {"list_drop": 1},
        {"list_stall": 1, "hang_s": 8},
        {"list_missing": 1},
        {"list_missing": 0.5},
        {"list_lag_s": 3600},
        {"list_stale_s": 3600},
    ],
    ids=lambda trouble: next(iter(trouble)),
)
def test_a_list_that_is_no_help_delays_nothing(stage, trouble):
    """Refused, unreadable, slow, partial or behind: the runs are read one by one, and each clip arrives."""
    s = stage(wait_scale=1, faults={**SHORT, **trouble})
    runs = send(s, 8)
    assert statuses(runs) == {"succeeded": 8}
    assert s.stats()["polls"] >= 1


@pytest.mark.parametrize("fault", ["run_failed", "run_moderated", "run_canceled"])
def test_an_end_without_a_clip_is_confirmed_by_the_run_itself(stage, fault):
    """Seen in a list it is read once more, so that no run ends on the word of a list."""
    s = stage(wait_scale=1, faults={**SHORT, fault: 1})
    runs = send(s, 6)
    assert "succeeded" not in statuses(runs)
    assert s.stats()["lists"] >= 1
    assert s.stats()["polls"] >= 6


def test_a_list_is_read_back_to_the_oldest_run(stage):
    """More runs than one page of it holds, in both spellings of its links."""
    provider = make_provider("runflow", "http://127.0.0.1:1")
    call = provider.list_call()
    assert call.params["limit"] == "500"
    body = b'{"items": [{"id": "a", "created_at": "2026-11-29T12:00:00+00:00"}], "next": %s}'
    for link in (b'"500"', b'"http://elsewhere.example/v1/runs?limit=500&pq=500"'):
        reply = Reply(status=200, headers={}, body=body % link)
        page = provider.read_list(reply, since="2026-11-29T11:00:00+00:00", before={})
        assert set(page.rows) == {"a"}
        assert page.more.url == call.url
        assert page.more.params["pq"] == "500"
        assert page.more.params["limit"] == "500"
        assert provider.read_list(reply, since="2026-11-29T12:30:00+00:00", before={}).more is None
    for bad in (b"", b"[]", b'{"items": {}}', b'{"items": null}'):
        assert (
            provider.read_list(Reply(status=200, headers={}, body=bad), since="2026-11-29", before={}) is None
        )
    refused = Reply(status=500, headers={}, body=b'{"items": []}')
    assert provider.read_list(refused, since="2026", before={}) is None


def test_a_row_that_says_the_same_is_not_read_again():
    """It is the same object as before, wherever it moved; one that says something else is read exactly."""
    provider = make_provider("runflow", "http://127.0.0.1:1")

    def read(*runs, before, form='{"first": null, "items" : [%s] , "next": null}'):
        reply = Reply(status=200, headers={}, body=(form % ",\n ".join(runs)).encode())
        page = provider.read_list(reply, since="2026-11-29T11:00:00+00:00", before=before)
        return None if page is None else page.rows

    def run(name, status="running", cost="null"):
        return f'{{"id": "{name}", "status_code": "{status}", "cost": {cost}, "input": {{"prompt": "]"}}}}'

    first = read(run("a"), run("b"), run("c"), before={})
    second = read(run("new"), run("a"), run("b", "succeeded", "0.10"), run("c"), "7", before=first)
    assert list(second) == ["new", "a", "b", "c"]
    assert (second["a"], second["c"]) == (first["a"], first["c"])
    assert second["b"] is not first["b"]
    assert provider.read_row(second["b"], "b").cost == "0.10"
    assert provider.read_row(second["a"], "a").state == "running"
    third = read(run("c"), run("b", "succeeded", "0.1"), before=second)
    assert third["c"] is first["c"]
    assert third["b"] is not second["b"]
    assert read(before=second) == {}
    for cut in ("", ",", "}]", ', "items": []}', ", 1: 2}", ", [1]: 2}"):
        assert read(run("a"), before=first, form='{"items": [%s]' + cut) is None
    assert read(run("a"), before=first, form='{"items": [%s') is None
    assert read(run("a")[:-1], before=first) is None
    assert read(run("a") + run("b"), before=first) is None


def test_what_is_known_of_a_run_wakes_nobody(stage):
    """Accepted as running, it is not written down again as running: a list tells no more of it."""
    s = stage(held=True, faults={"queue_s": 0, "dispatch_s": 0})
    runs = send(s, 3)
    until(lambda: s.stats()["lists"] >= 3)
    s.let_go()
    assert statuses(runs) == {"succeeded": 3}
    for run in runs:
        assert run.record.started_at == run.record.accepted_at
        kinds = [kind for _, kind, _ in s.ledger.events(run.id)]
        assert "read" not in kinds


@pytest.mark.parametrize("word_for_word", [True, False])
def test_a_list_contradicts_what_a_run_itself_denied(word_for_word):
    """What the record says wakes nobody, unless a reading said otherwise since: that is then taken back."""

    async def main():
        provider = make_provider("runflow", "http://127.0.0.1:1")
        record = make_record(status="running", started_at=utc_now(), finished_at=None)
        job = SimpleNamespace(provider=provider, record=record, clock=FakeTime())
        row = Row('{"id": "a", "status_code": "running"}', "a", None)
        later = row if word_for_word else Row('{"id": "a", "status_code": "running", "n": 1}', "a", None)
        poller = Poller(job.clock)
        follow = Follow(job, Pace(1.0, []), None, started=0.0, until=60.0)
        follow.turn = asyncio.get_running_loop().create_future()
        assert poller._take_row(follow, row, 0.0)
        assert not follow.turn.done()
        follow.take_down(Snapshot(state="not_found"))
        assert not poller._take_row(follow, later, 0.0)
        assert follow.turn.result().state == "running"

    asyncio.run(main())


def test_a_status_that_says_the_same_is_not_read_again(stage, monkeypatch):
    """Answers that repeat the one before word for word are taken as it was read; each change is seen."""
    read, answers, states = RunComfy.read_poll, [], []

    def counting(self, reply, provider_run_id, after=None):
        answers.append((provider_run_id, reply.body))
        return read(self, reply, provider_run_id, after)

    monkeypatch.setattr(RunComfy, "read_poll", counting)
    s = stage("runcomfy", held=True)
    [run] = runs = send(s, 1)
    run.on_change(lambda run: states.append(run.status.value))
    until(lambda: s.stats()["polls"] >= 8)
    assert len(answers) < 8
    s.let_go()
    assert statuses(runs) == {"succeeded": 1}
    assert len(answers) == len(set(answers))
    assert states[-2:] == ["saving", "succeeded"]


# -- turns ----------------------------------------------------------------------------
class FakeTime:
    """A clock that a test moves: whoever sleeps is woken when it has come so far."""

    def __init__(self):
        self.now, self.sleepers = 0.0, []

    def monotonic(self):
        return self.now

    async def sleep(self, seconds):
        woken = asyncio.get_running_loop().create_future()
        self.sleepers.append((self.now + seconds, woken))
        await woken

    async def go(self, seconds):
        self.now += seconds
        for due, woken in self.sleepers:
            if due <= self.now and not woken.done():
                woken.set_result(None)
        for _ in range(20):
            await asyncio.sleep(0)


class Rester:
    """As much of a job as waiting needs."""

    def __init__(self):
        self.woken = self.resting = False
        self.turn = None


def test_what_rests_wakes_in_the_order_of_its_time():
    """However it was put down, and with one timer for all."""

    async def main():
        clock, order = FakeTime(), []
        poller = Poller(clock)

        async def one(seconds):
            await poller.rest(Rester(), seconds)
            order.append(seconds)

        tasks = [asyncio.ensure_future(one(seconds)) for seconds in (5, 1, 3, 2, 4)]
        await clock.go(0)
        assert sum(not woken.done() for _, woken in clock.sleepers) == 1
        for _ in range(5):
            await clock.go(1)
        assert order == [1, 2, 3, 4, 5]
        await asyncio.gather(*tasks)
        assert not any(not woken.done() for _, woken in clock.sleepers)

    asyncio.run(main())


def test_a_list_is_asked_for_beside_what_is_due_a_moment_earlier():
    """One timer wakes both, and the list's turn is not taken for too early and forgotten."""

    class Counted(Poller):
        listed = 0

        async def _list(self, account, job):
            self.listed += 1

    async def main():
        clock, account = FakeTime(), Account(due=1.0)
        poller = Counted(clock)
        account.waiting = {name: SimpleNamespace(listed=True, job=None) for name in "ab"}
        poller._push(account.due, account)
        resting = asyncio.ensure_future(poller.rest(Rester(), 0.999))
        await clock.go(0)
        await clock.go(0.999)
        await clock.go(0.5)
        await resting
        assert poller.listed == 1

    asyncio.run(main())


def test_reads_are_gated_and_those_that_wait_were_not_begun(stage):
    """Never more than 60 at a time; a time-out of a read runs only once it has its turn."""
    s = stage("runcomfy", wait_scale=1, faults={**SHORT, "poll_slow": 1, "slow_s": 0.05})
    s.engine.max_in_flight = 1000
    under_way, most = set(), [0]
    send_one = s.engine._transport.send

    async def counting(call, **options):
        mark = object()
        if not call.paid:
            under_way.add(mark)
            most[0] = max(most[0], len(under_way))
        try:
            return await send_one(call, **options)
        finally:
            under_way.discard(mark)

    s.engine._transport.send = counting
    runs = send(s, 90)
    assert statuses(runs) == {"succeeded": 90}
    assert 1 < most[0] <= MOST_READS


def test_kinds_do_not_teach_each_other(stage):
    """Another length or sound is another kind; runs of one kind share what they learn."""
    s = stage("runcomfy")
    runs = [
        s.engine.handle(s.record(duration=3)),
        s.engine.handle(s.record(duration=4)),
        s.engine.handle(s.record(duration=3, audio=True)),
        s.engine.handle(s.record("A blue whale", duration=3)),
    ]
    assert statuses(runs) == {"succeeded": 4}
    paces = s.engine._poller._paces
    assert len(paces) == 3
    assert all(isinstance(pace.result(), Pace) for pace in paces.values())


# -- places ---------------------------------------------------------------------------
def test_runs_that_wait_for_a_place_have_no_task(stage):
    """Two hundred that wait cost a row each, whatever max_in_flight is; they are sent in order."""
    s = stage(held=True)
    s.engine.max_in_flight = 2
    runs = send(s, 200)
    until(lambda: sum(run.provider_run_id is not None for run in runs) == 2)
    until(lambda: len(s.engine._drivers) == 2)
    assert [run.id for run in runs if run.provider_run_id] == [runs[0].id, runs[1].id]
    # The last of them may just have been handed to the loop.
    until(lambda: all(s.engine.drives(run.id) for run in runs))
    names = asyncio.run_coroutine_threadsafe(_tasks(), s.loop._started()).result(30)
    assert names["_drive"] == 2
    assert sum(names.values()) < 40
    # Their leases are kept alive all the same, in one commit for all.
    until(lambda: all(s.ledger.lease(run.id) is not None for run in runs))
    for run in runs[3:]:
        run.detach()
    until(lambda: all(run.detached for run in runs[3:]))
    assert all(run.status == "created" for run in runs[3:])
    s.let_go()
    assert statuses(runs[:3]) == {"succeeded": 3}
    assert s.stats()["submissions"] == 3


def test_a_waiting_run_knows_its_turn(stage, monkeypatch):
    """Numbered in order of asking, without a gap where one was canceled; card, grid and terminal say so."""
    s = stage(held=True)
    s.engine.max_in_flight = 1
    first, second, third = runs = send(s, 3)
    until(lambda: first.provider_run_id and third.turn)
    assert first.turn is None
    assert [(run.turn.number, run.turn.places, len(run.turn.ages_s)) for run in (second, third)] == [
        (1, 1, 1),
        (2, 1, 1),
    ]
    card = third.bundle(typical_s=(50, 70))["text/html"].replace(DOT, " - ")
    assert "waiting for a free place (1 at a time) - number 2 in line - starts in about 1:" in card
    page = Runs(runs).bundle([None] * 3)["text/plain"]
    assert page.startswith("3 runs: 1 running, 2 waiting")
    assert second.cancel() == "canceled"
    assert third.turn.number == 1
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with pytest.raises(WaitTimeoutError):
        third.wait(0.1)
    assert "Waiting - waiting for a free place (1 at a time) - next in line" in terminal.getvalue()
    s.let_go()
    assert statuses([first, third]) == {"succeeded": 2}
    assert third.turn is None
    assert "waiting for" not in third.bundle()["text/html"]


class Terminal(io.StringIO):
    """A standard error that somebody looks at."""

    def isatty(self):
        return True


async def _tasks():
    return Counter(task.get_coro().__name__ for task in asyncio.all_tasks())


def test_a_waiting_run_is_canceled_at_once(stage):
    """It is sent to nobody, and its place in the row is gone."""
    s = stage(held=True)
    s.engine.max_in_flight = 1
    first, second, third = send(s, 3)
    until(lambda: first.provider_run_id)
    assert second.cancel() == "canceled"
    assert (second.record.charged, second.record.reserved_micros) == ("no", 0)
    s.let_go()
    assert statuses([first, third]) == {"succeeded": 2}
    assert s.stats()["submissions"] == 2


def test_closing_lets_waiting_runs_go(stage):
    """They stay on record with their leases given back, so that the next kernel need not wait."""
    s = stage(held=True, limits=replace(PATIENT, lease_s=300))
    s.engine.max_in_flight = 1
    runs = send(s, 5)
    until(lambda: runs[0].provider_run_id)
    until(lambda: all(s.ledger.lease(run.id) for run in runs))
    s.engine.close(0.1)
    assert all(run.detached for run in runs)
    assert not any(s.ledger.lease(run.id) for run in runs)
    assert s.stats()["submissions"] == 1


# -- the loop -------------------------------------------------------------------------
def test_two_hundred_runs_never_block_the_loop(tmp_path, sandbox_process):
    """No callback of ours takes 50 ms of the loop's own processor time, whatever else the machine does."""
    stage = Stage(tmp_path, "runflow", limits=PATIENT)
    slow = []
    loop = stage.loop._started()
    run_once = asyncio.events.Handle._run

    def timed(handle):
        if threading.current_thread() is not loop_thread:
            return run_once(handle)
        begun = time.thread_time()
        try:
            return run_once(handle)
        finally:
            if (took := time.thread_time() - begun) > 0.05:
                slow.append((took, repr(handle)))

    loop_thread = asyncio.run_coroutine_threadsafe(_thread(), loop).result(30)
    try:
        stage.base = sandbox_process["runflow"]
        stage.engine.max_in_flight = 1000
        # The first run of a process imports what all of them need.
        assert stage.go().status == "succeeded"
        # Whose turn it is to collect the garbage of the whole process says nothing of our callbacks.
        gc.disable()
        asyncio.events.Handle._run = timed
        runs = send(stage, 200)
        assert statuses(runs) == {"succeeded": 200}
    finally:
        asyncio.events.Handle._run = run_once
        gc.enable()
        stage.close()
    assert not slow


async def _thread():
    return threading.current_thread()


@pytest.fixture
def sandbox_process(tmp_path):
    """A sandbox in a process of its own, so that only our own code runs on our loop."""
    words = ("sandbox", "serve", "--wait-scale", "0.3")
    code = "from kling_nb.cli import main; main()"
    with Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, cwd=tmp_path, text=True
    ) as process:
        yield json.loads(process.stdout.readline())
        process.terminate()
