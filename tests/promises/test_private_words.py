"""`--private`: the words reach their provider whole, and nothing else that is shown, written or exported."""

import base64
import contextlib
import html
import json
import logging
from urllib.parse import quote, quote_plus

import nbformat
import pytest

from kling_nb.errors import KlingError
from kling_nb.exports.layouts import LAYOUTS
from support.canary import NEGATIVE, PROMPT, SHOTS, files_below, pieces_in
from support.kernels import errors, execute, notebook
from support.matrix import ONE_WIRE
from support.played import ODD, PAGE
from support.sessions import ask


def received(house):
    """What the providers were asked for, in full: prompt, negative prompt and shots of each run."""
    return [run.input for run in house.sandbox.provider.runs]


# -- a whole notebook -----------------------------------------------------------------------------
def cells(secret, bill, flag, private):
    """A notebook that shows, lists, compares, rates, bills and exports what it asks for."""
    exports = (
        "from pathlib import Path\n"
        f"for name in {[*LAYOUTS, 'crate']!r}:\n"
        "    for at, runs in (('runflow', [one, api]), ('runcomfy', [*pair, trailer])):\n"
        "        try:\n"
        "            print(kling.export(runs, f'exports/{at}/{name}/clips', layout=name, methods=True))\n"
        "        except kling.KlingError as error:\n"
        "            print(name, error)"
    )
    line = f"-d 3 {flag} --tag prompt=Plumfjord --tag dimension=color --tag suite=s --metadata $meta"
    shots = "\n".join(f"[3s] {shot}" for shot in SHOTS)
    one = f'%%kling one -p runflow {line} --negative "{NEGATIVE}"\n{PROMPT}'
    return {
        "load": "%load_ext kling_nb\nimport kling_nb as kling",
        "read": f"words = open({secret!r}).read()\nmeta = {{'title': words, 'scene': 3}}",
        "one": one,
        "pair": f"%%kling pair -n 2 -p runcomfy {line}\n{PROMPT}",
        "trailer": f"%%kling trailer -p runcomfy {flag}\n{shots}",
        "api": f"api = kling.submit(words + ' again', duration=3, provider='runflow', private={private})\n"
        "api.wait(60)",
        "again": one,
        "dry run": f"%%kling --dry-run -d 4 {flag}\n{PROMPT}",
        "list": "%kling list --all",
        "value": "rows = %kling list\nrows.value",
        "status": "%kling status",
        "show": "%kling show one pair trailer",
        "reprs": "print(one, pair, one.prompt, one.record, one.error, one.video)",
        "record": "trailer.record, trailer.record.__repr_args__()",
        "frame": "kling.runs()",
        "gallery": "%kling gallery --all",
        "gallery value": "kling.gallery().value",
        "compare": "%kling compare one api",
        "compare state": "kling.compare([*pair, trailer]).state()",
        "player": "kling.play(trailer).state()",
        "cost": "%kling cost --all --by tag",
        "rate": "kling.rate(kling.runs(), by='tag:suite')",
        "estimate": f"%kling estimate {bill}",
        "estimate value": f"found = %kling estimate {bill}\nfound.value",
        "form": "form = kling.form(one)\nform",
        "form says": "print(repr(form), form.plan)",
        "exports": exports,
        "methods": "%kling export methods",
        "cache": "%kling cache",
        "bad line": f"%%kling bad {flag} --negative no Brindlesop\n{PROMPT}",
        "not kept": f"%%kling -d 5 {flag} --cached-only\n{PROMPT}",
        "raised": f"kling.submit({PROMPT!r}, duration=6, cached_only=True, private={private})",
        "late": f"kling.generate({PROMPT!r}, duration=7, provider='runflow', timeout_s=0, private={private})",
        "wait": "%kling wait",
    }


def notebook_of(cell):
    """A notebook of one cell."""
    made = notebook()
    made.cells.append(cell)
    return made


#: Where no word of a prompt is expected, private or not.
WORDLESS = {"load", "read", "rate", "methods", "cache", "wait", "late"}


# The other searches have a public run beside them; this one takes as long again.
@pytest.mark.parametrize("private", [True, pytest.param(False, marks=pytest.mark.matrix)])
def test_a_notebook_of_private_cells_keeps_no_word(build, tmp_path, private):
    """Outputs, names, sidecars, exports, lists and tables have hashes; the same search finds a public run."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here").mkdir()
    house = build()
    house.set(LEDGER=tmp_path / "elsewhere" / "ledger.db", MEDIA=tmp_path / "here" / "kling_media", BUDGET=99)
    secret, bill = tmp_path / "elsewhere" / "words.txt", tmp_path / "elsewhere" / "bill.ipynb"
    secret.write_text(PROMPT)
    flag = "--private" if private else ""
    code = f"kling.submit({PROMPT!r}, private={private})"
    nbformat.write(notebook("import kling_nb as kling", f"%%kling {flag}\n{PROMPT} billed", code), bill)
    made = cells(str(secret), bill, flag, private)
    done = execute(notebook(*made.values()), tmp_path / "here", allow_errors=True)
    surfaces = {
        name: json.dumps(cell.outputs, ensure_ascii=False) + str(cell.metadata)
        for name, cell in zip(made, done.cells, strict=True)
    }
    assert "widgets" not in done.metadata
    ends = [
        (name, error.ename, error.evalue[:300])
        for name, cell in zip(made, done.cells, strict=True)
        for error in errors(notebook_of(cell))
    ]
    assert [end[:2] for end in ends] == [
        ("bad line", "UsageError"),
        ("not kept", "NotCachedError"),
        ("raised", "NotCachedError"),
        ("late", "WaitTimeoutError"),
    ], ends
    surfaces["tool runs"] = str(house.tool("runs", "--json"))
    surfaces["tool estimate"] = str(house.tool("estimate", str(bill), "--json"))
    files = files_below(tmp_path / "here")
    hits = {name: pieces_in(text) for name, text in {**surfaces, **files}.items()}
    asked = received(house)
    # runflow: one, api and the late one; runcomfy: two takes and the storyboard.
    assert len(asked) == house.accepted == 6
    assert (
        sum(
            PROMPT in json.dumps(one, ensure_ascii=False).replace('\\"', '"').replace("\\\\", "\\")
            for one in asked
        )
        == 5
    )
    assert sum(all(shot in json.dumps(one, ensure_ascii=False) for shot in SHOTS) for one in asked) == 1
    assert sum(NEGATIVE in json.dumps(one) for one in asked) == 1
    assert len(files) > 60
    if private:
        assert {name: found for name, found in hits.items() if found} == {}
        assert any(name.startswith("kling_media/private-") for name in files)
    else:
        silent = {name for name, found in hits.items() if not found and name in surfaces}
        assert silent == WORDLESS, silent
        for ending in (
            "kling_media/a-plumfjord",
            "vbench",
            "crate",
            ".export.json",
            "clips.tar",
            ".csv",
            ".jsonl",
        ):
            assert any(found and ending in name for name, found in hits.items()), ending


# -- every end of a run ---------------------------------------------------------------------------
def spellings(text):
    """A provider's ways of repeating what it was sent."""
    yield from (text, text[:40], text.upper(), json.dumps(text), json.dumps({"input": {"prompt": text}}))
    yield from (html.escape(text), quote(text), quote_plus(text), "flagged: morkvassel", "词语“狐狸”不被允许")
    yield base64.b64encode(text.encode()).decode()
    yield text.encode("ascii", "xmlcharrefreplace").decode()


ENDS = {
    "moderated": {"submit_moderated": 1},
    "run_moderated": {"run_moderated": 1},
    "failed": {"run_failed": 1},
    "invalid": {"submit_422": 1},
    "odd": {"play": ODD},
    "lost": {"submit_drop_after": "next:1", "list_500": 1},
    "unreadable": {"poll_500": "next:2"},
    "limited": {"submit_429": "next:1"},
    "not a video": {"play": {"download": PAGE}},
    "canceled": {},
}


def said_of(run):
    """Everything that a run shows."""
    error = run.error
    yield from (repr(run), repr(run.record), run.prompt, run.note, str(error), repr(error), repr(run.video))
    yield from (json.dumps(part, default=str) for part in run.bundle().values())
    with pytest.raises(KlingError) if error is not None else contextlib.nullcontext() as caught:
        run.result(1)
    if run.record.private and error is not None:
        # One line: a traceback would show the code that calls, and the words in it.
        yield from caught.value._render_traceback_()


def ends_of(house, wire, *, private):
    """Carry runs to every end, at a provider that repeats the prompt; give what each of them showed."""
    session = house.session(headless=True)
    house.set(YES=1)
    for number, (name, faults) in enumerate(ENDS.items()):
        for echo in list(spellings(PROMPT)) if name == "moderated" else [PROMPT]:
            house.sandbox.provider.faults.reset()
            house.faults(message=f"Moderation: {echo}", retry_after_s=0.05, **faults)
            # Each is a request of its own.
            call = ask(f"{PROMPT} {name} {number} {echo}", provider=wire, private=private)
            [run] = session.open(call)
            if name == "canceled":
                run.cancel()
            run.wait(90)
            yield name, run, [*said_of(run)]
            run.detach()


@pytest.mark.parametrize("wire", ONE_WIRE)
def test_no_end_of_a_private_run_repeats_it(build, tmp_path, caplog, capfd, wire):
    """Refused, moderated, failed, lost, canceled, kept: whatever the provider says, however it spells it."""
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "aiohttp.client", "asyncio", "kling_nb"):
        caplog.set_level(logging.DEBUG, logger=name)
    # At DEBUG it logs the rows that it reads: the owner's own ledger, for whoever asks for just that.
    caplog.set_level(logging.INFO, logger="sqlalchemy")
    house = build()
    house.set(LEDGER=tmp_path / "elsewhere.db", MEDIA=tmp_path / "media")
    ends, looked = {}, 0
    for name, run, said in ends_of(house, wire, private=True):
        ends.setdefault(name, set()).add((run.status.value, run.record.reason))
        assert pieces_in(*said) == {}, (name, run.record.message)
        looked += 1
    assert looked > 15
    assert {"failed", "lost" if wire == "runcomfy" else "failed"} <= {s for e in ends.values() for s, _ in e}
    assert ends["moderated"] == {("failed", "moderated")}
    assert pieces_in(*files_below(tmp_path / "media").items()) == {}
    assert len(files_below(tmp_path / "media")) >= looked
    assert pieces_in(caplog.text, *capfd.readouterr()) == {}
    assert len(caplog.records) > 100
    # The owner's ledger has the words, and what the provider really said.
    known = house.session().ledger().runs()
    assert all(PROMPT in record.request.prompt and record.private for record in known)
    assert sum(PROMPT in record.message for record in known) >= 3


def test_the_search_finds_what_public_runs_repeat(build, tmp_path):
    """The same ends of public runs are full of the words, so that finding none means something."""
    house = build()
    house.set(LEDGER=tmp_path / "elsewhere.db", MEDIA=tmp_path / "media")
    for name, run, said in ends_of(house, "runflow", private=False):
        assert pieces_in(*said), (name, run)
        assert pieces_in(run.record.message) or run.record.reason not in {"moderated", "provider"}, name
    # A claim names no words at all.
    media = {name: data for name, data in files_below(tmp_path / "media").items() if ".claim" not in name}
    assert [name for name, data in media.items() if not pieces_in(name, data)] == []
    assert media
