"""The media folder: no paid clip is lost, replaced or half there, and no stranger's file leads out of it."""

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_nb import files
from kling_nb.errors import StoreError
from kling_nb.media import folder as folder_module
from kling_nb.media import index as index_module
from kling_nb.media.folder import Store
from kling_nb.media.names import file_stem, relative_src, slug
from kling_nb.media.probe import NotVideoError
from kling_nb.records.provenance import Mark, Sent
from kling_nb.records.receipt import to_receipt
from kling_nb.records.request import Shot, TextToVideo
from kling_nb.records.run import MediaFacts, RunStatus
from support.clips import make_clip, make_record
from support.paths import TESTS

HERE = TESTS


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def keep(store, record, **look):
    """Download (as it were), keep, and give the finished record."""
    store.part(record)
    part = make_clip(store.folder / "fresh.mp4", **look).rename(store.part(record))
    media = store.keep(record, part, sha256(part))
    return record.model_copy(update={"media": media, "status": RunStatus.SUCCEEDED})


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def no_link(*_args, **_kwargs):
    raise PermissionError(1, "Operation not permitted")


def run_script(body, *arguments, prefix=(), check=True):
    code = f"import sys; sys.path.insert(0, {str(HERE)!r})\n" + textwrap.dedent(body)
    done = subprocess.run(
        [*prefix, sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


# --- keeping ---------------------------------------------------------------------------------------------


def test_a_kept_clip_is_there_under_its_name(tmp_path):
    """The clip has its readable name, its facts, its bytes, and nothing else is left in the folder."""
    store = Store(tmp_path / "kling_media")
    record = make_record()
    assert not store.folder.exists()
    part = store.part(record)
    make_clip(part.with_suffix(".mp4"), audio=True).rename(part)
    inode, digest = part.stat().st_ino, sha256(part)
    media = store.keep(record, part, digest)
    done = record.model_copy(update={"media": media})
    assert media.file == "a-red-fox-at-dawn-kl7m2q.mp4"
    assert (media.sha256, media.audio, media.frames) == (digest, True, 24)
    assert listing(store.folder) == [media.file]
    assert store.path(done) == store.folder / media.file
    assert store.path(done).stat().st_ino == inode  # named, not rewritten
    assert store.verify(done)


def test_parts_are_nobody_elses(tmp_path):
    """Two downloads of one run never share a file, and a part is hidden."""
    store = Store(tmp_path)
    names = {store.part(make_record()).name for _ in range(50)}
    assert len(names) == 50
    assert all(re.fullmatch(rf"\.a-red-fox-at-dawn-kl7m2q\.{os.getpid()}-[0-9a-f]+\.part", n) for n in names)


def test_a_name_is_never_given_twice(tmp_path):
    """Other bytes for the same run get the next name; the first file stays as it is, inode and all."""
    store = Store(tmp_path)
    first = keep(store, make_record())
    before = store.path(first).stat()
    second = keep(store, make_record(), colour=(0, 90, 200))
    third = keep(store, make_record(), colour=(0, 200, 20))
    assert [r.media.file for r in (first, second, third)] == [
        "a-red-fox-at-dawn-kl7m2q.mp4",
        "a-red-fox-at-dawn-kl7m2q-2.mp4",
        "a-red-fox-at-dawn-kl7m2q-3.mp4",
    ]
    assert (store.path(first).stat().st_ino, store.path(first).stat().st_mtime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
    )
    assert all(map(store.verify, (first, second, third)))


def test_the_same_bytes_are_kept_once(tmp_path):
    """A clip that is fetched again is found again: one file, one name, no part left over."""
    store = Store(tmp_path)
    first, again = keep(store, make_record()), keep(store, make_record())
    assert first.media == again.media
    assert listing(tmp_path) == [first.media.file]


def test_many_savers_of_one_run_agree(tmp_path):
    """Eight at once with the same bytes end with one whole file and no other."""
    store = Store(tmp_path)
    clip = make_clip(tmp_path.parent / f"{tmp_path.name}.mp4")

    def save(_):
        part = store.part(make_record())
        part.write_bytes(clip.read_bytes())
        return store.keep(make_record(), part, sha256(clip)).file

    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(save, range(8)))
    assert names == ["a-red-fox-at-dawn-kl7m2q.mp4"] * 8
    assert listing(tmp_path) == names[:1]
    assert sha256(tmp_path / names[0]) == sha256(clip)


def test_many_savers_of_different_bytes_lose_nothing(tmp_path):
    """Six at once with six different clips end with six files."""
    store = Store(tmp_path)
    parts = []
    for number in range(6):
        clip = make_clip(tmp_path / f"{number}.mp4", colour=(40 * number, 0, 0), seconds=0.2)
        parts.append(clip.rename(store.part(make_record())))
    digests = [sha256(part) for part in parts]
    with ThreadPoolExecutor(6) as pool:
        kept = list(pool.map(lambda p, d: store.keep(make_record(), p, d), parts, digests))
    assert len({media.file for media in kept}) == 6
    assert [sha256(tmp_path / media.file) for media in kept] == digests


@pytest.mark.parametrize("way", ["hard links", "no hard links"])
def test_a_folder_without_hard_links_keeps_the_same_promise(tmp_path, monkeypatch, way):
    """Where the file system cannot link, nothing is replaced either, and no claim stays behind."""
    if way == "no hard links":
        monkeypatch.setattr(files.os, "link", no_link)
    store = Store(tmp_path)
    first = keep(store, make_record())
    again = keep(store, make_record())
    other = keep(store, make_record(), colour=(0, 0, 250))
    assert first.media == again.media
    assert listing(tmp_path) == sorted([first.media.file, other.media.file])
    assert store.verify(first)
    assert store.verify(other)


def test_what_is_no_video_is_set_aside_and_kept(tmp_path):
    """A page that came instead of a clip gets no clip's name, and not one byte of it is thrown away."""
    store = Store(tmp_path)
    record = make_record()
    for number, words in enumerate((b"<html>expired</html>", b"<html>expired</html>", b"other")):
        part = store.part(record)
        part.write_bytes(words)
        with pytest.raises(NotVideoError):
            store.keep(record, part, sha256(part))
        assert part.read_bytes() == words
        kept = store.set_aside(record, part)
        assert kept.read_bytes() == words
        assert number < 2 or kept.name == "a-red-fox-at-dawn-kl7m2q-2.rejected"
    stem = "a-red-fox-at-dawn-kl7m2q"
    assert listing(tmp_path) == [f"{stem}-2.rejected", f"{stem}.rejected"]


def test_bytes_that_changed_on_the_way_to_disk_are_refused(tmp_path):
    """A clip whose file is not what came over the wire gets no name; the part stays."""
    store = Store(tmp_path)
    part = make_clip(tmp_path / "fresh.mp4").rename(store.part(make_record()))
    with pytest.raises(StoreError, match="not what was downloaded"):
        store.keep(make_record(charged="yes"), part, "0" * 64)
    assert listing(tmp_path) == [part.name]


def test_a_part_is_read_again_only_if_it_changed_since_it_was_written(tmp_path, monkeypatch):
    """Whoever wrote it hashed it on the way; once it was touched, its bytes are held against that hash."""
    store, read = Store(tmp_path), []
    monkeypatch.setattr(folder_module, "file_sha256", lambda path: read.append(path) or sha256(path))
    for touched in (False, True):
        part = make_clip(tmp_path / "fresh.mp4").rename(store.part(make_record()))
        digest, written = sha256(part), files.signature(part)
        if touched:
            part.write_bytes(part.read_bytes() + b"\0")
            with pytest.raises(StoreError, match="not what was downloaded"):
                store.keep(make_record(), part, digest, written=written)
        else:
            assert store.keep(make_record(), part, digest, written=written).sha256 == digest
    assert read == [part]


def test_a_large_clip_that_the_disk_does_not_take_is_not_kept(tmp_path, monkeypatch):
    """It is put on disk while it is measured, and an error of that counts as any other."""
    store = Store(tmp_path)
    part = make_clip(tmp_path / "fresh.mp4").rename(store.part(make_record()))
    with part.open("ab") as film:
        film.write((5 << 20).to_bytes(4, "big") + b"free" + bytes((5 << 20) - 8))

    def failing(_path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(folder_module, "sync_file", failing)
    with pytest.raises(StoreError, match="cannot be kept"):
        store.keep(make_record(), part, sha256(part))
    assert listing(tmp_path) == [part.name]
    monkeypatch.undo()
    assert store.keep(make_record(), part, sha256(part)).frames == 24


def test_a_part_that_is_a_link_is_refused(tmp_path):
    """A link in place of a part names no file outside the folder."""
    store = Store(tmp_path / "media")
    outside = make_clip(tmp_path / "outside.mp4")
    part = store.part(make_record())
    part.symlink_to(outside)
    with pytest.raises(StoreError):
        store.keep(make_record(), part, sha256(outside))
    assert listing(store.folder) == [part.name]


def test_a_clip_open_in_a_player_harms_nothing(tmp_path):
    """With the clip held open, a second save and a check work, and the player's file is untouched."""
    store = Store(tmp_path)
    first = keep(store, make_record())
    with store.path(first).open("rb") as player:
        keep(store, make_record())
        keep(store, make_record(), colour=(1, 2, 200))
        assert store.verify(first)
        assert hashlib.sha256(player.read()).hexdigest() == first.media.sha256


# --- killed in the middle --------------------------------------------------------------------------------

KILLER = """
    import hashlib, os, signal, sys
    from pathlib import Path
    from support.clips import make_clip, make_record
    from kling_nb import files
    from kling_nb.media.folder import Store

    act, folder, clip = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if act == "claim":
        def refuse(*a, **k):
            raise PermissionError(1, "no hard links here")
        files.os.link = refuse
    digest = hashlib.sha256(clip.read_bytes()).hexdigest()
    steps = []

    def attempt(store, checkpoint):
        if act == "sidecar":
            store.write_sidecar(make_record(message="new"), checkpoint=checkpoint)
            return
        part = store.part(make_record())
        part.write_bytes(clip.read_bytes())
        store.keep(make_record(), part, digest, checkpoint=checkpoint)

    def prepared(name):
        store = Store(folder / name)
        if act == "sidecar":
            store.write_sidecar(make_record(message="old"))
        return store

    attempt(prepared("rehearsal"), steps.append)
    for number, step in enumerate(steps):
        store = prepared(f"{number} {step}")
        child = os.fork()
        if child == 0:
            seen = []
            def kill(name):
                seen.append(name)
                if len(seen) == number + 1:
                    os.kill(os.getpid(), signal.SIGKILL)
            attempt(store, kill)
            os._exit(3)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (step, status)
"""


@pytest.mark.parametrize(("act", "least"), [("link", 5), ("claim", 6)])
def test_kill_9_leaves_the_whole_clip_or_none(tmp_path, monkeypatch, act, least):
    """A real SIGKILL after each step of keeping leaves no half clip, and doing it again finishes the job."""
    clip = make_clip(tmp_path / "clip.mp4")
    run_script(KILLER, act, tmp_path / "runs", clip)
    folders = [path for path in sorted((tmp_path / "runs").iterdir()) if path.name != "rehearsal"]
    assert len(folders) >= least
    if act == "claim":
        monkeypatch.setattr(files.os, "link", no_link)
    named = 0
    for folder in folders:
        for path in folder.glob("[!.]*"):
            assert path.name == "a-red-fox-at-dawn-kl7m2q.mp4"
            assert sha256(path) == sha256(clip)
            named += 1
        store = Store(folder)
        done = keep(store, make_record())
        assert store.verify(done)
        # The claim of a killed rename may cost a name, but never a second copy.
        assert len(list(folder.glob("[!.]*.mp4"))) == 1
    assert 2 <= named < len(folders)


def test_kill_9_leaves_the_old_sidecar_or_the_new(tmp_path):
    """A real SIGKILL after each step of writing a sidecar leaves one that reads whole."""
    run_script(KILLER, "sidecar", tmp_path / "runs", make_clip(tmp_path / "clip.mp4"))
    folders = [path for path in sorted((tmp_path / "runs").iterdir()) if path.name != "rehearsal"]
    messages = []
    for folder in folders:
        store = Store(folder)
        (record,) = store.sidecars()
        assert store.skipped == []
        messages.append(record.message)
    assert messages == ["old", "old", "new"]


# --- full, read-only and absent --------------------------------------------------------------------------

FULL = """
    import os, resource, shutil, subprocess, sys
    from pathlib import Path
    from support.clips import make_clip, make_record
    from kling_nb.errors import StoreError
    from kling_nb.media.folder import Store

    way, folder = sys.argv[1], Path(sys.argv[2])
    if way == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    store = Store(folder / "media")
    store.check_room(100_000)
    store.write_sidecar(make_record(message="old"))
    names = sorted(os.listdir(store.folder))
    if way == "tmpfs":
        try:
            store.check_room()
        except StoreError as error:
            assert "MB free" in str(error) and error.charged == "no", error
        else:
            raise SystemExit("64 MiB fit into 1 MiB")
        with open(folder / "ballast", "wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(4096))
            except OSError:
                pass
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    for act in (lambda: store.check_room(0), lambda: store.write_sidecar(make_record(message="new" * 2000))):
        try:
            act()
        except StoreError as error:
            assert error.charged == "no", error
        else:
            raise SystemExit("a full disk was not noticed")
    assert sorted(os.listdir(store.folder)) == names, os.listdir(store.folder)
    assert [r.message for r in store.sidecars()] == ["old"]
    print("held")
"""


def _can_mount():
    return (
        os.geteuid() == 0
        and subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.parametrize("way", ["limit", "tmpfs"])
def test_a_full_disk_is_found_before_money_moves(tmp_path, way):
    """A disk that is really full refuses the room, keeps the old sidecar and litters nothing."""
    if way == "tmpfs" and not _can_mount():
        pytest.skip("only root may mount a small disk; the other way of filling one runs")
    prefix = ["unshare", "-m"] if way == "tmpfs" else []
    assert run_script(FULL, way, tmp_path, prefix=prefix).stdout == "held\n"


READ_ONLY = """
    import json, subprocess, sys
    from pathlib import Path
    from support.clips import make_record
    from kling_nb.errors import StoreError
    from kling_nb.media.folder import Store

    folder = Path(sys.argv[1])
    if sys.argv[2] == "mount":
        subprocess.run(["mount", "--bind", folder, folder], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
    else:
        folder.chmod(0o555)
    store = Store(folder)
    (record,) = store.sidecars()
    assert store.verify(record) and store.poster(record)
    for act in (store.check_room, lambda: store.write_sidecar(record)):
        try:
            act()
        except StoreError as error:
            assert "cannot be written" in str(error), error
        else:
            raise SystemExit("wrote into a read-only folder")
    print("held")
"""


def test_a_read_only_folder_can_still_be_read(tmp_path):
    """Clips of a read-only folder are shown and reused; a new run there is refused before money moves."""
    store = Store(tmp_path / "media")
    store.write_sidecar(keep(store, make_record()))
    way = "mount" if _can_mount() else "chmod"
    prefix = ["unshare", "-m"] if way == "mount" else []
    try:
        assert run_script(READ_ONLY, store.folder, way, prefix=prefix).stdout == "held\n"
    finally:
        store.folder.chmod(0o755)


def test_a_file_in_place_of_the_folder_is_said_in_words(tmp_path):
    """Where the folder cannot be made, every writer says so and every reader finds nothing."""
    (tmp_path / "kling_media").write_text("not a folder")
    store = Store(tmp_path / "kling_media")
    with pytest.raises(StoreError, match=r"cannot be written.*Charged: no. Nothing was sent."):
        store.check_room()
    with pytest.raises(StoreError):
        store.part(make_record())
    with pytest.raises(StoreError):
        store.write_sidecar(make_record())
    assert store.sidecars() == []
    assert (tmp_path / "kling_media").read_text() == "not a folder"


def test_an_absent_folder_holds_nothing_and_is_not_made_by_looking(tmp_path):
    """Reading makes no folder; asking for room does, and leaves it empty."""
    store = Store(tmp_path / "a" / "kling_media")
    record = make_record(media={"file": "a.mp4", "sha256": "0" * 64, "size": 1})
    assert store.sidecars() == []
    assert store.path(record) is None
    assert store.poster(record) is None
    assert not store.verify(record)
    assert not store.folder.exists()
    store.check_room(1)
    assert listing(store.folder) == []


def test_a_folder_keeps_its_place_when_the_notebook_moves_on(tmp_path, monkeypatch):
    """A relative folder is the one that was meant when it was given, also after `%cd`."""
    monkeypatch.chdir(tmp_path)
    store = Store(Path("klíp 视频 #1"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = keep(store, make_record())
    assert store.verify(done)
    assert store.path(done).parent == tmp_path / "klíp 视频 #1"


# --- checking --------------------------------------------------------------------------------------------


def test_a_changed_clip_is_not_the_recorded_one(tmp_path):
    """One other byte, an added one or an absent file is seen, also with the old time put back."""
    store = Store(tmp_path)
    done = keep(store, make_record())
    path = store.path(done)
    assert store.verify(done)
    data, times = path.read_bytes(), path.stat()
    path.write_bytes(bytes([data[0], data[1] ^ 1]) + data[2:])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not store.verify(done)
    path.write_bytes(data + b"\x00")
    assert not store.verify(done)
    path.write_bytes(data)
    assert store.verify(done)
    path.unlink()
    assert not store.verify(done)


def test_a_clip_is_hashed_once_while_it_stays_the_same(tmp_path, tmp_path_factory, monkeypatch):
    """Redrawing a card twenty times makes its still once; only who has not seen the clip hashes it, once."""
    store = Store(tmp_path)
    done = keep(store, make_record())
    hashed, drawn = [], []
    real_hash, real_poster = index_module.file_sha256, folder_module.probing.poster
    monkeypatch.setattr(index_module, "file_sha256", lambda p: hashed.append(p) or real_hash(p))
    monkeypatch.setattr(folder_module.probing, "poster", lambda p: drawn.append(p) or real_poster(p))
    fresh = Store(tmp_path)
    for _ in range(20):
        assert fresh.verify(done)
        assert fresh.poster(done).startswith("data:image/jpeg;base64,")
    assert (len(hashed), len(drawn)) == (0, 1)
    # Another user, and a clip that is older than the times of files are coarse.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    for _ in range(2):
        other = Store(tmp_path, clock=lambda: time.time_ns() + 10**10)
        assert all(other.verify(done) for _ in range(20))
        assert len(hashed) == 1


def test_a_link_may_not_lead_out_of_the_folder(tmp_path):
    """A clip that is a link to a file outside is not shown, not verified; a link inside is."""
    store = Store(tmp_path / "media")
    done = keep(store, make_record())
    outside = tmp_path / "secret.mp4"
    outside.write_bytes(store.path(done).read_bytes())
    for target, allowed in ((outside, False), (store.path(done), True), (tmp_path / "absent.mp4", False)):
        link = store.folder / "link.mp4"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        through = done.model_copy(update={"media": done.media.model_copy(update={"file": "link.mp4"})})
        assert (store.path(through) is not None) is allowed
        assert store.verify(through) is allowed
        assert (store.poster(through) is not None) is allowed


@pytest.mark.parametrize("name", ["..", ".", "../secret.mp4", "/etc/hostname", "sub/a.mp4", "a.mp4\n"])
def test_a_record_cannot_name_a_file_elsewhere(tmp_path, name):
    """A name that is no bare name finds nothing, whoever made the record."""
    store = Store(tmp_path / "media")
    done = keep(store, make_record())
    (tmp_path / "secret.mp4").write_bytes(store.path(done).read_bytes())
    astray = done.model_copy(update={"media": done.media.model_copy(update={"file": name})})
    assert store.path(astray) is None
    assert not store.verify(astray)
    assert store.path(done) is not None


# --- sidecars --------------------------------------------------------------------------------------------


def test_a_sidecar_grows_with_its_run(tmp_path):
    """One file per run from its creation to its end, read back as the record with this folder."""
    store = Store(tmp_path / "kling_media")
    created = make_record()
    first = store.write_sidecar(created)
    done = keep(store, created.model_copy(update={"provider_run_id": "019e-c41"}))
    assert store.write_sidecar(done) == first
    assert listing(store.folder) == ["a-red-fox-at-dawn-kl7m2q.json", "a-red-fox-at-dawn-kl7m2q.mp4"]
    assert store.sidecars() == [done.model_copy(update={"folder": str(store.folder)})]
    assert store.verify(store.sidecars()[0])


def test_sidecars_are_found_by_key_and_in_order(tmp_path):
    """Asked for keys, only their runs come; otherwise all, oldest first; new files are seen at once."""
    store = Store(tmp_path)
    runs = [
        make_record(id=f"run{n}", prompt=f"fox {n}", created_at=datetime(2026, 1, 9 - n, tzinfo=UTC))
        for n in range(4)
    ]
    for run in runs[:3]:
        store.write_sidecar(run)
    assert [run.id for run in store.sidecars()] == ["run2", "run1", "run0"]
    wanted = [runs[1].request_key, runs[3].request_key]
    for _ in range(2):
        assert [run.id for run in store.sidecars(request_keys=wanted)] == ["run1"]
    store.write_sidecar(runs[3])
    assert [run.id for run in store.sidecars(request_keys=wanted)] == ["run3", "run1"]
    store.write_sidecar(runs[1].model_copy(update={"message": "later"}))
    assert [run.message for run in store.sidecars(request_keys=wanted)] == ["", "later"]
    assert store.sidecars(request_keys=[]) == []


def test_strangers_do_not_stop_the_others(tmp_path):
    """Hostile and foreign files are left out with a reason each, and the good run is read."""
    store = Store(tmp_path / "media")
    good = keep(store, make_record())
    store.write_sidecar(good)
    receipt = to_receipt(good)
    outside = tmp_path / "outside.json"
    outside.write_text(json.dumps(receipt))
    bad = {
        "deep.json": "[" * 200_000,
        "deeper.json": '{"schema": "kling-nb-receipt/1", "x": ' + '{"a":' * 5000 + "1" + "}" * 5001,
        "empty.json": "",
        "huge.json": " " * 2_000_000,
        "key.json": json.dumps({**receipt, "request_key": "k1:" + "1" * 64}),
        "list.json": "[]",
        "number.json": '{"schema": "kling-nb-receipt/1", "take": ' + "9" * 10_000 + "}",
        "other.json": json.dumps({"name": "package", "version": "1"}),
        "path.json": json.dumps({**receipt, "file": {**receipt["file"], "name": "../../a.mp4"}}),
    }
    for name, text in bad.items():
        (store.folder / name).write_text(text)
    (store.folder / "latin.json").write_bytes(b'{"schema": "\xff\xfe"}')
    (store.folder / "link.json").symlink_to(outside)
    (store.folder / "folder.json").mkdir()
    os.mkfifo(store.folder / "pipe.json")
    (store.folder / ".hidden.json").write_text("{}")
    assert [run.id for run in store.sidecars()] == ["kl7m2q"]
    names = [name for name, why in store.skipped if why]
    assert names == sorted([*bad, "latin.json", "link.json", "folder.json", "pipe.json"])
    assert [run.id for run in store.sidecars(request_keys=[good.request_key])] == ["kl7m2q"]


def test_a_folder_of_endless_files_is_read_to_a_limit(tmp_path, monkeypatch):
    """Beyond the limit no file is opened, and that is said."""
    monkeypatch.setattr(index_module, "MAX_SIDECARS", 3)
    store = Store(tmp_path)
    for number in range(5):
        store.write_sidecar(make_record(id=f"run{number}"))
    assert len(store.sidecars()) == 3
    assert [why for _, why in store.skipped] == ["this and later ones: more than 3 files"]


def test_too_much_for_a_sidecar_is_refused_before_it_is_written(tmp_path):
    """What could not be read back is not written: the refusal comes with the first write, before the POST."""
    store = Store(tmp_path / "media")
    with pytest.raises(StoreError, match="too large"):
        store.write_sidecar(make_record(metadata={"x": "é" * 400_000}))
    assert not store.folder.exists()
    store.write_sidecar(make_record(metadata={"x": "é" * 100_000}))
    assert len(store.sidecars()) == 1


def test_a_receipt_that_may_be_begun_can_be_ended(tmp_path):
    """What is posted and measured later makes it longer: room for that is kept from the first write on."""
    store = Store(tmp_path / "media")
    fits = next(n for n in range(1_000_000, 0, -10_000) if _fits(store, {"x": "y" * n}))
    assert fits > 600_000
    body = {"prompt": "\N{CJK UNIFIED IDEOGRAPH-96EA}" * 21_000}
    marks = tuple(Mark(kind="tag", where="w" * 80, text="\N{FOX FACE}" * 300) for _ in range(15))
    media = MediaFacts(
        file="a.mp4",
        sha256="0" * 64,
        size=1,
        marks=(*marks, Mark(kind="aigc", where="AIGC", text="\N{FOX FACE}" * 2000)),
    )
    ended = make_record(
        metadata={"x": "y" * fits},
        sent=Sent.of("https://x.example/v1", body, private=False),
        media=media,
        status=RunStatus.SUCCEEDED,
    )
    assert ended.sent.body == body
    store.write_sidecar(ended)
    assert [record.media for record in store.sidecars()] == [media]


def _fits(store, metadata):
    try:
        store.write_sidecar(make_record(metadata=metadata))
    except StoreError:
        return False
    return True


def test_a_link_in_place_of_a_sidecar_is_replaced_not_followed(tmp_path):
    """Writing a sidecar never writes through a link somebody left under its name."""
    store = Store(tmp_path / "media")
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    store.part(make_record())
    (store.folder / f"{file_stem(make_record())}.json").symlink_to(victim)
    store.write_sidecar(make_record())
    assert victim.read_text() == "mine"
    assert len(store.sidecars()) == 1


# --- bringing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["linked", "copied"])
def test_a_clip_of_another_notebook_is_brought_here(tmp_path, monkeypatch, way):
    """Clip and sidecar come along, verified; the other folder stays as it was; doing it twice is once."""
    other, here = Store(tmp_path / "other"), Store(tmp_path / "here" / "kling_media")
    done = keep(other, make_record())
    other.write_sidecar(done)
    before = listing(other.folder)
    if way == "copied":
        monkeypatch.setattr(folder_module.os, "link", no_link)
    for _ in range(2):
        brought = here.bring(done, other.folder)
    assert here.verify(brought)
    assert brought.folder == str(here.folder)
    assert here.sidecars() == [brought]
    assert listing(here.folder) == listing(other.folder) == before
    same_file = here.path(brought).samefile(other.path(done))
    assert same_file is (way == "linked")


def test_a_taken_name_is_not_replaced_by_what_is_brought(tmp_path):
    """Where another file has the name, the clip gets the next one and its sidecar says so."""
    other, here = Store(tmp_path / "other"), Store(tmp_path / "here")
    done = keep(other, make_record())
    mine = keep(here, make_record(), colour=(0, 200, 0))
    brought = here.bring(done, other.folder)
    assert brought.media.file == "a-red-fox-at-dawn-kl7m2q-2.mp4"
    assert here.verify(brought)
    assert here.verify(mine)
    assert [run.media.file for run in here.sidecars()] == [brought.media.file]


def test_only_the_recorded_clip_is_brought(tmp_path):
    """A clip that is gone, changed or a link out of its folder is refused, and nothing is left here."""
    other, here = Store(tmp_path / "other"), Store(tmp_path / "here")
    done = keep(other, make_record())
    path = other.path(done)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"?")
    with pytest.raises(StoreError, match="gone or is not the recorded one"):
        here.bring(done, other.folder)
    path.unlink()
    (tmp_path / "outside.mp4").write_bytes(data)
    path.symlink_to(tmp_path / "outside.mp4")
    with pytest.raises(StoreError, match="gone or is not the recorded one"):
        here.bring(done, other.folder)
    with pytest.raises(StoreError):
        here.bring(make_record(), other.folder)
    assert not here.folder.exists()
    path.unlink()
    path.write_bytes(data)
    assert here.verify(here.bring(done, other.folder))


def test_bringing_from_the_same_folder_moves_nothing(tmp_path):
    """A folder reached by another path is still the same folder."""
    store = Store(tmp_path / "media")
    done = keep(store, make_record())
    (tmp_path / "alias").symlink_to(store.folder)
    brought = store.bring(done, tmp_path / "alias")
    assert brought.media == done.media
    assert listing(store.folder) == ["a-red-fox-at-dawn-kl7m2q.json", "a-red-fox-at-dawn-kl7m2q.mp4"]


# --- names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("A red fox crosses fresh snow at dawn, slow dolly-in", "a-red-fox-crosses-fresh-snow-at-dawn"),
        ("Café in Zürich, naïve Straße", "cafe-in-zurich-naive-strasse"),
        ("Don't stop", "dont-stop"),
        ("一只狐狸在雪地里", "clip"),
        ("一只狐狸 3D", "clip"),
        ("../../etc/passwd", "etc-passwd"),
        ("<script>alert('x')</script>", "script-alert-x-script"),
        ("  ...  ", "clip"),
        ("CON", "clip-con"),
        ("lpt1", "clip-lpt1"),
        ("x" * 3000, "x" * 40),
        ("ﷺ" * 2000, "clip"),
    ],
)
def test_a_slug_is_readable(words, expected):
    """The words that make sense in a file name are kept, and nothing else."""
    assert slug(words) == expected


@given(st.text(max_size=400), st.text("abcdefghijkmnpqrstuvwxyz0123456789", min_size=4, max_size=20))
def test_no_prompt_makes_a_bad_name(words, run_id):
    """Any prompt gives a name that is legal everywhere, short, and its run's own even if case is lost."""
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug(words))
    assert len(slug(words)) <= 40
    if words.strip():
        stem = file_stem(make_record(prompt=words[:400], id=run_id))
        assert stem == stem.casefold()
        assert stem.endswith(f"-{run_id}")
        assert len(f".{stem}-2.mp4.4294967296-00000000.part") <= 255


def test_a_storyboard_is_named_by_its_first_shot():
    """A record without a prompt still has a readable name."""
    shots = [Shot(prompt="Wide view of a vineyard", duration=3), Shot(prompt="Two hands", duration=2)]
    assert file_stem(make_record(request=TextToVideo(shots=shots))) == "wide-view-of-a-vineyard-kl7m2q"


@pytest.mark.parametrize(
    ("clip", "notebook", "expected"),
    [
        ("/w/kling_media/a.mp4", "/w", "kling_media/a.mp4"),
        ("/w/media/a.mp4", "/w/deep/nb", "../../media/a.mp4"),
        ("/w/my clips #1/50% off?.mp4", "/w", "my%20clips%20%231/50%25%20off%3F.mp4"),
        ("/w/视频/a.mp4", "/w", "%E8%A7%86%E9%A2%91/a.mp4"),
        ("/w/javascript:x/a.mp4", "/w", "javascript%3Ax/a.mp4"),
        ('/w/"><img>/a.mp4', "/w", "%22%3E%3Cimg%3E/a.mp4"),
    ],
)
def test_a_clip_is_found_from_the_page(clip, notebook, expected):
    """The address is relative, percent-encoded, and leads back to the very file."""
    src = relative_src(Path(clip), Path(notebook))
    assert src == expected
    assert os.path.normpath(os.path.join(os.fsencode(notebook), unquote_to_bytes(src))) == os.fsencode(clip)  # noqa: PTH118 - bytes


def test_a_name_that_is_no_unicode_still_has_an_address():
    """Bytes that are no UTF-8 in a folder's name are encoded as they are."""
    assert relative_src(Path(os.fsdecode(b"/w/\xff/a.mp4")), Path("/w")) == "%FF/a.mp4"
