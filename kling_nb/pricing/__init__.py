"""What a clip should cost: the catalog, the estimate, and prices and models from files of the user.

Imports `records` and below; the doors, the engine and all above may import it. Read first: `catalog.py`,
then `estimate.py`.
"""
