"""The model of a receipt: every field of it, its range, and the record it says.

Invariants: one vocabulary of fields, for whoever reads and whoever describes a receipt; a receipt comes
from anybody, so every field is checked; money is a decimal string in one spelling and never a float; no
file name leads out of its folder.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from operator import attrgetter
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from kling_nb.errors import Charged, one_line
from kling_nb.records.base import Fact, bare
from kling_nb.records.money import micros, plain_usd
from kling_nb.records.privacy import is_hash
from kling_nb.records.provenance import (
    AI_MADE,
    DRAWN,
    MOST_MARKS,
    Cell,
    Commit,
    Mark,
    Sample,
    Sent,
    Sha256,
    Terms,
    sample_of,
    source_type,
)
from kling_nb.records.request import TextToVideo
from kling_nb.records.run import FailReason, RunRecord, RunStatus

__all__ = [
    "CLIP_SUFFIXES",
    "MAX_DEPTH",
    "MAX_RECEIPT_BYTES",
    "RECEIPT_MIME",
    "SCHEMA",
    "SCHEMA_VERSION",
    "Receipt",
    "is_bare_name",
    "without_queries",
]

SCHEMA = "kling-nb-receipt/1"

#: The edition of the schema: a later one only adds fields, so that an earlier program still reads it.
SCHEMA_VERSION = "1.1"
RECEIPT_MIME = "application/vnd.kling-nb.receipt+json"
MAX_RECEIPT_BYTES = 1024 * 1024
MAX_DEPTH = 24
CLIP_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".webm", ".mkv"})
_QUERY = re.compile(r"(https?://)(?:[^\s/@]*@)?([^\s?#\"'<>]+)(?:\?[^\s\"'<>]*)?")
_MONEY = r"^-?[0-9]{1,12}(\.[0-9]{1,6})?$"
_STAMP = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z$"
_CLIP = (
    r"""^[^/\\:*?"<>|. ][^/\\:*?"<>|]*\.([mM][pP]4|[mM][oO][vV]|[mM]4[vV]|[wW][eE][bB][mM]|[mM][kK][vV])$"""
)


def is_bare_name(name: str) -> bool:
    """Whether this names a clip in a folder and nothing outside it, on any system.

    Args:
        name: A file name from a record or a stranger.

    Returns:
        False for paths, hidden files, control characters and names that are not a clip's.

    Example:
        >>> is_bare_name("a-red-fox-kl7m2q.mp4"), is_bare_name("../a.mp4")
        (True, False)
    """
    return (
        name.isprintable()
        and not name.startswith((".", " "))
        and not any(c in '/\\:*?"<>|' for c in name)
        and len(name.encode("utf-8", "replace")) <= 255
        and name == PureWindowsPath(name).name
        and PurePosixPath(name).suffix.lower() in CLIP_SUFFIXES
    )


def _micros(value: object) -> object:
    # Not a float and not "1e9": one spelling, so that the figure read is the figure written.
    if not isinstance(value, str) or not re.fullmatch(_MONEY, value):
        raise ValueError("is not a decimal amount")
    return micros(Decimal(value))


def _moment(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(_STAMP, value):
        raise ValueError("is not an RFC 3339 time in UTC")
    return datetime.fromisoformat(value)


def _clip_name(value: str) -> str:
    if not is_bare_name(value):
        raise ValueError("is not a bare file name of a clip")
    return value


def without_queries(text: str) -> str:
    """Take queries and user names out of the addresses in a text: they may be signatures and keys.

    Example:
        >>> without_queries("see https://ann@host/a.mp4?sig=1 there")
        'see https://host/a.mp4 there'
    """
    return _QUERY.sub(r"\1\2", text)


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _prompt_sha256(record: RunRecord) -> str:
    request = record.request
    if record.private and is_hash(request.words):
        return request.words.removeprefix("sha256:")
    return hashlib.sha256(request.words.encode("utf-8", "replace")).hexdigest()


def _relative(notebook: str) -> str:
    absolute = PurePosixPath(notebook).is_absolute() or PureWindowsPath(notebook).anchor
    return one_line(PureWindowsPath(notebook).name if absolute else notebook)


def _sent(sent: Sent) -> dict[str, Any]:
    # Cut short it would be another body than the one of the hash: then rather none.
    body = _json(sent.body, depth=4)
    return {"url": sent.url, "sha256": sent.sha256, "body": body if body == sent.body else None}


def _json(value: Any, *, redact: bool = False, depth: int = 3) -> Any:
    """Give foreign data as JSON that every reader takes: no NaN, no lone surrogate, no bottomless nest."""
    if depth > MAX_DEPTH:
        return "..."
    if isinstance(value, Mapping):
        return {str(_json(str(k))): _json(v, redact=redact, depth=depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item, redact=redact, depth=depth + 1) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    text = str(value).encode("utf-8", "replace").decode()
    return without_queries(text) if redact else text


_Money = Annotated[
    int,
    BeforeValidator(_micros),
    PlainSerializer(plain_usd),
    WithJsonSchema({"type": "string", "pattern": _MONEY}),
]

_Time = Annotated[
    datetime,
    BeforeValidator(_moment),
    PlainSerializer(_rfc3339),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": _STAMP}),
]

_Line = Annotated[str, Field(max_length=20_000), AfterValidator(one_line), PlainSerializer(one_line)]
_Reported = Annotated[_Line, PlainSerializer(lambda text: one_line(without_queries(text)))]
_Key = Annotated[str, Field(pattern=r"^k1:[0-9a-f]{64}$")]
_Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
_Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
_Day = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
_Count = Annotated[int, Field(ge=0, le=10**15)]
_Small = Annotated[int, Field(ge=0, le=10**6)]
_Id = Annotated[str, Field(pattern=r"^[a-z0-9]{4,20}$")]
_Provider = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]


def _say(words: str, default: Any = ..., alias: str | None = None) -> Any:
    return Field(default, description=words, alias=alias)


def _short(name: str) -> str:
    return name.removesuffix("_at").removesuffix("_micros")


class _Part(Fact):
    # A field is called as in the record (`a__b` is `b` of its `a`), and has the receipt's name as alias.
    model_config = ConfigDict(alias_generator=_short)

    @classmethod
    def of(cls, record: Any, **derived: Any) -> "_Part":
        """Take the fields from a record as they are: what goes out is cleaned by its type, not refused."""
        values = {n: derived[n] if n in derived else read(record) for n, read in _readers(cls).items()}
        return bare(cls, values)

    def facts(self) -> dict[str, Any]:
        """Give the fields as the record holds them: most parts are the receipt's alone."""
        found: dict[str, Any] = {}
        for name, value in self:
            outer, _, inner = name.rpartition("__")
            place = found.setdefault(outer, {}) if outer else found
            apart = isinstance(value, _Part) and name not in RunRecord.model_fields
            place.update(value.facts() if apart else {inner: value})
        return found


@cache
def _readers(part: type[_Part]) -> dict[str, "attrgetter[Any]"]:
    return {name: attrgetter(name.replace("__", ".")) for name in part.model_fields}


class _Times(_Part):
    created_at: _Time = _say("The intent was written down and the money reserved")
    submitted_at: _Time | None = _say("The submit was posted", None)
    accepted_at: _Time | None = _say("The provider's id was known", None)
    started_at: _Time | None = _say("The provider began, if it says", None)
    finished_at: _Time | None = _say("The provider was done, or the run ended", None)
    saved_at: _Time | None = _say("The clip was whole under its final name", None)
    abandoned_at: _Time | None = _say("A person gave it up", None)


class _Price(_Part):
    currency: _Currency = _say("ISO 4217, of `reported` and `settled`", "USD")
    estimate__micros: _Money | None = _say(
        "What it should cost, in US dollars; null: nobody knows", alias="estimate"
    )
    reported_micros: _Money | None = _say("What the provider says it charged, in `currency`", None)
    settled_micros: _Money | None = _say("What is on the books, in US dollars; null: unknown", None)
    estimate__reserve_micros: _Money = _say(
        "What was reserved for it at first, in US dollars", alias="reserve"
    )
    reserved_micros: _Money = _say("What is still reserved, in US dollars", 0)
    play: bool = _say("Whether this is the sandbox's play money", default=False)
    estimate__usd_per_s: Annotated[str, Field(pattern=r"^[0-9]{1,6}(\.[0-9]{1,12})?$")] | None = _say(
        "The price of a second of video, in `list_currency`", None, "per_second"
    )
    estimate__basis: _Line = _say("The estimate in words", "", "basis")
    estimate__source: _Reported = _say("Where the price stands", "", "source")
    estimate__as_of: _Day | None = _say("The date of the price", None, "as_of")
    estimate__currency: _Currency = _say("ISO 4217, of the price", "USD", "list_currency")


class _File(_Part):
    file: Annotated[str, Field(max_length=255), AfterValidator(_clip_name)] = Field(
        alias="name", description="In the media folder: a bare name", json_schema_extra={"pattern": _CLIP}
    )
    sha256: Sha256 = _say("SHA-256 of the bytes, which are those that the provider served")
    size: _Count = _say("Bytes")
    container: _Line = _say("Measured, as all below: `mp4`, `mov`, `webm` or `mkv`", "")
    codec: _Line = _say("Of the picture", "")
    profile: _Line = _say("Of the codec; empty: it has none, or nobody looked", "")
    pixel_format: _Line = _say("In FFmpeg's words; empty: nobody looked", "")
    width: _Small = _say("Pixels", 0)
    height: _Small = _say("Pixels", 0)
    fps: Annotated[float, Field(ge=0, le=10_000)] = _say("Frames per second", 0.0)
    frames: _Count | None = _say("Number of frames", None)
    duration_s: Annotated[float, Field(ge=0, le=10**6)] = _say("Seconds", 0.0)
    audio_codec: _Line | None = _say("Of the sound; null: the file is silent", None)
    marks: Annotated[tuple[Mark, ...], Field(max_length=MOST_MARKS)] | None = _say(
        "What the file says about itself; null: nobody looked", None
    )
    source_type: Literal["trainedAlgorithmicMedia", "algorithmicMedia"] | None = _say(
        "The last word of `digital_source_type`", None
    )
    digital_source_type: Literal[AI_MADE, DRAWN] | None = _say(  # type: ignore[valid-type]
        "IPTC's digital source type: made by a trained model, or drawn by the sandbox", None
    )


class _Who(_Part):
    user: _Line = _say("Who asked", "")
    project: _Line = _say("What for", "")
    notebook: Annotated[_Line, PlainSerializer(_relative)] | None = _say("The notebook's file name", None)
    session_id: _Line = _say("Under which session it is counted", "", "session")
    cell: Cell | None = _say("The cell that asked; null: it was no cell, or the kernel does not tell", None)
    commit: Commit | None = _say("The version of the code around the notebook; null: not under git", None)


class _Extras(_Part):
    nsfw_detected: bool | None = _say("The same as `safety.nsfw_detected`", None)
    seed: int | _Line | None = _say("The provider's seed, if it tells one; it can be given to nobody", None)
    timing: Annotated[dict[str, Any], PlainSerializer(lambda said: _json(said, redact=True))] | None = _say(
        "The provider's timing, as it says it", None
    )


class _Safety(_Part):
    nsfw_detected: bool | None = _say("The provider's flag on the clip; null: it says nothing", None)
    moderated: bool = _say("Whether the provider refused the content", default=False)


class _Earlier(_Part):
    id: _Id = _say("Our id of that attempt")
    provider: _Provider = _say("Where it went")
    attempt: Annotated[int, Field(ge=1, le=10**6)] = _say("Its number")
    status: RunStatus = _say("What became of it")
    reason: FailReason | None = _say("Why it failed, if it did", None)
    charged: Charged = _say("Whether the provider charged for it", "unknown")
    created_at: _Time = _say("It was asked for")
    submitted_at: _Time | None = _say("It was posted", None)
    finished_at: _Time | None = _say("It ended", None)
    reported_micros: _Money | None = _say("What the provider says it charged, in `currency`", None)
    settled_micros: _Money | None = _say("What is on the books, in US dollars; null: unknown", None)
    currency: _Currency = _say("ISO 4217, of `reported`", "USD")


class _Client(_Part):
    name: _Line = _say("Always `kling-nb`", "kling-nb")
    version: _Line = _say("Its version", "")


class Receipt(_Part):
    """A receipt: read, it is checked field by field; written, each type cleans what it holds."""

    schema_name: Literal["kling-nb-receipt/1"] = Field(alias="schema", description="Which schema this is")
    schema_version: str = Field(
        default="1.0", pattern=r"^1\.[0-9]{1,3}$", description="Which edition of it: later ones only add"
    )
    id: _Id = _say("Our id of the run")
    status: RunStatus = _say("Where the run is")
    reason: FailReason | None = _say("Why it failed, if it did", None)
    charged: Charged = _say("Whether the provider charged for it", "unknown")
    message: _Reported = _say("The provider's or our words on its state", "")
    request: Annotated[
        TextToVideo, PlainSerializer(lambda asked: asked.model_dump(mode="json", exclude_none=True))
    ] = _say("What was asked, in our words; of a private run each text is its hash")
    private: bool = _say("Whether the words went to the provider alone", default=False)
    request_key: _Key = _say("SHA-256 of the request, the model and the take, in canonical form")
    run_key: _Key = _say("The same with the provider")
    prompt_sha256: Sha256 | None = _say(
        "SHA-256 of the prompt as UTF-8, shots joined by line ends; of a private storyboard, of its hashes",
        None,
    )
    sent: Annotated[Sent, PlainSerializer(_sent)] | None = _say(
        "The body of the submit as it was posted; null: not yet, or not by us", None
    )
    model: _Word = _say("Our id of the model")
    take: _Small = _say("The planned sample, counted from 0", 0)
    sample: Sample | None = _say("Which sample of which suite this is", None)
    attempt: Annotated[int, Field(ge=1, le=10**6)] = _say("The number of this attempt of the take", 1)
    earlier: tuple[_Earlier, ...] = _say("Attempts of the same take before it, as known at its end", ())
    provider: _Provider = _say("`runflow`, `runcomfy` or `sandbox`")
    # It becomes part of an address: no dots alone, no slash runs, no query.
    provider_model: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*){0,9}$")
    ] = _say("The provider's id of the model")
    provider_run_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._:-]{0,199}$")] | None = _say(
        "The provider's id of the run, once it is known", None
    )
    origin: Annotated[
        str, Field(pattern=r"^https?://[^\s?#@\\]{1,300}$"), PlainSerializer(without_queries)
    ] = _say("The provider's address")
    account: _Line = _say("A fingerprint of the key, never the key", "")
    client_ref: _Line = _say("Our name for it at the provider", "")
    queue_position: _Count | None = _say("Its place in the queue, if the provider says", None)
    times: _Times = _say("When, in UTC, RFC 3339")
    price: _Price = _say("Money, as decimal text; null is unknown, never 0")
    media: _File | None = _say("The clip; null: there is none yet, or none at all", None, "file")
    further: Annotated[tuple[_File, ...], Field(max_length=20)] = _say(
        "Files of further videos that the provider made for the same run", (), "further_files"
    )
    terms: Terms | None = _say("What the provider's page says; null: nobody wrote it down", None)
    safety: _Safety | None = _say("What was said about the content", None)
    who: _Who = _say("Who asked, from where", _Who())
    tags: dict[_Line, _Line] = Field(default_factory=dict, description="The user's own labels")
    metadata: Annotated[dict[str, Any], PlainSerializer(_json)] = Field(
        default_factory=dict, description="The user's own JSON, sent along"
    )
    extras: _Extras = _say("What only some providers tell", _Extras())
    client: _Client = _say("What wrote this", _Client())

    @classmethod
    def of(cls, record: Any, **derived: Any) -> "_Part":
        """Say what a record says; nothing is checked, since a run that is paid for is written down."""
        tags = {one_line(name): one_line(value) for name, value in record.tags.items()}
        mark = source_type(play=record.play)
        marked = {"source_type": mark.rpartition("/")[2], "digital_source_type": mark}
        return super().of(
            record,
            schema_name=SCHEMA,
            schema_version=SCHEMA_VERSION,
            prompt_sha256=_prompt_sha256(record),
            sample=sample_of(tags, record.take),
            earlier=tuple(_Earlier.of(one) for one in record.earlier),
            times=_Times.of(record),
            price=_Price.of(record),
            media=None if record.media is None else _File.of(record.media, **marked),
            further=tuple(_File.of(media, **marked) for media in record.further),
            safety=_Safety.of(record, moderated=record.reason == "moderated"),
            who=_Who.of(record),
            tags=tags,
            extras=_Extras.of(record),
            client=_Client.of(record, name="kling-nb"),
            **derived,
        )

    def record(self) -> RunRecord:
        """Give what the receipt says as the record that every other part works with."""
        return RunRecord.model_validate(self.facts(), from_attributes=True)
