"""Whether a request is already answered: the decision that keeps Run All from paying twice.

Invariants: pure; finished beats pending beats nothing; a lost or moderated run blocks with words; a
sandbox clip never answers a keyed call, nor a stand-in's clip a keyed call to the real provider.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from kling_nb.engine.detach import error_of
from kling_nb.errors import BlockedError, KlingError, NotCachedError
from kling_nb.providers import PROVIDERS
from kling_nb.records.run import RunRecord, RunStatus, ids_of
from kling_nb.views.words import status_word

__all__ = ["Decision", "ReusePolicy", "decide"]


@dataclass(frozen=True, kw_only=True)
class ReusePolicy:
    """What one call allows.

    Args:
        provider: The provider it would go to.
        named: Whether the call itself named that provider.
        real_origin: By provider, whether its configured address is the provider's own and not loopback.
        no_cache: Buy again even if there is a clip.
        cached_only: Never send.
        retry: Buy again after a failure that was, or may have been, charged.
        once: Never buy again after a run that its provider took, whatever became of it.
    """

    provider: str
    named: bool = False
    real_origin: Callable[[str], bool] = lambda _provider: True
    no_cache: bool = False
    cached_only: bool = False
    retry: bool = False
    once: bool = False

    @property
    def keyless(self) -> bool:
        """Whether no key is at hand, so that the sandbox would answer."""
        return self.provider == "sandbox"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do about one take.

    Args:
        act: `reuse` a finished clip, `attach` to a pending run, `refetch` a finished run's missing file, or
            make a `new` run.
        record: The run that is there, unless new.
        attempt: The number of the new attempt.
    """

    act: Literal["reuse", "attach", "refetch", "new"]
    record: RunRecord | None = None
    attempt: int = 1


def decide(
    candidates: Iterable[RunRecord],
    policy: ReusePolicy,
    *,
    loopback: Callable[[str], bool],
    verified: Callable[[RunRecord], bool],
    fetchable: Callable[[RunRecord], bool] = lambda _record: True,
    title: str = "this request",
) -> Decision:
    """Decide about one take.

    Args:
        candidates: Every known run of the same request key.
        policy: What the call allows.
        loopback: Whether an origin is on this machine.
        verified: Whether a finished run's file is here and whole.
        fetchable: Whether its provider can be asked for the file again, with the key that made it.
        title: The request in a few words, for messages.

    Returns:
        What to do.

    Raises:
        BlockedError: An earlier run must be settled first.
        NotCachedError: Only kept clips are allowed, and there is none.

    Example:
        >>> decide([], ReusePolicy(provider="sandbox"), loopback=bool, verified=bool).act
        'new'
    """
    known = sorted(
        (c for c in candidates if _counts(c, policy, loopback)), key=lambda r: (r.created_at, r.attempt)
    )
    finished = [r for r in known if r.status == RunStatus.SUCCEEDED]
    if not policy.no_cache:
        # A real clip before a sandbox one, then the newest.
        for record in sorted(finished, key=lambda r: (not r.play, r.created_at), reverse=True):
            if verified(record):
                return Decision(act="reuse", record=record)
    pending = _pending(known, policy)
    if policy.cached_only:
        known_of = f"; the file of run {finished[-1].id} is not here, or is damaged" if finished else ""
        if pending:
            known_of = f"; run {pending.id} is still {status_word(pending.status)}"
        raise NotCachedError(
            f"There is no kept clip of {title}{known_of}, and only kept clips are allowed.",
            cure="Bring the clip and its .json into the media folder, or drop `--cached-only`.",
        )
    if pending is not None:
        return Decision(act="attach", record=pending)
    if not policy.no_cache:
        if finished and not finished[-1].play:
            if not fetchable(finished[-1]):
                raise _not_here(finished[-1])
            return Decision(act="refetch", record=finished[-1])
        _check_last_failure(known, policy)
    return Decision(act="new", attempt=max((record.attempt for record in known), default=0) + 1)


def _not_here(record: RunRecord) -> BlockedError:
    return BlockedError(
        f"The clip of run {record.id} was made and paid for, but its file is not here, "
        "and it cannot be fetched again with the keys at hand.",
        charged="no",
        cure="Nothing was sent. Put the file back, set the key that made it, or buy it again: `--no-cache`.",
        **ids_of(record),
    )


def _pending(known: Sequence[RunRecord], policy: ReusePolicy) -> RunRecord | None:
    """Give the run to wait for; a lost one blocks, and so does any one on its way under `--no-cache`."""
    lost = [r for r in known if r.status == RunStatus.LOST]
    if lost:
        raise blocked(lost[-1])
    pending = next((r for r in reversed(known) if r.status.pending), None)
    if pending is not None and policy.no_cache:
        raise BlockedError(
            f"Run {pending.id} of the same request is still {status_word(pending.status)}.",
            cure=f"Nothing was sent. Wait for it (`%kling wait {pending.id}`), then use `--no-cache`; or ask "
            f"for another sample of it, e.g. `--take {pending.take + 1}`.",
            **ids_of(pending),
        )
    return pending


def _check_last_failure(known: Sequence[RunRecord], policy: ReusePolicy) -> None:
    ended = [r for r in known if r.status in {RunStatus.FAILED, RunStatus.CANCELED}]
    if ended and ended[-1].reason == "moderated":
        raise blocked(ended[-1])
    # Any of them, not only the last: an open charge is not closed by a later failure that was free.
    paid = [
        record
        for record in ended
        if record.abandoned_at is None
        and (record.charged != "no" or (policy.once and record.provider_run_id is not None))
    ]
    if paid and not policy.retry:
        raise blocked(paid[-1])


def _counts(record: RunRecord, policy: ReusePolicy, loopback: Callable[[str], bool]) -> bool:
    if record.provider not in PROVIDERS or (policy.named and record.provider != policy.provider):
        return False
    if policy.keyless:
        return True
    if record.provider == "sandbox":
        return False
    return not (loopback(record.origin) and policy.real_origin(record.provider))


def blocked(record: RunRecord) -> KlingError:
    """Say which earlier run stands in the way, and what to do about it."""
    error = error_of(record)
    return BlockedError(
        error.what if error else f"Run {record.id} stands in the way.",
        charged=record.charged,
        cure=f"Nothing was sent now. {error.cure}" if error else "",
        **ids_of(record),
    )
