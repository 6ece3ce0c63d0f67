"""The subcommands of `%kling` about runs: looking, waiting, canceling, resuming, resolving, bringing in.

Invariants: nothing here ever makes a run at a provider (the one door for that, `Session.open`, is not called
from here); what is wrong is a `UsageError` of one line.
"""

from collections.abc import Sequence
from dataclasses import asdict

from kling_nb.commands import overview
from kling_nb.commands.answer import Answer, answer
from kling_nb.commands.order import PENDING, CommandCall, held, here, named
from kling_nb.commands.syntax.cell import parse_request
from kling_nb.commands.syntax.subcommands import COMMANDS
from kling_nb.commands.syntax.values import read_count, read_seconds, shown, wrong
from kling_nb.engine.run import Run
from kling_nb.engine.runs import Runs
from kling_nb.errors import DetachedError, KlingError
from kling_nb.ledger.sweeps import newest
from kling_nb.ledger.work.detached import unsent_runs
from kling_nb.pricing.catalog import provider_label
from kling_nb.providers import make_provider
from kling_nb.records.money import usd
from kling_nb.records.run import MODES, Mode, RunStatus, charged, may_revive
from kling_nb.recovery.adopt import adopt as _adopt_run
from kling_nb.recovery.resolve import look_again, take_up
from kling_nb.recovery.resolve import resolve as _resolve_run
from kling_nb.views.embed import refuse_too_much
from kling_nb.views.words import SEND_IT, clock, state_word

__all__ = ["adopt", "cancel", "list_runs", "resolve", "resume", "show", "status", "sweeps", "wait"]

_LISTED = 20
_ADOPT = next(command for command in COMMANDS if command.name == "adopt")


def _kept(call: CommandCall) -> overview.Held:
    """Gather the variables that hold runs, and the runs that nobody here watches any more."""
    found: dict[str, str] = {}
    for name, value in dict(call.names).items():
        if not name.startswith("_") and isinstance(value, Run | Runs):
            for number, run in enumerate(held(value)):
                found.setdefault(run.id, name if isinstance(value, Run) else f"{name}[{number}]")
    known = [run for run in call.session.engine().known() if run.status.pending]
    turns = {run.id: turn.number for run in known if (turn := run.turn) is not None}
    return overview.Held(names=found, detached={run.id for run in known if run.detached}, turns=turns)


def status(call: CommandCall) -> Answer:
    """Show what is on its way, the last run, and the money."""
    session = call.session
    pending = session.ledger().runs(statuses=PENDING)
    last = [run.record for run in held(session.last)]
    return overview.status(session, pending, last, _kept(call))


def list_runs(call: CommandCall) -> Answer:
    """Show the newest runs of the ledger."""
    limit: int | None = _LISTED
    if "-n" in call.flags:
        limit = read_count("-n", call.flags["-n"], low=1, high=100_000)
    elif "--all" in call.flags:
        limit = None
    found = call.session.ledger().runs(limit=None if limit is None else limit + 1)
    return overview.listing(found, _kept(call), limit=limit)


def sweeps(call: CommandCall) -> Answer:
    """Show the newest sweeps of the ledger."""
    found = call.session.ledger().read(lambda transaction: newest(transaction, _LISTED))
    if not found:
        return answer(["There is no sweep yet: `kling.sweep([...])` makes one."], value=[])
    heads = ["sweep", "state", "runs", "done", "spent", "failed", "on their way", "not sent", "started"]
    rows = [
        [
            *(one.name, one.state, one.members, one.done),
            usd(one.spent_micros) + (" (play)" if one.play else ""),
            *(one.failed, one.going, one.waiting + one.queued, clock(one.created_at, date=True)),
        ]
        for one in found
    ]
    left = {play: call.session.totals(play=play).left_micros for play in {one.play for one in found}}
    value = [{**asdict(one), "waiting": one.waiting, "left_micros": left[one.play]} for one in found]
    return answer(
        [(heads, rows, "llrrrrrrg"), "`kling.sweep(NAME)` opens one; it sends nothing."], value=value
    )


def show(call: CommandCall) -> Answer:
    """Draw the cards of runs again."""
    runs = named(call) if call.words else held(call.session.last)
    if not runs:
        raise wrong("`%kling show` needs a run.", "Name a variable or an id: see `%kling list`.")
    if "--player" in call.flags:
        if len(runs) != 1:
            raise wrong("--player takes one run.", "`%kling compare` plays several in lock step.")
        return Answer(runs=runs, player=True)
    return Answer(runs=runs, embed=_embed(call, runs))


def _embed(call: CommandCall, runs: Sequence[Run]) -> Mode | None:
    asked = call.flags.get("--embed")
    if asked is None:
        return None
    mode = next((mode for mode in MODES if mode == asked), None)
    if mode is None:
        raise wrong(f"--embed is one of {', '.join(MODES)}, not {shown(asked)}.", "See `%kling help show`.")
    if mode == "always":
        refuse_too_much([run.kept() for run in runs], call.session.surroundings().front)
    return mode


def wait(call: CommandCall) -> Answer:
    """Wait for runs; one that failed fails the line only where nobody is watching."""
    timeout_s = read_seconds("--timeout", call.flags["--timeout"]) if "--timeout" in call.flags else None
    runs = named(call) if call.words else here(call)
    if not runs and call.session.surroundings().headless:
        # The run of the cell before may have failed by now; nobody is watching, so this line fails for it.
        runs = [run for run in held(call.session.last) if run.error is not None]
    if not runs:
        return answer(["No run of this kernel is on its way; `%kling resume` takes up other runs."])
    for run in runs:
        if run.status.pending:
            run.resume()
    try:
        Runs(runs).wait(timeout_s)
    except KeyboardInterrupt:
        going = [run.id for run in runs if not run.done]
        raise DetachedError(
            f"Interrupted: no longer waiting for {', '.join(going) or 'anything'}.",
            charged="unknown",
            cure="Nothing was canceled; `%kling wait` waits again, `%kling cancel ID` cancels.",
        ) from None
    errors = [run.error for run in runs if run.error is not None]
    if errors and call.session.surroundings().headless:
        raise errors[0]
    lines = [f"`{run.id}` {state_word(run.record, detached=run.detached)}{_why(run.error)}" for run in runs]
    # Where a page takes no updates, the cards above still show what was then.
    return answer(lines, () if call.session.surroundings().live else runs)


def _why(error: KlingError | None) -> str:
    return f": {error}" if error is not None else ""


def cancel(call: CommandCall) -> Answer:
    """Cancel runs where their providers still can, of a sweep also what is not sent."""
    values = {word: call.variable(word) for word in call.words}
    sweeps = {word: value for word, value in values.items() if hasattr(value, "runs")}
    for sweep in sweeps.values():
        # First: each place of a run that is canceled would go to another one of it.
        sweep.cancel()
    runs = named(call)
    if not runs and not sweeps:
        raise wrong("`%kling cancel` needs a run.", "Name a variable or an id: see `%kling status`.")
    lines = [f"`{word}`: nothing more of it is sent." for word in sweeps]
    for run in runs:
        outcome = "ended" if run.status.ended else run.cancel()
        play = " It is play money." if run.record.play else ""
        lines.append(f"`{run.id}`: {_cancel_words(run, outcome)}{play}")
    return answer(lines)


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


def resume(call: CommandCall) -> Answer:
    """Take up runs again; never sends one."""
    if not call.words:
        runs = call.session.resume()
        lines = [_not_sent(run) for run in runs if run.status is RunStatus.CREATED]
        lines += [] if runs else ["Nothing is pending."]
        return answer([*lines, runs.note] if runs.note else lines, runs)
    asked = named(call)
    left = call.session.ledger().read(unsent_runs)
    waiting = [run for run in asked if run.status is RunStatus.CREATED]
    going = [take_up(run, call.session) for run in asked if run.status.pending]
    ended = [run for run in asked if run not in going]
    again = [run for run in ended if may_revive(run.record)]
    found = [run for run in map(look_again, again) if run.status is RunStatus.SUCCEEDED]
    lines = [_LEFT.format(run.id) if run.id in left else _not_sent(run) for run in waiting]
    lines += [f"`{run.id}`: its clip is there after all." for run in found]
    lines += [
        f"`{run.id}` has ended ({state_word(run.record)}): there is nothing to resume. {run.note}".rstrip()
        for run in ended
        if run not in found
    ]
    return answer(lines, [*going, *found])


#: Of a run that somebody left to workers.
_LEFT = "`{}` waits for a worker (`kling-nb worker`), which sends it; it is followed from here."


def _not_sent(run: Run) -> str:
    return (
        f"`{run.id}` was never sent, and nothing here sends it: unless its own cell still does, it ends "
        f"without a charge. {SEND_IT}"
    )


def resolve(call: CommandCall) -> Answer:
    """End a run that nobody can find out about."""
    runs = named(call)
    if len(runs) != 1:
        raise wrong("`%kling resolve` takes one run.", "Name a variable or an id: see `%kling list`.")
    attach, abandon = call.flags.get("--attach"), "--abandon" in call.flags
    if attach is not None and not attach.strip():
        raise wrong(
            "--attach needs the provider's id.", f"`%kling resolve {runs[0].id} --attach PROVIDER_ID`."
        )
    held = runs[0].record.reserved_micros
    run = _resolve_run(runs[0], attach=attach, abandon=abandon, session=call.session)
    play = " in play money" if run.record.play else ""
    if attach is not None:
        where = f"{shown(attach, quote=False)} at {provider_label(run.provider)}"
        return answer([f"`{run.id}` is {where}: nothing was sent, and its money settles as always."], [run])
    again = "What it cost, if anything, stays unknown. Its cell makes a new attempt, charged as usual."
    if run.status is RunStatus.SUCCEEDED:
        again = "The clip stays; what it cost stays unknown."
    return answer([f"`{run.id}` was given up: {usd(held)}{play} is no longer reserved. {again}"], [run])


def adopt(call: CommandCall) -> Answer:
    """Bring in a run that was made elsewhere."""
    if len(call.words) != 2:
        raise wrong("`%kling adopt` takes a provider and the id of a run there.", "See `%kling help adopt`.")
    provider, provider_run_id = call.words
    given = dict(call.flags)
    prompt = given.pop("--prompt", "")
    words = [part for spelling, value in given.items() for part in _again(spelling, value)]
    fields, rest = parse_request(words, prompt, call.names, folder=call.folder)
    known = {record.id for record in call.session.ledger().runs(provider_run_id=provider_run_id)}
    run = _adopt_run(provider, provider_run_id, **fields, **rest, session=call.session)
    if run.id in known:
        return answer([f"`{run.id}` is that run already; nothing changed."], [run])
    return answer(
        [
            f"`{run.id}` was made elsewhere, at {provider_label(provider)}; nothing was sent for it.",
            "What it cost stands on its own row and counts against no budget here.",
        ],
        [run],
    )


def _again(spelling: str, value: str) -> list[str]:
    return [spelling, value] if spelling in _ADOPT.values else [spelling]
