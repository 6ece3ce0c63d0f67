"""Each member has a place of its own in a grid of rows and columns, whose heads say what differs."""

from math import prod

import pytest

from kling_nb.sweeps.grid import expand, make_grid
from kling_nb.sweeps.layout import axes_of, lay_out, shape_of
from kling_nb.sweeps.prompts import read_rows
from kling_nb.views.contact_sheet import NOT_SENT
from kling_nb.views.stills import stills, stills_text
from support.markup import judge


def members(prompts, *, takes=1, private=False, **axes):
    return expand([make_grid(read_rows(prompts), axes, takes=takes, private=private)]).members


def grid(prompts, **options):
    return lay_out(members(prompts, **options), {})


def test_prompts_are_rows_and_the_rest_columns():
    """Providers before takes, in the order in which they were given."""
    found = grid(["An owl", "A hare"], takes=2, provider=["runflow", "runcomfy"])
    assert found.heads == ("Runflow, take 0", "Runflow, take 1", "RunComfy, take 0", "RunComfy, take 1")
    assert found.rows == (("An owl", ""), ("A hare", ""))
    assert len(found.cells) == 8


@pytest.mark.parametrize("takes", [2, 40])
def test_axes_without_room_become_rows(takes):
    """However many axes there are, the columns stay few and no member loses its place."""
    axes = {"duration": [3, 5, 10], "audio": [True, False], "cfg_scale": [0.3, 0.5, 0.7]}
    found = grid(["An owl"], takes=takes, **axes)
    assert len(found.heads) <= 8
    assert len(set(found.cells.values())) == len(found.cells) == 18 * takes
    assert found.rows[0][1].startswith("3 s, ")


def test_rows_stand_in_the_order_that_was_given():
    """Not in the order of sending, in which names that are filled in take turns."""
    found = grid(["A fox in {{w}}", "A hare in {{w}}"], w=["snow", "fog"])
    assert [prompt for prompt, _ in found.rows] == [
        "A fox in snow",
        "A fox in fog",
        "A hare in snow",
        "A hare in fog",
    ]


def test_long_prompts_of_one_short_prompt_have_a_row_each():
    """None of them stands in the place of another."""
    found = grid([("An owl", "An owl, soft light"), ("An owl", "An owl, hard light")])
    assert found.rows == (("An owl", ""), ("An owl", "no. 2"))
    assert sorted(found.cells.values()) == [0, 1]


def test_the_heads_of_a_private_sweep_have_none_of_its_words():
    """A negative prompt is told apart by a number."""
    found = grid(["A secret owl"], private=True, negative_prompt=["hidden barn", "old mill"], duration=[3, 5])
    shown = stills_text(found, lambda _number: NOT_SENT, rest="")
    assert "negative_prompt 1" in shown
    assert not any(word in shown for word in ("secret", "barn", "mill"))


def test_the_saved_grid_is_bounded_and_counts_what_it_leaves_out():
    """5,000 prompts, or 500 takes of one, make a page of the same size."""
    for found in (grid([f"Owl {n}" for n in range(5_000)]), grid(["An owl"], takes=500)):
        drawn = []
        page = stills(
            found, lambda number, drawn=drawn: drawn.append(number) or NOT_SENT, rest="`.df` has all."
        )
        _, text = judge(page)
        assert len(page) < 160_000
        assert len(drawn) == 100
        assert f"{len(found.rows) - 100:,} more rows are not shown: .df has all." in text


def test_the_saved_grid_breaks_where_a_page_is_narrow():
    """Its columns go below each other, each with its head; nothing has to be scrolled sideways."""
    page = stills(grid(["An owl", "A hare"], takes=4), lambda _number: NOT_SENT, rest="")
    assert page.count("take 3") == 2
    assert "<table" not in page
    assert "overflow-x" not in page


def test_the_size_of_a_sweep_is_a_product_where_it_is_one():
    """Else it is a number of runs."""
    made = members(["An owl", "A hare"], takes=2, provider=["runflow", "runcomfy"])
    assert shape_of(made) == "2 prompts x 2 providers x 2 takes"
    assert prod((2, 2, 2)) == len(made)
    assert (
        shape_of(members([{"prompt": "An owl", "duration": 3}, {"prompt": "A hare", "duration": 5}]))
        == "2 runs"
    )
    assert axes_of(members(["An owl"])) == []
