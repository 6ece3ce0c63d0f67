"""What every provider's adapter is: build a call, read a reply, nothing else.

Invariants: an adapter neither waits nor sends; it never puts a key in a call; every address is built
from its configured base; a word it does not know means "still going", never an end.
"""

# ruff: noqa: ARG002 - the defaults ignore what the adapters that override them read

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Literal

from kling_nb.addresses import is_loopback
from kling_nb.errors import Charged
from kling_nb.providers.messages import Call, Reply
from kling_nb.records.request import TextToVideo
from kling_nb.records.run import FailReason

__all__ = [
    "Accepted",
    "Account",
    "Ambiguous",
    "Asked",
    "CancelOutcome",
    "Found",
    "Provider",
    "Refused",
    "Row",
    "RunList",
    "Snapshot",
    "SubmitAnswer",
    "optional_input",
]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One reading of a run at the provider.

    Args:
        state: `unknown` is a word no contract explains: still going. `not_found` is a definite answer that
            this account has no such run; `wrong_account` that another one has it. `unreadable` is no answer.
        word: The provider's own word, for the log and the card.
        certain: False for an end that is no documented one: it counts once two readings in a row say it.
        follow: A further call whose reply decides (RunComfy's result after its status). It is followed once
            for a reading; what the second reply says stands, also where it names a further call.
        queue_position: Place in the queue.
        video_urls: Where the clip is, when `state` is `succeeded`: every address, the most likely first.
        videos: How many of these, from the first on, are certainly meant to be videos.
        unusable: Whether a success names only addresses that are none to fetch from.
        cost: The charge as decimal text as the provider writes it, if it does.
        currency: Of the charge: ISO 4217, and `XXX` for one that cannot be read.
        cost_words: What stands in place of the charge where it cannot be read, one line.
        reason: Why it failed.
        charged: What the contract says about the charge.
        message: The provider's words, one line.
        nsfw_detected: The provider's flag.
        seed: The provider's seed.
        timing: The provider's timing.
        retry_after_s: Seconds the provider asks to wait.
    """

    state: Literal[
        "queued",
        "running",
        "succeeded",
        "failed",
        "canceled",
        "unknown",
        "not_found",
        "wrong_account",
        "unreadable",
    ]
    word: str = ""
    certain: bool = True
    follow: Call | None = None
    queue_position: int | None = None
    video_urls: tuple[str, ...] = field(default=(), repr=False)  # signed addresses are secrets
    videos: int = 0
    unusable: bool = False
    cost: str | None = None
    currency: str = "USD"
    cost_words: str = ""
    reason: FailReason | None = None
    charged: Charged = "unknown"
    message: str = ""
    nsfw_detected: bool | None = None
    seed: int | str | None = None
    timing: Mapping[str, Any] | None = None
    retry_after_s: float | None = None

    @property
    def going(self) -> bool:
        """Whether the provider says that the run waits or is being made."""
        return self.state in {"queued", "running"}


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """The provider made a run."""

    provider_run_id: str
    snapshot: Snapshot


@dataclass(frozen=True, kw_only=True)
class Refused:
    """The provider made nothing, and said so in a readable body.

    Args:
        reason: Why.
        message: The provider's words, one line.
        retry_after_s: Seconds to wait, if it asked; None with `resend` means our own back-off.
        resend: Whether the same call may be sent again after a wait (a rate limit).
    """

    reason: FailReason
    message: str
    retry_after_s: float | None = None
    resend: bool = False


@dataclass(frozen=True, kw_only=True)
class Ambiguous:
    """Nobody can tell from this reply whether a run was made."""

    message: str


SubmitAnswer = Accepted | Refused | Ambiguous
CancelOutcome = Literal["canceled", "not_cancellable", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a look-up of a submit by our own reference says.

    Args:
        provider_run_ids: Runs that carry exactly our reference.
        readable: False where the reply proves nothing either way.
        more: A further page that must be read before "not there" is true.
    """

    provider_run_ids: tuple[str, ...] = ()
    readable: bool = True
    more: Call | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """What a list says of one run; while it says the same, it is the same object.

    Args:
        text: The run as it is written in the list, which is JSON.
        run_id: The provider's id, where it is one that can be used.
        created_at: When the provider made the run.
    """

    text: str = field(repr=False)  # signed addresses are secrets
    run_id: str | None
    created_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class RunList:
    """One page of an account's runs, newest first.

    Args:
        rows: What the page says of each run, by its id.
        more: The next page, where an older run may stand on it.
    """

    rows: Mapping[str, Row]
    more: Call | None = None


@dataclass(frozen=True, kw_only=True)
class Account:
    """What a free check of a key says.

    Args:
        ok: True, False, or None where the reply does not tell.
        message: One line.
    """

    ok: bool | None
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a provider's own catalog says a model costs; for which settings, it does not say.

    Args:
        base_usd: Decimal dollars as text, if it states any.
        unit: What that is the price of, in the provider's words.
        note: The provider's remark, one line.

    Example:
        >>> Listing(base_usd="0.112", unit="second").per_second
        True
    """

    base_usd: str | None
    unit: str = ""
    note: str = ""

    @property
    def per_second(self) -> bool:
        """Whether the unit is plainly a second of video."""
        return self.unit.strip().lower() in {"second", "per second", "per_second", "s", "sec"}


def optional_input(request: TextToVideo) -> dict[str, Any]:
    """Give what every wire calls by our names, where it is asked for.

    Example:
        >>> optional_input(TextToVideo(prompt="A fox", cfg_scale=0.5))
        {'cfg_scale': 0.5}
    """
    extras = {
        # Shots with seconds are cuts as given; a provider's own default may be `intelligent`.
        "shot_type": request.shot_type or ("customize" if request.shots else None),
        "negative_prompt": request.negative_prompt,
        "cfg_scale": request.cfg_scale,
    }
    return {name: value for name, value in extras.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a provider's own record says a run was asked for, as far as it does.

    Args:
        client_ref: The reference it was sent with.
        model: The provider's id of the model, where it is one that the catalog could have.
        fields: Of the request, by our names; what the record leaves out is absent.
        strange: Names of inputs that a request of ours cannot hold.
        created_at: When the provider made it.
    """

    client_ref: str | None = None
    model: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    strange: tuple[str, ...] = ()
    created_at: datetime | None = None


class Provider(ABC):
    """One provider's wire.

    Args:
        base_url: Without `/v1` and without a slash at the end.

    Example:
        >>> from kling_nb.providers.runcomfy import RunComfy
        >>> RunComfy().can_cancel("queued")
        True
    """

    name: ClassVar[str]
    label: ClassVar[str]
    default_url: ClassVar[str]
    #: Host suffixes a clip may come from; None means any public https host.
    media_hosts: ClassVar[tuple[str, ...] | None] = None
    #: Whether a submit can be looked up by our own reference.
    can_look_up: ClassVar[bool] = False
    #: Whether it calls an address when a run has ended.
    can_call_back: ClassVar[bool] = False
    #: Seconds of the shortest shot that it takes.
    min_shot_s: ClassVar[int] = 1
    #: What a private submit says beside its body; no real provider documents anything of the kind.
    private_headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, base_url: str | None = None) -> None:
        self.base_url = (base_url or self.default_url).rstrip("/")

    @property
    def loopback(self) -> bool:
        """Whether it is a server on this machine."""
        return is_loopback(self.base_url)

    @abstractmethod
    def check(self, request: TextToVideo) -> None:
        """Refuse what this wire cannot carry.

        Raises:
            UnsupportedError: The provider does not take this request.
        """

    @abstractmethod
    def submit_call(
        self,
        request: TextToVideo,
        provider_model: str,
        *,
        client_ref: str,
        metadata: Mapping[str, Any] | None = None,
        callback_url: str | None = None,
    ) -> Call:
        """Build the one call that costs money."""

    @abstractmethod
    def read_submit(self, reply: Reply) -> SubmitAnswer:
        """Say what the answer to the submit means for money."""

    @abstractmethod
    def poll_call(self, provider_run_id: str) -> Call:
        """Build the call that reads a run."""

    @abstractmethod
    def read_poll(self, reply: Reply, provider_run_id: str, after: Snapshot | None = None) -> Snapshot:
        """Read a run; `follow` names a further call when this reply alone does not decide.

        Args:
            reply: The answer to `poll_call`, or to the `follow` of `after`.
            provider_run_id: The run that was asked for.
            after: The reading that led to this reply, if one did.
        """

    def list_call(self) -> Call | None:
        """Build the call that lists the newest runs of the account, or None where there is none."""
        return None

    def read_list(self, reply: Reply, *, since: str, before: Mapping[str, Row]) -> RunList | None:
        """Read a page of a list back to `since` (RFC 3339); None where it cannot be read.

        Args:
            reply: The answer to `list_call` or to a `more`.
            since: How far back to read.
            before: The rows of the list before, in their order: one that says the same is given again.
        """
        return None

    def read_row(self, row: Row, provider_run_id: str) -> Snapshot:
        """Read what a list says of one run."""
        return Snapshot(state="unreadable")

    def read_asked(self, reply: Reply) -> Asked:
        """Say what a run was asked for, from any answer about it; says nothing where the wire does not."""
        return Asked()

    def can_cancel(self, status: str) -> bool:
        """Whether a cancel has any effect in this status."""
        return False

    def cancel_call(self, provider_run_id: str) -> Call | None:
        """Build the cancel, or None where the provider has none."""
        return None

    def read_cancel(self, reply: Reply) -> CancelOutcome:
        """Say whether the cancel took effect."""
        return "unknown"

    def lookup_calls(self, client_ref: str) -> tuple[Call, ...]:
        """Build the look-ups of a submit whose answer was lost, the most exact first."""
        return ()

    def read_lookup(self, reply: Reply, client_ref: str, *, since: str) -> Found:
        """Find runs with exactly our reference; `since` (RFC 3339) says how far back to page."""
        return Found(readable=False)

    @property
    def balance_url(self) -> str | None:
        """The address that tells the account's balance and may be given the key; None where there is none."""
        return None

    def balance_call(self) -> Call | None:
        """Build the free call that reads the account's balance, or None where none is offered."""
        return None

    def read_balance(self, reply: Reply) -> str | None:
        """Give decimal dollars as text, or None where the reply names no amount."""
        return None

    @abstractmethod
    def account_call(self, provider_model: str) -> Call:
        """Build a call that checks the key and costs nothing."""

    @abstractmethod
    def read_account(self, reply: Reply) -> Account:
        """Read the answer to `account_call`."""

    def read_listing(self, reply: Reply) -> Listing | None:
        """Read a price off the answer to `account_call`, where that is the model's catalog row."""
        return None
