"""Votes on pairs of clips, and what they come to: a table, how far raters agree, a file for others.

Invariants: pure; only votes on known runs count; no file holds a clip of the sandbox unless asked to.
"""

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kling_nb.errors import UsageError
from kling_nb.ratings.pairing import By, grouping, pool
from kling_nb.ratings.scoring import Game, Score, Scores, krippendorff, needed, scores_of
from kling_nb.records.privacy import redacted
from kling_nb.records.run import MediaFacts, RunRecord
from kling_nb.views.html import tag
from kling_nb.views.tables import csv_text
from kling_nb.views.words import counted

if TYPE_CHECKING:
    from kling_nb.ratings.votes import Axis, Vote

__all__ = ["Agreement", "Ratings"]

_LABELS: "dict[Axis, str]" = {"visual": "VQ", "motion": "MQ", "text": "TA"}


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far raters agree.

    Args:
        raters: Who voted.
        pairs: How many pairs more than one of them has judged.
        share: Of all two votes on one pair, how many say the same; None where there are none.
        alpha: Krippendorff's alpha of A, B and same: 1 is perfect, 0 is what chance gives, less is contrary.
            None where nobody can tell: no pair was judged twice, or all votes are alike.
    """

    raters: tuple[str, ...]
    pairs: int
    share: float | None
    alpha: float | None


class Ratings:
    """Votes, and what they come to.

    Args:
        votes: Those that count, e.g. of `kling.rate(runs).ratings.votes`.
        records: The runs they are about; a vote on another run is passed over.
        by: What is compared: `model`, `provider`, `tag:KEY`, or a function of a record.

    Raises:
        UsageError: `by` is none of these.

    Example:
        >>> len(Ratings([], []).table())
        0
    """

    def __init__(self, votes: "Sequence[Vote]", records: Collection[RunRecord], by: By = "model") -> None:
        self._records = {record.id: record for record in records}
        self._item = grouping(by)
        self.votes = tuple(vote for vote in votes if {vote.run_a, vote.run_b} <= self._records.keys())

    def __repr__(self) -> str:
        raters = len({vote.rater for vote in self.votes})
        return f"{counted(len(self.votes), 'vote')} of {counted(raters, 'rater')}; .table() gives the scores"

    def _repr_html_(self) -> str:
        return tag("div", repr(self))

    def table(self, axis: "Axis | None" = None) -> Scores:
        """Give the scores.

        Args:
            axis: `visual`, `motion` or `text`; None for the vote on the whole.

        Returns:
            One row an item and pool. Scores are of highest likelihood, a tie counting as half a win for each;
            intervals follow from the Fisher information and take votes as independent.

        Raises:
            UsageError: The packages it needs are not installed.
        """
        games: defaultdict[str, list[Game]] = defaultdict(list)
        for vote in self.votes:
            liked = vote.on(axis)
            one, other = self._records[vote.run_a], self._records[vote.run_b]
            names = self._item(one), self._item(other)
            if liked is None or names[0] is None or names[1] is None or names[0] == names[1]:
                continue
            games[pool(one)].append((str(names[0]), str(names[1]), liked))
        rows: list[Score] = []
        remarks: list[str] = []
        for name in sorted(games):
            more, said = scores_of(name, games[name])
            rows += more
            remarks += said
        return Scores(rows, remarks)

    def agreement(self, axis: "Axis | None" = None) -> Agreement:
        """Say how far raters agree on the pairs that more than one of them has judged.

        Args:
            axis: As for `table`.
        """
        units: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        for vote in self.votes:
            liked = vote.on(axis)
            if liked is not None:
                units[vote.pair].append(liked)
        shared = [labels for labels in units.values() if len(labels) > 1]
        twos = [one == other for labels in shared for one, other in combinations(labels, 2)]
        return Agreement(
            raters=tuple(sorted({vote.rater for vote in self.votes})),
            pairs=len(shared),
            share=sum(twos) / len(twos) if twos else None,
            alpha=krippendorff(shared),
        )

    @property
    def left_share(self) -> float | None:
        """How often the clip on the left won: a share far from 0.5 is a habit of the hand, not of the eye.

        Only votes that name a winner count; None where there are none.
        """
        won = [vote.preferred == vote.left for vote in self.votes if vote.preferred != "same"]
        return sum(won) / len(won) if won else None

    @property
    def df(self) -> Any:
        """Every vote as a row of a pandas frame.

        Raises:
            UsageError: pandas is not installed.
        """
        pandas = needed("pandas")
        heads = ["run_a", "run_b", "item_a", "item_b", "left", "vote", "rater", "at", "note"]
        rows = [
            {
                **{head: getattr(vote, head) for head in ("run_a", "run_b", "left", "rater", "at", "note")},
                "item_a": self._item(self._records[vote.run_a]),
                "item_b": self._item(self._records[vote.run_b]),
                "vote": vote.choice,
                **{label: vote.axes.get(axis) for axis, label in _LABELS.items()},
            }
            for vote in self.votes
        ]
        return pandas.DataFrame(rows, columns=[*heads, *_LABELS.values()])

    def to_csv(self, path: str | os.PathLike[str], *, allow_sandbox: bool = False) -> Path:
        """Write the votes as VideoAlign and VideoGen-RewardBench read them.

        Paths are relative to the file's folder, where it is on the same disk. `VQ`, `MQ`, `TA` and `Overall`
        are `A`, `B` or `same`, and empty where the rater was not asked. The text is written exactly as it is:
        for programs, and not to be opened as a spreadsheet without care.

        Args:
            path: The file; it is replaced.
            allow_sandbox: Whether votes on clips of the sandbox may be written too.

        Returns:
            The file.

        Raises:
            UsageError: There is nothing to write, or there are clips of the sandbox among it.
            OSError: It cannot be written.
        """
        target = Path(path)
        text = self.as_csv(target.absolute().parent)
        if not text:
            raise UsageError("There is no vote to write.", cure="`kling.rate(runs)` casts some.")
        if not allow_sandbox and any(self._records[vote.run_a].play for vote in self.votes):
            raise UsageError(
                "There are votes on clips of the sandbox, which no model made.",
                cure="`to_csv(path, allow_sandbox=True)` writes them all the same.",
            )
        target.write_text(text, encoding="utf-8", newline="")
        return target

    def as_csv(self, folder: Path) -> str:
        """Give what `to_csv` writes.

        Args:
            folder: The one that paths are relative to.

        Returns:
            The text; empty where there is no vote.
        """
        rows = list(self._csv_rows(folder))
        if not rows:
            return ""
        return csv_text([rows[0], *(row.values() for row in rows)])

    def _csv_rows(self, folder: Path) -> Iterator[dict[str, object]]:
        for vote in self.votes:
            one, other = self._records[vote.run_a], self._records[vote.run_b]
            if one.media is None or other.media is None:
                continue
            yield {
                "path_A": _relative(Path(one.folder, one.media.file), folder),
                "path_B": _relative(Path(other.folder, other.media.file), folder),
                "A_model": one.model,
                "B_model": other.model,
                "prompt": redacted(other if other.private else one).request.words,
                **{label: vote.axes.get(axis, "") for axis, label in _LABELS.items()},
                "Overall": vote.preferred,
                "fps_A": one.media.fps,
                "num_frames_A": _frames(one.media),
                "fps_B": other.media.fps,
                "num_frames_B": _frames(other.media),
                "vote": vote.choice,
                "rater": vote.rater,
                "left": vote.left,
                "voted_at": vote.at.isoformat(),
                "run_A": one.id,
                "run_B": other.id,
            }


def _relative(clip: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(clip, folder)).as_posix()
    except ValueError:  # another drive, on Windows
        return clip.absolute().as_posix()


def _frames(media: MediaFacts) -> int:
    return media.frames if media.frames is not None else round(media.fps * media.duration_s)
