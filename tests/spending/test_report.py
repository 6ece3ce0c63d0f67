"""The same numbers everywhere: each price is worked out by hand here and must stand in every view."""

import csv
import io
import json
import re
import sqlite3
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from html import unescape
from pathlib import Path

import pytest

import kling_nb as kling
from kling_nb.commands.dry_run import show_plan
from kling_nb.commands.syntax.cell import parse_cell
from kling_nb.errors import UsageError
from kling_nb.notebook.display import CommandValue
from kling_nb.notebook.line import run_command
from kling_nb.records.money import Estimate
from kling_nb.records.receipt_model import RECEIPT_MIME
from kling_nb.session import api
from kling_nb.spending.report import CostReport
from kling_nb.spending.sums import DIMENSIONS, columns, is_open
from support.cards import DONE, T, record
from support.markup import judge
from support.workbench import houses

# Dollars a second, from the providers' pages: pro 0.112 silent and 0.168 with sound, standard 0.084 and
# 0.126, 4k 0.42 with and without. By hand: 0.112 x 5 = 0.56, 0.126 x 10 = 1.26, 0.112 x (5 + 3) = 0.896, ...
GOLDEN = [
    # name, provider, model, fields, takes, dollars a take, dollars together
    ("pro-silent", "runflow", "pro", {"duration": 5}, 1, "0.56", "0.56"),
    ("pro-silent", "runcomfy", "pro", {"duration": 5}, 4, "0.56", "2.24"),
    ("pro-short", "runcomfy", "pro", {"duration": 3}, 1, "0.336", "0.336"),
    ("pro-sound", "runcomfy", "pro", {"duration": 5, "audio": True}, 1, "0.84", "0.84"),
    ("std-silent", "runcomfy", "standard", {"duration": 7}, 1, "0.588", "0.588"),
    ("std-sound", "runcomfy", "standard", {"duration": 10, "audio": True}, 1, "1.26", "1.26"),
    ("4k-silent", "runcomfy", "4k", {"duration": 3}, 1, "1.26", "1.26"),
    ("4k-sound", "runcomfy", "4k", {"duration": 4, "audio": True}, 2, "1.68", "3.36"),
    ("shots", "runflow", "pro", {"shots": [5, 3]}, 1, "0.896", "0.896"),
    ("shots", "runcomfy", "pro", {"shots": [5, 3]}, 1, "0.896", "0.896"),
    # Runflow states no price with sound: nobody knows, and 0.168 x 5, the dearest known one, is held back.
    ("unpriced", "runflow", "pro", {"duration": 5, "audio": True}, 2, None, None),
]
# 0.56 + 0.896 at Runflow; 2.24 + 0.336 + 0.84 + 0.588 + 1.26 + 1.26 + 3.36 + 0.896 at RunComfy.
SUMS = {"runflow": "1.456", "runcomfy": "10.78"}
MICROS = {"runflow": 1_456_000, "runcomfy": 10_780_000}


@pytest.fixture
def house(tmp_path, monkeypatch):
    """The one session of this process, with both providers next door and money enough."""
    for house in houses(tmp_path, monkeypatch):
        built = house()
        built.set(BUDGET="20")
        made = kling.connect()
        yield built
        made.close()
        api._session = None
        api.take_submitted()


def order(name, provider, model, fields, takes):
    """The same call as a cell: its line and its body."""
    line = f"-p {provider} -m {model} -n {takes} --tag case={name} --allow-unpriced"
    line += f" -d {fields['duration']}" if "duration" in fields else ""
    line += " --audio" if fields.get("audio") else ""
    body = "\n".join(f"[{s}s] Shot of {s}" for s in fields.get("shots", ())) or f"A fox, {name}"
    return parse_cell(line, body, {}, folder=Path())


def seen(markup):
    """What a reader sees, once the markup is found to be safe."""
    return judge(markup)[1].replace("\xa0", " ")


def test_every_view_shows_the_sums_worked_out_by_hand(house):
    """Estimate, dry run, card, receipt, sidecar, ledger, `%kling cost` in every form, and `kling.spend()`."""
    house.faults(**{"runflow.audio_price": 0.2})
    session, made = api.current(), []
    for name, provider, model, fields, takes, each, together in GOLDEN:
        if each is None:
            for _, _, run in made:
                run.wait(60)
            house.faults(**{"runflow.cost_told": "never"})
        cell = order(name, provider, model, fields, takes)
        ask = cell.ask
        # Before: the estimate and the dry run.
        known = None if each is None else Decimal(each)
        assert session.price(ask).usd == known
        assert kling.estimate(ask.request, provider=provider, model=model).usd == known
        dry = show_plan(session.plan(ask), cell, session)
        assert dry.value["would_cost_usd"] == together
        for text in (dry.text, unescape(re.sub("<[^>]*>", "", dry.html))):
            assert (f"${together}" if together else "Nobody knows the price") in text, name
            assert each is not None or "would reserve $1.68" in text
        runs = session.open(ask)
        made += [(name, each, run) for run in runs]

    for name, each, run in made:
        # After: card, receipt, sidecar and the ledger's row.
        assert run.wait(60).status == "succeeded", run.error
        bundle = run.bundle()
        words = "charged, amount unknown, up to $0.84 reserved" if each is None else f"${each} charged"
        for text in (seen(bundle["text/html"]), bundle["text/plain"]):
            assert words in text, name
        price = bundle[RECEIPT_MIME]["price"]
        side = json.loads(next(house.media.glob(f"*{run.id}.json")).read_text(encoding="utf-8"))["price"]
        assert price == side
        figures = [price[figure] for figure in ("estimate", "reported", "settled")]
        assert [None if figure is None else Decimal(figure) for figure in figures] == 3 * [
            None if each is None else Decimal(each)
        ]
        assert price["currency"] == "USD"
        assert (price["basis"] != "", price["source"] != "", price["as_of"] is not None) == (True,) * 3
        assert ("unknown" in price["basis"]) == (each is None)

    book = sqlite3.connect(house.folder / "ledger.db")
    query = "SELECT provider, SUM(settled_micros), SUM(reserved_micros) FROM runs GROUP BY provider"
    rows = {name: tuple(figures) for name, *figures in book.execute(query)}
    book.close()
    assert rows == {"runflow": (1_456_000, 1_680_000), "runcomfy": (10_780_000, 0)}
    check_reports(house, session)
    assert house.submissions == house.accepted == len(made) == 16


def check_reports(house, session):
    """The report in each of its forms, and the session's own money."""
    shown = run_command(session, "cost --by provider", {})
    answer = {row["provider"]: row for row in shown.value.rows}
    code, out, err = house.tool("spend", "--by", "provider", "--json")
    assert (code, err) == (0, "")
    printed = json.loads(out)
    texts = list(csv.DictReader(io.StringIO(shown.value.to_csv())))
    frame = shown.value.df
    for name, sums in SUMS.items():
        unknown = 2 if name == "runflow" else 0
        row = answer[name]
        for figure in ("estimated", "reported", "settled"):
            assert (row[f"{figure}_micros"], row[figure]) == (MICROS[name], sums), (name, figure)
            assert row[f"{figure}_unknown"] == unknown
        assert row["reserved_micros"] == (1_680_000 if unknown else 0)
        assert row["difference_micros"] == 0
        assert row == next(r for r in printed["rows"] if r["provider"] == name)
        [line] = [line for line in texts if line["provider"] == name]
        assert line == {key: str(value) for key, value in row.items()}
        [record] = frame[frame.provider == name].to_dict("records")
        assert record == row
        for text in (shown.text, seen(shown.html)):
            assert f"${sums} + 2 unknown" in text if unknown else f"${sums}" in text
            assert f"${sums} + 2 not reported" in text or not unknown
    for text in (shown.text, seen(shown.html), repr(kling.costs()), seen(kling.costs()._repr_html_())):
        # 1.456 + 10.78 = 12.236, and of 20 less the 1.68 that is held, 6.084 are left.
        assert "$12.236 + 2 unknown" in text
        assert "Session $12.236 + $1.68 reserved + 2 unknown of $20.00, $6.084 left." in text
    [total] = shown.value.totals
    assert (total["settled_micros"], total["settled"], total["runs"]) == (12_236_000, "12.236", 16)
    assert printed["totals"] == [total]
    cases = {row["tag:case"]: row for row in kling.costs(by="tag:case").rows}
    assert (cases["4k-sound"]["settled"], cases["4k-sound"]["runs"]) == ("3.36", 2)
    assert (cases["unpriced"]["settled_micros"], cases["unpriced"]["settled"]) == (None, None)
    spent = kling.spend()
    assert (spent.spent, spent.reserved, spent.unknown) == (Decimal("12.236"), Decimal("1.68"), 2)
    assert spent.left == Decimal("6.084")
    assert spent.play.spent == 0


# -- the report alone ----------------------------------------------------------------------
def done(run_id="kaaaa", **fields):
    """A finished run of $0.56, with what is said."""
    return record(**{**DONE, "id": run_id, **fields})


UNKNOWN = {"estimate": Estimate(micros=None, reserve_micros=840_000), "reserved_micros": 840_000}
FAILED = {"status": "failed", "reason": "provider", "charged": "unknown", "reserved_micros": 560_000}


def test_what_nobody_knows_is_counted_and_never_nought():
    """An unknown amount is a word in the page, None in the data, an empty cell in the file, and a count."""
    unpriced = done("kbbbb", reported_micros=None, settled_micros=None, **{**UNKNOWN, "provider": "runcomfy"})
    free = record(id="kcccc", provider="other", status="failed", charged="no", settled_micros=0)
    report = CostReport([done(), unpriced, free], by="provider")
    known, unknown, nought = (
        next(row for row in report.rows if row["provider"] == name)
        for name in ("runflow", "runcomfy", "other")
    )
    for figure in ("estimated", "settled"):
        assert (unknown[f"{figure}_micros"], unknown[figure], unknown[f"{figure}_unknown"]) == (None, None, 1)
        assert (known[f"{figure}_micros"], known[figure], known[f"{figure}_unknown"]) == (560_000, "0.56", 0)
    assert (nought["settled_micros"], nought["settled"], nought["settled_unknown"]) == (0, "0.00", 0)
    assert (nought["reported_micros"], nought["reported_unknown"]) == (None, 0)
    assert unknown["reported_unknown"] == 1
    cells = {row["provider"]: row for row in csv.DictReader(io.StringIO(report.to_csv()))}
    assert (cells["runcomfy"]["settled_micros"], cells["runcomfy"]["settled_unknown"]) == ("", "1")
    assert cells["other"]["settled_micros"] == "0"
    frame = report.df.set_index("provider")
    assert frame.settled_micros.isna().to_dict() == {"runflow": False, "runcomfy": True, "other": False}
    assert frame.settled_micros.sum() == 560_000
    assert "settled $0.56 + 1 unknown" in repr(report)
    [total] = report.totals
    assert (total["settled"], total["settled_unknown"], total["reserved"]) == ("0.56", 1, "0.84")


def test_play_money_and_what_is_no_dollars_never_share_a_sum():
    """Whatever a report is arranged by, play money has rows, sums and bars of its own; euros are in none."""
    runs = [done(), done("kbbbb", play=True), done("kcccc", currency="EUR", settled_micros=None)]
    for by in (*DIMENSIONS, "tag:scene", ("provider", "day")):
        rows = [row for row in CostReport(runs, by=by).rows if row["settled_micros"]]
        assert [(row["play"], row["settled_micros"]) for row in rows] == [(False, 560_000), (True, 560_000)]
    report = CostReport(runs)
    real, play = report.totals
    assert (real["reported_micros"], real["reported_unknown"], real["settled_unknown"]) == (560_000, 1, 1)
    assert (play["reported_micros"], play["reported_unknown"]) == (560_000, 0)
    [told] = [row["reported_as"] for row in report.by("run").rows if row["reported_as"]]
    assert told == "0.56 EUR"
    for text in (repr(report), seen(report._repr_html_())):
        assert "reported $0.56 + 1 not reported" in text
        assert "play money: 1 run" in text


def test_a_report_is_arranged_by_whatever_is_asked():
    """Days are UTC and newest first; a tag's values stand alone; a run of several tags counts once in all."""
    early = T.replace(day=20, hour=23)
    runs = [
        done(tags={"scene": "3", "cast": "fox"}),
        done("kbbbb", tags={"scene": "3"}, created_at=early),
        done("kcccc", session_id="s-1", user="ada", project="vineyard", notebook="a.ipynb"),
    ]
    report = CostReport(runs)

    def labels(by):
        return [(row[by], row["runs"]) for row in report.by(by).rows]

    assert labels("day") == [("2026-11-21", 2), ("2026-11-20", 1)]
    assert labels("tag:scene") == [(None, 1), ("3", 2)]
    assert labels("tag") == [(None, 1), ("cast=fox", 1), ("scene=3", 2)]
    assert "these add up to more" in repr(report.by("tag"))
    assert report.by("tag").totals[0]["settled"] == "1.68"
    assert labels("user") == [(None, 2), ("ada", 1)]
    assert [row["runs"] for row in report.by("provider,day").rows] == [2, 1]
    assert {row["run"] for row in report.by("run").rows} == {"kaaaa", "kbbbb", "kcccc"}
    one = report.by("run").rows[0]
    assert (one["price_basis"], one["seconds"], one["charged"]) == (DONE_BASIS, 5, "yes")
    for by in (*DIMENSIONS, "tag:scene", "provider,model,tag"):
        arranged = report.by(by)
        assert all(list(row) == columns(arranged.dimensions) for row in arranged.rows)
        assert list(CostReport([], by=by).df.columns) == columns(arranged.dimensions)
        assert CostReport([], by=by).to_csv().count("\n") == 1
    for wrong in ("colour", "", "tag:", "day,day", "provider,colour"):
        with pytest.raises(UsageError, match="cannot be arranged"):
            report.by(wrong)


DONE_BASIS = "$0.112/s silent, Runflow list of 2026-04-06"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\n", " =", "\uff1d", "=\r"])
def test_no_cell_of_a_file_is_a_formula(tmp_path, start):
    """A tag, user, project or notebook that a spreadsheet would run stands behind an apostrophe."""
    evil = f'{start}HYPERLINK("http://127.0.0.1:9/";"x")'
    run = done(tags={"scene": evil}, user=evil, project=evil, notebook=evil, session_id=evil)
    for by in ("tag:scene", "user", "project", "notebook", "session"):
        path = tmp_path / "costs.csv"
        assert CostReport([run], by=by).to_csv(path) is None
        with path.open(encoding="utf-8", newline="") as file:
            [row] = csv.DictReader(file)
        assert row[by] == f"'{evil}"
        assert row["settled_micros"] == "560000"
        assert CostReport([run], by=by).rows[0][by] == evil
    over = CostReport([done(settled_micros=500_000)]).to_csv()
    assert over.endswith(",-60000,-0.06\n"), "an amount below nought is a number"


def test_text_of_strangers_is_only_text():
    """Labels are escaped, and the page is one that a notebook shows without trust or script."""
    evil = "<img src=x onerror=alert(1)>$\\href{a}{b}"
    report = CostReport([done(tags={evil: evil}, project=evil)], by="tag,project")
    assert evil in seen(report._repr_html_())


def test_a_page_stays_small_and_the_data_whole():
    """Five hundred runs by run: a page of forty rows that says so, and every row in the data."""
    runs = [done(f"k{number:04}", tags={"n": str(number)}) for number in range(500)]
    report = CostReport(runs, by="run")
    page = report._repr_html_()
    assert len(page.encode()) < 60_000
    assert page.count("<tr") == 41
    assert "There are 460 more rows" in seen(page)
    assert len(report.rows) == len(report.df) == report.to_csv().count("\n") - 1 == 500


def test_bars_are_to_scale_and_say_nothing_alone():
    """Estimated is an outline and settled a solid bar, as long as their numbers beside them."""
    half = record(**{**DONE, "id": "kbbbb", "provider": "runcomfy"}).model_copy(
        update={"settled_micros": 280_000, "reported_micros": 280_000}
    )
    page = CostReport([done(), half], by="provider")._repr_html_()
    elements, text = judge(page)
    widths = [
        attributes["style"].split("width:")[1].split(";")[0]
        for tag, attributes in elements
        if tag == "div" and "height:6px" in attributes.get("style", "")
    ]
    assert widths == ["100.0%", "50.0%", "100.0%", "100.0%"]
    assert "outlined is estimated" in text
    assert "$0.28" in text
    bare = done(
        reported_micros=None, settled_micros=None, estimate=UNKNOWN["estimate"], tags={"t": "x" * 150}
    )
    page = CostReport([bare])._repr_html_()
    assert "outlined" not in page, "there is no bar to explain"
    assert page.count("max-width:320px;overflow-wrap:break-word") == 2, "a long label leaves room for numbers"


def test_one_day_has_no_table_of_its_own():
    """Its figures would be those of the sentence above it; two days have one."""
    later = record(**{**DONE, "id": "kbbbb"}).model_copy(update={"created_at": T + timedelta(days=1)})
    assert ">day<" not in CostReport([done()])._repr_html_()
    assert ">day<" in CostReport([done(), later])._repr_html_()


def test_a_charge_without_the_providers_word_is_pointed_out():
    """Unknown and merely estimated charges of real money are counted, and the command that asks is named."""
    estimated = done("kbbbb", reported_micros=None)
    runs = [done(), estimated, record(id="kcccc", **FAILED), done("kdddd", play=True, reported_micros=None)]
    assert [is_open(run) for run in runs] == [False, True, True, True]
    words = "2 charges are not confirmed in dollars by the provider: %kling cost --reconcile"
    assert words in repr(CostReport(runs))
    assert "reconcile" not in repr(CostReport([done()]))


def test_without_pandas_the_other_forms_remain(monkeypatch):
    """`.df` says what to install; `.rows` and `.to_csv()` need nothing."""
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    report = CostReport([done()])
    with pytest.raises(UsageError, match="pandas"):
        _ = report.df
    assert report.rows[0]["settled"] == "0.56"
    assert "0.56" in report.to_csv()


# -- %kling cost ---------------------------------------------------------------------------
def test_the_line_takes_days_projects_and_arrangements(house):
    """Without them this session; with days or a project the ledger; the answer can do what the report can."""
    session = api.current()
    with session.ledger().writing() as transaction:
        for run_id, changes in {
            "kmine": {"session_id": session.id, "project": "a"},
            "kother": {"session_id": "s-other", "project": "b", "created_at": T.replace(day=1)},
        }.items():
            transaction.insert(done(run_id, run_key=f"k1:{run_id}", **changes))

    def runs(line):
        return sorted(row["run"] for row in run_command(session, f"cost {line}", {}).value.by("run").rows)

    assert runs("") == ["kmine"]
    assert runs("--all") == runs("--since 2026-11-01") == runs("--until=2026-11-21") == ["kmine", "kother"]
    assert runs("--since 2026-11-02") == ["kmine"]
    assert runs("--until 2026-11-01") == runs("--project b") == ["kother"]
    assert (
        "Project b since 2026-11-01" in run_command(session, "cost --project b --since 2026-11-01", {}).text
    )
    assert run_command(session, "cost --by tag:scene,day", {}).value.dimensions == ("tag:scene", "day")
    for line in ("--by colour", "--by", "--since yesterday", "--until 2026-13-01", "--project ''", "fox"):
        with pytest.raises(UsageError) as caught:
            run_command(session, f"cost {line}", {})
        assert "\n" not in str(caught.value)
    answer = CommandValue(run_command(session, "cost --all", {}))
    assert len(answer.df) == len(answer.rows) == 1
    assert answer.to_csv() == kling.costs(everything=True).to_csv()
    assert "to_csv" in dir(answer)
    with pytest.raises(AttributeError):
        _ = answer.nothing_of_the_kind
    assert not hasattr(answer, "_repr_html_")


def test_a_day_may_be_a_text_a_date_or_a_time(house):
    """Days are UTC: an hour of another zone counts on its UTC day; what is no day is one line."""
    session = api.current()
    with session.ledger().writing() as transaction:
        transaction.insert(done("kfirst", created_at=T.replace(day=1)))
        transaction.insert(done("ksecond", run_key="k1:2", created_at=T.replace(day=2)))
    late = datetime(2026, 11, 1, 22, tzinfo=timezone(timedelta(hours=-5)))
    for since in ("2026-11-02", date(2026, 11, 2), datetime.fromisoformat("2026-11-02T23:59"), late):
        assert [row["run"] for row in kling.costs(since=since, by="run").rows] == ["ksecond"]
    for until in (
        "2026-11-01",
        date(2026, 11, 1),
        datetime.fromisoformat("2026-11-01T00:01"),
        late - timedelta(hours=4),
    ):
        assert [row["run"] for row in kling.costs(until=until, by="run").rows] == ["kfirst"]
    for nonsense in (20261102, "yesterday", "", True):
        with pytest.raises(UsageError, match="since takes a day"):
            kling.costs(since=nonsense)
