"""What the calls of one moment share: settings, keys, place and prices, each read once for all of them.

Invariants: whatever can be refused before ledger and folder are looked at is refused here; a key that stands
in what would be sent, kept or repeated refuses the call; a record's own origin is never trusted with a key,
only the configured one.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import cache, partial
from importlib.metadata import version

from pydantic import SecretStr

from kling_nb.addresses import is_loopback
from kling_nb.config.environment import Surroundings
from kling_nb.config.git import commit_of
from kling_nb.config.keys import Key, check_length, fingerprint
from kling_nb.config.session_keys import KeyHolder, looked_for_once
from kling_nb.config.settings import Settings, provider_origin
from kling_nb.engine.engine import Engine
from kling_nb.engine.polling.lookup import Access
from kling_nb.engine.reuse import ReusePolicy
from kling_nb.errors import KeyMissingError, UsageError
from kling_nb.ledger.database import Ledger
from kling_nb.pricing.catalog import Model
from kling_nb.pricing.estimate import Bill
from kling_nb.providers import make_provider
from kling_nb.records.money import Estimate
from kling_nb.records.run import RunRecord, ids_of
from kling_nb.records.saved_notebook import runs_in_outputs
from kling_nb.records.secrets import texts_of
from kling_nb.session.admission import Admission
from kling_nb.session.budget import Budget
from kling_nb.session.plan import Ask, offer_for

__all__ = ["CallContext", "access_for"]

_SANDBOX_KEY = SecretStr("sandbox")


class CallContext:
    """What every call of one moment works with.

    Args:
        settings: As they are now.
        where: Where the calls come from.
        holder: The keys of the session.
        stand: Opens ledger and engine.
        who: Whom new runs are counted under.
        today: The day (UTC), by which prices are old.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        where: Surroundings,
        holder: KeyHolder,
        stand: Callable[[], tuple[Ledger, Engine]],
        who: dict[str, str],
        today: date,
    ) -> None:
        self.settings, self._where, self._stand, self._who = settings, where, cache(stand), who
        self._today = today
        self._folder = where.media_folder(settings)
        self._find_key = looked_for_once(holder.find)
        self._introduce = holder.introduce
        self._refuse = holder.refuser()
        self._refuse_place = cache(self._check_place)
        self._output_runs = cache(partial(runs_in_outputs, where.notebook))
        self._bills = cache(self._read_bills)
        self._offers: dict[tuple[object, ...], tuple[str, Model, Estimate]] = {}

    def bills(self, provider: str, model: str, *, origin: str, audio: bool) -> list[Bill]:
        """Give what a provider billed before, read once; see `Ledger.bills`."""
        return self._bills(provider, model, origin, audio)

    def _read_bills(self, provider: str, model: str, origin: str, audio: bool) -> list[Bill]:  # noqa: FBT001 - for the cache
        return self._stand()[0].bills(provider, model, origin=origin, audio=audio)

    def _check_place(self, provider: str) -> None:
        key = None if provider == "sandbox" else self._find_key(provider)
        origin = "" if provider == "sandbox" else provider_origin(self.settings, provider)
        if key is not None:
            check_length(provider, key, origin)
        self._refuse(
            {
                "the media folder's path": str(self._folder),
                "the project's name": self.settings.project,
                "the base address": origin,
            },
            False,
        )

    def price(self, ask: Ask) -> Estimate:
        """Say what one new run of a call would cost; see `Session.price`."""
        return self._offer(ask)[2]

    def _offer(self, ask: Ask) -> tuple[str, Model, Estimate]:
        # Other words of one prompt are neither dearer nor for another provider.
        wordless = {name: getattr(ask.request, name) and "-" for name in ("prompt", "negative_prompt")}
        kind = (
            ask.request.model_copy(update=wordless),
            *(ask.provider, ask.model, ask.price, ask.allow_unpriced),
        )
        if kind not in self._offers:
            self._offers[kind] = offer_for(
                ask, self.settings, find=self._find_key, bills=self.bills, today=self._today
            )
        return self._offers[kind]

    def admission(self, ask: Ask) -> Admission:
        """Give what one call needs to be opened.

        Raises:
            KlingError: The request cannot be served.
        """
        settings, where = self.settings, self._where
        if settings.callback_url and not ask.callback_url:
            ask = replace(ask, callback_url=settings.callback_url)
        provider, model, price = self._offer(ask)
        ledger, engine = self._stand()
        play = provider == "sandbox"
        key = None if play else self._find_key(provider)
        texts = texts_of(ask.request, tags=ask.tags, metadata=ask.metadata)
        self._refuse(texts | {"the callback's address": ask.callback_url or ""}, True)
        self._refuse_place(provider)
        return Admission(
            ask=ask,
            model=model,
            provider=provider,
            price=price,
            policy=ReusePolicy(
                provider=provider,
                named=ask.named is not None,
                real_origin=lambda name: not is_loopback(provider_origin(settings, name)),
                no_cache=ask.no_cache,
                cached_only=ask.cached_only or settings.cached_only,
                retry=ask.retry,
                once=ask.once,
            ),
            budget=Budget.of(
                settings, session_id=self._who["session_id"], headless=where.headless, play=play
            ),
            ledger=ledger,
            engine=engine,
            store=engine.store(self._folder),
            shared={
                "provider_model": model.offer(provider).id,
                "origin": "" if play else provider_origin(settings, provider),
                "account": "sandbox" if key is None else fingerprint(key),
                "play": play,
                **self._who,
                "notebook": where.notebook.name if where.notebook else None,
                "folder": str(self._folder),
                "version": _own_version(),
                "cell": where.cell,
                "terms": model.offer(provider).terms,
            },
            checkout=lambda: commit_of(where.folder),
            output_runs=self._output_runs,
            introduce=self._introduce,
            access=self._access,
        )

    def _access(self, record: RunRecord) -> Access:
        return access_for(record, settings=lambda: self.settings, find_key=self._find_key)


@cache
def _own_version() -> str:
    return version("kling-nb")


def access_for(
    record: RunRecord, *, settings: Callable[[], Settings], find_key: Callable[[str], Key | None]
) -> Access:
    """Give what is needed to ask about a run, or say why it cannot be asked about.

    Args:
        record: The run.
        settings: Reads the settings as they are now; not called for a play run.
        find_key: Gives the key for a provider, if there is one.

    Returns:
        Adapter, key and account.

    Raises:
        UsageError: The run was made at another address than the configured one.
        KeyMissingError: There is no key for its provider.
    """
    if record.provider == "sandbox":
        # Its own address: the sandbox of another kernel may still be there, and no key is at stake.
        if not is_loopback(record.origin):
            raise UsageError(f"Run {record.id} claims a sandbox on another machine.", run_id=record.id)
        return Access(provider=make_provider("sandbox", record.origin), key=_SANDBOX_KEY, account="sandbox")
    adapter = make_provider(record.provider, provider_origin(settings(), record.provider))
    if adapter.base_url != record.origin:
        raise UsageError(
            f"Run {record.id} was made at another address of {adapter.label} than the present one.",
            charged=record.charged,
            cure=f"Set KLING_NB_{record.provider.upper()}_URL as it was, then run the cell again.",
            **ids_of(record),
        )
    key = find_key(record.provider)
    if key is None:
        raise KeyMissingError(
            f"Run {record.id} is pending at {adapter.label}, and there is no key to ask about it.",
            charged=record.charged,
            cure="Nothing was sent. Set the key (`%kling keys`), then run the cell again.",
            **ids_of(record),
        )
    return Access(provider=adapter, key=key.secret, account=fingerprint(key))
