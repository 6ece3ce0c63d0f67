"""The text of a `%%kling` cell, read: its line, its body, its storyboard.

Invariants: what is wrong is a `UsageError` of one line, raised before anything is sent; nothing that looks
like a key is ever repeated; money is read as decimal digits and never as a float; the body is literal but
for `{{name}}`.

Not built on argparse, because it repeats values in its messages (a key, say), takes a quoted value that
begins with a hyphen for a flag, and cannot tell a lone second word (a prompt in the wrong place) from a flag.
"""

import re
import shlex
from collections import ChainMap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

from kling_nb.commands.syntax.cell_source import earlier_spellings
from kling_nb.commands.syntax.flags import EXAMPLE, FLAGS, REFUSED, Flag, find_flag, normal
from kling_nb.commands.syntax.prompt import fill_in, read_text
from kling_nb.commands.syntax.readers import READERS
from kling_nb.commands.syntax.storyboard import read_storyboard
from kling_nb.commands.syntax.values import check_text, identifier, shown, wrong
from kling_nb.errors import UsageError, did_you_mean
from kling_nb.records.request import OTHER_NAMES, TextToVideo, make_request
from kling_nb.records.run import Mode
from kling_nb.session.plan import Ask

__all__ = ["CellOrder", "HelpWantedError", "parse_cell", "parse_request"]


_EXCLUSIVE = (
    *(("takes", "take"), ("no_cache", "cached_only"), ("retry", "cached_only")),
    # A sweep is one object with a card of its own.
    *(
        ("sweep", other)
        for other in (
            *("no_cache", "cached_only", "retry", "metadata", "callback_url", "price", "allow_unpriced"),
            *("dry_run_as", "embed", "quiet"),
        )
    ),
    # The call as code has the words in it, and an output is saved.
    ("private", "dry_run_as"),
)

_CURE = "See `%kling help`."


class HelpWantedError(UsageError):
    """`--help` stands among other flags: nothing is sent, and the help should be shown."""


@dataclass(frozen=True, kw_only=True)
class CellOrder:
    """What a cell asks for.

    Args:
        dest: The variable to bind, or None.
        fields: For `kling_nb.records.request.make_request`; only what was given.
        options: The other fields of the call, see `Ask`; only what was given.
        dry_run: Send nothing, show the plan.
        dry_run_as: Show the plan as a call of this kind.
        quiet: Show no card.
        embed: What of a clip goes into its card; None leaves it to the settings.
        wait: Wait in the cell; None leaves it to whether anybody watches.
        timeout_s: Seconds to wait at most.
        sweep: The values of each axis, where it asks for a sweep; these names stay open in the prompt.
        rendered: The body after `{{name}}`.
    """

    dest: str | None = None
    fields: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    dry_run: bool = False
    dry_run_as: Literal["curl", "python"] | None = None
    quiet: bool = False
    embed: Mode | None = None
    wait: bool | None = None
    timeout_s: float | None = None
    sweep: dict[str, list[Any]] = field(default_factory=dict)
    rendered: str = ""

    @cached_property
    def ask(self) -> Ask:
        """The call; a `UsageError` where the request it describes cannot be made, or is a sweep's."""
        if self.sweep:
            raise wrong("--sweep asks for many clips at once.", "Only a cell takes it; see `kling-nb sweep`.")
        return Ask(request=make_request(**self.fields), **self.options)


def parse_cell(line: str, body: str, names: Mapping[str, Any], *, folder: Path) -> CellOrder:
    """Read a cell.

    Args:
        line: What follows `%%kling`, as IPython gives it without expanding it.
        body: The lines below it.
        names: The notebook's variables, for `{{name}}` and `$name`.
        folder: What a relative `--file` is relative to.

    Returns:
        What it asks for; the request itself is checked by `make_request`.

    Raises:
        UsageError: Something is wrong; nothing was sent. `HelpWantedError` where `--help` stands in the line.

    Example:
        >>> parse_cell("fox -d 3", "A red fox", {}, folder=Path()).fields
        {'prompt': 'A red fox', 'duration': 3}
    """
    given, loose = _scan(_split(line), names)
    asked = dict(given)
    for one, other in _EXCLUSIVE:
        if one in given and other in given:
            raise wrong(f"{_spelling(one)} and {_spelling(other)} exclude each other.", "Leave one out.")
    # The axes of a sweep are filled in later, each value in its turn.
    axes = {name: f"{{{{{name}}}}}" for name in given.get("sweep", ())}
    names = ChainMap(axes, cast("dict[str, Any]", names))
    text = fill_in(read_text(body, given.pop("prompt_file", None), folder), names)
    fields = _fields(given, text)
    if not fields.get("prompt") and not fields.get("shots"):
        raise wrong("The prompt is empty.", f"Write it below the line, e.g. `{EXAMPLE}`.")
    takes = given.pop("takes", None)
    one_take = given.pop("take", None)
    if given.get("dry_run_as"):
        given["dry_run"] = True
    options = {name: given.pop(name) for name in Ask.__dataclass_fields__ if name in given}
    options["takes"] = tuple(range(takes)) if takes is not None else (one_take or 0,)
    # What it asked for while IPython still edited the body.
    options["earlier"] = tuple(_earlier(asked, body, names))
    return CellOrder(
        dest=_dest(loose, given.pop("dest", None)),
        fields=fields,
        options=options,
        rendered=text.strip(),
        **given,
    )


def parse_request(
    words: list[str], prompt: str, names: Mapping[str, Any], *, folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the flags that say what a clip was asked for, where nothing is asked now.

    Args:
        words: Flags of `%%kling`, with their values.
        prompt: The prompt, with `{{name}}` as in a cell; empty for none.
        names: The notebook's variables.
        folder: What a relative `--file` is relative to.

    Returns:
        The fields of the request that were given, and the other flags by name.

    Raises:
        UsageError: Something is wrong with them.

    Example:
        >>> parse_request(["-d", "3", "--take", "1"], "A red fox", {}, folder=Path())
        ({'prompt': 'A red fox', 'duration': 3}, {'take': 1})
    """
    given, _ = _scan(words, names)
    text = read_text(prompt, given.pop("prompt_file", None), folder)
    return _fields(given, fill_in(text, names)), given


def _earlier(given: dict[str, Any], body: str, names: Mapping[str, Any]) -> Iterator[TextToVideo]:
    for text in earlier_spellings(body):
        # What could not be asked for in that spelling was not bought under it.
        with suppress(UsageError):
            yield make_request(**_fields(dict(given), fill_in(text, names)))


def _fields(given: dict[str, Any], text: str) -> dict[str, Any]:
    """Take the fields of the request out of what was given: flags over the text over `--params`."""
    flags = {name: given.pop(name) for name in TextToVideo.model_fields if name in given}
    fields: dict[str, Any] = given.pop("params", {}) | read_storyboard(text) | flags
    for name, value in fields.items():
        if isinstance(value, str):
            check_text(value, name)
    return fields


def _spelling(name: str) -> str:
    return next(flag.spellings[-1] for flag in FLAGS if flag.name == name)


# -- the line ------------------------------------------------------------------
def _split(line: str) -> list[str]:
    check_text(line, "the line")
    try:
        words = shlex.split(line)
    except ValueError:
        cure = "Close it, or write \\' for the sign itself (and \\\\ for a backslash)."
        raise wrong("A quote or a backslash in the line is left open.", cure) from None
    # IPython's habit: a semicolon at the end silences the output of the cell.
    if line.rstrip().endswith(";") and words:
        words[-1] = words[-1].removesuffix(";")
        words = words if words[-1] else words[:-1]
    if len(words) > 1 and words[1] == "<<":
        words = ["--out", words[0], *words[2:]]
    elif words and words[0].endswith("<<"):
        words = ["--out", words[0].removesuffix("<<"), *words[1:]]
    return words


def _scan(words: list[str], names: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Sort words into values by name, and loose words."""
    if any(normal(word) in {"-h", "--help"} for word in words):
        raise HelpWantedError("Nothing was sent: --help was asked for.", cure="`%kling help` shows it.")
    given: dict[str, Any] = {}
    loose: list[str] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word == "-":
            loose.append(word)
            continue
        spelling, flag, new = _read(word, rest, names)
        before = given.get(flag.name, new)
        if flag.repeat:
            clash = sorted(key for key in new if before.get(key, new[key]) != new[key])
            if clash:
                raise wrong(f"{spelling} gives {shown(clash[0])} two values.", "Leave one out.")
            new = before | new
        elif flag.name in given and (isinstance(new, dict) or before != new):
            twice = f"{spelling} twice, differently" if flag.metavar else " and ".join(flag.spellings)
            raise wrong(f"The line has {twice}.", "Leave one out.")
        given[flag.name] = new
    return given, loose


def _read(word: str, rest: Iterator[str], names: Mapping[str, Any]) -> tuple[str, Flag, Any]:
    """Read one flag and its value, which may be the next word."""
    spelling, flag, value = _flag(word)
    if not flag.metavar:
        if value is not None:
            raise wrong(f"{spelling} takes no value.")
        return spelling, flag, not flag.turns_off(spelling)
    if value is None:
        value = next(rest, None)
        if value is None or find_flag(value):
            raise wrong(f"{spelling} needs a value: {flag.shown}.")
    return spelling, flag, READERS[flag.name](spelling, value, names)


def _flag(word: str) -> tuple[str, Flag, str | None]:
    """Find the flag that a word is, with the value that is joined to it."""
    spelling, joined, value = word.partition("=")
    spelling = normal(spelling)
    flag = find_flag(spelling)
    if flag is None and not joined and re.fullmatch(r"-[a-zA-Z][0-9.]+", word):
        spelling, value, joined = word[:2], word[2:], "joined"
        flag = find_flag(spelling)
    if flag is not None:
        return spelling, flag, value if joined else None
    if re.search(r"key|token|secret|password|bearer", spelling, re.IGNORECASE):
        raise wrong(
            "A key is not taken in the line, where it would be saved with the notebook.",
            "If it was a real one, delete it there and replace it at the provider; set RUNFLOW_API_KEY or "
            "RUNCOMFY_API_TOKEN in the environment; see `%kling keys`.",
        )
    if spelling in REFUSED:
        raise wrong(f"There is no {spelling}: {REFUSED[spelling]}.", "Leave it out.")
    known = [*(s for f in FLAGS for s in f.spellings if s.startswith("--"))]
    bare = spelling.lstrip("-")
    meant = "--" + OTHER_NAMES.get(bare.replace("-", "_"), bare).replace("_", "-")
    cure = did_you_mean(meant, [*known, *REFUSED], _CURE)
    for other, why in REFUSED.items():
        if cure == f"Did you mean {other}?":
            cure = f"There is no {other} either: {why}."
    raise wrong(f"There is no flag {shown(spelling)}.", cure)


def _dest(loose: list[str], named: str | None) -> str | None:
    if len(loose) > 1:
        raise wrong(
            f"Only the name of one variable may stand in the line, and {shown(loose[1])} is a second word.",
            "The prompt goes below the line; a value with spaces goes in quotes.",
        )
    found: list[str] = []
    for typed in (*loose, *([] if named is None else [named])):
        name = identifier(typed)
        if name is None:
            raise wrong(
                f"{shown(typed)} cannot be the name of a variable.",
                "Name one as in `%%kling fox`; the prompt goes below the line.",
            )
        found.append(name)
    if len(set(found)) > 1:
        raise wrong(f"The line names two variables, {' and '.join(map(shown, found))}.", "Leave one out.")
    return found[0] if found else None
