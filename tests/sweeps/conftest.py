"""A provider next door for sweeps, and kernels that follow each other."""

import pytest

from kling_nb.session import api


@pytest.fixture
def house(build, monkeypatch):
    """Both providers next door, and a budget."""
    made = build()
    made.set(BUDGET=100)
    monkeypatch.setattr(api, "_session", None)
    return made


@pytest.fixture
def enter(house, monkeypatch):
    """A factory of kernels on one ledger: the calls of the package go to the newest."""

    def start(**options):
        monkeypatch.setattr(api, "_session", house.session(**options))
        return api._session

    return start
