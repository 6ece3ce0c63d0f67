"""Private runs in a real JupyterLab: what a page is sent, what it shows, and what is saved meanwhile."""

import pytest

from support.canary import PROMPT, files_below, pieces_in
from support.lab import write_notebook
from support.workbench import until

CELLS = (
    "%load_ext kling_nb\nimport kling_nb as kling\nwords = open('../elsewhere/words.txt').read()",
    "%%kling one -d 3 --private --tag by=a\n{{words}}",
    "%%kling two -d 3 --private --take 1 --tag by=b\n{{words}}",
    "one.wait(60); two.wait(60); print('both ended')",
    "%kling gallery one two",
    "%kling compare one two",
    "%kling show --player one",
    "kling.rate([one, two], by='tag:by')",
    "form = kling.form(one)\nform",
    "%%kling three -d 3 --take 2\n{{words}}",
)
VIEWS = (".kling-gallery", ".kling-compare", ".kling-player", ".kling-rate")
#: What a page shows beside the inputs of a form, where a person types.
SHOWN = """() => {
  const page = document.body.cloneNode(true);
  page.querySelectorAll('input, textarea').forEach((input) => input.remove());
  return page.innerHTML;
}"""


@pytest.mark.matrix
@pytest.mark.browser
def test_no_page_is_sent_or_shows_a_word_of_a_private_run(tmp_path, lab):
    """Cards, sheets, players and ballots of private runs, all open; a public run beside them is found."""
    folder, elsewhere = tmp_path / "shown", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (elsewhere / "words.txt").write_text(PROMPT)
    write_notebook(folder / "a.ipynb", *CELLS)
    settings = {"KLING_NB_LEDGER": str(elsewhere / "ledger.db"), "KLING_NB_SANDBOX_WAIT": "0.1"}
    tab = lab(folder, env=settings).open("a.ipynb")
    page, frames = tab.page, []

    def listen(socket):
        socket.on("framereceived", lambda frame: frames.append(frame))  # noqa: PLW0108 - it marks what it calls

    page.on("websocket", listen)
    tab.reload()
    for number in range(8):
        tab.run_cell(number)
    for view in VIEWS:
        page.locator(view).first.wait_for()
    tab.wait_text(3, "both ended")
    until(lambda: page.locator(".kling-gallery .kling-tile").count() == 2)
    assert pieces_in(*frames, page.evaluate(SHOWN)) == {}
    assert sum(map(len, frames)) > 50_000

    # The inputs of a form hold what is typed, or taken over to be varied; nothing else of it does.
    tab.run_cell(8)
    page.locator(".kling-form").wait_for()
    page.locator(".kling-go", has_text="Another take").wait_for()
    assert (
        page.locator(".kling-form")
        .get_by_label("Private: only the provider gets the words")
        .first.is_checked()
    )
    # Views that are open, and the form too, leave nothing in the file.
    tab.save()
    saved = (folder / "a.ipynb").read_text()
    assert "private prompt, sha256:" in saved
    assert pieces_in(saved, *files_below(folder).items()) == {}
    assert page.locator(".kling-form textarea").first.input_value() == PROMPT
    assert pieces_in(page.evaluate(SHOWN)) == {}

    tab.run_cell(9)
    tab.wait_text(9, "Done")
    tab.save()
    assert pieces_in(page.evaluate(SHOWN))
    assert pieces_in((folder / "a.ipynb").read_text())
    assert pieces_in(*frames)
