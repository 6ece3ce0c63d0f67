"""What was spent: sums of runs, the cost report, and a second look at charges.

Imports `session` and below; `commands` and the faces may import it. Read first: `sums.py`.
"""
