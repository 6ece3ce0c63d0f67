"""What a sweep would do and cost, before anything is sent.

Invariants: nothing is written and no provider is asked; what a provider cannot take is counted, named and
left out, and what is wrong in the input itself refuses all; play money and real money are never in one sum.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from statistics import median
from typing import TYPE_CHECKING

from kling_nb.errors import BudgetError, ConsentError, KlingError, UnpricedError, UnsupportedError, UsageError
from kling_nb.records.money import MICROS, usd
from kling_nb.records.money import micros as micros_of
from kling_nb.session.opening import look_many
from kling_nb.sweeps.grid import Expanded, Member
from kling_nb.sweeps.prompts import refused
from kling_nb.views.words import counted

if TYPE_CHECKING:
    from kling_nb.ledger.sweeps import Stored
    from kling_nb.session.admission import Admission
    from kling_nb.session.session import Session

__all__ = ["ASK_ABOVE_MICROS", "ASK_ABOVE_RUNS", "Line", "Quote", "Refusal", "check_consent", "make_quote"]

#: Above so many new runs, or so much money, somebody has to say yes.
ASK_ABOVE_RUNS = 20
ASK_ABOVE_MICROS = 10 * MICROS

_SINGLE = "`kling.submit(..., allow_unpriced=True)` buys a single clip"
_UNPRICED = f"its price is not known; {_SINGLE}"
_FAILED = "ended without a clip; `retry()` sends it again if it was not charged"


@dataclass(frozen=True, kw_only=True)
class Line:
    """The members of one provider.

    Args:
        provider: Where they go.
        reused: Clips that are here.
        pending: Runs on their way.
        refused: What cannot be sent.
        new: Runs that would be sent.
        micros: Micro-dollars that the new ones cost.

    Example:
        >>> Line(provider="runflow", new=2, micros=1_120_000).runs
        2
    """

    provider: str
    reused: int = 0
    pending: int = 0
    refused: int = 0
    new: int = 0
    micros: int = 0

    @property
    def runs(self) -> int:
        """How many members there are."""
        return self.reused + self.pending + self.refused + self.new


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Members that cannot be sent, for one reason.

    Args:
        provider: Where they would go.
        words: Why.
        rows: The rows that ask for them.
        members: How many they are.
    """

    provider: str
    words: str
    rows: tuple[int, ...]
    members: int


@dataclass(frozen=True, kw_only=True)
class Quote:
    """What a sweep would do and cost.

    Args:
        lines: By provider.
        refusals: What is left out, and why.
        duplicates: Rows that ask for what an earlier row asks for.
        left_micros: What the caps leave, in micro-dollars; None where there is no cap.
        fits: How many of the new runs the caps, and `max_cost`, have room for.
        max_micros: What its `max_cost` leaves, in micro-dollars; None without one.
        seconds: How long it takes by the runs before it; None where there were none.
        at_once: Runs in flight at once, per account.
        play: Whether it is play money.
        accounts: By provider, the account that pays.
        refused: By number, why a member is left out.
        todo: The members to open, in order: number and provider, which is empty for a clip that is here.
        prices: By number, what each new one costs in micro-dollars.
        consents: Whether there is somebody, or a declared budget, to say yes.
        watched: Whether somebody is there to be asked.
        replaced: How many runs the quote had whose place it took; 0 where it took none.

    Example:
        >>> Quote.__name__
        'Quote'
    """

    lines: tuple[Line, ...]
    refusals: tuple[Refusal, ...]
    duplicates: int
    left_micros: int | None
    fits: int
    max_micros: int | None
    seconds: float | None
    at_once: int
    play: bool
    accounts: dict[str, str]
    refused: dict[int, str]
    todo: tuple[tuple[int, str], ...]
    prices: dict[int, int]
    consents: bool
    watched: bool
    replaced: int = 0

    def __repr__(self) -> str:
        here = sum(line.reused for line in self.lines)
        return f"{counted(self.new, 'new run')} may cost {usd(self.micros)}; {here} here already"

    @property
    def new(self) -> int:
        """How many runs would be sent."""
        return sum(line.new for line in self.lines)

    @property
    def micros(self) -> int:
        """What they cost together, in micro-dollars."""
        return sum(line.micros for line in self.lines)

    @property
    def large(self) -> bool:
        """Whether it is so much that somebody has to say yes."""
        return self.new > ASK_ABOVE_RUNS or self.micros > ASK_ABOVE_MICROS

    def obstacle(self, *, agreed: bool) -> KlingError | None:
        """Say what stands in the way of sending it.

        Args:
            agreed: Whether somebody said yes to this quote.

        Returns:
            The error, or None where it may be sent.
        """
        if not self.new:
            return None
        runs = f"{counted(self.new, 'new run')} of this sweep"
        cost = f"{runs} may cost {usd(self.micros)}"
        fit = f"{self.fits} of them fit" if self.fits else "none of them fits"
        if self.max_micros is not None and self.micros > self.max_micros:
            return BudgetError(
                f"{cost}, and its max_cost leaves {usd(self.max_micros)}: {fit}.",
                cure="Nothing was sent. Ask for less, or raise max_cost.",
                level="cell",
                cap_micros=self.max_micros,
                asked_micros=self.micros,
            )
        if self.left_micros is not None and self.micros > self.left_micros:
            return BudgetError(
                f"{cost}, and the caps leave {usd(self.left_micros)}: {fit}.",
                cure="Nothing was sent. Ask for less, or raise the budget; `%kling budget` shows every cap.",
                asked_micros=self.micros,
            )
        declared = self.max_micros is not None
        if not self.consents and not declared:
            return ConsentError(
                f"{cost}; nobody is watching, and no budget was declared.",
                cure="Nothing was sent. Declare one: `max_cost=`, `kling.connect(budget=...)` or "
                "KLING_NB_BUDGET.",
                asked_micros=self.micros,
            )
        if self.large and self.watched and not agreed and not declared:
            return ConsentError(
                f"{cost}, which somebody has to agree to.",
                cure="Nothing was sent. Agree with `confirm=True`, or declare what it may cost: "
                f'`max_cost="{Decimal(self.micros) / MICROS:f}"` (`--max-cost` on the command line).',
                asked_micros=self.micros,
            )
        return None


def check_consent(stored: "Stored", quote: Quote, needed_micros: int) -> None:
    """Refuse what goes beyond the accounts and the money that were agreed to.

    Args:
        stored: The sweep, with what was agreed to.
        quote: What starting it now would do.
        needed_micros: What it comes to, with what it has spent and holds back.

    Raises:
        ConsentError: It does.
    """
    cure = "Nothing was sent. `start(confirm=True)` agrees to it as it is now."
    for provider, account in quote.accounts.items():
        if stored.accounts.get(provider) != account:
            raise ConsentError(
                f"The sweep {stored.name} was agreed to with another account at {provider}.",
                cure=cure,
            )
    if needed_micros > (stored.consent_micros or 0):
        raise ConsentError(
            f"The sweep {stored.name} may now cost {usd(needed_micros)}, and "
            f"{usd(stored.consent_micros)} was agreed to.",
            cure=cure,
            asked_micros=quote.micros,
        )


def make_quote(
    session: "Session",
    expanded: Expanded,
    *,
    max_cost: Decimal | None = None,
    spent_micros: int = 0,
    ended: Collection[tuple[int, str]] = (),
) -> Quote:
    """Say what a sweep would do and cost; asks no provider.

    Args:
        session: Whose money, keys and clips.
        expanded: The members.
        max_cost: Dollars that all of it may cost, where somebody said so.
        spent_micros: What it has spent and holds back, in micro-dollars.
        ended: Numbers and request keys of members that ended without a clip and are not to be sent again.

    Returns:
        The quote.

    Raises:
        KlingError: What refuses the whole: a provider without a key, a price that nobody knows.
    """
    admissions, unsupported = _admissions(session, expanded.members)
    found = dict(zip(admissions, look_many(list(admissions.values())), strict=True))
    counts: Counter[tuple[str, str]] = Counter()
    refusals = [(m.provider or "any", error.what, m) for m, error in unsupported]
    counts.update((provider, "refused") for provider, _, _ in refusals)
    prices: dict[int, int] = {}
    todo: list[tuple[int, str]] = []
    by_number = {member.number: member for member in expanded.members}
    for number, (take,) in found.items():
        admission, word = admissions[number], take.word
        failed = word == "new" and (number, by_number[number].request_key) in ended
        why = _FAILED if failed else take.error.what if take.error else ""
        if word == "new" and not why and admission.price.micros is None:
            why = _UNPRICED
        counts[admission.provider, "refused" if why else word] += 1
        if why:
            refusals.append((admission.provider, why, by_number[number]))
            continue
        if word == "new":
            prices[number] = admission.price.reserve_micros
        todo.append((number, "" if word == "reused" else admission.provider))
    if not found and unsupported:
        raise unsupported[0][1]
    if not todo and refusals and all(words == _UNPRICED for _, words, _ in refusals):
        bases = dict.fromkeys(admissions[number].price.basis for number in found)
        raise UnpricedError(
            f"Nobody knows what this costs ({'; '.join(bases)}).", cure=f"Nothing was sent. {_SINGLE}."
        )
    plays = {admission.budget.play for admission in admissions.values()}
    if len(plays) > 1:
        raise refused(
            "Real money and the sandbox's play money are never in one sum.", cure="Make two sweeps of it."
        )
    budget = next(iter(admissions.values())).budget
    left = session.ledger().read(budget.totals).left_micros
    most = None if max_cost is None else micros_of(max_cost) - spent_micros
    limits = [limit for limit in (left, most) if limit is not None]
    return Quote(
        lines=_lines(counts, prices, admissions),
        refusals=_grouped(refusals),
        duplicates=expanded.duplicates,
        left_micros=left,
        fits=_fits(prices.values(), min(limits)) if limits else len(prices),
        max_micros=most,
        seconds=_seconds(session, [admissions[number] for number in prices]),
        at_once=session.settings().max_in_flight,
        play=budget.play,
        accounts={one.provider: str(one.shared["account"]) for one in admissions.values()},
        refused={member.number: words for _, words, member in refusals},
        todo=tuple(sorted(todo, key=lambda one: (one[0] in prices, one[0]))),
        prices=prices,
        consents=budget.consents(max_cost),
        watched=not budget.headless,
    )


def _admissions(
    session: "Session", members: Sequence[Member]
) -> tuple[dict[int, "Admission"], list[tuple[Member, UnsupportedError]]]:
    context = session.context()
    made: dict[int, Admission] = {}
    unsupported: list[tuple[Member, UnsupportedError]] = []
    for member in members:
        try:
            made[member.number] = context.admission(member.ask())
        except UnsupportedError as error:
            unsupported.append((member, error))
        except UsageError as error:
            cure = error.cure.removeprefix("Nothing was sent.").strip()
            raise refused(error.what, member.row, cure) from None
    return made, unsupported


def _lines(
    counts: Counter[tuple[str, str]], prices: dict[int, int], admissions: dict[int, "Admission"]
) -> tuple[Line, ...]:
    money: Counter[str] = Counter()
    for number, price in prices.items():
        money[admissions[number].provider] += price
    return tuple(
        Line(
            provider=provider,
            micros=money[provider],
            **{word: counts[provider, word] for word in ("reused", "pending", "refused", "new")},
        )
        for provider in dict.fromkeys(provider for provider, _ in counts)
    )


def _grouped(refusals: Sequence[tuple[str, str, Member]]) -> tuple[Refusal, ...]:
    groups: dict[tuple[str, str], list[Member]] = {}
    for provider, words, member in refusals:
        groups.setdefault((provider, words), []).append(member)
    return tuple(
        Refusal(
            provider=provider,
            words=words,
            rows=tuple(sorted({member.row for member in members})),
            members=len(members),
        )
        for (provider, words), members in groups.items()
    )


def _fits(prices: Iterable[int], limit: int) -> int:
    count = 0
    for price in prices:
        limit -= price
        if limit < 0:
            break
        count += 1
    return count


def _seconds(session: "Session", new: Sequence["Admission"]) -> float | None:
    """Say how long the new runs take: the accounts side by side, each as many at once as may be."""
    kinds = Counter((one.provider, one.model.id, one.ask.request.duration) for one in new)
    by_provider: Counter[str] = Counter()
    for (provider, model, duration), count in kinds.items():
        waits = session.ledger().waits(provider, model, duration)
        if not waits:
            return None
        by_provider[provider] += round(count * median(waits) * 1000)
    # One place is left to single runs.
    at_once = max(1, session.settings().max_in_flight - 1)
    return max(by_provider.values()) / 1000 / at_once if by_provider else None
