"""`%%kling` and `%kling`: the magics, loaded by `%load_ext kling_nb`.

Invariants: loading imports nothing heavy (only IPython and traitlets, which are there already); the cell
magic is the paid act, the line magic never creates a run; the line reaches us unexpanded, or IPython would
rewrite `$0.70` and braces; an error of ours has no traceback.
"""

import sys
from collections.abc import Callable
from dataclasses import Field
from typing import Any

import IPython
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from traitlets import Bool, Float, Int, TraitError, Unicode, Union, validate

from kling_nb.commands.syntax.cell_source import shield
from kling_nb.config.settings import OPTIONS
from kling_nb.errors import DetachedError, KlingError, SettingsError
from kling_nb.files import escape_unwritable
from kling_nb.notebook import completion, warming

__all__ = ["KlingMagics", "load", "unload"]


#: The oldest IPython that works, as in `pyproject.toml`.
_NEEDED = (8, 18)


def _trait(option: Field[Any]) -> Any:
    kind = str(option.type).partition(" ")[0]
    how: dict[str, Any] = {"default_value": None, "allow_none": True, "help": option.metadata["help"]}
    if kind == "Dollars":
        # A figure may be typed bare; it is turned into text before anything counts with it.
        return Union([Unicode(), Int(), Float()], **how).tag(config=True)
    return {"bool": Bool, "Count": Int, "Scale": Float}.get(kind, Unicode)(**how).tag(config=True)


class _Skipped(dict[str, Any]):
    """What `%autoreload` leaves alone: what it left alone before, and this package."""

    def __contains__(self, name: object) -> bool:
        return str(name).partition(".")[0] == __name__.partition(".")[0] or super().__contains__(name)


@magics_class
class KlingMagics(Magics):
    """The magics and their settings; a setting that is None leaves environment and files in charge."""

    vars().update({name: _trait(option) for name, option in OPTIONS.items()})

    shell: Any
    loader: warming.Warming | None = None

    @validate(*OPTIONS)
    def _checked(self, proposal: Any) -> Any:
        """Refuse a value at once that every cell would stumble over."""
        from kling_nb.config.loading import check_option

        if proposal.value is not None:
            try:
                check_option(proposal.trait.name, proposal.value)
            except SettingsError as error:
                raise TraitError(f"{error.what} It stays as it was.") from None
        return proposal.value

    @no_var_expand
    @cell_magic("kling")  # type: ignore[arg-type]  # IPython types it for functions without self
    def cell(self, line: str, body: str) -> None:
        """Make a video from the text below the line; the run is in the variable that is named first.

        `%%kling fox -d 5 --ar 16:9` asks for 5 seconds. Further: -n TAKES, --audio, -p PROVIDER, -m MODEL,
        --max-cost USD, --dry-run. `%kling help` lists all flags.
        """
        if line.strip() in {"-h", "--help"}:
            self.line("help")
            return
        self._guarded(self._cell, line, body)

    @no_var_expand
    @line_magic("kling")  # type: ignore[arg-type]  # the same
    def line(self, line: str) -> Any:
        """Look at runs and money; never makes a run. `%kling help` lists the commands."""
        return self._guarded(self._line, line)

    def _cell(self, line: str, body: str) -> None:
        from kling_nb.notebook.cell import run_cell

        run_cell(self._session(), self.shell.user_ns, line, body)

    def _line(self, line: str) -> Any:
        from kling_nb.notebook.display import put
        from kling_nb.notebook.line import run_command

        return put(run_command(self._session(), line, self.shell.user_ns))

    def _session(self) -> Any:
        warming.wait()
        from kling_nb.notebook.surroundings import attach
        from kling_nb.session.api import current

        attach(self.shell)
        return current()

    def _guarded(self, act: Callable[..., Any], *args: Any) -> Any:
        """Let an interrupt end the cell in words too, and say of a refused cell that nothing was sent."""
        try:
            return act(*args)
        except KlingError as error:
            error.may_spend = act == self._cell
            raise
        except KeyboardInterrupt:
            raise DetachedError(
                "Interrupted.", charged="unknown", cure="What is on its way goes on: see `%kling status`."
            ) from None

    def stay_loaded(self, *_: object) -> None:
        """Keep `%autoreload` off this package: it would make our classes anew under runs on their way."""
        autoreload = self.shell.magics_manager.registry.get("AutoreloadMagics")
        reloader = getattr(autoreload, "_reloader", None)
        if reloader is not None and not isinstance(reloader.skip_modules, _Skipped):
            reloader.skip_modules = _Skipped(reloader.skip_modules)

    def overrides(self) -> dict[str, Any]:
        """Give the settings that were set here."""
        names = self.class_own_traits(config=True)
        values = {name: getattr(self, name) for name in names}
        return {name: str(v) if isinstance(v, float) else v for name, v in values.items() if v is not None}


def load(ip: Any) -> None:
    """Register the magics, their settings and the completion of their flags.

    Args:
        ip: The shell.

    Raises:
        SettingsError: The IPython that is loaded is too old.
    """
    _refuse_old_ipython()
    if getattr(ip, "kernel", None) is None:
        escape_unwritable(sys.stdout, sys.stderr)
    magics = KlingMagics(parent=ip, shell=ip)
    ip.register_magics(magics)
    magics.stay_loaded()
    # At each cell too, because `%load_ext autoreload` may come later.
    ip.events.register("pre_run_cell", magics.stay_loaded)
    if shield not in ip.input_transformers_cleanup:
        ip.input_transformers_cleanup.insert(0, shield)
    completion.install(ip)
    if getattr(ip, "kernel", None) is not None:
        # Of this loading: its callbacks are taken away with it.
        magics.loader = warming.Warming()
        ip.events.register("pre_run_cell", magics.loader.cell_begins)
        ip.events.register("post_run_cell", magics.loader.cell_ends)


def _refuse_old_ipython() -> None:
    # Colab pins 7.34: an installation brings a newer one, and the kernel goes on with what it has loaded.
    if IPython.version_info[:2] >= _NEEDED:
        return
    needed = ".".join(map(str, _NEEDED))
    raise SettingsError(
        f"IPython {IPython.__version__} is loaded, and kling_nb needs {needed} or newer.",
        cure=f"Restart the runtime (the kernel); if that is not enough, `%pip install 'ipython>={needed}'`.",
    )


def unload(ip: Any) -> None:
    """Take the magics away; runs on their way go on, and the ledger keeps them.

    Args:
        ip: The shell.
    """
    completion.remove(ip)
    if shield in ip.input_transformers_cleanup:
        ip.input_transformers_cleanup.remove(shield)
    magics = ip.magics_manager.registry.get("KlingMagics")
    if magics is not None and magics.stay_loaded in ip.events.callbacks["pre_run_cell"]:
        ip.events.unregister("pre_run_cell", magics.stay_loaded)
    if magics is not None and magics.loader is not None:
        ip.events.unregister("pre_run_cell", magics.loader.cell_begins)
        ip.events.unregister("post_run_cell", magics.loader.cell_ends)
        magics.loader.stop()
    for kind in ("cell", "line"):
        ip.magics_manager.magics[kind].pop("kling", None)
    ip.magics_manager.registry.pop("KlingMagics", None)
    ip.configurables[:] = [c for c in ip.configurables if type(c).__name__ != "KlingMagics"]
    if "kling_nb.notebook.surroundings" in sys.modules:
        sys.modules["kling_nb.notebook.surroundings"].detach(ip)
