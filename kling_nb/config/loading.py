"""Read the settings of a session from every place they may come from.

Precedence: flag, argument, `%config` or `connect()`; the environment; a project's `pyproject.toml`, which
may only tighten; the user's own file; defaults.

Invariants: a bad value is an error that names its place and never repeats the value; a project's file may
be a stranger's, so it sets neither an address nor consent nor a key, and raises no cap; money becomes
whole micro-dollars without touching a float; it is kept where each value came from, because only some
places count as declaring a budget.

pydantic checks what one place says as a whole, by the types that `settings.py` names, before places are
weighed against each other. The layers are not left to pydantic-settings: there, sources override each other;
here one of them may only tighten, each is remembered, and errors name the user's variable.
"""

import difflib
import getpass
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from decimal import ROUND_FLOOR, Decimal
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, create_model
from yarl import URL

from kling_nb.addresses import Origin, check_callback, check_store, is_address, is_loopback, origin_of
from kling_nb.config.settings import CALLBACK_SECRETS, CAPS, OPTIONS, PREFIX, ProviderName, Settings, Source  # noqa: F401 - the same
from kling_nb.config.toml_files import APP, ProjectTable, default_user_file, find_project, read_user_file
from kling_nb.errors import SettingsError, UsageError, one_line
from kling_nb.pricing.catalog import add_own, find_model
from kling_nb.pricing.model_file import read_models
from kling_nb.pricing.price_file import project_notes, read_prices
from kling_nb.providers.runcomfy import RunComfy
from kling_nb.providers.runflow import Runflow
from kling_nb.records.base import Given, Line, faults
from kling_nb.records.money import MICROS, usd
from kling_nb.records.run import Mode  # noqa: F401 - a field's type, read from its text

__all__ = ["check_option", "current_settings", "load_settings"]

_MAX_USD = 1_000_000_000
_DOLLARS = re.compile(r"[0-9]+(\.[0-9]+)?")


def _micros(value: object) -> int:
    if isinstance(value, float):
        # The shortest text of a float is what its author typed; nothing is computed with the float itself.
        value = repr(value)
    if isinstance(value, str) and _DOLLARS.fullmatch(value.strip()):
        value = Decimal(value.strip())
    elif isinstance(value, int) and not isinstance(value, bool):
        value = Decimal(value)
    if not isinstance(value, Decimal) or not value.is_finite() or not 0 <= value <= _MAX_USD:
        raise ValueError("must be dollars such as 2.50, from 0 to 1,000,000,000")
    # Down: a cap of half a micro-dollar is no leave to spend a whole one.
    return int((value * MICROS).to_integral_value(ROUND_FLOOR))


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic reports only ValueError
    return value


def _model(value: str) -> str:
    try:
        return find_model(value).id
    except UsageError as error:
        known = error.cure.removeprefix("Choose ").rstrip(".")
    raise ValueError(f"must be {known}")


def _folder(value: str) -> str:
    if is_address(value):
        try:
            check_store(value)
        except ValueError as error:
            raise ValueError(f"must be a folder, and {error}") from None
    return value


def _address(value: str) -> str:
    origin = origin_of(value)
    url = URL(value)
    if "?" in value or "#" in value:
        raise ValueError("must be an address without a query or a fragment")
    if origin.scheme != "https" and not is_loopback(value):
        raise ValueError("must begin with https; plain http is for this machine only")
    path = url.raw_path.rstrip("/")
    if path.endswith("/v1"):
        raise ValueError("must be the address without /v1")
    return _spell(origin) + path


def _callback(value: str) -> str:
    check_callback(value)
    return value


def _origin(value: str) -> str:
    text = _address(value)
    if text != _spell(origin_of(text)):
        raise ValueError("must be origins such as https://proxy.example.org, without a path")
    return text


def _spell(origin: Origin) -> str:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    usual = origin.port == {"https": 443, "http": 80}[origin.scheme]
    return f"{origin.scheme}://{host}" + ("" if usual else f":{origin.port}")


def _split(value: object) -> object:
    return tuple(p for part in value.split(",") if (p := part.strip())) if isinstance(value, str) else value


Dollars = Annotated[int, BeforeValidator(_micros)]
Name = Annotated[Line, Field(max_length=100)]
Folder = Annotated[Line, AfterValidator(_folder)]
Address = Annotated[Line, AfterValidator(_address)]
Callback = Annotated[Line, AfterValidator(_callback)]
Origins = Annotated[tuple[Annotated[Line, AfterValidator(_origin)], ...], BeforeValidator(_split)]
ModelName = Annotated[str, AfterValidator(_model)]
Count = Annotated[int, BeforeValidator(_number), Field(ge=1)]
Scale = Annotated[float, BeforeValidator(_number), Field(ge=0, le=100)]
_fields: Any = {name: (f"{one.type} | None", None) for name, one in OPTIONS.items()}
_Options = create_model("_Options", __base__=Given, __module__=__name__, **_fields)


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
    # In the order of strength, the weakest first.
    layers: dict[Source, dict[str, Any]] = {
        "user file": _check(_plain(own.settings, "models"), lambda name: f"{name} in {own.path}"),
        "project": _project_options(table),
        "environment": _check(variables, lambda name: PREFIX + name.upper()),
        "argument": _check(overrides or {}, str),
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
    elif "media" in values and not is_address(values["media"]):
        values["media"] = str(_absolute(values["media"]))
    if "ledger" in values:
        values["ledger"] = _ledger(values["ledger"])
    values.setdefault("project", _project_name(top))
    return Settings(
        **{OPTIONS[name].name: value for name, value in values.items()},
        user=_user_name(environ),
        budget_declared=any(layers[place].keys() & CAPS for place in layers if place != "project"),
        prices=prices,
        sources={f.name: sources.get(f.name.removesuffix("_micros"), "default") for f in fields(Settings)},
        notes=tuple(notes),
    )


#: The last settings, each by a hash of all that they were read from: a ledger's address may hold a password.
_last: list[tuple[int, Settings]] = []
#: Beside our own variables, those that say who and where the user is.
_WHO = ("JUPYTERHUB_USER", "LOGNAME", "USER", "LNAME", "USERNAME", "HOME", "XDG_CONFIG_HOME")
_YOUNG_NS = 2_000_000_000


def current_settings(
    overrides: Mapping[str, Any], start: Path | None, *, clock: Callable[[], int] = time.time_ns
) -> Settings:
    """Give the settings as they are now; nothing is read again where nothing has changed.

    Args:
        overrides: As for `load_settings`.
        start: As for `load_settings`.
        clock: The wall's, in nanoseconds.

    Returns:
        The settings.

    Raises:
        SettingsError: As for `load_settings`.
    """
    own = default_user_file()
    here = Path.cwd()
    top = (start or here).resolve()
    projects, repositories = _looked_for(top)
    files = [_stamp(own), *map(_stamp, projects)]
    named = [name for name in os.environ if name.startswith(PREFIX) or name in _WHO]
    read_from = hash(
        (
            *((name, os.environ.get(name)) for name in named),
            *(str(overrides), str(own), str(top), str(here), *files, *map(os.path.exists, repositories)),
        )
    )
    for known, settings in _last:
        if known == read_from:
            return settings
    settings = load_settings(overrides=overrides, start=start)
    # A file that was written just now may be written once more within the same moment.
    if all(stamp is None or clock() - stamp[1] > _YOUNG_NS for stamp in files):
        _last[:] = [(read_from, settings), *_last[:3]]
    return settings


@lru_cache(maxsize=8)
def _looked_for(top: Path) -> tuple[list[str], list[str]]:
    """Name the files of projects and repositories around a folder."""
    above = [str(folder / "_")[:-1] for folder in (top, *top.parents)]
    return [f"{folder}pyproject.toml" for folder in above], [f"{folder}.git" for folder in above]


def _stamp(path: Path | str) -> tuple[int, int, int, int, int, int] | None:
    try:
        facts = os.stat(path)  # noqa: PTH116 - a name is enough
    except OSError:
        return None
    return (
        *(facts.st_size, max(facts.st_mtime_ns, facts.st_ctime_ns)),
        *(facts.st_mtime_ns, facts.st_mode, facts.st_ino, facts.st_dev),
    )


def _plain(table: Mapping[str, Any], *tables: str) -> dict[str, Any]:
    """Leave out what is no single setting."""
    return {name: value for name, value in table.items() if name not in {"prices", *tables}}


def _variables(environ: Mapping[str, str] | None) -> tuple[dict[str, str], list[str]]:
    """Read our variables, and nothing else of the environment: tracebacks must not show the rest."""
    found, notes = {}, []
    known = {PREFIX + name.upper(): name for name in OPTIONS}
    for variable, value in (os.environ if environ is None else environ).items():
        if variable in known and value.strip():
            found[known[variable]] = value.strip()
        elif variable.startswith(PREFIX) and variable not in {*known, CALLBACK_SECRETS}:
            close = difflib.get_close_matches(variable, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else "."
            notes.append(one_line(f"{variable} is not a setting of kling_nb and has no effect{hint}"))
    return found, notes


def _project_options(table: ProjectTable | None) -> dict[str, Any]:
    if table is None:
        return {}
    allowed = sorted(name for name, one in OPTIONS.items() if one.metadata["project"])
    for name in _plain(table.settings):
        if name not in allowed:
            raise SettingsError(
                f"[tool.{APP}] in {table.path} may not set {name}: a project only tightens.",
                cure=f"Set {PREFIX}{name.upper()}, or {name} in the user's own config.toml, instead."
                if name in OPTIONS
                else f"It may set {', '.join(allowed)}. Keys belong in the environment.",
            )
    options = _check(_plain(table.settings), lambda name: f"{name} of [tool.{APP}] in {table.path}")
    if "media" in options and not _is_inside(table.path.parent, options["media"]):
        raise SettingsError(
            f"media of [tool.{APP}] in {table.path} must be a folder inside that project.",
            cure=f"Give a relative path without `..`, or set {PREFIX}MEDIA instead.",
        )
    return options


def _is_inside(top: Path, text: str) -> bool:
    if is_address(text) or "\\" in text or text.startswith("~") or PureWindowsPath(text).drive:
        return False
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        return False
    # A link in a stranger's project may lead anywhere.
    return (top / path).resolve().is_relative_to(top.resolve())


def _weigh(
    layers: Mapping[Source, Mapping[str, Any]], notes: list[str]
) -> tuple[dict[str, Any], dict[str, Source]]:
    """Let stronger places win, a project only where it tightens."""
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    defaults = Settings()
    for source, layer in layers.items():
        for name, value in layer.items():
            if source == "project" and OPTIONS[name].metadata["project"] == "lowers":
                present = values.get(name, getattr(defaults, OPTIONS[name].name))
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
        raise SettingsError(
            "There is no home folder to replace `~` with.", cure="Write the whole path."
        ) from None


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


def check_option(name: str, value: object) -> None:
    """Refuse a value that a setting cannot have.

    Raises:
        SettingsError: It cannot.

    Example:
        >>> check_option("provider", "sandbox")
    """
    _check({name: str(value) if isinstance(value, float) else value}, str)


def _check(values: Mapping[str, Any], called: Callable[[str], str]) -> dict[str, Any]:
    """Check what one place says; give what is set, caps in micro-dollars."""
    try:
        return _Options.model_validate(dict(values)).model_dump(exclude_none=True)
    except ValidationError as error:
        origins = "must be a list of origins, or one text with commas"
        fault = faults(error, {"extra_forbidden": "is not a setting of kling_nb", "tuple_type": origins})[0]
    # Below: not inside the handler, so that no chained traceback carries the value.
    name = str(fault.place[0]) if fault.place else ""
    keys = " Keys are not settings: see `%kling keys`." if "not a setting" in fault.words else ""
    raise SettingsError(f"{called(name)} {fault.words}.", cure=f"Correct it or remove it.{keys}")
