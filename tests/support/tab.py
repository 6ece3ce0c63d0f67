"""One open notebook in the browser: run cells, read outputs, play videos, save.

Invariants: a cell is run the way a person runs it, by the keyboard; every wait is for a condition of
the page and has a limit, and a wait that fails says what the outputs show.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Error, Locator, Page

CELL_S = 120
# Without a pause a page is drawn for each look.
LOOK_MS = 50

READY = """async () => {
  await window.jupyterapp.restored;
  const panel = window.jupyterapp.shell.currentWidget;
  if (!panel?.context || !panel.sessionContext) return false;
  await panel.revealed;
  await panel.context.ready;
  await panel.sessionContext.ready;
  return true;
}"""

PLAY = """async () => {
  const until = (ready, limit) => new Promise((resolve) => {
    const end = performance.now() + limit;
    const look = () => ready() || performance.now() > end ? resolve() : setTimeout(look, 20);
    look();
  });
  const seen = [];
  for (const video of document.querySelectorAll('.jp-OutputArea video')) {
    video.muted = true;
    video.play().catch(() => {});
    await until(() => video.currentTime > 0 || video.error, 60000);
    const played = video.currentTime;
    video.pause();
    let sought = null;
    if (Number.isFinite(video.duration)) {
      const target = video.duration * 0.8;
      video.currentTime = target;
      await until(() => !video.seeking && Math.abs(video.currentTime - target) < 0.1, 60000);
      sought = video.currentTime;
    }
    seen.push({
      src: video.getAttribute('src'), controls: video.controls,
      still: video.parentElement.querySelector('img')?.getAttribute('src'),
      width: video.videoWidth, height: video.videoHeight, duration: video.duration,
      played, sought, error: video.error && video.error.message,
    });
  }
  return seen;
}"""


class Tab:
    """One open notebook. Cells are counted from 0; `page` is Playwright's, for what is not here."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def cell(self, index: int) -> Locator:
        """Find a cell."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index)

    def run_cell(self, index: int, *, wait: bool = True, timeout_s: float = CELL_S) -> None:
        """Run one cell from the keyboard."""
        cell = self.cell(index)
        before = self._prompt(cell)
        editor = cell.locator(".cm-content").first
        self._press_until_heard(cell, editor, before)
        self._wait(
            "([cell, before, wait]) => { const now = cell.querySelector('.jp-InputPrompt').innerText;"
            " return now !== before && !(wait && now.includes('*')); }",
            [cell.element_handle(), before, wait],
            timeout_s,
        )

    def _press_until_heard(self, cell: Locator, editor: Locator, before: str) -> None:
        # A page that has just opened may not know the keys yet. One that has heard them changes the prompt
        # at once, so no cell is run twice.
        for _ in range(4):
            editor.click()
            editor.press("Control+Enter")
            with contextlib.suppress(Error):
                moved = "([cell, before]) => cell.querySelector('.jp-InputPrompt').innerText !== before"
                self.page.wait_for_function(
                    moved, arg=[cell.element_handle(), before], timeout=30_000, polling=LOOK_MS
                )
                return

    def running(self, index: int) -> bool:
        """Whether a cell runs, or waits for its turn."""
        return "*" in self._prompt(self.cell(index))

    def during(self, index: int, other: int, enough: Callable[[list[str]], bool]) -> list[str]:
        """Give the texts that a cell's outputs show one after the other while another cell runs."""
        seen: list[str] = []
        end = time.monotonic() + 2 * CELL_S
        while not enough(seen):
            assert time.monotonic() < end, seen
            text = "\n".join(self.outputs(index))
            # Only what is seen while the other cell is still at it counts.
            assert self.running(other), seen
            if seen[-1:] != [text]:
                seen.append(text)
            self.page.wait_for_timeout(50)
        return seen

    def reload(self) -> None:
        """Load the page anew, as from the browser's button, and wait until the kernel is back."""
        self.page.reload(timeout=2 * CELL_S * 1000)
        self.cell(0).wait_for(timeout=2 * CELL_S * 1000)
        self.wait_ready(2 * CELL_S)

    def run_all(self, *, wait: bool = True, timeout_s: float = 2 * CELL_S) -> None:
        """Run every cell from the top."""
        self._command("notebook:run-all-cells", timeout_s if wait else None)

    def interrupt(self, index: int) -> None:
        """Interrupt the cell that runs, as the stop button does.

        Waits until its end is told: the kernel drops what is asked of it before, and looks idle meanwhile.
        """
        self._command("notebook:interrupt-kernel", CELL_S)
        self.wait_text(index, "KeyboardInterrupt")
        condition = "(cell) => !cell.querySelector('.jp-InputPrompt').innerText.includes('*')"
        self._wait(condition, self.cell(index).element_handle(), CELL_S)
        self.wait_idle()

    def save(self) -> None:
        """Save, and wait until it is on disk."""
        self._command("docmanager:save", CELL_S)

    def outputs(self, index: int) -> list[str]:
        """Give the visible text of each output of a cell."""
        return [text.strip() for text in self.cell(index).locator(".jp-OutputArea-output").all_inner_texts()]

    def wait_text(self, index: int, text: str, *, timeout_s: float = CELL_S) -> None:
        """Wait until a cell's output shows this text."""
        area = self.cell(index).locator(".jp-OutputArea-output", has_text=text).first
        area.wait_for(timeout=timeout_s * 1000)

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until the notebook and its kernel are there."""
        self.page.wait_for_function(READY, timeout=timeout_s * 1000, polling=LOOK_MS)

    def wait_idle(self, timeout_s: float = CELL_S) -> None:
        """Wait until the kernel is idle."""
        self._wait(
            "() => document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'",
            None,
            timeout_s,
        )

    def click(self, text: str, *, timeout_s: float = CELL_S) -> None:
        """Click the first button in an output that carries this text."""
        button = self.page.locator(".jp-OutputArea button", has_text=text).first
        button.click(timeout=timeout_s * 1000)

    def videos(self) -> list[dict[str, Any]]:
        """Play every video in the outputs, muted, then seek to 80 % of it, and say what came of it."""
        seen: list[dict[str, Any]] = self.page.evaluate(PLAY)
        return seen

    def screenshot(self, path: Path) -> None:
        """Write what the window shows as PNG."""
        self.page.screenshot(path=path)

    def close(self) -> None:
        """Close the page without saving."""
        self.page.close()

    def _prompt(self, cell: Locator) -> str:
        return cell.locator(".jp-InputPrompt").first.inner_text()

    def _wait(self, condition: str, argument: object, timeout_s: float) -> None:
        try:
            self.page.wait_for_function(condition, arg=argument, timeout=timeout_s * 1000, polling=LOOK_MS)
        except Error as error:
            shown = self.page.locator(".jp-OutputArea").all_inner_texts()
            prompts = self.page.locator(".jp-InputPrompt").all_inner_texts()
            said = f"{error.message}\nThe prompts show: {prompts}\nThe outputs show: {shown}"
            raise AssertionError(said) from None

    def _command(self, name: str, timeout_s: float | None) -> None:
        """Run a command of the application; a promise kept in the page tells when it is over."""
        self.page.evaluate(
            "(name) => { const mark = window.labDriver = {}; window.jupyterapp.commands.execute(name)"
            ".then(() => { mark.over = true; }, (error) => { mark.over = mark.error = String(error); }); }",
            name,
        )
        if timeout_s is not None:
            self._wait("() => window.labDriver.over", None, timeout_s)
            error = self.page.evaluate("() => window.labDriver.error")
            if error:
                raise AssertionError(f"{name}: {error}")
