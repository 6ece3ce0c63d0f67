"""The live card and its controls hold with the ipykernels that people have, not only with the newest."""

import subprocess
import sys

import pytest

from support.lab import Lab, write_notebook

pytestmark = [pytest.mark.browser, pytest.mark.matrix]

FOX = "%%kling fox -d 3\nA red fox in snow"


@pytest.fixture
def older(tmp_path, request):
    """A folder that holds another ipykernel, to be found before the installed one."""
    folder = tmp_path / "ipykernel"
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--target", str(folder)]
    subprocess.run([*pip, f"ipykernel=={request.param}"], check=True, timeout=300)
    return request.param, folder


@pytest.mark.parametrize("older", ["6.31.0", "7.3.0"], indirect=True)
@pytest.mark.parametrize("ui", ["lab", "notebook"])
def test_cards_live_and_cancel_works_while_a_cell_sleeps(browser, tmp_path, older, ui):
    """Each kernel moves the card while another cell blocks, and hears a cancel no later than it can."""
    version, folder = older
    (tmp_path / "shown").mkdir()
    write_notebook(
        tmp_path / "shown" / "a.ipynb",
        "%load_ext kling_nb",
        "import ipykernel; print(ipykernel.__version__)",
        FOX,
        "import time; time.sleep(300)",
        # Where a click has to wait for the cell, the test does so too; elsewhere it ends it.
        f"import time; time.sleep({15 if version.startswith('6') else 300})",
        "fox.status.value, fox.record.charged",
    )
    variables = {
        "KLING_NB_LEDGER": str(tmp_path / "ledger.db"),
        "KLING_NB_SANDBOX_WAIT": "60",
        "PYTHONPATH": str(folder),
    }
    with Lab(tmp_path / "shown", browser, ui=ui, env=variables) as jupyter:
        tab = jupyter.open("a.ipynb")
        tab.run_cell(0)
        tab.run_cell(1)
        assert tab.outputs(1) == [version]
        tab.run_cell(2)
        tab.run_cell(3, wait=False)
        tab.during(2, 3, lambda seen: len(set(seen)) >= 3)
        tab.interrupt(3)
        tab.run_cell(4, wait=False)
        tab.click("Cancel")
        tab.wait_text(2, "Canceled")
        # ipykernel 6 has no subshells: there a click waits until the cell is over.
        if version.startswith("6"):
            tab.wait_idle()
        else:
            assert tab.running(4)
            tab.interrupt(4)
        tab.run_cell(5)
        assert tab.outputs(5) == ["('canceled', 'no')"]
        assert jupyter.errors == []
