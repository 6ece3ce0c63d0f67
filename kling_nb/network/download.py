"""Fetching a finished clip: which links are followed, and how their bytes reach a file.

Invariants: a key travels with a link only where the provider's own origin asks for it, and over no redirect;
only https, or http to this machine where that is allowed; a redirect leads to where the link itself might
have led, and never from this machine to another or back; a clip is whole, or there is an error; no error
holds the path or the query of a link, because a signed query is a secret.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import aiohttp
import httpx

from kling_nb.addresses import Origin, host_matches, is_literal, is_loopback_host, is_public, origin_of
from kling_nb.errors import StoreError
from kling_nb.network.connections import Exchange
from kling_nb.network.direct import as_httpx
from kling_nb.network.download_error import DownloadError

__all__ = ["ACCEPT", "Downloaded", "OpenResponse", "Sink", "check_link", "declared_size", "fetch"]

#: Opens an address, and gives the answer before its body is read.
OpenResponse = Callable[[], Awaitable[aiohttp.ClientResponse]]

ACCEPT = {"accept": "video/*,*/*;q=0.5"}

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 3
_EXPIRED = frozenset({403, 404, 410})
#: The way out where a link may not be followed.
_BY_HAND = (
    "The run stays in saving. The provider's own page of past runs has the clip; resume asks for a new link."
)
_KEYED = frozenset({401, 403})
#: What httpx decodes by itself, with nothing else installed.
_ENCODINGS = frozenset({"identity", "gzip", "deflate"})
_RANGE = re.compile(r"bytes 0-([0-9]{1,15})/([0-9]{1,15})", re.IGNORECASE)
#: So much is written at once where the disk keeps up, and so much may wait for it.
_BLOCK, _MOST_HELD = 1 << 19, 2 << 20


class Sink(Protocol):
    """What takes the bytes of a download."""

    def write(self, data: memoryview, /) -> int:
        """Write some of them; say how many."""


@dataclass(frozen=True, kw_only=True)
class Downloaded:
    """A clip that arrived whole.

    Args:
        size: Bytes.
        sha256: Of those bytes, in hexadecimal.
        content_type: What the server called it, in lower case and without parameters; may be empty.
    """

    size: int
    sha256: str
    content_type: str


def check_link(url: str, *, allowed_hosts: tuple[str, ...] | None, allow_loopback: bool) -> Origin:
    """Decide whether a link may be followed at all, before any name is resolved.

    Args:
        url: The link, from a provider's own answer.
        allowed_hosts: Host suffixes it must match; None allows every public host.
        allow_loopback: Whether this machine is a proper source (the sandbox); also over plain http.

    Returns:
        Its origin.

    Raises:
        DownloadError: It may not; `host_unknown` is set where only the list of hosts is against it.

    Example:
        >>> check_link("https://cdn.runcomfy.net/a", allowed_hosts=None, allow_loopback=False).port
        443
    """
    try:
        origin, words = origin_of(url), ""
    except ValueError as exc:
        origin, words = None, str(exc)
    if origin is None:
        raise DownloadError(f"The link to the clip cannot be used: {words}.")
    if is_loopback_host(origin.host):
        if allow_loopback:
            return origin
        raise DownloadError("The link to the clip leads to this machine itself, which is not allowed here.")
    if origin.scheme != "https":
        raise DownloadError(f"The link to the clip on {origin.host} is not https.")
    if is_literal(origin.host) and not is_public(origin.host):
        raise DownloadError(f"The link to the clip leads to {origin.host}, which is not a public address.")
    if allowed_hosts is not None and not host_matches(origin.host, allowed_hosts):
        raise DownloadError(
            f"The clip is on {origin.host}, a host that this provider is not known to use.",
            host_unknown=True,
            cure=_BY_HAND,
        )
    return origin


async def fetch(
    client: httpx.AsyncClient,
    url: str,
    sink: Sink,
    *,
    attempt: Exchange,
    allowed_hosts: tuple[str, ...] | None,
    bearer: httpx.Headers | None,
    max_bytes: int,
    directly: OpenResponse | None = None,
) -> Downloaded:
    """Stream a checked link into a file.

    Args:
        client: A client of a media lane.
        url: The link.
        sink: Takes the bytes, off the loop's thread; left open, and to be thrown away after an error.
        attempt: The exchange, at the origin that `check_link` gave for the link; it follows redirects.
        allowed_hosts: As for `check_link`; for redirects, too.
        bearer: The header to show the link's own origin should it ask who is there, or None.
        max_bytes: The most that is accepted.
        directly: Opens the link below the client, where it can be; whatever follows from the answer goes
            through the client.

    Returns:
        What arrived.

    Raises:
        DownloadError: The server refused, redirected elsewhere, sent too much or too little.
        StoreError: The sink could not be written.
    """
    link: httpx.URL | str = url
    headers, hops = httpx.Headers(ACCEPT), 0
    while hops <= _MAX_REDIRECTS:
        if directly is not None:
            opening, directly = directly, None
            answer = await opening()
            response = as_httpx(answer)
            encoded = "content-encoding" in response.headers
            body = response.aiter_bytes() if encoded else answer.content.iter_any()
        else:
            response = await client.send(client.build_request("GET", link, headers=headers), stream=True)
            body = response.aiter_bytes()
        try:
            if bearer is not None and response.status_code in _KEYED and not hops:
                # Only the very address of the provider's own answer, and only once.
                headers.update(bearer)
                bearer = None
                continue
            redirected = response.status_code in _REDIRECTS and "location" in response.headers
            if not redirected or "authorization" in headers:
                return await _receive(response, body, sink, attempt.origin, max_bytes)
            link = _next_link(httpx.URL(link), response, attempt.origin, allowed_hosts)
            attempt.origin, hops = origin_of(str(link)), hops + 1
        finally:
            await response.aclose()
    raise DownloadError(f"{attempt.origin.host} redirected {hops} times.")


def declared_size(headers: httpx.Headers) -> int | None:
    """Read the length that a server announced.

    Args:
        headers: Of its answer.

    Returns:
        Bytes, or None where it announced none.
    """
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def _next_link(
    link: httpx.URL, response: httpx.Response, origin: Origin, allowed_hosts: tuple[str, ...] | None
) -> httpx.URL:
    target, unknown = None, False
    try:
        following = link.join(response.headers["location"])
        target = origin_of(str(following))
    except (ValueError, httpx.InvalidURL):
        pass
    if target is not None and is_loopback_host(target.host) is is_loopback_host(origin.host):
        try:
            check_link(str(following), allowed_hosts=allowed_hosts, allow_loopback=True)
        except DownloadError as error:
            unknown = error.host_unknown
        else:
            return following
    where = target.host if target is not None and target.host != origin.host else "somewhere else"
    raise DownloadError(
        f"{origin.host} redirected the download to {where}, which is not followed.",
        http_status=response.status_code,
        host_unknown=unknown,
        cure=_BY_HAND,
    )


async def _receive(
    response: httpx.Response, body: AsyncIterator[bytes], sink: Sink, origin: Origin, max_bytes: int
) -> Downloaded:
    status = response.status_code
    if status != httpx.codes.OK and not _is_whole(response):
        raise DownloadError(
            f"{origin.host} answered {status} to the download.",
            http_status=status,
            cure="Ask the provider for a fresh link." if status in _EXPIRED else "",
        )
    if response.headers.get("content-encoding", "identity").strip().lower() not in _ENCODINGS:
        raise DownloadError(
            f"{origin.host} encoded the clip although it was asked not to.", http_status=status
        )
    total = declared_size(response.headers)
    if total is not None and total > max_bytes:
        raise _too_big(origin, max_bytes)
    size, writer = 0, _Writer(sink)
    try:
        # Decoded, so that the cap holds for what reaches the disk.
        async for chunk in body:
            size += len(chunk)
            if size > max_bytes:
                raise _too_big(origin, max_bytes)
            await writer.take(chunk)
        await writer.write()
        await writer.done()
    finally:
        # The caller closes the file next, which must not happen under the writer's hands.
        await writer.stopped()
    # aiohttp itself refuses what is not as long as it says; httpx counts what was encoded.
    came = response.num_bytes_downloaded or size
    if total is not None and came != total:
        raise DownloadError(f"{origin.host} sent {came} of {total} bytes.", http_status=status)
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return Downloaded(size=size, sha256=writer.digest.hexdigest(), content_type=kind)


def _is_whole(response: httpx.Response) -> bool:
    """Whether a partial answer is the whole file all the same."""
    found = _RANGE.fullmatch(response.headers.get("content-range", "").strip())
    return response.status_code == httpx.codes.PARTIAL_CONTENT and (
        found is not None and int(found[1]) + 1 == int(found[2]) == declared_size(response.headers)
    )


def _too_big(origin: Origin, max_bytes: int) -> DownloadError:
    return DownloadError(f"{origin.host} sends more than the {max_bytes} bytes a clip may have.")


class _Writer:
    """Hashes and writes on another thread, a block behind the network.

    A network file system may hang for seconds, and every other run shares the loop.

    Args:
        sink: Takes the bytes.
    """

    def __init__(self, sink: Sink) -> None:
        self.digest = hashlib.sha256()
        self._sink = sink
        self._chunks: list[bytes] = []
        self._held = 0
        self._writing: asyncio.Future[None] | None = None

    async def take(self, chunk: bytes) -> None:
        """Take what came; waits only while the disk is far behind."""
        self._chunks.append(chunk)
        self._held += len(chunk)
        idle = self._writing is None or self._writing.done()
        if self._held >= (_BLOCK if idle else _MOST_HELD):
            await self.write()

    async def write(self) -> None:
        """Begin to write what was taken, once the block before is written."""
        await self.done()
        chunks, self._chunks, self._held = self._chunks, [], 0
        self._writing = asyncio.ensure_future(asyncio.to_thread(self._write, chunks))

    async def done(self) -> None:
        """Wait for the block in hand.

        Raises:
            StoreError: It could not be written.
        """
        if self._writing is not None:
            await asyncio.shield(self._writing)

    async def stopped(self) -> None:
        """Wait until nothing is written any more, whatever came of it."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
            self._writing.exception()

    def _write(self, chunks: list[bytes]) -> None:
        try:
            for chunk in chunks:
                self.digest.update(chunk)
                rest = memoryview(chunk)
                while rest:
                    # An unbuffered file may take less than it is given.
                    rest = rest[self._sink.write(rest) :]
        except (OSError, ValueError) as exc:
            words = getattr(exc, "strerror", None) or "the file is not open for writing"
            raise StoreError(
                f"The clip could not be written: {str(words).lower()}.",
                charged="unknown",
                cure="Make room, then resume the run.",
            ) from exc
