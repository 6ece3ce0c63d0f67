"""Clips laid out for other tools, and one page of a notebook.

Imports `session`, `ratings` and below; `commands` and the faces may import it. Read first: `export.py`, then
`writer.py`.
"""
