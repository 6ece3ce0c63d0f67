"""The ballot in a real JupyterLab: twenty pairs by keyboard alone, blind, and readable to everybody."""

import pytest

from support.gallery import environment, serious, theme
from support.lab import expect, write_notebook
from support.runs import fill

CELLS = (
    "%load_ext kling_nb\nimport kling_nb as kling",
    "ratings = kling.rate(kling.runs(), axes=['motion'], rater='ada')\nratings",
    "print(ratings.table())",
    "cast = ratings.votes\nprint([v.choice for v in cast].count('A=B=Good'), {v.on('motion') for v in cast})",
)
SECRETS = """() => {
  const root = document.querySelector('.kling-rate');
  return [root.outerHTML, ...[...root.querySelectorAll('*')].map((n) => n.src ?? '')].join('\\n');
}"""


@pytest.mark.browser
@pytest.mark.matrix
def test_twenty_pairs_by_keyboard_alone(tmp_path, lab):  # noqa: PLR0915 - one server and one page for all of it
    """From the cell to the table without a pointer; before a vote the page tells nothing of a run."""
    records = fill(tmp_path, 20, others=False, seconds=0.25)
    write_notebook(tmp_path / "a.ipynb", *CELLS)
    shop = lab(tmp_path, env=environment(tmp_path))
    tab = shop.open("a.ipynb")
    page = tab.page
    tab.run_cell(0)
    tab.run_cell(1)
    status = page.locator(".kling-rate .kling-status")
    ready = page.locator(".kling-rate[aria-busy=false]")
    cells = page.locator(".jp-Cell").count()
    page.locator(".kling-rate video").nth(1).wait_for()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.kling-rate video')].every((v) => v.currentTime > 0)"
    )
    assert page.locator(".kling-rate video").evaluate_all("all => all.every((v) => v.muted)")
    for name in ("JupyterLab Dark", "JupyterLab Light"):
        theme(page, name)
        assert serious(page, ".kling-rate") == []

    # Into the frame by Tab, as there is no pointer; its outline shows where one is.
    page.locator(".jp-Cell").nth(1).press("Escape")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement?.classList.contains('kling-rate')"):
            break
    root = page.locator(".kling-rate")
    assert (
        root.evaluate("node => document.activeElement === node && getComputedStyle(node).outlineWidth")
        == "2px"
    )

    page.keyboard.press(" ")
    page.wait_for_function("() => [...document.querySelectorAll('.kling-rate video')].every((v) => v.paused)")
    up = page.locator(".kling-rate video").first.get_attribute("src")
    page.keyboard.press("n")
    page.wait_for_function(
        "up => { const v = document.querySelector('.kling-rate video'); return v && v.src !== up; }", arg=up
    )
    for number in range(20):
        told = page.evaluate(SECRETS)
        for record in records:
            for fact in (record.id, record.model, record.media.file, record.media.sha256, "Runflow", "$0."):
                assert fact not in told
        ready.wait_for()
        page.keyboard.press("m")
        page.keyboard.press(("1", "2", "3", "4", "ArrowLeft", "ArrowRight")[number % 6])
        voted = f"{number + 1} of 20 pairs rated" if number < 19 else "All 20 pairs are rated"
        status.filter(has_text=voted).wait_for()
        if number == 4:
            page.keyboard.press("u")
            status.filter(has_text="4 of 20 pairs rated").wait_for()
            ready.wait_for()
            page.keyboard.press("m")
            page.keyboard.press("3")
            status.filter(has_text="5 of 20 pairs rated").wait_for()
    page.locator(".kling-rate").get_by_role("button", name="Undo").focus()
    for key in ("b", "1", "d", "d"):
        page.keyboard.press(key)
    assert page.locator(".jp-Cell").count() == cells
    tab.run_cell(2)
    tab.run_cell(3)
    [table] = tab.outputs(2)
    rows = [line.split() for line in table.splitlines()]
    assert sorted(row[1] for row in rows[1:]) == ["kling-3.0-pro", "kling-3.0-standard"]
    assert [row[6] for row in rows[1:]] == ["20", "20"]
    [others] = tab.outputs(3)
    assert others.startswith("4 {'")
    expect(tab.cell(1).locator(".jp-OutputArea-output").first).to_contain_text("20 of 20 pairs rated")
    assert shop.errors == []

    # What is saved says how many votes there are, and nothing else is left where no kernel is.
    page.locator(".kling-rate").get_by_role("button", name="Close").click()
    page.wait_for_function("() => !document.querySelector('.kling-rate')")
    tab.save()
    page = shop.reopen_untrusted("a.ipynb").page
    saved = page.locator(".jp-OutputArea", has_text="20 of 20 pairs rated")
    saved.first.wait_for()
    assert "widget" not in saved.first.inner_text()
