"""`kling.export`: the clips of runs, under the names another tool asks for.

Invariants: every clip is verified against its recorded SHA-256 before it goes out; runs that failed are told
of, not passed over; of a private run no word goes out; nothing is bought.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kling_nb.engine.run import Run
from kling_nb.errors import UsageError
from kling_nb.exports.crate import file_name, write_crate
from kling_nb.exports.disk import wrap_os_errors
from kling_nb.exports.layouts import find_layout, read_rows
from kling_nb.exports.methods import methods as describe
from kling_nb.exports.naming import Missing, Placed, Sample, prompt_of
from kling_nb.exports.videoalign import lay_out_votes
from kling_nb.exports.writer import Export, beside, check_origin, lay_out
from kling_nb.files import write_whole
from kling_nb.pricing.catalog import find_model
from kling_nb.ratings.pairing import By
from kling_nb.ratings.votes import standing, votes
from kling_nb.records.privacy import redacted
from kling_nb.records.run import RunRecord
from kling_nb.session.api import current
from kling_nb.session.session import Session

__all__ = ["METHODS", "describe_methods", "export"]

#: What the file with the paragraph and the table is called, after the export that it lies beside.
METHODS = "METHODS.md"


def export(
    runs: Iterable[Run] | None = None,
    folder: str | Path = "export",
    *,
    layout: str = "videofolder",
    plan: Iterable[Mapping[str, Any] | str] | None = None,
    samples: int | None = None,
    split: str | None = None,
    by: By = "model",
    methods: bool = False,
    allow_sandbox: bool = False,
    provider: str | None = None,
    model: str | None = None,
    tags: Mapping[str, str] | None = None,
    name: str = "Clips and their runs",
    licence: str = "not stated",
    session: Session | None = None,
) -> Export:
    """Lay clips out for another tool: hard links where possible, else copies; costs nothing.

    Args:
        runs: Handles; unless given, every run of the ledger, and of the folder beside the notebook.
        folder: Where to; beside it a `.export.json` says which run each clip is, and that it is done.
        layout: `vbench`, `vbench-custom`, `vbench2`, `video-bench`, `t2v-compbench`, `evalcrafter`,
            `phygenbench`, `physics-iq`, `videogen-eval`, `videophy`, `videoalign`, `videofolder` or
            `webdataset`; or `crate`, an RO-Crate of every attempt.
        plan: The suite's prompts in its order, as texts or as rows with `prompt_en` or `prompt`, and
            `dimension` where names need one; by default the prompts of the runs.
        samples: Clips of each prompt, 1 or more.
        split: `train`, `validation` or `test` for `videofolder`; a tag `split` of a run outranks it.
        by: What the pairs of `videoalign` differ in: `model`, `provider`, `tag:KEY`, or a function.
        methods: Whether to write beside the folder what a paper needs, see `describe_methods`.
        allow_sandbox: Whether clips of the sandbox may go out.
        provider: Where no runs are given, only those of this one.
        model: The same, by our id or another name of the model.
        tags: The same, only those with all of these.
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
    session, folder = session or current(), Path(folder)
    given = None if runs is None else [run.record for run in runs]
    every, unread = _attempts(given, session)
    wanted = {"provider": provider, "model": None if model is None else find_model(model).id}
    if given is None:
        every = [record for record in every if _fits(record, wanted, tags or {})]
    elif tags or any(wanted.values()):
        raise UsageError(
            "Runs are given, and besides it is said which to take.",
            cure="Nothing was written: say one of both.",
        )
    if not every:
        such = "such " if tags or any(wanted.values()) else ""
        raise UsageError(
            f"There are no {such}runs to export, here or in the ledger.",
            cure="Nothing was written. `%kling list` says what there is.",
        )
    # Whoever names no run means those of models; who has none of these is told to say so.
    drawn = [record.id for record in every if record.provider == "sandbox"]
    if given is not None or allow_sandbox or len(drawn) == len(every):
        drawn = []
    every = [record for record in every if record.id not in set(drawn)]
    found = [_sample(record, session) for record in (every if given is None or rule is None else given)]
    unread = unread if given is None else ""
    gone = [Missing(file="the ledger", why=unread)] if unread else []
    if rule is None:
        made = _crate(found, folder, name=name, licence=licence, allow_sandbox=allow_sandbox)
        made = replace(made, missing=(*made.missing, *gone))
    elif rule.name == "videoalign":
        _refuse(rule.name, plan=plan, samples=samples, split=split)
        cast = standing(votes(session.ledger(), runs={sample.record.id for sample in found}))
        made = lay_out_votes(found, folder, cast, by=by, allow_sandbox=allow_sandbox, missing=gone)
    else:
        rows = None if plan is None else read_rows(plan)
        choice: dict[str, Any] = {"rows": rows, "count": samples, "split": split, "missing": gone}
        made = lay_out(found, folder, rule, **choice, allow_sandbox=allow_sandbox)
    if methods:
        with wrap_os_errors(folder):
            write_whole(
                beside(folder, METHODS), f"{_methods_text(every, unread)}\n".encode("utf-8", "replace")
            )
    return replace(made, drawn=tuple(drawn))


def describe_methods(runs: Iterable[Run] | None = None, *, session: Session | None = None) -> str:
    """Write the paragraph and the table that a paper needs, with every attempt counted; see `methods`.

    Args:
        runs: Handles, each with every other attempt at the same sample; every run of the ledger unless given.
        session: Whose ledger; the process's own unless given.

    Returns:
        Markdown.
    """
    given = None if runs is None else [run.record for run in runs]
    every, unread = _attempts(given, session or current())
    return _methods_text(every, unread if given is None else "")


def _methods_text(every: Sequence[RunRecord], unread: str) -> str:
    return "\n\n".join([describe(every), *([f"Not counted: {unread}"] if unread else [])])


def _attempts(given: Sequence[RunRecord] | None, session: Session) -> tuple[list[RunRecord], str]:
    """Give every attempt at what was given: those that failed before it are as much a part of a method."""
    # Beside the ledger's there are those of the notebook's folder: a colleague has nothing else. What cannot
    # be read of the ledger is told, too.
    listed = session.runs()
    known = {run.id: run.record for run in listed}
    for record in session.engine().store(session.media_folder()).sidecars():
        known.setdefault(record.id, record)
    if given is None:
        return list(known.values()), listed.note
    keys, ids = {record.run_key for record in given}, {record.id for record in given}
    others = (record for record in known.values() if record.run_key in keys and record.id not in ids)
    return [*given, *others], listed.note


def _fits(record: RunRecord, wanted: Mapping[str, str | None], tags: Mapping[str, str]) -> bool:
    return all(value is None or getattr(record, name) == value for name, value in wanted.items()) and all(
        record.tags.get(key) == value for key, value in tags.items()
    )


def _sample(record: RunRecord, session: Session) -> Sample:
    """Find the clip of a run, checked by its bytes."""
    store = session.engine().store(record.folder) if record.folder else None
    good = store is not None and record.media is not None and store.verify(record)
    return Sample(record=redacted(record), path=store.path(record) if store is not None and good else None)


def _refuse(layout: str, **given: object) -> None:
    named = [name for name, value in given.items() if value is not None]
    if named:
        raise UsageError(f"The layout {layout} takes no {named[0]}.", cure="Nothing was written.")


def _crate(found: Sequence[Sample], folder: Path, *, name: str, licence: str, allow_sandbox: bool) -> Export:
    ended = [sample for sample in found if sample.record.status.ended]
    check_origin(ended, allow_sandbox=allow_sandbox)
    description = f"Every attempt of {len(ended)} runs, with its request, its clip or its reason."
    write_crate(ended, folder, name=name, description=description, licence=licence)
    waiting = [sample.record.id for sample in found if sample.record.status.pending]
    return Export(
        folder=folder,
        layout="crate",
        placed=tuple(_in_crate(sample) for sample in ended if sample.path is not None),
        missing=tuple(Missing(file=run, why=f"{run} is still on its way") for run in waiting),
    )


def _in_crate(sample: Sample) -> Placed:
    return Placed(file=f"clips/{file_name(sample)}", sample=sample, prompt=prompt_of(sample.record))
