"""The sandbox renders real films: codec, size, length, sound, cuts, words in the picture, one file a plan."""

import asyncio
import threading
import time

import av
import pytest
from PIL import Image, ImageChops, ImageFont

from kling_nb.sandbox.render.cache import Clips
from kling_nb.sandbox.render.canvas import SIZES, Caption, Stage, clean, wrap
from kling_nb.sandbox.render.clip import FPS, ClipPlan, Shot, StoppedError, render
from support.sandbox import Bench

FOX = "A red fox crosses fresh snow at dawn, slow dolly-in, soft rim light"
BADGE = (24, 28, 136, 56)


def plan(*shots, ratio="16:9", audio=False):
    return ClipPlan(shots or (Shot(FOX, 3),), ratio, audio=audio, footer="test")


@pytest.fixture
def film(tmp_path):
    """Renders a plan and opens it."""
    opened = []

    def make(wanted):
        target = tmp_path / f"{len(opened)}.mp4"
        render(wanted, target)
        opened.append(av.open(target))
        return opened[-1]

    yield make
    for container in opened:
        container.close()


def pictures(container):
    return [frame.to_image() for frame in container.decode(video=0)]


def distance(one, other):
    """Mean difference of two pictures, 0..255."""
    histogram = ImageChops.difference(one, other).convert("L").histogram()
    return sum(level * count for level, count in enumerate(histogram)) / sum(histogram)


@pytest.mark.parametrize("ratio", list(SIZES))
@pytest.mark.parametrize("audio", [False, True])
def test_a_film_is_what_was_asked_for(film, ratio, audio):
    """H.264 in 4:2:0 at 24 frames, the size of its ratio, whole seconds, AAC if and only if asked."""
    container = film(plan(Shot(FOX, 4), ratio=ratio, audio=audio))
    video = container.streams.video[0]
    assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert (video.width, video.height) == SIZES[ratio]
    assert (video.average_rate, video.frames) == (FPS, 4 * FPS)
    assert video.duration * video.time_base == 4
    assert container.duration == 4_000_000
    sounds = container.streams.audio
    assert [(s.codec_context.name, s.duration * s.time_base) for s in sounds] == [("aac", 4)] * audio


def test_sizes_are_exactly_in_proportion():
    """Each size has exactly the ratio of its name and even sides."""
    for name, (width, height) in SIZES.items():
        across, down = map(int, name.split(":"))
        assert width * down == height * across
        assert (width % 2, height % 2) == (0, 0)


def test_the_sound_is_not_silence(film):
    """The tone can be heard."""
    container = film(plan(audio=True))
    loudest = max(max(memoryview(frame.planes[0]).cast("f")) for frame in container.decode(audio=0))
    assert 0.02 < loudest < 0.5


def test_shots_are_hard_cuts_at_their_second(film):
    """The picture jumps exactly where a shot begins, on a key frame, and nowhere else."""
    container = film(plan(Shot("one", 3), Shot("two", 4), Shot("three", 3)))
    shown = pictures(container)
    jumps = [n for n in range(1, len(shown)) if distance(shown[n - 1], shown[n]) > 15]
    assert jumps == [3 * FPS, 7 * FPS]
    container.seek(0)
    keys = [
        round(p.pts * p.time_base * FPS)
        for p in container.demux(video=0)
        if p.is_keyframe and p.pts is not None
    ]
    assert {0, *jumps} <= set(keys)


def test_every_frame_is_marked_sandbox(film):
    """The badge stands in the same place in every frame: amber with dark letters."""
    shown = pictures(film(plan(Shot("one", 3), Shot("two", 3))))
    badges = [picture.crop(BADGE) for picture in shown]
    assert all(distance(badges[0], badge) < 6 for badge in badges)
    levels = badges[0].convert("L").getextrema()
    assert (levels[0] < 60, levels[1] > 170) == (True, True)


def test_the_prompt_is_in_the_picture():
    """Another prompt, shot number or footer gives another picture; the same gives the same."""
    captions = [
        Caption(FOX, 1, 2, "f"),
        Caption("a blue owl", 1, 2, "f"),
        Caption(FOX, 1, 3, "f"),
        Caption(FOX, 1, 2, "g"),
    ]
    frames = [Stage((640, 360), caption).frame(at_s=0, through=0).tobytes() for caption in captions]
    assert len(set(frames)) == 4
    again = Stage((640, 360), captions[0]).frame(at_s=0, through=0).tobytes()
    assert again == frames[0]


def test_the_picture_moves(film):
    """Frames differ from each other: the clock, the bar and the light move."""
    stage = Stage((640, 360), Caption(FOX, 1, 1, "f"))
    frames = {stage.frame(at_s=n / FPS, through=n / 72).tobytes() for n in range(72)}
    assert len(frames) == 72
    shown = pictures(film(plan()))
    assert distance(shown[0], shown[36]) > 0.5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\x00\x07",
        "\ud800 lone",
        "日本語 العربية हिन्दी",
        "\U0001f98a\u200d\u202e",
        "x" * 100_000,
        "word " * 20_000,
        "<b>&amp;",
    ],
)
@pytest.mark.parametrize("size", list(SIZES.values()))
def test_any_text_can_be_drawn(text, size):
    """No prompt makes the renderer fail or take long."""
    begun = time.process_time()
    picture = Stage(size, Caption(text, 1, 1, text)).frame(at_s=0, through=0.5)
    assert picture.size == size
    assert time.process_time() - begun < 5


def test_wrapping_keeps_every_word_inside():
    """Lines fit, words stay in order, long words are cut, too much ends in an ellipsis."""
    font = ImageFont.load_default(20)
    lines = wrap(FOX + " " + "x" * 100, font, 200, 30)
    assert all(font.getlength(line) <= 200 for line in lines)
    assert "".join(lines).replace(" ", "") == (FOX + "x" * 100).replace(" ", "")
    short = wrap(FOX, font, 100, 3)
    assert (len(short), short[-1][-3:]) == (3, "...")
    assert font.getlength(short[-1]) <= 100


def test_clean_leaves_one_line_of_plain_words():
    """Line ends, control characters and typographic marks become what the font can draw."""
    assert clean("a\r\n\tb\x00c \u2014 \u201cd\u201d\ud800") == 'a b c - "d"?'


def test_the_index_stands_in_front(tmp_path):
    """faststart: moov comes before mdat, and no half file is left."""
    render(plan(), tmp_path / "a.mp4")
    raw = (tmp_path / "a.mp4").read_bytes()
    assert 0 < raw.index(b"moov") < raw.index(b"mdat")
    assert [path.name for path in tmp_path.glob("*.mp4")] == ["a.mp4"]


def test_a_plan_that_cannot_be_made_is_refused(tmp_path):
    """No shot, an empty shot or an unknown ratio is a ValueError, and no file appears."""
    for wrong in (ClipPlan((), "16:9", audio=False, footer=""), plan(Shot("x", 0)), plan(ratio="4:3")):
        with pytest.raises(ValueError, match=r"shot|ratio"):
            render(wrong, tmp_path / "a.mp4")
    assert not list(tmp_path.glob("*.mp4"))


def test_a_film_nobody_waits_for_is_given_up(tmp_path):
    """Told to stop, it stops at the next frame and leaves no file."""
    answers = iter([False] * 10 + [True])
    with pytest.raises(StoppedError):
        render(plan(Shot(FOX, 15)), tmp_path / "a.mp4", lambda: next(answers))
    assert not list(tmp_path.glob("*.mp4"))


def test_equal_requests_share_a_few_films():
    """Takes of one request look different from each other, and are still rendered four times at the most."""
    with Bench() as bench:
        for prompt in ("a",) * 9 + ("b",):
            bench.comfy(prompt=prompt)
        bench.advance(0)
        assert bench.stats()["accepted"] == 10
        assert bench.stats()["rendered"] == 5


def test_rendering_does_not_hold_the_loop():
    """While a long film is being made, the server answers; the film comes later."""
    with Bench() as bench:
        bench.comfy(duration=15, sound=True)
        assert bench.stats()["rendered"] == 0
        bench.advance(100)
        assert bench.stats()["rendered"] == 1


def test_the_cache_is_bounded_and_renders_again():
    """The oldest file goes when there are too many; asked for again it is made again."""

    async def work():
        clips = Clips(limit=2)
        plans = [plan(Shot(str(n), 1)) for n in range(4)]
        for wanted in plans:
            assert (await clips.get(wanted)).exists()
        kept = len(list(clips.folder.glob("*.mp4")))
        again = await clips.get(plans[0])
        told = kept, again.exists(), clips.rendered
        clips.close()
        return *told, clips.folder.exists()

    others = set(threading.enumerate())
    kept, again, rendered, left = asyncio.run(work())
    assert kept <= 3
    assert (again, rendered, left) == (True, 5, False)
    mine = set(threading.enumerate()) - others
    assert not [thread for thread in mine if thread.name.startswith("kling-nb-sandbox")]


def test_a_failed_render_fails_the_run_and_can_be_tried_again():
    """A broken renderer ends the run as failed, not as running for ever."""
    with Bench() as bench:
        folder = bench.sandbox.provider.clips.folder
        folder.chmod(0o500)
        clips = bench.sandbox.provider.clips
        good, clips.folder = clips.folder, folder / "missing"
        run_id = bench.flow().json()["id"]
        bench.advance(100)
        run = bench.flow_run(run_id).json()
        assert (run["status_code"], run["failure_code"]) == ("failed", "PROVIDER_ERROR")
        clips.folder = good
        folder.chmod(0o700)
        run_id = bench.flow().json()["id"]
        bench.advance(100)
        assert bench.flow_run(run_id).json()["status_code"] == "succeeded"


def test_storyboards_become_shots_of_the_asked_length(film):
    """Shots that do not add up are cut or held, so that the film still has its duration."""
    with Bench() as bench:
        shots = [{"prompt": "one", "duration": "3"}, {"prompt": "two", "duration": "9"}]
        for duration, expected in (("5", 5), ("15", 15), (None, 12)):
            bench.flow(prompt=None, multi_prompt=shots, duration=duration)
            assert bench.stats()["runs"][-1]["seconds"] == expected


def test_a_frame_is_a_plain_picture():
    """Frames are RGB of the stage's size, whatever the moment."""
    stage = Stage((360, 640), Caption(FOX, 2, 3, "f"))
    for through in (0.0, 0.3, 1.0):
        frame = stage.frame(at_s=15 * through, through=through)
        assert isinstance(frame, Image.Image)
        assert (frame.mode, frame.size) == ("RGB", (360, 640))
