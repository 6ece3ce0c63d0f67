"""No saved output of ours holds the name of an object: a page without widgets shows words or nothing."""

import html
import re

import nbformat
import pytest

import kling_nb as kling
from kling_nb.exports.page import write_page
from kling_nb.ratings.ratings import Ratings
from kling_nb.records.base import Record
from kling_nb.records.request import TextToVideo
from kling_nb.session.session import Session
from kling_nb.spending.report import CostReport
from support.clips import make_record
from support.kernels import kernel_in
from support.paths import ROOT

OBJECTS = re.compile(
    r"object at 0x|\b(?:VBox|HBox|HTML|Button|Textarea|Kling[A-Z]\w*)\((?:children|value|description)?"
)
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
VIEWS = (
    "kling.form()",
    "%kling compare fox hare",
    "%kling gallery",
    "%kling show fox --player",
    "%kling rate fox hare",
    "%%kling slow -d 4\nA slow fox",
)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_no_kept_notebook_holds_one(path, tmp_path):
    """Of the notebooks that are kept with their outputs, and of their pages, none shows an object's name."""
    kept = nbformat.read(path, as_version=4)
    outputs = [output for cell in kept.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [found for output in outputs if (found := OBJECTS.search(str(output)))] == []
    assert OBJECTS.search(_page(path, tmp_path)) is None


def _page(notebook, folder):
    """Export a page, and give what it shows."""
    page = write_page(notebook, folder / "page.html").path.read_text(encoding="utf-8")
    return html.unescape(re.sub(r"<style>.*?</style>|<[^>]*>", "", page, flags=re.DOTALL))


def test_no_view_leaves_one(tmp_path, monkeypatch):
    """Form, card on its way, comparison, gallery, player and ballot: their text is a sentence or nothing."""
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "0")
    widgets = 0
    saved = nbformat.v4.new_notebook()
    with kernel_in(tmp_path) as kernel:
        kernel.run("%load_ext kling_nb\nimport kling_nb as kling")
        assert kernel.run("%%kling fox -d 3 --wait\nA fox").status == "ok"
        assert kernel.run("%%kling hare -d 3 -m standard --wait\nA fox").status == "ok"
        kernel.run("kling.connect(sandbox_wait=60); None")
        for view in VIEWS:
            shown = kernel.run(view)
            assert shown.status == "ok", view
            texts = [output["data"].get("text/plain", "") for output in shown.outputs if "data" in output]
            assert [text for text in texts if OBJECTS.search(text)] == []
            data = [output["data"] for output in shown.outputs if "data" in output]
            kept = [nbformat.v4.new_output("display_data", one) for one in data]
            saved.cells.append(nbformat.v4.new_code_cell(view, outputs=kept))
            widgets += sum(
                "application/vnd.jupyter.widget-view+json" in str(output) for output in shown.outputs
            )
    assert widgets >= len(VIEWS)
    nbformat.write(saved, tmp_path / "saved.ipynb")
    assert OBJECTS.search(_page(tmp_path / "saved.ipynb", tmp_path)) is None


def test_public_objects_say_in_a_line_what_they_are():
    """As the last line of a cell: no address and no wall of fields; all but records have a page's form."""
    record = make_record()
    for thing in (
        Session(provider="sandbox", name="pilot"),
        record,
        record.request,
        TextToVideo(prompt="A red fox"),
        kling.Shot(prompt="A red fox", duration=3),
        kling.estimate("A red fox", provider="sandbox"),
        kling.spend(),
        CostReport([]),
        Ratings([], []),
        kling.Runs([]),
    ):
        assert OBJECTS.search(repr(thing)) is None
        assert len(repr(thing)) < 300, repr(thing)
        assert "None" not in repr(thing)
        assert str(thing) == repr(thing)
        if not isinstance(thing, Record):
            assert hasattr(thing, "_repr_html_") or hasattr(thing, "_repr_mimebundle_")
