"""The switches of the sandbox: which faults there are, and whether one happens now.

Read first: `switches.py`.
"""
