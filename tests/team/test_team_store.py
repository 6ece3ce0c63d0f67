"""The team's store: each clip is taken there once, comes back from there, and no key goes with it."""

import json
import shutil

import pytest

from kling_nb.commands.doctor import doctor
from kling_nb.errors import SettingsError, StoreError, UsageError
from kling_nb.media.remote import by_content
from kling_nb.recovery.restore import restore
from kling_nb.recovery.verify import verify_store
from support.buckets import SECRET, bucket
from support.saved import save, words
from support.sessions import ask
from support.workbench import KEY, until


@pytest.fixture
def shelf(tmp_path):
    """A store in a folder that everybody mounts."""
    return tmp_path / "shelf"


@pytest.fixture
def house(build, shelf):
    house = build()
    house.set(MEDIA=shelf.as_uri())
    return house


def made(house, session=None, prompt="A red fox", **options):
    session = session or house.session()
    return session, house.run(session, ask(prompt, provider="runflow", **options))


def held(shelf):
    return sorted(str(path.relative_to(shelf)) for path in shelf.rglob("*") if path.is_file())


def arrived(session):
    """Wait until nothing is noted as still to be taken."""
    until(lambda: not session.engine().uploads.waiting())


def test_a_clip_stays_beside_the_notebook_and_goes_to_the_store_once(house, shelf):
    """By the hash of its bytes, with its receipt; what is there already is not written again."""
    session, run = made(house)
    arrived(session)
    clip = by_content(run.record.media)
    assert run.path.parent == house.folder / "kling_media"
    assert held(shelf) == [clip, f"receipts/{run.id}.json"]
    assert (shelf / clip).read_bytes() == run.path.read_bytes()
    stamp = (shelf / clip).stat().st_mtime_ns
    again = house.run(session, ask("A red fox", provider="runflow"))
    assert again.reused
    assert session.upload() == {}
    assert (shelf / clip).stat().st_mtime_ns == stamp
    assert house.submissions == 1


def test_a_colleague_gets_the_clip_from_the_store(house, shelf, tmp_path):
    """On the same ledger, in another folder, without the key that made it and without its provider."""
    session, run = made(house)
    arrived(session)
    session.close()
    before, data = house.stats(), run.path.read_bytes()
    shutil.rmtree(house.folder / "kling_media")
    other = tmp_path / "colleague"
    other.mkdir()
    house.patch.chdir(other)
    house.keys("runflow", key="another-key-of-a-colleague-4Tz")
    house.folder = other
    session = house.session()
    found = house.run(session, ask("A red fox", provider="runflow"))
    assert (found.id, found.reused, found.status) == (run.id, True, "succeeded")
    assert found.path == other / "kling_media" / run.path.name
    assert found.path.read_bytes() == data
    assert house.stats()["submissions"] == before["submissions"] == 1
    assert house.stats()["downloads"] == before["downloads"]


def test_what_could_not_be_taken_there_is_taken_by_collect(house, shelf):
    """A store that cannot be written holds up no run; `kling-nb collect` says what is missing, and why."""
    shelf.write_text("a file where a folder should be")
    session, run = made(house)
    assert run.status == "succeeded"
    assert session.engine().uploads.waiting() == [run.id]
    until(lambda: not session.engine().uploads._tasks)
    assert session.engine().uploads.waiting() == [run.id]
    code, _, err = house.tool("collect")
    assert code == 1
    assert f"the clip of run {run.id} is not in the team's store" in err
    shelf.unlink()
    code, _, err = house.tool("collect")
    assert (code, err) == (0, "")
    assert held(shelf) == [by_content(run.record.media), f"receipts/{run.id}.json"]
    assert session.engine().uploads.waiting() == []


def test_the_clips_of_another_machine_are_left_to_it(house, shelf, tmp_path):
    """On a shared ledger, `collect` takes what is here, and does not complain of the rest."""
    shelf.write_text("in the way")
    session, run = made(house)
    until(lambda: not session.engine().uploads._tasks)
    folder = house.folder / "kling_media"
    folder.rename(tmp_path / "on another machine")
    shelf.unlink()
    assert house.tool("collect")[::2] == (0, "")
    assert not shelf.exists()
    (tmp_path / "on another machine").rename(folder)
    assert house.tool("collect")[::2] == (0, "")
    assert len(held(shelf)) == 2
    assert run.path.is_file()


def test_a_store_that_cannot_be_reached_is_no_reason_to_buy_again(house, shelf, tmp_path):
    """Where the clip is not here and its key neither: refused in words that name the store, nothing sent."""
    session, _ = made(house)
    arrived(session)
    session.close()
    shutil.rmtree(house.folder / "kling_media")
    house.keys("runflow", key="another-key-of-a-colleague-4Tz")
    house.set(MEDIA="http://127.0.0.1:9/kling")
    with pytest.raises(StoreError, match=r"http://127.0.0.1:9/kling cannot be reached"):
        made(house)
    assert house.submissions == 1


def test_a_process_that_is_killed_before_the_upload_leaves_it_noted(house, shelf):
    """The note is written in the same transaction as the end of the run."""
    shelf.write_text("in the way")
    code = """
import os, kling_nb as kling
run = kling.submit("A red fox", duration=3, provider="runflow", max_cost="1").wait(60)
assert run.status == "succeeded"
os._exit(9)
"""
    assert house.script(code)[0] == 9
    shelf.unlink()
    session = house.session()
    [left] = session.engine().uploads.waiting()
    assert session.upload() == {}
    assert held(shelf)[1] == f"receipts/{left}.json"


def test_a_script_that_ends_takes_its_clips_along(house, shelf):
    """The end of a process waits for the clips that are on their way."""
    code = """
import kling_nb as kling
print(kling.generate("A red fox", duration=3, provider="runflow", max_cost="1").sha256)
"""
    status, out, err = house.script(code)
    assert (status, err) == (0, "")
    assert any(out.strip() in name for name in held(shelf))


def test_restore_and_verify_know_the_store(house, shelf):
    """A mailed notebook gets its clips from it; what is changed or missing there is named."""
    session, run = made(house)
    _, other = made(house, session, "An owl")
    arrived(session)
    path = save(house.folder / "a.ipynb", run.record, other.record)
    shutil.rmtree(house.folder / "kling_media")
    downloads = house.stats()["downloads"]
    assert words(restore(path, session=session)) == ["fetched", "fetched"]
    assert house.stats()["downloads"] == downloads
    assert words(verify_store(shelf.as_uri())) == ["here", "here"]
    (shelf / by_content(run.record.media)).write_bytes(b"0" * run.record.media.size)
    (shelf / by_content(other.record.media)).unlink()
    found = {one.run_id: one.word for one in verify_store(shelf.as_uri())}
    assert found == {run.id: "changed", other.id: "missing"}
    code, out, _ = house.tool("verify", shelf.as_uri(), "--json")
    assert code == 1
    assert {one["state"] for one in json.loads(out)} == {"changed", "missing"}


def test_other_bytes_in_the_store_are_never_taken_for_the_clip(house, shelf):
    """They are fetched from the provider instead."""
    session, run = made(house)
    arrived(session)
    data = run.path.read_bytes()
    (shelf / by_content(run.record.media)).write_bytes(b"0" * run.record.media.size)
    shutil.rmtree(house.folder / "kling_media")
    again = house.run(session, ask("A red fox", provider="runflow"))
    assert (again.id, again.path.read_bytes()) == (run.id, data)
    assert house.submissions == 1


def test_an_address_that_cannot_be_kept_is_refused_before_anything_is_sent(build):
    """With a password, a query, of a backend that is not installed, or by a stranger's project."""
    house = build()
    for address, said in [
        ("s3://ann:pw-7Qm2@host/clips", "holds a password or a key"),
        ("s3://AKIAX:pw-7Qm2/K7MD/bPx@bucket/clips", "holds a password or a key"),
        ("s3://team/clips?token=t", "holds a query"),
    ]:
        house.set(MEDIA=address)
        with pytest.raises(SettingsError, match=said) as error:
            made(house)
        assert "pw-7Qm2" not in str(error.value)
    house.set(MEDIA="nosuch://team/clips")
    with pytest.raises(UsageError, match="cannot be opened"):
        made(house)
    house.unset("MEDIA")
    (house.folder / "pyproject.toml").write_text('[tool.kling_nb]\nmedia = "s3://stranger/clips"\n')
    with pytest.raises(SettingsError, match="inside that project"):
        made(house)
    assert house.submissions == 0


def test_the_doctor_knows_the_store(house, shelf):
    """It names it, what is not there yet, and that it cannot be reached."""
    session, _ = made(house)
    arrived(session)

    def row():
        return next(one for one in doctor(session, online=False).value if one["check"] == "team's store")

    assert (row()["state"], row()["found"]) == ("ok", shelf.as_uri())
    shutil.rmtree(shelf)
    shelf.write_text("in the way")
    made(house, session, "An owl")
    until(lambda: not session.engine().uploads._tasks)
    assert row()["state"] == "warn"


def test_clips_go_to_a_bucket_without_any_key_or_open_access(house):
    """S3 itself, by its own wire: the bucket holds clip and receipt, nobody else may read them."""
    with bucket("team") as environment:
        for name, value in environment.items():
            house.patch.setenv(name, value)
        house.set(MEDIA="s3://team/kling")
        code = """
import kling_nb as kling
run = kling.submit("A red fox", duration=3, provider="runflow", max_cost="1").wait(60)
print(run.id, run.video.sha256)
"""
        status, out, err = house.script(code)
        assert (status, err) == (0, "")
        run_id, sha256 = out.split()
        look = """
import fsspec, json
s3 = fsspec.filesystem("s3")
names = sorted(s3.find("team"))
client = s3.s3
import fsspec.asyn
def grants(key):
    return fsspec.asyn.sync(s3.loop, client.get_object_acl, Bucket="team", Key=key)["Grants"]
everybody = [grant for name in names for grant in grants(name.partition("/")[2]) if "URI" in grant["Grantee"]]
print(json.dumps([names, everybody, s3.cat_file(names[1]).decode()]))
"""
        status, out, err = house.script(look)
        assert status == 0, err
        names, everybody, receipt = json.loads(out)
        assert names == [f"team/kling/clips/{sha256[:2]}/{sha256}.mp4", f"team/kling/receipts/{run_id}.json"]
        assert everybody == []
        for secret in (KEY, SECRET, "kling_sig"):
            assert secret not in receipt
        assert house.tool("verify", "s3://team/kling")[0] == 0
