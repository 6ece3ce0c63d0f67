"""The bill of a notebook before it is run.

Read first: `bill.py`.
"""
