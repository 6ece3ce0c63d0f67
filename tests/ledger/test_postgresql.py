"""What only a server can do to a ledger: be restarted, lose an answer, cut off who sleeps while it writes."""

import asyncio
import threading

import pytest

from kling_nb.errors import LedgerError
from kling_nb.ledger.database import Ledger
from support.clips import make_record
from support.databases import Relay, look, restart, schema, server, spoil


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


def insert(number):
    return lambda transaction: transaction.insert(make_record(id=f"k{number:07d}", take=number))


async def asked(ledger, works):
    return await asyncio.gather(*(ledger.writer.ask(work) for work in works))


@pytest.mark.parametrize("loses", ["request", "answer"])
def test_a_commit_whose_answer_got_lost_is_looked_up_and_not_repeated_blindly(far, relay, loses):
    """Written or not, which nobody was told: every run is there once, and who asked is answered."""
    far.count()
    relay.loses = loses
    asyncio.run(asked(far, [insert(number) for number in range(5)]))
    assert relay.loses is None
    assert len(far.runs()) == 5
    assert [len(far.events(run.id)) for run in far.runs()] == [1] * 5
    assert far.mend_sums() == 0


@pytest.mark.parametrize("loses", ["request", "answer"])
def test_a_transaction_that_cannot_be_repeated_says_whether_it_was_written(far, relay, loses):
    """An error means that nothing is there; no error that all of it is."""

    def write():
        with far.writing() as transaction:
            insert(1)(transaction)

    relay.loses = loses
    if loses == "answer":
        write()
    else:
        with pytest.raises(LedgerError) as caught:
            write()
        assert "postgres" in str(caught.value)
    assert len(far.runs()) == (loses == "answer")
    asyncio.run(asked(far, [insert(2)]))
    assert far.get("k0000002") is not None


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


def test_a_server_that_is_stopped_in_the_middle_loses_and_doubles_nothing(tmp_path_factory):
    """Stopped at once and started again, twice, while three kernels write: all is there once."""
    postgres = server(tmp_path_factory.mktemp("own") / "postgresql")
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
    assert (ledger.unreadable(), ledger.tallies()[0].reserved) == (0, 7)
