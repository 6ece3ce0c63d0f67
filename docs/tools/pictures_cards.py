"""Take the pictures of every state of a card from a real JupyterLab in a real browser.

`make states` runs this too. The runs are made up, and no clip is played; the cards are drawn by the functions
that draw every card. Run it with `--all FOLDER`.
"""

import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
TESTS = HERE.parent.parent / "tests"
sys.path.insert(0, str(TESTS))

from support.card_states import MADE, STATES  # noqa: E402 - the states live with the tests
from support.chromium import CURE, find_chromium  # noqa: E402 - the driver lives with the tests
from support.lab import Lab, browser_of, write_notebook  # noqa: E402 - the same


def take(folder: Path, pictures: Path, *, dark: bool, width: int) -> None:
    """Draw every state and take a picture of each."""
    chromium = find_chromium()
    if chromium is None:
        raise SystemExit(CURE)
    write_notebook(folder / "states.ipynb", MADE, *STATES.values())
    env = {
        "KLING_NB_LEDGER": str(folder / "ledger.db"),
        "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
    }
    look = ("-narrow" if width < 900 else "") + ("-dark" if dark else "")
    with (
        browser_of(chromium) as browser,
        Lab(folder, browser, env=env, dark=dark, alone=True, viewport=(width, 1400)) as lab,
    ):
        tab = lab.open("states.ipynb")
        tab.page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
        tab.run_all()
        for number, name in enumerate(STATES, start=1):
            area = tab.cell(number).locator(".jp-OutputArea-output").first
            area.scroll_into_view_if_needed()
            area.screenshot(path=str(pictures / f"card-{name}{look}.png"))
        sys.stdout.write(f"{pictures}: {len(STATES)} cards{look}\n")


def main() -> None:
    """Take every picture: light and dark, wide and narrow."""
    pictures = Path(sys.argv[-1]) if "--all" in sys.argv else HERE.parent / "images" / "states"
    pictures.mkdir(exist_ok=True, parents=True)
    for dark in (False, True):
        for width in (1280, 560):
            with tempfile.TemporaryDirectory() as folder:
                take(Path(folder), pictures, dark=dark, width=width)


if __name__ == "__main__":
    main()
