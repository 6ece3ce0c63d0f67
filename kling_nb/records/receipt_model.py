"""The model of a receipt: every field of it, its range, and the record it says.

Invariants: one vocabulary of fields, for whoever reads and whoever describes a receipt; a receipt comes
from anybody, so every field is checked; money is a decimal string in one spelling and never a float; no
file name leads out of its folder.
"""

import json
import re
from datetime import datetime
from decimal import Decimal
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from kling_nb.errors import Charged, one_line
from kling_nb.records.money import Estimate, micros
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
)
from kling_nb.records.request import TextToVideo
from kling_nb.records.run import Earlier, FailReason, MediaFacts, RunRecord, RunStatus

__all__ = [
    "CLIP_SUFFIXES",
    "MAX_RECEIPT_BYTES",
    "RECEIPT_MIME",
    "SCHEMA",
    "SCHEMA_FILE",
    "SCHEMA_ID",
    "SCHEMA_VERSION",
    "Receipt",
    "is_bare_name",
    "receipt_schema",
    "schema_text",
]

SCHEMA = "kling-nb-receipt/1"

#: The edition of the schema: a later one only adds fields, so that an earlier program still reads it.
SCHEMA_VERSION = "1.1"
RECEIPT_MIME = "application/vnd.kling-nb.receipt+json"
MAX_RECEIPT_BYTES = 1024 * 1024
CLIP_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".webm", ".mkv"})


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
    if not isinstance(value, str) or not re.fullmatch(r"-?[0-9]{1,12}(\.[0-9]{1,6})?", value):
        raise ValueError("is not a decimal amount")
    return micros(Decimal(value))


def _moment(value: object) -> object:
    stamp = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z"
    if not isinstance(value, str) or not re.fullmatch(stamp, value):
        raise ValueError("is not an RFC 3339 time in UTC")
    return datetime.fromisoformat(value)


def _clip_name(value: str) -> str:
    if not is_bare_name(value):
        raise ValueError("is not a bare file name of a clip")
    return value


_MONEY = r"^-?[0-9]{1,12}(\.[0-9]{1,6})?$"
_STAMP = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z$"

_CLIP = (
    r"""^[^/\\:*?"<>|. ][^/\\:*?"<>|]*\.([mM][pP]4|[mM][oO][vV]|[mM]4[vV]|[wW][eE][bB][mM]|[mM][kK][vV])$"""
)

_Money = Annotated[int, BeforeValidator(_micros), WithJsonSchema({"type": "string", "pattern": _MONEY})]

_Time = Annotated[
    datetime,
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": _STAMP}),
]

_Line = Annotated[str, Field(max_length=20_000), AfterValidator(one_line)]
_Key = Annotated[str, Field(pattern=r"^k1:[0-9a-f]{64}$")]
_Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
_Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
_Day = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
_Count = Annotated[int, Field(ge=0, le=10**15)]
_Small = Annotated[int, Field(ge=0, le=10**6)]
_Id = Annotated[str, Field(pattern=r"^[a-z0-9]{4,20}$")]
_Provider = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]


def _say(words: str, default: Any = ...) -> Any:
    return Field(default, description=words)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, hide_input_in_errors=True)


class _Times(_Part):
    created: _Time = _say("The intent was written down and the money reserved")
    submitted: _Time | None = _say("The submit was posted", None)
    accepted: _Time | None = _say("The provider's id was known", None)
    started: _Time | None = _say("The provider began, if it says", None)
    finished: _Time | None = _say("The provider was done, or the run ended", None)
    saved: _Time | None = _say("The clip was whole under its final name", None)
    abandoned: _Time | None = _say("A person gave it up", None)


class _Price(_Part):
    currency: _Currency = _say("ISO 4217, of `reported` and `settled`", "USD")
    estimate: _Money | None = _say("What it should cost, in US dollars; null: nobody knows")
    reported: _Money | None = _say("What the provider says it charged, in `currency`", None)
    settled: _Money | None = _say("What is on the books, in US dollars; null: unknown", None)
    reserve: _Money = _say("What was held back for it at first, in US dollars")
    reserved: _Money = _say("What is still held back, in US dollars", 0)
    play: bool = _say("Whether this is the sandbox's play money", default=False)
    per_second: Annotated[str, Field(pattern=r"^[0-9]{1,6}(\.[0-9]{1,12})?$")] | None = _say(
        "The price of a second of video, in `list_currency`", None
    )
    basis: _Line = _say("The estimate in words", "")
    source: _Line = _say("Where the price stands", "")
    as_of: _Day | None = _say("The date of the price", None)
    list_currency: _Currency = _say("ISO 4217, of the price", "USD")


class _File(_Part):
    name: Annotated[str, Field(max_length=255), AfterValidator(_clip_name)] = Field(
        description="In the media folder: a bare name", json_schema_extra={"pattern": _CLIP}
    )
    sha256: Sha256 = _say("SHA-256 of the bytes, which are those that the provider served")
    size: _Count = _say("Bytes")
    container: _Line = _say("Measured, as all below: `mp4`, `mov`, `webm` or `mkv`", "")
    codec: _Line = _say("Of the picture", "")
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
    notebook: _Line | None = _say("The notebook's file name", None)
    session: _Line = _say("Under which session it is counted", "")
    cell: Cell | None = _say("The cell that asked; null: it was no cell, or the kernel does not tell", None)
    commit: Commit | None = _say("The version of the code around the notebook; null: not under git", None)


class _Extras(_Part):
    nsfw_detected: bool | None = _say("The same as `safety.nsfw_detected`", None)
    seed: int | _Line | None = _say("The provider's seed, if it tells one; it can be given to nobody", None)
    timing: dict[str, Any] | None = _say("The provider's timing, as it says it", None)


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
    created: _Time = _say("It was asked for")
    submitted: _Time | None = _say("It was posted", None)
    finished: _Time | None = _say("It ended", None)
    reported: _Money | None = _say("What the provider says it charged, in `currency`", None)
    settled: _Money | None = _say("What is on the books, in US dollars; null: unknown", None)
    currency: _Currency = _say("ISO 4217, of `reported`", "USD")

    def record(self) -> Earlier:
        moments = {f"{name}_at": getattr(self, name) for name in ("created", "submitted", "finished")}
        money = {f"{name}_micros": getattr(self, name) for name in ("reported", "settled")}
        return Earlier.model_validate({**dict(self), **moments, **money})


class _Client(_Part):
    name: _Line = _say("Always `kling-nb`", "kling-nb")
    version: _Line = _say("Its version", "")


class Receipt(_Part):
    """A receipt as it is read: what the run was, checked field by field."""

    schema_name: Literal["kling-nb-receipt/1"] = Field(alias="schema", description="Which schema this is")
    schema_version: str = Field(
        default="1.0", pattern=r"^1\.[0-9]{1,3}$", description="Which edition of it: later ones only add"
    )
    id: _Id = _say("Our id of the run")
    status: RunStatus = _say("Where the run is")
    reason: FailReason | None = _say("Why it failed, if it did", None)
    charged: Charged = _say("Whether the provider charged for it", "unknown")
    message: _Line = _say("The provider's or our words on its state", "")
    request: TextToVideo = _say("What was asked, in our words; of a private run each text is its hash")
    private: bool = _say("Whether the words went to the provider alone", default=False)
    request_key: _Key = _say("SHA-256 of the request, the model and the take, in canonical form")
    run_key: _Key = _say("The same with the provider")
    prompt_sha256: Sha256 | None = _say(
        "SHA-256 of the prompt as UTF-8, shots joined by line ends; of a private storyboard, of its hashes",
        None,
    )
    sent: Sent | None = _say("The body of the submit as it was posted; null: not yet, or not by us", None)
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
    origin: Annotated[str, Field(pattern=r"^https?://[^\s?#@\\]{1,300}$")] = _say("The provider's address")
    account: _Line = _say("A fingerprint of the key, never the key", "")
    client_ref: _Line = _say("Our name for it at the provider", "")
    queue_position: _Count | None = _say("Its place in the queue, if the provider says", None)
    times: _Times = _say("When, in UTC, RFC 3339")
    price: _Price = _say("Money, as decimal text; null is unknown, never 0")
    file: _File | None = _say("The clip; null: there is none yet, or none at all", None)
    terms: Terms | None = _say("What the provider's page says; null: nobody wrote it down", None)
    safety: _Safety | None = _say("What was said about the content", None)
    who: _Who = _say("Who asked, from where", _Who())
    tags: dict[_Line, _Line] = Field(default_factory=dict, description="The user's own labels")
    metadata: dict[str, Any] = Field(default_factory=dict, description="The user's own JSON, sent along")
    extras: _Extras = _say("What only some providers tell", _Extras())
    client: _Client = _say("What wrote this", _Client())

    def record(self) -> RunRecord:
        """Give what the receipt says as the record that every other part works with."""
        derived = {"schema_name", "schema_version", "prompt_sha256", "sample", "safety"}
        regrouped = {"times", "price", "file", "who", "extras", "client", "earlier"}
        price, file = self.price, self.file
        return RunRecord(
            **{name: value for name, value in self if name not in regrouped | derived},
            **{f"{name}_at": moment for name, moment in self.times},
            **dict(self.extras),
            play=price.play,
            currency=price.currency,
            reported_micros=price.reported,
            settled_micros=price.settled,
            reserved_micros=price.reserved,
            estimate=Estimate(
                micros=price.estimate,
                reserve_micros=price.reserve,
                usd_per_s=price.per_second,
                basis=price.basis,
                source=price.source,
                as_of=price.as_of,
                currency=price.list_currency,
            ),
            earlier=tuple(one.record() for one in self.earlier),
            media=None if file is None else MediaFacts(file=file.name, **file.model_dump(exclude={"name"})),
            user=self.who.user,
            project=self.who.project,
            notebook=self.who.notebook,
            session_id=self.who.session,
            cell=self.who.cell,
            commit=self.who.commit,
            version=self.client.version,
        )


#: Names the schema; it is no address.
SCHEMA_ID = f"urn:kling-nb:receipt:{SCHEMA_VERSION}"

#: In the package, for programs that are not in Python.
SCHEMA_FILE = "receipt.schema.json"


def receipt_schema() -> dict[str, Any]:
    """Give the JSON Schema (2020-12) of a receipt: of a sidecar, and of what an output carries for a run.

    Returns:
        Plain JSON. Fields that it does not name are allowed: a later edition may have them.

    Example:
        >>> receipt_schema()["$id"]
        'urn:kling-nb:receipt:1.1'
    """
    made = _plain(Receipt.model_json_schema(by_alias=True, mode="validation"))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "Receipt of kling_nb",
        "description": "One run of a video model: what was asked, of whom, what came of it, what it cost.",
        **made,
    }


def schema_text() -> str:
    """Give the schema as the file in the package holds it."""
    return json.dumps(receipt_schema(), indent=1, ensure_ascii=False) + "\n"


def _plain(value: Any, *, names: bool = False) -> Any:
    """Leave out what tells of Python: titles, docstrings, private names, values that stand in for nothing."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value.replace("#/$defs/_", "#/$defs/") if isinstance(value, str) else value
    if names:
        return {key.removeprefix("_"): _plain(item) for key, item in value.items()}
    docstring = "properties" in value or "\n" in str(value.get("description"))
    drop = {"title", "default"} | ({"description"} if docstring else set())
    return {
        key: _plain(item, names=key in {"properties", "$defs"})
        for key, item in value.items()
        if key not in drop
    }
