"""The contact sheet in a real JupyterLab: a hundred clips that play, are picked and read true later."""

import re

import nbformat
import pytest

from support.gallery import environment, serious, theme
from support.lab import expect, write_notebook
from support.runs import fill
from support.workbench import until

CELLS = (
    "%load_ext kling_nb\nimport kling_nb as kling",
    "sheet = kling.gallery(kling.runs())\nsheet",
    "print([run.id for run in sheet.selected])",
)

WIDGET = "application/vnd.jupyter.widget-view+json"

#: Counts in the page what cannot be seen in it: addresses made for clips and given back, and long tasks.
COUNT = """() => {
  const made = new Set();
  window.counted = { made: 0, open: made, long: [] };
  const { createObjectURL, revokeObjectURL } = URL;
  URL.createObjectURL = (blob) => {
    const url = createObjectURL.call(URL, blob);
    if (blob.type.startsWith("video/")) { made.add(url); window.counted.made += 1; }
    return url;
  };
  URL.revokeObjectURL = (url) => { made.delete(url); revokeObjectURL.call(URL, url); };
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) window.counted.long.push(Math.round(entry.duration));
  }).observe({ entryTypes: ["longtask"] });
}"""

COUNTED = "() => ({ made: counted.made, open: counted.open.size, long: counted.long })"


@pytest.mark.browser
@pytest.mark.matrix
def test_a_hundred_clips_do_not_freeze_a_page(tmp_path, lab, record_property):  # noqa: PLR0915 - one page for all
    """Stills come when seen, a clip plays under pointer and focus, what is picked is read in Python."""
    fill(tmp_path, 50, seconds=0.5)
    write_notebook(tmp_path / "a.ipynb", *CELLS)
    shop = lab(tmp_path, env=environment(tmp_path))
    tab = shop.open("a.ipynb")
    page = tab.page
    page.evaluate(COUNT)
    tab.run_cell(0)
    tab.run_cell(1)
    tiles, stills = page.locator(".kling-tile"), page.locator(".kling-tile img")
    sheet, videos = page.locator(".kling-gallery"), page.locator(".kling-gallery video")
    status = page.locator(".kling-gallery .kling-status")
    tiles.first.wait_for()
    stills.first.wait_for()
    page.mouse.move(0, 0)

    # Nothing is there that nobody looks at.
    assert tiles.count() == 100
    assert stills.count() < 60
    assert videos.count() == 0
    assert page.evaluate(COUNTED)["made"] == 0
    assert "100 of 100 runs shown, 0 selected" in status.inner_text()

    # The end of the sheet gets its stills when it is seen.
    before = stills.count()
    page.locator(".kling-tiles").evaluate("list => list.scrollTo(0, list.scrollHeight)")
    page.wait_for_function("n => document.querySelectorAll('.kling-tile img').length > n", arg=before)
    assert stills.count() < 90
    page.locator(".kling-tiles").evaluate("list => list.scrollTo(0, 0)")

    # Under the pointer a clip plays, silent; elsewhere it stops and its element is gone.
    tiles.nth(1).hover()
    page.wait_for_function("() => document.querySelector('.kling-gallery video')?.currentTime > 0")
    assert videos.evaluate_all("all => all.map(v => [v.muted, v.loop, v.src.slice(0, 5)])") == [
        [True, True, "blob:"]
    ]
    tiles.nth(2).hover()
    page.wait_for_function("() => document.querySelector('.kling-tile:nth-child(3) video')?.currentTime > 0")
    assert videos.count() == 1
    page.mouse.move(0, 0)
    page.wait_for_function("() => !document.querySelector('.kling-gallery video')")

    # By click and by key, and the notebook's own keys stay out of it.
    cells = page.locator(".jp-Cell").count()
    tiles.nth(1).click()
    for key in ("ArrowRight", "ArrowRight", " ", "ArrowDown", "b", "d", "d", "Home", "End", " "):
        page.keyboard.press(key)
    page.wait_for_function("() => document.activeElement?.querySelector('video')?.currentTime > 0")
    page.keyboard.press("Enter")
    page.wait_for_function("() => !document.querySelector('.kling-gallery video')")
    assert page.locator(".jp-Cell").count() == cells
    expect(status).to_contain_text("3 selected")
    tab.run_cell(2)
    assert tab.outputs(2) == ["['run098', 'run096', 'run000']"]

    # A filter and an order.
    sheet.get_by_label("Filter").fill("moderated SCENE=")
    expect(status).to_have_text("4 of 100 runs shown, 3 selected")
    assert page.locator(".kling-tile:visible").all_inner_texts()[0].startswith("Failed: moderated")
    sheet.get_by_label("Filter").fill("")
    sheet.get_by_label("Sort").select_option("oldest")
    expect(tiles.first).to_contain_text("run000")
    assert tiles.first.get_attribute("aria-selected") == "true"

    # Many clips were wanted: only the last few are kept.
    for number in range(12):
        tiles.nth(number).hover()
        page.wait_for_function(
            "n => { const tile = document.querySelectorAll('.kling-tile')[n];"
            " const why = tile.querySelector('.kling-why')?.innerText;"
            " return why || tile.querySelector('video')?.currentTime > 0; }",
            arg=number,
        )
    counted = page.evaluate(COUNTED)
    assert counted["made"] >= 12
    assert counted["open"] <= 8

    # Readable to everybody, in both themes.
    for name in ("JupyterLab Light", "JupyterLab Dark"):
        theme(page, name)
        assert serious(page, ".kling-gallery") == []
    sheet.get_by_role("button", name="Clear").click()
    expect(status).to_contain_text("0 selected")

    # Closed, the saved sheet is what is left, also for a stranger with no kernel.
    sheet.get_by_role("button", name="Close").click()
    page.wait_for_function("() => !document.querySelector('.kling-gallery')")
    until(lambda: page.evaluate(COUNTED)["open"] == 0)
    record_property("long tasks, ms", page.evaluate(COUNTED)["long"])
    tab.save()
    assert (tmp_path / "a.ipynb").stat().st_size < 500_000
    assert shop.errors == []
    page = shop.reopen_untrusted("a.ipynb").page
    saved = page.locator(".jp-OutputArea img")
    expect(saved).to_have_count(90)
    assert "widget" not in page.locator(".jp-OutputArea").nth(1).inner_text()
    link = page.locator(".jp-OutputArea a").first
    # The notebook's own code resolves it, a moment after it is drawn.
    expect(link).to_have_attribute("href", re.compile("/kling_media/scene-"))
    until(lambda: saved.first.evaluate("image => image.complete && image.naturalWidth > 0"))


@pytest.mark.browser
@pytest.mark.matrix
def test_who_prefers_less_motion_starts_a_clip_with_a_key(tmp_path, browser, lab):
    """Nothing moves by itself then: neither pointer nor focus plays, Enter does."""
    fill(tmp_path, 2, others=False, seconds=0.5)
    write_notebook(tmp_path / "a.ipynb", *CELLS)
    tab = lab(tmp_path, env=environment(tmp_path)).open("a.ipynb")
    page = tab.page
    page.emulate_media(reduced_motion="reduce")
    page.evaluate(COUNT)
    tab.run_cell(0)
    tab.run_cell(1)
    tile = page.locator(".kling-tile").first
    tile.hover()
    tile.focus()
    page.wait_for_timeout(800)
    assert page.evaluate(COUNTED)["made"] == 0
    assert "Enter plays a clip" in page.locator(".kling-hint").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('.kling-gallery video')?.currentTime > 0")
    page.keyboard.press("Enter")
    page.wait_for_function("() => !document.querySelector('.kling-gallery video')")


@pytest.mark.browser
@pytest.mark.matrix
def test_a_sheet_follows_its_runs_and_outlives_its_kernel(tmp_path, lab):
    """What is on its way ends in the sheet, a clip plays while a cell is busy, no dead widget is saved."""
    make = (
        "runs = [kling.submit(f'Boat {n}', duration=3, model=model)"
        " for n in range(2) for model in ('pro', 'standard')]"
    )
    write_notebook(
        tmp_path / "a.ipynb", CELLS[0], make, "%kling gallery", "import time; time.sleep(300)", "%kling rate"
    )
    shop = lab(tmp_path, env={**environment(tmp_path), "KLING_NB_SANDBOX_WAIT": "1", "KLING_NB_BUDGET": "50"})
    tab = shop.open("a.ipynb")
    page = tab.page
    for cell in range(3):
        tab.run_cell(cell)
    tiles = page.locator(".kling-tile")
    page.wait_for_function("() => document.querySelectorAll('.kling-tile img').length === 4")
    # What is equal is said once, above the tiles.
    assert "Done" in page.locator(".kling-gallery").inner_text()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.jp-OutputArea-output')]"
        ".some((output) => output.textContent.includes('4 done'))"
    )
    tab.run_cell(3, wait=False)
    tiles.first.hover()
    page.wait_for_function("() => document.querySelector('.kling-gallery video')?.currentTime > 0")
    assert tab.running(3)
    tab.interrupt(3)
    tab.run_cell(4)
    page.locator(".kling-rate video").nth(1).wait_for()
    [kernel] = shop.kernels()
    shop.rest(f"kernels/{kernel}/restart", method="POST")
    page.wait_for_function("() => !document.querySelector('.kling-live')")
    tab.cell(2).locator("img").first.wait_for()
    # Each of the two is emptied by a message of its own.
    until(lambda: tab.save() or WIDGET not in (tmp_path / "a.ipynb").read_text(encoding="utf-8"))
    saved = nbformat.read(tmp_path / "a.ipynb", as_version=4)
    assert "4 done" in saved.cells[2].outputs[0].data["text/html"]
    assert "0 of 2 pairs rated" in saved.cells[4].outputs[0].data["text/plain"]
    assert shop.errors == []


@pytest.mark.browser
@pytest.mark.matrix
def test_notebook_7_shows_both(tmp_path, lab):
    """Sheet and ballot in Notebook 7: a clip plays, a key votes, a page loaded anew goes on."""
    fill(tmp_path, 3, others=False, seconds=0.5)
    write_notebook(
        tmp_path / "a.ipynb", *CELLS, "votes = kling.rate(kling.runs())\nvotes", "print(len(votes.votes))"
    )
    shop = lab(tmp_path, ui="notebook", env=environment(tmp_path))
    tab = shop.open("a.ipynb")
    page = tab.page
    for cell in (0, 1, 3):
        tab.run_cell(cell)
    tile = page.locator(".kling-tile").first
    tile.hover()
    page.wait_for_function("() => document.querySelector('.kling-gallery video')?.currentTime > 0")
    tile.click()
    page.locator(".kling-rate[aria-busy=false]").wait_for()
    page.locator(".kling-rate").focus()
    page.keyboard.press("1")
    page.locator(".kling-rate .kling-status", has_text="1 of 3 pairs rated").wait_for()
    tab.save()
    tab.reload()
    page.locator(".kling-gallery .kling-status", has_text="1 selected").wait_for()
    page.locator(".kling-rate .kling-status", has_text="1 of 3 pairs rated").wait_for()
    page.locator(".kling-rate[aria-busy=false]").wait_for()
    page.locator(".kling-rate").focus()
    page.keyboard.press("2")
    page.locator(".kling-rate .kling-status", has_text="2 of 3 pairs rated").wait_for()
    tab.run_cell(2)
    tab.run_cell(4)
    assert (tab.outputs(2), tab.outputs(4)) == (["['run005']"], ["2"])
    assert shop.errors == []
