"""The providers' keys: where they are looked for, and how they are named without being shown.

Invariants: a key never appears in a repr, a message, a pickle or a fingerprint's input domain that
another program shares; a blank one counts as none; one that cannot be a key is an error and never
leads to the sandbox; nothing here starts a thread, so the keyring is asked through a function that the
session gives, which keeps its own time limit.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pydantic import SecretStr

from kling_nb.addresses import is_loopback
from kling_nb.config.settings import CALLBACK_SECRETS
from kling_nb.config.toml_files import read_user_file
from kling_nb.errors import KeyMissingError, SettingsError
from kling_nb.records.secrets import SHORTEST_KEY

__all__ = [
    "FROM_MACHINE",
    "KEYRING_LIMIT_S",
    "KEYRING_SERVICE",
    "KEY_VARIABLES",
    "Key",
    "all_keys",
    "ask_keyring",
    "callback_secrets",
    "check_length",
    "checked_key",
    "find_key",
    "fingerprint",
    "key_missing",
]

#: In the order they are read. RunComfy's official tools disagree about the name.
KEY_VARIABLES: Mapping[str, tuple[str, ...]] = {
    "runflow": ("RUNFLOW_API_KEY",),
    "runcomfy": ("RUNCOMFY_API_TOKEN", "RUNCOMFY_TOKEN", "RUNCOMFY_API_KEY"),
}

KEYRING_SERVICE = "kling_nb"

#: RunComfy's managed machines set it, and `RUNCOMFY_API_TOKEN` with it: then nobody typed that key.
_MACHINE = {"runcomfy": "RUNCOMFY_API_TOKEN_FILE"}

#: What such a key's source says.
FROM_MACHINE = "from the machine"

#: How long the caller of `ask_keyring` should wait for it, in seconds.
KEYRING_LIMIT_S = 2.0
_MAX_CHARS = 4096


@dataclass(frozen=True, repr=False)
class Key:
    """One key and where it was found.

    Args:
        secret: The key itself.
        source: Where it was found, in words; never any part of it.

    Example:
        >>> Key(SecretStr("rf_live_1"), "keyring")
        Key(<hidden>, source='keyring')
    """

    secret: SecretStr
    source: str

    def reveal(self) -> str:
        """Give the key itself, for the one place that puts it on the wire."""
        return self.secret.get_secret_value()

    def __repr__(self) -> str:
        return f"Key(<hidden>, source={self.source!r})"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: a saved session must not hold a key."""
        raise TypeError("a key is not to be pickled")


def fingerprint(key: Key) -> str:
    """Name an account without telling its key.

    Args:
        key: The key.

    Returns:
        12 hexadecimal digits of SHA-256, in a domain of this package's own.

    Example:
        >>> fingerprint(Key(SecretStr("test"), "keyring"))
        '12d4412408cb'
    """
    return hashlib.sha256(b"kling_nb account, version 1\0" + key.reveal().encode()).hexdigest()[:12]


def find_key(
    provider: str,
    *,
    environ: Mapping[str, str] | None = None,
    user_file: Path | None = None,
    keyring_lookup: Callable[[str], str | None] | None = None,
    headless: bool = False,
) -> Key | None:
    """Find a provider's key: environment, then the user's own file, then the keyring.

    The keyring comes last, so that nobody is asked to unlock it without need.

    Args:
        provider: `runflow` or `runcomfy`; any other name has no key.
        environ: The environment; by default the process's own.
        user_file: The user's own file; by default its usual place.
        keyring_lookup: Asks the keyring for a provider's key within `KEYRING_LIMIT_S`, off the main
            thread; usually `ask_keyring` behind the background loop. None means no keyring.
        headless: Whether nobody is there to unlock a keyring; it is not asked then.

    Returns:
        The key, or None where there is none.

    Raises:
        KeyMissingError: What was found cannot be a key.
        SettingsError: The user's own file cannot be read, or the keyring is locked, broken or too slow.

    Example:
        >>> find_key("runflow", environ={"RUNFLOW_API_KEY": "rf_live_1"})
        Key(<hidden>, source='RUNFLOW_API_KEY in the environment')
    """
    if provider not in KEY_VARIABLES:
        return None
    for source, secret in _places(provider, environ, user_file, None if headless else keyring_lookup):
        return checked_key(provider, secret, source)
    return None


def checked_key(provider: str, secret: SecretStr, source: str) -> Key:
    """Make a key of what was found or typed.

    Args:
        provider: Whose key it is.
        secret: What was found.
        source: Where, in words.

    Returns:
        The key.

    Raises:
        KeyMissingError: It cannot be a key; the message does not repeat it.

    Example:
        >>> checked_key("runflow", SecretStr("rf_live_1"), "typed in this session").source
        'typed in this session'
    """
    problem = _problem(secret)
    if problem:
        raise KeyMissingError(
            f"The key from {source} is malformed: it {problem}.",
            cure="Set it again, without quotes, a prefix or line breaks.",
            provider=provider,
        )
    return Key(secret, source)


def check_length(provider: str, key: Key, origin: str) -> None:
    """Refuse what is too short to be a key, before it goes to a real provider.

    A stand-in on this machine takes any key; anywhere else a few letters are a slip of the pen, and could not
    be told from words in an answer that repeats them.

    Args:
        provider: Whose key it is.
        key: The key.
        origin: Where it would go.

    Raises:
        KeyMissingError: It is no key; the message does not repeat it.

    Example:
        >>> check_length("runflow", Key(SecretStr("test"), "the keyring"), "http://127.0.0.1:8000")
    """
    if len(key.reveal()) < SHORTEST_KEY and not is_loopback(origin):
        raise KeyMissingError(
            f"The key from {key.source} is not a key: it has fewer than {SHORTEST_KEY} characters.",
            cure="Nothing was sent. Copy the whole key from the provider's page.",
            provider=provider,
        )


def all_keys(
    *, environ: Mapping[str, str] | None = None, user_file: Path | None = None
) -> Iterator[tuple[str, SecretStr]]:
    """Give whatever stands where keys stand, to look for it where it must not be; asks no keyring.

    Args:
        environ: The environment; by default the process's own.
        user_file: The user's own file; by default its usual place.

    Yields:
        Provider and text, also of keys that another one outranks and of malformed ones.

    Example:
        >>> list(all_keys(environ={"RUNCOMFY_TOKEN": "t"}))
        [('runcomfy', SecretStr('**********'))]
    """
    for provider, names in KEY_VARIABLES.items():
        for name in names:
            for _, secret in _named("", (os.environ if environ is None else environ).get(name)):
                yield provider, secret
    for secret in callback_secrets(environ):
        yield "callback", secret
    with contextlib.suppress(SettingsError):
        for provider, text in read_user_file(user_file).keys.items():
            yield provider, SecretStr(text.strip())


def callback_secrets(environ: Mapping[str, str] | None = None) -> list[SecretStr]:
    """Give the secrets that a provider may sign its callbacks with; none where callbacks are off.

    Args:
        environ: The environment; by default the process's own.

    Example:
        >>> len(callback_secrets({"KLING_NB_CALLBACK_SECRETS": "new-secret, old-secret"}))
        2
    """
    text = (os.environ if environ is None else environ).get(CALLBACK_SECRETS, "")
    return [SecretStr(one) for part in text.split(",") if (one := part.strip())]


def key_missing(provider: str, why: str = "") -> KeyMissingError:
    """Make the error for a provider that was named and has no key.

    Args:
        provider: `runflow` or `runcomfy`.
        why: What named it, e.g. `KLING_NB_PROVIDER names it`.

    Returns:
        The error, to be raised.
    """
    names = KEY_VARIABLES[provider]
    others = f" ({' or '.join(names[1:])} also works)" if names[1:] else ""
    return KeyMissingError(
        f"There is no key for {provider}{', and ' + why if why else ''}.",
        cure=f"Set {names[0]}{others} in the environment before the kernel starts, put it under [keys] of "
        f"the user's config.toml, or store it with `python -m keyring set {KEYRING_SERVICE} {provider}`; "
        "or name the sandbox, which needs none.",
        provider=provider,
    )


def ask_keyring(provider: str) -> str | None:
    """Ask the system's keyring; may block for as long as the user looks at a prompt.

    Args:
        provider: The provider's name, which is the user name in the keyring.

    Returns:
        The key; None where there is none, no keyring, or no `keyring` package.

    Raises:
        Exception: Whatever the keyring raises when it is locked or broken.
    """
    try:
        import keyring
        import keyring.errors
    except ImportError:
        return None
    try:
        found: str | None = keyring.get_password(KEYRING_SERVICE, provider)
    except keyring.errors.NoKeyringError:
        return None
    return found


def _places(
    provider: str,
    environ: Mapping[str, str] | None,
    user_file: Path | None,
    keyring_lookup: Callable[[str], str | None] | None,
) -> Iterator[tuple[str, SecretStr]]:
    env = os.environ if environ is None else environ
    first, *others = KEY_VARIABLES[provider]
    mark = _MACHINE.get(provider, "")
    managed = bool(env.get(mark, "").strip())
    source = f"{first} in the environment"
    yield from _named(f"{source}, {FROM_MACHINE}" if managed else source, env.get(first))
    for name in others:
        for found in _named(f"{name} in the environment", env.get(name)):
            if managed:
                # The machine's own tools stop here too: whose key the other one is nobody can tell.
                raise KeyMissingError(
                    f"{mark} is set and {first} is not, so {name} is not read: the machine gives the key.",
                    cure=f"Nothing was sent. Restart the machine's kernel, set {first}, or unset {mark}.",
                    provider=provider,
                )
            yield found
    file = read_user_file(user_file)
    unknown = sorted(set(file.keys) - set(KEY_VARIABLES))
    if unknown:
        raise SettingsError(
            f"[keys] in {file.path} has a name that is not a provider's.",
            cure=f"Use {' or '.join(KEY_VARIABLES)}.",
        )
    yield from _named("the user file", file.keys.get(provider))
    if keyring_lookup is not None:
        yield from _named("the keyring", _guarded(keyring_lookup, provider))


def _named(source: str, text: str | None) -> Iterator[tuple[str, SecretStr]]:
    if text is not None and text.strip():
        yield source, SecretStr(text.strip())


def _guarded(keyring_lookup: Callable[[str], str | None], provider: str) -> str | None:
    # Keyring backends raise what they like, and their words may repeat what they hold.
    try:
        return keyring_lookup(provider)
    except TimeoutError:
        why = f"did not answer within {KEYRING_LIMIT_S:g} s"
    except Exception as error:  # noqa: BLE001 - see above
        why = f"failed ({type(error).__name__})"
    raise SettingsError(
        f"The keyring {why}, so nobody knows whether there is a key for {provider}.",
        cure=f"Unlock it and try again, or set {KEY_VARIABLES[provider][0]} in the environment.",
        provider=provider,
    )


def _problem(secret: SecretStr) -> str:
    text = secret.get_secret_value()
    if len(text) > _MAX_CHARS:
        return f"has more than {_MAX_CHARS} characters"
    if any(c.isspace() for c in text):
        return "has white space inside"
    if not text.isascii() or not text.isprintable():
        return "has characters that no key has"
    return ""
