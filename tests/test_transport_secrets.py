"""A key goes to its own provider's origin only, and nothing secret gets into words, logs or cookies."""

import asyncio
import base64
import logging
import traceback

import httpx
import pytest
from pydantic import SecretStr

from kling_nb.calls import Call
from kling_nb.errors import KeyMissingError, SettingsError, TransportError, UsageError
from kling_nb.transport import Transport, is_loopback
from transport_server import Names, answer, replying, reset, server_tls, serving, trusting_tls

KEY = SecretStr("rf_live_secret")
PATIENT = {"connect_timeout_s": 20, "read_timeout_s": 20}


def get(url, **rest):
    return Call(method="GET", url=url, **rest)


async def keep_answering(wire, reader, writer):
    while await wire.read(reader):
        writer.write(answer())


def refused_before_sending(call, *, origin, key=KEY, kind=SettingsError, **options):
    """Send a call that must be refused while a server listens, and give the words."""

    async def run():
        async with serving(keep_answering) as wire, Transport(**PATIENT, **options) as transport:
            place = {"here": wire.origin, "port": str(wire.port)}
            own = get(wire.origin + "/own")
            assert (await transport.send(own, origin=wire.origin)).status == 200
            with pytest.raises(kind) as caught:
                await transport.send(call(**place), key=key, origin=origin.format(**place))
            assert not isinstance(caught.value, TransportError)
            return wire.whole, caught.value

    whole, error = asyncio.run(run())
    assert whole == 1
    assert "rf_live" not in "".join(traceback.format_exception(error))
    return str(error)


@pytest.mark.parametrize(
    "origin",
    [
        "https://api.runflow.io",
        "http://localhost:{port}",
        "http://127.0.0.2:{port}",
        "http://127.0.0.1",
        "https://127.0.0.1:{port}",
    ],
)
def test_key_stays_inside_its_origin(origin):
    """Scheme, host and port must all be the provider's own, or nothing is sent at all."""
    words = refused_before_sending(lambda here, port: get(f"{here}/v1"), origin=origin)
    assert "Charged: no." in words


@pytest.mark.parametrize(
    "url",
    [
        "http://user:pw@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}\\@api.runflow.io/",
        "http://127.0.0.1:{port}/ two",
        "http://127.0.0.1:{port}/\r\nHost: x",
        "ftp://127.0.0.1/",
        "//127.0.0.1:{port}/",
        "http://127.1:{port}/",
        "http://:{port}/",
        "http://127.0.0.1:99999/",
    ],
)
def test_odd_addresses_are_refused(url):
    """An address that two parsers could read differently is not sent."""
    words = refused_before_sending(lambda here, port: get(url.format(port=port)), origin="{here}")
    assert "pw" not in words


@pytest.mark.parametrize(
    "text", ["", " ", "abc\n", "abc\r\nX-Evil: 1", "abc def", "k\u00e9y", "a\x00b", "\u2028"]
)
def test_bad_keys_are_refused_unshown(text):
    """A key that cannot be one is refused before sending, in words that do not hold it."""
    words = refused_before_sending(
        lambda here, port: get(f"{here}/v1"), origin="{here}", key=SecretStr(text), kind=KeyMissingError
    )
    assert not text.strip() or text.strip() not in words


def test_key_needs_https_or_loopback():
    """A key is not sent in the clear to another machine."""
    names = Names({"api.provider.invalid": ["127.0.0.1"]})
    words = refused_before_sending(
        lambda here, port: get(f"http://api.provider.invalid:{port}/"),
        origin="http://api.provider.invalid:{port}",
        resolver=names,
    )
    assert "plain http" in words
    assert names.asked == []


def test_localhost_that_leads_elsewhere_gets_no_key():
    """The name `localhost` is trusted only as far as its addresses are loopback."""

    async def run():
        names = Names({"localhost": ["10.1.2.3", "93.184.216.34"]})
        async with Transport(**PATIENT, resolver=names) as transport:
            with pytest.raises(TransportError) as caught:
                await transport.send(get("http://localhost:8000/"), key=KEY, origin="http://localhost:8000")
            return names.asked, caught.value

    asked, error = asyncio.run(run())
    assert asked == ["localhost"]
    assert error.sent is False
    assert "not allowed" in str(error)


@pytest.mark.parametrize(
    "headers", [{"Authorization": "Bearer x"}, {"X-A": "b\r\nX-B: c"}, {"X-A": "\u20ac"}]
)
def test_bad_headers_are_refused(headers):
    """A call brings no key of its own and no header that breaks out of its line."""
    refused_before_sending(
        lambda here, port: get(f"{here}/v1", headers=headers), origin="{here}", kind=UsageError
    )


@pytest.mark.parametrize("body", [{"a": float("nan")}, {"a": object()}, {"a": "\ud800"}])
def test_bodies_that_are_no_json_are_refused(body):
    """A body that cannot be written is refused as unsent, not as a failed send."""
    refused_before_sending(
        lambda here, port: Call(method="POST", url=f"{here}/v1", json=body, paid=True),
        origin="{here}",
        kind=UsageError,
    )


def test_call_arrives_as_written():
    """Key, headers, query and body arrive as they were given, once."""

    async def run():
        async with serving(keep_answering) as wire, Transport(**PATIENT) as transport:
            call = Call(
                method="POST",
                url=f"{wire.origin}/v1/models/a/b/runs?x=1",
                json={"prompt": "\u96ea"},
                headers={"Idempotency-Key": "k1"},
                params={"q": "a b"},
                paid=True,
            )
            await transport.send(call, key=KEY, origin=wire.origin + "/base")
            await transport.send(get(f"{wire.origin}/open?x=1"), origin=wire.origin)
            return wire.heads, wire.bodies

    (first, second), (body, _) = asyncio.run(run())
    lines = first.lower().split("\r\n")
    assert lines[0] in {
        "post /v1/models/a/b/runs?x=1&q=a+b http/1.1",
        "post /v1/models/a/b/runs?x=1&q=a%20b http/1.1",
    }
    assert lines.count("authorization: bearer rf_live_secret") == 1
    assert "idempotency-key: k1" in lines
    assert "content-type: application/json" in lines
    assert "accept-encoding: identity" in lines
    assert body == '{"prompt":"\u96ea"}'.encode()
    assert second.startswith("GET /open?x=1 ")
    assert "authorization" not in second.lower()


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
)
def test_redirects_are_replies(status):
    """A redirect of a call is handed back and not followed, so the key visits nobody else."""

    async def run():
        async with serving(keep_answering) as other:
            away = replying(answer(b"", status, f"Location: {other.origin}/steal"))
            async with serving(away) as wire, Transport(**PATIENT) as transport:
                call = Call(method="POST", url=f"{wire.origin}/v1", json={}, paid=True)
                reply = await transport.send(call, key=KEY, origin=wire.origin)
                return reply.status, wire.whole, other.connections

    assert asyncio.run(run()) == (int(status[:3]), 1, 0)


def test_address_that_changes_hosts_on_the_way_is_refused(monkeypatch):
    """Should the HTTP library read another host out of an address, nothing is sent to it."""

    async def run():
        async with serving(keep_answering) as other, serving(keep_answering) as wire:
            build = httpx.AsyncClient.build_request
            monkeypatch.setattr(
                httpx.AsyncClient,
                "build_request",
                lambda self, method, url, **rest: build(self, method, other.origin, **rest),
            )
            async with Transport(**PATIENT) as transport:
                with pytest.raises(SettingsError, match="another"):
                    await transport.send(get(wire.origin), key=KEY, origin=wire.origin)
            return other.connections, wire.connections

    assert asyncio.run(run()) == (0, 0)


def test_no_cookies():
    """A cookie that a server sets is not sent back, on any lane."""

    async def cookies(wire, reader, writer):
        while await wire.read(reader):
            writer.write(answer(b"{}", "200 OK", "Set-Cookie: account=a; Path=/"))

    async def run():
        async with serving(cookies) as wire, Transport(**PATIENT) as transport:
            for _ in range(3):
                await transport.send(get(f"{wire.origin}/v1"), key=KEY, origin=wire.origin)
            return wire.heads

    heads = asyncio.run(run())
    assert len(heads) == 3
    assert not any("cookie" in head.lower() for head in heads)


def test_nothing_is_logged(caplog):
    """No address of ours reaches a log, while other people's httpx calls are still logged."""
    caplog.set_level(logging.DEBUG)

    async def run():
        async with serving(keep_answering) as wire, Transport(**PATIENT) as transport:
            await transport.send(get(f"{wire.origin}/v1?sig=hush"), key=KEY, origin=wire.origin)
            ours = caplog.text
            await transport._client("calls", httpx.URL(wire.origin)).get(f"{wire.origin}/theirs")
            return wire.whole, ours

    whole, ours = asyncio.run(run())
    assert whole == 2
    assert "hush" not in ours
    assert "rf_live" not in ours
    assert "/theirs" in caplog.text


def test_key_is_in_no_repr():
    """Neither the transport nor what it raises shows the key."""

    query = "sig=hu" + "sh"

    async def run():
        async with serving(replying(b"junk\r\n\r\n")) as wire, Transport(**PATIENT) as transport:
            with pytest.raises(TransportError) as caught:
                await transport.send(get(f"{wire.origin}/?{query}"), key=KEY, origin=wire.origin)
            shown = "".join(traceback.format_exception(caught.value))
            return wire.heads[0], shown + repr(transport) + repr(vars(transport)) + repr(caught.value)

    head, shown = asyncio.run(run())
    assert "sig=hush" in head
    assert "rf_live_secret" in head
    assert "rf_live" not in shown
    assert "hush" not in shown


# Proxies


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


def test_unreadable_certificates_are_a_matter_of_settings(monkeypatch):
    """A wrong SSL_CERT_FILE is named as such."""
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/at/all.pem")

    async def run():
        async with Transport() as transport:
            await transport.send(get("http://127.0.0.1:1/"), origin="http://127.0.0.1:1")

    with pytest.raises(SettingsError, match="SSL_CERT_FILE"):
        asyncio.run(run())


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://localhost", True),
        ("http://[::1]:1/x", True),
        ("https://api.runflow.io", False),
        ("http://localhost.evil.org", False),
        ("", False),
        ("sandbox", False),
    ],
)
def test_is_loopback(url, here):
    """An address counts as this machine only when its host says so itself."""
    assert is_loopback(url) is here
