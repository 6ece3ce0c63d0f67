"""The help of `%%kling` and `%kling`: by group, in two columns that fit a terminal.

Invariants: everything comes from the tables of flags and subcommands; no line is wider than 88 characters.
"""

import textwrap
from collections.abc import Iterable, Sequence

from kling_nb.commands.syntax.flags import FLAGS
from kling_nb.commands.syntax.subcommands import COMMANDS

__all__ = ["Section", "cell_sections", "command_sections", "help_text"]

WIDTH = 88
_LEFT = 30

#: A sentence or example as it stands, or a heading with what can be typed and what that does.
Section = str | tuple[str, Sequence[tuple[str, str]]]

_EXAMPLES = (
    ("%%kling fox -d 5 --ar 9:16", "5 seconds, upright; the run is in the variable fox"),
    ("%%kling -n 3 --max-cost 2", "three takes, all together for at most $2"),
    ("%%kling --dry-run", "the price and the payload; nothing is sent"),
)
_STORYBOARD = (
    ("[5s] Wide shot of a vineyard", "one shot a line, its whole seconds first;"),
    ("[3s] Close-up of two hands", "text above the shots is for the whole clip"),
)


def cell_sections() -> list[Section]:
    """Give the help of `%%kling`."""
    groups = dict.fromkeys(flag.group for flag in FLAGS)
    return [
        "%%kling [DEST] [flags]",
        "The prompt is the text below the line; {{name}} puts in a variable of yours (str, int or float).",
        "It costs money, unless the clip is already here or the provider is the sandbox.",
        ("Examples", _EXAMPLES),
        ("Storyboard", _STORYBOARD),
        *((name, [(flag.shown, flag.help) for flag in FLAGS if flag.group == name]) for name in groups),
        "",
        "Underscores and hyphens are the same: --max_cost is --max-cost.",
    ]


def command_sections(name: str | None = None) -> list[Section]:
    """Give the help of `%kling`, or of one subcommand that exists."""
    if name is not None:
        (command,) = (command for command in COMMANDS if command.name == name)
        return [f"%kling {command.name} {command.usage}".rstrip(), f"  {command.help}"]
    groups = dict.fromkeys(command.group for command in COMMANDS)
    return [
        "",
        "%kling looks at runs and money; it never makes a run. `%kling help COMMAND` shows its flags.",
        *((group, [(f"%kling {c.name}", c.help) for c in COMMANDS if c.group == group]) for group in groups),
    ]


def help_text(sections: Iterable[Section]) -> str:
    r"""Lay sections out as plain text.

    Example:
        >>> help_text(["Hello.", ("Money", [("--price USD_PER_S", "dollars per second")])])
        'Hello.\n\nMoney\n  --price USD_PER_S             dollars per second'
    """
    return "\n".join(map(_laid_out, sections))


def _laid_out(section: Section) -> str:
    if isinstance(section, str):
        return "\n".join(_wrapped(section, indent=len(section) - len(section.lstrip())))
    heading, rows = section
    return "\n".join(["", heading, *(line for left, right in rows for line in _row(left, right))])


def _row(left: str, right: str) -> list[str]:
    words = _wrapped(right, width=WIDTH - _LEFT - 2)
    if len(left) > _LEFT - 2:
        words.insert(0, "")
    lefts = [f"  {left}"] + [""] * len(words)
    return [f"{start:<{_LEFT + 2}}{line}".rstrip() for start, line in zip(lefts, words, strict=False)]


def _wrapped(text: str, *, width: int = WIDTH, indent: int = 0) -> list[str]:
    return textwrap.wrap(
        text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
