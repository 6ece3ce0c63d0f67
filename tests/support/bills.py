"""What a provider has billed before."""

from datetime import date

from kling_nb.pricing.estimate import Bill


# -- prices learned from bills ---------------------------------------------------------
def bill(micros, seconds=5, day=20):
    """A bill of November 2026."""
    return Bill(micros=micros, seconds=seconds, day=date(2026, 11, day))
