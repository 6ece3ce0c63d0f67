"""The session: what it stands on, what it refuses before anything is sent, and how it looks back."""

import os
import time
from decimal import Decimal
from pathlib import Path

import pytest

from kling_nb.errors import (
    BlockedError,
    BudgetError,
    ConsentError,
    KeyMissingError,
    KlingError,
    LedgerError,
    NotCachedError,
    SettingsError,
    StoreError,
    UnpricedError,
    UnsupportedError,
    UsageError,
)
from kling_nb.notebook.line import run_command
from kling_nb.records.request import make_request
from kling_nb.session.plan import Ask
from kling_nb.views.words import state_word
from support.matrix import ONE_WIRE
from support.sessions import ask
from support.workbench import KEY, until

SHOTS = [{"prompt": "A vineyard", "duration": 4}, {"prompt": "Two hands", "duration": 3}]


# -- nothing is sent where anything is wrong --------------------------------------------------
def no_room(house):
    disk = type("Disk", (), {"free": 10_000_000})
    house.patch.setattr("kling_nb.media.disk.shutil.disk_usage", lambda _: disk)
    return {}


def file_for_media(house):
    house.media.write_text("a file in its place")
    return {}


def impossible_media(house):
    house.set(MEDIA="/proc/kling_media")
    return {}


def folder_for_ledger(house):
    (house.folder / "ledger.db").mkdir()
    return {}


def junk_for_ledger(house):
    (house.folder / "ledger.db").write_bytes(b"no database at all" * 100)
    return {}


def full_disk_for_ledger(house):
    house.set(LEDGER="/dev/full")
    return {}


def ledger_in_memory(house):
    house.set(LEDGER="sqlite://")
    return {}


def too_dear(house):
    house.set(BUDGET="0.10")
    return {}


def dearer_than_max_cost(_house):
    return {"max_cost": Decimal("0.10")}


def unpriced(_house):
    return {"provider": "runflow", "request": make_request(prompt="A drum", audio=True)}


def not_consented(_house):
    return {"headless": True}


def malformed_key(house):
    house.keys("runflow", key="two words")
    return {}


def missing_key(house):
    house.keys("runcomfy")
    return {"provider": "runflow"}


def missing_key_of_the_setting(house):
    house.keys()
    house.set(PROVIDER="runcomfy")
    return {}


def unknown_provider(_house):
    return {"provider": "fal"}


def unknown_model(_house):
    return {"model": "kling-9"}


def model_not_offered(_house):
    return {"provider": "runflow", "model": "4k"}


def prompt_beside_shots(_house):
    return {"provider": "runflow", "request": make_request(prompt="A film", shots=SHOTS)}


def short_shot(_house):
    shots = [{"prompt": "A vineyard", "duration": 2}, {"prompt": "Two hands", "duration": 3}]
    return {"provider": "runcomfy", "request": make_request(shots=shots)}


def shots_that_pro_does_not_take(_house):
    return {"provider": "runcomfy", "request": make_request(prompt="A film", shot_type="intelligent")}


def another_token_on_a_managed_machine(house):
    house.keys()
    house.patch.setenv("RUNCOMFY_API_TOKEN_FILE", "/run/token")
    house.patch.setenv("RUNCOMFY_TOKEN", KEY)
    return {}


def broken_setting(house):
    house.set(BUDGET="a lot")
    return {}


def foreign_address(house):
    house.set(RUNFLOW_URL="https://evil.example.org")
    return {}


def broken_user_file_path():
    return Path(os.environ["XDG_CONFIG_HOME"]) / "kling_nb" / "config.toml"


def broken_user_file(_house):
    path = broken_user_file_path()
    path.parent.mkdir(parents=True)
    path.write_text("budget = [[[")
    return {}


def cached_only(_house):
    return {"cached_only": True}


def too_much_metadata(_house):
    return {"metadata": {"note": "x" * 2_000_000}}


CAUSES = {
    no_room: (StoreError, "MB free"),
    file_for_media: (StoreError, "cannot be written"),
    impossible_media: (StoreError, "cannot be written"),
    folder_for_ledger: (LedgerError, "unable to open"),
    junk_for_ledger: (LedgerError, "not a database"),
    full_disk_for_ledger: (LedgerError, "full"),
    ledger_in_memory: (LedgerError, "gone with this process"),
    too_dear: (BudgetError, r"\$0\.10"),
    dearer_than_max_cost: (BudgetError, "max-cost"),
    unpriced: (UnpricedError, "--allow-unpriced"),
    not_consented: (ConsentError, "KLING_NB_BUDGET"),
    malformed_key: (KeyMissingError, "white space"),
    shots_that_pro_does_not_take: (UnsupportedError, "customize only, not intelligent"),
    another_token_on_a_managed_machine: (KeyMissingError, "so RUNCOMFY_TOKEN is not read"),
    missing_key: (KeyMissingError, "RUNFLOW_API_KEY"),
    missing_key_of_the_setting: (KeyMissingError, "RUNCOMFY_API_TOKEN"),
    unknown_provider: (UsageError, "fal"),
    unknown_model: (UsageError, "kling-9"),
    model_not_offered: (UnsupportedError, "offer"),
    prompt_beside_shots: (UnsupportedError, "runcomfy"),
    short_shot: (UnsupportedError, "shot 1"),
    broken_setting: (SettingsError, "KLING_NB_BUDGET"),
    foreign_address: (SettingsError, "evil.example.org"),
    broken_user_file: (SettingsError, "config.toml"),
    cached_only: (NotCachedError, "red fox"),
    too_much_metadata: (StoreError, "too large"),
}


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.__name__)
def test_nothing_is_sent_where_anything_is_wrong(build, monkeypatch, cause):
    """One line with a cure, nothing charged, held or sent; and the same call without that cause sends."""
    house = build()
    kind, words = CAUSES[cause]
    with monkeypatch.context() as patch:
        house.patch = patch
        options = cause(house)
        session = house.session(headless=options.pop("headless", False))
        call = Ask(**{"request": make_request(prompt="A red fox in snow", duration=3), **options})
        with pytest.raises(kind, match=words) as caught:
            session.open(call)
        session.close()
    error = caught.value
    assert str(error).count("\n") == 0
    assert "Charged: no." in str(error)
    assert error.cure
    assert KEY not in str(error)
    assert house.submissions == 0
    house.patch = monkeypatch
    if cause in {file_for_media, junk_for_ledger}:
        (house.media if cause is file_for_media else house.folder / "ledger.db").unlink()
    if cause is broken_user_file:
        broken_user_file_path().unlink()
    if cause is folder_for_ledger:
        (house.folder / "ledger.db").rmdir()
    control = house.session()
    assert control.totals().reserved_micros == 0
    assert all(run.status.ended for run in control.runs())
    assert house.run(control, ask()).status == "succeeded"
    assert house.submissions == 1


def test_a_call_is_refused_whole(build):
    """What a folder refuses in the last moment is refused for every take, and each gives its money back."""
    house = build()
    session = house.session()
    with pytest.raises(StoreError, match="too large"):
        session.open(ask(takes=(0, 1, 2), metadata={"note": "x" * 2_000_000}))
    assert [(run.status, run.cost, run.record.charged) for run in session.runs()] == [("failed", 0, "no")] * 3
    assert session.totals().reserved_micros == 0
    assert len(session.resume()) == 0
    assert house.submissions == 0


@pytest.mark.parametrize("provider", ONE_WIRE)
def test_a_provider_that_cannot_be_reached_charges_nothing(build, provider):
    """Refused connections and names that nobody knows: the run ends, and says that nothing was sent."""
    house = build()
    variable = f"{provider.upper()}_URL"
    session = house.session()
    for url, words in (("http://127.0.0.1:9", "refused"), ("https://kling.invalid", "name")):
        house.set(**{variable: url}, ALLOW_ORIGIN="https://kling.invalid")
        run = house.run(session, ask(f"At {url}", provider=provider))
        assert (run.status, run.record.reason, run.record.charged) == ("failed", None, "no")
        assert state_word(run.record) == "Failed: network"
        assert "Nothing was sent" in str(run.error)
        assert words in str(run.error)
        assert run.cost == 0
    assert session.totals().reserved_micros == 0
    assert house.submissions == 0


@pytest.mark.parametrize(
    ("provider", "fault", "status", "charged"),
    [
        ("runcomfy", "submit_200_error", "lost", "unknown"),
        ("runflow", "submit_200_error", "lost", "unknown"),
        ("runcomfy", "submit_junk", "lost", "unknown"),
        ("runflow", "submit_junk", "succeeded", "yes"),
        ("runcomfy", "submit_401", "failed", "no"),
        ("runflow", "submit_404", "failed", "no"),
        ("runflow", "submit_503", "lost", "unknown"),
    ],
)
def test_odd_answers_end_in_words(build, provider, fault, status, charged):
    """A good status with an error inside, a page instead of JSON, a film that is none."""
    house = build(faults={fault: 1.0})
    session = house.session()
    run = house.run(session, ask(provider=provider))
    assert (run.status, run.record.charged) == (status, charged)
    if status != "succeeded":
        assert f"Charged: {charged}." in str(run.error)
        assert "\n" not in str(run.error)
        assert run.error.cure
    # Runflow can prove that a submit made nothing, which is leave to send it again.
    again = provider == "runflow" and status == "lost"
    assert house.submissions > 1 if again else house.submissions == 1
    assert house.accepted <= 1
    assert KEY not in repr(run) + str(run.error)


def test_an_empty_account_is_said_also_inside_a_good_status(build):
    """RunComfy may answer 200 with an error code: nothing was made, and the cell can be run again."""
    house = build(faults={"runcomfy.credit_status": "200"})
    house.keys("runcomfy", key="poor-key-of-a-test-5Lk1")
    session = house.session()
    run = house.run(session, ask())
    assert (run.status, run.record.reason, run.record.charged, run.cost) == ("failed", "credit", "no", 0)
    assert "Add credit" in run.error.cure
    house.keys("runcomfy")
    assert house.run(session, ask()).status == "succeeded"
    assert house.submissions == 2


def test_a_bad_key_is_said_and_not_shown(build):
    """The provider refuses it: nothing was made, and with a good key the same cell goes through."""
    house = build()
    session = house.session()
    for provider in ("runflow", "runcomfy"):
        house.keys(provider, key="bad-key-of-a-test-3Xw8")
        run = house.run(session, ask(provider=provider))
        assert (run.status, run.record.reason, run.cost) == ("failed", "auth", 0)
        assert "bad-key" not in str(run.error) + repr(run)
        house.keys(provider)
        assert house.run(session, ask(provider=provider)).status == "succeeded"
    assert (house.submissions, house.accepted) == (4, 2)


def test_a_key_in_the_base_address_is_refused(build):
    """The address is kept with every run and shown; nothing is sent, and no file holds the key."""
    house = build()
    house.set(RUNFLOW_URL=f"{house.sandbox.runflow}/{KEY}")
    with pytest.raises(UsageError, match="base address") as refused:
        house.session().open(ask(provider="runflow"))
    assert KEY not in str(refused.value)
    kept = [path for path in house.folder.rglob("*") if path.is_file()]
    assert kept
    assert not any(KEY.encode() in path.read_bytes() for path in kept)
    assert house.submissions == 0


# -- what it stands on -----------------------------------------------------------------------
def test_a_session_is_made_of_nothing_until_it_is_used(build):
    """No ledger, no folder, no server, no thread."""
    house = build()
    session = house.session()
    assert session.settings().provider == "auto"
    assert not (house.folder / "ledger.db").exists()
    assert not house.media.exists()
    assert not session.loop.running
    session.close()
    session.close()


def test_settings_are_read_anew_for_each_call(build, tmp_path):
    """A changed environment counts at once, also another ledger and another folder."""
    house = build()
    session = house.session()
    first = house.run(session, ask())
    house.set(LEDGER=tmp_path / "second.db", MEDIA=tmp_path / "second")
    second = house.run(session, ask())
    assert second.id != first.id
    assert second.path.parent.name == "second"
    assert [run.id for run in session.runs()] == [second.id]
    house.set(LEDGER=tmp_path / "ledger.db", MEDIA=house.media)
    assert house.run(session, ask()).id == first.id
    session.configure({"budget": "0.01"})
    with pytest.raises(BudgetError):
        session.open(ask("Another"))
    assert house.submissions == 2


def test_a_closed_session_opens_again(build):
    """Closing keeps what is on record; the next call finds it."""
    house = build()
    session = house.session()
    first = house.run(session, ask())
    session.close()
    assert house.run(session, ask()).id == first.id
    house.keys()
    assert house.run(session, ask("Play")).status == "succeeded"
    session.close()
    assert house.run(session, ask("Play")).reused
    assert house.submissions == 1


def test_a_sandbox_run_goes_on_in_the_next_kernel(build):
    """A play run that was on its way when its kernel ended is the next kernel's, with its id and its clip."""
    house = build()
    house.keys()
    house.set(SANDBOX_WAIT=50)
    first = house.session()
    [run] = first.open(ask())
    until(lambda: run.provider_run_id)
    first.close()
    house.set(SANDBOX_WAIT=0)
    second = house.session()
    taken = house.run(second, ask())
    assert (taken.id, taken.status, taken.provider_run_id) == (run.id, "succeeded", run.provider_run_id)
    assert taken.path.is_file()
    assert second.totals(play=True).reserved_micros == 0
    assert len(second.ledger().runs()) == 1


# -- looking back --------------------------------------------------------------------------------
def test_runs_are_found_by_either_id(build):
    """Ours, or the provider's; a name that nobody knows is an error with a cure."""
    house = build()
    session = house.session()
    run = house.run(session, ask(tags={"scene": "3"}))
    other = house.session()
    assert other.find(run.id).record == run.record
    assert other.find(run.provider_run_id).id == run.id
    assert other.find(run.id).record.tags == {"scene": "3"}
    with pytest.raises(UsageError, match="kling list"):
        other.find("knothere")
    assert other.runs(limit=1)[0].id == run.id
    assert house.submissions == 1


def test_a_look_shows_what_another_process_has_done(build):
    """A handle that nobody here drives follows the ledger whenever it is looked at."""
    house = build(held=True)
    first, second = house.session(), house.session()
    [run] = first.open(ask())
    seen = second.find(run.id)
    assert seen.status.pending
    house.let_go()
    run.wait(90)
    assert second.find(run.id) is seen
    assert (seen.status, seen.done) == ("succeeded", True)
    assert second.runs()[0].path == run.path


def test_resume_takes_up_everything_and_sends_nothing(build):
    """Runs of an earlier kernel are finished by id alone."""
    house = build(held=True)
    first = house.session()
    runs = first.open(ask(takes=(0, 1))) + first.open(ask(takes=(0, 1), provider="runcomfy"))
    until(lambda: all(run.provider_run_id for run in runs))
    first.close()
    house.let_go()
    second = house.session()
    taken = second.resume()
    assert len(taken) == 4
    assert [run.wait(90).status for run in taken] == ["succeeded"] * 4
    assert len(second.resume()) == 0
    assert house.submissions == 4


def test_a_plan_changes_nothing(build):
    """What would be done, the exact payloads and the price; no row, no clip, no submit."""
    house = build(faults={"submit_drop_after": {"next": 1}})
    session = house.session()
    house.run(session, ask(provider="runcomfy"))
    house.run(session, ask("Kept"))
    before = house.submissions
    plan = session.plan(ask("Kept", takes=(0, 1)))
    assert [take.word for take in plan.takes] == ["reused", "new"]
    assert (plan.provider, plan.new, plan.micros) == ("runflow", 1, 336_000)
    assert plan.payloads["runflow"]["input"]["duration"] == "3"
    assert plan.payloads["runcomfy"]["duration"] == 3
    assert plan.totals.cap_micros == 10_000_000
    blocked = session.plan(ask(provider="runcomfy")).takes[0]
    assert blocked.word == "blocked"
    assert isinstance(blocked.error, BlockedError)
    assert (house.submissions, len(session.runs())) == (before, 2)


def test_every_error_of_the_tree_is_one_line():
    """What happened, charged, cure: whichever class it is, and whatever a provider wrote into it."""
    kinds = {KlingError}
    while more := {sub for kind in kinds for sub in kind.__subclasses__()} - kinds:
        kinds |= more
    ours = {kind for kind in kinds if kind.__module__.startswith("kling_nb")}
    for kind in ours:
        needs = {"sent": True} if kind.__name__ == "TransportError" else {}
        error = kind("It\nbroke\x1b[31m.", charged="unknown", cure="Mend\r\nit.", **needs)
        assert str(error) == "It broke [31m. Charged: unknown. Mend it."
        assert (error.what, error.charged, error.cure) == ("It broke [31m.", "unknown", "Mend it.")
        assert isinstance(error, KlingError)
    assert len(ours) >= 22


def test_opening_is_quick(build):
    """A call returns once the intent is on disk, however slow the provider is."""
    house = build(faults={"submit_hang": 1.0, "hang_s": 60})
    session = house.session()
    session.ledger()
    began = time.monotonic()
    runs = session.open(ask(takes=range(8)))
    # The provider hangs for twice as long; how quick it is on a busy machine is nobody's promise.
    assert time.monotonic() - began < 30
    assert all(run.status.pending for run in runs)
    until(lambda: house.submissions == 4)
    session.engine().close(0)


def test_a_key_from_the_machine_is_named_where_it_is_used_first(build):
    """Nobody typed the key of a managed machine: `%kling keys` and the first card of a session say so."""
    house = build()
    house.keys("runcomfy")
    house.patch.setenv("RUNCOMFY_API_TOKEN_FILE", "/run/token")
    session = house.session()
    assert "from the machine" in run_command(session, "keys", {}).text
    first, second = (house.run(session, ask(prompt)) for prompt in ("A fox", "A hare"))
    assert "from the machine" in first.note
    assert first.note in first.bundle()["text/plain"]
    assert second.note == ""
    house.patch.delenv("RUNCOMFY_API_TOKEN_FILE")
    typed = house.session()
    assert house.run(typed, ask("A stoat")).note == ""
