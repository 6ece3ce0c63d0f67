"""Votes, pairs and scores: what is compared, what is kept, and what the numbers may claim."""

import csv
import math
import random
import sys
from datetime import UTC, datetime
from hashlib import sha256
from itertools import combinations

import pytest

from kling_nb.errors import LedgerError, UsageError
from kling_nb.ledger.database import Ledger
from kling_nb.ratings.pairing import grouping, pairs, pool
from kling_nb.ratings.ratings import Ratings
from kling_nb.ratings.scoring import krippendorff, scores_of
from kling_nb.ratings.votes import Vote, add_vote, standing, votes
from kling_nb.records.request import Shot, TextToVideo
from kling_nb.records.run import MediaFacts
from support.clips import make_record

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
PER_LOG_ODDS = 400 / math.log(10)


def clip(run_id, model="kling-3.0-pro", *, audio=False, duration=5, prompt="A red fox", **changes):
    """A finished run with a clip of its own bytes."""
    request = changes.pop("request", None) or TextToVideo(prompt=prompt, duration=duration, audio=audio)
    media = MediaFacts(
        file=f"{run_id}.mp4",
        sha256=sha256(run_id.encode()).hexdigest(),
        size=9,
        fps=24.0,
        frames=121,
        duration_s=5.04,
    )
    fields = {"media": media, "status": "succeeded", "folder": "/media/kling_media", **changes}
    return make_record(id=run_id, model=model, request=request, **fields)


def vote(one, other, choice="A>B", *, rater="ada", left="A", **more):
    return Vote(run_a=one, run_b=other, left=left, choice=choice, rater=rater, at=NOON, **more)


def games(text):
    """`ab` is a win of a over b, `a=b` a tie."""
    return [(w[0], w[-1], "same" if "=" in w else "A") for w in text.split()]


# -- the scores ----------------------------------------------------------------
def test_two_items_differ_by_the_log_of_their_odds():
    """The closed case: three wins to one are odds of three, and the width of the interval follows too."""
    [best, worst], remarks = scores_of("silent", games("ab ab ab ba"))
    assert best.score - worst.score == pytest.approx(PER_LOG_ODDS * math.log(3), abs=1e-3)
    assert (best.score + worst.score) / 2 == pytest.approx(1000)
    # The variance of the difference is 1 / (n p q); each score lies half of it from the mean.
    half = 1.959964 * PER_LOG_ODDS * math.sqrt(1 / (4 * 0.75 * 0.25)) / 2
    assert best.high - best.score == pytest.approx(half, rel=1e-4)
    assert best.score - best.low == pytest.approx(half, rel=1e-4)
    assert [(best.n, best.wins, best.losses, best.ties), remarks] == [(4, 3, 1, 0), []]


def test_the_likelihood_equations_hold():
    """Of highest likelihood: each item wins as often as its scores say it should, ties counted as halves."""
    lines = "ab ab bc bc cb ca a=c a=c bd db d=a cd dc dd".replace("dd", "d=c")
    rows, _ = scores_of("silent", games(lines))
    score = {row.item: row.score / PER_LOG_ODDS for row in rows}
    assert len(score) == 4
    for row in rows:
        met = [
            ({one, other} - {row.item}).pop() for one, other, _ in games(lines) if row.item in {one, other}
        ]
        expected = sum(1 / (1 + math.exp(score[other] - score[row.item])) for other in met)
        assert expected == pytest.approx(row.wins + row.ties / 2, abs=1e-5)


def test_neither_the_order_nor_the_names_matter():
    """Shuffled votes, swapped sides and other names give the same scores."""
    lines = games("ab ab bc bc cb ca a=c bd db cd dc ad")
    plain = {row.item: (row.score, row.low) for row in scores_of("silent", lines)[0]}
    shuffled = random.Random(1).sample(lines, len(lines))
    turned = [(b, a, {"A": "B", "B": "A"}.get(liked, liked)) for a, b, liked in shuffled]
    for other in (shuffled, turned):
        found = {row.item: (row.score, row.low) for row in scores_of("silent", other)[0]}
        assert found.keys() == plain.keys()
        assert all(found[item] == pytest.approx(plain[item], abs=1e-3) for item in plain)
    renamed = [(one.translate({97: "z"}), other.translate({97: "z"}), liked) for one, other, liked in lines]
    found = {row.item: row.score for row in scores_of("silent", renamed)[0]}
    assert found["z"] == pytest.approx(plain["a"][0], abs=1e-3)


def test_it_is_the_same_every_time():
    """The same votes give the same digits."""
    lines = games("ab bc ca ab a=c bd db")
    assert scores_of("silent", lines) == scores_of("silent", lines)


def test_the_interval_covers_what_it_says():
    """Of many simulated ballots with known strengths, 95 of 100 intervals hold the true score."""
    lots, strength = random.Random(7), {"a": 0.0, "b": 0.3, "c": 0.6}
    mean = sum(strength.values()) / 3
    held = []
    for _ in range(80):
        cast = []
        for _ in range(60):
            one, other = lots.sample("abc", 2)
            odds = 1 / (1 + math.exp(strength[other] - strength[one]))
            cast.append((one, other, "A" if lots.random() < odds else "B"))
        rows, remarks = scores_of("silent", cast)
        assert remarks == []
        true = {row.item: 1000 + PER_LOG_ODDS * (strength[row.item] - mean) for row in rows}
        held += [row.low <= true[row.item] <= row.high for row in rows]
    assert len(held) == 240
    assert 0.91 < sum(held) / len(held) < 0.99


def test_only_ties_make_equals():
    """Items that were always tied have the same score, and an interval."""
    [one, other], _ = scores_of("silent", games("a=b a=b a=b"))
    assert one.score == pytest.approx(other.score)
    assert one.low < one.score < one.high
    assert (one.ties, one.wins, one.losses) == (3, 0, 0)


def test_more_votes_narrow_the_interval():
    """Four times the votes halve the width."""
    [few, *_], _ = scores_of("silent", games("ab ab ba"))
    [many, *_], _ = scores_of("silent", games("ab ab ba " * 4))
    assert few.high - few.low == pytest.approx(2 * (many.high - many.low), rel=1e-4)


def test_one_that_never_lost_has_a_finite_score_and_says_what_it_rests_on():
    """No likelihood is highest there: a weak prior holds the scores, and both row and remark say so."""
    rows, remarks = scores_of("silent", games("ab ab ac ac bc bc cb"))
    assert rows[0].item == "a"
    assert all(math.isfinite(row.score) and row.low < row.score < row.high for row in rows)
    assert {row.note for row in rows} == {"rests on a weak prior"}
    assert "a never lost" in remarks[0]
    # More of the same wins mean more, not less.
    again, _ = scores_of("silent", games("ab ab ac ac bc bc cb " * 3))
    assert again[0].score > rows[0].score


def test_groups_that_never_met_get_words_and_no_number():
    """Scores of a graph in two parts would compare what nobody compared."""
    rows, remarks = scores_of("silent", games("ab ba cd dc"))
    assert [(row.item, row.score, row.low, row.high) for row in rows] == [
        (item, None, None, None) for item in "abcd"
    ]
    assert rows[0].note == "no vote links it with c, d"
    assert "no vote links a and b with c and d" in remarks[0]


def test_pools_are_scored_apart():
    """With sound and silent clips have tables of their own."""
    records = [
        *(clip(f"runa{n}", model) for n, model in enumerate(("kling-3.0-pro", "kling-3.0-standard"))),
        *(clip(f"runb{n}", m, audio=True) for n, m in enumerate(("kling-3.0-pro", "kling-3.0-standard"))),
    ]
    cast = [vote("runa0", "runa1"), vote("runb0", "runb1", "B>A")]
    table = Ratings(cast, records).table()
    assert [(row.pool, row.item) for row in table] == [
        ("silent", "kling-3.0-pro"),
        ("silent", "kling-3.0-standard"),
        ("with sound", "kling-3.0-standard"),
        ("with sound", "kling-3.0-pro"),
    ]


def test_an_axis_counts_only_where_it_was_answered():
    """Three axes beside the whole; an axis that was not asked is no tie."""
    records = [clip("runa"), clip("runb", "kling-3.0-standard")]
    cast = [
        vote("runa", "runb", axes={"motion": "B"}),
        vote("runa", "runb", rater="bo", axes={"motion": "B", "text": "same"}),
        vote("runa", "runb", rater="cy"),
    ]
    ratings = Ratings(cast, records)
    assert [(row.item, row.n) for row in ratings.table("motion")] == [
        ("kling-3.0-standard", 2),
        ("kling-3.0-pro", 2),
    ]
    assert [row.ties for row in ratings.table("text")] == [1, 1]
    assert len(ratings.table("visual")) == 0
    assert repr(ratings.table("visual")) == "There are no votes yet."


def test_the_table_reads_as_text_page_and_frame():
    """One table, three ways to look at it."""
    records = [clip("runa", "<b>x"), clip("runb", "kling-3.0-standard")]
    table = Ratings([vote("runa", "runb"), vote("runa", "runb", "B>A", rater="bo")], records).table()
    assert "&lt;b&gt;x" in table.html
    assert "<b>x" not in table.html
    assert "95 % interval" in repr(table)
    assert list(table.df["score"].round(6)) == [1000.0, 1000.0]
    assert list(table.df.columns)[:6] == ["pool", "item", "n", "wins", "losses", "ties"]


@pytest.mark.parametrize("name", ["choix", "pandas"])
def test_without_the_packages_one_line_names_the_extra(monkeypatch, name):
    """What is missing is named, and how to get it."""
    monkeypatch.setitem(sys.modules, name, None)
    ratings = Ratings([vote("runa", "runb")], [clip("runa"), clip("runb", "kling-3.0-standard")])
    with pytest.raises(UsageError, match=rf"the package {name}.*kling-nb\[research\]") as caught:
        ratings.table().df  # noqa: B018 - the frame is what is asked for
    assert "\n" not in str(caught.value)


# -- agreement -------------------------------------------------------------------
def test_krippendorffs_own_example():
    """The nominal data of his paper of 2011, with missing values: alpha is 0.743."""
    observers = ("123321412...", "12332241 25.3".replace(" ", ""), ".33323422 51.".replace(" ", ""))
    observers = (*observers, "123324412 51.".replace(" ", ""))
    units = [[row[n] for row in observers if row[n] != "."] for n in range(12)]
    assert sum(map(len, units)) == 41
    assert krippendorff(units) == pytest.approx(0.743, abs=0.0005)


def test_agreement_counts_pairs_that_more_than_one_judged():
    """Share and alpha of two raters; what nobody can tell is None."""
    records = [clip(f"run{n}", f"m{n}") for n in range(4)]
    both = [
        vote(f"run{a}", f"run{b}", "A>B", rater=who) for a, b in combinations(range(4), 2) for who in "xy"
    ]
    whole = Ratings(both, records).agreement()
    assert (whole.raters, whole.pairs, whole.share, whole.alpha) == (("x", "y"), 6, 1.0, None)
    mixed = [*both[:-1], vote("run2", "run3", "B>A", rater="y")]
    found = Ratings(mixed, records).agreement()
    assert found.share == pytest.approx(5 / 6)
    assert found.alpha == pytest.approx(0.0)
    alone = Ratings(both[::2], records).agreement()
    assert (alone.pairs, alone.share, alone.alpha) == (0, None, None)


def test_a_habit_of_the_hand_shows():
    """How often the left side won is told, from the side that is on record."""
    records = [clip("runa"), clip("runb", "kling-3.0-standard")]
    cast = [vote("runa", "runb", left="A"), vote("runa", "runb", left="B", rater="bo")]
    assert Ratings(cast, records).left_share == 0.5
    assert Ratings(cast[:1], records).left_share == 1.0
    assert Ratings([vote("runa", "runb", "A=B=Good")], records).left_share is None


# -- the pairs ---------------------------------------------------------------------
def test_only_what_is_alike_makes_a_pair():
    """Same words, length, shape and sound; another item; other bytes; and a clip that is there."""
    other = "kling-3.0-standard"
    base = clip("runa")
    assert [(a.id, b.id) for a, b in pairs([clip("runb", other), base])] == [("runa", "runb")]
    for unlike in (
        clip("runb", other, prompt="A blue fox"),
        clip("runb", other, duration=6),
        clip("runb", other, audio=True),
        clip("runb", other, play=True),
        clip("runb", other, request=TextToVideo(prompt="A red fox", aspect_ratio="9:16")),
        clip("runb", other, request=TextToVideo(shots=(Shot(prompt="A red fox", duration=5),))),
        clip("runb"),
        clip("runb", other, media=None),
        clip("runb", other, media=base.media),
    ):
        assert pairs([base, unlike]) == [], unlike


def test_pairs_go_round_the_items():
    """The first pairs already meet every two items once, so that a rater who stops early has met them all."""
    records = [clip(f"run{p}{m}", f"m{m}", prompt=f"Scene {p}") for p in range(5) for m in range(3)]
    found = pairs(records)
    assert len(found) == 15
    assert len({(a.model, b.model) for a, b in found[:3]}) == 3
    assert all(a.id < b.id for a, b in found)


def test_what_is_compared_can_be_chosen():
    """By model, provider, tag, or a function; a run that has no item is left out."""
    one = clip("runa", tags={"cfg": "0.3"})
    other = clip("runb", provider="runcomfy", tags={"cfg": "0.7"})
    without = clip("runc")
    assert [len(pairs([one, other], by)) for by in ("model", "provider", "tag:cfg")] == [0, 1, 1]
    assert pairs([one, without], "tag:cfg") == []
    assert len(pairs([one, other], lambda record: record.tags["cfg"])) == 1
    for wrong in ("tag:", "price", ""):
        with pytest.raises(UsageError, match="not something to compare by"):
            grouping(wrong)
    assert [pool(clip("runa", audio=True, play=True)), pool(one)] == ["sandbox, with sound", "silent"]


# -- the ledger --------------------------------------------------------------------
@pytest.fixture
def ledger(tmp_path):
    opened = Ledger(tmp_path / "ledger.db")
    yield opened
    opened.close()


def test_votes_are_kept_whole_and_in_order(ledger, tmp_path):
    """Who, when, which side, which axes and what was said, also after the ledger was opened anew."""
    first = vote("runa", "runb", left="B", axes={"visual": "A", "text": "same"}, note="weicher Schnitt ☃")
    second = vote("runb", "runc", "A=B=Bad", rater="bo", session_id="s", project="p")
    add_vote(ledger, first)
    add_vote(ledger, second)
    again = Ledger(tmp_path / "ledger.db")
    assert votes(again) == [first, second]
    assert votes(again, rater="bo") == [second]
    assert votes(again, runs={"runa", "runb"}) == [first]
    again.close()


def test_a_vote_is_taken_back_by_a_new_row(ledger):
    """Append only: of each rater and pair the newest row counts, and none is lost."""
    for cast in (
        vote("runa", "runb"),
        vote("runa", "runb", "B>A", rater="bo"),
        vote("runb", "runc"),
        vote("runa", "runb", "withdrawn"),
        vote("runb", "runc", "A=B=Good"),
    ):
        add_vote(ledger, cast)
    rows = votes(ledger)
    assert len(rows) == 5
    assert [(v.rater, v.pair, v.choice) for v in standing(rows)] == [
        ("bo", ("runa", "runb"), "B>A"),
        ("ada", ("runb", "runc"), "A=B=Good"),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"run_a": "runz"},
        {"left": "C"},
        {"choice": "A"},
        {"rater": ""},
        {"axes": {"sound": "A"}},
        {"axes": {"text": "C"}},
    ],
)
def test_what_is_no_vote_is_not_written(changes):
    """A pair has one order, and every word is one of the list."""
    fields = {"run_a": "runa", "run_b": "runb", "left": "A", "choice": "A>B", "rater": "ada", "at": NOON}
    assert Vote(**fields)
    with pytest.raises(UsageError, match="not a vote"):
        Vote(**(fields | changes))


def test_a_row_that_makes_no_sense_is_an_error_in_words(ledger):
    """A spoilt row is named; it is not taken for a vote."""
    add_vote(ledger, vote("runa", "runb"))
    with ledger.writing() as transaction:
        transaction.connection.exec_driver_sql("UPDATE votes SET vote = 'A is nicer'")
    with pytest.raises(LedgerError, match="Vote 1 of the ledger cannot be read"):
        votes(ledger)


# -- the file ------------------------------------------------------------------------
def test_the_file_reads_as_videoalign_reads_it(tmp_path):
    """Its columns, its labels, paths relative to the file; an axis that was not asked stays empty."""
    import pandas as pd

    folder = tmp_path / "kling_media"
    prompt = '=cmd("x")\nA "fox",\rdawn'
    records = [
        clip("runa", prompt=prompt, folder=str(folder)),
        clip("runb", "kling-3.0-standard", prompt=prompt, folder=str(folder)),
    ]
    cast = [
        vote("runa", "runb", axes={"visual": "A", "motion": "same", "text": "B"}),
        vote("runa", "runb", "A=B=Bad", rater="bo"),
    ]
    path = Ratings(cast, records).to_csv(tmp_path / "votes.csv")
    frame = pd.read_csv(path)
    needed = "path_A path_B prompt VQ MQ TA fps_A num_frames_A fps_B num_frames_B A_model B_model Overall"
    assert set(needed.split()) <= set(frame.columns)
    first, second = (row for _, row in frame.iterrows())
    assert [first[c] for c in ("path_A", "path_B")] == ["kling_media/runa.mp4", "kling_media/runb.mp4"]
    assert [first[c] for c in ("VQ", "MQ", "TA", "Overall")] == ["A", "same", "B", "A"]
    assert (first["prompt"], first["fps_A"], first["num_frames_B"]) == (prompt, 24.0, 121)
    assert (first["A_model"], first["B_model"]) == ("kling-3.0-pro", "kling-3.0-standard")
    assert [second["Overall"], second["vote"], second["rater"]] == ["same", "A=B=Bad", "bo"]
    assert second[["VQ", "MQ", "TA"]].isna().all()
    assert list(frame["Overall"].map({"A": 1, "B": -1, "same": 0})) == [1, 0]


def test_the_file_holds_no_sandbox_unless_asked(tmp_path):
    """Clips of the sandbox are no model's work; and an empty file is not written."""
    records = [clip("runa", play=True), clip("runb", "kling-3.0-standard", play=True)]
    ratings = Ratings([vote("runa", "runb")], records)
    with pytest.raises(UsageError, match="sandbox"):
        ratings.to_csv(tmp_path / "votes.csv")
    with pytest.raises(UsageError, match="no vote to write"):
        Ratings([], records).to_csv(tmp_path / "votes.csv")
    assert not (tmp_path / "votes.csv").exists()
    ratings.to_csv(tmp_path / "votes.csv", allow_sandbox=True)
    with (tmp_path / "votes.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 1


def test_every_vote_is_a_row_of_a_frame():
    """For analyses of one's own."""
    records = [clip("runa"), clip("runb", "kling-3.0-standard")]
    frame = Ratings([vote("runa", "runb", left="B", axes={"text": "B"})], records).df
    assert list(frame.loc[0, ["item_a", "item_b", "left", "vote", "rater", "TA"]]) == [
        "kling-3.0-pro",
        "kling-3.0-standard",
        "B",
        "A>B",
        "ada",
        "B",
    ]
