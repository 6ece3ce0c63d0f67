"""Votes on pairs of clips and the scores they come to.

Imports the engine and below; `exports` and the faces may import it. Read first: `ratings.py`.
"""
