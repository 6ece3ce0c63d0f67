"""What a failed exchange means: whether its request can have been sent, and why it failed, in words.

Invariants: the httpx exception class decides nothing, because the aiohttp adapter reports "received,
then closed" as a connect time-out; "unsent" needs two witnesses, a cause that only connecting can
raise and a count of no request head written; every other failure, known or not, may have been sent.
The words hold no address, no header and nothing a server wrote.
"""

import asyncio
import os
import ssl

import aiohttp
import httpx

from kling_nb.addresses import Origin
from kling_nb.errors import TransportError
from kling_nb.network.connections import AddressRefused, SecondWriteError
from kling_nb.providers.messages import Call

__all__ = ["ambiguous", "failed", "find_cause", "was_unsent", "why"]

_CONNECTING = (
    aiohttp.ClientConnectorError,  # refused, unreachable, DNS, TLS and certificate, the way to a proxy
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,  # a proxy refused the tunnel, so nothing went through it
    aiohttp.InvalidURL,
)

# OpenSSL's codes for a certificate that nobody trusted here has signed: self-signed, issuer not found.
_UNTRUSTED = {2, 18, 19, 20, 21}

# The first row that matches anything in the chain wins, so the exact ones stand first.
_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (AddressRefused, "its name leads to an address that is not allowed"),
    (aiohttp.ClientHttpProxyError, "the proxy refused to connect"),
    (aiohttp.ClientProxyConnectionError, "the proxy could not be reached"),
    (aiohttp.ClientConnectorDNSError, "its name could not be resolved"),
    (aiohttp.ConnectionTimeoutError, "no connection in time"),
    (aiohttp.SocketTimeoutError, "no byte came in time"),
    (httpx.DecodingError, "its encoding could not be read"),
    (aiohttp.ClientPayloadError, "it was cut off"),
    (SecondWriteError, "the connection was closed"),
    (aiohttp.ServerDisconnectedError, "the connection was closed"),
    (ConnectionRefusedError, "connection refused"),
    (ConnectionResetError, "connection reset"),
    (aiohttp.ClientResponseError, "it was not HTTP"),
    (aiohttp.http_exceptions.HttpProcessingError, "it was not HTTP"),
    (asyncio.TimeoutError, "it took too long"),
)


def was_unsent(failure: BaseException, heads_written: int) -> bool:
    """Whether the request provably never left.

    Args:
        failure: What the HTTP client raised.
        heads_written: How many request heads were handed to a socket meanwhile.

    Returns:
        True only where the same request can be sent again at no risk.

    Example:
        >>> was_unsent(RuntimeError("anything"), 0)
        False
    """
    return heads_written == 0 and find_cause(failure, *_CONNECTING) is not None


def why(failure: BaseException) -> str:
    """Say in a few words why an exchange failed.

    Args:
        failure: What the HTTP client raised.

    Returns:
        A clause that fits after a colon.

    Example:
        >>> why(ConnectionResetError())
        'connection reset'
    """
    # aiohttp's wrappers are SSL errors too but without OpenSSL's word, which the innermost one has.
    if tls := [cause for cause in _chain(failure) if isinstance(cause, ssl.SSLError)]:
        detail = getattr(tls[-1], "verify_message", None) or getattr(tls[-1], "reason", None)
        words = f"TLS failed ({str(detail or 'no handshake').lower().replace('_', ' ')})"
        if getattr(tls[-1], "verify_code", None) in _UNTRUSTED:
            words += "; where a proxy signs the traffic, SSL_CERT_FILE must name a file with its certificate"
        return words
    for kind, words in _WORDS:
        if find_cause(failure, kind) is not None:
            return words
    for cause in _chain(failure):
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno).lower()
    return f"{type(_chain(failure)[-1]).__name__}"


def find_cause(failure: BaseException, *kinds: type[BaseException]) -> BaseException | None:
    """Find the first failure of some kinds in a chain of causes.

    Args:
        failure: The outermost one.
        kinds: Exception classes.

    Returns:
        The match nearest to the outside, or None.
    """
    return next((cause for cause in _chain(failure) if isinstance(cause, kinds)), None)


def _chain(failure: BaseException) -> list[BaseException]:
    # Only stated causes count: a context may be an older failure that was dealt with.
    chain = [failure]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    return chain


def failed(exc: Exception, call: Call, place: Origin, *, unsent: bool) -> TransportError:
    """Give the error of a call that failed, after what the HTTP client raised."""
    if unsent:
        return TransportError(
            f"Could not reach {place.host}: {why(exc)}.",
            sent=False,
            cure="Nothing was sent; try again later.",
        )
    return ambiguous(call, f"The answer of {place.host} did not come: {why(exc)}.")


def ambiguous(call: Call, what: str) -> TransportError:
    """Give the error of a call that may have been sent."""
    if not call.paid:
        return TransportError(what, sent=True, cure="Try again later.")
    return TransportError(
        what,
        sent=True,
        charged="unknown",
        cure="A run may exist: look for it at the provider before sending it again.",
    )
