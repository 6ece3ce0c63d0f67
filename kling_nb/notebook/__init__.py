"""What needs IPython and widgets: magics, live cards, the form and the viewers.

Imports everything below; nothing imports it. Read first: `magics.py`, then `cell.py` and `line.py`.
"""
