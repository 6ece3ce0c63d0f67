"""A real JupyterLab in a real browser at the sandbox, and the looks in which a picture is taken of it."""

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "tests"))

from support.chromium import CURE, find_chromium  # noqa: E402 - the driver lives with the tests
from support.lab import Lab, browser_of, write_notebook  # noqa: E402 - the same
from support.tab import Tab  # noqa: E402 - the same

__all__ = ["Tab", "every_look", "studio"]


@contextmanager
def studio(
    folder: Path, cells: Sequence[str], *, dark: bool, width: int, height: int
) -> Iterator[tuple[Tab, str]]:
    """Open a notebook at the sandbox, with a ledger and a budget of its own.

    Args:
        folder: Where the notebook and its clips go.
        cells: Its cells; none of them is run.
        dark: Whether in JupyterLab's dark theme.
        width: Of the window, in pixels; below 900 it counts as narrow.
        height: Of the window, in pixels.

    Yields:
        The notebook, and what this look adds to the name of a picture.
    """
    chromium = find_chromium()
    if chromium is None:
        raise SystemExit(CURE)
    write_notebook(folder / "pictures.ipynb", *cells)
    env = {
        "KLING_NB_LEDGER": str(folder / "ledger.db"),
        "KLING_NB_PROVIDER": "sandbox",
        "KLING_NB_SANDBOX_WAIT": "0",
        "KLING_NB_BUDGET": "50",
    }
    with (
        browser_of(chromium) as browser,
        Lab(folder, browser, env=env, dark=dark, alone=True, viewport=(width, height)) as lab,
    ):
        tab = lab.open("pictures.ipynb")
        tab.page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
        yield tab, ("-dark" if dark else "") + ("-narrow" if width < 900 else "")


def every_look(take: Callable[..., None], **options: bool) -> None:
    """Take pictures light and dark; with `--all FOLDER` narrow as well, into that folder.

    Args:
        take: Is given a folder to work in, a folder for the pictures, `dark` and `width`.
        **options: Given on to it.
    """
    every = "--all" in sys.argv
    pictures = Path(sys.argv[-1]) if every else HERE.parent / "images"
    pictures.mkdir(exist_ok=True)
    for dark in (False, True):
        for width in (1280, 620) if every else (1280,):
            with tempfile.TemporaryDirectory() as folder:
                take(Path(folder), pictures, dark=dark, width=width, **options)
