"""Clips come back from wherever a team keeps them: by their bytes, and with no key in any word."""

import contextlib
import json
import os
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest

from kling_nb.addresses import is_address
from kling_nb.errors import KlingError, StoreError, UsageError
from kling_nb.media import remote
from kling_nb.media.remote import Depot
from kling_nb.notebook.line import run_command
from kling_nb.recovery.restore import restore
from support import buckets
from support.buckets import SECRET
from support.saved import save, words
from support.sessions import ask
from support.warm import tool


@pytest.fixture
def lost(tmp_path, make_session):
    """Three clips, their notebook, and a folder they have gone to: one under its name, one under another."""
    session = make_session(provider="sandbox")
    runs = [session.open(ask(takes=(take,)))[0].wait(60) for take in (0, 1, 2)]
    path = save(tmp_path / "a.ipynb", *(run.record for run in runs))
    team = tmp_path / "team"
    (team / "2026" / "best").mkdir(parents=True)
    shutil.move(runs[0].path, team / runs[0].path.name)
    shutil.move(runs[1].path, team / "2026" / "best" / "final cut.mp4")
    runs[2].path.unlink()
    # Of the size of the third, and not the third.
    (team / runs[2].path.name).write_bytes(b"0" * runs[2].record.media.size)
    shutil.rmtree(tmp_path / "kling_media")
    return session, runs, path, team


def check(tmp_path, runs, found, name):
    """Two are here with their bytes, and of the third is said where it is not."""
    assert words(found) == ["fetched", "fetched", "gone"]
    assert found[2].why.startswith(f"{name} does not have it; the sandbox that drew it is gone")
    for run, one in zip(runs[:2], found, strict=False):
        assert (tmp_path / "kling_media" / one.file).stat().st_size == run.record.media.size
    here = {path.name for path in (tmp_path / "kling_media").iterdir()}
    assert here == {run.path.with_suffix(end).name for run in runs[:2] for end in (".mp4", ".json")}


def test_clips_come_back_from_a_file_address(tmp_path, lost):
    """`file://`: by name, or by size and SHA-256; other bytes of that name and size are not taken."""
    session, runs, path, team = lost
    found = restore(path, look_in=team.as_uri(), session=session)
    check(tmp_path, runs, found, team.as_uri())
    assert words(restore(path, look_in=team.as_uri(), session=session)) == ["here", "here", "gone"]
    assert len([one for one in team.rglob("*") if one.is_file()]) == 3


def test_clips_come_back_from_memory_by_a_line(tmp_path, lost):
    """`%kling restore --from ADDRESS`, with a store that fsspec keeps in this very process."""
    session, _, path, team = lost
    files = fsspec.filesystem("memory")
    files.put(str(team), "/depot", recursive=True)
    try:
        shown = run_command(session, f"restore {path.name} --from memory://depot", {})
    finally:
        files.rm("/depot", recursive=True)
    assert [one["state"] for one in shown.value] == ["gone", "fetched", "fetched"]
    assert "memory://depot does not have it" in shown.text


class Web(SimpleHTTPRequestHandler):
    """A plain web server; below `/moved/` it sends everybody on to another one."""

    elsewhere = ""
    asked: list[str]

    def do_GET(self):
        type(self).asked.append(self.path)
        if self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", f"{self.elsewhere}{self.path.removeprefix('/moved')}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path.startswith("/shut/"):
            self.send_error(403)
        elif self.path.startswith("/endless") and not self.path.endswith(".mp4"):
            below = self.path.rstrip("/")
            body = f'<a href="{below}/a/">a</a> <a href="{below}/b/">b</a>'.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        else:
            super().do_GET()

    def do_HEAD(self):
        self.do_GET()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def web(folder, elsewhere=""):
    kind = type("Here", (Web,), {"elsewhere": elsewhere, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(kind, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", kind.asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_web_server_gives_clips_and_sends_nobody_elsewhere(tmp_path, lost):
    """Over http a clip is found by its name; what is redirected to another server is not fetched there."""
    session, runs, path, team = lost
    with web(team) as (there, asked_there), web(tmp_path / "none", there) as (here, asked_here):
        found = restore(path, look_in=f"{here}/moved", session=session)
        assert (words(found), asked_there) == (["gone"] * 3, [])
        assert any(runs[0].path.name in asked for asked in asked_here)
        found = restore(path, look_in=there, session=session)
    assert words(found)[0] == "fetched"
    assert (tmp_path / "kling_media" / found[0].file).stat().st_size == runs[0].record.media.size


def test_a_web_servers_clip_is_found_whatever_its_name(tmp_path, lost):
    """What is a sign in an address is part of the name of a clip, and is asked for as such."""
    _, runs, _, team = lost
    for name in ("fox #2.mp4", "50% fox.mp4", "a%20b.mp4", "é & ü+[1].mp4"):
        media = runs[0].record.media.model_copy(update={"file": name})
        shutil.copy(team / runs[0].path.name, team / name)
        with web(team) as (there, _), (tmp_path / "sink").open("wb") as sink:
            assert Depot(there).fetch(media, sink), name


def test_a_web_server_that_cannot_be_asked_is_not_said_to_have_nothing(tmp_path, lost, monkeypatch):
    """Not there, not allowed, not reached and without end are four things, and each is told."""
    monkeypatch.setattr(remote, "_MOST_FILES", 20)
    media = lost[1][0].record.media
    with web(tmp_path / "none") as (there, _), (tmp_path / "sink").open("wb") as sink:
        told = {}
        for place in (there, f"{there}/shut", f"{there}/endless", "http://127.0.0.1:9"):
            asked = Depot(place)
            assert not asked.fetch(media, sink)
            told[asked.name.removeprefix(there)] = asked.trouble
    assert told == {
        "": "",
        "/shut": "access is refused",
        "/endless": "it has more than 20 files and folders",
        "http://127.0.0.1:9": "it cannot be reached",
    }


# -- S3 -------------------------------------------------------------------------------------------
@pytest.fixture
def bucket(lost):
    """The team's folder as a bucket of an S3 on loopback; give the environment of who may read it."""
    _, _, _, team = lost
    with buckets.bucket("team", team) as environment:
        yield environment


def call(tmp_path, environment, *line):
    """Run the command line as somebody with this environment."""
    own = {**os.environ, **environment, "KLING_NB_LEDGER": str(tmp_path / "ledger.db")}
    return tool(*line, cwd=tmp_path, env=own, timeout=120)


@pytest.mark.matrix
def test_clips_come_back_from_s3(tmp_path, lost, bucket):
    """`kling-nb restore --from s3://...` brings them, says exactly what is gone, and tells no key."""
    _, runs, path, _ = lost
    done = call(tmp_path, bucket, "restore", path.name, "--from", "s3://team/clips", "--json")
    said = {one["run"]: one for one in json.loads(done.stdout)}
    assert [said[run.id]["state"] for run in runs] == ["fetched", "fetched", "gone"]
    assert said[runs[2].id]["why"].startswith("s3://team/clips does not have it; ")
    assert (done.returncode, SECRET in done.stdout + done.stderr) == (1, False)
    for run in runs[:2]:
        assert run.path.read_bytes() != b""
    refused = call(tmp_path, bucket, "restore", path.name, "--from", "s3://none-such/clips")
    assert (refused.returncode, refused.stderr) == (
        1,
        "kling-nb: There is nothing at s3://none-such/clips. Mind its spelling.\n",
    )
    closed = call(
        tmp_path,
        {**bucket, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"},
        *("restore", path.name, "--from", "s3://team/clips"),
    )
    assert (closed.returncode, closed.stderr.count("\n"), closed.stdout) == (1, 1, "")
    assert "s3://team/clips cannot be read: " in closed.stderr
    assert SECRET not in closed.stderr


# -- addresses --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("address", "kind", "said"),
    [
        (f"https://ann:{SECRET}@host/clips", UsageError, "holds a password"),
        (f"sftp://ann:{SECRET}@host/clips", UsageError, "holds a password"),
        (f"https://{SECRET}@host/clips", UsageError, "holds a password or a key"),
        (f"https://host/clips?sig={SECRET}", UsageError, "holds a query"),
        ("s3://team/\x1bclips", UsageError, "control character"),
        ("nothing://at/all", UsageError, "cannot be opened: ValueError"),
        ("memory://nobody/was/here", StoreError, "There is nothing at memory://nobody/was/here"),
        ("gs://team/clips", UsageError, "needs the package gcsfs"),
        ("http://127.0.0.1:9/clips", None, ""),
    ],
)
def test_what_is_no_address_is_refused_in_a_line(address, kind, said):
    """A password belongs elsewhere and is repeated nowhere; a missing package is named."""
    assert is_address(address)
    if kind is None:
        assert Depot(address).name == address
        return
    with pytest.raises(kind, match=said) as caught:
        Depot(address)
    assert isinstance(caught.value, KlingError)
    assert SECRET not in f"{caught.value}{caught.value.__cause__}"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_clip_that_grows_is_not_read_to_its_end(tmp_path, lost):
    """No more than the recorded size is taken from anywhere."""
    session, runs, path, team = lost
    first = team / runs[0].path.name
    with first.open("ab") as file:
        file.write(bytes(50_000_000))
    with (tmp_path / "sink").open("w+b") as sink:
        assert not Depot(team.as_uri()).fetch(runs[0].record.media, sink)
    assert (tmp_path / "sink").stat().st_size <= runs[0].record.media.size
    assert words(restore(path, look_in=team.as_uri(), session=session))[0] == "gone"
    assert not list((tmp_path / "kling_media").glob(".*"))
