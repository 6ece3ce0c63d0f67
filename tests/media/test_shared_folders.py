"""Folders as they really travel: merged, on another disk, left untouched, renamed under a living kernel."""

import shutil

import pytest

from kling_nb.errors import BlockedError
from kling_nb.media.claims import Claims
from kling_nb.recovery.verify import verify_folder
from support.kernels import kernel_in
from support.sessions import ask
from support.stage import WIRES
from support.workbench import until

CELL = "%%kling fox -d 3\nA red fox in snow"


def state(folder):
    """Everything that writing would change."""
    found = [folder, *folder.rglob("*")]
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_size) for path in found}


def colleague(house, *keys, **settings):
    """A session of somebody with the folder and nothing else."""
    house.forget_ledger()
    house.keys(*keys)
    return house.session(**settings)


@pytest.mark.parametrize("wire", WIRES)
def test_showing_a_colleagues_clips_writes_nothing_into_his_folder(build, wire):
    """A folder that may only be read is enough: not a byte, a name or a time of it changes."""
    house = build()
    session = house.session()
    runs = session.open(ask(provider=wire, takes=(0, 1)))
    assert [run.wait(90).status for run in runs] == ["succeeded"] * 2
    session.close()
    before = state(house.media)
    assert len(before) == 5
    keyless = colleague(house)
    shown = keyless.open(ask(takes=(0, 1)))
    assert [(run.id, run.reused, run.bundle()["text/plain"].count("Done, reused")) for run in shown] == [
        (run.id, True, 1) for run in runs
    ]
    assert state(house.media) == before
    assert house.submissions == 2


def test_a_clip_is_copied_to_another_disk(build, other_disk):
    """Where no hard link is possible, the same request in another notebook brings a copy, receipt and all."""
    house = build()
    session = house.session()
    first = house.run(session, ask())
    house.set(MEDIA=other_disk / "kling_media")
    second = house.run(session, ask())
    assert (second.id, second.reused, second.path.parent) == (first.id, True, other_disk / "kling_media")
    assert second.path.read_bytes() == first.path.read_bytes()
    assert [one.word for one in verify_folder(other_disk)] == ["here"]
    keyless = colleague(house)
    shutil.rmtree(house.media)
    assert house.run(keyless, ask()).path == second.path
    assert (house.submissions, house.stats()["downloads"]) == (1, 1)


def test_a_claim_of_a_colleague_is_only_read(tmp_path):
    """Where we may not write his file, or it is none at all, the folder is not called broken for that."""
    claims, key = Claims(tmp_path), f"k1:{'0' * 64}"
    assert claims.take(key, "k7his0", "elsewhere:1")
    claims.path(key).chmod(0o444)  # which means nothing to root
    assert not claims.keep(key, "k7ours", sending=True)
    assert not claims.seen(key).sending
    claims.path(key).unlink()
    claims.path(key).mkdir()
    assert not claims.keep(key, "k7ours", sending=True)


def test_two_folders_with_the_same_run_twice_become_one(build, tmp_path):
    """Both bought it: merged, the newest is shown, both are whole, and nobody pays a third time."""
    house = build()
    runs = []
    for name in ("ann", "bob"):
        house.set(MEDIA=tmp_path / name, LEDGER=tmp_path / f"{name}.db")
        session = house.session()
        runs.append(house.run(session, ask(provider="runcomfy")))
        session.close()
    assert house.submissions == 2
    for name in ("ann", "bob"):
        shutil.copytree(tmp_path / name, tmp_path / "both", dirs_exist_ok=True)
        shutil.copytree(tmp_path / name, tmp_path / "both" / f"copy of {name}")
    house.set(MEDIA=tmp_path / "both", LEDGER=tmp_path / "carol.db")
    house.keys()
    keyless = house.session()
    assert [house.run(keyless, ask()).id for _ in range(2)] == [runs[1].id] * 2
    found = [one for one in verify_folder(tmp_path / "both") if one.good]
    assert sorted(one.run_id for one in found) == sorted(run.id for run in runs)
    runs[1].path.parent.rename(tmp_path / "gone")
    (tmp_path / "both" / runs[1].path.name).unlink()
    assert house.run(house.session(), ask()).id == runs[0].id, "the one that is whole"
    assert (keyless.ledger().runs(), house.submissions) == ([], 2)


@pytest.mark.parametrize(
    ("wire", "faults", "status", "cure"),
    [
        ("runcomfy", {"submit_drop_after": {"next": 1}}, "lost", "resolve"),
        ("runcomfy", {"run_failed": {"next": 1}, "cost_told": "never"}, "failed", "--retry"),
        ("runflow", {"submit_moderated": {"next": 1}}, "failed", "Change the prompt"),
    ],
    ids=["lost", "failed", "moderated"],
)
def test_what_ended_badly_for_a_colleague_is_not_drawn_and_not_bought(build, wire, faults, status, cure):
    """Without a key or with one of somebody else's, his end of it is said, and nothing takes its place."""
    house = build(faults=faults)
    session = house.session()
    ended = house.run(session, ask(provider=wire))
    assert ended.status == status
    session.close()
    for keys in ((), (wire,)):
        other = colleague(house, *keys)
        with pytest.raises(BlockedError, match=ended.id) as caught:
            other.open(ask())
        assert cure in caught.value.cure
        assert (other.ledger().runs(), house.drawn(other)) == ([], 0)
        shown = other.find(ended.id)
        assert (shown.status, shown.error.run_id) == (status, ended.id)
    assert house.submissions == 1
    assert list(house.media.glob("*.mp4")) == []


@pytest.mark.parametrize(
    "named",
    [
        pytest.param(True, id="by the server"),
        pytest.param(False, id="by the working folder", marks=pytest.mark.matrix),
    ],
)
def test_a_folder_renamed_under_a_living_kernel_is_followed(build, monkeypatch, named):
    """Its clips are found under the new name, one on its way arrives there, and nothing is fetched twice."""
    house = build(held=True, faults={"run_s": 0})
    old, new = house.folder / "old", house.folder / "new"
    old.mkdir()
    house.unset("MEDIA")
    house.keys("runcomfy")
    if named:
        (old / "n.ipynb").write_text("{}")
        monkeypatch.setenv("JPY_SESSION_NAME", str(old / "n.ipynb"))
    with kernel_in(old) as kernel:
        kernel.run("%load_ext kling_nb")
        kernel.run(CELL)
        assert kernel.value("fox.wait(60).status.value") == "succeeded"
        house.faults(run_s=1)
        # As a page sends it: where a server runs the cells, the cell waits for its run.
        kernel.run(CELL.replace("fox", "owl"), cell="b1")
        until(lambda: house.accepted == 2)
        old.rename(new)
        house.let_go()
        assert kernel.value("owl.wait(60).status.value") == "succeeded"
        for name in ("fox", "owl"):
            assert kernel.run(CELL.replace("fox", name)).status == "ok"
            where = kernel.value(f"[{name}.status.value, {name}.reused, str({name}.path.parent)]")
            assert where == ["succeeded", True, str(new / "kling_media")]
    assert (house.submissions, house.stats()["downloads"]) == (2, 2)
