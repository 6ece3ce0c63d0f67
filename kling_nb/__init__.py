"""Kling 3.0 text-to-video in Jupyter: a live cell, a saved clip, and a bill known before it is run up.

Invariants: importing this package imports nothing heavy (each name loads its module on first use); no module
of the package imports this one.

Example:
    >>> import kling_nb as kling
    >>> kling.TextToVideo(prompt="A red fox in snow").duration
    5
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "adopting": ("adopt",),
    "api": ("Spend", "connect", "estimate", "find", "generate", "resume", "runs", "spend", "submit"),
    "engine": ("Run", "Runs", "Video"),
    "errors": (
        "BlockedError",
        "BudgetError",
        "ConsentError",
        "DetachedError",
        "KeyMissingError",
        "KlingError",
        "LedgerError",
        "ModeratedError",
        "NotCachedError",
        "ProviderError",
        "RunCanceledError",
        "RunFailedError",
        "RunLostError",
        "SettingsError",
        "StoreError",
        "TransportError",
        "UnpricedError",
        "UnsupportedError",
        "UsageError",
        "WaitTimeoutError",
    ),
    "exporting": ("export",),
    "loop": ("run_sync",),
    "models": ("Shot", "TextToVideo"),
    "notebook.compare": ("compare",),
    "notebook.player": ("play",),
    "reconciling": ("costs",),
    "notebook.form": ("form",),
    "notebook.gallery": ("gallery",),
    "notebook.rate": ("rate",),
    "ratings": ("Ratings",),
    "receiptschema": ("receipt_schema",),
    "records": ("Estimate", "MediaFacts", "RunRecord", "RunStatus"),
    "resolving": ("resolve",),
    "restoring": ("restore", "verify_folder"),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "BlockedError",
    "BudgetError",
    "ConsentError",
    "DetachedError",
    "Estimate",
    "KeyMissingError",
    "KlingError",
    "LedgerError",
    "MediaFacts",
    "ModeratedError",
    "NotCachedError",
    "ProviderError",
    "Ratings",
    "Run",
    "RunCanceledError",
    "RunFailedError",
    "RunLostError",
    "RunRecord",
    "RunStatus",
    "Runs",
    "SettingsError",
    "Shot",
    "Spend",
    "StoreError",
    "TextToVideo",
    "TransportError",
    "UnpricedError",
    "UnsupportedError",
    "UsageError",
    "Video",
    "WaitTimeoutError",
    "__version__",
    "adopt",
    "compare",
    "connect",
    "costs",
    "estimate",
    "export",
    "find",
    "form",
    "gallery",
    "generate",
    "last",
    "load_ipython_extension",
    "play",
    "rate",
    "receipt_schema",
    "resolve",
    "restore",
    "resume",
    "run_sync",
    "runs",
    "spend",
    "submit",
    "unload_ipython_extension",
    "verify_folder",
]

if TYPE_CHECKING:
    from kling_nb.engine.run import Run, Video
    from kling_nb.engine.runs import Runs
    from kling_nb.errors import (
        BlockedError,
        BudgetError,
        ConsentError,
        DetachedError,
        KeyMissingError,
        KlingError,
        LedgerError,
        ModeratedError,
        NotCachedError,
        ProviderError,
        RunCanceledError,
        RunFailedError,
        RunLostError,
        SettingsError,
        StoreError,
        TransportError,
        UnpricedError,
        UnsupportedError,
        UsageError,
        WaitTimeoutError,
    )
    from kling_nb.exports.export import export
    from kling_nb.loop import run_sync
    from kling_nb.notebook.form.form import form
    from kling_nb.notebook.viewers.compare import compare
    from kling_nb.notebook.viewers.gallery import gallery
    from kling_nb.notebook.viewers.player import play
    from kling_nb.notebook.viewers.rate import rate
    from kling_nb.ratings.ratings import Ratings
    from kling_nb.records.money import Estimate
    from kling_nb.records.receipt_model import receipt_schema
    from kling_nb.records.request import Shot, TextToVideo
    from kling_nb.records.run import MediaFacts, RunRecord, RunStatus
    from kling_nb.recovery.adopt import adopt
    from kling_nb.recovery.resolve import resolve
    from kling_nb.recovery.restore import restore
    from kling_nb.recovery.verify import verify_folder
    from kling_nb.session.api import Spend, connect, estimate, find, generate, resume, runs, spend, submit
    from kling_nb.spending.reconcile import costs

    last: Run | Runs | None


def __getattr__(name: str) -> Any:
    if name == "last":
        _attach()
        return import_module("kling_nb.session.api").last()
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if module == "api" or module.startswith("notebook."):
        _attach()
    return getattr(import_module(f"kling_nb.{module}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _attach() -> None:
    """In a notebook, let the session know the kernel, also when `%load_ext` was never called."""
    import sys

    shell = sys.modules.get("IPython.core.interactiveshell")
    if shell is not None and shell.InteractiveShell.initialized():
        import_module("kling_nb.notebook.surroundings").attach(shell.InteractiveShell.instance())


def load_ipython_extension(ip: Any) -> None:
    """Register `%%kling` and `%kling`; called by `%load_ext kling_nb`.

    Args:
        ip: The shell.
    """
    import_module("kling_nb.notebook.magics").load(ip)


def unload_ipython_extension(ip: Any) -> None:
    """Take the magics away; runs on their way go on and are kept.

    Args:
        ip: The shell.
    """
    import_module("kling_nb.notebook.magics").unload(ip)
