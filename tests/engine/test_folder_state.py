"""Ledger and folder, ledger and provider that differ: old copies, ends never written down, one id for two."""

import asyncio
import sqlite3
from contextlib import closing

import pytest

from kling_nb.engine.limits import Clock
from kling_nb.errors import LedgerError
from kling_nb.files import file_sha256
from kling_nb.notebook.line import run_command
from support.sessions import ask
from support.stage import QUICK, WIRES, Stage
from support.workbench import until

#: Of one clip of three seconds, in micro-dollars.
PRICE = 336_000


def dear(*values):
    return pytest.param(*values, marks=pytest.mark.matrix)


def copied(house, copy):
    with (
        closing(sqlite3.connect(house.folder / "ledger.db")) as book,
        closing(sqlite3.connect(copy)) as other,
    ):
        book.backup(other)


def put_back(house, session, copy):
    """Put an older copy in the place of the ledger."""
    session.close()
    with closing(sqlite3.connect(copy)) as book, book:
        # Whoever carried the run then is long gone.
        book.execute("UPDATE runs SET owner = NULL, owned_until = NULL")
    house.forget_ledger()
    copy.rename(house.folder / "ledger.db")


def set_back(house, wire, step):
    """Make a clip, then put a copy of the ledger in its place that was taken at a step of the run."""
    session, copy = house.session(), house.folder / "copy.db"

    def checkpoint(passed):
        if passed == step:
            copied(house, copy)

    session.engine().checkpoint = checkpoint
    run = house.run(session, ask(provider=wire))
    assert run.status == "succeeded"
    put_back(house, session, copy)
    return run


def go_on(session, wire, how):
    if how == "cell":
        [run] = session.open(ask(provider=wire))
    else:
        [run] = run_command(session, "resume", {}).runs
    return run.wait(60)


def check_whole(house, before, run):
    assert (run.id, run.status, run.record.provider_run_id) == (
        before.id,
        "succeeded",
        before.record.provider_run_id,
    )
    assert file_sha256(run.path) == before.record.media.sha256
    assert (run.record.charged, run.record.settled_micros, run.record.reserved_micros) == ("yes", PRICE, 0)
    assert (house.submissions, house.accepted) == (1, 1)
    assert [path.name for path in house.media.glob("*.mp4")] == [run.path.name]


@pytest.mark.parametrize(
    ("wire", "how"),
    [("runcomfy", "cell"), ("runflow", "resume"), dear("runflow", "cell"), dear("runcomfy", "resume")],
)
def test_an_old_ledger_does_not_send_what_its_folder_knows_to_be_sent(build, wire, how):
    """The copy is from before the submit; the folder has the id: it is taken up, not sent nor given up."""
    house = build()
    before = set_back(house, wire, "intent in the folder")
    session = house.session()
    check_whole(house, before, go_on(session, wire, how))
    assert session.ledger().events(before.id)[0][1] == "created"


def test_an_old_ledger_does_not_send_what_its_folder_knows_to_be_lost(build):
    """The copy is from before the submit, whose answer never came: it is lost still, and blocks its cell."""
    house = build(faults={"submit_drop_after": {"next": 1}})
    session, copy = house.session(), house.folder / "copy.db"
    session.engine().checkpoint = lambda step: step == "intent in the folder" and copied(house, copy)
    run = house.run(session, ask(provider="runcomfy"))
    assert run.status == "lost"
    put_back(house, session, copy)
    again = go_on(house.session(), "runcomfy", "cell")
    assert (again.id, again.status, again.record.charged) == (run.id, "lost", "unknown")
    assert again.record.reserved_micros == PRICE
    assert (house.submissions, house.accepted) == (1, 1)


@pytest.mark.parametrize(
    ("wire", "step", "receipt"),
    [
        ("runflow", "accepted in the folder", True),
        ("runcomfy", "end in the ledger", False),
        dear("runcomfy", "accepted in the folder", True),
        dear("runcomfy", "end in the ledger", True),
        dear("runflow", "end in the ledger", False),
    ],
)
def test_a_clip_that_is_in_its_folder_is_not_gone(build, wire, step, receipt):
    """The ledger has no end of it, and its provider has forgotten it: the clip in the folder is the clip."""
    house = build()
    before = set_back(house, wire, step)
    if not receipt:
        # A process that was killed as soon as the clip had its name wrote down no hash of it.
        for sidecar in house.media.glob("*.json"):
            sidecar.unlink()
    house.faults(poll_404=1, download_404=1)
    check_whole(house, before, go_on(house.session(), wire, "cell"))


@pytest.mark.parametrize("wire", [WIRES[0], dear(WIRES[1])])
def test_what_is_in_the_folder_but_no_clip_does_not_count(build, wire):
    """A file of that name that is no video, and a clip whose bytes are others than its receipt says."""
    house = build()
    before = set_back(house, wire, "end in the ledger")
    before.path.write_bytes(b"no video")
    house.faults(poll_404=1, download_404=1)
    run = go_on(house.session(), wire, "cell")
    assert (run.status, run.record.reason, run.record.charged) == ("failed", "expired", "yes")
    assert (house.submissions, house.accepted) == (1, 1)


@pytest.mark.parametrize("wire", [WIRES[1], dear(WIRES[0])])
def test_what_the_ledger_cannot_take_is_not_told_as_unsent(tmp_path, wire):
    """The ledger breaks after the submit and stays broken: sent, charge unknown, with the provider's id."""
    stage = Stage(tmp_path, wire, limits=QUICK)

    def break_it(step):
        if step == "answer read":
            with closing(sqlite3.connect(tmp_path / "ledger.db")) as book, book:
                book.execute("ALTER TABLE events RENAME TO hidden")

    try:
        stage.engine.checkpoint = break_it
        stage.engine.clock = Clock(sleep=lambda _seconds: asyncio.sleep(0))
        run = stage.engine.handle(stage.record()).wait(60)
        [row] = stage.stats()["runs"]
        error = run.error
        assert isinstance(error, LedgerError)
        assert (error.charged, error.provider_run_id) == ("unknown", row["id"])
        assert row["id"] in error.what
        assert "Nothing is sent again." in str(error)
        assert f"`%kling resume {run.id}`" in str(error)
        for words in (str(error), run.bundle()["text/plain"], run.bundle()["text/html"]):
            assert "Nothing was sent" not in words
            assert "Charged: no" not in words
    finally:
        stage.close()


@pytest.mark.parametrize("wire", [WIRES[1], dear(WIRES[0])])
def test_an_id_that_another_run_has_is_none(build, wire):
    """Two submits answered with one id: the second is lost, and never shown the clip of the first."""
    house = build(held=True)
    session, dice = house.session(), house.sandbox.provider.faults.dice
    state = dice.getstate()
    [first] = session.open(ask(provider=wire))
    until(lambda: first.provider_run_id)
    dice.setstate(state)
    second = house.run(session, ask("Another prompt", provider=wire))
    assert {row["id"] for row in house.stats()["runs"]} == {first.provider_run_id}
    assert (second.status, second.provider_run_id, second.record.charged) == ("lost", None, "unknown")
    assert first.id in second.record.message
    assert second.record.reserved_micros == PRICE
    assert (house.submissions, house.accepted) == (2, 2)
