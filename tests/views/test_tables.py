"""Tables fit their place: a page breaks only sentences, a terminal never a row that need not be."""

import re

import pytest

from kling_nb.commands.run_line import run_words
from kling_nb.views.html import AMBER, pill, tag
from kling_nb.views.tables import table, text_table
from support.markup import judge

HEADS = ["run", "prompt", "cost", "why"]
ROWS = [["kl7m2q", "狐" * 30, "$0.56", "The provider refused it for its content, as it says. " * 2]]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_table_is_as_wide_as_its_terminal(width):
    """Sentences are broken and lose nothing, other cells keep both their ends, figures stay whole."""
    lines = text_table(HEADS, ROWS, align="llrw", width=width).splitlines()
    columns = [sum(2 if ord(c) > 0x2E80 else 1 for c in line) for line in lines]
    assert max(columns) <= width
    assert max(columns) > width - 12
    assert "$0.56" in lines[1]
    said = " ".join(" ".join(line.rpartition("  ")[2] if n else line for n, line in enumerate(lines)).split())
    assert "content, as it" in said.replace("  ", " ") or "refused it" in said


def test_without_a_terminal_nothing_is_cut():
    """What goes into a file or a notebook is whole."""
    text = text_table(HEADS, ROWS, align="llrw")
    assert "狐" * 30 in text
    assert "…" not in text


LIST = ["run", "prompt", "cost", "provider", "file"]
LISTED = [
    [
        "kl7m2q",
        "A red fox crosses fresh snow at dawn, " * 4,
        "$0.56",
        "Sandbox",
        "a-red-fox-" * 4 + "kl7m2q.mp4",
    ]
]


@pytest.mark.parametrize(
    ("width", "heads"), [(None, LIST), (120, LIST), (60, LIST[:4]), (40, LIST[:3]), (20, LIST[:2])]
)
def test_a_list_of_runs_keeps_its_prompts_readable(width, heads):
    """In a narrow terminal the last columns go before the prompt is cut to nothing."""
    text = text_table(LIST, LISTED, align="lerlm", width=width)
    first, row = text.splitlines()
    assert first.split() == heads
    assert width is None or len(row) <= width
    assert "A red fox" in row
    assert "crosses fresh" in row or width == 20


def test_a_list_of_runs_fits_its_page():
    """One elastic column gives way, then the last columns go; a file's name keeps both its ends."""
    page = table(LIST, LISTED, align="lerlm")
    seen, text = judge(page)
    rows = [attributes["style"] for tag, attributes in seen if tag == "tr"]
    cells = [attributes["style"] for tag, attributes in seen if tag in {"th", "td"}]
    # What has no room on the one line of a row goes into a second one, which is not seen.
    assert all("flex-wrap:wrap;gap:0 14px;overflow:hidden;height:26px" in style for style in rows)
    widths = [re.search("flex:([^;]*)", style)[1] for style in cells]
    assert widths[: len(LIST)] == widths[len(LIST) :]
    assert [width.startswith("1 0") for width in widths] == [head == "prompt" for head in LIST] * 2
    assert "a-red-fox-a-…-kl7m2q.mp4" in text
    assert LISTED[0][-1] in [attributes.get("title") for _, attributes in seen]


def test_on_a_page_only_sentences_break():
    """A model's name or a price stays on its line."""
    page = table(HEADS, ROWS, align="llrw")
    assert page.count("white-space:pre-wrap") == 2
    assert page.count("white-space:nowrap") == 6


def test_a_sentence_that_may_go_breaks_in_a_terminal_only():
    """On a page it is cut at its end, where its row stays one line."""
    page = table(HEADS, ROWS, align="llrg")
    assert page.count("white-space:nowrap") == 8
    assert page.count(";height:26px") == 2
    assert text_table(HEADS, ROWS, align="llrg", width=80) == text_table(HEADS, ROWS, align="llrw", width=80)


def test_no_table_scrolls_its_page():
    """Where no column may go, what has no room stands below the others, in a row as high as it needs."""
    seen, _ = judge(table(HEADS, ROWS, align="llrw"))
    styles = [(tag, attributes.get("style", "")) for tag, attributes in seen]
    assert not [style for _, style in styles if "overflow-x" in style or ";height:" in style]
    assert all("flex-wrap:wrap" in style for tag, style in styles if tag == "tr")
    assert all("flex:" in style for tag, style in styles if tag in {"th", "td"})


@pytest.mark.parametrize(
    ("words", "there"),
    [(["help"], ["--max-cost USD", "%kling rate", "Examples"]), (["help", "export"], ["--licence TEXT"])],
)
def test_help_fits_a_terminal(words, there):
    """No line is wider than 88 characters, and nothing that can be typed is left out."""
    text = run_words(None, words).text
    assert max(map(len, text.splitlines())) <= 88
    assert all(
        word in text for word in (["--max-cost", "%kling rate", "Examples"], ["--licence"])[len(words) - 1]
    )


def test_a_mark_has_room_in_its_column():
    """The words of the next one begin behind its rim."""
    plain, marked = (table(["", "found"], [[word, "here"]]) for word in ("warn", pill("warn", AMBER)))
    assert "flex:0 0 32px" in plain
    assert "flex:0 0 52px" in marked


def test_a_column_has_room_for_wide_letters():
    """The state of a run does not begin within its id."""
    narrow, wide = (table(["run", "state"], [[run, "Done"]]) for run in ("k9f37j2x", "kmmm3k8h"))
    assert "flex:0 0 64px" in narrow
    assert "flex:0 0 79px" in wide


def test_a_prompt_is_cut_at_its_end_in_every_script():
    """Where it runs from right to left, its end is at the left."""
    seen, _ = judge(table(["run", "prompt"], [["k9f37j2x", "ثعلب أحمر يعبر الثلج"]], align="le"))
    assert [attributes.get("dir") for tag, attributes in seen if tag == "td"] == [None, "auto"]


def test_where_no_cell_can_be_cut_the_last_columns_go():
    """Figures are never cut; a drawing has no words and takes none of the width."""
    heads = ["provider, model", "runs", "estimated", "settled", ""]
    rows = [["Sandbox, kling-3.0-pro", 3, "$1,680.00", "$1,680.00", tag("div", style="width:4px")]]
    wide, narrow = (text_table(heads, rows, align="lrrrg", width=width).splitlines() for width in (80, 30))
    assert wide[0].split()[-1] == "settled"
    assert narrow[0].split()[-1] == "estimated"
    assert narrow[1].endswith("$1,680.00")
    assert max(map(len, narrow)) <= 30
