"""Several kernels on one ledger: they share an account's places, and a sweep outlives any of them."""

import json
import os
import random
import signal
from collections import Counter

import pytest

from support.matrix import ONE_WIRE
from support.workbench import until

#: A kernel: what it is told is done in a session of its own, with leases that a dead one soon loses.
KERNEL = """
import sys
import kling_nb as kling
from kling_nb.session import api
from kling_nb.session.session import Session
from support.stage import QUICK

api._session = Session(engine_options={"limits": QUICK})
wire, words, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

def sweep():
    # Alike to look at, so that one film is made.
    numbers = [f"number {n}" for n in range(count)]
    more = {"provider": wire, "duration": 3, "name": words, "max_cost": "900"}
    return kling.sweep([words], negative_prompt=numbers, **more)
"""
SWEEPS = KERNEL + "sweep().wait(280)"
SINGLES = (
    KERNEL
    + """
for n in range(count):
    kling.submit(words, negative_prompt=f"number {n}", provider=wire, duration=3).wait(280)
"""
)
ENDS = """
import json
found = sweep().wait(280)
print(json.dumps([[run.status.value, run.id, str(run.error or "")] for run in found.runs]))
"""
ACCOUNT = """
import json
found = sweep().wait(280).retry().wait(280)
rows = found.df[["run", "status", "charged"]].to_dict("records")
print(json.dumps({"rows": rows, "card": repr(found), "unknown": found.progress.unknown}))
"""
#: Seconds that a run takes here.
SHORT = {"queue_s": 0.05, "dispatch_s": 0.05, "run_s": 0.2}


@pytest.fixture
def house(build):
    made = build(wait_scale=1, faults=SHORT)
    made.set(BUDGET=1000)
    return made


def runs(house):
    """What the provider made, oldest first."""
    return list(house.sandbox.provider.runs)


def most_at_once(house):
    """How many runs were at the provider at the same moment, at most."""
    steps = [(run.born_s, 1) for run in runs(house)] + [(run.ended_s(), -1) for run in runs(house)]
    at_once = most = 0
    for _, step in sorted(steps):
        most = max(most, at_once := at_once + step)
    return most


def requests(house):
    """How often the provider made what."""
    return Counter((run.input["prompt"], run.input["negative_prompt"]) for run in runs(house))


def finish(house, *started):
    for process in started:
        code, _, err = house.end(process, 300)
        assert code == 0, err


@pytest.mark.parametrize("wire", ONE_WIRE)
def test_two_kernels_share_the_places_of_an_account(house, wire):
    """Two sweeps and single runs in three kernels: never more than four at once."""
    first, second = (house.start("-c", SWEEPS, wire, words, 20) for words in ("An owl", "A fox"))
    single = house.start("-c", SINGLES, wire, "A hare", 8)
    finish(house, first, second, single)
    assert sum(requests(house).values()) == len(requests(house)) == 48
    assert 3 <= most_at_once(house) <= 4


@pytest.mark.parametrize("wire", ONE_WIRE)
def test_a_single_run_does_not_wait_behind_a_sweep(build, wire):
    """Of another kernel, while a sweep has all that it may have: none of the sweep is sent before it."""
    held = build(held=True, faults=SHORT)
    held.set(BUDGET=1000)
    sweep = held.start("-c", SWEEPS, wire, "An owl", 60)
    until(lambda: len(runs(held)) == 3)
    single = held.start("-c", SINGLES, wire, "A hare", 1)
    until(lambda: len(runs(held)) == 4)
    held.let_go()
    finish(held, single)
    [place] = [n for n, run in enumerate(runs(held)) if run.input["prompt"] == "A hare"]
    assert place == 3
    sweep.kill()


@pytest.mark.matrix
def test_a_sweep_outlives_two_kills(house, wire):
    """Killed twice at any moment: each member is paid for once, and what RunComfy may have made is named."""
    count, chance = (
        int(os.environ.get("SWEEP_RUNS", "200")),
        random.Random(os.environ.get("SWEEP_SEED", "14")),
    )
    for most in (0.5, 0.9):
        kernel = house.start("-c", SWEEPS, wire, "An owl", count)
        enough = len(runs(house)) + chance.uniform(0, most * count - len(runs(house)))
        until(lambda enough=enough: len(runs(house)) >= enough, 280)
        os.kill(kernel.pid, signal.SIGKILL)
        kernel.wait(60)
    code, out, err = house.script(KERNEL + ENDS, wire, "An owl", count, timeout_s=280)
    assert code == 0, err
    ends = json.loads(out.splitlines()[-1])
    assert len(ends) == count
    assert max(requests(house).values()) == 1
    lost = [(run_id, words) for status, run_id, words in ends if status == "lost"]
    print(f"{wire}: {count} members, {house.submissions} submissions, {len(lost)} lost")
    assert Counter(status for status, *_ in ends) == Counter(succeeded=count - len(lost), lost=len(lost))
    assert all(run_id in words for run_id, words in lost)
    if wire == "runflow":
        assert (house.submissions, lost) == (count, [])
    else:
        assert len(lost) <= 2 * 4
        assert house.submissions >= count - len(lost)
    assert len(list(house.media.glob("*.mp4"))) == count - len(lost)


@pytest.mark.matrix
def test_a_kill_in_the_middle_of_paid_requests_names_each_run(house, wire):
    """The provider holds three requests whose runs it made: RunComfy's are lost, Runflow's are found."""
    house.faults(submit_hang_after={"next": 3}, hang_s=600)
    kernel = house.start("-c", SWEEPS, wire, "An owl", 8)
    until(lambda: len(runs(house)) == 3)
    os.kill(kernel.pid, signal.SIGKILL)
    kernel.wait(60)
    code, out, err = house.script(KERNEL + ACCOUNT, wire, "An owl", 8, timeout_s=280)
    assert code == 0, err
    said = json.loads(out.splitlines()[-1])
    lost = [row["run"] for row in said["rows"] if row["status"] == "lost"]
    assert Counter(row["status"] for row in said["rows"]) == Counter(succeeded=8 - len(lost), lost=len(lost))
    # Neither starting it again nor `retry` sent a request twice.
    assert (house.submissions, max(requests(house).values()), len(requests(house))) == (8, 1, 8)
    assert (len(lost), said["unknown"]) == ((0, 0) if wire == "runflow" else (3, 3))
    assert all(name in said["card"] for name in lost)
    assert {row["charged"] for row in said["rows"] if row["run"] in lost} <= {"unknown"}
