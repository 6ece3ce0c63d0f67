"""How a `%%kling` cell and a `%kling` line are read.

Read first: `cell.py`, and `flags.py` for the one table of flags.
"""
