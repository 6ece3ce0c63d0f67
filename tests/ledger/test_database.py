"""The ledger under real processes, real faults of disk and file, and real SQL."""

import gc
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from kling_nb.errors import LedgerError
from kling_nb.ledger import transaction as transaction_module
from kling_nb.ledger.database import LeaseLostError, Ledger
from kling_nb.ledger.schema import COLUMNS, STEPS, row_of
from kling_nb.records.request import TextToVideo
from kling_nb.records.run import RunStatus
from support.clips import make_record
from support.databases import in_a_file, is_postgresql, look, spoil
from support.leases import claim, renew
from support.paths import TESTS
from support.stage import Stage
from support.sums import committed
from support.warm import Popen

PRELUDE = """
import sys
sys.path.insert(0, sys.argv[1])
from support.clips import make_record
from support.databases import in_a_file, is_postgresql, look, opened, spoil
from kling_nb.ledger.database import Ledger
ledger = Ledger(sys.argv[2])
def record(number, **changes):
    return make_record(id=f"k{number:07d}", **changes)
print("ready", flush=True)
sys.stdin.readline()
"""


def add(ledger, number=1, **changes):
    record = make_record(id=f"k{number:07d}", **changes)
    with ledger.writing() as transaction:
        transaction.insert(record)
    return record


def test_bills_are_found_however_far_back_they_stand(ledger):
    """What teaches nothing pushes no bill out of sight: stand-ins, sound, no dollars, runs of others."""
    start = datetime(2026, 11, 1, tzinfo=UTC)
    own = {"status": RunStatus.SUCCEEDED, "origin": "https://x.example/a_b%c", "session_id": "s"}
    own |= {"reported_micros": 560_000, "metadata": {"reported_micros": None}}
    other = [
        {"origin": "https://x.example/axb%c"},
        {"request": TextToVideo(prompt="A fox", audio=True)},
        {"reported_micros": None},
        {"reported_micros": 0},
        {"currency": "EUR"},
        {"session_id": ""},
    ]
    for number in range(64):
        more = other[number % 6] if number >= 4 else {}
        add(ledger, number, created_at=start + timedelta(hours=number), **{**own, **more})
    asked = {"origin": own["origin"], "audio": False}
    found = ledger.bills("runflow", "kling-3.0-pro", **asked)
    assert [(bill.micros, bill.seconds) for bill in found] == [(560_000, 5)] * 3
    assert len(ledger.bills("runflow", "kling-3.0-pro", **asked, limit=99)) == 4
    assert len(ledger.bills("runflow", "kling-3.0-pro", **{**asked, "audio": True}, limit=99)) == 10


def race(where, code, names):
    """Start processes that are all ready before any of them begins; gives what each printed."""
    started = [
        Popen(
            [sys.executable, "-c", PRELUDE + code, str(TESTS), str(where), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [process.communicate(timeout=60) for process in started]
    assert [(process.returncode, err) for process, (_, err) in zip(started, ends, strict=True)] == [
        (0, "")
    ] * len(started)
    return [out.split() for out, _ in ends]


# -- transactions ---------------------------------------------------------------------
@in_a_file
@pytest.mark.parametrize("way", ["bills", "runs", "waits", "events", "find", "half"])
def test_no_select_outlives_its_transaction(ledger, where, way):
    """Whoever gets the connection next can begin to write at once, whatever was read on it, and how far."""
    start = datetime(2026, 11, 1, tzinfo=UTC)
    own = {"status": RunStatus.SUCCEEDED, "origin": "https://x.example", "session_id": "s"}
    for number in range(40):
        add(ledger, number, created_at=start + timedelta(hours=number), reported_micros=1, **own)
    begun = []

    def handed_back(connection, _record):
        # Another process commits at this moment: a state of the file that is still being read is an old one.
        with closing(sqlite3.connect(where)) as other, other:
            other.execute("UPDATE runs SET project = project || 'x'")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
        begun.append(way)

    def half(transaction):
        rows = iter(transaction.connection.execute(sa.text("SELECT id FROM runs, events")))
        next(rows)
        return rows

    sa.event.listen(ledger._engine, "checkin", handed_back)
    kept = {
        "bills": lambda: ledger.bills("runflow", "kling-3.0-pro", origin=own["origin"], audio=False, limit=1),
        "runs": lambda: ledger.runs(limit=1),
        "waits": lambda: ledger.waits("runflow", "kling-3.0-pro", 5, limit=1),
        "events": lambda: ledger.events("k0000001"),
        "find": lambda: reading(ledger, lambda transaction: transaction.get("k0000001")),
        "half": lambda: reading(ledger, half),
    }[way]()
    assert kept is not None
    assert begun == [way]


def reading(ledger, look):
    with ledger.reading() as transaction:
        return look(transaction)


LOOK_THEN_INSERT = """
import time
made = 0
for number in range(20):
    mine = record(int(sys.argv[3]) * 1000 + number, prompt=f"prompt {number}")
    with ledger.writing() as transaction:
        if not transaction.find([mine.request_key]):
            time.sleep(0.002)
            transaction.insert(mine)
            made += 1
print(made)
"""


def test_a_look_and_the_insert_that_rests_on_it_are_one(where):
    """Two processes look for the same twenty requests and insert what is missing: one row each."""
    counts = [int(out[0]) for out in race(where, LOOK_THEN_INSERT, ["1", "2"])]
    rows = look(where, "SELECT request_key, COUNT(*) FROM runs GROUP BY request_key")
    assert sum(counts) == len(rows) == 20
    assert {count for _, count in rows} == {1}


@in_a_file
def test_a_write_transaction_takes_the_lock_when_it_begins(ledger, where):
    """BEGIN IMMEDIATE: while one is open, nobody else may begin to write, and everybody may read."""
    with ledger.writing(), closing(sqlite3.connect(where, timeout=0, isolation_level=None)) as other:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        assert other.execute("SELECT COUNT(*) FROM runs").fetchone() == (0,)
    with ledger.reading(), closing(sqlite3.connect(where, timeout=0, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")


def test_what_fails_in_the_middle_leaves_nothing(ledger, where):
    """Everything of a transaction happens, or nothing does."""

    def fail():
        with ledger.writing() as transaction:
            transaction.insert(make_record(id="kaaaaaaa"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert look(where, "SELECT COUNT(*) FROM runs") == look(where, "SELECT COUNT(*) FROM events") == [(0,)]


def test_one_live_run_per_key_is_the_second_line_of_defence(ledger):
    """The database itself refuses a second live run of a run key; ended ones do not count."""
    first = add(ledger, 1)
    for status in ("created", "submitting", "queued", "running", "saving", "lost"):
        ledger.change(first.id, "moved", status=RunStatus(status))
        with pytest.raises(LedgerError, match=r"(?i)unique"):
            add(ledger, 2)
    for number, status in enumerate(("succeeded", "failed", "canceled"), start=3):
        ledger.change(first.id, "moved", status=RunStatus(status))
        add(ledger, number, status=RunStatus(status))
    add(ledger, 9)
    assert len(ledger.runs()) == 5


# -- the file ------------------------------------------------------------------------
@in_a_file
def test_the_file_is_as_safe_as_sqlite_makes_it(ledger, where):
    """WAL: readers and one writer do not wait for each other. FULL: a power cut loses nothing."""
    assert look(where, "PRAGMA journal_mode") == [("wal",)]
    with ledger._engine.connect() as connection:
        assert connection.scalar(sa.text("PRAGMA synchronous")) == 2
        assert connection.scalar(sa.text("PRAGMA busy_timeout")) >= 10_000


def test_the_steps_of_the_schema_are_on_record(ledger, where):
    """Each step is written down once, also when the file is opened again."""
    before = look(where, "SELECT number, name FROM migrations")
    assert [number for number, _ in before] == list(range(1, len(before) + 1))
    Ledger(where).close()
    assert look(where, "SELECT number, name FROM migrations") == before


def test_a_newer_schema_is_refused_and_left_alone(where):
    """An older program does not write what it does not understand."""
    Ledger(where).close()
    spoil(where, "INSERT INTO migrations VALUES (99, 'from the future', '2030-01-01T00:00:00+00:00')")
    with pytest.raises(LedgerError, match="newer kling_nb") as caught:
        Ledger(where)
    assert "Upgrade" in caught.value.cure
    assert len(look(where, "SELECT * FROM migrations")) == len(STEPS) + 1


def test_many_processes_may_open_a_new_ledger_at_once(tmp_path):
    """The first use of several kernels at the same time: each opens it, one makes the tables."""
    code = (
        "import sys, time\nfrom kling_nb.ledger.database import Ledger\nprint('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "for number in range(15):\n    Ledger(f'{sys.argv[1]}/{number}/ledger.db').close()\n"
    )
    started = [
        Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in started:
        process.stdout.readline()
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [process.communicate(timeout=60) for process in started]
    assert [err for _, err in ends] == [""] * 4
    assert len(list(tmp_path.glob("*/ledger.db"))) == 15
    for path in tmp_path.glob("*/ledger.db"):
        assert look(path, "SELECT COUNT(*) FROM migrations") == [(len(STEPS),)]


def test_many_threads_may_use_one_ledger(ledger):
    """More threads than the pool has connections: they wait their turn."""
    failures = []

    def work(number):
        try:
            for step in range(5):
                add(ledger, number * 10 + step, prompt=f"{number} {step}")
                ledger.totals("", play=False)
        except LedgerError as error:  # pragma: no cover - only when it fails
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(ledger.runs()) == 120


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("folder", "unable to open"),
        ("junk", "not a database"),
        ("file in the way", "Not a directory|File exists"),
        ("no such place", "No such file|Permission|not permitted"),
        ("full disk", "full"),
    ],
)
def test_a_ledger_that_cannot_be_used_says_why(tmp_path, what, why):
    """A real cause each, that binds root too: one line, nothing charged, a cure."""
    where = tmp_path / "ledger.db"
    if what == "folder":
        where.mkdir()
    elif what == "junk":
        where.write_bytes(b"This is no database at all. " * 100)
    elif what == "file in the way":
        where.write_text("a file")
        where /= "ledger.db"
    elif what == "no such place":
        where = "/proc/kling_nb/ledger.db"
    else:
        where = "/dev/full"
    with pytest.raises(LedgerError, match=why) as caught:
        Ledger(where)
    assert "\n" not in str(caught.value)
    assert caught.value.charged == "no"
    assert "KLING_NB_LEDGER" in caught.value.cure


@pytest.mark.parametrize(
    "address",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory&uri=true",
        "nosuch://user:hunter2@host/db?password=hunter2",
        "://hunter2",
        "postgresql://user:hunt@hunter2@127.0.0.1:1/db",
        "postgresql+nosuch://user:hunter2@127.0.0.1:1/db",
    ],
)
def test_an_address_that_keeps_nothing_or_leads_nowhere_is_refused(address):
    """A ledger in memory would forget what was paid for; no message repeats a password."""
    with pytest.raises(LedgerError) as caught:
        Ledger(address)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_ledger_that_breaks_later_says_so_too(ledger, where):
    """Whatever the database raises is a LedgerError."""
    record = add(ledger)
    spoil(where, "DROP TABLE events")
    with pytest.raises(LedgerError, match=r"no such table|does not exist"):
        ledger.change(record.id, "moved", status=RunStatus.QUEUED)
    assert ledger.get(record.id).status == "created", "the change and its event are one"
    with pytest.raises(LedgerError, match="no run"):
        ledger.change("knothere", "moved")


# -- events -----------------------------------------------------------------------------
def test_events_tell_the_whole_life_and_are_only_appended(tmp_path):
    """Every state a run was in is in its history, in order, with its time."""
    stage = Stage(tmp_path, "runflow", wait_scale=0.3)
    try:
        run = stage.go()
        events = stage.ledger.events(run.id)
        kinds = [kind for _, kind, _ in events]
        assert kinds[:3] == ["created", "submitting", "accepted"]
        assert kinds[-1] == "saved"
        order = ["created", "submitting", "queued", "running", "saving", "succeeded"]
        seen = list(dict.fromkeys(data["status"] for _, _, data in events))
        assert seen == [status for status in order if status in seen]
        assert {"created", "submitting", "saving", "succeeded"} <= set(seen)
        assert [at for at, _, _ in events] == sorted(at for at, _, _ in events)
        assert run.provider_run_id in str(dict(enumerate(data for _, _, data in events)))
        before = look(tmp_path / "ledger.db", "SELECT * FROM events ORDER BY number")
        stage.ledger.change(run.id, "noted", message="hello")
        after = look(tmp_path / "ledger.db", "SELECT * FROM events ORDER BY number")
        assert after[: len(before)] == before
        assert len(after) == len(before) + 1
    finally:
        stage.close()


def test_no_secret_reaches_the_file(tmp_path):
    """Neither the key nor a signed link is in the ledger, its journal or the sidecar."""
    stage = Stage(tmp_path, "runflow", key="made-up-key-of-a-test-7Qm2")
    try:
        run = stage.go()
        assert run.status == "succeeded"
        files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".mp4"]
        text = b"".join(path.read_bytes() for path in files)
        assert b"made-up-key" not in text
        assert b"kling_sig" not in text
        assert run.id.encode() in text
        assert len(files) >= 2
    finally:
        stage.close()


# -- leases ------------------------------------------------------------------------------
CLAIM = """
import time
wins = 0
for number in range(30):
    with ledger.writing() as transaction:
        wins += transaction.claim(f"k{number:07d}", sys.argv[3], 30)
print(wins)
"""


def test_a_run_is_claimed_by_one_process(where):
    """Two processes claim thirty runs: each run goes to exactly one of them."""
    ledger = Ledger(where)
    for number in range(30):
        add(ledger, number, prompt=f"prompt {number}")
    wins = [int(out[0]) for out in race(where, CLAIM, ["a", "b"])]
    assert sum(wins) == 30
    owners = look(where, "SELECT owner, COUNT(*) FROM runs GROUP BY owner")
    assert {owner: count for owner, count in owners if count} == {
        name: count for name, count in zip("ab", wins, strict=True) if count
    }
    ledger.close()


def test_closing_waits_for_what_another_thread_is_writing(where):
    """A lease that is still being given back when the ledger is closed reaches the disk before."""
    ledger = Ledger(where)
    run = add(ledger)
    inside, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def write():
        with ledger.writing() as transaction:
            inside.set()
            assert go_on.wait(90)
            transaction.change(run, "told", {"provider_run_id": "r7"})

    def close():
        ledger.close()
        closed.set()

    threads = [threading.Thread(target=write), threading.Thread(target=close)]
    threads[0].start()
    assert inside.wait(90)
    threads[1].start()
    assert not closed.wait(0.3), "it was closed in the middle of a transaction"
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert closed.is_set()
    if not is_postgresql(where):
        assert sorted(path.name for path in where.parent.iterdir()) == ["ledger.db"]
    assert look(where, "SELECT provider_run_id FROM runs") == [("r7",)]


def test_a_lease_is_renewed_kept_and_given_back(ledger):
    """The owner renews it, others wait until it has run out or is given back."""
    run = add(ledger)
    assert claim(ledger, run.id, "a", 30)
    assert claim(ledger, run.id, "a", 30)
    assert not claim(ledger, run.id, "b", 30)
    ledger.release(run.id, "b")
    assert not claim(ledger, run.id, "b", 30)
    ledger.release(run.id, "a")
    assert claim(ledger, run.id, "b", -1)
    assert claim(ledger, run.id, "a", 30), "it has run out"
    assert not claim(ledger, "knothere", "a", 30)


def test_a_run_can_be_somebodys_from_its_insert(ledger):
    """Nobody else takes it until that lease has run out; without one anybody may."""
    fresh, stale, free = (make_record(id=name, prompt=name) for name in ("kfresh", "kstale", "kfreee"))
    with ledger.writing() as transaction:
        transaction.insert(fresh, lease=("a", 30))
        transaction.insert(stale, lease=("a", -1))
        transaction.insert(free)
    assert not claim(ledger, fresh.id, "b", 30)
    assert renew(ledger, fresh.id, "a", 30)
    assert claim(ledger, stale.id, "b", 30)
    assert claim(ledger, free.id, "b", 30)


def test_only_the_holder_of_the_lease_changes_a_run(ledger):
    """A process that slept through its lease finds out at its next step, before it sends anything."""
    run = add(ledger)
    claim(ledger, run.id, "a", 30)
    ledger.change_as("a", run.id, "submitting", at=RunStatus.CREATED, status=RunStatus.SUBMITTING)
    claim(ledger, run.id, "a", -1)
    assert not claim(ledger, run.id, "b", 30), "it is being sent, and the clock may be wrong"
    assert claim(ledger, run.id, "b", 30, unmoved=ledger.lease(run.id))
    assert not renew(ledger, run.id, "a", 30)
    with pytest.raises(LeaseLostError, match=run.id):
        ledger.change_as("a", run.id, "unsent", status=RunStatus.CREATED)
    ledger.release(run.id, "b")
    claim(ledger, run.id, "a", 30)
    with pytest.raises(LeaseLostError):
        ledger.change_as("a", run.id, "submitting", at=RunStatus.CREATED, status=RunStatus.SUBMITTING)
    assert [kind for _, kind, _ in ledger.events(run.id)] == ["created", "submitting"]


# -- looking ----------------------------------------------------------------------------
def test_lists_are_newest_first_and_can_be_narrowed(ledger):
    """By state, session and the provider's id; at most so many."""
    from datetime import timedelta

    base = make_record().created_at
    for number in range(5):
        add(
            ledger,
            number,
            prompt=f"prompt {number}",
            created_at=base + timedelta(milliseconds=number * 500),
            session_id="s" if number % 2 else "t",
            status=RunStatus.QUEUED if number < 3 else RunStatus.SUCCEEDED,
            provider_run_id=f"p{number}",
        )
    ids = [record.id for record in ledger.runs()]
    assert ids == [f"k{number:07d}" for number in (4, 3, 2, 1, 0)]
    assert [record.id for record in ledger.runs(limit=2)] == ids[:2]
    assert len(ledger.runs(statuses=[RunStatus.QUEUED])) == 3
    assert [record.provider_run_id for record in ledger.runs(session_id="s")] == ["p3", "p1"]
    assert [record.id for record in ledger.runs(provider_run_id="p2")] == ["k0000002"]
    assert ledger.get("k0000002").provider_run_id == "p2"
    assert ledger.get("knothere") is None


def test_waits_are_those_of_the_users_own_finished_runs(ledger):
    """Only succeeded runs of the same kind teach how long one takes, the newest first."""
    from datetime import timedelta

    base = make_record().created_at
    for number, (seconds, status) in enumerate(
        [(100, RunStatus.SUCCEEDED), (120, RunStatus.SUCCEEDED), (5, RunStatus.FAILED)]
    ):
        add(
            ledger,
            number,
            created_at=base + timedelta(seconds=number),
            submitted_at=base,
            finished_at=base + timedelta(seconds=seconds),
            status=status,
        )
    assert ledger.waits("runflow", "kling-3.0-pro", 5) == [120.0, 100.0]
    assert ledger.waits("runflow", "kling-3.0-pro", 6) == []
    assert ledger.waits("runcomfy", "kling-3.0-pro", 5) == []


def test_totals_tell_settled_held_and_unknown_apart(ledger):
    """Unknown is counted, and never a nought in a sum."""
    add(ledger, 1, prompt="a", session_id="s", settled_micros=5, status=RunStatus.SUCCEEDED)
    add(ledger, 2, prompt="b", session_id="s", reserved_micros=7)
    add(ledger, 3, prompt="c", session_id="s", reserved_micros=11, status=RunStatus.FAILED)
    add(ledger, 4, prompt="d", session_id="t", settled_micros=13, status=RunStatus.SUCCEEDED)
    add(ledger, 5, prompt="e", session_id="s", settled_micros=17, status=RunStatus.SUCCEEDED, play=True)
    totals = ledger.totals("s", play=False)
    assert (totals.settled_micros, totals.reserved_micros, totals.unknown) == (5, 18, 1)
    assert ledger.totals("s", play=True).settled_micros == 17
    with ledger.reading() as transaction:
        assert committed(transaction, play=False) == 5 + 18 + 13


# -- forks ----------------------------------------------------------------------------
FORK = """
import os, sys, threading, time
from kling_nb.session.session import Session
session = Session(ledger=sys.argv[3], provider="sandbox", sandbox_wait=0)
sys.path.insert(0, sys.argv[1])
from support.sessions import ask
from kling_nb.media.index_cache import IndexCache
[run] = session.open(ask())
run.wait(90)
writing = threading.Event()
def write():
    with session.ledger().writing():
        writing.set()
        time.sleep(0.5)
        IndexCache.of_user().is_fine(run.path.parent)
threading.Thread(target=write).start()
writing.wait()
child = os.fork()
if child == 0:
    code = 1
    try:
        files = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in range(200)]
        assert not [file for file in files if "ledger.db" in file], files
        [again] = session.open(ask())
        [new] = session.open(ask("In the child"))
        new.wait(90)
        code = 0 if again.reused and new.status == "succeeded" else 2
        session.close()
    finally:
        os._exit(code)
_, state = os.waitpid(child, 0)
[last] = session.open(ask("In the parent"))
print(os.waitstatus_to_exitcode(state), last.wait(90).status, len(session.runs()))
"""


def test_a_forked_child_starts_clean(tmp_path):
    """Forked in a transaction of another thread, which reads the cache too: neither is locked out."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",  # Python warns of every fork beside threads; that is the point here
            "-c",
            FORK,
            str(TESTS),
            "",
            str(tmp_path / "ledger.db"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("0 succeeded 3\n", "")


@pytest.mark.parametrize("spoil", ["no database", "pages"])
def test_a_corrupt_ledger_says_what_suffices_and_what_is_forgotten(tmp_path, spoil):
    """Clips and receipts go on without it, and a new one knows no cap: nobody should start one unwarned."""
    where = tmp_path / "ledger.db"
    Ledger(where).close()
    content = where.read_bytes()
    where.write_bytes(b"no database" * 900 if spoil == "no database" else content[:100] + b"\xff" * 9000)
    with pytest.raises(LedgerError) as caught:
        Ledger(where).runs()
    assert "clips and receipts in the media folders are enough to go on" in caught.value.cure
    assert "forgets what was spent under every cap" in caught.value.cure


def test_a_ledger_that_nobody_closed_closes_its_connections(tmp_path):
    """From Python 3.13 on an open connection that is collected is a warning, and to many tests an error."""
    ledger = Ledger(tmp_path / "ledger.db")
    ended = []
    sa.event.listen(ledger._engine, "close", lambda *_: ended.append("closed"))
    ledger.runs()
    del ledger
    gc.collect()
    assert ended == ["closed"]


def test_after_any_step_every_column_says_what_the_record_says(ledger, where):
    """Also those that are worked out of other fields, and though a step writes only what it changes."""
    now = datetime(2026, 11, 1, tzinfo=UTC)
    record = add(ledger)
    steps = [
        {"status": RunStatus.RUNNING, "provider_run_id": "p-1", "charged": "unknown"},
        {"submitted_at": now},
        {"finished_at": now + timedelta(seconds=9)},
        {"request": TextToVideo(prompt="A hare", duration=9), "request_key": "k1:a", "run_key": "k1:b"},
        {"project": "a", "user": "b", "session_id": "c", "created_at": now, "model": "m", "play": True},
        {"settled_micros": 1, "reserved_micros": 0, "tags": {"a": "b"}},
    ]
    for changes in steps:
        record = ledger.change(record.id, "changed", **changes)
        named = ", ".join(f'"{name}"' for name in COLUMNS)
        [row] = look(where, f"SELECT {named} FROM runs WHERE id = ?", record.id)
        assert tuple(row) == tuple(row_of(record).values())


def test_a_step_names_no_column_that_it_does_not_change(ledger, monkeypatch):
    """Each one that is named moves its indexes, of which a run has ten."""
    record, texts = add(ledger), []
    real = transaction_module.run_statement
    monkeypatch.setattr(
        transaction_module, "run_statement", lambda *given: texts.append(given[1]) or real(*given)
    )
    ledger.change(record.id, "read", message="going", queue_position=2)
    assert [text for text in texts if text.startswith("UPDATE")] == [
        'UPDATE runs SET "record" = ? WHERE id = ?'
    ]
