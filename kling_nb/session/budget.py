"""What may be spent: the caps of a cell, a session, a project, a user and a team, and who consented.

Invariants: the look at the caps and the reservation that rests on it happen in one write transaction of the
ledger; every cap must hold, so the tightest wins, and the refusal names it and the sum that did not fit; play
money has the same caps on an account of its own; days are UTC, and a run counts on the day it was asked for.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_FLOOR, Decimal
from typing import Any

from kling_nb.config.settings import Settings
from kling_nb.errors import BudgetError, ConsentError, UsageError, one_line
from kling_nb.ledger.transaction import Transaction
from kling_nb.records.base import utc_now
from kling_nb.records.money import MICROS, Cap, Level, Totals, usd, usd_of

__all__ = ["LEVELS", "Budget", "named_session", "tightest"]

#: The levels beyond the cell, each with the setting that caps it.
LEVELS: dict[Level, str] = {
    "session": "budget",
    "project_daily": "project_daily",
    "user_daily": "user_daily",
    "user_total": "user_total",
    "team_daily": "team_daily",
    "team_total": "team_total",
}

_LONGEST_NAME = 60


def named_session(name: str, *, user: str, project: str) -> str:
    """Give the id of a session that has a name, so that another kernel that names it joins it.

    Args:
        name: At most 60 characters on one line; case and spaces around it do not matter.
        user: Whose it is: two users never share a session.
        project: What it is for: two projects never share one.

    Returns:
        The same id for the same three.

    Raises:
        UsageError: This is no name.

    Example:
        >>> named_session("Pilot", user="ada", project="vineyard")
        'n-pilot-3a3e86ba8bc9'
    """
    plain = one_line(name).casefold()
    if not plain or len(plain) > _LONGEST_NAME or not name.strip().isprintable():
        raise UsageError(
            "The name of a session is one line of 1 to 60 characters.",
            cure="E.g. `%kling budget --session pilot`.",
        )
    digest = hashlib.sha256(json.dumps([plain, user, project]).encode()).hexdigest()[:12]
    readable = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:24].strip("-")
    return f"n-{readable}-{digest}" if readable else f"n-{digest}"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What may be spent, and who says so.

    Args:
        session_id: Whose money is counted.
        cap_micros: The session's cap.
        declared: Whether a person declared a budget (the default cap is a cap, not consent).
        yes: Consent given by `KLING_NB_YES`.
        headless: Whether nobody is there to see it.
        play: Whether it is play money.
        project: Whose daily cap counts.
        user: Whose daily and total caps count.
        project_daily_micros: Cap of the project for a day (UTC), or None.
        user_daily_micros: Cap of the user for a day (UTC), or None.
        user_total_micros: Cap of the user for ever, or None.
        team_daily_micros: Cap of all users of the ledger for a day (UTC), or None.
        team_total_micros: Cap of all users of the ledger for ever, or None.
    """

    session_id: str
    cap_micros: int
    declared: bool
    yes: bool
    headless: bool
    play: bool
    project: str = ""
    user: str = ""
    project_daily_micros: int | None = None
    user_daily_micros: int | None = None
    user_total_micros: int | None = None
    team_daily_micros: int | None = None
    team_total_micros: int | None = None

    @classmethod
    def of(cls, settings: Settings, *, session_id: str, headless: bool, play: bool) -> "Budget":
        """Make the budget that the settings allow."""
        return cls(
            session_id=session_id,
            cap_micros=settings.budget_micros,
            declared=settings.budget_declared,
            yes=settings.yes,
            headless=headless,
            play=play,
            project=settings.project,
            user=settings.user,
            project_daily_micros=settings.project_daily_micros,
            user_daily_micros=settings.user_daily_micros,
            user_total_micros=settings.user_total_micros,
            team_daily_micros=settings.team_daily_micros,
            team_total_micros=settings.team_total_micros,
        )

    def caps(
        self, transaction: Transaction, *, unlimited: bool = False, now: datetime | None = None
    ) -> list[Cap]:
        """Give every cap beyond the cell's, and what counts against it.

        Args:
            transaction: Of the ledger.
            unlimited: Whether levels without a cap belong to it; a team without one is none.
            now: Whose day (UTC) counts; the present one unless given.

        Returns:
            The session first, then as in `LEVELS`.
        """
        today = (now or utc_now()).replace(hour=0, minute=0, second=0, microsecond=0)
        rows: list[tuple[Level, str, int | None, dict[str, Any]]] = [
            ("session", self.session_id, self.cap_micros, {"session_id": self.session_id}),
            (
                "project_daily",
                self.project,
                self.project_daily_micros,
                {"project": self.project, "since": today},
            ),
            ("user_daily", self.user, self.user_daily_micros, {"user": self.user, "since": today}),
            ("user_total", self.user, self.user_total_micros, {"user": self.user}),
            ("team_daily", "", self.team_daily_micros, {"since": today}),
            ("team_total", "", self.team_total_micros, {}),
        ]
        caps = []
        for level, whose, limit, counted in rows:
            if limit is None and not (unlimited and whose):
                continue
            sums = transaction.sums(play=self.play, **counted)
            caps.append(
                Cap(
                    level=level,
                    whose=whose,
                    cap_micros=limit,
                    settled_micros=sums.settled_micros,
                    reserved_micros=sums.reserved_micros,
                    unknown=sums.unknown,
                    since=counted.get("since"),
                )
            )
        return caps

    def totals(self, transaction: Transaction) -> Totals:
        """Give the session's money, with the cap that leaves least."""
        caps = self.caps(transaction)
        session = caps[0]
        return Totals(
            settled_micros=session.settled_micros,
            reserved_micros=session.reserved_micros,
            unknown=session.unknown,
            cap_micros=session.cap_micros,
            play=self.play,
            tightest=tightest(caps),
        )

    def reserve(
        self,
        transaction: Transaction,
        amounts: Sequence[int],
        *,
        max_cost: Decimal | None = None,
        no_cache: bool = False,
        now: datetime | None = None,
        doubt: str = "",
        ahead_micros: int = 0,
    ) -> None:
        """Refuse what does not fit; to be called in the transaction that inserts the runs.

        Args:
            transaction: The write transaction.
            amounts: What each new run of the cell would hold back, in micro-dollars.
            max_cost: Dollars that the whole cell may hold back.
            no_cache: Whether the cell buys again what is here.
            now: When the new runs are asked for, as their records say; the present unless given.
            doubt: What is suspicious about the price, if anything is.
            ahead_micros: What would be reserved before them, where this is only a plan.

        Raises:
            BudgetError: A cap does not hold it; the message shows the sum.
            ConsentError: A headless run at a real provider without budget or consent.
        """
        if not amounts:
            return
        need = sum(amounts)
        if doubt:
            doubt = f" The price is suspicious: {doubt}."
        own = " If that bill is wrong, give the price: `--price USD_PER_S`." if doubt else ""
        self._check_consent(need, max_cost=max_cost, no_cache=no_cache)
        each = _sum_of(amounts)
        if max_cost is not None and Decimal(need) > max_cost * MICROS:
            raise BudgetError(
                f"This cell may cost {each}, more than its --max-cost of {usd_of(max_cost)}.{doubt}",
                cure=f"Nothing was sent. Ask for less, or raise --max-cost.{own}",
                level="cell",
                cap_micros=int((max_cost * MICROS).to_integral_value(ROUND_FLOOR)),
                spent_micros=0,
                reserved_micros=0,
                asked_micros=need,
            )
        # What comes first counts against every cap alike, so the tightest stays the tightest.
        cap = tightest(self.caps(transaction, now=now))
        cap = cap.model_copy(update={"reserved_micros": cap.reserved_micros + ahead_micros})
        if cap.left_micros is not None and need > cap.left_micros:
            raise self._refusal(cap, each, need, doubt, own)

    def consents(self, max_cost: Decimal | None = None) -> bool:
        """Whether somebody watches, declared a budget or said yes, so that money may be spent at all."""
        return not self.headless or self.play or self.yes or self.declared or max_cost is not None

    def _check_consent(self, need: int, *, max_cost: Decimal | None, no_cache: bool) -> None:
        if not self.headless or self.play or self.yes:
            return
        if not self.consents(max_cost):
            raise ConsentError(
                "This runs without anybody watching, at a real provider, and no budget was declared.",
                cure="Nothing was sent. Declare one by `kling.connect(budget=5)`, KLING_NB_BUDGET or "
                "`--max-cost`, or set KLING_NB_YES=1 to consent.",
                asked_micros=need,
            )
        if no_cache:
            raise ConsentError(
                "`--no-cache` would buy the same clip again on every pass of a headless notebook.",
                cure="Nothing was sent. Set KLING_NB_YES=1 if that is meant.",
                asked_micros=need,
            )

    def _refusal(self, cap: Cap, each: str, need: int, doubt: str, own: str) -> BudgetError:
        words, cure = _WORDS[cap.level]
        kind = words.format("play budget" if self.play else "budget", cap.whose)
        left = cap.left_micros or 0
        rest = f"{usd(left)} is left" if left >= 0 else f"it is over by {usd(-left)}"
        unknown = f" ({cap.unknown} of unknown charge)" if cap.unknown else ""
        return BudgetError(
            f"{each} does not fit: {usd(cap.settled_micros)} spent + "
            f"{usd(cap.reserved_micros)} reserved{unknown} of a {kind} of {usd(cap.cap_micros)}, so {rest}."
            + doubt,
            cure=f"Nothing was sent. Ask for less, or raise {cure}. `%kling budget` shows every cap.{own}",
            level=cap.level,
            cap_micros=cap.cap_micros,
            spent_micros=cap.settled_micros,
            reserved_micros=cap.reserved_micros,
            asked_micros=need,
        )


_WORDS: dict[Level, tuple[str, str]] = {
    "session": ("session {}", "the budget (`%config KlingMagics.budget`)"),
    "project_daily": (
        "daily {} of project {}",
        "KLING_NB_PROJECT_DAILY, or wait: its day ends at 00:00 UTC",
    ),
    "user_daily": ("daily {} of user {}", "KLING_NB_USER_DAILY, or wait: its day ends at 00:00 UTC"),
    "user_total": ("total {} of user {}", "KLING_NB_USER_TOTAL"),
    "team_daily": ("daily {} of the team", "KLING_NB_TEAM_DAILY, or wait: its day ends at 00:00 UTC"),
    "team_total": ("total {} of the team", "KLING_NB_TEAM_TOTAL"),
}


def tightest(caps: Sequence[Cap]) -> Cap:
    """Give the cap that leaves least; of equal ones the nearest to the cell."""
    limited = [cap for cap in caps if cap.left_micros is not None]
    return min(limited or caps[:1], key=lambda cap: cap.left_micros or 0)


def _sum_of(amounts: Sequence[int]) -> str:
    """Write a sum out, e.g. `3 x $0.336 = $1.008`."""
    total = usd(sum(amounts))
    if len(amounts) == 1:
        return total
    if len(set(amounts)) == 1:
        return f"{len(amounts)} x {usd(amounts[0])} = {total}"
    return f"{' + '.join(usd(amount) for amount in amounts)} = {total}"
