"""A process that was frozen in its submit: its own answer outranks what others made of its silence."""

import signal

import pytest

from kling_nb.recovery.resolve import resolve
from kling_nb.session.session import Session
from support.crash import Nursery
from support.shared_folder import PROMPT, Shared
from support.workbench import until


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    started = Nursery(tmp_path_factory.mktemp("children"))
    yield started
    started.close()


@pytest.fixture
def shared(tmp_path, nursery):
    # At Runflow a silent submit is looked up; at RunComfy nobody can know.
    made = Shared(tmp_path, nursery, "runcomfy")
    yield made
    made.close()


def given_up_for_lost(shared):
    """A kernel that is frozen with its answer read, and another one of the same ledger that calls it lost."""
    frozen = shared.start("ann", at="answer read", signal=signal.SIGSTOP)
    until(frozen.stopped)
    [lost] = shared.start("ann", do="take up").said()["runs"]
    assert (lost["status"], shared.sent) == ("lost", 1)
    return frozen


def test_an_id_that_comes_late_brings_a_lost_run_back(shared):
    """It was accepted: the clip is fetched and settled, whatever was said of it meanwhile."""
    frozen = given_up_for_lost(shared)
    frozen.signal(signal.SIGCONT)
    [woken] = frozen.said()["runs"]
    assert (woken["status"], woken["whole"]) == ("succeeded", True)
    [row] = shared.runs("ann")
    assert (row.status, row.settled_micros, row.reserved_micros) == ("succeeded", 336_000, 0)
    [again] = shared.cell("ann")
    assert (again["id"], again["reused"], shared.sent) == (row.id, True, 1)


def test_a_refusal_that_comes_late_ends_a_lost_run_without_a_charge(shared):
    """It was never made: nothing is held any more, and the cell makes a new attempt."""
    shared.sandbox.set_faults({"submit_402": {"next": 1}})
    frozen = given_up_for_lost(shared)
    assert shared.runs("ann")[0].reserved_micros == 336_000
    frozen.signal(signal.SIGCONT)
    [woken] = frozen.said()["runs"]
    assert woken["status"] == "failed"
    [row] = shared.runs("ann")
    assert (row.reason, row.charged, row.settled_micros, row.reserved_micros) == ("credit", "no", 0, 0)
    assert f'"status": "{row.status}"' in next(shared.media.glob("*.json")).read_text()
    [again] = shared.cell("ann")
    assert (again["status"], shared.sent) == ("succeeded", 2)


@pytest.mark.parametrize("anew", [False, True], ids=["alone", "with a newer one"])
def test_an_id_that_comes_late_is_kept_also_where_the_run_was_given_up(shared, anew):
    """Alone it goes on and is paid for; where it was bought anew, that one stays and the id is kept."""
    frozen = given_up_for_lost(shared)
    session = Session(ledger=str(shared.folder / "ann.db"))
    resolve(session.runs()[0].id, abandon=True, session=session)
    session.close()
    if anew:
        shared.sandbox.set_faults({"run_s": 3})
        newer = shared.start("ann", PROMPT)
        until(lambda: any(run.attempt == 2 and run.provider_run_id for run in shared.runs("ann")))
    frozen.signal(signal.SIGCONT)
    frozen.wait()
    if anew:
        assert newer.said()["runs"][0]["status"] == "succeeded"
    rows = {row.attempt: row for row in shared.runs("ann")}
    assert rows[1].provider_run_id is not None
    assert rows[1].status == ("failed" if anew else "succeeded")
    assert [row.status for row in rows.values()].count("succeeded") == 1
    assert shared.sent == (2 if anew else 1)
