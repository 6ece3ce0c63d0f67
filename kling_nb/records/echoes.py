"""Whether a text repeats another one, however JSON, HTML, an address or base64 spells it.

Invariants: pure; rather a false alarm than a leak: letter case, Unicode form and what stands between words
make no difference.
"""

import base64
import binascii
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from html import unescape
from urllib.parse import unquote_plus

__all__ = ["is_plain", "quotes", "repeats"]

#: Words that are in every answer: that they are in a prompt too tells nothing of it.
_PLAIN = frozenset(
    re.findall(
        "[a-z]+",
        """
        about accepted account after again all also and another answer answered any are asked available
        because been before being but came can cancel canceled cancelled cannot carried charged check
        clip closed code content contents could credit details did does done ended error failed failure
        fetch fetched fetching file flagged for found from generate generated generation goes gone
        guidelines had has have hidden http input inputs into invalid its json kept key kling knows late
        limit longer look looking lost made make many maximum message minutes missing model moderated
        moderation more must name named names need negative never nobody not nothing now one only open
        our over own pages parameter please policies policy process prompt provider public queue queued
        read reason received refused rejected request requests response review run runcomfy runflow
        running safety same sandbox saved says seconds sending sent server service shot shots should
        shown status still stopped tell tells text than that the their them then there these they this
        those time told too took try unknown until url value video videos violate violated violates
        violation wait was watch watched watching way were what when whether which while will with
        without words yet your
        """,
    )
)

#: Scripts that put no space between words: there two characters make a piece.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{12,}={0,2}")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")

#: So many words in a row are no coincidence in a label of the user's own.
_ROW = 4
_LONG_WORD = 6


def repeats(text: str, originals: Sequence[str]) -> bool:
    """Whether a text holds a whole original, or four words of one in a row.

    Args:
        text: Any text.
        originals: What should not be in it.

    Example:
        >>> repeats("we asked: a RED fox", ["A red fox"]), repeats("foxes, red", ["A red fox"])
        (True, False)
    """
    said = [_row(form) for form in _forms(text)]
    return any(_common(row, _row(word)) for row in said for word in originals)


def quotes(text: str, originals: Sequence[str]) -> bool:
    """Whether a text holds a single word of an original, but for words that are in every answer.

    Args:
        text: Any text, e.g. a provider's.
        originals: What should not be in it.

    Example:
        >>> quotes("the word 'fox' is not allowed", ["A red fox"]), quotes("rejected", ["A red fox"])
        (True, False)
    """
    pieces = {piece for word in originals for piece in _pieces(word)} - _PLAIN
    long = [piece for piece in pieces if len(piece) >= _LONG_WORD]
    return any(
        pieces & set(_pieces(form)) or any(piece in _fold(form) for piece in long) for form in _forms(text)
    )


def is_plain(text: str) -> bool:
    """Whether a text has no other words than those that are in every answer.

    Args:
        text: A provider's, about a prompt that is not known here.

    Example:
        >>> is_plain("HTTP 422: the request was rejected"), is_plain("the word 'fox' is not allowed")
        (True, False)
    """
    return all(piece in _PLAIN or piece.isdecimal() for piece in _pieces(text))


def _row(text: str) -> list[str]:
    """Give the words of a text in order; of scripts without spaces, the characters."""
    folded = _fold(text)
    return re.findall(rf"{_UNSPACED.pattern[:-1]}|[^\W_]+", folded) or list(folded)


def _common(said: list[str], secret: list[str]) -> bool:
    # Two characters of a script without spaces are about one word.
    wide = sum(map(len, secret)) <= len(secret) * 1.5
    length = min(len(secret), _ROW * 2 if wide else _ROW)
    rows = {tuple(secret[i : i + length]) for i in range(len(secret) - length + 1)}
    return any(tuple(said[i : i + length]) in rows for i in range(len(said) - length + 1))


def _pieces(text: str) -> Iterator[str]:
    folded = _fold(text)
    for run in _UNSPACED.findall(folded):
        yield from (run[i : i + 2] for i in range(max(1, len(run) - 1)))
    yield from (word for word in re.findall(r"[^\W_]+", _UNSPACED.sub(" ", folded)) if len(word) >= 3)
    yield from (sign for sign in folded if unicodedata.category(sign) == "So")


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _forms(text: str) -> Iterator[str]:
    """Read a text as it stands and as JSON, HTML, an address or base64 may have spelt it."""
    readings: list[Callable[[str], str]] = [str, unescape, unquote_plus, _plain_json, _plain_base64]
    seen = {text}
    for _ in range(2):
        seen |= {reading(form) for reading in readings for form in seen}
    yield from seen


def _plain_json(text: str) -> str:
    units = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
    whole = units.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return re.sub(r"\\([\\/\"bfnrt])", lambda found: found[1] if found[1] in '\\/"' else " ", whole)


def _plain_base64(text: str) -> str:
    def read(found: re.Match[str]) -> str:
        token = found[0].rstrip("=").replace("-", "+").replace("_", "/")
        try:
            return base64.b64decode(token + "=" * (-len(token) % 4)).decode()
        except (binascii.Error, ValueError):
            return found[0]

    return _BASE64.sub(read, text)
