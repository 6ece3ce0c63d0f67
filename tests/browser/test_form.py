"""The form as a person uses it in JupyterLab and Notebook 7: typing, prices, presses, cards, and its cell."""

import json
import re

import nbformat
import pytest

from support.accessibility import judge_page
from support.kernels import records
from support.lab import Lab, expect, write_notebook

pytestmark = pytest.mark.browser

WIDGET = "application/vnd.jupyter.widget-view+json"
FORM = "%load_ext kling_nb\nimport kling_nb as kling\nform = kling.form()\nform"
SLEEP, EMPTY = 2, 3
CONTROLS = """() => {
  const seen = [...document.querySelectorAll('.kling-form :is(input,select,textarea,button,summary)')];
  const usable = seen.filter((control) => control.offsetParent && !control.disabled);
  usable.forEach((control, number) => { control.dataset.number = number; });
  return usable.length;
}"""
# The script that keeps keys comes with the form, and maybe a moment after it.
KEPT = """() => {
  const first = document.querySelector('.kling-form select');
  first.blur();
  first.focus();
  return first.hasAttribute('data-lm-suppress-shortcuts');
}"""
FOCUSED = """() => {
  const style = getComputedStyle(document.activeElement);
  const typed = document.activeElement.matches(':read-write');
  return [document.activeElement.dataset.number, `${style.outlineStyle} ${style.outlineWidth}`, typed];
}"""
PROMPT = 'A red fox\'s walk in "snow", costs $5, {braces}'


@pytest.fixture
def folder(tmp_path):
    """The folder that the server shows."""
    (tmp_path / "shown").mkdir()
    return tmp_path / "shown"


@pytest.fixture
def environment(tmp_path):
    """Variables of a kernel with a ledger of its own."""
    return {"KLING_NB_LEDGER": str(tmp_path / "ledger.db"), "KLING_NB_SANDBOX_WAIT": "0.2"}


class OnPage:
    """The form on a page."""

    def __init__(self, tab):
        self.page = tab.page
        self.box = tab.page.locator(".kling-form")
        self.box.wait_for()

    def input(self, label):
        return self.box.get_by_label(label, exact=True)

    def button(self, words):
        return self.box.locator("button", has_text=words).first

    def until(self, words):
        """Wait until the button says this."""
        self.box.locator(".kling-go button", has_text=words).wait_for()

    def press(self, words):
        self.box.locator(".kling-go button:enabled", has_text=words).click()

    def says(self, words):
        self.box.get_by_text(words).first.wait_for()

    def faults(self):
        """What a judge of accessibility holds against the form."""
        passed, faults = judge_page(self.page, ".kling-form")
        assert passed > 5
        return faults

    def tabbed(self):
        """Go through the form by Tab: how many controls there are, which are met, and how each is marked.

        At each that is not typed into, X is pressed: to the notebook it would mean to cut the cell.
        """
        every = self.page.evaluate(CONTROLS)
        self.page.wait_for_function(KEPT)
        met = {}
        for _ in range(every):
            number, mark, typed = self.page.evaluate(FOCUSED)
            met[number] = mark
            if not typed:
                self.page.keyboard.press("x")
            self.page.keyboard.press("Tab")
        return every, met


def type_and_read_the_price(form):
    """Each change is priced, and what is out of range is said beside its field."""
    form.until("Blocked: prompt is missing")
    form.input("Prompt").press_sequentially(PROMPT, delay=5)
    form.says(f"{len(PROMPT)} of 2,500 characters")
    form.until("Generate - $0.56 play money")
    form.input("Duration").fill("99")
    form.says("Kling 3.0 Pro makes 3 to 15 s")
    form.input("Sound").check()
    form.input("Duration").fill("3")
    form.until("Generate - $0.504 play money")
    form.input("Sound").uncheck()
    form.until("Generate - $0.336 play money")
    form.says("$10.00 play money left")


def send_and_cancel_while_a_cell_sleeps(tab, form):
    """Neither the press nor the cancel waits for the cell."""
    tab.run_cell(SLEEP, wait=False)
    form.press("Generate - $0.336")
    tab.wait_text(0, "Queued")
    form.until("Reattach - on its way")
    tab.page.locator(".jp-OutputArea button", has_text="Cancel").click()
    tab.wait_text(0, "Canceled")
    assert tab.running(SLEEP)
    tab.interrupt(SLEEP)


def finish_and_copy(tab, form):
    """The cell that is copied from the form shows the very clip that the form made."""
    form.input("Negative prompt").fill("blur,\nhaste")
    form.press("Generate - $0.336")
    form.until("Show - here already")
    tab.wait_text(0, "Done")
    form.says("Made before: take 0 succeeded. The next one is take 1.")
    for pane in ("Payload", "Copy as cell", "More"):
        form.button(pane).click()
    form.says("Payload for RunComfy")
    form.box.get_by_text("What each can do").click()
    assert form.faults() == []
    cell = form.input("Cell")
    expect(cell).to_have_value(re.compile("^%%kling -d 3 --params"))
    cell.press("Control+a")
    cell.press("Control+c")
    tab.cell(EMPTY).locator(".cm-content").click()
    tab.page.keyboard.press("Control+a")
    tab.page.keyboard.press("Control+v")
    tab.run_cell(EMPTY)
    assert "Done, reused" in tab.outputs(EMPTY)[0]
    form.button("Use take 1").click()
    form.until("Generate - $0.336 play money")
    expect(form.input("Only take")).to_have_value("1")


def write_a_storyboard(form):
    """Total, limits and price follow every shot that is added, changed, moved or removed."""
    # By key: the notebook would take the arrow for a step to its next cell.
    form.page.wait_for_function(KEPT)
    form.input("One prompt").press("ArrowRight")
    expect(form.input("Storyboard")).to_be_focused()
    form.says("Total 3 s of 3 to 15 s; 1 of 6 shots. Shortest shot: 1 s at Runflow, 3 s at RunComfy")
    expect(form.input("Shot 1")).to_have_value(PROMPT)
    for number in range(2, 7):
        form.button("Add a shot").click()
        form.input(f"Shot {number}").fill(f"Shot number {number}")
        form.input(f"Seconds {number}").fill("2")
    form.says("Total 13 s of 3 to 15 s; 6 of 6 shots")
    expect(form.button("Add a shot")).to_be_disabled()
    form.until("Generate - $1.456 play money")
    form.input("Seconds 6").fill("9")
    form.says("shots add up to 20 s")
    form.until("Blocked: shots add up to 20 s")
    assert form.faults() == []
    form.box.get_by_title("Remove shot 6").click()
    form.box.get_by_title("Move shot 2 up").click()
    form.until("Generate - $1.232 play money")
    # The price was right before the shot had moved.
    for number, words in enumerate(("Shot number 2", PROMPT, "Shot number 3"), 1):
        expect(form.input(f"Shot {number}")).to_have_value(words)


def test_a_form_from_the_first_key_to_a_cell_of_its_own(browser, folder, environment):
    """Typed, priced, canceled while a cell sleeps, made, copied, turned into a storyboard, and outlived."""
    quick, slow = (f"kling.connect(sandbox_wait={scale}); None" for scale in (0.2, 60))
    write_notebook(folder / "a.ipynb", FORM, slow, "import time; time.sleep(300)", "pass", quick)
    with Lab(folder, browser, env=environment, viewport=(1280, 1400)) as jupyter:
        tab = jupyter.open("a.ipynb")
        tab.run_cell(0)
        form = OnPage(tab)
        type_and_read_the_price(form)
        tab.run_cell(1)
        send_and_cancel_while_a_cell_sleeps(tab, form)
        tab.run_cell(4)
        finish_and_copy(tab, form)
        write_a_storyboard(form)
        # What is saved follows when the form has judged the last change.
        tab.wait_text(0, "Form: “Shot number 2 / A red fox's walk")
        assert jupyter.errors == []
        tab.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        form.box.wait_for(state="detached")
        tab.save()
    # What is left when the kernel has gone: words, cards and clips, and no dead widget.
    saved = nbformat.read(folder / "a.ipynb", as_version=4)
    outputs = saved.cells[0].outputs
    assert [output for output in outputs if WIDGET in output.data] == []
    assert "Form: “Shot number 2 / A red fox's walk" in outputs[0].data["text/plain"]
    assert "Run this cell to get the form back." in outputs[0].data["text/html"]
    assert [record.status for record in records(saved)] == ["canceled", "succeeded", "succeeded"]
    assert "rror displaying" not in json.dumps(outputs)


@pytest.mark.matrix
def test_a_form_in_notebook_7(browser, folder, environment):
    """The same form: filled in from an earlier run, its next take bought, its card below it."""
    fox = "%load_ext kling_nb\nimport kling_nb as kling\nclip = kling.generate('A fox', duration=3)"
    write_notebook(folder / "a.ipynb", fox, "run = kling.last", "%kling form run")
    with Lab(folder, browser, env=environment, ui="notebook") as jupyter:
        tab = jupyter.open("a.ipynb")
        for cell in range(3):
            tab.run_cell(cell)
        form = OnPage(tab)
        form.until("Show - here already")
        expect(form.input("Prompt")).to_have_value("A fox")
        form.button("Use take 1").click()
        form.press("Generate - $0.336 play money")
        tab.wait_text(2, "Done")
        form.until("Show - here already")
        assert form.faults() == []
        controls, met = form.tabbed()
        assert controls > 15
        assert sorted(met, key=int) == [str(number) for number in range(controls)]
        assert set(met.values()) == {"solid 2px"}
        assert jupyter.errors == []
        # What the page does when the kernel is started anew from its menu.
        form.box.evaluate("(box) => box.classList.add('jupyter-widgets-disconnected')")
        said = form.box.evaluate("(box) => getComputedStyle(box, '::before').content")
        assert "The kernel has gone: run this cell again to get the form back." in said
        expect(form.button("Show - here already")).to_be_hidden()
