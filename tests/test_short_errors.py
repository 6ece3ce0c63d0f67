"""An error is three short lines in a notebook: what with the value given, what to do, and the money."""

import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

import kling_nb as kling
from kling_nb.errors import KlingError, UsageError, did_you_mean, said


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    monkeypatch.setenv("KLING_NB_MEDIA", str(tmp_path / "media"))
    yield
    kling.connect()


def shown(call):
    with pytest.raises(KlingError) as caught:
        call()
    return caught.value._render_traceback_()


@pytest.mark.parametrize(
    ("options", "what", "cure"),
    [
        ({"duration": 20}, "duration must be at most 15, not 20.", "Correct it and run again."),
        ({"seconds": 5}, "There is no option 'seconds'.", "Did you mean duration?"),
        ({"resolution": "1080p"}, "There is no option 'resolution'.", "the model decides it"),
        ({"providr": "sandbox"}, "There is no option 'providr'.", "Did you mean provider?"),
        ({"negative_prompt": "n" * 2501}, "must have at most 2,500 characters, not 2,501.", "Correct it"),
        (
            {"shots": [{"prompt": "a", "duration": 5}, {"prompt": "b", "duration": 13}]},
            "duration of all shots must be at most 15, not 18.",
            "Correct",
        ),
        ({"max_cost": "0.01", "provider": "sandbox"}, "may cost $0.56", "raise --max-cost"),
    ],
)
def test_a_refused_call_is_three_lines_with_the_value_given(options, what, cure):
    """What happened, what to do, and that nothing was sent; no frame of ours."""
    prompt = None if "shots" in options else "A fox"
    first, second, third = shown(lambda: kling.submit(prompt, **options))[:3]
    assert what in " ".join(first.split())
    assert cure in " ".join(second.split())
    assert third == "Nothing was sent."


def test_the_traceback_of_a_script_ends_where_it_called():
    """One frame of ours, the last: what is below it helps nobody, and hid the words under forty lines."""
    with pytest.raises(KlingError) as caught:
        kling.submit("A fox", max_cost="0.01", provider="sandbox")
    files = [Path(frame.filename) for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert files[0] == Path(__file__)
    assert [file.is_relative_to(Path(kling.__file__).parent) for file in files] == [False, True]


def test_of_functions_of_the_users_own_it_is_said_where_they_called():
    """Beside our words stands the user's own function, and no line of code: a prompt may stand in it."""

    def make_all():
        kling.submit("A secret fox", duration=99, private=True)

    lines = shown(make_all)
    assert lines[-1].startswith("  in make_all, line ")
    assert "secret" not in "\n".join(lines)


def test_who_only_looks_is_not_told_of_money():
    """A name that does not exist costs nothing, and the words do not speak of it."""
    what, cure, *where = shown(lambda: kling.find("nosuch"))
    assert (what, cure) == ("UsageError: There is no run 'nosuch' in the ledger.", "See `%kling list`.")
    assert not [line for line in where if "sent" in line or "Charged" in line]


def test_a_line_that_never_sends_does_not_speak_of_sending():
    """Its words may be those of a cell, where something could have been sent."""
    error = UsageError("There is no flag '-x'.", cure="Nothing was sent. See `%kling help`.")
    assert said(error)[-1] == "Nothing was sent."
    error.may_spend = False
    assert said(error) == ["There is no flag '-x'.", "See `%kling help`."]


@pytest.mark.parametrize("charged", ["yes", "unknown"])
def test_a_charge_is_always_said(charged):
    """Also where no run is known."""
    assert f"Charged: {charged}." in KlingError("It broke.", charged=charged)._render_traceback_()


def test_lines_break_at_words():
    """A front end breaks at any letter; we do so before it."""
    error = UsageError("word " * 60, cure="w" * 200)
    first, second = error._render_traceback_()[:2]
    assert max(map(len, first.splitlines())) <= 88
    assert second == "w" * 200
    assert " ".join(first.split()).count("word") == 60


def test_only_a_near_name_is_offered():
    """Nothing is guessed from afar."""
    assert did_you_mean("RUNFOLW", ["runflow", "runcomfy"]) == "Did you mean runflow?"
    assert did_you_mean("veo", ["runflow", "runcomfy"], "See the list.") == "See the list."


def test_no_line_ends_within_a_command():
    """What is to be copied stays in one piece."""
    error = UsageError("x" * 20, cure=f"{'word ' * 16}see `%kling keys` and `%kling help`.")
    assert "`%kling keys`" in error._render_traceback_()[1]
    assert "  `%kling" in error._render_traceback_()[1]


def test_a_name_that_is_not_there_is_refused_as_python_does_it():
    """With the words of Python, which then says what was meant, and no frame of a library of ours."""
    with pytest.raises(AttributeError, match="module 'kling_nb' has no attribute 'generat'") as caught:
        kling.generat  # noqa: B018 - the look is the test
    assert (caught.value.name, caught.value.obj) == ("generat", kling)
    assert len(traceback.extract_tb(caught.value.__traceback__)) == 2
    assert caught.value.__context__ is None


def test_a_broken_installation_is_not_told_as_a_name_that_is_not_there(tmp_path, monkeypatch):
    """What a library raises as it loads is what the person must see."""
    (tmp_path / "pydantic.py").write_text("raise AttributeError('of a broken pydantic')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-c", "import kling_nb; kling_nb.generate"]
    look = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "of a broken pydantic" in look.stderr
    assert "no attribute 'generate'" not in look.stderr
