"""The guards that every other test stands on."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from support.guard import OutsideConnectionError


@pytest.mark.parametrize("address", [("192.0.2.1", 443), ("::ffff:192.0.2.1", 443), ("2001:db8::1", 443)])
def test_no_test_reaches_another_machine(address):
    """A connection to anything but this machine is an error, and it is made at once."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as sock:
        sock.settimeout(1)
        with pytest.raises(OutsideConnectionError):
            sock.connect(address)
        with pytest.raises(OutsideConnectionError):
            sock.connect_ex(address)


def test_no_test_looks_up_a_foreign_name():
    """A foreign name fails as if there were no network."""
    with pytest.raises(socket.gaierror):
        socket.create_connection(("kling.example", 443))


def test_loopback_works():
    """The sandbox and the tests' own servers can be reached, also from an event loop."""

    async def talk():
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("localhost", port, family=socket.AF_INET)
            assert await reader.read() == b""
            writer.close()

    asyncio.run(talk())


def test_the_home_is_empty():
    """No test sees this machine's settings, ledger or keys."""
    assert list(Path.home().iterdir()) == []
    assert not [name for name in os.environ if name.startswith(("RUNFLOW_", "RUNCOMFY_"))]
