"""The secret firewall: made-up keys go through every surface, beside providers that repeat them.

Each test also counts, at the sandbox, that its key really was on the wire.
"""

import json
import logging
import os
import pickle
import traceback
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from kling_nb.config.keys import Key, find_key
from kling_nb.config.loading import load_settings
from kling_nb.engine.polling.lookup import Access
from kling_nb.errors import KlingError, SettingsError
from kling_nb.loop import Loop
from kling_nb.notebook.line import run_command
from kling_nb.providers import make_provider
from kling_nb.records.receipt import to_receipt
from kling_nb.sandbox.serve import Sandbox
from support.kernels import errors, execute, kernel_in, notebook, sandbox_beside
from support.keys import KEYS, VARIABLES, assert_clean, files_below, mark
from support.matrix import ONE_WIRE
from support.played import EMPTY, ODD, PAGE
from support.sessions import ask
from support.stage import WIRES, Stage
from support.warm import tool


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
    *[{f"submit_{way}": 1} for way in ("moderated", "drop", "200_error", "junk", "cut", "types")],
    {"submit_redirect": 1, "redirect_to": "http://127.0.0.1:9/x?kling_sig=0123456789abcdef"},
    {"submit_429": "next:1"},
    *[{f"run_{end}": 1} for end in ("failed", "moderated", "canceled", "forgotten")],
    {"play": {"submit": {"body": {}}}},
    {"play": ODD},
    {"play": EMPTY},
    *[{f"poll_{code}": "next:1"} for code in (400, 401, 403, 404, 422, 429, 500)],
    *[{f"download_{way}": "next:1"} for way in ("403", "500", "truncated")],
    {"download_500": 1},
    {"play": {"download": [PAGE, {"status": 302, "headers": {"Location": "http://127.0.0.1:9/x"}}, "own"]}},
    {"play": {"download": PAGE}},
]


@pytest.fixture
def debug(caplog):
    """Everything that anybody logs, from the root down."""
    caplog.set_level(logging.DEBUG)
    loud = {"httpx", "httpcore", "aiohttp.client", "aiohttp.access", "asyncio", "kling_nb", "sqlalchemy"}
    for name in loud | set(logging.root.manager.loggerDict):
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


def set_debug(stage, on):
    """Let asyncio log what it does, task by task."""
    loop = stage.loop._started()
    loop.call_soon_threadsafe(loop.set_debug, on)


@pytest.mark.parametrize("wire", ONE_WIRE)
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
            stage.sandbox.provider.faults.reset()
            stage.faults(echo="on", retry_after_s=0.05, **faults)
            run = stage.go(negative_prompt=f"number {number}")
            ends.add((run.status.value, run.record.reason))
            looked += assert_clean(*said_of(run))
            run.detach()
        looked += assert_clean(
            *[
                repr(part)
                for part in (stage.engine, stage.ledger, stage.access(run.record), vars(stage.engine))
            ],
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
    assert len({record.name for record in debug.records}) >= 2
    assert len(ends) >= 8, ends
    assert looked > 100_000


@pytest.mark.parametrize("key", ['Canary"Zx7Qm2Vn\\Ht4Wp9Ks', "Canary/Zx7Qm2Vn/Ht4Wp9Ks<&>"])
@pytest.mark.parametrize("fault", [{"submit_moderated": 1}, {"run_failed": 1}, {}])
@pytest.mark.parametrize("wire", WIRES)
def test_an_echo_in_another_spelling_is_no_way_out(tmp_path, wire, key, fault):
    """JSON escapes some characters of a key; it is the same key all the same."""
    stage = Stage(tmp_path, wire, key=key, faults={"echo": "on", **fault})
    try:
        run = stage.go()
        assert stage.stats()["keys"][mark(key)] >= 1
        assert assert_clean(*said_of(run), *files_below(tmp_path)) > 1000
    finally:
        stage.close()


@contextmanager
def _echoing(monkeypatch, **faults):
    """Both wires in this process, repeating what they are sent."""
    loop = Loop()
    sandbox = loop.start(Sandbox.start(wait_scale=0, faults={"echo": "on", **faults})).result(90)
    try:
        for name in WIRES:
            monkeypatch.setenv(f"KLING_NB_{name.upper()}_URL", getattr(sandbox, name))
        yield sandbox
    finally:
        loop.start(sandbox.stop()).result(90)


# -- settings, keys and their places ------------------------------------------------------
@pytest.mark.parametrize("wire", WIRES)
def test_a_session_shows_its_settings_and_no_key(make_session, tmp_path, monkeypatch, wire):
    """Keys from the user's file: everything public, pickled or printed, while `--online` really uses them."""
    home = Path(os.environ["XDG_CONFIG_HOME"]) / "kling_nb"
    home.mkdir(parents=True)
    file = home / "config.toml"
    file.write_text("[keys]\n" + "".join(f"{name} = '{key}'\n" for name, key in KEYS.items()))
    file.chmod(0o600)
    with _echoing(monkeypatch) as sandbox:
        session = make_session()
        run = session.open(ask(provider=wire))[0].wait(60)
        assert run.status == "succeeded"
        lines = ["keys", "config", "doctor", "doctor --online", "list", "cost", "models", f"show {run.id}"]
        lines += ["cost --reconcile --by run"]
        said = []
        for line in lines:
            shown = run_command(session, line, {"fox": run})
            said += [shown.text, str(shown.html), json.dumps(shown.value, default=str), repr(shown)]
        key = session.key(wire)
        settings = session.settings()
        access = Access(provider=make_provider(wire, None), key=key.secret, account="a")
        said += [repr(part) for part in (session, vars(session), settings, vars(settings), key, access, run)]
        said += [str(key), f"{key}", repr(vars(key)), repr(session.engine()), repr(vars(session.engine()))]
        with pytest.raises(TypeError):
            pickle.dumps(key)
        assert key.source == "the user file"
        assert sandbox.stats()["keys"][mark(KEYS[wire])] >= 3
        assert set(sandbox.stats()["keys"]) == {mark(key) for key in KEYS.values()}
        assert assert_clean(*said) > 10_000


@pytest.mark.parametrize("status", ["401", "403", "400"])
def test_a_refused_key_is_not_repeated_by_the_doctor(make_session, monkeypatch, status):
    """A provider that refuses a key by quoting it is not quoted."""
    for name, key in KEYS.items():
        monkeypatch.setenv(VARIABLES[name], f"bad{key}")
    with _echoing(monkeypatch, auth_status=status) as sandbox:
        shown = run_command(make_session(), "doctor --online", {})
        assert set(sandbox.stats()["keys"]) == {mark(f"bad{key}") for key in KEYS.values()}
        assert_clean(shown.text, str(shown.html), json.dumps(shown.value))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_file_of_keys_that_others_can_read_is_refused(tmp_path, mode):
    """For settings and keys alike, with the cure and without the content."""
    file = tmp_path / "config.toml"
    file.write_text(f"[keys]\nrunflow = '{KEYS['runflow']}'\n")
    file.chmod(mode)
    for read in (
        lambda: find_key("runflow", environ={}, user_file=file),
        lambda: load_settings(environ={}, user_file=file),
    ):
        with pytest.raises(SettingsError, match="chmod 600") as caught:
            read()
        assert_clean(str(caught.value), "".join(traceback.format_exception(caught.value)))
    file.chmod(0o600)
    found = find_key("runflow", environ={}, user_file=file)
    assert found == Key(SecretStr(KEYS["runflow"]), "the user file")


# -- notebooks ---------------------------------------------------------------------------------
LOUD = """\
import logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, force=True)
for name in ("httpx", "httpcore", "aiohttp", "asyncio", "kling_nb", "uvicorn"):
    logging.getLogger(name).setLevel(logging.DEBUG)
"""

EVERYTHING = """\
import traceback
import kling_nb as kling
from kling_nb.session.api import current
session = current()
for part in (session, vars(session), session.settings(), vars(session.settings()), kling.last, kling.runs(),
             session.key("runflow"), session.key("runcomfy"), session.engine(), vars(session.engine()), fox):
    print(repr(part), str(part))
try:
    kling.generate("A fox that fails", duration=3, provider=PROVIDER).path
except kling.KlingError as error:
    traceback.print_exc()
    print(repr(error), vars(error))
"""


@pytest.mark.parametrize("wire", ONE_WIRE)
def test_a_saved_notebook_holds_no_secret(tmp_path, monkeypatch, wire):
    """Cards, tables, payloads, logs, verbose tracebacks and error cells, beside an echoing provider."""
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    cells = [
        "%load_ext kling_nb",
        LOUD,
        f"PROVIDER = '{wire}'",
        f"%%kling fox -p {wire} -d 3\nA red fox",
        "%kling keys",
        "%kling config",
        "%kling doctor --online",
        f"%%kling -p {wire} --dry-run --as curl\nA hare",
        f"%%kling -p {wire} --dry-run --as python\nA hare",
        "%kling list",
        "%kling cost",
        "fox",
        "POISON",
        f"%%kling bad -p {wire} -d 3\nA hare that is refused",
        EVERYTHING,
        "%xmode Verbose",
        f"kling.generate('A fox that is refused too', duration=3, provider='{wire}')",
        "%tb",
        "bad",
    ]
    with sandbox_beside(faults=["echo=on"]) as provider:
        control = provider.urls["runcomfy"].removesuffix("/runcomfy")
        poison = json.dumps({"submit_moderated": 1})
        cells[cells.index("POISON")] = (
            "import urllib.request; urllib.request.urlopen(urllib.request.Request("
            f"'{control}/_sandbox/faults', data={poison!r}.encode(), method='POST')).read()"
        )
        for name in WIRES:
            monkeypatch.setenv(VARIABLES[name], KEYS[name])
            monkeypatch.setenv(f"KLING_NB_{name.upper()}_URL", provider.urls[name])
        monkeypatch.setenv("KLING_NB_BUDGET", "10")
        made = execute(notebook(*cells), tmp_path, allow_errors=True)
        keys = provider.stats()["keys"]
        assert keys[mark(KEYS[wire])] >= 4
        assert set(keys) == {mark(key) for key in KEYS.values()}
    # A verbose traceback may come as text, where IPython cannot draw it.
    assert len(errors(made)) >= 1
    text = json.dumps(made)
    assert "Traceback" in text
    assert "DEBUG" in text
    assert VARIABLES[wire] in text
    assert assert_clean(text, *files_below(tmp_path)) > 50_000


def test_a_live_page_is_sent_no_secret(tmp_path, monkeypatch):
    """Every message of a watched kernel: cards, their updates, widgets and their state."""
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    with sandbox_beside(wait_scale=0.3, faults=["echo=on"]) as provider:
        for name in WIRES:
            monkeypatch.setenv(VARIABLES[name], KEYS[name])
            monkeypatch.setenv(f"KLING_NB_{name.upper()}_URL", provider.urls[name])
        with kernel_in(tmp_path) as kernel:
            heard, read = [], kernel.client.get_iopub_msg

            def listen(*args, **options):
                message = read(*args, **options)
                heard.append(json.dumps({k: message[k] for k in ("msg_type", "content")}, default=str))
                return message

            kernel.client.get_iopub_msg = listen
            assert kernel.run("%load_ext kling_nb").status == "ok"
            for wire in WIRES:
                assert kernel.run(f"%%kling {wire}fox -p {wire} -d 3\nA red fox").status == "ok"
                assert kernel.run(f"{wire}fox.wait(60).status.value").status == "ok"
            shown = kernel.run("from ipywidgets import Widget; print(Widget.get_manager_state())")
            assert shown.status == "ok"
            hidden = kernel.run(f"%kling show --api-key {KEYS['runflow']}")
            assert hidden.status == "error"
            refused = kernel.run(f"%%kling --api-key {KEYS['runflow']}\nA fox")
            assert refused.status == "error"
            replies = [json.dumps([a.reply, a.outputs], default=str) for a in (hidden, refused)]
        assert provider.stats()["keys"].keys() == {mark(key) for key in KEYS.values()}
    heard = [text for text in heard if '"execute_input"' not in text]
    assert sum("comm_open" in text for text in heard) >= 1
    assert sum("update_display_data" in text for text in heard) >= 2
    assert assert_clean(*heard, *replies, *files_below(tmp_path)) > 20_000


def test_the_command_line_prints_no_secret(tmp_path, monkeypatch):
    """Each command that a program may read, after a real run, and with a key of the wrong form too."""
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    said = []

    def call(*arguments):
        done = tool(*arguments, cwd=tmp_path)
        said.append(done.stdout + done.stderr)
        return done.returncode

    with sandbox_beside(faults=["echo=on"]) as provider:
        for name in WIRES:
            monkeypatch.setenv(VARIABLES[name], KEYS[name])
            monkeypatch.setenv(f"KLING_NB_{name.upper()}_URL", provider.urls[name])
        monkeypatch.setenv("KLING_NB_BUDGET", "10")
        execute(notebook("%load_ext kling_nb", "%%kling -d 3\nA red fox"), tmp_path)
        for command in ("doctor --online --json", "doctor --online", "runs --json", "spend --json"):
            call(*command.split())
        assert call("collect", "--json") == 0
        assert sum(provider.stats()["keys"].values()) >= 6
        for name in WIRES:
            monkeypatch.setenv(VARIABLES[name], KEYS[name] + " and more")
        for command in ("doctor --online --json", "runs --json", "collect --json"):
            call(*command.split())
    assert "malformed" in "".join(said)
    assert assert_clean(*said) > 5_000
