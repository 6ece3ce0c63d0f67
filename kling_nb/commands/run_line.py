"""`%kling` and its subcommands: how a line is read, and who answers it.

Invariants: nothing here ever makes a run at a provider; a subcommand that is not in the table does not exist;
what is wrong is a `UsageError` of one line.
"""

import getpass
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from kling_nb.commands.answer import Answer
from kling_nb.commands.order import CommandCall
from kling_nb.commands.syntax.flags import normal
from kling_nb.commands.syntax.help_text import Section, cell_sections, command_sections, help_text
from kling_nb.commands.syntax.subcommands import COMMANDS, Command
from kling_nb.commands.syntax.values import check_text, shown, wrong
from kling_nb.commands.syntax.variables import fill_word
from kling_nb.errors import KlingError, StoreError, UsageError, did_you_mean, one_line
from kling_nb.views.html import FONT, Html, prose, tag

if TYPE_CHECKING:
    from kling_nb.session.session import Session

__all__ = ["Handler", "run_line", "run_words"]

#: What answers a subcommand.
Handler = Callable[[CommandCall], Answer]


def run_line(
    session: "Session", line: str, names: Mapping[str, Any], views: Mapping[str, Handler] | None = None
) -> Answer:
    r"""Carry out one `%kling` line.

    Args:
        session: Of this kernel.
        line: What follows `%kling`.
        names: The notebook's variables: an argument may name one that holds a run, and `$name` or `{name}`
            puts a text, a number or a path into it.
        views: The subcommands that a notebook alone can answer.

    Returns:
        What is shown. `runs` are runs whose cards belong below it; the `value` of a table is the same as
        plain data, for programs.

    Raises:
        UsageError: There is no such subcommand, flag or run.
        KlingError: The subcommand failed.

    Example:
        >>> run_line(None, "help config", {}).text
        '%kling config\n  the settings as they are now, and where each comes from'
    """
    _refuse(session, line)
    try:
        words = shlex.split(line)
    except ValueError:
        raise wrong("A quote or a backslash in the line is left open.", "Close it.") from None
    return _run(session, words, names, views or {})


def run_words(session: "Session", words: Sequence[str]) -> Answer:
    r"""Carry out a subcommand whose words are apart already, as on a command line.

    Args:
        session: Of this process.
        words: The subcommand and what follows it.

    Returns:
        As `run_line`.

    Raises:
        UsageError: As `run_line`.
        KlingError: The subcommand failed.

    Example:
        >>> run_words(None, ["help", "config"]).text
        '%kling config\n  the settings as they are now, and where each comes from'
    """
    _refuse(session, " ".join(words))
    return _run(session, words, {}, {})


def _refuse(session: "Session", line: str) -> None:
    check_text(line, "the line")
    if session is not None:
        session.keys.refuse({"the line": line})


def _run(
    session: "Session", words: Sequence[str], names: Mapping[str, Any], views: Mapping[str, Handler]
) -> Answer:
    asked = [word for word in words if normal(word) not in {"-h", "--help"} and word != ";"]
    command = _find_command(asked[0].removesuffix(";") if asked else "help")
    rest = asked[1:]
    if any(normal(word) in {"-h", "--help"} for word in words):
        command, rest = _find_command("help"), [command.name] if asked else []
    call = _read(command, rest, session, names)
    # A variable may have brought a key in.
    _refuse(session, " ".join([*call.words, *call.flags.values()]))
    try:
        return (views.get(command.name) or _handler(command.name))(call)
    except KlingError:
        # A time-out of ours is an OSError, too.
        raise
    except OSError as error:
        what = f"`%kling {command.name}` failed: {one_line(error.strerror or type(error).__name__)}"
        where = f" ({one_line(str(error.filename))[:200]})" if error.filename else ""
        raise StoreError(f"{what}{where}.", charged="no", cure="Nothing was sent.") from None


def _find_command(name: str) -> Command:
    for command in COMMANDS:
        if command.name == name:
            return command
    known = [command.name for command in COMMANDS]
    raise UsageError(
        f"There is no `%kling {shown(name, quote=False)}`.",
        cure=did_you_mean(
            name,
            known,
            f"There are {', '.join(known)}; a clip is made by `%%kling`, with two percent signs.",
        ),
    )


def _read(
    command: Command, words: Sequence[str], session: "Session", names: Mapping[str, Any]
) -> CommandCall:
    loose: list[str] = []
    flags: dict[str, str] = {}
    rest: Iterator[str] = iter(words)
    for word in rest:
        if not word.startswith("-") or word == "-":
            loose += [fill_word(word.removesuffix(";"), names)] if word.removesuffix(";") else []
            continue
        spelling, sign, value = word.partition("=")
        spelling = normal(spelling)
        if spelling not in command.flags:
            raise wrong(
                f"`%kling {command.name}` has no flag {shown(spelling)}.",
                did_you_mean(spelling, command.flags, f"See `%kling help {command.name}`."),
            )
        if spelling in command.values and not sign:
            value = next(rest, "")
        # A prompt is taken exactly; elsewhere a semicolon is IPython's habit, and so is `$name`.
        if spelling != "--prompt":
            value = value.removesuffix(";")
        # The flags that say what a clip was asked for are read as in a cell, with its own names.
        flags[spelling] = value if command.name == "adopt" else fill_word(value, names)
    if loose and not command.loose:
        raise wrong(f"`%kling {command.name}` takes nothing after it.", f"See `%kling help {command.name}`.")
    return CommandCall(session=session, names=names, words=loose, flags=flags)


def _handler(name: str) -> Handler:
    found: Handler = resolve_name(f"{__package__}.{_COMMANDS[name]}")
    return found


def _help(call: CommandCall) -> Answer:
    sections: list[Section] = [*cell_sections(), *command_sections()]
    if call.words:
        sections = command_sections(_find_command(call.words[0]).name)
    return Answer(html=tag("div", *map(_section, sections), style=FONT), text=help_text(sections))


def _section(section: Section) -> Html:
    # No table: on a narrow page the words go below what they explain.
    if isinstance(section, str):
        return tag("div", prose(section))
    row = "display:flex;flex-wrap:wrap;gap:0 14px;padding:2px 0;border-top:1px solid rgba(128,128,128,0.18)"
    rows = [
        tag(
            "div",
            tag("div", prose(f"`{left}`"), style="flex:0 0 270px"),
            tag("div", prose(right), style="flex:1 1 260px"),
            style=row,
        )
        for left, right in section[1]
    ]
    return tag(
        "div",
        tag("div", section[0], style="font-weight:600;opacity:0.7"),
        *rows,
        style="max-width:860px;margin:8px 0",
    )


def _config(call: CommandCall) -> Answer:
    from kling_nb.commands import overview

    return overview.config(call.session)


def _doctor(call: CommandCall) -> Answer:
    from kling_nb.commands.doctor import doctor

    return doctor(call.session, online="--online" in call.flags)


def _export(call: CommandCall) -> Answer:
    from kling_nb.commands.export import PAGE_FLAGS, export_line, page_line

    if call.words[:1] == ["page"]:
        return page_line(call)
    own = [flag for flag in call.flags if flag in PAGE_FLAGS]
    if own:
        raise wrong(f"{own[0]} is for `%kling export page`.", "See `%kling help export`.")
    return export_line(call)


def _keys(call: CommandCall) -> Answer:
    from kling_nb.commands import overview

    provider = call.flags.get("--ask")
    if provider is not None:
        if call.session.surroundings().headless:
            raise wrong(
                "Nobody is here to type a key.", "Set it in the environment before the kernel starts."
            )
        # Looked up now: a kernel puts its own in place for the time of a cell.
        typed = getpass.getpass(f"Key for {provider} (not shown, not stored): ")
        call.session.keys.take(provider, SecretStr(typed))
    return overview.keys(call.session)


#: Where each is answered, below this package: what a command does not need is not loaded for it.
_COMMANDS = {
    "status": "runs:status",
    "list": "runs:list_runs",
    "sweeps": "runs:sweeps",
    "show": "runs:show",
    "wait": "runs:wait",
    "cancel": "runs:cancel",
    "resume": "runs:resume",
    "resolve": "runs:resolve",
    "adopt": "runs:adopt",
    "cost": "money:cost",
    "budget": "money:budget",
    "estimate": "estimate.view:estimate",
    "restore": "cache:restore_line",
    "cache": "cache:cache_line",
    "export": "run_line:_export",
    "models": "models:model_list",
    "keys": "run_line:_keys",
    "config": "run_line:_config",
    "doctor": "run_line:_doctor",
    "help": "run_line:_help",
}
