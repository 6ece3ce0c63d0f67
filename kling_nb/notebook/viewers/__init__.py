"""Live views of clips: comparison, gallery, player, ballot; each with its script and style beside it.

Read first: `compare.py`. `shared/` holds what several scripts use.
"""
