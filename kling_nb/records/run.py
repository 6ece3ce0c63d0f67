"""The record of one run: what was asked, of whom, what became of it, what it cost, where the clip is.

Invariants: a record is a value (a change makes a new one); money is whole micro-dollars, and None
means unknown, never zero; times are UTC; no field holds a key or a signed query string.
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, TypeAdapter

from kling_nb.errors import Charged, RunIds
from kling_nb.records.base import Moment, Record, holding, utc_now
from kling_nb.records.money import Estimate, dollars, usd
from kling_nb.records.provenance import MOST_MARKS, Cell, Commit, Mark, Sent, Terms
from kling_nb.records.request import TextToVideo

__all__ = [
    "MODES",
    "WHO",
    "Earlier",
    "FailReason",
    "FrontEnd",
    "MediaFacts",
    "Mode",
    "RunRecord",
    "RunStatus",
    "changed",
    "charged",
    "codec_name",
    "ids_of",
    "is_reading",
    "may_revive",
    "with_who",
]

#: The key of a run's metadata at its provider under which we say who spends; no user's own has it.
WHO = "kling_nb"
FailReason = Literal["moderated", "invalid", "credit", "auth", "provider", "expired", "canceled"]


class RunStatus(StrEnum):
    """Where a run is.

    `created` (on disk, money reserved) → `submitting` → `queued` → `running` → `saving` (the provider is
    done, the file is on its way) → `succeeded`, `failed`, `canceled` or `lost` (the answer to the submit
    never came). On a page they read `Starting`, `Sending`, `Queued`, `Running`, `Saving`, `Done`, `Failed`,
    `Canceled` and `Lost`.
    """

    CREATED = "created"
    SUBMITTING = "submitting"
    QUEUED = "queued"
    RUNNING = "running"
    SAVING = "saving"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    LOST = "lost"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self in _ENDED

    @property
    def pending(self) -> bool:
        """Whether it is still on its way."""
        return not self.ended


_ENDED = frozenset({RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELED, RunStatus.LOST})


#: Decoders whose name is not that of their codec, which an earlier version wrote down.
_DECODERS = {"libdav1d": "av1", "libaom-av1": "av1", "libgav1": "av1", "libvpx-vp9": "vp9", "mp3float": "mp3"}


def codec_name(decoder: str) -> str:
    """Give the canonical name of a codec.

    Args:
        decoder: As FFmpeg calls what reads it.

    Example:
        >>> codec_name("libdav1d"), codec_name("h264")
        ('av1', 'h264')
    """
    return _DECODERS.get(decoder, decoder)


_Codec = Annotated[str, AfterValidator(codec_name)]


class MediaFacts(Record):
    """What is measured in a finished file.

    Args:
        file: Its name in the media folder; a bare name, never a path.
        sha256: Of the bytes, 64 hexadecimal digits.
        size: Bytes.
        container: e.g. `mp4`.
        codec: Of the picture, e.g. `h264`.
        profile: Of the codec, e.g. `High`; empty where it has none, or nobody looked.
        pixel_format: As FFmpeg calls it, e.g. `yuv420p`; empty where nobody looked.
        width: Pixels.
        height: Pixels.
        fps: Frames per second.
        frames: Number of frames, if known.
        duration_s: Measured seconds.
        audio_codec: Of the sound, or None for a silent file.
        marks: What the file says about itself; None where nobody looked.

    Example:
        >>> MediaFacts(file="a.mp4", sha256="0" * 64, size=1).audio
        False
    """

    file: str = Field(pattern=r"^[^/\\\x00]{1,255}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)
    container: str = ""
    codec: _Codec = ""
    profile: str = ""
    pixel_format: str = ""
    width: int = 0
    height: int = 0
    fps: float = 0.0
    frames: int | None = None
    duration_s: float = 0.0
    audio_codec: _Codec | None = None
    marks: tuple[Mark, ...] | None = Field(default=None, max_length=MOST_MARKS)

    @property
    def audio(self) -> bool:
        """Whether there is a sound track."""
        return self.audio_codec is not None


def with_who(
    metadata: Mapping[str, Any], *, user: str, project: str, session_id: str, run_id: str = ""
) -> dict[str, Any] | None:
    """Give what is sent along with a run: the user's own metadata, and beside it who spends the money.

    Args:
        metadata: The user's own.
        user: Who asks.
        project: What for.
        session_id: Under which session it is counted.
        run_id: Our id of the run, by which a callback is known before the provider's id is.

    Returns:
        An object whose key `kling_nb` holds them, as far as they are known; None for nothing at all.

    Example:
        >>> with_who({"scene": 3}, user="ada", project="vineyard", session_id="")
        {'scene': 3, 'kling_nb': {'user': 'ada', 'project': 'vineyard'}}
    """
    who = {"user": user, "project": project, "session": session_id, "run": run_id}
    known = {name: value for name, value in who.items() if value}
    return {**metadata, **({WHO: known} if known else {})} or None


class Earlier(Record):
    """An attempt of the same take that came before.

    Args:
        id: Our id of it.
        provider: Where it went.
        attempt: Its number.
        status: What became of it.
        reason: Why it failed, if it did.
        charged: Whether the provider charged for it.
        created_at: When it was asked for.
        submitted_at: When it was sent.
        finished_at: When the provider was done with it.
        reported_micros: What the provider says it cost, in millionths of `currency`.
        settled_micros: What is on the books.
        currency: Of what the provider reported.

    Example:
        >>> Earlier.__name__
        'Earlier'
    """

    id: str
    provider: str
    attempt: int
    status: RunStatus
    reason: FailReason | None = None
    charged: Charged = "unknown"
    created_at: Moment
    submitted_at: Moment | None = None
    finished_at: Moment | None = None
    reported_micros: int | None = None
    settled_micros: int | None = None
    currency: str = "USD"


#: Fields in which words of a request may stand.
_WORDED = frozenset({"request", "message", "tags", "metadata", "media", "further", "seed", "timing", "sent"})


class RunRecord(Record):
    """Everything known of one run; the ledger row, the sidecar and the receipt are views of it.

    Args:
        id: Our id: short, readable, stable.
        request: What was asked.
        request_key: Of the request, the model and the take.
        run_key: The same and the provider.
        model: Our id of the model.
        provider: `runflow`, `runcomfy` or `sandbox`.
        provider_model: The provider's id of the model.
        origin: The base address it was sent to.
        account: A fingerprint of the key that sent it, never the key.
        take: The planned sample index.
        attempt: 1 for the first try of this take, then 2, 3 ...
        play: Whether this is play money (the sandbox).
        status: Where it is.
        reason: Why it failed, if it did; None where its provider was never reached.
        charged: Whether the provider charged for it.
        message: The provider's or our words on its state, one line.
        provider_run_id: The provider's id, once it is known.
        client_ref: Our name for it at the provider.
        queue_position: Its place in the queue, if the provider says.
        reported_micros: What the provider says it cost, in millionths of `currency`.
        settled_micros: What is on the books.
        reserved_micros: What is still held back; 0 once settled.
        currency: Of what the provider reported: what is no dollars is never added to dollars.
        abandoned_at: When a person gave it up, so that it holds back nothing and stands in no way.
        callback_url: What the provider calls when it has ended; in no receipt.
        private: Whether the words of the request are for the provider alone; see `kling_nb.records.privacy`.
        sent: The body as it was posted; None before the first post.
        further: Files of further videos that the provider made for the same run.
        earlier: Attempts of the same take before this one, as they were known when it ended.
        cell: The cell that asked for it.
        commit: The version of the code around the notebook.
        terms: What the provider's page says; None where nobody wrote it down.

    Example:
        >>> RunStatus("queued").pending
        True
    """

    id: str = Field(pattern=r"^[a-z0-9]{4,20}$")
    request: TextToVideo
    request_key: str
    run_key: str
    model: str
    provider: str
    provider_model: str
    origin: str
    account: str = ""
    take: int = Field(default=0, ge=0)
    attempt: int = Field(default=1, ge=1)
    play: bool = False
    private: bool = False

    status: RunStatus = RunStatus.CREATED
    reason: FailReason | None = None
    charged: Charged = "no"
    message: str = ""
    provider_run_id: str | None = None
    client_ref: str = ""
    queue_position: int | None = None

    created_at: Moment
    submitted_at: Moment | None = None
    accepted_at: Moment | None = None
    started_at: Moment | None = None
    finished_at: Moment | None = None
    saved_at: Moment | None = None
    abandoned_at: Moment | None = None

    estimate: Estimate
    reported_micros: int | None = None
    settled_micros: int | None = None
    reserved_micros: int = 0
    currency: str = "USD"

    session_id: str = ""
    project: str = ""
    user: str = ""
    notebook: str | None = None
    folder: str = ""
    tags: dict[str, str] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)
    callback_url: str | None = None
    media: MediaFacts | None = None
    further: tuple[MediaFacts, ...] = Field(default=(), max_length=20)
    nsfw_detected: bool | None = None
    seed: int | str | None = None
    timing: dict[str, Any] | None = None
    version: str = ""
    sent: Sent | None = None
    earlier: tuple[Earlier, ...] = ()
    cell: Cell | None = None
    commit: Commit | None = None
    terms: Terms | None = None

    def __repr__(self) -> str:
        # Sixty fields are no answer to "which run is it": `model_dump()` gives them.
        money = "" if self.settled_micros is None else f", {usd(self.settled_micros)}"
        return f"RunRecord({self.id}, {self.status.value}, {self.model} at {self.provider}{money})"

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        # A notebook keeps what it shows; whoever wants the words of a private run asks for the field.
        return [arg for arg in super().__repr_args__() if not (self.private and arg[0] in _WORDED)]

    def as_earlier(self) -> Earlier:
        """Give what a later attempt of the same take tells of this one."""
        return Earlier.model_validate(self.model_dump(include=set(Earlier.model_fields)))

    @property
    def billed_micros(self) -> int | None:
        """What the provider reported in micro-dollars; None where it reported nothing, or no dollars.

        No money at all is the same in every currency.
        """
        return self.reported_micros if self.currency == "USD" or not self.reported_micros else None

    @property
    def cost(self) -> Decimal | None:
        """Dollars on the books, or None while unknown."""
        return dollars(self.settled_micros)

    @property
    def seconds(self) -> float | None:
        """Seconds from the submit to the provider's end, if both are known."""
        if self.submitted_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.submitted_at).total_seconds()


#: `auto`: the file beside the notebook, or what else works there; `always`: the clip itself; `poster`: its
#: still and a link; `never`: a link.
Mode = Literal["auto", "always", "poster", "never"]
MODES: tuple[Mode, ...] = get_args(Mode)

#: Pages that show no file beside the notebook; empty for those that do.
FrontEnd = Literal["", "vscode", "colab"]


def ids_of(record: RunRecord) -> RunIds:
    """Say which run it is, as an error takes it."""
    return {"run_id": record.id, "provider": record.provider, "provider_run_id": record.provider_run_id}


def changed(record: RunRecord, changes: Mapping[str, Any]) -> RunRecord:
    """Give a record with other values in some fields; only those are checked.

    Args:
        record: As it is.
        changes: The new values by field; names of no field are left out.

    Raises:
        ValidationError: A value is none for its field.
    """
    update = {
        name: _field(name).validate_python(value)
        for name, value in changes.items()
        if name in RunRecord.model_fields
    }
    return holding(record, update)


@cache
def _field(name: str) -> TypeAdapter[Any]:
    field = RunRecord.model_fields[name]
    kind: Any = Annotated[field.annotation, field]
    return TypeAdapter(kind)


#: What the next reading of a run says again, should a power cut take it away.
_READ_AGAIN = frozenset({"status", "queue_position", "started_at", "message"})


def is_reading(record: RunRecord, changes: Mapping[str, Any]) -> bool:
    """Whether changes only tell where a run is that is on its way."""
    states = {record.status, changes.get("status", record.status)}
    return changes.keys() <= _READ_AGAIN and states <= {RunStatus.QUEUED, RunStatus.RUNNING}


def charged(record: RunRecord) -> Charged:
    """Say whether a run was charged; of one that is lost or just being sent nobody knows it."""
    if record.settled_micros:
        return "yes"
    if record.status is RunStatus.SUBMITTING and not record.play:
        return "unknown"
    if record.status is RunStatus.LOST and record.reserved_micros and record.charged == "no":
        return "unknown"
    return record.charged


def unsent_end(status: RunStatus, message: str, **more: Any) -> dict[str, Any]:
    """Give the changes by which a run ends that certainly cost nothing; its reservation is given back."""
    return {
        "status": status,
        "charged": "no",
        "message": message,
        "finished_at": utc_now(),
        "settled_micros": 0,
        "reserved_micros": 0,
        "queue_position": None,
        **more,
    }


def may_revive(record: RunRecord) -> bool:
    """Whether a run failed whose clip its provider may have all the same."""
    return record.status is RunStatus.FAILED and record.provider_run_id is not None
