"""The writer: what waits is written together, answered when it is committed, and refused one by one."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace

import pytest
import sqlalchemy as sa

from kling_nb.errors import LedgerError
from kling_nb.ledger.database import LeaseLostError, Ledger
from kling_nb.records.run import RunStatus
from support.clips import make_record
from support.databases import in_a_file, is_postgresql, look
from support.stage import QUICK, Stage
from support.warm import run_process

MANY = 50


@pytest.fixture
def ledger(where):
    made = Ledger(where)
    with made.writing() as transaction:
        for number in range(MANY):
            transaction.insert(make_record(id=f"k{number:07d}", take=number))
            transaction.claim(f"k{number:07d}", "me", 30)
    yield made
    made.close()


#: What a transaction of PostgreSQL has changed, and whether its commit will be synced.
CHANGED = """SELECT
    (SELECT count(*) FROM runs WHERE xmin::text::bigint >= pg_current_xact_id()::text::bigint),
    current_setting('synchronous_commit')"""


class Commits(list):
    """Commits that changed something: whether each was synced, and on which thread it was."""

    def __init__(self, ledger):
        super().__init__()
        with ledger.reading() as transaction:
            raw = transaction.connection.connection.driver_connection
        self._file = isinstance(raw, sqlite3.Connection)
        self._written = {raw: raw.total_changes} if self._file else {}
        sa.event.listen(ledger._engine, "commit", self._note)

    def _note(self, connection):
        raw = connection.connection.driver_connection
        if not self._file:
            changed, synced = raw.execute(CHANGED).fetchone()
            if changed:
                self.append((synced == "on", threading.current_thread().name))
            return
        before, self._written[raw] = self._written.get(raw, 0), raw.total_changes
        if raw.total_changes > before:
            synced = raw.execute("PRAGMA synchronous").fetchone() == (2,)
            self.append((synced, threading.current_thread().name))

    @property
    def synced(self):
        return sum(synced for synced, _ in self)


def submitting(number, owner="me"):
    return lambda transaction: transaction.change_as(
        owner, f"k{number:07d}", "submitting", {"status": RunStatus.SUBMITTING}, at=RunStatus.CREATED
    )


def statuses(where):
    return [status for (status,) in look(where, "SELECT status FROM runs ORDER BY id")]


async def held_up(ledger, asks):
    """Have everything asked for while somebody else writes; gives what each ask came to."""
    with ledger.writing():
        waiting = [ledger.writer.ask(work) for work in asks]
        await asyncio.sleep(0)
    return await asyncio.gather(*waiting, return_exceptions=True)


def test_what_waits_is_one_commit_and_a_refusal_refuses_itself_alone(ledger, where):
    """Fifty asks, one of a stranger, one that breaks the database's own rule: two commits, and 48 changes."""

    def twice(transaction):
        transaction.insert(make_record(id="ktwice", take=0))

    commits = Commits(ledger)
    asks = [submitting(number) for number in range(MANY - 2)]
    asks[7:7] = [submitting(48, owner="a stranger"), twice]
    ends = asyncio.run(held_up(ledger, asks))
    # One may have been taken before the others came.
    assert commits.synced == len(commits) <= 2
    assert {name for _, name in commits} == {"kling_nb writer"}
    errors = [(place, end) for place, end in enumerate(ends) if isinstance(end, Exception)]
    assert [place for place, _ in errors] == [7, 8]
    assert isinstance(errors[0][1], LeaseLostError)
    assert isinstance(errors[1][1], LedgerError)
    assert "unique" in str(errors[1][1]).lower()
    assert statuses(where) == ["submitting"] * 48 + ["created"] * 2
    assert ledger.mend_sums() == 0


@in_a_file
def test_a_batch_that_cannot_be_committed_is_refused_to_everybody(ledger, where, monkeypatch):
    """No lock, or no room: each gets an error of his own, nothing is half written, and the next one works."""
    monkeypatch.setattr("kling_nb.ledger.databases.sqlite._LIMIT_S", 0)
    ledger._engine.dispose()

    async def locked():
        with closing(sqlite3.connect(where, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = [ledger.writer.ask(submitting(number)) for number in range(9)]
            refused = await asyncio.gather(*waiting, return_exceptions=True)
            other.execute("ROLLBACK")
        return refused, await ledger.writer.ask(submitting(9))

    refused, record = asyncio.run(locked())
    assert {str(error) for error in refused} == {str(refused[0])}
    assert "locked" in str(refused[0])
    assert len({id(error) for error in refused}) == 9
    assert record.status is RunStatus.SUBMITTING
    assert statuses(where).count("submitting") == 1


def test_what_needs_no_sync_rides_along_or_is_not_synced(ledger, where):
    """Readings alone are committed without a sync; beside a paid step they cost nothing more."""
    commits = Commits(ledger)

    async def work():
        await ledger.writer.ask(lambda transaction: transaction.release("k0000000", "me"), synced=False)
        alone = list(commits)
        await held_up(ledger, [submitting(1)])
        return alone

    [(synced, _)] = asyncio.run(work())
    assert synced is False
    assert all(synced for synced, _ in commits[1:])
    if not is_postgresql(where):
        with ledger._engine.connect() as connection:
            assert connection.scalar(sa.text("PRAGMA synchronous")) == 2


def test_who_is_canceled_before_his_turn_writes_nothing(ledger, where):
    """A task that is gone wants no `submitting` that nobody would follow up."""

    async def canceled():
        with ledger.writing():
            asks = [ledger.writer.ask(submitting(number)) for number in range(3)]
            asks[2].cancel()
        await asyncio.gather(*asks[:2])

    asyncio.run(canceled())
    assert statuses(where)[:3] == ["submitting", "submitting", "created"]


DIES = """
import asyncio, os, signal, sys
from kling_nb.ledger.database import Ledger
from kling_nb.records.run import RunStatus

ledger, step, nth = Ledger(sys.argv[1]), sys.argv[2], int(sys.argv[3])
passed = []

def checkpoint(name):
    passed.append(name)
    if passed.count(step) == nth:
        os.kill(os.getpid(), signal.SIGKILL)

ledger.writer.checkpoint = checkpoint

def submitting(number):
    return lambda transaction: transaction.change_as(
        "me", f"k{number:07d}", "submitting", {"status": RunStatus.SUBMITTING}, at=RunStatus.CREATED)

async def ask():
    # Held, so that all of them are there before the first is taken.
    with ledger.writer._changed:
        asks = [ledger.writer.ask(submitting(number)) for number in range(1, 10)]
    for answered in asks:
        await answered
        print("answered", flush=True)

asyncio.run(ask())
"""


@pytest.mark.parametrize(("step", "nth"), [("batch half written", 5), ("batch in the ledger", 1)])
def test_a_kill_in_a_batch_leaves_it_whole_or_not_at_all(ledger, where, step, nth):
    """Half of it written: nothing is there. Committed: all is there, and nobody was told before."""
    ended = run_process([sys.executable, "-c", DIES, str(where), step, str(nth)])
    assert (ended.returncode, ended.stderr) == (-signal.SIGKILL, "")
    assert statuses(where).count("submitting") == (0 if step == "batch half written" else 9)
    assert ended.stdout == ""
    assert ledger.mend_sums() == 0


@pytest.mark.parametrize(("many", "most"), [(20, 4), pytest.param(200, 2, marks=pytest.mark.matrix)])
def test_many_runs_at_once_cost_at_most_two_synced_commits_each(tmp_path, many, most):
    """From intent to bill: of a few runs fewer than their six steps, and none of them on the loop."""
    stage = Stage(tmp_path, "runflow", limits=replace(QUICK, lease_s=30, submit_s=300, watch_s=300))
    try:
        stage.engine.max_in_flight = many
        commits = Commits(stage.ledger)
        records = [stage.record(negative_prompt=f"number {number}") for number in range(many)]
        runs = [stage.engine.handle(record) for record in records]
        assert {run.wait(300).status for run in runs} == {RunStatus.SUCCEEDED}
        assert commits.synced <= most * many
        assert {name for _, name in commits} == {"kling_nb writer", threading.current_thread().name}
    finally:
        stage.close()


FORKS = """
import asyncio, os, sys
from kling_nb.ledger.database import Ledger

ledger = Ledger(sys.argv[1])

def release(number):
    async def ask():
        await ledger.writer.ask(lambda transaction: transaction.release(f"k{number:07d}", "me"))
    asyncio.run(ask())

release(0)
child = os.fork()
release(2 if child else 1)
if not child:
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_has_a_writer_of_its_own(ledger, where):
    """The parent's thread is not there: the child writes all the same, and so does the parent."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS, str(where)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout, ended.stderr) == ("0\n", "")
    with ledger.reading() as transaction:
        assert [transaction.owner(f"k{number:07d}") for number in range(4)] == [None, None, None, "me"]
