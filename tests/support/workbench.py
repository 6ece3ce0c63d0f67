"""Sessions with keys against both wires on loopback, and scripts that run in processes of their own."""

import contextlib
import os
import subprocess
import sys
import time
from datetime import timedelta

from kling_nb.config.environment import Surroundings
from kling_nb.loop import Loop
from kling_nb.records.base import utc_now
from kling_nb.sandbox.serve import Sandbox
from kling_nb.session.session import Session
from support.stage import HELD, QUICK, HeldTime
from support.warm import Popen

#: Made up; it must appear nowhere.
KEY = "made-up-key-of-a-test-7Qm2"
VARIABLE = {"runflow": "RUNFLOW_API_KEY", "runcomfy": "RUNCOMFY_API_TOKEN"}


class House:
    """A folder with a notebook, a ledger, a media folder, and both providers next door.

    Args:
        folder: Where everything lies.
        patch: pytest's monkeypatch: settings and keys are given by the environment, as to users.
        held: Whether runs go on and on until `let_go`, however slow the machine is.
        **sandbox: Options of `Sandbox.start`.
    """

    def __init__(self, folder, patch, *, held=False, **sandbox):
        self.folder, self.patch = folder, patch
        self.time = HeldTime()
        if held:
            sandbox = {"wait_scale": 1, "clock": self.time, **sandbox}
            sandbox["faults"] = {**HELD, **sandbox.get("faults", {})}
        self.loop = Loop()
        self.sandbox = self.loop.start(Sandbox.start(**{"wait_scale": 0, "seed": 7, **sandbox})).result(90)
        self.media = folder / "kling_media"
        self.made = []
        self.started = []
        self.set(
            RUNFLOW_URL=self.sandbox.runflow,
            RUNCOMFY_URL=self.sandbox.runcomfy,
            LEDGER=folder / "ledger.db",
            MEDIA=self.media,
            SANDBOX_WAIT=0,
        )
        self.keys("runflow", "runcomfy")
        patch.chdir(folder)

    def set(self, **settings):
        for name, value in settings.items():
            self.patch.setenv(f"KLING_NB_{name}", str(value))

    def unset(self, *names):
        for name in names:
            self.patch.delenv(f"KLING_NB_{name}", raising=False)

    def keys(self, *providers, key=KEY):
        """Set the keys of exactly these providers."""
        for name, variable in VARIABLE.items():
            if name in providers:
                self.patch.setenv(variable, key)
            else:
                self.patch.delenv(variable, raising=False)

    def session(self, *, headless=False, limits=QUICK, **settings):
        """A new session: what a restarted kernel has."""
        where = Surroundings(notebook=self.folder / "a.ipynb", folder=self.folder, headless=headless)
        session = Session(surroundings=lambda: where, engine_options={"limits": limits}, **settings)
        self.made.append(session)
        return session

    def run(self, session, ask, timeout_s=60):
        """One call with one take, to its end."""
        [run] = session.open(ask)
        return run.wait(timeout_s)

    def forget_ledger(self):
        """Delete the ledger, as a colleague who only got the folder would have none."""
        # Whoever carried a run gives its lease back a moment after its end, and would write into a new one.
        for engine in (engine for session in self.made for _, engine in session._stands.values()):
            until(lambda engine=engine: not any(each.ending for each in list(engine._drivers.values())))
        for path in list(self.folder.glob("ledger.db*")):
            path.unlink(missing_ok=True)

    def sidecar(self, run):
        """What the media folder says of a run now."""
        [path] = self.media.glob(f"*{run.id}.json")
        return path.read_text(encoding="utf-8")

    @staticmethod
    def drawn(session):
        """How often a session asked its own sandbox for a clip."""
        return sum(sandbox.stats()["submissions"] for sandbox in session.sandboxes.running)

    # -- the providers ------------------------------------------------------
    def faults(self, **settings):
        self.sandbox.set_faults(settings)

    def let_go(self):
        """Let the runs end that were held, and time go on from here."""
        self.time.let_go()

    def stats(self):
        return self.sandbox.stats()

    @property
    def submissions(self):
        return self.stats()["submissions"]

    @property
    def accepted(self):
        return self.stats()["accepted"]

    # -- processes ----------------------------------------------------------
    def start(self, *words, **env):
        """Start `python -c CODE ...` or `python -m ...` with nobody watching."""
        return self._start([sys.executable, *words], env)

    def _start(self, command, env):
        process = Popen(
            [*map(str, command)],
            cwd=self.folder,
            env={**os.environ, **{name: str(value) for name, value in env.items()}},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def script(self, code, *words, timeout_s=60, **env):
        """Run a script to its end; gives exit code, stdout and stderr."""
        return self.end(self.start("-c", code, *words, **env), timeout_s)

    def tool(self, *words, timeout_s=60, **env):
        """Run the command line to its end."""
        return self.end(self._start(["kling-nb", *words], env), timeout_s)

    @staticmethod
    def end(process, timeout_s=60):
        out, err = process.communicate(timeout=timeout_s)
        return process.returncode, out, err

    def close(self):
        for process in self.started:
            if process.poll() is None:
                process.kill()
            with contextlib.suppress(ValueError):
                process.communicate()
        for session in self.made:
            session.close()
        self.loop.start(self.sandbox.stop()).result(90)


def until(true, timeout_s=60):
    """Wait until something is so; it fails loudly when it never is."""
    end = time.monotonic() + timeout_s
    while not (found := true()):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)
    return found


def on_one_day(seconds=60):
    """Wait for the next day (UTC) where this one is nearly over: sums of a day must not fall on two."""
    now = utc_now()
    left = timedelta(days=1) - (now - now.replace(hour=0, minute=0, second=0, microsecond=0))
    if left < timedelta(seconds=seconds):
        time.sleep(left.total_seconds() + 0.01)


def houses(folder, patch):
    """Yield a factory of houses; they close with the test."""
    made = []

    def build(**sandbox):
        made.append(House(folder, patch, **sandbox))
        return made[-1]

    yield build
    for house in made:
        house.close()
