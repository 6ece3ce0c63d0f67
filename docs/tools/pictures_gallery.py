"""Take the pictures of the gallery and the ballot from a real JupyterLab in a real browser.

`make pictures` runs this too. Everything shown is a run in the sandbox: no key, no money. `--all FOLDER`
takes the narrow looks as well, for people who change them.
"""

import sys
from pathlib import Path

from studio import Tab, every_look, studio

MAKE = """import kling_nb as kling
prompts = ["A red fox crosses fresh snow at dawn", "A paper boat drifts down a flooded street",
           "A lighthouse turns above a black sea", "Two hands meet across a table"]
runs = [kling.submit(prompt, duration=3, model=model, tags={"scene": str(number)})
        for number, prompt in enumerate(prompts) for model in ("pro", "std")]
done = [run.wait() for run in runs]"""
CELLS = (
    "%load_ext kling_nb",
    MAKE,
    "gallery = kling.gallery(runs)\ngallery",
    'ratings = kling.rate(runs, axes=["motion"], rater="ada")\nratings',
    "ratings.table()",
)
PLAYS = """() => {
  const videos = [...document.querySelectorAll('.kling-rate video')];
  return videos.filter((video) => video.currentTime > 0.4).length === 2;
}"""


def shoot(tab: Tab, cell: int, part: str, path: Path) -> None:
    """Take the picture of a part of a cell."""
    area = tab.cell(cell).locator(part).first
    area.scroll_into_view_if_needed()
    area.screenshot(path=str(path))
    sys.stdout.write(f"{path}\n")


def take(folder: Path, pictures: Path, *, dark: bool, width: int) -> None:
    """Run the cells and take a picture of each view."""
    with studio(folder, CELLS, dark=dark, width=width, height=1600) as (tab, look):
        page = tab.page
        for cell in range(3):
            tab.run_cell(cell)
        page.locator(".kling-tile img").nth(7).wait_for()
        page.locator(".kling-tile").nth(1).click()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        page.keyboard.press(" ")
        shoot(tab, 2, ".kling-live", pictures / f"gallery{look}.png")
        page.locator(".kling-gallery").get_by_role("button", name="Close").click()
        shoot(tab, 2, ".jp-OutputArea-output", pictures / f"contact-sheet{look}.png")
        tab.run_cell(3)
        page.wait_for_function(PLAYS)
        page.locator(".kling-rate").focus()
        page.keyboard.press(" ")
        shoot(tab, 3, ".kling-live", pictures / f"rate{look}.png")
        for number, key in enumerate("1213", start=1):
            page.locator(".kling-rate[aria-busy=false]").wait_for()
            page.keyboard.press(key)
            voted = "All 4 pairs are rated" if number == 4 else f"{number} of 4 pairs rated"
            page.locator(".kling-rate .kling-status", has_text=voted).wait_for()
        tab.run_cell(4)
        shoot(tab, 4, ".jp-Cell-outputWrapper", pictures / f"scores{look}.png")


if __name__ == "__main__":
    every_look(take)
