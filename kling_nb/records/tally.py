"""The figures of one run, or of many that are counted together, as whole numbers that can be added."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kling_nb.records.privacy import redacted_labels
from kling_nb.records.run import RunRecord, charged

__all__ = ["Tally", "is_open", "shown_tags", "tally_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """Figures that were counted together; amounts in micro-dollars.

    Args:
        play: Whether it is the sandbox's play money.
        labels: What the runs have in common, by name: provider, model, day, session, user, project, notebook.
        tags: Their tags.
        runs: How many runs.
        pending: How many are on their way.
        estimated: The sum of the known estimates.
        estimated_known: How many estimates are known.
        reported: The sum of what providers reported.
        reported_known: How many reports are known.
        reports: How many runs a report is expected or known of.
        settled: The sum of what is on the books.
        settled_known: How many are settled.
        unknown: How many have ended and nobody knows their charge.
        reserved: What is held back.
        difference: Settled less estimated, over the runs that have both.
        compared: How many have both.
        open: How many have ended without confirmed in dollars by the provider; see `is_open`.
        record: The run, where it is one.
    """

    play: bool
    labels: Mapping[str, str | None] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    runs: int = 1
    pending: int = 0
    estimated: int = 0
    estimated_known: int = 0
    reported: int = 0
    reported_known: int = 0
    reports: int = 0
    settled: int = 0
    settled_known: int = 0
    unknown: int = 0
    reserved: int = 0
    difference: int = 0
    compared: int = 0
    open: int = 0
    record: RunRecord | None = None


def is_open(record: RunRecord) -> bool:
    """Whether an ended run's charge is unknown, or not confirmed in dollars by the provider."""
    return record.status.ended and record.billed_micros is None and charged(record) != "no"


def shown_tags(tags: Mapping[str, str], *, private: bool) -> dict[str, str]:
    """Give tags for the owner's own table: words that a suite knows a private run by are a hash."""
    words = {name: value for name, value in tags.items() if private and name == "prompt"}
    return {**tags, **redacted_labels(words)}


def tally_of(record: RunRecord) -> Tally:
    """Count one run.

    Args:
        record: The run.
    """
    estimate = record.estimate.micros if record.estimate.currency == "USD" else None
    billed, settled, unsure = record.billed_micros, record.settled_micros, is_open(record)
    reports = record.reported_micros is not None or unsure
    both = settled is not None and estimate is not None
    return Tally(
        play=record.play,
        labels={
            "provider": record.provider,
            "model": record.model,
            "day": record.created_at.date().isoformat(),
            "session": record.session_id,
            "user": record.user,
            "project": record.project,
            "notebook": record.notebook,
        },
        tags=shown_tags(record.tags, private=record.private),
        pending=record.status.pending,
        estimated=estimate or 0,
        estimated_known=estimate is not None,
        reported=(billed or 0) if reports else 0,
        reported_known=reports and billed is not None,
        reports=reports,
        settled=settled or 0,
        settled_known=settled is not None,
        unknown=record.status.ended and settled is None,
        reserved=record.reserved_micros,
        difference=(settled or 0) - (estimate or 0) if both else 0,
        compared=both,
        open=unsure,
        record=record,
    )
