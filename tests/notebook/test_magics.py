"""The magics in a real kernel, as a page speaks to it: loading, settings, names, completion, interrupts."""

import re
import subprocess
import sys
import tomllib

import pytest

from kling_nb.notebook import magics
from support.kernels import KEY, WATCHFUL, kernel_in, let_go, sandbox_beside, short_words
from support.paths import ROOT


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    """A ledger of the test's own, and a sandbox that keeps nobody waiting."""
    monkeypatch.setenv("KLING_NB_LEDGER", str(tmp_path / "ledger.db"))
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "0")


@pytest.fixture
def kernel(tmp_path):
    """A fresh kernel with the magics loaded."""
    with kernel_in(tmp_path) as started:
        assert started.run("%load_ext kling_nb").status == "ok"
        yield started


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """A fresh kernel at a sandbox whose clips take minutes."""
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "60")
    with kernel_in(tmp_path) as started:
        assert started.run("%load_ext kling_nb").status == "ok"
        yield started


# -- loading ------------------------------------------------------------------------------
def test_an_old_ipython_that_is_still_loaded_is_said_in_one_line(tmp_path):
    """As in Colab after an installation: the extension refuses before it touches anything."""
    with kernel_in(tmp_path) as kernel:
        kernel.run("import IPython; IPython.version_info, IPython.__version__ = (7, 34, 0, ''), '7.34.0'")
        refused = kernel.run("%load_ext kling_nb")
        assert refused.status == "error"
        line = short_words(refused.reply)
        assert "IPython 7.34.0 is loaded" in line
        assert "Restart the runtime" in line
        assert "kling" not in kernel.value("list(get_ipython().magics_manager.magics['cell'])")
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    assert "ipython>=" + ".".join(map(str, magics._NEEDED)) in wanted


def test_a_terminal_that_cannot_write_a_letter_shows_its_escape(monkeypatch):
    """IPython in a console of few letters: a command ends well."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    lines = "%load_ext kling_nb\n%kling estimate \u72d0.ipynb"
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--colors=NoColor", "-c", lines],
        capture_output=True,
        text=True,
        encoding="ascii",
        timeout=90,
        check=False,
    )
    assert "\\u72d0" in done.stdout + done.stderr
    assert "UnicodeEncodeError" not in done.stdout + done.stderr


def test_load_reload_and_unload(kernel):
    """A second load says so, a reload leaves one magic of each kind, an unload leaves none."""
    assert "already loaded" in kernel.run("%load_ext kling_nb").text
    for _ in range(2):
        assert kernel.run("%reload_ext kling_nb").status == "ok"
    counted = (
        "(lambda ip: [[m.matcher_identifier for m in ip.Completer.custom_matchers].count('kling_nb'),"
        " [getattr(t, '__name__', '') for t in ip.input_transformers_cleanup].count('shield'),"
        " [type(c).__name__ for c in ip.configurables].count('KlingMagics'),"
        " len(ip.events.callbacks['post_run_cell'])])(get_ipython())"
    )
    *here, hooks = kernel.value(counted)
    assert here == [1, 1, 1]
    assert kernel.run("%%kling fox -d 3\nA fox").status == "ok"
    # One hook loads modules between cells; from the first use on one more is for cells that nobody watches.
    assert kernel.value(counted) == [1, 1, 1, hooks + 1]
    kernel.run("%reload_ext kling_nb")
    assert kernel.run("%%kling fox -d 3\nA fox").status == "ok"
    assert kernel.value(counted) == [1, 1, 1, hooks + 1]
    assert kernel.run("%unload_ext kling_nb").status == "ok"
    assert kernel.value(counted) == [0, 0, 0, hooks - 1]
    # IPython itself says this, as one line.
    assert "`%kling` not found" in kernel.run("%kling list").text
    assert kernel.value("fox.wait(60).status.value") == "succeeded"


def test_a_reload_orphans_no_run(tmp_path, monkeypatch):
    """A run that is on its way when the extension is reloaded ends, and its card says so."""
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "60")
    with kernel_in(tmp_path) as kernel:
        kernel.run(WATCHFUL)
        assert kernel.run("%%kling fox -d 3\nA fox").status == "ok"
        kernel.run("%reload_ext kling_nb")
        assert kernel.value("fox.done") is False
        assert kernel.run(let_go(1)).status == "ok"
        kernel.wait_display("Done")
        assert kernel.value("[fox.status.value, fox.path.is_file()]") == ["succeeded", True]
        # Still the same session: the same request is not sent again.
        kernel.run("%%kling again -d 3\nA fox")
        assert kernel.value("[again.id == fox.id, again.reused]") == [True, True]


@pytest.mark.parametrize("first", ["autoreload", "kling_nb"])
def test_autoreload_leaves_the_package_alone(tmp_path, first):
    """Files of ours that changed on disk, as by an upgrade, are not loaded anew under a finished run."""
    second = {"autoreload": "kling_nb", "kling_nb": "autoreload"}[first]
    with kernel_in(tmp_path, new=True) as kernel:
        kernel.run(f"%load_ext {first}\n%load_ext {second}\n%autoreload 2")
        kernel.run("%%kling fox -d 3\nA fox")
        kernel.run("fox.wait(60)\nfrom kling_nb.engine.run import Run\nimport json, sys")
        kernel.run(
            "times = get_ipython().magics_manager.registry['AutoreloadMagics']._reloader.modules_mtimes\n"
            "times.update({name: 0 for name in sys.modules if name.startswith(('kling_nb', 'json'))})"
        )
        # What is no module of ours is reloaded as before: the trick of the test works.
        kernel.run("json.marked = True")
        assert kernel.value("[type(fox) is Run, sys.modules['kling_nb.engine.run'].Run is Run]") == [
            True,
            True,
        ]
        assert kernel.value("times['json'] > 0 and times['kling_nb.engine.run'] == 0") is True
        assert "Done" in kernel.run("fox").text


def test_a_setting_holds_for_the_next_python_call_too(kernel):
    """`%config` counts for `kling.submit` and the rest at once, with no magic between and none before."""
    kernel.run('%config KlingMagics.budget = "0.40"\nimport kling_nb as kling')
    assert kernel.value("kling.spend().cap") == "0.40"
    kernel.run('%config KlingMagics.budget = "0.10"')
    refused = kernel.run("kling.submit('A fox', duration=3)")
    assert "BudgetError" in "".join(refused.error)
    assert kernel.value("len(kling.runs())") == 0


def test_settings_are_listed_take_effect_and_outlive_a_reload(kernel):
    """`%config KlingMagics` explains each setting, and what is set there holds until it is set anew."""
    shown = kernel.run("%config KlingMagics").text
    assert "Dollars this session may spend" in shown
    assert "KlingMagics.sandbox_wait" in shown
    kernel.run('%config KlingMagics.budget = "0.40"')
    assert kernel.run("%%kling fox -d 3\nA fox").status == "ok"
    refused = kernel.run("%%kling hare -d 3\nA hare")
    assert refused.status == "error"
    assert "play budget of $0.40" in short_words(refused.reply)
    kernel.run("%reload_ext kling_nb")
    assert "play budget of $0.40" in short_words(kernel.run("%%kling hare -d 3\nA hare").reply)
    kernel.run("%config KlingMagics.budget = 0.7")
    assert kernel.run("%%kling hare -d 3\nA hare").status == "ok"
    assert kernel.value("hare.wait().status.value") == "succeeded"
    refused = kernel.run('%config KlingMagics.provider = "veo"')
    assert "provider must be 'auto'" in refused.text
    assert kernel.value("get_ipython().magics_manager.registry['KlingMagics'].provider") is None


def test_help_and_completion(kernel):
    """`%%kling?` and `%%kling --help` explain, and Tab offers flags in a line and nothing of ours below."""
    assert "Make a video from the text below the line" in kernel.run("%%kling?").page
    for cell in ("%%kling --help", "%%kling fox -d 3 -h\n", "%kling help", "%kling"):
        answer = kernel.run(cell)
        assert answer.status == "ok"
        assert "--max-cost USD" in answer.text
    assert kernel.value("'fox' in globals()") is False
    offers = kernel.complete("%%kling fox --")
    assert {"--duration", "--max-cost", "--dry-run"} <= set(offers)
    assert all(offer.startswith("--") for offer in offers)
    assert kernel.complete("%%kling fox --ar ") == ["16:9", "9:16", "1:1"]
    assert kernel.complete("%kling canc") == ["cancel"]
    assert "%%kling" in kernel.complete("%%kl")
    body = "%%kling fox\npri"
    assert "--price" not in kernel.complete(body)


def test_terminal_ipython_lets_the_body_be_typed():
    """A lone `%%kling` line is not complete: in a terminal, more is being typed."""
    code = (
        "from IPython.core.interactiveshell import InteractiveShell as S\n"
        "ip = S.instance()\n"
        "ip.run_line_magic('load_ext', 'kling_nb')\n"
        "print(ip.check_complete('%%kling fox')[0], ip.check_complete('%%kling fox\\nA fox\\n\\n')[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["incomplete", "complete"]


# -- what reaches us -------------------------------------------------------------------------
def test_prices_and_braces_arrive_as_typed(kernel):
    """IPython would turn `$0.70` into `0.7` and fill in braces; only `{{name}}` of the body is filled in."""
    kernel.run("x = 7")
    line = "--max-cost $0.70 --tag note=$x{x} --negative 'costs $x {x} $0.70'"
    body = "It costs $x {x} $0.70 {{x}}, 100% {sure} \\n"
    answer = kernel.run(f"%%kling fox -d 3 {line}\n{body}")
    assert answer.status == "ok", answer.error
    assert kernel.value(
        "[fox.record.request.prompt, fox.record.request.negative_prompt, fox.record.tags]"
    ) == [
        "It costs $x {x} $0.70 7, 100% {sure} \\n",
        "costs $x {x} $0.70",
        {"note": "$x{x}"},
    ]


def test_habits_do_not_make_another_clip(kernel):
    """Semicolons, spaces, empty lines and other ways of naming change nothing about the request."""
    assert kernel.run("%%kling first -d 3\nA fox").status == "ok"
    assert kernel.run("first.wait(60)").status == "ok"
    for cell in (
        "%%kling fox -d 3 ;\nA fox",
        "%%kling fox -d 3   \nA fox\n\n   \n",
        "%%kling fox << -d 3\nA fox",
        "%%kling --out fox -d3\nA fox",
        "\n\n%%kling fox -d 3\n\n  A fox",
        "# the better take\n\n  # of two\n%%kling fox -d 3\nA fox",
        "%%kling fox -d 3 --wait\nA fox",
        "%%kling fox -d 3\r\nA fox\r\n",
    ):
        answer = kernel.run(cell)
        assert answer.status == "ok", (cell, answer.error)
        assert kernel.value("[fox.id == first.id, fox.record.request.prompt]") == [True, "A fox"], cell
        assert kernel.run("del fox").status == "ok"


def test_a_file_needs_no_body(kernel, tmp_path):
    """A prompt from a file leaves nothing to type below the line, not even an empty line."""
    (tmp_path / "fox.txt").write_text("A fox from a file\n", encoding="utf-8")
    answer = kernel.run("%%kling fox -d 3 -f fox.txt")
    assert answer.status == "ok", answer.error
    assert kernel.value("fox.prompt") == "A fox from a file"


# -- names ------------------------------------------------------------------------------------
def test_the_name_is_bound_whatever_happens(kernel):
    """After success, refusal and several takes, the variable and `kling.last` hold what explains itself."""
    kernel.run("import kling_nb as kling")
    assert kernel.run("%%kling fox -d 3\nA fox").status == "ok"
    assert kernel.value("[type(fox).__name__, kling.last is fox, fox.wait(60).path.name[:5]]") == [
        "Run",
        True,
        "a-fox",
    ]
    assert kernel.run("%%kling pair -n 2 -d 3\nA pair").status == "ok"
    assert kernel.value("[type(pair).__name__, len(pair), kling.last is pair]") == ["Runs", 2, True]
    answer = kernel.run("%%kling pair -d 99\nA pair")
    assert "Nothing was sent." in short_words(answer.reply)
    assert kernel.value("[pair.status, str(pair.error) in repr(pair), kling.last is pair]") == [
        "refused",
        True,
        True,
    ]
    assert kernel.run("%%kling\nNameless -d 3").status == "ok"
    assert kernel.value("kling.last.prompt") == "Nameless -d 3"
    assert kernel.run("pair.result()").reply["ename"] == "UsageError"


def test_a_failed_run_binds_its_name_too(tmp_path, monkeypatch):
    """With `--wait`, a run that ends without a clip is one line, and its variable is the run."""
    with sandbox_beside(faults=["run_failed=1"]) as provider:
        for name, value in provider.environment("runcomfy").items():
            monkeypatch.setenv(name, value)
        with kernel_in(tmp_path) as kernel:
            kernel.run("%load_ext kling_nb")
            # Watched and not waiting: the cell itself ends well, and the card tells the rest.
            assert kernel.run("%%kling fox -d 3\nA fox").status == "ok"
            kernel.run("fox.wait(60)")
            answer = kernel.run("%%kling fox -d 3 --retry --wait\nA fox")
            assert answer.reply["ename"] == "RunFailedError"
            assert "Charged:" in short_words(answer.reply)
            assert kernel.value("[fox.status.value, fox.video]") == ["failed", None]
            assert KEY not in str(kernel.displays) + str(answer.reply)
        assert provider.counts() == (2, 2)


def test_the_magic_returns_none(kernel):
    """What a cell makes is held by its variable alone, so `_` and `Out` keep no second handle."""
    kernel.run("given = get_ipython().run_cell_magic('kling', 'fox -d 3', 'A fox')")
    assert kernel.value("[given, fox.prompt]") == [None, "A fox"]
    assert kernel.run("%%kling fox -d 3\nA fox").status == "ok"
    outputs = kernel.run("%%kling fox -d 3\nA fox").outputs
    assert not [content for content in outputs if "execution_count" in content]


# -- waiting ------------------------------------------------------------------------------------
#: Interrupts the kernel as the stop button does, once its main thread stands in one of our waits.
STOP = """
import os, signal, sys, threading, time
def _stop(main):
    while True:
        frame = sys._current_frames()[main]
        while frame is not None:
            if frame.f_code.co_name == 'wait' and 'kling_nb' in frame.f_code.co_filename:
                return os.kill(os.getpid(), signal.SIGINT)
            frame = frame.f_back
        time.sleep(0.02)
threading.Thread(target=_stop, args=(threading.get_ident(),), daemon=True).start()
"""
#: The thread that awaits stands nowhere in the meantime: another one prints as soon as it waits.
AWAIT = """
import inspect, threading, time
async def waiting():
    await fox
waiting = waiting()
def tell():
    while inspect.getcoroutinestate(waiting) != inspect.CORO_SUSPENDED:
        time.sleep(0.02)
    print("begun")
threading.Thread(target=tell, daemon=True).start()
await waiting
"""


@pytest.mark.parametrize("cell", ["%%kling fox -d 3 --wait\nA fox", "%kling wait fox", "fox.wait()", AWAIT])
def test_an_interrupt_stops_the_waiting_and_nothing_else(slow, cell):
    """The stop button frees the notebook while the run is still in the queue, and the run goes on."""
    slow.run("%%kling fox -d 3\nA fox")
    if cell == AWAIT:
        message = slow.start(cell)
        slow.until_printed(message)
        slow.manager.interrupt_kernel()
        answer = slow.finish(message)
    else:
        slow.run(STOP)
        answer = slow.run(cell)
    assert answer.status == "error"
    if cell.startswith("%"):
        assert answer.reply["ename"] == "DetachedError"
        assert re.search("goes on|Nothing was canceled", short_words(answer.reply))
    else:
        run = slow.value("fox.id")
        assert answer.reply["traceback"] == [f"Interrupted. Run {run} goes on: `%kling wait {run}`."]
    assert slow.value("[fox.done, fox.detached, fox.status.pending]") == [False, False, True]
    assert slow.value("len(__import__('kling_nb').runs())") == 1
    assert "canceled" in slow.run("%kling cancel fox").text
    assert slow.value("fox.wait(60).status.value") == "canceled"


def test_an_interrupt_anywhere_in_a_magic_is_one_line(kernel):
    """Also where no wait expects it, the stop button ends a magic with words and without a traceback."""
    kernel.run("import kling_nb.notebook.line as commands\ndef stop(*_): raise KeyboardInterrupt")
    kernel.run("commands.run_command = stop")
    answer = kernel.run("%kling list")
    assert answer.reply["ename"] == "DetachedError"
    assert "%kling status" in short_words(answer.reply)


def test_a_submitting_cell_returns_while_its_run_goes_on(slow):
    """A watched cell does not wait: other cells run, and the strip of controls stands below the card."""
    answer = slow.run("%%kling fox -d 3\nA fox")
    assert answer.status == "ok"
    assert slow.value("fox.status.pending")
    kinds = [kind for content in answer.outputs for kind in content["data"]]
    assert "application/vnd.jupyter.widget-view+json" in kinds
    assert "text/html" in kinds


#: The run ends while its first card is on its way to the page.
LATE_CARD = """
import kling_nb as kling
run = kling.submit("A red fox", duration=3)
pub = get_ipython().display_pub
publish = pub.publish
def late(*args, **options):
    publish(*args, **options)
    run.wait(60)
pub.publish = late
run
"""


def test_a_run_that_ends_while_its_card_is_drawn_shows_its_end(tmp_path, monkeypatch):
    """However fast it is, the card does not stay at what it said first."""
    monkeypatch.setenv("KLING_NB_SANDBOX_WAIT", "0.5")
    with kernel_in(tmp_path) as kernel:
        kernel.run("%load_ext kling_nb")
        assert kernel.run(LATE_CARD).status == "ok"
        assert kernel.value("run.status.value") == "succeeded"
        assert "Done" in str(kernel.wait_display("Done"))
