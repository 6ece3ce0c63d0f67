"""The card of several runs says of each what its own card says, and never adds up what must not be added."""

from datetime import UTC, datetime

import pytest

from kling_nb.records.receipt import from_receipt, receipts_in, to_receipt, to_receipts
from kling_nb.records.request import run_key
from kling_nb.views.card_parts import CardState
from kling_nb.views.grid import grid, grid_text
from kling_nb.views.html import DOT
from kling_nb.views.waits import Turn
from support.cards import DONE, FOX, NOW, POSTER, SRC, TOTALS, UNKNOWN, record
from support.markup import judge

UNKNOWN_CHARGE = {"status": "failed", "reason": "provider", "charged": "unknown", "reserved_micros": 560_000}


def tiles(*runs, **fields):
    return [CardState(record=run, name=f"fox[{number}]", **fields) for number, run in enumerate(runs)]


def drawn(made, totals=TOTALS):
    page = grid(made, totals=totals, now=NOW)
    judge(page)
    return page.replace("<span>$</span>", "$"), grid_text(made, totals=totals, now=NOW)


def test_what_the_takes_share_is_said_once():
    """Four takes of one prompt: the prompt once, each take's state and money, one sum, one session line."""
    runs = [record(**DONE, id=f"kl7m2{n}", take=n) for n in "01"]
    runs += [record(status="running", id=f"kl7m2{n}", take=n, reserved_micros=560_000) for n in "23"]
    page, text = drawn(tiles(*runs))
    assert page.count(FOX) == 1
    assert "2 done, 2 running" in page
    assert [f"take {n}" in page for n in range(4)] == [True] * 4
    assert "these runs: <b>$1.12</b> charged + <b>$1.12</b> reserved" in page
    assert page.count("session $1.12") == text.count("session $1.12") == 1
    assert text.splitlines()[0] == "4 runs: 2 done, 2 running"
    assert "these runs: $1.12 charged + $1.12 reserved" in text


def test_runs_that_wait_for_a_place_are_counted_and_numbered():
    """Of forty runs, those that go and those that wait; each that waits says its number, and no time runs."""
    states = tiles(record(status="running"))
    states += [
        CardState(record=record(id=f"kl7m2{n}", take=n), turn=Turn(n, 1, (30.0,)), typical_s=(50, 70))
        for n in (1, 2)
    ]
    page, text = drawn(states)
    assert "1 running, 2 waiting" in page
    said = page.replace(DOT, " - ")
    assert "next in line - starts in about 0:30" in said
    assert "number 2 in line - starts in about 1:30" in said
    assert page.count("so far") == 1
    assert text.splitlines()[0] == "3 runs: 1 running, 2 waiting"
    assert "number 2 in line" in text


def test_different_requests_keep_their_own_words():
    """Runs that were asked for different things are told apart by their words."""
    other = record(id="kl7m2r", request=record().request.model_copy(update={"prompt": "A grey heron"}))
    page, _ = drawn(tiles(record(), other))
    assert (FOX in page, "A grey heron" in page) == (True, True)


def test_an_unknown_charge_is_counted_and_never_added():
    """The sum says how many charges nobody knows; what is held for them is no charge."""
    page, text = drawn(tiles(record(**DONE), record(**UNKNOWN_CHARGE, id="kl7m2r")))
    assert "<b>$0.56</b> charged + <b>$0.56</b> reserved + 1 unknown" in page
    assert "$0.56 charged + $0.56 reserved + 1 unknown" in text
    page, text = drawn(
        tiles(*[record(**{**UNKNOWN_CHARGE, "reserved_micros": 0}, id=f"kl7m2{n}") for n in "ab"])
    )
    assert "these runs: charge of 2 unknown\n" in text
    assert "$0.00" not in page.partition("session $")[0]


def test_an_unpriced_run_has_no_zero():
    """A run without a price says that it is unknown, in its tile as in its card."""
    page, _ = drawn(tiles(record(status="running", estimate=UNKNOWN, reserved_micros=840_000), record()))
    assert "price <b>unknown</b>" in page
    assert "$0.00" not in page


def test_play_money_stands_apart():
    """A grid of both has two sums, and the one of the sandbox is called play money."""
    page, _ = drawn(tiles(record(**DONE), record(**{**DONE, "play": True}, id="kl7m2r")))
    assert "these runs: <b>$0.56</b> charged" in page
    assert "these runs (play money): <b>$0.56</b>" in page


def test_reused_clips_cost_nothing_this_time():
    """`-n 4` after `-n 1`: what was there already is not in the sum of this cell."""
    old, new = tiles(record(**DONE), record(**DONE, id="kl7m2r", take=1), src=SRC, poster=POSTER)
    page, _ = drawn([CardState(**{**old.__dict__, "reused": True}), new])
    assert "1 done, reused, 1 done" in page
    assert "<b>$0.56</b> charged; 1 reused, <b>$0.00</b> this time" in page
    assert page.count(f'src="{SRC}"') == 2


@pytest.mark.parametrize("end", ["moderated", "lost", "canceled"])
def test_every_end_answers_the_three_questions(end):
    """What happened, was it charged, what is safe now: also in a tile."""
    fields = {"status": "failed", "reason": end} if end == "moderated" else {"status": end}
    page, text = drawn(tiles(record(**fields, charged="no"), record(**DONE, id="kl7m2r")))
    for shown in (page, text):
        assert "Charged: no." in shown
        assert "again" in shown


def test_nothing_opens_on_a_click_while_a_run_is_on_its_way():
    """Each redraw would shut it; at the end every tile has its receipt."""
    going, _ = drawn(tiles(record(**DONE), record(status="queued", id="kl7m2r")))
    ended, _ = drawn(tiles(record(**DONE), record(**DONE, id="kl7m2r")))
    assert (going.count("<details"), ended.count("<details")) == (0, 2)
    assert ("as of" in going, "as of" in ended) == (True, False)


def test_hostile_words_stay_words():
    """A prompt, a name and a provider's message are text in a tile, too."""
    evil = '<img src=x onerror="window.pwned=1"> $$\\href{javascript:1}{x}$$'
    request = record().request.model_copy(update={"prompt": evil})
    made = [
        CardState(
            record=record(request=request, status="failed", reason="provider", message=evil), name=evil
        ),
        CardState(record=record(id="kl7m2r"), note=evil),
    ]
    page, _ = drawn(made)
    assert "<img src=x" not in page
    assert page.count("&lt;img src=x") == 4


def test_the_receipts_of_a_grid_read_back():
    """The output of several runs carries a receipt each, found the same way as a single one."""
    key = run_key(record().request, "kling-3.0-pro", "runflow")
    runs = [record(**DONE, run_key=key), record(**DONE, run_key=key, id="kl7m2r")]
    assert [from_receipt(one).id for one in receipts_in(to_receipts(runs))] == ["kl7m2q", "kl7m2r"]
    assert [from_receipt(one).id for one in receipts_in(to_receipt(runs[0]))] == ["kl7m2q"]
    for foreign in (None, 3, [], {"schema": "kling-nb-receipts/1", "receipts": "x"}):
        assert receipts_in(foreign) == []


def test_a_hundred_tiles_stay_small():
    """A hundred finished runs with stills of 5 KB are well under a megabyte."""
    runs = [record(**DONE, id=f"kl{n:04}", take=n) for n in range(100)]
    page, _ = drawn(tiles(*runs, src=SRC, poster=POSTER))
    assert 500_000 < len(page) < 1_300_000


def test_no_runs_at_all():
    """An empty sequence says so."""
    assert grid_text([], totals=None, now=datetime.now(UTC)) == "no runs"
