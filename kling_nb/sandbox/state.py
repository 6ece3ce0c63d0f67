"""The state that both wires share: clock, switches, runs, clips, counters, signatures.

Invariants:
    * Simulated time comes only from the injected clock; real time is spent only in `pause` and while a file
      is being rendered.
    * Every counter that `stats` tells is kept here, and no key is.
    * `pause` ends early when the sandbox stops, so stopping never waits for a hang.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import secrets
import uuid
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import RedirectResponse

from kling_nb.sandbox.bodies import Lying, Stall, spoilt
from kling_nb.sandbox.faults.switches import BODIES, STATUSES, WIRES, Wire
from kling_nb.sandbox.replies import Cut, Hangup, RefusedError, asked_path, echo_text, page
from kling_nb.sandbox.runs import TERMINAL, Ending, Fate, Run, Runs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from kling_nb.sandbox.faults.board import Faults
    from kling_nb.sandbox.render.cache import Clips
    from kling_nb.sandbox.render.clip import ClipPlan

PATIENCE_S: Final = 1.0


"""Real seconds that a reader is kept waiting for a file whose simulated time is over."""


TAKES: Final = 4


"""In how many pictures equal requests are made, one after the other."""


class ProviderState:
    """What one sandbox knows."""

    def __init__(
        self, *, clock: Callable[[], float], wait_scale: float, faults: Faults, clips: Clips
    ) -> None:
        """Start with nothing.

        Args:
            clock: Seconds that never go back, such as `time.monotonic`.
            wait_scale: Multiplies every simulated wait; 0 = none.
            faults: The switches.
            clips: Where files come from.
        """
        self.clock = clock
        self.wait_scale = wait_scale
        self.faults = faults
        self.clips = clips
        self.runs = Runs(clock)
        self.stopping = asyncio.Event()
        self.hang_up_all: Callable[[], None] = lambda: None
        """Closes every connection but the asking one; the server puts it here."""
        self.keyed: set[str] = set()
        """Runs whose file asked for the key."""
        self._asked: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.keys: Counter[str] = Counter()
        """How often each key came, by the first 12 digits of its SHA-256."""
        self.replays: dict[tuple[str, str], tuple[str, Any]] = {}
        """Runflow's Idempotency-Keys: (account, key) to (hash of the body, stored answer)."""
        self._epoch = datetime.now(UTC) - timedelta(seconds=clock())
        self._secret = secrets.token_bytes(32)

    def restart(self, *, memory: bool) -> None:
        """Do as a provider that was started anew: counts and switches stay, for they are the test's.

        Args:
            memory: Whether it still knows its runs, which then have gone on meanwhile.
        """
        if not memory:
            self.runs.clear()
            self.replays.clear()
        self.hang_up_all()

    def reset(self) -> None:
        """Forget runs and counts and put every switch back; links signed before stay signed."""
        self.runs.clear()
        self.counts.clear()
        self.keys.clear()
        self.replays.clear()
        self.faults.reset()

    def count(self, wire: Wire, what: str) -> None:
        """Add one to a counter of a wire."""
        self.counts[f"{wire}.{what}"] += 1

    def note_key(self, request: Request) -> None:
        """Count a key by its hash, so that a test can tell that the right one came."""
        _, _, key = request.headers.get("authorization", "").partition(" ")
        self.keys[hashlib.sha256(key.encode("latin-1")).hexdigest()[:12]] += 1

    def date(self, at_s: float | None = None) -> datetime:
        """The simulated date at a reading of the clock, now if none is given."""
        return self._epoch + timedelta(seconds=self.clock() if at_s is None else at_s)

    def new_id(self, wire: Wire) -> str:
        """An id of the provider's own kind: UUIDv7 on Runflow (documented), UUIDv4 on RunComfy (a guess)."""
        bits = self.faults.dice.getrandbits(128)
        if wire == "runcomfy":
            return str(uuid.UUID(int=bits, version=4))
        stamp = int(self.date().timestamp() * 1000) & ((1 << 48) - 1)
        value = (stamp << 80) | (bits & ((1 << 80) - 1))
        value = value & ~(0xF << 76) | (7 << 76)
        return str(uuid.UUID(int=value & ~(0x3 << 62) | (0x2 << 62)))

    async def pause(self, seconds: float) -> None:
        """Spend real time, or less when the sandbox stops."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)

    async def gate(
        self, wire: Wire, moment: str, refuse: Callable[[int, Mapping[str, str]], Response]
    ) -> None:
        """Cause what the switches ask for before anything is done.

        Args:
            wire: Where.
            moment: A key of `switches.MOMENTS`.
            refuse: Makes the wire's own error answer of an HTTP status and more headers.

        Raises:
            RefusedError: With the answer to give instead of doing the work.
        """
        faults = self.faults
        if faults.fires(wire, f"{moment}_slow"):
            await self.pause(faults.number(wire, "slow_s"))
        if faults.fires(wire, f"{moment}_drop"):
            raise RefusedError(self.hangup(wire))
        if faults.fires(wire, f"{moment}_hang"):
            await self.pause(faults.number(wire, "hang_s"))
            raise RefusedError(self.hangup(wire))
        if faults.fires(wire, f"{moment}_429_wait"):
            raise RefusedError(refuse(429, {"Retry-After": f"{faults.number(wire, 'retry_after_s'):g}"}))
        if moment != "download" and faults.fires(wire, f"{moment}_200_error"):
            raise RefusedError(refuse(200, {}))
        if moment != "download" and faults.fires(wire, f"{moment}_redirect"):
            raise RefusedError(RedirectResponse(faults.word(wire, "redirect_to"), 307))
        if faults.fires(wire, f"{moment}_redirect_here"):
            raise RefusedError(RedirectResponse(asked_path(), 307))
        for status in STATUSES:
            if faults.fires(wire, f"{moment}_{status}"):
                raise RefusedError(page(status) if status in {502, 503} else refuse(status, {}))

    async def created(self, wire: Wire, refuse: Callable[[int, Mapping[str, str]], Response]) -> None:
        """Lose the answer to a run that was just created, if the switches ask for it.

        Args:
            wire: Where.
            refuse: As for `gate`.

        Raises:
            RefusedError: With the bad answer, or none.
        """
        if self.faults.fires(wire, "submit_drop_after"):
            raise RefusedError(self.hangup(wire))
        if self.faults.fires(wire, "submit_hang_after"):
            await self.pause(self.faults.number(wire, "hang_s"))
            raise RefusedError(self.hangup(wire))
        if self.faults.fires(wire, "submit_500_after"):
            raise RefusedError(refuse(500, {}))

    def spoil(self, wire: Wire, moment: str, reply: Response) -> Response:
        """Damage the answer to work that was done, if the switches ask for it: its body, or its way."""
        if moment != "download":
            bad = self._spoil_body(wire, moment, reply)
            if bad is not None:
                return bad
        fires = self.faults.fires
        if fires(wire, f"{moment}_truncated"):
            return Cut(reply)
        if fires(wire, f"{moment}_stall"):
            return Stall(reply, self.faults.number(wire, "hang_s"), self.pause)
        if fires(wire, f"{moment}_overstated"):
            return Lying(reply, lambda size: size + 7)
        if fires(wire, f"{moment}_understated"):
            return Lying(reply, lambda size: max(0, size - 7))
        return reply

    def _spoil_body(self, wire: Wire, moment: str, reply: Response) -> Response | None:
        if self.faults.fires(wire, f"{moment}_junk"):
            return page(reply.status_code)
        for way in BODIES:
            if self.faults.fires(wire, f"{moment}_{way}"):
                return spoilt(reply, way)
        if self.faults.fires(wire, f"{moment}_mislabeled"):
            reply.headers["content-type"] = "text/html; charset=utf-8"
        return None

    def words(self, wire: Wire, own: str) -> str:
        """What an answer says in words: our own, or what the switches put there."""
        said = self.faults.word(wire, "message")
        text = own if said == "own" else said
        return echo_text(text) if self.faults.word(wire, "echo") == "on" else text

    def strange(self, wire: Wire) -> str | None:
        """The words that the switches put into every result, if they do."""
        words = self.words(wire, "")
        return words or None

    def hangup(self, wire: Wire) -> Response:
        """A closed connection in the style that is set."""
        return Hangup(self.faults.word(wire, "drop_style"))

    def accept(
        self,
        wire: Wire,
        *,
        account: str,
        model: str,
        sent: dict[str, Any],
        plan: ClipPlan,
        price: Decimal,
        run_id: str = "",
        age_s: float = 0.0,
    ) -> Run:
        """Create a run, draw its fate and begin to render.

        Args:
            wire: Which provider.
            account: Whose run it is.
            model: The model's id on that wire.
            sent: The input as it came.
            plan: What to render.
            price: USD a second.
            run_id: The id it has already.
            age_s: How long ago it was asked for.

        Returns:
            The stored run.
        """
        # Only a few, so that equal requests are still rendered a few times at the most.
        take = self._asked[plan.digest] % TAKES
        self._asked[plan.digest] += 1
        plan = replace(plan, take=take)
        run = Run(
            id=run_id or self.new_id(wire),
            wire=wire,
            account=account,
            model=model,
            input=sent,
            plan=plan,
            price=price,
            fate=self._fate(wire),
            born_s=self.clock() - age_s,
        )
        if run.fate.ending == "succeeded":
            run.clip = self.clips.get(plan)
            run.clip.add_done_callback(partial(self._note, run))
        self.runs.add(run)
        self.count(wire, "accepted")
        return run

    def _note(self, run: Run, _clip: object) -> None:
        run.ready_s = self.clock()

    async def settle(self, run: Run) -> None:
        """Give the file of a run whose time is over a moment to be ready: it saves the reader a poll."""
        if run.clip is not None and not run.clip.done() and self.clock() >= run.due_s():
            # A recorded sequence plays the same on a machine of any speed.
            await asyncio.wait([run.clip], timeout=None if self.faults.plays(run.wire) else PATIENCE_S)
            await asyncio.sleep(0)  # the callback that notes the time runs one turn of the loop later

    def cost(self, run: Run) -> Decimal | None:
        """What the provider says the run cost: None while it does not say."""
        now, faults, wire = self.clock(), self.faults, run.wire
        state = run.state(now)
        if state not in TERMINAL or faults.word(wire, "cost_told") == "never":
            return None
        if now < run.ended_s() + faults.number(wire, "cost_lag_s"):
            return None
        return self.bill(run)

    def bill(self, run: Run) -> Decimal:
        """What the run cost, told or not; 0 while it is on its way."""
        faults, wire, state = self.faults, run.wire, run.state(self.clock())
        if state not in TERMINAL or (state != "succeeded" and faults.word(wire, "bill_failed") == "off"):
            return Decimal(0)
        seconds = max(Decimal(run.plan.seconds), Decimal(str(faults.number(wire, "bill_minimum_s"))))
        bill = run.price * seconds * Decimal(str(faults.number(wire, "cost_factor")))
        return bill.quantize(Decimal("0.000001"))

    def sign(self, path: str, expires: int) -> str:
        """The signature of a link.

        Args:
            path: Path of the link.
            expires: Simulated Unix time after which it is refused.

        Returns:
            Lower-case hex.
        """
        return hmac.new(self._secret, f"{path}\n{expires}".encode(), hashlib.sha256).hexdigest()

    def stats(self) -> dict[str, Any]:
        """Everything that was counted, and every run."""
        now = self.clock()
        kinds = (
            "submissions",
            "accepted",
            "polls",
            "lists",
            "cancels",
            "downloads",
            "token_leaks",
            "callbacks",
        )
        wires = {wire: {kind: self.counts[f"{wire}.{kind}"] for kind in kinds} for wire in WIRES}
        runs = [
            {
                "id": run.id,
                "wire": run.wire,
                "model": run.model,
                "account": run.account,
                "state": run.state(now),
                "client_ref": run.extra.get("client_ref"),
                "idempotency_key": run.extra.get("idempotency_key"),
                "input": run.input,
                "seconds": run.plan.seconds,
                "audio": run.plan.audio,
                "billed": f"{self.bill(run):f}",
                "metadata": run.extra.get("metadata"),
            }
            for run in self.runs
        ]
        totals = {kind: sum(wires[wire][kind] for wire in WIRES) for kind in kinds}
        return {
            **totals,
            "wires": wires,
            "runs": runs,
            "billed": f"{sum((self.bill(run) for run in self.runs), Decimal(0)):f}",
            "rendered": self.clips.rendered,
            "keys": dict(self.keys),
            "fired": dict(self.faults.fired),
        }

    def _fate(self, wire: Wire) -> Fate:
        fires, number = self.faults.fires, self.faults.number
        scale = self.wait_scale * (number(wire, "slow_factor") if fires(wire, "run_slow") else 1.0)
        queue_s, dispatch_s, run_s = (
            number(wire, f"{part}_s") * scale for part in ("queue", "dispatch", "run")
        )
        bad: tuple[Ending, ...] = ("stuck", "canceled", "moderated", "failed")
        ending: Ending = next((one for one in bad if fires(wire, f"run_{one}")), "succeeded")
        return Fate(queue_s, dispatch_s, run_s, ending, forgotten=fires(wire, "run_forgotten"))


def account_of(request: Request) -> str | None:
    """Whose key came with a request.

    Args:
        request: With an `Authorization: Bearer` header, or without.

    Returns:
        `main`, `poor` (no balance) or `other` by how the key starts; None for a missing or bad key.
    """
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key or key.startswith("bad"):
        return None
    return next((kind for kind in ("poor", "other") if key.startswith(kind)), "main")
