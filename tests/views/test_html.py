"""Whatever is put into our HTML, nothing comes out of it but our own markup."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kling_nb.views import html
from kling_nb.views.html import Html, escape, link, prose, safe_url, tag
from kling_nb.views.tables import table, text_table
from support.markup import judge

HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</div></table><style>*{display:none}</style>",
    "<!-- ",
    "<![CDATA[ ]]>",
    "&lt;b&gt; &#x6a;",
    "`</code><iframe>`",
    "**</b><svg/onload=alert(1)>**",
    "\\(\\href{javascript:alert(1)}{x}\\) $a$ $$b$$",
    "\x00\x1b[31m\ud800\u202e",
]
ANY_TEXT = st.text(st.characters(), max_size=60)


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text):
    """Promise 7: markup in foreign text is shown as text, wherever it stands."""
    whole = tag("div", escape(text), tag("span", text, title=text), prose(text), link(text, text))
    seen, words = judge(whole)
    assert {name for name, _ in seen} <= {"div", "span", "code", "b", "a"}
    assert len(words) > 5


@settings(deadline=None, derandomize=True)
@given(ANY_TEXT)
def test_escaping_loses_only_what_a_notebook_cannot_hold(text):
    """A reader sees exactly the text, but for control characters; a file can hold all of it."""
    markup = tag("div", text, title=text)
    seen, words = judge(markup)
    kept = "".join(c for c in text if c in "\n\t" or (ord(c) >= 32 and not 127 <= ord(c) < 160))
    kept = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in kept)
    assert words == kept.replace("\xa0", " ")
    assert seen[0][1]["title"] == kept
    assert str(markup).encode()


def test_markup_that_is_safe_is_not_escaped_again():
    """Pieces can be put together in any order without double escaping."""
    assert tag("b", tag("span", "a & b")) == "<b><span>a &amp; b</span></b>"
    assert isinstance(html.join(["<", Html("<br>")]), Html)
    assert html.join(["<", Html("<br>")]) == "&lt;<br>"


def test_amounts_are_never_typeset_as_formulas():
    """Between two dollar signs MathJax reads a formula; each of ours stands alone in its element."""
    markup = tag("div", "session $1.68 of $10.00")
    assert markup.count("<span>$</span>") == 2
    assert judge(markup)[1] == "session $1.68 of $10.00"


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        " javascript:alert(1)",
        "java\tscript:alert(1)",
        "java\nscript:alert(1)",
        "\x01javascript:alert(1)",
        "vbscript:x",
        "data:text/html,<script>",
        "data:image/svg+xml;base64,AAAA",
        "data:image/jpeg;base64,AA' onload='x",
        "//other.example/x.mp4",
        "\\\\other.example\\x.mp4",
        "/\\other.example",
        "file:///etc/passwd",
        "blob:x",
        "",
        None,
    ],
)
def test_a_bad_address_is_dropped(url):
    """Only http(s), relative and welcome data addresses reach an attribute."""
    assert safe_url(url) is None
    assert safe_url(url, data="image") is None
    assert link("label", url) == "label"


@pytest.mark.parametrize(
    "url", ["kling_media/a%20b.mp4", "../a.mp4", "/files/a.mp4", "https://example.com/a?b=c:d", "./a:b.mp4"]
)
def test_a_good_address_passes(url):
    """An address of a clip passes unchanged."""
    assert safe_url(url) == url


def test_data_passes_only_where_it_is_welcome():
    """A picture is no clip, a clip no picture, and neither is a link."""
    picture, clip = "data:image/jpeg;base64,/9j/4AAQ", "data:video/mp4;base64,AAAA="
    assert safe_url(picture, data="image") == picture
    assert safe_url(clip, data="video") == clip
    assert [safe_url(picture), safe_url(clip, data="image"), safe_url(picture, data="video")] == [None] * 3


@pytest.mark.parametrize("colour", [html.GREY, html.BLUE, html.GREEN, html.RED, html.AMBER])
def test_white_on_a_pill_can_be_read(colour):
    """White on each pill has the contrast WCAG asks of small text."""
    assert 1.05 / (luminance(colour) + 0.05) >= 4.5


def test_a_table_holds_any_cell():
    """Cells are escaped, `Html` cells are not, and each row has its cells."""
    rows = [["kl7m2q", html.pill("Done", html.GREEN), "$0.56"], [*HOSTILE[:2], "unknown"]]
    seen, words = judge(table(["run", "state", "cost"], rows, align="llr", caption=HOSTILE[0]))
    assert [name for name, _ in seen].count("td") == 6
    assert sum("text-align:right" in attrs["style"] for name, attrs in seen if name in {"td", "th"}) == 3
    assert HOSTILE[1] in words


def test_a_row_of_the_wrong_length_is_our_mistake():
    """A table never shifts a figure under the wrong head."""
    with pytest.raises(ValueError, match="zip"):
        table(["a", "b"], [["1"]])
    with pytest.raises(ValueError, match="zip"):
        text_table(["a", "b"], [["1"]])


def test_the_text_table_is_aligned():
    """The plain twin has the same cells, in columns, wide characters counted as two."""
    rows = [["狐狸", html.pill("Done", html.GREEN), "$0.56"], ["a\nb", "x < y", "unknown"]]
    assert text_table(["name", "state", "cost"], rows, align="llr").splitlines() == [
        "name  state     cost",
        "狐狸  Done     $0.56",
        "a b   x < y  unknown",
    ]


def test_an_empty_table_has_its_heads():
    """No rows is not an error."""
    assert text_table(["run"], []) == "run"
    assert judge(table(["run"], []))[1] == "run"
