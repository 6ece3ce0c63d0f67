"""The keys of one session: typed, else from environment, user file or keyring.

Invariants: a typed key lives in this process only; a keyring that hangs is waited for once, and off the
calling thread; no key is shown, stored or repeated in a message.
"""

import asyncio
from collections.abc import Callable

from pydantic import SecretStr

from kling_nb.errors import UsageError
from kling_nb.keys import KEY_VARIABLES, KEYRING_LIMIT_S, Key, ask_keyring, checked_key, find_key
from kling_nb.loop import Loop

__all__ = ["KeyHolder"]


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
        self._hung = False

    def find(self, provider: str) -> Key | None:
        """Give the key for a provider, or None.

        Raises:
            SettingsError: A key is malformed, or its place cannot be read.
        """
        if provider in self._typed:
            return self._typed[provider]
        return find_key(provider, keyring_lookup=self._keyring, headless=self._headless())

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
        text = typed.get_secret_value().strip()
        if text:
            self._typed[provider] = checked_key(provider, SecretStr(text), "typed in this session")
        else:
            self._typed.pop(provider, None)

    def _keyring(self, provider: str) -> str | None:
        if self._hung or self._loop.here:
            # A thread still waits for it, or the loop itself would: once more would only pile up.
            raise TimeoutError

        async def ask() -> str | None:
            return await asyncio.wait_for(asyncio.to_thread(ask_keyring, provider), KEYRING_LIMIT_S)

        try:
            return self._loop.hand(ask()).result()
        except TimeoutError:
            self._hung = True
            raise
