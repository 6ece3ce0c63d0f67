"""The values of flags: numbers, money, JSON, and what must not be repeated.

Invariants: digits are ASCII and bounded, so that no value is slow, infinite or not a number; a word that may
be a key never reaches a message.
"""

import json
import keyword
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from decimal import Decimal
from typing import Any

from kling_nb.errors import UsageError, one_line
from kling_nb.records.secrets import looks_secret

__all__ = [
    "check_text",
    "identifier",
    "read_count",
    "read_json",
    "read_money",
    "read_number",
    "read_seconds",
    "read_tag",
    "repeating",
    "shown",
    "wrong",
]

_LONG_WORD = re.compile(r"(?=\S*\d)(?=\S*[A-Za-z])\S{24,}")
_muted: ContextVar[bool] = ContextVar("muted", default=False)
_NUMBER = re.compile(r"\d{1,9}(?:\.\d{0,6})?|\.\d{1,6}", re.ASCII)
_COUNT = re.compile(r"\d{1,6}", re.ASCII)


def wrong(what: str, cure: str = "See `%kling help`.") -> UsageError:
    """Make the error of a cell that cannot be read."""
    return UsageError(what, cure=f"Nothing was sent. {cure}")


def check_text(text: str, where: str) -> None:
    """Refuse text that holds a key, or that cannot be written down.

    Args:
        text: Anything that would be sent or kept.
        where: What it is, for the message.

    Raises:
        UsageError: One of these; the message does not repeat it.
    """
    if looks_secret(text):
        raise wrong(
            f"There is what looks like a key in {where}.",
            "Notebooks are saved and shared: delete it, replace it at the provider if it was a real one, and "
            "set RUNFLOW_API_KEY or RUNCOMFY_API_TOKEN in the environment; see `%kling keys`.",
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise wrong(f"There is half a character (a lone surrogate) in {where}.", "Type it again.") from None


def identifier(text: str) -> str | None:
    """Give the variable that a word names, as Python itself would read it, or None.

    Example:
        >>> identifier("fox"), identifier("class")
        ('fox', None)
    """
    name = unicodedata.normalize("NFKC", text)
    return name if name.isidentifier() and not keyword.iskeyword(name) else None


@contextmanager
def repeating(line: str) -> Iterator[None]:
    """Let messages repeat what was typed, unless the line says that it is private.

    Args:
        line: Of a cell.

    Example:
        >>> with repeating("--private blurry hands"):
        ...     shown("blurry")
        'a word that is not shown'
    """
    mark = _muted.set("--private" in line.replace("_", "-").split())
    try:
        yield
    finally:
        _muted.reset(mark)


def shown(text: str, *, quote: bool = True) -> str:
    """Repeat what was typed, cut short; a word that may be a key, or is private, is not repeated.

    Args:
        text: Anything that was typed.
        quote: Whether to put it in quotes.

    Example:
        >>> shown("fox"), shown("0123456789abcdef0123456789abcdef")
        ("'fox'", 'a long word')
    """
    if _muted.get():
        return "a word that is not shown"
    if looks_secret(text) or _LONG_WORD.search(text):
        return "a long word"
    plain = one_line(text)
    short = plain if len(plain) <= 40 else plain[:39] + "…"
    return repr(short) if quote else short


def read_number(flag: str, value: str, *, high: int | None = None) -> Decimal:
    """Read a decimal number of at most nine digits before the point and six behind it.

    Args:
        flag: The flag, for the message.
        value: What was typed.
        high: The largest that is taken.

    Raises:
        UsageError: It is none, negative or too large.
    """
    bound = f" from 0 to {high}" if high is not None else ""
    if not _NUMBER.fullmatch(value) or (high is not None and Decimal(value) > high):
        raise wrong(f"{flag} takes a number{bound}, not {shown(value)}.")
    return Decimal(value)


def read_money(flag: str, value: str, *, zero: bool = True) -> Decimal:
    """Read dollars, with or without the sign.

    Args:
        flag: The flag, for the message.
        value: What was typed.
        zero: Whether nothing is a sensible amount.

    Raises:
        UsageError: It is no amount.

    Example:
        >>> read_money("--max-cost", "$2.50")
        Decimal('2.50')
    """
    digits = value.removeprefix("$")
    amount = Decimal(digits) if _NUMBER.fullmatch(digits) else None
    if amount is None or (not amount and not zero):
        raise wrong(
            f"{flag} takes dollars{'' if zero else ' above 0'}, at most six decimals, not {shown(value)}.",
            f"For example {flag} 2.50.",
        )
    return amount


def read_count(flag: str, value: str, *, low: int, high: int, unit: str = "") -> int:
    """Read a whole number.

    Args:
        flag: The flag, for the message.
        value: What was typed.
        low: The smallest that is taken.
        high: The largest that is taken.
        unit: What it counts, for the message.

    Raises:
        UsageError: It is none, or out of range.
    """
    if not _COUNT.fullmatch(value) or not low <= int(value) <= high:
        which = f"of {unit}" if unit else f"from {low} to {high}"
        raise wrong(f"{flag} takes a whole number {which}, not {shown(value)}.")
    return int(value)


def read_tag(value: str) -> dict[str, str]:
    """Read one label by which runs are chosen, e.g. `suite=vbench`.

    Args:
        value: What was typed.

    Raises:
        UsageError: It has no name or no value.
    """
    key, sign, label = value.partition("=")
    if not key or not sign:
        raise wrong("--tag needs a name and a value.", "E.g. `--tag scene=3`.")
    return {key: label}


def read_seconds(flag: str, value: str) -> float:
    """Read a span in seconds, more than none; `90` and `90s` are the same.

    Args:
        flag: The flag, for the message.
        value: What was typed.

    Raises:
        UsageError: It is none.
    """
    digits = value.removesuffix("s")
    if not _NUMBER.fullmatch(digits) or not Decimal(digits):
        raise wrong(f"{flag} takes seconds, more than 0, not {shown(value)}.")
    return float(digits)


def read_json(flag: str, value: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        flag: The flag, for the message.
        value: What was typed.

    Raises:
        UsageError: It is none, or names a key twice.
    """
    try:
        data = json.loads(value, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise wrong(
            f"{flag} takes a JSON object, and this is not one.",
            f"Put it in single quotes, e.g. {flag} '{{\"name\": 1}}', or name a dict: {flag} $name.",
        )
    return data


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a key stands there twice")
    return data


def _no_constant(word: str) -> Any:
    raise ValueError(word)
