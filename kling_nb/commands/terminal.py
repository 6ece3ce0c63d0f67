"""The commands of a terminal alone: `generate`, `sandbox serve`, `callbacks serve`, `worker`, `ledger copy`.

Invariants: importing this imports nothing heavy, for `kling-nb --help` reads it; each server prints one JSON
line on stdout, and only once it answers.
"""

import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kling_nb.errors import KlingError, UsageError

if TYPE_CHECKING:
    from kling_nb.commands.answer import Answer
    from kling_nb.engine.runs import Runs
    from kling_nb.session.session import Session

__all__ = ["callbacks_app", "for_terminal", "generate", "ledger_app", "sandbox_app", "worker"]

#: Commands of a notebook that a terminal has under another name; some it has under their own.
_NAMES = {
    "list": "runs",
    "cost --all": "spend",
    "help": "generate --help",
    **{
        name: name
        for name in ("adopt", "doctor", "estimate", "export", "models", "resolve", "restore", "verify")
    },
}
_COMMAND = re.compile(rf"%kling ({'|'.join(_NAMES)})(?=[`.,;]|$|(?<!help) )")

sandbox_app = typer.Typer(
    help="The loopback server that plays both providers.", no_args_is_help=True, rich_markup_mode=None
)
callbacks_app = typer.Typer(
    help="What Runflow calls when a run has ended.", no_args_is_help=True, rich_markup_mode=None
)
ledger_app = typer.Typer(help="The ledger itself.", no_args_is_help=True, rich_markup_mode=None)


def for_terminal(text: str) -> str:
    """Name the commands of a notebook as a terminal has them.

    Example:
        >>> for_terminal("See `%kling list`.")
        'See `kling-nb runs`.'
        >>> for_terminal("See `%kling help export`.")
        'See `%kling help export`.'
    """
    return _COMMAND.sub(lambda found: f"kling-nb {_NAMES[found[1]]}", text)


def generate(session: "Session", prompt: str, flags: Sequence[str]) -> "tuple[Runs, float | None] | Answer":
    """Ask for a clip as a cell does; costs money unless the clip is already here.

    Args:
        session: Of this process.
        prompt: The text of the cell.
        flags: What a cell has in its line, a word each.

    Returns:
        The runs, and for how many seconds they are waited for at most; for `--dry-run` the plan.

    Raises:
        KlingError: The call is refused; nothing was sent.
    """
    from kling_nb.commands.dry_run import show_plan
    from kling_nb.commands.syntax.cell import parse_cell
    from kling_nb.engine.runs import Runs

    try:
        session.keys.refuse({"the line": " ".join(flags), "the prompt": prompt}, shapes=False)
        order = parse_cell(shlex.join(flags), f"{prompt}\n", {}, folder=Path.cwd())
        if order.dry_run:
            return show_plan(session.plan(order.ask), order, session)
        return Runs(session.open(order.ask)), order.timeout_s
    except KlingError as error:
        error.may_spend = True
        raise


@sandbox_app.command("serve")
def sandbox_serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 0,
    wait_scale: Annotated[
        float | None, typer.Option(min=0, help="Multiplies every simulated wait; 0 = none.")
    ] = None,
    fault: Annotated[list[str] | None, typer.Option(metavar="NAME=RATE", help="A fault to inject.")] = None,
) -> None:
    """Serve both providers' wires on 127.0.0.1 until interrupted; prints one JSON line when ready."""
    from kling_nb.config.loading import load_settings
    from kling_nb.sandbox.faults.board import parse_faults
    from kling_nb.sandbox.serve import serve

    try:
        faults = parse_faults(fault or [])
    except ValueError as error:
        raise UsageError(f"{error}.") from None
    try:
        serve(port, load_settings().sandbox_wait if wait_scale is None else wait_scale, faults)
    except OSError as error:
        raise UsageError(
            f"The sandbox cannot listen on port {port}: {error.strerror}.", cure="Choose another one."
        ) from None


@callbacks_app.command("serve")
def callbacks_serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8790,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
) -> None:
    """Take Runflow's signed callbacks until interrupted; prints one JSON line when ready.

    Runs that the ledger knows are then read at once. The secrets stand in KLING_NB_CALLBACK_SECRETS.
    """
    from kling_nb.team.callback_server import serve_callbacks

    serve_callbacks(host, port)


def worker(
    *,
    until_empty: Annotated[
        bool,
        typer.Option("--until-empty", help="End when no run of the ledger is on its way, here or elsewhere."),
    ] = False,
    max_time: Annotated[
        str | None, typer.Option(metavar="TIME", help="End after that time, e.g. 60s, 55m or 8h.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Runs in hand at once; by default all that have a place.")
    ] = None,
) -> None:
    """Send what was left to workers, and take over what a dead one left; stops cleanly on SIGTERM.

    It sends only runs of accounts whose keys it has. Any number may work on one ledger.
    """
    from kling_nb.session.api import current
    from kling_nb.team.worker import Worker

    Worker(
        current(),
        concurrency=concurrency,
        until_empty=until_empty,
        max_time_s=None if max_time is None else _seconds(max_time),
        say=lambda line: sys.stderr.write(f"kling-nb: {line}\n"),
    ).run()


def _seconds(text: str) -> float:
    """Read a time: a number of seconds, minutes or hours."""
    if (found := re.fullmatch(r"(\d{1,6})(s|m|h)", text)) is None:
        raise UsageError(f"{text!r} is no time.", cure="Write e.g. 60s, 55m or 8h.")
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


@ledger_app.command("copy")
def ledger_copy(
    source: Annotated[str, typer.Argument(help="Path or database address of the ledger to copy.")],
    target: Annotated[
        str | None,
        typer.Argument(
            help="Of the ledger that it goes into. Left out, it is that of KLING_NB_LEDGER or of the user's "
            "config.toml, so that a password stands in no list of processes."
        ),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Copy a ledger, a file into PostgreSQL say, into another; what is there already is left as it is."""
    from kling_nb.addresses import is_address
    from kling_nb.config.loading import load_settings
    from kling_nb.ledger.database import Ledger
    from kling_nb.ledger.databases.copying import copy_ledger

    if not is_address(source) and not Path(source).is_file():
        raise UsageError(f"There is no ledger {source}.", cure="Nothing was copied.")
    old, new = Ledger(source), Ledger(target or load_settings().ledger)
    try:
        copied = copy_ledger(old, new)
    finally:
        old.close()
        new.close()
    words = ", ".join(f"{copied[name]:,} {name}" for name in ("runs", "events", "votes", "sweeps"))
    money = f"${copied['settled_micros'] / 1e6:.2f} settled, ${copied['reserved_micros'] / 1e6:.2f} reserved"
    text = f"{new.where} has all of {old.where}: {words}; {money}."
    sys.stdout.write((json.dumps(copied) if as_json else text) + "\n")
