"""Behind a proxy: what a failed tunnel means, who sees which secret, and what stays on this machine."""

import asyncio
import base64
import traceback

import pytest
from pydantic import SecretStr

from kling_nb.errors import SettingsError, TransportError
from kling_nb.network.client import Transport
from kling_nb.network.connections import named_certificates
from kling_nb.providers.messages import Call
from support.transport import answer, replying, reset, server_tls, serving, trusting_tls

KEY = SecretStr("rf_live_secret")
PATIENT = {"connect_timeout_s": 20, "read_timeout_s": 20}


def get(url, **rest):
    return Call(method="GET", url=url, **rest)


async def keep_answering(wire, reader, writer):
    while await wire.read(reader):
        writer.write(answer())


async def proxy_for(port, wire, reader, writer):
    """Connect a tunnel to a port here, whatever name was asked for."""
    if await wire.read(reader) is None:
        return
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
    wire.writers.append(far_writer)
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async def pump(source, sink):
        while data := await source.read(65536):
            sink.write(data)
        sink.close()

    await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))


def through_proxy(monkeypatch, behave, url="http://us%40er:pw@127.0.0.1:{port}", **options):
    """Send one paid call to a name that only the proxy can reach; give the error and the proxy's heads."""

    async def run():
        async with serving(behave) as wire:
            monkeypatch.setenv("HTTPS_PROXY", url.format(port=wire.port))
            async with Transport(**{**PATIENT, **options}) as transport:
                origin = "https://api.provider.invalid"
                call = Call(method="POST", url=f"{origin}/v1", json={}, paid=True)
                with pytest.raises((TransportError, SettingsError)) as caught:
                    await transport.send(call, key=KEY, origin=origin)
                return caught.value, wire.heads

    error, heads = asyncio.run(run())
    assert "pw" not in "".join(traceback.format_exception(error))
    return error, heads


def test_proxy_that_refuses_the_tunnel_is_unsent(monkeypatch):
    """A proxy that says no to CONNECT let nothing through; it saw its own password and never the key."""
    error, heads = through_proxy(monkeypatch, replying(answer(b"", "407 Proxy Authentication Required")))
    assert error.sent is False
    assert "proxy" in str(error)
    assert len(heads) == 1
    assert heads[0].startswith("CONNECT api.provider.invalid:443 ")
    assert "Basic " + base64.b64encode(b"us@er:pw").decode() in heads[0]
    assert "rf_live" not in heads[0]


def test_proxy_out_of_reach_is_unsent(monkeypatch):
    """A proxy that cannot be reached let nothing through."""
    error, _ = through_proxy(monkeypatch, keep_answering, url="http://127.0.0.1:1")
    assert error.sent is False
    assert "proxy" in str(error)


def test_silent_proxy_is_unsent(monkeypatch):
    """A proxy that never opens the tunnel runs into the connect time-out: nothing went through."""

    async def hang(wire, reader, writer):
        await wire.read(reader)
        await wire.hang()

    error, heads = through_proxy(monkeypatch, hang, connect_timeout_s=0.5)
    assert error.sent is False
    assert len(heads) == 1


def test_proxy_that_breaks_off_is_ambiguous(monkeypatch):
    """A proxy that hangs up inside CONNECT is given the cautious reading."""

    async def hang_up(wire, reader, writer):
        await wire.read(reader)
        reset(writer)

    error, heads = through_proxy(monkeypatch, hang_up)
    assert error.sent is True
    assert len(heads) == 1


def test_tunnel_carries_the_call(monkeypatch, tmp_path):
    """Through a proxy the call arrives inside TLS, and what happens after that is ambiguous again."""

    async def lost(wire, reader, writer):
        await wire.read(reader)
        if wire.whole > 1:
            reset(writer)
            return
        writer.write(answer(b'{"ok": 1}'))

    async def run():
        async with serving(lost, tls=server_tls(tmp_path)) as far:

            async def tunnel(wire, reader, writer):
                await proxy_for(far.port, wire, reader, writer)

            async with serving(tunnel) as near:
                monkeypatch.setenv("HTTPS_PROXY", near.origin)
                # The far server's certificate names localhost, which would not go through a proxy.
                tls = trusting_tls()
                tls.check_hostname = False
                async with Transport(**PATIENT, tls=tls) as transport:
                    origin = "https://api.provider.invalid"
                    call = Call(method="POST", url=f"{origin}/v1", json={}, paid=True)
                    reply = await transport.send(call, key=KEY, origin=origin)
                    with pytest.raises(TransportError) as caught:
                        await transport.send(call, key=KEY, origin=origin)
                    return reply, caught.value, far.heads, near.heads

    reply, error, far, near = asyncio.run(run())
    assert reply.json() == {"ok": 1}
    assert error.sent is True
    assert [head.split()[0] for head in far] == ["POST", "POST"]
    assert [head.split()[0] for head in near] == ["CONNECT", "CONNECT"]
    assert "rf_live_secret" in far[0]
    assert "rf_live" not in "".join(near)


@pytest.mark.parametrize(
    "url", ["socks5://us:pw@127.0.0.1:{port}", "ftp://us:pw@127.0.0.1", "http://us:pw@[::1:{port}"]
)
def test_proxy_of_another_kind_is_refused_in_words(monkeypatch, url):
    """A proxy that cannot be used is a matter of settings: nothing is sent, and nothing goes around it."""
    error, heads = through_proxy(monkeypatch, keep_answering, url=url)
    assert isinstance(error, SettingsError)
    assert "prox" in str(error).lower()
    assert heads == []


def test_loopback_never_goes_through_a_proxy(monkeypatch):
    """The sandbox works behind a proxy setting, and a stand-in's traffic stays on this machine."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def run():
        async with serving(keep_answering) as wire, Transport(**PATIENT) as transport:
            reply = await transport.send(get(f"{wire.origin}/v1"), key=KEY, origin=wire.origin)
            return reply.status, wire.whole

    assert asyncio.run(run()) == (200, 1)


@pytest.mark.parametrize(
    "entry", ["fe80::/10", "[::1]", "[fe80::1%eth0]", "http://[::1", "127.0.0.1, fe80::/10"]
)
def test_an_entry_of_no_proxy_that_cannot_be_read_is_skipped(monkeypatch, entry):
    """Names and addresses beside it still count, and so does the proxy."""
    monkeypatch.setenv("NO_PROXY", f"{entry}, .provider.invalid")
    error, heads = through_proxy(monkeypatch, keep_answering)
    assert (error.sent, heads) == (False, [])
    monkeypatch.setenv("NO_PROXY", entry)
    error, heads = through_proxy(monkeypatch, replying(answer(b"", "407 Proxy Authentication Required")))
    assert (error.sent, len(heads)) == (False, 1)


CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture
def no_certificates(monkeypatch):
    """This machine's own are not looked at."""
    for name in ("SSL_CERT_DIR", *CERTIFICATES):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_certificates")
@pytest.mark.parametrize("name", CERTIFICATES)
def test_unreadable_certificates_are_a_matter_of_settings(monkeypatch, name):
    """The variable is named."""
    monkeypatch.setenv(name, "/nowhere/at/all.pem")

    async def run():
        async with Transport() as transport:
            await transport.send(get("http://127.0.0.1:1/"), origin="http://127.0.0.1:1")

    with pytest.raises(SettingsError, match=name):
        asyncio.run(run())


@pytest.mark.usefixtures("no_certificates")
@pytest.mark.parametrize("name", CERTIFICATES)
def test_certificates_of_ones_own_are_used(monkeypatch, tmp_path, name):
    """What makes requests or curl trust a proxy makes us trust it; without, the failure names the cure."""

    async def run():
        async with (
            serving(keep_answering, tls=server_tls(tmp_path)) as wire,
            Transport(**PATIENT) as transport,
        ):
            origin = f"https://localhost:{wire.port}"
            return (await transport.send(get(f"{origin}/v1"), key=KEY, origin=origin)).status

    with pytest.raises(TransportError, match=r"TLS failed .*SSL_CERT_FILE") as caught:
        asyncio.run(run())
    assert caught.value.sent is False
    monkeypatch.setenv(name, str(tmp_path / "localhost.pem"))
    assert named_certificates() == (name, str(tmp_path / "localhost.pem"))
    assert asyncio.run(run()) == 200
