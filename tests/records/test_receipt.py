"""The receipt: exact there and back, readable by people, and closed to strangers' tricks."""

import copy
import json
import re
from datetime import datetime, timedelta, timezone
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_nb.errors import StoreError
from kling_nb.records.provenance import Cell, Commit, Mark, Terms
from kling_nb.records.receipt import from_receipt, to_receipt
from kling_nb.records.receipt_model import RECEIPT_MIME, SCHEMA, is_bare_name
from kling_nb.records.request import request_key, run_key
from kling_nb.records.run import RunRecord, RunStatus
from kling_nb.views.receipt import receipt as receipt_view
from support.clips import make_record
from support.receipts import FILE, json_values, places, records


@given(records())
def test_there_and_back_is_the_same_record(record):
    """Every field but the folder survives JSON exactly, whatever is in it."""
    text = json.dumps(to_receipt(record), allow_nan=False)
    assert from_receipt(json.loads(text)) == record.model_copy(update={"folder": ""})


def test_it_reads_as_a_bill():
    """Money is in dollars as decimal text, unknown is null, times are UTC with a Z."""
    asked = datetime(2026, 11, 21, 15, 0, 47, 120_000, tzinfo=timezone(timedelta(hours=1)))
    record = make_record(created_at=asked, settled_micros=None, reported_micros=560_000, media=FILE)
    receipt = to_receipt(record)
    assert receipt["schema"] == SCHEMA == "kling-nb-receipt/1"
    assert RECEIPT_MIME == "application/vnd.kling-nb.receipt+json"
    assert receipt["times"]["created"] == "2026-11-21T14:00:47.120000Z"
    assert receipt["price"]["reported"] == "0.56"
    assert receipt["price"]["settled"] is None
    assert receipt["price"]["estimate"] == "0.56"
    assert receipt["request"] == {
        "prompt": "A red fox at dawn",
        "duration": 5,
        "aspect_ratio": "16:9",
        "audio": False,
    }
    assert receipt["file"]["name"] == "a-red-fox-kl7m2q.mp4"
    assert receipt["file"]["source_type"] == "trainedAlgorithmicMedia"
    assert to_receipt(make_record(play=True, media=FILE))["file"]["source_type"] == "algorithmicMedia"


def test_the_card_tells_where_a_clip_comes_from():
    """Earlier attempts with reason and charge, the cell, the commit and the marks are in its receipt."""
    failed = {"status": RunStatus.FAILED, "reason": "moderated"}
    before = [
        make_record(id="k111", attempt=1, charged="no", settled_micros=0, **failed).as_earlier(),
        make_record(id="k222", attempt=2, charged="unknown", **failed).as_earlier(),
    ]
    record = make_record(
        earlier=tuple(before),
        cell=Cell.of("x", cell_id="0a1b", count=12),
        commit=Commit(sha="3f" * 20, dirty=True),
        terms=Terms(url="https://x.example/terms", as_of="2026-11-21"),
        media=FILE.model_copy(update={"marks": (Mark(kind="aigc", where="AIGC", text="<i>$1"),)}),
        notebook="snow.ipynb",
    )
    shown = " ".join(unescape(re.sub(r"<[^>]*>", " ", str(receipt_view(record)))).split())
    assert "try 1, k111: failed (moderated), charged $ 0.00" in shown
    assert "try 2, k222: failed (moderated), charged unknown" in shown
    assert "snow.ipynb · In [12] · cell 0a1b · commit 3f3f3f3f3f3f, with changes" in shown
    assert "Terms https://x.example/terms · seen 2026-11-21" in shown
    assert "IPTC trainedAlgorithmicMedia · AIGC: <i> $ 1" in shown
    assert "<i>" not in str(receipt_view(record))
    many = tuple(before[0].model_copy(update={"attempt": n}) for n in range(1, 31))
    page = str(receipt_view(make_record(earlier=many)))
    assert ("25 before these" in page, page.count("k111"), "try 30," in page) == (True, 5, True)
    bare = str(receipt_view(make_record()))
    assert not any(f">{row}<" in bare for row in ("Earlier", "From", "Terms", "Marks", "Posted"))


def test_a_whole_micro_dollar_is_kept():
    """Amounts below a cent are exact, and so are large ones."""
    for amount in (0, 1, 4_200, 999_999, 10**12 + 1):
        receipt = to_receipt(make_record(settled_micros=amount))
        assert from_receipt(receipt).settled_micros == amount


def test_nothing_private_gets_out():
    """No folder, absolute notebook path or signed query is in a receipt, wherever it came from."""
    record = make_record(
        folder="/home/ann/kling_media",
        notebook="/home/ann/secret/plan.ipynb",
        message="see https://cdn.example/a.mp4?X-Sig=hidden#x and https://ann:hidden@host/x",
        origin="https://api.runflow.io?token=hidden",
        timing={"url": ["https://cdn.example/a.mp4?sig=hidden"]},
        seed=7,
    )
    receipt = to_receipt(record)
    text = json.dumps(receipt)
    assert "hidden" not in text
    assert "/home/ann" not in text
    assert receipt["who"]["notebook"] == "plan.ipynb"
    assert receipt["message"].startswith("see https://cdn.example/a.mp4")
    assert to_receipt(make_record(notebook="C:\\Users\\ann\\plan.ipynb"))["who"]["notebook"] == "plan.ipynb"


def test_odd_data_of_a_provider_is_still_json():
    """NaN, a lone surrogate, a control character or a bottomless nest cannot spoil a receipt."""
    deep = nest = {}
    for _ in range(500):
        nest["n"] = nest = {}
    # By model_copy, which does not validate: this is how an adapter's reading gets into a record.
    update = {
        "timing": {"t": float("nan"), "s": "\ud800", "deep": deep, 3: (1,)},
        "message": "a\x1b[2J\ud800b",
    }
    receipt = to_receipt(make_record().model_copy(update=update))
    back = from_receipt(json.loads(json.dumps(receipt, allow_nan=False)))
    assert back.timing["t"] is None
    assert back.timing["3"] == [1]
    assert back.message == "a [2J b"


def _at(receipt, *path, value):
    changed = copy.deepcopy(receipt)
    place = changed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return changed


GOOD = to_receipt(make_record(media=FILE, provider_run_id="019e-c41", settled_micros=560_000))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), "kling-nb-receipt/2"),
        (("id",), "../../x"),
        (("id",), 7),
        (("status",), "paid"),
        (("charged",), "maybe"),
        (("take",), "0"),
        (("take",), True),
        (("take",), 1),
        (("model",), "kling-2.0"),
        (("provider",), "runcomfy"),
        (("provider",), "Run flow"),
        (("request", "prompt"), "A blue fox"),
        (("request", "prompt"), ""),
        (("request", "prompt"), "x" * 2501),
        (("request", "new_field"), 1),
        (("request",), None),
        (("request_key",), "k1:" + "0" * 64),
        (("run_key",), "k1:" + "0" * 64),
        (("run_key",), "k2:x"),
        (("provider_run_id",), "../../v1/keys?x"),
        (("provider_run_id",), ".."),
        (("provider_model",), "kling/../../keys"),
        (("origin",), "javascript:alert(1)"),
        (("origin",), "https://x/?token=1"),
        (("origin",), "https://key@x"),
        (("times", "created"), None),
        (("times", "created"), "2026-11-21T14:00:47+01:00"),
        (("times", "created"), "2026-13-41T14:00:47Z"),
        (("times", "saved"), 5),
        (("price", "settled"), 0.56),
        (("price", "settled"), "1e9"),
        (("price", "settled"), "NaN"),
        (("price", "settled"), "0.1234567"),
        (("price", "reserve"), None),
        (("price", "per_second"), "<b>"),
        (("price", "as_of"), "yesterday"),
        (("file", "name"), "../../.ssh/id_rsa.mp4"),
        (("file", "name"), "/etc/passwd"),
        (("file", "name"), "a\\b.mp4"),
        (("file", "name"), "C:a.mp4"),
        (("file", "name"), "..mp4"),
        (("file", "name"), "index.html"),
        (("file", "name"), "a\n.mp4"),
        (("file", "name"), "x" * 300 + ".mp4"),
        (("file", "sha256"), "zz"),
        (("file", "size"), -1),
        (("file", "fps"), "24"),
        (("file", "width"), 10**9),
        (("tags",), {"a": 1}),
        (("tags",), [1]),
        (("metadata",), "x" * 2_000_000),
        (("extras", "nsfw_detected"), "no"),
        (("who", "user"), {"name": "x"}),
    ],
)
def test_a_stranger_cannot_pass_a_bad_field(path, value):
    """One wrong field is enough for a no, in one line, and the good one beside it is read."""
    with pytest.raises(StoreError) as caught:
        from_receipt(_at(GOOD, *path, value=value))
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)
    assert from_receipt(GOOD).id == "kl7m2q"


@pytest.mark.parametrize("data", [None, [], "x", 5, {}, {"schema": SCHEMA}, {"schema": [SCHEMA]}])
def test_what_is_no_receipt_is_refused(data):
    """Anything that is not an object of our schema is a StoreError, nothing else."""
    with pytest.raises(StoreError):
        from_receipt(data)


def test_a_deep_or_strange_receipt_is_refused():
    """Nesting, circles, NaN and things that are not JSON are refused before anything walks them."""
    deep = []
    for _ in range(100_000):
        deep = [deep]
    circle = []
    circle.append(circle)
    for value in (deep, circle, float("nan"), float("inf"), {1, 2}, 10**5000, "\ud800"):
        with pytest.raises(StoreError):
            from_receipt(
                _at(GOOD, "metadata", value={"x": value}) if value is not deep else {**GOOD, "metadata": deep}
            )


def test_unknown_fields_are_ignored():
    """A receipt of a later version of the same schema is read for what is known."""
    assert from_receipt({**GOOD, "later": {"x": 1}, "who": {**GOOD["who"], "badge": 3}}) == from_receipt(GOOD)


@given(st.sampled_from(list(places(GOOD))), json_values)
def test_any_change_is_read_whole_or_refused(path, value):
    """Whatever stands in any one place, the answer is a consistent record or a StoreError."""
    try:
        record = from_receipt(_at(GOOD, *path, value=value))
    except StoreError:
        return
    assert isinstance(record, RunRecord)
    assert record.request_key == request_key(record.request, record.model, record.take)
    assert record.run_key == run_key(record.request, record.model, record.provider, record.take)
    assert is_bare_name(record.media.file) if record.media else True


def test_a_strangers_words_cannot_fake_a_line():
    """Control characters in foreign text become spaces, so that a terminal shows what is there."""
    record = from_receipt(_at(GOOD, "who", "project", value="x\x1b]0;owned\x07\ny"))
    assert record.project == "x ]0;owned y"


@given(st.text(max_size=30))
def test_a_bare_name_is_one_step_into_a_folder(name):
    """What passes for a clip's name has no way out of its folder on any system."""
    if is_bare_name(name):
        assert not set(name) & set("/\\:\x00")
        assert name not in {".", ".."}
    assert is_bare_name("clip.mp4")
    assert not is_bare_name(f"{name}/clip.mp4")
