"""What a file really is: told by its bytes, measured by reading it, and pictured small."""

import base64
import ctypes
import io
import os
import struct
import subprocess
import sys

import av
import pytest
from PIL import Image

from kling_nb.errors import StoreError
from kling_nb.media.probe import NotVideoError, poster, probe
from kling_nb.records.run import MediaFacts
from support.clips import make_clip


def _decoded(uri):
    assert uri.startswith("data:image/jpeg;base64,")
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_a_clip_is_measured(tmp_path):
    """Codec, size, rate, frames and seconds are those of the file."""
    facts = probe(make_clip(tmp_path / "a.mp4", seconds=1.5, size=(128, 72)))
    assert (facts.container, facts.codec) == ("mp4", "h264")
    assert (facts.profile, facts.pixel_format) == ("Constrained Baseline", "yuv420p")
    assert (facts.width, facts.height) == (128, 72)
    assert (facts.fps, facts.frames, facts.duration_s) == (24.0, 36, 1.5)
    assert facts.audio_codec is None


def test_sound_is_seen(tmp_path):
    """A sound track is told from a silent file, and the seconds stay those of the picture."""
    facts = probe(make_clip(tmp_path / "a.mp4", seconds=1, audio=True))
    assert facts.audio_codec == "aac"
    assert facts.duration_s == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.webm", "libvpx-vp9"), ("a.mov", "libx264"), ("a.mkv", "libx264")]
)
def test_other_containers_are_named_as_they_are(tmp_path, name, codec):
    """The kind comes from the bytes, whatever the file is called."""
    clip = make_clip(tmp_path / name, codec=codec).rename(tmp_path / "download.part")
    assert f"a.{probe(clip).container}" == name
    assert probe(clip).frames == 24


@pytest.mark.parametrize(
    ("codec", "pixels", "measured"),
    [
        ("libsvtav1", "yuv420p", ("av1", "Main", "yuv420p")),
        ("libx265", "yuv420p10le", ("hevc", "Main 10", "yuv420p10le")),
        ("libx264", "yuv444p", ("h264", "High 4:4:4 Predictive", "yuv444p")),
        ("mpeg4", "yuv420p", ("mpeg4", "Simple Profile", "yuv420p")),
    ],
)
def test_codec_profile_and_pixels_have_their_own_names(tmp_path, codec, pixels, measured):
    """Whatever decoder reads them here; a receipt that has a decoder's name is read as the codec's."""
    facts = probe(make_clip(tmp_path / "a.mp4", codec=codec, pixels=pixels, seconds=0.5))
    assert (facts.codec, facts.profile, facts.pixel_format) == measured
    old = MediaFacts(file="a.mp4", sha256="0" * 64, size=1, codec="libdav1d", audio_codec="mp3float")
    assert (old.codec, old.audio_codec) == ("av1", "mp3")


def _png():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        b"<!doctype html><title>Link expired</title>",
        b'{"error": "not found"}',
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        _png(),
        b"\x00\x00\x00\x1cftypavif" + bytes(64),
        b"\x00\x00\x00\x1cftypM4A " + bytes(64),
        b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + b"<html>" * 50,
        b"\x1a\x45\xdf\xa3" + bytes(64),
        b"\x1a\x45\xdf\xa3\x93\x42\x82\x88webm" + bytes(200),
    ],
)
def test_what_is_no_video_is_refused(tmp_path, content):
    """A web page, JSON, a playlist, a picture, or a video's first bytes alone are no clip."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(NotVideoError, match="Not a playable video") as caught:
        probe(path)
    assert caught.value.charged == "unknown"
    assert poster(path) is None


def test_a_cut_clip_is_refused_wherever_it_was_cut(tmp_path):
    """Not one shorter beginning of an MP4 passes for the whole."""
    whole = make_clip(tmp_path / "a.mp4", audio=True).read_bytes()
    cut = tmp_path / "cut.mp4"
    lengths = [*range(0, len(whole), max(1, len(whole) // 60)), len(whole) - 1]
    for length in lengths:
        cut.write_bytes(whole[:length])
        with pytest.raises(NotVideoError):
            probe(cut)
    assert len(lengths) > 50
    cut.write_bytes(whole)
    assert probe(cut).frames == 24


def test_a_cut_webm_is_refused(tmp_path):
    """A container that does not state its length shows a cut by where it ends."""
    whole = make_clip(tmp_path / "a.webm", seconds=4, codec="libvpx-vp9", noise=True).read_bytes()
    cut = tmp_path / "cut.webm"
    for part in (0.1, 0.5, 0.8):
        cut.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(NotVideoError):
            probe(cut)


def test_an_index_without_pictures_is_refused(tmp_path):
    """Right boxes around zeros are not playable: the first frame must decode."""
    whole = bytearray(make_clip(tmp_path / "a.mp4").read_bytes())
    start = whole.index(b"mdat") + 4
    whole[start:] = bytes(len(whole) - start)
    path = tmp_path / "hollow.mp4"
    path.write_bytes(whole)
    with pytest.raises(NotVideoError):
        probe(path)
    assert poster(path) is None


def test_sound_alone_is_refused(tmp_path):
    """A file with a sound track and no picture is no clip, though its first bytes are right."""
    path = tmp_path / "a.mp4"
    with av.open(path, "w") as film:
        stream = film.add_stream("aac", rate=48_000, layout="mono")
        block = av.AudioFrame(format="fltp", layout="mono", samples=1024)
        block.planes[0].update(bytes(4096))
        block.sample_rate = 48_000
        film.mux(stream.encode(block))
        film.mux(stream.encode(None))
    with pytest.raises(NotVideoError, match="no picture"):
        probe(path)


def _boxes(data):
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : at + size]
        at += size


def test_a_codec_that_nobody_knows_is_said(tmp_path):
    """A picture that no decoder knows is no clip, in words."""
    clip = make_clip(tmp_path / "a.mp4")
    clip.write_bytes(clip.read_bytes().replace(b"avc1", b"zzz1"))
    with pytest.raises(NotVideoError, match="no decoder here knows its picture"):
        probe(clip)
    assert poster(clip) is None


def test_an_index_that_tells_of_millions_of_samples_is_not_read(tmp_path):
    """A small file whose decoder would list fifty million samples is refused before one opens it."""
    clip = make_clip(tmp_path / "a.mp4")
    data = bytearray(clip.read_bytes())
    for name, at, number in ((b"stsz", 8, 1), (b"stsz", 12, 50_000_000), (b"stsc", 16, 50_000_000)):
        where = data.index(name) + at
        data[where : where + 4] = number.to_bytes(4, "big")
    clip.write_bytes(data)
    code = f"""
import pathlib, resource
from kling_nb.media.probe import poster, probe, stills
clip = pathlib.Path({str(clip)!r})
# A new process begins with the figure of the one that started it.
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    probe(clip)
except Exception as error:
    print(error.what)
print(poster(clip), stills(clip, [0.0], width=160, most_bytes=3000))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = ["Not a playable video: its index is far too large for a clip.", "None [None]", "True"]
    assert done.stdout.splitlines() == said


def test_every_way_to_write_a_size_is_understood(tmp_path):
    """A box with a 64-bit size, or that reaches to the end, is as good as a plain one; no index is bad."""
    path = make_clip(tmp_path / "a.mp4")
    boxes = dict(_boxes(path.read_bytes()))
    front = [
        len(boxes[name] + bytes(8)).to_bytes(4, "big") + name + boxes[name] for name in (b"ftyp", b"moov")
    ]
    # Sixteen bytes of header in place of eight: the pictures keep their place if the padding makes room.
    pictures = boxes[b"mdat"]
    assert set(boxes) >= {b"ftyp", b"moov", b"mdat", b"free"}
    assert boxes[b"free"] == b""
    wide = (1).to_bytes(4, "big") + b"mdat" + (len(pictures) + 16).to_bytes(8, "big") + pictures
    path.write_bytes(b"".join(front) + wide)
    assert probe(path).frames == 24
    path.write_bytes(b"".join(front) + wide[:-1])
    with pytest.raises(NotVideoError, match="1 bytes are missing"):
        probe(path)
    path.write_bytes(b"".join(front) + b"\0\0\0\x08free" + bytes(4) + b"mdat" + pictures)
    assert probe(path).frames == 24
    path.write_bytes(front[0] + wide)
    with pytest.raises(NotVideoError, match="no index"):
        probe(path)


def test_bytes_after_the_end_do_no_harm(tmp_path):
    """Padding that players ignore is no reason to refuse a paid clip."""
    clip = make_clip(tmp_path / "a.mp4")
    with clip.open("ab") as file:
        file.write(bytes(100))
    assert probe(clip).frames == 24


def test_only_a_regular_file_is_opened(tmp_path):
    """A link, a folder, a pipe or nothing at all is refused at once and blocks nobody."""
    clip = make_clip(tmp_path / "a.mp4")
    (tmp_path / "link.mp4").symlink_to(clip)
    os.mkfifo(tmp_path / "pipe.mp4")
    for name in ("link.mp4", "pipe.mp4", "absent.mp4", "."):
        with pytest.raises(StoreError, match="cannot be read"):
            probe(tmp_path / name)
        assert poster(tmp_path / name) is None


def test_a_poster_is_small_and_like_the_clip(tmp_path):
    """The still has the clip's colour and form, at most the asked width, and about 6 KB at most."""
    uri = poster(make_clip(tmp_path / "a.mp4", size=(640, 360), colour=(200, 40, 40)))
    image = _decoded(uri)
    assert image.size == (320, 180)
    red, green, blue = image.getpixel((160, 120))
    assert red > 150
    assert max(green, blue) < 90
    assert len(uri) < 6_200


@pytest.mark.parametrize("size", [(4096, 2304), (2304, 4096)])
def test_a_picture_larger_than_the_models_make_is_measured_up_to_4k(tmp_path, size):
    """There is room to grow, in any direction, and its still is as small as any."""
    clip = make_clip(tmp_path / "a.mp4", size=size, seconds=0.05)
    assert (probe(clip).width, probe(clip).height) == size
    assert len(poster(clip)) < 6_200


@pytest.mark.parametrize("told", [None, (64, 64)], ids=["told", "hidden"])
def test_a_picture_that_would_fill_the_memory_is_not_decoded(tmp_path, told):
    """Beyond 4K the frames of a received folder are no clip, whatever their container says of them."""
    size = (4352, 4352)
    clip = make_clip(tmp_path / "a.mp4", size=size, seconds=0.05)
    if told is not None:
        # In the sample entry: width and height stand 24 bytes after its name.
        data = bytearray(clip.read_bytes())
        at = data.index(b"avc1", data.index(b"stsd")) + 28
        assert struct.unpack(">HH", data[at : at + 4]) == size
        data[at : at + 4] = struct.pack(">HH", *told)
        clip.write_bytes(data)
    with pytest.raises(NotVideoError):
        probe(clip)
    assert poster(clip) is None


@pytest.mark.parametrize("size", [(640, 360), (360, 640), (480, 480)])
def test_a_poster_of_noise_is_still_small(tmp_path, size):
    """The worst picture is made rougher and smaller until it fits."""
    uri = poster(make_clip(tmp_path / "a.mp4", size=size, noise=True, seconds=0.2))
    assert len(uri) < 6_200
    assert max(_decoded(uri).size) >= 60


def test_a_poster_skips_the_black_before_the_picture(tmp_path):
    """A clip that fades in from black does not get a black still; an all black one gets what there is."""
    faded = _decoded(poster(make_clip(tmp_path / "a.mp4", black_s=0.5, colour=(220, 220, 220))))
    assert min(faded.convert("L").getextrema()) > 100
    black = _decoded(poster(make_clip(tmp_path / "b.mp4", black_s=9)))
    assert max(black.convert("L").getextrema()) < 20


def test_nothing_heavy_is_loaded_before_a_clip_is_there():
    """Importing the store loads neither PyAV nor Pillow."""
    code = "import sys, kling_nb.media.folder; print(sorted({'av', 'PIL', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


_KEPT = """
import ctypes, gc, sys
from pathlib import Path
from kling_nb.media.probe import poster, probe

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "a o s h hd us fs used f k".split()]

libc, path = ctypes.CDLL(None), Path(sys.argv[1])
libc.mallinfo2.restype = Info
for looks in (50, 200):
    gc.collect()
    before = libc.mallinfo2().used
    for _ in range(looks):
        probe(path), poster(path, width=16)
gc.collect()
print((libc.mallinfo2().used - before) // looks)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="only newer glibc tells"
)
def test_a_look_at_a_clip_keeps_no_memory(tmp_path):
    """What is kept of each clip would pin what was freed around it, a hundred kilobytes and more a clip."""
    command = [sys.executable, "-c", _KEPT, make_clip(tmp_path / "a.mp4", seconds=0.5, size=(64, 36))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100
