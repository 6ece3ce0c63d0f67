"""Sweeps: a grid of prompts, settings, providers and takes as one object.

`sweep.py` is the object and the place to begin; a grid comes from `prompts.py` and `grid.py`, is priced by
`quote.py` and sent by `feed.py`; `progress.py` and `results.py` say what became of it.
Faces and commands import from here; nothing below does.
"""
