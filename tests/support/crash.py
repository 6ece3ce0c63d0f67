"""Processes to be killed: a nursery that forks one for each trial, and what such a child does.

Run as a script, it is the nursery: it imports everything once, starts no thread, and forks on demand, so that
a new process costs milliseconds. Imported, it gives tests `Nursery`.
"""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

from kling_nb.records.base import utc_now
from support.warm import Popen

#: A lease that a dead process holds on to for about a second.
LIMITS = {
    "watch_s": 60,
    "submit_s": 20,
    "unsent_tries": 3,
    "save_tries": 4,
    "look_again_s": 0.6,
    "lease_s": 0.9,
}


class Nursery:
    """Children of the nursery process.

    Args:
        folder: For what the children say.
    """

    def __init__(self, folder):
        self.folder, self.count = folder, 0
        self.process = Popen(
            [sys.executable, "-m", "support.crash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, **spec):
        """Start a child; see `work` for what it may be told."""
        self.count += 1
        spec["out"] = str(self.folder / f"child-{self.count}.json")
        return Child(self._ask({"start": spec}), Path(spec["out"]), self)

    def run(self, **spec):
        """Run a child to its end; gives what it says."""
        return self.start(**spec).said()

    def _ask(self, order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def code(self, pid):
        return self._ask({"wait": pid})

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


class Child:
    """A forked child."""

    def __init__(self, pid, out, nursery):
        self.pid, self.out, self.nursery, self.code = pid, out, nursery, None

    def signal(self, number):
        os.kill(self.pid, number)

    def wait(self):
        """Wait for its end; gives its exit code, negative for a signal."""
        if self.code is None:
            self.code = self.nursery.code(self.pid)
        return self.code

    def said(self):
        assert self.wait() == 0, self.out.read_text()
        return json.loads(self.out.read_text())

    def stopped(self):
        """Whether it is stopped by SIGSTOP."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


# -- in the child ------------------------------------------------------------------------------
def work(spec):
    """Do what one process of a user does.

    Args:
        spec: `env`; `do`, which is `cell`, `collect`, `resume` or `hammer`; for a cell `wire` and
            `prompts`; for a hammer `wire` and `name`, and perhaps `most`, how many runs it may buy, `stop`,
            `tally` and `session`; `at`, the step at which to get `signal` (9 unless told); `limits` over
            ours; `shift_s`, by how much the wall clock is wrong; `woken_s`, by how much it has gone on when
            a stopped child is woken; `most_bytes`, beyond which no file can grow, from the step `full_at`
            on if that is told.
    """
    os.environ.update(spec["env"])
    os.chdir(spec["folder"])
    from kling_nb.config.environment import Surroundings
    from kling_nb.engine.limits import Clock, Limits
    from kling_nb.session import api
    from kling_nb.session.session import Session

    # Ignored here, in the main thread: writing too much is then an error, as on a full disk.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    passed = []

    def checkpoint(step):
        passed.append(step)
        if step == spec.get("full_at"):
            _fill_disk(spec["most_bytes"])
        if step == spec.get("at") and passed.count(step) == spec.get("nth", 1):
            if step.startswith("batch"):
                os.kill(os.getpid(), signal.SIGKILL)  # within a transaction, which `stop` would wait for
            stop(spec.get("signal", signal.SIGKILL))
            if spec.get("woken_s"):
                _shift(spec["woken_s"])

    if spec.get("shift_s"):
        _shift(spec["shift_s"])
    if spec.get("most_bytes") and "full_at" not in spec:
        _fill_disk(spec["most_bytes"])
    folder = Path(spec["folder"])
    where = Surroundings(notebook=folder / "a.ipynb", folder=folder, headless=False)
    session = Session(
        surroundings=lambda: where,
        engine_options={
            "limits": Limits(**{**LIMITS, **spec.get("limits", {})}),
            "clock": Clock(wall=lambda: time.time() + sum(_shifts)),
            "checkpoint": checkpoint,
        },
    )
    api._session = session
    if str(spec.get("at")).startswith("batch"):
        session.ledger().writer.checkpoint = checkpoint
    said = _DEEDS[spec["do"]](session, spec)
    session.close()
    return {"runs": said, "steps": passed}


def stop(number):
    """Get a signal; not while a heartbeat writes, because whoever is stopped then holds up all the others."""
    from kling_nb import interrupts

    interrupts._before()
    # To this thread: it does not take one more step, however late the others hear of it.
    signal.pthread_kill(threading.get_ident(), number)
    interrupts._in_parent()


def _cell(session, spec):
    from kling_nb.errors import KlingError
    from support.sessions import ask

    runs = []
    for prompt in spec["prompts"]:
        try:
            runs += session.open(ask(prompt, provider=spec["wire"]))
        except KlingError as error:
            runs.append(error)
    return [_end(run, spec.get("patience_s", 40)) for run in runs]


def _collect(session, spec):
    return [_end(run) for run in session.resume()]


def _tool(session, spec):
    from kling_nb.cli import main

    before = {run.id for run in session.runs()}
    sys.argv = ["kling-nb", "collect", "--timeout", "30"]
    answer = io.StringIO()
    try:
        with contextlib.redirect_stdout(answer):
            main()
    except SystemExit as end:
        if end.code not in {0, 1, None}:
            raise
    ends = [session.find(name).record for name in before]
    return [{"id": end.id, "status": end.status.value, "answer": answer.getvalue()} for end in ends]


def _resume(session, spec):
    from kling_nb.notebook.line import run_command

    shown = run_command(session, "resume", {})
    return [{**_end(run), "answer": f"{shown.text}\n{run.bundle()['text/plain']}"} for run in shown.runs]


def _use(session, spec):
    """Attach again on next use: a new kernel looks at its runs and waits for them, and calls no cell."""
    return [{**_end(run), "answer": run.bundle()["text/plain"]} for run in session.runs()]


def _open(session):
    """Open the ledger; whoever begins while its server is away is refused, and begins again."""
    from kling_nb.errors import LedgerError

    for _ in range(300):
        with contextlib.suppress(LedgerError):
            return session.ledger()
        time.sleep(0.1)
    return session.ledger()


def _hammer(session, spec):
    """Buy clips of $0.56 and try on when refused, until told to stop; where nobody will, until refused."""
    from kling_nb.errors import BudgetError
    from kling_nb.records.request import make_request
    from kling_nb.session.plan import Ask

    _open(session)
    if "session" in spec:
        session.join(spec["session"])
    runs, refused = [], 0
    stop = Path(spec["stop"]) if "stop" in spec else None
    while not (stop.exists() if stop else refused):
        if len(runs) == spec.get("most"):
            time.sleep(0.02)
            continue
        request = make_request(prompt=f"{spec['name']}, number {len(runs)}", duration=5)
        try:
            runs += session.open(Ask(request=request, provider=spec["wire"]))
        except BudgetError:
            refused += 1
            if stop:
                with Path(spec["tally"]).open("ab") as tally:
                    tally.write(b".")
            # Hard at first, when all race for the budget, and then so that others get on.
            time.sleep(min(0.02 * refused, 0.2))
    return [{"refused": refused}, *(_end(run, 300) for run in runs)]


_DEEDS = {
    "hammer": _hammer,
    "cell": _cell,
    "collect": _tool,
    "take up": _collect,
    "resume": _resume,
    "use": _use,
}


def _end(run, patience_s=40):
    from kling_nb.files import file_sha256

    if isinstance(run, Exception):
        return {"error": type(run).__name__, "what": str(run)}
    try:
        run.wait(patience_s)
    except Exception as error:  # noqa: BLE001 - whatever it is, the test is told
        return {"id": run.id, "error": type(error).__name__, "what": str(error)}
    whole = run.video is not None and file_sha256(run.video.path) == run.record.media.sha256
    said = {"id": run.id, "status": run.record.status.value, "reused": run.reused, "whole": whole}
    return said | ({"stopped": type(run.error).__name__, "what": str(run.error)} if run.error else {})


def _fill_disk(most_bytes):
    """Let no file grow beyond so many bytes: as a full disk does it, writing fails in the middle."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))


#: By how much this process's wall clock is wrong.
_shifts = []


def _shift(seconds):
    """Set this process's wall clock wrong, wherever the package reads it."""
    from datetime import timedelta

    _shifts.append(seconds)
    true = utc_now
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("kling_nb") and vars(module).get("utc_now") is true:
            module.utc_now = lambda: true() + timedelta(seconds=seconds)


# -- the nursery -------------------------------------------------------------------------------
def _grow_up(spec):
    code = 1
    try:
        said = json.dumps(work(spec))
        code = 0
    except BaseException:  # noqa: BLE001 - the child must never go on as a nursery
        said = traceback.format_exc()
    Path(spec["out"]).write_text(said)
    os._exit(code)


def _main():
    import support.sessions  # noqa: F401 - imported before the fork, so that children need not

    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if not answer:
                devnull = os.open(os.devnull, os.O_RDWR)
                os.dup2(devnull, 0)
                os.dup2(devnull, 1)
                _grow_up(order["start"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
