"""What a user waits for before the first run: the import, `%load_ext`, the first cells, the command line.

Each figure is taken in a fresh kernel or process, beside `import ipywidgets` in an equal fresh kernel, or
beside a Python that does nothing.
"""

import json
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: A person types the first prompt for about so long.
TYPING_S = 2.0
_TIMED = (
    "import time as _time; _begun, _used = _time.perf_counter(), _time.thread_time()\n"
    "{call}\n"
    "print('seconds', _time.perf_counter() - _begun, _time.thread_time() - _used)"
)
_IMPORTS = ("kling_nb", "ipywidgets", "aiohttp", "requests", "fal_client", "runwayml")
_COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "kling-nb --version": ["-c", "from kling_nb.__main__ import main; main()", "--version"],
    "kling-nb --help": ["-c", "from kling_nb.__main__ import main; main()", "--help"],
    "kling-nb runs": ["-c", "from kling_nb.__main__ import main; main()", "runs"],
    **{f"import {name}": ["-c", f"import {name}"] for name in _IMPORTS},
}


@contextmanager
def _kernel(env: dict[str, str]):
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=env["HOME"], env=env, extra_arguments=["--log-level=ERROR"])
    client = manager.blocking_client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=120)
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _seconds(client: Any, call: str) -> tuple[float, float]:
    """How long a call kept the cell, and the time of the processor on the cell's own thread."""
    printed = []

    def shown(message: dict) -> None:
        if message["msg_type"] == "stream":
            printed.append(message["content"]["text"])

    answer = client.execute_interactive(_TIMED.format(call=call), output_hook=shown, timeout=120)
    if answer["content"]["status"] != "ok":
        raise RuntimeError("\n".join(answer["content"]["traceback"]))
    found = re.search(r"seconds ([\d.e-]+) ([\d.e-]+)", "".join(printed))
    assert found is not None
    return float(found[1]), float(found[2])


def _first_cells(env: dict[str, str], *, pause_s: float) -> dict[str, tuple[float, float]]:
    with _kernel(env) as client:
        client.execute_interactive("1 + 1", output_hook=lambda _: None, timeout=120)
        loading = _seconds(client, "get_ipython().run_line_magic('load_ext', 'kling_nb')")
        time.sleep(pause_s)
        cell = "get_ipython().run_cell_magic('kling', '{} -d 3', '{}')"
        first = _seconds(client, cell.format("fox", "A red fox in snow"))
        second = _seconds(client, cell.format("hare", "A hare in snow"))
    typed = "typed for 2 s" if pause_s else "at once"
    return {
        f"%load_ext kling_nb{'' if pause_s else ' (again)'}": loading,
        f"first %%kling, {typed}": first,
        f"second %%kling{'' if pause_s else ' (again)'}": second,
    }


def _yardstick(env: dict[str, str]) -> dict[str, tuple[float, float]]:
    with _kernel(env) as client:
        client.execute_interactive("1 + 1", output_hook=lambda _: None, timeout=120)
        return {"import ipywidgets (kernel)": _seconds(client, "import ipywidgets")}


def _command(env: dict[str, str], words: list[str]) -> tuple[float, float]:
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words], env=env, cwd=env["HOME"], capture_output=True, check=False
    )
    took, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (took, cpu) if done.returncode == 0 else (float("nan"), float("nan"))


def measure(scene: Any, *, rounds: int) -> dict[str, Any]:
    """Take every figure once a round, after one round that warms files and byte code."""
    scene.reset()
    found: dict[str, list[float]] = {}
    used: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        env = {**scene.environment(), "KLING_NB_PROVIDER": "runcomfy"}
        kernels = [
            lambda env=env: _yardstick(env),
            lambda env=env: _first_cells(env, pause_s=TYPING_S),
            lambda: _first_cells({**scene.environment(), "KLING_NB_PROVIDER": "runcomfy"}, pause_s=0),
        ]
        turn = number % len(kernels)
        took: dict[str, tuple[float, float]] = {}
        for act in kernels[turn:] + kernels[:turn]:
            took |= act()
        names = list(_COMMANDS)
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            took[name] = _command(env, _COMMANDS[name])
        if number:
            for name, (wall, cpu) in took.items():
                found.setdefault(name, []).append(wall)
                used.setdefault(name, []).append(cpu)
    return {
        "wall_ms": {name: statistics.median(times) * 1000 for name, times in found.items()},
        "least_ms": {name: min(times) * 1000 for name, times in found.items()},
        "cpu_ms": {name: statistics.median(times) * 1000 for name, times in used.items()},
    }


def raw_download(origin: str) -> float:
    """Fetch the server's clip over a plain socket into a file: what no client can beat by much."""
    host, port = origin.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as line:
        body = json.dumps({"prompt": "raw", "duration": 3})
        line.sendall(
            f"POST /runcomfy/v1/models/kling HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        run_id = json.loads(line.recv(65_536).partition(b"\r\n\r\n")[2])["request_id"]
        begun = time.perf_counter()
        line.sendall(f"GET /clips/{run_id}.mp4 HTTP/1.1\r\n\r\n".encode())
        head, _, first = line.recv(65_536).partition(b"\r\n\r\n")
        size = re.search(rb"Content-Length: (\d+)", head)
        assert size is not None
        buffer, left = memoryview(bytearray(1 << 20)), int(size[1]) - len(first)
        with Path("raw.mp4").open("wb") as file:
            file.write(first)
            while left:
                count = line.recv_into(buffer)
                file.write(buffer[:count])
                left -= count
        return time.perf_counter() - begun


if __name__ == "__main__":
    print(json.dumps({"seconds": raw_download(json.loads(sys.argv[2])["origin"])}), flush=True)
    os._exit(0)
