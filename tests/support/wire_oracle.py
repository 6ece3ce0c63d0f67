"""What an answer allows anybody to conclude: read by the contract, and by nothing of the adapters.

Every rule says when a verdict is allowed; whatever is not allowed is "nobody knows" or "still going".
"""

import json
import re
from fractions import Fraction
from urllib.parse import urljoin, urlsplit

REFUSING = {400, 401, 402, 403, 404, 409, 422, 429}
#: A figure beyond this many dollars for one clip is junk, and reading none is right too.
SENSIBLE = 1_000_000
LONG = 60


class Twice:
    """A name that was given two values: it says nothing."""


class Number(str):
    """A number as its digits stand."""

    __slots__ = ()


def _object(pairs):
    values = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    found = {}
    for name, told in values.items():
        # Null says nothing; of two other values, nobody can tell which is meant.
        said = [value for value in told if value is not None]
        found[name] = None if not said else said[0] if len({*map(repr, said)}) == 1 else Twice()
    return found


def read(body):
    """The object of an answer, with its numbers as they stand, or None."""
    numbers = {"parse_float": Number, "parse_int": Number, "parse_constant": Number}
    try:
        found = json.loads(body, object_pairs_hook=_object, **numbers)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def text(value):
    """A text, and not the digits of a number."""
    return value if isinstance(value, str) and not isinstance(value, Number) else None


def usable_id(value):
    """An id that may stand in an address."""
    found = text(value)
    return found if found is not None and re.fullmatch(r"[A-Za-z0-9_-]{1,128}", found, re.ASCII) else None


def amount(value):
    """Dollars as a fraction, where they are finite and not negative; else None."""
    if not isinstance(value, str):
        return None
    try:
        found = Fraction(value.strip()) if len(value) <= LONG and abs(_exponent(value)) < 400 else None
    except (ValueError, ZeroDivisionError):
        return None
    return None if found is None or found < 0 or "/" in value or "_" in value else found


def _exponent(value):
    found = re.search(r"[eE]([+-]?\d+)$", value)
    return int(found[1]) if found else 0


def state(answer):
    """The word for where the run is: the first of the fields that clients of the two providers read."""
    said = (text(answer.get(name)) for name in ("status_code", "status", "state"))
    words = (re.sub(r"[\s-]+", "_", word.strip().lower()) for word in said if word)
    return next((word for word in words if word), None)


def names(answer, wire, run_id):
    """Whether an answer says itself that it is about a run."""
    return text(answer.get("id" if wire == "runflow" else "request_id")) == run_id


def joined(address, base):
    """An address as a browser reads it on a page of the provider."""
    head, mark, query = address.partition("?")
    written = head.replace("\\", "/") + mark + query
    try:
        return written if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", written) else urljoin(base, written)
    except ValueError:
        return ""


def about(answer, wire, run_id):
    """Whether an answer is about a run, or names none."""
    name = "id" if wire == "runflow" else "request_id"
    return answer.get(name) is None or text(answer[name]) == run_id


def texts(value):
    """Every text in a value, at any depth."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from texts(each)
    elif text(value) is not None:
        yield value


def fetchable(address, *, local):
    """Whether a clip may be fetched from an address: https, or of this machine where the provider is."""
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        return False
    if not host or re.search(r"[\s\x00-\x1f\ud800-\udfff]", address):
        return False
    return parts.scheme == "https" or (
        local and parts.scheme == "http" and host in {"127.0.0.1", "localhost"}
    )


def plainly_accepted(status, answer, wire):
    """The id of a run that was certainly made: never to be dropped."""
    if answer is None or not 200 <= status < 300:
        return None
    return usable_id(answer.get("id" if wire == "runflow" else "request_id"))


def complains(answer):
    """Whether an answer is readable as an error: a code or words in a place where errors stand."""
    if answer is None:
        return False
    names = ("error_code", "code", "error_message", "message", "error", "errors", "detail")
    return any(answer.get(name) not in (None, "", [], {}) for name in names)
