"""A ledger that others write to for longer than it is waited for: the run goes on when they are done."""

import sqlite3
import threading
from contextlib import closing

import pytest

from support.stage import WIRES, Stage


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("step", ["answer read", "end read"])
def test_a_ledger_that_is_locked_for_a_moment_stops_no_run(tmp_path, monkeypatch, wire, step):
    """Every commit of a run's state is tried again, and not only that of its id and of its end."""
    # SQLite says at once that it is locked, as it does after half a minute otherwise.
    monkeypatch.setattr("kling_nb.ledger.databases.sqlite._LIMIT_S", 0)
    stage = Stage(tmp_path, wire)
    where = tmp_path / "ledger.db"
    with closing(sqlite3.connect(where, isolation_level=None, check_same_thread=False)) as other:
        locked = []

        def checkpoint(passed):
            if passed == step and not locked:
                other.execute("BEGIN IMMEDIATE")
                locked.append(threading.Timer(0.3, other.execute, ["ROLLBACK"]))
                locked[0].start()

        stage.engine.checkpoint = checkpoint
        try:
            run = stage.go()
            assert (run.status, run.error) == ("succeeded", None)
        finally:
            for timer in locked:
                timer.join()
            stage.close()
        assert len(locked) == 1
