"""A stage for engine tests: real engine, ledger, store and transport against a real sandbox on loopback."""

import time
from decimal import Decimal

from pydantic import SecretStr

from kling_nb.engine.engine import Engine
from kling_nb.engine.limits import Limits
from kling_nb.engine.polling.lookup import Access
from kling_nb.ledger.database import Ledger
from kling_nb.loop import Loop
from kling_nb.pricing.catalog import find_model
from kling_nb.providers import make_provider
from kling_nb.records.base import utc_now
from kling_nb.records.money import Estimate, micros
from kling_nb.records.request import make_request, request_key, run_key
from kling_nb.records.run import RunRecord
from kling_nb.sandbox.serve import Sandbox
from kling_nb.session.plan import new_id

WIRES = ("runflow", "runcomfy")
QUICK = Limits(watch_s=60, submit_s=20, unsent_tries=3, save_tries=4, look_again_s=0.1, lease_s=3)
#: Runs that are on their way until time is let go.
HELD = {"queue_s": 0, "dispatch_s": 0, "run_s": 1}


class HeldTime:
    """Simulated seconds that stand still until they are let go: then an hour is over, and they go on."""

    def __init__(self):
        self.began = None

    def __call__(self):
        return 0.0 if self.began is None else 3600 + time.monotonic() - self.began

    def let_go(self):
        self.began = time.monotonic()


class Stage:
    """One wire, one sandbox, one ledger, one engine.

    Args:
        held: Whether runs go on and on until `let_go`, however slow the machine is.
        where: The ledger, if it is not one in the folder.
    """

    def __init__(
        self,
        folder,
        wire,
        *,
        wait_scale=0.0,
        faults=None,
        limits=QUICK,
        seed=7,
        key="test",
        held=False,
        clock=None,
        where=None,
    ):
        self.folder, self.wire, self.key, self.limits = folder, wire, key, limits
        self.loop, self.time, self.clock = Loop(), HeldTime(), clock
        options = {"wait_scale": wait_scale, "faults": faults, "seed": seed}
        if held:
            options |= {"wait_scale": 1, "clock": self.time, "faults": {**HELD, **(faults or {})}}
        self.sandbox = self.loop.start(Sandbox.start(**options)).result(90)
        self.base = getattr(self.sandbox, wire)
        self.ledger = Ledger(where or folder / "ledger.db")
        self.engine = self.new_engine()

    def new_engine(self):
        """Another process would have an engine of its own on the same ledger; so has a restarted kernel."""
        return Engine(
            loop=self.loop,
            ledger=self.ledger,
            access=self.access,
            totals=lambda play: self.ledger.totals("s", play=play),
            limits=self.limits,
            clock=self.clock,
        )

    def access(self, record):
        return Access(provider=make_provider(record.provider, self.base), key=SecretStr(self.key))

    def record(self, prompt="A red fox in snow", *, duration=3, private=False, **fields):
        """An intent on disk, with its money reserved."""
        request = make_request(prompt=prompt, duration=duration, **fields)
        model = find_model("pro")
        run_id = new_id()
        price = micros(Decimal("0.112") * request.duration)
        record = RunRecord(
            id=run_id,
            request=request,
            request_key=request_key(request, model.id),
            run_key=run_key(request, model.id, self.wire),
            model=model.id,
            provider=self.wire,
            provider_model=model.offer(self.wire).id,
            origin=self.base,
            client_ref=f"kling-nb-{run_id}-test",
            created_at=utc_now(),
            estimate=Estimate(micros=price, reserve_micros=price, basis="list"),
            reserved_micros=price,
            session_id="s",
            private=private,
            folder=str(self.folder / "kling_media"),
        )
        with self.ledger.writing() as transaction:
            transaction.insert(record)
        return record

    def go(self, *args, timeout_s=60, **fields):
        """Run one to its end."""
        return self.engine.handle(self.record(*args, **fields)).wait(timeout_s)

    def let_go(self):
        """Let the runs end that were held, and time go on from here."""
        self.time.let_go()

    def stats(self):
        return self.sandbox.stats()

    def faults(self, **settings):
        self.sandbox.set_faults(settings)

    def close(self):
        self.engine.close()
        self.loop.start(self.sandbox.stop()).result(90)
        self.ledger.close()


def kinds(stage, run):
    """The kinds of the events of a run, in order."""
    return [kind for _, kind, _ in stage.ledger.events(run.id)]
