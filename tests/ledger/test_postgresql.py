"""What only a server can do to a ledger: be restarted, lose an answer, cut off who sleeps while it writes."""

import asyncio
import threading
import traceback
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from kling_nb.cli import app
from kling_nb.errors import BudgetError, LedgerError, UsageError
from kling_nb.ledger import connection, sweeps
from kling_nb.ledger.database import Ledger
from kling_nb.ledger.databases import copying
from kling_nb.ledger.databases.copying import copy_ledger
from kling_nb.records.privacy import is_redacted, restore_prompt
from kling_nb.records.run import RunStatus
from kling_nb.session.budget import Budget
from support.clips import make_record
from support.databases import Relay, look, restart, schema, server, spoil
from support.leases import claim
from support.stage import Stage


@pytest.fixture
def relay(postgresql):
    made = Relay(postgresql)
    yield made
    made.close()


@pytest.fixture
def far(postgresql, relay):
    """A ledger behind the relay."""
    with schema(postgresql) as address:
        ledger = Ledger(f"{relay.uri}{address.partition('&')[2]}")
        yield ledger
        ledger.close()


COMMIT = b"COMMIT\0"


def insert(number):
    return lambda transaction: transaction.insert(make_record(id=f"k{number:07d}", take=number))


async def asked(ledger, works):
    return await asyncio.gather(*(ledger.writer.ask(work) for work in works))


@pytest.mark.parametrize(
    "lost",
    [
        [(COMMIT, "request")],
        [(COMMIT, "request"), (b"SAVEPOINT", "answer"), (b"SAVEPOINT", "answer")],
        [(COMMIT, "answer")],
        [(COMMIT, "answer"), (b"WHERE connection =", "answer"), (b"WHERE connection =", "request")],
    ],
)
def test_a_commit_whose_answer_got_lost_is_looked_up_and_not_repeated_blindly(far, relay, lost):
    """Written or not, which nobody was told: every run is there once, and who asked is answered.

    Also where what is written again, or the look, is cut off too.
    """
    far.count()
    relay.loses += lost
    asyncio.run(asked(far, [insert(number) for number in range(5)]))
    assert relay.loses == []
    assert len(far.runs()) == 5
    assert [len(far.events(run.id)) for run in far.runs()] == [1] * 5
    assert far.mend_sums() == 0


@pytest.mark.parametrize("loses", ["request", "answer"])
def test_a_transaction_that_cannot_be_repeated_says_whether_it_was_written(far, relay, loses):
    """An error means that nothing is there; no error that all of it is."""

    def write():
        with far.writing() as transaction:
            insert(1)(transaction)

    relay.loses = [(COMMIT, loses)]
    if loses == "answer":
        write()
    else:
        with pytest.raises(LedgerError) as caught:
            write()
        assert "postgres" in str(caught.value)
    assert len(far.runs()) == (loses == "answer")
    asyncio.run(asked(far, [insert(2)]))
    assert far.get("k0000002") is not None


def test_a_look_that_was_cut_off_is_done_again(far, relay):
    """And so is a transaction whose caller says that it sees for itself how things stand."""
    relay.loses = [(b"FROM runs", "answer"), (b"FROM runs", "request")]
    assert far.runs() == []
    assert relay.loses == []

    def write():
        with far.writing() as transaction:
            if transaction.get("k0000001") is None:
                insert(1)(transaction)

    for loses in ("request", "answer"):
        relay.loses = [(COMMIT, loses)]
        far.insist(write)
        assert [run.id for run in far.runs()] == ["k0000001"]
        assert len(far.events("k0000001")) == 1


@pytest.mark.parametrize("loses", ["request", "answer"])
def test_a_read_that_was_cut_off_between_its_looks_begins_anew(far, relay, loses):
    """Who asked sees one moment of the ledger, that of the last beginning, and no error."""
    begun = []

    def work(transaction):
        begun.append(transaction.began("s"))
        return transaction.get("k0000001"), len(transaction.find(["a key"]))

    relay.loses = [(b"request_key IN", loses), (b"WHERE id =", loses)]
    assert far.read(work) == (None, 0)
    assert (relay.loses, begun) == ([], [None] * 3)


@pytest.mark.parametrize("where", ["postgresql"], indirect=True)
def test_a_connection_that_died_in_the_pool_is_replaced(where):
    """A firewall or an administrator ends idle connections: the next call makes another."""
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'to be killed'"
    ledger = Ledger(f"{where}&application_name=to be killed")
    assert spoil(where, kill) == 1
    assert ledger.count() == 0
    assert spoil(where, kill) == 1
    asyncio.run(asked(ledger, [insert(1)]))
    assert ledger.count() == 1
    ledger.close()


def test_a_server_that_is_stopped_in_the_middle_loses_and_doubles_nothing(tmp_path):
    """Stopped at once and started again, twice, while three kernels write: all is there once."""
    postgres = server(tmp_path)
    with schema(postgres.get_uri()) as address:
        kernels = [Ledger(address) for _ in range(3)]
        passed = threading.Semaphore(0)

        async def work(kernel, first):
            for number in range(first, first + 40):
                await kernel.writer.ask(insert(number))
                passed.release()

        threads = [
            threading.Thread(target=lambda k=kernel, n=n: asyncio.run(work(k, n * 100)))
            for n, kernel in enumerate(kernels)
        ]
        for thread in threads:
            thread.start()
        for _ in range(2):
            for _ in range(20):
                assert passed.acquire(timeout=90)
            restart(postgres)
        for thread in threads:
            thread.join(90)
        assert look(address, "SELECT count(*), count(DISTINCT run_id) FROM events") == [(120, 120)]
        assert len(kernels[0].runs()) == 120
        assert kernels[0].mend_sums() == 0
        for kernel in kernels:
            kernel.close()


@pytest.mark.parametrize("where", ["postgresql"], indirect=True)
def test_texts_are_in_the_order_of_their_bytes_as_in_a_file(ledger, where):
    """Whatever language a server sorts in: times and names of sums are compared."""
    plain = look(
        where,
        "SELECT count(*) FROM information_schema.columns WHERE table_schema = current_schema() "
        "AND data_type = 'character varying' AND collation_name IS DISTINCT FROM 'C' "
        "AND table_name <> 'writings'",
    )
    assert plain == [(0,)]


@pytest.mark.parametrize("where", ["postgresql"], indirect=True)
def test_a_prompt_may_hold_what_postgresql_cannot(ledger):
    """It takes no NUL, not even an escaped one: the run's figures are there all the same."""
    with ledger.writing() as transaction:
        transaction.insert(make_record(id="k0000001", prompt="a \0 fox \\u0000", reserved_micros=7))
    assert ledger.get("k0000001").request.prompt == "a \0 fox \\u0000"
    assert (ledger.unreadable(), ledger.tallies()[0][0].reserved) == (0, 7)


WORDS = "Marigold canary"


def told_by(where):
    """The triggers of a ledger, and the functions that they call."""
    schema = "current_schema()::regnamespace"
    return look(
        where,
        f"SELECT proname, pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = {schema} UNION ALL "
        "SELECT tgname, pg_get_triggerdef(pg_trigger.oid) FROM pg_trigger "
        "JOIN pg_class ON pg_class.oid = tgrelid "
        f"WHERE relnamespace = {schema} AND NOT tgisinternal ORDER BY 1, 2",
    )


#: What a ledger had in the place of our step 9 before that was one: nothing, or triggers of other words.
OLDER = """
    CREATE FUNCTION sweep_said() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_notify('kling_nb ' || hashtext(current_schema()), 'detached'); RETURN NULL; END $$;
    CREATE TRIGGER sweep_said AFTER UPDATE OF state ON sweeps FOR EACH ROW EXECUTE FUNCTION sweep_said();
    CREATE FUNCTION called_back() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
    CREATE TRIGGER called_back AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION called_back()"""


@pytest.mark.parametrize("older", ["", OLDER])
@pytest.mark.parametrize("where", ["postgresql"], indirect=True)
def test_a_ledger_of_an_earlier_step_is_told_of_the_same_as_a_new_one(postgresql, where, monkeypatch, older):
    """Also where that step was written otherwise: every trigger and function is the same in the end."""
    with schema(postgresql) as new:
        Ledger(new).close()
        wanted = [(name, text.replace(new[-33:], "")) for name, text in told_by(new)]
    with monkeypatch.context() as patch:
        patch.setattr(connection, "STEPS", connection.STEPS[:8])
        Ledger(where).close()
    if older:
        spoil(where, older)
    assert "detached_added" not in dict(told_by(where))
    Ledger(where).close()
    assert [(name, text.replace(where[-33:], "")) for name, text in told_by(where)] == wanted


def all_rows(where):
    tables = look(
        where, "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
    )
    return str([look(where, f"SELECT * FROM {table}") for (table,) in tables])


@pytest.mark.parametrize("where", ["postgresql"], indirect=True)
def test_private_words_are_not_on_a_shared_ledger(ledger, where, monkeypatch):
    """Neither prompt, tags, metadata nor the provider's sentence; only this process has them."""
    private = {"private": True, "tags": {"scene": WORDS}, "metadata": {"note": WORDS}, "message": WORDS}
    with ledger.writing() as transaction:
        transaction.insert(make_record(id="k0000001", prompt=WORDS, **private))
        transaction.insert(make_record(id="k0000002", prompt="For everybody", take=1))
    ledger.change("k0000001", "moved", status=RunStatus.QUEUED, message=f"About {WORDS}", tags={"x": WORDS})
    assert WORDS not in all_rows(where)
    assert "For everybody" in all_rows(where)
    assert ledger.get("k0000001").request.prompt == WORDS
    # As in another process.
    monkeypatch.setattr("kling_nb.ledger.rows._recent", {})
    there = ledger.get("k0000001")
    assert is_redacted(there)
    assert restore_prompt(there, make_record(prompt=WORDS).request).request.prompt == WORDS
    stored = sweeps.Stored(
        name="s", grid=[{"private": True, "prompts": [WORDS]}], created_at=there.created_at
    )
    with pytest.raises(UsageError, match="private"), ledger.writing() as transaction:
        sweeps.put(transaction, stored)
    assert WORDS not in all_rows(where)


@pytest.mark.parametrize("where", ["postgresql"], indirect=True)
def test_a_private_run_is_sent_and_kept_as_any_other(where, tmp_path, monkeypatch):
    """The process that has the words sends them, also when what it read lately is forgotten."""
    monkeypatch.setattr("kling_nb.ledger.rows._MOST_RECENT", 0)
    stage = Stage(tmp_path, "runflow", where=where)
    try:
        run = stage.go(private=True, prompt=WORDS)
        assert run.status == "succeeded"
        assert WORDS not in all_rows(where)
        assert run.record.request.prompt == WORDS
    finally:
        stage.close()


@pytest.mark.parametrize("where", ["postgresql"], indirect=True)
def test_team_sums_are_of_everybody_and_user_sums_of_one(ledger):
    """One ledger, two users: each has its own cap, and all together have the team's."""
    for number, user in enumerate(("ada", "bob", "bob")):
        with ledger.writing() as transaction:
            transaction.insert(make_record(id=f"k{number:07d}", take=number, user=user, reserved_micros=10))
    wallet = Budget(
        session_id="s",
        cap_micros=100,
        declared=True,
        yes=False,
        headless=False,
        play=False,
        project="p",
        user="bob",
        user_total_micros=25,
        team_total_micros=32,
    )
    with ledger.reading() as transaction:
        held = {cap.level: cap.reserved_micros for cap in wallet.caps(transaction)}
        assert held == {"session": 0, "user_total": 20, "team_total": 30}
        with pytest.raises(BudgetError, match="total budget of the team"):
            wallet.reserve(transaction, [3])
        with pytest.raises(BudgetError, match="of user bob"):
            replace(wallet, team_total_micros=None).reserve(transaction, [6])


def test_no_message_has_the_password_of_the_ledger():
    """Neither an address, an error nor its traceback: a server that refuses, one that is not there."""
    for where in (
        "postgresql://ada:hunter2@127.0.0.1:1/db",
        "postgresql://ada:hunter2@127.0.0.1:1/db?password=hunter2",
    ):
        with pytest.raises(LedgerError) as caught:
            Ledger(where)
        assert "hunter2" not in "".join(traceback.format_exception(caught.value)) + caught.value.cure
        assert "127.0.0.1" in str(caught.value)


@pytest.mark.parametrize("password", ["hun@ter2", "hunter2@127.0.0.1/hunter2", "h@ss:5/hunter2"])
def test_a_password_that_ends_the_address_in_the_middle_is_shown_nowhere(password):
    """One that is written as it is, with an `@` or a slash, is refused in words before anybody is asked."""
    with pytest.raises(LedgerError, match="percent-encoded") as caught:
        Ledger(f"postgresql://ada:{password}@127.0.0.1:1/db")
    text = "".join(traceback.format_exception(caught.value)) + caught.value.cure
    assert "ter2" not in text
    assert "h@ss" not in text


def test_two_runs_of_one_request_stop_a_copy_in_words(tmp_path):
    """Both ledgers have one that is on its way: nothing is copied, and both runs are named."""
    here, there = Ledger(tmp_path / "here.db"), Ledger(tmp_path / "there.db")
    for ledger, run_id in ((here, "k0000001"), (there, "k0000002")):
        with ledger.writing() as transaction:
            transaction.insert(make_record(id=run_id))
    with pytest.raises(LedgerError, match="k0000001 here, k0000002 there"):
        copy_ledger(here, there)
    assert [run.id for run in there.runs()] == ["k0000002"]
    here.close()
    there.close()


def test_a_copy_that_was_broken_off_goes_on(postgresql, tmp_path, monkeypatch):
    """Others write between two pages of it; a run is there with its events, or not at all."""
    monkeypatch.setattr(copying, "_PAGE", 2)
    file = Ledger(tmp_path / "ledger.db")
    with file.writing() as transaction:
        for number in range(5):
            transaction.insert(make_record(id=f"k{number:07d}", take=number, reserved_micros=7))
    with schema(postgresql) as address:
        there = Ledger(address)
        with there.writing() as transaction:
            transaction.insert(make_record(id="k9999999", take=4))
        with pytest.raises(LedgerError, match="k0000004 here, k9999999 there") as caught:
            copy_ledger(file, there)
        assert "copying again goes on where it was left" in caught.value.cure
        assert {run.id for run in there.runs()} == {*(f"k000000{n}" for n in range(4)), "k9999999"}
        there.change("k9999999", "ended", status=RunStatus.FAILED)
        monkeypatch.setenv("KLING_NB_LEDGER", address)
        done = CliRunner().invoke(app, ["ledger", "copy", str(tmp_path / "ledger.db")])
        assert "5 runs, 5 events, 0 votes, 0 sweeps; $0.00 settled, $0.00 reserved" in done.output
        assert len(there.runs()) == 6
        assert there.mend_sums() == 0
        there.close()
    file.close()


def test_a_file_is_copied_whole_and_only_once(postgresql, tmp_path):
    """Counts and sums agree, a second copy adds nothing, and private words stay behind."""
    file = Ledger(tmp_path / "ledger.db")
    noon = make_record().created_at
    with file.writing() as transaction:
        for number in range(3):
            transaction.insert(make_record(id=f"k{number:07d}", take=number, reserved_micros=7))
        transaction.insert(make_record(id="k0000009", prompt=WORDS, private=True, message=WORDS, take=9))
        stored = sweeps.Stored(name="open", grid=[{"private": False}], created_at=noon)
        sweeps.put(transaction, stored)
        sweeps.put(transaction, sweeps.Stored(name="hidden", grid=[{"private": True}], created_at=noon))
        sweeps.put_members(transaction, stored, [(0, "k1:x", None)])
    file.change("k0000000", "settled", status=RunStatus.SUCCEEDED, settled_micros=5, reserved_micros=0)
    with schema(postgresql) as address:
        for _ in range(2):
            done = CliRunner().invoke(app, ["ledger", "copy", str(tmp_path / "ledger.db"), address])
            assert done.exit_code == 0, done.output
            assert "4 runs, 5 events, 0 votes, 1 sweeps" in done.output
        there = Ledger(address)
        assert [run.id for run in there.runs()] == [run.id for run in file.runs()]
        assert [there.get(f"k{n:07d}") for n in range(3)] == [file.get(f"k{n:07d}") for n in range(3)]
        sums = [sorted((t.runs, t.settled, t.reserved) for t in one.tallies()[0]) for one in (there, file)]
        assert sums[0] == sums[1]
        assert there.mend_sums() == 0
        assert WORDS not in all_rows(address)
        # What went on there is no copy any more, and nothing is overwritten.
        there.change("k0000001", "settled", status=RunStatus.FAILED, settled_micros=0, reserved_micros=0)
        with pytest.raises(LedgerError, match="went on"):
            copy_ledger(file, there)
        assert claim(file, "k0000002", "a kernel", 30)
        with pytest.raises(LedgerError, match="driven by a kernel"):
            copy_ledger(file, there)
        there.close()
    file.close()
