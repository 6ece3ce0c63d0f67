"""Fetching the clip of an ended run once more, for somebody whose folder has lost it.

Invariants: free, and it changes no ledger; a clip is kept only if it has the recorded SHA-256, because a
provider may have made another file meanwhile; the key goes to the provider alone, as everywhere.
"""

import asyncio
import contextlib

from kling_nb.addresses import is_loopback
from kling_nb.engine.asking import Reach, look
from kling_nb.errors import StoreError
from kling_nb.media.folder import Store
from kling_nb.network.client import Transport
from kling_nb.records.run import MediaFacts, RunRecord

__all__ = ["fetch_again"]


async def fetch_again(transport: Transport, reach: Reach, record: RunRecord, store: Store) -> MediaFacts:
    """Read a run again, which signs its links anew, and fetch the clip.

    Args:
        transport: The network.
        reach: The provider and the key that made the run.
        record: A run that succeeded, with its provider's id and the facts of its file.
        store: Where the clip belongs.

    Returns:
        The facts, with the name that the clip has here.

    Raises:
        StoreError: What came is not the recorded clip, or there was nothing to fetch.
        KlingError: The provider could not be asked, or has no such run for this key.
    """
    seen = await look(transport, reach, record.provider_run_id or "")
    label = reach.provider.label
    if seen.snapshot.state != "succeeded" or not seen.snapshot.video_urls:
        raise _gone(record, f"{label} no longer offers the clip of run {record.id}.")
    part = await asyncio.to_thread(store.part, record)
    try:
        with part.open("xb") as sink:
            got = await transport.download(
                seen.snapshot.video_urls[0],
                sink,
                allowed_hosts=reach.provider.media_hosts,
                allow_loopback=is_loopback(reach.provider.base_url),
            )
        if record.media is None or got.sha256 != record.media.sha256:
            raise _gone(record, f"What {label} has for run {record.id} now is not the recorded clip.")
        return await asyncio.to_thread(store.keep, record, part, got.sha256)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _gone(record: RunRecord, what: str) -> StoreError:
    return StoreError(
        what,
        charged="no",
        cure="Nothing was sent. `--no-cache` in its cell buys a new one.",
        run_id=record.id,
        provider=record.provider,
        provider_run_id=record.provider_run_id,
    )
