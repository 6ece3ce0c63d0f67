"""What a notebook asks for is read from its file: as IPython would split it, and without running it."""

import json
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kling_nb
from kling_nb.commands.estimate.cells import Cell, read_cells
from kling_nb.commands.estimate.steps import read_steps
from kling_nb.errors import UsageError
from support.kernels import notebook

SOURCES = [
    "%load_ext kling_nb",
    "%%kling fox -d 3\nA red fox\n\n# not a comment\nsecond line",
    "x = 1\n%kling status\n!ls",
    "%%kling -n 2\nDunes",
]


def steps(*sources, folder=Path()):
    return read_steps(
        [Cell(number=number, source=source) for number, source in enumerate(sources, start=1)], folder=folder
    )


def kinds(*sources):
    return [(step.kind, step.cell, step.line) for step in steps(*sources)]


def test_a_cell_is_read_as_it_is_run():
    """Comments stand above the magic, and what looks like a pasted prompt stays in the words."""
    [step] = steps("\n# the better take\n%%kling fox\n>>> A red fox\n... in snow")
    assert (step.kind, step.line) == ("order", 3)
    assert step.ask.request.prompt == ">>> A red fox\n... in snow"


# -- files -------------------------------------------------------------------------------------
def test_a_notebook_a_script_and_a_page_hold_the_same_cells(tmp_path):
    """What jupytext keeps as .py or .md asks for what its .ipynb asks for."""
    made = notebook(*SOURCES)
    made.cells.insert(1, nbformat.v4.new_markdown_cell("# A title\n\n%%kling in prose"))
    made.cells.append(nbformat.v4.new_raw_cell("%%kling raw\nnever"))
    made.cells.append(nbformat.v4.new_code_cell("%%kling\nskipped", metadata={"tags": ["skip-execution"]}))
    nbformat.write(made, tmp_path / "a.ipynb")
    for name, fmt in (("a.py", "py:percent"), ("a.md", "md")):
        jupytext.write(made, tmp_path / name, fmt=fmt)
    found = [read_cells(tmp_path / name) for name in ("a.ipynb", "a.py", "a.md")]
    wanted = [(1, False), (3, False), (4, False), (5, False), (7, True)]
    assert [(cell.number, cell.skipped) for cell in found[0]] == wanted
    assert [cell.source for cell in found[0][:4]] == SOURCES
    for other in found[1:]:
        assert [(cell.source, cell.skipped) for cell in other] == [(c.source, c.skipped) for c in found[0]]


def test_a_percent_script_is_read_without_jupytext_too(tmp_path, monkeypatch):
    """The package needs no jupytext for a .py; for a .md it says that it does."""
    made = notebook(*SOURCES, "%%kling\nskipped")
    made.cells.insert(1, nbformat.v4.new_markdown_cell("# A title"))
    made.cells[-1].metadata["tags"] = ["skip-execution"]
    jupytext.write(made, tmp_path / "a.py", fmt="py:percent")
    (tmp_path / "a.md").write_text("# A title\n")
    (tmp_path / "bare.py").write_text("import kling_nb as kling\nkling.submit('x')\n")
    with_it = read_cells(tmp_path / "a.py")
    monkeypatch.setitem(sys.modules, "jupytext", None)
    without = read_cells(tmp_path / "a.py")
    assert [(c.number, c.source, c.skipped) for c in without] == [
        (c.number, c.source, c.skipped) for c in with_it
    ]
    assert len(without) == 5
    assert [cell.number for cell in read_cells(tmp_path / "bare.py")] == [1]
    with pytest.raises(UsageError, match="pip install jupytext"):
        read_cells(tmp_path / "a.md")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"x", "not a notebook"),
        ("a.ipynb", b"{", "not a notebook in format 4"),
        ("a.ipynb", b"[]", "not a notebook in format 4"),
        ("a.ipynb", b'{"nbformat": 3, "worksheets": []}', "not a notebook in format 4"),
        ("a.ipynb", b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": [1]}]}', "format 4"),
        ("a.ipynb", b"[" * 100_000, "not a notebook in format 4"),
        ("a.ipynb", b"\xff\xfe", "not UTF-8"),
        ("none.ipynb", None, "cannot be read"),
    ],
)
def test_what_is_no_notebook_is_refused(tmp_path, name, content, words):
    """A wrong file is wrong use, in one line."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read_cells(tmp_path / name)


# -- cells that ask in full ----------------------------------------------------------------------
@pytest.mark.parametrize(
    "source",
    [
        "%%kling fox -d 3\nA red fox",
        "\n\n%%kling fox -d 3\nA red fox\n",
        "    %%kling fox -d 3\n    A red fox",
        "%%capture out\n%%kling fox -d 3\nA red fox",
        "%%time\n%%kling fox -d 3\nA red fox",
        "get_ipython().run_cell_magic('kling', 'fox -d 3', 'A red fox')",
    ],
)
def test_a_cell_is_found_as_ipython_would_run_it(source):
    """White space, a wrapping magic or the plain call: all the same request."""
    [step] = steps(source)
    assert (step.kind, step.name) == ("order", "fox")
    assert (step.ask.request.prompt, step.ask.request.duration) == ("A red fox", 3)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import kling_nb as kling\nfox = kling.submit('A red fox', duration=3)", 2),
        ("import kling_nb\nfox = kling_nb.generate(prompt='A red fox', duration=3, timeout_s=60)", 2),
        ("from kling_nb import submit as go\n\nfox = go('A red fox', duration=3)", 3),
        ("from kling_nb import *\nfox = submit('A red fox', duration=3)", 2),
        ("%%time\n\nfox = kling.submit('A red fox', duration=3)", 3),
        ("\n \nfox = kling.submit('A red fox', duration=3)", 3),
    ],
)
def test_a_call_with_literal_values_is_read_as_its_cell_would_be(source, line):
    """One statement, one call at the top level, nothing but literals in it: it can be priced."""
    [step] = steps(source)
    assert (step.kind, step.name, step.line) == ("order", "fox", line)
    assert (step.ask.request.prompt, step.ask.request.duration) == ("A red fox", 3)


@pytest.mark.parametrize(
    "source",
    [
        "%%kling --help\n",
        "%%kling -d 3 --help\nA fox",
        "%kling status",
        "print('%%kling')",
        "%%bash\nkling-nb demo",
        "%%writefile a.py\nkling.submit('x')",
        "# kling.submit('x')",
        "submit('a form of mine')",
        "other.submit('x')",
        "import kling_nb as kling\nkling.runs()\nkling.estimate('x')",
        "import kling_nb as kling\nfor run in kling.runs():\n    print(run.cost, kling.spend())",
        "try:\n    from kling_nb import BudgetError, find\nexcept ImportError:\n    pass\nfind('k').wait()",
        "fox = kling.find('k')\nfox.path.open()",
        "from other import submit\nsubmit('x')",
        "kling.compare(*kling.runs())",
        "%time x = 1",
        "if late:\n    %matplotlib inline",
        "model.eval()\nre.compile('x')",
        "from kling_nb import submit\nfrom other import submit\nsubmit('x')",
        "x = (",
    ],
)
def test_what_makes_no_run_is_no_step(source):
    """Help, looks, other people's functions and text that is never run."""
    assert steps(source) == []


# -- what only running would tell -------------------------------------------------------------------
@pytest.mark.parametrize(
    ("source", "line", "words"),
    [
        ("%%kling\nA {{colour}} fox", 1, "the variable colour"),
        ("%%kling --params $settings\nA fox", 1, "the variable settings"),
        ("%%kling -f prompts/none.txt", 1, "no file"),
        ("import kling_nb as kling\nkling.submit(prompt)", 2, "`kling.submit`"),
        ("import kling_nb as k\n\nclips = [k.submit(p) for p in prompts]", 3, "`k.submit`"),
        ("import kling_nb as k\nfor p in prompts:\n    k.submit(p)\nprint(p)", 3, "`k.submit`"),
        ("from kling_nb import submit as go\nfor p in prompts:\n    go(p)", 3, "`go`"),
        ("from kling_nb import *\nlist(map(submit, prompts))", 2, "`submit`"),
        ("from kling_nb.session.api import generate\nawait other()\ngenerate('x')", 3, "`generate`"),
        ("import kling_nb.session.api\nkling_nb.session.api.submit('x')", 2, "`kling_nb.session`"),
        ("import kling_nb.session.api as api\napi.submit('x')", 2, "`api.submit`"),
        ("def make(p):\n    return kling.submit(p)", 2, "`kling.submit`"),
        ("if wanted:\n    kling.submit('x')", 2, "`kling.submit`"),
        ("kling.submit('x', **more)", 1, "`kling.submit`"),
        ("kling.submit('x', prompt='y')", 1, "`kling.submit`"),
        ("kling.submit('x').wait()", 1, "`kling.submit`"),
        ("kling.connect().open(ask)", 1, "`kling.connect`"),
        ("kling.resolve('k', attach='x')", 1, "`kling.resolve`"),
        ("getattr(kling, name)('x')", 1, "`kling`"),
        ("exec(open('buy.py').read())", 1, "`exec`"),
        ("importlib.import_module('kling_nb').submit('x')", 1, "`importlib.import_module`"),
        ("sys.modules['kling_nb'].submit('x')", 1, "`'kling_nb'`"),
        ("get_ipython().run_cell(text)", 1, "run_cell`"),
        ("for p in ps:\n    get_ipython().run_cell_magic('kling', '', p)", 2, "run_cell_magic`"),
        ("get_ipython().run_cell_magic('kling', '', text)", 1, "run_cell_magic`"),
        ("for p in ps:\n    get_ipython().run_cell_magic('kling', '', 'x')", 2, "`%kling`"),
        ("%%timeit\nkling.submit('x')", 1, "`%timeit`"),
        ("x = 1\n%time kling.submit('x')", 2, "`%time`"),
        ("%run -m kling_nb", 1, "`%run`"),
        ("s = '\\d'\nkling.submit(s)", 2, "`kling.submit`"),
    ],
)
def test_what_needs_running_is_counted_with_its_line(source, line, words):
    """Neither guessed nor left out: each statement that may make runs is one unknown."""
    [step] = steps(source)
    assert (step.kind, step.line) == ("unknown", line)
    assert words in step.why


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("import kling_nb\nk = video = kling_nb\nvideo.submit('x')", [2, 3]),
        ("def make(p):\n    return kling.submit(p)\n\nclip = make('x')\nmake", [2, 4, 5]),
        ("go = kling.submit\ngo('x')", [1, 2]),
        ("go = functools.partial(kling.submit, duration=3)\ngo('x')", [1, 2]),
        ("go = lambda p: kling.submit(p)\ngo('x')", [1, 2]),
        ("kling.connect(project=kling.submit(p).id)", [1]),
        ("session = kling.connect(budget='1')\nsession.open(ask)", [2]),
        ("clips = [kling.submit(p) for p in ps]\nfor clip in clips:\n    clip.wait()", [1]),
        ("def submit(p):\n    return kling.submit(p, duration=15)\n\nsubmit('x')", [2, 4]),
        ("from kling_nb import submit\nsubmit = shorter(submit)\nsubmit('x')", [2, 3]),
    ],
)
def test_what_is_made_of_the_package_is_unknown_where_it_is_used(source, lines):
    """A function, an alias, a session: each use of one is one more unknown; what a call gave back is none."""
    assert [step.line for step in steps(source) if step.kind == "unknown"] == lines
    assert {step.kind for step in steps(source)} <= {"unknown", "setting", "note"}


def test_every_public_name_is_known_to_buy_or_not_to_buy():
    """A new function of the package is unknown to the bill until somebody says that it is free."""
    unsure = {name for name in kling_nb.__all__ if steps(f"kling.{name}(x)")}
    assert unsure == {"adopt", "generate", "resolve", "run_one", "submit", "sweep"}
    assert [step.kind for step in steps("if x:\n    kling.connect()")] == ["unknown"]
    assert [step.kind for step in steps("%%kling --sweep x=a,b\nA {{x}}")] == ["unknown"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("kling.submit('A fox', seed=3)", "no option 'seed'"),
        ("kling.submit('A fox', duration=99)", "duration"),
        ("%%kling --seed 3\nA fox", "--seed"),
        ("%%kling\n", "The prompt is empty"),
        ("%%kling -d 99\nA fox", "duration"),
        ("mine = 1\n%%kling fox\nA fox", "first line"),
        ("%%kling -d 3\n[5s] a\n[3s", "no [seconds]"),
    ],
)
def test_a_cell_that_would_be_refused_as_it_stands_says_why(source, words):
    """Better before Run All than in the middle of it."""
    [step] = steps(source)
    assert step.kind == "invalid"
    assert words in step.why


def test_a_key_in_a_cell_is_not_repeated():
    """What stands in a notebook by mistake does not get into its bill."""
    [step] = steps("%%kling --key made-up-key-of-a-test-7Qm2\nA fox")
    assert step.kind == "invalid"
    assert "7Qm2" not in json.dumps([step.why, step.cure, step.words])


# -- settings on the way -----------------------------------------------------------------------------
def test_settings_with_plain_values_are_followed_and_others_named():
    """`%config` and `connect` count from their cell on; money stays text, and what is not plain is a note."""
    found = steps(
        "%config KlingMagics.budget = 2.50\n%config KlingMagics.provider = 'sandbox'",
        "import kling_nb as kling\nkling.connect(provider='runcomfy', budget='3.00')",
        "%config KlingMagics.budget = mine\nkling.connect(**options)",
        "if late:\n    %config KlingMagics.model = '4k'",
        "%env KLING_NB_BUDGET=3\n%run other.ipynb",
        "import os\nos.environ['KLING_NB_YES'] = '1'",
        "%config KlingMagics.project = 'vineyard'",
        "%config KlingMagics.provider = 'nobody'",
    )
    assert [dict(step.settings) for step in found if step.kind == "setting"] == [
        {"budget": "2.50"},
        {"provider": "sandbox"},
        {"provider": "runcomfy"},
        {"budget": "3.00"},
    ]
    assert [(step.cell, step.why) for step in found if step.kind == "note"] == [
        (3, "sets budget to something known only when it runs"),
        (3, "sets settings to something known only when it runs"),
        (4, "sets model to something known only when it runs"),
        (5, "names KLING_NB_BUDGET, which is not followed"),
        (5, "runs code that is not in it, which is not read"),
        (6, "names KLING_NB_YES, which is not followed"),
        (7, "names a project, whose caps are not looked at"),
        (8, "sets provider to a value that is refused: it stays as it was"),
    ]


@given(
    st.text(st.characters(codec="utf-8"), max_size=80),
    st.sampled_from(["", "%%kling\n", "%%kling -d 3 ", "%", "kling."]),
)
def test_any_text_is_read_to_its_end(text, head):
    """No cell, however broken, keeps the others from being read."""
    found = steps(head + text, "%%kling last\nA red fox")
    assert (found[-1].kind, found[-1].name) == ("order", "last")
