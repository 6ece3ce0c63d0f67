"""The dry run shows what a cell would do, and writes the same call for elsewhere, safely quoted."""

import json
import os
import shlex
import stat
import subprocess
import sys
import types
from decimal import Decimal
from pathlib import Path

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kling_nb.commands.dry_run import as_curl, as_python, show_plan
from kling_nb.commands.syntax.cell import parse_cell
from kling_nb.providers.messages import Call
from kling_nb.records.request import make_request
from kling_nb.records.run import RunStatus
from kling_nb.session.plan import Ask
from support.sessions import KEY, ask


def order_of(line):
    return parse_cell(line, "A red fox in snow", {}, folder=Path())


def test_a_dry_run_shows_money_takes_and_payloads_and_sends_nothing(session):
    """Price and basis, what is reused and what is new, the budget left, and the exact body by provider."""
    session.open(ask())[0].wait(60)
    order = order_of("-d 3 -n 3 --dry-run --max-cost 0.50")
    shown = show_plan(session.plan(ask(takes=order.ask.takes, max_cost=order.ask.max_cost)), order, session)
    assert shown.value["takes"] == {0: "reused", 1: "new", 2: "new"}
    assert shown.value["would_cost_usd"] == "0.672"
    for words in (
        "nothing was sent",
        "2 x $0.336 = $0.672",
        "$0.112/s silent",
        "more than its --max-cost of $0.50",
        "$9.664 left",
        '"generate_audio": false',
        '"sound": false',
    ):
        assert words in shown.text, words
    assert len(session.ledger().runs()) == 1


def test_a_dry_run_of_one_new_take_has_no_table(session):
    """Its price says all of it."""
    shown = show_plan(session.plan(ask()), order_of("-d 3 --dry-run"), session)
    assert "It would cost $0.336 of play money. Basis: " in shown.text
    assert "would be" not in shown.text


def test_a_dry_run_says_why_a_take_is_blocked_and_a_provider_refuses(session):
    """A refusal is part of the answer, not an exception."""
    run = session.open(ask())[0].wait(60)
    lost = run.record.model_copy(update={"status": RunStatus.LOST, "media": None, "charged": "unknown"})
    with session.ledger().writing() as transaction:
        transaction.write(lost, "test")
    shown = show_plan(session.plan(ask()), order_of("-d 3 --dry-run"), session)
    assert shown.value["takes"] == {0: "blocked"}
    assert run.id in shown.text
    assert shown.value["would_cost_usd"] == "0.00"
    board = Ask(request=make_request(shots=[{"prompt": "a", "duration": 2}, {"prompt": "b", "duration": 3}]))
    shown = show_plan(session.plan(board), order_of("--dry-run"), session)
    assert "RunComfy takes shots of 3 s or more" in shown.text
    assert '"generate_audio": false' in shown.text
    assert "RunComfy takes shots" in show_plan(session.plan(board), order_of("--as curl"), session).text


def test_an_unknown_price_is_a_word_and_shows_what_would_be_held(make_session, monkeypatch):
    """Runflow states no price with sound: the dry run says unknown, and what going on would reserve."""
    monkeypatch.setenv("RUNFLOW_API_KEY", KEY)
    session = make_session()
    request = make_request(prompt="A red fox", duration=5, audio=True)
    plan = session.plan(Ask(request=request, provider="runflow", allow_unpriced=True))
    shown = show_plan(plan, order_of("--dry-run"), session)
    assert shown.value["would_cost_usd"] is None
    assert "It would cost unknown." in shown.text
    assert "Nobody knows the price. With --allow-unpriced it would reserve $0.84." in shown.text


SHARP = st.sampled_from("'\"`$!\\;|&<>(){}*?#~ \n\t\r\x00\x1b\u202e\u2028\U0001f98a")
PROMPTS = st.text(SHARP | st.characters(exclude_categories=["Cs"]), max_size=60)
PLACE = "https://api.example.com/v1"


@given(prompt=PROMPTS)
def test_the_curl_command_is_one_command_for_any_prompt(prompt):
    """Read as a shell reads it, the command has exactly its own words, and the body is the payload."""
    payload = {"prompt": prompt, "duration": "3"}
    call = Call(method="POST", url=PLACE, json=payload, headers={"Idempotency-Key": "a b"})
    text = as_curl(call, "RUNFLOW_API_KEY")
    # Python's reader of shell words knows no continued lines.
    words = shlex.split(text.replace("\\\n", ""))
    head = ["curl", "--fail-with-body", "--silent", "--show-error", "--request", "POST", PLACE]
    names = [
        "Authorization: Bearer $RUNFLOW_API_KEY",
        "Idempotency-Key: a b",
        "Content-Type: application/json",
    ]
    assert words[:7] == head
    assert words[7:-2] == [word for name in names for word in ("--header", name)]
    assert words[-2] == "--data-raw"
    assert json.loads(words[-1]) == payload
    body = text[text.index("--data-raw '") + 12 : -1]
    assert body.isprintable()
    assert "'" not in body
    assert "!" not in body


def test_a_shell_runs_the_curl_command_and_nothing_of_the_prompt(tmp_path):
    """Pasted into bash, hostile prompts arrive as data: nothing of theirs is run or filled in."""
    fake = tmp_path / "curl"
    dump = f"json.dump(sys.argv[1:], open({str(tmp_path / 'argv')!r}, 'w'))"
    fake.write_text(f"#!{sys.executable}\nimport json, sys\n{dump}\n", encoding="utf-8")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    for prompt in (
        "'; touch owned; '",
        "$(touch owned) `touch owned` $HOME ${HOME}",
        '"; touch owned #\n touch owned\n!touch',
        "\\'; touch owned; \\",
        "@/etc/passwd {a,b} * ~ \x1b[31m \u202e",
    ):
        call = Call(method="POST", url=PLACE, json={"prompt": prompt})
        script = as_curl(call, "RUNFLOW_API_KEY")
        environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RUNFLOW_API_KEY": KEY}
        subprocess.run(["bash", "-c", script], check=True, cwd=tmp_path, env=environ, timeout=30)
        argv = json.loads((tmp_path / "argv").read_text(encoding="utf-8"))
        assert json.loads(argv[-1]) == {"prompt": prompt}
        assert f"Authorization: Bearer {KEY}" in argv
    assert not (tmp_path / "owned").exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=PROMPTS)
def test_the_python_program_sends_the_same_payload_for_any_prompt(monkeypatch, prompt):
    """Run, the program calls httpx once: method, address, the key from the environment, and the body."""
    payload = {"input": {"prompt": prompt, "audio": False, "cfg_scale": 0.5, "shots": None}}
    call = Call(method="POST", url=PLACE, json=payload, headers={"Idempotency-Key": "a"})
    seen = []

    def request(method, url, **options):
        seen.append((method, url, options))
        return types.SimpleNamespace(status_code=201, text="")

    monkeypatch.setattr(httpx, "request", request)
    monkeypatch.setenv("THE_KEY", "k")
    exec(compile(as_python(call, "THE_KEY"), "program", "exec"), {})
    headers = {"Authorization": "Bearer k", "Idempotency-Key": "a"}
    assert seen == [("POST", call.url, {"headers": headers, "json": payload, "timeout": 60})]


def test_the_equivalent_call_goes_to_the_named_provider_without_the_key(make_session, monkeypatch):
    """`--as` writes the chosen provider's own call at its address; at the sandbox, all real ones'."""
    monkeypatch.setenv("RUNCOMFY_TOKEN", KEY)
    session = make_session()
    order = order_of("-d 3 --as curl -p runcomfy")
    text = show_plan(session.plan(ask(provider="runcomfy")), order, session).text
    assert "https://model-api.runcomfy.net/v1/models/kling/kling-3.0/pro/text-to-video" in text
    assert "$RUNCOMFY_API_TOKEN" in text
    assert "api.runflow.io" not in text
    assert KEY not in text
    text = show_plan(session.plan(ask(provider="sandbox")), order_of("-d 3 --as python"), session).text
    assert "api.runflow.io" in text
    assert "model-api.runcomfy.net" in text
    assert "os.environ['RUNFLOW_API_KEY']" in text


def test_money_in_the_dry_run_is_exact(session):
    """`--max-cost` is compared as decimals: the exact sum is within, a millionth less is not."""
    plan = session.plan(ask(takes=(0, 1)))
    assert plan.micros == 672_000
    for cap, words in ((Decimal("0.672"), "within its"), (Decimal("0.671999"), "more than its")):
        capped = session.plan(ask(takes=(0, 1), max_cost=cap))
        assert words in show_plan(capped, order_of("-d 3 --dry-run"), session).text
    assert "refused" not in show_plan(plan, order_of("-d 3 --dry-run"), session).text
    session.configure({"budget": "0.50"})
    plan = session.plan(ask(takes=(0, 1)))
    assert (
        "It would be refused: 2 x $0.336 = $0.672 does not fit"
        in show_plan(plan, order_of("-d 3"), session).text
    )
