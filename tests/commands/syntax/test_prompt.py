"""The body of a `%%kling` cell arrives exactly, as a prompt or a storyboard, or costs nothing."""

import os
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_nb.commands.syntax.cell import parse_cell
from kling_nb.commands.syntax.storyboard import read_storyboard
from kling_nb.errors import UsageError
from kling_nb.records.request import make_request
from kling_nb.records.secrets import looks_secret
from support.paths import TESTS

FOX = "A red fox"
HERE = TESTS


def parse(line="", body=FOX, names=None, folder=HERE):
    return parse_cell(line, body, names or {}, folder=folder)


def refusal(line="", body=FOX, names=None, folder=HERE):
    with pytest.raises(UsageError, match="Nothing was sent") as caught:
        parse(line, body, names, folder)
    return str(caught.value)


def test_the_body_is_literal_but_for_names():
    """Only plain names in double braces are filled in, once, from str, int and float."""

    class Colour(str, Enum):  # noqa: UP042 - the old way, which writes itself as Colour.RED
        RED = "red"

    names = {"colour": Colour.RED, "n": 3, "x": 0.5, "loop": "{{n}} {n}"}
    body = "  {{colour}} {{ n }} {{x}} {n} $n {{loop}} {{{n}}}\r\n[5s mid-line] \t"
    order = parse("", body, names)
    assert order.rendered == "red 3 0.5 {n} $n {{n}} {n} {3}\n[5s mid-line]"
    assert order.fields == {"prompt": order.rendered}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("A {{colr}} fox", "{{colr}} in the prompt: there is no such variable"),
        ("A {{fox.name}}", "not the name of a variable"),
        ("A {{os.environ}}", "not the name of a variable"),
        ("A {{}}", "not the name of a variable"),
        ("A {{None}}", "not the name of a variable"),
        ("A {{flag}}", "is a bool"),
        ("A {{things}}", "is a list"),
        ("A {{nan}}", "not a finite number"),
        ("A {{huge}}", "too long a number"),
        ("A {{half}}", "lone surrogate"),
        ("", "The prompt is empty"),
        (" \r\n\t", "The prompt is empty"),
        ("{{empty}}", "The prompt is empty"),
    ],
)
def test_a_wrong_body_is_refused_before_any_spend(body, words):
    """A typo in a name, or a value that is no text, must not cost money."""
    names = {
        "flag": True,
        "things": [],
        "nan": float("nan"),
        "huge": 10**5000,
        "half": "\ud800",
        "empty": " ",
    }
    assert words in refusal("", body, names)


def test_a_body_comes_from_a_file(tmp_path):
    """`-f` reads UTF-8 text relative to the notebook and fills names in."""
    (tmp_path / "fox.txt").write_bytes("\ufeffA {{colour}} fox \u72d0\r\nat dawn\n".encode())
    order = parse("-f fox.txt", "\n", {"colour": "red"}, tmp_path)
    assert order.fields["prompt"] == "A red fox \u72d0\nat dawn"
    assert parse(f"--file={tmp_path / 'fox.txt'}", "", {"colour": "red"}).fields == order.fields


def test_a_file_that_cannot_be_the_body_is_refused(tmp_path):
    """Not there, no file, a pipe, not UTF-8, too large, empty, or beside a body: refused, never half read."""
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "large.txt").write_bytes(b"x" * (64 * 1024 + 1))
    (tmp_path / "empty.txt").write_bytes(b" \n")
    (tmp_path / "fox.txt").write_bytes(FOX.encode())
    os.mkfifo(tmp_path / "pipe")
    for name, words in {
        "none.txt": "there is no file",
        ".": "there is no file",
        "pipe": "there is no file",
        "latin.txt": "not UTF-8",
        "large.txt": "larger than 64 KiB",
        "empty.txt": "The prompt is empty",
        "~nobody_here/x": "--file",
    }.items():
        assert words in refusal(f"-f {name}", "", folder=tmp_path)
    assert "below the line and one in --file" in refusal("-f fox.txt", FOX, folder=tmp_path)


def test_a_storyboard_has_one_shot_a_line():
    """Whole seconds in brackets begin a shot; text above the first one stays the prompt."""
    body = "\n  [5s] Wide view\n\n[ 3 s ]  Close-up: [2s] two hands \n"
    shots = [{"prompt": "Wide view", "duration": 5}, {"prompt": "Close-up: [2s] two hands", "duration": 3}]
    assert parse("", body).fields == {"shots": shots}
    assert parse("", f"Film noir,\nin rain\n{body}").fields == {
        "prompt": "Film noir,\nin rain",
        "shots": shots,
    }
    assert make_request(**parse("-d 8", body).fields).duration == 8


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("[5s] A\nand B", "Line 2 of the prompt has no [seconds]"),
        ("\n\n[5s] A\n\nand B", "Line 5 of the prompt has no [seconds]"),
        ("[2.5s] A", "Line 1 of the prompt begins with '[2.5s]'"),
        ("[5s] A\n[5 sec] B", "Line 2 of the prompt begins with '[5 sec]'"),
        ("Noir\n[-3s] A", "begins with '[-3s]'"),
        ("[5S] A", "begins with '[5S]'"),
        ("[1000s] A", "begins with '[1000s]'"),
        ("[5s]\nA", "Line 1 of the prompt has seconds but no words"),
    ],
)
def test_what_nearly_is_a_storyboard_is_refused(body, words):
    """A wrong guess about a shot would cost money, so nothing is guessed."""
    told = refusal("", body)
    assert words in told
    assert "[5s] Wide view" in told


@pytest.mark.parametrize(
    "body", ["[1] A fox", "[0:05] A", "A fox [5s] later", "[fox] A", "[5s-8s] A", "[s] A"]
)
def test_brackets_that_are_no_seconds_stay_a_prompt(body):
    """A prompt that merely has brackets is sent as it stands."""
    assert parse("", body).fields == {"prompt": body}


@given(text=st.text().filter(lambda text: text.strip() and not looks_secret(text)))
def test_a_prompt_without_braces_and_brackets_is_sent_exactly(text):
    """But for CRLF and the white space around it, a prompt arrives as it was typed."""
    text = text.replace("{", "(").replace("[", "(")
    try:
        order = parse("", text)
    except UsageError:
        assert any("\ud800" <= c <= "\udfff" for c in text)
    else:
        assert order.fields == {"prompt": text.replace("\r\n", "\n").strip()}


WORDS = st.text(st.characters(categories=["L", "N", "P"], exclude_characters="["), min_size=1, max_size=20)


@given(shots=st.lists(st.tuples(st.integers(1, 15), WORDS), min_size=1, max_size=6))
def test_a_storyboard_comes_back_as_it_was_written(shots):
    """Every shot of a storyboard keeps its words, its seconds and its place."""
    text = "\n".join(f"[{seconds}s] {words}" for seconds, words in shots)
    read = read_storyboard(text)
    assert [(shot["duration"], shot["prompt"]) for shot in read["shots"]] == shots
    assert "prompt" not in read
