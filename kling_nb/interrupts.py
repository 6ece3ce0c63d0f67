"""What must not come in the middle of a piece: Ctrl-C is delivered a moment later, a fork waits for its end.

Python raises an interrupt between any two steps of the main thread, also between taking the write lock and
whatever would give it back: one that came there left the lock held for every other kernel (measured).
pydantic swallows one that comes in a field's function, or makes an error of its own of it (measured).

SQLite keeps the locks of all connections of a process in that process's memory. A child made in the middle
of a transaction of another thread takes that lock for its own and waits for it for ever (measured), and one
made beside an idle connection may lose the file's journal to its parent (sqlite.org/howtocorrupt.html,
section 2.6). So a fork waits for open transactions, and every connection is closed before it.

Invariants: nobody is inside a gate while the process forks, or 30 seconds have passed; while a fork waits for
some, these may enter other gates; the child's gates are open.
"""

import _signal  # type: ignore[import-not-found]  # without `signal`'s look for an enum, 30 times as long
import asyncio
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["ForkGate", "WaitInterrupted", "interrupts_held", "stopped_in_words"]


_LIMIT_S = 30
_gates: "weakref.WeakSet[ForkGate]" = weakref.WeakSet()
# One for all gates: were one shut while others are waited for, who is inside of these could not enter it.
_changed = threading.Condition()
_forking = False
#: How many gates this thread is inside of, and what holds its interrupts while it forks.
_here = threading.local()


class WaitInterrupted(KeyboardInterrupt):
    """Ctrl-C while a run was waited for: IPython shows one line, a program sees a `KeyboardInterrupt`."""

    def _render_traceback_(self) -> list[str]:
        return [f"Interrupted. {self}"]


@contextmanager
def stopped_in_words(words: str) -> Iterator[None]:
    """Have IPython show one line where the stop button ends the waiting in the block.

    Args:
        words: What goes on, and how to follow it.

    Raises:
        WaitInterrupted: In place of a bare interrupt.

    Example:
        >>> try:
        ...     with stopped_in_words("The run goes on."):
        ...         raise KeyboardInterrupt
        ... except WaitInterrupted as stopped:
        ...     print(stopped)
        The run goes on.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise WaitInterrupted(words) from None
    except asyncio.CancelledError as stop:
        # A kernel cancels a cell that awaits. For asyncio it must stay what it is.
        stop._render_traceback_ = WaitInterrupted(words)._render_traceback_  # type: ignore[attr-defined]
        raise


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold back an interrupt until the block is left; only the main thread ever gets one.

    Example:
        >>> with interrupts_held():
        ...     print("whole")
        whole
    """
    main = threading.current_thread() is threading.main_thread()
    handler = _signal.getsignal(signal.SIGINT) if main else None
    if handler is None:
        yield
        return
    came: list[FrameType | None] = []
    # From the moment it is set every interrupt goes there, and so there is none between here and the end.
    _signal.signal(signal.SIGINT, lambda _number, frame: came.append(frame))
    try:
        yield
    finally:
        _signal.signal(signal.SIGINT, handler)
        if came and callable(handler):
            handler(signal.SIGINT, came[-1])
        elif came and handler == signal.SIG_DFL:
            signal.raise_signal(signal.SIGINT)


class ForkGate:
    """A gate that any number of threads may be inside of, but not while the process forks.

    Args:
        close: Closes what must not be carried over; it is called when nobody is inside.
        renewed: Called in a forked child, where the other threads do not exist.
        yields: Whether a thread that is inside no gate waits outside while a fork waits, as many that come
            and go would delay it. False where it may hold a lock that a thread inside a gate needs.

    Example:
        >>> with ForkGate(close=lambda: None):
        ...     print("inside")
        inside
    """

    def __init__(
        self, close: Callable[[], None], renewed: Callable[[], None] = lambda: None, *, yields: bool = True
    ) -> None:
        self.close, self.renewed, self._yields = close, renewed, yields
        self.inside = 0
        with _changed:
            _gates.add(self)

    def __enter__(self) -> Self:
        depth = getattr(_here, "depth", 0)
        with _changed:
            if self._yields and not depth:
                _changed.wait_for(lambda: not _forking)
            self.inside += 1
        _here.depth = depth + 1
        return self

    def __exit__(self, *_: object) -> None:
        _here.depth = getattr(_here, "depth", 1) - 1
        with _changed:
            self.inside -= 1
            _changed.notify_all()

    def emptied(self, limit_s: float) -> bool:
        """Wait until nobody is inside; False where somebody still is after `limit_s` seconds."""
        with _changed:
            return _changed.wait_for(lambda: self.inside == 0, limit_s)


def _before() -> None:
    """Wait until nobody is inside any gate, close what is open and keep others out."""
    # Python forks all the same when a hook raises: in the middle of what is waited for here, or with the lock
    # of all gates held for ever.
    _here.held = interrupts_held()
    _here.held.__enter__()
    global _forking  # noqa: PLW0603 - one for all gates, as the condition
    _changed.acquire()
    _forking = True
    _changed.wait_for(lambda: not any(gate.inside for gate in _gates), _LIMIT_S)
    for gate in list(_gates):
        if not gate.inside:
            gate.close()


def _in_parent() -> None:
    global _forking  # noqa: PLW0603 - see above
    _forking = False
    _changed.notify_all()
    _changed.release()
    _here.held.__exit__(None, None, None)


def _in_child() -> None:
    # Its lock is waited for by threads that do not exist here.
    global _changed, _forking
    _changed, _forking = threading.Condition(), False
    for gate in list(_gates):
        gate.inside = 0
        gate.renewed()
    _here.held.__exit__(None, None, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
