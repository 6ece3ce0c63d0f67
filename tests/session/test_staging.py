"""A notebook that was run as a copy in a folder that is deleted later, as jupyter-scheduler does."""

import shutil

import pytest

from kling_nb.config.environment import Surroundings
from kling_nb.errors import StoreError
from kling_nb.session.session import Session
from support.matrix import ONE_WIRE
from support.sessions import ask
from support.stage import QUICK
from support.workbench import houses


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A ledger and both providers next door; clips go beside each notebook."""
    made = houses(tmp_path, monkeypatch)
    built = next(made)()
    built.unset("MEDIA")
    yield built
    made.close()


def session_at(house, folder):
    """A session of a notebook in this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    where = Surroundings(notebook=folder / "a.ipynb", folder=folder)
    session = Session(surroundings=lambda: where, engine_options={"limits": QUICK})
    house.made.append(session)
    return session


@pytest.mark.parametrize("wire", ONE_WIRE)
def test_run_all_at_home_buys_nothing_again(house, wire):
    """The clip comes to the notebook at home, and the dead folder stays dead."""
    stage, home = house.folder / "scheduler_staging_area" / "job", house.folder / "home"
    there = house.run(session_at(house, stage), ask(prompt="A red fox", provider=wire))
    shutil.rmtree(stage.parent)
    here = house.run(session_at(house, home), ask(prompt="A red fox", provider=wire))
    assert (here.id, here.status) == (there.id, "succeeded")
    assert here.path.parent == home / "kling_media"
    assert here.path.is_file()
    assert not stage.exists()
    shutil.rmtree(home)
    house.faults(retention_s=1e-6)
    gone = house.run(session_at(house, home), ask(prompt="A red fox", provider=wire))
    assert isinstance(gone.error, StoreError)
    assert there.record.media.file in str(gone.error)
    assert "KLING_NB_MEDIA" in str(gone.error)
    assert house.submissions == 1
