"""What a form says about what it holds: the words beside its fields, and what its button would do.

Invariants: nothing is sent and nothing is kept; the price is that of the very call the button would make,
or it is called unknown; a blocked button says why and what helps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kling_nb.commands.dry_run import payload_blocks
from kling_nb.errors import BlockedError, BudgetError, KlingError, UnpricedError
from kling_nb.notebook.form.cell_text import as_cell
from kling_nb.notebook.form.fields import Reading, fields_of, read
from kling_nb.pricing.catalog import Model, find_model, provider_label
from kling_nb.pricing.estimate import price_words
from kling_nb.providers import PROVIDERS
from kling_nb.records.money import usd
from kling_nb.records.request import TextToVideo, request_key
from kling_nb.records.run import RunRecord, RunStatus
from kling_nb.session.plan import Ask, Plan, Take, payloads
from kling_nb.views.words import session_words, short

if TYPE_CHECKING:
    from kling_nb.session.session import Session

__all__ = ["Verdict", "assess", "counted", "offers"]

_LABEL_CHARS = 68
_TAKES_LOOKED_AT = 100


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a form says.

    Args:
        button: What stands on its button.
        ready: Whether the button does anything.
        reading: What the form holds, read; its problems include what the model and its providers refuse.
        words: Sentences below the button: basis, money, what stands in the way.
        counts: By the name of an input, how much of it is used.
        takes: What is known of takes of this request; empty for none.
        next_take: The first take that nobody asked for yet.
        holds_micros: What would be held back for it, in micro-dollars; 0 where nothing is sent.
        unpriced: Whether an unknown price stands in the way, or was allowed.
        blocks: Titled payloads.
        cell: The same call as a cell, or why there is none.
        plan: What would be done, where that is known.
    """

    button: str
    ready: bool = False
    reading: Reading = field(default_factory=Reading)
    words: tuple[str, ...] = ()
    counts: Mapping[str, str] = field(default_factory=dict)
    takes: str = ""
    next_take: int | None = None
    holds_micros: int = 0
    unpriced: bool = False
    blocks: Sequence[tuple[str, str]] = ()
    cell: str = ""
    plan: Plan | None = None


def assess(session: "Session", values: Mapping[str, Any]) -> Verdict:
    """Judge what a form holds.

    Args:
        session: Of this kernel: its settings, keys, ledger and folder.
        values: By the name of the input.

    Returns:
        The verdict; whatever is wrong is in its words, and nothing is raised for it.
    """
    reading = read(values)
    try:
        settings = session.settings()
        model = settings.priced_model(str(values.get("model") or ""))
    except KlingError as error:
        return _blocked(Verdict(button="", reading=reading), error)
    beyond = {**reading.problems, **_beyond(model, reading.fields)}
    if values.get("storyboard") and (seconds := beyond.pop("duration", None)):
        beyond.setdefault("shots", f"the seconds of all shots {seconds}")
    reading = replace(reading, problems=beyond, ask=None if beyond else reading.ask)
    made = Verdict(button="", reading=reading, counts=counted(values, model))
    if reading.ask is None:
        where, words = next(iter(beyond.items()))
        return replace(made, button=short(f"Blocked: {_place(where)}{words}", _LABEL_CHARS))
    ask = reading.ask
    named = "sandbox" if ask.provider == "sandbox" or settings.provider == "sandbox" else ""
    made = replace(made, cell=_cell(ask), blocks=payload_blocks(payloads(ask, model, named)))
    made = _with_takes(session, made, ask, model)
    try:
        return _planned(made, session.plan(ask))
    except KlingError as error:
        return _blocked(made, error)


# -- the button ---------------------------------------------------------------------
def _planned(made: Verdict, plan: Plan) -> Verdict:
    made = replace(made, plan=plan, blocks=payload_blocks(plan.payloads))
    left = plan.unsent
    error = next((take.error for take in plan.takes if take.error is not None), plan.obstacle)
    plan = _without(left, plan)
    money = () if plan.totals is None else (f"{session_words(plan.totals).capitalize()}.",)
    unknown = plan.estimate.micros is None and plan.new > 0
    held = usd(plan.estimate.reserve_micros * plan.new)
    facts = [_sum(plan)] if plan.new else ["Nothing would be sent, and it costs nothing."]
    if unknown:
        facts.append(f"Nobody knows the price; **{held}** would be held back.")
    made = replace(made, words=(*facts, *money), unpriced=unknown)
    if error is not None:
        return _blocked(made, error)
    due = sum(record.reserved_micros for record in left)
    made = replace(made, holds_micros=plan.estimate.reserve_micros * plan.new + due)
    if left:
        held = usd(due)
        ids = ", ".join(record.id for record in left)
        words = f"Run {ids} was written down by an earlier session and never sent: **{held}** for it."
        also = f" and {_button(plan).lower()}" if plan.new else ""
        made = replace(made, words=(words, *made.words))
        return replace(made, button=f"Send what was left unsent - {held}{also}", ready=True)
    return replace(made, button=_button(plan), ready=True)


def _without(left: Sequence[RunRecord], plan: Plan) -> Plan:
    """Count what is new of a call beside what an earlier session left unsent, which has a sum of its own."""

    def beside(take: Take) -> Take:
        if take.decision is None or take.decision.record not in left:
            return take
        return replace(take, decision=replace(take.decision, act="attach"))

    return replace(plan, takes=tuple(map(beside, plan.takes)))


def _button(plan: Plan) -> str:
    if not plan.new:
        waits = any(take.word == "pending" for take in plan.takes)
        return "Reattach - on its way" if waits else "Show - here already"
    several = len(plan.takes) > 1
    part = f" of {len(plan.takes)}" if plan.new < len(plan.takes) else ""
    many = f" {plan.new}{part}" if several else ""
    play = " play money" if plan.provider == "sandbox" and plan.micros is not None else ""
    price = "price unknown" if plan.micros is None else usd(plan.micros)
    return f"Generate{many} - {price}{play}"


def _sum(plan: Plan) -> str:
    known = plan.estimate.micros is not None and plan.new > 1
    sum_of = f"{plan.new} x {usd(plan.estimate.micros)} = **{usd(plan.micros)}**. " if known else ""
    where = f"{find_model(plan.model).label} at {provider_label(plan.provider)}"
    return f"{sum_of}{where}: {plan.estimate.basis or 'price unknown'}."


def _blocked(made: Verdict, error: KlingError) -> Verdict:
    unpriced = isinstance(error, UnpricedError)
    why = "price unknown" if unpriced else error.what
    if isinstance(error, BudgetError) and not unpriced:
        why = f"budget: {error.what.partition(': ')[0]}"
    if isinstance(error, BlockedError) and error.run_id:
        why = f"run {error.run_id}: {error.what}"
    said = [f"**{error.what}** {error.cure}".strip()]
    if "--retry" in error.cure or "--no-cache" in error.cure:
        said.append("`--retry` and `--no-cache` are boxes to tick under More.")
    return replace(
        made,
        button=short(f"Blocked: {why}", _LABEL_CHARS),
        ready=False,
        words=(*said, *made.words),
        unpriced=made.unpriced or unpriced,
    )


def _place(where: str) -> str:
    name, _, rest = where.partition(".")
    number, _, column = rest.partition(".")
    if number:
        return f"shot {number} {column.replace('_', ' ')} "
    return f"{name.replace('_', ' ')} " if name and name != "shots" else ""


# -- limits --------------------------------------------------------------------------
def _beyond(model: Model, given: Mapping[str, Any]) -> dict[str, str]:
    """Say what the catalog's limits of this model refuse; they may be tighter than the request's own."""
    found: dict[str, str] = {}
    shots = given.get("shots") or ()
    low, high = model.durations_s
    seconds = [row.get("duration") for row in shots]
    total = sum(seconds) if shots and all(isinstance(s, int) for s in seconds) else given.get("duration")
    if isinstance(total, int) and not low <= total <= high:
        whole = f"shots add up to {total} s; " if shots else ""
        found["shots" if shots else "duration"] = f"{whole}{model.label} makes {low} to {high} s"
    if len(shots) > model.max_shots:
        found["shots"] = f"{model.label} takes at most {model.max_shots}"
    for name, most in (("prompt", model.prompt_chars), ("negative_prompt", model.prompt_chars)):
        if len(given.get(name) or "") > most:
            found[name] = f"must have at most {most:,} characters"
    for number, row in enumerate(shots, 1):
        if len(row.get("prompt") or "") > model.shot_chars:
            found[f"shots.{number}.prompt"] = f"must have at most {model.shot_chars:,} characters"
    ratio = given.get("aspect_ratio")
    if ratio is not None and ratio not in model.aspect_ratios:
        found["aspect_ratio"] = f"{model.label} makes {', '.join(model.aspect_ratios)}"
    return found


def counted(values: Mapping[str, Any], model: Model) -> dict[str, str]:
    """Count what texts and storyboard use of their limits.

    Args:
        values: By the name of the input.
        model: Whose limits count.

    Returns:
        Words by the name of the input; `shots.2.prompt` for a shot's.

    Example:
        >>> counted({"prompt": "A red fox"}, find_model("pro"))["prompt"]
        '9 of 2,500 characters'
    """
    counts: dict[str, str] = {}
    for of in fields_of(TextToVideo):
        if of.kind == "text" and of.chars is not None:
            counts[of.name] = _characters(values.get(of.name), min(of.chars, model.prompt_chars))
    counts["beside"] = _characters(values.get("beside"), model.prompt_chars)
    rows = values.get("shots") or ()
    for number, row in enumerate(rows, 1):
        counts[f"shots.{number}.prompt"] = _characters(row.get("prompt"), model.shot_chars)
    seconds = [row.get("duration") for row in rows]
    total = f"{sum(seconds)} s" if all(isinstance(s, int) for s in seconds) else "unknown"
    low, high = model.durations_s
    counts["shots"] = (
        f"Total {total} of {low} to {high} s; {len(rows)} of {model.max_shots} shots. {_shortest(model)}"
    )
    return counts


def _characters(text: object, most: int) -> str:
    return f"{len(text) if isinstance(text, str) else 0:,} of {most:,} characters"


def _shortest(model: Model) -> str:
    known = [f"{PROVIDERS[n].min_shot_s} s at {provider_label(n)}" for n in model.providers if n in PROVIDERS]
    return f"Shortest shot: {', '.join(known)}."


# -- what there is ---------------------------------------------------------------------
def offers(session: "Session", name: str) -> list[list[str]]:
    """Say what each provider of a model can do: one row each, for a table.

    Args:
        session: For prices of the user's own and for keys; only whether there is one is told.
        name: The model, empty for the one in force.

    Returns:
        Provider, price silent, price with sound, shortest shot, cancel, key.
    """
    settings = session.settings()
    model = settings.priced_model(name)
    rows, today = [], session.today()
    for provider, offer in model.providers.items():
        adapter = PROVIDERS[provider]()
        prices = [offer.price(audio=audio) for audio in (False, True)]
        cancel = [s.value for s in (RunStatus.QUEUED, RunStatus.RUNNING) if adapter.can_cancel(s.value)]
        rows.append(
            [
                provider_label(provider),
                *(f"${p.usd_per_s:f}/s, {price_words(p, today)}" if p else "unknown" for p in prices),
                f"{adapter.min_shot_s} s",
                f"while {' or '.join(cancel)}" if cancel else "no",
                _key(session, provider),
            ]
        )
    return rows


def _key(session: "Session", provider: str) -> str:
    if provider == "sandbox":
        return "needs none: play money"
    try:
        return "there is one" if session.key(provider) is not None else "none"
    except KlingError as error:
        return error.what


def _with_takes(session: "Session", made: Verdict, ask: Ask, model: Model) -> Verdict:
    """Say which takes of this request were asked for before, and which one is next."""
    keys = {request_key(ask.request, model.id, take): take for take in range(_TAKES_LOOKED_AT)}
    try:
        with session.ledger().reading() as transaction:
            found = transaction.find(list(keys))
    except KlingError:
        return made
    if not found:
        return made
    states = {keys[r.request_key]: r.status.value for r in sorted(found, key=lambda r: r.created_at)}
    listed = ", ".join(f"take {take} {word}" for take, word in sorted(states.items()))
    upcoming = max(states) + 1
    return replace(made, takes=f"Made before: {listed}. The next one is take {upcoming}.", next_take=upcoming)


def _cell(ask: Ask) -> str:
    try:
        return as_cell(ask)
    except KlingError as error:
        return str(error)
