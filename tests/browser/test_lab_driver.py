"""The driver of the browser tests, judged first, because every other browser test stands on it."""

import json

import psutil
import pytest

from support.lab import Lab, write_notebook

pytestmark = pytest.mark.browser


@pytest.mark.matrix
@pytest.mark.parametrize("ui", ["lab", "notebook"])
def test_a_cell_shows_its_result_and_is_saved(lab, tmp_path, ui):
    """A cell run in a real page shows its output, and saving puts that output on disk."""
    write_notebook(tmp_path / "sum.ipynb", "print(1 + 1)", "print('the end')")
    jupyter = lab(tmp_path, ui=ui)
    tab = jupyter.open("sum.ipynb")
    tab.run_cell(0)
    assert tab.outputs(0) == ["2"]
    tab.run_all()
    assert tab.outputs(1) == ["the end"]
    tab.save()
    saved = json.loads((tmp_path / "sum.ipynb").read_text())
    assert [cell["outputs"][0]["text"] for cell in saved["cells"]] == [["2\n"], ["the end\n"]]
    assert jupyter.errors == []


@pytest.mark.matrix
def test_a_received_notebook_is_untrusted_and_has_a_new_kernel(lab, tmp_path):
    """Reopening as a stranger drops trust, sanitises the output and forgets the kernel's names."""
    source = "from IPython.display import HTML\nname = 1\nHTML('<b>kept</b><script>window.ran = 1</script>')"
    write_notebook(tmp_path / "own.ipynb", source, "'name' in globals()")
    jupyter = lab(tmp_path)
    tab = jupyter.open("own.ipynb")
    tab.run_cell(0)
    tab.page.wait_for_function("() => window.ran === 1")
    tab.save()
    assert jupyter.trusted("own.ipynb")
    from_folder = jupyter.reopen_untrusted("own.ipynb")
    from_folder.wait_text(0, "kept")
    assert from_folder.outputs(0) == ["kept"]
    assert from_folder.page.evaluate("window.ran") is None
    from_folder.run_cell(1)
    assert from_folder.outputs(1) == ["False"]


@pytest.mark.matrix
def test_nothing_is_left_running(browser, tmp_path):
    """Server and kernels end with the driver, also when the test that uses it fails."""
    write_notebook(tmp_path / "a.ipynb", "import os; print(os.getpid())")
    pids = []

    def fail_inside():
        with Lab(tmp_path, browser, alone=True) as jupyter:
            tab = jupyter.open("a.ipynb")
            tab.run_cell(0)
            pids.extend([int(tab.outputs(0)[0]), jupyter.server.pid])
            assert all(_runs(pid) for pid in pids)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert len(set(pids)) == 2
    assert not any(_runs(pid) for pid in pids)


def _runs(pid):
    """Whether a process runs; one that has ended and waits to be counted does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
