"""The ledger's invariants under any order of steps: two processes, crashes, late answers, people who resolve.

Hypothesis drives a real ledger, in a file and in PostgreSQL, beside a model of what each run's money must be.
"""

import tempfile
from collections import Counter
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from kling_nb.errors import BudgetError, LedgerError
from kling_nb.ledger.database import LeaseLostError, Ledger
from kling_nb.records.money import Estimate
from kling_nb.records.run import RunStatus
from kling_nb.session.budget import Budget
from support.clips import make_record
from support.databases import schema
from support.leases import claim, renew
from support.sums import committed

CAP = 2_000_000
PRICE = 336_000
OWNERS = ("this process", "another process")
SESSION = "s"
LIVE = {"created", "submitting", "queued", "running", "saving", "lost"}


class LedgerMachine(RuleBasedStateMachine):
    """Everything that is done to a ledger in a run's life, in any order."""

    runs = Bundle("runs")
    #: How often each step succeeded, over all examples.
    happened: ClassVar = Counter()

    def __init__(self, place):
        super().__init__()
        self.place = ExitStack()
        self.where = self.place.enter_context(place())
        self.ledger = Ledger(self.where)
        self.number = 0
        #: What is known of each run: its last state, and how many events it had.
        self.told = {}
        self.events = {}
        self.settled = {}

    def teardown(self):
        self.ledger.close()
        self.place.close()

    # -- what happens ------------------------------------------------------------------
    @rule(target=runs, prompt=st.integers(0, 7), owner=st.sampled_from(OWNERS))
    def insert(self, prompt, owner):
        """One call: decide, reserve and insert in one transaction."""
        self.number += 1
        run_id = f"k{self.number:07d}"
        record = make_record(
            id=run_id,
            prompt=f"A red fox, number {prompt}",
            session_id=SESSION,
            estimate=Estimate(micros=PRICE, reserve_micros=PRICE, basis="list"),
            reserved_micros=PRICE,
            settled_micros=None,
            status=RunStatus.CREATED,
            charged="no",
        )
        wallet = Budget(
            session_id=SESSION, cap_micros=CAP, declared=True, yes=True, headless=False, play=False
        )
        live = any(r.run_key == record.run_key and r.status.value in LIVE for r in self.ledger.runs())
        before = self.committed()
        try:
            with self.ledger.writing() as transaction:
                wallet.reserve(transaction, [PRICE])
                transaction.insert(record)
                transaction.claim(run_id, owner, 30)
        except BudgetError:
            assert before + PRICE > CAP
            self.happened["refused"] += 1
            return multiple()
        except LedgerError:
            assert live, "only a live run of the same key keeps another out"
            return multiple()
        assert not live
        assert self.committed() == before + PRICE <= CAP
        self.told[run_id] = record
        self.events[run_id] = 0
        return run_id

    @rule(target=runs, owner=st.sampled_from(OWNERS))
    def rush(self, owner):
        """A cell after the other, until the cap is full."""
        made = [self.insert(prompt=prompt, owner=owner) for prompt in range(8)]
        return multiple(*(run for run in made if isinstance(run, str)))

    def step(self, run_id, owner, kind, at, **changes):
        """One step of whoever believes to drive the run; only the holder, at that state, succeeds."""
        before = self.ledger.get(run_id)
        if before is None:
            return
        holder = self.holder(run_id)
        may = holder == owner and before.status == at
        try:
            self.ledger.change_as(owner, run_id, kind, at=at, **changes)
        except LeaseLostError:
            assert not may
            assert self.ledger.get(run_id) == before
        else:
            assert may
            self.happened[kind] += 1

    @rule(run=runs, owner=st.sampled_from(OWNERS))
    def submit(self, run, owner):
        """Committed before the POST."""
        self.step(run, owner, "submitting", RunStatus.CREATED, status=RunStatus.SUBMITTING)

    @rule(run=runs, owner=st.sampled_from(OWNERS))
    def unsent(self, run, owner):
        """The POST provably did not leave."""
        self.step(run, owner, "unsent", RunStatus.SUBMITTING, status=RunStatus.CREATED)

    @rule(run=runs, owner=st.sampled_from(OWNERS), number=st.integers(1, 2))
    def accept(self, run, owner, number):
        """The provider's id is written down by whoever has it, unless the holder has one already."""
        before = self.ledger.get(run)
        # Only who committed `submitting` once has an answer to write down.
        if before is None or "submitting" not in [kind for _, kind, _ in self.ledger.events(run)]:
            return
        if self.holder(run) == owner and before.status not in {RunStatus.SUBMITTING, RunStatus.LOST}:
            return
        try:
            after = self.ledger.accept(
                owner,
                run,
                "accepted",
                provider_run_id=f"p{number}",
                status=RunStatus.QUEUED,
                charged="unknown",
            )
        except LeaseLostError:
            assert self.ledger.get(run) == before
            assert before.provider_run_id is not None
        else:
            assert after.provider_run_id == f"p{number}"
            self.happened["accepted"] += 1

    @rule(run=runs, owner=st.sampled_from(OWNERS))
    def saving(self, run, owner):
        """The provider is done."""
        self.step(run, owner, "done", RunStatus.QUEUED, status=RunStatus.SAVING, charged="yes")

    @rule(run=runs, owner=st.sampled_from(OWNERS), reported=st.sampled_from([None, 0, PRICE, 2 * PRICE]))
    def saved(self, run, owner, reported):
        """The clip is kept and the bill settled."""
        settled = PRICE if reported is None else reported
        self.step(
            run,
            owner,
            "saved",
            RunStatus.SAVING,
            status=RunStatus.SUCCEEDED,
            reported_micros=reported,
            settled_micros=settled,
            reserved_micros=0,
        )

    @rule(
        run=runs,
        owner=st.sampled_from(OWNERS),
        charged=st.sampled_from(["yes", "no", "unknown"]),
        at=st.sampled_from([RunStatus.SUBMITTING, RunStatus.QUEUED, RunStatus.SAVING]),
    )
    def failed(self, run, owner, charged, at):
        """It ended without a clip; an unknown charge keeps its reservation."""
        money = {
            "yes": {"settled_micros": PRICE, "reserved_micros": 0},
            "no": {"settled_micros": 0, "reserved_micros": 0},
            "unknown": {},
        }[charged]
        self.step(run, owner, "failed", at, status=RunStatus.FAILED, charged=charged, **money)

    @rule(run=runs, owner=st.sampled_from(OWNERS))
    def canceled(self, run, owner):
        """It was never sent."""
        self.step(
            run,
            owner,
            "canceled",
            RunStatus.CREATED,
            status=RunStatus.CANCELED,
            settled_micros=0,
            reserved_micros=0,
        )

    @rule(run=runs, owner=st.sampled_from(OWNERS))
    def lost(self, run, owner):
        """Nobody knows whether the provider made it."""
        self.step(run, owner, "lost", RunStatus.SUBMITTING, status=RunStatus.LOST, charged="unknown")

    @rule(run=runs, choices=st.lists(st.integers(0, 5), min_size=3, max_size=6))
    def go_on(self, run, choices):
        """The holder does what comes next, as it does nearly always."""
        for choice in choices:
            record, owner = self.ledger.get(run), self.holder(run)
            if record is None or record.status.ended:
                return
            if owner is None:
                owner = OWNERS[0]
                assert claim(self.ledger, run, owner, 30)
            if record.status == RunStatus.CREATED:
                [self.submit, self.submit, self.submit, self.submit, self.submit, self.canceled][choice](
                    run=run, owner=owner
                )
            elif record.status == RunStatus.SUBMITTING:
                if choice < 3:
                    self.accept(run=run, owner=owner, number=1)
                else:
                    [self.unsent, self.lost, self.lost][choice - 3](run=run, owner=owner)
            elif choice == 5:
                self.failed(run=run, owner=owner, charged="unknown", at=record.status)
            elif record.status == RunStatus.QUEUED:
                self.saving(run=run, owner=owner)
            else:
                self.saved(run=run, owner=owner, reported=[None, 0, PRICE, 2 * PRICE, None][choice])

    @rule(run=runs)
    def abandon(self, run):
        """A person says that a lost run was never made."""
        record = self.ledger.get(run)
        if record is not None and record.status == RunStatus.LOST:
            self.happened["abandoned"] += 1
            self.ledger.change(
                run,
                "abandoned",
                status=RunStatus.FAILED,
                charged="no",
                settled_micros=0,
                reserved_micros=0,
            )

    @rule(run=runs, owner=st.sampled_from(OWNERS))
    def settle_twice(self, run, owner):
        """A second end of an ended run, by whoever holds it, changes nothing."""
        record = self.ledger.get(run)
        if record is not None and record.status.ended:
            self.step(
                run, owner, "saved", RunStatus.SAVING, status=RunStatus.SUCCEEDED, settled_micros=2 * PRICE
            )
            assert self.ledger.get(run) == record

    @rule(run=runs, owner=st.sampled_from(OWNERS))
    def claim(self, run, owner):
        """Nobody takes what another holds."""
        holder = self.holder(run)
        got = claim(self.ledger, run, owner, 30)
        assert got == (run in self.told and holder in {None, owner})

    @rule(run=runs, owner=st.sampled_from(OWNERS))
    def beat(self, run, owner):
        """A heartbeat keeps and never takes."""
        assert renew(self.ledger, run, owner, 30) == (run in self.told and self.holder(run) == owner)

    @rule(run=runs, owner=st.sampled_from(OWNERS), unmoved=st.booleans())
    def take_over(self, run, owner, unmoved):
        """The holder is dead: its lease has run out, and while it was sending nobody believes the clock."""
        record, holder = self.ledger.get(run), self.holder(run)
        if record is None or holder is None:
            return
        assert renew(self.ledger, run, holder, -1)
        seen = self.ledger.lease(run) if unmoved else None
        got = claim(self.ledger, run, owner, 30, unmoved=seen)
        assert got == (holder == owner or unmoved or record.status != RunStatus.SUBMITTING)

    @rule(run=runs, owner=st.sampled_from(OWNERS))
    def release(self, run, owner):
        """Only the holder gives it back."""
        before = self.holder(run)
        self.ledger.release(run, owner)
        assert self.holder(run) == (None if before == owner else before)

    @rule()
    def crash(self):
        """The process dies and another opens the ledger."""
        # Nothing is open between two steps, so a dead process leaves what a closed ledger does.
        self.ledger.close()
        self.ledger = Ledger(self.where)

    # -- what must hold ----------------------------------------------------------------
    def holder(self, run_id):
        with self.ledger.reading() as transaction:
            return transaction.owner(run_id)

    def committed(self):
        with self.ledger.reading() as transaction:
            return committed(transaction, play=False, session_id=SESSION)

    @invariant()
    def money_adds_up(self):
        """The sums are those of the runs; nothing is negative; unknown is counted and never 0."""
        records = self.ledger.runs()
        assert {record.id for record in records} == set(self.told)
        assert all(record.reserved_micros >= 0 for record in records)
        total = self.ledger.totals(SESSION, play=False)
        assert total.reserved_micros == sum(record.reserved_micros for record in records)
        assert total.settled_micros == sum(record.settled_micros or 0 for record in records)
        unknown = [r for r in records if r.status.ended and r.settled_micros is None]
        assert total.unknown == len(unknown)
        assert all(record.reserved_micros == PRICE for record in unknown)
        for record in records:
            if record.settled_micros is not None:
                assert record.reserved_micros == 0
                assert self.settled.setdefault(record.id, record.settled_micros) == record.settled_micros

    @invariant()
    def one_live_run_per_key(self):
        """Two live runs of a key would be paid twice."""
        keys = [record.run_key for record in self.ledger.runs() if record.status.value in LIVE]
        assert len(keys) == len(set(keys))

    @invariant()
    def history_only_grows_and_explains_the_state(self):
        """Events are appended, and replayed they lead to the present state."""
        for record in self.ledger.runs():
            events = self.ledger.events(record.id)
            assert len(events) >= self.events[record.id]
            self.events[record.id] = len(events)
            assert events[0][1] == "created"
            assert events[-1][2]["status"] == record.status.value
            money = [data["settled_micros"] for _, _, data in events if "settled_micros" in data]
            assert (money[-1] if money else None) == record.settled_micros


@contextmanager
def file_in_memory():
    """A file in memory, where there is such a folder: thousands of commits, and no power cut to survive."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder) / "ledger.db"


def one_life_to_each_end(place):
    """Take every step at least once, whatever else is drawn."""
    machine, owner = LedgerMachine(place), OWNERS[0]
    saved, failed, lost, canceled, *_ = (machine.insert(prompt=number, owner=owner) for number in range(6))
    for run in (saved, failed, lost):
        machine.submit(run=run, owner=owner)
    machine.accept(run=saved, owner=owner, number=1)
    machine.saving(run=saved, owner=owner)
    machine.saved(run=saved, owner=owner, reported=None)
    machine.failed(run=failed, owner=owner, charged="no", at=RunStatus.SUBMITTING)
    machine.lost(run=lost, owner=owner)
    machine.canceled(run=canceled, owner=owner)
    machine.money_adds_up()
    machine.one_live_run_per_key()
    machine.history_only_grows_and_explains_the_state()
    machine.teardown()


@pytest.mark.parametrize(
    ("kind", "examples"),
    [("sqlite", 20), ("postgresql", 3), pytest.param("postgresql", 20, marks=pytest.mark.matrix)],
)
def test_no_order_of_steps_breaks_the_books(request, kind, examples):
    """Whatever comes after whatever: the money adds up, ends stay ends, and the history tells it."""
    place = file_in_memory
    if kind == "postgresql":
        place = partial(schema, request.getfixturevalue("postgresql"))
    LedgerMachine.happened.clear()
    one_life_to_each_end(place)
    run_state_machine_as_test(
        lambda: LedgerMachine(place), settings=settings(max_examples=examples, stateful_step_count=40)
    )
    happened = LedgerMachine.happened
    assert sum(happened.values()) > 50, happened
    steps = ("submitting", "accepted", "done", "saved", "failed", "canceled", "lost", "refused")
    assert all(happened[step] for step in steps), happened
