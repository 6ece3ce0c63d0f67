"""Which clips are worth comparing: what is compared, what must be alike, and the pairs that follow.

Invariants: clips are compared only where prompt, length, shape and sound are the same; clips with and without
sound, and of the sandbox, are in pools of their own; two copies of the same bytes are no pair.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import combinations

from kling_nb.errors import UsageError
from kling_nb.records.privacy import redacted
from kling_nb.records.run import RunRecord

__all__ = ["By", "grouping", "pairs", "pool"]

By = str | Callable[[RunRecord], str | None]


def grouping(by: By = "model") -> Callable[[RunRecord], str | None]:
    """Turn what is compared into a function of a record.

    Args:
        by: `model`, `provider`, `tag:KEY`, or a function that names a record's item (None leaves it out).

    Returns:
        The function.

    Raises:
        UsageError: It is none of these.

    Example:
        >>> grouping("provider").__name__
        '<lambda>'
    """
    if callable(by):
        return by
    kind, _, key = by.partition(":")
    if by == "model":
        return lambda record: record.model
    if by == "provider":
        return lambda record: record.provider
    if kind == "tag" and key:
        return lambda record: redacted(record).tags.get(key)
    raise UsageError(
        f"by: {by!r:.40} is not something to compare by.", cure="Take model, provider, tag:KEY or a function."
    )


def pool(record: RunRecord) -> str:
    """Name the pool a clip is rated in: scores of two pools say nothing of each other.

    Example:
        >>> pool.__name__
        'pool'
    """
    words = "with sound" if record.request.audio else "silent"
    return f"sandbox, {words}" if record.play else words


def _alike(record: RunRecord) -> tuple[object, ...]:
    request = record.request
    return (pool(record), request.prompt, request.shots, request.duration, request.aspect_ratio)


def pairs(records: Sequence[RunRecord], by: By = "model") -> list[tuple[RunRecord, RunRecord]]:
    """List the pairs worth a vote: the same order was given, and the items differ.

    Args:
        records: Runs; those without a clip are passed over.
        by: What is compared; see `grouping`.

    Returns:
        Pairs, each with the smaller id first. Each item is met with each other one as early as can be.

    Example:
        >>> pairs([])
        []
    """
    item = grouping(by)
    alike: defaultdict[tuple[object, ...], list[RunRecord]] = defaultdict(list)
    for record in {record.id: record for record in records}.values():
        if record.media is not None and item(record) is not None:
            alike[_alike(record)].append(record)
    met: defaultdict[tuple[str, ...], list[tuple[RunRecord, RunRecord]]] = defaultdict(list)
    for group in alike.values():
        for one, other in combinations(sorted(group, key=lambda record: record.id), 2):
            names = sorted({str(item(one)), str(item(other))})
            if len(names) == 2 and _bytes(one) != _bytes(other):
                met[pool(one), *names].append((one, other))
    rounds = max(map(len, met.values()), default=0)
    return [found[number] for number in range(rounds) for found in met.values() if number < len(found)]


def _bytes(record: RunRecord) -> str | None:
    return record.media.sha256 if record.media else None
