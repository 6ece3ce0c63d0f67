"""What one call asks for, and what would be done about it: the step between a request and money.

Invariants: everything that can be refused is refused here, before a row is written; all takes of a call
are decided and reserved in one transaction, all or nothing; a plan that is only shown changes nothing.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, Protocol

from kling_nb.addresses import check_callback
from kling_nb.config.keys import Key
from kling_nb.config.provider_choice import choose_provider
from kling_nb.config.settings import Settings, provider_origin
from kling_nb.engine.reuse import Decision, ReusePolicy, decide
from kling_nb.errors import KlingError, UsageError
from kling_nb.pricing.catalog import Model
from kling_nb.pricing.estimate import Bill, estimate, learn_price
from kling_nb.providers import make_provider
from kling_nb.records.money import Estimate, Totals
from kling_nb.records.privacy import in_place_of, is_hash, redacted_labels, redacted_request
from kling_nb.records.request import TextToVideo, request_key, run_key
from kling_nb.records.run import WHO, RunRecord, with_who

__all__ = [
    "Ask",
    "Plan",
    "Take",
    "new_id",
    "new_record",
    "offer_for",
    "payloads",
    "plan_takes",
    "quote",
    "title_of",
]

# No vowels and no look-alikes: ids are read aloud, and spell no words.
_ALPHABET = "23456789bcdfghjkmnpqrstvwxz"
_TITLE_CHARS = 60


def new_id() -> str:
    """Make an id: `k` and seven characters that are hard to confuse."""
    return "k" + "".join(secrets.choice(_ALPHABET) for _ in range(7))


def title_of(request: TextToVideo, *, private: bool = False) -> str:
    """Give a request in a few words, for messages and lists; a private one by its hash."""
    if private:
        return in_place_of(request)
    text = " ".join((request.prompt or " / ".join(s.prompt for s in request.shots or ())).split())
    return f"“{text}”" if len(text) <= _TITLE_CHARS else f"“{text[: _TITLE_CHARS - 1]}…”"


class Bills(Protocol):
    """Gives what a provider itself billed before; see `Ledger.bills`."""

    def __call__(self, provider: str, model: str, /, *, origin: str, audio: bool) -> Sequence[Bill]:
        """Give bills, newest first."""
        ...


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One call of a magic, a form or the API.

    Args:
        request: What is asked.
        earlier: The same as it was read by an earlier version: a run of it answers too, unless `no_cache`.
        takes: The planned sample indices: 0 or more, at least one, each once.
        provider: The provider the call names, or `auto` to overrule the settings' own.
        model: The model the call names, if it does.
        max_cost: Dollars the whole call may reserve.
        price: Dollars per second to reserve where no price is known.
        allow_unpriced: Whether an unknown price is acceptable.
        no_cache: Buy again even if there is a clip.
        cached_only: Never send.
        retry: Buy again after a failure that was, or may have been, charged.
        once: Never buy again after a run that its provider took, whatever became of it.
        tags: Kept with the record.
        metadata: Sent along, where the provider takes any (Runflow).
        callback_url: What the provider calls at the run's end (Runflow); None for what the settings say.
        private: Whether the words of the request are for the provider alone.
        of_sweep: The sweep that it belongs to: its runs leave a place to single ones.
        detached: Whether it is left to workers (`kling-nb worker`) to send it.
    """

    request: TextToVideo
    earlier: tuple[TextToVideo, ...] = ()
    takes: tuple[int, ...] = (0,)
    provider: str | None = None
    model: str | None = None
    max_cost: Decimal | None = None
    price: Decimal | None = None
    allow_unpriced: bool = False
    no_cache: bool = False
    cached_only: bool = False
    retry: bool = False
    once: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    callback_url: str | None = None
    private: bool = False
    of_sweep: str = ""
    detached: bool = False

    def __repr__(self) -> str:
        # A notebook keeps what it shows.
        return f"Ask({title_of(self.request, private=self.private)}, takes={self.takes})"

    def __post_init__(self) -> None:
        takes = self.takes if isinstance(self.takes, Sequence) else ()
        # Of the very kind: True is a whole number to Python, and another one to the key of a request.
        whole = all(type(take) is int and take >= 0 for take in takes)
        if not takes or not whole or len(set(takes)) < len(takes):
            raise UsageError(
                "takes: should be whole numbers, 0 or more, each once.", cure="Nothing was sent."
            )
        if WHO in self.metadata:
            raise UsageError(
                f"metadata: the name {WHO} is ours: under it a run tells its provider who spends.",
                cure="Nothing was sent. Choose another name.",
            )
        if self.callback_url is not None:
            try:
                check_callback(str(self.callback_url))
            except ValueError as error:
                raise UsageError(f"callback_url: {error}.", cure="Nothing was sent.") from None
        if not isinstance(self.private, bool):
            # What is not quite true must not come to mean that it is public.
            raise UsageError("private: should be True or False.", cure="Nothing was sent.")
        if is_hash(self.request.words.partition("\n")[0]):
            raise UsageError(
                "This is the hash of a private request, not its words.",
                cure="Nothing was sent. Write the words.",
            )

    def keys(self, model: str, take: int) -> tuple[str, ...]:
        """Give the request keys whose runs answer a take, the call's own first."""
        if (model, take) not in self._keys:
            requests = (self.request,) if self.no_cache else (self.request, *self.earlier)
            self._keys[model, take] = tuple(request_key(request, model, take) for request in requests)
        return self._keys[model, take]

    @cached_property
    def _keys(self) -> dict[tuple[str, int], tuple[str, ...]]:
        """What was hashed before: one call is asked several times."""
        return {}

    @property
    def named(self) -> str | None:
        """The provider whose runs alone may answer this call, if it names one."""
        return None if self.provider == "auto" else self.provider


@dataclass(frozen=True, kw_only=True)
class Take:
    """What would be done about one take: a decision, or the error that stands in its way."""

    take: int
    request_key: str
    decision: Decision | None
    error: KlingError | None = None

    @property
    def word(self) -> str:
        """One word for lists: reused, pending, new or blocked."""
        if self.decision is None:
            return "blocked"
        return {"reuse": "reused", "refetch": "reused", "attach": "pending", "new": "new"}[self.decision.act]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a call would do, and cost.

    Args:
        ask: The call.
        provider: Where it would go.
        model: Our id of the model.
        takes: Each take.
        estimate: Of one new run.
        payloads: The exact body by provider name, or why that provider refuses it.
        totals: The session's money before it.
        obstacle: What would refuse its new runs their money, if something would.
        unwatched: What would, where nobody is watching.
    """

    ask: Ask
    provider: str
    model: str
    takes: tuple[Take, ...]
    estimate: Estimate
    payloads: Mapping[str, Mapping[str, Any] | str] = field(default_factory=dict)
    totals: Totals | None = None
    obstacle: KlingError | None = None
    unwatched: KlingError | None = None

    @property
    def play(self) -> bool:
        """Whether it is play money."""
        return self.provider == "sandbox"

    @property
    def new(self) -> int:
        """How many runs would be sent."""
        return sum(take.word == "new" for take in self.takes)

    @property
    def unsent(self) -> list[RunRecord]:
        """The runs among them that a process which is gone wrote down and never sent."""
        decided = [take.decision for take in self.takes if take.decision and take.word == "new"]
        return [decision.record for decision in decided if decision.record]

    @property
    def micros(self) -> int | None:
        """What it would cost in micro-dollars; None for unknown."""
        if self.new == 0:
            return 0
        return None if self.estimate.micros is None else self.estimate.micros * self.new


def offer_for(
    ask: Ask,
    settings: Settings,
    *,
    find: Callable[[str], Key | None],
    bills: Bills,
    today: date,
) -> tuple[str, Model, Estimate]:
    """Say where a call would go, for which model, and what one new run of it would cost; asks no provider.

    Args:
        ask: The call.
        settings: As they are now.
        find: Gives the key for a provider, if there is one.
        bills: Gives what the provider itself billed before; see `Ledger.bills`.
        today: The day (UTC), by which prices are old.

    Returns:
        The provider's name, the model with the prices in force, and the estimate.

    Raises:
        KlingError: The request cannot be served.
    """
    model = settings.priced_model(ask.model)
    if ask.provider == "auto":
        settings = replace(settings, provider="auto")
    provider = choose_provider(
        settings,
        model,
        audio=ask.request.audio,
        named=ask.named,
        find=find,
        allow_unpriced=ask.allow_unpriced or ask.price is not None,
    )
    model.check(ask.request, provider)
    make_provider(provider, None).check(ask.request)
    price = quote(ask.request, model, provider, settings, bills=bills, today=today, price=ask.price)
    return provider, model, price


def quote(
    request: TextToVideo,
    model: Model,
    provider: str,
    settings: Settings,
    *,
    bills: Bills,
    today: date,
    price: Decimal | None = None,
) -> Estimate:
    """Say what one run costs at a provider, by every price that is known; asks no provider.

    Args:
        request: What is asked.
        model: The model, with the prices that are in force.
        provider: Where the run goes, or was made.
        settings: As they are now.
        bills: Gives what the provider itself billed before; see `Ledger.bills`.
        today: The day (UTC), by which prices are old.
        price: Dollars per second that the call gives.

    Returns:
        The estimate.

    Raises:
        UnsupportedError: The provider does not offer the model.
        UsageError: The call's price makes no sense.
    """
    # What the provider itself billed outranks its list, also where it bills above it.
    learned = None
    if provider != "sandbox":
        origin = provider_origin(settings, provider)
        learned = learn_price(bills(provider, model.id, origin=origin, audio=request.audio))
    return estimate(request, model, provider, price_usd_per_s=price, learned=learned, today=today)


def payloads(
    ask: Ask, model: Model, provider: str, *, user: str = "", project: str = "", session_id: str = ""
) -> dict[str, Mapping[str, Any] | str]:
    """Give the exact body each provider of a model would be sent.

    Args:
        ask: The call.
        model: The model.
        provider: Where the call goes; the sandbox is shown only where it does.
        user: Who asks; it is sent along where the provider takes metadata.
        project: What for; sent along too.
        session_id: Under which session it is counted; sent along too.

    Returns:
        By provider name: the body, with hashes in the place of private words; or why that provider refuses.
    """
    bodies: dict[str, Mapping[str, Any] | str] = {}
    # What is shown of a private call is kept in the notebook: the words go out, and only out.
    request = redacted_request(ask.request) if ask.private else ask.request
    metadata = redacted_labels(ask.metadata) if ask.private else ask.metadata
    called, who = ask.callback_url, {"user": user, "project": project, "session_id": session_id}
    for name, offer in model.providers.items():
        if name == "sandbox" and provider != "sandbox":
            continue
        adapter = make_provider(name)
        try:
            model.check(ask.request, name)
            adapter.check(ask.request)
            call = adapter.submit_call(
                request,
                offer.id,
                client_ref="kling-nb-RUN-ID",
                metadata=with_who(metadata, **who, run_id="RUN-ID" if called else ""),
                callback_url=called,
            )
        except KlingError as error:
            bodies[name] = str(error)
        else:
            bodies[name] = dict(call.json or {})
    return bodies


def plan_takes(
    ask: Ask,
    model: str,
    policy: ReusePolicy,
    candidates: Sequence[RunRecord],
    *,
    loopback: Callable[[str], bool],
    verified: Callable[[RunRecord], bool],
    fetchable: Callable[[RunRecord], bool],
) -> tuple[Take, ...]:
    """Decide about every take of a call.

    Args:
        ask: The call.
        model: Our id of the model.
        policy: What the call allows.
        candidates: Every known run of any of its request keys.
        loopback: Whether an origin is on this machine.
        verified: Whether a finished run's file is here and whole.
        fetchable: Whether its provider can be asked for the file again.

    Returns:
        One entry a take, in order.
    """
    planned, title = [], title_of(ask.request, private=ask.private)
    for take in ask.takes:
        key, *others = ask.keys(model, take)
        mine = [record for record in candidates if record.request_key in {key, *others}]
        try:
            decision = decide(
                mine,
                policy,
                loopback=loopback,
                verified=verified,
                fetchable=fetchable,
                title=f"take {take} of {title}" if take or len(ask.takes) > 1 else title,
            )
        except KlingError as error:
            planned.append(Take(take=take, request_key=key, decision=None, error=error))
        else:
            planned.append(Take(take=take, request_key=key, decision=decision))
    return tuple(planned)


def new_record(
    ask: Ask,
    take: Take,
    *,
    run_id: str,
    model: str,
    provider: str,
    estimate: Estimate,
    now: datetime,
    **where: Any,
) -> RunRecord:
    """Make the record of a run asked for now; `where` holds the remaining fields of `RunRecord`."""
    return RunRecord(
        id=run_id,
        request=ask.request,
        request_key=take.request_key,
        run_key=run_key(ask.request, model, provider, take.take),
        model=model,
        provider=provider,
        take=take.take,
        attempt=take.decision.attempt if take.decision else 1,
        client_ref=f"kling-nb-{run_id}-{secrets.token_hex(6)}",
        created_at=now,
        estimate=estimate,
        reserved_micros=estimate.reserve_micros,
        tags=dict(ask.tags),
        metadata=dict(ask.metadata),
        callback_url=ask.callback_url if make_provider(provider).can_call_back else None,
        private=ask.private,
        **where,
    )
