"""A look at a sweep costs what changed since the one before, and says what a first look would say."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from kling_nb.ledger.database import Ledger
from kling_nb.ledger.sweeps import Stored, newest
from kling_nb.records.money import Totals
from kling_nb.records.run import RunStatus
from kling_nb.sweeps.entry import Entry
from kling_nb.sweeps.progress import look
from kling_nb.sweeps.standing import Standing
from support.clips import make_record

BEGAN = datetime(2026, 11, 20, 9, tzinfo=UTC)
ENDS = (
    {"status": RunStatus.SUCCEEDED, "charged": "yes", "settled_micros": 336_000, "reserved_micros": 0},
    {"status": RunStatus.FAILED, "reason": "provider", "charged": "no", "reserved_micros": 0},
    {"status": RunStatus.FAILED, "reason": "moderated", "charged": "no", "reserved_micros": 0},
    {"status": RunStatus.CANCELED, "charged": "no", "reserved_micros": 0},
    {"status": RunStatus.LOST, "charged": "unknown"},
    {"status": RunStatus.RUNNING},
)


@pytest.fixture
def sweep_of(tmp_path):
    """A factory of ledgers with one sweep, each of whose members has a run on its way."""
    ledgers = []

    def make(size):
        ledger = Ledger(tmp_path / f"of {size}.db")
        ledgers.append(ledger)
        # As long as a grid of so many prompts.
        stored = Stored(name="owls", grid=[{"rows": list(range(size))}], created_at=BEGAN, state="started")
        session = SimpleNamespace(
            ledger=lambda: ledger,
            totals=lambda *, play: Totals(settled_micros=0, reserved_micros=0, play=play),
        )
        entry = Entry(session, stored)
        entry.put(
            stored,
            [(number, make_record(prompt=f"Owl {number}").request_key, None) for number in range(size)],
            before=None,
        )
        for number in range(size):
            add(ledger, number)
        return ledger, entry

    yield make
    for ledger in ledgers:
        ledger.close()


def add(ledger, number, attempt=1):
    record = make_record(
        id=f"r{number}x{attempt}",
        prompt=f"Owl {number}",
        status=RunStatus.QUEUED,
        attempt=attempt,
        reserved_micros=336_000,
        created_at=BEGAN + timedelta(seconds=number + 1000 * attempt),
        play=False,
    )
    with ledger.writing() as transaction:
        transaction.insert(record)


def end(ledger, run_id, how, seconds=0):
    ended = how["status"].ended
    finished = {"finished_at": BEGAN + timedelta(seconds=5000 + seconds)} if ended else {}
    ledger.change(run_id, "ended", **how, **finished)


def steps_of_a_look(ledger, entry):
    """Count the instructions that the database carries out for one look."""
    steps = 0

    def count():
        nonlocal steps
        steps += 1

    with ledger.reading() as transaction:
        transaction.connection.connection.dbapi_connection.set_progress_handler(count, 1)
    entry.state()
    found = look(entry._session, entry.stored, entry.standing, 0)
    return steps, found


def test_a_look_costs_what_changed_and_not_the_size(sweep_of):
    """As many instructions of the database for 500 members as for 20."""
    counts = []
    for size in (20, 500):
        ledger, entry = sweep_of(size)
        first, _ = steps_of_a_look(ledger, entry)
        end(ledger, "r7x1", ENDS[0])
        again, found = steps_of_a_look(ledger, entry)
        assert (found.done, found.going) == (1, size - 1)
        assert again < first
        counts.append(again)
    assert counts[0] == counts[1] > 0


def test_what_is_kept_up_to_date_is_what_a_first_look_finds(sweep_of):
    """Through ends of every kind, later tries, clips that come after all, and runs of nobody's sweep."""
    ledger, entry = sweep_of(12)
    chance = random.Random(14)
    tries = dict.fromkeys(range(12), 1)
    for step in range(60):
        number = chance.randrange(12)
        attempt = tries[number]
        record = ledger.get(f"r{number}x{attempt}")
        if record.status.ended and record.status is not RunStatus.LOST and chance.random() < 0.6:
            tries[number] += 1
            add(ledger, number, tries[number])
        else:
            end(ledger, record.id, chance.choice(ENDS), step)
        if step % 7 == 0:
            add(ledger, 100 + step)
        with entry.looked() as kept, ledger.reading() as transaction:
            fresh = Standing(entry.stored).look(transaction)
            for name in ("stands", "pending", "not_sent", "done", "ends", "moved_at", "failed"):
                assert getattr(kept, name) == getattr(fresh, name), (step, name)
            assert +kept.money == +fresh.money, step
            bad = [{kind: ids for kind, ids in one.bad.items() if ids} for one in (kept, fresh)]
            assert bad[0] == bad[1], step
            [summed] = newest(transaction, 9)
        seen = look(entry._session, entry.stored, entry.standing, 12)
        sums = ("done", "going", "queued", "failed", "free", "waiting")
        for name in (*sums, "spent_micros", "reserved_micros", "unknown"):
            assert getattr(summed, name) == getattr(seen, name), (step, name)
    assert len(set(kept.ended)) > 12


def test_a_run_that_answers_two_members_is_money_once(sweep_of):
    """As where a grid without a provider was grown by one that names it; and only the newest are listed."""
    ledger, entry = sweep_of(3)
    end(ledger, "r0x1", ENDS[0])
    key = make_record(prompt="Owl 0").request_key
    more = replace(entry.stored, name="more", created_at=BEGAN + timedelta(days=1))
    older = replace(entry.stored, name="older", created_at=BEGAN - timedelta(days=1))
    for stored in (more, older):
        entry.put(stored, [(0, key, None), (1, key, make_record().provider), (2, key, "nobody")], before=None)
    with ledger.reading() as transaction:
        found = {one.name: one for one in newest(transaction, 9)}
        assert list(found) == ["more", "owls", "older"]
        assert [one.name for one in newest(transaction, 1)] == ["more"]
    assert (found["older"].members, found["older"].done, found["older"].waiting) == (3, 2, 1)
    # What was there before a sweep began is none of its money.
    assert (found["older"].spent_micros, found["more"].spent_micros, found["more"].done) == (336_000, 0, 2)
