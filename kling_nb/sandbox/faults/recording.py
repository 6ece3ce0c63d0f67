"""A recorded sequence of answers, played in place of the documented ones.

Invariants:
    * Every run hears the whole sequence, each part from its first answer on; the last one is repeated.
    * What a recording leaves out, and what it calls `own`, is answered as documented.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

PARTS: Final = ("submit", "status", "result", "download")
"""What can be played: the paid POST, reading a run, RunComfy's result, the file."""

OWN: Final = "own"
_BODIES: Final = frozenset({"body", "text", "clip"})
_FIELDS: Final = _BODIES | {"status", "headers", "times"}

Answer = Mapping[str, Any]


class Recording:
    """The answers of one variant.

    Example:
        >>> played = Recording({"status": [{"status": 404, "times": 2}, "own"]})
        >>> [played.take("status", "a") for _ in range(3)]
        [{'status': 404, 'times': 2}, {'status': 404, 'times': 2}, None]
    """

    def __init__(self, parts: Mapping[str, Any]) -> None:
        """Read it.

        Args:
            parts: One answer or a list of them by a name of `PARTS`. An answer is `own`, or an object with
                any of `status`, `headers` and `times`, and one of `body` (JSON), `text` (as it stands) and
                `clip` (true: the run's file).

        Raises:
            ValueError: It is not of this form.
        """
        self._answers = {part: _flat(part, answers) for part, answers in parts.items()}
        self._taken: Counter[tuple[str, str]] = Counter()

    def take(self, part: str, run_id: str = "") -> Answer | None:
        """Return the next answer.

        Args:
            part: One of `PARTS`.
            run_id: The run that is asked for; empty for a submit, which has none yet.

        Returns:
            The answer, or None where the documented one is due.
        """
        answers = self._answers.get(part)
        if not answers:
            return None
        number = self._taken[part, run_id]
        self._taken[part, run_id] += 1
        return answers[min(number, len(answers) - 1)]


def refuses(answer: Answer) -> bool:
    """Whether a submit that is answered so creates no run."""
    return not 200 <= answer.get("status", 200) < 300


def _flat(part: str, answers: object) -> list[Answer | None]:
    """Write each answer as often as it is given."""
    if part not in PARTS:
        msg = f"a recording has the parts {', '.join(PARTS)}, not {part!r}"
        raise ValueError(msg)
    flat: list[Answer | None] = []
    for answer in answers if isinstance(answers, list) else [answers]:
        if answer == OWN:
            flat.append(None)
            continue
        times = answer.get("times", 1) if isinstance(answer, Mapping) else 0
        if not isinstance(answer, Mapping) or not set(answer) <= _FIELDS or len(_BODIES & set(answer)) > 1:
            msg = f"an answer of {part} is 'own' or an object of {', '.join(sorted(_FIELDS))}, not {answer!r}"
            raise ValueError(msg)
        if type(times) is not int or times < 1 or type(answer.get("status", 200)) is not int:
            msg = f"status and times of an answer of {part} are whole numbers, times from 1 up"
            raise ValueError(msg)
        flat += times * [answer]
    return flat
