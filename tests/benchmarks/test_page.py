"""The page of the benchmarks says what was measured."""

import subprocess
import sys

from support.paths import ROOT


def test_no_figure_of_the_page_was_typed():
    """The page is what the kept results make, to the letter."""
    bench = ROOT / "tests" / "benchmarks" / "bench.py"
    done = subprocess.run(
        [sys.executable, bench, "--check"], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
