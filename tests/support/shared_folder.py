"""A media folder that kernels with a ledger each share, as real processes, and a sandbox that counts."""

import contextlib
import signal

from kling_nb.ledger.database import Ledger
from kling_nb.loop import Loop
from kling_nb.sandbox.serve import Sandbox
from support.workbench import KEY, VARIABLE

PROMPT = "A red fox in snow"


class Shared:
    """A folder that kernels with a ledger each share, and a sandbox that counts."""

    def __init__(self, folder, nursery, wire):
        self.folder, self.nursery, self.wire = folder, nursery, wire
        self.media, self.children = folder / "kling_media", []
        self.loop = Loop()
        self.sandbox = self.loop.start(Sandbox.start(wait_scale=1, seed=7)).result(90)
        self.sandbox.set_faults(
            {"queue_s": 0, "dispatch_s": 0, "run_s": 0.1, "submit_slow": 1, "slow_s": 0.3}
        )

    def start(self, name, *prompts, **spec):
        env = {
            "KLING_NB_RUNFLOW_URL": self.sandbox.runflow,
            "KLING_NB_RUNCOMFY_URL": self.sandbox.runcomfy,
            "KLING_NB_LEDGER": str(self.folder / f"{name}.db"),
            "KLING_NB_MEDIA": str(self.media),
            "HOME": str(self.folder),
            **dict.fromkeys(VARIABLE.values(), KEY),
        }
        spec = {"do": "cell", "env": env, "folder": str(self.folder), "wire": self.wire, **spec}
        self.children.append(self.nursery.start(prompts=list(prompts or [PROMPT]), **spec))
        return self.children[-1]

    def cell(self, name, *prompts):
        return self.start(name, *prompts).said()["runs"]

    def runs(self, name):
        with contextlib.closing(Ledger(self.folder / f"{name}.db")) as ledger:
            return ledger.runs()

    @property
    def sent(self):
        return self.sandbox.stats()["submissions"]

    def claims(self):
        return list(self.media.glob(".*.claim"))

    def close(self):
        for child in self.children:
            if child.code is None:
                with contextlib.suppress(ProcessLookupError):
                    child.signal(signal.SIGKILL)
                child.wait()
        self.loop.start(self.sandbox.stop()).result(90)
