"""Run All never pays twice: reuse, reattachment and blocking, through real sessions, files and sockets."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import sqlalchemy as sa

from kling_nb.addresses import is_loopback
from kling_nb.engine.reuse import ReusePolicy, decide
from kling_nb.errors import (
    BlockedError,
    ConsentError,
    KeyMissingError,
    NotCachedError,
    RunLostError,
    StoreError,
    UsageError,
)
from kling_nb.notebook.line import run_command
from kling_nb.records.run import MediaFacts, RunStatus
from support.clips import make_record
from support.matrix import ONE_WIRE
from support.sessions import ask
from support.stage import QUICK
from support.workbench import VARIABLE, until


def pending_at_the_provider(house, session, **options):
    """A run that the provider has accepted, and whose id is in the folder."""
    [run] = session.open(ask(**options))
    until(lambda: run.provider_run_id and run.provider_run_id in house.sidecar(run))
    return run


def clips(house):
    return sorted(path.name for path in house.media.glob("*.mp4"))


# -- Run All -----------------------------------------------------------------------
def test_the_same_cell_twice_is_paid_once(build, wire):
    """An unchanged cell reuses its finished clip."""
    house = build()
    session = house.session()
    first = house.run(session, ask(provider=wire))
    second = house.run(session, ask(provider=wire))
    assert (first.reused, second.reused) == (False, True)
    assert second.id == first.id
    assert second.path == first.path
    assert (house.submissions, house.accepted) == (1, 1)
    house.run(session, ask("Another prompt", provider=wire))
    assert house.submissions == 2


@pytest.mark.parametrize("state", ["there", "gone", "created", "running"])
def test_a_receipt_with_the_id_of_another_run_changes_no_row_of_the_ledger(build, state):
    """A receipt in the folder with the id of another paid run is refused, and nothing is sent."""
    house = build()
    session = house.session()
    owl = house.run(session, ask("An owl", provider="runflow"))
    session.close()
    house.forget_ledger()
    session = house.session()
    fox = house.run(session, ask("A fox", provider="runflow"))
    before = session.ledger().get(fox.id)
    path = house.media / f"{owl.path.stem}.json"
    forged = {**json.loads(path.read_text(encoding="utf-8")), "id": fox.id}
    if state in {"created", "running"}:
        forged |= {"status": state, "file": None}
    path.write_text(json.dumps(forged), encoding="utf-8")
    if state != "there":
        owl.path.unlink()
    with pytest.raises(StoreError, match="bears the id of another run"):
        session.open(ask("An owl", provider="runflow"))
    assert session.ledger().get(fox.id) == before
    assert house.submissions == 2
    assert house.run(session, ask("A fox", provider="runflow")).reused


def test_the_same_cell_while_it_runs_is_the_same_run(build, wire):
    """A second pass attaches to the run on its way."""
    house = build(held=True)
    session = house.session()
    [first] = session.open(ask(provider=wire))
    [second] = session.open(ask(provider=wire))
    assert second is first
    # One handle for both cells: the first one paid, and its card must not read "reused".
    assert not second.reused
    house.let_go()
    assert second.wait(90).status == "succeeded"
    assert house.submissions == 1


def test_a_restarted_kernel_reuses_the_clip(build):
    """A new session on the same ledger sends nothing."""
    house = build()
    first = house.run(house.session(), ask())
    second = house.run(house.session(), ask())
    assert second.id == first.id
    assert second.video.sha256 == first.video.sha256
    assert house.submissions == 1


@pytest.mark.parametrize("keys", [("runflow", "runcomfy"), ()], ids=["with a key", "without a key"])
def test_the_folder_alone_is_enough_to_reuse(build, wire, keys):
    """A colleague with the notebook's folder sees the clip and sends nothing, even without a key."""
    house = build()
    first = house.run(house.session(), ask(provider=wire))
    house.forget_ledger()
    house.keys(*keys)
    colleague = house.session()
    second = house.run(colleague, ask())
    assert (second.id, second.reused, second.status) == (first.id, True, "succeeded")
    assert colleague.ledger().runs() == []
    assert house.submissions == 1


def test_a_clip_of_another_notebook_is_brought_here(build, tmp_path):
    """The clip and its sidecar are kept beside each notebook that shows them."""
    house = build()
    first = house.run(house.session(), ask())
    house.set(MEDIA=tmp_path / "elsewhere")
    second = house.run(house.session(), ask())
    assert second.path.parent == tmp_path / "elsewhere"
    assert second.path.read_bytes() == first.path.read_bytes()
    assert second.path.with_suffix(".json").exists()
    assert house.submissions == 1


def test_a_clip_that_cannot_be_brought_here_stops_the_call_before_anything_is_sent(build, tmp_path):
    """One take is here already and cannot be shown: the other one is not bought behind an error."""
    house = build()
    first = house.run(house.session(), ask(takes=(1,)))
    house.set(MEDIA=tmp_path / "elsewhere")
    # Where its sidecar belongs, something else stands.
    (tmp_path / "elsewhere" / first.path.with_suffix(".json").name).mkdir(parents=True)
    session, sent = house.session(), house.submissions
    with pytest.raises(StoreError):
        session.open(ask(takes=(0, 1)))
    assert [record.take for record in session.ledger().runs()] == [1]
    assert (session.totals().reserved_micros, house.submissions) == (0, sent)


def test_a_folder_and_a_key_are_enough_to_reattach(build, wire):
    """The ledger is gone while the run is on its way: the sidecar leads back to it."""
    house = build(held=True)
    session = house.session()
    first = pending_at_the_provider(house, session, provider=wire)
    session.close()
    house.forget_ledger()
    house.let_go()
    again = house.session()
    second = house.run(again, ask(provider=wire))
    assert (second.id, second.provider_run_id) == (first.id, first.provider_run_id)
    assert second.reused
    assert second.status == "succeeded"
    assert again.ledger().get(first.id).status == "succeeded"
    assert (house.submissions, house.accepted) == (1, 1)


def test_a_pending_sidecar_without_a_key_is_shown_and_nothing_is_sent(build, wire):
    """No key: the run is shown as pending with words, and no sandbox run takes its place."""
    house = build(held=True)
    session = house.session()
    first = pending_at_the_provider(house, session, provider=wire)
    session.close()
    house.forget_ledger()
    house.keys()
    keyless = house.session()
    run = house.run(keyless, ask())
    assert run.id == first.id
    assert run.status.pending
    assert isinstance(run.error, KeyMissingError)
    assert "key" in str(run.error)
    assert keyless.ledger().runs() == []
    assert keyless.sandboxes.running[0].stats()["submissions"] == 0
    house.keys(wire)
    house.let_go()
    assert house.run(keyless, ask()).status == "succeeded", "the key is back: the same cell goes on"
    assert house.submissions == 1


def test_a_handle_from_the_folder_alone_does_not_wait_for_ever(build):
    """Resuming a run that no ledger knows says what to do, instead of following nobody."""
    house = build(held=True)
    session = house.session()
    pending_at_the_provider(house, session, provider="runflow")
    session.close()
    house.forget_ledger()
    house.keys()
    run = house.run(house.session(), ask())
    house.keys("runflow")
    run.resume().wait(90)
    assert "Run its cell again" in str(run.error)
    assert house.submissions == 1


def test_the_line_resume_takes_up_a_run_that_only_the_folder_knows(build, wire):
    """As its card says: with a key it is watched to its clip and nothing is bought; without one, words."""
    house = build(held=True)
    session = house.session()
    first = pending_at_the_provider(house, session, provider=wire)
    session.close()
    house.forget_ledger()
    house.keys()
    again = house.session()
    [run] = run_command(again, f"resume {first.id}", {}).runs
    assert isinstance(run.wait(90).error, KeyMissingError)
    assert (run.status.pending, again.ledger().runs()) == (True, [])
    house.keys(wire)
    house.let_go()
    [run] = run_command(again, f"resume {first.id}", {}).runs
    assert run.wait(90).status == "succeeded"
    assert [record.id for record in again.ledger().runs()] == [first.id]
    assert (again.totals().settled_micros, house.submissions) == (0, 1)


@pytest.mark.parametrize("wire", ONE_WIRE)
def test_a_sidecar_from_before_the_answer_is_looked_up_or_lost(build, wire):
    """Left between `created` and `accepted`: Runflow finds it by our reference, RunComfy's is lost."""
    house = build(faults={"submit_hang_after": 1.0, "hang_s": 60})
    session = house.session()
    [first] = session.open(ask(provider=wire))
    until(lambda: house.accepted == 1)
    session.engine().close(0)
    session.close()
    house.forget_ledger()
    assert json.loads(house.sidecar(first))["status"] == "created"
    house.faults(submit_hang_after=0)
    again = house.session()
    second = house.run(again, ask(provider=wire))
    assert second.id == first.id
    if wire == "runflow":
        assert second.status == "succeeded"
    else:
        assert second.status == "lost"
        assert isinstance(second.error, RunLostError)
        with pytest.raises(BlockedError, match=first.id):
            again.open(ask(provider=wire))
    assert (house.submissions, house.accepted) == (1, 1)


def test_the_ledgers_own_run_comes_before_a_strangers(build, tmp_path):
    """A colleague's sidecar of the same request, newer than ours, does not get in the way of our run."""
    house = build(held=True)
    session = house.session()
    mine = pending_at_the_provider(house, session, provider="runflow")
    colleague = house.session(ledger=str(tmp_path / "other.db"), media=str(tmp_path / "other"))
    [theirs] = colleague.open(ask(provider="runflow"))
    until(lambda: theirs.provider_run_id)
    for path in (tmp_path / "other").glob("*.json"):
        shutil.copy(path, house.media)
    [again] = session.open(ask(provider="runflow"))
    assert again.id == mine.id
    assert house.submissions == 2


# -- takes, attempts, cached only --------------------------------------------------------
def test_four_takes_after_one_buy_three(build):
    """The first take is reused; a take has its own key."""
    house = build()
    session = house.session()
    first = house.run(session, ask())
    runs = session.open(ask(takes=(0, 1, 2, 3)))
    assert [run.wait(90).status for run in runs] == ["succeeded"] * 4
    assert [run.reused for run in runs] == [True, False, False, False]
    assert runs[0].id == first.id
    assert [run.record.take for run in runs] == [0, 1, 2, 3]
    assert house.submissions == 4
    [third] = session.open(ask(takes=(2,)))
    assert third.id == runs[2].id
    assert house.submissions == 4


@pytest.mark.parametrize("takes", [(0, 0), (), (-1,), (True,), (1.0,), ("a",), "01", 5])
def test_takes_that_make_no_sense_are_refused_in_one_line(build, takes):
    """Twice the same take, none, or what is no whole number: said before a row is written."""
    house = build()
    session = house.session()
    with pytest.raises(UsageError, match="takes: should be whole numbers, 0 or more, each once") as caught:
        session.open(ask(takes=takes))
    assert caught.value.charged == "no"
    assert (session.ledger().runs(), house.submissions) == ([], 0)


def test_no_cache_is_a_new_attempt_of_the_same_take(build):
    """The older file stays, and the newest success is shown from then on."""
    house = build()
    session = house.session()
    first = house.run(session, ask())
    second = house.run(session, ask(no_cache=True))
    assert (first.record.attempt, second.record.attempt) == (1, 2)
    assert first.record.request_key == second.record.request_key
    assert len(clips(house)) == 2
    assert house.run(session, ask()).id == second.id
    assert house.run(house.session(), ask()).id == second.id
    assert house.submissions == 2


def test_no_cache_needs_consent_where_nobody_watches(build):
    """Run All of a headless notebook would otherwise buy again on every pass."""
    house = build()
    house.set(BUDGET="5.00")
    session = house.session(headless=True)
    house.run(session, ask())
    with pytest.raises(ConsentError, match="KLING_NB_YES"):
        session.open(ask(no_cache=True))
    assert house.submissions == 1
    house.set(YES=1)
    assert house.run(session, ask(no_cache=True)).record.attempt == 2
    assert house.submissions == 2


@pytest.mark.parametrize("by_setting", [True, False])
def test_cached_only_never_sends_and_names_the_clip(build, by_setting):
    """A miss says which clip is missing; a hit is shown."""
    house = build()
    session = house.session()
    house.run(session, ask())
    options = {}
    if by_setting:
        house.set(CACHED_ONLY=1)
    else:
        options["cached_only"] = True
    assert house.run(session, ask(**options)).reused
    with pytest.raises(NotCachedError, match="A heron at dusk"):
        session.open(ask("A heron at dusk", **options))
    assert house.submissions == 1


# -- files ----------------------------------------------------------------------------
def test_a_clip_whose_bytes_changed_is_fetched_again_and_not_bought(build, wire):
    """A file that is not what was recorded is not shown; the provider still has the clip."""
    house = build()
    session = house.session()
    first = house.run(session, ask(provider=wire))
    whole = first.path.read_bytes()
    first.path.write_bytes(whole[:-1] + b"x")
    second = house.run(house.session(), ask(provider=wire))
    assert second.id == first.id
    assert second.video.path.read_bytes() == whole
    assert first.path.read_bytes() != whole, "bytes that are there are never rewritten"
    assert (house.submissions, house.stats()["downloads"]) == (1, 2)
    assert session.totals().settled_micros == 336_000, "fetching again costs nothing"


@pytest.mark.parametrize("wire", ONE_WIRE)
def test_a_success_stays_one_while_its_clip_is_away_and_its_provider_forgot_it(build, wire):
    """With the folder away Run All says where the clip was; with it back it is shown; nothing is bought."""
    house = build()
    session = house.session()
    first = house.run(session, ask(provider=wire))
    receipt = house.sidecar(first)
    house.media.rename(house.folder / "branch")
    house.faults(retention_s=0.001)
    [second] = session.open(ask(provider=wire))
    with pytest.raises(StoreError, match=re.escape(str(first.path))) as caught:
        second.result(60)
    assert "run the cell again" in caught.value.cure
    assert "clip is not here" in second.bundle()["text/plain"]
    assert session.ledger().get(first.id) == first.record, "and no state between"
    assert {said["status"] for _, _, said in session.ledger().events(first.id)} >= {"succeeded"}
    shutil.rmtree(house.media, ignore_errors=True)
    (house.folder / "branch").rename(house.media)
    assert house.sidecar(first) == receipt
    assert second.resume().wait(60).path == first.path
    again = house.run(house.session(), ask(provider=wire))
    assert (again.id, again.status, again.reused, again.path) == (first.id, "succeeded", True, first.path)
    assert house.submissions == 1


@pytest.mark.parametrize("wire", ONE_WIRE)
def test_a_clip_that_is_gone_for_good_is_bought_again_by_request(build, wire):
    """Neither here nor at the provider: `--no-cache` makes a second attempt; without it nothing is sent."""
    house = build()
    session = house.session()
    house.run(session, ask(provider=wire)).path.unlink()
    house.faults(retention_s=0.001)
    for _ in range(2):
        assert "--no-cache" in house.run(session, ask(provider=wire)).error.cure
    house.faults(retention_s=0)
    third = house.run(session, ask(provider=wire, no_cache=True))
    assert (third.status, third.record.attempt, house.submissions) == ("succeeded", 2, 2)


@pytest.mark.parametrize("other", ["", "account", "events"])
def test_a_success_that_was_overwritten_is_healed_by_its_file(build, wire, other):
    """A row that an earlier program called expired: the clip makes it done again, and no figure moves."""
    house = build()
    session = house.session()
    first = house.run(session, ask(provider=wire))
    changes = {"status": RunStatus.FAILED, "reason": "expired", "message": "gone", "media": None}
    if other == "account":
        changes["account"] = "another"
    session.ledger().change(first.id, "expired", **changes)
    if other == "events":
        with session.ledger().writing() as transaction:
            transaction.connection.execute(sa.text("DELETE FROM events WHERE data LIKE '%succeeded%'"))
    if other:
        with pytest.raises(BlockedError):
            session.open(ask(provider=wire))
        return
    before = session.totals()
    again = house.run(session, ask(provider=wire))
    assert (again.id, again.status, again.path) == (first.id, "succeeded", first.path)
    row = session.ledger().get(first.id)
    assert (row.status, row.reason, row.media.sha256) == ("succeeded", None, first.record.media.sha256)
    assert (session.totals(), house.submissions) == (before, 1)


def test_a_stranger_brings_no_money(build):
    """What a sidecar says of money never reaches the ledger's sums."""
    house = build()
    run = house.run(house.session(), ask())
    house.forget_ledger()
    path = run.path.with_suffix(".json")
    forged = json.loads(path.read_text())
    forged["price"]["settled"] = "9999.00"
    forged["price"]["reserved"] = "9999.00"
    path.write_text(json.dumps(forged))
    session = house.session()
    assert house.run(session, ask()).id == run.id
    assert session.totals().settled_micros == session.totals().reserved_micros == 0
    assert house.run(session, ask("Another")).status == "succeeded", "the cap is untouched"


# -- what stands in the way ------------------------------------------------------------
def test_a_lost_run_blocks_whatever_is_asked(build):
    """Nobody knows whether it exists: neither again, nor `--no-cache`, nor `--retry` sends it."""
    house = build(faults={"submit_drop_after": 1.0})
    session = house.session()
    lost = house.run(session, ask(provider="runcomfy"))
    assert lost.status == "lost"
    for options in ({}, {"no_cache": True}, {"retry": True}):
        with pytest.raises(BlockedError, match=lost.id) as caught:
            session.open(ask(provider="runcomfy", **options))
        assert caught.value.charged == "unknown"
        assert "resolve" in caught.value.cure
        assert caught.value.run_id == lost.id
    assert house.submissions == 1
    assert session.totals().reserved_micros == 336_000, "its money stays held"
    assert house.run(session, ask("Another", provider="runcomfy")).status == "lost"
    assert house.submissions == 2


def test_a_moderated_prompt_blocks_until_no_cache(build, wire):
    """The same words would be refused again."""
    house = build()
    session = house.session()
    house.faults(submit_moderated={"next": 1})
    refused = house.run(session, ask(provider=wire))
    assert refused.record.reason == "moderated"
    for options in ({}, {"retry": True}):
        with pytest.raises(BlockedError, match="--no-cache"):
            session.open(ask(provider=wire, **options))
    assert house.submissions == 1
    assert house.run(session, ask(provider=wire, no_cache=True)).status == "succeeded"
    assert house.submissions == 2


def test_a_failure_whose_charge_is_unknown_needs_retry(build):
    """RunComfy documents nothing about failed runs, so a second one may be a second charge."""
    house = build(faults={"run_failed": 1.0, "cost_told": "never"})
    session = house.session()
    failed = house.run(session, ask(provider="runcomfy"))
    assert (failed.status, failed.record.charged) == ("failed", "unknown")
    with pytest.raises(BlockedError, match="--retry"):
        session.open(ask(provider="runcomfy"))
    assert house.submissions == 1
    again = house.run(session, ask(provider="runcomfy", retry=True))
    assert again.record.attempt == 2
    assert house.submissions == 2
    assert session.totals().unknown == 2
    assert session.totals().reserved_micros == 672_000


def test_a_failure_that_cost_nothing_is_tried_again(build):
    """Runflow does not charge for failed runs: running the cell again is a new attempt."""
    house = build(faults={"run_failed": {"next": 1}})
    session = house.session()
    failed = house.run(session, ask(provider="runflow"))
    assert (failed.status, failed.record.charged) == ("failed", "no")
    again = house.run(session, ask(provider="runflow"))
    assert (again.status, again.record.attempt) == ("succeeded", 2)
    assert house.submissions == 2


def test_no_cache_is_refused_while_a_run_is_on_its_way(build):
    """Two runs of one take at a time would be an accident."""
    house = build(held=True)
    session = house.session()
    [run] = session.open(ask(provider="runflow"))
    with pytest.raises(BlockedError, match=run.id):
        session.open(ask(provider="runflow", no_cache=True))
    until(lambda: house.accepted)
    assert house.submissions == 1


def test_one_take_that_is_blocked_stops_the_whole_call(build):
    """All takes or none."""
    house = build(faults={"submit_drop_after": {"next": 1}})
    session = house.session()
    assert house.run(session, ask(provider="runcomfy")).status == "lost"
    with pytest.raises(BlockedError):
        session.open(ask(provider="runcomfy", takes=(0, 1, 2)))
    assert house.submissions == 1
    assert len(session.ledger().runs()) == 1


# -- whose clips satisfy whom ---------------------------------------------------------------
def test_a_sandbox_clip_never_satisfies_a_keyed_call(build):
    """A rehearsal without a key is bought for real once there is one, and reused while there is none."""
    house = build()
    house.keys()
    session = house.session()
    play = house.run(session, ask())
    assert (play.provider, play.record.play) == ("sandbox", True)
    assert house.run(session, ask()).id == play.id
    assert house.submissions == 0
    house.keys("runcomfy")
    real = house.run(session, ask())
    assert (real.provider, real.reused) == ("runcomfy", False)
    assert house.submissions == 1
    house.keys()
    assert house.run(session, ask()).id == real.id, "a bought clip comes before a rehearsed one"


def test_a_named_provider_is_answered_by_its_own_runs_alone(build):
    """The other provider's clip satisfies a call that names nobody, and no call that names this one."""
    house = build()
    session = house.session()
    runflow = house.run(session, ask(provider="runflow"))
    runcomfy = house.run(session, ask(provider="runcomfy"))
    assert (runflow.provider, runcomfy.provider) == ("runflow", "runcomfy")
    assert house.submissions == 2
    assert house.run(session, ask(provider="runflow")).id == runflow.id
    assert house.run(session, ask()).id in {runflow.id, runcomfy.id}
    assert house.run(session, ask(provider="auto")).id in {runflow.id, runcomfy.id}
    assert house.submissions == 2
    play = house.run(session, ask(provider="sandbox"))
    assert (play.provider, play.reused) == ("sandbox", False)


FILE = MediaFacts(file="a.mp4", sha256="0" * 64, size=1)
REAL, STAND_IN = "https://api.runflow.io", "http://127.0.0.1:8123/runflow"


@pytest.mark.parametrize(
    ("provider", "origin", "policy", "satisfied"),
    [
        ("sandbox", "http://127.0.0.1:1", ReusePolicy(provider="sandbox"), True),
        ("sandbox", "http://127.0.0.1:1", ReusePolicy(provider="runflow"), False),
        (
            "sandbox",
            "http://127.0.0.1:1",
            ReusePolicy(provider="runflow", real_origin=lambda _: False),
            False,
        ),
        ("runflow", STAND_IN, ReusePolicy(provider="sandbox"), True),
        ("runflow", STAND_IN, ReusePolicy(provider="runflow", real_origin=lambda _: False), True),
        ("runflow", STAND_IN, ReusePolicy(provider="runflow", real_origin=lambda _: True), False),
        ("runflow", STAND_IN, ReusePolicy(provider="runcomfy", real_origin=lambda _: True), False),
        (
            "runflow",
            STAND_IN,
            ReusePolicy(provider="runcomfy", real_origin=lambda name: name == "runcomfy"),
            True,
        ),
        ("runflow", REAL, ReusePolicy(provider="runflow"), True),
        ("runflow", REAL, ReusePolicy(provider="runflow", real_origin=lambda _: False), True),
        ("runflow", REAL, ReusePolicy(provider="runcomfy"), True),
        ("runflow", REAL, ReusePolicy(provider="runcomfy", named=True), False),
        ("runflow", REAL, ReusePolicy(provider="sandbox"), True),
        ("runflow", REAL, ReusePolicy(provider="sandbox", named=True), False),
    ],
)
def test_whose_clips_satisfy_whom(provider, origin, policy, satisfied):
    """A stand-in's clip serves keyless and loopback calls, and never a keyed call to the real provider."""
    finished = make_record(
        provider=provider, origin=origin, play=provider == "sandbox", status=RunStatus.SUCCEEDED, media=FILE
    )
    found = decide([finished], policy, loopback=is_loopback, verified=lambda _: True)
    assert (found.act == "reuse") is satisfied
    assert found.act in {"reuse", "new"}
    pending = finished.model_copy(update={"status": RunStatus.QUEUED, "media": None})
    found = decide([pending], policy, loopback=is_loopback, verified=lambda _: True)
    assert (found.act == "attach") is satisfied


def test_a_stand_ins_clip_is_not_shown_for_the_real_provider(build):
    """With the real address configured, the plan of a keyed call is to buy."""
    house = build()
    session = house.session()
    house.run(session, ask(provider="runflow"))
    assert session.plan(ask(provider="runflow")).new == 0
    house.unset("RUNFLOW_URL", "RUNCOMFY_URL")
    assert session.plan(ask(provider="runflow")).new == 1
    assert session.plan(ask()).new == 1
    house.keys()
    assert session.plan(ask()).new == 0


def test_a_run_at_another_address_is_not_asked_about_with_this_key(build):
    """A pending run of another origin is shown with words; no key goes there or here for it."""
    house = build(held=True)
    session = house.session()
    run = pending_at_the_provider(house, session, provider="runflow")
    # Its watcher ends between two reads, so that none is on its way when they are counted.
    run.detach()
    run.wait(90)
    session.close()
    polls = house.stats()["polls"]
    house.set(RUNFLOW_URL=house.sandbox.runflow.replace("127.0.0.1", "localhost"))
    again = house.run(house.session(), ask(provider="runflow"))
    assert again.id == run.id
    assert again.status.pending
    assert "another address" in str(again.error)
    assert house.stats()["polls"] == polls
    assert house.submissions == 1


def test_a_run_of_another_account_is_neither_lost_nor_expired(build, wire):
    """403 or 404 under another key means the wrong account: the run stays pending with words."""
    house = build(held=True)
    session = house.session(limits=replace(QUICK, watch_s=20))
    run = pending_at_the_provider(house, session, provider=wire)
    session.close()
    house.keys(wire, key="other-key-of-a-test-9Zt4")
    from_folder = house.session()
    again = house.run(from_folder, ask(provider=wire))
    assert again.id == run.id
    assert again.status.pending
    assert "another" in str(again.error)
    assert "account" in str(again.error)
    assert again.error.charged == "unknown"
    house.keys(wire)
    house.let_go()
    assert house.run(from_folder, ask(provider=wire)).status == "succeeded"
    assert house.submissions == 1
    assert VARIABLE[wire] not in str(again.error)
