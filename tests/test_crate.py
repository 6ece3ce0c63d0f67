"""A crate tells of every attempt, good and bad, in the words of its profile; a paper gets its counts."""

import json
import subprocess
import sys

import pytest

from kling_nb.crate import SOURCE_TYPE, write_crate
from kling_nb.errors import UsageError
from kling_nb.exports import Sample
from kling_nb.methods import methods
from kling_nb.placing import file_sha256
from kling_nb.records import MediaFacts
from test_cardview import DONE, record

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
settings = services.ValidationSettings(
    rocrate_uri=sys.argv[1],
    profile_identifier="process-run-crate",
    requirement_severity=models.Severity.REQUIRED,
)
result = services.validate(settings)
issues = [[issue.check.identifier, issue.message] for issue in result.get_issues()]
print(json.dumps([len(result.executed_checks), issues]))
"""


@pytest.fixture
def samples(tmp_path):
    """A clip, a moderated attempt and a failed one."""
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"stand-in")
    media = MediaFacts(
        file="clip.mp4", sha256=file_sha256(clip), size=8, duration_s=5.04, width=640, height=360
    )
    done = record(**{**DONE, "media": media}, user="ann")
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
    clip = by_id["clips/clip.mp4"]
    assert (clip["digitalSourceType"], clip["sha256"]) == (SOURCE_TYPE, samples[0].record.media.sha256)
    assert (tmp_path / "crate" / "clips" / "clip.mp4").read_bytes() == b"stand-in"
    assert by_id[actions[0]["instrument"]["@id"]]["identifier"] == samples[0].record.provider_model
    assert by_id[actions[0]["agent"]["@id"]]["name"] == "ann"
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


@pytest.mark.matrix
def test_a_validator_finds_nothing_that_is_required(tmp_path, samples):
    """The validator of the profile, installed apart from what it quarrels with, passes the crate."""
    tools = tmp_path / "tools"
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--target", str(tools), "roc-validator>=0.13"]
    subprocess.run(pip, check=True, timeout=400)
    write_crate(samples, tmp_path / "crate", **ABOUT)
    command = [sys.executable, "-c", JUDGE, str(tmp_path / "crate"), json.dumps(CONTEXT)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=200, env={"PYTHONPATH": str(tools)}
    )
    checks, issues = json.loads(done.stdout.splitlines()[-1])
    # Some checks look the context itself up in the network, which is not there.
    apart = [issue for issue in issues if "/ro/crate/1.1/context" in issue[1]]
    assert [issue for issue in issues if issue not in apart] == []
    assert len(apart) <= 2
    assert checks >= 30


def test_the_paragraph_counts_every_attempt(samples):
    """Planned samples, attempts, failures and clips; the cost with what is unknown."""
    text = methods([sample.record for sample in samples])
    assert "of 3 attempts every one is on record: 1 gave a clip, 1 moderated, 1 provider" in text
    assert "takes no seed" in text
    assert "| kling-3.0-pro | Runflow | 5 | 16:9 | silent | 1 | 1 | 3 | 1 | $0.56 + 1 unknown |" in text
    assert methods([]) == "No runs."
