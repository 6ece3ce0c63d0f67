"""Which connections are opened, and how: one httpx client for each lane, over aiohttp.

A lane is a kind of traffic. Calls keep their connections; a paid call always gets a fresh one, because
a server that closes an idle connection in the same moment would make the call ambiguous; media may
only connect to public addresses; a loopback lane reaches this machine only and never a proxy.

Invariants: every attempt counts the request heads it wrote, and a `once` attempt cannot write a second
one, whatever aiohttp's own retry rules are; an attempt stays on its origin; an address is sent as it was
written, because a signature may cover its very spelling; no cookie is kept; no address reaches a log.
"""

import base64
import logging
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from socket import AddressFamily
from typing import Any, Literal

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import Connection
from aiohttp.resolver import DefaultResolver
from httpx_aiohttp import AiohttpTransport, HttpxAiohttpClient
from httpx_aiohttp.transport import AiohttpResponseStream
from yarl import URL

from kling_nb.addresses import Origin, is_loopback_host, is_public, origin_of
from kling_nb.errors import SettingsError

__all__ = [
    "PIECE_BYTES",
    "AddressRefused",
    "ConnectionKind",
    "Connections",
    "Exchange",
    "Kind",
    "SecondWriteError",
    "attempting",
    "direct_connections",
    "named_certificates",
    "open_client",
    "refuse_other_host",
    "tls_context",
]

Kind = Literal["calls", "paid", "media"]

# Where certificates are named, the first one counts; the last two are those of requests and of curl.
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
#: The most that is taken from a connection, or held for one, at once.
PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class ConnectionKind:
    """One kind of traffic to one side of this machine's border.

    Args:
        kind: What travels on it.
        loopback: Whether it reaches this machine only; otherwise it reaches everything else.
    """

    kind: Kind
    loopback: bool


@dataclass
class Exchange:
    """What is known of one exchange while it runs.

    Args:
        origin: The only place its requests may go to.
        once: Whether its request may be written one time only.
        heads: How many request heads were handed to the socket.
        address: The address as httpx writes it, before aiohttp spells it in its own way.
    """

    origin: Origin
    once: bool
    heads: int = 0
    address: str = ""


class AddressRefused(OSError):  # noqa: N818 - it reports a rule, and stays inside this layer
    """A name led only to addresses that this lane may not reach."""


class SecondWriteError(RuntimeError):
    """The HTTP library was about to write a request again that may be written once."""


_current: ContextVar[Exchange | None] = ContextVar("kling_nb_attempt", default=None)


@contextmanager
def attempting(origin: Origin, *, once: bool) -> Iterator[Exchange]:
    """Follow one exchange: count its heads, hold it to its origin, keep its address out of the logs.

    Args:
        origin: The only place its requests may go to.
        once: Whether its request may be written one time only.

    Yields:
        The attempt, to be read when the exchange is over.
    """
    attempt = Exchange(origin, once)
    token = _current.set(attempt)
    try:
        yield attempt
    finally:
        _current.reset(token)


class _Request(aiohttp.ClientRequest):
    """A request that is counted before any of it is written, and whose address is sent as it is spelled."""

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        attempt = _current.get()
        if attempt is not None:
            if attempt.once and attempt.heads:
                raise SecondWriteError
            attempt.heads += 1
            if attempt.address:
                # aiohttp makes plain characters of %2F and %7E in a query, which breaks some signed links.
                self.url = URL(attempt.address, encoded=True)
        return await super().send(conn)


def _not_ours(_record: logging.LogRecord) -> bool:
    # httpx logs whole addresses at INFO, and a clip's address is a secret while it is valid.
    return _current.get() is None


class _GuardedResolver(AbstractResolver):
    """Lets only those addresses through that its lane may reach, at the moment of connecting."""

    def __init__(self, inner: AbstractResolver | None, *, loopback: bool) -> None:
        self._owned = inner is None
        self._inner = inner or DefaultResolver()
        self._loopback = loopback

    async def resolve(
        self, host: str, port: int = 0, family: AddressFamily = AddressFamily.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family=family)
        allowed = [one for one in found if self._allows(one["host"])]
        if not allowed:
            raise AddressRefused
        return allowed

    def _allows(self, address: str) -> bool:
        return is_loopback_host(address) if self._loopback else is_public(address)

    async def close(self) -> None:
        if self._owned:
            await self._inner.close()


class Connections(AiohttpTransport):
    """The aiohttp side of a lane."""

    def __init__(
        self, connection: ConnectionKind, resolver: AbstractResolver | None, *, guarded: bool, **rest: Any
    ) -> None:
        super().__init__(**rest)
        self._connection = connection
        self._resolver = resolver
        self._guard: _GuardedResolver | None = None
        self._guarded = guarded

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send what httpx built, if it still goes where it should."""
        attempt = _current.get()
        if attempt is not None:
            attempt.address = str(request.url)
            refuse_other_host(attempt.address, attempt.origin)
        response = await super().handle_async_request(request)
        if isinstance(response.stream, AiohttpResponseStream):
            # Each piece of a body passes five layers: few large ones cost a clip a third of many small ones.
            response.stream.CHUNK_SIZE = PIECE_BYTES
        return response

    @property
    def session(self) -> aiohttp.ClientSession:
        """What httpx sends through, for what goes straight to it."""
        if not isinstance(self.client, aiohttp.ClientSession):
            self.client = self.get_client()
        return self.client

    def get_client(self) -> aiohttp.ClientSession:
        """Make the session; httpx-aiohttp calls this once."""
        if self._guarded:
            self._guard = _GuardedResolver(self._resolver, loopback=self._connection.loopback)
        connector = aiohttp.TCPConnector(
            limit=0,  # the gate counts; a second queue would spend the connect time-out on waiting
            ssl=self.ssl_context,
            force_close=self._connection.kind == "paid",
            resolver=self._guard or self._resolver,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            request_class=_Request,
            read_bufsize=PIECE_BYTES if self._connection.kind == "media" else 1 << 16,
        )

    async def aclose(self) -> None:
        """Close the connections and what resolves names for them."""
        await super().aclose()
        if self._guard is not None:
            await self._guard.close()


def refuse_other_host(address: str, origin: Origin) -> None:
    """Refuse an address that httpx wrote and that is not on an origin.

    Raises:
        SettingsError: Its host can be read in two ways.
    """
    if origin_of(address) != origin:
        raise SettingsError(f"An address on {origin.host} can be read as another host's.")


class _NoRoute(httpx.AsyncBaseTransport):
    """Stands where a proxy is set that cannot be spoken to."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise SettingsError(
            f"Could not reach {request.url.host}: the proxy that the environment names is not an http one.",
            cure="Set HTTPS_PROXY to an http proxy, or name the host in NO_PROXY.",
        )


class _Client(HttpxAiohttpClient):
    def __init__(self, connection: ConnectionKind, resolver: AbstractResolver | None, **rest: Any) -> None:
        self._connection = connection
        self._resolver = resolver
        super().__init__(**rest)

    def _get_proxy_map(self, *args: Any) -> dict[str, httpx.Proxy | None]:
        # httpx fails on entries of NO_PROXY that it cannot read, e.g. `[::1]` or `fe80::/10`.
        found: dict[str, httpx.Proxy | None] = super()._get_proxy_map(*args)
        return {place: proxy for place, proxy in found.items() if proxy is not None or _is_address(place)}

    def _init_transport(self, *_: Any, **rest: Any) -> httpx.AsyncBaseTransport:
        guarded = self._connection.loopback or self._connection.kind == "media"
        return Connections(self._connection, self._resolver, guarded=guarded, **rest)

    def _init_proxy_transport(self, proxy: httpx.Proxy, *_: Any, **rest: Any) -> httpx.AsyncBaseTransport:
        if proxy.url.scheme not in {"http", "https"}:
            return _NoRoute()
        headers = httpx.Headers(proxy.headers)
        if proxy.auth:
            pair = base64.b64encode(":".join(proxy.auth).encode()).decode("ascii")
            headers["proxy-authorization"] = f"Basic {pair}"
        # aiohttp deprecates its own way to pass these, and warns in the user's cell.
        bare = httpx.Proxy(proxy.url, headers=headers)
        # The proxy resolves and connects for us, and may itself have a private address: no guard.
        return Connections(self._connection, self._resolver, guarded=False, proxy=bare, **rest)


def direct_connections(client: httpx.AsyncClient, url: httpx.URL) -> Connections | None:
    """Give the connections that a client uses for an address, or None where a proxy stands between."""
    route = client._transport_for_url(url)  # noqa: SLF001 - httpx has no public way to ask
    return route if isinstance(route, Connections) and route.proxy is None else None


def _is_address(text: str) -> bool:
    try:
        httpx.URL(text)
    except httpx.InvalidURL:
        return False
    return True


def named_certificates() -> tuple[str, str] | None:
    """Find which certificates the environment names.

    Returns:
        The variable and the file or folder in it; None where certifi's list is used.
    """
    return next(((name, os.environ[name]) for name in _CERTIFICATES if os.environ.get(name)), None)


def tls_context() -> ssl.SSLContext:
    """Make the TLS side of a client.

    Raises:
        SettingsError: The certificates that the environment names cannot be read.
    """
    named = named_certificates()
    if named is None:
        return httpx.create_ssl_context(trust_env=False)
    name, place = named
    try:
        if name == "SSL_CERT_DIR" or Path(place).is_dir():
            return ssl.create_default_context(capath=place)
        return ssl.create_default_context(cafile=place)
    except OSError:
        raise SettingsError(
            f"The certificates that {name} names cannot be read.", cure="Correct or unset it."
        ) from None


def open_client(
    connection: ConnectionKind,
    *,
    connect_timeout_s: float,
    read_timeout_s: float,
    resolver: AbstractResolver | None,
    tls: ssl.SSLContext,
) -> httpx.AsyncClient:
    """Make the client of a lane; it connects to nothing yet.

    Args:
        connection: What the client is for.
        connect_timeout_s: Seconds for the whole of resolving, connecting and TLS.
        read_timeout_s: Seconds without a byte.
        resolver: Resolves names instead of the system, for tests; not closed here.
        tls: How servers are verified.

    Returns:
        A client that follows no redirect, keeps no cookie and reads proxies from the environment, except
        on a loopback lane.

    Raises:
        ValueError: The environment names a proxy that is not an address.
    """
    log = logging.getLogger("httpx")
    if _not_ours not in log.filters:
        log.addFilter(_not_ours)
    return _Client(
        connection,
        resolver,
        verify=tls,
        trust_env=not connection.loopback,
        follow_redirects=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        headers={"user-agent": "kling-nb", "accept-encoding": "identity"},
        # aiohttp's `connect`, which the adapter fills from `pool`, covers resolving and TLS too.
        timeout=httpx.Timeout(
            connect=connect_timeout_s, pool=connect_timeout_s, read=read_timeout_s, write=read_timeout_s
        ),
    )
