"""The grid of a sweep: rows times axes times takes, as distinct requests in a useful order.

Invariants: a grid is plain JSON and gives the same members in every process; a member is there once, however
many rows ask for it; what is wrong in the input refuses the whole, with its row.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import product
from typing import Any

from kling_nb.errors import UsageError, did_you_mean
from kling_nb.records.request import TextToVideo, make_request, no_such_field, request_key
from kling_nb.session.plan import Ask
from kling_nb.sweeps.prompts import Row, plain, refused

__all__ = ["ORDERS", "SETTINGS", "Expanded", "Member", "axis", "expand", "make_grid", "takes_of"]

#: What an axis or a column may set, beside names of one's own for `{{name}}`.
SETTINGS = (
    *(name for name in TextToVideo.model_fields if name not in {"prompt", "shots"}),
    "model",
    "provider",
)
ORDERS = ("useful", "given")

_COLUMNS = {*TextToVideo.model_fields, "model", "provider", "prompt_original", "enhancer", "dimension"}
_NAME = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")


@dataclass(frozen=True, kw_only=True)
class Member:
    """One request of a sweep, at one provider or at any.

    Args:
        number: Its place in the order in which they are sent, from 0.
        row: The row that asks for it first.
        label: The words its results are grouped by: the original prompt where there is one.
        request: What is sent.
        request_key: Of the request, the model and the take.
        take: The planned sample index.
        model: Our id or alias of the model.
        provider: The provider, where one is named.
        tags: Kept with its run.
        axes: What it has on each axis and in each column.
        private: Whether its words are for the provider alone.

    Example:
        >>> Member.__name__
        'Member'
    """

    number: int
    row: int
    label: str
    request: TextToVideo
    request_key: str
    take: int
    model: str
    provider: str | None
    tags: Mapping[str, str] = field(default_factory=dict)
    axes: Mapping[str, Any] = field(default_factory=dict)
    private: bool = False

    def ask(self, max_cost: Decimal | None = None) -> Ask:
        """Give the call that asks for it, which may reserve so much."""
        return Ask(
            request=self.request,
            takes=(self.take,),
            provider=self.provider,
            model=self.model,
            max_cost=max_cost,
            tags=self.tags,
            private=self.private,
        )


@dataclass(frozen=True, kw_only=True)
class Expanded:
    """What a grid comes to.

    Args:
        members: In the order in which they are sent.
        duplicates: How often a row asked for what an earlier one asks for.
    """

    members: tuple[Member, ...]
    duplicates: int


def axis(name: str, value: Any) -> list[Any]:
    """Give the values of an axis, each once; a single one is an axis of one.

    Args:
        name: Of the axis, for the message.
        value: A value, or any sequence of values.

    Returns:
        The values, as plain Python ones.

    Raises:
        UsageError: There is none, or one is empty.

    Example:
        >>> axis("duration", [5, 10, 5])
        [5, 10]
    """
    many = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    values = [plain(one) for one in value] if many else [plain(value)]
    if not values or None in values:
        raise refused(f"{name}: a value is empty.", cure="Give at least one value, or leave it out.")
    return list({(type(one), repr(one)): one for one in values}.values())


def takes_of(takes: Any) -> list[int]:
    """Give the planned sample indices: so many, or exactly these.

    Raises:
        UsageError: They are no whole numbers, or there is none.

    Example:
        >>> takes_of(2), takes_of([3])
        ([0, 1], [3])
    """
    found = list(range(takes)) if type(takes) is int else axis("takes", takes)
    if not found or not all(type(take) is int and take >= 0 for take in found):
        raise refused("takes: should be a number, 1 or more, or a list of indices from 0.")
    return found


def make_grid(
    rows: Sequence[Row],
    axes: Mapping[str, Any],
    *,
    takes: Any = 1,
    tags: Mapping[str, str] | None = None,
    order: str = "useful",
    private: bool = False,
    enhancer: Callable[[str], str] | Mapping[str, Any] | str | None = None,
    enhanced: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Put a grid together, as plain JSON.

    Args:
        rows: The prompts.
        axes: A value or several by name: settings of a request, `provider`, `model`, or names in `{{ }}`.
        takes: How many takes of each, or which.
        tags: Kept with every run; `{{name}}` in them is filled in as in prompts.
        order: `useful`: every prompt once before any twice, settings and providers in turn; or `given`.
        private: Whether the words are for the provider alone.
        enhancer: Makes the prompt that is sent of each; or says how that was done.
        enhanced: What it made of prompts before, which is not asked for again.

    Returns:
        The grid; see `expand`.

    Raises:
        UsageError: A part of it makes no sense.

    Example:
        >>> make_grid([Row(1, {"prompt": "A fox"})], {"duration": [5, 10]})["axes"]
        {'duration': [5, 10]}
    """
    if order not in ORDERS:
        raise refused(f"order: should be {' or '.join(ORDERS)}, not {str(order)!r:.40}.")
    if not all(isinstance(text, str) for text in dict(tags or {}).values()):
        raise refused("tags: should be texts by name.")
    named = axes.items()
    grid = {
        "rows": [[row.number, _enhance(row, enhancer, enhanced or {})] for row in rows],
        "axes": {name: axis(name, value) for name, value in named if value is not None},
        "takes": takes_of(takes),
        "tags": dict(tags or {}),
        "order": order,
        "private": private,
    }
    try:
        made: dict[str, Any] = json.loads(json.dumps(grid, allow_nan=False, ensure_ascii=False))
    except (TypeError, ValueError):
        raise refused("A value of the grid is neither text nor a number.") from None
    return made


def _enhance(row: Row, enhancer: Any, enhanced: Mapping[str, str]) -> dict[str, Any]:
    if enhancer is None:
        return row.columns
    if not callable(enhancer):
        how = enhancer if isinstance(enhancer, str) else json.dumps(enhancer, ensure_ascii=False, default=str)
        return {**row.columns, "enhancer": how}
    original = row.columns.get("prompt", "")
    made = enhanced.get(original) or enhancer(original)
    if not isinstance(made, str):
        raise refused(f"the enhancer should return text, not {type(made).__name__}.", row.number)
    name = getattr(enhancer, "__qualname__", type(enhancer).__name__)
    return {"enhancer": name, "prompt_original": original, **row.columns, "prompt": made}


def expand(grids: Sequence[Mapping[str, Any]]) -> Expanded:
    """Give the distinct members of grids, in the order in which they are sent.

    Args:
        grids: The grid, and what was added to it later.

    Returns:
        The members, and how many rows were there before.

    Raises:
        UsageError: A row, a column or a value is wrong; the message names the row.

    Example:
        >>> grid = make_grid([Row(1, {"prompt": "A {{beast}}"})], {"beast": ["fox", "owl"]}, takes=2)
        >>> [(member.request.prompt, member.take) for member in expand([grid]).members]
        [('A fox', 0), ('A owl', 0), ('A fox', 1), ('A owl', 1)]
    """
    members: dict[tuple[str, str | None], Member] = {}
    rows_of: dict[tuple[str, str | None], set[int]] = {}
    duplicates = 0
    for grid in grids:
        for number, columns, request, take in _ordered(grid):
            model, provider = str(columns.get("model", "")), columns.get("provider")
            key = request_key(request, model, take)
            place = (key, provider)
            if place in members:
                duplicates += take == grid["takes"][0] and number not in rows_of[place]
                rows_of[place].add(number)
                continue
            rows_of[place] = {number}
            label = columns.get("prompt_original") or request.words
            members[place] = Member(
                number=len(members),
                row=number,
                label=label,
                request=request,
                request_key=key,
                take=take,
                model=model,
                provider=provider,
                tags=_tags(grid["tags"], columns, number),
                axes={name: columns[name] for name in columns if name not in {"prompt", "shots"}},
                private=grid["private"],
            )
    return Expanded(members=tuple(members.values()), duplicates=duplicates)


def _ordered(grid: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any], TextToVideo, int]]:
    axes: dict[str, list[Any]] = grid["axes"]
    # Providers last, so that they take turns.
    names = sorted(axes, key=lambda name: name == "provider")
    combos = [dict(zip(names, values, strict=True)) for values in product(*(axes[name] for name in names))]
    _check_names(grid)
    every = [[(number, *_request(number, row, combo)) for combo in combos] for number, row in grid["rows"]]
    if grid["order"] == "given":
        yield from ((*cell, take) for cells in every for cell in cells for take in grid["takes"])
        return
    for take in grid["takes"]:
        for turn in range(len(combos)):
            for place, cells in enumerate(every):
                yield (*cells[(turn + place) % len(combos)], take)


def _check_names(grid: Mapping[str, Any]) -> None:
    """Refuse a column or an axis that would do nothing: it is most likely misspelt."""
    texts = [text for _, row in grid["rows"] for text in (row.get("prompt"), row.get("negative_prompt"))]
    texts += [json.dumps(row["shots"], ensure_ascii=False) for _, row in grid["rows"] if "shots" in row]
    texts += [*grid["axes"].get("negative_prompt", []), *grid["tags"].values()]
    used = {name for text in texts if isinstance(text, str) for name in _NAME.findall(text)}
    for name in grid["axes"]:
        if name not in {*SETTINGS, *used}:
            raise refused(f"There is no axis {name}: {_meant(name)}.", cure="See `help(kling.sweep)`.")
    for number, row in grid["rows"]:
        for name in row:
            if name not in _COLUMNS | used:
                tag = f'Drop it, or keep it with each run: tags={{"{name}": "{{{{{name}}}}}"}}.'
                raise refused(f"the column {name} would do nothing: {_meant(name)}.", number, tag)
            if name in grid["axes"]:
                raise refused(f"{name} is both a column and an axis.", number, "Leave one out.")


def _meant(name: str) -> str:
    hint = no_such_field(name)
    return f"{hint}, and no prompt or tag has {{{{{name}}}}}"


def _request(
    number: int, row: Mapping[str, Any], combo: Mapping[str, Any]
) -> tuple[dict[str, Any], TextToVideo]:
    columns = {**row, **combo}
    fields = {name: columns[name] for name in TextToVideo.model_fields if name in columns}
    for name in ("prompt", "negative_prompt"):
        if isinstance(fields.get(name), str):
            fields[name] = _fill_in(fields[name], columns, number)
    if isinstance(duration := fields.get("duration"), float) and duration.is_integer():
        # As pandas has whole numbers in a column that had a gap.
        fields["duration"] = int(duration)
    if isinstance(shots := fields.get("shots"), list):
        fields["shots"] = [_filled_shot(shot, columns, number) for shot in shots]
    for name in ("model", "provider"):
        if not isinstance(columns.get(name, ""), str):
            raise refused(f"{name}: should be a name.", number)
    try:
        return {**columns, **fields}, make_request(**fields)
    except UsageError as error:
        raise refused(error.what, number, "Correct it.") from None


def _filled_shot(shot: Any, columns: Mapping[str, Any], number: int) -> Any:
    if isinstance(shot, Mapping) and isinstance(shot.get("prompt"), str):
        return {**shot, "prompt": _fill_in(shot["prompt"], columns, number)}
    return shot  # what is no shot is refused with the request


def _fill_in(text: str, columns: Mapping[str, Any], number: int) -> str:
    def put(found: re.Match[str]) -> str:
        name = found[1]
        if name not in columns or name == "prompt":
            known = [one for one in columns if one != "prompt"]
            hint = did_you_mean(
                name, known, f"There is only {', '.join(known)}." if known else "There are none."
            )
            raise refused(f"{{{{{name}}}}}: there is no column or axis of this name.", number, hint)
        return str(columns[name])

    return _NAME.sub(put, text)


def _tags(tags: Mapping[str, str], columns: Mapping[str, Any], number: int) -> dict[str, str]:
    """Give the tags of a run: its own, and what exports and receipts know a sweep's rows by."""
    made = {name: _fill_in(text, columns, number) for name, text in tags.items()}
    for name, column in (("prompt", "prompt_original"), ("enhancer", "enhancer"), ("dimension", "dimension")):
        if column in columns and str(columns[column]) != "-":
            made.setdefault(name, str(columns[column]))
    return made
