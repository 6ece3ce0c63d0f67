"""A failed call says truthfully whether it can have been sent: real sockets, and servers that count."""

import asyncio
import time

import aiohttp
import httpx
import pytest

from kling_nb.network.client import Transport
from kling_nb.providers.messages import Call
from support.transport import answer, replying, reset, serving
from support.transport_cases import (
    KEY,
    PATIENT,
    QUICK,
    close_read,
    close_unread,
    dribble,
    endless,
    failing,
    hang_read,
    hang_unread,
    post,
    reset_read,
    reset_unread,
)


async def half_read_reset(wire, reader, writer):
    await reader.readexactly(20)
    reset(writer)


async def hang_in_body(wire, reader, writer):
    await wire.read(reader)
    writer.write(answer(b"{", length=10))
    await wire.hang()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

# behaviour, whole requests the server reads, words
AMBIGUOUS = {
    "closed before reading": (close_unread, 0, ""),
    "reset before reading": (reset_unread, 0, ""),
    "reset in the middle of reading": (half_read_reset, 0, ""),
    "silent, not reading": (hang_unread, 0, "no byte came in time"),
    "closed after reading": (close_read, 1, "the connection was closed"),
    "reset after reading": (reset_read, 1, "connection reset"),
    "silent after reading": (hang_read, 1, "no byte came in time"),
    "silent in the body": (hang_in_body, 1, "no byte came in time"),
    "dribbling": (dribble, 1, "it took too long"),
    "body cut off": (replying(answer(b"{", length=100)), 1, "it was cut off"),
    "chunk cut off": (replying(CHUNKED + b"40\r\n{"), 1, "it was cut off"),
    "last chunk missing": (replying(CHUNKED + b"2\r\n{}\r\n"), 1, "it was cut off"),
    "no HTTP": (replying(b"220 mail ready\r\n\r\n"), 1, "it was not HTTP"),
    "junk bytes": (replying(bytes(range(128, 256)) + b"\r\n\r\n"), 1, "it was not HTTP"),
    "head cut off": (replying(b"HTTP/1.1 200 OK\r\nContent-Le"), 1, ""),
    "two lengths": (replying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x"), 1, ""),
    "declared too large": (replying(answer(b"{", length=9 << 20)), 1, ""),
    "really too large": (endless, 1, "larger than 8388608 bytes"),
    "false gzip": (replying(answer(b"not gzip", "200 OK", "Content-Encoding: gzip")), 1, "encoding"),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
@pytest.mark.parametrize("paid", [True, False])
def test_doubt_is_sent(name, paid):
    """Promise 1: whatever can have reached the server is never called unsent, and is not sent twice."""
    behave, whole, words = AMBIGUOUS[name]
    counted = []

    async def make(transport):
        async with serving(behave) as wire:
            try:
                await transport.send(post(wire.origin, paid=paid), key=KEY, origin=wire.origin)
            finally:
                counted.extend((wire.connections, wire.whole))

    error = failing(make, **(QUICK if name.startswith(("silent", "dribbling")) else {}))
    assert error.sent is True
    assert counted == [1, whole]
    assert error.charged == ("unknown" if paid else "no")
    assert words in str(error)
    assert "127.0.0.1" in str(error)


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("paid", [True, False])
def test_kept_connection_that_closes_gets_one_post(reads, paid):
    """A POST over a kept connection that then closes is not sent again behind our back."""
    counted = {}

    async def behave(wire, reader, writer):
        await wire.read(reader)
        if wire.whole > 1 and wire.connections > 1:
            return
        writer.write(answer())
        await writer.drain()
        if reads:
            await wire.read(reader)
        else:
            await reader.readexactly(1)
            reset(writer)

    async def make(transport):
        async with serving(behave) as wire:
            health = Call(method="GET", url=f"{wire.origin}/v1/health")
            assert (await transport.send(health, origin=wire.origin)).status == 200
            try:
                await transport.send(post(wire.origin, paid=paid), key=KEY, origin=wire.origin)
            finally:
                await asyncio.sleep(0.1)
                counted["connections"] = wire.connections
                counted["posts"] = sum(head.startswith("POST") for head in wire.heads)

    assert failing(make).sent is True
    # A paid call has a connection of its own, where the server reads it whole before it closes.
    assert counted == {"connections": 2, "posts": 1} if paid else {"connections": 1, "posts": int(reads)}


def test_paid_call_opens_a_fresh_connection():
    """A stale kept connection cannot make a paid call ambiguous: it is not used for one."""

    async def behave(wire, reader, writer):
        while await wire.read(reader):
            writer.write(answer())

    async def run():
        async with serving(behave) as wire, Transport(**PATIENT) as transport:
            for _ in range(3):
                await transport.send(Call(method="GET", url=f"{wire.origin}/a"), origin=wire.origin)
            kept = wire.connections
            for _ in range(3):
                await transport.send(post(wire.origin), key=KEY, origin=wire.origin)
            return kept, wire.connections, wire.whole

    assert asyncio.run(run()) == (1, 4, 6)


def test_paid_call_is_written_once_even_if_the_library_retries(monkeypatch):
    """At most once is our own rule: it holds when aiohttp takes POST for idempotent."""
    monkeypatch.setattr(aiohttp.client, "IDEMPOTENT_METHODS", frozenset({"GET", "POST"}))
    counts = {}

    for paid in (True, False):

        async def make(transport, paid=paid):
            async with serving(close_read) as wire:
                try:
                    await transport.send(post(wire.origin, paid=paid), key=KEY, origin=wire.origin)
                finally:
                    counts[paid] = wire.whole

        assert failing(make).sent is True
    # The unpaid one shows that the retry really was on.
    assert counts == {True: 1, False: 2}


def test_retried_read_that_ends_refused_is_sent():
    """The first try of a read was sent, so the refusal of its retry does not make it unsent."""

    async def make(transport):
        listening = {}

        async def once(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            listening["server"].close()
            writer.close()

        listening["server"] = server = await asyncio.start_server(once, "127.0.0.1", 0)
        origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await transport.send(Call(method="GET", url=f"{origin}/v1/runs"), origin=origin)

    error = failing(make)
    assert "connection refused" in str(error)
    assert error.sent is True


def test_cancel_passes_through():
    """A cancelled call is cancelled, not reported as a failure of the network."""

    async def run():
        async with serving(hang_read) as wire, Transport() as transport:
            task = asyncio.ensure_future(transport.send(post(wire.origin), key=KEY, origin=wire.origin))
            await wire.seen.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return wire.whole

    assert asyncio.run(run()) == 1


def test_unknown_exceptions_are_sent(monkeypatch):
    """An exception nobody has heard of counts as sent."""

    class StrangeError(Exception):
        pass

    async def strange(*_, **__):
        raise StrangeError("https://x/?sig=hush")

    monkeypatch.setattr(aiohttp.ClientSession, "_request", strange)

    async def make(transport):
        await transport.send(post("https://api.provider.invalid"), origin="https://api.provider.invalid")

    error = failing(make)
    assert error.sent is True
    assert "StrangeError" in str(error)


def test_gate_holds_and_waiting_costs_no_time_out():
    """No more than the gate's calls are in flight, and the ones that wait do not time out for it."""
    seen = {"now": 0, "most": 0}

    async def behave(wire, reader, writer):
        while await wire.read(reader):
            seen["now"] += 1
            seen["most"] = max(seen["most"], seen["now"])
            await asyncio.sleep(0.22)
            seen["now"] -= 1
            writer.write(answer())

    async def run():
        options = {**PATIENT, "total_timeout_s": 2.5, "max_in_flight": 2}
        async with serving(behave) as wire, Transport(**options) as transport:
            calls = [
                transport.send(post(wire.origin, paid=bool(n % 2)), key=KEY, origin=wire.origin)
                for n in range(24)
            ]
            replies = await asyncio.gather(*calls)
            return wire.whole, {reply.status for reply in replies}

    started = time.monotonic()
    assert asyncio.run(run()) == (24, {200})
    assert time.monotonic() - started > 2.5
    assert seen["most"] == 2


def test_whole_replies_are_replies():
    """Every status is a reply, with its whole body and its headers in lower case, chunked or not."""

    async def run():
        got = []
        for payload in (
            answer(b'{"a": 1}', "201 Created", "X-Thing: one", "Set-Cookie: a=b"),
            answer(b"<html>", "503 Busy", "Retry-After: 7"),
            CHUNKED + b"2\r\n{}\r\n0\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
        ):
            async with serving(replying(payload)) as wire, Transport(**PATIENT) as transport:
                got.append(await transport.send(post(wire.origin), key=KEY, origin=wire.origin))
                assert wire.bodies == [b'{"prompt":"a fox"}']
        return got

    made, busy, chunked, empty, old = asyncio.run(run())
    assert (made.status, made.json(), made.headers["x-thing"]) == (201, {"a": 1}, "one")
    assert "set-cookie" not in made.headers
    assert (busy.status, busy.retry_after_s, busy.body) == (503, 7.0, b"<html>")
    assert (chunked.body, empty.status, empty.body, old.body) == (b"{}", 204, b"", b"until the end")


def test_httpx_class_alone_would_lie():
    """The reason for all this, still true of the pinned adapter: "received, then closed" looks unsent."""
    kinds = []

    async def run():
        async with serving(close_read) as wire, Transport(**PATIENT) as transport:
            client = transport._client("paid", httpx.URL(wire.origin))
            try:
                await client.post(f"{wire.origin}/", json={})
            except httpx.HTTPError as exc:
                kinds.append(type(exc))
            return wire.whole

    assert asyncio.run(run()) == 1
    assert kinds == [httpx.ConnectTimeout]
