"""A key goes to its own provider's origin only, and nothing secret gets into words, logs or cookies."""

import asyncio
import logging
import traceback

import httpx
import pytest
from pydantic import SecretStr

from kling_nb.addresses import is_loopback
from kling_nb.errors import KeyMissingError, SettingsError, TransportError, UsageError
from kling_nb.network.client import Transport
from kling_nb.providers.messages import Call
from support.transport import Names, answer, replying, serving

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


def test_an_answer_that_repeats_the_key_has_it_blotted_out():
    """In every header and in the body, before anything reads them; only a stand-in may have a short key."""

    async def run(key):
        secret = key.get_secret_value()
        echo = answer(
            f'{{"detail": "{secret}"}}'.encode(), "400 Bad", f"X-Echo: <{secret}>", f"Location: /{secret}"
        )
        async with serving(replying(echo)) as wire, Transport(**PATIENT) as transport:
            reply = await transport.send(get(f"{wire.origin}/v1"), key=key, origin=wire.origin)
            return wire.heads[0], f"{reply.headers}{reply.body!r}"

    head, shown = asyncio.run(run(KEY))
    assert "rf_live_secret" in head
    assert "rf_live" not in shown
    assert shown.count("[key]") == 3
    assert asyncio.run(run(SecretStr("k1")))[1].count("k1") == 3


def test_a_few_letters_are_sent_to_no_real_provider():
    """The last door too: what is too short to be a key leaves this machine to nobody."""
    names = Names({"api.provider.invalid": ["127.0.0.1"]})
    words = refused_before_sending(
        lambda here, port: get(f"https://api.provider.invalid:{port}/"),
        origin="https://api.provider.invalid:{port}",
        key=SecretStr("rf_live"),
        kind=KeyMissingError,
        resolver=names,
    )
    assert "fewer than 8 characters" in words
    assert names.asked == []


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
