"""The settings of a session: each is declared here, once, with all that is known of it.

A field made by `_option` is a setting that people give: its variable (`KLING_NB_<NAME>`), its place in files,
its `%config KlingMagics.<name>`, its row of `%kling config` and of the documentation come from it.

Invariants: importing this imports nothing heavy, for `%load_ext kling_nb` reads it; what a type's name
demands of a value stands in `loading.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import partial
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Literal

from kling_nb.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kling_nb.config.loading import (
        Address,
        Callback,
        Count,
        Dollars,
        Folder,
        ModelName,
        Name,
        Origins,
        Scale,
    )
    from kling_nb.pricing.catalog import Model
    from kling_nb.pricing.price_file import GivenPrice
    from kling_nb.records.base import Line
    from kling_nb.records.run import Mode

__all__ = [
    "CALLBACK_SECRETS",
    "CAPS",
    "OPTIONS",
    "PREFIX",
    "Settings",
    "Source",
    "default_ledger",
    "provider_origin",
]

PREFIX = "KLING_NB_"
#: What a provider signs its callbacks with: several, with commas between, while one replaces another.
CALLBACK_SECRETS = "KLING_NB_CALLBACK_SECRETS"
ProviderName = Literal["auto", "runflow", "runcomfy", "sandbox"]
Source = Literal["default", "user file", "project", "environment", "argument"]


def _option(
    words: str, default: Any = None, project: Literal["", "sets", "lowers"] = "", *, shown: bool = True
) -> Any:
    """Declare a setting: its help, its value (or what makes it), and what a project may do to it."""
    make = default if callable(default) else lambda: default
    return field(default_factory=make, repr=shown, metadata={"help": words, "project": project})


#: A value that a module decides which is slow to load.
_at = partial(partial, resolve_name)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a session runs with.

    Dollars, the fields `<name>_micros`, are micro-dollars here; a cap that is None does not hold.

    Args:
        budget_declared: Whether a person set any cap: in the environment, the user's own file or an
            argument. The default cap and a project's do not count.
        ledger: Not in the repr, as it may hold a password.
        media: None for the folder beside the notebook; at an address, each clip is kept there too.
        user: The name that the user's caps count under.
        prices: What the user's own file and a project's state beside the list.
        sources: Where each of these came from, by field name.
        notes: What has no effect and should be known, one line each.

    Example:
        >>> Settings().budget_micros
        10000000
    """

    provider: ProviderName = _option("auto, runflow, runcomfy or sandbox", "auto", "sets")
    model: ModelName = _option(
        "A model or its alias, e.g. kling-3.0-pro or pro",
        _at("kling_nb.pricing.catalog:DEFAULT_MODEL"),
        "sets",
    )
    budget_micros: Dollars = _option("Dollars this session may spend", 10_000_000, "lowers")
    project_daily_micros: Dollars | None = _option(
        "Dollars this project may spend in a day (UTC)", None, "lowers"
    )
    user_daily_micros: Dollars | None = _option("Dollars you may spend in a day (UTC)", None, "lowers")
    user_total_micros: Dollars | None = _option("Dollars you may spend in all", None, "lowers")
    team_daily_micros: Dollars | None = _option(
        "Dollars that all users of the ledger together may spend in a day (UTC)", None, "lowers"
    )
    team_total_micros: Dollars | None = _option(
        "Dollars that all users of the ledger together may spend in all", None, "lowers"
    )
    budget_declared: bool = False
    yes: bool = _option("Consent to spending without anybody watching", default=False)
    cached_only: bool = _option("Never send, only show kept clips", default=False)
    ledger: Line = _option(
        "Path or database address of the ledger", lambda: str(default_ledger()), shown=False
    )
    media: Folder | None = _option("Folder for clips, or the address of a team's store", None, "sets")
    runflow_url: Address = _option(
        "Base address of Runflow, without /v1", _at("kling_nb.providers.runflow:Runflow.default_url")
    )
    runcomfy_url: Address = _option(
        "Base address of RunComfy, without /v1", _at("kling_nb.providers.runcomfy:RunComfy.default_url")
    )
    callback_url: Callback | None = _option("Address that Runflow calls when a run has ended", None)
    max_in_flight: Count = _option("Runs at a provider at once, per account", 4, "lowers")
    sandbox_wait: Scale = _option("Multiplier of the sandbox's waits", 1.0)
    project: Name = _option("Name of the project in the books", "unnamed")
    user: str = "unnamed"
    notify: bool = _option("Say on the page when a run has ended", default=False)
    embed: Mode = _option("What of a clip goes into its card: auto, always, never or poster", "auto")
    allow_origin: Origins = _option("Further origins a base address may have, separated by commas", ())
    prices: tuple[GivenPrice, ...] = ()
    sources: Mapping[str, Source] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()

    def priced_model(self, name: str | None = None) -> Model:
        """Find a model with the prices that are in force: the catalog's, the user's own, a project's.

        Args:
            name: Our id or an alias; the settings' own model unless given.

        Returns:
            The model.

        Raises:
            UsageError: Nobody knows the name.

        Example:
            >>> Settings().priced_model("4k").id
            'kling-3.0-4k'
        """
        from kling_nb.pricing.catalog import find_model
        from kling_nb.pricing.price_file import in_force

        return in_force(find_model(name or self.model), self.prices)


#: The settings that people give, by the name they have there.
OPTIONS = {one.name.removesuffix("_micros"): one for one in fields(Settings) if "help" in one.metadata}


#: Those of them that limit money; dollars outside, micro-dollars (`<name>_micros`) inside.
CAPS = tuple(name for name, one in OPTIONS.items() if name != one.name)


def default_ledger() -> Path:
    """Give the place of the ledger unless one is set, e.g. `~/.local/share/kling_nb/ledger.db` on Linux."""
    import platformdirs

    return platformdirs.user_data_path("kling_nb", appauthor=False) / "ledger.db"


def provider_origin(settings: Settings, name: str) -> str:
    """Give the base address that a provider's runs go to, as records keep it.

    Args:
        settings: The settings.
        name: `runflow` or `runcomfy`; the sandbox has no address before it is started.

    Returns:
        The address, without a slash at the end.

    Raises:
        UsageError: The provider has no configured address.

    Example:
        >>> provider_origin(Settings(), "runcomfy")
        'https://model-api.runcomfy.net'
    """
    configured = {"runflow": settings.runflow_url, "runcomfy": settings.runcomfy_url}
    if name not in configured:
        raise UsageError(f"{name} has no configured address.", cure=f"Name {' or '.join(configured)}.")
    return configured[name]
