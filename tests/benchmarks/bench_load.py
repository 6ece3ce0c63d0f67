"""Time what a user waits for: `%load_ext kling_nb`, the first and the second cell that submits.

Not a test: machines differ. Each figure is measured beside `import ipywidgets` in an equal fresh kernel, in
turn, and given as a median and as a ratio to that. `python tests/bench_load.py [REPETITIONS]`
"""

import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from support.kernels import Kernel, kernel_in

TIMED = (
    "import time as _time; _begun = _time.perf_counter()\n"
    "get_ipython().{call}\n"
    "print('seconds', _time.perf_counter() - _begun)"
)


def seconds(kernel: Kernel, call: str) -> float:
    """Run one call of the shell in the kernel, and give how long the kernel took over it."""
    answer = kernel.run(TIMED.format(call=call))
    if answer.status != "ok":
        raise RuntimeError("\n".join(answer.error))
    return float(answer.text.split("seconds")[-1])


def ours(kernel: Kernel) -> dict[str, float]:
    """Time loading and two submitting cells; the runs go on while the cells return."""
    return {
        "%load_ext kling_nb": seconds(kernel, "run_line_magic('load_ext', 'kling_nb')"),
        "first %%kling cell": seconds(kernel, "run_cell_magic('kling', 'fox -d 3', 'A red fox in snow')"),
        "second %%kling cell": seconds(kernel, "run_cell_magic('kling', 'hare -d 3', 'A hare in snow')"),
    }


def yardstick(kernel: Kernel) -> dict[str, float]:
    """Time the import that every notebook with widgets pays for."""
    return {"import ipywidgets": seconds(kernel, "run_cell('import ipywidgets')")}


def measure(act: Callable[[Kernel], dict[str, float]]) -> dict[str, float]:
    """Do it in a fresh kernel with nothing of the user's."""
    with tempfile.TemporaryDirectory() as folder:
        for name in list(os.environ):
            if name.startswith(("KLING_NB_", "RUNFLOW_", "RUNCOMFY_")):
                del os.environ[name]
        os.environ["KLING_NB_LEDGER"] = str(Path(folder) / "ledger.db")
        with kernel_in(folder) as kernel:
            kernel.run("1 + 1")
            return act(kernel)


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    found: dict[str, list[float]] = {}
    # One round unmeasured, so that files and byte code are warm for both.
    for number in range(repetitions + 1):
        for act in (yardstick, ours):
            for name, took in measure(act).items():
                if number:
                    found.setdefault(name, []).append(took)
    unit = statistics.median(found["import ipywidgets"])
    print(f"{'fresh kernel, ' + str(repetitions) + ' times':<24}{'median':>12}{'range':>22}{'ratio':>8}")
    for name, times in found.items():
        middle = statistics.median(times)
        spread = f"{min(times) * 1000:.1f} to {max(times) * 1000:.1f}"
        print(f"{name:<24}{middle * 1000:>9.1f} ms{spread:>19} ms{middle / unit:>8.2f}")


if __name__ == "__main__":
    main()
