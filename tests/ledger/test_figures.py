"""Figures and running totals: right whoever writes a row, and no dearer with a ledger of years."""

import shutil
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from kling_nb.ledger.database import Ledger
from kling_nb.ledger.schema import RUNS
from kling_nb.ledger.tallies import Chosen
from kling_nb.records.money import Estimate
from kling_nb.records.run import RunStatus
from kling_nb.spending.counted import Counted
from kling_nb.spending.report import CostReport
from kling_nb.spending.sums import DIMENSIONS, OVERVIEW, is_open, select
from support.clips import make_record
from support.databases import in_a_file, look, opened, spoil
from support.paths import TESTS

OWN = {"session_id": "s", "project": "p", "user": "u"}


def add(ledger, **changes):
    record = make_record(**{**OWN, **changes})
    with ledger.writing() as transaction:
        transaction.insert(record)
    return record


def sums(ledger, **which):
    with ledger.reading() as transaction:
        found = transaction.sums(**{"play": False, **which})
    return found.settled_micros, found.reserved_micros, found.unknown


def clone(where, many, *, of, mark="c"):
    """Clone a run as an outside program does: new ids, everything else as it stands."""
    new = {name: f"{name} || '{mark}' || n" for name in ("id", "provider_run_id", "run_key", "request_key")}
    names = [f'"{column.name}"' for column in RUNS.columns]
    values = ", ".join(new.get(name.strip('"'), name) for name in names)
    spoil(
        where,
        f"INSERT INTO runs ({', '.join(names)}) "
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?) "
        f"SELECT {values} FROM numbers, runs WHERE id = ?",
        many,
        of,
    )


def test_totals_follow_every_change_of_a_row(ledger, where):
    """Inserted, settled, moved, damaged or deleted by anybody: the sums are those of the rows."""
    run = add(ledger, reserved_micros=7)
    assert sums(ledger, session_id="s") == sums(ledger, project="p") == sums(ledger, user="u") == (0, 7, 0)
    ledger.change(run.id, "moved", status=RunStatus.QUEUED, message="nothing of money")
    ledger.change(run.id, "failed", status=RunStatus.FAILED)
    assert sums(ledger, user="u") == (0, 7, 1)
    ledger.change(run.id, "settled", settled_micros=5, reserved_micros=0)
    assert sums(ledger, user="u") == sums(ledger) == (5, 0, 0)
    clone(where, 3, of=run.id)
    assert sums(ledger, user="u") == (20, 0, 0)
    spoil(where, "UPDATE runs SET project = 'q' WHERE id = ?", run.id)
    spoil(where, "UPDATE runs SET record = '{' WHERE id = ?", f"{run.id}c1")
    spoil(where, "DELETE FROM runs WHERE id = ?", f"{run.id}c2")
    assert (sums(ledger, project="p"), sums(ledger, project="q")) == ((10, 0, 0), (5, 0, 0))
    assert sums(ledger, user="u", play=True) == (0, 0, 0)
    assert ledger.mend_sums() == 0


def test_totals_of_days_count_on_the_day_of_the_request(ledger):
    """Days are UTC; a day's totals are of that day and what comes after."""
    noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    for number in range(4):
        add(
            ledger,
            id=f"k{number:07d}",
            take=number,
            created_at=noon + timedelta(days=number),
            settled_micros=1,
        )
    for number in range(4):
        since = (noon + timedelta(days=number)).replace(hour=0)
        assert sums(ledger, project="p", since=since)[0] == 4 - number


def test_wrong_totals_are_found_and_made_anew(ledger, where):
    """What another program spoils is mended from the runs, and said once."""
    run = add(ledger, reserved_micros=7)
    spoil(where, "UPDATE sums SET reserved = 1 WHERE scope = 'session'")
    spoil(where, "UPDATE figures SET bill = 9")
    assert sums(ledger, session_id="s") == (0, 1, 0)
    assert ledger.mend_sums() > 0
    assert sums(ledger, session_id="s") == (0, 7, 0)
    assert ledger.mend_sums() == 0
    ledger.change(run.id, "settled", status=RunStatus.FAILED, settled_micros=0, reserved_micros=0)
    assert sums(ledger, session_id="s") == (0, 0, 0)
    assert ledger.mend_sums() == 0


@in_a_file
@pytest.mark.parametrize("many", [100, pytest.param(100_000, marks=pytest.mark.matrix)])
def test_a_ledger_of_years_is_migrated_and_searched_by_index(where, many):
    """The ledger of version 0.1 with many runs more: its totals are there, and nothing is scanned."""
    where.parent.mkdir()
    shutil.copyfile(TESTS / "data" / "v0_1" / "ledger.db", where)
    [run] = look(where, "SELECT id, session_id, settled_micros FROM runs WHERE status = 'succeeded' LIMIT 1")
    [before] = look(where, "SELECT SUM(settled_micros) FROM runs WHERE NOT play")
    run_id, session_id, settled = run
    clone(where, many, of=run_id)
    ledger = Ledger(where)
    record = ledger.get(run_id)
    assert sums(ledger)[0] == before[0] + many * settled
    assert ledger.count() > many
    kind = record.provider, record.model
    assert len(ledger.waits(*kind, record.request.duration, audio=record.request.audio)) == 50
    assert len(ledger.bills(*kind, origin=record.origin, audio=record.request.audio, limit=9)) == 9
    with opened(where) as book:
        for query in SEARCHES:
            for row in book.execute(f"EXPLAIN QUERY PLAN {query}"):
                assert "SCAN" not in row[3], (query, row[3])
                assert "TEMP B-TREE" not in row[3], (query, row[3])
    clone(where, 2, of=run_id, mark="d")
    assert sums(ledger, session_id=session_id)[0] >= (many + 3) * settled
    ledger.close()


def mixed(ledger):
    """Runs of every state and kind of bill."""
    states = [
        {
            "settled_micros": 560_000,
            "reported_micros": 560_000,
            "status": RunStatus.SUCCEEDED,
            "charged": "yes",
        },
        {"settled_micros": 560_000, "status": RunStatus.SUCCEEDED, "charged": "yes", "notebook": "a.ipynb"},
        {"reserved_micros": 560_000, "status": RunStatus.LOST, "tags": {"scene": "1", "prompt": "x"}},
        {"reserved_micros": 5, "status": RunStatus.FAILED, "charged": "unknown"},
        {"reported_micros": 7, "currency": "EUR", "status": RunStatus.SUCCEEDED, "charged": "yes"},
        {"reported_micros": 0, "currency": "EUR", "settled_micros": 0, "status": RunStatus.FAILED},
        {"reserved_micros": 560_000, "tags": {"scene": "2", "prompt": "a fox"}, "private": True},
        {"status": RunStatus.CANCELED, "settled_micros": 0, "play": True, "session_id": "t", "project": ""},
        {"reserved_micros": 9, "estimate": Estimate(micros=None, reserve_micros=9), "model": "kling-3.0-4k"},
        {"settled_micros": 3, "estimate": Estimate(micros=5, reserve_micros=9, currency="EUR")},
    ]
    noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    for number, state in enumerate(states):
        add(ledger, id=f"k{number:07d}", take=number, created_at=noon + timedelta(days=number // 4), **state)


def test_reports_from_totals_are_those_of_the_runs(ledger, monkeypatch):
    """Whatever they are arranged by, and of whatever days and session: figure by figure the same."""
    mixed(ledger)
    # As another process reads them: private tags are hashes on a shared ledger.
    monkeypatch.setattr("kling_nb.ledger.rows._recent", {})
    day = datetime(2026, 11, 22, tzinfo=UTC).date()
    for which in (
        *({}, {"session_id": "s"}, {"session_id": "t"}, {"since": day}, {"until": day}),
        *({"project": "p"}, {"project": ""}, {"project": "nowhere"}),
    ):
        days = {name: which.get(name) for name in ("since", "until", "project")}
        one_by_one = CostReport(select(ledger.runs(session_id=which.get("session_id")), **days))
        together = CostReport(Counted(ledger, Chosen(**which)))
        assert repr(together) == repr(one_by_one)
        for by in (*DIMENSIONS, "tag:scene", "tag:prompt", "provider,day,session"):
            assert together.by(by).rows == one_by_one.by(by).rows, by
    assert [run.id for run in ledger.open_charges()] == [run.id for run in ledger.runs() if is_open(run)]


def test_a_report_of_years_reads_what_it_shows(ledger):
    """A total of all days, and the newest of them with the number of the others: never a row for each."""
    noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    for number in range(150):
        day = noon - timedelta(days=number // 2)
        add(ledger, id=f"k{number:07d}", take=number, created_at=day, settled_micros=1, play=number % 3 == 0)
    counted = Counted(ledger, Chosen())
    tallies, newest = counted.tallies(OVERVIEW, most=40)
    assert sorted(tally.runs for tally in tallies) == [50, 100]
    days, number = newest[False]
    assert (len(days), number) == (40, 75)
    assert [day.labels["day"] for day in days] == sorted((day.labels["day"] for day in days), reverse=True)
    assert counted.tallies(OVERVIEW, most=60)[1][True] == (counted.tallies(OVERVIEW, most=99)[1][True][0], 50)
    assert "There are 35 more rows" in repr(CostReport(counted))
    expected, before = repr(CostReport(ledger.runs())), CostReport(counted)
    assert repr(CostReport(counted)) == expected
    add(ledger, id="k9999999", take=999, created_at=noon, settled_micros=1)
    # What is drawn later is of one moment all the same.
    assert repr(before) == expected


def test_a_listing_is_read_in_pages_and_stays_what_it_was(ledger, where):
    """Length, places, slices and the whole of it are those of a list, also once there are newer runs."""
    noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    for number in range(3):
        add(ledger, id=f"k{number:07d}", take=number, created_at=noon - timedelta(days=number))
    clone(where, 450, of="k0000001")
    whole, listing = ledger.runs(), ledger.listing()
    add(ledger, id="knewer", take=9)
    assert len(listing) == len(whole) == 453
    assert list(listing) == whole
    for place in (0, 1, 200, 452, -1, -453):
        assert listing[place] == whole[place]
    for part in (
        slice(2),
        slice(198, 203),
        slice(None, None, 100),
        slice(-3, None),
        slice(5, 2),
        slice(9, 0, -4),
    ):
        assert listing[part] == whole[part], part
    for place in (453, -454):
        with pytest.raises(IndexError):
            listing[place]
    spoil(where, "UPDATE runs SET record = '{' WHERE id = 'k0000000'")
    assert (len(ledger.listing()), ledger.unreadable(), ledger.unreadable("t")) == (453, 1, 0)
    assert list(ledger.listing()) == list(ledger.runs())


@in_a_file
def test_no_call_does_more_work_in_a_ledger_of_many_runs(ledger, where):
    """Counted in steps of SQLite's machine: with 3,000 runs at most twice those with one."""
    run = add(ledger, settled_micros=1, reported_micros=1, status=RunStatus.SUCCEEDED)
    steps, made = [], []
    sa.event.listen(
        ledger._engine, "connect", lambda raw, _: raw.set_progress_handler(lambda: steps.append(1) or 0, 10)
    )
    ledger._engine.dispose()
    calls = {
        "totals": lambda: ledger.totals("s", play=False),
        "cost": lambda: CostReport(Counted(ledger, Chosen()), unread=ledger.unreadable()).rows,
        "bills": lambda: ledger.bills(run.provider, run.model, origin=run.origin, audio=False),
        "waits": lambda: ledger.waits(run.provider, run.model, 5, limit=1),
        "newest": lambda: ledger.listing()[0],
        "length": lambda: len(ledger.listing()),
        "pending": lambda: ledger.runs(statuses=[status for status in RunStatus if status.pending]),
        "provider's id": lambda: ledger.runs(provider_run_id="p"),
        "one": lambda: ledger.get(run.id),
        "count": ledger.count,
    }
    for many in (0, 3_000):
        if many:
            clone(where, many, of=run.id)
        made.append({})
        for name, call in calls.items():
            steps.clear()
            call()
            made[-1][name] = len(steps)
    few, more = made
    assert {name for name in calls if more[name] > 2 * few[name] + 10} == set()


SEARCHES = (
    "SELECT sum(settled) FROM sums WHERE scope = 'session' AND play = 0 AND name = 's'",
    "SELECT sum(settled) FROM sums WHERE scope = 'user' AND play = 0 AND name = 'u' AND day >= '2026-11-21'",
    "SELECT id FROM runs WHERE provider = 'p' AND provider_run_id = 'x'",
    "SELECT id FROM runs WHERE run_key = 'k' AND status IN ('created', 'lost')",
    "SELECT min(created_at) FROM runs WHERE session_id = 's'",
    "SELECT id FROM runs WHERE session_id = 's' ORDER BY created_at DESC, id",
    "SELECT id FROM runs WHERE status = 'saving' ORDER BY created_at DESC, id",
)
