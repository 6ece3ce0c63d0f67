"""What a form holds, and every way into it and out of it from Python; no widget is known here.

Invariants: what was put in is kept, and what is wrong with it is said; nothing is sent and nothing is paid;
reading it gives exactly the call that its button would open.
"""

import json
import threading
from collections.abc import Mapping
from typing import Any

from kling_nb.engine.run import Run
from kling_nb.engine.runs import Runs
from kling_nb.errors import UsageError
from kling_nb.notebook.form.cell_text import as_cell
from kling_nb.notebook.form.fields import blank, inputs_of, read, shown_as
from kling_nb.pricing.catalog import find_model
from kling_nb.records.privacy import is_redacted
from kling_nb.records.request import TextToVideo
from kling_nb.records.run import RunRecord
from kling_nb.session.api import current
from kling_nb.session.plan import Ask, Plan

__all__ = ["Draft", "Source"]

#: What a form can be filled in from.
Source = Run | Runs | RunRecord | TextToVideo | Mapping[str, Any] | str | None


class Draft:
    """The values of a form.

    Example:
        >>> Draft().problems
        {'prompt': 'is missing; write a prompt or shots'}
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._values = blank()
        # Counts what was changed, to see whether anything was since.
        self._changes = 0
        self._note = ""

    @property
    def fields(self) -> dict[str, Any]:
        """What its inputs hold, by name, right or wrong."""
        with self._lock:
            return dict(self._values)

    @property
    def problems(self) -> dict[str, str]:
        """What is wrong with it, in words, by the name of the input; empty where nothing is."""
        return dict(read(self.fields).problems)

    @property
    def ask(self) -> Ask:
        """The call it describes.

        Raises:
            UsageError: Something in it is wrong.
        """
        reading = read(self.fields)
        if reading.ask is None:
            what = "; ".join(
                f"{name}: {words}" if name else words for name, words in reading.problems.items()
            )
            raise UsageError(f"The form is not complete: {what}.", cure="Nothing was sent; correct it.")
        return reading.ask

    @property
    def value(self) -> TextToVideo:
        """The request it describes; a request or a dict of fields may be put in its place.

        Raises:
            UsageError: Something in it is wrong; `fields` has what is there all the same.
        """
        return self.ask.request

    @value.setter
    def value(self, request: TextToVideo | Mapping[str, Any]) -> None:
        given = _request_fields(request) if isinstance(request, TextToVideo) else dict(request)
        empty = {of.name: None for of in inputs_of() if of.name in TextToVideo.model_fields}
        self.update(**{**empty, **given})

    @property
    def plan(self) -> Plan:
        """What its button would do, and cost; sends nothing.

        Raises:
            KlingError: What would refuse the call.
        """
        return current().plan(self.ask)

    @property
    def cell(self) -> str:
        """The same call as the text of a `%%kling` cell.

        Raises:
            UsageError: Something in it is wrong, or no cell can say it.
        """
        return as_cell(self.ask)

    def update(self, **fields: Any) -> None:
        """Put values into inputs; the others keep theirs.

        Args:
            **fields: By name. None empties an input; a value that is out of range is taken, and said to be.

        Raises:
            UsageError: There is no such input.
        """
        known = {of.name: of for of in inputs_of()}
        strange = sorted(set(fields) - set(known) - {"provider", "model"})
        if strange:
            raise UsageError(
                f"A form has no input {strange[0]!r}.",
                cure=f"It has {', '.join(('provider', 'model', *known))}.",
            )
        new: dict[str, Any] = {}
        for name, value in fields.items():
            of = known.get(name)
            if of is None:
                new[name] = _model_id(value) if name == "model" else value or ""
            else:
                given = of.default if value is None else value
                new[name] = _written(name, shown_as(of, given), given)
        with self._lock:
            if "shots" in new:
                new["storyboard"] = bool(new["shots"])
            board = new.get("storyboard", self._values["storyboard"])
            if board and "prompt" in new:
                new["beside"] = new.pop("prompt")
            self._values.update(new)
            self._changes += 1
        self._redraw()

    def fill(self, run: Source) -> None:
        """Fill it in from an earlier run, to vary it; its takes so far are told beside the button.

        Args:
            run: A run or its id, a request, or fields by name.

        Raises:
            UsageError: There is no such run or input.
        """
        if run is None:
            return
        if isinstance(run, TextToVideo):
            self.value = run
            return
        if isinstance(run, Mapping):
            self.update(**run)
            return
        record = _record(run)
        if is_redacted(record):
            raise UsageError(
                f"Run {record.id} is private, and only the hash of its words is here.",
                cure="Nothing was sent. Write the words into an empty form.",
                run_id=record.id,
            )
        self.value = record.request
        tags, private = record.tags or None, record.private
        self.update(provider=record.provider, model=record.model, tags=tags, private=private)
        self._note = f"Varies run `{record.id}`, take {record.take}."

    def _redraw(self) -> None:
        """Called after a change from Python."""


def _request_fields(request: TextToVideo) -> dict[str, Any]:
    given = {name: getattr(request, name) for name in type(request).model_fields}
    # The shots say it.
    return given | ({"duration": None} if request.shots else {})


def _model_id(name: object) -> object:
    """Give a model by the id that the list of models has, whatever it was called."""
    try:
        return find_model(name).id if isinstance(name, str) and name else name or ""
    except UsageError:
        return name


def _written(name: str, text: Any, value: Any) -> Any:
    """Write what is given from Python as it would be typed."""
    if name == "tags" and isinstance(value, Mapping):
        return "\n".join(f"{key}={word}" for key, word in value.items())
    if name == "metadata" and isinstance(value, Mapping):
        return json.dumps(dict(value))
    return text


def _record(run: Run | Runs | RunRecord | str) -> RunRecord:
    if isinstance(run, RunRecord):
        return run
    if isinstance(run, str):
        return current().find(run).record
    if isinstance(run, Runs):
        if len(run) != 1:
            raise UsageError(f"{len(run)} runs cannot fill one form.", cure="Name one of them.")
        return run[0].record
    if isinstance(run, Run):
        return run.record
    raise UsageError(f"A {type(run).__name__} cannot fill a form.", cure="Give a run, its id or a request.")
