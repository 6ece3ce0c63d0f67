"""A key typed in a notebook: used in this process, and nowhere to be seen."""

import sys
import threading

import pytest
from jupyter_client.manager import start_new_kernel
from pydantic import SecretStr

from kling_nb.config.session_keys import KeyHolder
from kling_nb.errors import KeyMissingError, UsageError
from kling_nb.loop import Loop
from kling_nb.notebook.line import run_command

CANARY = "canary-7f3a9c-typed"


def test_a_typed_key_is_used_and_shown_nowhere(tmp_path, monkeypatch):
    """A kernel asks for it without echo; the outputs tell where it is from and no part of it."""
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    manager, client = start_new_kernel(startup_timeout=180, cwd=str(tmp_path))
    asked, outputs = [], []

    def answer(message):
        asked.append(message["content"])
        client.input(CANARY)

    def run(code):
        client.execute_interactive(
            code, allow_stdin=True, stdin_hook=answer, output_hook=outputs.append, timeout=60
        )

    try:
        run("%load_ext kling_nb")
        run("%kling keys --ask runcomfy")
        run("import kling_nb.session.api as a; k = a.current().key('runcomfy'); print(len(k.reveal())); k")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert [content["password"] for content in asked] == [True]
    shown = str([message["content"] for message in outputs])
    assert "typed in this session" in shown
    assert f"{len(CANARY)}\\n" in shown
    assert CANARY not in shown
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in left if CANARY.encode() in path.read_bytes()]


def test_a_typed_key_outranks_and_can_be_taken_back(make_session, monkeypatch):
    """The last one typed counts; an empty one takes it back."""
    session = make_session()
    monkeypatch.setenv("RUNFLOW_API_KEY", "from-the-environment")
    monkeypatch.setattr("getpass.getpass", lambda prompt: f" {CANARY}\n")
    shown = run_command(session, "keys --ask runflow", {})
    assert session.key("runflow").reveal() == CANARY
    assert CANARY not in shown.text + shown.html + repr(shown.value)
    monkeypatch.setattr("getpass.getpass", lambda prompt: "")
    run_command(session, "keys --ask runflow", {})
    assert session.key("runflow").source == "RUNFLOW_API_KEY in the environment"


def test_what_cannot_be_a_key_is_refused_without_repeating_it(make_session, monkeypatch):
    """A malformed key, an unknown provider and a pipeline are each one line."""
    session = make_session()
    monkeypatch.setattr("getpass.getpass", lambda prompt: f"{CANARY} and more")
    with pytest.raises(KeyMissingError) as malformed:
        run_command(session, "keys --ask runflow", {})
    assert CANARY not in str(malformed.value)
    with pytest.raises(UsageError, match="no key for 'acme'"):
        run_command(session, "keys --ask acme", {})
    with pytest.raises(UsageError, match="Nobody is here"):
        run_command(make_session(headless=True), "keys --ask runflow", {})
    assert session.key("runflow") is None


@pytest.fixture
def restless():
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_keys_are_looked_for_in_texts_while_others_are_found():
    """A key that one thread has just used does not break another thread's look for keys."""
    holder, end, broken = KeyHolder(Loop(), lambda: True), threading.Event(), []

    def look():
        try:
            while not end.is_set():
                holder.refuse({"the prompt": "A red fox in snow"}, shapes=False)
        except Exception as error:  # noqa: BLE001 - told to the test, whatever it is
            broken.append(error)

    lookers = [threading.Thread(target=look) for _ in range(4)]
    for thread in lookers:
        thread.start()
    for number in range(1_500):
        holder.take("runflow", SecretStr(f"made-up-key-{number}"))
    end.set()
    for thread in lookers:
        thread.join()
    assert broken == []
    with pytest.raises(UsageError):
        holder.refuse({"the prompt": "made-up-key-1499"})
