"""What drives one run in this process: the steps of its life, in order.

Invariants: the steps are chosen by the committed state alone, so that any process can go on at any of them.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from kling_nb.engine.clips.save import save
from kling_nb.engine.folder_state import SENDER_GONE, catch_up
from kling_nb.engine.job import Job
from kling_nb.engine.run import Run
from kling_nb.engine.submit import cancel_unsent, recover, submit
from kling_nb.engine.watch import watch
from kling_nb.records.run import RunStatus

__all__ = ["Driver"]

_BEFORE_END = (RunStatus.CREATED, RunStatus.SUBMITTING, RunStatus.QUEUED, RunStatus.RUNNING)


@dataclass
class Driver:
    """What drives one run in this process.

    Args:
        run: The handle that it reports to.
        task: Its task on the loop.
        place: Gives up its place in flight when it is closed, which may be done again.
        has_place: Whether it ever had one.
        job: What it does, once the provider and the key are found.
        ending: Whether it only gives its lease back; what is wanted then needs another driver.
    """

    run: Run
    task: asyncio.Task[None]
    place: contextlib.ExitStack
    has_place: bool = False
    job: Job | None = None
    ending: bool = False

    @property
    def submitting(self) -> bool:
        """Whether an answer may be on its way that is worth waiting for; a sandbox ends with its kernel."""
        if self.run.record.play or self.run.fetching:
            return False
        job = self.job
        return job is None or (job.at(RunStatus.CREATED, RunStatus.SUBMITTING) and not job.resting)

    async def carry(self, job: Job, take_place: Callable[[Run], Callable[[], None]]) -> None:
        """Carry a claimed run from the state it is in to its end.

        Args:
            job: The run.
            take_place: Takes a place in flight here and returns what gives it back.

        Raises:
            NoPlaceError: There is no place in flight; nothing was done.
            KlingError: It cannot be carried on for now.
        """
        snapshot, new = None, False
        if job.at(RunStatus.CREATED) and not job.run.sent_here:
            await catch_up(job)
        if job.at(RunStatus.CREATED) and not job.may_send:
            await cancel_unsent(job, SENDER_GONE)
        elif job.at(*_BEFORE_END) and not self.has_place and not (job.detach_wanted or job.run.cancel_wanted):
            self.place.callback(take_place(job.run))
            self.has_place = True
        if job.at(RunStatus.SUBMITTING) and job.record.play and job.may_send:
            # Its process ended before the answer came; play money cannot be paid twice.
            await job.change("unsent", status=RunStatus.CREATED)
        if job.at(RunStatus.CREATED, RunStatus.SUBMITTING):
            if job.at(RunStatus.SUBMITTING):
                # Another process was killed between the intent and the answer.
                await recover(job, "the process that sent it ended before the answer came")
            else:
                await submit(job)
            new = True
        if job.at(RunStatus.QUEUED, RunStatus.RUNNING):
            snapshot = await watch(job, new=new)
        job.leave_place()
        if job.at(RunStatus.SAVING):
            await save(job, snapshot)
