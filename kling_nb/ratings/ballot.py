"""A blind ballot: which pair is up, which clip of it stands on the left, and what becomes of a vote.

Invariants: until a pair is voted on, nothing that is handed out tells its runs apart (the marks of clips are
made up for each showing, sides and order are drawn by lot); a vote is on disk before the next pair is up; a
pair that a rater has voted on does not come again, unless the rater takes the vote back.
"""

import random
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kling_nb.errors import UsageError
from kling_nb.ledger.database import Ledger
from kling_nb.ratings.pairing import By, pairs
from kling_nb.ratings.votes import AXES, Axis, Choice, Liked, Vote, add_vote, standing, votes
from kling_nb.records.base import utc_now
from kling_nb.records.run import RunRecord

__all__ = ["Ballot", "Showing"]

_NOTE = 500
_RATER = 80


@dataclass(frozen=True, kw_only=True)
class Showing:
    """One showing of one pair.

    Args:
        mark: Made up; a vote must name it.
        left: The run on the left.
        right: The run on the right.
        clips: The runs by made-up marks, left and right.
    """

    mark: str
    left: RunRecord
    right: RunRecord
    clips: Mapping[str, RunRecord]


class Ballot:
    """The pairs of one rater.

    Args:
        records: Runs to be compared.
        ledger: Where votes are kept.
        rater: Who votes.
        by: What is compared; see `pairing.grouping`.
        showable: Says whether a clip can be shown; a pair with one that cannot is left out.
        seed: Draws order and sides; by default nobody can foretell them.
        session_id: Kept with each vote.
        project: Kept with each vote.

    Raises:
        UsageError: `by` is nothing to compare by, or the rater has no name.
        LedgerError: Earlier votes cannot be read.

    Example:
        >>> Ballot([], ledger, rater="ada", showable=lambda record: True).whole   # doctest: +SKIP
        0
    """

    def __init__(
        self,
        records: Sequence[RunRecord],
        ledger: Ledger,
        *,
        rater: str,
        by: By = "model",
        showable: Callable[[RunRecord], bool],
        seed: int | None = None,
        session_id: str = "",
        project: str = "",
    ) -> None:
        if not rater.strip() or len(rater) > _RATER or not rater.isprintable():
            raise UsageError("rater: should be a name of 1 to 80 letters.", cure="E.g. rater='ada'.")
        self.rater, self.by = rater, by
        #: How many pairs were left out because a clip cannot be shown.
        self.hidden = 0
        self._ledger, self._showable = ledger, showable
        self._kept_with = {"session_id": session_id, "project": project}
        self._rng = random.SystemRandom() if seed is None else random.Random(seed)  # noqa: S311 - for tests
        self._lock = threading.RLock()
        # The order of the records decides the order of the pairs.
        found = pairs(self._rng.sample(list(records), len(records)), by)
        mine = {vote.pair for vote in standing(votes(ledger, rater=rater))}
        self._left = deque(pair for pair in found if (pair[0].id, pair[1].id) not in mine)
        #: How many pairs there are, those voted on included.
        self.whole = len(found)
        self._cast: list[tuple[Showing, tuple[RunRecord, RunRecord]]] = []
        self._showing: Showing | None = None

    @property
    def done(self) -> int:
        """How many pairs the rater has voted on."""
        return self.whole - len(self._left) - self.hidden

    @property
    def can_undo(self) -> bool:
        """Whether a vote of this ballot can be taken back."""
        return bool(self._cast)

    def showing(self) -> Showing | None:
        """Give the pair that is up, or None when all are voted on."""
        with self._lock:
            while self._showing is None and self._left:
                pair = self._left[0]
                if not (self._showable(pair[0]) and self._showable(pair[1])):
                    self._left.popleft()
                    self.hidden += 1
                    continue
                self._showing = _showing(pair if self._rng.random() < 0.5 else (pair[1], pair[0]))
            return self._showing

    def vote(self, mark: str, choice: str, axes: Mapping[str, str] | None = None, note: str = "") -> bool:
        """Write a vote down.

        Args:
            mark: Of the pair that is up; a vote on another is not counted, as when a key is hit twice.
            choice: `left`, `right`, `good` or `bad` (both of them).
            axes: `left`, `right` or `same` by axis.
            note: In the rater's words.

        Returns:
            Whether it was counted.

        Raises:
            UsageError: That is not a vote.
            LedgerError: It could not be written; the pair is still up.
        """
        with self._lock:
            showing = self._showing
            if showing is None or showing.mark != mark:
                return False
            add_vote(self._ledger, self._vote(showing, choice, axes or {}, note))
            self._cast.append((showing, self._left.popleft()))
            self._showing = None
            return True

    def _vote(self, showing: Showing, choice: str, axes: Mapping[str, str], note: str) -> Vote:
        turned = showing.right.id < showing.left.id
        one, other = (showing.right, showing.left) if turned else (showing.left, showing.right)
        liked: dict[str, Liked] = {"left": "B" if turned else "A", "right": "A" if turned else "B"}
        chosen: dict[str, Choice] = {"good": "A=B=Good", "bad": "A=B=Bad", "withdrawn": "withdrawn"}
        chosen |= {side: "A>B" if letter == "A" else "B>A" for side, letter in liked.items()}
        liked["same"] = "same"
        known: dict[str, Axis] = {axis: axis for axis in AXES}
        if choice not in chosen or not set(axes) <= set(known) or not set(axes.values()) <= set(liked):
            raise UsageError("That is not a vote.", cure="Nothing was written down.")
        return Vote(
            run_a=one.id,
            run_b=other.id,
            left="B" if turned else "A",
            choice=chosen[choice],
            rater=self.rater,
            at=utc_now(),
            axes={known[axis]: liked[side] for axis, side in axes.items()},
            note=note[:_NOTE],
            **self._kept_with,
        )

    def skip(self, mark: str) -> None:
        """Put the pair that is up behind all others."""
        with self._lock:
            if self._showing is not None and self._showing.mark == mark:
                self._left.rotate(-1)
                self._showing = None

    def undo(self) -> None:
        """Take the last vote of this ballot back; its pair is up again, on the same sides.

        Raises:
            LedgerError: It could not be written; the vote still counts.
        """
        with self._lock:
            if not self._cast:
                return
            showing, pair = self._cast[-1]
            add_vote(self._ledger, self._vote(showing, "withdrawn", {}, ""))
            self._cast.pop()
            self._left.appendleft(pair)
            self._showing = _showing((showing.left, showing.right))


def _showing(pair: tuple[RunRecord, RunRecord]) -> Showing:
    left, right = pair
    clips = {secrets.token_hex(6): left, secrets.token_hex(6): right}
    return Showing(mark=secrets.token_hex(6), left=left, right=right, clips=clips)
