"""What fails before a connection stands is unsent, and only that: refused, DNS, TLS, time-out."""

import asyncio
import socket
import ssl

import httpx
import pytest

from kling_nb.errors import TransportError
from kling_nb.network.client import Transport
from support.transport import Names, answer, replying, server_tls, serving, trusting_tls
from support.transport_cases import (
    KEY,
    QUICK,
    close_read,
    close_unread,
    failing,
    hang_read,
    hang_unread,
    post,
    reset_read,
    reset_unread,
    speak_first,
)


def test_refused_is_unsent():
    """A refused connection is provably unsent and says so."""

    async def make(transport):
        # Nobody listens there, and nobody else gets it meanwhile.
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            origin = f"http://127.0.0.1:{bound.getsockname()[1]}"
            await transport.send(post(origin), key=KEY, origin=origin)

    error = failing(make)
    assert (error.sent, error.charged) == (False, "no")
    assert error.what == "Could not reach 127.0.0.1: connection refused."


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "its name could not be resolved"),
        (OSError("weather"), "its name could not be resolved"),
        (None, "no connection in time"),
    ],
)
def test_dns_failure_is_unsent(found, words):
    """A name that cannot be resolved, or not in time, is provably unsent."""

    async def make(transport):
        origin = "https://api.provider.invalid"
        await transport.send(post(origin), key=KEY, origin=origin)

    error = failing(make, **({} if found else QUICK), resolver=Names({"api.provider.invalid": found}))
    assert error.sent is False
    assert words in str(error)


def test_system_dns_failure_is_unsent():
    """The same holds for the system's own resolver."""

    async def make(transport):
        origin = "https://api.provider.invalid"
        await transport.send(post(origin), origin=origin)

    assert failing(make).sent is False


def test_connect_timeout_is_unsent():
    """A connection that is never accepted is unsent: the handshake itself gets no answer."""
    counted = []

    async def make(transport):
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            crowd = []
            while True:
                one = socket.socket()
                one.settimeout(0.2)
                crowd.append(one)
                try:
                    one.connect(full.getsockname())
                except TimeoutError:
                    break
            origin = f"http://127.0.0.1:{full.getsockname()[1]}"
            try:
                await transport.send(post(origin), key=KEY, origin=origin)
            finally:
                for one in crowd:
                    one.close()
                full.settimeout(0.2)
                while True:
                    try:
                        peer, _ = full.accept()
                    except TimeoutError:
                        break
                    with peer:
                        peer.settimeout(0.2)
                        counted.append(peer.recv(1000))

    error = failing(make, **QUICK)
    assert error.sent is False
    assert "no connection in time" in str(error)
    assert counted
    assert not any(counted)


def test_never_accepted_but_connected_is_sent():
    """The kernel shakes hands for a server that never accepts, so silence after that is ambiguous."""

    async def make(transport):
        with socket.socket() as idle:
            idle.bind(("127.0.0.1", 0))
            idle.listen(5)
            origin = f"http://127.0.0.1:{idle.getsockname()[1]}"
            await transport.send(post(origin), key=KEY, origin=origin)

    assert failing(make, **QUICK).sent is True


@pytest.mark.parametrize(
    ("behave", "words"),
    [
        (hang_unread, "no connection in time"),
        (close_unread, ""),
        (reset_unread, "connection reset"),
        (speak_first, "TLS failed"),
    ],
)
def test_tls_to_a_plain_port_is_unsent(behave, words):
    """A TLS handshake that fails on the wire lets nothing out."""
    counted = []

    async def make(transport):
        async with serving(behave) as wire:
            origin = f"https://127.0.0.1:{wire.port}"
            try:
                await transport.send(post(origin), key=KEY, origin=origin)
            finally:
                counted.extend((wire.connections, wire.whole))

    error = failing(make, **(QUICK if behave is hang_unread else {}))
    assert error.sent is False
    assert words in str(error)
    assert counted == [1, 0]


def test_untrusted_certificate_is_unsent(tmp_path):
    """A self-signed server gets no request, and the words name TLS."""
    counted = []

    async def make(transport):
        async with serving(replying(answer()), tls=server_tls(tmp_path)) as wire:
            origin = f"https://127.0.0.1:{wire.port}"
            try:
                await transport.send(post(origin), key=KEY, origin=origin)
            finally:
                counted.append(wire.whole)

    error = failing(make)
    assert error.sent is False
    assert "TLS failed" in str(error)
    assert counted == [0]


def test_wrong_name_in_the_certificate_is_unsent(tmp_path):
    """A trusted certificate for another name gets no request either."""
    counted = []

    async def make(transport):
        async with serving(replying(answer()), tls=server_tls(tmp_path)) as wire:
            origin = f"https://api.provider.invalid:{wire.port}"
            try:
                await transport.send(post(origin), key=KEY, origin=origin)
            finally:
                counted.append(wire.whole)

    names = Names({"api.provider.invalid": ["127.0.0.1"]})
    error = failing(make, resolver=names, tls=trusting_tls())
    assert error.sent is False
    assert "TLS failed" in str(error)
    assert (counted, names.asked) == ([0], ["api.provider.invalid"])


@pytest.mark.parametrize("behave", [close_read, reset_read, hang_read])
def test_after_tls_doubt_is_sent(behave, tmp_path):
    """Behind a sound handshake the same doubts are ambiguous."""
    counted = []

    async def make(transport):
        async with serving(behave, tls=server_tls(tmp_path)) as wire:
            origin = f"https://localhost:{wire.port}"
            try:
                await transport.send(post(origin), key=KEY, origin=origin)
            finally:
                counted.append(wire.whole)

    assert (
        failing(make, **({"read_timeout_s": 0.4} if behave is hang_read else {}), tls=trusting_tls()).sent
        is True
    )
    assert counted == [1]


def test_closed_or_foreign_loop_is_unsent():
    """A transport that is closed, or belongs to another loop, sends nothing."""

    async def use(transport):
        await transport.send(post("http://127.0.0.1:1"), origin="http://127.0.0.1:1")

    async def closed():
        transport = Transport()
        await transport.aclose()
        await transport.aclose()
        await use(transport)

    with pytest.raises(TransportError) as caught:
        asyncio.run(closed())
    assert caught.value.sent is False
    transport = Transport()
    with asyncio.Runner() as first:
        with pytest.raises(TransportError, match="refused"):
            first.run(use(transport))
        with asyncio.Runner() as second, pytest.raises(TransportError, match="closed") as caught:
            second.run(use(transport))
        first.run(transport.aclose())
    assert caught.value.sent is False


def test_default_tls_checks_certificates():
    """Without a context of its own the transport verifies certificates and names."""

    async def run():
        async with Transport() as transport:
            transport._client("calls", httpx.URL("https://api.provider.invalid"))
            return transport._tls

    tls = asyncio.run(run())
    assert tls.verify_mode is ssl.CERT_REQUIRED
    assert tls.check_hostname
