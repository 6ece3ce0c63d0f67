"""Votes on pairs of clips: who preferred which, when, and which clip stood on the left.

Invariants: rows are only ever appended (a vote is taken back by a new row, and nothing is forgotten); of a
rater and a pair the newest row counts; the runs of a pair stand in one order, whichever was seen on the left.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

import sqlalchemy as sa

from kling_nb.errors import LedgerError, UsageError
from kling_nb.ledger.database import Ledger
from kling_nb.ledger.schema import VOTES

__all__ = ["AXES", "Axis", "Choice", "Liked", "Vote", "add_vote", "standing", "votes"]

Choice = Literal["A>B", "B>A", "A=B=Good", "A=B=Bad", "withdrawn"]
Liked = Literal["A", "B", "same"]
Axis = Literal["visual", "motion", "text"]
AXES: tuple[Axis, ...] = get_args(Axis)


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One row: what one rater said of one pair.

    Args:
        run_a: The run of the pair whose id comes first.
        run_b: The other one.
        left: Which of them stood on the left, `A` or `B`.
        choice: `A>B`, `B>A`, `A=B=Good`, `A=B=Bad`; or `withdrawn`, which takes back what was said before.
        rater: Who voted.
        at: When.
        axes: `A`, `B` or `same` by axis, for those that were asked and answered.
        note: In the rater's words.
        session_id: The session it was cast in.
        project: The project it was cast in.

    Raises:
        UsageError: A part of it is none of these words, or the runs stand in the wrong order.

    Example:
        >>> Vote(run_a="ka", run_b="kb", left="B", choice="A>B", rater="ada", at=datetime.min).preferred
        'A'
    """

    run_a: str
    run_b: str
    left: Literal["A", "B"]
    choice: Choice
    rater: str
    at: datetime
    axes: Mapping[Axis, Liked] = field(default_factory=dict)
    note: str = ""
    session_id: str = ""
    project: str = ""

    def __post_init__(self) -> None:
        wrong = (
            not self.run_a < self.run_b
            or self.left not in {"A", "B"}
            or self.choice not in get_args(Choice)
            or not self.rater
            or not set(self.axes) <= set(AXES)
            or not set(self.axes.values()) <= set(get_args(Liked))
        )
        if wrong:
            raise UsageError("That is not a vote.", cure="Nothing was written down.", charged="no")

    @property
    def pair(self) -> tuple[str, str]:
        """The ids of its runs."""
        return self.run_a, self.run_b

    @property
    def preferred(self) -> Liked:
        """Which one was liked better, `A`, `B` or `same`; of a withdrawn vote that is no answer."""
        return "A" if self.choice == "A>B" else "B" if self.choice == "B>A" else "same"

    def on(self, axis: Axis | None) -> Liked | None:
        """Give what was preferred on an axis, or on the whole; None where that was not answered."""
        return self.preferred if axis is None else self.axes.get(axis)


def add_vote(ledger: Ledger, vote: Vote) -> None:
    """Append one vote.

    Args:
        ledger: Where.
        vote: What was said.

    Raises:
        LedgerError: The ledger cannot be written; nothing was kept.
    """
    with ledger.writing() as transaction:
        transaction.connection.execute(
            sa.insert(VOTES).values(
                run_a=vote.run_a,
                run_b=vote.run_b,
                left=vote.left,
                vote=vote.choice,
                axes=json.dumps(dict(vote.axes), sort_keys=True),
                rater=vote.rater,
                at=vote.at.isoformat(),
                note=vote.note,
                session_id=vote.session_id,
                project=vote.project,
            )
        )


def votes(ledger: Ledger, *, runs: Collection[str] | None = None, rater: str | None = None) -> list[Vote]:
    """Give every row, oldest first, those that were taken back or replaced too.

    Args:
        ledger: Where.
        runs: Only pairs of which both runs are among these.
        rater: Only of this rater.

    Returns:
        Votes.

    Raises:
        LedgerError: The ledger cannot be read, or a row of it makes no sense.
    """
    query = sa.select(VOTES).order_by(VOTES.c.number)
    if rater is not None:
        query = query.where(VOTES.c.rater == rater)
    rows = ledger.read(lambda transaction: transaction.connection.execute(query).all())
    # Filtered here: a database takes only so many values in one question.
    wanted = None if runs is None else set(runs)
    return [_vote(row) for row in rows if wanted is None or {row.run_a, row.run_b} <= wanted]


def standing(cast: Collection[Vote]) -> list[Vote]:
    """Give the votes that count: the newest of each rater on each pair, without those taken back.

    Args:
        cast: Votes, oldest first.

    Returns:
        Votes, in the order in which they were cast.

    Example:
        >>> vote = Vote(run_a="ka", run_b="kb", left="B", choice="withdrawn", rater="ada", at=datetime.min)
        >>> standing([vote])
        []
    """
    newest: dict[tuple[str, str, str], Vote] = {}
    for vote in cast:
        key = (vote.rater, *vote.pair)
        newest.pop(key, None)
        newest[key] = vote
    return [vote for vote in newest.values() if vote.choice != "withdrawn"]


def _vote(row: "sa.Row[tuple[object, ...]]") -> Vote:
    try:
        return Vote(
            run_a=row.run_a,
            run_b=row.run_b,
            left=row.left,
            choice=row.vote,
            rater=row.rater,
            at=datetime.fromisoformat(row.at),
            axes=json.loads(row.axes),
            note=row.note,
            session_id=row.session_id,
            project=row.project,
        )
    except (UsageError, ValueError, TypeError, AttributeError) as error:
        raise LedgerError(
            f"Vote {row.number} of the ledger cannot be read.",
            cure="Runs and money are not touched by it.",
        ) from error
