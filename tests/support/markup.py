"""A judge of our HTML: only what JupyterLab's sanitizer keeps in a notebook that is not trusted.

The lists were read from the sanitizer of JupyterLab 4.6 and hold only the part that this package uses.
"""

import re
from html.parser import HTMLParser

TAGS = {
    "a",
    "b",
    "bdi",
    "br",
    "code",
    "details",
    "div",
    "img",
    "span",
    "summary",
    "table",
    "tbody",
    "td",
    "th",
    "thead",
    "tr",
    "video",
}
VOID = {"br", "img"}
ATTRIBUTES = {
    "*": {"style", "title", "dir"},
    # Dropped from a foreign notebook, where a table then scrolls by pointer only.
    "div": {"tabindex"},
    "a": {"href"},
    "img": {"src", "alt"},
    "video": {"src", "poster", "controls", "loop", "preload", "width"},
}
ADDRESS = re.compile(r"https?://.*|data:(image|video)/.*|(?!//)[^:/?#\\]*([/?#][^\\]*)?", re.DOTALL)
LENGTH = r"(0|\d+(\.\d+)?(px|%))"
LINE = r"(0|\dpx solid (#[0-9a-f]{6}|rgba\([\d.,]+\)))"
STYLES = {
    "align-items": "baseline|center|flex-start",
    "background": r"#[0-9a-f]{3,6}|rgba\([\d.,]+\)|transparent",
    "border": LINE,
    "border-collapse": "collapse",
    "border-left": LINE,
    "border-radius": LENGTH,
    "border-top": LINE,
    "box-sizing": "border-box",
    "color": "#fff",
    "cursor": "pointer",
    "display": "flex|inline-block",
    "flex": rf"[01] [01] ({LENGTH}|auto)",
    "flex-wrap": "wrap",
    "font-family": "system-ui,sans-serif|ui-monospace,monospace",
    "font-size": LENGTH,
    "font-weight": "600",
    "gap": rf"{LENGTH}( {LENGTH})?",
    "height": LENGTH,
    "justify-content": "center|space-between",
    "left": LENGTH,
    "line-height": r"[\d.]+",
    "margin": rf"{LENGTH}( {LENGTH}){{0,3}}",
    "margin-bottom": LENGTH,
    "margin-top": LENGTH,
    "max-width": LENGTH,
    "min-width": LENGTH,
    "opacity": r"0\.\d+",
    "overflow": "hidden",
    "overflow-wrap": "break-word",
    "overflow-x": "auto",
    "padding": rf"{LENGTH}( {LENGTH}){{0,3}}",
    "padding-bottom": LENGTH,
    "padding-left": LENGTH,
    "position": "absolute|relative",
    "table-layout": "fixed",
    "text-align": "left|right|center",
    "text-overflow": "ellipsis",
    "top": LENGTH,
    "vertical-align": "top",
    "white-space": "nowrap|pre-wrap",
    "width": LENGTH,
}


class Judge(HTMLParser):
    """Parse markup; fail on anything that is not ours or not well nested."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.seen, self.runs = [], [], []

    def handle_starttag(self, tag, attrs):
        assert tag in TAGS, tag
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), names
        for name, value in attrs:
            assert name in ATTRIBUTES["*"] | ATTRIBUTES.get(tag, set()), (tag, name)
            if name == "style":
                self.check_style(value)
            if name in {"href", "src", "poster"}:
                assert re.fullmatch(ADDRESS, value), value
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def check_style(self, css):
        declared = [part.split(":", 1) for part in css.split(";")]
        assert len({name for name, _ in declared}) == len(declared), f"set twice: {css}"
        for name, value in declared:
            assert re.fullmatch(STYLES[name], value), (name, value)

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        assert self.open, f"bare text {data!r}"
        assert len(data) == 1 or not set(data) & set("$\\"), f"MathJax would read {data!r}"
        self.runs.append(data)

    def unknown_decl(self, data):
        raise AssertionError(data)

    handle_comment = handle_decl = handle_pi = unknown_decl


def judge(markup):
    """Check markup and give its elements as (tag, attributes), and the text a reader sees."""
    reader = Judge()
    reader.feed(str(markup))
    reader.close()
    assert not reader.open, reader.open
    return reader.seen, "".join(reader.runs).replace("\xa0", " ")
