"""Take the pictures of the comparison and the player from a real JupyterLab in a real browser.

`make pictures` runs this too. Everything shown is a run in the sandbox: no key, no money. `--all FOLDER`
takes the looks that the documentation has no room for as well, for people who change them.
"""

import sys
from pathlib import Path

from PIL import Image
from studio import Tab, every_look, studio

CELLS = (
    "%load_ext kling_nb",
    "%%kling -n 2 fox -d 5 --audio\nA red fox crosses fresh snow at dawn, slow dolly-in, soft rim light",
    "%%kling boat -d 3 --ar 9:16\nA paper boat drifts down a flooded street",
    """%%kling trailer
[5s] Wide establishing shot of a vineyard at golden hour
[3s] Close-up: two hands meet across a table
[4s] The camera rises over the hills, credits roll""",
    "import kling_nb as kling\nkling.compare(fox[:2])",
    "%kling compare fox boat trailer",
    "%kling show trailer --player",
)
READY = "(cell) => cell.querySelectorAll('.kling-play').length === 1"


class Camera:
    """Takes pictures of the live view of a cell.

    Args:
        tab: The notebook.
        folder: Where they go.
        look: What is added to each name.
    """

    def __init__(self, tab: Tab, folder: Path, look: str) -> None:
        self.tab, self.folder, self.look = tab, folder, look

    def ready(self, cell: int) -> None:
        """Run a cell and wait until its view can play."""
        self.tab.run_cell(cell)
        handle = self.tab.cell(cell).element_handle()
        self.tab.page.wait_for_function(READY, arg=handle)

    def choose(self, cell: int, label: str, value: str) -> None:
        """Choose in a drop-down of the view."""
        self.tab.cell(cell).get_by_label(label).select_option(value)

    def shoot(self, cell: int, name: str, part: str = ".kling-live") -> None:
        """Take the picture of a part of a cell."""
        self.tab.page.mouse.move(0, 0)
        area = self.tab.cell(cell).locator(part).first
        area.scroll_into_view_if_needed()
        path = self.folder / f"{name}{self.look}.png"
        area.screenshot(path=str(path))
        # Gradients make large files; a palette is enough to see what is where.
        Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)
        sys.stdout.write(f"{path}\n")

    def sheet(self, cell: int, name: str) -> None:
        """Close the view and take the picture of the contact sheet that it covered."""
        self.tab.cell(cell).get_by_role("button", name="Close the comparison").click()
        self.shoot(cell, name, ".jp-OutputArea-output")


def take(folder: Path, pictures: Path, *, dark: bool, width: int, every: bool) -> None:
    """Run the cells and take a picture of each view."""
    with studio(folder, CELLS, dark=dark, width=width, height=2200) as (tab, look):
        camera = Camera(tab, pictures, look)
        for cell in range(4):
            tab.run_cell(cell)
        for cell in (2, 3):
            tab.wait_text(cell, "Done")
        tab.wait_text(1, "2 done")
        camera.ready(4)
        view = tab.cell(4).locator(".kling-live")
        view.press("End")
        view.press("Home")
        for _ in range(60):
            view.press("ArrowRight")
        camera.shoot(4, "compare")
        camera.choose(4, "Look", "wipe")
        camera.shoot(4, "wipe")
        if every:
            camera.choose(4, "Look", "overlay")
            camera.shoot(4, "overlay")
            view.get_by_label("Difference").check()
            camera.shoot(4, "difference")
            next(folder.glob("kling_media/a-paper-boat*.mp4")).rename(folder / "away.mp4")
            camera.ready(5)
            camera.shoot(5, "missing")
            camera.sheet(5, "missing-sheet")
            camera.sheet(4, "sheet")
        camera.ready(6)
        player = tab.cell(6).locator(".kling-live")
        player.press(".")
        for _ in range(30):
            player.press("ArrowRight")
        camera.shoot(6, "player")


if __name__ == "__main__":
    every_look(take, every="--all" in sys.argv)
