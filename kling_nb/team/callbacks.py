"""Callbacks of Runflow, taken: the one who signed says that a run has ended, and so it is read at once.

Invariants: without a secret nothing is taken; what is not signed with one of the secrets changes nothing;
a call decides nothing about a run, and the same call again does nothing.

Source of the body, the header and the signature: Runflow's model page, 2026-04-06.
"""

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from kling_nb.config.keys import callback_secrets
from kling_nb.config.loading import load_settings
from kling_nb.errors import KlingError
from kling_nb.ledger.database import Ledger
from kling_nb.records.run import WHO, RunRecord
from kling_nb.team.answers import MAX_BYTES, OFF, TOO_LARGE, Answer

if TYPE_CHECKING:
    from kling_nb.ledger.transaction import Transaction

__all__ = ["Receiver", "own_ledger"]

#: Calls that may come at once, and in each second after that.
_BURST, _RATE = 1_000, 50


class Receiver:
    """Takes callbacks for one ledger.

    Args:
        ledger: Opens the ledger, at the first call that is signed.
        secrets: Gives what calls may be signed with.
        clock: Seconds that never go back.

    Example:
        >>> Receiver(lambda: None, secrets=lambda: []).take(b"{}", "").status
        404
    """

    def __init__(
        self,
        ledger: Callable[[], Ledger],
        *,
        secrets: Callable[[], list[SecretStr]] = callback_secrets,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger, self._secrets, self._clock = ledger, secrets, clock
        self._left, self._at = float(_BURST), clock()

    def refuses(self, size: int | None) -> Answer | None:
        """Say what is wrong before the body is read.

        Args:
            size: What the call says of its length in bytes, if anything.

        Returns:
            The answer, or None where the body should be read.
        """
        if wrong := self._wrong(size or 0):
            return wrong
        now = self._clock()
        self._left, self._at = min(float(_BURST), self._left + (now - self._at) * _RATE), now
        if self._left < 1:
            return Answer(429, "Too many calls.", retry_after_s=1)
        self._left -= 1
        return None

    def _wrong(self, size: int) -> Answer | None:
        if not self._secrets():
            return OFF
        return TOO_LARGE if size > MAX_BYTES else None

    def take(self, raw: bytes, signature: str) -> Answer:
        """Take one call.

        Args:
            raw: The body as it came.
            signature: 64 hexadecimal digits: HMAC-SHA256 of the body with one of the secrets.

        Returns:
            The answer; 200 also for a run that is nobody's here and for a call that came before.
        """
        if wrong := self._wrong(len(raw)):
            return wrong
        if not self._is_signed(raw, signature):
            return Answer(401, "The signature is missing or wrong.")
        call = _read(raw)
        if call is None:
            return Answer(400, "This is no callback of a run.")
        try:
            return Answer(200, self._note(call))
        except KlingError:
            # The provider calls again.
            return Answer(503, "The ledger cannot be used now.", retry_after_s=1)

    def _note(self, call: "_Call") -> str:
        record = self._ledger().read(call.find)
        if record is None:
            return "No such run here."
        new = not record.status.ended and self._ledger().note_callback(record.id, call.event)
        return "Taken." if new else "Known already."

    def _is_signed(self, raw: bytes, signature: str) -> bool:
        right = [
            hmac.new(secret.get_secret_value().encode(), raw, hashlib.sha256).hexdigest().encode()
            for secret in self._secrets()
        ]
        given = signature.encode("utf-8", "replace")
        # Of all of them, so that the time does not tell which one it is.
        return sum([hmac.compare_digest(given, one) for one in right]) > 0


@cache
def own_ledger() -> Ledger:
    """Open the ledger that the settings of this process name."""
    return Ledger(load_settings().ledger)


@dataclass(frozen=True)
class _Call:
    event: str
    run_id: str
    ours: str

    def find(self, transaction: "Transaction") -> RunRecord | None:
        """Give the run that it tells of."""
        if found := transaction.holder("runflow", self.run_id):
            return found
        # It may come before the answer to the submit, which gives the provider's id.
        found = transaction.get(self.ours) if self.ours else None
        unknown = found and found.provider == "runflow" and found.provider_run_id is None
        return found if unknown else None


def _read(raw: bytes) -> _Call | None:
    try:
        body: Any = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    body = body if isinstance(body, dict) else {}
    event, run_id, metadata = body.get("event"), body.get("run_id"), body.get("metadata")
    if not isinstance(event, str) or not isinstance(run_id, str) or len(event) > 100:
        return None
    who = metadata.get(WHO) if isinstance(metadata, dict) else None
    ours = who.get("run") if isinstance(who, dict) else None
    return _Call(event, run_id, ours if isinstance(ours, str) else "")
