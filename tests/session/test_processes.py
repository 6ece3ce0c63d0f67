"""Errors and runs cross processes, and a worker of a pool loses nothing."""

import importlib
import inspect
import pickle
import pkgutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

import kling_nb as kling
from kling_nb.errors import KlingError
from kling_nb.session import api
from support.workbench import houses

IDS = {"run_id": "kbcdfghj", "provider": "runflow", "provider_run_id": "0192"}


@pytest.fixture
def house(tmp_path, monkeypatch):
    """Both wires, and the one session of this process."""
    for made in houses(tmp_path, monkeypatch):
        house = made()
        house.set(BUDGET="5.00")
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


def test_a_pool_of_spawned_processes_submits(house):
    """`submit` in a worker returns once the provider's id is on disk; the handle waits for the clip."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        runs = list(pool.map(kling.submit, ["A red fox", "A grey hare"]))
    assert all(run.provider_run_id for run in runs)
    assert house.submissions == 2
    assert [run.wait(90).status for run in runs] == ["succeeded", "succeeded"]
    assert house.submissions == 2
