"""Sums of the ledger that only tests ask for."""


def committed(transaction, **which):
    """What is spent or held back, in micro-dollars; the arguments are those of `Transaction.sums`."""
    sums = transaction.sums(**which)
    return sums.settled_micros + sums.reserved_micros
