"""The index of an MP4 as we read it says what the decoder says; where it is odd, the decoder reads it."""

import io
import struct
from fractions import Fraction

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kling_nb.media import probe as probing
from kling_nb.media.marks import BrokenBoxError, outer_boxes
from kling_nb.media.probe import NotVideoError, probe
from kling_nb.media.sample_tables import read_index
from support.clips import make_clip


def _reordered(path, *, movflags="", every=lambda number: number, **options):
    """Write a clip whose frames are not stored in the order in which they are shown."""
    muxing = {"movflags": movflags, **options} if movflags else options
    with av.open(path, "w", options=muxing) as film:
        picture = film.add_stream("libx264", rate=24)
        picture.width, picture.height, picture.pix_fmt = 96, 54, "yuv420p"
        picture.options = {"preset": "veryfast", "bf": "3", "g": "12"}
        picture.codec_context.thread_count = 1
        for number in range(30):
            frame = av.VideoFrame.from_image(Image.new("RGB", (96, 54), (number * 8, 90, 40)))
            frame.pts, frame.time_base = every(number), Fraction(1, 24)
            film.mux(picture.encode(frame))
        film.mux(picture.encode(None))
    return path


def _from(source, path, start_s):
    """Copy what begins at a moment, as a cutting tool does: its frames keep their times."""
    with av.open(source) as old, av.open(path, "w") as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is not None and packet.pts * packet.time_base >= start_s:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    return path


def _tracks(path):
    with path.open("rb") as file:
        return read_index(file, outer_boxes(file))


def _said(path):
    try:
        return probe(path)
    except NotVideoError as error:
        return error.what


def _both(path, monkeypatch):
    """Give what is measured by our reading of the index, and by the decoder's alone."""
    ours = _said(path)
    with monkeypatch.context() as patch:
        patch.setattr(probing, "read_index", lambda *_: None)
        return ours, _said(path)


CLIPS = {
    "plain": make_clip,
    "sound": lambda path: make_clip(path, audio=True, seconds=1.3, fps=30),
    "one frame": lambda path: make_clip(path, seconds=0.04, fps=25),
    "10 bits": lambda path: make_clip(path, codec="libx265", pixels="yuv420p10le", seconds=0.5),
    "av1": lambda path: make_clip(path, codec="libsvtav1", seconds=0.5),
    "reordered": _reordered,
    "no edits": lambda path: _reordered(path, use_editlist="0"),
    "negative offsets": lambda path: _reordered(path, movflags="negative_cts_offsets"),
    "a rate that varies": lambda path: _reordered(path, every=lambda number: number + number // 5),
}
ODD = {
    "a codec of many packets": lambda path: make_clip(path, codec="mpeg4", seconds=0.5),
    "fragments": lambda path: _reordered(path, movflags="frag_keyframe+empty_moov"),
    "begins late": lambda path: _reordered(path, every=lambda number: number + 20),
    "cut": lambda path: _from(_reordered(path.with_name("b.mp4")), path, 0.5),
}


@pytest.mark.parametrize(
    ("name", "suffix"),
    # QuickTime has no AV1.
    [
        (name, suffix)
        for suffix in (".mp4", ".mov")
        for name in CLIPS | ODD
        if (name, suffix) != ("av1", ".mov")
    ],
)
def test_a_clip_is_measured_as_the_decoder_measures_it(tmp_path, monkeypatch, name, suffix):
    """To the last digit; and what the models make is measured without reading every packet."""
    clip = (CLIPS | ODD)[name](tmp_path / f"a{suffix}")
    ours, decoders = _both(clip, monkeypatch)
    assert ours == decoders
    assert ours.frames > 0
    if name in CLIPS:
        monkeypatch.setattr(probing, "_read", lambda *_: pytest.fail("every packet was read"))
        assert probe(clip) == ours


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a clip with sound, and where its index lies in them."""
    clip = make_clip(tmp_path_factory.mktemp("whole") / "a.mp4", audio=True, seconds=0.5)
    data = clip.read_bytes()
    with clip.open("rb") as file:
        [moov] = [box for box in outer_boxes(file) if box.name == b"moov"]
    return data, moov


@pytest.mark.parametrize("front", [True, False], ids=["index in front", "index behind"])
@pytest.mark.parametrize("mended", [False, True], ids=["cut", "cut, and its boxes made to fit"])
def test_a_cut_clip_is_refused_as_the_decoder_refuses_it(tmp_path, monkeypatch, front, mended):
    """Wherever it ends: also where the box of its pictures claims no more than is there."""
    whole = _reordered(tmp_path / "whole.mp4", movflags="faststart" if front else "")
    data, clip = whole.read_bytes(), tmp_path / "cut.mp4"
    with whole.open("rb") as file:
        [pictures] = [box for box in outer_boxes(file) if box.name == b"mdat"]
    for missing in (1, 7, pictures.size // 3, pictures.size - 9, len(data) - 40):
        cut = bytearray(data[:-missing])
        if mended and pictures.at + 8 < len(cut):
            cut[pictures.at : pictures.at + 4] = struct.pack(">I", min(pictures.size, len(cut) - pictures.at))
        clip.write_bytes(cut)
        ours, decoders = _both(clip, monkeypatch)
        assert ours == decoders
        assert "Not a playable video" in ours


@pytest.mark.parametrize("name", [b"stco", b"stsz"])
def test_a_sample_outside_the_file_is_left_to_the_decoder(tmp_path, monkeypatch, whole, name):
    """Its place or its size leads out of the file: our reading believes none of the index."""
    data, _ = whole
    damaged = bytearray(data)
    at = data.index(name) + (12 if name == b"stco" else 16)
    damaged[at : at + 4] = struct.pack(">I", len(data) - 1)
    clip = tmp_path / "a.mp4"
    clip.write_bytes(damaged)
    assert _tracks(clip) is None
    ours, decoders = _both(clip, monkeypatch)
    assert ours == decoders


def test_a_track_without_samples_is_left_to_the_decoder(tmp_path, monkeypatch, whole):
    """A sound track of nothing, however its tables say so: the picture is a clip all the same."""
    data, _ = whole
    damaged, sound = bytearray(data), data.index(b"soun")
    sizes, times, chunks = (data.index(name, sound) + 8 for name in (b"stsz", b"stts", b"stsc"))
    struct.pack_into(">II", damaged, sizes, 5, 0)
    struct.pack_into(">I", damaged, times, 0)
    for number in range(*struct.unpack_from(">I", data, chunks)):
        struct.pack_into(">I", damaged, chunks + 8 + 12 * number, 0)
    clip = tmp_path / "a.mp4"
    clip.write_bytes(damaged)
    ours, decoders = _both(clip, monkeypatch)
    assert ours == decoders
    assert ours.frames > 0


_PLACES = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True), st.sampled_from([b"\0", b"\1", b"\xff", b"\x7f\xff\xff\xff"])
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(places=_PLACES)
def test_a_damaged_index_is_judged_as_the_decoder_judges_it(tmp_path_factory, whole, places):
    """Whatever number in it is another one: the same facts, or the same refusal."""
    data, moov = whole
    damaged = bytearray(data)
    for place, other in places:
        at = moov.at + int(place * moov.size)
        damaged[at : at + len(other)] = other
    clip = tmp_path_factory.mktemp("damaged") / "a.mp4"
    clip.write_bytes(damaged[: len(data)])
    with pytest.MonkeyPatch.context() as patch:
        ours, decoders = _both(clip, patch)
    assert ours == decoders


_NAMES = st.sampled_from(
    b"trak mdia minf stbl mdhd mvhd hdlr stsz stts stsc stco co64 ctts edts elst mvex moof free".split()
)
_NUMBERS = st.sampled_from([0, 1, 2, 8, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1])
_TABLE = st.lists(_NUMBERS, max_size=12).map(lambda numbers: b"".join(struct.pack(">I", n) for n in numbers))


def _box(name, body, size=None):
    return struct.pack(">I4s", len(body) + 8 if size is None else size, name) + body


_TREE = st.recursive(
    st.builds(_box, _NAMES, _TABLE, st.none() | _NUMBERS),
    lambda inner: st.builds(_box, _NAMES, st.lists(inner, max_size=4).map(b"".join)),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(tree=st.lists(_TREE, max_size=5).map(b"".join), wide=st.booleans())
def test_no_index_breaks_the_reading_or_holds_it_up(tree, wide):
    """Huge, zero and 64-bit sizes, boxes in boxes, tables that promise millions: None, or plain tracks."""
    head = struct.pack(">I4sQ", 1, b"moov", len(tree) + 16) if wide else _box(b"moov", b"", len(tree) + 8)
    file = io.BytesIO(_box(b"ftyp", b"isom\0\0\0\0") + head + tree)
    try:
        boxes = outer_boxes(file)
    except BrokenBoxError:
        return
    for track in read_index(file, boxes) or []:
        assert 0 < track.samples <= 100_000
        assert track.scale > 0


@pytest.mark.parametrize("name", [b"stts", b"ctts", b"stsc", b"stco", b"stsz"])
def test_a_table_that_promises_millions_takes_no_memory(whole, name):
    """Its count is held against the bytes that are there before anything is made of it."""
    data, _ = whole
    if name not in data:
        return
    damaged = bytearray(data)
    at = data.index(name) + (12 if name == b"stsz" else 8)
    damaged[at : at + 4] = b"\x7f\xff\xff\xff"
    file = io.BytesIO(damaged)
    assert read_index(file, outer_boxes(file)) is None
