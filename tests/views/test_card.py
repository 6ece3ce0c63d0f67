"""A card reads true in every state: the state in a word, the money in words, and what is safe now."""

import re
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kling_nb.records.money import Totals
from kling_nb.records.request import Shot, TextToVideo
from kling_nb.records.run import RunStatus
from kling_nb.views.card import card, line, status_line
from kling_nb.views.card_parts import CardState
from kling_nb.views.html import Html
from kling_nb.views.outcome import ending
from kling_nb.views.waits import Turn
from kling_nb.views.words import money_words, session_words
from support.cards import DONE, FOX, KNOWN, MEDIA, NOW, PENDING, POSTER, SRC, TOTALS, UNKNOWN, T, record
from support.markup import judge

REASONS = ["moderated", "invalid", "credit", "auth", "provider", "expired"]

ENDS = [
    *({"status": "failed", "reason": reason, "charged": "no"} for reason in REASONS),
    {"status": "failed", "reason": "provider", "charged": "unknown", "reserved_micros": 560000},
    {"status": "failed", "reason": "provider", "charged": "yes", "settled_micros": 560000},
    {"status": "failed", "charged": "yes"},
    {"status": "canceled", "reason": "canceled", "charged": "no"},
    {"status": "canceled", "charged": "unknown", "reserved_micros": 560000},
    {"status": "lost", "charged": "unknown", "reserved_micros": 560000},
    {"status": "lost", "charged": "no"},
]


def look(run, **options):
    """Draw a card, judge its markup, and give the markup and what a reader sees."""
    totals, now = options.pop("totals", TOTALS), options.pop("now", NOW)
    markup = card(CardState(record=run, **{"name": "fox", **options}), totals=totals, now=now)
    assert isinstance(markup, Html)
    _, words = judge(markup)
    return markup, words


@pytest.mark.parametrize("play", [False, True])
@pytest.mark.parametrize(("status", "word"), PENDING.items())
def test_a_run_on_its_way_shows_state_money_and_time(status, word, play):
    """A card that is not final says where the run is, what is held for it, and when that was true."""
    totals = TOTALS.model_copy(update={"play": play})
    _, words = look(record(status=status, play=play), typical_s=(90, 200), totals=totals)
    money = "$0.56 reserved (play money)" if play else "$0.56 reserved"
    session = "session $1.12 + $0.56 reserved of $10.00"
    for part in (word, "kl7m2q", "fox", FOX, "Kling 3.0 Pro", "as of 14:02:31 UTC", money, session):
        assert part in words
    assert ("Sandbox" in words) == play
    assert ("left (play money)" in words) == play
    text = line(CardState(record=record(status=status, play=play), name="fox"), totals=totals, now=NOW)
    for part in (word, "kl7m2q", "Kling 3.0 Pro", "as of 14:02:31 UTC", money, session):
        assert part in text


@pytest.mark.parametrize("play", [False, True])
@pytest.mark.parametrize("fields", ENDS)
def test_a_run_without_a_clip_answers_the_three_questions(fields, play):
    """Every failure says what happened, `Charged:` in bold, and the command that is safe now."""
    run = record(play=play, message="the provider's words", provider_run_id="019e", **fields)
    markup, words = look(run)
    told = ending(run)
    head = {"failed": "Failed", "canceled": "Canceled", "lost": "Lost"}[fields["status"]]
    assert words.startswith(head)
    assert f"<b>Charged: {fields['charged']}" in markup
    assert ("play money" in told.charged) == play
    assert told.what in words
    assert "the provider's words" in words
    assert "Receipt" in words
    assert "video" not in {name for name, _ in judge(markup)[0]}
    text = line(CardState(record=run), totals=TOTALS, now=NOW)
    assert len(text.splitlines()) == 2
    for part in ("kl7m2q", head, f"Charged: {fields['charged']}", told.what):
        assert part in text
    if fields["charged"] == "unknown":
        assert "unknown" in money_words(run)
        assert "kling resolve kl7m2q" in told.cure
        assert "$0.00" not in words
    assert not play or "charged," not in money_words(run)


def test_a_run_that_never_came_to_be_did_not_fail_at_its_provider():
    """With no network, the words do not blame whom nobody reached."""
    _, words = look(record(status="failed", reason="provider", charged="no", provider_run_id=None))
    assert "No run was made at Runflow." in words
    _, words = look(record(status="failed", reason="provider", charged="no", provider_run_id="r-1"))
    assert "The run failed at Runflow." in words


def test_a_lost_run_names_both_ways_out():
    """A lost run says where to look and gives the two exact commands; nothing was sent again."""
    _, words = look(record(status="lost", charged="unknown", reserved_micros=560000, provider="runcomfy"))
    assert "Nothing was sent again" in words
    assert "RunComfy around 2026-11-21 14:00:47 UTC" in words
    assert "%kling resolve kl7m2q --attach PROVIDER_ID" in words
    assert "%kling resolve kl7m2q --abandon" in words
    assert "up to $0.56 reserved" in words


def test_a_lost_run_is_unknown_even_if_its_row_was_never_finished():
    """A crash between two commits must not turn a lost run into one that was not charged."""
    run = record(status="lost", charged="no", reserved_micros=560000)
    assert ending(run).charged == "Charged: unknown."


@pytest.mark.parametrize("status", PENDING)
def test_a_detached_run_says_that_it_goes_on(status):
    """Nobody watches, but the run goes on; `resume` fetches it and buys nothing."""
    markup, words = look(record(status=status), typical_s=(90, 200), detached=True)
    assert words.startswith(f"{PENDING[status]}, not watched")
    assert ("Run its cell again" if status == "created" else "%kling resume kl7m2q") in words
    assert "as of 14:02:31 UTC" in words
    assert f"<b>Charged: {'no' if status == 'created' else 'unknown until it ends'}.</b>" in markup


@pytest.mark.parametrize("play", [False, True])
def test_a_finished_run_plays_and_has_its_receipt(play):
    """The final card holds the video with `src` on the tag, a link, the bill and the whole receipt."""
    run = record(
        play=play, nsfw_detected=False, seed=8812, timing={"queue": 6.1}, tags={"study": "a"}, **DONE
    )
    markup, words = look(run, src=SRC, poster=POSTER)
    seen, _ = judge(markup)
    video = next(attrs for name, attrs in seen if name == "video")
    assert (video["src"], video["preload"]) == (SRC, "none")
    # The still lies below the player, once: a reader without a player has it, too.
    assert [attrs["src"] for name, attrs in seen if name == "img"] == [POSTER]
    assert markup.count(POSTER) == 1
    assert {"controls", "loop"} <= set(video)
    assert ("a", {"href": SRC}) in seen
    money = "$0.56 of play money" if play else "$0.56 charged, as Runflow reports"
    parts = ["Done", "took 2:25", money, "019e7a51-77b2", MEDIA.sha256, "1920\u00d71080", "24 fps", "H.264"]
    parts += ["no sound", "Estimate", "Reported", "Settled", "nsfw: no", "seed 8812", "study=a"]
    for part in parts:
        assert part in words
    assert "as of" not in words
    text = line(CardState(record=run, src=SRC), totals=TOTALS, now=NOW)
    assert all(part in text for part in ("kl7m2q", "Done", "Kling 3.0 Pro", money, SRC))


def test_a_reused_clip_says_that_nothing_was_sent():
    """Run All shows the clip again for $0.00, and says what it cost before."""
    _, words = look(record(**DONE), src=SRC, reused=True)
    assert words.startswith("Done, reused")
    assert "nothing sent, $0.00 this time; before: $0.56 charged" in words
    _, words = look(record(status="running"), reused=True)
    assert "nothing new was sent" in words
    assert "$0.00" not in words


def test_a_clip_that_is_not_here_is_said_to_be_missing():
    """A missing file, or an address we do not trust, gives words and a cure, never a dead player."""
    for options in ({}, {"src": "javascript:alert(1)"}, {"src": None, "poster": POSTER}):
        markup, words = look(record(**DONE), **options)
        assert "<video" not in markup
        assert "a-red-fox-kl7m2q.mp4 is not here." in words
        assert "run the cell again" in words
    assert "the clip is not here" in line(CardState(record=record(**DONE)), totals=None, now=NOW)


def test_an_embedded_clip_plays_without_its_file():
    """With `embed` the clip itself is in the card."""
    clip = "data:video/mp4;base64,AAAA"
    markup, words = look(record(**DONE), embed=clip)
    assert f'src="{clip}"' in markup
    assert "kept inside this notebook" in words


@pytest.mark.parametrize("play", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {"status": "running", "estimate": UNKNOWN, "reserved_micros": 840000},
        {"status": "running", "estimate": UNKNOWN, "reserved_micros": 0},
        {
            **DONE,
            "estimate": UNKNOWN,
            "reported_micros": None,
            "settled_micros": None,
            "reserved_micros": 840000,
        },
        {**DONE, "reported_micros": None, "settled_micros": None, "charged": "no"},
        {"status": "failed", "charged": "unknown"},
        {"status": "failed", "charged": "yes"},
        {"status": "lost", "charged": "unknown"},
    ],
)
def test_unknown_money_is_a_word(fields, play):
    """Nothing is shown as $0 unless it is known to be 0."""
    run = record(play=play, **fields)
    _, words = look(run, src=SRC, totals=None)
    text = line(CardState(record=run), totals=None, now=NOW)
    for shown in (words, text, money_words(run).replace("**", "")):
        assert "unknown" in shown
        assert "$0.00" not in shown
        assert not shown.endswith("$0")
        assert "up to $0.84" in shown or not run.reserved_micros


def test_a_bill_above_the_estimate_is_shown():
    """A provider that bills above the list is never hidden."""
    _, words = look(record(**{**DONE, "reported_micros": 840000, "settled_micros": 840000}), src=SRC)
    assert "$0.84 charged, as Runflow reports, $0.28 above the estimate of $0.56" in words


def test_a_charge_without_a_report_says_what_it_rests_on():
    """A guess on the books is called one, and other money is not taken for the dollars beside it."""
    silent = {**DONE, "reported_micros": None}
    for fields, said in (
        (silent, "$0.56 charged, as estimated; Runflow reports nothing"),
        ({**DONE, "currency": "EUR"}, "$0.56 charged, as estimated; Runflow reports 0.56 EUR"),
        (DONE, "$0.56 charged, as Runflow reports"),
    ):
        _, words = look(record(**fields), src=SRC)
        assert said in words
        assert ("$0.56, as estimated" in words) == (fields is not DONE)
        assert said in line(CardState(record=record(**fields)), totals=TOTALS, now=NOW)


@pytest.mark.parametrize("play", [False, True])
@pytest.mark.parametrize(
    "fields",
    [*({"status": status} for status in PENDING), *ENDS, DONE, {**DONE, "reused": 1}, {"detached": 1}],
)
def test_every_card_says_what_is_left(fields, play):
    """In every state: the money of this run, what the session spent and holds, and what is left."""
    fields = dict(fields)
    options = {name: True for name in ("reused", "detached") if fields.pop(name, False)}
    run = record(play=play, **{"status": "running", **fields})
    totals = TOTALS.model_copy(update={"play": play})
    _, words = look(run, totals=totals, src=SRC, **options)
    text = line(CardState(record=run, **options), totals=totals, now=NOW)
    session = (
        "session $1.12 + $0.56 reserved of $10.00, $8.32 left (play money)"
        if play
        else "session $1.12 + $0.56 reserved of $10.00, $8.32 left"
    )
    money = money_words(run, reused="reused" in options).replace("**", "")
    assert money
    for shown in (words, text):
        assert money in shown
        assert session in shown


def test_the_session_line_adds_up():
    """Spent, held, unknown, cap, and how far over it."""
    assert session_words(TOTALS) == "session $1.12 + $0.56 reserved of $10.00, **$8.32** left"
    assert session_words(Totals(settled_micros=1_120_000)) == "session $1.12, no cap"
    over = Totals(settled_micros=10_400_000, unknown=2, cap_micros=10_000_000)
    assert session_words(over) == "session $10.40 + 2 unknown of $10.00, **over by $0.40**"


@pytest.mark.parametrize(
    ("turn", "span", "told"),
    [
        (Turn(1, 4, (10, 20, 30, 40)), (90, 110), "next in line - starts in about 1:00"),
        (Turn(5, 4, (10, 20, 30, 40)), (90, 110), "number 5 in line - starts in about 2:40"),
        (Turn(2, 4, (10, 20, 30)), (90, 110), "number 2 in line - starts in about 1:10"),
        (Turn(1, 1, (500,)), (90, 110), "next in line - starts soon"),
        (Turn(3, 2, (1, 2)), None, "number 3 in line"),
        # Of four that are there two have to end first, and a third.
        (Turn(1, 2, (10, 20, 30, 40), lowered=True), (90, 110), "next in line - starts in about 1:20"),
    ],
)
def test_a_run_that_waits_for_a_place_says_so(turn, span, told):
    """Why it does not start, how many are before it, and when its turn comes as far as earlier runs tell."""
    run = record(status="created")
    fewer = " for now: the provider asked for fewer" if turn.lowered else ""
    why = f"waiting for a free place ({turn.places} at a time{fewer})"
    for state in ({}, {"player": False}):
        markup, words = look(run, typical_s=span, turn=turn, **state)
        shown = told.replace(" - ", " \u00b7 ")
        assert f"{why} \u00b7 {shown}" in words
        assert "Waiting" in words
        assert "waiting for a place" in words
        # No time runs before it is sent: neither a bar nor words.
        assert "time so far" not in markup
        assert not re.search(r"so far|usually|Starting", words)
    text = line(CardState(record=run, turn=turn, typical_s=span), totals=TOTALS, now=NOW)
    assert "Waiting - " in text
    assert f"{why} - {told} - as of 14:02:31 UTC" in text
    assert status_line(run, now=NOW, typical_s=span, turn=turn) == f"Waiting - {why} - {told}"


def test_before_it_is_sent_no_time_runs():
    """A run that is about to be sent shows no bar, and one that was sent does."""
    assert "time so far" not in look(record(status="created"), typical_s=(90, 200))[0]
    assert "time so far" in look(record(status="queued"), typical_s=(90, 200))[0]


def test_the_status_line_is_short():
    """The strip of controls shows state, time so far and what is usual."""
    run = record(status="running")
    assert status_line(run, now=NOW, typical_s=(90, 200)) == "Running - 1:44 so far - usually 1:30-3:20"
    assert status_line(run, now=NOW) == "Running - 1:44 so far"
    late = status_line(run, now=T + timedelta(seconds=260), typical_s=(90, 200))
    assert late.endswith("longer than usual")
    queued = record(status="queued", queue_position=3)
    assert status_line(queued, now=NOW).startswith("Queued - queue position 3")
    assert status_line(record(**DONE), now=NOW) == "Done"
    assert "0:00 so far" in status_line(run, now=T - timedelta(hours=1))


def test_progress_is_never_a_percent():
    """Nobody knows how much is left: the bar shows time against the usual span, and no per cent."""
    markup, words = look(record(status="running"), typical_s=(90, 200))
    assert "usually 1:30-3:20" in words
    assert "%" not in words
    assert 'title="time so far' in markup
    assert 'title="time so far' not in look(record(status="running"))[0]


def test_nothing_opens_on_a_card_that_is_still_redrawn():
    """A redraw would shut what the reader has opened; the final card has the whole prompt."""
    long = "word " * 500
    run = {"request": TextToVideo(prompt=long)}
    markup, words = look(record(status="running", **run))
    assert "<details" not in markup
    assert "characters in all" in words
    markup, words = look(record(**run, **DONE), src=SRC)
    assert "whole prompt" in words
    assert long.strip() in words


def test_storyboards_list_their_shots():
    """Each shot with its seconds; a long one in full on the final card."""
    shots = (Shot(prompt="Wide view of a vineyard", duration=5), Shot(prompt="Close-up " * 20, duration=3))
    board = TextToVideo(shots=shots, duration=8)
    _, words = look(record(status="running", request=board))
    assert "5 sWide view of a vineyard" in words
    _, words = look(record(request=board, **DONE), src=SRC)
    assert "whole storyboard, 2 shots" in words
    assert '"[5s] Wide view' in line(
        CardState(record=record(status="running", request=board)), totals=None, now=NOW
    )


@pytest.mark.parametrize("ratio", ["16:9", "9:16", "1:1"])
def test_the_box_keeps_its_shape(ratio):
    """The empty box and the player have the clip's shape and are never taller than 320 pixels."""
    wide, high = map(int, ratio.split(":"))
    for fields in ({"status": "running"}, DONE):
        markup, _ = look(record(request=TextToVideo(prompt=FOX, aspect_ratio=ratio), **fields), src=SRC)
        width = int(markup.split("flex:0 1 ")[1].split("px")[0])
        per_cent = float(markup.split("padding-bottom:")[1].split("%")[0])
        assert per_cent == pytest.approx(100 * high / wide, abs=0.01)
        assert width * per_cent / 100 <= 320


def test_line_ends_and_direction_survive():
    """A prompt keeps its lines and its own direction of writing."""
    markup, words = look(record(request=TextToVideo(prompt="first\nثعلب أحمر")))
    assert "first\nثعلب أحمر" in words
    assert 'dir="auto"' in markup
    assert "white-space:pre-wrap" in markup


def test_a_private_request_shows_only_its_hash():
    """Of a private run no word of the prompt is in the card, the receipt or the text."""
    request = TextToVideo(prompt="secret fox", negative_prompt="hidden owl")
    run = record(request=request, private=True, **DONE)
    markup = card(CardState(record=run, src=SRC), totals=TOTALS, now=NOW)
    text = line(CardState(record=run), totals=TOTALS, now=NOW)
    assert "secret" in card(
        CardState(record=record(request=request, **DONE), src=SRC), totals=TOTALS, now=NOW
    )
    assert "secret" not in markup + text
    assert "hidden owl" not in markup + text
    assert run.request_key in markup


def test_what_is_not_the_provider_is_marked():
    """A sandbox run and a stand-in on loopback are visibly not real ones."""
    assert "Sandbox" in look(record(play=True))[1]
    assert "Stand-in" in look(record(origin="http://127.0.0.1:9"))[1]
    assert "Stand-in" in look(record(origin="http://[::1]:9"))[1]
    assert "Stand-in" not in look(record())[1]


def test_the_final_card_is_small():
    """A saved notebook stays small: with a poster of 5 KB the card is under 12 KB."""
    run = record(nsfw_detected=False, seed=8812, timing={"queue": 6.1, "inference": 131.2}, **DONE)
    assert (
        6000
        < len(POSTER)
        < len(card(CardState(record=run, name="fox", src=SRC, poster=POSTER), totals=TOTALS, now=NOW))
        < 12_000
    )


ANY = st.text(st.characters(), max_size=40)
WORDS = st.text(st.characters(), min_size=1, max_size=300).filter(str.strip)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data(), st.sampled_from(list(RunStatus)), WORDS, ANY, st.booleans())
def test_no_foreign_text_becomes_markup(data, status, prompt, text, play):
    """Whatever a prompt, a provider or a file name holds, the card has only our own tags and styles."""
    hostile = text + data.draw(
        st.sampled_from(["", "<script>", "\"'><img onerror=x>", "</div>", "$x$ \\(y\\)"])
    )
    run = record(
        status=status,
        play=play,
        request=TextToVideo(prompt=prompt, negative_prompt=(hostile or "x").strip() or "x"),
        reason=data.draw(st.sampled_from([None, *REASONS])),
        message=hostile,
        model=hostile,
        provider=hostile,
        provider_model=hostile,
        origin=hostile,
        provider_run_id=hostile,
        tags={hostile: hostile},
        seed=hostile,
        timing={hostile.encode("utf-8", "replace").decode(): hostile},
        estimate=KNOWN.model_copy(update={"basis": hostile}),
        media=MEDIA.model_copy(update={"file": hostile, "codec": hostile, "audio_codec": hostile}),
        saved_at=T,
    )
    for src in (SRC, hostile, "javascript:alert(1)"):
        for detached in (False, True):
            markup, _ = look(
                run,
                name=hostile,
                src=src,
                poster=src,
                embed=src,
                note=hostile,
                detached=detached,
                typical_s=(1, 2),
            )
            assert markup.encode()
    assert (
        len(
            line(
                CardState(record=run, name=hostile, src=hostile, note=hostile), totals=TOTALS, now=NOW
            ).splitlines()
        )
        <= 2
    )
