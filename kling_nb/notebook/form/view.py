"""The widgets of a form, put together: what is typed goes to the form, what the form says is shown.

Invariants: nothing here judges or sends; a value that a person did not change is told to nobody; the button
says what it will do, and clicks only tell.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kling_nb.commands.dry_run import blocks_page
from kling_nb.config.keys import KEY_VARIABLES
from kling_nb.config.provider_choice import choose_provider
from kling_nb.errors import KlingError
from kling_nb.notebook.form.fields import Field, inputs_of
from kling_nb.notebook.form.inputs import Input, choose, page, press
from kling_nb.notebook.form.shots import Board
from kling_nb.notebook.form.verdict import Verdict
from kling_nb.notebook.widgets import make_widget, set_trait, static_text
from kling_nb.pricing.catalog import models, provider_label
from kling_nb.records.money import Totals, usd
from kling_nb.session.api import current
from kling_nb.views.html import FONT, Html, details, prose, tag

__all__ = ["FormView", "Tells", "set_up_names"]

_AUTO = "auto"

#: In the row below the prompt; what is named neither here nor under "More" follows, a field of tomorrow too.
_ROW = ("duration", "aspect_ratio", "audio", "takes")
_MORE = (
    *(
        "negative_prompt",
        "cfg_scale",
        "shot_type",
        "tags",
        "take",
        "max_cost",
        "price",
        "metadata",
        "callback_url",
    ),
    *("no_cache", "retry", "private"),
)
_BELOW_PRICE = "allow_unpriced"
_BESIDE = "Words for the whole clip, at providers that take them beside shots"
_PROMPT = "What happens in the clip? Subject, action, camera, light."
_ONE, _BOARD = "one prompt", "storyboard"
_OFFERS = ("", "silent", "with sound", "shortest shot", "cancel", "key")


@dataclass(frozen=True, kw_only=True)
class Tells:
    """Whom the view tells what a person does; each may be called on any thread.

    Args:
        put: An input's name and what it holds now.
        go: A button was pressed: the first, or the one beside it.
        act: A button on the card of a run was pressed: what it does, the run's id, and the price on it.
    """

    put: Callable[[str, Any], None]
    go: Callable[[bool], None]
    act: Callable[[str, str, str], None] = lambda _act, _id, _price: None


class FormView:
    """The widgets.

    Args:
        values: What they hold at first, by name.
        tells: Whom they tell.
        set_up: The provider and the model that the settings name.
    """

    def __init__(self, values: Mapping[str, Any], tells: Tells, set_up: tuple[str, str] = ("", "")) -> None:
        import ipywidgets

        self._tells = tells
        self.inputs: dict[str, Input] = {}
        self._boards: list[Board] = []
        self._prompts: dict[bool, list[Any]] = {True: [], False: []}
        fields = {of.name: of for of in inputs_of()}
        fields["prompt"] = replace(fields["prompt"], help=_PROMPT)
        self._provider = choose("Provider", _providers(set_up[0]), "")
        self._model = choose("Model", _models(set_up[1]), "")
        self._mode = ipywidgets.RadioButtons(
            options=[("One prompt", _ONE), ("Storyboard", _BOARD)],
            description="Write",
            orientation="horizontal",
            layout=ipywidgets.Layout(width="auto"),
        )
        self._mode.add_class("kling-mode")
        for name, widget in (("provider", self._provider), ("model", self._model)):
            widget.observe(lambda change, name=name: tells.put(name, change["new"]), "value")
        self._mode.observe(self._switched, "value")
        self._offers, self._hint, self._money = page(), page(), page()
        self._hint.add_class("kling-hint")
        self._money.add_class("kling-money-row")
        self._go = press("Generate", "", lambda: tells.go(False))
        self._go.add_class("kling-go")
        self._go.layout.min_width = "230px"
        self._also = press("Show again", "", lambda: tells.go(True))
        self._also.add_class("kling-also")
        self._page = make_widget("form", ["shared/page.js", "form.js"], [], {})
        self._page.on_msg(self._on_message)
        self._panes = _Panes()
        self.widget = ipywidgets.VBox(self._parts(fields))
        self.widget.add_class("kling-form")
        self.put(values)

    def _parts(self, fields: Mapping[str, Field]) -> list[Any]:
        import ipywidgets

        beside = Input(
            replace(fields["prompt"], name="beside", help=_BESIDE),
            self._tells.put,
            label="Style for all shots",
            name="beside",
        )
        made = {name: self._make(of) for name, of in fields.items() if name not in {_BELOW_PRICE, *_MORE}}
        self.inputs["beside"] = beside
        self.inputs["prompt"].box.add_class("kling-prompt-input")
        self.inputs["duration"].box.add_class("kling-seconds")
        self._prompts[False] += [made["prompt"], made["duration"]]
        self._prompts[True] += [*(board.box for board in self._boards), beside.box]
        first = [made["prompt"], *self._prompts[True]]
        row = [made[name] for name in _ROW if name in made]
        rest = [box for box in made.values() if box not in {*first, *row}]
        further = [_pick(self._provider), _pick(self._model)]
        further += [self._make(fields[name]) for name in _MORE if name in fields]
        self._allow = self._make(fields[_BELOW_PRICE])
        unseen = ipywidgets.Layout(display="none")
        return [
            ipywidgets.HTML(f"<style>{static_text('form.css')}</style>", layout=unseen),
            # In a box that hides it also where the page does not know its kind: the form works without.
            ipywidgets.Box([self._page], layout=unseen),
            self._mode,
            *first,
            _row(row, "kling-settings"),
            *rest,
            _row([self._go, self._also], "kling-act"),
            self._money,
            self._hint,
            self._allow,
            *self._panes.more(
                [_row(further, "kling-further"), self._offers, self._panes.row, self._panes.box]
            ),
        ]

    def _on_message(self, _widget: object, content: Any, _buffers: object) -> None:
        if isinstance(content, Mapping) and content.get("kind") == "act":
            act, run_id, price = (content.get(name) for name in ("act", "id", "price"))
            if isinstance(act, str) and isinstance(run_id, str) and isinstance(price, str):
                self._tells.act(act, run_id, price)

    def _make(self, of: Field) -> Any:
        if of.kind == "rows":
            board = Board(of, self._tells.put)
            self._boards.append(board)
            return board.box
        self.inputs[of.name] = made = Input(of, self._tells.put)
        return made.box

    def _switched(self, change: Any) -> None:
        self._tells.put("storyboard", change["new"] == _BOARD)

    # -- what the form tells it ---------------------------------------------------------
    def put(self, values: Mapping[str, Any]) -> None:
        """Show what the form holds."""
        for widget, name in ((self._provider, "provider"), (self._model, "model")):
            if values[name] in dict(widget.options).values():
                set_trait(widget, "value", values[name])
        board = bool(values["storyboard"])
        set_trait(self._mode, "value", _BOARD if board else _ONE)
        for name, made in self.inputs.items():
            made.put(values.get(name, ""))
        for rows in self._boards:
            rows.put(values.get(rows.name) or ())
        # Last: rows that came into a board that is seen already would move its button away under a click.
        for way, boxes in self._prompts.items():
            for box in boxes:
                set_trait(box.layout, "display", "" if way is board else "none")

    def offer(self, rows: Sequence[Sequence[str]]) -> None:
        """Show what each provider of the chosen model can do."""
        head = tag("tr", *(tag("th", word) for word in _OFFERS))
        lines = [tag("tr", *(tag("td", word) for word in row[: len(_OFFERS)])) for row in rows]
        table = tag("table", head, *lines, **{"class": "kling-offers"})
        # By keyboard, too, where a narrow page has to scroll it.
        scrolled = tag(
            "div", table, style="overflow-x:auto", tabindex=0, role="group", title="What each can do"
        )
        sources = [tag("div", f"{row[0]}: {row[-1]}") for row in rows if row[-1]]
        below = tag("div", *sources, **{"class": "kling-sources"})
        set_trait(self._offers, "value", str(details("What each can do", scrolled, below)))

    def say(self, verdict: Verdict, *, note: str = "", busy: str = "") -> None:
        """Show what the form says, `note` before it; `busy` stands on the button while it is at work."""
        problems, counts = verdict.reading.problems, verdict.counts
        for name, made in self.inputs.items():
            place = "prompt" if name == "beside" else name
            made.say(counts.get(name, ""), problems.get(place, ""))
        for board in self._boards:
            board.say(counts, problems)
        plan = verdict.plan
        _class(self._go, "kling-real", when=plan is not None and not plan.play)
        self.name_button(busy or verdict.press.verb, verdict.press.price, ready=verdict.ready and not busy)
        _show(self._also, when=verdict.also is not None)
        if verdict.also is not None:
            set_trait(self._also, "description", verdict.also.verb)
            set_trait(self._also, "tooltip", verdict.also.price)
            set_trait(self._also, "disabled", verdict.also.ask is None or bool(busy))
        set_trait(self._money, "value", str(_money(verdict)) if plan is not None else "")
        hint = note or verdict.hint or verdict.takes
        set_trait(
            self._hint, "value", str(tag("div", prose(hint), style=FONT, role="status")) if hint else ""
        )
        _show(self._allow, when=verdict.unpriced)
        self._panes.fill(verdict)
        self._tell_page(cell=verdict.cell if verdict.cell.startswith("%%kling") else "")

    def name_button(self, verb: str, price: str, *, ready: bool) -> None:
        """Put words on the button."""
        set_trait(self._go, "description", verb)
        set_trait(self._go, "tooltip", price)
        set_trait(self._go, "disabled", not ready)
        _class(self._go, "kling-busy", when=verb.endswith("…"))

    def list_runs(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Say what the cards of its runs have buttons for, the newest first."""
        self._tell_page(runs=[dict(row) for row in rows])

    def _tell_page(self, **state: Any) -> None:
        set_trait(self._page, "state", {**self._page.state, **state})


class _Panes:
    """What opens on a press, so that it takes no room before."""

    def __init__(self) -> None:
        import ipywidgets

        self._payload, self._cell_words = page(), page()
        # Typing here is put back: it can be selected and copied from the keyboard, which plain text cannot.
        self._cell = ipywidgets.Textarea(
            description="Cell", rows=5, layout=ipywidgets.Layout(width="auto"), continuous_update=False
        )
        self._text = ""
        self._blocks: Sequence[tuple[str, str]] = ()
        self._opened: frozenset[str] = frozenset()
        self._cell.observe(self._put_back, "value")
        self.row = _row([])
        self.box = ipywidgets.VBox([], layout=ipywidgets.Layout(width="auto"))
        payload, inside = self._pane("Payload", "What each provider would be sent", [self._payload])
        copy, text = self._pane(
            "Copy as cell", "The same call as a %%kling cell", [self._cell, self._cell_words]
        )
        copy.add_class("kling-copy")
        text.add_class("kling-input")
        text.add_class("kling-cell")
        words = "Paste it into a cell. Where the page may not copy, select all of it (Ctrl+A or ⌘A) and copy."
        self._cell_words.value = str(tag("span", words, style="font-size:12px;opacity:0.8"))
        self.row.children = (payload, copy)
        self.box.children = (inside, text)

    def more(self, parts: Sequence[Any]) -> list[Any]:
        """Make the part with the further settings, and the button that opens it."""
        words = "Provider, model, negative prompt, prompt strength, tags, payload, the same as a cell"
        button, inside = self._pane("More", words, parts)
        button.add_class("kling-open")
        return [button, inside]

    def _pane(self, name: str, tooltip: str, parts: Sequence[Any]) -> tuple[Any, Any]:
        import ipywidgets

        inside = ipywidgets.VBox(list(parts), layout=ipywidgets.Layout(display="none", width="auto"))
        inside.add_class("kling-pane")

        def turn() -> None:
            opened = inside.layout.display == "none"
            inside.layout.display = "" if opened else "none"
            self._opened = self._opened | {name} if opened else self._opened - {name}
            self._show()
            button.description = f"{'▾' if opened else '▸'} {name}"

        button = press(f"▸ {name}", tooltip, turn)
        return button, inside

    def fill(self, verdict: Verdict) -> None:
        """Show payloads and the cell of a verdict."""
        self._blocks, self._text = verdict.blocks, verdict.cell
        self._show()

    def _show(self) -> None:
        # What is closed costs nothing while a person types.
        if "Payload" in self._opened:
            page = blocks_page(self._blocks) if self._blocks else Html("There is nothing to send yet.")
            set_trait(self._payload, "value", str(tag("div", page, style=FONT)))
        if "Copy as cell" in self._opened:
            set_trait(self._cell, "value", self._text)
            set_trait(self._cell, "rows", min(14, max(3, self._text.count("\n") + 2)))

    def _put_back(self, _change: Any) -> None:
        set_trait(self._cell, "value", self._text)


def _row(parts: Sequence[Any], name: str = "") -> Any:
    import ipywidgets

    row = ipywidgets.HBox(list(parts), layout=ipywidgets.Layout(width="auto"))
    row.add_class("kling-row")
    if name:
        row.add_class(name)
    return row


def _pick(widget: Any) -> Any:
    widget.add_class("kling-pick")
    return widget


def _class(widget: Any, name: str, *, when: bool) -> None:
    if when:
        widget.add_class(name)
    else:
        widget.remove_class(name)


def _show(widget: Any, *, when: bool) -> None:
    set_trait(widget.layout, "display", "" if when else "none")


def _money(verdict: Verdict) -> Html:
    """Draw whose money it is, where it goes, what is left, and behind a press what the price rests on."""
    plan = verdict.plan
    assert plan is not None  # noqa: S101 - nothing is drawn without
    look = "kling-pill" if plan.play else "kling-pill kling-real"
    parts = [
        tag("span", "play money" if plan.play else "real money", **{"class": look}),
        tag("span", verdict.where),
        *_left(plan.totals),
        details("About this price", *(tag("div", prose(words)) for words in verdict.words)),
    ]
    return tag("div", *parts, **{"class": "kling-money"})


def _left(totals: Totals | None) -> list[Html]:
    left = totals.left_micros if totals is not None else None
    if totals is None or left is None:
        return []
    if left < 0:
        return [tag("span", prose(f"**over by {usd(-left)}**"))]
    whole = totals.tightest.cap_micros if totals.tightest is not None else totals.cap_micros
    of = f" of {usd(whole)}" if whole and whole != left else ""
    share = min(100, 100 * left // whole) if whole else 0
    bar = tag("span", tag("span", style=f"width:{share}%"), **{"class": "kling-left"})
    return [tag("span", f"{usd(left)}{of} left"), bar]


def set_up_names() -> tuple[str, str]:
    """Give the provider and the model that the settings name, as far as they can be read."""
    try:
        session = current()
        settings = session.settings()
        model = settings.priced_model()
    except KlingError:
        return "", ""
    try:
        chosen = choose_provider(settings, model, audio=False, named=None, find=session.key)
    except KlingError:
        chosen = settings.provider
    by_itself = chosen == "sandbox" != settings.provider
    return "Sandbox (no key found)" if by_itself else provider_label(chosen), model.label


def _providers(set_up: str) -> list[tuple[str, str]]:
    named = [(provider_label(name), name) for name in (*KEY_VARIABLES, "sandbox")]
    return [(_as_set_up(set_up), ""), ("Auto: first with key and price", _AUTO), *named]


def _as_set_up(name: str) -> str:
    return f"As set up: {name}" if name else "As set up"


def _models(set_up: str) -> list[tuple[str, str]]:
    return [(_as_set_up(set_up), ""), *((model.label, model.id) for model in models().values())]
