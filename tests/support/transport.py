"""Raw servers on loopback that misbehave on purpose and count the whole requests they read."""

import asyncio
import socket
import ssl
import struct
from contextlib import asynccontextmanager

from aiohttp.abc import AbstractResolver

# A self-signed pair for `localhost` and 127.0.0.1, valid until 2125, made for these tests only.
LOCALHOST_PEM = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg0J+iw1JKcnXOYoik
SXFbeLHa9Qt3JI2YA4z6FwXFX9+hRANCAARWkZfzQnwHhEke8MoNGSBeIh1o2WgI
aYtgAKFzEMBSixmQ+uW7fylm9T5BsIiMPJhjYW5cjEQtVHjmnct703j2
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBaDCCAQ2gAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyNTAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABFaRl/NCfAeESR7w
yg0ZIF4iHWjZaAhpi2AAoXMQwFKLGZD65bt/KWb1PkGwiIw8mGNhblyMRC1UeOad
y3vTePajTjBMMBoGA1UdEQQTMBGCCWxvY2FsaG9zdIcEfwAAATAPBgNVHRMBAf8E
BTADAQH/MB0GA1UdDgQWBBQKRdAJWd4Wojurr9Zis12Bq4QimzAKBggqhkjOPQQD
AgNJADBGAiEAvsPvtCd5NUIsEuJm3IEwa83x2KZvea/JfU1UYaFyHWgCIQCIKTQC
LvDEFTLYObFPEfP2ljGHPSwJJqGDEsm8pfGBAg==
-----END CERTIFICATE-----
"""


class Wire:
    """One server: what it counted and where it is."""

    def __init__(self):
        self.heads = []
        self.bodies = []
        self.connections = 0
        self.port = 0
        self.seen = asyncio.Event()
        self.over = asyncio.Event()
        self.writers = []

    @property
    def whole(self):
        """How many complete requests were read."""
        return len(self.bodies)

    @property
    def origin(self):
        """Its plain http address."""
        return f"http://127.0.0.1:{self.port}"

    async def read(self, reader):
        """Read one whole request and count it; None at the end of the stream."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = next(
                (int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")),
                0,
            )
            body = await reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        self.heads.append(head)
        self.bodies.append(body)
        self.seen.set()
        return head

    async def hang(self):
        """Do nothing until the test is over."""
        await self.over.wait()


@asynccontextmanager
async def serving(behave, tls=None):
    """Serve one behaviour, a coroutine function of (wire, reader, writer), until the block ends."""
    wire = Wire()
    handlers = set()

    async def handle(reader, writer):
        handlers.add(asyncio.current_task())
        wire.connections += 1
        wire.writers.append(writer)
        try:
            await behave(wire, reader, writer)
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        wire.over.set()
        server.close()
        for writer in wire.writers:
            writer.transport.abort()
        if handlers:
            await asyncio.wait(handlers, timeout=5)
        await server.wait_closed()


def reset(writer):
    """Close with RST instead of FIN."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def answer(body=b"{}", status="200 OK", *headers, length=None):
    """Write out one HTTP answer."""
    size = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {size}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def replying(payload, then=None):
    """A behaviour: read one whole request, write these bytes, close."""

    async def behave(wire, reader, writer):
        if await wire.read(reader) is None:
            return
        writer.write(payload)
        await writer.drain()
        if then is not None:
            await then(wire)

    return behave


def server_tls(folder):
    """A server's TLS side, with the self-signed pair."""
    pem = folder / "localhost.pem"
    pem.write_text(LOCALHOST_PEM)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def trusting_tls():
    """A client's TLS side that trusts the self-signed pair and nothing else."""
    return ssl.create_default_context(cadata=LOCALHOST_PEM[LOCALHOST_PEM.index("-----BEGIN CERT") :])


class Names(AbstractResolver):
    """A resolver with a fixed table: a list of addresses, an exception to raise, or None to hang."""

    def __init__(self, table):
        self.table = table
        self.asked = []

    async def resolve(self, host, port=0, family=socket.AF_INET):
        self.asked.append(host)
        found = self.table[host]
        if found is None:
            await asyncio.Event().wait()
        if isinstance(found, OSError):
            raise found
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
            for address in found
        ]

    async def close(self):
        pass
