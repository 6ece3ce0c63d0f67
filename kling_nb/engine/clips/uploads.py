"""Clips on their way to the team's store, beside the runs: a run is done before its clip is there.

Invariants: what could not be taken there stays noted in the ledger, for the next who looks; an upload never
holds up a run, nor ends one.
"""

import asyncio
from collections.abc import Callable

from kling_nb.engine.limits import Clock
from kling_nb.engine.polling.schedule import back_off
from kling_nb.engine.run import Run
from kling_nb.errors import KlingError
from kling_nb.ledger.database import Ledger
from kling_nb.ledger.work.uploads import is_waiting, uploaded, waiting_uploads
from kling_nb.media.bringing import bring_from
from kling_nb.media.folder import Store
from kling_nb.media.team_store import TeamStore
from kling_nb.records.run import RunRecord, RunStatus

__all__ = ["Uploads"]

#: Clips on their way at once, and tries of each before it is left for later.
_MOST, _TRIES = 4, 3


class Uploads:
    """Takes clips to the store; belongs to the background loop.

    Args:
        ledger: Notes what is still to be taken.
        store: Gives the media folder of a run.
        clock: Time and chance.
    """

    def __init__(self, ledger: Ledger, store: Callable[[str], Store], clock: Clock) -> None:
        self.ledger, self._store, self._clock = ledger, store, clock
        self._gate = asyncio.Semaphore(_MOST)
        self._tasks: dict[str, asyncio.Task[str]] = {}
        #: The store, if there is one.
        self.team: TeamStore | None = None

    @property
    def address(self) -> str:
        """Where the store is; empty for none."""
        return self.team.address if self.team else ""

    def begin(self, record: RunRecord) -> None:
        """Take the clip of a run there that has just got one."""
        if self.team is not None and record.status is RunStatus.SUCCEEDED:
            self._begin(record.id, self.team)

    async def rest(self) -> dict[str, str]:
        """Take everything there that the ledger notes; gives why each of the others is not there."""
        if (team := self.team) is None:
            return {}
        waiting = await asyncio.to_thread(self.waiting)
        whys = await asyncio.gather(*(self._begin(run_id, team) for run_id in waiting))
        return {run_id: why for run_id, why in zip(waiting, whys, strict=True) if why}

    def waiting(self) -> list[str]:
        """Name the runs whose clips are here and not there yet; others take those of other machines."""
        runs = self.ledger.read(
            lambda transaction: [*map(transaction.get, waiting_uploads(transaction, self.address))]
        )
        return [run.id for run in runs if run is not None and self._store(run.folder).path(run) is not None]

    async def bring(self, run: Run) -> bool:
        """Fetch the clip of a finished run from there, and tell its handle; False where it is not there."""
        if (team := self.team) is None:
            return False
        store, record = self._store(run.record.folder), run.record
        here = await asyncio.to_thread(bring_from, team, record, store)
        if here is None:
            return False
        known = await asyncio.to_thread(self.ledger.get, record.id)
        if known is not None and here.media is not None:
            facts = {"media": here.media.model_dump(), "folder": here.folder}
            await asyncio.to_thread(lambda: self.ledger.change(record.id, "fetched again", **facts))
        run.fetching, run.note = False, ""
        run.publish(here)
        return True

    async def close(self, grace_s: float) -> None:
        """Give what is on its way some time, then leave it for later."""
        if tasks := list(self._tasks.values()):
            _, left = await asyncio.wait(tasks, timeout=grace_s)
            for task in left:
                task.cancel()

    def _begin(self, run_id: str, team: TeamStore) -> "asyncio.Task[str]":
        if (task := self._tasks.get(run_id)) is None:
            task = self._tasks[run_id] = asyncio.ensure_future(self._take(run_id, team))
            task.add_done_callback(lambda _: self._tasks.pop(run_id, None))
        return task

    async def _take(self, run_id: str, team: TeamStore) -> str:
        """Take a clip there; gives why it is not there, or nothing."""
        why = ""
        for tries in range(1, _TRIES + 1):
            async with self._gate:
                why = await asyncio.to_thread(self._once, run_id, team)
            if not why:
                break
            if tries < _TRIES:
                await self._clock.sleep(back_off(tries, random=self._clock.random, first_s=0.5))
        return why

    def _once(self, run_id: str, team: TeamStore) -> str:
        try:
            record = self.ledger.read(
                lambda transaction: transaction.get(run_id) if is_waiting(transaction, run_id) else None
            )
            if record is None:
                return ""
            team.keep(record, self._store(record.folder))
            with self.ledger.writing() as transaction:
                uploaded(transaction, run_id)
        except KlingError as error:
            return error.what.rstrip(".")
        return ""
