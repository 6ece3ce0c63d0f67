"""Bradley-Terry scores of the votes of each pool, and how far raters agree.

Invariants: pure, and deterministic to the last digit; what the votes cannot tell is said in words and never
given a number. numpy, scipy, choix and pandas load on first use.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import permutations
from typing import Any, Literal

from kling_nb.errors import installed
from kling_nb.views.html import Html
from kling_nb.views.tables import Part, page_of, text_of

__all__ = ["Game", "Score", "Scores", "krippendorff", "needed", "scores_of"]

Game = tuple[str, str, Literal["A", "B", "same"]]


"""Two items, and which of them was liked better."""


#: Bradley-Terry has no scores of highest likelihood where somebody never lost or never won. Only there, each
#: item is given a normal prior on the logarithm of its odds, with this standard deviation.
_PRIOR_SD = 2.0
_MIDDLE, _PER_LOG_ODDS = 1000.0, 400 / math.log(10)
_Z = 1.959963984540054  # of a normal distribution, 95 % lie within
_EXACT = 1e-12


@dataclass(frozen=True, kw_only=True)
class Score:
    """One row of the table.

    Args:
        pool: Where it was rated.
        item: The model, provider or tag.
        n: Votes on it.
        wins: Votes for it.
        losses: Votes against it.
        ties: Both good or both bad.
        score: Bradley-Terry, as Elo: the pool's mean is 1000, and 400 more are odds of ten to one. None where
            the votes give none.
        low: The lower end of the 95 % interval.
        high: The upper end.
        note: Why there is no number, or what it rests on.
    """

    pool: str
    item: str
    n: int
    wins: int
    losses: int
    ties: int
    score: float | None
    low: float | None
    high: float | None
    note: str = ""


class Scores(Sequence[Score]):
    """A table of scores, best first within its pool.

    Args:
        rows: The rows.
        remarks: What should be known beside the numbers, in words.
    """

    def __init__(self, rows: Sequence[Score], remarks: Sequence[str] = ()) -> None:
        self._rows = tuple(rows)
        self.remarks = tuple(remarks)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def df(self) -> Any:
        """The same as a pandas frame; missing numbers are NaN."""
        pandas = needed("pandas")
        return pandas.DataFrame([asdict(row) for row in self], columns=[f.name for f in fields(Score)])

    @property
    def html(self) -> Html:
        """The table for notebooks."""
        return page_of(self._parts())

    def __repr__(self) -> str:
        return text_of(self._parts())

    def _repr_html_(self) -> str:
        return self.html

    def _parts(self) -> list[Part]:
        rows: list[list[object]] = [
            [row.pool, row.item, *_figures(row), row.n, row.wins, row.losses, row.ties] for row in self
        ]
        heads = ["pool", "item", "score", "95 % interval", "votes", "wins", "losses", "ties"]
        return [(heads, rows, "llrgrrrr") if rows else "There are no votes yet.", *self.remarks]


def _figures(row: Score) -> tuple[str, str]:
    if row.score is None or row.low is None or row.high is None:
        return "none", row.note
    return f"{row.score:.0f}", f"{row.low:.0f} to {row.high:.0f}"


def krippendorff(units: Collection[Sequence[object]]) -> float | None:
    """Give Krippendorff's alpha for labels without an order (K. Krippendorff, Computing Krippendorff's
    Alpha-Reliability, 2011, section C).

    Args:
        units: The labels each unit got; units with fewer than two say nothing.

    Returns:
        Alpha, or None where it is not defined.

    Example:
        >>> krippendorff([["A", "A"], ["B", "B"]])
        1.0
    """  # noqa: D205 - the source belongs to the sentence
    weights: defaultdict[tuple[object, object], float] = defaultdict(float)
    for labels in units:
        for pair, times in Counter(permutations(labels, 2)).items():
            weights[pair] += times / (len(labels) - 1)
    totals: defaultdict[object, float] = defaultdict(float)
    for (one, _), weight in weights.items():
        totals[one] += weight
    whole = sum(totals.values())
    observed = sum(weight for (one, other), weight in weights.items() if one != other)
    expected = sum(totals[one] * totals[other] for one, other in permutations(totals, 2))
    return None if expected == 0 else 1 - (whole - 1) * observed / expected


def needed(name: str) -> Any:
    """Import a package of the extra `research`."""
    return installed(name, "`pip install 'kling-nb[research]'`.")


def scores_of(name: str, games: Sequence[Game]) -> tuple[list[Score], list[str]]:
    """Score the items of one pool.

    Args:
        name: Of the pool.
        games: Its votes.

    Returns:
        A row an item, best first, and what should be known beside the numbers.

    Raises:
        UsageError: The packages it needs are not installed.

    Example:
        >>> rows, _ = scores_of("silent", [("a", "b", "A")] * 3 + [("a", "b", "B")])
        >>> [(row.item, round(row.score or 0)) for row in rows]
        [('a', 1095), ('b', 905)]
    """
    items = sorted({item for one, other, _ in games for item in (one, other)})
    tally = {item: Counter[str]() for item in items}
    for one, other, liked in games:
        tally[one][{"A": "wins", "B": "losses", "same": "ties"}[liked]] += 1
        tally[other][{"A": "losses", "B": "wins", "same": "ties"}[liked]] += 1
    fit = _fit(items, games)
    rows = []
    for item in items:
        score, half = fit.scores.get(item, (None, None))
        rows.append(
            Score(
                pool=name,
                item=item,
                n=tally[item].total(),
                **{word: tally[item][word] for word in ("wins", "losses", "ties")},
                score=score,
                low=None if score is None or half is None else score - half,
                high=None if score is None or half is None else score + half,
                note=fit.notes.get(item, ""),
            )
        )
    rows.sort(key=lambda row: (-(row.score or 0), row.item))
    return rows, [f"In the pool {name}: {fit.remark}"] if fit.remark else []


@dataclass(frozen=True, kw_only=True)
class _Fit:
    scores: Mapping[str, tuple[float, float]]
    notes: Mapping[str, str]
    remark: str = ""


def _fit(items: Sequence[str], games: Sequence[Game]) -> _Fit:
    """Fit Bradley-Terry to one pool, as far as its votes allow."""
    numpy, choix = needed("numpy"), needed("choix")
    connected_components = needed("scipy.sparse.csgraph").connected_components
    place = {item: number for number, item in enumerate(items)}
    # Each vote stands twice, so that a tie can be half a win for each: once won and once lost.
    won: list[tuple[int, int]] = []
    for one, other, liked in games:
        a, b = place[one], place[other]
        won += {"A": [(a, b)] * 2, "B": [(b, a)] * 2, "same": [(a, b), (b, a)]}[liked]
    beaten = numpy.zeros((len(items), len(items)))
    for winner, loser in won:
        beaten[winner, loser] += 1
    islands, island_of = connected_components(beaten, directed=False)
    if islands > 1:
        groups = [[item for item in items if island_of[place[item]] == number] for number in range(islands)]
        parts = " with ".join(" and ".join(group) for group in groups)
        return _Fit(
            scores={},
            notes={item: _apart(item, groups) for item in items},
            remark=f"no vote links {parts}, so that there is no common scale and no score.",
        )
    lasting, _ = connected_components(beaten, directed=True, connection="strong")
    prior = 0.0 if lasting == 1 else 1 / (2 * _PRIOR_SD**2)
    odds = choix.opt_pairwise(len(items), won, alpha=2 * prior or _EXACT, tol=1e-10)
    odds = odds - odds.mean()
    middle = numpy.identity(len(items)) - 1 / len(items)
    # The information in the doubled votes is twice that of the votes.
    known = needed("choix.opt").PairwiseFcts(won, 2 * prior).hessian(odds) / 2
    spread = numpy.sqrt(numpy.diag(middle @ numpy.linalg.pinv(known) @ middle))
    return _Fit(
        scores={
            item: (
                _MIDDLE + _PER_LOG_ODDS * float(odds[number]),
                _Z * _PER_LOG_ODDS * float(spread[number]),
            )
            for item, number in place.items()
        },
        notes={} if lasting == 1 else dict.fromkeys(items, "rests on a weak prior"),
        remark="" if lasting == 1 else _unbeaten(items, beaten, place),
    )


def _apart(item: str, groups: Sequence[Sequence[str]]) -> str:
    others = [name for group in groups if item not in group for name in group]
    return f"no vote links it with {', '.join(others)}"


def _unbeaten(items: Sequence[str], beaten: Any, place: Mapping[str, int]) -> str:
    never_lost = [item for item in items if not beaten[:, place[item]].any()]
    never_won = [item for item in items if not beaten[place[item]].any()]
    said = [f"{' and '.join(never_lost)} never lost"] if never_lost else []
    said += [f"{' and '.join(never_won)} never won"] if never_won else []
    why = "; ".join(said) or "some items lost to none of the others"
    return f"{why}, which no finite score explains, so that all of its scores rest on a weak prior."
