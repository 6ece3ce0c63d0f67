"""Errors and runs cross processes, and a worker of a pool loses nothing and may be asked again."""

import importlib
import inspect
import pickle
import pkgutil
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest

import kling_nb as kling
from kling_nb.errors import KlingError
from kling_nb.session import api
from kling_nb.session.api import ask_for
from support.databases import in_both, in_postgresql
from support.workbench import houses, until

IDS = {"run_id": "kbcdfghj", "provider": "runflow", "provider_run_id": "0192"}


@pytest.fixture
def house(tmp_path, where, monkeypatch):
    """Both wires, and the one session of this process."""
    yield from _house(tmp_path, where, monkeypatch)


@pytest.fixture
def held_house(tmp_path, where, monkeypatch):
    """The same, with runs that go on until they are let go."""
    yield from _house(tmp_path, where, monkeypatch, held=True)


def _house(tmp_path, where, monkeypatch, **options):
    for made in houses(tmp_path, monkeypatch):
        house = made(**options)
        house.set(BUDGET="5.00", LEDGER=where)
        session = kling.connect()
        yield house
        session.close()
        api._session = None


def every_kind():
    """Every error class of the package, wherever it is defined."""
    for module in pkgutil.walk_packages([str(path) for path in kling.__path__], "kling_nb."):
        if "__main__" not in module.name:
            importlib.import_module(module.name)
    kinds, found = [KlingError], []
    while kinds:
        found.append(kinds.pop())
        kinds += found[-1].__subclasses__()
    return [kind for kind in found if kind.__module__.startswith("kling_nb.")]


def test_every_error_says_in_another_process_what_it_says_here():
    """The text is not wrapped again, and charge, cure and ids are the same."""
    kinds = every_kind()
    assert len(kinds) > 22
    for kind in kinds:
        names = inspect.signature(kind).parameters
        given = {
            "charged": "unknown",
            "cure": "Look.",
            "sent": True,
            "retryable": False,
            "reason": "auth",
            **IDS,
        }
        error = kind("It broke.", **{name: value for name, value in given.items() if name in names})
        error.may_spend = True
        error.add_note("seen in a pool")
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), vars(copy)) == (kind, str(error), vars(error)), kind
        assert str(copy).count("Charged:") == 1, kind


def test_a_run_is_pickled_as_its_id_and_found_again(house):
    """No words are in the pickle, nothing is sent for it, and a finished run brings its clip."""
    run = kling.submit("A red fox", duration=3, provider="runflow")
    pickled = pickle.dumps(run)
    assert b"fox" not in pickled
    assert pickle.loads(pickled) is run, "while it is on its way there is one handle of it"
    run.wait(60)
    kling.connect(ledger=house.folder / "other.db").close()
    again = pickle.loads(pickled)
    assert (again.id, again.status, again.path, again.video.sha256) == (
        run.id,
        "succeeded",
        run.path,
        run.video.sha256,
    )
    assert kling.Run is type(again)
    assert house.submissions == 1
    gone = pickled.replace(b"ledger.db", b"legder.db")
    with pytest.raises(kling.UsageError, match="and this is another one"):
        pickle.loads(gone)


@in_postgresql
def test_a_run_of_a_team_is_pickled_without_the_password(house, where):
    """It is found again where the ledger is that of the environment; elsewhere it says which one it needs."""
    run = kling.submit("A red fox", duration=3, provider="runflow").wait(60)
    pickled = pickle.dumps(run)
    assert b"search_path" not in pickled
    assert pickle.loads(pickled).path == run.path
    kling.connect(ledger=house.folder / "other.db").close()
    with pytest.raises(kling.UsageError, match="postgresql") as caught:
        pickle.loads(pickled)
    assert "kling.connect(ledger=...)" in caught.value.cure
    kling.connect()
    assert pickle.loads(pickled).path == run.path
    assert house.submissions == 1


@in_both
def test_a_pool_of_spawned_processes_submits(house):
    """`submit` in a worker returns once the provider's id is on disk; the handle waits for the clip."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        runs = list(pool.map(kling.submit, ["A red fox", "A grey hare"]))
    assert all(run.provider_run_id for run in runs)
    assert house.submissions == 2
    assert [run.wait(90).status for run in runs] == ["succeeded", "succeeded"]
    assert house.submissions == 2


# -- one request, made once ---------------------------------------------------------------
def boats(count):
    return [kling.TextToVideo(prompt=f"Paper boat {n}", duration=3) for n in range(count)]


def test_a_pool_that_is_asked_again_and_again_makes_each_request_once(house):
    """The same requests from several processes at once, and again: one submission each, one clip for all."""
    requests = boats(2)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        clips = list(pool.map(kling.run_one, requests * 3))
        again = list(pool.map(kling.run_one, [clip.record.id for clip in clips[:2]]))
    assert [clip.path for clip in clips] == [clip.path for clip in clips[:2]] * 3
    assert again == clips[:2]
    assert [clip.record.request for clip in again] == requests
    assert all(clip.path.is_file() for clip in clips)
    assert house.submissions == 2


def test_threads_that_ask_for_one_request_share_its_run(house):
    """As the threads of a worker do: one submission, one clip."""
    with ThreadPoolExecutor(4) as pool:
        clips = set(pool.map(lambda _: kling.run_one(boats(1)[0]).sha256, range(4)))
    assert (len(clips), house.submissions) == (1, 1)


@pytest.mark.parametrize("by", ["request", "id"])
def test_a_run_whose_process_is_gone_is_carried_on(held_house, by):
    """What was sent is followed, what was not is sent: each once, whoever asked for it first."""
    first = held_house.session(max_in_flight=1)
    runs = [first.open(ask_for(request))[0] for request in boats(2)]
    until(lambda: runs[0].provider_run_id)
    first.close()
    assert [run.provider_run_id is None for run in kling.runs()] == [True, False]
    names = boats(2) if by == "request" else [run.id for run in runs]
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(kling.run_one, name) for name in names]
        until(lambda: held_house.submissions == 2)
        held_house.let_go()
        assert [clip.result(60).record.id for clip in asked] == [run.id for run in runs]
    assert held_house.submissions == 2


def test_a_run_that_ended_without_a_clip_says_so_again_and_is_not_sent_again(house):
    """A task that is run again after a failure gets the failure: to make it anew is for `submit` to say."""
    [request] = boats(1)
    house.faults(run_failed=1)
    with pytest.raises(kling.RunFailedError) as first:
        kling.run_one(request, provider="runflow")
    house.faults(run_failed=0)
    for asked in (request, first.value.run_id):
        with pytest.raises(kling.RunFailedError) as again:
            kling.run_one(asked)
        assert str(pickle.loads(pickle.dumps(again.value))) == str(first.value)
    assert house.submissions == 1
    assert kling.submit(request).wait(60).status == "succeeded"
    assert kling.run_one(request).record.attempt == 2
    assert house.submissions == 2


def test_what_would_send_twice_is_refused(house):
    """Nor is a prompt taken for the id of a run, or an option put on a run that is there."""
    [request] = boats(1)
    for options in ({"no_cache": True}, {"retry": True}):
        with pytest.raises(kling.UsageError, match="makes a request once"):
            kling.run_one(request, **options)
    with pytest.raises(kling.UsageError, match=r"There is no run 'A red fox'"):
        kling.run_one("A red fox")
    with pytest.raises(kling.UsageError, match=r"duration was given.*kling.TextToVideo"):
        kling.run_one("A red fox", duration=3)
    assert house.submissions == 0


def test_a_private_clip_is_pickled_without_its_words(house):
    """What a task gives back goes through other machines: they get the hash."""
    clip = kling.run_one(kling.TextToVideo(prompt="A secret boat", duration=3), private=True)
    pickled = pickle.dumps(clip)
    assert b"secret boat" not in pickled
    again = pickle.loads(pickled)
    assert (again.path, again.facts, again.record.id) == (clip.path, clip.facts, clip.record.id)


def test_a_clip_that_is_gone_is_fetched_again(house):
    """Asked for by its id on a machine that does not have it: fetched, and nothing sent."""
    clip = kling.run_one(boats(1)[0], provider="runflow")
    clip.path.unlink()
    assert kling.run_one(clip.record.id).sha256 == clip.sha256
    assert house.submissions == 1


FORKS = """
import os, time, warnings
import kling_nb as kling

warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of every fork beside threads
runs = [kling.submit(f"A fox, number {number}", duration=3, provider="runflow") for number in range(2)]
owls = kling.sweep(["A snowy owl"], duration=3, provider="runflow").start(confirm=True)
while not (runs[0].provider_run_id and len(owls.runs)):
    time.sleep(0.01)
child = os.fork()
if not child:
    try:
        print("forked", flush=True)
        print("child", *[run.wait(60).status for run in [*runs, *owls.wait(60).runs]], flush=True)
    finally:
        os._exit(0)
os.waitpid(child, 0)
print("parent", *[run.wait(60).status for run in [*runs, *owls.wait(60).runs]], flush=True)
"""


@in_both
def test_a_forked_child_waits_with_the_handles_of_its_parent(held_house):
    """One is sent, others in line or of a sweep: the parent carries them, and its child sees them end."""
    held_house.set(MAX_IN_FLIGHT=1)
    process = held_house.start("-c", FORKS)
    assert process.stdout.readline() == "forked\n"
    held_house.let_go()
    code, out, err = held_house.end(process, 90)
    assert code == 0, err
    ends = "succeeded succeeded succeeded"
    assert out.splitlines()[-2:] == [f"child {ends}", f"parent {ends}"], err
    assert held_house.submissions == 3
