"""Every test of this folder that asks for a ledger has one in a file, and one in a PostgreSQL."""

import os

import pytest

from support.databases import schema, server


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory):
    """The address of a database."""
    base = tmp_path_factory.getbasetemp()
    # The folder of a worker lies in one that all workers share.
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return server(base).get_uri()


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request, tmp_path):
    """The place of a ledger of the test's own."""
    if request.param == "sqlite":
        yield tmp_path / "deep" / "ledger.db"
        return
    with schema(request.getfixturevalue("postgresql")) as address:
        yield address
