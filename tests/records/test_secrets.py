"""A key typed where it would be sent, kept or repeated: refused first, in words that do not hold it."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from kling_nb.addresses import is_loopback
from kling_nb.config.keys import Key, check_length
from kling_nb.errors import KeyMissingError, UsageError
from kling_nb.notebook.cell import run_cell
from kling_nb.notebook.line import run_command
from kling_nb.records.request import make_request
from kling_nb.records.secrets import blot, is_secret, looks_secret
from kling_nb.recovery.adopt import adopt
from kling_nb.session.plan import Ask
from support.sessions import ask
from support.workbench import VARIABLE

#: Unlike the shape of any key, so that only knowing it helps.
CANARY = {"runflow": "fox-Zx7Qm2Vn~Ht4", "runcomfy": "hare.Wp9Ks+Jd3Rb6Ly"}
PARTS = ("Zx7Qm2", "Ht4", "Wp9Ks", "Jd3Rb6")
LABEL = {"runflow": "Runflow", "runcomfy": "RunComfy"}
SHAPES = ("rf_live_0123456789", "sk-abcdefghijklmnopqrstuv", "Bearer abcdefghijklmnopqrstuvwx")


@pytest.fixture
def house(build):
    """A house whose keys are the canaries."""
    made = build()
    for provider, variable in VARIABLE.items():
        made.patch.setenv(variable, CANARY[provider])
    return made


def kept(house):
    """Everything that any file below the folder holds, names too."""
    return "".join(
        f"{path}\n{path.read_bytes().decode('latin-1')}" for path in house.folder.rglob("*") if path.is_file()
    )


def refused(house, act, words):
    """Do what must be refused before anything is sent or stored, and give nothing of the key away."""
    with pytest.raises(UsageError) as caught:
        act()
    text = f"{caught.value} {caught.value!r} {vars(caught.value)}"
    assert words in text
    assert "Charged: no. Nothing was sent or kept." in text
    assert not [part for part in PARTS if part in text]
    assert house.submissions == 0
    assert not [part for part in PARTS if part in kept(house)]


@pytest.mark.parametrize("whose", CANARY)
def test_a_known_key_in_any_text_of_a_call_is_refused(house, whose):
    """Prompt, negative prompt, shots, tags, metadata: by the API, planned or sent, for either provider."""
    session, key = house.session(), CANARY[whose]
    shots = [{"prompt": "A fox", "duration": 3}, {"prompt": key, "duration": 3}]
    calls = {
        "The prompt": ask(f"A fox, {key}, in snow"),
        "The negative prompt": Ask(
            request=make_request(prompt="A fox", negative_prompt=f"blur {key}", duration=3)
        ),
        "The shots": Ask(request=make_request(shots=shots)),
        "The tags": ask(tags={"series": key}),
        "The metadata": ask(metadata={"a": [{"b": f"x{key}x"}]}),
    }
    for what, call in calls.items():
        for wire in CANARY:
            named = replace(call, provider=wire)
            words = f"{what} holds your {LABEL[whose]} key"
            refused(house, lambda named=named: session.open(named), words)
            refused(house, lambda named=named: session.plan(named), words)
    # The same without the key is served: nothing but the key stood in the way.
    assert house.run(session, ask(provider="runflow")).status == "succeeded"
    assert house.submissions == 1


@pytest.mark.parametrize(
    ("line", "body"),
    [
        ("{key}", "A fox"),
        ("fox {key}", "A fox"),
        ("--tag key={key}", "A fox"),
        ("--negative {key}", "A fox"),
        ("-f {key}.txt", ""),
        ("--no-such-flag={key}", "A fox"),
        ("-p {key}", "A fox"),
        ('--metadata \'{{"a": "{key}"}}\'', "A fox"),
        ("fox", "[3s] A fox\n[3s] {key}"),
        ("--dry-run --as curl", "A fox with {key}"),
        ("fox", "A fox with {half}\n{rest}"),
        ("fox", "A fox with {{{{secret}}}}"),
    ],
)
def test_a_known_key_in_a_cell_is_refused_before_it_is_read(house, line, body):
    """Whatever else is wrong with the line: nothing of it is repeated, sent or kept."""
    session, key = house.session(), CANARY["runcomfy"]
    spelled = {"key": key, "half": key[:9], "rest": key[9:]}
    names = {"secret": key}
    refused(
        house,
        lambda: run_cell(session, names, line.format(**spelled), body.format(**spelled)),
        "holds your RunComfy key",
    )
    bound = repr([value for name, value in names.items() if name != "secret"])
    assert not [part for part in PARTS if part in bound]


def test_a_known_key_in_a_line_command_is_refused(house):
    """Also as the id of a run that is looked for, attached or brought in."""
    session, key = house.session(), CANARY["runflow"]
    for line in (f"show {key}", f"resolve x --attach {key}", f"adopt runflow {key}", f"{key}"):
        refused(house, lambda line=line: run_command(session, line, {}), "The line holds your Runflow key")
    refused(house, lambda: adopt("runflow", key, session=session), "The id holds your Runflow key")
    refused(
        house, lambda: adopt("runflow", "x", prompt=key, session=session), "The request holds your Runflow"
    )


def test_a_key_that_a_folder_is_named_after_is_refused(house):
    """The folder's path stands in the ledger and in receipts."""
    folder = house.folder / f"clips-{CANARY['runflow']}"
    refused(
        house, lambda: house.session(media=str(folder)).open(ask(provider="runcomfy")), "folder's path holds"
    )
    assert not folder.exists()


def test_every_place_of_a_key_counts(build, monkeypatch):
    """An outranked variable, the user's file, a typed key, and one that was taken back."""
    house = build()
    house.keys()
    monkeypatch.setenv("RUNCOMFY_API_TOKEN", "first-Zx7Qm2Vn")
    monkeypatch.setenv("RUNCOMFY_API_KEY", "outranked-Zx7Qm2Vn")
    home = Path(os.environ["XDG_CONFIG_HOME"]) / "kling_nb"
    home.mkdir(parents=True)
    file = home / "config.toml"
    file.write_text("[keys]\nrunflow = 'of-the-file-Zx7Qm2Vn'\n")
    file.chmod(0o600)
    session = house.session()
    session.keys.take("runflow", SecretStr("typed-Zx7Qm2Vn"))
    session.keys.take("runflow", SecretStr(""))
    for key in ("first", "outranked", "of-the-file", "typed"):
        refused(house, lambda key=key: session.open(ask(f"A fox {key}-Zx7Qm2Vn")), "The prompt holds your")


@pytest.mark.parametrize("text", SHAPES)
def test_what_looks_like_a_key_is_refused_without_a_key_set(build, text):
    """By the API too, and before the sandbox keeps it."""
    house = build()
    house.keys()
    session = house.session()
    for call in (ask(f"A fox {text}"), ask(tags={"a": text}), ask(metadata={text: 1})):
        with pytest.raises(UsageError, match="looks like a key") as caught:
            session.open(call)
        assert text not in str(caught.value)
    assert text not in kept(house)
    assert house.run(session, ask("A bearer of bad news in a risk-averse fox")).status == "succeeded"


def test_a_plain_word_or_a_short_key_stops_no_prompt(build, monkeypatch):
    """A stand-in on this machine takes any key; a prompt may well hold the word."""
    house = build()
    for key in ("test", "anything"):
        house.keys("runflow", key=key)
        assert (
            house.run(house.session(), ask(f"A fox can test {key}", provider="runflow")).status == "succeeded"
        )
    assert house.submissions == 2
    assert [is_secret(key) for key in ("test", "anything", "a-key-12", CANARY["runflow"])] == [
        False,
        False,
        True,
        True,
    ]


def test_a_few_letters_go_to_no_real_provider(build, monkeypatch):
    """Too short to be a key, and to be told from words in an answer: refused in words, before any money."""
    house = build()
    house.unset("RUNFLOW_URL", "RUNCOMFY_URL")
    house.keys("runflow", "runcomfy", key="rf_live")
    session = house.session()
    for wire in CANARY:
        with pytest.raises(KeyMissingError, match="fewer than 8 characters") as caught:
            session.open(ask(provider=wire))
        assert "rf_live" not in str(caught.value)
        assert caught.value.charged == "no"
    assert session.ledger().runs() == []
    assert not is_loopback("https://api.runflow.io")
    key = Key(SecretStr("rf_live"), "the keyring")
    with pytest.raises(KeyMissingError, match="the keyring"):
        check_length("runflow", key, "https://api.runflow.io")
    check_length("runflow", key, "http://127.0.0.1:1")


def test_an_answer_is_blotted_in_every_spelling():
    """As JSON escapes it, as a link writes it, and not inside other words for a short one."""
    key = 'a/b"c+d e~1'
    for spelled in (
        key,
        json.dumps(key)[1:-1],
        json.dumps(key)[1:-1].replace("/", "\\/"),
        "a%2Fb%22c%2Bd%20e~1",
    ):
        assert blot(f"<{spelled}>".encode(), key) == b"<[key]>"
    assert blot(b"the latest test", "test") == b"the latest test"


def test_shapes_of_keys_are_known_and_words_are_not():
    """The documented shape of Runflow's keys and the well-known others; never plain language."""
    assert all(looks_secret(f"x {text} y") for text in SHAPES)
    plain = (
        "rf_live",
        "a bearer of bad news",
        "sk-8 skating",
        "hf_short",
        "the key to the city",
        "eyJust a word",
    )
    assert not any(looks_secret(text) for text in plain)
