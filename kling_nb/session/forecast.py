"""What a call would do and cost, also after other calls: dry runs, the form and the bill of a notebook.

Invariants: nothing is written; a take that an earlier call would make counts as made, and what that call
would reserve counts as reserved.
"""

from collections.abc import Sequence
from dataclasses import replace

from kling_nb.engine.reuse import Decision
from kling_nb.errors import BudgetError, KlingError, NotCachedError
from kling_nb.ledger.transaction import Transaction
from kling_nb.records.base import utc_now
from kling_nb.session.admission import Admission
from kling_nb.session.opening import look_many
from kling_nb.session.plan import Ask, Plan, Take, payloads

__all__ = ["forecast"]


def forecast(admission: Admission, before: Sequence[Plan]) -> Plan:
    """Say what a call would do and cost, if the calls of the plans before it came first.

    Args:
        admission: What the call works with.
        before: Plans of other calls, in order.

    Returns:
        The plan.
    """
    ask, play = admission.ask, admission.budget.play
    [found] = look_many([admission])
    ahead = sum(plan.estimate.reserve_micros * plan.new for plan in before if plan.play == play)
    unwatched = replace(admission, budget=replace(admission.budget, headless=True))

    def planned(transaction: Transaction) -> Plan:
        # Whoever makes the call sends an intent that another kernel left unsent, and pays for it.
        left = [admission.left_unsent(transaction, take) for take in found]
        takes = _after(before, ask, admission.provider, found, [record is not None for record in left])
        # Whoever takes it over releases what it reserves.
        others = ahead - sum(record.reserved_micros for record in left if record)
        amounts = [admission.price.reserve_micros] * sum(take.word == "new" for take in takes)
        return Plan(
            ask=ask,
            provider=admission.provider,
            model=admission.model.id,
            takes=takes,
            estimate=admission.price,
            payloads=payloads(ask, admission.model, admission.provider, **admission.who),
            totals=admission.budget.totals(transaction),
            obstacle=_obstacle(admission, transaction, amounts, others),
            unwatched=_obstacle(unwatched, transaction, amounts, others),
        )

    return admission.ledger.read(planned)


def _obstacle(
    admission: Admission, transaction: Transaction, amounts: Sequence[int], ahead_micros: int
) -> KlingError | None:
    """Say what would refuse new runs their money."""
    try:
        if amounts:
            admission.afford(transaction, amounts, utc_now(), ahead_micros=ahead_micros)
    except BudgetError as error:
        return error
    return None


def _after(
    before: Sequence[Plan], ask: Ask, provider: str, takes: Sequence[Take], unsent: Sequence[bool]
) -> tuple[Take, ...]:
    """Decide about takes again, as if the calls planned before had made their new runs; see `decide`."""
    made = {
        take.request_key
        for plan in before
        if plan.provider == provider or (ask.named is None and (provider == "sandbox" or not plan.play))
        for take in plan.takes
        if take.word == "new"
    }

    def again(take: Take, *, unsent: bool) -> Take:
        if take.word != "new" and not unsent and not isinstance(take.error, NotCachedError):
            return take
        if take.request_key in made and not ask.no_cache:
            return replace(take, decision=Decision(act="reuse"), error=None)
        return replace(take, decision=replace(take.decision, act="new")) if take.decision else take

    return tuple(again(take, unsent=left) for take, left in zip(takes, unsent, strict=True))
