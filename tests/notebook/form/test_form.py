"""The form without a page: its inputs, its words, its price, the cell it writes, and its way from Python."""

import json
import sys
import threading
from dataclasses import replace
from decimal import Decimal
from typing import Literal

import ipywidgets
import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.inputtransformer2 import TransformerManager
from pydantic import Field

from kling_nb.commands.syntax.cell import parse_cell
from kling_nb.commands.syntax.cell_source import shield
from kling_nb.commands.syntax.flags import FLAGS
from kling_nb.engine.run import Run
from kling_nb.engine.runs import Runs
from kling_nb.errors import BudgetError, KeyMissingError, UsageError
from kling_nb.media.sidecars import Sidecars
from kling_nb.notebook.form import form as form_module
from kling_nb.notebook.form.cell_text import as_cell
from kling_nb.notebook.form.fields import OPTIONS, blank, fields_of, inputs_of, read
from kling_nb.notebook.form.form import form
from kling_nb.notebook.form.inputs import Input, shape
from kling_nb.notebook.form.results import another_of, compared_with, result_rows
from kling_nb.notebook.form.verdict import assess, counted, offers
from kling_nb.notebook.form.view import FormView, Tells
from kling_nb.pricing.catalog import find_model, models
from kling_nb.providers import PROVIDERS
from kling_nb.records.request import MAX_SHOTS, Shot, TextToVideo, make_request
from kling_nb.records.run import RunStatus
from kling_nb.session import api
from kling_nb.session.plan import Ask
from support.kernels import check_saved, errors, execute, kernel_in, notebook, records, texts
from support.paths import ROOT
from support.sessions import KEY, both_wires

TOUR = ROOT / "notebooks" / "03_forms.ipynb"
WIDGET = "application/vnd.jupyter.widget-view+json"
FOX = {"prompt": "A red fox in snow", "duration": 3}


@pytest.fixture
def here(session, monkeypatch):
    """The session as the one of this process, as a notebook has it."""
    monkeypatch.setattr(api, "_session", session)
    return session


@pytest.fixture
def at_both_wires(make_session, monkeypatch):
    """A session with keys for both providers, which are stand-ins on loopback."""
    monkeypatch.setenv("RUNFLOW_API_KEY", KEY)
    monkeypatch.setenv("RUNCOMFY_API_TOKEN", KEY)
    for wires in both_wires():
        yield make_session(runflow_url=wires.runflow, runcomfy_url=wires.runcomfy)


def judged(session, **values):
    """What a form with these values says."""
    return assess(session, blank() | values)


def view_of(values=None):
    """The widgets of a form that tells nobody."""
    return FormView(blank() | (values or {}), Tells(put=lambda *_: None, go=lambda _also: None))


def inside(widget):
    """Every widget in a widget."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from inside(child)


# -- the inputs -----------------------------------------------------------------------
class Tomorrow(TextToVideo):
    """The request model as it may be one day."""

    camera: Literal["still", "orbit"] = Field(default="still", description="What the camera does")
    loop: bool = Field(default=False, description="Whether the end meets the beginning")
    strength: float | None = Field(default=None, ge=0, le=2, description="How strong")
    frames: int = Field(default=24, ge=1, le=60, description="Frames a second")
    mood: str | None = Field(default=None, max_length=80, description="In a word")


def test_a_new_field_appears_by_itself():
    """A field added to the request model gets an input of its kind, with its label, limits and help."""
    old = {of.name for of in fields_of(TextToVideo)}
    new = {of.name: of for of in fields_of(Tomorrow) if of.name not in old}
    kinds = {name: (of.kind, of.label, type(Input(of, print).widget).__name__) for name, of in new.items()}
    assert kinds == {
        "camera": ("choice", "Camera", "RadioButtons"),
        "loop": ("switch", "Loop", "Checkbox"),
        "strength": ("number", "Strength", "Text"),
        "frames": ("whole", "Frames", "IntText"),
        "mood": ("text", "Mood", "Textarea"),
    }
    assert (new["frames"].low, new["frames"].high, new["mood"].chars) == (1, 60, 80)
    values = blank(Tomorrow) | FOX | {"frames": 99, "strength": "much"}
    assert read(values, Tomorrow).problems == {
        "frames": "must be at most 60, not 99",
        "strength": "must be a number",
    }


def test_every_field_and_every_option_has_a_labelled_input():
    """Nothing of the request, and nothing of the call that a form can say, is without a named input."""
    view = view_of({"storyboard": True, "shots": [{"prompt": "a", "duration": 3}]})
    assert {*TextToVideo.model_fields} - {"shots"} <= set(view.inputs)
    assert {of.name for of in OPTIONS} <= set(view.inputs)
    assert {of.name for of in OPTIONS} <= {flag.name for flag in FLAGS}
    kinds = (ipywidgets.Text, ipywidgets.Textarea, ipywidgets.IntText, ipywidgets.Checkbox)
    kinds += (ipywidgets.RadioButtons, ipywidgets.Dropdown, ipywidgets.Button)
    kinds += (ipywidgets.IntSlider, ipywidgets.SelectionSlider)
    found = [widget for widget in inside(view.widget) if isinstance(widget, kinds)]
    assert len(found) > 25
    labels = [widget.description for widget in found]
    assert all(labels)
    assert len(set(labels)) == len(labels)


def test_ratios_are_shown_as_shapes():
    """Wide, high and square look different, also to whoever does not read the numbers."""
    assert [shape(ratio) for ratio in ("16:9", "9:16", "1:1", "auto")] == [
        "▭ 16:9",
        "▯ 9:16",
        "□ 1:1",
        "auto",
    ]


# -- the words ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "place", "words"),
    [
        ({"prompt": ""}, "prompt", "is missing"),
        ({"prompt": "x" * 2501}, "prompt", "2,500"),
        ({"duration": 2}, "duration", "makes 3 to 15 s"),
        ({"cfg_scale": "2"}, "cfg_scale", "at most 1"),
        ({"cfg_scale": "high"}, "cfg_scale", "must be a number"),
        ({"takes": 0}, "takes", "from 1 to 100"),
        ({"take": "2", "takes": 2}, "take", "not both"),
        ({"tags": "series"}, "tags", "KEY=VALUE"),
        ({"max_cost": "cheap"}, "max_cost", "takes dollars"),
        ({"metadata": "[1]"}, "metadata", "JSON object"),
        ({"prompt": "rf_live_0123456789abcdef"}, "prompt", "looks like a key"),
        ({"storyboard": True}, "shots", "must not be empty"),
        ({"storyboard": True, "shots": [{"prompt": "a", "duration": 2}]}, "shots", "add up to 2 s"),
        ({"storyboard": True, "shots": [{"prompt": "", "duration": 3}]}, "shots.1.prompt", "be empty"),
        ({"storyboard": True, "shots": [{"prompt": "a" * 513, "duration": 3}]}, "shots.1.prompt", "512"),
        ({"storyboard": True, "shots": [{"prompt": "a", "duration": 3}] * 7}, "shots", "at most 6"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(session, values, place, words):
    """Each fault has words at its own input, blocks the button, and repeats no key."""
    verdict = judged(session, **FOX | values)
    assert words in verdict.reading.problems[place]
    assert verdict.hint
    assert not verdict.ready
    assert "rf_live" not in str(verdict.reading.problems) + verdict.button + verdict.hint


def test_counts_and_limits_come_from_the_catalog_and_the_providers():
    """The storyboard tells its total, the limits of the model, and each provider's own shortest shot."""
    shots = [{"prompt": "Wide view", "duration": 5}, {"prompt": "Two hands", "duration": 3}]
    for model in models().values():
        counts = counted(blank() | {"prompt": "A fox", "shots": shots}, model)
        low, high = model.durations_s
        assert counts["prompt"] == f"5 of {model.prompt_chars:,}"
        assert counts["shots.2.prompt"] == f"9 of {model.shot_chars:,}"
        assert f"Total 8 s of {low} to {high} s; 2 of {model.max_shots} shots" in counts["shots"]
        for name in model.providers:
            assert f"{PROVIDERS[name].min_shot_s} s at {PROVIDERS[name].label}" in counts["shots"]
    assert {PROVIDERS["runcomfy"].min_shot_s, PROVIDERS["sandbox"].min_shot_s} == {3, 1}


def test_a_shot_that_a_provider_refuses_blocks_only_there(at_both_wires):
    """RunComfy's shortest shot stands in the way at RunComfy, and at nobody else."""
    shots = {"storyboard": True, "shots": [{"prompt": "a", "duration": 2}, {"prompt": "b", "duration": 3}]}
    refused = judged(at_both_wires, provider="runcomfy", **shots)
    assert "shots of 3 s or more" in refused.hint
    assert not refused.ready
    assert judged(at_both_wires, provider="runflow", **shots).ready
    titles = [title for title, _ in refused.blocks]
    assert titles == ["Payload for Runflow", "Payload for RunComfy"]
    assert "shots of 3 s or more" in refused.blocks[1][1]
    assert '"duration": "2"' in refused.blocks[0][1]


# -- the price on the button -----------------------------------------------------------------
def test_the_button_says_what_it_would_do_and_cost(session):
    """New, several, partly here, another take: the button has the sum of exactly what would be sent."""
    assert judged(session, **FOX).button == "Generate - $0.336"
    assert judged(session, **FOX).plan.play
    assert judged(session, **FOX).where == "Sandbox (no key found)"
    assert judged(session, **FOX, provider="sandbox").where == "Sandbox"
    assert judged(session, **FOX, audio=True).button == "Generate - $0.504"
    assert judged(session, **FOX, takes=4).button == "Generate 4 - $1.344"
    session.open(read(blank() | FOX).ask)[0].wait(60)
    made = judged(session, **FOX)
    assert (made.button, made.press.ask.takes, made.press.holds_micros) == (
        "Another take - $0.336",
        (1,),
        336_000,
    )
    assert (made.also.words, made.also.ask.takes, made.also.holds_micros) == ("Show again", (0,), 0)
    assert made.takes == "Asked for before: take 0. The next one is take 1."
    assert judged(session, **FOX, takes=4).button == "Generate 3 of 4 - $1.008"
    assert judged(session, **FOX, take="1").button == "Generate - $0.336"
    more = judged(session, **FOX, takes=30)
    assert (more.button, more.ready) == ("Generate 29 of 30 - $9.744", False)
    assert "29 x $0.336 = $9.744 does not fit" in more.hint
    assert any("left" in words for words in more.words)
    over = judged(session, **FOX, take="1", max_cost="0.30")
    assert not over.ready
    assert "This cell may cost $0.336" in over.hint


def test_before_there_is_a_prompt_the_price_is_known(session):
    """An empty form has the price of one clip, and does nothing; with another fault it has none."""
    empty = judged(session)
    assert (empty.button, empty.ready, empty.hint) == (
        "Generate - $0.56",
        False,
        "Write what happens in the clip.",
    )
    assert judged(session, duration=3, takes=2).button == "Generate 2 - $0.672"
    assert judged(session, duration=99).button == "Generate"
    board = judged(session, storyboard=True, shots=[{"prompt": "", "duration": 3}])
    assert (board.button, board.ready) == ("Generate - $0.336", False)
    assert session.ledger().runs() == []


def test_a_card_offers_another_take_its_cell_and_a_comparison(session):
    """What stands on the card of a run is priced as the call that its button makes, and sends nothing."""
    fox = session.open(read(blank() | FOX).ask)[0].wait(60)
    hare = session.open(read(blank() | FOX | {"prompt": "A hare"}).ask)[0].wait(60)
    rows = result_rows(session, [hare, fox])
    assert [row["id"] for row in rows] == [hare.id, fox.id]
    assert [row["another"] for row in rows] == ["$0.336", "$0.336"]
    assert (
        rows[0]["cell"] == "%%kling -d 3 -p sandbox -m kling-3.0-pro\nA hare" or "A hare" in rows[0]["cell"]
    )
    assert all(row["compare"] for row in rows)
    assert (compared_with(hare, [hare, fox]), compared_with(fox, [hare, fox])) == (fox, hare)
    assert not result_rows(session, [fox])[0]["compare"]
    assert another_of(session, fox).ask.takes == (1,)
    assert len(session.ledger().runs()) == 2


def test_a_real_price_is_no_play_money_and_names_its_basis(at_both_wires):
    """The button shows dollars, and the words below it source, date and what is left of the budget."""
    verdict = judged(at_both_wires, **FOX | {"duration": 5}, provider="runcomfy")
    assert (verdict.button, verdict.plan.play, verdict.where) == ("Generate - $0.56", False, "RunComfy")
    assert verdict.words[0].startswith("Kling 3.0 Pro at RunComfy: $0.112/s silent, ")
    assert "2026-05-01" in verdict.words[0]
    assert "**$10.00** left" in verdict.words[1]


def test_an_unknown_price_is_called_unknown_and_asks_for_consent(at_both_wires):
    """Nobody knows Runflow's price with sound: blocked until it is allowed, and then still unknown."""
    asked = {**FOX, "audio": True, "provider": "runflow"}
    blocked = judged(at_both_wires, **asked)
    assert (blocked.ready, blocked.unpriced) == (False, True)
    assert "price" in blocked.hint
    allowed = judged(at_both_wires, **asked, allow_unpriced=True)
    assert (allowed.button, allowed.ready, allowed.unpriced) == ("Generate - price unknown", True, True)
    assert "would be reserved" in allowed.hint
    assert allowed.press.holds_micros == allowed.plan.estimate.reserve_micros > 0


def test_a_run_on_its_way_is_reattached(make_session):
    """Where the same request is on its way, the button sends nothing; another take is beside it."""
    session = make_session(sandbox_wait=60)
    run = session.open(read(blank() | FOX).ask)[0]
    verdict = judged(session, **FOX)
    assert (verdict.button, verdict.ready, verdict.press.holds_micros) == ("Running…", True, 0)
    assert (verdict.also.words, verdict.also.ask.takes) == ("Another take - $0.336", (1,))
    assert run.cancel() in {"canceled", "not_cancellable", "unknown"}


def test_what_stands_in_the_way_is_named_with_its_run(session):
    """A failure that may have been charged blocks the button, until the box for it is ticked."""
    run = session.open(read(blank() | FOX).ask)[0].wait(60)
    # With its clip in place the run would be taken for the success that it was.
    run.path.unlink()
    failed = {"status": RunStatus.FAILED, "reason": "provider", "charged": "unknown", "message": "gone"}
    session.ledger().change(run.id, "failed", **failed)
    blocked = judged(session, **FOX)
    assert run.id in blocked.hint
    assert not blocked.ready
    assert "boxes to tick under More" in blocked.hint
    assert judged(session, **FOX, retry=True).button == "Generate - $0.336"


@pytest.mark.parametrize("name", [None, "pilot"])
def test_what_was_left_unsent_has_its_price_on_the_button(make_session, name):
    """An intent of a process that is gone would be sent by a press, also one of the same named session."""
    gone, here = make_session(name=name), make_session(name=name, sandbox_wait=60)
    call = read(blank() | FOX).ask
    opening = gone.context().admission(call)
    with opening.ledger.writing() as transaction:
        ((record, _),) = opening.admit(transaction, [], Sidecars())
    attached = judged(here, **FOX)
    assert (attached.button, attached.press.holds_micros) == ("Running…", 0)
    gone.ledger().release(record.id, opening.engine.owner)
    left = judged(here, **FOX)
    assert (left.button, left.press.holds_micros) == ("Send what was left unsent - $0.336", 336_000)
    with pytest.raises(BudgetError):
        here.open(form_module._held_to(attached.press))
    (run,) = here.open(form_module._held_to(left.press))
    assert run.id == record.id
    assert here.ledger().totals(here.id, play=True).reserved_micros == 336_000


def test_a_missing_key_and_bad_settings_block_with_words(make_session):
    """What stands in the way is said with its cure, and nothing is raised into a page."""
    verdict = judged(make_session(), **FOX, provider="runflow")
    assert not verdict.ready
    assert "There is no key for runflow" in verdict.hint
    assert "RUNFLOW_API_KEY" in verdict.hint
    assert verdict.blocks
    assert not judged(make_session(model="kling-99"), **FOX).ready


def test_what_each_provider_can_do_is_told_without_a_key(at_both_wires):
    """Prices, shortest shot and cancel by provider; of a key only that there is one."""
    rows = offers(at_both_wires, "pro")
    assert [row[0] for row in rows] == ["Runflow", "RunComfy", "Sandbox"]
    assert rows[0][2] == "unknown"
    assert rows[1][1:6] == ["$0.112/s", "$0.168/s", "3 s", "while queued", "there is one"]
    assert rows[1][6].count("RunComfy's public price table") == 1
    assert KEY not in str(rows)


# -- the same call as a cell -------------------------------------------------------------------
PIECES = [
    "A fox",
    "\n",
    "\n\n",
    " ",
    "'",
    '"',
    "\\",
    "$x",
    "{{name}}",
    "{{",
    "}}",
    "[5s] ",
    "[5 sec]",
    "%kling",
]
PIECES += [
    "%%kling",
    "!ls",
    "?",
    ">>> ",
    "... ",
    "In [1]: ",
    "-d 3",
    "--help",
    "<<",
    ";",
    "é",
    "狐",
    "\t",
    "\r\n",
]
PIECES += ["#", "`", "<b>", "=", "\u2028", "\x85", "\x0c", "\u00a0", "null", "0"]


def _writable(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


WORDS = st.lists(st.sampled_from(PIECES) | st.text(max_size=6), min_size=1, max_size=6).map("".join)
TEXTS = WORDS.filter(lambda text: text.strip() and _writable(text))
SHOTS = st.lists(st.builds(Shot, prompt=TEXTS, duration=st.integers(3, 5)), min_size=1, max_size=3)
NUMBERS = st.none() | st.floats(0, 1)
REQUESTS = st.builds(
    lambda shots, duration, **rest: make_request(
        shots=shots, duration=sum(s.duration for s in shots) if shots else duration, **rest
    ),
    prompt=TEXTS,
    shots=st.none() | SHOTS,
    duration=st.integers(3, 15),
    aspect_ratio=st.sampled_from(["16:9", "9:16", "1:1"]),
    audio=st.booleans(),
    negative_prompt=st.none() | TEXTS,
    cfg_scale=NUMBERS,
    shot_type=st.sampled_from([None, "customize", "intelligent"]),
)
TAGS = st.dictionaries(
    st.sampled_from(["series", "scene", "a.b", "_x"]),
    st.text(st.characters(categories=["L", "N", "P", "S"], include_characters=" "), max_size=8).filter(
        str.isprintable
    ),
    max_size=2,
)
MONEY = st.none() | st.decimals(Decimal("0.01"), 99, places=2)
ASKS = st.builds(
    Ask,
    request=REQUESTS,
    takes=st.integers(1, 9).map(lambda n: tuple(range(n))) | st.integers(0, 99).map(lambda k: (k,)),
    provider=st.sampled_from([None, "auto", "runflow", "runcomfy", "sandbox"]),
    model=st.sampled_from([None, "pro", "kling-3.0-standard"]),
    max_cost=MONEY,
    price=MONEY,
    allow_unpriced=st.booleans(),
    no_cache=st.booleans(),
    retry=st.booleans(),
    tags=TAGS,
    metadata=st.dictionaries(st.text("ab'\"$ \n", max_size=4), WORDS.filter(_writable), max_size=2),
)


def as_ipython_reads(cell):
    """Give line and body of a cell as IPython hands them to the magic, or as `%load_ext` completes it."""
    got = []
    manager = TransformerManager()
    # What `%load_ext` puts first.
    manager.cleanup_transforms.insert(0, shield)
    code = manager.transform_cell(cell if cell.strip().count("\n") else cell + "\n")
    kernel = type(
        "Shell", (), {"run_cell_magic": lambda _self, name, line, body: got.append((name, line, body))}
    )
    exec(code, {"get_ipython": kernel})
    return got


@settings(max_examples=150)
@given(ask=ASKS)
def test_copy_as_cell_is_the_same_call(ask, tmp_path_factory):
    """Whatever is asked, the cell that is written is read by IPython and by us as exactly that call."""
    folder = tmp_path_factory.getbasetemp()
    ((name, line, body),) = as_ipython_reads(as_cell(ask))
    assert name == "kling"
    read = parse_cell(line, body, {}, folder=folder).ask
    # A prompt of prompts (">>> A fox") is read as both; `earlier` says what this version made of it before.
    assert replace(read, earlier=()) == ask


@pytest.mark.parametrize(
    ("ask", "cell"),
    [
        (Ask(request=make_request(prompt="A red fox")), "%%kling\nA red fox"),
        (
            Ask(request=make_request(prompt="A red fox", duration=8, audio=True), takes=(0, 1, 2)),
            "%%kling -d 8 --audio -n 3\nA red fox",
        ),
        (
            Ask(
                request=make_request(
                    shots=[Shot(prompt="Wide", duration=5), Shot(prompt="Close", duration=3)]
                )
            ),
            "%%kling\n[5s] Wide\n[3s] Close",
        ),
        (
            Ask(request=make_request(prompt="A fox"), tags={"series": "red foxes"}, max_cost=Decimal("2.50")),
            "%%kling --max-cost 2.50 --tag 'series=red foxes'\nA fox",
        ),
        (
            Ask(request=make_request(prompt="A {{fox}}"), takes=(4,)),
            '%%kling --params \'{"prompt": "A {{fox}}"}\' --take 4\n',
        ),
    ],
)
def test_a_cell_is_written_as_a_person_would(ask, cell):
    """Only what is not the default stands in it, and words stand below the line wherever they can."""
    assert as_cell(ask) == cell


@pytest.mark.parametrize(
    "ask",
    [
        Ask(request=make_request(prompt="A fox"), takes=(1, 3)),
        Ask(request=make_request(prompt="A fox"), tags={"a": "two\nlines"}),
        Ask(request=make_request(prompt="rf_live_0123456789abcdef")),
    ],
)
def test_what_no_cell_can_say_is_said_so(ask):
    """There is an error in words, and never a cell that means something else."""
    with pytest.raises(UsageError, match="cannot be written as a cell"):
        as_cell(ask)


# -- from Python ----------------------------------------------------------------------------------
@settings(max_examples=100)
@given(request=REQUESTS)
def test_a_value_that_was_put_in_comes_out_again(request):
    """Any request there is can be put into a form, and is read from it unchanged."""
    made = form()
    made.value = request
    assert made.value == request
    assert form(request).ask == Ask(request=request)


def test_what_is_wrong_can_be_held_looked_at_and_corrected():
    """A form may hold anything; only reading it as a request says what is wrong."""
    made = form(prompt="A fox", duration=99, cfg_scale="high")
    assert (made.fields["duration"], made.fields["cfg_scale"]) == (99, "high")
    assert made.problems == {
        "duration": "must be at most 15, not 99",
        "cfg_scale": "must be a number",
    }
    for read_it in (lambda: made.value, lambda: made.ask, lambda: made.cell, lambda: made.plan, made.submit):
        with pytest.raises(UsageError, match="duration: must be at most 15, not 99"):
            read_it()
    made.update(duration=8, cfg_scale=None, model="pro")
    assert made.fields["model"] == "kling-3.0-pro"
    assert made.value == make_request(prompt="A fox", duration=8)
    made.value = {"prompt": "A hare"}
    assert made.value == make_request(prompt="A hare")
    made.update(shots=[Shot(prompt="Wide", duration=5)], prompt=None)
    assert made.value.shots == (Shot(prompt="Wide", duration=5),)
    with pytest.raises(UsageError, match="no input 'seed'"):
        made.update(seed=7)
    with pytest.raises(UsageError, match="cannot fill a form"):
        made.fill(3)


def test_submit_does_what_the_button_says_and_never_twice(here):
    """The handle comes back at once; the same form again gives the same run, and several takes a sequence."""
    made = form(**FOX, tags={"series": "foxes"})
    run = made.submit()
    assert isinstance(run, Run)
    assert run.wait(60).status is RunStatus.SUCCEEDED
    assert run.record.tags == {"series": "foxes"}
    assert made.submit().id == run.id
    made.update(takes=2)
    pair = made.submit()
    assert isinstance(pair, Runs)
    assert pair[0].id == run.id
    pair.wait(60)
    assert [one.id for one in made.runs] == [one.id for one in pair]
    assert len(here.ledger().runs()) == 2
    assert here.last is pair
    with pytest.raises(BudgetError):
        form(**FOX, takes=60).submit()
    with pytest.raises(KeyMissingError):
        form(**FOX, provider="runflow").submit()
    assert len(here.ledger().runs()) == 2


def test_an_earlier_run_fills_a_form(here):
    """Varying a run starts from its very request, tells its takes, and offers the next one."""
    request = make_request(shots=[Shot(prompt="Wide", duration=3)], cfg_scale=0.3, negative_prompt=" blur ")
    run = here.open(Ask(request=request, tags={"a": "b c"}, model="standard"))[0].wait(60)
    for source in (run, run.id, run.record, Runs([run])):
        made = form(source)
        assert made.value == request
        assert (made.ask.model, made.ask.provider, made.ask.tags) == (
            run.record.model,
            "sandbox",
            {"a": "b c"},
        )
        assert assess(here, made.fields).also.words == "Show again"
        assert assess(here, made.fields).next_take == 1
    assert form(run, duration=None, shots=None, prompt="A hare").value.prompt == "A hare"
    with pytest.raises(UsageError, match="one form"):
        form(Runs([run, run]))


def test_what_is_sent_is_held_to_the_price_on_the_button(session):
    """Whatever changes between the look and the press, no more is held back than the button said."""
    verdict = judged(session, **FOX, takes=2)
    held = form_module._held_to(verdict.press)
    assert held.max_cost == Decimal("0.672")
    tighter = judged(session, **FOX, takes=2, max_cost="0.70")
    assert form_module._held_to(tighter.press).max_cost == Decimal("0.672")
    assert sum(run.record.reserved_micros for run in session.open(held)) <= 672_000


def test_no_key_passes_through_a_widget(at_both_wires):
    """With keys set, no state of any widget holds one; one that is pasted as a prompt is not repeated."""
    view = view_of()
    view.put(blank() | FOX)
    view.say(assess(at_both_wires, blank() | FOX))
    view.offer(offers(at_both_wires, ""))
    states = json.dumps([w.get_state() for w in inside(view.widget)], default=str)
    assert '"tooltip": "$0.336"' in states
    assert KEY not in states
    pasted = judged(at_both_wires, prompt=f"A fox {KEY}")
    view.say(pasted)
    assert not pasted.ready
    assert KEY not in pasted.button + pasted.hint + " ".join(pasted.words)


def test_the_storyboard_keeps_the_order_that_is_shown():
    """Rows can be added to the limit, moved and removed, and the form always hears what is shown."""
    told = {}
    tells = Tells(put=lambda name, value: told.update({name: value}), go=lambda _also: None)
    view = FormView(blank() | {"storyboard": True}, tells)
    press = {}

    def buttons():
        press.clear()
        rows = view._boards[0]._rows.children
        press.update({w.tooltip: w for row in rows for w in inside(row) if isinstance(w, ipywidgets.Button)})
        return press

    for _ in range(MAX_SHOTS + 1):
        view._boards[0]._add.click()
    assert len(told["shots"]) == MAX_SHOTS
    assert view._boards[0]._add.disabled
    for number, row in enumerate(view._boards[0]._made):
        row._inputs["prompt"].widget.value = f"shot {number + 1}"
    assert buttons()["Move shot 1 up"].disabled
    assert press["Move shot 6 down"].disabled
    press["Move shot 1 down"].click()
    press["Remove shot 6"].click()
    assert [shot["prompt"] for shot in told["shots"]] == ["shot 2", "shot 1", "shot 3", "shot 4", "shot 5"]
    assert not view._boards[0]._add.disabled
    for _ in range(5):
        buttons()["Remove shot 1"].click()
    assert told["shots"] == []


def test_a_storyboard_is_shown_with_its_rows_in_it():
    """A button below them is not moved away by rows that come later, under the click of somebody quick."""
    view = view_of()
    board, rows = view._boards[0].box, []
    board.layout.observe(lambda _change: rows.append(len(view._boards[0]._rows.children)), "display")
    view.put(blank() | {"storyboard": True, "shots": [{"prompt": "A fox", "duration": 5}]})
    assert rows == [1]


@pytest.mark.usefixtures("here")
def test_what_is_typed_while_a_form_is_filled_in_waits_for_it():
    """No thread changes a value between its being read and its being shown, or the older one would win."""
    made, free = form(), []
    made._view = view_of()

    def attempt():
        free.append(made._lock.acquire(blocking=False))

    def shown(_change):
        other = threading.Thread(target=attempt)
        other.start()
        other.join()

    made._view.inputs["prompt"].widget.observe(shown, "value")
    made.update(**FOX)
    assert free == [False]


class Output:
    """An output of the page: it shows what it was given last."""

    def update(self, bundle, *, raw):
        assert raw
        self.shown = bundle


@pytest.mark.usefixtures("here")
def test_what_is_saved_of_a_form_is_what_it_holds_last():
    """Threads that write the words above a form do not overtake each other, however they take turns."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(8):
            made = form(**FOX)
            made._head = Output()
            writers = [threading.Thread(target=made._show_heading) for _ in range(12)]
            for number, writer in enumerate(writers):
                made._values["prompt"] = f"Fox {number}"
                writer.start()
            for writer in writers:
                writer.join()
            assert "Form: “Fox 11”, 3 s" in made._head.shown["text/plain"]
    finally:
        sys.setswitchinterval(before)


# -- in a kernel --------------------------------------------------------------------------------
PRESS = """
import ipywidgets, time
def all_of(kind, box=None):
    box = box or form._view.widget
    return [w for c in getattr(box, "children", ()) for w in (c, *all_of(kind, c)) if isinstance(w, kind)]
def until(ready):
    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.02)
go = form._view._go
def ready():
    # The button says what was found last, and nothing is on its way that would find anything else.
    return not (go.disabled or form._busy or form._judging) and form._said.press.verb == go.description
prompt = next(w for w in all_of(ipywidgets.Textarea) if w.description == "Prompt")
until(lambda: go.description.startswith("Generate") and ready())
"""


def test_a_press_sends_once_and_only_what_was_shown(tmp_path, monkeypatch):
    """Two presses make one run; what changes after a press, or its price, stops it; loading stays light."""
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "0")
    with kernel_in(tmp_path, new=True) as kernel:
        kernel.run("%load_ext kling_nb")
        loaded = "[m for m in __import__('sys').modules if m == 'ipywidgets' or 'notebook.form' in m]"
        assert kernel.value(loaded) == []
        shown = kernel.run("import kling_nb as kling\nform = kling.form(prompt='A fox', duration=3)\nform")
        assert [min(output["data"], key=len) for output in shown.outputs] == [
            "text/html",
            "text/plain",
        ]
        assert WIDGET not in shown.outputs[0]["data"]
        assert WIDGET in shown.outputs[1]["data"]
        assert kernel.run(PRESS).status == "ok"
        # In one breath, as the page's messages come: the background may not look in between.
        change = "with form._lock:\n    go.click(); prompt.value = 'A hare'\n"
        change += "until(lambda: 'changed as you pressed' in form._note)"
        assert kernel.run(change).status == "ok"
        assert kernel.value("len(kling.runs())") == 0
        dearer = "until(ready); form._said = __import__('dataclasses').replace(form._said, "
        dearer += "press=__import__('dataclasses').replace(form._said.press, price='$0.01')); "
        dearer += "go.click(); until(lambda: 'changed as' in form._note)"
        assert kernel.run(dearer).status == "ok"
        assert kernel.value("len(kling.runs())") == 0
        twice = "until(ready); go.click(); go.click()\n"
        twice += "until(lambda: len(form.runs) == 1); form.runs.wait(60)\n"
        twice += "until(lambda: go.description == 'Another take' and not form._busy)"
        answer = kernel.run(twice)
        assert answer.status == "ok", answer.error
        kernel.wait_display("Done")
        assert kernel.value("[r.prompt for r in kling.runs()]") == ["A hare"]
        # A comparison is shown also while something is about to be sent.
        more = "until(ready); go.click(); until(lambda: len(form._runs) == 2 and not form._busy)\n"
        more += "kling.Runs(form._runs).wait(60); until(ready)\n"
        more += "live = ipywidgets.widgets.widget._instances; before = set(live)\n"
        more += "with form._lock:\n    go.click(); form._acted('compare', form._runs[0].id, '')\n"
        more += "until(lambda: any('compare' in type(live[k]).__name__.lower() for k in set(live) - before))"
        answer = kernel.run(more)
        assert answer.status == "ok", answer.error
        kernel.run("%kling form\n")
        assert kernel.value("kling.form(kling.runs()[0]).value.prompt") == "A hare"


def test_headless_a_form_is_words_and_submit_is_waited_for(tmp_path, monkeypatch):
    """Where nobody is watching there is no widget in the notebook, and what was submitted ends final."""
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "0")
    made = execute(
        notebook(
            "%load_ext kling_nb",
            "%kling form",
            "import kling_nb as kling\nform = kling.form(prompt='A fox', duration=3)\nform",
            "form.submit()",
            "form.runs[0].status.value",
        ),
        tmp_path,
    )
    assert "widgets" not in made.metadata
    assert "Its inputs need somebody watching" in texts(made.cells[1])
    assert "%%kling -d 3\nA fox" in texts(made.cells[2])
    assert "Done" in texts(made.cells[3])
    assert texts(made.cells[4]) == "'succeeded'\n"
    assert all("widget-view" not in str(output) for cell in made.cells for output in cell.outputs)


def test_the_tour_of_the_form_runs_and_is_kept_clean(tmp_path, monkeypatch):
    """The notebook about the form works with no key from top to bottom, and is kept without outputs."""
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "0")
    kept = nbformat.read(TOUR, as_version=4)
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert len(code) > 8
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    made = execute(kept, tmp_path)
    assert errors(made) == []
    assert check_saved(made, tmp_path) == 1
    said = {cell.id: texts(cell) for cell in made.cells if cell.cell_type == "code"}
    assert said["wrong"] == "{'duration': 'must be at most 15, not 99'}\n"
    assert said["again"] == "True\n"
    assert said["vary-python"] == "(1, Decimal('0.336'))\n"
    assert said["board-cell"].startswith("%%kling\n[5s] Wide")
    assert records(made)[0].tags == {"series": "foxes"}


def test_the_inputs_agree_with_the_flags():
    """What a form says of an option is what the flag of the same name says, or shorter, where it is typed."""
    helps = {flag.name: flag.help for flag in FLAGS}
    own = {of.name for of in OPTIONS if of.help != helps[of.name]}
    assert own == {of.name for of in OPTIONS if of.kind == "line"}
    assert all(len(of.help) < 40 for of in OPTIONS if of.name in own)
    assert {of.name for of in inputs_of()} >= set(TextToVideo.model_fields)
    assert find_model("pro").max_shots == MAX_SHOTS
    assert "kling_nb.notebook.form.view" in sys.modules
