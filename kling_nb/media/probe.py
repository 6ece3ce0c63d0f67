"""What a file really is: its kind by its first bytes, its facts by reading it, one small still of it.

Invariants: a file is opened by its own format only, after its first bytes were looked at, and it cannot
make the decoder open another file or address; nothing is believed that was not measured; a file is
only read. PyAV and Pillow load on first use.
"""

import base64
import contextlib
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar, cast

from kling_nb.errors import StoreError
from kling_nb.files import open_plain
from kling_nb.media.marks import Box, BrokenBoxError, marks_in, outer_boxes
from kling_nb.media.sample_tables import Track, read_index
from kling_nb.records.provenance import Mark
from kling_nb.records.run import codec_name

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from PIL.Image import Image

__all__ = ["Kind", "Measured", "NotVideoError", "poster", "probe", "stills"]

Kind = Literal["mp4", "mov", "webm", "mkv"]
T = TypeVar("T")

# Brands of ISO base media files that hold a still picture or sound only; FFmpeg would decode them gladly.
_NO_VIDEO = {b"avif", b"heic", b"heix", b"mif1", b"jp2 ", b"M4A ", b"M4B ", b"crx "}
_EBML = b"\x1a\x45\xdf\xa3"
#: The models make 1920x1080 and less; 4K is room to grow. A frame costs some ten bytes a pixel to show.
_MAX_PIXELS = 4096 * 2304
_POSTER_BYTES = 4_600  # of JPEG: 6.1 KB as base64
_DARK = 14  # mean of 0-255: a fade from black is over once the picture is lighter

#: How many samples a table tells of, where it need not list them: of one size, of a fragment.
_COUNTS = re.compile(rb"stsz.{8}(.{4})|trun.{4}(.{4})", re.DOTALL)
_MOST_TABLE_BYTES = 64 << 20
_MOST_SAMPLES = 4_000_000  # more than a minute of sound that is not compressed has
#: Decoders of pictures of which each sample of an MP4 is one packet.
_ONE_EACH = {"h264", "hevc", "av1", "libdav1d", "libaom-av1"}
#: How pictures are written whose size stands in the index, so that nothing of them is read to open the file.
_SIZED = {b"avc1", b"hvc1", b"av01"}
_UNREAD = {"skip_frame": "all", "probesize": "4096"}
_LOOK_AT = 72  # frames: three seconds at 24 a second


class NotVideoError(StoreError):
    """The bytes are no playable video: they were read, and are not what was ordered."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The facts of a file that are read from the file itself; fields as in `MediaFacts`."""

    container: Kind
    codec: str
    profile: str
    pixel_format: str
    width: int
    height: int
    fps: float
    frames: int
    duration_s: float
    audio_codec: str | None
    marks: tuple[Mark, ...] = ()


def _kind(head: bytes) -> Kind | None:
    if head[:4] == _EBML:
        return "webm" if b"webm" in head else "mkv" if b"matroska" in head else None
    if len(head) < 12 or head[4:8] != b"ftyp" or not 12 <= int.from_bytes(head[:4], "big") <= 4096:
        return None
    brand = head[8:12]
    return None if brand in _NO_VIDEO else "mov" if brand == b"qt  " else "mp4"


def probe(path: Path) -> Measured:
    """Measure a video by its index, or by reading every packet, and by decoding its first frame.

    Args:
        path: The file.

    Returns:
        What was measured.

    Raises:
        NotVideoError: It is not a video, is cut off, or cannot be decoded.
        StoreError: It cannot be read.

    Example:
        >>> probe(Path(__file__))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        kling_nb.media.probe.NotVideoError: Not a playable video: it does not begin like an MP4 or WebM. ...
    """
    try:
        with open_plain(path) as file:
            kind = _kind(file.read(64))
            if kind is None:
                raise _not_playable("it does not begin like an MP4 or WebM")
            boxes = _whole_boxes(file) if kind in {"mp4", "mov"} else []
            return _measure(file, kind, boxes)
    except OSError as error:
        raise StoreError(
            f"The clip cannot be read: {error.strerror or type(error).__name__}.", charged="unknown"
        ) from None


def poster(path: Path, width: int = 320) -> str | None:
    """Make a small still of the first frame that is not almost black.

    Args:
        path: The clip.
        width: Pixels, at most; a tall picture is made smaller still.

    Returns:
        A `data:image/jpeg` address of about 6 KB at most, or None where no frame can be had.

    Example:
        >>> poster(Path(__file__)) is None
        True
    """

    def draw(container: "InputContainer") -> str | None:
        chosen = _first_light(container)
        return None if chosen is None else _data_uri(chosen, width)

    return _decoded(path, draw)


def stills(path: Path, seconds: Sequence[float], *, width: int, most_bytes: int) -> list[str | None]:
    """Make small stills of what a clip shows at some moments.

    Args:
        path: The clip.
        seconds: The moments, from the clip's start; one beyond the end gives the last frame.
        width: Pixels, at most; a tall picture is made smaller still.
        most_bytes: Of each JPEG, before it becomes text a third longer.

    Returns:
        `data:image/jpeg` addresses in the same order; None for each that cannot be had.

    Example:
        >>> stills(Path(__file__), [0.0], width=160, most_bytes=3000)
        [None]
    """

    def draw(container: "InputContainer") -> list[str | None]:
        stream = _video(container)
        found = [_frame_at(container, stream, moment) for moment in seconds]
        return [None if frame is None else _data_uri(frame, width, most_bytes) for frame in found]

    return _decoded(path, draw) or [None] * len(seconds)


def _decoded(path: Path, draw: "Callable[[InputContainer], T]") -> "T | None":
    """Draw what a decoder gives; None where it gives nothing."""
    try:
        with open_plain(path) as file:
            kind = _kind(file.read(64))
            if kind is None:
                return None
            boxes = outer_boxes(file) if kind in {"mp4", "mov"} else []
            with _opened(file, kind, boxes) as container:
                return draw(container)
    # A still is a comfort: whatever a decoder makes of a broken file must not cost the card.
    except Exception:  # noqa: BLE001 - see the line above
        return None


def _frames(container: "InputContainer", stream: "VideoStream") -> "Iterator[VideoFrame]":
    # PyAV's generators keep some memory where they are left before their end and not closed. So little of it
    # pins what lies around it, hundreds of kilobytes a clip.
    packets = cast("Generator[Packet[VideoStream], None, None]", container.demux(stream))
    with contextlib.closing(packets):
        for packet in packets:
            yield from stream.codec_context.decode(packet)


def _frame_at(container: "InputContainer", stream: "VideoStream", seconds: float) -> "VideoFrame | None":
    start = float((stream.start_time or 0) * (stream.time_base or 0))
    container.seek(round((start + seconds) * 1_000_000))
    # It goes to a frame that stands alone; from there the way is walked.
    found = None
    for frame in _frames(container, stream):
        # A hair of tolerance: times of frames are rounded to the clock of the file.
        if found is not None and frame.time is not None and frame.time - start > seconds + 0.001:
            break
        found = frame
    return found


def _not_playable(why: str) -> NotVideoError:
    return NotVideoError(
        f"Not a playable video: {why}.",
        charged="unknown",
        cure="The bytes are kept; `%kling resume` fetches it again.",
    )


def _whole_boxes(file: BinaryIO) -> list[Box]:
    """Walk the outer boxes, and refuse a file that is cut off before anything of it is decoded."""
    try:
        boxes = outer_boxes(file)
    except BrokenBoxError as error:
        raise _not_playable(str(error)) from None
    if all(box.name != b"moov" for box in boxes):
        raise _not_playable("it has no index, so it is probably cut off")
    return boxes


def _refuse_bomb(file: BinaryIO, boxes: Sequence[Box]) -> None:
    """Refuse a short index that tells of so many samples that a decoder's list of them fills the memory."""
    for box in boxes:
        # A decoder finds tables also outside of the index.
        if box.name in {b"mdat", b"free", b"skip", b"uuid"}:
            continue
        file.seek(box.at)
        for counts in _COUNTS.findall(file.read(min(box.size, _MOST_TABLE_BYTES))):
            if int.from_bytes(b"".join(counts), "big") > _MOST_SAMPLES:
                raise _not_playable("its index is far too large for a clip")


def _opened(
    file: BinaryIO, kind: Kind, boxes: Sequence[Box], options: dict[str, str] | None = None
) -> "InputContainer":
    import av

    _refuse_bomb(file, boxes)

    def refuse(_url: str, _flags: int, _options: dict[str, Any]) -> Any:
        raise PermissionError("a clip may not open other files")

    file.seek(0)
    demuxer = "mov" if kind in {"mp4", "mov"} else "matroska"
    # A stranger's tags may be no UTF-8. PyAV 19 dropped the argument, and bears them by itself.
    lenient: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
    container: InputContainer = av.open(
        file, mode="r", format=demuxer, io_open=refuse, options=options, **lenient
    )
    return container


def _video(container: "InputContainer") -> "VideoStream":
    if not container.streams.video:
        raise _not_playable("it has no picture")
    stream = container.streams.video[0]
    if stream.codec_context is None:  # as PyAV gives a stream whose codec it does not know
        raise _not_playable("no decoder here knows its picture")
    # Threads hold frames back and the machine's other cores belong to the notebook.
    stream.codec_context.thread_count = 1
    if not 0 < stream.codec_context.width * stream.codec_context.height <= _MAX_PIXELS:
        raise _not_playable("its picture has no sensible size")
    # What stands in the container need not be what its frames are.
    stream.codec_context.options = {"max_pixels": str(_MAX_PIXELS)}
    return stream


@dataclass
class _Reading:
    """What adds up while the packets go by."""

    frames: int = 0
    decoded: "VideoFrame | None" = None
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    end_s: float = 0.0


def _sound(container: "InputContainer") -> str | None:
    """Name the sound's codec; None is silence."""
    if not container.streams.audio:
        return None
    context = container.streams.audio[0].codec_context
    return "unknown" if context is None else codec_name(context.name)


def _measure(file: BinaryIO, kind: Kind, boxes: list[Box]) -> Measured:
    import av

    try:
        tracks = read_index(file, boxes) or []
        sized = any(track.picture and track.coding in _SIZED for track in tracks)
        with _opened(file, kind, boxes, _UNREAD if sized else None) as container:
            stream = _video(container)
            reading = _read_index(container, stream, tracks) or _read(container, stream)
            return _facts(container, reading, kind, file, boxes)
    except (av.error.FFmpegError, ValueError, IndexError, ZeroDivisionError) as error:
        words = getattr(error, "strerror", None) or type(error).__name__
        raise _not_playable(f"the decoder says: {words}") from None


def _read_index(container: "InputContainer", stream: "VideoStream", tracks: list[Track]) -> _Reading | None:
    """Take from the index what reading every packet would add up to, where both say the same."""
    pictures = [track for track in tracks if track.picture]
    if len(pictures) != 1 or len(container.streams.video) != 1 or stream.codec_context.name not in _ONE_EACH:
        return None
    track = pictures[0]
    if stream.frames != track.samples or stream.time_base != Fraction(1, track.scale):
        return None
    return _Reading(
        frames=track.samples,
        decoded=next(_frames(container, stream), None),
        starts=[track.first],
        ends=[track.end],
        end_s=max((each.end - each.shift) / each.scale for each in tracks),
    )


def _read(container: "InputContainer", stream: "VideoStream") -> _Reading:
    reading = _Reading()
    for packet in container.demux():
        if packet.pts is not None and packet.time_base is not None:
            end = packet.pts + (packet.duration or 0)
            reading.end_s = max(reading.end_s, float(end * packet.time_base))
        if packet.stream.index != stream.index:
            continue
        if packet.is_corrupt:
            raise _not_playable("a frame is broken")
        if packet.size:
            reading.frames += 1
            if packet.pts is not None:
                reading.starts.append(packet.pts)
                reading.ends.append(packet.pts + (packet.duration or 0))
        if reading.decoded is None:
            reading.decoded = next(iter(stream.codec_context.decode(packet)), None)
    return reading


def _facts(
    container: "InputContainer", reading: _Reading, kind: Kind, file: BinaryIO, boxes: list[Box]
) -> Measured:
    stream, declared_s = container.streams.video[0], (container.duration or 0) / 1_000_000
    if reading.decoded is None:
        raise _not_playable("not one frame could be decoded")
    if stream.frames and reading.frames < stream.frames:
        raise _not_playable(f"it has {reading.frames} of {stream.frames} frames")
    # Containers without boxes show a cut only here: the end comes well before the declared one.
    if declared_s - reading.end_s > max(0.5, declared_s / 20):
        raise _not_playable(f"it ends at {reading.end_s:.1f} s of {declared_s:.1f} s")
    seconds = 0.0
    if reading.starts and stream.time_base:
        seconds = float((max(reading.ends) - min(reading.starts)) * stream.time_base)
    rate = stream.average_rate or stream.guessed_rate
    fps = float(rate) if rate else reading.frames / seconds if seconds else 0.0
    return Measured(
        container=kind,
        codec=codec_name(stream.codec_context.name),
        profile=stream.codec_context.profile or "",
        pixel_format=reading.decoded.format.name,
        width=reading.decoded.width,
        height=reading.decoded.height,
        fps=round(fps, 3),
        frames=reading.frames,
        duration_s=round(seconds or declared_s, 3),
        audio_codec=_sound(container),
        marks=marks_in(file, boxes, [container.metadata, *(one.metadata for one in container.streams)]),
    )


def _first_light(container: "InputContainer") -> "VideoFrame | None":
    """Give the first frame that shows something, else the lightest one of the first seconds."""
    best, best_light = None, -1.0
    for frame in _some(container):
        light = _light(frame)
        if light > best_light:
            best, best_light = frame, light
        if light >= _DARK:
            break
    return best


def _some(container: "InputContainer") -> "Iterator[VideoFrame]":
    stream = _video(container)
    for number, frame in enumerate(_frames(container, stream)):
        if number == _LOOK_AT:
            return
        yield frame


def _light(frame: "VideoFrame") -> float:
    from PIL import ImageStat

    return float(ImageStat.Stat(_image(frame.reformat(width=32, height=32, format="gray"))).mean[0])


def _image(frame: "VideoFrame") -> "Image":
    return cast("Image", frame.to_image())  # type: ignore[no-untyped-call]


def _data_uri(frame: "VideoFrame", width: int, most_bytes: int = _POSTER_BYTES) -> str:
    image = _image(frame)
    image.thumbnail((width, width * 4 // 3))
    jpeg = b""
    for side in (width, width * 3 // 4, width // 2, width // 4):
        small = image.copy()
        small.thumbnail((side, side * 4 // 3))
        for quality in (75, 65, 55, 45, 35, 25):
            jpeg = _jpeg(small, quality)
            if len(jpeg) <= most_bytes:
                return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _jpeg(image: "Image", quality: int) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
