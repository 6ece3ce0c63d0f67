"""The published schema says what receipts are: every one of ours fits, and a broken one does not."""

import asyncio
import copy
import hashlib
import json
import re
from datetime import datetime
from pathlib import Path

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import kling_nb as kling
from kling_nb.errors import StoreError
from kling_nb.network.client import Transport
from kling_nb.providers.messages import Call
from kling_nb.records.provenance import AI_MADE, DRAWN, Cell, Commit, Mark, Sent, Terms, body_bytes
from kling_nb.records.receipt import from_receipt, receipts_in, to_receipt
from kling_nb.records.receipt_model import RECEIPT_MIME
from kling_nb.records.receipt_schema import SCHEMA_FILE, receipt_schema, schema_text
from kling_nb.records.request import Shot, TextToVideo
from kling_nb.records.run import RunStatus
from kling_nb.recovery.verify import verify_folder
from support.clips import make_record
from support.kernels import execute, notebook
from support.matrix import ONE_WIRE
from support.played import FLAGGED
from support.receipts import FILE, json_values, places, records
from support.sessions import ask
from support.stage import WIRES, Stage
from support.transport import answer, replying, serving
from support.workbench import houses

ROOT = Path(kling.__file__).parent
VALIDATOR = Draft202012Validator(receipt_schema())
#: What a provider does, by the switches of the sandbox, and how the run ends.
ENDS = {
    "succeeded": {},
    "flagged": {"play": FLAGGED},
    "failed": {"run_failed": {"next": 1}},
    "moderated": {"submit_moderated": {"next": 1}},
    "moderated after": {"run_moderated": {"next": 1}},
    "canceled": {"run_canceled": {"next": 1}},
    "expired": {"run_forgotten": {"next": 1}},
}


def whole(**changes):
    """Give a record with every field filled."""
    request = TextToVideo(
        shots=[Shot(prompt="one", duration=3), Shot(prompt="two", duration=3)],
        negative_prompt="blur",
        cfg_scale=0.5,
    )
    media = FILE.model_copy(update={"marks": (Mark(kind="aigc", where="AIGC", text="{}"),)})
    earlier = make_record(status=RunStatus.FAILED, reason="provider").as_earlier()
    return make_record(
        **{
            "request": request,
            "media": media,
            "sent": Sent.of("https://api.runflow.io/v1/runs", {"b": [1], "a": "ü"}, private=False),
            "earlier": (earlier,),
            "cell": Cell.of("%%kling\nx", cell_id="cell1", count=2),
            "commit": Commit(sha="a" * 40, dirty=True),
            "terms": Terms(licence="a licence", url="https://x.example/terms", as_of="2026-11-21"),
            "tags": {"suite": "vbench", "category": "colour", "index": "12"},
            "take": 2,
            **changes,
        }
    )


def at(data, *path, value):
    """Give a copy with another value in one place."""
    changed = copy.deepcopy(data)
    place = changed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return changed


# -- the schema ------------------------------------------------------------------------------
def test_the_published_schema_is_that_of_the_code():
    """The file in the package is what the model says now, and it is a schema."""
    Draft202012Validator.check_schema(receipt_schema())
    assert (ROOT / "records" / SCHEMA_FILE).read_text(encoding="utf-8") == schema_text()
    assert kling.receipt_schema() == receipt_schema()
    assert receipt_schema()["$id"] == f"urn:kling-nb:receipt:{to_receipt(whole())['schema_version']}"


def named(data, schema, path=""):
    """Give every name of a receipt that the schema does not describe."""
    for option in schema.get("anyOf", [schema]):
        part = receipt_schema()["$defs"][option["$ref"].rpartition("/")[2]] if "$ref" in option else option
        if isinstance(data, list) and "items" in part:
            for item in data:
                yield from named(item, part["items"], path)
        if isinstance(data, dict) and "properties" in part:
            for name, value in data.items():
                if name not in part["properties"]:
                    yield f"{path}{name}"
                else:
                    yield from named(value, part["properties"][name], f"{path}{name}.")


def test_every_field_that_is_written_is_described():
    """No field goes out that the schema does not name, and each has words."""
    assert list(named(to_receipt(whole()), receipt_schema())) == []
    assert list(named({**to_receipt(whole()), "badge": 1}, receipt_schema())) == ["badge"]
    parts = [receipt_schema(), *receipt_schema()["$defs"].values()]
    silent = [
        name
        for part in parts
        for name, said in part.get("properties", {}).items()
        if "description" not in said
    ]
    assert (silent, len(parts) > 15) == ([], True)


@pytest.mark.parametrize("wire", ONE_WIRE)
def test_every_end_fits_and_agrees(tmp_path, wire):
    """However a run ends on either wire, ledger, sidecar and card have one receipt, and it fits."""
    stage = Stage(tmp_path, wire)
    try:
        for end, switch in ENDS.items():
            stage.faults(**{"play": "own", **switch})
            run = stage.go(f"A fox, {end}", negative_prompt="blur", cfg_scale=0.3)
            assert run.status.ended
            kept = to_receipt(stage.ledger.get(run.id))
            [sidecar] = (tmp_path / "kling_media").glob(f"*-{run.id}.json")
            assert json.loads(sidecar.read_text()) == kept == run.bundle()[RECEIPT_MIME]
            assert list(VALIDATOR.iter_errors(kept)) == []
            assert to_receipt(from_receipt(kept)) == kept
            assert kept["safety"]["moderated"] == end.startswith("moderated")
            assert (kept["file"] is None) == (end not in {"succeeded", "flagged"})
            if kept["file"]:
                assert kept["file"]["digital_source_type"] == AI_MADE
        ends = {record.reason or record.status.value for record in stage.ledger.runs()}
        assert ends == {"succeeded", "provider", "moderated", "canceled", "expired"}
    finally:
        stage.close()


@pytest.mark.parametrize("wire", WIRES)
def test_what_was_posted_is_in_the_receipt(tmp_path, wire):
    """The body is the one that left, its hash is that of the bytes, and it was on disk before."""
    stage = Stage(tmp_path, wire)
    arrived, known = [], []
    gate = stage.sandbox.provider.gate

    async def watch(name, moment, *rest):
        if moment == "submit":
            known.append([record.sent for record in stage.ledger.runs()])
        return await gate(name, moment, *rest)

    stage.sandbox.provider.gate = watch
    send = stage.engine._transport.send

    async def listen(call, **how):
        if call.paid:
            arrived.append(call.content)
        return await send(call, **how)

    stage.engine._transport.send = listen
    shots = [Shot(prompt="ein Fuchs, größer", duration=3), Shot(prompt="two", duration=3)]
    try:
        run = stage.go(prompt=None, shots=shots, duration=6)
        sent = run.record.sent
        assert [hashlib.sha256(body).hexdigest() for body in arrived] == [sent.sha256]
        assert known == [[sent]]
        assert json.loads(arrived[0]) == sent.body
        assert sent.url.startswith(stage.base)
        # From what a sorted, saved notebook holds, the bytes can be made again.
        shuffled = json.loads(json.dumps(sent.body, sort_keys=True, indent=3))
        assert (body_bytes(shuffled), sent.whole) == (arrived[0], True)
    finally:
        stage.close()


def test_the_bytes_on_the_wire_are_those_of_the_hash():
    """What a server reads off its socket has the SHA-256 that the receipt would have."""
    body = {"z": [1.5, True, None], "a": "größer als x", "m": {"b": 1, 7: "seven"}}

    async def post():
        async with serving(replying(answer(b"{}"))) as wire, Transport() as transport:
            call = Call(method="POST", url=f"{wire.origin}/v1", json=body, paid=True)
            await transport.send(call, origin=wire.origin)
            return wire.bodies, wire.heads, Sent.of(call.url, body, private=False)

    [arrived], [head], sent = asyncio.run(post())
    assert hashlib.sha256(arrived).hexdigest() == sent.sha256
    assert (json.loads(arrived), sent.whole) == (sent.body, True)
    assert "content-type: application/json" in head.lower()


def test_states_on_the_way_fit():
    """A receipt that is written before the end fits as well: each state, and the emptiest one."""
    for status in RunStatus:
        receipt = to_receipt(whole(status=status, media=None, sent=None))
        assert list(VALIDATOR.iter_errors(receipt)) == []
    assert list(VALIDATOR.iter_errors(to_receipt(make_record()))) == []


def test_a_play_clip_says_that_it_was_drawn(make_session):
    """The sandbox's clips carry IPTC's word for what a program draws."""
    [run] = make_session(provider="sandbox").open(ask())
    receipt = to_receipt(run.wait(90).record)
    assert (receipt["file"]["digital_source_type"], receipt["price"]["play"]) == (DRAWN, True)
    assert list(VALIDATOR.iter_errors(receipt)) == []


def test_a_private_run_keeps_the_hash_of_what_was_posted(make_session, monkeypatch):
    """Of a private run the receipt has no word of the body, and the hash of the whole of it."""
    bodies = []
    send = Transport.send

    async def listen(self, call, **how):
        bodies.extend([call.content] if call.paid else [])
        return await send(self, call, **how)

    monkeypatch.setattr(Transport, "send", listen)
    [run] = make_session(provider="sandbox").open(ask("A hidden owl", private=True))
    record = run.wait(90).record
    [posted] = bodies
    assert b"A hidden owl" in posted
    assert record.sent.sha256 == hashlib.sha256(posted).hexdigest()
    told = run.path.with_suffix(".json").read_text()
    assert json.loads(told)["sent"]["body"] is None
    assert "owl" not in told
    assert list(VALIDATOR.iter_errors(json.loads(told))) == []
    assert [(one.word, one.why) for one in verify_folder(run.path.parent)] == [("here", "")]
    # One that became private later has none either, and what its file says of the prompt is left out.
    mark = Mark(kind="tag", where="comment", text="a hidden owl at night")
    media = record.media.model_copy(update={"marks": (mark,)})
    sent = Sent.of("https://x.example/v1", {"prompt": "A hidden owl"}, private=False)
    later = to_receipt(record.model_copy(update={"sent": sent, "media": media}))
    assert (later["sent"]["body"], "owl" in json.dumps(later)) == (None, False)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), "kling-nb-receipt/2"),
        (("schema_version",), "2.0"),
        (("status",), "paid"),
        (("charged",), None),
        (("times", "created"), "yesterday"),
        (("price", "settled"), 0.56),
        (("price", "estimate"), "1e9"),
        (("file", "sha256"), "zz"),
        (("file", "name"), "../x.mp4"),
        (("file", "digital_source_type"), "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"),
        (("file", "marks"), [{"kind": "seal", "where": "x"}]),
        (("file", "marks", 0, "text"), "x" * 2001),
        (("sent", "sha256"), "0"),
        (("sent", "url"), "https://x/?key=1"),
        (("sent", "body"), "text"),
        (("earlier",), {}),
        (("earlier", 0, "status"), "tried"),
        (("earlier", 0, "settled"), 1),
        (("who", "cell", "id"), "vscode-notebook-cell:/home/ann/a.ipynb"),
        (("who", "commit", "sha"), "HEAD"),
        (("who", "commit", "dirty"), "yes"),
        (("terms", "url"), "javascript:alert(1)"),
        (("sample", "index"), "7"),
        (("safety", "moderated"), None),
        (("request", "duration"), 99),
        (("run_key",), "k2:x"),
    ],
)
def test_a_broken_receipt_fits_neither_schema_nor_reader(path, value):
    """Where one field is wrong, the schema and our own reader refuse it alike."""
    broken = at(to_receipt(whole()), *path, value=value)
    assert list(VALIDATOR.iter_errors(to_receipt(whole()))) == []
    assert list(VALIDATOR.iter_errors(broken)) != []
    with pytest.raises(StoreError):
        from_receipt(broken)


@settings(max_examples=40)
@given(records())
def test_whatever_is_written_fits(record):
    """Whatever stands in a record, its receipt is within the schema."""
    assert list(VALIDATOR.iter_errors(json.loads(json.dumps(to_receipt(record))))) == []


@settings(max_examples=80)
@given(st.sampled_from(list(places(to_receipt(whole())))), json_values)
def test_whatever_our_reader_takes_fits(path, value):
    """The schema is no stricter than the code: a change that we read is one that the schema allows."""
    changed = at(to_receipt(whole()), *path, value=value)
    try:
        from_receipt(changed)
    except StoreError:
        return
    assert list(VALIDATOR.iter_errors(changed)) == []


def test_a_receipt_of_the_first_edition_is_read():
    """What 1.0 did not have is absent, and unknown; what 1.9 will have is left alone."""
    new = {"schema_version", "sent", "sample", "earlier", "terms", "safety", "private"}
    old = {name: value for name, value in to_receipt(whole()).items() if name not in new}
    old["file"] = {k: v for k, v in old["file"].items() if k not in {"marks", "digital_source_type"}}
    old["who"] = {k: v for k, v in old["who"].items() if k not in {"cell", "commit"}}
    record = from_receipt(old)
    assert list(VALIDATOR.iter_errors(old)) == []
    assert (record.sent, record.earlier, record.cell, record.commit, record.terms) == (
        None,
        (),
        None,
        None,
        None,
    )
    assert record.media.marks is None
    later = {**to_receipt(whole()), "schema_version": "1.9", "badge": {"x": 1}}
    assert list(VALIDATOR.iter_errors(later)) == []
    assert from_receipt(later) == from_receipt(to_receipt(whole()))


def test_the_page_shows_a_receipt_that_fits():
    """The example of the documentation is a receipt of this edition, with every field that one has."""
    page = (ROOT.parent / "docs" / "reference" / "receipt.md").read_text(encoding="utf-8")
    shown = json.loads(re.findall(r"```json\n(.*?)```", page, re.DOTALL)[-1])
    assert list(VALIDATOR.iter_errors(shown)) == []
    assert to_receipt(from_receipt(shown)) == shown
    assert from_receipt(shown).sent.whole


# -- the saved notebook -------------------------------------------------------------------------
@pytest.fixture
def house(tmp_path, monkeypatch):
    """A folder with a notebook, and both providers next door."""
    made = houses(tmp_path, monkeypatch)
    yield next(made)
    made.close()


def test_ledger_sidecar_and_saved_notebook_agree(tmp_path, house):
    """Field by field, of runs that came well, failed, were refused, canceled, lost, and tried again."""
    home = house()
    home.set(PROVIDER="runcomfy", BUDGET="20", PROJECT="vineyard")
    told = [
        ("%load_ext kling_nb", {}),
        ("%%kling -d 3 --tag suite=foxes --tag index=4\nA red fox", {}),
        ("%%kling -d 3\nA refused fox", {"submit_moderated": {"next": 1}}),
        ("%%kling -d 3\nA fox that fails", {"run_failed": {"next": 1}}),
        ("%%kling -d 3 --retry\nA fox that fails", {}),
        ("%%kling -d 3\nA canceled fox", {"run_canceled": {"next": 1}}),
        ("%%kling -d 3\nA lost fox", {"submit_drop_after": {"next": 1}}),
        ("%%kling story\n[3s] One\n[3s] Two", {}),
        ("import kling_nb as kling\nkling.submit('A fox of Python', duration=3)", {}),
    ]
    made = notebook(*(source for source, _ in told))

    def before(cell, cell_index):
        assert cell.source == told[cell_index][0]
        home.sandbox.set_faults(told[cell_index][1])

    execute(made, tmp_path, allow_errors=True, on_cell_start=before)
    nbformat.write(made, str(tmp_path / "saved.ipynb"))
    saved = json.loads((tmp_path / "saved.ipynb").read_text())
    shown = {
        receipt["id"]: (receipt, cell)
        for cell in saved["cells"]
        for output in cell["outputs"]
        for receipt in receipts_in(output.get("data", {}).get(RECEIPT_MIME))
    }
    kept = [json.loads(path.read_text()) for path in home.media.glob("*.json")]
    rows = {record.id: to_receipt(record) for record in home.session().ledger().runs()}
    assert {one["id"]: one for one in kept} == rows == {run: receipt for run, (receipt, _) in shown.items()}
    ends = sorted(receipt["reason"] or receipt["status"] for receipt in rows.values())
    assert ends == ["canceled", "lost", "moderated", "provider", *["succeeded"] * 4]
    for receipt, cell in shown.values():
        assert list(VALIDATOR.iter_errors(receipt)) == []
        told_of = receipt["who"]["cell"]
        assert told_of["count"] == cell["execution_count"]
        assert told_of["sha256"] == hashlib.sha256("".join(cell["source"]).encode()).hexdigest()
        assert receipt["who"]["commit"] is None
        assert receipt["terms"] == {"licence": None, "url": None, "as_of": "2026-11-21"}
        assert datetime.fromisoformat(receipt["times"]["created"]).tzinfo is not None
    again = next(receipt for receipt, _ in shown.values() if receipt["earlier"])
    [first] = again["earlier"]
    before_it = rows[first["id"]]
    assert (again["attempt"], again["status"], again["request_key"]) == (
        2,
        "succeeded",
        before_it["request_key"],
    )
    assert {name: first[name] for name in ("attempt", "status", "reason", "charged", "provider")} == {
        name: before_it[name] for name in ("attempt", "status", "reason", "charged", "provider")
    }
    assert (first["created"], first["settled"]) == (
        before_it["times"]["created"],
        before_it["price"]["settled"],
    )
    fox = next(receipt for receipt, _ in shown.values() if receipt["sample"]["suite"])
    assert fox["sample"] == {"suite": "foxes", "dimension": None, "index": 4, "take": 0}
