"""What was spent, and whether the providers say the same: reports, and a second look at charges.

Invariants: nothing here ever sends a submit; only the provider's own figure, or its contract's definite "not
charged" for a run that ended without a clip, changes the books, in one transaction with the event that says
what they were before, and once; whatever else a provider says leaves them as they are; a key goes to its own
provider alone.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kling_nb.config.keys import KEY_VARIABLES, fingerprint
from kling_nb.engine.polling.lookup import Access, Seen, balance, look
from kling_nb.engine.watch import reported
from kling_nb.errors import KlingError
from kling_nb.ledger.tallies import Chosen
from kling_nb.providers.base import Snapshot
from kling_nb.records.money import Totals, in_currency, usd
from kling_nb.records.privacy import hidden
from kling_nb.records.run import RunRecord, RunStatus, charged
from kling_nb.session.api import current
from kling_nb.session.session import Session
from kling_nb.spending.counted import Counted
from kling_nb.spending.report import BalanceLine, Check, CostReport
from kling_nb.spending.sums import read_day, read_dimensions, select

if TYPE_CHECKING:
    from kling_nb.ledger.database import Ledger
    from kling_nb.network.client import Transport

__all__ = ["balances", "costs", "session_money"]

_AT_ONCE = 8
_ENDS = frozenset({"succeeded", "failed", "canceled"})


def costs(
    *,
    by: str | Sequence[str] | None = None,
    everything: bool = False,
    since: date | str | None = None,
    until: date | str | None = None,
    project: str | None = None,
    reconcile: bool = False,
    session: Session | None = None,
) -> CostReport:
    """Report what runs were estimated at, reported to cost and settled at; sends nothing, costs nothing.

    Args:
        by: What the rows are arranged by: provider, model, day, tag, session, user, project, notebook or run,
            with commas between; `tag:KEY` for the values of one tag.
        everything: The whole ledger, and not this session alone; so do days and a project.
        since: The first day (UTC), as a date, a time or `YYYY-MM-DD`.
        until: The last day.
        project: Only this project.
        reconcile: Ask the providers again about each of these runs whose charge is unknown, or on the books
            without their own word; and for the balances of the accounts.
        session: Whose ledger it is; the process's own unless given.

    Returns:
        The report.

    Raises:
        UsageError: There is no such dimension or day.
        LedgerError: The ledger cannot be read, or, reconciling, not be written.

    Example:
        >>> costs().totals
        []
    """
    read_dimensions(by)
    first = None if since is None else read_day(since, "since")
    last = None if until is None else read_day(until, "until")
    session = session or current()
    wide = everything or first is not None or last is not None or project is not None
    ledger, whose = session.ledger(), None if wide else session.id
    checks = None
    if reconcile:
        mine = [record for record in ledger.open_charges() if whose in {None, record.session_id}]
        checks = _reconcile(session, select(mine, since=first, until=last, project=project))
    chosen = Chosen(session_id=whose, since=first, until=last, project=project)
    report = CostReport(
        Counted(ledger, chosen),
        by=by,
        scope=_scope(first, last, project) if wide else "this session",
        money=session_money(session),
        checks=checks,
        balances=balances(session) if reconcile else (),
        unread=ledger.unreadable(whose),
    )
    if not wide and not report.totals:
        report.earlier = _earlier(ledger)
    return report


def _earlier(ledger: "Ledger") -> str:
    """Say what was spent before this session, as where a kernel was restarted."""
    sums = ledger.read(lambda transaction: [transaction.sums(play=play) for play in (False, True)])
    words = [
        f"{usd(one.settled_micros)} of {'play' if one.play else 'real'} money"
        for one in sums
        if one.settled_micros
    ]
    return f"Earlier in this ledger: **{' and '.join(words)}**; `%kling cost --all` has it." if words else ""


def _scope(first: date | None, last: date | None, project: str | None) -> str:
    words = "all runs of this ledger" if project is None else f"project {project}"
    words += f" since {first.isoformat()}" if first else ""
    return words + (f" until {last.isoformat()}" if last else "")


def session_money(session: Session) -> list[Totals]:
    """Give a session's totals: of real money, and of play money where there is any."""
    play = session.totals(play=True)
    used = play.settled_micros or play.reserved_micros or play.unknown
    return [session.totals(), *([play] if used else [])]


# -- asking again ----------------------------------------------------------------------
@dataclass(frozen=True)
class _Answer:
    """What came of asking about one run."""

    record: RunRecord
    seen: Seen | None = None
    why_not: str = ""


def _reconcile(session: Session, records: Sequence[RunRecord]) -> list[Check]:
    """Ask about each run, then write down what became known."""
    if not records:
        return []
    ready: list[_Answer | tuple[RunRecord, Access]] = []
    for record in records:
        if record.provider_run_id is None:
            cure = "" if record.abandoned_at else f"; see `%kling resolve {record.id}`"
            ready.append(_Answer(record, why_not=f"its id at the provider is not known{cure}"))
            continue
        try:
            ready.append((record, session.access(record)))
        except KlingError as error:
            ready.append(_Answer(record, why_not=error.what))
    from kling_nb.network.client import with_transport

    answers = with_transport(session.loop, partial(_ask, ready))
    return [_settle(session, answer) for answer in answers]


async def _ask(ready: Sequence[_Answer | tuple[RunRecord, Access]], transport: "Transport") -> list[_Answer]:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(what: _Answer | tuple[RunRecord, Access]) -> _Answer:
        if isinstance(what, _Answer):
            return what
        record, access = what
        async with gate:
            try:
                return _Answer(record, await look(transport, access, record.provider_run_id or ""))
            except KlingError as error:
                return _Answer(record, why_not=hidden(record, error.what))

    return list(await asyncio.gather(*map(one, ready)))


def _settle(session: Session, answer: _Answer) -> Check:
    """Put what became known on the books, if they are still as they were when it was asked."""
    before = answer.record
    if answer.seen is None:
        return _check(before, before, "not asked", answer.why_not)
    figures, words = _figures_of(before, answer.seen.snapshot)
    if figures is None:
        return _check(before, before, "open", words)
    with session.ledger().writing() as transaction:
        now = transaction.get(before.id)
        if now is None or now != before:
            return _check(before, now or before, "not asked", "it changed meanwhile; ask again")
        was = before.settled_micros
        after = transaction.change(before, "reconciled", figures, was_settled_micros=was)
    if "://" in after.folder or Path(after.folder).is_dir():
        session.engine().settled(after)
    else:
        # Its folder is gone, and a sidecar alone would only bring it back.
        session.engine().peek(after)
    if after.billed_micros is None and after.reported_micros:
        return _check(before, after, "open", words)
    if before.settled_micros is None:
        return _check(before, after, "settled", words)
    same = before.settled_micros == after.settled_micros
    return _check(before, after, "confirmed" if same else "corrected", words)


def _figures_of(record: RunRecord, snapshot: Snapshot) -> tuple[dict[str, Any] | None, str]:
    """Say what a reading does to the books: fields, or None; and why, in words."""
    if snapshot.state not in _ENDS:
        return None, f"it is still {(not record.private and snapshot.word) or snapshot.state} there"
    changes = reported(snapshot)
    if changes:
        figure, currency = changes["reported_micros"], changes["currency"]
        changes["charged"] = "yes" if figure else "no"
        if figure and currency != "USD":
            # The same as last time needs no further event.
            known = (record.reported_micros, record.currency) == (figure, currency)
            words = f"it reports {in_currency(figure, currency)}, which no dollar sum can count"
            return None if known else changes, words
        return changes | {"settled_micros": figure, "reserved_micros": 0}, ""
    unknown = record.settled_micros is None and charged(record) == "unknown"
    without_clip = record.status is not RunStatus.SUCCEEDED and snapshot.state != "succeeded"
    if snapshot.charged == "no" and unknown and without_clip:
        words = "it ended without a clip, which this provider does not charge"
        return {"settled_micros": 0, "reserved_micros": 0, "charged": "no"}, words
    return None, "the provider states no figure"


def _check(before: RunRecord, after: RunRecord, outcome: Any, words: str = "") -> Check:
    return Check(
        run_id=before.id,
        provider=before.provider,
        provider_run_id=before.provider_run_id,
        outcome=outcome,
        words=words,
        was_micros=before.settled_micros,
        is_micros=after.settled_micros,
    )


# -- balances ----------------------------------------------------------------------------
def balances(session: Session, names: Sequence[str] = tuple(KEY_VARIABLES)) -> list[BalanceLine]:
    """Ask the providers what is left on the accounts of the present keys; free.

    Args:
        session: Whose keys and addresses are used.
        names: Which providers.

    Returns:
        One line for each provider with a key.
    """
    from kling_nb.network.client import with_transport

    lines: list[BalanceLine] = []
    for name in names:
        try:
            key = session.key(name)
            if key is None:
                continue
            access = Access(provider=session.adapter(name), key=key.secret, account=fingerprint(key))
            usd, words = with_transport(session.loop, partial(balance, access=access), 60), ""
        except KlingError as error:
            usd, words = None, error.what
        lines.append(BalanceLine(provider=name, usd=usd, words=words.rstrip(".")))
    return lines
