"""Receipts and records for tests: one of every kind, and every place in their JSON."""

import string
from datetime import UTC, datetime

from hypothesis import strategies as st

from kling_nb.errors import one_line
from kling_nb.records.money import Estimate
from kling_nb.records.provenance import Cell, Commit, Mark, Sent, Terms
from kling_nb.records.request import Shot, TextToVideo
from kling_nb.records.run import Earlier, MediaFacts, RunStatus
from support.clips import make_record

FILE = MediaFacts(
    file="a-red-fox-kl7m2q.mp4",
    sha256="ab" * 32,
    size=4_100_000,
    container="mp4",
    codec="h264",
    profile="High",
    pixel_format="yuv420p",
    width=1920,
    height=1080,
    fps=23.976,
    frames=121,
    duration_s=5.042,
    audio_codec="aac",
)

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80).filter(str.strip)

lines = (
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
    .map(one_line)
    .filter(lambda t: "://" not in t)
)

amounts = st.none() | st.integers(0, 10**12)
moments = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1)).map(lambda t: t.replace(tzinfo=UTC))  # noqa: DTZ001 - hypothesis wants naive bounds
names = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=20)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | words
)

json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3)
)

json_objects = st.dictionaries(words, json_values, max_size=4)
marks = st.builds(Mark, kind=st.sampled_from(["c2pa", "aigc", "xmp", "tag"]), where=lines, text=lines)

cells = st.builds(
    lambda source, count: Cell.of(source, cell_id="cell-1", count=count), words, st.integers(0, 10**9)
)

sent = st.builds(
    lambda body, private: Sent.of("https://api.runflow.io/v1/x/runs", body, private=private),
    json_objects,
    st.booleans(),
)

earlier = st.builds(
    Earlier,
    id=st.just("kl7m2p"),
    provider=st.sampled_from(["runflow", "runcomfy"]),
    attempt=st.integers(1, 9),
    status=st.sampled_from(RunStatus),
    reason=st.none() | st.sampled_from(["moderated", "provider"]),
    charged=st.sampled_from(["yes", "no", "unknown"]),
    created_at=moments,
    submitted_at=st.none() | moments,
    settled_micros=amounts,
)


@st.composite
def requests(draw):
    fields = {
        "negative_prompt": draw(st.none() | words),
        "cfg_scale": draw(st.none() | st.floats(0, 1)),
        "audio": draw(st.booleans()),
        "aspect_ratio": draw(st.sampled_from(["16:9", "9:16", "1:1"])),
    }
    if draw(st.booleans()):
        shots = draw(
            st.lists(st.builds(Shot, prompt=words, duration=st.integers(1, 2)), min_size=3, max_size=6)
        )
        return TextToVideo(shots=shots, **fields)
    return TextToVideo(prompt=draw(words), duration=draw(st.integers(3, 15)), **fields)


@st.composite
def records(draw):
    estimate = Estimate(
        micros=draw(amounts),
        reserve_micros=draw(st.integers(0, 10**12)),
        usd_per_s=draw(st.none() | st.just("0.112")),
        basis=draw(lines),
        source=draw(lines),
        as_of=draw(st.none() | st.just("2026-04-06")),
    )
    media = st.builds(
        MediaFacts,
        file=names.map(lambda name: f"{name}.mp4"),
        sha256=st.just("0f" * 32),
        size=st.integers(0, 10**12),
        codec=lines,
        profile=lines,
        pixel_format=lines,
        fps=st.floats(0, 1000),
        frames=st.none() | st.integers(0, 10**6),
        marks=st.none() | st.lists(marks, max_size=3).map(tuple),
        duration_s=st.floats(0, 1000),
        audio_codec=st.none() | lines,
    )
    return make_record(
        request=draw(requests()),
        take=draw(st.integers(0, 99)),
        attempt=draw(st.integers(1, 9)),
        provider=draw(st.sampled_from(["runflow", "runcomfy", "sandbox"])),
        play=draw(st.booleans()),
        status=draw(st.sampled_from(RunStatus)),
        reason=draw(st.none() | st.sampled_from(["moderated", "credit", "expired"])),
        charged=draw(st.sampled_from(["yes", "no", "unknown"])),
        message=draw(lines),
        account=draw(lines),
        client_ref=draw(lines),
        provider_run_id=draw(st.none() | names),
        queue_position=draw(st.none() | st.integers(0, 999)),
        created_at=draw(moments),
        **{
            f"{name}_at": draw(st.none() | moments)
            for name in ("submitted", "accepted", "started", "finished", "saved")
        },
        estimate=estimate,
        reported_micros=draw(amounts),
        settled_micros=draw(amounts),
        reserved_micros=draw(st.integers(0, 10**12)),
        session_id=draw(lines),
        project=draw(lines),
        user=draw(lines),
        notebook=draw(st.none() | names.map(lambda name: f"work/{name}.ipynb")),
        folder=draw(lines),
        tags=draw(st.dictionaries(lines, lines, max_size=3)),
        metadata=draw(json_objects),
        media=draw(st.none() | media),
        nsfw_detected=draw(st.none() | st.booleans()),
        seed=draw(st.none() | st.integers() | lines),
        timing=draw(st.none() | json_objects),
        version=draw(lines),
        sent=draw(st.none() | sent),
        earlier=tuple(draw(st.lists(earlier, max_size=2))),
        cell=draw(st.none() | cells),
        commit=draw(st.none() | st.builds(Commit, sha=st.just("0a" * 20), dirty=st.none() | st.booleans())),
        terms=draw(
            st.none()
            | st.builds(Terms, licence=st.none() | lines, url=st.none() | st.just("https://x.example/t"))
        ),
    )


def places(value, path=()):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))
