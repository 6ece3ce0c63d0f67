"""The life of a run: intent, submit, watch, save, settle; and the handle a caller holds.

Imports the doors (`config`, `ledger`, `media`, `views`, `network`) and below; `session` and all above may
import it. Read first: `engine.py`, then `driver.py`, `submit.py`, `watch.py`, `clips/save.py`.
"""
