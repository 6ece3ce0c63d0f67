"""Made-up keys in the user's own file, followed into children, papermill, pages and drawn variables."""

import json
import os
import subprocess
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from nbconvert import HTMLExporter
from pydantic import SecretStr

from kling_nb.config.keys import find_key
from kling_nb.config.loading import load_settings
from kling_nb.errors import KlingError
from kling_nb.recovery.adopt import adopt
from kling_nb.recovery.resolve import resolve
from support.kernels import notebook, sandbox_beside
from support.keys import KEYS, VARIABLES, assert_clean, files_below, mark
from support.sessions import ask
from support.stage import WIRES


@pytest.fixture
def user_file():
    """The user's own file, with a key for each provider."""
    home = Path(os.environ["XDG_CONFIG_HOME"]) / "kling_nb"
    home.mkdir(parents=True)
    file = home / "config.toml"
    file.write_text("[keys]\n" + "".join(f"{name} = '{key}'\n" for name, key in KEYS.items()))
    file.chmod(0o600)
    return file


# -- variables, as many a traceback draws them --------------------------------------------------
@contextmanager
def drawn(into, kind=KlingError):
    """Expect an error, and add its whole chain with the variables of every frame."""
    with pytest.raises(kind) as caught:
        yield
    error = caught.value
    for one in (error, error.__cause__, error.__context__):
        if one is not None:
            shown = traceback.TracebackException.from_exception(one, capture_locals=True)
            # The frames of this test hold the keys themselves.
            for frame in shown.stack:
                if frame.filename != __file__:
                    into.append(f"{frame.filename}:{frame.lineno} {frame.name} {frame.locals}")
            into.append(f"{one} {one!r} {vars(one)}")


@pytest.mark.parametrize("wire", WIRES)
def test_no_traceback_draws_a_key(build, user_file, monkeypatch, wire):
    """Errors of every door, with the variables of all our frames, as Verbose mode and trackers show them."""
    house = build(faults={"echo": "on"})
    house.keys()
    session, said = house.session(), []
    run = house.run(session, ask(provider=wire))
    assert run.status == "succeeded"
    house.faults(poll_drop=1.0)
    with drawn(said):
        adopt(wire, "some-id", session=session)
    house.faults(poll_drop=0, poll_junk=1.0)
    with drawn(said):
        adopt(wire, "some-id", session=session)
    house.faults(poll_junk=0, poll_oversized=1.0)
    with drawn(said):
        adopt(wire, "some-id", session=session)
    house.faults(poll_oversized=0, submit_drop_after="next:1", list_500=1.0)
    lost = house.run(session, ask("A hare", provider=wire))
    with drawn(said):
        resolve(lost, attach="other", session=session)
    with drawn(said):
        lost.result(0)
    house.faults(list_500=0, submit_moderated="next:1")
    with drawn(said):
        house.run(session, ask("An owl", provider=wire)).result()
    # The text of the user's own is drawn, whatever is in it; the keys that it was searched for are not.
    typed = "typed-by-hand-4711"
    session.keys.take(wire, SecretStr(typed))
    with drawn(said):
        session.open(ask(f"A fox {typed}", provider=wire))
    with drawn(said):
        session.keys.take(wire, SecretStr(f"{KEYS[wire]} and more"))
    with monkeypatch.context() as patch, drawn(said):
        patch.setenv(VARIABLES[wire], f"{KEYS[wire]}\n\n{KEYS[wire]}")
        find_key(wire)
    with drawn(said):
        find_key(wire, environ={}, keyring_lookup=lambda _: {}[KEYS[wire]], user_file=house.folder / "no")
    file = user_file.read_text()
    for spoilt in (file + "[x", file + "nonsense = 1\n", file + "acme = 'x'\n", f"\0{file}"):
        user_file.write_text(spoilt)
        with drawn(said):
            find_key(wire, environ={})
            load_settings(environ={})
    assert house.stats()["keys"].keys() == {mark(KEYS[wire])}
    assert house.stats()["keys"][mark(KEYS[wire])] >= 6
    assert sum("network/client.py" in text for text in said) >= 1
    assert sum("records/secrets.py" in text for text in said) >= 1
    assert assert_clean(*said) > 5_000


# -- papermill, children, and a user's own code --------------------------------------------------
OWN_CODE = """\
import pprint, traceback
import kling_nb as kling
from kling_nb.session.api import current
def mine(session, run, key, settings, engine):
    access = session.access(run.record)
    return 1 / 0
def called():
    session = current()
    mine(session, kling.last, session.key(PROVIDER), session.settings(), session.engine())
try:
    called()
except ZeroDivisionError as error:
    print(''.join(traceback.TracebackException.from_exception(error, capture_locals=True).format()))
    pprint.pprint([frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__)])
    import sys
    print(get_ipython().InteractiveTB.text(*sys.exc_info()))
"""
CHILDREN = """\
import os, pathlib, subprocess, sys
said = subprocess.run(['env'], capture_output=True, text=True).stdout
code = 'import os; print(dict(os.environ))'
said += subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout
own = {os.getpid(), os.getppid()}
import psutil
own |= {child.pid for child in psutil.Process().children(recursive=True)}
for number in own:
    said += pathlib.Path(f'/proc/{number}/cmdline').read_text()
said += pathlib.Path('/proc/self/environ').read_text() + repr(sys.argv)
print(said)
"""


def test_no_child_page_or_own_code_gets_a_key(tmp_path, monkeypatch, user_file):
    """A papermill run with both keys from the user's file: notebook, page, streams, children, files."""
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    monkeypatch.setenv("KLING_NB_BUDGET", "10")
    cells = ["%load_ext kling_nb", "%xmode Verbose"]
    for wire in WIRES:
        cells += [
            f"PROVIDER = '{wire}'",
            f"%%kling {wire}fox -p {wire} -d 3 --tag a=b\nA red fox",
            OWN_CODE,
            f"%%kling -p {wire} --dry-run --as curl\nA hare",
            f"%%kling -p {wire} --dry-run --as python\nA hare",
            f"bad = kling.submit('A fox that fails', duration=3, provider='{wire}', take=FAILS).wait(); bad",
        ]
    cells += [
        CHILDREN,
        "%kling doctor --online",
        "%kling keys",
        "%kling config",
        "%kling list --all",
        "%kling cost",
    ]
    cells += ["from ipywidgets import Widget; print(Widget.get_manager_state())"]
    made = notebook(*[cell.replace(", take=FAILS", "") for cell in cells])
    nbformat.write(made, tmp_path / "in.ipynb")
    with sandbox_beside(faults=["echo=on"]) as provider:
        for name in WIRES:
            monkeypatch.setenv(f"KLING_NB_{name.upper()}_URL", provider.urls[name])
        command = [
            sys.executable,
            "-m",
            "papermill",
            "--log-output",
            "--no-progress-bar",
            "in.ipynb",
            "out.ipynb",
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stderr[-2000:]
        counted = provider.stats()["keys"]
        assert set(counted) == {mark(key) for key in KEYS.values()}
        assert min(counted.values()) >= 6
    made = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    page, _ = HTMLExporter(template_name="lab").from_notebook_node(made)
    text = json.dumps(made)
    assert text.count("ZeroDivisionError") >= 4
    assert text.count("mine(session") >= 4
    assert "KLING_NB_RUNFLOW_URL" in text
    assert "of the user file" in text or "the user file" in text
    assert assert_clean(text, page, done.stdout, done.stderr) > 200_000
    (tmp_path / "in.ipynb").unlink()
    assert assert_clean(*files_below(tmp_path)) > 50_000
