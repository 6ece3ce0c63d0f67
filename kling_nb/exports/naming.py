"""Which run's clip gets which name in an export, and which names stay without one.

Invariants: pure; a sample is the take that was planned, and no other take stands in for it; what two clips
would share, or a rule needs and nobody said, is an error; what is missing is told with the reason.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kling_nb.errors import UsageError
from kling_nb.exports.layouts import SPLITS, Layout, Row
from kling_nb.records.privacy import text_hash
from kling_nb.records.provenance import sample_of
from kling_nb.records.run import RunRecord, RunStatus
from kling_nb.views.words import short

__all__ = ["Missing", "Named", "Placed", "Sample", "name_clips", "prompt_of", "why_not"]


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
class Named:
    """What a layout makes of runs.

    Args:
        placed: The clips and their names.
        missing: Names without a clip.
        left_out: Ids of runs that nothing asked for.
    """

    placed: tuple[Placed, ...]
    missing: tuple[Missing, ...]
    left_out: tuple[str, ...]


def prompt_of(record: RunRecord) -> str:
    """Give the words that a suite knows a run by: its tag `prompt`, else what was asked.

    Args:
        record: The run. A suite may send a longer text than the one it names clips by.

    Returns:
        The words.
    """
    return record.tags.get("prompt") or record.request.words


def name_clips(
    samples: Sequence[Sample],
    layout: Layout,
    *,
    rows: Sequence[Row] | None = None,
    count: int | None = None,
    split: str | None = None,
) -> Named:
    """Give each clip that is asked for its name.

    Args:
        samples: See `exports.lay_out`, as for the rest.
        layout: The rule.
        rows: The suite's prompts, if they were given.
        count: Samples of each prompt, if that was said.
        split: For clips without a tag `split`.

    Returns:
        Some are there, some are missing.

    Raises:
        UsageError: The runs or the plan do not fit the layout.
    """
    if split is not None and "split" not in layout.fields:
        raise UsageError(f"The layout {layout.name} has no splits.", cure="Nothing was written.")
    words = _reader(rows)
    samples, others = _asked(samples, rows, words)
    chosen = _choose(samples, layout, words)
    placed: dict[str, Placed] = {}
    missing: dict[str, Missing] = {}
    seen: set[str] = set()
    by_prompt: dict[str, dict[int, list[Sample]]] = {}
    for (prompt, take, _), one in chosen.items():
        by_prompt.setdefault(prompt, {}).setdefault(take, []).append(one)
    model = next((sample.record.model for sample in chosen.values()), "")
    splits = _splits(chosen.values(), layout, split)
    for row in _rows_of(samples) if rows is None else rows:
        made = by_prompt.get(row.prompt, {})
        for dimension in _dimensions(row, layout):
            wanted = count or (None if rows is None else layout.count(dimension))
            for take in range(wanted) if wanted else sorted(made):
                there: Sequence[Sample | None] = made.get(take) or (None,)
                for sample in there:
                    seen |= {sample.record.id} if sample else set()
                    wanted_row = _row_for(row, sample)
                    file = _name(
                        wanted_row, take, layout, sample, dimension=dimension, model=model, splits=splits
                    )
                    if why := why_not(sample, layout):
                        missing[file] = Missing(file=file, why=why)
                    elif sample is not None:
                        _check_one(placed.get(file), sample, file, layout)
                        placed[file] = Placed(
                            file=file, sample=sample, prompt=wanted_row.prompt, dimension=dimension
                        )
    return Named(
        placed=tuple(placed.values()),
        missing=tuple(gone for file, gone in missing.items() if file not in placed),
        left_out=(
            *(s.record.id for s in chosen.values() if s.record.id not in seen),
            *{s.record.run_key: s.record.id for s in _by_age(others)}.values(),
        ),
    )


def why_not(sample: Sample | None, layout: Layout) -> str:
    """Say why a clip does not go out.

    Args:
        sample: The run that was to make it, or None where there is none.
        layout: By which rule.

    Returns:
        The reason in a few words; empty where there is none.
    """
    if sample is None:
        return "no run"
    record, path = sample.record, sample.path
    reasons = (
        (record.private and layout.tells_prompt, f"{record.id} is private, and the layout tells the prompt"),
        (record.status.pending, f"{record.id} is still on its way"),
        (record.status is not RunStatus.SUCCEEDED, f"{record.id} {record.reason or record.status.value}"),
        (path is None, f"the clip of {record.id} is not here, or is damaged"),
        (path is not None and path.suffix.lower() != ".mp4", f"the clip of {record.id} is no .mp4"),
    )
    return next((why for so, why in reasons if so), "")


_Slot = tuple[str, int, str]


def _reader(rows: Sequence[Row] | None) -> Callable[[RunRecord], str]:
    """Give what tells the words of the row that a run belongs to: a private run is known by their hash."""
    hashes = {text_hash(row.prompt): row.prompt for row in rows or ()}

    def words(record: RunRecord) -> str:
        said = prompt_of(record)
        return hashes.get(said, said) if record.private else said

    return words


def _asked(
    samples: Sequence[Sample], rows: Sequence[Row] | None, words: Callable[[RunRecord], str]
) -> tuple[Sequence[Sample], list[Sample]]:
    """Part the runs that a plan asks for from the others, which can be no reason to refuse the export."""
    asked = None if rows is None else {row.prompt for row in rows}
    if asked is None:
        return samples, []
    return (
        [sample for sample in samples if words(sample.record) in asked],
        [sample for sample in samples if words(sample.record) not in asked],
    )


def _row_for(row: Row, sample: Sample | None) -> Row:
    """Give a row as names and lists may tell it of this run: a plan has the words of a private one."""
    if sample is None or not sample.record.private:
        return row
    return replace(row, prompt=prompt_of(sample.record))


def _by_age(samples: Iterable[Sample]) -> list[Sample]:
    return sorted(samples, key=lambda s: (s.path is not None, s.record.created_at))


def _choose(
    samples: Sequence[Sample], layout: Layout, words: Callable[[RunRecord], str]
) -> dict[_Slot, Sample]:
    """Take one run for each prompt and take: the newest clip, or the newest attempt where there is none."""
    chosen: dict[_Slot, Sample] = {}
    kinds = {(s.record.model, s.record.provider) for s in samples if s.path is not None}
    if len(kinds) > 1 and not layout.whole:
        named = ", ".join(f"{model} at {provider}" for model, provider in sorted(kinds))
        raise UsageError(
            f"These runs are of several makers ({named}), and a suite measures one.",
            cure="Nothing was written. Say which with `--model` or `--provider`, or name the runs.",
        )
    for sample in _by_age(samples):
        record = sample.record
        slot = words(record), record.take, record.run_key if layout.whole else ""
        held = chosen.get(slot)
        if held is not None and held.path is not None and held.record.request != record.request:
            raise UsageError(
                f"Two requests have the same name in the layout {layout.name}: {held.record.id} and "
                f"{record.id} are both sample {record.take} of {short(prompt_of(record), 40)!r}.",
                cure="Nothing was written. Name the runs that are meant.",
            )
        chosen[slot] = sample
    return chosen


def _rows_of(samples: Sequence[Sample]) -> list[Row]:
    rows: dict[str, Row] = {}
    seen: Counter[str] = Counter()
    for sample in sorted(samples, key=lambda s: s.record.created_at):
        prompt, tags = prompt_of(sample.record), sample.record.tags
        if prompt in rows:
            continue
        named = tags.get("dimension") or tags.get("category")
        dimensions = tuple(named.split(",")) if named else ()
        said = sample_of(tags, sample.record.take).index
        rows[prompt] = Row(
            prompt=prompt,
            number=len(rows) if said is None else said,
            dimensions=dimensions,
            within={one: seen[one] if said is None else said for one in dimensions},
        )
        seen.update(dimensions)
    return list(rows.values())


def _dimensions(row: Row, layout: Layout) -> tuple[str | None, ...]:
    if not layout.fields & {"dimension", "category"}:
        return (None,)
    if not row.dimensions:
        raise UsageError(
            f"The layout {layout.name} needs the dimension of {short(row.prompt, 40)!r}.",
            cure="Nothing was written. Give the suite's list as `plan=`, or tag runs `dimension=NAME`.",
        )
    return row.dimensions


def _splits(samples: Iterable[Sample], layout: Layout, split: str | None) -> dict[str, str]:
    """Give the split of each run, by its tag or for all; all have one, or none has."""
    if "split" not in layout.fields:
        return {}
    found = {s.record.id: s.record.tags.get("split") or split or "" for s in samples if s.path is not None}
    wrong = sorted({name for name in found.values() if name and name not in SPLITS})
    if wrong:
        raise UsageError(
            f"{wrong[0]!r:.40} is not a split.", cure=f"Nothing was written. There are {', '.join(SPLITS)}."
        )
    none = [run for run, name in found.items() if not name]
    if none and len(none) < len(found):
        raise UsageError(
            f"{len(none)} of {len(found)} clips are in no split ({none[0]}): a reader would not see them.",
            cure="Nothing was written. Say `--split train` for those without a tag.",
        )
    return found


def _name(
    row: Row,
    take: int,
    layout: Layout,
    sample: Sample | None,
    *,
    dimension: str | None,
    model: str,
    splits: Mapping[str, str],
) -> str:
    split = splits.get(sample.record.id, "") if sample else ""
    return layout.path(
        prompt=row.prompt,
        sample=take,
        index=row.place(layout, dimension),
        dimension=dimension,
        category=dimension,
        model=model,
        split=f"{split}/" if split else "",
        stem=_stem(sample, layout) or f"row-{row.number}-take-{take}",
    )


def _stem(sample: Sample | None, layout: Layout) -> str:
    if sample is None:
        return ""
    record = sample.record
    stem = Path(record.media.file).stem if record.media is not None else record.id
    # In a tar everything after the first dot of a name tells the kind of the file.
    return record.id if layout.index == "clips.tar" and "." in stem else stem


def _check_one(held: Placed | None, sample: Sample, file: str, layout: Layout) -> None:
    if held is not None and held.sample.record.id != sample.record.id:
        raise UsageError(
            f"Two clips have the same name in the layout {layout.name}: {short(file, 60)!r}.",
            cure="Nothing was written. Export them into folders of their own, or ask for one sample.",
        )
