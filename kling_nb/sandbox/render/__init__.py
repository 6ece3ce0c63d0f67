"""The pictures and films of the sandbox.

Read first: `clip.py`.
"""
