"""The index of a media folder: a look costs the same however much is there, and misses nothing."""

import os
import sys
import time
from collections import Counter
from contextlib import contextmanager

import pytest

from kling_nb.media.folder import Store
from kling_nb.media.index_cache import Entry, IndexCache
from support.clips import make_record

_counts: list[Counter[str]] = []


def _count(event, arguments):
    for count in _counts:
        if event in {"os.scandir", "os.listdir"}:
            count["listings"] += 1
        elif event == "open" and str(arguments[0]).endswith(".json") and arguments[1] is None:
            count["receipts"] += 1


sys.addaudithook(_count)


@contextmanager
def counting():
    """Count the listings of folders and the receipts that are opened to be read."""
    _counts.append(Counter(listings=0, receipts=0))
    try:
        yield _counts[-1]
    finally:
        _counts.clear()


def later():
    """A clock by which what is here is older than the times of files are coarse."""
    return time.time_ns() + 10**10


def fill(store, number, *, first=0):
    records = [make_record(id=f"run{n}", prompt=f"fox {n}") for n in range(first, first + number)]
    for record in records:
        store.write_sidecar(record, sync=False)
    return records


def ids(store, *records):
    return {one.id for one in store.sidecars(request_keys=[record.request_key for record in records])}


def settled(folder):
    """A store that has seen that the folder's times move with it, and has listed it since."""
    store = Store(folder)
    for _ in range(50):
        store.check_room(1)
        time.sleep(0.03)
        store.sidecars(request_keys=[])
        if store._index._in_step():
            return store
    pytest.fail("The times of this folder never prove anything.")


@pytest.mark.parametrize("number", [10, 500])
def test_a_look_costs_the_same_however_many_receipts_are_there(tmp_path, number):
    """Nothing is listed, and only what was asked for is opened: also right after a write of our own."""
    records = fill(Store(tmp_path), number)
    store = settled(tmp_path)
    with counting() as cost:
        assert ids(store, records[3]) == {"run3"}
        assert ids(store, make_record(prompt="unknown")) == set()
    assert cost == {"listings": 0, "receipts": 1}
    with counting() as cost:
        for record in fill(store, 5, first=number):
            assert ids(store, record) == {record.id}
    # Where the machine is busy a write may take too long to be sure that nobody wrote meanwhile.
    assert cost["receipts"] == 5 or cost["listings"] > 0
    assert cost["listings"] <= 5


def test_what_others_write_is_seen_at_once(tmp_path):
    """A receipt that comes, goes or is exchanged between two writes of ours is seen by the next look."""
    mine = settled(tmp_path)
    theirs = Store(tmp_path)
    for number in range(0, 60, 3):
        own, other, gone = fill(mine, 1, first=number) + fill(theirs, 2, first=number + 1)
        assert ids(mine, own, other, gone) == {own.id, other.id, gone.id}
        (tmp_path / f"fox-{number + 2}-{gone.id}.json").unlink()
        fill(mine, 1, first=1000 + number)
        assert ids(mine, gone) == set()
        (tmp_path / f"fox-{number}-{own.id}.json").replace(tmp_path / f"fox-{number + 1}-{other.id}.json")
        assert ids(mine, own, other) == {own.id}


def test_a_file_that_grows_in_its_place_is_seen(tmp_path):
    """A receipt that is copied here byte by byte leaves no trace in the folder's times when it is whole."""
    store = settled(tmp_path / "here")
    [record] = fill(Store(tmp_path / "there"), 1)
    [source] = (tmp_path / "there").iterdir()
    data = source.read_bytes()
    with (tmp_path / "here" / source.name).open("wb", buffering=0) as target:
        for piece in (data[:40], data[40:200], data[200:]):
            assert ids(store, record) == set()
            target.write(piece)
    assert ids(store, record) == {"run0"}


@pytest.mark.parametrize("behind_ns", [4_000_000, 10**9, 3600 * 10**9])
def test_times_that_prove_nothing_are_not_believed(tmp_path, behind_ns):
    """Where a folder's times are coarse, late or of another clock, every look after a change lists it."""
    store = Store(tmp_path, clock=lambda: time.time_ns() + behind_ns)
    for number in range(5):
        [record] = fill(store, 1, first=number)
        with counting() as cost:
            assert ids(store, record) == {record.id}
        assert cost["listings"] == 1


def test_the_next_kernel_reads_only_what_is_new(tmp_path):
    """What was read once is read again only where it changed; a user who is new here reads everything."""
    records = fill(Store(tmp_path), 30)
    fresh = Store(tmp_path, clock=later)
    with counting() as cost:
        assert ids(fresh, records[3]) == {"run3"}
    assert cost["receipts"] == 31
    fill(Store(tmp_path), 2, first=30)
    path = tmp_path / "fox-7-run7.json"
    # As git does: the same name, another file, perhaps with the old time.
    data, times = path.read_bytes(), path.stat()
    path.unlink()
    path.write_bytes(data.replace(b"fox 7", b"fox 8"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    third = Store(tmp_path, clock=later)
    with counting() as cost:
        assert ids(third, records[3], records[29]) == {"run3", "run29"}
    assert cost["receipts"] == 3 + 2


def test_a_clip_that_changed_between_two_kernels_is_noticed(tmp_path):
    """The same size and the time set back: the hash that an earlier kernel kept does not hold."""
    clip = tmp_path / "a.mp4"
    clip.write_bytes(b"paid for")
    store = Store(tmp_path, clock=later)
    before = store._index.sha256(clip)
    times = clip.stat()
    clip.write_bytes(b"tampered")
    os.utime(clip, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert Store(tmp_path, clock=later)._index.sha256(clip) != before


def test_a_clip_hashed_in_the_moment_of_its_change_is_hashed_again(tmp_path):
    """One that may change once more within the same tick is not believed until it is older."""
    clip = tmp_path / "a.mp4"
    clip.write_bytes(b"one")
    now = clip.stat().st_mtime_ns
    index = Store(tmp_path, clock=lambda: now + 1_000_000)._index
    first = index.sha256(clip)
    clip.write_bytes(b"two")
    index._hashes = {clip: (signature_of(clip.stat()), *index._hashes[clip][1:])}
    assert index.sha256(clip) != first


def signature_of(facts):
    return (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino, facts.st_dev)


# --- the cache ---------------------------------------------------------------------------------------------


def cache_file(cache):
    [path] = (cache / "kling_nb").glob("folders-*.db")
    return path


def test_the_index_is_kept_in_the_users_cache_and_nowhere_else(tmp_path, monkeypatch):
    """The media folder holds receipts and clips, and nothing of ours beside them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = Store(tmp_path / "media", clock=later)
    fill(store, 3)
    assert len(store.sidecars()) == 3
    assert sorted(path.name for path in store.folder.iterdir()) == [f"fox-{n}-run{n}.json" for n in range(3)]
    assert cache_file(tmp_path / "cache").stat().st_size > 0


@pytest.mark.parametrize("harm", ["garbage", "torn", "other version", "read-only", "a file in its place"])
def test_a_cache_that_cannot_be_used_costs_time_and_no_answer(tmp_path, monkeypatch, harm):
    """A damaged one is made anew; where there can be none, everything is read again."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    records = fill(Store(tmp_path / "media"), 20)
    if harm != "a file in its place":
        assert ids(Store(tmp_path / "media", clock=later), records[3]) == {"run3"}
        path = cache_file(cache)
        if harm == "garbage":
            path.write_bytes(b"no database at all" * 500)
        elif harm == "torn":
            path.write_bytes(path.read_bytes()[:5000])
        elif harm == "other version":
            path.unlink()
            IndexCache(path)._write(("PRAGMA user_version = 99", [()]))
        else:
            for one in (*path.parent.iterdir(), path.parent):
                one.chmod(0o500)
    else:
        cache.write_text("no folder")
    fresh = Store(tmp_path / "media", clock=later)
    assert ids(fresh, records[3], records[17]) == {"run3", "run17"}
    assert len(fresh.sidecars()) == 20
    fill(fresh, 1, first=20)
    assert len(Store(tmp_path / "media", clock=later).sidecars()) == 21


def test_a_forked_child_has_a_connection_of_its_own(tmp_path):
    """SQLite must not be carried over a fork: every connection is closed before, and opened again after."""
    cache = IndexCache.of_user()
    cache.save(tmp_path, {"a.json": Entry((1, 2, 3, 4, 5), ("k1:a",))}, [], fine=True)
    child = os.fork()
    if not child:
        os._exit(0 if cache._connection is None and cache.receipts(tmp_path) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert cache.receipts(tmp_path) == {"a.json": Entry((1, 2, 3, 4, 5), ("k1:a",))}
