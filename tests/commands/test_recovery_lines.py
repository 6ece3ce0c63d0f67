"""`kling-nb resolve` and `adopt`: the way out of a lost run, and the way in, for terminals and scripts."""

import json

import pytest

from support.lost import ids, lost
from support.sessions import ask
from support.workbench import KEY, until

SAID = ("--prompt", "A red fox in snow", "-d", "3", "--ar", "16:9", "--no-audio")


@pytest.mark.parametrize("wire", ["runflow", "runcomfy"])
def test_a_lost_run_is_attached_fetched_and_settled(build, wire):
    """Exit code 0 and one JSON document with its receipt; the provider was sent nothing."""
    house = build()
    session = house.session()
    run = lost(house, session, wire)
    sent, [theirs] = house.submissions, ids(house, wire)
    session.close()
    code, out, err = house.tool("resolve", run.id, "--attach", theirs, "--json")
    assert (code, err) == (0, "")
    [receipt] = json.loads(out)
    assert (receipt["id"], receipt["status"], receipt["provider_run_id"]) == (run.id, "succeeded", theirs)
    assert receipt["file"]["name"] in {path.name for path in house.media.glob("*.mp4")}
    assert house.submissions == sent
    # Once it is known, there is nothing to resolve: wrong use, one line, nothing on stdout.
    code, out, err = house.tool("resolve", run.id, "--abandon", "--json")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "does not need resolving" in err


def test_a_lost_run_is_given_up(build):
    """Its money is released, and that is what was asked for: exit code 0, in words and as JSON."""
    house = build()
    session = house.session()
    run = lost(house, session)
    sent = house.submissions
    session.close()
    code, out, err = house.tool("resolve", run.id, "--abandon")
    assert (code, err) == (0, "")
    assert "was given up: $0.336 is no longer reserved" in out
    [receipt] = json.loads(house.tool("runs", "--json")[1])
    assert (receipt["id"], receipt["status"], receipt["charged"]) == (run.id, "failed", "unknown")
    assert house.submissions == sent


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "one of two ways"),
        (("--attach", KEY), "holds your Runflow key"),
    ],
)
def test_a_wrong_resolve_is_one_line_and_changes_nothing(build, words, said):
    """Exit code 2, one line on stderr, and the run is as lost as before."""
    house = build()
    session = house.session()
    run = lost(house, session)
    code, out, err = house.tool("resolve", run.id, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert KEY not in err
    assert session.ledger().get(run.id).status == "lost"
    assert house.accepted == 1


@pytest.mark.parametrize("wire", ["runflow", "runcomfy"])
def test_a_run_made_elsewhere_is_brought_in(build, wire):
    """Its clip lies here and answers the same cell; what RunComfy does not tell is said in flags."""
    house = build()
    other = house.session(ledger=str(house.folder / "theirs.db"), media=str(house.folder / "theirs"))
    theirs = house.run(other, ask(provider=wire))
    words = ("adopt", wire, theirs.provider_run_id, *(SAID if wire == "runcomfy" else ()))
    code, out, err = house.tool(*words, "--json")
    assert (code, err) == (0, "")
    [receipt] = json.loads(out)
    assert (receipt["status"], receipt["provider_run_id"]) == ("succeeded", theirs.provider_run_id)
    assert (house.media / receipt["file"]["name"]).is_file()
    code, out, err = house.tool(*words)
    assert (code, err) == (0, "")
    assert "is that run already" in out
    assert house.run(house.session(), ask(provider=wire)).id == receipt["id"]
    assert (house.submissions, house.accepted) == (1, 1)


def test_a_run_still_on_its_way_is_not_waited_for_longer_than_asked(build):
    """`--timeout` ends the waiting with exit code 1; the run is on record, and `collect` finishes it."""
    house = build(held=True)
    other = house.session(ledger=str(house.folder / "theirs.db"), media=str(house.folder / "theirs"))
    [theirs] = other.open(ask(provider="runflow"))
    until(lambda: theirs.provider_run_id)
    code, out, err = house.tool("adopt", "runflow", theirs.provider_run_id, "--timeout", "0", "--json")
    assert code == 1
    assert json.loads(out)[0]["status"] in {"queued", "running"}
    assert err.count("\n") == 1
    house.let_go()
    assert house.tool("collect")[0] == 0
    assert house.accepted == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("runcomfy", "no-such-run", *SAID), "has no run no-such-run"),
        (("runflow", "x", "--prompt", f"A fox {KEY}"), "holds your Runflow key"),
    ],
)
def test_a_wrong_adopt_is_one_line(build, words, said):
    """Exit code 2, one line, no row, and no key repeated."""
    house = build()
    code, out, err = house.tool("adopt", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert KEY not in err
    assert house.session().ledger().runs() == []


def test_a_lost_run_without_its_words_is_wrong_use(build):
    """Arguments that are missing are the command line's own errors, with exit code 2."""
    house = build()
    assert house.tool("resolve")[0] == 2
    assert house.tool("adopt", "runflow")[0] == 2
