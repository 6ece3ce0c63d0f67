"""Time and chance, which tests can own, and how long each step of a run may take."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random

__all__ = ["Clock", "Limits"]


@dataclass(frozen=True)
class Clock:
    """Time, so that tests can own it.

    Args:
        monotonic: Seconds that are never set; they may stand still while the machine sleeps.
        wall: Seconds of the day's clock, which goes on meanwhile but may be set.
        sleep: Waits.
        random: Chance.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Random = field(default_factory=Random)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long each step may take.

    Args:
        watch_s: Seconds after acceptance until we stop watching; the run itself goes on.
        submit_s: Seconds to go on trying while nothing could be sent.
        unsent_tries: Tries while the provider cannot be reached at all.
        ledger_tries: Tries of one commit, by default in half a minute: others may be writing, or a disk be
            full for a moment.
        save_tries: Downloads of one clip.
        look_again_s: Seconds between the two reads that prove that a lost submit made no run.
        denied_s: Seconds for which a provider must go on denying a run, or naming no clip of one that is
            done, until we believe it; at most 4 for a server on this machine.
        unknown_s: Seconds in a state that no contract explains, after which a run holds up no others.
        lease_s: Seconds until another process may take a run over.
    """

    watch_s: float = 2 * 3600
    submit_s: float = 1800
    unsent_tries: int = 5
    ledger_tries: int = 8
    save_tries: int = 6
    look_again_s: float = 30
    denied_s: float = 180
    unknown_s: float = 600
    lease_s: float = 30
