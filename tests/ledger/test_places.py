"""Places in flight: shared by all kernels on a ledger, single runs first, fewer after a 429."""

import math
from datetime import timedelta
from itertools import count

import pytest

from kling_nb.ledger.databases import postgresql, statements
from kling_nb.ledger.places import NoPlaceError, Seeker, leave, look, lower, place_key, take
from kling_nb.records.base import utc_now
from kling_nb.records.run import RunStatus
from support.clips import make_record
from support.leases import claim

NAMES = [f"k{number:07d}" for number in range(12)]


class Kernel:
    """One of several kernels on a ledger."""

    def __init__(self, ledger, owner, most=4):
        self.ledger, self.owner, self.most = ledger, owner, most

    @property
    def seeker(self):
        return Seeker(place_key(make_record()), self.owner, self.most)

    def send(self, name, sweep="", *, lease_s=30):
        """Send a run, as the engine does; whether there was a place."""
        try:
            with self.ledger.writing() as transaction:
                transaction.claim(name, self.owner, lease_s)
                take(transaction, name, self.seeker, sweep)
                self.change(transaction, name, RunStatus.SUBMITTING)
        except NoPlaceError:
            return False
        return True

    def change(self, transaction, name, status, **more):
        transaction.change_as(self.owner, name, status.value, {"status": status, **more})

    def end(self, name):
        with self.ledger.writing() as transaction:
            self.change(transaction, name, RunStatus.SAVING)

    def look(self, *waiting):
        with self.ledger.writing() as transaction:
            return look(transaction, self.seeker, waiting)

    def refused(self, name, *, step_s=60):
        with self.ledger.writing() as transaction:
            sent_at = transaction.get(name).submitted_at
            lower(transaction, self.seeker.account, sent_at, step_s)
            self.change(transaction, name, RunStatus.CREATED)


@pytest.fixture
def even_clock(monkeypatch):
    """A clock that goes on with each look at it, and not while this machine stands still."""
    began, looks = utc_now(), count()
    monkeypatch.setattr(statements, "utc_now", lambda: began + timedelta(milliseconds=next(looks)))
    # By how much a server's clock is ahead is only as sure as its answer is quick.
    monkeypatch.setattr(
        postgresql, "_set_clock", lambda connection, _: connection.info.update(ahead=timedelta())
    )


@pytest.fixture
def shelf(ledger, even_clock):
    with ledger.writing() as transaction:
        for take_number, name in enumerate(NAMES):
            transaction.insert(make_record(id=name, take=take_number))
    return ledger


@pytest.fixture
def pair(shelf):
    return Kernel(shelf, "a"), Kernel(shelf, "b")


def rows(ledger):
    with ledger.reading() as transaction:
        query = "SELECT run_id, account, sweep FROM places ORDER BY run_id"
        return [tuple(row) for row in transaction.connection.exec_driver_sql(query)]


def test_all_kernels_count_together(pair):
    """Four places are four, whoever has them; an end gives one back, in the transaction that writes it."""
    a, b = pair
    assert [a.send(NAMES[0]), a.send(NAMES[1]), b.send(NAMES[2]), b.send(NAMES[3])] == [True] * 4
    assert not a.send(NAMES[4])
    assert not b.send(NAMES[4])
    b.end(NAMES[2])
    assert a.send(NAMES[4])
    assert a.ledger.get(NAMES[4]).status is RunStatus.SUBMITTING
    assert len(rows(a.ledger)) == 4


def test_a_dead_kernel_gives_its_places_back(pair):
    """When its leases run out, and no sooner; a run that another kernel takes over has its place again."""
    a, b = pair
    assert all(a.send(name, lease_s=-1) for name in NAMES[:4])
    assert all(b.send(name) for name in NAMES[4:8])
    assert not b.send(NAMES[8])
    with b.ledger.writing() as transaction:
        transaction.claim(NAMES[0], "b", 30, unmoved=transaction.lease(NAMES[0]))
    b.end(NAMES[4])
    assert not b.send(NAMES[8])


def test_who_lets_go_of_a_run_lets_go_of_its_place(pair):
    """Given back with the lease, taken again with it: the same key by trigger and by hand."""
    a, b = pair
    a.send(NAMES[0], "owls")
    before = rows(a.ledger)
    assert before == [(NAMES[0], a.seeker.account, "owls")]
    a.ledger.release(NAMES[0], "a")
    assert rows(a.ledger) == []
    assert claim(a.ledger, NAMES[0], "b", 30)
    assert rows(a.ledger) == [(NAMES[0], a.seeker.account, "")]
    with b.ledger.writing() as transaction:
        leave(transaction, NAMES[0])
    assert rows(a.ledger) == []


def test_sweeps_leave_a_place_to_single_runs(pair):
    """Three of four, in all kernels together; with a limit of one they may have it."""
    a, b = pair
    assert [a.send(name, "owls") for name in NAMES[:2]] == [True, True]
    assert b.send(NAMES[2], "foxes")
    assert not a.send(NAMES[3], "owls")
    assert b.send(NAMES[3])
    alone = Kernel(a.ledger, "c", most=1)
    for name in NAMES[:4]:
        (b if name in NAMES[2:4] else a).end(name)
    assert alone.send(NAMES[4], "owls")


def test_the_next_place_is_for_the_single_run_that_waits(shelf):
    """A kernel whose run has ended does not take it for its sweep."""
    a, b = Kernel(shelf, "a", 1), Kernel(shelf, "b", 1)
    assert a.send(NAMES[0], "owls")
    assert not b.send(NAMES[1])
    assert b.look("").others
    a.end(NAMES[0])
    assert not a.send(NAMES[2], "owls")
    assert a.look("owls").ahead == {"owls": (1, 0)}
    assert b.send(NAMES[1])
    b.look()
    assert not a.look("owls").lined


def test_two_sweeps_have_places_in_turns(shelf):
    """Of two kernels with a sweep each, and a limit of one."""
    a, b = kernels = Kernel(shelf, "a", 1), Kernel(shelf, "b", 1)
    assert a.send(NAMES[0], "owls")
    sent, had = [], a
    for name, before in zip(NAMES[1:7], NAMES, strict=False):
        for kernel, sweep in zip(kernels, ("owls", "foxes"), strict=True):
            kernel.look(sweep)
        had.end(before)
        for kernel, sweep in ((a, "owls"), (b, "foxes")):
            if kernel.send(name, sweep):
                sent.append(kernel.owner)
                had = kernel
                break
    assert sent == ["a", "b"] * 3


def test_a_refusal_for_the_rate_halves_what_all_may_have(pair, monkeypatch):
    """Once for all that was sent before it; a place comes back each minute, at least one is there."""
    a, b = pair
    now, ahead = utc_now(), [timedelta()]
    monkeypatch.setattr(statements, "utc_now", lambda: utc_now() + ahead[0])
    for name in NAMES[:4]:
        a.send(name, lease_s=3600)
        with a.ledger.writing() as transaction:
            a.change(transaction, name, RunStatus.SUBMITTING, submitted_at=now - timedelta(seconds=1))
    a.refused(NAMES[3])
    a.refused(NAMES[2])
    flow = b.look("")
    assert (flow.most, flow.lowered) == (2, True)
    # Both keep their places, and the two that are there leave none: the one that is older goes first.
    assert not a.send(NAMES[3])
    a.end(NAMES[0])
    assert not a.send(NAMES[3], lease_s=3600)
    assert a.send(NAMES[2], lease_s=3600)
    ahead[0] += timedelta(seconds=61)
    assert b.look("").most == 3
    assert a.send(NAMES[3], lease_s=3600)
    ahead[0] += timedelta(seconds=61)
    flow = b.look("")
    assert (flow.most, flow.lowered) == (4, False)


def test_who_waits_knows_when_the_first_lease_of_others_ends(pair):
    """Nobody tells of that; a kernel that is there renews it long before."""
    a, b = pair
    assert b.look("").lapse_s == math.inf
    assert a.send(NAMES[0], lease_s=600)
    assert 30 < b.look("").lapse_s <= 600
    assert a.send(NAMES[1], lease_s=30)
    assert 0 < b.look("").lapse_s <= 30
    assert a.look("").lapse_s == math.inf, "its own it keeps"
