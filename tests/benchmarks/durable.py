"""A bare loop that makes the same facts durable as kling_nb, and does nothing else: what the promises cost.

A row for each run, written in batches with synced commits before the POST, after it and at the end; a claim
file that is synced before the POST; a connection of its own for each POST; a receipt of 2.5 KB that is
written three times, twice synced; the clip hashed on its way and synced before it gets its name. No retries,
no checks, no caps, no polling that learns, one process: a floor, and no tool.
"""

import asyncio
import hashlib
import itertools
import os
import sqlite3
from collections.abc import AsyncIterable, Callable
from pathlib import Path

_RECEIPT = b'{"schema": "floor", "words": "' + b"x" * 2500 + b'"}\n'
_TABLE = "CREATE TABLE runs (id INTEGER PRIMARY KEY, status TEXT, provider_run_id TEXT UNIQUE, record TEXT)"


class Ledger:
    """Rows in SQLite; whatever comes while a commit runs goes into the next one."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(_TABLE)
        self._waiting: list[tuple[str, tuple, asyncio.Future]] = []
        self._writing: asyncio.Task | None = None

    async def write(self, statement: str, *values: object) -> None:
        """Have a statement executed; returns once it is on the disk."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((statement, values, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        await done

    async def _write(self) -> None:
        while self._waiting:
            await asyncio.sleep(0.003)
            batch, self._waiting = self._waiting, []
            await asyncio.to_thread(self._commit, batch)
            for *_, done in batch:
                done.set_result(None)

    def _commit(self, batch: list[tuple[str, tuple, asyncio.Future]]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        for statement, values, _ in batch:
            self._db.execute(statement, values)
        self._db.execute("COMMIT")


class Folder:
    """Files that are whole or not there; every method blocks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._numbers = itertools.count()
        path.mkdir(parents=True)

    def claim(self, name: str) -> None:
        """Make the claim of a run."""
        self._write(self.path / f".{name}.claim", b"owner\n")

    def sending(self, name: str) -> None:
        """Note in the claim that the run is sent."""
        with (self.path / f".{name}.claim").open("ab", buffering=0) as file:
            file.write(b"sending\n")
            os.fsync(file.fileno())

    def receipt(self, name: str, *, sync: bool, over: bool = False) -> None:
        """Write the receipt; the claim is over with the first synced one."""
        part = self.path / f".{name}.{next(self._numbers)}.part"
        self._write(part, _RECEIPT, sync=sync)
        part.replace(self.path / f"{name}.json")
        if sync:
            self.sync()
        if over:
            (self.path / f".{name}.claim").unlink()

    def keep(self, name: str, part: Path) -> None:
        """Give a clip its name."""
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.link(part, self.path / f"{name}.mp4")
        self.sync()
        part.unlink()

    def sync(self) -> None:
        """Make the names durable."""
        handle = os.open(self.path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)

    @staticmethod
    def _write(path: Path, data: bytes, *, sync: bool = False) -> None:
        with path.open("xb", buffering=0) as file:
            file.write(data)
            if sync:
                os.fsync(file.fileno())


async def submit(name: str, ledger: Ledger, folder: Folder, send: Callable) -> str:
    """Send one run and make its id durable; `send` gives the id."""
    await ledger.write(
        "INSERT INTO runs (id, status, record) VALUES (?, 'created', ?)", int(name), "x" * 2000
    )
    await asyncio.to_thread(folder.claim, name)
    await asyncio.to_thread(folder.receipt, name, sync=False)
    await asyncio.to_thread(folder.sending, name)
    await ledger.write("UPDATE runs SET status = 'submitting' WHERE id = ?", int(name))
    run_id = await send()
    await ledger.write(
        "UPDATE runs SET status = 'queued', provider_run_id = ? WHERE id = ?", run_id, int(name)
    )
    await asyncio.to_thread(folder.receipt, name, sync=True, over=True)
    return run_id


async def save(name: str, ledger: Ledger, folder: Folder, pieces: AsyncIterable[bytes]) -> None:
    """Keep the clip of one run that has ended."""
    part, digest = folder.path / f".{name}.part", hashlib.sha256()
    with part.open("xb", buffering=0) as file:
        async for piece in pieces:
            digest.update(piece)
            file.write(piece)
    await asyncio.to_thread(folder.keep, name, part)
    await asyncio.to_thread(folder.receipt, name, sync=True)
    await ledger.write("UPDATE runs SET status = 'succeeded', record = ? WHERE id = ?", "x" * 2500, int(name))
