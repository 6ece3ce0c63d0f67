"""Keys where no key belongs: found in text before it is sent or kept, and blotted out of what comes back.

Invariants: no message repeats what was found; a text is refused whole, never cut; a key that is no secret,
because it is too short or a plain word, is not looked for.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, SecretStr

from kling_nb.errors import UsageError
from kling_nb.records.request import TextToVideo

__all__ = ["SHORTEST_KEY", "blot", "is_secret", "looks_secret", "refuse_keys", "strings", "texts_of"]

#: Characters that a key of a real provider has at least. What is shorter is no secret, and blotting it out
#: would only spoil answers.
SHORTEST_KEY = 8
_SURELY_A_KEY = 16

# Runflow's keys are documented to begin with rf_live_; the others are the well-known shapes of keys.
_SHAPE = re.compile(
    r"\brf_(?:live|test)_\w{4,}|\b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{20,}|\b(?:gh[pousr]|hf|rc)_[A-Za-z0-9]{20,}"
    r"|\bAKIA[0-9A-Z]{16}\b|\beyJ[\w-]{8,}\.[\w-]{8,}|\bBearer\s+[\w.~+/=-]{20,}",
    re.IGNORECASE | re.ASCII,
)

_REPLACE = (
    "Nothing was sent or kept. Notebooks are saved and shared: delete it here, replace it at the provider if "
    "it was a real one, and set it in the environment or with `%kling keys --ask`."
)


def looks_secret(text: str) -> bool:
    """Whether there is something in a text that can hardly be anything but a key.

    Args:
        text: Any text.

    Example:
        >>> looks_secret("rf_live_0123456789"), looks_secret("a bearer of bad news")
        (True, False)
    """
    return _SHAPE.search(text) is not None


def is_secret(key: str) -> bool:
    """Whether a key is one to look for: long enough, and no plain word that a prompt may well hold.

    Args:
        key: The key.

    Example:
        >>> is_secret("fox-7Qm2Vn"), is_secret("test"), is_secret("anything")
        (True, False, False)
    """
    return len(key) >= SHORTEST_KEY and (len(key) >= _SURELY_A_KEY or not key.isalpha())


def blot(data: bytes, key: str) -> bytes:
    """Blot a key out of what a provider answered, however JSON or a link spells it.

    Args:
        data: The answer.
        key: The key that was sent.

    Returns:
        The same, with `[key]` in its place.

    Example:
        >>> blot(b'{"detail": "no account for a/b-c-d-e"}', "a/b-c-d-e")
        b'{"detail": "no account for [key]"}'
    """
    if len(key) < SHORTEST_KEY:
        return data
    for spelling in _spellings(key):
        data = data.replace(spelling.encode(), b"[key]")
    return data


def refuse_keys(
    texts: Mapping[str, str], known: Iterable[tuple[str, SecretStr]], *, shapes: bool = True
) -> None:
    """Refuse texts that hold a key.

    Args:
        texts: What would be sent or kept, by what it is, e.g. `the prompt`.
        known: Keys with whose they are, e.g. `Runflow`.
        shapes: Whether to refuse also what only looks like a key.

    Raises:
        UsageError: One of them does; the message repeats no part of it.

    Example:
        >>> refuse_keys({"the prompt": "A fox fox-7Qm2Vn"}, [("Runflow", SecretStr("fox-7Qm2Vn"))])
        Traceback (most recent call last):
        ...
        kling_nb.errors.UsageError: The prompt holds your Runflow key. Charged: no. Nothing ...
    """
    # Found in a frame of its own: one that raises is drawn with its variables by many a traceback.
    found = _first_in(texts, known)
    if found is not None:
        what, whose = found
        raise UsageError(f"{what[0].upper()}{what[1:]} holds your {whose} key.", cure=_REPLACE)
    looks = next((what for what, text in texts.items() if shapes and looks_secret(text)), None)
    if looks is not None:
        raise UsageError(f"There is what looks like a key in {looks}.", cure=_REPLACE)


def _first_in(texts: Mapping[str, str], known: Iterable[tuple[str, SecretStr]]) -> tuple[str, str] | None:
    secrets = [(whose, key.get_secret_value()) for whose, key in known]
    for what, text in texts.items():
        # A key that was pasted from a narrow window has line ends in it.
        together = "".join(text.split())
        for whose, key in secrets:
            spelled = any(spelling in text for spelling in _spellings(key))
            if is_secret(key) and (spelled or (len(key) >= _SURELY_A_KEY and key in together)):
                return what, whose
    return None


def texts_of(
    request: TextToVideo, *, tags: Mapping[str, str] | None = None, metadata: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Give every text of a call, by what it is.

    Args:
        request: What is asked.
        tags: Kept with the record.
        metadata: Sent along.

    Returns:
        Texts by name; names and values of tags and metadata too.

    Example:
        >>> texts_of(TextToVideo(prompt="A fox"), tags={"a": "b"})
        {'the prompt': 'A fox', 'the tags': 'a b'}
    """
    named = {"prompt": "the prompt", "negative_prompt": "the negative prompt", "shots": "the shots"}
    given = request.model_dump(exclude_none=True, exclude_defaults=True)
    texts = {named.get(name, name): "\n".join(strings(value)) for name, value in given.items()}
    texts |= {"the tags": " ".join(strings(tags or {})), "the metadata": "\n".join(strings(metadata or {}))}
    return {name: text for name, text in texts.items() if text}


def strings(value: object) -> Iterator[str]:
    """Give every text in a value of mappings, lists and models, names too.

    Args:
        value: Anything.

    Example:
        >>> list(strings({"a": ["b", 1]}))
        ['a', 'b']
    """
    if isinstance(value, str):
        yield value
    elif isinstance(value, BaseModel):
        yield from strings(value.model_dump())
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from strings(key)
            yield from strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings(inner)


@lru_cache(maxsize=16)
def _spellings(key: str) -> frozenset[str]:
    escaped = json.dumps(key)[1:-1]
    return frozenset({key, escaped, escaped.replace("/", "\\/"), quote(key, safe="")})
