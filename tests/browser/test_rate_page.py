"""The live ballot on a page of a real browser: what counts as a vote."""

import pytest

from kling_nb.media.folder import Store
from kling_nb.notebook.viewers.rate import _SCRIPTS, _STYLES
from kling_nb.notebook.widgets import ClipSource
from support.live_page import LivePage, keep_clip

pytestmark = pytest.mark.browser

PAIR = {
    "mark": "m",
    "left": "left01",
    "right": "right1",
    "prompt": "a " * 900,
    "shape": "16:9",
    "sound": False,
}
SENT = "(kind) => window.sent.filter((message) => message.kind === kind).length"


class BallotPage(LivePage):
    """A page whose kernel has one pair."""

    def _answer(self, message):
        if message["kind"] == "hello":
            return [{"kind": "showing", "pair": PAIR, "done": 0, "whole": 1, "undo": False, "why": ""}, []]
        return super()._answer(message)


def test_a_vote_counts_only_with_both_clips(browser, tmp_path):
    """A pair of which one clip is missing can be skipped and not voted on; its long prompt scrolls by key."""
    records = [keep_clip(tmp_path / "kling_media", run_id=PAIR[side]) for side in ("left", "right")]
    Store(tmp_path / "kling_media").path(records[1]).unlink()
    source = ClipSource(records, store=Store)
    page = BallotPage(browser, _SCRIPTS, _STYLES, {"axes": []}, source)
    page.root.locator(".kling-status", has_text="Without both clips there is no vote").wait_for()
    page.root.get_by_label("Prompt of both clips").focus()
    assert page.page.evaluate(
        "() => document.activeElement.scrollHeight - document.activeElement.clientHeight"
    )
    page.root.press("1")
    page.root.get_by_role("button", name="Both bad").click()
    page.root.press("n")
    assert [page.page.evaluate(SENT, kind) for kind in ("vote", "skip")] == [0, 1]
    assert page.errors == []
    page.close()
