"""`%kling estimate`: the bill of a whole notebook, before any of it is run.

Invariants: no code of the notebook runs, no provider is asked, and nothing is kept: each cell is admitted
as it would be when run, by the same code, in a copy of the ledger that is thrown away; what only running
would tell is counted as unknown and named; play money never mixes with real money.
"""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kling_nb.commands.estimate.cells import read_cells
from kling_nb.commands.estimate.steps import Step, read_steps
from kling_nb.commands.syntax.cell import ask_of
from kling_nb.config.environment import Surroundings
from kling_nb.engine.reuse import Decision
from kling_nb.errors import BudgetError, ConsentError, KlingError, UnpricedError, UsageError
from kling_nb.ledger.database import Ledger
from kling_nb.ledger.transaction import Transaction
from kling_nb.pricing.estimate import Quote
from kling_nb.records.money import Estimate, Totals
from kling_nb.records.privacy import in_place_of
from kling_nb.records.run import RunRecord, RunStatus
from kling_nb.session.admission import Admission

if TYPE_CHECKING:
    from kling_nb.session.session import Session

__all__ = ["CellBill", "NotebookBill", "State", "estimate_notebook"]

State = Literal["new", "pending", "reused", "dry run", "refused", "unpriced", "blocked", "invalid", "unknown"]

#: A cell in one of these states ends with an error, and Run All with it.
STOPS: frozenset[State] = frozenset({"refused", "unpriced", "blocked", "invalid"})


@dataclass(frozen=True, kw_only=True)
class CellBill:
    """What one cell would do, and cost.

    Args:
        cell: Its place in the notebook, counted from 1.
        line: The line in it, counted from 1.
        state: What would come of it.
        name: The variable it would bind, if any.
        words: Its prompt, or the line of code.
        new: How many runs it would send, or would if it were not refused.
        reused: How many clips are here, or made by a cell above.
        pending: How many runs are on their way.
        price: Of one new run; None where there is none to price.
        why: Why it is unknown, refused or blocked, or where its clips come from.
        cure: What to do about it.
        provider: Where new runs would go.
        model: Our id of the model.
        play: Whether it is play money.
    """

    cell: int
    line: int = 1
    state: State
    name: str | None = None
    words: str = ""
    new: int = 0
    reused: int = 0
    pending: int = 0
    price: Estimate | None = None
    why: str = ""
    cure: str = ""
    provider: str | None = None
    model: str | None = None
    play: bool = False

    @property
    def quote(self) -> Quote:
        """What it would cost."""
        if self.state == "unknown":
            return Quote(known_micros=0, unknown=1, reserve_micros=0)
        if self.price is None:
            return Quote(known_micros=0, unknown=0, reserve_micros=0)
        known = self.price.micros
        return Quote(
            known_micros=(known or 0) * self.new,
            unknown=self.new if known is None else 0,
            reserve_micros=self.price.reserve_micros * self.new,
        )


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
    consent: str | None = field(default=None)

    def quote(self, *, play: bool = False) -> Quote:
        """Add up what it would cost, in real or in play money."""
        each = [cell.quote for cell in self.cells if cell.play is play]
        return Quote(
            known_micros=sum(quote.known_micros for quote in each),
            unknown=sum(quote.unknown for quote in each),
            reserve_micros=sum(quote.reserve_micros for quote in each),
        )

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
        UsageError: It is no notebook.
        LedgerError: The ledger cannot be used.
    """
    path = path.resolve()
    steps = read_steps(read_cells(path), folder=path.parent)
    saved_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    where = Surroundings(notebook=path, folder=path.parent, headless=headless)
    with (
        tempfile.TemporaryDirectory(prefix="kling-nb-") as scratch,
        closing(session.beside(lambda: where)) as probe,
    ):
        rehearsal = _Rehearsal(probe, _aside(session, Path(scratch) / "ledger.db"))
        cells = rehearsal.play(steps)
        real, play = rehearsal.totals()
    return NotebookBill(
        notebook=path,
        saved_at=saved_at,
        cells=cells,
        notes=tuple(f"Cell {step.cell} {step.why}." for step in steps if step.kind == "note"),
        totals=(real, play) if any(cell.play for cell in cells) else (real,),
        consent=rehearsal.consent,
    )


def _aside(session: "Session", scratch: Path) -> dict[str, Any]:
    """Give the setting that leads to a copy of the ledger, for which nobody else's write has to wait."""
    where = session.settings().ledger
    there = "://" in where or Path(where).exists()
    # Where there is none yet, none is made just to look.
    return {} if there and not session.ledger().copy_to(scratch) else {"ledger": str(scratch)}


class _RolledBackError(Exception):
    """Ends every transaction of a rehearsal without keeping anything."""


class _Rehearsal:
    """A notebook played against the ledger, and taken back."""

    def __init__(self, probe: "Session", aside: dict[str, Any]) -> None:
        self.probe = probe
        self.aside = aside
        probe.configure(aside)
        self.set: dict[str, Any] = {}
        self.consent: str | None = None
        #: The cell that would make a run, and the run, by its id.
        self.made: dict[str, tuple[int, RunRecord]] = {}

    def play(self, steps: Sequence[Step]) -> tuple[CellBill, ...]:
        admissions = {number: self._prepare(step) for number, step in enumerate(steps)}
        cells: list[CellBill] = []
        with suppress(_RolledBackError), ExitStack() as stack:
            begun: dict[int, Transaction] = {}

            def transaction(ledger: Ledger) -> Transaction:
                if id(ledger) not in begun:
                    begun[id(ledger)] = stack.enter_context(ledger.writing())
                return begun[id(ledger)]

            for number, step in enumerate(steps):
                admission = admissions[number]
                if isinstance(admission, CellBill):
                    cells.append(admission)
                elif admission is not None:
                    cells.append(self._admit(step, admission, transaction(admission.ledger)))
            raise _RolledBackError
        return tuple(cells)

    def totals(self) -> tuple[Totals, Totals]:
        """Give the money before the notebook, with the caps as they are at its end."""
        return self.probe.totals(), self.probe.totals(play=True)

    def _prepare(self, step: Step) -> Admission | CellBill | None:
        """Get ready what can be done outside the transaction: settings, prices, and the hashes of clips."""
        if step.kind == "setting":
            self.set |= step.settings
        self.probe.configure({**self.set, **self.aside})
        if step.kind == "unknown":
            return self._line(step, "unknown", step.why, play=self._plays())
        if step.kind == "invalid":
            return self._line(step, "invalid", step.why, cure=step.cure)
        if step.call is None:
            return None
        try:
            admission = self.probe.admission(ask_of(step.call))
            admission.look()
        except KlingError as error:
            return self._line(step, _state(error), error.what, cure=error.cure)
        return admission

    def _plays(self) -> bool:
        """Whether what names no provider would go to the sandbox."""
        try:
            return self.probe.settings().provider == "sandbox" or not any(
                self.probe.key(name) for name in ("runflow", "runcomfy")
            )
        except KlingError:
            return False

    def _admit(self, step: Step, admission: Admission, transaction: Transaction) -> CellBill:
        earlier = self._end_earlier(admission, transaction)
        takes = admission.takes(transaction)
        if admission.ask.cached_only and earlier.issuperset(take.request_key for take in takes):
            return self._line(step, "reused", "made by a cell above", reused=len(takes))
        decided = [take.decision for take in takes if take.decision is not None]
        origins = {
            self.made[one.record.id][0] for one in decided if one.record and one.record.id in self.made
        }
        words = [self._word(decision) for decision in decided]
        new = words.count("new")
        bill = self._line(
            step,
            "new" if new else "pending" if "pending" in words else "reused",
            f"the same as cell {min(origins)}" if origins and not new else "",
            new=new,
            reused=words.count("reused"),
            pending=words.count("pending"),
            price=admission.price if new else None,
            provider=admission.provider,
            model=admission.model.id,
            play=admission.budget.play,
        )
        if step.call is not None and step.call.dry_run:
            return replace(bill, state="dry run", new=0, price=None, why="")
        self._judge_consent(admission, transaction, new)
        ids, mine = [one.record.id for one in decided if one.record], admission.engine.owner
        held = {run_id for run_id in ids if transaction.owner(run_id) == mine}
        try:
            # What a refused cell has begun must not be there for the next one.
            with transaction.connection.begin_nested():
                opened = admission.admit(transaction)
        except KlingError as error:
            refused = replace(bill, state=_state(error), why=error.what, cure=error.cure)
            return refused if isinstance(error, BudgetError) else replace(refused, new=0, price=None)
        self.made |= {record.id: (step.cell, record) for record, reused in opened if not reused}
        # An intent that a kernel left unsent when it died is sent by whoever runs its cell, and paid by him.
        left = sum(transaction.owner(run_id) == mine for run_id in ids if run_id not in held)
        if not left:
            return bill
        return replace(
            bill,
            state="new",
            new=new + left,
            pending=bill.pending - left,
            price=admission.price,
            why="left unsent by another kernel",
        )

    def _end_earlier(self, admission: Admission, transaction: Transaction) -> set[str]:
        """Let what cells above would make be made, where this cell buys anew or takes only what is here."""
        asked = {take.request_key for take in admission.takes(transaction)}
        earlier = [record for _, record in self.made.values() if record.request_key in asked]
        for record in earlier if admission.ask.no_cache else ():
            done = {"status": RunStatus.SUCCEEDED, "settled_micros": record.reserved_micros}
            transaction.write(record.model_copy(update={**done, "reserved_micros": 0}), "rehearsed")
        return {record.request_key for record in earlier}

    def _word(self, decision: Decision) -> str:
        if decision.act == "new":
            return "new"
        mine = decision.record is not None and decision.record.id in self.made
        return "pending" if decision.act == "attach" and not mine else "reused"

    def _judge_consent(self, admission: Admission, transaction: Transaction, new: int) -> None:
        budget, ask = replace(admission.budget, headless=True), admission.ask
        try:
            budget.reserve(
                transaction,
                [admission.price.reserve_micros] * new,
                max_cost=ask.max_cost,
                no_cache=ask.no_cache,
            )
        except ConsentError as error:
            self.consent = self.consent or error.what
        except BudgetError:
            pass

    def _line(self, step: Step, state: State, why: str = "", **more: Any) -> CellBill:
        dest, words = step.call.dest if step.call else None, step.words
        if step.call is not None and step.call.private:
            words = in_place_of(ask_of(step.call).request)
        try:
            self.probe.keys.refuse({"the cell": f"{dest or ''}\n{words}\n{why}"})
        except UsageError as error:
            # A bill goes into logs and saved outputs.
            dest, words, why = None, "(it holds a key)", error.what
        return CellBill(cell=step.cell, line=step.line, state=state, name=dest, words=words, why=why, **more)


def _state(error: KlingError) -> State:
    if isinstance(error, UnpricedError):
        return "unpriced"
    return "refused" if isinstance(error, BudgetError) else "blocked"
