"""The background loop that carries every run: the only file that starts a thread.

Invariants: the loop never runs on the notebook's own thread, so a blocking cell cannot freeze a run;
work is handed over in an empty context, so that its output belongs to no cell (nbclient would drop
it otherwise); tasks are made by the C task type, so that a user's `nest_asyncio.apply()` cannot break
them; a forked child starts without the parent's loop.
"""

import asyncio
import contextvars
import os
import sys
import threading
from _asyncio import Task  # the C type itself: `nest_asyncio` swaps the name in `asyncio`
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["Loop", "run_sync"]

T = TypeVar("T")


class Loop:
    """An event loop on a daemon thread of its own, started on first use.

    Example:
        >>> async def answer():
        ...     return 42
        >>> Loop().hand(answer()).result()
        42
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._loop = None

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                loop.set_task_factory(_c_task)
                # Blocking doors (ledger, disk) wait here; the default of a small machine would be six.
                loop.set_default_executor(ThreadPoolExecutor(16, thread_name_prefix="kling_nb"))
                ready = threading.Event()

                def run() -> None:
                    asyncio.set_event_loop(loop)
                    loop.call_soon(ready.set)
                    loop.run_forever()

                threading.Thread(target=run, name="kling_nb", daemon=True).start()
                ready.wait()
                self._loop = loop
            return self._loop

    def hand(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start work on the loop from any thread.

        Args:
            work: A coroutine.

        Returns:
            Its future; `result()` blocks the calling thread, not the loop.
        """
        return contextvars.Context().run(asyncio.run_coroutine_threadsafe, work, self._started())

    @property
    def running(self) -> bool:
        """Whether it was ever needed."""
        return self._loop is not None

    @property
    def here(self) -> bool:
        """Whether the caller already runs on this loop, where blocking would be a deadlock."""
        try:
            return self._loop is not None and asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False


def _c_task(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> Any:
    return Task(work, loop=loop, **options)


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Run your own coroutine to its end, also inside a cell whose loop is already running.

    This is the one place that applies `nest_asyncio` (`nest_asyncio2` from Python 3.14 on, where the
    first one breaks every asynchronous HTTP call of the process). Nothing else in the package needs it.

    Args:
        work: A coroutine of yours.

    Returns:
        What it returns.

    Raises:
        BaseException: Whatever the coroutine raises.

    Example:
        >>> async def answer():
        ...     return 42
        >>> run_sync(answer())
        42
    """
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    if sys.version_info >= (3, 14):
        import nest_asyncio2 as nest
    else:
        import nest_asyncio as nest
    nest.apply(running)
    return running.run_until_complete(work)
