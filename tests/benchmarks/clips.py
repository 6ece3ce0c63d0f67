"""Real MP4 files of a wanted size: H.264 noise, and a last box that tells one run from another."""

import os
from fractions import Fraction
from pathlib import Path

_MARK = 64


def mark(run_id: str) -> bytes:
    """The end of a run's clip: no two clips are equal, as no two of a provider's are."""
    return run_id.encode().ljust(_MARK, b"\0")


def make(path: Path, size: int) -> Path:
    """Write a clip of exactly this many bytes; it is made once."""
    if path.exists() and path.stat().st_size == size:
        return path
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.mp4")
    # The wanted size decides the rate; a box of free space fills up what the encoder spared.
    rate = int(size * 8 / 3 * 0.8)
    with av.open(part, "w", options={"movflags": "+faststart"}) as film:
        picture = film.add_stream("libx264", rate=24)
        picture.width, picture.height = (1280, 720) if size > 4_000_000 else (640, 360)
        picture.pix_fmt, picture.bit_rate = "yuv420p", rate
        picture.options = {"preset": "ultrafast", "maxrate": str(rate), "bufsize": str(rate // 4)}
        for number in range(72):
            frame = av.VideoFrame(picture.width, picture.height, "yuv420p")
            for plane in frame.planes:
                plane.update(os.urandom(plane.buffer_size))
            frame.pts, frame.time_base = number, Fraction(1, 24)
            film.mux(picture.encode(frame))
        film.mux(picture.encode(None))
    spare = size - part.stat().st_size
    if spare < _MARK + 8:
        raise ValueError(f"the encoder wrote {-spare} bytes more than there is room for in {size}")
    with part.open("ab") as film:
        film.write(spare.to_bytes(4, "big") + b"free" + bytes(spare - 8))
    part.replace(path)
    return path
