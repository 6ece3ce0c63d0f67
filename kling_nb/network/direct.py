"""Calls to one origin with one key: what is the same for each of them is checked and made ready once.

Invariants: a call uses the connections, certificates and time-outs of the httpx client that would send it; an
address is taken here only where it plainly lies inside the origin, and every other one goes the whole way;
nothing shows the key.
"""

import re
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlencode

import aiohttp
import httpx
from httpx_aiohttp.transport import AiohttpResponseStream
from multidict import CIMultiDict
from yarl import URL

from kling_nb.addresses import Origin
from kling_nb.network.connections import (
    PIECE_BYTES,
    Connections,
    direct_connections,
    refuse_other_host,
)
from kling_nb.providers.messages import Call

__all__ = ["DirectCalls", "as_httpx", "body_of", "prefix_of", "prepare_calls"]

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(?=/|$)")
# Behind `https://host/` no parser finds another host in these, and each is written in one way only.
_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*")


class DirectCalls:
    """What all calls to one origin with one key share.

    Args:
        place: Where they go.
        prefix: What every address begins with, up to the slash after the host.
        request: Such a call as httpx would send it.
        connections: Where httpx would send it.
    """

    def __init__(self, place: Origin, prefix: str, request: httpx.Request, connections: Connections) -> None:
        self.place = place
        self._prefix = prefix
        self._headers = CIMultiDict(request.headers)
        self._connections = connections
        timeout = request.extensions["timeout"]
        self._timeout = aiohttp.ClientTimeout(
            connect=timeout["pool"], sock_connect=timeout["connect"], sock_read=timeout["read"]
        )

    def address_of(self, call: Call) -> str | None:
        """Return the whole address of a call; None for one that goes the whole way."""
        address = call.url
        if call.params:
            address += ("&" if "?" in address else "?") + urlencode(call.params)
        return address if self.has(address) else None

    def has(self, address: str) -> bool:
        """Whether an address plainly lies inside the origin."""
        return bool(address.startswith(self._prefix) and _PATH.fullmatch(address, len(self._prefix)))

    async def open(
        self, method: str, address: str, headers: Mapping[str, str], content: bytes | None
    ) -> aiohttp.ClientResponse:
        """Send a call; a redirect is an answer like any other.

        Args:
            method: The HTTP verb.
            address: As `address_of` gave it.
            headers: Those of this call alone.
            content: Its body.
        """
        return await self._connections.session.request(
            method,
            URL(address, encoded=True),
            headers=CIMultiDict({**self._headers, **headers}) if headers else self._headers,
            data=content,
            allow_redirects=False,
            auto_decompress=False,
            timeout=self._timeout,
        )


def prepare_calls(
    client: httpx.AsyncClient, place: Origin, origin: str, headers: httpx.Headers
) -> DirectCalls | None:
    """Make the calls to one origin ready.

    Args:
        client: The client that would send them.
        place: Where they go, checked.
        origin: The same as it is spelled.
        headers: Of each of them, with the key.

    Returns:
        The calls; None where each goes the whole way, as through a proxy.

    Raises:
        SettingsError: httpx reads another host in the address.
    """
    prefix = prefix_of(origin)
    if prefix is None:
        return None
    request = client.build_request("GET", prefix, headers=headers)
    refuse_other_host(str(request.url), place)
    connections = direct_connections(client, request.url)
    return None if connections is None else DirectCalls(place, prefix, request, connections)


def prefix_of(address: str) -> str | None:
    """Give what an address begins with, up to the slash after its host; None where that is not plain."""
    spelled = _ORIGIN.match(address)
    return None if spelled is None else spelled[0] + "/"


def as_httpx(response: aiohttp.ClientResponse) -> httpx.Response:
    """Give an answer as httpx would, its body still to be read."""
    stream = AiohttpResponseStream(response)
    stream.CHUNK_SIZE = PIECE_BYTES
    return httpx.Response(response.status, headers=response.raw_headers, stream=stream)


def body_of(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Give the body of an answer in pieces, decoded should it be encoded although that was not asked for."""
    if "content-encoding" not in response.headers:
        return response.content.iter_any()
    return as_httpx(response).aiter_bytes()
