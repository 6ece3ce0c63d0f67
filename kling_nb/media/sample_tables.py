"""The sample tables of an MP4's index, read without a decoder: how many samples, where, and how long.

Invariants: a file is only read; an index that is written in any way but the plain one, or that tells of a
sample outside the file, is left to the decoder, so that nothing is taken or refused here that it would not;
time and memory are bounded by the bytes of the index, whatever its numbers say.
"""

import io
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise, repeat
from typing import BinaryIO

from kling_nb.media.marks import Box

__all__ = ["Track", "read_index"]

_MOST_BYTES = 8 << 20
_MOST_SAMPLES = 100_000
_PLAIN_RATE = 1 << 16
#: Boxes of files whose samples are told of elsewhere, too.
_ELSEWHERE = {b"moof", b"sidx", b"mfra", b"mvex"}


#: Boxes inside another one, by name.
_Boxes = dict[bytes, list[memoryview]]
_HEAD = struct.Struct(">I4s").unpack_from


class _NotPlainError(Exception):
    """The index is written in a way that is not read here."""


@dataclass(frozen=True, kw_only=True)
class Track:
    """What the index says of one track.

    Args:
        picture: Whether it is of pictures.
        coding: How these are written, e.g. `avc1`.
        samples: How many it has, none of them empty.
        scale: Ticks of its clock in a second.
        first: The tick at which the first one is shown.
        end: The tick at which the last one is over.
        shift: The tick that is the clip's beginning.
    """

    picture: bool
    coding: bytes
    samples: int
    scale: int
    first: int
    end: int
    shift: int


def read_index(file: BinaryIO, boxes: Iterable[Box]) -> list[Track] | None:
    """Read the index, and hold the place of every sample against the size of the file.

    Args:
        file: Open for reading; where it stands afterwards is open.
        boxes: Its outer boxes.

    Returns:
        The tracks in their order; None where the index is no plain one, or a sample is not in the file.

    Example:
        >>> read_index(io.BytesIO(), []) is None
        True
    """
    boxes = list(boxes)
    indexes = [box for box in boxes if box.name == b"moov"]
    if len(indexes) != 1 or indexes[0].size > _MOST_BYTES or any(box.name in _ELSEWHERE for box in boxes):
        return None
    file.seek(indexes[0].at + indexes[0].head)
    data = memoryview(file.read(indexes[0].size - indexes[0].head))
    total = file.seek(0, io.SEEK_END)
    try:
        inner = _inner(data)
        if not _ELSEWHERE.isdisjoint(inner):
            return None
        clock = _scale(_one(inner, b"mvhd"))
        return [_track(_inner(box), clock, total) for box in inner.get(b"trak", ())]
    except (_NotPlainError, struct.error):
        return None


def _track(trak: _Boxes, clock: int, total: int) -> Track:
    media = _inner(_one(trak, b"mdia"))
    table = _inner(_one(_inner(_one(media, b"minf")), b"stbl"))
    sizes = _sizes(_one(table, b"stsz"))
    _check_places(sizes, _runs(table), total)
    durations = _spread(_entries(_one(table, b"stts"), "Ii"), len(sizes))
    shown = list(accumulate(durations, initial=0))
    if (offsets := _maybe(table, b"ctts")) is not None:
        late = _spread(_entries(offsets, "Ii"), len(sizes))
        shown = [tick + more for tick, more in zip(shown, late, strict=False)]
    scale = _scale(_one(media, b"mdhd"))
    first, end = min(shown[: len(sizes)]), max(map(sum, zip(shown, durations, strict=False)))
    picture = bytes(_one(media, b"hdlr")[8:12]) == b"vide"
    shift, seconds = _edit(trak, clock)
    if picture and seconds is not None and (shift != first or seconds < (end - first) / scale - 1 / clock):
        raise _NotPlainError  # some frames are not shown
    return Track(
        picture=picture,
        coding=bytes(_one(table, b"stsd")[12:16]),
        samples=len(sizes),
        scale=scale,
        first=first,
        end=end,
        shift=shift,
    )


def _inner(data: memoryview) -> _Boxes:
    """Walk the boxes inside another one."""
    at, end, found = 0, len(data), _Boxes()
    while at + 8 <= end:
        size, name = _HEAD(data, at)
        if size < 8 or at + size > end:
            raise _NotPlainError
        found.setdefault(name, []).append(data[at + 8 : at + size])
        at += size
    return found


def _maybe(boxes: _Boxes, name: bytes) -> memoryview | None:
    found = boxes.get(name)
    if found is None:
        return None
    if len(found) > 1:
        raise _NotPlainError
    return found[0]


def _one(boxes: _Boxes, name: bytes) -> memoryview:
    box = _maybe(boxes, name)
    if not box:
        raise _NotPlainError
    return box


def _entries(box: memoryview, code: str, head: int = 4) -> list[tuple[int, ...]]:
    """Read a table: a count, then entries that must all be there."""
    (count,) = struct.unpack_from(">I", box, head)
    step = struct.calcsize(f">{code}")
    if count > _MOST_SAMPLES or count * step > len(box) - head - 4:
        raise _NotPlainError
    return list(struct.iter_unpack(f">{code}", box[head + 4 : head + 4 + count * step]))


def _spread(runs: list[tuple[int, ...]], count: int) -> list[int]:
    """Write out a table of runs, which must be one of so many samples."""
    if sum(run[0] for run in runs) != count:
        raise _NotPlainError
    return [*chain.from_iterable(repeat(value, number) for number, value in runs)]


def _sizes(box: memoryview) -> list[int]:
    (every,) = struct.unpack_from(">I", box, 4)
    if every:
        (count,) = struct.unpack_from(">I", box, 8)
        if not 0 < count <= _MOST_SAMPLES:
            raise _NotPlainError
        return [every] * count
    sizes = [size for (size,) in _entries(box, "I", 8)]
    if not all(sizes) or not sizes:
        raise _NotPlainError
    return sizes


def _runs(table: _Boxes) -> list[tuple[int, int]]:
    """Give where each chunk begins, and how many samples it has."""
    wide = _maybe(table, b"co64")
    places = _entries(_one(table, b"stco"), "I") if wide is None else _entries(wide, "Q")
    runs = _entries(_one(table, b"stsc"), "III")
    if not runs or runs[0][0] != 1:
        raise _NotPlainError
    numbers: list[int] = []
    for (first, count, _), (following, *_) in pairwise([*runs, (len(places) + 1, 0, 0)]):
        if not first < following <= len(places) + 1:
            raise _NotPlainError
        numbers += [count] * (following - first)
    return [(place, number) for (place,), number in zip(places, numbers, strict=True)]


def _check_places(sizes: list[int], chunks: list[tuple[int, int]], total: int) -> None:
    # The samples of a chunk lie one behind the other, so that its end is that of its last sample.
    behind, done = list(accumulate(sizes, initial=0)), 0
    for place, number in chunks:
        if done + number > len(sizes) or place + behind[done + number] - behind[done] > total:
            raise _NotPlainError
        done += number
    if done != len(sizes):
        raise _NotPlainError


def _scale(box: memoryview) -> int:
    """Read the ticks in a second of `mvhd` or `mdhd`."""
    scale = int(struct.unpack_from(">I", box, 20 if box[0] == 1 else 12)[0])
    if not scale:
        raise _NotPlainError
    return scale


def _edit(trak: _Boxes, clock: int) -> tuple[int, float | None]:
    """Give the tick that the track is shown from, and the seconds that it is shown; None is all of it."""
    edits = _maybe(trak, b"edts")
    if edits is None:
        return 0, None
    box = _one(_inner(edits), b"elst")
    entries = _entries(box, "Qqi" if box[0] == 1 else "Iii")
    if len(entries) != 1:
        raise _NotPlainError
    ticks, begin, rate = entries[0]
    if begin < 0 or rate != _PLAIN_RATE or not ticks:
        raise _NotPlainError
    return begin, ticks / clock
