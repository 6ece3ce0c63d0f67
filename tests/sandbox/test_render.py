"""The sandbox renders real films: codec, size, length, sound, cuts, words in the picture, one file a plan."""

import asyncio
import threading
import time
from dataclasses import replace
from itertools import combinations

import av
import pytest
from PIL import ImageChops

from kling_nb.sandbox.render import letters
from kling_nb.sandbox.render.cache import Clips
from kling_nb.sandbox.render.canvas import SIZES, Caption, Stage
from kling_nb.sandbox.render.clip import FPS, ClipPlan, Shot, StoppedError, as_frame, render
from kling_nb.sandbox.render.letters import Letters, clean
from kling_nb.sandbox.runcomfy import PRICES
from support.sandbox import Bench

FOX = "A red fox crosses fresh snow at dawn, slow dolly-in, soft rim light"
BADGE = (22, 20, 110, 46)


def plan(*shots, ratio="16:9", audio=False):
    return ClipPlan(shots or (Shot(FOX, 3),), ratio, audio=audio)


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


def picture(drawn):
    """What a stage has drawn, as an RGB picture."""
    return as_frame(drawn).to_image()


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


def still(caption, *, size=(640, 360), at=0.0):
    """One frame of a shot as a picture."""
    return picture(Stage(size, caption).frame(at_s=4 * at, through=at, within=at))


def test_the_prompt_is_in_the_picture():
    """Another prompt, shot number or foot gives another picture; the same gives the same."""
    captions = [
        Caption(FOX, 1, 2, "f"),
        Caption("a blue owl", 1, 2, "f"),
        Caption(FOX, 1, 3, "f"),
        Caption(FOX, 1, 2, "g"),
    ]
    assert len({still(caption).tobytes() for caption in captions}) == 4
    assert still(captions[0]).tobytes() == still(captions[0]).tobytes()


def test_prompts_and_takes_are_told_apart_at_a_glance(film):
    """Other words, and other takes of the same, give pictures that differ far beyond their letters."""
    plans = [plan(Shot(f"prompt {number}", 1)) for number in range(6)]
    plans += [replace(plans[0], take=take) for take in (1, 2, 3)]
    shown = [pictures(film(wanted))[0].crop((0, 60, 640, 200)) for wanted in plans]
    assert min(distance(one, other) for one, other in combinations(shown, 2)) > 12


def test_a_picture_tells_no_provider_and_no_model():
    """Both wires and every model make the same films of the same words, so that clips can be judged blind."""
    with Bench() as bench:
        for model in PRICES:
            assert bench.comfy(model=model, prompt=FOX, duration=5, sound=False).status_code == 200
        assert bench.flow(prompt=FOX, duration="5", generate_audio=False).status_code == 201
        plans = [run.plan for run in bench.sandbox.provider.runs]
    assert len({replace(each, take=0).digest for each in plans}) == 1
    assert [each.take for each in plans] == list(range(len(PRICES) + 1))


def test_the_picture_moves(film):
    """Frames differ from each other: the clock, the bar and the light move."""
    stage = Stage((640, 360), Caption(FOX, 1, 1, "f"))
    ways = [(n / FPS, n / 71, n / 71) for n in range(72)]
    frames = {stage.frame(at_s=at, through=part, within=part).luma.tobytes() for at, part, _ in ways}
    assert len(frames) == 72
    shown = pictures(film(plan()))
    assert distance(shown[0], shown[36]) > 0.5


def test_a_frame_keeps_nothing_of_the_one_before():
    """What moved is taken away whole: a frame is the same whatever was drawn before it."""
    used = Stage((360, 640), Caption(FOX, 1, 1))
    for n in range(30):
        used.frame(at_s=n / 7, through=1 - n / 30, within=n / 29)
    drawn = picture(used.frame(at_s=1.0, through=0.3, within=0.6))
    fresh = picture(Stage((360, 640), Caption(FOX, 1, 1)).frame(at_s=1.0, through=0.3, within=0.6))
    assert drawn.tobytes() == fresh.tobytes()


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
    assert still(Caption(text, 1, 1), size=size, at=0.5).size == size
    assert time.process_time() - begun < 5


@pytest.fixture
def no_fonts(monkeypatch, tmp_path):
    """A machine without any font of its own."""
    monkeypatch.setattr(letters, "_faces", list)
    letters._face.cache_clear()
    yield
    letters._face.cache_clear()


def test_a_letter_that_no_font_has_is_left_out(no_fonts):
    """Never a box: words nobody here can draw leave no trace, and those beside them stand."""
    assert Letters(20).wrap("a 红狐 fox, \u0939\u093f", 1000) == ["a fox,"]
    assert Letters(20).length("红狐") == 0
    bare, foreign = (still(Caption(text, 1, 1, seed=5)) for text in ("fox", "红狐 fox ثعلب"))
    assert bare.tobytes() == foreign.tobytes()


def test_a_font_of_the_machine_draws_what_the_built_in_one_lacks(monkeypatch, tmp_path):
    """A stand-in for such a font: each stretch of text has the first font that has its letters."""
    face = tmp_path / "other.ttf"
    monkeypatch.setattr(letters, "_faces", lambda: [face])
    monkeypatch.setattr(
        letters, "_has", lambda font, char: (font == face) == (char in "红狐ثعلب") or char == " "
    )
    letters._face.cache_clear()
    assert list(letters._spans("a 红狐 fox")) == [(None, "a "), (face, "红狐 "), (None, "fox")]
    letters._face.cache_clear()


@pytest.mark.parametrize(("text", "leftwards"), [("a ثعلب", False), ("12 ثعلب (a)", True), ("红狐", False)])
def test_a_line_begins_where_its_script_does(text, leftwards):
    """Arabic and Hebrew begin on the right, also after digits."""
    assert letters.goes_left(text) is leftwards


def test_wrapping_keeps_every_word_inside():
    """Lines fit, words stay in order, long words are cut, too much ends in an ellipsis."""
    made = Letters(20)
    lines = made.wrap(FOX + " " + "x" * 100, 200, 30)
    assert all(made.length(line) <= 200 for line in lines)
    assert "".join(lines).replace(" ", "") == (FOX + "x" * 100).replace(" ", "")
    short = made.wrap(FOX, 100, 3)
    assert (len(short), short[-1][-3:]) == (3, "...")
    assert made.length(short[-1]) <= 100


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
    for wrong in (ClipPlan((), "16:9", audio=False), plan(Shot("x", 0)), plan(ratio="4:3")):
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


def test_a_frame_is_what_a_film_is_made_of():
    """Frames are planes in the range of a film: full luma, chroma at half the size each way."""
    stage = Stage((360, 640), Caption(FOX, 2, 3, "f"))
    for part in (0.0, 0.3, 1.0):
        frame = stage.frame(at_s=15 * part, through=part, within=part)
        assert [(plane.mode, plane.size) for plane in frame] == [("L", (360, 640))] + [("L", (180, 320))] * 2
        assert all(low >= 16 and high <= 240 for low, high in (plane.getextrema() for plane in frame))
