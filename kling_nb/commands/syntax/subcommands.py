"""What can be typed after `%kling`, as one table.

Invariants: the command's parser, the help, completion and the documentation all read this table, so that none
can promise what another does not keep; nothing heavy is imported, because completion reads it on a key press.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

__all__ = ["COMMANDS", "DIMENSIONS", "Command", "offered"]


#: What a cost can be arranged by; `tag:` goes on with the name of a tag.
DIMENSIONS = (
    *("provider", "model", "day", "tag", "session", "user", "project", "notebook", "run"),
    "tag:",
)
_COMPARED = ("model", "provider", "tag:")

#: A flag in a usage, and in capitals what follows it, if something does.
_FLAG = re.compile(r"(--?[a-z][a-z-]*)(?: ([A-Z][\w:=]*))?")


@dataclass(frozen=True)
class Command:
    """One subcommand of `%kling`.

    Args:
        name: As typed.
        usage: What may follow it: its flags and, in capitals, what they and the command itself take.
        help: One line.
        group: Its heading in the help.
        more_switches: Further flags that stand alone.
        more_values: Further flags that take what follows them.
        choices: Words worth offering after it.
        offers: What is worth offering after a flag.

    Example:
        >>> COMMANDS[0].name
        'status'
    """

    name: str
    usage: str
    help: str
    group: str = ""
    more_switches: tuple[str, ...] = ()
    more_values: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    offers: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    @property
    def runs(self) -> bool:
        """Whether the ids of runs of ours may follow it."""
        return re.search(r"^(LAYOUT )?\[?ID\b", self.usage) is not None

    @property
    def loose(self) -> bool:
        """Whether words without a hyphen may follow it."""
        return re.search("[A-Z]", _FLAG.sub("", self.usage)) is not None

    @property
    def values(self) -> tuple[str, ...]:
        """Its flags that take what follows them."""
        return (*(flag for flag, value in _FLAG.findall(self.usage) if value), *self.more_values)

    @property
    def flags(self) -> tuple[str, ...]:
        """Every flag of it."""
        return (*(flag for flag, _ in _FLAG.findall(self.usage)), *self.more_switches, *self.more_values)


def _group(heading: str, *commands: Command) -> tuple[Command, ...]:
    return tuple(replace(command, group=heading) for command in commands)


COMMANDS: tuple[Command, ...] = (
    *_group(
        "Runs",
        Command("status", "", "what is on its way, the last run, and the money"),
        Command("list", "[--all] [-n N]", "the newest 20 runs of the ledger, or N, or all"),
        Command("sweeps", "", "the newest 20 sweeps of the ledger: how far each is, and what it cost"),
        Command(
            "show",
            "[ID ...] [--embed MODE | --player]",
            "draw the card of a run again, of the last one by default; --embed auto, always, poster or "
            "never, as in a cell; --player plays it frame by frame",
            offers={"--embed": ("auto", "always", "poster", "never")},
        ),
        Command(
            "wait",
            "[ID ...] [--timeout S]",
            "wait for runs; for all on their way in this kernel when none is named",
        ),
        Command("cancel", "ID ...", "cancel a run, where its provider still can"),
        Command(
            "resume",
            "[ID ...]",
            "take up runs again, all pending ones when none is named; never sends a new one",
        ),
        Command(
            "resolve",
            "ID --attach PROVIDER_ID | --abandon",
            "say what became of a lost run: the provider has it under this id, or it is given up",
        ),
        Command(
            "adopt",
            "PROVIDER ID [--prompt TEXT -d S --ar W:H --no-audio ... --private]",
            "bring in a run made elsewhere; RunComfy does not say what was asked for, so give it here",
            more_switches=("--audio",),
            more_values=(
                *("-f", "--file", "--duration", "--aspect-ratio", "--negative", "--negative-prompt"),
                *("--cfg", "--cfg-scale", "--shot-type", "--params", "-m", "--model", "--take"),
            ),
            choices=("runflow", "runcomfy"),
        ),
    ),
    *_group(
        "Making and judging clips",
        Command(
            "form",
            "[ID]",
            "a form with the price on its button; with ID it is filled in from that run, to vary it",
        ),
        Command(
            "compare",
            "ID ID ... [--end WHICH]",
            "clips side by side in lock step, until the longest is over or the shortest",
            offers={"--end": ("longest", "shortest")},
        ),
        Command(
            "gallery",
            "[ID ...] [--all | --tag K=V]",
            "a contact sheet of runs, the newest hundred by default; plays, filters, sorts and selects",
        ),
        Command(
            "rate",
            "[ID ...] [--by WHAT] [--axes] [--rater NAME] [--table | --csv FILE [--allow-sandbox]]",
            "vote on pairs of clips, blind; --table shows the scores, --csv writes the votes",
            offers={"--by": _COMPARED},
        ),
    ),
    *_group(
        "Money",
        Command(
            "cost",
            "[--all] [--by WHAT] [--since DAY] [--until DAY] [--project NAME] [--reconcile]",
            "estimated, reported and settled, by provider and model, day and tag, or by what you name; of "
            "this session, or of the ledger; --reconcile asks the providers again, for free",
            offers={"--by": DIMENSIONS},
        ),
        Command(
            "budget",
            "[--session NAME]",
            "every cap: spent, reserved and left, and which leaves least; with --session the "
            "session's sums outlive this kernel, and other kernels that name it share them",
        ),
        Command(
            "estimate",
            "[NOTEBOOK] [--headless]",
            "what running a saved notebook, or this one, would cost, cell by cell; without running it",
        ),
        Command(
            "models",
            "[--live]",
            "models, and every price with source, date and age; --live reads RunComfy's own row, for free",
        ),
    ),
    *_group(
        "Keeping and sharing",
        Command(
            "restore",
            "[NOTEBOOK] [--from FOLDER_OR_ADDRESS]",
            "bring back the clips a notebook's receipts tell of: from this machine, from an address as "
            "s3://team/clips, or from their providers",
        ),
        Command(
            "cache",
            "[--relink] [--prune [NAME ...] [--yes]]",
            "the clips beside the notebook; --relink finds moved ones by their bytes, --prune lists litter",
        ),
        Command(
            "export",
            "LAYOUT [ID ... | --provider P --model M --tag K=V] [--to FOLDER] [--plan FILE] [--samples "
            "N] [--split NAME] [--by WHAT] [--licence TEXT] [--methods] [--allow-sandbox] | page "
            "[NOTEBOOK] [--embed] [-o FILE] [--max-mb N]",
            "lay clips out the way a tool expects them (vbench, videofolder ...), or votes, or pack a crate; "
            "--methods also writes what a paper needs; page makes one HTML page of a notebook, with "
            "--embed the clips are inside",
            more_values=("--out",),
            offers={"--by": _COMPARED, "--provider": ("runflow", "runcomfy", "sandbox")},
            choices=(
                *("vbench", "vbench-custom", "vbench2", "video-bench", "t2v-compbench", "evalcrafter"),
                *("phygenbench", "physics-iq", "videogen-eval", "videophy", "videoalign"),
                *("videofolder", "webdataset", "crate", "methods", "page"),
            ),
        ),
    ),
    *_group(
        "This installation",
        Command(
            "keys",
            "[--ask PROVIDER]",
            "for which providers there is a key, and from where; --ask takes one for this session, hidden as "
            "you type",
            offers={"--ask": ("runflow", "runcomfy")},
        ),
        Command("config", "", "the settings as they are now, and where each comes from"),
        Command("doctor", "[--online]", "check this installation; with --online also the keys, for free"),
        Command("help", "[COMMAND]", "this help, or all of one command"),
    ),
)


def offered(command: str, incomplete: str, flag: str = "") -> list[str]:
    """Complete, for a shell, what may follow a command or one of its flags.

    Args:
        command: Its name.
        incomplete: What is typed of it.
        flag: The flag; empty for the command itself.

    Example:
        >>> offered("export", "vb"), offered("cost", "pro", "--by")
        (['vbench', 'vbench-custom', 'vbench2'], ['provider', 'project'])
    """
    found = next(one for one in COMMANDS if one.name == command)
    return [each for each in (found.offers.get(flag) or found.choices) if each.startswith(incomplete)]
