"""Run the tutorials that are kept with their outputs, so that what they show stays true.

Run `make notebooks`. Each one runs from top to bottom in a fresh kernel, in an empty folder, with settings of
its own and no key: in the sandbox, with play money. Of what it shows only two things are written anew: the id
of its session, because it counts processes, and the port of the sandbox. Where anything else would tell of
this machine, nothing is written. Names after the command run only those.
"""

import getpass
import os
import re
import socket
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from kling_nb.records.receipt import receipts_in
from kling_nb.records.receipt_model import RECEIPT_MIME

FOLDER = Path(__file__).parents[2] / "notebooks"
KEPT = ("02_cost_and_budgets.ipynb", "05_share_and_export.ipynb", "07_team.ipynb")
_SESSION = re.compile(r"\bs-[0-9]{8}-[0-9]{6}-[0-9]+-[0-9a-f]{4}\b")
_PORT = re.compile(r"(?<=127\.0\.0\.1:)[0-9]+")
_OURS = ("KLING_NB_", "RUNFLOW_", "RUNCOMFY_", "JPY_", "PAPERMILL_")


def environment(folder: Path) -> dict[str, str]:
    """Give the environment of a tutorial: nobody's settings, nobody's keys, nobody's name.

    Args:
        folder: An empty folder; home, settings and ledger are in it.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    home = folder / "home"
    home.mkdir()
    return clean | {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_DATA_HOME": str(home / "data"),
        "JUPYTERHUB_USER": "demo",
        "KLING_NB_LEDGER": str(folder / "ledger.db"),
        "KLING_NB_PROJECT": "demo",
        "KLING_NB_SANDBOX_WAIT": "0",
    }


def execute(source: NotebookNode, folder: Path) -> NotebookNode:
    """Run a notebook from top to bottom, and give it with its outputs and no times.

    Args:
        source: The notebook.
        folder: An empty folder, where everything that it makes stays.
    """
    made = nbformat.from_dict(source)
    work = folder / "notebooks"
    work.mkdir()
    before, own = dict(os.environ), environment(folder)
    os.environ.clear()
    os.environ.update(own)
    try:
        NotebookClient(
            made,
            timeout=300,
            kernel_name="python3",
            extra_arguments=["--log-level=ERROR"],
            record_timing=False,
            resources={"metadata": {"path": str(work)}},
        ).execute()
    finally:
        os.environ.clear()
        os.environ.update(before)
    made.metadata.language_info = {"name": "python"}
    return made


def drop_stand_ins(made: NotebookNode) -> None:
    """Take out the receipts of runs at a provider's address, which a server of the notebook's own had.

    Each counts as a clip that was paid for: where that server is gone, who runs the notebook would be
    refused a new one.
    """
    for cell in made.cells:
        for output in cell.get("outputs", []):
            receipt = output.get("data", {}).get(RECEIPT_MIME)
            if any(one["provider"] != "sandbox" for one in receipts_in(receipt)):
                del output["data"][RECEIPT_MIME]


def leaks(text: str, names: Iterable[str] = ()) -> list[str]:
    """Find what an output must not tell of the machine that made it: folders, names, ports.

    Args:
        text: A saved notebook.
        names: Of that machine and its user.
    """
    words = [name for name in names if len(name) > 3 and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)]
    # Port 9 is nobody's: it stands for the one that the sandbox had.
    own = r"(?:127\.0\.0\.1|localhost):(?!9\b)[0-9]+[^\"\s]*|/(?:home|Users|root|tmp)/[^\"\s]*"
    return words + re.findall(own, text)


def main() -> None:
    """Run every tutorial that is kept with its outputs, and write it."""
    names = {
        getpass.getuser(),
        socket.gethostname(),
        str(Path.home()),
        tempfile.gettempdir(),
        str(Path.cwd()),
    }
    for name in sys.argv[1:] or KEPT:
        path = FOLDER / name
        with tempfile.TemporaryDirectory() as folder:
            made = execute(nbformat.read(path, as_version=4), Path(folder))
        drop_stand_ins(made)
        text = _SESSION.sub("s-20261121-120000-1-demo", _PORT.sub("9", nbformat.writes(made))) + "\n"
        if found := leaks(text, names):
            raise SystemExit(f"{name} would tell of this machine: {', '.join(found)}")
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"notebooks/{name}, {len(text) / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
