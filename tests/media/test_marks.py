"""What a file says about itself is shown, and never touched."""

import asyncio
import hashlib
import io
import json
import struct
import tracemalloc
from fractions import Fraction

import av
import pytest

from kling_nb.commands.cache import findings
from kling_nb.exports.export import export as session_export
from kling_nb.media.marks import BrokenBoxError, outer_boxes
from kling_nb.media.probe import NotVideoError, probe
from kling_nb.records.provenance import AI_MADE
from kling_nb.recovery.verify import verify_folder
from support.clips import make_clip
from support.marked import C2PA, LABEL, box, c2pa, labelled, with_boxes
from support.sessions import KEY, ask

XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")


def kinds(path):
    """Give the marks of a file, without the tags of the encoder that every file has."""
    return [(mark.kind, mark.where, mark.text) for mark in probe(path).marks if mark.where != "encoder"]


# -- what is seen --------------------------------------------------------------------------
def test_the_label_of_an_ai_service_is_read(tmp_path):
    """The `AIGC` field of GB 45438-2025 is found under its name, whole, with what it says."""
    [(kind, where, text)] = kinds(labelled(tmp_path / "a.mp4", {"AIGC": LABEL}))
    assert (kind, where, json.loads(text)) == ("aigc", "AIGC", json.loads(LABEL))
    [(kind, where, _)] = kinds(labelled(tmp_path / "b.mp4", {"comment": '{"AIGC": ' + LABEL + "}"}))
    assert (kind, where) == ("aigc", "comment")


@pytest.mark.parametrize("wide", [False, True])
def test_a_signed_manifest_is_seen(tmp_path, wide):
    """A C2PA box is told by its type, with its purpose, its size and the source type that it names."""
    said = b"jumb" + AI_MADE.encode() + b"\0" * 40
    clip = with_boxes(make_clip(tmp_path / "a.mp4", seconds=0.5), c2pa(said, wide=wide))
    [(kind, where, text)] = kinds(clip)
    assert (kind, where) == ("c2pa", "uuid box")
    assert text.startswith("manifest, ")
    assert text.endswith(f"bytes, {AI_MADE}")


def test_other_marks_and_their_order(tmp_path):
    """A manifest comes first, then the label, an XMP packet that names a source, and what else is said."""
    said = {"AIGC": LABEL, "comment": "made by a model", "copyright": "see https://x.example/t?sig=hidden"}
    packet = box(b"uuid", XMP + b"<x:xmpmeta>" + AI_MADE.encode() + b"</x:xmpmeta>")
    unknown = box(b"uuid", bytes(range(16)) + b"nobody knows")
    clip = with_boxes(labelled(tmp_path / "a.mp4", said), unknown + packet + c2pa())
    found = kinds(clip)
    assert [kind for kind, _, _ in found] == ["c2pa", "aigc", "xmp", "tag", "tag"]
    assert found[2][2] == AI_MADE
    assert found[3:] == [
        ("tag", "comment", "made by a model"),
        ("tag", "copyright", "see https://x.example/t"),
    ]


def test_a_clip_without_marks_has_none(tmp_path):
    """Nobody's clip is called marked: only what its encoder wrote of itself is there."""
    clip = make_clip(tmp_path / "a.mp4", seconds=0.5)
    assert kinds(clip) == []
    assert [mark.kind for mark in probe(clip).marks] == ["tag"] * len(probe(clip).marks)


def test_a_webm_says_it_too(tmp_path):
    """Containers without boxes are read by what the decoder reports."""
    clip = tmp_path / "a.webm"
    with av.open(clip, "w") as film:
        film.metadata["AIGC"] = LABEL
        picture = film.add_stream("libvpx-vp9", rate=24)
        picture.width, picture.height, picture.pix_fmt = 96, 54, "yuv420p"
        for number in range(6):
            frame = av.VideoFrame(96, 54, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 24)
            film.mux(picture.encode(frame))
        film.mux(picture.encode(None))
    assert kinds(clip)[0] == ("aigc", "AIGC", LABEL)


# -- strangers' files ------------------------------------------------------------------------
def test_a_huge_mark_costs_little(tmp_path):
    """Of a manifest of 40 MB a piece is read, and of a long label the beginning is kept."""
    clip = with_boxes(make_clip(tmp_path / "a.mp4", seconds=0.5), c2pa(bytes(40 << 20)))
    probe(make_clip(tmp_path / "warm.mp4", seconds=0.2))
    tracemalloc.start()
    begun = tracemalloc.get_traced_memory()[0]
    [(kind, _, text)] = kinds(clip)
    peak = tracemalloc.get_traced_memory()[1] - begun
    tracemalloc.stop()
    assert (kind, text.startswith("manifest, 41,9")) == ("c2pa", True)
    assert peak < 4 << 20
    long = labelled(tmp_path / "b.mp4", {"AIGC": "x" * 50_000, "comment": "y" * 50_000})
    assert [(where, len(text), text[-1]) for _, where, text in kinds(long)] == [
        ("AIGC", 2000, "\N{HORIZONTAL ELLIPSIS}"),
        ("comment", 300, "\N{HORIZONTAL ELLIPSIS}"),
    ]


def test_many_marks_are_cut_to_a_number(tmp_path):
    """A file with a hundred names tells sixteen, the label among them."""
    said = {f"name{n:03}": "text" for n in range(100)} | {"AIGC": LABEL}
    marks = probe(labelled(tmp_path / "a.mp4", said)).marks
    assert (len(marks), marks[0].kind) == (16, "aigc")


def test_a_strangers_text_is_one_line(tmp_path):
    """Control characters and line ends in a mark cannot fake another line."""
    [(_, _, text)] = kinds(labelled(tmp_path / "a.mp4", {"comment": "one\x1b[2J\ntwo\x07<script>"}))
    assert text == "one [2J two <script>"


@pytest.mark.parametrize(
    "content",
    [
        box(b"uuid", C2PA),
        box(b"uuid", C2PA + b"\xff" * 30),
        box(b"uuid", XMP + b"\xff" * 30),
        struct.pack(">I4sQ", 1, b"free", 3),
        struct.pack(">I4s", 4, b"free"),
    ],
)
def test_a_senseless_box_is_no_trouble(tmp_path, content):
    """A box that holds nothing of sense leaves a playable clip playable."""
    clip = with_boxes(make_clip(tmp_path / "a.mp4", seconds=0.3), content)
    assert probe(clip).frames == 7
    assert {kind for kind, _, _ in kinds(clip)} <= {"c2pa"}


@pytest.mark.parametrize(
    "content", [box(b"uuid", b""), box(b"uuid", C2PA[:15]), box(b"uuid", b"", wide=True)]
)
def test_a_box_too_short_for_its_type_is_refused_in_words(tmp_path, content):
    """What the decoder itself does not take is no video to us, and is said in one line."""
    clip = with_boxes(make_clip(tmp_path / "a.mp4", seconds=0.3), content)
    with pytest.raises(NotVideoError, match="the decoder says"):
        probe(clip)


def test_no_file_keeps_the_walk_busy():
    """A hundred thousand tiny boxes, or an index of 100 MB, are refused before a decoder sees them."""
    with pytest.raises(BrokenBoxError, match="far too large"):
        outer_boxes(io.BytesIO(box(b"free", b"") * 100_001))
    assert len(outer_boxes(io.BytesIO(box(b"free", b"") * 1000))) == 1000

    class Hollow(io.BytesIO):
        """A file that says it has 100 MB."""

        def seek(self, at, whence=0):
            return 100_000_008 if whence == 2 else super().seek(at)

    with pytest.raises(BrokenBoxError, match="far too large"):
        outer_boxes(Hollow(struct.pack(">I4s", 100_000_008, b"moov") + bytes(8)))


def test_a_cut_mark_is_a_cut_file(tmp_path):
    """A manifest that ends in the middle is a download that ended in the middle."""
    clip = with_boxes(make_clip(tmp_path / "a.mp4", seconds=0.3), c2pa(bytes(900))[:-500])
    with pytest.raises(NotVideoError, match="cut off, 500 bytes"):
        probe(clip)


# -- from the provider to the export -----------------------------------------------------------
@pytest.fixture
def marked(tmp_path):
    """A clip with a label and a manifest, as a provider may serve it."""
    return with_boxes(labelled(tmp_path / "served.mp4", {"AIGC": LABEL}), c2pa(AI_MADE.encode()))


@pytest.mark.parametrize("wire", ["runflow", "runcomfy"])
def test_marks_come_through_untouched(tmp_path, make_session, wires, marked, monkeypatch, wire):  # noqa: PLR0917 - fixtures
    """What is served is what is kept and exported, byte for byte; its marks are recorded and shown."""

    def serve(_plan):
        ready = asyncio.get_running_loop().create_future()
        ready.set_result(marked)
        return ready

    monkeypatch.setattr(wires.provider.clips, "get", serve)
    monkeypatch.setenv({"runflow": "RUNFLOW_API_KEY", "runcomfy": "RUNCOMFY_API_TOKEN"}[wire], KEY)
    session = make_session(provider=wire, budget="5", **{f"{wire}_url": getattr(wires, wire)})
    run = session.open(ask())[0].wait(60)
    served = marked.read_bytes()
    assert run.path.read_bytes() == served
    assert (run.record.media.size, run.record.media.sha256) == (
        len(served),
        hashlib.sha256(served).hexdigest(),
    )
    label = next(mark for mark in run.record.media.marks if mark.kind == "aigc")
    assert [mark.kind for mark in run.record.media.marks if mark.kind != "tag"] == ["c2pa", "aigc"]
    sidecar = json.loads(run.path.with_suffix(".json").read_text())
    assert sidecar["file"]["marks"][1] == {"kind": "aigc", "where": "AIGC", "text": label.text}
    assert sidecar["file"]["digital_source_type"] == AI_MADE
    shown = str(run.bundle()["text/html"]).partition(">Marks<")[2]
    assert "C2PA: manifest" in shown
    assert "a&lt;b&gt;" in shown
    assert "<b>" not in shown
    [found] = findings(verify_folder(tmp_path)).value
    assert (found["state"], found["marks"]) == ("here", ["aigc", "c2pa"])
    assert "marks in the file: aigc, c2pa" in findings(verify_folder(tmp_path)).text
    for layout in ("videofolder", "crate"):
        session_export([run], tmp_path / layout, layout=layout, session=session)
    [said] = (tmp_path / "videofolder" / "metadata.jsonl").read_text().splitlines()
    told = {name: json.loads(said)[name] for name in ("digital_source_type", "marks")}
    assert told == {"digital_source_type": AI_MADE, "marks": "aigc, c2pa, tag"}
    copies = [path for layout in ("videofolder", "crate") for path in (tmp_path / layout).rglob("*.mp4")]
    assert [path.read_bytes() == served for path in copies] == [True, True]
    assert run.path.read_bytes() == served
