"""Cells that the server runs: in a real JupyterLab with each extension that does so, cards end true."""

import json
import subprocess
import sys

import pytest

from kling_nb.records.receipt_model import RECEIPT_MIME
from support.lab import Lab, write_notebook
from support.paths import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.matrix]

FOX = "%%kling fox -d 3\nA red fox in snow"
API = "import kling_nb as kling\nprint('before')\nrun = kling.submit('A hare in grass', duration=3)\nrun"
EXTENSIONS = {
    "jupyter-server-documents 0.3.3": [
        "jupyter-server-documents==0.3.3",
        "jupyter-collaboration-ui==3.0.4",
        "jupyter-docprovider==3.0.4",
        "jupyter-server-fileid==0.9.3",
        "jupyter-ydoc==4.2.1",
        "pycrdt==0.14.13",
    ],
    "jupyter-server-nbmodel 0.2.9": [
        "jupyter-server-nbmodel==0.2.9",
        "jupyter-kernel-client==1.0.2",
        "jupyter-mimetypes==0.2.0",
    ],
}


@pytest.fixture(params=list(EXTENSIONS))
def extension(tmp_path, request):
    """An extension in a folder of its own, to be found beside what is installed."""
    folder = tmp_path / "extension"
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--target", str(folder)]
    subprocess.run([*pip, *EXTENSIONS[request.param]], check=True, timeout=600)
    return request.param, folder


def test_cells_that_the_server_runs_end_with_one_true_card(browser, tmp_path, extension):
    """Never a pile of cards, never one that says *Starting* for ever; no widget; saved as it was seen."""
    name, folder = extension
    (tmp_path / "shown").mkdir()
    write_notebook(
        tmp_path / "shown" / "a.ipynb", "%load_ext kling_nb", FOX, API, "%kling form", "%kling doctor"
    )
    variables = {
        "KLING_NB_LEDGER": str(tmp_path / "ledger.db"),
        "KLING_NB_SANDBOX_WAIT": "1",
        "PYTHONPATH": f"{folder}:{ROOT}",
        "JUPYTER_PATH": str(folder / "share" / "jupyter"),
        "JUPYTER_CONFIG_PATH": str(folder / "etc" / "jupyter"),
    }
    with Lab(tmp_path / "shown", browser, env=variables, alone=True) as jupyter:
        tab = jupyter.open("a.ipynb")
        for cell, words in enumerate(["", "Done", "Done", "shows no widgets", name]):
            tab.run_cell(cell)
            if words:
                tab.wait_text(cell, words)
        [card] = tab.outputs(1)
        before, other = tab.outputs(2)
        assert (card.startswith("Done"), before, other.startswith("Done")) == (True, "before", True)
        assert [video["error"] for video in tab.videos()] == [None, None]
        tab.save()
        assert jupyter.errors == []
    saved = json.loads((tmp_path / "shown" / "a.ipynb").read_text("utf-8"))
    data = [output.get("data", {}) for cell in saved["cells"] for output in cell["outputs"]]
    assert [one[RECEIPT_MIME]["status"] for one in data if RECEIPT_MIME in one] == ["succeeded"] * 2
    assert not any("application/vnd.jupyter.widget-view+json" in one for one in data)
