"""Fetching a finished clip: which links are followed, and how their bytes reach a file.

Invariants: no key ever travels with a link; only https, or http to this machine where that is allowed;
a redirect stays on its own origin; a clip is whole, or there is an error; no error holds the path or
the query of a link, because a signed query is a secret.
"""

import asyncio
import hashlib
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import httpx

from kling_nb.addresses import Origin, host_matches, is_literal, is_loopback_host, is_public, origin_of
from kling_nb.errors import Charged, StoreError

__all__ = ["DownloadError", "Downloaded", "check_link", "declared_size", "fetch"]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 3
_EXPIRED = frozenset({403, 404, 410})
_BLOCK = 1 << 20


class DownloadError(StoreError):
    """A clip could not be fetched; the run that made it is unharmed.

    Args:
        what: What happened, as one sentence.
        http_status: The status of the answer, if there was one.
        host_unknown: Whether the link's host is not on the provider's list, so that nothing was fetched.
        cure: What is safe to do now.
        charged: As for `KlingError`; a download itself costs nothing and knows nothing of the run's charge.

    Example:
        >>> DownloadError("The link is stale.", http_status=403).http_status
        403
    """

    def __init__(
        self,
        what: str,
        *,
        http_status: int | None = None,
        host_unknown: bool = False,
        cure: str = "",
        charged: Charged = "unknown",
    ) -> None:
        self.http_status = http_status
        self.host_unknown = host_unknown
        super().__init__(what, charged=charged, cure=cure)


@dataclass(frozen=True, kw_only=True)
class Downloaded:
    """A clip that arrived whole.

    Args:
        size: Bytes.
        sha256: Of those bytes, in hexadecimal.
    """

    size: int
    sha256: str


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
            cure="The run stays in saving; check the host, then resume the run.",
        )
    return origin


async def fetch(
    client: httpx.AsyncClient, url: str, sink: BinaryIO, *, origin: Origin, max_bytes: int
) -> Downloaded:
    """Stream a checked link into a file.

    Args:
        client: A client of a media lane.
        url: The link.
        sink: Takes the bytes, off the loop's thread; left open, and to be thrown away after an error.
        origin: What `check_link` gave for the link; redirects may not leave it.
        max_bytes: The most that is accepted.

    Returns:
        What arrived.

    Raises:
        DownloadError: The server refused, redirected elsewhere, sent too much or too little.
        StoreError: The sink could not be written.
    """
    link = httpx.URL(url)
    for _ in range(_MAX_REDIRECTS + 1):
        request = client.build_request("GET", link, headers={"accept": "video/*,*/*;q=0.5"})
        response = await client.send(request, stream=True)
        try:
            if response.status_code not in _REDIRECTS or "location" not in response.headers:
                return await _receive(response, sink, origin, max_bytes)
            link = _next_link(link, response, origin)
        finally:
            await response.aclose()
    raise DownloadError(f"{origin.host} redirected {_MAX_REDIRECTS + 1} times.")


def declared_size(headers: httpx.Headers) -> int | None:
    """Read the length that a server announced.

    Args:
        headers: Of its answer.

    Returns:
        Bytes, or None where it announced none.
    """
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def _next_link(link: httpx.URL, response: httpx.Response, origin: Origin) -> httpx.URL:
    target = None
    try:
        following = link.join(response.headers["location"])
        target = origin_of(str(following))
    except (ValueError, httpx.InvalidURL):
        pass
    if target != origin:
        where = target.host if target is not None and target.host != origin.host else "somewhere else"
        raise DownloadError(
            f"{origin.host} redirected the download to {where}, which is not followed.",
            http_status=response.status_code,
        )
    return following


async def _receive(response: httpx.Response, sink: BinaryIO, origin: Origin, max_bytes: int) -> Downloaded:
    status = response.status_code
    if status != httpx.codes.OK:
        raise DownloadError(
            f"{origin.host} answered {status} to the download.",
            http_status=status,
            cure="Ask the provider for a fresh link." if status in _EXPIRED else "",
        )
    if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise DownloadError(
            f"{origin.host} encoded the clip although it was asked not to.", http_status=status
        )
    total = declared_size(response.headers)
    if total is not None and total > max_bytes:
        raise _too_big(origin, max_bytes)
    digest, size, block = hashlib.sha256(), 0, bytearray()
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > max_bytes:
            raise _too_big(origin, max_bytes)
        block += chunk
        if len(block) >= _BLOCK:
            await _write_off_loop(sink, digest, bytes(block))
            block.clear()
    await _write_off_loop(sink, digest, bytes(block))
    if total is not None and size != total:
        raise DownloadError(f"{origin.host} sent {size} of {total} bytes.", http_status=status)
    return Downloaded(size=size, sha256=digest.hexdigest())


def _too_big(origin: Origin, max_bytes: int) -> DownloadError:
    return DownloadError(f"{origin.host} sends more than the {max_bytes} bytes a clip may have.")


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...


async def _write_off_loop(sink: BinaryIO, digest: _Digest, block: bytes) -> None:
    # A network file system may hang for seconds, and every other run shares this loop.
    writing = asyncio.ensure_future(asyncio.to_thread(_write, sink, digest, block))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        # The caller closes the file next, which must not happen under the writer's hands.
        await asyncio.wait([writing])
        raise


def _write(sink: BinaryIO, digest: _Digest, block: bytes) -> None:
    digest.update(block)
    rest = memoryview(block)
    try:
        while rest:
            # An unbuffered file may take less than it is given.
            rest = rest[sink.write(rest) :]
    except (OSError, ValueError) as exc:
        words = getattr(exc, "strerror", None) or "the file is not open for writing"
        raise StoreError(
            f"The clip could not be written: {str(words).lower()}.",
            charged="unknown",
            cure="Make room, then resume the run.",
        ) from exc
