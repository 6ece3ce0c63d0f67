"""Modules that a first run needs are loaded while nobody waits, and in no other moment."""

import json
import subprocess
import sys
import threading

import pytest

from kling_nb.notebook import warming
from support.workbench import until

SLOW = """
import threading
entered, leave = threading.Event(), threading.Event()
entered.set()
leave.wait(60)
"""


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """Modules in a row; the first takes until it is let go, by another thread that finds it half loaded."""
    names = ["kling_nb_slow_module", "kling_nb_next_module"]
    (tmp_path / f"{names[0]}.py").write_text(SLOW, encoding="utf-8")
    (tmp_path / f"{names[1]}.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield names
    for name in names:
        sys.modules.pop(name, None)


def entered(name):
    """Wait until a module has begun to be loaded."""
    return until(lambda: (module := sys.modules.get(name)) and getattr(module, "entered", None) and module)


def test_nothing_is_begun_while_a_cell_runs(slow):
    """What is being loaded as a cell begins is the last, and the rest follows after the cell."""
    made = warming.Warming(slow)
    made.cell_ends()
    module = entered(slow[0])
    made.cell_begins()
    module.leave.set()
    warming.wait()
    assert made.left == slow[1:]
    assert slow[1] not in sys.modules
    made.cell_ends()
    until(lambda: slow[1] in sys.modules)
    until(lambda: not made._thread.is_alive())


def test_our_cell_waits_for_what_is_half_loaded(slow):
    """No cell of ours loads a module beside the thread that has it half loaded."""
    made = warming.Warming(slow[:1])
    made.cell_ends()
    module = entered(slow[0])
    waiting = threading.Thread(target=warming.wait)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    module.leave.set()
    waiting.join(60)
    assert not waiting.is_alive()


def test_a_module_that_fails_is_the_cells_own_matter(slow):
    """An import that fails here stops nothing and says nothing; the cell that needs it says it."""
    made = warming.Warming(["kling_nb_of_no_such_name", slow[1]])
    made.cell_ends()
    until(lambda: slow[1] in sys.modules)


FORK = """
import multiprocessing, sys, threading
from kling_nb.notebook import warming
made = warming.Warming([sys.argv[1]])
made.cell_ends()
while not getattr(module := sys.modules.get(sys.argv[1]), "entered", None):
    pass
child = multiprocessing.get_context("fork").Process(target=__import__, args=(sys.argv[1],))
starting = threading.Thread(target=child.start)
starting.start()
starting.join(0.05)
assert starting.is_alive()
module.leave.set()
starting.join()
child.join()
sys.exit(child.exitcode)
"""


def test_no_process_is_forked_with_a_module_half_loaded(slow, tmp_path):
    """A child that was forked meanwhile can import the same module, and ends."""
    # In a process of its own: the threads of other tests, too, may hold something as it is forked.
    subprocess.run([sys.executable, "-c", FORK, slow[0]], cwd=tmp_path, timeout=60, check=True)


def test_every_module_is_there_to_be_loaded():
    """A module that has moved would be passed over in silence."""
    code = "from importlib import import_module; import sys; [import_module(name) for name in sys.argv[1:]]"
    subprocess.run([sys.executable, "-c", code, *warming._MODULES], check=True)


SESSION = """
import json, sys, threading, time
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.kernel = "a kernel"
before = set(sys.modules)
shell.run_cell("import kling_nb\\n%load_ext kling_nb\\nget_ipython().run_line_magic('pinfo', '%%kling')")
at_once = sorted({name.partition(".")[0] for name in set(sys.modules) - before})
end = time.monotonic() + 60
while [t for t in threading.enumerate() if t.name == "kling_nb warming"] and time.monotonic() < end:
    time.sleep(0.01)
threads = [t.name for t in threading.enumerate() if t.name.startswith("kling_nb")]
print(json.dumps([at_once, sorted(sys.modules), threads]))
"""


def test_loading_is_light_and_the_first_cell_finds_its_modules(tmp_path, monkeypatch):
    """Import, `%load_ext` and help bring no heavy package; soon a run's are there, and no ledger is."""
    ledger = tmp_path / "ledger.db"
    monkeypatch.setenv("KLING_NB_LEDGER", str(ledger))
    done = subprocess.run([sys.executable, "-c", SESSION], capture_output=True, text=True, check=True)
    at_once, later, threads = json.loads(done.stdout.splitlines()[-1])
    heavy = {"sqlalchemy", "pydantic", "httpx", "aiohttp", "av", "PIL", "anywidget", "lazy_loader", "tomllib"}
    assert set(at_once) & heavy == set()
    assert "kling_nb" in at_once
    assert set(warming._MODULES) | {"sqlalchemy", "pydantic", "httpx"} <= set(later)
    assert threads == []
    assert not ledger.exists()


FIRST = """
import sys
from importlib import import_module
import kling_nb as kling
from kling_nb.notebook.warming import _MODULES

for name in _MODULES:
    import_module(name)
before = set(sys.modules)
kling.submit("An owl", provider=sys.argv[1], duration=3).wait(60)
print(len(set(sys.modules) - before), "httpx" in before)
"""


def test_a_first_call_finds_loaded_what_it_needs(build):
    """Of hundreds of modules only those are loaded that depend on the kind of ledger and on certificates."""
    house = build()
    house.set(BUDGET=10)
    code, out, err = house.script(FIRST, "runflow")
    assert code == 0, err
    count, there = out.split()
    assert (int(count) < 20, there) == (True, "True")
