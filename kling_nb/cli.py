"""The command line `kling-nb`: the same engine, for terminals and scripts.

Invariants: an error is one line on stderr, broken at words on a terminal, with an exit code and no traceback;
`--json` output is one JSON document on stdout and nothing else; only `generate`, and `demo`, which plays,
create runs.

Exit codes: 0 done, 1 something ended badly, 2 wrong use, 3 refused for money.
"""

import os
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from kling_nb.commands.syntax.subcommands import offered
from kling_nb.commands.terminal import callbacks_app, for_terminal, ledger_app, sandbox_app, worker
from kling_nb.errors import (
    BudgetError,
    KlingError,
    SettingsError,
    UsageError,
    WaitTimeoutError,
    filled,
    one_line,
    said,
)
from kling_nb.files import escape_unwritable

if TYPE_CHECKING:
    from kling_nb.commands.answer import Answer
    from kling_nb.engine.runs import Runs

__all__ = ["app", "main"]

app = typer.Typer(
    name="kling-nb",
    help="Kling 3.0 text-to-video for notebooks: demonstration, runs, money, sandbox.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    # Loading what draws boxes takes longer than everything else of `--help`.
    rich_markup_mode=None,
    context_settings={"max_content_width": 120},
)
app.add_typer(sandbox_app, name="sandbox")
app.add_typer(callbacks_app, name="callbacks")
app.add_typer(ledger_app, name="ledger")
app.command()(worker)


def _runs_like(incomplete: str) -> list[str]:
    """Complete the id of a run in the shell."""
    from kling_nb.commands.order import recent_ids
    from kling_nb.session.api import current

    return [run_id for run_id in recent_ids(current()) if run_id.startswith(incomplete)]


Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Timeout = Annotated[float | None, typer.Option(min=0, help="Seconds to wait at most.")]


def _say_version(asked: bool) -> None:  # noqa: FBT001 - typer calls it so
    if asked:
        # What is installed is written there, too, and takes longer to find.
        _print(f"kling-nb {import_module(__package__).__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_say_version, is_eager=True),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    escape_unwritable(sys.stdout, sys.stderr)
    try:
        app()
    except KlingError as error:
        words = f"kling-nb: {for_terminal(' '.join(said(error)))}"
        width = _columns(sys.stderr) or len(words)
        sys.stderr.write(f"{filled(words, width)}\n")
        misused = isinstance(error, UsageError | SettingsError)
        raise SystemExit(3 if isinstance(error, BudgetError) else 2 if misused else 1) from None
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        sys.stderr.write(f"kling-nb: {one_line(f'{error.strerror or type(error).__name__}{where}')}.\n")
        raise SystemExit(1) from None


def _print(text: str) -> None:
    sys.stdout.write(text.rstrip("\n") + "\n")


def _put(text: str, value: Any, *, as_json: bool) -> None:
    text = for_terminal(text)
    if as_json:
        from kling_nb.commands.answer import json_text

        text = json_text(value, sys.stdout.encoding or "utf-8")
    _print(text)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for notebook, page and clips.")] = Path("build/demo"),
    prompts: Annotated[Path | None, typer.Option(help="JSON lines of VBench prompts.")] = None,
) -> None:
    """Run three prompts in the sandbox, for no money, and make a page."""
    from kling_nb.commands.demo import read_prompts, run_demo

    done = run_demo(out, read_prompts(prompts))
    _print(done.words(_columns()))
    if done.second_pass_new or any(record.status != "succeeded" for record in done.records):
        raise typer.Exit(1)


@app.command(
    "generate",
    # `--help` of a cell is shown by a cell; here it tells of this command.
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def generate_clip(
    rest: typer.Context,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What is seen.")],
    *,
    as_json: Json = False,
) -> None:
    """Make a clip and wait for it. It costs money unless it is already here or the provider is the sandbox.

    The words after PROMPT are the flags of `%%kling`: -d 5 --ar 9:16 -n 2 --max-cost 1 --dry-run ... Real
    money needs a declared budget: --max-cost, or KLING_NB_BUDGET.
    """
    from kling_nb.commands.answer import Answer
    from kling_nb.commands.terminal import generate
    from kling_nb.session.api import current

    made = generate(current(), prompt, rest.args)
    if isinstance(made, Answer):
        _put(made.text, made.value, as_json=as_json)
    else:
        _finish(*made, as_json=as_json)


@app.command()
def sweep(
    what: Annotated[str, typer.Argument(metavar="FILE|NAME|cancel", help="TOML, CSV ...; or a sweep.")],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Of the sweep; else the file's.")] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Quote it, send nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end, not only until sent.")] = False,
    detached: Annotated[bool, typer.Option("--detached", help="Leave it to workers to send it.")] = False,
    max_cost: Annotated[str | None, typer.Option(metavar="USD", help="The most all of it may cost.")] = None,
    confirm: Annotated[bool, typer.Option("--confirm", help="Agree to the quote and what it adds.")] = False,
    as_json: Json = False,
) -> None:
    """Make a grid of clips from a file, or go on with one by name.

    A TOML file has the options of kling.sweep by name; another file its prompts. The same file goes on where
    it was. Exit code 1 if a run was not sent or, with --wait, made no clip; 3 if money stops it.
    """
    from kling_nb.notebook.sweeps import sweep_line

    made = sweep_line(
        what, name, dry_run=dry_run, wait=wait, max_cost=max_cost, detached=detached, confirm=confirm
    )
    _put(repr(made), made.data(), as_json=as_json)
    if made.stopped is not None and not dry_run:
        raise made.stopped
    if not dry_run and what != "cancel" and (made.progress.waiting or (wait and made.progress.failed)):
        raise typer.Exit(1)


@app.command()
def doctor(
    *,
    online: Annotated[bool, typer.Option("--online", help="Also check each key, for free.")] = False,
    as_json: Json = False,
) -> None:
    """Check this machine: versions, folders, ledger and keys."""
    findings = _command("doctor", *(["--online"] if online else []), as_json=as_json)
    if any(finding["state"] == "fail" for finding in findings):
        raise typer.Exit(1)


@app.command()
def runs(
    *,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=100_000, help="At most this many.")] = 20,
    as_json: Json = False,
) -> None:
    """List runs of the ledger, newest first."""
    from kling_nb.commands.overview import newest

    shown = newest(limit, receipts=as_json)
    _put(shown.fitted(_columns()), shown.value, as_json=as_json)


@app.command()
def estimate(
    notebook: Annotated[Path, typer.Argument(help="A .ipynb, a .py in the percent format, or a .md.")],
    *,
    headless: Annotated[bool, typer.Option("--headless", help="Judge as if nobody is watching.")] = False,
    as_json: Json = False,
) -> None:
    """Say what a notebook would cost, without running it. Exit code 3 if refused, 4 if incomplete."""
    flags = ["--headless"] if headless else []
    bill = _command("estimate", *flags, str(notebook), as_json=as_json)
    if bill["refused"]:
        raise typer.Exit(3)
    if not bill["complete"]:
        raise typer.Exit(4)


@app.command()
def models(
    *,
    live: Annotated[bool, typer.Option("--live", help="Also read RunComfy's own catalog, for free.")] = False,
    as_json: Json = False,
) -> None:
    """List models, and every price with its source, date and age."""
    _command("models", *(["--live"] if live else []), as_json=as_json)


@app.command()
def spend(
    *,
    by: Annotated[
        str | None,
        typer.Option(
            help="provider, model, day, tag[:KEY], project, run ...",
            autocompletion=lambda incomplete: offered("cost", incomplete, "--by"),
        ),
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="DAY", help="The first day, UTC.")] = None,
    until: Annotated[str | None, typer.Option(metavar="DAY", help="The last day, UTC.")] = None,
    project: Annotated[str | None, typer.Option(metavar="NAME", help="Only this project.")] = None,
    reconcile: Annotated[
        bool, typer.Option("--reconcile", help="Ask the providers again, for free.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what was spent: the numbers of `%kling cost --all`."""
    from kling_nb.spending.reconcile import costs

    report = costs(by=by, everything=True, since=since, until=until, project=project, reconcile=reconcile)
    _put(report.fitted(_columns()), report.data(), as_json=as_json)


@app.command()
def collect(
    *,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Finish everything pending: ask, download, settle; sends no run."""
    from kling_nb.session.api import current

    ended_badly = False
    try:
        _finish(current().resume(), timeout, as_json=as_json)
    except typer.Exit:
        ended_badly = True
    for run_id, why in current().upload().items():
        sys.stderr.write(f"kling-nb: the clip of run {run_id} is not in the team's store: {why}.\n")
        ended_badly = True
    if ended_badly:
        raise typer.Exit(1)


@app.command()
def verify(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A folder of clips, or s3://team/kling.")],
    *,
    as_json: Json = False,
) -> None:
    """Check every clip against its receipt; asks nobody. Exit code 1 where one is not well."""
    from kling_nb.addresses import is_address
    from kling_nb.commands.cache import findings
    from kling_nb.recovery.verify import verify_folder, verify_store

    found = verify_store(folder) if is_address(folder) else verify_folder(folder)
    _judge(findings(found), as_json=as_json)


@app.command()
def restore(
    notebook: Annotated[Path, typer.Argument(help="A saved notebook.")],
    *,
    look_in: Annotated[
        str | None,
        typer.Option("--from", metavar="PLACE", help="A folder to search for the clips, or s3://team/clips."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring back the clips of a notebook's receipts; sends no run."""
    from kling_nb.commands.cache import findings
    from kling_nb.recovery.restore import restore as bring_back

    _judge(findings(bring_back(notebook, look_in=look_in)), as_json=as_json)


def _judge(shown: "Answer", *, as_json: bool) -> None:
    _put(shown.text, shown.value, as_json=as_json)
    if not all(one["good"] for one in shown.value):
        raise typer.Exit(1)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def export(
    rest: typer.Context,
    layout: Annotated[
        str,
        typer.Argument(
            metavar="LAYOUT",
            help="vbench, videofolder ... or page",
            autocompletion=lambda incomplete: offered("export", incomplete),
        ),
    ],
    *,
    as_json: Json = False,
) -> None:
    """Lay clips out for another tool. The words after LAYOUT are those of `%kling export`.

    For example `export vbench --to clips --plan VBench_full_info.json --methods`, or `export crate`; run ids
    after LAYOUT choose runs. `export page NOTEBOOK --embed` makes one HTML page with the clips inside. Exit
    code 1 where a clip that the layout asks for, or the notebook shows, is missing.
    """
    made = _command("export", layout, *rest.args, as_json=as_json)
    if layout != "methods" and made["missing"]:
        raise typer.Exit(1)


@app.command()
def resolve(
    run: Annotated[
        str,
        typer.Argument(metavar="ID", help="The run: our id or the provider's.", autocompletion=_runs_like),
    ],
    *,
    attach: Annotated[str | None, typer.Option(metavar="PROVIDER_ID", help="Its id at the provider.")] = None,
    abandon: Annotated[bool, typer.Option("--abandon", help="It has none, or you give the run up.")] = False,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Say what became of a lost run; sends none. An attached one is fetched and settled."""
    words = [run, *([] if attach is None else [f"--attach={attach}"]), *(["--abandon"] if abandon else [])]
    _follow("resolve", words, timeout, as_json=as_json, clip=not abandon)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def adopt(
    rest: typer.Context,
    provider: Annotated[
        str,
        typer.Argument(
            metavar="PROVIDER",
            help="runflow or runcomfy.",
            autocompletion=lambda incomplete: offered("adopt", incomplete),
        ),
    ],
    provider_id: Annotated[str, typer.Argument(metavar="ID", help="The run's id there.")],
    *,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Bring in a run made elsewhere; sends none, fetches its clip.

    What RunComfy does not tell is said as in a cell: --prompt TEXT -d S --ar W:H --no-audio ...
    """
    _follow("adopt", [provider, provider_id, *rest.args], timeout, as_json=as_json)


def _follow(name: str, words: list[str], timeout: float | None, *, as_json: bool, clip: bool = True) -> None:
    from kling_nb.commands.run_line import run_words
    from kling_nb.engine.runs import Runs
    from kling_nb.session.api import current

    shown = run_words(current(), [name, *words])
    _finish(Runs(shown.runs), timeout, as_json=as_json, said=shown.text, clip=clip)


def _finish(runs: "Runs", timeout: float | None, *, as_json: bool, said: str = "", clip: bool = True) -> None:
    """Wait for runs and show them; without a clip of each, where one is due, it ended badly."""
    from kling_nb.records.receipt import to_receipt

    try:
        runs.wait(timeout)
    except WaitTimeoutError as error:
        sys.stderr.write(f"kling-nb: {error}\n")
    files = [os.path.relpath(run.path) for run in runs if run.path is not None]
    shown = [said, *map(repr, runs)] if said else [repr(runs)]
    _put("\n".join([*shown, *files]), [to_receipt(run.record) for run in runs], as_json=as_json)
    if clip and any(run.video is None for run in runs):
        raise typer.Exit(1)


def _command(*words: str, as_json: bool) -> Any:
    from kling_nb.commands.run_line import run_words
    from kling_nb.session.api import current

    shown = run_words(current(), words)
    _put(shown.fitted(_columns()), shown.value, as_json=as_json)
    return shown.value


def _columns(stream: IO[str] | None = None) -> int | None:
    """Give the width of the terminal; None where there is none."""
    return shutil.get_terminal_size().columns if (stream or sys.stdout).isatty() else None
