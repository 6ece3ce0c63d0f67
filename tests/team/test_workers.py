"""Workers: what is left to them is sent once and kept, whoever of them dies; and by nobody else."""

import json
import os
import random
import signal
import time
from collections import Counter
from dataclasses import replace

import pytest

import kling_nb as kling
from kling_nb.commands.run_line import run_words
from kling_nb.commands.terminal import _seconds
from kling_nb.errors import BudgetError, LedgerError, UsageError, WaitTimeoutError
from kling_nb.ledger.database import Ledger
from kling_nb.ledger.databases.copying import copy_ledger
from kling_nb.records.run import RunStatus
from kling_nb.session import api
from support.buckets import bucket
from support.databases import is_postgresql, look, restart, schema, server, spoil
from support.matrix import ONE_WIRE
from support.sessions import ask
from support.workbench import until

#: A worker whose leases soon run out when it is dead.
WORKER = """
import sys
from kling_nb.session import api
from kling_nb.session.session import Session
from kling_nb.team.worker import Worker
from support.stage import QUICK
api._session = session = Session(engine_options={"limits": QUICK})
say = lambda line: print(line, flush=True)
Worker(session, until_empty="empty" in sys.argv, max_time_s=250, say=say).run()
"""
#: A kernel that is killed once its money is reserved.
DIES = """
import os
import kling_nb as kling
from kling_nb.session import api
from kling_nb.session.session import Session
from support.stage import QUICK
ends = lambda step: os._exit(9) if step == "intent in the ledger" else None
api._session = Session(engine_options={"checkpoint": ends, "limits": QUICK})
kling.submit("A hare", duration=3, provider="runflow", detached=True, max_cost="9")
"""
QUEUE = "SELECT (SELECT count(*) FROM procrastinate_jobs) + (SELECT count(*) FROM procrastinate_events)"


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    """The place of a ledger."""
    if request.param == "sqlite":
        yield tmp_path / "ledger.db"
        return
    base = tmp_path.parent.parent if "PYTEST_XDIST_WORKER" in os.environ else tmp_path.parent
    with schema(server(base).get_uri()) as address:
        yield address


@pytest.fixture
def enter(monkeypatch):
    """Make a house's new session that of the calls."""

    def start(house):
        session = house.session()
        monkeypatch.setattr(api, "_session", session)
        return session

    return start


@pytest.fixture
def house(build):
    made = build()
    made.set(BUDGET=1000)
    return made


@pytest.fixture
def held(build):
    """Its runs go on until they are let go."""
    made = build(held=True)
    made.set(BUDGET=1000)
    return made


def leave(count, wire="runflow"):
    return [kling.submit("A hare", take=n, duration=3, provider=wire, detached=True) for n in range(count)]


def start(house, *words):
    return house.start("-c", WORKER, *words)


def finish(house, *workers, timeout_s=120):
    said = []
    for worker in workers:
        code, out, err = house.end(worker, timeout_s)
        assert code == 0, err
        said.append(out)
    return "".join(said)


def statuses(where):
    return dict(look(where, "SELECT status, count(*) FROM runs GROUP BY status"))


def test_what_a_kernel_left_is_sent_once_by_two_workers(house, enter, place):
    """After it has ended: every run once, every clip in its folder, every queue empty, the sums right."""
    house.set(LEDGER=place)
    session = enter(house)
    runs = leave(7)
    assert [run.status for run in runs] == ["created"] * 7
    assert "it waits for a worker" in runs[0].bundle()["text/html"]
    session.close()
    said = finish(house, start(house, "empty"), start(house, "empty"))
    assert said.count("Stopped:") == 2
    assert (house.submissions, statuses(place)) == (7, {"succeeded": 7})
    assert len(list(house.media.glob("*.mp4"))) == 7
    assert look(place, "SELECT count(*) FROM detached") == [(0,)]
    if is_postgresql(place):
        assert look(place, QUEUE) == [(0,)]
    assert enter(house).ledger().mend_sums() == 0
    # The cell that asked for it has it.
    assert kling.submit("A hare", take=3, duration=3, provider="runflow").wait(30).reused
    assert house.submissions == 7


def test_no_kernel_sends_or_ends_what_waits_for_a_worker(house, enter):
    """Not the one that asked for it, nor one that asks for the same, resumes all, or collects."""
    enter(house)
    [run] = leave(1)
    other = enter(house)
    again = kling.submit("A hare", duration=3, provider="runflow")
    assert (again.id, again.reused) == (run.id, True)
    assert len(other.resume()) == 0
    assert house.tool("collect")[0] == 0
    with pytest.raises(WaitTimeoutError):
        again.wait(4)
    assert (house.submissions, statuses(house.folder / "ledger.db")) == (0, {"created": 1})
    finish(house, start(house, "empty"))
    assert again.wait(30).status == "succeeded"
    assert house.submissions == 1


def test_a_waiting_worker_is_woken(house, enter, place):
    """One that found nothing to do does what is left to it later."""
    house.set(LEDGER=place)
    worker = start(house)
    assert "Working on" in worker.stdout.readline()
    enter(house)
    [run] = leave(1)
    assert run.wait(25).status == "succeeded"
    worker.send_signal(signal.SIGTERM)
    finish(house, worker)


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
@pytest.mark.parametrize("pruned", [False, True])
def test_a_job_that_a_dead_worker_held_delays_nothing(house, enter, place, pruned):
    """Not even while its worker still counts as alive: the run is found in the ledger."""
    house.set(LEDGER=place)
    enter(house)
    [run] = leave(1)
    [(dead,)] = look(place, "INSERT INTO procrastinate_workers DEFAULT VALUES RETURNING id")
    spoil(place, "UPDATE procrastinate_jobs SET status = 'doing', worker_id = %s", dead)
    if pruned:
        spoil(place, "DELETE FROM procrastinate_workers")
    finish(house, start(house, "empty"))
    assert run.wait(30).status == "succeeded"
    assert house.submissions == 1
    # Procrastinate itself forgets a worker that gives no sign of life.
    assert look(place, "SELECT count(*) FROM procrastinate_jobs") == [(0 if pruned else 1,)]


def test_a_worker_sends_only_what_it_has_the_key_of(house, enter):
    """What it has no key for stays, and is named."""
    enter(house)
    leave(2)
    house.keys("runflow", key="another-key-of-a-colleague-4Tz")
    code, _, said = house.tool("worker", "--until-empty", "--max-time", "4s")
    assert code == 0
    assert "Runs at runflow" in said
    assert "wait for a worker with the key" in said
    assert "2 runs of the ledger not ended: 2 not sent, 0 on their way" in said
    assert house.submissions == 0
    house.keys("runflow")
    assert house.tool("worker", "--until-empty", "--max-time", "60s")[0] == 0
    assert house.submissions == 2


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("wire", ONE_WIRE)
def test_the_runs_of_a_worker_that_ended_are_another_ones(held, enter, wire, end):
    """Stopped, it leases nothing any more; killed, its leases run out. Nothing is sent twice."""
    session = enter(held)
    leave(6, wire)
    # A kernel that follows a run may take over what its worker gave back.
    session.close()
    worker = start(held)
    until(lambda: held.accepted == 4)
    until(lambda: statuses(held.folder / "ledger.db").keys() <= {"created", "queued", "running"})
    worker.send_signal(end)
    worker.wait(60)
    if end == signal.SIGTERM:
        assert worker.returncode == 0
        assert look(held.folder / "ledger.db", "SELECT count(*) FROM runs WHERE owner IS NOT NULL") == [(0,)]
        assert "6 runs of the ledger not ended: 2 not sent, 4 on their way" in worker.stdout.read()
    held.let_go()
    finish(held, start(held, "empty"))
    assert (held.submissions, statuses(held.folder / "ledger.db")) == (6, {"succeeded": 6})


def test_a_kernel_that_dies_once_the_money_is_reserved_has_left_its_run(house, place):
    """The row of the run, its job and its reservation are one commit."""
    house.set(LEDGER=place)
    assert house.script(DIES)[0] == 9
    assert look(place, "SELECT count(*) FROM detached") == [(1,)]
    finish(house, start(house, "empty"))
    assert (house.submissions, statuses(place)) == (1, {"succeeded": 1})


def test_what_is_refused_is_left_to_nobody(house, enter, place):
    """No money, no row and no job; private words are not left on a shared ledger."""
    house.set(LEDGER=place, BUDGET="0.5")
    enter(house)
    leave(1)
    with pytest.raises(BudgetError):
        kling.submit("A fox", duration=3, provider="runflow", detached=True)
    house.set(BUDGET="50")
    if is_postgresql(place):
        with pytest.raises(UsageError, match="private"):
            kling.submit("A cat", duration=3, provider="runflow", detached=True, private=True)
        assert look(place, "SELECT count(*) FROM procrastinate_jobs") == [(1,)]
    assert look(place, "SELECT count(*) FROM detached") == [(1,)]
    assert look(place, "SELECT count(*) FROM runs") == [(1,)]


def test_a_run_is_canceled_before_a_worker_has_it(house, enter, place):
    """For nothing: its money is given back, and the worker that comes has nothing to do."""
    house.set(LEDGER=place)
    enter(house)
    [run] = leave(1)
    assert run.cancel() == "canceled"
    assert (run.status, run.cost, kling.spend().reserved) == (RunStatus.CANCELED, 0, 0)
    finish(house, start(house, "empty"))
    assert house.submissions == 0
    if is_postgresql(place):
        assert look(place, QUEUE) == [(0,)]


def test_a_detached_sweep_is_followed_paused_and_canceled(held, enter):
    """From a kernel that sends nothing of it; what is not sent costs nothing."""
    enter(held)
    words = [f"Owl {number}" for number in range(8)]
    made = kling.sweep(words, duration=3, provider="runflow", name="owls", start=False, max_cost="90")
    made.start(detached=True)
    assert (made.progress.queued, made.progress.going, made.progress.waiting) == (8, 0, 0)
    assert "kling-nb worker" in repr(made.progress)
    assert not made.progress.over
    worker = start(held)
    until(lambda: held.accepted == 3)
    made.pause()
    held.let_go()
    until(lambda: made.progress.done == 3)
    time.sleep(1)
    assert (held.submissions, made.progress.queued) == (3, 5)
    # What is paused is not waited for.
    made.wait(10)
    # The same grid, in another kernel.
    enter(held)
    made = kling.sweep("owls")
    made.start(detached=True)
    until(lambda: made.progress.done >= 4)
    made.cancel()
    made.wait(60)
    sent = held.submissions
    ended = made.progress
    assert (ended.done, ended.waiting, ended.reserved_micros) == (sent, 8 - sent, 0)
    worker.send_signal(signal.SIGTERM)
    finish(held, worker)
    assert held.submissions == sent


def test_a_sweep_of_workers_is_canceled_by_another_process(held, enter, place):
    """`kling-nb sweep cancel`, while a worker sends it: no more is sent, and what was sent arrives."""
    held.set(LEDGER=place)
    enter(held)
    words = [f"Owl {number}" for number in range(8)]
    made = kling.sweep(words, duration=3, provider="runflow", name="owls", start=False, max_cost="90")
    made.start(detached=True)
    worker = start(held)
    until(lambda: held.accepted == 3)
    code, _, err = held.tool("sweep", "cancel", "owls")
    assert code == 0, err
    assert statuses(place)["canceled"] == 5
    held.let_go()
    finish(held, start(held, "empty"))
    worker.send_signal(signal.SIGTERM)
    finish(held, worker)
    assert (held.submissions, statuses(place)) == (3, {"succeeded": 3, "canceled": 5})
    assert kling.spend().reserved == 0


def test_a_sweep_that_a_kernel_sends_is_left_to_workers_in_its_midst(held, enter):
    """What it has not sent; the kernel may end, and nothing is sent twice."""
    session = enter(held)
    words = [f"Owl {number}" for number in range(8)]
    made = kling.sweep(words, duration=3, provider="runflow", name="owls", max_cost="90")
    until(lambda: held.accepted == 3)
    made.start(detached=True)
    assert (made.progress.going, made.progress.queued) == (3, 5)
    session.close()
    held.let_go()
    finish(held, start(held, "empty"))
    assert (held.submissions, statuses(held.folder / "ledger.db")["succeeded"]) == (8, 8)


def test_nothing_is_left_of_a_sweep_that_was_canceled_meanwhile(house, enter):
    """A chunk that was on its way into the ledger is refused whole, and holds no money."""
    session = enter(house)
    made = kling.sweep(["An owl"], provider="runflow", name="owls", start=False, max_cost="90")
    made.cancel()
    with pytest.raises(UsageError, match="canceled meanwhile"):
        session.open(replace(ask("An owl", provider="runflow"), detached=True, of_sweep="owls"))
    assert (kling.spend().reserved, look(house.folder / "ledger.db", "SELECT count(*) FROM runs")) == (
        0,
        [(0,)],
    )


def test_what_stopped_the_leaving_is_raised(house, enter):
    """A script that leaves a sweep must not end as if it had."""
    enter(house)
    words = [f"Owl {number}" for number in range(4)]
    made = kling.sweep(words, duration=3, provider="runflow", name="owls", start=False, max_cost="90")
    quote = made.quote()
    house.set(BUDGET="0.7")
    with pytest.raises(BudgetError):
        made._shown(quote, agreed=False, detached=True)
    assert made.progress.queued < 4


def test_what_a_dead_kernel_left_unsent_is_left_to_workers_by_who_asks_again(house, enter):
    """With the words of the new call: that is sent once, by a worker."""
    assert house.script(DIES.replace(", detached=True", "").replace("the ledger", "the folder"))[0] == 9
    time.sleep(3)
    enter(house)
    run = kling.submit("A hare", duration=3, provider="runflow", detached=True)
    assert run.reused
    assert "waits for a worker" in run_words(api.current(), ["resume", run.id]).text
    assert house.submissions == 0
    finish(house, start(house, "empty"))
    assert (house.submissions, statuses(house.folder / "ledger.db")) == (1, {"succeeded": 1})


def test_what_waits_for_a_worker_is_not_copied_into_another_ledger(house, enter, tmp_path):
    """There it would look like what a dead kernel left, and be given up."""
    session = enter(house)
    leave(2)
    with pytest.raises(LedgerError, match="2 of its runs wait for a worker"):
        copy_ledger(session.ledger(), Ledger(tmp_path / "other.db"))


def test_a_run_that_is_taken_over_ends_up_with_its_new_worker(held, enter, tmp_path):
    """Where the folder of its old one is not there."""
    session = enter(held)
    leave(2)
    session.close()
    first = start(held)
    until(lambda: held.accepted == 2)
    until(lambda: statuses(held.folder / "ledger.db").keys() <= {"queued", "running"})
    first.kill()
    first.wait(60)
    held.media.rename(tmp_path / "away")
    held.set(MEDIA=tmp_path / "workers")
    held.let_go()
    finish(held, start(held, "empty"))
    assert held.submissions == 2
    assert len(list((tmp_path / "workers").glob("*.mp4"))) == 2


def test_a_file_of_prompts_is_left_to_workers(house):
    """From a terminal: the command ends once the money is reserved."""
    (house.folder / "owls.txt").write_text("An owl\nA hare\n")
    house.set(PROVIDER="runflow")
    code, said, err = house.tool("sweep", "owls.txt", "--detached", "--max-cost", "9")
    assert (code, house.submissions) == (0, 0), err
    assert "2 waiting for a worker" in said
    finish(house, start(house, "empty"))
    assert house.submissions == 2


def test_a_worker_elsewhere_keeps_clips_in_its_own_folder(house, enter, tmp_path):
    """Where the folder of the notebook is not there; the notebook has its clip again, for free."""
    enter(house)
    [run] = leave(1)
    house.media.rename(tmp_path / "away")
    house.set(MEDIA=tmp_path / "workers")
    finish(house, start(house, "empty"))
    (tmp_path / "away").rename(house.media)
    assert run.wait(30).record.folder == str(tmp_path / "workers")
    house.set(MEDIA=house.media)
    again = kling.submit("A hare", duration=3, provider="runflow").wait(30)
    assert (again.reused, again.path.parent) == (True, house.media)
    assert house.submissions == 1


def test_play_runs_are_made_in_the_sandbox_of_the_worker(house, enter):
    """The one of the kernel ends with it."""
    house.keys()
    session = enter(house)
    runs = [kling.submit("A hare", take=n, duration=3, detached=True) for n in range(3)]
    session.close()
    assert house.tool("worker", "--until-empty", "--max-time", "60s")[0] == 0
    enter(house)
    assert {kling.runs()[n].status.value for n in range(3)} == {"succeeded"}
    assert len(runs) == len(list(house.media.glob("*.mp4"))) == 3


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60), ("55m", 3300), ("8h", 28800), ("5", 0), ("1d", 0)]
)
def test_times_are_read(text, seconds):
    """A number with its unit; anything else is refused by its own words."""
    if seconds:
        assert _seconds(text) == seconds
    else:
        with pytest.raises(UsageError, match=repr(text)):
            _seconds(text)


@pytest.mark.matrix
def test_workers_that_are_killed_and_a_database_that_is_restarted_lose_nothing(build, enter, tmp_path):
    """200 detached runs, three workers, one killed every few seconds: 200 submissions, 200 clips in S3."""
    count = int(os.environ.get("WORKER_RUNS", "200"))
    house = build(wait_scale=1, faults={"queue_s": 0.05, "dispatch_s": 0.05, "run_s": 0.3})
    postgres = server(tmp_path)
    with schema(postgres.get_uri()) as address, bucket("team") as environment:
        for name, value in environment.items():
            house.patch.setenv(name, value)
        house.set(LEDGER=address, MEDIA="s3://team/clips", BUDGET=1000, TEAM_DAILY=900, TEAM_TOTAL=900)
        session = enter(house)
        # Alike to look at, so that one film is made.
        words = [f"number {n}" for n in range(count)]
        made = kling.sweep(
            ["An owl"],
            negative_prompt=words,
            duration=3,
            provider="runflow",
            name="owls",
            max_cost="900",
            start=False,
        )
        made.start(detached=True)
        workers = [start(house, "empty") for _ in range(3)]
        dice, kills, restarts = random.Random(7), 0, 0
        while any(worker.poll() is None for worker in workers):
            deadline = time.monotonic() + dice.uniform(3, 6)
            while time.monotonic() < deadline and any(worker.poll() is None for worker in workers):
                time.sleep(0.1)
            if house.submissions < count and kills < 8:
                victim = dice.choice([n for n, worker in enumerate(workers) if worker.poll() is None])
                os.kill(workers[victim].pid, signal.SIGKILL)
                workers[victim].wait(60)
                workers[victim] = start(house, "empty")
                kills += 1
            if kills == 2 and not restarts:
                restart(postgres)
                restarts = 1
        print(f"{kills} kills, {restarts} restarts, {house.submissions} submissions")
        assert kills >= 2
        assert restarts == 1
        finish(house, *workers)
        assert (house.submissions, statuses(address)) == (count, {"succeeded": count})
        once = Counter(run.input["negative_prompt"] for run in house.sandbox.provider.runs)
        assert set(once.values()) == {1}
        assert look(address, QUEUE) == [(0,)]
        assert look(address, "SELECT count(*) FROM uploads") == [(0,)]
        code, said, err = house.tool("verify", "s3://team/clips", "--json", timeout_s=120)
        assert code == 0, err
        checked = json.loads(said)
        assert {one["run"] for one in checked} == {run.id for run in kling.runs()}
        assert (len(checked), {one["state"] for one in checked}) == (count, {"here"})
        code, said, err = house.tool("spend", "--json")
        assert code == 0, err
        levels = {cap.level: cap.settled_micros / 1e6 for cap in session.caps()[0]}
        spent = {
            "provider": house.stats()["billed"],
            "runs": sum(run.cost for run in kling.runs()),
            "session": kling.spend().spent,
            "sweep": made.progress.spent_micros / 1e6,
            "report": json.loads(said)["totals"][0]["settled"],
            **{level: levels[level] for level in ("user_total", "team_daily", "team_total")},
        }
        assert {round(float(usd), 6) for usd in spent.values()} == {round(count * 0.336, 6)}, spent
        assert session.ledger().mend_sums() == 0
