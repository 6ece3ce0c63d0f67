"""One line of `%kling` as read: the runs that it names, found.

Invariants: looking up runs asks no provider; a variable that holds runs outranks an id.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kling_nb.commands.syntax.values import identifier, wrong
from kling_nb.engine.run import Run
from kling_nb.engine.runs import Runs
from kling_nb.errors import KlingError, UsageError
from kling_nb.records.run import RunStatus

if TYPE_CHECKING:
    from kling_nb.session.session import Session

__all__ = ["PENDING", "CommandCall", "held", "here", "named", "only_runs", "recent_ids"]

#: So many runs completion offers.
_RECENT = 50

#: The states of runs on their way.
PENDING = tuple(status for status in RunStatus if status.pending)


@dataclass(frozen=True, kw_only=True)
class CommandCall:
    """One line, read.

    Args:
        session: Of this kernel.
        names: The notebook's variables.
        words: What is no flag.
        flags: Values by spelling, empty for a switch.
    """

    session: "Session"
    names: Mapping[str, Any]
    words: list[str] = field(default_factory=list)
    flags: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where a name of a file on the line counts from."""
        return self.session.surroundings().folder or Path.cwd()

    def variable(self, word: str) -> Any:
        """Give what the variable holds that a word names; None where it names none."""
        name = identifier(word)
        return None if name is None else self.names.get(name)

    def file(self, name: str) -> Path:
        """Give the file that the line names."""
        return self.folder / Path(name).expanduser()

    def notebook(self, what: str) -> Path:
        """Give the notebook that the line names, by default this one.

        Args:
            what: The command, as `%kling estimate`.
        """
        if len(self.words) > 1:
            raise wrong(f"`{what}` takes one notebook.", "Put a name with spaces in quotes.")
        found = self.file(self.words[0]) if self.words else self.session.surroundings().notebook
        if found is None:
            raise wrong(
                "Where this notebook is saved is not known here.", f"Name it: `{what} NOTEBOOK.ipynb`."
            )
        return found


def held(thing: object) -> list[Run]:
    """Give the runs that a variable holds: a run, several, or what has some, as a sweep."""
    if isinstance(thing, Run):
        return [thing]
    thing = getattr(thing, "runs", thing)
    if isinstance(thing, Runs | list | tuple):
        return [run for run in thing if isinstance(run, Run)]
    return []


def only_runs(thing: Any, view: str) -> list[Run]:
    """Give the runs that a view was given, and nothing else.

    Args:
        thing: A run, or some.
        view: What for, as `A gallery`.

    Raises:
        UsageError: There is something else among them.
    """
    # Asked once: of a sweep that is being sent there are more at each look.
    thing = getattr(thing, "runs", thing)
    found = held(thing)
    if len(found) != (1 if isinstance(thing, Run) else len(thing)):
        raise UsageError(f"{view} is of runs.", cure="`kling.runs()` lists them.")
    return found


def named(call: CommandCall) -> list[Run]:
    """Find the runs that the line names: variables first, then ids, ours or the provider's."""
    runs: list[Run] = []
    for word in call.words:
        value = call.variable(word)
        runs += held(value) or ([] if hasattr(value, "runs") else [_find(call, word)])
    return list({run.id: run for run in runs}.values())


def _find(call: CommandCall, word: str) -> Run:
    try:
        return call.session.find(word)
    except UsageError as error:
        if word in call.names:
            value = call.names[word]
            why = getattr(value, "error", None)
            kind = (
                f"a {type(value).__name__}" if not isinstance(why, KlingError) else f"a refusal: {why.what}"
            )
            raise wrong(
                f"The variable {word} holds no run but {kind.rstrip('.')}.", "See `%kling list`."
            ) from None
        raise error from None


def recent_ids(session: "Session") -> tuple[str, ...]:
    """Name the newest runs, for completion: as quick with any number of runs, and never an error."""
    with suppress(KlingError, OSError):
        place = session.settings().ledger
        # Nobody's key press makes a ledger.
        if "://" in place or Path(place).exists():
            return tuple(record.id for record in session.ledger().runs(limit=_RECENT))
    return ()


def here(call: CommandCall) -> list[Run]:
    """Give the runs on their way that belong to this kernel: its session's, a variable's, the last cell's."""
    session = call.session
    mine = {run.id for value in call.names.values() if isinstance(value, Run | Runs) for run in held(value)}
    mine |= {run.id for run in held(session.last)}
    return [
        run
        for run in session.runs(statuses=PENDING)
        if run.id in mine or run.record.session_id in session.ids
    ]
