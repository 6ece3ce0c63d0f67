"""A notebook as one HTML page, with its clips inside or beside it.

Invariants: nothing of the notebook is run, and nothing in the page can be: no script, no style sheet and no
picture comes from elsewhere, and a policy in the page forbids them; a clip goes in only with the bytes of its
receipt; what is not in the page is told, in the page and in the answer; the notebook and its clips stay as
they are.
"""

import html
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kling_nb.errors import UsageError, installed, one_line
from kling_nb.exports.page_clips import Clips, PageClip
from kling_nb.exports.page_sanitizer import Cleaner
from kling_nb.files import write_whole
from kling_nb.records.saved_notebook import read_receipts
from kling_nb.records.secrets import strings
from kling_nb.views.words import size_words, there_are

__all__ = ["Page", "write_page"]

_MARK = 'content="kling_nb"'

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; font-src data:; img-src data:{beside}; "
    "media-src data:{beside}; base-uri 'none'; form-action 'none'"
)

#: Shown in this order; scripts, widgets and drawings that need them are not shown at all.
_SHOWN = (
    *("text/html", "image/png", "image/jpeg", "image/gif", "image/svg+xml", "text/markdown", "text/latex"),
    "text/plain",
)

_LOOK = """
body.jp-Notebook { padding: 8px; }
main { max-width: 1000px; margin: 0 auto; }
.kling-out { position: absolute; left: 0; right: 0; bottom: 0; padding: 6px 8px; background: #fff;
  color: #222; border-top: 1px solid #999; font: 12px/1.4 system-ui, sans-serif; }
footer { max-width: 1000px; margin: 24px auto 8px; padding-top: 8px; border-top: 1px solid #ccc;
  font: 12px/1.5 system-ui, sans-serif; color: #555; }
.highlight pre { white-space: pre-wrap; overflow-wrap: anywhere; }
body { --jp-cell-editor-background: #fff; }
div.jp-OutputArea-prompt:empty { padding: 5px; border: 1px solid transparent; }
.jp-InputPrompt, .jp-OutputPrompt { color: #595959 !important; opacity: 1 !important; }
.ansi-red-fg { color: #b3302a; }
.jp-RenderedHTMLCommon img, .jp-RenderedImage img { max-width: 100%; }
@media (max-width: 700px) {
  body.jp-Notebook { padding: 4px; }
  .jp-InputPrompt, .jp-OutputPrompt { display: none; }
  .jp-Cell-inputArea, .jp-OutputArea-child, .jp-OutputArea-output, .jp-InputArea-editor {
    display: block !important; width: auto !important; }
  .jp-OutputArea-output { padding: 0 !important; }
  .jp-Cell { padding: 4px 0; }
}
@media (prefers-color-scheme: dark) {
  body.jp-Notebook { color-scheme: dark; color: #e4e6e9;
    --jp-layout-color0: #111418; --jp-layout-color1: #111418; --jp-layout-color2: #23282f;
    --jp-content-font-color0: #f1f2f4; --jp-content-font-color1: #e4e6e9; --jp-content-font-color3: #aab1b9;
    --jp-ui-font-color0: #f1f2f4; --jp-ui-font-color1: #e4e6e9; --jp-ui-font-color2: #b4bac2;
    --jp-border-color0: #4a515a; --jp-border-color1: #4a515a; --jp-border-color2: #3a4048;
    --jp-cell-editor-background: #1a1f26; --jp-cell-editor-border-color: #3a4048;
    --jp-content-link-color: #7ab8ff; --jp-rendermime-error-background: #46201f;
    --jp-rendermime-table-row-background: #181c22; --jp-rendermime-table-row-hover-background: #23303f;
    --jp-mirror-editor-keyword-color: #6cc070; --jp-mirror-editor-number-color: #8fce7f;
    --jp-mirror-editor-string-color: #ff9a8b; --jp-mirror-editor-comment-color: #8fb8b8;
    --jp-mirror-editor-operator-color: #d7a6ff; --jp-mirror-editor-punctuation-color: #8fc1ff;
    --jp-mirror-editor-variable-color: #e4e6e9; --jp-mirror-editor-error-color: #ff8f86; }
  .jp-InputPrompt, .jp-OutputPrompt, footer { color: #aab1b9 !important; }
  .kling-out { background: #1a1f26; color: #e4e6e9; }
  .ansi-red-fg { color: #ff8f86; }
}
"""

_TEMPLATE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{{ resources.kling_head }}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}<style>{{ resources.kling_look }}</style>{%- endblock -%}
{%- block body_footer -%}</main><footer>{{ resources.kling_foot() }}</footer></body>{%- endblock -%}
"""

_PRIVATE = "(a private prompt: left out of this page)"
_SHORTEST_WORDS = 8


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page that was written.

    Args:
        path: Where it is.
        size: Its bytes.
        clips: Every clip that the notebook shows, in the order of the page.
        notes: What else is not in the page, one sentence each.

    Example:
        >>> Page(path=Path("a.html"), size=1, clips=(), notes=()).complete
        True
    """

    path: Path
    size: int
    clips: tuple[PageClip, ...]
    notes: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every clip is there, inside or linked."""
        return all(clip.good for clip in self.clips)


def write_page(
    notebook: Path,
    target: Path | None = None,
    *,
    embed: bool = False,
    most: int = 100_000_000,
    refuse: Callable[[Mapping[str, str]], None] | None = None,
    private: Iterable[str] = (),
) -> Page:
    """Write a notebook as one HTML page.

    Args:
        notebook: A saved `.ipynb`.
        target: The page; by default beside the notebook, with the suffix `.html`.
        embed: Whether the clips go into the page; else it links them, and must stay near them.
        most: Bytes that clips and pictures may add to the page, 1 or more.
        refuse: Is given every text by what it is, and raises where one must not be shared.
        private: Words of private runs: a text that holds them is refused.

    Returns:
        The page, and what is not in it.

    Raises:
        UsageError: The notebook cannot be read, nbconvert is missing, a text must not be shared, or
            something else is in the way of the page.
        OSError: The page cannot be written.

    Example:
        >>> write_page(Path("study.ipynb"), embed=True).complete  # doctest: +SKIP
        True
    """
    target = target or notebook.with_suffix(".html")
    _refuse_other(target, notebook)
    records, _ = read_receipts(notebook)
    made = _readable(notebook)
    _check(made, refuse, tuple(words for words in private if len(words) >= _SHORTEST_WORDS))
    held = Clips(records, notebook.parent, target.parent, embed=embed, most=most)
    cleaner = Cleaner(held.rewrite)
    text = _press(made, notebook, cleaner, held, embed=embed)
    notes = [*held.notes(), *cleaner.notes()]
    write_whole(target, text.encode("utf-8", "replace"))
    return Page(path=target, size=target.stat().st_size, clips=held.listed(), notes=tuple(notes))


def _refuse_other(target: Path, notebook: Path) -> None:
    if target.suffix.lower() not in {".html", ".htm"}:
        raise UsageError("A page needs a name that ends with .html.", cure="Name another with -o.")
    if not target.parent.is_dir():
        raise UsageError(f"There is no folder {one_line(str(target.parent))}.", cure="Make it first.")
    if target == notebook or not target.exists():
        return
    with target.open("rb") as file:
        if _MARK.encode() not in file.read(20_000):
            raise UsageError(
                f"{one_line(target.name)} is there already, and is not a page of kling_nb.",
                cure="Name another with -o.",
            )


def _readable(notebook: Path) -> Any:
    """Read a notebook, and keep of it only what a page shows."""
    nbformat, _ = (
        installed(name, "Install it: `pip install 'kling-nb[page]'`.") for name in ("nbformat", "nbconvert")
    )
    try:
        made = nbformat.reads(notebook.read_text(encoding="utf-8"), as_version=4)
        kept = _kept(made)
        nbformat.validate(kept, relax_add_props=True)
    except Exception as error:  # noqa: BLE001 - a stranger's file may break the reader anywhere
        raise UsageError(
            f"{one_line(notebook.name)} is not a notebook: {type(error).__name__}.",
            cure="Name an .ipynb file.",
        ) from None
    return kept


def _kept(made: Any) -> Any:
    import nbformat

    language = made.metadata.get("language_info", {}).get("name", "python")
    made.metadata = nbformat.from_dict({"language_info": {"name": str(language)}})
    for cell in made.cells:
        # Tags, sizes and the like end up in attributes of the page, some of them unquoted.
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.source = _without_private(cell.source)
            cell.outputs = [_shown(output) for output in cell.outputs]
    return made


def _without_private(source: str) -> str:
    # Comments and other magics may stand above it, and say what it is about.
    for line in source.splitlines():
        words = line.split()
        if words[:1] == ["%%kling"] and "--private" in [word.replace("_", "-") for word in words]:
            dest = f" {words[1]}" if words[1].isidentifier() else ""
            return f"%%kling{dest} --private\n{_PRIVATE}"
    return source


def _shown(output: Any) -> Any:
    if "data" not in output:
        return output
    kinds = [kind for kind in _SHOWN if kind in output.data]
    # What is drawn by a script would be an empty box; a picture beside it is more.
    if kinds[0:1] == ["text/html"] and "<script" in output.data["text/html"].lower():
        kinds = [kind for kind in kinds if kind.startswith("image/")] or kinds
    found = kinds[0] if kinds else None
    output.metadata.clear()
    for kind in list(output.data):
        if kind != found:
            del output.data[kind]
    return output


def _check(made: Any, refuse: Callable[[Mapping[str, str]], None] | None, private: tuple[str, ...]) -> None:
    texts = {}
    for number, cell in enumerate(made.cells, 1):
        outputs = "\n".join(strings(json.loads(json.dumps(cell.get("outputs", [])))))
        texts[f"cell {number}"] = f"{cell.source}\n{outputs}"
    for what, text in texts.items():
        if any(words in text for words in private):
            raise UsageError(
                f"{what[0].upper()}{what[1:]} holds the words of a private run.",
                cure="Nothing was written: take them out, or put `--private` on the cell's own line.",
            )
    if refuse is not None:
        refuse(texts)


def _press(made: Any, notebook: Path, cleaner: Cleaner, held: Clips, *, embed: bool) -> str:
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name="lab",
        extra_loaders=[DictLoader({"page.html.j2": _TEMPLATE})],
        sanitize_html=True,
        require_js_url="",
        mathjax_url="",
        mermaid_js_url="",
    )
    exporter.template_file = "page.html.j2"
    exporter.register_filter("clean_html", cleaner)
    policy = _POLICY.format(beside="" if embed else " 'self' file:")
    title = notebook.stem
    resources = {
        "metadata": {"name": title},
        "kling_head": f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="generator" {_MARK}>',
        "kling_look": _LOOK,
        # Called by the template at its end, when all that it tells of is known.
        "kling_foot": lambda: _foot(notebook, cleaner, held),
    }
    text, _ = exporter.from_notebook_node(made, resources=resources)
    return held.filled(str(text))


def _foot(notebook: Path, cleaner: Cleaner, held: Clips) -> str:
    listed = held.listed()
    inside = [clip for clip in listed if clip.state == "inside"]
    linked = sum(clip.state == "linked" for clip in listed)
    words = [f"Made by kling_nb from {notebook.name}."]
    if inside:
        size = size_words(sum(clip.size for clip in inside))
        words.append(
            f"{there_are(len(inside), 'clip')} in this page, {size}, each checked against the SHA-256 "
            "of its receipt."
        )
    if linked:
        words.append(f"{there_are(linked, 'clip')} linked; a clip plays here while it lies where it did.")
    words += [f"{clip.file}: {clip.why}." for clip in listed if not clip.good]
    words += [*held.notes(), *cleaner.notes()]
    return " ".join(html.escape(one_line(word)) for word in words)
