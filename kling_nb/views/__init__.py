"""What a run looks like: HTML and text of cards, receipts and tables, and the words in them.

Pure functions of records; nothing here knows IPython. Imports `pricing` and below. Read first: `card.py`,
then `words.py`.
"""
