"""Take the pictures of the documentation from a real JupyterLab in a real browser, so that they stay true.

Run `make pictures`. Everything shown is a run in the sandbox: no key, no money.
"""

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "tests"))

from support.chromium import CURE, find_chromium  # noqa: E402 - the driver lives with the tests
from support.lab import Lab, browser_of, write_notebook  # noqa: E402 - the same
from support.tab import Tab  # noqa: E402 - the same

CELLS = (
    "%load_ext kling_nb",
    "%%kling fox -d 5 --ar 16:9\nA red fox crosses fresh snow at dawn, slow dolly-in, soft rim light",
    """%%kling trailer --no-wait
[5s] Wide establishing shot of a vineyard at golden hour
[3s] Close-up: two hands meet across a table""",
    "%%kling -n 4 --max-cost 1.00\nA paper boat drifts down a flooded street",
    "%%kling night -d 5 --dry-run\nA lighthouse turns above a black sea",
    "%kling cost",
    "%kling list",
    "%kling help",
)


def shoot(tab: Tab, cell: int, name: str) -> None:
    """Take the picture of one cell with its outputs."""
    tab.page.mouse.move(0, 0)
    area = tab.cell(cell)
    area.scroll_into_view_if_needed()
    area.screenshot(path=str(HERE.parent / "images" / name))
    sys.stdout.write(f"docs/images/{name}\n")


def take(folder: Path, *, dark: bool) -> None:
    """Run the cells and take a picture of each."""
    chromium = find_chromium()
    if chromium is None:
        raise SystemExit(CURE)
    look = "-dark" if dark else ""
    write_notebook(folder / "pictures.ipynb", *CELLS)
    env = {"KLING_NB_LEDGER": str(folder / "ledger.db"), "KLING_NB_PROVIDER": "sandbox"}
    with (
        browser_of(chromium) as browser,
        Lab(folder, browser, env=env, dark=dark, viewport=(1280, 2700), alone=True) as lab,
    ):
        tab = lab.open("pictures.ipynb")
        tab.run_cell(0)
        tab.run_cell(2)
        tab.wait_text(2, "Running")
        shoot(tab, 2, f"running{look}.png")
        tab.run_cell(1)
        tab.wait_text(1, "Done")
        tab.wait_text(2, "Done")
        tab.videos()
        shoot(tab, 1, f"cell{look}.png")
        tab.page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
        for cell, name in ((3, "refused"), (4, "dry-run"), (5, "cost"), (6, "list"), (7, "help")):
            tab.run_cell(cell)
            shoot(tab, cell, f"{name}{look}.png")


def main() -> None:
    """Take every picture, light and dark."""
    (HERE.parent / "images").mkdir(exist_ok=True)
    for dark in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            take(Path(folder), dark=dark)


if __name__ == "__main__":
    main()
