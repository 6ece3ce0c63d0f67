"""Forged replies: what a contract promises, bent where a provider, a gateway or a bad line might bend it.

A reply begins as a documented answer, so that most of what comes out still looks like one. Then fields are
dropped, repeated, moved or given values nobody promised, and at last the bytes themselves are spoilt.
"""

import json
from dataclasses import dataclass
from typing import Any

from kling_nb.providers.messages import Reply

RUN_ID = "0192f0c1-7c1e-7abc-8def-001122334455"
OTHER_ID = "0192f0c1-7c1e-7abc-8def-ffeeddccbbaa"
REF = "kling-nb-kl7m2q-1"
#: In the query of every address; it must never come out in words.
SIGNATURE = "feedfacefeedface"
CLIP = f"https://clips.runcomfy.net/a.mp4?sig={SIGNATURE}"
LOCAL = f"http://127.0.0.1:8123/a.mp4?sig={SIGNATURE}"


@dataclass(frozen=True)
class Raw:
    """A piece of JSON as it stands, which need not be JSON."""

    text: str


@dataclass(frozen=True)
class Pairs:
    """An object whose names may occur twice."""

    pairs: tuple[tuple[str, Any], ...]


def pairs(value):
    """A plain value as a tree of pairs, lists and leaves."""
    if isinstance(value, dict):
        return Pairs(tuple((name, pairs(each)) for name, each in value.items()))
    return [pairs(each) for each in value] if isinstance(value, list) else value


def write(node):
    """A tree as text."""
    if isinstance(node, Raw):
        return node.text
    if isinstance(node, Pairs):
        return "{" + ", ".join(f"{json.dumps(name)}: {write(value)}" for name, value in node.pairs) + "}"
    if isinstance(node, list):
        return "[" + ", ".join(map(write, node)) + "]"
    return json.dumps(node)


COSTS = [
    *("0.56", "0.560000000000000000000000000001", "0", "-0.5", "1e-3", "1e400", "NaN", "free", " 0.1 ", ""),
    *map(Raw, ("0.56", "0.1", "0", "-0", "-0.0", "-1", "1e400", "1E-9", "5e-324", "NaN", "Infinity")),
    *map(Raw, ("-Infinity", "0.33600050000000000000000000000000000001", "9" * 5000, "9" * 30, "1e999999999")),
    *(None, True, False, [], {}, ["0.1"], {"usd": "0.1"}),
]
IDS = [
    RUN_ID,
    OTHER_ID,
    None,
    "",
    "a b",
    "../x",
    "\u0000",
    "\ud800",
    "x" * 129,
    7,
    True,
    [RUN_ID],
    Raw("1" * 5000),
]
ADDRESSES = [
    *(CLIP, LOCAL, CLIP.replace("https", "HTTPS"), CLIP.replace("a.mp4", "b.mp4")),
    *(
        "http://clips.runcomfy.net/a.mp4",
        "https://",
        "https:///a.mp4",
        "https://[::1",
        "ftp://h.example/a.mp4",
    ),
    *(
        "https://h.example/a b.mp4",
        "https://h.example/\ud800.mp4",
        "javascript:alert(1)",
        "a.mp4",
        "",
        "\u0000",
    ),
    *(
        "https://h.example/" + "a" * 9000,
        f"https://u:p@h.example/a?{SIGNATURE}",
        7,
        None,
        Raw("[" * 40 + "]" * 40),
    ),
]
OUTPUTS = [
    *(None, "", [], {}, CLIP, LOCAL, [CLIP], {"url": CLIP}, {"video": CLIP}, {"videos": [CLIP]}),
    *({"videos": [CLIP, LOCAL]}, {"video": {"url": CLIP}}, {"outputs": [{"url": CLIP, "type": "video"}]}),
    *({"outputs": [{"url": CLIP, "type": "image"}]}, {"outputs": {}}, {"videos": [None, 7, [CLIP]]}, 7, True),
]
#: What may stand anywhere.
ODD = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        3.5,
        "",
        "x",
        "\u0000",
        "\ud800 \udfff",
        "é\u202e\n\x1b[31m",
        [],
        {},
        [None],
    ),
    *("9" * 5000, "word " * 2000, {"code": 7}, [[[[[[]]]]]], ["x"] * 60, "0001-01-01T00:00:00+23:59"),
    *("9999-12-31T23:59:59-23:59", "2026-06-01", RUN_ID, REF, CLIP, f"see {CLIP}", "Bearer rf_live_feedfeed"),
    *map(Raw, ("NaN", "-Infinity", "1e400", "9" * 5000, "-" + "9" * 5000, "-0", "[" * 3000 + "]" * 3000)),
]
STATES = {
    "runflow": [
        *(
            "queued",
            "dispatching",
            "running",
            "succeeded",
            "failed",
            "canceled",
            "cancelled",
            "partial_succeeded",
        ),
        *("completed", "errored", "timeout", "success", "SUCCEEDED", " succeeded ", "not succeeded", ""),
    ],
    "runcomfy": [
        *("in_queue", "in_progress", "completed", "succeeded", "failed", "cancelled", "canceled", "errored"),
        *("success", "COMPLETED", "Succeeded", "in-progress", "done", "not succeeded", ""),
    ],
}
CODES = [
    400001,
    400002,
    400004,
    400005,
    403001,
    404001,
    500001,
    "400005",
    "CONFLICT",
    "RUN_NOT_FOUND",
    0,
    "",
    None,
]
WORDS = [
    "no balance",
    "Not found",
    "content policy violation",
    "",
    None,
    f"see {CLIP}",
    "x" * 9000,
    {"msg": "a"},
]
GOOD = [200, 200, 200, 200, 201, 202, 204, 206]
BAD = [302, 400, 401, 402, 403, 404, 409, 418, 422, 429, 500, 502, 503, 599]


def _error(chance, _wire):
    code, words = chance.choice(CODES), chance.choice(WORDS)
    shapes = [
        {"error_code": code, "error_message": words},
        {"code": code, "message": words, "errors": None},
        {"detail": words},
        {"detail": [{"loc": ["body", "prompt"], "msg": words, "input": SIGNATURE}]},
        {"error": {"code": code, "message": words}},
        {"error": words},
    ]
    return chance.choice(shapes)


def _submitted(chance, wire):
    run_id = chance.choice([RUN_ID, RUN_ID, *IDS])
    if wire == "runflow":
        return _run(chance, wire) | {"id": run_id, "status_code": "queued", "output": None}
    base = f"https://model-api.runcomfy.net/v1/requests/{RUN_ID}"
    return {"request_id": run_id, "status_url": f"{base}/status", "result_url": f"{base}/result"}


def _run(chance, wire):
    state = chance.choice([*STATES[wire][:8], *STATES[wire]])
    cost, output = chance.choice([*COSTS, *["0.56"] * 20]), {"outputs": [{"url": CLIP}]}
    kind = chance.randint(0, 3)
    if kind == 2:
        output = chance.choice(OUTPUTS)
    if kind == 3:
        address = chance.choice(ADDRESSES)
        output = chance.choice([address, [address], {"video": address}, {"outputs": [{"url": address}]}])
    run_id = chance.choice([RUN_ID] * 12 + IDS)
    if wire == "runflow":
        return {
            "id": run_id,
            "status_code": state,
            "output": output,
            "cost": cost,
            "failure_code": chance.choice([None, "MODERATION", "INVALID_INPUT", 7]),
            "failure_message": chance.choice(WORDS),
            "created_at": "2026-06-01T10:00:00Z",
            "client_ref": REF,
            "input": {"prompt": "fox", "duration": "5", "generate_audio": False, "multi_prompt": None},
        }
    return {
        "request_id": run_id,
        "status": state,
        "output": output,
        "cost": cost,
        "error": chance.choice([None, "boom", "", {"message": "nsfw"}]),
        "created_at": "2026-06-01T10:00:00Z",
    }


def _status(chance, wire):
    if wire == "runflow":
        return _run(chance, wire)
    base = f"https://model-api.runcomfy.net/v1/requests/{RUN_ID}"
    return {
        "request_id": chance.choice([RUN_ID] * 8 + IDS),
        "status": chance.choice(STATES[wire]),
        "queue_position": chance.choice([0, 3, -1, None, "3", Raw("9" * 5000), Raw("1e400"), True]),
        "result_url": f"{base}/result",
    }


def _listed(chance, _wire):
    rows = [
        {"id": chance.choice([RUN_ID] * 12 + IDS), "client_ref": ref, "created_at": "2026-06-01T10:00:00Z"}
        for ref in chance.choices([REF, REF + "0", REF.upper(), None, "other", 7], k=chance.randint(0, 4))
    ]
    further = [
        "/v1/runs?pq=2",
        "https://evil.example/v1/runs?pq=2",
        "p2",
        "",
        None,
        7,
        "https://[",
        "x" * 5000,
    ]
    return {"items": rows, "next": chance.choice(further), "previous": None}


def _canceled(chance, wire):
    outcome = chance.choice(["cancelled", "canceled", "not_cancellable", "", None, "maybe", True])
    return {"request_id": RUN_ID, "status": chance.choice(STATES[wire]), "outcome": outcome}


def _catalog(chance, _wire):
    price, unit = chance.choice(COSTS), chance.choice(["second", None, "x" * 500, 7])
    return {"model_id": "kling/kling-3.0", "base_price_usd": price, "price_unit": unit, "balance": price}


def _balance(chance, _wire):
    amounts = [12, 1250, 12_500_000, 0, -1, 2**60, "12", True, None, Raw("1e3"), Raw("9" * 5000), Raw("NaN")]
    return {
        "balance": chance.choice(COSTS),
        "balance_cents": chance.choice(amounts),
        "balance_usd": chance.choice(COSTS),
        "balance_microdollars": chance.choice(amounts),
        "currency": chance.choice(["USD", "USD", "EUR", None, 7]),
    }


TEMPLATES = (*[_run] * 6, _submitted, _status, _listed, _canceled, _catalog, _balance)
HTML = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body>succeeded</body></html>"


def bend(chance, node):
    """Change one thing somewhere in a tree."""
    if isinstance(node, Pairs) and node.pairs:
        return Pairs(tuple(_bend_pairs(chance, node.pairs)))
    if isinstance(node, list) and node:
        at = chance.randint(0, len(node) - 1)
        return [*node[:at], bend(chance, node[at]), *node[at + 1 :]]
    return pairs(chance.choice(ODD))


def _bend_pairs(chance, known):
    at = chance.randint(0, len(known) - 1)
    name, value = known[at]
    how = chance.choice(["odd", "odd", "deeper", "deeper", "drop", "twice", "again", "list", "name"])
    if how == "twice":
        other = chance.choice([value, pairs(chance.choice([*ODD, *IDS, *COSTS]))])
        return (*known, (name, other)) if chance.random() < 0.5 else ((name, other), *known)
    if how == "again":
        return (*known, (chance.choice(["x", "", "\u0000", "error_code", "error"]), value))
    instead = {
        "drop": [],
        "list": [(name, [value])],
        "name": [(name.upper(), value)],
        "odd": [(name, pairs(chance.choice(ODD)))],
        "deeper": [(name, bend(chance, value))],
    }
    return (*known[:at], *instead[how], *known[at + 1 :])


def spoil(chance, raw):
    """Spoil the bytes themselves."""
    how = chance.choice(["cut", "html", "empty", "nul", "bom", "utf-16", "latin", "deep", "more", "junk"])
    if how == "cut":
        return raw[: chance.randint(0, max(0, len(raw) - 1))]
    if how == "nul":
        at = chance.randint(0, len(raw))
        return raw[:at] + b"\x00" + raw[at:]
    if how == "utf-16":
        return raw.decode("utf-8", "replace").encode("utf-16")
    if how == "latin":
        return raw.replace(b"e", b"\xe9", 1)
    spoilt = {
        "html": HTML,
        "empty": b"",
        "bom": b"\xef\xbb\xbf" + raw,
        "deep": b"[" * 100_000,
        "more": raw + raw,
    }
    return spoilt[how] if how in spoilt else chance.randbytes(40)


def bodies(chance, wire, *, error=False):
    """Make the bytes of one answer."""
    node = pairs((_error if error else chance.choice(TEMPLATES))(chance, wire))
    for _ in range(chance.choice([0, 0, 0, 1, 1, 2, 4])):
        node = bend(chance, node)
    raw = write(node).encode("utf-8", "surrogatepass")
    return spoil(chance, raw) if chance.randint(0, 9) == 0 else raw


def forged(chance, wire):
    """Make one answer to any call of a wire: most errors with a bad status, most others with a good one."""
    error = chance.randint(0, 3) == 0
    status = chance.choice(BAD if error is (chance.randint(0, 9) > 0) else GOOD)
    wait = chance.choice([None, None, "3", "nan", "-1", "1e9", "soon"])
    headers = {} if wait is None else {"retry-after": wait}
    return Reply(status=status, headers=headers, body=bodies(chance, wire, error=error))
