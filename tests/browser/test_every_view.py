"""Whatever is shown can be read by everybody and worked without a pointer: axe, and every control."""

import os
import subprocess
import sys

import pytest

from support.accessibility import judge_page
from support.card_states import MADE, STATES
from support.lab import Lab, write_notebook
from support.paths import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.matrix]

FOX = "A red fox crosses fresh snow"
CELLS = (
    "%load_ext kling_nb\nimport kling_nb as kling",
    f"%%kling --wait fox -d 3\n{FOX}",
    f"%%kling --wait few -n 3 -d 3\n{FOX} at night",
    f"%%kling --wait std -d 3 -m std\n{FOX}",
    f"%%kling --dry-run\n{FOX}",
    *(f"%kling {name}" for name in ("list", "status", "cost", "budget", "models", "keys", "config", "help")),
    *(f"%kling {name}" for name in ("doctor", "sweeps", "help export", "estimate")),
    "kling.estimate('A fox'), kling.spend()",
    "%%kling -d 99\nA hare",
    "%kling show nosuch",
    "made = kling.sweep(['A fox', 'A hare'], takes=2, duration=3, name='few')\nmade.quote()",
    "made.start()",
    "made.wait()\nmade.table()",
    "made.gallery()",
    f"{MADE}\n" + "\n".join(STATES.values()),
    "%kling gallery",
    "%kling compare fox few",
    "%kling show fox --player",
    "%kling rate fox std",
)
FORM = "form = kling.form()\nform"
FILLED = "form.update(prompt='A panda rides a bicycle', duration=3)"
OUTPUTS = ".jp-OutputArea-output"

#: Controls that are seen and enabled, and that no Tab can come to: neither themselves nor one of their group.
UNREACHED = """() => {
  const kinds = 'button, input, select, textarea, summary, a[href], video[controls], [role=button]';
  const groups = '[role=listbox], [role=radiogroup], [role=grid], [role=tablist], [role=toolbar]';
  const wrong = [];
  for (const control of document.querySelectorAll(`.jp-OutputArea :is(${kinds})`)) {
    if (control.disabled || !control.checkVisibility({ visibilityProperty: true })) continue;
    const group = control.closest(groups);
    const way = group && (group.tabIndex === 0 || group.querySelector('[tabindex="0"], :checked'));
    if (control.tabIndex > 0 || (control.tabIndex < 0 && !way)) wrong.push(control.outerHTML.slice(0, 200));
  }
  return wrong;
}"""


def judge(tab, root=OUTPUTS):
    """Axe finds nothing serious, and every control can be come to by keyboard."""
    passed, faults = judge_page(tab.page, root)
    assert faults == []
    assert passed > 4
    assert tab.page.evaluate(UNREACHED) == []


def judge_form(tab):
    """The form in each of its states, up to the one that its kernel leaves behind."""
    box = tab.page.locator(".kling-form")
    tab.run_cell(1)
    box.locator(".kling-go").wait_for()
    judge(tab)
    box.locator("button.kling-open").click()
    box.get_by_text("What each can do").click()
    for name in ("Payload", "Copy as cell"):
        box.locator("button", has_text=name).click()
    box.get_by_label("Cell", exact=True).wait_for()
    judge(tab)
    box.get_by_label("Max cost", exact=True).fill("cheap")
    box.get_by_text("takes dollars").first.wait_for()
    judge(tab)
    box.get_by_label("Max cost", exact=True).fill("")
    box.locator("button.kling-open").click()
    box.get_by_label("Storyboard").check()
    # Its row comes above the button, which moves.
    box.get_by_label("Shot 1", exact=True).wait_for()
    box.locator("button", has_text="Add a shot").click()
    box.get_by_label("Shot 2", exact=True).wait_for()
    judge(tab)
    box.get_by_label("One prompt").check()
    tab.run_cell(2)
    for again in (False, True):
        box.locator(".kling-go:enabled", has_text="Another take" if again else "Generate").click()
        tab.page.get_by_role("button", name="Another take - ").nth(int(again)).wait_for()
    tab.page.get_by_role("button", name="Compare").first.click()
    tab.page.locator(".kling-compare .kling-play").wait_for()
    judge(tab)
    tab.page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    tab.page.locator(".kling-form.jupyter-widgets-disconnected").wait_for()
    judge(tab)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_view_can_be_read_and_worked_by_everybody(browser, tmp_path, dark):
    """Nothing serious for axe in any view, state and theme, and no control without a way to it by keys."""
    paths = [str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    env = {
        "KLING_NB_LEDGER": str(tmp_path / "ledger.db"),
        "KLING_NB_SANDBOX_WAIT": "0",
        "KLING_NB_BUDGET": "50",
        "PYTHONPATH": os.pathsep.join(paths),
    }
    write_notebook(tmp_path / "views.ipynb", *CELLS)
    write_notebook(tmp_path / "form.ipynb", "import kling_nb as kling", FORM, FILLED)
    with Lab(tmp_path, browser, env=env, dark=dark) as lab:
        tab = lab.open("views.ipynb")
        for number in range(len(CELLS)):
            tab.run_cell(number)
        for view in (".kling-gallery", ".kling-compare", ".kling-rate"):
            tab.page.locator(f"{view} video, {view} img").first.wait_for()
        judge(tab)
        tab.page.locator(".kling-rate[aria-busy=false]").focus()
        tab.page.keyboard.press("1")
        tab.page.locator(".kling-rate .kling-status", has_text="rated").wait_for()
        judge(tab, ".kling-rate")
        tab.save()
        lab.close_tabs()
        tab = lab.open("form.ipynb")
        tab.run_cell(0)
        judge_form(tab)
        # It tells its page of a channel that the kernel no longer has.
        assert [words for words in lab.errors if "Comm not found" not in words] == []
    judge_pages(browser, tmp_path, dark=dark)


def judge_pages(browser, folder, *, dark):
    """The page of a notebook as one file, and the one of the demonstration."""
    env = {**os.environ, "KLING_NB_LEDGER": str(folder / "ledger.db")}
    for words in (["export", "page", "views.ipynb"], ["demo", "--out", "demo"]):
        command = [sys.executable, "-m", "kling_nb", *words]
        subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)
    window = browser.new_context(color_scheme="dark" if dark else "light")
    for page in (folder / "views.html", folder / "demo" / "demo.html"):
        tab = window.new_page()
        tab.goto(page.as_uri())
        passed, faults = judge_page(tab, "body")
        assert (page.name, faults) == (page.name, [])
        assert passed > 4
