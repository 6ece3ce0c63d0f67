"""Run All in many processes at once: each request is sent once, and every process ends with every clip."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kling_nb.files import file_sha256
from kling_nb.ledger.database import Ledger
from support.crash import Nursery
from support.databases import in_both, in_postgresql
from support.matrix import ONE_WIRE
from support.stage import WIRES
from support.warm import Popen
from support.workbench import KEY, VARIABLE

#: Nobody dies here, and on a busy machine a heartbeat may be late and a clip take minutes.
LIMITS = {"lease_s": 10, "watch_s": 400}


@pytest.fixture
def server():
    """The sandbox as a process of its own."""
    command = [sys.executable, "-m", "kling_nb.sandbox", "--wait-scale", "0"]
    with Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()


def stats(server):
    from urllib.request import urlopen

    with urlopen(server["runflow"].removesuffix("/runflow") + "/_sandbox/stats") as answer:
        return json.load(answer)


def race(folder, where, server, wire, *, processes, requests):
    """Let so many processes run the same cells at once; gives what each of them ended with."""
    env = {
        "KLING_NB_RUNFLOW_URL": server["runflow"],
        "KLING_NB_RUNCOMFY_URL": server["runcomfy"],
        "KLING_NB_LEDGER": str(where),
        "KLING_NB_BUDGET": "100",
        "HOME": str(folder),
        **dict.fromkeys(VARIABLE.values(), KEY),
    }
    prompts = [f"A red fox in snow, number {number}" for number in range(requests)]
    nursery = Nursery(folder)
    try:
        children = []
        for number in range(processes):
            # Half of them share a media folder, the others have one each, like other notebooks do.
            media = folder / ("shared" if number % 2 else f"notebook-{number}")
            spec = {"env": {**env, "KLING_NB_MEDIA": str(media)}, "folder": str(folder), "limits": LIMITS}
            # Each starts at another cell.
            turned = prompts[number:] + prompts[:number]
            child = nursery.start(do="cell", wire=wire, prompts=turned, patience_s=400, **spec)
            children.append((child, media))
        return [(child.said()["runs"], media) for child, media in children]
    finally:
        nursery.close()


def judge(folder, where, server, wire, *, processes, requests):
    ended = race(folder, where, server, wire, processes=processes, requests=requests)
    assert len(ended) == processes
    for runs, _ in ended:
        assert [run.get("status") for run in runs] == ["succeeded"] * requests, runs
        assert all(run["whole"] for run in runs)
        assert len({run["id"] for run in runs}) == requests
    counted = stats(server)
    assert (counted["submissions"], counted["accepted"]) == (requests, requests)
    ledger = Ledger(where)
    records = {record.id: record for record in ledger.runs()}
    assert len(records) == requests
    assert sum(record.settled_micros for record in records.values()) == requests * 336_000
    assert not any(record.reserved_micros for record in records.values())
    ledger.close()
    checked = 0
    for record in records.values():
        assert file_sha256(Path(record.folder) / record.media.file) == record.media.sha256
        checked += 1
    assert checked == requests
    sent = [run for runs, _ in ended for run in runs if not run["reused"]]
    assert len(sent) >= requests


@pytest.mark.timeout(600)
@pytest.mark.parametrize("wire", ONE_WIRE)
def test_processes_that_run_the_same_cells_at_once_pay_once(tmp_path, where, server, wire):
    """Four processes, the same eight cells: eight submissions, thirty-two clips."""
    judge(tmp_path, where, server, wire, processes=4, requests=8)


@pytest.mark.timeout(600)
@in_postgresql
def test_processes_with_the_ledger_of_a_team_pay_once(tmp_path, where, server):
    """Three processes, the same four cells."""
    judge(tmp_path, where, server, "runflow", processes=3, requests=4)


@pytest.mark.matrix
@pytest.mark.timeout(600)
@in_both
@pytest.mark.parametrize("wire", WIRES)
def test_many_processes_that_run_the_same_cells_at_once_pay_once(tmp_path, where, server, wire):
    """Eight processes, the same 25 cells: 25 submissions, two hundred clips."""
    judge(tmp_path, where, server, wire, processes=8, requests=25)
