"""What a person sees in JupyterLab and Notebook 7: live cards, a cancel that works, clips that play."""

import pytest

from support.accessibility import judge_page
from support.kernels import WATCHFUL, let_go, sandbox_beside
from support.lab import Lab, write_notebook
from support.paths import ROOT

pytestmark = pytest.mark.browser

SHOTS = ROOT / "build" / "screenshots"
FOX = "%%kling fox -d 3\nA red fox in snow"
SLEEP = "import time; time.sleep({})"
WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def environment(tmp_path):
    """Variables of a kernel with a ledger of its own and the sandbox in it."""
    return {"KLING_NB_LEDGER": str(tmp_path / "ledger.db"), "KLING_NB_SANDBOX_WAIT": "0.5"}


@pytest.fixture
def folder(tmp_path):
    """The folder that the server shows."""
    (tmp_path / "shown").mkdir()
    return tmp_path / "shown"


def _states(seen):
    """Give the words that the card began with, one after the other."""
    words = [text.split()[0] for text in seen if text]
    return [word for number, word in enumerate(words) if words[number - 1 : number] != [word]]


def _until_done(provider):
    """Whether the card says last that the clip is there: its run is let go once two others were seen."""
    held = True

    def enough(seen):
        nonlocal held
        if held and len(seen) > 1:
            held = False
            provider.let_go()
        return seen[-1:] != [] and "Done" in seen[-1]

    return enough


def _check_plays(tab, *, clips):
    videos = tab.videos()
    assert len(videos) == clips
    for video in videos:
        assert video["error"] is None
        assert video["played"] > 0
        assert video["sought"] == pytest.approx(0.8 * video["duration"], abs=0.15)
        assert (video["width"], video["controls"]) == (640, True)
        assert "kling_media/" in video["src"]
        assert video["still"].startswith("data:image/jpeg;base64,")


def test_a_card_lives_plays_and_outlives_its_kernel(browser, folder, environment):
    """Live while another cell runs; saved, it plays for a stranger without its kernel, who asks nobody."""
    with sandbox_beside(held=True) as provider:
        variables = {**environment, **provider.environment("runcomfy", KLING_NB_SANDBOX_WAIT="0")}
        write_notebook(folder / "a.ipynb", "%load_ext kling_nb", FOX, SLEEP.format(300))
        with Lab(folder, browser, env=variables) as jupyter:
            tab = jupyter.open("a.ipynb")
            tab.run_cell(0)
            # The other cell stands in the queue at once, however long the page takes.
            tab.run_cell(1, wait=False)
            tab.run_cell(2, wait=False)
            seen = tab.during(1, 2, _until_done(provider))
            assert tab.running(1) is False
            assert len(seen) >= 3
            assert len(_states(seen)) >= 2
            tab.interrupt(2)
            tab.page.wait_for_function("() => !document.querySelector('.jp-OutputArea button')")
            card, strip = tab.outputs(1)
            assert "Stand-in, not the provider" in card
            assert "$0.336" in card
            assert strip == ""
            _check_plays(tab, clips=1)
            tab.run_cell(1)
            assert "Done, reused" in tab.outputs(1)[0]
            _check_plays(tab, clips=1)
            assert provider.counts() == (1, 1)
            tab.save()
            assert jupyter.errors == []
        assert WIDGET not in (folder / "a.ipynb").read_text(encoding="utf-8")
        assert (folder / "a.ipynb").stat().st_size < 40_000
        stats = provider.stats()
        # A server that never signed it, and whose kernel has nothing of ours.
        with Lab(folder, browser, env=variables) as from_folder:
            tab = from_folder.reopen_untrusted("a.ipynb")
            from_folder.shutdown_kernels()
            assert "Done, reused" in tab.outputs(1)[0]
            assert "rror displaying widget" not in tab.page.inner_text("body")
            _check_plays(tab, clips=1)
            assert {url.split("/")[2] for _, url in from_folder.requests if url.startswith("http")} == {
                from_folder.base.removeprefix("http://")
            }
            assert from_folder.errors == []
        assert provider.stats() == stats


def test_cancel_is_heard_while_a_cell_sleeps(browser, folder, environment):
    """Cancel, pressed while another cell blocks the kernel, takes effect before that cell is over."""
    write_notebook(folder / "a.ipynb", "%load_ext kling_nb", FOX, SLEEP.format(300), "fox.status.value")
    with Lab(folder, browser, env={**environment, "KLING_NB_SANDBOX_WAIT": "60"}) as jupyter:
        tab = jupyter.open("a.ipynb")
        tab.run_cell(0)
        tab.run_cell(1)
        tab.run_cell(2, wait=False)
        tab.wait_text(1, "Queued")
        SHOTS.mkdir(parents=True, exist_ok=True)
        tab.screenshot(SHOTS / "live.png")
        tab.click("Cancel")
        tab.wait_text(1, "Canceled")
        assert tab.running(2)
        tab.page.wait_for_function("() => !document.querySelector('.jp-OutputArea button')")
        assert tab.running(2)
        tab.interrupt(2)
        tab.run_cell(3)
        assert tab.outputs(3) == ["'canceled'"]
        assert "Charged: no" in tab.outputs(1)[0]
        assert jupyter.errors == []


def test_the_strip_comes_back_after_a_reload(browser, folder, environment):
    """A page loaded anew in the middle of a run says so, its controls work, and it gets the finished card."""
    hare = "%%kling hare -d 3\nA hare in snow"
    owls = "import kling_nb as kling\nowls = kling.sweep(['An owl', 'Two owls'], duration=3, name='owls')"
    write_notebook(folder / "a.ipynb", WATCHFUL, FOX, hare, let_go(4), owls)
    with Lab(folder, browser, env={**environment, "KLING_NB_SANDBOX_WAIT": "60"}) as jupyter:
        tab = jupyter.open("a.ipynb")
        tab.run_cell(0)
        tab.run_cell(1)
        tab.run_cell(2)
        tab.wait_text(1, "Queued")
        # The card says where the run is, and nothing says it twice.
        assert tab.outputs(1)[1] == "Cancel"
        tab.run_cell(4)
        tab.cell(4).locator("button", has_text="Stop sending").wait_for()
        tab.save()
        tab.reload()
        tab.wait_text(4, "How it stands now is below.")
        tab.wait_text(1, "How it stands now is below.")
        tab.cell(1).locator("button", has_text="Cancel").click()
        tab.wait_text(1, "Charged: no")
        assert "as of" in tab.outputs(1)[0]
        # Nobody types anything: the clip is there when it is made.
        tab.run_cell(3)
        tab.cell(2).locator("video[src^=blob]").wait_for()
        assert tab.cell(2).locator('text="Done"').count() == 1
        tab.cell(4).locator(".kling-strip", has_text="2 done").wait_for()
        tab.cell(4).locator("button").first.wait_for(state="hidden")
        assert jupyter.errors == []


def test_a_paused_sweep_offers_no_pause(browser, folder, environment):
    """Its runs that are on their way arrive; what is not sent may still be given up."""
    owls = (
        "import kling_nb as kling\nowls = kling.sweep(['An owl', 'A fox', 'A hare'], duration=3, name='owls')"
    )
    write_notebook(folder / "a.ipynb", WATCHFUL, owls, "owls.pause()")
    few = {"KLING_NB_SANDBOX_WAIT": "60", "KLING_NB_MAX_IN_FLIGHT": "2"}
    with Lab(folder, browser, env={**environment, **few}) as jupyter:
        tab = jupyter.open("a.ipynb")
        tab.run_cell(0)
        tab.run_cell(1)
        stop = tab.cell(1).locator("button", has_text="Stop sending")
        stop.wait_for()
        tab.wait_text(1, "on their way")
        tab.run_cell(2)
        stop.wait_for(state="detached")
        tab.cell(1).locator("button", has_text="Cancel what is not sent").wait_for()
        tab.wait_text(1, "sends the remaining")
        assert jupyter.errors == []


def test_notebook_7_shows_the_same(browser, folder, environment):
    """The other interface has the live card, the strip and the playing clip too."""
    write_notebook(folder / "a.ipynb", "%load_ext kling_nb", FOX, SLEEP.format(300))
    with sandbox_beside(held=True) as provider:
        variables = {**environment, **provider.environment("runcomfy", KLING_NB_SANDBOX_WAIT="0")}
        with Lab(folder, browser, ui="notebook", env=variables) as jupyter:
            tab = jupyter.open("a.ipynb")
            tab.run_cell(0)
            tab.run_cell(1, wait=False)
            tab.run_cell(2, wait=False)
            assert len(_states(tab.during(1, 2, _until_done(provider)))) >= 2
            tab.page.wait_for_function("() => !document.querySelector('.jp-OutputArea button')")
            assert tab.outputs(1)[1] == ""
            tab.interrupt(2)
            _check_plays(tab, clips=1)
            assert jupyter.errors == []


@pytest.mark.matrix
def test_takes_share_a_card_and_their_ends_are_told(browser, folder, environment):
    """Three takes in one output: one is canceled, the page tells of each end, and the two clips play."""
    write_notebook(
        folder / "a.ipynb",
        f"{WATCHFUL}%config KlingMagics.notify = True",
        "%%kling fox -n 3 -d 3\nA red fox in snow",
        "%%kling fox -n 2 -d 3\nA red fox in snow",
        let_go(1),
        let_go(2),
    )
    # One at a time: the last of them has not been sent yet, and can be canceled however slow the page is.
    variables = {**environment, "KLING_NB_MAX_IN_FLIGHT": "1", "KLING_NB_SANDBOX_WAIT": "60"}
    with Lab(folder, browser, env=variables) as jupyter:
        tab = jupyter.open("a.ipynb")
        tab.run_cell(0)
        tab.run_cell(1, wait=False)
        cancel = tab.page.get_by_role("button", name="Cancel").last
        # On a narrow page the words beside it give way, and not the button.
        tab.page.set_viewport_size({"width": 500, "height": 1000})
        assert cancel.evaluate("(button) => button.scrollWidth <= button.clientWidth")
        tab.page.set_viewport_size({"width": 1280, "height": 1000})
        cancel.click()
        SHOTS.mkdir(parents=True, exist_ok=True)
        told = tab.page.locator(".kling-toast")
        told.filter(has_text=": Canceled").wait_for()
        tab.screenshot(SHOTS / "takes-live.png")
        tab.run_cell(3)
        tab.run_cell(4)
        told.filter(has_text=": Done").nth(1).wait_for()
        assert told.filter(has_text=": Done").count() == 2
        tab.page.wait_for_function("() => !document.querySelector('.jp-OutputArea button')")
        card, strip = tab.outputs(1)
        assert (card.count("A red fox in snow"), card.count("Receipt"), strip) == (1, 3, "")
        assert ("2 done" in card, "1 canceled" in card) == (True, True)
        tab.screenshot(SHOTS / "takes-ended.png")
        _check_plays(tab, clips=2)
        tab.run_cell(2)
        tab.page.wait_for_function("() => !document.querySelector('.jp-OutputArea button')")
        assert jupyter.errors == []


CELLS = (
    "%load_ext kling_nb",
    "%%kling fox -d 3 --negative 'blur, text'\nA red fox crosses fresh snow at dawn, $5 in its mouth",
    "%%kling trailer --ar 9:16\n[5s] A vineyard at golden hour, long shadows\n[3s] Two hands meet",
    "%%kling hare -d 99\nA hare",
    "%%kling -d 10 --audio --dry-run\nA thunderstorm rolls over a small harbour",
    "%kling list",
    "%kling cost",
    "%kling doctor",
)


@pytest.mark.matrix
@pytest.mark.parametrize("look", ["dark and narrow", "light and wide"])
def test_nothing_is_cut_off(browser, folder, environment, look):
    """Cards, plans and lists stay inside a narrow window and a dark theme; pictures are kept for people."""
    dark, width = (True, 620) if look == "dark and narrow" else (False, 1280)
    write_notebook(folder / "a.ipynb", *CELLS)
    with Lab(folder, browser, env=environment, viewport=(width, 1000), dark=dark) as jupyter:
        tab = jupyter.open("a.ipynb")
        # The browser of files takes half of a narrow window.
        tab.page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
        for number in range(len(CELLS)):
            tab.run_cell(number)
            if number in {1, 2}:
                tab.wait_text(number, "Done")
        SHOTS.mkdir(parents=True, exist_ok=True)
        for number in range(1, len(CELLS)):
            tab.cell(number).scroll_into_view_if_needed()
            tab.cell(number).screenshot(path=SHOTS / f"{look.replace(' ', '-')}-{number}.png")
            wide = tab.cell(number).evaluate(
                "(cell) => [...cell.querySelectorAll('.jp-OutputArea-output')]"
                ".map((area) => area.scrollWidth - area.clientWidth)"
            )
            assert max(wide) <= 1, (number, wide)
        # Cards, tables and refusals: nothing that axe calls serious, in either theme.
        passed, faults = judge_page(tab.page, ".jp-OutputArea")
        assert faults == []
        assert passed >= 4
        assert jupyter.errors == []
