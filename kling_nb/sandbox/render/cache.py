"""The cutting room: renders clips off the event loop, once for equal plans, and keeps a bounded number.

Invariants:
    * One worker thread, so that a notebook with many runs keeps its processor.
    * Equal plans share one future and one file; a failed render is forgotten, so that it can be tried again.
    * At most `limit` files are kept; the oldest unused goes first, and one that is asked for again after
      that is simply rendered again (rendering is a pure function of the plan).
    * The folder belongs to this process: it is removed by `close`, or at exit if nobody called that, and
      never by a forked child.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kling_nb.sandbox.render.clip import ClipPlan, render


class Clips:
    """A cache of rendered files in a temporary folder of its own."""

    def __init__(self, limit: int = 64) -> None:
        """Make the folder.

        Args:
            limit: Most files kept, at least 1.
        """
        self.limit = limit
        self.rendered = 0
        """How many files were really made."""
        self.folder = Path(tempfile.mkdtemp(prefix="kling-nb-sandbox-"))
        self._owner = os.getpid()
        self._closed = threading.Event()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kling-nb-sandbox")
        self._files: OrderedDict[str, asyncio.Future[Path]] = OrderedDict()
        atexit.register(self.close)

    def get(self, plan: ClipPlan) -> asyncio.Future[Path]:
        """The file of a plan, now or soon.

        Args:
            plan: What to render.

        Returns:
            A future of the path, shared by all who ask. Shield it before waiting with a limit.
        """
        name = plan.digest
        future = self._files.get(name)
        if future is None or (future.done() and (future.cancelled() or future.exception() is not None)):
            loop = asyncio.get_running_loop()
            try:
                future = loop.run_in_executor(self._worker, self._make, plan)
            except RuntimeError as error:  # the interpreter is ending and takes no more work
                future = loop.create_future()
                future.set_exception(error)
            # Whoever asks looks at the failure; asyncio shall not report it a second time.
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._files[name] = future
        self._files.move_to_end(name)
        self._trim()
        return future

    async def settled(self) -> None:
        """Wait until nothing is being rendered."""
        waiting = [future for future in self._files.values() if not future.done()]
        if waiting:
            await asyncio.wait(waiting)

    def close(self) -> None:
        """Give up renders, begun or waiting, and remove the folder. Doing it twice is harmless."""
        atexit.unregister(self.close)
        if os.getpid() != self._owner:
            return
        self._closed.set()
        self._worker.shutdown(wait=True, cancel_futures=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make(self, plan: ClipPlan) -> Path:
        target = self.folder / f"{plan.digest}.mp4"
        render(plan, target, self._closed.is_set)
        self.rendered += 1
        return target

    def _trim(self) -> None:
        done = [name for name, future in self._files.items() if future.done()]
        for name in done[: max(0, len(self._files) - self.limit)]:
            future = self._files.pop(name)
            if not future.cancelled() and future.exception() is None:
                future.result().unlink(missing_ok=True)
