"""Completion of flags, values, runs and subcommands in `%%kling` and `%kling` lines; `{{names}}` below.

Invariants: only the magic's own line and an open `{{` are touched, and there Python names give way; nothing
heavy is imported, because `%load_ext` loads this and a key press runs it, except to look for runs; what is
looked up is the shipped catalog, the names of variables, and the newest runs of a ledger that is there.
"""

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from IPython import get_ipython
from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

if TYPE_CHECKING:
    from kling_nb.commands.syntax.flags import Flag
    from kling_nb.commands.syntax.subcommands import Command

__all__ = ["install", "matcher", "remove"]

_CELL = re.compile(r"%%kling\s(.*)", re.DOTALL)
_LINE = re.compile(r"\s*%kling\s(.*)", re.DOTALL)
_OPEN = re.compile(r"\{\{\s*(\w*)$")
_TEXTS = ("str", "int", "float")
_RUNS = ("Run", "Runs")


@context_matcher(identifier="kling_nb")  # type: ignore[untyped-decorator]  # IPython gives it no type
def matcher(context: CompletionContext) -> SimpleMatcherResult:
    """Offer what may stand at the cursor.

    Args:
        context: Text and cursor, as IPython gives them.

    Returns:
        Flags, values or subcommands, which then stand alone; or nothing, which leaves the place to others.

    Example:
        >>> cursor = {"cursor_line": 0, "cursor_position": 10, "limit": None}
        >>> matcher(CompletionContext(token="mod", full_text="%kling mod", **cursor))["completions"][0].text
        'models'
    """
    lines = context.full_text.split("\n")
    above = (
        number for number, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")
    )
    first = next(above, 0)
    before = lines[context.cursor_line][: context.cursor_position]
    if context.cursor_line == first and (cell := _CELL.fullmatch(before)):
        return _result(*_of_cell(cell[1]))
    if line := _LINE.fullmatch(before):
        return _result(*_of_line(line[1]))
    if context.cursor_line > first and lines[first].startswith("%%kling") and (name := _OPEN.search(before)):
        # Front ends close the braces by themselves.
        closing = "" if lines[context.cursor_line][context.cursor_position :].startswith("}}") else "}}"
        return _result(name[1], tuple(f"{word}{closing}" for word in _variables(*_TEXTS)))
    # A new one each time, because IPython writes into it.
    return SimpleMatcherResult(completions=[], suppress=False)


def install(ip: Any) -> None:
    """Put the matcher into a shell, once.

    Args:
        ip: The shell.
    """
    remove(ip)
    ip.Completer.custom_matchers.append(matcher)


def remove(ip: Any) -> None:
    """Take the matcher out of a shell, also one of an earlier import of this module.

    Args:
        ip: The shell.
    """
    ip.Completer.custom_matchers[:] = [
        other
        for other in ip.Completer.custom_matchers
        if getattr(other, "matcher_identifier", None) != matcher.matcher_identifier
    ]


def _result(fragment: str, offers: tuple[str, ...], kind: str = "param") -> SimpleMatcherResult:
    """Give what continues the fragment; the fragment is named, because IPython cuts at `-`, `=` and `:`."""
    fitting = [SimpleCompletion(offer, type=kind) for offer in offers if offer.startswith(fragment)]
    return SimpleMatcherResult(completions=fitting, suppress=True, matched_fragment=fragment, ordered=True)


def _words(text: str) -> tuple[list[str], str]:
    """Split a line into whole words and the one at the cursor; quotes do not matter here."""
    words = text.split()
    return (words, "") if not words or text[-1].isspace() else (words[:-1], words[-1])


def _of_cell(text: str) -> tuple[str, tuple[str, ...]]:
    from kling_nb.commands.syntax.flags import find_flag

    words, fragment = _words(text)
    joined, sign, value = fragment.partition("=")
    if sign and (flag := find_flag(joined)):
        return value, _values(flag)
    if words and (flag := find_flag(words[-1])) and flag.metavar:
        return fragment, _values(flag)
    used = {flag.name for word in words if (flag := find_flag(word.partition("=")[0])) and not flag.repeat}
    if "_" in fragment.lstrip("-"):
        offers = tuple(offer[:2] + offer[2:].replace("-", "_") for offer in _spellings(used))
    else:
        offers = _spellings(used)
    return fragment, offers


def _spellings(used: set[str]) -> tuple[str, ...]:
    from kling_nb.commands.syntax.flags import FLAGS

    return tuple(
        spelling
        for flag in FLAGS
        if flag.name not in used
        for spelling in flag.spellings
        if spelling.startswith("--")
    )


def _values(flag: "Flag") -> tuple[str, ...]:
    if flag.name == "model":
        return _model_names()
    if flag.name in {"params", "metadata"}:
        return tuple(f"${name}" for name in _variables("dict"))
    return flag.choices


def _variables(*kinds: str) -> tuple[str, ...]:
    """Name the user's variables of these kinds; by the kind's name, so that its module is not imported."""
    shell = get_ipython()
    return tuple(
        name
        for name, value in (dict(shell.user_ns) if shell else {}).items()
        if type(value).__name__ in kinds and not name.startswith("_")
    )


@cache
def _model_names() -> tuple[str, ...]:
    """Read ids and aliases without the catalog's own module, which brings pydantic."""
    import tomllib
    from importlib.resources import files

    table = tomllib.loads(files("kling_nb.pricing").joinpath("catalog.toml").read_text(encoding="utf-8"))
    return tuple(name for model, entry in table.items() for name in (*entry.get("aliases", ()), model))


def _of_line(text: str) -> tuple[str, tuple[str, ...], str]:
    from kling_nb.commands.syntax.subcommands import COMMANDS

    words, fragment = _words(text)
    names = tuple(command.name for command in COMMANDS)
    if not words or words == ["help"]:
        return fragment, names, "keyword"
    command = next((command for command in COMMANDS if command.name == words[0]), None)
    if command is None:
        return fragment, (), "keyword"
    flag, sign, value = fragment.partition("=")
    if flag in command.values and sign:
        return value, _after(command, flag, value), "param"
    if words[-1] in command.values:
        return fragment, _after(command, words[-1], fragment), "param"
    if fragment.startswith("$"):
        return fragment, tuple(f"${name}" for name in _variables(*_RUNS, "list", "tuple", *_TEXTS)), "param"
    loose: tuple[str, ...] = ()
    if not fragment.startswith("-"):
        chosen = any(word in words for word in command.choices)
        runs = (*_variables(*_RUNS), *_recent()) if command.runs else ()
        loose = command.choices if command.choices and not chosen else runs
    return fragment, tuple(offer for offer in (*loose, *command.flags) if offer not in words), "param"


def _after(command: "Command", flag: str, fragment: str) -> tuple[str, ...]:
    """What may follow a flag: of `provider,day` the last part is completed."""
    from kling_nb.commands.syntax.flags import find_flag

    head, comma, _ = fragment.rpartition(",")
    if command.name == "adopt" and (of_cell := find_flag(flag)):
        return _values(of_cell)
    offers = _model_names() if flag == "--model" else command.offers.get(flag, ())
    return tuple(f"{head}{comma}{offer}" for offer in offers)


def _recent() -> tuple[str, ...]:
    from kling_nb.commands.order import recent_ids
    from kling_nb.session.api import current

    return recent_ids(current())
