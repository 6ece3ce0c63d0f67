"""The request and its keys: what is refused before any spend, and what never changes a key."""

import math
import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kling_nb.errors import UsageError
from kling_nb.records.request import Shot, TextToVideo, make_request, request_key, run_key

MODEL = "kling-3.0-pro"
TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("aé\u0301 \r\n漢😀"), min_size=1, max_size=40
).filter(str.strip)
SHOTS = (
    st.lists(st.fixed_dictionaries({"prompt": TEXT, "duration": st.integers(1, 5)}), min_size=1, max_size=3)
).filter(lambda shots: sum(s["duration"] for s in shots) >= 3)
EXTRAS = {
    "aspect_ratio": st.sampled_from(["16:9", "9:16", "1:1"]),
    "audio": st.booleans(),
    "negative_prompt": TEXT,
    "cfg_scale": st.floats(0, 1),
    "shot_type": st.sampled_from(["customize", "intelligent"]),
}
FIELDS = st.one_of(
    st.fixed_dictionaries({"prompt": TEXT}, optional={"duration": st.integers(3, 15), **EXTRAS}),
    st.fixed_dictionaries({"shots": SHOTS}, optional={"prompt": TEXT, **EXTRAS}),
)

# Made once and never again: another Python, another pydantic or a new field must give the same keys, or
# every notebook would pay a second time.
FROZEN = [
    (
        {"prompt": "A red fox"},
        "k1:5e2d2caea7ca11a20585aa042c615ca975dc88ef45ae9e09f2df02204e757f06",
        "k1:252a97b8ebd4073ce64dd4eb1382ab71385be93a1b2b904396beb8754b49be16",
    ),
    (
        {
            "prompt": "A red fox",
            "duration": 10,
            "aspect_ratio": "9:16",
            "audio": True,
            "negative_prompt": "blur",
            "cfg_scale": 0.1,
            "shot_type": "intelligent",
        },
        "k1:28ca5bbc82eebd56a3b1717923df101e03bf03f97b1a5b665a14692280083468",
        "k1:1187518cd83f69e986beb33fac030f6b77e507f84f9fbf82d07717b5359c735d",
    ),
    (
        {"prompt": "Zwei Füchse 🦊\r\nim Schnee, ﬁne\u0301", "cfg_scale": 1e-07},
        "k1:f552780bfaaeb9d9a0a70d816f918c72b627d783204c69587b059379decbef02",
        "k1:0bc2164714be35847bf102fc6cdbfc11f7ee89f8f634643156abaeef5a67a9b5",
    ),
    (
        {"shots": [{"prompt": 'Wide "shot"', "duration": 5}, {"prompt": "Close\tup \\ 2", "duration": 3}]},
        "k1:5eac3b255f0807ec36194e22ffb2e544668fe27604cade7f905a1d58f48eff8e",
        "k1:eff942869ceae9000026ba1d460bc8f52f4ea604dd7251a249e5538868f82cbc",
    ),
    (
        {"prompt": "A vineyard", "shots": [{"prompt": "Wide", "duration": 15}], "cfg_scale": 1},
        "k1:e07458abb6349fd3353a976cef2da5c980b8b332bcb36d2977747f015d5d212a",
        "k1:8dbc9f21ed438b9ba9c2262aa0613e7d86b1c3400b1516024429ebf9bf0e21cf",
    ),
]


@pytest.mark.parametrize(("fields", "key", "of_runflow"), FROZEN)
def test_keys_of_old_requests_never_change(fields, key, of_runflow):
    """A key that was ever written is made again, to the letter."""
    request = make_request(**fields)
    assert request_key(request, MODEL) == key
    assert run_key(request, MODEL, "runflow", take=3) == of_runflow


@given(FIELDS, st.randoms(use_true_random=False))
def test_key_is_independent_of_field_order(fields, random):
    """The order in which fields are given plays no part in a key."""
    names = list(fields)
    random.shuffle(names)
    turned = {name: fields[name] for name in names}
    if "shots" in turned:
        turned["shots"] = [dict(reversed(shot.items())) for shot in turned["shots"]]
    assert request_key(make_request(**turned), MODEL) == request_key(make_request(**fields), MODEL)


@given(FIELDS)
def test_key_is_independent_of_unset_fields(fields):
    """A field that is None is a field that was never written; so is one that holds its default."""
    unset = {name: fields.get(name) for name in TextToVideo.model_fields}
    full = make_request(**fields).model_dump()
    key = request_key(make_request(**fields), MODEL)
    assert request_key(make_request(**unset), MODEL) == key
    assert request_key(make_request(**full), MODEL) == key


class Later(TextToVideo):
    """The request of a later version, with one more field."""

    camera: str | None = None


@given(FIELDS)
def test_a_new_field_keeps_every_old_key(fields):
    """A later version finds the clips of this one; the new field counts once it is set."""
    key = request_key(make_request(**fields), MODEL)
    assert request_key(Later.model_validate(fields), MODEL) == key
    assert request_key(Later.model_validate({**fields, "camera": "dolly"}), MODEL) != key


@given(FIELDS)
def test_key_survives_the_ledger(fields):
    """A request that was written down and read back, either way, is the same request."""
    request = make_request(**fields)
    as_json = TextToVideo.model_validate_json(request.model_dump_json())
    as_data = TextToVideo.model_validate(request.model_dump(mode="json"))
    assert as_json == as_data == request
    assert request_key(as_json, MODEL) == request_key(as_data, MODEL) == request_key(request, MODEL)


@given(FIELDS, FIELDS)
def test_different_requests_have_different_keys(one, other):
    """Two requests share a key only where they ask for the same thing."""
    first, second = make_request(**one), make_request(**other)
    same = first.canonical() == second.canonical()
    assert (request_key(first, MODEL) == request_key(second, MODEL)) == same


CHANGES = [
    {"prompt": "A red fox "},
    {"prompt": "a red fox"},
    {"duration": 6},
    {"aspect_ratio": "9:16"},
    {"audio": True},
    {"negative_prompt": "blur"},
    {"cfg_scale": 0.5},
    {"cfg_scale": 0.5000000000000001},
    {"cfg_scale": 0},
    {"shot_type": "customize"},
    {"shot_type": "intelligent"},
    {"shots": [{"prompt": "Wide", "duration": 5}]},
    {"shots": [{"prompt": "Wide", "duration": 3}, {"prompt": "Close", "duration": 2}]},
    {"shots": [{"prompt": "Close", "duration": 2}, {"prompt": "Wide", "duration": 3}]},
]


def test_every_change_changes_both_keys():
    """Field, take, model and, for a run key, provider: each one alone makes another key."""
    base = {"prompt": "A red fox"}
    requests = [make_request(**base), *(make_request(**{**base, **change}) for change in CHANGES)]
    keys = [request_key(request, MODEL) for request in requests]
    keys += [request_key(requests[0], MODEL, take=take) for take in (1, 2, 10)]
    keys += [request_key(requests[0], "kling-3.0-standard"), request_key(requests[0], "kling-3.0-4k")]
    runs = [run_key(request, MODEL, "runflow") for request in requests]
    runs += [run_key(requests[0], MODEL, "runflow", take=take) for take in (1, 2, 10)]
    runs += [run_key(requests[0], MODEL, provider) for provider in ("runcomfy", "sandbox")]
    runs += [run_key(requests[0], "kling-3.0-4k", "runflow")]
    every = keys + runs
    assert len(every) == len(set(every)) == 2 * len(requests) + 11
    assert all(len(key) == 67 for key in every)


@given(TEXT, TEXT)
def test_windows_line_ends_are_the_same_request(first, second):
    """A cell saved on Windows is the cell saved elsewhere, in every text of a request."""
    assume("\r" not in first + second)

    def key(end):
        text = f"{first}{end}{second}"
        request = make_request(
            prompt=text, negative_prompt=text, shots=[{"prompt": f"a{end}b", "duration": 5}]
        )
        return request_key(request, MODEL)

    assert key("\r\n") == key("\n") != key(" ")


@given(TEXT.filter(lambda t: unicodedata.normalize("NFC", t) != unicodedata.normalize("NFD", t)))
def test_no_unicode_normalisation(text):
    """What is sent differs, so the key differs: composed and decomposed letters are not the same bytes."""
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
    assert len({request_key(make_request(prompt=form), MODEL) for form in forms}) == 2


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (0, 0.0), (0.0, -0.0)])
def test_equal_numbers_are_the_same_request(one, other):
    """A whole number and its float, and both zeros, ask for the same thing."""
    keys = {request_key(make_request(prompt="fox", cfg_scale=cfg), MODEL) for cfg in (one, other)}
    assert len(keys) == 1


def test_duration_is_the_sum_of_the_shots():
    """A storyboard needs no total, a right one is the same request, and objects do as well as tables."""
    shots = [{"prompt": "Wide", "duration": 5}, {"prompt": "Close", "duration": 3}]
    request = make_request(shots=shots)
    assert request.duration == 8
    assert make_request(shots=tuple(shots), duration=8) == request
    assert make_request(shots=[Shot(**shot) for shot in shots]) == request


def shot(prompt="a", duration=5, **more):
    return {"prompt": prompt, "duration": duration, **more}


REFUSED = [
    ({"duration": 2}, "duration must be at least 3"),
    ({"duration": 16}, "duration must be at most 15"),
    ({"duration": 0}, "duration must be at least 3"),
    ({"duration": -5}, "duration must be at least 3"),
    ({"duration": 10**400}, "duration must be at most 15"),
    ({"duration": 5.0}, "duration must be a whole number"),
    ({"duration": 5.5}, "duration must be a whole number"),
    ({"duration": "5"}, "duration must be a whole number"),
    ({"duration": True}, "duration must be a whole number"),
    ({"duration": math.nan}, "duration must be a whole number"),
    ({"aspect_ratio": "4:3"}, "aspect_ratio must be '16:9', '9:16' or '1:1'"),
    ({"aspect_ratio": "16:9 "}, "aspect_ratio must be"),
    ({"aspect_ratio": 1}, "aspect_ratio must be"),
    ({"audio": "yes"}, "audio must be true or false"),
    ({"audio": 1}, "audio must be true or false"),
    ({"cfg_scale": math.nan}, "cfg_scale must be a finite number"),
    ({"cfg_scale": math.inf}, "cfg_scale must be a finite number"),
    ({"cfg_scale": -math.inf}, "cfg_scale must be a finite number"),
    ({"cfg_scale": -0.1}, "cfg_scale must be at least 0"),
    ({"cfg_scale": 1.0000001}, "cfg_scale must be at most 1"),
    ({"cfg_scale": 2}, "cfg_scale must be at most 1"),
    ({"cfg_scale": True}, "cfg_scale must be a number"),
    ({"cfg_scale": "0.5"}, "cfg_scale must be a number"),
    ({"shot_type": "wide"}, "shot_type must be 'customize' or 'intelligent'"),
    ({"prompt": "a" * 2501}, "prompt must have at most 2,500 characters"),
    ({"prompt": ""}, "prompt must not be empty"),
    ({"prompt": " \n\t"}, "prompt must not be empty"),
    ({"prompt": None}, "prompt is missing; write a prompt or shots"),
    ({"prompt": 5}, "prompt must be text"),
    ({"prompt": b"fox"}, "prompt must be text"),
    ({"prompt": "fox \ud800"}, "prompt holds half a character"),
    ({"negative_prompt": ""}, "negative_prompt must not be empty"),
    ({"negative_prompt": "a" * 2501}, "negative_prompt must have at most 2,500 characters"),
    ({"negative_prompt": "\udfff"}, "negative_prompt holds half a character"),
    ({"shots": []}, "shots must not be empty"),
    ({"shots": "wide"}, "shots must be a list of shots"),
    ({"shots": ["wide"]}, "shots.1 must be a shot"),
    ({"shots": [shot(duration=2)] * 7}, "shots must be at most 6 items, not 7"),
    ({"shots": [shot("a" * 513)]}, "shots.1.prompt must have at most 512 characters"),
    ({"shots": [shot(), shot(" ")]}, "shots.2.prompt must not be empty"),
    ({"shots": [shot("\ud800")]}, "shots.1.prompt holds half a character"),
    ({"shots": [shot(), shot(duration=0)]}, "shots.2.duration must be at least 1"),
    ({"shots": [shot(duration=16)]}, "shots.1.duration must be at most 15"),
    ({"shots": [shot(duration=True), shot()]}, "shots.1.duration must be a whole number"),
    ({"shots": [{"prompt": "a"}]}, "shots.1.duration is missing"),
    ({"shots": [{"duration": 5}]}, "shots.1.prompt is missing"),
    ({"shots": [shot(seed=1)]}, "shots.1.seed: this model takes no seed"),
    ({"shots": [shot()], "duration": 6}, "duration is 6 s but the shots add up to 5 s"),
    ({"shots": [shot(duration=2)]}, "the duration of all shots must be at least 3, not 2"),
    ({"shots": [shot(duration=8)] * 2}, "the duration of all shots must be at most 15, not 16"),
    ({"camera": "dolly"}, "camera: there is no such field"),
    ({"seed": 1}, "seed: this model takes no seed; ask for takes"),
    (
        {"image_url": "https://h.example/a.png"},
        "image_url: this model makes video from text and takes no image",
    ),
    ({"first-frame": "a.png"}, "first-frame: this model makes video from text and takes no image"),
    ({"sound": True}, "sound: there is no such field, perhaps audio is meant"),
    ({"aspect": "1:1"}, "aspect: there is no such field, perhaps aspect_ratio is meant"),
    ({"we\nird": 1}, "we ird: there is no such field"),
]


@pytest.mark.parametrize(("fields", "words"), REFUSED)
def test_bad_requests_are_refused_in_one_line(fields, words):
    """What is out of range is refused before any spend, names its field, says nothing was charged."""
    good = {} if "shots" in fields else {"prompt": "A red fox"}
    with pytest.raises(UsageError) as caught:
        make_request(**{**good, **fields})
    message = str(caught.value)
    assert words in message
    assert "Charged: no." in message
    assert message.isprintable()
    assert len(message) < 400
    assert caught.value.__cause__ is None


def test_all_that_is_wrong_is_said_at_once():
    """Two mistakes are two parts of the same line."""
    with pytest.raises(UsageError, match=r"^duration must .*, not 99; aspect_ratio must .*, not '2:1'\. "):
        make_request(prompt="fox", duration=99, aspect_ratio="2:1")


def test_limits_themselves_are_allowed():
    """The last allowed value on every side is taken."""
    assert make_request(prompt="a" * 2500, duration=3, cfg_scale=0).duration == 3
    assert make_request(prompt="a", duration=15, cfg_scale=1, negative_prompt="b" * 2500).duration == 15
    six = make_request(shots=[shot("a" * 512, duration=d) for d in (1, 2, 3, 3, 3, 3)])
    assert (len(six.shots), six.duration) == (6, 15)
