"""Runs across processes: the handle that is pickled, and the worker that may end at any time.

Invariants: what is pickled is the run's id and its ledger, and no words, key or money; to unpickle asks
nobody and sends nothing.
"""

import copyreg
import threading
from functools import cache
from pathlib import Path
from typing import Any

from kling_nb.engine.run import Run
from kling_nb.errors import UsageError
from kling_nb.session.session import Session

__all__ = ["reattach", "until_accepted"]


def until_accepted(run: Run) -> None:
    """Wait until nothing of a run is lost when this process ends, as a worker of a pool does at any time.

    Args:
        run: Of this process. The sandbox of a play run ends with the process, so its end is waited for.
    """
    changed = threading.Event()
    run.on_change(lambda _run: changed.set())
    while not run.done and (run.provider_run_id is None or run.record.play):
        changed.wait(0.2)
        changed.clear()


def reattach(run_id: str, ledger: str) -> Run:
    """Give the run that was pickled.

    Args:
        run_id: Our id.
        ledger: Where it is; of the session at hand, or a file.

    Returns:
        Its handle, as after `kling.find`.

    Raises:
        UsageError: The ledger is not here, or does not know it.
    """
    from kling_nb.session.api import current

    session = current()
    if session.ledger().where != ledger:
        session = _session_at(ledger)
    return session.find(run_id)


@cache
def _session_at(ledger: str) -> Session:
    from kling_nb.session.api import current

    if not Path(ledger).is_file():
        raise UsageError(
            f"The run is in the ledger {ledger}, and this is another one.",
            cure="Nothing was sent. Open it first: `kling.connect(ledger=...)`.",
        )
    return Session(surroundings=current().surroundings, ledger=ledger)


def _pickled(run: Run) -> tuple[Any, ...]:
    # Where it is: a path, or an address without its password.
    return reattach, (run.id, run._engine.ledger.where)  # noqa: SLF001 - its own kind


# Here and not in the class: only a session knows how to find a run again.
copyreg.pickle(Run, _pickled)
