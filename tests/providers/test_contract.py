"""Both adapters, the engine and the transport against the sandbox over real sockets: one suite, two wires."""

import json
from decimal import Decimal

import httpx
import pytest

from kling_nb.errors import DetachedError, ModeratedError, RunCanceledError, RunFailedError, RunLostError
from kling_nb.providers import make_provider
from kling_nb.records.run import RunStatus
from support.played import ODD, PAGE
from support.stage import Stage, kinds
from support.workbench import until


def one_submit(stage):
    stats = stage.stats()
    return stats["submissions"] == 1 and stats["accepted"] == 1


def test_a_run_ends_as_a_verified_clip_with_its_bill(stage):
    """The whole path: intent, submit, watch, save, settle, sidecar."""
    s = stage()
    run = s.go("A red fox crosses fresh snow", duration=4)
    assert run.status == "succeeded"
    assert run.error is None
    assert run.video.path.read_bytes()[4:8] == b"ftyp"
    assert run.video.duration_s == pytest.approx(4, abs=0.05)
    assert (run.video.facts.width, run.video.facts.height, run.video.facts.audio) == (640, 360, False)
    assert run.cost == Decimal("0.448")
    assert run.record.reported_micros == run.record.settled_micros == 448_000
    assert (run.record.reserved_micros, run.record.charged) == (0, "yes")
    sidecar = json.loads(run.path.with_suffix(".json").read_text())
    assert sidecar["provider_run_id"] == run.provider_run_id
    assert sidecar["file"]["sha256"] == run.video.sha256
    assert one_submit(s)
    assert s.stats()["token_leaks"] == 0


def test_the_intent_is_committed_before_the_post_and_the_id_right_after(stage):
    """Nothing is sent that is not on disk."""
    s = stage()
    run = s.go()
    events = kinds(s, run)
    assert events[:3] == ["created", "submitting", "accepted"]
    assert [k for k in events if k in {"submitting", "accepted", "saved"}] == [
        "submitting",
        "accepted",
        "saved",
    ]


def test_sound_is_asked_for_and_never_by_omission(stage):
    """Silent unless asked; with sound the clip has a track."""
    s = stage()
    silent, loud = s.go("silent"), s.go("loud", audio=True)
    assert silent.video.facts.audio is False
    assert loud.video.facts.audio is True
    names = {"runflow": "generate_audio", "runcomfy": "sound"}
    sent = [row["input"][names[s.wire]] for row in s.stats()["runs"]]
    assert sorted(sent) == [False, True]


def test_a_storyboard_goes_through_whole(stage):
    """Shots add up to the clip."""
    s = stage()
    shots = [{"prompt": "Wide vineyard", "duration": 4}, {"prompt": "Two hands meet", "duration": 3}]
    run = s.go(None, duration=None, shots=shots)
    assert run.status == "succeeded"
    assert run.video.duration_s == pytest.approx(7, abs=0.05)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("submit_401", "auth"),
        ("submit_402", "credit"),
        ("submit_422", "invalid"),
        ("submit_moderated", "moderated"),
    ],
)
def test_a_refused_submit_fails_with_its_reason_and_costs_nothing(stage, fault, reason):
    """A refusal in a readable body created nothing, and the money is given back."""
    s = stage(faults={fault: 1.0})
    run = s.go()
    assert (run.status, run.record.reason, run.record.charged) == ("failed", reason, "no")
    assert (run.record.settled_micros, run.record.reserved_micros) == (0, 0)
    assert isinstance(run.error, RunFailedError)
    assert (s.stats()["submissions"], s.stats()["accepted"]) == (1, 0)


def test_a_bad_key_fails_as_auth(stage):
    """The documented answer to a bad key ends the run, uncharged."""
    s = stage(key="bad-key")
    run = s.go()
    assert (run.status, run.record.reason, run.record.charged) == ("failed", "auth", "no")
    assert "bad-key" not in str(run.error)


def test_a_rate_limit_is_waited_out(stage):
    """A readable 429 created nothing: the same submit goes out again after its wait."""
    s = stage()
    s.faults(submit_429={"next": 2}, retry_after_s=0.05)
    run = s.go()
    assert run.status == "succeeded"
    assert s.stats()["submissions"] == 3
    assert s.stats()["accepted"] == 1
    assert "limited" in kinds(s, run)


@pytest.mark.parametrize(
    "fault", ["submit_drop_after", "submit_500_after", "submit_truncated", "submit_junk"]
)
def test_an_answer_lost_after_acceptance_never_pays_twice(stage, fault):
    """Runflow finds the run by our reference; RunComfy's is lost, and nothing is sent again."""
    s = stage(faults={fault: 1.0})
    run = s.go()
    assert one_submit(s)
    if s.wire == "runflow":
        assert run.status == "succeeded"
    else:
        assert run.status == "lost"
        assert isinstance(run.error, RunLostError)
        assert (run.record.charged, run.record.reserved_micros) == ("unknown", 336_000)


@pytest.mark.parametrize("fault", ["submit_drop", "submit_500", "submit_502"])
def test_an_ambiguous_answer_without_a_run_is_resent_only_where_absence_is_proved(stage, fault):
    """Runflow proves the absence by two reads and sends once more; RunComfy cannot, so it is lost."""
    s = stage()
    s.faults(**{fault: {"next": 1}})
    run = s.go()
    if s.wire == "runflow":
        assert run.status == "succeeded"
        assert s.stats()["submissions"] == 2
        assert s.stats()["accepted"] == 1
        assert s.stats()["lists"] >= 2
    else:
        assert run.status == "lost"
        assert s.stats()["submissions"] == 1


def test_an_absence_is_proved_by_a_long_list_of_which_many_pages_fail(tmp_path):
    """A page that fails is read again, not the list: of 1,000 runs under faults, nine stayed unclear."""
    s = Stage(tmp_path, "runflow")
    try:
        record = s.go().record
        with httpx.Client(headers={"authorization": "Bearer test", "connection": "close"}) as client:
            for number in range(300):
                call = make_provider("runflow", s.base).submit_call(
                    record.request, record.provider_model, client_ref=f"other-{number}", metadata={}
                )
                assert client.post(call.url, json=call.json).is_success
        s.faults(submit_drop={"next": 1}, list_500=0.3)
        run = s.go("A hare in grass")
        assert run.status == "succeeded"
        assert kinds(s, run).count("resent") == 1
        assert s.stats()["accepted"] == 302
        assert sum(count for name, count in s.stats()["fired"].items() if name.endswith("list_500")) >= 3
    finally:
        s.close()


def test_a_submit_that_stays_unclear_is_lost_after_three_proofs(stage):
    """Each POST that two reads prove unheard is sent again, three times at most; then it is lost."""
    s = stage(faults={"submit_drop": 1.0})
    run = s.go()
    assert run.status == "lost"
    assert s.stats()["submissions"] == (4 if s.wire == "runflow" else 1)
    assert s.stats()["accepted"] == 0


def test_a_resend_that_gets_lost_too_is_sent_again_after_a_proof_of_its_own(stage):
    """Two POSTs in a row that never arrived cost nothing but time on Runflow."""
    s = stage(faults={"submit_drop": "next:2"})
    run = s.go()
    if s.wire == "runflow":
        assert run.status == "succeeded"
        assert (s.stats()["submissions"], s.stats()["accepted"]) == (3, 1)
        kinds = [kind for _, kind, _ in s.ledger.events(run.id)]
        assert kinds.count("resent") == 2
    else:
        assert run.status == "lost"


def test_a_slow_answer_is_still_an_answer(stage):
    """A delay is no failure."""
    s = stage(faults={"submit_slow": 1.0, "slow_s": 0.3})
    assert s.go().status == "succeeded"
    assert one_submit(s)


@pytest.mark.parametrize(
    "fault", ["poll_500", "poll_502", "poll_429", "poll_drop", "poll_junk", "poll_truncated"]
)
def test_trouble_while_watching_never_ends_a_run(stage, fault):
    """An unreadable answer says nothing about the run."""
    s = stage()
    s.faults(**{fault: {"next": 3}})
    run = s.go()
    assert run.status == "succeeded"
    assert (
        s.stats()["fired"][f"{s.wire}.{fault}"] == 3
        if f"{s.wire}.{fault}" in s.stats()["fired"]
        else sum(n for name, n in s.stats()["fired"].items() if name.endswith(fault)) == 3
    )


def test_an_unknown_word_means_still_going(stage):
    """A word no contract explains neither ends nor loses a run."""
    s = stage(wait_scale=0.2, faults={"play": ODD})
    run = s.go()
    assert run.status == "succeeded"
    assert s.stats()["fired"][f"{s.wire}.play_status"] == 2


@pytest.mark.parametrize(("fault", "reason"), [("run_failed", "provider"), ("run_moderated", "moderated")])
def test_a_failed_run_says_why_and_what_is_known_of_its_charge(stage, fault, reason):
    """Runflow documents that failures are free; RunComfy says nothing, so it is unknown unless reported."""
    s = stage(faults={fault: 1.0})
    run = s.go()
    assert (run.status, run.record.reason) == ("failed", reason)
    if reason == "moderated":
        assert isinstance(run.error, ModeratedError)
    if s.wire == "runflow":
        assert (run.record.charged, run.record.reserved_micros) == ("no", 0)
    elif run.record.reported_micros is None:
        assert (run.record.charged, run.record.reserved_micros) == ("unknown", 336_000)
    assert one_submit(s)


def test_cancel_is_honest(stage):
    """RunComfy cancels while queued; Runflow has no cancel, so the run goes on and the handle says so."""
    s = stage(faults={"queue_s": 30.0}, wait_scale=1.0)
    run = s.engine.handle(s.record())
    until(lambda: run.provider_run_id)
    if s.wire == "runcomfy":
        assert run.can_cancel
        assert run.cancel() == "canceled"
        run.wait(90)
        assert run.status == "canceled"
        assert isinstance(run.error, RunCanceledError)
    else:
        assert not run.can_cancel
        assert run.cancel() == "not_cancellable"
        assert run.status.pending
        assert "goes on" in run.note
        run.detach()
        run.wait(90)
        assert run.detached
        assert isinstance(run.error, DetachedError)
    assert one_submit(s)


def test_a_cancel_that_comes_too_late_says_so(stage):
    """A running request cannot be canceled and may be charged; it ends as it would have."""
    s = stage(held=True)
    run = s.engine.handle(s.record())
    until(lambda: run.status == "running")
    assert run.cancel() == "not_cancellable"
    s.let_go()
    assert run.wait(90).status == "succeeded"


def test_the_deadline_detaches_and_resume_finishes(stage):
    """Our deadline ends the watching, not the run; resuming sends nothing."""
    from dataclasses import replace

    from support.stage import QUICK

    s = stage(held=True, limits=replace(QUICK, watch_s=0.3))
    run = s.engine.handle(s.record()).wait(90)
    assert run.detached
    assert "resume" in str(run.error)
    s.engine.limits = QUICK
    s.let_go()
    assert run.resume().wait(90).status == "succeeded"
    assert one_submit(s)


def test_a_new_engine_takes_up_what_the_old_one_left(stage):
    """A restarted kernel finishes the run it finds in the ledger and submits nothing."""
    s = stage(held=True)
    first = s.engine.handle(s.record())
    until(lambda: first.provider_run_id)
    first.detach()
    first.wait(90)
    second_engine = s.new_engine()
    [pending] = s.ledger.runs(statuses=[status for status in RunStatus if status.pending])
    second = second_engine.handle(pending)
    assert second is not first
    s.let_go()
    assert second.wait(90).status == "succeeded"
    second_engine.close()
    assert one_submit(s)


@pytest.mark.parametrize(
    "fault",
    [
        "download_truncated",
        "download_500",
        "download_404",
        "download_drop",
    ],
)
def test_a_bad_download_is_fetched_again_for_free(stage, fault):
    """The clip is paid for: a spoilt transfer is repeated, the run is not."""
    s = stage()
    s.faults(**{fault: {"next": 1}})
    run = s.go()
    assert run.status == "succeeded"
    assert s.stats()["downloads"] >= 2
    assert one_submit(s)


def test_what_is_no_video_is_never_called_a_clip(stage):
    """A page in place of a video ends nothing: the run stays on its way, with words, and no clip."""
    s = stage(faults={"play": {"download": PAGE}})
    run = s.go()
    assert (run.status, run.record.charged, run.video) == ("saving", "yes", None)
    assert "Not a playable video" in str(run.error)
    assert not list((s.folder / "kling_media").glob("*.mp4"))


def test_a_clip_that_cannot_be_had_now_stays_on_its_way(stage):
    """A download that keeps failing leaves the run `saving`, and resuming it later finishes the job."""
    s = stage(faults={"download_500": 1.0})
    run = s.go()
    assert run.status == "saving"
    assert run.error.charged == "yes"
    assert "resume" in str(run.error)
    s.faults(download_500=0)
    assert run.resume().wait(90).status == "succeeded"
    assert one_submit(s)


def test_a_run_the_provider_forgot_ends_as_expired(stage):
    """Definite answers of "no such run" for seconds on end, not one, end it; the charge is unknown."""
    s = stage(faults={"run_forgotten": 1.0})
    run = s.go()
    assert (run.status, run.record.reason, run.record.charged) == ("failed", "expired", "unknown")
    assert run.record.reserved_micros == 336_000


def test_no_part_file_is_left_behind(stage):
    """Nothing but the clip and its sidecar stays in the folder."""
    s = stage()
    s.faults(download_truncated={"next": 1})
    run = s.go()
    names = sorted(p.name for p in run.path.parent.iterdir())
    assert names == sorted([run.path.name, run.path.with_suffix(".json").name])


def test_an_expired_link_is_cured_by_reading_again(tmp_path):
    """Runflow signs its links anew on every read."""
    s = Stage(tmp_path, "runflow", faults={"link_lifetime_s": 0.0})
    try:
        s.engine.limits = s.limits
        record = s.record()
        run = s.engine.handle(record)
        while s.stats()["downloads"] < 1 and not run.done:
            pass
        s.faults(link_lifetime_s=3600)
        assert run.wait(90).status == "succeeded"
        assert s.stats()["polls"] >= 2
    finally:
        s.close()
