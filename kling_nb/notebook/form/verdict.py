"""What a form says about what it holds: the words beside its fields, and what its buttons would do.

Invariants: nothing is sent and nothing is kept; the price is that of the very call the button would make,
or it is called unknown; a button that does nothing says beside it why, and what helps.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kling_nb.commands.dry_run import payload_blocks
from kling_nb.engine.reuse import Decision
from kling_nb.errors import KlingError, UnpricedError
from kling_nb.notebook.form.cell_text import as_cell
from kling_nb.notebook.form.fields import Reading, fields_of, inputs_of, read
from kling_nb.pricing.catalog import Model, find_model, provider_label
from kling_nb.pricing.estimate import price_words
from kling_nb.providers import PROVIDERS
from kling_nb.records.money import per_second, usd
from kling_nb.records.request import TextToVideo, request_key
from kling_nb.records.run import RunRecord, RunStatus
from kling_nb.session.plan import Ask, Plan, Take, payloads
from kling_nb.views.words import session_words

if TYPE_CHECKING:
    from kling_nb.session.session import Session

__all__ = ["ANOTHER", "NOT_YET", "RUNNING", "SHOW", "Press", "Verdict", "assess", "counted", "offers"]

ANOTHER, RUNNING, SHOW = "Another take", "Running…", "Show again"
_TAKES_LOOKED_AT = 100
#: How the words for what is only not filled in yet begin.
NOT_YET = ("is missing", "must not be empty")


@dataclass(frozen=True, kw_only=True)
class Press:
    """What one button would do.

    Args:
        verb: What it does.
        price: What that costs; empty where nothing is sent.
        ask: The call it opens; None where something stands in the way.
        holds_micros: What would be reserved for it, in micro-dollars; 0 where nothing is sent.

    Example:
        >>> Press(verb="Generate", price="$0.56").words
        'Generate - $0.56'
    """

    verb: str = "Generate"
    price: str = ""
    ask: Ask | None = None
    holds_micros: int = 0

    @property
    def words(self) -> str:
        """Verb and price as one text."""
        return " - ".join(part for part in (self.verb, self.price) if part)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a form says.

    Args:
        press: What its button would do.
        also: What the button beside it would do, where there is one.
        reading: What the form holds, read; its problems include what the model and its providers refuse.
        hint: What stands in the way and what helps, or what else is to be known before a press.
        words: The basis of the price and the session's money.
        where: The provider it would go to.
        set_up: The provider that the settings name.
        counts: By the name of an input, how much of it is used.
        takes: What is known of takes of this request; empty for none.
        next_take: The first take that nobody asked for yet.
        unpriced: Whether an unknown price stands in the way, or was allowed.
        blocks: Titled payloads.
        cell: The same call as a cell, or why there is none.
        plan: What would be done, where that is known.
    """

    press: Press = field(default_factory=Press)
    also: Press | None = None
    reading: Reading = field(default_factory=Reading)
    hint: str = ""
    words: tuple[str, ...] = ()
    where: str = ""
    set_up: str = ""
    counts: Mapping[str, str] = field(default_factory=dict)
    takes: str = ""
    next_take: int | None = None
    unpriced: bool = False
    blocks: Sequence[tuple[str, str]] = ()
    cell: str = ""
    plan: Plan | None = None

    @property
    def button(self) -> str:
        """What stands on the button."""
        return self.press.words

    @property
    def ready(self) -> bool:
        """Whether the button does anything."""
        return self.press.ask is not None

    @property
    def another(self) -> Press | None:
        """The button that makes another take of what was made, where there is one."""
        return next((press for press in (self.press, self.also) if press and press.verb == ANOTHER), None)


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
        return _blocked(Verdict(reading=reading), error)
    beyond = {**reading.problems, **_beyond(model, reading.fields)}
    if values.get("storyboard") and (seconds := beyond.pop("duration", None)):
        beyond.setdefault("shots", f"the seconds of all shots {seconds}")
    reading = replace(reading, problems=beyond, ask=None if beyond else reading.ask)
    made = Verdict(reading=reading, counts=counted(values, model), set_up=settings.provider)
    if reading.ask is None:
        return _incomplete(session, made, values)
    ask = reading.ask
    named = "sandbox" if ask.provider == "sandbox" or settings.provider == "sandbox" else ""
    made = replace(made, cell=_cell(ask), blocks=payload_blocks(payloads(ask, model, named)))
    made = _with_takes(session, made, ask, model)
    try:
        plan = session.plan(ask)
    except KlingError as error:
        return _blocked(made, error)
    made = _planned(made, plan)
    if plan.new or made.next_take is None or made.press.ask is None:
        return made
    return _with_another(session, made, ask, made.next_take)


# -- the buttons --------------------------------------------------------------------
def _incomplete(session: "Session", made: Verdict, values: Mapping[str, Any]) -> Verdict:
    """Say what is wrong; where it is only the prompt that is not there yet, the price is known already."""
    problems = made.reading.problems
    where, words = next(iter(problems.items()))
    if any(not said.startswith(NOT_YET) for said in problems.values()):
        return replace(made, hint=f"{_place(where)}{words}.")
    shots = [{**shot, "prompt": shot.get("prompt") or "a"} for shot in values.get("shots") or ()]
    stand_in = read({**values, "prompt": "a", "shots": shots}).ask
    if stand_in is not None:
        with contextlib.suppress(KlingError):
            plan = session.plan(stand_in)
            new = [replace(take, decision=Decision(act="new"), error=None) for take in plan.takes]
            made = _planned(made, replace(plan, takes=tuple(new)))
    hint = "Write what happens in the clip." if where == "prompt" else "Write what happens in each shot."
    return replace(made, press=replace(made.press, ask=None), hint=hint, unpriced=False, blocks=())


def _with_another(session: "Session", made: Verdict, ask: Ask, first: int) -> Verdict:
    """Offer further takes of what is here or on its way; what shows it stands beside."""
    further = replace(ask, takes=tuple(range(first, first + len(ask.takes))))
    try:
        other = _planned(made, session.plan(further))
    except KlingError as error:
        other = _blocked(made, error)
    verb = ANOTHER if len(ask.takes) == 1 else f"{len(ask.takes)} more takes"
    another = replace(other.press, verb=verb)
    if made.press.verb == RUNNING:
        return replace(made, also=another)
    return replace(other, press=another, also=made.press, plan=other.plan or made.plan)


def _planned(made: Verdict, plan: Plan) -> Verdict:
    made = replace(made, plan=plan, blocks=payload_blocks(plan.payloads), where=_where(plan, made.set_up))
    left = plan.unsent
    error = next((take.error for take in plan.takes if take.error is not None), plan.obstacle)
    plan = _without(left, plan)
    money = () if plan.totals is None else (f"{session_words(plan.totals).capitalize()}.",)
    unknown = plan.estimate.micros is None and plan.new > 0
    hint = ""
    if unknown:
        reserved = usd(plan.estimate.reserve_micros * plan.new)
        hint = f"Nobody knows the price; **{reserved}** would be reserved."
    due = sum(record.reserved_micros for record in left)
    press = Press(
        verb=_verb(plan),
        price=_price(plan) if plan.new else "",
        ask=plan.ask,
        holds_micros=plan.estimate.reserve_micros * plan.new + due,
    )
    if left:
        ids = ", ".join(record.id for record in left)
        hint = (
            f"Run {ids} was written down by an earlier session and never sent: **{usd(due)}** for it. {hint}"
        )
        also = f", and {press.words.lower()}" if plan.new else ""
        press = replace(press, verb="Send what was left unsent", price=f"{usd(due)}{also}")
    made = replace(made, press=press, hint=hint.strip(), words=(_sum(plan), *money), unpriced=unknown)
    return made if error is None else _blocked(made, error)


def _without(left: Sequence[RunRecord], plan: Plan) -> Plan:
    """Count what is new of a call beside what an earlier session left unsent, which has a sum of its own."""

    def beside(take: Take) -> Take:
        if take.decision is None or take.decision.record not in left:
            return take
        return replace(take, decision=replace(take.decision, act="attach"))

    return replace(plan, takes=tuple(map(beside, plan.takes)))


def _verb(plan: Plan) -> str:
    if not plan.new:
        return RUNNING if any(take.word == "pending" for take in plan.takes) else SHOW
    if len(plan.takes) == 1:
        return "Generate"
    return f"Generate {plan.new}" + (f" of {len(plan.takes)}" if plan.new < len(plan.takes) else "")


def _price(plan: Plan) -> str:
    return "price unknown" if plan.micros is None else usd(plan.micros)


def _where(plan: Plan, set_up: str) -> str:
    by_itself = plan.play and "sandbox" not in {plan.ask.provider, set_up}
    return "Sandbox (no key found)" if by_itself else provider_label(plan.provider)


def _sum(plan: Plan) -> str:
    known = plan.estimate.micros is not None and plan.new > 1
    sum_of = f"{plan.new} x {usd(plan.estimate.micros)} = **{usd(plan.micros)}**. " if known else ""
    where = f"{find_model(plan.model).label} at {provider_label(plan.provider)}"
    return f"{sum_of}{where}: {plan.estimate.basis or 'price unknown'}."


def _blocked(made: Verdict, error: KlingError) -> Verdict:
    hint = f"**{error.what}** {error.cure}".strip()
    if "--retry" in error.cure or "--no-cache" in error.cure:
        hint += " `--retry` and `--no-cache` are boxes to tick under More."
    unpriced = made.unpriced or isinstance(error, UnpricedError)
    verb = "Generate" if made.press.verb in {RUNNING, SHOW} else made.press.verb
    press = replace(made.press, verb=verb, ask=None, holds_micros=0)
    return replace(made, press=press, hint=hint, unpriced=unpriced)


def _place(where: str) -> str:
    name, _, rest = where.partition(".")
    number, _, column = rest.partition(".")
    if number:
        return f"Shot {number}, {column.replace('_', ' ')}: "
    label = next((of.label for of in inputs_of() if of.name == name), "")
    return f"{label}: " if label and name != "shots" else ""


# -- limits --------------------------------------------------------------------------
def _beyond(model: Model, given: Mapping[str, Any]) -> dict[str, str]:
    """Say what the catalog's limits of this model refuse; they may be tighter than the request's own."""
    found: dict[str, str] = {}
    shots = given.get("shots") or ()
    low, high = model.durations_s
    seconds = [row.get("duration") for row in shots]
    total = sum(seconds) if shots and all(isinstance(s, int) for s in seconds) else given.get("duration")
    if isinstance(total, int) and not low <= total <= high:
        whole = f"shots add up to {total} s; " if shots else f"{total} s; "
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
        '9 of 2,500'
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
    return f"{len(text) if isinstance(text, str) else 0:,} of {most:,}"


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
        Provider, price silent, price with sound, shortest shot, cancel, key, and where the prices are from.
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
                *(per_second(price.usd_per_s) if price else "unknown" for price in prices),
                f"{adapter.min_shot_s} s",
                f"while {' or '.join(cancel)}" if cancel else "no",
                _key(session, provider),
                "; ".join(dict.fromkeys(price_words(price, today) for price in prices if price)),
            ]
        )
    return rows


def _key(session: "Session", provider: str) -> str:
    if provider == "sandbox":
        return "not needed"
    try:
        return "there is one" if session.key(provider) is not None else "none"
    except KlingError as error:
        return error.what


def _with_takes(session: "Session", made: Verdict, ask: Ask, model: Model) -> Verdict:
    """Say which takes of this request were asked for before, and which one is next."""
    keys = {request_key(ask.request, model.id, take): take for take in range(_TAKES_LOOKED_AT)}
    try:
        found = session.ledger().read(lambda transaction: transaction.find(list(keys)))
    except KlingError:
        return made
    if not found:
        return made
    asked = {keys[record.request_key] for record in found}
    upcoming = max(asked) + 1
    many = "take" if len(asked) == 1 else f"{len(asked)} takes, the last of them take"
    words = f"Asked for before: {many} {upcoming - 1}. The next one is take {upcoming}."
    return replace(made, takes=words, next_take=upcoming)


def _cell(ask: Ask) -> str:
    try:
        return as_cell(ask)
    except KlingError as error:
        return str(error)
