"""One free look, at a run or at an account's balance, through the provider's own answers.

Invariants: looking sends no submit and changes nothing; what a look cannot tell is an error with words.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import SecretStr

from kling_nb.engine.run import Run
from kling_nb.errors import KlingError, ProviderError, TransportError, UsageError
from kling_nb.providers import PROVIDERS, make_provider
from kling_nb.providers.base import Asked, Provider, Snapshot
from kling_nb.records.run import RunRecord, RunStatus

if TYPE_CHECKING:
    from kling_nb.network.client import Transport
    from kling_nb.providers.messages import Call

__all__ = ["MOST_FOLLOWED", "Access", "Accesses", "Seen", "ask_cancel", "balance", "can_cancel", "look"]

#: Further calls that one reading may take, until a reply decides.
MOST_FOLLOWED = 3


@dataclass(frozen=True, kw_only=True)
class Access:
    """What it takes to ask about a run.

    Args:
        provider: The adapter, at its configured address.
        key: The key, or None for a provider that needs none.
        account: The key's fingerprint, as in `RunRecord.account`.
    """

    provider: Provider
    key: SecretStr | None = None
    account: str = ""


class Accesses:
    """Finds what it takes to ask about runs; those that ask at one moment share what is found.

    Args:
        find: Gives it for a run, or raises a `KlingError` that says why not.
    """

    def __init__(self, find: Callable[[RunRecord], Access]) -> None:
        self.find = find
        self._finding: dict[tuple[str, str, str], asyncio.Task[Access]] = {}

    async def of(self, record: RunRecord) -> Access:
        """Give it for a run."""
        place = record.provider, record.origin, record.account
        if not record.play and (found := self._finding.get(place)) is not None:
            # Why not is told of the run that it was looked for: each has its own words.
            with contextlib.suppress(KlingError):
                return await asyncio.shield(found)
        finding = asyncio.ensure_future(asyncio.to_thread(self.find, record))
        self._finding[place] = finding
        finding.add_done_callback(lambda _: self._finding.pop(place, None))
        return await asyncio.shield(finding)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one look at a run told.

    Args:
        snapshot: Where it is.
        asked: What it was asked for, as far as the answers say.
    """

    snapshot: Snapshot
    asked: Asked


def can_cancel(record: RunRecord) -> bool:
    """Whether a cancel can still have an effect; asks nobody and needs no key, for it is asked often."""
    if record.status == RunStatus.CREATED:
        return True
    if record.status.ended or record.provider not in PROVIDERS:
        return False
    status = RunStatus.QUEUED if record.status == RunStatus.SUBMITTING else record.status
    return make_provider(record.provider).can_cancel(status.value)


async def ask_cancel(transport: "Transport", access: Access, run: Run) -> str:
    """Ask to cancel a run that was accepted, and note what its owner should know of the answer.

    Returns:
        `canceled`, `not_cancellable` or `unknown`.
    """
    provider = access.provider
    call = provider.cancel_call(run.record.provider_run_id or "")
    if call is None or not provider.can_cancel(run.status.value):
        run.note = f"{provider.label} cannot cancel it now; it goes on and may be charged."
        return "not_cancellable"
    outcome = provider.read_cancel(await transport.send(call, key=access.key, origin=provider.base_url))
    if outcome == "not_cancellable":
        run.note = f"{provider.label} says it is too late to cancel; it goes on and may be charged."
    elif outcome == "unknown":
        run.note = f"{provider.label} did not say whether the cancel took effect."
    return str(outcome)


async def look(transport: "Transport", access: Access, provider_run_id: str) -> Seen:
    """Look at a run by the provider's id; free, and it may be repeated.

    Args:
        transport: The network.
        access: The provider and the key.
        provider_run_id: The provider's id.

    Returns:
        Where the run is, which this account certainly has, and what it was asked for.

    Raises:
        UsageError: This is no id, or this account has no such run.
        KlingError: It could not be found out now, or the run is another account's.
    """
    provider, label = access.provider, access.provider.label
    again = "Nothing was sent and nothing changed; looking is free, so try again."
    asked = Asked()
    try:
        call: Call | None = provider.poll_call(provider_run_id)
        snapshot, before = Snapshot(state="unreadable"), None
        for _ in range(1 + MOST_FOLLOWED):
            if call is None:
                break
            reply = await transport.send(call, key=access.key, origin=provider.base_url)
            before = snapshot = provider.read_poll(reply, provider_run_id, before)
            asked = _both(asked, provider.read_asked(reply))
            call = snapshot.follow
    except TransportError as error:
        raise ProviderError(
            f"{label} could not be asked about {provider_run_id}: {error.what}",
            charged="unknown",
            cure=again,
            provider=provider.name,
        ) from None
    if snapshot.state == "not_found":
        raise UsageError(
            f"{label} has no run {provider_run_id} for this key.",
            charged="unknown",
            cure=f"Nothing changed. Copy the id from {label}'s own list of runs.",
            provider=provider.name,
        )
    if snapshot.state == "wrong_account":
        raise UsageError(
            f"{label} says that run {provider_run_id} belongs to another account.",
            charged="unknown",
            cure="Nothing changed. Use the key that made it (`%kling keys`).",
            provider=provider.name,
        )
    if snapshot.state == "unreadable":
        raise ProviderError(
            f"{snapshot.message or f'{label} gave no answer that can be read'}.",
            charged="unknown",
            cure=again,
            provider=provider.name,
        )
    return Seen(snapshot=snapshot, asked=asked)


async def balance(transport: "Transport", access: Access) -> str:
    """Read what is left on an account; free.

    Args:
        transport: The network.
        access: The provider and the key.

    Returns:
        Decimal dollars as text.

    Raises:
        KlingError: It is not offered at this address, or was not told.
    """
    provider = access.provider
    call, home = provider.balance_call(), provider.balance_url
    if call is None or home is None:
        raise ProviderError(f"{provider.label} states no balance at its present address.", charged="no")
    reply = await transport.send(call, key=access.key, origin=home)
    amount = provider.read_balance(reply)
    if amount is None:
        raise ProviderError(f"{provider.label} answered HTTP {reply.status} with no balance.", charged="no")
    return amount


def _both(first: Asked, second: Asked) -> Asked:
    """Join what two answers say; the first one that says something counts."""
    return Asked(
        client_ref=first.client_ref or second.client_ref,
        model=first.model or second.model,
        fields=first.fields or second.fields,
        strange=first.strange or second.strange,
        created_at=first.created_at or second.created_at,
    )
