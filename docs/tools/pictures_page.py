"""Take the picture of a page of a notebook, as it looks with nothing beside it and no network.

`make pictures` runs this too. Everything shown is a run in the sandbox: no key, no money.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "tests"))

from kling_nb.exports.page import write_page  # noqa: E402 - the same
from support.chromium import CURE, find_chromium  # noqa: E402 - the driver lives with the tests
from support.lab import browser_of  # noqa: E402 - the same

TEXT = "# Foxes and boats\n\nTwo prompts, as they came out of the sandbox."
CELLS = (
    "%load_ext kling_nb",
    "%%kling fox -d 3\nA red fox crosses fresh snow at dawn, slow dolly-in",
    "%%kling boats -n 2 -d 3 --ar 1:1\nA paper boat drifts down a flooded street",
)


def main() -> None:
    """Run a notebook, make its page, and take its picture."""
    chromium = find_chromium()
    if chromium is None:
        raise SystemExit(CURE)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ |= {
            "KLING_NB_LEDGER": str(folder / "ledger.db"),
            "KLING_NB_PROVIDER": "sandbox",
            "KLING_NB_SANDBOX_WAIT": "0",
        }
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
        place = {"metadata": {"path": str(folder)}}
        NotebookClient(made, timeout=300, kernel_name="python3", resources=place).execute()
        made.cells.insert(0, nbformat.v4.new_markdown_cell(TEXT))
        nbformat.write(made, folder / "foxes.ipynb")
        page = write_page(folder / "foxes.ipynb", embed=True)
        with browser_of(chromium) as browser:
            window = browser.new_context(viewport={"width": 1000, "height": 700})
            window.set_offline(True)
            tab = window.new_page()
            tab.goto(page.path.as_uri())
            tab.wait_for_function("() => [...document.images].every((image) => image.complete)")
            # For a moment a player draws a ring over its still.
            tab.wait_for_timeout(3000)
            tab.screenshot(path=str(HERE.parent / "images" / "page.png"), full_page=True)
            sys.stdout.write(f"{HERE.parent / 'images' / 'page.png'}\n")


if __name__ == "__main__":
    main()
