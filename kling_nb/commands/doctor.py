"""`%kling doctor`: is this place fit for paid runs?

Invariants: offline unless asked; no key and no part of one is shown; a check that fails is a line with a
cure and never stops the others; nothing is left behind.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kling_nb.addresses import is_address
from kling_nb.commands.answer import Answer, answer
from kling_nb.config.keys import KEY_VARIABLES
from kling_nb.errors import KlingError, one_line
from kling_nb.ledger.databases.file_systems import file_system, is_network
from kling_nb.pricing.catalog import provider_label
from kling_nb.session.api import in_kernel
from kling_nb.spending.reconcile import balances
from kling_nb.views.html import AMBER, RED, pill
from kling_nb.views.tables import filled
from kling_nb.views.words import counted, plain

if TYPE_CHECKING:
    from kling_nb.config.settings import Settings
    from kling_nb.session.session import Session

__all__ = ["Finding", "doctor"]

_PACKAGES = {
    "kling-nb": "kling_nb",
    "ipython": "IPython",
    "ipykernel": "ipykernel",
    "ipywidgets": "ipywidgets",
}
#: Where jupyter-scheduler 2.12 runs its copy of a notebook, below Jupyter's data folder.
_STAGING = "scheduler_staging_area"

#: Extensions that run cells in the server; outputs of theirs are not updated.
_BY_SERVER = ("jupyter-server-documents", "jupyter-server-nbmodel")
_ROOM_BYTES = 1_000_000_000
_COLOURS = {"warn": AMBER, "fail": RED}
_HEADS = ["check", "", "found", "what to do"]
_NOT_SET = "not set"


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Args:
        check: What was looked at.
        state: How it is.
        found: What was found.
        cure: What to do about it; empty where all is well.
    """

    check: str
    state: Literal["ok", "warn", "fail"]
    found: str
    cure: str = ""


def doctor(session: "Session", *, online: bool) -> Answer:
    """Check this place.

    Args:
        session: Whose settings, ledger and keys are checked.
        online: Whether to ask each provider about its key, for free.

    Returns:
        A table; its value is plain data.
    """
    findings = list(_findings(session, online=online))
    rows = [
        [f.check, pill(f.state, _COLOURS[f.state]) if f.state != "ok" else _fine(f), f.found, f.cure]
        for f in findings
    ]
    table = filled(_HEADS, rows, "llww", "what to do")
    return answer([_verdict(findings), table], value=[asdict(finding) for finding in findings])


def _fine(finding: Finding) -> str:
    return "" if finding.found == _NOT_SET else finding.state


def _verdict(findings: Sequence[Finding]) -> str:
    failed, warned = (sum(f.state == state for f in findings) for state in ("fail", "warn"))
    if not failed + warned:
        provider = next(f.found for f in findings if f.check == "provider")
        return f"**All fine**. {provider}."
    counts = [(failed, "to correct"), (warned, "to note")]
    return (
        f"**{', '.join(f'{number} {what}' for number, what in counts if number)}**; everything else is fine."
    )


def _findings(session: "Session", *, online: bool) -> Iterator[Finding]:
    yield from _versions()
    yield from _codecs()
    yield from _surroundings(session)
    try:
        settings = session.settings()
    except KlingError as error:
        yield _failed("settings", error)
        return
    cure = "Correct its name, or unset it; `%kling config` lists the settings."
    yield from (Finding("settings", "warn", note, cure) for note in settings.notes)
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("media folder", partial(_media, session, settings)),
        *([("team's store", partial(_team, session))] if is_address(settings.media or "") else []),
        ("ledger", partial(_ledger, session, settings)),
        ("provider", partial(_provider, session, settings)),
    ]
    checks += [
        (_key_of(name), partial(_key, session, settings, name, online=online)) for name in KEY_VARIABLES
    ]
    if online:
        checks.append(("certificates", _certificates))
    for check, look in checks:
        try:
            yield look()
        except KlingError as error:
            yield _failed(check, error)


def _key_of(name: str) -> str:
    return f"key for {provider_label(name)}"


def _failed(check: str, error: KlingError) -> Finding:
    return Finding(check, "fail", error.what, error.cure)


def _versions() -> Iterator[Finding]:
    yield Finding("Python", "ok", sys.version.split()[0])
    for name, module in _PACKAGES.items():
        loaded = getattr(sys.modules.get(module), "__version__", None)
        try:
            installed = version(name)
            if loaded in {None, installed}:
                yield Finding(name, "ok", installed)
            else:
                cure = "Restart the runtime (the kernel): it still runs what was there before."
                yield Finding(name, "warn", f"{installed} is installed, but {loaded} is loaded", cure)
        except PackageNotFoundError:
            yield Finding(
                name,
                "warn",
                "not installed",
                f"Outside notebooks it is not needed; else `pip install {name}`.",
            )


def _codecs() -> Iterator[Finding]:
    import av
    from av.codec import Codec

    needed: tuple[tuple[str, Literal["r", "w"], str], ...] = (
        ("h264", "r", "posters and checks of clips"),
        ("libx264", "w", "clips of the sandbox"),
    )
    for name, mode, use in needed:
        check = f"H.264 {'decoder' if mode == 'r' else 'encoder'}"
        try:
            Codec(name, mode)
        except ValueError:
            cure = "Install PyAV from PyPI (`pip install av`), whose wheels bring it."
            yield Finding(check, "fail", f"no {name} in PyAV {av.__version__}; {use} need it", cure)
        else:
            yield Finding(check, "ok", f"{name}, PyAV {av.__version__}")


def _surroundings(session: "Session") -> Iterator[Finding]:
    where = session.surroundings()
    watched = (
        "headless: cells wait for their runs, and real money needs a budget"
        if where.headless
        else "interactive"
    )
    if where.live:
        yield Finding("session", "ok", watched)
    else:
        there = [f"{name} {version(name)}" for name in _BY_SERVER if find_spec(name.replace("-", "_"))]
        found = f"the server runs the cells ({' or '.join(there or _BY_SERVER)}): no widgets, no live cards"
        cure = "Cells wait for their runs, and show them at the end. Without that extension cards are live."
        yield Finding("session", "warn", f"{found}; {watched}", cure)
    if where.notebook is not None:
        yield Finding("notebook", "ok", str(where.notebook))
    elif in_kernel():
        cure = "Clips go beside it; set KLING_NB_MEDIA to say where."
        yield Finding(
            "notebook", "warn", f"unknown; the folder is taken to be {where.folder or Path.cwd()}", cure
        )


def _media(session: "Session", settings: "Settings") -> Finding:
    folder = session.media_folder(settings)
    place = next((path for path in (folder, *folder.parents) if path.is_dir()), None)
    if place is None or not _writable(place):
        return Finding(
            "media folder",
            "fail",
            f"{folder} cannot be written",
            "Correct its permissions, or set KLING_NB_MEDIA.",
        )
    if _STAGING in folder.parts:
        return Finding(
            "media folder",
            "warn",
            f"{folder} is in a staging folder of jupyter-scheduler, which is deleted with its job",
            "Set KLING_NB_MEDIA, for the server that schedules, to a folder that stays.",
        )
    free = shutil.disk_usage(place).free
    words = f"{folder}, {free / 1e9:.1f} GB free"
    if free < _ROOM_BYTES:
        return Finding(
            "media folder", "warn", words, "Make room: a clip that cannot be kept is paid for all the same."
        )
    return Finding("media folder", "ok", words)


def _writable(folder: Path) -> bool:
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".kling-nb-"):
            return True
    except OSError:
        return False


def _team(session: "Session") -> Finding:
    uploads = session.engine().uploads
    team, waiting = uploads.team, len(uploads.waiting())
    assert team is not None  # noqa: S101 - asked for only where the settings name one
    if why := team.reach():
        cure = "Clips are kept here meanwhile; `kling-nb collect` takes them there."
        return Finding("team's store", "warn", why.rstrip("."), cure)
    if waiting:
        words = f"{team.name}, {counted(waiting, 'clip')} not there yet"
        return Finding("team's store", "warn", words, "`kling-nb collect` takes them there.")
    return Finding("team's store", "ok", team.name)


def _ledger(session: "Session", settings: "Settings") -> Finding:
    ledger = session.ledger()
    # A write transaction that changes nothing: it takes the lock and gives it back.
    with ledger.writing():
        pass
    if missing := ledger.missing_tables():
        cure = (
            "Put a good copy in its place; clips and receipts are enough to go on, but not to keep the caps."
        )
        return Finding("ledger", "fail", f"{ledger.where} has no table {', '.join(missing)}", cure)
    wrong = ledger.mend_sums()
    words = f"{ledger.where}, {counted(ledger.count(), 'run')}"
    if wrong:
        cure = "They were counted again from the runs. Something else may be writing to this file."
        return Finding("ledger", "warn", f"{words}; {wrong} running totals were wrong", cure)
    kind = "" if "://" in settings.ledger else file_system(Path(settings.ledger))
    if is_network(kind):
        cure = (
            "SQLite is not safe there for several hosts: keep it in PostgreSQL "
            "(KLING_NB_LEDGER=postgresql://...), use it from one host at a time, or put it on a local disk."
        )
        return Finding("ledger", "warn", f"{words}, on a network file system ({kind})", cure)
    return Finding("ledger", "ok", words + (f", on {kind}" if kind else ""))


def _provider(session: "Session", settings: "Settings") -> Finding:
    from kling_nb.config.provider_choice import choose_provider

    model = settings.priced_model()
    name = choose_provider(settings, model, audio=False, named=None, find=session.key)
    if name == "sandbox":
        return Finding("provider", "ok", "Sandbox: play money, marked clips, no key needed")
    return Finding("provider", "ok", f"{provider_label(name)}: a cell spends real money")


def _certificates() -> Finding:
    from kling_nb.network.connections import named_certificates, tls_context

    tls_context()
    named = named_certificates()
    words = f"certifi {version('certifi')}" if named is None else f"{named[1]}, from {named[0]}"
    return Finding("certificates", "ok", words)


def _key(session: "Session", settings: "Settings", name: str, *, online: bool) -> Finding:
    check = _key_of(name)
    key = session.key(name)
    if key is None:
        return Finding(check, "ok", _NOT_SET)
    if not online:
        return Finding(
            check, "ok", f"set, from {key.source}; not tried (`%kling doctor --online` does, for free)"
        )
    from kling_nb.config.settings import provider_origin
    from kling_nb.network.client import with_transport
    from kling_nb.pricing.catalog import find_model, models
    from kling_nb.providers import make_provider

    adapter = make_provider(name, provider_origin(settings, name))
    model = find_model(settings.model)
    if name not in model.providers:
        model = next(other for other in models().values() if name in other.providers)

    call = adapter.account_call(model.offer(name).id)
    reply = with_transport(
        session.loop, lambda net: net.send(call, key=key.secret, origin=adapter.base_url), 60
    )
    account = adapter.read_account(reply)
    ok, words = account.ok, one_line(account.message)
    facts = [plain(str(line)) for line in balances(session, (name,))] if ok else []
    said = [part.rstrip(".") for part in (f"from {key.source}", words, *facts) if part]
    found = ". ".join(said) + ("." if len(said) > 1 else "")
    if ok:
        return Finding(check, "ok", f"accepted, {found}")
    if ok is None:
        return Finding(check, "warn", f"unknown: {found}", "Try again later.")
    return Finding(
        check, "fail", f"refused, {found}", f"Set {KEY_VARIABLES[name][0]} anew, then restart the kernel."
    )
