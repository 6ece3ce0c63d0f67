"""What nobody agreed to may be quoted with another grid; what somebody agreed to stays as it is."""

import threading

import pytest

import kling_nb as kling
from kling_nb.sweeps import sweep as sweep_module
from kling_nb.sweeps.quote import Quote

FIRST, SECOND = ["An owl in snow", "An owl in fog"], ["A hare", "A fox", "A stoat"]
OWLS = {"duration": 3, "provider": "runflow", "name": "owls"}


@pytest.fixture
def meanwhile(monkeypatch):
    """Has something done by another thread at the end of a step; what it was refused for is in the list."""
    threads, refusals = [], []

    def work(do):
        try:
            do()
        except kling.KlingError as error:
            refusals.append(str(error))

    def plan(where, name, do, **only):
        step = getattr(where, name)

        def then(*given, **options):
            made = step(*given, **options)
            if not threads and only.items() <= options.items():
                threads.append(threading.Thread(target=work, args=(do,)))
                threads[0].start()
                # It may have to wait until this step is written.
                threads[0].join(1)
            return made

        monkeypatch.setattr(where, name, then)
        return refusals

    yield plan
    for thread in threads:
        thread.join(60)


def prompts(name="owls"):
    return sorted(kling.sweep(name).df.prompt)


@pytest.mark.parametrize("said", ["nothing", "pause", "cancel"])
def test_a_quote_that_takes_the_place_of_another_says_so(house, enter, said):
    """Also of one that was stopped before anybody agreed to it; its object sends nothing any more."""
    enter()
    before = kling.sweep(SECOND, **OWLS, start=False)
    assert "Quoted anew" not in repr(before)
    if said != "nothing":
        getattr(before, said)()
    made = kling.sweep(FIRST, **OWLS, start=False)
    assert "Quoted anew, in place of an earlier quote of 3 runs." in repr(made)
    before.pause()
    with pytest.raises(kling.UsageError, match="has another grid by now"):
        before.start(confirm=True)
    made.start().wait(60)
    assert (made.progress.members, made.progress.done, house.submissions) == (2, 2, 2)


@pytest.mark.parametrize("whose", ["JUPYTERHUB_USER", "KLING_NB_PROJECT"])
def test_a_quote_of_somebody_else_is_kept(house, enter, monkeypatch, whose):
    """Another grid is refused as if it were started, and its maker buys what he was shown."""
    monkeypatch.setenv(whose, "ada")
    enter()
    kling.sweep(FIRST, **OWLS, start=False)
    monkeypatch.setenv(whose, "bob")
    enter()
    with pytest.raises(kling.UsageError, match=r"owls has another grid\. This one would add 3 runs to it"):
        kling.sweep(SECOND, **OWLS, start=False)
    monkeypatch.setenv(whose, "ada")
    enter()
    kling.sweep("owls").start().wait(60)
    assert (prompts(), house.submissions) == (sorted(FIRST), 2)


@pytest.mark.parametrize(("said", "word"), [("start", "started"), ("pause", "changed")])
def test_another_grid_undoes_nothing_that_was_said_while_it_was_quoted(house, enter, meanwhile, said, word):
    """It is refused in one line; a sweep that was started keeps its members, its consent and its money."""
    enter()
    first = kling.sweep(FIRST, **OWLS, start=False)
    meanwhile(sweep_module, "make_quote", lambda: getattr(first, said)().wait(60))
    with pytest.raises(kling.UsageError, match=rf"owls was {word} meanwhile\..*Nothing was sent\."):
        kling.sweep(SECOND, **OWLS, start=False)
    after = kling.sweep("owls").wait(60)
    started = said == "start"
    assert (after.state, prompts()) == ("started" if started else "paused", sorted(FIRST))
    assert (after.progress.done, house.submissions) == ((2, 2) if started else (0, 0))
    assert after.progress.spent_micros == (672_000 if started else 0)


def test_another_grid_cannot_come_between_the_look_and_the_start(house, enter, meanwhile):
    """What is started is what was checked: the other is refused, and nothing of a dropped grid is paid."""
    enter()
    first = kling.sweep(FIRST, **OWLS, start=False)
    refusals = meanwhile(Quote, "obstacle", lambda: kling.sweep(SECOND, **OWLS, start=False), agreed=False)
    first.start().wait(60)
    assert (prompts(), kling.sweep("owls").state, house.submissions) == (sorted(FIRST), "started", 2)
    assert "owls was started meanwhile" in refusals[0]


def test_two_kernels_may_ask_for_the_same_at_the_same_time(house, enter, meanwhile):
    """The later one finds what the other started, and sends nothing twice."""
    enter()
    meanwhile(sweep_module, "make_quote", lambda: kling.sweep(FIRST, **OWLS).wait(60))
    kling.sweep(FIRST, **OWLS).wait(60)
    after = kling.sweep("owls")
    assert (after.progress.done, after.state, house.submissions) == (2, "started", 2)


def test_a_member_is_left_out_for_no_failure_of_the_quote_before(house, enter):
    """At its place stood a prompt that had failed elsewhere."""
    enter()
    house.faults(submit_moderated=1)
    kling.sweep(FIRST[:1], **{**OWLS, "name": "failed"}).wait(60)
    house.faults(submit_moderated=0)
    kling.sweep(FIRST, **OWLS, start=False)
    quote = kling.sweep(SECOND, **OWLS, start=False).quoted
    assert (quote.new, quote.refusals) == (3, ())


def test_what_nobody_knows_the_price_of_is_said_with_what_is_known(house, enter):
    """What is unknown, the rate that would be held back, and what buys it; beside others it is left out."""
    enter()
    options = {"duration": 3, "start": False}
    single = r"`kling\.submit\(\.\.\., allow_unpriced=True\)` buys a single clip"
    with pytest.raises(
        kling.UnpricedError, match=rf"\(price with sound unknown; reserved at \$0\.168/s.*{single}\."
    ):
        kling.sweep(["An owl"], provider="runflow", audio=True, **options)
    made = kling.sweep(["An owl"], provider=["runflow", "runcomfy"], audio=[False, True], **options)
    assert "1 run at Runflow, row 1: its price is not known; `kling.submit(" in repr(made)
    assert house.submissions == 0
