"""The keys of one session: typed, else from environment, user file or keyring.

Invariants: a typed key lives in this process only; a keyring that hangs is waited for once, and off the
calling thread, and never by somebody who holds a lock; no key is shown, stored or repeated in a message.
"""

import asyncio
from collections.abc import Callable, Mapping

from pydantic import SecretStr

from kling_nb.config.keys import (
    FROM_MACHINE,
    KEY_VARIABLES,
    KEYRING_LIMIT_S,
    Key,
    all_keys,
    ask_keyring,
    checked_key,
    find_key,
    fingerprint,
)
from kling_nb.errors import KlingError, UsageError
from kling_nb.loop import Loop
from kling_nb.pricing.catalog import provider_label
from kling_nb.records.secrets import refuse_keys

__all__ = ["KeyHolder", "looked_for_once"]


class KeyHolder:
    """Where a session gets its keys from.

    Args:
        loop: The background loop, which waits for the keyring.
        headless: Whether nobody is there to unlock a keyring.

    Example:
        >>> KeyHolder(Loop(), lambda: True).find("sandbox") is None
        True
    """

    def __init__(self, loop: Loop, headless: Callable[[], bool]) -> None:
        self._loop = loop
        self._headless = headless
        self._typed: dict[str, Key] = {}
        self._met: dict[tuple[str, str], Key] = {}
        self._hung = False
        self._introduced: set[str] = set()

    def find(self, provider: str) -> Key | None:
        """Give the key for a provider, or None.

        Raises:
            SettingsError: A key is malformed, or its place cannot be read.
        """
        key = self._typed.get(provider)
        if key is None:
            key = find_key(provider, keyring_lookup=self._keyring, headless=self._headless())
        if key is not None:
            # A keyring's or a typed one that was taken back is still a key, wherever it turns up.
            self._met[provider, fingerprint(key)] = key
        return key

    def introduce(self, provider: str) -> str:
        """Say once of a key in use that nobody typed it; empty where somebody did, or it was said before."""
        used = (key.source for (name, _), key in self._met.copy().items() if name == provider)
        if provider in self._introduced or not any(FROM_MACHINE in source for source in used):
            return ""
        self._introduced.add(provider)
        return f"The key is {FROM_MACHINE}, where nobody typed it: what this costs is billed to its account."

    def take(self, provider: str, typed: SecretStr) -> None:
        """Use a key that a person typed where it is not shown.

        Args:
            provider: Whose key it is.
            typed: The key; an empty one takes the last typed one back.

        Raises:
            UsageError: There is no such provider.
            KeyMissingError: It cannot be a key.
        """
        if provider not in KEY_VARIABLES:
            raise UsageError(f"There is no key for {provider!r}.", cure=f"Name {' or '.join(KEY_VARIABLES)}.")
        typed = SecretStr(typed.get_secret_value().strip())
        if typed:
            self._typed[provider] = checked_key(provider, typed, "typed in this session")
            self._met[provider, fingerprint(self._typed[provider])] = self._typed[provider]
        else:
            self._typed.pop(provider, None)

    def refuse(self, texts: Mapping[str, str], *, shapes: bool = True) -> None:
        """Refuse texts that hold a key of this user, or what looks like any key.

        Args:
            texts: What would be sent, kept or repeated, by what it is, e.g. `the prompt`.
            shapes: Whether to refuse also what only looks like a key.

        Raises:
            UsageError: One of them does; the message repeats no part of it.
        """
        self.refuser()(texts, shapes)

    def refuser(self) -> Callable[[Mapping[str, str], bool], None]:
        """Give `refuse` for many texts: the keys are looked up once."""
        # A copy, made in one step: runs on their way find keys meanwhile.
        met = self._met.copy()
        secrets = [(name, key.secret) for (name, _), key in met.items()] + list(all_keys())
        known = [(provider_label(name), text) for name, text in secrets]
        return lambda texts, shapes: refuse_keys(texts, known, shapes=shapes)

    def _keyring(self, provider: str) -> str | None:
        if self._hung or self._loop.here:
            # A thread still waits for it, or the loop itself would: once more would only pile up.
            raise TimeoutError

        async def ask() -> str | None:
            return await asyncio.wait_for(asyncio.to_thread(ask_keyring, provider), KEYRING_LIMIT_S)

        try:
            return self._loop.start(ask()).result()
        except TimeoutError:
            self._hung = True
            raise


def looked_for_once(find: Callable[[str], Key | None]) -> Callable[[str], Key | None]:
    """Give `find` for one call: each provider's key is looked for once, and what that raised is raised again.

    Args:
        find: Gives the key for a provider, or None; it may take as long as somebody unlocks a keyring.

    Example:
        >>> find = looked_for_once(lambda provider: print(provider))
        >>> find("runflow"), find("runflow")
        runflow
        (None, None)
    """
    found: dict[str, Key | KlingError | None] = {}

    def look(provider: str) -> Key | None:
        if provider not in found:
            try:
                found[provider] = find(provider)
            except KlingError as error:
                found[provider] = error
        known = found[provider]
        if isinstance(known, KlingError):
            raise known
        return known

    return look
