"""A fast queue server on loopback, in a process of its own: what a client costs must not be the server's.

It speaks the wires of `wires.py`, plays faults at given rates, and notes for each run when it was accepted,
when it was due and when a client first read its end. `python tests/benchmarks/server.py CLIP` prints its
address as one line of JSON; `POST /bench/reset` begins a measurement, `GET /bench/stats` ends it.
"""

import asyncio
import json
import re
import sys
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from random import Random

import clips
import wires

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_RANGE = re.compile(rb"\r\nrange: *bytes=(\d+)-(\d*)", re.IGNORECASE)


@dataclass
class Plan:
    """What one measurement asks of the server."""

    low_s: float = 5.0
    high_s: float = 20.0
    #: Of the first run, with which a client warms up; None: as long as the others.
    first_s: float | None = None
    seed: int = 7
    #: Shares of requests: answered 500, answered 429, cut off.
    failing: float = 0.0
    limited: float = 0.0
    dropped: float = 0.0


@dataclass
class State:
    """What happened since the last reset."""

    plan: Plan = field(default_factory=Plan)
    runs: dict[str, wires.Run] = field(default_factory=dict)
    requests: dict[str, int] = field(default_factory=dict)
    random: Random = field(default_factory=Random)
    fates: Random = field(default_factory=Random)

    def accept(self, wire: str, sent: dict) -> wires.Run:
        """Begin a run: every client gets the same lengths in the order of its submits."""
        now, number = time.time(), len(self.runs)
        length = self.fates.uniform(self.plan.low_s, self.plan.high_s)
        if not number and self.plan.first_s is not None:
            length = self.plan.first_s
        run = wires.Run(f"{self.plan.seed:04x}{number:012x}", wire, number, now, now + length, sent)
        self.runs[run.id] = run
        return run

    def stats(self) -> dict:
        """Everything a measurement needs, as JSON."""
        return {
            "requests": self.requests,
            "runs": [
                [run.number, run.born, run.ends, run.seen, run.clip_at, run.words]
                for run in self.runs.values()
            ],
        }


class Connection(asyncio.Protocol):
    """One connection, kept as long as the client keeps it."""

    def __init__(self, server: "Server") -> None:
        self.server = server
        self.buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.buffer[: end + 2])
            length = _LENGTH.search(head)
            after = end + 4 + (int(length[1]) if length else 0)
            if len(self.buffer) < after:
                return
            body = bytes(self.buffer[end + 4 : after])
            del self.buffer[:after]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        path = target.partition("?")[0]
        if path.startswith("/bench/"):
            self.send(200, self.server.control(path, body))
            return
        state = self.server.state
        name = path.split("/")[1]
        kind = "clip" if name == "clips" else "post" if method == "POST" else "read"
        state.requests[kind] = state.requests.get(kind, 0) + 1
        chance, plan = state.random.random(), state.plan
        if chance < plan.failing:
            self.send(500, {"code": "INTERNAL_ERROR", "error_code": 500001, "message": "internal error"})
        elif chance < plan.failing + plan.limited:
            self.send(429, {"code": "RATE_LIMITED", "error_code": 429001, "message": "too many requests"})
        elif kind == "clip":
            cut = chance < plan.failing + plan.limited + plan.dropped
            self._clip(path.split("/")[2].removesuffix(".mp4"), head, cut=cut)
        elif chance < plan.failing + plan.limited + plan.dropped / 2:
            # Cut off before anything was done; the other half below, after it was.
            self.transport.abort()
        else:
            status, answer = wires.answer(state, self.server.origin, method, target, body)
            if chance < plan.failing + plan.limited + plan.dropped:
                self.transport.abort()
            else:
                self.send(status, answer)

    def _clip(self, run_id: str, head: bytes, *, cut: bool) -> None:
        run = self.server.state.runs[run_id]
        run.clip_at = run.clip_at or time.time()
        size = len(self.server.clip)
        part = _RANGE.search(head)
        first = int(part[1]) if part else 0
        last = int(part[2]) if part and part[2] else size - 1
        mark = clips.mark(run_id)
        lines = [
            f"HTTP/1.1 {206 if part else 200} OK",
            "Content-Type: video/mp4",
            f"Content-Length: {last + 1 - first}",
            "Accept-Ranges: bytes",
            *([f"Content-Range: bytes {first}-{last}/{size}"] if part else []),
        ]
        self.transport.write("\r\n".join([*lines, "", ""]).encode())
        if cut:
            self.transport.write(self.server.clip[first : first + size // 2])
            self.transport.close()
            return
        edge = size - len(mark)
        self.transport.write(self.server.clip[first : min(last + 1, edge)])
        self.transport.write(mark[max(0, first - edge) : max(0, last + 1 - edge)])

    def send(self, status: int, answer: object) -> None:
        body = json.dumps(answer).encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)


class Server:
    """The state of the process."""

    def __init__(self, clip: Path) -> None:
        self.clip = memoryview(clip.read_bytes())
        self.state = State()
        self.origin = ""

    def control(self, path: str, body: bytes) -> dict:
        """Begin or end a measurement."""
        if path == "/bench/stats":
            return self.state.stats()
        given = json.loads(body)
        if "clip" in given:
            self.clip = memoryview(Path(given.pop("clip")).read_bytes())
        plan = Plan(**given)
        self.state = State(plan=plan, random=Random(plan.seed), fates=Random(plan.seed))
        return {}

    async def serve(self) -> None:
        """Serve until the process is ended."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(self), "127.0.0.1", 0, backlog=4096)
        self.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        print(json.dumps({"origin": self.origin}), flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(Server(Path(sys.argv[1])).serve())
