"""Callbacks: who signed has a run read at once, and decides nothing; without them runs are polled."""

import asyncio
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from kling_nb.commands.syntax.cell import parse_request
from kling_nb.engine.limits import Clock
from kling_nb.engine.polling.callbacks import Callbacks
from kling_nb.engine.polling.poller import Poller
from kling_nb.engine.polling.schedule import Pace
from kling_nb.errors import LedgerError, SettingsError, UsageError
from kling_nb.ledger.database import Ledger
from kling_nb.ledger.databases.changes import CALLED
from kling_nb.notebook.form.cell_text import as_cell
from kling_nb.notebook.form.fields import blank, read
from kling_nb.records.receipt import to_receipt
from kling_nb.session.api import ask_for
from kling_nb.team.answers import MAX_BYTES, PATH
from kling_nb.team.callbacks import Receiver
from support.callbacks import SECRET, body_of, receiving, secrets_of, sign
from support.clips import make_record
from support.jupyter import Server
from support.paths import ROOT
from support.stage import Stage, kinds
from support.workbench import until

#: Whoever waits longer than this waits for ever, unless he is called: so no poll brings a run to its end.
DEAF_S = 2.0
SIGNED = {"runflow.callback_secret": SECRET}


async def deaf(seconds):
    await (asyncio.Event().wait() if seconds > DEAF_S else asyncio.sleep(seconds))


@pytest.fixture
def stage(tmp_path):
    made = []

    def build(**options):
        made.append(
            Stage(tmp_path, "runflow", **{**options, "faults": {**SIGNED, **options.get("faults", {})}})
        )
        return made[-1]

    yield build
    for each in made:
        each.close()


def sent_to(stage, url, **fields):
    """Ask for a run that is called back at an address."""
    record = stage.record(**fields).model_copy(update={"callback_url": url})
    with stage.ledger.writing() as transaction:
        transaction.write(record, "addressed")
    return stage.engine.handle(record)


class Never(Pace):
    """A kind whose runs are not worth a read for years."""

    def next_read(self, age_s, reads):
        return 1e9


def poll_never(stage):
    """Have no run of the next record's kind read by itself."""
    kind = "runflow", stage.base, "kling-3.0-pro", 3, False

    async def put():
        stage.engine._poller = poller = Poller(stage.engine.clock)
        pace = poller._paces[kind] = asyncio.get_running_loop().create_future()
        pace.set_result(Never(1.0))

    stage.loop.start(put()).result(10)


def post(url, raw, signature):
    return httpx.post(url, content=raw, headers={"Runflow-Signature": signature.encode()}, trust_env=False)


def calls(stage, run):
    return kinds(stage, run).count(CALLED)


def deaf_stage(stage, **options):
    """A stage whose runs are read when they are called for, and never otherwise."""
    made = stage(held=True, clock=Clock(sleep=deaf), **options)
    poll_never(made)
    return made


# -- what a call does ----------------------------------------------------------------
def test_a_call_has_a_run_read_at_once(stage):
    """A run that no poll would read for years is read, and its clip saved, when its provider calls."""
    s = deaf_stage(stage)
    with receiving(s.ledger) as url:
        run = sent_to(s, url)
        until(lambda: run.provider_run_id)
        assert s.stats()["polls"] == 0
        s.let_go()
        assert run.wait(60).status == "succeeded"
    assert calls(s, run) == 1
    assert s.stats()["polls"] == 1
    assert run.path.is_file()


def test_a_call_that_comes_before_the_answer_to_the_submit_is_not_missed(stage):
    """The provider's id is not known yet: the run is known by our own, and read as soon as it may be."""
    s = stage(clock=Clock(sleep=deaf), faults={"runflow.callback_early": 1})
    poll_never(s)
    with receiving(s.ledger) as url:
        run = sent_to(s, url)
        assert run.wait(60).status == "succeeded"
    order = kinds(s, run)
    assert order.index(CALLED) < order.index("accepted")


def test_a_call_decides_nothing(stage):
    """Signed words that a run is canceled, failed and done, in any order, end nothing."""
    s = deaf_stage(stage)
    with receiving(s.ledger) as url:
        run = sent_to(s, url)
        provider_run_id = until(lambda: run.provider_run_id)
        for n, event in enumerate(["run.cancelled", "run.failed", "run.completed"], 1):
            raw = body_of(provider_run_id, event=event)
            assert post(url, raw, sign(raw)).status_code == 200
            until(lambda n=n: s.stats()["polls"] == n)
        assert run.status.pending
        s.let_go()
        until(lambda: s.stats()["callbacks"])
        # Its own call came too late to be new: the next is.
        raw = body_of(provider_run_id, event="run.partial_succeeded")
        post(url, raw, sign(raw))
        assert run.wait(60).status == "succeeded"


def test_a_call_that_comes_while_its_run_is_read_has_it_read_again(stage):
    """What is on its way may have been answered before the end that the call tells of."""
    s = deaf_stage(stage, faults={"poll_slow": {"next": 1}, "slow_s": 1})
    with receiving(s.ledger) as url:
        run = sent_to(s, url)
        provider_run_id = until(lambda: run.provider_run_id)
        for n, event in enumerate(["run.cancelled", "run.failed"], 1):
            raw = body_of(provider_run_id, event=event)
            assert post(url, raw, sign(raw)).status_code == 200
            until(lambda n=n: s.stats()["polls"] == n)
        s.let_go()
        assert run.wait(60).status == "succeeded"


def test_a_call_that_comes_between_two_looks_is_found_once(ledger, where):
    """Among the events of its run, and not again among the calls of all."""
    with ledger.writing() as transaction:
        transaction.insert(make_record(id="k0000001"))
    other, found, looks, look, events = Ledger(where), [], [], ledger.callbacks, ledger.events

    def counted(after):
        looks.append(after)
        return look(after)

    def late(run_id):
        other.note_callback(run_id, "run.completed")
        return events(run_id)

    ledger.callbacks, ledger.events = counted, late
    job = SimpleNamespace(record=make_record(id="k0000001"), ledger=ledger, clock=Clock(), wait_s=lambda _: 0)

    async def main():
        callbacks = Callbacks(found.append)
        callbacks.expect(job)
        await asyncio.to_thread(until, lambda: len(looks) > 4)
        callbacks.close()

    asyncio.run(main())
    other.close()
    assert found == ["k0000001"]


@pytest.mark.parametrize("times", [1, 2])
def test_the_same_call_again_does_nothing(stage, times):
    """At-least-once delivery, and an organisation's own webhook, cost one read in all."""
    s = deaf_stage(stage, faults={"runflow.callback_twice": times - 1})
    with receiving(s.ledger) as url:
        run = sent_to(s, url)
        until(lambda: run.provider_run_id)
        s.let_go()
        run.wait(60)
        until(lambda: s.stats()["callbacks"] == times)
        raw = body_of(run.provider_run_id)
        assert post(url, raw, sign(raw)).text == "Known already.\n"
    assert calls(s, run) == 1
    assert s.stats()["polls"] == 1


def test_a_receiver_that_cannot_note_it_is_called_again(stage):
    """While the ledger cannot be used it answers 503, and the provider's next attempt is taken."""
    s = deaf_stage(stage)
    left = [LedgerError("busy"), LedgerError("busy")]

    def ledger():
        if left:
            raise left.pop()
        return s.ledger

    with receiving(ledger) as url:
        run = sent_to(s, url)
        until(lambda: run.provider_run_id)
        s.let_go()
        assert run.wait(60).status == "succeeded"
    assert s.stats()["callbacks"] == 3


# -- what is not taken --------------------------------------------------------------------
@pytest.mark.parametrize("fault", [{"runflow.callback_tampered": 1}, {"runflow.callback_secret": "another"}])
def test_a_call_that_is_not_signed_by_the_secret_changes_nothing(stage, fault):
    """Tampered with, or signed with another secret: 401; the run ends as it does without callbacks."""
    s = stage(faults=fault)
    with receiving(s.ledger) as url:
        run = sent_to(s, url)
        assert run.wait(60).status == "succeeded"
        until(lambda: s.stats()["callbacks"])
    assert calls(s, run) == 0


def test_while_one_secret_takes_anothers_place_both_count(stage):
    """Rotation: a call that is signed with the older of two is taken."""
    s = deaf_stage(stage)
    with receiving(s.ledger, "the-new-one", SECRET) as url:
        run = sent_to(s, url)
        until(lambda: run.provider_run_id)
        s.let_go()
        assert run.wait(60).status == "succeeded"


def test_what_a_receiver_answers(stage):
    """No secret 404, no signature 401, no callback 400, nobody's run 200, too large 413."""
    s = stage()
    ours = body_of("0192f0c1")
    with receiving(s.ledger) as url:
        assert post(url, ours, "").status_code == 401
        assert post(url, ours, "é" * 64).status_code == 401
        assert post(url, b"[1]", sign(b"[1]")).status_code == 400
        assert post(url, b"\xff", sign(b"\xff")).status_code == 400
        assert post(url, b"[" * 100_000, sign(b"[" * 100_000)).status_code == 400
        assert post(url, ours, sign(ours)).text == "No such run here.\n"
        large = b" " * (MAX_BYTES + 1)
        assert post(url, large, sign(large)).status_code == 413
        assert post(url, iter([large]), sign(large)).status_code == 413
        assert httpx.get(url, trust_env=False).status_code == 405
    assert Receiver(lambda: s.ledger, secrets=secrets_of()).take(ours, sign(ours)).status == 404


def test_more_calls_than_a_study_makes_are_asked_to_wait():
    """The calls of a sweep's end are all taken; who calls without end is told when to come again."""
    now = [0.0]
    receiver = Receiver(lambda: None, secrets=secrets_of(SECRET), clock=lambda: now[0])
    answers = [receiver.refuses(10) for _ in range(1001)]
    assert answers[:1000] == [None] * 1000
    assert (answers[1000].status, answers[1000].retry_after_s) == (429, 1)
    now[0] = 1.0
    assert receiver.refuses(10) is None


def test_another_accounts_run_is_not_taken_for_ours_by_its_metadata(stage):
    """Our own id in a call counts only while that run has no id of its provider's."""
    s = deaf_stage(stage)
    with receiving(s.ledger) as url:
        run = sent_to(s, url)
        until(lambda: run.provider_run_id)
        raw = body_of("another", ours=run.id)
        assert post(url, raw, sign(raw)).text == "No such run here.\n"
        s.let_go()
        run.wait(60)


# -- where it is served -------------------------------------------------------------------
def test_the_command_serves_and_names_its_address(stage, monkeypatch):
    """`kling-nb callbacks serve` prints where it listens; without a secret it says what is missing."""
    s = deaf_stage(stage)
    command = [sys.executable, "-m", "kling_nb", "callbacks", "serve", "--port", "0"]
    bare = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (bare.returncode, bare.stdout) == (2, "")
    assert "KLING_NB_CALLBACK_SECRETS" in bare.stderr
    monkeypatch.setenv("KLING_NB_CALLBACK_SECRETS", SECRET)
    monkeypatch.setenv("KLING_NB_LEDGER", str(s.folder / "ledger.db"))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as serving:
        try:
            url = json.loads(serving.stdout.readline())["url"]
            run = sent_to(s, url)
            until(lambda: run.provider_run_id)
            s.let_go()
            assert run.wait(60).status == "succeeded"
        finally:
            serving.terminate()
    assert calls(s, run) == 1


def test_jupyter_server_takes_calls_without_a_login(stage, tmp_path, monkeypatch):
    """The route that is installed with the package is there, off without a secret, and needs no token."""
    s = deaf_stage(stage)
    installed = tmp_path / "jupyter" / "jupyter_server_config.d"
    installed.mkdir(parents=True)
    shutil.copy(ROOT / "kling_nb" / "team" / "jupyter_server_config.json", installed / "kling_nb.json")
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(installed.parent))
    ours = {"KLING_NB_CALLBACK_SECRETS": SECRET, "KLING_NB_LEDGER": str(s.folder / "ledger.db")}
    off = Server(tmp_path, "lab")
    try:
        assert post(f"{off.base}/{PATH}", b"{}", "").status_code == 404
    finally:
        off.stop()
    server = Server(tmp_path, "lab", ours)
    try:
        url = f"{server.base}/{PATH}"
        run = sent_to(s, url)
        until(lambda: run.provider_run_id)
        assert post(url, b"{}", "").status_code == 401
        large = b" " * (MAX_BYTES + 1)
        assert post(url, large, sign(large)).status_code == 413
        s.let_go()
        assert run.wait(60).status == "succeeded"
    finally:
        server.stop()
    assert calls(s, run) == 1


# -- where the address comes from ---------------------------------------------------------
ADDRESS = "http://127.0.0.1:9/kling/callbacks/runflow"


def test_the_address_goes_to_the_provider_that_calls_and_into_no_receipt(build):
    """Named by the call or by the settings; RunComfy, which calls nobody, is not told it."""
    house = build()
    session = house.session()
    house.set(CALLBACK_URL=ADDRESS)
    named = ADDRESS.replace("runflow", "mine")
    by_setting = house.run(session, ask_for("one", duration=3, provider="runflow"))
    by_call = house.run(session, ask_for("two", duration=3, provider="runflow", callback_url=named))
    other = house.run(session, ask_for("three", duration=3, provider="runcomfy", callback_url=named))
    assert [run.record.callback_url for run in (by_setting, by_call, other)] == [ADDRESS, named, None]
    until(lambda: house.stats()["callbacks"] >= 2)
    for run in (by_setting, by_call):
        assert run.status == "succeeded"
        assert "127.0.0.1:9/" not in house.sidecar(run)
        assert "callback" not in json.dumps(to_receipt(run.record))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://hub.example.org/x", "must begin with https"),
        ("https://ada:secret@hub.example.org/x", "user name or password"),
        ("https://hub.example.org/x?token=secret", "no query"),
        ("hub.example.org", "not a plain http or https one"),
        ("https://hub.example.org/" + "x" * 2048, "at most 2,048 characters, not 2,072"),
    ],
)
def test_an_address_that_cannot_be_kept_is_refused_before_anything_is_sent(build, address, words):
    """By the call, the flag, the form and the settings, in one sentence that does not repeat it."""
    house = build()
    session = house.session()
    with pytest.raises(UsageError, match=words) as by_call:
        session.open(ask_for("one", callback_url=address))
    with pytest.raises(UsageError, match=words) as by_flag:
        parse_request(["--callback-url", address], "one", {}, folder=house.folder)
    by_form = read(blank() | {"prompt": "one", "callback_url": address}).problems["callback_url"]
    house.set(CALLBACK_URL=address)
    with pytest.raises(SettingsError, match=words) as by_setting:
        session.open(ask_for("one"))
    for said in (str(by_call.value), str(by_flag.value), by_form, str(by_setting.value)):
        assert "example" not in said
        assert "secret" not in said.replace("hold a secret", "")
    assert house.submissions == 0


def test_a_form_writes_the_address_into_its_cell():
    """What the form holds is what the cell that it writes asks for."""
    ask = read(blank() | {"prompt": "one", "callback_url": ADDRESS}).ask
    assert ask.callback_url == ADDRESS
    line, body = as_cell(ask).split("\n", 1)
    assert parse_request(shlex.split(line)[1:], body, {}, folder=Path())[1]["callback_url"] == ADDRESS


def test_a_secret_of_callbacks_is_a_secret(build):
    """It is no unknown setting, stands in no repr, and a prompt that holds it is refused."""
    house = build()
    secret = "whsec-2f6c91d0a7b34e5f"
    house.set(CALLBACK_SECRETS=f"{secret}, another-one-8d1f")
    session = house.session()
    assert secret not in repr(session.settings())
    assert not session.settings().notes
    with pytest.raises(UsageError, match="Callback key") as error:
        session.open(ask_for(f"A fox that says {secret}"))
    assert secret not in str(error.value)
    assert house.submissions == 0


def test_the_words_of_a_private_run_are_in_no_call(build):
    """Its metadata is hashed on its way out, so what comes back cannot tell it."""
    house = build(faults={"runflow.callback_secret": SECRET})
    heard = []

    class Hearing(Receiver):
        def take(self, raw, signature):
            heard.append(raw)
            return super().take(raw, signature)

    session = house.session()
    with receiving(Hearing(session.ledger, secrets=secrets_of(SECRET))) as url:
        asked = ask_for(
            "one",
            duration=3,
            provider="runflow",
            private=True,
            metadata={"shoot": "harbour"},
            callback_url=url,
        )
        assert house.run(session, asked).status == "succeeded"
        until(lambda: heard)
    assert b"kling_nb" in heard[0]
    assert b"harbour" not in heard[0]


def test_the_sandbox_calls_nobody_but_this_machine(stage):
    """A run that names an address elsewhere ends as any other, and nothing is sent there."""
    s = stage()
    assert sent_to(s, "https://hub.example.org/kling/callbacks/runflow").wait(60).status == "succeeded"
    until(lambda: s.sandbox.provider.counts["runflow.callbacks_kept"] == 1)
    assert s.stats()["callbacks"] == 0
