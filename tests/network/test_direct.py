"""Calls go straight to the connections of httpx's client, and keep every promise."""

import asyncio
import gzip

import httpx
import pytest
from pydantic import SecretStr

from kling_nb.errors import SettingsError, TransportError, UsageError
from kling_nb.network.client import Transport
from kling_nb.providers.messages import Call
from support.transport import answer, replying, reset, serving
from support.transport_cases import (
    KEY,
    PATIENT,
    QUICK,
    close_read,
    dribble,
    endless,
    failing,
    hang_read,
    reset_read,
)

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
def straight(monkeypatch):
    """Sending by httpx itself fails, so that what passes went straight."""

    async def whole_way(*_, **__):
        raise AssertionError("it went the whole way")

    monkeypatch.setattr(httpx.AsyncClient, "send", whole_way)


def get(origin, path="/v1/runs/1?sig=hush"):
    return Call(method="GET", url=origin + path)


def post(origin, path="/v1/runs?sig=hush", **more):
    return Call(method="POST", url=origin + path, json={"prompt": "caf\u00e9"}, paid=True, **more)


async def keep_answering(wire, reader, writer):
    while await wire.read(reader):
        writer.write(answer())


BOMB = gzip.compress(bytes(9 << 20))
FAILURES = {
    "closed": (close_read, "the connection was closed"),
    "reset": (reset_read, "connection reset"),
    "silent": (hang_read, "no byte came in time"),
    "dribbling": (dribble, "it took too long"),
    "cut off": (replying(answer(b"{", length=100)), "it was cut off"),
    "chunk cut off": (replying(CHUNKED + b"40\r\n{"), "it was cut off"),
    "no HTTP": (replying(b"220 mail ready\r\n\r\n"), "it was not HTTP"),
    "two lengths": (replying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x"), ""),
    "too large": (endless, "larger than 8388608 bytes"),
    "false gzip": (replying(answer(b"not gzip", "200 OK", "Content-Encoding: gzip")), "encoding"),
    "gzip bomb": (replying(answer(BOMB, "200 OK", "Content-Encoding: gzip")), "larger than 8388608 bytes"),
}


@pytest.mark.parametrize(("method", "charged"), [(get, "no"), (post, "unknown")])
@pytest.mark.parametrize("name", FAILURES)
def test_a_call_that_fails_says_why_and_no_secret(name, method, charged):
    """It was sent; a read charged nothing, a paid call perhaps; the words hold no query and no key."""
    behave, words = FAILURES[name]

    async def make(transport):
        async with serving(behave) as wire:
            await transport.send(method(wire.origin), key=KEY, origin=wire.origin)

    error = failing(make, **(QUICK if name in {"silent", "dribbling"} else {}))
    assert (error.sent, error.charged) == (True, charged)
    assert words in str(error)


def test_a_read_that_cannot_connect_is_unsent():
    """Nobody listens there."""

    async def make(transport):
        await transport.send(get("http://127.0.0.1:1"), key=KEY, origin="http://127.0.0.1:1")

    assert failing(make).sent is False


def test_answers_are_the_same_as_on_the_whole_way():
    """Status, headers in lower case and joined, no cookie, and the body, decoded where it is encoded."""
    odd = b"HTTP/1.1 404 No\r\nA: 1\r\na: 2\r\nSet-Cookie: a=b\r\nB: caf\xe9\r\nContent-Length: 2\r\n\r\n{}"
    payloads = (
        odd,
        answer(gzip.compress(b'{"a": 1}'), "200 OK", "Content-Encoding: gzip"),
        CHUNKED + b"2\r\n{}\r\n0\r\n\r\n",
        answer(b"", "302 Found", "Location: /b"),
        b"HTTP/1.1 204 No Content\r\n\r\n",
    )

    async def run():
        got = []
        for payload in payloads:
            async with serving(replying(payload)) as wire, Transport(**PATIENT) as transport:
                got.append(await transport.send(get(wire.origin), key=KEY, origin=wire.origin))
                assert wire.whole == 1
        return got

    first, packed, chunked, moved, empty = asyncio.run(run())
    assert (first.status, first.headers["a"], first.headers["b"]) == (404, "1, 2", "café")
    assert "set-cookie" not in first.headers
    assert (packed.json(), chunked.body, moved.status, moved.headers["location"]) == (
        {"a": 1},
        b"{}",
        302,
        "/b",
    )
    assert (empty.status, empty.body) == (204, b"")


def test_reads_share_one_connection_and_arrive_as_they_are_spelled():
    """Their escapes too; a parameter joins the query; each key is sent in its own reads only."""
    paths = ["/v1/a%2Fb?x=%7E~&y=:/@", "/v1/runs"]

    async def run():
        async with serving(keep_answering) as wire, Transport(**PATIENT) as transport:
            await transport.send(get(wire.origin, paths[0]), key=KEY, origin=wire.origin + "/base")
            asking = Call(method="GET", url=wire.origin + paths[1], params={"q": "a b", "n": "1"})
            await transport.send(asking, key=SecretStr("other-key-1"), origin=wire.origin)
            await transport.send(get(wire.origin, paths[0]), origin=wire.origin)
            return wire.heads, wire.connections

    heads, connections = asyncio.run(run())
    assert connections == 1
    assert [head.split(" ")[1] for head in heads] == [paths[0], "/v1/runs?q=a+b&n=1", paths[0]]
    keys = ["rf_live_secret" in heads[0], "other-key-1" in heads[1], "authorization" in heads[2].lower()]
    assert keys == [True, True, False]
    for head in heads:
        assert "accept-encoding: identity" in head.lower()
        assert head.lower().count("\r\nhost: 127.0.0.1:") == 1


def test_a_kept_connection_that_the_server_closed_is_opened_again():
    """A read costs nothing and is sent once more, so an idle connection that ended is no failure."""

    async def behave(wire, reader, writer):
        await wire.read(reader)
        writer.write(answer())
        await writer.drain()
        await wire.read(reader)
        reset(writer)

    async def run():
        async with serving(behave) as wire, Transport(**PATIENT) as transport:
            replies = [await transport.send(get(wire.origin), key=KEY, origin=wire.origin) for _ in range(2)]
            return [reply.status for reply in replies], wire.connections

    assert asyncio.run(run()) == ([200, 200], 2)


def test_a_paid_call_arrives_as_it_was_written_each_over_a_connection_of_its_own():
    """The very bytes whose hash the receipt holds, and the headers of the call beside the key."""

    async def run():
        async with serving(keep_answering) as wire, Transport(**PATIENT) as transport:
            call = post(wire.origin, headers={"Idempotency-Key": "kling-nb-1"})
            await transport.send(get(wire.origin), key=KEY, origin=wire.origin)
            for _ in range(2):
                await transport.send(call, key=KEY, origin=wire.origin)
            return wire.heads[1], wire.bodies[1:], wire.connections, call.content

    head, bodies, connections, content = asyncio.run(run())
    assert (bodies, connections) == ([content, content], 3)
    assert head.startswith("POST /v1/runs?sig=hush HTTP/1.1\r\n")
    lines = head.lower()
    for line in ("idempotency-key: kling-nb-1", "content-type: application/json", "rf_live_secret"):
        assert lines.count(line) == 1
    assert f"content-length: {len(content)}" in lines


@pytest.mark.parametrize("headers", [{"Authorization": "x"}, {"X-A": "a\r\nB: c"}])
def test_a_header_that_no_call_may_have_is_refused_before_anything_is_sent(headers):
    """The key's own, and what would write a second one."""

    async def run():
        async with serving(keep_answering) as wire, Transport(**PATIENT) as transport:
            with pytest.raises(UsageError, match="header"):
                await transport.send(post(wire.origin, headers=headers), key=KEY, origin=wire.origin)
            return wire.connections

    assert asyncio.run(run()) == 0


def test_a_closed_transport_reads_nothing():
    """Also where reads of that origin were made ready before."""

    async def run():
        async with serving(keep_answering) as wire:
            transport = Transport(**PATIENT)
            await transport.send(get(wire.origin), key=KEY, origin=wire.origin)
            await transport.aclose()
            with pytest.raises(TransportError, match="closed") as caught:
                await transport.send(get(wire.origin), key=KEY, origin=wire.origin)
            return caught.value.sent, wire.whole

    assert asyncio.run(run()) == (False, 1)


@pytest.mark.parametrize(
    "host", ["http://127.0.0.1:1", "http://127.0.0.1:{port}@other.invalid", "//127.0.0.1"]
)
def test_once_made_ready_reads_still_stay_inside_their_origin(host):
    """An address elsewhere is refused as on the whole way."""

    async def run():
        async with serving(keep_answering) as wire, Transport(**PATIENT) as transport:
            await transport.send(get(wire.origin), key=KEY, origin=wire.origin)
            away = get(host.format(port=wire.port), "/v1")
            with pytest.raises(SettingsError):
                await transport.send(away, key=KEY, origin=wire.origin)
            return wire.whole

    assert asyncio.run(run()) == 1


def test_behind_a_proxy_a_read_goes_the_whole_way(monkeypatch):
    """So that the proxy is asked, and sees no key."""
    monkeypatch.undo()

    async def run():
        async with serving(replying(answer(b"", "407 Proxy Authentication Required"))) as wire:
            monkeypatch.setenv("HTTPS_PROXY", wire.origin)
            async with Transport(**PATIENT) as transport:
                origin = "https://api.provider.invalid"
                with pytest.raises(TransportError, match="proxy"):
                    await transport.send(get(origin), key=KEY, origin=origin)
            return wire.heads

    [head] = asyncio.run(run())
    assert head.startswith("CONNECT api.provider.invalid:443 ")
    assert "rf_live" not in head
