"""Which run of a process is next: single ones before those of sweeps, sweeps in turns, fewer after a 429."""

import asyncio
from types import SimpleNamespace

import pytest

from kling_nb.engine.limits import Clock
from kling_nb.engine.places import Places, _Line
from kling_nb.ledger.databases.changes import Changes
from kling_nb.ledger.places import LAPSED_S, Flow
from kling_nb.views.html import DOT
from support.databases import in_postgresql, look, spoil
from support.stage import HELD, Stage
from support.workbench import until


def line(*sweeps):
    """A line with a run for each that is named, in order of asking."""
    made = _Line(1.0)
    for number, sweep in enumerate(sweeps):
        made.add(SimpleNamespace(id=f"k{number}", sweep=sweep), number)
    return made


def test_the_next_look_is_no_later_than_the_end_of_a_lease_of_others():
    """However rare looks by the clock are: nobody tells of that end."""
    engine = SimpleNamespace(ledger=SimpleNamespace(changes=Changes(None)), clock=Clock())
    made = _Line(600.0)
    made.flow = Flow(4, lapse_s=3.0)
    assert Places(engine, None)._pause(made) == 3.0 + LAPSED_S


def test_a_look_that_fails_says_nothing_of_leases(tmp_path, monkeypatch):
    """Else the next one would come at the end of one that was over long ago, and the next, without a rest."""
    waits = []

    async def sleep(seconds):
        waits.append(seconds)
        await asyncio.Event().wait()

    stage = Stage(tmp_path, "runflow", clock=Clock(sleep=sleep))
    try:
        spoil(stage.folder / "ledger.db", "DROP TABLE place_lines")
        places, made = stage.engine._places, line("")
        made.look_s, made.flow = 600.0, Flow(0, lowered=True, lapse_s=0.0)
        places._lines["an account"] = made
        stage.loop.start(places._look("an account", made, 0.0)).result(60)
        until(lambda: waits)
        assert min(waits) >= 300
    finally:
        stage.close()


def sent(made, most):
    """Send what may be sent; gives the numbers, in order."""
    order = []
    while (found := made.next(most)) is not None:
        made.remove(*found)
        made.turned(found[0])
        made.take(found[0])
        order.append(found[1])
    return order


def test_single_runs_come_first_and_sweeps_take_turns():
    """However many of a sweep were asked for before."""
    made = line("owls", "owls", "owls", "foxes", "foxes", "", "")
    places = [
        made.place_of(sweep, number) for sweep, number in [("", 6), ("owls", 0), ("foxes", 3), ("owls", 2)]
    ]
    assert places == [2, 3, 4, 7]
    assert sent(made, 100) == [5, 6, 0, 3, 1, 4, 2]


@pytest.mark.parametrize(("most", "order"), [(4, [0, 1, 2]), (2, [0]), (1, [0])])
def test_a_sweep_leaves_a_place_to_single_runs(most, order):
    """One, where there is more than one; a single run has it at once."""
    made = line("owls", "owls", "owls", "owls", "owls")
    assert sent(made, most) == order
    made.add(SimpleNamespace(id="k9", sweep=""), 9)
    assert sent(made, most) == ([9] if most > 1 else [])


def test_a_refusal_for_the_rate_lets_fewer_go_and_says_so(tmp_path):
    """One that is refused twice in a row: those that wait are told, and it is sent when there is room."""
    stage = Stage(tmp_path, "runflow", held=True)
    try:
        # A place comes back after hours.
        stage.engine.sandbox_wait = 10_000
        records = [stage.record(negative_prompt=f"number {number}") for number in range(6)]
        runs = [stage.engine.handle(record) for record in records[:3]]
        until(lambda: all(run.provider_run_id for run in runs))
        stage.faults(submit_429={"next": 2}, **HELD)
        runs += [stage.engine.handle(record) for record in records[3:]]
        waiting = until(lambda: [run for run in runs if run.turn and run.turn.lowered])
        assert {run.turn.places for run in waiting} == {2}
        words = waiting[0].bundle()["text/html"].replace(DOT, " - ")
        assert (
            "waiting for a free place (2 at a time for now: the provider asked for fewer) - next in line"
            in words
        )
        assert sum(run.provider_run_id is not None for run in runs) <= 3
    finally:
        stage.close()


def test_a_single_refusal_for_the_rate_leaves_the_others_alone(tmp_path):
    """It waits and is sent again; as many as before may be on their way."""
    stage = Stage(tmp_path, "runflow", held=True)
    try:
        stage.engine.sandbox_wait = 10_000
        stage.faults(submit_429={"next": 1}, **HELD)
        runs = [stage.engine.handle(stage.record(negative_prompt=f"number {number}")) for number in range(5)]
        until(lambda: sum(run.provider_run_id is not None for run in runs) == 4)
        assert stage.stats()["fired"] == {"runflow.submit_429": 1}
        [waiting] = [run for run in runs if run.provider_run_id is None]
        until(lambda: waiting.turn)
        assert (waiting.turn.places, waiting.turn.lowered) == (4, False)
    finally:
        stage.close()


@in_postgresql
def test_a_kernel_that_waits_is_woken_by_what_another_one_does(tmp_path, where, monkeypatch):
    """A free place, and the end of a run that it follows: it learns of both, hours before its next look."""
    for name in ("places._LOOK_S", "places._LOOK_HERE_S", "leases._LOOK_S"):
        monkeypatch.setattr(f"kling_nb.engine.{name}", 36_000)
    stage = Stage(tmp_path, "runflow", held=True, where=where)
    try:
        other = stage.new_engine()
        stage.engine.max_in_flight = other.max_in_flight = 1
        first = stage.engine.handle(stage.record())
        until(lambda: first.provider_run_id)
        followed = other.resume(other.peek(first.record))
        until(lambda: other.ledger.changes.look_s(1.0) > 1.0)
        second = other.handle(stage.record(negative_prompt="rain"))
        until(lambda: look(where, "SELECT owner FROM place_lines") == [(other.owner,)])
        assert second.provider_run_id is None
        stage.let_go()
        assert [run.wait(60).status for run in (followed, second)] == ["succeeded", "succeeded"]
        other.close()
    finally:
        stage.close()
