"""The paragraph and the table that a paper needs about how its clips were made.

Invariants: every figure is counted from records; attempts that failed are counted beside those that did not;
what nobody knows is said to be unknown; no markup of a stranger's receipt is in it.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from urllib.parse import quote

from kling_nb.exports.writer import is_stand_in
from kling_nb.pricing.catalog import provider_label
from kling_nb.records.money import usd
from kling_nb.records.run import RunRecord, RunStatus, charged

__all__ = ["methods"]

_VERSION = re.compile(r"[0-9A-Za-z.+-]{1,40}")


def methods(records: Sequence[RunRecord]) -> str:
    """Write how clips were made.

    Args:
        records: Every attempt, of every take.

    Returns:
        A paragraph and a table, as Markdown.

    Example:
        >>> methods([])
        'No runs.'
    """
    if not records:
        return "No runs."
    ordered = sorted(records, key=_kind)
    groups = [(kind, list(group)) for kind, group in groupby(ordered, key=_kind)]
    heads = ["model", "provider", "s", "shape", "sound", "requests", "takes", "attempts", "clips", "cost"]
    rows = [[*kind, *_figures(group)] for kind, group in groups]
    line = "| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads)
    table = "\n".join([line, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)])
    return "\n\n".join([_paragraph(records), table])


def _kind(record: RunRecord) -> tuple[str, str, int, str, str]:
    request = record.request
    sound = "with sound" if request.audio else "silent"
    return record.model, _maker(record), request.duration, request.aspect_ratio, sound


def _maker(record: RunRecord) -> str:
    """Name the provider; what stood in for it on this machine was no model."""
    note = " (a stand-in, not the provider)" if is_stand_in(record) else ""
    return provider_label(record.provider) + note


def _figures(records: Sequence[RunRecord]) -> list[str]:
    done = sum(record.status is RunStatus.SUCCEEDED for record in records)
    takes = {(record.request_key) for record in records}
    asked = {record.request.model_dump_json() for record in records}
    return [str(len(asked)), str(len(takes)), str(len(records)), str(done), _cost(records)]


def _cost(records: Sequence[RunRecord]) -> str:
    if any(record.play for record in records):
        return "play money"
    settled = [record.settled_micros for record in records if record.settled_micros is not None]
    unknown = sum(record.settled_micros is None and charged(record) != "no" for record in records)
    # Beside what nobody knows, a sum of no amounts is not $0.00.
    # What Markdown has between two dollar signs is drawn as TeX, whole rows of this table too.
    known = [f"{usd(sum(settled)).replace('$', '')} USD"] if settled or not unknown else []
    return " + ".join([*known, *([f"{unknown} unknown"] if unknown else [])])


def _paragraph(records: Sequence[RunRecord]) -> str:
    days = sorted(record.created_at.date().isoformat() for record in records)
    span = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    ends = Counter(record.reason or record.status.value for record in records if record.status.ended)
    done = ends.pop(RunStatus.SUCCEEDED.value, 0)
    failed = ", ".join(f"{count} {word}" for word, count in sorted(ends.items()))
    # Markdown draws markup, and a receipt may be anybody's.
    versions = ", ".join(sorted({r.version for r in records if _VERSION.fullmatch(r.version)})) or "unknown"
    models = sorted({f"{record.model} ({record.provider_model}) at {_maker(record)}" for record in records})
    sampled = {record.request_key for record in records}
    clips = Counter(record.request_key for record in records if record.status is RunStatus.SUCCEEDED)
    again = sum(count > 1 for count in clips.values())
    waiting = sum(record.status.pending for record in records)
    terms = sorted(
        {
            f"{quote(r.terms.url, safe=':/%')} (read {r.terms.as_of})"
            for r in records
            if r.terms and r.terms.url
        }
    )
    return (
        f"Clips were made with {' and '.join(models)} on {span} (UTC), through kling_nb {versions}. "
        f"The model takes no seed: {len(sampled)} samples were planned by index before they were run, and of "
        f"{len(records)} attempts every one is on record: {done} gave a clip"
        + (f", {failed}" if failed else "")
        + (f", {waiting} still on the way" if waiting else "")
        + f". {len(sampled) - len(clips)} samples have no clip. "
        "Samples were taken by their index, not chosen among clips; a failed attempt was repeated under the "
        "same index."
        + (f" {again} samples were made again although they had a clip; the newest counts." if again else "")
        + (f" Terms of the providers: {', '.join(terms)}." if terms else "")
    )
