"""The form: what `%%kling` can ask for, as inputs with live words and the price on the button.

Invariants: only a press of the button, and `Form.submit`, ever open a call; what is sent is what the button
said, at that price or less; judging and sending happen off the notebook's thread, so that neither typing nor
a cell waits for them; nothing that is worth keeping stands in a widget, and no key ever does.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from kling_nb.commands.answer import Answer
from kling_nb.commands.order import CommandCall, named
from kling_nb.commands.syntax.values import wrong
from kling_nb.engine.run import Run
from kling_nb.engine.runs import Runs
from kling_nb.errors import KlingError, UsageError
from kling_nb.notebook.form.draft import Draft, Source
from kling_nb.notebook.form.fields import inputs_of, read
from kling_nb.notebook.form.results import another_of, compared_with, result_rows
from kling_nb.notebook.form.verdict import Press, Verdict, assess, offers
from kling_nb.notebook.widgets import LiveView, watched
from kling_nb.pricing.catalog import find_model, provider_label
from kling_nb.records.money import MICROS
from kling_nb.session.api import await_at_end, current
from kling_nb.session.plan import Ask, title_of
from kling_nb.views.html import FONT, Html, details, prose, tag

if TYPE_CHECKING:
    from IPython.display import DisplayHandle

    from kling_nb.notebook.form.view import FormView
    from kling_nb.session.session import Session

__all__ = ["Form", "form", "form_line"]

#: Typing rests this long before it is judged; while a person types on, only the newest text is.
_QUIET_S = 0.05

#: After a press: a page may still hold back the last keys while an earlier message is on its way.
_SETTLE_S = 0.4
_LISTED = 8


def form(run: Source = None, **fields: Any) -> "Form":
    """Make a form, empty or filled in from an earlier run; making and showing it costs nothing.

    Args:
        run: A run or its id to vary, a request, or fields as a dict.
        **fields: Any input by its name, e.g. `duration=8`, `provider="sandbox"`, `tags={"series": "foxes"}`.

    Returns:
        The form. As the last line of a cell it is shown.

    Raises:
        UsageError: There is no such run or input.

    Example:
        >>> form(prompt="A red fox in snow", duration=8).value.duration
        8
    """
    made = Form()
    made.fill(run)
    made.update(**fields)
    return made


def form_line(call: CommandCall) -> Answer:
    """Carry out `%kling form [ID]`."""
    runs = named(call)
    if len(runs) > 1:
        raise wrong("`%kling form` takes one run to vary.", "Name one: see `%kling list`.")
    made = form(runs[0] if runs else None)
    return Answer(view=made, value=made)


class Form(Draft):
    """A form; `form()` makes one.

    Example:
        >>> Form().problems
        {'prompt': 'is missing; write a prompt or shots'}
    """

    def __init__(self) -> None:
        super().__init__()
        self._runs: list[Run] = []
        self._wanted = 0
        self._judging = False
        self._busy = ""
        self._offered: tuple[str, ...] | None = None
        self._said = Verdict()
        self._rows_of: tuple[object, ...] = ()
        self._view: FormView | None = None
        self._live: LiveView | None = None
        self._head: DisplayHandle | None = None
        self._headed: dict[str, Any] = {}
        self._heading_turn = threading.Lock()
        self._context: contextvars.Context | None = None

    @property
    def runs(self) -> Runs:
        """The runs that it opened, the oldest first."""
        with self._lock:
            return Runs(self._runs)

    # -- the act ------------------------------------------------------------------------
    def submit(self) -> Run | Runs:
        """Open the call that it describes, and return at once; costs money unless the clip is already here.

        Returns:
            The handle, or the handles of several takes.

        Raises:
            KlingError: The call is refused; nothing was sent.
        """
        ask = self.ask
        runs = current().open(ask)
        handle = runs[0] if len(ask.takes) == 1 else Runs(runs)
        self._took(handle, runs)
        await_at_end(runs)
        return handle

    def _took(self, handle: Run | Runs, runs: list[Run]) -> list[Run]:
        """Remember runs, and give those that this form does not show yet."""
        current().last = handle
        with self._lock:
            here = {run.id for run in self._runs}
            new = [run for run in runs if run.id not in here]
            self._runs += new
        for run in new:
            run.on_change(lambda _run: self._judge_soon())
        self._judge_soon()
        return new

    # -- showing -----------------------------------------------------------------------------
    def _ipython_display_(self) -> None:
        from IPython.display import DisplayHandle

        # Cards that come later belong to this cell, whichever one runs by then.
        self._context = contextvars.copy_context()
        live = watched()
        if self._live is not None:
            self._live.close()
            self._view = self._live = None
        self._headed = self._heading(live=live)
        self._head = DisplayHandle()
        self._head.display(self._headed, raw=True)
        if live:
            from kling_nb.notebook.form.view import FormView, Tells, set_up_names

            tells = Tells(put=self._typed, go=self._pressed, act=self._acted)
            self._offered, self._rows_of = None, ()
            self._view = FormView(self.fields, tells, set_up_names())
            self._show_verdict()
            self._live = LiveView(self._view.widget)
            self._live.show()

    def __repr__(self) -> str:
        return f"Form: {self._summary()}"

    def close(self) -> None:
        """Take the inputs off the page; its runs go on, and their cards stay."""
        live, self._live, self._view = self._live, None, None
        if live is not None:
            live.close()

    def _summary(self) -> str:
        with self._lock:
            values = dict(self._values)
        reading = read(values)
        try:
            model = find_model(values["model"]).label if values["model"] else ""
        except UsageError:
            model = str(values["model"])
        where = [model, provider_label(values["provider"]) if values["provider"] else ""]
        if reading.ask is None:
            words = ["not complete"]
        else:
            asked = reading.ask.request
            sound = "with sound" if asked.audio else "silent"
            title = title_of(asked, private=reading.ask.private)
            words = [title, f"{asked.duration} s", asked.aspect_ratio, sound]
        return ", ".join(word for word in (*words, *where) if word)

    def _heading(self, *, live: bool = True) -> dict[str, Any]:
        """Say what stays in the notebook: the values, and how the form comes back."""
        back = "Run this cell to get the form back." if live else "Its inputs need somebody watching."
        if not current().surroundings().live:
            back = (
                "This page shows no widgets, because its server runs the cells: use a `%%kling` cell instead."
            )
        parts: list[Html] = [tag("div", tag("b", "Form"), f": {self._summary()}. ", prose(back), dir="auto")]
        try:
            # What stands here is saved.
            text = "" if self.fields["private"] else self.cell
        except KlingError:
            text = ""
        if text:
            pre = tag("pre", text, style="white-space:pre-wrap;overflow-wrap:anywhere;margin:4px 0")
            parts.append(details("The same as a cell", pre))
        html = tag("div", *parts, style=f"{FONT};opacity:0.9")
        return {"text/html": html, "text/plain": "\n".join(t for t in (f"{self!r}. {back}", text) if t)}

    def _redraw(self) -> None:
        # Within the lock: what a person types meanwhile must not be overwritten by what was there before.
        with self._lock:
            if self._view is not None:
                self._view.put(self._values)
        self._judge_soon()

    # -- what a person does: on the kernel's thread or on a subshell's, so it only tells -----------
    def _typed(self, name: str, value: Any) -> None:
        value = _trimmed(value)
        with self._lock:
            if self._values.get(name) == value:
                return
            self._values[name] = value
            self._changes += 1
            self._note = ""
            turned = name == "storyboard"
            if turned and value and not self._values["shots"]:
                self._values["shots"] = [_first_shot(self._values)]
        if turned:
            self._redraw()
        else:
            self._judge_soon()

    def _pressed(self, also: bool) -> None:  # noqa: FBT001 - which of two buttons
        with self._lock:
            press = self._said.also if also else self._said.press
            if self._busy or press is None or press.ask is None:
                return
            self._busy, self._note = "Checking…", ""
            changes = self._changes
        if self._view is not None:
            self._view.name_button(self._busy, press.price, ready=False)
        current().loop.start(self._send(partial(self._open, press, changes, also=also)))

    def _acted(self, act: str, run_id: str, price: str) -> None:
        with self._lock:
            run = next((run for run in self._runs if run.id == run_id), None)
            # What is on its way to be sent holds up no look at what is here.
            if run is None or (self._busy and act != "compare"):
                return
            self._note = ""
            if act == "another":
                self._busy = "Checking…"
        if act == "another":
            current().loop.start(self._send(partial(self._open_another, run, price)))
        elif act == "vary":
            self.fill(run)
        elif act == "compare":
            current().loop.start(asyncio.to_thread(self._compare, run))

    # -- in the background ----------------------------------------------------------------------
    def _judge_soon(self) -> None:
        with self._lock:
            self._wanted += 1
            if self._judging or self._view is None:
                return
            self._judging = True
        current().loop.start(self._judge())

    async def _judge(self) -> None:
        over = False
        try:
            while not over:
                await asyncio.sleep(_QUIET_S)
                with self._lock:
                    seen = self._wanted
                await asyncio.to_thread(self._show_verdict)
                with self._lock:
                    over = seen == self._wanted or self._view is None
                    self._judging = not over
        finally:
            # Whatever went wrong, the next change is judged again.
            if not over:
                self._judging = False
        await asyncio.to_thread(self._show_heading)

    def _show_verdict(self) -> None:
        view = self._view
        if view is None:
            return
        session = current()
        with self._lock:
            values, busy = dict(self._values), self._busy
        try:
            said = assess(session, values)
            if self._offered != (values["model"],):
                self._offered = (values["model"],)
                view.offer(offers(session, values["model"]))
        except Exception as error:  # noqa: BLE001 - a fault of ours must not leave an old price on the button
            said = Verdict(hint=f"**kling_nb failed: {type(error).__name__}.** {_NOT_SENT}")
        with self._lock:
            self._said = said
        view.say(said, note=self._note, busy=busy)
        self._list_runs(session, view)

    def _show_heading(self) -> None:
        # Two threads may be at it at once: the later values must be the last that are shown.
        with self._heading_turn:
            heading = self._heading()
            if self._head is not None and heading != self._headed:
                self._headed = heading
                self._head.update(heading, raw=True)

    def _list_runs(self, session: "Session", view: "FormView") -> None:
        with self._lock:
            newest = self._runs[::-1][:_LISTED]
        rows_of = tuple((run.id, run.record.status) for run in newest)
        if rows_of != self._rows_of:
            view.list_runs(result_rows(session, newest))
            self._rows_of = rows_of

    async def _send(self, opening: Callable[[], None]) -> None:
        await asyncio.sleep(_SETTLE_S)
        try:
            await asyncio.to_thread(opening)
        finally:
            with self._lock:
                self._busy = ""
            self._judge_soon()

    def _open(self, said: Press, changes: int, *, also: bool) -> None:
        with self._lock:
            moved, values = changes != self._changes, dict(self._values)
        now = assess(current(), values)
        press = now.also if also else now.press
        if moved or press is None or (press.holds_micros and press.words != said.words):
            press = None
        self._carry_out(press)

    def _open_another(self, run: Run, price: str) -> None:
        press = another_of(current(), run)
        self._carry_out(press if press is not None and press.price == price else None)

    def _carry_out(self, press: Press | None) -> None:
        """Open the call of a button, unless it has become another one."""
        if press is None or press.ask is None:
            self._note = f"The form changed as you pressed. {_NOT_SENT} Look again, and press once more."
            return
        try:
            runs = current().open(_held_to(press))
        except KlingError as error:
            self._note = f"**{error.what}** Charged: {error.charged}. {error.cure}"
            return
        except Exception as error:
            self._note = f"**kling_nb failed: {type(error).__name__}.** See `%kling list` before you go on."
            raise
        new = self._took(runs[0] if len(press.ask.takes) == 1 else Runs(runs), runs)
        if not new:
            self._note = f"Nothing was sent: run `{runs[0].id}` is shown already, see below."
        elif self._context is not None:
            from kling_nb.notebook.card import show_runs

            self._context.copy().run(show_runs, new)

    def _compare(self, run: Run) -> None:
        from kling_nb.notebook.viewers.compare import compare

        with self._lock:
            other = compared_with(run, self._runs[::-1])
        if other is not None and self._context is not None:
            self._context.copy().run(compare([other, run])._ipython_display_)


_NOT_SENT = "Nothing was sent."


def _trimmed(value: Any) -> Any:
    """Take what was typed as a cell would: without the white space around it."""
    if isinstance(value, list):
        return [{name: _trimmed(of) for name, of in row.items()} for row in value]
    return value.strip() if isinstance(value, str) else value


def _held_to(press: Press) -> Ask:
    """Give the call of a button, which may reserve no more than the button said."""
    ask = press.ask
    assert ask is not None  # noqa: S101 - a button without a call is not pressed
    most = Decimal(press.holds_micros) / MICROS
    return replace(ask, max_cost=most if ask.max_cost is None else min(most, ask.max_cost))


def _first_shot(values: Mapping[str, Any]) -> dict[str, Any]:
    """Begin a storyboard with what was written as one prompt, where it fits into a shot."""
    shots = next(of for of in inputs_of() if of.name == "shots")
    most = next(column.chars for column in shots.columns if column.name == "prompt")
    text = str(values.get("prompt") or "")
    return {"prompt": text if most is None or len(text) <= most else "", "duration": values["duration"]}
