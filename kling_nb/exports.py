"""Clips under the names that another tool asks for: hard links where possible, else copies.

Invariants: a clip of the store is never renamed or changed; nothing is written before every name is known
to be possible and every clip verified; a file that is there already is kept if it is the same and else
refuses the export; a sample that is missing is reported with the reason; clips of the sandbox go out only
when that was asked for.
"""

import json
import os
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kling_nb.errors import StoreError, UsageError
from kling_nb.exportindex import write_index
from kling_nb.layouts import Layout, Row
from kling_nb.placing import copy_and_hash, file_sha256, part_name, write_whole
from kling_nb.receiptlist import to_receipts
from kling_nb.records import RunRecord, RunStatus
from kling_nb.wording import short

__all__ = ["Export", "Missing", "Placed", "Sample", "check_origin", "lay_out", "prompt_of"]

_NAME_BYTES = 255
_FORBIDDEN = frozenset('<>:"/\\|?*\0')
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One run and where its clip is.

    Args:
        record: The run.
        path: The verified clip, or None where there is none.
    """

    record: RunRecord
    path: Path | None


@dataclass(frozen=True, kw_only=True)
class Placed:
    """One clip of an export.

    Args:
        file: Its path in the exported folder, with slashes.
        sample: The run.
        prompt: The words it is named by.
        dimension: What it was placed under, if the layout has dimensions.
    """

    file: str
    sample: Sample
    prompt: str
    dimension: str | None = None


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A clip that the layout asks for and that is not there.

    Args:
        file: The path it would have.
        why: e.g. `no run`, `moderated` or `the clip is not here`.
    """

    file: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Export:
    """What an export wrote, and what it could not.

    Args:
        folder: Where.
        layout: By which rule.
        placed: The clips.
        missing: What the layout asks for and is not there.
        left_out: Ids of runs that no prompt of the plan, or no number of samples, asked for.

    Example:
        >>> Export(folder=Path("out"), layout="vbench").complete
        True
    """

    folder: Path
    layout: str
    placed: tuple[Placed, ...] = ()
    missing: tuple[Missing, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing

    def __repr__(self) -> str:
        words = f"{len(self.placed)} clips as {self.layout} in {self.folder}"
        if self.left_out:
            words += f"; {len(self.left_out)} runs left out"
        if not self.missing:
            return f"{words}; nothing is missing"
        some = "\n".join(f"  {gone.file}: {gone.why}" for gone in self.missing[:_SHOWN])
        more = f"\n  and {len(self.missing) - _SHOWN} more" if len(self.missing) > _SHOWN else ""
        return f"{words}; {len(self.missing)} are missing:\n{some}{more}"


def prompt_of(record: RunRecord) -> str:
    """Give the words that a suite knows a run by: its tag `prompt`, else what was asked.

    Args:
        record: The run. A suite may send a longer text than the one it names clips by.

    Returns:
        The words.
    """
    return record.tags.get("prompt") or record.request.words


def lay_out(
    samples: Sequence[Sample],
    folder: Path,
    layout: Layout,
    *,
    rows: Sequence[Row] | None = None,
    count: int | None = None,
    allow_sandbox: bool = False,
) -> Export:
    """Lay clips out for another tool.

    Args:
        samples: Runs and their clips; of several attempts at a take the newest success counts.
        folder: Where to; made if it is not there.
        layout: The rule.
        rows: The suite's prompts; without them, the prompts of the runs in order of their first run.
        count: Samples of each prompt, 1 or more; by default as many as the tool asks for where rows are
            given, else as many as there are.
        allow_sandbox: Whether clips of the sandbox, which no model made, may go out.

    Returns:
        What was written and what is missing.

    Raises:
        UsageError: The runs or the plan do not fit the layout, or a name is not possible here.
        StoreError: A file is in the way, or the folder cannot be written.
    """
    check_origin(samples, allow_sandbox=allow_sandbox)
    chosen = _choose(samples)
    wanted = rows if rows is not None else _rows_of(samples)
    placed, missing = _name_all(chosen, wanted, layout, count if count or rows is None else layout.samples)
    _check_names([one.file for one in placed])
    _check_case(folder, [one.file for one in placed])
    used = {one.sample.record.id for one in placed}
    left_out = tuple(s.record.id for s in chosen.values() if s.record.id not in used)
    if layout.index != "tar":
        _link(folder, placed)
    write_index(folder, layout.index, placed)
    made = Export(folder=folder, layout=layout.name, placed=placed, missing=missing, left_out=left_out)
    _write_manifest(made)
    return made


def check_origin(samples: Iterable[Sample], *, allow_sandbox: bool) -> None:
    """Refuse clips that no model made, unless that was asked for.

    Raises:
        UsageError: There are some.
    """
    played = [sample.record.id for sample in samples if sample.record.provider == "sandbox" and sample.path]
    if played and not allow_sandbox:
        raise UsageError(
            f"{len(played)} of these clips were drawn by the sandbox, not made by a model ({played[0]} ...).",
            cure="Nothing was written. Leave them out, or say `--allow-sandbox` to try the export.",
        )


def _choose(samples: Iterable[Sample]) -> dict[tuple[str, int], Sample]:
    """Take one run for each prompt and take: the newest clip, or the newest attempt where there is none."""
    chosen: dict[tuple[str, int], Sample] = {}
    kinds = {(s.record.model, s.record.provider) for s in samples if s.path is not None}
    if len(kinds) > 1:
        named = ", ".join(f"{model} at {provider}" for model, provider in sorted(kinds))
        raise UsageError(
            f"These runs are of several makers ({named}), and a suite measures one.",
            cure="Nothing was written. Export each into a folder of its own.",
        )
    for sample in sorted(samples, key=lambda s: (s.path is not None, s.record.created_at)):
        chosen[prompt_of(sample.record), sample.record.take] = sample
    return chosen


def _rows_of(samples: Sequence[Sample]) -> list[Row]:
    rows: dict[str, Row] = {}
    for sample in sorted(samples, key=lambda s: s.record.created_at):
        prompt, tags = prompt_of(sample.record), sample.record.tags
        named = tags.get("dimension") or tags.get("category")
        number = int(tags["index"]) if tags.get("index", "").isdecimal() else len(rows)
        rows.setdefault(
            prompt, Row(prompt=prompt, number=number, dimensions=tuple(named.split(",")) if named else ())
        )
    return list(rows.values())


def _name_all(
    chosen: dict[tuple[str, int], Sample], rows: Sequence[Row], layout: Layout, count: int | None
) -> tuple[tuple[Placed, ...], tuple[Missing, ...]]:
    """Name every clip that is asked for; some are there, some are missing."""
    placed: dict[str, Placed] = {}
    missing: dict[str, Missing] = {}
    model = next((sample.record.model for sample in chosen.values()), "")
    for row in rows:
        takes = range(count) if count else sorted(take for prompt, take in chosen if prompt == row.prompt)
        for dimension in _dimensions(row, layout):
            for take in takes:
                sample = chosen.get((row.prompt, take))
                file = _name(row, take, layout, sample, dimension=dimension, model=model)
                if sample is None or sample.path is None:
                    missing[file] = Missing(file=file, why=_why(sample))
                    continue
                _check_one(placed.get(file), sample, file, layout)
                placed[file] = Placed(file=file, sample=sample, prompt=row.prompt, dimension=dimension)
    return tuple(placed.values()), tuple(gone for file, gone in missing.items() if file not in placed)


def _dimensions(row: Row, layout: Layout) -> tuple[str | None, ...]:
    if not layout.fields & {"dimension", "category"}:
        return (None,)
    if not row.dimensions:
        raise UsageError(
            f"The layout {layout.name} needs the dimension of {short(row.prompt, 40)!r}.",
            cure="Nothing was written. Give the suite's list as `plan=`, or tag runs `dimension=NAME`.",
        )
    return row.dimensions


def _name(
    row: Row, take: int, layout: Layout, sample: Sample | None, *, dimension: str | None, model: str
) -> str:
    media = sample.record.media if sample else None
    return layout.path(
        prompt=row.prompt,
        sample=take,
        index=row.number + layout.first,
        dimension=dimension,
        category=dimension,
        model=model,
        id=sample.record.id if sample else "",
        stem=Path(media.file).stem if media else f"row-{row.number}-take-{take}",
    )


def _check_one(held: Placed | None, sample: Sample, file: str, layout: Layout) -> None:
    if held is not None and held.sample.record.id != sample.record.id:
        raise UsageError(
            f"Two clips have one name in the layout {layout.name}: {short(file, 60)!r}.",
            cure="Nothing was written. Export them into folders of their own, or ask for one sample.",
        )


def _why(sample: Sample | None) -> str:
    if sample is None:
        return "no run"
    record = sample.record
    if record.status is RunStatus.SUCCEEDED:
        return f"the clip of {record.id} is not here, or is damaged"
    return f"{record.id} {record.reason or record.status.value}"


def _check_names(files: Sequence[str]) -> None:
    """Refuse names that no folder can hold, before anything is written."""
    for file in files:
        for part in PurePosixPath(file).parts:
            bad = "".join(sorted(_FORBIDDEN & set(part))) if os.name == "nt" else "\0" * ("\0" in part)
            if bad or part in {"..", ".", "/"} or len(part.encode("utf-8", "replace")) > _NAME_BYTES:
                raise UsageError(
                    f"The name {short(part, 60)!r} is not possible here.",
                    cure="Nothing was written. A layout with an index file (videofolder) takes any prompt.",
                )


def _takes_for_same(folder: Path, one: str, other: str) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".kling-nb-") as trial:
        first = Path(trial) / PurePosixPath(one).name
        first.touch()
        return (Path(trial) / PurePosixPath(other).name).exists()


def _check_case(
    folder: Path, files: Sequence[str], takes_for_same: Callable[[Path, str, str], bool] = _takes_for_same
) -> None:
    """Refuse names that this disk takes for the same: by case, or by Unicode normal form."""
    folded: dict[str, str] = {}
    for file in files:
        same = folded.setdefault(unicodedata.normalize("NFC", file).casefold(), file)
        if same != file and takes_for_same(folder, same, file):
            raise UsageError(
                f"This disk takes {short(same, 40)!r} and {short(file, 40)!r} for the same name.",
                cure="Nothing was written. Export to a disk that tells letters apart.",
            )


def _link(folder: Path, placed: Sequence[Placed]) -> None:
    """Put the clips there, after looking whether anything is in the way."""
    new = []
    for one in placed:
        target, media = folder / one.file, one.sample.record.media
        if not target.exists():
            new.append(one)
        elif media is None or target.stat().st_size != media.size or file_sha256(target) != media.sha256:
            raise StoreError(
                f"{target} is there already and is another file.",
                cure="Nothing was written. Export into an empty folder.",
            )
    try:
        for one in new:
            _link_one(one, folder / one.file)
    except OSError as error:
        raise StoreError(
            f"The export stopped: {error.strerror or type(error).__name__} ({folder}).",
            cure="The clips are safe where they were. Mend the disk and export again: what is there is kept.",
        ) from None


def _link_one(one: Placed, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source = one.sample.path
    if source is None:
        return
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        # Another disk, or one without hard links.
        part = target.with_name(part_name("export"))
        media = one.sample.record.media
        if copy_and_hash(source, part) != (media.sha256 if media else None):
            part.unlink()
            raise StoreError(
                f"The clip of {one.sample.record.id} changed while it was copied.", cure="Export again."
            ) from None
        part.replace(target)


def _write_manifest(made: Export) -> None:
    """Write beside the folder which run each clip is, and what is missing; inside, readers see clips only."""
    listed = {
        "layout": made.layout,
        "clips": {one.file: one.sample.record.id for one in made.placed},
        "missing": {gone.file: gone.why for gone in made.missing},
        "left_out": list(made.left_out),
        **to_receipts(list({one.sample.record.id: one.sample.record for one in made.placed}.values())),
    }
    data = json.dumps(listed, indent=1, ensure_ascii=False).encode()
    write_whole(made.folder.with_name(f"{made.folder.name}.export.json"), data)
