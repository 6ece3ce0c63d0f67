"""What a clip's file says about itself: a signed manifest, the label of an AI service, a maker's tag.

Invariants: a file is only read, and little of it: heads of the outer boxes and a few bytes of a mark;
whatever a stranger wrote is one line, cut to a length, and without the query of an address; nothing is
decided by it.
"""

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from kling_nb.errors import one_line
from kling_nb.records.provenance import MOST_MARKS, Mark
from kling_nb.records.receipt_model import without_queries

__all__ = ["Box", "BrokenBoxError", "marks_in", "outer_boxes"]

# The extended types of outer `uuid` boxes: C2PA's manifest store (C2PA technical specification, on BMFF-based
# assets) and Adobe's XMP packet (XMP specification part 3).
_C2PA = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_SOURCE = re.compile(rb"https?://cv\.iptc\.org/newscodes/digitalsourcetype/[A-Za-z]{1,60}")

#: Names that every file has, and that say how it is built.
_STRUCTURE = frozenset(
    {
        "major_brand",
        "minor_version",
        "compatible_brands",
        "creation_time",
        "duration",
        "language",
        "handler_name",
        "vendor_id",
    }
)

_MOST_BOXES = 100_000
_MOST_INDEX_BYTES = 64 << 20
_LOOK_BYTES = 256 * 1024
_LABEL_CHARS = 2000
_TAG_CHARS = 300


class BrokenBoxError(ValueError):
    """The outer boxes of a file do not fit together; says why."""


@dataclass(frozen=True)
class Box:
    """One outer box of an MP4: its name, where it begins, its bytes in all and those of its head."""

    name: bytes
    at: int
    size: int
    head: int


def outer_boxes(file: BinaryIO) -> list[Box]:
    """Walk the outer boxes: each says its size, so that a cut is seen without decoding anything.

    Args:
        file: Open for reading.

    Returns:
        The boxes, in order; what looks like padding after the last one is left out.

    Raises:
        BrokenBoxError: The file is cut off, or no player's patience would last for it.

    Example:
        >>> outer_boxes(io.BytesIO(bytes.fromhex("00000008") + b"free"))
        [Box(name=b'free', at=0, size=8, head=8)]
    """
    total = file.seek(0, io.SEEK_END)
    found: list[Box] = []
    at = index = 0
    while at + 8 <= total:
        file.seek(at)
        start = file.read(16)
        size, name, head = int.from_bytes(start[:4], "big"), start[4:8], 8
        if size == 1:
            size, head = int.from_bytes(start[8:16], "big"), 16
        if not name.isascii() or not name.decode().isprintable() or (size < head and size != 0):
            break  # padding after the last box harms no player
        if size == 0:
            size = total - at
        if at + size > total:
            raise BrokenBoxError(f"it is cut off, {at + size - total:,} bytes are missing")
        found.append(Box(name, at, size, head))
        # A decoder takes these into memory whole.
        index += size if name in {b"moov", b"moof", b"meta", b"udta", b"sidx"} else 0
        if len(found) > _MOST_BOXES or index > _MOST_INDEX_BYTES:
            raise BrokenBoxError("its index is far too large for a clip")
        at += size
    return found


def marks_in(file: BinaryIO, boxes: Iterable[Box], tags: Iterable[Mapping[str, str]]) -> tuple[Mark, ...]:
    """Give what a file says about itself.

    Args:
        file: Open for reading; where it stands afterwards is open.
        boxes: Its outer boxes, where it is made of such.
        tags: Names and texts that the decoder read, of the container and of its streams.

    Returns:
        The marks in the order of weight, each once, sixteen at most.

    Example:
        >>> marks_in(io.BytesIO(), [], [{"encoder": "Lavf62.3.100", "major_brand": "isom"}])
        (Mark(kind='tag', where='encoder', text='Lavf62.3.100'),)
    """
    found = dict.fromkeys([*_in_boxes(file, boxes), *_in_tags(tags)])
    weight = ("c2pa", "aigc", "xmp", "tag")
    return tuple(sorted(found, key=lambda mark: weight.index(mark.kind))[:MOST_MARKS])


def _in_boxes(file: BinaryIO, boxes: Iterable[Box]) -> Iterator[Mark]:
    outer = [box for box in boxes if box.name == b"uuid" and box.size >= box.head + 16]
    for box in outer[:MOST_MARKS]:
        file.seek(box.at + box.head)
        kind = file.read(16)
        if kind not in {_C2PA, _XMP}:
            continue
        said = file.read(min(_LOOK_BYTES, box.size - box.head - 16))
        source = _SOURCE.search(said)
        words = [source[0].decode()] if source else []
        if kind == _C2PA:
            # A version and flags, then what the box is for, ended by a zero byte.
            purpose = re.match(rb".{4}([a-z]{1,40})\0", said, re.DOTALL)
            words = [purpose[1].decode() if purpose else "", f"{box.size:,} bytes", *words]
            yield Mark(kind="c2pa", where="uuid box", text=", ".join(filter(None, words)))
        elif words:
            yield Mark(kind="xmp", where="uuid box", text=words[0])


def _in_tags(tags: Iterable[Mapping[str, str]]) -> Iterator[Mark]:
    for one in tags:
        for name, text in one.items():
            where = one_line(str(name))[:80].strip()
            label = where.lower().rpartition(".")[2] == "aigc" or '"AIGC"' in text[:_LABEL_CHARS]
            if not where or (not label and where.lower() in _STRUCTURE):
                continue
            words = _cut(text, _LABEL_CHARS if label else _TAG_CHARS)
            if words:
                yield Mark(kind="aigc" if label else "tag", where=where, text=words)


def _cut(text: str, most: int) -> str:
    words = without_queries(one_line(str(text)[: 2 * most])).strip()
    return words if len(words) <= most else words[: most - 1] + "…"
