"""The looks of `%kling`: runs, money, keys, settings.

Invariants: looking asks no provider and changes nothing; play money never mixes with real money; what nobody
knows is a word; no key and no part of one is shown.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kling_nb.commands.answer import Answer, answer
from kling_nb.config.keys import KEY_VARIABLES
from kling_nb.config.settings import CAPS, OPTIONS, PREFIX
from kling_nb.errors import KlingError, one_line
from kling_nb.pricing.catalog import provider_label
from kling_nb.records.base import utc_now
from kling_nb.records.money import plain_usd, usd
from kling_nb.records.privacy import redacted, words_of
from kling_nb.records.run import RunRecord, charged
from kling_nb.views.tables import filled
from kling_nb.views.words import session_words, short, state_word, unread_words

if TYPE_CHECKING:
    from kling_nb.ledger.rows import Records
    from kling_nb.session.session import Session
    from kling_nb.views.tables import Part

__all__ = ["Held", "config", "keys", "listing", "newest", "status"]

Row = list[object]
# What a narrow page cuts off comes last.
_RUN_HEADS = ["run", "state", "prompt", "name", "cost", "age", "s", "model", "provider", "file"]
_RUN_ALIGN = "llelrrrllm"


# -- runs ------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class Held:
    """What this kernel knows of runs beyond their records.

    Args:
        names: Variables by run id.
        detached: Ids of runs on their way that this kernel stopped watching.
        turns: Which number in line a run has that this kernel is to send, by run id.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    detached: Collection[str] = ()
    turns: Mapping[str, int] = field(default_factory=dict)


def status(session: "Session", pending: "Records", last: Sequence[RunRecord], held: Held) -> Answer:
    """Show what is on its way, the last run, and the money.

    Args:
        session: Whose money is shown.
        pending: Runs on their way.
        last: The runs that this kernel asked for last.
        held: What this kernel holds of them.

    Returns:
        The answer; its value is plain data.
    """
    # A listing of runs needs no session.
    from kling_nb.spending.reconcile import session_money
    from kling_nb.spending.report import totals_data

    parts: list[Part] = [_run_table(pending, held) if pending else "Nothing is on its way."]
    parts += _unread(pending)
    if ended := [record for record in last if record.status.ended]:
        parts += ["Last:", _run_table(ended, held)]
    money = session_money(session)
    parts += [f"{session_words(totals).capitalize()}." for totals in money]
    value = {
        "pending": [_run_data(record, held) for record in pending],
        "money": [totals_data(t) for t in money],
    }
    return answer(parts, value=value)


def listing(found: "Records", held: Held, *, limit: int | None = None) -> Answer:
    """Show a table of runs.

    Args:
        found: Newest first, and one more than the limit if there are more.
        held: What this kernel holds of them.
        limit: Show so many.

    Returns:
        The answer; its value is plain data, a dict a run.
    """
    # Takes that were asked for together have one time.
    records = sorted(found[:limit], key=lambda record: (record.created_at, record.take), reverse=True)
    parts: list[Part] = [_run_table(records, held)] if records else []
    parts += _unread(found)
    if not parts:
        return answer(["There are no runs in the ledger yet."], value=[])
    if limit is not None and len(found) + len(found.unreadable) > limit:
        parts.append("There are older ones: `%kling list -n N` shows N of them.")
    return answer(parts, value=[_run_data(record, held) for record in records])


def newest(limit: int, *, receipts: bool) -> Answer:
    """List the newest runs where nothing runs: only the ledger is read.

    Args:
        limit: At most so many.
        receipts: Whether its value is the receipts.

    Returns:
        The answer; see `listing`.

    Raises:
        KlingError: A setting makes no sense, or the ledger cannot be read.
    """
    from kling_nb.config.loading import current_settings
    from kling_nb.ledger.listing import newest_runs

    found = newest_runs(current_settings({}, None).ledger, limit + 1)
    shown = listing(found, Held(), limit=limit)
    if not receipts:
        return shown
    from kling_nb.records.receipt import to_receipt

    return replace(shown, value=[*map(to_receipt, found[:limit])])


def _unread(records: "Records") -> list[str]:
    words = unread_words(len(records.unreadable))
    return [words] if words else []


def _run_table(records: Sequence[RunRecord], held: Held) -> tuple[list[str], list[Row], str]:
    now = utc_now()
    rows: list[Row] = [
        [
            record.id,
            _state(record, held),
            short(one_line(words_of(record)), 120),
            held.names.get(record.id, ""),
            cost_word(record),
            age(record.created_at, now),
            record.request.duration,
            record.model.removeprefix("kling-"),
            provider_label(record.provider),
            record.media.file if record.media else "",
        ]
        for record in records
    ]
    return filled(_RUN_HEADS, rows, _RUN_ALIGN, "name", "file")


def _state(record: RunRecord, held: Held) -> str:
    turn = held.turns.get(record.id)
    word = state_word(record, detached=record.id in held.detached, waiting=turn is not None)
    return word if turn is None else f"{word}, number {turn}"


def _run_data(record: RunRecord, held: Held) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": held.names.get(record.id),
        "status": record.status.value,
        "reason": record.reason,
        "charged": charged(record),
        "prompt": redacted(record).request.words,
        "private": record.private,
        "model": record.model,
        "provider": record.provider,
        "provider_run_id": record.provider_run_id,
        "duration_s": record.request.duration,
        "cost_usd": plain_usd(record.settled_micros),
        "play": record.play,
        "file": record.media.file if record.media else None,
        "created_at": record.created_at.isoformat(),
    }


def cost_word(record: RunRecord) -> str:
    """Say in a few letters what a run costs, as far as anybody knows.

    Args:
        record: The run.

    Returns:
        e.g. `$0.56`, `$0.56 reserved`, `unknown, $0.56 reserved` or `$0.56 play`.
    """
    held = f"{usd(record.reserved_micros)} reserved" if record.reserved_micros else ""
    if record.settled_micros is not None:
        word = usd(record.settled_micros)
    elif record.status.pending:
        word = held or "nothing reserved"
    elif charged(record) == "no":
        word = "$0.00"
    else:
        word = f"unknown, {held}" if held else "unknown"
    return f"{word} play" if record.play else word


def age(then: datetime, now: datetime) -> str:
    """Say how long ago something was, in one unit.

    Example:
        >>> from datetime import UTC, timedelta
        >>> moment = datetime(2026, 11, 21, tzinfo=UTC)
        >>> age(moment, moment + timedelta(minutes=90))
        '1 h'
    """
    seconds = max(0, int((now - then).total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


# -- what there is -----------------------------------------------------------------
def keys(session: "Session") -> Answer:
    """Show for which providers there is a key and where it comes from; never any part of it."""
    rows: list[Row] = []
    for name, variables in KEY_VARIABLES.items():
        try:
            key = session.key(name)
            found = ["not set", ""] if key is None else ["set", key.source]
        except KlingError as error:
            found = ["unusable", f"{error.what} {error.cure}"]
        rows.append([provider_label(name), *found, ", ".join(variables)])
    rows.append([provider_label("sandbox"), "needs none", "", ""])
    value = [dict(zip(("provider", "key", "source", "variables"), row, strict=True)) for row in rows]
    return answer(
        [(["provider", "key", "from", "variables, in the order they are read"], rows, "lllg")], value=value
    )


def config(session: "Session") -> Answer:
    """Show the settings as they are now, and where each comes from."""
    settings = session.settings()
    rows: list[Row] = []
    for name, option in OPTIONS.items():
        value = getattr(settings, option.name)
        if value is None:
            word = "kling_media beside the notebook" if name == "media" else "none"
        elif name in CAPS:
            word = usd(value)
        elif name == "ledger":
            word = _without_secrets(value)
        elif isinstance(value, tuple):
            word = ", ".join(value) or "none"
        else:
            word = (
                {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
            )
        rows.append([name, word, settings.sources.get(option.name, "default"), PREFIX + name.upper()])
    parts: list[Part] = [(["setting", "value", "from", "variable"], rows, "lgll"), *settings.notes]
    data = [dict(zip(("setting", "value", "source", "variable"), row, strict=True)) for row in rows]
    return answer([*parts, "Keys are not settings: `%kling keys`."], value=data)


def _without_secrets(where: str) -> str:
    """Give a database address without its password and its query, which may hold one too."""
    if "://" not in where:
        return where
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(where).set(query={}).render_as_string(hide_password=True)
    except ArgumentError:
        return "an address that cannot be read"
