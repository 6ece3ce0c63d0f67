"""`%kling` and `kling-nb` without widgets: each command takes a call and returns an answer.

Imports everything below; only the faces `cli` and `notebook` may import it. Read first: `run_line.py`, then
`answer.py`.
"""
