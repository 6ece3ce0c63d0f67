"""The widgets of a form, put together: what is typed goes to the form, what the form says is shown.

Invariants: nothing here judges or sends; a value that a person did not change is told to nobody; the button
says what it will do, and clicks only tell.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kling_nb.commands.dry_run import blocks_page
from kling_nb.config.keys import KEY_VARIABLES
from kling_nb.notebook.form.fields import Field, inputs_of
from kling_nb.notebook.form.inputs import Input, choose, page, press, set_trait
from kling_nb.notebook.form.shots import Board
from kling_nb.notebook.form.verdict import Verdict
from kling_nb.notebook.widgets import make_widget
from kling_nb.pricing.catalog import models, provider_label
from kling_nb.views.html import BLUE, FONT, GREY, Html, details, escape, join, prose, tag

__all__ = ["FormView", "Tells"]

_AUTO = "auto"

#: Behind "More"; whatever is not named here stands in the open, a field of tomorrow too.
_MORE = ("shot_type", "take", "max_cost", "price", "metadata", "no_cache", "retry", "private")
_BELOW_PRICE = "allow_unpriced"
_SIDE_BY_SIDE = ("duration", "aspect_ratio", "audio")
_BESIDE = "Words for the whole clip, at providers that take them beside shots (may be left empty)"
_ONE, _BOARD = "one prompt", "storyboard"

# Only for the live widget: its own frame, a focus that is seen on both themes, and room on narrow pages.
_STYLE = """
.kling-form{max-width:860px;border:1px solid rgba(128,128,128,.28);border-radius:8px;padding:12px;
 container-type:inline-size;box-sizing:border-box;overflow:hidden}
.kling-form>.widget-box,.kling-form .widget-vbox,.kling-form .widget-hbox{overflow:visible}
.kling-form .widget-label{text-align:left;color:inherit;min-width:8.6em;width:8.6em}
.kling-form label.widget-label{color:var(--jp-ui-font-color1)}
.kling-form .widget-html,.kling-form .widget-html-content{min-width:0;height:auto;line-height:1.45}
.kling-form .widget-html-content{overflow-wrap:break-word}
.kling-form select{appearance:auto;background-image:none!important}
.kling-form .widget-textarea,.kling-form .widget-text,.kling-form .widget-dropdown{min-width:0;width:auto}
.kling-form textarea{resize:vertical}
.kling-form ::placeholder{color:var(--jp-ui-font-color2);opacity:1}
.kling-form :is(input,select,textarea,button,summary):focus-visible{outline:2px solid #3f7fe0!important;
 outline-offset:1px}
.kling-form .jupyter-button{height:auto;min-height:30px;white-space:normal;line-height:1.3;padding:4px 12px;
 overflow:visible;text-overflow:clip}
.kling-form .kling-row,.kling-form .kling-foot{flex-wrap:wrap;align-items:center;gap:4px 12px}
.kling-form .kling-row:not(.kling-go){align-items:flex-start}
.kling-form input:placeholder-shown{text-overflow:ellipsis}
.kling-form .kling-shot{border-left:3px solid rgba(128,128,128,.4);padding-left:10px;margin:4px 0}
.kling-form .widget-radio{display:flex;align-items:center;width:auto;height:auto;padding:0;margin:2px}
.kling-form .widget-radio>.widget-label{flex:none;margin-right:8px}
.kling-form .widget-radio-box{flex-wrap:wrap;gap:0 14px;width:auto;margin:0!important}
.kling-form .widget-radio-box label{display:inline-flex;align-items:center;width:auto;height:28px;margin:0}
.kling-form .widget-radio-box input{order:-1;float:none;margin:0 6px 0 0;position:static}
.kling-form .kling-below{margin-left:calc(8.6em + 18px)}
.kling-form .kling-go .jupyter-button{font-weight:600;min-height:36px;max-width:100%;text-align:left}
.kling-form .jupyter-button:disabled{opacity:.85}
.kling-form .kling-go .jupyter-button:disabled{opacity:1}
.kling-form .widget-checkbox{width:auto;margin-right:14px}
.kling-form .widget-checkbox{height:auto;min-height:28px;align-items:center}
.kling-form .widget-checkbox .widget-label-basic{display:inline-flex;align-items:center;width:auto;
 height:auto;white-space:normal;overflow:visible;line-height:1.3}
.kling-form .kling-go{margin-top:8px}
.kling-form .jupyter-widgets-disconnected::before{content:none}
.kling-form.jupyter-widgets-disconnected::before{color:var(--jp-ui-font-color1);
 font:bold 13px/1.45 system-ui,sans-serif;content:"The kernel has gone: run this cell again to get the \
form back. What was typed can be copied."}
.kling-form.jupyter-widgets-disconnected button{display:none}
.kling-form .widget-checkbox input{margin:0 6px 0 0}
@container (max-width:520px){
 .kling-form .widget-inline-hbox:has(textarea),.kling-form .widget-inline-hbox:has(input[type=text]),
 .kling-form .widget-inline-hbox:has(select),.kling-form .widget-radio{flex-wrap:wrap;height:auto}
 .kling-form .widget-inline-hbox :is(textarea,select,input[type=text]){flex:1 1 100%}
 .kling-form .widget-inline-hbox select{min-height:28px}
 .kling-form .kling-below{margin-left:0}}
"""


@dataclass(frozen=True, kw_only=True)
class Tells:
    """Whom the view tells what a person does; each may be called on any thread.

    Args:
        put: An input's name and what it holds now.
        go: The button was pressed.
        take: The next take was asked for.
    """

    put: Callable[[str, Any], None]
    go: Callable[[], None]
    take: Callable[[], None]


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
        self._provider = choose("Provider", _providers(set_up[0]), "")
        self._model = choose("Model", _models(set_up[1]), "")
        self._mode = ipywidgets.RadioButtons(
            options=[("One prompt", _ONE), ("Storyboard", _BOARD)],
            description="Write",
            orientation="horizontal",
            layout=ipywidgets.Layout(width="auto"),
        )
        for name, widget in (("provider", self._provider), ("model", self._model)):
            widget.observe(lambda change, name=name: tells.put(name, change["new"]), "value")
        self._mode.observe(self._switched, "value")
        self._offers, self._words, self._left = page(), page(), page()
        self._takes, self._runs = page(), page()
        self._go = press("…", "", tells.go)
        self._next = press("Use the next take", "Ask for the next take of this request", tells.take)
        self._panes = _Panes()
        self.widget = ipywidgets.VBox(self._parts(fields))
        self.widget.add_class("kling-form")
        self.put(values)

    def _parts(self, fields: Mapping[str, Field]) -> list[Any]:
        import ipywidgets

        made = [self._make(of) for of in fields.values() if of.name not in {_BELOW_PRICE, *_MORE}]
        prompt = replace(fields["prompt"], name="beside", help=_BESIDE)
        beside = Input(prompt, self._tells.put, label="Beside shots", name="beside")
        self.inputs["beside"] = beside
        self._prompts[False].append(self.inputs["prompt"].box)
        self._prompts[False].append(self.inputs["duration"].box)
        self._prompts[True] += [*(board.box for board in self._boards), beside.box]
        first = [self.inputs["prompt"].box, *self._prompts[True]]
        row = [self.inputs[name].box for name in _SIDE_BY_SIDE if name in self.inputs]
        rest = [box for box in made if box not in {*first, *row}]
        more = [self._make(fields[name]) for name in _MORE if name in fields]
        self._allow = self._make(fields[_BELOW_PRICE])
        unseen = ipywidgets.Layout(display="none")
        return [
            ipywidgets.HTML(f"<style>{_STYLE}</style>", layout=unseen),
            # In a box that hides it also where the page does not know its kind: the form works without.
            ipywidgets.Box(
                [make_widget("keys", ["shared/page.js", "shared/keys.js"], [], {})], layout=unseen
            ),
            _row([self._provider, self._model]),
            _below(self._offers),
            self._mode,
            *first,
            _row(row),
            *rest,
            self._panes.pane("More", "Further settings of the call", more),
            _row([self._go, self._left], "kling-go"),
            self._allow,
            self._words,
            _row([self._takes, self._next]),
            self._panes.row,
            self._panes.box,
            self._runs,
        ]

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
        for way, boxes in self._prompts.items():
            for box in boxes:
                set_trait(box.layout, "display", "" if way is board else "none")
        for name, made in self.inputs.items():
            made.put(values.get(name, ""))
        for rows in self._boards:
            rows.put(values.get(rows.name) or ())

    def offer(self, rows: Sequence[Sequence[str]]) -> None:
        """Show what each provider of the chosen model can do."""
        # Lines and no table: on a narrow page a table would have to be scrolled, which needs a pointer.
        heads = ("silent", "with sound", "shortest shot", "cancel", "key")
        lines = [
            tag(
                "div",
                tag("b", name),
                ": " + "; ".join(f"{head} {word}" for head, word in zip(heads, words, strict=True)) + ".",
                style="margin-top:4px",
            )
            for name, *words in rows
        ]
        set_trait(self._offers, "value", str(details("What each can do", *lines)))

    def say(self, verdict: Verdict, *, busy: str = "") -> None:
        """Show what the form says; `busy` stands on the button while it is at work."""
        problems, counts = verdict.reading.problems, verdict.counts
        for name, made in self.inputs.items():
            place = "prompt" if name == "beside" else name
            made.say(counts.get(name, ""), problems.get(place, ""))
        for board in self._boards:
            board.say(counts, problems)
        self.name_button(busy or verdict.button, ready=verdict.ready and not busy)
        totals = verdict.plan.totals if verdict.plan is not None else None
        left = totals.left_micros if totals is not None else None
        set_trait(self._left, "value", str(_left(left, play=totals.play if totals else False)))
        lines = [tag("div", prose(words)) for words in verdict.words]
        set_trait(self._words, "value", _said(lines))
        set_trait(self._takes, "value", _said([escape(verdict.takes)] if verdict.takes else []))
        _show(self._next, when=verdict.next_take is not None)
        if verdict.next_take is not None:
            set_trait(self._next, "description", f"Use take {verdict.next_take}")
        _show(self._allow, when=verdict.unpriced)
        self._panes.fill(verdict)

    def name_button(self, words: str, *, ready: bool) -> None:
        """Put words on the button."""
        set_trait(self._go, "description", words)
        set_trait(self._go, "tooltip", words)
        set_trait(self._go, "disabled", not ready)
        set_trait(self._go.style, "button_color", BLUE if ready else GREY)
        set_trait(self._go.style, "text_color", "#fff")

    def list_runs(self, lines: Sequence[Html]) -> None:
        """Show a line for each run of the form."""
        set_trait(self._runs, "value", _said([tag("div", line) for line in lines]))


class _Panes:
    """What opens on a press, so that it takes no room before: one at a time for payload and cell."""

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
        self.pane("Payload", "What each provider would be sent", [self._payload])
        copy = "Select all of it (Ctrl+A or ⌘A) and copy."
        self._cell_words.value = str(tag("span", copy, style="font-size:12px;opacity:0.8"))
        self.pane("Copy as cell", "The same call as a %%kling cell", [self._cell, self._cell_words])

    def pane(self, name: str, tooltip: str, parts: Sequence[Any]) -> Any:
        """Make a part that opens and closes, with its button in the row; More's stands where it is put."""
        import ipywidgets

        inside = ipywidgets.VBox(list(parts), layout=ipywidgets.Layout(display="none", width="auto"))

        def turn() -> None:
            opened = inside.layout.display == "none"
            inside.layout.display = "" if opened else "none"
            self._opened = self._opened | {name} if opened else self._opened - {name}
            self._show()
            button.description = f"{'▾' if opened else '▸'} {name}"

        button = press(f"▸ {name}", tooltip, turn)
        self.row.children = (*self.row.children, button)
        if name == "More":
            return inside
        self.box.children = (*self.box.children, inside)
        return inside

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


def _below(part: Any) -> Any:
    part.add_class("kling-below")
    return part


def _show(widget: Any, *, when: bool) -> None:
    set_trait(widget.layout, "display", "" if when else "none")


def _said(lines: Sequence[Html]) -> str:
    return str(tag("div", join(lines), style=FONT, role="status")) if lines else ""


def _left(left: int | None, *, play: bool) -> Html:
    from kling_nb.records.money import usd

    if left is None:
        return Html("")
    kind = " play money" if play else ""
    words = f"**{usd(left)}**{kind} left" if left >= 0 else f"**over by {usd(-left)}**"
    return tag("span", prose(words), style=FONT)


def _providers(set_up: str) -> list[tuple[str, str]]:
    named = [(provider_label(name), name) for name in (*KEY_VARIABLES, "sandbox")]
    return [(_as_set_up(provider_label(set_up)), ""), ("Auto: first with key and price", _AUTO), *named]


def _as_set_up(name: str) -> str:
    return f"As set up: {name}" if name else "As set up"


def _models(set_up: str) -> list[tuple[str, str]]:
    return [(_as_set_up(set_up), ""), *((model.label, model.id) for model in models().values())]
