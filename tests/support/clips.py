"""Real, tiny MP4 files for tests (H.264, AAC where asked for, index in front), and a record for each."""

import math
import os
from array import array
from contextlib import contextmanager
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import av
from PIL import Image

from kling_nb.records.money import Estimate
from kling_nb.records.request import TextToVideo, request_key, run_key
from kling_nb.records.run import RunRecord

RATE = 48_000


@contextmanager
def _scheduled_as_before():
    """For root, SVT-AV1 makes its caller a real-time thread, and all that it starts: others would starve."""
    policy = os.sched_getscheduler(0) if hasattr(os, "sched_getscheduler") else None
    try:
        yield
    finally:
        if policy is not None:
            os.sched_setscheduler(0, policy, os.sched_param(0))


def make_clip(
    path: Path,
    *,
    seconds: float = 1.0,
    size: tuple[int, int] = (96, 54),
    fps: int = 24,
    audio: bool = False,
    black_s: float = 0.0,
    colour: tuple[int, int, int] = (180, 90, 40),
    noise: bool = False,
    codec: str = "libx264",
    pixels: str = "yuv420p",
) -> Path:
    """Write a clip and give its path back.

    Args:
        path: The file to make; its suffix decides the container.
        seconds: Of picture and sound.
        size: Width and height in even pixels.
        fps: Frames a second.
        audio: Whether there is a tone.
        black_s: Seconds of black before the picture.
        colour: Of the picture; another colour makes other bytes.
        noise: Whether the picture is noise, which compresses badly.
        codec: Of the picture.
        pixels: The format of its pixels.
    """
    options = {"movflags": "+faststart"} if path.suffix in {".mp4", ".mov"} else {}
    with _scheduled_as_before(), av.open(path, "w", options=options) as film:
        picture = film.add_stream(codec, rate=fps)
        picture.width, picture.height = size
        picture.pix_fmt = pixels
        picture.codec_context.thread_count = 1
        if codec in {"libx264", "libx265"}:
            picture.options = {"preset": "ultrafast"}
        sound = None
        if audio:
            sound = film.add_stream("aac" if path.suffix != ".webm" else "libopus", rate=RATE, layout="mono")
        for number in range(round(seconds * fps)):
            frame = av.VideoFrame.from_image(_image(number, size, number < black_s * fps, colour, noise))
            frame.pts, frame.time_base = number, Fraction(1, fps)
            film.mux(picture.encode(frame))
        film.mux(picture.encode(None))
        if sound is not None:
            for start in range(0, round(seconds * RATE), 1024):
                film.mux(sound.encode(_tone(start)))
            film.mux(sound.encode(None))
    return path


def _image(number, size, black, colour, noise):
    if black:
        return Image.new("RGB", size)
    if noise:
        return Image.merge("RGB", [Image.effect_noise(size, 120) for _ in range(3)])
    image = Image.new("RGB", size, colour)
    image.paste((250, 250, 250), (number % size[0], 4, number % size[0] + 8, 12))
    return image


def _tone(start):
    wave = array("h", (round(3000 * math.sin((start + i) / 20)) for i in range(1024)))
    block = av.AudioFrame(format="s16", layout="mono", samples=1024, align=1)
    block.planes[0].update(wave.tobytes())
    block.sample_rate, block.pts, block.time_base = RATE, start, Fraction(1, RATE)
    return block


def make_record(**changes):
    """Give a whole, ordinary record; keys follow the request, model, provider and take."""
    request = changes.pop("request", None) or TextToVideo(prompt=changes.pop("prompt", "A red fox at dawn"))
    fields = {
        "id": "kl7m2q",
        "model": "kling-3.0-pro",
        "provider": "runflow",
        "provider_model": "kling/kling-3.0/pro/text-to-video",
        "origin": "https://api.runflow.io",
        "take": 0,
        "created_at": datetime(2026, 11, 21, 14, 0, 47, tzinfo=UTC),
        "estimate": Estimate(micros=560_000, reserve_micros=560_000, usd_per_s="0.112", basis="list"),
        **changes,
    }
    return RunRecord(
        request=request,
        request_key=request_key(request, fields["model"], fields["take"]),
        run_key=run_key(request, fields["model"], fields["provider"], fields["take"]),
        **fields,
    )
