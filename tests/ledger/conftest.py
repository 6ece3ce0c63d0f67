"""Every test of this folder that asks for a ledger has one in a file, and one in a PostgreSQL."""

import pytest

from support.databases import new_place


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request, tmp_path):
    """The place of a ledger of the test's own."""
    with new_place(request, tmp_path / "deep") as found:
        yield found


@pytest.fixture(autouse=True)
def _ledgers_once():
    """Each ledger is made here as a user's is."""
