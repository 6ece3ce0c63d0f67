"""The body of a `%%kling` cell is what stands in it, whatever version of IPython runs it."""

from pathlib import Path

import pytest
from IPython.core.inputtransformer2 import PromptStripper, TransformerManager, classic_prompt

from kling_nb.commands.syntax.cell import parse_cell
from kling_nb.commands.syntax.cell_source import earlier_spellings, shield
from kling_nb.errors import UsageError
from support.sessions import sessions_in

BODIES = [
    ">>> A red fox\n... in snow\n",
    "A red fox\n>>> in snow\n    >>> deep\n",
    "In [1]: A red fox\n   ...: in snow\n",
    "... and then a fox\n>>> runs\n",
    "A red fox\n    an indented line\n\n",
]


@pytest.fixture
def build(tmp_path):
    yield from sessions_in(tmp_path)


def older_rules(manager):
    """Let IPython strip prompts as its versions before 9.10 do: where one stands in the first two lines."""
    older = PromptStripper(classic_prompt.prompt_re, classic_prompt.initial_re)
    steps = manager.cleanup_transforms
    steps[steps.index(classic_prompt)] = older


def ran(cell, *, shielded=True, older=False):
    """Run a cell through IPython's own steps; give what reaches the magic."""
    manager = TransformerManager()
    if older:
        older_rules(manager)
    if shielded:
        manager.cleanup_transforms.insert(0, shield)
    got = []
    shell = type("Shell", (), {"run_cell_magic": lambda _self, *args: got.append(args)})
    exec(manager.transform_cell(cell), {"get_ipython": shell})
    return got[0]


def order(line, body):
    return parse_cell(line, body, {}, folder=Path()).ask


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("body", BODIES)
def test_the_body_arrives_byte_for_byte(body, older):
    """Under the rules of either IPython, also below comments and another magic."""
    assert ran(f"%%kling fox -d 3\n{body}", older=older) == ("kling", "fox -d 3", body)
    assert ran(f"\n# a note\n%%kling fox\n{body}", older=older) == ("kling", "fox", body)
    assert ran(f"# a note\n%%time\n%%kling fox\n{body}", older=older) == (
        *("time", ""),
        f"%%kling fox\n{body}",
    )


@pytest.mark.parametrize(
    "cell", ["x = 1\n%%kling fox\nA fox", "%%kling?", "%%klingon\nA fox", "%%time\nx = 1", "# only words", ""]
)
def test_other_cells_are_left_alone(cell):
    """The first step of every cell touches no cell but ours."""
    lines = cell.splitlines(keepends=True)
    assert shield(lines) is lines


def test_an_indented_cell_loses_the_indentation_of_its_magic():
    """As a pasted one always did, in every IPython."""
    assert ran("  %%kling fox\n  A fox\n    runs\nfast\n") == ("kling", "fox", "A fox\n  runs\nfast\n")


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("body", BODIES)
def test_every_spelling_that_was_bought_before_is_known(body, older):
    """What IPython made of the body, without our step, is among the earlier spellings where it differs."""
    _, _, before = ran(f"%%kling fox\n{body}", shielded=False, older=older)
    assert before == body or before in earlier_spellings(body)


def test_a_clip_bought_under_the_stripped_words_is_shown_and_not_bought_again(build):
    """An unchanged cell finds it, and says so; `--no-cache` buys the words as they stand."""
    session = build()
    [bought] = session.open(order("-d 3", "A red fox\n"))
    bought.wait(60)
    written = ">>> A red fox\n"
    assert session.plan(order("-d 3", written)).new == 0
    [found] = session.open(order("-d 3", written))
    assert (found.id, found.reused) == (bought.id, True)
    assert "`--no-cache` buys it as it is written" in found.note
    [private] = session.open(order("-d 3 --private", written))
    assert private.id == bought.id
    [anew] = session.open(order("-d 3 --no-cache", written))
    anew.wait(60)
    assert anew.record.request.prompt == ">>> A red fox"
    [again] = session.open(order("-d 3", written))
    assert (again.id, again.note) == (anew.id, "")


def test_words_that_could_not_be_bought_before_are_no_hindrance():
    """A body that was no request under the older rules has no earlier spelling."""
    assert order("", ">>> [2s] A fox\nruns\n").earlier == ()
    with pytest.raises(UsageError):
        order("", "[2s] A fox\nruns\n")
