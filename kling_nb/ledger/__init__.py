"""The run ledger: what was asked, what became of it and what it cost, on disk before anything is sent."""

from kling_nb.ledger.database import LeaseLostError, Ledger
from kling_nb.ledger.transaction import Transaction

__all__ = ["LeaseLostError", "Ledger", "Transaction"]
