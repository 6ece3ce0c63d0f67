"""Two ledgers and one folder: kernels that share nothing but the clips pay once, in real processes."""

import signal

import pytest

from support.crash import Nursery
from support.matrix import ONE_WIRE
from support.shared_folder import PROMPT, Shared
from support.workbench import until


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    started = Nursery(tmp_path_factory.mktemp("children"))
    yield started
    started.close()


@pytest.fixture(params=ONE_WIRE)
def shared(request, tmp_path, nursery):
    made = Shared(tmp_path, nursery, request.param)
    yield made
    made.close()


def test_kernels_with_a_ledger_each_pay_once_at_the_same_instant(shared):
    """Three kernels run the same three cells at once: three submits, and each kernel has every clip."""
    prompts = [f"{PROMPT}, number {number}" for number in range(3)]
    # Nobody dies here, and on a busy machine a sign of life may be late.
    limits = {"lease_s": 10, "watch_s": 400}
    children = [shared.start(name, *prompts, limits=limits, patience_s=400) for name in ("ann", "bob", "cat")]
    ends = [child.said()["runs"] for child in children]
    assert [[run.get("status") for run in runs] for runs in ends] == [["succeeded"] * 3] * 3, ends
    assert all(run["whole"] for runs in ends for run in runs)
    assert len({run["id"] for runs in ends for run in runs}) == 3
    assert shared.sent == 3
    assert shared.claims() == [], "a claim is over with the provider's id"
    paid = [run.settled_micros for name in ("ann", "bob", "cat") for run in shared.runs(name)]
    assert sum(filter(None, paid)) >= 3 * 336_000


def test_a_claim_of_a_kernel_that_died_before_it_wrote_its_receipt_is_void(shared):
    """Nothing in the folder but the claim: another ledger's kernel waits for a sign of life, then buys."""
    assert shared.start("ann", at="intent in the ledger").wait() == -signal.SIGKILL
    assert len(shared.claims()) == 1
    [run] = shared.cell("bob")
    assert (run["status"], run["reused"], shared.sent) == ("succeeded", False, 1)
    assert shared.claims() == []
    # Her own kernel finds that the request was bought meanwhile.
    [again] = shared.cell("ann")
    assert (again["id"], again["status"], shared.sent) == (run["id"], "succeeded", 1)


def test_an_intent_of_a_kernel_that_died_ends_unsent_for_the_others(shared):
    """With its receipt in the folder it is attached to and ends as never sent; the cell, run again, buys."""
    assert shared.start("ann", at="intent in the folder").wait() == -signal.SIGKILL
    [left] = shared.cell("bob")
    assert (left["status"], left["reused"], shared.sent) == ("canceled", True, 0)
    [run] = shared.cell("bob")
    assert (run["status"], run["reused"], shared.sent) == ("succeeded", False, 1)


def test_what_a_dead_kernel_may_have_sent_is_not_sent_by_another(shared):
    """A claim that says it was being sent is never void, however long it stands still."""
    assert shared.start("ann", at="submitting in the ledger").wait() == -signal.SIGKILL
    [first] = shared.cell("bob")
    if shared.wire == "runcomfy":
        assert first["status"] == "lost"
        [second] = shared.cell("bob")
        assert second["error"] == "BlockedError"
    else:
        assert "Whoever made it may still send it" in first["what"]
    assert shared.sent == 0


def test_a_kernel_that_was_taken_for_dead_sends_nothing_when_it_wakes(shared):
    """Frozen between its intent and its submit, it finds its place in the folder taken."""
    frozen = shared.start("ann", at="intent in the folder", signal=signal.SIGSTOP)
    until(frozen.stopped)
    assert shared.cell("bob")[0]["status"] == "canceled"
    assert shared.cell("bob")[0]["status"] == "succeeded"
    frozen.signal(signal.SIGCONT)
    [woken] = frozen.said()["runs"]
    assert (woken["status"], shared.sent) == ("canceled", 1)
    assert "same request from this folder" in woken["what"]
    assert [(run.charged, run.reserved_micros) for run in shared.runs("ann")] == [("no", 0)]
