"""From an address to a clip in the folder: what is stopped on the way leaves nothing behind."""

import asyncio
import contextlib
import threading

from kling_nb.engine.clips.fetch import Fetcher
from kling_nb.media.folder import Store
from support.clips import make_record


def test_a_file_that_is_opened_for_somebody_who_was_stopped_is_closed_and_gone(tmp_path):
    """A driver that is canceled while a slow disk makes its part leaves neither the file nor its handle."""
    store, asked, go, made = Store(tmp_path), threading.Event(), threading.Event(), []
    real = store.open_part

    def slow(record):
        asked.set()
        assert go.wait(60)
        made.append(real(record))
        return made[0]

    store.open_part = slow
    fetcher = Fetcher(transport=None, access=None, record=make_record(), store=store)

    async def stopped():
        driver = asyncio.ensure_future(fetcher.first(["http://127.0.0.1:1/clip.mp4"]))
        assert await asyncio.to_thread(asked.wait, 60)
        driver.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await driver
        go.set()
        while not made or not made[0][1].closed or made[0][0].exists():  # noqa: ASYNC110 - a thread tells no event
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(stopped(), 60))
    assert list(tmp_path.iterdir()) == []
