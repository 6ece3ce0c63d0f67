"""Variants: what a provider may answer over a whole run, and how the run must end all the same.

A file holds `source`, `confidence` (H, M or L) and `note` as a golden file does, then `play` (what the
sandbox answers, see its switch of that name) and `expect`: `status`, `reason`, `charged`, `files` (clips in
the folder), `posts` (submits seen), `accepted` (runs made; 1 unless said), `cost` (millionths of a dollar
that are reported, null where they must not be), `says` (words of the run's message or error), `waits`
(seconds that must have been waited), and, where no clip came, `later`: the status after one more look, once
the provider answers as documented.
"""

import asyncio
import json
import time

import pytest

from kling_nb.engine.limits import Clock, Limits
from support.paths import TESTS
from support.stage import Stage

KEYS = {"source", "confidence", "note", "play", "expect"}
EXPECT_KEYS = {"status", "reason", "charged", "files", "posts", "accepted", "cost", "says", "later"}
EXPECT_KEYS |= {"waits", "waits_between"}
#: The real ones, but for the deadline: what waits is the clock below.
LIMITS = Limits(watch_s=4 * 3600, submit_s=4 * 3600, save_tries=6, lease_s=36_000)


class Skipped:
    """Time in which every wait is over at once; it notes how long each would have been."""

    def __init__(self):
        self.ahead, self.waits = 0.0, []

    def monotonic(self):
        return time.monotonic() + self.ahead

    async def sleep(self, seconds):
        await asyncio.sleep(0)
        self.ahead += seconds
        self.waits.append(seconds)


class Theatre(Stage):
    """A stage on which one variant after the other is played."""

    def __init__(self, folder, wire):
        self.skipped, self.number = Skipped(), 0
        clock = Clock(monotonic=self.skipped.monotonic, sleep=self.skipped.sleep)
        super().__init__(folder, wire, limits=LIMITS, clock=clock)

    def play(self, variant, folder):
        """Carry one run to its end under a variant."""
        self.folder = folder
        self.sandbox.provider.reset()
        self.skipped.waits.clear()
        self.faults(play=variant["play"])
        self.number += 1
        # A request of its own, which is drawn as the others are.
        return self.go(negative_prompt=str(self.number))

    def clips(self):
        """The files in the run's folder."""
        return list((self.folder / "kling_media").glob("*.mp4"))


def cases():
    """Every variant as a test case, checked for its form."""
    for wire in ("runflow", "runcomfy"):
        for path in sorted((TESTS / "wire" / wire / "variants").iterdir()):
            yield pytest.param(wire, load(path), id=f"{wire}-{path.stem}")


def load(path):
    variant = json.loads(path.read_text(encoding="utf-8"))
    assert path.suffix == ".json"
    assert variant.keys() == KEYS, path
    assert variant["confidence"] in {"H", "M", "L"}, path
    assert variant["source"], path
    assert variant["note"].endswith("."), path
    expect = variant["expect"]
    assert {"status", "charged", "files", "posts"} <= expect.keys() <= EXPECT_KEYS, path
    assert ("later" in expect) == (not expect["files"]), path
    return variant
