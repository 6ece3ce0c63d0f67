"""The words for a file: its picture, its size, whether every browser plays it."""

from kling_nb.records.run import MediaFacts

__all__ = ["file_words", "size_words", "unplayed_words"]

_CODECS = {"h264": "H.264", "hevc": "H.265", "av1": "AV1", "vp9": "VP9", "mpeg4": "MPEG-4 part 2"}

# What every browser plays: pixels of 8 bits, in newer codecs of 10 as well, with colours at half the size.
_EIGHT = {"", "yuv420p", "yuvj420p"}
_PLAYED = {
    "": _EIGHT,
    "h264": _EIGHT,
    "vp8": _EIGHT,
    "vp9": {*_EIGHT, "yuv420p10le"},
    "av1": {*_EIGHT, "yuv420p10le"},
}


def file_words(media: MediaFacts) -> list[str]:
    """List what is measured in a file: picture and bytes first, then length, rate, codec and sound.

    Example:
        >>> file_words(MediaFacts(file="a.mp4", sha256="0" * 64, size=4100000, codec="h264"))
        ['4.1 MB', 'H.264', 'no sound']
    """
    words = [f"{media.width}\u00d7{media.height}"] if media.width and media.height else []
    words += [size_words(media.size)]
    words += [f"{media.duration_s:.2f} s"] if media.duration_s else []
    words += [f"{media.fps:g} fps"] if media.fps else []
    words += [_CODECS.get(media.codec, media.codec)] if media.codec else []
    return [*words, f"{media.audio_codec.upper()} sound" if media.audio_codec else "no sound"]


def unplayed_words(media: MediaFacts) -> str:
    """Say that a clip is none that every browser plays; empty where it is.

    Source:
        Tried in Chromium of Debian on 2026-11-29: it plays no H.265, MPEG-4 part 2, MPEG-2 or ProRes. It does
        play H.264 of 10 bits and 4:4:4, which is not to be relied upon elsewhere (not tried).

    Example:
        >>> unplayed_words(MediaFacts(file="a.mp4", sha256="0" * 64, size=1, codec="h264"))
        ''
    """
    if media.pixel_format in _PLAYED.get(media.codec, ()):
        return ""
    kind = " ".join(part for part in (_CODECS.get(media.codec, media.codec), media.profile) if part)
    pixels = f", {media.pixel_format}" if media.pixel_format else ""
    return (
        f"The clip is whole, but not every browser plays it ({kind}{pixels}): a media player opens its file."
    )


def size_words(size: int) -> str:
    """Write a number of bytes.

    Example:
        >>> size_words(4_100_000)
        '4.1 MB'
    """
    if size < 1000:
        return f"{size} bytes"
    for unit, factor in (("kB", 1000), ("MB", 1000**2)):
        if size < factor * 1000:
            return f"{size / factor:.1f} {unit}"
    return f"{size / 1000**3:.2f} GB"
