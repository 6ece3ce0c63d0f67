"""The settings of a session, weighed from every place they may come from.

Precedence: flag, argument, `%config` or `connect()`; the environment; a project's `pyproject.toml`, which
may only tighten; the user's own file; defaults.

Invariants: a bad value is an error that names its place and never repeats the value; a project's file may
be a stranger's, so it sets neither an address nor consent nor a key, and raises no cap; money becomes
whole micro-dollars without touching a float; it is kept where each value came from, because only some
places count as declaring a budget.

pydantic checks the values. The layers are not left to pydantic-settings: there, sources override each
other; here one of them may only tighten, each is remembered, and errors name the user's variable.
"""

import difflib
import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import ROUND_FLOOR
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

import platformdirs

from kling_nb.addresses import is_loopback, origin_of
from kling_nb.config.options import Options, ProviderName, check_options
from kling_nb.config.toml_files import APP, ProjectTable, find_project, read_user_file
from kling_nb.errors import SettingsError, UsageError, one_line
from kling_nb.pricing.catalog import DEFAULT_MODEL, Model, add_own, find_model
from kling_nb.pricing.model_file import read_models
from kling_nb.pricing.price_file import GivenPrice, in_force, project_notes, read_prices
from kling_nb.providers.runcomfy import RunComfy
from kling_nb.providers.runflow import Runflow
from kling_nb.records.money import MICROS, usd
from kling_nb.records.run import Mode

__all__ = ["CAPS", "PREFIX", "Settings", "Source", "default_ledger", "load_settings", "provider_origin"]

PREFIX = "KLING_NB_"

#: The settings that limit money; dollars outside, micro-dollars (`<name>_micros`) inside.
CAPS = ("budget", "project_daily", "user_daily", "user_total")
Source = Literal["default", "user file", "project", "environment", "argument"]
_PROJECT_MAY_SET = frozenset({"provider", "model", "media", "max_in_flight", *CAPS})
_PROJECT_MAY_LOWER = {"budget", "project_daily", "user_daily", "user_total", "max_in_flight"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a session runs with.

    Args:
        provider: Where runs go unless a call says otherwise.
        model: Our id of the model.
        budget_micros: The cap of this session, in micro-dollars.
        project_daily_micros: The cap of this project and UTC day, in micro-dollars, or None.
        user_daily_micros: The cap of this user and UTC day, in micro-dollars, or None.
        user_total_micros: The cap of this user for ever, in micro-dollars, or None.
        budget_declared: Whether a person set any cap: in the environment, the user's own file or an
            argument. The default cap and a project's do not count.
        yes: Consent to headless spending under the caps.
        cached_only: Never send, only show kept clips.
        ledger: An absolute path or a database address; not in the repr, as it may hold a password.
        media: An absolute folder for the clips, or None for the one beside the notebook.
        runflow_url: Base address, without `/v1` and without a slash at the end.
        runcomfy_url: The same.
        max_in_flight: Runs in flight for one account, 1 to 100.
        sandbox_wait: A multiplier of every simulated wait, 0 to 100.
        project: The name that the project's cap counts under.
        user: The name that the user's caps count under.
        notify: Whether the page tells when a run has ended.
        embed: What of a clip goes into its card, unless a cell says so.
        allow_origin: Further origins that a key may go to.
        prices: What the user's own file and a project's state beside the list.
        sources: Where each of these came from, by field name.
        notes: What has no effect and should be known, one line each.

    Example:
        >>> Settings().budget_micros
        10000000
    """

    provider: ProviderName = "auto"
    model: str = DEFAULT_MODEL
    budget_micros: int = 10 * MICROS
    project_daily_micros: int | None = None
    user_daily_micros: int | None = None
    user_total_micros: int | None = None
    budget_declared: bool = False
    yes: bool = False
    cached_only: bool = False
    ledger: str = field(default_factory=lambda: str(default_ledger()), repr=False)
    media: str | None = None
    runflow_url: str = Runflow.default_url
    runcomfy_url: str = RunComfy.default_url
    max_in_flight: int = 4
    sandbox_wait: float = 1.0
    project: str = "unnamed"
    user: str = "unnamed"
    notify: bool = False
    embed: Mode = "auto"
    allow_origin: tuple[str, ...] = ()
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
        return in_force(find_model(name or self.model), self.prices)


def default_ledger() -> Path:
    """Give the place of the ledger unless one is set, e.g. `~/.local/share/kling_nb/ledger.db` on Linux."""
    return platformdirs.user_data_path(APP, appauthor=False) / "ledger.db"


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
    configured = {Runflow.name: settings.runflow_url, RunComfy.name: settings.runcomfy_url}
    if name not in configured:
        raise UsageError(f"{name} has no configured address.", cure=f"Name {' or '.join(configured)}.")
    return configured[name]


def load_settings(
    *,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    start: Path | None = None,
    user_file: Path | None = None,
) -> Settings:
    """Gather the settings from all places.

    Args:
        overrides: From flags, `%config` or `connect()`, by name (`budget`, in dollars); None means not set.
        environ: The environment; by default the process's own.
        start: The folder whose project counts; by default the working folder.
        user_file: The user's own file; by default its usual place.

    Returns:
        The settings.

    Raises:
        SettingsError: A value has no sense, is not allowed where it stands, or a file cannot be read.

    Example:
        >>> load_settings(overrides={"budget": "2.50"}, environ={}).budget_micros
        2500000
    """
    top = (start or Path.cwd()).resolve()
    own = read_user_file(user_file)
    table = find_project(top)
    # Before anything names a model.
    add_own(read_models(own.settings.get("models"), str(own.path)))
    variables, notes = _variables(environ)
    layers: dict[Source, Options] = {
        "user file": check_options(_plain(own.settings, "models"), lambda name: f"{name} in {own.path}"),
        "project": _project_options(table),
        "environment": check_options(variables, lambda name: PREFIX + name.upper()),
        "argument": check_options({k: v for k, v in (overrides or {}).items() if v is not None}, str),
    }
    prices = read_prices(own.settings.get("prices"), str(own.path), "own")
    if table is not None:
        where = f"[tool.{APP}] of {table.path}"
        prices += read_prices(table.settings.get("prices"), where, "project")
    notes += project_notes(prices)
    values, sources = _weigh(layers, notes)
    _check_origins(values, sources)
    if table and sources.get("media") == "project":
        values["media"] = str(table.path.parent / values["media"])
    elif "media" in values:
        values["media"] = str(_absolute(values["media"]))
    if "ledger" in values:
        values["ledger"] = _ledger(values["ledger"])
    values.setdefault("project", _project_name(top))
    named = {_field(name): source for name, source in sources.items()}
    return Settings(
        **{_field(name): value for name, value in values.items()},
        user=_user_name(environ),
        budget_declared=any(
            getattr(layer, cap) is not None
            for source, layer in layers.items()
            if source != "project"
            for cap in CAPS
        ),
        prices=prices,
        sources={f.name: named.get(f.name, "default") for f in fields(Settings)},
        notes=tuple(notes),
    )


def _plain(table: Mapping[str, Any], *tables: str) -> dict[str, Any]:
    """Leave out what is no single setting."""
    return {name: value for name, value in table.items() if name not in {"prices", *tables}}


def _field(name: str) -> str:
    return f"{name}_micros" if name in CAPS else name


def _variables(environ: Mapping[str, str] | None) -> tuple[dict[str, str], list[str]]:
    """Read our variables, and nothing else of the environment: tracebacks must not show the rest."""
    found, notes = {}, []
    known = {PREFIX + name.upper(): name for name in Options.model_fields}
    for variable, value in (os.environ if environ is None else environ).items():
        if variable in known and value.strip():
            found[known[variable]] = value.strip()
        elif variable.startswith(PREFIX) and variable not in known:
            close = difflib.get_close_matches(variable, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else "."
            notes.append(one_line(f"{variable} is no setting of kling_nb and has no effect{hint}"))
    return found, notes


def _project_options(table: ProjectTable | None) -> Options:
    if table is None:
        return Options()
    for name in _plain(table.settings):
        if name not in _PROJECT_MAY_SET:
            known = name in Options.model_fields
            raise SettingsError(
                f"[tool.{APP}] in {table.path} may not set {name}: a project only tightens.",
                cure=f"Set {PREFIX}{name.upper()}, or {name} in the user's own config.toml, instead."
                if known
                else f"It may set {', '.join(sorted(_PROJECT_MAY_SET))}. Keys belong in the environment.",
            )
    options = check_options(_plain(table.settings), lambda name: f"{name} of [tool.{APP}] in {table.path}")
    if options.media is not None and not _is_inside(table.path.parent, options.media):
        raise SettingsError(
            f"media of [tool.{APP}] in {table.path} must be a folder inside that project.",
            cure=f"Give a relative path without `..`, or set {PREFIX}MEDIA instead.",
        )
    return options


def _is_inside(top: Path, text: str) -> bool:
    if "\\" in text or text.startswith("~") or PureWindowsPath(text).drive:
        return False
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        return False
    # A link in a stranger's project may lead anywhere.
    return (top / path).resolve().is_relative_to(top.resolve())


def _weigh(layers: Mapping[Source, Options], notes: list[str]) -> tuple[dict[str, Any], dict[str, Source]]:
    """Let stronger places win, a project only where it tightens; caps come out in micro-dollars."""
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    defaults = Settings()
    # In the order of strength, the weakest first.
    for source in ("user file", "project", "environment", "argument"):
        for name, given in layers[source]:
            if given is None:
                continue
            # Down: a cap of half a micro-dollar is no leave to spend a whole one.
            value = int((given * MICROS).to_integral_value(ROUND_FLOOR)) if name in CAPS else given
            if source == "project" and name in _PROJECT_MAY_LOWER:
                present = values.get(name, getattr(defaults, _field(name)))
                if present is not None and value >= present:
                    if value > present:
                        shown = usd(present) if name in CAPS else present
                        notes.append(
                            f"The project's {name} has no effect: the user's own is lower ({shown})."
                        )
                    continue
            values[name], sources[name] = value, source
    return values, sources


def _check_origins(values: Mapping[str, Any], sources: Mapping[str, Source]) -> None:
    """Let a key go to its own provider, to this machine, and where the user says; nowhere else."""
    for provider in (Runflow, RunComfy):
        name = f"{provider.name}_url"
        url = values.get(name)
        if url is None or is_loopback(url):
            continue
        origin = origin_of(url)
        allowed = {origin_of(text) for text in values.get("allow_origin", ())}
        if origin not in {origin_of(provider.default_url), *allowed}:
            shown = PREFIX + name.upper() if sources[name] == "environment" else name
            raise SettingsError(
                f"{shown} leads to {origin.host}, which is not {provider.label}'s own address.",
                cure=f"If your key may go there, list the origin in {PREFIX}ALLOW_ORIGIN.",
                provider=provider.name,
            )


def _absolute(text: str) -> Path:
    try:
        return Path.cwd() / Path(text).expanduser()
    except RuntimeError:
        raise SettingsError("There is no home folder to put `~` for.", cure="Write the whole path.") from None


def _ledger(text: str) -> str:
    # Made absolute here, or a later change of the working folder would open a second, empty ledger.
    head, mark, path = text.partition(":///")
    if mark and head.split("+")[0] == "sqlite" and path and not path.startswith((":memory:", "file:")):
        return f"{head}:///{_absolute(path)}"
    return text if "://" in text else str(_absolute(text))


def _project_name(top: Path) -> str:
    # os.path.exists: a folder above that may not be searched is no repository of the user's.
    root = next((p for p in (top, *top.parents) if os.path.exists(p / ".git")), top)  # noqa: PTH110 - see above
    return one_line(root.name)[:100] or "unnamed"


def _user_name(environ: Mapping[str, str] | None) -> str:
    name = (os.environ if environ is None else environ).get("JUPYTERHUB_USER", "").strip()
    if not name:
        try:
            name = getpass.getuser()
        except (ImportError, KeyError, OSError):
            # Containers often run under a number that has no name.
            name = str(getattr(os, "getuid", lambda: "unnamed")())
    return one_line(name)[:100] or "unnamed"
