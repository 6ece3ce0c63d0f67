"""Where a notebook's calls come from: the kernel, the notebook's folder, and whether anybody watches.

Invariants: cheap to import (nothing heavy); the answer is taken on the notebook's own thread at the start of
each cell and only read elsewhere, because a background thread cannot ask the kernel.
"""

import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kling_nb.config.environment import Surroundings
    from kling_nb.engine.run import Run
    from kling_nb.records.provenance import Cell

__all__ = ["ShellSurroundings", "attach", "detach"]

_SHOWN = (("kling_nb.engine.run", "Run"), ("kling_nb.engine.runs", "Runs"), ("kling_nb.engine.run", "Video"))


class ShellSurroundings:
    """The surroundings of one IPython shell.

    Args:
        ip: The shell.
    """

    def __init__(self, ip: Any) -> None:
        self.ip = ip
        self.started_in = Path.cwd()
        self._started = _identity(self.started_in)
        #: What the folder was called before it was moved or renamed.
        self._old_names: set[Path] = set()
        self._seen: Surroundings | None = None

    @property
    def kernel(self) -> bool:
        """Whether there is a kernel, so that outputs can be updated."""
        return getattr(self.ip, "kernel", None) is not None

    def __call__(self) -> "Surroundings":
        """Give what was seen last."""
        if self._seen is None:
            self.look()
        seen = self._seen
        assert seen is not None  # noqa: S101 - look() has just set it
        return seen

    def overrides(self) -> dict[str, Any]:
        """Give the settings of `%config KlingMagics` as they are now."""
        magics = self.ip.magics_manager.registry.get("KlingMagics")
        return magics.overrides() if magics is not None else {}

    def look(self, *before: object) -> None:
        """Look again; to be called on the notebook's own thread.

        Args:
            *before: What IPython tells of a cell that is about to be run; nothing in the middle of one.
        """
        from kling_nb.config.environment import (
            Surroundings,
            front_end,
            is_headless,
            notebook_path,
            run_by_server,
        )

        allow_stdin: bool | None = None
        live = True
        if self.kernel:
            try:
                request = self.ip.kernel.get_parent("shell")
                content = request.get("content", {})
            except (AttributeError, LookupError, TypeError):
                request, content = {}, {}
            if content:
                allow_stdin = bool(content.get("allow_stdin", False))
                live = not run_by_server(request, os.environ)
            else:
                # Between cells (a widget's click) there is no request to read: the last answer holds.
                allow_stdin, live = (
                    not self._seen.headless if self._seen else True,
                    not self._seen or self._seen.live,
                )
        headless = is_headless(allow_stdin, sys.stdin is not None and sys.stdin.isatty())
        self._follow()
        notebook = notebook_path(os.environ, self.ip.user_ns, cwd=self.started_in, headless=headless)
        if notebook is not None and notebook.parent in self._old_names:
            # The server still says the old name, and a run that was on its way may have made that anew.
            notebook = self.started_in / notebook.name
        folder = notebook.parent if notebook is not None and notebook.parent.is_dir() else self.started_in
        front = "" if headless or not self.kernel else front_end(os.environ, self.ip.user_ns, sys.modules)
        self._seen = Surroundings(
            notebook=notebook,
            folder=folder,
            headless=headless,
            live=live,
            front=front,
            cell=self._cell(begun=not before),
        )

    def _follow(self) -> None:
        """Find the folder again after it was moved or renamed: the process is still in it."""
        if _identity(self.started_in) == self._started:
            return
        with suppress(OSError):
            here = Path.cwd()
            if _identity(here) == self._started:
                self._old_names.add(self.started_in)
                self._old_names.discard(here)
                self.started_in = here

    def leave(self) -> None:
        """Forget the cell at its end: a click that comes later is none of its doing."""
        if self._seen is not None:
            self._seen = replace(self._seen, cell=None)

    def _cell(self, *, begun: bool) -> "Cell | None":
        """Read which cell is being run off the request that runs it."""
        from kling_nb.records.provenance import Cell

        if not self.kernel:
            return None
        try:
            request = self.ip.kernel.get_parent("shell")
            content, metadata = request["content"], request.get("metadata", {})
            # Versions of IPython raise their own count before the cell or after it; its inputs are kept once.
            count = len(self.ip.history_manager.input_hist_parsed) - begun
            kept = content.get("store_history", True) and not content.get("silent", False)
            return Cell.of(content["code"], cell_id=metadata.get("cellId"), count=count if kept else None)
        except (AttributeError, LookupError, TypeError, ValueError):
            return None


def _identity(folder: Path) -> tuple[int, int] | None:
    """Tell a folder from one that only has its name."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def attach(ip: Any) -> ShellSurroundings:
    """Connect the session of this process with a shell, once.

    Args:
        ip: The shell.

    Returns:
        Its surroundings.
    """
    from kling_nb.session import api

    present = api.surroundings_of_process()
    if isinstance(present, ShellSurroundings) and present.ip is ip:
        return present
    here = ShellSurroundings(ip)
    api.set_surroundings(here)
    here.look()
    ip.events.register("pre_run_cell", here.look)
    ip.events.register("post_run_cell", _end_cell)
    for module, name in _SHOWN:
        ip.display_formatter.ipython_display_formatter.for_type_by_name(module, name, _show)
    return here


def detach(ip: Any) -> None:
    """Undo `attach`; runs on their way go on."""
    from kling_nb.session import api

    here = api.surroundings_of_process()
    if not isinstance(here, ShellSurroundings):
        return
    api.set_surroundings(None)
    for event, hook in (("pre_run_cell", here.look), ("post_run_cell", _end_cell)):
        if hook in ip.events.callbacks[event]:
            ip.events.unregister(event, hook)
    for module, name in _SHOWN:
        formatter = ip.display_formatter.ipython_display_formatter
        formatter.deferred_printers.pop((module, name), None)
        loaded = getattr(sys.modules.get(module), name, None)
        if loaded is not None:
            formatter.type_printers.pop(loaded, None)


#: What a cell showed while it was on its way, where a page takes no updates: drawn at the end of the cell.
_later: "list[list[Run]]" = []


def _show(thing: Any) -> None:
    from kling_nb.engine.run import Run, Video
    from kling_nb.notebook.card import show_runs
    from kling_nb.session.api import current

    if isinstance(thing, Video):
        runs = [current().engine().handle(thing.record)]
    else:
        runs = [thing] if isinstance(thing, Run) else list(thing)
    if current().surroundings().live or all(run.done for run in runs):
        show_runs(runs)
    else:
        _later.append(runs)


def _end_cell(*_: object) -> None:
    """At the end of a headless cell, wait for what the API submitted in it and bring its cards up to date."""
    # Later updates would not be stored; and an error raised here would be swallowed, so none is.
    api = sys.modules.get("kling_nb.session.api")
    if api is None:
        return
    here = api.surroundings_of_process()
    if isinstance(here, ShellSurroundings):
        here.leave()
    runs: list[Run] = api.take_submitted()
    shown = _later[:]
    _later.clear()
    where = api.current().surroundings()
    if where.live and not where.headless:
        return
    with suppress(KeyboardInterrupt):
        for run in runs:
            run.wait()
        if where.live and "kling_nb.notebook.card" in sys.modules:
            sys.modules["kling_nb.notebook.card"].flush()
    for group in shown:
        sys.modules["kling_nb.notebook.card"].show_runs(group)
    if "kling_nb.notebook.sweep_card" in sys.modules:
        sys.modules["kling_nb.notebook.sweep_card"].draw_waiting()
