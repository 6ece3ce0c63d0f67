"""A notebook saved with receipts in it."""

import nbformat

from kling_nb.records.receipt import to_receipt, to_receipts
from kling_nb.records.receipt_model import RECEIPT_MIME
from support.kernels import notebook


def save(path, *records, together=False):
    """Write a notebook whose outputs carry these receipts."""
    made = notebook("%%kling\na fox")
    many = [to_receipts(records)] if together else [to_receipt(record) for record in records]
    for receipt in many:
        data = {"text/plain": "a card", RECEIPT_MIME: receipt}
        made.cells[0].outputs.append(nbformat.v4.new_output("display_data", data))
    nbformat.write(made, str(path))
    return path


def words(found):
    return [one.word for one in found]
