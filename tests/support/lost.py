"""A lost run."""

from kling_nb.records.run import RunStatus
from support.sessions import ask

PRICE = 336_000


def ids(house, wire):
    """The provider's ids of every run it made, oldest first."""
    return [run["id"] for run in house.stats()["runs"] if run["wire"] == wire]


def lost(house, session, wire="runcomfy", prompt="A red fox in snow"):
    """A run that the provider made and whose answer never came."""
    house.faults(submit_drop_after="next:1")
    run = house.run(session, ask(prompt, provider=wire))
    if wire == "runflow":
        # Runflow finds it again; here nobody could.
        record = run.record.model_copy(
            update={
                "status": RunStatus.LOST,
                "provider_run_id": None,
                "media": None,
                "settled_micros": None,
                "reported_micros": None,
                "reserved_micros": PRICE,
                "charged": "unknown",
            }
        )
        for path in house.media.glob(f"*{run.id}*"):
            path.unlink()
        with session.ledger().writing() as transaction:
            transaction.write(record, "test")
        run = session.find(run.id)
    assert run.status == "lost"
    assert run.record.reserved_micros == PRICE
    return run
