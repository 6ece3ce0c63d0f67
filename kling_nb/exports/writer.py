"""Clips under the names that another tool asks for: hard links where possible, else copies.

Invariants: a clip of the store is never renamed or changed; nothing is written before every name is known
to be possible and every clip verified; a file that is there already is kept if it is the same and else
refuses the export; a sample that is missing is reported with the reason; clips of the sandbox go out only
when that was asked for.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kling_nb.addresses import is_loopback
from kling_nb.errors import UsageError
from kling_nb.exports.disk import (
    check_case,
    check_names,
    check_place,
    check_way,
    foreign_files,
    put_clips,
    sweep,
    wrap_os_errors,
)
from kling_nb.exports.index import index_files, write_tar
from kling_nb.exports.layouts import Layout, Row
from kling_nb.exports.naming import Missing, Placed, Sample, name_clips
from kling_nb.files import write_whole
from kling_nb.records.receipt import to_receipts
from kling_nb.records.run import RunRecord
from kling_nb.views.html import tag
from kling_nb.views.words import counted, there_are

__all__ = ["Export", "beside", "check_origin", "is_stand_in", "lay_out"]

_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Export:
    """What an export wrote, and what it could not.

    Args:
        folder: Where.
        layout: By which rule.
        placed: The clips.
        missing: What the layout asks for and is not there.
        left_out: Ids of runs that no prompt of the plan, or no number of samples, asked for.
        foreign_files: Files in the folder that are not of this export, and that a tool would read, too.
        drawn: Ids of runs of the sandbox, which no model made: none of them was named, so they stay here.
        votes: How many went out, for a layout of votes.

    Example:
        >>> Export(folder=Path("out"), layout="vbench").complete
        True
    """

    folder: Path
    layout: str
    placed: tuple[Placed, ...] = ()
    missing: tuple[Missing, ...] = ()
    left_out: tuple[str, ...] = ()
    foreign_files: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()
    votes: int | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing

    @property
    def listed(self) -> dict[str, Any]:
        """What went where, and what is missing, as plain data."""
        return {
            "clips": {one.file: one.sample.record.id for one in self.placed},
            "missing": {gone.file: gone.why for gone in self.missing},
            "left_out": list(self.left_out),
            "strangers": list(self.foreign_files),
        }

    def _repr_html_(self) -> str:
        return tag("div", repr(self), style="white-space:pre-wrap")

    def __repr__(self) -> str:
        words = f"{counted(len(self.placed), 'clip')} as {self.layout} in {self.folder}"
        if self.votes is not None:
            words = f"{counted(self.votes, 'vote')} on {words}"
        if self.left_out:
            words += f"; {counted(len(self.left_out), 'run')} left out"
        if self.drawn:
            words += f"; {counted(len(self.drawn), 'run')} of the sandbox left out"
        if self.foreign_files:
            words += f"; {there_are(len(self.foreign_files), 'file')} there that are not of this export"
        if not self.missing:
            return f"{words}; nothing is missing"
        some = "\n".join(f"  {gone.file}: {gone.why}" for gone in self.missing[:_SHOWN])
        more = f"\n  and {len(self.missing) - _SHOWN} more" if len(self.missing) > _SHOWN else ""
        return f"{words}; {len(self.missing)} are missing:\n{some}{more}"


def lay_out(
    samples: Sequence[Sample],
    folder: Path,
    layout: Layout,
    *,
    rows: Sequence[Row] | None = None,
    count: int | None = None,
    split: str | None = None,
    allow_sandbox: bool = False,
    index: "Callable[[Sequence[Placed]], Mapping[str, bytes]] | None" = None,
    missing: "Sequence[Missing]" = (),
) -> Export:
    """Lay clips out for another tool.

    Args:
        samples: Runs and their clips; of several attempts at a take the newest success counts.
        folder: Where to; made if it is not there.
        layout: The rule.
        rows: The suite's prompts; without them, the prompts of the runs in order of their first run.
        count: Samples of each prompt, 1 or more; by default as many as the tool asks for where rows are
            given, else as many as there are.
        split: `train`, `validation` or `test`, for clips without a tag `split`, where the layout has it.
        allow_sandbox: Whether clips of the sandbox, which no model made, may go out.
        index: Writes the layout's other files from the clips; by default as `exportindex` does.
        missing: What the caller knows to be missing, beside what is found here.

    Returns:
        What was written and what is missing.

    Raises:
        UsageError: The runs or the plan do not fit the layout, or a name is not possible here.
        StoreError: A file is in the way, or the folder cannot be written.
    """
    check_origin(samples, allow_sandbox=allow_sandbox)
    with wrap_os_errors(folder):
        check_place(folder, [sample.path for sample in samples])
    found = name_clips(samples, layout, rows=rows, count=count, split=split)
    placed, names = found.placed, [one.file for one in found.placed]
    write = index or (lambda placed: index_files(layout.index, placed))
    whole: dict[str, bytes] = dict(write(placed))
    tar = layout.index if layout.index == "clips.tar" and placed else ""
    other: dict[str, bytes | None] = {**whole, **({tar: None} if tar else {})}
    with wrap_os_errors(folder):
        check_names(folder, names)
        check_case(folder, names)
        # An index of our own earlier export may be written anew; a stranger's is in the way.
        before = {} if _is_ours(folder, layout) else other
        sweep(folder)
        new = check_way(folder, () if tar else placed, before)
        _write_manifest(folder, {"layout": layout.name, "done": False})
        if tar:
            folder.mkdir(parents=True, exist_ok=True)
            write_tar(folder, tar, placed)
        else:
            put_clips(folder, new)
        for name, data in whole.items():
            write_whole(folder / name, data)
        own = [*other, *(() if tar else names)]
        made = Export(
            folder=folder,
            layout=layout.name,
            placed=placed,
            missing=(*found.missing, *missing),
            left_out=found.left_out,
            foreign_files=foreign_files(folder, own) if folder.is_dir() else (),
        )
        _write_manifest(folder, _listed(made))
    return made


def beside(folder: Path, ending: str) -> Path:
    """Name a file that tells of an export and lies beside it: inside, tools look for clips only.

    Args:
        folder: Of the export.
        ending: What follows its name.

    Returns:
        The path.

    Example:
        >>> beside(Path("out/clips"), "export.json").as_posix()
        'out/clips.export.json'
    """
    named = folder if folder.name not in {"", ".."} else Path(os.path.abspath(folder))  # noqa: PTH100 - links stay
    return named.with_name(f"{named.name}.{ending}")


def check_origin(samples: Iterable[Sample], *, allow_sandbox: bool) -> None:
    """Refuse clips that no model made, unless that was asked for.

    Raises:
        UsageError: There are some.
    """
    played = [sample.record.id for sample in samples if sample.record.provider == "sandbox" and sample.path]
    if played and not allow_sandbox:
        clips = "One clip was" if len(played) == 1 else f"{len(played)} clips were"
        raise UsageError(
            f"{clips} drawn by the sandbox, not made by a model: {', '.join(played[:_SHOWN])}"
            f"{f' and {len(played) - _SHOWN} more' if len(played) > _SHOWN else ''}.",
            cure="Nothing was written. Leave them out, or try the export with `--allow-sandbox` "
            "(in Python `allow_sandbox=True`).",
        )


def is_stand_in(record: RunRecord) -> bool:
    """Whether something on this machine stood in for the provider."""
    return record.provider != "sandbox" and is_loopback(record.origin)


def _is_ours(folder: Path, layout: Layout) -> bool:
    """Whether an earlier export by the same rule was written to this folder, to its end or not."""
    try:
        said = json.loads(beside(folder, "export.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("layout") == layout.name


def _listed(made: Export) -> dict[str, object]:
    """Say which run each clip is, and what is missing."""
    return {
        "layout": made.layout,
        "done": True,
        **made.listed,
        **to_receipts(list({one.sample.record.id: one.sample.record for one in made.placed}.values())),
    }


def _write_manifest(folder: Path, said: dict[str, object]) -> None:
    """Write it beside the folder: before the first clip that it is not done, and at the end what there is."""
    data = json.dumps(said, indent=1, ensure_ascii=False).encode("utf-8", "replace")
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_whole(beside(folder, "export.json"), data)
