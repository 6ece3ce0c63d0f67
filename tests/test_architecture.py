"""The shape of the house: what may import what, how files are named and how long they grow."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from support.paths import ROOT

PACKAGE = ROOT / "kling_nb"
FILES = sorted(PACKAGE.rglob("*.py"))
FACES = ("kling_nb.cli", "kling_nb.notebook")
#: Who may know each: a bill splits a cell as IPython would.
NOTEBOOK_LIBRARIES = {
    "IPython": (*FACES, "kling_nb.commands"),
    **dict.fromkeys(("anywidget", "ipykernel", "ipywidgets", "traitlets"), FACES),
}
SAYS_NOTHING = {"common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}
MAX_LINES = 420
#: Of a folder, `__init__.py` counted.
MAX_FILES = 14
#: Words of an earlier private language; sentences may use them.
NO_NAMES = re.compile(
    r"_*(?:veil\w*|unveiled|hush|quietly|heard|echoes|stranger\w*|told|rouse|Wish|Wallet|Opening|Desk|Hands|Paper"
    r"|lots|nought|anew|dearest)"
)


@pytest.fixture(scope="module")
def graph():
    """Who imports whom, also what is imported inside functions or for the type checker only."""
    return grimp.build_graph("kling_nb", include_external_packages=True, cache_dir=None)


def test_imports_point_down_the_layers():
    """Every contract of `[tool.importlinter]` holds, and every module has its place in one."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_only_faces_know_the_notebook(graph):
    """A script or a server uses everything below the faces without IPython or widgets."""
    importers = {
        (importer, library)
        for library in NOTEBOOK_LIBRARIES.keys() & graph.modules
        for importer in graph.find_modules_that_directly_import(library)
        if not importer.startswith(NOTEBOOK_LIBRARIES[library])
    }
    assert importers == set()
    assert len(graph.modules) > 50


def test_names_say_what_is_inside():
    """No file or folder of the package has a name that could hold anything."""
    parts = {part for file in FILES for part in file.relative_to(PACKAGE).with_suffix("").parts}
    assert {part for part in parts if part.strip("_") in SAYS_NOTHING} == set()
    assert len(parts) > 20


def test_names_are_the_fields_words():
    """No variable, parameter, attribute, function or class has a name of the private language."""
    names = set()
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            fields = (getattr(node, field, None) for field in ("id", "arg", "attr", "name", "asname"))
            names.update(name for name in fields if isinstance(name, str))
    assert {name for name in names if NO_NAMES.fullmatch(name)} == set()
    assert len(names) > 5_000


def test_docstrings_name_the_parameters_there_are():
    """What stands under `Args:` of a function is a parameter of it."""
    wrong, count = [], 0
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            known = {arg.arg for arg in ast.walk(node.args) if isinstance(arg, ast.arg)}
            section = re.search(
                r"^Args:\n((?:    .*\n|\n)+)", f"{ast.get_docstring(node) or ''}\n", re.MULTILINE
            )
            listed = re.findall(r"^    \*{0,2}(\w+):", section[1], re.MULTILINE) if section else []
            wrong += [f"{file.name}: {node.name}: {name}" for name in listed if name not in known]
            count += len(listed)
    assert wrong == []
    assert count > 500


def test_folders_stay_small():
    """A folder of the package can be taken in at a glance; its root holds eight files."""
    counts = {folder: len(list(folder.glob("*.py"))) for folder in {file.parent for file in FILES}}
    assert {str(folder): count for folder, count in counts.items() if count > MAX_FILES} == {}
    assert counts[PACKAGE] <= 8
    assert len(counts) > 20


def test_files_stay_short():
    """A file of the package can be read in one sitting."""
    lengths = {str(file.relative_to(ROOT)): len(file.read_text("utf-8").splitlines()) for file in FILES}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}
    assert len(lengths) > 20


def test_the_page_of_the_architecture_names_files_that_exist():
    """Whoever follows the page finds each file it names, and each function of the walk in its file."""
    page = (ROOT / "docs" / "develop" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:\w+/)*\w+\.(?:py|js|css|toml|json))`", page))
    assert {name for name in named if not ((PACKAGE / name).is_file() or (ROOT / name).is_file())} == set()
    assert len(named) > 60
    steps = re.findall(r"^\d+\. .*?`((?:\w+/)*\w+\.py)`, `(?:(\w+)\.)?(\w+)`", page, re.MULTILINE)
    missing = [step for step in steps if f"def {step[2]}(" not in (PACKAGE / step[0]).read_text("utf-8")]
    assert missing == []
    assert 10 <= len(steps) <= 15
