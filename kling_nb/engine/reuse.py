"""Whether a request is already answered: the decision that keeps Run All from paying twice.

Invariants: pure; finished beats pending beats nothing; a lost or moderated run blocks with words; a
sandbox clip never answers a keyed call, nor a stand-in's clip a keyed call to the real provider.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from kling_nb.engine.run import error_of
from kling_nb.errors import BlockedError, KlingError, NotCachedError
from kling_nb.records import RunRecord, RunStatus

__all__ = ["Decision", "Wish", "decide"]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What one call allows.

    Args:
        provider: The provider it would go to.
        named: Whether the call itself named that provider.
        real_origin: By provider, whether its configured address is the provider's own and not loopback.
        no_cache: Buy again even if there is a clip.
        cached_only: Never send.
        retry: Buy again after a failure that was, or may have been, charged.
    """

    provider: str
    named: bool = False
    real_origin: Callable[[str], bool] = lambda _provider: True
    no_cache: bool = False
    cached_only: bool = False
    retry: bool = False

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
    wish: Wish,
    *,
    loopback: Callable[[str], bool],
    verified: Callable[[RunRecord], bool],
    title: str = "this request",
) -> Decision:
    """Decide about one take.

    Args:
        candidates: Every known run of the same request key.
        wish: What the call allows.
        loopback: Whether an origin is on this machine.
        verified: Whether a finished run's file is here and whole.
        title: The request in a few words, for messages.

    Returns:
        What to do.

    Raises:
        BlockedError: An earlier run must be settled first.
        NotCachedError: Only kept clips are allowed, and there is none.

    Example:
        >>> decide([], Wish(provider="sandbox"), loopback=bool, verified=bool).act
        'new'
    """
    known = sorted(
        (c for c in candidates if _counts(c, wish, loopback)), key=lambda r: (r.created_at, r.attempt)
    )
    attempt = max((record.attempt for record in known), default=0) + 1
    finished = [r for r in known if r.status == RunStatus.SUCCEEDED]
    if not wish.no_cache:
        # A real clip before a sandbox one, then the newest.
        for record in sorted(finished, key=lambda r: (not r.play, r.created_at), reverse=True):
            if verified(record):
                return Decision(act="reuse", record=record)
    lost = [r for r in known if r.status == RunStatus.LOST]
    if lost:
        raise blocked(lost[-1])
    pending = [r for r in known if r.status.pending]
    if pending:
        if wish.no_cache:
            raise BlockedError(
                f"Run {pending[-1].id} of the same request is still {pending[-1].status.value}.",
                cure=f"Nothing was sent. Wait for it (`%kling wait {pending[-1].id}`), then use `--no-cache`.",
                run_id=pending[-1].id,
                provider=pending[-1].provider,
            )
        if not wish.cached_only:
            return Decision(act="attach", record=pending[-1])
    if wish.cached_only:
        waiting = f"; run {pending[-1].id} is still {pending[-1].status.value}" if pending else ""
        raise NotCachedError(
            f"There is no kept clip of {title}{waiting}, and only kept clips are allowed.",
            cure="Bring the clip and its .json into the media folder, or drop `--cached-only`.",
        )
    if finished and not wish.no_cache and not finished[-1].play:
        return Decision(act="refetch", record=finished[-1])
    ended = [r for r in known if r.status in {RunStatus.FAILED, RunStatus.CANCELED}]
    if ended and not wish.no_cache:
        last = ended[-1]
        if last.reason == "moderated":
            raise blocked(last)
        if last.charged != "no" and not wish.retry:
            raise blocked(last)
    return Decision(act="new", attempt=attempt)


def _counts(record: RunRecord, wish: Wish, loopback: Callable[[str], bool]) -> bool:
    if wish.named and record.provider != wish.provider:
        return False
    if wish.keyless:
        return True
    if record.provider == "sandbox":
        return False
    return not (loopback(record.origin) and wish.real_origin(record.provider))


def blocked(record: RunRecord) -> KlingError:
    """Say which earlier run stands in the way, and what to do about it."""
    error = error_of(record)
    return BlockedError(
        error.what if error else f"Run {record.id} stands in the way.",
        charged=record.charged,
        cure=("Nothing was sent now. " + error.cure) if error else "",
        run_id=record.id,
        provider=record.provider,
        provider_run_id=record.provider_run_id,
    )


def of_take(candidates: Sequence[RunRecord], request_key: str) -> list[RunRecord]:
    """Keep the runs of one request key."""
    return [record for record in candidates if record.request_key == request_key]
