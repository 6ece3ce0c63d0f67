"""Clips that are still to be taken to a team's store: a row each, written with the end of its run.

Invariants: a row goes when its clip is there, and for no other reason.
"""

from typing import TYPE_CHECKING

import sqlalchemy as sa

from kling_nb.ledger.databases.statements import run_statement
from kling_nb.ledger.databases.triggers import run_ddl

if TYPE_CHECKING:
    from kling_nb.ledger.transaction import Transaction

__all__ = ["add_uploads", "is_waiting", "note_upload", "uploaded", "waiting_uploads"]


def add_uploads(connection: sa.Connection) -> None:
    """Make the table."""
    run_ddl(
        connection,
        "CREATE TABLE uploads (run_id VARCHAR PRIMARY KEY NOT NULL, address VARCHAR NOT NULL) WITHOUT ROWID",
    )


def note_upload(transaction: "Transaction", run_id: str, address: str) -> None:
    """Note that the clip of a run belongs at an address."""
    query = "INSERT INTO uploads (run_id, address) VALUES (?, ?) ON CONFLICT (run_id) DO NOTHING"
    run_statement(transaction.connection, query, (run_id, address))


def uploaded(transaction: "Transaction", run_id: str) -> None:
    """Note that it is there."""
    run_statement(transaction.connection, "DELETE FROM uploads WHERE run_id = ?", (run_id,))


def is_waiting(transaction: "Transaction", run_id: str) -> bool:
    """Say whether the clip of a run is still to be taken somewhere."""
    query = "SELECT run_id FROM uploads WHERE run_id = ?"
    return run_statement(transaction.connection, query, (run_id,)).fetchone() is not None


def waiting_uploads(transaction: "Transaction", address: str) -> list[str]:
    """Name the runs whose clips are still to be taken to an address."""
    query = "SELECT run_id FROM uploads WHERE address = ? ORDER BY run_id"
    return [run_id for (run_id,) in run_statement(transaction.connection, query, (address,)).fetchall()]
