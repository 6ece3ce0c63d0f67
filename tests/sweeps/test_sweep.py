"""A sweep sends each of its members once, within what was agreed to, and is found again by its name."""

import asyncio

import pytest

import kling_nb as kling
from kling_nb.commands.order import held
from kling_nb.session import api
from kling_nb.sweeps import results
from kling_nb.sweeps.progress import look
from support.markup import judge
from support.workbench import until

EACH = 336_000
PROMPTS = ["An owl in snow", "An owl in fog"]
GRID = {"provider": ["runflow", "runcomfy"], "takes": 2, "duration": 3}


def test_a_grid_becomes_clips_and_a_table(house, enter):
    """Prompts times takes times providers are so many submissions, and a row of the table each."""
    enter()
    made = kling.sweep(PROMPTS, **GRID, name="owls").wait(60)
    assert house.submissions == 8
    table = made.df
    wanted = ["prompt", "take", "provider", "model", "duration", "status", "cost", "file", "run"]
    assert list(table.columns[: len(wanted)]) == wanted
    assert set(table.status) == {"succeeded"}
    assert table.file.nunique() == 8
    assert len(table.groupby(["prompt", "take", "provider"])) == 8
    assert made.progress.spent_micros == 8 * EACH
    assert set(made.cost) == {"all", "provider", "take"}
    # Every prompt once before any twice, and the providers in turn.
    assert [m.label for m in made.members[:4]] == [*PROMPTS, *PROMPTS]
    assert {m.provider for m in made.members[:2]} == {"runflow", "runcomfy"}
    assert "8/8" in repr(made)


def test_another_kernel_has_it_by_its_name(house, enter):
    """Giving it back sends nothing; starting it again sends nothing twice."""
    enter()
    kling.sweep(PROMPTS, **GRID, name="owls").wait(60)
    enter()
    again = kling.sweep("owls")
    assert list(again.df.status) == ["succeeded"] * 8
    again.start().wait(60)
    kling.sweep(PROMPTS, **GRID, name="owls").wait(60)
    assert house.submissions == 8
    with pytest.raises(kling.UsageError, match="Did you mean owls"):
        kling.sweep("owsl")


def test_runs_come_as_they_end(house, enter):
    """`async for` gives each run once."""
    enter()
    made = kling.sweep(PROMPTS, **GRID)

    async def collect():
        return [run async for run in made]

    runs = asyncio.run(collect())
    assert len({run.id for run in runs}) == 8 == house.submissions


def test_a_sweep_that_was_cut_off_goes_on_in_another_kernel(build, monkeypatch):
    """However it ended, the runs of both kernels together are the members, each once."""
    house = build(held=True)
    house.set(BUDGET=100, MAX_IN_FLIGHT=3)
    monkeypatch.setattr(api, "_session", session := house.session())
    prompts = [f"Owl {number}" for number in range(6)]
    made = kling.sweep(prompts, duration=3, provider="runflow", name="owls")
    until(lambda: house.accepted >= 2)
    session.close()
    monkeypatch.setattr(api, "_session", house.session())
    again = kling.sweep("owls")
    assert house.accepted < 6
    assert len(again.df) == len(made.members) == 6
    house.let_go()
    again.start().wait(60)
    assert list(again.df.status) == ["succeeded"] * 6
    assert house.accepted == 6
    assert again.progress.spent_micros == 6 * EACH


def test_many_runs_need_a_yes_and_a_cap_says_how_many_fit(house, enter):
    """Nothing is sent before somebody agreed, or beyond what he agreed to."""
    enter()
    many = [f"Owl {number}" for number in range(21)]
    options = {"duration": 3, "provider": "runflow", "name": "owls"}
    with pytest.raises(kling.ConsentError, match=r"21 new runs of this sweep may cost \$7\.056"):
        kling.sweep(many, **options)
    with pytest.raises(kling.BudgetError, match=r"leaves \$1\.00: 2 of them fit"):
        kling.sweep(many, **options, max_cost="1")
    quoted = kling.sweep(many, **options, start=False)
    assert "21 new runs may cost $7.056" in repr(quoted)
    assert repr(quoted.quoted).startswith("21 new runs may cost $7.056; 0 here already")
    house.set(BUDGET="3.40")
    with pytest.raises(kling.BudgetError, match=r"the caps leave \$3\.40: 10 of them fit"):
        quoted.start(confirm=True)
    assert house.submissions == 0
    enter(headless=True)
    house.unset("BUDGET")
    with pytest.raises(kling.ConsentError, match="no budget was declared"):
        kling.sweep(many[:2], duration=3, provider="runflow", confirm=True)
    assert house.submissions == 0
    kling.sweep(many[:2], duration=3, provider="runflow", max_cost="1").wait(60)
    assert house.submissions == 2


def test_it_stops_at_the_budget_and_goes_on_when_there_is_more(house, enter):
    """Where it stopped is said; what was sent arrives; the first consent still holds."""
    house.set(MAX_IN_FLIGHT=1)
    enter()
    made = kling.sweep([f"Owl {number}" for number in range(4)], duration=3, provider="runflow", start=False)
    quote = made.quote()
    house.set(BUDGET="0.70")
    made._go_on(quote, agreed=False)
    made.wait(60)
    stopped = made.progress
    assert (house.submissions, stopped.done, stopped.waiting, stopped.failed) == (2, 2, 2, 0)
    assert "does not fit" in stopped.stopped
    # Of what went before it something was sent.
    assert "Nothing was sent" not in repr(stopped)
    assert "sends the remaining 2" in repr(stopped)
    house.set(BUDGET="100")
    made.start().wait(60)
    assert (house.submissions, made.progress.done) == (4, 4)


def test_what_fails_stops_no_other_and_is_tried_again_for_free(house, enter):
    """A free failure waits for `retry`; a moderated run stays as it is."""
    enter()
    house.faults(submit_moderated=1)
    bad = kling.sweep(["A bad owl"], duration=3, provider="runflow").wait(60)
    assert bad.progress.failures[0].word == "failed: moderated"
    house.faults(submit_moderated=0, submit_422=1)
    made = kling.sweep(["A bad owl", *PROMPTS], duration=3, provider="runflow").wait(60)
    assert (made.progress.failed, made.progress.done) == (3, 0)
    sent = house.submissions
    house.faults(submit_422=0)
    made.start().wait(60)
    assert house.submissions == sent
    made.retry().wait(60)
    assert (made.progress.failed, made.progress.done) == (1, 2)
    assert house.submissions == sent + 2
    [moderated] = [row for row in made.df.itertuples() if row.prompt == "A bad owl"]
    assert (moderated.status, moderated.reason) == ("failed", "moderated")
    assert "moderated" in repr(made)


def test_a_pause_and_a_cancel_hold_in_every_kernel(build, monkeypatch):
    """What is not sent stays unsent, whoever said so; what was sent arrives; `start` goes on."""
    house = build(held=True)
    house.set(BUDGET=100, MAX_IN_FLIGHT=1)
    monkeypatch.setattr(api, "_session", house.session())
    made = kling.sweep([f"Owl {number}" for number in range(4)], duration=3, provider="runflow", name="owls")
    until(lambda: house.accepted == 1)
    monkeypatch.setattr(api, "_session", house.session())
    kling.sweep("owls").cancel()
    until(lambda: not made._feed.sending)
    house.let_go()
    made.wait(60)
    assert (house.submissions, made.progress.done, made.progress.waiting) == (1, 1, 3)
    assert "Canceled" in repr(made)
    made.start().wait(60)
    assert (house.submissions, made.progress.done) == (4, 4)


def test_a_paused_sweep_has_no_end_in_sight(house, enter):
    """What is not sent does not end at any rate."""
    session = enter()
    made = kling.sweep(["An owl", "A fox"], duration=3, provider="runflow", name="owls").wait(60)
    entry = made._entry

    def ends_at():
        entry.state()
        return look(session, entry.stored, entry.standing, 4, sending=True).ends_at

    assert ends_at() is not None
    made.pause()
    assert ends_at() is None


def test_what_a_provider_cannot_do_is_counted_named_and_left_out(house, enter):
    """By provider, with the rows; the rest is sent."""
    enter()
    shots = [{"prompt": "a", "duration": 2}, {"prompt": "b", "duration": 3}]
    prompts = [{"prompt": "An owl", "duration": 5}, {"shots": shots}]
    made = kling.sweep(prompts, provider=["runflow", "runcomfy"], start=False)
    [refusal] = made.quote().refusals
    assert (refusal.provider, refusal.rows, refusal.members) == ("runcomfy", (2,), 1)
    made.start().wait(60)
    assert (made.progress.done, made.progress.failed) == (3, 1)
    assert house.submissions == 3


def test_another_grid_under_the_name_says_what_it_adds(house, enter):
    """It is refused, or added to when that is agreed to; takes of chosen prompts too."""
    enter()
    kling.sweep(PROMPTS, duration=3, provider="runflow", name="owls").wait(60)
    options = {"duration": 3, "provider": "runflow", "takes": 3, "name": "owls"}
    with pytest.raises(kling.UsageError, match=r"would add 2 runs to it.* 2 new runs may cost \$0\.672"):
        kling.sweep(PROMPTS[:1], **options)
    assert house.submissions == 2
    grown = kling.sweep(PROMPTS[:1], **options, confirm=True).wait(60)
    assert (len(grown), house.submissions) == (4, 4)
    assert len(kling.sweep("owls").df) == 4


def test_what_nobody_agreed_to_is_quoted_anew_with_another_grid(house, enter):
    """Also after a cap refused it; the quote of before sends nothing any more."""
    enter()
    options = {"duration": 3, "provider": "runflow", "name": "owls"}
    with pytest.raises(kling.BudgetError, match="2 of them fit"):
        kling.sweep([f"Owl {number}" for number in range(5)], **options, max_cost="1")
    before = kling.sweep("owls")
    made = kling.sweep(PROMPTS, **options, max_cost="1").wait(60)
    assert (made.progress.members, made.progress.done, made.progress.waiting, house.submissions) == (
        2,
        2,
        0,
        2,
    )
    assert sorted(kling.sweep("owls").df.prompt) == sorted(PROMPTS)
    with pytest.raises(kling.UsageError, match="has another grid by now"):
        before.start(confirm=True)
    assert house.submissions == 2


def test_what_nobody_knows_the_price_of_is_named_and_left_out(house, enter):
    """Runflow tells no price with sound, RunComfy does; with nothing else in it the whole is refused."""
    enter()
    options = {"audio": [False, True], "duration": 3, "start": False}
    quote = kling.sweep(["An owl"], provider=["runflow", "runcomfy"], **options).quote()
    [refusal] = quote.refusals
    assert (refusal.provider, refusal.members, quote.new) == ("runflow", 1, 3)
    with pytest.raises(kling.UnpricedError, match="Nobody knows what this costs"):
        kling.sweep(["An owl"], provider="runflow", audio=True, duration=3)
    assert house.submissions == 0


def test_a_private_sweep_shows_its_owner_the_words_and_nobody_else(house, enter):
    """The table of data has them; the grid of stills, the card and the receipts have not."""
    enter()
    made = kling.sweep(
        ["A secret owl"], duration=3, provider="runflow", private=True, tags={"scene": "hidden barn"}
    ).wait(60)
    assert list(made.df[["prompt", "scene"]].iloc[0]) == ["A secret owl", "hidden barn"]
    shown = f"{made.table().html}{made.table()!r}{made!r}{made.runs!r}"
    kept = "".join(path.read_text("utf-8") for path in house.media.glob("*.json"))
    for word in ("secret owl", "hidden barn"):
        assert word not in shown + kept


def test_of_each_prompt_the_same_provider_is_compared_at_the_left(house, enter):
    """As in the grid, though providers take turns in what is sent first."""
    enter()
    made = kling.sweep(["An owl", "A fox"], provider=["runflow", "runcomfy"], duration=3).wait(60)
    assert [member.provider for member in made.members] == ["runflow", "runcomfy", "runcomfy", "runflow"]
    for prompt in ("An owl", "A fox"):
        assert [run.provider for run in made.compare(prompt).runs] == ["runflow", "runcomfy"]


def test_it_is_shown_compared_rated_and_exported_as_runs_are(house, enter, tmp_path):
    """Side by side is one request at two providers; the exported names are those of the short prompts."""
    enter()
    made = kling.sweep([("An owl", "An owl, soft rim light")], provider=["runflow", "runcomfy"], duration=3)
    made.wait(60)
    assert {run.provider for run in made.compare("An owl").runs} == {"runflow", "runcomfy"}
    assert len(made.compare(1).runs) == len(made.gallery()) == 2
    assert made.rate() is not None
    with pytest.raises(kling.UsageError, match="no such prompt"):
        made.compare("A hare")
    grid = made.table()
    judge(grid.html)
    assert "RunComfy" in grid.html
    assert grid.html.count("<img") == 2
    assert made.gallery().html.count("<img") == 2
    assert [run.id for run in held(made)] == [run.id for run in made.runs]
    assert len(kling.gallery(made)) == 2
    done = made.export("vbench", tmp_path / "out", provider="runflow", samples=1, allow_sandbox=True)
    assert [placed.file for placed in done.placed] == ["An owl-0.mp4"]


def test_where_a_page_shows_its_card_waiting_says_nothing_more(capsys, monkeypatch):
    """Lines in a log stay where they are: below the card they would tell of what was."""
    monkeypatch.setattr(results, "_LOG_S", 0)
    results.Ticker(carded=True).tick(lambda: "2 of 3 done")
    assert capsys.readouterr().err == ""
    results.Ticker(carded=False).tick(lambda: "2 of 3 done")
    assert capsys.readouterr().err == "2 of 3 done\n"


def test_submit_names_the_sweep_where_it_gets_a_list(house, enter):
    """Nothing is sent for it."""
    enter()
    with pytest.raises(kling.UsageError, match=r"kling\.sweep"):
        kling.submit(PROMPTS)
    assert house.submissions == 0


def test_what_waits_for_a_place_when_it_is_canceled_is_not_sent(build, monkeypatch):
    """Also when every member was asked for: a sweep leaves one place free, so that one of four waits."""
    house = build(held=True)
    house.set(BUDGET=100)
    monkeypatch.setattr(api, "_session", house.session())
    made = kling.sweep([f"Owl {number}" for number in range(4)], duration=3, provider="runflow")
    until(lambda: house.accepted == 3)
    made.cancel()
    house.let_go()
    made.wait(60)
    assert (house.submissions, made.progress.done, made.progress.reserved_micros) == (3, 3, 0)


def test_a_single_call_waits_for_one_place_and_not_for_the_sweep(build, monkeypatch):
    """What a sweep has still to send stands behind it."""
    house = build(held=True)
    house.set(BUDGET=100, MAX_IN_FLIGHT=1)
    monkeypatch.setattr(api, "_session", house.session())
    made = kling.sweep([f"Owl {number}" for number in range(5)], duration=3, provider="runflow")
    until(lambda: house.accepted == 1)
    single = kling.submit("A hare", duration=3, provider="runflow")
    house.let_go()
    made.wait(60)
    sent = sorted(run.wait(60).record.submitted_at for run in made.runs)
    assert sent[0] < single.wait(60).record.submitted_at < sent[1]


def test_a_single_run_is_sent_next_beside_a_sweep_of_500(build, monkeypatch):
    """Of another kernel, while no run of the sweep ends: it has the place that sweeps leave."""
    house = build(held=True)
    house.set(BUDGET=1000)
    monkeypatch.setattr(api, "_session", house.session())
    many = [f"Owl {number}" for number in range(500)]
    made = kling.sweep(many, duration=3, provider="runflow", max_cost="900")
    until(lambda: house.accepted == 3)
    monkeypatch.setattr(api, "_session", house.session())
    single = kling.submit("A hare", duration=3, provider="runflow")
    until(lambda: house.accepted == 4)
    assert [run.input["prompt"] for run in house.sandbox.provider.runs][3:] == ["A hare"]
    # What the sweep has asked for is a handful, so that no write of its 500 is in the way.
    assert len(made._feed.runs) <= 4
    made.cancel()
    house.let_go()
    single.wait(60)
