"""How other people's tools want clips named: one row of a table for each.

Invariants: a layout is data, and adding a tool is adding a row; a name is the tool's own rule to the letter,
so it is never cleaned, stripped or normalised; what a rule needs and nobody said is an error, never a guess.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kling_nb.errors import UsageError

__all__ = ["LAYOUTS", "Layout", "Row", "find_layout", "read_rows"]

IndexKind = Literal["", "metadata.jsonl", "prompts.json", "captions.csv", "tar"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The naming rule of one tool.

    Args:
        name: Ours for it.
        template: The path of a clip in the exported folder, with the fields `prompt`, `sample`, `index`,
            `dimension`, `category`, `model`, `id` and `stem`.
        samples: How many clips of each prompt the tool asks for.
        first: The number of the first row where names carry one.
        index: The file that says what is what, where names alone do not.
        source: Where the rule stands.

    Example:
        >>> LAYOUTS["vbench2"].path(prompt="A fox", sample=0, dimension="Motion_Order_Understanding")
        'Motion_Order_Understanding/A fox-0.mp4'
    """

    name: str
    template: str
    samples: int = 1
    first: int = 0
    index: IndexKind = ""
    source: str = ""

    @property
    def fields(self) -> frozenset[str]:
        """What the names are made of."""
        known = ("prompt", "sample", "index", "dimension", "category", "model", "id", "stem")
        return frozenset(name for name in known if f"{{{name}" in self.template)

    def path(self, **values: object) -> str:
        """Fill in the rule."""
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
        Layout(name="videophy", template="{stem}.mp4", index="captions.csv", source="videophy, README"),
        Layout(
            name="videofolder",
            template="{stem}.mp4",
            index="metadata.jsonl",
            source="github.com/huggingface/datasets at b7cb10b, VideoFolder",
        ),
        Layout(name="webdataset", template="{stem}.mp4", index="tar", source="WebDataset, README"),
    )
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One prompt of a suite.

    Args:
        prompt: The words that names are made of, exactly.
        number: Its place in the suite, counted from 0.
        dimensions: The dimensions or categories it belongs to.

    Example:
        >>> Row(prompt="A fox", number=0).dimensions
        ()
    """

    prompt: str
    number: int
    dimensions: tuple[str, ...] = ()


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
            f"There is no layout {name!r:.40}.", cure=f"Nothing was written. There are {', '.join(LAYOUTS)}."
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
    for number, given in enumerate(plan):
        entry: Mapping[str, Any] = {"prompt": given} if isinstance(given, str) else given
        prompt = next((entry[key] for key in ("prompt_en", "prompt", "caption") if entry.get(key)), None)
        named = entry.get("dimension") or entry.get("category") or ()
        dimensions = (named,) if isinstance(named, str) else tuple(named)
        if not isinstance(prompt, str) or not all(isinstance(one, str) and one for one in dimensions):
            raise UsageError(
                f"Row {number} of the plan says no prompt, or no readable dimension.",
                cure="Nothing was written. Give rows with `prompt` and, where asked for, `dimension`.",
            )
        rows.append(Row(prompt=prompt, number=number, dimensions=dimensions))
    return rows
