"""Ctrl-C inside a piece that it must not break in two: it is delivered a moment later, when that is done.

Python raises an interrupt between any two steps of the main thread, also between taking the write lock and
whatever would give it back: one that came there left the lock held for every other kernel (measured).
pydantic swallows one that comes in a field's function, or makes an error of its own of it (measured).
"""

import _signal  # type: ignore[import-not-found]  # without `signal`'s look for an enum, 30 times as long
import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["WaitInterrupted", "interrupts_held", "stopped_in_words"]


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
