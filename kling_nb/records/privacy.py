"""A private run as others may see it: the one door between its words and whatever is shown or written.

Invariants: pure; a run that is not private passes as it is. Of a private one the texts of the request and the
labels of the user are hashes, and what a provider wrote is withheld; a second pass changes nothing.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

from kling_nb.errors import KlingError, ProviderError
from kling_nb.records.request import TextToVideo, request_key
from kling_nb.records.run import MediaFacts, RunRecord

__all__ = [
    "NOT_SHOWN",
    "NOW_PRIVATE",
    "STILL_PUBLIC",
    "hash_of",
    "hidden",
    "in_place_of",
    "is_hash",
    "is_redacted",
    "redact_changes",
    "redact_error",
    "redacted",
    "redacted_labels",
    "redacted_request",
    "restore_prompt",
    "text_hash",
    "words_of",
]

#: What stands for a provider's words about a private run, which may repeat the prompt.
NOT_SHOWN = "the provider's words are not shown, because the run is private"
#: What a run says that is made private when it is there already.
NOW_PRIVATE = "Private from now on. A clip that has its name already keeps it."
STILL_PUBLIC = "Private from now on, but its older receipt could not be replaced and still has the words."
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
#: Names of labels that stay, and the tags by which benchmarks name clips: their values are the benchmark's.
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SUITE_VALUE = re.compile(r"[A-Za-z0-9_.,-]{1,256}")
_SUITE = frozenset({"suite", "dimension", "category", "index", "split"})


def is_hash(text: str) -> bool:
    """Whether a text is one that stands for a private one.

    Example:
        >>> is_hash("sha256:" + "0" * 64), is_hash("a red fox")
        (True, False)
    """
    return _HASH.fullmatch(text) is not None


def text_hash(text: str) -> str:
    """Give what stands for a private text.

    Args:
        text: Exactly as it was written.

    Returns:
        `sha256:` and 64 hexadecimal digits.

    Example:
        >>> text_hash("A red fox")[:11]
        'sha256:86cc'
    """
    # As for the request's key: line ends do not make another text.
    plain = text.replace("\r\n", "\n").encode("utf-8", "replace")
    return f"sha256:{hashlib.sha256(plain).hexdigest()}"


def redacted_request(request: TextToVideo) -> TextToVideo:
    """Put the hash in the place of each text of a request.

    Args:
        request: With its words.

    Returns:
        The same settings; each text is `sha256:` and 64 hexadecimal digits.

    Example:
        >>> redacted_request(TextToVideo(prompt="A red fox")).prompt[:11]
        'sha256:86cc'
    """
    return _with_texts(request, text_hash)


def is_redacted(record: RunRecord) -> bool:
    """Whether the words of a private run are not in this record, because it was read from a receipt.

    Args:
        record: Any run.
    """
    # The key is derived from the words: with the hashes in their place it does not come out.
    return (
        record.private
        and all(is_hash(text) for text in _texts(record.request))
        and request_key(record.request, record.model, record.take) != record.request_key
    )


def redacted(record: RunRecord) -> RunRecord:
    """Give a run as others may see it.

    Args:
        record: Any run.

    Returns:
        The run itself where it is not private; else with hashes in the place of its words.

    Example:
        >>> redacted.__name__
        'redacted'
    """
    if not record.private:
        return record
    return record.model_copy(
        update={
            "request": record.request if is_redacted(record) else redacted_request(record.request),
            "message": hidden(record, record.message),
            "tags": {
                _name(name): value if name in _SUITE and _SUITE_VALUE.fullmatch(value) else _label(value)
                for name, value in record.tags.items()
            },
            "metadata": redacted_labels(record.metadata),
            "timing": None,
            "sent": record.sent and record.sent.model_copy(update={"body": None}),
            "media": _unmarked(record.media),
            "further": tuple(filter(None, map(_unmarked, record.further))),
            "seed": None if isinstance(record.seed, str) else record.seed,
        }
    )


def restore_prompt(record: RunRecord, request: TextToVideo) -> RunRecord:
    """Give a run that was read from a receipt its words back, if these are the words.

    Args:
        record: A run of this request's key.
        request: What is asked now.

    Returns:
        The run with its words; as it was, where they are no others' or are not missing.
    """
    if is_redacted(record) and record.request == redacted_request(request):
        return record.model_copy(update={"request": request})
    return record


def redacted_labels(labels: Mapping[str, Any]) -> dict[str, Any]:
    """Give the user's own metadata as it may go along with a private request.

    Args:
        labels: Plain JSON.

    Returns:
        The same, with its hash in the place of each text; numbers and simple names stay.

    Example:
        >>> redacted_labels({"scene": 3, "title": "A red fox"})["title"][:11]
        'sha256:86cc'
    """
    return {_name(name): _label(value) for name, value in labels.items()}


def hash_of(record: RunRecord) -> str:
    """Give the hash that stands for a private run: of its prompt, else of its first shot.

    Args:
        record: A private run, with or without its words.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> hash_of.__name__
        'hash_of'
    """
    return _texts(redacted(record).request)[0].removeprefix("sha256:")


def in_place_of(request: TextToVideo) -> str:
    """Give what a list or a message shows in the place of a private request's words.

    Args:
        request: With its words.

    Example:
        >>> in_place_of(TextToVideo(prompt="A red fox"))[:22]
        'private prompt, sha256'
    """
    return f"private prompt, {_texts(redacted_request(request))[0][:19]}…"


def words_of(record: RunRecord) -> str:
    """Give what a run was asked for, as a list or a card may show it.

    Args:
        record: Any run.

    Returns:
        The words; for a private run that it is one, and the beginning of its hash.

    Example:
        >>> words_of.__name__
        'words_of'
    """
    return f"private prompt, sha256:{hash_of(record)[:12]}…" if record.private else record.request.words


def redact_error(record: RunRecord, error: KlingError) -> KlingError:
    """Give an error about a run as others may see it.

    Args:
        record: The run.
        error: What happened; a provider's words may be in it.

    Returns:
        The error; of a private run one without the provider's words.
    """
    if not record.private:
        return error
    said = copy(error)
    ours, colon, theirs = error.what.partition(": ")
    if isinstance(error, ProviderError):
        said.what = hidden(record, error.what)
    elif colon:
        said.what = f"{ours}: {hidden(record, theirs)}"
    said.args = (" ".join(part for part in (said.what, f"Charged: {said.charged}.", said.cure) if part),)
    return said


def hidden(record: RunRecord, text: str) -> str:
    """Give a provider's sentence about a run as others may see it.

    Args:
        record: The run.
        text: What the provider wrote.

    Returns:
        The sentence; of a private run that it is not shown.

    Example:
        >>> hidden.__name__
        'hidden'
    """
    return NOT_SHOWN if record.private and text else text


def redact_changes(record: RunRecord, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a provider says of a run as its record may keep it.

    Args:
        record: The run. Only one that has its words is its owner's, and keeps everything.
        changes: Fields of the record.

    Returns:
        The same, without what a provider wrote where the words are not here.
    """
    if not is_redacted(record):
        return dict(changes)
    seen = redacted(RunRecord.model_validate({**record.model_dump(), **changes}))
    words = {"message", "seed", "timing", "media", "further"}
    return {**changes, **seen.model_dump(include=words & changes.keys())}


# --- texts -----------------------------------------------------------------------------------------------
def _texts(request: TextToVideo) -> list[str]:
    shots = [shot.prompt for shot in request.shots or ()]
    return [text for text in (request.prompt, *shots, request.negative_prompt) if text]


def _with_texts(request: TextToVideo, change: Callable[[str], str]) -> TextToVideo:
    shots = request.shots and tuple(
        shot.model_copy(update={"prompt": change(shot.prompt)}) for shot in request.shots
    )
    prompt, negative = (text and change(text) for text in (request.prompt, request.negative_prompt))
    return request.model_copy(update={"prompt": prompt, "shots": shots, "negative_prompt": negative})


def _name(name: str) -> str:
    return name if _NAME.fullmatch(name) else _label(name)


def _label(value: Any) -> Any:
    """Put its hash in the place of every text of plain JSON; numbers and simple names stay."""
    if isinstance(value, str):
        return value if is_hash(value) else text_hash(value)
    if isinstance(value, Mapping):
        return redacted_labels(value)
    return [_label(item) for item in value] if isinstance(value, list | tuple) else value


def _unmarked(media: MediaFacts | None) -> MediaFacts | None:
    """A file may hold its prompt in a comment of its own."""
    if media is None or not media.marks:
        return media
    marks = tuple(mark.model_copy(update={"text": NOT_SHOWN if mark.text else ""}) for mark in media.marks)
    return media.model_copy(update={"marks": marks})
