"""What several people or machines share: callbacks of a provider.

Imports `session` and below; `commands` and the faces may import it. Read first: `callbacks.py`.
"""
