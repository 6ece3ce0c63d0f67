"""The right to drive a run, claimed and kept in a transaction of its own."""


def claim(ledger, run_id, owner, ttl_s, *, unmoved=None):
    """Claim a run, as an engine does; whether it is the owner's."""
    with ledger.writing() as transaction:
        return transaction.claim(run_id, owner, ttl_s, unmoved=unmoved)


def renew(ledger, run_id, owner, ttl_s):
    """Renew a lease, as a heartbeat does; whether it is still the owner's."""
    with ledger.writing() as transaction:
        return transaction.renew([run_id], owner, ttl_s) == 1
