"""A server between us and the sandbox that bends what the sandbox answers: real bytes over a real socket.

It never invents a run, an end or an absence; it only makes answers hard to read, and sometimes refuses a
submit before it arrives. So whatever is bought, is bought at the sandbox, and counted there.
"""

import contextlib
import http.client
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from urllib.parse import urlsplit

from support import wire_oracle as oracle
from support.wire_forged import HTML, bend, pairs, spoil, write

REFUSALS = {
    402: b'{"code": "INSUFFICIENT_CREDIT", "error_code": 400002, "message": "no balance"}',
    422: b'{"detail": [{"loc": ["body", "prompt"], "msg": "too long"}]}',
    429: b'{"code": "RATE_LIMITED", "message": "slower"}',
}


def _ids(raw):
    """The ids that an answer could be taken to give; to name another run would be an invention."""
    answer = oracle.read(raw) or {}
    return {oracle.usable_id(answer.get(name)) for name in ("id", "request_id")} - {None}


class Liar:
    """The server.

    Args:
        base: The sandbox's address of one wire.
        seed: Of its lies.
        lies: How many answers about one run are bent before it tells the truth.
    """

    def __init__(self, base, *, seed, lies=4):
        self.base, self.seed, self.lies = base, seed, lies
        self.sent, self.told, self.asked = Counter(), Counter(), Counter()
        self._lock = threading.Lock()
        liar = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                liar.answer(self, b"")

            def do_POST(self):
                liar.answer(self, self.rfile.read(int(self.headers.get("content-length", 0))))

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}{urlsplit(base).path}"

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler, body):
        prompt = ""
        with contextlib.suppress(ValueError, AttributeError):
            told = json.loads(body)
            prompt = told.get("input", told).get("prompt", "")
        # One run's answers are bent by its own dice, whatever the order in which runs are asked about.
        name = prompt or handler.path.split("?")[0]
        with self._lock:
            self.asked[name] += 1
            chance = Random(f"{self.seed} {name} {self.asked[name]}")
            lying = self.asked[name] <= self.lies and chance.random() < 0.7
        if prompt and lying and chance.random() < 0.25:
            status = chance.choice(list(REFUSALS))
            return self._give(handler, status, REFUSALS[status], f"refused {status}")
        if prompt:
            with self._lock:
                self.sent[prompt] += 1
        status, raw = self._forward(handler, body)
        if not lying or status >= 400:
            return self._give(handler, status, raw, "the truth")
        if chance.random() < 0.15:
            return self._give(handler, chance.choice([500, 502, 503]), chance.choice([HTML, raw, b""]), "5xx")
        if handler.path.partition("?")[0].endswith("/v1/runs") or chance.random() < 0.3:
            return self._give(handler, status, spoil(chance, raw), "spoilt")
        node = pairs(json.loads(raw))
        for _ in range(chance.choice([1, 1, 2])):
            node = bend(chance, node)
        # A strange address is one that no resolver knows: tests reach nothing but this machine.
        bent = write(node).encode("utf-8", "surrogatepass").replace(b"clips.runcomfy.net", b"clips.invalid")
        if _ids(bent) - _ids(raw):
            return self._give(handler, status, HTML, "spoilt")
        return self._give(handler, status, bent, "bent")

    def _forward(self, handler, body):
        parts = urlsplit(self.base)
        line = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
        try:
            kept = {k: v for k, v in handler.headers.items() if k.lower() not in {"host", "content-length"}}
            line.request(handler.command, handler.path, body or None, kept | {"accept-encoding": "identity"})
            answer = line.getresponse()
            return answer.status, answer.read()
        finally:
            line.close()

    def _give(self, handler, status, raw, what):
        with self._lock:
            self.told[what] += 1
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(raw)))
        handler.end_headers()
        with contextlib.suppress(OSError):
            handler.wfile.write(raw)
