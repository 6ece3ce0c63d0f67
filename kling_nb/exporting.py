"""`kling.export`: the clips of runs, under the names another tool asks for.

Invariants: every clip is verified against its recorded SHA-256 before it goes out; runs that failed are told
of, not passed over; nothing is bought.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kling_nb.api import current
from kling_nb.crate import write_crate
from kling_nb.engine import Run
from kling_nb.errors import UsageError
from kling_nb.exports import Export, Placed, Sample, check_origin, lay_out, prompt_of
from kling_nb.layouts import find_layout, read_rows
from kling_nb.methods import methods
from kling_nb.session import Session

__all__ = ["describe_methods", "export"]


def export(
    runs: Iterable[Run] | None = None,
    folder: str | Path = "export",
    *,
    layout: str = "videofolder",
    plan: Iterable[Mapping[str, Any] | str] | None = None,
    samples: int | None = None,
    allow_sandbox: bool = False,
    name: str = "Clips and their runs",
    licence: str = "not stated",
    session: Session | None = None,
) -> Export:
    """Lay clips out for another tool: hard links where possible, else copies; costs nothing.

    Args:
        runs: Handles; every ended run of the ledger unless given.
        folder: Where to; beside it a `.export.json` says which run each clip is.
        layout: `vbench`, `vbench-custom`, `vbench2`, `video-bench`, `t2v-compbench`, `evalcrafter`,
            `phygenbench`, `physics-iq`, `videogen-eval`, `videophy`, `videofolder` or `webdataset`; or
            `crate`, an RO-Crate of every attempt.
        plan: The suite's prompts in its order, as texts or as rows with `prompt_en` or `prompt`, and
            `dimension` where names need one; by default the prompts of the runs.
        samples: Clips of each prompt, 1 or more.
        allow_sandbox: Whether clips of the sandbox may go out.
        name: Of the crate, one line.
        licence: Of the crate: an address or a name.
        session: Whose ledger and folders; the process's own unless given.

    Returns:
        What was written, and what is missing and why.

    Raises:
        UsageError: The runs do not fit the layout, or a name is not possible.
        StoreError: A file is in the way, or the folder cannot be written.

    Example:
        >>> export(fox_runs, "vbench/clips", layout="vbench")   # doctest: +SKIP
        20 clips as vbench in vbench/clips; nothing is missing
    """
    rule = None if layout == "crate" else find_layout(layout)
    if samples is not None and (isinstance(samples, bool) or not isinstance(samples, int) or samples < 1):
        raise UsageError("samples: should be a whole number, 1 or more.", cure="Nothing was written.")
    found = _find(runs, session or current())
    if rule is None:
        check_origin(found, allow_sandbox=allow_sandbox)
        description = f"Every attempt of {len(found)} runs, with its request, its clip or its reason."
        write_crate(found, Path(folder), name=name, description=description, licence=licence)
        return Export(folder=Path(folder), layout=layout, placed=tuple(map(_in_crate, filter(_here, found))))
    return lay_out(
        found,
        Path(folder),
        rule,
        rows=None if plan is None else read_rows(plan),
        count=samples,
        allow_sandbox=allow_sandbox,
    )


def describe_methods(runs: Iterable[Run] | None = None, *, session: Session | None = None) -> str:
    """Write the paragraph and the table that a paper needs; see `methods`.

    Args:
        runs: Handles; every run of the ledger unless given.
        session: Whose ledger; the process's own unless given.

    Returns:
        Markdown.
    """
    return methods([run.record for run in ((session or current()).runs() if runs is None else runs)])


def _find(runs: Iterable[Run] | None, session: Session) -> list[Sample]:
    """Find the clips of ended runs, each checked by its bytes."""
    engine, found = session.engine(), []
    for run in session.runs() if runs is None else list(runs):
        record = run.record
        if record.status.pending:
            continue
        store = engine.store(record.folder) if record.folder else None
        good = store is not None and record.media is not None and store.verify(record)
        found.append(Sample(record=record, path=store.path(record) if store is not None and good else None))
    return found


def _here(sample: Sample) -> bool:
    return sample.path is not None


def _in_crate(sample: Sample) -> Placed:
    name = sample.record.media.file if sample.record.media else ""
    return Placed(file=f"clips/{name}", sample=sample, prompt=prompt_of(sample.record))
