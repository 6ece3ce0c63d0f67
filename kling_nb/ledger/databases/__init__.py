"""SQLite and PostgreSQL: how each keeps a ledger, and how one statement is understood by both.

Nothing above `ledger` imports this. Read first: `statements.py`.
"""
