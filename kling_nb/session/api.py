"""The functions of `import kling_nb as kling`: one session for the process, the same engine as the magics.

Invariants: there is one session at a time (`connect` makes the next one; runs of the last one go on); a
function that can cost money says so in its first line.
"""

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from inspect import signature
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

from kling_nb.config.environment import Surroundings, script
from kling_nb.engine.run import Run, Video
from kling_nb.engine.runs import Runs
from kling_nb.errors import UsageError
from kling_nb.records.money import Estimate
from kling_nb.records.request import Shot, TextToVideo, make_request, names_checked, no_such_option
from kling_nb.records.run import RunStatus
from kling_nb.session.plan import Ask
from kling_nb.session.processes import until_accepted
from kling_nb.session.session import Session
from kling_nb.session.spend import Spend

__all__ = [
    "ask_for",
    "connect",
    "current",
    "estimate",
    "find",
    "generate",
    "last",
    "resume",
    "runs",
    "spend",
    "submit",
]

_LEAST_USD, _MAX_USD = Decimal("0.000001"), 1_000_000_000
_FIELDS = ("shots", "duration", "aspect_ratio", "audio", "negative_prompt", "cfg_scale", "shot_type")

_lock = threading.RLock()
_session: Session | None = None
_surroundings: Callable[[], Surroundings] | None = None
_submitted: list[Run] = []


def current() -> Session:
    """Give the session of this process, made on first use."""
    global _session  # noqa: PLW0603 - the one session of the process lives here
    with _lock:
        if _session is None:
            _session = Session(surroundings=_surroundings or script)
        if (read_overrides := getattr(_surroundings, "overrides", None)) is not None:
            _session.configure(read_overrides())  # a cap set by `%config` a line ago holds for this line too
        return _session


def surroundings_of_process() -> Callable[[], Surroundings] | None:
    """Give what tells where calls come from, if a notebook face has said so."""
    return _surroundings


def in_kernel() -> bool:
    """Say whether a notebook face has a kernel, and not a terminal."""
    return bool(getattr(_surroundings, "kernel", False))


def set_surroundings(tell: Callable[[], Surroundings] | None) -> None:
    """Let a notebook face tell where calls come from; None undoes it."""
    global _surroundings  # noqa: PLW0603 - see `current`
    with _lock:
        _surroundings = tell
        if _session is not None:
            _session.come_from(tell)


def await_at_end(runs: Sequence[Run]) -> None:
    """Have a headless cell wait for these runs at its end."""
    if _surroundings is not None:
        with _lock:
            _submitted.extend(runs)


def take_submitted() -> list[Run]:
    """Give the runs submitted through these functions since the last call: a headless cell waits for them."""
    with _lock:
        taken, _submitted[:] = list(_submitted), []
        return taken


def connect(
    *,
    provider: str | None = None,
    model: str | None = None,
    budget: Decimal | str | int | None = None,
    ledger: str | Path | None = None,
    media: str | Path | None = None,
    session: str | None = None,
    **settings: Any,
) -> Session:
    """Begin a new session with these settings; they outrank environment and files.

    Args:
        provider: `auto`, `runflow`, `runcomfy` or `sandbox`.
        model: A model or its alias.
        budget: Dollars this session may spend; declaring it is consent to spend up to it headless.
        ledger: Path or database address of the ledger.
        media: Folder for clips.
        session: A name under which the session goes on in other kernels, with what it has spent.
        **settings: Any other setting by its name, e.g. `max_in_flight=2`.

    Returns:
        The session.

    Raises:
        SettingsError: A setting is unknown or makes no sense.

    Example:
        >>> connect(provider="sandbox", budget="5.00").settings().provider
        'sandbox'
    """
    global _session  # noqa: PLW0603 - see `current`
    given = {
        "provider": provider,
        "model": model,
        "budget": None if budget is None else str(budget),
        "ledger": None if ledger is None else str(ledger),
        "media": None if media is None else str(media),
        **settings,
    }
    with _lock:
        made = Session(surroundings=_surroundings or script, name=session, **given)
        made.settings()
        _session = made
        return made


@cache
def _options_of_submit() -> tuple[str, ...]:
    return tuple(signature(submit).parameters)


def ask_for(
    prompt: str | TextToVideo | None = None,
    *,
    take: int = 0,
    max_cost: Decimal | str | int | None = None,
    price: Decimal | str | None = None,
    tags: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    **options: Any,
) -> Ask:
    """Give what a call of `submit` asks for, without asking.

    Args:
        prompt: As for `submit`; and so are the others.
        take: As for `submit`.
        max_cost: As for `submit`.
        price: As for `submit`.
        tags: As for `submit`.
        metadata: As for `submit`.
        **options: As for `submit`.

    Returns:
        The call.

    Raises:
        UsageError: An option is unknown or makes no sense.

    Example:
        >>> ask_for("A red fox", take=2).takes
        (2,)
    """
    unknown = sorted(options.keys() - _options_of_submit())
    if unknown:
        # A price for something else than was meant is worse than none.
        raise no_such_option(unknown, _options_of_submit())
    if isinstance(take, bool) or not isinstance(take, int) or take < 0:
        raise UsageError("take: should be a whole number, 0 or more.", cure="Nothing was sent.")
    if isinstance(prompt, Iterable) and not isinstance(prompt, str | TextToVideo):
        raise UsageError(
            f"prompt: is one text, and this is a {type(prompt).__name__}.",
            cure="Nothing was sent. `kling.sweep([...])` takes many prompts.",
        )
    fields = {name: _listed(options.pop(name)) for name in TextToVideo.model_fields if name in options}
    options |= {"tags": tags or {}, "metadata": metadata or {}}
    _check_options(options)
    if isinstance(prompt, TextToVideo):
        if given := sorted(name for name, value in fields.items() if value is not None):
            raise UsageError(
                f"A whole request was given, and {', '.join(given)} beside it.", cure="Nothing was sent."
            )
        request = prompt
    else:
        request = make_request(prompt=prompt, **fields)
    return Ask(
        request=request,
        takes=(take,),
        max_cost=dollars_of("max_cost", max_cost),
        price=dollars_of("price", price),
        **options,
    )


def _check_options(options: Mapping[str, Any]) -> None:
    for name in ("provider", "model"):
        if not isinstance(options.get(name), str | None):
            raise UsageError(f"{name}: should be a name.", cure="Nothing was sent.")
    tags, metadata = options["tags"], options["metadata"]
    if not _plain(tags) or not all(isinstance(text, str) for pair in tags.items() for text in pair):
        raise UsageError("tags: should be names with texts, e.g. {'scene': '3'}.", cure="Nothing was sent.")
    if not _plain(metadata):
        raise UsageError("metadata: should be an object of plain JSON.", cure="Nothing was sent.")


def _listed(things: object) -> object:
    return list(things) if isinstance(things, Iterable) and not isinstance(things, str) else things


def _plain(value: object) -> bool:
    """Whether this is an object that JSON can carry as it is: no NaN, no half character, no foreign thing."""
    try:
        return isinstance(value, Mapping) and bool(
            json.dumps(dict(value), ensure_ascii=False, allow_nan=False).encode()
        )
    except (TypeError, ValueError, RecursionError):
        return False


def dollars_of(name: str, value: Decimal | str | int | None) -> Decimal | None:
    if value is None:
        return None
    if isinstance(value, float | bool):
        raise UsageError(
            f"{name}: money is not written as a float; write it as text, e.g. {name}='2.50'.",
            cure="Nothing was sent.",
        )
    try:
        amount = Decimal(value)
    except (ArithmeticError, TypeError, ValueError):
        raise UsageError(
            f"{name}: {str(value)!r:.40} is not an amount of dollars.", cure="Nothing was sent."
        ) from None
    if not amount.is_finite() or not (amount == 0 or _LEAST_USD <= amount <= _MAX_USD):
        raise UsageError(
            f"{name}: should be an amount of dollars: 0, or from {_LEAST_USD} to {_MAX_USD:,}.",
            cure="Nothing was sent.",
        )
    return amount


@names_checked
def submit(
    prompt: str | TextToVideo | None = None,
    *,
    shots: Sequence[Shot | Mapping[str, Any]] | None = None,
    duration: int | None = None,
    aspect_ratio: str | None = None,
    audio: bool | None = None,
    negative_prompt: str | None = None,
    cfg_scale: float | None = None,
    shot_type: str | None = None,
    provider: str | None = None,
    model: str | None = None,
    take: int = 0,
    max_cost: Decimal | str | int | None = None,
    price: Decimal | str | None = None,
    allow_unpriced: bool = False,
    no_cache: bool = False,
    cached_only: bool = False,
    retry: bool = False,
    tags: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    callback_url: str | None = None,
    private: bool = False,
    detached: bool = False,
) -> Run:
    """Ask for a clip and return at once; costs money unless the clip is already here.

    Args:
        prompt: What is seen, or a whole request.
        shots: A storyboard instead of, or beside, the prompt.
        duration: Whole seconds, 3 to 15; 5 unless the shots say otherwise.
        aspect_ratio: `16:9`, `9:16` or `1:1`.
        audio: Whether the clip has sound; no unless asked.
        negative_prompt: What should not be seen.
        cfg_scale: 0 to 1.
        shot_type: `customize` or `intelligent`.
        provider: Names a provider for this call.
        model: Names a model for this call.
        take: The planned sample index; another take is another clip.
        max_cost: Dollars this call may reserve.
        price: Dollars per second to reserve where no price is known.
        allow_unpriced: Accept an unknown price.
        no_cache: Buy again even if there is a clip.
        cached_only: Never send.
        retry: Buy again after a failure that was, or may have been, charged.
        tags: Kept with the record.
        metadata: Sent along where the provider takes any (Runflow).
        callback_url: What the provider calls when the run has ended (Runflow).
        private: The words go to the provider alone; what is shown and shared has their hash.
        detached: Leave it to a worker (`kling-nb worker`) to send it; this kernel may end.

    Returns:
        The handle, as soon as the intent is on disk.

    Raises:
        KlingError: The call is refused; nothing was sent.

    Example:
        >>> run = submit("A red fox crosses fresh snow", provider="sandbox")   # doctest: +SKIP
    """
    # Every parameter, by its name.
    ask = ask_for(**locals())
    session = current()
    session.last = run = session.open(ask)[0]
    if detached:
        return run
    await_at_end([run])
    if parent_process() is not None:
        until_accepted(run)
    return run


def generate(
    prompt: str | TextToVideo | None = None, *, timeout_s: float | None = None, **options: Any
) -> Video:
    """Ask for a clip and wait for it; costs money unless the clip is already here.

    Args:
        prompt: What is seen, or a whole request.
        timeout_s: Seconds to wait at most; the run goes on after it.
        **options: As for `submit`.

    Returns:
        The clip.

    Raises:
        KlingError: The call is refused, the run ended without a clip, or the time was over.

    Example:
        >>> generate("A red fox", provider="sandbox").path   # doctest: +SKIP
    """
    return submit(prompt, **options).result(timeout_s)


def estimate(prompt: str | TextToVideo | None = None, **options: Any) -> Estimate:
    """Say what a call would cost; costs nothing.

    Args:
        prompt: What is seen, or a whole request.
        **options: As for `submit`.

    Returns:
        The estimate of one new run; its `usd` is None where nobody knows.

    Raises:
        UsageError: The request is wrong.

    Example:
        >>> estimate("A red fox", provider="sandbox").usd
        Decimal('0.56')
    """
    given = {name: value for name, value in options.items() if value is not None or name == "take"}
    return current().price(ask_for(prompt, **given | {"allow_unpriced": True}))


def runs(*, status: str | None = None, limit: int | None = None) -> Runs:
    """List runs of the ledger, newest first; asks nobody.

    Args:
        status: Only in this state.
        limit: At most this many.

    Returns:
        Handles. With neither of both, the ledger is read as far as they are looked at: its length, a place,
        a slice or the newest few cost the same however many runs there are.

    Raises:
        UsageError: There is no such state.

    Example:
        >>> len(runs(limit=0))
        0
    """
    if status is not None and status not in {s.value for s in RunStatus}:
        raise UsageError(f"There is no state {status!r}.", cure=f"States are {', '.join(RunStatus)}.")
    return current().runs(statuses=None if status is None else [RunStatus(status)], limit=limit)


def find(name: str) -> Run:
    """Find a run by our id or the provider's; asks nobody."""
    return current().find(name)


def resume() -> Runs:
    """Take up every pending run of the ledger; never sends a new one."""
    return current().resume()


def spend() -> Spend:
    """Say what this session has spent, has reserved and may still spend; play money stands apart."""
    session = current()
    return Spend.of(session.totals(), play=Spend.of(session.totals(play=True)))


def last() -> Run | Runs | None:
    """Give what the last cell or call made; `kling.last` is the same."""
    return current().last
