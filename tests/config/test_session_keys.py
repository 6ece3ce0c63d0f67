"""The keyring as sessions ask it: never while the ledger is locked, and never more than it must be."""

import sqlite3
import sys
import types
from contextlib import closing

import pytest

from support.sessions import ask
from support.stage import WIRES
from support.workbench import KEY, until


@pytest.fixture
def ring(monkeypatch):
    """A keyring that calls `asked` before it answers with the keys in `keys`."""
    ring, errors = types.ModuleType("keyring"), types.ModuleType("keyring.errors")
    errors.NoKeyringError = type("NoKeyringError", (RuntimeError,), {})
    ring.errors, ring.keys, ring.asked = errors, {}, lambda name: None

    def get_password(service, name):
        ring.asked(name)
        return ring.keys.get(name)

    ring.get_password = get_password
    monkeypatch.setitem(sys.modules, "keyring", ring)
    monkeypatch.setitem(sys.modules, "keyring.errors", errors)
    # On a busy machine two seconds are over before its thread has begun.
    monkeypatch.setattr("kling_nb.config.keys.KEYRING_LIMIT_S", 60)
    return ring


@pytest.fixture
def free(build, ring):
    """A house, and what was found each time the keyring was asked: whether another kernel could write."""
    house, found = build(held=True), []

    def asked(_):
        if not (house.folder / "ledger.db").exists():
            return
        # Longer than any write of a run on its way, shorter than a keyring is waited for.
        with closing(sqlite3.connect(house.folder / "ledger.db", timeout=20)) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                found.append(False)
            else:
                found.append(True)

    ring.asked = asked
    return house, found


@pytest.mark.parametrize("wire", WIRES)
def test_a_keyring_is_not_asked_while_the_ledger_is_locked(free, ring, wire):
    """A run that only the folder knows: while the keyring thinks, every other kernel can still write."""
    house, found = free
    session = house.session()
    [first] = session.open(ask(provider=wire))
    until(lambda: first.provider_run_id and first.provider_run_id in house.sidecar(first))
    session.close()
    house.let_go()
    house.forget_ledger()
    house.keys()
    again = house.session()
    again.ledger()
    # This one has the key in the keyring, and asks for it as late as ever.
    ring.keys = {wire: KEY}
    second = house.run(again, ask())
    assert (second.id, second.status) == (first.id, "succeeded")
    assert found
    assert all(found)
    assert house.submissions == 1


@pytest.mark.parametrize("wire", WIRES)
def test_a_clip_that_is_gone_asks_for_its_key_outside_the_ledger(free, ring, wire):
    """The same where the provider would be asked for the file of a finished run again."""
    house, found = free
    house.let_go()
    house.keys()
    ring.keys = {wire: KEY}
    first = house.run(house.session(), ask(provider=wire))
    first.path.unlink()
    again = house.run(house.session(), ask())
    assert (again.id, again.status, again.path.exists()) == (first.id, "succeeded", True)
    assert len(found) > 1
    assert all(found)
    assert house.submissions == 1
