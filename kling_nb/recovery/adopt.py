"""Bringing in a run that was made elsewhere: by another tool, or under another ledger.

Invariants: nothing here ever sends a submit; a run is brought in once; what its provider's record says it was
asked for counts, and whatever decides price and reuse and is said by nobody is refused, never guessed; what
it cost stands on its own row and in no session's, project's or user's sum.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kling_nb.config.keys import KEY_VARIABLES, Key, fingerprint
from kling_nb.config.settings import Settings, provider_origin
from kling_nb.engine.engine import Engine
from kling_nb.engine.lookup import Access
from kling_nb.engine.run import Run
from kling_nb.errors import KeyMissingError, UsageError
from kling_nb.ledger.database import Ledger
from kling_nb.ledger.transaction import Transaction
from kling_nb.pricing.catalog import Model
from kling_nb.providers import make_provider
from kling_nb.providers.base import Asked, Provider
from kling_nb.records.base import utc_now
from kling_nb.records.money import Estimate
from kling_nb.records.request import Shot, TextToVideo, make_request, request_key, run_key
from kling_nb.records.run import RunRecord, RunStatus, may_revive
from kling_nb.records.secrets import strings
from kling_nb.recovery.resolve import look_again
from kling_nb.session.api import current
from kling_nb.session.plan import new_id, quote
from kling_nb.session.session import Session
from kling_nb.views.words import status_word

__all__ = ["Adoption", "adopt"]

_EXAMPLE = '--prompt "TEXT" -d 5 --ar 16:9 --no-audio'

#: What the price and the request key hang on, and the flag that says it.
_NEEDED = {"duration": "-d S", "aspect_ratio": "--ar W:H", "audio": "--audio or --no-audio"}


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """What it takes to bring one run in.

    Args:
        provider: The adapter of whoever made it.
        provider_run_id: The provider's id.
        given: Fields of the request, as the user says them.
        model: Our model, if the user names one.
        find_model: Finds a model with the prices in force; the settings' own where nobody names one.
        quote: Prices a request for that model at this provider.
        take: Which take of its request it counts as.
        folder: Where its clip goes.
        private: Whether its words are shown and kept as their hash from now on.
        version: Of this package.
    """

    provider: Provider
    provider_run_id: str
    given: Mapping[str, Any]
    model: str | None = None
    find_model: Callable[[str | None], Model]
    quote: Callable[[TextToVideo, Model], Estimate]
    take: int = 0
    folder: Path
    private: bool = False
    version: str = ""

    def bring(self, ledger: Ledger, engine: Engine, key: Key | None) -> RunRecord:
        """Look at the run, for free, and write it down.

        Args:
            ledger: Where it goes.
            engine: What asks about it.
            key: The key to ask with.

        Returns:
            The committed record, on its way; or the one that was brought in meanwhile.

        Raises:
            UsageError: There is no such run for this key, it is one of ours, or too little is known of it.
            KlingError: There is no key, or the provider could not be asked.
        """
        label = self.provider.label
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
            raise UsageError(
                f"{self.provider_run_id} at {label} is run {ours.id} of this ledger, which is "
                f"{status_word(ours.status)}.",
                charged="unknown",
                cure=f"Nothing changed. `%kling resolve {ours.id} --attach {self.provider_run_id}` says so.",
                run_id=ours.id,
                provider=self.provider.name,
            )

    def _model(self, label: str, asked: Asked) -> Model:
        named = None if self.model is None else self.find_model(self.model)
        if asked.model is None:
            model = named or self.find_model(None)
            model.offer(self.provider.name)
            return model
        try:
            reported = self.find_model(asked.model)
        except UsageError:
            raise self._unfit(
                f"{label} says that it was made by {asked.model}, which is not Kling 3.0"
            ) from None
        if named is not None and named.id != reported.id:
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
            raise UsageError(
                f"{label}'s own record of {self.provider_run_id} says another {', '.join(clash)}.",
                charged="unknown",
                cure="Nothing changed. Leave that out: what the record says counts.",
                provider=self.provider.name,
            )
        merged = {**given, **reported}
        if not merged.get("prompt") and not merged.get("shots"):
            raise UsageError(
                f"{label} does not say what {self.provider_run_id} was asked for.",
                charged="unknown",
                cure=f"Say it: `%kling adopt {self.provider.name} {self.provider_run_id} {_EXAMPLE}`, or "
                "with `--file` for a storyboard; a cell that asks for the same gets its clip.",
                provider=self.provider.name,
            )
        needed = {n: flag for n, flag in _NEEDED.items() if not (n == "duration" and merged.get("shots"))}
        missing = [flag for name, flag in needed.items() if name not in merged]
        if missing:
            raise UsageError(
                f"{label} does not say all of what {self.provider_run_id} was asked for.",
                charged="unknown",
                cure=f"Add {', '.join(missing)}: price and reuse depend on it, so nothing is guessed.",
                provider=self.provider.name,
            )
        try:
            return make_request(**merged)
        except UsageError as error:
            raise self._unfit(
                f"what was asked for is not a request that kling_nb can make ({error.what})"
            ) from None

    def _unfit(self, why: str) -> UsageError:
        return UsageError(
            f"{self.provider_run_id} cannot be brought in: {why.rstrip('.')}.",
            charged="unknown",
            cure="Nothing changed, here or there.",
            provider=self.provider.name,
        )

    def _record(self, request: TextToVideo, model: Model, account: str, asked: Asked) -> RunRecord:
        now = utc_now()
        made = min(asked.created_at, now) if asked.created_at is not None else now
        return RunRecord(
            id=new_id(),
            request=request,
            request_key=request_key(request, model.id, self.take),
            run_key=run_key(request, model.id, self.provider.name, self.take),
            model=model.id,
            provider=self.provider.name,
            provider_model=model.offer(self.provider.name).id,
            origin=self.provider.base_url,
            account=account,
            take=self.take,
            status=RunStatus.QUEUED,
            charged="unknown",
            provider_run_id=self.provider_run_id,
            client_ref=asked.client_ref or "",
            created_at=made,
            accepted_at=made,
            estimate=self.quote(request, model),
            reserved_micros=0,
            folder=str(self.folder),
            private=self.private,
            version=self.version,
            terms=model.offer(self.provider.name).terms,
        )

    def _placed(self, transaction: Transaction, record: RunRecord) -> RunRecord:
        """Count the attempt, or say which run of the same request is in its place."""
        live = transaction.live(record.run_key)
        if live is not None:
            cure = f"Wait for it (`%kling wait {live.id}`), then try again"
            if live.status is RunStatus.LOST:
                cure = f"If this is that run: `%kling resolve {live.id} --attach {self.provider_run_id}`"
            raise UsageError(
                f"Run {live.id} of the same request and take is {status_word(live.status)}.",
                charged="unknown",
                cure=f"Nothing changed. {cure}; or bring this one in as another take, e.g. `--take 1`.",
                run_id=live.id,
                provider=self.provider.name,
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
    ledger, engine = session.ledger(), session.engine()
    session.keys.refuse({"the id": provider_run_id, "the request": "\n".join(strings(given))})
    adoption = Adoption(
        provider=_adoptable(settings, provider, provider_run_id),
        provider_run_id=provider_run_id,
        given=given,
        model=model,
        find_model=settings.priced_model,
        quote=lambda request, model: quote(
            request, model, provider, settings, bills=ledger.bills, today=session.today()
        ),
        take=take,
        folder=session.media_folder(settings),
        private=private,
        version=version("kling-nb"),
    )
    with ledger.reading() as transaction:
        known = transaction.holder(provider, provider_run_id)
    if known is not None:
        run = engine.peek(known)
        return look_again(run) if may_revive(known) else run
    return engine.settled(adoption.bring(ledger, engine, session.key(provider)))


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
