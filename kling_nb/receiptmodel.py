"""The model of a receipt: every field of it, its range, and the record it says.

Invariants: one vocabulary of fields, for whoever reads and whoever describes a receipt; a receipt comes
from anybody, so every field is checked; money is a decimal string in one spelling and never a float; no
file name leads out of its folder.
"""

import re
from datetime import datetime
from decimal import Decimal
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from kling_nb.errors import Charged, one_line
from kling_nb.models import TextToVideo
from kling_nb.records import Estimate, FailReason, MediaFacts, RunRecord, RunStatus, micros

__all__ = ["CLIP_SUFFIXES", "MAX_RECEIPT_BYTES", "RECEIPT_MIME", "SCHEMA", "Receipt", "is_bare_name"]

SCHEMA = "kling-nb-receipt/1"
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


_Money = Annotated[int, BeforeValidator(_micros)]
_Time = Annotated[datetime, BeforeValidator(_moment)]
_Line = Annotated[str, Field(max_length=20_000), AfterValidator(one_line)]
_Key = Annotated[str, Field(pattern=r"^k1:[0-9a-f]{64}$")]
_Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
_Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
_Count = Annotated[int, Field(ge=0, le=10**15)]
_Small = Annotated[int, Field(ge=0, le=10**6)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, hide_input_in_errors=True)


class _Times(_Part):
    created: _Time
    submitted: _Time | None = None
    accepted: _Time | None = None
    started: _Time | None = None
    finished: _Time | None = None
    saved: _Time | None = None
    abandoned: _Time | None = None


class _Price(_Part):
    currency: _Currency = "USD"
    estimate: _Money | None
    reported: _Money | None = None
    settled: _Money | None = None
    reserve: _Money
    reserved: _Money = 0
    play: bool = False
    per_second: str | None = Field(default=None, pattern=r"^[0-9]{1,6}(\.[0-9]{1,12})?$")
    basis: _Line = ""
    source: _Line = ""
    as_of: str | None = Field(default=None, pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")
    list_currency: _Currency = "USD"


class _File(_Part):
    name: Annotated[str, AfterValidator(_clip_name)]
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: _Count
    container: _Line = ""
    codec: _Line = ""
    width: _Small = 0
    height: _Small = 0
    fps: float = Field(default=0.0, ge=0, le=10_000)
    frames: _Count | None = None
    duration_s: float = Field(default=0.0, ge=0, le=10**6)
    audio_codec: _Line | None = None


class _Who(_Part):
    user: _Line = ""
    project: _Line = ""
    notebook: _Line | None = None
    session: _Line = ""


class _Extras(_Part):
    nsfw_detected: bool | None = None
    seed: int | _Line | None = None
    timing: dict[str, Any] | None = None


class _Client(_Part):
    version: _Line = ""


class Receipt(_Part):
    """A receipt as it is read: what the run was, checked field by field."""

    id: str = Field(pattern=r"^[a-z0-9]{4,20}$")
    status: RunStatus
    reason: FailReason | None = None
    charged: Charged = "unknown"
    message: _Line = ""
    request: TextToVideo
    request_key: _Key
    run_key: _Key
    model: _Word
    take: _Small = 0
    attempt: int = Field(default=1, ge=1, le=10**6)
    private: bool = False
    provider: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")
    # It becomes part of an address: no dots alone, no slash runs, no query.
    provider_model: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*){0,9}$")
    provider_run_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._:-]{0,199}$")
    origin: str = Field(pattern=r"^https?://[^\s?#@\\]{1,300}$")
    account: _Line = ""
    client_ref: _Line = ""
    queue_position: _Count | None = None
    times: _Times
    price: _Price
    file: _File | None = None
    who: _Who = _Who()
    tags: dict[_Line, _Line] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)
    extras: _Extras = _Extras()
    client: _Client = _Client()

    def record(self) -> RunRecord:
        """Give what the receipt says as the record that every other part works with."""
        regrouped = {"times", "price", "file", "who", "extras", "client"}
        price, file = self.price, self.file
        return RunRecord(
            **{name: value for name, value in self if name not in regrouped},
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
            media=None if file is None else MediaFacts(file=file.name, **file.model_dump(exclude={"name"})),
            user=self.who.user,
            project=self.who.project,
            notebook=self.who.notebook,
            session_id=self.who.session,
            version=self.client.version,
        )
