"""A ledger in a file on a network file system is for one machine at a time."""

import socket

import pytest

from kling_nb.errors import LedgerError
from kling_nb.ledger.database import Ledger
from kling_nb.ledger.databases import file_systems
from support.clips import make_record


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """Have the folder of the tests be of a kind of file system, as Linux's table of mounts tells it."""

    def as_kind(kind):
        table = tmp_path / "mountinfo"
        table.write_text(f"36 35 98:0 / {tmp_path} rw - {kind} server:/export rw\n")
        monkeypatch.setattr(file_systems, "MOUNTS", table)
        return tmp_path / "ledger.db"

    return as_kind


@pytest.mark.parametrize(("kind", "refused"), [("nfs4", True), ("ext4", False)])
def test_a_file_that_another_machine_uses_is_refused(mounted, kind, refused):
    """While a kernel there drives a run; the words name the file, the machine and PostgreSQL."""
    path = mounted(kind)
    first = Ledger(path)
    run = make_record()
    with first.writing() as transaction:
        transaction.insert(run)
        assert transaction.claim(run.id, "elsewhere:123:abcd", 30)
    if refused:
        with pytest.raises(
            LedgerError, match=r"network file system \(nfs4\), and elsewhere uses it"
        ) as error:
            Ledger(path)
        assert str(path) in error.value.what
        assert "postgresql://" in error.value.cure
    else:
        Ledger(path).close()
    first.release(run.id, "elsewhere:123:abcd")
    Ledger(path).close()
    first.close()


def test_kernels_of_one_machine_share_it(mounted):
    """What this very machine drives is no reason to refuse it."""
    path = mounted("nfs4")
    first = Ledger(path)
    run = make_record()
    with first.writing() as transaction:
        transaction.insert(run)
        assert transaction.claim(run.id, f"{socket.gethostname()}:123:abcd", 30)
    second = Ledger(path)
    assert second.get(run.id).id == run.id
    second.close()
    first.close()
