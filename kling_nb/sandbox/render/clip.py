"""The film: a request becomes a real MP4 file, H.264 and (when asked for) AAC.

Invariants:
    * The picture lasts exactly the requested whole seconds at 24 frames a second, and every shot begins on
      a key frame at its own second.
    * A sound track is there if and only if it was asked for.
    * Equal plans give equal files' names (`ClipPlan.digest`), which is what lets a cache stand in front.
    * The index stands at the front of the file (`faststart`), so that a browser plays it while it loads.
    * A file is written beside its final name and moved into place whole: nobody ever sees half of one.
"""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import av

from kling_nb.sandbox.render.canvas import SIZES, Caption, Planes, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FPS: Final = 24


"""Frames a second."""


_RATE: Final = 48_000
_BLOCK: Final = 1024


"""Samples a channel in one AAC frame."""


_PITCHES_HZ: Final = (240, 300, 320, 400, 200, 480)


"""Tone of each shot. Each divides the sample rate, so that one period can be laid end to end."""


@dataclass(frozen=True)
class Shot:
    """One stretch of a clip."""

    text: str
    """Its prompt, drawn into the picture."""
    seconds: int
    """Its length, at least 1."""


@dataclass(frozen=True)
class ClipPlan:
    """All that decides how a clip looks and sounds."""

    shots: tuple[Shot, ...]
    """In order, at least one."""
    aspect_ratio: str
    """A key of `canvas.SIZES`."""
    audio: bool
    """Whether there is a tone."""
    take: int = 0
    """Which of the pictures: takes of one request look different, as a model's would."""

    @property
    def seconds(self) -> int:
        """Length of the clip."""
        return sum(shot.seconds for shot in self.shots)

    def without_words(self) -> ClipPlan:
        """The same plan with hashes in the place of the prompts, for words that nobody else may read."""
        hashes = [hashlib.sha256(shot.text.encode("utf-8", "replace")).hexdigest() for shot in self.shots]
        shots = [
            replace(shot, text=f"private prompt sha256:{found[:12]}")
            for shot, found in zip(self.shots, hashes, strict=True)
        ]
        return replace(self, shots=tuple(shots))

    @property
    def digest(self) -> str:
        """A name made of the content: equal plans share it."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class StoppedError(Exception):
    """The film was given up half-way because nobody waits for it any more."""


def render(plan: ClipPlan, target: Path, stopped: Callable[[], bool] = bool) -> None:
    """Make the MP4 of a plan. It blocks: call it off the event loop.

    Args:
        plan: What to draw.
        target: The file to make; a file of that name is replaced.
        stopped: Asked before every frame; True gives the film up.

    Raises:
        StoppedError: `stopped` said so.
        ValueError: The plan has no shot, a shot shorter than 1 s or an unknown aspect ratio.

    Example:
        >>> from pathlib import Path
        >>> plan = ClipPlan((Shot("a red fox", 3),), "16:9", audio=False)
        >>> render(plan, Path("/tmp/fox.mp4"))
    """
    if not plan.shots or any(shot.seconds < 1 for shot in plan.shots):
        msg = "a clip needs at least one shot, and every shot at least one second"
        raise ValueError(msg)
    if plan.aspect_ratio not in SIZES:
        msg = f"aspect ratio {plan.aspect_ratio!r} is none of {sorted(SIZES)}"
        raise ValueError(msg)
    part = target.with_suffix(".part.mp4")
    try:
        _film(plan, part, stopped)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _film(plan: ClipPlan, part: Path, stopped: Callable[[], bool]) -> None:
    with av.open(part, "w", format="mp4", options={"movflags": "+faststart"}) as film:
        picture = film.add_stream("libx264", rate=FPS)
        picture.width, picture.height = SIZES[plan.aspect_ratio]
        picture.pix_fmt = "yuv420p"
        picture.time_base = Fraction(1, FPS)
        # One thread: the machine's other cores belong to the notebook. Flat pictures need no more preset.
        picture.codec_context.thread_count = 1
        picture.options = {"preset": "ultrafast", "qp": "26"}
        sound = film.add_stream("aac", rate=_RATE, layout="mono") if plan.audio else None
        if sound is not None:
            sound.bit_rate = 48_000
        tones = _tones(plan) if sound is not None else iter(())
        written = 0
        for number, frame in enumerate(_frames(plan), 1):
            if stopped():
                raise StoppedError
            film.mux(picture.encode(frame))
            # Interleave: a player that streams must not have to look far for the sound of a picture.
            while sound is not None and written * FPS < number * _RATE:
                block = next(tones, None)
                if block is None:
                    break
                written += block.samples
                film.mux(sound.encode(block))
        film.mux(picture.encode(None))
        if sound is not None:
            film.mux(sound.encode(None))


def _frames(plan: ClipPlan) -> Iterator[av.VideoFrame]:
    size, total = SIZES[plan.aspect_ratio], plan.seconds * FPS
    words = "\n".join(shot.text for shot in plan.shots)
    seed = int.from_bytes(hashlib.sha256(words.encode("utf-8", "replace")).digest()[:8])
    ends = list(accumulate(shot.seconds for shot in plan.shots))
    foot = f"{plan.seconds} s, {plan.aspect_ratio}, {'tone' if plan.audio else 'silent'}"
    index = 0
    for number, shot in enumerate(plan.shots, 1):
        caption = Caption(
            shot.text,
            number,
            len(plan.shots),
            foot,
            seed=seed,
            take=plan.take,
            cuts=tuple(end / plan.seconds for end in ends[:-1]),
        )
        stage, steps = Stage(size, caption), shot.seconds * FPS
        for step in range(steps):
            drawn = stage.frame(
                at_s=index / FPS, through=index / max(total - 1, 1), within=step / max(steps - 1, 1)
            )
            frame = as_frame(drawn)
            frame.pts = index
            frame.time_base = Fraction(1, FPS)
            if step == 0:
                frame.pict_type = av.video.frame.PictureType.I
            yield frame
            index += 1


def as_frame(drawn: Planes) -> av.VideoFrame:
    """Copy what a stage has drawn into a frame for the encoder."""
    frame = av.VideoFrame(*drawn.luma.size, "yuv420p")
    for plane, image in zip(frame.planes, drawn, strict=True):
        plane.update(image.tobytes("raw", "L", plane.line_size, 1))
    return frame


def _tones(plan: ClipPlan) -> Iterator[av.AudioFrame]:
    """The sound in blocks of one AAC frame: a quiet tone, another pitch for every shot."""
    track = array("h")
    for number, shot in enumerate(plan.shots):
        period = _RATE // _PITCHES_HZ[number % len(_PITCHES_HZ)]
        wave = array("h", (round(2600 * math.sin(2 * math.pi * i / period)) for i in range(period)))
        track.extend(wave * (shot.seconds * _RATE // period))
    for start in range(0, len(track), _BLOCK):
        samples = track[start : start + _BLOCK]
        block = av.AudioFrame(format="s16", layout="mono", samples=len(samples), align=1)
        block.planes[0].update(samples.tobytes())
        block.sample_rate = _RATE
        block.pts = start
        block.time_base = Fraction(1, _RATE)
        yield block
