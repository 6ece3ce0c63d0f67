"""`kling.sweep`, in a call, a cell and a command.

Invariants: the quote is shown before anything is sent; a name alone sends nothing.
"""

import sys
from collections.abc import Callable, Mapping
from decimal import Decimal
from inspect import signature
from pathlib import Path
from typing import Any

from kling_nb.commands.syntax.cell import CellOrder
from kling_nb.engine.run import Run
from kling_nb.engine.runs import Runs
from kling_nb.errors import ConsentError, KlingError
from kling_nb.ledger.sweeps import find
from kling_nb.notebook.sweep_card import Card, cards, cell_number, shell, show_at_end
from kling_nb.notebook.viewers.compare import compare
from kling_nb.notebook.viewers.gallery import grid_gallery
from kling_nb.notebook.viewers.rate import rate
from kling_nb.notebook.widgets import watched
from kling_nb.session.api import current
from kling_nb.sweeps.grid import make_grid
from kling_nb.sweeps.opening import give_back, known_as, open_sweep
from kling_nb.sweeps.prompts import read_options, read_rows, refused
from kling_nb.sweeps.results import money
from kling_nb.sweeps.sweep import Sweep
from kling_nb.views.stills import Grid

__all__ = ["Sweep", "sweep", "sweep_cell", "sweep_line"]


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
    confirm: bool = False,
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
        confirm: Agrees to the quote, and to what another grid adds to a sweep of this name.

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
        options |= {"confirm": True} if confirm else {}
        made = sweep(**{"name": name or path.stem, **options, "start": not (dry_run or detached)})
        if detached and not dry_run:
            made.start(detached=True, confirm=confirm)
    elif name is not None or path.suffix:
        raise refused(f"There is no file {path.name!r:.60}.", cure="Correct the path.")
    else:
        made = give_back(current(), what, _Views())
        if dry_run:
            made.quote()
        else:
            made.start(detached, confirm=confirm, max_cost=max_cost)
    if not dry_run:
        return made.wait() if wait else made.wait_sent()
    return made


def _enhanced(name: str | None) -> dict[str, str]:
    """Give what was made of prompts when this sweep was made: to ask again may make another text."""
    if name is None:
        return {}
    stored = current().ledger().read(lambda transaction: find(transaction, known_as(name)))
    rows = [row for grid in (stored.grid if stored else []) for _, row in grid["rows"]]
    return {row["prompt_original"]: row["prompt"] for row in rows if "prompt_original" in row}


def _begin(made: Sweep, *, confirm: bool, start: bool) -> Sweep:
    if start:
        try:
            return made.begin(confirm=confirm)
        except ConsentError:
            if made.name not in cards or not cards[made.name].ask():
                raise
    elif shell() is not None:
        _Views().show(made)
    return made


class _Views:
    """What shows a sweep and its clips in a notebook, and elsewhere in words."""

    @property
    def carded(self) -> bool:
        """Whether a page keeps the card of a sweep true while it is waited for."""
        return watched()

    def show(self, sweep: Sweep) -> Callable[[], None]:
        """Draw its quote or its card; a cell has one output for both."""
        if shell() is None:
            sys.stderr.write(f"{sweep!r}\n")
            return lambda: None
        if not current().surroundings().live:
            return show_at_end(sweep)
        card = cards.get(sweep.name)
        if card is None or card.cell != cell_number():
            card = cards[sweep.name] = Card(sweep)
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
