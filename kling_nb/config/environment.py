"""Where things are: the notebook, its media folder, and whether anybody is looking.

Invariants: a place is taken only if its folder exists on this machine; nothing is created; no guess
sends clips into another notebook's folder.
"""

import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kling_nb.addresses import is_address
from kling_nb.records.provenance import Cell
from kling_nb.records.run import FrontEnd

if TYPE_CHECKING:
    from kling_nb.config.settings import Settings

__all__ = [
    "MEDIA_FOLDER",
    "Surroundings",
    "front_end",
    "is_headless",
    "media_folder",
    "notebook_path",
    "run_by_server",
    "script",
]

MEDIA_FOLDER = "kling_media"

# VS Code names its sessions on a remote server `<notebook>-jvsc-<uuid>` (microsoft/vscode-jupyter).
_VS_CODE_SUFFIX = re.compile(r"-jvsc-[0-9a-f-]+(?=\.ipynb$|$)")


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Where a call comes from; a notebook face fills it in.

    Args:
        notebook: The notebook's file, if it is known.
        folder: The folder that relative addresses in outputs are resolved against.
        headless: Whether nobody is watching.
        live: Whether the page takes updates of an output that is there, and shows widgets.
        front: The page that shows the outputs, where it is one that plays no file from beside the notebook.
        cell: The cell that is being run, if it is one.
    """

    notebook: Path | None = None
    folder: Path | None = None
    headless: bool = False
    live: bool = True
    front: FrontEnd = ""
    cell: Cell | None = None

    def media_folder(self, settings: "Settings") -> Path:
        """Say where the clips of a call go that is made here and now."""
        return media_folder(settings, self.notebook, self.folder or Path.cwd())


def script() -> Surroundings:
    """Tell of a plain Python process: no kernel, so a missing terminal means that nobody is watching."""
    watching = sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()
    return Surroundings(folder=Path.cwd(), headless=is_headless(None, watching))


def notebook_path(
    environ: Mapping[str, str], user_ns: Mapping[str, Any], *, cwd: Path | None = None, headless: bool = False
) -> Path | None:
    """Find the notebook that is being run.

    Papermill's output (`PAPERMILL_OUTPUT_PATH`, which papermill injects as a variable with
    `--inject-output-path`), then VS Code's `__vsc_ipynb_file__`, then `JPY_SESSION_NAME` of the Jupyter
    server; papermill's comes last where somebody is looking, since the variable stays in the saved notebook
    and speaks of an earlier run. Plain `nbconvert --execute` and papermill without that flag say nothing.

    Args:
        environ: The environment.
        user_ns: The variables of the notebook.
        cwd: The working folder when the package was loaded; by default the present one.
        headless: Whether nobody is looking. A headless kernel started from within a notebook inherits that
            notebook's `JPY_SESSION_NAME`, so it counts only if it points into the working folder.

    Returns:
        An absolute path, or None where nobody knows. After a rename it is still the old name, because the
        server does not tell the kernel.

    Source:
        Measured with jupyter_server 2.21: an absolute path, `<root>/<folder>/<name>`, or a path relative to
        the server's root where the front end gave the session no name.

    Example:
        >>> notebook_path({}, {}) is None
        True
    """
    cwd = cwd or Path.cwd()
    papermill = _papermill(
        user_ns.get("PAPERMILL_OUTPUT_PATH") or environ.get("PAPERMILL_OUTPUT_PATH"), cwd, environ
    )
    live = _vs_code(user_ns.get("__vsc_ipynb_file__")) or _jupyter_server(
        environ.get("JPY_SESSION_NAME"), cwd, headless=headless
    )
    return (papermill or live) if headless else (live or papermill)


def media_folder(settings: "Settings", notebook: Path | None, cwd: Path) -> Path:
    """Say where the clips go.

    Args:
        settings: Whose `media` wins.
        notebook: The notebook, if known.
        cwd: The working folder when the package was loaded.

    Returns:
        An absolute path; the folder need not exist.

    Example:
        >>> from kling_nb.config.settings import Settings
        >>> media_folder(Settings(), Path("/home/ada/a.ipynb"), Path("/tmp")).as_posix()
        '/home/ada/kling_media'
    """
    if settings.media is not None and not is_address(settings.media):
        return Path(settings.media)
    return (cwd if notebook is None else notebook.parent) / MEDIA_FOLDER


def is_headless(kernel_allow_stdin: bool | None, stdin_isatty: bool) -> bool:  # noqa: FBT001 - two plain facts
    """Say whether nobody is there to look or answer.

    Args:
        kernel_allow_stdin: `allow_stdin` of the cell's request; None outside a kernel. nbclient, papermill
            and nbconvert send False, notebook pages send True (measured).
        stdin_isatty: Whether standard input is a terminal; counts outside a kernel only.

    Returns:
        True for headless.

    Example:
        >>> is_headless(False, True), is_headless(True, False), is_headless(None, True)
        (True, False, False)
    """
    return not (stdin_isatty if kernel_allow_stdin is None else kernel_allow_stdin)


def run_by_server(request: Mapping[str, Any], environ: Mapping[str, str]) -> bool:
    """Say whether the notebook's server ran a cell, and not its page, so that the page gets no updates.

    Args:
        request: The message that asked for the cell.
        environ: The environment.

    Returns:
        True also for papermill that was started from within a notebook, which looks the same.

    Source:
        Measured with JupyterLab 4.6: its page puts the cell's id into the request. jupyter-server-documents
        0.3.3 does not, and sends `allow_stdin` False; what updates an output is put below it there.
        jupyter-server-nbmodel 0.2.9 sends True, and drops updates. Both ask by jupyter_client, whose
        messages are numbered; those of pages have a UUID. nbclient and papermill outside of a notebook
        have no `JPY_SESSION_NAME`.

    Example:
        >>> run_by_server({"content": {"allow_stdin": False}}, {"JPY_SESSION_NAME": "/home/ada/a.ipynb"})
        True
    """
    if not environ.get("JPY_SESSION_NAME") or "cellId" in request.get("metadata", {}):
        return False
    numbered = re.search(r"_[0-9]+$", str(request.get("header", {}).get("msg_id", "")))
    return numbered is not None or not request.get("content", {}).get("allow_stdin", False)


def front_end(environ: Mapping[str, str], user_ns: Mapping[str, Any], modules: Collection[str]) -> FrontEnd:
    """Say whether the page that shows the outputs is one that plays no file from beside the notebook.

    Args:
        environ: The environment.
        user_ns: The variables of the notebook.
        modules: Names of the modules that are loaded.

    Returns:
        `vscode`, `colab`, or nothing for any other.

    Source:
        Looked up on 2026-11-21, not run here. VS Code sets the variable `__vsc_ipynb_file__`, and names its
        sessions on a remote server with `-jvsc-`. `VSCODE_PID` alone is also inherited by a JupyterLab that
        was started from its terminal (plotly/plotly.py issue 2533), whose server names a session, and is
        missing in WSL, where `VSCODE_CWD` is set (holoviz/panel issue 5200). VS Code resolves no relative
        address in an output (microsoft/vscode issue 172867). Colab's kernel loads `google.colab`; its page
        plays a clip only where it is in the output (ManimCommunity/manim issue 3741).

    Example:
        >>> front_end({"VSCODE_PID": "1", "JPY_SESSION_NAME": "/home/ada/a.ipynb"}, {}, ())
        ''
    """
    session = environ.get("JPY_SESSION_NAME", "")
    if "__vsc_ipynb_file__" in user_ns or "-jvsc-" in session:
        return "vscode"
    if "google.colab" in modules:
        return "colab"
    return "vscode" if not session and ("VSCODE_PID" in environ or "VSCODE_CWD" in environ) else ""


def _papermill(value: object, cwd: Path, environ: Mapping[str, str]) -> Path | None:
    if not isinstance(value, str) or "://" in value or value in {"", "-"}:
        return None
    # A relative output is relative to papermill's folder; `--cwd` moves the kernel away from it, but the
    # inherited PWD still names it. Papermill writes the output before it runs the first cell.
    places = [base / value for base in (cwd, Path(environ.get("PWD") or cwd))]
    return next((_absolute(p) for p in places if p.is_file()), None) or next(
        (_absolute(p) for p in places if p.parent.is_dir()), None
    )


def _vs_code(value: object) -> Path | None:
    # With a remote kernel this is a path on the other machine.
    if not isinstance(value, str) or not Path(value).is_absolute() or not Path(value).parent.is_dir():
        return None
    return _absolute(Path(value))


def _jupyter_server(value: str | None, cwd: Path, *, headless: bool) -> Path | None:
    if not value or "\0" in value or value.endswith(("/", "\\")):
        return None
    path = Path(value)
    if not path.is_absolute():
        # The server starts the kernel in the notebook's own folder, and names it from its root.
        path = next(
            (p for p in (base / path for base in (cwd, *cwd.parents)) if p.is_file()), cwd / path.name
        )
    if not path.is_file():
        path = path.with_name(_VS_CODE_SUFFIX.sub("", path.name))
    # Consoles have a session name too, and it is no file.
    if not path.is_file() and not (path.suffix == ".ipynb" and path.parent.is_dir()):
        return None
    if headless and path.parent.resolve() != cwd.resolve():
        return None
    return _absolute(path)


def _absolute(path: Path) -> Path:
    return Path.cwd() / path
