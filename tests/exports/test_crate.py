"""A crate tells of every attempt, good and bad, in the words of its profile; a paper gets its counts."""

import json
import subprocess
import sys

import pytest

from kling_nb.errors import StoreError, UsageError
from kling_nb.exports.crate import write_crate
from kling_nb.exports.methods import methods
from kling_nb.exports.naming import Sample
from kling_nb.files import file_sha256
from kling_nb.records.privacy import redacted
from kling_nb.records.provenance import AI_MADE, DRAWN, Commit, Mark, Terms
from kling_nb.records.run import MediaFacts
from support.cards import DONE, record

ABOUT = {
    "name": "Foxes",
    "description": "Foxes in snow",
    "licence": "https://creativecommons.org/licenses/by/4.0/",
}
FAILED = {"status": "failed", "reason": "moderated", "message": "not allowed", "charged": "no"}
#: What RO-Crate's own context says of the words that a crate of ours uses; the real one is out of reach here.
CONTEXT = {
    "@vocab": "http://schema.org/",
    "File": "http://schema.org/MediaObject",
    "conformsTo": "http://purl.org/dc/terms/conformsTo",
}
JUDGE = """
import email, io, json, sys, urllib.request, urllib.response
import requests
context = json.dumps({"@context": json.loads(sys.argv[2])}).encode()
asked = []
class Local(urllib.request.BaseHandler):
    handler_order = 1
    def https_open(self, request):
        asked.append(request.full_url)
        head = email.message_from_string("Content-Type: application/ld+json\\n\\n")
        reply = urllib.response.addinfourl(io.BytesIO(context), head, request.full_url, 200)
        reply.msg = "OK"
        return reply
urllib.request.install_opener(urllib.request.build_opener(Local))
from rocrate_validator import models, services
checks, issues = [], []
for profile in ("ro-crate-1.1", "process-run-crate"):
    settings = services.ValidationSettings(
        rocrate_uri=sys.argv[1],
        profile_identifier=profile,
        requirement_severity=models.Severity.REQUIRED,
    )
    result = services.validate(settings)
    checks.append(len(result.executed_checks))
    issues += [[issue.check.identifier, issue.message] for issue in result.get_issues()]
print(json.dumps([checks, issues]))
"""


@pytest.fixture
def samples(tmp_path):
    """A clip, a moderated attempt and a failed one."""
    clip = tmp_path / "clip-kl7m2q.mp4"
    clip.write_bytes(b"stand-in")
    media = MediaFacts(
        file=clip.name, sha256=file_sha256(clip), size=8, duration_s=5.04, width=640, height=360
    )
    done = record(**{**DONE, "media": media}, user="ann o'hara")
    return [
        Sample(record=done, path=clip),
        Sample(record=record(id="kaaaaaa", **FAILED, finished_at=DONE["finished_at"], user="ann"), path=None),
        Sample(record=record(id="kbbbbbb", status="failed", reason="provider", charged="unknown"), path=None),
    ]


def test_every_attempt_is_an_action(tmp_path, samples):
    """A clip is a result; a moderated and a failed attempt are failed actions with their reason."""
    write_crate(samples, tmp_path / "crate", **ABOUT)
    graph = json.loads((tmp_path / "crate" / "ro-crate-metadata.json").read_text())["@graph"]
    by_id = {entity["@id"]: entity for entity in graph}
    actions = [entity for entity in graph if entity["@type"] == "CreateAction"]
    assert [(a["actionStatus"].rsplit("/", 1)[1], a.get("error"), "result" in a) for a in actions] == [
        ("CompletedActionStatus", None, True),
        ("FailedActionStatus", "moderated: not allowed", False),
        ("FailedActionStatus", "provider", False),
    ]
    clip = by_id["clips/clip-kl7m2q.mp4"]
    assert (clip["digitalSourceType"], clip["sha256"]) == (AI_MADE, samples[0].record.media.sha256)
    assert (tmp_path / "crate" / "clips" / "clip-kl7m2q.mp4").read_bytes() == b"stand-in"
    assert by_id[actions[0]["instrument"]["@id"]]["identifier"] == samples[0].record.provider_model
    assert by_id[actions[0]["agent"]["@id"]]["name"] == "ann o'hara"
    assert {part["@id"] for part in by_id["./"]["hasPart"]} == {
        entity["@id"] for entity in graph if "File" in entity["@type"] and not entity["@id"].startswith("ro-")
    }
    for part in by_id["./"]["hasPart"]:
        assert (tmp_path / "crate" / part["@id"]).is_file()


def test_a_crate_is_never_written_over(tmp_path, samples):
    """A second crate of that name, and a crate of nothing, are refused."""
    write_crate(samples, tmp_path / "crate", **ABOUT)
    before = (tmp_path / "crate" / "ro-crate-metadata.json").read_bytes()
    with pytest.raises(UsageError, match="holds a crate already"):
        write_crate(samples[:1], tmp_path / "crate", **ABOUT)
    with pytest.raises(UsageError, match="no ended runs"):
        write_crate([], tmp_path / "none", **ABOUT)
    assert (tmp_path / "crate" / "ro-crate-metadata.json").read_bytes() == before


def graph_of(folder):
    """Read a crate; give its entities by id."""
    data = (folder / "ro-crate-metadata.json").read_text()
    return {entity["@id"]: entity for entity in json.loads(data)["@graph"]}


def changed(sample, **fields):
    return Sample(record=sample.record.model_copy(update=fields), path=sample.path)


def rich(samples):
    """The same runs, with everything a receipt may know; one of them is known from it alone."""
    done = samples[0]
    marks = (Mark(kind="c2pa", where="uuid"), Mark(kind="tag", where="encoder", text="Lavf"))
    done = changed(
        done,
        media=done.record.media.model_copy(update={"marks": marks}),
        commit=Commit(sha="ab" * 20, dirty=True),
        terms=Terms(licence="Commercial use", url="https://example.com/terms", as_of="2026-11-21"),
        earlier=(samples[1].record.as_earlier(), samples[2].record.as_earlier()),
    )
    return [done, samples[2]]


def test_what_the_receipt_knows_is_in_the_crate(tmp_path, samples):
    """The provider's terms with their day, the commit, marks in the file, and attempts only it tells of."""
    write_crate(rich(samples), tmp_path / "crate", **ABOUT)
    by_id = graph_of(tmp_path / "crate")
    clip = by_id["clips/clip-kl7m2q.mp4"]
    assert clip["description"] == "The original bytes, with what they say of themselves: c2pa."
    assert by_id[clip["license"]["@id"]] == {
        "@id": "https://example.com/terms",
        "@type": "CreativeWork",
        "name": "Commercial use",
        "description": "As read on 2026-11-21.",
    }
    run = by_id["#run-kl7m2q"]
    assert run["description"].endswith(f"asked for by code at commit {'ab' * 20}, with changes.")
    # One of the two earlier ones has a record of its own; the other is known from the receipt alone.
    early = by_id["#run-kaaaaaa"]
    assert (early["error"], early["actionStatus"]) == ("moderated", "http://schema.org/FailedActionStatus")
    assert early["description"].endswith("of run kl7m2q tells of it; not charged.")
    assert by_id["#run-kbbbbbb"]["subjectOf"] == {"@id": "receipts/kbbbbbb.json"}
    assert len([one for one in by_id.values() if one["@type"] == "CreateAction"]) == 3
    said = json.loads((tmp_path / "crate" / "receipts" / "kl7m2q.json").read_text())
    assert (said["terms"]["licence"], [one["id"] for one in said["earlier"]]) == (
        "Commercial use",
        ["kaaaaaa", "kbbbbbb"],
    )


def test_play_money_and_drawings_are_called_that(tmp_path, samples):
    """What the sandbox drew is no work of a model, and cost nothing that anybody paid."""
    played = changed(samples[0], provider="sandbox", play=True, origin="http://127.0.0.1:5")
    write_crate([played], tmp_path / "crate", **ABOUT)
    by_id = graph_of(tmp_path / "crate")
    assert by_id["clips/clip-kl7m2q.mp4"]["digitalSourceType"] == DRAWN
    assert "for play money" in by_id["#run-kl7m2q"]["description"]
    assert "127.0.0.1" not in (tmp_path / "crate" / "ro-crate-metadata.json").read_text()


def test_a_private_run_is_there_without_a_word_of_it(tmp_path, samples):
    """Its attempts, clip and cost are in the crate; its prompt is a hash in every file."""
    secret = samples[0].record.request.prompt
    hidden = [
        Sample(record=redacted(one.record.model_copy(update={"private": True})), path=one.path)
        for one in samples
    ]
    write_crate(hidden, tmp_path / "crate", **ABOUT)
    texts = [path.read_text() for path in (tmp_path / "crate").rglob("*.json")]
    assert len(texts) == 1 + 1 + 3
    assert [text for text in texts if secret in text or secret[:20] in text] == []
    assert all("sha256:" in text for text in texts)


def test_a_crate_is_whole_or_not_there(tmp_path, samples):
    """A clip that changed, and a folder with something in it: no crate, and nothing of it left."""
    samples[0].path.write_bytes(b"changed!")
    with pytest.raises(StoreError, match="has changed"):
        write_crate(samples, tmp_path / "crate", **ABOUT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip-kl7m2q.mp4"]
    (tmp_path / "crate").mkdir()
    (tmp_path / "crate" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        write_crate(samples, tmp_path / "crate", **ABOUT)
    assert sorted(path.name for path in (tmp_path / "crate").iterdir()) == ["mine.txt"]


@pytest.mark.matrix
def test_a_validator_finds_nothing_that_is_required(tmp_path, samples):
    """RO-Crate's validator, installed apart from what it quarrels with, passes it by both profiles."""
    tools = tmp_path / "tools"
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--target", str(tools), "roc-validator>=0.13"]
    subprocess.run(pip, check=True, timeout=400)
    write_crate(rich(samples), tmp_path / "crate", **ABOUT)
    command = [sys.executable, "-c", JUDGE, str(tmp_path / "crate"), json.dumps(CONTEXT)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=200, env={"PYTHONPATH": str(tools)}
    )
    checks, issues = json.loads(done.stdout.splitlines()[-1])
    # Some checks look the context itself up in the network, which is not there.
    apart = [issue for issue in issues if "/ro/crate/1.1/context" in issue[1]]
    assert [issue for issue in issues if issue not in apart] == []
    assert len(apart) <= 4
    assert len(checks) == 2
    assert min(checks) >= 20
    assert checks[1] > checks[0]


def test_the_paragraph_counts_every_attempt(samples):
    """Planned samples, attempts, failures and clips; the cost with what is unknown."""
    text = methods([sample.record for sample in samples])
    assert "of 3 attempts every one is on record: 1 gave a clip, 1 moderated, 1 provider" in text
    assert "takes no seed" in text
    assert "| kling-3.0-pro | Runflow | 5 | 16:9 | silent | 1 | 1 | 3 | 1 | 0.56 USD + 1 unknown |" in text
    assert "$" not in text, "a notebook draws what is between two of them as TeX"
    failed = [s.record for s in samples if s.record.settled_micros is None and s.record.charged == "unknown"]
    assert methods(failed).endswith(f"| {len(failed)} unknown |"), "no amount is known, so there is no $0.00"
    assert methods([]) == "No runs."


def test_no_markup_of_a_receipt_is_in_the_paragraph(samples):
    """It is Markdown, which a notebook draws, and a receipt may be a stranger's."""
    terms = Terms(url="https://host/<img/src=x>|a", as_of="2026-11-21")
    update = {"version": "1<img src=x>", "terms": terms}
    text = methods([sample.record.model_copy(update=update) for sample in samples])
    assert "through kling_nb unknown." in text
    assert "https://host/%3Cimg/src%3Dx%3E%7Ca (read 2026-11-21)" in text
    assert "<" not in text
