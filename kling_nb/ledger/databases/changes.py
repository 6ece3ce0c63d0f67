"""Who waits for what others change in the ledger, and is called when the database tells of it.

Invariants: a look after a call sees what was changed; whoever begins to wait is called once as soon as
changes are told of, so that none falls in between; nobody relies on it, and looks by the clock too; nothing
is open while nobody waits.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress

__all__ = ["CALLED", "DETACHED", "WORK", "Changes"]

#: The event of a run whose provider has told that it ended; its own answer is still read.
CALLED = "called back"

#: The name under which it is told that a run that is left to workers moved, or what becomes of a sweep.
DETACHED = "detached"
#: The name under which it is told that there may be more to send for workers.
WORK = "work"

#: Seconds between two looks by the clock while changes are told of.
_LOOK_S = 5.0
#: Seconds until a server that went away is asked again.
_AGAIN_S = 1.0


class Changes:
    """Belongs to the loop of those who wait.

    Args:
        listen: Gives the name of whatever changes, and an empty one first; it ends with its connection. None
            where nobody tells.
    """

    def __init__(self, listen: Callable[[], AsyncGenerator[str, None]] | None) -> None:
        self._listen = listen
        self._waiting: defaultdict[str, list[Callable[[], None]]] = defaultdict(list)
        self._task: asyncio.Task[None] | None = None
        self._listening = False

    def look_s(self, seconds: float, most_s: float = _LOOK_S) -> float:
        """Give the pause until the next look by the clock.

        Args:
            seconds: What it is where nobody tells.
            most_s: What it may be where somebody does.
        """
        return max(seconds, min(_LOOK_S, most_s)) if self._listening else seconds

    @contextmanager
    def watched(self, name: str, call: Callable[[], None]) -> Iterator[None]:
        """Have something called whenever a run or an account changes; on the loop.

        Args:
            name: Our id of a run, what `place_key` gives for an account, or a name that stands for many.
            call: Looks again.
        """
        if self._listen is None:
            yield
            return
        self._waiting[name].append(call)
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._run(self._listen))
        elif self._listening:
            asyncio.get_running_loop().call_soon(call)
        try:
            yield
        finally:
            self._waiting[name].remove(call)
            if not self._waiting[name]:
                del self._waiting[name]
            if not self._waiting:
                self.close()

    def close(self) -> None:
        """Listen no more; any thread may ask."""
        task, self._task = self._task, None
        if task is not None:
            with suppress(RuntimeError):  # its loop is closed, and it with that
                task.get_loop().call_soon_threadsafe(task.cancel)

    async def _run(self, listen: Callable[[], AsyncGenerator[str, None]]) -> None:
        try:
            while True:
                async with aclosing(listen()) as names:
                    async for name in names:
                        self._listening = True
                        for waiting in [self._waiting.get(name, [])] if name else [*self._waiting.values()]:
                            for call in [*waiting]:
                                call()
                self._listening = False
                await asyncio.sleep(_AGAIN_S)
        finally:
            self._listening = False
