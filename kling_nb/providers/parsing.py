"""Defensive reading of what providers answer: ids, words, money, addresses and complaints.

Invariants: a value of the wrong type is absent, never an exception; money never passes through float;
foreign words come out as one short line without any URL query, key or control character.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from kling_nb.errors import Charged, UsageError, one_line
from kling_nb.providers.base import Ambiguous, Refused, Snapshot
from kling_nb.providers.messages import Reply
from kling_nb.records.run import FailReason

__all__ = [
    "DECODER",
    "ERROR_NAMES",
    "ErrorBody",
    "charged_by",
    "code_text",
    "error_body",
    "fields",
    "is_moderated",
    "moment",
    "money",
    "plain",
    "read_refusal",
    "safe_id",
    "said_once",
    "same_id",
    "say",
    "text_of",
    "unreadable",
    "usable_id",
    "whole",
    "word",
]

MAX_MESSAGE_CHARS = 300
MAX_DIGITS = 100
_ODD = object()

#: More dollars than any clip costs; beyond it the figure is junk and would not fit micro-dollars in 64 bits.
MAX_USD = 1_000_000_000
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_MONEY = re.compile(r"[0-9]{1,60}(\.[0-9]{0,60})?([eE][+-]?[0-9]{1,2})?", re.ASCII)

_SECRETS = (
    (re.compile(r"(https?:[^\s?#]*)[?#]\S*", re.IGNORECASE), r"\1"),
    # A query without its scheme, also percent-encoded: a cut-off or escaped signed address.
    (re.compile(r"(?:[?#]|%3f)(?:(?!%3[fd])[^\s=?#])*(?:=|%3d)\S*", re.IGNORECASE), "?..."),
    (re.compile(r"\bBearer\s+\S+", re.IGNORECASE), "Bearer ..."),
    (re.compile(r"\b(?:rf|rc|sk)[_-][A-Za-z0-9_-]{6,}"), "..."),
)

_MODERATED = re.compile(
    r"content polic|content violation|policy violation|moderation|moderated|nsfw|censor|risk control"
    r"|(?<!case )(?<!time )sensitive|unsafe|safety (?:system|filter|check|polic)|prohibited|inappropriate"
)

_NO_CREDIT = re.compile(r"balance|credit|insufficient|payment|top up")
#: Under these names an answer says what is wrong.
ERROR_NAMES = ("error_code", "code", "error_message", "message", "error", "detail", "errors")
_REFUSALS = frozenset({400, 401, 402, 403, 404, 409, 422, 429})


def fields(reply: Reply) -> Mapping[str, Any] | None:
    """Give the body's object with exact decimals, or None where there is none.

    Args:
        reply: A whole answer.

    Returns:
        The JSON object; None for HTML, an empty body, junk or another kind of JSON. In place of what is no
        number we can hold, or of a name with two values, stands a thing that no reader takes for anything:
        one odd field does not hide a paid run, and is not taken for an absent one.

    Example:
        >>> fields(Reply(status=200, headers={}, body=b'{"cost": 0.10}'))
        {'cost': Decimal('0.10')}
    """
    try:
        data = DECODER.decode(text_of(reply))
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def text_of(reply: Reply) -> str:
    """Give the text of a JSON body, in whichever of its encodings.

    Raises:
        ValueError: It is in none of them.
    """
    return reply.body.decode(json.detect_encoding(reply.body), "surrogatepass")


def _exact(digits: str) -> object:
    try:
        return Decimal(digits)
    except InvalidOperation:
        return _ODD


def _integer(digits: str) -> object:
    # Python refuses some thousands of digits, and with them it would refuse the run's id beside them.
    return int(digits) if len(digits) <= MAX_DIGITS else _ODD


def said_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its names and values, with a thing that is no value for a name that has two."""
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    found = {}
    for name, value in pairs:
        if found.get(name) is None:
            found[name] = value
        elif value is not None and repr(found[name]) != repr(value):
            # Not the last one wins: which of two ids, states or costs is meant, nobody can tell. Compared as
            # text, because to Python 0 and false are the same; null beside a value says nothing.
            found[name] = _ODD
    return found


#: Reads JSON as `fields` does.
DECODER = json.JSONDecoder(
    parse_float=_exact, parse_int=_integer, parse_constant=lambda _: _ODD, object_pairs_hook=said_once
)


def usable_id(value: object) -> str | None:
    """Give an id that can stand in an address, or None."""
    return value if isinstance(value, str) and _ID.fullmatch(value) else None


def safe_id(value: str, label: str) -> str:
    """Give the id back, or refuse to build an address from it.

    Raises:
        UsageError: It holds anything but letters, digits, `_` and `-`, or is longer than 128.
    """
    if usable_id(value) is None:
        raise UsageError(
            f"{say(value, limit=60)!r} is not a run id of {label}.",
            cure="Copy the id from the provider's page of past runs.",
        )
    return value


def same_id(reported: object, asked: str) -> bool:
    """Whether an answer is about the run that was asked for; one that names no run is."""
    return reported is None or reported == asked


def say(*parts: object, limit: int = MAX_MESSAGE_CHARS) -> str:
    r"""Make one short, safe line of foreign text.

    Args:
        *parts: Texts, joined by `: `; anything that is no text or number is left out.
        limit: Most characters.

    Returns:
        One line without URL queries and keys.

    Example:
        >>> say("BAD", "see https://h.example/a?sig=1\nnow")
        'BAD: see https://h.example/a now'
    """
    known = (str(p) for p in parts if isinstance(p, str | int) and not isinstance(p, bool))
    # The first cut bounds the work, the second one the result.
    line = ": ".join(text for text in (one_line(p[:4000]) for p in known) if text)[:4000]
    for pattern, instead in _SECRETS if line else ():
        line = pattern.sub(instead, line)
    return line if len(line) <= limit else line[: limit - 3].rstrip() + "..."


def word(value: object) -> str:
    """Give a status word in lower case with underscores, or '' where there is none."""
    if not isinstance(value, str):
        return ""
    return say(value, limit=40).lower().replace("-", "_").replace(" ", "_")


def whole(value: object) -> int | None:
    """Give a count of 0 or more, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def money(value: object) -> str | None:
    """Give dollars as plain decimal text, or None where the value is no amount.

    Args:
        value: Text or a number parsed exactly; never a float.

    Returns:
        e.g. `0.56`; None for null, a negative or absurd amount, NaN, or words.

    Example:
        >>> money("0.560"), money(Decimal("5.6E-1")), money("-1"), money("free")
        ('0.560', '0.56', None, None)
    """
    if isinstance(value, str):
        text = value.strip()
    elif isinstance(value, int | Decimal) and not isinstance(value, bool):
        text = str(value)
    else:
        return None
    if not _MONEY.fullmatch(text):
        return None
    amount = Decimal(text)
    return f"{amount:f}" if amount < MAX_USD else None


def charged_by(cost: str | None, otherwise: Charged) -> Charged:
    """Say whether a run without a clip was charged: a reported cost outranks what the contract says."""
    if cost is None:
        return otherwise
    return "yes" if Decimal(cost) > 0 else "no"


def moment(text: object) -> datetime | None:
    """Give a time in UTC, or None where the value is none, or names no zone."""
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
        # The first and the last day of the calendar may have no time in UTC.
        return found.astimezone(UTC) if found is not None and found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def plain(value: object, depth: int = 3) -> Any:
    """Reduce foreign JSON to a small, storable value: short lines, plain numbers, few keys."""
    small: Any = None
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**63):
        small = value
    elif isinstance(value, Decimal):
        small = float(value) if math.isfinite(float(value)) else None
    elif isinstance(value, str):
        small = say(value)
    elif depth and isinstance(value, Mapping):
        small = {say(str(k), limit=60): plain(v, depth - 1) for k, v in list(value.items())[:50]}
    elif depth and isinstance(value, list):
        small = [plain(v, depth - 1) for v in value[:50]]
    return small


@dataclass(frozen=True, kw_only=True)
class ErrorBody:
    """What an error body says.

    Args:
        code: The provider's code as text, '' for none.
        words: One line.
    """

    code: str
    words: str

    @property
    def text(self) -> str:
        """Code and words as one line."""
        return say(self.code, self.words)


def error_body(data: Mapping[str, Any] | None) -> ErrorBody | None:
    """Read an error body: flat, nested under `error`, or with a `detail`.

    Args:
        data: The body's object.

    Returns:
        Its code and words; None where it has neither, which is no readable error.

    Example:
        >>> error_body({"error": {"code": "CONFLICT", "message": "twice"}}).text
        'CONFLICT: twice'
    """
    if data is None:
        return None
    nested = data.get("error")
    levels = [data, nested] if isinstance(nested, Mapping) else [data]
    codes = (code_text(level.get(key)) for level in levels for key in ("error_code", "code"))
    code = next((c for c in codes if c), "")
    texts = (
        line
        for level in levels
        for key in ("error_message", "message", "error", "detail")
        if isinstance(level.get(key), str) and (line := say(level[key]))
    )
    more = (_details(level.get(key)) for level in levels for key in ("errors", "detail", "error"))
    words = say(next(texts, ""), next((line for line in more if line), ""))
    return ErrorBody(code=code, words=words) if code or words else None


def code_text(value: object) -> str:
    """Give a code as text; 0, '' and null are the absence of an error."""
    text = say(value, limit=60)
    return "" if text == "0" else text


def _details(value: object) -> str:
    """Summarise a list or table of field errors, without the input that some servers echo."""
    if isinstance(value, list):
        return "; ".join(line for line in map(_detail, value[:5]) if line)
    if isinstance(value, Mapping) and not {"message", "msg", "code"} & value.keys():
        lines = (say(k, " ".join(filter(None, map(_detail, _listed(v))))) for k, v in [*value.items()][:5])
        return "; ".join(line for line in lines if line)
    return ""


def _listed(value: object) -> list[Any]:
    return value[:5] if isinstance(value, list) else [value]


def _detail(item: object) -> str:
    if not isinstance(item, Mapping):
        return say(item) if isinstance(item, str) else ""
    where = item.get("loc", item.get("field"))
    path = ".".join(str(p) for p in where if isinstance(p, str | int)) if isinstance(where, list) else where
    return say(path, next((item[key] for key in ("msg", "message") if isinstance(item.get(key), str)), ""))


def is_moderated(*texts: object) -> bool:
    """Whether the words say that content was refused, in any spelling a code or sentence may have.

    Example:
        >>> is_moderated("CONTENT_POLICY_VIOLATION"), is_moderated("the name is case-sensitive")
        (True, False)
    """
    line = " ".join(t for t in texts if isinstance(t, str)).lower().replace("_", " ").replace("-", " ")
    return bool(_MODERATED.search(line))


def read_refusal(reply: Reply, label: str, reasons: Mapping[str, FailReason]) -> Refused | Ambiguous:
    """Say whether an answer to a submit proves that nothing was made.

    Args:
        reply: An answer that names no run.
        label: The provider's name for people.
        reasons: What the provider's documented codes mean; they outrank the HTTP status.

    Returns:
        `Refused` for the statuses that refuse and a readable error body, else `Ambiguous`: a page of a
        gateway in between proves nothing.
    """
    found = error_body(fields(reply))
    if reply.status not in _REFUSALS or found is None:
        return Ambiguous(message=_http(reply, label, found))
    message = _http(reply, label, found)
    if reply.status == 429:
        return Refused(reason="provider", message=message, retry_after_s=reply.retry_after_s, resend=True)
    return Refused(reason=reasons.get(found.code) or _reason(reply.status, found), message=message)


def _reason(status: int, found: ErrorBody) -> FailReason:
    if status in {401, 402}:
        return "auth" if status == 401 else "credit"
    if is_moderated(found.code, found.words):
        return "moderated"
    if status == 403:
        return "credit" if _NO_CREDIT.search(found.text.lower()) else "auth"
    return "provider" if status == 409 else "invalid"


def unreadable(reply: Reply, label: str) -> Snapshot:
    """Give the reading of an answer that says nothing about the run, which therefore goes on."""
    found = error_body(fields(reply))
    return Snapshot(
        state="unreadable",
        reason="auth" if reply.status == 401 else None,
        message=_http(reply, label, found),
        retry_after_s=reply.retry_after_s,
    )


def _http(reply: Reply, label: str, found: ErrorBody | None) -> str:
    said = found.text if found else "no readable answer"
    return say(f"{label} answered HTTP {reply.status}", said)
