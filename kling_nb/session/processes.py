"""Runs across processes: what is pickled, and a worker that may end at any time and be asked again.

Invariants: of a run its id and its ledger are pickled, and no words, key or money; to unpickle asks nobody
and sends nothing; no pickle holds the words of a private run.
"""

import copyreg
import threading
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from kling_nb.engine.run import Run, Video
from kling_nb.errors import BlockedError, KlingError, UsageError
from kling_nb.records.privacy import redacted
from kling_nb.records.request import TextToVideo
from kling_nb.records.run import RunStatus
from kling_nb.session.plan import Ask
from kling_nb.session.session import Session

__all__ = ["reattach", "run_one", "until_accepted"]


def run_one(request: TextToVideo | str, *, timeout_s: float | None = None, **options: Any) -> Video:
    """Have one request made, once, and wait for its clip; costs money unless the clip is already here.

    For the tasks of a cluster, which may be run again: called any number of times, in any threads, processes
    and machines with the same ledger, a request is taken by its provider at most once. A run that another
    process carries is followed, one whose process is gone is carried on, and one that ended without a clip
    raises the same error each time. To have that one made again, `kling.submit` the request.

    Args:
        request: What to make, or the id of a run: ours or the provider's.
        timeout_s: Seconds to wait at most; the run goes on after it.
        **options: As for `submit`, but for `no_cache` and `retry`; of a run that is named by its id, none.

    Returns:
        The clip. It, and whatever is raised, can be pickled.

    Raises:
        KlingError: The call is refused, the run ended without a clip, or the time was over.

    Example:
        >>> run_one(TextToVideo(prompt="A red fox"), provider="sandbox").path   # doctest: +SKIP
    """
    from kling_nb.session.api import ask_for, current

    session = current()
    if isinstance(request, str):
        if options:
            raise UsageError(
                f"A run that is named by its id has its own options, and {', '.join(options)} was given.",
                cure="Nothing was sent. A prompt is given as a request: `kling.TextToVideo(prompt=...)`.",
            )
        return _carried_on(session, request).result(timeout_s)
    ask = ask_for(request, **options)
    if ask.no_cache or ask.retry:
        raise UsageError(
            "run_one makes a request once, so it takes neither no_cache nor retry.",
            cure="Nothing was sent. `kling.submit` takes them.",
        )
    try:
        [run] = session.open(replace(ask, once=True))
    except BlockedError as error:
        # An earlier call was told what became of it, and this one is told the same.
        ended = None
        with suppress(KlingError):  # of another ledger it knows no more
            ended = session.find(error.run_id).error if error.run_id else None
        raise ended or error from None
    return run.result(timeout_s)


def _carried_on(session: Session, name: str) -> Run:
    """Find a run and carry it on from here: sent if it was not yet, its clip fetched if it is not here."""
    run, engine = session.find(name), session.engine()
    record = run.record
    if record.status is RunStatus.SUCCEEDED and not engine.store(record.folder).verify(record):
        return engine.fetch(record.model_copy(update={"folder": str(session.media_folder())}))
    if record.status is not RunStatus.CREATED:
        return run
    # As its cell would: it is this caller's money from now on.
    ask = Ask(
        request=record.request,
        takes=(record.take,),
        provider=record.provider,
        model=record.model,
        tags=record.tags,
        metadata=record.metadata,
        callback_url=record.callback_url,
        private=record.private,
        once=True,
    )
    return session.open(ask)[0]


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


def _pickled_video(video: Video) -> tuple[Any, ...]:
    return partial(Video, path=video.path, facts=video.facts, record=redacted(video.record)), ()


# Here and not in the class: only a session knows how to find a run again.
copyreg.pickle(Run, _pickled)
copyreg.pickle(Video, _pickled_video)
