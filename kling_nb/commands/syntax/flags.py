"""What can be typed after `%%kling`, as one table.

Invariants: the parser, the help, completion and the documentation all read this table, so that none can
promise what another does not keep; nothing heavy is imported, because completion reads it on a key press.
"""

from dataclasses import dataclass

__all__ = ["EXAMPLE", "FLAGS", "REFUSED", "Flag", "cell_help", "find_flag", "normal"]

EXAMPLE = "A red fox crosses fresh snow at dawn, slow dolly-in"


@dataclass(frozen=True, kw_only=True)
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
    metavar: str = ""
    help: str
    group: str
    choices: tuple[str, ...] = ()
    repeat: bool = False

    @property
    def shown(self) -> str:
        """How the help writes it."""
        return ", ".join(self.spellings) + (f" {self.metavar}" if self.metavar else "")

    def turns_off(self, spelling: str) -> bool:
        """Whether this spelling is the off half of a pair."""
        return f"--no-{self.name}" == spelling


_CLIP, _WHERE, _TAKES, _MONEY = "The clip", "Where", "Takes and kept clips", "Money"
_LOOK, _WAIT, _NOTES = "Looking first", "Waiting and showing", "Notes"

FLAGS: tuple[Flag, ...] = (
    Flag(
        name="dest",
        spellings=("-o", "--out"),
        metavar="DEST",
        help="variable that holds the run; the same as the bare DEST",
        group=_WHERE,
    ),
    Flag(
        name="provider",
        spellings=("-p", "--provider"),
        metavar="NAME",
        help="runflow, runcomfy, sandbox (no key, play money) or auto",
        group=_WHERE,
        choices=("auto", "runflow", "runcomfy", "sandbox"),
    ),
    Flag(
        name="model",
        spellings=("-m", "--model"),
        metavar="NAME",
        help="a model or its alias; see `%kling models`",
        group=_WHERE,
    ),
    Flag(
        name="prompt_file",
        spellings=("-f", "--file"),
        metavar="FILE",
        help="read the prompt from a UTF-8 file beside the notebook",
        group=_CLIP,
    ),
    Flag(
        name="duration",
        spellings=("-d", "--duration"),
        metavar="S",
        help="whole seconds, 3 to 15; 5 unless shots say otherwise",
        group=_CLIP,
    ),
    Flag(
        name="aspect_ratio",
        spellings=("--ar", "--aspect-ratio"),
        metavar="W:H",
        help="16:9 (the default), 9:16 or 1:1",
        group=_CLIP,
        choices=("16:9", "9:16", "1:1"),
    ),
    Flag(
        name="audio",
        spellings=("--audio", "--no-audio"),
        help="with or without sound; without unless asked, because sound costs more",
        group=_CLIP,
    ),
    Flag(
        name="negative_prompt",
        spellings=("--negative", "--negative-prompt"),
        metavar="TEXT",
        help="what should not be seen, in quotes",
        group=_CLIP,
    ),
    Flag(
        name="cfg_scale",
        spellings=("--cfg", "--cfg-scale"),
        metavar="X",
        help="how closely to follow the prompt, 0 to 1",
        group=_CLIP,
    ),
    Flag(
        name="shot_type",
        spellings=("--shot-type",),
        metavar="KIND",
        help="who decides where the cuts are: customize (you) or intelligent (the model)",
        group=_CLIP,
        choices=("customize", "intelligent"),
    ),
    Flag(
        name="params",
        spellings=("--params",),
        metavar="JSON|$DICT",
        help="fields of the request, beneath the flags, e.g. '{\"cfg_scale\": 0.7}'",
        group=_CLIP,
    ),
    Flag(
        name="takes",
        spellings=("-n", "--takes"),
        metavar="N",
        help="N takes of the same request; those that are already here are not bought again",
        group=_TAKES,
    ),
    Flag(name="take", spellings=("--take",), metavar="K", help="only take K, counted from 0", group=_TAKES),
    Flag(
        name="no_cache",
        spellings=("--no-cache",),
        help="buy again even though the clip is here",
        group=_TAKES,
    ),
    Flag(
        name="cached_only",
        spellings=("--cached-only",),
        help="only show what is here, never send",
        group=_TAKES,
    ),
    Flag(
        name="retry",
        spellings=("--retry",),
        help="buy again after a failure that was, or may have been, charged",
        group=_TAKES,
    ),
    Flag(
        name="max_cost",
        spellings=("--max-cost",),
        metavar="USD",
        help="the most this cell may cost, all takes together, all or nothing",
        group=_MONEY,
    ),
    Flag(
        name="price",
        spellings=("--price",),
        metavar="USD_PER_S",
        help="dollars per second to reserve where no price is known",
        group=_MONEY,
    ),
    Flag(
        name="allow_unpriced",
        spellings=("--allow-unpriced",),
        help="go on although nobody knows the price",
        group=_MONEY,
    ),
    Flag(
        name="dry_run",
        spellings=("--dry-run",),
        help="show payload, price, reuse and budget; send nothing",
        group=_LOOK,
    ),
    Flag(
        name="dry_run_as",
        spellings=("--as",),
        metavar="KIND",
        help="print the same call as curl or python, without the key; sends nothing either",
        group=_LOOK,
        choices=("curl", "python"),
    ),
    Flag(
        name="wait",
        spellings=("--wait", "--no-wait"),
        help="wait in the cell or not; without either it waits only where nobody is watching",
        group=_WAIT,
    ),
    Flag(
        name="timeout_s",
        spellings=("--timeout",),
        metavar="S",
        help="seconds to wait at most; the run goes on",
        group=_WAIT,
    ),
    Flag(
        name="embed",
        spellings=("--embed",),
        metavar="MODE",
        help="auto: the clip stays beside the notebook, and goes in, up to 5 MB, where the page needs that "
        "(VS Code, Colab); always: it goes in, a third more than its size, up to 40 MB; poster: its still "
        "and a link; never: a link",
        group=_WAIT,
        choices=("auto", "always", "poster", "never"),
    ),
    Flag(name="quiet", spellings=("-q", "--quiet"), help="show no card", group=_WAIT),
    Flag(
        name="tags",
        spellings=("--tag",),
        metavar="KEY=VALUE",
        help="kept with the record; may be repeated",
        group=_NOTES,
        repeat=True,
    ),
    Flag(
        name="metadata",
        spellings=("--metadata",),
        metavar="JSON|$DICT",
        help="sent along to Runflow and kept with the record",
        group=_NOTES,
    ),
    Flag(
        name="private",
        spellings=("--private",),
        help="the words go to the provider alone; what is shown and shared has their hash",
        group=_NOTES,
    ),
    Flag(name="help", spellings=("-h", "--help"), help="show this", group=_NOTES),
)

_NO_SEED = "Kling 3.0 takes no seed; another `--take` is another sample, and the record is the proof"
_NO_IMAGE = "this model makes video from text only"
_BY_MODEL = "the model decides it; see `%kling models` for the tiers"

#: Flags people know from elsewhere, and why they are not here.
REFUSED: dict[str, str] = {
    "--seed": _NO_SEED,
    **dict.fromkeys(
        (
            "--image",
            "--images",
            "--start-image",
            "--end-image",
            "--first-frame",
            "--last-frame",
            "--image-url",
            "--video",
        ),
        _NO_IMAGE,
    ),
    **dict.fromkeys(("--fps", "--resolution", "--width", "--height", "--size"), _BY_MODEL),
    "--steps": "Kling 3.0 has no such setting",
    "--prompt": "the prompt is the cell's text, below the line",
    "--yes": "consent for a notebook that nobody watches is KLING_NB_YES=1, or a declared budget",
    "-y": "consent for a notebook that nobody watches is KLING_NB_YES=1, or a declared budget",
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


def cell_help() -> str:
    """Write the help of `%%kling`.

    Returns:
        Plain text, made from `FLAGS`.

    Example:
        >>> "--max-cost USD" in cell_help()
        True
    """
    lines = [
        "%%kling [DEST] [flags]",
        "prompt: literal text, except {{name}} for a variable of yours (str, int or float)",
        "",
        "Costs money, unless the clip is already here or the provider is the sandbox.",
        "A storyboard has one shot a line, its whole seconds first; text above the shots goes beside them:",
        "  [5s] Wide establishing shot of a vineyard at golden hour",
        "  [3s] Close-up: two hands meet across a table",
    ]
    wide = max(len(flag.shown) for flag in FLAGS)
    for group in dict.fromkeys(flag.group for flag in FLAGS):
        lines += ["", f"{group}:"]
        lines += [f"  {flag.shown:<{wide}}  {flag.help}" for flag in FLAGS if flag.group == group]
    return "\n".join([*lines, "", "Underscores and hyphens are the same: --max_cost is --max-cost."])
