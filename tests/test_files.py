"""Bytes and names on disk, and how often the disk is asked to keep them."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from copy import copy

from kling_nb.files import _turns, sync_folder


def test_one_sync_of_a_folder_serves_all_who_asked_before_it_began(tmp_path, monkeypatch):
    """And none who asked later: a name that was given meanwhile needs one of its own."""
    began, goes_on, real = threading.Event(), threading.Event(), os.fsync
    names, synced = [], []

    def slow(handle):
        seen = list(names)
        began.set()
        assert goes_on.wait(30)
        real(handle)
        synced.append(seen)

    def name_and_sync(number):
        names.append(number)
        sync_folder(tmp_path)
        return any(number in seen for seen in synced)

    monkeypatch.setattr(os, "fsync", slow)
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(name_and_sync, 0)
        assert began.wait(30)
        others = [pool.submit(name_and_sync, number) for number in range(1, 9)]
        # The first drew two numbers, one of them for its sync.
        turn = _turns[os.getpid(), os.fspath(tmp_path)]
        while next(copy(turn.numbers)) < 10:
            goes_on.wait(0.01)
        goes_on.set()
        assert all(one.result(30) for one in [first, *others])
    assert len(synced) == 2
    assert name_and_sync(9)
