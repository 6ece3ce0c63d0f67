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

from support.chromium import CURE, find_chromium  # noqa: E402 - the driver lives with the tests
from support.lab import Lab, browser_of, write_notebook  # noqa: E402 - the same

MADE = """from datetime import timedelta
from IPython.display import HTML, display
from kling_nb.views.card_parts import CardState
from kling_nb.views.card import card
from kling_nb.views.grid import grid
from kling_nb.records.request import Shot, TextToVideo
from support.cards import DONE, NOW, TOTALS, T, record

board = TextToVideo(shots=[Shot(prompt="Wide view of a vineyard", duration=5),
                           Shot(prompt="Two hands meet", duration=3)], duration=8)
held = {"reserved_micros": 560_000, "submitted_at": T}
def show(**fields):
    more = {key: fields.pop(key) for key in ("reused", "detached", "typical_s") if key in fields}
    display(HTML(card(CardState(record=record(**fields), name="fox", **more), totals=TOTALS, now=NOW)))"""
STATES = {
    "starting": 'show(status="created", reserved_micros=560_000)',
    "sending": 'show(status="submitting", **held)',
    "queued": 'show(status="queued", queue_position=3, **held)',
    "running": 'show(status="running", typical_s=(90, 200), **held)',
    "late": 'show(status="running", typical_s=(30, 80), **held)',
    "saving": 'show(status="saving", **held)',
    "done-file-away": "show(**DONE)",
    "reused": "show(**DONE, reused=True)",
    "storyboard": 'show(status="running", request=board, **held)',
    "long-prompt": 'show(status="failed", request=TextToVideo(prompt="A red fox in snow. " * 60))',
    "moderated": 'show(status="failed", reason="moderated", message="content policy", charged="no")',
    "failed-unknown": 'show(status="failed", reason="provider", charged="unknown", reserved_micros=560_000)',
    "failed-charged": 'show(status="failed", reason="provider", charged="yes", settled_micros=560_000)',
    "canceled": 'show(status="canceled", charged="no", settled_micros=0)',
    "lost": 'show(status="lost", charged="unknown", provider="runcomfy", **held)',
    "detached": 'show(status="running", detached=True, **held)',
    "above-the-list": 'show(**{**DONE, "reported_micros": 700_000, "settled_micros": 700_000})',
    "play": 'show(status="running", play=True, **held)',
    "several": """display(HTML(grid([CardState(record=record(**DONE), name="fox[0]"),
    CardState(record=record(id="kfox02", status="running", take=1, **held), name="fox[1]"),
    CardState(record=record(id="kfox03", status="failed", reason="moderated", take=2), name="fox[2]")],
    totals=TOTALS, now=NOW)))""",
}


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
        Lab(folder, browser, env=env, dark=dark, viewport=(width, 1400)) as lab,
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
