"""Keys: found in order, checked, and never shown."""

import copy
import logging
import pickle
import sys
import traceback
import types

import pytest
from pydantic import SecretStr

from kling_nb.config.keys import KEY_VARIABLES, Key, ask_keyring, find_key, fingerprint, key_missing
from kling_nb.config.provider_choice import choose_provider
from kling_nb.config.settings import Settings
from kling_nb.errors import KeyMissingError, SettingsError, UnpricedError, UnsupportedError, UsageError
from kling_nb.pricing.catalog import find_model

CANARY = "rf_live_canary_4711"


@pytest.fixture
def user_file(tmp_path):
    """A user file with a key for Runflow, which its owner alone can read."""
    path = tmp_path / "config.toml"
    path.write_text(f'budget = 5\n[keys]\nrunflow = "{CANARY}"')
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("provider", KEY_VARIABLES)
def test_variables_are_read_in_order(provider):
    """The first variable that is set wins; a blank one counts as none."""
    names = KEY_VARIABLES[provider]
    environ = dict.fromkeys(names, "")
    read = 0
    for name in reversed(names):
        environ[name] = f"key-{name}\n"
        key = find_key(provider, environ=environ)
        assert (key.reveal(), key.source) == (f"key-{name}", f"{name} in the environment")
        read += 1
    assert read == len(names)


def test_on_a_managed_machine_only_the_machines_own_key_counts():
    """Where RunComfy's marker is set, its token is named as the machine's, and no other name is read."""
    marked = {"RUNCOMFY_API_TOKEN_FILE": "/run/token"}
    found = find_key("runcomfy", environ={**marked, "RUNCOMFY_API_TOKEN": "key-1", "RUNCOMFY_TOKEN": "key-2"})
    assert (found.reveal(), found.source) == (
        "key-1",
        "RUNCOMFY_API_TOKEN in the environment, from the machine",
    )
    for name in KEY_VARIABLES["runcomfy"][1:]:
        with pytest.raises(KeyMissingError, match=f"so {name} is not read") as caught:
            find_key("runcomfy", environ={**marked, "RUNCOMFY_API_TOKEN": " ", name: CANARY})
        assert CANARY not in str(caught.value)
    assert find_key("runcomfy", environ=marked) is None
    assert find_key("runflow", environ={**marked, "RUNFLOW_API_KEY": "key"}).source.endswith("environment")


def test_runcomfy_has_three_names_in_this_order():
    """RunComfy's own tools disagree, so all three are read, in the fixed order."""
    assert KEY_VARIABLES["runcomfy"] == ("RUNCOMFY_API_TOKEN", "RUNCOMFY_TOKEN", "RUNCOMFY_API_KEY")
    assert KEY_VARIABLES["runflow"] == ("RUNFLOW_API_KEY",)


@pytest.mark.parametrize("blank", ["", " ", "\n", "\t \r\n"])
def test_a_blank_key_is_no_key(blank):
    """An empty variable in a job script does not count as a key."""
    assert find_key("runflow", environ={"RUNFLOW_API_KEY": blank}) is None


@pytest.mark.parametrize("short", ["test", "t", "bad1"])
def test_a_short_key_is_a_key(short):
    """The sandbox takes any key, so length is no reason to refuse one."""
    assert find_key("runflow", environ={"RUNFLOW_API_KEY": f" {short}\r\n"}).reveal() == short


@pytest.mark.parametrize(
    "bad",
    [
        f"Bearer {CANARY}",
        f"{CANARY}\nX: y",
        f"{CANARY}\0",
        f"{CANARY}é",
        f"{CANARY}\x7f",
        CANARY * 300,
        "ключ",
    ],
)
def test_a_malformed_key_is_an_error(bad, user_file):
    """What cannot be a key is refused by its variable's name, and nothing else is tried in its stead."""
    environ = {"RUNCOMFY_API_TOKEN": bad, "RUNCOMFY_TOKEN": "good"}
    with pytest.raises(KeyMissingError, match="malformed") as caught:
        find_key("runcomfy", environ=environ, user_file=user_file)
    text = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert "RUNCOMFY_API_TOKEN" in str(caught.value)
    assert "canary" not in text
    assert "ключ" not in text


def test_a_key_is_never_shown(user_file, caplog):
    """No repr, text, format, log or pickle of a key or of what holds it has any part of it."""
    key = find_key("runflow", environ={}, user_file=user_file)
    assert key.reveal() == CANARY
    logging.getLogger("test").warning("%s %r %s", key, [key], {"k": key})
    for text in (repr(key), str(key), f"{key}", f"{[key]!r}", str(vars(key)), caplog.text):
        assert CANARY[:6] not in text
        assert "hidden" in text or "*" in text
    with pytest.raises(TypeError, match="not to be pickled"):
        pickle.dumps(key)
    with pytest.raises(TypeError, match="not to be pickled"):
        copy.deepcopy(key)


def test_a_fingerprint_tells_accounts_apart_and_nothing_else():
    """The same key has the same short name everywhere, another key another, and neither holds its key."""
    names = {fingerprint(Key(SecretStr(f"{CANARY}{n}"), "")) for n in range(200)}
    assert len(names) == 200
    assert all(len(name) == 12 and set(name) <= set("0123456789abcdef") for name in names)
    assert (
        fingerprint(Key(SecretStr("test"), "a")) == fingerprint(Key(SecretStr("test"), "b")) == "12d4412408cb"
    )


# -- the user's file and the keyring ----------------------------------------------


def test_environment_then_file_then_keyring(user_file):
    """The keyring comes last, so that nobody has to unlock it without need."""
    asked = []

    def keyring(provider):
        asked.append(provider)
        return f"ring-{provider}"

    given = {"user_file": user_file, "keyring_lookup": keyring}
    assert find_key("runflow", environ={"RUNFLOW_API_KEY": "env"}, **given).reveal() == "env"
    assert find_key("runflow", environ={}, **given).source == "the user file"
    assert asked == []
    assert find_key("runcomfy", environ={}, **given).reveal() == "ring-runcomfy"
    assert asked == ["runcomfy"]


@pytest.mark.parametrize("error", [TimeoutError(), RuntimeError(CANARY), OSError("locked"), KeyError(CANARY)])
def test_a_keyring_that_fails_is_an_error(error):
    """A locked keyring never means the sandbox, and its words are not repeated."""

    def keyring(provider):
        raise error

    with pytest.raises(SettingsError, match="keyring") as caught:
        find_key("runflow", environ={}, keyring_lookup=keyring)
    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_a_keyring_is_not_asked_when_headless():
    """Nobody is there to unlock it."""

    def keyring(provider):
        raise AssertionError

    assert find_key("runflow", environ={}, keyring_lookup=keyring, headless=True) is None


def test_the_keyring_package_is_asked_by_service_and_provider(monkeypatch):
    """The package is optional; where it is, and has a backend, it is asked under our name."""
    ring = types.ModuleType("keyring")
    errors = types.ModuleType("keyring.errors")
    errors.NoKeyringError = type("NoKeyringError", (RuntimeError,), {})
    ring.errors = errors
    asked = []
    ring.get_password = lambda service, name: asked.append((service, name)) or "k"
    monkeypatch.setitem(sys.modules, "keyring", ring)
    monkeypatch.setitem(sys.modules, "keyring.errors", errors)
    assert ask_keyring("runflow") == "k"
    assert asked == [("kling_nb", "runflow")]

    def no_backend(service, name):
        raise errors.NoKeyringError

    ring.get_password = no_backend
    assert ask_keyring("runflow") is None
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert ask_keyring("runflow") is None


def test_a_key_for_nobody_is_an_error(tmp_path):
    """A misspelt provider under [keys] is pointed out, without the key."""
    path = tmp_path / "config.toml"
    path.write_text(f'[keys]\nrunfow = "{CANARY}"')
    path.chmod(0o600)
    with pytest.raises(SettingsError, match="not a provider's") as caught:
        find_key("runflow", environ={}, user_file=path)
    assert "canary" not in str(caught.value)


def test_the_sandbox_has_no_key():
    """Nothing in the environment is taken for one."""
    assert find_key("sandbox", environ={"SANDBOX": "x"}) is None


@pytest.mark.parametrize("provider", KEY_VARIABLES)
def test_a_missing_key_says_how_to_set_it(provider):
    """The words name every variable and the keyring's command."""
    text = str(key_missing(provider, "the call names it"))
    assert all(name in text for name in KEY_VARIABLES[provider])
    assert f"keyring set kling_nb {provider}" in text
    assert "Charged: no." in text


# -- which provider ---------------------------------------------------------------


def choose(keys="", *, model="pro", audio=False, named=None, default="auto", allow_unpriced=False):
    """Choose with the keys of these providers, in short."""
    found = {name: Key(SecretStr("k"), "test") for name in keys.split()}
    return choose_provider(
        Settings(provider=default),
        find_model(model),
        audio=audio,
        named=named,
        find=found.get,
        allow_unpriced=allow_unpriced,
    )


@pytest.mark.parametrize(
    ("call", "chosen"),
    [
        ({}, "sandbox"),
        ({"keys": "runflow"}, "runflow"),
        ({"keys": "runcomfy"}, "runcomfy"),
        ({"keys": "runflow runcomfy"}, "runflow"),
        ({"keys": "runflow runcomfy", "audio": True}, "runcomfy"),
        ({"keys": "runflow runcomfy", "model": "4k"}, "runcomfy"),
        ({"keys": "runflow", "audio": True, "allow_unpriced": True}, "runflow"),
        ({"keys": "runflow runcomfy", "audio": True, "allow_unpriced": True}, "runcomfy"),
        ({"keys": "runflow runcomfy", "named": "runcomfy"}, "runcomfy"),
        ({"keys": "runflow", "named": "runflow", "audio": True}, "runflow"),
        ({"keys": "runflow", "named": "sandbox"}, "sandbox"),
        ({"keys": "runflow", "default": "sandbox"}, "sandbox"),
        ({"keys": "runflow runcomfy", "default": "runcomfy"}, "runcomfy"),
        ({"keys": "runflow runcomfy", "default": "runcomfy", "named": "auto"}, "runcomfy"),
        ({"keys": "runflow runcomfy", "default": "runcomfy", "named": "runflow"}, "runflow"),
    ],
)
def test_the_provider_of_a_request(call, chosen):
    """The ruling on `auto`, on named providers and on defaults."""
    assert choose(**call) == chosen


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ({"named": "runflow"}, KeyMissingError, "RUNFLOW_API_KEY"),
        ({"keys": "runflow", "named": "runcomfy"}, KeyMissingError, "RUNCOMFY_API_TOKEN"),
        ({"default": "runcomfy"}, KeyMissingError, "the settings name it"),
        ({"keys": "runflow", "audio": True}, UnpricedError, "--allow-unpriced.*--price"),
        ({"keys": "runflow", "model": "4k"}, UnsupportedError, "runcomfy"),
        ({"keys": "runflow", "named": "runflow", "model": "4k"}, UnsupportedError, "does not offer"),
        ({"keys": "runflow", "named": "fal"}, UsageError, "no provider 'fal'"),
    ],
)
def test_no_provider_is_better_than_a_wrong_one(call, error, words):
    """With a key in hand or a name given, nothing ever falls to the sandbox."""
    with pytest.raises(error, match=words):
        choose(**call)


def test_a_key_that_cannot_be_read_stops_the_choice():
    """An error of one place is not "no key"."""

    def find(provider):
        raise SettingsError("locked")

    with pytest.raises(SettingsError, match="locked"):
        choose_provider(Settings(), find_model("pro"), audio=False, named=None, find=find)


def test_a_keyring_is_not_unlocked_for_a_provider_that_is_not_needed():
    """Where the first provider's key will do, a locked keyring stops nothing."""

    def find(provider):
        if provider == "runcomfy":
            raise SettingsError("locked")
        return Key(SecretStr("k"), "test")

    assert choose_provider(Settings(), find_model("pro"), audio=False, named=None, find=find) == "runflow"
    with pytest.raises(SettingsError, match="locked"):
        choose_provider(Settings(), find_model("pro"), audio=True, named=None, find=find)
