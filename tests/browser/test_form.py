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
  // Of a group of choices only the chosen one is met by Tab.
  const usable = seen.filter((control) => control.offsetParent && !control.disabled
    && (control.type !== 'radio' || control.checked));
  usable.forEach((control, number) => { control.dataset.number = number; });
  return usable.length;
}"""
# The script that keeps keys comes with the form, and maybe a moment after it.
KEPT = """() => {
  const first = document.querySelector('.kling-form input[type=radio]');
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
        return self.box.locator("button", has_text=re.compile(re.escape(words))).first

    def until(self, words):
        """Wait until the button has this verb and price."""
        self._go(words).wait_for()

    def press(self, words):
        self._go(words, ":enabled").click()

    def _go(self, words, state=""):
        verb, _, price = words.partition(" - ")
        return self.box.locator(f'.kling-go{state}[title="{price}"]', has_text=verb)

    def slide(self, label, steps):
        """Move a slider by keys, as one who sees no pointer."""
        handle = self.box.get_by_role("slider", name=label)
        for _ in range(abs(steps)):
            handle.press("ArrowRight" if steps > 0 else "ArrowLeft")

    def place(self):
        """Give where the button stands."""
        box = self.box.locator(".kling-go").bounding_box()
        return round(box["x"]), round(box["y"]), round(box["width"])

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
        # A focus that a script set after a click is not marked.
        self.page.keyboard.press("Tab")
        self.page.keyboard.press("Shift+Tab")
        met = {}
        # A clip between them is met, too, and is no control of the form.
        for _ in range(2 * every):
            number, mark, typed = self.page.evaluate(FOCUSED)
            if number is not None:
                met[number] = mark
            if len(met) == every:
                break
            if not typed:
                self.page.keyboard.press("x")
            self.page.keyboard.press("Tab")
        return every, met


def type_and_read_the_price(form):
    """Each change is priced, and what is out of range is said beside its field."""
    form.until("Generate - $0.56")
    form.says("Write what happens in the clip.")
    place = form.place()
    form.input("Prompt").press_sequentially(PROMPT, delay=5)
    form.says(f"{len(PROMPT)} of 2,500")
    form.until("Generate - $0.56")
    form.button("More").click()
    form.input("Max cost").fill("cheap")
    form.says("takes dollars")
    expect(form.box.locator(".kling-go")).to_be_disabled()
    form.input("Max cost").fill("")
    form.button("More").click()
    form.input("Sound").check()
    form.slide("Duration", -2)
    form.until("Generate - $0.504")
    form.input("Sound").uncheck()
    form.until("Generate - $0.336")
    form.says("$10.00 left")
    form.says("play money")
    # Whatever was said meanwhile, nothing has moved.
    assert form.place() == place


def send_and_cancel_while_a_cell_sleeps(tab, form):
    """Neither the press nor the cancel waits for the cell."""
    tab.run_cell(SLEEP, wait=False)
    form.press("Generate - $0.336")
    tab.wait_text(0, "Queued")
    form.until("Running…")
    tab.page.locator(".jp-OutputArea button", has_text="Cancel").click()
    tab.wait_text(0, "Canceled")
    assert tab.running(SLEEP)
    tab.interrupt(SLEEP)


def finish_and_copy(tab, form):
    """The cell that is copied from the form shows the very clip that the form made."""
    form.button("More").click()
    form.input("Negative prompt").fill("blur,\nhaste")
    form.until("Generate - $0.336")
    # The same as a press of the button.
    form.input("Prompt").press("Control+Enter")
    form.until("Another take - $0.336")
    tab.wait_text(0, "Done")
    form.says("Asked for before: take 0. The next one is take 1.")
    for pane in ("Payload", "Copy as cell"):
        form.button(pane).click()
    form.says("Payload for RunComfy")
    form.box.get_by_text("What each can do").click()
    assert form.faults() == []
    cell = form.input("Cell")
    expect(cell).to_have_value(re.compile("^%%kling -d 3 --params"))
    # The button has put it where it can be pasted from.
    tab.cell(EMPTY).locator(".cm-content").click()
    tab.page.keyboard.press("Control+a")
    tab.page.keyboard.press("Control+v")
    tab.run_cell(EMPTY)
    assert "Done, reused" in tab.outputs(EMPTY)[0]
    form.button("More").click()


def go_on_from_a_card(tab, form):
    """A card has buttons for another take, a variation and a comparison; the newest stands on top."""
    form.press("Another take - $0.336")
    tab.page.get_by_role("button", name="Compare", exact=True).nth(1).wait_for()
    tops = [bar.bounding_box()["y"] for bar in tab.page.locator(".kling-acts").all()]
    assert tops == sorted(tops, reverse=True)
    # No card is wider or narrower than the form.
    card = tab.page.locator(".kling-acts").first.locator(
        "xpath=ancestor::div[contains(@style,'max-width')][1]"
    )
    wide, form_wide = card.bounding_box()["width"], form.box.bounding_box()["width"]
    assert wide == pytest.approx(form_wide, abs=1)
    form.input("Prompt").fill("Something else")
    tab.page.get_by_role("button", name="Vary").first.click()
    expect(form.input("Prompt")).to_have_value(PROMPT)
    tab.page.get_by_role("button", name="Compare", exact=True).first.click()
    # Its sheet is hidden as soon as the live view stands below it.
    sheet = tab.page.locator(".jp-OutputArea-output", has_text="Comparison of 2 clips")
    sheet.first.wait_for(state="attached")


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
    form.until("Generate - $1.456")
    form.input("Seconds 6").fill("9")
    form.says("shots add up to 20 s")
    expect(form.box.locator(".kling-go")).to_be_disabled()
    assert form.faults() == []
    form.box.get_by_title("Remove shot 6").click()
    form.box.get_by_title("Move shot 2 up").click()
    form.until("Generate - $1.232")
    # The price was right before the shot had moved.
    for number, words in enumerate(("Shot number 2", PROMPT, "Shot number 3"), 1):
        expect(form.input(f"Shot {number}")).to_have_value(words)


def test_a_form_from_the_first_key_to_a_cell_of_its_own(browser, folder, environment):
    """Typed, priced, canceled while a cell sleeps, made, copied, turned into a storyboard, and outlived."""
    quick, slow = (f"kling.connect(sandbox_wait={scale}); None" for scale in (0.2, 60))
    write_notebook(folder / "a.ipynb", FORM, slow, "import time; time.sleep(300)", "pass", quick)
    with Lab(folder, browser, env=environment, viewport=(1280, 1400)) as jupyter:
        tab = jupyter.open("a.ipynb")
        tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        tab.run_cell(0)
        form = OnPage(tab)
        type_and_read_the_price(form)
        tab.run_cell(1)
        send_and_cancel_while_a_cell_sleeps(tab, form)
        tab.run_cell(4)
        finish_and_copy(tab, form)
        go_on_from_a_card(tab, form)
        write_a_storyboard(form)
        # What is saved follows when the form has judged the last change.
        line = tab.page.locator(".jp-OutputArea-output", has_text="Form: “Shot number 2 / A red fox's walk")
        line.first.wait_for(state="attached")
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
    done = ["canceled", "succeeded", "succeeded", "succeeded"]
    assert [record.status for record in records(saved)] == done
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
        form.until("Another take - $0.336")
        expect(form.input("Prompt")).to_have_value("A fox")
        form.press("Another take - $0.336")
        tab.wait_text(2, "Done")
        form.until("Another take - $0.336")
        assert form.faults() == []
        controls, met = form.tabbed()
        assert controls > 8
        assert sorted(met, key=int) == [str(number) for number in range(controls)]
        assert set(met.values()) == {"solid 2px"}
        assert jupyter.errors == []
        # What the page does when the kernel is started anew from its menu.
        form.box.evaluate("(box) => box.classList.add('jupyter-widgets-disconnected')")
        said = form.box.evaluate("(box) => getComputedStyle(box, '::before').content")
        assert "The kernel has gone: run this cell again to get the form back." in said
        expect(form.button("Another take")).to_be_hidden()
