"""The one door to the network: calls to a provider, and downloads of finished clips.

Invariants: a key travels to its own provider's origin only, and over plain http to this machine only;
an answer that repeats the key has it blotted out; no redirect of a call is followed; a paid call is written
to a socket at most once; a failed call says whether it can have been sent, and says "yes" wherever that is
not known; no message holds a query, a header or a key.

Behind a proxy from the environment the final address of a download is resolved by the proxy, so the
check of resolved addresses cannot see it; scheme, host list and redirect rules hold all the same.
Loopback addresses never go through a proxy.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import Self, TypeVar

import httpx
from aiohttp.abc import AbstractResolver
from pydantic import SecretStr

from kling_nb.addresses import Origin, is_loopback_host, origin_of
from kling_nb.errors import KeyMissingError, KlingError, SettingsError, TransportError, UsageError
from kling_nb.loop import Loop
from kling_nb.network.connections import ConnectionKind, Kind, attempting, open_client, tls_context
from kling_nb.network.direct import DirectCalls, body_of, prefix_of, prepare_calls
from kling_nb.network.download import (
    ACCEPT,
    Downloaded,
    OpenResponse,
    Sink,
    check_link,
    declared_size,
    fetch,
)
from kling_nb.network.download_error import DownloadError
from kling_nb.network.failures import ambiguous, failed, was_unsent, why
from kling_nb.providers.messages import Call, Reply
from kling_nb.records.secrets import SHORTEST_KEY, blot

__all__ = ["Transport", "with_transport"]

_T = TypeVar("_T")

_KEY = re.compile(r"[\x21-\x7e]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
_MAX_REPLY_BYTES = 8 << 20
_MAX_CLIP_BYTES = 2 << 30


def with_transport(
    loop: Loop, act: Callable[["Transport"], Awaitable[_T]], timeout_s: float | None = None
) -> _T:
    """Ask providers something for free, over connections of its own, and wait for what comes of it.

    Args:
        loop: Where it runs.
        act: What is asked.
        timeout_s: Seconds to wait at most; None waits without end.

    Example:
        >>> async def answer(transport):
        ...     return 42
        >>> with_transport(Loop(), answer)
        42
    """

    async def asking() -> _T:
        async with Transport(total_timeout_s=20) as transport:
            return await act(transport)

    return loop.start(asking()).result(timeout_s)


class Transport:
    """Sends calls and fetches clips; belongs to the event loop that uses it first.

    Args:
        max_in_flight: Calls at the same time; more wait their turn before anything is sent.
        max_downloads: Downloads at the same time, counted apart.
        connect_timeout_s: Seconds for resolving, connecting and TLS together.
        read_timeout_s: Seconds that an answer may stay silent.
        total_timeout_s: Seconds for a whole call, once it has its turn.
        stall_timeout_s: Seconds that a download may stay silent.
        resolver: Resolves names instead of the system; not closed here.
        tls: How servers are verified; by default as `tls_context` says.

    Example:
        >>> asyncio.run(Transport(max_in_flight=8).aclose())
    """

    def __init__(
        self,
        *,
        max_in_flight: int = 60,
        max_downloads: int = 8,
        connect_timeout_s: float = 10,
        read_timeout_s: float = 60,
        total_timeout_s: float = 180,
        stall_timeout_s: float = 60,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._calls = asyncio.Semaphore(max_in_flight)
        self._downloads = asyncio.Semaphore(max_downloads)
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._total_timeout_s = total_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._resolver = resolver
        self._tls = tls
        self._clients: dict[ConnectionKind, httpx.AsyncClient] = {}
        self._direct: dict[tuple[Kind, str, SecretStr | None], DirectCalls | None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def send(self, call: Call, *, key: SecretStr | None = None, origin: str) -> Reply:
        """Send one call and read its whole answer.

        Args:
            call: What to send; its address must lie inside `origin`.
            key: The provider's key, or None for a call that needs none.
            origin: The provider's configured base address.

        Returns:
            The answer, whatever its status; a redirect is an answer like any other.

        Raises:
            KeyMissingError: The key cannot be a key. Nothing was sent.
            SettingsError: The call does not belong to the origin, would bare the key, or the environment's
                proxy or certificates cannot be used. Nothing was sent.
            UsageError: The call cannot be written as HTTP. Nothing was sent.
            TransportError: The network failed; `sent` is False only where nothing can have left.

        Example:
            >>> async def ask(call: Call) -> Reply:
            ...     async with Transport() as transport:
            ...         return await transport.send(call, origin="http://127.0.0.1:1")
            >>> asyncio.run(ask(Call(method="GET", url="http://127.0.0.1:1/v1/health")))
            Traceback (most recent call last):
            ...
            kling_nb.errors.TransportError: Could not reach 127.0.0.1: connection refused. ...
        """
        kind: Kind = "paid" if call.paid else "calls"
        direct = self._direct_calls(kind, origin, key)
        if direct and (address := direct.address_of(call)):
            place, content = direct.place, _content(call)
            opening = partial(direct.open, call.method, address, _own_headers(call, content, place), content)
            exchange = partial(_exchange_directly, opening)
        else:
            place = _check_origin(call.url, key, origin)
            client = self._client(kind, place)
            exchange = partial(_exchange, client, _build(client, call, key, place))
        async with self._calls:
            try:
                with attempting(place, once=call.paid) as attempt:
                    async with asyncio.timeout(self._total_timeout_s):
                        return await exchange(call, place, key)
            except KlingError:
                raise
            except Exception as exc:  # noqa: BLE001 - every failure must say whether it was sent
                failure = failed(exc, call, place, unsent=was_unsent(exc, attempt.heads))
        # Raised out here, the client's own exception, whose words hold the address, is not its context.
        raise failure

    async def download(
        self,
        url: str,
        sink: Sink,
        *,
        allowed_hosts: tuple[str, ...] | None,
        allow_loopback: bool,
        max_bytes: int = _MAX_CLIP_BYTES,
        timeout_s: float = 1800,
        key: SecretStr | None = None,
        origin: str = "",
    ) -> Downloaded:
        """Stream a finished clip into a file.

        Args:
            url: The link, from the provider's own answer.
            sink: Takes the bytes; left open, and to be thrown away after an error.
            allowed_hosts: Host suffixes the link must match; None allows every public host.
            allow_loopback: Whether this machine is a proper source, also over plain http.
            max_bytes: The most that is accepted.
            timeout_s: Seconds for the whole of it.
            key: The provider's key. It goes along once more, where `origin` itself answers 401 or 403.
            origin: The provider's configured base address.

        Returns:
            Size, SHA-256 and content type of what arrived whole.

        Raises:
            DownloadError: It could not be fetched; its attributes say what may help.
            StoreError: The sink could not be written.
            SettingsError: The environment's proxy or certificates cannot be used.

        Example:
            >>> import io
            >>> fetching = Transport().download("x:", io.BytesIO(), allowed_hosts=None, allow_loopback=False)
            >>> asyncio.run(fetching)
            Traceback (most recent call last):
            ...
            kling_nb.network.download_error.DownloadError: The link to the clip cannot be used: ...
        """
        place = check_link(url, allowed_hosts=allowed_hosts, allow_loopback=allow_loopback)
        client, directly = self._client("media", place), None
        if (prefix := prefix_of(url)) and (direct := self._direct_calls("media", prefix, None)):
            directly = partial(direct.open, "GET", url, ACCEPT, None) if direct.has(url) else None
        # A proxy's or a store's address is never shown the key: only the place that it belongs to.
        bearer = _bearer(key, place) if key is not None and origin and place == origin_of(origin) else None
        async with self._downloads:
            try:
                with attempting(place, once=False) as attempt:
                    async with asyncio.timeout(timeout_s):
                        return await fetch(
                            client,
                            url,
                            sink,
                            attempt=attempt,
                            allowed_hosts=allowed_hosts,
                            bearer=bearer,
                            max_bytes=max_bytes,
                            directly=directly,
                        )
            except KlingError:
                raise
            except Exception as exc:  # noqa: BLE001 - a clip that did not come is one kind of failure
                failure = DownloadError(f"The clip did not come from {place.host}: {why(exc)}.")
        # Raised out here for the same reason as in `send`: a signed link is a secret.
        raise failure

    async def aclose(self) -> None:
        """Close every connection; later calls fail as unsent. May be called again."""
        self._closed = True
        self._direct.clear()
        while self._clients:
            _, client = self._clients.popitem()
            await client.aclose()

    def _direct_calls(self, kind: Kind, origin: str, key: SecretStr | None) -> DirectCalls | None:
        self._check_open()
        if (kind, origin, key) not in self._direct:
            place = _check_origin(origin, key, origin)
            client = self._client(kind, place)
            self._direct[kind, origin, key] = prepare_calls(client, place, origin, _headers(key, place))
        return self._direct[kind, origin, key]

    def _check_open(self) -> None:
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._closed or loop is not self._loop:
            raise TransportError("The connection to the network is closed.", sent=False)

    def _client(self, kind: Kind, place: Origin) -> httpx.AsyncClient:
        self._check_open()
        connection = ConnectionKind(kind, is_loopback_host(place.host))
        if connection not in self._clients:
            self._clients[connection] = self._open(connection)
        return self._clients[connection]

    def _open(self, connection: ConnectionKind) -> httpx.AsyncClient:
        self._tls = self._tls or tls_context()
        try:
            return open_client(
                connection,
                connect_timeout_s=self._connect_timeout_s,
                read_timeout_s=self._stall_timeout_s if connection.kind == "media" else self._read_timeout_s,
                resolver=self._resolver,
                tls=self._tls,
            )
        except (ValueError, httpx.InvalidURL):
            # A proxy's address may hold its password, so neither it nor the parser's words are repeated.
            raise SettingsError(
                "The proxy that the environment names is not an address.",
                cure="Correct HTTPS_PROXY, HTTP_PROXY or ALL_PROXY.",
            ) from None


def _check_origin(url: str, key: SecretStr | None, origin: str) -> Origin:
    try:
        place, home, words = origin_of(url), origin_of(origin), ""
    except ValueError as exc:
        place, home, words = None, None, str(exc)
    if place is None or home is None:
        raise SettingsError(f"The provider's address cannot be used: {words}.", cure="Correct its base URL.")
    if place != home:
        raise SettingsError(f"A call to {place.host} is not inside the provider's own origin, {home.host}.")
    if key is not None and place.scheme != "https" and not is_loopback_host(place.host):
        raise SettingsError(
            f"A key is not sent to {place.host} over plain http.", cure="Use an https base URL."
        )
    return place


def _headers(key: SecretStr | None, place: Origin) -> httpx.Headers:
    headers = httpx.Headers({"accept": "application/json"})
    if key is not None:
        headers.update(_bearer(key, place))
    return headers


def _own_headers(call: Call, content: bytes | None, place: Origin) -> dict[str, str]:
    """Give the headers of one call, checked; none of them is the key's."""
    headers = {name.lower(): text for name, text in call.headers.items()}
    if "authorization" in headers or not all(map(_HEADER_VALUE.fullmatch, headers.values())):
        raise UsageError(f"A header of the call to {place.host} cannot be sent.")
    return headers if content is None else {**headers, "content-type": "application/json"}


def _bearer(key: SecretStr, place: Origin) -> httpx.Headers:
    if not _KEY.fullmatch(key.get_secret_value()):
        raise KeyMissingError(
            f"The key for {place.host} is empty, or not all of it is visible ASCII.",
            cure="Copy the key again.",
        )
    if len(key.get_secret_value()) < SHORTEST_KEY and not is_loopback_host(place.host):
        raise KeyMissingError(
            f"The key for {place.host} is not a key: it has fewer than {SHORTEST_KEY} characters.",
            cure="Copy the whole key from the provider's page.",
        )
    # This kind does not show a key where a traceback draws variables, as many do.
    return httpx.Headers({"authorization": f"Bearer {key.get_secret_value()}"})


def _content(call: Call) -> bytes | None:
    try:
        # Written here and not by the client, because the receipt holds the hash of these very bytes.
        return call.content
    except (ValueError, TypeError, RecursionError) as exc:
        words = type(exc).__name__
    raise _unwritable(words)


def _build(client: httpx.AsyncClient, call: Call, key: SecretStr | None, place: Origin) -> httpx.Request:
    headers, content = _headers(key, place), _content(call)
    headers.update(_own_headers(call, content, place))
    try:
        # httpx drops an address's own query when it is given parameters, even none.
        url = httpx.URL(call.url).copy_merge_params(dict(call.params))
        return client.build_request(call.method, url, content=content, headers=headers)
    except (ValueError, TypeError, httpx.InvalidURL) as exc:
        words = type(exc).__name__
    raise _unwritable(words)


def _unwritable(words: str) -> UsageError:
    return UsageError(f"The call cannot be written as HTTP ({words}).")


async def _exchange(
    client: httpx.AsyncClient, request: httpx.Request, call: Call, place: Origin, key: SecretStr | None
) -> Reply:
    response = await client.send(request, stream=True)
    try:
        body = await _whole(response.aiter_bytes(), call, place)
    finally:
        await response.aclose()
    announced = declared_size(response.headers)
    if announced is not None and announced != response.num_bytes_downloaded and response.status_code != 304:
        raise ambiguous(call, f"The answer of {place.host} is not as long as it says.")
    return _reply(response.status_code, response.headers.raw, body, key)


async def _exchange_directly(
    opening: OpenResponse, call: Call, place: Origin, key: SecretStr | None
) -> Reply:
    async with await opening() as response:
        # aiohttp itself refuses a body that is not as long as the answer says.
        return _reply(
            response.status, response.raw_headers, await _whole(body_of(response), call, place), key
        )


async def _whole(chunks: AsyncIterator[bytes], call: Call, place: Origin) -> bytes:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > _MAX_REPLY_BYTES:
            raise ambiguous(call, f"The answer of {place.host} is larger than {_MAX_REPLY_BYTES} bytes.")
    return bytes(body)


def _reply(status: int, raw: Iterable[tuple[bytes, bytes]], body: bytes, key: SecretStr | None) -> Reply:
    """Make a reply with the key blotted out, however JSON or a link spells it."""
    secret = "" if key is None else key.get_secret_value()
    headers: dict[str, str] = {}
    for bare, value in raw:
        if (name := bare.decode("ascii", "replace").lower()) != "set-cookie":
            text = _text(blot(value, secret))
            headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return Reply(status=status, headers=headers, body=blot(body, secret))


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
