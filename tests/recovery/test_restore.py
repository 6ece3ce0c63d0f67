"""Clips come back by their bytes, from here or from their provider, and what is gone is said."""

import json
import os
import shutil

import pytest

from kling_nb.errors import UsageError
from kling_nb.notebook.line import run_command
from kling_nb.records.run import RunStatus
from kling_nb.records.saved_notebook import read_receipts
from kling_nb.recovery.restore import relink, restore
from kling_nb.recovery.verify import verify_folder
from support.saved import save, words
from support.sessions import KEY, ask
from support.warm import tool

WIRES = ("runflow", "runcomfy")


@pytest.fixture
def keyed(make_session, wires, monkeypatch):
    """Make a session that speaks to the stand-in of a provider, with a key."""

    def with_key(wire):
        monkeypatch.setenv({"runflow": "RUNFLOW_API_KEY", "runcomfy": "RUNCOMFY_API_TOKEN"}[wire], KEY)
        return make_session(provider=wire, budget="5", **{f"{wire}_url": getattr(wires, wire)})

    return with_key


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("together", [False, True])
def test_a_deleted_folder_comes_back_from_the_provider(tmp_path, keyed, wires, wire, together):
    """Only the notebook is left: each clip is fetched again, byte for byte, and nothing is submitted."""
    session = keyed(wire)
    runs = [session.open(ask(takes=(take,)))[0].wait(60) for take in (0, 1)]
    before = {run.path.name: run.path.read_bytes() for run in runs}
    path = save(tmp_path / "a.ipynb", *(run.record for run in runs), together=together)
    accepted, rows = wires.stats()["accepted"], session.ledger().runs()
    shutil.rmtree(tmp_path / "kling_media")
    found = restore(path, session=session)
    assert words(found) == ["fetched", "fetched"]
    assert {one.file: (tmp_path / "kling_media" / one.file).read_bytes() for one in found} == before
    assert words(verify_folder(tmp_path)) == ["here", "here"]
    assert words(restore(path, session=session)) == ["here", "here"]
    assert (wires.stats()["accepted"], session.ledger().runs()) == (accepted, rows)
    assert accepted == 2


def test_a_mailed_notebook_is_restored_beside_itself(tmp_path, keyed, make_session, wires):
    """In another folder, with another ledger and the same key: the clip lands beside that notebook."""
    run = keyed("runcomfy").open(ask())[0].wait(60)
    (tmp_path / "other").mkdir()
    path = save(tmp_path / "other" / "mailed.ipynb", run.record)
    from_folder = make_session(
        provider="runcomfy", ledger=str(tmp_path / "other.db"), runcomfy_url=wires.runcomfy, budget="5"
    )
    assert words(restore(path, session=from_folder)) == ["fetched"]
    kept = tmp_path / "other" / "kling_media" / run.path.name
    assert kept.read_bytes() == run.path.read_bytes()
    assert from_folder.ledger().runs() == []
    assert wires.stats()["accepted"] == 1


def test_without_its_key_a_clip_is_gone_and_nobody_is_asked(
    tmp_path, keyed, make_session, wires, monkeypatch
):
    """The words say which run, why, and what would help."""
    run = keyed("runflow").open(ask())[0].wait(60)
    path = save(tmp_path / "a.ipynb", run.record)
    shutil.rmtree(tmp_path / "kling_media")
    monkeypatch.delenv("RUNFLOW_API_KEY")
    (found,) = restore(path, session=make_session(runflow_url=wires.runflow, ledger=str(tmp_path / "b.db")))
    assert (found.word, found.run_id, found.good) == ("gone", run.id, False)
    assert "no key" in found.why


def test_a_provider_that_forgot_or_changed_a_clip_is_told(tmp_path, keyed, wires):
    """404 is gone; other bytes than the recorded ones are not taken for the clip, and leave no file."""
    session = keyed("runcomfy")
    run = session.open(ask())[0].wait(60)
    media = run.record.media.model_copy(update={"sha256": "0" * 64})
    changed = run.record.model_copy(update={"media": media})
    forgotten = run.record.model_copy(update={"id": "k0000000", "provider_run_id": "00000000-none"})
    path = save(tmp_path / "a.ipynb", changed, forgotten)
    shutil.rmtree(tmp_path / "kling_media")
    first, second = restore(path, session=session)
    assert (first.word, second.word) == ("gone", "gone")
    assert "is not the recorded clip" in first.why
    assert "has no run" in second.why
    assert list((tmp_path / "kling_media").glob("*.mp4")) == []


def test_sandbox_clips_and_failures_are_told_apart(tmp_path, make_session):
    """A clip of the sandbox is drawn again for nothing; a run that made no clip is no loss."""
    session = make_session(provider="sandbox")
    run = session.open(ask())[0].wait(60)
    failed = run.record.model_copy(update={"id": "k0000000", "status": RunStatus.FAILED, "media": None})
    path = save(tmp_path / "a.ipynb", run.record, failed)
    shutil.rmtree(tmp_path / "kling_media")
    from_folder = make_session(ledger=str(tmp_path / "b.db"))
    drawn, none = restore(path, session=from_folder)
    assert ("its cell draws it again" in drawn.why, none.word) == (True, "no clip")


def test_moved_and_renamed_files_are_found_by_their_bytes(tmp_path, make_session):
    """A clip that was renamed, or put into a folder below, is linked under its name again."""
    session = make_session(provider="sandbox")
    runs = [session.open(ask(takes=(take,)))[0].wait(60) for take in (0, 1)]
    (tmp_path / "kling_media" / "best").mkdir()
    runs[0].path.rename(tmp_path / "kling_media" / "final cut.mp4")
    runs[1].path.rename(tmp_path / "kling_media" / "best" / "b.mp4")
    before = verify_folder(tmp_path / "kling_media")
    assert sorted(words(before)) == ["missing", "missing", "no receipt"]
    assert words(relink(session=session)) == ["linked", "linked"]
    assert [run.path.is_file() for run in runs] == [True, True]
    again = session.open(ask(takes=(0, 1)))
    assert [run.reused for run in again] == [True, True]
    assert len(session.ledger().runs()) == 2


def test_a_folder_given_is_searched(tmp_path, make_session):
    """`restore` takes clips from a folder somebody names, and checks them by their bytes."""
    session = make_session(provider="sandbox")
    run = session.open(ask())[0].wait(60)
    path = save(tmp_path / "a.ipynb", run.record)
    (tmp_path / "disk").mkdir()
    shutil.move(run.path, tmp_path / "disk" / "x.mp4")
    (tmp_path / "disk" / "y.mp4").write_bytes(b"0" * run.record.media.size)
    (found,) = restore(path, look_in=tmp_path / "disk", session=session)
    assert (found.word, found.file) == ("linked", run.path.name)
    assert run.path.is_file()


def test_another_run_of_the_same_id_is_not_what_a_receipt_tells_of(tmp_path, make_session):
    """A ledger that knows the id of a receipt by another clip gives that clip to nobody who asks for it."""
    session = make_session(provider="sandbox")
    fox, owl = (session.open(ask(words))[0].wait(60) for words in ("a fox", "an owl"))
    assert fox.record.media.sha256 != owl.record.media.sha256
    path = save(tmp_path / "a.ipynb", owl.record.model_copy(update={"id": fox.id}))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(path, elsewhere / "a.ipynb")
    (found,) = restore(elsewhere / "a.ipynb", session=session)
    assert found.word == "gone"
    assert not list(elsewhere.rglob("*.mp4"))
    (found,) = restore(elsewhere / "a.ipynb", look_in=owl.path.parent, session=session)
    assert (found.word, found.file) == ("linked", owl.path.name)


def test_an_old_notebook_takes_nothing_back_of_what_the_ledger_knows(tmp_path, make_session):
    """A clip that is brought back to an old receipt gets the newer one beside it, with what it cost."""
    session = make_session(provider="sandbox")
    run = session.open(ask())[0].wait(60)
    sidecar = run.path.with_suffix(".json")
    before = json.loads(sidecar.read_text(encoding="utf-8"))
    assert before["price"]["settled"] is not None
    old = run.record.model_copy(update={"settled_micros": None, "charged": "unknown"})
    path = save(tmp_path / "a.ipynb", old)
    (tmp_path / "disk").mkdir()
    shutil.move(run.path, tmp_path / "disk" / "x.mp4")
    (found,) = restore(path, look_in=tmp_path / "disk", session=session)
    assert (found.word, found.file) == ("linked", run.path.name)
    assert json.loads(sidecar.read_text(encoding="utf-8")) == before


def test_one_flipped_byte_is_found(tmp_path, make_session):
    """A check of the folder tells the changed clip, the one without a receipt, and the file that is none."""
    session = make_session(provider="sandbox")
    good, bad = [session.open(ask(takes=(take,)))[0].wait(60) for take in (0, 1)]
    data = bytearray(bad.path.read_bytes())
    data[len(data) // 2] ^= 1
    bad.path.write_bytes(data)
    (tmp_path / "kling_media" / "stray.mp4").write_bytes(b"x")
    (tmp_path / "kling_media" / "evil.json").write_text(json.dumps({"schema": "kling-nb-receipt/1"}))
    found = {one.file: one.word for one in verify_folder(tmp_path)}
    assert found == {
        good.path.name: "here",
        bad.path.name: "changed",
        "stray.mp4": "no receipt",
        "evil.json": "unreadable",
    }


def test_a_changed_receipt_is_not_believed(tmp_path, make_session):
    """A receipt whose request was edited is counted as damaged, and the others are still used."""
    session = make_session(provider="sandbox")
    run = session.open(ask())[0].wait(60)
    path = save(tmp_path / "a.ipynb", run.record, run.record.model_copy(update={"id": "k0000000"}))
    path.write_text(path.read_text().replace("A red fox in snow", "A white fox", 1))
    records, bad = read_receipts(path)
    assert (len(records), bad) == (1, 1)
    assert sorted(words(restore(path, session=session))) == ["here", "unreadable"]


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"cells": 3}', '{"cells": [{"outputs": [{"data": 1}]}]}', "[" * 9999]
)
def test_anything_may_call_itself_a_notebook(tmp_path, text):
    """What cannot be read is an error of one line, and what can has no receipts."""
    path = tmp_path / "a.ipynb"
    path.write_text(text)
    if text.startswith("{") or text == "[1]":
        assert read_receipts(path) == ([], 0)
    else:
        with pytest.raises(UsageError, match="is not a notebook"):
            read_receipts(path)


def test_what_is_not_there_is_named(tmp_path, make_session):
    """No notebook, no folder: one line, and what to name."""
    with pytest.raises(UsageError, match="cannot be read"):
        restore(tmp_path / "nothing.ipynb", session=make_session())
    save(tmp_path / "a.ipynb")
    for call in (
        lambda: verify_folder(tmp_path / "nothing"),
        lambda: restore(tmp_path / "a.ipynb", look_in=tmp_path / "nothing", session=make_session()),
        lambda: relink(tmp_path / "nothing", session=make_session()),
        lambda: relink(tmp_path / "a.ipynb", session=make_session()),
    ):
        with pytest.raises(UsageError, match="There is no folder"):
            call()


# -- the lines -----------------------------------------------------------------------------
def test_the_lines_restore_relink_and_prune(tmp_path, make_session):
    """`%kling restore` and `%kling cache` do it, say what they did, and remove nothing unasked."""
    session = make_session(provider="sandbox")
    run = session.open(ask())[0].wait(60)
    save(tmp_path / "a.ipynb", run.record)
    (tmp_path / "disk").mkdir()
    shutil.move(run.path, tmp_path / "disk" / "x.mp4")
    gone = run_command(session, "restore", {})
    assert (gone.value[0]["state"], gone.text.splitlines()[0]) == ("gone", "1 of 1 is not in order.")
    assert run_command(session, "restore a.ipynb --from disk", {}).value[0]["state"] == "linked"
    assert run_command(session, "cache", {}).value == {"receipts": 1, "clips": 1, "litter": [run.path.name]}
    run.path.rename(tmp_path / "kling_media" / "renamed.mp4")
    assert run_command(session, "cache --relink", {}).value[0]["state"] == "linked"
    assert "would be removed" in run_command(session, "cache --prune", {}).text
    assert run.path.is_file()
    assert ": removed" in run_command(session, "cache --prune --yes", {}).text
    assert not run.path.exists()
    assert run_command(session, "cache --prune", {}).value == []


def test_a_paid_clip_goes_only_by_its_name(tmp_path, keyed):
    """`--prune --yes` leaves it; its name removes it, and the receipt stays."""
    session = keyed("runcomfy")
    run = session.open(ask())[0].wait(60)
    assert run_command(session, "cache --prune --yes", {}).value == []
    for bad in ("nothing.mp4", f"../{run.path.name}", run.path.with_suffix(".json").name):
        with pytest.raises(UsageError, match="Not every name"):
            run_command(session, f"cache --prune {bad} --yes", {})
    assert run.path.is_file()
    run_command(session, f"cache --prune {run.path.name} --yes", {})
    assert (run.path.exists(), run.path.with_suffix(".json").exists()) == (False, True)
    assert session.ledger().get(run.id).settled_micros == 336_000


def test_the_command_line_verifies_and_restores(tmp_path, make_session):
    """`kling-nb verify` ends with 1 where a clip is not well, and tells programs which."""
    session = make_session(provider="sandbox")
    run = session.open(ask())[0].wait(60)
    save(tmp_path / "a.ipynb", run.record)
    environment = {**os.environ, "KLING_NB_LEDGER": str(tmp_path / "ledger.db")}

    def call(*words):
        return tool(*words, cwd=tmp_path, env=environment)

    good = call("verify", "kling_media", "--json")
    assert (good.returncode, [one["state"] for one in json.loads(good.stdout)]) == (0, ["here"])
    run.path.write_bytes(b"x" * run.record.media.size)
    bad = call("verify", "kling_media")
    assert (bad.returncode, "changed" in bad.stdout) == (1, True)
    gone = call("restore", "a.ipynb", "--json")
    assert (gone.returncode, json.loads(gone.stdout)[0]["state"]) == (1, "gone")
    missing = call("verify", "nothing")
    assert (missing.returncode, missing.stdout, missing.stderr.count("\n")) == (2, "", 1)
