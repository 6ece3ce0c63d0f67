"""The secret firewall: made-up keys go through every surface, beside providers that repeat them, and none shows.

Each test also counts, at the sandbox, that its key really was on the wire.
"""

import hashlib
import json
import logging
import pickle
import re
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from pydantic import SecretStr

from kernels import errors, execute, kernel_in, notebook, sandbox_process
from kling_nb.engine import Reach
from kling_nb.errors import KlingError, SettingsError
from kling_nb.keys import Key, find_key
from kling_nb.notebook.commands import run_command
from kling_nb.providers import make_provider
from kling_nb.receipt import to_receipt
from kling_nb.settings import load_settings
from sessions import ask, sessions_in
from stage import WIRES, Stage

#: One for each provider, unlike any pattern of a key, in parts that must not show alone either.
KEYS = {wire: f"Canary{wire}.Zx7Qm2Vn+Ht4Wp9Ks~Jd3Rb6Ly" for wire in WIRES}
PARTS = ("Zx7Qm2Vn", "Ht4Wp9Ks", "Jd3Rb6Ly", "Canaryrun")
VARIABLES = {"runflow": "RUNFLOW_API_KEY", "runcomfy": "RUNCOMFY_API_TOKEN"}
#: The word may stand beside a variable's name or dots, in code for the user, and beside nothing else.
BEARER = re.compile(r"Bearer (?!\.\.\.|\$\{?[A-Z_]+\b|\{os\.environ)", re.IGNORECASE)


def assert_clean(*surfaces):
    """Nothing of a key, of a signed link or of a real header; give how many letters were looked at."""
    looked = 0
    for surface in surfaces:
        text = surface if isinstance(surface, str) else surface.decode("latin-1")
        looked += len(text)
        for bad in (*PARTS, "kling_sig=", "kling_sig%3D", "0123456789abcdef"):
            at = text.find(bad)
            assert at < 0, f"{bad!r} in ...{text[max(0, at - 300) : at + 100]}"
        assert not BEARER.search(text), BEARER.search(text)
    return looked


def mark(key):
    """How the sandbox names a key in its counts."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def files_below(folder):
    """Every file with its name: ledger, its journal, sidecars, clips, what was set aside."""
    found = [path for path in Path(folder).rglob("*") if path.is_file()]
    return [str(path.relative_to(folder)).encode() + b"\n" + path.read_bytes() for path in found]


def said_of(run):
    """Everything a run shows, in every form."""
    bundle = run.bundle()
    yield from (repr(run), str(run), repr(run.record), run.record.model_dump_json(), run.note)
    yield from (json.dumps(part, default=str) for part in bundle.values())
    yield json.dumps(to_receipt(run.record))
    yield repr(vars(run))
    try:
        run.result(1)
    except KlingError as error:
        yield from (str(error), repr(error), repr(error.__dict__))
        yield "".join(traceback.format_exception(error))


#: Each with settings of the sandbox; every one of them also repeats the key and a signed link in words.
ERRORS = [
    {},
    *[{f"submit_{code}": 1} for code in (400, 401, 402, 403, 404, 409, 422, 500, 502)],
    *[{f"submit_{way}": 1} for way in ("moderated", "drop", "200_error", "junk", "no_id", "cut", "types")],
    {"submit_redirect": 1, "redirect_to": "http://127.0.0.1:9/x?kling_sig=0123456789abcdef"},
    {"submit_429": "next:1"},
    *[{f"run_{end}": 1} for end in ("failed", "moderated", "canceled", "forgotten", "odd", "no_output")],
    *[{f"poll_{code}": "next:1"} for code in (400, 401, 403, 404, 422, 429, 500)],
    *[{f"download_{way}": "next:1"} for way in ("403", "500", "html", "redirect", "truncated")],
    {"download_500": 1},
    {"download_html": 1},
]


@pytest.fixture
def debug(caplog):
    """Everything that anybody logs, from the root down."""
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "aiohttp", "asyncio", "kling_nb"):
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


def set_debug(stage, on):
    """Let asyncio log what it does, task by task."""
    loop = stage.loop._started()
    loop.call_soon_threadsafe(loop.set_debug, on)


@pytest.mark.parametrize("wire", WIRES)
def test_no_end_of_a_run_shows_a_secret(tmp_path, debug, wire):
    """Success and every error path, against a provider that repeats key and signed link in all it says."""
    key = KEYS[wire]
    stage = Stage(tmp_path, wire, key=key, faults={"echo": "on"})
    stage.engine.limits = type(stage.limits)(
        watch_s=1.5, submit_s=2, unsent_tries=2, save_tries=2, look_again_s=0.01, lease_s=30
    )
    ends, looked = set(), 0
    try:
        set_debug(stage, True)
        for number, faults in enumerate(ERRORS):
            stage.sandbox.desk.faults.reset()
            stage.faults(echo="on", retry_after_s=0.05, **faults)
            run = stage.go(negative_prompt=f"number {number}")
            ends.add((run.status.value, run.record.reason))
            looked += assert_clean(*said_of(run))
            run.detach()
        looked += assert_clean(
            *[repr(part) for part in (stage.engine, stage.ledger, stage.reach(run.record), vars(stage.engine))],
            *(str(stage.ledger.events(record.id)) for record in stage.ledger.runs()),
        )
        sent = stage.stats()["keys"]
        assert set(sent) == {mark(key)}
        assert sent[mark(key)] > 2 * len(ERRORS)
    finally:
        set_debug(stage, False)
        stage.close()
    looked += assert_clean(*files_below(tmp_path), debug.text, repr([vars(r) for r in debug.records]))
    assert len(debug.records) > 20
    assert len(ends) >= 8, ends
    assert looked > 100_000
