"""The live player on a page of a real browser: frame steps, shot marks, sound, and words where none plays."""

import pytest

from kling_nb.media.folder import Store
from kling_nb.notebook.viewers.player import _SCRIPTS, _STYLES, clip_state, shot_marks
from kling_nb.notebook.widgets import ClipSource
from kling_nb.records.request import make_request
from support.live_page import LivePage, keep_clip

pytestmark = pytest.mark.browser

WITHIN = 0.53
SHOTS = ((3, "A <i onmouseover=hurt()>vineyard</i>"), (5, "Two hands"), (4, "Hills"))


@pytest.fixture
def show(browser, tmp_path):
    """A factory of pages with the player of one small clip."""
    pages = []

    def open_page(*, shots=(), gone=False, **shape):
        told = [{"prompt": words, "duration": length} for length, words in shots]
        asked = {"request": make_request(shots=told)} if shots else {}
        record = keep_clip(tmp_path / "kling_media", run_id="kl7m2q", **asked, **{"seconds": 2.0, **shape})
        source = ClipSource([record], store=Store)
        if gone:
            Store(tmp_path / "kling_media").path(record).unlink()
        clip = clip_state(record, "trailer", source.why_not(record.id))
        state = {"clip": clip, "marks": shot_marks(record)}
        pages.append(LivePage(browser, _SCRIPTS, _STYLES, state, source))
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()


def _frame(page):
    [time] = page.times()
    return int(time * 24)


def test_marks_go_to_the_first_frame_of_their_shot(show):
    """Marks stand at the shots' shares of the measured clip, by click and by key, labelled and as text."""
    page = show(shots=SHOTS).ready()
    marks = page.root.locator(".kling-marks button")
    assert marks.all_inner_texts() == ["1 0.50 s", "2 0.83 s", "3 0.67 s"]
    assert marks.nth(0).get_attribute("aria-label") == f"Shot 1, from 0.00 s: {SHOTS[0][1]}"
    marks.nth(2).click()
    page.settle()
    assert _frame(page) == 32
    assert page.root.locator(".kling-shot").inner_text() == "Shot 3: Hills"
    page.press(",")
    assert _frame(page) == 12
    assert [mark.get_attribute("aria-pressed") for mark in marks.all()] == ["false", "true", "false"]
    page.press("ArrowLeft")
    assert page.root.locator(".kling-shot").inner_text() == f"Shot 1: {SHOTS[0][1]}"
    page.press(".", ".", ".")
    assert _frame(page) == 32
    assert page.errors == []


def test_a_clip_steps_loops_and_is_heard(show):
    """One step is one frame; it stops at the end unless it loops; its sound is on, and M is the switch."""
    page = show(audio=True, seconds=1.0).ready()
    assert page.muted() == [False]
    assert page.root.locator(".kling-marks").count() == 0
    page.press("ArrowRight", "ArrowRight", "m")
    assert _frame(page) == 2
    assert page.muted() == [True]
    page.press("End", "ArrowLeft", "ArrowLeft", " ")
    page.stopped()
    assert _frame(page) == 23
    assert page.times() == pytest.approx([(23 + WITHIN) / 24], abs=0.03)
    page.press("l", " ")
    page.page.wait_for_function(
        "() => { const v = document.querySelector('video'); return !v.paused && v.currentTime < 0.6; }"
    )
    assert page.errors == []


def test_a_clip_that_is_gone_says_so(show):
    """Words stand where the picture would, and there is nothing to press but Close."""
    page = show(gone=True)
    page.root.get_by_text("is missing from the media folder").wait_for()
    assert page.root.get_by_role("button").all_inner_texts() == ["Close"]
