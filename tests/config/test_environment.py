"""Places: the notebook and its media folder, as real servers and runners tell of them."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest
from jupyter_client import BlockingKernelClient

from kling_nb.config.environment import is_headless, media_folder, notebook_path, run_by_server
from kling_nb.config.settings import Settings

ASK = (
    "import os; "
    "from kling_nb.config.environment import notebook_path; print(notebook_path(os.environ, globals()))"
)

PYTHON = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
SERVER = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--port=0"]


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Two notebooks in two folders; the working folder is the deeper one."""
    deep = tmp_path / "root" / "sub dir"
    deep.mkdir(parents=True)
    for path in (deep / "a.ipynb", tmp_path / "root" / "top.ipynb"):
        nbformat.write(
            nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(ASK)], metadata=PYTHON), path
        )
    monkeypatch.chdir(deep)
    return tmp_path / "root"


# -- by the rules ------------------------------------------------------------------


def test_nobody_knows(tree):
    """In plain Python and under `nbconvert --execute` there is no notebook to name."""
    assert notebook_path({}, {}) is None


def test_the_jupyter_servers_word_counts(tree):
    """An absolute session name is the notebook, also after it was renamed away."""
    for name in ("sub dir/a.ipynb", "sub dir/renamed.ipynb", "top.ipynb"):
        assert notebook_path({"JPY_SESSION_NAME": str(tree / name)}, {}) == tree / name


PAGE = {"header": {"msg_id": "0a1b2c3d-1111-4222-8333-444455556666"}, "metadata": {"cellId": "c1"}}
OTHER_PAGE = {**PAGE, "metadata": {}}
CLIENT = {"header": {"msg_id": "0a1b2c3d-1111222233334444_4711_12"}, "metadata": {}}


@pytest.mark.parametrize(
    ("request_", "stdin", "session", "by_server"),
    [
        (PAGE, True, True, False),
        (PAGE, False, True, False),
        (OTHER_PAGE, True, True, False),  # the classic notebook
        (CLIENT, False, True, True),  # jupyter-server-documents; papermill within a notebook
        (CLIENT, True, True, True),  # jupyter-server-nbmodel
        (CLIENT, False, False, False),  # nbclient
        (CLIENT, True, False, False),  # a console
    ],
)
def test_a_server_that_runs_cells_is_known_by_its_request(request_, stdin, session, by_server):
    """No cell's id, but a notebook's session, and asked by jupyter_client."""
    environ = {"JPY_SESSION_NAME": "/home/ada/a.ipynb"} if session else {}
    assert run_by_server({**request_, "content": {"allow_stdin": stdin}}, environ) is by_server


def test_a_relative_session_name_is_found_upwards(tree):
    """Without a name from the front end the server gives a path from its own root."""
    assert notebook_path({"JPY_SESSION_NAME": "sub dir/a.ipynb"}, {}) == tree / "sub dir" / "a.ipynb"
    assert notebook_path({"JPY_SESSION_NAME": "sub dir/gone.ipynb"}, {}) == tree / "sub dir" / "gone.ipynb"


@pytest.mark.parametrize(
    "name", ["", "{root}/", "{root}/Console 1", "/no/such/folder/a.ipynb", "{root}/a\0.ipynb"]
)
def test_a_session_that_is_no_notebook_names_none(tree, name):
    """Consoles and folders of other machines are not taken for notebooks."""
    assert notebook_path({"JPY_SESSION_NAME": name.format(root=tree)}, {}) is None


@pytest.mark.parametrize("name", ["a-jvsc-0f{u}.ipynb", "a.ipynb-jvsc-0f{u}"])
def test_vs_codes_suffix_is_taken_off(tree, name):
    """VS Code gives a session on a remote server a longer name than the notebook's."""
    name = name.format(u="87fbd8-8db9-4993-8ab6-28c9ebd13038")
    assert (
        notebook_path({"JPY_SESSION_NAME": str(tree / "sub dir" / name)}, {}) == tree / "sub dir" / "a.ipynb"
    )


def test_vs_codes_variable_counts(tree):
    """VS Code's own variable beats the session's name, unless it is a path of another machine."""
    environ = {"JPY_SESSION_NAME": str(tree / "sub dir" / "a.ipynb")}
    there = str(tree / "top.ipynb")
    assert notebook_path(environ, {"__vsc_ipynb_file__": there}) == tree / "top.ipynb"
    for elsewhere in (r"c:\Users\ada\top.ipynb", "/home/nobody-here/top.ipynb", 7):
        assert notebook_path(environ, {"__vsc_ipynb_file__": elsewhere}) == tree / "sub dir" / "a.ipynb"


def test_papermills_output_counts(tree):
    """The output notebook is what is kept, so the clips go beside it."""
    out = str(tree / "out.ipynb")
    assert notebook_path({}, {"PAPERMILL_OUTPUT_PATH": out}, headless=True) == tree / "out.ipynb"
    assert notebook_path({"PAPERMILL_OUTPUT_PATH": out}, {}, headless=True) == tree / "out.ipynb"
    for remote in ("s3://bucket/out.ipynb", "gs://bucket/out.ipynb", "-", "", None):
        assert notebook_path({}, {"PAPERMILL_OUTPUT_PATH": remote}, headless=True) is None


def test_papermills_relative_output_is_found(tree):
    """It is relative to where papermill was started, which `--cwd` hides and `PWD` still tells."""
    variables = {"PAPERMILL_OUTPUT_PATH": "top.ipynb"}
    assert notebook_path({"PWD": str(tree)}, variables, headless=True) == tree / "top.ipynb"
    variables = {"PAPERMILL_OUTPUT_PATH": "a.ipynb"}
    assert notebook_path({"PWD": str(tree)}, variables, headless=True) == tree / "sub dir" / "a.ipynb"


def test_an_old_papermill_cell_does_not_move_a_live_notebook(tree):
    """A papermill output that is opened and run by hand keeps its clips beside itself."""
    variables = {"PAPERMILL_OUTPUT_PATH": str(tree / "top.ipynb")}
    environ = {"JPY_SESSION_NAME": str(tree / "sub dir" / "a.ipynb")}
    assert notebook_path(environ, variables, headless=False) == tree / "sub dir" / "a.ipynb"
    assert notebook_path(environ, variables, headless=True) == tree / "top.ipynb"


def test_a_headless_run_does_not_inherit_its_parents_notebook(tree):
    """`!jupyter execute` in a notebook's cell hands its own session name down to another notebook."""
    inherited = {"JPY_SESSION_NAME": str(tree / "top.ipynb")}
    assert notebook_path(inherited, {}, headless=True) is None
    own = {"JPY_SESSION_NAME": str(tree / "sub dir" / "a.ipynb")}
    assert notebook_path(own, {}, headless=True) == tree / "sub dir" / "a.ipynb"


def test_the_media_folder(tmp_path):
    """The setting, else beside the notebook, else in the working folder; nothing is made by asking."""
    notebook, cwd = tmp_path / "nb" / "a.ipynb", tmp_path / "cwd"
    assert media_folder(Settings(media="/clips"), notebook, cwd) == Path("/clips")
    assert media_folder(Settings(), notebook, cwd) == tmp_path / "nb" / "kling_media"
    assert media_folder(Settings(), None, cwd) == cwd / "kling_media"
    assert list(tmp_path.rglob("kling_media")) == []


@pytest.mark.parametrize(
    ("allow_stdin", "isatty", "headless"),
    [(True, False, False), (False, True, True), (None, True, False), (None, False, True)],
)
def test_headless(allow_stdin, isatty, headless):
    """In a kernel the request decides, elsewhere the terminal."""
    assert is_headless(allow_stdin, isatty) is headless


# -- as the real programs tell it ------------------------------------------------------


def test_a_real_papermill_tells_its_output(tree):
    """With `--inject-output-path` the output is found, also when the kernel runs elsewhere."""
    out = tree.parent / "out"
    out.mkdir()
    command = [
        sys.executable,
        "-m",
        "papermill",
        "--inject-output-path",
        "--no-progress-bar",
        "--kernel",
        "python3",
    ]
    subprocess.run(
        [*command, "--cwd", str(tree), "root/top.ipynb", "out/o.ipynb"],
        cwd=tree.parent,
        env={**os.environ, "PWD": str(tree.parent)},
        check=True,
        capture_output=True,
        timeout=120,
    )
    texts = [o["text"] for c in nbformat.read(out / "o.ipynb", 4).cells for o in c.get("outputs", [])]
    assert texts == [f"{out / 'o.ipynb'}\n"]


def test_a_real_server_tells_the_notebook(tree, tmp_path):
    """Jupyter Server's own session names lead to the notebook, with and without a name from the page."""
    runtime = tmp_path / "runtime"
    server = subprocess.Popen(
        [*SERVER, f"--ServerApp.root_dir={tree}"],
        env={**os.environ, "JUPYTER_TOKEN": "t", "JUPYTER_RUNTIME_DIR": str(runtime)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = _wait_for(runtime)
        told = {
            _ask(url, runtime, {"path": "sub dir/a.ipynb", "name": "a.ipynb", "type": "notebook"}),
            _ask(url, runtime, {"path": "top.ipynb", "type": "notebook"}),
            _ask(url, runtime, {"path": "console-1", "name": "Console 1", "type": "console"}),
        }
    finally:
        server.terminate()
        server.wait(90)
    assert told == {str(tree / "sub dir" / "a.ipynb"), str(tree / "top.ipynb"), "None"}


def _wait_for(runtime):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for file in runtime.glob("jpserver-*.json"):
            # It tells its address before it listens there.
            with suppress(OSError, ValueError, KeyError):
                url = json.loads(file.read_text())["url"]
                urllib.request.urlopen(f"{url}api/status?token=t", timeout=60).close()
                return url
        time.sleep(0.1)
    raise TimeoutError


def _ask(url, runtime, session):
    request = urllib.request.Request(
        f"{url}api/sessions",
        data=json.dumps({**session, "kernel": {"name": "python3"}}).encode(),
        headers={"Authorization": "token t", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        kernel = json.load(reply)["kernel"]["id"]
    client = BlockingKernelClient(connection_file=str(runtime / f"kernel-{kernel}.json"))
    client.load_connection_file()
    # Without its heartbeat: on a busy machine one that is a second late is taken for a dead kernel.
    client.start_channels(hb=False)
    try:
        client.wait_for_ready(timeout=60)
        said = []
        client.execute_interactive(
            ASK, output_hook=lambda m: said.append(m["content"].get("text", "")), timeout=60
        )
    finally:
        client.stop_channels()
    return "".join(said).strip()
