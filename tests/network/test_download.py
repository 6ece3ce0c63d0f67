"""A clip arrives whole, with no key and in its own time, or there is an error that says what may help."""

import asyncio
import io
import logging
import threading
import traceback

import pytest
from pydantic import SecretStr

from kling_nb.errors import StoreError
from kling_nb.network.client import Transport
from kling_nb.network.download import DownloadError
from kling_nb.providers.messages import Call
from support.transport import answer, replying, reset, server_tls, serving, trusting_tls
from support.transport_cases import (
    CLIP,
    PATIENT,
    SHA,
    fetch,
    refused,
)


def test_clip_arrives_whole(tmp_path):
    """Bytes, size and SHA-256 are the server's own."""

    async def run():
        payload = answer(CLIP, "200 OK", "Content-Type: Video/MP4; charset=x")
        async with serving(replying(payload)) as wire, Transport(**PATIENT) as transport:
            with (tmp_path / "clip.part").open("xb", buffering=0) as sink:
                got, _ = await fetch(transport, f"{wire.origin}/clip?sig=hush", sink=sink)
            return got, wire

    got, wire = asyncio.run(run())
    assert (got.size, got.sha256) == (len(CLIP), SHA)
    assert (tmp_path / "clip.part").read_bytes() == CLIP
    assert wire.heads[0].startswith("GET /clip?sig=hush ")
    assert "accept-encoding: identity" in wire.heads[0].lower()


def test_clip_without_a_length_arrives():
    """A chunked clip, and one that ends with the connection, arrive too."""

    async def run():
        got = []
        for payload in (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nabc",
            answer(b""),
        ):
            async with serving(replying(payload)) as wire, Transport(**PATIENT) as transport:
                one = await fetch(transport, wire.origin)
                got.append((one[0].size, one[1].getvalue()))
        return got

    assert asyncio.run(run()) == [(3, b"abc"), (3, b"abc"), (0, b"")]


def test_token_is_never_sent():
    """Right after a keyed call to the same server, a download carries no key and no cookie."""

    async def behave(wire, reader, writer):
        while await wire.read(reader):
            writer.write(answer(b"{}", "200 OK", "Set-Cookie: a=b"))

    async def run():
        async with serving(behave) as wire, Transport(**PATIENT) as transport:
            call = Call(method="GET", url=f"{wire.origin}/v1/runs/1")
            await transport.send(call, key=SecretStr("rf_live_secret"), origin=wire.origin)
            await fetch(transport, f"{wire.origin}/clip")
            return wire.heads

    keyed, download = asyncio.run(run())
    assert "rf_live_secret" in keyed
    assert "authorization" not in download.lower()
    assert "rf_live" not in download
    assert "cookie" not in download.lower()


def test_https_clip_arrives(tmp_path):
    """Over TLS too, verified; and an untrusted server sends nothing."""

    async def run():
        async with serving(replying(answer(CLIP)), tls=server_tls(tmp_path)) as wire:
            url = f"https://localhost:{wire.port}/clip"
            async with Transport(**PATIENT, tls=trusting_tls()) as transport:
                got, _ = await fetch(transport, url)
            async with Transport(**PATIENT) as transport:
                with pytest.raises(DownloadError, match="TLS failed"):
                    await fetch(transport, url)
            return got.sha256, wire.whole

    assert asyncio.run(run()) == (SHA, 1)


@pytest.mark.parametrize(
    ("status", "expired"),
    [
        ("403 Forbidden", True),
        ("404 Not Found", True),
        ("410 Gone", True),
        ("401 Who", False),
        ("400 Bad", False),
        ("408 Slow", False),
        ("429 Many", False),
        ("500 Oops", False),
        ("503 Busy", False),
        ("206 Partial", False),
        ("304 Same", False),
        ("302 Nowhere", False),
    ],
)
def test_statuses(status, expired):
    """The error says where a fresh link is the cure; a wrong status writes nothing."""
    sink = io.BytesIO()
    body = b"" if status.startswith("304") else b"<html>"
    error, wire = refused("{here}/clip?sig=hush", behave=replying(answer(body, status)), sink=sink)
    assert (error.http_status, "fresh link" in error.cure) == (int(status[:3]), expired)
    assert isinstance(error, StoreError)
    assert wire.whole == 1
    assert sink.getvalue() == b""


async def stall(wire, reader, writer):
    await wire.read(reader)
    writer.write(answer(b"x" * 100, length=200))
    await wire.hang()


async def dribble(wire, reader, writer):
    await wire.read(reader)
    writer.write(answer(b"", length=100_000))
    while not wire.over.is_set():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def cut(wire, reader, writer):
    await wire.read(reader)
    writer.write(answer(CLIP[:100_000], length=len(CLIP)))
    await writer.drain()


async def torn(wire, reader, writer):
    await wire.read(reader)
    writer.write(answer(CLIP[:1000], length=len(CLIP)))
    await writer.drain()
    reset(writer)


@pytest.mark.parametrize(
    ("behave", "words"),
    [
        (stall, "no byte came in time"),
        (dribble, "too long"),
        (cut, "cut off"),
        (torn, ""),
        (replying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\nabc"), "cut off"),
        (replying(b"not http at all\r\n\r\n"), "not HTTP"),
        (replying(answer(b"abc", "200 OK", "Content-Encoding: br")), "encoded"),
        (replying(answer(b"abc", "200 OK", "Content-Encoding: gzip")), "did not come"),
        (replying(answer(b"abc", "206 Partial Content", "Content-Range: bytes 0-2/9")), "206"),
    ],
)
def test_clips_that_do_not_come_whole(behave, words):
    """A stalled, endless, cut-off or encoded clip is an error, never a short file that passes."""
    options = {"stall_timeout_s": 0.4} if behave is stall else {}
    timeout_s = 0.8 if behave is dribble else 60
    error, wire = refused("{here}/clip?sig=hush", behave=behave, options=options, timeout_s=timeout_s)
    assert words in str(error)
    assert wire.whole >= 1


@pytest.mark.parametrize("chunked", [True, False])
def test_size_cap(chunked):
    """The cap holds by the announced length and by the count, and takes exactly its own size."""
    sent = CLIP[:200_000]
    payload = answer(sent)
    if chunked:
        payload = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
            len(sent),
            sent,
        )
    sink = io.BytesIO()
    error, _ = refused("{here}/clip", behave=replying(payload), max_bytes=len(sent) - 1, sink=sink)
    assert "199999 bytes" in str(error)
    assert len(sink.getvalue()) < len(sent)

    async def run():
        async with serving(replying(payload)) as wire, Transport(**PATIENT) as transport:
            got, _ = await fetch(transport, wire.origin, max_bytes=len(sent))
            return got.size

    assert asyncio.run(run()) == len(sent)


class FullDisk(io.RawIOBase):
    """A file on a disk with room for one block."""

    def __init__(self):
        self.room = 1

    def writable(self):
        return True

    def write(self, data):
        if not self.room:
            raise OSError(28, "No space left on device")
        self.room -= 1
        return len(data)


def test_full_disk_is_told_apart():
    """A sink that cannot be written is no fault of the network, and says what to do."""

    async def run():
        async with serving(replying(answer(CLIP))) as wire, Transport(**PATIENT) as transport:
            with pytest.raises(StoreError, match="no space left") as caught:
                await fetch(transport, wire.origin, sink=FullDisk())
            return caught.value

    error = asyncio.run(run())
    assert not isinstance(error, DownloadError)
    assert isinstance(error.__cause__, OSError)


class SlowFile(io.BytesIO):
    """A file on a network file system that hangs until the test lets it go."""

    def __init__(self):
        super().__init__()
        self.started = threading.Event()
        self.release = threading.Event()

    def write(self, data):
        self.started.set()
        assert self.release.wait(10)
        return super().write(data)


def test_slow_file_does_not_hold_the_loop():
    """Promise 5: while one clip's file hangs, calls of other runs go on."""

    async def run():
        sink = SlowFile()
        async with (
            serving(replying(answer(CLIP))) as media,
            serving(replying(answer())) as wire,
            Transport(**PATIENT) as transport,
        ):
            task = asyncio.ensure_future(fetch(transport, media.origin, sink=sink))
            await asyncio.to_thread(sink.started.wait, 10)
            reply = await transport.send(Call(method="GET", url=wire.origin + "/"), origin=wire.origin)
            assert not task.done()
            sink.release.set()
            got, _ = await task
            return reply.status, got.sha256

    assert asyncio.run(run()) == (200, SHA)


def test_cancel_waits_for_the_write_in_hand():
    """A cancelled download leaves no thread that still writes into a file the caller closes."""

    async def run():
        sink = SlowFile()
        async with serving(replying(answer(CLIP))) as media, Transport(**PATIENT) as transport:
            task = asyncio.ensure_future(fetch(transport, media.origin, sink=sink))
            await asyncio.to_thread(sink.started.wait, 10)
            task.cancel()
            await asyncio.sleep(0.05)
            waited = not task.done()
            sink.release.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            size = len(sink.getvalue())
            sink.close()
            return waited, size

    waited, size = asyncio.run(run())
    assert waited
    assert 0 < size < len(CLIP)


def test_downloads_have_a_gate_of_their_own():
    """No more than the gate's downloads run at once, and calls do not queue behind them."""
    seen = {"now": 0, "most": 0}

    async def behave(wire, reader, writer):
        while (head := await wire.read(reader)) is not None:
            if "/clip" in head:
                seen["now"] += 1
                seen["most"] = max(seen["most"], seen["now"])
                await asyncio.sleep(0.05)
                seen["now"] -= 1
            writer.write(answer(b"abc"))

    async def run():
        options = {**PATIENT, "max_downloads": 2, "max_in_flight": 1}
        async with serving(behave) as wire, Transport(**options) as transport:
            tasks = [asyncio.ensure_future(fetch(transport, f"{wire.origin}/clip")) for _ in range(8)]
            await wire.seen.wait()
            await transport.send(Call(method="GET", url=f"{wire.origin}/v1"), origin=wire.origin)
            finished = sum(task.done() for task in tasks)
            await asyncio.gather(*tasks)
            return finished, wire.whole

    finished, whole = asyncio.run(run())
    assert whole == 9
    assert seen["most"] == 2
    assert finished < 8


def test_signed_links_leave_no_trace(caplog):
    """The signed query is in no log and no traceback, whether the download works or not."""
    caplog.set_level(logging.DEBUG)
    query = "kling_sig=hu" + "sh"
    shown = []

    async def run():
        counted = 0
        for behave in (replying(answer(b"abc")), replying(answer(b"", "403 No")), cut, stall):
            async with serving(behave) as wire, Transport(stall_timeout_s=0.4) as transport:
                try:
                    await fetch(transport, f"{wire.origin}/clip?{query}")
                except DownloadError as error:
                    shown.extend(traceback.format_exception(error))
                counted += sum("kling_sig=hush" in head for head in wire.heads)
        return counted

    assert asyncio.run(run()) >= 4
    assert len(shown) > 3
    assert "hush" not in caplog.text + "".join(shown)
