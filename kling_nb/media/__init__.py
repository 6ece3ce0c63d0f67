"""Clips on disk: the media folder, names, sidecars, what a file really is, and folders elsewhere.

Imports `records` and below; the engine and all above may import it. Read first: `folder.py`.
"""
