"""Cells that the notebook's server runs, and not its page: no updates, no widgets, and one true card."""

import pytest

from support.kernels import errors, execute, kernel_in, notebook, records, sandbox_beside

FOX = "%%kling fox -d 3\nA red fox in snow"
API = "import kling_nb as kling\nprint('before')\nrun = kling.submit('A hare in grass', duration=3)\nrun"
SHOWN = {"stream", "display_data", "execute_result", "error"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    """A server's kernel, a ledger of the test's own, and a sandbox whose clips take a moment."""
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "a.ipynb"))
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "0.2")


@pytest.fixture(params=["jupyter-server-documents", "jupyter-server-nbmodel"])
def run(request, tmp_path):
    """Run a cell as one of these servers does, and give its status and the outputs that it keeps."""
    appends = request.param == "jupyter-server-documents"
    with kernel_in(tmp_path) as kernel:

        def run(code):
            message = kernel.client.execute(code, allow_stdin=not appends)
            outputs, clear, idle = [], False, False
            while not idle:
                got = kernel._read(60)
                assert got is not None, "the kernel did not answer"
                if got["parent_header"].get("msg_id") != message:
                    continue
                kind = got["msg_type"]
                # The one puts an update below what it updates, the other drops it.
                if kind in SHOWN or (kind == "update_display_data" and appends):
                    outputs = [*([] if clear else outputs), got["content"]]
                    clear = False
                clear = clear or kind == "clear_output"
                idle = got["content"].get("execution_state") == "idle"
            return outputs

        run("%load_ext kling_nb")
        yield run


def texts(outputs):
    return [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]


def test_a_cell_waits_and_ends_with_exactly_one_true_card(run):
    """Neither a pile of cards nor one that says *Starting* for ever; and no dead widget."""
    [card] = run(FOX)
    assert " Done " in card["data"]["text/plain"]
    assert "<video" in card["data"]["text/html"]
    before, card = run(API)
    assert before["text"] == "before\n"
    assert " Done " in card["data"]["text/plain"]
    [again] = run(FOX)
    assert "Done, reused" in again["data"]["text/plain"]


SWEEP = "import kling_nb as kling\nowls = kling.sweep(['An owl', 'A crow'], duration=3, name='owls')"


@pytest.mark.parametrize("end", ["", "\nowls.wait()", "\nowls"])
def test_a_sweep_ends_with_one_true_card(run, end):
    """No quote that says how to send what was sent, and no card twice."""
    [card] = run(SWEEP + end)
    assert "2 done" in card["data"]["text/plain"]
    assert "start(" not in card["data"]["text/plain"]


def test_a_cell_that_does_not_wait_says_how_its_card_is_drawn_anew(run):
    """What cannot move says so, and `%kling wait` ends with the card as it is then."""
    card, words = run("%%kling fox -d 3 --no-wait\nA red fox in snow")
    assert " Done " not in card["data"]["text/plain"]
    assert "takes no updates: `%kling show" in words["data"]["text/plain"]
    assert " Done " in texts(run("%kling wait"))[-1]


def test_the_form_gives_the_cell_and_the_doctor_names_the_extension(run):
    """No inputs that nobody can use."""
    [form] = run("import kling_nb as kling\nkling.form(prompt='A red fox in snow', duration=3)")
    assert "shows no widgets" in form["data"]["text/plain"]
    assert "%%kling -d 3" in form["data"]["text/plain"]
    [empty] = run("%kling form")
    assert "%%kling" in empty["data"]["text/plain"]
    [table] = run("%kling doctor")
    assert "jupyter-server-documents or jupyter-server-nbmodel" in table["data"]["text/plain"]


def test_for_money_a_notebook_run_from_a_notebook_is_headless(tmp_path, monkeypatch):
    """It looks like a server that runs cells: without a budget nothing is spent, and the cure is named."""
    with sandbox_beside() as provider:
        for name, value in provider.environment("runflow").items():
            monkeypatch.setenv(name, value)
        made = execute(notebook("%load_ext kling_nb", FOX), tmp_path, allow_errors=True)
        [error] = errors(made)
        assert error.ename == "ConsentError"
        assert "kling.connect(budget=5)" in error.evalue
        assert provider.counts() == (0, 0)
        declared = "import kling_nb as kling\nkling.connect(budget=5)"
        made = execute(notebook("%load_ext kling_nb", declared, FOX), tmp_path)
        assert [record.status for record in records(made)] == ["succeeded"]
        assert provider.counts() == (1, 1)
