"""When runs are read: simulated runs by a clock of their own, and the promises of the schedule."""

import heapq
import math
from random import Random
from statistics import mean, median

import pytest

from kling_nb.engine.polling.schedule import MOST_S, Pace, back_off, typical

#: What is expected of a real run, and of one of the sandbox, where nothing is known.
REAL_S, PLAY_S = math.sqrt(90 * 200), math.sqrt(90 * 200) * 0.05


def simulate(waits, pace, random, *, least_s=0.05):
    """Read runs that begin together until each has ended; give reads a run and the seconds each was late."""
    due, late, reads = [], [], 0

    def plan(number, age, portion):
        wait = pace.next_read(age, portion) - age
        heapq.heappush(due, (age + min(max(wait, least_s), MOST_S), number))

    for number in range(len(waits)):
        plan(number, 0.0, random.random())
    while due:
        age, number = heapq.heappop(due)
        reads += 1
        if age >= waits[number]:
            late.append(age - waits[number])
            pace.ended(str(number), age)
        else:
            pace.going(str(number), age)
            plan(number, age, 0.9 + 0.2 * random.random())
    return reads / len(waits), late


def one_by_one(random, draw, *, runs, earlier, prior_s, least_s=0.05):
    """The same for runs of which each knows its own earlier ones and nothing else."""
    found = [
        simulate([draw()], Pace(prior_s, [draw() for _ in range(earlier)]), random, least_s=least_s)
        for _ in range(runs)
    ]
    return mean(reads for reads, _ in found), [late for _, [late] in found]


def test_a_real_run_is_read_rarely_and_noticed_within_a_second():
    """Twenty earlier runs of its kind, which takes from 60 to 300 s: 15 reads, 1 s late on average."""
    random, reads, late = Random(4), [], []
    for _ in range(100):
        usual = math.log(random.uniform(60, 300))
        few, seconds = one_by_one(
            random,
            lambda usual=usual: random.lognormvariate(usual, 0.04),
            runs=1,
            earlier=20,
            prior_s=REAL_S,
            least_s=0.5,
        )
        reads.append(few)
        late += seconds
    assert mean(reads) <= 15
    assert mean(late) <= 1.0


def test_runs_that_differ_more_are_read_nearly_as_well_as_can_be():
    """Spread evenly from 60 to 300 s no plan has less than 53 for reads times lateness; ours has 65 or so."""
    random = Random(5)
    reads, late = one_by_one(
        random, lambda: random.uniform(60, 300), runs=100, earlier=20, prior_s=REAL_S, least_s=0.5
    )
    assert reads * mean(late) <= 1.4 * 2 / 9 * 240


@pytest.mark.parametrize("earlier", [0, 50])
def test_a_thousand_runs_teach_each_other(earlier):
    """Uniform 5 to 20 s: reads times the median of lateness at most 5 with no history at all."""
    random = Random(6)
    pace = Pace(PLAY_S, [random.uniform(5, 20) for _ in range(earlier)])
    reads, late = simulate([random.uniform(5, 20) for _ in range(1000)], pace, random)
    assert reads <= 8.5
    assert reads * median(late) <= 5
    assert sorted(late)[950] <= 2.2


def test_history_is_worth_reads():
    """Uniform 5 to 20 s, fifty earlier runs: about 3.6 by chance, where the floor of single reads is 2.9."""
    random = Random(7)
    reads, late = one_by_one(random, lambda: random.uniform(5, 20), runs=500, earlier=50, prior_s=PLAY_S)
    assert reads * median(late) <= 3.8


def test_reads_are_sparse_early_and_dense_around_the_expected_end():
    """The user's own history decides when it is worth asking."""
    random = Random(1)
    pace = Pace(REAL_S, [random.uniform(100, 140) for _ in range(20)])

    def at(age):
        return pace.next_read(age, 1.0) - age

    assert at(0) > 60 > at(90) > at(110)
    assert at(120) < 4
    assert at(3600) > at(400) > at(150)


def test_what_is_past_every_known_end_is_still_read():
    """Longer than ever, or with a wrong expectation: the waits grow slowly, and no run is left."""
    for pace in (Pace(REAL_S, [100.0] * 20), Pace(0.05), Pace(REAL_S)):
        for age in range(300, 7200, 60):
            assert 0 < pace.next_read(age, 1.0) - age < age / 4


def test_first_reads_are_spread():
    """A thousand runs of one moment are not read in one moment."""
    random = Random(2)
    pace = Pace(PLAY_S)
    firsts = sorted(pace.next_read(0.0, random.random()) for _ in range(1000))
    assert firsts[900] - firsts[100] > 1
    assert len(set(firsts)) == 1000


def test_runs_that_go_on_delay_the_others():
    """Where none has ended yet, an expectation that all are over by now gives way."""
    pace = Pace(1.0)
    before = pace.next_read(2.0, 1.0)
    for number in range(500):
        pace.going(str(number), 4.0)
    assert pace.next_read(2.0, 1.0) > before + 1
    for number in range(500):
        pace.left(str(number))
    pace.ended("one", 2.2)
    assert pace.next_read(2.0, 1.0) < before + 1


def test_the_usual_range_needs_three_runs_and_ignores_outliers():
    """Two runs are an anecdote; of twenty, the slowest and the quickest do not count."""
    assert typical([]) is typical([10, 20]) is None
    assert typical([30, 10, 20]) == (10, 30)
    low, high = typical([1.0, *range(100, 118), 9000.0])
    assert 100 <= low < high <= 117


def test_backing_off_doubles_up_to_a_limit():
    """With jitter, so that many runs do not ask in one instant."""
    random = Random(1)
    for tries in range(1, 40):
        wait = back_off(tries, random=random, first_s=1, most_s=60)
        assert 0.8 * min(2 ** (tries - 1), 60) <= wait <= 1.2 * min(2 ** (tries - 1), 60)
    assert len({back_off(3, random=random) for _ in range(20)}) == 20
