"""What files are called, and how a page refers to them.

Invariants: a name made here is lower-case ASCII, legal on every system and never two runs'; a prompt is
hostile text, and nothing of it but letters and digits gets into a name.
"""

import os
import re
import unicodedata
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from kling_nb.errors import StoreError
from kling_nb.records.privacy import hash_of, redacted_request
from kling_nb.records.request import TextToVideo
from kling_nb.records.run import RunRecord

__all__ = ["file_stem", "relative_src", "slug", "stems_of"]

_SLUG_CHARS = 40
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}


def slug(text: str) -> str:
    """Make a short, readable file name of words from anybody.

    Args:
        text: A prompt.

    Returns:
        `[a-z0-9-]`, 1 to 40 characters; `clip` where nothing readable is left.

    Example:
        >>> slug("A red fox, at Dawn"), slug("一只狐狸")
        ('a-red-fox-at-dawn', 'clip')
    """
    # Only the beginning: one code point can fold into eighteen, and a prompt can be long.
    folded = unicodedata.normalize("NFKD", text[:300].casefold()).encode("ascii", "ignore").decode()
    words = "-".join(re.findall(r"[a-z0-9]+", folded.replace("'", "")))
    if len(words) > _SLUG_CHARS:
        cut = words[: _SLUG_CHARS + 1]
        words = cut[: cut.rindex("-")] if "-" in cut[_SLUG_CHARS // 2 :] else cut[:_SLUG_CHARS]
    if sum(c.isalpha() for c in words) < 2:
        return "clip"
    return f"clip-{words}" if words in _RESERVED else words


def file_stem(record: RunRecord) -> str:
    """Name the files of a run, without a suffix.

    Args:
        record: The run.

    Returns:
        The slug of its prompt or first shot, or the hash of a private one, and its id.

    Example:
        >>> file_stem(record)  # doctest: +SKIP
        'a-red-fox-kl7m2q'
    """
    request = record.request
    if record.private:
        return f"private-{hash_of(record)[:8]}-{record.id}"
    return f"{slug(_first_words(request))}-{record.id}"


# One call asks several times.
@lru_cache(maxsize=64)
def stems_of(request: TextToVideo) -> tuple[str, str]:
    """Name what the files of a request's runs begin with, up to the id: of public and of private ones."""
    hashed = _first_words(redacted_request(request)).removeprefix("sha256:")
    return slug(_first_words(request)), f"private-{hashed[:8]}"


def _first_words(request: TextToVideo) -> str:
    return request.prompt or (request.shots[0].prompt if request.shots else "")


def relative_src(clip: Path, notebook_dir: Path) -> str:
    """Write where a clip is as a page beside the notebook must say it.

    Args:
        clip: The clip.
        notebook_dir: The folder of the notebook.

    Returns:
        A relative address, percent-encoded, with forward slashes.

    Raises:
        StoreError: They are on different drives, so that no relative address exists.

    Example:
        >>> relative_src(Path("/a/my clips/fox.mp4"), Path("/a"))
        'my%20clips/fox.mp4'
    """
    try:
        relative = os.path.relpath(clip, notebook_dir)
    except ValueError:
        raise StoreError("The clip is on another drive than the notebook.") from None
    # As bytes: a file name need not be Unicode.
    return quote(os.fsencode(relative.replace(os.sep, "/")), safe="/")
