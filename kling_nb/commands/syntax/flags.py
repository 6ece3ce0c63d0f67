"""What can be typed after `%%kling`, as one table.

Invariants: the parser, the help, completion and the documentation all read this table, so that none can
promise what another does not keep; nothing heavy is imported, because completion reads it on a key press.
"""

from dataclasses import dataclass, replace

__all__ = ["EXAMPLE", "FLAGS", "REFUSED", "Flag", "find_flag", "normal"]

EXAMPLE = "A red fox crosses fresh snow at dawn, slow dolly-in"


@dataclass(frozen=True)
class Flag:
    """One flag of `%%kling`, or an on and off pair.

    Args:
        name: What it sets.
        spellings: As typed; the `--no-` half of a pair turns it off.
        metavar: What follows it; empty for a switch.
        help: One line.
        group: Its heading in the help.
        choices: Values worth offering.
        repeat: Whether it may stand there more than once.

    Example:
        >>> find_flag("--dry_run").metavar
        ''
    """

    name: str
    spellings: tuple[str, ...]
    metavar: str
    help: str
    group: str = ""
    choices: tuple[str, ...] = ()
    repeat: bool = False

    @property
    def shown(self) -> str:
        """How the help writes it."""
        return ", ".join(self.spellings) + (f" {self.metavar}" if self.metavar else "")

    def turns_off(self, spelling: str) -> bool:
        """Whether this spelling is the off half of a pair."""
        return f"--no-{self.name}" == spelling


def _group(heading: str, *flags: Flag) -> tuple[Flag, ...]:
    return tuple(replace(flag, group=heading) for flag in flags)


FLAGS: tuple[Flag, ...] = (
    *_group(
        "Where",
        Flag("dest", ("-o", "--out"), "DEST", "variable that holds the run; the same as the bare DEST"),
        Flag(
            "provider",
            ("-p", "--provider"),
            "NAME",
            "runflow, runcomfy, sandbox (no key, play money) or auto",
            choices=("auto", "runflow", "runcomfy", "sandbox"),
        ),
        Flag("model", ("-m", "--model"), "NAME", "a model or its alias; see `%kling models`"),
    ),
    *_group(
        "The clip",
        Flag(
            "prompt_file", ("-f", "--file"), "FILE", "read the prompt from a UTF-8 file beside the notebook"
        ),
        Flag("duration", ("-d", "--duration"), "S", "whole seconds, 3 to 15; 5 unless shots say otherwise"),
        Flag(
            "aspect_ratio",
            ("--ar", "--aspect-ratio"),
            "W:H",
            "16:9 (the default), 9:16 or 1:1",
            choices=("16:9", "9:16", "1:1"),
        ),
        Flag(
            "audio",
            ("--audio", "--no-audio"),
            "",
            "with or without sound; without unless asked, because sound costs more",
        ),
        Flag(
            "negative_prompt",
            ("--negative", "--negative-prompt"),
            "TEXT",
            "what should not be seen, in quotes",
        ),
        Flag("cfg_scale", ("--cfg", "--cfg-scale"), "X", "how closely to follow the prompt, 0 to 1"),
        Flag(
            "shot_type",
            ("--shot-type",),
            "KIND",
            "who decides where the cuts are: customize (you) or intelligent (the model)",
            choices=("customize", "intelligent"),
        ),
        Flag(
            "params",
            ("--params",),
            "JSON|$DICT",
            "fields of the request, beneath the flags, e.g. '{\"cfg_scale\": 0.7}'",
        ),
    ),
    *_group(
        "Takes and kept clips",
        Flag(
            "takes",
            ("-n", "--takes"),
            "N",
            "N takes of the same request; those that are already here are not bought again",
        ),
        Flag("take", ("--take",), "K", "only take K, counted from 0"),
        Flag(
            "sweep",
            ("--sweep",),
            "KEY=A,B",
            "an axis: a clip for each value of a setting, or of {{KEY}} in the prompt; may be repeated",
            repeat=True,
        ),
        Flag("no_cache", ("--no-cache",), "", "buy again even though the clip is here"),
        Flag("cached_only", ("--cached-only",), "", "only show what is here, never send"),
        Flag("retry", ("--retry",), "", "buy again after a failure that was, or may have been, charged"),
    ),
    *_group(
        "Money",
        Flag(
            "max_cost",
            ("--max-cost",),
            "USD",
            "the most this cell may cost, all takes together, all or nothing",
        ),
        Flag("price", ("--price",), "USD_PER_S", "dollars per second to reserve where no price is known"),
        Flag("allow_unpriced", ("--allow-unpriced",), "", "go on although the price is unknown"),
    ),
    *_group(
        "Looking first",
        Flag("dry_run", ("--dry-run",), "", "show payload, price, reuse and budget; send nothing"),
        Flag(
            "dry_run_as",
            ("--as",),
            "KIND",
            "print the same call as curl or python, without the key; sends nothing either",
            choices=("curl", "python"),
        ),
    ),
    *_group(
        "Waiting and showing",
        Flag(
            "wait",
            ("--wait", "--no-wait"),
            "",
            "wait in the cell or not; without either it waits only where nobody is watching",
        ),
        Flag("timeout_s", ("--timeout",), "S", "seconds to wait at most; the run goes on"),
        Flag(
            "embed",
            ("--embed",),
            "MODE",
            "auto: the clip stays beside the notebook, and goes in, up to 5 MB, where the page needs "
            "that (VS Code, Colab); always: it goes in, a third more than its size, up to 40 MB; "
            "poster: its still and a link; never: a link",
            choices=("auto", "always", "poster", "never"),
        ),
        Flag("quiet", ("-q", "--quiet"), "", "show no card"),
    ),
    *_group(
        "Notes",
        Flag("tags", ("--tag",), "KEY=VALUE", "kept with the record; may be repeated", repeat=True),
        Flag("metadata", ("--metadata",), "JSON|$DICT", "sent along to Runflow and kept with the record"),
        Flag("callback_url", ("--callback-url",), "URL", "address that Runflow calls when the run has ended"),
        Flag(
            "private",
            ("--private",),
            "",
            "the words go to the provider alone; what is shown and shared has their hash",
        ),
        Flag("help", ("-h", "--help"), "", "show this"),
    ),
)

_NO_SEED = "Kling 3.0 takes no seed; another `--take` is another sample, and the record is the proof"
_NO_IMAGE = "this model makes video from text only"
_BY_MODEL = "the model decides it; see `%kling models` for the tiers"

#: Flags people know from elsewhere, and why they are not here.
REFUSED: dict[str, str] = {
    "--seed": _NO_SEED,
    **dict.fromkeys(("--image", "--images", "--start-image", "--end-image"), _NO_IMAGE),
    **dict.fromkeys(("--first-frame", "--last-frame", "--image-url", "--video"), _NO_IMAGE),
    **dict.fromkeys(("--fps", "--resolution", "--width", "--height", "--size"), _BY_MODEL),
    "--steps": "Kling 3.0 has no such setting",
    "--prompt": "the prompt is the cell's text, below the line",
    **dict.fromkeys(
        ("--yes", "-y"),
        "consent for a notebook that nobody watches is KLING_NB_YES=1, or a declared budget",
    ),
}

_BY_SPELLING = {spelling: flag for flag in FLAGS for spelling in flag.spellings}


def normal(spelling: str) -> str:
    """Write a flag with hyphens, as the table does.

    Example:
        >>> normal("--max_cost")
        '--max-cost'
    """
    return spelling.replace("_", "-")


def find_flag(spelling: str) -> Flag | None:
    """Find a flag by any of its spellings, hyphens and underscores being the same."""
    return _BY_SPELLING.get(normal(spelling))
