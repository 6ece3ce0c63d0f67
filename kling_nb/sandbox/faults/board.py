"""The switchboard: the present setting of every switch, and the dice.

Invariants:
    * A name that is not on the list, or a value outside its kind, is refused with the names that would do.
    * A setting without a wire holds for both; `runflow.NAME` or `runcomfy.NAME` sets that wire only.
    * A count (`next:N`) is used up by occasions, not by time; both wires share it unless it names one.
    * With a seed, the same questions in the same order get the same answers.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from kling_nb.sandbox.faults.recording import OWN, Answer, Recording
from kling_nb.sandbox.faults.switches import SWITCHES, WIRES, Switch, Wire

Setting = float | str | Mapping[str, Any]
"""What a switch can be set to: a rate, `"next:N"`, `{"next": N, "skip": K}`, a number, a word, answers."""


@dataclass
class _Rate:
    """A chance, or a count of occasions after some that are let pass."""

    chance: float = 0.0
    left: int | None = None
    skip: int = 0

    def fires(self, dice: random.Random) -> bool:
        if self.left is None:
            return self.chance > 0 and (self.chance >= 1 or dice.random() < self.chance)
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.left == 0:
            return False
        self.left -= 1
        return True


class Faults:
    """The settings of one sandbox.

    Example:
        >>> faults = Faults({"submit_500": "next:1"})
        >>> faults.fires("runflow", "submit_500"), faults.fires("runflow", "submit_500")
        (True, False)
    """

    def __init__(self, settings: Mapping[str, Setting] | None = None, seed: int | None = None) -> None:
        """Start from the defaults.

        Args:
            settings: Switches to set at once, as for `set`.
            seed: Makes the dice repeatable.

        Raises:
            ValueError: As for `set`.
        """
        self.dice = random.Random(seed)  # noqa: S311 - dice of a simulation, no secret hangs on them
        self.fired: Counter[str] = Counter()
        """How often each fault was caused, as `wire.name`."""
        self._rates: dict[tuple[Wire, str], _Rate] = {}
        self._values: dict[tuple[Wire, str], float | str] = {}
        self._recordings: dict[Wire, Recording] = {}
        self.reset()
        self.set(settings or {})

    def reset(self) -> None:
        """Put every switch back to its default and forget what fired."""
        self.fired.clear()
        self._recordings.clear()
        for switch in SWITCHES.values():
            for wire in WIRES:
                if switch.kind == "rate":
                    self._rates[wire, switch.name] = _Rate()
                elif switch.kind != "recording":
                    self._values[wire, switch.name] = switch.start(wire)

    def set(self, settings: Mapping[str, Any]) -> None:
        """Change switches; all of them or, if one is wrong, none.

        Args:
            settings: Name (`submit_500`, `runcomfy.output_shape`) to setting.

        Raises:
            ValueError: An unknown name or a value that the switch cannot take.
        """
        checked = [(*_find(name), value) for name, value in settings.items()]
        ready = [(wires, switch, _read(switch, value)) for wires, switch, value in checked]
        for wires, switch, value in ready:
            for wire in wires:
                if isinstance(value, _Rate):
                    self._rates[wire, switch.name] = value
                elif isinstance(value, Recording):
                    self._recordings[wire] = value
                else:
                    self._values[wire, switch.name] = value

    def fires(self, wire: Wire, name: str) -> bool:
        """Whether a fault happens now. Asking uses up an occasion of a count.

        Args:
            wire: Where.
            name: A switch of kind rate.

        Returns:
            True when it is to be caused.
        """
        hit = self._rates[wire, name].fires(self.dice)
        if hit:
            self.fired[f"{wire}.{name}"] += 1
        return hit

    def plays(self, wire: Wire) -> bool:
        """Whether a recording is set."""
        return wire in self._recordings

    def take(self, wire: Wire, part: str, run_id: str = "") -> Answer | None:
        """The next answer of the recording.

        Args:
            wire: Where.
            part: One of `recording.PARTS`.
            run_id: As for `Recording.take`.

        Returns:
            The answer, or None where the documented one is due.
        """
        answer = self._recordings[wire].take(part, run_id) if wire in self._recordings else None
        if answer is not None:
            self.fired[f"{wire}.play_{part}"] += 1
        return answer

    def number(self, wire: Wire, name: str) -> float:
        """The value of a switch of kind number."""
        return float(self._values[wire, name])

    def word(self, wire: Wire, name: str) -> str:
        """The value of a switch of kind word."""
        return str(self._values[wire, name])


def parse_faults(pairs: Iterable[str]) -> dict[str, Setting]:
    """Read `NAME=VALUE` as given on a command line.

    Args:
        pairs: Such as `submit_500=0.2`, `poll_429=next:3`, `runcomfy.output_shape=list`. A bare name of a
            rate means always.

    Returns:
        Settings for `Sandbox.start` or `Faults.set`.

    Raises:
        ValueError: An unknown name (the message lists the known ones) or a bad value.

    Example:
        >>> parse_faults(["submit_500=0.2"])
        {'submit_500': 0.2}
    """
    settings: dict[str, Setting] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        _, switch = _find(name.strip())
        value: Setting = text.strip() or ("1" if switch.kind == "rate" else "")
        if switch.kind == "recording" and value != OWN:
            value = _file(str(value))
        elif switch.kind != "word":
            with contextlib.suppress(ValueError):  # a count such as next:3, or a mistake: _read tells
                value = float(cast("str", value))
        _read(switch, value)
        settings[name.strip()] = value
    return settings


def _file(path: str) -> Mapping[str, Any]:
    """The recording that a file holds, alone or under `play`."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as wrong:
        msg = f"play takes the name of a JSON file, and {path!r} cannot be read: {wrong}"
        raise ValueError(msg) from None
    return cast("Mapping[str, Any]", found.get("play", found) if isinstance(found, dict) else found)


def _find(name: str) -> tuple[tuple[Wire, ...], Switch]:
    prefix, dot, rest = name.partition(".")
    wires = tuple(wire for wire in WIRES if wire == prefix) if dot else WIRES
    switch = SWITCHES.get(rest if dot else name)
    if not wires or switch is None:
        close = difflib.get_close_matches(rest or name, SWITCHES, 1)
        known = f"The known ones (each also as runflow.NAME or runcomfy.NAME): {', '.join(SWITCHES)}."
        msg = f"unknown fault {name!r}. {f'Did you mean {close[0]!r}?' if close else known}"
        raise ValueError(msg)
    return wires, switch


def _read(switch: Switch, value: object) -> _Rate | Recording | float | str:
    """A setting in its own type."""
    if switch.kind == "recording":
        if value == OWN or isinstance(value, Mapping):
            return Recording({} if value == OWN else cast("Mapping[str, Any]", value))
        msg = f"{switch.name} takes 'own' or an object of answers, not {value!r}"
        raise ValueError(msg)
    if switch.kind == "rate":
        return _read_rate(switch, value)
    if switch.kind == "number":
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf:
            return float(value)
        msg = f"{switch.name} takes a number from 0 up, not {value!r}"
        raise ValueError(msg)
    if isinstance(value, str) and value and (not switch.choices or value in switch.choices):
        return value
    takes = ", ".join(switch.choices) or "a word"
    msg = f"{switch.name} takes {takes}, not {value!r}"
    raise ValueError(msg)


def _read_rate(switch: Switch, value: object) -> _Rate:
    if isinstance(value, (int, float)) and 0 <= value <= 1:
        return _Rate(chance=float(value))
    if isinstance(value, str) and value.startswith("next:") and value[5:].isdecimal():
        return _Rate(left=int(value[5:]))
    if isinstance(value, Mapping) and set(value) <= {"next", "skip"} and "next" in value:
        counts = [value["next"], value.get("skip", 0)]
        if all(type(count) is int and count >= 0 for count in counts):
            return _Rate(left=counts[0], skip=counts[1])
    msg = f"{switch.name} takes a rate from 0 to 1, 'next:N' or {{'next': N, 'skip': K}}, not {value!r}"
    raise ValueError(msg)
