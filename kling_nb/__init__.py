"""Kling 3.0 text-to-video in Jupyter: a live cell, a saved clip, and a bill known before it is run up.

Invariants: importing this package imports nothing heavy (each name loads its module on first use); no module
of the package imports this one.

Example:
    >>> import kling_nb as kling
    >>> kling.TextToVideo(prompt="A red fox in snow").duration
    5
"""

import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

__version__ = "0.1.0"


@cache
def _public() -> tuple[Callable[[str], Any], list[str]]:
    """Read the names in `__init__.pyi`, at the first use of one: `%load_ext` and `--help` need none."""
    import lazy_loader

    load, _, names = lazy_loader.attach_stub(__name__, __file__)
    return load, [*names, "__version__", "last", "load_ipython_extension", "unload_ipython_extension"]


def __getattr__(name: str) -> Any:
    load, names = _public()
    if name == "__all__":
        return names
    if name not in names:
        why = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(why, name=name, obj=sys.modules[__name__])
    thing = import_module("kling_nb.session.api").last if name == "last" else load(name)
    if "kling_nb.session.api" in sys.modules:
        _attach()
    return thing() if name == "last" else thing


def __dir__() -> list[str]:
    return sorted(_public()[1])


def _attach() -> None:
    """In a notebook, let the session know the kernel, also when `%load_ext` was never called."""
    shell = sys.modules.get("IPython.core.interactiveshell")
    if shell is not None and shell.InteractiveShell.initialized():
        import_module("kling_nb.notebook.surroundings").attach(shell.InteractiveShell.instance())


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """Tell Jupyter Server that there is a part of it here: the route that takes callbacks."""
    return [{"module": "kling_nb"}]


def _load_jupyter_server_extension(app: Any) -> None:
    import_module("kling_nb.team.server_extension").add_route(app)


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
