"""Take the pictures of the form from a real JupyterLab in a real browser.

`make pictures` runs this too. Everything shown is a run in the sandbox: no key, no money. `--all FOLDER`
takes every state, light and dark, wide and narrow, for people who change the form.
"""

import re
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "tests"))

from support.chromium import CURE, find_chromium  # noqa: E402 - the driver lives with the tests
from support.lab import Lab, browser_of, write_notebook  # noqa: E402 - the same
from support.tab import Tab  # noqa: E402 - the same

CELLS = ("%load_ext kling_nb\nimport kling_nb as kling", "form = kling.form()\nform", "form.update(takes=40)")
CELLS += ("form.update(takes=1, duration=99)", "form.update(duration=5)")
FOX = "A red fox crosses fresh snow at dawn, slow dolly-in, soft rim light"
SHOTS = ("Wide establishing shot of a vineyard at golden hour", "Close-up: two hands meet across a table")
WIDE, NARROW = (1280, 2400), (760, 3200)
KEPT = ("form", "form-storyboard", "form-narrow")


class Camera:
    """Takes pictures of the form.

    Args:
        tab: The notebook.
        folder: Where they go.
        look: What is added to each name.
        names: Which are taken; all where there are none.
    """

    def __init__(self, tab: Tab, folder: Path, look: str, names: tuple[str, ...]) -> None:
        self.tab = tab
        self.box = tab.page.locator(".kling-form")
        self._folder, self._look, self._names = folder, look, names
        self.every = not names

    def shoot(self, name: str, *, whole: bool = False) -> None:
        """Take one, of the form or of its whole cell."""
        if self._names and name not in self._names:
            return
        # What was typed last is judged within a tenth of a second, the line above the form after that.
        self.tab.page.wait_for_timeout(700)
        area = self.tab.cell(1) if whole else self.box
        area.screenshot(path=str(self._folder / f"{name}{self._look}.png"))
        sys.stdout.write(f"{self._folder.name}/{name}{self._look}.png\n")

    def until(self, words: str) -> None:
        """Wait until the button has this verb and price."""
        verb, _, price = words.partition(" - ")
        self.box.locator(f'.kling-go[title="{price}"]', has_text=verb).wait_for()

    def turn(self, name: str) -> None:
        """Open or close a pane."""
        self.box.locator("button", has_text=re.compile(name)).click()


def take(camera: Camera, *, narrow: bool) -> None:
    """Go through the states."""
    tab, box = camera.tab, camera.box
    camera.until("Generate - $0.56")
    camera.shoot("form-empty")
    box.get_by_label("Prompt", exact=True).fill(FOX)
    box.locator(".kling-go:enabled").wait_for()
    camera.shoot("form-narrow" if narrow and not camera.every else "form")
    camera.turn("More")
    box.get_by_text("What each can do").click()
    camera.turn("Payload")
    camera.turn("Copy as cell")
    camera.shoot("form-open")
    for name in ("Payload", "Copy as cell"):
        camera.turn(name)
    box.get_by_text("What each can do").click()
    camera.turn("More")
    tab.run_cell(2)
    camera.until("Generate 40 - $22.40")
    camera.shoot("form-budget")
    tab.run_cell(3)
    camera.until("Generate")
    camera.shoot("form-wrong")
    tab.run_cell(4)
    camera.until("Generate - $0.56")
    box.get_by_label("Prompt", exact=True).fill(" ".join([FOX] * 12))
    camera.until("Generate - $0.56")
    camera.shoot("form-long")
    box.get_by_label("Prompt", exact=True).fill(FOX)
    box.get_by_label("Storyboard").check()
    for number, words in enumerate(SHOTS, 1):
        if number > 1:
            camera.turn("Add a shot")
        box.get_by_label(f"Shot {number}", exact=True).fill(words)
    box.get_by_label("Seconds 2", exact=True).fill("3")
    camera.until("Generate - $0.896")
    camera.shoot("form-storyboard")
    box.get_by_label("One prompt").check()
    camera.until("Generate - $0.56")
    box.locator(".kling-go:enabled").click()
    camera.until("Running…")
    camera.shoot("form-sent", whole=True)
    camera.until("Another take - $0.56")
    tab.wait_text(1, "Done")
    tab.videos()
    camera.shoot("form-done", whole=True)


def main() -> None:
    """Take the pictures of the documentation, or every state into a folder."""
    every = sys.argv[1:2] == ["--all"]
    folder = Path(sys.argv[2]) if every else HERE.parent / "images"
    folder.mkdir(parents=True, exist_ok=True)
    chromium = find_chromium()
    if chromium is None:
        raise SystemExit(CURE)
    for dark in (False, True):
        for size in (WIDE, NARROW):
            narrow = size is NARROW
            look = ("-narrow" if narrow and every else "") + ("-dark" if dark else "")
            names = () if every else KEPT[2:] if narrow else KEPT[:2]
            with tempfile.TemporaryDirectory() as name:
                work = Path(name)
                write_notebook(work / "form.ipynb", *CELLS)
                env = {
                    "KLING_NB_LEDGER": str(work / "ledger.db"),
                    "KLING_NB_PROVIDER": "sandbox",
                    "KLING_NB_PROJECT": "foxes",
                    "JUPYTERHUB_USER": "ada",
                }
                with (
                    browser_of(chromium) as browser,
                    Lab(work, browser, env=env, dark=dark, alone=True, viewport=size) as lab,
                ):
                    tab = lab.open("form.ipynb")
                    tab.run_cell(0)
                    tab.run_cell(1)
                    take(Camera(tab, folder, look, names), narrow=narrow)


if __name__ == "__main__":
    main()
