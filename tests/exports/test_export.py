"""Exports of a ledger: every attempt counts, what is on its way or private is told, and nothing is sent."""

import json
import os
import shutil
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from kling_nb.errors import UsageError
from kling_nb.exports.export import describe_methods, export
from kling_nb.notebook.line import run_command
from kling_nb.ratings.votes import Vote, add_vote
from kling_nb.records.run import RunStatus
from support.sessions import KEY, ask
from support.stand_ins import names
from support.warm import tool

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def session(make_session, wires, monkeypatch):
    """A session with a key of a provider's stand-in."""
    monkeypatch.setenv("RUNCOMFY_API_TOKEN", KEY)
    return make_session(provider="runcomfy", budget="9", runcomfy_url=wires.runcomfy)


def call(tmp_path, *words):
    """Run the command line on that ledger."""
    own = {**os.environ, "KLING_NB_LEDGER": str(tmp_path / "ledger.db")}
    return tool(*words, cwd=tmp_path, env=own)


def test_who_names_no_run_means_those_of_models(tmp_path, session):
    """A run of the sandbox from before the key was there stops no export of the whole ledger, and is told."""
    played = session.open(ask(provider="sandbox"))[0].wait(60)
    with pytest.raises(UsageError, match="drawn by the sandbox"):
        export(folder=tmp_path / "none", layout="vbench", session=session)
    fox = session.open(ask())[0].wait(60)
    made = export(folder=tmp_path / "api", layout="vbench", methods=True, session=session)
    assert [one.sample.record.id for one in made.placed] == [fox.id]
    assert (made.drawn, made.complete) == ((played.id,), True)
    assert "of 1 attempts every one" in (tmp_path / "api.METHODS.md").read_text()
    shown = run_command(session, "export crate --to crate", {})
    assert list(shown.value["clips"].values()) == [fox.id]
    assert "1 run of the sandbox was left out: no model made a clip there." in shown.text
    both = export(folder=tmp_path / "both", layout="videofolder", allow_sandbox=True, session=session)
    assert (len(both.placed), both.drawn) == (2, ())


def test_runs_are_chosen_by_provider_model_and_tag(tmp_path, session, make_session, wires, monkeypatch):
    """A ledger of two providers, or of two studies, needs nobody who writes down a thousand ids."""
    here = session.open(ask(tags={"study": "one"}))[0].wait(60)
    other = session.open(ask("A hare", tags={"study": "two"}))[0].wait(60)
    monkeypatch.setenv("RUNFLOW_API_KEY", KEY)
    second = make_session(provider="runflow", budget="9", runflow_url=wires.runflow)
    there = second.open(ask("A heron", tags={"study": "one"}))[0].wait(60)
    with pytest.raises(UsageError, match="several makers"):
        export(None, tmp_path / "all", layout="vbench", session=session)

    def ids(number, **which):
        made = export(None, tmp_path / f"out{number}", layout="videofolder", session=session, **which)
        return {one.sample.record.id for one in made.placed}

    assert ids(1, provider="runcomfy") == {here.id, other.id}
    assert ids(2, tags={"study": "one"}) == {here.id, there.id}
    assert ids(3, provider="runflow", model="pro", tags={"study": "one"}) == {there.id}
    with pytest.raises(UsageError, match="no such runs"):
        export(None, tmp_path / "none", model="4k", session=session)
    with pytest.raises(UsageError, match="say one of both"):
        export([here], tmp_path / "none", provider="runflow", session=session)
    line = run_command(session, "export vbench --to mine --provider runcomfy --tag study=two", {})
    assert list(line.value["clips"].values()) == [other.id]
    with pytest.raises(UsageError, match="a name and a value"):
        run_command(session, "export vbench --tag study", {})


def test_the_methods_count_every_attempt_wherever_they_are_asked_for(tmp_path, session, wires):
    """A moderated attempt counts for the clip that came after it: by API, line and command, one text."""
    wires.set_faults({"run_moderated": "next:1"})
    first = session.open(ask())[0].wait(60)
    fox = session.open(ask(no_cache=True))[0].wait(60)
    hare = session.open(ask("A hare"))[0].wait(60)
    assert [run.status for run in (first, fox, hare)] == ["failed", "succeeded", "succeeded"]
    sent = wires.stats()["submissions"]
    made = export([fox], tmp_path / "api", layout="videofolder", methods=True, session=session)
    said = (tmp_path / "api.METHODS.md").read_text()
    assert "1 samples were planned by index before they were run, and of 2 attempts every one" in said
    assert "1 gave a clip, 1 moderated. 0 samples have no clip." in said
    # What answered was on this machine, and no model.
    assert said.count(" (a stand-in, not the provider)") == 2
    assert (said.strip(), made.complete) == (describe_methods([fox], session=session), True)
    shown = run_command(session, "export vbench fox --to line --methods", {"fox": fox})
    assert (tmp_path / "line.METHODS.md").read_text() == said
    assert "What a paper needs of them is in line.METHODS.md." in shown.text
    assert run_command(session, "export methods fox", {"fox": fox}).text == said.strip()
    done = call(tmp_path, "export", "videofolder", fox.id, "--to", "shell", "--methods", "--json")
    assert (done.returncode, json.loads(done.stdout)["missing"]) == (0, {})
    assert (tmp_path / "shell.METHODS.md").read_text() == said
    # A crate of one run holds the attempts before it, too; without a run it is everybody's.
    export([fox], tmp_path / "crate", layout="crate", session=session)
    graph = json.loads((tmp_path / "crate" / "ro-crate-metadata.json").read_text())["@graph"]
    actions = [one for one in graph if one["@type"] == "CreateAction"]
    assert [
        " at a stand-in for " in one["name"] for one in graph if one["@type"] == "SoftwareApplication"
    ] == [True]
    assert sorted(one["actionStatus"].rpartition("/")[2] for one in actions) == [
        "CompletedActionStatus",
        "FailedActionStatus",
    ]
    assert "of 3 attempts every one" in describe_methods(session=session)
    assert (wires.stats()["submissions"], len(session.ledger().runs())) == (sent, 3)


def test_a_run_on_its_way_is_missing_with_that_reason(tmp_path, make_session):
    """It is no hole, and no other take stands in for it."""
    session = make_session(provider="sandbox", sandbox_wait=100)
    run = session.open(ask())[0]
    made = export([run], tmp_path / "out", layout="vbench", allow_sandbox=True, session=session)
    assert [(gone.file, gone.why) for gone in made.missing] == [
        ("A red fox in snow-0.mp4", f"{run.id} is still on its way")
    ]
    assert (made.placed, names(tmp_path).isdisjoint({"out"})) == ((), True)
    run.cancel()


def test_a_private_run_goes_out_without_its_words_or_not_at_all(tmp_path, session):
    """Where a name or a list would tell the prompt it is missing; elsewhere its hash stands for it."""
    run = session.open(ask("A plumfjord at dawn", private=True))[0].wait(60)
    plan = ["A plumfjord at dawn"]
    for layout in ("vbench", "vbench-custom", "videophy"):
        made = export([run], tmp_path / layout, layout=layout, session=session)
        assert [gone.why for gone in made.missing] == [
            f"{run.id} is private, and the layout tells the prompt"
        ]
        assert made.placed == ()
    # A plan has the words itself, and finds the run by their hash, which is all that is told of it.
    made = export([run], tmp_path / "plan", layout="vbench", plan=plan, samples=1, session=session)
    assert [(gone.file[:7], gone.why[:19], made.left_out) for gone in made.missing] == [
        ("sha256:", f"{run.id} is private", ())
    ]
    made = export([run], tmp_path / "one", layout="evalcrafter", plan=["A hare", *plan], session=session)
    assert ([one.file for one in made.placed], made.placed[0].prompt[:7]) == (["0001.mp4"], "sha256:")
    made = export([run], tmp_path / "set", layout="videofolder", session=session, methods=True)
    line = json.loads((tmp_path / "set" / "metadata.jsonl").read_text())
    assert (line["prompt"][:7], line["run_id"], made.complete) == ("sha256:", run.id, True)
    for path in [*tmp_path.glob("set*"), *tmp_path.rglob("*.json*")]:
        assert "plumfjord" not in path.name.lower()
        assert not path.is_file() or b"lumfjord" not in path.read_bytes()


def test_votes_of_the_ledger_go_out_by_a_line(tmp_path, session):
    """`%kling export videoalign --by tag:way`: those that count, and the pairs nobody judged."""
    runs = [
        session.open(ask(prompt, takes=(take,), tags={"way": way}))[0].wait(60)
        for prompt in ("A fox", "A hare")
        for take, way in enumerate("ab")
    ]
    one, other = sorted(run.id for run in runs[:2])
    for choice, text in (("B>A", "B"), ("A>B", "A")):
        axes = {"visual": "A", "motion": "same", "text": text}
        vote = Vote(run_a=one, run_b=other, left="A", choice=choice, rater="ada", at=NOON, axes=axes)
        add_vote(session.ledger(), vote)
    shown = run_command(session, "export videoalign --by tag:way --to votes", {})
    pair = " and ".join(sorted(run.id for run in runs[2:]))
    assert shown.text.splitlines() == [
        "1 vote that the layout asks for is missing:",
        f"{pair}: nobody has voted on this pair",
        "1 vote on 2 clips as videoalign in votes; the media folder is unchanged.",
    ]
    head, row = (tmp_path / "votes" / "data.csv").read_text().splitlines()
    assert head.startswith("path_A,path_B,A_model,B_model,prompt,VQ,MQ,TA,Overall,fps_A,num_frames_A,")
    assert ",A fox,A,same,A,A," in row
    done = call(tmp_path, "export", "videoalign", "--by", "tag:way", "--to", "shell")
    assert (done.returncode, names(tmp_path / "shell")) == (1, names(tmp_path / "votes"))
    with pytest.raises(UsageError, match="takes no plan"):
        export(runs, tmp_path / "x", layout="videoalign", plan=["A fox"], session=session)
    with pytest.raises(UsageError, match="has no splits"):
        export(runs, tmp_path / "x", layout="webdataset", split="train", session=session)
    assert not (tmp_path / "x").exists()


def test_a_split_is_a_tag_or_said_for_all(tmp_path, session):
    """One folder a split; a wrong name, or a clip in none, stops the export before anything is written."""
    fox = session.open(ask(tags={"split": "test"}))[0].wait(60)
    hare = session.open(ask("A hare"))[0].wait(60)
    with pytest.raises(UsageError, match="1 of 2 clips are in no split"):
        run_command(session, "export videofolder --to out", {})
    with pytest.raises(UsageError, match="'mine' is not a split"):
        run_command(session, "export videofolder --to out --split mine", {})
    assert not (tmp_path / "out").exists()
    run_command(session, "export videofolder --to out --split train", {})
    assert names(tmp_path / "out") == {
        f"test/{fox.path.name}",
        "test/metadata.jsonl",
        f"train/{hare.path.name}",
        "train/metadata.jsonl",
    }
    assert {run.status for run in (fox, hare)} == {RunStatus.SUCCEEDED}


def test_a_colleague_exports_from_the_folder_alone(tmp_path, session, make_session):
    """Who has the folder and no ledger gets the same clips; who has neither is told so."""
    session.open(ask())[0].wait(60)
    bob = make_session(ledger=str(tmp_path / "bob.db"))
    mine = export(None, tmp_path / "ann", layout="videofolder", session=session)
    his = export(None, tmp_path / "bob", layout="videofolder", methods=True, session=bob)
    assert [one.sample.record.id for one in his.placed] == [one.sample.record.id for one in mine.placed]
    assert len(his.placed) == 1
    assert "of 1 attempts every one" in (tmp_path / "bob.METHODS.md").read_text()
    assert bob.ledger().runs() == []
    shutil.rmtree(tmp_path / "kling_media")
    for layout in ("vbench", "videoalign", "crate"):
        with pytest.raises(UsageError, match="There are no runs to export"):
            export(None, tmp_path / "none", layout=layout, session=bob)
    assert not list(tmp_path.glob("none*"))


@pytest.mark.parametrize("layout", ["vbench", "crate", "videoalign"])
def test_a_row_that_cannot_be_read_is_missing_from_the_export(tmp_path, session, layout):
    """A ledger of which a part is unreadable is not a whole one: the export says so, and the methods."""
    good, bad = (session.open(ask(takes=(take,)))[0].wait(60) for take in (0, 1))
    bad.path.with_suffix(".json").unlink()
    with session.ledger().writing() as transaction:
        damage = sa.text("UPDATE runs SET record = '{' WHERE id = :id")
        transaction.connection.execute(damage, {"id": bad.id})
    made = export(None, tmp_path / "out", layout=layout, methods=True, session=session)
    assert [one.file for one in made.missing] == ["the ledger"]
    assert made.missing[0].why.startswith("1 run of the ledger cannot be read")
    assert "Not counted: 1 run of the ledger cannot be read" in (tmp_path / "out.METHODS.md").read_text()
    one = export([good], tmp_path / "one", layout="vbench", methods=True, session=session)
    assert (one.complete, "Not counted" in (tmp_path / "one.METHODS.md").read_text()) == (True, False)
