"""A stage for engine tests: real engine, ledger, store and transport against a real sandbox on loopback."""

from decimal import Decimal

from pydantic import SecretStr

from kling_nb.catalog import find_model
from kling_nb.engine import Engine, Limits, Reach
from kling_nb.ledger import Ledger
from kling_nb.loop import Loop
from kling_nb.models import make_request, request_key, run_key
from kling_nb.plan import new_id
from kling_nb.providers import make_provider
from kling_nb.records import Estimate, RunRecord, micros, utc_now
from kling_nb.sandbox.serve import Sandbox

WIRES = ("runflow", "runcomfy")
QUICK = Limits(watch_s=60, submit_s=20, unsent_tries=3, save_tries=4, look_again_s=0.1, lease_s=3)


class Stage:
    """One wire, one sandbox, one ledger, one engine."""

    def __init__(self, folder, wire, *, wait_scale=0.0, faults=None, limits=QUICK, seed=7, key="test"):
        self.folder, self.wire, self.key, self.limits = folder, wire, key, limits
        self.loop = Loop()
        self.sandbox = self.loop.hand(Sandbox.start(wait_scale=wait_scale, faults=faults, seed=seed)).result(
            20
        )
        self.base = getattr(self.sandbox, wire)
        self.ledger = Ledger(folder / "ledger.db")
        self.engine = self.new_engine()

    def new_engine(self):
        """Another process would have an engine of its own on the same ledger; so has a restarted kernel."""
        return Engine(
            loop=self.loop,
            ledger=self.ledger,
            reach=self.reach,
            totals=lambda play: self.ledger.totals("s", play=play),
            limits=self.limits,
        )

    def reach(self, record):
        return Reach(provider=make_provider(record.provider, self.base), key=SecretStr(self.key))

    def record(self, prompt="A red fox in snow", *, duration=3, **fields):
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
            folder=str(self.folder / "kling_media"),
        )
        with self.ledger.writing() as transaction:
            transaction.insert(record)
        return record

    def go(self, *args, timeout_s=30, **fields):
        """Run one to its end."""
        return self.engine.handle(self.record(*args, **fields)).wait(timeout_s)

    def stats(self):
        return self.sandbox.stats()

    def faults(self, **settings):
        self.sandbox.set_faults(settings)

    def close(self):
        self.engine.close()
        self.loop.hand(self.sandbox.stop()).result(20)
        self.ledger.close()
