"""Loads what a first run will need while the notebook is idle, so that the first `%%kling` answers at once.

Invariants: modules are loaded and nothing else: no file, network or event loop of a session is touched; none
is begun while a cell runs, and the one on its way is at its end before a cell of ours goes on; no process is
forked in the middle of one.
"""

import contextlib
import os
import threading
from collections import deque
from importlib import import_module

__all__ = ["Warming", "wait"]

#: In the order of need; the last one only plays a provider where there is no key.
_MODULES = (
    "kling_nb.session.api",
    "kling_nb.notebook.cell",
    "kling_nb.notebook.surroundings",
    "anywidget",
    "kling_nb.network.client",
    "kling_nb.media.probe",
    "kling_nb.sandbox.serve",
)

#: Seconds without a cell before one is loaded: the answer to the last cell goes out first.
_PAUSE_S = 0.1

# A module that is half loaded would be so for ever in a forked child; the thread that forks may itself be
# loading one.
_loading = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_loading.acquire, after_in_parent=_loading.release, after_in_child=_loading.release
    )


def wait() -> None:
    """Wait until no module is being loaded here: the caller is about to load the same ones."""
    with _loading:
        pass


class Warming:
    """A thread that loads modules between cells, from the end of the next one on.

    Args:
        modules: Their names, in order.

    Example:
        >>> Warming(["json"]).left
        ['json']
    """

    def __init__(self, modules: tuple[str, ...] | list[str] = _MODULES) -> None:
        self._left = deque(modules)
        self._idle, self._busy = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def left(self) -> list[str]:
        """What is still to be loaded."""
        return list(self._left)

    def cell_begins(self, *_: object) -> None:
        """Begin nothing any more."""
        self._idle.clear()
        self._busy.set()

    def cell_ends(self, *_: object) -> None:
        """Go on, a moment later."""
        self._busy.clear()
        self._idle.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="kling_nb warming", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Load nothing more; what is being loaded comes to its end."""
        self._left.clear()
        self._idle.set()

    def _work(self) -> None:
        while self._left:
            self._idle.wait()
            if self._busy.wait(_PAUSE_S):
                continue
            # What is missing or broken is said by the cell that needs it.
            with _loading, contextlib.suppress(Exception):
                import_module(self._left.popleft())
