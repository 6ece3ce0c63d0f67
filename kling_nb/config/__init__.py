"""Settings, keys, and where this process runs.

Imports `pricing` and below; the engine and all above may import it. Read first: `settings.py`.
"""
