"""The `%%kling` line and body are read exactly, or refused in one line before anything is sent."""

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kling_nb.commands.syntax.cell import CellOrder, HelpWantedError, parse_cell
from kling_nb.commands.syntax.flags import FLAGS, REFUSED, find_flag
from kling_nb.commands.syntax.help_text import cell_sections, help_text
from kling_nb.commands.syntax.readers import READERS
from kling_nb.commands.syntax.values import shown
from kling_nb.errors import UsageError
from kling_nb.records.request import TextToVideo, make_request
from kling_nb.session.plan import Ask
from support.paths import TESTS

FOX = "A red fox"
# Made up, in the documented shape of a Runflow key.
KEY = "rf_live_" + "7Qm2" * 6
HERE = TESTS


def parse(line="", body=FOX, names=None, folder=HERE):
    return parse_cell(line, body, names or {}, folder=folder)


def refusal(line="", body=FOX, names=None, folder=HERE):
    with pytest.raises(UsageError) as caught:
        parse(line, body, names, folder)
    told = str(caught.value)
    assert "\n" not in told
    assert "Nothing was sent" in told
    assert "Charged: no" in told
    return told


GIVEN = [
    ("", {}, {}),
    ("fox", {"dest": "fox"}, {}),
    ("-o fox", {"dest": "fox"}, {}),
    ("--out=fox", {"dest": "fox"}, {}),
    ("fox << -d 3", {"dest": "fox"}, {"duration": 3}),
    ("fox<<", {"dest": "fox"}, {}),
    ("fox -o fox", {"dest": "fox"}, {}),
    ("-d 5 fox ;", {"dest": "fox"}, {"duration": 5}),
    ("fox;", {"dest": "fox"}, {}),
    ("\ufb01sh", {"dest": "fish"}, {}),
    ("-p runflow -m pro", {"provider": "runflow", "model": "pro"}, {}),
    ("-p auto", {"provider": "auto"}, {}),
    ("-d5", {}, {"duration": 5}),
    ("-d 5s", {}, {"duration": 5}),
    ("--duration=7", {}, {"duration": 7}),
    ("--ar 9:16", {}, {"aspect_ratio": "9:16"}),
    ("--aspect_ratio=1:1", {}, {"aspect_ratio": "1:1"}),
    ("--audio", {}, {"audio": True}),
    ("--no_audio", {}, {"audio": False}),
    ('--negative "blur, text"', {}, {"negative_prompt": "blur, text"}),
    ("--negative=--audio", {}, {"negative_prompt": "--audio"}),
    ("--negative -blurry", {}, {"negative_prompt": "-blurry"}),
    ("--cfg 0.5", {}, {"cfg_scale": 0.5}),
    ("--cfg 1", {}, {"cfg_scale": 1.0}),
    ("--shot-type customize", {}, {"shot_type": "customize"}),
    ("-n 4", {"takes": (0, 1, 2, 3)}, {}),
    ("-n4", {"takes": (0, 1, 2, 3)}, {}),
    ("--take 2", {"takes": (2,)}, {}),
    ("--take 0", {"takes": (0,)}, {}),
    ("--max-cost 2.50", {"max_cost": Decimal("2.50")}, {}),
    ("--max_cost $2.5", {"max_cost": Decimal("2.5")}, {}),
    ("--max-cost 0", {"max_cost": Decimal(0)}, {}),
    ("--price .168", {"price": Decimal("0.168")}, {}),
    ("--allow-unpriced", {"allow_unpriced": True}, {}),
    ("--no-cache --retry", {"no_cache": True, "retry": True}, {}),
    ("--cached_only", {"cached_only": True}, {}),
    ("--dry_run", {"dry_run": True}, {}),
    ("--dry-run --as curl", {"dry_run": True, "dry_run_as": "curl"}, {}),
    ("--as python", {"dry_run": True, "dry_run_as": "python"}, {}),
    ("-q", {"quiet": True}, {}),
    ("--wait --timeout 90", {"wait": True, "timeout_s": 90.0}, {}),
    ("--no-wait", {"wait": False}, {}),
    ("--timeout 1.5s", {"timeout_s": 1.5}, {}),
    ("--tag a=1 --tag b='2 3'", {"tags": {"a": "1", "b": "2 3"}}, {}),
    ("--tag a=x=y --tag a=x=y", {"tags": {"a": "x=y"}}, {}),
    ("""--metadata '{"n": [1, null]}'""", {"metadata": {"n": [1, None]}}, {}),
    ("""--params '{"cfg_scale": 0.7, "audio": true}' --cfg 0.2""", {}, {"cfg_scale": 0.2, "audio": True}),
    ("-d 3 -d 3", {}, {"duration": 3}),
]


@pytest.mark.parametrize(("line", "wanted", "fields"), GIVEN)
def test_what_stands_in_the_line_is_what_is_ordered(line, wanted, fields):
    """Every flag, in every spelling, sets its own field and leaves all the others alone."""
    plain = CellOrder(fields={"prompt": FOX}, rendered=FOX)
    order = parse(line)
    assert order.fields == {"prompt": FOX} | fields
    for one, other in ((order, plain), (order.ask, plain.ask)):
        for name in one.__dataclass_fields__.keys() - {"fields", "options", "request"}:
            assert getattr(one, name) == wanted.get(name, getattr(other, name)), name
    assert make_request(**order.fields).prompt == FOX


REFUSALS = [
    ("A red fox", "second word"),
    ("fox wolf", "second word"),
    ("fox -o wolf", "two variables"),
    ("class", "'class' cannot be the name"),
    ("fox-1", "'fox-1' cannot be the name"),
    ("-o 1x", "'1x' cannot be the name"),
    ("-", "cannot be the name"),
    ("-o", "-o needs a value"),
    ("-d --audio", "-d needs a value"),
    ("-d five", "whole number of seconds, not 'five'"),
    ("-d 2.5", "whole number"),
    ("-d 0", "whole number"),
    ("-d \u0665", "whole number"),
    ("-d " + "9" * 5000, "whole number"),
    ("-d 3 -d 4", "-d twice"),
    ("--audio --no-audio", "--audio and --no-audio"),
    ("--wait --no-wait", "--wait and --no-wait"),
    ("--audio=yes", "takes no value"),
    ("--ar 4:3", "16:9, 9:16, 1:1"),
    ("--ar 16x9", "Did you mean 16:9?"),
    ("-p runflwo", "Did you mean runflow?"),
    ("-m ''", "is empty"),
    ("--cfg nan", "number from 0 to 1"),
    ("--cfg -1", "number from 0 to 1"),
    ("--cfg 1.1", "number from 0 to 1"),
    ("--cfg 1e-3", "number from 0 to 1"),
    ("-n 0", "from 1 to 100"),
    ("-n 101", "from 1 to 100"),
    ("-n -1", "from 1 to 100"),
    ("-n 2 --take 1", "exclude each other"),
    ("--take -1", "from 0"),
    ("--no-cache --cached-only", "exclude each other"),
    ("--retry --cached-only", "exclude each other"),
    ("--max-cost nan", "takes dollars"),
    ("--max-cost Infinity", "takes dollars"),
    ("--max-cost -1", "takes dollars"),
    ("--max-cost 1e3", "takes dollars"),
    ("--max-cost 1_0", "takes dollars"),
    ("--max-cost 0.0000001", "at most six decimals"),
    ("--price 0", "above 0"),
    ("--price 0.000000", "above 0"),
    ("--timeout 0", "more than 0"),
    ("--timeout inf", "more than 0"),
    ("--tag foxes", "KEY=VALUE"),
    ("--tag =x", "KEY=VALUE"),
    ("--tag a=1 --tag a=2", "two values"),
    ("--metadata [1]", "JSON object"),
    ("--metadata '{\"a\": NaN}'", "JSON object"),
    ('--metadata \'{"a": 1, "a": 2}\'', "JSON object"),
    ("--params {audio:true}", "single quotes"),
    ("--params '" + "[" * 5000 + "'", "JSON object"),
    ('--params \'{"seconds": 5, "sound": 1}\'', "has unknown fields: 'seconds', 'sound'"),
    ("--params '{\"durations\": 5}'", "perhaps duration is meant"),
    (
        '--params \'{"multi_prompt": [], "sound": true}\'',
        "'multi_prompt': there is no such field, perhaps shots",
    ),
    ('--params \'{"multi_prompt": [], "sound": true}\'', "'sound': there is no such field, perhaps audio"),
    ("--params '{\"generate_audio\": true}'", "perhaps audio is meant"),
    ('--params \'{"callback_url": "https://a.example"}\'', "it belongs to the call, as callback_url"),
    ("--params $nothing", "$nothing, and there is no such variable"),
    ("--params $a.b", "name of a variable"),
    ("--params $number", "number is a int"),
    ("--metadata $thing", "cannot be written as JSON"),
    ("--durration 5", "Did you mean --duration?"),
    ("--maxcost 5", "Did you mean --max-cost?"),
    ("-audio", "Did you mean --audio?"),
    ("--dura 5", "There is no flag '--dura'. Charged: no. Nothing was sent. Did you mean --duration?"),
    ("--", "There is no flag"),
    ("--zzz", "`%kling help`"),
    (
        "--sed 4",
        "Nothing was sent. There is no --seed either: Kling 3.0 takes no seed",
    ),
    ("--sweep duration", "written KEY=A,B"),
    ("--embed allways", "Did you mean always?"),
    ("--seed 7", "no seed"),
    ("--start_image a.png", "from text only"),
    ("--fps 60", "the model decides"),
    ("-y", "KLING_NB_YES=1"),
    ('--negative "open', "left open"),
    ("fox \\", "left open"),
    ("fox \ud800", "lone surrogate"),
]


@pytest.mark.parametrize(("line", "words"), REFUSALS)
def test_a_wrong_line_is_refused_in_one_line_with_a_cure(line, words):
    """Whatever is wrong with the line, its author reads what, and that nothing was sent."""
    assert words in refusal(line, FOX, {"number": 1, "thing": {"a": object()}})


def test_every_refused_flag_says_why_and_none_of_them_exists():
    """The flags people know from elsewhere are refused with their own reason."""
    assert len(REFUSED) > 10
    for spelling, reason in REFUSED.items():
        assert find_flag(spelling) is None
        assert reason in refusal(f"{spelling} 1")


@pytest.mark.parametrize(
    ("line", "body"),
    [
        (f"--key {KEY}", FOX),
        (f"--api_key={KEY}", FOX),
        ("--key 1234-secret-words", FOX),
        ("--token=1234-secret-words", FOX),
        ("--runflow-api-key 1234-secret-words", FOX),
        (KEY, FOX),
        (f"--tag k={KEY}", FOX),
        (f"--{KEY}", FOX),
        (f"""--metadata '{{"a": "{KEY}"}}'""", FOX),
        ("--metadata $secret", FOX),
        ("--params $negative", FOX),
        ("", f"A fox with {KEY}"),
        ("", "A fox with {{key}}"),
        ("0f8fad5b-d9cb-469f-a165-70867728950e", FOX),
        ("fox 0f8fad5b-d9cb-469f-a165-70867728950e", FOX),
        ("--max-cost 0f8fad5b-d9cb-469f-a165-70867728950e", FOX),
    ],
)
def test_a_key_in_a_cell_is_refused_and_never_repeated(line, body):
    """A key that was typed, or is held by a variable, is refused before it is kept or sent, and not shown."""
    names = {"key": KEY, "secret": {"a": [KEY]}, "negative": {"negative_prompt": KEY}}
    told = refusal(line, body, names)
    for secret in (KEY, KEY[8:], "1234", "0f8fad5b", "70867728950e"):
        assert secret not in told


def test_the_environment_is_not_metadata():
    """`--metadata $environ` would send every key of the machine: only real dicts are taken."""
    import os

    assert "environ is a _Environ" in refusal("--metadata $environ", names={"environ": os.environ})


def test_help_stops_the_cell():
    """`--help` anywhere in the line sends nothing, and can be told from a mistake."""
    for line in ("-h", "fox --help -d 99999", "--unknown -h"):
        with pytest.raises(HelpWantedError):
            parse(line)


def test_parameters_are_merged_beneath_flags_and_metadata_is_a_copy():
    """A flag outranks `--params`, the body outranks its prompt, and metadata stays as it was."""
    params = {"prompt": "beneath", "duration": 9, "shot_type": "customize"}
    metadata = {"group": {"a": 1}}
    order = parse(
        "--params $params -d 4 --metadata $metadata", names={"params": params, "metadata": metadata}
    )
    metadata["group"]["a"] = 2
    assert order.fields == {"prompt": FOX, "duration": 4, "shot_type": "customize"}
    assert order.ask.metadata == {"group": {"a": 1}}
    assert parse("--params $params", " \n", {"params": params}).fields["prompt"] == "beneath"


NAMES = {"a": "x", "d": {"k": 1}, "n": 5, "b": True}
PIECES = [
    "--tag",
    "-d",
    "5",
    "'",
    '"',
    "\\",
    "{{a}}",
    "{{",
    "}}",
    "[5s] ",
    "[",
    "$d",
    "$",
    "--",
    "-",
    "=",
    ";",
    "<<",
]
PIECES += [spelling for flag in FLAGS for spelling in flag.spellings] + [" ", "\n", "\r\n", "\x00", "\ud800"]
HOSTILE = st.lists(st.sampled_from(PIECES) | st.text(max_size=12), max_size=12).map("".join)


@given(line=HOSTILE.map(lambda text: text.replace("\n", " ")), body=HOSTILE)
@example(line="--params $d", body="x")
@example(line="-f \x00", body="")
def test_no_cell_can_crash_the_parser(line, body):
    """Any text gives an order that a request can be made of or refused, or one line of refusal."""
    try:
        order = parse_cell(line, body, NAMES, folder=HERE)
        request = make_request(**order.fields)
    except UsageError as error:
        refused = str(error)
    else:
        refused = ""
        assert isinstance(request, TextToVideo)
        assert order.dest is None or order.dest.isidentifier()
    assert "\n" not in refused


def test_the_table_of_flags_the_parser_and_the_help_are_one():
    """Every flag of the table can be read, is in the help, and sets a field that exists."""
    text = " ".join(help_text(cell_sections()).split())
    known = {
        *CellOrder.__dataclass_fields__,
        *Ask.__dataclass_fields__,
        *TextToVideo.model_fields,
        "take",
        "params",
        "prompt_file",
        "help",
    }
    assert len(FLAGS) > 20
    for flag in FLAGS:
        assert flag.shown in text
        assert flag.help in text
        assert flag.name in known
        assert bool(flag.metavar) == (flag.name in READERS)
    spellings = [spelling for flag in FLAGS for spelling in flag.spellings]
    assert len(spellings) == len(set(spellings))
    assert all(find_flag("--" + s[2:].replace("-", "_")) for s in spellings if s.startswith("--"))


def test_what_may_be_a_key_is_not_shown():
    """Messages repeat short plain words only."""
    assert shown("fox") == "'fox'"
    assert KEY not in shown(KEY)
    assert shown("x" * 60).endswith("…'")
    assert "5f6773" not in shown("0a5f6773" * 4)
