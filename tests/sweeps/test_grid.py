"""Rows are read, or refused by their number; they become distinct requests in a useful order."""

import json
from itertools import pairwise

import pandas as pd
import pytest

from kling_nb.errors import UsageError
from kling_nb.records.request import TextToVideo
from kling_nb.sweeps.grid import axis, expand, make_grid
from kling_nb.sweeps.prompts import read_rows


def members(prompts, *, takes=1, file=None, suite=None, **axes):
    rows = read_rows(prompts, file=file, suite=suite)
    options = {name: axes.pop(name) for name in ("tags", "order", "enhancer", "private") if name in axes}
    return expand([make_grid(rows, axes, takes=takes, **options)])


TABLE = pd.DataFrame({"prompt": ["A fox", "An owl"], "duration": [3, 5]})
FILES = {
    "bom and crlf.csv": b"\xef\xbb\xbfprompt,duration\r\nA fox,3\r\nAn owl,5\r\n",
    "bom and crlf.txt": b"\xef\xbb\xbfA fox\r\nAn owl\r\n",
    "bom and crlf.jsonl": b'\xef\xbb\xbf"A fox"\r\n\r\n"An owl"\r\n',
    "bom and crlf.json": b'\xef\xbb\xbf["A fox",\r\n"An owl"]\r\n',
    "old line ends.txt": b"A fox\rAn owl\r",
    "lines.jsonl": b'{"prompt": "A fox", "duration": 3}\n\n{"prompt": "An owl", "duration": 5}\n',
    "array.json": b'["A fox", "An owl"]',
}


@pytest.mark.parametrize("kind", [*FILES, "list", "column", "table", "requests", "generator", "path"])
def test_prompts_are_read_from_whatever_holds_them(kind, tmp_path):
    """Lists, columns, tables and files give the same two requests."""
    path = tmp_path / (kind if kind in FILES else "path.txt")
    path.write_bytes(FILES.get(kind, b"A fox\nAn owl"))
    given = {
        "list": ["A fox", "An owl"],
        "column": TABLE["prompt"],
        "table": TABLE,
        "requests": [TextToVideo(prompt="A fox", duration=3), TextToVideo(prompt="An owl")],
        "generator": (text for text in ("A fox", "An owl")),
        "path": path,
    }
    found = members(given.get(kind), file=path if kind in FILES else None).members
    assert [member.label for member in found] == ["A fox", "An owl"]
    if kind in {"table", "requests", "bom and crlf.csv", "lines.jsonl"}:
        assert [member.request.duration for member in found] == [3, 5]


def test_a_cell_of_two_lines_is_the_same_prompt_whatever_the_line_ends(tmp_path):
    """One that a spreadsheet quoted."""
    for name, ends in (("unix.csv", b"\n"), ("windows.csv", b"\r\n")):
        (tmp_path / name).write_bytes(ends.join([b"prompt", b'"A fox,', b'at night"', b""]))
        [member] = members(None, file=tmp_path / name).members
        assert member.request.prompt == "A fox,\nat night"


BAD = {
    "nothing": ([], "no prompts"),
    "one text": ("A fox", "should be a list"),
    "a number": (3, "should be a list"),
    "an empty one": (["A fox", " "], "Row 2: prompt is empty"),
    "None": (["A fox", None], "Row 2: prompt is empty"),
    "NaN in a table": (pd.DataFrame({"prompt": ["A fox", float("nan")]}), "Row 2: prompt is empty"),
    "NA in a column": (pd.Series(["A fox", pd.NA]), "Row 2: prompt is empty"),
    "no prompt": (pd.DataFrame({"text": ["A fox"]}), "Row 1: there is no column `prompt`"),
    "too long": (["A fox"] * 730 + ["x" * 2501] + ["An owl"] * 269, "Row 731: prompt"),
    "a number for a text": ([7], "Row 1: prompt should be text, not an int"),
    "misspelt": (
        [{"prompt": "A fox", "durration": 3}],
        "Row 1: the column durration would do nothing: there is no such field, perhaps duration is meant",
    ),
    "a note": ([{"prompt": "A fox", "scene": "s1"}], 'keep it with each run: tags={"scene": "{{scene}}"}.'),
    "out of range": ([{"prompt": "A fox", "duration": 99}], "Row 1: duration"),
    "no such name": (["A {{beast}}"], "Row 1: {{beast}}: there is no column or axis"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_row_refuses_all_by_its_number(case):
    """The message is one line with the row; nothing was sent."""
    given, words = BAD[case]
    with pytest.raises(UsageError) as error:
        members(given)
    assert words in str(error.value)
    assert "Nothing was sent." in str(error.value)


WRONG_FILES = {
    "latin.csv": (b"prompt\nA fox\nCaf\xe9\n", "Row 2: latin.csv is not UTF-8 text"),
    "latin.txt": (b"A fox\nCaf\xe9\n", "Row 2: latin.txt is not UTF-8 text"),
    "ragged.csv": (b"prompt,duration\nA fox,3\nAn owl\n", "Row 2: it should have 2 cells, as the header has"),
    "quote.csv": (b'prompt\nA fox\n"An owl\n', "Row 2: this is not CSV"),
    "junk.jsonl": (b'"A fox"\n{"prompt"\n', "Row 2: this is not JSON"),
    "nan.jsonl": (b'"A fox"\n{"prompt": NaN}\n', "Row 2: prompt is empty"),
    "empty.txt": (b"\n\n", "no prompts"),
    "gone.txt": (None, "cannot be read"),
    "wide.csv": ("prompt\nA fox\n".encode("utf-16"), "wide.csv is not UTF-8 text (byte 0xff)"),
    "study.toml": (
        b'file = "owls.csv"\n',
        "study.toml: a file of prompts ends in .csv, .jsonl, .json or .txt",
    ),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_wrong_file_is_refused_whole(name, tmp_path):
    """By its name, and by the row where one is wrong."""
    content, words = WRONG_FILES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as error:
        members(None, file=tmp_path / name)
    assert words in str(error.value)


def test_a_suite_is_read_from_its_own_file(tmp_path):
    """Rows of the suite that is named, each tagged with its dimension; nothing is downloaded."""
    rows = [
        {"prompt_en": "A fox", "dimension": ["color", "scene"], "auxiliary_info": {"a": 1}},
        {"prompt_en": "An owl", "dimension": ["scene"]},
    ]
    path = tmp_path / "VBench_full_info.json"
    path.write_text(json.dumps(rows), "utf-8")
    found = members(None, file=path, suite="vbench").members
    assert [member.tags["dimension"] for member in found] == ["color,scene", "scene"]
    both = [{**row, "suite": suite} for row in rows for suite in ("vbench", "vbench2")]
    path.write_text("\n".join(map(json.dumps, both)), "utf-8")
    assert len(members(None, file=path, suite="vbench2").members) == 2
    with pytest.raises(UsageError, match="suite: is vbench or vbench2"):
        members(["A fox"], suite="vbench")


def test_the_order_makes_a_partial_sweep_useful():
    """Every prompt once before any twice, settings mixed, and providers in turn."""
    prompts = [f"Owl {number}" for number in range(5)]
    found = members(prompts, takes=2, duration=[3, 5], provider=["runflow", "runcomfy"]).members
    assert len(found) == 5 * 2 * 2 * 2
    for turn in range(8):
        part = found[5 * turn : 5 * turn + 5]
        assert {member.label for member in part} == set(prompts)
        assert len({member.request.duration for member in part}) == 2
        assert all(one.provider != other.provider for one, other in pairwise(part))
    assert {member.take for member in found[:20]} == {0}
    given = members(prompts, takes=2, order="given").members
    assert [(member.label, member.take) for member in given[:3]] == [("Owl 0", 0), ("Owl 0", 1), ("Owl 1", 0)]


def test_names_are_filled_in_from_columns_and_axes():
    """In prompts and in tags; nothing else is looked at."""
    rows = [{"prompt": "A {{ beast }} in {{weather}}", "beast": "fox"}]
    found = members(rows, weather=["snow", "fog"], tags={"scene": "{{weather}}"}).members
    assert [member.request.prompt for member in found] == ["A fox in snow", "A fox in fog"]
    assert [member.tags["scene"] for member in found] == ["snow", "fog"]
    with pytest.raises(UsageError, match="There is no axis colour"):
        members(["A fox"], colour=["red"])
    with pytest.raises(UsageError, match="both a column and an axis"):
        members([{"prompt": "A fox", "duration": 3}], duration=[3, 5])


def test_whole_seconds_of_a_column_that_had_a_gap_are_whole():
    """pandas has them as floats; a part of a second stays refused."""
    table = pd.DataFrame({"prompt": ["A fox", "An owl", "A hare"], "duration": [3, None, 5]}).dropna()
    assert [member.request.duration for member in members(table).members] == [3, 5]
    with pytest.raises(UsageError, match=r"Row 1: duration must be a whole number, not 3\.5"):
        members([{"prompt": "A fox", "duration": 3.5}])


def test_a_prompt_that_is_there_twice_counts_once():
    """And it is said how many rows that were."""
    found = members(["A fox", "An owl", "A fox"], takes=2)
    assert (len(found.members), found.duplicates) == (4, 1)


def test_a_longer_prompt_keeps_the_original_beside_it():
    """A pair, a column or a function: results are named by the original, and receipts say how it was made."""
    [pair] = members([("A fox", "A fox, soft rim light")]).members
    assert (pair.label, pair.request.prompt) == ("A fox", "A fox, soft rim light")
    assert pair.tags == {"prompt": "A fox"}

    def brighter(text):
        return f"{text}, soft rim light"

    [made] = members(["A fox"], enhancer=brighter).members
    assert made.request == pair.request
    assert made.tags["enhancer"].endswith("brighter")
    [how] = members([("A fox", "A fox, soft")], enhancer={"model": "llm-1", "seed": 3}).members
    assert json.loads(how.tags["enhancer"]) == {"model": "llm-1", "seed": 3}
    with pytest.raises(UsageError, match="Row 1: the enhancer should return text, not int"):
        members(["A fox"], enhancer=len)


def test_an_axis_has_each_value_once():
    """Also where values are equal to Python and different to a request."""
    assert axis("audio", [True, 1, True]) == [True, 1]
    for wrong in ([], [None], [float("nan")]):
        with pytest.raises(UsageError, match="empty"):
            axis("duration", wrong)
    with pytest.raises(UsageError, match="tags: should be texts"):
        members(["A fox"], tags={"scene": 3})
    for wrong in (0, -1, True, ["a"], 1.5):
        with pytest.raises(UsageError, match="takes: "):
            members(["A fox"], takes=wrong)
