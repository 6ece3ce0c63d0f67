"""What can be typed after `%kling`, as one table.

Invariants: the command's parser, the help, completion and the documentation all read this table, so that none
can promise what another does not keep; nothing heavy is imported, because completion reads it on a key press.
"""

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["COMMANDS", "Command", "command_help"]


@dataclass(frozen=True, kw_only=True)
class Command:
    """One subcommand of `%kling`.

    Args:
        name: As typed.
        usage: What may follow it.
        help: One line.
        loose: Whether words without a hyphen may follow it.
        switches: Its own flags that stand alone.
        values: Its own flags that take what follows them.
        choices: Words worth offering after it; without them, variables that hold runs where it takes an ID.

    Example:
        >>> COMMANDS[0].name
        'status'
    """

    name: str
    usage: str = ""
    help: str
    loose: bool = False
    switches: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()

    @property
    def flags(self) -> tuple[str, ...]:
        """Every flag of it."""
        return self.switches + self.values


COMMANDS: tuple[Command, ...] = (
    Command(name="status", help="what is on its way, the last run, and the money"),
    Command(
        name="list",
        usage="[--all] [-n N]",
        help="the newest 20 runs of the ledger, or N, or all",
        switches=("--all",),
        values=("-n",),
    ),
    Command(
        name="show",
        usage="[ID ...] [--embed MODE | --player]",
        loose=True,
        help="draw the card of a run again, of the last one by default; --embed auto, always, poster or "
        "never, as in a cell; --player plays it frame by frame",
        switches=("--player",),
        values=("--embed",),
    ),
    Command(
        name="compare",
        usage="ID ID ... [--end WHICH]",
        loose=True,
        help="clips side by side in lock step, until the longest is over or the shortest",
        values=("--end",),
    ),
    Command(
        name="gallery",
        usage="[ID ...] [--all | --tag K=V]",
        loose=True,
        help="a contact sheet of runs, the newest hundred by default; plays, filters, sorts and selects",
        switches=("--all",),
        values=("--tag",),
    ),
    Command(
        name="form",
        usage="[ID]",
        loose=True,
        help="a form with the price on its button; with ID it is filled in from that run, to vary it",
    ),
    Command(
        name="rate",
        usage="[ID ...] [--by WHAT] [--axes] [--rater NAME] [--table | --csv FILE [--allow-sandbox]]",
        loose=True,
        help="vote on pairs of clips, blind; --table shows the scores, --csv writes the votes",
        switches=("--axes", "--table", "--allow-sandbox"),
        values=("--by", "--rater", "--csv"),
    ),
    Command(
        name="wait",
        usage="[ID ...] [--timeout S]",
        loose=True,
        help="wait for runs; for all on their way in this kernel when none is named",
        values=("--timeout",),
    ),
    Command(name="cancel", usage="ID ...", loose=True, help="cancel a run, where its provider still can"),
    Command(
        name="resume",
        usage="[ID ...]",
        loose=True,
        help="take up runs again, all pending ones when none is named; never sends a new one",
    ),
    Command(
        name="resolve",
        usage="ID --attach PROVIDER_ID | --abandon",
        loose=True,
        help="say what became of a lost run: the provider has it under this id, or it is given up",
        switches=("--abandon",),
        values=("--attach",),
    ),
    Command(
        name="adopt",
        usage="PROVIDER ID [--prompt TEXT -d S --ar W:H --no-audio ... --private]",
        loose=True,
        help="bring in a run made elsewhere; runcomfy does not tell what it was asked for, so say it",
        switches=("--audio", "--no-audio", "--private"),
        values=(
            "--prompt",
            *("-f", "--file", "-d", "--duration", "--ar", "--aspect-ratio"),
            *("--negative", "--negative-prompt", "--cfg", "--cfg-scale", "--shot-type", "--params"),
            *("-m", "--model", "--take"),
        ),
        choices=("runflow", "runcomfy"),
    ),
    Command(
        name="cost",
        usage="[--all] [--by WHAT] [--since DAY] [--until DAY] [--project NAME] [--reconcile]",
        help="estimated, reported and settled, by provider and model, day and tag, or by what is said; of "
        "this session, or of the ledger; --reconcile asks the providers again, for free",
        switches=("--all", "--reconcile"),
        values=("--by", "--since", "--until", "--project"),
    ),
    Command(
        name="budget",
        usage="[--session NAME]",
        help="every cap: spent, reserved and left, and which is the tightest; with --session the session's "
        "sums outlive this kernel, and other kernels that name it share them",
        values=("--session",),
    ),
    Command(
        name="estimate",
        usage="[NOTEBOOK] [--headless]",
        loose=True,
        help="what running a saved notebook, or this one, would cost, cell by cell; without running it",
        switches=("--headless",),
    ),
    Command(
        name="models",
        usage="[--live]",
        help="models, and every price with source, date and age; --live reads RunComfy's own row, for free",
        switches=("--live",),
    ),
    Command(
        name="keys",
        usage="[--ask PROVIDER]",
        help="for which providers there is a key, and where from; --ask takes one for this session, unseen",
        values=("--ask",),
    ),
    Command(
        name="restore",
        usage="[NOTEBOOK] [--from FOLDER_OR_ADDRESS]",
        loose=True,
        help="bring back the clips a notebook's receipts tell of: from this machine, from an address as "
        "s3://team/clips, or from their providers",
        values=("--from",),
    ),
    Command(
        name="cache",
        usage="[--relink] [--prune [NAME ...] [--yes]]",
        loose=True,
        help="the clips beside the notebook; --relink finds moved ones by their bytes, --prune lists litter",
        switches=("--relink", "--prune", "--yes"),
    ),
    Command(
        name="export",
        usage="LAYOUT [ID ... | --provider P --model M --tag K=V] [--to FOLDER] [--plan FILE] "
        "[--samples N] [--split NAME] [--by WHAT] [--licence TEXT] [--methods] [--allow-sandbox] "
        "| page [NOTEBOOK] [--embed] [-o FILE] [--max-mb N]",
        loose=True,
        help="lay clips out as a tool asks for (vbench, videofolder ...), or votes, or pack a crate; "
        "--methods also writes what a paper needs; page makes one HTML page of a notebook, with --embed "
        "the clips are inside",
        switches=("--methods", "--allow-sandbox", "--embed"),
        values=(
            *("--to", "--plan", "--samples", "--split", "--by", "--licence", "-o", "--out", "--max-mb"),
            *("--provider", "--model", "--tag"),
        ),
        choices=(
            *("vbench", "vbench-custom", "vbench2", "video-bench", "t2v-compbench", "evalcrafter"),
            *(
                "phygenbench",
                "physics-iq",
                "videogen-eval",
                "videophy",
                "videoalign",
                "videofolder",
                "webdataset",
                "crate",
                "methods",
                "page",
            ),
        ),
    ),
    Command(name="config", help="the settings as they are now, and where each comes from"),
    Command(
        name="doctor",
        usage="[--online]",
        help="check this place; with --online also the keys, for free",
        switches=("--online",),
    ),
    Command(name="help", usage="[COMMAND]", loose=True, help="this"),
)


def _columns(rows: list[tuple[str, str]]) -> Iterator[str]:
    wide = max(len(left) for left, _ in rows)
    return (f"  {left:<{wide}}  {right}" for left, right in rows)


def command_help(name: str | None = None) -> str:
    r"""Write the help of `%kling`, or of one subcommand.

    Args:
        name: A subcommand that exists, or None for all.

    Returns:
        Plain text, made from `COMMANDS`.

    Example:
        >>> command_help("config")
        '%kling config\n  the settings as they are now, and where each comes from'
    """
    rows = [(f"%kling {command.name} {command.usage}".rstrip(), command.help) for command in COMMANDS]
    if name is not None:
        usage, words = rows[[command.name for command in COMMANDS].index(name)]
        return f"{usage}\n  {words}"
    return "\n".join(["%kling looks at runs and money; it never makes a run.", "", *_columns(rows)])
