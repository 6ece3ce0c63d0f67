"""How other people's tools want clips named: one row of a table for each.

Invariants: a layout is data, and adding a tool is adding a row; a name is the tool's own rule to the letter,
so it is never cleaned, stripped or normalised; what a rule needs and nobody said is an error, never a guess.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kling_nb.errors import UsageError

__all__ = ["LAYOUTS", "SPLITS", "Layout", "Row", "find_layout", "read_rows"]

IndexKind = Literal["", "metadata.jsonl", "prompts.json", "captions.csv", "data.csv", "clips.tar"]

#: The folders that Hugging Face takes for splits of a data set by their name alone.
SPLITS = ("train", "validation", "test")
_FIELDS = ("prompt", "sample", "index", "dimension", "category", "model", "stem", "split")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The naming rule of one tool.

    Args:
        name: Ours for it.
        template: The path of a clip in the exported folder, with the fields `prompt`, `sample`, `index`,
            `dimension`, `category`, `model`, `stem` and `split`.
        samples: How many clips of each prompt the tool asks for.
        more: Where it asks for another number, by dimension.
        first: The number of the first row where names carry one; they are counted by category, if the
            template has one.
        index: The file that says what is what, where names alone do not.
        whole: Whether every clip goes out: of several models, and of several settings of one prompt.
        source: Where the rule stands.

    Example:
        >>> LAYOUTS["vbench2"].path(prompt="A fox", sample=0, dimension="Motion_Order_Understanding")
        'Motion_Order_Understanding/A fox-0.mp4'
    """

    name: str
    template: str
    samples: int = 1
    more: Mapping[str, int] = field(default_factory=dict)
    first: int = 0
    index: IndexKind = ""
    whole: bool = False
    source: str = ""

    @property
    def fields(self) -> frozenset[str]:
        """What the names are made of."""
        return frozenset(name for name in _FIELDS if f"{{{name}" in self.template)

    @property
    def tells_prompt(self) -> bool:
        """Whether the words of a prompt are in the names, or must be in the index."""
        return "prompt" in self.fields or self.index in {"prompts.json", "captions.csv", "data.csv"}

    def count(self, dimension: str | None) -> int:
        """Say how many clips of a prompt the tool asks for."""
        return self.more.get(dimension or "", self.samples)

    def path(self, **values: object) -> str:
        """Fill in the rule.

        Raises:
            UsageError: A word has a slash in it, so that no one name can hold it.
        """
        for name, value in values.items():
            if name in self.fields - {"split"} and "/" in str(value):
                raise UsageError(
                    f"The name of {str(value)[:60]!r} is not possible here: it has a slash in it.",
                    cure="Nothing was written. A layout with an index file (videofolder) takes any prompt.",
                )
        return self.template.format(**values)


_VBENCH = "github.com/Vchitect/VBench at 45e79ec"

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(name="vbench", template="{prompt}-{sample}.mp4", samples=5, source=_VBENCH),
        Layout(
            name="vbench-custom",
            template="{stem}-{sample}.mp4",
            index="prompts.json",
            source=f"{_VBENCH}, custom",
        ),
        # Named by the short prompt, cut at 180 characters, also where a longer one was sent.
        Layout(
            name="vbench2",
            template="{dimension}/{prompt:.180}-{sample}.mp4",
            samples=3,
            more={"Diversity": 20},
            source=f"{_VBENCH}, VBench-2.0",
        ),
        Layout(
            name="video-bench",
            template="{dimension}/{model}/{prompt}_{sample}.mp4",
            source="Video-Bench, README",
        ),
        Layout(
            name="t2v-compbench",
            template="{category}/{index:04}.mp4",
            first=1,
            source="github.com/KaiyueSun98/T2V-CompBench at 116f996",
        ),
        Layout(
            name="evalcrafter",
            template="{index:04}.mp4",
            source="github.com/EvalCrafter/EvalCrafter at 1275bda",
        ),
        Layout(
            name="phygenbench", template="output_video_{index}.mp4", first=1, source="PhyGenBench, README"
        ),
        Layout(
            name="physics-iq", template="{model}/{index:04}_{stem}.mp4", first=1, source="physics-IQ, README"
        ),
        Layout(name="videogen-eval", template="{model}{index}.mp4", source="VideoGen-Eval, README"),
        Layout(
            name="videophy",
            template="{stem}.mp4",
            index="captions.csv",
            whole=True,
            source="videophy, README",
        ),
        Layout(
            name="videoalign",
            template="videos/{stem}.mp4",
            index="data.csv",
            whole=True,
            source="github.com/KwaiVGI/VideoAlign at 3e5ebc6, datasets/train/README.md",
        ),
        Layout(
            name="videofolder",
            template="{split}{stem}.mp4",
            index="metadata.jsonl",
            whole=True,
            source="github.com/huggingface/datasets at b7cb10b, VideoFolder",
        ),
        Layout(
            name="webdataset",
            template="{stem}.mp4",
            index="clips.tar",
            whole=True,
            source="WebDataset, README",
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One prompt of a suite.

    Args:
        prompt: The words that names are made of, exactly.
        number: Its place in the suite, counted from 0.
        dimensions: The dimensions or categories it belongs to.
        within: Its place in each of them, counted from 0.

    Example:
        >>> Row(prompt="A fox", number=0).dimensions
        ()
    """

    prompt: str
    number: int
    dimensions: tuple[str, ...] = ()
    within: Mapping[str, int] = field(default_factory=dict)

    def place(self, layout: Layout, dimension: str | None) -> int:
        """Give the number that its names carry."""
        counted = "category" in layout.fields and dimension is not None
        return layout.first + (self.within.get(dimension or "", self.number) if counted else self.number)


def find_layout(name: str) -> Layout:
    """Find a layout by name.

    Args:
        name: e.g. `vbench`; underscores are hyphens.

    Returns:
        The layout.

    Raises:
        UsageError: There is no such layout.

    Example:
        >>> find_layout("vbench").samples
        5
    """
    layout = LAYOUTS.get(name.lower().replace("_", "-"))
    if layout is None:
        raise UsageError(
            f"There is no layout {name!r:.40}.",
            cure=f"Nothing was written. There are {', '.join(LAYOUTS)} and crate.",
        )
    return layout


def read_rows(plan: Iterable[Mapping[str, Any] | str]) -> list[Row]:
    """Read the prompts of a suite, as its own files list them.

    Args:
        plan: Texts, or objects with `prompt_en`, `prompt` or `caption`, and `dimension` or `category` (a text
            or a list of texts) where the layout asks for one. The order counts.

    Returns:
        Rows.

    Raises:
        UsageError: One of them says no prompt.

    Example:
        >>> read_rows([{"prompt_en": "A fox", "dimension": ["color"]}])[0].dimensions
        ('color',)
    """
    rows = []
    seen: Counter[str] = Counter()
    # A text is made of texts, and an object of names: either would be read as a list of prompts.
    for number, given in enumerate([plan] if isinstance(plan, str | Mapping) else plan):
        entry = {"prompt": given} if isinstance(given, str) else given if isinstance(given, Mapping) else {}
        prompt = next((entry[key] for key in ("prompt_en", "prompt", "caption") if entry.get(key)), None)
        named = entry.get("dimension") or entry.get("category") or ()
        dimensions = tuple(named) if isinstance(named, list | tuple) else (named,)
        if not isinstance(prompt, str) or not all(isinstance(one, str) and one for one in dimensions):
            raise UsageError(
                f"Row {number} of the plan says no prompt, or no readable dimension.",
                cure="Nothing was written. Give rows with `prompt` and, where asked for, `dimension`.",
            )
        within = {one: seen[one] for one in dimensions}
        rows.append(Row(prompt=prompt, number=number, dimensions=dimensions, within=within))
        seen.update(dimensions)
    return rows
