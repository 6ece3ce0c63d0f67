"""Where callbacks are taken, and what they are answered with.

Invariants: importing this imports nothing heavy, for every Jupyter server reads it.

Source of the header: Runflow's model page, 2026-04-06.
"""

from dataclasses import dataclass

__all__ = ["MAX_BYTES", "OFF", "PATH", "SIGNATURE", "TOO_LARGE", "Answer"]

#: Where it is served, below the base of the address.
PATH = "kling/callbacks/runflow"
SIGNATURE = "Runflow-Signature"
#: Longest body that is read; an output holds a few links.
MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Answer:
    """What a call is answered with.

    Args:
        status: The HTTP status.
        words: One line; holds nothing that came with the call.
        retry_after_s: When to call again.
    """

    status: int
    words: str
    retry_after_s: int | None = None


#: Where no secret is set.
OFF = Answer(404, "Callbacks are off.")
#: To a body that is longer than it may be.
TOO_LARGE = Answer(413, "The body is too large.")
