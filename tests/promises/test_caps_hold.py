"""Many processes hammer one budget of $5 and some are killed: never more is held, and no cent is lost."""

import json
import random
import time
from contextlib import closing

import pytest
import sqlalchemy as sa

from kling_nb.ledger.database import Ledger
from kling_nb.ledger.schema import EVENTS
from kling_nb.loop import Loop
from kling_nb.records.money import micros
from kling_nb.records.run import RunStatus
from kling_nb.sandbox.serve import Sandbox
from support.crash import Nursery
from support.databases import in_postgresql, restart, schema, server
from support.stage import HELD, WIRES, HeldTime
from support.sums import committed
from support.workbench import KEY, VARIABLE

CAP, EACH = 5_000_000, 560_000
MOST = CAP // EACH
ENDS = {status.value for status in RunStatus if status.ended}


class Hammer:
    """Processes, one ledger, one budget, and what is seen of it meanwhile.

    Args:
        folder: Where everything lies.
        sandbox: The provider, running; its runs are held.
        ledger: The address of the ledger: a file, or a database.
        level: Which budget it is: `user`, or a `session` with a name.
        wire: Which provider.
        seed: Of the choice of whom to kill.
    """

    def __init__(self, folder, sandbox, ledger, *, level, wire, seed):
        self.folder, self.sandbox, self.wire = folder, sandbox, wire
        self.random = random.Random(seed)
        self.where = ledger
        self.book = Ledger(ledger)
        self.nursery = Nursery(folder)
        self.stop, self.tally = folder / "stop", folder / "tally"
        self.tally.touch()
        self.living, self.killed, self.looks, self.most = {}, [], 0, 0
        budget = {"KLING_NB_USER_TOTAL": "5.00", "KLING_NB_BUDGET": "1000"}
        if level == "session":
            budget = {"KLING_NB_BUDGET": "5.00"}
        self.spec = {
            "folder": str(folder),
            "wire": wire,
            "env": {
                "KLING_NB_RUNFLOW_URL": sandbox.runflow,
                "KLING_NB_RUNCOMFY_URL": sandbox.runcomfy,
                "KLING_NB_LEDGER": str(ledger),
                "KLING_NB_MEDIA": str(folder / "media"),
                "HOME": str(folder),
                **budget,
                **dict.fromkeys(VARIABLE.values(), KEY),
            },
            # Some runs are held until the last kill.
            "limits": {"watch_s": 400},
            **({"session": "the one budget"} if level == "session" else {}),
        }

    def start(self, name, most=1):
        child = self.nursery.start(
            do="hammer", name=name, most=most, stop=str(self.stop), tally=str(self.tally), **self.spec
        )
        self.living[child.pid] = child

    def look(self):
        """Read what is spent and held at this moment; give who holds it, and who of them by a sent run."""
        with self.book.reading() as transaction:
            self.most = max(self.most, committed(transaction, play=False))
            pending = [run for run in self.book.runs() if run.status.value not in ENDS]
            owners = {run.id: transaction.owner(run.id) for run in pending}
        self.looks += 1
        assert self.most <= CAP
        held = [(int(owners[run.id].split(":")[1]), run) for run in pending if owners[run.id]]
        return {pid for pid, _ in held}, {pid for pid, run in held if run.provider_run_id}

    def kill(self, pid):
        child = self.living.pop(pid)
        child.signal(9)
        assert child.wait() == -9
        self.killed.append(pid)

    def hammer(self, processes, kills, let_go, meanwhile):
        """Let them all buy at once, kill some that hold money (seven at most), and let the runs end."""
        for number in range(processes):
            self.start(f"process {number}", most=1 if number else 2)
        end = time.monotonic() + 400
        while True:
            assert time.monotonic() < end, "it never came to an end"
            owners, sent = self.look()
            mine = sorted(owners & self.living.keys())
            if len(self.killed) < kills:
                # Every other one at whatever step it is, the others when their run is on its way.
                ready = mine if len(self.killed) % 2 else sorted(sent & self.living.keys())
                if not ready:
                    time.sleep(0.01)
                    continue
                self.kill(self.random.choice(ready))
                self.start(f"in place of number {len(self.killed)}")
                if len(self.killed) == kills // 2:
                    meanwhile()
                if len(self.killed) == kills:
                    let_go()
            elif len(self.book.runs()) >= MOST and not mine and self.tally.stat().st_size > 4 * processes:
                # Whatever is pending still belongs to the dead, and all others were refused again and again.
                break
            time.sleep(0.01)
        self.stop.touch()
        said = [child.said()["runs"] for child in self.living.values()]
        self.look()
        return sum(one[0]["refused"] for one in said), [run for one in said for run in one[1:]]

    def recover(self):
        """A new process finishes what the dead left behind; then another one buys what there is room for."""
        self.nursery.run(do="take up", **self.spec)
        self.look()
        filled = self.nursery.run(do="hammer", name="the last one", **self.spec)["runs"]
        assert filled[0]["refused"] == 1
        self.nursery.run(do="take up", **self.spec)
        self.look()
        return filled[1:]

    def replay(self):
        """Give from the events alone the most ever spent and held, how many there are, and where it ended."""
        address = str(self.where).replace("postgresql:", "postgresql+psycopg:")
        engine = sa.create_engine(address if "://" in address else f"sqlite:///{address}")
        with closing(engine.connect()) as connection:
            events = connection.execute(
                sa.select(EVENTS.c.run_id, EVENTS.c.data).order_by(EVENTS.c.number)
            ).all()
        engine.dispose()
        held, most = {}, 0
        for run_id, data in events:
            money = json.loads(data)
            held[run_id] = money["reserved_micros"] + (money["settled_micros"] or 0)
            most = max(most, sum(held.values()))
        return most, len(events), held

    def close(self):
        self.stop.touch()
        self.book.close()
        self.nursery.close()


def judge(folder, ledger, *, processes, kills, level="user", wire="runflow", seed=7, meanwhile=lambda: None):
    loop, held_time = Loop(), HeldTime()
    faults = {**HELD, "submit_slow": 0.5, "slow_s": 0.2}
    sandbox = loop.start(Sandbox.start(wait_scale=1, clock=held_time, faults=faults)).result(90)
    hammer = Hammer(folder, sandbox, ledger, level=level, wire=wire, seed=seed)
    try:
        refused, ended = hammer.hammer(processes, kills, held_time.let_go, meanwhile)
        ended += hammer.recover()
        records = hammer.book.runs()
        most, events, held = hammer.replay()
        stats = sandbox.stats()
    finally:
        hammer.close()
        loop.start(sandbox.stop()).result(90)
    # At no reservation, and at no look, was there more than the budget.
    assert hammer.most <= most <= CAP
    # Eight runs are held, two of them perhaps by one process.
    assert len(hammer.killed) == kills
    assert hammer.looks > kills
    assert refused > processes
    assert events > 3 * MOST
    # And every cent is accounted for: what the provider itself billed is settled, or held for it.
    billed = micros(sum_of(stats))
    settled = sum(record.settled_micros or 0 for record in records)
    reserved = sum(record.reserved_micros for record in records)
    assert held == {record.id: record.reserved_micros + (record.settled_micros or 0) for record in records}, (
        "the history tells the present"
    )
    assert all(record.status.ended for record in records)
    lost = [record for record in records if record.status == RunStatus.LOST]
    assert reserved == EACH * len(lost)
    known = sum(record.status == RunStatus.SUCCEEDED for record in records)
    assert settled == EACH * known
    if wire == "runflow":
        # It can be asked by our reference, so nothing stays unknown.
        assert (lost, billed) == ([], settled)
    assert settled <= billed <= settled + reserved
    assert stats["accepted"] * EACH == billed
    assert known + len(lost) == MOST
    assert all(run["status"] == "succeeded" and run["whole"] for run in ended), ended
    return stats["accepted"]


def sum_of(stats):
    from decimal import Decimal

    return Decimal(stats["billed"])


@pytest.mark.timeout(600)
def test_sixteen_processes_and_one_budget(tmp_path):
    """Sixteen processes, six kills, $5: eight clips of $0.56 in the end, and never a cent over."""
    assert judge(tmp_path, tmp_path / "ledger.db", processes=16, kills=6) == MOST


CASES = [("runflow", "user", seed) for seed in range(5)]
CASES += [(wire, level, seed) for wire in WIRES for level in ("user", "session") for seed in (5, 6)]


@pytest.mark.matrix
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("wire", "level", "seed"), CASES)
def test_the_budget_holds_whoever_dies(tmp_path, wire, level, seed):
    """The same again and again, at both wires, for a budget of the user and for one of a named session."""
    judge(tmp_path, tmp_path / "ledger.db", processes=16, kills=7, level=level, wire=wire, seed=seed)


@pytest.mark.matrix
@pytest.mark.timeout(600)
@pytest.mark.parametrize("wire", WIRES)
@in_postgresql
def test_the_budget_of_a_team_holds_whoever_dies(tmp_path, where, wire):
    """The same with the ledger of a team."""
    judge(tmp_path, where, processes=16, kills=6, wire=wire)


@pytest.mark.timeout(600)
@in_postgresql
def test_nine_processes_and_one_budget_of_a_team(tmp_path, where):
    """Nine processes, two kills, on PostgreSQL."""
    assert judge(tmp_path, where, processes=9, kills=2) == MOST


@pytest.mark.matrix
@pytest.mark.timeout(600)
def test_the_budget_holds_while_the_server_is_stopped_and_started(tmp_path):
    """At once, as in a crash, while sixteen processes buy and some are killed."""
    postgres = server(tmp_path)
    with schema(postgres.get_uri()) as address:
        found = judge(tmp_path, address, processes=16, kills=6, meanwhile=lambda: restart(postgres))
    assert found == MOST
