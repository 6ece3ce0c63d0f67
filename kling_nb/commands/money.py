"""`%kling budget`: every cap, what counts against it, where it was set, and which one leaves least.

Invariants: it makes no run and asks no provider; naming a session moves no run and no money: what was asked
for before stays where it was counted; play money has a table of its own.
"""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from kling_nb.commands.answer import Answer, answer
from kling_nb.commands.order import PENDING, CommandCall
from kling_nb.commands.syntax.values import wrong
from kling_nb.config.settings import PREFIX, Settings
from kling_nb.records.base import utc_now
from kling_nb.records.money import Cap, Level, plain_usd, usd
from kling_nb.session.budget import LEVELS, tightest
from kling_nb.views.tables import filled
from kling_nb.views.words import clock, there_are

if TYPE_CHECKING:
    from kling_nb.session.session import Session
    from kling_nb.views.tables import Part
from kling_nb.spending.reconcile import costs
from kling_nb.spending.sums import DIMENSIONS, read_day
from kling_nb.views.html import Html

__all__ = ["budget", "cost"]

_NAMES: dict[Level, str] = {
    "session": "session",
    "project_daily": "project, today",
    "user_daily": "user, today",
    "user_total": "user, total",
    "team_daily": "team, today",
    "team_total": "team, total",
}

_PROSE: dict[Level, str] = {
    "session": "session's",
    "project_daily": "project's daily",
    "user_daily": "user's daily",
    "user_total": "user's total",
    "team_daily": "team's daily",
    "team_total": "team's total",
}

_HEADS = ["budget of", "left", "cap", "spent", "reserved", "charge unknown", "whose", "from"]
_ALIGN = "lrrrrrlg"


def budget(call: CommandCall) -> Answer:
    """Show the caps; with `--session NAME` first join the session of that name.

    Args:
        call: The line.

    Returns:
        The answer; its value is plain data.

    Raises:
        UsageError: The name is none.
    """
    session = call.session
    lines = []
    if "--session" in call.flags:
        name = call.flags["--session"]
        if not name.strip():
            raise wrong("`%kling budget --session` needs a name.", "E.g. `%kling budget --session pilot`.")
        lines += _join(session, name)
    settings, now = session.settings(), utc_now()
    accounts = [(play, *session.caps(play=play)) for play in (False, True)]
    value: dict[str, Any] = {
        "session": {"id": session.id, "name": session.name, "since": None},
        "day_ends": _midnight(now).isoformat(),
        "declared": settings.budget_declared,
        "levels": [],
    }
    parts: list[Part] = []
    for play, caps, began in accounts:
        if play and not any(cap.settled_micros or cap.reserved_micros or cap.unknown for cap in caps):
            continue
        tight = tightest(caps)
        rows = [_row(cap, session, settings, tightest=cap is tight) for cap in caps]
        if play:
            parts.append("Play money, counted apart under the same caps:")
        else:
            parts += [*lines, _whose(session, began)]
            value["session"]["since"] = None if began is None else began.isoformat()
        parts += [filled(_HEADS, rows, _ALIGN, "charge unknown"), _tight_words(tight, play=play)]
        value["levels"] += [_data(cap, settings, tightest=cap is tight, play=play) for cap in caps]
    return answer([*parts, *_endings(settings, now), *settings.notes], value=value)


def _join(session: "Session", name: str) -> list[str]:
    """Name the session, and say what stays behind."""
    before = session.id
    session.join(name)
    if session.id == before:
        return []
    behind = [run.record for run in session.runs(statuses=PENDING) if run.record.session_id == before]
    lines = [f"From now on runs count under the session “{session.name}”."]
    if behind:
        held = sum(record.reserved_micros for record in behind if not record.play)
        lines.append(
            f"{there_are(len(behind), 'run')} still on the way and counted under "
            f"{before}, where **{usd(held)}** stays reserved for them."
        )
    return lines


def _whose(session: "Session", began: datetime | None) -> str:
    since = f"since {clock(began, date=True)}" if began is not None else "no run of it yet"
    if session.name is None:
        return f"This kernel's session, `{session.id}`, {since}; it ends with the kernel."
    return f"Session “{session.name}”, `{session.id}`, {since}; every kernel that names it shares it."


def _row(cap: Cap, session: "Session", settings: Settings, *, tightest: bool) -> list[object]:
    whose = (session.name or "this kernel's") if cap.level == "session" else cap.whose
    left = "no cap" if cap.left_micros is None else usd(cap.left_micros)
    return [
        _NAMES[cap.level],
        f"{left} (least)" if tightest else left,
        "none" if cap.cap_micros is None else usd(cap.cap_micros),
        usd(cap.settled_micros),
        usd(cap.reserved_micros),
        cap.unknown or "",
        whose,
        _source(cap.level, settings),
    ]


def _source(level: Level, settings: Settings) -> str:
    name = LEVELS[level]
    source = settings.sources.get(f"{name}_micros", "default")
    variable = PREFIX + name.upper()
    if source == "environment":
        return variable
    return {
        "user file": f"user file, {name}",
        "project": f"project file, {name}",
        "argument": f"%config or connect(), {name}",
    }.get(source, f"default; set {variable}")


def _data(cap: Cap, settings: Settings, *, tightest: bool, play: bool) -> dict[str, Any]:
    amounts = {
        "cap": cap.cap_micros,
        "spent": cap.settled_micros,
        "reserved": cap.reserved_micros,
        "left": cap.left_micros,
    }
    return {
        "level": cap.level,
        "whose": cap.whose,
        "play": play,
        **{f"{name}_usd": plain_usd(amount) for name, amount in amounts.items()},
        "unknown": cap.unknown,
        "since": None if cap.since is None else cap.since.isoformat(),
        "source": settings.sources.get(f"{LEVELS[cap.level]}_micros", "default"),
        "tightest": tightest,
    }


def _tight_words(cap: Cap, *, play: bool) -> str:
    left = cap.left_micros or 0
    money = " of play money" if play else ""
    if left < 0:
        return f"The {_PROSE[cap.level]} cap is **exceeded by {usd(-left)}**{money}: nothing new is sent."
    rest = "A cell's own `--max-cost` limits that cell as well."
    return f"The {_PROSE[cap.level]} cap leaves least: **{usd(left)}**{money}. {rest}"


def _endings(settings: Settings, now: datetime) -> list[str]:
    left = _midnight(now) - now
    hours, minutes = divmod(int(left.total_seconds()) // 60, 60)
    days = (
        f"Days are UTC: this one ends in {hours} h {minutes} min. A run counts on the day it was asked for."
    )
    if settings.budget_declared:
        return [days, "A budget is declared, so it also holds where nobody is watching."]
    if settings.yes:
        return [days, f"{PREFIX}YES consents to spending where nobody is watching, under these caps."]
    refused = "where nobody is watching, a paid run is refused"
    return [days, f"No budget is declared, and a default cap is no consent: {refused}."]


def _midnight(now: datetime) -> datetime:
    return now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def cost(call: CommandCall) -> Answer:
    """Show what was spent, and give the report.

    Args:
        call: The line, with the flags `--all`, `--by`, `--since`, `--until`, `--project` and `--reconcile`.

    Returns:
        The answer; its value is a `CostReport`.

    Raises:
        UsageError: A flag makes no sense.
    """
    flags = call.flags
    for name in ("--by", "--project"):
        if name in flags and not flags[name].strip():
            cure = f"It takes some of {', '.join(DIMENSIONS)}." if name == "--by" else "It takes a name."
            raise wrong(f"`%kling cost` needs something after {name}.", cure)
    report = costs(
        by=flags.get("--by"),
        everything="--all" in flags,
        since=read_day(flags["--since"], "--since") if "--since" in flags else None,
        until=read_day(flags["--until"], "--until") if "--until" in flags else None,
        project=flags.get("--project"),
        reconcile="--reconcile" in flags,
        session=call.session,
    )
    return Answer(html=Html(report._repr_html_()), text=repr(report), value=report)
