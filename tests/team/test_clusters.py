"""The examples of the page on clusters, as they stand there, with processes that are killed on the way."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from kling_nb.session.api import ask_for
from support.databases import look
from support.paths import ROOT
from support.workbench import until

PAGE = (ROOT / "docs" / "guide" / "clusters.md").read_text(encoding="utf-8")


def example(language, words):
    """The one block of the page in a language that has some words in it."""
    [found] = [code for code in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if words in code]
    return found


@pytest.fixture
def house(build):
    """Both wires, where runs go on until they are let go."""
    house = build(held=True)
    house.keys("runflow")
    house.set(BUDGET="20.00")
    return house


@pytest.mark.matrix
def test_a_dask_worker_that_is_killed_costs_no_second_submission(house):
    """Two workers, one of them killed while it carries runs: eight tasks, eight submissions, eight clips."""
    (house.folder / "study.py").write_text(example("python", "dask"), encoding="utf-8")
    # A process of its own kind: its workers import it again.
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    study = subprocess.Popen([sys.executable, "study.py"], cwd=house.folder, text=True, **pipes)
    house.started.append(study)
    until(lambda: house.accepted == 4)
    owner = re.compile(r":(\d+):")
    held = [
        row for [row] in look(house.folder / "ledger.db", "SELECT owner FROM runs WHERE owner IS NOT NULL")
    ]
    workers = {child.pid for child in psutil.Process(study.pid).children(recursive=True)}
    victim = next(pid for pid in (int(owner.search(one)[1]) for one in held) if pid in workers)
    os.kill(victim, signal.SIGKILL)
    house.let_go()
    code, out, err = house.end(study, 300)
    assert code == 0, err
    ids = [line.split()[0] for line in out.splitlines()]
    assert len(set(ids)) == 8
    assert house.submissions == 8
    assert len(list(house.media.glob("*.mp4"))) == 8


def test_cron_brings_to_its_end_what_others_have_left(house):
    """The line as cron runs it, with little in its environment: the clip is here, and nothing was sent."""
    session = house.session()
    [run] = session.open(ask_for("A paper boat", duration=3))
    until(lambda: run.provider_run_id)
    session.close()
    house.let_go()
    ours = {name: value for name, value in os.environ.items() if name.startswith(("KLING_NB_", "RUNFLOW_"))}
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": os.environ["PYTHONPATH"]}
    exports = [f"export {name}={shlex.quote(value)}\n" for name, value in {**ours, **path}.items()]
    (house.folder / "kling.env").write_text("".join(exports), encoding="utf-8")
    *_, line = example("text", "collect").strip().split(" ", 5)
    cron = {"HOME": str(house.folder), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["/bin/sh", "-c", line], cwd=house.folder, env=cron, check=False)
    said = (house.folder / "kling.log").read_text(encoding="utf-8")
    assert done.returncode == 0, said
    assert run.id in said
    assert len(list(house.media.glob("*.mp4"))) == 1
    assert house.submissions == 1
