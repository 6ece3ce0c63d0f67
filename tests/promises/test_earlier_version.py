"""What version 0.1 wrote is read by this version; what it offered, this version offers."""

import json
import shutil
import sqlite3
from contextlib import closing

import pytest

from kling_nb.ratings.votes import votes
from kling_nb.recovery.restore import restore
from kling_nb.recovery.verify import verify_folder
from support.paths import TESTS
from support.sessions import ask as ask_for
from support.surface import differences, surface
from support.workbench import houses

FIXTURE = TESTS / "data" / "v0_1"
RUNS = json.loads((FIXTURE / "runs.json").read_text("utf-8"))
PRICE = 336_000
STATES = {
    "runflow": ("succeeded", "yes", PRICE, 0),
    "take 1": ("succeeded", "yes", PRICE, 0),
    "runcomfy": ("succeeded", "yes", PRICE, 0),
    "private": ("succeeded", "yes", PRICE, 0),
    "failed": ("failed", "no", 0, 0),
    "lost": ("lost", "unknown", None, PRICE),
    "canceled": ("canceled", "unknown", None, PRICE),
}
#: The calls of the runs whose clips are in the fixture.
CALLS = {
    "runflow": {"prompt": "A red fox in snow", "provider": "runflow"},
    "runcomfy": {"prompt": "A hare in grass", "provider": "runcomfy"},
    "private": {"prompt": "A paper boat", "provider": "runflow", "private": True},
}


def ask(name, **options):
    """Give the call that made a run of the fixture."""
    made = ask_for(**{**CALLS[name], **options})
    square = made.request.model_copy(update={"aspect_ratio": "1:1"})
    return type(made)(**{**vars(made), "request": square})


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A copy of the fixture, as if it had been made there, with both providers next door."""
    for name in ("ledger.db", "study.ipynb"):
        shutil.copyfile(FIXTURE / name, tmp_path / name)
    shutil.copytree(FIXTURE / "kling_media", tmp_path / "kling_media")
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
        database.execute(
            "UPDATE runs SET record = replace(record, '/tmp/kling-fixture', ?)", (str(tmp_path),)
        )
        database.commit()
    made = houses(tmp_path, monkeypatch)
    yield next(made)()
    made.close()


#: What came since: of a clip, what tells whether browsers play it.
ADDED = {
    '/command line/generate: null is now ["--json", "prompt"]',
    '/classes/MediaFacts/pixel_format: null is now "field"',
    '/classes/MediaFacts/profile: null is now "field"',
    '/classes/Run/turn: null is now "attribute"',
    '/classes/RunRecord/further: null is now "field"',
    "/receipt: .further_files is new",
    "/receipt: File.pixel_format is new",
    "/receipt: File.profile is new",
    # Callbacks.
    '/cell flags/callback_url: null is now ["--callback-url"]',
    '/classes/RunRecord/callback_url: null is now "field"',
    '/command line/worker: null is now ["--concurrency", "--max-time", "--until-empty"]',
    '/command line/callbacks: null is now {"serve": ["--host", "--port"]}',
    "/environment: KLING_NB_CALLBACK_URL is new",
    "/functions/submit: callback_url (keyword-only, optional) is new",
    "/functions/submit: detached (keyword-only, optional) is new",
    "/environment: KLING_NB_TEAM_DAILY is new",
    "/environment: KLING_NB_TEAM_TOTAL is new",
    '/command line/ledger: null is now {"copy": ["--json", "source", "target"]}',
    "/__all__: run_one is new",
    # Sweeps.
    "/__all__: Sweep is new",
    "/__all__: sweep is new",
    '/cell flags/sweep: null is now ["--sweep"]',
    "/line commands/sweeps: null is now []",
    (
        '/command line/sweep: null is now ["--confirm", "--detached", "--dry-run", "--json", "--max-cost", '
        '"--wait", "name", "what"]'
    ),
}
#: Names that came whole, with all that belongs to them.
NEW_NAMES = (
    "/classes/Sweep: null is now ",
    "/functions/run_one: null is now ",
    "/functions/sweep: null is now ",
)


def test_the_public_surface_is_that_of_version_0_1():
    """Every name, parameter, flag, command, setting, receipt field, error and column is still there.

    What was added is listed above.
    """
    before = json.loads((FIXTURE / "api.json").read_text("utf-8"))
    found = differences(before, json.loads(json.dumps(surface())))
    # Every error is shown without a traceback now: the flag that said so for some is gone from all, and one
    # that says whether a call may spend is there.
    ends = ('/plain: "attribute" is now null', '/may_spend: null is now "attribute"')
    errors = {line for line in found if line.endswith(ends)}
    assert len(errors) == 40
    whole = {line for line in found if line.startswith(NEW_NAMES)}
    assert len(whole) == len(NEW_NAMES)
    assert set(found) - errors - whole == ADDED, "\n".join(found)


def test_its_ledger_is_read(house):
    """Runs, states, costs, totals, events and votes are what they were."""
    session = house.session()
    found = {run.id: run.record for run in session.runs()}
    assert len(found) == len(RUNS) + 1
    for name, state in STATES.items():
        record = found[RUNS[name]]
        assert (record.status, record.charged, record.settled_micros, record.reserved_micros) == state, name
    [played] = [record for record in found.values() if record.play]
    assert (played.provider, played.status, played.settled_micros) == ("sandbox", "succeeded", PRICE)
    record = found[RUNS["take 1"]]
    assert (record.take, record.metadata, found[RUNS["runflow"]].tags) == (1, {"team": "a"}, {"scene": "1"})
    assert (record.user, record.project) == ("ada", "fixture")
    totals = session.ledger().totals(record.session_id, play=False)
    assert (totals.settled_micros, totals.reserved_micros) == (4 * PRICE, 2 * PRICE)
    assert totals.unknown == 2
    kinds = [kind for _, kind, _ in session.ledger().events(RUNS["runflow"])]
    assert (kinds[0], kinds[-1]) == ("created", "saved")
    cast = votes(session.ledger())
    pair = tuple(sorted((RUNS["runflow"], RUNS["take 1"])))
    assert [(vote.pair, vote.choice, vote.rater, vote.axes) for vote in cast] == [
        (pair, "A>B", "ada", {"motion": "A"}),
        (pair, "A=B=Good", "bob", {"motion": "A"}),
    ]


@pytest.mark.parametrize("ledger", ["its ledger", "no ledger"])
def test_its_clips_are_reused(house, ledger):
    """By ledger and folder, or by the folder alone; nothing is sent to anybody."""
    if ledger == "no ledger":
        house.forget_ledger()
    session = house.session()
    for name in CALLS:
        run = house.run(session, ask(name))
        assert (run.id, run.status, run.reused) == (RUNS[name], "succeeded", True)
        assert run.path.parent == house.media
    assert house.submissions == 0


def test_its_sidecars_are_verified(house):
    """Each clip is as its receipt says; the one that was taken out is missed."""
    found = {one.run_id: one.word for one in verify_folder(house.folder)}
    here = {one for one, word in found.items() if word == "here"}
    assert {RUNS[name] for name in CALLS} < here
    assert len(here) == len(CALLS) + 1
    assert [one for one, word in found.items() if word == "missing"] == [RUNS["take 1"]]
    assert set(found.values()) <= {"here", "missing", "no clip"}


def test_its_notebook_is_restored(house):
    """The receipts of a saved notebook are believed, and its clips found beside it."""
    path = house.folder / "study.ipynb"
    found = restore(path, session=house.session())
    assert {one.word for one in found} == {"here"}
    [clip] = {one.file for one in found}
    (house.media / clip).rename(house.folder / "moved.mp4")
    again = restore(path, look_in=house.folder, session=house.session())
    assert {(one.word, one.file) for one in again} == {("linked", clip)}
    assert house.submissions == 0
