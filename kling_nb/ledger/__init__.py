"""The run ledger: what was asked, what became of it and what it cost, on disk before anything is sent.

Imports `records` and below; the engine and all above may import it. Read first: `database.py`.
"""
