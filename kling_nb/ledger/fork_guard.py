"""What a fork of the process must not carry over: open connections to a ledger.

SQLite keeps the locks of all connections of a process in that process's memory. A child made in the middle
of a transaction of another thread takes that lock for its own and waits for it for ever (measured), and one
made beside an idle connection may lose the file's journal to its parent (sqlite.org/howtocorrupt.html,
section 2.6). So a fork waits for open transactions, and every connection is closed before it.

Invariants: nobody is inside a gate while the process forks, or 30 seconds have passed; the child's gates
are open.
"""

import os
import threading
import weakref
from collections.abc import Callable
from typing import Self

__all__ = ["ForkGate"]

_LIMIT_S = 30
_gates: "weakref.WeakSet[ForkGate]" = weakref.WeakSet()
_held: list["ForkGate"] = []


class ForkGate:
    """A gate that any number of threads may be inside of, but not while the process forks.

    Args:
        close: Closes what must not be carried over; it is called when nobody is inside.
        renewed: Called in a forked child, where the other threads do not exist.

    Example:
        >>> with ForkGate(close=lambda: None):
        ...     print("inside")
        inside
    """

    def __init__(self, close: Callable[[], None], renewed: Callable[[], None] = lambda: None) -> None:
        self._close, self._renewed = close, renewed
        self._changed = threading.Condition()
        self._inside = 0
        _gates.add(self)

    def __enter__(self) -> Self:
        with self._changed:
            self._inside += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def emptied(self, limit_s: float) -> bool:
        """Wait until nobody is inside; False where somebody still is after `limit_s` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._inside == 0, limit_s)

    def shut(self) -> None:
        """Wait until nobody is inside, close what is open and keep others out."""
        self._changed.acquire()
        if self.emptied(_LIMIT_S):
            self._close()

    def reopen(self) -> None:
        """Let others in again."""
        self._changed.release()

    def renew(self) -> None:
        """Begin anew in a child, where the other threads do not exist."""
        self._changed = threading.Condition()
        self._inside = 0
        self._renewed()


def _before() -> None:
    for gate in list(_gates):
        gate.shut()
        _held.append(gate)


def _in_parent() -> None:
    while _held:
        _held.pop().reopen()


def _in_child() -> None:
    while _held:
        _held.pop().renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
