"""What earlier runs of a kind teach: what the provider billed for them, and how long they took."""

from datetime import date

from kling_nb.ledger.transaction import Transaction
from kling_nb.pricing.estimate import Bill

__all__ = ["read_bills", "read_waits"]


def read_bills(
    transaction: Transaction, provider: str, model: str, *, origin: str, audio: bool, limit: int
) -> list[Bill]:
    """Read the newest bills of a kind of run; see `Ledger.bills`."""
    rows = transaction.rows(
        "SELECT bill, duration, day, run_id FROM figures WHERE provider = ? AND model = ? AND audio = ? "
        "AND origin = ? AND bill IS NOT NULL ORDER BY created_at DESC LIMIT ?",
        provider,
        model,
        int(audio),
        origin,
        limit,
    )
    return [
        Bill(micros=bill, seconds=seconds, day=date.fromisoformat(day), run_id=run_id)
        for bill, seconds, day, run_id in rows
    ]


def read_waits(
    transaction: Transaction,
    provider: str,
    model: str,
    duration: int,
    *,
    audio: bool | None,
    origin: str | None,
    limit: int,
) -> list[float]:
    """Read how long the newest finished runs of a kind took; see `Ledger.waits`."""
    query = (
        "SELECT created_at, waited FROM figures WHERE provider = ? AND model = ? AND duration = ? "
        "AND audio = ? AND waited IS NOT NULL AND (CAST(? AS VARCHAR) IS NULL OR origin = ?) "
        "ORDER BY created_at DESC LIMIT ?"
    )
    # With sound and without, each is in order of time in the index.
    found = [
        (created_at, waited)
        for sound in ((False, True) if audio is None else (audio,))
        for created_at, waited in transaction.rows(
            query, provider, model, duration, int(sound), origin, origin, limit
        )
    ]
    found.sort(key=lambda row: row[0], reverse=True)
    return [waited for _, waited in found[:limit]]
