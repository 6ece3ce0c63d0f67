"""No saved output of ours holds the name of an object: a page without widgets shows words or nothing."""

import re

import nbformat
import pytest

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
def test_no_kept_notebook_holds_one(path):
    """Of the notebooks that are kept with their outputs, none shows an object's name."""
    kept = nbformat.read(path, as_version=4)
    outputs = [output for cell in kept.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [found for output in outputs if (found := OBJECTS.search(str(output)))] == []


def test_no_view_leaves_one(tmp_path, monkeypatch):
    """Form, card on its way, comparison, gallery, player and ballot: their text is a sentence or nothing."""
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "0")
    widgets = 0
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
            widgets += sum(
                "application/vnd.jupyter.widget-view+json" in str(output) for output in shown.outputs
            )
    assert widgets >= len(VIEWS)
