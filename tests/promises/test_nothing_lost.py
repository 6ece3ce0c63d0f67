"""No paid clip is lost and none is paid twice: processes killed at every step, and real faults.

A child submits and dies by SIGKILL between two durable facts; another process then runs the same cell, or
resumes. The sandbox counts what was sent.
"""

import json
import signal
import socket
from itertools import cycle
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from kling_nb.engine.job import STEPS
from kling_nb.files import file_sha256
from kling_nb.ledger.database import Ledger
from kling_nb.loop import Loop
from kling_nb.sandbox.serve import Sandbox
from support.crash import Nursery
from support.databases import in_both
from support.matrix import ONE_WIRE
from support.stage import WIRES
from support.workbench import KEY, VARIABLE, until

#: Money of one clip of three seconds without sound, in micro-dollars.
PRICE = 336_000
INSTANT = {"queue_s": 0, "dispatch_s": 0, "run_s": 0}
SCHEDULES = {
    "at once": {},
    "waits": {"queue_s": 0.1, "dispatch_s": 0.05, "run_s": 0.3},
    "slow answer": {"submit_slow": 1.0, "slow_s": 0.3},
    "late list": {"runflow.list_lag_s": 0.3, "runflow.list_filter": "ignored", "run_s": 0.2},
    "slow download": {"download_slow": 1.0, "slow_s": 0.3},
    "rough": {"poll_500": {"next": 1}, "download_truncated": {"next": 1}, "submit_429": {"next": 1}},
}
#: Where nobody can know whether a POST without an answer was heard: RunComfy has no list to look it up in.
BLIND = ("submitting in the ledger", "answer read", "on its way")
NOT_SENT = ("intent in the ledger", "intent in the folder", STEPS[2], "resent in the ledger")


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    started = Nursery(tmp_path_factory.mktemp("children"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def sandbox():
    loop = Loop()
    started = loop.start(Sandbox.start(wait_scale=1, seed=7)).result(90)
    yield started
    loop.start(started.stop()).result(90)


class Trial:
    """One ledger and one folder, with a sandbox and children."""

    def __init__(self, folder, where, sandbox, nursery, wire):
        self.folder, self.sandbox, self.nursery, self.wire = folder, sandbox, nursery, wire
        self.media, self.where = folder / "kling_media", where
        self.started = []
        self.schedule()
        before = sandbox.stats()
        self.sent_before, self.accepted_before = before["submissions"], before["accepted"]
        self.env = {
            "KLING_NB_RUNFLOW_URL": sandbox.runflow,
            "KLING_NB_RUNCOMFY_URL": sandbox.runcomfy,
            "KLING_NB_LEDGER": str(self.where),
            "KLING_NB_MEDIA": str(self.media),
            "HOME": str(folder),
            **dict.fromkeys(VARIABLE.values(), KEY),
        }

    def schedule(self, **faults):
        self.sandbox.provider.faults.reset()
        self.sandbox.set_faults({**INSTANT, **faults})

    def start(self, do="cell", *, prompts=("A red fox in snow",), **spec):
        spec = {"do": do, "env": self.env, "folder": str(self.folder), "wire": self.wire, **spec}
        self.started.append(self.nursery.start(prompts=list(prompts), **spec))
        return self.started[-1]

    def run(self, do="cell", **spec):
        return self.start(do, **spec).said()["runs"]

    @property
    def accepted(self):
        return self.sandbox.stats()["accepted"] - self.accepted_before

    @property
    def sent(self):
        return self.sandbox.stats()["submissions"] - self.sent_before

    def rows(self):
        ledger = Ledger(self.where)
        try:
            return [SimpleNamespace(record=r, events=ledger.events(r.id)) for r in ledger.runs()]
        finally:
            ledger.close()

    def last(self):
        [row] = [row for row in self.rows() if row.record.status != "canceled"]
        return row.record

    def check_kept(self, record, finisher=None):
        """The clip is whole, and ledger, sidecar and file agree; the books are closed exactly."""
        assert record.status == "succeeded", record
        path = self.media / record.media.file
        assert file_sha256(path) == record.media.sha256
        [sidecar] = self.media.glob(f"*{record.id}.json")
        told = json.loads(sidecar.read_text())
        assert record.media.sha256 in sidecar.read_text()
        assert told["status"] == "succeeded"
        assert (record.reserved_micros, record.settled_micros) == (0, PRICE)
        if finisher is not None:
            assert not list(self.media.glob(f".*.{finisher.pid}-*.part"))

    def check_books(self):
        """State and history agree, and nothing is counted twice."""
        for row in self.rows():
            assert row.events[-1][2]["status"] == row.record.status.value
            accepted = [kind for _, kind, _ in row.events if kind.startswith("accepted")]
            assert len(accepted) <= 1, row.events

    def close(self):
        for child in self.started:
            if child.code is None:
                for number in (signal.SIGCONT, signal.SIGKILL):
                    try:
                        child.signal(number)
                    except ProcessLookupError:
                        break
                child.wait()


@pytest.fixture
def trial(tmp_path, where, sandbox, nursery):
    made = []

    def build(wire):
        made.append(Trial(tmp_path, where, sandbox, nursery, wire))
        return made[-1]

    yield build
    for each in made:
        each.close()


def is_clip(part):
    """Whether a file that is being written is the clip, and neither a sidecar nor a trial for room."""
    return ".json." not in part.name and not part.name.startswith(".room.")


def killed(trial, step, schedule):
    """Let a child die at a step; gives whether the step was reached."""
    trial.schedule(**SCHEDULES[schedule])
    trial.refused_first = schedule == "rough" and step == "answer read"
    if step == "resent in the ledger":
        trial.sandbox.set_faults({"submit_drop": "next:1"})
    if step == "on its way":
        trial.sandbox.set_faults({"submit_hang_after": "next:1", "hang_s": 20})
        child = trial.start()
        until(lambda: trial.accepted == 1)
        child.signal(signal.SIGKILL)
    elif step == "part half":
        trial.sandbox.set_faults({"download_trickle": {"next": 1}, "trickle_bytes_s": 10_000})
        child = trial.start()
        until(lambda: any(map(is_clip, trial.media.glob(".*.part"))))
        child.signal(signal.SIGKILL)
    else:
        child = trial.start(at=step)
    assert child.wait() == -signal.SIGKILL, child.out.read_text()


def finish_and_judge(trial, step, how):
    """Let another process finish, and judge what became of it."""
    blind = trial.wire == "runcomfy" and step in BLIND
    before = trial.accepted
    finisher = trial.start(how)
    said = finisher.said()["runs"]
    if how != "cell" and (step in NOT_SENT or trial.refused_first) and not blind:
        # Looking after what is there never sends: the run ends, uncharged, and says that its cell sends it.
        [row] = trial.rows()
        assert (row.record.status, row.record.charged) == ("canceled", "no")
        assert (row.record.reserved_micros, row.record.settled_micros) == (0, 0)
        assert trial.accepted == 0
        [told] = [each["answer"] for each in said]
        assert "never sent" in told or "never reached" in told
        assert "Run its cell again to send it." in told
        # Which leads to the same end: one accepted run, and its clip.
        finisher = trial.start()
        finisher.said()
    if blind:
        record = trial.last()
        assert (record.status, record.charged) == ("lost", "unknown")
        assert (record.reserved_micros, record.settled_micros) == (PRICE, None)
        # And it blocks: the cell is refused, and nothing is sent.
        [refused] = trial.run()
        assert refused["error"] == "BlockedError", refused
        # In rough weather the answer that was read is a refusal for the rate, and nobody wrote that down.
        assert trial.accepted == before == (step != STEPS[2] and not trial.refused_first)
        trial.check_books()
        return
    trial.check_kept(trial.last(), finisher)
    trial.check_books()
    assert trial.accepted == 1
    # Once more: reused, nothing sent.
    sent = trial.sent
    [again] = trial.run()
    assert (again["status"], again["reused"]) == ("succeeded", True)
    assert (trial.sent, trial.accepted) == (sent, 1)


POINTS = (*STEPS, "on its way", "part half")
TRIALS = [
    (wire, step)
    for step in POINTS
    for wire in WIRES
    if not (step == "resent in the ledger" and wire == "runcomfy")
]
HOWS = ("cell", "collect", "resume", "use")
_schedules, _hows = cycle(SCHEDULES), cycle([*HOWS, "cell"])
#: Both wires where an answer can be lost, elsewhere in turn; the matrix has both at each step.
ONE_EACH = [
    (wire, step, next(_schedules), next(_hows))
    for wire, step in TRIALS
    if step in {"submitting in the ledger", "answer read"} or WIRES.index(wire) == POINTS.index(step) % 2
]
#: The cell in every schedule, and each other way in two of them, in turn.
ALL = [(wire, step, schedule, "cell") for wire, step in TRIALS for schedule in SCHEDULES]
_in_turn = cycle(SCHEDULES)
ALL += [(wire, step, next(_in_turn), how) for how in HOWS[1:] for wire, step in TRIALS for _ in range(2)]
#: With the ledger of a team: both wires at each step, and everything else in turn.
OF_A_TEAM = [(wire, step, next(_schedules), next(_hows)) for wire, step in TRIALS]
QUICK_OF_A_TEAM = [
    ("runflow", "submitting in the ledger", "at once", "cell"),
    ("runcomfy", "answer read", "at once", "cell"),
    ("runflow", "part whole", "at once", "use"),
]


def in_ledgers(sqlite, postgresql):
    """Parametrize a trial with cases for a ledger in a file, and for that of a team."""
    cases = [("sqlite", *case) for case in sqlite] + [("postgresql", *case) for case in postgresql]
    return pytest.mark.parametrize(("where", "wire", "step", "schedule", "how"), cases, indirect=["where"])


@in_ledgers(ONE_EACH, QUICK_OF_A_TEAM)
def test_a_kill_at_any_step_is_finished_by_another_process(trial, wire, step, schedule, how):
    """SIGKILL between two durable facts: sent once, kept whole, booked once; what cannot be known is lost."""
    t = trial(wire)
    killed(t, step, schedule)
    finish_and_judge(t, step, how)


@in_both
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    ("step", "nth"),
    [
        ("batch half written", 5),
        ("batch in the ledger", 2),
        *(pytest.param("batch half written", nth, marks=pytest.mark.matrix) for nth in (1, 4, 6, 8, 9, 11)),
        *(pytest.param("batch in the ledger", nth, marks=pytest.mark.matrix) for nth in (1, 3, 4, 5)),
    ],
)
def test_a_kill_in_a_batch_of_several_runs_is_finished_by_another_process(trial, wire, step, nth):
    """Half of it written, or all of it and nothing posted yet: each run is sent once, or known as lost."""
    t, prompts = trial(wire), ("A red fox in snow", "A hare in grass", "An owl at night")
    child = t.start(prompts=prompts, at=step, nth=nth)
    assert child.wait() == -signal.SIGKILL, child.out.read_text()
    sending = {row.record.id for row in t.rows() if row.record.status == "submitting"}
    t.run(prompts=prompts)
    records = {row.record.id: row.record for row in t.rows()}
    lost = {run_id for run_id, record in records.items() if record.status == "lost"}
    assert lost == (sending if wire == "runcomfy" else set())
    assert {record.status for run_id, record in records.items() if run_id not in lost} <= {"succeeded"}
    assert len(records) == 3
    assert 3 - len(lost) <= t.accepted <= 3
    assert t.sent == t.accepted
    t.check_books()


@pytest.mark.matrix
@in_ledgers(ALL, OF_A_TEAM)
def test_a_kill_at_any_step_in_any_schedule(trial, wire, step, schedule, how):
    """The same for every schedule and every way to go on: all reach the same end."""
    t = trial(wire)
    killed(t, step, schedule)
    finish_and_judge(t, step, how)


@pytest.mark.parametrize("wire", WIRES)
def test_every_step_is_passed(trial, wire):
    """The list of steps is what a run really passes, in its order: no trial tests a step that never comes."""
    t = trial(wire)
    passed = t.start().said()["steps"]
    assert passed == list(STEPS[:-1])
    t.check_kept(t.last())


# -- sleep, clocks and two processes ------------------------------------------------------------
@in_both
@pytest.mark.parametrize("wire", ONE_WIRE)
@pytest.mark.parametrize(
    "step", ["intent in the folder", "submitting in the ledger", "answer read", "end read"]
)
def test_a_machine_that_slept_through_its_lease_sends_nothing(trial, wire, step):
    """Stopped at a step, overtaken by another process, and woken: no second submit, no end undone."""
    t = trial(wire)
    sleeper = t.start(at=step, signal=signal.SIGSTOP)
    until(sleeper.stopped)
    other = t.start()
    other.said()
    before = t.last()
    assert before.status == ("lost" if wire == "runcomfy" and step in BLIND else "succeeded")
    assert t.accepted == (not (wire == "runcomfy" and step == "submitting in the ledger"))
    sleeper.signal(signal.SIGCONT)
    sleeper.said()
    after = t.last()
    assert t.sent <= 1
    if wire == "runcomfy" and step == "answer read":
        # The sleeper had the answer: the id that was paid for is written down, and the clip is kept.
        t.check_kept(after)
    else:
        assert (after.status, after.provider_run_id) == (before.status, before.provider_run_id)
    t.check_books()


def asleep_for_a_day(t, step):
    """Stop a process at a step for good, let another go on a day later, and wake the first one then."""
    sleeper = t.start(at=step, signal=signal.SIGSTOP, woken_s=86_400)
    until(sleeper.stopped)
    t.start(shift_s=86_400).said()
    before, files = t.last(), {path: path.stat().st_ino for path in t.media.glob("*.mp4")}
    sent = t.sent
    sleeper.signal(signal.SIGCONT)
    [woken] = sleeper.said()["runs"]
    after = t.last()
    blind = t.wire == "runcomfy" and step in BLIND
    assert sent <= 1
    assert t.sent == sent
    t.check_books()
    if blind and step == "answer read":
        # The sleeper had the answer: the id that was paid for is written down, and the clip is kept.
        t.check_kept(after)
    elif blind:
        assert (before.status, after) == ("lost", before)
    else:
        assert t.accepted == 1
        t.check_kept(after)
        assert (after, woken["status"], woken["whole"]) == (before, "succeeded", True)
        assert {path: path.stat().st_ino for path in t.media.glob("*.mp4")} == files


@in_both
@pytest.mark.parametrize("wire", ONE_WIRE)
@pytest.mark.parametrize("step", ["submitting in the ledger", "part whole", "saved in the folder"])
def test_a_machine_asleep_for_a_day_undoes_nothing(trial, wire, step):
    """Its run is another process's by then: one submit, and nobody overwrites the other's end or its file."""
    asleep_for_a_day(trial(wire), step)


@pytest.mark.matrix
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("step", STEPS[:-1])
def test_a_machine_asleep_for_a_day_undoes_nothing_full(trial, wire, step):
    """The same at every step of a run."""
    asleep_for_a_day(trial(wire), step)


@in_both
@pytest.mark.parametrize("wire", ONE_WIRE)
@pytest.mark.parametrize("step", ["intent in the folder", "submitting in the ledger", "end read"])
def test_a_machine_asleep_for_a_day_goes_on_where_it_was(trial, wire, step):
    """Nobody took over meanwhile: it sends once, and ends with its clip."""
    t = trial(wire)
    sleeper = t.start(at=step, signal=signal.SIGSTOP, woken_s=86_400)
    until(sleeper.stopped)
    sleeper.signal(signal.SIGCONT)
    [woken] = sleeper.said()["runs"]
    assert (woken["status"], woken["whole"]) == ("succeeded", True)
    assert (t.sent, t.accepted) == (1, 1)
    t.check_kept(t.last(), sleeper)


@in_both
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("shift_s", [86_400, -86_400], ids=["a day ahead", "a day behind"])
def test_a_clock_that_is_a_day_wrong_harms_nobody(trial, wire, shift_s):
    """A killed run is taken over in time although its lease seems to last for a day more, or long gone."""
    t = trial(wire)
    child = t.start(at="accepted in the folder")
    assert child.wait() == -signal.SIGKILL
    finisher = t.start(shift_s=shift_s)
    finisher.said()
    t.check_kept(t.last(), finisher)
    assert t.accepted == 1


@in_both
@pytest.mark.parametrize("wire", ONE_WIRE)
def test_a_clock_that_jumps_ahead_steals_no_submit(trial, wire):
    """Another process, a day ahead, takes the lease for run out while the POST waits for its answer."""
    t = trial(wire)
    t.schedule(submit_slow=1.0, slow_s=3)
    first = t.start()
    until(lambda: t.sent == 1)
    [second] = t.start(shift_s=86_400).said()["runs"]
    assert second["status"] == "succeeded"
    assert first.said()["runs"][0]["status"] == "succeeded"
    assert (t.sent, t.accepted) == (1, 1)
    t.check_kept(t.last())


# -- real faults ----------------------------------------------------------------------------------
@pytest.mark.parametrize("wire", WIRES)
def test_nothing_is_sent_when_the_ledger_has_no_room(trial, wire):
    """The intent cannot be committed, so there is no POST; with room again the cell sends it once."""
    t = trial(wire)
    t.run("take up")
    [refused] = t.run(most_bytes=4096)
    assert refused["error"] in {"LedgerError", "StoreError"}, refused
    assert t.sent == 0
    [sent] = t.run()
    assert sent["status"] == "succeeded"
    assert t.sent == 1
    t.check_kept(t.last())


@pytest.mark.parametrize("wire", ONE_WIRE)
def test_a_disk_full_in_the_middle_of_a_download_is_no_loss(trial, wire):
    """The clip does not fit: the run stays `saving`, charged; with room again a resume fetches it."""
    t = trial(wire)
    killed(t, "end in the ledger", "at once")
    [full] = t.run("take up", most_bytes=8192, full_at="part made")
    assert (full["status"], full["stopped"]) == ("saving", "StoreError"), full
    assert "Charged: yes" in full["what"]
    assert t.last().status == "saving"
    assert not list(t.media.glob("*.mp4"))
    finisher = t.start("resume")
    finisher.said()
    t.check_kept(t.last(), finisher)
    assert t.accepted == 1


@pytest.mark.parametrize("wire", ONE_WIRE)
def test_a_link_that_has_expired_is_signed_anew(trial, wire):
    """403 for the file means a new reading, not a lost clip."""
    t = trial(wire)
    killed(t, "part made", "at once")
    t.sandbox.set_faults({"download_403": {"next": 2}})
    finisher = t.start()
    finisher.said()
    t.check_kept(t.last(), finisher)
    assert t.accepted == 1


@pytest.mark.parametrize("wire", ONE_WIRE)
def test_a_run_that_its_provider_forgot_ends_in_words_and_is_not_sent_again(trial, wire):
    """404 three times over: expired, its charge unknown, its money still held; the cell is refused."""
    t = trial(wire)
    killed(t, "accepted in the folder", "waits")
    t.sandbox.set_faults({"poll_404": 1.0})
    [ended] = t.run()
    assert ended["status"] == "failed"
    record = t.last()
    assert (record.reason, record.charged, record.reserved_micros) == ("expired", "unknown", PRICE)
    [refused] = t.run()
    assert refused["error"] == "BlockedError"
    assert (t.sent, t.accepted) == (1, 1)


@pytest.mark.parametrize("step", ["intent in the folder", "submitting in the ledger", "answer read"])
def test_play_that_was_not_accepted_goes_to_the_sandbox_of_the_next_process(trial, step):
    """As play money cannot be paid twice, it is sent again; not to whoever has its old address by now."""
    trial = trial("sandbox")
    trial.env["KLING_NB_SANDBOX_WAIT"] = "0.02"
    assert trial.start(at=step).wait() == -signal.SIGKILL
    [row] = trial.rows()
    with socket.create_server(("127.0.0.1", urlsplit(row.record.origin).port)) as other:
        [said] = trial.run()
        assert (said["status"], said["whole"]) == ("succeeded", True), said
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()
    [after] = trial.rows()
    assert after.record.origin != row.record.origin


def test_play_that_was_accepted_goes_on_in_the_sandbox_of_the_next_process(trial):
    """Its run follows from its request."""
    trial = trial("sandbox")
    trial.env["KLING_NB_SANDBOX_WAIT"] = "0.02"
    assert trial.start(at="accepted in the ledger").wait() == -signal.SIGKILL
    [said] = trial.run()
    assert (said["status"], said["whole"]) == ("succeeded", True), said
