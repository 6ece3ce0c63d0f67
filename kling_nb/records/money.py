"""Amounts of money: whole micro-dollars inside, decimal dollars outside, words for people.

Invariants: no float; unknown is None and the word "unknown", never zero; what is no dollars never looks like
it.
"""

from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Literal

from kling_nb.records.base import Moment, Record

__all__ = [
    "MICROS",
    "Cap",
    "Estimate",
    "Level",
    "Totals",
    "currency",
    "dollars",
    "in_currency",
    "micros",
    "per_second",
    "plain_usd",
    "usd",
    "usd_of",
]

MICROS = 1_000_000
_EXACT = Context(prec=1000)


def micros(amount: Decimal) -> int:
    """Turn dollars into whole micro-dollars, half to even.

    Args:
        amount: Dollars.

    Returns:
        Micro-dollars.

    Example:
        >>> micros(Decimal("0.56"))
        560000
    """
    # With the usual 28 digits a longer amount would be rounded twice.
    return int(_EXACT.multiply(amount, MICROS).to_integral_value(rounding=ROUND_HALF_EVEN))


def dollars(amount: int | None) -> Decimal | None:
    """Turn micro-dollars into dollars; unknown stays unknown.

    Args:
        amount: Micro-dollars, or None for unknown.

    Returns:
        Dollars, or None.

    Example:
        >>> dollars(560000)
        Decimal('0.56')
    """
    return None if amount is None else _cents(Decimal(amount) / MICROS)


def _cents(exact: Decimal) -> Decimal:
    """Give two decimals, and more only where they are not zero."""
    whole = exact.quantize(Decimal("0.01"), context=_EXACT)
    return whole if whole == exact else exact.normalize(_EXACT)


def usd(amount: int | None) -> str:
    """Write micro-dollars for people: exact, with two decimals unless a third is not zero, or `unknown`.

    Args:
        amount: Micro-dollars, or None for unknown.

    Returns:
        e.g. `$0.56`, `$0.0042` or `unknown`.

    Example:
        >>> usd(500000), usd(4200), usd(None)
        ('$0.50', '$0.0042', 'unknown')
    """
    exact = dollars(amount)
    return "unknown" if exact is None else usd_of(exact)


def usd_of(exact: Decimal | str) -> str:
    """Write dollars for people, as `usd` does.

    Args:
        exact: Dollars, or their decimal text.

    Example:
        >>> usd_of("0.1")
        '$0.10'
    """
    cents = _cents(Decimal(exact))
    return f"-${-cents:f}" if cents < 0 else f"${cents:f}"


def per_second(price: Decimal) -> str:
    """Write a price per second of video for people.

    Args:
        price: Dollars per second.

    Example:
        >>> per_second(Decimal("0.112"))
        '$0.112/s'
    """
    return f"{usd_of(price)}/s"


def plain_usd(amount: int | None) -> str | None:
    """Write micro-dollars for programs, as decimal text; None for unknown.

    Args:
        amount: Micro-dollars, or None for unknown.

    Example:
        >>> plain_usd(560000), plain_usd(None)
        ('0.56', None)
    """
    exact = dollars(amount)
    return None if exact is None else f"{exact:f}"


def in_currency(amount: int | None, currency: str) -> str:
    """Write an amount in its own currency: dollars as `usd` does, others with their code.

    Args:
        amount: Millionths of a unit, or None for unknown.
        currency: ISO 4217, and `XXX` for one that nobody knows.

    Returns:
        e.g. `$0.56` or `0.52 EUR`.

    Example:
        >>> in_currency(520000, "EUR"), in_currency(560000, "USD")
        ('0.52 EUR', '$0.56')
    """
    exact = dollars(amount)
    if exact is None or currency == "USD":
        return usd(amount)
    return f"{exact:f} {'of an unknown currency' if currency == 'XXX' else currency}"


def currency(value: object) -> str:
    """Give the currency of a charge; neither contract has such a field, so its absence means dollars.

    Args:
        value: What the answer says.

    Returns:
        ISO 4217, and `XXX` for what is no currency: then nobody may take the figure for dollars.

    Example:
        >>> currency(None), currency("eur"), currency("credits")
        ('USD', 'EUR', 'XXX')
    """
    if value is None:
        return "USD"
    text = value.strip().upper() if isinstance(value, str) else ""
    return text if len(text) == 3 and text.isascii() and text.isalpha() else "XXX"


Level = Literal["session", "project_daily", "user_daily", "user_total", "team_daily", "team_total"]


class Estimate(Record):
    """What a run should cost, and how anybody knows.

    Args:
        micros: The expected charge in micro-dollars, or None where nobody knows.
        reserve_micros: What is reserved for it: the charge, or the highest known price of the model.
        usd_per_s: The price per second of video, as a decimal string, if known.
        basis: In words, e.g. `$0.112/s silent, Runflow list of 2026-04-06`.
        source: Where the price stands.
        as_of: The date of the price, `YYYY-MM-DD`.
        currency: ISO 4217.

    Example:
        >>> Estimate(micros=560000, reserve_micros=560000, basis="list").usd
        Decimal('0.56')
    """

    micros: int | None
    reserve_micros: int
    usd_per_s: str | None = None
    basis: str = ""
    source: str = ""
    as_of: str | None = None
    currency: str = "USD"

    @property
    def usd(self) -> Decimal | None:
        """The expected charge in dollars, or None for unknown."""
        return dollars(self.micros)

    def __repr__(self) -> str:
        amount = f"unknown, {usd(self.reserve_micros)} reserved" if self.micros is None else usd(self.micros)
        return f"{amount}: {self.basis}"


class Cap(Record):
    """One limit on money, and what counts against it.

    Args:
        level: Whose limit it is.
        whose: The name of that session, project or user; empty for the team.
        cap_micros: What may be spent, in micro-dollars; None for no limit.
        settled_micros: On the books, in micro-dollars.
        reserved_micros: Reserved for runs that are not settled, in micro-dollars.
        unknown: How many ended runs have a charge nobody knows.
        since: Only runs made at or after it count; None for all.

    Example:
        >>> Cap(level="session", cap_micros=5000000, settled_micros=560000).left_micros
        4440000
    """

    level: Level
    whose: str = ""
    cap_micros: int | None = None
    settled_micros: int = 0
    reserved_micros: int = 0
    unknown: int = 0
    since: Moment | None = None

    @property
    def left_micros(self) -> int | None:
        """What may still be spent, in micro-dollars; below 0 where it is overrun, None without a limit."""
        return (
            None if self.cap_micros is None else self.cap_micros - self.settled_micros - self.reserved_micros
        )


class Totals(Record):
    """What a session has spent, has reserved and may spend.

    Args:
        settled_micros: On the books, in micro-dollars.
        reserved_micros: Reserved for runs that are not settled, in micro-dollars.
        unknown: How many ended runs have a charge nobody knows (their reservation is in `reserved_micros`).
        cap_micros: The cap of the session, or None for none.
        play: Whether this is the sandbox's play money.
        tightest: The cap that leaves least, where another one than the session's may.

    Example:
        >>> Totals(settled_micros=1120000, reserved_micros=560000, cap_micros=10000000).left_micros
        8320000
    """

    settled_micros: int = 0
    reserved_micros: int = 0
    unknown: int = 0
    cap_micros: int | None = None
    play: bool = False
    tightest: Cap | None = None

    @property
    def left_micros(self) -> int | None:
        """What may still be spent under every cap, in micro-dollars; None where there is no cap."""
        if self.tightest is not None:
            return self.tightest.left_micros
        return (
            None if self.cap_micros is None else self.cap_micros - self.settled_micros - self.reserved_micros
        )
