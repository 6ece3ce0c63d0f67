"""The demonstration: a real notebook run headless in the sandbox, with no key and no money.

Invariants: the kernel is told to use the sandbox whatever keys there are; everything it writes lies in one
folder of its own; every figure in the table is read from what the run left behind.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kling_nb.errors import UsageError, installed
from kling_nb.exports.page import write_page
from kling_nb.pricing.catalog import models, provider_label
from kling_nb.pricing.estimate import estimate
from kling_nb.records.money import usd
from kling_nb.records.privacy import words_of
from kling_nb.records.receipt import from_receipt, receipts_in
from kling_nb.records.receipt_model import RECEIPT_MIME
from kling_nb.records.run import RunRecord
from kling_nb.views.tables import text_table
from kling_nb.views.words import counted, state_word

__all__ = ["Demo", "read_prompts", "run_demo"]

PROMPTS = (
    "A lighthouse keeper climbs a spiral stair at dusk, the lamp turning above, slow tracking shot",
    "Macro of rain falling on a tin roof, each drop bursting into light, locked camera",
    "A paper boat drifts down a flooded street between parked bicycles, low angle, soft morning haze",
)

#: Rows of the VBench prompts: fire, water and a creature; all in English.
VBENCH_ROWS = (712, 736, 758)


@dataclass(frozen=True)
class Demo:
    """What a demonstration left behind.

    Args:
        notebook: The notebook as its first pass left it.
        page: The same as one HTML page, with the clips inside.
        records: A record a prompt.
        second_pass_new: Runs that a second Run All sent; 0 keeps the promise.
    """

    notebook: Path
    page: Path
    records: tuple[RunRecord, ...]
    second_pass_new: int

    def words(self, width: int | None = None) -> str:
        """Say how it went, what there is to look at, and where to go next.

        Args:
            width: Columns of the terminal; None where lines may be of any length.
        """
        kept = counted(len(self.records), "clip")
        new = counted(self.second_pass_new, "new run")
        tutorial = Path("notebooks/01_first_video.ipynb")
        lab = f"`make lab` opens {tutorial}; " if tutorial.exists() and Path("Makefile").exists() else ""
        return "\n".join(
            [
                self.table(width),
                "",
                f"Run All a second time sent {new} and reused {kept}.",
                f"Notebook: {self.notebook}",
                f"Page:     {self.page} (open it in a browser: the clips are inside)",
                f"Next:     {lab}in a notebook of your own: %load_ext kling_nb, then %kling help",
            ]
        )

    def table(self, width: int | None = None) -> str:
        """Give the outcome as text: prompt, status, seconds, clip, would-cost at each provider, file.

        Args:
            width: Columns of the terminal; None where lines may be of any length.
        """
        sellers = [name for name in models()[self.records[0].model].providers if name != "sandbox"]
        rows = []
        for record in self.records:
            words = words_of(record)
            media = record.media
            rows.append(
                [
                    words,
                    state_word(record),
                    f"{record.seconds:.1f}" if record.seconds is not None else "unknown",
                    f"{media.duration_s:.2f}" if media else "-",
                    *(usd(estimate(record.request, models()[record.model], name).micros) for name in sellers),
                    media.file if media else "-",
                ]
            )
        costs = [f"would cost at {provider_label(name)}" for name in sellers]
        return text_table(
            ["prompt", "status", "seconds", "seconds of video", *costs, "file"],
            rows,
            align="elrr" + "r" * len(costs) + "l",
            width=width,
        )


def read_prompts(path: Path | None) -> tuple[str, ...]:
    """Give three prompts: real ones from a file of VBench rows, else our own.

    Args:
        path: JSON lines with `prompt_en`, or None.

    Returns:
        Three prompts.

    Raises:
        UsageError: The file is not like that.
    """
    if path is None:
        return PROMPTS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return tuple(str(json.loads(lines[row])["prompt_en"]) for row in VBENCH_ROWS)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{path.name} holds no VBench prompts: {type(error).__name__}.") from None


def run_demo(folder: Path, prompts: Sequence[str]) -> Demo:
    """Write a notebook, run it twice in a fresh kernel each, and make a page of the first pass.

    Args:
        folder: Where everything goes; an earlier demonstration in it is removed.
        prompts: One cell each.

    Returns:
        What it left behind.

    Raises:
        UsageError: `nbclient`, `nbconvert` or `ipykernel` is missing, or the folder holds something else.
    """
    cure = "Run `make demo`, or install ipykernel, nbclient and nbconvert."
    # The last one is for the page at the end.
    nbformat, nbclient, _ = (installed(name, cure) for name in ("nbformat", "nbclient", "nbconvert"))
    folder = folder.resolve()
    _clear(folder)
    source = folder / "demo.ipynb"
    nbformat.write(_notebook(prompts), source)
    passes = []
    for _ in range(2):
        notebook = nbformat.read(source, as_version=4)
        with _environment(folder):
            nbclient.NotebookClient(
                notebook,
                timeout=600,
                kernel_name="python3",
                extra_arguments=["--log-level=ERROR"],
                resources={"metadata": {"path": str(folder)}},
            ).execute()
        passes.append(_records(notebook))
        if len(passes) == 1:
            nbformat.write(notebook, source)
    known = {record.id for record in passes[0]}
    return Demo(
        notebook=source,
        page=write_page(source, embed=True).path,
        records=passes[0],
        second_pass_new=sum(record.id not in known for record in passes[1]),
    )


def _clear(folder: Path) -> None:
    marker = folder / ".kling-nb-demo"
    if folder.exists() and any(folder.iterdir()):
        if not marker.exists():
            raise UsageError(
                f"{folder} holds something else than a demonstration.", cure="Choose an empty folder."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    marker.touch()


def _notebook(prompts: Sequence[str]):  # type: ignore[no-untyped-def]  # noqa: ANN202 - nbformat ships no types
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    cells = [
        new_markdown_cell(
            "# kling_nb in the sandbox\n\nNo key, no money: every clip below is marked SANDBOX."
        ),
        new_code_cell("%load_ext kling_nb"),
        *(new_code_cell(f"%%kling clip{n} --no-wait\n{prompt}") for n, prompt in enumerate(prompts, 1)),
        new_code_cell("%kling wait"),
        new_code_cell("%kling cost"),
    ]
    return new_notebook(
        cells=cells,
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )


@contextmanager
def _environment(folder: Path) -> Iterator[None]:
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith(("KLING_NB_", "RUNFLOW_", "RUNCOMFY_")) and name != "KLING_NB_SANDBOX_WAIT":
            del os.environ[name]
    os.environ["KLING_NB_PROVIDER"] = "sandbox"
    os.environ["KLING_NB_LEDGER"] = str(folder / "ledger.db")
    os.environ["KLING_NB_PROJECT"] = "demo"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _records(notebook: object) -> tuple[RunRecord, ...]:
    found: dict[str, RunRecord] = {}
    for cell in notebook.cells:  # type: ignore[attr-defined]
        for output in cell.get("outputs", []):
            for receipt in receipts_in(output.get("data", {}).get(RECEIPT_MIME)):
                record = from_receipt(receipt)
                found[record.id] = record
    return tuple(found.values())
