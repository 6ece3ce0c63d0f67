"""Reading a request's input: types, ranges and what is left out, as the contracts and the switches say.

Invariants:
    * Every complaint is collected, each with the field it is about: one answer tells all that is wrong.
    * What passes is understood completely: the result is a plan that can be rendered.
    * Where a contract says nothing, a switch decides; nothing is decided here.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kling_nb.sandbox.render.canvas import SIZES
from kling_nb.sandbox.render.clip import ClipPlan, Shot

if TYPE_CHECKING:
    from kling_nb.sandbox.faults.board import Faults
    from kling_nb.sandbox.faults.switches import Wire

SECONDS: Final = range(3, 16)
SHOT_TYPES: Final = ("customize", "intelligent")


"""Lengths of a clip that both contracts allow."""


_DIGITS: Final = frozenset(str(number) for number in range(100))


"""Durations as strings: no sign, no leading zero, no blank."""


_SHARED: Final = (
    "prompt",
    "negative_prompt",
    "duration",
    "aspect_ratio",
    "cfg_scale",
    "multi_prompt",
    "shot_type",
)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an input."""

    where: tuple[str | int, ...]
    """The path to it, such as `("multi_prompt", 0, "duration")`."""
    what: str


@dataclass
class Reader:
    """Reads the input of one request."""

    wire: Wire
    faults: Faults
    sent: dict[str, Any]
    shot_types: tuple[str, ...] = SHOT_TYPES
    problems: list[Problem] = field(default_factory=list)

    def plan(self) -> ClipPlan:
        """Check everything and say what to render. Only to be used if `problems` stays empty."""
        sound_key = "generate_audio" if self.wire == "runflow" else "sound"
        self._unknown(self.sent, {*_SHARED, sound_key}, ())
        prompt = self._text("prompt")
        self._text("negative_prompt", blank=True)
        shots = self._shots()
        seconds = self._length(shots)
        ratio = self._choice("aspect_ratio", tuple(SIZES), "16:9")
        self._choice("shot_type", self.shot_types, "customize")
        self._cfg()
        audio = self._flag(sound_key)
        if self.wire == "runcomfy" and prompt is None and not self._complained("prompt"):
            self._no(("prompt",), "field required")
        if self.wire == "runflow" and (prompt is None) == (not shots) and not self.problems:
            self._no(("prompt",), "give either prompt or multi_prompt, and only one of them")
        return ClipPlan(_fit(shots or [Shot(prompt or "", seconds)], seconds), ratio, audio)

    def _no(self, where: tuple[str | int, ...], what: str) -> None:
        self.problems.append(Problem(where, what))

    def _complained(self, name: str) -> bool:
        return any(problem.where[0] == name for problem in self.problems)

    def _word(self, name: str) -> str:
        return self.faults.word(self.wire, name)

    def _unknown(self, found: dict[str, Any], known: set[str], where: tuple[str | int, ...]) -> None:
        if self._word("unknown_keys") == "refuse":
            for key in found.keys() - known:
                self._no((*where, key), "unknown field")

    def _absent(self, key: str) -> bool:
        if key not in self.sent:
            return True
        if self.sent[key] is None:
            if self._word("nulls") == "refuse":
                self._no((key,), "must not be null")
            return True
        return False

    def _text(self, key: str, *, blank: bool = False) -> str | None:
        if self._absent(key):
            return None
        return self._prompt(self.sent[key], (key,), blank=blank)

    def _prompt(self, value: Any, where: tuple[str | int, ...], *, blank: bool = False) -> str:
        most = self.faults.number(self.wire, "max_prompt")
        if not isinstance(value, str):
            self._no(where, "must be a string")
            return ""
        if not blank and not value.strip() and self._word("empty_prompt") == "refuse":
            self._no(where, "must not be blank")
        if most and len(value) > most:
            self._no(where, f"must have at most {most:g} characters")
        return value

    def _choice(self, key: str, choices: tuple[str, ...], default: str) -> str:
        if self._absent(key):
            return default
        value = self.sent[key]
        if not isinstance(value, str) or value not in choices:
            self._no((key,), f"must be one of {', '.join(choices)}")
            return default
        return value

    def _flag(self, key: str) -> bool:
        if self._absent(key):
            return self._word("audio_default") == "on"
        if not isinstance(self.sent[key], bool):
            self._no((key,), "must be a boolean")
        return self.sent[key] is True

    def _cfg(self) -> None:
        if self._absent("cfg_scale"):
            return
        value = self.sent["cfg_scale"]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            self._no(("cfg_scale",), "must be a number")
        elif self._word("cfg_range") == "check" and not 0 <= value <= 1:
            self._no(("cfg_scale",), "must be from 0 to 1")

    def _seconds(self, value: Any, kind: str, least: float, where: tuple[str | int, ...]) -> int:
        """A duration in the JSON type that is asked for; 0 after a complaint."""
        number: int | None = None
        if kind != "integer" and isinstance(value, str) and value in _DIGITS:
            number = int(value)
        if kind != "string" and type(value) is int:
            number = value
        if number is None:
            self._no(where, f"must be {'an integer' if kind == 'integer' else 'a string of digits'}")
            return 0
        if not least <= number <= SECONDS[-1]:
            self._no(where, f"must be from {least:g} to {SECONDS[-1]}")
            return 0
        return number

    def _length(self, shots: list[Shot]) -> int:
        total = sum(shot.seconds for shot in shots)
        default = int(self.faults.number(self.wire, "default_duration_s"))
        if not self._absent("duration"):
            seconds = self._seconds(
                self.sent["duration"], self._word("duration_type"), SECONDS[0], ("duration",)
            )
        elif self.wire == "runflow" and total in SECONDS:
            seconds = total
        else:
            seconds = default
        if shots and seconds and total != seconds and self._word("shots_sum") == "check":
            self._no(("multi_prompt",), f"durations add up to {total}, not to {seconds}")
        return seconds or default

    def _shots(self) -> list[Shot]:
        if self._absent("multi_prompt"):
            return []
        rows = self.sent["multi_prompt"]
        if not isinstance(rows, list):
            self._no(("multi_prompt",), "must be a list")
            return []
        if self.wire == "runcomfy" and len(rows) > 20:
            self._no(("multi_prompt",), "must have at most 20 shots")
        return [self._shot(row, index) for index, row in enumerate(rows)]

    def _shot(self, row: Any, index: int) -> Shot:
        where = ("multi_prompt", index)
        if not isinstance(row, dict):
            self._no(where, "must be an object")
            return Shot("", 1)
        self._unknown(row, {"prompt", "duration"}, where)
        text = self._prompt(row.get("prompt"), (*where, "prompt"))
        least = self.faults.number(self.wire, "min_shot_s")
        length = row.get("duration")
        if length is None:
            length = int(self.faults.number(self.wire, "default_duration_s"))
            return Shot(text, length)
        kind = self._word("shot_duration_type")
        return Shot(text, self._seconds(length, kind, least, (*where, "duration")) or 1)


def read_object(raw: bytes) -> dict[str, Any] | None:
    """A JSON object from a body.

    Args:
        raw: The bytes that came.

    Returns:
        The object, or None when the bytes are anything else.
    """
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _fit(shots: list[Shot], seconds: int) -> tuple[Shot, ...]:
    """Shots that fill a length exactly: cut at its end, or the last one held."""
    fitted: list[Shot] = []
    left = seconds
    for shot in shots:
        length = min(shot.seconds, left)
        if length > 0:
            fitted.append(Shot(shot.text, length))
            left -= length
    if left > 0:
        last = fitted.pop()
        fitted.append(Shot(last.text, last.seconds + left))
    return tuple(fitted)
