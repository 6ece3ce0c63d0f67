"""The one HTTP client: connections, downloads, and what a failure means for money.

Imports `pricing`, `providers` and below; the engine and all above may import it. Read first: `client.py`.
"""
