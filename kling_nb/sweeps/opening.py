"""How a sweep is made of a grid, or found again by its name.

Invariants: nothing here sends anything; of a name a ledger has one sweep, whose grid only grows once somebody
agreed to it, and only after it was said what that adds.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from kling_nb.errors import did_you_mean
from kling_nb.ledger.sweeps import Stored, find, names
from kling_nb.records.base import utc_now
from kling_nb.records.money import usd
from kling_nb.session.session import Session
from kling_nb.sweeps.grid import expand
from kling_nb.sweeps.prompts import refused
from kling_nb.sweeps.showing import Views
from kling_nb.sweeps.sweep import Sweep
from kling_nb.views.words import counted

__all__ = ["give_back", "known_as", "open_sweep"]

_REST = "`%kling sweeps` lists them; a prompt goes into a list."


def known_as(name: str) -> str:
    """Check the name of a sweep.

    Args:
        name: One line of 1 to 60 characters.

    Returns:
        The same without spaces around it.

    Raises:
        UsageError: This is no name.

    Example:
        >>> known_as(" owls ")
        'owls'
    """
    plain = name.strip() if isinstance(name, str) else ""
    if not plain or len(plain) > 60 or not plain.isprintable():
        raise refused("name: should be one line of 1 to 60 characters.")
    return plain


def give_back(session: Session, name: str, views: Views) -> "Sweep":
    """Give an earlier sweep by its name; sends nothing.

    Args:
        session: Whose ledger.
        name: Its name.
        views: What shows it.

    Returns:
        The sweep.

    Raises:
        UsageError: There is none of this name.
    """
    stored = session.ledger().read(lambda transaction: find(transaction, name.strip()))
    if stored is None:
        known = session.ledger().read(names)
        raise refused(
            f"There is no sweep {name.strip()!r:.60}.",
            cure=did_you_mean(name, known, _REST),
        )
    return Sweep(session, stored, views)


def open_sweep(
    session: Session,
    grid: Mapping[str, Any],
    views: Views,
    *,
    name: str | None = None,
    max_cost: Decimal | None = None,
    confirm: bool = False,
) -> "Sweep":
    """Quote a grid under a name, and keep it; sends nothing.

    Args:
        session: Whose ledger, money and keys.
        grid: See `grid.make_grid`.
        views: What shows it.
        name: Its name; made of the grid unless given, so that the same grid has the same.
        max_cost: Dollars that all of it may cost.
        confirm: Whether it may be added to a sweep of this name that has another grid.

    Returns:
        The sweep.

    Raises:
        UsageError: A row is wrong; or a sweep of this name has another grid, and the message says what is
            added; or another kernel changed it meanwhile.
        KlingError: What refuses the whole.
    """
    if name is None:
        digest = hashlib.sha256(json.dumps(grid, sort_keys=True).encode()).hexdigest()
        name = f"sweep-{digest[:8]}"
    name = known_as(name)
    session.keys.refuse({"the name of the sweep": name})
    settings = session.settings()
    model = settings.priced_model().id
    if "model" not in grid["axes"]:
        # Frozen: another default of another kernel would make it another experiment.
        grid = {**grid, "rows": [[number, {"model": model, **row}] for number, row in grid["rows"]]}
    stored = found = session.ledger().read(lambda transaction: find(transaction, name))
    if stored is not None and grid in stored.grid:
        sweep = Sweep(session, stored, views, max_cost=max_cost)
        sweep.quote()
        return sweep
    whose, replaced = (settings.user, settings.project), 0
    if stored is not None and stored.consent_micros is None and (stored.user, stored.project) == whose:
        # Nobody agreed to it: another grid is another quote.
        replaced = len(expand(stored.grid).members)
        stored = None
    before = [] if stored is None else stored.grid
    stored = stored or Stored(
        name=name, grid=[], created_at=utc_now(), project=settings.project, user=settings.user
    )
    grown = replace(stored, grid=[*before, dict(grid)])
    sweep = Sweep(session, grown, views, max_cost=max_cost)
    quote = sweep.quote()
    if before and not confirm:
        added = len(sweep.members) - len(expand(before).members)
        raise refused(
            f"The sweep {name} has another grid. This one would add {counted(added, 'run')} to it; together "
            f"{counted(quote.new, 'new run')} may cost {usd(quote.micros)}.",
            cure="`confirm=True` (`--confirm` on the command line) adds them; or choose another name.",
        )
    sweep.keep(replace(grown, play=quote.play), before=found, replaced=replaced)
    return sweep
