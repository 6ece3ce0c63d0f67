"""Drive a real JupyterLab or Notebook 7 in headless Chromium, as a person would.

Invariants: the browser can reach nothing but 127.0.0.1; kernels and pages of one `Lab` are gone with it,
also after a failure; every wait is for a condition and has a limit. A server and a loaded interface cost
more than most of what is done with them: unless it is to be alone, one `Lab` after the other has the same
server, and the page where the interface was loaded before, which loads it anew.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote
from uuid import uuid4

import nbformat
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    Response,
    expect,
    sync_playwright,
)

from support.jupyter import START_S, Server
from support.tab import CELL_S, Tab

__all__ = ["Lab", "browser_of", "expect", "open_windows", "write_notebook"]

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
    # In place of Playwright's list, of which these are the ones that matter here. The last two are pages
    # of its own that Chromium makes with each window, for an address that nobody types.
    (
        "--disable-features=DestroyProfileOnBrowserClose,HttpsUpgrades,HttpsFirstBalancedModeAutoEnable,"
        "MediaRouter,OptimizationHints,PaintHolding,ThirdPartyStoragePartitioning,"
        "WebUIOmniboxPopup,WebUIOmniboxAimPopup"
    ),
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
            for shared in [key for key in _SHARED if key[0] is browser]:
                _SHARED.pop(shared).end()
            browser.close()


class _Place:
    """A server and a window on it."""

    def __init__(
        self, browser: Browser, root: Path, ui: str, env: Mapping[str, str | None] | None = None
    ) -> None:
        self.server = Server(root, ui, env)
        self.window: BrowserContext = browser.new_context()
        # The page that loaded the interface once loads it anew for half of the work.
        self.page: Page = self.window.new_page()

    def end(self) -> None:
        self.window.close()
        self.server.stop()


# A server that shows both interfaces takes the fonts of one for the other's, and refuses them.
_SHARED: dict[tuple[Browser, str], _Place] = {}


def open_windows(browser: Browser) -> list[BrowserContext]:
    """Give every window but those that the next `Lab` is to have."""
    kept = [place.window for place in _SHARED.values()]
    return [window for window in browser.contexts if window not in kept]


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
    """The notebooks of one folder in a window of the browser.

    Args:
        root: The folder.
        browser: From `browser_of`.
        ui: JupyterLab or Notebook 7.
        env: Variables for the kernels; None takes one away.
        viewport: Width and height in pixels.
        dark: Whether to use the dark theme.
        settings: JupyterLab settings by plugin, e.g. `{"@jupyterlab/x-extension:y": {...}}`.
        alone: Whether to have a server of its own, over this folder only and with the variables too.

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
        alone: bool = False,
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
        self._alone = alone
        self._pages: list[Page] = []

    def __enter__(self) -> Self:
        shared = (self._browser, self.ui)
        if self._alone:
            self._place = _Place(self._browser, self.root, self.ui, self._env)
        elif shared in _SHARED:
            self._place = _SHARED[shared]
        else:
            # The folders of tests lie anywhere.
            self._place = _SHARED[shared] = _Place(self._browser, Path("/"), self.ui)
        self.server = self._place.server
        self.base = self.server.base
        self.server.prepare(self._settings, self._env)
        return self

    def __exit__(self, *_: object) -> None:
        if self._alone:
            self._place.end()
            return
        self.close_tabs()
        self._place.window.clear_permissions()
        self.shutdown_kernels()

    def open(self, notebook: str) -> "Tab":
        """Open a notebook of the folder and wait until its kernel is idle."""
        page = self._new_page()
        page.set_default_timeout(CELL_S * 1000)
        width, height = self._viewport
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme="dark" if self._dark else "light", reduced_motion="null")
        for event, listener in self._listeners():
            page.on(event, listener)
        name = self._name(notebook)
        where = f"notebooks/{name}?" if self.ui == "notebook" else f"lab/tree/{name}?reset&"
        page.goto(f"{self.base}/{where}token={self.server.token}", timeout=START_S * 1000)
        tab = Tab(page)
        tab.cell(0).wait_for(timeout=START_S * 1000)
        tab.wait_ready(START_S)
        tab.wait_idle(START_S)
        return tab

    def reopen_untrusted(self, notebook: str) -> "Tab":
        """Open a saved notebook as a stranger who got the file: no signature, and nothing of its kernel."""
        self.close_tabs()
        self.shutdown_kernels()
        path = self.root / notebook
        content = json.loads(path.read_text(encoding="utf-8"))
        content["metadata"]["received"] = uuid4().hex
        path.write_text(json.dumps(content), encoding="utf-8")
        if self.trusted(notebook):
            raise AssertionError(f"{notebook} is still trusted")
        return self.open(notebook)

    def trusted(self, notebook: str) -> bool:
        """Whether the server trusts what the saved cells show."""
        cells = self.rest(f"contents/{self._name(notebook)}")["content"]["cells"]
        return all(cell["metadata"].get("trusted") for cell in cells if cell["cell_type"] == "code")

    def close_tabs(self) -> None:
        """Close every page without saving."""
        for page in self._pages:
            if page.is_closed():
                continue
            if page is not self._place.page:
                page.close()
                continue
            for event, listener in self._listeners():
                page.remove_listener(event, listener)
            try:
                page.goto("about:blank")
            except Error:
                # JupyterLab asked whether to leave what is not saved.
                page.close()
        self._pages.clear()

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
        return self.server.rest(path, method=method, body=body)

    def _name(self, notebook: str) -> str:
        return quote(str((self.root / notebook).relative_to(self.server.root)))

    def _new_page(self) -> Page:
        if self._place.page.is_closed():
            self._place.page = self._place.window.new_page()
        first = self._place.page not in self._pages
        self._pages.append(self._place.page if first else self._place.window.new_page())
        return self._pages[-1]

    def _listeners(self) -> list[tuple[Any, Callable[..., None]]]:
        return [("console", self._hear), ("pageerror", self._fail), ("response", self._answered)]

    def _answered(self, response: Response) -> None:
        self.requests.append((response.status, response.url))

    def _fail(self, error: object) -> None:
        self._note(str(error))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._note(message.text)

    def _note(self, words: str) -> None:
        if not any(noise in words for noise in OWN_NOISE):
            self.errors.append(words)
