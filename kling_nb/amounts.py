"""Amounts of money: whole micro-dollars inside, decimal dollars outside, words for people.

Invariants: no float; unknown is None and the word "unknown", never zero; what is no dollars never looks like
it.
"""

from decimal import ROUND_HALF_EVEN, Context, Decimal

__all__ = ["MICROS", "currency", "dollars", "in_currency", "micros", "usd"]

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
    if amount is None:
        return None
    exact = Decimal(amount) / MICROS
    return exact.quantize(Decimal("0.01")) if exact == exact.quantize(Decimal("0.01")) else exact.normalize()


def usd(amount: int | None) -> str:
    """Write micro-dollars for people, exactly; unknown is a word.

    Args:
        amount: Micro-dollars, or None for unknown.

    Returns:
        e.g. `$0.56`, `$0.0042` or `unknown`.

    Example:
        >>> usd(560000), usd(4200), usd(None)
        ('$0.56', '$0.0042', 'unknown')
    """
    exact = dollars(amount)
    if exact is None:
        return "unknown"
    return f"-${-exact:f}" if exact < 0 else f"${exact:f}"


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
