"""`%kling` and its subcommands: looking, waiting, canceling, resuming, resolving, bringing in.

Invariants: nothing here ever makes a run at a provider (the one door for that, `Session.open`, is not called
from here); a subcommand that is not in the table does not exist; what is wrong is a `UsageError` of one line.
"""

import getpass
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from kling_nb.adopting import adopt
from kling_nb.engine import Run, Runs
from kling_nb.errors import DetachedError, KlingError, UsageError
from kling_nb.html import Html, join, prose, tag
from kling_nb.notebook import overview
from kling_nb.notebook.arguments import parse_request
from kling_nb.notebook.doctor import doctor
from kling_nb.notebook.dryrun import show_plan
from kling_nb.notebook.shown import Shown
from kling_nb.notebook.syntax import COMMANDS, Command, cell_help, command_help, find_flag, normal
from kling_nb.notebook.values import check_text, identifier, read_count, read_seconds, shown, wrong
from kling_nb.providers import make_provider
from kling_nb.records import RunStatus, usd
from kling_nb.resolving import resolve
from kling_nb.wording import charged, provider_label, state_word

if TYPE_CHECKING:
    from kling_nb.session import Session

__all__ = ["COMMANDS", "Shown", "run_command", "show_plan"]

_PENDING = [status for status in RunStatus if status.pending]
_LISTED = 20


@dataclass(frozen=True, kw_only=True)
class _Order:
    """One line, read: the session, the notebook's variables, loose words and flags."""

    session: "Session"
    names: Mapping[str, Any]
    words: list[str] = field(default_factory=list)
    flags: dict[str, str] = field(default_factory=dict)


def run_command(session: "Session", line: str, names: Mapping[str, Any]) -> Shown:
    r"""Carry out one `%kling` line.

    Args:
        session: Of this kernel.
        line: What follows `%kling`.
        names: The notebook's variables: an argument may name one that holds a run.

    Returns:
        What is shown. `runs` are runs whose cards belong below it; the `value` of a table is the same as
        plain data, for programs.

    Raises:
        UsageError: There is no such subcommand, flag or run.
        KlingError: The subcommand failed.

    Example:
        >>> run_command(None, "help models", {}).text
        '%kling models\n  models, who offers them, and their prices with source and date'
    """
    check_text(line, "the line")
    try:
        words = shlex.split(line)
    except ValueError:
        raise wrong("A quote or a backslash in the line is left open.", "Close it.") from None
    asked = [word for word in words if normal(word) not in {"-h", "--help"} and word != ";"]
    command = _find_command(asked[0].removesuffix(";") if asked else "help")
    rest = asked[1:]
    if any(normal(word) in {"-h", "--help"} for word in words):
        command, rest = _find_command("help"), [command.name] if asked else []
    order = _read(command, rest, session, names)
    return _DO[command.name](order)


def _find_command(name: str) -> Command:
    for command in COMMANDS:
        if command.name == name:
            return command
    known = [command.name for command in COMMANDS]
    near = get_close_matches(name, known, n=1)
    raise wrong(
        f"There is no `%kling {shown(name, quote=False)}`.",
        (f"Did you mean `%kling {near[0]}`? " if near else "")
        + f"There are {', '.join(known)}; a clip is made by `%%kling`, with two percent signs.",
    )


def _read(command: Command, words: Sequence[str], session: "Session", names: Mapping[str, Any]) -> _Order:
    loose: list[str] = []
    flags: dict[str, str] = {}
    rest: Iterator[str] = iter(words)
    for word in rest:
        if not word.startswith("-") or word == "-":
            loose += [word.removesuffix(";")] if word.removesuffix(";") else []
            continue
        spelling, sign, value = word.partition("=")
        spelling = normal(spelling)
        if spelling not in command.flags:
            near = get_close_matches(spelling, command.flags, n=1)
            cure = f"Did you mean {near[0]}? " if near else ""
            raise wrong(
                f"`%kling {command.name}` has no flag {shown(spelling)}.",
                f"{cure}See `%kling help {command.name}`.",
            )
        if _takes_value(spelling) and not sign:
            value = next(rest, "")
        # A prompt is taken exactly; elsewhere a semicolon is IPython's habit.
        flags[spelling] = value if spelling == "--prompt" else value.removesuffix(";")
    if loose and "ID" not in command.usage and command.name != "help":
        raise wrong(f"`%kling {command.name}` takes nothing after it.", f"See `%kling help {command.name}`.")
    return _Order(session=session, names=names, words=loose, flags=flags)


def _takes_value(spelling: str) -> bool:
    flag = find_flag(spelling)
    return spelling in {"--attach", "--ask", "--prompt"} or (flag is not None and bool(flag.metavar))


# -- which runs --------------------------------------------------------------------
def _held(thing: object) -> list[Run]:
    """Give the runs that a variable holds."""
    if isinstance(thing, Run):
        return [thing]
    if isinstance(thing, Runs | list | tuple):
        return [run for run in thing if isinstance(run, Run)]
    return []


def _kept(order: _Order) -> overview.Held:
    """Gather the variables that hold runs, and the runs that nobody here watches any more."""
    found: dict[str, str] = {}
    for name, value in dict(order.names).items():
        if not name.startswith("_") and isinstance(value, Run | Runs):
            for number, run in enumerate(_held(value)):
                found.setdefault(run.id, name if isinstance(value, Run) else f"{name}[{number}]")
    detached = {run.id for run in order.session.engine().known() if run.detached}
    return overview.Held(names=found, detached=detached)


def _named(order: _Order) -> list[Run]:
    """Find the runs that the line names: variables first, then ids, ours or the provider's."""
    runs: list[Run] = []
    for word in order.words:
        name = identifier(word)
        held = _held(order.names.get(name)) if name is not None else []
        runs += held or [_find(order, word)]
    return list({run.id: run for run in runs}.values())


def _find(order: _Order, word: str) -> Run:
    try:
        return order.session.find(word)
    except UsageError as error:
        if word in order.names:
            value = order.names[word]
            why = getattr(value, "error", None)
            kind = (
                f"a {type(value).__name__}" if not isinstance(why, KlingError) else f"a refusal: {why.what}"
            )
            raise wrong(
                f"The variable {word} holds no run but {kind.rstrip('.')}.", "See `%kling list`."
            ) from None
        raise error from None


def _here(order: _Order) -> list[Run]:
    """Give the runs on their way that belong to this kernel: its session's, a variable's, the last cell's."""
    session = order.session
    mine = {run.id for value in order.names.values() if isinstance(value, Run | Runs) for run in _held(value)}
    mine |= {run.id for run in _held(session.last)}
    return [
        run
        for run in session.runs(statuses=_PENDING)
        if run.id in mine or run.record.session_id == session.id
    ]


def _sentences(lines: Sequence[str], runs: Sequence[Run] = ()) -> Shown:
    page = join([tag("div", prose(line)) for line in lines])
    return Shown(html=page, text="\n".join(lines).replace("`", ""), runs=runs)


# -- the subcommands ------------------------------------------------------------------
def _status(order: _Order) -> Shown:
    session = order.session
    pending = session.ledger().runs(statuses=_PENDING)
    last = [run.record for run in _held(session.last)]
    return overview.status(session, pending, last, _kept(order))


def _list(order: _Order) -> Shown:
    limit: int | None = _LISTED
    if "-n" in order.flags:
        limit = read_count("-n", order.flags["-n"], low=1, high=100_000)
    elif "--all" in order.flags:
        limit = None
    records = order.session.ledger().runs(limit=None if limit is None else limit + 1)
    more = limit is not None and len(records) > limit
    return overview.listing(records[:limit], _kept(order), more=more)


def _show(order: _Order) -> Shown:
    runs = _named(order) if order.words else _held(order.session.last)
    if not runs:
        raise wrong("`%kling show` needs a run.", "Name a variable or an id: see `%kling list`.")
    return Shown(runs=runs)


def _wait(order: _Order) -> Shown:
    timeout_s = read_seconds("--timeout", order.flags["--timeout"]) if "--timeout" in order.flags else None
    runs = _named(order) if order.words else _here(order)
    if not runs:
        return _sentences(
            ["Nothing of this kernel is on its way; `%kling resume` takes up the runs of others."]
        )
    end = None if timeout_s is None else time.monotonic() + timeout_s
    for run in runs:
        if run.status.pending:
            run.resume()
    try:
        for run in runs:
            run.wait(None if end is None else max(0.0, end - time.monotonic()))
    except KeyboardInterrupt:
        going = [run.id for run in runs if not run.done]
        raise DetachedError(
            f"Interrupted: no longer waiting for {', '.join(going) or 'anything'}.",
            charged="unknown",
            cure="Nothing was canceled; `%kling wait` waits again, `%kling cancel ID` cancels.",
        ) from None
    errors = [run.error for run in runs if run.error is not None]
    if errors and order.session.surroundings().headless:
        raise errors[0]
    lines = [f"`{run.id}` {state_word(run.record, detached=run.detached)}{_why(run.error)}" for run in runs]
    return _sentences(lines)


def _why(error: KlingError | None) -> str:
    return f": {error}" if error is not None else ""


def _cancel(order: _Order) -> Shown:
    runs = _named(order)
    if not runs:
        raise wrong("`%kling cancel` needs a run.", "Name a variable or an id: see `%kling status`.")
    lines = []
    for run in runs:
        outcome = "ended" if run.status.ended else run.cancel()
        play = " All of it in play money." if run.record.play else ""
        lines.append(f"`{run.id}`: {_cancel_words(run, outcome)}{play}")
    return _sentences(lines)


def _cancel_words(run: Run, outcome: str) -> str:
    if outcome == "ended" or (run.status.ended and outcome != "canceled"):
        return f"it has ended already ({state_word(run.record)}). Charged: {charged(run.record)}."
    if outcome == "canceled":
        word = charged(run.record) if run.status.ended else "unknown until the provider says"
        return f"canceled. Charged: {word}."
    label = provider_label(run.provider)
    stop = f"To stop waiting for it: `kling.find('{run.id}').detach()`."
    if outcome == "unknown":
        what = f"nobody knows whether that took effect. {run.note}".rstrip()
        return f"{what} It may go on and be charged: `%kling show {run.id}`."
    if make_provider(run.provider).cancel_call("x") is None:
        return f"{label} has no cancel: the run goes on and may be charged. {stop}"
    return f"too late, {label} is already making it: it goes on and may be charged. {stop}"


def _resume(order: _Order) -> Shown:
    if not order.words:
        runs = order.session.resume()
        return Shown(runs=runs) if runs else _sentences(["Nothing is pending."])
    named = _named(order)
    going = [run.resume() for run in named if run.status.pending]
    ended = [run for run in named if run not in going]
    lines = [f"`{run.id}` has ended ({state_word(run.record)}): there is nothing to resume." for run in ended]
    return _sentences(lines, going)


def _resolve(order: _Order) -> Shown:
    runs = _named(order)
    if len(runs) != 1:
        raise wrong("`%kling resolve` takes one run.", "Name a variable or an id: see `%kling list`.")
    attach, abandon = order.flags.get("--attach"), "--abandon" in order.flags
    if attach is not None and not attach.strip():
        raise wrong(
            "--attach needs the provider's id.", f"`%kling resolve {runs[0].id} --attach PROVIDER_ID`."
        )
    held = runs[0].record.reserved_micros
    run = resolve(runs[0], attach=attach, abandon=abandon, session=order.session)
    play = " in play money" if run.record.play else ""
    if attach is not None:
        where = f"{shown(attach, quote=False)} at {provider_label(run.provider)}"
        return _sentences(
            [f"`{run.id}` is {where}: nothing was sent, and its money settles as always."], [run]
        )
    again = "What it cost, if anything, stays unknown. Its cell makes a new attempt, charged as usual."
    if run.status is RunStatus.SUCCEEDED:
        again = "The clip stays; what it cost stays unknown."
    return _sentences([f"`{run.id}` was given up: {usd(held)}{play} is no longer held. {again}"], [run])


def _adopt(order: _Order) -> Shown:
    if len(order.words) != 2:
        raise wrong("`%kling adopt` takes a provider and the id of a run there.", "See `%kling help adopt`.")
    provider, provider_run_id = order.words
    given = dict(order.flags)
    prompt = given.pop("--prompt", "")
    words = [part for spelling, value in given.items() for part in _again(spelling, value)]
    folder = order.session.surroundings().folder or Path.cwd()
    fields, rest = parse_request(words, prompt, order.names, folder=folder)
    known = {record.id for record in order.session.ledger().runs(provider_run_id=provider_run_id)}
    run = adopt(provider, provider_run_id, **fields, **rest, session=order.session)
    if run.id in known:
        return _sentences([f"`{run.id}` is that run already; nothing changed."], [run])
    return _sentences(
        [
            f"`{run.id}` was made elsewhere, at {provider_label(provider)}; nothing was sent for it.",
            "What it cost stands on its own row and counts against no budget here.",
        ],
        [run],
    )


def _again(spelling: str, value: str) -> list[str]:
    return [spelling, value] if _takes_value(spelling) else [spelling]


def _cost(order: _Order) -> Shown:
    whole = "--all" in order.flags
    session = order.session
    records = session.ledger().runs(session_id=None if whole else session.id)
    return overview.cost(session, records, whole=whole)


def _help(order: _Order) -> Shown:
    text = f"{cell_help()}\n\n{command_help()}"
    if order.words:
        text = command_help(_find_command(order.words[0]).name)
    return Shown(html=Html(tag("pre", text, style="white-space:pre-wrap;font-size:12px")), text=text)


def _keys(order: _Order) -> Shown:
    provider = order.flags.get("--ask")
    if provider is not None:
        if order.session.surroundings().headless:
            raise wrong(
                "Nobody is there to type a key.", "Set it in the environment before the kernel starts."
            )
        # Looked up now: a kernel puts its own in place for the time of a cell.
        typed = getpass.getpass(f"Key for {provider} (not shown, not stored): ")
        order.session.keys.take(provider, SecretStr(typed))
    return overview.keys(order.session)


_DO: dict[str, Callable[[_Order], Shown]] = {
    "status": _status,
    "list": _list,
    "show": _show,
    "wait": _wait,
    "cancel": _cancel,
    "resume": _resume,
    "resolve": _resolve,
    "adopt": _adopt,
    "cost": _cost,
    "models": lambda _order: overview.model_list(),
    "keys": _keys,
    "config": lambda order: overview.config(order.session),
    "doctor": lambda order: doctor(order.session, online="--online" in order.flags),
    "help": _help,
}
