"""What it takes to ask about runs is found once for all that ask at one moment, and by nobody for another."""

import asyncio
import threading

import pytest

from kling_nb.engine.polling.lookup import Access, Accesses
from kling_nb.errors import SettingsError
from kling_nb.providers import make_provider
from support.clips import make_record


class Finding:
    """Finds an access on a thread, once everybody has asked; notes for which run."""

    def __init__(self, *, refused=False):
        self.refused, self.sought, self.go = refused, [], threading.Event()

    def __call__(self, record):
        self.sought.append(record.id)
        assert self.go.wait(30)
        if self.refused:
            raise SettingsError(f"no key for {record.id}")
        return Access(provider=make_provider(record.provider), account=record.account)


def together(find, records):
    """Ask for all runs at one moment, and give what each of them gets."""

    async def ask():
        accesses = Accesses(find)
        asked = [asyncio.ensure_future(accesses.of(record)) for record in records]
        await asyncio.sleep(0)  # each has begun to ask
        find.go.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        return accesses, found

    return asyncio.run(ask())


def runs(*accounts, **changes):
    return [make_record(id=f"kl{n:04d}", account=one, **changes) for n, one in enumerate(accounts)]


def test_runs_that_ask_at_one_moment_share_what_is_found():
    """One look at settings and keys serves all runs of an account, and each account has its own."""
    find = Finding()
    _, found = together(find, runs("a", "a", "b", "a", "b"))
    assert find.sought == ["kl0000", "kl0002"]
    assert [one.account for one in found] == ["a", "a", "b", "a", "b"]
    assert found[0] is found[1] is found[3]


@pytest.mark.parametrize("other", [{"provider": "runcomfy"}, {"origin": "https://127.0.0.2"}])
def test_another_provider_or_address_is_looked_for_apart(other):
    """A key is found for the very address that a run went to."""
    find = Finding()
    one, two = runs("a", "a")
    together(find, [one, two.model_copy(update=other)])
    assert sorted(find.sought) == [one.id, two.id]


def test_runs_of_the_sandbox_share_nothing():
    """Each sandbox ends with its kernel, so that each run finds its own."""
    find = Finding()
    together(find, runs("", "", play=True))
    assert sorted(find.sought) == ["kl0000", "kl0001"]


def test_why_there_is_none_is_told_of_the_run_that_asks():
    """An error has the words of the run that it is told of, never those of another one."""
    find = Finding(refused=True)
    _, found = together(find, runs("a", "a"))
    assert [one.what for one in found] == ["no key for kl0000", "no key for kl0001"]


def test_who_asks_later_gets_what_is_so_then():
    """Nothing is kept: settings and keys that changed count at once."""
    find = Finding()
    accesses, _ = together(find, runs("a"))
    asyncio.run(accesses.of(make_record(id="kl9999", account="a")))
    assert find.sought == ["kl0000", "kl9999"]


def test_one_who_stops_waiting_takes_nothing_from_the_others():
    """A run whose driver is canceled while it waits leaves the look to the other runs."""

    async def ask():
        find = Finding()
        accesses = Accesses(find)
        first, second = (asyncio.ensure_future(accesses.of(record)) for record in runs("a", "a"))
        await asyncio.sleep(0)
        first.cancel()
        find.go.set()
        return find, await second

    find, access = asyncio.run(ask())
    assert (find.sought, access.account) == (["kl0000"], "a")
