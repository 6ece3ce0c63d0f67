"""From the addresses that a provider named to one whole clip in the media folder.

Invariants: fetching is free and may be repeated; of a run that had a clip only the recorded bytes are taken;
a download is gone afterwards, except what came last in place of a clip and is no text: that may be paid for.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kling_nb.engine.polling.lookup import Access, look
from kling_nb.errors import StoreError
from kling_nb.files import Checkpoint, Signature, no_checkpoint, signature_of
from kling_nb.media.folder import Store
from kling_nb.media.probe import NotVideoError
from kling_nb.network.download_error import DownloadError
from kling_nb.providers.base import Snapshot
from kling_nb.providers.parsing import say
from kling_nb.records.run import MediaFacts, RunRecord, ids_of

if TYPE_CHECKING:
    from kling_nb.network.client import Transport
    from kling_nb.network.download import Downloaded

__all__ = ["Fetcher", "NoClipError", "fetch_again"]

_NO_COPY = "Nothing was sent. `--no-cache` in its cell buys a new one."


class NoClipError(Exception):
    """None of the addresses gave the clip; holds why, one error for each."""

    def __init__(self, errors: list[StoreError]) -> None:
        super().__init__()
        self.errors = errors


class _OtherClipError(StoreError):
    """What came is not the clip that the run had."""


@dataclass(frozen=True, kw_only=True)
class Fetcher:
    """What it takes to fetch the clip of a run.

    Args:
        transport: The network.
        access: The provider and the key that made the run.
        record: The run; where it had a clip, with the facts of its file.
        store: Where the clip belongs.
        checkpoint: Called after each step.
    """

    transport: "Transport"
    access: Access
    record: RunRecord
    store: Store
    checkpoint: Checkpoint = no_checkpoint

    async def first(self, urls: Iterable[str], *, set_aside: bool = False) -> tuple[str, MediaFacts]:
        """Fetch and keep the first of some files that is the clip.

        Args:
            urls: Where it may be, from the provider's own answer.
            set_aside: Whether to keep what is no video, too.

        Returns:
            The address that gave it, and its facts.

        Raises:
            NoClipError: None of them did.
            StoreError: The folder cannot be written.
            OSError: The same.
        """
        errors: list[StoreError] = []
        for url in urls:
            part, sink = await self._open_part()
            try:
                with sink:
                    got = await self._download(url, sink)
                return url, await self._keep(url, part, *got)
            except NotVideoError as error:
                errors.append(await self._odd_file(part, error) if set_aside else error)
            except (DownloadError, _OtherClipError) as error:
                errors.append(error)
            finally:
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
        raise NoClipError(errors)

    async def _open_part(self) -> tuple[Path, FileIO]:
        """Open the file to download into; who is stopped meanwhile leaves none behind."""
        opening = asyncio.ensure_future(asyncio.to_thread(self.store.open_part, self.record))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_drop)
            raise

    async def _download(self, url: str, sink: FileIO) -> "tuple[Downloaded, Signature]":
        """Fetch a file; give what came, and the signature of the file that holds just that."""
        provider = self.access.provider
        self.checkpoint("part made")
        got = await self.transport.download(
            url,
            sink,
            allowed_hosts=provider.media_hosts,
            allow_loopback=provider.loopback,
            key=self.access.key,
            origin=provider.base_url,
        )
        return got, signature_of(os.fstat(sink.fileno()))

    async def _keep(self, url: str, part: Path, got: "Downloaded", written: Signature) -> MediaFacts:
        provider, record = self.access.provider, self.record
        self.checkpoint("part whole")
        if record.media is not None and got.sha256 != record.media.sha256:
            what = f"What {provider.label} has for run {record.id} now is not the recorded clip."
            raise _OtherClipError(what, charged="no", cure=_NO_COPY, **ids_of(record))
        keep = partial(self.store.keep, record, part, got.sha256, written=written)
        try:
            media = await asyncio.to_thread(keep, checkpoint=lambda step: self.checkpoint(f"keep: {step}"))
        except NotVideoError as error:
            kind = say(got.content_type, limit=60) or "no content type"
            what = f"{urlsplit(url).hostname} sent {got.size:,} bytes of {kind}. {error.what}"
            raise NotVideoError(what, charged=error.charged) from None
        self.checkpoint("clip kept")
        return media

    async def _odd_file(self, part: Path, error: NotVideoError) -> NotVideoError:
        """Keep what came in place of a clip, unless it is text, and say so."""
        if await asyncio.to_thread(_is_text, part):
            return error
        kept = await asyncio.to_thread(self.store.set_aside, self.record, part)
        return NotVideoError(f"{error.what} What came is kept as {kept.name}.", charged=error.charged)


def _drop(opening: "asyncio.Future[tuple[Path, FileIO]]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        part, sink = opening.result()
        sink.close()
        with contextlib.suppress(OSError):
            part.unlink()


def _is_text(part: Path) -> bool:
    # Every video has zeros near its start; a page or an error for people has none.
    with part.open("rb") as file:
        return b"\0" not in file.read(4096)


async def fetch_again(
    transport: "Transport", access: Access, record: RunRecord, store: Store
) -> tuple[MediaFacts, Snapshot]:
    """Read an ended run again, which signs its links anew, and fetch the clip.

    Args:
        transport: The network.
        access: The provider and the key that made the run.
        record: A run with its provider's id; where it had a clip, with the facts of its file.
        store: Where the clip belongs.

    Returns:
        The facts, with the name that the clip has here, and what the provider says of the run now.

    Raises:
        StoreError: What came is not the recorded clip, or there was nothing to fetch.
        KlingError: The provider could not be asked, or has no such run for this key.
    """
    snapshot = (await look(transport, access, record.provider_run_id or "")).snapshot
    fetcher = Fetcher(transport=transport, access=access, record=record, store=store)
    try:
        _, media = await fetcher.first(snapshot.video_urls)
    except NoClipError as error:
        label = access.provider.label
        what = f"{label} has no clip of run {record.id} to fetch: it is {snapshot.state} there."
        nothing = StoreError(what, charged="no", cure=_NO_COPY, **ids_of(record))
        raise [nothing, *error.errors][-1] from None
    return media, snapshot
