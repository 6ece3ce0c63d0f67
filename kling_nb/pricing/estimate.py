"""What a run should cost, and how anybody knows.

Invariants: money is `Decimal` or whole micro-dollars, and a float is refused; an unknown price stays
unknown in every sum, and is never nought; what is reserved is rounded up, and is the highest that anybody
says; a basis always names its source and date, and the age of an old one.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_CEILING, Decimal
from itertools import islice

from kling_nb.errors import UnpricedError, UsageError
from kling_nb.pricing.catalog import Model, Price
from kling_nb.records.money import MICROS, Estimate, per_second, usd
from kling_nb.records.request import TextToVideo

__all__ = [
    "Bill",
    "LearnedPrice",
    "Quote",
    "age_words",
    "best_price",
    "doubt_of",
    "estimate",
    "learn_price",
    "price_words",
    "require_priced",
    "total",
]

_MAX_USD_PER_S = 1000
_LOOK_BACK = 3
_OLD_DAYS = 90
_JUMP = 3
_SUSPICIOUS = "; suspicious: "


@dataclass(frozen=True, kw_only=True)
class Bill:
    """One cost that a provider itself reported.

    Args:
        micros: The charge in micro-dollars.
        seconds: The seconds of video that were asked for, 1 or more.
        day: When.
        run_id: Of which run of ours.
    """

    micros: int
    seconds: int
    day: date
    run_id: str = ""

    @property
    def micros_per_s(self) -> int:
        """What a second cost in micro-dollars, rounded up."""
        return -(-self.micros // self.seconds)


@dataclass(frozen=True, kw_only=True)
class LearnedPrice:
    """A price read off a provider's own bills for one model, with or without sound.

    Args:
        usd_per_s: Dollars per second of video.
        as_of: The day of the newest bill.
        bills: How many bills it rests on.
        highest: The one of them that it is read off.
    """

    usd_per_s: Decimal
    as_of: date
    bills: int
    highest: Bill | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class Quote:
    """What several runs should cost together.

    Args:
        known_micros: The sum of the known ones, in micro-dollars.
        unknown: How many have no known price.
        reserve_micros: What is held back for all of them, in micro-dollars.

    Example:
        >>> str(Quote(known_micros=1120000, unknown=2, reserve_micros=2800000))
        '$1.12 + 2 unknown'
    """

    known_micros: int
    unknown: int
    reserve_micros: int

    @property
    def micros(self) -> int | None:
        """The whole sum in micro-dollars, or None while any part of it is unknown."""
        return None if self.unknown else self.known_micros

    def __str__(self) -> str:
        unknown = f"{self.unknown} unknown"
        if not self.unknown:
            return usd(self.known_micros)
        return f"{usd(self.known_micros)} + {unknown}" if self.known_micros else unknown


def age_words(as_of: date, today: date | None) -> str:
    """Say how old a price is, once it is old enough to matter.

    Args:
        as_of: The date of the price.
        today: The day it is looked at; None for a day that nobody knows.

    Returns:
        e.g. `7 months old`; empty for less than 90 days.

    Example:
        >>> age_words(date(2026, 4, 6), date(2026, 11, 21))
        '7 months old'
    """
    if today is None or (today - as_of).days < _OLD_DAYS:
        return ""
    months = (today.year - as_of.year) * 12 + today.month - as_of.month - (today.day < as_of.day)
    return f"{months} months old" if months < 24 else f"{months // 12} years old"


def price_words(price: Price | LearnedPrice, today: date | None = None) -> str:
    """Say whose price it is, of what day, and how old where it is old.

    Args:
        price: A stated or a learned price.
        today: The day it is looked at.

    Example:
        >>> price_words(LearnedPrice(usd_per_s=Decimal("0.168"), as_of=date(2026, 11, 20), bills=3))
        'from your last 3 runs, 2026-11-20'
    """
    parts = (_whose(price), price.as_of.isoformat(), age_words(price.as_of, today))
    return ", ".join(part for part in parts if part)


def _whose(price: Price | LearnedPrice) -> str:
    if isinstance(price, LearnedPrice):
        return "from your last run" if price.bills == 1 else f"from your last {price.bills} runs"
    if price.kind == "list":
        return price.source
    owner = "your own price" if price.kind == "own" else "the price of this project"
    return f"{owner} ({price.source})" if price.source else owner


def estimate(
    request: TextToVideo,
    model: Model,
    provider: str,
    *,
    price_usd_per_s: Decimal | None = None,
    learned: LearnedPrice | None = None,
    today: date | None = None,
) -> Estimate:
    """Say what one run should cost.

    A price learned from the provider's own bills outranks the list and a project's; the user's own, of
    the call or of a file, outranks the bills. Reserved is the highest of what counts. Where nobody
    knows, the charge is unknown, and what is reserved is the price the user gave, else the highest known
    price of the model. A learned price of more than three times the stated one is called suspicious.

    Args:
        request: What is asked.
        model: The model, with the prices that are in force.
        provider: `runflow`, `runcomfy` or `sandbox`.
        price_usd_per_s: The user's own price (`--price`), dollars per second, above 0 and at most 1000.
            Beside a known price it can only raise what is held back.
        learned: The price learned for this provider, model and sound.
        today: The day it is asked, so that an old price can say its age.

    Returns:
        The estimate.

    Raises:
        UnsupportedError: The provider does not offer the model.
        UsageError: The user's price makes no sense.

    Example:
        >>> from kling_nb.pricing.catalog import find_model
        >>> str(estimate(TextToVideo(prompt="fox"), find_model("pro"), "runflow").usd)
        '0.56'
    """
    offer = model.offer(provider)
    sound = "with sound" if request.audio else "silent"
    floor = _user_price(price_usd_per_s)
    stated = offer.price(audio=request.audio)
    best = best_price(None if floor else learned, stated)
    if best is not None:
        held, whose = best.usd_per_s, ""
        if stated is not None and stated.usd_per_s > held:
            held, whose = stated.usd_per_s, price_words(stated, today)
        if floor is not None and floor > held:
            held, whose = floor, "the price given with the call"
        basis = f"{per_second(best.usd_per_s)} {sound}, {price_words(best, today)}"
        return Estimate(
            micros=_up(best.usd_per_s * request.duration),
            reserve_micros=_up(held * request.duration),
            usd_per_s=f"{best.usd_per_s:f}",
            basis=(f"{basis}; reserved at {per_second(held)}, {whose}" if whose else basis)
            + _doubt(best, stated, model),
            source=_whose(best).removeprefix("from "),
            as_of=best.as_of.isoformat(),
        )
    held = floor or model.highest_usd_per_s()
    why = "the price given with the call" if floor else f"the highest known price of {model.label}"
    return Estimate(
        micros=None,
        reserve_micros=_up(held * request.duration),
        basis=f"price {sound} unknown; reserved at {per_second(held)}, {why}",
        source=offer.source,
        as_of=offer.as_of.isoformat(),
    )


def best_price(learned: LearnedPrice | None, stated: Price | None) -> Price | LearnedPrice | None:
    """Give the price that counts: the user's own, else the one of the bills, else the stated one."""
    return stated if stated is not None and stated.kind == "own" else learned or stated


def _doubt(best: Price | LearnedPrice, stated: Price | None, model: Model) -> str:
    bill = best.highest if isinstance(best, LearnedPrice) else None
    usual, whose = (stated.usd_per_s, "stated") if stated else (model.highest_usd_per_s(), "highest known")
    if bill is None or best.usd_per_s <= _JUMP * usual:
        return ""
    return (
        f"{_SUSPICIOUS}run {bill.run_id} was billed {usd(bill.micros)} for {bill.seconds} s, "
        f"{best.usd_per_s / usual:.0f} times the {whose} price of {per_second(usual)}"
    )


def doubt_of(estimate: Estimate) -> str:
    """Give what is suspicious about an estimate; empty where nothing is."""
    return estimate.basis.partition(_SUSPICIOUS)[2]


def require_priced(estimate: Estimate, *, allow_unpriced: bool = False) -> None:
    """Refuse a run that nobody knows the price of.

    Args:
        estimate: The estimate.
        allow_unpriced: Whether the user said that it may run all the same, or gave a price of his own.

    Raises:
        UnpricedError: It may not.
    """
    if estimate.micros is None and not allow_unpriced:
        raise UnpricedError(
            f"Nobody knows what this costs ({estimate.basis}).",
            cure="Go on with `--allow-unpriced`, or say the price with `--price USD_PER_S`.",
        )


def total(estimates: Iterable[Estimate]) -> Quote:
    """Add estimates up; unknown ones are counted, not guessed.

    Args:
        estimates: One a run.

    Returns:
        The sums.

    Raises:
        ValueError: They are in different currencies.

    Example:
        >>> str(total([Estimate(micros=560000, reserve_micros=560000)] * 2))
        '$1.12'
    """
    every = list(estimates)
    if len({one.currency for one in every}) > 1:
        raise ValueError("money of different currencies cannot be added")
    return Quote(
        known_micros=sum(one.micros for one in every if one.micros is not None),
        unknown=sum(one.micros is None for one in every),
        reserve_micros=sum(one.reserve_micros for one in every),
    )


def learn_price(bills: Iterable[Bill]) -> LearnedPrice | None:
    """Read a price off a provider's own bills.

    The highest of the last three counts: how the providers round seconds is not documented, and an
    estimate that is too low would let a cap be passed. A bill of nothing (a trial, a refund) teaches nothing.

    Args:
        bills: Of one provider and model, all with or all without sound, the newest first.

    Returns:
        The price, rounded up to a micro-dollar per second; None where there is nothing to learn from.

    Example:
        >>> learn_price([Bill(micros=560000, seconds=5, day=date(2026, 11, 20))]).usd_per_s
        Decimal('0.112')
    """
    latest = list(islice((bill for bill in bills if bill.micros > 0 and bill.seconds > 0), _LOOK_BACK))
    if not latest:
        return None
    highest = max(latest, key=lambda bill: bill.micros_per_s)
    return LearnedPrice(
        usd_per_s=(Decimal(highest.micros_per_s) / MICROS).normalize(),
        highest=highest,
        as_of=max(bill.day for bill in latest),
        bills=len(latest),
    )


def _user_price(price: Decimal | None) -> Decimal | None:
    if price is None:
        return None
    # Also without a type checker: a float here would reach the ledger as a wrong sum.
    if not isinstance(price, Decimal) or not price.is_finite() or not 0 < price <= _MAX_USD_PER_S:
        raise UsageError(
            "The price must be decimal dollars per second, above 0 and at most 1000.", cure="E.g. 0.168."
        )
    return price


def _up(amount: Decimal) -> int:
    return int((amount * MICROS).to_integral_value(rounding=ROUND_CEILING))
