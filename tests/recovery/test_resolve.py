"""A lost run has a way out: a person says what became of it, nothing is sent, and the books stay true."""

from datetime import timedelta

import pytest

from kling_nb.errors import BlockedError, KlingError, UsageError
from kling_nb.notebook.line import run_command
from kling_nb.records.run import RunStatus
from kling_nb.recovery.resolve import resolve
from kling_nb.views.words import session_words
from support.leases import claim
from support.lost import PRICE, ids, lost
from support.sessions import ask
from support.workbench import until


def resolve_in(session, run, **how):
    return resolve(run, session=session, **how)


@pytest.mark.parametrize("wire", ["runflow", "runcomfy"])
def test_attach_brings_a_lost_run_to_its_end(build, wire):
    """The id is kept, the clip fetched, the reservation settled; the provider was sent nothing."""
    house = build()
    session = house.session()
    run = lost(house, session, wire)
    sent = house.submissions
    [theirs] = ids(house, wire)
    shown = run_command(session, f"resolve fox --attach {theirs}", {"fox": run})
    assert "nothing was sent" in shown.text
    assert shown.runs[0] is run, "the variable in the notebook tells of the same run"
    assert run.wait(90).status == "succeeded"
    record = session.ledger().get(run.id)
    assert record.provider_run_id == theirs
    assert (record.settled_micros, record.reserved_micros) == (PRICE, 0)
    assert run.path.is_file()
    assert run.path.with_suffix(".json").is_file()
    assert house.submissions == sent
    assert house.run(session, ask(provider=wire)).reused
    assert (house.submissions, house.accepted) == (sent, 1)


def test_a_run_that_still_waits_is_watched_after_attach(build):
    """Attached while it is in the queue, it is followed to its end."""
    house = build(held=True)
    session = house.session()
    run = lost(house, session)
    resolve_in(session, run.id, attach=ids(house, "runcomfy")[0])
    assert session.find(run.id).status.pending
    house.let_go()
    assert session.find(run.id).wait(90).status == "succeeded"


def test_attach_works_after_a_restart(build):
    """Another session on the same ledger may resolve it; the money stays where it was reserved."""
    house = build()
    first = house.session()
    run = lost(house, first)
    second = house.session()
    resolve_in(second, run.id, attach=ids(house, "runcomfy")[0]).wait(90)
    assert first.totals().settled_micros == PRICE
    assert second.totals().settled_micros == 0


def test_an_id_nobody_has_is_refused(build):
    """A wrong id is told in one line, and the run stays lost with its money held."""
    house = build()
    session = house.session()
    run = lost(house, session)
    for wrong, words in (("no-such-run", "has no run no-such-run"), ("a/b", "is not a run id")):
        with pytest.raises(UsageError, match=words) as caught:
            run_command(session, f"resolve {run.id} --attach {wrong}", {})
        assert "\n" not in str(caught.value)
    record = session.ledger().get(run.id)
    assert (record.status, record.reserved_micros, record.provider_run_id) == ("lost", PRICE, None)


@pytest.mark.parametrize("wire", ["runflow", "runcomfy"])
def test_another_accounts_run_is_refused(build, wire):
    """A run that this key may not read is not taken over."""
    house = build(faults={"runcomfy.foreign_run": "403", "runflow.foreign_run": "403"})
    session = house.session()
    run = lost(house, session, wire)
    house.keys(wire, key="other-account-9Qm2")
    theirs = house.run(house.session(ledger=str(house.folder / "theirs.db")), ask("Wolf", provider=wire))
    house.keys("runflow", "runcomfy")
    with pytest.raises(UsageError, match="another account"):
        resolve_in(session, run, attach=theirs.provider_run_id)
    assert session.ledger().get(run.id).status == "lost"


def test_an_id_of_another_run_is_refused(build):
    """What the ledger knows as one run cannot become another one as well."""
    house = build()
    session = house.session()
    other = house.run(session, ask("A wolf", provider="runcomfy"))
    run = lost(house, session)
    with pytest.raises(UsageError, match=f"is run {other.id} of this ledger"):
        resolve_in(session, run, attach=other.provider_run_id)
    assert run.status == "lost"


def test_another_reference_is_refused(build):
    """Runflow's record names who sent it: a run that is not ours is not attached."""
    house = build()
    session = house.session()
    run = lost(house, session, "runflow")
    elsewhere = house.session(ledger=str(house.folder / "theirs.db"), media=str(house.folder / "theirs"))
    theirs = house.run(elsewhere, ask(provider="runflow"))
    with pytest.raises(UsageError, match="carries another reference"):
        resolve_in(session, run, attach=theirs.provider_run_id)


def test_a_run_from_before_is_refused(build):
    """RunComfy tells when a finished run was made: one from before the submit cannot be it."""
    house = build()
    session = house.session()
    run = lost(house, session)
    until(lambda: house.stats()["runs"][0]["state"] == "succeeded")
    later = run.record.submitted_at + timedelta(hours=1)
    session.ledger().change(run.id, "test", submitted_at=later)
    with pytest.raises(UsageError, match="before this one was sent"):
        resolve_in(session, run, attach=ids(house, "runcomfy")[0])


def test_a_provider_that_does_not_answer_changes_nothing(build):
    """An outage is told, and looking again is free."""
    house = build()
    session = house.session()
    run = lost(house, session)
    for fault in ("poll_500", "poll_drop", "poll_junk"):
        house.faults(**{fault: 1.0})
        with pytest.raises(KlingError, match="try again"):
            resolve_in(session, run, attach=ids(house, "runcomfy")[0])
        house.faults(**{fault: 0})
        assert session.ledger().get(run.id).status == "lost"
    house.keys()
    with pytest.raises(KlingError, match="no key"):
        resolve_in(session, run, attach=ids(house, "runcomfy")[0])
    house.keys("runcomfy")
    assert resolve_in(session, run, attach=ids(house, "runcomfy")[0]).wait(90).status == "succeeded"
    assert house.submissions == 1


def test_abandon_releases_the_money_and_lets_the_cell_run_once_more(build):
    """Its charge stays unknown and is counted as such; the cell makes one new attempt, without --retry."""
    house = build()
    session = house.session()
    run = lost(house, session)
    with pytest.raises(BlockedError, match="resolve"):
        session.open(ask(provider="runcomfy"))
    shown = run_command(session, f"resolve {run.id} --abandon", {})
    assert "$0.336 is no longer reserved" in shown.text
    record = session.ledger().get(run.id)
    assert (record.status, record.reason, record.charged) == ("failed", "provider", "unknown")
    assert (record.settled_micros, record.reserved_micros) == (None, 0)
    assert record.message == "abandoned by the user"
    totals = session.totals()
    assert (totals.settled_micros, totals.reserved_micros, totals.unknown) == (0, 0, 1)
    assert "1 unknown" in session_words(totals)
    assert run.status == "failed"
    assert "--retry" not in str(run.error)
    assert "resolve" not in run.bundle()["text/plain"]
    assert house.submissions == 1
    again = house.run(session, ask(provider="runcomfy"))
    assert (again.status, again.record.attempt) == ("succeeded", 2)
    assert house.run(session, ask(provider="runcomfy")).id == again.id
    assert house.submissions == 2
    with pytest.raises(UsageError, match="does not need resolving"):
        resolve_in(session, run, abandon=True)


def test_what_was_abandoned_by_mistake_can_still_be_attached(build):
    """The run turns up after all: it is taken back, and what it cost is on the books."""
    house = build()
    session = house.session()
    run = lost(house, session)
    resolve_in(session, run, abandon=True)
    resolve_in(session, run, attach=ids(house, "runcomfy")[0]).wait(90)
    assert run.status == "succeeded"
    assert run.record.abandoned_at is None
    assert session.totals().settled_micros == PRICE
    assert session.totals().unknown == 0
    assert house.submissions == 1


def test_abandon_releases_a_failed_run_whose_charge_is_unknown(build):
    """Its end and its charge stay as they are; nothing is held for it, and no --retry is needed."""
    house = build(faults={"run_failed": "next:1", "runcomfy.cost_told": "never"})
    session = house.session()
    run = house.run(session, ask(provider="runcomfy"))
    assert (run.status, run.record.charged, run.record.reserved_micros) == ("failed", "unknown", PRICE)
    with pytest.raises(BlockedError):
        session.open(ask(provider="runcomfy"))
    assert "--abandon" in run.bundle()["text/html"]
    resolve_in(session, run, abandon=True)
    record = session.ledger().get(run.id)
    assert (record.status, record.charged, record.reserved_micros) == ("failed", "unknown", 0)
    assert record.settled_micros is None
    assert house.run(session, ask(provider="runcomfy")).status == "succeeded"
    assert house.submissions == 2


def test_the_folder_tells_that_a_run_was_abandoned(build):
    """A colleague who has only the folder is not blocked by what was given up."""
    house = build()
    session = house.session()
    run = lost(house, session)
    resolve_in(session, run, abandon=True)
    session.close()
    house.forget_ledger()
    assert house.run(house.session(), ask(provider="runcomfy")).status == "succeeded"
    assert house.submissions == 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("resolve", "takes one run"),
        ("resolve fox", "one of two ways"),
        ("resolve fox --attach x --abandon", "one of two ways"),
        ("resolve fox --attach", "needs the provider's id"),
        ("resolve fox --abandon", "does not need resolving: Done, charged: yes"),
        ("resolve fox --attach x", "does not need resolving"),
        ("resolve nothing --abandon", "There is no run 'nothing'"),
        ("resolve fox --drop", "has no flag"),
    ],
)
def test_what_cannot_be_resolved_is_one_line(build, line, words):
    """A finished run, an unknown one, half a command: said in one line, and nothing changes."""
    house = build()
    session = house.session()
    fox = house.run(session, ask(provider="runcomfy"))
    with pytest.raises(UsageError) as caught:
        run_command(session, line, {"fox": fox})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert session.ledger().get(fox.id) == fox.record
    assert house.submissions == 1


def test_a_run_that_is_carried_is_not_resolved(build):
    """While it is being sent, here or elsewhere, nobody settles it by hand."""
    house = build(faults={"submit_hang": "next:1", "hang_s": 60})
    session = house.session()
    [run] = session.open(ask(provider="runcomfy"))
    until(lambda: house.submissions == 1)
    other = house.session()
    for one in (session, other):
        with pytest.raises(UsageError, match="just being sent"):
            resolve_in(one, run.id, abandon=True)
    # The provider hangs up.
    house.loop.start(house.sandbox.restart()).result(90)
    assert run.wait(90).status == "lost"
    assert house.submissions == 1


@pytest.mark.parametrize("minutes", [1, 60])
def test_a_run_that_a_dead_process_was_sending_can_be_resolved_in_time(build, minutes):
    """A lease holds while its process may be alive; long after, a person's word is enough, with no key."""
    house = build()
    session = house.session()
    run = lost(house, session)
    # Whoever carried the run gives its lease back a moment after its end.
    until(lambda: session.ledger().lease(run.id) is None)
    session.ledger().change(run.id, "test", status=RunStatus.SUBMITTING, finished_at=None)
    assert claim(session.ledger(), run.id, "a process that was killed", -60 * minutes)
    house.keys()
    if minutes == 1:
        with pytest.raises(UsageError, match="just being sent"):
            resolve_in(session, run.id, abandon=True)
        return
    resolve_in(session, run.id, abandon=True)
    assert session.find(run.id).status == "failed"
    assert session.totals().reserved_micros == 0


def test_a_lost_run_that_only_the_folder_knows_can_be_resolved(build):
    """A colleague who got the folder, or whoever lost the ledger, has the same way out; nothing is sent."""
    house = build()
    session = house.session()
    run = lost(house, session)
    other = lost(house, session, prompt="A hare in snow")
    [theirs, _] = ids(house, "runcomfy")
    session.close()
    house.forget_ledger()
    sent = house.submissions
    later = house.session()
    with pytest.raises(BlockedError, match=f"%kling resolve {run.id}"):
        later.open(ask(provider="runcomfy"))
    assert later.find(run.id).status == "lost"
    shown = run_command(later, f"resolve {run.id} --attach {theirs}", {})
    assert "nothing was sent" in shown.text
    assert shown.runs[0].wait(90).status == "succeeded"
    record = later.ledger().get(run.id)
    assert (record.settled_micros, record.reserved_micros, record.session_id) == (
        PRICE,
        0,
        run.record.session_id,
    )
    assert later.totals().settled_micros == 0, "it was the other session's money"
    given_up = run_command(later, f"resolve {other.id} --abandon", {})
    assert "was given up" in given_up.text
    assert later.ledger().get(other.id).status == "failed"
    assert house.submissions == sent
    again = house.run(later, ask(provider="runcomfy"))
    assert (again.id, again.reused) == (run.id, True)


def test_a_run_that_only_the_folder_knows_and_that_is_done_needs_no_resolving(build):
    """It is said plainly, and nothing is written down for it."""
    house = build()
    session = house.session()
    run = house.run(session, ask(provider="runcomfy"))
    session.close()
    house.forget_ledger()
    later = house.session()
    with pytest.raises(UsageError, match="does not need resolving"):
        run_command(later, f"resolve {run.id} --abandon", {})
    with pytest.raises(UsageError, match="There is no run"):
        run_command(later, "resolve nobody --abandon", {})
    assert len(later.runs()) == 0


def test_a_lost_run_says_where_to_look_and_blocks_its_cell(build):
    """Its card and its error link the provider's own site, and the cell is refused with both ways out."""
    house = build()
    session = house.session()
    run = lost(house, session)
    page = run.bundle()["text/html"]
    assert 'href="https://www.runcomfy.com"' in page
    assert "Look for it in your request history at RunComfy" in page
    assert "https://www.runcomfy.com" in run.bundle()["text/plain"]
    assert "(https://www.runcomfy.com)" in str(run.error)
    sent = house.submissions
    with pytest.raises(BlockedError) as caught:
        session.open(ask(provider="runcomfy"))
    words = str(caught.value)
    assert words.count("Nothing was sent now.") == 1
    assert "Charged: unknown." in words
    for part in (f"%kling resolve {run.id} --attach PROVIDER_ID", "--abandon", "https://www.runcomfy.com"):
        assert part in words
    assert house.submissions == sent


def test_what_was_never_sent_is_told_what_sends_it(build):
    """In the answer of resume, on the card and in the error; and its cell sends it once."""
    house = build(held=True)
    session = house.session(max_in_flight=1)
    prompts = ("A red fox", "A hare")
    for prompt in prompts:
        session.open(ask(prompt, provider="runcomfy"))
    assert until(lambda: house.submissions == 1)
    session.close()
    later = house.session()
    # One slot: which of the two came first is nobody's promise.
    [run] = [run for run in later.runs() if run.status == "created"]
    prompt = run.prompt
    assert prompt in prompts
    shown = run_command(later, f"resume {run.id}", {})
    assert "was never sent, and nothing here sends it" in shown.text
    ended = shown.runs[0].wait(90)
    assert (ended.status, ended.record.charged, ended.record.reserved_micros) == ("canceled", "no", 0)
    for words in (*ended.bundle().values(), str(ended.error)):
        if isinstance(words, str):
            assert "was never sent" in words
            assert "Run its cell again to send it." in words
    assert house.submissions == 1
    house.let_go()
    assert house.run(later, ask(prompt, provider="runcomfy")).status == "succeeded"
    assert house.submissions == 2
