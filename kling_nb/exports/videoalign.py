"""Votes and the clips they are about, as VideoAlign and VideoGen-RewardBench read them.

Invariants: paths are relative to the table; a row has an answer on every axis, because the reader counts an
empty one as a wrong one; pairs without a vote, and votes without an answer, are told; no vote is made up.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kling_nb.exports.layouts import LAYOUTS
from kling_nb.exports.naming import Missing, Placed, Sample, why_not
from kling_nb.exports.writer import Export, lay_out
from kling_nb.ratings.pairing import By, pairs
from kling_nb.ratings.ratings import Ratings
from kling_nb.records.run import RunRecord

if TYPE_CHECKING:
    from kling_nb.ratings.votes import Axis, Vote

__all__ = ["lay_out_votes"]

_AXES: "tuple[tuple[Axis, str], ...]" = (
    ("visual", "visual quality"),
    ("motion", "motion"),
    ("text", "the text"),
)


def lay_out_votes(
    samples: Sequence[Sample],
    folder: Path,
    cast: "Sequence[Vote]",
    *,
    by: By = "model",
    allow_sandbox: bool = False,
    missing: Sequence[Missing] = (),
) -> Export:
    """Lay out the clips that were voted on, and the table of the votes.

    Args:
        samples: Runs and their clips.
        folder: Where to: the table `data.csv`, and below it `videos`.
        cast: Votes that count, of every rater; those on other runs are passed over.
        by: What pairs differ in, to tell which have no vote; see `pairing.grouping`.
        allow_sandbox: Whether clips of the sandbox may go out.
        missing: What the caller knows to be missing.

    Returns:
        What was written, and the pairs and votes that are not in it, with the reason.

    Raises:
        UsageError: There are clips of the sandbox, or `by` is not something to compare by.
        StoreError: A file is in the way, or the folder cannot be written.
    """
    layout = LAYOUTS["videoalign"]
    known = {sample.record.id: sample for sample in samples}
    good, gone = [], list(missing)
    for vote in cast:
        if not {vote.run_a, vote.run_b} <= known.keys():
            continue
        one, other = known[vote.run_a], known[vote.run_b]
        open_axes = [words for axis, words in _AXES if axis not in vote.axes]
        why = why_not(one, layout) or why_not(other, layout)
        if not why and open_axes:
            why = f"{vote.rater} was not asked about {', '.join(open_axes)}"
        if why:
            gone.append(Missing(file=_pair(one.record, other.record), why=why))
        else:
            good.append(vote)
    voted = {vote.pair for vote in cast}
    gone += [
        Missing(file=_pair(one, other), why="nobody has voted on this pair")
        for one, other in pairs([sample.record for sample in samples if sample.path is not None], by)
        if (one.id, other.id) not in voted
    ]
    used = {run for vote in good for run in vote.pair}

    def table(placed: Sequence[Placed]) -> dict[str, bytes]:
        records = [_there(one, folder) for one in placed]
        text = Ratings(good, records, by).as_csv(folder)
        return {layout.index: text.encode("utf-8", "replace")} if text else {}

    made = lay_out(
        [sample for sample in samples if sample.record.id in used],
        folder,
        layout,
        allow_sandbox=allow_sandbox,
        index=table,
        missing=gone,
    )
    return replace(made, votes=len(good))


def _pair(one: RunRecord, other: RunRecord) -> str:
    return f"{one.id} and {other.id}"


def _there(one: Placed, folder: Path) -> RunRecord:
    """Give a run as if its clip were kept where it is exported to."""
    record, place = one.sample.record, folder / one.file
    media = record.media and record.media.model_copy(update={"file": place.name})
    return record.model_copy(update={"folder": str(place.parent), "media": media})
