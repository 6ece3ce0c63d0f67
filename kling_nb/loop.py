"""The background loop that carries every run: the only file that starts a thread.

Invariants: the loop never runs on the notebook's own thread, so a blocking cell cannot freeze a run;
work is handed over in an empty context, so that its output belongs to no cell (nbclient would drop
it otherwise); tasks are made by the C task type, so that a user's `nest_asyncio.apply()` cannot break
them; a forked child starts without the parent's loop; what was handed over can still reach the disk while
the interpreter is ending.
"""

import asyncio
import contextlib
import contextvars
import os
import sys
import threading
import time
import weakref
from _asyncio import Task  # the C type itself: `nest_asyncio` swaps the name in `asyncio`
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["Loop", "lasting_executor", "run_sync"]

T = TypeVar("T")

#: Threads that are there before they are needed: at the end of the interpreter none can be added. Each keeps
#: the memory of what it once did, so that there are more only while these have been stuck for so long.
_FEW, _STUCK_S = 4, 0.25

_loops: "weakref.WeakSet[Loop]" = weakref.WeakSet()


class Loop:
    """An event loop on a daemon thread of its own, started on first use.

    Example:
        >>> async def answer():
        ...     return 42
        >>> Loop().start(answer()).result()
        42
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        _loops.add(self)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._loop = None

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                loop.set_task_factory(_c_task)
                # Blocking doors (ledger, disk) wait here; the default of a small machine would be six.
                loop.set_default_executor(executor := _DaemonExecutor(16))
                if isinstance(loop, asyncio.BaseEventLoop):
                    loop.run_in_executor = partial(executor.hand_over, loop)  # type: ignore[assignment]
                ready = threading.Event()

                def run() -> None:
                    asyncio.set_event_loop(loop)
                    loop.call_soon(ready.set)
                    loop.run_forever()

                threading.Thread(target=run, name="kling_nb", daemon=True).start()
                ready.wait()
                self._loop = loop
            return self._loop

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start work on the loop from any thread.

        Args:
            work: A coroutine.

        Returns:
            Its future; `result()` blocks the calling thread, not the loop.
        """
        return contextvars.Context().run(asyncio.run_coroutine_threadsafe, work, self._started())

    def call(self, act: Callable[..., object], *args: Any) -> None:
        """Have a plain function called on the loop, from any thread; its result is not waited for."""
        contextvars.Context().run(self._started().call_soon_threadsafe, act, *args)

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


def _forget_all() -> None:
    for loop in list(_loops):
        loop._forget()  # noqa: SLF001 - its own kind


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def lasting_executor() -> ThreadPoolExecutor:
    """Make threads that work to the very end of the interpreter, for another loop."""
    return _DaemonExecutor(4)


class _DaemonExecutor(ThreadPoolExecutor):
    """Threads that work to the very end of the interpreter."""

    # The library's own pool takes no work once the main thread has ended, which is before `atexit`: the id of
    # a run that was just paid for would then not reach the ledger. It is one only in name, because asyncio
    # takes no other kind as its default.

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(most)
        self._most, self._clock = most, clock
        self._waiting: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._working: list[threading.Thread] = []
        self._growing = threading.Lock()
        #: How much is waited for or being done, and since when each thread is at what it does.
        self._wanted = 0
        self._begun: dict[int, float] = {}
        self._looking: asyncio.TimerHandle | None = None
        #: What is done, until its loop has told those who wait: many answers wake it once.
        self._done: list[Callable[[], None]] = []
        # From Python 3.12 on no thread can be started at the end, so there must be one before.
        self._grow()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have a function called by one of the threads."""
        future: Future[T] = Future()

        def work() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    result = fn(*args, **kwargs)
                except BaseException as error:  # noqa: BLE001 - whatever it is belongs to who waits for it
                    future.set_exception(error)
                else:
                    future.set_result(result)

        self._put(work)
        return future

    def hand_over(
        self, loop: asyncio.AbstractEventLoop, _executor: None, fn: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        """Do what `run_in_executor` does, with one future in the place of two that are chained.

        Args:
            loop: The loop that asks, on its own thread.
            _executor: This one: no other is ever asked for.
            fn: What is called by one of the threads.
            *args: Its arguments.
        """
        future: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                answer = partial(_answer, future, future.set_result, fn(*args))
            except BaseException as error:  # noqa: BLE001 - as above
                answer = partial(_answer, future, future.set_exception, error)
            with self._growing:
                self._done.append(answer)
                alone = len(self._done) == 1
            if alone:
                with contextlib.suppress(RuntimeError):  # a loop that is closed waits for nothing
                    loop.call_soon_threadsafe(self._tell)

        self._put(work)
        self._look_later(loop)
        return future

    def _tell(self) -> None:
        with self._growing:
            done, self._done = self._done, []
        for answer in done:
            answer()

    def _look_later(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look whether what waits is stuck, once it has waited a while; on the loop."""
        if self._looking is None and len(self._working) < min(self._most, self._wanted):
            self._looking = loop.call_later(_STUCK_S, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._looking = None
        with self._growing:
            self._grow_if_stuck()
        self._look_later(loop)

    def _put(self, work: Callable[[], None]) -> None:
        self._waiting.put(work)
        with self._growing:
            self._wanted += 1
            self._grow_if_stuck()

    def _grow_if_stuck(self) -> None:
        number, before = len(self._working), self._clock() - _STUCK_S
        stuck = sum(begun <= before for begun in self._begun.values())
        if number - stuck < _FEW and number < min(self._most, max(self._wanted, _FEW)):
            with contextlib.suppress(RuntimeError):
                self._grow()

    def _grow(self) -> None:
        thread = threading.Thread(target=self._work, name="kling_nb hand", daemon=True)
        thread.start()
        self._working.append(thread)

    def _work(self) -> None:
        me = threading.get_ident()
        while True:
            act = self._waiting.get()
            with self._growing:
                self._begun[me] = self._clock()
            act()
            with self._growing:
                del self._begun[me]
                self._wanted -= 1


def _answer(future: "asyncio.Future[Any]", tell: Callable[[Any], None], what: object) -> None:
    if not future.done():
        try:
            tell(what)
        except TypeError as error:
            # Not every Python's future takes a StopIteration; what was done beside it is told too.
            future.set_exception(error)


def _c_task(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> Any:
    return Task(work, loop=loop, **options)


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Run your own coroutine to its end, also inside a cell whose loop is already running.

    This is the one place that applies `nest_asyncio` (`nest_asyncio2` from Python 3.14 on, where the
    first one breaks every asynchronous HTTP call of the process). Nothing else in the package needs it. A
    loop that it cannot patch (uvloop's) is blocked meanwhile, and the coroutine runs on a loop of its own.

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
    if not isinstance(running, asyncio.BaseEventLoop):
        return _on_another_thread(work)
    if sys.version_info >= (3, 14):
        import nest_asyncio2 as nest
    else:
        import nest_asyncio as nest
    nest.apply(running)
    return running.run_until_complete(work)


def _on_another_thread(work: Coroutine[Any, Any, T]) -> T:
    done: Future[T] = Future()

    def run() -> None:
        try:
            # Not `asyncio.run`, which a user's own `nest_asyncio.apply()` swaps, even where it fails then.
            with asyncio.Runner() as runner:
                done.set_result(runner.run(work))
        except BaseException as error:  # noqa: BLE001 - whatever it is belongs to who waits for it
            done.set_exception(error)

    threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True).start()
    return done.result()
