"""What of a notebook's own markup goes into a page: what JupyterLab shows of a notebook it does not trust.

Invariants: the work is bleach's, the sanitizer that nbconvert brings; no script, form, frame or style sheet
is left, and no address that asks another host for anything by itself.
"""

import html
import re
import secrets
from collections import Counter
from collections.abc import Callable

from kling_nb.views.words import there_are

__all__ = ["Cleaner"]

_TAG_NAMES = """
a abbr audio b bdi bdo blockquote br caption center cite code col colgroup dd del details dfn div dl dt
em figcaption figure h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark meter ol p pre progress q s samp section
small span strike strong sub summary sup table tbody td tfoot th thead time tr tt u ul var video wbr
"""

_TAGS = frozenset(_TAG_NAMES.split())

_ATTRIBUTES = {
    "*": {"class", "dir", "id", "lang", "style", "title", "align", "valign", "width", "height"},
    "a": {"href", "name"},
    "audio": {"controls", "loop", "preload", "src"},
    # A table that scrolls is come to by keyboard.
    "div": {"tabindex"},
    "img": {"alt", "src"},
    "li": {"value"},
    "meter": {"high", "low", "max", "min", "optimum", "value"},
    "ol": {"start", "type"},
    "progress": {"max", "value"},
    "table": {"border"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan", "scope"},
    "video": {"controls", "loop", "muted", "poster", "preload", "src"},
}

_STYLE_NAMES = """
align-items background background-color border border-bottom border-collapse border-color border-left
border-radius border-right border-spacing border-style border-top border-width bottom box-sizing color
column-gap cursor display flex flex-basis flex-direction flex-flow flex-grow flex-shrink flex-wrap float
font font-family font-size font-style font-weight gap height justify-content left letter-spacing
line-height margin margin-bottom margin-left margin-right margin-top max-height max-width min-height
min-width opacity overflow overflow-wrap overflow-x overflow-y padding padding-bottom padding-left
padding-right padding-top position right row-gap table-layout text-align text-decoration text-indent
text-overflow text-transform top vertical-align visibility white-space width word-break word-wrap
"""

_STYLES = _STYLE_NAMES.split()
_LONG = re.compile(r"data:(?:image|video|audio)/[a-z0-9+.-]+;base64,[A-Za-z0-9+/=]{1000,}")

# Taken out with what is in them before the sanitizer looks: it would leave the text of a style sheet.
_TEXTLESS = re.compile(
    r"<(script|style|iframe|object|noscript|template)\b.*?</\1\s*>", re.DOTALL | re.IGNORECASE
)

_SCHEME = re.compile(r"[^/?#]*:")

# Browsers pass over these in an address, wherever they stand.
_UNSEEN = re.compile(r"[\x00-\x20]+")

# Whatever else may stand before a bracket in a style, or be spelt with a backslash, may fetch something.
_CALL = re.compile(r"([a-z-]*)\(")
_MARKED = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")

_SINGLE = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"]
)

#: Elements that may be open at once, and tags in all, in one output: the parser's time grows with both.
_DEEPEST, _MOST_TAGS = 1_000, 200_000
_CALLS = frozenset({"", "rgb", "rgba", "hsl", "hsla", "calc", "min", "max", "clamp", "linear-gradient"})


class Cleaner:
    """Takes the place of nbconvert's filter `clean_html`, which would also take out pictures and clips.

    Args:
        then: What is done to the clean markup.
    """

    def __init__(self, then: Callable[[str], str]) -> None:
        self._then = then
        self._token = secrets.token_hex(16)
        self._held: list[str] = []
        self._elsewhere = 0
        self._nested = 0

    def notes(self) -> list[str]:
        """Say what was taken out that a reader will miss."""
        notes = []
        if self._elsewhere:
            what = ("picture or clip from other hosts", "pictures or clips from other hosts")
            notes.append(f"{there_are(self._elsewhere, *what)} not in the page.")
        if self._nested:
            what = ("output or text", "outputs or texts")
            notes.append(
                f"{there_are(self._nested, *what)} left out: too much markup, or markup that does not end."
            )
        return notes

    def __call__(self, markup: object) -> str:
        """Clean one piece of markup."""
        import bleach
        from bleach.css_sanitizer import CSSSanitizer

        text = markup.decode("utf-8", "replace") if isinstance(markup, bytes) else str(markup)
        # Long data would take the parser minutes; the sanitizer sees its kind, and a word of ours.
        self._held = []
        text = _LONG.sub(self._hold, text)
        if _is_endless(text):
            self._nested += 1
            return ""
        text = _TEXTLESS.sub("", text)
        clean = bleach.clean(
            text,
            tags=_TAGS,
            attributes=self._allowed,
            protocols=frozenset({"http", "https", "mailto", "data", "attachment"}),
            strip=True,
            css_sanitizer=CSSSanitizer(allowed_css_properties=_STYLES),
        )
        return self._then(re.sub(f"{self._token}-(\\d+)", lambda found: self._held[int(found[1])], clean))

    def _hold(self, found: re.Match[str]) -> str:
        head, _, data = found[0].partition(",")
        self._held.append(data)
        return f"{head},{self._token}-{len(self._held) - 1}"

    def _allowed(self, tag: str, name: str, value: str) -> bool:
        if name not in _ATTRIBUTES["*"] | _ATTRIBUTES.get(tag, set()):
            return False
        value = html.unescape(value)
        if name == "style":
            return "\\" not in value and set(_CALL.findall(value.lower())) <= _CALLS
        if name == "tabindex":
            return value == "0"
        value = _UNSEEN.sub("", value)
        if name == "href":
            return _SCHEME.match(value) is None or value.lower().startswith(
                ("http://", "https://", "mailto:")
            )
        if name in {"src", "poster"}:
            return self._is_near(tag if name == "src" else "img", value)
        return True

    def _is_near(self, tag: str, value: str) -> bool:
        kind = {"img": "image", "video": "video", "audio": "audio"}[tag]
        if value.lower().startswith(f"data:{kind}/"):
            return True
        # To a browser the two slashes are the same.
        near = _SCHEME.match(value) is None and not value.replace("\\", "/").startswith("//")
        self._elsewhere += not near
        return near


def _is_endless(text: str) -> bool:
    """Whether markup is of a kind that nobody writes, and that would take the parser minutes."""
    left: Counter[str] = Counter()
    for number, (end, name) in enumerate(_MARKED.findall(text.lower()), 1):
        if number > _MOST_TAGS:
            return True
        if not end and name not in _SINGLE:
            left[name] += 1
        elif left[name] > 0:
            # The end of what never began ends nothing else.
            left[name] -= 1
        if number % 100 == 0 and left.total() > _DEEPEST:
            return True
    return left.total() > _DEEPEST
