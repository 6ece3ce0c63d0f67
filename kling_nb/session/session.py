"""The session: it wires settings, providers, ledger, store and engine, and is what faces talk to.

Invariants: everything is made on first use; settings and keys are read anew for each call, so that a
changed environment counts at once; a record's own origin is never trusted with a key, only the
configured one; no call creates a run except `open`.
"""

import atexit
import os
import secrets
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any

from kling_nb.config.environment import Surroundings, script
from kling_nb.config.keys import Key
from kling_nb.config.loading import current_settings
from kling_nb.config.session_keys import KeyHolder
from kling_nb.config.settings import Settings, provider_origin
from kling_nb.engine.engine import Engine
from kling_nb.engine.polling.lookup import Access
from kling_nb.engine.run import Run
from kling_nb.engine.runs import Handles, Runs
from kling_nb.errors import KlingError, UsageError
from kling_nb.ledger.database import Ledger
from kling_nb.ledger.work.detached import unsent_runs
from kling_nb.loop import Loop
from kling_nb.media.team_store import team_store
from kling_nb.providers import make_provider
from kling_nb.providers.base import Provider
from kling_nb.records.base import utc_now
from kling_nb.records.money import Cap, Estimate, Totals
from kling_nb.records.run import RunRecord, RunStatus
from kling_nb.session.budget import Budget, named_session
from kling_nb.session.context import CallContext, access_for
from kling_nb.session.folder_runs import in_folder
from kling_nb.session.forecast import forecast
from kling_nb.session.opening import Opened, open_many
from kling_nb.session.plan import Ask, Plan
from kling_nb.session.sandboxes import Sandboxes
from kling_nb.views.html import tag
from kling_nb.views.words import unread_words

__all__ = ["Session"]

_sessions: "weakref.WeakSet[Session]" = weakref.WeakSet()

#: Those that have opened something, held until they have closed it.
_open: "set[Session]" = set()


class Session:
    """One process's work with Kling: its runs, its money, its clips.

    Args:
        surroundings: Tells where a call comes from.
        engine_options: Passed to `Engine`, for tests.
        name: Joins the session of this name; see `join`.
        today: Gives the day (UTC), by which prices are old.
        **overrides: Settings that outrank environment and files.

    Example:
        >>> Session(provider="sandbox").id[:2]
        's-'
    """

    def __init__(
        self,
        *,
        surroundings: Callable[[], Surroundings] = script,
        engine_options: Mapping[str, Any] | None = None,
        name: str | None = None,
        today: Callable[[], date] = lambda: utc_now().date(),
        **overrides: Any,
    ) -> None:
        # Two sessions of one second, or of two containers, must not share a budget.
        self.id = f"s-{utc_now():%Y%m%d-%H%M%S}-{os.getpid()}-{secrets.token_hex(2)}"
        self.started_at = utc_now()
        self.overrides = {name: value for name, value in overrides.items() if value is not None}
        self._configured: dict[str, Any] = {}
        self.surroundings = surroundings
        self.today = today
        self.last: Run | Runs | None = None
        self.loop = Loop()
        self.keys = KeyHolder(self.loop, lambda: self.surroundings().headless)
        self._engine_options = dict(engine_options or {})
        self._lock = threading.RLock()
        # By the ledger's address: it may be set anew, and runs of the last one go on.
        self._stands: dict[str, tuple[Ledger, Engine]] = {}
        self.sandboxes = Sandboxes(self.loop)
        self._before_close: list[Callable[[], None]] = []
        #: Every id that runs of this kernel were counted under, from before it was named too.
        self.ids = {self.id}
        self.name: str | None = None  # under which other kernels may join it
        if name is not None:
            self.join(name)
        _sessions.add(self)

    def __repr__(self) -> str:
        named = f" “{self.name}”" if self.name else ""
        return f"Session{named} {self.id}: %kling config shows its settings, kling.spend() its money."

    def _repr_html_(self) -> str:
        return tag("div", repr(self))

    def come_from(self, surroundings: Callable[[], Surroundings] | None) -> None:
        """Let another face tell where calls come from; None means a plain script."""
        self.surroundings = surroundings or script

    def configure(self, overrides: Mapping[str, Any]) -> None:
        """Let `%config KlingMagics` outrank what was given before; it is told anew at each call."""
        self._configured = dict(overrides)

    def _forget(self) -> None:
        """A forked child starts clean: the parent's loop, client and database are not its own."""
        self._lock = threading.RLock()
        for ledger, engine in self._stands.values():
            ledger.forget()
            engine.renew()
        self._stands, self.sandboxes, self.last = {}, Sandboxes(self.loop), None
        self._before_close.clear()

    def settings(self) -> Settings:
        """Read the settings as they are now.

        Raises:
            SettingsError: One of them makes no sense.
        """
        return current_settings({**self.overrides, **self._configured}, self.surroundings().folder)

    def ledger(self) -> Ledger:
        """Open the ledger.

        Raises:
            LedgerError: It cannot be opened.
        """
        return self._stand(self.settings())[0]

    def engine(self) -> Engine:
        """Give the engine."""
        return self._stand(self.settings())[1]

    def _stand(self, settings: Settings, where: Surroundings | None = None) -> tuple[Ledger, Engine]:
        with self._lock:
            if settings.ledger not in self._stands:
                ledger = Ledger(settings.ledger)
                engine = Engine(
                    loop=self.loop,
                    ledger=ledger,
                    access=self.access,
                    totals=self._shown_totals,
                    max_in_flight=settings.max_in_flight,
                    sandbox_wait=settings.sandbox_wait,
                    **self._engine_options,
                )
                self._stands[settings.ledger] = ledger, engine
                _open.add(self)
            ledger, engine = self._stands[settings.ledger]
            engine.max_in_flight, engine.sandbox_wait = settings.max_in_flight, settings.sandbox_wait
            engine.uploads.team = team_store(settings.media)
            engine.page_folder = (where or self.surroundings()).folder
            return ledger, engine

    def media_folder(self, settings: Settings | None = None) -> Path:
        """Say where the clips of a call go that is made here and now."""
        return self.surroundings().media_folder(settings or self.settings())

    def key(self, provider: str) -> Key | None:
        """Give the key for a provider, or None; see `KeyHolder.find`."""
        return self.keys.find(provider)

    def adapter(self, provider: str) -> Provider:
        """Give the adapter of a provider at its configured address."""
        return make_provider(provider, provider_origin(self.settings(), provider))

    def sandbox_url(self, settings: Settings) -> str:
        """Give the address of this process's sandbox for new runs; the first call starts it."""
        # Not under the lock of the session, which the background loop may want: a sandbox starts on it.
        _open.add(self)
        return self.sandboxes.address(settings.sandbox_wait)

    def access(self, record: RunRecord) -> Access:
        """Give what is needed to ask about a run, or say why it cannot be asked about."""
        if record.provider == "sandbox":
            _open.add(self)
            # A setting that makes no sense is no reason not to ask the one that is there.
            with suppress(KlingError):
                wait_scale = self.settings().sandbox_wait
                if record.provider_run_id is None and record.status.pending:
                    # It goes to the sandbox of this process: at its old address may be anybody by now.
                    record = record.model_copy(update={"origin": self.sandboxes.address(wait_scale)})
                else:
                    self.sandboxes.take_up(record, wait_scale)
        return access_for(record, settings=self.settings, find_key=self.key)

    def who(self, settings: Settings) -> dict[str, str]:
        """Say whom a run is counted under: in its record, and to a provider that takes metadata."""
        return {"session_id": self.id, "project": settings.project, "user": settings.user}

    def _budget(self, settings: Settings, *, play: bool) -> Budget:
        return Budget.of(settings, session_id=self.id, headless=self.surroundings().headless, play=play)

    def join(self, name: str) -> None:
        """Count what is asked for from now on under a session that has a name, with all that it has spent.

        Its id is made of the name, the user and the project, so that it outlives this kernel. Runs that were
        asked for before, also those on their way, stay with the session that they were asked for in.

        Args:
            name: One line of at most 60 characters.

        Raises:
            UsageError: This is no name.
            SettingsError: A setting makes no sense.
        """
        # It stays in the ledger and in every sidecar.
        self.keys.refuse({"the session's name": name})
        settings = self.settings()
        self.id = named_session(name, user=settings.user, project=settings.project)
        self.ids.add(self.id)
        self.name = name.strip()

    def caps(self, *, play: bool = False) -> tuple[list[Cap], datetime | None]:
        """Give every level of money beyond the cell, also those without a cap, and when the session began.

        Returns:
            The levels, and when the first run of this session was asked for; None where there is none yet.
        """
        settings = self.settings()
        budget = self._budget(settings, play=play)
        return self._stand(settings)[0].read(
            lambda transaction: (budget.caps(transaction, unlimited=True), transaction.began(self.id))
        )

    def totals(self, *, play: bool = False) -> Totals:
        """Add up this session's money, with the cap that leaves least."""
        settings = self.settings()
        return self._stand(settings)[0].read(self._budget(settings, play=play).totals)

    def _shown_totals(self, play: bool) -> Totals | None:  # noqa: FBT001 - the engine's callback
        with suppress(KlingError):
            return self.totals(play=play)
        return None

    def context(self) -> CallContext:
        """Give what the calls of this moment share; see `CallContext`."""
        where = self.surroundings()
        settings = current_settings({**self.overrides, **self._configured}, where.folder)
        return CallContext(
            settings=settings,
            where=where,
            holder=self.keys,
            stand=partial(self._stand, settings, where),
            # Read once: should another thread name the session now, its runs count where they were checked.
            who=self.who(settings),
            today=self.today(),
        )

    def price(self, ask: Ask) -> Estimate:
        """Say what one new run of a call would cost; asks no provider.

        Raises:
            KlingError: The request cannot be served.
        """
        return self.context().price(ask)

    def beside(self, surroundings: Callable[[], Surroundings]) -> "Session":
        """Make a session that looks on behalf of this one: its money and keys, from another place."""
        given = {**self.overrides, **self._configured}
        other = Session(surroundings=surroundings, today=self.today, **given)
        other.id, other.keys = self.id, self.keys
        return other

    def plan(self, ask: Ask, *, before: Sequence[Plan] = ()) -> Plan:
        """Say what a call would do and cost, without doing it.

        Args:
            ask: The call.
            before: Calls that would come first: what they make is there then, and their money is reserved.

        Returns:
            The plan, with the exact payload for each provider that has the model.

        Raises:
            KlingError: What would refuse the call.
        """
        return forecast(self.context().admission(ask), before)

    def open(self, ask: Ask) -> list[Run]:
        """Reuse, reattach or send: the one door through which money moves.

        Args:
            ask: The call.

        Returns:
            A handle a take, at once; the background loop carries them.

        Raises:
            KlingError: The call is refused; nothing was sent.
        """
        [opened] = self.open_many([ask], whole=True)
        return list(opened.runs)

    def open_many(self, asks: Sequence[Ask], *, whole: bool = False) -> list[Opened]:
        """Do the same for many calls in one transaction: each is decided about once, in order.

        Args:
            asks: The calls.
            whole: Whether they stand or fall together; else a refusal touches no other call.

        Returns:
            What became of each.

        Raises:
            KlingError: All of them are refused; nothing was sent.
        """
        context = self.context()
        calls, refused = {}, {}
        for number, ask in enumerate(asks):
            try:
                call = context.admission(ask)
                if call.budget.play:
                    # Started before the transaction: the address is part of the record.
                    call = replace(call, shared={**call.shared, "origin": self.sandbox_url(context.settings)})
                calls[number] = call
            except KlingError as error:
                if whole:
                    raise
                refused[number] = error
        opened = dict(zip(calls, open_many([*calls.values()], whole=whole), strict=True))
        return [opened.get(number) or Opened(error=refused[number]) for number in range(len(asks))]

    def runs(self, *, statuses: Sequence[RunStatus] | None = None, limit: int | None = None) -> Runs:
        """List runs of the ledger, newest first; looking at them asks nobody."""
        engine, ledger = self.engine(), self.ledger()
        if statuses is None and limit is None:
            return Runs(Handles(ledger.listing(), engine.peek), note=unread_words(ledger.unreadable()))
        found = ledger.runs(statuses=statuses, limit=limit)
        return Runs([engine.peek(record) for record in found], note=unread_words(len(found.unreadable)))

    def find(self, name: str) -> Run:
        """Find a run by our id or the provider's.

        Raises:
            UsageError: Nobody knows it.
        """
        engine, ledger = self.engine(), self.ledger()
        record = ledger.get(name)
        if record is None:
            found = ledger.runs(provider_run_id=name)
            # Asked for by the provider's id, one that cannot be read says so, and is not "unknown".
            record = found[0] if found else next(map(ledger.get, found.unreadable), None)
        if record is None:
            record = in_folder(engine.store(self.media_folder()), name)
        if record is None:
            raise UsageError(f"There is no run {name!r} in the ledger.", cure="See `%kling list`.")
        return engine.peek(record)

    def upload(self) -> dict[str, str]:
        """Take the clips to the team's store that are not there yet; gives why each of the others is not."""
        return self.loop.start(self.engine().uploads.rest()).result()

    def resume(self) -> Runs:
        """Take up every pending run of the ledger but what is left to workers; nothing new is ever sent."""
        found = self.runs(statuses=[status for status in RunStatus if status.pending])
        unsent = self.ledger().read(unsent_runs)
        return Runs([run.resume() for run in found if run.id not in unsent], note=found.note)

    def unwaited(self) -> list[str]:
        """Name the runs that this script asked for and that are on their way; none in a notebook."""
        if self.surroundings is not script:
            return []
        with self._lock:
            runs = [run for _, engine in self._stands.values() for run in engine.known()]
        return [run.id for run in runs if run.sent_here and not run.done]

    def before_close(self, callback: Callable[[], None]) -> None:
        """Have something called once before this session closes, e.g. what would open it again."""
        self._before_close.append(callback)

    def close(self) -> None:
        """Stop the in-process sandbox and close what is open; runs stay on record."""
        while self._before_close:
            self._before_close.pop()()
        with self._lock:
            stands, self._stands = self._stands, {}
            _open.discard(self)
            for ledger, engine in stands.values():
                with suppress(TimeoutError):
                    engine.close()
                ledger.close()
            self.sandboxes.close()


@atexit.register
def _close_all() -> None:
    for session in list(_open):
        if left := session.unwaited():
            sys.stderr.write(
                f"kling-nb: the program ended without waiting for {', '.join(left)}. What was sent goes on "
                "at its provider, and `kling-nb collect` fetches it; what was not is uncharged.\n"
            )
        session.close()


def _forget_all() -> None:
    _open.clear()
    for session in list(_sessions):
        session._forget()  # noqa: SLF001 - its own kind


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
