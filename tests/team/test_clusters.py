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
from support.databases import look, schema, server
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


class Slurm:
    """Stands in for a cluster: runs the tasks of a job array as processes, and ends them as SLURM does."""

    def __init__(self, folder):
        self.folder, self.tasks = folder, []

    def sbatch(self, script):
        """Start the tasks that the script's own lines ask for."""
        path = self.folder / "job.sh"
        path.write_text(script, encoding="utf-8")
        asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(.+)$", script, re.MULTILINE))
        self.signal = signal.Signals[f"SIG{asked['signal'].partition('@')[0]}"]
        first, last = map(int, asked["array"].split("-"))
        bin_folder = str(Path(sys.executable).parent)
        ours = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
        for number in range(first, last + 1):
            with (self.folder / f"slurm-{number}.out").open("w") as out:
                command = ["/bin/bash", str(path)]
                env = {**ours, "SLURM_ARRAY_TASK_ID": str(number)}
                task = subprocess.Popen(command, cwd=self.folder, env=env, stdout=out, stderr=out)
                self.tasks.append(task)

    def at_the_time_limit(self):
        """Send the signal that the script asks for."""
        for task in self.tasks:
            task.send_signal(self.signal)

    def said(self):
        """What each task has said so far."""
        return [path.read_text("utf-8") for path in sorted(self.folder.glob("slurm-*.out"))]

    def wait(self):
        """Wait for the end of all tasks; gives their exit codes and what they said."""
        codes = [task.wait(120) for task in self.tasks]
        self.tasks.clear()
        return codes, self.said()

    def close(self):
        for task in self.tasks:
            task.kill()
            task.wait()


@pytest.fixture
def slurm(house):
    made = Slurm(house.folder)
    yield made
    made.close()


@pytest.fixture
def ledger(tmp_path):
    """A PostgreSQL ledger."""
    base = tmp_path.parent.parent if "PYTEST_XDIST_WORKER" in os.environ else tmp_path.parent
    with schema(server(base).get_uri()) as address:
        yield address


@pytest.mark.matrix
def test_a_job_array_that_meets_its_time_limit_is_submitted_again(ledger, house, slurm):
    """Ended while runs are on their way: exit code 0, nothing leased; the next array makes the rest, once."""
    house.set(LEDGER=ledger)
    code, _, err = house.script(example("python", "detached=True"))
    assert (code, house.submissions) == (0, 0), err
    job = example("bash", "#SBATCH")
    slurm.sbatch(job)
    # A sweep leaves one of the four places to single runs.
    until(lambda: house.accepted == 3)
    # One that has not begun is ended by the signal itself.
    until(lambda: all("Working on" in one for one in slurm.said()))
    slurm.at_the_time_limit()
    codes, said = slurm.wait()
    assert codes == [0, 0], said
    assert all("6 runs of the ledger not ended" in one for one in said), said
    assert look(ledger, "SELECT count(*) FROM runs WHERE owner IS NOT NULL") == [(0,)]
    house.let_go()
    slurm.sbatch(job)
    codes, said = slurm.wait()
    assert codes == [0, 0], said
    assert look(ledger, "SELECT status, count(*) FROM runs GROUP BY status") == [("succeeded", 6)]
    assert house.submissions == 6
    assert len(list(house.media.glob("*.mp4"))) == 6


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
