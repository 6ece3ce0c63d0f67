"""What every test stands on: a clean environment, state in temporary folders, no network but loopback.

Invariants: no test reads this machine's keys, settings, ledger or home; no socket of the test process
leaves this machine (processes that a test starts are not covered); a browser test without a browser fails.
"""

import asyncio
import gc
import ipaddress
import os
import resource
import socket
import sys
import tempfile
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support.databases import new_place, server
from support.guard import OutsideConnectionError
from support.paths import TESTS, memory_folder

KEEP = {"CHROMIUM_FOR_TESTS"}
# Nothing here is verified by a list of certificates, and where one is named each client reads it anew.
CERTIFICATES = {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}

# Processes that a test starts find `support` as the tests do.
os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])

# With bytecode, which some environments forbid, none of them compiles the whole package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Tests wait for a disk many thousand times, and none of them has to survive a power cut.
if memory := memory_folder():
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))

# The same cases in every run; slow examples are this machine's business and no failure.
settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")

# The loops of ended tests live as long as the process, each with
# descriptors; many systems allow 1,024 at first.
_now, _most = resource.getrlimit(resource.RLIMIT_NOFILE)
_wanted = 20_000 if _most == resource.RLIM_INFINITY else min(20_000, _most)
if resource.RLIM_INFINITY != _now < _wanted:
    resource.setrlimit(resource.RLIMIT_NOFILE, (_wanted, _most))


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What collecting makes stays to the end: the collector of garbage need not look through it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(items):
    """What drives the browser comes first: in one worker, which has one, and not last and alone."""
    items.sort(key=lambda item: "browser" not in item.fixturenames)


def _is_loopback(host):
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


@pytest.fixture(scope="session", autouse=True)
def _only_loopback():
    """No test reaches another machine; a foreign name is not even looked up."""
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guard(sock, address):
        if sock.family in {socket.AF_INET, socket.AF_INET6} and not _is_loopback(address[0]):
            raise OutsideConnectionError(f"A test tried to connect to {address[0]}.")

    def guarded_connect(self, address):
        guard(self, address)
        return connect(self, address)

    def guarded_connect_ex(self, address):
        guard(self, address)
        return connect_ex(self, address)

    def guarded_getaddrinfo(host, *arguments, **options):
        if not (host is None or _is_loopback(host) or _is_address(host)):
            raise socket.gaierror(socket.EAI_NONAME, f"A test may not look up {host!r}.")
        return getaddrinfo(host, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        patch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)
        yield


def _is_address(host):
    try:
        ipaddress.ip_address(host.decode("ascii", "replace") if isinstance(host, bytes) else host)
    except ValueError:
        return False
    return True


@pytest.fixture(scope="session", autouse=True)
def _scratch(tmp_path_factory):
    """What a killed process leaves behind goes when the files of the tests go."""
    with pytest.MonkeyPatch.context() as patch:
        folder = str(tmp_path_factory.mktemp("tmp"))
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(scope="session", autouse=True)
def _clips_once(tmp_path_factory):
    """Sandboxes of all workers, and of what is forked for them, draw no pictures a second time."""
    from support.rendered import render_once

    base = tmp_path_factory.getbasetemp()
    # The folder of a worker lies in one that all workers share.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "clips"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kling_nb.sandbox.render.cache.render", render_once(folder))
        # For the processes of `support.warm`.
        patch.setenv("TESTS_CLIPS", str(folder))
        yield


@pytest.fixture(scope="session")
def copying_engine(tmp_path_factory):
    """What opens a new ledger in a file as a copy of one that was made once."""
    from kling_nb.ledger.databases import sqlite
    from support.databases import copying

    return copying(sqlite.make_engine, tmp_path_factory.mktemp("ledgers"))


@pytest.fixture(autouse=True)
def _ledgers_once(copying_engine, monkeypatch):
    """To make one takes as long as all else that many a test does; those of `ledger/` make their own."""
    monkeypatch.setattr("kling_nb.ledger.databases.sqlite.make_engine", copying_engine)


@pytest.fixture(scope="session", autouse=True)
def _certificates_once():
    """The list of certificates is read once: a hundred authorities, for clients that speak to loopback."""
    import httpx

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx, "create_ssl_context", cache(httpx.create_ssl_context))
        yield


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path_factory):
    """No test sees the user's keys, settings, ledger or home."""
    for name in list(os.environ):
        if name in CERTIFICATES or (
            name.startswith(
                ("KLING_NB_", "RUNFLOW_", "RUNCOMFY_", "JPY_", "PAPERMILL_", "JUPYTERHUB_", "VSCODE_")
            )
            and name not in KEEP
        ):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    for name in (
        "HOME",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_CACHE_HOME",
        "XDG_STATE_HOME",
        "IPYTHONDIR",
    ):
        monkeypatch.setenv(name, str(home if name == "HOME" else home / name.lower()))


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory):
    """The address of a database."""
    base = tmp_path_factory.getbasetemp()
    # The folder of a worker lies in one that all workers share.
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return server(base).get_uri()


@pytest.fixture
def where(request, tmp_path):
    """The place of a ledger of the test's own."""
    with new_place(request, tmp_path) as found:
        yield found


@pytest.fixture
def ledger(where):
    """A new ledger there."""
    from kling_nb.ledger.database import Ledger

    made = Ledger(where)
    yield made
    made.close()


@pytest.fixture
def other_disk(tmp_path):
    """A folder on another disk than `tmp_path`, so that no hard link leads from one to the other."""
    here = tmp_path.stat().st_dev
    for place in map(Path, ("/dev/shm", "/tmp", "/var/tmp")):
        if place.is_dir() and place.stat().st_dev != here:
            with tempfile.TemporaryDirectory(dir=place) as folder:
                yield Path(folder)
            return
    pytest.fail("This test needs /dev/shm, /tmp or /var/tmp to be another disk than the temporary folder.")


@pytest.fixture(scope="session")
def chromium_path():
    """The Chromium of the browser tests; `make test` sees to it that there is one."""
    from support.chromium import CURE, find_chromium

    return find_chromium() or pytest.fail(CURE)


@pytest.fixture(scope="session")
def _chromium(chromium_path, tmp_path_factory):
    """The one headless browser of this process, and the event loop that Playwright leaves running."""
    from support.lab import browser_of

    with browser_of(chromium_path, tmp_path_factory.mktemp("chromium")) as started:
        loop = asyncio.get_running_loop()
        asyncio._set_running_loop(None)
        yield started, loop
        asyncio._set_running_loop(loop)


@pytest.fixture
def browser(_chromium):
    """The headless browser, without a window of another test; such a test cannot call `asyncio.run`."""
    from support.lab import open_windows

    started, loop = _chromium
    asyncio._set_running_loop(loop)
    try:
        yield started
        for window in open_windows(started):
            window.close()
    finally:
        # For the tests without a browser, which run loops of their own.
        asyncio._set_running_loop(None)


@pytest.fixture
def lab(browser):
    """A factory of folders in a Jupyter window, `lab(folder, ui="notebook")`; each ends with the test."""
    from support.lab import Lab

    with ExitStack() as stack:

        def start(root, **options):
            return stack.enter_context(Lab(root, browser, **options))

        yield start


# -- what the tests of several packages start with ----------------------------------------------
@pytest.fixture(params=("runflow", "runcomfy"))
def wire(request):
    """Each wire in turn."""
    return request.param


@pytest.fixture
def build(tmp_path, monkeypatch):
    """A factory of folders with both providers next door."""
    from support.workbench import houses

    yield from houses(tmp_path, monkeypatch)


@pytest.fixture
def make_session(tmp_path):
    """A factory of sessions on one ledger."""
    from support.sessions import sessions_in

    yield from sessions_in(tmp_path)


@pytest.fixture
def session(make_session):
    """One session without a key: it has the sandbox."""
    return make_session()


@pytest.fixture
def wires():
    """The loopback server of both wires."""
    from support.sessions import both_wires

    yield from both_wires()


@pytest.fixture
def stage(wire, tmp_path):
    """A factory of engines on one wire."""
    from support.stage import Stage

    with ExitStack() as stack:

        def make(**options):
            made = Stage(tmp_path, wire, **options)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def bench():
    """A sandbox whose clock only moves when told."""
    from support.sandbox import Bench

    with Bench() as bench:
        yield bench


@pytest.fixture
def sample(tmp_path):
    """Made-up runs and clips for exports."""
    from support.stand_ins import StandIns

    return StandIns(tmp_path)


@pytest.fixture
def clip(sample):
    """The stand-in that the runs of a sample share."""
    return sample.clip
