"""The runs of a ledger that a report is of, added up there as far as the report tells them apart.

Invariants: reading is all that is done; what is not told apart is added up by the database, so that a report
costs what it shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kling_nb.ledger.tallies import Chosen, Days
from kling_nb.records.run import RunRecord
from kling_nb.records.tally import Tally, tally_of
from kling_nb.spending.sums import select

if TYPE_CHECKING:
    from kling_nb.ledger.database import Ledger

__all__ = ["Counted"]


@dataclass(frozen=True)
class Counted:
    """Runs of a ledger.

    Args:
        ledger: The ledger.
        chosen: Which of its runs.
    """

    ledger: "Ledger"
    chosen: Chosen

    def runs(self) -> list[RunRecord]:
        """Read each of them."""
        one = self.chosen
        runs = self.ledger.runs(session_id=one.session_id)
        return select(runs, since=one.since, until=one.until, project=one.project)

    def tallies(self, by: Sequence[str], *, most: int) -> tuple[list[Tally], Days]:
        """Read what they add up to, told apart by these dimensions at the least, and so many newest days."""
        if "run" in by:
            return [tally_of(record) for record in self.runs()], {}
        return self.ledger.tallies(
            self.chosen, fine=not {"day", "session"}.isdisjoint(by), days=0 if "day" in by else most
        )
