"""MP4 files with marks of AI media in them."""

import json
import struct
from fractions import Fraction

import av

C2PA = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
LABEL = json.dumps({"Label": "1", "ContentProducer": "001191310104MA1K", "ProduceID": "a<b>&$1$"})


def box(name, content, *, wide=False):
    """Write one box."""
    if wide:
        return struct.pack(">I4sQ", 1, name, 16 + len(content)) + content
    return struct.pack(">I4s", 8 + len(content), name) + content


def c2pa(said=b"", **how):
    """Write a box as the C2PA specification has it: type, version and flags, purpose, offset, manifest."""
    return box(b"uuid", C2PA + bytes(4) + b"manifest\0" + bytes(8) + said, **how)


def with_boxes(path, content):
    """Put bytes behind a clip, where no player minds them."""
    with path.open("ab") as file:
        file.write(content)
    return path


def labelled(path, metadata, **options):
    """Write a clip whose container holds these names and texts, as FFmpeg puts them there."""
    with av.open(path, "w", options={"movflags": "use_metadata_tags", **options}) as film:
        film.metadata.update(metadata)
        picture = film.add_stream("libx264", rate=24)
        picture.width, picture.height, picture.pix_fmt = 96, 54, "yuv420p"
        for number in range(12):
            frame = av.VideoFrame(96, 54, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([40 + number]) * plane.buffer_size)
            frame.pts, frame.time_base = number, Fraction(1, 24)
            film.mux(picture.encode(frame))
        film.mux(picture.encode(None))
    return path
