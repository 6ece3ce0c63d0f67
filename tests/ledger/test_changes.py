"""Who waits for what others change is called, and nothing is open while nobody waits."""

import asyncio
from contextlib import ExitStack

import pytest

from kling_nb.ledger.database import Ledger
from kling_nb.ledger.databases import changes
from kling_nb.ledger.databases.changes import Changes
from kling_nb.ledger.places import Seeker, look, place_key, take
from kling_nb.records.run import RunStatus
from support.clips import make_record
from support.databases import in_postgresql, spoil
from support.databases import look as rows
from support.leases import claim, renew
from support.workbench import until

ACCOUNT = place_key(make_record())


class Waiter:
    """Counts how often it was called."""

    def __init__(self):
        self.calls, self._called = 0, asyncio.Event()

    def __call__(self):
        self.calls += 1
        self._called.set()

    async def called(self):
        async with asyncio.timeout(60):
            await self._called.wait()
        self._called.clear()


def test_who_waits_is_called_once_it_is_told_and_at_each_change():
    """Also who comes later; not for others' names, and not after the waiting. Looks are rarer meanwhile."""

    async def main():
        names, ended = asyncio.Queue(), asyncio.Event()

        async def listen():
            try:
                while (name := await names.get()) is not None:
                    yield name
            finally:
                ended.set()

        told = Changes(listen)
        with told.watched("a", first := Waiter()):
            assert told.look_s(1.0) == 1.0
            names.put_nowait("")
            await first.called()
            assert (told.look_s(1.0), told.look_s(1.0, 2.5), told.look_s(60)) == (5.0, 2.5, 60)
            with told.watched("b", second := Waiter()):
                await second.called()
                names.put_nowait("a")
                await first.called()
                assert (first.calls, second.calls) == (2, 1)
            names.put_nowait("b")
            # The connection ends: looks are as often as before.
            names.put_nowait(None)
            await ended.wait()
            assert (told.look_s(1.0), second.calls) == (1.0, 1)
        assert first.calls == 2

    asyncio.run(main())


def test_a_file_tells_nobody(tmp_path):
    """Nothing is opened, and nothing is called."""

    async def main():
        ledger = Ledger(tmp_path / "ledger.db")
        with ledger.changes.watched("a", waiter := Waiter()):
            assert len(asyncio.all_tasks()) == 1
            assert (ledger.changes.look_s(1.0), waiter.calls) == (1.0, 0)
        ledger.close()

    asyncio.run(main())


def listeners(where):
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'who waits' AND query LIKE %s"
    return rows(where, query, "%LISTEN%")[0][0]


@in_postgresql
def test_postgresql_tells_of_runs_and_of_free_places(where, monkeypatch):
    """In the transaction that changes them, by one connection, which is made again when it is cut off."""
    monkeypatch.setattr(changes, "_AGAIN_S", 0)
    other = Ledger(where)
    with other.writing() as transaction:
        transaction.insert(make_record(id="k0000001"))
        transaction.claim("k0000001", "b", 30)
        take(transaction, "k0000001", Seeker(ACCOUNT, "b", 1), "")
        look(transaction, Seeker(ACCOUNT, "c", 1), [""])

    async def main():
        ledger = Ledger(f"{where}&application_name=who waits")
        with ExitStack() as waiting:
            run, account = Waiter(), Waiter()
            waiting.enter_context(ledger.changes.watched("k0000001", run))
            waiting.enter_context(ledger.changes.watched(ACCOUNT, account))
            await asyncio.gather(run.called(), account.called())
            # A heartbeat changes nothing that anybody waits for.
            assert renew(other, "k0000001", "b", 60)
            other.change_as("b", "k0000001", "read", status=RunStatus.QUEUED)
            await run.called()
            assert (run.calls, account.calls) == (2, 1)
            with other.writing() as transaction:
                look(transaction, Seeker(ACCOUNT, "c", 1), [])
            await account.called()
            other.release("k0000001", "b")
            await asyncio.gather(run.called(), account.called())
            assert listeners(where) == 1
            spoil(
                where,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
                "who waits",
            )
            await asyncio.gather(run.called(), account.called())
            assert listeners(where) == 1
        ledger.close()

    asyncio.run(main())
    until(lambda: listeners(where) == 0)
    other.close()


@pytest.mark.parametrize("ahead_s", [-86_400, 86_400])
@in_postgresql
def test_leases_are_judged_by_the_clock_of_the_server(where, monkeypatch, ahead_s):
    """A machine whose clock is a day wrong takes over nothing too early, and keeps what it has for no day."""
    from datetime import timedelta

    from kling_nb.ledger.databases import postgresql, statements
    from kling_nb.records.base import utc_now

    ledger = Ledger(where)
    with ledger.writing() as transaction:
        transaction.insert(make_record(id="k0000001"))
        assert transaction.claim("k0000001", "right", 30)
    for module in (postgresql, statements):
        monkeypatch.setattr(module, "utc_now", lambda: utc_now() + timedelta(seconds=ahead_s))
    wrong = Ledger(where)
    assert not claim(wrong, "k0000001", "wrong", 30)
    ledger.release("k0000001", "right")
    assert claim(wrong, "k0000001", "wrong", -1)
    monkeypatch.undo()
    assert claim(ledger, "k0000001", "right", 30)
    ledger.close()
    wrong.close()
