"""The contact sheet: what is saved of it, and what a page is told and may ask for."""

import base64
import io

import pytest
from PIL import Image

from kling_nb.engine.runs import Runs
from kling_nb.errors import UsageError
from kling_nb.ledger.database import Ledger
from kling_nb.notebook.line import run_command
from kling_nb.notebook.viewers.gallery import Gallery, gallery
from kling_nb.records.run import RunStatus
from kling_nb.views.contact_sheet import MOST, Tile, sheet, sheet_text, smaller
from support.markup import judge
from support.runs import fill
from support.workbench import until


def tile(run_id="kl7m2q", **changes):
    fields = {"state": "Done", "cost": "$0.56", "seconds": 5, "prompt": "A red fox", "src": f"m/{run_id}.mp4"}
    return Tile(id=run_id, **{**fields, **changes})


def noise(width=320, quality=90):
    """A still that compresses as badly as any."""
    buffer = io.BytesIO()
    image = Image.merge("RGB", [Image.effect_noise((width, width * 9 // 16), 120) for _ in range(3)])
    image.save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


class Page:
    """What a widget is to the gallery: it takes messages."""

    def __init__(self, answer):
        self.sent, self._answer = [], answer

    def send(self, content, buffers=()):
        self.sent.append((content, list(buffers)))

    def say(self, **content):
        """Speak as the page does; gives what comes back."""
        self.sent.clear()
        self._answer(self, content, [])
        return list(self.sent)


@pytest.fixture
def stocked(tmp_path, make_session):
    """Twenty runs, two of them without a clip, in a session."""
    fill(tmp_path, 10, size=(64, 36), seconds=0.25)
    return make_session()


def live(view):
    """The page of a gallery, as `_show_live` would make it."""
    view._source = view._clips()
    return Page(view._on_message)


# -- the saved sheet -------------------------------------------------------------------
def test_each_run_is_a_still_a_link_and_words(tmp_path, stocked):
    """Name, state in words and cost of each; links are relative; nothing that a sanitizer would take away."""
    seen, text = judge(Gallery(stocked.runs(), stocked).html)
    links = [attributes["href"] for name, attributes in seen if name == "a"]
    stills = [attributes for name, attributes in seen if name == "img"]
    assert len(links) == len(stills) == 18
    assert all(link.startswith("kling_media/scene-") for link in links)
    assert all(still["src"].startswith("data:image/jpeg") and still["alt"] for still in stills)
    assert not [name for name, _ in seen if name == "video"]
    assert text.startswith("20 runs · 1 queued, 18 done, 1 failed: moderated · as of 20")
    assert "Kling 3.0 Standard · Queued · nothing reserved · run019" in text
    assert "Failed: moderated · $0.00 · run009" in text
    assert " · Done · $0.564 · run018" in text
    assert [name for name, _ in seen].count("div") > 40


def test_a_tile_leads_with_what_tells_it_from_the_others():
    """Of many prompts the prompt; of one prompt what was varied; what all share stands once, above."""
    asked = ("Kling 3.0 Pro", "5 s")
    _, text = judge(
        sheet([tile("kaaa", asked=asked, prompt="A fox"), tile("kbbb", asked=asked, prompt="A hare")])
    )
    assert text == "2 runs · 2 doneKling 3.0 Pro · 5 sno stillA fox$0.56 · kaaano stillA hare$0.56 · kbbb"
    takes = [tile(f"k{n}", asked=(*asked, f"take {n}"), prompt="A fox") for n in range(2)]
    _, text = judge(sheet(takes))
    assert (
        text == "2 runs · 2 doneA fox · Kling 3.0 Pro · 5 sno stilltake 0$0.56 · k0no stilltake 1$0.56 · k1"
    )


def test_a_hundred_of_the_worst_stills_stay_below_half_a_megabyte():
    """However badly pictures compress, and however many runs there are."""
    worst = noise()
    assert len(worst) > 20_000
    for count in (1, 30, 100, MOST, 1000):
        whole = sheet([tile(f"run{n:04}", prompt="x" * 500, poster=worst) for n in range(count)])
        assert len(whole) < 500_000, count
        judge(whole)
    assert f"{1000 - MOST} more are not on this sheet" in whole
    text = sheet_text([tile(f"run{n:04}") for n in range(1000)])
    assert text.count("\n") == MOST + 2
    assert text.endswith("800 more are not on this sheet: %kling list --all has them.")


def test_a_still_is_shrunk_until_it_fits_and_no_further():
    """It stays a JPEG; what fits is not touched; what cannot fit is left out."""
    worst = noise()
    small = smaller(worst, 4000)
    assert 1000 < len(small) <= 4000
    with Image.open(io.BytesIO(base64.b64decode(small.partition(",")[2]))) as picture:
        assert (picture.format, picture.size[0] <= 200) == ("JPEG", True)
    assert smaller(small, 4000) is small
    assert smaller(worst, 200) is None
    assert smaller("data:image/jpeg;base64,AAAA" * 40, 100) is None


def test_what_comes_from_outside_is_text():
    """Prompts, names and addresses cannot become markup, script or TeX."""
    evil = "<script>alert(1)</script> $x$ \\href{javascript:0}{y}"
    whole = sheet([tile(name="<b>", prompt=evil, src="javascript:alert(1)", poster="data:text/html,x")])
    seen, text = judge(whole)
    assert evil in text
    assert not {"script", "a", "img"} & {name for name, _ in seen}


def test_the_text_twin_has_a_line_a_run():
    """For terminals and diffs: without pictures, with the file."""
    lines = sheet_text(
        [tile(file="a.mp4"), tile("kl7m2r", name="fox", state="Lost", cost="unknown")]
    ).splitlines()
    assert lines[0] == "2 runs: 1 done, 1 lost"
    assert lines[2].split() == ["kl7m2q", "Done", "$0.56", "5", "s", "A", "red", "fox", "a.mp4"]
    assert lines[3].split()[:4] == ["kl7m2r", "fox", "Lost", "unknown"]
    assert (sheet_text([]), "no runs" in sheet([])) == ("no runs", True)


# -- what a page is told ------------------------------------------------------------------
def test_a_page_is_told_words_and_no_bytes(stocked):
    """No still, no path, no address before it asks; a hundred tiles are a small message."""
    view = Gallery(stocked.runs(), stocked)
    words = [view._words(run) for run in view.runs]
    whole = repr(words)
    assert len(words) == 20
    assert "base64" not in whole
    assert "kling_media" not in whole
    assert ".mp4" not in whole
    assert len(whole) < 20 * 500
    assert {word["state"] for word in words} == {"Done", "Failed: moderated", "Queued"}
    assert sum(word["plays"] for word in words) == 18


def test_stills_and_clips_come_when_they_are_asked_for(stocked):
    """Each for itself; what the gallery does not show, it does not send."""
    view = Gallery(stocked.runs()[:3], stocked)
    page = live(view)
    [(still, _)] = page.say(kind="stills", ids=["run018", "run000", "../etc", 7])
    assert (still["kind"], still["id"], still["uri"][:22]) == ("still", "run018", "data:image/jpeg;base64")
    [(clip, [data])] = page.say(kind="clip", id="run018", at=0)
    assert (clip["size"], data) == (len(data), view.runs[1].path.read_bytes())
    [(refused, none)] = page.say(kind="clip", id="run000", at=0)
    assert ("why" in refused, none) == (True, [])
    for wrong in ({"kind": "stills", "ids": 7}, {"kind": "stills"}, {"kind": "boo"}, {}):
        assert page.say(**wrong) == []
    view._on_message(page, "not even a message", [])


def test_what_is_selected_is_read_in_the_order_of_the_sheet(stocked):
    """Whatever the order of the clicks; only runs of this sheet; every page is told."""
    view = Gallery(stocked.runs(), stocked)
    page = live(view)
    assert list(view.selected) == []
    [(told, _)] = page.say(kind="select", ids=["run003", "run018", "run007", "nobody"], by="me")
    assert told == {"kind": "selected", "ids": ["run018", "run007", "run003"], "by": "me"}
    assert isinstance(view.selected, Runs)
    assert [run.id for run in view.selected] == ["run018", "run007", "run003"]
    assert [row["id"] for row in view.value if row["selected"]] == ["run018", "run007", "run003"]
    assert page.say(kind="hello") == [({**told, "by": ""}, [])]
    page.say(kind="select", ids=[])
    assert len(view.selected) == 0


def test_a_run_that_ends_is_told_and_redrawn(stocked):
    """Its tile changes at once; the saved sheet when nothing is on its way any more."""
    view = Gallery(stocked.runs(), stocked)
    page = live(view)
    drawn = []
    view._widget = page
    view._handle = type("Handle", (), {"update": lambda _self, bundle, raw: drawn.append((bundle, raw))})()
    run = next(run for run in view.runs if run.status.pending)
    assert "1 queued" in view.html
    run.publish(run.record.model_copy(update={"status": RunStatus.CANCELED}))
    view._changed(run)
    [(told, _)] = page.sent
    assert (told["kind"], told["tile"]["id"], told["tile"]["state"]) == ("tile", run.id, "Canceled")
    stocked.loop.start(view._redraw()).result(10)
    assert "1 canceled" in drawn[-1][0]["text/html"]
    assert "as of" not in drawn[-1][0]["text/html"]


def test_a_page_that_comes_late_is_told_what_has_changed(stocked):
    """It begins with what was so when the cell ran: a run that ended since is told by name, no other one."""
    view = Gallery(stocked.runs(), stocked)
    page = live(view)
    view._sent = {run.id: view._words(run) for run in view.runs}
    assert [told["kind"] for told, _ in page.say(kind="hello")] == ["selected"]
    run = next(run for run in view.runs if run.status.pending)
    run.publish(run.record.model_copy(update={"status": RunStatus.CANCELED}))
    [_, (told, _)] = page.say(kind="hello")
    assert (told["kind"], told["tile"]["id"], told["tile"]["state"]) == ("tile", run.id, "Canceled")


def test_a_run_that_ends_while_the_sheet_is_drawn_is_told(stocked):
    """Nobody listened yet when it ended: its tile and the saved sheet follow all the same."""
    view = Gallery(stocked.runs(), stocked)
    view._widget = page = live(view)
    drawn = []
    view._handle = type("Handle", (), {"update": lambda _self, bundle, raw: drawn.append((bundle, raw))})()
    view._sent = {run.id: view._words(run) for run in view.runs}
    run = next(run for run in view.runs if run.status.pending)
    run.publish(run.record.model_copy(update={"status": RunStatus.CANCELED}))
    view._listen()
    assert [(told["kind"], told["tile"]["id"]) for told, _ in page.sent] == [("tile", run.id)]
    until(lambda: drawn)
    assert "1 canceled" in drawn[-1][0]["text/html"]


# -- what it is a gallery of ----------------------------------------------------------------
def test_the_line_takes_runs_a_tag_or_all(stocked, make_session):
    """Ids and variables, `--tag K=V`, `--all`; the newest hundred by default."""
    fox = stocked.find("run004")

    def ids(line):
        answer = run_command(stocked, line, {"fox": fox})
        assert answer.view is answer.value
        return [run.id for run in answer.value.runs]

    assert ids("gallery run003 fox run003") == ["run003", "run004"]
    assert ids("gallery --tag scene=4") == ["run009", "run008"]
    assert len(ids("gallery")) == len(ids("gallery --all")) == 20
    assert ids("gallery --tag scene=99") == []
    for line in ("gallery --tag scene", "gallery run003 --all", "gallery nobody", "gallery --tag =3"):
        with pytest.raises(UsageError):
            run_command(stocked, line, {})


def test_takes_of_one_cell_stand_beside_each_other_in_order(tmp_path, make_session):
    """They were asked for at one time: their number orders them, the newest first."""
    [first, *_] = fill(tmp_path, 1, others=False, size=(32, 32), seconds=0.1)
    ledger = Ledger(tmp_path / "ledger.db")
    with ledger.writing() as transaction:
        for take in (3, 1, 2):
            new = {"id": f"more{9 - take}", "run_key": f"k{take}", "take": take}
            transaction.insert(first.model_copy(update=new))
    ledger.close()
    for line in ("gallery", "gallery --all"):
        runs = run_command(make_session(), line, {}).value.runs
        mine = [run.record.take for run in runs if run.id == first.id or run.id.startswith("more")]
        assert mine == [3, 2, 1, 0]


def test_no_more_than_a_hundred_unless_asked(tmp_path, make_session):
    """A long ledger is not read into a page by accident."""
    records = fill(tmp_path, 4, others=False, size=(32, 32), seconds=0.1)
    ledger = Ledger(tmp_path / "ledger.db")
    with ledger.writing() as transaction:
        for number in range(100):
            transaction.insert(
                records[0].model_copy(update={"id": f"more{number:03}", "run_key": f"k{number}"})
            )
    ledger.close()
    session = make_session()
    assert len(run_command(session, "gallery", {}).value) == 100
    assert len(run_command(session, "gallery --all", {}).value) == 108


def test_what_is_no_run_is_refused(stocked, monkeypatch):
    """One line, and nothing is shown."""
    monkeypatch.setattr("kling_nb.session.api._session", stocked)
    assert len(gallery()) == 20
    assert len(gallery(stocked.runs()[0])) == 1
    assert repr(gallery([])) == "no runs"
    for wrong in (["run003"], [stocked.runs()[0], None]):
        with pytest.raises(UsageError, match="of runs"):
            gallery(wrong)
