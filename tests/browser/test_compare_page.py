"""The comparison on a page of a real browser: one step is one frame, ranges hold, keys and looks work."""

import io
from itertools import pairwise

import pytest
from PIL import Image

from kling_nb.media.folder import Store
from kling_nb.notebook.viewers.compare import _SCRIPTS, _STYLES
from kling_nb.notebook.viewers.player import clip_state
from kling_nb.notebook.widgets import ClipSource
from support.live_page import LivePage, keep_clip
from support.workbench import until

pytestmark = pytest.mark.browser

WITHIN = 0.53
HOSTILE = "<img src=x onerror='window.hurt=1'> </script> & 'quoted'"
RANGES = "() => [...document.querySelectorAll('input[type=range]')].map((one) => one.ariaLabel)"
WATCH = """(seconds) => new Promise((done) => {
  const videos = [...document.querySelectorAll('video')];
  const seen = [];
  const start = performance.now();
  const look = () => setTimeout(() => {
    seen.push(videos.map((video) => video.currentTime));
    const turns = seen.filter(([now], at) => at > 0 && now < seen[at - 1][0] - 0.2).length;
    const past = (performance.now() - start) / 1000;
    const enough = past > seconds && turns >= 2 && seen.length > 20;
    enough || past > 60 ? done(seen) : requestAnimationFrame(look);
  });
  requestAnimationFrame(look);
})"""


@pytest.fixture
def show(browser, tmp_path):
    """A factory of pages with a comparison of small clips, each described by its shape."""
    pages = []

    def open_page(*shapes, prompt=None, end="longest", breaking=(), **window):
        records = [
            keep_clip(
                tmp_path / "kling_media",
                run_id=f"kl7m2q{number}",
                colour=(60 * number, 200 - 60 * number, 120),
                take=number,
                **{"seconds": 2.0, "codec": "libx264", **{k: v for k, v in shape.items() if k != "wrong"}},
            )
            for number, shape in enumerate(shapes)
        ]
        source = ClipSource(records, store=Store)
        for number in breaking:
            Store(tmp_path / "kling_media").path(records[number]).unlink()
        clips = [
            {
                **clip_state(record, f"take[{number}]", source.why_not(record.id)),
                "title": f"take[{number}]",
                **shapes[number].get("wrong", {}),
                "prompt": None,
            }
            for number, record in enumerate(records)
        ]
        state = {"clips": clips, "prompt": prompt, "facts": [], "end": end}
        pages.append(LivePage(browser, _SCRIPTS, _STYLES, state, source, **window))
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()


def _frames(page, fps=24):
    return [int(time * fps) for time in page.times()]


def test_nothing_plays_by_itself_and_one_is_heard(show):
    """All stand on the first frame, only the first clip with sound is heard, and no network is asked."""
    page = show({}, {"audio": True}, {"audio": True}, prompt=HOSTILE).ready()
    assert page.paused() == [True] * 3
    assert page.times() == pytest.approx([WITHIN / 24] * 3, abs=0.002)
    assert page.muted() == [True, False, True]
    assert page.root.get_by_text(HOSTILE, exact=True).count() == 1
    assert page.page.evaluate("() => window.hurt") is None
    assert {url.split(":")[0] for url in page.requests} <= {"blob", "about"}
    assert len(page.requests) >= 4
    assert page.errors == []


def test_a_step_is_one_frame_of_every_clip(show):
    """Each press moves every clip by exactly one frame, or by a second with Shift; the ends are ends."""
    page = show({}, {"size": (54, 96)}, {"size": (64, 64)}).ready()
    at = 0
    for keys, moved in (
        (["ArrowRight"], 1),
        (["ArrowRight"] * 3, 3),
        (["ArrowLeft"], -1),
        (["Shift+ArrowRight"], 24),
        (["Shift+ArrowLeft"], -24),
        (["End"], 44),
        (["ArrowRight"], 0),
        (["Home"], -47),
        (["ArrowLeft"], 0),
    ):
        page.press(*keys)
        at += moved
        assert _frames(page) == [at] * 3
        assert page.times() == pytest.approx([(at + WITHIN) / 24] * 3, abs=0.002)
        assert f"frame {at + 1} of 48" in page.said()
    page.root.get_by_role("button", name="One frame on").click()
    page.settle()
    assert _frames(page) == [1] * 3
    page.root.get_by_label("Position").fill("30")
    page.settle()
    assert _frames(page) == [30] * 3


def test_clips_of_other_rates_and_lengths_stand_at_the_same_moment(show):
    """The frames are those of the fastest clip; a clip that is over holds its last frame."""
    page = show({"fps": 30}, {"seconds": 1.0}, {"fps": 12}).ready()
    page.press(*["ArrowRight"] * 5)
    assert page.times() == pytest.approx([(5 + WITHIN) / 30] * 3, abs=0.002)
    assert "frame 6 of 60" in page.said()
    page.press("End")
    last = [(59 + WITHIN) / 30, (23 + WITHIN) / 24, (23 + WITHIN) / 12]
    assert page.times() == pytest.approx([min(last[0], each) for each in last], abs=0.002)
    page.root.get_by_label("Ends").select_option("shortest")
    page.press("End")
    assert "frame 30 of 30" in page.said()
    assert page.times() == pytest.approx(
        [(29 + WITHIN) / 30, (23 + WITHIN) / 24, (29 + WITHIN) / 30], abs=0.03
    )


def test_a_range_is_played_over_and_over_and_never_left(show):
    """Playing stays inside the range and comes round; without the loop it stops at the range's end."""
    page = show({}, {}).ready()
    page.press(*["ArrowRight"] * 6, "[", *["ArrowRight"] * 12, "]", " ")
    seen = page.page.evaluate(WATCH, 3)
    first, last = 6 / 24, 19 / 24
    assert len(seen) > 20
    assert min(map(min, seen)) >= first - 0.001
    # A machine that is busy with other things may stop the page for a while, and the clips go on.
    assert sorted(map(max, seen))[int(0.9 * len(seen))] < last + 1 / 24
    assert sum(later[0] < sooner[0] - 0.2 for sooner, later in pairwise(seen)) >= 2
    page.press("l")
    page.stopped()
    assert _frames(page) == [18] * 2
    page.press("\\", "End")
    assert _frames(page) == [47] * 2


def test_a_receipt_that_tells_nonsense_of_its_clip_is_not_believed(show):
    """A receipt may be anybody's: rate and frames that cannot be give way to what the browser measures."""
    page = show({"wrong": {"fps": 9999.0, "frames": 10**15}}, {"wrong": {"frames": 3}}).ready()
    page.press("End")
    assert "frame 48 of 48" in page.said()
    assert _frames(page) == [47] * 2


def test_a_pause_brings_all_to_the_same_frame(show):
    """Space plays and pauses; once paused, all stand in the middle of one and the same frame."""
    page = show({}, {}, {}).ready()
    page.press(" ")
    page.page.wait_for_function(
        "() => [...document.querySelectorAll('video')].every((v) => !v.paused && v.currentTime > 0.4)"
    )
    page.press(" ")
    page.stopped()
    times = page.times()
    assert max(times) - min(times) < 0.001
    assert times[0] * 24 % 1 == pytest.approx(WITHIN, abs=0.05)


def test_sound_is_chosen_by_key_and_button(show):
    """Digits choose a clip, M is its sound, S is only its sound; each clip has a button of its own."""
    page = show({"audio": True}, {"audio": True}, {}).ready()
    page.press("2", "m")
    assert page.muted() == [False, False, True]
    page.press("s")
    assert page.muted() == [True, False, True]
    assert page.root.locator(".kling-status").inner_text() == "Clip 2, take[1]: sound on"
    page.press("3", "m")
    assert page.muted() == [True, False, True]
    page.root.get_by_role("button", name="Sound of clip 1").click()
    assert page.muted() == [False, False, True]
    pressed = page.root.get_by_role("button", name="Sound of clip 1").get_attribute("aria-pressed")
    assert pressed == "true"


def test_speed_by_choice_and_key(show):
    """Speeds go from a quarter to double, and stop there."""
    page = show({}, {}).ready()
    speed = page.root.get_by_label("Speed")
    page.press(*"+++++++")
    assert speed.input_value() == "2"
    page.press(*"----------")
    assert speed.input_value() == "0.25"
    speed.select_option("0.5")
    rates = page.page.evaluate("() => [...document.querySelectorAll('video')].map((v) => v.playbackRate)")
    assert rates == [0.5, 0.5]


COLOURS = """async () => {
  // What a person sees: draw both videos as the styles lay them.
  const boxes = [...document.querySelectorAll('.kling-box')];
  const style = getComputedStyle(boxes[1]);
  return { clip: style.clipPath, opacity: style.opacity, blend: style.mixBlendMode,
           boxes: boxes.map((box) => box.getBoundingClientRect().toJSON()) };
}"""


def test_two_clips_can_be_wiped_and_laid_over_each_other(show):
    """The wipe cuts clip 2 at the divider, by key and by drag; the overlay has opacity and difference."""
    page = show({}, {}).ready()
    page.root.get_by_label("Look").select_option("wipe")
    seen = page.page.evaluate(COLOURS)
    assert seen["boxes"][0] == seen["boxes"][1]
    _shows(page, 0.25, (0, 200, 120))
    _shows(page, 0.75, (60, 140, 120))
    divider = page.root.get_by_label("Place of the wipe")
    divider.press("End")
    _shows(page, 0.75, (0, 200, 120))
    divider.press("Home")
    _shows(page, 0.25, (60, 140, 120))
    box = seen["boxes"][0]
    page.page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    assert divider.input_value() == "50"
    page.root.locator(".kling-number").last.click()
    assert divider.input_value() == "50"
    page.root.get_by_label("Look").select_option("overlay")
    page.root.get_by_label("Opacity of clip 2").press("Home")
    _shows(page, 0.75, (0, 200, 120))
    page.root.get_by_label("Difference").check()
    _shows(page, 0.75, (60, 60, 0))
    page.press("ArrowRight")
    assert _frames(page) == [1, 1]


def _shows(page, share, colour):
    """Wait until this colour is really on the screen at this share of the stage's width."""
    page.settle()

    def shown():
        image = Image.open(io.BytesIO(page.root.locator(".kling-box").first.screenshot())).convert("RGB")
        there = image.getpixel((round(share * image.width), round(0.7 * image.height)))
        return max(abs(a - b) for a, b in zip(there, colour, strict=True)) < 16

    # A picture that was decoded is on the screen a moment later.
    until(shown)


def test_three_clips_are_only_side_by_side(show):
    """Wipe and overlay are for exactly two; a third clip takes them away."""
    page = show({}, {}, {}).ready()
    assert page.root.get_by_label("Look").count() == 0
    assert page.page.evaluate(RANGES) == ["Position"]


def test_a_clip_that_is_not_here_says_so_and_the_others_play(show):
    """Its place has the words, the rest works; with none left there is no control that does nothing."""
    page = show({}, {}, {}, breaking=[1]).ready()
    places = page.root.locator(".kling-missing").all_inner_texts()
    assert len(places) == 1
    assert "is missing from the media folder" in places[0]
    page.press("ArrowRight")
    assert _frames(page) == [1, 1]
    assert page.errors == []


def test_no_clip_at_all_is_said(show):
    """A comparison of nothing but missing clips says that, and offers nothing to press but Close."""
    page = show({}, {}, breaking=[0, 1])
    page.root.get_by_text("There is no clip to play.").wait_for()
    assert page.root.get_by_role("button").all_inner_texts() == ["Close"]


def test_a_clip_that_the_browser_cannot_play_says_so(show, tmp_path):
    """The words name the codec, and the other clip plays."""
    page = show({}, {"codec": "mpeg4"}).ready()
    assert "cannot play the clip (mpeg4)" in page.root.locator(".kling-missing").inner_text()
    assert len(page.times()) == 1


def test_closing_gives_everything_back(show):
    """Close empties the view, tells the kernel, and lets go of the clips."""
    page = show({}, {}).ready()
    page.press(" ")
    page.root.get_by_role("button", name="Close the comparison").click()
    page.page.wait_for_function("() => !document.querySelector('video')")
    assert page.page.evaluate("() => window.sent.at(-1)") == {"kind": "close"}
    assert page.errors == []


def test_keys_of_fields_and_of_the_browser_stay_theirs(show):
    """With the focus in a drop-down or on a button, keys do what they do there; Ctrl keys are not taken."""
    page = show({}, {}).ready()
    speed = page.root.get_by_label("Speed")
    speed.focus()
    # A notebook looks for this at the element itself, and at nothing around it.
    suppressed = "data-lm-suppress-shortcuts"
    assert speed.get_attribute(suppressed) == "true"
    page.page.keyboard.down("Control")
    assert speed.get_attribute(suppressed) is None, "Ctrl+S would not save the notebook"
    page.page.keyboard.up("Control")
    assert speed.get_attribute(suppressed) == "true"
    speed.press("ArrowDown")
    page.settle()
    assert _frames(page) == [0, 0]
    page.root.press("Control+ArrowRight")
    page.settle()
    assert _frames(page) == [0, 0]
    page.root.get_by_role("button", name="One frame on").press(" ")
    page.settle()
    assert _frames(page) == [1, 1]
