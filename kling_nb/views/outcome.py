"""What it means for its owner that a run made no clip: what happened, was it charged, what is safe now.

Invariants: every end without a clip answers all three; a charge nobody knows is called unknown; a cure
names the exact command, and none of them can buy anything without saying so. Our own `code` is the only
mark in the text, and a provider's words are never mixed in.
"""

from typing import NamedTuple

from kling_nb.errors import Charged
from kling_nb.pricing.catalog import provider_label, provider_site
from kling_nb.records.money import in_currency, usd
from kling_nb.records.run import RunRecord, RunStatus, charged
from kling_nb.views.words import SEND_IT, clock, never_sent

__all__ = ["Ending", "ending"]


class Ending(NamedTuple):
    """The three answers.

    Args:
        what: What happened.
        charged: e.g. `Charged: no.`
        cure: What is safe now, with the command to type.
        site: The address of the provider's own site, where it is to be looked for; empty for none.
    """

    what: str
    charged: str
    cure: str
    site: str = ""


def ending(record: RunRecord, *, detached: bool = False) -> Ending | None:
    """Answer the three questions for a run that made no clip, or that nobody watches any more.

    Args:
        record: The run.
        detached: Whether we stopped watching it.

    Returns:
        The answers, or None where nothing needs telling: the run is on its way, or done.
    """
    play = " (play money)" if record.play else ""
    if detached and record.status.pending:
        return _detached(record, play)
    if record.status.pending or record.status is RunStatus.SUCCEEDED:
        return None
    word = charged(record)
    settled = record.settled_micros
    amount = usd(settled) if settled is not None else in_currency(record.reported_micros, record.currency)
    sure = f"yes, {'amount ' if amount == 'unknown' else ''}{amount}"
    what, cure = _explain(record, word)
    site = provider_site(record.provider) if record.status is RunStatus.LOST and word != "no" else ""
    return Ending(what, f"Charged: {sure if word == 'yes' else word}{play}.", cure, site)


def _detached(record: RunRecord, play: str) -> Ending:
    if record.submitted_at is None and record.status is RunStatus.CREATED:
        return Ending("We stopped before anything was sent.", f"Charged: no{play}.", SEND_IT)
    resume = f"`%kling resume {record.id}` watches it again and fetches the clip; it buys nothing."
    what = f"Nobody watches it from here; the run goes on at {provider_label(record.provider)}."
    return Ending(what, f"Charged: unknown until it ends{play}.", resume)


def _explain(record: RunRecord, word: Charged) -> tuple[str, str]:
    """Give what happened and what is safe now."""
    at, again = provider_label(record.provider), _again(record, word)
    if record.status is RunStatus.LOST:
        return _lost(record, at, word)
    if record.status is RunStatus.CANCELED:
        unsent = never_sent(record)
        return unsent or "The run was canceled before it made a clip.", SEND_IT if unsent else again
    if record.abandoned_at is not None and record.provider_run_id is None:
        return (
            f"The answer from {at} never came, and the run was given up; nothing is reserved for it.",
            again,
        )
    twice = "" if word == "no" else f" {again}"
    reasons: dict[str | None, tuple[str, str]] = {
        "moderated": (
            f"{at} refused this request for its content.",
            f"Change the prompt: this one would be refused again (`--no-cache` sends it anyway).{twice}",
        ),
        "invalid": (
            f"{at} did not accept the request.",
            f"Correct the request; `%%kling --dry-run` shows exactly what would be sent.{twice}",
        ),
        "credit": (f"The account at {at} is out of credit.", f"Add credit at {at}. {again}"),
        "auth": (f"{at} refused the key.", f"`%kling keys` shows where it comes from. {again}"),
        "expired": (f"The run, or its clip, is no longer at {at}.", again),
        "canceled": ("The run was canceled before it made a clip.", again),
    }
    nowhere = record.provider_run_id is None and word == "no"
    what = f"No run was made at {at}." if nowhere else f"The run failed at {at}."
    return reasons.get(record.reason, (what, again))


def _again(record: RunRecord, word: Charged) -> str:
    if word == "no":
        return "Run the cell again for a new try."
    if record.abandoned_at is not None:
        return "Run the cell again for a new try, which may be charged as well."
    held = word == "unknown" and record.reserved_micros
    kept = f"The money stays reserved until `%kling resolve {record.id} --abandon`. " if held else ""
    return f"{kept}A new try may be charged as well, so it needs `%%kling --retry`."


def _lost(record: RunRecord, at: str, word: Charged) -> tuple[str, str]:
    what = f"The answer from {at} never came, so a run may exist there. Nothing was sent again."
    if word == "no":
        return f"The answer from {at} never came, and the run was given up.", _again(record, word)
    asked = clock(record.submitted_at or record.created_at, date=True)
    resolve = f"`%kling resolve {record.id}"
    return what, (
        f"Look for it in your request history at {at} around {asked}.\n"
        f"It is there: {resolve} --attach PROVIDER_ID`\nIt is not: {resolve} --abandon`"
    )
