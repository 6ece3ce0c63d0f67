"""Ways to misbehave, and ways to send and fetch that check what every failure must keep."""

import asyncio
import hashlib
import io
import random

import pytest
from pydantic import SecretStr

from kling_nb.errors import TransportError
from kling_nb.network.client import Transport
from kling_nb.network.download import DownloadError
from kling_nb.providers.messages import Call
from support.transport import answer, replying, reset, serving

KEY = SecretStr("rf_live_secret")
QUICK = {"connect_timeout_s": 0.4, "read_timeout_s": 0.4, "total_timeout_s": 1.5}
PATIENT = {"connect_timeout_s": 20, "read_timeout_s": 20, "total_timeout_s": 60, "stall_timeout_s": 20}
CLIP = random.Random(7).randbytes(3_000_000)
SHA = hashlib.sha256(CLIP).hexdigest()


def post(origin, *, paid=True):
    return Call(method="POST", url=f"{origin}/v1/runs?sig=hush", json={"prompt": "a fox"}, paid=paid)


def failing(make, **options):
    """Send one call that must fail, and give the error; `make` is a coroutine function of a transport."""

    async def run():
        async with Transport(**{**PATIENT, **options}) as transport:
            with pytest.raises(TransportError) as caught:
                await make(transport)
            return caught.value

    error = asyncio.run(run())
    words = str(error)
    assert "\n" not in words
    assert "hush" not in words
    assert "rf_live" not in words
    assert error.__cause__ is None
    assert error.__context__ is None
    return error


async def fetch(transport, url, *, sink=None, allowed_hosts=None, allow_loopback=True, **rest):
    sink = io.BytesIO() if sink is None else sink
    got = await transport.download(
        url, sink, allowed_hosts=allowed_hosts, allow_loopback=allow_loopback, **rest
    )
    return got, sink


def refused(url, *, behave=None, options=None, names=None, **rest):
    """Fetch what must be refused; give the error and the server. `{port}` and `{here}` name the server."""

    async def run():
        async with (
            serving(behave or replying(answer(CLIP))) as wire,
            Transport(**{**PATIENT, **(options or {})}, resolver=names) as transport,
        ):
            with pytest.raises(DownloadError) as caught:
                await fetch(transport, url.format(port=wire.port, here=wire.origin), **rest)
            return caught.value, wire

    error, wire = asyncio.run(run())
    assert error.__context__ is None
    assert "\n" not in str(error)
    assert "hush" not in str(error)
    assert "/clip" not in str(error)
    assert error.charged == "unknown"
    return error, wire


def moving(*places, status="302 Found"):
    """A behaviour that redirects to each place in turn, then serves the clip."""

    async def behave(wire, reader, writer):
        while await wire.read(reader):
            step = wire.whole - 1
            if step < len(places):
                target = places[step].format(here=wire.origin, port=wire.port)
                writer.write(answer(b"", status, f"Location: {target}"))
            else:
                writer.write(answer(CLIP))

    return behave


async def close_unread(wire, reader, writer):
    writer.close()


async def reset_unread(wire, reader, writer):
    reset(writer)


async def close_read(wire, reader, writer):
    await wire.read(reader)


async def reset_read(wire, reader, writer):
    await wire.read(reader)
    reset(writer)


async def hang_unread(wire, reader, writer):
    await wire.hang()


async def hang_read(wire, reader, writer):
    await wire.read(reader)
    await wire.hang()


async def speak_first(wire, reader, writer):
    writer.write(b"HTTP/1.1 400 Plain HTTP here\r\n\r\n")
    await writer.drain()
    await wire.read(reader)


async def endless(wire, reader, writer):
    await wire.read(reader)
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while not wire.over.is_set():
        writer.write(b"x" * 65536)
        await writer.drain()


async def dribble(wire, reader, writer):
    await wire.read(reader)
    writer.write(answer(b"", length=1000))
    while not wire.over.is_set():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)
