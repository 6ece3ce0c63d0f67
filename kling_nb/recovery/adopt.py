"""Bringing in a run that was made elsewhere: by another tool, or under another ledger.

Invariants: nothing here ever sends a submit; a run is brought in once; what its provider's record says it was
asked for counts, and whatever decides price and reuse and is said by nobody is refused, never guessed; what
it cost stands on its own row and in no session's, project's or user's sum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from kling_nb.config.keys import KEY_VARIABLES, fingerprint
from kling_nb.config.settings import Settings, provider_origin
from kling_nb.engine.polling.lookup import Access
from kling_nb.engine.run import Run
from kling_nb.errors import KeyMissingError, UsageError
from kling_nb.ledger.database import Ledger
from kling_nb.ledger.transaction import Transaction
from kling_nb.pricing.catalog import Model
from kling_nb.providers import make_provider
from kling_nb.providers.base import Asked, Provider
from kling_nb.records.base import utc_now
from kling_nb.records.request import Shot, TextToVideo, make_request, request_key, run_key
from kling_nb.records.run import RunRecord, RunStatus, may_revive
from kling_nb.records.secrets import strings
from kling_nb.recovery.resolve import look_again
from kling_nb.session.api import current
from kling_nb.session.plan import new_id, quote
from kling_nb.session.session import Session
from kling_nb.views.words import status_word

__all__ = ["adopt"]

_EXAMPLE = '--prompt "TEXT" -d 5 --ar 16:9 --no-audio'

#: What the price and the request key hang on, and the flag that says it.
_NEEDED = {"duration": "-d S", "aspect_ratio": "--ar W:H", "audio": "--audio or --no-audio"}


@dataclass(frozen=True, kw_only=True)
class _Adoption:
    """One run to bring in: whose it is, and what the user says of it."""

    session: Session
    settings: Settings
    provider: Provider
    provider_run_id: str
    given: Mapping[str, Any]
    model: str | None
    take: int
    private: bool

    def bring(self) -> RunRecord:
        """Look at the run, for free, and write it down; give the one that was brought in meanwhile."""
        ledger, engine = self.session.ledger(), self.session.engine()
        label, key = self.provider.label, self.session.key(self.provider.name)
        if key is None:
            raise KeyMissingError(
                f"There is no key to ask {label} about {self.provider_run_id} with.",
                charged="unknown",
                cure="Nothing was sent. Set the key that made it (`%kling keys`), then try again.",
                provider=self.provider.name,
            )
        reached = Access(provider=self.provider, key=key.secret, account=fingerprint(key))
        asked = engine.look(reached, self.provider_run_id).asked
        self._check_not_ours(ledger, label, asked)
        request, model = self._request(label, asked), self._model(label, asked)
        record = self._record(request, model, reached.account, asked)
        with ledger.writing() as transaction:
            held = transaction.holder(self.provider.name, self.provider_run_id)
            if held is not None:
                return held
            record = self._placed(transaction, record)
            transaction.insert(record, "adopted", provider_run_id=self.provider_run_id)
            transaction.claim(record.id, engine.owner, engine.limits.lease_s)
        return record

    def _check_not_ours(self, ledger: Ledger, label: str, asked: Asked) -> None:
        parts = (asked.client_ref or "").split("-")
        ours = ledger.get(parts[2]) if parts[:2] == ["kling", "nb"] and len(parts) > 3 else None
        if ours is not None and ours.client_ref == asked.client_ref and ours.provider_run_id is None:
            raise self._refusal(
                f"{self.provider_run_id} at {label} is run {ours.id} of this ledger, which is "
                f"{status_word(ours.status)}.",
                f"Nothing changed. `%kling resolve {ours.id} --attach {self.provider_run_id}` says so.",
                run_id=ours.id,
            )

    def _model(self, label: str, asked: Asked) -> Model:
        named = self.settings.priced_model(self.model)
        if asked.model is None:
            named.offer(self.provider.name)
            return named
        try:
            reported = self.settings.priced_model(asked.model)
        except UsageError:
            raise self._unfit(
                f"{label} says that it was made by {asked.model}, which is not Kling 3.0"
            ) from None
        if self.model is not None and named.id != reported.id:
            raise self._unfit(f"{label} says that it was made by {reported.id}, not {named.id}")
        return reported

    def _request(self, label: str, asked: Asked) -> TextToVideo:
        if asked.strange:
            raise self._unfit(
                f"{label} says that it was asked with {', '.join(asked.strange[:5])}, which a text-to-video "
                "request here cannot hold"
            )
        given = {name: value for name, value in self.given.items() if value is not None}
        reported = dict(asked.fields)
        clash = sorted(
            name for name in given.keys() & reported.keys() if not _same(given[name], reported[name])
        )
        if clash:
            raise self._refusal(
                f"{label}'s own record of {self.provider_run_id} says another {', '.join(clash)}.",
                "Nothing changed. Leave that out: what the record says counts.",
            )
        merged = {**given, **reported}
        if not merged.get("prompt") and not merged.get("shots"):
            raise self._refusal(
                f"{label} does not say what {self.provider_run_id} was asked for.",
                f"Say it: `%kling adopt {self.provider.name} {self.provider_run_id} {_EXAMPLE}`, or "
                "with `--file` for a storyboard; a cell that asks for the same gets its clip.",
            )
        needed = {n: flag for n, flag in _NEEDED.items() if not (n == "duration" and merged.get("shots"))}
        missing = [flag for name, flag in needed.items() if name not in merged]
        if missing:
            raise self._refusal(
                f"{label} does not say all of what {self.provider_run_id} was asked for.",
                f"Add {', '.join(missing)}: price and reuse depend on it, so nothing is guessed.",
            )
        try:
            return make_request(**merged)
        except UsageError as error:
            raise self._unfit(
                f"what was asked for is not a request that kling_nb can make ({error.what})"
            ) from None

    def _unfit(self, why: str) -> UsageError:
        what = f"{self.provider_run_id} cannot be brought in: {why.rstrip('.')}."
        return self._refusal(what, "Nothing changed, here or there.")

    def _refusal(self, what: str, cure: str, *, run_id: str | None = None) -> UsageError:
        return UsageError(what, charged="unknown", cure=cure, run_id=run_id, provider=self.provider.name)

    def _record(self, request: TextToVideo, model: Model, account: str, asked: Asked) -> RunRecord:
        now = utc_now()
        made = min(asked.created_at or now, now)
        offer, bills = model.offer(self.provider.name), self.session.ledger().bills
        price = quote(
            request, model, self.provider.name, self.settings, bills=bills, today=self.session.today()
        )
        return RunRecord(
            id=new_id(),
            request=request,
            request_key=request_key(request, model.id, self.take),
            run_key=run_key(request, model.id, self.provider.name, self.take),
            model=model.id,
            provider=self.provider.name,
            provider_model=offer.id,
            origin=self.provider.base_url,
            account=account,
            take=self.take,
            status=RunStatus.QUEUED,
            charged="unknown",
            provider_run_id=self.provider_run_id,
            client_ref=asked.client_ref or "",
            created_at=made,
            accepted_at=made,
            estimate=price,
            reserved_micros=0,
            folder=str(self.session.media_folder(self.settings)),
            private=self.private,
            version=version("kling-nb"),
            terms=offer.terms,
        )

    def _placed(self, transaction: Transaction, record: RunRecord) -> RunRecord:
        """Count the attempt, or say which run of the same request is in its place."""
        live = transaction.live(record.run_key)
        if live is not None:
            cure = f"Wait for it (`%kling wait {live.id}`), then try again"
            if live.status is RunStatus.LOST:
                cure = f"If this is that run: `%kling resolve {live.id} --attach {self.provider_run_id}`"
            raise self._refusal(
                f"Run {live.id} of the same request and take is {status_word(live.status)}.",
                f"Nothing changed. {cure}; or bring this one in as another take, e.g. `--take 1`.",
                run_id=live.id,
            )
        tries = [known.attempt for known in transaction.find([record.request_key])]
        return record.model_copy(update={"attempt": max(tries, default=0) + 1})


def adopt(
    provider: str,
    provider_run_id: str,
    *,
    prompt: str | None = None,
    shots: Sequence[Shot | Mapping[str, Any]] | None = None,
    duration: int | None = None,
    aspect_ratio: str | None = None,
    audio: bool | None = None,
    negative_prompt: str | None = None,
    cfg_scale: float | None = None,
    shot_type: str | None = None,
    model: str | None = None,
    take: int = 0,
    private: bool = False,
    session: Session | None = None,
) -> Run:
    """Bring in a run that was made elsewhere; never sends one, and its cost is in no session's sum.

    Args:
        provider: `runflow` or `runcomfy`.
        provider_run_id: Its id there.
        prompt: What it was asked for. Runflow tells that itself; RunComfy does not, so that prompt (or
            shots), duration, aspect ratio and sound must be said.
        shots: The storyboard it was asked for.
        duration: Whole seconds.
        aspect_ratio: `16:9`, `9:16` or `1:1`.
        audio: Whether it was asked for sound.
        negative_prompt: What should not be seen.
        cfg_scale: 0 to 1.
        shot_type: `customize` or `intelligent`.
        model: A model or its alias; the settings' own unless the provider tells.
        take: Which take of its request it counts as.
        private: What is shown and kept of it here has the hash of its words.
        session: Whose ledger it goes into; the process's own unless given.

    Returns:
        The handle; that of the known run where the ledger has the id already.

    Raises:
        KlingError: There is no such run for the present key, or too little is known of it.

    Example:
        >>> adopt("runflow", "0192f0c1")   # doctest: +SKIP
    """
    parameters = locals()
    given = {name: parameters[name] for name in TextToVideo.model_fields}
    if isinstance(take, bool) or not isinstance(take, int) or take < 0:
        raise UsageError("take: should be a whole number, 0 or more.", cure="Nothing was sent.")
    session = session or current()
    settings = session.settings()
    session.keys.refuse({"the id": provider_run_id, "the request": "\n".join(strings(given))})
    adoption = _Adoption(
        session=session,
        settings=settings,
        provider=_adoptable(settings, provider, provider_run_id),
        provider_run_id=provider_run_id,
        given=given,
        model=model,
        take=take,
        private=private,
    )
    known = session.ledger().read(lambda transaction: transaction.holder(provider, provider_run_id))
    if known is not None:
        run = session.engine().peek(known)
        return look_again(run) if may_revive(known) else run
    return session.engine().settled(adoption.bring())


def _adoptable(settings: Settings, provider: str, provider_run_id: str) -> Provider:
    """Give the adapter of a provider whose runs can be brought in; refuse what cannot be an id of it."""
    if provider not in KEY_VARIABLES:
        raise UsageError(
            f"A run is brought in from {' or '.join(KEY_VARIABLES)}.",
            cure="Nothing was sent. Those of a sandbox end with it.",
        )
    adapter = make_provider(provider, provider_origin(settings, provider))
    adapter.poll_call(provider_run_id)
    return adapter


def _same(given: object, reported: object) -> bool:
    if isinstance(given, str) and isinstance(reported, str):
        return given.strip() == reported.strip()
    return given == reported
