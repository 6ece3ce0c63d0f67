"""`kling-nb ledger copy`: a ledger taken along to another place.

Invariants: importing this imports nothing heavy, for `kling-nb --help` reads it.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from kling_nb import errors

__all__ = ["ledger_app"]

ledger_app = typer.Typer(help="The ledger itself.", no_args_is_help=True, rich_markup_mode=None)


@ledger_app.command("copy")
def ledger_copy(
    source: Annotated[str, typer.Argument(help="Path or database address of the ledger to copy.")],
    target: Annotated[
        str | None,
        typer.Argument(
            help="Of the ledger that it goes into. Left out, it is that of KLING_NB_LEDGER or of the user's "
            "config.toml, so that a password stands in no list of processes."
        ),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Copy a ledger into another, e.g. a file into PostgreSQL; what is there already is left as it is."""
    from kling_nb.addresses import is_address
    from kling_nb.config.loading import load_settings
    from kling_nb.ledger.database import Ledger
    from kling_nb.ledger.databases.copying import copy_ledger

    if not is_address(source) and not Path(source).is_file():
        raise errors.UsageError(f"There is no ledger {source}.", cure="Nothing was copied.")
    old, new = Ledger(source), Ledger(target or load_settings().ledger)
    try:
        copied = copy_ledger(old, new)
    finally:
        old.close()
        new.close()
    words = ", ".join(f"{copied[name]:,} {name}" for name in ("runs", "events", "votes", "sweeps"))
    money = f"${copied['settled_micros'] / 1e6:.2f} settled, ${copied['reserved_micros'] / 1e6:.2f} reserved"
    text = f"{new.where} has all of {old.where}: {words}; {money}."
    sys.stdout.write((json.dumps(copied) if as_json else text) + "\n")
