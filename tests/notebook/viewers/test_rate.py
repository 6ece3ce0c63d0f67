"""The blind ballot: what a rater is told, what becomes of a vote, and where the scores are found."""

import json
import re
import sqlite3
from contextlib import closing

import nbformat
import pytest

from kling_nb.errors import UsageError
from kling_nb.notebook.line import run_command
from kling_nb.notebook.viewers.rate import Rating, rate
from kling_nb.ratings.votes import votes
from support.kernels import errors, execute, texts
from support.markup import judge
from support.paths import ROOT
from support.runs import MODELS, fill

TUTORIAL = ROOT / "notebooks" / "04_compare_and_rate.ipynb"


class Page:
    """What a widget is to the ballot: it takes messages and keeps all of them."""

    def __init__(self, rating):
        self.heard, self._rating = [], rating
        rating._handle = type(
            "Handle", (), {"update": lambda _self, bundle, raw: self.heard.append(bundle)}
        )()

    def send(self, content, buffers=()):
        self.last = content, list(buffers)
        self.heard.append(content)

    def say(self, **content):
        """Speak as the page does; gives the answer."""
        self._rating._on_message(self, content, [])
        return self.last[0]

    def vote(self, choice, **more):
        """Vote on what is up."""
        up = self.say(kind="hello")["pair"]
        return self.say(kind="vote", mark=up["mark"], choice=choice, **more)


@pytest.fixture
def stocked(tmp_path, make_session):
    """Six scenes of two models, all with clips."""
    fill(tmp_path, 6, others=False, size=(64, 36), seconds=0.25, project="p")
    return make_session()


def begin(session, **options):
    rating = Rating(list(session.runs()), session, **{"rater": "ada", "seed": 1, **options})
    return rating, Page(rating)


# -- blindness ----------------------------------------------------------------------------
def test_nothing_tells_which_is_which_before_the_vote(stocked):
    """No id, model, provider, take, file, hash, cost or time in the state, a message or what is saved."""
    rating, page = begin(stocked, axes=("visual",))
    said = [json.dumps(rating._state()), repr(rating), str(rating._bundle())]
    for _ in range(6):
        up = page.say(kind="hello")["pair"]
        for side in ("left", "right"):
            assert page.say(kind="clip", id=up[side], at=0)["size"] > 0
            # The bytes go to the page as they are; their length and kind come with them.
            page.heard[-1] = {k: v for k, v in page.heard[-1].items() if k != "size"}
        said += [json.dumps(page.heard)]
        page.heard.clear()
        page.say(kind="vote", mark=up["mark"], choice="left")
    told = "\n".join(said)
    assert told.count("paper boat") >= 6
    records = [run.record for run in stocked.runs()]
    assert len(records) == 12
    for record in records:
        facts = [record.id, record.model, record.provider, record.provider_model, record.run_key]
        facts += [record.request_key, record.media.file, record.media.sha256, record.origin, record.folder]
        for fact in facts:
            assert fact not in told, fact
    assert not re.search(r"(?i)kling[ -]3|standard|\bpro\b|\$0|runflow|take|\.mp4", told)


def test_marks_are_new_for_each_showing(stocked):
    """A clip that comes again has another mark, so that it cannot be followed."""
    _, page = begin(stocked)
    seen = []
    for _ in range(6):
        up = page.say(kind="hello")["pair"]
        seen += [up["mark"], up["left"], up["right"]]
        page.say(kind="skip", mark=up["mark"])
    assert page.say(kind="undo")["pair"]["mark"] not in seen
    assert len(set(seen)) == 18


def test_sides_and_order_are_drawn_by_lot(stocked):
    """Each model stands on both sides, another draw has another order, and a draw can be repeated."""

    def draw(seed):
        ballot = begin(stocked, seed=seed)[0].ballot
        found = []
        while (paper := ballot.showing()) is not None and len(found) < 6:
            found.append((paper.left.id, paper.right.id))
            ballot.skip(paper.mark)
        return found

    draws = [draw(seed) for seed in range(20)]
    assert draw(3) == draws[3]
    assert len({tuple(each) for each in draws}) > 15
    pro_left = sum(int(left[3:]) % 2 == 0 for each in draws for left, _ in each)
    assert 30 < pro_left < 90
    assert {frozenset(each) for each in draws[0]} == {
        frozenset((f"run{n:03}", f"run{n + 1:03}")) for n in range(0, 12, 2)
    }


def test_a_clip_of_another_pair_is_not_shown(stocked):
    """A page can ask only for what is up, and only by its mark; no refusal names a file."""
    rating, page = begin(stocked)
    first = page.say(kind="hello")["pair"]
    page.vote("good")
    for wrong in (first["left"], "nobody", 7, None, ["x"]):
        answer = page.say(kind="clip", id=wrong, at=0)
        assert answer["why"] == "This clip is not one of the pair on show."
    up = page.say(kind="hello")["pair"]
    paper = rating.ballot.showing()
    (stocked.find(paper.left.id).path).unlink()
    answer = page.say(kind="clip", id=up["left"], at=0)
    assert answer["why"] == "This clip cannot be shown. Skip the pair."
    assert "run0" not in json.dumps(page.heard)


def test_pairs_without_both_clips_are_left_out(stocked, tmp_path):
    """A clip that is gone or changed is no clip; the count says so."""
    stocked.find("run000").path.unlink()
    with stocked.find("run003").path.open("ab") as file:
        file.write(b"spoilt")
    rating, page = begin(stocked)
    for _ in range(4):
        answer = page.vote("left")
    assert (answer["pair"], answer["done"], answer["whole"]) == (None, 4, 4)
    assert "4 of 4 pairs rated. 2 more are left out" in repr(rating)


def test_a_ballot_ends_with_its_scores(stocked):
    """While a pair is left nothing of the scores is shown; after the last vote they stand there."""
    rating, page = begin(stocked)
    heads = "95 % interval"
    while rating.ballot.showing() is not None:
        assert heads not in rating._bundle()["text/html"]
        page.vote("left")
    assert heads in rating._bundle()["text/html"]


# -- votes ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("choice", "left_wins"), [("left", True), ("right", False), ("good", None), ("bad", None)]
)
def test_a_vote_is_kept_with_who_when_and_which_side(stocked, choice, left_wins):
    """Whichever clip stood where: what was liked is what is on record, on every axis too."""
    rating, page = begin(stocked, axes=("text", "visual", "motion"))
    for _ in range(6):
        paper = rating.ballot.showing()
        page.vote(choice, axes={"visual": "left", "motion": "right", "text": "same"}, note="grain")
        vote = rating.votes[-1]
        left = vote.run_a if vote.left == "A" else vote.run_b
        assert left == paper.left.id
        liked = {"A": vote.run_a, "B": vote.run_b, "same": None}
        expected = None if left_wins is None else paper.left.id if left_wins else paper.right.id
        assert liked[vote.preferred] == expected
        assert [liked[vote.axes[axis]] for axis in ("visual", "motion", "text")] == [
            left,
            paper.right.id,
            None,
        ]
        assert (vote.rater, vote.note, vote.session_id) == ("ada", "grain", stocked.id)
    assert {vote.left for vote in rating.votes} == {"A", "B"}
    assert {vote.choice for vote in rating.votes} <= {"A>B", "B>A", "A=B=Good", "A=B=Bad"}
    assert len(rating.votes) == 6


def test_a_key_pressed_twice_is_one_vote(stocked):
    """A vote names its pair; a late second one finds another pair up and does not count."""
    rating, page = begin(stocked)
    up = page.say(kind="hello")["pair"]
    first = page.say(kind="vote", mark=up["mark"], choice="left")
    again = page.say(kind="vote", mark=up["mark"], choice="left")
    assert (first["done"], again["done"], len(rating.votes)) == (1, 1, 1)
    assert again["pair"] == first["pair"]


def test_undo_takes_the_last_vote_back_and_skip_puts_it_off(stocked):
    """The pair comes again at once, on the same sides; a skipped one comes last."""
    rating, page = begin(stocked)
    first = rating.ballot.showing()
    assert page.say(kind="hello")["undo"] is False
    assert page.vote("left")["undo"] is True
    answer = page.say(kind="undo")
    assert (answer["done"], answer["undo"], rating.votes) == (0, False, ())
    again = rating.ballot.showing()
    assert (again.left.id, again.right.id) == (first.left.id, first.right.id)
    assert again.mark != first.mark
    page.vote("right")
    assert [vote.preferred for vote in rating.votes] == ["A" if first.right.id < first.left.id else "B"]
    assert len(votes(stocked.ledger())) == 3
    put_off = rating.ballot.showing()
    page.say(kind="skip", mark=put_off.mark)
    for _ in range(4):
        page.vote("good")
    last = rating.ballot.showing()
    assert {last.left.id, last.right.id} == {put_off.left.id, put_off.right.id}
    assert page.vote("bad")["pair"] is None
    page.say(kind="undo")
    assert rating.ballot.showing() is not None


def test_a_rater_goes_on_where_they_stopped(stocked, make_session):
    """A new session knows the votes of the last one; another rater begins anew."""
    rating, page = begin(stocked)
    seen = []
    for _ in range(4):
        seen.append({rating.ballot.showing().left.id, rating.ballot.showing().right.id})
        page.vote("left")
    later, _ = begin(make_session(), seed=9)
    assert (later.ballot.done, later.ballot.whole) == (4, 6)
    paper = later.ballot.showing()
    assert {paper.left.id, paper.right.id} not in seen
    other, _ = begin(make_session(), rater="bo")
    assert other.ballot.done == 0
    assert len(other.votes) == 4


def test_a_vote_that_cannot_be_kept_is_said_and_the_pair_stays(stocked, tmp_path):
    """Nobody believes to have voted where nothing was written."""
    rating, page = begin(stocked)
    up = page.say(kind="hello")["pair"]
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as book, book:
        book.execute("ALTER TABLE votes RENAME TO elsewhere")
    answer = page.vote("left")
    assert "The vote was not kept." in answer["why"]
    assert (answer["pair"], answer["done"]) == (up, 0)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as book, book:
        book.execute("ALTER TABLE elsewhere RENAME TO votes")
    assert page.vote("left")["done"] == 1
    assert len(rating.votes) == 1


def test_what_a_page_may_not_say_does_nothing(stocked):
    """Strange choices, axes and messages are no votes."""
    rating, page = begin(stocked)
    up = page.say(kind="hello")["pair"]
    for wrong in (
        {"choice": "A"},
        {"choice": "withdraw"},
        {"choice": "left", "axes": {"sound": "left"}},
        {"choice": "left", "axes": {"text": "A"}},
        {},
    ):
        assert "That is not a vote" in page.say(kind="vote", mark=up["mark"], **wrong)["why"]
    page.say(kind="vote", mark="another", choice="left")
    page.say(kind="vote", choice="left")
    rating._on_message(page, "not even a message", [])
    assert votes(stocked.ledger()) == []
    assert page.vote("left", axes="none", note="x" * 900)["done"] == 1
    assert len(rating.votes[0].note) == 500


# -- where scores are found ---------------------------------------------------------------------
def test_the_line_shows_the_scores_and_writes_the_votes(stocked, tmp_path):
    """`--table` and `--csv`; the same numbers as `table()`."""
    rating, page = begin(stocked)
    for choice in ("left", "left", "right", "good", "bad", "left"):
        page.vote(choice)
    shown = run_command(stocked, "rate --table", {})
    assert "kling-3.0-standard" in shown.text
    assert "No pair was judged by more than one rater" in shown.text
    judge(shown.html)
    assert repr(shown.value) == repr(rating.table())
    assert sum(row.n for row in shown.value) == 12
    written = run_command(stocked, "rate --csv votes.csv", {})
    assert written.value == tmp_path / "votes.csv"
    assert (tmp_path / "votes.csv").read_text().count("\n") == 7
    other, page = begin(stocked, rater="bo")
    for _ in range(6):
        page.vote("good")
    assert re.search(
        r"On the 6 pairs .* \d+% of votes agree; Krippendorff's alpha is -?0\.\d\d",
        run_command(stocked, "rate --table", {}).text,
    )
    assert other.agreement().raters == ("ada", "bo")
    assert rating.left_share == 3 / 4


def test_the_line_takes_what_the_function_takes(stocked):
    """Runs, `--by`, `--axes`, `--rater`; what is wrong is one line."""
    view = run_command(stocked, "rate run000 run001 --by model --axes --rater cy", {}).value
    assert (view.ballot.whole, view.ballot.rater, view.axes) == (1, "cy", ("visual", "motion", "text"))
    assert run_command(stocked, "rate --by tag:scene", {}).value.ballot.whole == 0
    for line in ("rate --by price", "rate --rater ''", "rate --csv ''", "rate --csv v.csv", "rate --stars"):
        with pytest.raises(UsageError):
            run_command(stocked, line, {})


def test_what_cannot_be_rated_is_said_in_words(stocked, monkeypatch):
    """No pair at all, no such axis, no runs."""
    monkeypatch.setattr("kling_nb.session.api._session", stocked)
    assert "There is no pair to rate" in repr(rate([stocked.find("run000"), stocked.find("run002")]))
    assert rate().ballot.whole == 6
    assert repr(rate(rater="ada")).startswith("Blind rating by ada: 0 of 6 pairs rated.")
    judge(rate()._bundle()["text/html"])
    with pytest.raises(UsageError, match="axes"):
        rate(axes=["sound"])
    with pytest.raises(UsageError, match="of runs"):
        rate(["run000"])


def test_three_models_are_all_met_early(tmp_path, make_session):
    """The first three pairs meet each two of three models once."""
    fill(tmp_path, 4, models=MODELS, others=False, size=(32, 32), seconds=0.1)
    rating, page = begin(make_session())
    met = []
    for _ in range(3):
        paper = rating.ballot.showing()
        met.append(frozenset((paper.left.model, paper.right.model)))
        page.vote("left")
    assert len(set(met)) == 3
    assert rating.ballot.whole == 12


def test_the_tutorial_runs_from_top_to_bottom(tmp_path, monkeypatch):
    """Headless it has both sheets, the ballot's line and a table, no widget, and no vote that nobody cast."""
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "0")
    made = execute(nbformat.read(TUTORIAL, as_version=4), tmp_path)
    assert errors(made) == []
    by_id = {cell.id: texts(cell) for cell in made.cells if cell.cell_type == "code"}
    assert "6 runs: 6 done" in by_id["gallery"]
    assert "2 runs: 2 done" in by_id["gallery-line"]
    assert "Blind rating by me: 0 of 3 pairs rated" in by_id["rate"]
    assert "There are no votes yet." in by_id["table"]
    assert "widget-view" not in nbformat.writes(made)
    assert len(nbformat.writes(made)) < 300_000
