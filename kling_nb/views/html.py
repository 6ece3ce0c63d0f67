"""Safe HTML, built by pure functions: escaping, small building blocks.

Invariants: whatever is not already `Html` is escaped; an address is http(s), relative or a picture or
clip as data, or it is left out; only tags, attributes and inline styles are used that JupyterLab's
sanitizer keeps in a notebook it does not trust; no text colour of our own except white on a pill, so
that light and dark themes both read well; no ids, classes, scripts or style sheets; no text that
MathJax would take for TeX.
"""

import html as stdlib_html
import re
from collections.abc import Sequence

__all__ = [
    "AMBER",
    "BLUE",
    "DOT",
    "FAINT",
    "FONT",
    "FRAME",
    "GREEN",
    "GREY",
    "LINE",
    "MONO",
    "PILL",
    "RED",
    "Html",
    "callout",
    "details",
    "escape",
    "join",
    "link",
    "pill",
    "prose",
    "safe_url",
    "tag",
]

#: Backgrounds for white text, all with a contrast of at least 4.5 to 1 (WCAG 2.2, 1.4.3).
GREY, BLUE, GREEN, RED, AMBER = "#5f6773", "#2563c9", "#1f7a4a", "#b3302a", "#925400"
LINE = "1px solid rgba(128,128,128,0.28)"
FONT = "font-family:system-ui,sans-serif;font-size:13px;line-height:1.45"
#: Words that matter less; a link in them still has 4.5 to 1 against white.
FAINT = "opacity:0.76"
MONO = "font-family:ui-monospace,monospace;font-size:12px"
FRAME = f"border:{LINE};border-radius:8px;padding:12px;margin:6px 0;max-width:860px;box-sizing:border-box"
_PILL = "display:inline-block;background:"
#: How a pill begins: a table leaves room for its rims.
PILL = f'<span style="{_PILL}'
_NO_BREAK = 34
_VOID = frozenset({"br", "img", "wbr"})
_DATA = re.compile(r"data:(image|video)/(?:jpeg|png|webp|gif|mp4|webm);base64,[A-Za-z0-9+/]+={0,2}")
_SCHEME = re.compile(r"[^/?#]*:")
_MARKUP = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*")
_TEX = re.compile(r"[$\\]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class Html(str):
    """Markup that is already safe, and is therefore not escaped again.

    Example:
        >>> escape(Html("<b>bold</b>"))
        '<b>bold</b>'
    """

    __slots__ = ()


#: Between phrases; a line never starts with it.
DOT = Html("&nbsp;&middot; ")


def escape(text: object) -> Html:
    """Make any text safe as content; `Html` passes unchanged.

    Args:
        text: Anything; foreign text too.

    Returns:
        Safe markup. Control characters are dropped and lone surrogates replaced, because a notebook file
        could not hold them. Each dollar and backslash stands in a `span` of its own: notebook pages hand
        their outputs to MathJax, which sees delimiters only inside one run of text, and would otherwise
        set "$1.68 of $10.00" as a formula and run TeX commands from a prompt.

    Example:
        >>> escape("<b> & 'c'")
        '&lt;b&gt; &amp; &#x27;c&#x27;'
    """
    return text if isinstance(text, Html) else Html(_TEX.sub(r"<span>\g<0></span>", _quote(text)))


def _quote(text: object) -> str:
    return stdlib_html.escape(_SURROGATE.sub("\ufffd", _CONTROL.sub("", str(text))), quote=True)


def join(parts: Sequence[object], between: object = "") -> Html:
    """Put pieces together, escaping those that are not `Html`.

    Example:
        >>> join(["a", Html("<b>b</b>")], DOT)
        'a&nbsp;&middot; <b>b</b>'
    """
    return Html(escape(between).join(escape(part) for part in parts))


def tag(name: str, *children: object, style: str = "", **attributes: str | int | bool | None) -> Html:
    """Build one element.

    Args:
        name: The tag's name.
        *children: Its content; what is not `Html` is escaped.
        style: Inline CSS of our own, never foreign text.
        **attributes: True gives a bare attribute; None and False leave it out.

    Returns:
        The element.

    Example:
        >>> tag("a", "x < y", href="clip.mp4")
        '<a href="clip.mp4">x &lt; y</a>'
    """
    written = "".join(
        f" {key}" if value is True else f' {key}="{_quote(value)}"'
        for key, value in {"style": style or None, **attributes}.items()
        if value is not None and value is not False
    )
    return Html(f"<{name}{written}>" if name in _VOID else f"<{name}{written}>{join(children)}</{name}>")


def prose(text: str) -> Html:
    """Render sentences of ours: `code`, **bold** and line ends, everything else escaped.

    Example:
        >>> prose("Run `%kling keys`; it is **free**.")
        'Run <code style="white-space:nowrap">%kling keys</code>; it is <b>free</b>.'
    """
    parts: list[Html] = []
    at = 0
    for found in _MARKUP.finditer(text):
        parts.append(escape(text[at : found.start()]))
        parts.append(_code(found[1]) if found[1] else tag("b", found[2]))
        at = found.end()
    return Html(join([*parts, text[at:]]).replace("\n", tag("br")))


def _code(text: str) -> Html:
    # A short command stays on one line; a long one must be able to break in a narrow window.
    return tag("code", text, style="white-space:nowrap" if len(text) <= _NO_BREAK else "")


def safe_url(url: str | None, *, data: str = "") -> str | None:
    """Let an address through, or drop it.

    Args:
        url: Any address, also a foreign one.
        data: `image` or `video` where that kind of data address is welcome too.

    Returns:
        The address if it is http(s), relative, or welcome data; else None.

    Example:
        >>> safe_url("kling_media/fox.mp4"), safe_url("javascript:alert(1)")
        ('kling_media/fox.mp4', None)
    """
    if not url:
        return None
    if url[:5].lower() == "data:":
        found = _DATA.fullmatch(url)
        return url if found and found[1] == data else None
    # Browsers drop control characters, read a backslash as a slash, and `//` as another host.
    if url != url.strip() or "\\" in url or any(not c.isprintable() for c in url) or url.startswith("//"):
        return None
    scheme = _SCHEME.match(url)
    if scheme is None or url.lower().startswith(("http://", "https://")):
        return url
    return None


def link(label: object, url: str | None) -> Html:
    """Build a link, or only its label where the address is not safe.

    Example:
        >>> link("fox.mp4", "javascript:alert(1)")
        'fox.mp4'
    """
    href = safe_url(url)
    return escape(label) if href is None else tag("a", label, href=href)


def pill(word: str, colour: str) -> Html:
    """Build a coloured mark with a word in it.

    Args:
        word: What it says; the colour alone never says anything.
        colour: One of the backgrounds of this module.

    Example:
        >>> "Done" in pill("Done", GREEN)
        True
    """
    style = f"{_PILL}{colour};color:#fff;border-radius:10px;padding:1px 10px;font-size:12px;font-weight:600"
    return tag("span", word, style=style)


def details(summary: object, *body: object) -> Html:
    """Build a part that opens on a click.

    Example:
        >>> details("Receipt", "x").startswith("<details")
        True
    """
    head = tag("summary", tag("span", summary, style="opacity:0.75"), style="cursor:pointer")
    return tag("details", head, *body, style="margin-top:6px")


def callout(colour: str, *body: object) -> Html:
    """Build a paragraph with a coloured rule at its side."""
    return tag("div", *body, style=f"border-left:3px solid {colour};padding-left:10px;margin:8px 0")
