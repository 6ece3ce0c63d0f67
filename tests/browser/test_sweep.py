"""A sweep in a real JupyterLab: one card that counts right and stays light, and a small notebook."""

import json

import pytest

from support.gallery import environment
from support.lab import expect, write_notebook

RUNS = 40
CELLS = (
    "%load_ext kling_nb\nimport kling_nb as kling",
    f"owls = kling.sweep([f'Owl {{n}}' for n in range({RUNS})], duration=3, name='owls', max_cost=100)",
    "owls.gallery()",
)

LONG = """() => {
  window.long = [];
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) window.long.push(Math.round(entry.duration));
  }).observe({ entryTypes: ["longtask"] });
}"""


@pytest.mark.browser
@pytest.mark.matrix
def test_a_sweep_keeps_page_and_notebook_light(tmp_path, lab, record_property):
    """Elements of the card and bytes of the notebook, which do not grow with the runs; then rows and columns.

    How long the page was busy is noted and not judged: on a busy machine a page without us is so, too.
    """
    write_notebook(tmp_path / "a.ipynb", *CELLS)
    extra = {"KLING_NB_SANDBOX_WAIT": "0", "KLING_NB_BUDGET": "100"}
    tab = lab(tmp_path, env={**environment(tmp_path), **extra}).open("a.ipynb")
    page = tab.page
    page.evaluate(LONG)
    tab.run_cell(0)
    tab.run_cell(1)
    card = page.locator(".jp-OutputArea-output", has_text=f"{RUNS} done").first
    expect(card).to_be_visible(timeout=240_000)
    assert card.locator("*").count() < 40
    record_property("long tasks", page.evaluate("long"))
    tab.run_cell(2)
    expect(page.locator(".kling-grid .kling-tile")).to_have_count(RUNS)
    expect(page.locator(".kling-beside")).to_have_count(RUNS)
    tab.save()
    text = (tmp_path / "a.ipynb").read_text("utf-8")
    [outputs] = [
        cell["outputs"] for cell in json.loads(text)["cells"] if "max_cost" in "".join(cell["source"])
    ]
    assert len(json.dumps(outputs)) < 60_000
    assert len(text) < 1_000_000
