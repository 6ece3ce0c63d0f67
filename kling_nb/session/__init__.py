"""One call from Python: settings, plan, admission, and the public functions.

Imports the engine and below; spending, exports, recovery, commands and the faces may import it. Read first:
`api.py`, then `session.py` and `admission.py`.
"""
