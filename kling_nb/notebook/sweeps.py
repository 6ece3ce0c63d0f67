"""`kling.sweep`, and the one card of a sweep in a notebook.

Invariants: the quote is shown before anything is sent; one output, updated on change and at most once a
second; buttons exist only while somebody watches and there is something to stop or to send.
"""

import asyncio
import contextlib
import itertools
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from inspect import signature
from pathlib import Path
from typing import Any

from kling_nb.commands.syntax.cell import CellOrder
from kling_nb.engine.run import Run
from kling_nb.engine.runs import Runs
from kling_nb.errors import ConsentError, KlingError
from kling_nb.ledger.sweeps import find
from kling_nb.notebook.card import follow_to_the_end
from kling_nb.notebook.viewers.compare import compare
from kling_nb.notebook.viewers.gallery import grid_gallery
from kling_nb.notebook.viewers.rate import rate
from kling_nb.notebook.widgets import EMPTY, answer_at_once, display_widget, watched
from kling_nb.records.money import usd
from kling_nb.session.api import await_at_end, current
from kling_nb.sweeps.grid import make_grid
from kling_nb.sweeps.layout import shape_of
from kling_nb.sweeps.opening import give_back, known_as, open_sweep
from kling_nb.sweeps.progress import Progress
from kling_nb.sweeps.prompts import read_options, read_rows, refused
from kling_nb.sweeps.results import money
from kling_nb.sweeps.sweep import Sweep
from kling_nb.views.stills import Grid
from kling_nb.views.sweep import progress_html, progress_text, quote_html, quote_text
from kling_nb.views.words import counted

__all__ = ["Sweep", "sweep", "sweep_cell", "sweep_line"]

_PERIOD_S = 1.0
_ESTIMATE_S = 10
_EPOCH = datetime.fromtimestamp(0, UTC)
_numbers = itertools.count(1)


def sweep(
    prompts: Any = None,
    *,
    file: str | Path | None = None,
    suite: str | None = None,
    takes: Any = 1,
    duration: Any = None,
    aspect_ratio: Any = None,
    audio: Any = None,
    provider: Any = None,
    model: Any = None,
    negative_prompt: Any = None,
    cfg_scale: Any = None,
    name: str | None = None,
    max_cost: Decimal | str | int | None = None,
    tags: Mapping[str, str] | None = None,
    order: str = "useful",
    confirm: bool = False,
    start: bool = True,
    private: bool = False,
    enhancer: Callable[[str], str] | Mapping[str, Any] | str | None = None,
    **axes: Any,
) -> Sweep:
    """Make a grid of clips as one object, and send it at once; costs money. A bare name gives one back.

    Any setting may be a list: then it is an axis. `{{name}}` in a prompt is filled in from a column or from
    an axis of that name. Above 20 new runs or $10 somebody has to agree: by `confirm=True`, by `max_cost`, or
    on the button below the quote. The same call again goes on where it was; nothing is sent twice.

    Args:
        prompts: A list, a column, or a table with a column `prompt`; a pair of texts is an original prompt
            and the one that is sent. A text alone is the name of an earlier sweep, and sends nothing.
        file: A CSV file with a header, JSON lines, or a text file with a prompt a line.
        suite: `vbench` or `vbench2`: `file` is the suite's own list.
        takes: How many samples of each, or which.
        duration: Whole seconds, 3 to 15.
        aspect_ratio: `16:9`, `9:16` or `1:1`.
        audio: Whether the clips have sound.
        provider: Names a provider, or several for an A/B of each request.
        model: Names a model, or several.
        negative_prompt: What should not be seen.
        cfg_scale: 0 to 1.
        name: Under which every kernel on the ledger finds it; made of the grid unless given.
        max_cost: Dollars that all of it may cost.
        tags: Kept with every run; `{{name}}` in them is filled in.
        order: `useful`: every prompt once before any twice, settings and providers in turn; or `given`.
        confirm: Agrees to the quote, and to what another grid adds to a sweep of this name.
        start: Whether it is sent; else it is only quoted, and `start()` sends it.
        private: The words go to the provider alone; what is shown and shared has their hash.
        enhancer: A function that makes of each prompt the one that is sent; or a text or an object that says
            how the given ones were made. It is kept in the receipts.
        **axes: Further names for `{{name}}`, each with its values.

    Returns:
        The sweep, at once.

    Raises:
        UsageError: A row is wrong, with its number; nothing was sent.
        BudgetError: It does not fit; the message says how many do. Nothing was sent.

    Example:
        >>> owls = sweep(["An owl in {{weather}}"], weather=["snow", "fog"], takes=2)   # doctest: +SKIP
        >>> owls.wait().table()                                                        # doctest: +SKIP
    """
    given = {name: value for name, value in locals().items() if name in _AXES and value is not None}
    session, views = current(), _Views()
    try:
        if isinstance(prompts, str):
            if given or axes or file is not None:
                raise refused(
                    "A text alone is the name of an earlier sweep.", cure="Put a prompt into a list."
                )
            return give_back(session, prompts, views)
        rows = read_rows(prompts, file=file, suite=suite)
        grid = make_grid(
            rows,
            {**axes, **given},
            takes=takes,
            tags=tags,
            order=order,
            private=private,
            enhancer=enhancer,
            enhanced=_enhanced(name) if callable(enhancer) else None,
        )
        made = open_sweep(session, grid, views, name=name, max_cost=money(max_cost), confirm=confirm)
        return _begin(made, confirm=confirm, start=start)
    except KlingError as error:
        error.may_spend = True
        raise


_AXES = frozenset({"duration", "aspect_ratio", "audio", "provider", "model", "negative_prompt", "cfg_scale"})


def sweep_cell(order: CellOrder) -> Sweep:
    """Carry out a cell with `--sweep`: its text is the one prompt, its flags are settings of all.

    Args:
        order: The cell, read.

    Returns:
        The sweep; where nobody watches it was waited for.

    Raises:
        KlingError: It is refused; nothing was sent.
    """
    asked = {name: value for name, value in order.options.items() if name not in {"takes", "earlier"}}
    if taken := sorted(order.sweep.keys() & (signature(sweep).parameters.keys() - _AXES)):
        raise refused(f"--sweep {taken[0]}: this is no axis.", cure="Choose another name.")
    axes: dict[str, Any] = order.sweep
    takes = list(order.options["takes"])
    made = sweep([order.fields], takes=takes, start=not order.dry_run, **asked, **axes)
    here = current().surroundings()
    waits = order.wait if order.wait is not None else here.headless or not here.live
    if waits and made.state != "ready":
        made.wait(order.timeout_s)
        if made.stopped is not None:
            raise made.stopped
    return made


def sweep_line(
    what: str,
    name: str | None,
    *,
    dry_run: bool,
    wait: bool,
    max_cost: str | None,
    detached: bool = False,
) -> Sweep:
    """Carry out `kling-nb sweep`: quote, send, go on or cancel.

    Args:
        what: A TOML file with the options of `sweep`, another file of prompts, the name of a sweep that is
            there, or `cancel`.
        name: With a file the name of the sweep, its own unless given; with `cancel` which one.
        dry_run: Whether it is only quoted.
        wait: Whether its end is waited for; else only that everything is sent.
        max_cost: Dollars that all of it may cost.
        detached: Whether it is left to workers to send it.

    Returns:
        The sweep.

    Raises:
        KlingError: It is refused; nothing was sent.
    """
    if what == "cancel":
        if name is None:
            raise refused("Which sweep is to be canceled?", cure="`kling-nb sweep cancel NAME`.")
        return give_back(current(), name, _Views()).cancel()
    path = Path(what).expanduser()
    if path.is_file():
        options = read_options(path) | ({"max_cost": max_cost} if max_cost else {})
        made = sweep(**{"name": name or path.stem, **options, "start": not (dry_run or detached)})
        if detached and not dry_run:
            made.start(detached=True)
    elif name is not None or path.suffix:
        raise refused(f"There is no file {path.name!r:.60}.", cure="Correct the path.")
    else:
        made = give_back(current(), what, _Views())
        if dry_run:
            made.quote()
        else:
            made.start(detached, max_cost=max_cost)
    if not dry_run:
        return made.wait() if wait else made.wait_sent()
    return made


def _enhanced(name: str | None) -> dict[str, str]:
    """Give what was made of prompts when this sweep was made: to ask again may make another text."""
    if name is None:
        return {}
    with current().ledger().reading() as transaction:
        stored = find(transaction, known_as(name))
    rows = [row for grid in (stored.grid if stored else []) for _, row in grid["rows"]]
    return {row["prompt_original"]: row["prompt"] for row in rows if "prompt_original" in row}


def _begin(made: Sweep, *, confirm: bool, start: bool) -> Sweep:
    if start:
        try:
            return made.begin(confirm=confirm)
        except ConsentError:
            if made.name not in _cards or not _cards[made.name].ask():
                raise
    elif _shell() is not None:
        _Views().show(made)
    return made


class _Views:
    """What shows a sweep and its clips in a notebook, and elsewhere in words."""

    def show(self, sweep: Sweep) -> Callable[[], None]:
        """Draw its quote or its card; a cell has one output for both."""
        if _shell() is None:
            sys.stderr.write(f"{sweep!r}\n")
            return lambda: None
        card = _cards.get(sweep.name)
        if card is None or card.cell != _cell_number():
            card = _cards[sweep.name] = _Card(sweep)
        else:
            card.redraw(sweep)
        return card.follow

    def gallery(self, grid: Grid, runs: Mapping[int, Run]) -> Any:
        """Make a contact sheet in rows and columns."""
        return grid_gallery(grid, runs)

    def compare(self, runs: Runs) -> Any:
        """Put clips side by side."""
        return compare(runs)

    def rate(self, runs: Runs, **options: Any) -> Any:
        """Vote on pairs."""
        return rate(runs, **options)


#: By sweep, the card that was drawn last.
_cards: dict[str, "_Card"] = {}


def _shell() -> Any:
    module = sys.modules.get("IPython.core.interactiveshell")
    if module is None or not module.InteractiveShell.initialized():
        return None
    return module.InteractiveShell.instance()


def _cell_number() -> int:
    return getattr(_shell(), "execution_count", -1)


class _Card:
    """The output of one cell that shows a sweep: first its quote, then how it goes."""

    def __init__(self, sweep: Sweep) -> None:
        from IPython.display import DisplayHandle

        self.cell = _cell_number()
        self._sweep = sweep
        self._note = ""
        self._buttons: Any = None
        self._following = self._asked = False
        self._lock = threading.Lock()
        self._shown = self._bundle()
        self._handle = DisplayHandle(f"kling-sweep-{next(_numbers)}")
        self._handle.display(self._shown, raw=True)

    def _bundle(self, progress: Progress | None = None) -> dict[str, str]:
        sweep, quote = self._sweep, self._sweep.quoted
        if sweep.quoting and quote is not None:
            how = sweep.name, shape_of(sweep.members), quote
            return {
                "text/html": quote_html(*how, note=self._note),
                "text/plain": quote_text(*how, note=self._note),
            }
        progress = progress or sweep.progress
        return {"text/html": progress_html(progress), "text/plain": progress_text(progress)}

    def redraw(self, sweep: Sweep) -> None:
        """Bring the output up to date."""
        self._sweep = sweep
        self._put(self._bundle())

    def _put(self, bundle: dict[str, str]) -> None:
        if bundle != self._shown:
            self._shown = bundle
            self._handle.update(bundle, raw=True)

    def ask(self) -> bool:
        """Put the button that sends it below the quote; False where nobody could press it."""
        quote = self._sweep.quoted
        if quote is None or not watched():
            return False
        self._asked = True
        self._show_buttons((f"Send {counted(quote.new, 'run')}, {usd(quote.micros)}", self._send))
        return self._buttons is not None

    def follow(self) -> None:
        """Keep the output true until it is over."""
        if self._following or self._asked or self._sweep.quoting:
            return
        await_at_end([self._sweep])  # type: ignore[list-item]  # it is waited for as a run is
        if watched() and not self._is_over():
            self._show_buttons(
                ("Stop sending", self._sweep.pause), ("Cancel what is not sent", self._sweep.cancel)
            )
        self._begin_to_follow()

    def _begin_to_follow(self) -> None:
        self._following = True
        follow_to_the_end(self._handle, self._follow, self._is_over)

    def _is_over(self) -> bool:
        return self._sweep.progress.over

    async def _follow(self, put: Callable[[dict[str, str]], None]) -> None:
        drawn: object = None
        while True:
            progress = await asyncio.to_thread(lambda: self._sweep.progress)
            # The time alone is no change, but estimates are brought up to date now and then.
            look = (
                replace(progress, now=_EPOCH, ends_at=None, per_hour=None),
                progress.now.timestamp() // _ESTIMATE_S,
            )
            if drawn != look:
                drawn = look
                bundle = self._bundle(progress)
                if bundle != self._shown:
                    self._shown = bundle
                    put(bundle)
            if progress.over:
                break
            await asyncio.sleep(_PERIOD_S)
        self._following = False
        self._hide_buttons()

    # -- buttons -------------------------------------------------------------------------------------
    def _show_buttons(self, *buttons: tuple[str, Callable[[], Any]]) -> None:
        with contextlib.suppress(ImportError):
            import ipywidgets

            look = {"layout": {"width": "auto"}, "button_style": "primary" if self._asked else ""}
            made = [ipywidgets.Button(description=word, **look) for word, _ in buttons]
            for button, (_, act) in zip(made, buttons, strict=True):
                answer_at_once(button)
                button.on_click(self._clicked(act))
            self._box = ipywidgets.HBox(made)
            self._buttons = display_widget(self._box, f"kling-sweep-buttons-{next(_numbers)}")

    def _clicked(self, act: Callable[[], Any]) -> Callable[[Any], None]:
        def clicked(button: Any) -> None:
            # May come in on any thread, and the ledger may be busy: it only signals.
            button.disabled = True
            current().loop.start(asyncio.to_thread(act))

        return clicked

    def _send(self) -> None:
        # Its card is this output, whichever cell has been run since.
        self.cell, _cards[self._sweep.name] = _cell_number(), self
        try:
            self._sweep.start(confirm=True)
        except KlingError as error:
            self._note = str(error)
            self.redraw(self._sweep)
        self._hide_buttons()
        self._asked = False
        if not self._sweep.quoting:
            self._begin_to_follow()

    def _hide_buttons(self) -> None:
        with self._lock:
            handle, self._buttons = self._buttons, None
        if handle is not None:
            handle.update(EMPTY, raw=True)
