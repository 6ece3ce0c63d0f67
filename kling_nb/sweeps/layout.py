"""Where each run of a sweep stands in a grid: prompts, and axes for which there is no room, are rows.

Invariants: every member has a place of its own; of a private one neither its words nor what fills them in
are in a head.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import Any

from kling_nb.engine.run import Run
from kling_nb.pricing.catalog import provider_label
from kling_nb.records.privacy import redacted, words_of
from kling_nb.sweeps.grid import SETTINGS, Member
from kling_nb.views.stills import Grid
from kling_nb.views.words import counted, short

__all__ = ["axes_of", "lay_out", "shape_of"]

#: More columns than these make stills too small to judge.
_COLUMNS = 8
_PLAIN: dict[str, Callable[[Any], str]] = {
    "aspect_ratio": str,
    "audio": lambda sound: "with sound" if sound else "silent",
    "duration": lambda seconds: f"{seconds} s",
    "model": str,
    "provider": provider_label,
}
_SHOWN = 40


def axes_of(members: Sequence[Member]) -> list[str]:
    """Name what differs between members, with provider and take last."""
    names = dict.fromkeys(name for member in members for name in member.axes)
    hidden = {"prompt_original", "enhancer", "dimension", "provider"}
    differing = [
        name
        for name in [*(name for name in names if name not in hidden), "provider"]
        if len({repr(member.axes.get(name)) for member in members}) > 1
    ]
    return [*differing, *(["take"] if len({member.take for member in members}) > 1 else [])]


def shape_of(members: Sequence[Member]) -> str:
    """Say how many runs there are, as a product where it is one.

    Example:
        >>> shape_of([])
        '0 runs'
    """
    counts = {name: len({repr(_value(member, name)) for member in members}) for name in axes_of(members)}
    rows = len({member.row for member in members})
    if not counts or rows * prod(counts.values()) != len(members):
        return counted(len(members), "run")
    words = [f"{count} {_many(name)}" for name, count in counts.items()]
    return " x ".join([counted(rows, "prompt"), *words])


def _many(name: str) -> str:
    return {"audio": "sound settings", "aspect_ratio": "aspect ratios"}.get(
        name, f"{name}s" if name in {*SETTINGS, "take"} else f"values of {name}"
    )


def lay_out(members: Sequence[Member], runs: Mapping[int, Run]) -> Grid:
    """Give each member its place.

    Args:
        members: All of a sweep.
        runs: The run of each that has one, by number.

    Returns:
        The grid; its cells are numbers of members.
    """
    members = sorted(members, key=lambda one: one.number)
    ranks = _ranks(members)
    members.sort(
        key=lambda one: (
            one.row,
            *(rank.get(repr(_value(one, name)), 0) for name, rank in ranks.items()),
            one.number,
        )
    )
    # A name that is filled in tells the rows apart already, unless they are grouped by another prompt.
    grouped = any("prompt_original" in member.axes for member in members)
    axes = [name for name in axes_of(members) if grouped or name in {*SETTINGS, "take"}]
    values = {name: {repr(value): value for value in (_value(m, name) for m in members)} for name in axes}
    order = {name: {key: n for n, key in enumerate(values[name])} for name in axes}
    words = {name: _words(name, values[name].values(), private=members[0].private) for name in axes}
    beside = axes
    while prod(len(words[name]) for name in beside) > _COLUMNS:
        beside = beside[1:]
    above = axes[: len(axes) - len(beside)]

    def place(member: Member, names: Sequence[str]) -> tuple[int, ...]:
        return tuple(order[name][repr(_value(member, name))] for name in names)

    def words_at(at: tuple[int, ...], names: Sequence[str]) -> str:
        return ", ".join(words[name][n] for n, name in zip(at, names, strict=True))

    columns = {at: n for n, at in enumerate(sorted({place(member, beside) for member in members}))}
    rows: dict[tuple[str, tuple[int, ...], int], int] = {}
    cells: dict[tuple[int, int], int] = {}
    found: dict[str, list[Member]] = {}
    for member in members:
        found.setdefault(_label(member, runs.get(member.number)), []).append(member)
    for label, mine in found.items():
        for member in sorted(mine, key=lambda one: place(one, above)):
            column, again = columns[place(member, beside)], 0
            row = rows.setdefault((label, place(member, above), again), len(rows))
            while (row, column) in cells:
                # Several long prompts of one original prompt, each with a row of its own.
                again += 1
                row = rows.setdefault((label, place(member, above), again), len(rows))
            cells[row, column] = member.number
    return Grid(
        heads=tuple(words_at(at, beside) or "clip" for at in columns),
        rows=tuple(
            (label, ", ".join(filter(None, [words_at(at, above), f"no. {again + 1}" if again else ""])))
            for label, at, again in rows
        ),
        cells=cells,
    )


def _ranks(members: Sequence[Member]) -> dict[str, dict[str, int]]:
    """Give each value of an axis its place as it was given, which is not the order of sending."""
    ranks: dict[str, dict[str, int]] = {}
    for member in members:
        for name in member.axes:
            places = ranks.setdefault(name, {})
            places.setdefault(repr(_value(member, name)), len(places))
    return ranks


def _value(member: Member, name: str) -> Any:
    return member.take if name == "take" else member.axes.get(name)


def _words(name: str, values: Iterable[Any], *, private: bool) -> list[str]:
    return [_word(name, value, n if private else None) for n, value in enumerate(values, 1)]


def _word(name: str, value: Any, number: int | None) -> str:
    if value is None:
        return f"no {name}"
    if name in _PLAIN:
        return _PLAIN[name](value)
    if isinstance(value, str) and number is not None:
        return f"{name} {number}"
    return f"{name} {short(str(value), _SHOWN)}"


def _label(member: Member, run: Run | None) -> str:
    if not member.private:
        return member.label
    return f"private prompt {member.row}" if run is None else words_of(redacted(run.record))
