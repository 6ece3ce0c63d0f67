"""Getting runs and clips back: adopt, resolve, restore, verify.

Imports `session` and below; `commands` and the faces may import it. Read first: `resolve.py`.
"""
