"""A receipt that names a request and cannot be read may be of a paid clip: nothing is bought in its place."""

import json

import pytest

from kling_nb.errors import BlockedError
from support.sessions import ask
from support.workbench import houses

PROMPT = "A red fox in snow"


def edited(**changes):
    return lambda text: json.dumps({**json.loads(text), **changes}).encode()


def conflict(text):
    return f"<<<<<<< ours\n{text}=======\n{text}>>>>>>> theirs\n".encode()


DAMAGES = {
    "conflict markers": conflict,
    "a trailing comma": lambda text: text.rstrip().removesuffix("}").rstrip().encode() + b",\n}",
    "a comment": lambda text: f"// mine\n{text}".encode(),
    "cut in half": lambda text: text[: len(text) // 2].encode(),
    "cut before its key": lambda text: text[: text.index("request_key")].encode(),
    "nothing left": lambda _text: b"",
    "no text": lambda text: b"\xff\xff" + text.encode(),
    "an unknown status": edited(status="resting"),
    "an unknown schema": edited(schema="kling-nb-receipt/9"),
    "NaN": lambda text: text.replace('"take": 0', '"take": NaN').encode(),
    "a bad field": edited(charged="perhaps"),
    "another key": edited(run_key="k1:" + "0" * 64),
}


@pytest.fixture
def build(tmp_path, monkeypatch):
    yield from houses(tmp_path, monkeypatch)


@pytest.mark.parametrize("private", [False, True], ids=["public", "private"])
def test_a_receipt_that_cannot_be_read_is_not_bought_again(build, private):
    """Whatever was done to it: the file is named, with a cure, and nothing is sent; mended, it is reused."""
    house = build()
    session = house.session()
    run = house.run(session, ask(PROMPT, provider="runflow", private=private))
    session.close()
    house.forget_ledger()
    [path] = house.media.glob("*.json")
    text = path.read_text()
    other = house.session()
    for name, damage in DAMAGES.items():
        if private and name == "another key":
            # Its keys are made of words that are not in it.
            continue
        damaged = damage(text)
        assert damaged != text.encode(), name
        path.write_bytes(damaged)
        with pytest.raises(BlockedError, match=path.name) as caught:
            other.open(ask(PROMPT, provider="runflow", private=private))
        assert "--no-cache" in caught.value.cure, name
        assert house.submissions == 1, name
    for encoding in ("utf-16", "utf-8-sig"):
        path.write_text(text, encoding=encoding)
        again = house.run(other, ask(PROMPT, provider="runflow", private=private))
        assert (again.id, again.reused) == (run.id, True), encoding
    assert house.submissions == 1
    path.write_bytes(conflict(text))
    assert house.run(other, ask(PROMPT, no_cache=True, private=private)).status == "succeeded"


def test_a_damaged_receipt_stands_in_the_way_of_its_own_request_alone(build):
    """Other takes, other prompts and play money go on, and a run that the ledger knows needs no receipt."""
    house = build()
    session = house.session()
    run = house.run(session, ask(PROMPT, provider="runflow"))
    [path] = house.media.glob("*.json")
    path.write_bytes(conflict(path.read_text()))
    (house.media / "notes.json").write_text(json.dumps({"see": run.record.request_key}))
    again = house.run(session, ask(PROMPT))
    assert (again.id, again.reused) == (run.id, True)
    house.forget_ledger()
    other = house.session()
    assert house.run(other, ask(PROMPT, takes=(1,))).status == "succeeded"
    assert house.run(other, ask("A heron")).status == "succeeded"
    with pytest.raises(BlockedError, match="conflict markers of git"):
        other.open(ask(PROMPT))
    house.keys()
    assert house.run(house.session(), ask(PROMPT)).record.play
    assert house.submissions == 3
