"""The claims of one call: made before it decides, so that a kernel with another ledger decides after it.

Invariants: what is claimed and not bought is given back, however the call ends, also by Ctrl-C at any step;
nothing here sends anything.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kling_nb.errors import BlockedError, LedgerError
from kling_nb.interrupts import interrupts_held
from kling_nb.ledger.database import Ledger
from kling_nb.media.claims import Claims, Stillness
from kling_nb.session.plan import new_id

__all__ = ["ClaimedError", "claiming", "unsent", "wait_for_claim"]

_STEP_S = 0.05


class ClaimedError(Exception):
    """Another kernel has the claim of a request: everything is decided anew when it has written its receipt.

    Args:
        request_key: Of the request.
    """

    def __init__(self, request_key: str) -> None:
        super().__init__(request_key)
        self.request_key = request_key


@contextmanager
def claiming(
    request_keys: Sequence[str], claims: Claims, ledger: Ledger, owner: str
) -> Iterator[dict[str, str]]:
    """Claim requests in a folder; whatever of it is left in the mapping at the end is given back.

    Args:
        request_keys: Of what would be bought.
        claims: Of the folder.
        ledger: Ours: where it knows the run that has a claim, it decides.
        owner: The name of this process.

    Yields:
        By request key, our id of a run to be.

    Raises:
        ClaimedError: One of them is claimed by a run that this ledger does not know.
        StoreError: The folder cannot be written.
    """
    ids: dict[str, str] = {}
    # One that is left half made keeps its cell waiting until it has stood still for long.
    with interrupts_held():
        try:
            for key in request_keys:
                ids[key] = new_id()
                if not claims.take(key, ids[key], owner):
                    claim = claims.seen(key)
                    if claim is None or ledger.get(claim.run_id) is None:
                        raise ClaimedError(key)
            yield ids
        finally:
            for key, run_id in ids.items():
                claims.drop(key, run_id)


def wait_for_claim(claims: Claims, request_key: str, still: Stillness) -> None:
    """Wait a moment for whoever has a claim; one that stands still for too long is taken away.

    Args:
        claims: Of the folder.
        request_key: Of the request.
        still: Judges it; the same at each call.

    Raises:
        BlockedError: Its owner is gone and may have sent it.
    """
    claim = claims.seen(request_key)
    if claim is None:
        return
    if not still.reached(claim):
        time.sleep(_STEP_S)
    elif claim.sending:
        raise BlockedError(
            f"Run {claim.run_id} of the same request was being sent by another process, which is gone, and "
            "has no receipt in the folder.",
            charged="unknown",
            cure=f"Nothing was sent now. Look for it in the provider's own list of runs; then delete "
            f"{claims.path(request_key)}, or ask for another take, e.g. `--take 1`.",
            run_id=claim.run_id,
        )
    else:
        claims.void(request_key, claim)


def unsent(error: LedgerError) -> LedgerError:
    """Say of an error of the ledger what is known before a call has opened a run: that nothing was sent."""
    cure = f"Nothing was sent. {error.cure.removeprefix('Nothing was sent. ')}"
    return LedgerError(error.what, charged=error.charged, cure=cure, run_id=error.run_id)
