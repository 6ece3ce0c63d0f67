"""Where a clip comes from, beyond the request: what was sent, from which code, under which terms, how marked.

Invariants: values only; what nobody knows is None; nothing here names a path, a folder or a machine; texts of
strangers are one line and cut to a length.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue

from kling_nb.errors import one_line
from kling_nb.records.base import Fact

__all__ = [
    "AI_MADE",
    "DRAWN",
    "MOST_MARKS",
    "Cell",
    "Commit",
    "Mark",
    "Sample",
    "Sent",
    "Terms",
    "body_bytes",
    "sample_of",
    "source_type",
]

#: IPTC's words for how a medium came to be (cv.iptc.org/newscodes/digitalsourcetype, read 2026-11-21):
#: a trained model made it, or a program drew it, as the sandbox does.
AI_MADE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
DRAWN = "http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicMedia"
MOST_MARKS = 16
_MOST_KEPT = 64 * 1024
_CELL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_Line = Annotated[str, AfterValidator(one_line)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def source_type(*, play: bool) -> str:
    """Give IPTC's digital source type of a clip, as a full address.

    Args:
        play: Whether the sandbox drew it.

    Example:
        >>> source_type(play=True).rpartition("/")[2]
        'algorithmicMedia'
    """
    return DRAWN if play else AI_MADE


def body_bytes(body: Mapping[str, Any]) -> bytes:
    """Give a JSON body as the bytes that are sent: names sorted, so that anybody can make them again.

    Args:
        body: Plain JSON.

    Raises:
        ValueError: It is not plain JSON: NaN, or half a character.

    Example:
        >>> body_bytes({"b": 1, "a": "é"}).decode()
        '{"a":"é","b":1}'
    """
    # There and back first: a name may be a number in Python, and only texts can be sorted.
    plain = json.loads(json.dumps(body, allow_nan=False))
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class Sent(Fact):
    """The body of a submit as it was posted: after defaults, in the provider's spelling, without the key.

    Args:
        url: Where to, without a query.
        sha256: Of the bytes; see `body_bytes`. The address of a callback is in neither, since it tells whose
            machine is called.
        body: What they say; None for a private run, whose words go to the provider alone, and for a body
            of more than 64 KiB, which only a user's own metadata can make it.

    Example:
        >>> Sent.of("https://x/v1", {"a": 1}, private=True).body is None
        True
    """

    url: str = Field(max_length=2000, pattern=r"^https?://[^\s?#@\\]+$", description="Where it was posted to")
    sha256: Sha256 = Field(description="SHA-256 of the bytes that were posted")
    body: dict[str, JsonValue] | None = Field(
        default=None, description="The posted JSON; null where the run is private, or it is over 64 KiB"
    )

    @classmethod
    def of(cls, url: str, body: Mapping[str, Any], *, private: bool) -> "Sent":
        """Note a body that is about to be sent.

        Args:
            url: Where to.
            body: Plain JSON.
            private: Whether only its hash may be kept.
        """
        data = body_bytes(body)
        kept = None if private or len(data) > _MOST_KEPT else json.loads(data)
        return cls(url=url, sha256=hashlib.sha256(data).hexdigest(), body=kept)

    @property
    def whole(self) -> bool:
        """Whether the body is the one of the hash, or is not here to be compared."""
        return self.body is None or hashlib.sha256(body_bytes(self.body)).hexdigest() == self.sha256


class Cell(Fact):
    """The cell that asked, as far as the front end tells.

    Args:
        id: Its id in the notebook, where the front end sends it.
        sha256: Of its text, UTF-8.
        count: Its number in the kernel, `In [count]`.

    Example:
        >>> Cell.of("a = 1", cell_id="vscode-notebook-cell:/home/ann/a.ipynb#W0", count=3).id is None
        True
    """

    id: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$", description="The cell's id in the notebook, if known"
    )
    sha256: Sha256 = Field(description="SHA-256 of the cell's text as UTF-8")
    count: int | None = Field(
        default=None, ge=0, le=10**9, description="Its number in the kernel, In [count]"
    )

    @classmethod
    def of(cls, source: str, *, cell_id: object, count: object) -> "Cell":
        """Note a cell that is being run.

        Args:
            source: Its text.
            cell_id: As the front end sent it. Only a notebook's own kind counts: VS Code's holds a path.
            count: The kernel's execution count.
        """
        known = isinstance(cell_id, str) and _CELL_ID.fullmatch(cell_id) is not None
        return cls(
            id=str(cell_id) if known else None,
            sha256=hashlib.sha256(source.encode("utf-8", "replace")).hexdigest(),
            count=count if isinstance(count, int) and 0 <= count <= 10**9 else None,
        )


class Commit(Fact):
    """The version of the code around a notebook.

    Args:
        sha: The commit that is checked out.
        dirty: Whether files that git tracks differ from it; None where that could not be found out in time.

    Example:
        >>> Commit(sha="0" * 40).dirty is None
        True
    """

    sha: str = Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$", description="The commit that was checked out")
    dirty: bool | None = Field(
        default=None, description="Whether tracked files differed from it; null where nobody found out"
    )


class Terms(Fact):
    """What a provider's page says a clip may be used for; links only, no advice.

    Args:
        licence: The licence line of the model's page, word for word; None where none was found.
        url: Where terms stand; None where no address was found.
        as_of: The day (`YYYY-MM-DD`) that somebody looked; None where nobody did.

    Example:
        >>> Terms().licence is None
        True
    """

    licence: _Line | None = Field(
        default=None, max_length=500, description="The licence line of the model's page; null where unknown"
    )
    url: str | None = Field(
        default=None,
        max_length=500,
        pattern=r"^https://[^\s?#@\\]+$",
        description="Where the terms stand; null where unknown",
    )
    as_of: str | None = Field(
        default=None,
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
        description="The day somebody looked; null where nobody did",
    )


class Mark(Fact):
    """Something a file says about itself: who made it, with what. It is shown, and nothing is done about it.

    Args:
        kind: `c2pa` (a signed manifest), `aigc` (the label of China's GB 45438-2025), `xmp` or `tag`.
        where: The box or the name under which it stands.
        text: What it says, cut to a length; empty for what is not text.

    Example:
        >>> Mark(kind="tag", where="encoder", text="Lavf62.3.100").kind
        'tag'
    """

    kind: Literal["c2pa", "aigc", "xmp", "tag"] = Field(description="What kind of mark it is")
    where: _Line = Field(max_length=80, description="The box or the name under which it stands in the file")
    text: _Line = Field(default="", max_length=2000, description="What it says, cut to a length")


class Sample(Fact):
    """Which sample of which suite a run is, as its tags and its take say.

    Args:
        suite: Tag `suite`.
        dimension: Tag `dimension`, else `category`.
        index: Tag `index`, where it is a whole number: the place of the prompt in its suite, from 0.
        take: The planned sample.
    """

    suite: str | None = Field(default=None, description="Tag `suite`")
    dimension: str | None = Field(default=None, description="Tag `dimension`, else tag `category`")
    index: int | None = Field(default=None, ge=0, description="Tag `index`: the prompt's place in the suite")
    take: int = Field(ge=0, description="The planned sample, counted from 0")


def sample_of(tags: Mapping[str, str], take: int) -> Sample:
    """Say which sample a run is.

    Args:
        tags: Of the run.
        take: Of the run.

    Example:
        >>> sample_of({"suite": "vbench", "index": "7"}, 2)
        Sample(suite='vbench', index=7, take=2)
    """
    text = tags.get("index", "")
    return Sample(
        suite=tags.get("suite"),
        dimension=tags.get("dimension") or tags.get("category"),
        index=int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None,
        take=take,
    )
