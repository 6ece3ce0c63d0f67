"""`%kling doctor` says what is wrong with a place, and stays offline unless told otherwise."""

import sqlite3
from contextlib import closing
from pathlib import Path

import certifi
import IPython

from kling_nb.ledger.databases.file_systems import file_system
from kling_nb.notebook.line import run_command
from support.sessions import KEY


def findings(session, line="doctor"):
    return {row["check"]: row for row in run_command(session, line, {}).value}


def test_the_doctor_finds_a_sound_place_sound(session, tmp_path):
    """With no key and nothing wrong no check fails, every trouble has a cure, and nothing is left behind."""
    session.ledger()
    before = sorted(path.name for path in tmp_path.iterdir())
    found = findings(session)
    assert {row["state"] for row in found.values()} <= {"ok", "warn"}
    assert all(row["cure"] for row in found.values() if row["state"] != "ok")
    for check in (
        "Python",
        "ipykernel",
        "H.264 encoder",
        "media folder",
        "ledger",
        "provider",
        "key for Runflow",
    ):
        assert found[check]["state"] == "ok", check
    assert "Sandbox" in found["provider"]["found"]
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_doctor_goes_on_when_something_is_broken(make_session, tmp_path, monkeypatch):
    """A ledger that cannot be opened, a bad folder, a bad setting: each is one line, and the rest stands."""
    (tmp_path / "file").write_text("x", encoding="utf-8")
    found = findings(make_session(ledger=str(tmp_path / "file" / "l.db"), media=str(tmp_path / "file" / "m")))
    assert found["ledger"]["state"] == "fail"
    assert found["provider"]["state"] == "ok"
    assert "kling_nb" not in (tmp_path / "file").read_text(encoding="utf-8")
    monkeypatch.setenv("KLING_NB_BUDGET", "many")
    found = findings(make_session())
    assert found["settings"]["state"] == "fail"
    assert "KLING_NB_BUDGET" in found["settings"]["found"]
    assert found["Python"]["state"] == "ok"


def test_the_doctor_asks_providers_only_when_told_to(wires, session, monkeypatch):
    """Offline a key is not tried; online a good one is accepted and a bad one refused, for free."""
    monkeypatch.setenv("RUNFLOW_API_KEY", KEY)
    monkeypatch.setenv("RUNCOMFY_API_TOKEN", "bad-key")
    monkeypatch.setenv("KLING_NB_RUNFLOW_URL", wires.runflow)
    monkeypatch.setenv("KLING_NB_RUNCOMFY_URL", wires.runcomfy)
    assert "not tried" in findings(session)["key for Runflow"]["found"]
    found = findings(session, "doctor --online")
    assert found["key for Runflow"]["state"] == "ok"
    assert found["key for Runflow"]["found"].startswith("accepted")
    assert found["key for RunComfy"]["state"] == "fail"
    monkeypatch.setenv("KLING_NB_RUNFLOW_URL", "http://127.0.0.1:1")
    assert "127.0.0.1" in findings(session, "doctor --online")["key for Runflow"]["found"]


def test_the_doctor_warns_in_a_staging_folder(make_session, tmp_path):
    """Clips there go with their job; a media folder elsewhere is well."""
    stage = tmp_path / "scheduler_staging_area" / "job"
    stage.mkdir(parents=True)
    found = findings(make_session(media=str(stage / "kling_media")))["media folder"]
    assert found["state"] == "warn"
    assert "KLING_NB_MEDIA" in found["cure"]
    assert findings(make_session(media=str(tmp_path / "kept")))["media folder"]["state"] == "ok"


def test_the_doctor_says_which_certificates_are_used(session, tmp_path, monkeypatch):
    """Online only: certifi's, those that the environment names, or that they cannot be read."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    assert "certificates" not in findings(session)
    assert findings(session, "doctor --online")["certificates"]["found"].startswith("certifi 2")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
    found = findings(session, "doctor --online")["certificates"]["found"]
    assert found == f"{certifi.where()}, from REQUESTS_CA_BUNDLE"
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    found = findings(session, "doctor --online")["certificates"]
    assert found["state"] == "fail"
    assert "SSL_CERT_FILE" in found["found"]


def test_the_doctor_sees_what_an_installation_left_loaded(session, monkeypatch):
    """A package that was installed under a living kernel is named with both versions, and the cure."""
    monkeypatch.setattr(IPython, "__version__", "7.34.0")
    found = findings(session)["ipython"]
    assert found["state"] == "warn"
    assert "7.34.0 is loaded" in found["found"]
    assert "Restart the runtime" in found["cure"]


def test_the_kind_of_file_system_is_that_of_the_nearest_mount(tmp_path):
    """The longest mount point that holds the path decides; without the table nobody knows."""
    table = tmp_path / "mountinfo"
    table.write_text(
        "1 0 8:1 / / rw shared:1 - ext4 /dev/sda rw\n"
        "2 1 0:4 / /home rw - nfs4 server:/home rw\n"
        "3 2 0:5 / /home/me\\040too rw master:2 - xfs /dev/sdb rw\n"
        "broken line\n",
        encoding="utf-8",
    )
    kinds = {
        "/x": "ext4",
        "/home/me/l.db": "nfs4",
        "/homely": "ext4",
        "/home/me too/l.db": "xfs",
        "/home": "nfs4",
    }
    assert {path: file_system(Path(path), table) for path in kinds} == kinds
    assert file_system(Path("/"), tmp_path / "none") == ""


def test_the_doctor_sees_a_table_that_is_gone(make_session, tmp_path):
    """A ledger without one of its tables fails the check by name, with what still suffices to go on."""
    make_session().ledger()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as book, book:
        book.execute("DROP TABLE events")
    found = findings(make_session())["ledger"]
    assert (found["state"], "has no table events" in found["found"]) == ("fail", True)
    assert "receipts are enough to go on" in found["cure"]
