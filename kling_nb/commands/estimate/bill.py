"""`%kling estimate`: the bill of a whole notebook, before any of it is run.

Invariants: no code of the notebook runs, no provider is asked, and nothing is written: each call is planned
as its dry run is, after those above it; what only running would tell is counted as unknown and named; play
money never mixes with real money.
"""

import tempfile
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kling_nb.commands.estimate.cells import read_cells
from kling_nb.commands.estimate.steps import Step, read_steps
from kling_nb.config.environment import Surroundings
from kling_nb.errors import BudgetError, ConsentError, KlingError, UnpricedError, UsageError
from kling_nb.pricing.estimate import Quote, total
from kling_nb.records.money import Estimate, Totals

if TYPE_CHECKING:
    from kling_nb.session.plan import Plan
    from kling_nb.session.session import Session

__all__ = ["CellBill", "NotebookBill", "State", "estimate_notebook"]

State = Literal["new", "pending", "reused", "dry run", "refused", "unpriced", "blocked", "invalid", "unknown"]

#: A cell in one of these states ends with an error, and Run All with it.
STOPS: frozenset[State] = frozenset({"refused", "unpriced", "blocked", "invalid"})


@dataclass(frozen=True, kw_only=True)
class CellBill(Step):
    """What one step would do, and cost.

    Args:
        state: What would come of it.
        new: How many runs it would send, or would if it were not refused.
        reused: How many clips are here, or made by a cell above.
        pending: How many runs are on their way.
        price: Of one new run; None where there is none to price.
        provider: Where new runs would go.
        model: Our id of the model.
        play: Whether it is play money.
    """

    state: State
    new: int = 0
    reused: int = 0
    pending: int = 0
    price: Estimate | None = None
    provider: str | None = None
    model: str | None = None
    play: bool = False

    @property
    def estimates(self) -> list[Estimate]:
        """One a run that it would send; what is unknown counts as one."""
        unknown = Estimate(micros=None, reserve_micros=0)
        return [unknown] if self.state == "unknown" else [self.price] * self.new if self.price else []

    @property
    def quote(self) -> Quote:
        """What it would cost."""
        return total(self.estimates)


@dataclass(frozen=True, kw_only=True)
class NotebookBill:
    """What running a whole notebook would do, and cost.

    Args:
        notebook: The file.
        saved_at: When it was saved.
        cells: Each paid cell, in order.
        notes: What could change the bill and was not followed, one line each.
        totals: The money before it, real money first, then play money where there is any.
        consent: Why it would be refused where nobody is watching; None where it would not.

    Example:
        >>> now = datetime(2026, 11, 21, tzinfo=UTC)
        >>> bill = NotebookBill(notebook=Path("a.ipynb"), saved_at=now, cells=(), totals=())
        >>> str(bill.quote()), bill.refused, bill.stops_at
        ('$0.00', False, None)
    """

    notebook: Path
    saved_at: datetime
    cells: tuple[CellBill, ...]
    notes: tuple[str, ...] = ()
    totals: tuple[Totals, ...]
    consent: str | None = None

    def quote(self, *, play: bool = False) -> Quote:
        """Add up what it would cost, in real or in play money."""
        return total(one for cell in self.cells if cell.play is play for one in cell.estimates)

    def count(self, what: Literal["new", "reused", "pending"], *, play: bool | None = None) -> int:
        """Count runs over all cells, or over those of real or of play money."""
        return sum(getattr(cell, what) for cell in self.cells if play is None or cell.play is play)

    @property
    def complete(self) -> bool:
        """Whether nothing was left unknown and nothing was left unread; if not, the sums are lower bounds."""
        return not self.notes and all(cell.quote.unknown == 0 for cell in self.cells)

    @property
    def refused(self) -> bool:
        """Whether a cell would be refused for money."""
        return any(cell.state in {"refused", "unpriced"} for cell in self.cells)

    @property
    def stops_at(self) -> CellBill | None:
        """The first cell that would end with an error, and Run All with it."""
        return next((cell for cell in self.cells if cell.state in STOPS), None)


def estimate_notebook(session: "Session", path: Path, *, headless: bool = False) -> NotebookBill:
    """Say what running a notebook would cost, without running any of it.

    Args:
        session: Whose money, keys and settings count.
        path: The notebook's file.
        headless: Whether to judge as where nobody is watching.

    Returns:
        The bill.

    Raises:
        UsageError: It is not a notebook.
        LedgerError: The ledger cannot be used.
    """
    path = path.resolve()
    steps = read_steps(read_cells(path), folder=path.parent)
    where = Surroundings(notebook=path, folder=path.parent, headless=headless)
    ledger, cells, settings = session.settings().ledger, [], dict[str, Any]()
    with (
        tempfile.TemporaryDirectory(prefix="kling-nb-") as scratch,
        closing(session.beside(lambda: where)) as probe,
    ):
        if "://" not in ledger and not Path(ledger).exists():
            # Where there is none yet, none is made just to look.
            settings["ledger"] = str(Path(scratch) / "ledger.db")
        probe.configure(settings)
        biller = _Biller(probe)
        for step in steps:
            settings |= step.settings
            probe.configure(settings)
            if step.kind not in {"setting", "note"}:
                cells.append(biller.bill(step))
        totals = [probe.totals(play=play) for play in (False, True)]
    return NotebookBill(
        notebook=path,
        saved_at=datetime.fromtimestamp(path.stat().st_mtime, UTC),
        cells=tuple(cells),
        notes=tuple(f"Cell {step.cell} {step.why}." for step in steps if step.kind == "note"),
        totals=tuple(totals if any(cell.play for cell in cells) else totals[:1]),
        consent=biller.consent,
    )


class _Biller:
    """Plans the calls of a notebook one after the other."""

    def __init__(self, probe: "Session") -> None:
        self.probe = probe
        self.consent: str | None = None
        self.before: list[Plan] = []
        #: The cell that would make a run, by its request key.
        self.cells: dict[str, int] = {}

    def bill(self, step: Step) -> CellBill:
        bill = CellBill(**vars(step), state="invalid" if step.kind == "invalid" else "unknown")
        try:
            self.probe.keys.refuse({"the cell": f"{step.name or ''}\n{step.words}\n{step.why}"})
        except UsageError as error:
            # A bill goes into logs and saved outputs.
            bill = replace(bill, ask=None, name=None, words="(it holds a key)", why=error.what)
        if step.ask is None:
            return bill
        try:
            plan = self.probe.plan(step.ask, before=self.before)
        except KlingError as error:
            return self._stopped(bill, error)
        words = [take.word for take in plan.takes]
        bill = replace(
            bill,
            state="new" if plan.new else "pending" if "pending" in words else "reused",
            new=plan.new,
            reused=words.count("reused"),
            pending=words.count("pending"),
            price=plan.estimate if plan.new else None,
            provider=plan.provider,
            model=plan.model,
            play=plan.play,
        )
        if step.dry_run:
            return replace(bill, state="dry run", new=0, price=None)
        if isinstance(plan.unwatched, ConsentError):
            self.consent = self.consent or plan.unwatched.what
        if stop := next((take.error for take in plan.takes if take.error), plan.obstacle):
            return self._stopped(bill, stop)
        same = [self.cells[take.request_key] for take in plan.takes if take.request_key in self.cells]
        self.before.append(plan)
        for take in plan.takes:
            if take.word == "new":
                self.cells.setdefault(take.request_key, step.cell)
        return replace(bill, why=f"the same as cell {min(same)}") if same and not plan.new else bill

    def _stopped(self, bill: CellBill, error: KlingError) -> CellBill:
        if not isinstance(error, BudgetError):
            return replace(bill, state="blocked", new=0, price=None, why=error.what, cure=error.cure)
        state: State = "unpriced" if isinstance(error, UnpricedError) else "refused"
        return replace(bill, state=state, why=error.what, cure=error.cure)
