"""Drive a real JupyterLab or Notebook 7 in headless Chromium, as a person would.

Invariants: server and kernels have their own configuration, data and runtime folders and listen on
127.0.0.1; the browser can reach nothing else; what was started is ended, also after a failure, and
nothing else is; every wait is for a condition and has a limit.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, Self

import nbformat
import psutil
from playwright.sync_api import Browser, ConsoleMessage, expect, sync_playwright

from support.tab import CELL_S, READY, Tab

__all__ = ["Lab", "browser_of", "expect", "write_notebook"]

START_S = 90
# A kernel on a busy machine has half of this to empty its outputs before it is killed.
EXIT_S = 30
# Playwright's own five seconds are short for a page on a busy machine.
expect.set_options(timeout=CELL_S * 1000)
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)
# What the two interfaces say by themselves, with no cell run and none of our code loaded.
OWN_NOISE = ("reading 'schema'", "ERR_NAME_NOT_RESOLVED", "ERR_INTERNET_DISCONNECTED")
QUIET = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
}
DARK = {"@jupyterlab/apputils-extension:themes": {"theme": "JupyterLab Dark"}}


@contextmanager
def browser_of(chromium: Path, home: Path | None = None) -> Iterator[Browser]:
    """Start one headless browser. `asyncio.run` cannot be called in this thread before it has ended."""
    with sync_playwright() as playwright:
        # Its socket lies under TMPDIR, and the path of a socket may have some 100 letters only.
        environment = {**os.environ, "TMPDIR": "/tmp", **({"HOME": str(home)} if home else {})}
        browser = playwright.chromium.launch(
            executable_path=str(chromium), args=list(ARGUMENTS), env=environment
        )
        try:
            yield browser
        finally:
            browser.close()


def write_notebook(path: Path, *sources: str) -> Path:
    """Write a notebook of code cells that were never run; a source that starts with `md:` is text."""
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    for number, source in enumerate(sources):
        make = nbformat.v4.new_markdown_cell if source.startswith("md:") else nbformat.v4.new_code_cell
        notebook.cells.append(make(source.removeprefix("md:"), id=f"cell{number}"))
    nbformat.write(notebook, str(path))
    return path


class Lab:
    """A Jupyter server over one folder and a window of the browser.

    Args:
        root: The folder it serves.
        browser: From `browser_of`.
        ui: JupyterLab or Notebook 7.
        env: Variables for the server and its kernels; None takes one away.
        viewport: Width and height in pixels.
        dark: Whether to use the dark theme.
        settings: JupyterLab settings by plugin, e.g. `{"@jupyterlab/x-extension:y": {...}}`.

    Example:
        with browser_of(path) as browser, Lab(folder, browser) as lab:
            tab = lab.open("a.ipynb")
            tab.run_all()
    """

    def __init__(
        self,
        root: Path,
        browser: Browser,
        *,
        ui: Literal["lab", "notebook"] = "lab",
        env: Mapping[str, str | None] | None = None,
        viewport: tuple[int, int] = (1280, 1000),
        dark: bool = False,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.root = Path(root).resolve()
        self.ui = ui
        self.errors: list[str] = []
        self.requests: list[tuple[int, str]] = []
        self._browser = browser
        self._env = dict(env or {})
        self._viewport = viewport
        self._dark = dark
        self._settings = {**QUIET, **(DARK if dark else {}), **(settings or {})}
        self._token = secrets.token_hex(16)
        self._reopened = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lab-")))
            self._log = stack.enter_context((scratch / "server.log").open("w+"))
            self._server = self._start_server(scratch)
            stack.callback(self._stop_server)
            self.base = self._address(scratch / "run")
            width, height = self._viewport
            self._window = self._browser.new_context(
                viewport={"width": width, "height": height}, color_scheme="dark" if self._dark else "light"
            )
            stack.callback(self._window.close)
            self._closing = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def open(self, notebook: str) -> "Tab":
        """Open a notebook of the folder and wait until its kernel is idle."""
        page = self._window.new_page()
        page.set_default_timeout(CELL_S * 1000)
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self._note(str(error)))
        page.on("response", lambda response: self.requests.append((response.status, response.url)))
        where = f"notebooks/{notebook}?" if self.ui == "notebook" else f"lab/tree/{notebook}?reset&"
        page.goto(f"{self.base}/{where}token={self._token}", timeout=START_S * 1000)
        tab = Tab(page)
        tab.cell(0).wait_for(timeout=START_S * 1000)
        page.wait_for_function(READY, timeout=START_S * 1000)
        tab.wait_idle(START_S)
        return tab

    def reopen_untrusted(self, notebook: str) -> "Tab":
        """Open a saved notebook as a stranger who got the file: no signature, and nothing of its kernel."""
        self.close_tabs()
        self.shutdown_kernels()
        path = self.root / notebook
        content = json.loads(path.read_text(encoding="utf-8"))
        self._reopened += 1
        content["metadata"]["received"] = self._reopened
        path.write_text(json.dumps(content), encoding="utf-8")
        if self.trusted(notebook):
            raise AssertionError(f"{notebook} is still trusted")
        return self.open(notebook)

    def trusted(self, notebook: str) -> bool:
        """Whether the server trusts what the saved cells show."""
        cells = self.rest(f"contents/{notebook}")["content"]["cells"]
        return all(cell["metadata"].get("trusted") for cell in cells if cell["cell_type"] == "code")

    def close_tabs(self) -> None:
        """Close every page without saving."""
        for page in self._window.pages:
            page.close()

    def kernels(self) -> list[str]:
        """Give the ids of the running kernels."""
        return [kernel["id"] for kernel in self.rest("kernels")]

    def shutdown_kernels(self) -> None:
        """End every session and kernel of this server."""
        for session in self.rest("sessions"):
            self.rest(f"sessions/{session['id']}", method="DELETE")
        for kernel in self.kernels():
            self.rest(f"kernels/{kernel}", method="DELETE")

    def rest(self, path: str, *, method: str = "GET", body: object = None) -> Any:
        """Call the server's REST interface, e.g. `rest("kernels")`."""
        request = urllib.request.Request(
            f"{self.base}/api/{path}",
            method=method,
            headers={"Authorization": f"token {self._token}"},
            data=None if body is None else json.dumps(body).encode(),
        )
        with urllib.request.urlopen(request, timeout=START_S) as reply:
            text = reply.read()
        return json.loads(text) if text else None

    def server_log(self) -> str:
        """Give what the server and its kernels wrote so far."""
        return Path(self._log.name).read_text(encoding="utf-8")

    def _start_server(self, scratch: Path) -> subprocess.Popen[bytes]:
        for plugin, values in self._settings.items():
            package, name = plugin.split(":")
            file = scratch / "settings" / package / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values))
        environment = {
            **os.environ,
            "JUPYTER_CONFIG_DIR": str(scratch / "config"),
            "JUPYTER_DATA_DIR": str(scratch / "data"),
            "JUPYTER_RUNTIME_DIR": str(scratch / "run"),
            "JUPYTERLAB_SETTINGS_DIR": str(scratch / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(scratch / "workspaces"),
            "IPYTHONDIR": str(scratch / "ipython"),
            "JUPYTER_TOKEN": self._token,
            **self._env,
        }
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "notebook" if self.ui == "notebook" else "jupyterlab",
                "--no-browser",
                "--allow-root",
                "--expose-app-in-browser",
                "--ServerApp.ip=127.0.0.1",
                f"--ServerApp.port={_free_port()}",
                f"--ServerApp.root_dir={self.root}",
                f"--KernelManager.shutdown_wait_time={EXIT_S}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in environment.items() if value is not None},
            start_new_session=True,
        )

    def _address(self, runtime: Path) -> str:
        """Wait until the server answers. It says itself which port it got: the free one may be taken."""
        end = time.monotonic() + START_S
        while time.monotonic() < end and self._server.poll() is None:
            for file in runtime.glob(f"jpserver-{self._server.pid}.json"):
                try:
                    self.base = f"http://127.0.0.1:{json.loads(file.read_text())['port']}"
                    self.rest("status")
                except (ValueError, KeyError, urllib.error.URLError, ConnectionError):
                    continue
                return self.base
            time.sleep(0.05)
        raise RuntimeError(f"The Jupyter server did not start:\n{self.server_log()[-4000:]}")

    def _stop_server(self) -> None:
        """End the server, then whatever it left behind: kernels sit in sessions of their own."""
        try:
            family = psutil.Process(self._server.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            family = []
        self._server.terminate()
        try:
            self._server.wait(15)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        _, left = psutil.wait_procs(family, timeout=3)
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=3)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._note(message.text)

    def _note(self, words: str) -> None:
        if not any(noise in words for noise in OWN_NOISE):
            self.errors.append(words)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
