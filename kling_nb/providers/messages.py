"""One HTTP call and its reply, as plain data: what adapters build and read, and transport carries.

Invariants: a `Call` never holds a key (transport adds it, and only for the provider's own origin);
a `Reply` is whole or it does not exist (a cut-off body is a transport error, never a short reply).
"""

import json as jsonlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from kling_nb.records.provenance import body_bytes

__all__ = ["Call", "Reply"]


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request that is ready to be sent, without its key.

    Args:
        method: The HTTP verb.
        url: The absolute address, built from the configured base and never from a reply.
        json: The body, or None for none.
        headers: Extra headers; never `Authorization`.
        params: The query.
        paid: Whether sending it can cost money: such a call is never resent on a guess.

    Example:
        >>> Call(method="GET", url="https://api.runflow.io/v1/health").paid
        False
    """

    method: Literal["GET", "POST"]
    url: str
    json: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    paid: bool = False

    @property
    def content(self) -> bytes | None:
        """The body as it goes out, byte for byte, or None for none.

        Raises:
            ValueError: It is not plain JSON.
        """
        return None if self.json is None else body_bytes(self.json)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A whole answer.

    Args:
        status: The HTTP status.
        headers: Header names in lower case.
        body: The raw bytes.

    Example:
        >>> Reply(status=200, headers={}, body=b'{"id": "a"}').json()
        {'id': 'a'}
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)  # may hold signed addresses

    def json(self) -> Any:
        """Give the body as JSON, or None where it is none (HTML, empty, junk)."""
        try:
            return jsonlib.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def retry_after_s(self) -> float | None:
        """The wait that the provider asked for, in seconds from 0 to 3600; None where it did not ask.

        A date is held against the answer's own date: the clock of this machine may be wrong.
        """
        asked = self.headers.get("retry-after", "")
        try:
            seconds = float(asked)
        except ValueError:
            try:
                until, now = map(parsedate_to_datetime, (asked, self.headers.get("date", "")))
                seconds = (until - now).total_seconds()
            except (TypeError, ValueError, OverflowError):
                return None
        return min(max(seconds, 0.0), 3600.0) if math.isfinite(seconds) else None
