"""`import kling_nb as kling` and `kling-nb`: scripts in processes of their own, against both wires."""

import ast
import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from contextlib import closing, suppress
from decimal import Decimal
from pathlib import Path

import pytest

import kling_nb as kling
from kling_nb.cli import _put
from kling_nb.config.environment import Surroundings
from kling_nb.session import api
from support.workbench import KEY, until

HEAVY = ("httpx", "pydantic", "ipywidgets", "sqlalchemy", "av", "aiohttp", "IPython", "uvicorn", "starlette")


@pytest.fixture
def session(build):
    """The one session of this process, on a house of its own."""
    house = build()
    made = kling.connect(budget="5.00")
    yield house
    made.close()
    if api.current() is not made:
        api.current().close()
    api._session = None
    api.set_surroundings(None)
    api.take_submitted()


# -- the package ---------------------------------------------------------------------------
def test_importing_is_light():
    """Nothing heavy until it is used: `%load_ext` must not cost a second."""
    code = (
        "import sys, kling_nb\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], len(kling_nb.__all__) > 30)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] True\n"


def test_every_public_name_is_there_and_typed():
    """`__all__` and what a type checker is told are the same names, and each says what it is."""
    tree = ast.parse(Path(kling.__file__).with_suffix(".pyi").read_text("utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level]
    typed = {name.name: node.module for node in imports for name in node.names}
    own = {"__version__", "last", "load_ipython_extension", "unload_ipython_extension"}
    assert set(kling.__all__) == set(typed) | own
    assert sorted(kling.__all__) == dir(kling)
    for name in set(kling.__all__) - {"last"}:
        assert getattr(kling, name) is not None
    for name, module in typed.items():
        thing = getattr(kling, name)
        assert getattr(thing, "__doc__", None), f"{name} of {module} says nothing of itself"
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = kling.nothing_of_the_kind


# -- calls --------------------------------------------------------------------------------
def test_the_whole_round(session):
    """Price, submit, wait, clip, bill, list; and the same again for nothing."""
    price = kling.estimate("A red fox", duration=3)
    assert price.usd == Decimal("0.336")
    run = kling.submit("A red fox", duration=3, tags={"scene": "1"})
    assert kling.last is run
    video = run.result(90)
    assert run.cost == price.usd
    assert video.path.exists()
    assert Path(video).read_bytes()[4:8] == b"ftyp", "a Video is a path"
    assert kling.generate("A red fox", duration=3).path == video.path
    assert kling.find(run.id).id == run.id
    assert [r.id for r in kling.runs(status="succeeded")] == [run.id]
    assert len(kling.runs(limit=0)) == 0
    assert len(kling.resume()) == 0
    money = kling.spend()
    assert (money.spent, money.reserved, money.unknown) == (Decimal("0.336"), 0, 0)
    assert (money.cap, money.left) == (Decimal("5.00"), Decimal("4.664"))
    assert money.play.spent == 0
    assert session.submissions == 1


def test_a_whole_request_may_be_given(session):
    """A `TextToVideo` is taken as it is; fields beside it would be ambiguous."""
    request = kling.TextToVideo(
        shots=[kling.Shot(prompt="A", duration=3), kling.Shot(prompt="B", duration=4)]
    )
    assert kling.estimate(request, provider="runcomfy").usd == Decimal("0.784")
    video = kling.generate(request, timeout_s=30)
    assert video.duration_s == pytest.approx(7, abs=0.1)
    with pytest.raises(kling.UsageError, match="audio"):
        kling.submit(request, audio=True)
    assert session.submissions == 1


def test_prompt_beside_shots_is_each_wires_own_matter(session):
    """Runflow takes one or the other, and says where to send both; RunComfy takes both."""
    shots = [{"prompt": "Wide", "duration": 3}, {"prompt": "Close", "duration": 3}]
    with pytest.raises(kling.UnsupportedError, match="runcomfy"):
        kling.submit("A film", shots=shots, provider="runflow")
    assert session.submissions == 0
    run = kling.submit("A film", shots=shots, provider="runcomfy").wait(90)
    assert run.status == "succeeded"
    [row] = session.stats()["runs"]
    assert row["input"]["prompt"] == "A film"
    assert [shot["duration"] for shot in row["input"]["multi_prompt"]] == [3, 3]


X = {"prompt": "A red fox"}
SHOT = {"prompt": "A", "duration": 3}
BAD = [
    {},
    {"prompt": None},
    {"prompt": ""},
    {"prompt": " \n"},
    {"prompt": 5},
    {"prompt": b"bytes"},
    {"prompt": "x" * 2501},
    {"prompt": "\ud800"},
    {"shots": []},
    {"shots": 5},
    {"shots": "abc"},
    {"shots": [5]},
    {"shots": [{"prompt": "A"}]},
    {"shots": [{"prompt": "", "duration": 3}]},
    {"shots": [{"prompt": "x" * 513, "duration": 3}]},
    {"shots": [SHOT] * 7},
    {"shots": [SHOT, {**SHOT, "duration": 0}]},
    {"shots": [SHOT], "duration": 4},
    {"shots": [{**SHOT, "seed": 1}]},
    {**X, "duration": 2},
    {**X, "duration": 16},
    {**X, "duration": "5"},
    {**X, "duration": 5.0},
    {**X, "duration": True},
    {**X, "aspect_ratio": "4:3"},
    {**X, "aspect_ratio": 1},
    {**X, "audio": "yes"},
    {**X, "audio": 1},
    {**X, "negative_prompt": ""},
    {**X, "negative_prompt": "x" * 2501},
    {**X, "cfg_scale": -0.1},
    {**X, "cfg_scale": 1.1},
    {**X, "cfg_scale": float("nan")},
    {**X, "cfg_scale": "0.5"},
    {**X, "shot_type": "other"},
    {**X, "provider": "fal"},
    {**X, "provider": 5},
    {**X, "model": "kling-9"},
    {**X, "model": ["pro"]},
    {**X, "take": -1},
    {**X, "take": "1"},
    {**X, "take": True},
    {**X, "max_cost": 0.5},
    {**X, "max_cost": True},
    {**X, "max_cost": "a lot"},
    {**X, "max_cost": "-1"},
    {**X, "max_cost": "nan"},
    {**X, "max_cost": [1]},
    {**X, "max_cost": object()},
    {**X, "price": 0.1},
    {**X, "price": "0"},
    {**X, "price": "1e9"},
    {**X, "tags": 5},
    {**X, "tags": {1: "a"}},
    {**X, "tags": {"a": 1}},
    {**X, "tags": {"a": "\ud800"}},
    {**X, "metadata": 5},
    {**X, "metadata": {"a": object()}},
    {**X, "metadata": {"a": float("inf")}},
    {**X, "metadata": {"a": "\ud800"}},
]


@pytest.mark.parametrize("call", [kling.submit, kling.estimate], ids=["submit", "estimate"])
def test_bad_input_is_told_in_one_line(session, call):
    """Every field out of its range, for submit and estimate alike: a UsageError, and nothing is sent."""
    for options in BAD:
        with pytest.raises(kling.UsageError) as caught:
            call(**options)
        words = str(caught.value)
        assert isinstance(caught.value, ValueError)
        assert "\n" not in words, options
        assert "Charged: no." in words, options
        assert len(words) < 400, options
        assert caught.value.cure, options
    assert session.submissions == 0
    assert len(kling.runs()) == 0
    kling.submit("A red fox", duration=3).wait(90)
    assert session.submissions == 1


def test_an_estimate_of_something_else_is_refused(session):
    """A misspelt option would give the price of another clip."""
    with pytest.raises(kling.UsageError, match="durations"):
        kling.estimate("A red fox", durations=10)
    with pytest.raises(kling.UsageError, match=r"durations.*Did you mean duration"):
        kling.submit("A red fox", durations=10)
    for call in (kling.submit, kling.generate, kling.estimate):
        for name, words in [
            ("multi_prompt", "shots"),
            ("generate_audio", "audio"),
            ("sound", "audio"),
            ("webhook_url", "callback_url"),
        ]:
            with pytest.raises(kling.UsageError, match=f"{name}.*{words}"):
                call("A red fox", **{name: True})
    assert kling.estimate("A red fox", audio=True, provider="runflow").usd is None
    assert kling.estimate("A red fox", audio=True).usd == Decimal("0.84")
    assert kling.estimate("A red fox", model="4k", take=3, no_cache=True).usd == Decimal("2.10")
    with pytest.raises(kling.UsageError):
        kling.runs(status="sleeping")
    assert session.submissions == 0


def test_connecting_begins_a_new_session(session, tmp_path):
    """Its settings outrank the environment; the budget of the last one is left behind with its runs."""
    first = api.current()
    kling.generate("one", duration=3)
    second = kling.connect(provider="runcomfy", budget="0.40", media=tmp_path / "other", max_in_flight=2)
    assert second is api.current()
    assert second is not first
    assert kling.spend().left == Decimal("0.40")
    run = kling.submit("two", duration=3).wait(90)
    assert (run.provider, run.path.parent) == ("runcomfy", tmp_path / "other")
    with pytest.raises(kling.BudgetError):
        kling.submit("three", duration=3)
    for wrong in ({"budget": "-1"}, {"provider": "fal"}, {"nonsense": 1}, {"max_in_flight": 0}):
        with pytest.raises(kling.SettingsError):
            kling.connect(**wrong)
    assert api.current() is second, "what was refused is not begun"
    assert len(kling.runs()) == 2
    first.close()


def test_runs_of_a_call_can_be_awaited_in_a_notebook(session):
    """`await kling.submit(...)` from any loop."""

    async def main():
        run = await kling.submit("A red fox", duration=3)
        return run.status

    assert asyncio.run(main()) == "succeeded"
    assert session.submissions == 1


def test_a_headless_cell_can_ask_what_was_submitted(session):
    """What the end of a headless cell waits for: what was submitted since the last time, once."""
    api.set_surroundings(lambda: Surroundings(folder=session.folder))
    run = kling.submit("A red fox", duration=3)
    assert api.take_submitted() == [run]
    kling.submit("A worker sends it, and no cell waits for one", duration=3, detached=True)
    assert api.take_submitted() == []
    api.set_surroundings(None)
    kling.submit("A script has no cells", duration=3).wait(90)
    assert api.take_submitted() == []
    run.wait(90)
    assert session.submissions == 2


# -- scripts ------------------------------------------------------------------------------
PLAIN = """
import kling_nb as kling
video = kling.generate("A red fox", duration=3)
print(video.path.name, kling.last.reused, kling.spend().play.spent, kling.last.provider)
"""


def test_a_script_without_a_key_plays_and_ends_cleanly(build):
    """No notebook, no key, nobody watching: the sandbox, the working folder, nothing on stderr."""
    house = build()
    house.keys()
    house.unset("MEDIA")
    code, out, err = house.script(PLAIN)
    assert (code, err) == (0, "")
    name, reused, spent, provider = out.split()
    assert (reused, spent, provider) == ("False", "0.336", "sandbox")
    assert (house.folder / "kling_media" / name).exists()
    assert house.script(PLAIN)[1].split()[:2] == [name, "True"]
    assert house.submissions == 0


HEADLESS = """
import kling_nb as kling
try:
    kling.submit("A red fox", duration=3)
except kling.ConsentError as error:
    print("refused:", error)
kling.connect(budget="1.00")
print(kling.generate("A red fox", duration=3).record.status)
"""


def test_a_script_spends_only_what_was_declared(build, wire):
    """Nobody is watching: without a budget it is refused, with one it goes through."""
    house = build()
    house.keys(wire)
    code, out, err = house.script(HEADLESS)
    assert (code, err) == (0, "")
    refused, status = out.splitlines()
    assert refused.startswith("refused:")
    assert "KLING_NB_BUDGET" in refused
    assert status == "succeeded"
    assert house.submissions == 1


LEAVING = """
import kling_nb as kling
print(kling.submit("A red fox", duration=3).id)
"""


def test_a_script_that_submits_and_leaves_loses_nothing(build, wire):
    """It ends while the answer is on its way: the id is kept, and `collect` finishes the run for free."""
    house = build(held=True, faults={"submit_slow": 1.0, "slow_s": 0.5})
    house.keys(wire)
    house.set(BUDGET=5)
    code, out, err = house.script(LEAVING)
    assert (house.submissions, house.accepted) == (1, 1)
    [(ours, status, theirs)] = query(house, "SELECT id, status, provider_run_id FROM runs")
    assert (code, err.count("\n")) == (0, 1)
    assert f"without waiting for {ours}" in err
    assert status in {"queued", "running"}
    assert theirs == house.stats()["runs"][0]["id"]
    house.faults(submit_slow=0)
    house.let_go()
    code, out, err = house.tool("collect", "--json")
    assert (code, err) == (0, "")
    [receipt] = json.loads(out)
    assert (receipt["status"], receipt["provider_run_id"]) == ("succeeded", theirs)
    assert (house.media / receipt["file"]["name"]).exists()
    assert house.submissions == 1


@pytest.mark.parametrize("count", [1, 3])
def test_a_script_that_plays_and_leaves_is_told_so_in_one_line(build, count):
    """The sandbox ends with the script, in the middle of whatever it does, with no other word."""
    house = build()
    house.keys()
    house.set(SANDBOX_WAIT=1)
    code = "import kling_nb as kling\n" + f"[kling.submit('A', take=n) for n in range({count})]\n"
    code, out, err = house.script(code)
    assert (code, out, err.count("\n")) == (0, "", 1)
    ids = [run_id for (run_id,) in query(house, "SELECT id FROM runs")]
    assert len(ids) == count
    assert all(run_id in err for run_id in ids)


WAITING = """
import signal
import kling_nb as kling
# A shell that starts a job in the background lets it ignore Ctrl-C, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
run = kling.submit("A red fox", duration=3)
try:
    print(run.id, flush=True)
    run.wait()
except KeyboardInterrupt:
    print(run.status.pending, run.done, run.error, flush=True)
print(run.result(60).record.status, flush=True)
"""


def test_ctrl_c_ends_the_waiting_and_not_the_run(build, wire):
    """A real SIGINT in `wait()`: it is heard at once, the run goes on, and is not bought again."""
    house = build(held=True)
    house.keys(wire)
    house.set(BUDGET=5)
    process = house.start("-c", WAITING)
    # It is on its way into the wait by then, or stands in it.
    assert process.stdout.readline()
    until(lambda: house.accepted == 1)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "True False None\n"
    house.let_go()
    code, status, err = house.end(process)
    assert (code, status, err) == (0, "succeeded\n", "")
    assert house.submissions == 1


# -- the command line -----------------------------------------------------------------------
def query(house, sql):
    with closing(sqlite3.connect(house.folder / "ledger.db")) as book:
        return book.execute(sql).fetchall()


def test_collect_finishes_what_a_killed_process_left(build, wire):
    """kill -9 of a submitting script; its run is found, fetched and settled, and nothing is sent."""
    house = build(held=True)
    house.keys(wire)
    house.set(BUDGET=5)
    process = house.start("-c", LEAVING.replace(".id)", ".wait())"))
    until(lambda: house.accepted == 1)
    # The process may be ended at any instant; this one is after the id is on disk.
    until(lambda: (rows := query(house, "SELECT provider_run_id FROM runs")) and rows[0][0])
    process.kill()
    house.end(process)
    with closing(sqlite3.connect(house.folder / "ledger.db")) as book, book:
        book.execute("UPDATE runs SET owned_until = '2020-01-01T00:00:00+00:00'")
    house.let_go()
    code, out, err = house.tool("collect")
    assert (code, err) == (0, "")
    assert "Done" in out
    assert query(house, "SELECT status, settled_micros, reserved_micros FROM runs") == [
        ("succeeded", 336_000, 0)
    ]
    assert house.tool("collect", "--json")[:2] == (0, "[]\n")
    assert house.submissions == 1


def test_collect_says_what_it_could_not_finish(build):
    """Time is over or the key is gone: exit code 1, and the run is still on record."""
    house = build(wait_scale=1, faults={"run_s": 60})
    house.set(BUDGET=5)
    code, _, _ = house.script(LEAVING)
    assert code == 0
    code, out, err = house.tool("collect", "--timeout", "0.5", "--json")
    assert code == 1
    [receipt] = json.loads(out)
    assert receipt["status"] in {"queued", "running"}
    assert err.startswith("kling-nb: Run ")
    assert err.count("\n") == 1
    house.keys()
    code, out, _ = house.tool("collect")
    assert code == 1
    assert "key" in out
    assert house.submissions == 1


@pytest.mark.parametrize(
    ("option", "amount"),
    [("max_cost", "1e999999"), ("max_cost", "1e-999999"), ("price", "1e999999"), ("max_cost", "1000000001")],
)
def test_an_amount_beyond_all_money_is_refused_in_words(session, option, amount):
    """Neither a thread at work for hours nor a million digits in a message."""
    with pytest.raises(kling.UsageError, match=f"{option}: should be an amount of dollars") as caught:
        kling.submit("A red fox", **{option: amount})
    assert len(str(caught.value)) < 200
    assert session.submissions == 0


def test_json_holds_no_sign_that_a_terminal_obeys(capsys):
    """Control and bidirectional characters are JSON's own escapes; other letters stay as they are."""
    words = "fox \x1b[31m \x7f \x9b \u202e \u2066 \U000e0041 ü 狐 \n"
    _put("", {"prompt": words}, as_json=True)
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"prompt": words}
    assert all(sign.isprintable() for sign in printed.replace("\n", ""))
    assert "ü 狐" in printed


def test_documents_are_one_json_document(build):
    """`--json` prints one document and nothing else; without it there is text."""
    house = build()
    house.set(BUDGET=5)
    code, out, _ = house.script(LEAVING.replace(".id)", ".wait().id)"))
    run_id = out.strip()
    printed = {}
    for words in (["runs", "-n", "1"], ["spend"], ["doctor"], ["collect"]):
        for form in ([], ["--json"]):
            code, out, err = house.tool(*words, *form)
            assert (code, err) == (0, ""), words
            assert out.strip()
            assert KEY not in out
            printed[words[0], *form] = out
    documents = {name: json.loads(out) for (name, *form), out in printed.items() if form}
    assert [receipt["id"] for receipt in documents["runs"]] == [run_id]
    assert documents["collect"] == []
    assert {row["state"] for row in documents["doctor"]} <= {"ok", "warn"}
    for name in documents:
        with pytest.raises(ValueError):
            json.loads(printed[(name,)])
    assert "0.336" in printed["spend",]
    assert house.submissions == 1


def test_exit_codes_tell(build):
    """0 done, 1 something ended badly, 2 wrong use; errors are one line on stderr."""
    house = build()
    assert house.tool("--help")[0] == 0
    assert house.tool("runs", "--no-such-flag")[0] == 2
    assert house.tool("no-such-command")[0] == 2
    house.set(BUDGET="a lot")
    code, out, err = house.tool("runs")
    assert (code, out) == (2, "")
    assert err.startswith("kling-nb: KLING_NB_BUDGET")
    assert err.count("\n") == 1
    house.set(BUDGET=5)
    (house.folder / "ledger.db").mkdir()
    code, out, err = house.tool("runs", "--json")
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    assert err.count("\n") == 1
    code, out, err = house.tool("doctor", "--json")
    assert (code, err) == (1, ""), "a check that fails is an exit code too"
    assert {"ledger": "fail"}.items() <= {row["check"]: row["state"] for row in json.loads(out)}.items()


def test_the_sandbox_is_served_as_promised(build):
    """One JSON line, both wires, a bad key refused, stats, and SIGTERM ends it with 0."""
    house = build()
    code = "from kling_nb.cli import main; main()"
    serving = house.start("-c", code, "sandbox", "serve", "--wait-scale", "0", "--fault", "poll_500=next:1")
    line = json.loads(serving.stdout.readline())
    assert set(line) == {"runflow", "runcomfy"}
    port = line["runflow"].split(":")[2].split("/")[0]
    taken = house.tool("sandbox", "serve", "--port", port)
    assert taken[0] == 2
    assert taken[2].count("\n") == 1
    assert "port" in taken[2]
    house.set(RUNFLOW_URL=line["runflow"], RUNCOMFY_URL=line["runcomfy"], BUDGET=5)
    out = house.script(LEAVING.replace(".id)", ".wait(60).status)"))[1]
    assert out == "succeeded\n"
    house.keys("runflow", key="bad-key-of-a-test-3Xw8")
    out = house.script(LEAVING.replace(".id)", ".wait(60).record.reason)").replace("red fox", "blue fox"))[1]
    assert out == "auth\n"
    with urllib.request.urlopen(line["runflow"].replace("/runflow", "/_sandbox/stats")) as reply:
        stats = json.load(reply)
    assert (stats["submissions"], stats["accepted"]) == (2, 1)
    assert stats["fired"] == {"runflow.poll_500": 1}
    serving.send_signal(signal.SIGTERM)
    assert house.end(serving) == (0, "", "")
    assert house.submissions == 0


def test_the_sandbox_refuses_a_fault_it_does_not_know(build):
    """A misspelt fault would make a test pass for nothing."""
    code, out, err = build().tool("sandbox", "serve", "--fault", "submit_999=1")
    assert (code, out) == (2, "")
    assert "submit_999" in err
    assert "Traceback" not in err
    with suppress(ValueError):
        json.loads(err)
        pytest.fail("an error is not JSON")
